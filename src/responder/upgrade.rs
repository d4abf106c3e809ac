use std::{
    error::Error,
    fmt,
    future::{Future, pending},
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    connection::Permit,
    observe::{Live, Scope},
    token::Validity,
};

/// A valid handshake that waits for a decision: in the extensions of the request, and, with feature `axum`, an extractor.
///
/// It can be accepted once, and only until the inner service has answered. Dropping it declines.
#[derive(Clone)]
pub struct PendingUpgrade {
    agreed: Agreed,
    decision: Arc<Mutex<Decision>>,
}

#[derive(Default)]
struct Decision {
    /// Taken by whoever accepts, or by the responder when it is too late.
    waiting: Option<Waiting>,
    /// Whether the answer completes the handshake, once there is one.
    completed: Option<bool>,
    /// Of who has accepted, and waits for the answer.
    accepted: Option<Waker>,
}

/// A connection that is there when the response has been sent.
#[derive(Debug)]
#[expect(unnameable_types, reason = "in the sealed trait `Mode`")]
pub struct Waiting {
    pub(super) on_upgrade: OnUpgrade,
    pub(super) permit: Option<Permit>,
    pub(super) timeout: Duration,
}

impl PendingUpgrade {
    pub(super) fn new(waiting: Waiting, agreed: Agreed) -> Self {
        let decision = Decision { waiting: Some(waiting), ..Decision::default() };
        Self { agreed, decision: Arc::new(Mutex::new(decision)) }
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
        let waiting = lock(&self.decision).waiting.take()?;
        Some(Upgrade { decision: Some(Arc::clone(&self.decision)), ..Upgrade::new(waiting, self.agreed.clone()) })
    }

    /// Accepts the handshake and spawns `callback` with the connection, once that is there.
    ///
    /// If the client has gone by then, or the handshake was accepted before, `callback` is not called.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime; and the task, in one without timers.
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
        lock(&self.decision).waiting.take().is_none()
    }

    /// Says whether the answer completes the handshake; once.
    pub(super) fn answer(&self, completed: bool) {
        let mut decision = lock(&self.decision);
        decision.completed.get_or_insert(completed);
        if let Some(waker) = decision.accepted.take() {
            waker.wake();
        }
    }
}

fn lock(decision: &Mutex<Decision>) -> MutexGuard<'_, Decision> {
    decision.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for PendingUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingUpgrade").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}

pin_project! {
    /// Resolves to the connection, once the response has been sent.
    ///
    /// A client that does not read it is waited for as long as
    /// [`ResponderLayer::upgrade_timeout`](super::ResponderLayer::upgrade_timeout) says, from the answer on.
    #[must_use = "the connection is closed if nobody takes it"]
    pub struct Upgrade {
        waiting: Waiting,
        agreed: Agreed,
        // `None` if it is answered already.
        decision: Option<Arc<Mutex<Decision>>>,
        #[pin]
        deadline: Option<Sleep>,
    }
}

impl Upgrade {
    pub(super) fn new(waiting: Waiting, agreed: Agreed) -> Self {
        Self { waiting, agreed, decision: None, deadline: None }
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

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

impl Future for Upgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // hyper hands a connection over whatever the answer was.
        if let Some(decision) = this.decision {
            let mut decision = lock(decision);
            match decision.completed {
                None => {
                    decision.accepted = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(false) => return Poll::Ready(Err(UpgradeError(Cause::Declined))),
                Some(true) => {}
            }
        }
        *this.decision = None;
        if let Poll::Ready(io) = Pin::new(&mut this.waiting.on_upgrade).poll(cx) {
            let io = TokioIo::new(io.map_err(|error| UpgradeError(Cause::Gone(error)))?);
            let (agreed, permit) = (std::mem::take(this.agreed), this.waiting.permit.take());
            return Poll::Ready(Ok(Upgraded { io, agreed, permit, live: Live::open() }));
        }
        if this.deadline.is_none() {
            this.deadline.set(Some(sleep(this.waiting.timeout)));
        }
        if let Some(deadline) = this.deadline.as_pin_mut() {
            ready!(deadline.poll(cx));
        }
        Poll::Ready(Err(UpgradeError(Cause::Late)))
    }
}

/// There will be no connection: the client is gone or does not read the answer, or the response was not sent as a 101 after all.
#[derive(Debug)]
pub struct UpgradeError(Cause);

#[derive(Debug)]
enum Cause {
    Gone(hyper::Error),
    Declined,
    Late,
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Cause::Gone(_) => {
                "the connection was not upgraded: the client is gone, or something outside replaced the answer"
            }
            Cause::Declined => "the connection was not upgraded: the handshake was accepted, but not answered so",
            Cause::Late => "the connection was not upgraded in time: the client does not read the answer",
        })
    }
}

impl Error for UpgradeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Gone(error) => Some(error),
            Cause::Declined | Cause::Late => None,
        }
    }
}

/// The connection after the handshake: a stream of bytes for a WebSocket codec, which must be in the server's role.
///
/// What the client sent right behind its request is not lost.
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
    agreed: Agreed,
    permit: Option<Permit>,
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

    /// Resolves when the server drains; without a [`Drain`](crate::Drain), never.
    ///
    /// Race it against the frames, and then close the socket, with code 1001 (RFC 6455 7.4.1). The future owns what it needs.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let draining = self.permit.as_ref().map(Permit::draining);
        async move {
            match draining {
                Some(draining) => draining.await,
                None => pending().await,
            }
        }
    }

    /// The place of the connection under a limit and in a drain, which it holds until it is dropped; `None` if there is neither.
    #[must_use]
    pub const fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// The span `websocket` of the connection, in which callbacks run; `None` if no subscriber is interested. Enter it in tasks that
    /// you spawn for it.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub const fn span(&self) -> Option<&tracing::Span> {
        self.agreed.scope.span.as_ref()
    }

    /// Gives back hyper's type, for codecs that ask for it, and the permit, which is to be kept as long. Take [`Validity::ended`] before;
    /// metrics take the connection for over.
    #[must_use]
    pub fn into_parts(self) -> (hyper::upgrade::Upgraded, Option<Permit>) {
        (self.io.into_inner(), self.permit)
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
