//! Several orchestrators over one store: which of them acts, and what the others see.
//!
//! Nothing here is what keeps data safe: that is the compare-and-swap on the record, and agents that
//! refuse whatever is older than what they have heard (R1, R4). One acts at a time for order's sake.
//! The others watch: they hear the agents, follow the record, and take the seat when whoever has it
//! is silent, or hears less of the stack than they do. The order of the sites in the configuration
//! decides who goes first; two who go at once are told apart by the store.
//!
//! Each tells the others what it sees. A region's silence moves the writer only if more than half
//! of the sites say so (O3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guard::Guard;
use crate::observe::Reach;
use crate::words::{Moment, NodeId, Region, Revision, Site};

use super::change::Change;
use super::input::Now;
use super::output::Effect;
use super::reach::Sight;
use super::{Orchestrator, Wanted};

/// What an orchestrator tells the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerReport {
    /// Where it runs.
    pub site: Site,
    /// The name of this run, as the record names who acts.
    pub run: String,
    /// How long ago it heard each region's agent, in milliseconds; one that it never heard is not
    /// there.
    pub agents: BTreeMap<Region, u64>,
    /// How each data server answers it.
    pub servers: BTreeMap<NodeId, Reach>,
    /// How long ago it heard the runs of other orchestrators that reach the store, in milliseconds. Others
    /// would be kept in the seat by this where nobody sees that they are of no use there.
    pub runs: BTreeMap<String, u64>,
    /// For how long the store has said nothing to it, in milliseconds.
    pub store_silent_ms: u64,
}

/// What the sites say of a server whose agent is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Votes {
    /// Sites that see nothing of it.
    pub blind: BTreeSet<Site>,
    /// A site that does see it or its agent.
    pub sees: Option<Site>,
    /// How many must be blind.
    pub needed: usize,
}

impl Votes {
    /// Whether more than half of the sites see nothing of it.
    pub fn are_enough(&self) -> bool {
        self.blind.len() >= self.needed || !Guard::MajoritySaysSo.holds()
    }
}

/// What the other orchestrators said last, and what is remembered of who acts.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    reports: BTreeMap<Site, (PeerReport, Moment)>,
    /// Who acts by the record, at which of its revisions, and since when that is known.
    acting: Option<(String, Revision, Moment)>,
    /// Since when who acts hears less than is heard here.
    hears_less_since: Option<Moment>,
    /// Since when who acts comes after this one in the order, and hears no more.
    comes_first_since: Option<Moment>,
    row: Option<&'static str>,
}

impl Peers {
    pub(super) fn heard(&mut self, now: Moment, report: PeerReport) {
        self.reports.insert(report.site.clone(), (report, now));
    }

    /// This run acts: whoever acts after it is waited for anew, also one that acted before it.
    fn acts_here(&mut self) {
        let reports = std::mem::take(&mut self.reports);
        *self = Peers { reports, ..Peers::default() };
    }

    fn fresh(
        &self,
        now: Moment,
        window: Duration,
    ) -> impl Iterator<Item = (&PeerReport, Duration)> {
        let aged = self.reports.values().map(move |(report, at)| (report, now.since(*at)));
        aged.filter(move |(_, age)| *age < window)
    }

    /// For how long a run was not heard, neither here nor by one that is heard here.
    fn run_silent_for(&self, run: &str, now: Moment) -> Option<Duration> {
        let here = self.of_run(run).map(|(_, at)| now.since(*at));
        let told = self.reports.values().filter_map(|(report, at)| {
            let before = Duration::from_millis(*report.runs.get(run)?);
            Some(before.saturating_add(now.since(*at)))
        });
        told.chain(here).min()
    }

    /// The newest report of a run, however old.
    fn of_run(&self, run: &str) -> Option<&(PeerReport, Moment)> {
        self.reports.values().find(|(report, _)| report.run == run)
    }
}

/// Everything a row may look at.
pub struct Seating {
    /// Nobody else can act.
    pub only: bool,
    /// An agent has said what it has heard of: a store that went back by less than this run is about
    /// to write would look as new as what the agents know (R2).
    pub compared: bool,
    /// For how long nothing has come from whoever acts by the record, also to others that are heard,
    /// nor was stored.
    pub silent_for: Duration,
    /// Whoever acts has heard nothing of the store for long, and this one has.
    pub storeless: bool,
    /// For how long whoever acts has heard fewer agents than this one.
    pub hears_less_for: Duration,
    /// For how long this one has heard all that the one that acts hears, which comes after it.
    pub comes_first_for: Duration,
    /// How long this one lets those before it in the order go first.
    pub patience: Duration,
    /// An operation owns the stack.
    pub busy: bool,
}

