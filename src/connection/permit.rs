use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Drain, first_of, limit::Slot};

/// The permit of a connection: its slots under the [`ConnectionLimit`](crate::ConnectionLimit)s,
/// and its entry in the [`Drain`]s.
///
/// Behind a layer with a limit or a drain, a connection cannot be upgraded before its permit is
/// [claimed](Self::claim). Keep the permit for as long as the connection is open: its slots are
/// free when the last clone is dropped. See the [module docs](crate::connection).
#[derive(Clone)]
#[must_use = "dropping the permit frees the slots of the connection"]
pub struct Permit(Arc<Held>);

struct Held {
    #[expect(dead_code, reason = "dropped with the permit")]
    slots: Vec<Slot>,
    drains: Vec<(Drain, TaskTrackerToken)>,
    /// The permit of an outer layer.
    outer: Option<Permit>,
}

impl Permit {
    /// Resolves when the server drains. Without a drain it never resolves.
    ///
    /// The future does not hold the permit.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut signals: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        let mut permit = Some(self);
        while let Some(Self(held)) = permit {
            for (drain, _) in &held.drains {
                signals.push(Box::pin(drain.started()));
            }
            permit = held.outer.as_ref();
        }
        first_of(signals)
    }

    pub(crate) fn new(slots: Vec<Slot>, drains: Vec<(Drain, TaskTrackerToken)>) -> Self {
        Self(Arc::new(Held { slots, drains, outer: None }))
    }

    /// Holds the permit of an outer layer, too. This permit is not shared yet.
    pub(crate) fn inside(mut self, outer: Option<Self>) -> Self {
        if let Some(held) = Arc::get_mut(&mut self.0) {
            held.outer = outer;
        }
        self
    }

    pub(crate) fn downgrade(&self) -> WeakPermit {
        WeakPermit(Arc::downgrade(&self.0))
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
