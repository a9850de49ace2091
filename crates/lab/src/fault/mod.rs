//! `lab fault`: breaks one part of a running lab, says what it did, and how to undo it.
//!
//! What is broken is seen from the processes, links and disks themselves. Only which processes a
//! fault froze is noted: see [`frozen`].

pub mod disk;
mod frozen;
pub mod region;
pub mod target;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::Signal;

use self::target::Target;
use crate::command::Which;
use crate::network::control::{Order, What};
use crate::network::link;
use crate::network::shape::{Change, Flow};
use crate::network::{End, Network};
use crate::processes::{self, Identity};
use crate::state::{Kind, LabState};
use crate::up;

/// Break one part of a lab, or mend it.
///
/// Without arguments, or with `list`, it says what can be broken and what is broken now.
#[derive(Debug, Args)]
pub struct FaultArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// What to break: region1, region1-region2, main.region1, main.region1/walsender; or `list`; or
    /// `heal`, to mend everything or what is named after it.
    pub target: Option<String>,
    /// How to break it; `heal` mends it.
    pub fault: Option<String>,
}

/// The ways to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// Packets vanish, both ways.
    Cut,
    /// Packets that it sends vanish.
    CutOut,
    /// Packets that are sent to it vanish.
    CutIn,
    /// Its file system has no room left.
    DiskFull,
    /// Its file system takes nothing more, and whoever writes waits.
    DiskStuck,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Freeze => "freeze",
            Fault::Cut => "cut",
            Fault::CutOut => "cut-out",
            Fault::CutIn => "cut-in",
            Fault::DiskFull => "disk-full",
            Fault::DiskStuck => "disk-stuck",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Fault::Kill => "SIGKILL to a site, a process, or a part of PostgreSQL",
            Fault::Freeze => "SIGSTOP to the same: it is there and says nothing",
            Fault::Cut => "packets from and to a site, or over a link, vanish (--netns)",
            Fault::CutOut => "only those that it sends; over a link: from the first end (--netns)",
            Fault::CutIn => "only those that it gets; over a link: to the first end (--netns)",
            Fault::DiskFull => "no room in the file systems of a site or process (--own-disks)",
            Fault::DiskStuck => {
                "whoever writes to them waits, and nothing is refused (--own-disks)"
            }
        }
    }
}

/// What was done, one sentence each.
pub type Done = Vec<String>;

/// Do what was asked for, and say it.
pub async fn run(arguments: &FaultArgs) -> Result<ExitCode> {
    let mut state = arguments.which.state()?;
    let undo = |what: &str| format!("undo: tier0 lab fault{} heal {what}", arguments.which.flags());
    match (arguments.target.as_deref(), arguments.fault.as_deref()) {
        (None | Some("list"), None) => print!("{}", list(&state)?),
        (Some("list"), Some(_)) => bail!("`lab fault list` takes nothing more"),
        (Some("heal"), target) => {
            let target = target.map(str::parse).transpose()?;
            say(&heal(&mut state, target.as_ref())?);
        }
        (Some(target), Some("heal")) => say(&heal(&mut state, Some(&target.parse()?))?),
        (Some(target), Some(fault)) => {
            let Ok(fault) = Fault::from_str(fault, false) else {
                bail!("'{fault}' is no fault; see: tier0 lab fault list");
            };
            say(&apply(&state, &target.parse()?, fault).await?);
            println!("{}", undo(target));
        }
        (Some(target), None) => bail!("what is to become of {target}? see: tier0 lab fault list"),
        (None, Some(_)) => bail!("name a target first"),
    }
    Ok(ExitCode::SUCCESS)
}

fn say(done: &Done) {
    match done.is_empty() {
        true => println!("nothing of it is broken"),
        false => done.iter().for_each(|sentence| println!("{sentence}")),
    }
}

/// Break something.
pub async fn apply(state: &LabState, target: &Target, fault: Fault) -> Result<Done> {
    match fault {
        Fault::Kill => kill(state, target).await,
        Fault::Freeze => freeze(state, target),
        Fault::Cut | Fault::CutOut | Fault::CutIn => cut(state, target, fault),
        Fault::DiskFull => {
            let names = disks(state, target)?;
            let fill = |name: &String| {
                let bytes = disk::fill(state, name)?;
                Ok(format!("{name}: its disk is full; {} MiB of it are ballast", bytes >> 20))
            };
            names.iter().map(fill).collect()
        }
        Fault::DiskStuck => {
            let stick = |name: &String| {
                disk::stick(state, name)?;
                Ok(format!("{name}: its disk takes nothing more"))
            };
            disks(state, target)?.iter().map(stick).collect()
        }
    }
}

