//! The settings of a stack: one TOML file that every role of the stack reads.
//!
//! A role takes what concerns it by its region or site. Secrets are never in this file, only where
//! they are kept. Every problem in a file is reported at once, at its line.
//!
//! Each setting is one field with its description beside it (`settings`, `limits`); checking
//! (`check`), the reference and the example (`reference`) and reloading (`reload`) read it.

mod check;
mod describe;
mod follow;
mod limits;
mod nearest;
mod problem;
mod reference;
mod relations;
mod reload;
mod secret;
mod settings;
mod stack;
mod units;
mod value;

pub use describe::{About, Change, Count, Fallback, Field, Kind, Role, Setting, Table, Unit};
pub use follow::{Follower, Looked, follow};
pub use limits::Limits;
pub use problem::{ConfigError, Place, Problem};
pub use reference::{example, reference};
pub use reload::{Applied, Reader, Refused, Reload, decide};
pub use secret::{InvalidSecretSource, Secret, SecretError, SecretSource};
pub use settings::{
    AdoptedSettings, AgentSettings, DatastoreSettings, NodeSettings, OrchestratorSettings,
    PostgresSettings, Probes, ProxyProtocol, RedisMode, RedisSettings, RouteKind, RouteReads,
    RouteSettings, SentinelSettings, Stack, StackSettings, StoreSettings, TelemetrySettings,
};
pub use units::{Autostart, enabled_units, units_that_name};
