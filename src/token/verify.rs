use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use http::request::Parts;

use super::{
    TokenSource, Verified,
    combine::{Expiring, MapClaims, Or, Require},
};
use crate::rejection::Rejection;

/// A credential from a handshake. `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    pub(super) secret: Arc<str>,
    /// The policy's sources, and which of them it was.
    pub(super) source: Option<(Arc<[TokenSource]>, usize)>,
    /// Which source it was of those that the verifier at hand is for.
    pub(super) position: usize,
}

impl Token {
    /// A token that did not come with a handshake: to call a verifier from elsewhere, such as a test.
    #[must_use]
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self { secret: secret.into(), source: None, position: 0 }
    }

    pub(super) fn found(secret: String, sources: &Arc<[TokenSource]>, index: usize) -> Self {
        Self { secret: secret.into(), source: Some((Arc::clone(sources), index)), position: index }
    }

    /// The secret. Compare it in constant time, and keep it out of logs and errors.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// Where the client put it; `None` if it did not come with a handshake.
    #[must_use]
    pub fn source(&self) -> Option<&TokenSource> {
        self.source.as_ref().map(|(sources, index)| &sources[*index])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("source", &self.source()).finish_non_exhaustive()
    }
}

/// Decides whether a token is valid, and what it stands for.
///
/// Implemented by [`StaticTokens`](crate::StaticTokens), by the verifiers of JWTs and of tickets behind their features, and by
/// closures `|token: Token| async move { … }` that return `Result<Verified<Claims>, Rejection>`. Implement it for a type of your own to
/// see the request, too.
///
/// A verifier accepts, abstains or fails:
///
/// | it returns | which means | and in a chain made by [`or`](Self::or) |
/// |---|---|---|
/// | `Ok` | the token is good | is the answer |
/// | [`TokenInvalid`](crate::RejectionKind::TokenInvalid) | it knows no such token: malformed, unknown, expired, used before | the next verifier is asked |
/// | [`TokenForbidden`](crate::RejectionKind::TokenForbidden) | the token is good, but not good enough | is the answer |
/// | [`Rejection::verifier_failed`] | it cannot tell | is the answer |
///
/// An error never lets a handshake in. Nothing of a verdict is kept: each handshake asks again, so what was revoked is refused.
///
/// ```
/// use tower_ws_guard::{Rejection, RejectionKind, Token, TokenPolicy, Verified};
///
/// #[derive(Clone)]
/// struct User(String);
///
/// let policy = TokenPolicy::bearer(|token: Token| async move {
///     match look_up(token.expose()).await.map_err(Rejection::verifier_failed)? {
///         Some(name) => Ok(Verified::new(User(name))),
///         None => Err(RejectionKind::TokenInvalid.into()),
///     }
/// });
/// # let _ = policy;
/// # async fn look_up(token: &str) -> Result<Option<String>, std::io::Error> { Ok(Some(token.into())) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot verify tokens",
    note = "a verifier is a `StaticTokens`, a closure `|token: Token| async move {{ … }}` that returns `Result<Verified<Claims>, \
            Rejection>`, or a type that implements `VerifyToken`",
    note = "the closure, its future and the claims must be `Send + 'static`, the closure `Sync` and the claims `Clone + Sync`"
)]
pub trait VerifyToken: Send + Sync + 'static {
    /// What a valid token stands for. The services behind find it as [`Claims<T>`](crate::Claims) in the extensions of the
    /// request.
    type Claims: Clone + Send + Sync + 'static;

    /// Verifies `token`. It has been taken out of `request`, unless it is a cookie or [is kept](crate::TokenPolicy::keep_credential).
    ///
    /// The future is dropped when the [`check_timeout`](crate::GuardLayer::check_timeout) is over, 10 seconds by default.
    fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> impl Future<Output = Result<Verified<Self::Claims>, Rejection>> + Send;

    /// Asks `other` about the tokens that this verifier does not know (`token-invalid`). Any other answer is final, a failure too:
    /// put the verifier that depends on least first. If the two have claims of different types, bring them together by
    /// [`map_claims`](Self::map_claims).
    ///
    /// For verifiers of different sources, as tickets and API keys, see [`TokenPolicy::or`](crate::TokenPolicy::or).
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, VerifyToken};
    ///
    /// #[derive(Clone)]
    /// enum User {
    ///     Admin,
    ///     Named(&'static str),
    /// }
    ///
    /// let admins = StaticTokens::new([("s3cr3t", User::Admin)]);
    /// let users = StaticTokens::new([("tr0ub4dor", "alice")]);
    /// let policy = TokenPolicy::bearer(admins.or(users.map_claims(User::Named)));
    /// # let _ = policy;
    /// ```
    fn or<V: VerifyToken<Claims = Self::Claims>>(self, other: V) -> Or<Self, V>
    where
        Self: Sized,
    {
        Or { first: self, second: other }
    }

    /// Refuses with `token-forbidden` what does not satisfy `predicate`: a missing scope or role, for instance.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, VerifyToken};
    ///
    /// let tokens = StaticTokens::new([("s3cr3t", "read write"), ("tr0ub4dor", "read")]);
    /// let policy = TokenPolicy::bearer(tokens.require(|scope| scope.split(' ').any(|scope| scope == "write")));
    /// # let _ = policy;
    /// ```
    fn require<F>(self, predicate: F) -> Require<Self, F>
    where
        Self: Sized,
        F: Fn(&Self::Claims) -> bool + Send + Sync + 'static,
    {
        Require { verifier: self, predicate }
    }

    /// Turns the claims into others, such as those of another verifier.
    fn map_claims<F, C>(self, map: F) -> MapClaims<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Claims) -> C + Send + Sync + 'static,
        C: Clone + Send + Sync + 'static,
    {
        MapClaims { verifier: self, map }
    }

    /// Reads from the claims when they expire: then the token is refused, and a live socket hears of it by
    /// [`Validity`](crate::Validity).
    fn expiring<F>(self, expires_at: F) -> Expiring<Self, F>
    where
        Self: Sized,
        F: Fn(&Self::Claims) -> Option<SystemTime> + Send + Sync + 'static,
    {
        Expiring { verifier: self, expires_at }
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut, C> VerifyToken for F
where
    F: Fn(Token) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Verified<C>, Rejection>> + Send,
    C: Clone + Send + Sync + 'static,
{
    type Claims = C;

    fn verify(&self, token: Token, _: &Parts) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        self(token)
    }
}

impl<V: VerifyToken> VerifyToken for Arc<V> {
    type Claims = V::Claims;

    fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> impl Future<Output = Result<Verified<Self::Claims>, Rejection>> + Send {
        V::verify(self, token, request)
    }
}
