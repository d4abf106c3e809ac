//! Why a handshake was refused, and the response that says so.
//!
//! Every layer of this crate refuses with one type, [`Rejection`]. Its [`RejectionKind`] has a stable `code`, which is in
//! problem+json bodies and fit for logs and metrics. The response is made by one [`RespondRejection`], and whatever that
//! returns, the layers keep to the protocol: the status is 4xx or 5xx (but see [`AcceptThenClose`](crate::AcceptThenClose)), the headers that the protocol demands are there,
//! and `Sec-WebSocket-Accept` is not.
//!
//! The [`Rejection`] is put into the extensions of the response, so that a tracing or metrics layer outside sees it. Its
//! `Display` is for the operator and names cause and fix; the bodies made here are for strangers and name the cause alone.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{Rejection, VersionCheckLayer, respond_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(VersionCheckLayer::new().respond_with(respond_fn(|rejection, _, prepared| {
//!         prepared.map(|()| format!("refused: {}", rejection.kind().code()))
//!     })))
//!     .service(service_fn(async |_: Request<()>| {
//!         Ok::<_, std::convert::Infallible>(Response::new("accepted".to_owned()))
//!     }));
//!
//! let handshake = |version: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", version)
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("13")).await.unwrap();
//! assert_eq!(accepted.body(), "accepted");
//!
//! let refused = service.oneshot(handshake("8")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
//! assert_eq!(refused.headers()["sec-websocket-version"], "13");
//! assert_eq!(refused.body(), "refused: version-unsupported");
//! let rejection = refused.extensions().get::<Rejection>().unwrap();
//! assert!(rejection.to_string().contains("`8`"));
//! # }
//! ```

use std::{error::Error, fmt, sync::Arc};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION,
        UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};

use crate::handshake::Transport;

/// The reason for a refusal, with a stable [`code`](Self::code).
///
/// The variants stand in the order in which the reasons are looked for in a handshake: the first that applies is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The server is going down: see [`Drain`](crate::Drain).
    ShuttingDown,
    /// The method is not GET (over HTTP/2: not CONNECT). RFC 6455 4.2.1, RFC 8441 4.
    MethodNotAllowed,
    /// The request came over HTTP/1.0 or older. RFC 6455 4.2.1, RFC 9110 7.8.
    HttpVersion,
    /// No `Upgrade` element is `websocket`; over HTTP/2, `:protocol` is not. RFC 6455 4.2.1, RFC 8441 4.
    UpgradeMissing,
    /// No `Connection` element is `upgrade`. RFC 6455 4.2.1.
    ConnectionMissing,
    /// `Host` is missing, repeated, malformed, or not the authority of the request target. RFC 9112 3.2.
    HostInvalid,
    /// There is no `Sec-WebSocket-Key`. RFC 6455 4.2.1.
    KeyMissing,
    /// There is more than one `Sec-WebSocket-Key`. RFC 6455 11.3.1.
    KeyRepeated,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes. RFC 6455 4.2.1.
    KeyInvalid,
    /// There is no `Sec-WebSocket-Version`. RFC 6455 4.2.1.
    VersionMissing,
    /// `Sec-WebSocket-Version` is repeated or is not a number of 0 to 255. RFC 6455 11.3.5.
    VersionInvalid,
    /// `Sec-WebSocket-Version` is not 13. RFC 6455 4.2.2.
    VersionUnsupported,
    /// The request announces a body.
    BodyPresent,
    /// `Sec-WebSocket-Protocol` names no protocol, one twice, or something that is not a token. RFC 6455 4.1.
    SubprotocolInvalid,
    /// The host is not on the list of [`AllowHost`](crate::AllowHost).
    HostNotAllowed,
    /// There is more than one `Origin`.
    OriginRepeated,
    /// `Origin` is neither `null` nor a serialized origin.
    OriginInvalid,
    /// There is no `Origin`, and [`AllowOrigin`](crate::AllowOrigin) does not allow that.
    OriginMissing,
    /// [`AllowOrigin`](crate::AllowOrigin) does not allow the origin.
    OriginNotAllowed,
    /// A check of the caller's own refused, with a code and a status of the caller's. See [`Rejection::custom`].
    Custom {
        /// The stable, kebab-case name.
        code: &'static str,
        /// The status; what is neither 4xx nor 5xx is answered as 500.
        status: StatusCode,
    },
    /// Subprotocols were offered, and none of them is supported.
    SubprotocolUnsupported,
    /// No source holds a credential.
    TokenMissing,
    /// There is more than one credential.
    TokenAmbiguous,
    /// The credential is malformed, unknown, expired or was used before.
    TokenInvalid,
    /// The credential is known, but not allowed here.
    TokenForbidden,
    /// The token verifier failed.
    VerifierFailed,
    /// The token verifier took too long.
    VerifierTimeout,
    /// There is no place for another connection: see [`ConnectionLimit::total`](crate::ConnectionLimit::total).
    OverCapacity,
    /// There is no place for another connection of this client: see [`ConnectionLimit::per_key`](crate::ConnectionLimit::per_key).
    TooManyConnections,
    /// The connection cannot be upgraded.
    NotUpgradable,
    /// The inner service completed the handshake, or tried to, but nobody holds the [`Permit`](crate::Permit) of the connection.
    PermitUnclaimed,
    /// The request is no WebSocket handshake, and the layer was told to require one.
    NotWebsocket,
}

