//! A small content that is replaced in place, durably, with one flush of its data.
//!
//! Writing beside and renaming makes the file system commit its journal twice. On a disk that a
//! database writes to, that took 11 ms where this takes 3, and a switch waits for it several times.
//! So the file has its full size from the beginning, and four places. A content is written to both
//! places of the pair that is not the newest: a write that was cut off leaves the pair before it, and
//! a place that went bad leaves its twin. Only if both went bad is the content before taken for the
//! newest. What the content means is not known here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The size of a place, in bytes: what an agent keeps for a node is below a thousandth of it, unless a
/// list of thousands of open transactions is part of it.
const PLACE: usize = 1 << 18;
const PLACES: usize = 4;
const SIZE: u64 = (PLACE * PLACES) as u64;
/// What a place begins with.
const TITLE: &str = "tier0-agent-state";

/// Why there is no content.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The file system refused.
    File(io::Error),
    /// It is not what was written.
    Damaged(String),
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    sequence: u64,
}

impl Slots {
    /// Open the file, and read its newest content. One that is not there is made with `first`.
    pub(crate) fn open(path: &Path, first: &[u8]) -> Result<(Slots, Vec<u8>), Unreadable> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Slots::read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Slots::make(path, first).map_err(Unreadable::File)
            }
            Err(error) => Err(Unreadable::File(error)),
        }
    }

    fn make(path: &Path, first: &[u8]) -> io::Result<(Slots, Vec<u8>)> {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        for _ in 0..PLACES {
            file.write_all(&[0; PLACE])?;
        }
        let mut slots = Slots { file, sequence: 0 };
        slots.replace(first)?;
        slots.file.sync_all()?;
        fs::rename(&new, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok((slots, first.to_owned()))
    }

    fn read(file: File) -> Result<(Slots, Vec<u8>), Unreadable> {
        let size = file.metadata().map_err(Unreadable::File)?.len();
        if size != SIZE {
            return Err(Unreadable::Damaged(format!("it is {size} bytes long, not {SIZE}")));
        }
        let mut place = vec![0; PLACE];
        let mut newest: Option<(u64, Vec<u8>)> = None;
        for at in 0..PLACES {
            file.read_exact_at(&mut place, (at * PLACE) as u64).map_err(Unreadable::File)?;
            if let Some((sequence, content)) = unsealed(&place)
                && newest.as_ref().is_none_or(|(newest, _)| sequence > *newest)
            {
                newest = Some((sequence, content.to_owned()));
            }
        }
        let (sequence, content) =
            newest.ok_or_else(|| Unreadable::Damaged("no checksum fits".to_owned()))?;
        Ok((Slots { file, sequence }, content))
    }

    /// Replace the content. Durable when it returns; the one before is still there if it fails.
    pub(crate) fn replace(&mut self, content: &[u8]) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let sealed = sealed(sequence, content);
        if sealed.len() > PLACE {
            let error = format!("{} bytes are too much, {PLACE} may be kept", sealed.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        let pair = if sequence.is_multiple_of(2) { 0 } else { 2 };
        for at in [pair, pair + 1] {
            self.file.write_all_at(&sealed, (at * PLACE) as u64)?;
        }
        self.file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }
}

/// A content with its number, its length and a checksum of all three, in a line before it.
fn sealed(sequence: u64, content: &[u8]) -> Vec<u8> {
    let sum = checksum(sequence, content);
    let mut sealed = format!("{TITLE} {sequence} {} {sum}\n", content.len()).into_bytes();
    sealed.extend_from_slice(content);
    sealed
}

/// The number and the content of a place, if it holds what was written.
fn unsealed(place: &[u8]) -> Option<(u64, &[u8])> {
    let end = place.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&place[..end]).ok()?;
    let mut words = line.split(' ');
    let (TITLE, sequence, length) =
        (words.next()?, words.next()?.parse().ok()?, words.next()?.parse::<usize>().ok()?)
    else {
        return None;
    };
    let content = place.get(end + 1..)?.get(..length)?;
    (words.next()? == checksum(sequence, content) && words.next().is_none())
        .then_some((sequence, content))
}

fn checksum(sequence: u64, content: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{sequence} {}\n", content.len()));
    hasher.update(content);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(contents: &[&[u8]]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut slots, _) = Slots::open(&path, b"first").unwrap();
        for content in contents {
            slots.replace(content).unwrap();
        }
        (directory, path)
    }

    fn newest(path: &Path) -> Vec<u8> {
        Slots::open(path, b"another first").unwrap().1
    }

    #[test]
    fn the_newest_content_is_there_after_a_restart() {
        let mut contents: Vec<&[u8]> = Vec::new();
        for content in [&b"second"[..], b"third, which is longer", b"4", b"", b"sixth"] {
            contents.push(content);
            let (_directory, path) = written(&contents);
            assert_eq!(newest(&path), content);
        }
        let (_directory, path) = written(&[]);
        assert_eq!(newest(&path), b"first");
    }

    #[test]
    fn one_place_that_went_bad_changes_nothing() {
        let (_directory, path) = written(&[b"second", b"third"]);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        for at in 0..PLACES {
            for byte in (at * PLACE..).take(sealed(3, b"third").len()) {
                for bit in 0..8 {
                    changed[byte] ^= 1 << bit;
                    let found = changed
                        .chunks(PLACE)
                        .filter_map(unsealed)
                        .max_by_key(|(number, _)| *number);
                    assert_eq!(found, Some((3, &b"third"[..])), "bit {bit} of byte {byte}");
                    changed[byte] = whole[byte];
                }
            }
        }
        fs::write(&path, [&[0; PLACE * 3][..], &whole[PLACE * 3..]].concat()).unwrap();
        assert_eq!(newest(&path), b"third");
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_one_before() {
        let (_directory, path) = written(&[b"second", b"third, and then the lights go out"]);
        let before = fs::read(&path).unwrap();
        let (mut slots, _) = Slots::open(&path, b"").unwrap();
        slots.replace(b"the fourth is as long as the third").unwrap();
        let after = fs::read(&path).unwrap();
        // Any part of what is new may have reached the disk.
        let differs: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        for cut in (0..differs.len() / 2).step_by(7) {
            let mut torn = before.clone();
            for at in &differs[cut..differs.len() - cut - 1] {
                torn[*at] = after[*at];
            }
            fs::write(&path, &torn).unwrap();
            let found = newest(&path);
            let whole =
                [&b"third, and then the lights go out"[..], b"the fourth is as long as the third"];
            assert!(whole.contains(&&found[..]), "{}", String::from_utf8_lossy(&found));
        }
    }

    #[test]
    fn what_is_not_such_a_file_is_refused() {
        let (_directory, path) = written(&[b"second"]);
        let whole = fs::read(&path).unwrap();
        for (text, what) in [
            (&whole[..whole.len() - 1], "bytes long"),
            (&whole[..0], "bytes long"),
            (&[0; PLACE * PLACES][..], "no checksum fits"),
        ] {
            fs::write(&path, text).unwrap();
            let Err(Unreadable::Damaged(why)) = Slots::open(&path, b"") else { panic!() };
            assert!(why.contains(what), "{why}");
        }
    }

    #[test]
    fn too_much_is_refused_and_the_one_before_stays() {
        let (_directory, path) = written(&[b"second"]);
        let (mut slots, _) = Slots::open(&path, b"").unwrap();
        assert!(slots.replace(&[b'x'; PLACE]).is_err());
        assert_eq!(newest(&path), b"second");
        slots.replace(b"third").unwrap();
        assert_eq!(newest(&path), b"third");
    }
}
