//! Two PostgreSQL servers, as little of them as can lose a write: a log of at most eight writes as
//! bits, the names a commit waits for, and what a promotion, a rewind and a join make of them.

use tier0_core::observe::*;
use tier0_core::order::{EndedSessions, Fact, Order, Outcome, Refusal};
use tier0_core::words::*;

use super::{PLACES, World};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    pub runs: bool,
    pub primary: bool,
    pub admitted: bool,
    /// The membership whose name commits wait for.
    pub names: Option<u64>,
    /// A join that is not proven yet; it may be undone at any moment.
    pub joining: bool,
    pub timeline: u32,
    pub log: u8,
    pub pending: u8,
    /// The membership under which a standby streams; 0 is the join name.
    pub name: u64,
    pub marker: Option<u64>,
    pub streaming: bool,
}

fn lsn(log: u8) -> Lsn {
    Lsn::from_bytes(1_000 + u64::from(log.count_ones()))
}

fn failed(why: &str) -> Option<Outcome> {
    Some(Outcome::Failed { why: why.to_owned() })
}

fn refused(code: &str) -> Option<Outcome> {
    Some(Outcome::Refused { refusal: Refusal::new(code, code) })
}

fn learnt(fact: Fact) -> Option<Outcome> {
    Some(Outcome::Done { fact })
}

impl Server {
    fn position(&self) -> WalPosition {
        WalPosition {
            system: SystemId("7".to_owned()),
            timeline: Timeline(self.timeline),
            lsn: lsn(self.log),
        }
    }

    pub fn end(&mut self) {
        self.runs = false;
        self.admitted = false;
        self.streaming = false;
        self.pending = 0;
    }

    fn is_primary(&self) -> bool {
        self.runs && self.primary
    }
}

pub fn node(place: usize) -> NodeId {
    format!("pg1.{}", PLACES[place]).parse().unwrap()
}

pub fn name_of(place: usize, membership: u64) -> String {
    if membership == 0 { node(place).join_name() } else { format!("{}#{membership}", node(place)) }
}

impl World {
    pub fn view(&self, place: usize) -> NodeView {
        let (server, other) = (&self.servers[place], &self.servers[1 - place]);
        let follows = server.is_primary() && other.runs && !other.primary && other.streaming;
        let follower = PostgresFollower {
            name: name_of(1 - place, other.name),
            state: "streaming".to_owned(),
            sync_state: "sync".to_owned(),
            flushed: Some(lsn(other.log)),
            replayed: Some(lsn(other.log)),
        };
        NodeView::Postgres(PostgresView {
            process: if server.runs { ProcessState::Running } else { ProcessState::Stopped },
            role: server.runs.then_some(if server.primary {
                PostgresRole::Primary
            } else {
                PostgresRole::Standby
            }),
            system: Some(SystemId("7".to_owned())),
            timeline: Some(Timeline(server.timeline)),
            flushed: Some(lsn(server.log)),
            replayed: Some(lsn(server.log)),
            sync_names: server
                .runs
                .then(|| server.names.map(|number| name_of(1 - place, number)).unwrap_or_default()),
            followers: if follows { vec![follower] } else { Vec::new() },
            streaming_as: (server.runs && server.streaming).then(|| name_of(place, server.name)),
            clients_admitted: server.runs && server.admitted,
            shut_down_cleanly: None,
            sessions: 0,
            open_transactions: 0,
            longest_transaction_ms: None,
            longest_application: None,
            retained_wal: 0,
            slots: Default::default(),
            logical_slots: Vec::new(),
            expiring: None,
            disk_free: Some(10_000_000_000),
            settings: Default::default(),
            version: Some(150_018),
            archive: None,
            commits: None,
            error: None,
        })
    }

    /// Clients write to a primary that lets them in.
    pub fn write(&mut self, place: usize) -> bool {
        if !self.servers[place].is_primary() || !self.servers[place].admitted {
            return false;
        }
        let bit = 1 << self.written;
        self.written += 1;
        let server = &mut self.servers[place];
        server.log |= bit;
        if server.names.is_none() {
            self.acknowledge(place, bit);
        } else {
            server.pending |= bit;
        }
        true
    }

