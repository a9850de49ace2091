//! Places at which a test can make a role end, hang or do a thing twice.
//!
//! Without the feature `enabled` every place is an empty function: a release build has none of it,
//! not even the name of the environment variable; `make test` looks for the feature.
//!
//! With it, `TIER0_FAILPOINT_FILE` names a file. Each of its lines is `point step action`: the
//! point's name, a step's name or `*`, and `exit`, `hang` or `twice`. The first line that fits is
//! taken out of the file and done, so a line fires once, in whichever process comes there first.

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Go on.
    Once,
    /// Do what comes next twice.
    Twice,
}

/// A place was reached, on the way of a step.
#[cfg(not(feature = "enabled"))]
pub async fn reached(_point: &'static str, _step: &str) -> Reached {
    Reached::Once
}

/// A place was reached, on the way of a step.
#[cfg(feature = "enabled")]
pub async fn reached(point: &'static str, step: &str) -> Reached {
    match enabled::take(point, step).as_deref() {
        Some("exit") => std::process::exit(86),
        Some("hang") => loop {
            tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        },
        Some("twice") => Reached::Twice,
        Some(_) | None => Reached::Once,
    }
}

/// Whether this build has failpoints.
pub const ENABLED: bool = cfg!(feature = "enabled");

#[cfg(feature = "enabled")]
mod enabled {
    /// Take the first line that fits out of the file.
    pub fn take(point: &str, step: &str) -> Option<String> {
        let path = std::env::var_os("TIER0_FAILPOINT_FILE")?;
        let text = std::fs::read_to_string(&path).ok()?;
        let mut lines: Vec<&str> = text.lines().collect();
        let place = lines.iter().position(|line| {
            let mut words = line.split_whitespace();
            let fits = words.next() == Some(point);
            let of = words.next();
            fits && (of == Some("*") || of == Some(step))
        })?;
        let line = lines.remove(place).to_owned();
        // A test that cannot have its line taken out would see it fire for ever.
        std::fs::write(&path, lines.join("\n")).ok()?;
        line.split_whitespace().nth(2).map(ToOwned::to_owned)
    }
}
