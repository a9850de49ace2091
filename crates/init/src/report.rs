//! What `tier0 init` says at its end.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::finding::{Finding, Level, Remedy};
use crate::request::Apply;

/// Everything that was found and done.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The stack file.
    pub stack_file: PathBuf,
    /// Whether it was written now; otherwise it was there.
    pub written: bool,
    /// What was changed.
    pub done: Vec<String>,
    /// What was found, after the changes.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether the roles can be started.
    pub fn is_ready(&self) -> bool {
        is_ready(&self.findings)
    }

    /// For people.
    pub fn text(&self, apply: Apply) -> String {
        let mut text = String::new();
        let how = if self.written { "written" } else { "was there, and was used" };
        text.push_str(&format!("stack file {} {how}\n", self.stack_file.display()));
        for line in &self.done {
            text.push_str(&format!("done     {line}\n"));
        }
        for finding in &self.findings {
            let word = finding.level.word();
            let Finding { subject, code, sentence, .. } = finding;
            text.push_str(&format!("{word:<8} {subject}  {sentence} ({code})\n"));
        }
        let rest = remedies(&self.findings);
        if !rest.is_empty() {
            text.push_str(&format!("\nwhat mends it:\n{rest}"));
        }
        text.push_str(match (self.is_ready(), apply) {
            (true, _) => "\nready: start `tier0 orchestrator` and one `tier0 agent` per region\n",
            (false, Apply::NotConfirmed) => "\nnothing was changed; --apply --yes does it\n",
            (false, Apply::No) => "\nnot ready; --apply --yes does what can be done now\n",
            (false, Apply::Now) => "\nnot ready; see what is missing above\n",
        });
        text
    }
}

/// Whether nothing is missing or wrong.
pub fn is_ready(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Missing)
}

/// The lines of all remedies.
pub fn remedies(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Some(remedy) = &finding.remedy else { continue };
        let mut put = |head: String, lines: &[String]| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n# {} {}: {head}", finding.subject, finding.code);
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        };
        match remedy {
            Remedy::Sql { database, lines } => {
                let lines: Vec<_> = lines.iter().map(|line| format!("{line};")).collect();
                put(format!("on the primary, database {database}"), &lines);
            }
            Remedy::Redis { server, lines } => put(format!("to {server}"), lines),
            Remedy::Operator { lines } => put("by you".to_owned(), lines),
            Remedy::Files { files, .. } => {
                for file in files {
                    let lines: Vec<_> = file.lines.lines().map(str::to_owned).collect();
                    put(format!("{}, {}", file.path, file.place), &lines);
                }
            }
        }
    }
    text
}
