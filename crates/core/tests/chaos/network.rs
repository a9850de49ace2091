//! Between an orchestrator and the agents: commands and polls are late, lost, doubled, and kept by
//! somebody and sent again much later; answers do not come back.

use tier0_core::agent::{Judgement, Obeyed, hear, heard_in, judge};
use tier0_core::observe::{AgentReport, NodeReport};
use tier0_core::orchestrator::*;
use tier0_core::order::{Command, Outcome};
use tier0_core::record::Record;
use tier0_core::steps::StepKey;
use tier0_core::words::*;

use super::*;

impl Chaos {
    pub(super) fn send(
        &mut self,
        run: u64,
        operation: OperationId,
        key: StepKey,
        command: Command,
    ) {
        self.counts.commands += 1;
        self.say(|| format!("run {run} sends {key} {} {}", command.node, command.stamp));
        self.check_stamp(&command);
        self.keep(&command);
        let reply = Reply { run, operation, key };
        let agent = &self.agents[command.node.region()];
        let reachable = self.way(run, command.node.region()).there;
        let (agent_run, up) = (agent.run, agent.up);
        let given_up = (command.limit_ms + 100) * MS;
        if !up {
            let outcome = Outcome::Unknown { why: "no connection".to_owned() };
            self.answer(MS, &reply, &command.stamp, outcome);
            return;
        }
        let outcome = Outcome::Unknown { why: "no outcome in time".to_owned() };
        self.answer(given_up, &reply, &command.stamp, outcome);
        let mut wait = self.random.between(100, 3 * MS);
        if self.wild && self.random.once_in(25) {
            wait += self.random.between(1, 2_000) * MS;
        }
        if !reachable {
            // What was sent into a broken link comes out of it when it is whole again.
            wait += self.random.between(1, 3_000) * MS;
        }
        if self.wild && self.random.once_in(15) {
            self.counts.doubled += 1;
            let later = wait + self.random.between(1, 3_000) * MS;
            let (command, reply) = (command.clone(), reply.clone());
            self.after(later, Event::Command { agent_run, command, reply });
        }
        self.after(wait, Event::Command { agent_run, command, reply });
    }

    /// Two commands to one node never carry the same stamp, whoever sent them (R4).
    fn check_stamp(&mut self, command: &Command) {
        let stamp = &command.stamp;
        let place = (
            command.node.clone(),
            stamp.epoch.number(),
            stamp.revision.number(),
            stamp.step.number(),
        );
        let earlier = self.stamps.insert(place, command.order.clone());
        assert!(earlier.is_none(), "{stamp} was given to {earlier:?} and to {:?}", command.order);
    }

    /// Somebody keeps what was sent, and sends something that was kept.
    fn keep(&mut self, command: &Command) {
        if !self.wild {
            return;
        }
        self.sent.push_back(command.clone());
        if self.sent.len() > 60 {
            self.sent.pop_front();
        }
        if self.random.once_in(self.parameters.replays_once_in) {
            let which = self.random.below(self.sent.len() as u64) as usize;
            let command = self.sent[which].clone();
            let wait = self.random.between(1, 6_000) * MS;
            self.after(wait, Event::Replay { command });
        }
    }

    pub(super) fn replay_arrives(&mut self, command: Command) {
        if self.went_back_from.is_some() {
            return;
        }
        self.counts.replayed += 1;
        self.say(|| format!("replayed {} {} {}", command.step, command.node, command.stamp));
        let agent_run = self.agents[command.node.region()].run;
        let operation: OperationId = "ffffffff-ffff".parse().unwrap();
        let datastore = Some(command.node.datastore().clone());
        let key = StepKey { step: command.step, datastore, route: None };
        let reply = Reply { run: u64::MAX, operation, key };
        self.command_arrives(agent_run, command, reply);
    }

    fn answer(&mut self, wait: u64, reply: &Reply, stamp: &Stamp, outcome: Outcome) {
        let input = Input::Outcome {
            operation: reply.operation.clone(),
            key: reply.key.clone(),
            stamp: stamp.clone(),
            outcome,
        };
        self.after(wait, Event::ToCore { run: reply.run, input });
    }

    /// A command comes in: judged and kept exactly as the agent's desk does it.
    pub(super) fn command_arrives(&mut self, agent_run: u64, command: Command, reply: Reply) {
        let agent = self.agents.get_mut(command.node.region()).unwrap();
        if !agent.up || agent.run != agent_run {
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            return self.answer(MS, &reply, &command.stamp, outcome);
        }
        let judged = judge(agent.heard.as_ref(), agent.obeyed.get(&command.node), &command);
        let again = match judged {
            Judgement::Answer(outcome) => {
                return self.answer(MS, &reply, &command.stamp, outcome);
            }
            Judgement::Refuse(refusal) => {
                let outcome = Outcome::Refused { refusal };
                return self.answer(MS, &reply, &command.stamp, outcome);
            }
            Judgement::Again if agent.running.get(&command.node) == Some(&command.stamp) => return,
            Judgement::Again => true,
            Judgement::Obey => false,
        };
        if !command.order.only_looks() {
            agent.hears(&heard_in(&command.stamp));
            let obeyed = Obeyed { command: command.clone(), outcome: None };
            agent.obeyed.insert(command.node.clone(), obeyed);
        }
        // A newer command ends the one that runs.
        agent.running.insert(command.node.clone(), command.stamp.clone());
        let relied_on = self.takes_on(&command);
        let until = self.now + command.limit_ms * MS;
        let kept = self.disk_stall();
        let begins = self.now + kept;
        let agent = self.agents.get_mut(command.node.region()).unwrap();
        agent.begins.insert(command.node.clone(), begins);
        let takes = self.random.between(1, 40) * MS + kept + relied_on;
        let early = if relied_on == 0 && (again || self.random.once_in(2)) {
            self.serve(&command, self.now).map(|outcome| {
                self.say(|| format!("early {} {} {outcome}", command.step, command.node));
                outcome
            })
        } else {
            None
        };
        let work = Work { agent_run, command, until, since: self.now, early, reply };
        self.after(takes, Event::Work { work });
    }

