//! A bare Redis master with one replica behind a link that the test can hold and cut.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tier0_lab::ledger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// A server without persistence, and, if it is told so, a replica.
    pub async fn start(directory: &Path, name: &str, master: Option<SocketAddr>) -> Server {
        let address = super::free_address();
        let data = directory.join(name);
        std::fs::create_dir(&data).unwrap();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--repl-diskless-sync-delay", "0", "--dir"])
            .arg(&data)
            .stdout(Stdio::null());
        if let Some(master) = master {
            command.args(["--replicaof", "127.0.0.1", &master.port().to_string()]);
        }
        let server = Server { child: command.spawn().unwrap(), address };
        server.until("PING", |answer| answer == "PONG").await;
        server
    }

    /// Wait until the replica is in step with its master.
    pub async fn until_linked(&self) {
        self.until("INFO replication", |answer| answer.contains("master_link_status:up")).await;
    }

    async fn until(&self, text: &str, wanted: impl Fn(&str) -> bool) {
        for _ in 0..400 {
            if let Ok(answer) = self.ask(text).await
                && wanted(&answer)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} never answered {text} as wanted", self.address);
    }

    /// Send a command; the answer as text.
    pub async fn ask(&self, text: &str) -> anyhow::Result<String> {
        let mut connection =
            ledger::connect_redis(self.address, None, Duration::from_secs(1)).await?;
        let mut words = text.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        Ok(command.query_async(&mut connection).await?)
    }

    /// Kill it, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It carries data.
    Open,
    /// It carries nothing.
    Held,
    /// It is gone, with what was held.
    Cut,
}

/// A link to a server.
pub struct Link {
    /// Where it can be entered.
    pub entrance: SocketAddr,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// An open link to `server`.
    pub async fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entrance = listener.local_addr().unwrap();
        let (state, states) = watch::channel(LinkState::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *states.borrow() != LinkState::Cut
                    && let Ok(server) = TcpStream::connect(server).await
                {
                    tokio::spawn(carry(client, server, states.clone()));
                }
            }
        });
        Link { entrance, state }
    }

    /// Hold, cut or open it.
    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }
}

async fn carry(client: TcpStream, server: TcpStream, states: watch::Receiver<LinkState>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut cut = states.clone();
    tokio::select! {
        _ = cut.wait_for(|state| *state == LinkState::Cut) => {}
        () = copy(client_read, server_write, states.clone()) => {}
        () = copy(server_read, client_write, states) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut states: watch::Receiver<LinkState>,
) {
    let mut buffer = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if states.wait_for(|state| *state == LinkState::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
