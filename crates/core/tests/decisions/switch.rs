//! The orchestrator's core against a small world: what it does, and what it must never do.

use std::time::Duration;

use crate::world::{World, region};
use tier0_core::observe::ProcessState;
use tier0_core::orchestrator::{Consent, Ended, Input, Verdict};
use tier0_core::order::{Order, Outcome};
use tier0_core::steps::Step;
use tier0_core::words::Epoch;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bootstrap__two_of_each__becomes_protected_by_itself() {
    let mut world = World::protected(2, 2);
    assert_eq!(world.stored.writer, region("region1"));
    assert!(world.server("pg1.region1").admitted);
    assert_eq!(world.server("pg2.region1").names, "pg2.region2#1");
    assert_eq!(world.server("redis2.region1").min_replicas, 0);
    world.assert_safe();
}

#[test]
fn switchover__two_of_each__moves_all_in_one_epoch_and_is_protected_again() {
    let mut world = World::protected(2, 2);
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(world.stored.epoch, Epoch::read(2));
    assert_eq!(world.stored.writer, region("region2"));
    for name in ["pg1", "pg2", "redis1", "redis2"] {
        assert!(world.server(&format!("{name}.region2")).primary, "{name}");
        assert!(!world.server(&format!("{name}.region1")).primary, "{name}");
    }
    assert_eq!(world.stored.protection().word(), "protected");
    assert_eq!(world.server("pg1.region2").names, "pg1.region1#2");
    world.assert_safe();
}

#[test]
fn switchover__order__the_swap_lies_between_quiesce_and_stop() {
    let mut world = World::protected(1, 1);
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    let (activity, _) = world.ended.iter().find(|(activity, _)| activity.id == id).unwrap();
    let place = |step| {
        activity
            .steps
            .iter()
            .position(|state| state.key.step == step)
            .unwrap_or_else(|| panic!("{step}"))
    };
    for before in [Step::Receive, Step::Fence] {
        assert!(place(before) < place(Step::Swap));
    }
    for after in [Step::Stop, Step::Promote, Step::PromoteRedis] {
        assert!(place(Step::Swap) < place(after));
    }
    let sent: Vec<&String> = world.log.iter().filter(|line| !line.starts_with("row")).collect();
    let fence = sent.iter().position(|line| line.starts_with("fence")).unwrap();
    let promote = sent.iter().position(|line| line.starts_with("promote-redis")).unwrap();
    assert!(fence < promote);
}

#[test]
fn twenty_switches__back_and_forth__without_help() {
    let mut world = World::protected(1, 1);
    for number in 0..20 {
        let target = if number % 2 == 0 { "region2" } else { "region1" };
        let id = world.ask(target, Consent::None);
        world.run(3 * SECOND);
        assert_eq!(*world.last_end(&id), Ended::Succeeded, "switch {number}: {:#?}", world.log);
        world.assert_safe();
        world.log.clear();
    }
    assert_eq!(world.stored.epoch, Epoch::read(21));
}

