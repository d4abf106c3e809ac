use std::hash::Hash;

use tower_layer::Layer;

use crate::{
    connection::{ConnectionLimit, Drain, Sessions},
    guard::{Guard, GuardConfig, GuardLayer},
    rejection::EmptyBody,
};

/// Applies [`VersionCheck`], which accepts well-formed handshakes (RFC 6455 4.2.1, over HTTP/2 RFC
/// 8441).
///
/// It checks the method, the HTTP version, `Upgrade`, `Connection`, `Host`, `Sec-WebSocket-Key`,
/// `Sec-WebSocket-Version`, the syntax of `Sec-WebSocket-Protocol`, and that there is no body.
/// Every other layer of this crate checks that too, so this one is for endpoints that need nothing
/// else.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ws_guard::{
///     VersionCheckLayer,
///     test_util::{assert_rejected, handshake},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(VersionCheckLayer::new())
///     .service(service_fn(async |_: Request<()>| {
///         Ok::<_, std::convert::Infallible>(Response::new("handshake"))
///     }));
///
/// let request = handshake("/ws").header("connection", "keep-alive, Upgrade").build(());
/// assert_eq!(service.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
///
/// let request = handshake("/ws").header("connection", "keep-alive").build(());
/// assert_rejected(&service.oneshot(request).await.unwrap(), "connection-missing");
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct VersionCheckLayer<R = EmptyBody>(GuardLayer<R>);

impl VersionCheckLayer {
    /// Rejects handshakes that RFC 6455 4.2.1 does not allow.
    pub fn new() -> Self {
        Self(GuardLayer::from_config(GuardConfig::default()))
    }
}

impl<R> VersionCheckLayer<R> {
    /// Sets the response to rejected handshakes. A later call replaces an earlier one. See
    /// [`GuardLayer::reject_with`].
    pub fn reject_with<T>(self, response: T) -> VersionCheckLayer<T> {
        VersionCheckLayer(self.0.reject_with(response))
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

    /// Lets the extractors of this crate work although no origin check has seen the request.
    ///
    /// Any page on the web can then connect with your users' cookies. Use it only if no browser
    /// connects, or if the credential is not one that a browser adds by itself.
    pub fn dangerous_without_origin_check(mut self) -> Self {
        self.0.config().without_origin_check = true;
        self
    }
}

impl Default for VersionCheckLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Clone for VersionCheckLayer<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Layer<S> for VersionCheckLayer<R> {
    type Service = VersionCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Accepts well-formed handshakes. Ordinary requests pass untouched.
pub type VersionCheck<S, R = EmptyBody> = Guard<S, R>;
