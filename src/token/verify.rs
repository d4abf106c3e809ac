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

use crate::rejection::{Rejection, RejectionKind};

/// A credential from a handshake. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub(super) fn new(token: String) -> Self {
        Self(token)
    }

    /// The secret. Compare it in constant time, and keep it out of logs and errors.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Decides whether a token is valid, and what it stands for.
///
/// Implemented by [`StaticTokens`] and by closures `|token: Token| async move { … }`. Implement it for a type of your own to see the
/// request, too.
///
/// Return [`TokenInvalid`](RejectionKind::TokenInvalid) for a token that is unknown or expired,
/// [`TokenForbidden`](RejectionKind::TokenForbidden) for one that is good but not good enough, and
/// [`Rejection::verifier_failed`] when it cannot be told. An error never lets a handshake in.
///
/// ```
/// use tower_ws_guard::{Rejection, RejectionKind, Token, TokenPolicy};
///
/// #[derive(Clone)]
/// struct User(String);
///
/// let policy = TokenPolicy::bearer(|token: Token| async move {
///     match look_up(token.expose()).await.map_err(Rejection::verifier_failed)? {
///         Some(name) => Ok(User(name)),
///         None => Err(RejectionKind::TokenInvalid.into()),
///     }
/// });
/// # let _ = policy;
/// # async fn look_up(token: &str) -> Result<Option<String>, std::io::Error> { Ok(Some(token.into())) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot verify tokens",
    note = "a verifier is a `StaticTokens`, a closure `|token: Token| async move {{ … }}` that returns `Result<Claims, Rejection>`, or \
            a type that implements `VerifyToken`",
    note = "the closure, its future and the claims must be `Send + 'static`, the closure `Sync` and the claims `Clone + Sync`"
)]
pub trait VerifyToken: Send + Sync + 'static {
    /// What a valid token stands for. The services behind find it as [`Claims<T>`](crate::Claims) in the extensions of the
    /// request.
    type Claims: Clone + Send + Sync + 'static;

    /// Verifies `token`. It has been taken out of `request`, unless it is a cookie or [is kept](crate::TokenPolicy::keep_credential).
    ///
    /// Nothing limits how long this takes: put a timeout around what may hang.
    fn verify(&self, token: Token, request: &Parts) -> impl Future<Output = Result<Self::Claims, Rejection>> + Send;
}

#[diagnostic::do_not_recommend]
impl<F, Fut, C> VerifyToken for F
where
    F: Fn(Token) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C, Rejection>> + Send,
    C: Clone + Send + Sync + 'static,
{
    type Claims = C;

    fn verify(&self, token: Token, _: &Parts) -> impl Future<Output = Result<C, Rejection>> + Send {
        self(token)
    }
}

impl<V: VerifyToken> VerifyToken for Arc<V> {
    type Claims = V::Claims;

    fn verify(&self, token: Token, request: &Parts) -> impl Future<Output = Result<Self::Claims, Rejection>> + Send {
        V::verify(self, token, request)
    }
}

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

    fn verify(&self, token: Token, _: &Parts) -> impl Future<Output = Result<C, Rejection>> + Send {
        let claims = self.0.get(&Digest::of(token.expose())).cloned();
        ready(claims.ok_or_else(|| RejectionKind::TokenInvalid.into()))
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
