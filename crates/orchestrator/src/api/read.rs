//! What changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tier0_core::observe::NodeView;
use tier0_core::orchestrator::{Now, Orchestrator};
use tier0_core::steps::{StepKey, row};
use tier0_core::words::{NodeId, OperationId, Region};
use tier0_wire::{
    AvailabilityBody, CheckBody, OperationBody, OperationList, PlanBody, PlanStep, Problem,
    RebuildPlanBody, RefusalBody, StatusBody,
};
use utoipa::IntoParams;

use super::Shared;
use super::problem::Refused;
use crate::metrics::Snapshot;
use crate::{readiness, status};

/// What the stack is at the moment.
#[utoipa::path(
    get, path = "/status", tag = "read",
    responses(
        (status = 200, description = "The state", body = StatusBody),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 503, description = "The record has not been read yet", body = Problem)
    )
)]
pub async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<StatusBody>, Refused> {
    let body = shared.driver.look(status::status).await.flatten();
    let mut body = body.ok_or_else(Refused::not_ready)?;
    body.availability = Some(shared.availability.brief());
    Ok(Json(body))
}

/// The account of availability: what probes have met, and what is left of a year's budget.
#[utoipa::path(
    get, path = "/availability", tag = "read",
    responses(
        (status = 200, description = "The account", body = AvailabilityBody),
        (status = 401, description = "Reading needs a token here", body = Problem)
    )
)]
pub async fn availability(State(shared): State<Arc<Shared>>) -> Json<AvailabilityBody> {
    Json(shared.availability.body())
}

/// How many operations to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// At most this many, 1 to 200; 20 unless said otherwise.
    limit: Option<u32>,
}

/// Operations, newest first.
#[utoipa::path(
    get, path = "/operations", tag = "read", params(Page),
    responses(
        (status = 200, description = "The operations", body = OperationList),
        (status = 400, description = "The limit is not a number from 1 to 200", body = Problem),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 503, description = "The store cannot be read", body = Problem)
    )
)]
pub async fn operations(
    State(shared): State<Arc<Shared>>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<OperationList>, Refused> {
    let Query(page) = page.map_err(|error| Refused::bad_request(error.body_text()))?;
    let limit = page.limit.unwrap_or(20);
    if !(1..=200).contains(&limit) {
        return Err(Refused::bad_request("limit must be a number from 1 to 200"));
    }
    let summaries = shared.store.operations(limit, None).await.map_err(|error| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", error.to_string())
    })?;
    let running = shared.driver.look(live).await.unwrap_or_default();
    let operations = summaries
        .into_iter()
        .filter_map(|summary| {
            let kept = || serde_json::from_value(summary.report).ok();
            let now = running.iter().find(|body| body.operation_id == summary.id.as_str());
            now.cloned().or_else(kept)
        })
        .collect();
    Ok(Json(OperationList { operations }))
}

/// Operations under way, as they are now.
fn live(core: &Orchestrator, now: &Now) -> Vec<OperationBody> {
    core.activities()
        .filter(|activity| !activity.answered)
        .map(|activity| crate::report::body(activity, None, core.record(), now))
        .collect()
}

/// One operation with all its steps.
#[utoipa::path(
    get, path = "/operations/{id}", tag = "read",
    params(("id" = String, Path, description = "The operation's id")),
    responses(
        (status = 200, description = "The operation, and its journal", body = OperationBody),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 404, description = "There is no such operation", body = Problem),
        (status = 503, description = "The store cannot be read", body = Problem)
    )
)]
pub async fn operation(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let missing = || {
        let detail = format!("there is no operation {}", id.chars().take(60).collect::<String>());
        Refused::new(StatusCode::NOT_FOUND, "unknown-operation", detail)
    };
    let parsed: OperationId = id.parse().map_err(|_| missing())?;
    let found = shared.store.operation(parsed).await.map_err(|error| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", error.to_string())
    })?;
    let (summary, journal) = found.ok_or_else(missing)?;
    let running = shared.driver.look(live).await.unwrap_or_default();
    let mut body = running
        .into_iter()
        .find(|body| body.operation_id == summary.id.as_str())
        .and_then(|body| serde_json::to_value(body).ok())
        .unwrap_or(summary.report);
    if let Some(body) = body.as_object_mut() {
        let journal = serde_json::to_value(journal).unwrap_or_default();
        body.insert("journal".to_owned(), journal);
    }
    Ok(Json(body).into_response())
}

/// Where to.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Where {
    /// The region to judge; the one that is not the writer unless said otherwise.
    target: Option<String>,
}

