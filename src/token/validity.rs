use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::connection::first_of;

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
        let earlier = self.validity.expires_at.map_or(time, |other| other.min(time));
        self.validity.expires_at = Some(earlier);
        self
    }

    /// Revokes the claims when `revocation` is cancelled. Of several revocations the first counts.
    ///
    /// A revocation notifies open sockets only. The verifier must reject the next handshake.
    #[must_use]
    pub fn revoked_by(mut self, revocation: CancellationToken) -> Self {
        self.validity.revocations.push(revocation);
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
#[derive(Clone, Debug, Default)]
pub struct Validity {
    expires_at: Option<SystemTime>,
    revocations: Vec<CancellationToken>,
}

impl Validity {
    /// The time at which the claims expire, if they do.
    #[must_use]
    pub const fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Whether the claims have expired or are revoked.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.revocations.iter().any(CancellationToken::is_cancelled)
            || self.expires_at.is_some_and(|time| time <= SystemTime::now())
    }

    /// The validity that ends when one of the two ends.
    pub(super) fn and(mut self, other: Option<&Self>) -> Self {
        if let Some(other) = other {
            self.expires_at = self.expires_at.into_iter().chain(other.expires_at).min();
            self.revocations.extend_from_slice(&other.revocations);
        }
        self
    }

    pub(super) fn is_limited(&self) -> bool {
        self.expires_at.is_some() || !self.revocations.is_empty()
    }

    /// Resolves when the claims have expired or are revoked. It never resolves if the validity
    /// never ends.
    ///
    /// The future does not borrow the connection. Race it against the frames, and then close the
    /// socket, for example with code 1008 (RFC 6455 7.4.1). Set a timeout for the close, because a
    /// client that does not read can delay it.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tokio_util::sync::CancellationToken;
    /// use tower_ws_guard::{Validity, Verified};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let logout = CancellationToken::new();
    /// let verified = Verified::new("alice")
    ///     .expires_at(SystemTime::now() + Duration::from_secs(3600))
    ///     .revoked_by(logout.clone());
    /// logout.cancel();
    /// verified.validity().ended().await;
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the claims expire, the future panics when polled outside of a Tokio runtime with timers.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let Self { expires_at, revocations } = self.clone();
        async move {
            let mut ends: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
            for revocation in revocations {
                ends.push(Box::pin(revocation.cancelled_owned()));
            }
            if let Some(time) = expires_at {
                ends.push(Box::pin(sleep_until(time)));
            }
            first_of(ends).await;
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
