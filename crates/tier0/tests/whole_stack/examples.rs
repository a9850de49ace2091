//! The examples of the guide, as they stand in the repository: they place orders while the writer
//! moves there and back, and every order that they say is placed is there, once.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::stack::{RECOVERY, Stack, root, shared, writer_session};

const ORDERS: u64 = 150;

fn dsn(stack: &Stack) -> String {
    let settings = stack.state().stack().unwrap();
    let main = settings.datastores.iter().find(|one| one.postgres.is_some()).unwrap();
    let postgres = main.postgres.as_ref().unwrap();
    let of = |part: fn(&std::net::SocketAddr) -> String| {
        main.nodes.iter().map(|node| part(&node.address)).collect::<Vec<_>>().join(",")
    };
    format!(
        "host={} port={} user={} password={} dbname={}",
        of(|address| address.ip().to_string()),
        of(|address| address.port().to_string()),
        postgres.application_user,
        postgres.application_password_file.read().unwrap().expose(),
        postgres.database
    )
}

fn python(stack: &Stack, prefix: &str) -> std::process::Child {
    let settings = stack.state().stack().unwrap();
    let cache = settings.datastores.iter().find_map(|one| one.redis.as_ref()).unwrap();
    let sentinels: Vec<String> =
        cache.sentinels.iter().map(|one| one.address.to_string()).collect();
    // Debian's, which has the packages; another may come first on PATH.
    Command::new("/usr/bin/python3")
        .arg(root().join("examples/python/survivor.py"))
        .args([prefix, &ORDERS.to_string()])
        .env("POSTGRES_DSN", dsn(stack))
        .env("REDIS_SENTINELS", sentinels.join(","))
        .env("REDIS_MASTER", &cache.master_name)
        .env("REDIS_PASSWORD", cache.password_file.read().unwrap().expose())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 with psycopg2 and redis; `scripts/setup tests` installs them")
}

async fn placed(stack: &Stack, prefix: &str) -> BTreeSet<String> {
    let session = writer_session(stack).await.unwrap();
    let rows = session
        .query("SELECT name FROM example_order WHERE name LIKE $1 || '-%'", &[&prefix])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_come_through_switches_and_what_they_placed_is_there() {
    let stack = shared().await;
    let dsn = dsn(&stack);
    let rust = tokio::spawn(async move {
        tier0_example::place_orders(&dsn, "rust", ORDERS, Duration::from_millis(20)).await
    });
    let python = python(&stack, "python");
    for target in ["region2", "region1"] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stack.api().failover(target).await.succeeds();
        stack.api().protected(RECOVERY).await.unwrap();
    }
    let report = rust.await.unwrap().unwrap();
    println!("Rust: {report:?}");
    assert_eq!(report.placed, ORDERS);
    let ended = tokio::task::spawn_blocking(move || python.wait_with_output()).await.unwrap();
    let ended = ended.unwrap();
    let problems = String::from_utf8_lossy(&ended.stderr).into_owned();
    println!("Python: {problems}");
    assert!(ended.status.success(), "{problems}");
    let said: BTreeSet<String> =
        String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect();
    assert_eq!(said.len() as u64, ORDERS, "{problems}");
    assert_eq!(placed(&stack, "python").await, said);
    assert_eq!(placed(&stack, "rust").await.len() as u64, ORDERS);
}
