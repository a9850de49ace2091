//! Where polls and commands arrive: hears, judges, keeps, has it done, answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tier0_core::agent::{Judgement, Obeyed, hear, heard_in, judge};
use tier0_core::lease::{Boot, Knows, Lease, Reliance, Server, Standing};
use tier0_core::observe::{AgentReport, Knock, Reach};
use tier0_core::order::{Command, Outcome, Refusal};
use tier0_core::words::{Epoch, Heard, NodeId, Region};
use tier0_failpoint::Reached;
use tier0_knock::Kept as Knocks;
use tier0_wire::{CommandAnswer, ConfirmAnswer, ConfirmRequest, PollRequest};
use tokio::sync::{Mutex, watch};

use crate::boot;
use crate::host::Host;
use crate::node::{Node, Waited};
use crate::promise::Promise;
use crate::state::{Kept, State, StateError};

/// How long what an orchestrator said of the writer counts.
const NEWS_LIFE: Duration = Duration::from_secs(1);

/// One agent's desk.
pub struct Desk {
    region: Region,
    run: String,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    host: Host,
    state: Mutex<State>,
    kept: watch::Sender<Kept>,
    sequence: watch::Sender<u64>,
    writer: watch::Sender<Option<(Region, Epoch, Instant)>>,
    hearing: watch::Sender<Option<Heard>>,
    refusing: watch::Sender<Option<String>>,
    peers: watch::Sender<BTreeMap<NodeId, Knocks>>,
    lease: std::sync::Mutex<Lease>,
    reliance: std::sync::Mutex<Reliance>,
    promise: Promise,
}

