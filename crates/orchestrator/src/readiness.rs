//! Readiness as it is kept: judged every second, with the moment since which each finding has been
//! what it is, so that "it has been so for an hour" and "it became so just now" can be told apart.
//! Changes of level are logged. And what a switch would be like, from the ones that were measured.
//!
//! What is good and what is not, the core judges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tier0_core::observe::PostgresView;
use tier0_core::orchestrator::{Consent, Now, Orchestrator};
use tier0_core::readiness::{Finding, Level, Question, judge, may_move};
use tier0_core::words::{DatastoreName, NodeId, Region, WallMillis};
use tier0_store::{OperationResult, OperationSummary};
use tier0_wire::{CheckBody, FindingBody, Prediction};

use crate::driver::Driver;
use crate::report::timestamp;

const EVERY: Duration = Duration::from_secs(1);

/// On how many switches a prediction rests: enough that one odd one does not count, few enough that
/// it follows a machine that has become slower.
const MEASURED: usize = 5;

/// A finding's identity through time.
type Key = (String, Option<DatastoreName>);

/// Since when each finding has been at its level.
#[derive(Default)]
pub struct Kept {
    since: Mutex<BTreeMap<Key, (Level, WallMillis)>>,
}

impl Kept {
    /// Judge every second until the process ends.
    pub fn start(driver: &Driver) -> Arc<Kept> {
        let kept = Arc::new(Kept::default());
        let (keeping, driver) = (Arc::clone(&kept), driver.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let judged = driver.look(|core, now| (judged(core, now, None), now.wall)).await;
                if let Some((Some((_, findings)), wall)) = judged {
                    keeping.note(&findings, wall);
                }
            }
        });
        kept
    }

    fn note(&self, findings: &[Finding], wall: WallMillis) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *since);
        for finding in findings {
            let key = (finding.code.clone(), finding.datastore.clone());
            let before = known.remove(&key);
            let at = match before {
                Some((level, at)) if level == finding.level => at,
                Some(_) | None => {
                    // What nobody knows while an agent is away is said by that agent's absence.
                    let counts = |level| matches!(level, Level::Warn | Level::Fail);
                    let news =
                        counts(finding.level) || before.is_some_and(|(level, _)| counts(level));
                    if news {
                        let datastore = finding.datastore.as_ref().map(ToString::to_string);
                        tracing::info!(
                            code = finding.code, level = %finding.level, datastore,
                            sentence = finding.sentence, "readiness"
                        );
                    }
                    wall
                }
            };
            since.insert(key, (finding.level, at));
        }
    }

    /// The findings with what is kept of them.
    pub fn dated(&self, findings: Vec<Finding>) -> Vec<FindingBody> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        findings
            .into_iter()
            .map(|finding| {
                let key = (finding.code.clone(), finding.datastore.clone());
                let at = since.get(&key).filter(|(level, _)| *level == finding.level);
                FindingBody {
                    since: at.map(|(_, at)| timestamp(*at)),
                    page: format!("docs/codes/{}.md", finding.code),
                    finding,
                }
            })
            .collect()
    }
}

/// The target that is meant, and every finding about a move there; `None` before the record was
/// read.
pub fn judged(
    core: &Orchestrator,
    now: &Now,
    target: Option<Region>,
) -> Option<(Region, Vec<Finding>)> {
    let record = core.record()?;
    let target = match target {
        Some(target) => target,
        None => core.settings().shape.other(&record.writer).cloned()?,
    };
    if target == record.writer {
        let sentence = format!("{target} is the writer already");
        let finding = Finding::new("already-writer", Level::Fail, None, sentence);
        return Some((target, vec![finding]));
    }
    let findings = judge(&question(core, now, record, &target));
    Some((target, findings))
}

/// What `GET /readiness` says, without what is kept; `None` before the record was read.
pub fn check(core: &Orchestrator, now: &Now, target: Option<Region>) -> Option<Checked> {
    let record = core.record()?;
    let (target, findings) = judged(core, now, target)?;
    let ready = target != record.writer
        && may_move(&question(core, now, record, &target)).is_ok()
        && core.frozen().is_none()
        && record.claim.is_none();
    let silence = core.settings().limits.silence;
    let old_side = match core.seen().agent_silent(&record.writer, now.moment, silence) {
        None => OldSide::Cooperates,
        Some(_) => OldSide::Silent,
    };
    let open = open_transactions(core, &record.writer);
    Some(Checked { ready, open, old_side, target, findings })
}

fn question<'a>(
    core: &'a Orchestrator,
    now: &Now,
    record: &'a tier0_core::record::Record,
    target: &'a Region,
) -> Question<'a> {
    Question {
        settings: core.settings(),
        record,
        seen: core.seen(),
        lag: core.lag(),
        timing: core.timing(),
        now: now.moment,
        target,
        consent: Consent::None,
    }
}

