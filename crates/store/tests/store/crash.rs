//! A process that is killed while it swaps: what it acknowledged is there afterwards.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tier0_core::record::Record;
use tier0_store::{AuthorityStore, Embedded, JournalBatch, Swapped};

use crate::sample::{after, entry, first, operation, summary};

const DIRECTORY: &str = "TIER0_TEST_STORE_DIRECTORY";
const ROUNDS: u64 = 50;

/// Not a test of its own: the process that is killed. Says each revision that was acknowledged.
#[test]
#[ignore = "runs as the child of acknowledged_swaps_survive_kill"]
fn child_swaps_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut store = Embedded::open(&PathBuf::from(directory)).unwrap();
    let mut record = store.load().unwrap().unwrap_or_else(|| {
        assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
        first()
    });
    loop {
        let next = after(&record);
        let number = u32::try_from(next.revision.number()).unwrap();
        let batch = JournalBatch::from(summary(number)).with_entry(entry(number, "an intent"));
        assert_eq!(
            store.swap_with_journal(&record.heard(), &next, &batch).unwrap(),
            Swapped::Stored
        );
        println!("\nacknowledged {number}");
        record = next;
    }
}

#[test]
fn acknowledged_swaps_survive_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut total = 0;
    let mut beyond = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child_swaps_until_killed", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("acknowledged ")?.parse::<u64>().ok());
        let seen: Vec<u64> =
            acknowledged.by_ref().take(1 + usize::try_from(round).unwrap() * 7 % 23).collect();
        // Another moment of the write in every round; one takes about 200 µs.
        std::thread::sleep(Duration::from_micros(round * 37 % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        let seen: Vec<u64> = seen.into_iter().chain(acknowledged).collect();
        total += seen.len();
        let acknowledged = *seen.last().expect("the child did not get as far as one swap");

        let mut store = Embedded::open(directory.path()).unwrap();
        let record: Record = store.load().unwrap().unwrap();
        let found = record.revision.number();
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: acknowledged {acknowledged}, found {found}"
        );
        beyond += found - acknowledged;
        let id = operation(u32::try_from(found).unwrap());
        let (_, entries) = store.operation(&id).unwrap().expect("the journal of the last swap");
        assert_eq!(entries.len(), 1);
    }
    println!(
        "{ROUNDS} kills, {total} acknowledged swaps, none lost; {beyond} stored and not yet said"
    );
}
