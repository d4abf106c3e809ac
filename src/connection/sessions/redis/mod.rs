//! The sessions of several servers, as leases in Redis.
//!
//! Redis has the truth: a session has a slot as long as its lease is there. A server renews the
//! leases of its sessions, and learns then which of them were ended or evicted. Publish/subscribe
//! only makes that faster, so a message that is lost does no harm.

mod task;

use std::{
    collections::BTreeMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{FromRedisValue, Script};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{Ended, Session, SessionInfo, Sessions, registry::Unavailable};
use crate::{
    config::ConfigError,
    lock::lock,
    redis::{Redis, RedisFailure},
};

const LEASE: Duration = Duration::from_secs(15);

const RENEWAL: Duration = Duration::from_secs(5);

/// How long it is remembered that a key was ended. A server that was away for longer ends all
/// sessions whose leases are lost.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Sessions in one call of a script, so that none holds up Redis for long.
const BATCH: usize = 250;

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("common.lua"), include_str!($file)))
    };
}

struct Scripts {
    acquire: Script,
    renew: Script,
    release: Script,
    end: Script,
    list: Script,
}

/// The Redis of [`Sessions`], and how their keys are written.
pub(super) struct OnRedis<K> {
    pub(super) leases: Arc<Leases>,
    hash: fn(&K) -> Result<String, serde_json::Error>,
}

/// What happens to a handshake while Redis does not respond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenUnavailable {
    /// Reject it with [`VerifierFailed`](crate::RejectionKind::VerifierFailed).
    #[default]
    Reject,
    /// Count the sessions of this server alone. So a key may have the maximum number of connections
    /// on each server. When Redis is back, those above the maximum are evicted.
    CountAlone,
}

impl<K> Sessions<K>
where
    K: Hash + Eq + Clone + Serialize + Send + Sync + 'static,
{
    /// Shares the sessions of `name` with all servers that use the same [`Redis`] and its prefix:
    /// their maximum, [`list`](Self::list) and [`end`](Self::end).
    ///
    /// A session has a lease of 15 seconds, which its server renews every 5. So the slots of a
    /// server that crashed are free within 15 seconds.
    ///
    /// Redis has the SHA-256 of the key as JSON, from which a small number can be guessed, and the
    /// origin and the address of each connection in plain text. Its user needs the rights
    /// `~PREFIX* &PREFIX* +@read +@write +@scripting +@pubsub`. Without `&PREFIX*`, a server hears
    /// of an end or an eviction only at its next renewal.
    ///
    /// | fault | what happens |
    /// |---|---|
    /// | Redis does not respond | [`when_unavailable`](Self::when_unavailable) decides about handshakes, `end` and `list` fail, open connections stay |
    /// | Redis is at its memory limit, with the policy `noeviction` | [`when_unavailable`](Self::when_unavailable) decides about handshakes; the rest works |
    /// | Redis is back after more than a lease, or has lost its data | each server adds its sessions again; those of a key that is full by then are [evicted](Ended::Evicted) |
    /// | a server does not reach Redis | it hears that a session was ended or evicted when it reaches Redis again; if that takes more than an hour, its sessions are evicted |
    /// | a server crashes or hangs | its slots are free within a lease |
    /// | a message is lost | the server hears of it at its next renewal |
    /// | clocks of servers differ | nothing: only the clock of Redis counts |
    /// | the clock of Redis jumps, as at a failover | leases are longer or shorter by the difference, once; a handshake that is checked at that moment may be accepted although its key was ended meanwhile |
    /// | a failover to a replica loses the latest writes | sessions as above; an `end` among them reaches only the servers that heard of it before |
    ///
    /// # Errors
    ///
    /// - The [timeout](Redis::timeout) is longer than 5 seconds, so that a renewal could come too
    ///   late.
    /// - The operating system has no random bytes for the name of this server.
    pub fn on_redis(mut self, redis: &Redis, name: &str) -> Result<Self, ConfigError> {
        if redis.response_timeout() > RENEWAL {
            return Err(ConfigError::new(
                "",
                "with sessions, the timeout for Redis is at most 5 seconds; use `Redis::timeout` \
                 on a clone",
            ));
        }
        self.on_redis = Some(Arc::new(OnRedis {
            leases: Arc::new(Leases::new(redis, name)?),
            hash: hash::<K>,
        }));
        Ok(self)
    }
}

