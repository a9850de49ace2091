//! What a fault happens to, as an operator names it: a site, a link, a process, or one of the
//! processes that a PostgreSQL server consists of.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::network::End;
use crate::plan::{APPLICATION_USER, DATABASE};
use crate::processes::{self, Identity};
use crate::state::LabState;
use crate::status;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everything at a site: `region1`.
    Site(End),
    /// The link between two: `region1-region2`.
    Link(End, End),
    /// A process as `lab status` names it, with its children but for data servers: `main.region1`,
    /// `agent.region2`.
    Process(String),
    /// One kind of the processes of a PostgreSQL server: `main.region1/walsender`.
    Part(String, Part),
}

/// The processes of a PostgreSQL server that are worth a fault of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first of them alone.
    Postmaster,
    /// Those that serve the application.
    Backend,
    /// Those that send WAL to a standby.
    Walsender,
    /// The one that receives WAL.
    Walreceiver,
    /// The one that writes checkpoints and puts new sync names into force.
    Checkpointer,
    /// The one that replays WAL.
    Startup,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] = [
        Part::Postmaster,
        Part::Backend,
        Part::Walsender,
        Part::Walreceiver,
        Part::Checkpointer,
        Part::Startup,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Postmaster => "postmaster",
            Part::Backend => "backend",
            Part::Walsender => "walsender",
            Part::Walreceiver => "walreceiver",
            Part::Checkpointer => "checkpointer",
            Part::Startup => "startup",
        }
    }

    /// Whether a child of a postmaster with this title is one.
    fn has_title(self, title: &str) -> bool {
        match self {
            Part::Postmaster => false,
            Part::Backend => title.contains(&format!(" {APPLICATION_USER} {DATABASE} ")),
            Part::Walsender | Part::Walreceiver | Part::Checkpointer | Part::Startup => {
                title.split_whitespace().any(|word| word == self.name())
            }
        }
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Target> {
        if let Ok(end) = text.parse() {
            return Ok(Target::Site(end));
        }
        if let Some((one, other)) = text.split_once('-')
            && let (Ok(one), Ok(other)) = (one.parse(), other.parse())
        {
            if one == other {
                bail!("'{text}' is no link: both ends are the same");
            }
            return Ok(Target::Link(one, other));
        }
        let Some((name, part)) = text.split_once('/') else {
            return Ok(Target::Process(text.to_owned()));
        };
        let known = Part::ALL.into_iter().find(|one| one.name() == part);
        let part = known.with_context(|| {
            let names: Vec<&str> = Part::ALL.into_iter().map(Part::name).collect();
            format!("'{part}' is none of {}", names.join(", "))
        })?;
        Ok(Target::Part(name.to_owned(), part))
    }
}

/// A process of the lab by its name; an error that lists the names where there is none.
pub fn named(state: &LabState, name: &str) -> Result<Option<Identity>> {
    let mut all = status::look(state)?.processes;
    // Links that ended cannot be had again: what they carry is cut instead.
    all.retain(|one| one.kind != "links");
    let Some(found) = all.iter().find(|one| one.name == name) else {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        bail!("the lab has no process {name}; there are: {}", names.join(", "));
    };
    Ok(found.pid.and_then(processes::identify))
}

/// The processes of one kind of a server.
pub fn parts(state: &LabState, name: &str, part: Part) -> Result<Vec<Identity>> {
    let first = named(state, name)?.with_context(|| format!("{name} does not run"))?;
    if part == Part::Postmaster {
        return Ok(vec![first]);
    }
    let all = processes::of_lab(&state.directory, state.uid);
    let children = all.iter().filter(|one| one.parent == first.pid);
    let wanted = children
        .filter(|one| processes::title(one.identity).is_some_and(|title| part.has_title(&title)));
    let found: Vec<Identity> = wanted.map(|one| one.identity).collect();
    if found.is_empty() {
        bail!("{name} has no {} now", part.name());
    }
    Ok(found)
}

/// A process and everything below it that has no name of its own: an agent's data servers are not
/// part of the agent.
pub fn tree(state: &LabState, name: &str) -> Result<Vec<Identity>> {
    let first = named(state, name)?.with_context(|| format!("{name} does not run"))?;
    let named: Vec<i32> =
        status::look(state)?.processes.into_iter().filter_map(|one| one.pid).collect();
    let mut all = processes::of_lab(&state.directory, state.uid);
    all.retain(|one| !named.contains(&one.identity.pid));
    let mut found = vec![first];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|one| one.parent == parent.pid).map(|one| one.identity));
        next += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_said() {
        let read = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(read("region1"), Target::Site(End::Region1));
        assert_eq!(read("region1-witness"), Target::Link(End::Region1, End::Witness));
        assert_eq!(read("main-2.region1"), Target::Process("main-2.region1".to_owned()));
        assert_eq!(read("telemetry-api.region1"), Target::Process("telemetry-api.region1".into()));
        let part = Target::Part("main.region2".to_owned(), Part::Walreceiver);
        assert_eq!(read("main.region2/walreceiver"), part);
        assert!("region1-region1".parse::<Target>().is_err());
        assert!("main.region1/bgwriter".parse::<Target>().is_err());
    }

    #[test]
    fn titles_tell_what_a_process_of_postgres_is() {
        let backend = "postgres: tier0user tier0_db 198.19.0.254(51000) INSERT waiting for 0/3";
        assert!(Part::Backend.has_title(backend));
        assert!(!Part::Walsender.has_title(backend));
        assert!(
            Part::Walsender.has_title("postgres: walsender replication_user 10.0.0.1(5) streaming")
        );
        assert!(Part::Checkpointer.has_title("postgres: checkpointer "));
        assert!(Part::Startup.has_title("postgres: startup recovering 000000010000000000000003"));
    }
}