/// For how many windows everything is calm before the seat goes to the one that comes first: the
/// writer's region may be lost with whoever is in it.
const SETTLED: u32 = 5;

/// One row.
pub struct SeatRow {
    /// Stable id; never used again for something else.
    pub id: &'static str,
    /// Whether it matches.
    pub applies: fn(&Seating) -> bool,
    /// Whether the seat is taken.
    pub takes: Takes,
    /// Why, for people.
    pub sentence: &'static str,
}

/// What a row comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// This run is to act from now on, if the store agrees.
    Seat,
    /// It goes on watching.
    Nothing,
}

/// The table, for a run that does not act. The first row that matches decides.
pub const SEAT: &[SeatRow] = &[
    SeatRow {
        id: "T01",
        applies: |it| !it.compared && Guard::HearsBeforeDriving.holds(),
        takes: Takes::Nothing,
        sentence: "no agent has said yet which record it has heard of",
    },
    SeatRow {
        id: "T02",
        applies: |it| it.only,
        takes: Takes::Seat,
        sentence: "it is the only orchestrator",
    },
    SeatRow {
        id: "T03",
        applies: |it| it.silent_for >= it.patience,
        takes: Takes::Seat,
        sentence: "the orchestrator that acts by the record is silent",
    },
    SeatRow {
        id: "T07",
        applies: |it| it.storeless,
        takes: Takes::Seat,
        sentence: "the orchestrator that acts does not reach the store",
    },
    SeatRow {
        id: "T04",
        applies: |it| it.hears_less_for >= it.patience * 2 && !it.busy,
        takes: Takes::Seat,
        sentence: "the orchestrator that acts hears fewer agents than this one",
    },
    SeatRow {
        id: "T06",
        applies: |it| it.comes_first_for >= it.patience * SETTLED && !it.busy,
        takes: Takes::Seat,
        sentence: "it comes before the one that acts, and everything has been calm",
    },
    SeatRow {
        id: "T05",
        applies: |_| true,
        takes: Takes::Nothing,
        sentence: "another orchestrator acts",
    },
];

impl Orchestrator {
    /// What this orchestrator tells the others.
    pub fn peer_report(&self, now: &Now) -> PeerReport {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let heard = |region: &Region| {
            let age = self.seen.region(region)?.age(now.moment)?;
            Some((region.clone(), millis(age)))
        };
        let of_run = |(report, at): &(PeerReport, Moment)| {
            let of_use = !self.has_lost_the_store(report);
            of_use.then(|| (report.run.clone(), millis(now.moment.since(*at))))
        };
        PeerReport {
            site: self.settings.seats.here.clone(),
            run: self.driver.clone(),
            agents: self.settings.shape.regions.iter().filter_map(heard).collect(),
            servers: self.reach.all(now.moment),
            runs: self.peers.reports.values().filter_map(of_run).collect(),
            store_silent_ms: millis(self.store_silent_for(now)),
        }
    }

    /// Whether another one has heard nothing of the store for long.
    fn has_lost_the_store(&self, report: &PeerReport) -> bool {
        Duration::from_millis(report.store_silent_ms) > self.settings.limits.silence * 2
    }

    /// The other orchestrators, each with how long ago it was heard, if it ever was.
    pub fn peers(&self, now: &Now) -> BTreeMap<Site, Option<Duration>> {
        let seats = &self.settings.seats;
        let others = seats.order.iter().filter(|site| **site != seats.here);
        let age = |site: &Site| Some(now.moment.since(self.peers.reports.get(site)?.1));
        others.map(|site| (site.clone(), age(site))).collect()
    }

    /// The site of the orchestrator that acts by the record, as far as it is known.
    pub fn acting_site(&self) -> Option<&Site> {
        let driver = &self.record.as_ref()?.driver;
        if *driver == self.driver {
            return Some(&self.settings.seats.here);
        }
        self.peers.of_run(driver).map(|(report, _)| &report.site)
    }

