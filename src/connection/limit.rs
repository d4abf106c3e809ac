use std::sync::{Arc, atomic::Ordering};

use crate::{config::ConfigError, rejection::RejectionKind, sync::AtomicUsize};

/// The maximum number of live connections.
///
/// Clones share their count, so several routes can share a limit. For a limit per user or address
/// use [`Sessions`](crate::Sessions). See the [module docs](crate::connection) for an example, and
/// [hardening](crate::guide::hardening) for what else to bound.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConnectionLimit {
    max: usize,
    connections: Arc<AtomicUsize>,
}

impl ConnectionLimit {
    /// Allows `max` connections in total. Others are rejected with
    /// [`OverCapacity`](RejectionKind::OverCapacity).
    ///
    /// # Errors
    ///
    /// `max` is 0.
    pub fn total(max: usize) -> Result<Self, ConfigError> {
        Ok(Self { max: super::at_least_one(max)?, connections: Arc::default() })
    }

    /// The number of live connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether there is a slot, without taking it.
    pub(crate) fn peek(&self) -> Result<(), RejectionKind> {
        if self.connections() < self.max { Ok(()) } else { Err(RejectionKind::OverCapacity) }
    }

    pub(crate) fn acquire(&self) -> Result<Slot, RejectionKind> {
        let more = |count: usize| (count < self.max).then_some(count + 1);
        // Nothing else depends on the order of the counts.
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(|_| Slot(Arc::clone(&self.connections)))
            .map_err(|_| RejectionKind::OverCapacity)
    }
}

/// A slot under a limit. It is free when it is dropped.
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
