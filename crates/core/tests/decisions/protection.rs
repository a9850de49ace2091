//! What is shown of protection between two records.

use std::time::Duration;

use crate::world::World;
use tier0_core::observe::ProcessState;
use tier0_core::record::Protection;

const SECOND: Duration = Duration::from_secs(1);

/// The row that puts it in doubt, if one does.
fn doubt(world: &World) -> Option<String> {
    match world.core.protection_of(&world.time(), &"pg1".parse().unwrap()).unwrap() {
        Protection::AtRisk { reason } => {
            Some(reason.split_once('(').unwrap().1.split_once(')').unwrap().0.to_owned())
        }
        Protection::Protected => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn protected__while_the_member_streams_and_the_agent_answers() {
    let world = World::protected(1, 1);
    assert_eq!(doubt(&world), None);
}

#[test]
fn writers_agent_silent__nothing_is_claimed() {
    let mut world = World::protected(1, 1);
    world.agent("region1").down = true;
    world.run(SECOND);
    assert_eq!(doubt(&world).as_deref(), Some("S02"));
}

#[test]
fn member_gone__at_risk_until_it_leaves_or_comes_back() {
    let mut world = World::protected(1, 1);
    world.server("pg1.region2").process = ProcessState::Silent;
    world.run(300 * Duration::from_millis(1));
    assert_eq!(doubt(&world).as_deref(), Some("S06"));
    world.server("pg1.region2").process = ProcessState::Running;
    world.run(300 * Duration::from_millis(1));
    assert_eq!(doubt(&world), None);
}

#[test]
fn names_changed_behind_its_back__at_risk() {
    let mut world = World::protected(1, 1);
    world.server("pg1.region1").names = String::new();
    world.run(300 * Duration::from_millis(1));
    assert_eq!(doubt(&world).as_deref(), Some("S04"));
}

#[test]
fn a_join_is_given_longer_each_time_and_never_longer_than_a_stall() {
    let millis = Duration::from_millis;
    let mut limits = crate::world::settings(1, 0).limits;
    (limits.join, limits.stall) = (millis(300), millis(1_000));
    let given = |join| {
        let limits = tier0_core::orchestrator::Limits { join, ..limits.clone() };
        [0, 1, 2, 3, 4_000].map(|failures| limits.next_join(failures))
    };
    assert_eq!(given(millis(300)), [300, 600, 1_000, 1_000, 1_000].map(millis));
    // Whoever lets a join take longer than a stall has said so.
    assert_eq!(given(millis(1_500)), [millis(1_500); 5]);
}
