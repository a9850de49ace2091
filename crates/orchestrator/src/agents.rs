//! Talking to agents: polls that run all the time, and commands.
//!
//! Each agent is polled over two connections. One waits for news; the other asks at the interval
//! and whenever the record changes, so that a late answer never delays the next question.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tier0_config::Secret;
use tier0_core::grant::{Granter, Stamps};
use tier0_core::observe::AgentReport;
use tier0_core::order::{Command, Outcome};
use tier0_core::words::{Heard, Moment, Region};
use tier0_wire::{
    CommandAnswer, CommandRequest, Grant, LogLine, PROTOCOL, PollRequest, ProbesAnswer,
};
use tokio::sync::watch;

/// What agents are told of the record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct News {
    /// The newest stored record.
    pub heard: Option<Heard>,
    /// Its writer.
    pub writer: Option<Region>,
    /// The region whose agent is granted a lease.
    pub granted: Option<Region>,
    /// No takeover set has a member.
    pub alone: bool,
}

/// What came of a poll.
pub enum Polled {
    /// The agent answered.
    Report(AgentReport),
    /// It did not.
    Missed {
        /// Which.
        region: Region,
        /// Why.
        why: String,
    },
    /// An answer that was to come at once took so long, also one that was given up on.
    RoundTrip {
        /// Whose.
        region: Region,
        /// How long.
        took: Duration,
    },
}

/// All agents of the stack.
#[derive(Clone)]
pub struct Agents {
    addresses: Arc<BTreeMap<Region, SocketAddr>>,
    token: Arc<Secret>,
    commands: reqwest::Client,
    news: watch::Sender<News>,
    interval: Duration,
    patience: Duration,
    lease: Duration,
    granter: Granter,
    /// The stamps of each agent.
    stamps: Arc<Mutex<BTreeMap<Region, Stamps>>>,
    began: Instant,
}

/// How many times its patience an answer is still waited for, to know how long it took.
const TIMED_FOR: u32 = 4;

/// How much longer than asked for a command's answer may take to cross the network.
const CROSSING: Duration = Duration::from_millis(100);

/// A command is asked about again at least this often.
const ASK_AGAIN: Duration = Duration::from_secs(5);

impl Agents {
    /// Agents at these addresses.
    pub fn new(
        addresses: BTreeMap<Region, SocketAddr>,
        token: Arc<Secret>,
        interval: Duration,
        patience: Duration,
        lease: Duration,
        granter: Granter,
    ) -> anyhow::Result<Self> {
        Ok(Agents {
            addresses: Arc::new(addresses),
            token,
            commands: client()?,
            news: watch::Sender::new(News::default()),
            interval,
            patience,
            lease,
            granter,
            stamps: Arc::default(),
            began: Instant::now(),
        })
    }

    /// From when the time of reports and of reads of the store is counted.
    pub fn began(&self) -> Instant {
        self.began
    }

