//! Tests of WebSocket services without a socket.
//!
//! [`handshake`] builds the request of a client. Only hyper's own connections can be upgraded: with
//! a request that a test builds, a service finds no upgrade. [`HandshakeRequest::upgradable`] adds
//! one, and returns the client's end of the connection. [`assert_accepted`] and [`assert_rejected`]
//! check the response. The guide to [testing](crate::guide::testing) shows what else to ask.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     ResponderLayer,
//!     test_util::{assert_accepted, assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let inner = service_fn(async |_: Request<()>| {
//!     Ok::<_, std::convert::Infallible>(Response::new(()))
//! });
//! let layer = ResponderLayer::on_upgraded(async |mut socket| {
//!     socket.write_all(b"frames").await.unwrap();
//! });
//! let (request, mut client) = handshake("/ws").upgradable(()).await;
//! assert_accepted(&layer.layer(inner).oneshot(request).await.unwrap());
//! let mut received = Vec::new();
//! client.read_to_end(&mut received).await.unwrap();
//! assert_eq!(received, b"frames");
//!
//! let request = handshake("/ws").header("sec-websocket-version", "8").build(());
//! let response = layer.layer(inner).oneshot(request).await.unwrap();
//! assert_rejected(&response, "version-unsupported");
//! # }
//! ```

use std::{convert::Infallible, future::ready};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use crate::{Rejection, http::ConnectProtocol};

/// Begins a valid handshake with this target over HTTP/1.1, to the host `server.example.com` and
/// without `Origin`.
///
/// # Panics
///
/// `target` is not a path.
///
/// ```
/// use tower_ws_guard::test_util::handshake;
///
/// let request = handshake("/ws")
///     .host("chat.example.com")
///     .origin("https://app.example.com")
///     .token("s3cr3t")
///     .subprotocols(["v2.chat", "v1.chat"])
///     .build(());
/// assert_eq!(request.headers()["authorization"], "Bearer s3cr3t");
///
/// let request = handshake("/ws").http2().build(());
/// assert_eq!(request.method(), "CONNECT");
/// ```
#[track_caller]
pub fn handshake(target: &str) -> HandshakeRequest {
    let headers = [
        (HOST, "server.example.com"),
        (UPGRADE, "websocket"),
        (CONNECTION, "Upgrade"),
        (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (SEC_WEBSOCKET_VERSION, "13"),
    ];
    HandshakeRequest {
        target: target.parse().expect("the target is a path"),
        headers: headers
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .into_iter()
            .collect(),
        is_http2: false,
    }
}

/// The request of a client. Made by [`handshake`].
#[derive(Clone, Debug)]
#[must_use]
pub struct HandshakeRequest {
    target: Uri,
    headers: HeaderMap,
    is_http2: bool,
}

impl HandshakeRequest {
    /// Sets the `Host`, over HTTP/2 the authority.
    ///
    /// # Panics
    ///
    /// This and the following methods panic if a name or a value cannot stand in a header.
    #[track_caller]
    pub fn host(self, host: &str) -> Self {
        self.header("host", host)
    }

    /// Sets the `Origin`.
    #[track_caller]
    pub fn origin(self, origin: &str) -> Self {
        self.header("origin", origin)
    }

    /// Sets `Authorization: Bearer` with this token.
    #[track_caller]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Offers these subprotocols.
    #[track_caller]
    pub fn subprotocols<'a>(self, offered: impl IntoIterator<Item = &'a str>) -> Self {
        let offered = offered.into_iter().collect::<Vec<_>>().join(", ");
        self.header("sec-websocket-protocol", &offered)
    }

    /// Sets a header, in place of all of this name.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header(name, value);
        self.headers.insert(name, value);
        self
    }

    /// Adds a header, beside those of this name.
    #[track_caller]
    pub fn add_header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header(name, value);
        self.headers.append(name, value);
        self
    }

    /// Removes all headers of this name.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends it as an extended `CONNECT` over HTTP/2 (RFC 8441).
    pub const fn http2(mut self) -> Self {
        self.is_http2 = true;
        self
    }

    /// Makes the request.
    ///
    /// # Panics
    ///
    /// Over HTTP/2, the host cannot stand in a URI.
    #[track_caller]
    pub fn build<B>(mut self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.uri_mut() = self.target;
        if self.is_http2 {
            for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY] {
                self.headers.remove(name);
            }
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.scheme = Some(http::uri::Scheme::HTTPS);
            let host = self.headers.remove(HOST);
            uri.authority =
                host.map(|host| host.as_bytes().try_into().expect("the host can stand in a URI"));
            *request.uri_mut() = uri.try_into().expect("the parts make a URI");
            *request.method_mut() = Method::CONNECT;
            *request.version_mut() = Version::HTTP_2;
            request.extensions_mut().insert(ConnectProtocol::new("websocket"));
        }
        *request.headers_mut() = self.headers;
        request
    }

    /// Makes a request with an [upgrade](upgradable), and the client's end of the connection.
    ///
    /// # Panics
    ///
    /// As [`build`](Self::build), and outside of a Tokio runtime.
    pub async fn upgradable<B>(self, body: B) -> (Request<B>, DuplexStream) {
        upgradable(self.build(body)).await
    }
}

