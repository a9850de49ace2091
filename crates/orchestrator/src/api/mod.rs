//! The HTTP API. Reading is open on loopback unless the configuration says otherwise; whatever
//! changes something needs a token with the right to it.

mod access;
mod forward;
mod logs;
mod operate;
mod peer;
mod problem;
mod read;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tier0_core::words::Site;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;

use crate::agents::Agents;
use crate::availability;
use crate::driver::Driver;
use crate::metrics::Metrics;
use crate::readiness::Kept;

pub use access::Access;
pub use forward::Forward;
pub use operate::Begun;

/// What the handlers share.
pub struct Shared {
    /// The site of this orchestrator.
    pub site: Site,
    /// The loop.
    pub driver: Driver,
    /// The agents, for their logs.
    pub agents: Agents,
    /// The store, for the history.
    pub store: tier0_store::StoreHandle,
    /// What is kept of readiness.
    pub readiness: Arc<Kept>,
    /// The account of availability.
    pub availability: Arc<availability::Kept>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Who may do what.
    pub access: Access,
    /// The way to the orchestrator that acts, where that is another one.
    pub forward: Forward,
    /// What was begun at somebody's request.
    pub begun: Begun,
}

/// Longest request body, in bytes: nothing that is asked here needs more.
const BODY_MOST: usize = 64 * 1024;

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let reads = Router::new()
        .route("/status", get(read::status))
        .route("/operations", get(read::operations))
        .route("/operations/{id}", get(read::operation))
        .route("/readiness", get(read::readiness))
        .route("/plan/{region}", get(read::plan))
        .route("/rebuild/{node}/plan", get(read::plan_of_rebuild))
        .route("/availability", get(read::availability))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), forward::forward))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), access::may_read));
    // Each orchestrator's own.
    let own = Router::new()
        .route("/metrics", get(read::metrics))
        .route("/logs", get(logs::logs))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), access::may_read));
    let operations = Router::new()
        .route("/failover/{region}", post(operate::failover))
        .route("/rebuild/{node}", post(operate::rebuild))
        .route("/expose/{datastore}", post(operate::expose))
        .route("/automatic", post(operate::automatic))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), forward::forward));
    Router::new()
        .merge(reads)
        .merge(own)
        .merge(operations)
        .route("/peer", get(peer::peer))
        .route("/health", get(read::health))
        .route("/openapi.json", get(read::openapi))
        .fallback(problem::no_such_page)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MOST))
        .layer(CatchPanicLayer::new())
        .with_state(shared)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tier0 orchestrator",
        description = "Moves the whole data tier of a service from one region to another as one \
                       operation.",
        license(name = "Apache-2.0")
    ),
    paths(
        read::status,
        read::operations,
        read::operation,
        read::readiness,
        read::plan,
        read::plan_of_rebuild,
        read::availability,
        read::metrics,
        logs::logs,
        peer::peer,
        read::health,
        read::openapi,
        operate::failover,
        operate::rebuild,
        operate::expose,
        operate::automatic
    ),
    modifiers(&Bearer, &Problems)
)]
struct Api;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The operate token, or the accept-loss token."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Problems are described with the media type that they have.
struct Problems;

impl utoipa::Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::{RefOr, Schema};
        let of_problem = |schema: &Option<RefOr<Schema>>| match schema {
            Some(RefOr::Ref(to)) => to.ref_location.ends_with("/Problem"),
            Some(RefOr::T(_)) | None => false,
        };
        for path in openapi.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
                for response in operation.responses.responses.values_mut() {
                    let RefOr::T(response) = response else { continue };
                    let is_problem = response.content.get("application/json").is_some_and(
                        |content| matches!(content, RefOr::T(content) if of_problem(&content.schema)),
                    );
                    if is_problem
                        && let Some(content) = response.content.swap_remove("application/json")
                    {
                        response.content.insert("application/problem+json".to_owned(), content);
                    }
                }
            }
        }
    }
}

/// The API's description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    /// Its own routes, as they stand above, are those that the description has.
    #[test]
    fn the_description_has_every_route() {
        let mut routes: Vec<&str> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"'))
            .map(|(path, _)| path)
            .collect();
        routes.sort_unstable();
        let described = super::openapi();
        let mut described: Vec<&str> = described.paths.paths.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(routes, described);
    }

    #[test]
    fn problems_are_described_with_their_media_type() {
        let described = serde_json::to_value(super::openapi()).unwrap();
        let answers = &described["paths"]["/failover/{region}"]["post"]["responses"];
        assert!(answers["409"]["content"]["application/problem+json"].is_object(), "{answers}");
        assert!(answers["200"]["content"]["application/json"].is_object(), "{answers}");
        assert!(answers["500"]["content"]["application/json"].is_object(), "{answers}");
    }
}
