//! A datastore whose commits never go on with a single copy by themselves (P9).

use std::time::Duration;

use crate::asked;
use crate::world::{World, region};
use tier0_core::observe::{ProcessState, ProtectionMode};
use tier0_core::orchestrator::{Asked, Consent, Ended, Input, Orchestrator, Request};
use tier0_core::readiness::Level;
use tier0_core::record::AutomaticMode;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A stack that has come up by itself.
fn waiting() -> World {
    let mut world = World::new_with(1, 0, |settings| {
        for datastore in settings.shape.datastores.values_mut() {
            datastore.protection = ProtectionMode::MaxProtection;
        }
    });
    world.run(5 * SECOND);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    world.log.clear();
    world.ended.clear();
    world
}

fn protection(world: &World) -> &'static str {
    world.stored.protection().word()
}

/// Let time pass; the writer's commits wait for somebody all the time.
fn run_without_a_gap(world: &mut World, time: Duration) {
    for _ in 0..time.as_millis() / 10 {
        world.run(10 * MS);
        let writer = format!("pg1.{}", world.stored.writer);
        let names = world.server(&writer).names.clone();
        assert!(!names.is_empty(), "commits of {writer} wait for nobody: {:#?}", world.log);
        assert_ne!(protection(world), "exposed", "{:#?}", world.log);
    }
}

fn explained(world: &World, row: &str) -> bool {
    world.log.iter().any(|line| *line == format!("row {row} pg1"))
}

fn expose(world: &mut World) {
    let what = Asked::Expose { datastore: "pg1".parse().unwrap() };
    let (by, reason) = ("test".to_owned(), "test".to_owned());
    let id = format!("aaaaaaaa-{:04}", world.fresh).parse().unwrap();
    world.fresh += 1;
    world.queue.push_back(Input::Asked(Request { id, what, by, reason }));
}

#[test]
fn member_silent__commits_wait_until_it_is_back() {
    let mut world = waiting();
    world.server("pg1.region2").process = ProcessState::Silent;
    run_without_a_gap(&mut world, 20 * SECOND);
    assert!(explained(&world, "P19"), "{:#?}", world.log);
    // It holds all that was acknowledged, and may still be promoted.
    assert_eq!(world.stored.datastores.values().next().unwrap().takeover.len(), 1);
    assert_eq!(world.server("pg1.region1").names, "pg1.region2#1");
    world.server("pg1.region2").process = ProcessState::Running;
    run_without_a_gap(&mut world, SECOND);
    assert!(explained(&world, "P09"), "{:#?}", world.log);
}

#[test]
fn commit_waits_for_a_frozen_member__nobody_is_degraded() {
    let mut world = waiting();
    world.server("pg1.region1").commit_wait_ms = 5_000;
    run_without_a_gap(&mut world, 5 * SECOND);
    assert!(explained(&world, "P19"), "{:#?}", world.log);
    assert!(!explained(&world, "P08"), "{:#?}", world.log);
}

#[test]
fn member_ended__it_follows_and_joins_again_while_commits_wait() {
    let mut world = waiting();
    let server = world.server("pg1.region2");
    server.process = ProcessState::Stopped;
    server.streaming_as = None;
    run_without_a_gap(&mut world, 10 * SECOND);
    assert!(explained(&world, "P20"), "{:#?}", world.log);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region1").names, "pg1.region2#2");
}

#[test]
fn switchover__commits_wait_on_the_new_side_until_the_old_one_has_joined() {
    let mut world = waiting();
    let id = world.ask("region2", Consent::None);
    run_without_a_gap(&mut world, 5 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region2").names, "pg1.region1#2");
    world.assert_safe();
}

#[test]
fn region_killed__the_new_writer_waits_until_it_is_back() {
    let mut world = waiting();
    world.arm(AutomaticMode::Armed);
    world.kill_region("region1");
    world.run(2 * SECOND);
    assert_eq!(world.stored.writer, region("region2"), "{:#?}", world.log);
    run_without_a_gap(&mut world, 20 * SECOND);
    assert_eq!(protection(&world), "at-risk", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region2").names, "pg1.region1#0");
    assert!(explained(&world, "P11"), "{:#?}", world.log);
    world.agent("region1").down = false;
    run_without_a_gap(&mut world, 10 * SECOND);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn operator_exposes__commits_go_on_and_wait_again_after_the_next_join() {
    let mut world = waiting();
    world.kill_region("region1");
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    expose(&mut world);
    world.run(SECOND);
    assert!(world.refused.is_empty(), "{:?}", world.refused);
    assert_eq!(protection(&world), "exposed", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region2").names, "");
    world.run(10 * SECOND);
    assert_eq!(protection(&world), "exposed", "{:#?}", world.log);
    world.agent("region1").down = false;
    world.run(10 * SECOND);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    world.server("pg1.region1").process = ProcessState::Silent;
    run_without_a_gap(&mut world, 10 * SECOND);
}

#[test]
fn operator_exposes_while_the_member_is_lost() {
    let mut world = waiting();
    world.server("pg1.region2").process = ProcessState::Silent;
    run_without_a_gap(&mut world, 3 * SECOND);
    expose(&mut world);
    world.run(SECOND);
    assert_eq!(protection(&world), "exposed", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region1").names, "");
}

#[test]
fn writer_ends_while_commits_wait__clients_stay_out_until_a_standby_has_joined() {
    let mut world = waiting();
    world.agent("region2").down = true;
    let server = world.server("pg1.region2");
    server.process = ProcessState::Stopped;
    server.streaming_as = None;
    run_without_a_gap(&mut world, 3 * SECOND);
    let server = world.server("pg1.region1");
    server.process = ProcessState::Stopped;
    server.admitted = false;
    world.run(5 * SECOND);
    assert_eq!(world.server("pg1.region1").process, ProcessState::Running);
    assert!(!world.server("pg1.region1").admitted, "{:#?}", world.log);
    world.agent("region2").down = false;
    run_without_a_gap(&mut world, 15 * SECOND);
    assert_eq!(protection(&world), "protected", "{:#?}", world.log);
    assert!(world.server("pg1.region1").admitted, "{:#?}", world.log);
}

#[test]
fn names_taken_away_by_hand_while_commits_wait__they_are_put_back() {
    let mut world = waiting();
    world.kill_region("region1");
    world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    world.server("pg1.region2").names = String::new();
    world.run(2 * SECOND);
    assert!(explained(&world, "P21"), "{:#?}", world.log);
    assert_eq!(world.server("pg1.region2").names, "pg1.region1#0");
}

#[test]
fn max_availability_again_while_commits_wait__they_go_on_and_that_is_recorded() {
    let mut world = waiting();
    world.kill_region("region1");
    world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    let mut settings = world.core.settings().clone();
    for datastore in settings.shape.datastores.values_mut() {
        datastore.protection = ProtectionMode::MaxAvailability;
    }
    world.core = Orchestrator::new(settings, "between".to_owned());
    world.restart_core("second-run");
    world.run(5 * SECOND);
    assert_eq!(protection(&world), "exposed", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region2").names, "");
}

#[test]
fn readiness__says_beforehand_that_commits_will_wait() {
    let mut world = waiting();
    let found = |world: &World| asked::found(world, world.core.seen(), "commits-will-wait");
    assert_eq!(found(&world).level, Level::Pass);
    world.agent("region1").down = true;
    world.run(2 * SECOND);
    let finding = found(&world);
    assert_eq!(finding.level, Level::Warn);
    assert!(finding.sentence.contains("tier0 expose pg1"), "{}", finding.sentence);
}
