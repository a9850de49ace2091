//! The contrast: the same traffic, moved the specification's way. tier0's roles are ended first;
//! then the standby is promoted while the old primary goes on, Sentinel is told to fail over while
//! clients write, and a variable is changed. The ledger names what that lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tier0_config::{DatastoreSettings, NodeSettings, PostgresSettings, Stack};
use tier0_core::record::DatastoreKind;

use crate::account::Account;
use crate::api::Api;
use crate::files;
use crate::ledger::{self, Targets, Traffic, TrafficPlan, WritePath};
use crate::placement::Place;
use crate::processes;
use crate::progress::tell;
use crate::state::{Kind, LabState};
use crate::traffic::summary_text;

const WARM_UP: u64 = 60;
const WRITES: Duration = Duration::from_secs(15);
/// Sentinel turns an old master into a replica about 11 s after its failover. Until then it takes
/// writes that the turn throws away.
const UNTIL_OLD_MASTER_FOLLOWS: Duration = Duration::from_secs(14);
const PROMOTION: Duration = Duration::from_secs(5);
const SENTINEL: Duration = Duration::from_secs(3);
const REPLICA_KNOWN: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(200);
const ASK: Duration = Duration::from_secs(1);

/// Play it.
pub async fn play(state: &LabState) -> Result<ExitCode> {
    let stack = state.stack()?;
    let targets = Targets::of(&stack)?;
    let status = Api::of(state)?.status().await?;
    let home = status.get("current_region").and_then(|region| region.as_str());
    if home != Some(Place::Region1.name()) {
        bail!("this demo starts in region1; take the stack down first: {}", state.removal());
    }
    tell!("\nAct 1  end tier0's agents and orchestrator; the data servers go on without them");
    end_roles(state).await?;
    open_door(state, &stack).await?;
    let master = Master::of(&stack)?;
    master.lower_quorum().await?;
    master.until_its_replica_is_known().await?;
    let plan = TrafficPlan::moderate(super::ledger_directory(state));
    let traffic = Traffic::start(&plan, &targets).await?;
    traffic.wait_for_more(WARM_UP, WRITES).await?;
    tell!("\nAct 2  the specification's failover to region2, step by step, under traffic");
    let began = Instant::now();
    timed("database promotion: pg_ctl promote, the old primary is not fenced", async {
        promote(state, &stack).await
    })
    .await?;
    timed("Redis failover: SENTINEL FAILOVER, writes go on meanwhile", master.fail_over()).await?;
    tell!("    {:>7.3} s  routing update: a variable in memory; no client reads it", 0.0);
    tell!("    {:>7.3} s  total", began.elapsed().as_secs_f64());
    tell!("\nAct 3  what runs now, while the clients go on as before");
    tokio::time::sleep(UNTIL_OLD_MASTER_FOLLOWS).await;
    describe_postgres(&targets).await;
    let summary = traffic.stop().await?;
    tell!("\nAct 4  read every acknowledged write back from region2");
    let report = ledger::check(&plan.directory, &only_region2(&stack, targets)?).await?;
    for line in summary_text(&summary).lines().chain(report.text().lines()) {
        tell!("    {line}");
    }
    tell!("\n{}", conclusion(&report));
    Ok(ExitCode::SUCCESS)
}

fn conclusion(report: &ledger::CheckReport) -> String {
    let redis = report.missing(&[WritePath::Redis]).len();
    let waited = report.missing(&[WritePath::RedisWait]).len();
    let postgres = report.missing(&[WritePath::Postgres]).len();
    format!(
        "The specification's way lost {redis} Redis writes that had been acknowledged, {waited} more \
         that a\nreplica had confirmed, and {postgres} PostgreSQL writes.\n\
         Why: SENTINEL FAILOVER promotes the replica without holding writes, comparing offsets or\n\
         stopping the old master, which goes on acknowledging what it throws away when Sentinel\n\
         makes it a replica, seconds later.\n\
         PostgreSQL's old primary still waits for its standby, so it acknowledges nothing, but nobody\n\
         fenced it: it takes connections, answers reads from the past, and its clients' commits hang.\n\
         Compare: make demo"
    )
}

async fn timed(what: &str, step: impl Future<Output = Result<()>>) -> Result<()> {
    let began = Instant::now();
    step.await.with_context(|| what.to_owned())?;
    tell!("    {:>7.3} s  {what}", began.elapsed().as_secs_f64());
    Ok(())
}

