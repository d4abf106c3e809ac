use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use tokio::time::{Instant, sleep_until};

use super::{Ended, drain::Entry, first_of, limit::Slot, sessions::AcquiredSession};
use crate::token::Validity;

/// The permit of a connection: its slots under the [`ConnectionLimit`](crate::ConnectionLimit)s,
/// its [`Sessions`](crate::Sessions), and its entry in the [`Drain`](crate::Drain)s. It tells when
/// the connection must end.
///
/// Behind a layer with one of these, a connection cannot be upgraded before its permit is
/// [claimed](Self::claim). Keep the permit for as long as the connection is open: its slots are
/// free when the last clone is dropped. See the [module docs](crate::connection).
#[derive(Clone)]
#[must_use = "dropping the permit frees the slots of the connection"]
pub struct Permit {
    held: Arc<Held>,
    validity: Validity,
}

/// What a layer acquired for a connection.
#[derive(Default)]
pub(crate) struct Held {
    #[expect(dead_code, reason = "dropped with the permit")]
    slots: Vec<Slot>,
    sessions: Vec<AcquiredSession>,
    pub(crate) drains: Vec<Entry>,
    /// The end of the maximum age.
    pub(crate) ends_at: Option<Instant>,
    /// The permit of an outer layer.
    outer: Option<Permit>,
}

impl Held {
    pub(crate) fn new(slots: Vec<Slot>, sessions: Vec<AcquiredSession>) -> Self {
        Self { slots, sessions, ..Self::default() }
    }
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
        self.ended_with(&self.validity)
    }

    /// As [`ended`](Self::ended), with this validity in place of the permit's.
    pub(crate) fn ended_with(
        &self,
        validity: &Validity,
    ) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let mut ends: Vec<Pin<Box<dyn Future<Output = Ended> + Send>>> = Vec::new();
        let mut permit = Some(self);
        while let Some(Self { held, .. }) = permit {
            for AcquiredSession { session, .. } in &held.sessions {
                ends.push(Box::pin(Arc::clone(session).ended()));
            }
            for entry in &held.drains {
                let drained = entry.drained();
                ends.push(Box::pin(async move {
                    drained.await;
                    Ended::Drained
                }));
            }
            if let Some(time) = held.ends_at {
                ends.push(Box::pin(async move {
                    sleep_until(time).await;
                    Ended::Drained
                }));
            }
            permit = held.outer.as_ref();
        }
        ends.push(Box::pin(validity.ended()));
        first_of(ends)
    }

    pub(crate) fn new(held: Held) -> Self {
        Self { held: Arc::new(held), validity: Validity::default() }
    }

    /// A permit that holds nothing. It tells when the claims end.
    pub(crate) fn without_limit(validity: Validity) -> Self {
        Self::new(Held::default()).valid_while(validity)
    }

    /// Ends with the validity of the claims, too.
    pub(crate) fn valid_while(self, validity: Validity) -> Self {
        Self { validity, ..self }
    }

    /// Holds the permit of an outer layer, too. This permit is not shared yet.
    pub(crate) fn inside(mut self, outer: Option<Self>) -> Self {
        if let Some(held) = Arc::get_mut(&mut self.held) {
            held.outer = outer;
        }
        self
    }

    pub(crate) fn downgrade(&self) -> WeakPermit {
        WeakPermit(Arc::downgrade(&self.held))
    }
}

/// Tells whether a permit is still held.
pub(crate) struct WeakPermit(Weak<Held>);

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
