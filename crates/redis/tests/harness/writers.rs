//! Clients that write through a switch and remember what was acknowledged to them. They follow
//! Sentinel as a well-behaved client does: on any error they ask it anew who is master.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{Lab, MASTER_NAME, connect};

pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Written>>,
}

#[derive(Debug, Default)]
pub struct Written {
    pub keys: Vec<String>,
    pub errors: u32,
    pub longest_gap: Duration,
}

async fn master(sentinel: SocketAddr) -> Option<SocketAddr> {
    let client = redis::Client::open(format!("redis://{sentinel}")).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let (host, port): (String, u16) = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(MASTER_NAME)
        .query_async(&mut connection)
        .await
        .ok()?;
    format!("{host}:{port}").parse().ok()
}

impl Writers {
    pub fn begin(lab: &Lab, count: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|n| {
            let sentinel = lab.sentinels[n % lab.sentinels.len()].address;
            tokio::spawn(write(n, sentinel, Arc::clone(&stop)))
        });
        let tasks = tasks.collect();
        Writers { stop, tasks }
    }

    pub async fn end(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for task in self.tasks {
            let one = task.await.unwrap();
            all.keys.extend(one.keys);
            all.errors += one.errors;
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        all
    }
}

async fn write(n: usize, sentinel: SocketAddr, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let mut connection = None;
    let mut last = Instant::now();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if connection.is_none()
            && let Some(master) = master(sentinel).await
        {
            connection = connect(master).await.ok();
        }
        let Some(open) = &mut connection else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        number += 1;
        let key = format!("w{n}:{number}");
        match redis::cmd("SET").arg(&key).arg(number).query_async::<()>(open).await {
            Ok(()) => {
                written.longest_gap = written.longest_gap.max(last.elapsed());
                last = Instant::now();
                written.keys.push(key);
            }
            Err(_) => {
                written.errors += 1;
                connection = None;
            }
        }
    }
    written
}

/// Which of the acknowledged keys the node does not have.
pub async fn lost(lab: &Lab, at: usize, written: &Written) -> usize {
    let mut connection = connect(lab.address(at)).await.unwrap();
    let mut lost = 0;
    for keys in written.keys.chunks(500) {
        let found: u64 = redis::cmd("EXISTS").arg(keys).query_async(&mut connection).await.unwrap();
        lost += keys.len() - found as usize;
    }
    lost
}