async fn end_roles(state: &LabState) -> Result<()> {
    let roles: Vec<_> = state
        .started
        .iter()
        .filter(|one| matches!(one.kind, Kind::Agent | Kind::Orchestrator))
        .collect();
    for role in &roles {
        processes::signal(role.process, Signal::TERM);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(left) = roles.iter().find(|role| processes::is_running(role.process)) {
        if Instant::now() > deadline {
            bail!("{} does not end on SIGTERM", left.name);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn of_kind(stack: &Stack, kind: DatastoreKind) -> Result<&DatastoreSettings> {
    let found = stack.datastores.iter().find(|datastore| datastore.kind == kind);
    found.with_context(|| format!("the stack has no {kind}"))
}

/// `pg_ctl promote`, then asking every 200 ms whether recovery has ended.
async fn promote(state: &LabState, stack: &Stack) -> Result<()> {
    let datastore = of_kind(stack, DatastoreKind::Postgres)?;
    let settings = datastore.postgres.as_ref().context("PostgreSQL settings")?;
    let node = datastore.node(&Place::Region2.region()).context("no node in region2")?;
    pg_ctl(state, settings, &["promote", "-W", "-D"], node).await?;
    let password = settings.application_password_file.read()?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(node.address.ip().to_string())
        .port(node.address.port())
        .user(&settings.application_user)
        .dbname(&settings.database)
        .password(password.expose());
    let deadline = Instant::now() + PROMOTION;
    while Instant::now() < deadline {
        if !in_recovery(&config).await? {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("promotion timed out")
}

/// tier0 lets clients into a standby only after its promotion is proven; the specification's
/// access file is the same on both sides from the start.
async fn open_door(state: &LabState, stack: &Stack) -> Result<()> {
    let datastore = of_kind(stack, DatastoreKind::Postgres)?;
    let settings = datastore.postgres.as_ref().context("PostgreSQL settings")?;
    let node = |place: Place| datastore.node(&place.region()).context("a region has a node");
    let (from, to) = (node(Place::Region1)?, node(Place::Region2)?);
    let access = std::fs::read(from.data_directory.join("pg_hba.conf"))
        .context("read the primary's pg_hba.conf")?;
    let account = Account::unprivileged()?;
    files::write_private(&to.data_directory.join("pg_hba.conf"), &access, &account)?;
    pg_ctl(state, settings, &["reload", "-D"], to).await
}

async fn pg_ctl(
    state: &LabState,
    settings: &PostgresSettings,
    arguments: &[&str],
    node: &NodeSettings,
) -> Result<()> {
    let account = Account::unprivileged()?;
    let mut command = account.command(settings.bin_directory.join("pg_ctl"), &state.directory);
    command.args(arguments).arg(&node.data_directory);
    let output = tokio::process::Command::from(command).output().await.context("run pg_ctl")?;
    if !output.status.success() {
        bail!("pg_ctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

async fn in_recovery(config: &tokio_postgres::Config) -> Result<bool> {
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let answer = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
    driver.abort();
    Ok(answer?.get(0))
}

/// The Redis master as its Sentinels know it.
struct Master {
    name: String,
    sentinels: Vec<SocketAddr>,
}

impl Master {
    fn of(stack: &Stack) -> Result<Master> {
        let datastore = of_kind(stack, DatastoreKind::Redis)?;
        let settings = datastore.redis.as_ref().context("Redis settings")?;
        Ok(Master {
            name: settings.master_name.clone(),
            sentinels: settings.sentinels.iter().map(|one| one.address).collect(),
        })
    }

    /// As the specification has them: Sentinels may act by themselves.
    async fn lower_quorum(&self) -> Result<()> {
        for sentinel in &self.sentinels {
            let mut connection = ledger::connect_redis(*sentinel, None, ASK).await?;
            redis::cmd("SENTINEL")
                .arg(&["SET", &self.name, "quorum", "2"])
                .exec_async(&mut connection)
                .await
                .context("SENTINEL SET quorum")?;
        }
        Ok(())
    }

    /// A Sentinel asks the master for its replicas every 10 s (`sentinel.c` `SENTINEL_INFO_PERIOD`).
    /// In a stack that has just come up it would answer `NOGOODSLAVE`, which shows nothing.
    async fn until_its_replica_is_known(&self) -> Result<()> {
        let sentinel = *self.sentinels.first().context("there is no Sentinel")?;
        let mut connection = ledger::connect_redis(sentinel, None, ASK).await?;
        let deadline = Instant::now() + REPLICA_KNOWN;
        loop {
            let replicas: Vec<HashMap<String, String>> = redis::cmd("SENTINEL")
                .arg(&["REPLICAS", &self.name])
                .query_async(&mut connection)
                .await
                .context("SENTINEL REPLICAS")?;
            let is_good = |replica: &HashMap<String, String>| {
                let has =
                    |name: &str, value: &str| replica.get(name).is_some_and(|found| found == value);
                has("flags", "slave") && has("master-link-status", "ok")
            };
            if replicas.iter().any(is_good) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the Sentinel at {sentinel} does not know a replica that it could promote");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `SENTINEL FAILOVER`, then asking every 200 ms for the address.
    async fn fail_over(&self) -> Result<()> {
        let sentinel = *self.sentinels.first().context("there is no Sentinel")?;
        let mut connection = ledger::connect_redis(sentinel, None, ASK).await?;
        let before = ledger::ask_sentinel(&mut connection, &self.name, ASK).await;
        redis::cmd("SENTINEL")
            .arg(&["FAILOVER", &self.name])
            .exec_async(&mut connection)
            .await
            .context("SENTINEL FAILOVER")?;
        let deadline = Instant::now() + SENTINEL;
        while Instant::now() < deadline {
            if ledger::ask_sentinel(&mut connection, &self.name, ASK).await != before {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("Redis failover timed out")
    }
}

/// Say of each PostgreSQL whether it takes writes, and how many commits hang in it.
async fn describe_postgres(targets: &Targets) {
    for target in &targets.postgres {
        for host in &target.hosts {
            match ledger::describe_postgres(target, *host, ASK).await {
                Ok(sentence) => tell!("    PostgreSQL {host}: {sentence}"),
                Err(error) => tell!("    PostgreSQL {host}: {error:#}"),
            }
        }
    }
}

/// After a promotion without a fence two servers say that they take writes; the specification
/// means the promoted one.
fn only_region2(stack: &Stack, mut targets: Targets) -> Result<Targets> {
    for target in &mut targets.postgres {
        let name = target.name.parse()?;
        let node = stack
            .datastore(&name)
            .and_then(|datastore| datastore.node(&Place::Region2.region()))
            .context("no node in region2")?;
        target.hosts = vec![node.address];
    }
    Ok(targets)
}
