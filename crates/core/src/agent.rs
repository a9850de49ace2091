//! What an agent obeys: the one decision it takes by itself, as a pure function (R1, R2).

use crate::guard::Guard;
use crate::order::{Command, Outcome, Refusal};
use crate::words::{Heard, Stamp, StampVerdict};

/// What an agent remembers durably of one node.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obeyed {
    /// The newest command that was obeyed.
    pub command: Command,
    /// What came of it; `None` if the agent ended before it knew.
    pub outcome: Option<Outcome>,
}

/// What to do with a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Persist it, perform it, persist the outcome.
    Obey,
    /// It was performed before: answer this.
    Answer(Outcome),
    /// It was begun before and its outcome is not known: perform it again.
    Again,
    /// It must not be performed.
    Refuse(Refusal),
}

/// Judge a command by what was heard and what was obeyed for its node.
pub fn judge(heard: Option<&Heard>, obeyed: Option<&Obeyed>, command: &Command) -> Judgement {
    let stamp = &command.stamp;
    if let Some(heard) = heard {
        if heard.lineage != stamp.lineage && Guard::ForeignLineage.holds() {
            return Judgement::Refuse(Refusal::new(
                "foreign-lineage",
                format!(
                    "the command is of lineage {}, this agent follows {}",
                    stamp.lineage, heard.lineage
                ),
            ));
        }
        if stamp.epoch < heard.epoch && Guard::OldEpoch.holds() {
            return Judgement::Refuse(Refusal::new(
                "old-epoch",
                format!("the command is of epoch {}, epoch {} was heard", stamp.epoch, heard.epoch),
            ));
        }
    }
    let Some(obeyed) = obeyed else { return Judgement::Obey };
    match stamp.against(&obeyed.command.stamp) {
        StampVerdict::Newer => Judgement::Obey,
        StampVerdict::Older if !Guard::OldStamp.holds() => Judgement::Obey,
        StampVerdict::Older => Judgement::Refuse(Refusal::new(
            "old-command",
            format!("{} was obeyed, {} is older", obeyed.command.stamp, stamp),
        )),
        StampVerdict::ForeignLineage => Judgement::Refuse(Refusal::new(
            "foreign-lineage",
            "the newest command obeyed is of another lineage",
        )),
        StampVerdict::Same
            if obeyed.command.order != command.order && Guard::SameStampOtherOrder.holds() =>
        {
            Judgement::Refuse(Refusal::new(
                "same-stamp-other-order",
                format!("{stamp} was obeyed with another order"),
            ))
        }
        StampVerdict::Same => match &obeyed.outcome {
            Some(outcome) if Guard::AnsweredOnce.holds() => Judgement::Answer(outcome.clone()),
            Some(_) | None => Judgement::Again,
        },
    }
}

/// What an agent has heard after a stamp or a poll; `None` if the news is of another lineage.
pub fn hear(heard: Option<&Heard>, news: &Heard) -> Option<Heard> {
    match heard {
        None => Some(news.clone()),
        Some(heard) if heard.lineage != news.lineage => None,
        Some(heard) => {
            if news.covers(heard) || !Guard::HeardOnlyGrows.holds() {
                Some(news.clone())
            } else {
                Some(heard.clone())
            }
        }
    }
}

/// What a stamp says of the record it was given under.
pub fn heard_in(stamp: &Stamp) -> Heard {
    Heard { lineage: stamp.lineage.clone(), epoch: stamp.epoch, revision: stamp.revision }
}
