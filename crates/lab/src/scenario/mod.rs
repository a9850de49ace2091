//! A story that is played on a real lab: traffic runs, things break and are mended in the order of a
//! file, and in the end every acknowledged write is read back.
//!
//! `file` is what such a file may say, `play` plays it. Left out: the simulator, which draws its own
//! stories (`crates/core/tests/random.rs`).

mod file;
mod play;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::command::Which;
use crate::progress::tell;

pub use file::{Apart, Break, Ends, Expect, Scenario, Step};
pub use play::{Played, finish, heal, take};
pub use stage::{Stage, Stay, with_lab};

/// Play a scenario file on a lab of its own, and judge what came of it.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// The file; see scenarios/.
    pub file: PathBuf,
    /// Leave the stack up.
    #[arg(long)]
    pub keep: bool,
}

/// Play it. The exit code says whether everything is as the file expects.
pub async fn run(arguments: &ScenarioArgs) -> Result<ExitCode> {
    let scenario = Scenario::read(&arguments.file)?;
    tell!("{}\n", scenario.story.trim_end());
    let stay = if arguments.keep { Stay::Up } else { Stay::Gone };
    with_lab(&arguments.which, scenario.apart, stay, async |stage, interruption| {
        let played = play::play(stage, interruption, &scenario).await?;
        Ok(verdict(&scenario.expect, &played))
    })
    .await
}

/// Say what came of it, condition by condition.
fn verdict(expect: &Expect, played: &Played) -> ExitCode {
    let conditions = expect.judge(played);
    for (holds, sentence) in &conditions {
        tell!("  {:<6} {sentence}", if *holds { "ok" } else { "FAILED" });
    }
    if conditions.iter().all(|(holds, _)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
