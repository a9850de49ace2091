//! `lab traffic`: a ledger run by itself, for a time or until a file appears, then its check.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ledger::{self, Targets, Traffic, TrafficPlan, TrafficSummary, WritePath};
use crate::load::{self, HttpPlan, HttpTraffic};
use crate::signals::Interruption;
use crate::state::LabState;

/// When a run ends.
#[derive(Debug, Clone)]
pub enum Until {
    /// After this time.
    Time(Duration),
    /// When this file is there.
    File(std::path::PathBuf),
}

/// Run the traffic, check it and print both. The exit code says whether anything is missing.
pub async fn run(state: &LabState, plan: &TrafficPlan, until: &Until) -> Result<ExitCode> {
    let targets = Targets::of(&state.stack()?)?;
    let mut interruption = Interruption::listen()?;
    let traffic = Traffic::start(plan, &targets).await?;
    tokio::select! {
        () = wait(until) => {}
        signal = interruption.next() => eprintln!("{signal}: stopping the writers"),
    }
    let summary = traffic.stop().await?;
    print!("{}", summary_text(&summary));
    check(&plan.directory, &targets).await
}

/// The same with devices that send over HTTP.
pub async fn run_http(state: &LabState, plan: &HttpPlan, until: &Until) -> Result<ExitCode> {
    let stack = state.stack()?;
    let mut interruption = Interruption::listen()?;
    let traffic = HttpTraffic::start(plan, &stack)?;
    tokio::select! {
        () = wait(until) => {}
        signal = interruption.next() => eprintln!("{signal}: stopping the devices"),
    }
    let summary = traffic.stop().await?;
    print!("{}", load::summary_text(&summary));
    check(&plan.directory, &Targets::of(&stack)?).await
}

/// Check a ledger that is there, and print what was found.
pub async fn check(directory: &Path, targets: &Targets) -> Result<ExitCode> {
    let report = ledger::check(directory, targets).await.context("check the ledger")?;
    print!("{}", report.text());
    let clean = report.missing(&WritePath::ALL).is_empty() && report.duplicates().is_empty();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn wait(until: &Until) {
    match until {
        Until::Time(time) => tokio::time::sleep(*time).await,
        Until::File(path) => {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One line for each path: what became of its writes, and how long clients waited.
pub fn summary_text(summary: &TrafficSummary) -> String {
    let mut text = String::new();
    for path in &summary.paths {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let largest = path.latencies.largest();
        text.push_str(&format!(
            "{:<16} {:>7} acknowledged, {} unknown, {} refused and tried again; from due to \
             acknowledged {:.1} ms median, {:.1} ms p99, largest gap {:.0} ms at {:.2} s\n",
            path.path.name(),
            path.acknowledged,
            path.unknown,
            path.failed,
            milliseconds(path.latencies.percentile(50.0)),
            milliseconds(path.latencies.percentile(99.0)),
            largest.map_or(0.0, |gap| milliseconds(gap.length())),
            largest.map_or(0.0, |gap| gap.due.as_secs_f64()),
        ));
    }
    text
}
