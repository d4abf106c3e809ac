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

/// A fixed set of tokens and what each stands for.
///
/// Tokens are kept and compared as SHA-256 digests, in constant time, so that neither their length nor a common beginning
/// shows in how long a refusal takes. A token is looked up, so ten thousand are no slower than one.
///
/// ```
/// use tower_ws_guard::StaticTokens;
///
/// let tokens = StaticTokens::new([("correct horse battery staple", "alice"), ("tr0ub4dor&3", "bob")]);
/// assert_eq!(format!("{tokens:?}"), "StaticTokens(2)");
/// ```
#[derive(Clone)]
#[must_use]
pub struct StaticTokens<C>(Arc<HashMap<Digest, C>>);

impl<C> StaticTokens<C> {
    /// Accepts these tokens. Of a token that is there twice the last claims count; an empty one is never accepted.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = (T, C)>) -> Self {
        let tokens = tokens.into_iter().map(|(token, claims)| (Digest::of(token.as_ref()), claims));
        Self(Arc::new(tokens.collect()))
    }
}

impl<C: Clone + Send + Sync + 'static> VerifyToken for StaticTokens<C> {
    type Claims = C;

    fn verify(&self, token: Token, _: &Parts) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        let claims = self.0.get(&Digest::of(token.expose())).cloned();
        ready(claims.map(Verified::new).ok_or_else(|| RejectionKind::TokenInvalid.into()))
    }
}

impl<C> fmt::Debug for StaticTokens<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.0.len())
    }
}

/// The map hashes digests with a key of its own, so its buckets tell a stranger nothing.
struct Digest([u8; 32]);

impl Digest {
    fn of(token: &str) -> Self {
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
