//! Several orchestrators over one store: which of them acts, and what a region's silence needs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::{World, node, region};
use tier0_core::grant::{Granter, Stamps};
use tier0_core::observe::{Knock, Reach};
use tier0_core::orchestrator::{Consent, Ended, Input, PeerReport, Seats};
use tier0_core::record::AutomaticMode;
use tier0_core::words::{Moment, Site};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn site(name: &str) -> Site {
    name.parse().unwrap()
}

/// A stack of three orchestrators, seen by the one at this site, which acts.
fn acts_at(here: &str) -> World {
    let mut world = World::new_with(1, 0, |settings| {
        let order = ["witness", "region1", "region2"].map(site).to_vec();
        settings.seats = Seats { here: site(here), order };
    });
    // Nobody else was ever heard, so that it takes the seat.
    world.run(8 * SECOND);
    assert!(world.core.is_driving(), "{:#?}", world.log);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    world.arm(AutomaticMode::Armed);
    world.log.clear();
    world
}

/// What another orchestrator says that hears everybody.
fn hears_all(at: &str, run: &str) -> PeerReport {
    let seen = Reach { newest: Knock::Answered, unanswered_ms: 0 };
    PeerReport {
        site: site(at),
        run: run.to_owned(),
        agents: [(region("region1"), 10), (region("region2"), 10)].into(),
        servers: [(node("pg1.region1"), seen), (node("pg1.region2"), seen)].into(),
        runs: BTreeMap::new(),
        store_silent_ms: 100,
    }
}

/// What one says that has heard nothing of region1 for this long.
fn without_region1(at: &str, for_ms: u64) -> PeerReport {
    let mut report = hears_all(at, "other");
    report.agents.insert(region("region1"), for_ms);
    let silent = Reach { newest: Knock::Silent, unanswered_ms: for_ms };
    report.servers.insert(node("pg1.region1"), silent);
    report
}

fn has_row(world: &World, row: &str) -> bool {
    world.log.iter().any(|line| line.starts_with(&format!("row {row}")))
}

fn moved(world: &World) -> bool {
    world.stored.writer == region("region2")
}

/// Another orchestrator takes the seat, in the store alone.
fn taken_by(world: &mut World, run: &str) {
    world.stored.driver = run.to_owned();
    world.stored.revision = world.stored.revision.next();
}

#[test]
fn acts__another_one_takes_the_seat__it_watches_and_is_not_frozen() {
    let mut world = acts_at("witness");
    world.others = vec![hears_all("region1", "other")];
    taken_by(&mut world, "other");
    world.run(300 * MS);
    assert!(!world.core.is_driving() && world.core.frozen().is_none());
    assert_eq!(world.core.acting_site(), Some(&site("region1")));
    world.run(4 * SECOND);
    assert!(!world.core.is_driving(), "the other one is heard");
    assert_eq!(world.stored.driver, "other");
    world.run(2 * SECOND);
    assert!(world.core.is_driving() && has_row(&world, "T06"), "it comes first in the order");
}

#[test]
fn watches__who_acts_falls_silent__it_takes_the_seat_after_the_window_and_not_before() {
    let mut world = acts_at("witness");
    world.others = vec![hears_all("region1", "other")];
    taken_by(&mut world, "other");
    world.run(2 * SECOND);
    world.others.clear();
    world.run(800 * MS);
    assert!(!world.core.is_driving());
    world.run(500 * MS);
    assert!(world.core.is_driving() && has_row(&world, "T03"), "{:#?}", world.log);
    assert_eq!(world.stored.driver, "first-run");
}

#[test]
fn watches__deposed_again_and_again_by_one_that_it_does_not_hear__waits_each_time() {
    let mut world = acts_at("witness");
    for _ in 0..3 {
        taken_by(&mut world, "other");
        world.run(900 * MS);
        assert!(!world.core.is_driving(), "it has not waited");
        world.run(500 * MS);
        assert!(world.core.is_driving() && has_row(&world, "T03"), "{:#?}", world.log);
        world.log.clear();
    }
}

