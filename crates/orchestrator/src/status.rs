//! What `GET /status` says: the record, and what the newest reports show of every node.

use std::collections::BTreeMap;
use std::time::Duration;

use tier0_core::observe::{
    NodeReport, NodeView, PostgresRole, PostgresView, ProcessState, RedisRole, RedisView,
};
use tier0_core::orchestrator::{Now, Orchestrator, Quantiles};
use tier0_core::record::{DatastoreKind, Protection, Record};
use tier0_core::words::{DatastoreName, NodeId, Region};
use tier0_wire::{
    AutomaticStatus, DatastoreStatus, DetectionStatus, NearMissBody, NodeStatus, QuantilesBody,
    RouteStatus, StatusBody,
};

use crate::report;

/// The state of everything; `None` before the record was read.
pub fn status(core: &Orchestrator, now: &Now) -> Option<StatusBody> {
    let record = core.record()?;
    let shape = &core.settings().shape;
    let address = |kind: DatastoreKind| {
        shape
            .datastores
            .values()
            .find(|datastore| datastore.kind == kind)
            .and_then(|datastore| datastore.addresses.get(&record.writer).cloned())
    };
    let protection = core.protection(now).unwrap_or_else(|| record.protection().clone());
    let (reason, exposed_seconds) = match &protection {
        Protection::Exposed { since, reason } => {
            let seconds = (now.wall.0 - since.0).max(0) as f64 / 1000.0;
            (Some(reason.clone()), Some(seconds))
        }
        Protection::AtRisk { reason } => (Some(reason.clone()), None),
        Protection::Protected | Protection::BestEffort => (None, None),
    };
    let bodies = |moving: bool| {
        core.activities()
            .filter(|activity| activity.kind.moves_writer() == moving)
            .map(|activity| report::body(activity, None, Some(record), now))
            .collect::<Vec<_>>()
    };
    let agents = shape
        .regions
        .iter()
        .map(|region| {
            let silence = core.settings().limits.silence;
            (region.to_string(), core.seen().agent_silent(region, now.moment, silence))
        })
        .collect();
    Some(StatusBody {
        stack: record.stack.to_string(),
        current_region: record.writer.to_string(),
        regions: shape.regions.iter().map(ToString::to_string).collect(),
        postgres_primary: address(DatastoreKind::Postgres),
        redis_master: address(DatastoreKind::Redis),
        protection: protection.word().to_owned(),
        protection_reason: reason,
        exposed_seconds,
        epoch: record.epoch.number(),
        revision: record.revision.number(),
        lineage: record.lineage.to_string(),
        frozen: core.frozen().map(ToOwned::to_owned),
        automatic: automatic(core, now, record),
        detection: detection(core),
        operation: bodies(true).into_iter().next(),
        repairs: bodies(false),
        datastores: shape
            .datastores
            .keys()
            .map(|name| datastore(core, now, record, name))
            .collect(),
        routes: shape.routes.keys().map(|id| route(core, now, id)).collect(),
        availability: None,
        agents,
        acting: core
            .settings()
            .seats
            .is_shared()
            .then(|| core.acting_site())
            .flatten()
            .map(ToString::to_string),
        orchestrators: orchestrators(core, now),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Why each of several orchestrators is not heard.
fn orchestrators(core: &Orchestrator, now: &Now) -> BTreeMap<String, Option<String>> {
    let seats = &core.settings().seats;
    if !seats.is_shared() {
        return BTreeMap::new();
    }
    let window = core.window();
    let silent = |age: Option<Duration>| match age {
        Some(age) if age < window => None,
        Some(age) => Some(format!("silent for {:.1} s", age.as_secs_f64())),
        None => Some("never heard".to_owned()),
    };
    let others = core.peers(now).into_iter();
    let others = others.map(|(site, age)| (site.to_string(), silent(age)));
    others.chain([(seats.here.to_string(), None)]).collect()
}

fn automatic(core: &Orchestrator, now: &Now, record: &Record) -> AutomaticStatus {
    let set = &record.automatic;
    let mode = set.mode_at(now.wall);
    let over = mode != set.mode;
    AutomaticStatus {
        mode: mode.to_string(),
        by: set.by.clone(),
        since: report::timestamp(set.at),
        reason: set.reason.clone(),
        until: set.until.as_ref().filter(|_| !over).map(|until| report::timestamp(until.at)),
        explanation: core.automatic_row().map(|row| format!("{}: {}", row.id, row.sentence)),
        near_miss: core.near_miss().map(|near_miss| NearMissBody {
            at: report::timestamp(near_miss.wall),
            row: near_miss.row.to_owned(),
            sentence: near_miss.sentence.clone(),
            operation_id: near_miss.id.to_string(),
        }),
    }
}

fn detection(core: &Orchestrator) -> DetectionStatus {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let body = |quantiles: Quantiles| QuantilesBody {
        count: quantiles.count,
        p50_ms: milliseconds(quantiles.p50),
        p99_ms: milliseconds(quantiles.p99),
        p999_ms: milliseconds(quantiles.p999),
    };
    let timing = core.timing();
    DetectionStatus {
        silence_ms: core.settings().limits.silence.as_millis() as u64,
        window_ms: milliseconds(core.window()),
        round_trips: timing.polls().map(|(region, it)| (region.to_string(), body(it))).collect(),
        write_probes: timing.probes().map(|(node, it)| (node.to_string(), body(it))).collect(),
    }
}

fn datastore(
    core: &Orchestrator,
    now: &Now,
    record: &Record,
    name: &DatastoreName,
) -> DatastoreStatus {
    let shape = &core.settings().shape;
    let of_record = record.datastores.get(name);
    let explanation = shape
        .other(&record.writer)
        .and_then(|other| core.matching_row(now, record, name, other))
        .map(|row| format!("{}: {}", row.id, row.sentence));
    let kind = shape.datastores.get(name).map(|datastore| datastore.kind);
    let mode = shape.datastores.get(name).map(|datastore| datastore.protection);
    DatastoreStatus {
        name: name.to_string(),
        kind: match kind {
            Some(DatastoreKind::Postgres) => "postgres",
            Some(DatastoreKind::Redis) => "redis",
            None => "unknown",
        }
        .to_owned(),
        protection: core
            .protection_of(now, name)
            .map_or("unknown", |protection| protection.word())
            .to_owned(),
        protection_mode: mode
            .filter(|_| kind == Some(DatastoreKind::Postgres))
            .map(|mode| mode.word().to_owned()),
        takeover: of_record
            .map(|it| it.takeover.values().map(|member| member.name.to_string()).collect())
            .unwrap_or_default(),
        explanation,
        nodes: shape.regions.iter().map(|region| node(core, now, record, name, region)).collect(),
    }
}

fn node(
    core: &Orchestrator,
    now: &Now,
    record: &Record,
    name: &DatastoreName,
    region: &Region,
) -> NodeStatus {
    let id = NodeId::new(name.clone(), region.clone());
    let writer = NodeId::new(name.clone(), record.writer.clone());
    let address = core
        .settings()
        .shape
        .datastores
        .get(name)
        .and_then(|datastore| datastore.addresses.get(region).cloned())
        .unwrap_or_default();
    let silence = core.settings().limits.silence;
    let silent = core.seen().agent_silent(region, now.moment, silence);
    let seen = core.seen().region(region);
    let reported: Option<(&NodeReport, u64)> = seen.and_then(|seen| {
        let (report, at) = seen.report.as_ref()?;
        let node = report.nodes.get(&id)?;
        Some((node, now.moment.since(*at).as_millis() as u64 + node.age_ms))
    });
    let Some((reported, age_ms)) = reported else {
        return NodeStatus {
            node: id.to_string(),
            address,
            role: "unknown".to_owned(),
            state: "unknown".to_owned(),
            behind_bytes: None,
            behind_seconds: None,
            position: None,
            age_ms: None,
            doing: None,
            error: silent,
        };
    };
    let doing = reported
        .last
        .as_ref()
        .filter(|last| last.outcome.is_none())
        .map(|last| last.progress.clone().unwrap_or_else(|| last.step.to_string()));
    let (role, state, position, behind, error) = match &reported.view {
        NodeView::Postgres(view) => {
            let behind = core
                .seen()
                .postgres(&writer)
                .and_then(|of_writer| Some(of_writer.flushed?.ahead_of(view.flushed?)));
            let position = view.flushed.map(|lsn| lsn.to_string());
            (postgres_role(view), process(view.process), position, behind, view.error.clone())
        }
        NodeView::Redis(view) => {
            let behind = core.seen().redis(&writer).and_then(|of_writer| {
                let (ahead, here) = (of_writer.position()?, view.position()?);
                (ahead.replication == here.replication)
                    .then(|| ahead.offset.saturating_sub(here.offset))
            });
            let position = view.offset.map(|offset| offset.to_string());
            (redis_role(view), process(view.process), position, behind, view.error.clone())
        }
        NodeView::Route(view) => ("route", process(view.process), None, None, view.error.clone()),
    };
    let stale = silent.is_some();
    let behind_seconds = match &reported.view {
        NodeView::Postgres(view) => view
            .replayed
            .filter(|_| view.role == Some(PostgresRole::Standby))
            .and_then(|replayed| core.lag().of(name, replayed, now.moment))
            .map(|lag| lag.as_secs_f64()),
        NodeView::Redis(_) | NodeView::Route(_) => None,
    };
    NodeStatus {
        node: id.to_string(),
        address,
        // What a silent agent said last is not what is so now.
        role: if stale { "unknown" } else { role }.to_owned(),
        state: if stale { "unknown" } else { state }.to_owned(),
        behind_bytes: behind.filter(|_| !stale && id != writer),
        behind_seconds: behind_seconds.filter(|_| !stale && id != writer),
        position,
        age_ms: Some(age_ms),
        doing,
        error: silent.or(error),
    }
}

fn route(core: &Orchestrator, now: &Now, id: &NodeId) -> RouteStatus {
    let shape = core.settings().shape.routes.get(id);
    let silence = core.settings().limits.silence;
    let silent = core.seen().agent_silent(id.region(), now.moment, silence);
    let view = match core.seen().view(id) {
        Some(NodeView::Route(view)) if silent.is_none() => Some(view),
        Some(_) | None => None,
    };
    RouteStatus {
        route: id.to_string(),
        datastore: shape.map(|shape| shape.datastore.to_string()).unwrap_or_default(),
        state: match view {
            Some(view) if view.held => "held",
            Some(view) => process(view.process),
            None => "unknown",
        }
        .to_owned(),
        points_at: view.and_then(|view| view.to.as_ref()).map(ToString::to_string),
        waiting: view.map(|view| view.waiting),
        error: silent.or_else(|| view.and_then(|view| view.error.clone())),
    }
}

fn postgres_role(view: &PostgresView) -> &'static str {
    match view.role {
        Some(PostgresRole::Primary) => "primary",
        Some(PostgresRole::Standby) => "standby",
        None => "unknown",
    }
}

fn redis_role(view: &RedisView) -> &'static str {
    match view.role {
        Some(RedisRole::Master) => "master",
        Some(RedisRole::Replica) => "replica",
        None => "unknown",
    }
}

fn process(state: ProcessState) -> &'static str {
    match state {
        ProcessState::NoData => "no-data",
        ProcessState::Unusable => "unusable",
        ProcessState::Stopped => "stopped",
        ProcessState::Starting => "starting",
        ProcessState::Running => "running",
        ProcessState::Silent => "silent",
    }
}
