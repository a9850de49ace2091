//! An operation that has moved the writer and cannot open a datastore there: it keeps trying, and
//! nothing else waits for it. What is open is repaired, and a new operation leads out of it.

use std::time::Duration;

use crate::world::{World, region};
use tier0_core::orchestrator::{Consent, Ended};
use tier0_core::order::{Order, Outcome};
use tier0_core::record::ClaimPhase;
use tier0_core::steps::Step;
use tier0_core::words::OperationId;

const SECOND: Duration = Duration::from_secs(1);

/// `pg2` cannot be promoted in region2, and is moved there.
fn closed() -> (World, OperationId) {
    let mut world = World::protected(2, 1);
    world.hand = Some(Box::new(|command| {
        let promotes = matches!(command.order, Order::PostgresPromote { .. });
        let lost = promotes && command.node.to_string() == "pg2.region2";
        lost.then(|| Outcome::Failed { why: "there is no data".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(10 * SECOND);
    assert!(matches!(world.last_end(&id), Ended::Failed { .. }), "{:#?}", world.log);
    (world, id)
}

fn word(world: &World, datastore: &str) -> String {
    world.stored.datastores[&datastore.parse().unwrap()].protection.word().to_owned()
}

#[test]
fn closed__what_is_open_is_protected_again_meanwhile() {
    let (mut world, id) = closed();
    assert_eq!(word(&world, "pg1"), "protected", "{:#?}", world.log);
    assert_eq!(word(&world, "pg2"), "exposed");
    assert!(world.server("redis1.region1").follows.is_some(), "{:#?}", world.log);
    let claim = world.stored.claim.clone().unwrap();
    assert_eq!((claim.operation, claim.phase), (id.clone(), ClaimPhase::After));
    // A run that begins anew goes on with it, and leaves the new member alone.
    world.restart_core("second-run");
    world.run(10 * SECOND);
    assert_eq!(word(&world, "pg1"), "protected", "{:#?}", world.log);
    world.hand = None;
    world.run(10 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(world.stored.protection().word(), "protected");
    world.assert_safe();
}

#[test]
fn closed__a_new_operation_leads_back_to_the_side_that_has_everything() {
    let (mut world, id) = closed();
    let refused = world.ask("region1", Consent::None);
    world.run(SECOND);
    assert!(matches!(world.last_end(&refused), Ended::Refused { refusal }
        if refusal.code == "not-in-takeover-set"));
    let back = world.ask("region1", Consent::AcceptLoss);
    world.run(SECOND);
    assert_eq!(*world.last_end(&back), Ended::Succeeded, "{:#?}", world.log);
    assert!(matches!(world.last_end(&id), Ended::Failed { .. }), "it is over, and not well");
    assert_eq!(world.stored.writer, region("region1"));
    assert!(world.stored.claim.is_none());
    for name in ["pg1", "pg2", "redis1"] {
        assert!(world.server(&format!("{name}.region1")).primary, "{name}: {:#?}", world.log);
    }
    world.run(5 * SECOND);
    assert_eq!(word(&world, "pg1"), "protected", "{:#?}", world.log);
    // Whatever its other copy may hold is a person's to give up.
    assert!(world.stored.held.contains_key(&"pg2.region2".parse().unwrap()));
    world.rebuild("pg2.region2");
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn closed__the_way_back_is_undone__it_is_tried_again_as_before() {
    let (mut world, id) = closed();
    // Whoever takes over before the point of no return undoes it.
    world.stop_at = Some(Step::Pause);
    let back = world.ask("region1", Consent::AcceptLoss);
    world.run(SECOND);
    let claim = world.stored.claim.clone().unwrap();
    assert_eq!((claim.operation, claim.phase), (back.clone(), ClaimPhase::Before));
    assert_eq!(claim.superseded.unwrap().operation, id);
    world.stop_at = None;
    world.restart_core("second-run");
    world.run(5 * SECOND);
    assert!(matches!(world.last_end(&back), Ended::Aborted { .. }), "{:#?}", world.log);
    let claim = world.stored.claim.clone().unwrap();
    assert_eq!((claim.operation, claim.phase), (id.clone(), ClaimPhase::After));
    assert_eq!(world.stored.writer, region("region2"));
    world.hand = None;
    world.run(10 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(world.stored.protection().word(), "protected");
    world.assert_safe();
}
