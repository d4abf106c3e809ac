use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time::timeout};

use super::{TicketKey, TicketStore};
use crate::config::ConfigError;

/// Stores tickets in Redis 6.2 or newer, or Valkey, for several servers. Clones share the
/// connection.
///
/// One `GETDEL` redeems a ticket, so only one of all servers gets it. While Redis does not respond,
/// no ticket is issued, and every handshake with a ticket is rejected with `verifier-failed`. An
/// error closes the connection, and the next ticket opens a new one. So a restart, a failover or a
/// new password of Redis needs no restart of the server.
///
/// A Redis that loses its latest writes restores redeemed tickets that have not expired yet. This
/// happens after a crash with snapshots or an append-only file, and at a failover to a replica. If
/// such a replay matters, use a separate Redis without replicas, with `save ""` and
/// `appendonly no`: then a restart drops all tickets.
#[derive(Clone)]
#[must_use]
pub struct RedisTicketStore {
    client: Client,
    connection: Arc<Connection>,
    prefix: Box<str>,
    timeout: Duration,
}

#[derive(Default)]
struct Connection {
    /// `None` before the first command, and after an error.
    current: StdMutex<Option<Arc<MultiplexedConnection>>>,
    /// One task connects, and the others wait for it.
    connecting: Mutex<()>,
}

impl RedisTicketStore {
    /// Uses the Redis at `url`, such as `redis://:password@host:6379/0`. The first ticket opens the
    /// connection.
    ///
    /// For TLS (`rediss://`) add the crate `redis` to your dependencies, with one of its features
    /// for TLS, such as `tokio-rustls-comp`.
    ///
    /// # Errors
    ///
    /// `url` is not the URL of a Redis server, or needs TLS without that feature.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        // The message does not contain the URL, which may hold a password.
        let client = Client::open(url).map_err(|_| {
            let problem = if url.starts_with("rediss://") {
                "the URL is invalid, or TLS is missing: turn on `tokio-rustls-comp` of the crate \
                 `redis`"
            } else {
                "the URL is not that of a Redis server; use `redis://host:6379`"
            };
            ConfigError::new("", problem)
        })?;
        let connection = Arc::default();
        Ok(Self {
            client,
            connection,
            prefix: "ws-ticket:".into(),
            timeout: Duration::from_secs(1),
        })
    }

    /// Sets the prefix of the keys in Redis. The default is `ws-ticket:`.
    ///
    /// Only a store with the same prefix redeems a ticket. Give each application a prefix of its
    /// own, and each endpoint whose claims have another meaning.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the timeout for a response of Redis, including the time to connect: 10 milliseconds to
    /// a minute. The default is a second.
    ///
    /// # Errors
    ///
    /// `timeout` is shorter than 10 milliseconds or longer than a minute.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timeout) {
            return Err(ConfigError::new(
                "",
                "the timeout for Redis is 10 milliseconds to a minute; a second is enough",
            ));
        }
        self.timeout = timeout;
        Ok(self)
    }

    fn key(&self, key: TicketKey) -> String {
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }

    async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<T, <Self as TicketStore>::Error> {
        let mut used = None;
        let response = timeout(self.timeout, async {
            let connection = used.insert(self.connection.get(&self.client).await?);
            command.query_async(&mut MultiplexedConnection::clone(connection)).await
        });
        let error = match response.await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("Redis did not respond within {:?}", self.timeout),
        };
        self.connection.give_up(used.as_ref());
        Err(error.into())
    }
}

/// Removes the arguments of an unknown command, which Redis quotes: they contain the record.
fn reason(error: &RedisError) -> String {
    let text = error.to_string();
    text.split_once(", with args").map_or(&*text, |(cause, _)| cause).to_owned()
}

impl Connection {
    async fn get(&self, client: &Client) -> Result<Arc<MultiplexedConnection>, RedisError> {
        if let Some(connection) = &*self.current() {
            return Ok(Arc::clone(connection));
        }
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = &*self.current() {
            return Ok(Arc::clone(connection));
        }
        // The caller has a timeout.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection =
            Arc::new(client.get_multiplexed_async_connection_with_config(&config).await?);
        *self.current() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Drops the connection, unless another task has already replaced it.
    fn give_up(&self, used: Option<&Arc<MultiplexedConnection>>) {
        let mut current = self.current();
        if current.as_ref().zip(used).is_some_and(|(current, used)| Arc::ptr_eq(current, used)) {
            *current = None;
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<MultiplexedConnection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TicketStore for RedisTicketStore {
    type Error = Box<dyn Error + Send + Sync>;

    async fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), Self::Error> {
        let millis = u64::try_from(lifetime.as_millis())?;
        self.query(Cmd::new().arg("PSETEX").arg(self.key(key)).arg(millis).arg(record)).await
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        self.query(Cmd::new().arg("GETDEL").arg(self.key(key))).await
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
