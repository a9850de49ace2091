//! Every limit and time-out, each with what it bounds and what breaks on either side of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::describe::{About, Change, Fallback, Field, Kind, Role, Setting, Unit};

/// The struct, its defaults and its description from one entry for each limit.
macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $default:literal, $least:literal..=$most:literal $unit:ident, $change:ident,
        [$($relation:literal),*];
    )+) => {
        /// Limits and time-outs.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $( $(#[doc = $doc])+ pub $name: u64, )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $( $name: $default, )+ }
            }
        }

        impl Limits {
            /// The description of every limit.
            pub const FIELDS: &'static [Field] = &[$(
                Field {
                    name: stringify!($name),
                    doc: &[$($doc),+],
                    about: About::Setting(Setting {
                        kind: Kind::Whole { unit: Unit::$unit, least: $least, most: $most },
                        fallback: Fallback::Value(stringify!($default)),
                        relations: &[$($relation),*],
                        readers: &[Role::Orchestrator],
                        change: Change::$change,
                        examples: &[stringify!($default)],
                    }),
                },
            )+];
        }
    };
}

limits! {
    /// How often an orchestrator asks an agent that has nothing new to say. Shorter finds silence
    /// sooner and costs both sides CPU; longer makes every decision staler.
    poll_interval_ms: 200, 10..=600_000 Milliseconds, Restart,
        ["at most `cooperation_ms`", "at most half of `silence_ms`"];
    /// How long the old side may take to answer before an operation goes on without it. Must be
    /// longer than a poll; every millisecond of it is outage when the old region is dead.
    cooperation_ms: 300, 10..=600_000 Milliseconds, AtOnce,
        ["at least `poll_interval_ms`: a healthy agent may take that long to be heard"];
    /// How long PostgreSQL may take to end in order before it is ended at once, after which the old
    /// side must rejoin by rewind. Half of it is for ending it where its standbys have everything, the
    /// rest for a fast shutdown where that does not come about. A walreceiver that hangs would hold it 60 s.
    stop_ms: 2000, 10..=600_000 Milliseconds, AtOnce, [];
    /// How long clients may be kept waiting while a standby's membership is being proven.
    /// Shorter, and a slow disk never gets a standby into the takeover set.
    join_ms: 300, 10..=600_000 Milliseconds, AtOnce, [];
    /// How long a route may hold its clients in one operation; then its agent lets them go on by
    /// itself, wherever the route points then. Shorter gives clients an error in a slow switch;
    /// longer keeps them waiting for a switch that nobody carries through.
    hold_ms: 10_000, 100..=600_000 Milliseconds, AtOnce,
        ["more than `drain_ms`"];
    /// How long a commanded switch waits for transactions that are open on a route. Those that are
    /// not over then are cut when the old primary stops; clients with new ones wait meanwhile.
    drain_ms: 200, 0..=600_000 Milliseconds, AtOnce, ["below `hold_ms`"];
    /// How long Redis writes may be held before the switch gives up. Shorter gives up switches
    /// that would have succeeded; a longer one looks like a dead master to Sentinel.
    pause_ms: 1000, 10..=600_000 Milliseconds, AtOnce,
        ["at most half of every `datastore.redis.down_after_ms`"];
    /// How long the target may take to receive what the old side has written. Clients wait
    /// meanwhile; shorter gives a commanded switch up for a slow link.
    receive_ms: 1000, 10..=600_000 Milliseconds, AtOnce, [];
    /// How long a promotion may take before its outcome counts as unknown. A standby first
    /// replays what it has received, so this must cover `replay_backlog_most_mb`.
    promote_ms: 5000, 10..=600_000 Milliseconds, AtOnce, [];
    /// How long a checkpoint on the old primary may take before the switch goes on without it.
    /// Nobody waits meanwhile; without it the stop takes longer.
    checkpoint_ms: 30_000, 10..=3_600_000 Milliseconds, AtOnce, [];
    /// How long rejoining may take. A base backup of a large database takes hours; a rejoin that
    /// is given up begins anew.
    follow_ms: 86_400_000, 1_000..=2_592_000_000 Milliseconds, AtOnce, [];
    /// Silence of an agent after which it counts as not answering. Shorter takes a hiccup of the
    /// network for a dead region; every millisecond of it is outage when the region is dead. Before
    /// a region counts as dead it is never waited for less than the round trips of all but one poll
    /// of a thousand took; `tier0 check` says where this is too short.
    silence_ms: 1000, 10..=600_000 Milliseconds, Restart,
        ["at least twice `poll_interval_ms`: one late answer is not silence"];
    /// How long commits may wait for a lost standby before it leaves the takeover set and they go
    /// on with a single copy. Longer is outage; shorter gives up protection for a hiccup.
    stall_ms: 1000, 10..=600_000 Milliseconds, AtOnce, [];
    /// How long the writer's region may serve after it was last told that it is the writer, by the
    /// orchestrator or by the other region's agent; then its agent holds its servers. A new side
    /// whose old one cannot be asked waits for it. Shorter holds a healthy writer for a hiccup.
    lease_ms: 1000, 100..=600_000 Milliseconds, Restart,
        ["at most `silence_ms`: a region that is silent for that long serves nobody any more",
         "at least three times `poll_interval_ms`: each poll renews it"];
    /// How long after an automatic move no other one is made for the same cause; a server that
    /// ends meanwhile is started again where it is. Shorter lets what kills one region's server
    /// chase the writer to and fro.
    cool_down_ms: 60_000, 0..=86_400_000 Milliseconds, AtOnce, [];
    /// Free megabytes below which a node is not promoted: a primary whose disk is full stops.
    disk_free_least_mb: 64, 0..=1_000_000_000 Megabytes, AtOnce, [];
    /// Megabytes of WAL received and not replayed above which a commanded switch is refused: a
    /// promotion replays them first, while clients wait.
    replay_backlog_most_mb: 64, 1..=1_000_000_000 Megabytes, AtOnce, [];
    /// Milliseconds a year for which some datastore may take no writes; the account of availability
    /// says what is left of them. 3156 is 99.99999 % of a year.
    downtime_objective_ms: 3156, 1..=31_557_600_000 Milliseconds, AtOnce, [];
    /// Hours after which the newest backup is called old by `tier0 check`, for nodes that say how to
    /// find out. More than a day, so that a nightly one may be late.
    backup_age_most_hours: 26, 1..=8_760 Hours, AtOnce, [];
}

impl Limits {
    /// [`Limits::poll_interval_ms`] as a duration.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}
