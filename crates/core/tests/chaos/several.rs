//! Three orchestrators over one store that each of them writes to: what `crates/orchestrator` does
//! around the core there (`driver.rs`, `following.rs`, `peers.rs`, `agents.rs`), done once more with
//! virtual time. Each has its own clock, reads the store all the time, hears the others, and is killed,
//! frozen and cut off by itself.
//!
//! Left out: a store that goes back to a copy. Days of one orchestrator have that.

use tier0_core::grant::{Granter, Stamps};
use tier0_core::orchestrator::*;
use tier0_core::record::Record;
use tier0_core::words::*;

use super::*;

/// Where the orchestrators run, in the order in which they go first.
pub const SITES: [&str; 3] = ["witness", "region1", "region2"];

/// Whoever has taken the seat is heard of or waited for at least so long, by the fastest of clocks.
const PATIENCE: u64 = 890 * MS;

/// How often the store is read, and the others are told what one sees.
const READ_EVERY: u64 = 100 * MS;
const TELL_EVERY: u64 = 200 * MS;

/// After this long a read of a store that does not answer is given up.
const READ_MOST: u64 = 300 * MS;

/// What passes between an orchestrator and an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// What is asked.
    pub there: bool,
    /// What is answered.
    pub back: bool,
}

impl Way {
    fn and(self, other: Way) -> Way {
        Way { there: self.there && other.there, back: self.back && other.back }
    }
}

/// A place with an orchestrator.
#[derive(Debug, Clone, Default)]
pub struct At {
    /// The newest run there.
    pub run: u64,
    /// It stays down until everything is healed.
    pub gone: bool,
    pub no_store: bool,
    /// Places whose orchestrators it does not hear, nor they it.
    pub no_word: BTreeSet<usize>,
    pub cut: BTreeMap<Region, Way>,
}

/// One run of an orchestrator.
#[derive(Debug, Clone)]
pub struct Post {
    pub site: usize,
    /// Its process stands still: what comes to it waits.
    pub still: bool,
    /// Its clock: what it showed at which moment of the world, and its rate in thousandths.
    shown: u64,
    shown_at: u64,
    rate: u64,
    stamps: BTreeMap<Region, Stamps>,
    /// It reads the store all the time: from when it has loaded the record on.
    pub follows: bool,
    /// When its newest load saw to it that nothing which it had sent to the store arrives later.
    pub settled_at: u64,
}

impl Post {
    fn moment(&self, now: u64, rate_of_all: u64) -> u64 {
        self.shown + (now - self.shown_at) * rate_of_all * self.rate / 1_000_000
    }

    /// What the driver does before the core takes an input.
    pub(super) fn takes(&mut self, core: &Orchestrator, moment: Moment, input: &Input) {
        match input {
            Input::Report(report) => {
                let new = || Stamps::new(Granter::OneOfSeveral);
                let stamps = self.stamps.entry(report.region.clone()).or_insert_with(new);
                stamps.came((report.run.clone(), report.stamp_us), moment);
            }
            Input::Read { record, begun } if core.acts_by(record) => {
                self.stamps.values_mut().for_each(|stamps| stamps.confirmed(*begun));
            }
            _ => {}
        }
    }
}

/// A compare-and-swap on its way to the store.
#[derive(Debug, Clone)]
pub struct Swap {
    pub run: u64,
    pub expected: Heard,
    pub next: Box<Record>,
    pub sent: u64,
    /// Why the seat is taken, if it is.
    pub row: Option<&'static str>,
    /// Nobody waits for the answer any more.
    pub given_up: bool,
}

/// What is cut.
#[derive(Debug, Clone)]
pub enum Cut {
    Store,
    Others,
    Agent(Region),
    All,
}

impl Chaos {
    pub(super) fn is_shared(&self) -> bool {
        self.parameters.orchestrators > 1
    }

    /// The run that acts by the record, in a day of one the newest.
    pub(super) fn acting_run(&self) -> u64 {
        if !self.is_shared() {
            return self.core_run;
        }
        self.stored.driver.trim_start_matches("run-").parse().unwrap_or(u64::MAX)
    }

    /// Exactly one of three drives, and knows it; the others are well too.
    pub(super) fn one_drives(&self) -> bool {
        let drives = |core: &&Orchestrator| core.is_driving();
        !self.is_shared()
            || self.cores.len() == SITES.len()
                && self.cores.values().filter(drives).count() == 1
                && self.core().is_some_and(Orchestrator::is_driving)
    }

    /// Whether the orchestrator acts that goes before the others.
    pub(super) fn first_acts(&self) -> bool {
        self.posts.get(&self.acting_run()).is_some_and(|post| post.site == 0)
    }

