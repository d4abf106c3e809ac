use std::{
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{Handover, Upgraded};
use crate::{
    connection::Permit,
    extension::AgreedExtensions,
    telemetry::{ConnectionSpan, OpenConnection},
    token::Validity,
};

/// A valid handshake that waits for the handler's decision.
///
/// It is in the extensions of the request, and with the feature `axum` it is an extractor. It can
/// be accepted once, and only until the inner service has responded. Dropping it declines the
/// handshake.
#[derive(Clone)]
pub struct PendingUpgrade {
    handover: Handover,
    info: ConnectionInfo,
    upgrade_timeout: Duration,
    /// An origin check has accepted the request.
    is_origin_checked: bool,
}

/// The result of the handshake for the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionInfo {
    pub(crate) subprotocol: Option<HeaderValue>,
    pub(crate) extensions: AgreedExtensions,
    pub(crate) validity: Validity,
    pub(crate) span: ConnectionSpan,
}

impl ConnectionInfo {
    pub(super) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_ref().and_then(|subprotocol| subprotocol.to_str().ok())
    }
}

impl PendingUpgrade {
    pub(crate) fn new(
        handover: Handover,
        info: ConnectionInfo,
        upgrade_timeout: Duration,
        is_origin_checked: bool,
    ) -> Self {
        Self { handover, info, upgrade_timeout, is_origin_checked }
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
        self.info.subprotocol()
    }

    /// The extensions that the response will name. See [`extension`](crate::extension).
    #[must_use]
    pub const fn extensions(&self) -> AgreedExtensions {
        self.info.extensions
    }

    /// Accepts the handshake: the inner service's response is sent as a 101 (over HTTP/2: 200).
    ///
    /// Await the result in a task of its own, because the connection exists only after the response
    /// has been sent. `None` if the handshake was accepted before, or if it is too late.
    #[must_use]
    pub fn accept(&self) -> Option<Upgrade> {
        let (on_upgrade, permit) = self.handover.take()?;
        let (handover, info) = (Some(self.handover.clone()), self.info.clone());
        Some(Upgrade::new(on_upgrade?, permit, handover, info, self.upgrade_timeout))
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
        Fut: Future<Output = ()> + Send,
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

pin_project! {
    /// Resolves to the connection after the response has been sent.
    ///
    /// A client has the [`upgrade_timeout`](crate::GuardLayer::upgrade_timeout) to read the
    /// response, 10 seconds by default.
    #[must_use = "the connection is closed if nobody takes it"]
    pub struct Upgrade {
        on_upgrade: OnUpgrade,
        permit: Option<Permit>,
        // `None` if the response is known to complete the handshake.
        handover: Option<Handover>,
        info: ConnectionInfo,
        timeout: Duration,
        #[pin]
        deadline: Option<Sleep>,
    }
}

impl Upgrade {
    /// Without a `handover` the response is known to complete the handshake.
    pub(crate) fn new(
        on_upgrade: OnUpgrade,
        permit: Option<Permit>,
        handover: Option<Handover>,
        info: ConnectionInfo,
        timeout: Duration,
    ) -> Self {
        Self { on_upgrade, permit, handover, info, timeout, deadline: None }
    }

    pub(crate) fn spawn<F, Fut>(self, callback: F)
    where
        F: FnOnce(Upgraded) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let span = self.info.span.clone();
        span.spawn(async move {
            if let Ok(upgraded) = self.await {
                callback(upgraded).await;
            }
        });
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("subprotocol", &self.info.subprotocol())
            .finish_non_exhaustive()
    }
}

impl Future for Upgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // hyper hands over a connection behind any response, so the response decides first.
        if let Some(handover) = &this.handover {
            if !ready!(handover.poll_completed(cx)) {
                return Poll::Ready(Err(UpgradeError(Cause::Declined)));
            }
            *this.handover = None;
        }
        if let Poll::Ready(io) = Pin::new(this.on_upgrade).poll(cx) {
            return Poll::Ready(match io {
                Ok(io) => Ok(Upgraded {
                    io: TokioIo::new(io),
                    info: mem::take(this.info),
                    permit: this.permit.take(),
                    connection: OpenConnection::start(),
                }),
                Err(error) => Err(UpgradeError(Cause::Gone(error))),
            });
        }
        if this.deadline.is_none() {
            this.deadline.set(Some(sleep(*this.timeout)));
        }
        if let Some(deadline) = this.deadline.as_pin_mut() {
            ready!(deadline.poll(cx));
        }
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
