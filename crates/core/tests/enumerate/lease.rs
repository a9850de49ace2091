//! Everything that an agent can know of its lease, and what must follow from it.

use std::time::Duration;

use tier0_core::lease::{
    Boot, Holding, Knows, Lease, Reliance, Server, Standing, holding, with_drift,
};
use tier0_core::order::{Command, Order};
use tier0_core::steps::Step;
use tier0_core::words::*;

use super::{Verdict, heard, lineage};
use crate::world::{node, region};

const LENGTH: Duration = Duration::from_secs(1);

/// When the lease was granted, by the agent's clock.
const GRANTED: u64 = 10_000;

fn at(ms: u64) -> Boot {
    Boot(Duration::from_millis(ms))
}

/// What an agent was told: epoch, whether its own region is the writer, whether nobody may take over.
type Told = (u64, bool, bool);

fn there_or_here(here: bool) -> Region {
    region(if here { "region1" } else { "region2" })
}

/// A lease of region1 that was granted a while ago; `led` before that, and told since.
fn lease(led: bool, told: Option<Told>) -> Lease {
    let here = region("region1");
    let mut lease = Lease::new(LENGTH, at(0));
    if led {
        lease.told(Epoch::FIRST, &here, here.clone(), false);
    }
    // It came a long while after its stamp was made.
    lease.granted(at(GRANTED), LENGTH, at(GRANTED + 5_000));
    if let Some((epoch, writes, alone)) = told {
        lease.told(Epoch::read(epoch), &here, there_or_here(writes), alone);
    }
    lease
}

fn told() -> Vec<Option<Told>> {
    let mut all = vec![None];
    for epoch in 1..=3 {
        for writes in [false, true] {
            all.extend([false, true].map(|alone| Some((epoch, writes, alone))));
        }
    }
    all
}

/// How a region stands.
fn standing() -> Verdict {
    let (here, mut looked) = (region("region1"), 0);
    for told in told() {
        for led in [false, true] {
            // Before anything was said of the newest epoch, an older one may have been led.
            let lease = lease(led, told);
            let leads = led || told.is_some_and(|(_, writes, _)| writes);
            let told = told.or(led.then_some((1, true, false)));
            for newest in [None, Some(1), Some(2), Some(3)] {
                let newest_heard = newest.map(|epoch| heard(1, epoch, 1));
                for after in [100, 600, 999, 1_000, 5_500] {
                    looked += 1;
                    let now = at(GRANTED + after);
                    let stands = lease.standing(&here, newest_heard.as_ref(), now);
                    let current = told.filter(|(epoch, ..)| newest.is_none_or(|it| it <= *epoch));
                    let runs = after < 1_000;
                    let must = match current {
                        Some((_, false, _)) if leads && !runs => vec![Standing::Past],
                        Some((_, false, _)) => vec![Standing::Lost],
                        Some((_, true, true)) => vec![Standing::Holds],
                        _ if runs => vec![Standing::Holds, Standing::Ending],
                        _ => vec![Standing::Over],
                    };
                    if !must.contains(&stands) {
                        return Err(format!(
                            "told {told:?}, heard {newest:?}, {after} ms on: it stands {stands:?}"
                        ));
                    }
                }
            }
        }
    }
    Ok(looked)
}

/// What becomes of a server.
fn servers() -> Verdict {
    use Standing::{Ending, Holds, Lost, Over, Past};
    let mut looked = 0;
    for standing in [Holds, Ending, Over, Lost, Past] {
        for server in [Server::Writes, Server::Fenced, Server::Held, Server::Other] {
            looked += 1;
            let must = match (standing, server) {
                (_, Server::Other) | (Holds | Ending, Server::Writes | Server::Fenced) => {
                    Holding::Leave
                }
                (Over, Server::Writes | Server::Fenced) | (Past, Server::Writes) => Holding::Hold,
                (Holds | Ending, Server::Held) => Holding::Release,
                (Lost | Past, Server::Held) => Holding::End,
                // Held it stays; what refuses writes is left to its demotion.
                _ => Holding::Leave,
            };
            let is = holding(standing, server);
            if is != must {
                return Err(format!("{server:?}, and its region stands {standing:?}: {is:?}"));
            }
        }
    }
    Ok(looked)
}

fn promotion(epoch: u64, order: Order, step: Step) -> Command {
    Command {
        node: node("pg1.region1"),
        stamp: Stamp {
            lineage: lineage(1),
            epoch: Epoch::read(epoch),
            revision: Revision::FIRST,
            step: StepNumber::FIRST,
        },
        step,
        order,
        limit_ms: 1,
    }
}

/// What is said to a peer, and what follows from it.
fn promises() -> Verdict {
    let (here, mut looked) = (region("region1"), 0);
    let orders = [
        (
            Order::PostgresPromote {
                member: None,
                stopped_at: None,
                accept_loss: true,
                names: None,
            },
            Step::Promote,
        ),
        (Order::RedisPromote { accept_loss: false }, Step::PromoteRedis),
        (Order::RedisStart { first: false }, Step::PromoteRedis),
        (Order::RedisSentinelFailover, Step::SentinelFailover),
    ];
    if with_drift(LENGTH) < LENGTH + LENGTH / 50 {
        return Err("who waits for a lease waits no longer than its holder counts".to_owned());
    }
    for told in told() {
        let lease = lease(false, told);
        for newest in [None, Some((1, 1)), Some((1, 2)), Some((2, 1))] {
            for asked in [(1, 1), (1, 2), (2, 1)] {
                for server in [Server::Writes, Server::Other] {
                    looked += 1;
                    let newest_heard = newest.map(|(of, epoch)| heard(of, epoch, 1));
                    let knows = Knows {
                        region: &here,
                        lease: &lease,
                        heard: newest_heard.as_ref(),
                        here: server,
                    };
                    let mut reliance = Reliance::default();
                    let (of, epoch) = asked;
                    let (of, epoch) = (lineage(of), Epoch::read(epoch));
                    let said = reliance.confirm(&knows, &of, epoch, LENGTH, at(GRANTED));
                    let leads = told.is_some_and(|(_, writes, _)| writes);
                    let may = newest == Some(asked) && !leads && server != Server::Writes;
                    if said != may {
                        return Err(format!(
                            "told {told:?}, heard {newest:?}, {server:?}, asked of {asked:?}: {said}"
                        ));
                    }
                    let next = Reliance::resumed(reliance.until(), LENGTH, at(GRANTED + 500));
                    for (order, step) in &orders {
                        let command = promotion(3, order.clone(), *step);
                        let waits = next.delay(&command, at(GRANTED + 500));
                        let least = if may { LENGTH / 2 } else { Duration::ZERO };
                        if waits < least || !may && waits > least {
                            return Err(format!("{step} waits {waits:?} for who relies on it"));
                        }
                    }
                }
            }
        }
    }
    Ok(looked)
}

/// A join needs a lease, whatever was told before.
fn joins() -> Verdict {
    let here = region("region1");
    let mut lease = lease(true, Some((1, true, true)));
    let name = SyncName::new(node("pg1.region2"), 1);
    let order = Order::PostgresJoinBegin { name, join_limit_ms: 300 };
    lease.obeys(&here, &promotion(1, order, Step::JoinBegin));
    match lease.standing(&here, Some(&heard(1, 1, 1)), at(GRANTED + 5_000)) {
        Standing::Over => Ok(1),
        other => Err(format!("a standby joins, the lease is over, and it stands {other:?}")),
    }
}

/// All of it.
pub fn leases() -> Verdict {
    Ok(standing()? + servers()? + promises()? + joins()?)
}