    /// What passes between a run and an agent. Nothing lies between an agent and the orchestrator
    /// beside it but what is cut just there.
    pub(super) fn way(&self, run: u64, place: &Region) -> Way {
        let agent = &self.agents[place];
        let of_all = Way { there: agent.linked, back: !agent.mute };
        let Some(post) = self.posts.get(&run) else { return of_all };
        let beside = SITES[post.site] == place.as_str();
        let open = if beside { Way { there: true, back: true } } else { of_all };
        self.sites[post.site].cut.get(place).map_or(open, |cut| open.and(*cut))
    }

    pub(super) fn is_still(&self, run: u64) -> bool {
        self.still_core || self.posts.get(&run).is_some_and(|post| post.still)
    }

    /// Whether something lies between an agent and one of the orchestrators, or one of them is not
    /// itself.
    pub(super) fn is_ill_with(&self, place: &Region) -> bool {
        self.sites.iter().any(|at| at.cut.contains_key(place) || !self.cores.contains_key(&at.run))
            || self.posts.values().any(|post| post.still)
    }

    /// The monotonic clock of a run.
    pub(super) fn moment_of(&self, run: u64) -> Option<u64> {
        self.posts.get(&run).map(|post| post.moment(self.now, self.parameters.clock_rate))
    }

    /// From now on clocks run as the parameters say, each a little off.
    pub(super) fn set_clocks(&mut self, rate: u64) {
        for run in self.posts.keys().copied().collect::<Vec<_>>() {
            let off = self.random.between(992, 1_009);
            let shown = self.posts[&run].moment(self.now, rate);
            let post = self.posts.get_mut(&run).unwrap();
            (post.shown, post.shown_at, post.rate) = (shown, self.now, off);
        }
    }

    /// An orchestrator begins at a site.
    pub(super) fn site_up(&mut self, site: usize) {
        let at = &self.sites[site];
        if at.gone || self.cores.contains_key(&at.run) {
            return;
        }
        self.core_run += 1;
        let run = self.core_run;
        self.counts.resumed += u64::from(self.stored.claim.is_some());
        self.say(|| format!("run {run} begins at {}", SITES[site]));
        self.sites[site].run = run;
        let rate = if self.wild { self.random.between(992, 1_009) } else { 1_000 };
        let post = Post {
            site,
            still: false,
            shown: self.random.between(1, 50 * MS),
            shown_at: self.now,
            rate,
            stamps: BTreeMap::new(),
            follows: false,
            settled_at: 0,
        };
        self.posts.insert(run, post);
        let settings = self.parameters.settings_at(site);
        self.cores.insert(run, Orchestrator::new(settings, format!("run-{run}")));
        self.load(run);
        let wait = self.random.between(1, 200) * MS;
        self.after(wait, Event::TellOthers { run });
    }

    /// The orchestrator of a site ends, or is only thought to have.
    pub(super) fn site_down(&mut self, site: usize, goes_on: bool) {
        let run = self.sites[site].run;
        if !self.cores.contains_key(&run) {
            return;
        }
        self.counts.core_restarts += 1;
        let seems = if goes_on { ", it seems" } else { "" };
        self.say(|| format!("run {run} at {} ends{seems}", SITES[site]));
        if goes_on {
            self.counts.cores_beside += 1;
            let wait = self.random.between(100, 3_000) * MS;
            self.after(wait, Event::CoreEnds { run });
            self.sites[site].run = u64::MAX;
        } else {
            self.ends(run);
        }
    }

    /// Nothing is left of a run but what it sent.
    pub(super) fn ends(&mut self, run: u64) {
        self.cores.remove(&run);
        self.posts.remove(&run);
        self.storing.remove(&run);
    }

    /// The orchestrator of a region that is killed goes with it.
    pub(super) fn site_killed(&mut self, place: &Region) {
        let Some(site) = SITES.iter().position(|site| *site == place.as_str()) else { return };
        if !self.is_shared() {
            return;
        }
        self.site_down(site, false);
        self.sites[site].gone = self.agents[place].gone;
        let wait = self.random.between(300, 5_000) * MS;
        self.after(wait, Event::SiteUp { site });
    }

    /// Something befalls one orchestrator, often the one that acts.
    pub(super) fn break_an_orchestrator(&mut self) {
        let acting = self.posts.get(&self.acting_run()).map(|post| post.site);
        let any = self.random.below(SITES.len() as u64) as usize;
        let site = acting.filter(|_| self.random.once_in(2)).unwrap_or(any);
        let place = self.any_region();
        match self.random.below(14) {
            0..=2 => {
                let goes_on = self.random.once_in(4);
                self.site_down(site, goes_on);
                let most = if self.random.once_in(2) { 400 } else { 5_000 };
                let wait = self.random.between(1, most) * MS;
                self.after(wait, Event::SiteUp { site });
            }
            3..=4 => {
                let run = self.sites[site].run;
                self.counts.cores_frozen += 1;
                self.say(|| format!("run {run} at {} stands still", SITES[site]));
                if let Some(post) = self.posts.get_mut(&run) {
                    post.still = true;
                }
                let wait = self.random.between(100, 4_000) * MS;
                self.after(wait, Event::CoreGoesOn { run });
            }
            5..=6 => self.cut(site, Cut::Store),
            7 => self.cut(site, Cut::Others),
            8..=10 => self.cut(site, Cut::Agent(place)),
            _ => self.cut(site, Cut::All),
        }
    }