/// What a kind is called, is answered with, and says.
struct Entry {
    code: &'static str,
    status: StatusCode,
    /// For everybody: lower case, no full stop, nothing of the policy.
    cause: &'static str,
    /// For the operator.
    fix: &'static str,
}

impl RejectionKind {
    /// Every kind but [`Custom`](Self::Custom), in the order of the variants.
    pub const ALL: &'static [Self] = &[
        Self::ShuttingDown,
        Self::MethodNotAllowed,
        Self::HttpVersion,
        Self::UpgradeMissing,
        Self::ConnectionMissing,
        Self::HostInvalid,
        Self::KeyMissing,
        Self::KeyRepeated,
        Self::KeyInvalid,
        Self::VersionMissing,
        Self::VersionInvalid,
        Self::VersionUnsupported,
        Self::BodyPresent,
        Self::SubprotocolInvalid,
        Self::HostNotAllowed,
        Self::OriginRepeated,
        Self::OriginInvalid,
        Self::OriginMissing,
        Self::OriginNotAllowed,
        Self::SubprotocolUnsupported,
        Self::TokenMissing,
        Self::TokenAmbiguous,
        Self::TokenInvalid,
        Self::TokenForbidden,
        Self::VerifierFailed,
        Self::VerifierTimeout,
        Self::OverCapacity,
        Self::TooManyConnections,
        Self::NotUpgradable,
        Self::PermitUnclaimed,
        Self::NotWebsocket,
    ];

    #[rustfmt::skip]
    const fn entry(self) -> Entry {
        let (code, status, cause, fix) = match self {
            Self::ShuttingDown => ("shutting-down", StatusCode::SERVICE_UNAVAILABLE,
                "the server is going down",
                "connect again in a while, after a random delay so that not all clients come back at once; see that a load balancer \
                 takes the server out before its drain is started"),
            Self::MethodNotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED,
                "a WebSocket handshake is a GET request, over HTTP/2 an extended CONNECT",
                "send the handshake with the right method (curl: `--http1.1`), and route it with `any` where HTTP/2 is spoken; a proxy \
                 that changes it must be told not to"),
            Self::HttpVersion => ("http-version", StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "a WebSocket handshake needs HTTP/1.1 or newer",
                "make the proxy in front speak HTTP/1.1 to this server (nginx: `proxy_http_version 1.1`)"),
            Self::UpgradeMissing => ("upgrade-missing", StatusCode::UPGRADE_REQUIRED,
                "the request does not ask for an upgrade to `websocket`",
                "send `Upgrade: websocket`; a proxy in front must pass it on (nginx: `proxy_set_header Upgrade $http_upgrade`); over \
                 HTTP/2: send `:protocol` = `websocket`, and build the server with the feature `http2`"),
            Self::ConnectionMissing => ("connection-missing", StatusCode::BAD_REQUEST,
                "`Connection` does not name `upgrade`",
                "send `Connection: Upgrade`; a proxy in front must pass it on (nginx, in a location for sockets only: \
                 `proxy_set_header Connection upgrade`)"),
            Self::HostInvalid => ("host-invalid", StatusCode::BAD_REQUEST,
                "`Host` is missing, repeated, malformed or not the host of the request target",
                "send exactly one `Host: name[:port]`; check what the proxy in front sets"),
            Self::KeyMissing => ("key-missing", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Key` is missing",
                "send a fresh key: 16 random bytes in base64; a proxy in front must pass it on"),
            Self::KeyRepeated => ("key-repeated", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Key` is there more than once",
                "send one key; look for a proxy that adds a second"),
            Self::KeyInvalid => ("key-invalid", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Key` is not the base64 of 16 bytes",
                "send 16 random bytes in the standard base64 alphabet with padding: 24 characters"),
            Self::VersionMissing => ("version-missing", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Version` is missing",
                "send `Sec-WebSocket-Version: 13`; a proxy in front must pass it on"),
            Self::VersionInvalid => ("version-invalid", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Version` is not one number of 0 to 255",
                "send `Sec-WebSocket-Version: 13`, once"),
            Self::VersionUnsupported => ("version-unsupported", StatusCode::UPGRADE_REQUIRED,
                "the WebSocket version is not supported",
                "send `Sec-WebSocket-Version: 13`, the version of RFC 6455; the client uses an old draft"),
            Self::BodyPresent => ("body-present", StatusCode::BAD_REQUEST,
                "a WebSocket handshake has no body",
                "send neither `Transfer-Encoding` nor a `Content-Length` other than 0"),
            Self::SubprotocolInvalid => ("subprotocol-invalid", StatusCode::BAD_REQUEST,
                "`Sec-WebSocket-Protocol` is not a list of distinct tokens",
                "offer each subprotocol once, 128 at most; its name is a token: no spaces, slashes, quotes or colons"),
            Self::HostNotAllowed => ("host-not-allowed", StatusCode::MISDIRECTED_REQUEST,
                "this server does not answer for that host",
                "add the host to `AllowHost::list`, with its port if the client sends one"),
            Self::OriginRepeated => ("origin-repeated", StatusCode::BAD_REQUEST,
                "`Origin` is there more than once",
                "send one `Origin`; look for a proxy that adds a second"),
            Self::OriginInvalid => ("origin-invalid", StatusCode::FORBIDDEN,
                "`Origin` is malformed",
                "send `null` or `scheme://host[:port]` in lower case, without path, trailing slash or trailing dot"),
            Self::OriginMissing => ("origin-missing", StatusCode::FORBIDDEN,
                "`Origin` is missing",
                "clients other than browsers: send `Origin`, or allow its absence with `AllowOrigin::allow_missing` if they \
                 authenticate with a token and not with a cookie; behind a proxy: see that it passes `Origin` on"),
            Self::OriginNotAllowed => ("origin-not-allowed", StatusCode::FORBIDDEN,
                "the origin is not allowed",
                "add it with `AllowOrigin::list` (`null` with `AllowOrigin::allow_null`), or set `AllowOrigin::public_origin` if a \
                 proxy in front changes `Host`; CORS settings have no effect on WebSockets"),
            Self::Custom { code, status } => (code, status,
                "the handshake was refused",
                "see the check that was put into the guard"),
            Self::SubprotocolUnsupported => ("subprotocol-unsupported", StatusCode::BAD_REQUEST,
                "none of the offered subprotocols is supported",
                "offer one of `Subprotocols::list`, or add one; a client that sends its token as a subprotocol must offer \
                 another beside it"),
            Self::TokenMissing => ("token-missing", StatusCode::UNAUTHORIZED,
                "a token is required",
                "send the token in one of the sources of `TokenPolicy`; scripts in browsers cannot set `Authorization` on a \
                 WebSocket: use a cookie, a subprotocol or a ticket in the query"),
            Self::TokenAmbiguous => ("token-ambiguous", StatusCode::BAD_REQUEST,
                "there is more than one token",
                "send exactly one token, in one place"),
            Self::TokenInvalid => ("token-invalid", StatusCode::UNAUTHORIZED,
                "the token is not valid",
                "get a new token before each attempt to connect: this one is malformed, unknown, expired or was used before"),
            Self::TokenForbidden => ("token-forbidden", StatusCode::FORBIDDEN,
                "the token does not allow this",
                "use a token with the rights that this endpoint asks for"),
            Self::VerifierFailed => ("verifier-failed", StatusCode::SERVICE_UNAVAILABLE,
                "tokens cannot be verified at the moment",
                "look at the source of this error: what the verifier depends on did not answer"),
            Self::VerifierTimeout => ("verifier-timeout", StatusCode::SERVICE_UNAVAILABLE,
                "the token could not be verified in time",
                "look at what the verifier waits for, or give it more time with `check_timeout`"),
            Self::OverCapacity => ("over-capacity", StatusCode::SERVICE_UNAVAILABLE,
                "there is no place for another connection",
                "connect again in a while, after a random delay; on the server: raise `ConnectionLimit::total`, or look for connections \
                 that are never closed"),
            Self::TooManyConnections => ("too-many-connections", StatusCode::TOO_MANY_REQUESTS,
                "this client has too many connections",
                "close connections before others are opened; on the server: raise `ConnectionLimit::per_key`; behind a proxy the address \
                 of the peer is the proxy's, so do not limit by it"),
            Self::NotUpgradable => ("not-upgradable", StatusCode::INTERNAL_SERVER_ERROR,
                "the connection cannot be upgraded",
                "serve with upgrades (`axum::serve`, hyper-util's `serve_connection_with_upgrades`, hyper's `with_upgrades`) and \
                 let nothing outside the responder take `OnUpgrade`; a handler behind it accepts through `PendingUpgrade` and \
                 not by a response of its own"),
            Self::PermitUnclaimed => ("permit-unclaimed", StatusCode::INTERNAL_SERVER_ERROR,
                "the connection cannot be accepted",
                "the handler answered without taking the permit: use `extract::GuardedUpgrade` in place of axum's `WebSocketUpgrade`, or \
                 take it by `Permit::claim` and move it into the task of the connection"),
            Self::NotWebsocket => ("not-websocket", StatusCode::UPGRADE_REQUIRED,
                "this endpoint speaks WebSocket only",
                "connect with a WebSocket client; behind a proxy: see that it passes `Upgrade` and `Connection` on"),
        };
        Entry { code, status, cause, fix }
    }

    /// The stable, kebab-case name, such as `origin-not-allowed`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.entry().code
    }

    /// The status of the answer over HTTP/1.1. Over HTTP/2, which knows no upgrade, 426 becomes 400.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self.entry().status {
            status if status.is_client_error() || status.is_server_error() => status,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The cause in plain words. It says nothing of the policy and may be sent to a stranger.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        self.entry().cause
    }

    /// What to do about it, for the operator.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.entry().fix
    }

    /// Where its [section](crate::refusals) on the web is; `None` for a code of the caller's.
    #[must_use]
    pub fn url(self) -> Option<String> {
        match self {
            Self::Custom { .. } => None,
            kind => Some(format!(
                "https://docs.rs/tower-ws-guard/latest/tower_ws_guard/refusals/index.html#{}",
                kind.code()
            )),
        }
    }

    fn status_over(self, transport: Transport) -> StatusCode {
        match (self.status(), transport) {
            (StatusCode::UPGRADE_REQUIRED, Transport::ExtendedConnect) => StatusCode::BAD_REQUEST,
            (status, _) => status,
        }
    }
}

