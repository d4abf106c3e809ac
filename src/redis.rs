use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex as StdMutex, MutexGuard},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture,
    ScriptInvocation, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
};
use tokio::{
    sync::Mutex,
    time::{error::Elapsed, timeout},
};

use crate::{config::ConfigError, lock::lock};

/// A Redis 6.2 or newer, or Valkey, that several servers share. Clones share one connection.
///
/// The first command opens the connection. An error other than a full memory closes it, and the
/// next command opens a new one. So a restart, a failover or a new password of Redis needs no restart of the server, and a
/// server may start before Redis does.
///
/// What needs Redis is rejected while Redis does not respond. Only sessions can do without it, if
/// you set [`WhenUnavailable::CountAlone`](crate::WhenUnavailable::CountAlone).
///
/// | Redis | what happens |
/// |---|---|
/// | does not respond | the command fails after the [timeout](Self::timeout) |
/// | is at its memory limit, with the policy `noeviction` | commands that store something fail; the others work |
/// | is at its memory limit, and evicts | the evicted keys are lost, as if flushed |
/// | is flushed, or restarts empty | all it stored is lost; the scripts are loaded again when needed |
/// | is a replica that takes no writes | commands fail, and each reconnects: the next may reach the new primary |
/// | is a cluster | every command fails: the keys of one command may be on several nodes |
///
/// With Sentinel, the URL must lead to the current primary, for example through a proxy.
///
/// The guide to [a fleet](crate::guide::fleet) has a server that uses all of it.
///
/// # What uses it
///
/// | | in memory | on Redis |
/// |---|---|---|
/// | one-time tickets | `MemoryTicketStore::new(capacity)` | `RedisTicketStore::new(&redis)` |
/// | revoked tokens | `Revocations::in_memory(lifetime)` | `Revocations::on_redis(&redis, lifetime)` |
/// | sessions | `Sessions::per_claims(max, key)` | `Sessions::per_claims(max, key)?.on_redis(&redis, name)` |
///
/// # TLS
///
/// With the feature `redis-tls`, a URL `rediss://…` connects with rustls, and trusts the root
/// certificates of the operating system. For a private authority or a client certificate, build the
/// client with `redis::Client::build_with_tls` and use [`from_client`](Self::from_client). The first
/// value with TLS installs *ring* as the process-wide crypto provider of rustls if none is set.
///
/// # Example
///
/// ```
/// use tower_ws_guard::{
///     Redis,
///     token::ticket::{RedisTicketStore, TicketIssuer},
/// };
///
/// let redis = Redis::new("redis://127.0.0.1:6379")?.prefix("chat:");
/// let issuer = TicketIssuer::new(RedisTicketStore::new(&redis));
/// # let _ = issuer;
/// # Ok::<_, tower_ws_guard::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Redis {
    client: Arc<Client>,
    connection: Arc<Connection>,
    prefix: Arc<str>,
    timeout: Duration,
}

/// The cause, as text without the arguments of the command.
pub(crate) type RedisFailure = Box<dyn Error + Send + Sync>;

enum Connection {
    Own(OwnConnection),
    Given(Box<dyn Fn() -> AnyConnection + Send + Sync>),
}

#[derive(Default)]
struct OwnConnection {
    /// `None` before the first command, and after an error.
    current: StdMutex<Option<Arc<MultiplexedConnection>>>,
    /// One task connects, and the others wait for it.
    connecting: Mutex<()>,
}

