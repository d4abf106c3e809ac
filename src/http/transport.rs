//! Classifies requests: what is an upgrade request, and over which transport it came.

use http::{
    Extensions, HeaderMap, Method, Request, StatusCode, Uri, Version,
    header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};

use super::field::contains_ignore_case;

/// The transport of a handshake. It decides which response completes the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 and RFC 8441; there is no third")]
pub enum Transport {
    /// A `GET` with `Upgrade: websocket` over HTTP/1.1, completed by 101 (RFC 6455).
    Http1,
    /// An extended `CONNECT` over HTTP/2 or HTTP/3, completed by 200 (RFC 8441, RFC 9220).
    ExtendedConnect,
}

impl Transport {
    pub(crate) fn new(version: Version) -> Self {
        if version >= Version::HTTP_2 { Self::ExtendedConnect } else { Self::Http1 }
    }

    /// Whether a client takes a response with this status for a completed handshake.
    pub(crate) fn is_completed_by(self, status: StatusCode) -> bool {
        match self {
            Self::Http1 => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::ExtendedConnect => status.is_success(),
        }
    }
}

/// Whether a request asks for a WebSocket or a WebTransport session, well-formed or not.
///
/// This is true if
///
/// - an `Upgrade` contains `websocket` in any case, even inside a longer word;
/// - there is a `Sec-WebSocket-Key` or a `Sec-WebSocket-Version`;
/// - the request is a `CONNECT` over HTTP/2 or newer whose `:protocol` contains `websocket` or
///   `webtransport` in any case, or cannot be read (see [`ConnectProtocol`]), for example without
///   the feature `http2`.
///
/// It is a superset of the requests that axum, hyper-tungstenite, tungstenite and fastwebsockets
/// would accept as a handshake.
#[must_use]
#[inline]
pub fn is_upgrade_request<B>(request: &Request<B>) -> bool {
    has_websocket_header(request.headers())
        || (request.method() == Method::CONNECT
            && has_guarded_protocol(request.version(), request.uri(), request.extensions()))
}

/// [`is_upgrade_request`] for a request without its body.
#[cfg(feature = "axum")]
pub(crate) fn is_upgrade_request_head(request: &http::request::Parts) -> bool {
    has_websocket_header(&request.headers)
        || (request.method == Method::CONNECT
            && has_guarded_protocol(request.version, &request.uri, &request.extensions))
}

fn has_guarded_protocol(version: Version, uri: &Uri, extensions: &Extensions) -> bool {
    !matches!(Protocol::new(version, uri, extensions), Protocol::Other)
}

fn has_websocket_header(headers: &HeaderMap) -> bool {
    let mut upgrade = false;
    // One pass over the names is cheaper than three look-ups in the map.
    for name in headers.keys() {
        match *name {
            SEC_WEBSOCKET_KEY | SEC_WEBSOCKET_VERSION => return true,
            UPGRADE => upgrade = true,
            _ => {}
        }
    }
    upgrade
        && headers
            .get_all(UPGRADE)
            .iter()
            .any(|value| contains_ignore_case(value.as_bytes(), b"websocket"))
}

/// The `:protocol` of a `CONNECT` (RFC 8441 4).
pub(crate) enum Protocol {
    WebSocket,
    /// A browser opens a session from any page, as it does a WebSocket.
    WebTransport,
    /// A lax handler may take it for one of them, or this build cannot read it.
    Unclear,
    /// Another protocol, or none: an ordinary `CONNECT`.
    Other,
}

impl Protocol {
    /// HTTP/1.1 has no `:protocol`. If an adapter has left its version on a request, the protocol
    /// counts all the same, and the parser rejects the request.
    pub(crate) fn new(version: Version, uri: &Uri, extensions: &Extensions) -> Self {
        let classify = |protocol: &str| match protocol {
            "websocket" => Self::WebSocket,
            "webtransport" | "webtransport-h3" => Self::WebTransport,
            _ if contains_ignore_case(protocol.as_bytes(), b"websocket")
                || contains_ignore_case(protocol.as_bytes(), b"webtransport") =>
            {
                Self::Unclear
            }
            _ => Self::Other,
        };
        #[cfg(feature = "http2")]
        if let Some(protocol) = extensions.get::<hyper::ext::Protocol>() {
            return classify(protocol.as_str());
        }
        match extensions.get() {
            Some(ConnectProtocol(protocol)) => classify(protocol),
            // Only an extended CONNECT has a path (RFC 8441 4).
            None if version >= Version::HTTP_2 && uri.path_and_query().is_some() => Self::Unclear,
            None => Self::Other,
        }
    }
}

/// The `:protocol` of a `CONNECT`, for transports that hyper does not know, such as HTTP/3 (RFC
/// 9220).
///
/// The adapter between such a transport and tower inserts it into the extensions of every request
/// that has a `:protocol`, as it was sent. hyper's own type for HTTP/2 is read with the feature
/// `http2`. An extended `CONNECT` with neither is rejected, because its protocol is unknown. The
/// adapter also sets the version of the request: a request of HTTP/1.1 with a protocol is rejected.
///
/// The type of the crate h3 is not read, because its versions are 0.0.x. A layer outside of the
/// guard translates it:
///
/// ```
/// # mod h3 {
/// #     pub mod ext {
/// #         #[derive(Clone, Copy)]
/// #         pub struct Protocol;
/// #         impl Protocol { pub fn as_str(&self) -> &str { "webtransport" } }
/// #     }
/// # }
/// use http::Request;
/// use tower_ws_guard::ConnectProtocol;
///
/// fn translate_protocol<B>(mut request: Request<B>) -> Request<B> {
///     if let Some(protocol) = request.extensions().get::<h3::ext::Protocol>() {
///         let protocol = ConnectProtocol::new(protocol.as_str());
///         request.extensions_mut().insert(protocol);
///     }
///     request
/// }
///
/// let layer = tower::util::MapRequestLayer::new(translate_protocol::<()>);
/// # let _ = layer;
/// ```
///
/// ```
/// use http::{Method, Request, Version};
/// use tower_ws_guard::{ConnectProtocol, Handshake};
///
/// let (mut parts, ()) = Request::builder()
///     .method(Method::CONNECT)
///     .version(Version::HTTP_3)
///     .uri("https://server.example.com/ws")
///     .header("sec-websocket-version", "13")
///     .body(())
///     .unwrap()
///     .into_parts();
/// assert!(Handshake::parse(&mut parts).is_err());
/// parts.extensions.insert(ConnectProtocol::new("websocket"));
/// assert!(Handshake::parse(&mut parts).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectProtocol(Box<str>);

impl ConnectProtocol {
    /// The value of `:protocol`, as it was sent.
    pub fn new(protocol: impl Into<Box<str>>) -> Self {
        Self(protocol.into())
    }
}
