//! The tables as documents: `docs/states.md` as a whole, and the marked blocks of
//! `docs/data-pipelines.md`, are what is rendered here from the tables, so that they cannot go
//! stale. `TIER0_BLESS=1 cargo test -p tier0-core --test states` writes them anew.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use tier0_core::observe::{
    Announce, DatastoreShape, MovePolicy, OnProcessDeath, ProtectionMode, Shape,
};
use tier0_core::orchestrator::{
    AUTOMATIC, DECIDER, Decision, PROTECTION, ProtectionVerdict, Reaction, SEAT, Takes, back_plan,
    plan,
};
use tier0_core::record::{DatastoreKind, OperationKind};
use tier0_core::route::RouteShape;
use tier0_core::steps::{Scope, Side, Step, StepKey, StepRow, TABLE, Trouble, row};
use tier0_core::words::NodeId;

const HEAD: &str = "\
# States, steps and decisions

This page is rendered from the tables in `crates/core`: the steps in
[`steps/table.rs`](../crates/core/src/steps/table.rs), the decisions in
[`orchestrator/decider.rs`](../crates/core/src/orchestrator/decider.rs). A test compares the two;
`TIER0_BLESS=1 cargo test -p tier0-core --test states` writes the page anew.
";

const STEPS_HEAD: &str = "
## Steps

A step is one effect: on one node of one datastore, or on the record. It begins when every step
under *after* is settled, so what nothing orders runs side by side. *Trouble* says what follows if
the step does not become so. The steps up to `swap` can be undone; from `swap` on there is no way
back, only forward. In a failover clients wait already: nothing waits for `vote` before `announce`, and
it is won after `promote-redis`. Where the writer was found dead, only a route's own steps wait for `hold-route`.
";

const DECIDER_HEAD: &str = "
## Decisions

What is done without being asked. For each datastore the first row that matches decides; `tier0
status` shows the row below each datastore, and each repair names the row that asked for it. The
writer is never moved here.
";

const PROTECTION_HEAD: &str = "
### What is shown of protection

The record says `protected` from a proof until a member leaves; the table is
[`orchestrator/protection.rs`](../crates/core/src/orchestrator/protection.rs).
";

const AUTOMATIC_HEAD: &str = "
### The writer

Whether the writer is moved without being asked; the table is
[`orchestrator/automatic.rs`](../crates/core/src/orchestrator/automatic.rs). It speaks of the worst
doubt about a required datastore, or about one that is moved when its process ends.
";

const SEAT_HEAD: &str = "
### The seat

Which of several orchestrators acts, as each of the others judges it; the table is
[`orchestrator/seat.rs`](../crates/core/src/orchestrator/seat.rs). Two that take the seat at once are
told apart by the store.
";

const TAIL: &str = "
## Ends

An operation ends as `succeeded`, `refused` (nothing was done), `aborted` (undone, the old side is
the writer), `failed`, `done-with-exceptions` (the writer moved, a datastore stays closed and is
retried) or `unknown`. While it runs it is `running`.

## Protection

A datastore is `protected` (a second copy holds every acknowledged write, and commits wait for it),
`at-risk` (that cannot be proven now), `exposed` (one copy, recorded with its reason and its begin)
or `best-effort` (Redis, which promises nothing for an unplanned loss). The stack is as safe as its
least safe datastore.

Where to go next: [the sequence of a switch](data-pipelines.md), [every code](codes/README.md),
[the words](glossary.md).
";

fn document(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(path)
}

/// One PostgreSQL and one Redis datastore in two regions.
fn shape(announce: Announce) -> Shape {
    let datastore = |kind, policy| DatastoreShape {
        kind,
        policy,
        addresses: BTreeMap::new(),
        announce,
        on_process_death: OnProcessDeath::Failover,
        protection: ProtectionMode::MaxAvailability,
    };
    Shape {
        regions: vec!["region1".parse().unwrap(), "region2".parse().unwrap()],
        datastores: BTreeMap::from([
            ("main".parse().unwrap(), datastore(DatastoreKind::Postgres, MovePolicy::Required)),
            ("cache".parse().unwrap(), datastore(DatastoreKind::Redis, MovePolicy::Follow)),
        ]),
        // One of the two, since every route has the same steps.
        routes: BTreeMap::from([(
            "pool.region1".parse().unwrap(),
            RouteShape { datastore: "main".parse().unwrap() },
        )]),
    }
}

fn of(row: &StepRow) -> &'static str {
    match row.scope {
        Scope::Stack => "stack",
        Scope::Each(DatastoreKind::Postgres) => "PostgreSQL",
        Scope::Each(DatastoreKind::Redis) => "Redis",
        Scope::EachRoute => "route",
    }
}

fn side(row: &StepRow) -> &'static str {
    match row.side {
        Side::Here => "orchestrator",
        Side::Record => "record",
        Side::Old => "old side",
        Side::New => "new side",
        Side::Writer => "writer",
        Side::Node => "node",
        Side::Route => "beside clients",
    }
}

fn trouble(row: &StepRow) -> &'static str {
    match row.trouble {
        Trouble::Refuse => "refused, nothing was done",
        Trouble::Abort => "back to the old side",
        Trouble::GoOn => "noted, goes on",
        Trouble::WithoutOldSide => "goes on without the old side if it may, else back",
        Trouble::Forward => "tried again, then an exception",
        Trouble::GiveUp => "the repair ends, looked at again later",
    }
}