    fn cut(&mut self, site: usize, what: Cut) {
        self.counts.cut_off += 1;
        self.say(|| format!("{} is cut from {what:?}", SITES[site]));
        let others = (0..SITES.len()).filter(|other| *other != site);
        let places: Vec<Region> = self.agents.keys().cloned().collect();
        let both = self.random.once_in(2);
        let one = self.random.once_in(3);
        let at = &mut self.sites[site];
        match &what {
            Cut::Store => at.no_store = true,
            Cut::Others => at.no_word.extend(others.skip(usize::from(one))),
            Cut::Agent(place) => {
                at.cut.insert(place.clone(), Way { there: !both, back: false });
            }
            Cut::All => {
                at.no_store = true;
                at.no_word.extend(others);
                for place in places.iter().filter(|place| place.as_str() != SITES[site]) {
                    at.cut.insert(place.clone(), Way { there: false, back: false });
                }
                if let Some(here) = places.iter().find(|place| place.as_str() == SITES[site]) {
                    let agent = self.agents.get_mut(here).unwrap();
                    (agent.linked, agent.mute) = (false, true);
                    self.stream_up = false;
                }
            }
        }
        let wait = self.random.between(100, 7_000) * MS;
        self.after(wait, Event::SiteWell { site, what });
    }

    /// What was cut is whole again.
    pub(super) fn site_well(&mut self, site: usize, what: &Cut) {
        let at = &mut self.sites[site];
        match what {
            Cut::Store => at.no_store = false,
            Cut::Others => at.no_word.clear(),
            Cut::Agent(place) => {
                at.cut.remove(place);
            }
            Cut::All => {
                *at = At { run: at.run, gone: at.gone, ..At::default() };
                let here = self.agents.iter_mut().find(|(place, _)| place.as_str() == SITES[site]);
                if let Some((_, agent)) = here {
                    (agent.linked, agent.mute) = (true, false);
                    self.stream_up = true;
                }
            }
        }
    }

    pub(super) fn core_goes_on(&mut self, run: u64) {
        if let Some(post) = self.posts.get_mut(&run) {
            post.still = false;
        }
    }

    /// All three run, reach everything, and no earlier run is left.
    pub(super) fn heal_sites(&mut self) {
        let newest: BTreeSet<u64> = self.sites.iter().map(|at| at.run).collect();
        for run in
            self.cores.keys().copied().filter(|run| !newest.contains(run)).collect::<Vec<_>>()
        {
            self.ends(run);
        }
        self.posts.values_mut().for_each(|post| post.still = false);
        for site in 0..self.sites.len() {
            self.sites[site] = At { run: self.sites[site].run, ..At::default() };
            self.site_up(site);
        }
    }

    /// Nothing that befalls orchestrators and links looks like a store that went back.
    pub(super) fn check_none_frozen(&self) {
        for (run, core) in &self.cores {
            assert!(core.frozen().is_none(), "run {run} is frozen: {:?}", core.frozen());
        }
    }

    pub(super) fn has_store(&self, run: u64) -> bool {
        let at = self.posts.get(&run).map(|post| &self.sites[post.site]);
        at.is_some_and(|at| !at.no_store)
    }

    /// How long a packet of an orchestrator is under way.
    fn under_way(&mut self, most: u64) -> u64 {
        let slow = self.wild && self.random.once_in(20);
        if slow { self.random.between(1, most) * MS } else { self.random.between(200, 4 * MS) }
    }

    /// What a run has loaded is in its core: it begins to follow the store.
    pub(super) fn has_loaded(&mut self, run: u64) {
        let Some(post) = self.posts.get_mut(&run) else { return };
        if !std::mem::replace(&mut post.follows, true) {
            self.after(MS, Event::ReadStore { run });
        }
    }

    /// A read begins. There is one at a time.
    pub(super) fn read_store(&mut self, run: u64) {
        if !self.cores.contains_key(&run) {
            return;
        }
        if self.is_still(run) {
            return self.after(20 * MS, Event::ReadStore { run });
        }
        let lost = self.wild && self.random.once_in(20);
        if lost || !self.has_store(run) {
            return self.after(READ_MOST, Event::ReadStore { run });
        }
        let begun = Moment::from_micros(self.moment_of(run).unwrap());
        let wait = self.under_way(600);
        self.after(wait, Event::StoreIsRead { run, begun });
    }

