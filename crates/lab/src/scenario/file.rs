//! What a scenario file may say. Everything in it is read and checked before a lab is brought up.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use super::Played;
use crate::fault::Fault;
use crate::fault::target::Target;
use crate::ledger::WritePath;
use crate::network::shape::{Change, Connections};

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens, and why it is worth a file.
    pub story: String,
    /// How the sites are apart.
    #[serde(default)]
    pub apart: Apart,
    /// What happens, in order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
    /// What must be so in the end.
    #[serde(default)]
    pub expect: Expect,
}

/// How the sites are apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apart {
    /// By their addresses only.
    #[default]
    Loopback,
    /// By network namespaces, so that links can be cut; needs root.
    Namespaces,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Time passes.
    Wait {
        /// How much.
        ms: u64,
    },
    /// Something breaks; see `tier0 lab fault list`.
    Break(Break),
    /// What is broken is mended.
    Heal {
        /// Of what; of everything if it is not said.
        what: Option<String>,
    },
    /// A link becomes a bad one, in both directions, until everything is mended.
    Link(Bad),
    /// A link is gone and there again, over and over.
    Flap {
        /// Which, or a site with all its links.
        what: String,
        /// How often.
        times: u64,
        /// For how long it is gone each time.
        gone_ms: u64,
        /// For how long it is there in between.
        there_ms: u64,
    },
    /// Somebody commands a move.
    Failover {
        /// Where to.
        to: String,
        /// How it must end.
        #[serde(default)]
        ends: Ends,
    },
    /// Wait until this region is the writer.
    Writer {
        /// Which.
        is: String,
        /// For how long at most.
        within_ms: u64,
    },
    /// Wait until the stack is protected.
    Protected {
        /// For how long at most.
        within_ms: u64,
    },
}

/// What breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// What.
    pub what: String,
    /// How.
    pub how: String,
}

impl Break {
    /// As the lab understands it.
    pub fn parse(&self) -> Result<(Target, Fault)> {
        let target = self.what.parse().with_context(|| format!("break {}", self.what))?;
        let Ok(fault) = Fault::from_str(&self.how, false) else {
            bail!("'{}' is no fault; see: tier0 lab fault list", self.how);
        };
        Ok((target, fault))
    }
}

/// How bad a link is, in the words of `tier0 lab link`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// Which, or a site with all its links.
    pub what: String,
    /// How much later each packet arrives.
    pub delay: Option<String>,
    /// By how much more or less.
    pub jitter: Option<String>,
    /// How many packets vanish.
    pub loss: Option<String>,
    /// How much fits through.
    pub rate: Option<String>,
    /// How many packets arrive twice.
    pub doubled: Option<String>,
    /// How many TCP packets end their connection.
    pub reset: Option<String>,
    /// The largest packet that passes, in bytes.
    pub largest: Option<u16>,
    /// Which TCP connections pass: `all`, `open` or `new`.
    pub connections: Option<Connections>,
}

impl Bad {
    /// As the lab understands it.
    pub fn parse(&self) -> Result<(Target, Change)> {
        fn of<T: FromStr<Err = anyhow::Error>>(text: &Option<String>) -> Result<Option<T>> {
            text.as_deref().map(str::parse).transpose()
        }
        let change = Change {
            flow: None,
            delay: of(&self.delay)?,
            jitter: of(&self.jitter)?,
            loss: of(&self.loss)?,
            rate: of(&self.rate)?,
            doubled: of(&self.doubled)?,
            reset: of(&self.reset)?,
            largest: self.largest,
            connections: self.connections,
        };
        if change == Change::default() {
            bail!("{} is to become a bad link, and it is not said how", self.what);
        }
        Ok((self.what.parse().with_context(|| format!("link {}", self.what))?, change))
    }
}

/// How a commanded move ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// It succeeds.
    #[default]
    Succeeded,
    /// It is refused.
    Refused,
    /// As it may.
    Anyhow,
    /// As it may, and the story goes on meanwhile.
    Unseen,
}

/// What must be so in the end, beside that nothing is lost.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Who is the writer.
    pub writer: Option<String>,
    /// How often the writer has moved.
    pub moves: Option<u64>,
    /// How long a PostgreSQL client may have waited at most.
    pub longest_wait_ms: Option<u64>,
    /// What Redis may have lost without `WAIT`.
    #[serde(default)]
    pub redis: RedisMay,
}

/// What becomes of Redis writes that no replica had confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisMay {
    /// They are there as well.
    #[default]
    LoseNothing,
    /// They may be gone.
    LoseUnconfirmed,
}

