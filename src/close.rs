use std::{fmt, num::NonZeroU16, sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header::SEC_WEBSOCKET_PROTOCOL, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    config::ConfigError,
    connection::Permit,
    rejection::{Rejection, RejectionKind, RespondRejection},
    responder::Answer,
    subprotocol::Chosen,
};

/// Tells a browser's script why it was refused: completes the handshake, and closes the socket with a code and a reason.
///
/// A script sees a refused handshake as close code 1006, whatever the status was. With this setting it sees, for instance, code
/// 4401 and the reason `token-missing`. This is for what a legitimate client can do something about:
///
/// | kind | status | close code by default |
/// |---|---|---|
/// | `token-missing`, `token-invalid` | 401 | 4401 |
/// | `token-forbidden` | 403 | 4403 |
/// | `too-many-connections` | 429 | 4429 |
/// | `verifier-failed`, `verifier-timeout`, `over-capacity` | 503 | 1013 |
///
/// It is done by the token check and the limit alone. Everything that is checked before them, as syntax and origin, is answered with a
/// status as ever, because a page of another site must learn nothing. So are `token-ambiguous` and `shutting-down`, and so is everybody
///
/// - while the [maximum](Self::max_sockets) of sockets is being closed, or where the connection cannot be upgraded;
/// - who offers subprotocols, if the guard was not told to [choose](crate::GuardLayer::subprotocols) one: what is offered may be a
///   token that was sent in a wrong way, and is not echoed;
/// - whose origin would have been refused, were it not on trial ([`dangerous_report_only`](crate::GuardLayer::dangerous_report_only)).
///
/// The [`RespondRejection`](crate::RespondRejection) prepares the answer here too: it is a 101 (over HTTP/2 a 200), to which headers
/// can be added. A closure must leave the body empty then.
///
/// # What the script does
///
/// It sees `open` before `close`: reset the delay between attempts when a message comes, not when the socket opens, and look at the code:
///
/// ```js
/// socket.onclose = ({ code, reason }) => (code === 4401 ? getNewToken() : reconnectLater());
/// ```
///
/// # Panics
///
/// The task that closes a socket does, on a Tokio runtime without timers.
///
/// # Example
///
/// ```
/// use http::StatusCode;
/// use tower_ws_guard::{AcceptThenClose, AllowOrigin, ConfigError, GuardLayer, StaticTokens, TokenPolicy};
///
/// # fn main() -> Result<(), ConfigError> {
/// let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?)
///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])))
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
    deadline: Duration,
    sockets: Arc<Semaphore>,
}

impl AcceptThenClose {
    /// Closes with the codes above and the rejection's [code](RejectionKind::code) as the reason.
    pub fn new() -> Self {
        Self {
            codes: [
                (StatusCode::UNAUTHORIZED, 4401),
                (StatusCode::FORBIDDEN, 4403),
                (StatusCode::TOO_MANY_REQUESTS, 4429),
                (StatusCode::SERVICE_UNAVAILABLE, 1013),
            ],
            reason: Arc::new(|rejection| rejection.kind().code().to_owned()),
            deadline: Duration::from_secs(5),
            sockets: Arc::new(Semaphore::new(64)),
        }
    }

    /// The close code for refusals that would be answered with `status`: 401, 403, 429 or 503.
    ///
    /// # Errors
    ///
    /// `status` is another one, or `code` is none that a server may send: 1000 to 1003, 1007 to 1009, 1011 to 1014,
    /// 3000 to 4999 (RFC 6455 7.4).
    pub fn close_code(mut self, status: StatusCode, code: u16) -> Result<Self, ConfigError> {
        if !matches!(code, 1000..=1003 | 1007..=1009 | 1011..=1014 | 3000..=4999) {
            return Err(ConfigError::new(
                &code.to_string(),
                "a server cannot send that close code; use one of your own, from 4000 to 4999",
            ));
        }
        match self.codes.iter_mut().find(|(known, _)| *known == status) {
            Some((_, known)) => *known = code,
            None => {
                return Err(ConfigError::new(
                    status.as_str(),
                    "only 401, 403, 429 and 503 are answered by a close frame",
                ));
            }
        }
        Ok(self)
    }

