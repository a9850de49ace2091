//! A standby that is frozen while requests keep coming and their clients lose patience: what the
//! service leaves at the servers is bounded, reads go on, and afterwards everything is as before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::moves::{Life, Service, reading, write_config};
use crate::servers::{Lab, connect, free_port};

/// What a server may ever have of one service: for writes, for reads, and for the question what it is.
const MOST_SESSIONS: usize = 8 + 8 + 3;

/// Longer than requests wait for their turn and their insert.
const FROZEN: Duration = Duration::from_secs(7);

const CLIENTS: u32 = 200;

/// How many connections to this port its server has not closed yet, whether or not the service has.
fn at_server(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    const CLOSED_BY_THE_CLIENT: &str = "08";
    let local = format!("0100007F:{port:04X}");
    std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1] == local)
        .filter(|fields| [ESTABLISHED, CLOSED_BY_THE_CLIENT].contains(&fields[3]))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_standby_costs_a_bounded_number_of_sessions() {
    let lab = Lab::new();
    let primary = lab.primary().await;
    let standby = lab.standby(&primary).await;
    let port = free_port();
    let postgres = [primary.port, standby.port];
    let config = write_config(&lab, [port, free_port()], postgres, [free_port(), free_port()]);
    let life = Life::begin(config, "region1");
    let service = Service::at(port).await;
    let (status, answer, _) = service.post(&reading("t1", 0, 1)).await;
    assert_eq!(status, 201, "{answer}");
    let admin = connect(&primary, "app").await;

    standby.freeze();
    let sent = Arc::new(AtomicU64::new(0));
    let answers = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (service, sent, answers) = (service.clone(), Arc::clone(&sent), Arc::clone(&answers));
        clients.spawn(async move {
            for round in 0.. {
                sent.fetch_add(1, Ordering::Relaxed);
                let body = reading(&format!("f{number}-{round}"), 0, 1);
                // Every second client goes away before there is an answer.
                if number % 2 == 0 {
                    let limit = Duration::from_millis(300);
                    let _ = tokio::time::timeout(limit, service.post(&body)).await;
                    continue;
                }
                let (status, answer, _) = service.post(&body).await;
                let answer = format!("{status} {}", answer["outcome"]);
                *answers.lock().unwrap().entry(answer).or_default() += 1;
            }
        });
    }
    let backends = "SELECT count(*), count(*) FILTER (WHERE wait_event = 'SyncRep') \
                    FROM pg_stat_activity WHERE application_name = 'telemetry-api'";
    let (mut most, mut most_waiting, mut most_at_standby) = (0, 0, 0);
    let mut reads = 0;
    let end = Instant::now() + FROZEN;
    while Instant::now() < end {
        let row = admin.query_one(backends, &[]).await.unwrap();
        most = most.max(row.get::<_, i64>(0));
        most_waiting = most_waiting.max(row.get::<_, i64>(1));
        most_at_standby = most_at_standby.max(at_server(standby.port));
        let (status, answer) = service.get("/devices/t1/latest").await;
        assert_eq!((status, &answer["source"]), (200, &json!("local")), "{answer}");
        reads += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    clients.shutdown().await;
    let answers = answers.lock().unwrap().clone();
    println!(
        "{} requests; at the primary at most {most} sessions, {most_waiting} of them waiting; at \
         the standby at most {most_at_standby}; {reads} reads; {answers:?}",
        sent.load(Ordering::Relaxed)
    );
    assert!(most_waiting >= 6, "no insert waited for the standby");
    assert!(most <= MOST_SESSIONS as i64, "{most} sessions at the primary");
    assert!(most_at_standby <= MOST_SESSIONS, "{most_at_standby} connections at the standby");
    assert!(reads > 5);
    assert!(!answers.is_empty());
    assert!(answers.keys().all(|answer| answer.starts_with("503 ")), "{answers:?}");

    standby.thaw();
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, answer, _) = service.post(&reading("t2", 0, 2)).await;
        if status == 201 {
            break;
        }
        assert!(Instant::now() < limit, "{answer}");
    }
    let row = admin.query_one(backends, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) <= MOST_SESSIONS as i64);
    life.end().await;
}
