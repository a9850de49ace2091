//! The one loop: takes what happened, steps the core, performs the effects in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tier0_core::orchestrator::{
    Effect, Ended, Input, Limits, Now, Orchestrator, Request, StoreAnswer,
};
use tier0_core::order::Refusal;
use tier0_core::record::ClaimPhase;
use tier0_core::words::{Moment, OperationId, WallMillis};
use tier0_failpoint::{Reached, reached};
use tier0_store::{StoreError, StoreHandle, Swapped};
use tier0_wire::OperationBody;
use tokio::sync::{mpsc, oneshot};

use crate::agents::{Agents, News, Polled};
use crate::closing::close_unfinished;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::report::{self, Answer};

/// A look at what the core knows.
type Look = Box<dyn FnOnce(&Orchestrator, &Now) + Send>;

/// Something for the loop.
enum Event {
    Input(Box<Input>),
    Ask { request: Request, answer: oneshot::Sender<Answer> },
    Look(Look),
    Limits(Box<Limits>),
}

/// The way into the loop.
#[derive(Clone)]
pub struct Driver {
    events: mpsc::UnboundedSender<Event>,
    began: Instant,
}

impl Driver {
    /// Start the loop.
    pub fn start(
        core: Orchestrator,
        store: StoreHandle,
        agents: Agents,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Driver> {
        let (events, inbox) = mpsc::unbounded_channel();
        let driver = Driver { events, began: agents.began() };
        let polled = driver.clone();
        agents.poll_all(move |what| {
            polled.input(match what {
                Polled::Report(report) => Input::Report(report),
                Polled::Missed { region, why } => Input::Missed { region, why },
                Polled::RoundTrip { region, took } => Input::RoundTrip { region, took },
            });
        })?;
        let ticking = driver.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                ticking.input(Input::Tick);
            }
        });
        let journal = Journal::new(store.clone(), &core.settings().seats);
        let turning = Loop {
            core,
            store,
            agents,
            journal,
            metrics,
            driver: driver.clone(),
            waiting: BTreeMap::new(),
            acted: false,
        };
        tokio::spawn(turning.turn(inbox));
        Ok(driver)
    }

    /// Hand over an input.
    pub fn input(&self, input: Input) {
        // The loop ends only with the process.
        let _ = self.events.send(Event::Input(Box::new(input)));
    }

    /// The time of the loop.
    pub fn moment(&self) -> Moment {
        self.now().moment
    }

    /// Decide with these limits from now on.
    pub fn limits(&self, limits: Limits) {
        let _ = self.events.send(Event::Limits(Box::new(limits)));
    }

    /// Ask for an operation; the answer comes when it can be given.
    pub async fn ask(&self, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        let id = request.id.clone();
        let _ = self.events.send(Event::Ask { request, answer });
        answered.await.unwrap_or_else(|_| Answer::Refused {
            id,
            refusal: Refusal::new("shutting-down", "the orchestrator is ending"),
        })
    }

    /// Look at what the core knows.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Orchestrator, &Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |core: &Orchestrator, now: &Now| {
            // Whoever asked may have gone.
            let _ = answer.send(look(core, now));
        });
        let _ = self.events.send(Event::Look(look));
        answered.await.ok()
    }

    fn now(&self) -> Now {
        Now {
            moment: Moment::from_micros(self.began.elapsed().as_micros() as u64),
            wall: wall(),
            fresh: fresh_id(),
        }
    }
}

/// An operation id that nobody has used.
pub fn fresh_id() -> OperationId {
    uuid::Uuid::now_v7().to_string().parse().expect("a UUID is 36 hexadecimal digits and dashes")
}

/// The wall clock.
pub fn wall() -> WallMillis {
    WallMillis(jiff::Timestamp::now().as_millisecond())
}

struct Loop {
    core: Orchestrator,
    store: StoreHandle,
    agents: Agents,
    journal: Journal,
    metrics: Arc<Metrics>,
    driver: Driver,
    waiting: BTreeMap<OperationId, oneshot::Sender<Answer>>,
    /// Whether this run was the one that acts, after the last turn.
    acted: bool,
}

impl Loop {
    async fn turn(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        while let Some(event) = inbox.recv().await {
            let now = self.driver.now();
            let input = match event {
                Event::Input(input) => *input,
                Event::Ask { request, answer } => {
                    self.waiting.insert(request.id.clone(), answer);
                    Input::Asked(request)
                }
                Event::Look(look) => {
                    look(&self.core, &now);
                    continue;
                }
                Event::Limits(limits) => {
                    self.core.set_limits(*limits);
                    continue;
                }
            };
            if let Input::Read { record, begun } = &input
                && self.core.acts_by(record)
            {
                self.agents.confirmed(*begun);
            }
            let effects = self.core.step(&now, input);
            // Before the effects: a lease must not be granted any more once a move is being stored.
            self.tell_agents();
            for effect in effects {
                self.perform(&now, effect);
            }
            self.note_seat(&now);
            self.journal.flush();
        }
    }

    /// Who begins to act ends in the history what the run before left open there. Who acts no more
    /// knows nothing of how what it was asked for goes on.
    fn note_seat(&mut self, now: &Now) {
        let acts = self.core.is_driving();
        if acts == std::mem::replace(&mut self.acted, acts) {
            return;
        }
        let Some(record) = self.core.record().cloned() else { return };
        if acts {
            let (store, until) = (self.store.clone(), now.fresh.clone());
            tracing::info!(driver = record.driver, "this orchestrator acts");
            tokio::spawn(async move { close_unfinished(&store, &record, &until).await });
            return;
        }
        tracing::warn!(driver = record.driver, "this orchestrator acts no more");
        for (id, waiting) in std::mem::take(&mut self.waiting) {
            let _ = waiting.send(Answer::GoesOnElsewhere { id });
        }
    }