    fn moment(&self) -> Moment {
        Moment::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A read of the store that began at this moment found this orchestrator acting: stamps that
    /// came before it may be answered with a lease (L1).
    pub fn confirmed(&self, begun: Moment) {
        for stamps in self.stamps().values_mut() {
            stamps.confirmed(begun);
        }
    }

    /// Tell every agent of the record, at once.
    pub fn tell(&self, news: News) {
        self.news.send_if_modified(|known| {
            let different = *known != news;
            *known = news;
            different
        });
    }

    /// Poll every agent until the process ends.
    pub fn poll_all(
        &self,
        polled: impl Fn(Polled) + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        for region in self.addresses.keys() {
            let (waiting, asking) = (self.clone(), self.clone());
            let (one, two) = (client()?, client()?);
            let (told, also_told) = (polled.clone(), polled.clone());
            let (here, there) = (region.clone(), region.clone());
            tokio::spawn(async move { waiting.wait_for_news(&here, &one, told).await });
            tokio::spawn(async move { asking.ask_at_interval(&there, &two, also_told).await });
        }
        Ok(())
    }

    async fn wait_for_news(
        &self,
        region: &Region,
        client: &reqwest::Client,
        polled: impl Fn(Polled),
    ) {
        let mut known = None;
        loop {
            match self.poll(region, client, known.clone(), self.interval).await {
                Ok(report) => {
                    known = Some((report.run.clone(), report.sequence));
                    polled(Polled::Report(report));
                }
                Err(why) => {
                    polled(Polled::Missed { region: region.clone(), why });
                    tokio::time::sleep(self.interval / 4).await;
                }
            }
        }
    }

    async fn ask_at_interval(
        &self,
        region: &Region,
        client: &reqwest::Client,
        polled: impl Fn(Polled) + Clone + Send + Sync + 'static,
    ) {
        let mut news = self.news.subscribe();
        loop {
            // Whichever comes first; both mean "ask now".
            let _ = tokio::time::timeout(self.interval, news.changed()).await;
            let answer = self.timed_poll(region, client, &polled).await;
            polled(match answer {
                Ok(report) => Polled::Report(report),
                Err(why) => Polled::Missed { region: region.clone(), why },
            });
        }
    }

    /// A poll that is to be answered at once, and how long that took. One that is given up on goes on
    /// beside the next: how late its answer was says how long it is right to wait.
    async fn timed_poll(
        &self,
        region: &Region,
        client: &reqwest::Client,
        polled: &(impl Fn(Polled) + Clone + Send + Sync + 'static),
    ) -> Result<AgentReport, String> {
        let (agents, client, polled) = (self.clone(), client.clone(), polled.clone());
        let asked = region.clone();
        let mut answering = tokio::spawn(async move {
            let began = Instant::now();
            let most = agents.patience * TIMED_FOR;
            let answer = agents.poll_within(&asked, &client, None, Duration::ZERO, most).await;
            if answer.is_ok() {
                polled(Polled::RoundTrip { region: asked, took: began.elapsed() });
            }
            answer
        });
        match tokio::time::timeout(self.patience, &mut answering).await {
            Ok(Ok(answer)) => {
                let report = answer?;
                self.keep_stamp(region, &report);
                Ok(report)
            }
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => Err(format!("no answer within {} ms", self.patience.as_millis())),
        }
    }

    async fn poll(
        &self,
        region: &Region,
        client: &reqwest::Client,
        known: Option<(String, u64)>,
        wait: Duration,
    ) -> Result<AgentReport, String> {
        let most = wait + self.patience;
        let report = self.poll_within(region, client, known, wait, most).await?;
        self.keep_stamp(region, &report);
        Ok(report)
    }

    async fn poll_within(
        &self,
        region: &Region,
        client: &reqwest::Client,
        known: Option<(String, u64)>,
        wait: Duration,
        most: Duration,
    ) -> Result<AgentReport, String> {
        let news = self.news.borrow().clone();
        let request = PollRequest {
            protocol: PROTOCOL,
            heard: news.heard,
            writer: news.writer,
            known,
            wait_ms: wait.as_millis() as u64,
            grant: (news.granted.as_ref() == Some(region)).then(|| self.grant(region)).flatten(),
            alone: news.alone,
        };
        self.post(region, client, "poll", &request, most).await
    }

    /// The next grant echoes this report's stamp. Only of one that is handed on: a lease is counted
    /// from the newest report that the core has.
    fn keep_stamp(&self, region: &Region, report: &AgentReport) {
        let at = self.moment();
        let mut stamps = self.stamps();
        let of_region = stamps.entry(region.clone()).or_insert_with(|| Stamps::new(self.granter));
        of_region.came((report.run.clone(), report.stamp_us), at);
    }

    /// A lease in answer to the newest stamp of an agent, if it has ever sent one (L1).
    fn grant(&self, region: &Region) -> Option<Grant> {
        let (run, stamp_us) = self.stamps().get(region)?.answerable().cloned()?;
        Some(Grant { run, stamp_us, lease_ms: self.lease.as_millis() as u64 })
    }

    fn stamps(&self) -> std::sync::MutexGuard<'_, BTreeMap<Region, Stamps>> {
        // A panic while holding it leaves plain values behind, which stay usable.
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
        &self,
        region: &Region,
        client: &reqwest::Client,
        what: &str,
        request: &Q,
        most: Duration,
    ) -> Result<A, String> {
        let address =
            self.addresses.get(region).ok_or_else(|| format!("no agent is known for {region}"))?;
        let answer = client
            .post(format!("http://{address}/v1/{what}"))
            .bearer_auth(self.token.expose())
            .timeout(most)
            .json(request)
            .send()
            .await
            .map_err(|error| chain(&error))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            return Err(format!("{status}: {}", text.trim()));
        }
        answer.json().await.map_err(|error| chain(&error))
    }

