//! Clients behind a PgBouncer: held and moved without an error, and pointed right in a region that
//! was away meanwhile. What a route does by itself is in the tests of its adapter.

use std::time::Duration;

use serde_json::Value;
use tier0_lab::ledger::{Session, Targets, Traffic, TrafficPlan, WritePath, check};

use crate::stack::{RECOVERY, Stack, shared, until};

/// Writers through the routes only.
async fn routed(stack: &Stack, name: &str) -> (Traffic, TrafficPlan, Targets) {
    let plan = TrafficPlan {
        postgres_writers: 0,
        routed_writers: 8,
        redis_writers: 0,
        redis_wait_writers: 0,
        ..TrafficPlan::moderate(stack.directory.join("ledger").join(name))
    };
    let targets = Targets::of(&stack.state().stack().unwrap()).unwrap();
    let traffic = Traffic::start(&plan, &targets).await.unwrap();
    goes_on(&traffic).await;
    (traffic, plan, targets)
}

async fn goes_on(traffic: &Traffic) {
    traffic.wait_for_more(40, Duration::from_secs(30)).await.unwrap();
}

async fn ends_clean(traffic: Traffic, plan: &TrafficPlan, targets: &Targets) {
    let summary = traffic.stop().await.unwrap();
    let path = summary.path(WritePath::Routed).unwrap();
    let report = check(&plan.directory, targets).await.unwrap();
    assert!(report.missing(&WritePath::ALL).is_empty(), "missing:\n{}", report.text());
    assert!(report.duplicates().is_empty(), "twice:\n{}", report.text());
    let stall = path.latencies.largest().map(|gap| gap.length()).unwrap_or_default();
    println!(
        "through PgBouncer: {} acknowledged, {} errors, longest stall {} ms",
        path.acknowledged,
        path.failed + path.unknown,
        stall.as_millis()
    );
}

/// How the steps of this name ended in an answer.
pub fn outcomes(answer: &Value, step: &str) -> Vec<String> {
    let steps = answer["timeline"].as_array().unwrap();
    let of = steps.iter().filter(|one| one["step"] == step);
    of.map(|one| one["outcome"].as_str().unwrap().to_owned()).collect()
}

