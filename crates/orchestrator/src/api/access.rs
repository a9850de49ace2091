//! Who may do what.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tier0_config::Secret;
use tier0_wire::tokens_match;

use super::Shared;
use super::problem::Refused;

/// The tokens, and whether reading on loopback needs one.
pub struct Access {
    /// May operate.
    pub operate: Secret,
    /// May operate, and accept loss.
    pub accept_loss: Secret,
    /// Reading needs no token when asked from loopback.
    pub open_reads_on_loopback: bool,
}

/// What a token gives the right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Move the writer, rebuild, expose.
    Operate,
    /// The same, and accept loss.
    AcceptLoss,
}

impl Access {
    /// What the request's token gives the right to; refused without one, or with a wrong one.
    pub fn right(&self, headers: &HeaderMap) -> Result<Right, Refused> {
        let Some(presented) = bearer(headers) else {
            return Err(Refused::unauthorized(
                "this needs a token: send `Authorization: Bearer …` with the operate token",
            ));
        };
        // Both are compared always, so that time does not tell which one was nearly right.
        let accept_loss = tokens_match(presented, &self.accept_loss);
        let operate = tokens_match(presented, &self.operate);
        if accept_loss {
            Ok(Right::AcceptLoss)
        } else if operate {
            Ok(Right::Operate)
        } else {
            Err(Refused::unauthorized("the token is not one of this orchestrator's"))
        }
    }

    /// Demand a right.
    pub fn demand(&self, headers: &HeaderMap, needed: Right) -> Result<(), Refused> {
        let right = self.right(headers)?;
        if right >= needed {
            return Ok(());
        }
        Err(Refused::forbidden(
            "the operate token does not give the right to accept loss: use the accept-loss token",
        ))
    }
}

/// The token that a request carries.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Let a read through, or refuse it.
pub async fn may_read(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    // Another orchestrator passes on what it was asked; it has judged who asks.
    let of_peer = shared.forward.is_of_peer(request.headers());
    let open = of_peer || shared.access.open_reads_on_loopback && from.ip().is_loopback();
    if !open {
        shared.access.right(request.headers())?;
    }
    Ok(next.run(request).await)
}
