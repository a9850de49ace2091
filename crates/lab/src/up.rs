//! Bringing a lab up: directories, secrets, stack file, first data, Sentinels, roles, and then
//! waiting until the orchestrator says *protected*.
//!
//! PostgreSQL and Redis are started by the agents, never here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tier0_config::{RedisMode, RouteKind, RouteSettings, Stack};
use tier0_core::observe::ProtectionMode;
use tier0_core::record::{AutomaticMode, DatastoreKind};
use tier0_core::words::{NodeId, Site};

use crate::account::Account;
use crate::api::{Api, Protected};
use crate::down::{self, Data};
use crate::fault::disk::{self, Disks};
use crate::files;
use crate::launch::{Launcher, Program, User};
use crate::members;
use crate::network::{End, Network, control, namespaces};
use crate::placement::{Place, Placement};
use crate::plan::{self, Orchestrators, Routers, Size};
use crate::pools;
use crate::preflight;
use crate::processes;
use crate::progress::Progress;
use crate::secrets::SecretFiles;
use crate::sentinels;
use crate::state::{self, Kind, LabState, Phase, Started};

/// How long the links may take until they answer.
const LINKS: Duration = Duration::from_secs(10);

/// What to bring up.
#[derive(Debug, Clone)]
pub struct UpPlan {
    /// Which instance.
    pub instance: u8,
    /// Where; see [`state::directory_of`].
    pub directory: PathBuf,
    /// How many datastores.
    pub size: Size,
    /// How its sites are apart.
    pub network: Network,
    /// Whether nodes have file systems of their own.
    pub disks: Disks,
    /// From which number the links draw what is lost and how late the rest is.
    pub seed: u64,
    /// The `tier0` binary.
    pub binary: PathBuf,
    /// How long the stack may take to become protected.
    pub limit: Duration,
}

impl UpPlan {
    /// The usual lab: one PostgreSQL, one Redis, with the binary that is running.
    pub fn usual(instance: u8, directory: Option<&Path>) -> Result<UpPlan> {
        let binary = match std::env::var_os("TIER0_BINARY") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe().context("find this program's file")?,
        };
        Ok(UpPlan {
            instance,
            directory: state::directory_of(instance, directory)?,
            size: Size {
                postgres: 1,
                redis: 1,
                redis_mode: RedisMode::Vote,
                automatic: AutomaticMode::Off,
                protection: ProtectionMode::MaxAvailability,
                routers: Routers::None,
                orchestrators: Orchestrators::One,
            },
            network: Network::Loopback,
            disks: Disks::Shared,
            seed: 1,
            binary,
            limit: Duration::from_secs(45),
        })
    }
}

/// What `up` found or did.
#[derive(Debug)]
pub enum Up {
    /// It was up already, and nothing was changed.
    Already(LabState),
    /// It is up now.
    Now(LabState),
}

impl Up {
    /// The lab that is up.
    pub fn state(self) -> LabState {
        match self {
            Up::Already(state) | Up::Now(state) => state,
        }
    }
}

/// Bring a lab up. On failure its processes are ended, and its logs stay.
pub async fn up(plan: &UpPlan, progress: Progress) -> Result<Up> {
    let account = Account::unprivileged()?;
    if let Some(state) = found_up(plan, &account)? {
        let api = Api::of(&state)?;
        return match api.wait_protected(Duration::from_secs(10)).await {
            (_, Protected::Yes) => Ok(Up::Already(state)),
            (status, Protected::No) => bail!(
                "a lab runs in {} but is not protected ({}); see `tier0 status`, or remove it: {}",
                state.directory.display(),
                summary(status.as_ref()),
                state.removal()
            ),
        };
    }
    match start(plan, &account, progress).await {
        Ok(state) => Ok(Up::Now(state)),
        Err(error) => {
            let logs = log_tails(&plan.directory);
            down::stop(&plan.directory, &account, Data::Keep, progress).await?;
            Err(error.context(format!(
                "the lab did not come up; its files are in {}, remove them with: {}{logs}",
                plan.directory.display(),
                state::removal(plan.instance, &plan.directory)
            )))
        }
    }
}

