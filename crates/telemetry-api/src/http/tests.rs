//! Requests and outcomes, with a backend that answers what the test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::router;
use crate::backend::{Backend, Health, Latest, Page, Source, Written};
use crate::listen;
use crate::metrics::Metrics;
use crate::reading::{Batch, DeviceId, Reading};
use crate::selection::{Of, Selection};

struct Fake {
    written: Mutex<Vec<Batch>>,
    answer: Mutex<Written>,
    takes: Duration,
    metrics: Metrics,
}

impl Backend for Fake {
    async fn write(&self, batch: Arc<Batch>) -> Written {
        tokio::time::sleep(self.takes).await;
        self.written.lock().unwrap().push((*batch).clone());
        self.answer.lock().unwrap().clone()
    }

    async fn latest(&self, device: &DeviceId) -> Latest {
        let found = |reading: &Reading| reading.device_id == *device;
        let written = self.written.lock().unwrap();
        match written.iter().flat_map(Batch::readings).find(|reading| found(reading)) {
            Some(reading) => Latest::Found { reading: reading.clone(), source: Source::Local },
            None if device.as_str() == "dark" => Latest::Unavailable { why: "dark".to_owned() },
            None => Latest::Absent,
        }
    }

    async fn select(&self, selection: &Selection) -> Page {
        let written = self.written.lock().unwrap();
        let mut readings: Vec<Reading> =
            written.iter().flat_map(Batch::readings).cloned().collect();
        readings.retain(|one| match &selection.of {
            Of::Device(device) => one.device_id == *device,
            Of::Site(site) => one.site_id == *site,
        });
        readings.retain(|one| (selection.from..selection.to).contains(&one.timestamp_utc));
        readings.sort_by_key(|one| (one.timestamp_utc, one.device_id.clone()));
        if let Some(after) = &selection.after {
            readings.retain(|one| {
                (one.timestamp_utc, &one.device_id) > (after.timestamp_utc, &after.device_id)
            });
        }
        readings.truncate(selection.limit as usize);
        Page::Found { readings, source: Source::Local }
    }

