use std::{
    any::type_name,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, request::Parts};

use super::{Claims, Token, TokenSource, Validity, Verified, VerifyToken, credential::Credential};
use crate::{
    config::ConfigError,
    handshake::Handshake,
    rejection::{Rejection, RejectionKind},
};

/// The token policy: the sources of the credential, and its verifier.
///
/// `C` is the type of the claims.
///
/// ```
/// use tower_ws_guard::{AllowOrigin, GuardLayer, StaticTokens, TokenPolicy};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let tokens = StaticTokens::new([("s3cr3t", "alice")]);
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(tokens))?;
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct TokenPolicy<C> {
    check: TokenCheck,
    claims: PhantomData<fn() -> C>,
}

/// A [`TokenPolicy`] without the type of its claims.
#[derive(Clone)]
pub(crate) struct TokenCheck {
    sources: Arc<[TokenSource]>,
    /// One for each source.
    verifiers: Arc<[Arc<dyn Verifier>]>,
    keep_credential: bool,
}

impl<C: Clone + Send + Sync + 'static> TokenPolicy<C> {
    /// Takes the credential from `Authorization: Bearer` only. Scripts in browsers cannot send that
    /// on a WebSocket.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy};
    ///
    /// let policy = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]));
    /// # let _ = policy;
    /// ```
    pub fn bearer<V: VerifyToken<Claims = C>>(verifier: V) -> Self {
        Self::new([TokenSource::authorization()].into(), verifier)
    }

    /// Takes exactly one credential from all of `sources` together.
    ///
    /// # Errors
    ///
    /// There is no source, a source is listed twice, or another source begins with the prefix of a
    /// subprotocol.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let tokens = StaticTokens::new([("s3cr3t", ())]);
    /// let policy = TokenPolicy::from_sources(
    ///     [TokenSource::authorization(), TokenSource::cookie("session")?],
    ///     tokens.clone(),
    /// )?;
    /// assert!(TokenPolicy::from_sources([], tokens).is_err());
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_sources<V: VerifyToken<Claims = C>>(
        sources: impl IntoIterator<Item = TokenSource>,
        verifier: V,
    ) -> Result<Self, ConfigError> {
        Ok(Self::new(distinct(sources)?, verifier))
    }

    fn new<V: VerifyToken<Claims = C>>(sources: Arc<[TokenSource]>, verifier: V) -> Self {
        let verifier: Arc<dyn Verifier> = Arc::new(verifier);
        let verifiers = sources.iter().map(|_| Arc::clone(&verifier)).collect();
        let check = TokenCheck { sources, verifiers, keep_credential: false };
        Self { check, claims: PhantomData }
    }

    /// Takes exactly one credential from the sources of both policies, and verifies it with the
    /// verifier of its source.
    ///
    /// # Errors
    ///
    /// Both policies have the same source, a source of one begins with the prefix of a subprotocol
    /// of the other, or only one of the two [keeps its credential](Self::keep_credential).
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let keys = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "a service")]));
    /// let sessions = StaticTokens::new([("tr0ub4dor", "alice")]);
    /// let sessions = TokenPolicy::from_sources([TokenSource::cookie("session")?], sessions)?;
    /// // A key is valid in `Authorization` only, and a session in the cookie.
    /// let policy = keys.or(sessions)?;
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    pub fn or(self, other: Self) -> Result<Self, ConfigError> {
        let (first, second) = (self.check, other.check);
        if first.keep_credential != second.keep_credential {
            return Err(ConfigError::new(
                "",
                "only one of the policies keeps its credential; call `keep_credential` on the \
                 result",
            ));
        }
        let sources = distinct(first.sources.iter().chain(&*second.sources).cloned())?;
        let verifiers = first.verifiers.iter().chain(&*second.verifiers).cloned().collect();
        let check = TokenCheck { sources, verifiers, keep_credential: first.keep_credential };
        Ok(Self { check, claims: PhantomData })
    }

    /// Leaves the query parameter and `Authorization` in the request that inner services see.
    /// `Debug` of the header does not show the credential, but `Debug` of the URI does.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy};
    ///
    /// let tokens = StaticTokens::new([("s3cr3t", "alice")]);
    /// let policy = TokenPolicy::bearer(tokens).keep_credential();
    /// # let _ = policy;
    /// ```
    pub fn keep_credential(mut self) -> Self {
        self.check.keep_credential = true;
        self
    }

    pub(crate) fn into_check(self) -> TokenCheck {
        self.check
    }
}

fn distinct(
    sources: impl IntoIterator<Item = TokenSource>,
) -> Result<Arc<[TokenSource]>, ConfigError> {
    let sources = sources.into_iter().collect::<Arc<[_]>>();
    if sources.is_empty() {
        return Err(ConfigError::new("", "a token policy needs at least one source"));
    }
    let overlap = |i: usize| (0..sources.len()).any(|j| i != j && sources[i].overlaps(&sources[j]));
    if (0..sources.len()).any(overlap) {
        return Err(ConfigError::new(
            "",
            "a token source is listed twice, or is a prefix of another, so its tokens would be \
             ambiguous",
        ));
    }
    Ok(sources)
}

impl<C> Clone for TokenPolicy<C> {
    fn clone(&self) -> Self {
        Self { check: self.check.clone(), claims: PhantomData }
    }
}