/// A refused handshake: its [`kind`](Self::kind) and what is known beyond it.
///
/// `Display` names the cause, the offending value (escaped and cut) and the fix: it is for logs, not for responses.
#[derive(Clone)]
pub struct Rejection {
    kind: RejectionKind,
    value: Option<HeaderValue>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Rejection {
    /// A refusal of the given kind.
    #[must_use]
    pub const fn new(kind: RejectionKind) -> Self {
        Self { kind, value: None, source: None }
    }

    /// A refusal by a check of the caller's own.
    ///
    /// `code` should be kebab-case and come from a small set: it becomes a label in logs and metrics. A `status` that is
    /// neither 4xx nor 5xx is answered as 500.
    #[must_use]
    pub const fn custom(code: &'static str, status: StatusCode) -> Self {
        Self::new(RejectionKind::Custom { code, status })
    }

    /// [`RejectionKind::VerifierFailed`] because of `error`: for `map_err` in a [`VerifyToken`](crate::VerifyToken).
    pub fn verifier_failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(RejectionKind::VerifierFailed).with_source(error)
    }

    /// Adds the error that led to the refusal. It is in [`Error::source`] and never in a response.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds the offending header value. Never one that holds a credential.
    pub(crate) fn with_value<'v>(mut self, value: impl Into<Option<&'v HeaderValue>>) -> Self {
        self.value = value.into().cloned();
        self
    }

    pub(crate) const fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Why the handshake was refused.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.kind
    }
}

