//! `lab bench`: how long the whole data tier takes to move, under load, and from a dead region;
//! and whether a ledger outside both stores finds every acknowledged write afterwards.

mod clients;
pub mod comparison;
pub mod figures;
mod large;
pub mod machine;
mod measure;
pub mod outage;
pub mod results;
mod routes;
pub mod run;
mod settings;
pub mod statistics;
pub mod summary;
mod table;
mod telemetry;
pub mod throughput;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tier0_core::record::AutomaticMode;

use self::machine::{Build, Machine};
use self::measure::{Bench, Collected};
use self::outage::{Commander, OutageSummary, Outages};
use self::run::Section;
use self::summary::{SectionSummary, Summary, VERSION};
pub use settings::{BenchArgs, Settings};

use crate::account::Account;
use crate::down::{self, Data};
use crate::ledger::Through;
use crate::network::{Network, namespaces};
use crate::plan::{Routers, Size};
use crate::progress::Progress;
use crate::signals::Interruption;
use crate::state::LabState;
use crate::up::{Up, UpPlan, up};

/// Where the results of the reference backend are kept, apart from those of switches.
pub const READINGS: &str = "bench/telemetry";

/// Where the comparisons of routes are kept.
pub const COMPARISONS: &str = "bench/routes";

/// Where the figures are shown.
const DOCUMENT: &str = "README.md";

/// Where the comparison of routes is shown.
const ROUTES_DOCUMENT: &str = "docs/routes.md";

/// Measure, write the results, print them. The exit code says whether all is as promised.
pub async fn run(arguments: BenchArgs) -> Result<ExitCode> {
    if arguments.render {
        return render(&arguments.out);
    }
    if arguments.telemetry {
        return telemetry::run(&arguments).await;
    }
    if arguments.routes {
        return routes::run(&arguments).await;
    }
    let progress = Progress::begin();
    let settings = Settings::of(&arguments);
    let mut plan = UpPlan::usual(arguments.which.instance, arguments.which.directory.as_deref())?;
    if settings.through == Through::Router {
        plan.size.routers = Routers::Alone;
    }
    plan.size.orchestrators = settings.orchestrators;
    if let Some(bytes) = settings.large_bytes {
        large::check_disk(&plan.directory, bytes)?;
    }
    let begun = jiff::Timestamp::now().to_string();
    let build = Build::of(&plan.binary);
    let mut interruption = Interruption::listen()?;
    let machine = Machine::look().await;
    progress.say(format!("the machine is {:.0} % idle", machine.idle_before * 100.0));
    let mut collected = Collected::default();
    let mut came = Came::NotYet;
    let measured = tokio::select! {
        measured = measure_all(&plan, &settings, arguments.who, progress, &mut collected, &mut came)
            => measured,
        signal = interruption.next() => Err(anyhow::anyhow!("interrupted by {signal}")),
    };
    let cut_short = measured.err().map(|error| format!("{error:#}"));
    if let Some(why) = &cut_short {
        progress.say(why);
    }
    // What can still be told must not be lost because a ledger cannot be read any more.
    if let Err(error) = collected.close() {
        progress.say(format!("the ledger of the unfinished part is of no use: {error:#}"));
    }
    if came != Came::Foreign {
        let account = Account::unprivileged()?;
        if let Err(error) = down::stop(&plan.directory, &account, Data::Remove, progress).await {
            progress.say(format!("taking the lab down failed: {error:#}"));
        }
    }
    if collected.runs.is_empty() && collected.outages.is_empty() {
        bail!("nothing was measured: {}", cut_short.unwrap_or_default());
    }
    let summary = Summary {
        version: VERSION,
        begun,
        ended: jiff::Timestamp::now().to_string(),
        cut_short,
        build,
        machine,
        settings,
        large_bytes: collected.large_bytes,
        sections: Section::ALL
            .into_iter()
            .filter_map(|section| SectionSummary::of(section, &collected))
            .collect(),
        outages: OutageSummary::of_all(&collected.outages),
        skipped: collected.skipped.clone(),
    };
    let path = results::write(&arguments.out, &summary, &collected)?;
    print!("{}", table::text(&summary));
    println!("\nresults: {}", path.display());
    println!("into {DOCUMENT}: tier0 lab bench --render");
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whose lab it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Ours, on the way up; what there is of it goes down at the end.
    NotYet,
    /// It was there before: nothing of it is touched.
    Foreign,
    /// Ours.
    Up,
}