    fn tell_agents(&self) {
        if !self.core.settings().seats.is_shared() || self.core.is_driving() {
            self.tell_of_record();
        } else {
            // One that only watches says nothing, which is what agents take it for.
            self.agents.tell(News::default());
        }
    }

    fn tell_of_record(&self) {
        if let Some(record) = self.core.record() {
            self.agents.tell(News {
                heard: Some(record.heard()),
                writer: Some(record.writer.clone()),
                granted: self.core.grants().cloned(),
                alone: self.core.is_alone(),
            });
        }
    }

    fn perform(&mut self, now: &Now, effect: Effect) {
        match effect {
            Effect::Store { expected, next } => {
                let (store, driver) = (self.store.clone(), self.driver.clone());
                let claimed = self.core.record().is_some_and(|record| record.claim.is_some());
                let what = match &next.claim {
                    Some(claim) => phase(claim.phase),
                    None if claimed => "finish",
                    None => "idle",
                };
                tokio::spawn(async move {
                    reached("orchestrator.store", what).await;
                    let answer = match store.swap(expected, *next).await {
                        Ok(Swapped::Stored) => StoreAnswer::Stored,
                        Ok(Swapped::Lost { current }) => StoreAnswer::Lost { current },
                        Err(error) => {
                            let why = format!("{:#}", anyhow::Error::from(error));
                            tracing::warn!(why, "a change of the record was not answered");
                            StoreAnswer::Unknown { why }
                        }
                    };
                    reached("orchestrator.stored", what).await;
                    driver.input(Input::Stored(answer));
                });
            }
            Effect::Load => {
                let (store, driver) = (self.store.clone(), self.driver.clone());
                tokio::spawn(async move { load_until_known(&store, &driver).await });
            }
            Effect::Send { operation, key, command } => {
                let command = *command;
                let (agents, driver) = (self.agents.clone(), self.driver.clone());
                tokio::spawn(async move {
                    let stamp = command.stamp.clone();
                    if reached("orchestrator.send", key.step.id()).await == Reached::Twice {
                        agents.command(command.clone()).await;
                    }
                    let outcome = agents.command(command).await;
                    reached("orchestrator.outcome", key.step.id()).await;
                    driver.input(Input::Outcome { operation, key, stamp, outcome });
                });
            }
            Effect::Note(note) => self.journal.note(note),
            Effect::Began(activity) => {
                tracing::info!(
                    operation = %activity.id, kind = %activity.kind, by = activity.by,
                    target = %activity.target, "operation begins"
                );
                self.journal.summary(&self.core, &activity, None, now);
            }
            Effect::Ended { activity, ended } => {
                let body = report::body(&activity, Some(&ended), self.core.record(), now);
                tracing::info!(
                    operation = %activity.id, kind = %activity.kind, result = body.result,
                    seconds = body.total_failover_time, error = body.error, "operation ends"
                );
                self.journal.summary(&self.core, &activity, Some(&ended), now);
                self.metrics.ended(&activity, &ended, &body);
                self.answer(&activity.id, body, &ended);
            }
            Effect::Refused { request, refusal } => {
                let id = request.id.clone();
                tracing::warn!(operation = %id, by = request.by, %refusal, "refused");
                self.metrics.refused(&refusal.code);
                self.journal.refused(&self.core, &request, &refusal, now);
                if let Some(waiting) = self.waiting.remove(&id) {
                    let _ = waiting.send(Answer::Refused { id, refusal });
                }
            }
            Effect::HeldBack(near_miss) => {
                tracing::warn!(
                    operation = %near_miss.id, row = near_miss.row, sentence = near_miss.sentence,
                    "near miss: the writer is not moved"
                );
                self.metrics.held_back(near_miss.row);
                self.journal.held_back(&self.core, &near_miss, now);
            }
            Effect::Explain { row, subject, sentence } => {
                tracing::info!(row, subject, sentence, "decider");
            }
        }
    }

    fn answer(&mut self, id: &OperationId, body: OperationBody, ended: &Ended) {
        if let Some(waiting) = self.waiting.remove(id) {
            let answer = match ended {
                Ended::Refused { refusal } => {
                    Answer::Refused { id: id.clone(), refusal: refusal.clone() }
                }
                Ended::Succeeded
                | Ended::WithExceptions { .. }
                | Ended::Aborted { .. }
                | Ended::Failed { .. }
                | Ended::Unknown { .. } => Answer::Operation(Box::new(body)),
            };
            let _ = waiting.send(answer);
        }
    }
}

/// The name of a phase, for failpoints.
fn phase(phase: ClaimPhase) -> &'static str {
    match phase {
        ClaimPhase::Before => "before",
        ClaimPhase::Aborting => "aborting",
        ClaimPhase::After => "after",
    }
}

/// Read the record until the store says something: a compare-and-swap whose answer was lost is
/// settled by what is really there (R4).
async fn load_until_known(store: &StoreHandle, driver: &Driver) {
    loop {
        match store.load().await {
            Ok(Some(record)) => {
                driver.input(Input::Loaded(record));
                return;
            }
            Ok(None) => tracing::error!("the store has lost its record"),
            Err(error @ StoreError::Poisoned) => {
                // Only opening the store anew settles it; whoever looks after this process starts
                // it again, and the record says where things stand.
                tracing::error!(%error, "the store must be opened anew: ending");
                std::process::exit(70);
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(error, "the store cannot be read");
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
