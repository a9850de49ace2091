//! The subcommands of `tier0 lab`: what can be typed, and which part of this crate does it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use tier0_config::RedisMode;
use tier0_core::observe::ProtectionMode;
use tier0_core::record::AutomaticMode;

use crate::account::Account;
use crate::bench::{self, BenchArgs};
use crate::demo;
use crate::down::{self, Data};
use crate::exec;
use crate::fault::disk::Disks;
use crate::fault::{self, FaultArgs};
use crate::ledger::{Targets, Through, TrafficPlan};
use crate::load::{HttpPlan, Pace};
use crate::network::link::{self, LinkArgs};
use crate::network::{Network, namespaces};
use crate::plan::{Orchestrators, Routers, Size};
use crate::prober::watch::{self, ProbeArgs};
use crate::processes;
use crate::progress::Progress;
use crate::scenario::{self, ScenarioArgs};
use crate::signals::Interruption;
use crate::soak::{self, SoakArgs};
use crate::state::{LabState, directory_of, removal};
use crate::status;
use crate::traffic::{self, Until};
use crate::up::{Up, UpPlan, up};

/// A whole stack of real servers on this machine.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Bring a stack up and wait until it is protected.
    Up(UpArgs),
    /// Say which processes it has and how to connect.
    Status(StatusArgs),
    /// End every process of the stack and remove its files.
    Down(DownArgs),
    /// Show the end of a log, or the names of all.
    Logs(LogsArgs),
    /// Run psql or redis-cli against the writer or a node.
    Exec(ExecArgs),
    /// Write to the stack, note every acknowledgement, read everything back.
    Traffic(TrafficArgs),
    /// Show a switch to the other region and back, under traffic.
    Demo(DemoArgs),
    /// Try a write on both sides all the time, and show when nobody was served.
    Probe(ProbeArgs),
    /// Show the links between the sites, or delay, thin out and cut them.
    Link(LinkArgs),
    /// Break one part, or mend it; without arguments say what can be broken.
    Fault(FaultArgs),
    /// Measure switches under load, and failovers from a killed region.
    Bench(BenchArgs),
    /// Play a story of a file on a lab of its own: traffic, faults, and what must be so in the end.
    Scenario(ScenarioArgs),
    /// Break drawn things for a given time under traffic, and read every write back.
    Soak(SoakArgs),
}

/// Which lab is meant.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The number of the lab; each has its own addresses.
    #[arg(long, default_value_t = 0)]
    pub instance: u8,
    /// Its directory; the default is /tmp/tier0-lab-N, or $TIER0_LAB_DIRECTORY.
    #[arg(long)]
    pub directory: Option<PathBuf>,
}

impl Which {
    fn path(&self) -> Result<PathBuf> {
        directory_of(self.instance, self.directory.as_deref())
    }

    /// The flags that name this lab, for a command that is printed.
    pub fn flags(&self) -> String {
        let mut text = String::new();
        if self.instance != 0 {
            text.push_str(&format!(" --instance {}", self.instance));
        }
        if let Some(directory) = &self.directory {
            text.push_str(&format!(" --directory {}", directory.display()));
        }
        text
    }

    /// The lab itself.
    pub fn state(&self) -> Result<LabState> {
        let path = self.path()?;
        LabState::load(&path)?.with_context(|| {
            format!("there is no lab in {}; bring one up with: tier0 lab up", path.display())
        })
    }
}

/// See [`LabCommand::Up`].
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// How many PostgreSQL datastores.
    #[arg(long, default_value_t = 1)]
    pub postgres: u16,
    /// How many Redis datastores.
    #[arg(long, default_value_t = 1)]
    pub redis: u16,
    /// Tell Sentinel of a switch by SENTINEL FAILOVER, the documented command, instead of by a vote
    /// and a hello; slower, and clients of the new master are cut once.
    #[arg(long)]
    pub documented: bool,
    /// Whether the writer may be moved without being asked: armed, observe or off.
    #[arg(long, default_value = "armed", value_parser = automatic)]
    pub automatic: AutomaticMode,
    /// Commits of PostgreSQL never go on with a single copy by themselves: they wait until a standby
    /// has joined.
    #[arg(long)]
    pub max_protection: bool,
    /// An orchestrator at each site, over an etcd cluster with a member at each.
    #[arg(long)]
    pub three_orchestrators: bool,
    /// Also tier0's own routers, one for each datastore in each region.
    #[arg(long)]
    pub routers: bool,
    /// A network namespace for each site, and links between them that can be delayed and cut; needs
    /// root.
    #[arg(long)]
    pub netns: bool,
    /// A small file system for each node and agent, which can be full; needs root.
    #[arg(long)]
    pub own_disks: bool,
    /// From which number the links draw what is lost and how late the rest is.
    #[arg(long, default_value_t = 1, requires = "netns")]
    pub seed: u64,
    /// Print what `lab status --json` prints.
    #[arg(long)]
    pub json: bool,
}