async fn measure_all(
    plan: &UpPlan,
    settings: &Settings,
    commander: Commander,
    progress: Progress,
    collected: &mut Collected,
    came: &mut Came,
) -> Result<()> {
    if settings.wants_switches() {
        let mut state = bring_up(plan, progress, came).await?;
        Bench::new(&mut state, settings, progress, collected)?.run().await?;
    }
    if settings.outages == 0 {
        return Ok(());
    }
    if *came == Came::Up {
        down::stop(&plan.directory, &Account::unprivileged()?, Data::Remove, progress).await?;
        *came = Came::NotYet;
    }
    let network = match namespaces::unavailable() {
        None => Network::Namespaces,
        Some(why) => {
            progress.say(format!("SKIPPED network namespaces: {why}"));
            Network::Loopback
        }
    };
    let automatic = match commander {
        Commander::Nobody => AutomaticMode::Armed,
        Commander::Bench => AutomaticMode::Off,
    };
    let plan = UpPlan { network, size: Size { automatic, ..plan.size }, ..plan.clone() };
    let mut state = bring_up(&plan, progress, came).await?;
    let runs = settings.outages;
    let mut outages = Outages { state: &mut state, runs, commander, progress };
    let skipped = outages.run(&mut collected.outages).await?;
    skipped.iter().for_each(|one| progress.say(format!("SKIPPED {one}")));
    collected.skipped.extend(skipped);
    Ok(())
}

async fn bring_up(plan: &UpPlan, progress: Progress, came: &mut Came) -> Result<LabState> {
    let account = Account::unprivileged()?;
    if !crate::processes::of_lab(&plan.directory, account.uid).is_empty() {
        *came = Came::Foreign;
        bail!(
            "a lab runs in {}, and the bench needs its own; remove it with: {}",
            plan.directory.display(),
            crate::state::removal(plan.instance, &plan.directory)
        );
    }
    let state = match up(plan, progress).await? {
        Up::Already(_) => {
            *came = Came::Foreign;
            bail!("somebody else brought a lab up in {}", plan.directory.display());
        }
        Up::Now(state) => state,
    };
    *came = Came::Up;
    Ok(state)
}

fn render(directory: &Path) -> Result<ExitCode> {
    let newest = results::newest(results::files(directory));
    let newest = newest.with_context(|| format!("{} holds no results", directory.display()))?;
    let summary = results::read(&newest)?;
    let document = Path::new(DOCUMENT);
    figures::write(document, figures::SWITCHES, &figures::render(&summary, &file_name(&newest)?))?;
    println!("{DOCUMENT} shows the figures of {}", newest.display());
    if let Some(newest) = results::newest(results::files(Path::new(READINGS))) {
        let text = throughput::Throughput::read(&newest)?.markdown(&file_name(&newest)?);
        figures::write(document, figures::READINGS, &text)?;
        println!("{DOCUMENT} shows the readings of {}", newest.display());
    }
    if let Some(newest) = results::newest(results::files(Path::new(COMPARISONS))) {
        let text = comparison::Comparison::read(&newest)?.markdown(&file_name(&newest)?);
        figures::write(Path::new(ROUTES_DOCUMENT), figures::ROUTES, &text)?;
        println!("{ROUTES_DOCUMENT} shows the comparison of {}", newest.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().context("a results file has a name")?;
    Ok(name.to_string_lossy().into_owned())
}
