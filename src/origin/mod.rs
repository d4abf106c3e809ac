//! Which pages may connect: `Origin` against a policy, and `Host` against a list.
//!
//! Browsers apply no same-origin policy to WebSockets: any page can open a socket to any server, and the browser adds the
//! user's cookies (cross-site WebSocket hijacking). CORS does not apply, and layers against CSRF let a `GET` pass. What a
//! browser does is to name the page in `Origin`; the server has to look at it.
//!
//! `Origin` is no authentication: every client that is not a browser can send what it likes.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{AllowHost, AllowOrigin, OriginCheckLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let layer = OriginCheckLayer::new(AllowOrigin::same_origin())
//!     .allow_host(AllowHost::list(["localhost:3000"])?);
//! let service = ServiceBuilder::new().layer(layer).service(service_fn(async |_: Request<()>| {
//!     Ok::<_, std::convert::Infallible>(Response::new("handshake"))
//! }));
//!
//! let handshake = |host: &str, origin: &str| {
//!     Request::get("/ws")
//!         .header("host", host)
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("origin", origin)
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = handshake("localhost:3000", "http://localhost:3000");
//! assert_eq!(*service.clone().oneshot(accepted).await.unwrap().body(), "handshake");
//!
//! let foreign = handshake("localhost:3000", "https://evil.example");
//! assert_eq!(service.clone().oneshot(foreign).await.unwrap().status(), StatusCode::FORBIDDEN);
//!
//! let rebound = handshake("evil.example:3000", "http://evil.example:3000");
//! assert_eq!(service.oneshot(rebound).await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
//! # Ok(())
//! # }
//! ```

mod allow;
mod parse;

use std::sync::Arc;

use tower_layer::Layer;

pub use self::{
    allow::{AllowHost, AllowOrigin},
    parse::{InvalidOrigin, Origin, RequestOrigin},
};
use crate::{
    guard::{Guard, Policy, Rules},
    rejection::EmptyBody,
    token::NoToken,
};

/// Applies [`OriginCheck`], which lets in handshakes from allowed pages.
///
/// See the [module docs](crate::origin) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct OriginCheckLayer<R = EmptyBody> {
    policy: Arc<Policy<(), NoToken, R>>,
}

impl OriginCheckLayer {
    /// Refuses every handshake from an origin that `origins` does not allow.
    pub fn new(origins: AllowOrigin) -> Self {
        Self { policy: Arc::new(Policy::new(Rules { origins: Some(origins), ..Rules::default() })) }
    }
}

impl<R: Clone> OriginCheckLayer<R> {
    /// Lets in handshakes to these hosts only. Without it every host is allowed.
    pub fn allow_host(mut self, hosts: AllowHost) -> Self {
        self.rules().hosts = Some(hosts);
        self
    }

    layer_options!(OriginCheckLayer);
}

impl<S, R> Layer<S> for OriginCheckLayer<R> {
    type Service = OriginCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard::with_policy(inner, Arc::clone(&self.policy))
    }
}

/// Lets in handshakes from allowed pages, and everything that is no handshake.
pub type OriginCheck<S, R = EmptyBody> = Guard<S, (), NoToken, R>;