/// The lab that is up already; an error where something else is in the way.
fn found_up(plan: &UpPlan, account: &Account) -> Result<Option<LabState>> {
    let running = processes::of_lab(&plan.directory, account.uid);
    match LabState::load(&plan.directory)? {
        Some(state)
            if state.phase == Phase::Up
                && state.started.iter().all(|one| processes::is_running(one.process)) =>
        {
            Ok(Some(state))
        }
        Some(_) | None if !running.is_empty() => bail!(
            "a leftover stack with {} processes is in {}; remove it with: {}",
            running.len(),
            plan.directory.display(),
            state::removal(plan.instance, &plan.directory)
        ),
        Some(_) => {
            // Nothing of it runs: what is left are logs of a stack that is gone.
            if rustix::process::geteuid().is_root() {
                disk::unmount(&plan.directory)?;
            }
            std::fs::remove_dir_all(&plan.directory)
                .with_context(|| format!("remove {}", plan.directory.display()))?;
            Ok(None)
        }
        None => {
            let occupied = std::fs::read_dir(&plan.directory)
                .is_ok_and(|mut entries| entries.next().is_some());
            if occupied {
                bail!(
                    "{} is not empty and holds no lab: choose another --directory",
                    plan.directory.display()
                );
            }
            Ok(None)
        }
    }
}

async fn start(plan: &UpPlan, account: &Account, progress: Progress) -> Result<LabState> {
    let found = preflight::check(&plan.directory, account)?;
    if plan.network == Network::Namespaces
        && let Some(why) = namespaces::unavailable()
    {
        bail!("a namespace per site cannot be had here: {why}");
    }
    let mut placement = Placement::new(plan.instance, plan.network)?;
    let stack = plan::stack(&plan.directory, plan.size, &mut placement, &found)?;
    progress.say(format!(
        "lab {} in {}, servers run as {}",
        plan.instance,
        plan.directory.display(),
        account.name
    ));
    for sentence in placement.moved() {
        progress.say(sentence);
    }
    let mut state = lay_out(plan, account, &stack)?;
    let launcher = Launcher {
        instance: plan.instance,
        directory: plan.directory.clone(),
        account: account.clone(),
        network: plan.network,
    };
    if plan.network == Network::Namespaces {
        namespaces::create(plan.instance)?;
        state.started.push(start_links(plan, &launcher).await?);
        state.save(account)?;
        progress.say("a network namespace for each site, and links between them");
    }
    initialise(&stack, &launcher).await?;
    progress.say("first PostgreSQL data made");
    state.started.extend(sentinels::start(&stack, &launcher, &found.programs)?);
    if found.programs.pgbouncer.is_none() {
        progress.say("pgbouncer is missing, so there are no routes: apt-get install pgbouncer");
    }
    state.started.extend(pools::start(&stack, &launcher, &found.programs)?);
    state.started.extend(members::start(&stack, &launcher, &found.programs)?);
    state.started.extend(start_roles(&stack, &launcher)?);
    state.save(account)?;
    progress.say(format!("{} processes started", state.started.len()));
    wait(&state, plan.limit, progress).await?;
    state.phase = Phase::Up;
    state.save(account)?;
    Ok(state)
}

/// Directories, secrets, the binary and the stack file.
fn lay_out(plan: &UpPlan, account: &Account, stack: &Stack) -> Result<LabState> {
    let directory = &plan.directory;
    files::create_directory(directory, account)?;
    files::create_directory(&directory.join("logs"), account)?;
    SecretFiles::below(directory).create(account)?;
    if plan.disks == Disks::Own {
        disk::mount(directory, stack, account)?;
    }
    for node in stack.datastores.iter().flat_map(|datastore| &datastore.nodes) {
        for path in [Some(&node.data_directory), node.archive_directory.as_ref()] {
            if let Some(parent) = path.and_then(|path| path.parent()) {
                files::create_directory(parent, account)?;
            }
        }
        if let Some(archive) = &node.archive_directory {
            files::create_directory(archive, account)?;
        }
    }
    let states = stack.agents.iter().map(|agent| &agent.state_directory);
    let proxies = stack.routes.iter().filter(|route| route.kind == RouteKind::Proxy);
    let states = states.chain(proxies.map(|route| &route.socket_directory));
    for path in states.chain(stack.orchestrators.iter().map(|one| &one.state_directory)) {
        files::create_directory(path, account)?;
    }
    let binary =
        std::fs::read(&plan.binary).with_context(|| format!("read {}", plan.binary.display()))?;
    files::write_program(&directory.join("tier0"), &binary, account)?;
    let text = stack.to_toml().context("write the stack file")?;
    let state = LabState::new(plan.instance, directory, account, plan.network, stack)?;
    files::write_private(&state.stack_file, text.as_bytes(), account)?;
    state.save(account)?;
    Ok(state)
}

