//! A lab that is brought up for one purpose and taken down after it, also when it is interrupted.

use std::process::ExitCode;

use anyhow::Result;
use tier0_core::record::AutomaticMode;

use super::Apart;
use crate::account::Account;
use crate::api::Api;
use crate::command::Which;
use crate::down::{self, Data};
use crate::ledger::{Targets, Traffic, TrafficPlan};
use crate::network::Network;
use crate::progress::Progress;
use crate::signals::Interruption;
use crate::state::LabState;
use crate::up::{UpPlan, up};

/// What becomes of the lab afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It stays up.
    Up,
    /// It goes.
    Gone,
    /// It goes if all was well; else its processes end and its files stay, for whoever looks into it.
    GoneIfWell,
}

/// A lab that is up.
pub struct Stage {
    /// Its state.
    pub state: LabState,
    /// Its API.
    pub api: Api,
    /// Says what happens.
    pub progress: Progress,
}

impl Stage {
    /// Begin to write, into a ledger of its own.
    pub async fn traffic(&self) -> Result<(Traffic, Targets, TrafficPlan)> {
        self.traffic_with(|_| {}).await
    }

    /// The same, so many writes of each client each second.
    pub async fn traffic_of(&self, rate: f64) -> Result<(Traffic, Targets, TrafficPlan)> {
        self.traffic_with(|plan| plan.rate = rate).await
    }

    async fn traffic_with(
        &self,
        change: impl FnOnce(&mut TrafficPlan),
    ) -> Result<(Traffic, Targets, TrafficPlan)> {
        let targets = Targets::of(&self.state.stack()?)?;
        let now = jiff::Timestamp::now().as_millisecond();
        let directory = self.state.directory.join("ledger").join(now.to_string());
        let mut plan = TrafficPlan::moderate(directory);
        change(&mut plan);
        Ok((Traffic::start(&plan, &targets).await?, targets, plan))
    }
}

/// Bring a lab up, have something done on it, take it down. Whatever is done looks after the signals
/// that ask it to end.
pub async fn with_lab(
    which: &Which,
    apart: Apart,
    stay: Stay,
    act: impl AsyncFnOnce(&mut Stage, &mut Interruption) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let progress = Progress::begin();
    let account = Account::unprivileged()?;
    let mut plan = UpPlan::usual(which.instance, which.directory.as_deref())?;
    plan.size.automatic = AutomaticMode::Armed;
    plan.network = match apart {
        Apart::Loopback => Network::Loopback,
        Apart::Namespaces => Network::Namespaces,
    };
    let mut interruption = Interruption::listen()?;
    let state = tokio::select! {
        came_up = up(&plan, progress) => came_up?.state(),
        signal = interruption.next() => {
            progress.say(format!("{signal}: taking it down"));
            down::stop(&plan.directory, &account, Data::Remove, progress).await?;
            return Ok(ExitCode::from(130));
        }
    };
    let api = Api::of(&state)?;
    let mut stage = Stage { state, api, progress };
    let acted = act(&mut stage, &mut interruption).await;
    match stay {
        Stay::Up => progress.say(format!("the stack stays up: {}", stage.state.api)),
        Stay::Gone | Stay::GoneIfWell => {
            let well = matches!(acted, Ok(code) if code == ExitCode::SUCCESS);
            let data = if well || stay == Stay::Gone { Data::Remove } else { Data::Keep };
            // What fails now must not hide what came of it.
            if let Err(error) = down::stop(&plan.directory, &account, data, progress).await {
                progress.say(format!("taking the stack down failed: {error:#}"));
            }
            if data == Data::Keep {
                let directory = plan.directory.display();
                progress.say(format!("its files stay in {directory} until the next lab there"));
            }
        }
    }
    acted
}
