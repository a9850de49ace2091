//! The table's partitions: what was in a plain table before is still there, though two services change
//! the table at once and the writer moves under them; days have their own; what is older than readings
//! are kept is gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::moves::{Life, Service, reading, write_config};
use crate::servers::{Lab, Server, connect, free_port};

/// A table as it was before there were days, that a reporting tool may read. The youngest reading is of
/// tomorrow.
const BEFORE: &str = "\
    CREATE ROLE reporting; \
    SET ROLE app; \
    CREATE TABLE device_telemetry (device_id text NOT NULL, device_type text NOT NULL, \
        site_id text NOT NULL, timestamp_utc timestamptz NOT NULL, metrics jsonb NOT NULL, \
        status jsonb NOT NULL, PRIMARY KEY (device_id, timestamp_utc)); \
    GRANT SELECT ON device_telemetry TO reporting; \
    INSERT INTO device_telemetry SELECT 'old-' || age, 'turbine', 'north', \
        now() - make_interval(days => age), '{}', '{}' FROM generate_series(-1, 9) AS age; \
    RESET ROLE";

/// As if the first day were years ago, eight and three days ago had their partitions, and a reading
/// came for a day that has none.
const YEARS_LATER: &str = "\
    SET ROLE app; \
    DO $$ \
    DECLARE before text; day date; ago int; \
    BEGIN \
        SELECT relname INTO before FROM pg_class WHERE relname ~ '^device_telemetry_until_[0-9]{8}$'; \
        EXECUTE format('ALTER TABLE device_telemetry DETACH PARTITION %I', before); \
        EXECUTE format('TRUNCATE %I', before); \
        EXECUTE format('ALTER TABLE %I RENAME TO device_telemetry_until_20200101', before); \
        ALTER TABLE device_telemetry ATTACH PARTITION device_telemetry_until_20200101 \
            FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00'); \
        FOREACH ago IN ARRAY ARRAY[8, 3] LOOP \
            day := (now() AT TIME ZONE 'UTC')::date - ago; \
            EXECUTE format('CREATE TABLE %I PARTITION OF device_telemetry \
                FOR VALUES FROM (%L) TO (%L)', 'device_telemetry_' || to_char(day, 'YYYYMMDD'), \
                day || ' 00:00:00+00', day + 1 || ' 00:00:00+00'); \
        END LOOP; \
    END $$; \
    INSERT INTO device_telemetry SELECT 'dropped', 'turbine', 'north', at, '{}', '{}' \
        FROM unnest(ARRAY['2019-06-01 10:00:00+00', '2021-06-01 10:00:00+00', \
            now() - interval '8 days']::timestamptz[]) AS at; \
    INSERT INTO device_telemetry \
        VALUES ('kept', 'turbine', 'north', now() - interval '3 days', '{}', '{}'); \
    RESET ROLE";

const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = \
                          to_regclass('device_telemetry')::oid";