/// Make the data of the first node of every PostgreSQL datastore, side by side.
async fn initialise(stack: &Stack, launcher: &Launcher) -> Result<()> {
    let mut tasks = Vec::new();
    for datastore in &stack.datastores {
        if datastore.kind != DatastoreKind::Postgres {
            continue;
        }
        let place = Place::Region1;
        let node = NodeId::new(datastore.name.clone(), place.region());
        let log = launcher.directory.join("logs").join(format!("initialise.{node}.log"));
        let program = launcher.directory.join("tier0");
        let mut command = launcher.prepare(&program, &log, User::Lab)?;
        command
            .arg("lab-initialise")
            .arg("--config")
            .arg(launcher.directory.join("stack.toml"))
            .args(["--node", &node.to_string()]);
        let mut command = tokio::process::Command::from(command);
        let runtime = tokio::runtime::Handle::current();
        let spawned = launcher.at(place.into(), || {
            let _entered = runtime.enter();
            command.spawn()
        })?;
        let mut child = spawned.with_context(|| format!("initialise {node}"))?;
        tasks.push(async move {
            let status = child.wait().await.with_context(|| format!("initialise {node}"))?;
            if !status.success() {
                bail!("initialising {node} failed: {}", files::tail(&log, 5).join(" | "));
            }
            Ok(())
        });
    }
    futures_util::future::try_join_all(tasks).await?;
    Ok(())
}

fn start_roles(stack: &Stack, launcher: &Launcher) -> Result<Vec<Started>> {
    let mut started = Vec::new();
    for one in &stack.orchestrators {
        let directory = one.state_directory.clone();
        let role = Role { kind: Kind::Orchestrator, site: one.site.clone(), directory };
        started.push(role.start(launcher, one.listen, &[])?);
    }
    for agent in &stack.agents {
        let site = agent.region.as_str().parse()?;
        let role = Role { kind: Kind::Agent, site, directory: agent.state_directory.clone() };
        started.push(role.start(launcher, agent.listen, &[])?);
    }
    for agent in &stack.agents {
        let own =
            |route: &&RouteSettings| route.kind == RouteKind::Proxy && route.region == agent.region;
        // One process has all of them; its address is that of the first.
        let Some(first) = stack.routes.iter().find(own) else { continue };
        let site = agent.region.as_str().parse()?;
        let directory = first.socket_directory.clone();
        let role = Role { kind: Kind::Router, site, directory };
        started.push(role.start(launcher, first.address, &[])?);
    }
    for telemetry in &stack.telemetry {
        let site = telemetry.region.as_str().parse()?;
        let role = Role { kind: Kind::Telemetry, site, directory: launcher.directory.clone() };
        started.push(role.start(launcher, telemetry.listen, &[])?);
    }
    Ok(started)
}

