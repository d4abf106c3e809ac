use std::{future::Future, sync::Arc, time::Duration};

use http::request::Parts;
use tower_layer::Layer;

use super::{
    Upgraded,
    service::{InnerDecides, OnUpgraded, Policy, Responder},
};
use crate::{
    config::{ConfigError, nonzero},
    rejection::EmptyBody,
    subprotocol::Subprotocols,
};

/// Applies [`Responder`], which answers handshakes with 101 (over HTTP/2: 200).
///
/// See the [module docs](crate::responder) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct ResponderLayer<M = InnerDecides, R = EmptyBody> {
    policy: Arc<Policy<M, R>>,
}

impl ResponderLayer {
    /// Lets the inner service decide, through a [`PendingUpgrade`](super::PendingUpgrade).
    pub fn new() -> Self {
        Self { policy: Arc::new(Policy::new(InnerDecides)) }
    }
}

impl Default for ResponderLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> ResponderLayer<OnUpgraded<F>> {
    /// Accepts every valid handshake, and spawns `callback` with the connection and with the request that asked for it, whose
    /// extensions hold the [`Claims`](crate::Claims).
    ///
    /// Drop the request when it is no longer needed: it keeps the whole head of the request in memory.
    ///
    /// The service must be called inside a Tokio runtime.
    pub fn on_upgraded<Fut>(callback: F) -> Self
    where
        F: Fn(Upgraded, Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { policy: Arc::new(Policy::new(OnUpgraded(Arc::new(callback)))) }
    }
}

impl<M: Clone, R: Clone> ResponderLayer<M, R> {
    /// Chooses the subprotocol. Without it every offer is refused except the one that an outer layer chose.
    pub fn subprotocols(mut self, subprotocols: Subprotocols) -> Self {
        self.rules().subprotocols = Some(subprotocols);
        self
    }

    /// How long a client may take to read the answer, from the moment that it is given: 10 seconds by default. Then its place under a
    /// limit is free, and there is no connection for you; hyper's part of it ends when the client does.
    ///
    /// # Errors
    ///
    /// It is zero.
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        Arc::make_mut(&mut self.policy).upgrade_timeout = nonzero(timeout)?;
        Ok(self)
    }

    unmatched_option!();
    close_option!();
    layer_options!(ResponderLayer<M>);
}

impl<S, M, R> Layer<S> for ResponderLayer<M, R> {
    type Service = Responder<S, M, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Responder::with_policy(inner, Arc::clone(&self.policy))
    }
}