async fn kill(state: &LabState, target: &Target) -> Result<Done> {
    let killed = match target {
        Target::Site(site) => region::kill(state, with_processes(*site)?).await?,
        Target::Process(name) => {
            let process = target::named(state, name)?;
            kill_all(vec![process.with_context(|| format!("{name} does not run"))?])
        }
        Target::Part(name, part) => kill_all(target::parts(state, name, *part)?),
        Target::Link(..) => bail!("a link has no processes; a link can be cut"),
    };
    Ok(vec![format!("SIGKILL to {killed} processes")])
}

fn kill_all(all: Vec<Identity>) -> usize {
    all.iter().for_each(|one| processes::signal(*one, Signal::KILL));
    all.len()
}

fn freeze(state: &LabState, target: &Target) -> Result<Done> {
    let frozen = match target {
        Target::Site(site) => region::freeze(state, with_processes(*site)?)?,
        Target::Process(name) => freeze_all(state, &target::tree(state, name)?)?,
        Target::Part(name, part) => freeze_all(state, &target::parts(state, name, *part)?)?,
        Target::Link(..) => bail!("a link has no processes; a link can be cut"),
    };
    Ok(vec![format!("SIGSTOP to {frozen} processes")])
}

fn freeze_all(state: &LabState, all: &[Identity]) -> Result<usize> {
    frozen::freeze(state, all)?;
    Ok(all.len())
}

fn with_processes(site: End) -> Result<&'static str> {
    match site {
        End::Clients => bail!("the lab has no processes at the clients; they can be cut off"),
        End::Region1 | End::Region2 | End::Witness => Ok(site.name()),
    }
}

/// The lanes of a target, in both directions, with the end that is meant.
pub fn lanes(target: &Target) -> Result<(End, Vec<(End, End)>)> {
    match target {
        Target::Site(site) => Ok((*site, link::between(*site, None)?)),
        Target::Link(one, other) => Ok((*one, link::between(*one, Some(*other))?)),
        Target::Process(name) | Target::Part(name, _) => {
            bail!("{name} has no network of its own: cut its site off, or a link")
        }
    }
}

fn cut(state: &LabState, target: &Target, fault: Fault) -> Result<Done> {
    let (meant, both) = lanes(target)?;
    let chosen: Vec<(End, End)> = both
        .into_iter()
        .filter(|(from, to)| match fault {
            Fault::CutOut => *from == meant,
            Fault::CutIn => *to == meant,
            Fault::Kill | Fault::Freeze | Fault::Cut | Fault::DiskFull | Fault::DiskStuck => true,
        })
        .collect();
    set_flow(state, &chosen, Flow::Cut)?;
    Ok(chosen.iter().map(|(from, to)| between_text("vanish", *from, *to)).collect())
}

fn between_text(what: &str, from: End, to: End) -> String {
    format!("packets from {} to {} {what}", from.name(), to.name())
}

fn set_flow(state: &LabState, lanes: &[(End, End)], flow: Flow) -> Result<()> {
    let what = What::Change(Change::flow(flow));
    link::of_lab(state, &[Order { lanes: lanes.to_vec(), what }]).map(|_| ())
}

/// The names of the disks that belong to a target.
fn disks(state: &LabState, target: &Target) -> Result<Vec<String>> {
    match target {
        Target::Process(name) | Target::Part(name, _) => Ok(vec![name.clone()]),
        Target::Site(site) => {
            let all = disk::all(&state.stack()?).into_iter().map(|(name, _)| name);
            Ok(all.filter(|name| is_at(name, *site)).collect())
        }
        Target::Link(..) => bail!("a link has no disk"),
    }
}

/// Whether something of this name is at a site: names end in it.
fn is_at(name: &str, site: End) -> bool {
    name.rsplit_once('.').is_some_and(|(_, place)| place == site.name())
}

