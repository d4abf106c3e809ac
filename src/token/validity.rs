use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::connection::first_of;

/// What a [verifier](crate::VerifyToken) says of a good token: the claims, and how long they hold.
///
/// Claims alone are turned into it by `into()`; they hold for good.
#[derive(Debug)]
pub struct Verified<C> {
    pub(super) claims: C,
    pub(super) validity: Validity,
}

impl<C> Verified<C> {
    /// Claims that hold for good.
    #[must_use]
    pub fn new(claims: C) -> Self {
        Self { claims, validity: Validity::default() }
    }

    /// The claims hold until `time` at most. Of several times the first one counts.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        let earlier = self.validity.expires_at.map_or(time, |other| other.min(time));
        self.validity.expires_at = Some(earlier);
        self
    }

    /// The claims hold until `revocation` is cancelled. Of several ones the first that is cancelled counts.
    ///
    /// It ends live sockets. The next handshake is refused by the verifier, which is asked again: nothing of its verdict is kept.
    #[must_use]
    pub fn revoked_by(mut self, revocation: CancellationToken) -> Self {
        self.validity.revocations.push(revocation);
        self
    }

    /// Does something with the claims.
    #[must_use]
    pub fn map<D>(self, map: impl FnOnce(C) -> D) -> Verified<D> {
        Verified { claims: map(self.claims), validity: self.validity }
    }

    /// The claims.
    #[must_use]
    pub const fn claims(&self) -> &C {
        &self.claims
    }

    /// How long they hold.
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

/// How long the claims of a connection hold: they expire, they are revoked, or they hold for good (the default).
///
/// A handshake is verified once, and its socket may live for days. With [`ResponderLayer`](crate::ResponderLayer) the connection
/// knows it ([`Upgraded::validity`](crate::Upgraded::validity)); behind a guard alone it is in the extensions of the request, unless the
/// claims hold for good, and, with feature `axum`, an extractor.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    expires_at: Option<SystemTime>,
    revocations: Vec<CancellationToken>,
}

impl Validity {
    /// When the claims expire, if ever.
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

    /// As long as both hold.
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

    /// Resolves when the claims have expired or are revoked; for claims that hold for good, never.
    ///
    /// The future owns what it needs, so it may outlive the connection: race it against the frames, and then close the
    /// socket, with code 1008 (RFC 6455 7.4.1) for instance. Give the close a time-out: a client that does not read can delay it.
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
    /// When polled outside a Tokio runtime with timers, if the claims expire.
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

/// Timers count an interval, but a system's clock may be set while they do: hence a look at it every minute.
async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.clamp(Duration::from_millis(1), Duration::from_secs(60))).await;
    }
}
