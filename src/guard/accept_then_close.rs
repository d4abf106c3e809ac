use std::{collections::VecDeque, fmt, num::NonZeroU16, sync::Arc, time::Duration};

use http::{Response, StatusCode, header::SEC_WEBSOCKET_PROTOCOL, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    task::AbortHandle,
};

use crate::{
    config::ConfigError,
    connection::Permit,
    context::GuardContext,
    http::transport::Protocol,
    lock::lock,
    rejection::{Rejection, RejectionKind, RejectionResponse},
    sync::Mutex,
    upgrade::{Handover, HandshakeResponse, PendingDecision},
};

/// Shows the reason of a rejection to a browser's script: completes the handshake, and closes the
/// socket with a code and a reason.
///
/// A script sees a rejected handshake as close code 1006, whatever the status was. With this
/// setting it sees, for example, code 4401 and the reason `token-missing`. That helps for
/// rejections that a legitimate client can react to:
///
/// | kind | status | default close code |
/// |---|---|---|
/// | `token-missing`, `token-invalid` | 401 | 4401 |
/// | `token-forbidden` | 403 | 4403 |
/// | `too-many-connections` | 429 | 4429 |
/// | `verifier-failed`, `verifier-timeout`, `over-capacity` | 503 | 1013 |
///
/// Only rejections by the token check and the limit are closed like this. Rejections by earlier
/// steps, such as syntax and origin, get the plain response, because a foreign page must learn
/// nothing. So do `token-ambiguous` and `shutting-down`, and these handshakes:
///
/// - the connection cannot be upgraded;
/// - the client offers subprotocols, and the layer does not
///   [select](crate::GuardLayer::subprotocols) one: an offer may be a misplaced token, so it is not
///   echoed;
/// - [report-only mode](crate::GuardLayer::dangerous_report_only) reported a rejection of the
///   handshake.
///
/// At most [`max_sockets`](Self::max_sockets) sockets are closed at once. Beyond it the oldest of
/// them is dropped, so no client can turn the feature off for others.
///
/// The [`RejectionResponse`] makes the response here, too: `prepared` is a 101 (over HTTP/2 a 200),
/// to which it can add headers. A closure must leave the body empty then.
///
/// # In the script
///
/// The script sees `open` before `close`. Reset the reconnect delay when a message arrives, not
/// when the socket opens, and look at the code:
///
/// ```js
/// socket.onclose = ({ code, reason }) => (code === 4401 ? getNewToken() : reconnectLater());
/// ```
///
/// # Panics
///
/// The task that closes a socket panics on a Tokio runtime without timers.
///
/// # Example
///
/// ```
/// use http::StatusCode;
/// use tower_ws_guard::{
///     AcceptThenClose, AllowOrigin, ConfigError, GuardLayer, StaticTokens, TokenPolicy,
/// };
///
/// # fn main() -> Result<(), ConfigError> {
/// let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?)
///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?))?
///     .accept_then_close(AcceptThenClose::new().close_code(StatusCode::UNAUTHORIZED, 4001)?);
/// assert!(AcceptThenClose::new().close_code(StatusCode::UNAUTHORIZED, 1006).is_err());
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct AcceptThenClose {
    codes: [(StatusCode, u16); 4],
    reason: Arc<dyn Fn(&Rejection) -> String + Send + Sync>,
    timeout: Duration,
    max_sockets: usize,
    /// The tasks that close sockets, the oldest first.
    closing: Arc<Mutex<VecDeque<AbortHandle>>>,
}

impl AcceptThenClose {
    /// Closes with the codes above, and the [code](RejectionKind::code) of the rejection as the
    /// reason.
    pub fn new() -> Self {
        Self {
            codes: [
                (StatusCode::UNAUTHORIZED, 4401),
                (StatusCode::FORBIDDEN, 4403),
                (StatusCode::TOO_MANY_REQUESTS, 4429),
                (StatusCode::SERVICE_UNAVAILABLE, 1013),
            ],
            reason: Arc::new(|rejection| rejection.kind().code().to_owned()),
            timeout: Duration::from_secs(5),
            max_sockets: 64,
            closing: Arc::default(),
        }
    }

