use std::{fmt, future::Future, ops::Range, pin::Pin, ptr, sync::Arc, time::SystemTime};

use http::{HeaderValue, request::Parts};

use super::{
    TokenSource, Verified,
    combine::{Expiring, MapClaims, Or, Require},
    revocation::{Revocations, TokenIdentity, UnlessRevoked},
};
use crate::{rejection::Rejection, replaceable::Replaceable};

/// A credential from a handshake. `Debug` does not show it.
///
/// It may share the memory of the whole head of its request. To keep the secret for longer than the
/// verification, copy it.
#[derive(Clone)]
pub struct Token {
    secret: Secret,
    source: Option<(Arc<[TokenSource]>, usize)>,
}

#[derive(Clone)]
enum Secret {
    Owned(Arc<str>),
    /// A part of a header. It is UTF-8.
    InHeader(HeaderValue, Range<usize>),
}

impl Token {
    /// A token without a handshake, to call a verifier from elsewhere, such as a test.
    #[must_use]
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self { secret: Secret::Owned(secret.into()), source: None }
    }

    /// A token that is a slice of `line`, without a copy.
    pub(super) fn in_header(line: &HeaderValue, secret: &[u8]) -> Self {
        let start = secret.as_ptr().addr() - line.as_bytes().as_ptr().addr();
        let secret = Secret::InHeader(line.clone(), start..start + secret.len());
        Self { secret, source: None }
    }

    /// Sets the source to the one at `index`.
    pub(super) fn found_in(self, sources: &Arc<[TokenSource]>, index: usize) -> Self {
        Self { source: Some((Arc::clone(sources), index)), ..self }
    }

    /// The secret. Compare it in constant time, and keep it out of logs and errors.
    #[must_use]
    pub fn expose(&self) -> &str {
        match &self.secret {
            Secret::Owned(secret) => secret,
            Secret::InHeader(..) => str::from_utf8(self.as_bytes()).unwrap_or_default(),
        }
    }

    /// The secret, without a check that it is text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.secret {
            Secret::Owned(secret) => secret.as_bytes(),
            Secret::InHeader(line, range) => &line.as_bytes()[range.clone()],
        }
    }

    /// The user and the password, if it is `USER:PASSWORD`, as [`TokenSource::basic`] takes it. A
    /// user has no colon (RFC 7617 2).
    #[must_use]
    pub fn user_and_password(&self) -> Option<(&str, &str)> {
        self.expose().split_once(':')
    }

    /// Whether it was found in this very source of the policy.
    pub(super) fn is_from(&self, source: &TokenSource) -> bool {
        self.source().is_some_and(|own| ptr::eq(own, source))
    }

    /// The source in which the client sent it. `None` without a handshake.
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

