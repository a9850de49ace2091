//! The agents of both sides answer. Without the target's there is nobody to promote; without the
//! old side's the operation goes on, by the takeover set alone.

use crate::guard::Guard;
use crate::orchestrator::Consent;

use super::{Finding, Level, Question};

pub fn check(question: &Question) -> Vec<Finding> {
    let silence = question.settings.limits.silence;
    let silent = |region| question.seen.agent_silent(region, question.now, silence);
    let target = match silent(question.target) {
        Some(why) => Finding::new("target-agent-silent", Level::Fail, None, why),
        None => Finding::new(
            "target-agent-silent",
            Level::Pass,
            None,
            format!("the agent of {} answers", question.target),
        ),
    };
    let old = match (silent(&question.record.writer), question.consent) {
        (Some(why), Consent::AcceptLoss) if Guard::LossNeedsOldSideDown.holds() => Finding::new(
            "old-side-not-known-down",
            Level::Fail,
            None,
            format!(
                "{why}; to accept loss while the old side may still be serving, say also that it \
                 is down (--old-side-is-down)"
            ),
        ),
        (Some(why), Consent::None | Consent::AcceptLoss | Consent::AcceptLossOldSideIsDown) => {
            Finding::new("old-agent-silent", Level::Warn, None, why)
        }
        (None, _) => Finding::new(
            "old-agent-silent",
            Level::Pass,
            None,
            format!("the agent of {} answers", question.record.writer),
        ),
    };
    vec![target, old]
}
