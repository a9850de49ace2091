//! Several orchestrators: everything that three sites can see of a writer whose agent is silent, and
//! who moves the writer then (O3); and the leases that one grants which was cut off while another took
//! its seat, at every moment at which its reads of the store can have begun and come back (L1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tier0_core::grant::{Granter, Stamps};
use tier0_core::lease::{Boot, Lease, Standing, with_drift};
use tier0_core::observe::{Knock, Reach};
use tier0_core::orchestrator::{Input, PeerReport, Seats};
use tier0_core::record::AutomaticMode;
use tier0_core::words::*;

use super::Verdict;
use crate::world::{World, node, region};

const SITES: [&str; 3] = ["witness", "region1", "region2"];

/// For how long all sites go on seeing what they see.
const LASTS_MS: u64 = 3_000;

/// What somebody says of the writer's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Nobody hears it.
    Absent,
    /// Nothing comes from the server or its agent.
    Blind,
    /// It hears the agent, and nothing of the server.
    HearsAgent,
    /// The server answers it, and it hears nothing of the agent.
    SeesServer,
    /// It does not hear the agent, and has not looked at the server.
    KnowsNothing,
}

const SAYS: [Says; 5] =
    [Says::Absent, Says::Blind, Says::HearsAgent, Says::SeesServer, Says::KnowsNothing];

fn site(name: &str) -> Site {
    name.parse().unwrap()
}

/// One that acts at a site, with the writer in region1 and all well.
fn acts_at(here: &str) -> World {
    let mut world = three(here);
    world.run(Duration::from_secs(8));
    assert!(world.core.is_driving(), "{:#?}", world.log);
    world.arm(AutomaticMode::Armed);
    world
}

fn three(here: &str) -> World {
    World::new_with(1, 0, |settings| {
        settings.seats = Seats { here: site(here), order: SITES.map(site).to_vec() };
    })
}

/// The same world once more.
fn again(world: &World, here: &str) -> World {
    World {
        core: world.core.clone(),
        stored: world.stored.clone(),
        servers: world.servers.clone(),
        agents: world.agents.clone(),
        now: world.now,
        fresh: world.fresh,
        queue: Default::default(),
        ..three(here)
    }
}

fn seen(answers: bool, for_ms: u64) -> Reach {
    match answers {
        true => Reach { newest: Knock::Answered, unanswered_ms: 0 },
        false => Reach { newest: Knock::Silent, unanswered_ms: for_ms },
    }
}

fn report(at: &str, says: Says, for_ms: u64) -> Option<PeerReport> {
    let heard = if says == Says::HearsAgent { 10 } else { for_ms };
    let server = (node("pg1.region1"), seen(says == Says::SeesServer, for_ms));
    (says != Says::Absent).then(|| PeerReport {
        site: site(at),
        run: format!("at-{at}"),
        agents: [(region("region1"), heard), (region("region2"), 10)].into(),
        servers: [server].into_iter().filter(|_| says != Says::KnowsNothing).collect(),
        runs: BTreeMap::new(),
        store_silent_ms: 100,
    })
}

/// Whether the writer is moved while everybody goes on seeing this.
fn moves(world: &mut World, here: Says, target: Says, others: [(&str, Says); 2]) -> bool {
    let writer = node("pg1.region1");
    for tenth in 1..=LASTS_MS / 100 {
        let for_ms = tenth * 100;
        world.now += 100_000;
        let knock = seen(here == Says::SeesServer, for_ms).newest;
        world.queue.push_back(Input::Knocked { node: writer.clone(), knock });
        if target != Says::Absent {
            world.hear_from("region2");
            let Some(Input::Report(report)) = world.queue.back_mut() else { unreachable!() };
            report.peers.insert(writer.clone(), seen(target == Says::SeesServer, for_ms));
        }
        for (at, says) in others {
            world.queue.extend(report(at, says, for_ms).map(Input::Peer));
        }
        let begun = Moment::from_micros(world.now);
        world.queue.push_back(Input::Read { record: world.stored.clone(), begun });
        world.queue.push_back(Input::Tick);
        world.drain();
        let claimed = world.stored.claim.as_ref().is_some_and(|claim| claim.kind.moves_writer());
        if claimed || world.stored.writer != region("region1") {
            return true;
        }
    }
    false
}

