//! What `docs/monitoring.md` says can be asked: every query to a Prometheus that scrapes the stack,
//! every statement to both PostgreSQL servers and every command to Redis and the Sentinels, idle
//! and under load.
//!
//! The rules and the dashboard by themselves are in `crates/tier0/tests/prometheus.rs`.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::stack::{
    LOSSLESS, Prometheus, RECOVERY, Stack, acknowledged, admin, root, shared, until, writer_session,
};

/// How long Prometheus may take to have scraped and evaluated something.
const SCRAPED: Duration = Duration::from_secs(60);

fn page() -> String {
    std::fs::read_to_string(root().join("docs/monitoring.md")).unwrap()
}

/// The blocks of one kind in the page, without their fences.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let begin = format!("\n```{kind}\n");
    let rest = page.split(&begin).skip(1);
    rest.map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Every query of the page, and of the dashboard, which has its own words for an interval.
fn queries() -> Vec<String> {
    let mut found: Vec<String> = blocks(&page(), "promql")
        .iter()
        .flat_map(|block| block.lines())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert!(found.len() > 15, "the search for queries is broken: {found:?}");
    for specified in [
        "pg_replication_lag_seconds",
        "failover_total",
        "failover_duration_seconds",
        "failover_last_timestamp",
    ] {
        assert!(found.iter().any(|query| query == specified), "{specified} is not on the page");
    }
    let text = std::fs::read_to_string(root().join("deploy/grafana/tier0.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            found.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    found
}

/// Those of the dashboard's that have nothing to show on a good day.
fn may_be_empty(query: &str) -> bool {
    ["level!=\"pass\"", "tier0_refusals_total", "tier0_near_misses_total"]
        .iter()
        .any(|part| query.contains(part))
}

#[tokio::test]
async fn prometheus_has_a_sample_for_every_documented_query() {
    let stack = shared().await;
    let api = stack.api();
    api.failover("region2").await.succeeds();
    let status = api.protected(RECOVERY).await.unwrap();
    let prometheus = Prometheus::start(&stack);
    until(SCRAPED, async || {
        for query in queries() {
            let samples = prometheus.samples(&query).await?;
            if samples.is_empty() && !may_be_empty(&query) {
                return Err(format!("{query} has no sample"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();

    // The samples say what is so.
    let standby = r#"{datastore="main",region="region1"}"#;
    for (query, expected) in [
        ("failover_total", None),
        (
            "count(failover_duration_seconds{step=~'health_check|database_promotion|redis_failover|routing_update|validation|total'})",
            Some(6.0),
        ),
        (r#"tier0_writer{region="region2"}"#, Some(1.0)),
        (r#"tier0_writer{region="region1"}"#, Some(0.0)),
        ("tier0_epoch", status["epoch"].as_f64()),
        (r#"tier0_protection{datastore="main",state="protected"}"#, Some(1.0)),
        (r#"tier0_takeover_members{datastore="main"}"#, Some(1.0)),
        ("tier0_exposed_seconds", Some(0.0)),
        ("sum(tier0_agent_up)", Some(2.0)),
        ("sum(tier0_node_up)", Some(4.0)),
        ("count(pg_replication_lag_seconds)", Some(1.0)),
        ("count(tier0_replication_lag_bytes)", Some(2.0)),
        (r#"count(tier0_slot{region="region2",status="reserved"})"#, Some(1.0)),
        (r#"sum by (datastore) (tier0_sentinels{region="region1",says="agree"})"#, Some(3.0)),
        (r#"count(tier0_readiness{level="fail"} == 1) or vector(0)"#, Some(0.0)),
        (r#"tier0_readiness{code="not-in-takeover-set",level="pass"}"#, Some(1.0)),
        ("tier0_ready", Some(1.0)),
        (r#"count(tier0_round_trip_seconds{quantile="0.999"} > 0)"#, Some(2.0)),
        (r#"count(tier0_write_probe_seconds{region="region2",quantile="0.5"} > 0)"#, Some(1.0)),
        ("tier0_detection_window_seconds >= bool 1", Some(1.0)),
        (r#"count(tier0_protection_mode{mode="max-availability"})"#, Some(1.0)),
        ("count(tier0_build_info)", Some(1.0)),
        ("count(telemetry_readings_stored_total)", Some(1.0)),
    ] {
        until(SCRAPED, async || {
            let value = prometheus.value(query).await?;
            match expected {
                Some(expected) if value != expected => Err(format!("{query} is {value}")),
                Some(_) => Ok(()),
                None if value >= 1.0 => Ok(()),
                None => Err(format!("{query} is {value}")),
            }
        })
        .await
        .unwrap();
    }

    // What is written here is received there.
    let session = writer_session(&stack).await.unwrap();
    for number in 0..50 {
        acknowledged(&session, &format!("SCRAPED-{number}")).await.unwrap();
    }
    until(SCRAPED, async || {
        let received = format!("increase(tier0_replication_bytes_total{standby}[1m])");
        let value = prometheus.value(&received).await?;
        if value > 1000.0 { Ok(()) } else { Err(format!("{received} is {value}")) }
    })
    .await
    .unwrap();

    // Every rule is evaluated, and one of them notices an agent that is gone.
    rules_are_evaluated(&prometheus).await;
    stack.kill("agent.region1");
    until(SCRAPED, async || {
        let alerts = prometheus.get("alerts").await?;
        let all = alerts["alerts"].as_array().ok_or("no list")?;
        let found = all.iter().any(|alert| alert["labels"]["alertname"] == "Tier0AgentSilent");
        if found { Ok(()) } else { Err(format!("{alerts:#}")) }
    })
    .await
    .unwrap();
    // Nobody knows how far a node is behind whose agent is silent, so there is no number.
    let unknown = format!("pg_replication_lag_seconds{standby}");
    until(SCRAPED, async || match prometheus.samples(&unknown).await?.is_empty() {
        true => Ok(()),
        false => Err(format!("{unknown} still has a sample")),
    })
    .await
    .unwrap();
    stack.start_again("agent.region1");
    api.protected(RECOVERY).await.unwrap();
}

async fn rules_are_evaluated(prometheus: &Prometheus) {
    until(SCRAPED, async || {
        let data = prometheus.get("rules").await?;
        let groups = data["groups"].as_array().ok_or("no groups")?;
        let rules: Vec<&Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        if rules.len() < 20 {
            return Err(format!("only {} rules", rules.len()));
        }
        match rules.iter().find(|rule| rule["health"] != "ok") {
            Some(rule) => Err(format!("{rule:#}")),
            None => Ok(()),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_last_failover_is_known_after_the_orchestrator_ended() {
    let stack = shared().await;
    let api = stack.api();
    api.failover("region2").await.succeeds();
    api.protected(RECOVERY).await.unwrap();
    let of_last = |text: &str| -> Vec<String> {
        let names = ["failover_duration_seconds{", "failover_last_timestamp "];
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let before = of_last(&api.get("/metrics").await.text);
    assert!(before.len() >= 7, "{before:?}");
    let look = stack.look();
    let orchestrator = look.processes.iter().find(|one| one.kind == "orchestrator").unwrap();
    stack.kill(&orchestrator.name);
    stack.start_again(&orchestrator.name);
    api.protected(RECOVERY).await.unwrap();
    let text = api.get("/metrics").await.text;
    assert_eq!(of_last(&text), before);
    assert!(text.contains("\nfailover_total 0\n"), "{text}");
}

/// On which side a statement must give a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Either,
    Primary,
    Standby,
    /// It may have nothing to say.
    AtTimes,
}

/// The page's statements, each with the side that its comment names.
fn statements() -> Vec<(Rows, String)> {
    let mut found = Vec::new();
    for block in blocks(&page(), "sql") {
        for part in block.split(";\n") {
            let text = part.trim();
            let Some(comment) = text.lines().next() else { continue };
            let rows = match comment {
                it if it.starts_with("-- On either:") => Rows::Either,
                it if it.starts_with("-- On the primary:") => Rows::Primary,
                it if it.starts_with("-- On a standby:") => Rows::Standby,
                it if it.starts_with("-- On the primary, at times:") => Rows::AtTimes,
                other => panic!("{other:?} does not begin with where the statement is of use"),
            };
            found.push((rows, text.to_owned()));
        }
    }
    assert!(found.len() >= 9, "the search for statements is broken: {found:?}");
    found
}

/// Run every statement on both sides.
fn statements_run(stack: &Stack, primary: &str, standby: &str) -> Result<(), String> {
    for (rows, sql) in statements() {
        for node in [primary, standby] {
            let found = admin(stack, node, &sql).map_err(|why| format!("{node}: {sql}\n{why}"))?;
            let needed = match rows {
                Rows::Either => true,
                Rows::Primary => node == primary,
                Rows::Standby => node == standby,
                Rows::AtTimes => false,
            };
            if needed && found.is_empty() {
                return Err(format!("{node} has no row for: {sql}"));
            }
            // How far behind is a number, on the side that knows.
            if needed && sql.contains("AS lag_seconds") {
                let last = found[0].rsplit('|').next().unwrap_or_default();
                let lag: f64 = last.parse().map_err(|_| format!("{node}: no lag: {found:?}"))?;
                if !(0.0..60.0).contains(&lag) {
                    return Err(format!("{node}: a lag of {lag} s: {sql}"));
                }
            }
        }
    }
    Ok(())
}

/// The page's commands for `redis-cli`, without its name, host and port.
fn redis_commands() -> Vec<(u16, Vec<String>)> {
    let found: Vec<(u16, Vec<String>)> = blocks(&page(), "sh")
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("redis-cli -h "))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], "-p", "{line}");
            (words[2].parse().unwrap(), words[3..].iter().map(|word| (*word).to_owned()).collect())
        })
        .collect();
    assert!(found.len() >= 8, "the search for commands is broken: {found:?}");
    found
}

/// Run every command against every server that it is for.
fn redis_commands_run(stack: &Stack, master: &str) -> Result<(), String> {
    let settings = stack.state().stack().unwrap();
    let datastore = settings.datastores.iter().find(|one| one.redis.is_some()).unwrap();
    let redis = datastore.redis.as_ref().unwrap();
    let password = redis.password_file.read().unwrap();
    let nodes: Vec<_> = datastore.nodes.iter().map(|node| node.address).collect();
    let sentinels: Vec<_> = redis.sentinels.iter().map(|one| one.address).collect();
    for (port, words) in redis_commands() {
        let servers = if port == 26379 { &sentinels } else { &nodes };
        for address in servers {
            let mut command = Command::new("redis-cli");
            command.args(["-e", "-h", &address.ip().to_string()]);
            command.args(["-p", &address.port().to_string()]).args(&words);
            if port != 26379 {
                command.env("REDISCLI_AUTH", password.expose());
            }
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let wrong = |why: &str| Err(format!("{address} {words:?}: {why}: {said}"));
            let last = words.get(1).map(String::as_str).unwrap_or_default();
            if last == "ckquorum" {
                // On purpose (D2), and it says how many are usable.
                if !said.contains("NOQUORUM") {
                    return wrong("should be NOQUORUM");
                }
                continue;
            }
            if !output.status.success() || said.trim().is_empty() {
                return wrong("failed");
            }
            let (ip, port) = master.split_once(':').unwrap();
            let names_master = match last {
                "get-master-addr-by-name" => said.lines().eq([ip, port]),
                "master" | "masters" => said.contains(ip),
                _ => true,
            };
            if !names_master {
                return wrong("does not name the master");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_statements_and_commands_run_on_both_sides_idle_and_loaded() {
    let mut stack = shared().await;
    let status = stack.api().status().await.unwrap();
    let master = status["redis_master"].as_str().unwrap().to_owned();
    for load in [false, true] {
        let run = if load { Some(stack.traffic().await) } else { None };
        let stack = &*stack;
        until(RECOVERY, async || {
            statements_run(stack, "main.region1", "main.region2")?;
            redis_commands_run(stack, &master)
        })
        .await
        .unwrap_or_else(|why| panic!("under load: {load}: {why}"));
        if let Some(run) = run {
            run.goes_on().await;
            run.lost_nothing(&LOSSLESS).await;
        }
    }
}