/// Whether a commanded switch would begin, and what stands in its way.
#[utoipa::path(
    get, path = "/readiness", tag = "read", params(Where),
    responses(
        (status = 200, description = "The findings, worst first", body = CheckBody),
        (status = 400, description = "The query is not what is expected", body = Problem),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 404, description = "There is no such region", body = Problem),
        (status = 503, description = "The record has not been read yet", body = Problem)
    )
)]
pub async fn readiness(
    State(shared): State<Arc<Shared>>,
    asked: Result<Query<Where>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CheckBody>, Refused> {
    let Query(asked) = asked.map_err(|error| Refused::bad_request(error.body_text()))?;
    let target = asked.target.map(|target| region(&target)).transpose()?;
    checked(&shared, target).await.map(Json)
}

/// The steps that a failover to a region would take, without taking any.
#[utoipa::path(
    get, path = "/plan/{region}", tag = "read",
    params(("region" = String, Path, description = "Where the writer would be")),
    responses(
        (status = 200, description = "The steps in order", body = PlanBody),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 404, description = "There is no such region", body = Problem),
        (status = 503, description = "The record has not been read yet", body = Problem)
    )
)]
pub async fn plan(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<PlanBody>, Refused> {
    let target = region(&name)?;
    let check = checked(&shared, Some(target)).await?;
    let steps = shared.driver.look(|core, _| steps(core.plan_of_move())).await;
    let steps = steps.ok_or_else(Refused::not_ready)?;
    Ok(Json(PlanBody { target_region: check.target_region.clone(), check, steps }))
}

fn steps(plan: Vec<(StepKey, &'static str)>) -> Vec<PlanStep> {
    let step = |(key, sentence): (StepKey, &str)| PlanStep {
        step: key.step.id().to_owned(),
        datastore: key.datastore.map(|name| name.to_string()),
        sentence: sentence.to_owned(),
        after: row(key.step).after.iter().map(|step| step.id().to_owned()).collect(),
    };
    plan.into_iter().map(step).collect()
}

/// What a rebuild of a node would do, and whether it would be refused, without doing it.
#[utoipa::path(
    get, path = "/rebuild/{node}/plan", tag = "read",
    params(("node" = String, Path, description = "datastore.region")),
    responses(
        (status = 200, description = "The steps in order", body = RebuildPlanBody),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 404, description = "There is no such node", body = Problem),
        (status = 503, description = "The record has not been read yet", body = Problem)
    )
)]
pub async fn plan_of_rebuild(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<RebuildPlanBody>, Refused> {
    let node: NodeId = name
        .parse()
        .map_err(|error| Refused::new(StatusCode::NOT_FOUND, "unknown-node", format!("{error}")))?;
    let looked = shared.driver.look(move |core, now| {
        let record = core.record().ok_or_else(Refused::not_ready)?;
        let refusal = core.refusal_of_rebuild(now, &node);
        if let Some(refusal) = refusal.as_ref().filter(|refusal| refusal.code == "unknown-node") {
            let detail = refusal.sentence.clone();
            return Err(Refused::new(StatusCode::NOT_FOUND, "unknown-node", detail));
        }
        Ok(Json(RebuildPlanBody {
            source: NodeId::new(node.datastore().clone(), record.writer.clone()).to_string(),
            refusal: refusal
                .map(|refusal| RefusalBody { code: refusal.code, detail: refusal.sentence }),
            disk_free: core.seen().view(&node).and_then(NodeView::disk_free),
            held: record.held.get(&node).cloned(),
            steps: steps(core.plan_of_rebuild(&node)),
            node: node.to_string(),
        }))
    });
    looked.await.unwrap_or_else(|| Err(Refused::not_ready()))
}

fn region(name: &str) -> Result<Region, Refused> {
    name.parse()
        .map_err(|error| Refused::new(StatusCode::NOT_FOUND, "unknown-region", format!("{error}")))
}

fn known(core: &Orchestrator, target: Option<&Region>) -> Result<(), Refused> {
    match target.filter(|target| !core.settings().shape.regions.contains(target)) {
        None => Ok(()),
        Some(target) => {
            let detail = format!("there is no region {target}");
            Err(Refused::new(StatusCode::NOT_FOUND, "unknown-region", detail))
        }
    }
}

/// Check a move, with what the history says of earlier ones.
async fn checked(shared: &Shared, target: Option<Region>) -> Result<CheckBody, Refused> {
    let looked = shared.driver.look(move |core, now| {
        known(core, target.as_ref())?;
        readiness::check(core, now, target).ok_or_else(Refused::not_ready)
    });
    let checked = looked.await.unwrap_or_else(|| Err(Refused::not_ready()))?;
    // Without the history there is no prediction; whether it can work is known all the same.
    let history = shared.store.operations(HISTORY, None).await.unwrap_or_default();
    Ok(checked.body(&shared.readiness, &history))
}

/// How many operations are looked at for measured switches, repairs included.
const HISTORY: u32 = 60;

/// Metrics in the OpenMetrics text form.
#[utoipa::path(
    get, path = "/metrics", tag = "read",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "Reading needs a token here", body = Problem)
    )
)]
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let look = |core: &Orchestrator, now: &Now| {
        let check = readiness::check(core, now, None);
        Snapshot::of(core, now, check)
    };
    let snapshot = shared.driver.look(look).await.flatten();
    shared.metrics.availability.take_in(&shared.availability.body());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text(snapshot.as_ref())).into_response()
}

/// The process answers.
#[utoipa::path(
    get, path = "/health", tag = "read",
    responses((status = 200, description = "It does", body = String))
)]
pub async fn health() -> &'static str {
    "ok\n"
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "read",
    responses((status = 200, description = "OpenAPI 3.1"))
)]
pub async fn openapi() -> Response {
    Json(super::openapi()).into_response()
}