    /// Sets the close code for the rejections with `status`: 401, 403, 429 or 503. A later call
    /// with the same status replaces an earlier one.
    ///
    /// # Errors
    ///
    /// `status` is another one, or a server may not send `code`. It may send 1000 to 1003, 1007 to
    /// 1009, 1011 to 1014, and 3000 to 4999 (RFC 6455 7.4).
    pub fn close_code(mut self, status: StatusCode, code: u16) -> Result<Self, ConfigError> {
        if !matches!(code, 1000..=1003 | 1007..=1009 | 1011..=1014 | 3000..=4999) {
            return Err(ConfigError::new(
                &code.to_string(),
                "a server cannot send that close code; use one from 4000 to 4999",
            ));
        }
        match self.codes.iter_mut().find(|(known, _)| *known == status) {
            Some((_, known)) => *known = code,
            None => {
                return Err(ConfigError::new(
                    status.as_str(),
                    "only 401, 403, 429 and 503 have a close code",
                ));
            }
        }
        Ok(self)
    }

    /// Sets the reason of the close frame, which is cut to 123 bytes. An untrusted client sees it.
    /// A later call replaces an earlier one.
    pub fn reason(mut self, reason: impl Fn(&Rejection) -> String + Send + Sync + 'static) -> Self {
        self.reason = Arc::new(reason);
        self
    }

    /// Sets the time that the client has to close the connection before it is dropped: 100
    /// milliseconds to a minute, 5 seconds by default. A later call replaces an earlier one.
    ///
    /// # Errors
    ///
    /// The time is shorter or longer.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&timeout) {
            return Err(ConfigError::new(
                "",
                "the timeout of a close is 100 milliseconds to a minute; 5 seconds are plenty",
            ));
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// Sets the maximum number of sockets that are closed at once, for all clients together: 64 by
    /// default. Beyond it the oldest one is dropped. A later call replaces an earlier one.
    pub fn max_sockets(mut self, sockets: NonZeroU16) -> Self {
        self.max_sockets = sockets.get().into();
        self
    }

    /// The response that completes the handshake. `None` if the rejection gets the plain response.
    pub(super) fn response<B>(
        &self,
        rejection: &Rejection,
        request: &Parts,
        head: &HandshakeResponse,
        reject_with: &impl RejectionResponse<B>,
    ) -> Option<Response<B>> {
        let frame = self.frame(rejection)?;
        // A browser fails a connection if it made offers and the response selects none. Any offer
        // but one that the server knows may be a misplaced token.
        if head.subprotocol.is_none() && request.headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            return None;
        }
        // A client of WebTransport expects no frames of a WebSocket.
        let protocol = Protocol::new(request.version, &request.uri, &request.extensions);
        if let Protocol::WebTransport = protocol {
            return None;
        }
        let runtime = Handle::try_current().ok()?;
        let connection = Connection::take(request)?;

        let mut prepared = Response::new(());
        head.write_head(&mut prepared);
        let mut response = reject_with.response(rejection, request, prepared);
        head.write_head(&mut response);
        response.extensions_mut().insert(rejection.clone());
        if let Some(decision) = connection.decision {
            decision.pass_on(&mut response);
        }