#[test]
fn failover__region_killed__goes_on_without_it_then_takes_it_back() {
    let mut world = World::protected(1, 1);
    world.kill_region("region1");
    let id = world.ask("region2", Consent::None);
    world.run(2 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert!(matches!(world.step_verdict(&id, Step::Drain, Some("pg1")), Verdict::Skipped { .. }));
    assert_eq!(world.stored.protection().word(), "exposed");
    world.agent("region1").down = false;
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    assert!(!world.server("redis1.region1").primary);
    world.assert_safe();
}

#[test]
fn failover__clients_wait_already__the_vote_holds_up_nothing_that_they_wait_for() {
    let mut world = World::protected(1, 1);
    world.kill_region("region1");
    world.run(2 * SECOND);
    let id = world.ask("region2", Consent::None);
    world.run(2 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    let place = |step: &str| world.log.iter().rposition(|line| line.starts_with(step)).unwrap();
    assert!(place("promote-redis") < place("vote") && place("vote") < place("announce"));
}

#[test]
fn failover__region_just_killed__is_not_refused_for_the_link_that_broke() {
    let mut world = World::protected(1, 1);
    world.kill_region("region1");
    // The replica's broken link is seen first; the old agent's last report is of a moment ago.
    world.hear_from("region2");
    let id = world.ask("region2", Consent::None);
    world.run(2 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn refused__a_link_that_stays_broken__with_its_reason() {
    let mut world = World::protected(1, 1);
    world.server("redis1.region2").process = ProcessState::Silent;
    world.run(SECOND);
    let id = world.ask("region2", Consent::None);
    world.run(2 * SECOND);
    let Ended::Refused { refusal } = world.last_end(&id) else { panic!("{:#?}", world.ended) };
    assert_eq!(refusal.code, "redis-not-ready");
    assert_eq!(world.stored.writer, region("region1"));
}

#[test]
fn failover__old_side_frozen__is_waited_for_no_longer_than_its_lease() {
    let mut world = World::protected(1, 1);
    world.agent("region1").down = true;
    world.server("redis1.region1").process = ProcessState::Silent;
    let id = world.ask("region2", Consent::None);
    // No longer than its lease lasts.
    world.run(1_100 * Duration::from_millis(1));
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
}

#[test]
fn orchestrator_ends_after_the_swap__old_side_silent__its_lease_is_waited_out() {
    let mut world = World::protected(1, 0);
    world.ask("region2", Consent::None);
    world.stop_at = Some(Step::Stop);
    world.run(SECOND);
    assert!(world.stopped_core, "{:#?}", world.log);
    world.silence_region("region1");
    world.restart_core("second-run");
    world.hear_from("region2");
    world.run(900 * Duration::from_millis(1));
    assert!(!world.server("pg1.region2").primary, "promoted beside a lease: {:#?}", world.log);
    world.run(SECOND);
    assert!(world.server("pg1.region2").primary, "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn stop_has_no_outcome__old_agent_heard_of_the_new_epoch__its_lease_is_waited_out() {
    let mut world = World::protected(1, 0);
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresStop)
            .then(|| Outcome::Unknown { why: "no outcome in time".to_owned() })
    }));
    world.ask("region2", Consent::None);
    world.run(900 * Duration::from_millis(1));
    assert_eq!(world.stored.writer, region("region2"), "{:#?}", world.log);
    assert!(!world.server("pg1.region2").primary, "promoted beside a lease: {:#?}", world.log);
    world.run(SECOND);
    assert!(world.server("pg1.region2").primary, "{:#?}", world.log);
}

#[test]
fn refused__not_in_takeover_set__nothing_is_touched() {
    let mut world = World::protected(1, 1);
    world.server("pg1.region2").process = ProcessState::Stopped;
    world.server("pg1.region2").streaming_as = None;
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.run(3 * SECOND);
    assert_eq!(world.stored.protection().word(), "exposed", "{:#?}", world.log);
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    let Ended::Refused { refusal } = world.last_end(&id) else { panic!("{:?}", world.ended) };
    assert!(["not-in-takeover-set", "standby-not-running"].contains(&refusal.code.as_str()));
    assert_eq!(world.stored.writer, region("region1"));
    assert_eq!(world.stored.epoch, Epoch::FIRST);
    assert!(world.stored.claim.is_none());
}

#[test]
fn refused__already_there_or_unknown_or_running() {
    let mut world = World::protected(1, 1);
    world.ask("region1", Consent::None);
    world.ask("region9", Consent::None);
    world.ask("region2", Consent::None);
    world.ask("region2", Consent::None);
    world.run(SECOND);
    let codes: Vec<&str> = world.refused.iter().map(|(_, refusal)| refusal.code.as_str()).collect();
    assert_eq!(codes[..2], ["already-writer", "unknown-region"]);
    assert_eq!(codes.len(), 3, "{codes:?}");
}

#[test]
fn aborted__target_does_not_receive__old_side_is_released() {
    let mut world = World::protected(1, 1);
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresAwait { .. })
            .then(|| Outcome::Failed { why: "1 byte is missing".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(matches!(world.last_end(&id), Ended::Aborted { .. }), "{:#?}", world.log);
    assert_eq!(world.stored.epoch, Epoch::FIRST);
    assert!(world.stored.claim.is_none());
    assert_eq!(world.server("redis1.region1").min_replicas, 0);
    assert!(world.server("pg1.region1").primary);
    assert_eq!(world.server("redis1.region2").promotions, 0);
    world.assert_safe();
}

#[test]
fn exceptions__one_datastore_does_not_promote__others_are_released_and_it_is_retried() {
    let mut world = World::protected(2, 1);
    world.hand = Some(Box::new(|command| {
        (matches!(command.order, Order::PostgresPromote { .. })
            && command.node.to_string() == "pg2.region2")
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(matches!(world.last_end(&id), Ended::Failed { .. }), "{:#?}", world.log);
    assert!(world.server("pg1.region2").primary);
    assert!(!world.server("pg2.region2").primary);
    assert_eq!(world.stored.writer, region("region2"));
    assert!(world.stored.claim.is_some(), "it is not over while something is closed");
    world.hand = None;
    world.run(5 * SECOND);
    assert!(world.server("pg2.region2").primary, "{:#?}", world.log);
    assert_eq!(*world.last_end(&id), Ended::Succeeded);
    assert!(world.stored.claim.is_none());
    world.run(3 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn exceptions__still_closed_after_many_retries__the_operation_is_not_over() {
    let mut world = World::protected(2, 1);
    world.hand = Some(Box::new(|command| {
        (matches!(command.order, Order::PostgresPromote { .. })
            && command.node.to_string() == "pg2.region2")
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(10 * SECOND);
    assert!(matches!(world.last_end(&id), Ended::Failed { .. }), "{:#?}", world.log);
    assert!(world.stored.claim.is_some(), "it is not over while something is closed");
    world.hand = None;
    world.run(5 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert!(world.server("pg2.region2").primary);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
}

#[test]
fn accept_loss__orchestrator_ends_and_old_agent_falls_silent__not_promoted_beside_the_old_primary()
{
    let mut world = World::protected(1, 0);
    world.server("pg1.region2").streaming_as = None;
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.run(3 * SECOND);
    assert_eq!(world.stored.protection().word(), "exposed");
    world.hand = None;
    world.ask("region2", Consent::AcceptLoss);
    world.stop_at = Some(Step::Stop);
    world.run(SECOND);
    assert!(world.stopped_core, "{:#?}", world.log);
    // Only the way to the old side is lost: its primary serves on, and waits for nobody.
    world.agent("region1").down = true;
    world.restart_core("second-run");
    world.run(3 * SECOND);
    world.assert_safe();
    assert!(!world.server("pg1.region2").primary, "{:#?}", world.log);
    world.agent("region1").down = false;
    world.run(5 * SECOND);
    world.assert_safe();
    assert!(world.server("pg1.region2").primary, "{:#?}", world.log);
    assert!(world.stored.claim.is_none());
}

#[test]
fn orchestrator_ends__at_every_command__a_new_run_brings_a_known_state() {
    for step in [
        Step::Checkpoint,
        Step::Vote,
        Step::Drain,
        Step::Receive,
        Step::Pause,
        Step::CatchUp,
        Step::Fence,
        Step::Stop,
        Step::Promote,
        Step::PromoteRedis,
        Step::Demote,
        Step::Announce,
        Step::Validate,
        Step::ValidateRedis,
    ] {
        let mut world = World::protected(1, 1);
        world.ask("region2", Consent::None);
        world.stop_at = Some(step);
        world.run(SECOND);
        assert!(world.stopped_core, "{step} was not reached: {:#?}", world.log);
        world.assert_safe();
        world.restart_core("second-run");
        world.run(6 * SECOND);
        world.assert_safe();
        assert!(world.stored.claim.is_none(), "{step}: {:#?}", world.log);
        assert_eq!(world.stored.protection().word(), "protected", "{step}: {:#?}", world.log);
        let writer = world.stored.writer.clone();
        for name in ["pg1", "redis1"] {
            assert!(world.server(&format!("{name}.{writer}")).primary, "{step} {name}");
        }
        let redis = world.server(&format!("redis1.{writer}")).min_replicas;
        assert!(redis < 99, "{step}: the master stays fenced");
    }
}

#[test]
fn every_swap_answer_lost__the_record_itself_settles_it() {
    let mut world = World::protected(1, 1);
    world.lose_swaps = true;
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(world.stored.epoch, Epoch::read(2));
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
}

#[test]
fn deposed__another_run_drives__nothing_more_is_sent() {
    let mut world = World::protected(1, 1);
    world.stored.driver = "another-run".to_owned();
    world.stored.revision = world.stored.revision.next();
    world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(world.core.frozen().is_some());
    assert!(world.log.iter().all(|line| line.starts_with("row")), "{:#?}", world.log);
}

#[test]
fn store_went_back__an_agent_has_heard_more__frozen() {
    let mut world = World::protected(1, 1);
    let mut old = world.stored.clone();
    old.revision = tier0_core::words::Revision::read(2);
    world.stored = old;
    world.restart_core("after-restore");
    world.run(SECOND);
    assert!(world.core.frozen().is_some(), "{:#?}", world.log);
    assert!(world.log.iter().all(|line| line.starts_with("row")), "{:#?}", world.log);
}

#[test]
fn standby_lost__longer_than_the_stall_limit__leaves_record_first_and_joins_again() {
    let mut world = World::protected(1, 0);
    world.server("pg1.region2").process = ProcessState::Stopped;
    world.server("pg1.region2").streaming_as = None;
    world.run(Duration::from_millis(800));
    assert_eq!(world.stored.protection().word(), "protected", "not before the stall limit");
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    assert_eq!(world.server("pg1.region1").names, "pg1.region2#2", "a new membership");
    assert!(world.log.iter().any(|line| line == "row P08 pg1"), "{:#?}", world.log);
}

#[test]
fn asked_while_the_member_leaves__nothing_moves_on_a_membership_that_is_over() {
    // The leave is decided by one tick, and the move is asked for before the store has answered.
    for ticks in 80..130 {
        let mut world = World::protected(1, 0);
        world.server("pg1.region2").streaming_as = None;
        world.run(Duration::from_millis(10 * ticks));
        world.now += 10_000;
        world.queue.push_back(tier0_core::orchestrator::Input::Tick);
        let id = world.ask("region2", Consent::None);
        world.run(SECOND);
        let leaves = world.log.iter().any(|line| line == "row P08 pg1");
        let moved = world.stored.epoch != Epoch::FIRST;
        assert!(!(leaves && moved), "{ticks}: {:?} {:#?}", world.last_end(&id), world.log);
    }
}

#[test]
fn both_servers_crash__the_writer_serves_again_and_then_the_standby_joins() {
    let mut world = World::protected(1, 0);
    for name in ["pg1.region1", "pg1.region2"] {
        world.server(name).process = ProcessState::Stopped;
        world.server(name).admitted = false;
        world.server(name).streaming_as = None;
    }
    // As the adapter does: nobody is let in until a commit was seen to wait for the member.
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresAdmit { member: Some(_) })
            .then(|| Outcome::Failed { why: "the member is not there".to_owned() })
    }));
    world.run(30 * SECOND);
    assert!(world.server("pg1.region1").admitted, "{:#?}", world.log);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
}

#[test]
fn target_ends_after_the_swap__it_is_started_and_promoted() {
    let mut world = World::protected(0, 1);
    let id = world.ask("region2", Consent::None);
    world.stop_at = Some(Step::PromoteRedis);
    world.run(SECOND);
    world.server("redis1.region2").process = ProcessState::Stopped;
    world.restart_core("second-run");
    world.run(5 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert!(world.stored.claim.is_none());
}

#[test]
fn writer_crashes__it_is_started_again_and_clients_wait_for_the_proof() {
    let mut world = World::protected(1, 1);
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.server("pg1.region1").admitted = false;
    world.server("redis1.region1").process = ProcessState::Stopped;
    world.run(2 * SECOND);
    assert!(world.server("pg1.region1").admitted, "{:#?}", world.log);
    assert_eq!(world.server("pg1.region1").names, "pg1.region2#1");
    assert_eq!(world.server("redis1.region1").process, ProcessState::Running);
    let start = world.log.iter().position(|line| line.starts_with("start[pg1]")).unwrap();
    let admit = world.log.iter().position(|line| line.starts_with("admit[pg1]")).unwrap();
    assert!(start < admit);
}

#[test]
fn accept_loss__old_agent_silent__needs_to_be_told_that_the_old_side_is_down() {
    let mut world = World::protected(1, 1);
    world.server("pg1.region2").streaming_as = None;
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.run(3 * SECOND);
    assert_eq!(world.stored.protection().word(), "exposed");
    world.kill_region("region1");
    let too_early = world.ask("region2", Consent::AcceptLoss);
    world.run(Duration::from_millis(500));
    assert!(matches!(world.last_end(&too_early), Ended::Aborted { .. }), "{:#?}", world.log);
    let refused = world.ask("region2", Consent::AcceptLoss);
    world.run(Duration::from_millis(500));
    assert!(matches!(world.last_end(&refused), Ended::Refused { refusal }
        if refusal.code == "old-side-not-known-down"));
    let accepted = world.ask("region2", Consent::AcceptLossOldSideIsDown);
    world.run(SECOND);
    assert_eq!(*world.last_end(&accepted), Ended::Succeeded, "{:#?}", world.log);
}

#[test]
fn accept_loss__the_old_data_is_left_untouched_until_a_rebuild() {
    let mut world = World::protected(1, 0);
    world.server("pg1.region2").streaming_as = None;
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::PostgresFollow { .. })
            .then(|| Outcome::Failed { why: "no".to_owned() })
    }));
    world.run(3 * SECOND);
    world.hand = None;
    world.kill_region("region1");
    world.run(Duration::from_millis(300));
    let id = world.ask("region2", Consent::AcceptLossOldSideIsDown);
    world.run(SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    let (activity, _) = world.ended.iter().find(|(activity, _)| activity.id == id).unwrap();
    assert!(
        activity.accepted_risks.iter().any(|risk| {
            risk.contains("takeover set") && risk.contains("bytes behind when region1 was last")
        }),
        "{:?}",
        activity.accepted_risks
    );
    world.agent("region1").down = false;
    world.run(5 * SECOND);
    let process = world.server("pg1.region1").process;
    assert_eq!(process, ProcessState::Stopped, "{:#?}", world.log);
    assert_eq!(world.stored.protection().word(), "exposed");
    world.rebuild("pg1.region1");
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    assert!(world.stored.held.is_empty());
}

#[test]
fn promote__old_sides_last_record_never_arrived__goes_on_without_it() {
    let mut world = World::protected(1, 0);
    world.hand = Some(Box::new(|command| {
        let waits = matches!(&command.order, Order::PostgresPromote { stopped_at: Some(_), .. });
        waits.then(|| Outcome::Refused {
            refusal: tier0_core::order::Refusal::new("short-of-stop", "24 bytes are missing"),
        })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert!(world.server("pg1.region2").primary);
}

#[test]
fn redis__fence_refused_by_a_living_master__aborts_and_loses_nothing() {
    let mut world = World::protected(1, 1);
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::RedisFence)
            .then(|| Outcome::Failed { why: "the pause has run out".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(matches!(world.last_end(&id), Ended::Aborted { .. }), "{:#?}", world.log);
    assert_eq!(world.stored.writer, region("region1"));
    assert_eq!(world.server("redis1.region2").promotions, 0);
}

#[test]
fn redis__old_agent_dies_and_its_master_lives__aborts_rather_than_leave_writes_behind() {
    let mut world = World::protected(1, 1);
    world.agent("region1").down = true;
    let id = world.ask("region2", Consent::None);
    world.run(2 * SECOND);
    let Ended::Aborted { refusal } = world.last_end(&id) else { panic!("{:#?}", world.log) };
    assert_eq!(refusal.code, "redis-master-lives");
    assert_eq!(world.server("redis1.region2").promotions, 0);
    assert_eq!(world.stored.writer, region("region1"));
}

#[test]
fn redis__silent_for_a_whole_window__is_asked_once_more_but_not_for_long() {
    for (silent, limits) in [(SECOND / 2, [300].as_slice()), (2 * SECOND, &[30])] {
        let mut world = World::protected(1, 1);
        for _ in 0..100 {
            let took = SECOND / 1_000;
            world.queue.push_back(Input::RoundTrip { region: region("region2"), took });
        }
        let (asked, limits_of) = std::sync::mpsc::channel();
        world.hand = Some(Box::new(move |command| {
            if command.step == Step::AskMaster {
                asked.send(command.limit_ms).unwrap();
            }
            None
        }));
        world.silence_region("region1");
        world.run(silent);
        let id = world.ask("region2", Consent::None);
        world.run(3 * SECOND);
        assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
        assert_eq!(limits_of.try_iter().collect::<Vec<_>>(), limits);
    }
}

#[test]
fn redis__fence_outcome_unknown_after_the_pause__aborts() {
    let mut world = World::protected(1, 1);
    world.hand = Some(Box::new(|command| {
        matches!(command.order, Order::RedisFence)
            .then(|| Outcome::Unknown { why: "no answer in time".to_owned() })
    }));
    let id = world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(matches!(world.last_end(&id), Ended::Aborted { .. }), "{:#?}", world.log);
    assert_eq!(world.server("redis1.region2").promotions, 0);
    assert_eq!(world.server("redis1.region1").min_replicas, 0, "the way back was taken");
}