impl Scenario {
    /// Read a file.
    pub fn read(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read the scenario {}", path.display()))?;
        Scenario::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        if scenario.story.trim().is_empty() {
            bail!("it tells no story");
        }
        for step in &scenario.steps {
            match step {
                Step::Break(one) => {
                    let (_, fault) = one.parse()?;
                    let cuts = matches!(fault, Fault::Cut | Fault::CutIn | Fault::CutOut);
                    if cuts && scenario.apart == Apart::Loopback {
                        bail!("only sites that are apart = \"namespaces\" can be cut");
                    }
                    if matches!(fault, Fault::DiskFull | Fault::DiskStuck) {
                        bail!("a lab for scenarios has no disks of its own");
                    }
                }
                Step::Link(bad) => {
                    bad.parse()?;
                    if scenario.apart == Apart::Loopback {
                        bail!("only links of sites that are apart = \"namespaces\" can be bad");
                    }
                }
                Step::Flap { what, .. } => {
                    what.parse::<Target>().with_context(|| format!("flap {what}"))?;
                    if scenario.apart == Apart::Loopback {
                        bail!("only links of sites that are apart = \"namespaces\" can flap");
                    }
                }
                Step::Heal { what: Some(what) } => {
                    what.parse::<Target>().with_context(|| format!("heal {what}"))?;
                }
                Step::Heal { what: None }
                | Step::Wait { .. }
                | Step::Failover { .. }
                | Step::Writer { .. }
                | Step::Protected { .. } => {}
            }
        }
        Ok(scenario)
    }
}

impl Expect {
    /// Each condition, and whether it holds.
    pub fn judge(&self, played: &Played) -> Vec<(bool, String)> {
        let report = &played.report;
        let promised = [WritePath::Postgres, WritePath::RedisWait];
        let (checked, missing) = (report.checked(&promised), report.missing(&promised).len());
        let unconfirmed = report.missing(&[WritePath::Redis]).len();
        let mut conditions = vec![
            (checked > 0 && missing == 0, format!("{checked} promised writes, {missing} missing")),
            (report.duplicates().is_empty(), format!("{} twice", report.duplicates().len())),
            (
                unconfirmed == 0 || self.redis == RedisMay::LoseUnconfirmed,
                format!("{unconfirmed} Redis writes missing that no replica had confirmed"),
            ),
            (
                played.protected_after.is_some(),
                match played.protected_after {
                    Some(time) => format!("protected {:.1} s after the end", time.as_secs_f64()),
                    None => "not protected again after the end".to_owned(),
                },
            ),
        ];
        if let Some(writer) = &self.writer {
            let is = played.writer.as_deref().unwrap_or("unknown");
            conditions.push((is == writer, format!("the writer is {is}, expected is {writer}")));
        }
        if let Some(moves) = self.moves {
            let were = played.moves.map_or("unknown".to_owned(), |moves| moves.to_string());
            let holds = played.moves == Some(moves);
            conditions.push((holds, format!("the writer moved {were} times, expected is {moves}")));
        }
        if let Some(most) = self.longest_wait_ms.map(Duration::from_millis) {
            let wait = played.longest_wait;
            let holds = wait.is_some_and(|wait| wait <= most);
            let wait = wait.map_or(0, |wait| wait.as_millis());
            conditions.push((holds, format!("a client waited {wait} ms, allowed are {most:?}")));
        }
        conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_repository_is_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
        let read: Vec<Scenario> = files.map(|path| Scenario::read(&path).unwrap()).collect();
        assert!(read.len() >= 5, "only {} scenarios", read.len());
    }

    #[test]
    fn what_cannot_be_played_is_refused_before_anything_is_brought_up() {
        let with = |rest: &str| Scenario::parse(&format!("story = \"a\"\n{rest}"));
        assert!(with("[[step]]\ndo = \"wait\"\nms = 5\n").is_ok());
        assert!(with("[[step]]\ndo = \"break\"\nwhat = \"region1\"\nhow = \"cut\"\n").is_err());
        assert!(with("[[step]]\ndo = \"break\"\nwhat = \"region1\"\nhow = \"melt\"\n").is_err());
        assert!(with("[[step]]\ndo = \"heal\"\nwhat = \"region1-region1\"\n").is_err());
        assert!(with("[[step]]\ndo = \"dance\"\n").is_err());
        let slow = "[[step]]\ndo = \"link\"\nwhat = \"region1-region2\"\ndelay = \"40ms\"\n";
        assert!(with(slow).is_err());
        let apart = format!("apart = \"namespaces\"\n{slow}");
        assert!(with(&apart).is_ok());
        assert!(with(&apart.replace("40ms", "40")).is_err());
        assert!(with(&apart.replace("delay = \"40ms\"\n", "")).is_err());
        assert!(with("steps = []\n").is_err());
        assert!(Scenario::parse("story = \" \"\n[[step]]\ndo = \"wait\"\nms = 5\n").is_err());
    }
}
