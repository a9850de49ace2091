//! The account of availability as it is kept: probes are fetched from the agents, what was under way
//! is named as the cause, and everything goes into a file beside the journal, so that a restart of
//! the orchestrator costs what nobody knew meanwhile and nothing else.
//!
//! What the probes say together is the core's arithmetic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tier0_core::availability::{
    Account, Cause, Done, SLOT_MS, WayAccount, Window, YEAR_MS, available_in_a_year, percent,
};
use tier0_core::record::Protection;
use tier0_core::words::{Region, WallMillis};
use tier0_store::{OperationResult, OperationSummary, StoreHandle};
use tier0_wire::{AvailabilityBody, AvailabilityBrief, ProbesAnswer, WayBody, WindowBody};

use crate::agents::Agents;
use crate::driver::{Driver, wall};
use crate::report::timestamp;

/// How often probes are fetched.
const FETCHED_EVERY: Duration = Duration::from_millis(500);
/// How often the file is written.
const WRITTEN_EVERY: Duration = Duration::from_secs(10);
/// Operations among which a cause is looked for.
const OPERATIONS: u32 = 40;
/// A window ends with the probe that was *due* first of those that were served; the operation that
/// served it may have begun so much later.
const PATIENCE_MS: i64 = 1_000;
/// Windows of each way that are shown.
const SHOWN: usize = 50;
/// By how much a prober's clock may seem to have moved before it is believed.
const DRIFT_MS: i64 = 50;

/// The version of the file's form.
const VERSION: u32 = 1;
const NAME: &str = "availability.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    version: u32,
    account: Account,
}

/// The account.
pub struct Kept {
    account: Mutex<Account>,
    objective_ms: AtomicU64,
    file: PathBuf,
}

/// How far one region's probes have been fetched.
#[derive(Default)]
struct Fetched {
    run: String,
    number: u64,
    /// From that run's time to the wall clock.
    offset: Option<i64>,
}

impl Kept {
    /// Take the account up from the file, or begin one, and keep it until the process ends.
    pub fn start(
        driver: &Driver,
        agents: &Agents,
        store: &StoreHandle,
        directory: &Path,
        objective_ms: u64,
    ) -> Arc<Kept> {
        let file = directory.join(NAME);
        let account = match read(&file) {
            Ok(Some(account)) => account,
            Ok(None) => Account::begin(wall().0),
            Err(error) => {
                // What it said is kept for people; nothing else rests on it.
                let aside = file.with_extension("json.unusable");
                tracing::warn!(
                    "the account of availability begins anew: {error:#}; the old one is {}",
                    aside.display()
                );
                let _ = std::fs::rename(&file, &aside);
                Account::begin(wall().0)
            }
        };
        let kept = Arc::new(Kept {
            account: Mutex::new(account),
            objective_ms: AtomicU64::new(objective_ms),
            file,
        });
        let keeping = Arc::clone(&kept);
        let (driver, agents, store) = (driver.clone(), agents.clone(), store.clone());
        tokio::spawn(async move { keeping.keep(&driver, &agents, &store).await });
        kept
    }

    /// From now on this is how long a year's downtime may be.
    pub fn objective(&self, milliseconds: u64) {
        self.objective_ms.store(milliseconds, Ordering::Relaxed);
    }

    async fn keep(&self, driver: &Driver, agents: &Agents, store: &StoreHandle) {
        let mut fetched: BTreeMap<Region, Fetched> =
            agents.regions().map(|region| (region.clone(), Fetched::default())).collect();
        let mut looked = Instant::now();
        let mut written = Instant::now();
        loop {
            tokio::time::sleep(FETCHED_EVERY).await;
            let mut asking = tokio::task::JoinSet::new();
            for (region, so_far) in &fetched {
                let (agents, region) = (agents.clone(), region.clone());
                let (run, number) = (so_far.run.clone(), so_far.number);
                asking.spawn(async move {
                    let answer = agents.probes(&region, &run, number).await;
                    (region, answer)
                });
            }
            while let Some(Ok((region, answer))) = asking.join_next().await {
                if let (Some(so_far), Ok(answer)) = (fetched.get_mut(&region), answer) {
                    self.take(so_far, &answer);
                }
            }
            let protection = driver.look(|core, now| core.protection(now)).await.flatten();
            self.add_exposed(protection.as_ref(), looked.elapsed());
            looked = Instant::now();
            let now = wall().0;
            let before = self.windows();
            self.lock().advance(now);
            // A window is known from here on, also if this process is killed now.
            let mut news = self.windows() != before;
            let wanted = self.lock().wants_causes(now);
            if wanted && let Ok(operations) = store.operations(OPERATIONS, None).await {
                self.explain(&operations, now);
                news |= !self.lock().wants_causes(now);
            }
            if news || written.elapsed() >= WRITTEN_EVERY {
                self.write();
                written = Instant::now();
            }
        }
    }

