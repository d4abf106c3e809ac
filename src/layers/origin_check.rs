use std::hash::Hash;

use tower_layer::Layer;

use crate::{
    connection::{ConnectionLimit, Drain, Sessions},
    guard::{Guard, GuardLayer},
    host::AllowHost,
    origin::AllowOrigin,
    rejection::EmptyBody,
};

/// Applies [`OriginCheck`], which accepts handshakes from allowed pages, to allowed hosts.
///
/// Browsers apply no same-origin policy to WebSockets: any page can open a socket to any server,
/// and the browser adds the user's cookies (cross-site WebSocket hijacking). CORS does not apply,
/// and CSRF layers exempt `GET`. But a browser names the page in `Origin`, and the server must
/// check it.
///
/// `Origin` is no authentication: a client that is not a browser can send any value.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ws_guard::{
///     AllowHost, AllowOrigin, OriginCheckLayer,
///     test_util::{assert_rejected, handshake},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let layer = OriginCheckLayer::new(AllowOrigin::same_origin())
///     .allow_host(AllowHost::list(["localhost:3000"])?);
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new("handshake"))
/// }));
///
/// let from = |host: &str, origin: &str| handshake("/ws").host(host).origin(origin).build(());
/// let own = from("localhost:3000", "http://localhost:3000");
/// assert_eq!(service.clone().oneshot(own).await.unwrap().status(), StatusCode::OK);
///
/// let foreign = from("localhost:3000", "https://evil.example");
/// assert_rejected(&service.clone().oneshot(foreign).await.unwrap(), "origin-not-allowed");
///
/// let rebound = from("evil.example:3000", "http://evil.example:3000");
/// assert_rejected(&service.oneshot(rebound).await.unwrap(), "host-not-allowed");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct OriginCheckLayer<R = EmptyBody>(GuardLayer<R>);

impl OriginCheckLayer {
    /// Rejects handshakes from origins that `origins` does not allow.
    pub fn new(origins: AllowOrigin) -> Self {
        Self(GuardLayer::new(origins))
    }
}

impl<R> OriginCheckLayer<R> {
    /// Sets the response to rejected handshakes. A later call replaces an earlier one. See
    /// [`GuardLayer::reject_with`].
    pub fn reject_with<T>(self, response: T) -> OriginCheckLayer<T> {
        OriginCheckLayer(self.0.reject_with(response))
    }

    /// Accepts handshakes to these hosts only. A second call adds hosts. See
    /// [`GuardLayer::allow_host`].
    pub fn allow_host(self, hosts: AllowHost) -> Self {
        Self(self.0.allow_host(hosts))
    }

    /// Rejects handshakes without a slot. A second call adds a limit. See [`GuardLayer::limit`].
    pub fn limit(self, limit: ConnectionLimit) -> Self {
        Self(self.0.limit(limit))
    }

    /// Counts each connection as a session of its key. A second call adds sessions. See
    /// [`GuardLayer::sessions`].
    pub fn sessions<K>(self, sessions: &Sessions<K>) -> Self
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        Self(self.0.sessions(sessions))
    }

    /// Rejects handshakes after `drain` has started. A second call adds a drain. See
    /// [`GuardLayer::drain`].
    pub fn drain(self, drain: &Drain) -> Self {
        Self(self.0.drain(drain))
    }

    /// Rejects requests that are not upgrade requests. See [`GuardLayer::require_websocket`].
    pub fn require_websocket(self) -> Self {
        Self(self.0.require_websocket())
    }

    /// Report-only mode. See [`GuardLayer::dangerous_report_only`].
    pub fn dangerous_report_only(self) -> Self {
        Self(self.0.dangerous_report_only())
    }

    /// Keeps the HTTP/1.1 connection open after a rejection. See
    /// [`GuardLayer::dangerous_keep_connection`].
    pub fn dangerous_keep_connection(self) -> Self {
        Self(self.0.dangerous_keep_connection())
    }
}

impl<R> Clone for OriginCheckLayer<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Layer<S> for OriginCheckLayer<R> {
    type Service = OriginCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Accepts handshakes from allowed pages, to allowed hosts. Ordinary requests pass untouched.
pub type OriginCheck<S, R = EmptyBody> = Guard<S, R>;
