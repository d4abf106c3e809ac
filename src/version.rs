//! The syntax of the handshake: RFC 6455 4.2.1, over HTTP/2 RFC 8441.
//!
//! Method, HTTP version, `Upgrade`, `Connection`, `Host`, `Sec-WebSocket-Key`, `Sec-WebSocket-Version`,
//! `Sec-WebSocket-Protocol`, and that there is no body. Every other layer of this crate checks that too, before its own:
//! this one is for endpoints that need nothing else.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::VersionCheckLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(VersionCheckLayer::new())
//!     .service(service_fn(async |_: Request<()>| {
//!         Ok::<_, std::convert::Infallible>(Response::new("handshake"))
//!     }));
//!
//! let handshake = |connection: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", connection)
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("keep-alive, Upgrade")).await.unwrap();
//! assert_eq!(*accepted.body(), "handshake");
//!
//! let refused = service.oneshot(handshake("keep-alive")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
//! # }
//! ```

use std::sync::Arc;

use tower_layer::Layer;

use crate::{
    guard::{Guard, Policy, Rules},
    rejection::EmptyBody,
    token::NoToken,
};

/// Applies [`VersionCheck`], which lets in well-formed handshakes.
///
/// See the [module docs](crate::version) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct VersionCheckLayer<R = EmptyBody> {
    policy: Arc<Policy<(), NoToken, R>>,
}

impl VersionCheckLayer {
    /// Refuses every handshake that is not as RFC 6455 4.2.1 demands.
    pub fn new() -> Self {
        Self { policy: Arc::new(Policy::new(Rules::default())) }
    }
}

impl<R: Clone> VersionCheckLayer<R> {
    layer_options!(VersionCheckLayer);
}

impl Default for VersionCheckLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, R> Layer<S> for VersionCheckLayer<R> {
    type Service = VersionCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard::with_policy(inner, Arc::clone(&self.policy))
    }
}

/// Lets in well-formed handshakes, and everything that is no handshake.
pub type VersionCheck<S, R = EmptyBody> = Guard<S, (), NoToken, R>;