    /// The store says what it holds.
    pub(super) fn store_is_read(&mut self, run: u64, begun: Moment) {
        if !self.has_store(run) {
            return self.after(READ_MOST, Event::ReadStore { run });
        }
        let record = self.stored.clone();
        let wait = self.under_way(600);
        self.after(wait, Event::ToCore { run, input: Input::Read { record, begun } });
        self.after(wait + READ_EVERY, Event::ReadStore { run });
    }

    /// A run says to the others what it sees.
    pub(super) fn tell_others(&mut self, run: u64) {
        if !self.cores.contains_key(&run) {
            return;
        }
        self.after(TELL_EVERY, Event::TellOthers { run });
        if self.is_still(run) {
            return;
        }
        let now = self.clocks(run);
        let report = self.cores[&run].peer_report(&now);
        let site = self.posts[&run].site;
        for other in (0..SITES.len()).filter(|other| *other != site) {
            let (here, there) = (&self.sites[site], &self.sites[other]);
            let hears = there.run;
            let cut = here.no_word.contains(&other) || there.no_word.contains(&site);
            let lost = self.wild && self.random.once_in(30);
            if cut || lost {
                continue;
            }
            let wait = self.under_way(800);
            self.after(wait, Event::ToCore { run: hears, input: Input::Peer(report.clone()) });
        }
    }

    /// A compare-and-swap is sent. Some reach the store, and nobody hears of it; some reach it long
    /// after their sender has given up on them.
    pub(super) fn send_swap(&mut self, run: u64, expected: &Heard, next: Record) {
        assert_eq!(next.driver, format!("run-{run}"), "run {run} changes what another drives");
        let core = &self.cores[&run];
        let takes = self.stored.driver != next.driver;
        let row = core.seat_row().filter(|_| takes).map(|row| row.id);
        let lost = self.wild && self.random.once_in(self.parameters.store_loses_once_in);
        let given_up = lost || !self.has_store(run);
        let (expected, next) = (expected.clone(), Box::new(next));
        let swap = Swap { run, expected, next, sent: self.now, row, given_up };
        let mut wait = self.random.between(300, 8 * MS) + self.disk_stall();
        if given_up {
            self.counts.store_unknown += 1;
            let answer = StoreAnswer::Unknown { why: "no answer".to_owned() };
            let given_up = self.random.between(50, 600) * MS;
            self.after(given_up, Event::ToCore { run, input: Input::Stored(answer) });
            match self.random.below(3) {
                0 => return,
                1 => wait += self.random.between(1, 2_500) * MS,
                _ => {}
            }
        }
        self.after(wait, Event::SwapArrives { swap });
    }

    pub(super) fn swap_arrives(&mut self, swap: Swap) {
        // A load that followed an unknown answer has settled it; a run that ended settles nothing.
        if self.posts.get(&swap.run).is_some_and(|post| post.settled_at >= swap.sent) {
            return;
        }
        let (run, took) = (swap.run, self.stored.driver != swap.next.driver);
        let answer = self.swap(run, &swap.expected, *swap.next, swap.sent);
        if took && answer == StoreAnswer::Stored {
            let since = self.now - self.seat_taken_at;
            let waited = since >= PATIENCE || swap.row != Some("T03");
            assert!(waited, "run {run} takes the seat of one that has had it for {since} µs");
            self.seat_taken_at = self.now;
            *self.counts.seats.entry(swap.row.unwrap_or("T00")).or_default() += 1;
            self.say(|| format!("run {run} takes the seat by {:?}", swap.row));
        }
        if swap.given_up {
            return;
        }
        let (wait, answer) = if self.has_store(run) {
            (self.under_way(600), answer)
        } else {
            self.counts.store_unknown += 1;
            (READ_MOST, StoreAnswer::Unknown { why: "no answer".to_owned() })
        };
        self.after(wait, Event::ToCore { run, input: Input::Stored(answer) });
    }

    /// What an orchestrator that is one of several tells an agent now.
    pub(super) fn told_by_one(&self, run: u64, place: &Region) -> Told {
        let core = &self.cores[&run];
        let Some(record) = core.record().filter(|_| core.is_driving()) else {
            return Told { heard: None, writer: None, alone: false, grant: None };
        };
        let stamp = self.posts[&run].stamps.get(place).and_then(Stamps::answerable);
        let stamp = stamp.filter(|_| core.grants() == Some(place));
        Told {
            heard: Some(record.heard()),
            writer: Some(record.writer.clone()),
            alone: core.is_alone(),
            grant: stamp.map(|(of_run, stamp)| (run_number(of_run), *stamp)),
        }
    }
}

/// The number of a run of an agent.
pub(super) fn run_number(run: &str) -> u64 {
    run.trim_start_matches("run-").parse().unwrap()
}
