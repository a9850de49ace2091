//! The lines of all roles side by side, those of an operation or all that are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tier0_core::words::OperationId;
use tier0_wire::{LogLine, LogsBody, Problem};
use utoipa::IntoParams;

use super::Shared;
use super::problem::Refused;
use crate::driver::wall;

/// What belongs to an operation though it was logged before it was accepted: what led to it.
const BEFORE_MS: i64 = 2_000;
/// And after it ended: what it set going.
const AFTER_MS: i64 = 3_000;

/// Which lines.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The operation around which they were logged; all that are kept unless said otherwise.
    operation: Option<String>,
    /// The `after` of an earlier answer: only what came later.
    after: Option<String>,
}

/// What all roles have logged, oldest first.
///
/// Each role keeps its newest lines in memory. Those of an operation are the ones from two seconds
/// before it was accepted to three seconds after it ended.
#[utoipa::path(
    get, path = "/logs", tag = "read", params(Which),
    responses(
        (status = 200, description = "The lines", body = LogsBody),
        (status = 400, description = "The query is not what is expected", body = Problem),
        (status = 401, description = "Reading needs a token here", body = Problem),
        (status = 404, description = "There is no such operation", body = Problem),
        (status = 503, description = "The store cannot be read", body = Problem)
    )
)]
pub async fn logs(
    State(shared): State<Arc<Shared>>,
    asked: Result<Query<Which>, QueryRejection>,
) -> Result<Json<LogsBody>, Refused> {
    let Query(asked) = asked.map_err(|error| Refused::bad_request(error.body_text()))?;
    let mut after = cursor(asked.after.as_deref().unwrap_or_default())?;
    let span = match &asked.operation {
        Some(id) => Some(span(&shared, id).await?),
        None => None,
    };
    let here = format!("orchestrator.{}", shared.site);
    let mut body = LogsBody::default();
    let mut lines = tier0_logbook::lines_after(number(&after, &here), &here);
    for (region, ahead) in offsets(&shared).await {
        let role = format!("agent.{region}");
        match shared.agents.logs(&region, number(&after, &role)).await {
            Ok(theirs) => lines.extend(
                theirs.into_iter().map(|line| LogLine { at_ms: line.at_ms - ahead, ..line }),
            ),
            Err(why) => {
                body.silent.insert(role, why);
            }
        }
    }
    for line in &lines {
        let known = after.entry(line.role.clone()).or_default();
        *known = line.number.max(*known);
    }
    if let Some((from, to)) = span {
        lines.retain(|line| line.at_ms >= from && to.is_none_or(|to| line.at_ms <= to));
        body.ended = to.is_some_and(|to| wall().0 > to);
    }
    lines.sort_by_key(|line| (line.at_ms, line.number));
    body.lines = lines;
    let parts: Vec<String> =
        after.iter().map(|(role, number)| format!("{role}:{number}")).collect();
    body.after = parts.join(",");
    Ok(Json(body))
}

/// The newest number of each role.
type Cursor = BTreeMap<String, u64>;

fn number(cursor: &Cursor, role: &str) -> u64 {
    cursor.get(role).copied().unwrap_or(0)
}

fn cursor(text: &str) -> Result<Cursor, Refused> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (role, number) = part.split_once(':')?;
            Some((role.to_owned(), number.parse().ok()?))
        })
        .collect::<Option<Cursor>>()
        .ok_or_else(|| Refused::bad_request("after must be what an earlier answer said"))
}

/// From when to when the lines of an operation were logged; no end while it runs.
async fn span(shared: &Shared, id: &str) -> Result<(i64, Option<i64>), Refused> {
    let missing = || {
        let detail = format!("there is no operation {}", id.chars().take(60).collect::<String>());
        Refused::new(StatusCode::NOT_FOUND, "unknown-operation", detail)
    };
    let parsed: OperationId = id.parse().map_err(|_| missing())?;
    let found = shared.store.operation(parsed).await.map_err(|error| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", error.to_string())
    })?;
    let (summary, _) = found.ok_or_else(missing)?;
    let end = summary.finished.map(|finished| finished.0 + AFTER_MS);
    Ok((summary.accepted.0 - BEFORE_MS, end))
}

/// Each agent's region, and by how many milliseconds its clock is ahead of this one.
async fn offsets(shared: &Shared) -> Vec<(tier0_core::words::Region, i64)> {
    let known = shared.driver.look(|core, _| {
        let regions = core.seen().regions.iter();
        regions
            .filter_map(|(region, seen)| Some((region.clone(), seen.clock_ahead_ms?)))
            .collect::<BTreeMap<_, _>>()
    });
    let known = known.await.unwrap_or_default();
    let ahead = |region| known.get(region).copied().unwrap_or(0);
    shared.agents.regions().map(|region| (region.clone(), ahead(region))).collect()
}
