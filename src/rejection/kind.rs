use http::StatusCode;

use super::challenge::BearerError;
use crate::http::Transport;

/// A header that a rejection must have beside those that follow from its status.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtraHeader {
    Nothing,
    /// `Sec-WebSocket-Version: 13` (RFC 6455 4.2.2 and 4.4).
    Version,
    /// `Retry-After`, in seconds (RFC 9110 10.2.3).
    RetryAfter,
    /// A challenge whose scheme is `Bearer`, with this error.
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}

impl ExtraHeader {
    pub(super) const fn bearer_error(self) -> Option<BearerError> {
        match self {
            Self::InvalidRequest => Some(BearerError::InvalidRequest),
            Self::InvalidToken => Some(BearerError::InvalidToken),
            Self::InsufficientScope => Some(BearerError::InsufficientScope),
            Self::Nothing | Self::Version | Self::RetryAfter => None,
        }
    }
}

pub(super) struct Row {
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    pub(super) extra: ExtraHeader,
    /// For the client: lower case, no full stop, nothing about the policy.
    pub(super) title: &'static str,
    /// For the operator.
    pub(super) fix: &'static str,
}

/// Makes the enum, the list of all kinds and the look-up from one table.
macro_rules! kinds {
    ($(
        $(#[$doc:meta])*
        $Kind:ident: $code:literal, $status:ident, $extra:ident, $title:literal, $fix:literal;
    )*) => {
        /// The reason for a rejection, with a stable [`code`](Self::code).
        ///
        /// The variants are in the order of the checks. The first reason that applies to a
        /// handshake is the response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RejectionKind {
            $(
                $(#[$doc])*
                ///
                #[doc = concat!("[Causes and fix](crate::guide::rejections#", $code, ").")]
                $Kind,
            )*
            /// A [`Check`](crate::Check) of your own rejected the handshake. See
            /// [`Rejection::custom`](crate::Rejection::custom).
            Custom {
                /// The stable, kebab-case name.
                code: &'static str,
                /// The status. A status that is neither 4xx nor 5xx is sent as 500.
                status: StatusCode,
            },
        }

        impl RejectionKind {
            /// Every kind but [`Custom`](Self::Custom), in the order of the checks.
            pub const ALL: &'static [Self] = &[$(Self::$Kind),*];

            pub(super) const fn row(self) -> Row {
                match self {
                    $(Self::$Kind => Row {
                        code: $code,
                        status: StatusCode::$status,
                        extra: ExtraHeader::$extra,
                        title: $title,
                        fix: $fix,
                    },)*
                    Self::Custom { code, status } => Row {
                        code,
                        status,
                        extra: ExtraHeader::Nothing,
                        title: "the handshake was rejected",
                        fix: "see the check, the verifier or the authorization that was added to the guard",
                    },
                }
            }
        }
    };
}

kinds! {
    /// The server is shutting down: see [`Drain`](crate::Drain).
    ShuttingDown: "shutting-down", SERVICE_UNAVAILABLE, RetryAfter,
        "the server is shutting down",
        "connect again later, after a random delay so that not all clients return at once; take \
         the server out of its load balancer before its drain starts";
    /// The method is not GET (over HTTP/2: not CONNECT). RFC 6455 4.2.1, RFC 8441 4.
    MethodNotAllowed: "method-not-allowed", METHOD_NOT_ALLOWED, Nothing,
        "a WebSocket handshake is a GET request, over HTTP/2 an extended CONNECT",
        "send the handshake with the right method (curl: `--http1.1`), and route it with `any` if \
         the server speaks HTTP/2; if a proxy changes the method, stop it";
    /// The request came over HTTP/1.0 or older. RFC 6455 4.2.1, RFC 9110 7.8.
    HttpVersion: "http-version", HTTP_VERSION_NOT_SUPPORTED, Nothing,
        "a WebSocket handshake needs HTTP/1.1 or newer",
        "make the proxy in front speak HTTP/1.1 to this server (nginx: `proxy_http_version 1.1`)";
    /// No `Upgrade` element is `websocket`; over HTTP/2, `:protocol` is not. RFC 6455 4.2.1, RFC
    /// 8441 4.
    UpgradeMissing: "upgrade-missing", UPGRADE_REQUIRED, Version,
        "the request does not ask for an upgrade to `websocket`",
        "send `Upgrade: websocket`; a proxy in front must pass it on (nginx: `proxy_set_header \
         Upgrade $http_upgrade`); over HTTP/2: send `:protocol` = `websocket`, and build the \
         server with the feature `http2`";
    /// No `Connection` element is `upgrade`. RFC 6455 4.2.1.
    ConnectionMissing: "connection-missing", BAD_REQUEST, Nothing,
        "`Connection` does not name `upgrade`",
        "send `Connection: Upgrade`; a proxy in front must pass it on (nginx, in a location for \
         WebSockets only: `proxy_set_header Connection upgrade`)";
    /// `Connection` names `close` beside `upgrade`. RFC 9112 9.6: the connection ends with this
    /// response, so there is nothing to upgrade.
    ConnectionClose: "connection-close", BAD_REQUEST, Nothing,
        "`Connection` names both `upgrade` and `close`",
        "send `Connection: Upgrade` without `close`; check what the proxy in front adds";
    /// `Host` is missing, repeated, malformed, or not the authority of the request target. RFC 9112
    /// 3.2.
    HostInvalid: "host-invalid", BAD_REQUEST, Nothing,
        "`Host` is missing, repeated, malformed or not the host of the request target",
        "send exactly one `Host: name[:port]`, with an IPv6 address in brackets; check what the \
         proxy in front sets";
    /// There is no `Sec-WebSocket-Key`. RFC 6455 4.2.1.
    KeyMissing: "key-missing", BAD_REQUEST, Nothing,
        "`Sec-WebSocket-Key` is missing",
        "send a fresh key: 16 random bytes in base64; a proxy in front must pass it on";
    /// There is more than one `Sec-WebSocket-Key`. RFC 6455 11.3.1.
    KeyRepeated: "key-repeated", BAD_REQUEST, Nothing,
        "`Sec-WebSocket-Key` is repeated",
        "send one key; look for a proxy that adds a second";
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes. RFC 6455 4.2.1.
    KeyInvalid: "key-invalid", BAD_REQUEST, Nothing,
        "`Sec-WebSocket-Key` is not the base64 of 16 bytes",
        "send 16 random bytes in the standard base64 alphabet with padding: 24 characters";
    /// There is no `Sec-WebSocket-Version`. RFC 6455 4.2.1.
    VersionMissing: "version-missing", BAD_REQUEST, Version,
        "`Sec-WebSocket-Version` is missing",
        "send `Sec-WebSocket-Version: 13`; a proxy in front must pass it on";
    /// `Sec-WebSocket-Version` is repeated or is not a number of 0 to 255. RFC 6455 11.3.5.
    VersionInvalid: "version-invalid", BAD_REQUEST, Version,
        "`Sec-WebSocket-Version` is not one number of 0 to 255",
        "send `Sec-WebSocket-Version: 13`, once";
    /// `Sec-WebSocket-Version` is not 13. RFC 6455 4.2.2.
    VersionUnsupported: "version-unsupported", UPGRADE_REQUIRED, Version,
        "the WebSocket version is not supported",
        "send `Sec-WebSocket-Version: 13`, the version of RFC 6455; the client uses an old draft";
    /// The request announces a body. Over HTTP/2 any `Content-Length` does, because it counts the
    /// frames behind it.
    BodyPresent: "body-present", BAD_REQUEST, Nothing,
        "a WebSocket handshake has no body",
        "send neither `Transfer-Encoding` nor a `Content-Length`; over HTTP/1.1 a single 0 is allowed, \
         and a gateway that translates to HTTP/2 must remove it";
    /// `Sec-WebSocket-Protocol` names a protocol twice, holds something that is neither a token nor
    /// a protocol of the server, or holds nothing but commas. RFC 6455 4.1.
    SubprotocolInvalid: "subprotocol-invalid", BAD_REQUEST, Nothing,
        "`Sec-WebSocket-Protocol` is not a list of distinct tokens",
        "offer each subprotocol once, at most 128; a name is a token: no spaces, slashes, quotes \
         or colons; a server accepts another name if `Subprotocols::list` of its guard has exactly \
         that one";
    /// `Sec-WebSocket-Extensions` breaks its grammar, and the layer
    /// [negotiates extensions](crate::GuardLayer::extensions), or the handler's response names one.
    /// RFC 6455 9.1.
    ExtensionInvalid: "extension-invalid", BAD_REQUEST, Nothing,
        "`Sec-WebSocket-Extensions` is malformed",
        "offer extensions as `name; parameter=value`, with commas between them and with closed \
         quotes; look for a proxy that changes the header";
    /// The host is not on the list of [`AllowHost`](crate::AllowHost).
    HostNotAllowed: "host-not-allowed", MISDIRECTED_REQUEST, Nothing,
        "this server does not serve that host",
        "add the host to `AllowHost::list`, with its port unless that is 80 or 443";
    /// There is more than one `Origin`.
    OriginRepeated: "origin-repeated", BAD_REQUEST, Nothing,
        "`Origin` is repeated",
        "send one `Origin`; look for a proxy that adds a second";
    /// `Origin` is neither `null` nor a serialized origin.
    OriginInvalid: "origin-invalid", FORBIDDEN, Nothing,
        "`Origin` is malformed",
        "send `null` or `scheme://host[:port]`, without path and trailing slash";
    /// There is no `Origin`, or an empty one, and [`AllowOrigin`](crate::AllowOrigin) does not
    /// allow that.
    OriginMissing: "origin-missing", FORBIDDEN, Nothing,
        "`Origin` is missing",
        "clients other than browsers: send `Origin`, or allow its absence with \
         `AllowOrigin::allow_missing` if they authenticate with a token and not with a cookie; \
         behind a proxy: make it pass `Origin` on";
    /// [`AllowOrigin`](crate::AllowOrigin) does not allow the origin.
    OriginNotAllowed: "origin-not-allowed", FORBIDDEN, Nothing,
        "the origin is not allowed",
        "add it with `AllowOrigin::list` (`null` with `AllowOrigin::allow_null`), or set \
         `AllowOrigin::public_origin` if a proxy in front changes `Host`; CORS settings have no \
         effect on WebSockets";
    /// The client offered subprotocols, and none of them is supported.
    SubprotocolUnsupported: "subprotocol-unsupported", BAD_REQUEST, Nothing,
        "none of the offered subprotocols is supported",
        "offer one of `Subprotocols::list`, or add one; a client that sends its token as a \
         subprotocol must offer another one beside it";
    /// No source holds a credential.
    TokenMissing: "token-missing", UNAUTHORIZED, Nothing,
        "a token is required",
        "send the token in one of the sources of `TokenPolicy`; scripts in browsers cannot set \
         `Authorization` on a WebSocket: use a cookie, a subprotocol or a ticket in the query";
    /// There are two different credentials in one source, or credentials in two sources.
    TokenAmbiguous: "token-ambiguous", BAD_REQUEST, InvalidRequest,
        "there is more than one token",
        "send exactly one token, in one source; behind a proxy that adds its own: \
         `TokenPolicy::first_source_wins`";
    /// The credential is malformed, unknown, expired or was used before.
    TokenInvalid: "token-invalid", UNAUTHORIZED, InvalidToken,
        "the token is not valid",
        "get a new token before each attempt to connect: this one is malformed, unknown, expired \
         or was used before";
    /// The credential is known, but not allowed here.
    TokenForbidden: "token-forbidden", FORBIDDEN, InsufficientScope,
        "the token does not allow this",
        "use a token with the rights that this endpoint requires";
    /// The token verifier, the authorization or the sessions failed.
    VerifierFailed: "verifier-failed", SERVICE_UNAVAILABLE, Nothing,
        "handshakes cannot be verified at the moment",
        "look at the source of this error: a service that the verifier, the authorization, the \
         revocations or the sessions depend on failed";
    /// The token verifier and the authorization took too long.
    VerifierTimeout: "verifier-timeout", SERVICE_UNAVAILABLE, Nothing,
        "the handshake could not be verified in time",
        "find out what the verifier or the authorization waits for, or give it more time with \
         `check_timeout`";
    /// The server has no slot for another connection: see
    /// [`ConnectionLimit::total`](crate::ConnectionLimit::total).
    OverCapacity: "over-capacity", SERVICE_UNAVAILABLE, RetryAfter,
        "the server has no slot for another connection",
        "connect again later, after a random delay; on the server: raise `ConnectionLimit::total`, \
         or look for connections that are never closed";
    /// The key has no slot for another connection: see
    /// [`Sessions`](crate::Sessions).
    TooManyConnections: "too-many-connections", TOO_MANY_REQUESTS, RetryAfter,
        "this client has too many connections",
        "close connections before opening others; on the server: raise the maximum of the \
         `Sessions`, or let them evict the oldest; behind a proxy every peer address is the \
         proxy's, so do not limit by it";
    /// The connection cannot be upgraded, or no layer on the route upgrades it.
    NotUpgradable: "not-upgradable", INTERNAL_SERVER_ERROR, Nothing,
        "the connection cannot be upgraded",
        "serve with upgrades (hyper: `serve_connection_with_upgrades`; over HTTP/2 with \
         `enable_connect_protocol`), and let no outer layer take `OnUpgrade`; a handler that takes \
         `PendingUpgrade` needs `GuardLayer::respond` or `ResponderLayer` on its route";
    /// A handler uses an extractor of this crate, and no origin check has seen the request, or no
    /// layer provides the [`Claims`](crate::Claims) or the [`Permit`](crate::Permit) that it
    /// extracts.
    GuardMissing: "guard-missing", INTERNAL_SERVER_ERROR, Nothing,
        "the endpoint is misconfigured",
        "put the guard on the route itself, `any(handler).layer(guard)`, or add the layer after \
         the routes: `Router::layer` and `Router::route_layer` cover only the routes that were \
         added before";
    /// The handler completed the handshake without taking the [`Permit`](crate::Permit) of the
    /// connection.
    PermitUnclaimed: "permit-unclaimed", INTERNAL_SERVER_ERROR, Nothing,
        "the connection cannot be accepted",
        "use `axum::GuardedUpgrade` in place of axum's `WebSocketUpgrade`, or take the permit with \
         `Permit::claim` and move it into the task of the connection";
    /// The handler completed the handshake, and its response names an extension that the client did
    /// not offer. Every browser would fail the connection. RFC 6455 9.1.
    ExtensionNotOffered: "extension-not-offered", INTERNAL_SERVER_ERROR, Nothing,
        "the connection cannot be accepted",
        "let the handler respond with an extension only if `Sec-WebSocket-Extensions` of its \
         request offers it, and with the parameters that RFC 7692 7.1 allows; or let the layer \
         negotiate, with `GuardLayer::extensions`";
    /// The request is not an upgrade request, and the layer requires one.
    NotWebsocket: "not-websocket", UPGRADE_REQUIRED, Version,
        "this endpoint accepts WebSocket handshakes only",
        "connect with a WebSocket client; behind a proxy: make it pass `Upgrade` and `Connection` \
         on";
}

impl RejectionKind {
    /// The stable, kebab-case name, such as `origin-not-allowed`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The status of the response over HTTP/1.1. HTTP/2 knows no upgrade: there 426 becomes 400.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self.row().status {
            status if is_error(status) => status,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the response may have a challenge.
    pub(crate) fn has_challenge(self) -> bool {
        self.status() == StatusCode::UNAUTHORIZED || self.row().extra.bearer_error().is_some()
    }

    /// The cause in plain words. It says nothing about the policy, so an untrusted client may see
    /// it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// The fix, for the operator.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.row().fix
    }

    /// The address of its [section](crate::guide::rejections) on the web, or `None` for a custom code.
    #[must_use]
    pub fn url(self) -> Option<String> {
        match self {
            Self::Custom { .. } => None,
            kind => Some(format!(
                "https://docs.rs/tower-ws-guard/latest/tower_ws_guard/guide/rejections/index.html#{}",
                kind.code()
            )),
        }
    }

    pub(super) fn status_over(self, transport: Transport) -> StatusCode {
        match (self.status(), transport) {
            (StatusCode::UPGRADE_REQUIRED, Transport::ExtendedConnect) => StatusCode::BAD_REQUEST,
            (status, _) => status,
        }
    }

    /// Whether the server is at fault, and not a client or the operator's intention.
    #[cfg(feature = "tracing")]
    pub(crate) fn is_fault_of_server(self) -> bool {
        self.status().is_server_error()
            && !matches!(
                self,
                Self::HttpVersion
                    | Self::OverCapacity
                    | Self::ShuttingDown
                    // Some libraries accept offers that they should decline.
                    | Self::ExtensionNotOffered
            )
    }
}

pub(super) fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
