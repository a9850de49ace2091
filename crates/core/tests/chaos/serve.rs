//! What the model servers do when they are told to, and what they do by themselves.

use tier0_core::observe::ProcessState;
use tier0_core::order::{Command, EndedSessions, Fact, Order, Outcome, Refusal};
use tier0_core::record::{DatastoreKind, Record};
use tier0_core::words::*;

use super::servers::Joining;
use super::{Base, Chaos, MS, Server};
use crate::world::kinds::has_row;

fn failed(why: &str) -> Option<Outcome> {
    Some(Outcome::Failed { why: why.to_owned() })
}

fn refused(code: &str) -> Option<Outcome> {
    Some(Outcome::Refused { refusal: Refusal::new(code, code) })
}

fn offset(server: &Server) -> RedisPosition {
    RedisPosition {
        replication: ReplicationId(format!("r{}", server.timeline)),
        offset: server.log.len() as u64,
    }
}

fn learnt(fact: Fact) -> Option<Outcome> {
    Some(Outcome::Done { fact })
}

fn followed() -> Option<Outcome> {
    let method = "streaming".to_owned();
    learnt(Fact::Followed { method, diverged_bytes: 0, kept_at: None })
}

impl Chaos {
    fn wal(&self, id: &NodeId) -> WalPosition {
        let server = &self.servers[id];
        WalPosition {
            system: SystemId("7".to_owned()),
            timeline: Timeline(server.timeline),
            lsn: self.lsn(server.log.len()),
        }
    }

    /// Every 5 ms: clients write, streams flow, commits that may are acknowledged.
    pub(super) fn beat(&mut self) {
        let ids: Vec<NodeId> = self.servers.keys().cloned().collect();
        let lags = self.wild && self.random.once_in(4);
        for id in &ids {
            self.stream(id, lags);
        }
        for id in &ids {
            self.commit(id);
        }
        if (self.now / (5 * MS)).is_multiple_of(4) {
            for id in &ids {
                self.write(id);
            }
        }
    }

    fn stream(&mut self, id: &NodeId, lags: bool) {
        let server = &self.servers[id];
        let upstream = match &server.follows {
            Some(upstream) if server.runs() && server.base == Base::Standby => upstream.clone(),
            Some(_) | None => return,
        };
        let source = &self.servers[&upstream];
        let up = self.stream_up && source.runs() && source.base == Base::Primary;
        let fits = up
            && (server.streaming && source.timeline == server.timeline
                || source.log.starts_with(&server.log) && source.timeline >= server.timeline);
        // A Redis replica whose history does not fit takes in everything anew.
        let fits = fits || up && server.kind == DatastoreKind::Redis;
        if !fits {
            self.servers.get_mut(id).unwrap().streaming = false;
            return;
        }
        let timeline = source.timeline;
        let carries = if lags { 0 } else { self.parameters.stream_carries };
        let shared = server.log.len();
        let fresh = if server.streaming || source.log.starts_with(&server.log) {
            let end = source.log.len().min(shared.saturating_add(carries));
            source.log.get(shared..end).unwrap_or_default().to_vec()
        } else {
            let log = source.log.clone();
            self.servers.get_mut(id).unwrap().log.clear();
            log
        };
        let server = self.servers.get_mut(id).unwrap();
        server.log.extend(fresh);
        server.timeline = timeline;
        server.streaming = true;
    }