#[test]
fn watches__who_acts_is_not_heard_but_goes_on_storing__the_seat_is_left_to_it() {
    let mut world = acts_at("witness");
    taken_by(&mut world, "other");
    for _ in 0..6 {
        world.run(700 * MS);
        assert!(!world.core.is_driving());
        world.stored.revision = world.stored.revision.next();
    }
    world.run(1_300 * MS);
    assert!(world.core.is_driving() && has_row(&world, "T03"), "{:#?}", world.log);
}

#[test]
fn watches__who_acts_is_heard_by_another_only__the_seat_is_left_to_it() {
    let mut world = acts_at("witness");
    let mut told = hears_all("region2", "watcher");
    told.runs.insert("other".to_owned(), 50);
    world.others = vec![told.clone()];
    taken_by(&mut world, "other");
    world.run(10 * SECOND);
    assert!(!world.core.is_driving(), "{:#?}", world.log);
    // The other one does not hear it any more either.
    for tenth in 0..8 {
        told.runs.insert("other".to_owned(), 50 + tenth * 100);
        world.others = vec![told.clone()];
        world.run(100 * MS);
    }
    assert!(!world.core.is_driving());
    told.runs.insert("other".to_owned(), 2_000);
    world.others = vec![told];
    world.run(500 * MS);
    assert!(world.core.is_driving() && has_row(&world, "T03"), "{:#?}", world.log);
}

#[test]
fn watches__another_acts_without_the_store__nobody_is_told_that_it_lives() {
    let mut world = acts_at("witness");
    let mut other = hears_all("region1", "other");
    world.others = vec![other.clone()];
    taken_by(&mut world, "other");
    world.run(SECOND);
    let now = world.time();
    assert!(world.core.peer_report(&now).runs.contains_key("other"));
    other.store_silent_ms = 60_000;
    world.others = vec![other];
    world.run(300 * MS);
    let now = world.time();
    assert!(world.core.peer_report(&now).runs.is_empty());
}

#[test]
fn watches__one_before_it_in_the_order_is_heard__that_one_goes_first() {
    let mut world = acts_at("region2");
    world.others = vec![hears_all("witness", "watcher"), hears_all("region1", "other")];
    taken_by(&mut world, "other");
    world.run(2 * SECOND);
    world.others.pop();
    world.run(1_300 * MS);
    assert!(!world.core.is_driving(), "the witness goes first");
    world.run(500 * MS);
    assert!(world.core.is_driving(), "and did not");
}

#[test]
fn watches__who_acts_hears_fewer_agents__it_takes_the_seat() {
    let mut world = acts_at("witness");
    let mut half = hears_all("region1", "other");
    half.agents.insert(region("region2"), 60_000);
    world.others = vec![half];
    taken_by(&mut world, "other");
    world.run(1_500 * MS);
    assert!(!world.core.is_driving());
    world.run(2 * SECOND);
    assert!(world.core.is_driving() && has_row(&world, "T04"), "{:#?}", world.log);
}

#[test]
fn watches__who_acts_does_not_reach_the_store__it_takes_the_seat_where_it_does() {
    let mut world = acts_at("witness");
    let mut away = hears_all("region1", "other");
    away.store_silent_ms = 1_900;
    world.others = vec![away.clone()];
    taken_by(&mut world, "other");
    world.run(2 * SECOND);
    assert!(!world.core.is_driving());
    away.store_silent_ms = 2_100;
    world.others = vec![away];
    world.run(300 * MS);
    assert!(world.core.is_driving() && has_row(&world, "T07"), "{:#?}", world.log);
}

#[test]
fn shared_store__an_agent_has_heard_more__that_is_no_sign_of_an_old_store_until_it_is_read() {
    let mut world = acts_at("witness");
    let newer = {
        let mut newer = world.stored.clone();
        newer.driver = "other".to_owned();
        newer.revision = newer.revision.next();
        newer
    };
    world.agent("region1").heard = Some(newer.heard());
    world.hear_from("region1");
    world.drain();
    assert!(world.core.frozen().is_none(), "another one may have stored it");
    let old = std::mem::replace(&mut world.stored, newer);
    world.run(300 * MS);
    assert!(world.core.frozen().is_none() && !world.core.is_driving());
    // And one that is put back from a copy is found out.
    world.stored = old;
    world.run(300 * MS);
    assert!(world.core.frozen().is_some());
}

