//! What a seed came across, and what a batch of them did.

use std::collections::BTreeMap;

use tier0_core::orchestrator::{AUTOMATIC, DECIDER};
use tier0_core::steps::{Scope, Step, row};

/// Rows that only days of several orchestrators reach.
pub const OF_SEVERAL: [&str; 3] = ["A16", "A17", "A18"];

#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub moves_succeeded: u64,
    pub automatic: u64,
    pub held_back: u64,
    pub moves_aborted: u64,
    pub moves_refused: u64,
    pub moves_closed: u64,
    /// Operations that could go no further, whose place another one took.
    pub superseded: u64,
    pub swaps: u64,
    pub swaps_with_loss_accepted: u64,
    pub core_restarts: u64,
    pub cores_beside: u64,
    pub resumed: u64,
    pub store_unknown: u64,
    pub store_rolled_back: u64,
    pub adopted: u64,
    pub agent_restarts: u64,
    pub regions_killed: u64,
    pub servers_ended: u64,
    pub disks_lost: u64,
    pub disks_stalled: u64,
    pub links_cut: u64,
    pub wall_jumps: u64,
    pub commands: u64,
    pub doubled: u64,
    pub replayed: u64,
    pub joins: u64,
    pub leaves: u64,
    pub acknowledged: u64,
    /// Leases given, confirmations of peers, and promotions that waited for one.
    pub grants: u64,
    pub confirmed: u64,
    pub delayed: u64,
    /// Servers that their agent held, let go on, and ended where they were held.
    pub held: u64,
    pub released: u64,
    pub held_ended: u64,
    /// Servers told to serve when another had been promoted in a newer epoch.
    pub late_starts: u64,
    /// Looks at a server that serves, whether a newer one does.
    pub reads: u64,
    /// Looks at which at least three faults overlapped.
    pub three_at_once: u64,
    /// Days in which three orchestrators shared the store.
    pub days_of_three: u64,
    /// How often one that thought that it acted learnt that another does.
    pub deposed: u64,
    pub cores_frozen: u64,
    pub cut_off: u64,
    /// How often the seat was taken by each row.
    pub seats: BTreeMap<&'static str, u64>,
    /// How often each refusal was given.
    pub refusals: BTreeMap<String, u64>,
    /// How often each row of the decider explained a datastore.
    pub rows: BTreeMap<&'static str, u64>,
    /// How often each step began to do something.
    pub steps: BTreeMap<Step, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.moves_succeeded, other.moves_succeeded),
            (&mut self.automatic, other.automatic),
            (&mut self.held_back, other.held_back),
            (&mut self.moves_aborted, other.moves_aborted),
            (&mut self.moves_refused, other.moves_refused),
            (&mut self.moves_closed, other.moves_closed),
            (&mut self.superseded, other.superseded),
            (&mut self.swaps, other.swaps),
            (&mut self.swaps_with_loss_accepted, other.swaps_with_loss_accepted),
            (&mut self.core_restarts, other.core_restarts),
            (&mut self.cores_beside, other.cores_beside),
            (&mut self.resumed, other.resumed),
            (&mut self.store_unknown, other.store_unknown),
            (&mut self.store_rolled_back, other.store_rolled_back),
            (&mut self.adopted, other.adopted),
            (&mut self.agent_restarts, other.agent_restarts),
            (&mut self.regions_killed, other.regions_killed),
            (&mut self.servers_ended, other.servers_ended),
            (&mut self.disks_lost, other.disks_lost),
            (&mut self.disks_stalled, other.disks_stalled),
            (&mut self.links_cut, other.links_cut),
            (&mut self.wall_jumps, other.wall_jumps),
            (&mut self.commands, other.commands),
            (&mut self.doubled, other.doubled),
            (&mut self.replayed, other.replayed),
            (&mut self.joins, other.joins),
            (&mut self.leaves, other.leaves),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.three_at_once, other.three_at_once),
            (&mut self.grants, other.grants),
            (&mut self.confirmed, other.confirmed),
            (&mut self.delayed, other.delayed),
            (&mut self.held, other.held),
            (&mut self.released, other.released),
            (&mut self.held_ended, other.held_ended),
            (&mut self.late_starts, other.late_starts),
            (&mut self.reads, other.reads),
            (&mut self.days_of_three, other.days_of_three),
            (&mut self.deposed, other.deposed),
            (&mut self.cores_frozen, other.cores_frozen),
            (&mut self.cut_off, other.cut_off),
        ];
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
        for (code, count) in &other.refusals {
            *self.refusals.entry(code.clone()).or_default() += count;
        }
        for (row, count) in &other.seats {
            *self.seats.entry(row).or_default() += count;
        }
        for (row, count) in &other.rows {
            *self.rows.entry(row).or_default() += count;
        }
        for (step, count) in &other.steps {
            *self.steps.entry(*step).or_default() += count;
        }
    }
}

/// A batch of seeds.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub all: Counts,
    /// Changes of writer of each seed.
    pub swaps: Vec<u64>,
}

impl Batch {
    pub fn add(&mut self, counts: &Counts) {
        self.all.add(counts);
        self.swaps.push(counts.swaps);
    }

    pub fn merge(&mut self, other: Batch) {
        self.all.add(&other.all);
        self.swaps.extend(other.swaps);
    }

    pub fn median_swaps(&self) -> u64 {
        let mut swaps = self.swaps.clone();
        swaps.sort_unstable();
        swaps.get(swaps.len() / 2).copied().unwrap_or(0)
    }

    /// Rows of the decider and steps that were reached less often than this.
    pub fn reached_less_than(&self, least: u64) -> Vec<String> {
        let count = |count: Option<&u64>| count.copied().unwrap_or(0);
        let ids = DECIDER.iter().map(|row| row.id).chain(AUTOMATIC.iter().map(|row| row.id));
        let ids = ids.filter(|id| !OF_SEVERAL.contains(id));
        let rows = ids.map(|id| (format!("row {id}"), count(self.all.rows.get(id))));
        // The simulated stacks have no routes.
        let steps = Step::ALL
            .iter()
            .filter(|step| **step != Step::Hold && row(**step).scope != Scope::EachRoute)
            .map(|step| (format!("step {step}"), count(self.all.steps.get(step))));
        rows.chain(steps)
            .filter(|(_, count)| *count < least)
            .map(|(name, count)| format!("{name}: {count}"))
            .collect()
    }
}
