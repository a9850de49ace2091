//! What came of a soak: one line of JSON for each stretch, appended to a file, and the sum of all
//! lines.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A stretch of rounds, after which the ledger was read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it ended.
    pub ended: String,
    /// The commit of the build.
    pub commit: String,
    /// What its rounds were drawn from.
    pub seed: u64,
    /// How the sites were apart.
    pub sites: String,
    /// Its first round.
    pub from_round: u64,
    /// The round to go on with.
    pub next_round: u64,
    /// How long it took.
    pub seconds: u64,
    /// How much was broken.
    pub faults: u64,
    /// How much was broken at once, in the whole round where that was least.
    pub overlapping: Option<u64>,
    /// Changes of the writer.
    pub moves: u64,
    /// How many of them were commanded, and answered so.
    pub commanded: u64,
    /// Writes that were acknowledged and looked for, on every path.
    pub acknowledged: u64,
    /// Promised ones that are gone; also of the stretch before, which is read back once more.
    pub lost: u64,
    /// Writes that are there more than once.
    pub twice: u64,
    /// Redis writes that no replica had confirmed, and that are gone: no promise.
    pub unconfirmed_gone: u64,
    /// Writes that got no answer in time.
    pub unknown: u64,
    /// The longest wait of a PostgreSQL client.
    pub worst_wait_ms: u64,
    /// The longest time until a round was protected again after everything was mended.
    pub protected_worst_s: f64,
    /// What went wrong, where something did.
    pub failure: Option<String>,
}

/// All stretches of a file.
#[derive(Debug, Default)]
pub struct Total {
    /// Each line.
    pub stretches: Vec<Stretch>,
}

impl Stretch {
    /// Moves whose writes were read back; others prove nothing.
    pub fn proven_moves(&self) -> u64 {
        if self.acknowledged > 0 { self.moves } else { 0 }
    }
}

impl Total {
    /// Read a file; one that is not there holds nothing.
    pub fn read(path: &Path) -> Result<Total> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let stretches = text.lines().enumerate().map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}:{} is no stretch", path.display(), number + 1))
        });
        Ok(Total { stretches: stretches.collect::<Result<_>>()? })
    }

    /// The sum of a figure.
    pub fn sum(&self, figure: impl Fn(&Stretch) -> u64) -> u64 {
        self.stretches.iter().map(figure).sum()
    }

    /// The round after the last one of a seed.
    pub fn next_round(&self, seed: u64) -> Option<u64> {
        self.stretches.iter().filter(|one| one.seed == seed).map(|one| one.next_round).max()
    }

    /// With 95 % certainty at most this part of the moves loses a promised write: the rule of
    /// three, which says nothing once one was lost.
    pub fn bound(&self) -> Option<f64> {
        let moves = self.sum(Stretch::proven_moves);
        (moves > 0 && self.sum(|one| one.lost) == 0).then(|| 3.0 / moves as f64)
    }

    /// The sum, for people.
    pub fn text(&self) -> String {
        let largest = |figure: &dyn Fn(&Stretch) -> u64| self.stretches.iter().map(figure).max();
        let protected = self.stretches.iter().map(|one| one.protected_worst_s).fold(0.0, f64::max);
        let failed = self.stretches.iter().filter(|one| one.failure.is_some()).count();
        let bound = match self.bound() {
            Some(bound) => format!(
                "at most {:.2} % of moves lose a promised write, with 95 % certainty",
                bound * 100.0
            ),
            None => "no bound can be given".to_owned(),
        };
        format!(
            "{} moves of the writer ({} commanded) among {} faults, in each round at least {} at \
             once, in {} rounds, {} s\n{} writes acknowledged: {} promised ones lost, {} twice; {} \
             unconfirmed Redis writes gone\n{} writes without an answer; longest wait of a \
             PostgreSQL client {} ms\nprotected again at most {protected:.1} s after a round; \
             {failed} stretches failed\n{bound}",
            self.sum(Stretch::proven_moves),
            self.sum(|one| one.commanded),
            self.sum(|one| one.faults),
            self.stretches.iter().filter_map(|one| one.overlapping).min().unwrap_or_default(),
            self.sum(|one| one.next_round - one.from_round),
            self.sum(|one| one.seconds),
            self.sum(|one| one.acknowledged),
            self.sum(|one| one.lost),
            self.sum(|one| one.twice),
            self.sum(|one| one.unconfirmed_gone),
            self.sum(|one| one.unknown),
            largest(&|one| one.worst_wait_ms).unwrap_or_default(),
        )
    }
}

/// Append a line, and have it on the disk.
pub fn append(path: &Path, stretch: &Stretch) -> Result<()> {
    let line = serde_json::to_string(stretch).context("serialise the result")? + "\n";
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    // At once, so that whoever is killed meanwhile leaves a whole line or none.
    file.write_all(line.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("append to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(seed: u64, next_round: u64, moves: u64, lost: u64) -> Stretch {
        Stretch {
            ended: "2026-01-01T00:00:00Z".to_owned(),
            commit: "unknown".to_owned(),
            seed,
            sites: "loopback".to_owned(),
            from_round: next_round - 2,
            next_round,
            seconds: 30,
            faults: 7,
            overlapping: Some(3),
            moves,
            commanded: 1,
            acknowledged: 1_000,
            lost,
            twice: 0,
            unconfirmed_gone: 0,
            unknown: 3,
            worst_wait_ms: 900,
            protected_worst_s: 4.5,
            failure: None,
        }
    }

    #[test]
    fn what_was_appended_is_read_again_and_added_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("soak.jsonl");
        assert_eq!(Total::read(&path).unwrap().next_round(7), None);
        append(&path, &stretch(7, 3, 4, 0)).unwrap();
        append(&path, &stretch(8, 9, 1, 0)).unwrap();
        append(&path, &stretch(7, 5, 5, 0)).unwrap();
        let total = Total::read(&path).unwrap();
        assert_eq!((total.next_round(7), total.next_round(8)), (Some(5), Some(9)));
        assert_eq!(total.sum(|one| one.moves), 10);
        assert_eq!(total.bound(), Some(0.3));
        assert!(total.text().contains("at most 30.00 % of moves"), "{}", total.text());
        append(&path, &Stretch { acknowledged: 0, ..stretch(7, 7, 90, 0) }).unwrap();
        let total = Total::read(&path).unwrap();
        assert_eq!((total.next_round(7), total.bound()), (Some(7), Some(0.3)));
        append(&path, &stretch(9, 3, 40, 1)).unwrap();
        assert_eq!(Total::read(&path).unwrap().bound(), None);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(format!("{:#}", Total::read(&path).unwrap_err()).contains("soak.jsonl:1"));
    }
}
