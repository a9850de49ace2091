//! The tables of this service, made in steps that are taken once, though the services of two regions
//! begin at the same moment. A step that was published is never changed; a new one is added.
//!
//! The first step takes a table that is there already, since the lab and the specification's own
//! scripts make it too.

use tokio_postgres::Client;

/// What each version adds to the one before.
const STEPS: [&str; 3] = [
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
    // What there is becomes the partition of everything before tomorrow, without a copy: it is read
    // once, and clients wait meanwhile. Devices whose clocks are ahead may have readings of later days;
    // those go to the rest, from which each day takes its own (`partitions`). Grants are of the table,
    // and the table is a new one.
    "DO $$ \
     DECLARE \
        tomorrow constant timestamp := date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day'; \
        edge constant timestamptz := tomorrow AT TIME ZONE 'UTC'; \
        before constant text := 'device_telemetry_until_' || to_char(tomorrow, 'YYYYMMDD'); \
        one record; \
     BEGIN \
        LOCK TABLE device_telemetry IN ACCESS EXCLUSIVE MODE; \
        EXECUTE format('ALTER TABLE device_telemetry RENAME TO %I', before); \
        EXECUTE format('ALTER INDEX IF EXISTS device_telemetry_pkey RENAME TO %I', \
            before || '_pkey'); \
        EXECUTE format('ALTER INDEX IF EXISTS device_telemetry_by_site RENAME TO %I', \
            before || '_by_site'); \
        EXECUTE format('CREATE TABLE device_telemetry \
            (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS, \
             PRIMARY KEY (device_id, timestamp_utc)) PARTITION BY RANGE (timestamp_utc)', before); \
        CREATE INDEX device_telemetry_by_site \
            ON device_telemetry (site_id, timestamp_utc, device_id); \
        CREATE TABLE device_telemetry_rest PARTITION OF device_telemetry DEFAULT; \
        EXECUTE format('WITH ahead AS (DELETE FROM %I WHERE timestamp_utc >= %L RETURNING *) \
            INSERT INTO device_telemetry_rest SELECT * FROM ahead', before, edge); \
        EXECUTE format('ALTER TABLE device_telemetry ATTACH PARTITION %I \
            FOR VALUES FROM (MINVALUE) TO (%L)', before, edge); \
        FOR one IN SELECT privilege_type, \
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee \
            FROM pg_class, aclexplode(relacl) \
            WHERE oid = to_regclass(before) AND grantee <> relowner \
        LOOP \
            EXECUTE format('GRANT %s ON device_telemetry TO %s', one.privilege_type, one.grantee); \
        END LOOP; \
     END $$",
];

/// Two sessions that change the tables at the same moment would fail, so they come one after the other.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(8476001)";

/// A change of the tables holds locks until its commit is done, so it does not wait for the standby: that
/// would hold up all reads for as long as the standby is silent. Nobody is told that it is done, and
/// where it is lost with a region it is made again. What is acknowledged later lies behind it.
pub(super) const LOCAL: &str = "SET LOCAL synchronous_commit = local";

/// Who waits for a table lets nobody pass, hence not for long: it is tried again.
const LIMIT: &str = "SET LOCAL lock_timeout = '1s'";

const VERSIONS: &str = "\
    CREATE TABLE IF NOT EXISTS telemetry_schema ( \
        version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())";

/// Bring the tables to the newest version. A session in which this fails must be dropped: its
/// transaction may be open.
pub(super) async fn migrate(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("BEGIN; {LOCAL}; {LIMIT}; {LOCK}; {VERSIONS}")).await?;
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
