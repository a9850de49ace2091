//! A scenario file, played on the model servers: what `crates/lab/src/scenario` does to real ones.

use serde::Deserialize;

use super::*;

/// How long a move that somebody waits for may take.
const MOVE: u64 = 30 * SECOND;

/// How long the stack may take to be whole after everything is mended.
const WHOLE: u64 = 120 * SECOND;

#[derive(Debug, Clone, Deserialize)]
pub struct Story {
    #[serde(rename = "step")]
    steps: Vec<Taken>,
    #[serde(default)]
    expect: Expected,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Taken {
    Wait { ms: u64 },
    Break { what: String, how: String },
    Heal { what: Option<String> },
    Link {},
    Flap { what: String, times: u64, gone_ms: u64, there_ms: u64 },
    Failover { to: String, ends: Option<String> },
    Writer { is: String, within_ms: u64 },
    Protected { within_ms: u64 },
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Expected {
    writer: Option<String>,
    moves: Option<u64>,
}

/// What came of it.
pub enum Judged {
    AsExpected,
    Otherwise(String),
    OnlyInTheLab,
}

/// Why a step was not taken.
enum Not {
    InTheModel,
    AsItMust(String),
}

impl Story {
    pub fn play(&self, parameters: Parameters) -> Judged {
        let mut chaos = Chaos::new(parameters.clone());
        assert!(chaos.run(20 * SECOND, Chaos::is_whole), "it did not come up");
        chaos.begin(Parameters { mode: AutomaticMode::Armed, ..parameters }, Random::new(1));
        chaos.wild = false;
        chaos.run(SECOND, |_| false);
        let before = chaos.counts.swaps;
        for step in &self.steps {
            chaos.say(|| format!("{step:?}"));
            match chaos.take(step) {
                Ok(()) => {}
                Err(Not::InTheModel) => return Judged::OnlyInTheLab,
                Err(Not::AsItMust(why)) => return Judged::Otherwise(why),
            }
        }
        chaos.mend();
        if !chaos.run(WHOLE, Chaos::is_whole) {
            return Judged::Otherwise("not whole after everything was mended".to_owned());
        }
        chaos.run(SECOND, |_| false);
        chaos.assert_nothing_lost();
        let (writer, moves) = (chaos.stored.writer.as_str(), chaos.counts.swaps - before);
        if self.expect.writer.as_deref().is_some_and(|expected| expected != writer) {
            return Judged::Otherwise(format!("the writer is {writer}"));
        }
        if self.expect.moves.is_some_and(|expected| expected != moves) {
            return Judged::Otherwise(format!("the writer moved {moves} times"));
        }
        Judged::AsExpected
    }
}

impl Chaos {
    fn take(&mut self, step: &Taken) -> Result<(), Not> {
        let late = |holds: bool, what: &str| match holds {
            true => Ok(()),
            false => Err(Not::AsItMust(format!("{what} in time"))),
        };
        match step {
            Taken::Wait { ms } => {
                self.run(ms * MS, |_| false);
                Ok(())
            }
            Taken::Break { what, how } => self.breaks(what, how),
            Taken::Heal { what: None } => {
                self.mend();
                Ok(())
            }
            Taken::Heal { what: Some(what) } => self.mends(what),
            Taken::Link {} => Err(Not::InTheModel),
            Taken::Flap { what, times, gone_ms, there_ms } => {
                for _ in 0..*times {
                    self.breaks(what, "cut")?;
                    self.run(gone_ms * MS, |_| false);
                    self.mends(what)?;
                    self.run(there_ms * MS, |_| false);
                }
                Ok(())
            }
            Taken::Failover { to, ends } => self.commanded(to, ends.as_deref()),
            Taken::Writer { is, within_ms } => {
                let is = region(is);
                let became = self.run(within_ms * MS, |chaos| chaos.stored.writer == is);
                late(became, &format!("{is} did not become the writer"))
            }
            Taken::Protected { within_ms } => {
                late(self.run(within_ms * MS, Chaos::is_whole), "it was not whole")
            }
        }
    }

    fn commanded(&mut self, to: &str, ends: Option<&str>) -> Result<(), Not> {
        let target = region(to);
        let moved = self.stored.writer != target;
        let before = self.counts.swaps;
        self.ask(Asked::Move { target: target.clone(), consent: Consent::None });
        if ends == Some("unseen") {
            return Ok(());
        }
        self.run(SECOND / 2, |_| false);
        let idle = |chaos: &Chaos| {
            chaos.stored.claim.is_none()
                && chaos.core().is_some_and(|core| {
                    core.activities().all(|activity| !activity.kind.moves_writer())
                })
        };
        let ended = self.run(MOVE, idle);
        let succeeded = ended && (!moved || self.stored.writer == target);
        match ends {
            None | Some("succeeded") if !succeeded => {
                Err(Not::AsItMust(format!("the move to {to} did not succeed")))
            }
            Some("refused") if self.counts.swaps != before => {
                Err(Not::AsItMust(format!("the move to {to} was not refused")))
            }
            _ => Ok(()),
        }
    }

    fn servers_named(&self, what: &str) -> Option<Vec<NodeId>> {
        let (name, place) = what.split_once('.')?;
        let name = match name {
            "main" => "pg1",
            "cache" => "redis1",
            _ => return None,
        };
        Some(vec![NodeId::new(name.parse().ok()?, place.parse().ok()?)])
    }

    fn servers_at(&self, place: &Region) -> Vec<NodeId> {
        self.servers.keys().filter(|id| id.region() == place).cloned().collect()
    }

    /// An agent that stands still, and knows what it knew when it goes on.
    fn freeze_agent(&mut self, place: &Region) {
        self.agents.get_mut(place).unwrap().up = false;
    }

    fn breaks(&mut self, what: &str, how: &str) -> Result<(), Not> {
        let agent_of = what.strip_prefix("agent.").map(region);
        let servers = self.servers_named(what);
        match (what, how) {
            ("region1" | "region2", "kill") => {
                self.agents.get_mut(&region(what)).unwrap().gone = true;
                self.kill(&region(what));
            }
            ("region1" | "region2", "freeze") => {
                self.freeze_agent(&region(what));
                for id in self.servers_at(&region(what)) {
                    self.servers.get_mut(&id).unwrap().freeze();
                }
            }
            ("region1" | "region2", "cut") => {
                self.cut_from_witness(&region(what));
                self.stream_up = false;
            }
            ("region1-region2", "cut") => self.stream_up = false,
            ("region1-witness", "cut") => self.cut_from_witness(&region("region1")),
            ("region2-witness", "cut") => self.cut_from_witness(&region("region2")),
            ("witness", "cut") => {
                for place in self.agents.keys().cloned().collect::<Vec<_>>() {
                    self.cut_from_witness(&place);
                }
            }
            ("witness" | "orchestrator.witness", "kill") => {
                self.cores.clear();
                self.core_run += 1;
            }
            ("witness" | "orchestrator.witness", "freeze") => self.still_core = true,
            (_, "kill") if agent_of.is_some() => {
                let place = agent_of.unwrap();
                self.agent_down(&place);
                self.agents.get_mut(&place).unwrap().gone = true;
            }
            (_, "freeze") if agent_of.is_some() => self.freeze_agent(&agent_of.unwrap()),
            (_, "kill" | "freeze") if servers.is_some() => {
                for id in servers.unwrap() {
                    let server = self.servers.get_mut(&id).unwrap();
                    if how == "kill" { server.end() } else { server.freeze() }
                }
            }
            _ => return Err(Not::InTheModel),
        }
        Ok(())
    }

    fn cut_from_witness(&mut self, place: &Region) {
        let agent = self.agents.get_mut(place).unwrap();
        agent.linked = false;
        agent.mute = true;
    }

    fn mends(&mut self, what: &str) -> Result<(), Not> {
        let agent_of = what.strip_prefix("agent.").map(region);
        let servers = self.servers_named(what);
        match what {
            "region1" | "region2" => {
                self.mend_region(&region(what));
                self.stream_up = true;
            }
            "region1-region2" => self.stream_up = true,
            "region1-witness" | "region2-witness" => {
                let agent = self.agents.get_mut(&region(&what[..7])).unwrap();
                agent.linked = true;
                agent.mute = false;
            }
            "witness" | "orchestrator.witness" => {
                self.still_core = false;
                self.core_up();
                for agent in self.agents.values_mut() {
                    agent.linked = true;
                    agent.mute = false;
                }
            }
            _ if agent_of.is_some() => self.mend_agent(&agent_of.unwrap()),
            _ if servers.is_some() => {
                servers.unwrap().iter().for_each(|id| self.servers.get_mut(id).unwrap().thaw());
            }
            _ => return Err(Not::InTheModel),
        }
        Ok(())
    }

    fn mend_agent(&mut self, place: &Region) {
        let agent = self.agents.get_mut(place).unwrap();
        if agent.gone || agent.up {
            agent.gone = false;
            self.agent_up(place);
            return;
        }
        // It stood still: what it promises of its servers counts from its next look.
        agent.up = true;
        agent.holder.since = self.now;
    }

    fn mend_region(&mut self, place: &Region) {
        self.mend_agent(place);
        let agent = self.agents.get_mut(place).unwrap();
        agent.linked = true;
        agent.mute = false;
        for id in self.servers_at(place) {
            self.servers.get_mut(&id).unwrap().thaw();
        }
    }

    fn mend(&mut self) {
        self.still_core = false;
        for place in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.mend_region(&place);
        }
        self.heal();
    }
}