/// A client that knows nothing of tier0 writes through the route of a region for some seconds.
fn pgbench(stack: &Stack, region: &str) -> std::process::Child {
    let settings = stack.state().stack().unwrap();
    let route = settings.routes.iter().find(|route| route.region.as_str() == region).unwrap();
    let postgres = settings.datastores[0].postgres.as_ref().unwrap();
    let script = std::env::temp_dir().join(format!("tier0-pgbench-{}.sql", stack.instance));
    std::fs::write(&script, "INSERT INTO ledger_entry VALUES ('pgbench', :client_id);\n").unwrap();
    std::process::Command::new(postgres.bin_directory.join("pgbench"))
        .args(["-n", "-M", "simple", "-c", "4", "-T", "6", "-f"])
        .arg(script)
        .args(["-h", &route.address.ip().to_string(), "-p", &route.address.port().to_string()])
        .args(["-U", &postgres.application_user, &postgres.database])
        .env("PGPASSWORD", postgres.application_password_file.read().unwrap().expose())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// The server that answers through the route of a region.
async fn behind(stack: &Stack, region: &str) -> Result<String, String> {
    let settings = stack.state().stack().unwrap();
    let targets = Targets::of(&settings).unwrap();
    let route = settings.routes.iter().find(|route| route.region.as_str() == region).unwrap();
    let limit = Duration::from_secs(5);
    let (session, _) = Session::connect(&targets.postgres[0], route.address, limit)
        .await
        .map_err(|error| format!("{error:#}"))?;
    let rows = session
        .client
        .query_typed("SELECT host(inet_server_addr()) || ':' || inet_server_port()", &[])
        .await
        .map_err(|error| error.to_string())?;
    Ok(rows[0].get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_pgbouncer_meet_no_error_in_switches_there_and_back() {
    let stack = shared().await;
    let api = stack.api();
    let (traffic, plan, targets) = routed(&stack, "routes-planned").await;
    let foreign = pgbench(&stack, "region1");
    for target in ["region2", "region1"] {
        let answer = api.failover(target).await;
        answer.succeeds();
        for step in ["hold-route", "switch-route", "release-route"] {
            let ended = outcomes(&answer.body, step);
            assert_eq!(ended.len(), 2, "{step}: {ended:?}");
            assert!(ended.iter().all(|one| one.starts_with("done")), "{step}: {ended:?}");
        }
        goes_on(&traffic).await;
        assert_eq!(traffic.errors(WritePath::Routed), 0, "on the way to {target}");
        api.protected(RECOVERY).await.unwrap();
    }
    ends_clean(traffic, &plan, &targets).await;
    // One client that meets an error makes it fail.
    let ended = tokio::task::spawn_blocking(move || foreign.wait_with_output()).await.unwrap();
    let ended = ended.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("number of failed transactions: 0 "), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_of_a_region_that_was_gone_points_at_the_new_writer_when_it_is_back() {
    let stack = shared().await;
    let (traffic, plan, targets) = routed(&stack, "routes-lost-region").await;
    let names = stack.started_in("region1");
    stack.kill_region("region1");
    let answer = stack.api().failover("region2").await;
    answer.succeeds();
    let released = outcomes(&answer.body, "release-route");
    let done = released.iter().filter(|one| one.starts_with("done")).count();
    assert_eq!((released.len(), done), (2, 1), "{released:?}");
    goes_on(&traffic).await;
    names.iter().for_each(|name| stack.start_again(name));
    stack.api().protected(RECOVERY).await.unwrap();
    until(RECOVERY, async || {
        let ports = (behind(&stack, "region1").await?, behind(&stack, "region2").await?);
        match ports.0 == ports.1 {
            true => Ok(()),
            false => Err(format!("{ports:?}")),
        }
    })
    .await
    .unwrap();
    ends_clean(traffic, &plan, &targets).await;
}

/// `clients.py` beside this: drivers that everybody uses, on their way without a route.
fn foreign_clients(stack: &Stack) -> std::process::Child {
    let settings = stack.state().stack().unwrap();
    let look = stack.look();
    let listed = |name: &str| {
        let found = look.connections.iter().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("lab status names no {name}")).url.clone()
    };
    let redis = settings.datastores.iter().find_map(|one| one.redis.as_ref()).unwrap();
    // The system's own, for which the packages are.
    let mut command = std::process::Command::new("/usr/bin/python3");
    command
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/clients.py"))
        .args([&listed("main"), redis.password_file.read().unwrap().expose(), &redis.master_name])
        .args(redis.sentinels.iter().map(|one| one.address.to_string()))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg2_by_a_list_of_hosts_and_redis_py_by_sentinel_find_the_new_writer() {
    use std::io::{BufRead, BufReader, Read};
    let stack = shared().await;
    let api = stack.api();
    let mut clients = foreign_clients(&stack);
    let mut said = BufReader::new(clients.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "writing\n", "scripts/setup tests installs python3-psycopg2, python3-redis");
    for target in ["region2", "region1"] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.failover(target).await.succeeds();
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.protected(RECOVERY).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(clients.stdin.take());
    let mut line = String::new();
    said.read_to_string(&mut line).unwrap();
    assert!(clients.wait().unwrap().success(), "{line}");
    println!("psycopg2 and redis-py, there and back: {}", line.trim());
    let found: Value = serde_json::from_str(&line).unwrap();
    for kind in ["postgres", "redis"] {
        let number = |name: &str| found[kind][name].as_u64().unwrap();
        assert!(number("written") > 20, "{line}");
        assert_eq!(found[kind]["missing"], 0, "{line}");
        // Each switch ends what is open, once; what is tried again then has found the writer, or
        // has to be tried for as long as there is none.
        assert!(number("longest_ms") < 15_000, "{line}");
    }
}
