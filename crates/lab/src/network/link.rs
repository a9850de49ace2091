//! `lab link`: shows the links of a lab, and changes them as an operator says it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::control::{self, LaneView, Order, What};
use super::shape::{Change, Connections, Delay, Flow, Loss, Rate};
use super::{End, Network};
use crate::command::Which;
use crate::state::LabState;

/// Show the links between the sites of a lab, or change some.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// One end: region1, region2, witness, or clients, which is the host.
    pub from: Option<End>,
    /// The other end; every other one, if it is not named.
    pub to: Option<End>,
    /// How much later packets arrive, each way, as 40ms.
    #[arg(long, requires = "from")]
    pub delay: Option<Delay>,
    /// By how much more or less than the delay, at random, as 10ms.
    #[arg(long, requires = "from")]
    pub jitter: Option<Delay>,
    /// The share of packets that vanish, each way, as 2%.
    #[arg(long, requires = "from")]
    pub loss: Option<Loss>,
    /// How much fits through, each way, as 100mbit.
    #[arg(long, requires = "from")]
    pub rate: Option<Rate>,
    /// The share of packets that arrive twice, each way, as 2%.
    #[arg(long, requires = "from")]
    pub doubled: Option<Loss>,
    /// The share of TCP packets that end their connection, each way, as 1%.
    #[arg(long, requires = "from")]
    pub reset: Option<Loss>,
    /// Let no packet pass that is larger, in bytes; nobody is told.
    #[arg(long, requires = "from", value_name = "BYTES")]
    pub largest: Option<u16>,
    /// Which TCP connections pass.
    #[arg(long, requires = "from")]
    pub connections: Option<Connections>,
    /// Let nothing pass; nobody is told.
    #[arg(long, requires = "from", conflicts_with_all = ["cut_one_way", "heal", "restore"])]
    pub cut: bool,
    /// Let nothing pass from the first end to the second; the way back stays as it is.
    #[arg(long, requires = "from", conflicts_with_all = ["heal", "restore"])]
    pub cut_one_way: bool,
    /// Undo a cut; delay, loss and the others stay.
    #[arg(long, requires = "from", conflicts_with = "restore")]
    pub heal: bool,
    /// Undo everything.
    #[arg(long, requires = "from", conflicts_with_all = ["delay", "jitter", "loss", "rate", "doubled", "reset", "largest", "connections"])]
    pub restore: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// Do it, and show what was meant.
pub fn run(state: &LabState, arguments: &LinkArgs) -> Result<ExitCode> {
    let orders = orders(arguments)?;
    let mut views = of_lab(state, &orders)?;
    if let Some(from) = arguments.from {
        let meant = between(from, arguments.to)?;
        views.retain(|view| meant.contains(&(view.from, view.to)));
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&views).context("the links as JSON")?);
    } else {
        print!("{}", text(&views));
    }
    Ok(ExitCode::SUCCESS)
}

/// Give orders to the links of a lab, if it has any, and see how they are.
pub fn of_lab(state: &LabState, orders: &[Order]) -> Result<Vec<LaneView>> {
    match state.network {
        Network::Namespaces => control::ask(&state.directory, orders),
        Network::Loopback => bail!(
            "the sites of this lab are loopback addresses, and have no links; take it down and \
             bring it up with: tier0 lab up --netns"
        ),
    }
}

fn orders(arguments: &LinkArgs) -> Result<Vec<Order>> {
    let Some(from) = arguments.from else { return Ok(Vec::new()) };
    let both = between(from, arguments.to)?;
    let forth = || both.iter().copied().filter(|(begin, _)| *begin == from).collect();
    let mut change = Change {
        delay: arguments.delay,
        jitter: arguments.jitter,
        loss: arguments.loss,
        rate: arguments.rate,
        doubled: arguments.doubled,
        reset: arguments.reset,
        largest: arguments.largest,
        connections: arguments.connections,
        flow: None,
    };
    let mut orders = Vec::new();
    if arguments.restore {
        return Ok(vec![Order { lanes: both, what: What::Restore }]);
    }
    if arguments.cut_one_way {
        let what = What::Change(Change::flow(Flow::Cut));
        orders.push(Order { lanes: forth(), what });
    } else if arguments.cut {
        change.flow = Some(Flow::Cut);
    } else if arguments.heal {
        change.flow = Some(Flow::Open);
    }
    orders.push(Order { lanes: both, what: What::Change(change) });
    Ok(orders)
}

/// The lanes between two ends, or between one and all others, both ways.
pub fn between(one: End, other: Option<End>) -> Result<Vec<(End, End)>> {
    if other == Some(one) {
        bail!("{} has no link with itself", one.name());
    }
    let others = End::ALL.into_iter().filter(|end| *end != one);
    let meant = others.filter(|end| other.is_none_or(|other| other == *end));
    Ok(meant.flat_map(|end| [(one, end), (end, one)]).collect())
}

/// One line per direction.
pub fn text(views: &[LaneView]) -> String {
    let mut text = format!(
        "{:<22} {:<36} {:>9} {:>8} {:>6} {:>10}\n",
        "packets from → to", "what becomes of them", "arrived", "cut", "lost", "overflowed"
    );
    for view in views {
        text.push_str(&format!(
            "{:<22} {:<36} {:>9} {:>8} {:>6} {:>10}\n",
            format!("{} → {}", view.from.name(), view.to.name()),
            view.shape.text(),
            view.counts.carried,
            view.counts.cut,
            view.counts.lost,
            view.counts.overflowed
        ));
    }
    text
}