        let (handover, on_upgrade, permit) =
            (connection.handover, connection.on_upgrade, connection.permit);
        let timeout = self.timeout;
        let task = runtime.spawn(async move {
            let _permit = permit;
            let closed = async {
                if handover.completed().await {
                    close(on_upgrade, &frame).await?;
                }
                io::Result::Ok(())
            };
            // The socket is dropped in any case.
            let _ = tokio::time::timeout(timeout, closed).await;
        });
        self.add(task.abort_handle());
        Some(response)
    }

    /// Drops the oldest sockets beyond the maximum.
    fn add(&self, task: AbortHandle) {
        let mut closing = lock(&self.closing);
        closing.retain(|task| !task.is_finished());
        closing.push_back(task);
        while closing.len() > self.max_sockets {
            if let Some(oldest) = closing.pop_front() {
                oldest.abort();
            }
        }
    }

    /// RFC 6455 5.5.1.
    fn frame(&self, rejection: &Rejection) -> Option<Vec<u8>> {
        use RejectionKind as Kind;

        let kind = rejection.kind();
        let is_shown = matches!(
            kind,
            Kind::TokenMissing
                | Kind::TokenInvalid
                | Kind::TokenForbidden
                | Kind::VerifierFailed
                | Kind::VerifierTimeout
                | Kind::OverCapacity
                | Kind::TooManyConnections
        );
        if !is_shown {
            return None;
        }
        let (_, code) = self.codes.iter().find(|(status, _)| *status == kind.status())?;
        let reason = (self.reason)(rejection);
        let mut length = reason.len().min(123);
        while !reason.is_char_boundary(length) {
            length -= 1;
        }
        let head = [0x88, 2 + length as u8];
        Some([&head, &code.to_be_bytes()[..], &reason.as_bytes()[..length]].concat())
    }
}

impl Default for AcceptThenClose {
    fn default() -> Self {
        Self::new()
    }
}

/// The connection of a rejected handshake.
struct Connection {
    handover: Handover,
    /// `None` if an outer layer decides.
    decision: Option<PendingDecision>,
    on_upgrade: OnUpgrade,
    /// The permit of an outer layer, held until the socket is closed.
    permit: Option<Permit>,
}

impl Connection {
    fn take(request: &Parts) -> Option<Self> {
        let context = request.extensions.get::<GuardContext>();
        let on_upgrade = request.extensions.get::<OnUpgrade>().cloned();
        if let Some(handover) = context.and_then(|context| context.handover.clone()) {
            let (withheld, permit) = handover.take()?;
            let on_upgrade = withheld.or(on_upgrade)?;
            return Some(Self { handover, decision: None, on_upgrade, permit });
        }
        let handover = Handover::taken();
        let decision = Some(PendingDecision::new(handover.clone()));
        Some(Self { handover, decision, on_upgrade: on_upgrade?, permit: None })
    }
}

/// The maximum number of bytes that a client may send before it is dropped.
const MAX_REST: u64 = 64 * 1024;

/// RFC 6455 7.1.1: the server closes the connection after the client has sent its close frame.
async fn close(on_upgrade: OnUpgrade, frame: &[u8]) -> io::Result<()> {
    let mut socket = TokioIo::new(on_upgrade.await.map_err(io::Error::other)?);
    socket.write_all(frame).await?;
    socket.flush().await?;
    let mut rest = socket.take(MAX_REST);
    // A client that breaks the protocol is disconnected, too.
    let _ = skip_to_close(&mut rest).await;
    rest.get_mut().shutdown().await?;
    io::copy(&mut rest, &mut io::sink()).await?;
    Ok(())
}

/// Skips the frames of a client up to its close frame (RFC 6455 5.2).
async fn skip_to_close(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    loop {
        let (first, second) = (socket.read_u8().await?, socket.read_u8().await?);
        let length = match second & 0x7f {
            126 => socket.read_u16().await?.into(),
            127 => socket.read_u64().await?,
            length => length.into(),
        };
        let is_masked = second & 0x80 != 0;
        if !is_masked || length > MAX_REST {
            return Ok(());
        }
        io::copy(&mut socket.take(length + 4), &mut io::sink()).await?;
        if first & 0x0f == 8 {
            return Ok(());
        }
    }
}

impl fmt::Debug for AcceptThenClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptThenClose")
            .field("codes", &self.codes)
            .field("timeout", &self.timeout)
            .field("max_sockets", &self.max_sockets)
            .finish_non_exhaustive()
    }
}
