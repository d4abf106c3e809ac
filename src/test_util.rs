//! Tests of WebSocket services without a socket.
//!
//! Only hyper's own connections can be upgraded: with a request that a test builds, a service finds
//! no upgrade. [`upgradable`] adds one to the request, and returns the client's end of the
//! connection.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_ws_guard::{ResponderLayer, test_util::upgradable};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let inner = service_fn(async |_: Request<()>| {
//!     Ok::<_, std::convert::Infallible>(Response::new(()))
//! });
//! let layer = ResponderLayer::on_upgraded(async |mut socket, _| {
//!     socket.write_all(b"frames").await.unwrap();
//! });
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
//! let (request, mut client) = upgradable(handshake("13")).await;
//! let accepted = layer.layer(inner).oneshot(request).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
//! let mut received = Vec::new();
//! client.read_to_end(&mut received).await.unwrap();
//! assert_eq!(received, b"frames");
//!
//! let (request, _) = upgradable(handshake("8")).await;
//! let rejected = layer.layer(inner).oneshot(request).await.unwrap();
//! assert_eq!(rejected.status(), StatusCode::UPGRADE_REQUIRED);
//! # }
//! ```

use std::{convert::Infallible, future::ready};

use http::{Request, Response, StatusCode};
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
    const UPGRADE: &[u8] =
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

    client.write_all(UPGRADE).await.expect("the connection is in memory");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("the connection is in memory"));
    }
    let on_upgrade = on_upgrade.recv().await.expect("the service sends the upgrade");
    request.extensions_mut().insert(on_upgrade);
    (request, client)
}