impl<K> Sessions<K> {
    /// Sets what happens to a handshake while Redis does not respond. Without
    /// [`on_redis`](Self::on_redis) it has no effect. A later call replaces an earlier one.
    pub fn when_unavailable(mut self, when_unavailable: WhenUnavailable) -> Self {
        self.when_unavailable = when_unavailable;
        self
    }
}

/// Does not show what may be a secret, and has a bounded length.
fn hash<K: Serialize>(key: &K) -> Result<String, serde_json::Error> {
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(serde_json::to_vec(key)?)))
}

impl<K> OnRedis<K> {
    pub(super) fn hash(&self, key: &K) -> Result<String, RedisFailure> {
        Ok((self.hash)(key)?)
    }
}

/// The leases of this server. The tasks end with it.
pub(super) struct Leases {
    shared: Arc<Shared>,
    listener: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the tasks share with the handle.
struct Shared {
    redis: Redis,
    /// The beginning of all keys.
    base: String,
    server: String,
    scripts: Scripts,
    live: Mutex<BTreeMap<u64, Arc<Leased>>>,
    released: Mutex<Vec<Arc<Leased>>>,
    /// Something was released, or the leases must be renewed at once.
    wake: Notify,
    must_renew: AtomicBool,
    /// There is no handle.
    is_closed: AtomicBool,
    /// The last time when all leases were renewed.
    renewed: Mutex<Instant>,
}

struct Leased {
    hash: String,
    /// As in Redis.
    name: String,
    max: usize,
    session: Arc<Session>,
    /// When the checks of the handshake began.
    began: Instant,
    /// Whether it is renewed. Before, Redis decides about it.
    is_acquired: AtomicBool,
}

/// A lease, until this is dropped.
pub(super) struct Lease {
    leases: Arc<Leases>,
    leased: Arc<Leased>,
}

/// A session that is to be acquired.
pub(super) struct NewSession {
    pub(super) hash: String,
    pub(super) session: Arc<Session>,
    pub(super) max: usize,
    pub(super) evicts: bool,
    pub(super) began: Instant,
}

impl Leases {
    fn new(redis: &Redis, name: &str) -> Result<Self, ConfigError> {
        let mut server = [0; 16];
        getrandom::fill(&mut server)
            .map_err(|_| ConfigError::new("", "the operating system has no random bytes"))?;
        let shared = Shared {
            redis: redis.clone(),
            base: redis.key("sessions", format_args!("{name}:")),
            server: URL_SAFE_NO_PAD.encode(server),
            scripts: Scripts {
                acquire: script!("acquire.lua"),
                renew: script!("renew.lua"),
                release: script!("release.lua"),
                end: script!("end.lua"),
                list: script!("list.lua"),
            },
            live: Mutex::default(),
            released: Mutex::default(),
            wake: Notify::new(),
            must_renew: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            renewed: Mutex::new(Instant::now()),
        };
        Ok(Self { shared: Arc::new(shared), listener: Mutex::default() })
    }

