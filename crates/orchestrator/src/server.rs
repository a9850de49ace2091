//! The orchestrator as a process: opens the store, begins or takes up the record, starts the loop
//! and the API.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tier0_config::{Follower, OrchestratorSettings, Reader, Stack};
use tier0_core::grant::Granter;
use tier0_core::orchestrator::{Input, Limits, Orchestrator, Seats, Settings, first_record};
use tier0_core::record::{Automatic, DatastoreKind, Record};
use tier0_core::words::{Lineage, NodeId, Site};
use tier0_listen::listen;
use tier0_store::{
    Embedded, Etcd, EtcdCredentials, EtcdSettings, OpenError, OperationResult, StoreError,
    StoreHandle,
};
use tier0_wire::{OperationBody, read_token};

use crate::agents::Agents;
use crate::api::{self, Access, Begun, Forward, Shared};
use crate::availability;
use crate::driver::{Driver, wall};
use crate::following;
use crate::metrics::Metrics;
use crate::peers::{self, Peer};
use crate::readiness::Kept;

/// How long requests may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(2);

/// How long the lock of an orchestrator that has just ended is waited for.
const PREDECESSOR_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How long the members of the store's cluster are waited for before this process ends, to be started
/// again by whoever looks after it.
const CLUSTER_FORMS_WITHIN: Duration = Duration::from_secs(60);

/// Run the orchestrator of a site until `shutdown` resolves.
pub async fn run(
    config: &Path,
    site: &Site,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stack = Stack::load(config)?;
    let settings = stack
        .orchestrators
        .iter()
        .find(|one| one.site == *site)
        .ok_or_else(|| anyhow!("{} has no [[orchestrator]] for site {site}", config.display()))?
        .clone();
    let access = access(&settings)?;
    let Stores { store, followed } = open_stores(&stack, &settings).await?;
    let driver_name = format!("{site}-{}", uuid::Uuid::now_v7());
    let record = record(&store, &stack, &driver_name).await?;
    let role_token =
        Arc::new(read_token(&stack.stack.role_token_file).context("read the role token")?);
    let agents = Agents::new(
        stack.agents.iter().map(|agent| (agent.region.clone(), agent.listen)).collect(),
        Arc::clone(&role_token),
        stack.limits.poll_interval(),
        Duration::from_millis(stack.limits.silence_ms),
        Duration::from_millis(stack.limits.lease_ms),
        match followed {
            Some(_) => Granter::OneOfSeveral,
            None => Granter::Only,
        },
    )?;
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    if let Some(moved) = last_move(&store).await {
        metrics.last_move(&moved);
    }
    let core = Orchestrator::new(core_settings(&stack, site), driver_name);
    let driver = Driver::start(core, store.clone(), agents.clone(), Arc::clone(&metrics))?;
    let mut knocking = tokio::task::JoinSet::new();
    for (node, kind, address) in servers(&stack) {
        let told = driver.clone();
        knocking.spawn(tier0_knock::keep_knocking(kind, address, move |knock| {
            told.input(Input::Knocked { node: node.clone(), knock });
        }));
    }
    driver.input(Input::Loaded(record));
    let others = peers::others(&stack, site);
    let mut watching = tokio::task::JoinSet::new();
    if let Some(followed) = followed {
        watching.spawn(following::keep_near(followed.drawn, driver.clone()));
        watching.spawn(following::keep_reading(
            followed.read,
            driver.clone(),
            stack.limits.poll_interval(),
        ));
        for (_, address) in &others {
            let peer = Peer::new(*address, Arc::clone(&role_token), &stack.limits)?;
            watching.spawn(peer.keep_asking(driver.clone()));
        }
    }
    let availability = availability::Kept::start(
        &driver,
        &agents,
        &store,
        &settings.state_directory,
        stack.limits.downtime_objective_ms,
    );
    // Ends with this function.
    let mut following = tokio::task::JoinSet::new();
    let follower = Follower::new(config.to_owned(), Reader::Orchestrator(site.clone()), stack);
    let (limited, budgeted) = (driver.clone(), Arc::clone(&availability));
    following.spawn(tier0_config::follow(follower, move |stack| {
        limited.limits(core_limits(&stack.limits));
        budgeted.objective(stack.limits.downtime_objective_ms);
    }));
    let readiness = Kept::start(&driver);
    let shared = Arc::new(Shared {
        site: site.clone(),
        driver,
        agents,
        store,
        readiness,
        availability: Arc::clone(&availability),
        metrics,
        access,
        forward: Forward::new(others, role_token)?,
        begun: Begun::default(),
    });
    let served = serve(&settings, shared, shutdown).await;
    availability.write();
    served
}

