//! Loss is accepted beside an old side that has just died, at every tenth of a second before it counts as
//! silent: nobody has said that it is down, so the writer may not move (P4, L5). And the way to it is
//! lost at once after the writer has moved: it may serve on, so that nobody is promoted beside it.

use std::time::Duration;

use tier0_core::orchestrator::Consent;
use tier0_core::order::{Order, Outcome};
use tier0_core::steps::Step;

use super::Verdict;
use crate::world::World;

/// One copy, and nobody who follows it.
fn exposed() -> World {
    let mut world = World::protected(1, 0);
    world.server("pg1.region2").streaming_as = None;
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.run(Duration::from_secs(3));
    assert_eq!(world.stored.protection().word(), "exposed");
    world
}

/// Every moment at which an operator may accept a loss too early.
pub fn accepted_loss() -> Verdict {
    let mut looked = 0;
    for dead_for in (0..10).map(|tenths| Duration::from_millis(100 * tenths)) {
        let mut world = exposed();
        let epoch = world.stored.epoch;
        world.kill_region("region1");
        world.run(dead_for);
        world.ask("region2", Consent::AcceptLoss);
        world.run(Duration::from_secs(2));
        if world.stored.epoch != epoch {
            return Err(format!(
                "{dead_for:?} after the old side died the writer moves to where no member is"
            ));
        }
        looked += 1;
    }
    let mut world = exposed();
    world.hand = None;
    world.ask("region2", Consent::AcceptLoss);
    world.stop_at = Some(Step::Stop);
    world.run(Duration::from_secs(1));
    assert!(world.stopped_core, "{:#?}", world.log);
    world.agent("region1").down = true;
    world.restart_core("second-run");
    world.run(Duration::from_secs(3));
    if world.server("pg1.region2").primary {
        return Err(
            "promoted beside an old primary that nobody is known to have stopped".to_owned()
        );
    }
    Ok(looked + 1)
}
