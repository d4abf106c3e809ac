use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use tokio::time::{Sleep, sleep};

use super::{ConnectionInfo, Handover, Upgraded, info::NOTHING, task::ConnectionTask};
use crate::{connection::Permit, extension::AgreedExtensions};

/// A valid handshake that waits for the handler's decision.
///
/// It is in the extensions of the request, and with the feature `axum` it is an extractor. It can
/// be accepted once, and only until the inner service has responded. Dropping it declines the
/// handshake.
#[derive(Clone)]
pub struct PendingUpgrade {
    handover: Handover,
    upgrade_timeout: Duration,
    /// An origin check has accepted the request.
    is_origin_checked: bool,
}

impl PendingUpgrade {
    pub(crate) fn new(
        handover: Handover,
        upgrade_timeout: Duration,
        is_origin_checked: bool,
    ) -> Self {
        Self { handover, upgrade_timeout, is_origin_checked }
    }

    /// For a layer inside of the one that completes the handshake.
    pub(crate) const fn handover(&self) -> &Handover {
        &self.handover
    }

    pub(crate) const fn is_origin_checked(&self) -> bool {
        self.is_origin_checked
    }

    /// The selected subprotocol, which the response will name.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.handover.info().subprotocol()
    }

    /// The extensions that the response will name. See [`extension`](crate::extension).
    #[must_use]
    pub fn extensions(&self) -> AgreedExtensions {
        self.handover.info().extensions
    }

    /// Accepts the handshake: the inner service's response is sent as a 101 (over HTTP/2: 200).
    ///
    /// Await the result in a task of its own, because the connection exists only after the response
    /// has been sent. `None` if the handshake was accepted before, or if it is too late.
    #[must_use]
    pub fn accept(&self) -> Option<Upgrade> {
        let (on_upgrade, permit) = self.handover.take()?;
        let handover = Some(self.handover.clone());
        Some(Upgrade::new(on_upgrade?, permit, handover, self.upgrade_timeout))
    }

    /// Accepts the handshake and spawns `callback` with the connection.
    ///
    /// `callback` is not called if the client has left, or if the handshake was accepted before.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime. In a runtime without timers the spawned task panics.
    pub fn on_upgrade<F, Fut>(&self, callback: F)
    where
        F: FnOnce(Upgraded) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        if let Some(upgrade) = self.accept() {
            upgrade.spawn(callback);
        }
    }
}

impl fmt::Debug for PendingUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingUpgrade")
            .field("subprotocol", &self.subprotocol())
            .finish_non_exhaustive()
    }
}

/// Resolves to the connection after the response has been sent.
///
/// A client has the [`upgrade_timeout`](crate::GuardLayer::upgrade_timeout) to read the response,
/// 10 seconds by default.
#[must_use = "the connection is closed if nobody takes it"]
pub struct Upgrade {
    on_upgrade: OnUpgrade,
    permit: Option<Permit>,
    /// `None` if the response is known to complete the handshake, and nothing was negotiated.
    handover: Option<Handover>,
    timeout: Duration,
    /// Boxed, because it is gone before the connection is there.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Upgrade {
    fn new(
        on_upgrade: OnUpgrade,
        permit: Option<Permit>,
        handover: Option<Handover>,
        timeout: Duration,
    ) -> Self {
        Self { on_upgrade, permit, handover, timeout, deadline: None }
    }

    /// An upgrade whose response is known to complete the handshake.
    pub(crate) fn decided(
        on_upgrade: OnUpgrade,
        permit: Option<Permit>,
        info: ConnectionInfo,
        timeout: Duration,
    ) -> Self {
        let handover = (!info.is_nothing()).then(|| Handover::decided(info));
        Self::new(on_upgrade, permit, handover, timeout)
    }

    fn info(&self) -> &ConnectionInfo {
        self.handover.as_ref().map_or(&NOTHING, Handover::info)
    }

    pub(crate) fn spawn<F, Fut>(self, callback: F)
    where
        F: FnOnce(Upgraded) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let span = self.info().span.clone();
        span.spawn(ConnectionTask::new(self, callback));
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("subprotocol", &self.info().subprotocol())
            .finish_non_exhaustive()
    }
}

impl Future for Upgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // hyper hands over a connection behind any response, so the response decides first.
        if let Some(handover) = &this.handover
            && !ready!(handover.poll_completed(cx))
        {
            return Poll::Ready(Err(UpgradeError(Cause::Declined)));
        }
        if let Poll::Ready(io) = Pin::new(&mut this.on_upgrade).poll(cx) {
            return Poll::Ready(match io {
                Ok(io) => Ok(Upgraded::new(io, this.handover.take(), this.permit.take())),
                Err(error) => Err(UpgradeError(Cause::Gone(error))),
            });
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(this.timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(UpgradeError(Cause::Timeout)))
    }
}

/// The connection was not upgraded: the client left or does not read the response, or the final
/// response did not complete the handshake.
#[derive(Debug)]
pub struct UpgradeError(Cause);

#[derive(Debug)]
enum Cause {
    Gone(hyper::Error),
    Declined,
    Timeout,
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Cause::Gone(_) => "the connection was not upgraded: the client left",
            Cause::Declined => {
                "the connection was not upgraded: the handler accepted the upgrade, but the final \
                 response did not complete the handshake"
            }
            Cause::Timeout => {
                "the connection was not upgraded in time: the client does not read the response"
            }
        })
    }
}

impl Error for UpgradeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Gone(error) => Some(error),
            Cause::Declined | Cause::Timeout => None,
        }
    }
}