/// The store, and where others write to it too, ways of their own to follow them.
struct Stores {
    store: StoreHandle,
    followed: Option<Followed>,
}

/// A handle does one thing after the other, and what is written must not wait: not for what is read all
/// the time, nor for a member of the cluster that is asked to lead and is away.
struct Followed {
    read: StoreHandle,
    drawn: StoreHandle,
}

async fn open_stores(stack: &Stack, settings: &OrchestratorSettings) -> anyhow::Result<Stores> {
    let directory = &settings.state_directory;
    if stack.store.is_none() {
        let store = open_store(directory).await.context("open the store")?;
        let store = StoreHandle::start(store).context("start the store")?;
        return Ok(Stores { store, followed: None });
    }
    // The account of availability lies there.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))?;
    let start = || {
        let etcd = Etcd::new(etcd_settings(stack, settings.listen)?)?;
        StoreHandle::start(etcd).context("start the store")
    };
    let followed = Followed { read: start()?, drawn: start()? };
    Ok(Stores { store: start()?, followed: Some(followed) })
}

/// The way to the etcd cluster, the member on this orchestrator's own address first.
pub(crate) fn etcd_settings(stack: &Stack, here: SocketAddr) -> anyhow::Result<EtcdSettings> {
    let store = stack.store.as_ref().context("the stack has no [store]")?;
    let mut members = store.etcd.clone();
    members.sort_by_key(|member| member.ip() != here.ip());
    let credentials = match (&store.user, &store.password_file) {
        (Some(user), Some(file)) => Some(EtcdCredentials {
            user: user.clone(),
            password: file.read().context("read etcd's password")?.expose().to_owned(),
        }),
        _ => None,
    };
    Ok(EtcdSettings {
        endpoints: members.iter().map(ToString::to_string).collect(),
        stack: stack.stack.name.clone(),
        credentials,
    })
}

/// An orchestrator that was killed holds its lock until the kernel has taken it off, which may be a
/// moment after its successor was started.
async fn open_store(directory: &Path) -> Result<Embedded, OpenError> {
    let began = Instant::now();
    loop {
        match Embedded::open(directory) {
            Err(OpenError::InUse { .. }) if began.elapsed() < PREDECESSOR_ENDS_WITHIN => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened,
        }
    }
}

fn access(settings: &OrchestratorSettings) -> anyhow::Result<Access> {
    Ok(Access {
        operate: read_token(&settings.operate_token_file).context("read the operate token")?,
        accept_loss: read_token(&settings.accept_loss_token_file)
            .context("read the accept-loss token")?,
        open_reads_on_loopback: settings.open_reads_on_loopback,
    })
}

