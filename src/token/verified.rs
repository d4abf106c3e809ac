use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Ended, FirstOf, Validity},
    lock::lock,
    sync::{Mutex, MutexGuard, Notify},
};

/// The result of a [verifier](crate::VerifyToken) for a valid token: the claims, and their
/// validity.
///
/// `into()` converts claims that never expire.
#[derive(Debug)]
pub struct Verified<C> {
    pub(super) claims: C,
    pub(super) validity: Validity,
}

impl<C> Verified<C> {
    /// Claims that never expire.
    #[must_use]
    pub fn new(claims: C) -> Self {
        Self { claims, validity: Validity::default() }
    }

    /// Sets the time at which the claims expire. Of several times the earliest counts.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.validity.limit(Limits { expires_at: Some(time), ..Limits::default() });
        self
    }

    /// Revokes the claims when `revocation` is cancelled. Of several revocations the first counts.
    ///
    /// A revocation notifies open sockets only. The verifier must reject the next handshake.
    #[must_use]
    pub fn revoked_by(mut self, revocation: CancellationToken) -> Self {
        self.validity.limit(Limits { revocations: vec![revocation], ..Limits::default() });
        self
    }

    /// Converts the claims.
    #[must_use]
    pub fn map<D>(self, map: impl FnOnce(C) -> D) -> Verified<D> {
        Verified { claims: map(self.claims), validity: self.validity }
    }

    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &C {
        &self.claims
    }

    /// The validity of the claims.
    #[must_use]
    pub const fn validity(&self) -> &Validity {
        &self.validity
    }
}

impl<C> From<C> for Verified<C> {
    fn from(claims: C) -> Self {
        Self::new(claims)
    }
}

/// The validity of the claims of one verifier.
#[derive(Debug)]
pub(crate) struct ValidityPart {
    limits: Mutex<Limits>,
    renewed: Notify,
}

#[derive(Clone, Debug, Default)]
struct Limits {
    expires_at: Option<SystemTime>,
    revocations: Vec<CancellationToken>,
}

impl Limits {
    fn and(mut self, other: Self) -> Self {
        self.expires_at = self.expires_at.into_iter().chain(other.expires_at).min();
        self.revocations.extend(other.revocations);
        self
    }

    fn has_ended(&self) -> Option<Ended> {
        if self.revocations.iter().any(CancellationToken::is_cancelled) {
            return Some(Ended::Revoked);
        }
        self.expires_at.is_some_and(|time| time <= SystemTime::now()).then_some(Ended::Expired)
    }

    fn ended(self) -> FirstOf<Ended> {
        let mut ends = FirstOf::new();
        for revocation in self.revocations {
            ends.push(async move {
                revocation.cancelled().await;
                Ended::Revoked
            });
        }
        if let Some(time) = self.expires_at {
            ends.push(async move {
                sleep_until(time).await;
                Ended::Expired
            });
        }
        ends
    }
}

impl Validity {
    /// Adds limits of the same verifier. Nobody shares the validity yet.
    fn limit(&mut self, limits: Limits) {
        match self.parts.first() {
            Some(part) => {
                let mut there = part.lock();
                *there = there.clone().and(limits);
            }
            None => self.parts.push(Arc::new(ValidityPart::new(limits))),
        }
    }

    /// The validity that ends when one of the two ends.
    pub(super) fn and(mut self, outer: Option<&Self>) -> Self {
        self.parts.extend(outer.into_iter().flat_map(|outer| &outer.parts).cloned());
        self
    }
}

impl ValidityPart {
    fn new(limits: Limits) -> Self {
        Self { limits: Mutex::new(limits), renewed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Limits> {
        lock(&self.limits)
    }

    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        self.lock().expires_at
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().has_ended().is_some()
    }

    /// Replaces the limits by those of all parts of another validity.
    pub(crate) fn renew(&self, new: &[Arc<Self>]) {
        let limits = new.iter().map(|part| part.lock().clone());
        let limits = limits.fold(Limits::default(), Limits::and);
        *self.lock() = limits;
        self.renewed.notify_waiters();
    }

    pub(crate) async fn ended(self: Arc<Self>) -> Ended {
        loop {
            let mut renewed = pin!(self.renewed.notified());
            renewed.as_mut().enable();
            let limits = self.lock().clone();
            let mut ended = pin!(limits.ended());
            let ended_or_renewed = poll_fn(|cx| match ended.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => renewed.as_mut().poll(cx).map(|()| None),
            });
            if let Some(ended) = ended_or_renewed.await {
                return ended;
            }
        }
    }
}

/// Sleeps until `time`. The system's clock may be set meanwhile, so the clock is checked every
/// minute.
async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.clamp(Duration::from_millis(1), Duration::from_secs(60))).await;
    }
}
