use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Ended, FirstOf},
    lock::lock,
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

/// The validity of the claims of a connection. It ends when the claims expire or are revoked. The
/// default never ends.
///
/// A handshake is verified once, and its socket may be open for days. [`Upgraded`](crate::Upgraded)
/// has the validity of its claims. Behind a guard that forwards, it is in the extensions of the
/// request unless the validity never ends. With the feature `axum` it is an extractor.
///
/// Clones share the validity, so [renewing](Self::renew) one of them renews all.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    /// That of the innermost verifier first. Empty if it never ends.
    parts: Vec<Arc<Part>>,
}

/// The validity of the claims of one verifier.
#[derive(Debug)]
struct Part {
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
    pub(crate) const NEVER_ENDS: Self = Self { parts: Vec::new() };

    /// The time at which the claims expire, if they do.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.parts.iter().filter_map(|part| part.lock().expires_at).min()
    }

    /// Whether the claims have expired or are revoked.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.parts.iter().any(|part| part.lock().has_ended().is_some())
    }

    /// Replaces this validity by that of a new token of the same user, which the client sent over
    /// the open socket. Verify that token with [`VerifyToken::verify`](crate::VerifyToken::verify)
    /// before, and compare its subject with that of the first one.
    ///
    /// The limits that the token check of an outer layer has set stay. A validity that never ends
    /// stays so, too.
    ///
    /// Returns whether the claims are valid. `false`: they had expired or were revoked before, and
    /// stay so.
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
        if self.has_ended() {
            return false;
        }
        if let Some(innermost) = self.parts.first() {
            let mut limits = Limits::default();
            for part in &new.parts {
                limits = limits.and(part.lock().clone());
            }
            *innermost.lock() = limits;
            innermost.renewed.notify_waiters();
        }
        true
    }

    fn with(limits: Limits) -> Self {
        let part = Part { limits: Mutex::new(limits), renewed: Notify::new() };
        Self { parts: vec![Arc::new(part)] }
    }

    /// Adds limits of the same verifier. Nobody shares the validity yet.
    fn limit(&mut self, limits: Limits) {
        match self.parts.first() {
            Some(part) => {
                let mut there = part.lock();
                *there = there.clone().and(limits);
            }
            None => *self = Self::with(limits),
        }
    }

    /// The validity that ends when one of the two ends.
    pub(super) fn and(mut self, outer: Option<&Self>) -> Self {
        self.parts.extend(outer.into_iter().flat_map(|outer| &outer.parts).cloned());
        self
    }

    pub(crate) const fn is_limited(&self) -> bool {
        !self.parts.is_empty()
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
        let mut ends = FirstOf::new();
        self.add_ends(&mut ends);
        ends
    }

    pub(crate) fn add_ends(&self, ends: &mut FirstOf<Ended>) {
        for part in &self.parts {
            ends.push(Arc::clone(part).ended());
        }
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Limits> {
        lock(&self.limits)
    }

    async fn ended(self: Arc<Self>) -> Ended {
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
