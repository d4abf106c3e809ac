use std::{
    error::Error,
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    observe::{Live, Scope},
    token::Validity,
};

/// A valid handshake that waits for a decision: in the extensions of the request, and, with feature `axum`, an extractor.
///
/// It can be accepted once, and only until the inner service has answered. Dropping it declines.
#[derive(Clone)]
pub struct PendingUpgrade {
    agreed: Agreed,
    /// Taken by whoever accepts, or by the responder when it is too late.
    on_upgrade: Arc<Mutex<Option<OnUpgrade>>>,
}

impl PendingUpgrade {
    pub(super) fn new(on_upgrade: OnUpgrade, agreed: Agreed) -> Self {
        Self { agreed, on_upgrade: Arc::new(Mutex::new(Some(on_upgrade))) }
    }

    /// The subprotocol that the answer will name.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.agreed.subprotocol()
    }

    /// Accepts the handshake: the inner service's response will be sent as a 101 (HTTP/2: 200).
    ///
    /// Await the result in a task of its own, because the connection is there only when the response has been sent. `None`
    /// if the handshake was accepted before, or if it is too late.
    #[must_use]
    pub fn accept(&self) -> Option<Upgrade> {
        let on_upgrade = self.lock().take()?;
        Some(Upgrade::new(on_upgrade, self.agreed.clone()))
    }

    /// Accepts the handshake and spawns `callback` with the connection, once that is there.
    ///
    /// If the client has gone by then, or the handshake was accepted before, `callback` is not called.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn on_upgrade<F, Fut>(&self, callback: F)
    where
        F: FnOnce(Upgraded) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        if let Some(upgrade) = self.accept() {
            upgrade.spawn(callback);
        }
    }

    /// Whether it was accepted; it cannot be any more.
    pub(super) fn close(&self) -> bool {
        self.lock().take().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<OnUpgrade>> {
        self.on_upgrade.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PendingUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingUpgrade").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}

/// Resolves to the connection, once the response has been sent.
#[derive(Debug)]
#[must_use = "the connection is closed if nobody takes it"]
pub struct Upgrade {
    on_upgrade: OnUpgrade,
    agreed: Agreed,
}

impl Upgrade {
    pub(super) fn new(on_upgrade: OnUpgrade, agreed: Agreed) -> Self {
        Self { on_upgrade, agreed }
    }

    pub(super) fn spawn<F, Fut>(self, callback: F)
    where
        F: FnOnce(Upgraded) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let scope = self.agreed.scope.clone();
        scope.spawn(async move {
            if let Ok(upgraded) = self.await {
                callback(upgraded).await;
            }
        });
    }
}

impl Future for Upgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let io = ready!(Pin::new(&mut self.on_upgrade).poll(cx)).map_err(UpgradeError)?;
        Poll::Ready(Ok(Upgraded { io: TokioIo::new(io), agreed: std::mem::take(&mut self.agreed), live: Live::open() }))
    }
}

/// There will be no connection: the client is gone, or the response was not sent as a 101 after all.
#[derive(Debug)]
pub struct UpgradeError(hyper::Error);

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was not upgraded: the client is gone, or something outside replaced the answer")
    }
}

impl Error for UpgradeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// The connection after the handshake: a stream of bytes for a WebSocket codec, which must be in the server's role.
///
/// What the client sent right behind its request is not lost.
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
    agreed: Agreed,
    #[expect(dead_code, reason = "it is counted as long as it is there")]
    live: Live,
}

impl Upgraded {
    /// The subprotocol that the answer named.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.agreed.subprotocol()
    }

    /// How long the claims behind the connection hold; without a token check: for good. Nothing ends the connection by itself:
    /// race [`Validity::ended`] against the frames.
    #[must_use]
    pub const fn validity(&self) -> &Validity {
        &self.agreed.validity
    }

    /// The span `websocket` of the connection, in which callbacks run; `None` if no subscriber is interested. Enter it in tasks that
    /// you spawn for it.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub const fn span(&self) -> Option<&tracing::Span> {
        self.agreed.scope.span.as_ref()
    }

    /// Gives back hyper's type, for codecs that ask for it. Take [`Validity::ended`] before; metrics take the connection for over.
    #[must_use]
    pub fn into_inner(self) -> hyper::upgrade::Upgraded {
        self.io.into_inner()
    }
}

/// What the handshake has settled for the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed {
    pub(super) subprotocol: Option<HeaderValue>,
    pub(super) validity: Validity,
    pub(super) scope: Scope,
}

impl Agreed {
    fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_ref().and_then(|subprotocol| subprotocol.to_str().ok())
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
