//! One life of the service: ordinary days, a standby that is gone, and a primary that is gone.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::servers::{Lab, Server, connect, free_port};

#[derive(Clone)]
pub struct Service {
    port: u16,
    pub client: reqwest::Client,
}

impl Service {
    /// The one that listens there, as soon as it does.
    pub async fn at(port: u16) -> Service {
        let service = Service { port, client: reqwest::Client::new() };
        let url = format!("http://127.0.0.1:{port}/health");
        let limit = Instant::now() + Duration::from_secs(30);
        while service.client.get(&url).send().await.is_err() {
            assert!(Instant::now() < limit, "the service does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service
    }

    pub async fn post(&self, body: &Value) -> (u16, Value, Duration) {
        let start = Instant::now();
        let url = format!("http://127.0.0.1:{}/telemetry", self.port);
        let answer = self.client.post(url).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap(), start.elapsed())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = self.client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What it answers once it is as expected: the standby replays what was acknowledged, and the
    /// cache is filled, a moment later.
    async fn once(&self, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, answer) = self.get(path).await;
            if status == 200 && expected(&answer) {
                return answer;
            }
            assert!(Instant::now() < limit, "still {status} {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn reading(device: &str, second: u32, value: u32) -> Value {
    json!({
        "device_id": device, "device_type": "turbine", "site_id": "north",
        "timestamp_utc": format!("2026-11-23T10:00:{second:02}.5Z"),
        "metrics": {"rpm": value}, "status": {"ok": true},
    })
}

/// One life of the service of a region.
pub struct Life {
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Life {
    pub fn begin(config: PathBuf, region: &str) -> Life {
        let (stop, stopped) = oneshot::channel::<()>();
        let region = region.parse().unwrap();
        let served = tokio::spawn(async move {
            tier0_telemetry_api::run(&config, region, async { drop(stopped.await) }).await
        });
        Life { stop, served }
    }

    /// It must not have ended by itself, and ends now.
    pub async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// Where the service of region1 listens, and that of region2, and their servers.
pub fn write_config(lab: &Lab, listen: [u16; 2], postgres: [u16; 2], redis: [u16; 2]) -> PathBuf {
    let [listen1, listen2] = listen;
    let secret = lab.secret();
    let secret = secret.display();
    let node = |kind: &str, region: usize, port: u16| {
        format!(
            "[[datastore.node]]\nregion = \"region{region}\"\naddress = \"127.0.0.1:{port}\"\n\
             data_directory = \"/nowhere/{kind}{region}\"\narchive_directory = \"/nowhere\"\n\
             log_file = \"/nowhere\"\n"
        )
    };
    let agent = |region: usize| {
        format!(
            "[[agent]]\nregion = \"region{region}\"\nlisten = \"127.0.0.1:{region}\"\n\
             state_directory = \"/nowhere\"\n"
        )
    };
    let text = format!(
        "[stack]\nname = \"test\"\nregions = [\"region1\", \"region2\"]\n\
         role_token_file = \"{secret}\"\n\
         [[orchestrator]]\nsite = \"witness\"\nlisten = \"127.0.0.1:3\"\n\
         state_directory = \"/nowhere\"\noperate_token_file = \"{secret}\"\n\
         accept_loss_token_file = \"{secret}\"\n\
         {}{}\
         [[datastore]]\nname = \"db\"\nkind = \"postgres\"\n\
         [datastore.postgres]\nbin_directory = \"/nowhere\"\nadmin_user = \"postgres\"\n\
         replication_user = \"r\"\nreplication_password_file = \"{secret}\"\n\
         database = \"app\"\napplication_user = \"app\"\n\
         application_password_file = \"{secret}\"\n\
         {}{}\
         [[datastore]]\nname = \"cache\"\nkind = \"redis\"\n\
         [datastore.redis]\nserver_binary = \"/nowhere\"\npassword_file = \"{secret}\"\n\
         master_name = \"cache\"\ndown_after_ms = 3000\n\
         {}{}\
         [[telemetry]]\nregion = \"region1\"\nlisten = \"127.0.0.1:{listen1}\"\n\
         postgres = \"db\"\nredis = \"cache\"\n\
         [[telemetry]]\nregion = \"region2\"\nlisten = \"127.0.0.1:{listen2}\"\n\
         postgres = \"db\"\nredis = \"cache\"\n",
        agent(1),
        agent(2),
        node("db", 1, postgres[0]),
        node("db", 2, postgres[1]),
        node("cache", 1, redis[0]),
        node("cache", 2, redis[1]),
    );
    let path = lab.path("stack.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// And one that the database refuses harms no other. Answers how many were stored.
async fn many_at_once_share_commits(service: &Service, primary: &Server, refused: u32) -> i64 {
    const REQUESTS: u32 = 300;
    let admin = connect(primary, "app").await;
    let refuse = "ALTER TABLE device_telemetry DROP CONSTRAINT IF EXISTS nowhere, \
                  ADD CONSTRAINT nowhere CHECK (site_id <> 'nowhere')";
    admin.batch_execute(refuse).await.unwrap();
    let groups = async || {
        let url = format!("http://127.0.0.1:{}/metrics", service.port);
        let text = service.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("telemetry_group_readings_count"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let before = groups().await;
    // Nobody is done before everybody has asked.
    admin.batch_execute("BEGIN; LOCK TABLE device_telemetry").await.unwrap();
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        let mut body = reading(&format!("g{refused}-{number}"), 0, number);
        let is_refused = refused > 0 && number % refused == 0;
        body["site_id"] = json!(if is_refused { "nowhere" } else { "together" });
        let service = service.clone();
        posts.spawn(async move { (is_refused, service.post(&body).await) });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    admin.batch_execute("COMMIT").await.unwrap();
    let mut stored = 0;
    while let Some(post) = posts.join_next().await {
        let (is_refused, (status, answer, _)) = post.unwrap();
        assert_eq!(status, if is_refused { 422 } else { 201 }, "{answer}");
        if !is_refused {
            assert_eq!(answer["new"], 1, "{answer}");
            stored += 1;
        }
    }
    let commits = groups().await - before;
    println!("{REQUESTS} requests at once in {commits} groups");
    // A group with a refused reading is tried request by request.
    assert!(refused > 0 || commits < REQUESTS / 2, "few shared a commit");
    let mut found = 0;
    let first = "/sites/together/readings?limit=77";
    service.once(first, |page| page["readings"] != json!([])).await;
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let (status, page) = service.get(&path).await;
        assert_eq!(status, 200, "{page}");
        found += page["readings"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_owned);
    }
    // The local node is the standby, and it may be a moment behind.
    assert!((1..=2 * REQUESTS as usize).contains(&found), "{found}");
    let (status, ready) = service.get("/ready").await;
    assert_eq!((status, &ready["writes"]), (200, &json!(true)), "{ready}");
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_survives_its_datastores() {
    let lab = Lab::new();
    let mut primary = lab.primary().await;
    let mut standby = lab.standby(&primary).await;
    let redis = lab.redis();
    let port = free_port();
    // Clients know addresses; a server that starts again must keep its own.
    let standby_port = standby.port;
    // The service is in region2 with the standby; its Redis is region2's, region1's is dead.
    let listen = [free_port(), port];
    let redises = [free_port(), redis.port];
    let config = write_config(&lab, listen, [primary.port, standby_port], redises);
    let life = Life::begin(config, "region2");
    let service = Service::at(port).await;

    // Ordinary days. The table does not exist yet.
    let (status, answer, _) = service.post(&reading("t1", 0, 1)).await;
    assert_eq!((status, &answer["new"]), (201, &json!(1)), "{answer}");
    let batch = json!([reading("t1", 0, 99), reading("t1", 1, 2), reading("t2", 0, 3)]);
    let (status, answer, _) = service.post(&batch).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["duplicates"], 1, "{answer}");
    let of = |source: &'static str| move |answer: &Value| answer["source"] == source;
    // Not from the cache: with duplicates nobody knows which of the bodies is the stored one.
    let stored = service.once("/devices/t2/latest", of("local")).await;
    assert_eq!(stored["reading"], reading("t2", 0, 3), "the same from the database as was sent");
    // The newest is not the one that came last. Batches go to the cache one after the other.
    for (device, second, value) in [("t3", 7, 70), ("t3", 6, 60), ("t3-after", 0, 1)] {
        let (status, _, took) = service.post(&reading(device, second, value)).await;
        assert_eq!(status, 201);
        println!("insert with a synchronous standby: {took:?}");
    }
    service.once("/devices/t3-after/latest", of("cache")).await;
    let newest = service.once("/devices/t3/latest", of("cache")).await;
    assert_eq!(newest["reading"], reading("t3", 7, 70), "the same from cache as was sent");
    assert_eq!(service.get("/devices/t9/latest").await.0, 404);
    let span = "/devices/t1/readings?from=2026-11-23T10:00:00Z&to=2026-11-23T10:00:02Z&limit=1";
    let mut next = Some(span.to_owned());
    for second in [0, 1] {
        let (status, page) = service.get(&next.unwrap()).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["readings"], json!([reading("t1", second, second + 1)]));
        next = page["next"].as_str().map(str::to_owned);
    }
    let (_, health) = service.get("/health").await;
    assert_eq!(health["postgres"][0]["role"], "writer", "{health}");
    assert_eq!(health["postgres"][1]["role"], "replica", "{health}");
    assert_eq!(health["cache_reachable"], true);

    let mut together = many_at_once_share_commits(&service, &primary, 0).await;
    together += many_at_once_share_commits(&service, &primary, 50).await;

    // No standby: commits wait. Somebody cancels the wait, and PostgreSQL answers COMMIT.
    standby.crash();
    let admin = connect(&primary, "app").await;
    let canceller = tokio::spawn(async move {
        let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                      WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'";
        let mut cancelled = 0;
        for _ in 0..40 {
            cancelled += admin.query_one(cancel, &[]).await.unwrap().get::<_, i64>(0);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let stored = "SELECT count(*) FROM device_telemetry WHERE device_id = 't4'";
        (cancelled, admin.query_one(stored, &[]).await.unwrap().get::<_, i64>(0))
    });
    let (status, answer, took) = service.post(&reading("t4", 0, 5)).await;
    let (cancelled, visible) = canceller.await.unwrap();
    assert_eq!((cancelled, visible), (1, 1), "the row is visible on the primary");
    assert_eq!((status, &answer["outcome"]), (503, &json!("unknown")), "{answer}");
    println!("a wait that was cancelled, then a duplicate without a standby: {took:?}, {answer}");

    // The standby is back: the same reading again settles it.
    drop(standby);
    let standby = lab.restart("standby", standby_port).await;
    let (status, answer, _) = service.post(&reading("t4", 0, 5)).await;
    assert_eq!((status, &answer["duplicates"]), (201, &json!(1)), "{answer}");

    // The primary is gone while writes come in; its standby is promoted.
    tokio::time::sleep(Duration::from_millis(200)).await;
    primary.crash();
    let write = async {
        let (status, answer, took) = service.post(&reading("t5", 0, 6)).await;
        assert_eq!((status, &answer["new"]), (201, &json!(1)), "{answer}");
        took
    };
    let promote = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| lab.promote("standby"));
        // Alone now, like a primary that its agent has told so.
        let admin = connect(&standby, "app").await;
        let setting: String =
            admin.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get(0);
        assert_eq!(setting, "");
        Instant::now()
    };
    let start = Instant::now();
    let (took, promoted) = tokio::join!(write, promote);
    println!("a write across the move: {took:?}, promoted after {:?}", promoted - start);
    let admin = connect(&standby, "app").await;
    let count = "SELECT count(*) FROM device_telemetry";
    assert_eq!(admin.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 8 + together);
    let (_, health) = service.get("/health").await;
    assert_eq!(health["postgres"][0]["role"], "unreachable", "{health}");
    assert_eq!(health["postgres"][1]["role"], "writer", "{health}");

    // No writer at all: said within the limit, and with certainty.
    drop(standby);
    let (status, answer, took) = service.post(&reading("t6", 0, 7)).await;
    assert_eq!((status, &answer["outcome"]), (503, &json!("not-stored")), "{answer}");
    assert!(took < Duration::from_secs(6), "{took:?}");

    life.end().await;
}
