use std::{future::Future, hash::Hash, time::Duration};

use http::request::Parts;
use tower_layer::Layer;

use crate::{
    config::ConfigError,
    connection::{ConnectionLimit, Drain, Sessions},
    extension::PermessageDeflate,
    guard::{AcceptThenClose, Guard, GuardConfig, GuardLayer, Respond},
    rejection::EmptyBody,
    subprotocol::Subprotocols,
    upgrade::Upgraded,
};

/// Applies [`Responder`], which completes handshakes with 101 (over HTTP/2: 200) and hands over the
/// upgraded connection.
///
/// [`GuardLayer::respond`] and [`GuardLayer::on_upgraded`] do the same in one service with the
/// checks. See [`upgrade`](crate::upgrade) for the ways to take the connection.
///
/// The layer parses every handshake strictly by itself, so it can stand alone. In a stack it is the
/// innermost layer, and names the subprotocol that an outer layer selected. Extensions it negotiates
/// by itself.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ws_guard::{
///     PendingUpgrade, ResponderLayer,
///     test_util::{assert_accepted, assert_rejected, handshake},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(ResponderLayer::new())
///     .service(service_fn(async |request: Request<()>| {
///         if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
///             pending.on_upgrade(async |socket| drop(socket));
///         }
///         Ok::<_, std::convert::Infallible>(Response::new(()))
///     }));
///
/// let (request, _client) = handshake("/ws").upgradable(()).await;
/// let accepted = service.clone().oneshot(request).await.unwrap();
/// assert_accepted(&accepted);
/// assert_eq!(accepted.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
///
/// let malformed = handshake("/ws").header("sec-websocket-key", "too short").build(());
/// assert_rejected(&service.oneshot(malformed).await.unwrap(), "key-invalid");
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ResponderLayer<R = EmptyBody>(GuardLayer<R, Respond>);

impl ResponderLayer {
    /// Completes handshakes that the inner service accepts through a
    /// [`PendingUpgrade`](crate::PendingUpgrade).
    pub fn new() -> Self {
        Self(GuardLayer::from_config(GuardConfig::default()).respond())
    }

    /// Completes every valid handshake, and spawns `callback` with the connection. See
    /// [`GuardLayer::on_upgraded`].
    pub fn on_upgraded<F, Fut>(callback: F) -> Self
    where
        F: Fn(Upgraded) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self(GuardLayer::from_config(GuardConfig::default()).on_upgraded(callback))
    }

    /// As [`on_upgraded`](Self::on_upgraded), with a value that `from_head` takes from the head of
    /// the accepted request. See [`GuardLayer::on_upgraded_with`].
    pub fn on_upgraded_with<H, T, F, Fut>(from_head: H, callback: F) -> Self
    where
        H: Fn(&Parts) -> T + Send + Sync + 'static,
        T: Send + 'static,
        F: Fn(Upgraded, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let guard = GuardLayer::from_config(GuardConfig::default());
        Self(guard.on_upgraded_with(from_head, callback))
    }
}

impl<R> ResponderLayer<R> {
    /// Sets the response to rejected handshakes. A later call replaces an earlier one. See
    /// [`GuardLayer::reject_with`].
    pub fn reject_with<T>(self, response: T) -> ResponderLayer<T> {
        ResponderLayer(self.0.reject_with(response))
    }

    /// Selects the subprotocol. A later call replaces an earlier one. See
    /// [`GuardLayer::subprotocols`].
    pub fn subprotocols(self, subprotocols: Subprotocols) -> Self {
        Self(self.0.subprotocols(subprotocols))
    }

    /// Accepts clients that offer only unsupported subprotocols. See
    /// [`GuardLayer::accept_unmatched_subprotocols`].
    pub fn accept_unmatched_subprotocols(self) -> Self {
        Self(self.0.accept_unmatched_subprotocols())
    }

    /// Agrees to the compression of messages. A later call replaces an earlier one. See
    /// [`GuardLayer::extensions`].
    pub fn extensions(self, extensions: PermessageDeflate) -> Self {
        Self(self.0.extensions(extensions))
    }

    /// Shows the reason of a rejection to a browser's script. A later call replaces an earlier one.
    /// See [`AcceptThenClose`].
    pub fn accept_then_close(self, accept_then_close: AcceptThenClose) -> Self {
        Self(self.0.accept_then_close(accept_then_close))
    }

    /// Sets the time that a client has to read the response. A later call replaces an earlier one.
    /// See [`GuardLayer::upgrade_timeout`].
    ///
    /// # Errors
    ///
    /// The time is zero.
    pub fn upgrade_timeout(self, timeout: Duration) -> Result<Self, ConfigError> {
        self.0.upgrade_timeout(timeout).map(Self)
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

impl Default for ResponderLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Clone for ResponderLayer<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Layer<S> for ResponderLayer<R> {
    type Service = Responder<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Completes handshakes and hands over the upgraded connection. Ordinary requests pass untouched.
pub type Responder<S, R = EmptyBody> = Guard<S, R, Respond>;