    fn take(&self, so_far: &mut Fetched, answer: &ProbesAnswer) {
        if so_far.run != answer.run {
            *so_far = Fetched { run: answer.run.clone(), ..Fetched::default() };
        }
        let offset = wall().0 - answer.now_ms;
        let known = so_far.offset.filter(|known| (known - offset).abs() < DRIFT_MS);
        let offset = *so_far.offset.insert(known.unwrap_or(offset));
        let mut account = self.lock();
        for probe in &answer.probes {
            so_far.number = so_far.number.max(probe.number);
            account.take(&probe.way, probe.due_ms + offset, probe.probed);
        }
    }

    fn add_exposed(&self, protection: Option<&Protection>, elapsed: Duration) {
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(0);
        let mut account = self.lock();
        match protection {
            Some(Protection::Exposed { .. }) => account.exposed_ms += elapsed,
            Some(Protection::AtRisk { .. }) => account.at_risk_ms += elapsed,
            Some(Protection::Protected | Protection::BestEffort) | None => {}
        }
    }

    /// What moved the writer explains most; repairs come after.
    fn explain(&self, operations: &[OperationSummary], now: i64) {
        // A refusal, or a move that was held back, did nothing.
        let done = operations.iter().filter(|one| one.result != OperationResult::Refused);
        let (moves, repairs): (Vec<_>, Vec<_>) =
            done.partition(|operation| operation.kind.moves_writer());
        let mut account = self.lock();
        for operation in moves.into_iter().chain(repairs) {
            account.explain(&Done {
                id: operation.id.clone(),
                kind: operation.kind.to_string(),
                from_ms: operation.accepted.0 - PATIENCE_MS,
                to_ms: operation.finished.map_or(now, |finished| finished.0),
            });
        }
    }

