//! Tests of WebSocket services without a socket.
//!
//! hyper makes upgrades for its own connections only, so a request that was built by hand cannot be upgraded, and a service
//! that wants to is told so. [`upgradable`] makes one that can, and gives you the client's end of the connection.
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
//! let inner = service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(())));
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
//! let refused = layer.layer(inner).oneshot(request).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
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

/// Gives `request` an upgrade, as a server does, and returns it with the client's end of the connection.
///
/// The upgrade is there at once, whatever the service answers: that a refusal cancels it is hyper's part, and cannot be seen
/// here. It works with every service that uses `hyper::upgrade::on`, axum's `WebSocketUpgrade` among them.
///
/// # Panics
///
/// Outside a Tokio runtime.
pub async fn upgradable<B>(mut request: Request<B>) -> (Request<B>, DuplexStream) {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";

    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (sender, mut on_upgrade) = mpsc::unbounded_channel();
    let switch = service_fn(move |mut request: Request<Incoming>| {
        // The receiver lives until it has got this.
        sender.send(hyper::upgrade::on(&mut request)).ok();
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        ready(Ok::<_, Infallible>(response))
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), switch).with_upgrades());

    client.write_all(UPGRADE).await.expect("the connection is in memory");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("the connection is in memory"));
    }
    let on_upgrade = on_upgrade.recv().await.expect("the service has sent it");
    request.extensions_mut().insert(on_upgrade);
    (request, client)
}
