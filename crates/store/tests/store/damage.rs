//! Flipped bits and cut files: whatever is done to the files, the store is refused, or it opens
//! with the newest acknowledged record.

use std::fs;
use std::path::Path;

use tier0_core::record::Record;
use tier0_store::{AuthorityStore, Embedded, JournalBatch, OpenError, Swapped};

use crate::sample::{after, entry, first, summary};

const FILES: [&str; 3] = ["store.db", "store.db-wal", "initialised"];

/// The files of a store that have something in them. SQLite leaves an empty WAL behind when it
/// cannot open what is beside it, which says nothing.
struct Image(Vec<(&'static str, Vec<u8>)>);

impl Image {
    fn take(directory: &Path) -> Image {
        let read = |name| {
            let bytes = fs::read(directory.join(name)).ok()?;
            (!bytes.is_empty()).then_some((name, bytes))
        };
        Image(FILES.into_iter().filter_map(read).collect())
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.0.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.as_slice()).unwrap()
    }

    fn put(&self, directory: &Path) {
        for name in FILES {
            let _ = fs::remove_file(directory.join(name));
        }
        for (name, bytes) in &self.0 {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
}

/// A store with some swaps and journal entries, as its files are after a clean close and as they
/// are while it is open, which is how a crash leaves them; with its newest record.
fn images() -> (Image, Image, Record) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(directory.path()).unwrap();
    let mut record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);
    for number in 0..12 {
        let next = after(&record);
        let batch = JournalBatch::from(summary(number)).with_entry(entry(number, "an intent"));
        let swapped = store.swap_with_journal(&record.heard(), &next, &batch).unwrap();
        assert_eq!(swapped, Swapped::Stored);
        record = next;
    }
    let crashed = Image::take(directory.path());
    drop(store);
    (Image::take(directory.path()), crashed, record)
}

#[derive(Default)]
struct Tally {
    opened: u32,
    refused: u32,
}

impl Tally {
    /// Open what lies in the directory and judge it.
    fn judge(&mut self, directory: &Path, newest: &Record, what: &str) {
        let before = Image::take(directory);
        match Embedded::open(directory) {
            Ok(mut store) => {
                assert_eq!(store.load().unwrap().as_ref(), Some(newest), "{what}: wrong record");
                self.opened += 1;
            }
            Err(
                error @ (OpenError::Damaged { .. }
                | OpenError::Lost { .. }
                | OpenError::UnknownVersion { .. }
                | OpenError::Sqlite { .. }),
            ) => {
                let after = Image::take(directory);
                assert!(after.0 == before.0, "{what}: refused ({error}), and files were changed");
                self.refused += 1;
            }
            Err(
                error @ (OpenError::Access { .. }
                | OpenError::Exposed { .. }
                | OpenError::NetworkFileSystem { .. }
                | OpenError::InUse { .. }
                | OpenError::OldSqlite { .. }),
            ) => panic!("{what}: {error}"),
        }
    }
}

fn damage(image: &Image, file: &'static str, newest: &Record, case: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let whole = image.bytes(file);
    let mut flipped = Tally::default();
    // Every byte of the header, then a stride that is prime to every size in the file.
    let offsets = (0..100).chain((100..whole.len()).step_by(211));
    for (turn, offset) in offsets.enumerate() {
        image.put(path);
        let mut bytes = whole.to_vec();
        bytes[offset] ^= 1 << (turn % 8);
        fs::write(path.join(file), bytes).unwrap();
        flipped.judge(path, newest, &format!("{case}: bit {} of byte {offset}", turn % 8));
    }
    let mut cut = Tally::default();
    for length in (0..whole.len()).step_by(whole.len() / 60) {
        image.put(path);
        fs::write(path.join(file), &whole[..length]).unwrap();
        cut.judge(path, newest, &format!("{case}: cut to {length} bytes"));
    }
    image.put(path);
    let mut sound = Tally::default();
    sound.judge(path, newest, case);
    assert_eq!(sound.opened, 1, "{case}: undamaged");
    println!(
        "{case}: {} flips ({} opened rightly, {} refused), {} cuts ({} opened rightly, {} refused)",
        flipped.opened + flipped.refused,
        flipped.opened,
        flipped.refused,
        cut.opened + cut.refused,
        cut.opened,
        cut.refused
    );
    assert!(flipped.refused > 0 && cut.refused > 0);
}

#[test]
fn damaged_file_never_gives_a_wrong_record() {
    let (closed, crashed, newest) = images();
    damage(&closed, "store.db", &newest, "file after a clean close");
    damage(&closed, "initialised", &newest, "marker after a clean close");
    damage(&crashed, "store.db-wal", &newest, "WAL after a crash");
    assert!(crashed.bytes("store.db-wal").len() > 10_000);
}
