//! What an orchestrator asks an agent.

use serde::{Deserialize, Serialize};
use tier0_core::order::{Command, Outcome};
use tier0_core::words::{Epoch, Heard, Lineage, Region};

/// `POST /v1/poll`: one round trip that is observation and heartbeat in one. The answer is an
/// [`tier0_core::observe::AgentReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollRequest {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// The record as the orchestrator knows it to be stored.
    pub heard: Option<Heard>,
    /// The writer in that record.
    pub writer: Option<Region>,
    /// The run and sequence of the newest report that the orchestrator has: the agent answers at
    /// once if it has a newer one.
    pub known: Option<(String, u64)>,
    /// Otherwise it answers after this many milliseconds.
    pub wait_ms: u64,
    /// The lease of the writer's region, given to its agent only.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// No takeover set has a member: nobody can be promoted, and no lease is needed (L4).
    #[serde(default)]
    pub alone: bool,
}

/// A lease, in answer to a stamp of the agent's own (L1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Of which run of the agent the stamp is.
    pub run: String,
    /// The stamp of the newest report that the orchestrator has.
    pub stamp_us: u64,
    /// How long the lease lasts from the stamp on.
    pub lease_ms: u64,
}

/// `POST /v1/confirm`, from the agent of the writer's region to a peer: is anybody else the writer?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// The history that the asker follows.
    pub lineage: Lineage,
    /// The newest epoch that it has heard of.
    pub epoch: Epoch,
    /// For how long the answer counts, from when it was asked.
    pub lease_ms: u64,
}

/// The answer to [`ConfirmRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmAnswer {
    /// The peer knows of no newer epoch, and promotes nobody while the answer counts.
    pub confirmed: bool,
}

/// `POST /v1/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// What to do.
    pub command: Command,
    /// The agent answers `running` if there is no outcome after this many milliseconds; the same
    /// command may then be sent again to go on waiting.
    pub wait_ms: u64,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CommandAnswer {
    /// It came to an end.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// It is still being done.
    Running {
        /// How far it is, in a sentence.
        progress: Option<String>,
    },
}
