//! A prober's connection to one Redis server: one `SET` per try.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;

use super::{Answer, DEADLINE, Probe};
use crate::ledger::{RedisTarget, connect_redis};
use crate::placement::Place;

/// See the module.
pub struct Writer {
    target: RedisTarget,
    address: SocketAddr,
    key: String,
    number: u64,
    open: Option<MultiplexedConnection>,
}

impl Writer {
    /// One that is not connected yet.
    pub fn new(target: &RedisTarget, address: SocketAddr, side: Place) -> Writer {
        let key = format!("probe:{}", side.name());
        Writer { target: target.clone(), address, key, number: 0, open: None }
    }

    async fn try_once(&mut self) -> Option<()> {
        if self.open.is_none() {
            let password = self.target.password.as_ref();
            self.open = connect_redis(self.address, password, DEADLINE).await.ok();
        }
        let connection = self.open.as_mut()?;
        self.number += 1;
        redis::cmd("SET").arg(&self.key).arg(self.number).exec_async(connection).await.ok()
    }
}

impl Probe for Writer {
    async fn attempt(&mut self) -> Answer {
        let answer = self.try_once().await;
        match answer {
            Some(()) => Answer::Accepted,
            None => {
                self.forget();
                Answer::NotAccepted
            }
        }
    }

    fn forget(&mut self) {
        self.open = None;
    }
}