    /// One report, without telling the agent anything.
    pub async fn report(&self, region: &Region) -> Result<AgentReport, String> {
        let request = PollRequest {
            protocol: PROTOCOL,
            heard: None,
            writer: None,
            known: None,
            wait_ms: 0,
            grant: None,
            alone: false,
        };
        self.post(region, &self.commands, "poll", &request, self.patience * 3).await
    }

    /// The lines of an agent's log after this number.
    pub async fn logs(&self, region: &Region, after: u64) -> Result<Vec<LogLine>, String> {
        self.get(region, &format!("logs?after={after}")).await
    }

    /// What an agent's prober has seen after this number of that run.
    pub async fn probes(
        &self,
        region: &Region,
        run: &str,
        after: u64,
    ) -> Result<ProbesAnswer, String> {
        self.get(region, &format!("probes?after={after}&run={run}")).await
    }

    async fn get<A: serde::de::DeserializeOwned>(
        &self,
        region: &Region,
        what: &str,
    ) -> Result<A, String> {
        let address =
            self.addresses.get(region).ok_or_else(|| format!("no agent is known for {region}"))?;
        let url = format!("http://{address}/v1/{what}");
        get(&self.commands, &url, &self.token, self.patience).await
    }

    /// The regions that have an agent.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.addresses.keys()
    }

    /// Have a command carried out. A broken or late answer is unknown, never failed.
    pub async fn command(&self, command: Command) -> Outcome {
        let began = Instant::now();
        let limit = Duration::from_millis(command.limit_ms);
        let region = command.node.region().clone();
        loop {
            let left = (limit + CROSSING).saturating_sub(began.elapsed());
            if left.is_zero() {
                let why = format!("no outcome within {} ms", limit.as_millis());
                return Outcome::Unknown { why };
            }
            let wait = left.min(ASK_AGAIN);
            // A command that may take long is not unknown because one answer on the way to its end
            // crosses late: on a busy machine a copy would be given up and begun anew, for ever.
            let crossing = if left > wait + self.patience { self.patience } else { CROSSING };
            let request = CommandRequest {
                protocol: PROTOCOL,
                command: command.clone(),
                wait_ms: wait.as_millis() as u64,
            };
            let answer: Result<CommandAnswer, String> =
                self.post(&region, &self.commands, "command", &request, wait + crossing).await;
            match answer {
                Ok(CommandAnswer::Ended { outcome }) => return outcome,
                Ok(CommandAnswer::Running { progress }) => {
                    if let Some(progress) = progress {
                        tracing::info!(node = %command.node, step = %command.step, progress);
                    }
                }
                Err(why) => return Outcome::Unknown { why },
            }
        }
    }
}

/// What another role answers to a question.
pub(crate) async fn get<A: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    url: &str,
    token: &Secret,
    patience: Duration,
) -> Result<A, String> {
    let asked = client.get(url).bearer_auth(token.expose()).timeout(patience);
    let answer = asked.send().await.map_err(|error| chain(&error))?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    answer.json().await.map_err(|error| chain(&error))
}

/// A client for polls and commands.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(5))
        .pool_idle_timeout(None)
        .no_proxy()
        .build()
        .context("build an HTTP client")
}

/// An error with its causes, as one sentence, without the URL.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    format!("{kind} ({deepest})")
}
