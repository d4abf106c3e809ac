use std::{future::Future, sync::Arc, time::SystemTime};

use super::{Ended, FirstOf};
use crate::token::ValidityPart;

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
    pub(crate) parts: Vec<Arc<ValidityPart>>,
}

impl Validity {
    pub(crate) const NEVER_ENDS: Self = Self { parts: Vec::new() };

    /// The time at which the claims expire, if they do.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.parts.iter().filter_map(|part| part.expires_at()).min()
    }

    /// Whether the claims have expired or are revoked.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.parts.iter().any(|part| part.has_ended())
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
            innermost.renew(&new.parts);
        }
        true
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
