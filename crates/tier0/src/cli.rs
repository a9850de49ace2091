//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tier0_core::words::{DatastoreName, NodeId, Region, Site};
use tier0_init::InitArgs;
use tier0_lab::LabCommand;

/// The version, the commit it was built from, and a warning where a build is only for tests.
pub const VERSION: &str = if tier0_failpoint::ENABLED {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (",
        env!("TIER0_COMMIT"),
        ", WITH FAILPOINTS: for tests only)"
    )
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIER0_COMMIT"), ")")
};

/// Move the whole data tier of a service from one region to another as one operation.
///
/// At 3 a.m.: `tier0 status` says what is so, `tier0 check` says whether a switch would work,
/// `tier0 failover REGION` moves the writer, `tier0 explain ID` says why something was done or not.
#[derive(Debug, Parser)]
#[command(name = "tier0", version = VERSION)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach an orchestrator.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The orchestrator's address, or those of several, separated by commas: the first that answers
    /// is asked. Without it the lab on this machine is looked for.
    #[arg(long, env = "TIER0_API", value_name = "URL", global = true)]
    pub api: Option<String>,
    /// A file with the token to use, mode 0600.
    #[arg(long, env = "TIER0_TOKEN_FILE", value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say who the writer is, how safe the data is, and what every node does
    Status(Read),
    /// Say for how long nobody was served, why, and what is left of a year's budget
    ///
    /// With --event it only calculates: what a year would be like at the rates that you name.
    Availability(AvailabilityArgs),
    /// Say whether a switch would work now, and what stands in its way
    Check(CheckArgs),
    /// Move the writer to a region
    ///
    /// Clients of PostgreSQL are cut when the old primary stops; writes of Redis are held for some
    /// milliseconds. Nothing that was acknowledged is lost: a target that is not proven to hold
    /// every acknowledged write is refused.
    Failover(FailoverArgs),
    /// Move the writer back to its home, the first region of the configuration
    Failback(MoveArgs),
    /// List what was done, newest first
    History(HistoryArgs),
    /// Say step by step what an operation did, and why it ended as it did
    Explain(ExplainArgs),
    /// Print what all roles have logged, side by side
    ///
    /// Of an operation: from shortly before it was accepted until shortly after it ended.
    Logs(LogsArgs),
    /// Collect what somebody who helps needs to see into one file, without secrets
    SupportBundle(SupportBundleArgs),
    /// Make a node's data directory anew from the writer's node; the old one is kept
    Rebuild(RebuildArgs),
    /// Record a single copy of a datastore, and let commits go on without the lost standby
    Expose(ExposeArgs),
    /// Say whether the writer may be moved without being asked
    ///
    /// `armed` moves it when it is dead by a majority of sites and the other region is proven to
    /// hold every acknowledged write; `observe` records what would have been done; `off` records
    /// that nothing was done. `tier0 status` shows which holds, and why.
    Automatic(AutomaticArgs),
    /// Look at servers that run already, write a stack file and say what they lack
    ///
    /// Nothing is stopped or restarted. With --apply --yes the roles, slots and lines are made that
    /// can be made while clients are served; what takes effect only at a restart is listed.
    Init(InitArgs),
    /// Look after the store of the authority record
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Run a whole stack on this machine
    #[command(subcommand)]
    Lab(LabCommand),
    /// Run the agent of a region
    Agent(AgentArgs),
    /// Run the orchestrator of a site
    Orchestrator(OrchestratorArgs),
    /// Run the router of a region: its routes of kind proxy
    Router(AgentArgs),
    /// Run the reference backend of a region
    TelemetryApi(AgentArgs),
    /// Check a stack file, or print what can stand in one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Print the API's OpenAPI description
    Openapi,
    /// Make the data directory of a datastore's very first node
    #[command(hide = true)]
    LabInitialise {
        /// The stack file
        #[arg(long)]
        config: PathBuf,
        /// Which node, datastore.region
        #[arg(long)]
        node: NodeId,
    },
    /// Carry the packets between the sites of a lab
    #[command(hide = true)]
    LabLinks {
        /// The lab's directory
        #[arg(long)]
        directory: PathBuf,
        /// The lab's number
        #[arg(long)]
        instance: u8,
        /// From which number chance is drawn
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every problem of a stack file, each at its line
    Check {
        /// The stack file
        file: PathBuf,
    },
    /// Print what each setting means, its default and its bounds
    Reference,
    /// Print a whole stack file to begin with
    Example,
}

