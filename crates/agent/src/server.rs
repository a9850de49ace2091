//! The agent as a process: opens its state, watches its nodes, answers polls and commands.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use axum::extract::{Query, Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tier0_config::{Follower, Reader, Secret, Stack};
use tier0_core::record::DatastoreKind;
use tier0_core::words::{NodeId, Region};
use tier0_listen::listen;
use tier0_prober::Prober;
use tier0_wire::{
    CommandRequest, ConfirmRequest, PROTOCOL, PollRequest, ProbesAnswer, read_token, tokens_match,
};

use crate::adapter::Adapter;
use crate::desk::Desk;
use crate::holder;
use crate::node::Node;
use crate::promise::Promise;
use crate::state::{State, StateError};

/// How long the lock of an agent that has just ended is waited for.
const PREDECESSOR_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Run the agent of a region until `shutdown` resolves. The data servers live on.
pub async fn run(
    config: &Path,
    region: &Region,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stack = Stack::load(config)?;
    let settings = stack
        .agent(region)
        .ok_or_else(|| anyhow!("{} has no [[agent]] for region {region}", config.display()))?;
    let token = read_token(&stack.stack.role_token_file).context("read the role token")?;
    let state = open_state(&settings.state_directory).await.context("open the agent's state")?;
    let mut nodes = Vec::new();
    for datastore in &stack.datastores {
        let id = NodeId::new(datastore.name.clone(), region.clone());
        nodes.push(Node::new(id, Adapter::open(datastore, region)?));
    }
    for route in stack.routes.iter().filter(|route| route.region == *region) {
        nodes.push(Node::new(route.id(), Adapter::open_route(&stack, route)?));
    }
    let lease = Duration::from_millis(stack.limits.lease_ms);
    let promise = Promise::new(&settings.state_directory);
    let run = uuid::Uuid::now_v7().to_string();
    let run_of_probes = run.clone();
    let desk = Arc::new(Desk::new(region.clone(), run, nodes, state, promise, lease));
    holder::take_up(&desk, &settings.state_directory).context("take up what was left held")?;
    for node in desk.nodes() {
        let (watched, kept) = (Arc::clone(node), Arc::clone(node));
        let (watching, keeping) = (Arc::clone(&desk), Arc::clone(&desk));
        tokio::spawn(async move { watched.watch(|| watching.changed()).await });
        let probed = Arc::clone(node);
        tokio::spawn(async move { probed.keep_probing().await });
        tokio::spawn(async move { kept.keep_as_writer(|| keeping.is_writer()).await });
        let (pointed, naming) = (Arc::clone(node), Arc::clone(&desk));
        tokio::spawn(async move { pointed.keep_pointed(|| naming.named_writer()).await });
        let (leased, saying) = (Arc::clone(node), Arc::clone(&desk));
        tokio::spawn(async move { leased.keep_leased(|| saying.passes_for()).await });
    }
    let token = Arc::new(token);
    let others: Vec<_> = stack
        .agents
        .iter()
        .filter(|agent| agent.region != *region)
        .map(|agent| (agent.region.clone(), agent.listen))
        .collect();
    // Both end with this function.
    let mut holding = tokio::task::JoinSet::new();
    let asking = holder::Peers::new(others, Arc::clone(&token))?;
    let directory = settings.state_directory.clone();
    holding.spawn(holder::keep_asking(Arc::clone(&desk), directory, asking));
    holding.spawn(holder::keep_holding(Arc::clone(&desk), settings.state_directory.clone()));
    let mut knocking = tokio::task::JoinSet::new();
    for (node, kind, address) in peers(&stack, region) {
        let told = Arc::clone(&desk);
        knocking.spawn(tier0_knock::keep_knocking(kind, address, move |knock| {
            told.knocked(&node, knock);
        }));
    }
    desk.host().watch(&stack, region);
    let prober = Probing { run: run_of_probes, prober: Prober::start(&stack, region) };
    // Nothing that an agent reads can change while it runs; it says so, and lives through SIGHUP.
    let follower = Follower::new(config.to_owned(), Reader::Agent(region.clone()), stack.clone());
    let mut following = tokio::task::JoinSet::new();
    following.spawn(tier0_config::follow(follower, |_| {}));
    let listener = listen(settings.listen)
        .with_context(|| format!("listen on {} as the agent of {region}", settings.listen))?;
    tracing::info!(%region, address = %settings.listen, "the agent listens");
    let app = Router::new()
        .route("/v1/poll", post(poll))
        .route("/v1/command", post(command))
        .route("/v1/confirm", post(confirm))
        .route("/v1/report", get(report))
        .route("/v1/logs", get(logs))
        .with_state(Arc::clone(&desk))
        .route("/v1/probes", get(probes).with_state(Arc::new(prober)))
        .layer(middleware::from_fn_with_state(token, authenticate))
        .route("/health", get(async || "ok\n"));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            shutdown.await;
            // Polls that wait would hold the end up for as long as they wait.
            desk.changed();
        })
        .await
        .context("serve polls and commands")
}

