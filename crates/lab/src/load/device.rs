//! Devices: which readings a request carries, and what a device does with each answer.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::notes::Note;
use super::{HttpCounters, HttpPlan, Stop};
use crate::ledger::Entry;

/// Longer than the backend takes to say that it does not know.
const ANSWER: Duration = Duration::from_secs(7);
/// A region that vanished answers nothing, not even a refusal.
const CONNECT: Duration = Duration::from_millis(500);
/// Before the other backend is asked, where one did not answer.
const PAUSE: Duration = Duration::from_millis(20);
/// Where a 503 does not say how long to wait.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);

/// All devices, and what they measure.
#[derive(Debug)]
pub struct Fleet {
    run: String,
    devices: u64,
    sites: u64,
    batch: u64,
    began: Timestamp,
}

impl Fleet {
    /// The devices of a run that begins now.
    pub fn new(run: String, plan: &HttpPlan, began: Timestamp) -> Fleet {
        Fleet {
            run,
            devices: plan.devices as u64,
            sites: plan.sites as u64,
            batch: plan.batch as u64,
            began,
        }
    }

    /// The sequence numbers of a request's readings.
    pub fn sequences(&self, request: u64) -> std::ops::Range<u64> {
        request * self.batch..(request + 1) * self.batch
    }

    /// The site of a request's first reading.
    fn site(&self, request: u64) -> u64 {
        self.sequences(request).start % self.devices % self.sites
    }

    /// The body of a request: readings of different turbines, all measured when they were due.
    pub fn body(&self, request: u64, due: Duration) -> String {
        let at = self.began + jiff::SignedDuration::from_micros(due.as_micros() as i64);
        let mut body = String::with_capacity(self.batch as usize * 260);
        body.push('[');
        for sequence in self.sequences(request) {
            if !body.ends_with('[') {
                body.push(',');
            }
            let device = sequence % self.devices;
            let power = 800 + sequence * 7 % 2_200;
            // Writing to a string cannot fail.
            let _ = write!(
                body,
                "{{\"device_id\":\"{run}-{device:05}\",\"device_type\":\"turbine\",\
                 \"site_id\":\"{run}-site-{site:03}\",\"timestamp_utc\":\"{at:.6}\",\
                 \"metrics\":{{\"sequence\":{sequence},\"power_kw\":{power},\"wind_ms\":{wind}.5,\
                 \"rotor_rpm\":{rotor}.25}},\"status\":{{\"state\":\"running\",\"alarms\":0}}}}",
                run = self.run,
                site = device % self.sites,
                wind = 4 + sequence % 18,
                rotor = 8 + sequence % 9,
            );
        }
        body.push(']');
        body
    }
}

/// The way to the backends.
#[derive(Debug)]
pub struct Sender {
    fleet: Fleet,
    urls: Vec<String>,
    client: reqwest::Client,
    patience: Duration,
    counters: Arc<HttpCounters>,
    notes: mpsc::UnboundedSender<Note>,
    start: Instant,
}

/// What a device does next.
enum Next {
    /// It has an acknowledgement.
    Done,
    /// The same backend again, after this time.
    Wait(Duration),
    /// Another backend.
    Elsewhere,
}

impl Sender {
    /// Devices that send to these backends.
    pub fn new(
        fleet: Fleet,
        backends: &[SocketAddr],
        patience: Duration,
        counters: Arc<HttpCounters>,
        notes: mpsc::UnboundedSender<Note>,
        start: Instant,
    ) -> Result<Sender> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .context("HTTP client")?;
        let urls = backends.iter().map(|one| format!("http://{one}/telemetry")).collect();
        Ok(Sender { fleet, urls, client, patience, counters, notes, start })
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<HttpCounters> {
        &self.counters
    }

    /// How long the run is.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Send a request until it is acknowledged, patience ends, or everything does.
    pub async fn send(&self, request: u64, due: Duration, mut end: watch::Receiver<Stop>) {
        let body = self.fleet.body(request, due);
        let mut backend = self.fleet.site(request) as usize;
        let deadline = Instant::now() + self.patience;
        loop {
            let url = &self.urls[backend % self.urls.len()];
            let next = tokio::select! {
                // An answer that is there counts.
                biased;
                next = self.once(url, body.clone()) => next,
                _ = end.wait_for(|end| *end == Stop::All) => break,
            };
            let pause = match next {
                Next::Done => {
                    let at = self.start.elapsed();
                    self.note(request, due, at, Note::Acknowledged);
                    let count = self.fleet.batch;
                    self.counters.acknowledged.fetch_add(count, Ordering::Relaxed);
                    return;
                }
                Next::Wait(pause) => pause,
                Next::Elsewhere => {
                    backend += 1;
                    PAUSE
                }
            };
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = end.wait_for(|end| *end == Stop::All) => break,
            }
        }
        self.counters.given_up.fetch_add(self.fleet.batch, Ordering::Relaxed);
        self.note(request, due, self.start.elapsed(), Note::Unknown);
    }

    async fn once(&self, url: &str, body: String) -> Next {
        let sent = self.client.post(url).header("Content-Type", "application/json").body(body);
        let answer = match sent.send().await {
            Ok(answer) => answer,
            Err(_) => {
                self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
                return Next::Elsewhere;
            }
        };
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .map_or(AFTER_REFUSAL, Duration::from_secs);
        let Ok(text) = answer.text().await else {
            self.counters.unanswered.fetch_add(1, Ordering::Relaxed);
            return Next::Elsewhere;
        };
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let outcome = said.get("outcome").and_then(Value::as_str);
        let counter = match (status, outcome) {
            (StatusCode::CREATED, Some("stored")) => return Next::Done,
            (StatusCode::SERVICE_UNAVAILABLE, Some("not-stored")) => &self.counters.refused,
            (StatusCode::SERVICE_UNAVAILABLE, Some("unknown")) => &self.counters.doubted,
            _ => {
                // The receiver lives as long as this does.
                let _ = self.notes.send(Note::Unexpected(format!("{status}: {text}")));
                &self.counters.unexpected
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Next::Wait(retry_after)
    }

    fn note(&self, request: u64, due: Duration, at: Duration, note: impl Fn(Entry) -> Note) {
        for sequence in self.fleet.sequences(request) {
            let entry = Entry { sequence: sequence as i64, due, at };
            // The receiver lives as long as this does.
            let _ = self.notes.send(note(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_valid_readings_of_different_devices_and_no_reading_comes_twice() {
        let plan =
            HttpPlan { devices: 50, sites: 7, batch: 20, ..HttpPlan::moderate("/nowhere".into()) };
        let fleet = Fleet::new("run".to_owned(), &plan, "2026-11-23T10:00:00Z".parse().unwrap());
        let mut names = std::collections::BTreeSet::new();
        for request in 0..10 {
            let due = Duration::from_millis(request * 20);
            let body: Value = serde_json::from_str(&fleet.body(request, due)).unwrap();
            let readings = body.as_array().unwrap();
            assert_eq!(readings.len(), 20);
            for (reading, sequence) in readings.iter().zip(fleet.sequences(request)) {
                assert_eq!(reading["metrics"]["sequence"], sequence);
                let name = (reading["device_id"].to_string(), reading["timestamp_utc"].to_string());
                assert!(names.insert(name), "{reading} comes twice");
            }
        }
        assert!(fleet.body(1, Duration::from_millis(20)).contains("2026-11-23T10:00:00.020000Z"));
    }
}