fn decision(decision: Decision) -> String {
    match decision {
        Decision::Nothing => "nothing".to_owned(),
        Decision::Wait => "wait".to_owned(),
        Decision::RepairWriter(kind) => format!("{kind} on the writer's node"),
        Decision::RepairOther(kind) => format!("{kind} of the other node"),
    }
}

fn reaction(reaction: Reaction) -> &'static str {
    match reaction {
        Reaction::Nothing => "nothing",
        Reaction::Wait => "wait",
        Reaction::HoldBack => "nothing, recorded as a near miss",
        Reaction::Move => "the writer is moved",
    }
}

fn ids(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "-".to_owned();
    }
    steps.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ")
}

fn states() -> String {
    let mut text = format!("{HEAD}{STEPS_HEAD}\n");
    text.push_str("| step | of | where | what | after | trouble | counted as |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for row in TABLE {
        let counted = row.counts_as.map_or("-", |column| column.id());
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {counted} |",
            row.step,
            of(row),
            side(row),
            row.sentence,
            ids(row.after),
            trouble(row),
        )
        .unwrap();
    }
    text.push_str(DECIDER_HEAD);
    for kind in [DatastoreKind::Postgres, DatastoreKind::Redis] {
        write!(text, "\n### {kind}\n\n| row | when | what is done |\n|---|---|---|\n").unwrap();
        for row in DECIDER.iter().filter(|row| row.kind == kind) {
            writeln!(text, "| {} | {} | {} |", row.id, row.sentence, decision(row.decision))
                .unwrap();
        }
    }
    text.push_str(PROTECTION_HEAD);
    text.push_str("\n| row | when | what is shown |\n|---|---|---|\n");
    for row in PROTECTION {
        let shown = match row.verdict {
            ProtectionVerdict::AsRecorded => "what the record says",
            ProtectionVerdict::AtRisk => "`at-risk`",
        };
        writeln!(text, "| {} | {} | {shown} |", row.id, row.sentence).unwrap();
    }
    text.push_str(AUTOMATIC_HEAD);
    text.push_str("\n| row | when | what is done |\n|---|---|---|\n");
    for row in AUTOMATIC {
        writeln!(text, "| {} | {} | {} |", row.id, row.sentence, reaction(row.reaction)).unwrap();
    }
    text.push_str(SEAT_HEAD);
    text.push_str("\n| row | when | what is done |\n|---|---|---|\n");
    for row in SEAT {
        let done = match row.takes {
            Takes::Seat => "it takes the seat",
            Takes::Nothing => "it watches",
        };
        writeln!(text, "| {} | {} | {done} |", row.id, row.sentence).unwrap();
    }
    text.push_str(TAIL);
    text
}

/// The steps of an operation as a graph: an arrow means "waits for".
fn graph(keys: &[StepKey]) -> String {
    let steps: Vec<Step> = keys.iter().map(|key| key.step).collect();
    let mut text = "```mermaid\nflowchart TD\n".to_owned();
    for step in &steps {
        let row = row(*step);
        writeln!(text, "    {}[\"{step}<br/>{}, {}\"]", node(*step), of(row), side(row)).unwrap();
    }
    for step in &steps {
        for before in row(*step).after.iter().filter(|before| steps.contains(before)) {
            writeln!(text, "    {} --> {}", node(*before), node(*step)).unwrap();
        }
    }
    text.push_str("```\n");
    text
}

fn node(step: Step) -> String {
    step.id().replace('-', "_")
}

/// The marked blocks of the page about sequences.
fn blocks() -> Vec<(&'static str, String)> {
    let vote = shape(Announce::Vote);
    let documented = shape(Announce::Documented);
    let main: NodeId = "main.region1".parse().unwrap();
    let cache: NodeId = "cache.region1".parse().unwrap();
    vec![
        ("switch", graph(&plan(&vote, OperationKind::Switchover, None))),
        ("documented", graph(&plan(&documented, OperationKind::Switchover, None))),
        ("abort", graph(&back_plan(&vote))),
        ("rejoin", graph(&plan(&vote, OperationKind::Rejoin, Some(&main)))),
        ("rejoin-redis", graph(&plan(&vote, OperationKind::Rejoin, Some(&cache)))),
        ("join", graph(&plan(&vote, OperationKind::Join, Some(&main)))),
        ("leave", graph(&plan(&vote, OperationKind::Leave, Some(&main)))),
        ("rebuild", graph(&plan(&vote, OperationKind::Rebuild, Some(&main)))),
        ("restart", graph(&plan(&vote, OperationKind::Restart, Some(&main)))),
        ("restart-redis", graph(&plan(&vote, OperationKind::Restart, Some(&cache)))),
    ]
}

fn replace(text: &str, name: &str, block: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
    format!("{before}{begin}\n{block}{end}{after}")
}

fn compare(path: &str, text: &str) {
    let path = document(path);
    if std::env::var_os("TIER0_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{} differs from the tables; write it anew with: \
         TIER0_BLESS=1 cargo test -p tier0-core --test states",
        path.display()
    );
}

#[test]
fn states_page_is_what_the_tables_say() {
    compare("states.md", &states());
}

#[test]
fn sequences_page_is_what_the_plans_say() {
    let found = std::fs::read_to_string(document("data-pipelines.md")).unwrap();
    let text = blocks()
        .iter()
        .fold(found, |text, (name, block)| replace(&text, &format!("steps-{name}"), block));
    compare("data-pipelines.md", &text);
}
