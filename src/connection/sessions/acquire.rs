use std::{future::Future, hash::Hash, pin::Pin, sync::Arc, time::Instant};

use http::request::Parts;

use super::{
    Session, SessionInfo, Sessions, WhenFull,
    registry::{LONGEST_HANDSHAKE, Unavailable},
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
        false
    }

    fn acquire_now(&self, request: &Parts, began: Instant) -> Result<AcquiredSession, Rejection> {
        let key = (self.key)(request)?;
        self.acquire_here(key, request, began)
    }

    fn acquire<'a>(&'a self, request: &'a Parts, began: Instant) -> AcquireFuture<'a> {
        Box::pin(async move { self.acquire_now(request, began) })
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
    fn acquire_here(
        &self,
        key: K,
        request: &Parts,
        began: Instant,
    ) -> Result<AcquiredSession, Rejection> {
        if began.elapsed() > LONGEST_HANDSHAKE {
            return Err(Rejection::new(RejectionKind::VerifierTimeout).with_source(
                "the checks took more than a minute, so the sessions of the key may have been \
                 ended meanwhile",
            ));
        }
        let info = SessionInfo::new(request, (self.address)(request));
        let slot = self.registry.acquire(key, info, began, self.max, self.when_full)?;
        Ok(AcquiredSession { session: Arc::clone(&slot.session), slot: Box::new(slot) })
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
