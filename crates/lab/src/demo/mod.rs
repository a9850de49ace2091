//! The demo: a stack comes up, traffic runs, the writer moves to the other region and back, and a
//! verdict says whether every acknowledged write is still there.

mod acts;
mod by_itself;
mod http;
mod routed;
mod specification;
mod switch;
mod verdict;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::account::Account;
use crate::down::{self, Data};
use crate::progress::{Progress, tell};
use crate::signals::Interruption;
use crate::state::LabState;
use crate::status;
use crate::up::{Up, UpPlan, up};

/// Which way the writer is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By tier0, on command, and then by itself after every process of the writer's region was
    /// killed.
    Tier0,
    /// As the specification's orchestrator does it, with tier0 switched off.
    Specification,
}

/// What becomes of the stack afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes.
    TakeDown,
    /// It stays up, and its addresses are printed.
    Keep,
}

/// Play the demo. The exit code is the verdict.
pub async fn run(plan: UpPlan, way: Way, after: After) -> Result<ExitCode> {
    let progress = Progress::begin();
    let account = Account::unprivileged()?;
    let mut interruption = Interruption::listen()?;
    let mut came = None;
    let played = tokio::select! {
        played = play(&plan, way, progress, &mut came) => played,
        signal = interruption.next() => {
            progress.say(format!("{signal}: taking everything down"));
            down::stop(&plan.directory, &account, Data::Remove, progress).await?;
            return Ok(ExitCode::from(130));
        }
    };
    match (came, after) {
        // Somebody else's stack that could not be used, or one that never came up.
        (None, _) => {}
        (Some(Came::Before), _) => progress.say("the stack was up before, and stays up"),
        (Some(Came::Now), After::Keep) => keep(&plan)?,
        (Some(Came::Now), After::TakeDown) => {
            // What fails now must not hide the verdict.
            if let Err(error) = down::stop(&plan.directory, &account, Data::Remove, progress).await
            {
                progress.say(format!("taking the stack down failed: {error:#}"));
            }
        }
    }
    played
}

/// Since when the stack is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Before,
    Now,
}

async fn play(
    plan: &UpPlan,
    way: Way,
    progress: Progress,
    came: &mut Option<Came>,
) -> Result<ExitCode> {
    let state = match up(plan, progress).await? {
        Up::Already(state) => {
            *came = Some(Came::Before);
            state
        }
        Up::Now(state) => {
            *came = Some(Came::Now);
            state
        }
    };
    match way {
        Way::Tier0 => acts::play(&state, progress).await,
        Way::Specification => specification::play(&state).await,
    }
}

fn keep(plan: &UpPlan) -> Result<()> {
    let state = LabState::load(&plan.directory)?.context("the lab's state is gone")?;
    tell!("\nThe stack stays up.\n\n{}", status::text(&status::look(&state)?).trim_end());
    Ok(())
}

/// A place for the ledger of a run that starts now.
fn ledger_directory(state: &LabState) -> std::path::PathBuf {
    let seconds = jiff::Timestamp::now().as_millisecond();
    state.directory.join("ledger").join(seconds.to_string())
}
