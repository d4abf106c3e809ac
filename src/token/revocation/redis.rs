use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{Cmd, Script};

use super::{Key, Revocations, Store, TokenIdentity, revoked};
use crate::{
    config::ConfigError,
    redis::{Redis, RedisFailure},
    rejection::Rejection,
};

/// The later time and the later expiry count, whatever the order of the servers is.
static REVOKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = math.max(ARGV[1], redis.call('GET', KEYS[1]) or 0)
        local lifetime = math.max(ARGV[2], redis.call('PTTL', KEYS[1]))
        redis.call('SET', KEYS[1], string.format('%.0f', time), 'PX', string.format('%.0f', lifetime))",
    )
});

impl Revocations {
    /// Keeps revocations in a [`Redis`], for several servers: a revocation on one counts on all.
    ///
    /// Each handshake asks Redis once. While Redis does not respond, every handshake with a valid
    /// token is rejected with `verifier-failed`.
    ///
    /// A Redis that loses revocations accepts revoked tokens again. Give it an append-only file to
    /// keep them over a restart, and the memory policy `noeviction`: at its limit, new revocations
    /// fail then, and the others still count. Redis stores the SHA-256 of ids and subjects only,
    /// under its [prefix](Redis::prefix) followed by `revoked:`.
    ///
    /// `longest_lifetime` is that of your tokens. More than 100 years count as 100.
    ///
    /// # Errors
    ///
    /// `longest_lifetime` is shorter than a millisecond.
    pub fn on_redis(redis: &Redis, longest_lifetime: Duration) -> Result<Self, ConfigError> {
        Self::new(Store::Redis(redis.clone()), longest_lifetime)
    }
}

fn name(redis: &Redis, key: &Key) -> String {
    redis.key("revoked", URL_SAFE_NO_PAD.encode(key.0))
}

pub(super) async fn revoke(
    redis: &Redis,
    key: &Key,
    issued_until: u64,
    lifetime: Duration,
) -> Result<(), RedisFailure> {
    let lifetime = u64::try_from(lifetime.as_millis())?;
    let mut script = REVOKE.key(name(redis, key));
    redis.run_script(script.arg(issued_until).arg(lifetime)).await
}

pub(super) async fn check(redis: &Redis, identity: &TokenIdentity<'_>) -> Result<(), Rejection> {
    let lookups: Vec<_> = identity.lookups().collect();
    if lookups.is_empty() {
        return Ok(());
    }
    let mut command = Cmd::new();
    command.arg("MGET");
    for (key, ..) in &lookups {
        command.arg(name(redis, key));
    }
    let found: Vec<Option<u64>> = redis.run(&command).await.map_err(Rejection::verifier_failed)?;
    for ((_, issued_at, reason), issued_until) in lookups.into_iter().zip(found) {
        if issued_until.is_some_and(|issued_until| issued_at <= issued_until) {
            return Err(revoked(reason));
        }
    }
    Ok(())
}