impl Desk {
    /// A desk over a state and the nodes of a region.
    pub fn new(
        region: Region,
        run: String,
        nodes: Vec<Node>,
        state: State,
        promise: Promise,
        lease: Duration,
    ) -> Self {
        let kept = state.kept().clone();
        let reliance = Reliance::resumed(promise.read(), lease, boot::now());
        Desk {
            region,
            run,
            nodes: nodes.into_iter().map(|node| (node.id.clone(), Arc::new(node))).collect(),
            host: Host::default(),
            state: Mutex::new(state),
            kept: watch::Sender::new(kept),
            sequence: watch::Sender::new(0),
            writer: watch::Sender::new(None),
            hearing: watch::Sender::new(None),
            refusing: watch::Sender::new(None),
            peers: watch::Sender::new(BTreeMap::new()),
            lease: std::sync::Mutex::new(Lease::new(lease, boot::now())),
            reliance: std::sync::Mutex::new(reliance),
            promise,
        }
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What is known beside the nodes.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Something is different: a poll that waits is answered.
    pub fn changed(&self) {
        self.sequence.send_modify(|sequence| *sequence += 1);
    }

    /// A knock at another region's server came to an end.
    pub fn knocked(&self, node: &NodeId, knock: Knock) {
        let now = Instant::now();
        let mut different = true;
        self.peers.send_modify(|peers| match peers.get_mut(node) {
            Some(knocks) => different = knocks.add(knock, now),
            None => {
                peers.insert(node.clone(), Knocks::first(knock, now));
            }
        });
        if different {
            self.changed();
        }
    }

    /// Whether this region is the writer, as an orchestrator said it only just now. An agent that
    /// nobody has polled for a while knows nothing of who the writer is: another may be by now.
    pub fn is_writer(&self) -> bool {
        let newest = self.writer.borrow();
        newest
            .as_ref()
            .is_some_and(|(writer, _, said)| *writer == self.region && said.elapsed() < NEWS_LIFE)
    }

    /// The writer and its epoch, as an orchestrator said it only just now.
    pub fn named_writer(&self) -> Option<(Region, Epoch)> {
        let newest = self.writer.borrow();
        let (writer, epoch, said) = newest.as_ref()?;
        (said.elapsed() < NEWS_LIFE).then(|| (writer.clone(), *epoch))
    }

    /// One round trip of an orchestrator. News of the record are made durable on the side, so that
    /// a slow disk never makes this agent look silent; the report says what is durable.
    pub async fn poll(self: &Arc<Self>, request: PollRequest) -> AgentReport {
        if let Some(news) = &request.heard {
            self.hear_aside(news);
            let newest = self.kept.borrow().heard.as_ref() == Some(news);
            if let Some(writer) = request.writer.clone().filter(|_| newest) {
                self.take_lease(&request, news.epoch, &writer);
                self.writer.send_replace(Some((writer, news.epoch, Instant::now())));
            }
        }
        let mut sequence = self.sequence.subscribe();
        let newer = |sequence: &u64| match &request.known {
            Some((run, known)) => *run != self.run || sequence > known,
            None => true,
        };
        let wait = Duration::from_millis(request.wait_ms.min(10_000));
        // Running out of time is an answer too: the report says how old its views are.
        let _ = tokio::time::timeout(wait, sequence.wait_for(newer)).await;
        self.report()
    }

    fn take_lease(&self, request: &PollRequest, epoch: Epoch, writer: &Region) {
        let mut lease = lock(&self.lease);
        lease.told(epoch, &self.region, writer.clone(), request.alone);
        if let Some(grant) = request.grant.as_ref().filter(|grant| grant.run == self.run) {
            let length = Duration::from_millis(grant.lease_ms);
            lease.granted(Boot::from_stamp(grant.stamp_us), length, boot::now());
        }
    }

    /// How this region stands.
    pub fn standing(&self) -> Standing {
        let heard = self.heard();
        lock(&self.lease).standing(&self.region, heard.as_ref(), boot::now())
    }

    /// For how long from now answers of this region's servers may be passed on, if they may.
    pub fn passes_for(&self) -> Option<Duration> {
        let heard = self.heard();
        let now = boot::now();
        let until = lock(&self.lease).passes_until(&self.region, heard.as_ref(), now)?;
        Some(until.0.saturating_sub(now.0))
    }

    /// The newest record heard of.
    pub fn heard(&self) -> Option<Heard> {
        self.kept.borrow().heard.clone()
    }

    /// What a peer is to be asked to confirm, if it should be, and for how long that counts.
    pub fn question(&self) -> Option<(Heard, Duration)> {
        let heard = self.heard()?;
        let lease = lock(&self.lease);
        lease.asks(&self.region, &heard, boot::now()).then_some((heard, lease.length()))
    }

    /// Whether a server here takes writes, or did before it fell silent.
    pub fn has_a_writing_node(&self) -> bool {
        self.nodes.values().any(|node| node.writes() != Server::Other)
    }

    /// A peer confirmed what was heard, in answer to a question of this moment.
    pub fn confirmed(&self, heard: &Heard, asked: Boot) {
        let now_heard = self.heard();
        let same =
            now_heard.is_some_and(|now| now.epoch == heard.epoch && now.lineage == heard.lineage);
        if same {
            lock(&self.lease).confirmed(asked);
        }
    }

    /// A peer asks whether anybody else is the writer. It may rely on the answer: nothing is
    /// promoted here before its time has run out.
    pub async fn confirm(&self, request: &ConfirmRequest) -> ConfirmAnswer {
        // No command is judged meanwhile.
        let state = self.state.lock().await;
        let writes = self.nodes.values().any(|node| node.writes() == Server::Writes);
        let lease = lock(&self.lease).clone();
        let knows = Knows {
            region: &self.region,
            lease: &lease,
            heard: state.kept().heard.as_ref(),
            here: if writes { Server::Writes } else { Server::Other },
        };
        let length = Duration::from_millis(request.lease_ms);
        let now = boot::now();
        let mut reliance = lock(&self.reliance);
        let confirmed = reliance.confirm(&knows, &request.lineage, request.epoch, length, now)
            && self.promise.keep(reliance.until());
        ConfirmAnswer { confirmed }
    }

    /// Everything this agent knows.
    pub fn report(&self) -> AgentReport {
        let kept = self.kept.borrow().clone();
        let nodes = self
            .nodes
            .iter()
            .filter_map(|(id, node)| {
                let last = kept.obeyed.get(id).map(|obeyed| {
                    let command = &obeyed.command;
                    (command.stamp.clone(), command.step, obeyed.outcome.clone())
                });
                Some((id.clone(), node.report(last)?))
            })
            .collect();
        AgentReport {
            region: self.region.clone(),
            run: self.run.clone(),
            sequence: *self.sequence.borrow(),
            stamp_us: boot::now().stamp(),
            heard: kept.heard,
            nodes,
            peers: self.reaches(),
            refusing: self.refusing.borrow().clone(),
            host: self.host.view(),
        }
    }

    fn reaches(&self) -> BTreeMap<NodeId, Reach> {
        let now = Instant::now();
        let peers = self.peers.borrow();
        peers.iter().map(|(node, knocks)| (node.clone(), knocks.reach(now))).collect()
    }

    /// Do what a command says, or say why not.
    pub async fn command(self: &Arc<Self>, command: Command, wait: Duration) -> CommandAnswer {
        let Some(node) = self.nodes.get(&command.node).cloned() else {
            return ended(Outcome::Refused {
                refusal: Refusal::new(
                    "unknown-node",
                    format!("this agent does not look after {}", command.node),
                ),
            });
        };
        let stamp = command.stamp.clone();
        failpoint("agent.received", &command).await;
        {
            let mut state = self.state.lock().await;
            let kept = state.kept();
            let obeyed = kept.obeyed.get(&command.node);
            match judge(kept.heard.as_ref(), obeyed, &command) {
                Judgement::Answer(outcome) => return ended(outcome),
                Judgement::Refuse(refusal) => {
                    tracing::warn!(node = %command.node, %stamp, %refusal, "command refused");
                    return ended(Outcome::Refused { refusal });
                }
                Judgement::Again if node.is_running(&stamp) => {}
                Judgement::Again | Judgement::Obey if command.order.only_looks() => {
                    // Nothing is changed, so nothing need be remembered: a look that is asked for
                    // again is taken again.
                    drop(state);
                    return self.look(&node, command, wait).await;
                }
                Judgement::Again | Judgement::Obey => {
                    if let Err(error) = self.persist(&mut state, &command, None) {
                        // Nothing was done: an agent that cannot remember must not act (R1).
                        let sentence = format!("this agent cannot keep its state: {error}");
                        return ended(Outcome::Refused {
                            refusal: Refusal::new("state-not-durable", sentence),
                        });
                    }
                    let twice = failpoint("agent.persisted", &command).await;
                    if twice == Reached::Twice {
                        self.start(&node, command.clone());
                    }
                    self.start(&node, command);
                }
            }
        }
        match node.wait(&stamp, wait).await {
            Waited::Ended(outcome) => ended(outcome),
            Waited::Running(progress) => {
                // It may have ended between the two looks.
                let outcome = self
                    .kept
                    .borrow()
                    .obeyed
                    .get(&node.id)
                    .filter(|obeyed| obeyed.command.stamp == stamp)
                    .and_then(|obeyed| obeyed.outcome.clone());
                match outcome {
                    Some(outcome) => ended(outcome),
                    None => CommandAnswer::Running { progress },
                }
            }
        }
    }

    /// Take a look that changes nothing.
    async fn look(
        self: &Arc<Self>,
        node: &Arc<Node>,
        command: Command,
        wait: Duration,
    ) -> CommandAnswer {
        let stamp = command.stamp.clone();
        node.begin(command, Duration::ZERO, async |outcome| outcome, async |_| {});
        match node.wait(&stamp, wait).await {
            Waited::Ended(outcome) => ended(outcome),
            Waited::Running(progress) => CommandAnswer::Running { progress },
        }
    }

    fn start(self: &Arc<Self>, node: &Arc<Node>, command: Command) {
        tracing::info!(node = %command.node, stamp = %command.stamp, step = %command.step, "begins");
        let (first, after) = (command.clone(), command.clone());
        let desk = Arc::clone(self);
        let performed = move |outcome: Outcome| async move {
            failpoint("agent.performed", &first).await;
            outcome
        };
        // Whoever waits hears of the outcome before it is durable: an agent that ends in between
        // is asked again and does it again, which every order allows.
        let kept = move |outcome: Outcome| async move {
            desk.keep_outcome(&after, outcome).await;
            failpoint("agent.kept", &after).await;
        };
        lock(&self.lease).obeys(&self.region, &command);
        let delay = lock(&self.reliance).delay(&command, boot::now());
        node.begin(command, delay, performed, kept);
        self.changed();
    }

    /// Keep the outcome of a command, unless a newer one was obeyed meanwhile.
    async fn keep_outcome(&self, command: &Command, outcome: Outcome) {
        tracing::info!(
            node = %command.node, stamp = %command.stamp, step = %command.step, %outcome, "ended"
        );
        let mut state = self.state.lock().await;
        let newest = state.kept().obeyed.get(&command.node).map(|obeyed| &obeyed.command.stamp);
        if newest == Some(&command.stamp)
            && let Err(error) = self.persist(&mut state, command, Some(outcome))
        {
            tracing::error!(%error, "the outcome is not kept; it will be found out again");
        }
        self.changed();
    }

    /// Hear of a newer record without waiting for the disk.
    fn hear_aside(self: &Arc<Self>, news: &Heard) {
        if self.kept.borrow().heard.as_ref() == Some(news) {
            return;
        }
        let first = self.hearing.send_if_modified(|hearing| {
            let first = hearing.as_ref() != Some(news);
            *hearing = Some(news.clone());
            first
        });
        if first {
            let (desk, news) = (Arc::clone(self), news.clone());
            tokio::spawn(async move {
                desk.hear(&news).await;
                desk.changed();
            });
        }
    }

    /// Hear of a newer record, durably.
    async fn hear(&self, news: &Heard) {
        let mut state = self.state.lock().await;
        let Some(heard) = hear(state.kept().heard.as_ref(), news) else {
            tracing::error!(lineage = %news.lineage, "a record of another lineage is not followed");
            return;
        };
        let mut kept = state.kept().clone();
        kept.heard = Some(heard);
        self.keep(&mut state, kept);
    }

    fn keep(&self, state: &mut State, kept: Kept) {
        if let Err(error) = self.replace(state, kept) {
            tracing::error!(%error, "the state is not kept");
        }
    }

    fn persist(
        &self,
        state: &mut State,
        command: &Command,
        outcome: Option<Outcome>,
    ) -> Result<(), StateError> {
        let mut kept = state.kept().clone();
        if let Some(heard) = hear(kept.heard.as_ref(), &heard_in(&command.stamp)) {
            kept.heard = Some(heard);
        }
        kept.obeyed.insert(command.node.clone(), Obeyed { command: command.clone(), outcome });
        self.replace(state, kept)
    }

    fn replace(&self, state: &mut State, kept: Kept) -> Result<(), StateError> {
        // Other tasks of this thread go on while the disk is slow.
        let result = tokio::task::block_in_place(|| state.keep(kept.clone()));
        match &result {
            Ok(()) => {
                self.kept.send_replace(kept);
                self.refusing.send_if_modified(|refusing| refusing.take().is_some());
            }
            Err(error) => {
                self.refusing.send_replace(Some(error.to_string()));
            }
        }
        result
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves plain values behind, which stay usable.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn failpoint(point: &'static str, command: &Command) -> Reached {
    tier0_failpoint::reached(point, command.step.id()).await
}

fn ended(outcome: Outcome) -> CommandAnswer {
    CommandAnswer::Ended { outcome }
}
