use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{TicketKey, TicketStore};
use crate::config::ConfigError;

/// Keeps tickets in Redis 6.2 or newer, or Valkey, for several servers. Clones share the connection.
///
/// A ticket is taken by one `GETDEL`, so of all servers one gets it. While Redis does not answer, no ticket is issued and every
/// handshake with one is refused as `verifier-failed`. After any error the connection is given up, and the next ticket opens another:
/// a restart, a failover or a new password needs no restart here.
///
/// A Redis that goes back to an older state brings back tickets that were taken since, as long as they have not expired: after a
/// crash with snapshots or an append-only file, or at a failover to a replica. If a replay within those seconds matters, keep tickets
/// in a Redis of their own, without replicas, with `save ""` and `appendonly no`: there a restart forgets them.
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
    /// `None` until it is used, and after an error.
    current: StdMutex<Option<Arc<MultiplexedConnection>>>,
    /// One connects, and the others wait for it.
    connecting: Mutex<()>,
}

impl RedisTicketStore {
    /// Connects to `url`, such as `redis://:password@host:6379/0`, when it is first used.
    ///
    /// `rediss://`, with TLS, needs the crate `redis` among your dependencies with one of its features for TLS, such as
    /// `tokio-rustls-comp`.
    ///
    /// # Errors
    ///
    /// `url` is no URL of a Redis server, or asks for TLS without that feature.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        // Without the URL in the message: it may hold a password.
        let client = Client::open(url).map_err(|_| match url.starts_with("rediss://") {
            true => ConfigError::new(
                "",
                "it is no URL, or TLS is missing: turn on `tokio-rustls-comp` of the crate `redis`",
            ),
            false => ConfigError::new("", "it is no URL of a Redis server; write `redis://host:6379`"),
        })?;
        let connection = Arc::default();
        Ok(Self { client, connection, prefix: "ws-ticket:".into(), timeout: Duration::from_secs(1) })
    }

    /// What the keys in Redis begin with: `ws-ticket:` by default. A ticket is taken only by a store with the same prefix: give each
    /// application its own, and each endpoint whose claims mean something else.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long Redis may take to answer, connecting included: 10 milliseconds to a minute; a second by default.
    ///
    /// # Errors
    ///
    /// It is shorter or longer.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timeout) {
            return Err(ConfigError::new("", "a Redis has 10 milliseconds to a minute to answer; a second is plenty"));
        }
        self.timeout = timeout;
        Ok(self)
    }

    fn key(&self, key: TicketKey) -> String {
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, <Self as TicketStore>::Error> {
        let mut used = None;
        let answer = timeout(self.timeout, async {
            let connection = used.insert(self.connection.get(&self.client).await?);
            command.query_async(&mut MultiplexedConnection::clone(connection)).await
        });
        let error = match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("Redis did not answer within {:?}", self.timeout),
        };
        self.connection.give_up(used.as_ref());
        Err(error.into())
    }
}

/// Redis quotes a command that it does not know, and with it the record.
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
        // The deadline is that of whoever asks.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = Arc::new(client.get_multiplexed_async_connection_with_config(&config).await?);
        *self.current() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Unless there is another one by now.
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

    async fn put(&self, key: TicketKey, record: Vec<u8>, lifetime: Duration) -> Result<(), Self::Error> {
        let millis = u64::try_from(lifetime.as_millis())?;
        self.ask(Cmd::new().arg("PSETEX").arg(self.key(key)).arg(millis).arg(record)).await
    }

    async fn take(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        self.ask(Cmd::new().arg("GETDEL").arg(self.key(key))).await
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