/// A check, as the core's loop can make it without waiting for the store.
pub struct Checked {
    /// A commanded switch would begin.
    pub ready: bool,
    /// Where to.
    pub target: Region,
    /// Worst first.
    pub findings: Vec<Finding>,
    open: Open,
    old_side: OldSide,
}

/// Whether a move now would be a switchover or a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OldSide {
    Cooperates,
    Silent,
}

impl OldSide {
    /// Whether an operation was such a move. One that began as a switchover may have gone on without
    /// the old side; then its server was not confirmed stopped.
    fn moved_so(self, operation: &OperationSummary) -> bool {
        let stopped = operation.report.get("strict_reads").and_then(serde_json::Value::as_bool);
        match self {
            OldSide::Cooperates => stopped == Some(true),
            OldSide::Silent => stopped == Some(false),
        }
    }

    fn loses(self) -> &'static str {
        match self {
            OldSide::Cooperates => "loses nothing",
            OldSide::Silent => {
                "loses nothing that PostgreSQL acknowledged (of Redis only what WAIT confirmed is \
                 promised)"
            }
        }
    }
}

impl Checked {
    /// The body, with what is kept and what was measured.
    pub fn body(self, kept: &Kept, history: &[OperationSummary]) -> CheckBody {
        let prediction = self.ready.then(|| predict(&self, history));
        CheckBody {
            ready: self.ready,
            target_region: self.target.to_string(),
            prediction,
            findings: kept.dated(self.findings),
        }
    }
}

/// Open transactions of the writer.
#[derive(Default)]
struct Open {
    count: u32,
    longest: Option<(u64, Option<String>)>,
}

fn open_transactions(core: &Orchestrator, writer: &Region) -> Open {
    let mut open = Open::default();
    let views = core
        .settings()
        .shape
        .datastores
        .keys()
        .filter_map(|name| core.seen().postgres(&NodeId::new(name.clone(), writer.clone())));
    for PostgresView { open_transactions, longest_transaction_ms, longest_application, .. } in views
    {
        open.count += open_transactions;
        if let Some(longest) = longest_transaction_ms
            && open.longest.as_ref().is_none_or(|(known, _)| known < longest)
        {
            let name = longest_application.clone().filter(|name| !name.is_empty());
            open.longest = Some((*longest, name));
        }
    }
    open
}

/// The median of the last switches to this region, or, where there was none yet, of all.
fn predict(checked: &Checked, history: &[OperationSummary]) -> Prediction {
    let Checked { target, open, old_side, .. } = checked;
    let measured = |there: Option<&Region>| -> Vec<f64> {
        history
            .iter()
            .filter(|one| old_side.moved_so(one))
            .filter(|one| one.result == OperationResult::Succeeded)
            .filter(|one| there.is_none_or(|region| one.target == *region))
            .filter_map(|one| Some(one.total_micros? as f64 / 1000.0))
            .take(MEASURED)
            .collect()
    };
    let mut times = measured(Some(target));
    if times.is_empty() {
        times = measured(None);
    }
    times.sort_by(f64::total_cmp);
    let milliseconds = match times.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(times[odd / 2]),
        even => Some((times[even / 2 - 1] + times[even / 2]) / 2.0),
    };
    let (longest, application) = match &open.longest {
        Some((longest, application)) => (Some(*longest), application.clone()),
        None => (None, None),
    };
    let takes = match milliseconds {
        Some(milliseconds) => format!("about {milliseconds:.0} ms"),
        None => "how long is not known, none of this stack has been measured yet".to_owned(),
    };
    let plural = if open.count == 1 { "" } else { "s" };
    let cancels = match (open.count, longest) {
        (0, _) => "cancels no transaction".to_owned(),
        (count, None) => format!("cancels {count} transaction{plural}"),
        (count, Some(longest)) => {
            let seconds = longest as f64 / 1000.0;
            let app = application.as_ref().map(|name| format!(", app={name}")).unwrap_or_default();
            format!("cancels {count} transaction{plural} (longest {seconds:.1} s{app})")
        }
    };
    Prediction {
        sentence: format!("switch now: {takes}, {}, {cancels}", old_side.loses()),
        milliseconds,
        switches: times.len() as u32,
        cancels: open.count,
        longest_ms: longest,
        application,
    }
}

/// What comes right by itself while one waits.
const PASSES: [&str; 2] = ["replication-lag", "replay-backlog"];

/// Wait until nothing but time stood in the way, or until it does not come right in time. What else
/// stands in the way is said at once by whoever is asked next.
pub async fn wait_until_caught_up(driver: &Driver, target: &Region, most: Duration) {
    let deadline = tokio::time::Instant::now() + most;
    while tokio::time::Instant::now() < deadline {
        let target = target.clone();
        let judged = driver.look(move |core, now| judged(core, now, Some(target))).await;
        let Some((_, findings)) = judged.flatten() else { return };
        let failing: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.level == Level::Fail)
            .map(|finding| finding.code.as_str())
            .collect();
        if failing.is_empty() || failing.iter().any(|code| !PASSES.contains(code)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
