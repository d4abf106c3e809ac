use std::{error::Error as _, time::SystemTime};

use http::request::Parts;

use super::{Token, Verified, VerifyToken};
use crate::rejection::{Rejection, RejectionKind};

/// Tries two verifiers in order. Made by [`VerifyToken::or`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Or<V, W> {
    pub(super) first: V,
    pub(super) second: W,
}

impl<V: VerifyToken, W: VerifyToken<Claims = V::Claims>> VerifyToken for Or<V, W> {
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> Result<Verified<Self::Claims>, Rejection> {
        let first = self.first.verify(token.clone(), request).await;
        if !is_unknown(&first) {
            return first;
        }
        either(first, self.second.verify(token, request).await)
    }

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        let first = self.first.verify_now(token, request)?;
        if !is_unknown(&first) {
            return Some(first);
        }
        Some(either(first, self.second.verify_now(token, request)?))
    }

    fn is_one_time(&self) -> bool {
        self.first.is_one_time() && self.second.is_one_time()
    }
}

fn is_unknown<C>(result: &Result<Verified<C>, Rejection>) -> bool {
    result.as_ref().is_err_and(|rejection| rejection.kind() == RejectionKind::TokenInvalid)
}

/// If no verifier knows the token, a rejection with a source is more helpful than one without.
fn either<C>(
    first: Result<Verified<C>, Rejection>,
    second: Result<Verified<C>, Rejection>,
) -> Result<Verified<C>, Rejection> {
    let has_source = |result: &Result<_, Rejection>| {
        result.as_ref().err().is_some_and(|rejection| rejection.source().is_some())
    };
    if is_unknown(&second) && has_source(&first) && !has_source(&second) { first } else { second }
}

/// Rejects claims that fail a predicate. Made by [`VerifyToken::require`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Require<V, F> {
    pub(super) verifier: V,
    pub(super) predicate: F,
}

impl<V, F> Require<V, F> {
    fn check<C>(&self, verified: Verified<C>) -> Result<Verified<C>, Rejection>
    where
        F: Fn(&C) -> bool,
    {
        if !(self.predicate)(&verified.claims) {
            return Err(RejectionKind::TokenForbidden.into());
        }
        Ok(verified)
    }
}

impl<V, F> VerifyToken for Require<V, F>
where
    V: VerifyToken,
    F: Fn(&V::Claims) -> bool + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> Result<Verified<Self::Claims>, Rejection> {
        self.check(self.verifier.verify(token, request).await?)
    }

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        let result = self.verifier.verify_now(token, request)?;
        Some(result.and_then(|verified| self.check(verified)))
    }

    fn is_one_time(&self) -> bool {
        self.verifier.is_one_time()
    }
}

/// Converts the claims of a verifier. Made by [`VerifyToken::map_claims`].
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

    fn verify_now(&self, token: &Token, request: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        let result = self.verifier.verify_now(token, request)?;
        Some(result.map(|verified| verified.map(&self.map)))
    }

    fn is_one_time(&self) -> bool {
        self.verifier.is_one_time()
    }
}

/// Adds an expiry to the claims of a verifier. Made by [`VerifyToken::expiring`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Expiring<V, F> {
    pub(super) verifier: V,
    pub(super) expires_at: F,
}

impl<V, F> Expiring<V, F> {
    fn expire<C>(&self, verified: Verified<C>) -> Verified<C>
    where
        F: Fn(&C) -> Option<SystemTime>,
    {
        match (self.expires_at)(&verified.claims) {
            Some(time) => verified.expires_at(time),
            None => verified,
        }
    }
}

impl<V, F> VerifyToken for Expiring<V, F>
where
    V: VerifyToken,
    F: Fn(&V::Claims) -> Option<SystemTime> + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> Result<Verified<Self::Claims>, Rejection> {
        Ok(self.expire(self.verifier.verify(token, request).await?))
    }

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        let result = self.verifier.verify_now(token, request)?;
        Some(result.map(|verified| self.expire(verified)))
    }

    fn is_one_time(&self) -> bool {
        self.verifier.is_one_time()
    }
}