/// Verifies a token and returns its claims.
///
/// [`StaticTokens`](crate::StaticTokens), the verifiers of JWTs and tickets behind their features,
/// and closures `|token: Token| async move { … }` that return `Result<Verified<Claims>, Rejection>`
/// implement it. Implement it for a type of your own to see the request, too.
/// [`boxed`](Self::boxed) makes it a value of one type, for a verifier that is chosen at run time.
///
/// | result | meaning | in a chain made by [`or`](Self::or) |
/// |---|---|---|
/// | `Ok` | the token is valid | final |
/// | [`TokenInvalid`](crate::RejectionKind::TokenInvalid) | the token is malformed, unknown, expired or was used before | the next verifier decides |
/// | [`TokenForbidden`](crate::RejectionKind::TokenForbidden) | the token is valid, but does not allow this | final |
/// | [`Rejection::verifier_failed`] | the verifier cannot tell | final |
///
/// An error never accepts a handshake. Results are not cached: each handshake is verified, so a
/// revoked token is rejected.
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
/// # async fn look_up(token: &str) -> Result<Option<String>, std::io::Error> {
/// #     Ok(Some(token.into()))
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot verify tokens",
    note = "a verifier is a `StaticTokens`, a closure `|token: Token| async move {{ … }}` that \
            returns `Result<Verified<Claims>, Rejection>`, or a type that implements `VerifyToken`",
    note = "the closure, its future and the claims must be `Send + 'static`, the closure `Sync` \
            and the claims `Clone + Sync`"
)]
pub trait VerifyToken: Send + Sync + 'static {
    /// The claims of a valid token. Inner services find them as [`Claims<T>`](crate::Claims) in the
    /// extensions of the request.
    type Claims: Clone + Send + Sync + 'static;

    /// Verifies `token`. It has been removed from `request`, unless it is a cookie or the policy
    /// [keeps it](crate::TokenPolicy::keep_credential).
    ///
    /// The future is dropped after the [`check_timeout`](crate::GuardLayer::check_timeout), 10
    /// seconds by default.
    fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> impl Future<Output = Result<Verified<Self::Claims>, Rejection>> + Send;

    /// Verifies `token` without waiting, if the verifier can do that. The default is `None`: then
    /// [`verify`](Self::verify) is called.
    ///
    /// A verifier that overrides it saves an allocation and a clone of the inner service per
    /// handshake. It must return what `verify` would return. In a chain both may be called for one
    /// token, so it must not redeem anything.
    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        let _ = (token, request);
        None
    }

    /// Whether a token is valid once only. The default is `false`. A one-time token may stand in a
    /// URL, which ends up in logs.
    fn is_one_time(&self) -> bool {
        false
    }

    /// Erases the type of the verifier, for one that is chosen at run time.
    ///
    /// ```
    /// use tower_ws_guard::{
    ///     BoxVerifier, Rejection, StaticTokens, Token, TokenPolicy, Verified, VerifyToken,
    /// };
    ///
    /// fn verifier(configured: Option<&str>) -> BoxVerifier<String> {
    ///     match configured {
    ///         Some(secret) => StaticTokens::new([(secret, "service".to_owned())]).unwrap().boxed(),
    ///         None => (|token: Token| async move { look_up(token).await }).boxed(),
    ///     }
    /// }
    /// let policy = TokenPolicy::bearer(verifier(Some("s3cr3t")));
    /// # let _ = policy;
    /// # async fn look_up(_: Token) -> Result<Verified<String>, Rejection> {
    /// #     Ok("alice".to_owned().into())
    /// # }
    /// ```
    fn boxed(self) -> BoxVerifier<Self::Claims>
    where
        Self: Sized,
    {
        BoxVerifier(Arc::new(self))
    }

    /// Verifies the tokens that this verifier does not know (`token-invalid`) with `other`. Any
    /// other result is final, including a failure: put the verifier with the fewest external
    /// dependencies first. If the claims have different types, unify them with
    /// [`map_claims`](Self::map_claims).
    ///
    /// For verifiers of different sources, such as tickets and API keys, see
    /// [`TokenPolicy::or`](crate::TokenPolicy::or).
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
    /// let admins = StaticTokens::new([("s3cr3t", User::Admin)]).unwrap();
    /// let users = StaticTokens::new([("tr0ub4dor", "alice")]).unwrap();
    /// let policy = TokenPolicy::bearer(admins.or(users.map_claims(User::Named)));
    /// # let _ = policy;
    /// ```
    fn or<V: VerifyToken<Claims = Self::Claims>>(self, other: V) -> Or<Self, V>
    where
        Self: Sized,
    {
        Or { first: self, second: other }
    }

    /// Rejects claims for which `predicate` returns false with `token-forbidden`, for example if a
    /// scope or a role is missing.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, VerifyToken};
    ///
    /// let tokens = StaticTokens::new([("s3cr3t", "read write"), ("tr0ub4dor", "read")]).unwrap();
    /// let writers = tokens.require(|scope| scope.split(' ').any(|scope| scope == "write"));
    /// let policy = TokenPolicy::bearer(writers);
    /// # let _ = policy;
    /// ```
    fn require<F>(self, predicate: F) -> Require<Self, F>
    where
        Self: Sized,
        F: Fn(&Self::Claims) -> bool + Send + Sync + 'static,
    {
        Require { verifier: self, predicate }
    }

    /// Converts the claims, for example into those of another verifier.
    fn map_claims<F, C>(self, map: F) -> MapClaims<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Claims) -> C + Send + Sync + 'static,
        C: Clone + Send + Sync + 'static,
    {
        MapClaims { verifier: self, map }
    }

    /// Reads the time at which the claims expire. After it the token is rejected, and
    /// [`Validity`](crate::Validity) notifies an open connection.
    fn expiring<F>(self, expires_at: F) -> Expiring<Self, F>
    where
        Self: Sized,
        F: Fn(&Self::Claims) -> Option<SystemTime> + Send + Sync + 'static,
    {
        Expiring { verifier: self, expires_at }
    }

    /// Rejects tokens that are revoked with `token-invalid`. `identity` reads from the claims by
    /// what a token is revoked. See [`Revocations`] for an example.
    fn unless_revoked<F>(self, revocations: &Revocations, identity: F) -> UnlessRevoked<Self, F>
    where
        Self: Sized,
        F: for<'a> Fn(&'a Self::Claims) -> TokenIdentity<'a> + Send + Sync + 'static,
    {
        UnlessRevoked { verifier: self, revocations: revocations.clone(), identity }
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

    fn verify(
        &self,
        token: Token,
        _: &Parts,
    ) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
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

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        V::verify_now(self, token, request)
    }

    fn is_one_time(&self) -> bool {
        V::is_one_time(self)
    }
}

/// Verifies with the current verifier.
impl<V: VerifyToken> VerifyToken for Replaceable<V> {
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> Result<Verified<Self::Claims>, Rejection> {
        V::verify(&self.get(), token, request).await
    }

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        V::verify_now(&self.get(), token, request)
    }

    fn is_one_time(&self) -> bool {
        V::is_one_time(&self.get())
    }
}

/// A verifier of any type with claims of type `C`. Made by [`VerifyToken::boxed`].
pub struct BoxVerifier<C>(Arc<dyn DynVerify<C>>);

type Verdict<C> = Result<Verified<C>, Rejection>;

/// The object-safe form of [`VerifyToken`].
trait DynVerify<C>: Send + Sync {
    fn verify<'a>(
        &'a self,
        token: Token,
        request: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Verdict<C>> + Send + 'a>>;

    fn verify_now(&self, token: &Token, request: &Parts) -> Option<Verdict<C>>;

    fn is_one_time(&self) -> bool;
}

impl<V: VerifyToken> DynVerify<V::Claims> for V {
    fn verify<'a>(
        &'a self,
        token: Token,
        request: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Verdict<V::Claims>> + Send + 'a>> {
        Box::pin(V::verify(self, token, request))
    }

    fn verify_now(&self, token: &Token, request: &Parts) -> Option<Verdict<V::Claims>> {
        V::verify_now(self, token, request)
    }

    fn is_one_time(&self) -> bool {
        V::is_one_time(self)
    }
}

impl<C: Clone + Send + Sync + 'static> VerifyToken for BoxVerifier<C> {
    type Claims = C;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<C>, Rejection> {
        self.0.verify(token, request).await
    }

    fn verify_now(&self, token: &Token, request: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        self.0.verify_now(token, request)
    }

    fn is_one_time(&self) -> bool {
        self.0.is_one_time()
    }
}

impl<C> Clone for BoxVerifier<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> fmt::Debug for BoxVerifier<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxVerifier").finish_non_exhaustive()
    }
}
