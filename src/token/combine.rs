use std::{sync::Arc, time::SystemTime};

use http::request::Parts;
#[cfg(feature = "responder")]
use tokio_util::sync::CancellationToken;

use super::{Token, TokenSource, Verified, VerifyToken};
use crate::rejection::{Rejection, RejectionKind};

/// See [`VerifyToken::or`].
#[derive(Clone, Debug)]
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

/// See [`VerifyToken::only_from`].
#[derive(Clone, Debug)]
pub struct OnlyFrom<V> {
    pub(super) verifier: V,
    pub(super) sources: Arc<[TokenSource]>,
}

impl<V: VerifyToken> VerifyToken for OnlyFrom<V> {
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        match token.source() {
            Some(source) if self.sources.contains(source) => self.verifier.verify(token, request).await,
            _ => Err(RejectionKind::TokenInvalid.into()),
        }
    }
}

/// See [`VerifyToken::require`].
#[derive(Clone, Debug)]
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
        match (self.expires_at)(&verified.claims) {
            Some(time) if time <= SystemTime::now() => Err(RejectionKind::TokenInvalid.into()),
            Some(time) => Ok(verified.expires_at(time)),
            None => Ok(verified),
        }
    }
}

/// See [`VerifyToken::revocable`].
#[cfg(feature = "responder")]
#[derive(Clone, Debug)]
pub struct Revocable<V, F> {
    pub(super) verifier: V,
    pub(super) revocation: F,
}

#[cfg(feature = "responder")]
impl<V, F> VerifyToken for Revocable<V, F>
where
    V: VerifyToken,
    F: Fn(&V::Claims) -> CancellationToken + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        let verified = self.verifier.verify(token, request).await?;
        let revocation = (self.revocation)(&verified.claims);
        if revocation.is_cancelled() {
            return Err(RejectionKind::TokenInvalid.into());
        }
        Ok(verified.revoked_by(revocation))
    }
}
