//! Clients of the built-in routers: moved, with errors that are counted and nothing lost, when a
//! switch is commanded, when the orchestrator ends in the middle of it, and when a region is gone. What
//! a router does by itself is in its own tests.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tier0_config::RouteKind;
use tier0_lab::ledger::{
    Access, Session, Targets, Traffic, TrafficPlan, TrafficSummary, WritePath, check,
};
use tier0_lab::processes;

use crate::failpoints::{arm, is_armed};
use crate::killed_roles::known_state;
use crate::routes::outcomes;
use crate::stack::{Ask, RECOVERY, Stack, thaw, until};

const PATHS: [WritePath; 2] = [WritePath::Proxied, WritePath::RedisProxied];

/// Writers of both kinds through the routers.
struct Run {
    traffic: Traffic,
    plan: TrafficPlan,
    targets: Targets,
}

impl Run {
    async fn start(stack: &Stack, name: &str) -> Run {
        let plan = TrafficPlan {
            postgres_writers: 0,
            proxied_writers: 8,
            redis_writers: 0,
            redis_wait_writers: 0,
            redis_proxied_writers: 4,
            ..TrafficPlan::moderate(stack.directory.join("ledger").join(name))
        };
        let targets = Targets::of(&stack.state().stack().unwrap()).unwrap();
        let traffic = Traffic::start(&plan, &targets).await.unwrap();
        let run = Run { traffic, plan, targets };
        run.goes_on().await;
        run
    }

    async fn goes_on(&self) {
        self.traffic.wait_for_more(40, Duration::from_secs(30)).await.unwrap();
    }

    fn errors(&self) -> [u64; 2] {
        PATHS.map(|path| self.traffic.errors(path))
    }

    /// Nothing is missing that was acknowledged on these paths, and nothing there twice.
    async fn lost_nothing(self, paths: &[WritePath]) {
        let summary: TrafficSummary = self.traffic.stop().await.unwrap();
        let report = check(&self.plan.directory, &self.targets).await.unwrap();
        assert!(report.missing(paths).is_empty(), "missing:\n{}", report.text());
        assert!(report.duplicates().is_empty(), "twice:\n{}", report.text());
        for path in PATHS.iter().filter_map(|path| summary.path(*path)) {
            let longest = path.latencies.largest().map(|gap| gap.length()).unwrap_or_default();
            println!(
                "{}: {} acknowledged, {} refused, {} without an answer, longest stall {} ms",
                path.path.name(),
                path.acknowledged,
                path.failed,
                path.unknown,
                longest.as_millis()
            );
        }
    }
}

/// Whether the server that answers through a port of a router takes writes.
async fn takes_writes(
    stack: &Stack,
    route: &tier0_config::RouteSettings,
    port: SocketAddr,
) -> Result<bool, String> {
    let settings = stack.state().stack().unwrap();
    let datastore = settings.datastore(&route.datastore).unwrap();
    let limit = Duration::from_secs(5);
    if let Some(redis) = &datastore.redis {
        let password = redis.password_file.read().unwrap();
        let mut session = tier0_lab::ledger::connect_redis(port, Some(&password), limit)
            .await
            .map_err(|error| error.to_string())?;
        let role: Vec<::redis::Value> = ::redis::cmd("ROLE")
            .query_async(&mut session)
            .await
            .map_err(|error| error.to_string())?;
        return Ok(role.first() == Some(&::redis::Value::BulkString(b"master".to_vec())));
    }
    let targets = Targets::of(&settings).unwrap();
    let target = targets.find_postgres(route.datastore.as_str()).unwrap();
    let connected = Session::connect(target, port, limit).await;
    let (session, access) = connected.map_err(|error| format!("{error:#}"))?;
    let rows = session.client.query_typed("SELECT 1", &[]).await;
    rows.map_err(|error| error.to_string())?;
    Ok(access == Access::ReadWrite)
}

/// Every write port of every router leads to a server that takes writes.
async fn all_lead_to_the_writer(stack: &Stack) {
    let settings = stack.state().stack().unwrap();
    let routes: Vec<_> =
        settings.routes.iter().filter(|route| route.kind == RouteKind::Proxy).collect();
    assert_eq!(routes.len(), 4);
    for route in routes {
        until(RECOVERY, async || match takes_writes(stack, route, route.address).await? {
            true => Ok(()),
            false => Err(format!("{} leads to a replica", route.id())),
        })
        .await
        .unwrap();
    }
}

/// Every read port leads to the server of its own region: in one of them that is the writer.
async fn all_read_nearby(stack: &Stack, writer: &str) {
    let settings = stack.state().stack().unwrap();
    let routes: Vec<_> =
        settings.routes.iter().filter(|route| route.read_address.is_some()).collect();
    assert_eq!(routes.len(), 4);
    for route in routes {
        let port = route.read_address.unwrap();
        let near = route.region.as_str() == writer;
        // One that was not told yet who the writer is takes its own for that, and needs a lease for it.
        until(RECOVERY, async || match takes_writes(stack, route, port).await? {
            writes if writes == near => Ok(()),
            writes => Err(format!("{}: the server takes writes: {writes}", route.id())),
        })
        .await
        .unwrap();
    }
}

