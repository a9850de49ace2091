//! The tables of this service, made in steps that are taken once, though the services of two regions
//! begin at the same moment. A step that was published is never changed; a new one is added.
//!
//! The first step takes a table that is there already, since the lab and the specification's own
//! scripts make it too.

use tokio_postgres::Client;

/// What each version adds to the one before.
const STEPS: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS device_telemetry ( \
        device_id text NOT NULL, \
        device_type text NOT NULL, \
        site_id text NOT NULL, \
        timestamp_utc timestamptz NOT NULL, \
        metrics jsonb NOT NULL, \
        status jsonb NOT NULL, \
        PRIMARY KEY (device_id, timestamp_utc))",
    "CREATE INDEX IF NOT EXISTS device_telemetry_by_site \
        ON device_telemetry (site_id, timestamp_utc, device_id)",
];

/// Under a lock, because two sessions that make one table at the same moment fail.
const BEGIN: &str = "\
    BEGIN; \
    SELECT pg_advisory_xact_lock(8476001); \
    CREATE TABLE IF NOT EXISTS telemetry_schema ( \
        version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())";

/// Bring the tables to the newest version. A session in which this fails must be dropped: its
/// transaction may be open.
pub(super) async fn migrate(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    let version = "SELECT coalesce(max(version), 0) FROM telemetry_schema";
    let known: i32 = client.query_one(version, &[]).await?.try_get(0)?;
    for (version, step) in (1..).zip(STEPS) {
        if version > known {
            client.batch_execute(step).await?;
            let note = "INSERT INTO telemetry_schema (version) VALUES ($1)";
            client.execute(note, &[&version]).await?;
            tracing::info!(version, "tables brought to a new version");
        }
    }
    client.batch_execute("COMMIT").await
}
