//! The answer: 101 with `Sec-WebSocket-Accept` (over HTTP/2: 200), and the upgraded connection.
//!
//! The responder parses every handshake strictly by itself, so it can stand alone. In a stack it goes innermost, behind the
//! checks: their choice of a subprotocol is the one that it names. It knows no frames: [`Upgraded`] is a stream of bytes for any
//! WebSocket codec.
//!
//! There are two ways to take the connection:
//!
//! - [`ResponderLayer::new`]: the inner service decides. It finds a [`PendingUpgrade`] in the extensions of the request (an
//!   extractor with feature `axum`). Once it has accepted, its response becomes the 101: headers such as `Set-Cookie` stay, the
//!   body is discarded. A response of 4xx or 5xx cancels that. Without acceptance the response goes out as it is, and the
//!   HTTP/1.1 connection is closed behind it; but one that would pass for an accepted handshake (101, over HTTP/2 any 2xx) becomes a
//!   500 with an empty body.
//! - [`ResponderLayer::on_upgraded`]: the layer accepts every valid handshake and spawns your callback with the connection. The
//!   inner service sees all other requests. In axum put it on a route (`MethodRouter::layer` or `Router::route_layer`): by
//!   `Router::layer` it would accept handshakes on every path, unknown ones too.
//!
//! The body of the inner service's response must be `Default`: a 101 has an empty one.
//!
//! It answers 101 only if the connection can be upgraded, and no other 101 gets past it. It takes `OnUpgrade` out of the
//! request, so axum's `WebSocketUpgrade` does not work behind it: put that behind a [`GuardLayer`](crate::GuardLayer) alone.
//!
//! What the client sees when a part of the stack fails is in a [table](crate::guard#when-something-fails).
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{PendingUpgrade, ResponderLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(ResponderLayer::new())
//!     .service(service_fn(async |request: Request<()>| {
//!         if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
//!             pending.on_upgrade(async |socket| drop(socket));
//!         }
//!         Ok::<_, std::convert::Infallible>(Response::new(()))
//!     }));
//!
//! let handshake = |key: &str| {
//!     let mut request = Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", key)
//!         .header("sec-websocket-version", "13")
//!         .body(())
//!         .unwrap();
//!     // A server puts this there, if it serves with upgrades.
//!     let on_upgrade = hyper::upgrade::on(&mut request);
//!     request.extensions_mut().insert(on_upgrade);
//!     request
//! };
//! let accepted = service.clone().oneshot(handshake("dGhlIHNhbXBsZSBub25jZQ==")).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
//! assert_eq!(accepted.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
//!
//! let refused = service.oneshot(handshake("too short")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
//! # }
//! ```

mod future;
mod layer;
mod service;
mod upgrade;

pub(crate) use self::future::Answer;
pub use self::{
    future::ResponseFuture,
    layer::ResponderLayer,
    service::{InnerDecides, OnUpgraded, Responder},
    upgrade::{PendingUpgrade, Upgrade, UpgradeError, Upgraded},
};