    fn commit(&mut self, id: &NodeId) {
        let server = self.servers.get_mut(id).unwrap();
        if server.kind == DatastoreKind::Redis || !server.is_primary() {
            return;
        }
        let undo = server
            .joining
            .as_ref()
            .is_some_and(|joining| !joining.proven && self.now > joining.until);
        if undo {
            let joining = server.joining.take().unwrap();
            if server.names == joining.name {
                server.names = joining.before;
            }
        }
        if server.pending.is_empty() {
            return;
        }
        server.waiting_since.get_or_insert(self.now);
        let has = if server.names.is_empty() {
            Some(server.log.len())
        } else {
            let names = server.names.clone();
            self.servers
                .values()
                .filter(|other| {
                    other.runs()
                        && other.base == Base::Standby
                        && other.streaming
                        && other.follows.as_ref() == Some(id)
                        && other.name == names
                })
                .map(|other| other.log.len())
                .max()
        };
        let Some(has) = has else { return };
        let server = self.servers.get_mut(id).unwrap();
        let timeline = server.timeline;
        let pending = std::mem::take(&mut server.pending);
        let (done, left) = pending.into_iter().partition::<Vec<_>, _>(|(place, _)| *place <= has);
        if !done.is_empty() || left.is_empty() {
            server.waiting_since = None;
        }
        server.pending = left;
        let alone = !done.is_empty() && server.names.is_empty();
        if alone && self.parameters.max_protection && self.authority().writer == *id.region() {
            let protection = &self.authority().datastores[id.datastore()].protection;
            assert_eq!(protection.word(), "exposed", "{id} acknowledges what no standby has");
        }
        for (_, write) in done {
            self.acknowledged.write(id, timeline, write);
        }
    }

    fn write(&mut self, id: &NodeId) {
        let server = self.servers.get_mut(id).unwrap();
        if !server.is_primary() {
            return;
        }
        let serves = match server.kind {
            DatastoreKind::Postgres => server.admitted,
            DatastoreKind::Redis => server.min_replicas < 99 && server.paused_until <= self.now,
        };
        if serves {
            self.check_superseded(id);
        }
        let server = self.servers.get_mut(id).unwrap();
        self.writes += 1;
        match server.kind {
            DatastoreKind::Postgres if server.admitted => {
                server.log.push(self.writes);
                server.pending.push((server.log.len(), self.writes));
            }
            DatastoreKind::Redis if server.min_replicas < 99 && server.paused_until <= self.now => {
                server.log.push(self.writes);
                // Best effort: two masters may both acknowledge, so timelines are not compared.
                let name = id.datastore().clone();
                self.acknowledged.writes.entry(name).or_default().insert(self.writes);
            }
            DatastoreKind::Postgres | DatastoreKind::Redis => {}
        }
    }

    /// Do what a command says; `None` means "not yet".
    pub(super) fn serve(&mut self, command: &Command, since: u64) -> Option<Outcome> {
        let outcome = self.obey(command, since);
        let serves = matches!(
            command.order,
            Order::PostgresPromote { .. }
                | Order::PostgresAdmit { .. }
                | Order::RedisPromote { .. }
                | Order::RedisStart { .. }
        );
        if serves && matches!(outcome, Some(Outcome::Done { .. })) {
            self.serves_from(&command.node, command.stamp.epoch);
        }
        outcome
    }