fn automatic(text: &str) -> Result<AutomaticMode, String> {
    AutomaticMode::ALL
        .into_iter()
        .find(|mode| mode.word() == text)
        .ok_or_else(|| format!("'{text}' is not one of armed, observe, off"))
}

/// See [`LabCommand::Status`].
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// See [`LabCommand::Down`].
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// Leave the files.
    #[arg(long)]
    pub keep_data: bool,
}

/// See [`LabCommand::Logs`].
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// Whose log, as `lab status` names it.
    pub name: Option<String>,
    /// How many lines.
    #[arg(long, default_value_t = 50)]
    pub lines: usize,
}

/// See [`LabCommand::Exec`].
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// `psql` or `redis-cli` for the writer, or a node such as main.region2.
    pub what: String,
    /// Arguments of the tool.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// See [`LabCommand::Traffic`].
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// Writers to PostgreSQL.
    #[arg(long, default_value_t = 8)]
    pub postgres_writers: usize,
    /// How they reach it: by the list of its hosts, or through the PgBouncers.
    #[arg(long, value_enum, default_value = "hosts")]
    pub through: Through,
    /// Writers to Redis.
    #[arg(long, default_value_t = 8)]
    pub redis_writers: usize,
    /// Redis writers count a write as acknowledged only after `WAIT 1`.
    #[arg(long)]
    pub wait: bool,
    /// How long to write.
    #[arg(long, default_value_t = 10.0, conflicts_with = "until_file")]
    pub seconds: f64,
    /// Write until this file is there.
    #[arg(long)]
    pub until_file: Option<PathBuf>,
    /// Where to keep the ledger.
    #[arg(long)]
    pub ledger: PathBuf,
    /// Writes per second of each writer.
    #[arg(long, default_value_t = 40.0)]
    pub rate: f64,
    /// Write nothing: only check the ledger that is there.
    #[arg(long)]
    pub check_only: bool,
    /// Instead of the writers: devices that send readings to the reference backends over HTTP.
    #[arg(long)]
    pub http: bool,
    /// Devices, each a turbine.
    #[arg(long, default_value_t = 2_000, requires = "http")]
    pub devices: usize,
    /// Sites at which they stand.
    #[arg(long, default_value_t = 40, requires = "http")]
    pub sites: usize,
    /// Readings that are due in a second, of all devices together.
    #[arg(long, default_value_t = 500.0, requires = "http")]
    pub readings: f64,
    /// Readings in one request.
    #[arg(long, default_value_t = 1, requires = "http")]
    pub batch: usize,
}

/// See [`LabCommand::Demo`].
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// Show the specification's own way instead, and what it loses.
    #[arg(long)]
    pub specification: bool,
    /// Leave the stack up.
    #[arg(long)]
    pub keep: bool,
}

/// Run a subcommand.
pub async fn run(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up(arguments) => run_up(arguments).await,
        LabCommand::Status(arguments) => run_status(&arguments),
        LabCommand::Down(arguments) => run_down(&arguments).await,
        LabCommand::Logs(arguments) => {
            exec::logs(&arguments.which.state()?, arguments.name.as_deref(), arguments.lines)
        }
        LabCommand::Exec(arguments) => {
            exec::exec(&arguments.which.state()?, &arguments.what, &arguments.arguments)
        }
        LabCommand::Traffic(arguments) => run_traffic(arguments).await,
        LabCommand::Probe(arguments) => watch::run(&arguments.which.state()?, &arguments).await,
        LabCommand::Fault(arguments) => fault::run(&arguments).await,
        LabCommand::Link(arguments) => link::run(&arguments.which.state()?, &arguments),
        LabCommand::Demo(arguments) => run_demo(arguments).await,
        LabCommand::Bench(arguments) => bench::run(arguments).await,
        LabCommand::Scenario(arguments) => scenario::run(&arguments).await,
        LabCommand::Soak(arguments) => soak::run(&arguments).await,
    }
}

