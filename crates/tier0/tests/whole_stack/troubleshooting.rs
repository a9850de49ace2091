//! docs/troubleshooting.md: each case is provoked on real servers, the commands that stand there are
//! run, the cause is found in what they print, and the remedy that stands there helps.

use rustix::process::Signal;
use tier0_lab::processes;

use crate::stack::{
    Api, RECOVERY, Section, Stack, acknowledged, admin, kill, postgres, shared, taken_off,
    troubleshooting, until,
};

#[test]
fn every_case_that_says_what_it_shows_is_provoked_here() {
    let here = include_str!("troubleshooting.rs");
    let page = troubleshooting();
    let cases: Vec<&str> = page
        .split("\n## ")
        .skip(1)
        .filter(|section| section.contains("\nShows as "))
        .map(|section| section.lines().next().unwrap())
        .collect();
    assert!(cases.len() >= 18, "only {} cases are left", cases.len());
    let untested: Vec<&&str> =
        cases.iter().filter(|case| !here.contains(&format!("Section::of(\"{case}\")"))).collect();
    assert!(untested.is_empty(), "nothing provokes {untested:?}");
}

/// SIGSTOP or SIGCONT to every process of a data server.
fn signal_server(stack: &Stack, node: &str, signal: Signal) {
    let state = stack.state();
    let server = stack.look().processes.into_iter().find(|one| one.name == node).unwrap();
    for process in processes::of_lab(&stack.directory, state.uid) {
        if process.directory == server.data_directory {
            processes::signal(process.identity, signal);
        }
    }
}

async fn exposed(api: &Api) {
    until(RECOVERY, async || {
        let status = api.status().await?;
        if status["protection"] == "exposed" { Ok(()) } else { Err(status.to_string()) }
    })
    .await
    .unwrap();
}

