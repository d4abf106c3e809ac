use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{Cmd, Script};

use super::{TicketKey, TicketStore};
use crate::redis::{Redis, RedisFailure};

/// A list has the times when the latest `max` tickets no longer count, the latest time at its end.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local max, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2])
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local first = redis.call('LINDEX', KEYS[1], -max)
        if first and tonumber(first) > now then return first - now end
        redis.call('RPUSH', KEYS[1], string.format('%.0f', now + lifetime))
        redis.call('LTRIM', KEYS[1], -max, -1)
        redis.call('PEXPIRE', KEYS[1], lifetime)
        return 0",
    )
});

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
    /// Stores tickets under the [prefix](Redis::prefix) of `redis`, followed by `ticket:`, and counts
    /// those of a [quota](super::TicketIssuer::quota) under `ticket-quota:`.
    ///
    /// Only a store with the same prefix redeems a ticket.
    pub fn new(redis: &Redis) -> Self {
        Self { redis: redis.clone() }
    }

    fn key(&self, kind: &str, key: TicketKey) -> String {
        self.redis.key(kind, URL_SAFE_NO_PAD.encode(key.as_bytes()))
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
        self.redis
            .run(Cmd::new().arg("PSETEX").arg(self.key("ticket", key)).arg(millis).arg(record))
            .await
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        self.redis.run(Cmd::new().arg("GETDEL").arg(self.key("ticket", key))).await
    }

    async fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> Result<Option<Duration>, Self::Error> {
        let millis = u64::try_from(lifetime.as_millis())?;
        let mut script = COUNT.key(self.key("ticket-quota", subject));
        let delay: u64 = self.redis.run_script(script.arg(max).arg(millis)).await?;
        Ok((delay > 0).then(|| Duration::from_millis(delay)))
    }
}