    /// The row that says why this run acts not, or is about to.
    pub fn seat_row(&self) -> Option<&'static SeatRow> {
        let id = self.peers.row?;
        SEAT.iter().find(|row| row.id == id)
    }

    /// Take the seat, where nobody else acts.
    pub(super) fn take_seat(&mut self, now: &Now, out: &mut Vec<Effect>) {
        let driving = self.is_driving();
        if driving {
            self.peers.acts_here();
        }
        let waits = self.storing.is_some() || self.wanted.iter().any(Wanted::is_drive);
        if driving || waits || self.frozen.is_some() {
            return;
        }
        let Some(seating) = self.seating(now) else { return };
        let Some(row) = SEAT.iter().find(|row| (row.applies)(&seating)) else { return };
        if self.peers.row != Some(row.id) {
            self.peers.row = Some(row.id);
            if !seating.only {
                out.push(Effect::Explain {
                    row: row.id,
                    subject: "the seat".to_owned(),
                    sentence: row.sentence,
                });
            }
        }
        if row.takes == Takes::Seat {
            let change = Change::Drive { driver: self.driver.clone() };
            self.wanted.push_front(Wanted { change, since: now.moment, by: None });
        }
    }

    fn seating(&mut self, now: &Now) -> Option<Seating> {
        let record = self.record.as_ref()?;
        // What it stores is a sign of life as well, where only the way to it is cut.
        let acting = match &self.peers.acting {
            Some((run, revision, since))
                if *run == record.driver && *revision == record.revision =>
            {
                *since
            }
            Some(_) | None => {
                self.peers.acting = Some((record.driver.clone(), record.revision, now.moment));
                now.moment
            }
        };
        let window = self.window();
        // And so is what others hear of it, where only the way from it to here is cut.
        let stored_for = now.moment.since(acting);
        let unheard_for = self.peers.run_silent_for(&record.driver, now.moment);
        let silent_for = unheard_for.map_or(stored_for, |unheard_for| unheard_for.min(stored_for));
        let newest = self.peers.of_run(&record.driver);
        let seats = &self.settings.seats;
        let heard_here =
            |region: &&Region| self.seen.agent_silent(region, now.moment, window).is_none();
        let ours = self.settings.shape.regions.iter().filter(heard_here).count();
        let acting_now = newest.filter(|(_, at)| now.moment.since(*at) < window);
        let theirs = acting_now.map(|(report, _)| {
            let heard = |age: &&u64| Duration::from_millis(**age) < window;
            report.agents.values().filter(heard).count()
        });
        let storeless = acting_now.is_some_and(|(report, _)| {
            self.has_lost_the_store(report) && self.store_is_silent(now).is_none()
        });
        let less = theirs.is_some_and(|theirs| theirs < ours);
        let comes_after = acting_now.is_some_and(|(report, _)| seats.is_before(&report.site));
        let first = comes_after && theirs.is_some_and(|theirs| theirs <= ours);
        let since = |holds: bool, since: Option<Moment>| holds.then(|| since.unwrap_or(now.moment));
        let hears_less_since = since(less, self.peers.hears_less_since);
        let comes_first_since = since(first, self.peers.comes_first_since);
        let lasts =
            |since: Option<Moment>| since.map_or(Duration::ZERO, |since| now.moment.since(since));
        self.peers.hears_less_since = hears_less_since;
        self.peers.comes_first_since = comes_first_since;
        let before = seats.order.iter().take_while(|site| **site != seats.here);
        let living: BTreeSet<&Site> =
            self.peers.fresh(now.moment, window).map(|(report, _)| &report.site).collect();
        let rank = before.filter(|site| living.contains(site)).count();
        Some(Seating {
            only: !seats.is_shared(),
            compared: self.seen.regions.values().any(|seen| seen.report.is_some()),
            silent_for,
            storeless,
            hears_less_for: lasts(hears_less_since),
            comes_first_for: lasts(comes_first_since),
            patience: window + (window / 2) * u32::try_from(rank).unwrap_or(u32::MAX),
            busy: record.claim.is_some(),
        })
    }

    /// What the sites say of a server whose agent is silent. The other region's agent speaks for its
    /// site; a single orchestrator needs its word and no more.
    pub(super) fn votes(
        &self,
        now: &Now,
        target: &Region,
        node: &NodeId,
        from_here: Sight,
        from_target: Sight,
    ) -> Votes {
        let window = self.window();
        let seats = &self.settings.seats;
        let mut votes = Votes { blind: BTreeSet::new(), sees: None, needed: 0 };
        if !seats.is_shared() {
            return votes;
        }
        votes.needed = seats.majority();
        let of_target = seats.order.iter().find(|site| site.as_str() == target.as_str());
        if from_here.is_blind(window) {
            votes.blind.insert(seats.here.clone());
        }
        if let Some(site) = of_target.filter(|_| from_target.is_blind(window)) {
            votes.blind.insert(site.clone());
        }
        for (report, age) in self.peers.fresh(now.moment, window) {
            let heard = report.agents.get(node.region());
            let silent_for = heard.map(|heard| Duration::from_millis(*heard) + age);
            let sight = report.servers.get(node).map(|reach| Sight::told(*reach, age));
            let Some((silent_for, sight)) = silent_for.zip(sight) else { continue };
            if silent_for < window / 2 || sight == Sight::Sees {
                votes.sees = Some(report.site.clone());
            } else if sight.is_blind(window) {
                votes.blind.insert(report.site.clone());
            }
        }
        votes
    }
}