/// Everything that three sites can see of a silent writer.
pub fn silence() -> Verdict {
    let mut looked = 0;
    for here in SITES {
        let whole = acts_at(here);
        let [one, two] = *SITES.iter().filter(|at| **at != here).collect::<Vec<_>>() else {
            return Err("three sites have no two others".to_owned());
        };
        for from_here in [Says::Blind, Says::SeesServer] {
            for target in [Says::Absent, Says::Blind, Says::SeesServer] {
                for first in SAYS {
                    for second in SAYS {
                        looked += 1;
                        let others = [(*one, first), (*two, second)];
                        let moved = moves(&mut again(&whole, here), from_here, target, others);
                        let mut all = others.to_vec();
                        // The other region's agent speaks for its site.
                        all.extend([(here, from_here), ("region2", target)]);
                        let sees = |says: Says| matches!(says, Says::HearsAgent | Says::SeesServer);
                        let blind: BTreeSet<&str> = all
                            .iter()
                            .filter(|(_, says)| *says == Says::Blind)
                            .map(|(at, _)| *at)
                            .collect();
                        let may = target == Says::Blind
                            && !all.iter().any(|(_, says)| sees(*says))
                            && blind.len() >= 2;
                        if moved != may {
                            return Err(format!(
                                "the writer is {}moved by {here}, which is {from_here:?}, and the \
                                 other region's agent is {target:?}, others say {others:?}",
                                if moved { "" } else { "not " }
                            ));
                        }
                    }
                }
            }
        }
    }
    Ok(looked)
}

const TENTH: Duration = Duration::from_millis(100);
const LENGTH: Duration = Duration::from_secs(1);

/// When everything begins: nothing is before the start of any clock.
const BEGIN: u32 = 20;

fn at(tenth: u32) -> Boot {
    Boot(TENTH * tenth)
}

fn moment(tenth: u32) -> Moment {
    Moment::from_micros(u64::from(tenth) * 100_000)
}

/// One orchestrator asks the writer's agent all the time and grants what it may. Its reads end with
/// one that begins, sees the store, and comes back, at every moment; meanwhile another one takes the
/// seat, which lets somebody else serve when the lease is over that it may have to wait for.
pub fn grants() -> Verdict {
    let mut looked = 0;
    for taken in BEGIN + 2..BEGIN + 10 {
        for begun in BEGIN..BEGIN + 8 {
            for sees in begun..begun + 4 {
                for comes in sees..sees + 4 {
                    looked += 1;
                    let stands = cut_off(taken, [begun, sees, comes]);
                    if !matches!(stands, Standing::Over) {
                        return Err(format!(
                            "the seat is taken at {taken}, the last read begins at {begun}, sees \
                             the store at {sees}, comes at {comes}: the old side stands {stands:?} \
                             when somebody else may serve"
                        ));
                    }
                }
            }
        }
    }
    if !matches!(cut_off(BEGIN + 9, [BEGIN + 7, BEGIN + 7, BEGIN + 8]), Standing::Over) {
        return Err("it is never over".to_owned());
    }
    Ok(looked)
}

/// How the old side stands when the one that took the seat has waited.
fn cut_off(taken: u32, [begun, sees, comes]: [u32; 3]) -> Standing {
    let here = region("region1");
    let mut lease = Lease::new(LENGTH, at(0));
    lease.told(Epoch::FIRST, &here, here.clone(), false);
    let mut stamps = Stamps::new(Granter::OneOfSeveral);
    let waited = Boot(at(taken).0 + with_drift(LENGTH));
    let mut now = BEGIN;
    while at(now) <= waited {
        stamps.came(("run".to_owned(), u64::from(now)), moment(now));
        // Before the last read there was one at every moment, which came at once.
        if now < begun.min(taken) {
            stamps.confirmed(moment(now));
        }
        if now == comes && sees < taken {
            stamps.confirmed(moment(begun));
        }
        if let Some((_, stamp)) = stamps.answerable() {
            lease.granted(at(u32::try_from(*stamp).unwrap()), LENGTH, at(now));
        }
        now += 1;
    }
    lease.standing(&here, Some(&super::heard(1, 1, 1)), waited)
}
