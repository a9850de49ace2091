//! What commits do after the move while there is no standby: with `max-protection` they wait until
//! the old side has joined again, or an operator says that they go on (P9). Nothing to say with
//! `max-availability`.

use crate::observe::ProtectionMode;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "commits-will-wait";

pub fn check(question: &Question, name: &DatastoreName) -> Option<Finding> {
    let shape = question.settings.shape.datastores.get(name)?;
    if shape.protection != ProtectionMode::MaxProtection {
        return None;
    }
    let old = question.old_node(name);
    let comes_back = question.old_agent_answers() && question.writer_serves(name);
    let (level, until) = match comes_back {
        true => (Level::Pass, format!("{old} has joined again")),
        false => (
            Level::Warn,
            format!(
                "{old}, which does not answer, is back and has joined, or `tier0 expose {name}`"
            ),
        ),
    };
    let sentence = format!("max-protection: after the move commits wait until {until}");
    Some(Finding::new(CODE, level, Some(name), sentence))
}
