use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::connection::{Ended, first_of};

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
        let limits = Limits { expires_at: Some(time), ..Limits::default() };
        self.validity = Validity::with(limits).and(Some(&self.validity));
        self
    }

    /// Revokes the claims when `revocation` is cancelled. Of several revocations the first counts.
    ///
    /// A revocation notifies open sockets only. The verifier must reject the next handshake.
    #[must_use]
    pub fn revoked_by(mut self, revocation: CancellationToken) -> Self {
        let limits = Limits { revocations: vec![revocation], ..Limits::default() };
        self.validity = Validity::with(limits).and(Some(&self.validity));
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

/// The validity of the claims of a connection. It ends when the claims expire or are revoked. The
/// default never ends.
///
/// A handshake is verified once, and its socket may be open for days. [`Upgraded`](crate::Upgraded)
/// has the validity of its claims. Behind a guard that forwards, it is in the extensions of the
/// request unless the validity never ends. With the feature `axum` it is an extractor.
///
/// Clones share the validity, so [renewing](Self::renew) one of them renews all.
#[derive(Clone, Debug, Default)]
pub struct Validity(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    limits: Mutex<Limits>,
    renewed: Notify,
}

#[derive(Clone, Debug, Default)]
struct Limits {
    expires_at: Option<SystemTime>,
    revocations: Vec<CancellationToken>,
}

impl Limits {
    fn has_ended(&self) -> Option<Ended> {
        if self.revocations.iter().any(CancellationToken::is_cancelled) {
            return Some(Ended::Revoked);
        }
        self.expires_at.is_some_and(|time| time <= SystemTime::now()).then_some(Ended::Expired)
    }

    async fn ended(self) -> Ended {
        let mut ends: Vec<Pin<Box<dyn Future<Output = Ended> + Send>>> = Vec::new();
        for revocation in self.revocations {
            ends.push(Box::pin(async move {
                revocation.cancelled().await;
                Ended::Revoked
            }));
        }
        if let Some(time) = self.expires_at {
            ends.push(Box::pin(async move {
                sleep_until(time).await;
                Ended::Expired
            }));
        }
        first_of(ends).await
    }
}

impl Validity {
    /// The time at which the claims expire, if they do.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.limits().expires_at
    }

    /// Whether the claims have expired or are revoked.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.limits().has_ended().is_some()
    }

    /// Replaces this validity by that of a new token of the same user, which the client sent over
    /// the open socket. Verify that token with [`VerifyToken::verify`](crate::VerifyToken::verify)
    /// before, and compare its subject with that of the first one.
    ///
    /// Returns whether the validity was renewed. A validity that has ended stays so, and one that
    /// never ends need not be renewed.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tower_ws_guard::Verified;
    ///
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// let open = Verified::new("alice").expires_at(in_an_hour);
    /// let refreshed = Verified::new("alice").expires_at(in_an_hour + Duration::from_secs(3600));
    /// assert!(open.validity().renew(refreshed.validity()));
    /// assert_eq!(open.validity().expires_at(), refreshed.validity().expires_at());
    /// ```
    #[must_use = "a validity that has ended is not renewed"]
    pub fn renew(&self, new: &Self) -> bool {
        let (Some(shared), new) = (&self.0, new.limits()) else { return false };
        let mut limits = shared.lock();
        if limits.has_ended().is_some() {
            return false;
        }
        *limits = new;
        drop(limits);
        shared.renewed.notify_waiters();
        true
    }

    fn limits(&self) -> Limits {
        self.0.as_ref().map_or_else(Limits::default, |shared| shared.lock().clone())
    }

    fn with(limits: Limits) -> Self {
        Self(Some(Arc::new(Shared { limits: Mutex::new(limits), renewed: Notify::new() })))
    }

    /// The validity that ends when one of the two ends.
    pub(super) fn and(self, other: Option<&Self>) -> Self {
        let Some(other) = other.filter(|other| other.is_limited()) else { return self };
        if !self.is_limited() {
            return other.clone();
        }
        let (mut limits, other) = (self.limits(), other.limits());
        limits.expires_at = limits.expires_at.into_iter().chain(other.expires_at).min();
        limits.revocations.extend(other.revocations);
        Self::with(limits)
    }

    pub(super) const fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves when the claims have expired or are revoked, to which of the two. It never resolves
    /// if the validity never ends.
    ///
    /// The future does not borrow the connection. [`Permit::ended`](crate::Permit::ended) and
    /// [`Upgraded::ended`](crate::Upgraded::ended) include it.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tokio_util::sync::CancellationToken;
    /// use tower_ws_guard::{Ended, Verified};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let logout = CancellationToken::new();
    /// let verified = Verified::new("alice")
    ///     .expires_at(SystemTime::now() + Duration::from_secs(3600))
    ///     .revoked_by(logout.clone());
    /// logout.cancel();
    /// assert_eq!(verified.validity().ended().await, Ended::Revoked);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the claims expire, the future panics when polled outside of a Tokio runtime with timers.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let shared = self.0.clone();
        async move {
            let Some(shared) = shared else { return pending().await };
            loop {
                let mut renewed = pin!(shared.renewed.notified());
                renewed.as_mut().enable();
                let limits = shared.lock().clone();
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
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
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