    pub(super) fn work(&mut self, mut work: Work) {
        let node = work.command.node.clone();
        let agent = &self.agents[node.region()];
        let stamp = work.command.stamp.clone();
        if !agent.up || agent.run != work.agent_run {
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            return self.answer(MS, &work.reply, &stamp, outcome);
        }
        if agent.running.get(&node) != Some(&stamp) {
            let outcome = Outcome::Unknown { why: "a newer command ended it".to_owned() };
            return self.answer(MS, &work.reply, &stamp, outcome);
        }
        let outcome = match work.early.take() {
            Some(outcome) => outcome,
            None => match self.serve(&work.command, work.since) {
                Some(outcome) => outcome,
                None if self.now >= work.until => {
                    Outcome::Failed { why: "not within the limit".to_owned() }
                }
                None => return self.after(10 * MS, Event::Work { work }),
            },
        };
        self.say(|| format!("outcome {} {node} {stamp} {outcome}", work.command.step));
        let agent = self.agents.get_mut(node.region()).unwrap();
        agent.running.remove(&node);
        if !work.command.order.only_looks() {
            let newest = agent.obeyed.get(&node).map(|obeyed| &obeyed.command.stamp);
            if newest == Some(&stamp) {
                let obeyed =
                    Obeyed { command: work.command.clone(), outcome: Some(outcome.clone()) };
                agent.obeyed.insert(node, obeyed);
            }
        }
        let way = self.way(work.reply.run, work.command.node.region());
        if way.there && way.back {
            let wait = self.random.between(100, 3 * MS);
            self.answer(wait, &work.reply, &stamp, outcome);
        } else {
            // The question is asked again every five seconds, and then the break is noticed.
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            self.answer(5 * SECOND, &work.reply, &stamp, outcome);
        }
    }

    pub(super) fn poll(&mut self, place: &Region) {
        for run in self.cores.keys().copied().collect::<Vec<_>>() {
            if !self.is_still(run) {
                self.poll_by(run, place);
            }
        }
    }

    pub(super) fn poll_by(&mut self, run: u64, place: &Region) {
        let told = self.told_by(run, place);
        let agent = &self.agents[place];
        let missed = Input::Missed { region: place.clone(), why: "no connection".to_owned() };
        if !agent.up {
            return self.after(MS, Event::ToCore { run, input: missed });
        }
        let way = self.way(run, place);
        if !way.there || !way.back {
            self.after(SECOND, Event::ToCore { run, input: missed });
        }
        if !way.there {
            return;
        }
        let mut wait = self.random.between(100, 3 * MS);
        if self.wild && self.random.once_in(30) {
            wait += self.random.between(1, 2_000) * MS;
        }
        self.after(wait, Event::PollArrives { region: place.clone(), told, run });
    }

    pub(super) fn poll_arrives(&mut self, place: &Region, told: Told, run: u64) {
        let way = self.way(run, place);
        if !self.agents[place].up || !way.there {
            return;
        }
        // News are made durable aside; a lease goes with what was heard before.
        self.takes_lease(place, &told);
        let agent = self.agents.get_mut(place).unwrap();
        if let Some(news) = &told.heard {
            agent.hears(news);
        }
        if !way.back {
            return;
        }
        agent.sequence += 1;
        let peers = self.peers(place);
        let agent = self.agents.get_mut(place).unwrap();
        let (heard, sequence, agent_run) = (agent.heard.clone(), agent.sequence, agent.run);
        let nodes = self
            .servers
            .keys()
            .filter(|id| id.region() == place)
            .map(|id| (id.clone(), NodeReport { age_ms: 0, view: self.view(id), last: None }))
            .collect();
        let report = AgentReport {
            region: place.clone(),
            run: format!("run-{agent_run}"),
            sequence,
            heard,
            nodes,
            stamp_us: self.boot(place).stamp(),
            peers,
            refusing: None,
            host: Default::default(),
        };
        let mut wait = self.random.between(100, 3 * MS);
        if self.wild && self.random.once_in(20) {
            wait += self.random.between(1, 400) * MS;
        }
        self.after(wait, Event::ToCore { run, input: Input::Report(report) });
    }
}

impl Agent {
    /// Take in news of the record. What was heard never shrinks (R2).
    fn hears(&mut self, news: &Heard) {
        let Some(heard) = hear(self.heard.as_ref(), news) else { return };
        if let Some(before) = &self.heard {
            assert!(heard.covers(before), "an agent that had heard {before} now says {heard}");
        }
        self.heard = Some(heard);
    }
}