    /// Write the file. One that cannot be written is logged; the next attempt may succeed.
    pub fn write(&self) {
        let in_file = InFile { version: VERSION, account: self.lock().clone() };
        let written = (|| {
            let text = serde_json::to_vec(&in_file)?;
            let new = self.file.with_extension("json.new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, &self.file)
        })();
        if let Err(error) = written {
            tracing::warn!(%error, "the account of availability was not written");
        }
    }

    /// How many windows there were, and how many have not ended.
    fn windows(&self) -> (u64, usize) {
        let account = self.lock();
        let open = account.ways().iter().filter(|way| way.down_since_ms().is_some()).count();
        (account.ways().iter().map(|way| way.windows_total).sum(), open)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        // What is in there is whole after every line above.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The short form, for `/status`.
    pub fn brief(&self) -> AvailabilityBrief {
        self.brief_of(&self.lock())
    }

    fn brief_of(&self, account: &Account) -> AvailabilityBrief {
        let objective = self.objective_ms.load(Ordering::Relaxed);
        let down = account.down_in_a_year_ms(wall().0);
        let left = i128::from(objective) - i128::from(down);
        AvailabilityBrief {
            since: timestamp(WallMillis(account.since_ms)),
            objective_ms_a_year: objective,
            down_in_a_year_ms: down,
            budget_left_ms: i64::try_from(left).unwrap_or(i64::MIN),
            down_now: account.ways().iter().any(|way| way.down_since_ms().is_some()),
        }
    }

    /// Everything, for `/availability`.
    pub fn body(&self) -> AvailabilityBody {
        let account = self.lock();
        let brief = self.brief_of(&account);
        AvailabilityBody {
            since: brief.since,
            objective_ms_a_year: brief.objective_ms_a_year,
            objective_percent: percent(available_in_a_year(brief.objective_ms_a_year.min(YEAR_MS))),
            down_in_a_year_ms: brief.down_in_a_year_ms,
            budget_left_ms: brief.budget_left_ms,
            down_now: brief.down_now,
            exposed_ms: account.exposed_ms,
            at_risk_ms: account.at_risk_ms,
            resolution_ms: SLOT_MS as u64,
            ways: account.ways().iter().map(way_body).collect(),
        }
    }
}

fn way_body(way: &WayAccount) -> WayBody {
    let milliseconds = |slots: u64| slots * SLOT_MS as u64;
    WayBody {
        way: way.way.to_string(),
        datastore: way.way.datastore.to_string(),
        route: way.way.route.as_ref().map(ToString::to_string),
        access: way.way.access.word().to_owned(),
        served_ms: milliseconds(way.served),
        held_ms: milliseconds(way.held),
        failed_ms: milliseconds(way.failed),
        unknown_ms: milliseconds(way.unknown),
        longest_held_ms: u64::from(way.longest_held_ms),
        errors: way.errors,
        down_ms: way.down_ms,
        down_since: way.down_since_ms().map(|since| timestamp(WallMillis(since))),
        windows_total: way.windows_total,
        available_percent: way.available_billionths().map(percent),
        windows: way.windows.iter().rev().take(SHOWN).map(window_body).collect(),
    }
}

fn window_body(window: &Window) -> WindowBody {
    let (operation_id, kind) = match &window.cause {
        Cause::Unexplained => (None, None),
        Cause::Operation { id, kind } => (Some(id.to_string()), Some(kind.clone())),
    };
    WindowBody {
        from: timestamp(WallMillis(window.from_ms)),
        to: timestamp(WallMillis(window.to_ms)),
        milliseconds: window.length_ms(),
        operation_id,
        kind,
    }
}

fn read(file: &Path) -> anyhow::Result<Option<Account>> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let value: serde_json::Value = serde_json::from_slice(&text).context("it is not JSON")?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        bail!("it has another version than {VERSION}, which this build knows");
    }
    let in_file: InFile = serde_json::from_value(value).context("it is damaged")?;
    Ok(Some(in_file.account))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(directory: &Path) -> Kept {
        let file = directory.join(NAME);
        let account = read(&file).unwrap().unwrap_or_else(|| Account::begin(1_000));
        Kept { account: Mutex::new(account), objective_ms: AtomicU64::new(3_156), file }
    }

    fn probes(run: &str, now_ms: i64, due: std::ops::Range<i64>) -> ProbesAnswer {
        let probe = |slot: i64| {
            serde_json::json!({
                "number": slot, "way": {"datastore": "main", "route": null, "access": "write"},
                "due_ms": slot * 100, "probed": {"outcome": "served", "held_ms": 3},
            })
        };
        let probes: Vec<_> = due.map(probe).collect();
        let answer = serde_json::json!({"run": run, "now_ms": now_ms, "probes": probes});
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn it_survives_a_restart_and_a_file_that_cannot_be_used_is_an_error() {
        let directory = std::env::temp_dir().join(format!("tier0-account-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let first = kept(&directory);
        let mut so_far = Fetched::default();
        first.take(&mut so_far, &probes("a", 5_000, 1..50));
        assert_eq!(so_far.number, 49);
        first.lock().advance(wall().0 + 10_000);
        let served = first.body().ways[0].served_ms;
        assert!((4_800..=5_000).contains(&served), "{served}");
        first.write();
        let second = kept(&directory);
        assert_eq!(second.body().ways[0].served_ms, served);
        assert_eq!(second.body().since, first.body().since);
        for unusable in ["{\"version\": 2}", "{", "{\"version\": 1, \"account\": 3}"] {
            std::fs::write(&second.file, unusable).unwrap();
            assert!(read(&second.file).is_err(), "{unusable}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_run_of_a_prober_keeps_its_offset_and_another_run_begins_anew() {
        let directory = std::env::temp_dir().join(format!("tier0-offset-{}", std::process::id()));
        let kept = kept(&directory);
        let mut so_far = Fetched::default();
        kept.take(&mut so_far, &probes("a", 5_000, 1..3));
        let first = so_far.offset;
        // The answer came twenty milliseconds later than usual: the clock did not move.
        kept.take(&mut so_far, &probes("a", 4_980, 3..5));
        assert_eq!(so_far.offset, first);
        kept.take(&mut so_far, &probes("b", 100, 1..2));
        assert_eq!((so_far.run.as_str(), so_far.number), ("b", 1));
        assert_ne!(so_far.offset, first);
    }
}
