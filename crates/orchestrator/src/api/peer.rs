//! What this orchestrator tells the others. Only a role may ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use tier0_core::orchestrator::PeerReport;
use tier0_wire::Problem;

use super::Shared;
use super::problem::Refused;

/// What it sees at the moment, for another orchestrator.
///
/// A message between roles: it may be another one in the next version.
#[utoipa::path(
    get, path = "/peer", tag = "roles",
    responses(
        (status = 200, description = "What it hears of agents, data servers and the store", body = serde_json::Value),
        (status = 401, description = "Only another orchestrator may ask", body = Problem),
        (status = 503, description = "It is ending", body = Problem)
    )
)]
pub async fn peer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<PeerReport>, Refused> {
    if !shared.forward.is_of_peer(&headers) {
        return Err(Refused::unauthorized("only another orchestrator may ask this"));
    }
    let report = shared.driver.look(|core, now| core.peer_report(now)).await;
    report.map(Json).ok_or_else(Refused::not_ready)
}