    /// What the close frame gives as the reason; cut to the 123 bytes that there is room for. It is sent to a stranger.
    pub fn reason(mut self, reason: impl Fn(&Rejection) -> String + Send + Sync + 'static) -> Self {
        self.reason = Arc::new(reason);
        self
    }

    /// How long the client may take to close the connection: 100 milliseconds to a minute, 5 seconds by default. Then it is dropped.
    ///
    /// # Errors
    ///
    /// It is shorter or longer.
    pub fn deadline(mut self, deadline: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&deadline) {
            return Err(ConfigError::new(
                "",
                "a client has 100 milliseconds to a minute to close; 5 seconds are plenty",
            ));
        }
        self.deadline = deadline;
        Ok(self)
    }

    /// How many sockets are being closed at once, 64 by default; for all clients together. Beyond it the answer is the status.
    pub fn max_sockets(mut self, sockets: NonZeroU16) -> Self {
        self.sockets = Arc::new(Semaphore::new(sockets.get().into()));
        self
    }

    /// `None` if the answer is to be the status.
    pub(crate) fn answer<B>(
        &self,
        rejection: &Rejection,
        request: &Parts,
        responder: &impl RespondRejection<B>,
    ) -> Option<Response<B>> {
        // An origin that is only reported is not to be told.
        if request.extensions.get::<Rejection>().is_some() {
            return None;
        }
        let frame = self.frame(rejection)?;
        let runtime = Handle::try_current().ok()?;
        let slot = Arc::clone(&self.sockets).try_acquire_owned().ok()?;
        let answer = Answer::to(request, subprotocol(request)?)?;
        let (permit, on_upgrade) = match Permit::claim_to_close(&request.extensions) {
            Some((permit, on_upgrade)) => (Some(permit), on_upgrade),
            None => (None, request.extensions.get::<OnUpgrade>()?.clone()),
        };

        let mut prepared = Response::new(());
        answer.write_head(&mut prepared);
        let mut response = responder.respond(rejection, request, prepared);
        answer.write_head(&mut response);
        response.extensions_mut().insert(rejection.clone());

        let deadline = self.deadline;
        runtime.spawn(async move {
            let _places = (slot, permit);
            // Whatever goes wrong, the socket is gone.
            let _ = timeout(deadline, close(on_upgrade, &frame)).await;
        });
        Some(response)
    }

    /// RFC 6455 5.5.1.
    fn frame(&self, rejection: &Rejection) -> Option<Vec<u8>> {
        use RejectionKind as Kind;

        let kind = rejection.kind();
        let is_told = matches!(
            kind,
            Kind::TokenMissing
                | Kind::TokenInvalid
                | Kind::TokenForbidden
                | Kind::VerifierFailed
                | Kind::VerifierTimeout
                | Kind::OverCapacity
                | Kind::TooManyConnections
        );
        if !is_told {
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

/// A browser fails a connection of whose offers none is named. Only what the server knows is: anything else may be a token that the
/// client sent in a wrong way.
fn subprotocol(request: &Parts) -> Option<Option<HeaderValue>> {
    let chosen = request.extensions.get().map(|Chosen(chosen)| chosen.clone());
    let offers = request.headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
    (chosen.is_some() || !offers).then_some(chosen)
}

/// What a client may send in all, before it is dropped.
const MAX_REST: u64 = 64 * 1024;

/// RFC 6455 7.1.1: the server ends the connection, when the client has sent its close frame.
async fn close(on_upgrade: OnUpgrade, frame: &[u8]) -> io::Result<()> {
    let mut socket = TokioIo::new(on_upgrade.await.map_err(io::Error::other)?);
    socket.write_all(frame).await?;
    socket.flush().await?;
    let mut rest = socket.take(MAX_REST);
    // A client that breaks the protocol is let go as well.
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
            .field("deadline", &self.deadline)
            .field("free_sockets", &self.sockets.available_permits())
            .finish_non_exhaustive()
    }
}