impl<C> fmt::Debug for TokenPolicy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPolicy")
            .field("sources", &self.check.sources)
            .field("keep_credential", &self.check.keep_credential)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCheck").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl TokenCheck {
    pub(crate) fn sources(&self) -> &[TokenSource] {
        &self.sources
    }

    /// The name of the type of the claims.
    #[cfg(feature = "axum")]
    pub(crate) fn claims(&self) -> &'static str {
        self.verifiers.first().map_or("", |verifier| verifier.claims())
    }

    /// Hides the headers that may hold a credential from `Debug` of the request.
    pub(crate) fn hide_credentials(&self, headers: &mut HeaderMap) {
        for name in self.sources.iter().filter_map(TokenSource::sensitive_header) {
            if let http::header::Entry::Occupied(mut lines) = headers.entry(name) {
                lines.iter_mut().for_each(|line| line.set_sensitive(true));
            }
        }
    }

    /// Finds the one credential.
    pub(crate) fn find(&self, handshake: &Handshake<'_>) -> Result<FoundToken, Rejection> {
        let mut only: Option<(usize, Credential<'_>)> = None;
        let mut ambiguous = false;
        for (index, source) in self.sources.iter().enumerate() {
            let mut found = |credential| ambiguous |= only.replace((index, credential)).is_some();
            source.find(handshake, &mut found);
        }
        match only {
            None => Err(RejectionKind::TokenMissing.into()),
            Some(_) if ambiguous => Err(RejectionKind::TokenAmbiguous.into()),
            Some((index, credential)) => match credential.decode() {
                Some(secret) => Ok(FoundToken {
                    token: Token::from_source(&secret, &self.sources, index),
                    verifier: Arc::clone(&self.verifiers[index]),
                }),
                None => Err(RejectionKind::TokenInvalid.into()),
            },
        }
    }

    /// Removes the credential from the request. A credential that cannot be removed is rejected.
    pub(crate) fn strip(&self, request: &mut Parts) -> Result<(), Rejection> {
        if self.keep_credential {
            return Ok(());
        }
        let invalid =
            |error| Rejection::new(RejectionKind::TokenInvalid).with_source(Box::new(error));
        for source in &*self.sources {
            source.strip_headers(&mut request.headers);
            source.strip_uri(&mut request.uri).map_err(invalid)?;
            #[cfg(feature = "axum")]
            if let Some(original) = request.extensions.get_mut::<::axum::extract::OriginalUri>() {
                source.strip_uri(&mut original.0).map_err(invalid)?;
            }
        }
        Ok(())
    }
}

/// A token and the verifier of its source.
pub(crate) struct FoundToken {
    token: Token,
    verifier: Arc<dyn Verifier>,
}

/// Resolves to the request, with the claims in its extensions if the token is valid.
pub(crate) type Verification = Pin<Box<dyn Future<Output = (Parts, Result<(), Rejection>)> + Send>>;

impl FoundToken {
    /// Verifies without waiting, if the verifier can do that.
    pub(crate) fn verify_now(&self, request: &mut Parts) -> Option<Result<(), Rejection>> {
        self.verifier.verify_now(&self.token, request)
    }

    pub(crate) fn verify(self, request: Parts, timeout: Duration) -> Verification {
        self.verifier.verify(self.token, request, timeout)
    }
}

/// A [`VerifyToken`] without the type of its claims: it inserts them into the request's extensions.
trait Verifier: Send + Sync {
    fn verify_now(&self, token: &Token, request: &mut Parts) -> Option<Result<(), Rejection>>;

    fn verify(self: Arc<Self>, token: Token, request: Parts, timeout: Duration) -> Verification;

    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "for the extractor's error"))]
    fn claims(&self) -> &'static str;
}

impl<V: VerifyToken> Verifier for V {
    fn verify_now(&self, token: &Token, request: &mut Parts) -> Option<Result<(), Rejection>> {
        let result = V::verify_now(self, token, request)?;
        Some(result.and_then(|verified| insert(verified, request)))
    }

    fn verify(
        self: Arc<Self>,
        token: Token,
        mut request: Parts,
        timeout: Duration,
    ) -> Verification {
        Box::pin(async move {
            let result = match within(timeout, V::verify(&self, token, &request)).await {
                Some(result) => result.and_then(|verified| insert(verified, &mut request)),
                None => Err(RejectionKind::VerifierTimeout.into()),
            };
            (request, result)
        })
    }

    fn claims(&self) -> &'static str {
        type_name::<V::Claims>()
    }
}

/// Inserts the claims and their validity into the extensions of the request.
fn insert<C: Clone + Send + Sync + 'static>(
    verified: Verified<C>,
    request: &mut Parts,
) -> Result<(), Rejection> {
    let Verified { claims, validity } = verified;
    if validity.has_ended() {
        return Err(Rejection::new(RejectionKind::TokenInvalid)
            .with_source("its claims have expired or are revoked"));
    }
    request.extensions.insert(Claims(claims));
    // An outer token check may have limited the validity, too.
    let validity = validity.and(request.extensions.get::<Validity>());
    if validity.is_limited() {
        request.extensions.insert(validity);
    }
    Ok(())
}

/// `None` if the future takes too long. A future that is ready at once needs no timer.
async fn within<F: Future>(timeout: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(timeout, future).await.ok(),
    }
}