    /// The standby takes in what it lacks, and commits that waited for it under its name return.
    pub fn ship(&mut self) -> bool {
        let Some(from) = (0..2).find(|place| self.servers[*place].is_primary()) else {
            return false;
        };
        let (source, standby) = (&self.servers[from], &self.servers[1 - from]);
        let fits = standby.log & !source.log == 0 && standby.timeline <= source.timeline;
        if !self.link || !standby.runs || standby.primary || !fits {
            return false;
        }
        let (log, timeline) = (source.log, source.timeline);
        let standby = &mut self.servers[1 - from];
        standby.log = log;
        standby.timeline = timeline;
        standby.streaming = true;
        let name = standby.name;
        if name != 0 && self.servers[from].names == Some(name) {
            let bits = std::mem::take(&mut self.servers[from].pending);
            self.acknowledge(from, bits);
        }
        true
    }

    fn acknowledge(&mut self, place: usize, bits: u8) {
        if bits == 0 {
            return;
        }
        let timeline = self.servers[place].timeline;
        if timeline < self.acknowledged_on {
            self.wrong(format!("{} acknowledges beside a newer primary", PLACES[place]));
        }
        self.acknowledged_on = timeline;
        self.acknowledged |= bits;
    }

    fn nobody_waits(&mut self, place: usize) {
        self.servers[place].names = None;
        self.servers[place].joining = false;
        let bits = std::mem::take(&mut self.servers[place].pending);
        self.acknowledge(place, bits);
    }

    /// The agent undoes a join by itself that was not proven in time.
    pub fn undo_join(&mut self, place: usize) -> bool {
        let joining = self.servers[place].joining;
        if joining {
            self.nobody_waits(place);
        }
        joining
    }

    /// What an order comes to; `None` means "not yet".
    pub fn serve(&mut self, place: usize, order: &Order, epoch: Epoch) -> Option<Outcome> {
        let server = self.servers[place].clone();
        let mine = &mut self.servers[place];
        match order {
            Order::PostgresCheckpoint => {
                if server.runs {
                    Some(Outcome::done())
                } else {
                    failed("down")
                }
            }
            Order::PostgresValidate { .. } => {
                if server.is_primary() {
                    Some(Outcome::done())
                } else {
                    failed("no primary")
                }
            }
            Order::PostgresDrain => {
                if server.is_primary() {
                    learnt(Fact::Wal { position: server.position() })
                } else {
                    failed("no primary")
                }
            }
            Order::PostgresAwait { position } => {
                if !server.runs || server.primary {
                    return failed("no standby");
                }
                (lsn(server.log) >= position.lsn).then(Outcome::done)
            }
            Order::PostgresStop => {
                let clean_at = server.is_primary().then(|| server.position());
                if clean_at.is_some() && self.servers[1 - place].streaming {
                    self.ship_last(place);
                }
                self.servers[place].end();
                learnt(Fact::Stopped { clean_at, ended: EndedSessions::default() })
            }
            Order::PostgresStart { names } => {
                if !server.primary {
                    return refused("data-of-a-standby");
                }
                mine.admitted &= server.runs;
                mine.runs = true;
                mine.joining = false;
                match names {
                    Some(name) => mine.names = Some(name.membership()),
                    None => self.nobody_waits(place),
                }
                Some(Outcome::done())
            }
            Order::PostgresAdmit { member } => {
                if !server.is_primary() {
                    return failed("no primary");
                }
                let wanted = member.as_ref().map(SyncName::membership);
                if wanted != server.names {
                    return failed("other names are in force");
                }
                let other = &self.servers[1 - place];
                let has = other.runs && other.streaming && other.log == server.log;
                if wanted.is_some() && !(has && Some(other.name) == wanted) {
                    return None;
                }
                self.servers[place].admitted = true;
                Some(Outcome::done())
            }
            Order::PostgresPromote { member, stopped_at, accept_loss, .. } => {
                self.promote(place, member.as_ref(), stopped_at.as_ref(), *accept_loss, epoch)
            }
            Order::PostgresFollow { rebuild, .. } => self.follow(place, *rebuild),
            Order::PostgresJoinBegin { name, .. } => {
                if !server.is_primary() {
                    return failed("no primary");
                }
                if server.names != Some(name.membership()) {
                    mine.names = Some(name.membership());
                    mine.joining = true;
                }
                learnt(Fact::Waiting { lsn: lsn(server.log) })
            }
            Order::PostgresRename { name } => {
                if !server.runs || server.primary {
                    return failed("no standby");
                }
                mine.marker = Some(name.membership());
                mine.name = name.membership();
                mine.streaming = false;
                Some(Outcome::done())
            }
            Order::PostgresJoinProve { name } => {
                if !server.is_primary() || server.names != Some(name.membership()) {
                    return failed("the name is not waited for");
                }
                let other = &self.servers[1 - place];
                let has = other.runs && other.streaming && other.log == server.log;
                if !has || other.name != name.membership() {
                    return None;
                }
                self.servers[place].joining = false;
                let at = server.position();
                learnt(Fact::Proven { system: at.system, timeline: at.timeline, lsn: at.lsn })
            }
            Order::PostgresLeave => {
                if !server.is_primary() {
                    return failed("no primary");
                }
                self.nobody_waits(place);
                Some(Outcome::done())
            }
            Order::RedisVote
            | Order::RedisPause { .. }
            | Order::RedisAskMaster { .. }
            | Order::RedisAwait { .. }
            | Order::RedisFence
            | Order::RedisUnfence { .. }
            | Order::RedisPromote { .. }
            | Order::RedisFollow { .. }
            | Order::RedisStart { .. }
            | Order::RedisAnnounce { .. }
            | Order::RedisSentinelFailover
            | Order::RedisValidate { .. }
            | Order::Route { .. } => failed("no Redis and no route here"),
        }
    }