    /// Acquires a lease, if Redis says so.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        new: NewSession,
    ) -> Result<Result<Lease, Unavailable>, RedisFailure> {
        let evicts = new.evicts;
        let lease = self.add(new)?;
        let Leased { hash, name, max, began, .. } = &*lease.leased;
        let script = &self.shared.scripts.acquire;
        let mut script = script.key(&self.shared.base);
        script.arg(hash).arg(name).arg(max).arg(u8::from(evicts));
        script.arg(millis(LEASE));
        // If this fails or is dropped, Redis may have added the session. Then it is released.
        let outcome = self.shared.redis.run_script::<String>(&script).await?;
        if outcome == "full" {
            lease.forget();
            return Ok(Err(Unavailable::Full));
        }
        // In doubt, the key was ended after the handshake began: the script ran at some time
        // between the request to Redis and now, and the clock of Redis may have been set back.
        let age = micros(began.elapsed());
        let began_later = outcome.parse::<u64>().is_ok_and(|since_end| since_end > age);
        if outcome != "never" && !began_later {
            return Ok(Err(Unavailable::EndedMeanwhile));
        }
        lease.leased.is_acquired.store(true, Ordering::Relaxed);
        Ok(Ok(lease))
    }

    /// Adds a session without Redis. The next renewal tells Redis.
    pub(super) fn acquire_alone(self: &Arc<Self>, new: NewSession) -> Result<Lease, RedisFailure> {
        let lease = self.add(new)?;
        lease.leased.is_acquired.store(true, Ordering::Relaxed);
        Ok(lease)
    }

    /// Adds a session, so that it hears of an end from now on.
    fn add(self: &Arc<Self>, new: NewSession) -> Result<Lease, RedisFailure> {
        self.run_tasks();
        let NewSession { hash, session, max, began, .. } = new;
        let SessionInfo { origin, address, .. } = &session.info;
        let info = serde_json::to_string(&(origin, address))?;
        let leased = Arc::new(Leased {
            hash,
            name: format!("{}.{} {info}", self.shared.server, session.number),
            max,
            began,
            is_acquired: AtomicBool::new(false),
            session,
        });
        self.shared.live().insert(leased.session.number, Arc::clone(&leased));
        Ok(Lease { leases: Arc::clone(self), leased })
    }

    pub(super) async fn end(&self, hash: &str, reason: Ended) -> Result<usize, RedisFailure> {
        let script = &self.shared.scripts.end;
        let mut script = script.key(&self.shared.base);
        script.arg(hash).arg(reason.reason()).arg(millis(REMEMBERED));
        self.shared.redis.run_script(&script).await
    }

    pub(super) async fn list(&self, hash: &str) -> Result<Vec<SessionInfo>, RedisFailure> {
        let script = &self.shared.scripts.list;
        let sessions: Vec<(String, u64)> =
            self.shared.redis.run_script(script.key(&self.shared.base).arg(hash)).await?;
        let sessions = sessions.into_iter().map(|(name, since)| {
            let info = name.split_once(' ').map_or("", |(_, info)| info);
            let (origin, address) = serde_json::from_str(info)?;
            let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since);
            Ok(SessionInfo { since, origin, address })
        });
        sessions.collect()
    }

    /// Starts the tasks, again if their runtime has ended.
    fn run_tasks(self: &Arc<Self>) {
        let mut listener = lock(&self.listener);
        if listener.is_none() {
            // Before, there was nothing to renew.
            *lock(&self.shared.renewed) = Instant::now();
        }
        if listener.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            tokio::spawn(task::maintain(Arc::clone(&self.shared)));
            let listens = tokio::spawn(task::listen(Arc::clone(&self.shared)));
            *listener = Some(AbortOnDropHandle::new(listens));
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}

impl Lease {
    /// Drops the lease without a release, because Redis does not have it.
    fn forget(self) {
        self.leases.shared.live().remove(&self.leased.session.number);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let shared = &self.leases.shared;
        if shared.live().remove(&self.leased.session.number).is_some() {
            lock(&shared.released).push(Arc::clone(&self.leased));
            shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Leased>>> {
        lock(&self.live)
    }

    fn channel(&self) -> String {
        format!("{}server:{}", self.base, self.server)
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<T, RedisFailure> {
        let mut script = script.key(&self.base);
        for argument in arguments {
            script.arg(argument);
        }
        self.redis.run_script(&script).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
