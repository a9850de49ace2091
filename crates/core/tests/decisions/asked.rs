//! The question that readiness answers: may the writer move to region2, in a world as its orchestrator
//! has seen it, or as a test says that it was seen.

use tier0_core::orchestrator::{Consent, Seen};
use tier0_core::readiness::{Finding, Question, judge};
use tier0_core::words::Region;

use crate::world::{World, region};

/// The question, where this was seen.
pub fn question<'a>(world: &'a World, seen: &'a Seen, target: &'a Region) -> Question<'a> {
    Question {
        settings: world.core.settings(),
        record: world.core.record().unwrap(),
        seen,
        lag: world.core.lag(),
        timing: world.core.timing(),
        now: world.time().moment,
        target,
        consent: Consent::None,
    }
}

/// The finding of this code, where this was seen.
pub fn found(world: &World, seen: &Seen, code: &str) -> Finding {
    let target = region("region2");
    let mut findings = judge(&question(world, seen, &target)).into_iter();
    findings.find(|finding| finding.code == code).unwrap()
}
