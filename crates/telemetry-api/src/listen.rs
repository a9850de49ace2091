//! Listening sockets, and ending without cutting requests that have begun.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tier0_listen::listen;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long requests that have begun may take once the service is asked to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A listener on each address, or none at all.
pub(crate) fn bind_all(
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> anyhow::Result<Vec<TcpListener>> {
    use anyhow::Context;
    addresses
        .into_iter()
        .map(|address| listen(address).with_context(|| format!("listen on {address}")))
        .collect()
}

/// Serve on all listeners until `shutdown` is ready; then accept nothing new, finish what has
/// begun, and cut what has not finished after [`DRAIN_LIMIT`].
pub(crate) async fn serve_all(
    listeners: Vec<TcpListener>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (end, ended) = watch::channel(());
    let mut servers = JoinSet::new();
    for listener in listeners {
        let mut ended = ended.clone();
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let server = axum::serve(listener, router.clone()).with_graceful_shutdown(async move {
            // Ready when the sender is dropped.
            while ended.changed().await.is_ok() {}
        });
        servers.spawn(server.into_future());
    }
    shutdown.await;
    drop(end);
    let drained =
        tokio::time::timeout(DRAIN_LIMIT, async { while servers.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(limit = ?DRAIN_LIMIT, "cut requests that did not finish in time");
    }
}