/// The data servers of the other regions.
fn peers(stack: &Stack, region: &Region) -> Vec<(NodeId, DatastoreKind, SocketAddr)> {
    let mut found = Vec::new();
    for datastore in &stack.datastores {
        for node in datastore.nodes.iter().filter(|node| node.region != *region) {
            let id = NodeId::new(datastore.name.clone(), node.region.clone());
            found.push((id, datastore.kind, node.address));
        }
    }
    found
}

/// An agent that was killed holds its lock until the kernel has taken it off, which may be a moment
/// after its successor was started.
async fn open_state(directory: &Path) -> Result<State, StateError> {
    let began = Instant::now();
    loop {
        match State::open(directory) {
            Err(StateError::Locked { .. }) if began.elapsed() < PREDECESSOR_ENDS_WITHIN => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened,
        }
    }
}

/// Only roles of this stack are answered.
async fn authenticate(
    Shared(token): Shared<Arc<Secret>>,
    request: Request,
    next: Next,
) -> Response {
    let presented = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match presented {
        Some(presented) if tokens_match(presented, &token) => next.run(request).await,
        Some(_) | None => {
            (StatusCode::UNAUTHORIZED, "the role token is missing or wrong\n").into_response()
        }
    }
}

fn other_protocol(found: u32) -> Response {
    let sentence = format!("protocol {found} was asked for, this agent speaks {PROTOCOL}\n");
    (StatusCode::BAD_REQUEST, sentence).into_response()
}

async fn poll(Shared(desk): Shared<Arc<Desk>>, Json(request): Json<PollRequest>) -> Response {
    if request.protocol != PROTOCOL {
        return other_protocol(request.protocol);
    }
    Json(desk.poll(request).await).into_response()
}

async fn command(Shared(desk): Shared<Arc<Desk>>, Json(request): Json<CommandRequest>) -> Response {
    if request.protocol != PROTOCOL {
        return other_protocol(request.protocol);
    }
    // The command outlives the connection that brought it.
    let wait = Duration::from_millis(request.wait_ms.min(60_000));
    let asked = tokio::spawn(async move { desk.command(request.command, wait).await });
    match asked.await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            tracing::error!(%error, "a command was not carried through");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn confirm(Shared(desk): Shared<Arc<Desk>>, Json(request): Json<ConfirmRequest>) -> Response {
    if request.protocol != PROTOCOL {
        return other_protocol(request.protocol);
    }
    Json(desk.confirm(&request).await).into_response()
}

async fn report(Shared(desk): Shared<Arc<Desk>>) -> Response {
    Json(desk.report()).into_response()
}

/// Which lines are wanted.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    /// Those with a higher number than this.
    after: u64,
}

/// What the prober of this run has seen.
struct Probing {
    run: String,
    prober: Arc<Prober>,
}

/// Which probes are wanted.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Newer {
    /// Those of this run with a higher number, all of any other run.
    after: u64,
    /// The run that the number belongs to.
    run: String,
}

async fn probes(Shared(probing): Shared<Arc<Probing>>, Query(query): Query<Newer>) -> Response {
    let after = if query.run == probing.run { query.after } else { 0 };
    let (now_ms, probes) = probing.prober.after(after);
    Json(ProbesAnswer { run: probing.run.clone(), now_ms, probes }).into_response()
}

async fn logs(Shared(desk): Shared<Arc<Desk>>, Query(query): Query<After>) -> Response {
    let role = format!("agent.{}", desk.region());
    Json(tier0_logbook::lines_after(query.after, &role)).into_response()
}
