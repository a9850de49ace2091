//! Lines of the roles' logs, as they are put side by side.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Whose it is: `agent.REGION` or `orchestrator.SITE`.
    pub role: String,
    /// When, in milliseconds since 1970: by the orchestrator's clock, as far as the offset of the
    /// role's is known.
    pub at_ms: i64,
    /// Its number among the lines of its role.
    pub number: u64,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// What it says.
    pub text: String,
}

/// Answer of `GET /logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsBody {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// What to send as `after` to get what came later.
    pub after: String,
    /// Roles that could not be asked, and why.
    pub silent: BTreeMap<String, String>,
    /// The operation is over, and so are its lines.
    pub ended: bool,
}
