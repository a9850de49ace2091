//! Routes in the operation: held before the old side is asked how far it is, pointed at the new
//! writer after the point of no return, released to whoever is the writer then, and never in the
//! way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::asked;
use crate::world::{World, node, region};
use tier0_core::observe::{NodeReport, NodeView, ProcessState};
use tier0_core::orchestrator::{Consent, Ended};
use tier0_core::order::{Command, Fact, Order, Outcome};
use tier0_core::readiness::{Finding, Level};
use tier0_core::record::AutomaticMode;
use tier0_core::route::{RouteOrder, RouteShape, RouteView};
use tier0_core::steps::Step;
use tier0_core::words::Epoch;

const SECOND: Duration = Duration::from_secs(1);

/// What routes were told, in order.
type Told = Rc<RefCell<Vec<(String, RouteOrder)>>>;

/// A protected stack with a route in each region, and what its routes are told. `answer` may make
/// something else of an order than that it is done.
fn with_routes(mut answer: impl FnMut(&Command) -> Option<Outcome> + 'static) -> (World, Told) {
    let mut world = World::new_with(1, 1, |settings| {
        for id in ["pool.region1", "pool.region2"] {
            let shape = RouteShape { datastore: "pg1".parse().unwrap() };
            settings.shape.routes.insert(node(id), shape);
        }
    });
    let told: Told = Rc::default();
    let noted = Rc::clone(&told);
    world.hand = Some(Box::new(move |command: &Command| {
        if let Some(outcome) = answer(command) {
            return Some(outcome);
        }
        let Order::Route { order } = &command.order else { return None };
        noted.borrow_mut().push((command.node.to_string(), order.clone()));
        let fact = match order {
            RouteOrder::Hold { .. } => Fact::Held { open: Vec::new(), waiting: 3 },
            RouteOrder::Switch { .. } => Fact::Nothing,
            RouteOrder::Release { .. } => Fact::Released { held_ms: 40 },
        };
        Some(Outcome::Done { fact })
    }));
    world.run(5 * SECOND);
    assert_eq!(world.stored.protection().word(), "protected", "{:#?}", world.log);
    assert!(told.borrow().is_empty(), "routes were told something without a move");
    world.log.clear();
    world.ended.clear();
    (world, told)
}

/// Where a step's command was sent, in the order of all commands.
fn sent(world: &World, begin: &str) -> usize {
    let place = world.log.iter().position(|line| line.starts_with(begin));
    place.unwrap_or_else(|| panic!("{begin} was not sent: {:#?}", world.log))
}

#[test]
fn switchover__a_route_in_each_region__is_held_then_switched_then_released() {
    let (mut world, told) = with_routes(|_| None);
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    let after = Epoch::read(2);
    for route in ["pool.region1", "pool.region2"] {
        let told: Vec<RouteOrder> = told
            .borrow()
            .iter()
            .filter(|(name, _)| name == route)
            .map(|(_, order)| order.clone())
            .collect();
        let to = region("region2");
        assert_eq!(
            told,
            [
                RouteOrder::Hold { drain_ms: 200, hold_ms: 10_000 },
                RouteOrder::Switch { epoch: after, to: to.clone() },
                RouteOrder::Release { epoch: after, to },
            ],
            "{route}"
        );
        assert!(sent(&world, "checkpoint") < sent(&world, &format!("hold-route[{route}]")));
        assert!(sent(&world, &format!("hold-route[{route}]")) < sent(&world, "drain"));
        assert!(sent(&world, "receive") < sent(&world, &format!("switch-route[{route}]")));
        assert!(sent(&world, "promote[pg1]") < sent(&world, &format!("release-route[{route}]")));
    }
}

#[test]
fn abort__before_the_point_of_no_return__releases_to_the_old_side() {
    let (mut world, told) = with_routes(|command| {
        let receives = matches!(command.order, Order::PostgresAwait { .. });
        receives.then(|| Outcome::Failed { why: "behind".to_owned() })
    });
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert!(matches!(world.last_end(&id), Ended::Aborted { .. }), "{:#?}", world.log);
    assert_eq!(world.stored.epoch, Epoch::read(1));
    let old = RouteOrder::Release { epoch: Epoch::read(1), to: region("region1") };
    for route in ["pool.region1", "pool.region2"] {
        let told = told.borrow();
        let last = told.iter().rev().find(|(name, _)| name == route).unwrap();
        assert_eq!(last.1, old, "{route}");
    }
}

#[test]
fn orchestrator_ends_while_clients_are_held__the_next_one_releases_to_the_old_side() {
    let (mut world, told) = with_routes(|_| None);
    world.stop_at = Some(Step::Drain);
    world.ask("region2", Consent::None);
    world.run(SECOND);
    assert!(matches!(told.borrow().last(), Some((_, RouteOrder::Hold { .. }))));
    world.restart_core("second-run");
    world.run(3 * SECOND);
    assert_eq!(world.stored.claim, None, "{:#?}", world.log);
    let old = RouteOrder::Release { epoch: Epoch::read(1), to: region("region1") };
    let released = told.borrow().iter().filter(|(_, order)| *order == old).count();
    assert_eq!(released, 2, "{:#?}", told.borrow());
}

