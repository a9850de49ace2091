//! What this orchestrator tells the others. Only a role may ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use tier0_core::orchestrator::PeerReport;

use super::Shared;
use super::problem::Refused;

/// What it sees at the moment.
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