#[track_caller]
fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = name.parse().expect("the name is the name of a header");
    (name, value.parse().expect("the value can stand in a header"))
}

/// Asserts that a response completes a handshake over HTTP/1.1: it is a 101.
///
/// # Panics
///
/// The response does not complete it. The message names the rejection, and its fix.
#[track_caller]
pub fn assert_accepted<B>(response: &Response<B>) {
    assert_completed(response, StatusCode::SWITCHING_PROTOCOLS);
}

/// Asserts that a response completes a handshake over [HTTP/2](HandshakeRequest::http2): it is a
/// 200.
///
/// # Panics
///
/// As [`assert_accepted`].
#[track_caller]
pub fn assert_accepted_http2<B>(response: &Response<B>) {
    assert_completed(response, StatusCode::OK);
}

#[track_caller]
fn assert_completed<B>(response: &Response<B>, expected: StatusCode) {
    if let Some(rejection) = response.extensions().get::<Rejection>() {
        panic!("the handshake was rejected: {rejection}");
    }
    assert_eq!(response.status(), expected, "the handshake was not completed");
}

/// Asserts that a layer of this crate has rejected the request with this
/// [code](crate::RejectionKind::code).
///
/// # Panics
///
/// The request was not rejected, or with another code.
#[track_caller]
pub fn assert_rejected<B>(response: &Response<B>, code: &str) {
    let rejection = response.extensions().get::<Rejection>();
    let Some(rejection) = rejection else {
        panic!("the request was not rejected: {}", response.status());
    };
    assert_eq!(rejection.kind().code(), code, "rejected with another code: {rejection}");
}

/// Adds an upgrade to `request`, as hyper does, and returns the request with the client's end of
/// the connection.
///
/// The upgrade completes at once, whatever the response of the service is. So a test cannot see
/// that a rejection cancels it, as it does in a server. The request works with every service that
/// uses `hyper::upgrade::on`, such as axum's `WebSocketUpgrade`.
///
/// # Panics
///
/// Panics outside of a Tokio runtime.
pub async fn upgradable<B>(mut request: Request<B>) -> (Request<B>, DuplexStream) {
    const REQUEST: &[u8] =
        b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";

    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (sender, mut on_upgrade) = mpsc::unbounded_channel();
    let switch = service_fn(move |mut request: Request<Incoming>| {
        // The receiver outlives this send.
        sender.send(hyper::upgrade::on(&mut request)).ok();
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        ready(Ok::<_, Infallible>(response))
    });
    tokio::spawn(
        http1::Builder::new().serve_connection(TokioIo::new(server), switch).with_upgrades(),
    );

    client.write_all(REQUEST).await.expect("the connection is in memory");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("the connection is in memory"));
    }
    let on_upgrade = on_upgrade.recv().await.expect("the service sends the upgrade");
    request.extensions_mut().insert(on_upgrade);
    (request, client)
}
