//! The table's partitions: one for each day, made before it is needed, and dropped as a whole when all
//! of it is older than readings are kept.
//!
//! What came before the first day lies in `device_telemetry_until_…` of that day (`schema`), also if it
//! comes late. What belongs to no partition, hence readings of devices whose clocks are days ahead, and
//! of days that were dropped or never made, lies in `device_telemetry_rest`. That is little, and so a
//! day can take over what the rest has of it in the moment in which it is made: no reading is ever in
//! two places or in none.
//!
//! Nothing here may hold clients up: each step waits for a lock, and works, for a moment only, and is
//! tried again later. Both regions' services do it; who comes second finds it done. Each step is one
//! transaction, so a switch in the middle leaves it done or not begun.

use tokio_postgres::{Client, Error, Row};

use super::schema::{LOCAL, LOCK};

/// Days ahead for which there is a partition.
const AHEAD: i32 = 3;

/// Readings that are deleted from the rest at once.
const DELETED_AT_ONCE: i64 = 5_000;

/// How long a step may wait for a lock, and take.
const LIMITS: &str = "SET LOCAL lock_timeout = '300ms'; SET LOCAL statement_timeout = '2s'";

/// The first day that has no partition and should have one.
const MISSING: &str = "\
    SELECT to_char(day, 'YYYYMMDD'), day::date::text, (day::date + 1)::text \
    FROM generate_series(date_trunc('day', now() AT TIME ZONE 'UTC'), \
        date_trunc('day', now() AT TIME ZONE 'UTC') + make_interval(days => $1), \
        interval '1 day') AS day \
    WHERE to_regclass('device_telemetry_' || to_char(day, 'YYYYMMDD')) IS NULL \
        AND NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
            WHERE inhparent = 'device_telemetry'::regclass \
                AND relname ~ '^device_telemetry_until_[0-9]{8}$' \
                AND to_date(right(relname, 8), 'YYYYMMDD') > day::date) \
    ORDER BY day LIMIT 1";

/// The first partition that ended so many hours ago. The day in its name is that on which it begins,
/// or that until which it goes.
const OUTLIVED: &str = "\
    SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
    WHERE inhparent = 'device_telemetry'::regclass \
        AND relname ~ '^device_telemetry_(until_)?[0-9]{8}$' \
        AND to_date(right(relname, 8), 'YYYYMMDD') + (relname !~ 'until')::int \
            <= now() AT TIME ZONE 'UTC' - make_interval(hours => $1) \
    ORDER BY right(relname, 8) LIMIT 1";

const DELETE: &str = "\
    DELETE FROM device_telemetry_rest WHERE (device_id, timestamp_utc) IN ( \
        SELECT device_id, timestamp_utc FROM device_telemetry_rest \
        WHERE timestamp_utc < now() - make_interval(hours => $1) LIMIT $2)";

/// Make the partitions that are missing, and drop what is older than so many hours; `None` keeps
/// everything. A session in which this fails must be dropped: its transaction may be open.
pub(super) async fn keep(client: &Client, hours: Option<i32>) -> Result<(), Error> {
    while let Some(row) = begin_with(client, MISSING, AHEAD).await? {
        let (day, from, to): (&str, &str, &str) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        client.batch_execute(&make(day, from, to)).await?;
        client.batch_execute("COMMIT").await?;
        tracing::info!(day, "made the partition of a day");
    }
    client.batch_execute("COMMIT").await?;
    let Some(hours) = hours else { return Ok(()) };
    while let Some(row) = begin_with(client, OUTLIVED, hours).await? {
        let name: &str = row.try_get(0)?;
        client.batch_execute(&format!("DROP TABLE {name}; COMMIT")).await?;
        tracing::info!(name, "dropped a partition that is older than readings are kept");
    }
    client.batch_execute("COMMIT").await?;
    while client.execute(DELETE, &[&hours, &DELETED_AT_ONCE]).await? == DELETED_AT_ONCE as u64 {}
    Ok(())
}

/// Begin a step that no other session makes at the same time, with what there is to do in it.
async fn begin_with(client: &Client, sql: &str, number: i32) -> Result<Option<Row>, Error> {
    client.batch_execute(&format!("BEGIN; {LOCAL}; {LIMITS}; {LOCK}")).await?;
    client.query_opt(sql, &[&number]).await
}

/// The names come from the server and hold only digits and dashes.
fn make(day: &str, from: &str, to: &str) -> String {
    let (from, to) = (format!("'{from} 00:00:00+00'"), format!("'{to} 00:00:00+00'"));
    format!(
        "CREATE TABLE device_telemetry_{day} \
             (LIKE device_telemetry INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
         LOCK TABLE device_telemetry_rest IN ACCESS EXCLUSIVE MODE; \
         WITH moved AS (DELETE FROM device_telemetry_rest \
             WHERE timestamp_utc >= {from} AND timestamp_utc < {to} RETURNING *) \
         INSERT INTO device_telemetry_{day} SELECT * FROM moved; \
         ALTER TABLE device_telemetry ATTACH PARTITION device_telemetry_{day} \
             FOR VALUES FROM ({from}) TO ({to})"
    )
}
