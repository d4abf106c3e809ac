use std::{
    future::{Future, ready},
    hash::Hash,
    pin::Pin,
    sync::Arc,
    time::Instant,
};

use http::request::Parts;

use super::{
    Session, SessionInfo, Sessions, WhenFull,
    registry::{LONGEST_HANDSHAKE, Registered, Unavailable},
};
#[cfg(feature = "redis")]
use super::{
    WhenUnavailable,
    redis::{NewSession, OnRedis},
};
use crate::rejection::{Rejection, RejectionKind};

/// [`Sessions`] without the type of their key.
pub(crate) trait AcquireSession: Send + Sync {
    /// Whether [`acquire`](Self::acquire) must be used, and not `acquire_now`.
    fn has_to_wait(&self) -> bool;

    /// Acquires a session for a handshake whose checks began at `began`.
    fn acquire_now(&self, request: &Parts, began: Instant) -> Result<AcquiredSession, Rejection>;

    fn acquire<'a>(&'a self, request: &'a Parts, began: Instant) -> AcquireFuture<'a>;

    /// Whether there is a slot on this server, without taking it.
    fn peek(&self, request: &Parts) -> Result<(), Rejection>;
}

type AcquireFuture<'a> =
    Pin<Box<dyn Future<Output = Result<AcquiredSession, Rejection>> + Send + 'a>>;

/// A session that is live until this is dropped.
pub(crate) struct AcquiredSession {
    pub(in crate::connection) session: Arc<Session>,
    #[expect(dead_code, reason = "dropped with the session")]
    slot: Box<dyn Send + Sync>,
}

impl<K> AcquireSession for Sessions<K>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    fn has_to_wait(&self) -> bool {
        #[cfg(feature = "redis")]
        return self.on_redis.is_some();
        #[cfg(not(feature = "redis"))]
        false
    }

    fn acquire_now(&self, request: &Parts, began: Instant) -> Result<AcquiredSession, Rejection> {
        let key = (self.key)(request)?;
        let slot = self.register(key, request, began, self.max)?;
        Ok(AcquiredSession { session: Arc::clone(&slot.session), slot: Box::new(slot) })
    }

    fn acquire<'a>(&'a self, request: &'a Parts, began: Instant) -> AcquireFuture<'a> {
        #[cfg(feature = "redis")]
        if let Some(on_redis) = &self.on_redis {
            return Box::pin(self.acquire_on_redis(on_redis, request, began));
        }
        Box::pin(ready(self.acquire_now(request, began)))
    }

    fn peek(&self, request: &Parts) -> Result<(), Rejection> {
        let key = (self.key)(request)?;
        if self.when_full == WhenFull::RejectNewest && self.registry.is_full(&key, self.max) {
            return Err(Unavailable::Full.into());
        }
        Ok(())
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Sessions<K> {
    /// Adds a session to those of this server.
    fn register(
        &self,
        key: K,
        request: &Parts,
        began: Instant,
        max: usize,
    ) -> Result<Registered<K>, Rejection> {
        if began.elapsed() > LONGEST_HANDSHAKE {
            return Err(Rejection::new(RejectionKind::VerifierTimeout)
                .with_source("the checks took more than a minute")
                .with_fix(
                    "find out what the verifier or the authorization waits for: with sessions, they \
                     have a minute, because an end of the sessions is remembered for a minute",
                ));
        }
        let info = SessionInfo::new(request, (self.address)(request));
        Ok(self.registry.acquire(key, info, began, max, self.when_full)?)
    }

    /// Queries Redis, which knows the sessions of all servers.
    #[cfg(feature = "redis")]
    async fn acquire_on_redis(
        &self,
        on_redis: &OnRedis<K>,
        request: &Parts,
        began: Instant,
    ) -> Result<AcquiredSession, Rejection> {
        let key = (self.key)(request)?;
        let failed = |error| {
            Rejection::verifier_failed(format!(
                "the sessions could not be read from Redis: {error}"
            ))
        };
        let hash = on_redis.hash(&key).map_err(failed)?;
        let (max, evicts) = (self.max, self.when_full == WhenFull::EvictOldest);
        let new = |slot: &Registered<K>| {
            let (hash, session) = (hash.clone(), Arc::clone(&slot.session));
            NewSession { hash, session, max, evicts, began }
        };
        let slot = self.register(key.clone(), request, began, usize::MAX)?;
        let (slot, lease) = match on_redis.leases.acquire(new(&slot)).await {
            Ok(lease) => (slot, lease?),
            Err(error) if self.when_unavailable == WhenUnavailable::Reject => {
                return Err(failed(error));
            }
            Err(_) => {
                drop(slot);
                let slot = self.register(key, request, began, max)?;
                let lease = on_redis.leases.acquire_alone(new(&slot));
                (slot, lease.map_err(failed)?)
            }
        };
        Ok(AcquiredSession { session: Arc::clone(&slot.session), slot: Box::new((slot, lease)) })
    }
}

impl From<Unavailable> for Rejection {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Full => Self::new(RejectionKind::TooManyConnections),
            Unavailable::EndedMeanwhile => Self::new(RejectionKind::TokenInvalid)
                .with_source("the sessions of its key were ended while the handshake was checked"),
        }
    }
}
