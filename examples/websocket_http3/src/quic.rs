//! quinn as the QUIC of h3x.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use h3x::{Error, ErrorCode, Result, Role, Transport, TransportError};
use qrecovery::{recv::StopSending, send::CancelStream};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) struct Connection {
    quic: quinn::Connection,
    role: Role,
}

impl Connection {
    pub(crate) fn new(quic: quinn::Connection, role: Role) -> Self {
        Self { quic, role }
    }
}

pub(crate) struct Reader(RecvStream);

pub(crate) struct Writer(SendStream);

impl Transport for Connection {
    type StreamReader = Reader;
    type StreamWriter = Writer;

    fn role(&self) -> Role {
        self.role
    }

    async fn open_bi(&self) -> Result<Option<(u64, (Reader, Writer))>> {
        self.quic.open_bi().await.map(both).map(Some).map_err(ended)
    }

    async fn accept_bi(&self) -> Result<(u64, (Reader, Writer))> {
        self.quic.accept_bi().await.map(both).map_err(ended)
    }

    async fn open_uni(&self) -> Result<Option<(u64, Writer)>> {
        let stream = self.quic.open_uni().await.map_err(ended)?;
        Ok(Some((VarInt::from(stream.id()).into_inner(), Writer(stream))))
    }

    async fn accept_uni(&self) -> Result<(u64, Reader)> {
        let stream = self.quic.accept_uni().await.map_err(ended)?;
        Ok((VarInt::from(stream.id()).into_inner(), Reader(stream)))
    }

    fn close(&self, reason: String, code: u64) -> Result<()> {
        self.quic.close(var_int(code), reason.as_bytes());
        Ok(())
    }
}

fn both((send, receive): (SendStream, RecvStream)) -> (u64, (Reader, Writer)) {
    (VarInt::from(send.id()).into_inner(), (Reader(receive), Writer(send)))
}

fn ended(error: ConnectionError) -> Error {
    ErrorCode::NoError.connection(error.to_string())
}

fn var_int(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, buffer)
    }
}

impl StopSending for Reader {
    fn stop(&mut self, code: u64) {
        let _ = self.0.stop(var_int(code));
    }
}

impl TransportError for Reader {
    fn map_error(error: io::Error) -> Error {
        Error::from_stream_io(error)
    }
}

/// h3x expects `flush` and `shutdown` to wait for the peer's acknowledgement. quinn does not wait,
/// which only matters to a server that uses `H3Connection::goaway`.
impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.0), cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}

impl CancelStream for Writer {
    fn cancel(&mut self, code: u64) {
        let _ = self.0.reset(var_int(code));
    }
}

impl TransportError for Writer {
    fn map_error(error: io::Error) -> Error {
        Error::from_stream_io(error)
    }
}
