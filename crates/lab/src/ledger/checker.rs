//! Reading everything back from the current writer with plain clients, and naming what is missing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;

use super::finder::{Finder, Wanted};
use super::postgres::Session;
use super::report::{CheckReport, PathCheck};
use super::targets::{PostgresTarget, RedisTarget, Targets};
use super::writer_redis::key;
use super::{WritePath, WriterLedger, redis_client};

const FIND: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(60);
const BATCH: usize = 500;
const COUNT_ENTRIES: &str =
    "SELECT writer, sequence, count(*) FROM ledger_entry WHERE writer = ANY($1) GROUP BY 1, 2";

const COUNT_READINGS: &str = "SELECT (metrics->>'sequence')::bigint, count(*) \
     FROM device_telemetry WHERE left(device_id, length($1)) = $1 GROUP BY 1";

/// Check the ledger in `directory` against the stores.
pub async fn check(directory: &Path, targets: &Targets) -> Result<CheckReport> {
    let mut groups: BTreeMap<(WritePath, String), Vec<WriterLedger>> = BTreeMap::new();
    for ledger in super::read_directory(directory)? {
        let group = (ledger.header.path, ledger.header.datastore.clone());
        groups.entry(group).or_default().push(ledger);
    }
    let mut report = CheckReport::default();
    for ((path, datastore), ledgers) in groups {
        let check = match path {
            WritePath::Postgres | WritePath::Routed | WritePath::Proxied => {
                check_postgres(targets.find_postgres(&datastore)?, path, &ledgers).await
            }
            WritePath::Http => check_http(targets.find_postgres(&datastore)?, &ledgers).await,
            WritePath::Redis | WritePath::RedisWait | WritePath::RedisProxied => {
                check_redis(targets.find_redis(&datastore)?, path, &ledgers).await
            }
        };
        report.paths.push(check.with_context(|| format!("read {datastore} back"))?);
    }
    Ok(report)
}

async fn find(wanted: Wanted) -> Result<std::net::SocketAddr> {
    let finder = Finder::start(wanted);
    let found = tokio::time::timeout(FIND, finder.after(0)).await;
    Ok(found.context("no server takes writes")?.context("the search ended")?.address)
}

async fn check_postgres(
    target: &PostgresTarget,
    path: WritePath,
    ledgers: &[WriterLedger],
) -> Result<PathCheck> {
    let address = find(Wanted::Postgres(target.clone())).await?;
    let (session, _) = Session::connect(target, address, CONNECT).await?;
    let writers: Vec<&str> = ledgers.iter().map(|one| one.header.writer.as_str()).collect();
    let count = async { session.client.query(COUNT_ENTRIES, &[&writers]).await };
    let rows = tokio::time::timeout(READ, count).await.context("no answer")??;
    let mut there: HashMap<String, HashMap<i64, i64>> = HashMap::new();
    for row in rows {
        there.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    let mut tally = Tally::new(path, &target.name, address.to_string());
    for ledger in ledgers {
        let writer = &ledger.header.writer;
        let none = HashMap::new();
        let rows = there.get(writer).unwrap_or(&none);
        tally.writer(ledger, |sequence| rows.get(&sequence).copied().unwrap_or(0));
    }
    Ok(tally.check)
}

/// Readings that came over HTTP, counted by the number that each carries: a reading that is stored
/// twice under two times would be found too.
async fn check_http(target: &PostgresTarget, ledgers: &[WriterLedger]) -> Result<PathCheck> {
    let address = find(Wanted::Postgres(target.clone())).await?;
    let (session, _) = Session::connect(target, address, CONNECT).await?;
    let mut tally = Tally::new(WritePath::Http, &target.name, address.to_string());
    for ledger in ledgers {
        let count = async { session.client.query(COUNT_READINGS, &[&ledger.header.writer]).await };
        let rows = tokio::time::timeout(READ, count).await.context("no answer")??;
        let there: HashMap<i64, i64> =
            rows.into_iter().map(|row| (row.get(0), row.get(1))).collect();
        tally.writer(ledger, |sequence| there.get(&sequence).copied().unwrap_or(0));
    }
    Ok(tally.check)
}

async fn check_redis(
    target: &RedisTarget,
    path: WritePath,
    ledgers: &[WriterLedger],
) -> Result<PathCheck> {
    let address = find(Wanted::Redis(target.clone())).await?;
    let mut connection = redis_client::connect(address, target.password.as_ref(), CONNECT).await?;
    let mut tally = Tally::new(path, &target.name, address.to_string());
    for ledger in ledgers {
        let sequences: Vec<i64> =
            ledger.acknowledged.iter().chain(&ledger.unknown).map(|entry| entry.sequence).collect();
        let there = read_keys(&mut connection, &ledger.header.writer, &sequences).await?;
        tally.writer(ledger, |sequence| i64::from(there.contains(&sequence)));
    }
    for server in &target.servers {
        // A server that is down has no counter; what it evicted is missing or is not.
        if let Ok(mut one) = redis_client::connect(*server, target.password.as_ref(), CONNECT).await
        {
            tally.check.evicted += evicted(&mut one).await?;
        }
    }
    Ok(tally.check)
}

async fn read_keys(
    connection: &mut MultiplexedConnection,
    writer: &str,
    sequences: &[i64],
) -> Result<std::collections::HashSet<i64>> {
    let mut there = std::collections::HashSet::new();
    for batch in sequences.chunks(BATCH) {
        let keys: Vec<String> = batch.iter().map(|sequence| key(writer, *sequence)).collect();
        let mut command = redis::cmd("MGET");
        command.arg(&keys);
        let answer = command.query_async::<Vec<Option<String>>>(connection);
        let values = tokio::time::timeout(READ, answer).await.context("no answer")??;
        for ((sequence, key), value) in batch.iter().zip(&keys).zip(values) {
            if value.as_ref() == Some(key) {
                there.insert(*sequence);
            }
        }
    }
    Ok(there)
}

async fn evicted(connection: &mut MultiplexedConnection) -> Result<u64> {
    let mut command = redis::cmd("INFO");
    command.arg("stats");
    let answer = command.query_async::<String>(connection);
    let text = tokio::time::timeout(CONNECT, answer).await.context("no answer")??;
    let line = text.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
    line.context("Redis does not count evicted keys")?.trim().parse().context("evicted_keys")
}

struct Tally {
    check: PathCheck,
}

impl Tally {
    fn new(path: WritePath, datastore: &str, read_from: String) -> Tally {
        Tally {
            check: PathCheck {
                path,
                datastore: datastore.to_owned(),
                read_from,
                checked: 0,
                missing: Vec::new(),
                unknown_found: 0,
                unknown_absent: 0,
                duplicates: Vec::new(),
                evicted: 0,
            },
        }
    }

    fn writer(&mut self, ledger: &WriterLedger, count: impl Fn(i64) -> i64) {
        let id = |sequence: i64| format!("{}:{sequence}", ledger.header.writer);
        for entry in &ledger.acknowledged {
            self.check.checked += 1;
            if count(entry.sequence) == 0 {
                self.check.missing.push(id(entry.sequence));
            }
        }
        for entry in &ledger.unknown {
            match count(entry.sequence) {
                0 => self.check.unknown_absent += 1,
                _ => self.check.unknown_found += 1,
            }
        }
        for entry in ledger.acknowledged.iter().chain(&ledger.unknown) {
            if count(entry.sequence) > 1 {
                self.check.duplicates.push(id(entry.sequence));
            }
        }
    }
}