impl From<RejectionKind> for Rejection {
    fn from(kind: RejectionKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { code, cause, fix, .. } = self.kind.entry();
        write!(f, "{code}: {cause}")?;
        if let Some(value) = &self.value {
            write!(f, ": `{}`", Shown(value.as_bytes()))?;
        }
        write!(f, "; {fix}")
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("kind", &self.kind)
            .field("value", &self.value.as_ref().map(|value| Shown(value.as_bytes()).to_string()))
            .field("source", &self.source)
            .finish()
    }
}

/// A hostile value, escaped and cut: enough to recognise it by, and too little to flood a log.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LENGTH: usize = 128;

        let (shown, rest) = self.0.split_at(self.0.len().min(LENGTH));
        let ellipsis = if rest.is_empty() { "" } else { "…" };
        write!(f, "{}{ellipsis}", shown.escape_ascii())
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Makes the response to a refused handshake.
///
/// Implemented by [`EmptyBody`] (the default), [`PlainText`], [`ProblemJson`], and by functions and closures, which are best wrapped
/// in [`respond_fn`].
///
/// `prepared` has the status and all headers that are needed; as a rule, add a body: `prepared.map(|()| body)`. What comes
/// back is corrected where it breaks the protocol: a status that is not 4xx or 5xx is replaced by the prepared one, the
/// prepared headers are restored (but a `Retry-After` of your own stays), and `Sec-WebSocket-Accept` is removed.
///
/// With [`AcceptThenClose`](crate::AcceptThenClose) a refusal may be a completed handshake: then `prepared` is a 101 (over HTTP/2 a 200) and
/// stays one, and the body must be empty.
///
/// `request` may still hold a credential, if it was refused before the token was verified: do not log its headers or its query.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot answer a refused handshake with a `Response<{B}>`",
    label = "cannot make a body of type `{B}`",
    note = "the inner service's body is `{B}`: `EmptyBody`, the default, needs `{B}: Default`; `PlainText` and `ProblemJson` need \
            `{B}: From<String>`",
    note = "for any other body: `.respond_with(respond_fn(|rejection, request, prepared| prepared.map(|()| /* a {B} */)))`"
)]
pub trait RespondRejection<B> {
    /// Makes the response to `request`, refused because of `rejection`.
    fn respond(&self, rejection: &Rejection, request: &Parts, prepared: Response<()>) -> Response<B>;
}