    /// A clean stop waits until the standby has everything.
    fn ship_last(&mut self, place: usize) {
        let log = self.servers[place].log;
        if self.link {
            self.servers[1 - place].log = log;
        }
    }

    fn promote(
        &mut self,
        place: usize,
        member: Option<&tier0_core::order::PromoteMember>,
        stopped_at: Option<&WalPosition>,
        accept_loss: bool,
        epoch: Epoch,
    ) -> Option<Outcome> {
        if member.is_none() && !accept_loss {
            return refused("no-member");
        }
        let server = self.servers[place].clone();
        if !server.runs {
            let mine = &mut self.servers[place];
            mine.runs = true;
            mine.admitted = false;
            if server.primary {
                mine.names = None;
                mine.joining = false;
            }
            return None;
        }
        if server.primary {
            let before = member.is_some_and(|member| server.timeline <= member.timeline.0);
            if before && !accept_loss {
                return refused("not-a-standby");
            }
            self.servers[place].admitted = true;
            return learnt(Fact::Promoted { position: server.position() });
        }
        if let (Some(member), false) = (member, accept_loss) {
            if server.marker != Some(member.name.membership()) {
                return refused("not-that-member");
            }
            if lsn(server.log) < member.floor {
                return refused("below-floor");
            }
        }
        if stopped_at.is_some_and(|at| lsn(server.log) < at.lsn) {
            return refused("short-of-stop");
        }
        self.check_promotion(place, epoch);
        let mine = &mut self.servers[place];
        mine.primary = true;
        mine.timeline += 1;
        mine.admitted = true;
        mine.names = None;
        mine.joining = false;
        mine.streaming = false;
        mine.marker = None;
        mine.name = 0;
        let position = mine.position();
        learnt(Fact::Promoted { position })
    }

    fn follow(&mut self, place: usize, rebuild: bool) -> Option<Outcome> {
        let (source, server) = (self.servers[1 - place].clone(), self.servers[place].clone());
        if !source.is_primary() || !self.link {
            return failed("the upstream does not answer");
        }
        if server.is_primary() && server.timeline >= source.timeline {
            return refused("newer-primary");
        }
        let gone = server.log & !source.log;
        if gone & self.acknowledged != 0 {
            self.wrong(format!("{} is overwritten and held an acknowledged write", PLACES[place]));
        }
        let mine = &mut self.servers[place];
        if gone != 0 || rebuild {
            mine.log = source.log;
            mine.timeline = source.timeline;
        }
        mine.pending = 0;
        mine.runs = true;
        mine.primary = false;
        mine.admitted = false;
        mine.names = None;
        mine.joining = false;
        mine.marker = None;
        mine.name = 0;
        mine.streaming = false;
        learnt(Fact::Followed { method: "streaming".to_owned(), diverged_bytes: 0, kept_at: None })
    }
}
