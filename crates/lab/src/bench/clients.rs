//! What clients saw around each operation, from the ledger: every write's time from when it was
//! due until it was acknowledged, and for how long nothing was.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::run::{ClientView, Run, Window};
use crate::ledger::{WritePath, WriterLedger, read_directory};

/// Fill in what the ledger in `directory` says about these runs.
pub fn fill_in(runs: &mut [&mut Run], directory: &Path) -> Result<()> {
    let ledgers = read_directory(directory)?;
    for run in runs {
        run.clients =
            WritePath::ALL.iter().filter_map(|path| view(*path, run.window, &ledgers)).collect();
    }
    Ok(())
}

fn view(path: WritePath, window: Window, ledgers: &[WriterLedger]) -> Option<ClientView> {
    let from = Duration::from_micros(window.from_us);
    let to = Duration::from_micros(window.to_us);
    let of_path = || ledgers.iter().filter(move |ledger| ledger.header.path == path);
    let gap = of_path()
        .flat_map(|ledger| &ledger.acknowledged)
        .filter(|entry| entry.due <= to && entry.at >= from)
        .map(|entry| entry.at.saturating_sub(entry.due))
        .max()?;
    let mut answers: Vec<Duration> =
        of_path().flat_map(|ledger| &ledger.acknowledged).map(|entry| entry.at).collect();
    answers.sort_unstable();
    // What began in the window may have ended after it.
    let unserved = answers
        .windows(2)
        .filter(|pair| pair[0] <= to && pair[1] >= from)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max();
    let unknown = of_path()
        .flat_map(|ledger| &ledger.unknown)
        .filter(|entry| entry.at >= from && entry.at <= to)
        .count();
    Some(ClientView {
        path,
        gap_ms: gap.as_secs_f64() * 1_000.0,
        unserved_ms: unserved.map(|unserved| unserved.as_secs_f64() * 1_000.0),
        unknown: u64::try_from(unknown).unwrap_or(u64::MAX),
    })
}
