//! `tier0 authority adopt`: beginning the record anew after the store was lost, damaged or
//! restored from an old copy (R2).
//!
//! The agents are what is left: each knows the newest record it heard of. The new record goes on
//! from there, in the same lineage, one revision above everything that was heard, so that nothing
//! given before is obeyed after. Takeover sets begin empty: who may be promoted is proven anew. What the
//! old store says of data that is held after an accepted loss is kept, where it can still be read.
//!
//! It is done by a person, with the orchestrators stopped: an embedded store allows one process, and
//! one that is shared may not be written to by two who know different pasts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use tier0_config::Stack;
use tier0_core::observe::{AgentReport, NodeView, PostgresRole, ProcessState};
use tier0_core::orchestrator::{adopted_record, first_record};
use tier0_core::record::{Automatic, Record};
use tier0_core::words::{Heard, NodeId, Region, Site};
use tier0_store::{AuthorityStore, Embedded, Etcd, EtcdSettings, Swapped, last_record, set_aside};
use tier0_wire::read_token;

use crate::agents::Agents;
use crate::driver::wall;
use crate::server::etcd_settings;

/// What would be, or was, adopted.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// What each agent has heard.
    pub heard: BTreeMap<Region, Heard>,
    /// Regions whose PostgreSQL runs as primary now.
    pub primaries: Vec<Region>,
    /// The record that is put in place.
    pub record: Record,
    /// Why it is not known which data directories the old record left alone.
    pub held_unknown: Option<String>,
    place: Place,
}

/// Where the record lies.
#[derive(Debug, Clone)]
enum Place {
    /// In an embedded store.
    Directory(PathBuf),
    /// On an etcd cluster.
    Etcd(EtcdSettings),
}

impl Place {
    /// What it held last, if that can be read. What is there of it may be old.
    fn last_record(&self) -> anyhow::Result<Option<Record>> {
        match self {
            Place::Directory(directory) => Ok(last_record(directory)?),
            Place::Etcd(settings) => {
                let settings = settings.clone();
                apart(move || Ok(Etcd::new(settings)?.load()?))
            }
        }
    }
}

/// A store on etcd has a runtime of its own, which must not be driven from within another.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match std::thread::spawn(work).join() {
        Ok(result) => result,
        Err(_) => bail!("the store's thread panicked"),
    }
}

