//! Which nodes have a row for an order. One match over every order: a new one does not compile until it
//! is answered here, and no history of the model or the simulator may send it anywhere else. What
//! real nodes obey is the same match in their adapters, where the compiler sees to it.

use tier0_core::order::Order;
use tier0_core::record::DatastoreKind;

/// Whether a server of this kind has a row for this order. Routes are no servers.
pub fn has_row(kind: DatastoreKind, order: &Order) -> bool {
    match order {
        Order::PostgresCheckpoint
        | Order::PostgresDrain
        | Order::PostgresAwait { .. }
        | Order::PostgresStop
        | Order::PostgresStart { .. }
        | Order::PostgresAdmit { .. }
        | Order::PostgresPromote { .. }
        | Order::PostgresValidate { .. }
        | Order::PostgresFollow { .. }
        | Order::PostgresJoinBegin { .. }
        | Order::PostgresRename { .. }
        | Order::PostgresJoinProve { .. }
        | Order::PostgresLeave => kind == DatastoreKind::Postgres,
        Order::RedisVote
        | Order::RedisPause { .. }
        | Order::RedisAskMaster { .. }
        | Order::RedisAwait { .. }
        | Order::RedisFence
        | Order::RedisUnfence { .. }
        | Order::RedisPromote { .. }
        | Order::RedisFollow { .. }
        | Order::RedisStart { .. }
        | Order::RedisAnnounce { .. }
        | Order::RedisSentinelFailover
        | Order::RedisValidate { .. } => kind == DatastoreKind::Redis,
        Order::Route { .. } => false,
    }
}
