use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ConnectionInfo, Handover, info::NOTHING};
use crate::{
    connection::{Ended, FirstOf, Permit, Validity},
    extension::AgreedExtensions,
    telemetry::OpenConnection,
};

/// The connection after the handshake: a byte stream for a WebSocket codec in the role of the
/// server.
///
/// Bytes that the client sent right behind its request are not lost.
pub struct Upgraded(Box<Connection>);

/// Boxed, because codecs and futures move it, and have room for it at each of its places.
struct Connection {
    io: TokioIo<hyper::upgrade::Upgraded>,
    /// `None` if nothing was negotiated.
    handover: Option<Handover>,
    permit: Option<Permit>,
    #[expect(dead_code, reason = "it counts the connection until it is dropped")]
    count: OpenConnection,
}

impl Upgraded {
    pub(super) fn new(
        io: hyper::upgrade::Upgraded,
        handover: Option<Handover>,
        permit: Option<Permit>,
    ) -> Self {
        let handover = handover.filter(|handover| !handover.info().is_nothing());
        let (io, count) = (TokioIo::new(io), OpenConnection::start());
        Self(Box::new(Connection { io, handover, permit, count }))
    }

    fn info(&self) -> &ConnectionInfo {
        self.0.handover.as_ref().map_or(&NOTHING, Handover::info)
    }

    /// The selected subprotocol, which the response named.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.info().subprotocol()
    }

    /// The extensions that the response named, for the codec. See [`extension`](crate::extension).
    #[must_use]
    pub fn extensions(&self) -> AgreedExtensions {
        self.info().extensions
    }

    /// The validity of the claims. Without a token check they are valid forever. The crate does
    /// not close the connection when they expire: race [`ended`](Self::ended) against the frames.
    #[must_use]
    pub fn validity(&self) -> &Validity {
        &self.info().validity
    }

    /// Resolves when the connection must end, to the reason: see [`Permit::ended`].
    ///
    /// The future does not borrow the connection.
    ///
    /// # Panics
    ///
    /// If the claims expire, or the connection has a maximum age, the future panics when polled
    /// outside of a Tokio runtime with timers.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let mut ends = FirstOf::new();
        if let Some(permit) = self.permit() {
            permit.add_ends(&mut ends);
        }
        self.validity().add_ends(&mut ends);
        ends
    }

    /// The permit of the connection, which is held until the connection is dropped. `None` if no
    /// layer has a limit, sessions, a drain or a maximum age.
    #[must_use]
    pub fn permit(&self) -> Option<&Permit> {
        self.0.permit.as_ref()
    }

    /// The span `websocket` of the connection. Callbacks run in it. Enter it in tasks that you
    /// spawn for the connection. `None` if no subscriber is interested.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn span(&self) -> Option<&tracing::Span> {
        self.info().span.get()
    }

    /// Converts into hyper's type, for codecs that need it, and the permit. Hold the permit for as
    /// long as the connection is open. Metrics count the connection as closed.
    pub fn into_parts(self) -> (hyper::upgrade::Upgraded, Permit) {
        let validity = self.validity().clone();
        let Connection { io, permit, .. } = *self.0;
        let permit = match permit {
            Some(permit) => permit.valid_while(validity),
            None => Permit::without_limit(validity),
        };
        (io.into_inner(), permit)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.io).poll_shutdown(cx)
    }
}