#[derive(Debug, Args)]
pub struct Read {
    #[command(flatten)]
    pub target: Target,
    /// Print the API's JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AvailabilityArgs {
    #[command(flatten)]
    pub read: Read,
    /// Something that happens: its name, how often a year, and for how many seconds nobody is served
    /// then. May be given several times
    #[arg(long = "event", value_name = "NAME:PER_YEAR:SECONDS")]
    pub events: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the writer would move; the other region unless said otherwise
    pub region: Option<Region>,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// Where the writer should be
    pub region: Region,
    #[command(flatten)]
    pub how: MoveArgs,
}

#[derive(Debug, Args)]
pub struct MoveArgs {
    #[command(flatten)]
    pub read: Read,
    /// Print the steps and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Why; goes into the history
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Promote even a node that is not proven to hold every acknowledged write
    #[arg(long, requires = "reason")]
    pub accept_loss: bool,
    /// The old side is down although its agent is silent: you have checked it
    #[arg(long, requires = "accept_loss")]
    pub old_side_is_down: bool,
    /// Wait until the target has caught up, for at most so many seconds, instead of being refused
    /// because it is behind
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub wait: Option<u32>,
    /// Repeating a command with the same key is the same operation
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The operation's id, or its beginning; `last` is the newest change of the writer, or, where
    /// there was none, the newest of all
    pub id: String,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The operation's id, or its beginning; `last` is the newest change of the writer. All lines
    /// that are kept unless said otherwise
    pub operation: Option<String>,
    /// Go on until the operation is over
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub read: Read,
}

#[derive(Debug, Args)]
pub struct SupportBundleArgs {
    #[command(flatten)]
    pub target: Target,
    /// Where to write it; a file that is there is left alone
    #[arg(long, default_value = "tier0-support.tar.gz", value_name = "FILE")]
    pub output: PathBuf,
    /// The stack file, to put it in and to know which secrets to cut out
    #[arg(long, env = "TIER0_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Which node, datastore.region
    pub node: NodeId,
    #[command(flatten)]
    pub read: Read,
    /// Print the steps and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Why; goes into the history
    #[arg(long, default_value = "")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct ExposeArgs {
    /// Which datastore
    pub datastore: DatastoreName,
    #[command(flatten)]
    pub read: Read,
    /// Print the steps and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Why; goes into the history
    #[arg(long)]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct AutomaticArgs {
    /// What is to hold from now on
    #[arg(value_enum)]
    pub mode: AutomaticChoice,
    #[command(flatten)]
    pub read: Read,
    /// For how long, as in 90s, 30m or 2h; then what held before holds again
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub lasting: Option<u64>,
    /// Why; shown until this is changed
    #[arg(long)]
    pub reason: String,
}

/// What can be said of automatic moves.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AutomaticChoice {
    /// The writer is moved
    Armed,
    /// It is recorded what would have been done
    Observe,
    /// It is recorded that nothing was done
    Off,
}

/// A time with its unit, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a time: say it as in 90s, 30m, 2h or 7d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some(_) | None => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Begin the record anew from what the agents have heard, after the store was lost
    ///
    /// Stop every orchestrator first. The old store is set aside, never deleted. Takeover sets begin
    /// empty, so the stack is exposed until its standbys have joined again, which they do by
    /// themselves.
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The stack file
    #[arg(long, env = "TIER0_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// The site whose store it is
    #[arg(long)]
    pub site: Site,
    /// The region that is the writer from now on
    #[arg(long)]
    pub writer: Region,
    /// A region whose agent and disks are gone for good, so that it need not be asked
    #[arg(long, value_name = "REGION")]
    pub lost_region: Vec<Region>,
    /// Do it; without this only what would be done is printed
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The stack file
    #[arg(long, env = "TIER0_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Which region
    #[arg(long)]
    pub region: Region,
}

#[derive(Debug, Args)]
pub struct OrchestratorArgs {
    /// The stack file
    #[arg(long, env = "TIER0_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Which site
    #[arg(long)]
    pub site: Site,
}