/// The writer's region, cut off, with nobody there who would hold its server: what goes through its
/// router hears nothing more, and goes on where it was when the agent is back.
async fn reads_end_with_the_lease_also_where_the_agent_is_frozen(stack: &Stack) {
    let settings = stack.state().stack().unwrap();
    let route = settings.routes.iter().find(|one| one.id().to_string() == "to-main.region1");
    let targets = Targets::of(&settings).unwrap();
    let limit = Duration::from_secs(5);
    let route = route.unwrap();
    let connect = async |port| {
        let connected = Session::connect(&targets.postgres[0], port, limit).await;
        connected.unwrap().0
    };
    let (writes, reads) =
        (connect(route.address).await, connect(route.read_address.unwrap()).await);
    let direct = crate::stack::postgres(stack, "main.region1").await.unwrap();
    let agent = stack.process("agent.region1").unwrap();
    processes::signal(agent, Signal::STOP);
    // Those before the end of the lease are answered.
    let until_no_answer = async |session: Session| loop {
        let answer = session.client.simple_query("SELECT 1");
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), answer).await {
            answer.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            return session;
        }
    };
    let asked = async { tokio::join!(until_no_answer(writes), until_no_answer(reads)) };
    let (writes, reads) = tokio::time::timeout(RECOVERY, asked).await.unwrap();
    // The server itself would answer.
    direct.simple_query("SELECT 1").await.unwrap();
    thaw(&[agent]);
    for session in [writes, reads] {
        session.client.simple_query("SELECT 1").await.unwrap();
    }
    stack.api().protected(RECOVERY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_routers_lose_nothing_in_switches_ends_of_the_orchestrator_and_a_lost_region() {
    let stack = Stack::up_with(&["--routers"]);
    let api = stack.api();
    api.protected(RECOVERY).await.unwrap();
    all_read_nearby(&stack, "region1").await;
    reads_end_with_the_lease_also_where_the_agent_is_frozen(&stack).await;
    let run = Run::start(&stack, "routers-planned").await;
    for target in ["region2", "region1"] {
        let before = run.errors();
        let answer = api.failover(target).await;
        answer.succeeds();
        for step in ["hold-route", "switch-route", "release-route"] {
            let ended = outcomes(&answer.body, step);
            // Two PgBouncers, and two ports of two routers.
            assert_eq!(ended.len(), 6, "{step}: {ended:?}");
            assert!(ended.iter().all(|one| one.starts_with("done")), "{step}: {ended:?}");
        }
        run.goes_on().await;
        let after = run.errors();
        // Each open session ends once, and what was on its way there is told so.
        println!(
            "to {target}: {} errors of 8 PostgreSQL clients, {} of 4 of Redis",
            after[0] - before[0],
            after[1] - before[1]
        );
        all_lead_to_the_writer(&stack).await;
        api.protected(RECOVERY).await.unwrap();
        all_read_nearby(&stack, target).await;
    }

    // In the hold, before and after the point of no return.
    for case in ["orchestrator.store after exit", "orchestrator.stored after exit"] {
        let status = api.protected(RECOVERY).await.unwrap();
        let other = if status["current_region"] == "region1" { "region2" } else { "region1" };
        arm(&stack, case);
        let asking = stack.api();
        let path = format!("/failover/{other}");
        let asked = tokio::spawn(async move { asking.try_post(&path, Ask::default()).await });
        until(RECOVERY, async || match is_armed(&stack) {
            true => Err("not reached".to_owned()),
            false => Ok(()),
        })
        .await
        .unwrap();
        let role = "orchestrator.witness";
        until(RECOVERY, async || match stack.process(role) {
            Some(_) => Err(format!("{role} runs still")),
            None => Ok(()),
        })
        .await
        .unwrap();
        stack.start_again(role);
        // It was answered by nobody.
        let _ = asked.await.unwrap();
        let status = known_state(&stack).await;
        run.goes_on().await;
        all_lead_to_the_writer(&stack).await;
        println!("{case}: the writer is {}, and clients go on", status["current_region"]);
    }
    run.lost_nothing(&PATHS).await;

    let status = api.protected(RECOVERY).await.unwrap();
    let lost = status["current_region"].as_str().unwrap().to_owned();
    let other = if lost == "region1" { "region2" } else { "region1" };
    let run = Run::start(&stack, "routers-lost-region").await;
    let names = stack.started_in(&lost);
    stack.kill_region(&lost);
    api.failover(other).await.succeeds();
    run.goes_on().await;
    names.iter().for_each(|name| stack.start_again(name));
    api.protected(RECOVERY).await.unwrap();
    all_lead_to_the_writer(&stack).await;
    // What Redis acknowledged without `WAIT`, a region that is gone may take along.
    run.lost_nothing(&PATHS[..1]).await;
}
