//! `lab probe`: a prober for people, who see each stretch in which nobody was served.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::{Accepted, Probed, Prober};
use crate::command::Which;
use crate::ledger::Targets;
use crate::signals::Interruption;
use crate::state::LabState;

/// How often what came in is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// See [`run`].
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// For how long.
    #[arg(long, default_value_t = 30.0)]
    pub seconds: f64,
    /// Stretches without an accepted write that are shorter, in milliseconds, are not shown.
    #[arg(long, default_value_t = 100)]
    pub shortest: u64,
}

/// Probe both sides, and print every stretch in which a store accepted nothing.
pub async fn run(state: &LabState, arguments: &ProbeArgs) -> Result<ExitCode> {
    let time = Duration::try_from_secs_f64(arguments.seconds).context("--seconds is no time")?;
    let shortest = Duration::from_millis(arguments.shortest);
    let mut interruption = Interruption::listen()?;
    let prober = Prober::start(&Targets::of(&state.stack()?)?).await?;
    println!("a write on both sides of both stores every 5 ms, for {} s", arguments.seconds);
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    let mut shown = Duration::ZERO;
    loop {
        let interrupted = tokio::select! {
            () = &mut end => true,
            _ = interruption.next() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = prober.now();
        let accepted = prober.accepted();
        for store in Probed::ALL {
            for (last, first) in stretches(&accepted, store, shortest) {
                if first.at > shown && first.at <= now {
                    println!("{}", line(store, &last, &first));
                }
            }
        }
        shown = now;
        if interrupted {
            print!("{}", totals(&accepted, now));
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Neighbours among the accepted writes of a store that are at least so far apart.
fn stretches(
    accepted: &[Accepted],
    store: Probed,
    shortest: Duration,
) -> Vec<(Accepted, Accepted)> {
    let of_store: Vec<&Accepted> = accepted.iter().filter(|one| one.store == store).collect();
    let pairs = of_store.windows(2).filter_map(|pair| match pair {
        [last, first] if first.at - last.at >= shortest => Some((**last, **first)),
        _ => None,
    });
    pairs.collect()
}

fn line(store: Probed, last: &Accepted, first: &Accepted) -> String {
    format!(
        "{:>8.2} s  {:<10} accepted nothing for {:>5.0} ms: last in {}, then in {}",
        first.at.as_secs_f64(),
        store.name(),
        (first.at - last.at).as_secs_f64() * 1e3,
        last.side.name(),
        first.side.name()
    )
}

fn totals(accepted: &[Accepted], now: Duration) -> String {
    let mut text = String::new();
    for store in Probed::ALL {
        let of_store = || accepted.iter().filter(|one| one.store == store);
        let longest = stretches(accepted, store, Duration::ZERO)
            .into_iter()
            .map(|(last, first)| first.at - last.at)
            .max();
        let silent = of_store().next_back().map_or(now, |last| now.saturating_sub(last.at));
        text.push_str(&format!(
            "{:<10} {} writes accepted; longest without one {:.0} ms, {:.0} ms since the last\n",
            store.name(),
            of_store().count(),
            longest.unwrap_or_default().as_secs_f64() * 1e3,
            silent.as_secs_f64() * 1e3
        ));
    }
    text
}