    fn obey(&mut self, command: &Command, since: u64) -> Option<Outcome> {
        let id = command.node.clone();
        let now = self.now;
        assert!(has_row(self.servers[&id].kind, &command.order), "no row for it: {command:?}");
        if self.servers[&id].shown() == ProcessState::Silent
            && !matches!(command.order, Order::PostgresStop)
        {
            return None;
        }
        let wal = self.wal(&id);
        let lengths = |position: Lsn| self.length(position);
        let awaited = match &command.order {
            Order::PostgresAwait { position } => lengths(position.lsn),
            _ => 0,
        };
        let server = self.servers.get_mut(&id).unwrap();
        let runs = server.runs();
        match &command.order {
            Order::PostgresCheckpoint => {
                if runs {
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
                if !server.is_primary() {
                    return failed("no primary");
                }
                learnt(Fact::Wal { position: wal })
            }
            Order::PostgresAwait { .. } => {
                if !runs || server.base != Base::Standby {
                    return failed("no standby");
                }
                (server.log.len() >= awaited).then(Outcome::done)
            }
            Order::PostgresStop => self.stop(&id),
            Order::PostgresStart { names } => {
                match (server.base, runs) {
                    (Base::Empty, _) => return refused("no-data"),
                    (Base::Standby, true) => return failed("not a primary"),
                    (Base::Standby, false) => return refused("data-of-a-standby"),
                    (Base::Primary, true) => {}
                    (Base::Primary, false) => {
                        server.process = ProcessState::Running;
                        server.admitted = false;
                    }
                }
                server.joining = None;
                server.names = names.as_ref().map(ToString::to_string).unwrap_or_default();
                Some(Outcome::done())
            }
            Order::PostgresAdmit { member } => self.admit(&id, member.as_ref()),
            Order::PostgresPromote { .. } => self.promote(command, since),
            Order::PostgresFollow { upstream, rebuild, .. } => self.follow(&id, upstream, *rebuild),
            Order::PostgresJoinBegin { name, join_limit_ms } => {
                if !server.is_primary() {
                    return failed("no primary");
                }
                let name = name.to_string();
                if server.names != name {
                    let until = now + join_limit_ms * MS;
                    let before = std::mem::replace(&mut server.names, name.clone());
                    server.joining = Some(Joining { name, until, proven: false, before });
                }
                learnt(Fact::Waiting { lsn: wal.lsn })
            }
            Order::PostgresRename { name } => {
                if !runs || server.base != Base::Standby {
                    return failed("no standby");
                }
                server.marker = Some(name.clone());
                server.name = name.to_string();
                server.streaming = false;
                Some(Outcome::done())
            }
            Order::PostgresJoinProve { name } => self.prove(&id, name),
            Order::PostgresLeave => {
                if !server.is_primary() {
                    return failed("no primary");
                }
                server.joining = None;
                server.names.clear();
                Some(Outcome::done())
            }
            Order::RedisAskMaster { master } => {
                if self.servers[master].runs() {
                    refused("redis-master-lives")
                } else {
                    Some(Outcome::done())
                }
            }
            Order::RedisVote => learnt(Fact::Voted { epoch: 5, votes: 3, of: 3 }),
            Order::RedisPause { pause_ms } => {
                if !server.is_primary() {
                    return failed("no master");
                }
                server.paused_until = now + pause_ms * MS;
                learnt(Fact::Offset { position: offset(server) })
            }
            Order::RedisAwait { position } => {
                if !runs {
                    return failed("down");
                }
                let same = offset(server).replication == position.replication;
                (same && server.log.len() as u64 >= position.offset).then(Outcome::done)
            }
            Order::RedisFence => {
                if !server.is_primary() {
                    return failed("no master");
                }
                server.min_replicas = 99;
                learnt(Fact::Offset { position: offset(server) })
            }
            Order::RedisUnfence { min_replicas_to_write } => {
                if !server.is_primary() {
                    return failed("no master");
                }
                server.min_replicas = *min_replicas_to_write;
                server.paused_until = 0;
                Some(Outcome::done())
            }
            Order::RedisPromote { .. } => self.promote_redis(&id),
            Order::RedisFollow { upstream, min_replicas_to_write, .. } => {
                self.follow_redis(&id, upstream, *min_replicas_to_write)
            }
            Order::RedisStart { .. } => {
                if runs && server.base != Base::Primary {
                    return refused("redis-not-master");
                }
                server.process = ProcessState::Running;
                server.base = Base::Primary;
                server.min_replicas = 0;
                learnt(Fact::RedisPromoted { position: offset(server) })
            }
            Order::RedisAnnounce { .. } => learnt(Fact::Announced { agree: 3, of: 3, epoch: 5 }),
            Order::RedisSentinelFailover => Some(Outcome::done()),
            Order::Route { .. } => failed("no routes here"),
            Order::RedisValidate { .. } => {
                if server.is_primary() {
                    Some(Outcome::done())
                } else {
                    failed("no master")
                }
            }
        }
    }

    fn stop(&mut self, id: &NodeId) -> Option<Outcome> {
        let server = &self.servers[id];
        let mut clean_at = None;
        let frozen = server.shown() == ProcessState::Silent;
        if server.is_primary() && !frozen {
            clean_at = Some(self.wal(id));
            let (log, stream_up) = (server.log.clone(), self.stream_up);
            for other in self.servers.values_mut() {
                let streams = other.runs() && other.streaming && stream_up;
                if streams && other.follows.as_ref() == Some(id) {
                    other.log.clone_from(&log);
                }
            }
        }
        self.servers.get_mut(id).unwrap().end();
        learnt(Fact::Stopped { clean_at, ended: EndedSessions::default() })
    }

    fn admit(&mut self, id: &NodeId, member: Option<&SyncName>) -> Option<Outcome> {
        let server = &self.servers[id];
        if !server.is_primary() {
            return failed("no primary");
        }
        let names = member.map(ToString::to_string).unwrap_or_default();
        if server.names != names {
            return failed("other names are in force");
        }
        if member.is_some() {
            let proven = self.servers.values().any(|other| {
                other.runs()
                    && other.streaming
                    && other.follows.as_ref() == Some(id)
                    && other.name == names
                    && other.log.len() == server.log.len()
            });
            if !proven {
                return None;
            }
        }
        self.servers.get_mut(id).unwrap().admitted = true;
        Some(Outcome::done())
    }

    fn promote(&mut self, command: &Command, since: u64) -> Option<Outcome> {
        let Order::PostgresPromote { member, stopped_at, accept_loss, names } = &command.order
        else {
            return failed("another order");
        };
        let id = &command.node;
        if member.is_none() && !accept_loss {
            return refused("no-member");
        }
        let server = &self.servers[id];
        if !server.runs() {
            let loss = member.is_none() && *accept_loss;
            return self.promote_ended(id, names.as_ref(), loss);
        }
        if server.base == Base::Primary {
            let before = |member: &tier0_core::order::PromoteMember| {
                !accept_loss && server.timeline <= member.timeline.0
            };
            if member.as_ref().is_some_and(before) {
                return refused("not-a-standby");
            }
            let server = self.servers.get_mut(id).unwrap();
            if let Some(names) = names {
                server.names = names.to_string();
            } else {
                server.admitted = true;
            }
            return learnt(Fact::Promoted { position: self.wal(id) });
        }
        if let (Some(member), false) = (member, accept_loss) {
            if server.marker.as_ref() != Some(&member.name) {
                return refused("not-that-member");
            }
            if server.log.len() < self.length(member.floor) {
                return refused("below-floor");
            }
        }
        if let Some(stopped_at) = stopped_at
            && server.log.len() < self.length(stopped_at.lsn)
        {
            let stands_still = self.now - since > 300 * MS;
            return if stands_still { refused("short-of-stop") } else { None };
        }
        self.check_promotion(id, command.stamp.epoch);
        let server = self.servers.get_mut(id).unwrap();
        server.base = Base::Primary;
        server.timeline += 1;
        server.admitted = true;
        server.names = names.as_ref().map(ToString::to_string).unwrap_or_default();
        server.joining = None;
        server.follows = None;
        server.streaming = false;
        server.marker = None;
        learnt(Fact::Promoted { position: self.wal(id) })
    }

    /// A server that ended is started on what it has, clients kept out; the promotion goes on at
    /// the next look.
    fn promote_ended(
        &mut self,
        id: &NodeId,
        names: Option<&SyncName>,
        loss: bool,
    ) -> Option<Outcome> {
        let server = self.servers.get_mut(id).unwrap();
        match server.base {
            // Another one may have written since: it takes a timeline of its own.
            Base::Primary if loss => server.base = Base::Standby,
            Base::Empty => return failed("the server is not running"),
            Base::Primary => {
                server.names = names.map(ToString::to_string).unwrap_or_default();
                server.joining = None;
            }
            Base::Standby => {}
        }
        server.process = ProcessState::Running;
        server.admitted = false;
        None
    }

    /// The newest record that was ever stored.
    pub(super) fn authority(&self) -> &Record {
        self.went_back_from.as_ref().unwrap_or(&self.stored)
    }

    /// Only after the swap is stored, only in the writer's region, only with every write.
    fn check_promotion(&mut self, id: &NodeId, epoch: Epoch) {
        let name = id.datastore().clone();
        assert_eq!(self.authority().epoch, epoch, "{id} is promoted in an epoch that is over");
        assert_eq!(self.authority().writer, *id.region(), "{id} is promoted and is not the writer");
        let missing = self.acknowledged.missing(&name, &self.servers[id].log);
        if self.loss_accepted {
            self.acknowledged.accepted_loss += missing.len();
            let writes = self.acknowledged.writes.entry(name).or_default();
            writes.retain(|write| !missing.contains(write));
        } else {
            assert!(self.at_swap[&name], "{id} is promoted and was no member at the swap");
            assert!(missing.is_empty(), "{id} is promoted and lacks {} writes", missing.len());
        }
    }

    fn follow(&mut self, id: &NodeId, upstream: &NodeId, rebuild: bool) -> Option<Outcome> {
        let source = &self.servers[upstream];
        if !source.is_primary() || !self.stream_up {
            return failed("the upstream does not answer");
        }
        let (log, timeline) = (source.log.clone(), source.timeline);
        let server = self.servers.get_mut(id).unwrap();
        if server.is_primary() && server.timeline >= timeline {
            return refused("newer-primary");
        }
        assert!(
            rebuild || !self.may_hold_lost.contains(id),
            "{id} may hold what was lost with consent, and is made to follow"
        );
        self.may_hold_lost.remove(id);
        let fits = log.starts_with(&server.log) && server.base != Base::Empty;
        if !fits || rebuild {
            let missing = self.acknowledged.missing(id.datastore(), &log);
            assert!(missing.is_empty(), "{id} is overwritten, {} writes are gone", missing.len());
            server.log = log;
            server.timeline = timeline;
        }
        server.pending.clear();
        server.process = ProcessState::Running;
        server.base = Base::Standby;
        server.admitted = false;
        server.names.clear();
        server.joining = None;
        server.marker = None;
        server.name = id.join_name();
        server.streaming = false;
        server.follows = Some(upstream.clone());
        followed()
    }

    fn prove(&mut self, id: &NodeId, name: &SyncName) -> Option<Outcome> {
        let name = name.to_string();
        let server = &self.servers[id];
        if !server.is_primary() || server.names != name {
            return failed("the name is not waited for");
        }
        let proven = self.servers.values().any(|other| {
            other.runs()
                && other.streaming
                && other.follows.as_ref() == Some(id)
                && other.name == name
                && other.log.len() == server.log.len()
        });
        if !proven {
            return None;
        }
        let server = self.servers.get_mut(id).unwrap();
        if let Some(joining) = &mut server.joining {
            joining.proven = true;
        }
        let position = self.wal(id);
        learnt(Fact::Proven {
            system: position.system,
            timeline: position.timeline,
            lsn: position.lsn,
        })
    }

    fn promote_redis(&mut self, id: &NodeId) -> Option<Outcome> {
        let server = self.servers.get_mut(id).unwrap();
        if !server.runs() {
            return failed("the server is not running");
        }
        if server.base != Base::Primary {
            server.base = Base::Primary;
            server.timeline += 1;
            server.follows = None;
            server.streaming = false;
            let missing = self.acknowledged.missing(id.datastore(), &self.servers[id].log);
            self.redis_lacks.insert(id.datastore().clone(), missing.len());
            let writes = self.acknowledged.writes.entry(id.datastore().clone()).or_default();
            writes.retain(|write| !missing.contains(write));
        }
        let server = self.servers.get_mut(id).unwrap();
        server.min_replicas = 0;
        server.paused_until = 0;
        learnt(Fact::RedisPromoted { position: offset(server) })
    }

    fn follow_redis(&mut self, id: &NodeId, upstream: &NodeId, min: u64) -> Option<Outcome> {
        let source = &self.servers[upstream];
        if !source.runs() || !self.stream_up {
            return failed("the upstream does not answer");
        }
        let (log, timeline) = (source.log.clone(), source.timeline);
        // What an old master took in beside the new one is reported, kept and gone (D4).
        let diverged = self.acknowledged.missing(id.datastore(), &log);
        let writes = self.acknowledged.writes.entry(id.datastore().clone()).or_default();
        writes.retain(|write| !diverged.contains(write));
        let server = self.servers.get_mut(id).unwrap();
        server.process = ProcessState::Running;
        server.base = Base::Standby;
        server.follows = Some(upstream.clone());
        server.log = log;
        server.timeline = timeline;
        server.min_replicas = min;
        server.paused_until = 0;
        server.streaming = true;
        followed()
    }
}