impl Redis {
    /// Uses the Redis at `url`, such as `redis://:password@host:6379/0`.
    ///
    /// # Errors
    ///
    /// `url` is not the URL of a Redis server, or is a `rediss://` without the feature `redis-tls`.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        // The message does not contain the URL, which may hold a password.
        let client = Client::open(url).map_err(|_| {
            let problem = if url.starts_with("rediss://") && cfg!(not(feature = "redis-tls")) {
                "a URL with `rediss://` needs TLS: turn on the feature `redis-tls`"
            } else {
                "the URL is not that of a Redis server; use `redis://host:6379`"
            };
            ConfigError::new("", problem)
        })?;
        Ok(Self::from_client(client))
    }

    /// Uses the Redis of `client`, of the crate `redis` 1.x: for one with certificates, for
    /// instance.
    pub fn from_client(client: Client) -> Self {
        #[cfg(feature = "redis-tls")]
        if matches!(client.get_connection_info().addr(), ::redis::ConnectionAddr::TcpTls { .. }) {
            // It fails if one is set.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Self {
            client: Arc::new(client),
            connection: Arc::new(Connection::Own(OwnConnection::default())),
            prefix: "ws-guard:".into(),
            timeout: Duration::from_secs(1),
        }
    }

    /// Sends commands over a connection of yours, such as a `MultiplexedConnection` or a
    /// `ConnectionManager`. Clones of `connection` must share the connection.
    ///
    /// It is used as it is: it has to reconnect by itself, and must not lead to a cluster.
    /// Subscriptions still use a connection of the client.
    pub fn use_connection<C>(mut self, connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        let lend = move || AnyConnection(Box::new(connection.clone()));
        self.connection = Arc::new(Connection::Given(Box::new(lend)));
        self
    }

    /// Sets the prefix of all keys and channels. The default is `ws-guard:`.
    ///
    /// Give each application on one Redis its own prefix, and each endpoint whose tokens have
    /// another meaning: values with the same prefix share tickets and revocations. Clones with
    /// different prefixes still share the connection.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the timeout for a response, including the time to connect: 10 milliseconds to a minute.
    /// The default is a second.
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

    pub(crate) const fn response_timeout(&self) -> Duration {
        self.timeout
    }

    /// The name of a key or a channel. No two kinds share a name.
    pub(crate) fn key(&self, kind: &str, id: impl fmt::Display) -> String {
        format!("{}{kind}:{id}", self.prefix)
    }

    /// Runs a command.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let mut used = Used::default();
        let response = timeout(self.timeout, async {
            let mut connection = self.connect(&mut used).await?;
            let response = command.query_async(&mut connection).await;
            response.map_err(|error| failure(&error, &mut used))
        });
        let response = response.await;
        self.finish(response, &used)
    }

    /// Runs a script, and loads it if Redis does not have it.
    pub(crate) async fn run_script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        let mut used = Used::default();
        let response = timeout(self.timeout, async {
            let mut connection = self.connect(&mut used).await?;
            let response = script.invoke_async(&mut connection).await;
            response.map_err(|error| failure(&error, &mut used))
        });
        let response = response.await;
        self.finish(response, &used)
    }

    /// Opens a connection for subscriptions. The caller reconnects when it ends.
    pub(crate) async fn pub_sub(&self) -> Result<PubSub, RedisFailure> {
        match timeout(self.timeout, self.client.get_async_pubsub()).await {
            Ok(Ok(pub_sub)) => Ok(pub_sub),
            Ok(Err(error)) => Err(reason(&error).into()),
            Err(_) => Err(self.too_late()),
        }
    }

    async fn connect(&self, used: &mut Used) -> Result<AnyConnection, String> {
        match &*self.connection {
            Connection::Own(own) => {
                let connection = used.insert(own.get(&self.client).await?);
                Ok(AnyConnection(Box::new(MultiplexedConnection::clone(connection))))
            }
            Connection::Given(lend) => Ok(lend()),
        }
    }

    fn finish<T>(
        &self,
        response: Result<Result<T, String>, Elapsed>,
        used: &Used,
    ) -> Result<T, RedisFailure> {
        let error = match response {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error.into(),
            Err(_) => self.too_late(),
        };
        if let (Connection::Own(own), Some(used)) = (&*self.connection, used) {
            own.give_up(used);
        }
        Err(error)
    }

    fn too_late(&self) -> RedisFailure {
        format!("Redis did not respond within {:?}", self.timeout).into()
    }
}

/// The connection that a command has used.
type Used = Option<Arc<MultiplexedConnection>>;

impl OwnConnection {
    async fn get(&self, client: &Client) -> Result<Arc<MultiplexedConnection>, String> {
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
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| reason(&error))?;
        reject_cluster(&mut connection).await?;
        let connection = Arc::new(connection);
        *self.current() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Drops the connection, unless another task has already replaced it.
    fn give_up(&self, used: &Arc<MultiplexedConnection>) {
        self.current().take_if(|current| Arc::ptr_eq(current, used));
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<MultiplexedConnection>>> {
        lock(&self.current)
    }
}

/// Redis may forbid `INFO`. Then a cluster fails at the first key of another node.
async fn reject_cluster(connection: &mut MultiplexedConnection) -> Result<(), String> {
    let info = Cmd::new().arg("INFO").arg("server").query_async::<String>(connection).await;
    // Redis says `redis_mode`, Valkey `server_mode`.
    if info.is_ok_and(|info| info.lines().any(|line| line.ends_with("_mode:cluster"))) {
        return Err("this Redis is a cluster, which is not supported: use one without \
                    `cluster-enabled`, with replicas if it must be available"
            .to_owned());
    }
    Ok(())
}

/// At its memory limit Redis is well, and so is the connection.
fn failure(error: &RedisError, used: &mut Used) -> String {
    if error.code() == Some("OOM") {
        used.take();
    }
    reason(error)
}

/// Removes the arguments of an unknown command, which Redis quotes: they may be secret.
fn reason(error: &RedisError) -> String {
    let text = error.to_string();
    text.split_once(", with args").map_or(&*text, |(cause, _)| cause).to_owned()
}

/// A connection of any type.
struct AnyConnection(Box<dyn ConnectionLike + Send>);

impl ConnectionLike for AnyConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.0.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
