use std::time::SystemTime;

use http::request::Parts;

use super::{Token, Verified, VerifyToken};
use crate::rejection::{Rejection, RejectionKind};

/// See [`VerifyToken::or`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Or<V, W> {
    pub(super) first: V,
    pub(super) second: W,
}

impl<V: VerifyToken, W: VerifyToken<Claims = V::Claims>> VerifyToken for Or<V, W> {
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        let abstains = |verdict: &Result<_, Rejection>| {
            verdict.as_ref().is_err_and(|rejection| rejection.kind() == RejectionKind::TokenInvalid)
        };
        let first = self.first.verify(token.clone(), request).await;
        if !abstains(&first) {
            return first;
        }
        let second = self.second.verify(token, request).await;
        // If nobody knows the token, a reason is worth more than none.
        let reason = |verdict: &Result<_, Rejection>| verdict.as_ref().err().is_some_and(Rejection::has_source);
        if abstains(&second) && reason(&first) && !reason(&second) { first } else { second }
    }
}

/// See [`TokenPolicy::or`](super::TokenPolicy::or).
#[derive(Clone, Debug)]
#[must_use]
pub struct BySource<V, W> {
    pub(super) first: V,
    /// How many of the sources are those of `first`; the others are those of `second`.
    pub(super) sources: usize,
    pub(super) second: W,
}

impl<V: VerifyToken, W: VerifyToken<Claims = V::Claims>> VerifyToken for BySource<V, W> {
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        match token.position.checked_sub(self.sources) {
            None => self.first.verify(token, request).await,
            Some(position) => self.second.verify(Token { position, ..token }, request).await,
        }
    }
}

/// See [`VerifyToken::require`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Require<V, F> {
    pub(super) verifier: V,
    pub(super) predicate: F,
}

impl<V, F> VerifyToken for Require<V, F>
where
    V: VerifyToken,
    F: Fn(&V::Claims) -> bool + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        let verified = self.verifier.verify(token, request).await?;
        if !(self.predicate)(&verified.claims) {
            return Err(RejectionKind::TokenForbidden.into());
        }
        Ok(verified)
    }
}

/// See [`VerifyToken::map_claims`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MapClaims<V, F> {
    pub(super) verifier: V,
    pub(super) map: F,
}

impl<V, F, C> VerifyToken for MapClaims<V, F>
where
    V: VerifyToken,
    F: Fn(V::Claims) -> C + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Claims = C;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<C>, Rejection> {
        Ok(self.verifier.verify(token, request).await?.map(&self.map))
    }
}

/// See [`VerifyToken::expiring`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Expiring<V, F> {
    pub(super) verifier: V,
    pub(super) expires_at: F,
}

impl<V, F> VerifyToken for Expiring<V, F>
where
    V: VerifyToken,
    F: Fn(&V::Claims) -> Option<SystemTime> + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        let verified = self.verifier.verify(token, request).await?;
        Ok(match (self.expires_at)(&verified.claims) {
            Some(time) => verified.expires_at(time),
            None => verified,
        })
    }
}
