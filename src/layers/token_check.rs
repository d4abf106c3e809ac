use std::{hash::Hash, time::Duration};

use tower_layer::Layer;

use crate::{
    config::ConfigError,
    connection::{ConnectionLimit, Drain, Sessions},
    guard::{AcceptThenClose, Guard, GuardConfig, GuardLayer},
    rejection::EmptyBody,
    subprotocol::Subprotocols,
    token::TokenPolicy,
};

/// Applies [`TokenCheck`], which accepts handshakes with exactly one valid token.
///
/// See [`token`](crate::token) for the sources and verifiers, and for an example.
#[derive(Debug)]
#[must_use]
pub struct TokenCheckLayer<R = EmptyBody>(GuardLayer<R>);

impl TokenCheckLayer {
    /// Rejects handshakes without a token that `policy` accepts.
    pub fn new<T>(policy: TokenPolicy<T>) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        Self(GuardLayer::from_config(GuardConfig {
            token: Some(policy.into_check()),
            ..GuardConfig::default()
        }))
    }
}

impl<R> TokenCheckLayer<R> {
    /// Sets the response to rejected handshakes. A later call replaces an earlier one. See
    /// [`GuardLayer::reject_with`].
    pub fn reject_with<T>(self, response: T) -> TokenCheckLayer<T> {
        TokenCheckLayer(self.0.reject_with(response))
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

    /// Shows the reason of a rejection to a browser's script. A later call replaces an earlier one.
    /// See [`AcceptThenClose`].
    pub fn accept_then_close(self, accept_then_close: AcceptThenClose) -> Self {
        Self(self.0.accept_then_close(accept_then_close))
    }

    /// Sets the time for the verification of the token. A later call replaces an earlier one. See
    /// [`GuardLayer::check_timeout`].
    ///
    /// # Errors
    ///
    /// The time is zero.
    pub fn check_timeout(self, timeout: Duration) -> Result<Self, ConfigError> {
        self.0.check_timeout(timeout).map(Self)
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

impl<R> Clone for TokenCheckLayer<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Layer<S> for TokenCheckLayer<R> {
    type Service = TokenCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Accepts handshakes with exactly one valid token. Ordinary requests pass untouched.
pub type TokenCheck<S, R = EmptyBody> = Guard<S, R>;
