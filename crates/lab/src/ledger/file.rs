//! The files of a ledger: one per writer, one line per outcome, appended after the answer.
//!
//! `ack 17 1203441 1204002` says: id 17 was due 1.203441 s after the start and acknowledged at
//! 1.204002 s. A line is written by one system call, so that a killed writer leaves whole lines,
//! except perhaps the last, which then does not count.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::WritePath;

/// The version of the files' form.
const VERSION: u32 = 1;
const SUFFIX: &str = "ledger";

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    version: u32,
    /// The writer's name, the first half of each id.
    pub writer: String,
    /// How it writes.
    pub path: WritePath,
    /// Where it writes.
    pub datastore: String,
    /// When the run began, by the wall clock.
    pub begun: String,
}

/// One id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The second half of the id.
    pub sequence: i64,
    /// When it was due, since the start.
    pub due: Duration,
    /// When the outcome was known, since the start.
    pub at: Duration,
}

/// The open file of one writer.
#[derive(Debug)]
pub struct LedgerFile {
    file: File,
}

impl LedgerFile {
    /// Begin the file of a writer.
    pub fn create(
        directory: &Path,
        writer: &str,
        path: WritePath,
        datastore: &str,
    ) -> Result<LedgerFile> {
        let name = directory.join(format!("{writer}.{SUFFIX}"));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&name)
            .with_context(|| format!("create {}", name.display()))?;
        let header = Header {
            version: VERSION,
            writer: writer.to_owned(),
            path,
            datastore: datastore.to_owned(),
            begun: jiff::Timestamp::now().to_string(),
        };
        let mut ledger = LedgerFile { file };
        ledger.line(&serde_json::to_string(&header).context("ledger header")?)?;
        Ok(ledger)
    }

    /// Note an acknowledged id.
    pub fn acknowledged(&mut self, entry: Entry) -> Result<()> {
        self.entry("ack", entry)
    }

    /// Note an id whose outcome nobody knows.
    pub fn unknown(&mut self, entry: Entry) -> Result<()> {
        self.entry("unknown", entry)
    }

    fn entry(&mut self, word: &str, entry: Entry) -> Result<()> {
        let (due, at) = (entry.due.as_micros(), entry.at.as_micros());
        self.line(&format!("{word} {} {due} {at}", entry.sequence))
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.file.write_all(format!("{text}\n").as_bytes()).context("append to the ledger")
    }
}

/// What one writer noted.
#[derive(Debug, Clone)]
pub struct WriterLedger {
    /// Who wrote how and where.
    pub header: Header,
    /// What was acknowledged.
    pub acknowledged: Vec<Entry>,
    /// What had no answer.
    pub unknown: Vec<Entry>,
}

/// Read all files of a ledger.
pub fn read_directory(directory: &Path) -> Result<Vec<WriterLedger>> {
    let mut all = Vec::new();
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("read ledger {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("read the ledger's directory")?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            all.push(read(&path).with_context(|| format!("read {}", path.display()))?);
        }
    }
    all.sort_by(|one, other| one.header.writer.cmp(&other.header.writer));
    Ok(all)
}

fn read(path: &Path) -> Result<WriterLedger> {
    let text = std::fs::read_to_string(path)?;
    // What stands after the last line end is a line that was cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    let header: Header = serde_json::from_str(lines.next().context("it is empty")?)?;
    if header.version != VERSION {
        bail!("it has version {}, this build knows {VERSION}", header.version);
    }
    let mut ledger = WriterLedger { header, acknowledged: Vec::new(), unknown: Vec::new() };
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let [word, sequence, due, at] = fields.as_slice() else { bail!("bad line '{line}'") };
        let entry = Entry {
            sequence: sequence.parse()?,
            due: Duration::from_micros(due.parse()?),
            at: Duration::from_micros(at.parse()?),
        };
        match *word {
            "ack" => ledger.acknowledged.push(entry),
            "unknown" => ledger.unknown.push(entry),
            _ => bail!("bad line '{line}'"),
        }
    }
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: i64) -> Entry {
        let due = Duration::from_micros(sequence as u64 * 10);
        Entry { sequence, due, at: due + Duration::from_micros(3) }
    }

    #[test]
    fn what_was_written_is_read_back_and_a_cut_line_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut file =
            LedgerFile::create(directory.path(), "run-pg-1", WritePath::Postgres, "main").unwrap();
        file.acknowledged(entry(1)).unwrap();
        file.unknown(entry(2)).unwrap();
        file.file.write_all(b"ack 345").unwrap();
        let all = read_directory(directory.path()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].acknowledged, [entry(1)]);
        assert_eq!(all[0].unknown, [entry(2)]);
        assert_eq!(all[0].header.datastore, "main");
    }
}
