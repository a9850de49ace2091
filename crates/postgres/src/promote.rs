//! Promotion, with everything that must hold before it (P3).
//!
//! Sources: `xlogfuncs.c` `pg_promote` (waiting looks only every 100 ms, hence own polling),
//! `xlogrecovery.c` (`CheckForStandbyTrigger`, `WaitForWALToBecomeAvailable`), `timeline.c` (the history
//! file's last line).

use std::time::{Duration, Instant};

use tier0_core::order::{Fact, PromoteMember};
use tier0_core::words::{Lsn, SyncName, SystemId, Timeline, WalPosition};

use crate::base_directory::{BaseDirectory, mark_standby};
use crate::conf;
use crate::deadline::Deadline;
use crate::hba::Clients;
use crate::history::History;
use crate::marker::{self, Member};
use crate::node::Server;
use crate::session::Session;
use crate::standby::{Place, Standby};
use crate::trouble::{Attempt, Trouble};

/// How long the received position may stay the same before the rest is given up.
const STANDS_STILL: Duration = Duration::from_millis(500);

/// How often the promotion is asked for again. Asked while its stream has just ended and is begun anew,
/// the startup process sees that, and then sleeps for the rest of `wal_retrieve_retry_interval` (100 ms)
/// before it looks again. Being asked wakes it.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// What a promotion is justified by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// The node is this member of the takeover set.
    Member(&'a PromoteMember),
    /// The operator accepted loss. What is known of the member is its cluster.
    LossAccepted(Option<&'a SystemId>),
}

impl<'a> Proof<'a> {
    /// The proof that an order carries; an order without any is refused.
    pub(crate) fn of(member: Option<&'a PromoteMember>, accept_loss: bool) -> Attempt<Self> {
        match (member, accept_loss) {
            (member, true) => Ok(Proof::LossAccepted(member.map(|member| &member.system))),
            (Some(member), false) => Ok(Proof::Member(member)),
            (None, false) => Err(Trouble::refused(
                "no-member",
                "no takeover member is named and loss was not accepted",
            )),
        }
    }

    fn check_system(self, system: &SystemId) -> Attempt<()> {
        let expected = match self {
            Proof::Member(member) => Some(&member.system),
            Proof::LossAccepted(expected) => expected,
        };
        match expected {
            Some(expected) if expected != system => Err(Trouble::refused(
                "foreign-system",
                format!("the data is of system {system}, the record says {expected}"),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// How long one more look may take: with less left, what was seen last is the answer.
const ONE_MORE_LOOK: Duration = Duration::from_millis(20);

impl Server {
    /// Become primary and let clients in: a promotion is ordered only after the record says
    /// exposed (P6), which is what P8 asks for.
    pub(crate) async fn promote(
        &self,
        proof: Proof<'_>,
        stopped_at: Option<&WalPosition>,
        names: Option<&SyncName>,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        if self.running()?.is_none() {
            self.start_to_promote(proof, names, deadline).await?;
        }
        let session = self.session(deadline).await?;
        match self.place(&session, deadline).await? {
            Place::Primary(position) => {
                self.already_primary(proof, position, names, deadline).await
            }
            Place::Standby(standby) => {
                self.check(proof, &standby)?;
                if let Some(stopped_at) = stopped_at {
                    self.until_received(&session, standby, stopped_at, deadline).await?;
                }
                self.ensure_names(names, deadline).await?;
                self.become_primary(&session, deadline).await
            }
        }
    }

    /// Start a server that has ended since the writer moved: only the agent starts one, and while
    /// the operation goes on nothing else is ordered for this node.
    async fn start_to_promote(
        &self,
        proof: Proof<'_>,
        names: Option<&SyncName>,
        deadline: Deadline,
    ) -> Attempt<()> {
        match (BaseDirectory::look(&self.node.paths), proof) {
            (BaseDirectory::Standby, _) => self.launch(deadline).await,
            // Promoted, and ended since: it starts with clients kept out, and is judged like any
            // primary before they are let in.
            (BaseDirectory::Primary, Proof::Member(_)) => {
                self.start(names, deadline).await.map(|_| ())
            }
            // It may be an old writer to which the way leads back, while another one has written
            // on a later timeline. Its own history must not go on as if nobody had: it takes a
            // timeline of its own, as a standby does (xlog.c, StartupXLOG).
            (BaseDirectory::Primary, Proof::LossAccepted(_)) => {
                self.configure_primary(names.map(conf::rule).unwrap_or_default()).await?;
                mark_standby(&self.node.paths.data).await.map_err(Trouble::io("standby.signal"))?;
                self.launch(deadline).await
            }
            (BaseDirectory::Empty | BaseDirectory::Unusable, _) => {
                Err(Trouble::failed("the server is not running, and has no data to start with"))
            }
        }
    }

    /// Commits wait for this name from the promotion on. A standby has it in its files since it
    /// began to follow, unless the configuration has changed: then the reload is worth its time.
    async fn ensure_names(&self, names: Option<&SyncName>, deadline: Deadline) -> Attempt<()> {
        let Some(name) = names else { return Ok(()) };
        let rule = conf::rule(name);
        if self.names_in_force(deadline).await? == rule {
            return Ok(());
        }
        self.set_names(&rule, deadline).await
    }

    async fn already_primary(
        &self,
        proof: Proof<'_>,
        position: WalPosition,
        names: Option<&SyncName>,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        proof.check_system(&position.system)?;
        match proof {
            Proof::Member(member) if position.timeline <= member.timeline => Err(Trouble::refused(
                "not-a-standby",
                format!(
                    "this server is a primary at {position}; the member is a standby of \
                         timeline {}",
                    member.timeline
                ),
            )),
            Proof::Member(_) | Proof::LossAccepted(_) => {
                self.ensure_names(names, deadline).await?;
                // Where commits wait, it was started anew with rows that no standby may have: the
                // join lets clients in (P8).
                if self.clients() == Clients::KeptOut && names.is_none() {
                    self.open_doors().await?;
                }
                Ok(self.promoted(position.system, position.timeline))
            }
        }
    }

    fn check(&self, proof: Proof<'_>, standby: &Standby) -> Attempt<()> {
        let has = &standby.position;
        proof.check_system(&has.system)?;
        let member = match proof {
            Proof::Member(member) => member,
            Proof::LossAccepted(_) => return Ok(()),
        };
        let marker: Option<Member> = marker::read(&self.node.paths.member)
            .map_err(|error| Trouble::refused("marker", error.to_string()))?;
        let Some(marker) = marker else {
            return Err(Trouble::refused(
                "not-that-member",
                format!("the record names {}, this data directory is no member", member.name),
            ));
        };
        if marker.name != member.name || marker.system != member.system {
            return Err(Trouble::refused(
                "not-that-member",
                format!(
                    "the record names {} of system {}, this data directory is {} of system {}",
                    member.name, member.system, marker.name, marker.system
                ),
            ));
        }
        if has.timeline != member.timeline {
            return Err(Trouble::refused(
                "other-timeline",
                format!(
                    "the member joined on timeline {}, this standby is at {has}",
                    member.timeline
                ),
            ));
        }
        if has.lsn < member.floor {
            return Err(Trouble::refused(
                "below-floor",
                format!(
                    "{} received, {} bytes short of the floor {}",
                    has.lsn,
                    member.floor.ahead_of(has.lsn),
                    member.floor
                ),
            ));
        }
        Ok(())
    }

    /// Wait until the stream has brought the old primary's last record. A stopped primary sends
    /// all it has at once, so a stream that stands still will not bring it.
    async fn until_received(
        &self,
        session: &Session,
        mut standby: Standby,
        stopped_at: &WalPosition,
        deadline: Deadline,
    ) -> Attempt<()> {
        let mut moved = (standby.position.lsn, Deadline::after(STANDS_STILL));
        loop {
            let has = &standby.position;
            if *has >= *stopped_at {
                return Ok(());
            }
            if has.lsn != moved.0 {
                moved = (has.lsn, Deadline::after(STANDS_STILL));
            }
            let comparable = has.partial_cmp(stopped_at).is_some();
            if !comparable || deadline.left() < ONE_MORE_LOOK || moved.1.passed() {
                return Err(Trouble::refused(
                    "short-of-stop",
                    format!(
                        "{has} received of system {}; the old primary stopped at {stopped_at} of \
                         system {}",
                        has.system, stopped_at.system
                    ),
                ));
            }
            self.pause().await;
            standby = self.standby(session, deadline).await?;
        }
    }

    async fn become_primary(&self, session: &Session, deadline: Deadline) -> Attempt<Fact> {
        // Nothing is asked of a server that has become primary meanwhile: that would be an error.
        let ask = "SELECT pg_promote(false) WHERE pg_is_in_recovery()";
        let mut asked = Instant::now();
        session.run(ask, deadline.left()).await?;
        let promotion = async {
            loop {
                if let Place::Primary(position) = self.place(session, deadline).await? {
                    return Ok(position);
                }
                if deadline.passed() {
                    return Err(Trouble::unknown("promotion was asked for and has not ended"));
                }
                if asked.elapsed() > ASK_AGAIN {
                    asked = Instant::now();
                    // It may come about while it is asked for.
                    let _ = session.run(ask, deadline.left()).await;
                }
                self.pause().await;
            }
        };
        let position: WalPosition = promotion.await?;
        // A standby that was let be read has nothing to change; a reload before this point would
        // stall the promotion (P7).
        if self.clients() == Clients::KeptOut {
            self.open_doors().await?;
        }
        Ok(self.promoted(position.system, position.timeline))
    }

    fn promoted(&self, system: SystemId, timeline: Timeline) -> Fact {
        let lsn = self.own_history(timeline).map_or(Lsn::ZERO, |history| history.begins_at());
        Fact::Promoted { position: WalPosition { system, timeline, lsn } }
    }

    /// The history of a timeline as this node's own files have it.
    pub(crate) fn own_history(&self, timeline: Timeline) -> Attempt<History> {
        let path = self.node.paths.data.join("pg_wal").join(History::file_name(timeline));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if timeline == Timeline(1) && error.kind() == std::io::ErrorKind::NotFound =>
            {
                String::new()
            }
            Err(error) => return Err(Trouble::io(path.display())(error)),
        };
        History::parse(timeline, &text).map_err(|error| Trouble::failed(error.to_string()))
    }
}