#[test]
fn silence__the_other_regions_agent_and_the_witness__are_two_of_three() {
    let mut world = acts_at("witness");
    world.silence_region("region1");
    world.run(1_600 * MS);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn silence__only_one_site_says_so__nothing_moves_until_a_second_does() {
    let mut world = acts_at("region2");
    world.silence_region("region1");
    world.run(5 * SECOND);
    assert!(!moved(&world), "{:#?}", world.log);
    let rows: Vec<_> = world.near_misses.iter().map(|near_miss| near_miss.row).collect();
    assert_eq!(rows, ["A17"]);
    world.others = vec![without_region1("witness", 5_000)];
    world.run(500 * MS);
    assert!(moved(&world), "{:#?}", world.log);
    world.assert_safe();
}

#[test]
fn silence__another_orchestrator_hears_the_region__nothing_moves() {
    let mut world = acts_at("region2");
    world.others = vec![hears_all("witness", "other")];
    world.silence_region("region1");
    world.run(5 * SECOND);
    assert!(!moved(&world), "{:#?}", world.log);
    let rows: Vec<_> = world.near_misses.iter().map(|near_miss| near_miss.row).collect();
    assert_eq!(rows, ["A16"]);
}

#[test]
fn grants__of_one_of_several__answer_only_stamps_from_before_a_read() {
    let at = |ms: u64| Moment::from_micros(ms * 1_000);
    let stamp = |number: u64| ("run".to_owned(), number);
    let mut stamps = Stamps::new(Granter::OneOfSeveral);
    stamps.came(stamp(1), at(10));
    stamps.came(stamp(2), at(30));
    assert_eq!(stamps.answerable(), None);
    stamps.confirmed(at(20));
    assert_eq!(stamps.answerable(), Some(&stamp(1)));
    stamps.confirmed(at(30));
    assert_eq!(stamps.answerable(), Some(&stamp(2)));
    let mut alone = Stamps::new(Granter::Only);
    alone.came(stamp(1), at(10));
    assert_eq!(alone.answerable(), Some(&stamp(1)));
}

/// The store cannot be reached: it is neither read nor does it answer.
fn without_a_store(world: &mut World) {
    world.storeless = true;
}

#[test]
fn store_away__the_writer_dies__nothing_is_moved_and_the_store_is_named() {
    let mut world = acts_at("witness");
    without_a_store(&mut world);
    world.run(3 * SECOND);
    world.kill_region("region1");
    world.run(3 * SECOND);
    assert!(!moved(&world));
    let rows: Vec<_> = world.near_misses.iter().map(|near_miss| near_miss.row).collect();
    assert_eq!(rows, ["A18"]);
    world.ask("region2", Consent::None);
    world.run(100 * MS);
    assert_eq!(world.refused.last().unwrap().1.code, "store-unavailable");
}

#[test]
fn store_away__what_was_asked_for_before_it_was_noticed__is_not_done_when_it_is_back() {
    let mut world = acts_at("witness");
    without_a_store(&mut world);
    world.ask("region2", Consent::None);
    world.run(10 * SECOND);
    assert!(!moved(&world) && world.ended.iter().all(|(it, _)| !it.kind.moves_writer()));
    world.storeless = false;
    world.run(5 * SECOND);
    assert!(!moved(&world), "it was asked for ten seconds ago: {:#?}", world.log);
    let (_, ended) = world.ended.iter().find(|(it, _)| it.kind.moves_writer()).unwrap();
    assert!(matches!(ended, Ended::Refused { refusal } if refusal.code == "store-unavailable"));
    assert_eq!(world.stored.claim, None);
}

#[test]
fn frozen_itself__what_it_took_for_round_trips__does_not_widen_the_window() {
    let mut world = acts_at("witness");
    let before = world.core.window();
    let late = || Input::RoundTrip { region: region("region1"), took: 4 * SECOND };
    world.now += 4_000_000;
    world.queue.push_back(late());
    world.drain();
    assert_eq!(world.core.window(), before);
    world.run(6 * SECOND);
    world.queue.push_back(late());
    world.drain();
    assert!(world.core.window() > before, "one that it was awake for counts");
}
