//! The Sentinels that watch the servers: which names they use, and whether they can be told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use tier0_config::Stack;

use crate::finding::{Finding, Level, Remedy};
use crate::redis::ask;
use crate::request::PlacedAddress;

/// Sentinel's `down-after-milliseconds` below which it may fail back right after a switch.
const DOWN_AFTER_LEAST: u64 = 3_000;

/// One Sentinel.
pub struct Sentinel {
    pub address: SocketAddr,
    pub masters: Result<Vec<Master>, String>,
}

/// A master that it watches.
pub struct Master {
    pub name: String,
    pub address: String,
    pub down_after_ms: u64,
    pub others: usize,
}

/// Look at one.
pub async fn look(one: &PlacedAddress) -> Sentinel {
    let masters = masters(one.address).await.map_err(|error| format!("{error:#}"));
    Sentinel { address: one.address, masters }
}

async fn masters(address: SocketAddr) -> Result<Vec<Master>> {
    // Without a password, as tier0 asks them.
    let answer = ask(address, None, "SENTINEL MASTERS").await?;
    let all: Vec<BTreeMap<String, String>> =
        redis::from_redis_value(answer).context("the answer to SENTINEL MASTERS")?;
    let text = |fields: &BTreeMap<String, String>, name: &str| {
        fields.get(name).cloned().unwrap_or_default()
    };
    Ok(all
        .iter()
        .map(|fields| Master {
            name: text(fields, "name"),
            address: format!("{}:{}", text(fields, "ip"), text(fields, "port")),
            down_after_ms: text(fields, "down-after-milliseconds").parse().unwrap_or(0),
            others: text(fields, "num-other-sentinels").parse().unwrap_or(0),
        })
        .collect())
}

impl Sentinel {
    /// How it knows a server.
    pub fn knows(&self, address: SocketAddr) -> Option<&Master> {
        let address = address.to_string();
        self.masters.as_ref().ok()?.iter().find(|master| master.address == address)
    }
}

/// Judge all.
pub fn judge(sentinels: &[Sentinel], stack: &Stack) -> Vec<Finding> {
    let mut findings = Vec::new();
    for datastore in &stack.datastores {
        let Some(redis) = &datastore.redis else { continue };
        let mut names: Vec<String> =
            datastore.nodes.iter().map(|node| node.address.to_string()).collect();
        names.sort();
        if sentinels.len() < 3 {
            let sentence =
                format!("{} Sentinels; a vote needs a majority of three", sentinels.len());
            findings.push(Finding::new(&datastore.name, "sentinels", Level::Note, sentence));
        }
        for one in sentinels {
            findings.push(judge_one(one, &redis.master_name, &names, sentinels.len()));
        }
    }
    findings
}

fn judge_one(one: &Sentinel, name: &str, nodes: &[String], count: usize) -> Finding {
    let subject = format!("sentinel {}", one.address);
    let masters = match &one.masters {
        Ok(masters) => masters,
        Err(why) => return Finding::new(subject, "sentinel", Level::Missing, why),
    };
    let Some(master) = masters.iter().find(|master| master.name == name) else {
        let sentence = format!("it does not watch {name}");
        return Finding::new(subject, "sentinel", Level::Wrong, sentence);
    };
    if !nodes.contains(&master.address) {
        let sentence = format!(
            "it knows {name} as {}, the stack file as {}",
            master.address,
            nodes.join(" and ")
        );
        return Finding::new(subject, "sentinel", Level::Wrong, sentence);
    }
    if master.down_after_ms < DOWN_AFTER_LEAST {
        let sentence = format!(
            "down-after-milliseconds is {}; below {DOWN_AFTER_LEAST} it may fail back right after \
             a switch",
            master.down_after_ms
        );
        let line = format!("SENTINEL SET {name} down-after-milliseconds 5000");
        return Finding::new(subject, "sentinel", Level::Missing, sentence)
            .by(Remedy::Redis { server: one.address.to_string(), lines: vec![line] });
    }
    if master.others + 1 < count {
        let sentence = format!("it knows {} other Sentinels of {}", master.others, count - 1);
        return Finding::new(subject, "sentinel", Level::Missing, sentence);
    }
    let sentence = format!(
        "watches {name} at {}; the agent raises its quorum at run time, so that it serves \
         discovery and never moves the master by itself",
        master.address
    );
    Finding::new(subject, "sentinel", Level::Ok, sentence)
}