async fn number(admin: &Client, sql: &str) -> i64 {
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

/// Until the number is as expected.
async fn until(admin: &Client, sql: &str, expected: impl Fn(i64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = number(admin, sql).await;
        if expected(found) {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn at(device: &str, time: &str) -> Value {
    let mut body = reading(device, 0, 1);
    body["timestamp_utc"] = json!(time);
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_table_becomes_one_of_days_and_old_days_go() {
    let lab = Lab::new();
    let mut primary = lab.primary().await;
    let standby = lab.standby(&primary).await;
    let (ports, postgres) = ([free_port(), free_port()], [primary.port, standby.port]);
    let config = write_config(&lab, ports, postgres, [free_port(), free_port()]);
    let holder = connect(&primary, "app").await;
    holder.batch_execute(BEFORE).await.unwrap();

    // Both services begin on a table that somebody holds, and the writer moves while they wait.
    holder.batch_execute("BEGIN; LOCK TABLE device_telemetry IN ROW EXCLUSIVE MODE").await.unwrap();
    let lives = ["region1", "region2"].map(|region| Life::begin(config.clone(), region));
    let admin = connect(&primary, "app").await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                   AND relation = to_regclass('device_telemetry')::oid";
    until(&admin, waiting, |waiting| waiting > 0).await;
    primary.crash();
    tokio::task::block_in_place(|| lab.promote("standby"));
    let admin = connect(&standby, "app").await;
    // What was there before, the rest, and three days ahead; at midnight one more.
    until(&admin, PARTITIONS, |partitions| partitions >= 5).await;
    let versions = "SELECT count(*) FROM telemetry_schema WHERE version IN (1, 2, 3)";
    assert_eq!(number(&admin, versions).await, 3);
    let kept = "SELECT count(*) FROM device_telemetry WHERE device_id LIKE 'old-%'";
    assert_eq!(number(&admin, kept).await, 11);
    let tomorrow = "SELECT (tableoid::regclass::text = 'device_telemetry_' || \
                    to_char(timestamp_utc AT TIME ZONE 'UTC', 'YYYYMMDD'))::int::bigint \
                    FROM device_telemetry WHERE device_id = 'old--1'";
    assert_eq!(number(&admin, tomorrow).await, 1, "it lies in the partition of its day");
    let rest = "SELECT count(*) FROM device_telemetry_rest";
    assert_eq!(number(&admin, rest).await, 0);
    admin.batch_execute("SET ROLE reporting; TABLE device_telemetry; RESET ROLE").await.unwrap();

    // A late one, and one of a day far ahead: once each, whichever service is asked.
    let services = [Service::at(ports[0]).await, Service::at(ports[1]).await];
    for time in ["2021-03-01T10:00:00Z", "2031-03-01T10:00:00Z"] {
        for (service, new) in services.iter().zip([1, 0]) {
            let (status, answer, _) = service.post(&at("t1", time)).await;
            assert_eq!((status, &answer["new"]), (201, &json!(new)), "{answer}");
        }
    }
    assert_eq!(number(&admin, rest).await, 1);

    its_day_comes_while_it_is_written(&standby, &services[0]).await;

    for life in lives {
        life.end().await;
    }
    admin.batch_execute(YEARS_LATER).await.unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[[telemetry]]", "[[telemetry]]\nretention_hours = 132");
    std::fs::write(&config, text).unwrap();
    let life = Life::begin(config, "region2");
    let dropped = "SELECT count(*) FROM device_telemetry WHERE device_id = 'dropped'";
    until(&admin, dropped, |left| left == 0).await;
    // Today, three days ahead, three days ago, the one of 2031, and the rest.
    until(&admin, PARTITIONS, |partitions| partitions >= 7).await;
    let old = "SELECT count(*) FROM pg_class WHERE relname ~ '^device_telemetry_until_'";
    assert_eq!(number(&admin, old).await, 0, "a partition goes as a whole");
    let kept = "SELECT count(*) FROM device_telemetry WHERE device_id = 'kept'";
    assert_eq!(number(&admin, kept).await, 1);
    life.end().await;
}

/// An insert that waits for the partition of the rest finds, once it may go on, that its day has a
/// partition of its own. That is nothing the client did wrong.
async fn its_day_comes_while_it_is_written(server: &Server, service: &Service) {
    let (maker, admin) = (connect(server, "app").await, connect(server, "app").await);
    let begin = "BEGIN; CREATE TABLE device_telemetry_20300101 \
                 (LIKE device_telemetry INCLUDING DEFAULTS); \
                 ALTER TABLE device_telemetry_20300101 OWNER TO app; \
                 LOCK TABLE device_telemetry_rest IN ACCESS EXCLUSIVE MODE";
    let end = "ALTER TABLE device_telemetry ATTACH PARTITION device_telemetry_20300101 \
               FOR VALUES FROM ('2030-01-01 00:00:00+00') TO ('2030-01-02 00:00:00+00'); COMMIT";
    maker.batch_execute(begin).await.unwrap();
    let body = at("t2", "2030-01-01T10:00:00Z");
    let posted = {
        let (service, body) = (service.clone(), body.clone());
        tokio::spawn(async move { service.post(&body).await })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                   AND relation = 'device_telemetry_rest'::regclass";
    until(&admin, waiting, |waiting| waiting > 0).await;
    maker.batch_execute(end).await.unwrap();
    let (status, answer, _) = posted.await.unwrap();
    assert_eq!((status, &answer["new"]), (201, &json!(1)), "{answer}");
    let (status, answer, _) = service.post(&body).await;
    assert_eq!((status, &answer["duplicates"]), (201, &json!(1)), "{answer}");
    assert_eq!(number(&admin, "SELECT count(*) FROM device_telemetry_20300101").await, 1);
}
