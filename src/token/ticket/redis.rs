use std::{error::Error, fmt, time::Duration};

use redis::{
    AsyncCommands as _, Client, IntoConnectionInfo as _, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

use super::{TicketKey, TicketStore};
use crate::config::ConfigError;

/// Keeps tickets in Redis 6.2 or newer, or Valkey, for several servers. Clones share the connection.
///
/// A ticket is taken by one `GETDEL`, so of all servers one gets it. While Redis does not answer, no ticket is issued and every
/// handshake with one is refused as `verifier-failed`; the store connects again by itself.
///
/// A Redis that goes back to an older state brings back tickets that were taken since, as long as they have not expired: after a
/// crash with snapshots or an append-only file, or at a failover to a replica. If a replay within those seconds matters, keep tickets
/// in a Redis of their own, without replicas, with `save ""` and `appendonly no`: there a restart forgets them.
#[derive(Clone)]
#[must_use]
pub struct RedisTicketStore {
    connection: ConnectionManager,
    prefix: Box<str>,
    timeout: Duration,
}

impl RedisTicketStore {
    /// Connects to `url`, such as `redis://:password@host:6379/0`, when it is first used.
    ///
    /// `rediss://`, with TLS, needs the crate `redis` among your dependencies with one of its features for TLS, such as
    /// `tokio-rustls-comp`.
    ///
    /// # Errors
    ///
    /// `url` is no URL of a Redis server.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        // Not the URL itself: it may hold a password.
        let unusable = |_| ConfigError::new("", "it is no URL of a Redis server; write `redis://host:6379`");
        let settings = TcpSettings::default().set_nodelay(true);
        // A server that is gone without a word is noticed by the kernel, and not after its usual quarter of an hour.
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let settings = settings.set_user_timeout(Duration::from_secs(5));
        let info = url.into_connection_info().map_err(unusable)?.set_tcp_settings(settings);

        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // The deadline of each operation is set here, not there.
            .set_response_timeout(None)
            .set_max_delay(Duration::from_secs(1));
        let client = Client::open(info).map_err(unusable)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(unusable)?;
        Ok(Self { connection, prefix: "ws-ticket:".into(), timeout: Duration::from_secs(1) })
    }

    /// What the keys in Redis begin with: `ws-ticket:` by default. A ticket is taken only by a store with the same prefix: give each
    /// application its own, and each endpoint whose claims mean something else.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long Redis may take to answer, connecting included: a second by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn key(&self, key: TicketKey) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, <Self as TicketStore>::Error> {
        match timeout(self.timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(format!("Redis did not answer within {:?}", self.timeout).into()),
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl TicketStore for RedisTicketStore {
    type Error = Box<dyn Error + Send + Sync>;

    async fn put(&self, key: TicketKey, record: Vec<u8>, lifetime: Duration) -> Result<(), Self::Error> {
        let mut connection = self.connection.clone();
        let millis = lifetime.as_millis().try_into()?;
        self.in_time(connection.pset_ex(self.key(key), record, millis)).await
    }

    async fn take(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        let mut connection = self.connection.clone();
        self.in_time(connection.get_del(self.key(key))).await
    }
}

impl fmt::Debug for RedisTicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTicketStore")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
