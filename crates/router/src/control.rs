//! The Unix socket on which the agent tells a route what to do: one line of JSON, one line back. Only
//! the user that the router runs as is answered, and root.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tier0_route::control::{Answer, Ask};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::state::Shared;

/// How long somebody who connected may take.
const SAY: Duration = Duration::from_secs(2);
/// How long a line may be.
const LINE: u64 = 4_096;

/// Listen.
pub fn listen(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("change the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answer whoever connects, for ever.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if may_tell(&stream) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(
                    async move { tokio::time::timeout(SAY, answer(stream, &shared)).await },
                );
            }
            Ok(_) => tracing::warn!("another user wanted to tell the router something"),
            Err(error) => {
                tracing::error!(%error, "nobody can tell the router anything");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The file's mode says the same; but it is set only after the file is there.
fn may_tell(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer(stream: UnixStream, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if !(&mut stream).take(LINE).read_line(&mut line).await.is_ok_and(|read| read > 0) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => obey(shared, ask),
        Err(error) => Answer::Failed { why: error.to_string() },
    };
    if let Ok(mut text) = serde_json::to_string(&answer) {
        text.push('\n');
        // Whoever asked may have gone; it asks again.
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

fn obey(shared: &Shared, ask: Ask) -> Answer {
    if !matches!(ask, Ask::Look | Ask::Lease { .. }) {
        tracing::info!(?ask, "told");
    }
    match ask {
        Ask::Look => {}
        Ask::Hold { hold_ms } => shared.hold(Duration::from_millis(hold_ms)),
        Ask::Point { epoch, to, address } => {
            // A slow disk must not stand in the way of connections.
            return tokio::task::block_in_place(|| shared.point(epoch, to, address));
        }
        Ask::Admit { from } => shared.admit(from),
        Ask::Release => shared.release(),
        Ask::Lease { stamp_us, lasting_ms } => {
            shared.lease.granted(stamp_us, Duration::from_millis(lasting_ms));
        }
    }
    Answer::State(shared.state())
}
