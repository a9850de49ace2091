//! Whom a stop ends: how many sessions of clients, and who of them is in a transaction. For people, who
//! are asked afterwards whose work was undone. Left out: a commit that waits for a standby. What becomes
//! of it does not lie with the stop, but with what that standby has.

use std::time::Duration;

use serde::Deserialize;
use tier0_core::order::EndedSessions;

use crate::session::Session;

/// One value. Twenty are named, those who have been in a transaction for the longest. (The function behind
/// the view: planning that takes longer than all the rest. A name is quoted where it needs to be, and
/// PostgreSQL keeps nothing but printable ASCII of what an application calls itself.)
const WHO: &str = "\
    SELECT json_build_object('sessions', count(*), \
        'open', count(*) FILTER (WHERE is_open), \
        'named', coalesce((array_agg(format('pid %s, user=%s%s, for %s s', pid, usesysid::regrole, \
            ', app=' || nullif(application_name, ''), \
            round(extract(epoch FROM clock_timestamp() - xact_start)::numeric, 1)) \
            ORDER BY xact_start) FILTER (WHERE is_open))[1:20], '{}')) \
    FROM (SELECT *, xact_start IS NOT NULL AND wait_event IS DISTINCT FROM 'SyncRep' AS is_open \
        FROM pg_stat_get_activity(NULL)) AS activity \
    WHERE backend_type = 'client backend' AND application_name NOT LIKE 'tier0-%'";

#[derive(Debug, Deserialize)]
struct Looked {
    sessions: u32,
    open: u32,
    named: Vec<String>,
}

/// Ask the server that is about to be stopped. Where it does not say, nobody is known, and it is stopped
/// all the same.
pub(crate) async fn whom(session: &Session, limit: Duration) -> EndedSessions {
    let looking = async {
        let text = session.value(WHO, limit).await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    };
    match looking.await {
        Ok(Looked { sessions, open, named }) => {
            EndedSessions { all: sessions, in_transaction: open, named }
        }
        Err(why) => {
            tracing::warn!(why, "nobody knows whom a stop ends");
            EndedSessions::default()
        }
    }
}
