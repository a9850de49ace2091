//! The writer's server is down, and its agent has not heard that another region is the writer: a start
//! that it was told before may still be on its way, so that nobody is promoted before its lease is over
//! (L3). Looked at at every tenth of a second after the move.

use std::time::Duration;

use tier0_core::observe::ProcessState;
use tier0_core::order::Outcome;
use tier0_core::record::AutomaticMode;

use super::Verdict;
use crate::world::{World, region};

const TENTH: Duration = Duration::from_millis(100);

/// Every moment between the move and the end of the lease.
pub fn down_without_news() -> Verdict {
    let mut world = World::protected(1, 0);
    world.arm(AutomaticMode::Armed);
    world.deaf = Some(region("region1"));
    world.hand = Some(Box::new(|command| {
        let lost = *command.node.region() == region("region1");
        lost.then(|| Outcome::Unknown { why: "lost".to_owned() })
    }));
    world.server("pg1.region1").process = ProcessState::Stopped;
    for _ in 0..100 {
        if world.stored.writer == region("region2") {
            break;
        }
        world.run(Duration::from_millis(10));
    }
    assert_eq!(world.stored.writer, region("region2"), "{:#?}", world.log);
    let mut looked = 0;
    for tenth in 0..10 {
        if world.server("pg1.region2").primary {
            return Err(format!(
                "{:?} after the move it is promoted, and the old side's agent has not heard of it",
                TENTH * tenth
            ));
        }
        looked += 1;
        world.run(TENTH);
    }
    world.run(TENTH * 5);
    if !world.server("pg1.region2").primary {
        return Err("nobody is promoted though the lease is over".to_owned());
    }
    Ok(looked)
}