/// Mend what is broken, all of it or what belongs to a target. Safe to repeat: what is whole is
/// left alone. What was killed and is a data server is its agent's business.
pub fn heal(state: &mut LabState, target: Option<&Target>) -> Result<Done> {
    let mut done = Vec::new();
    for (name, place) in disk::all(&state.stack()?) {
        if meant(target, &name) && disk::release(&state.directory, &name, &place)? {
            done.push(format!("{name}: its disk goes on"));
        }
        if meant(target, &name) && disk::empty(&place)? {
            done.push(format!("{name}: its disk has room again"));
        }
    }
    let cut = lanes_cut(state)?;
    let cut: Vec<(End, End)> = match target {
        None => cut,
        Some(target) => {
            let of_target = lanes(target).map(|(_, lanes)| lanes).unwrap_or_default();
            cut.into_iter().filter(|lane| of_target.contains(lane)).collect()
        }
    };
    if !cut.is_empty() {
        set_flow(state, &cut, Flow::Open)?;
        done.extend(cut.iter().map(|(from, to)| between_text("pass again", *from, *to)));
    }
    let meant_processes: Vec<Identity> = match target {
        None => {
            processes::of_lab(&state.directory, state.uid).iter().map(|one| one.identity).collect()
        }
        Some(Target::Site(site)) => region::members(state, site.name()),
        Some(Target::Process(name) | Target::Part(name, _)) => {
            target::tree(state, name).unwrap_or_default()
        }
        Some(Target::Link(..)) => Vec::new(),
    };
    let thawed = frozen::thaw(state, &meant_processes)?;
    if thawed > 0 {
        done.push(format!("SIGCONT to {thawed} processes"));
    }
    for name in down(state) {
        if meant(target, &name) {
            up::restart(state, &name, &[])?;
            done.push(format!("{name} started again"));
        }
    }
    Ok(done)
}

/// Whether a target takes in something of this name.
fn meant(target: Option<&Target>, name: &str) -> bool {
    match target {
        None => true,
        Some(Target::Site(site)) => is_at(name, *site),
        Some(Target::Process(of) | Target::Part(of, _)) => of == name,
        Some(Target::Link(..)) => false,
    }
}

/// What the lab started and does not run; links cannot be started again.
fn down(state: &LabState) -> Vec<String> {
    let started = state.started.iter().filter(|one| one.kind != Kind::Links);
    started.filter(|one| !processes::is_running(one.process)).map(|one| one.name.clone()).collect()
}

fn lanes_cut(state: &LabState) -> Result<Vec<(End, End)>> {
    if state.network == Network::Loopback {
        return Ok(Vec::new());
    }
    let views = link::of_lab(state, &[])?;
    let cut = views.iter().filter(|view| view.shape.flow == Flow::Cut);
    Ok(cut.map(|view| (view.from, view.to)).collect())
}

/// What can be broken, and what is.
fn list(state: &LabState) -> Result<String> {
    let mut text = "faults: tier0 lab fault TARGET FAULT\n".to_owned();
    for fault in Fault::value_variants() {
        text.push_str(&format!("  {:<11} {}\n", fault.name(), fault.about()));
    }
    text.push_str(
        "\ntargets\n  region1, region2, witness, clients   a site\n  region1-region2                      \
         a link\n  main.region1, agent.region2, …       a process of `tier0 lab status`\n  \
         main.region1/walsender               a part of PostgreSQL: ",
    );
    let parts: Vec<&str> = target::Part::ALL.into_iter().map(target::Part::name).collect();
    text.push_str(&format!("{}\n\nbroken now\n", parts.join(", ")));
    let broken = broken(state)?;
    match broken.is_empty() {
        true => text.push_str("  nothing\n"),
        false => broken.iter().for_each(|one| text.push_str(&format!("  {one}\n"))),
    }
    Ok(text)
}

/// What is broken now, one sentence each.
pub fn broken(state: &LabState) -> Result<Vec<String>> {
    let mut found: Vec<String> =
        down(state).into_iter().map(|name| format!("{name} does not run")).collect();
    for process in frozen::all(state)? {
        let title = processes::title(process).unwrap_or_default();
        let title: String = title.chars().take(60).collect();
        found.push(format!("process {} is frozen: {}", process.pid, title.trim_end()));
    }
    for (from, to) in lanes_cut(state)? {
        found.push(between_text("vanish", from, to));
    }
    for (name, place) in disk::all(&state.stack()?) {
        if disk::is_full(&place) {
            found.push(format!("{name}: its disk is full"));
        }
        if disk::is_stuck(&state.directory, &name) {
            found.push(format!("{name}: its disk takes nothing"));
        }
    }
    Ok(found)
}
