use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::Cmd;

use super::{TicketKey, TicketStore};
use crate::redis::{Redis, RedisFailure};

/// Stores tickets in a [`Redis`], for several servers.
///
/// One `GETDEL` redeems a ticket, so only one of all servers gets it. While Redis does not respond,
/// no ticket is issued, and every handshake with a ticket is rejected with `verifier-failed`. At its
/// memory limit Redis issues none, but redeems those that it has.
///
/// A Redis that loses its latest writes restores redeemed tickets that have not expired yet. This
/// happens after a crash with snapshots or an append-only file, and at a failover to a replica. If
/// such a replay matters, use a separate Redis without replicas, with `save ""` and
/// `appendonly no`: then a restart drops all tickets.
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisTicketStore {
    redis: Redis,
}

impl RedisTicketStore {
    /// Stores tickets under the [prefix](Redis::prefix) of `redis`, followed by `ticket:`.
    ///
    /// Only a store with the same prefix redeems a ticket.
    pub fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone() }
    }

    fn key(&self, key: TicketKey) -> String {
        self.redis.key("ticket", URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }
}

impl TicketStore for RedisTicketStore {
    type Error = RedisFailure;

    async fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), Self::Error> {
        let millis = u64::try_from(lifetime.as_millis())?;
        self.redis.run(Cmd::new().arg("PSETEX").arg(self.key(key)).arg(millis).arg(record)).await
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        self.redis.run(Cmd::new().arg("GETDEL").arg(self.key(key))).await
    }
}