async fn run_up(arguments: UpArgs) -> Result<ExitCode> {
    let progress = Progress::begin();
    let mut plan = UpPlan::usual(arguments.which.instance, arguments.which.directory.as_deref())?;
    let redis_mode = match arguments.documented {
        true => RedisMode::Documented,
        false => RedisMode::Vote,
    };
    plan.size = Size {
        postgres: arguments.postgres,
        redis: arguments.redis,
        redis_mode,
        automatic: arguments.automatic,
        protection: match arguments.max_protection {
            true => ProtectionMode::MaxProtection,
            false => ProtectionMode::MaxAvailability,
        },
        routers: if arguments.routers { Routers::Each } else { Routers::None },
        orchestrators: match arguments.three_orchestrators {
            true => Orchestrators::Each,
            false => Orchestrators::One,
        },
    };
    if arguments.netns {
        plan.network = Network::Namespaces;
        plan.seed = arguments.seed;
    }
    if arguments.own_disks {
        plan.disks = Disks::Own;
    }
    let mut interruption = Interruption::listen()?;
    let came_up = tokio::select! {
        came_up = up(&plan, progress) => came_up?,
        signal = interruption.next() => {
            progress.say(format!("{signal}: taking it down"));
            let account = Account::unprivileged()?;
            down::stop(&plan.directory, &account, Data::Remove, progress).await?;
            return Ok(ExitCode::from(130));
        }
    };
    match &came_up {
        Up::Already(state) => progress.say(format!("it is up already: {}", state.api)),
        Up::Now(state) => progress.say(format!("up: {}", state.api)),
    }
    let status = status::look(&came_up.state())?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&status).context("serialise the status")?);
    } else {
        print!("{}", status::text(&status));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_status(arguments: &StatusArgs) -> Result<ExitCode> {
    let path = arguments.which.path()?;
    let Some(state) = LabState::load(&path)? else {
        let account = Account::unprivileged()?;
        let running = processes::of_lab(&path, account.uid).len();
        if running > 0 {
            let removal = removal(arguments.which.instance, &path);
            bail!("{running} processes of a lab without a state file run; end them: {removal}");
        }
        bail!("there is no lab in {}", path.display());
    };
    let status = status::look(&state)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&status).context("serialise the status")?);
    } else {
        print!("{}", status::text(&status));
    }
    let all_run = status.processes.iter().all(|process| process.pid.is_some());
    Ok(if all_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_down(arguments: &DownArgs) -> Result<ExitCode> {
    let data = if arguments.keep_data { Data::Keep } else { Data::Remove };
    let account = Account::unprivileged()?;
    let progress = Progress::begin();
    down::stop(&arguments.which.path()?, &account, data, progress).await?;
    if rustix::process::geteuid().is_root() {
        // What a lab left whose directory is gone.
        let removed = namespaces::remove_unused(arguments.which.instance)?;
        if removed > 0 {
            progress.say(format!("{removed} network namespaces removed that nobody used"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_traffic(arguments: TrafficArgs) -> Result<ExitCode> {
    let state = arguments.which.state()?;
    if arguments.check_only {
        return traffic::check(&arguments.ledger, &Targets::of(&state.stack()?)?).await;
    }
    let until = match arguments.until_file {
        Some(path) => Until::File(path),
        None => Until::Time(
            Duration::try_from_secs_f64(arguments.seconds).context("--seconds is not a time")?,
        ),
    };
    if arguments.http {
        let plan = HttpPlan {
            devices: arguments.devices,
            sites: arguments.sites,
            pace: Pace::PerSecond(arguments.readings),
            batch: arguments.batch,
            ..HttpPlan::moderate(arguments.ledger)
        };
        return traffic::run_http(&state, &plan, &until).await;
    }
    let (redis_writers, redis_wait_writers) =
        if arguments.wait { (0, arguments.redis_writers) } else { (arguments.redis_writers, 0) };
    let plan = TrafficPlan {
        redis_writers,
        redis_wait_writers,
        rate: arguments.rate,
        ..TrafficPlan::moderate(arguments.ledger)
    };
    let plan = plan.with_postgres(arguments.postgres_writers, arguments.through);
    traffic::run(&state, &plan, &until).await
}

async fn run_demo(arguments: DemoArgs) -> Result<ExitCode> {
    let mut plan = UpPlan::usual(arguments.which.instance, arguments.which.directory.as_deref())?;
    let way = if arguments.specification {
        demo::Way::Specification
    } else {
        plan.size.automatic = AutomaticMode::Armed;
        plan.size.routers = Routers::Each;
        demo::Way::Tier0
    };
    let after = if arguments.keep { demo::After::Keep } else { demo::After::TakeDown };
    demo::run(plan, way, after).await
}
