use std::sync::Arc;

use tower_layer::Layer;

use super::{
    Guard,
    policy::{Policy, Rules},
};
use crate::{
    origin::{AllowHost, AllowOrigin},
    rejection::EmptyBody,
    subprotocol::Subprotocols,
    token::{NoToken, TokenPolicy, VerifyToken},
};

/// Applies [`Guard`] with all checks: syntax, host, origin, your own, subprotocol, token.
///
/// Checks, verifiers and responders must be `Clone` for the layer to be told more: wrap what is not in an `Arc`.
///
/// See the [module docs](crate::guard) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct GuardLayer<C = (), V = NoToken, R = EmptyBody> {
    policy: Arc<Policy<C, V, R>>,
}

impl GuardLayer {
    /// Lets in well-formed handshakes from the origins that `origins` allows.
    pub fn new(origins: AllowOrigin) -> Self {
        Self { policy: Arc::new(Policy::new(Rules { origins: Some(origins), ..Rules::default() })) }
    }
}

impl<C: Clone, V: Clone, R: Clone> GuardLayer<C, V, R> {
    /// Lets in handshakes to these hosts only. Without it every host is allowed.
    pub fn allow_host(mut self, hosts: AllowHost) -> Self {
        self.rules().hosts = Some(hosts);
        self
    }

    /// Adds a [`Check`](crate::Check) of your own, made when host and origin are allowed and before the token is looked at.
    /// Checks are made in the order in which they are added.
    pub fn check<D>(self, check: D) -> GuardLayer<(C, D), V, R>
    where
        D: super::Check,
    {
        GuardLayer { policy: Arc::new(Arc::unwrap_or_clone(self.policy).check(check)) }
    }

    /// Chooses the subprotocol. Without it the inner service does.
    pub fn subprotocols(mut self, subprotocols: Subprotocols) -> Self {
        self.rules().subprotocols = Some(subprotocols);
        self
    }

    unmatched_option!();
    close_option!();
    timeout_option!();

    /// Lets in handshakes with a valid token only, and hands over its [`Claims`](crate::Claims).
    pub fn token<T: VerifyToken>(self, token: TokenPolicy<T>) -> GuardLayer<C, TokenPolicy<T>, R> {
        GuardLayer { policy: Arc::new(Arc::unwrap_or_clone(self.policy).token(token)) }
    }

    layer_options!(GuardLayer<C, V>);
}

impl<S, C, V, R> Layer<S> for GuardLayer<C, V, R> {
    type Service = Guard<S, C, V, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard::with_policy(inner, Arc::clone(&self.policy))
    }
}
