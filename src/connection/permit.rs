use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Drain, first_of, limit::Place};
use crate::rejection::RejectionKind;

/// The right of a connection to be there: its place under a [`ConnectionLimit`](crate::ConnectionLimit), and in the count of a
/// [`Drain`].
///
/// It is in the extensions of the request behind a layer with a limit or a drain, and, with feature `axum`, an extractor. Keep it as long
/// as the connection lives: the place is free when the last clone is dropped. See the [module docs](crate::connection).
#[derive(Clone)]
#[must_use = "the place of the connection is free again when it is dropped"]
pub struct Permit(Arc<Held>);

struct Held {
    #[expect(dead_code, reason = "dropped with the permit")]
    places: Vec<Place>,
    drain: Option<(Drain, TaskTrackerToken)>,
    /// Of a layer outside.
    outer: Option<Permit>,
}

impl Permit {
    pub(crate) fn new(places: Vec<Place>, drain: Option<&Drain>, outer: Option<Self>) -> Result<Self, RejectionKind> {
        let drain = match drain {
            Some(drain) => Some((drain.clone(), drain.enter()?)),
            None => None,
        };
        Ok(Self(Arc::new(Held { places, drain, outer })))
    }

    /// Resolves when the server drains; without a drain, never.
    ///
    /// The future owns what it needs, but not the permit.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut signals: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        let mut permit = Some(self);
        while let Some(Self(held)) = permit {
            if let Some((drain, _)) = &held.drain {
                signals.push(Box::pin(drain.started()));
            }
            permit = held.outer.as_ref();
        }
        first_of(signals)
    }

    pub(crate) fn issued(&self) -> Issued {
        Issued(Arc::downgrade(&self.0))
    }
}

/// For the layer that issued a permit: whether somebody holds it.
#[derive(Clone)]
pub(crate) struct Issued(Weak<Held>);

impl Issued {
    pub(crate) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("is_held", &self.is_held()).finish()
    }
}