#[diagnostic::do_not_recommend]
impl<F, B> RespondRejection<B> for F
where
    F: Fn(&Rejection, &Parts, Response<()>) -> Response<B>,
{
    fn respond(&self, rejection: &Rejection, request: &Parts, prepared: Response<()>) -> Response<B> {
        self(rejection, request, prepared)
    }
}

/// A [`RespondRejection`] from a closure, which then needs no annotations.
pub fn respond_fn<F, B>(respond: F) -> F
where
    F: Fn(&Rejection, &Parts, Response<()>) -> Response<B>,
{
    respond
}

/// Answers with an empty body: `B::default()`. The default.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct EmptyBody;

#[diagnostic::do_not_recommend]
impl<B: Default> RespondRejection<B> for EmptyBody {
    fn respond(&self, _: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        prepared.map(|()| B::default())
    }
}

/// Answers with a line of text: the cause and the code.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct PlainText;

#[diagnostic::do_not_recommend]
impl<B: From<String>> RespondRejection<B> for PlainText {
    fn respond(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let kind = rejection.kind;
        let body = format!("{} ({})\n", kind.cause(), kind.code());
        with_body(prepared, "text/plain; charset=utf-8", body)
    }
}

/// Answers with an RFC 9457 problem: `type`, which is [`RejectionKind::url`], `title`, `status`, and the member `code`, which is
/// [`RejectionKind::code`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct ProblemJson;

#[diagnostic::do_not_recommend]
impl<B: From<String>> RespondRejection<B> for ProblemJson {
    fn respond(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let kind = rejection.kind;
        let body = format!(
            r#"{{"type":"{}","title":"{}","status":{},"code":"{}"}}"#,
            kind.url().as_deref().unwrap_or("about:blank"),
            kind.cause(),
            prepared.status().as_u16(),
            escape_json(kind.code()),
        );
        with_body(prepared, "application/problem+json", body)
    }
}