#[test]
fn orchestrator_ends_after_the_point_of_no_return__the_next_one_releases_to_the_new_side() {
    let (mut world, told) = with_routes(|_| None);
    world.stop_at = Some(Step::Promote);
    world.ask("region2", Consent::None);
    world.run(SECOND);
    world.restart_core("second-run");
    world.run(3 * SECOND);
    assert_eq!(world.stored.claim, None, "{:#?}", world.log);
    assert_eq!(world.stored.writer, region("region2"));
    let new = RouteOrder::Release { epoch: Epoch::read(2), to: region("region2") };
    let released = told.borrow().iter().filter(|(_, order)| *order == new).count();
    assert_eq!(released, 2, "{:#?}", told.borrow());
}

#[test]
fn a_route_that_fails_or_does_not_answer__is_in_nobodys_way() {
    let failing = |command: &Command| match &command.order {
        Order::Route { .. } if command.node == node("pool.region1") => {
            Some(Outcome::Failed { why: "no such file".to_owned() })
        }
        Order::Route { .. } => Some(Outcome::Unknown { why: "no answer".to_owned() }),
        _ => None,
    };
    let (mut world, _) = with_routes(failing);
    let id = world.ask("region2", Consent::None);
    world.run(3 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    assert_eq!(world.stored.writer, region("region2"));
}

#[test]
fn failover__the_old_region_is_gone__its_route_is_left_and_the_other_one_goes_on() {
    let (mut world, told) = with_routes(|_| None);
    world.kill_region("region1");
    world.run(2 * SECOND);
    let id = world.ask("region2", Consent::None);
    world.run(5 * SECOND);
    assert_eq!(*world.last_end(&id), Ended::Succeeded, "{:#?}", world.log);
    let told = told.borrow();
    assert!(told.iter().all(|(name, _)| name == "pool.region2"), "{told:#?}");
    let new = RouteOrder::Release { epoch: Epoch::read(2), to: region("region2") };
    assert_eq!(told.last().map(|(_, order)| order.clone()), Some(new));
}

#[test]
fn writer_found_dead__its_routes_are_held_beside_the_move_not_before_it() {
    let (mut world, told) = with_routes(|_| None);
    world.arm(AutomaticMode::Armed);
    world.endless = Some(Step::HoldRoute);
    world.server("pg1.region1").process = ProcessState::Stopped;
    world.run(SECOND);
    assert_eq!(world.stored.writer, region("region2"), "{:#?}", world.log);
    sent(&world, "promote[pg1]");
    let told = told.borrow();
    // They are not pointed elsewhere before it is known whether they hold.
    assert!(told.iter().all(|(_, order)| matches!(order, RouteOrder::Hold { .. })), "{told:#?}");
    assert_eq!(told.len(), 2);
}

/// What is found about the routes when they are seen so.
fn found(of_first: Option<RouteView>) -> Finding {
    let (world, _) = with_routes(|_| None);
    let mut seen = world.core.seen().clone();
    let views = [("region1", "pool.region1", of_first), ("region2", "pool.region2", Some(view()))];
    for (place, id, view) in views {
        let Some(view) = view else { continue };
        let (report, _) = seen.regions.get_mut(&region(place)).unwrap().report.as_mut().unwrap();
        let report_of_route = NodeReport { age_ms: 0, view: NodeView::Route(view), last: None };
        report.nodes.insert(node(id), report_of_route);
    }
    asked::found(&world, &seen, "route-not-ready")
}

/// A route that is as it should be.
fn view() -> RouteView {
    RouteView {
        process: ProcessState::Running,
        held: false,
        to: Some(region("region1")),
        epoch: Some(Epoch::FIRST),
        active: 1,
        waiting: 0,
        error: None,
    }
}

#[test]
fn readiness__a_route_that_is_away_elsewhere_or_held__is_named() {
    assert_eq!(found(Some(view())).level, Level::Pass);
    assert_eq!(found(None).level, Level::Unknown);
    let stopped = RouteView { process: ProcessState::Stopped, ..view() };
    let elsewhere = RouteView { to: Some(region("region2")), ..view() };
    let held = RouteView { held: true, waiting: 5, ..view() };
    for (view, part) in [(stopped, "not answer"), (elsewhere, "region2"), (held, "5 clients")] {
        let finding = found(Some(view));
        assert_eq!(finding.level, Level::Warn, "{finding:?}");
        assert!(finding.sentence.contains(part), "{finding:?}");
        assert_eq!(finding.number, Some(1.0));
    }
}
