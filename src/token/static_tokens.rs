use std::{
    collections::HashMap,
    fmt,
    future::{Future, ready},
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Token, Verified, VerifyToken};
use crate::rejection::{Rejection, RejectionKind};

/// A fixed set of tokens and their claims.
///
/// Tokens are stored and compared as SHA-256 digests, in constant time, so the time of a rejection
/// shows neither the length of a token nor a common prefix. The time of a lookup does not depend on
/// the number of tokens.
///
/// ```
/// use tower_ws_guard::StaticTokens;
///
/// let tokens =
///     StaticTokens::new([("correct horse battery staple", "alice"), ("tr0ub4dor&3", "bob")]);
/// assert_eq!(format!("{tokens:?}"), "StaticTokens(2)");
/// ```
#[derive(Clone)]
#[must_use]
pub struct StaticTokens<C>(Arc<HashMap<Digest, C>>);

impl<C> StaticTokens<C> {
    /// Accepts these tokens. If a token is listed twice, the last claims count. An empty token is
    /// never accepted.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = (T, C)>) -> Self {
        let tokens = tokens
            .into_iter()
            .filter(|(token, _)| !token.as_ref().is_empty())
            .map(|(token, claims)| (Digest::new(token.as_ref()), claims));
        Self(Arc::new(tokens.collect()))
    }
}

impl<C: Clone> StaticTokens<C> {
    fn look_up(&self, token: &Token) -> Result<Verified<C>, Rejection> {
        let claims = self.0.get(&Digest::new(token.expose())).cloned();
        claims.map(Verified::new).ok_or_else(|| RejectionKind::TokenInvalid.into())
    }
}

impl<C: Clone + Send + Sync + 'static> VerifyToken for StaticTokens<C> {
    type Claims = C;

    fn verify(
        &self,
        token: Token,
        _: &Parts,
    ) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        ready(self.look_up(&token))
    }

    fn verify_now(&self, token: &Token, _: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        Some(self.look_up(token))
    }
}

impl<C> fmt::Debug for StaticTokens<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.0.len())
    }
}

/// A SHA-256 digest. The map hashes it with a random key, so its buckets leak nothing to an
/// untrusted client.
struct Digest([u8; 32]);

impl Digest {
    fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}