/// Start what carries packets between the sites, and wait until it does.
async fn start_links(plan: &UpPlan, launcher: &Launcher) -> Result<Started> {
    let name = "links".to_owned();
    let log = launcher.directory.join("logs").join(format!("{name}.log"));
    let arguments: Vec<OsString> = vec![
        "lab-links".into(),
        "--directory".into(),
        launcher.directory.clone().into(),
        "--instance".into(),
        plan.instance.to_string().into(),
        "--seed".into(),
        plan.seed.to_string().into(),
    ];
    let end = End::Clients;
    let process = launcher.start(&Program {
        // Not the lab's copy, which belongs to the lab's user: this one runs as root.
        path: plan.binary.clone(),
        arguments,
        environment: Vec::new(),
        log: log.clone(),
        end,
        user: User::Starter,
    })?;
    let deadline = tokio::time::Instant::now() + LINKS;
    while let Err(error) = control::ask(&launcher.directory, &[]) {
        if tokio::time::Instant::now() >= deadline || !processes::is_running(process) {
            return Err(error.context(files::tail(&log, 3).join(" | ")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Started {
        name,
        site: end.name().parse()?,
        kind: Kind::Links,
        process,
        address: std::net::SocketAddr::new(end.address(plan.instance).into(), 0),
        log,
        directory: launcher.directory.clone(),
    })
}

struct Role {
    kind: Kind,
    site: Site,
    directory: PathBuf,
}

impl Role {
    fn start(
        self,
        launcher: &Launcher,
        address: std::net::SocketAddr,
        environment: &[(String, String)],
    ) -> Result<Started> {
        let (command, flag) = match self.kind {
            Kind::Agent => ("agent", "--region"),
            Kind::Orchestrator => ("orchestrator", "--site"),
            Kind::Router => ("router", "--region"),
            Kind::Telemetry => ("telemetry-api", "--region"),
            Kind::Sentinel | Kind::Route | Kind::Store => {
                bail!("{} is no role of the binary", self.site)
            }
            Kind::Links => bail!("links that ended have left nothing: take the lab down"),
        };
        let name = format!("{command}.{}", self.site);
        let log = launcher.directory.join("logs").join(format!("{name}.log"));
        let config = launcher.directory.join("stack.toml");
        let arguments: Vec<OsString> = vec![
            command.into(),
            "--config".into(),
            config.into(),
            flag.into(),
            self.site.as_str().into(),
        ];
        let program = Program {
            path: launcher.directory.join("tier0"),
            arguments,
            environment: environment.to_vec(),
            log: log.clone(),
            end: self.site.as_str().parse()?,
            user: User::Lab,
        };
        let process = launcher.start(&program)?;
        Ok(Started {
            name,
            site: self.site,
            kind: self.kind,
            process,
            address,
            log,
            directory: self.directory,
        })
    }
}

/// Start a process again that ended, with the same settings and, for roles, extra variables; for
/// tests and the bench.
pub fn restart(state: &mut LabState, name: &str, environment: &[(String, String)]) -> Result<()> {
    let account = Account::unprivileged()?;
    let launcher = Launcher {
        instance: state.instance,
        directory: state.directory.clone(),
        account: account.clone(),
        network: state.network,
    };
    let stack = state.stack()?;
    let old = state
        .started
        .iter_mut()
        .find(|one| one.name == name)
        .with_context(|| format!("the lab started nothing named {name}"))?;
    if processes::is_running(old.process) {
        bail!("{name} runs already");
    }
    let programs = || {
        let mut problems = Vec::new();
        let programs = preflight::find_programs(&mut problems);
        programs.with_context(|| problems.join("; "))
    };
    *old = match old.kind {
        Kind::Sentinel => sentinels::start_one(&stack, &launcher, &programs()?, &old.site)?,
        Kind::Store => members::start_one(&stack, &launcher, &programs()?, &old.site)?,
        Kind::Route => {
            let route = stack.routes.iter().find(|route| route.id().to_string() == name);
            let route = route.with_context(|| format!("the stack has no route {name}"))?;
            pools::start_one(&stack, &launcher, &programs()?, route)?
        }
        Kind::Agent | Kind::Orchestrator | Kind::Router | Kind::Telemetry | Kind::Links => {
            let role =
                Role { kind: old.kind, site: old.site.clone(), directory: old.directory.clone() };
            role.start(&launcher, old.address, environment)?
        }
    };
    state.save(&account)
}

async fn wait(state: &LabState, limit: Duration, progress: Progress) -> Result<()> {
    let api = Api::of(state)?;
    let deadline = tokio::time::Instant::now() + limit;
    let mut said = String::new();
    loop {
        if let Some(ended) = state.started.iter().find(|one| !processes::is_running(one.process)) {
            bail!("{} ended: {}", ended.name, files::tail(&ended.log, 3).join(" | "));
        }
        let (status, protected) = api.wait_protected(Duration::from_millis(250)).await;
        let now = summary(status.as_ref());
        if now != said {
            progress.say(&now);
            said = now;
        }
        if protected == Protected::Yes {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("not protected after {} s: {said}", limit.as_secs());
        }
    }
}

fn summary(status: Option<&serde_json::Value>) -> String {
    let Some(status) = status else { return "the orchestrator does not answer yet".to_owned() };
    let text = |name: &str| status.get(name).and_then(|value| value.as_str()).unwrap_or("?");
    let number = |name: &str| status.get(name).map_or("?".to_owned(), ToString::to_string);
    format!(
        "{}, writer {}, epoch {}, revision {}",
        text("protection"),
        text("current_region"),
        number("epoch"),
        number("revision")
    )
}

fn log_tails(directory: &Path) -> String {
    let mut text = String::new();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory.join("logs"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    for path in paths {
        let lines = files::tail(&path, 6);
        if !lines.is_empty() {
            text.push_str(&format!("\n--- {}\n{}", path.display(), lines.join("\n")));
        }
    }
    text
}
