use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use tokio::time::{Instant, sleep_until};

use super::{Ended, FirstOf, Validity, drain::Entry, limit::Slot, sessions::AcquiredSession};

/// The permit of a connection: its slots under the [`ConnectionLimit`](crate::ConnectionLimit)s,
/// its [`Sessions`](crate::Sessions), and its entry in the [`Drain`](crate::Drain)s. It tells when
/// the connection must end.
///
/// Behind a layer with one of these, a connection cannot be upgraded before its permit is
/// [claimed](Self::claim). Keep the permit for as long as the connection is open: its slots are
/// free when the last clone is dropped. See the [module docs](crate::connection).
#[derive(Clone)]
#[must_use = "dropping the permit frees the slots of the connection"]
pub struct Permit(Arc<Link>);

/// A permit is a list, so that each thing that a connection holds is one allocation.
struct Link {
    held: Held,
    rest: Option<Permit>,
}

/// What a connection holds, or what ends it.
pub(crate) enum Held {
    Slot(#[expect(dead_code, reason = "free when it is dropped")] Slot),
    Session(AcquiredSession),
    Drain(Entry),
    /// The end of the maximum age.
    Age(Instant),
    Claims(Validity),
    /// The permit of another layer.
    Permit(Permit),
}

impl Permit {
    /// Resolves when the connection must end, to the reason: the server drains, the claims expired
    /// or were revoked, or the session was ended or evicted. The first reason counts.
    ///
    /// Race it against the frames, and then send a close frame with [`Ended::close_code`] and
    /// [`Ended::reason`]. Set a timeout for the client's close frame, because a client that does
    /// not read would keep its connection. The future does not hold the permit.
    ///
    /// # Panics
    ///
    /// If the claims expire, or the connection has a maximum age, the future panics when polled
    /// outside of a Tokio runtime with timers.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let mut ends = FirstOf::new();
        self.add_ends(&mut ends);
        ends
    }

    pub(crate) fn add_ends(&self, ends: &mut FirstOf<Ended>) {
        let mut rest = Some(self);
        while let Some(Self(link)) = rest {
            match &link.held {
                Held::Slot(_) => {}
                Held::Session(held) => ends.push(Arc::clone(&held.session).ended()),
                Held::Drain(entry) => ends.push(entry.drained()),
                Held::Age(time) => {
                    let time = *time;
                    ends.push(async move {
                        sleep_until(time).await;
                        Ended::Drained
                    });
                }
                Held::Claims(validity) => validity.add_ends(ends),
                Held::Permit(permit) => permit.add_ends(ends),
            }
            rest = link.rest.as_ref();
        }
    }

    pub(crate) fn new(held: Held, rest: Option<Self>) -> Self {
        Self(Arc::new(Link { held, rest }))
    }

    /// A permit that holds nothing. It tells when the claims end.
    pub(crate) fn without_limit(validity: Validity) -> Self {
        Self::new(Held::Claims(validity), None)
    }

    /// Ends with the validity of the claims, too.
    pub(crate) fn valid_while(self, validity: Validity) -> Self {
        if validity.is_limited() { Self::new(Held::Claims(validity), Some(self)) } else { self }
    }

    /// Holds the permit of another layer, too.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::new(Held::Permit(other), Some(self))
    }

    pub(crate) fn downgrade(&self) -> WeakPermit {
        WeakPermit(Arc::downgrade(&self.0))
    }
}

/// Tells whether a permit is still held.
pub(crate) struct WeakPermit(Weak<Link>);

impl WeakPermit {
    pub(crate) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
