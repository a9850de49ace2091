//! Clients of both stores that write all the time and remember what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::servers::{CLIENT_PASSWORD, REDIS_PASSWORD, Servers};

/// What a writer brings home: the acknowledged numbers and what failed.
type Brought = (Vec<i64>, Vec<String>);

/// Two clients at work.
pub struct Writer {
    stop: Arc<AtomicBool>,
    postgres: JoinHandle<Brought>,
    redis: JoinHandle<Brought>,
}

impl Writer {
    pub fn start(servers: &Servers) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let (one, other) = (stop.clone(), stop.clone());
        let (address, port) = servers.postgres("region1");
        let cache = format!("redis://:{REDIS_PASSWORD}@{}:{}/", address, servers.redis_port());
        Writer {
            stop,
            postgres: std::thread::spawn(move || postgres(&address, port, &one)),
            redis: std::thread::spawn(move || redis_writes(&cache, &other)),
        }
    }

    /// What was acknowledged by PostgreSQL, and what failed in either.
    pub fn stop(self) -> Brought {
        self.stop.store(true, Ordering::Relaxed);
        let (acknowledged, mut failed) = self.postgres.join().unwrap();
        let (cached, more) = self.redis.join().unwrap();
        assert!(cached.len() > 50, "{} writes to Redis", cached.len());
        failed.extend(more);
        (acknowledged, failed)
    }
}

fn postgres(address: &str, port: u16, stop: &AtomicBool) -> Brought {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host(address).port(port).user("shop").password(CLIENT_PASSWORD).dbname("shop");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let (mut acknowledged, mut failed) = (Vec::new(), Vec::new());
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match client.execute("INSERT INTO ledger VALUES ($1)", &[&number]).await {
                Ok(_) => acknowledged.push(number),
                Err(error) => failed.push(format!("PostgreSQL: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (acknowledged, failed)
    })
}

fn redis_writes(url: &str, stop: &AtomicBool) -> Brought {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (mut acknowledged, mut failed) = (Vec::new(), Vec::new());
        for number in 0_i64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let set = redis::cmd("SET").arg(number).arg(1).query_async::<()>(&mut connection).await;
            match set {
                Ok(()) => acknowledged.push(number),
                Err(error) => failed.push(format!("Redis: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (acknowledged, failed)
    })
}