/// For a code of the caller's; those of this crate need none.
fn escape_json(code: &str) -> String {
    code.replace('\\', r"\\").replace('"', r#"\""#).replace(char::is_control, " ")
}

fn with_body<B: From<String>>(mut prepared: Response<()>, content_type: &'static str, body: String) -> Response<B> {
    // `AcceptThenClose`: a completed handshake has no body.
    if !(prepared.status().is_client_error() || prepared.status().is_server_error()) {
        return prepared.map(|()| B::from(String::new()));
    }
    let headers = prepared.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    prepared.map(|()| B::from(body))
}

/// Makes the response to a refused request, and holds the responder to the protocol.
///
/// `close` asks for the end of an HTTP/1.x connection, so that bytes sent behind a refused handshake are never read as
/// another request.
pub(crate) fn refuse<B>(
    rejection: Rejection,
    request: &Parts,
    responder: &impl RespondRejection<B>,
    close: bool,
) -> Response<B> {
    let transport = Transport::of(request.version);
    let status = rejection.kind.status_over(transport);
    let mandatory = mandatory_headers(rejection.kind, transport, close);

    let mut prepared = Response::new(());
    *prepared.status_mut() = status;
    for (name, value) in mandatory.iter().flatten() {
        prepared.headers_mut().insert(name, value.clone());
    }

    let mut response = responder.respond(&rejection, request, prepared);
    if !(response.status().is_client_error() || response.status().is_server_error()) {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    for (name, value) in mandatory.into_iter().flatten() {
        // There are few, and as a rule they are there.
        if headers.iter().any(|(there, other)| *there == name && other == value) {
            continue;
        }
        match name {
            // Several challenges may stand side by side (RFC 9110 11.6.1).
            WWW_AUTHENTICATE => drop(headers.append(name, value)),
            // When to come back is for the responder to say.
            RETRY_AFTER if headers.contains_key(RETRY_AFTER) => {}
            _ => drop(headers.insert(name, value)),
        }
    }
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    if transport == Transport::ExtendedConnect {
        headers.remove(UPGRADE);
        headers.remove(CONNECTION);
    }
    response.extensions_mut().insert(rejection);
    response
}

/// Refuses what the inner service has answered already. Its body stays; the request is gone, so no responder is asked.
pub(crate) fn refuse_late<B>(kind: RejectionKind, response: &mut Response<B>, transport: Transport, close: bool) {
    let (mut request, ()) = Request::new(()).into_parts();
    if transport == Transport::ExtendedConnect {
        request.version = Version::HTTP_2;
    }
    let (head, ()) = refuse(kind.into(), &request, &EmptyBody, close).into_parts();
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    *response.extensions_mut() = head.extensions;
}

type Header = (HeaderName, HeaderValue);

/// The headers that the protocol demands of a refusal.
fn mandatory_headers(kind: RejectionKind, transport: Transport, close: bool) -> [Option<Header>; 7] {
    use RejectionKind as Kind;

    const fn header(name: HeaderName, value: &'static str) -> Option<Header> {
        Some((name, HeaderValue::from_static(value)))
    }
    let http1 = transport == Transport::Http1;
    // RFC 9110 15.5.22: a 426 must send `Upgrade`, and 7.8: whoever sends that must send `Connection: upgrade`.
    let upgrade = http1 && kind.status() == StatusCode::UPGRADE_REQUIRED;
    [
        header(CACHE_CONTROL, "no-store"),
        match (http1, upgrade, close) {
            (true, true, true) => header(CONNECTION, "Upgrade, close"),
            (true, true, false) => header(CONNECTION, "Upgrade"),
            (true, false, true) => header(CONNECTION, "close"),
            _ => None,
        },
        if upgrade { header(UPGRADE, "websocket") } else { None },
        match kind {
            // RFC 6455 4.2.2 and 4.4.
            Kind::VersionMissing
            | Kind::VersionInvalid
            | Kind::VersionUnsupported
            | Kind::UpgradeMissing
            | Kind::NotWebsocket => header(SEC_WEBSOCKET_VERSION, "13"),
            _ => None,
        },
        // RFC 9110 15.5.6: a 405 must send `Allow`.
        match kind.status() {
            StatusCode::METHOD_NOT_ALLOWED if http1 => header(ALLOW, "GET"),
            StatusCode::METHOD_NOT_ALLOWED => header(ALLOW, "CONNECT"),
            _ => None,
        },
        match kind {
            Kind::ShuttingDown | Kind::OverCapacity | Kind::TooManyConnections => header(RETRY_AFTER, "5"),
            _ => None,
        },
        // RFC 9110 15.5.2: a 401 must send a challenge; RFC 6750 3: with a parameter, and `error` if there was a token.
        match (kind, kind.status()) {
            (Kind::TokenInvalid, _) => header(WWW_AUTHENTICATE, r#"Bearer realm="websocket", error="invalid_token""#),
            (_, StatusCode::UNAUTHORIZED) => header(WWW_AUTHENTICATE, r#"Bearer realm="websocket""#),
            _ => None,
        },
    ]
}