/// Ask the agents, and work out the record to begin with. Changes nothing.
pub async fn plan_adoption(
    config: &Path,
    site: &Site,
    writer: &Region,
    lost: &[Region],
) -> anyhow::Result<Adoption> {
    let stack = Stack::load(config)?;
    let settings = stack
        .orchestrators
        .iter()
        .find(|one| one.site == *site)
        .ok_or_else(|| anyhow!("{} has no [[orchestrator]] for {site}", config.display()))?;
    if !stack.stack.regions.contains(writer) {
        bail!("there is no region {writer}");
    }
    let agents = Agents::new(
        stack.agents.iter().map(|agent| (agent.region.clone(), agent.listen)).collect(),
        Arc::new(read_token(&stack.stack.role_token_file).context("read the role token")?),
        stack.limits.poll_interval(),
        std::time::Duration::from_millis(stack.limits.silence_ms),
        // Nothing is granted here.
        std::time::Duration::ZERO,
        tier0_core::grant::Granter::Only,
    )?;
    let mut reports = Vec::new();
    for region in stack.stack.regions.iter().filter(|region| !lost.contains(region)) {
        let report = agents.report(region).await.map_err(|why| {
            anyhow!(
                "the agent of {region} does not answer ({why}): it may have heard of a newer \
                 record. Start it, or say --lost-region {region} if its disks are gone for good"
            )
        })?;
        reports.push(report);
    }
    let heard: BTreeMap<Region, Heard> = reports
        .iter()
        .filter_map(|report| Some((report.region.clone(), report.heard.clone()?)))
        .collect();
    let newest = newest(&heard)?;
    let primaries = primaries(&reports);
    if !primaries.is_empty() && !primaries.contains(writer) {
        let names: Vec<&str> = primaries.iter().map(Region::as_str).collect();
        bail!(
            "PostgreSQL runs as primary in {}, not in {writer}: the newest data is most likely \
             there. Say --writer {}, or stop it first if you know better",
            names.join(" and "),
            names[0]
        );
    }
    let mut record = adopted(&stack, writer, &newest);
    let place = match stack.store {
        None => Place::Directory(settings.state_directory.clone()),
        Some(_) => Place::Etcd(etcd_settings(&stack, settings.listen)?),
    };
    let held_unknown = match place.last_record() {
        Ok(Some(old)) => {
            record.held = still_held(old.held, &record);
            None
        }
        Ok(None) => Some("there is no old store".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    Ok(Adoption { heard, primaries, record, held_unknown, place })
}

/// Put the record in place; what was there is kept. Answers where.
pub fn adopt(adoption: &Adoption) -> anyhow::Result<String> {
    let directory = match &adoption.place {
        Place::Directory(directory) => directory,
        Place::Etcd(settings) => {
            let (settings, record) = (settings.clone(), adoption.record.clone());
            let aside = apart(move || Ok(Etcd::new(settings)?.adopt(&record)?))?;
            return Ok(match aside {
                Some(key) => format!("etcd's key {key}"),
                None => "no place: etcd had none that can be read".to_owned(),
            });
        }
    };
    let label = format!("{}", wall().0);
    let aside = set_aside(directory, &label)
        .context("set the old store aside (is the orchestrator stopped?)")?;
    let mut store = Embedded::open(directory).context("begin a new store")?;
    match store.create(&adoption.record).context("store the adopted record")? {
        Swapped::Stored => Ok(aside.display().to_string()),
        Swapped::Lost { .. } => bail!("another record was stored meanwhile"),
    }
}

/// What was held and is not the writer's now: it holds what no other copy has (P6).
fn still_held(old: BTreeMap<NodeId, String>, record: &Record) -> BTreeMap<NodeId, String> {
    let kept = |node: &NodeId| {
        *node.region() != record.writer && record.datastores.contains_key(node.datastore())
    };
    old.into_iter().filter(|(node, _)| kept(node)).collect()
}

fn newest(heard: &BTreeMap<Region, Heard>) -> anyhow::Result<Heard> {
    let mut all = heard.values();
    let mut newest = all
        .next()
        .ok_or_else(|| anyhow!("no agent has heard of any record: there is nothing to adopt"))?
        .clone();
    for other in all {
        if other.lineage != newest.lineage {
            bail!(
                "the agents follow different lineages ({} and {}): they do not belong together",
                newest.lineage,
                other.lineage
            );
        }
        newest.epoch = newest.epoch.max(other.epoch);
        newest.revision = newest.revision.max(other.revision);
    }
    Ok(newest)
}

fn primaries(reports: &[AgentReport]) -> Vec<Region> {
    let runs_as_primary = |view: &NodeView| match view {
        NodeView::Postgres(view) => {
            view.role == Some(PostgresRole::Primary) && view.process == ProcessState::Running
        }
        NodeView::Redis(_) | NodeView::Route(_) => false,
    };
    reports
        .iter()
        .filter(|report| report.nodes.values().any(|node| runs_as_primary(&node.view)))
        .map(|report| report.region.clone())
        .collect()
}

fn adopted(stack: &Stack, writer: &Region, newest: &Heard) -> Record {
    let first = first_record(
        stack.stack.name.clone(),
        &stack.shape(),
        newest.lineage.clone(),
        "adopted".to_owned(),
        // Somebody looks at it now; what they armed before was lost with the record.
        Automatic::default(),
        wall(),
    );
    adopted_record(first, writer.clone(), newest, wall())
}
