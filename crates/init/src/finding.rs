//! What was found, and the exact lines that mend it.

use serde::Serialize;
use tier0_core::words::NodeId;

/// How a finding stands to what tier0 needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it must be.
    Ok,
    /// Worth knowing; nothing depends on it.
    Note,
    /// It takes effect at the next start, at a time of the operator's choice.
    NeedsRestart,
    /// tier0 does not work without it, and it can be had while the server runs.
    Missing,
    /// The servers cannot be taken over like this.
    Wrong,
}

impl Level {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::NeedsRestart => "restart",
            Level::Missing => "missing",
            Level::Wrong => "wrong",
        }
    }
}

/// How a finding is mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Remedy {
    /// SQL on the primary, as a superuser. `--apply` runs it.
    Sql {
        /// In which database.
        database: String,
        /// The statements; a password is named by its file.
        lines: Vec<String>,
    },
    /// Commands for Redis or Sentinel. `--apply` runs them.
    Redis {
        /// Which server, `host:port`.
        server: String,
        /// The commands; a password is named by its file.
        lines: Vec<String>,
    },
    /// Lines of configuration files. `--apply` writes them where it runs on the server's host as
    /// the server's user.
    Files {
        /// Of which node.
        node: NodeId,
        /// Each file with what it gets.
        files: Vec<FileLines>,
    },
    /// Something that only the operator can do.
    Operator {
        /// Commands or sentences.
        lines: Vec<String>,
    },
}

/// Lines for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileLines {
    /// Its path.
    pub path: String,
    /// Where in it.
    pub place: &'static str,
    /// What.
    pub lines: String,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which node or server.
    pub subject: String,
    /// Stable code.
    pub code: &'static str,
    /// How it stands.
    pub level: Level,
    /// With what was seen.
    pub sentence: String,
    /// How it is mended.
    pub remedy: Option<Remedy>,
}

impl Finding {
    /// A finding without a remedy.
    pub fn new(
        subject: impl ToString,
        code: &'static str,
        level: Level,
        sentence: impl Into<String>,
    ) -> Finding {
        let sentence = sentence.into();
        Finding { subject: subject.to_string(), code, level, sentence, remedy: None }
    }

    /// With a remedy.
    pub fn by(mut self, remedy: Remedy) -> Finding {
        self.remedy = Some(remedy);
        self
    }
}

/// SQL on the primary.
pub fn sql(database: &str, lines: impl IntoIterator<Item = String>) -> Remedy {
    Remedy::Sql { database: database.to_owned(), lines: lines.into_iter().collect() }
}

/// Something for the operator.
pub fn operator(lines: impl IntoIterator<Item = String>) -> Remedy {
    Remedy::Operator { lines: lines.into_iter().collect() }
}