fn sql(stack: &Stack, node: &str, statement: &str) {
    admin(stack, node, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[tokio::test]
async fn a_setting_or_a_session_that_stands_in_the_way_is_found_and_mended() {
    let stack = shared().await;
    sql(&stack, "main.region1", "CREATE ROLE batch LOGIN");

    let case = Section::of("A switch would cancel somebody's work");
    case.shows_nothing_yet(&stack, "region1");
    let reports = postgres(&stack, "main.region1").await.unwrap();
    reports.batch_execute("SET application_name = 'reports'; BEGIN; SELECT 1").await.unwrap();
    case.shows(&stack, "region1").await;
    case.mend(&stack, "region1").await;

    let case = Section::of("Acknowledged commits are on one disk only");
    case.shows_nothing_yet(&stack, "region1");
    sql(&stack, "main.region1", "ALTER ROLE batch SET synchronous_commit = off");
    case.shows(&stack, "region1").await;
    case.mend(&stack, "region1").await;

    let case = Section::of("A password is about to expire");
    case.shows_nothing_yet(&stack, "region1");
    let soon = "DO $$ BEGIN EXECUTE format('ALTER ROLE batch VALID UNTIL %L', \
                now() + interval '3 days'); END $$";
    sql(&stack, "main.region1", soon);
    case.shows(&stack, "region1").await;
    case.mend(&stack, "region1").await;

    let case = Section::of("The writer's disk fills with WAL");
    case.shows_nothing_yet(&stack, "region1");
    sql(&stack, "main.region1", "SELECT pg_create_physical_replication_slot('forgotten', true)");
    case.shows(&stack, "region1").await;
    case.mend(&stack, "region1").await;

    let case = Section::of("Redis would lose its data at a restart");
    case.shows_nothing_yet(&stack, "region1");
    stack.run("redis-cli $MASTER CONFIG SET appendonly no", "region1");
    case.shows(&stack, "region1").await;
    case.mend(&stack, "region1").await;
    sql(&stack, "main.region1", "DROP ROLE batch");
}

#[tokio::test]
async fn an_archive_that_fails_is_found_and_mended() {
    let stack = shared().await;
    let case = Section::of("The archive does not work");
    case.shows_nothing_yet(&stack, "region1");
    sql(&stack, "main.region1", "ALTER SYSTEM SET archive_command = 'false'");
    sql(&stack, "main.region1", "SELECT pg_reload_conf()");
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "NOT-ARCHIVED").await.unwrap();
    sql(&stack, "main.region1", "SELECT pg_switch_wal()");
    case.shows(&stack, "region1").await;
    // The archiver tries again a minute later, or when there is a new segment.
    let wake = tokio::spawn(async move {
        for number in 0..20 {
            acknowledged(&session, &format!("ARCHIVED-{number}")).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    });
    let segments = async {
        for _ in 0..10 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            sql(&stack, "main.region1", "SELECT pg_switch_wal()");
        }
    };
    tokio::join!(case.mend(&stack, "region1"), segments);
    wake.await.unwrap();
}

#[tokio::test]
async fn what_would_refuse_a_switch_is_found() {
    let stack = shared().await;
    let api = stack.api();

    let case = Section::of("Something else starts the servers");
    case.shows_nothing_yet(&stack, "region1");
    let wants = stack.directory.join("region1/units/multi-user.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    let data = stack.directory.join("region1/main/data");
    let unit =
        format!("[Service]\nExecStart=/usr/lib/postgresql/15/bin/postgres -D {}\n", data.display());
    std::fs::write(wants.join("shop-database.service"), unit).unwrap();
    case.shows(&stack, "region1").await;
    api.failover("region2").await.refuses(409, "autostart");
    std::fs::remove_file(wants.join("shop-database.service")).unwrap();

    let case = Section::of("The target has no room");
    case.shows_nothing_yet(&stack, "region1");
    // A full disk by the other side of the comparison: more room is demanded than any disk has.
    let file = stack.state().stack_file;
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("disk_free_least_mb")).unwrap();
    std::fs::write(&file, text.replace(line, "disk_free_least_mb = 900000000")).unwrap();
    case.shows(&stack, "region1").await;
    std::fs::write(&file, &text).unwrap();
    until(RECOVERY, async || {
        let ready = api.try_get("/readiness").await?;
        if ready.body["ready"] == true { Ok(()) } else { Err(ready.text) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_move_that_was_refused_says_why() {
    let stack = shared().await;
    let case = Section::of("It refused. Why?");
    let frozen = Section::of("A server is frozen");
    case.shows_nothing_yet(&stack, "region1");
    frozen.shows_nothing_yet(&stack, "region1");
    signal_server(&stack, "main.region2", Signal::STOP);
    exposed(&stack.api()).await;
    frozen.shows(&stack, "region1").await;
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "WITHOUT-THE-STANDBY").await.unwrap();
    let said = stack.run("tier0 failover region2 --reason 'too early'; echo exit $?", "region1");
    assert!(said.contains("exit 3"), "{said}");
    case.shows(&stack, "region1").await;
    signal_server(&stack, "main.region2", Signal::CONT);
    stack.api().protected(RECOVERY).await.unwrap();
}

#[tokio::test]
async fn a_standby_that_is_behind_is_found_waited_for_and_mended() {
    let stack = shared().await;
    let case = Section::of("Replication is far behind");
    case.shows_nothing_yet(&stack, "region1");
    sql(&stack, "main.region2", "SELECT pg_wal_replay_pause()");
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "NOT-REPLAYED").await.unwrap();
    case.shows(&stack, "region1").await;
    let said = stack.run("tier0 failover region2; echo exit $?", "region1");
    assert!(said.contains("exit 3") && said.contains("replication-lag"), "{said}");
    let waits = async {
        let api = stack.api();
        let ask =
            crate::stack::Ask { body: r#"{"wait_seconds": 40}"#.to_owned(), ..Default::default() };
        api.post("/failover/region2", ask).await
    };
    let mends = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        stack.run("psql \"$STANDBY\" -c 'SELECT pg_wal_replay_resume()'", "region1")
    };
    let (answer, said) = tokio::join!(waits, mends);
    answer.succeeds();
    println!("{said}{}", answer.text);
    stack.api().protected(RECOVERY).await.unwrap();
}

#[tokio::test]
async fn the_history_says_who_and_why_and_the_old_side_who_still_asks_it() {
    let stack = shared().await;
    let case = Section::of("Who did that, when, and did it work?");
    case.shows_nothing_yet(&stack, "region1");
    let said = stack.run("tier0 failover region2 --reason 'the quarterly drill'", "region1");
    assert!(said.contains("succeeded"), "{said}");
    case.shows(&stack, "region2").await;
    let case = Section::of("The application still talks to the old side");
    stack.api().protected(RECOVERY).await.unwrap();
    case.shows_nothing_yet(&stack, "region2");
    let reports = postgres(&stack, "main.region1").await.unwrap();
    reports.batch_execute("SET application_name = 'reports'").await.unwrap();
    case.shows(&stack, "region2").await;
    let answer = acknowledged(&reports, "ON-THE-OLD-SIDE").await;
    assert!(answer.is_err(), "the old side acknowledged a write");
    stack.api().protected(RECOVERY).await.unwrap();
}

#[tokio::test]
async fn roles_that_are_away_are_found() {
    let stack = shared().await;
    let api = stack.api();

    let case = Section::of("An agent is frozen or gone");
    case.shows_nothing_yet(&stack, "region1");
    let agent = stack.process("agent.region1").unwrap();
    processes::signal(agent, Signal::STOP);
    case.shows(&stack, "region1").await;
    processes::signal(agent, Signal::CONT);
    api.protected(RECOVERY).await.unwrap();

    let case = Section::of("The orchestrator does not answer");
    case.shows_nothing_yet(&stack, "region1");
    stack.kill("orchestrator.witness");
    case.shows(&stack, "region1").await;

    // Nobody is there to let a lost standby leave.
    let case = Section::of("Commits hang");
    let session = postgres(&stack, "main.region1").await.unwrap();
    signal_server(&stack, "main.region2", Signal::STOP);
    let hangs = tokio::spawn(async move {
        let sql = "INSERT INTO device_telemetry \
                   (device_id, device_type, site_id, timestamp_utc, metrics, status) \
                   VALUES ('HANGS', 'turbine', 'TEST', now(), '{}', '{}')";
        session.execute(sql, &[]).await.map(|_| ())
    });
    case.shows(&stack, "region1").await;
    assert!(!hangs.is_finished(), "a commit was answered without the standby");
    stack.start_again("orchestrator.witness");
    hangs.await.unwrap().unwrap();
    signal_server(&stack, "main.region2", Signal::CONT);
    api.protected(RECOVERY).await.unwrap();
    case.shows_nothing_yet(&stack, "region1");

    let case = Section::of("Sentinel does not follow");
    case.shows_nothing_yet(&stack, "region1");
    stack.kill("sentinel.witness");
    case.shows(&stack, "region1").await;
    stack.start_again("sentinel.witness");
    api.protected(RECOVERY).await.unwrap();
}

#[tokio::test]
async fn one_copy_for_long_is_found_and_so_is_why_a_standby_does_not_come_back() {
    let stack = shared().await;
    let api = stack.api();
    let case = Section::of("Protection is exposed for long");
    case.shows_nothing_yet(&stack, "region1");
    stack.kill("agent.region2");
    let standby = stack.process("main.region2").unwrap();
    kill(standby);
    taken_off(standby).await;
    case.shows(&stack, "region1").await;
    stack.start_again("agent.region2");
    api.protected(RECOVERY).await.unwrap();

    let case = Section::of("The standby does not come back");
    case.shows_nothing_yet(&stack, "region1");
    let settings = stack.state().stack().unwrap();
    let main = settings.datastore(&"main".parse().unwrap()).unwrap().postgres.clone().unwrap();
    let role = &main.replication_user;
    let password = |text: &str| format!("ALTER ROLE {role} PASSWORD '{text}'");
    sql(&stack, "main.region1", &password("somebody-changed-it"));
    sql(&stack, "main.region1", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    case.shows(&stack, "region1").await;
    let right = main.replication_password_file.read().unwrap();
    sql(&stack, "main.region1", &password(right.expose()));
    api.protected(RECOVERY).await.unwrap();
}

#[tokio::test]
async fn a_region_that_comes_back_is_seen_to_be_no_second_writer() {
    let stack = shared().await;
    let api = stack.api();
    let case = Section::of("The old region is back. Are there two writers?");
    case.shows_nothing_yet(&stack, "region2");
    let names = stack.started_in("region1");
    stack.kill_region("region1");
    until(RECOVERY, async || {
        let answer = api.failover("region2").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await
    .unwrap();
    names.iter().for_each(|name| stack.start_again(name));
    case.shows(&stack, "region2").await;
    api.protected(RECOVERY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_fails_says_where_and_goes_on_when_it_can() {
    let stack = shared().await;
    let api = stack.api();
    let case = Section::of("A promotion fails");
    case.shows_nothing_yet(&stack, "region1");
    let account = tier0_lab::account::Account::unprivileged().unwrap();
    let line = b"agent.received promote exit\n";
    tier0_lab::files::write_private(&stack.failpoint_file(), line, &account).unwrap();
    let said = stack.run("tier0 failover region2 --reason 'a promotion that fails'", "region1");
    println!("{said}");
    case.shows(&stack, "region2").await;
    stack.start_again("agent.region2");
    let status = api.protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region2", "{status:#}");
}
