//! When the writer is moved without being asked, and what holds it back.

use std::time::Duration;

use crate::asked::found;
use crate::world::{World, region};
use tier0_core::observe::{OnProcessDeath, ProcessState};
use tier0_core::orchestrator::{Ended, Input};
use tier0_core::order::{Order, Outcome};
use tier0_core::readiness::Level;
use tier0_core::record::AutomaticMode;
use tier0_core::words::Epoch;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn armed() -> World {
    armed_with(1)
}

fn armed_with(redis: usize) -> World {
    let mut world = World::protected(1, redis);
    world.arm(AutomaticMode::Armed);
    world.ended.clear();
    world
}

/// The rows that held moves back, in their order.
fn held(world: &World) -> Vec<&'static str> {
    world.near_misses.iter().map(|near_miss| near_miss.row).collect()
}

fn moved(world: &World) -> bool {
    world.stored.writer == region("region2")
}

#[test]
fn exit__reported_by_its_own_agent__is_acted_on_at_once() {
    let mut world = armed();
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(300 * MS);
    assert!(moved(&world), "{:#?}", world.log);
    let moves = world.ended.iter().find(|(activity, _)| activity.by == "decider row A14");
    assert_eq!(moves.unwrap().1, Ended::Succeeded);
    world.run(10 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    assert!(held(&world).is_empty(), "{:?}", world.near_misses);
    world.assert_safe();
}

#[test]
fn region_killed__is_left_within_the_window_and_taken_back() {
    let mut world = armed();
    world.kill_region("region1");
    world.run(SECOND);
    assert!(moved(&world), "{:#?}", world.log);
    world.agent("region1").down = false;
    world.run(10 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn region_silent__is_left_after_the_window_and_not_before() {
    // What an isolated Redis goes on acknowledging is a matter of leases.
    let mut world = armed_with(0);
    world.silence_region("region1");
    world.run(900 * MS);
    assert!(!moved(&world), "{:#?}", world.log);
    world.run(700 * MS);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn agent_killed__its_server_answers__nothing_moves() {
    let mut world = armed();
    world.agent("region1").down = true;
    world.run(20 * SECOND);
    assert!(!moved(&world));
    assert_eq!(held(&world), ["A05"]);
}

#[test]
fn link_to_the_orchestrator_cut__the_other_region_sees_it__nothing_moves() {
    let mut world = armed();
    world.agent("region1").down = true;
    world.blind = true;
    world.run(20 * SECOND);
    assert!(!moved(&world));
    assert_eq!(held(&world), ["A06"]);
}

#[test]
fn link_between_the_regions_cut__nothing_moves() {
    let mut world = armed();
    world.pair_cut = true;
    world.run(20 * SECOND);
    assert!(!moved(&world));
    assert!(held(&world).is_empty());
}

#[test]
fn both_regions_silent__nothing_moves() {
    let mut world = armed();
    world.agent("region2").down = true;
    world.silence_region("region1");
    world.run(20 * SECOND);
    assert!(!moved(&world));
    assert_eq!(held(&world), ["A07"]);
}

/// Nobody was heard for seconds, and the other region's agent answers again.
fn alone_until_the_other_region_is_heard() -> World {
    let mut world = armed_with(0);
    world.agent("region2").down = true;
    world.silence_region("region1");
    world.run(5 * SECOND);
    world.agent("region2").down = false;
    world
}

#[test]
fn alone_for_seconds__then_the_other_region_is_heard_first__the_writer_is_waited_for() {
    let mut world = alone_until_the_other_region_is_heard();
    world.run(700 * MS);
    assert_eq!(world.core.automatic_row().unwrap().id, "A15");
    world.agent("region1").down = false;
    world.dark = None;
    world.run(20 * SECOND);
    assert!(!moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn alone_for_seconds__then_only_the_other_region_is_heard__the_writer_is_left() {
    let mut world = alone_until_the_other_region_is_heard();
    world.run(2 * SECOND);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn commits_stuck__with_the_process_there__is_acted_on_after_two_windows() {
    let mut world = armed();
    world.server("pg1.region1").stuck_for_ms = 1_500;
    world.run(500 * MS);
    assert!(!moved(&world));
    world.server("pg1.region1").stuck_for_ms = 2_000;
    world.run(2 * SECOND);
    assert!(moved(&world), "{:#?}", world.log);
}

#[test]
fn observed_or_off__it_is_said_once_what_was_not_done_and_the_server_is_restarted() {
    for (mode, row) in [(AutomaticMode::Observe, "A13"), (AutomaticMode::Off, "A11")] {
        let mut world = World::protected(1, 1);
        world.arm(mode);
        world.server("pg1.region1").process = ProcessState::Stopped;
        world.run(5 * SECOND);
        assert!(!moved(&world));
        assert_eq!(held(&world), [row]);
        assert_eq!(world.server("pg1.region1").process, ProcessState::Running);
        world.assert_safe();
    }
}

#[test]
fn exposed__the_writer_is_not_moved_but_started_again() {
    let mut world = armed();
    world.kill_region("region2");
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "exposed");
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.agent("region2").down = false;
    world.run(SECOND);
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(300 * MS);
    assert!(!moved(&world));
    assert_eq!(held(&world), ["A09"]);
}

#[test]
fn second_exit__within_the_cool_down__is_restarted_in_place() {
    let mut world = armed();
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(10 * SECOND);
    assert!(moved(&world));
    world.server("pg1.region2").process = ProcessState::Stopped;
    world.run(10 * SECOND);
    assert_eq!(world.stored.epoch, Epoch::read(2));
    assert_eq!(held(&world), ["A12"]);
    assert_eq!(world.server("pg1.region2").process, ProcessState::Running);
    assert_eq!(world.stored.protection().word(), "protected");
    world.run(60 * SECOND);
    world.server("pg1.region2").process = ProcessState::Stopped;
    world.run(SECOND);
    assert_eq!(world.stored.writer, region("region1"));
    world.assert_safe();
}

#[test]
fn redis_exit__is_restarted_unless_its_death_moves_the_stack() {
    let mut world = armed();
    world.server("redis1.region1").process = ProcessState::Stopped;
    world.run(3 * SECOND);
    assert!(!moved(&world));
    assert_eq!(world.server("redis1.region1").process, ProcessState::Running);

    let mut world = World::new_with(1, 1, |settings| {
        let redis = settings.shape.datastores.get_mut(&"redis1".parse().unwrap()).unwrap();
        redis.on_process_death = OnProcessDeath::Failover;
    });
    world.run(5 * SECOND);
    world.arm(AutomaticMode::Armed);
    world.server("redis1.region1").process = ProcessState::Stopped;
    world.run(SECOND);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn orchestrator_that_has_just_begun__waits_for_a_writer_it_has_not_seen() {
    let mut world = armed_with(0);
    world.silence_region("region1");
    world.restart_core("second-run");
    world.run(5 * SECOND);
    assert!(!moved(&world));
    world.run(7 * SECOND);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn off_for_a_while__ends_by_itself() {
    let mut world = armed();
    world.arm_for(AutomaticMode::Off, 5 * SECOND);
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(2 * SECOND);
    assert!(!moved(&world));
    world.run(8 * SECOND);
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(SECOND);
    assert!(moved(&world), "{:#?}", world.log);
}

#[test]
fn round_trips_longer_than_the_window__more_is_waited_for() {
    let mut world = armed_with(0);
    for _ in 0..1_000 {
        let took = 3 * SECOND;
        world.queue.push_back(Input::RoundTrip { region: region("region1"), took });
    }
    world.silence_region("region1");
    world.run(2_900 * MS);
    assert!(!moved(&world), "{:#?}", world.log);
    world.run(SECOND);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn late_answers_of_a_region_that_was_left__the_next_silence_is_not_waited_for_longer() {
    let mut world = armed_with(0);
    for _ in 0..10 {
        let took = 30 * MS;
        world.queue.push_back(Input::RoundTrip { region: region("region1"), took });
        let took = 3 * SECOND;
        world.queue.push_back(Input::RoundTrip { region: region("region2"), took });
    }
    world.silence_region("region1");
    world.run(1_600 * MS);
    assert!(moved(&world), "{:#?}", world.log);
}

#[test]
fn one_slow_round_trip_of_many__the_window_stays() {
    let mut world = armed_with(0);
    for number in 0..2_000 {
        let took = if number == 1_000 { 9 * SECOND } else { 30 * MS };
        world.queue.push_back(Input::RoundTrip { region: region("region1"), took });
    }
    world.silence_region("region1");
    world.run(1_600 * MS);
    assert!(moved(&world), "{:#?}", world.log);
}

#[test]
fn region_that_looked_dead_and_lived__readiness_says_that_the_window_is_short() {
    let mut world = World::protected(1, 0);
    world.arm(AutomaticMode::Observe);
    let level = |world: &World| found(world, world.core.seen(), "detection-window");
    assert_eq!(level(&world).level, Level::Pass);
    world.silence_region("region1");
    world.run(1_500 * MS);
    assert_eq!(held(&world), ["A13"]);
    world.agent("region1").down = false;
    world.dark = None;
    world.run(SECOND);
    let finding = level(&world);
    assert_eq!(finding.level, Level::Warn, "{finding:?}");
    let silent = finding.number.unwrap();
    assert!((1_400.0..1_800.0).contains(&silent), "{finding:?}");
    assert!(finding.sentence.contains("region1 looked dead from everywhere"), "{finding:?}");
    // For an hour.
    world.now += 3_601 * 1_000_000;
    assert_eq!(level(&world).level, Level::Pass);
}
