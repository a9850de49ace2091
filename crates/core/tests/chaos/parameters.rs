//! What a day is like, drawn from its seed: how large the stack is, how much goes wrong, how clocks
//! and disks behave. Printed first, so that a replay begins with what it is a replay of.

use std::time::Duration;

use tier0_core::observe::{Announce, OnProcessDeath, ProtectionMode};
use tier0_core::orchestrator::{Seats, Settings};
use tier0_core::record::{AutomaticMode, DatastoreKind};
use tier0_core::words::Site;

use super::several::SITES;
use super::{Random, SECOND};
use crate::world::settings;

#[derive(Debug, Clone)]
pub struct Parameters {
    pub postgres: usize,
    pub redis: usize,
    /// Sentinel is told by `SENTINEL FAILOVER`.
    pub documented: bool,
    /// How long things go wrong, in microseconds.
    pub lasts: u64,
    /// Of how many looks, 20 ms apart, one breaks something.
    pub breaks_once_in: u64,
    /// Of how many looks one has somebody press a button.
    pub presses_once_in: u64,
    /// Of how many answers of the store one is lost.
    pub store_loses_once_in: u64,
    /// Of how many writes of a disk (store or agent) one takes up to three seconds.
    pub disk_stalls_once_in: u64,
    /// Of how many commands one is kept by the network and delivered again much later.
    pub replays_once_in: u64,
    /// Whether the writer moves without being asked.
    pub mode: AutomaticMode,
    /// The server that ends is not started again where it is: the writer moves.
    pub death_moves: bool,
    /// Of how many knocks one is the first of several that are told to have come to nothing.
    pub lies_once_in: u64,
    /// The orchestrator's clock against the world's, in thousandths.
    pub clock_rate: u64,
    /// The agents' clocks against the orchestrator's, in thousandths.
    pub holder_rates: [u64; 2],
    /// How far the wall clock jumps when it does, in seconds.
    pub wall_jump: i64,
    /// How many writes a stream carries in 5 ms.
    pub stream_carries: usize,
    /// How much WAL a write is, in bytes.
    pub write_bytes: u64,
    /// Commits never go on with a single copy by themselves.
    pub max_protection: bool,
    /// How many orchestrators share the store.
    pub orchestrators: usize,
}

impl Parameters {
    pub fn calm(postgres: usize, redis: usize, documented: bool) -> Parameters {
        Parameters {
            postgres,
            redis,
            documented,
            lasts: 0,
            breaks_once_in: 25,
            presses_once_in: 60,
            store_loses_once_in: 12,
            disk_stalls_once_in: u64::MAX,
            replays_once_in: 40,
            mode: AutomaticMode::Off,
            death_moves: true,
            lies_once_in: u64::MAX,
            clock_rate: 1_000,
            holder_rates: [1_000; 2],
            wall_jump: 0,
            stream_carries: usize::MAX,
            write_bytes: 8,
            max_protection: false,
            orchestrators: 1,
        }
    }

    pub fn drawn(random: &mut Random) -> Parameters {
        let (postgres, redis) = match random.below(20) {
            0..=1 => (1, 0),
            2..=3 => (2, 2),
            4 => (3, 1),
            _ => (1, 1),
        };
        let slow = random.once_in(4);
        let mut drawn = Parameters {
            documented: redis > 0 && random.once_in(6),
            lasts: random.between(8, 16) * SECOND,
            breaks_once_in: random.between(20, 200),
            presses_once_in: random.between(8, 30),
            store_loses_once_in: random.between(8, 60),
            disk_stalls_once_in: if slow { random.between(10, 40) } else { u64::MAX },
            replays_once_in: random.between(10, 80),
            mode: match random.below(6) {
                0 => AutomaticMode::Off,
                1 => AutomaticMode::Observe,
                _ => AutomaticMode::Armed,
            },
            death_moves: random.once_in(2),
            lies_once_in: random.between(200, 5_000),
            clock_rate: random.between(900, 1_101),
            holder_rates: [random.between(990, 1_011), random.between(990, 1_011)],
            wall_jump: random.between(0, 7_200) as i64 - 3_600,
            stream_carries: if random.once_in(3) { 1 } else { usize::MAX },
            write_bytes: if random.once_in(3) { 2_000_000 } else { 8 },
            ..Parameters::calm(postgres, redis, false)
        };
        // Without a draw of its own, so that a seed's day stays what it was.
        drawn.max_protection = drawn.wall_jump.rem_euclid(4) == 0;
        drawn
    }

    /// The same day with an orchestrator in each of three sites.
    pub fn of_three(self) -> Parameters {
        // Fewer buttons: what they begin keeps the writer from being moved without them.
        let presses_once_in = self.presses_once_in * 4;
        Parameters { orchestrators: SITES.len(), presses_once_in, ..self }
    }

    /// The settings of the orchestrator of a site.
    pub fn settings_at(&self, site: usize) -> Settings {
        let order: Vec<Site> = SITES.map(|site| site.parse().unwrap()).to_vec();
        Settings { seats: Seats { here: order[site].clone(), order }, ..self.settings() }
    }

    pub fn settings(&self) -> Settings {
        let mut settings = settings(self.postgres, self.redis);
        settings.limits.cool_down = Duration::from_secs(2);
        for datastore in settings.shape.datastores.values_mut() {
            if self.documented {
                datastore.announce = Announce::Documented;
            }
            if datastore.kind == DatastoreKind::Postgres && !self.death_moves {
                datastore.on_process_death = OnProcessDeath::Restart;
            }
            if datastore.kind == DatastoreKind::Postgres && self.max_protection {
                datastore.protection = ProtectionMode::MaxProtection;
            }
        }
        settings
    }
}