/// The first read: the members of a cluster that was just started find each other first.
async fn first_load(store: &StoreHandle) -> Result<Option<Record>, StoreError> {
    let began = Instant::now();
    loop {
        match store.load().await {
            Err(error @ (StoreError::Access { .. } | StoreError::Unknown { .. }))
                if began.elapsed() < CLUSTER_FORMS_WITHIN =>
            {
                tracing::warn!(error = %anyhow::Error::from(error), "the store does not answer yet");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answered => return answered,
        }
    }
}

/// The record in the store; the very first start of a stack makes it.
async fn record(store: &StoreHandle, stack: &Stack, driver: &str) -> anyhow::Result<Record> {
    if let Some(record) = first_load(store).await.context("read the authority record")? {
        if record.stack != stack.stack.name {
            return Err(anyhow!(
                "the store holds the record of stack {}, the configuration is of {}",
                record.stack,
                stack.stack.name
            ));
        }
        return Ok(record);
    }
    let lineage: Lineage = uuid::Uuid::now_v7()
        .to_string()
        .parse()
        .expect("a UUID is 36 hexadecimal digits and dashes");
    let record = first_record(
        stack.stack.name.clone(),
        &stack.shape(),
        lineage,
        driver.to_owned(),
        automatic(stack),
        wall(),
    );
    tracing::info!(writer = %record.writer, "the stack begins: first record");
    let _ = store.create(record).await.context("store the first record")?;
    store
        .load()
        .await
        .context("read the first record back")?
        .ok_or_else(|| anyhow!("the first record is not in the store"))
}

/// Every data server of a stack.
fn servers(stack: &Stack) -> Vec<(NodeId, DatastoreKind, SocketAddr)> {
    let of = |datastore: &tier0_config::DatastoreSettings| {
        let (name, kind) = (datastore.name.clone(), datastore.kind);
        let nodes = datastore.nodes.iter();
        nodes
            .map(move |node| (NodeId::new(name.clone(), node.region.clone()), kind, node.address))
            .collect::<Vec<_>>()
    };
    stack.datastores.iter().flat_map(of).collect()
}

/// What a stack's file says of automatic moves, for its very first record.
pub(crate) fn automatic(stack: &Stack) -> Automatic {
    Automatic {
        mode: stack.stack.automatic,
        by: "configuration".to_owned(),
        at: wall(),
        reason: String::new(),
        until: None,
    }
}

/// The newest operation in the history that moved the writer, if one is among the newest few hundred:
/// each move is followed by a handful of repairs.
async fn last_move(store: &StoreHandle) -> Option<OperationBody> {
    let operations = store.operations(500, None).await.unwrap_or_default();
    let moved = operations.into_iter().find(|operation| {
        let ended = matches!(
            operation.result,
            OperationResult::Succeeded | OperationResult::SucceededWithExceptions
        );
        ended && operation.kind.moves_writer()
    })?;
    serde_json::from_value(moved.report).ok()
}

fn core_settings(stack: &Stack, site: &Site) -> Settings {
    Settings {
        stack: stack.stack.name.clone(),
        shape: stack.shape(),
        seats: Seats {
            here: site.clone(),
            order: stack.orchestrators.iter().map(|one| one.site.clone()).collect(),
        },
        limits: core_limits(&stack.limits),
    }
}

fn core_limits(limits: &tier0_config::Limits) -> Limits {
    let millis = Duration::from_millis;
    Limits {
        cooperation: millis(limits.cooperation_ms),
        stop: millis(limits.stop_ms),
        stop_silent: millis(100),
        join: millis(limits.join_ms),
        hold: millis(limits.hold_ms),
        drain: millis(limits.drain_ms),
        pause: millis(limits.pause_ms),
        receive: millis(limits.receive_ms),
        promote: millis(limits.promote_ms),
        checkpoint: millis(limits.checkpoint_ms),
        follow: millis(limits.follow_ms),
        command: millis(2_000),
        silence: millis(limits.silence_ms),
        lease: millis(limits.lease_ms),
        cool_down: millis(limits.cool_down_ms),
        stall: millis(limits.stall_ms),
        floors: millis(1_000),
        disk_free_least: limits.disk_free_least_mb * 1_000_000,
        replay_backlog_most: limits.replay_backlog_most_mb * 1_000_000,
        backup_age_most: Duration::from_secs(limits.backup_age_most_hours * 3600),
    }
}

async fn serve(
    settings: &OrchestratorSettings,
    shared: Arc<Shared>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let end = tokio::sync::watch::Sender::new(false);
    let mut servers = tokio::task::JoinSet::new();
    for address in std::iter::once(settings.listen).chain(settings.also_listen.iter().copied()) {
        let listener =
            listen(address).with_context(|| format!("listen on {address} as the orchestrator"))?;
        tracing::info!(%address, "the orchestrator listens");
        let app =
            api::router(Arc::clone(&shared)).into_make_service_with_connect_info::<SocketAddr>();
        let mut ended = end.subscribe();
        servers.spawn(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move {
                    // An error means that the sender is gone, which is the end as well.
                    let _ = ended.wait_for(|ended| *ended).await;
                })
                .await
        });
    }
    shutdown.await;
    end.send_replace(true);
    let _ =
        tokio::time::timeout(DRAIN, async { while servers.join_next().await.is_some() {} }).await;
    Ok(())
}