    async fn health(&self) -> Health {
        let region = "region1".parse().unwrap();
        Health { region, postgres: Vec::new(), cache_reachable: false }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

struct Server {
    backend: Arc<Fake>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

fn start(takes: Duration) -> Server {
    let backend = Arc::new(Fake {
        written: Mutex::default(),
        answer: Mutex::new(Written::Stored { new: 1, duplicates: 0 }),
        takes,
        metrics: Metrics::new(),
    });
    let listeners = listen::bind_all(["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let router = router(Arc::clone(&backend));
    let served = tokio::spawn(listen::serve_all(listeners, router, async {
        let _ = stopped.await;
    }));
    Server { backend, address, stop: Some(stop), served }
}

impl Server {
    async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, Value, Option<String>) {
        let url = format!("http://{}/telemetry", self.address);
        let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
        let retry = answer.headers().get("retry-after");
        let retry = retry.map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), answer.json().await.unwrap(), retry)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn valid() -> Value {
    json!({
        "device_id": "turbine-7",
        "device_type": "turbine",
        "site_id": "north",
        "timestamp_utc": "2026-11-23T10:00:00.125Z",
        "metrics": {"rpm": 14.5, "nested": {"list": [1, null, "x"]}},
        "status": {"ok": true},
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut reading = valid();
    reading[field] = value;
    reading
}

fn without(field: &str) -> Value {
    let mut reading = valid();
    reading.as_object_mut().unwrap().remove(field);
    reading
}

#[tokio::test]
async fn every_rejection_names_the_field() {
    let server = start(Duration::ZERO);
    let wrong_times = [
        "2026-11-23",
        "2026-11-23 10:00:00Z",
        "2026-11-23T10:00:00",
        "2026-13-23T10:00:00Z",
        "20261123T100000Z",
        "2026-11-23T10:00:00Z[UTC]",
        "2026-06-30T23:59:60Z",
        "2026-11-23T10:00:00.1234567Z",
        "now",
    ];
    let mut cases: Vec<(Value, &str)> = wrong_times
        .iter()
        .map(|time| (with("timestamp_utc", json!(time)), "timestamp_utc"))
        .collect();
    for field in ["device_id", "device_type", "site_id", "timestamp_utc", "metrics", "status"] {
        cases.push((without(field), field));
        cases.push((with(field, json!(5)), field));
        cases.push((with(field, Value::Null), field));
    }
    for field in ["device_id", "device_type", "site_id"] {
        cases.push((with(field, json!("")), field));
        cases.push((with(field, json!("x".repeat(101))), field));
        cases.push((with(field, json!("a\u{0}b")), field));
        cases.push((with(field, json!("a\nb")), field));
    }
    cases.push((with("metrics", json!({"a": [{"b": "\u{0}"}]})), "metrics"));
    cases.push((with("status", json!({"a\u{0}": 1})), "status"));
    cases.push((with("extra", json!(1)), "extra"));
    cases.push((json!([valid(), with("site_id", json!(""))]), "[1].site_id"));
    cases.push((json!([valid(), 5]), "[1]"));
    for (body, field) in &cases {
        let (status, answer, _) = server.post(body.to_string()).await;
        assert_eq!((status, answer["field"].as_str()), (422, Some(*field)), "{body}: {answer}");
        assert_eq!(answer["outcome"], "rejected");
    }
    assert!(server.backend.written.lock().unwrap().is_empty(), "nothing is stored of a bad batch");
}

#[tokio::test]
async fn bodies_that_are_no_batch_are_refused() {
    let server = start(Duration::ZERO);
    let too_many = Value::from(vec![valid(); 1_001]).to_string();
    for body in ["", "{", "5", "null", "\"x\"", "[]", "{\"device_id\": 1e999}", &too_many] {
        let (status, answer, _) = server.post(body.to_owned()).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["problem"].is_string());
    }
    let (status, _, _) = server.post(" ".repeat(1024 * 1024 + 1)).await;
    assert_eq!(status, 413);
    let (status, answer, _) = server.post(Value::from(vec![valid(); 1_000]).to_string()).await;
    assert_eq!((status, &answer["count"]), (201, &json!(1_000)));
}

#[tokio::test]
async fn every_outcome_has_its_status() {
    let server = start(Duration::ZERO);
    let why = || "because".to_owned();
    let cases = [
        (Written::Stored { new: 2, duplicates: 1 }, 201, "stored", None),
        (Written::NotStored { why: why() }, 503, "not-stored", Some("1")),
        (Written::Unknown { why: why() }, 503, "unknown", Some("1")),
        (Written::Rejected { why: why() }, 422, "rejected", None),
    ];
    for (written, status, outcome, retry) in cases {
        *server.backend.answer.lock().unwrap() = written.clone();
        let (got, answer, got_retry) = server.post(valid().to_string()).await;
        assert_eq!((got, answer["outcome"].as_str()), (status, Some(outcome)), "{written:?}");
        assert_eq!(got_retry.as_deref(), retry, "{written:?}");
    }
    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("telemetry_batches_total{outcome=\"Unknown\"} 1"), "{text}");
    assert!(text.contains("telemetry_readings_stored_total 2"), "{text}");
}

#[tokio::test]
async fn batch_is_ordered_and_kept_whole() {
    let server = start(Duration::ZERO);
    let reading = |device: &str, time: &str| {
        let mut reading = with("device_id", json!(device));
        reading["timestamp_utc"] = json!(time);
        reading
    };
    let body = json!([
        reading("b", "2026-11-23T10:00:00+02:00"),
        reading("a", "2026-11-23T10:00:01Z"),
        reading("a", "2026-11-23T10:00:00Z"),
    ]);
    assert_eq!(server.post(body.to_string()).await.0, 201);
    let written = server.backend.written.lock().unwrap();
    let names: Vec<_> = written[0]
        .readings()
        .iter()
        .map(|one| (one.device_id.as_str(), one.timestamp_utc.to_string()))
        .collect();
    assert_eq!(
        names,
        [
            ("a", "2026-11-23T10:00:00Z".to_owned()),
            ("a", "2026-11-23T10:00:01Z".to_owned()),
            ("b", "2026-11-23T08:00:00Z".to_owned()),
        ]
    );
    assert_eq!(Value::Object(written[0].readings()[0].metrics.clone()), valid()["metrics"]);
}

#[tokio::test]
async fn latest_says_where_it_was_found() {
    let server = start(Duration::ZERO);
    assert_eq!(server.post(valid().to_string()).await.0, 201);
    let (status, text) = server.get("/devices/turbine-7/latest").await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["source"]), (200, &json!("local")));
    assert_eq!(answer["reading"], valid());
    let measured: Timestamp = valid()["timestamp_utc"].as_str().unwrap().parse().unwrap();
    let age = measured.duration_until(Timestamp::now()).as_secs_f64();
    let said = answer["age_seconds"].as_f64().unwrap();
    assert!((age - 60.0..=age).contains(&said), "{said} s, not {age} s");
    assert_eq!(server.get("/devices/nobody/latest").await.0, 404);
    assert_eq!(server.get("/devices/dark/latest").await.0, 503);
    assert_eq!(server.get("/devices/a%00b/latest").await.0, 422);
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn requests_that_have_begun_are_finished() {
    let mut server = start(Duration::from_millis(300));
    let address = server.address;
    let request = {
        let post = reqwest::Client::new().post(format!("http://{address}/telemetry"));
        tokio::spawn(post.body(valid().to_string()).send())
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.take().unwrap().send(()).unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), 201);
    (&mut server.served).await.unwrap();
    assert!(reqwest::get(format!("http://{address}/health")).await.is_err());
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    let server = start(Duration::ZERO);
    let mut sent = Vec::new();
    for second in 0..7 {
        let mut reading = with("device_id", json!(format!("d {}/ä", second % 2)));
        reading["timestamp_utc"] = json!(format!("2026-11-23T10:00:0{}Z", second / 2));
        sent.push(reading);
    }
    assert_eq!(server.post(Value::from(sent.clone()).to_string()).await.0, 201);
    for (first, expected) in [
        ("/sites/north/readings?limit=2", 7),
        ("/devices/d%200%2F%C3%A4/readings?limit=3&from=2026-11-23T10:00:00Z", 4),
        ("/sites/north/readings?limit=3&from=2026-11-23T10:00:01Z&to=2026-11-23T10:00:03Z", 4),
        ("/sites/elsewhere/readings", 0),
    ] {
        let mut found = Vec::new();
        let mut next = Some(first.to_owned());
        while let Some(path) = next {
            let (status, text) = server.get(&path).await;
            assert_eq!(status, 200, "{path}: {text}");
            let page: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(page["source"], "local");
            found.extend(page["readings"].as_array().unwrap().clone());
            next = page["next"].as_str().map(str::to_owned);
        }
        assert_eq!(found.len(), expected, "{first}");
        let mut once = found.clone();
        once.dedup();
        assert_eq!(once.len(), found.len(), "{first}: a reading is there twice");
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_names_the_parameter() {
    let server = start(Duration::ZERO);
    for (path, field) in [
        ("/sites/north/readings?limit=0", "limit"),
        ("/sites/north/readings?limit=1001", "limit"),
        ("/sites/north/readings?limit=x", "limit"),
        ("/sites/north/readings?from=yesterday", "from"),
        ("/sites/north/readings?from=2026-11-23T10:00:01Z&to=2026-11-23T10:00:00Z", "to"),
        ("/sites/north/readings?after=2026-11-23T10:00:01Z", "after"),
        ("/sites/north/readings?after=2026-11-23T10:00:01Z&after_device=", "after_device"),
        ("/devices/a/readings?after_device=b", "after_device"),
        ("/devices/a/readings?colour=red", "colour"),
        ("/devices/a/readings?limit=1&limit=2", "limit"),
        ("/devices/a%00/readings", "device_id"),
        ("/sites/a%0A/readings", "site_id"),
    ] {
        let (status, text) = server.get(path).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, answer["field"].as_str()), (422, Some(field)), "{path}: {text}");
    }
}

#[tokio::test]
async fn the_description_has_every_route() {
    let server = start(Duration::ZERO);
    let (status, text) = server.get("/openapi.json").await;
    assert_eq!(status, 200);
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut described: Vec<&str> =
        description["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    described.sort_unstable();
    let mut routes: Vec<&str> = include_str!("mod.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"'))
        .map(|(path, _)| path)
        .collect();
    routes.sort_unstable();
    assert_eq!(routes, described);
    let fields = description["components"]["schemas"]["Reading"]["required"].as_array().unwrap();
    let valid = valid();
    let mut sent: Vec<&str> = valid.as_object().unwrap().keys().map(String::as_str).collect();
    sent.sort_unstable();
    let mut required: Vec<&str> = fields.iter().map(|field| field.as_str().unwrap()).collect();
    required.sort_unstable();
    assert_eq!(required, sent);
}
