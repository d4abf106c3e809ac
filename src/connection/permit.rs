use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use http::Extensions;
use hyper::upgrade::OnUpgrade;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Drain, first_of, limit::Place};
use crate::rejection::RejectionKind;

/// The right of a connection to be there: its place under a [`ConnectionLimit`](crate::ConnectionLimit), and in the count of a
/// [`Drain`].
///
/// Behind a layer with a limit or a drain a connection cannot be upgraded before its permit is [claimed](Self::claim). Keep it as long as
/// the connection lives: the place is free when the last clone is dropped. See the [module docs](crate::connection).
#[derive(Clone)]
#[must_use = "the place of the connection is free again when it is dropped"]
pub struct Permit(Arc<Held>);

struct Held {
    #[expect(dead_code, reason = "dropped with the permit")]
    places: Vec<Place>,
    drain: Option<(Drain, TaskTrackerToken)>,
    /// Of a layer outside.
    outer: Option<Permit>,
    upgrade: Arc<Withheld>,
}

/// hyper hands a connection over even if the answer was no 101 after all, once it is done with it. So the upgrade is given to none but
/// those who hold the permit.
#[derive(Default)]
struct Withheld {
    on_upgrade: Mutex<Option<OnUpgrade>>,
    claimed: AtomicBool,
    /// Whether the answer was another than one that completes the handshake.
    declined: AtomicBool,
}

/// In the extensions of the request.
#[derive(Clone)]
struct Unclaimed(Permit);

impl Permit {
    /// Takes the permit, and puts `OnUpgrade` back, so that `hyper::upgrade::on` and what is built on it works again.
    ///
    /// For services that answer handshakes by themselves: axum's [`GuardedUpgrade`](crate::extract::GuardedUpgrade) and the
    /// [`ResponderLayer`](crate::ResponderLayer) do it for you. `None` without a limit and without a drain, and if it was claimed from these
    /// extensions before. Claim only to accept: hyper hands over what somebody waits for, even if the answer is another in the end.
    pub fn claim(extensions: &mut Extensions) -> Option<Self> {
        let Unclaimed(permit) = extensions.remove()?;
        if let Some(on_upgrade) = permit.take_upgrade() {
            extensions.insert(on_upgrade);
        }
        Some(permit)
    }

    /// Resolves when the server drains; without a drain, never.
    ///
    /// The future owns what it needs, but not the permit.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut signals: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        let mut permit = Some(self);
        while let Some(Self(held)) = permit {
            if let Some((drain, _)) = &held.drain {
                signals.push(Box::pin(drain.started()));
            }
            permit = held.outer.as_ref();
        }
        first_of(signals)
    }

    /// Puts a permit into the extensions, and takes the upgrade out, unless nothing is refused.
    pub(crate) fn issue(
        places: Vec<Place>,
        drain: Option<&Drain>,
        extensions: &mut Extensions,
        report_only: bool,
    ) -> Result<Issued, RejectionKind> {
        let drain = match drain {
            Some(drain) => Some((drain.clone(), drain.enter()?)),
            None => None,
        };
        let outer = extensions.remove().map(|Unclaimed(permit)| permit);
        let upgrade = match &outer {
            Some(Self(held)) => Arc::clone(&held.upgrade),
            None => Arc::default(),
        };
        // A layer outside that refuses nothing has left it there.
        if !report_only && let Some(on_upgrade) = extensions.remove() {
            *upgrade.on_upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(on_upgrade);
        }
        let held = Arc::new(Held { places, drain, outer, upgrade: Arc::clone(&upgrade) });
        let issued = Issued { held: Arc::downgrade(&held), upgrade, completed: false };
        extensions.insert(Unclaimed(Self(held)));
        Ok(issued)
    }

    /// For who closes the connection at once, and holds the permit meanwhile.
    #[cfg(feature = "responder")]
    pub(crate) fn claim_to_close(extensions: &Extensions) -> Option<(Self, OnUpgrade)> {
        let Unclaimed(permit) = extensions.get()?;
        Some((permit.clone(), permit.take_upgrade()?))
    }

    fn take_upgrade(&self) -> Option<OnUpgrade> {
        let withheld = &self.0.upgrade;
        withheld.claimed.store(true, Ordering::Relaxed);
        withheld.on_upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the handshake was not completed after all.
    #[cfg(any(feature = "responder", feature = "axum-ws"))]
    pub(crate) fn is_declined(&self) -> bool {
        self.0.upgrade.declined.load(Ordering::Acquire)
    }
}

/// For the layer that issued a permit: what became of it. Dropped, the handshake is declined.
pub(crate) struct Issued {
    held: Weak<Held>,
    upgrade: Arc<Withheld>,
    completed: bool,
}

impl Issued {
    /// Whether somebody has claimed the permit, and holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.is_claimed() && self.held.strong_count() > 0
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.upgrade.claimed.load(Ordering::Relaxed)
    }

    pub(crate) fn complete(mut self) {
        self.completed = true;
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        if !self.completed {
            self.upgrade.declined.store(true, Ordering::Release);
        }
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
