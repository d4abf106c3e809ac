use std::{any::type_name, fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::{HeaderMap, request::Parts};

use super::{Claims, Token, TokenSource, Validity, Verified, VerifyToken, credential::Credential};
use crate::{
    config::ConfigError,
    guard::wait::{WaitFuture, within},
    handshake::Handshake,
    rejection::{Challenges, Rejection, RejectionKind as Kind},
};

/// The token policy: the sources of the credential, and its verifier.
///
/// `C` is the type of the claims.
///
/// ```
/// use tower_ws_guard::{AllowOrigin, GuardLayer, StaticTokens, TokenPolicy};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
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
    settings: Settings,
}

/// The settings that must be the same in both policies of [`TokenPolicy::or`].
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    keep_credential: bool,
    first_source_wins: bool,
    max_length: usize,
    /// `None` if they follow the sources.
    challenges: Option<Challenges>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_credential: false,
            first_source_wins: false,
            max_length: 8 * 1024,
            challenges: None,
        }
    }
}

impl<C: Clone + Send + Sync + 'static> TokenPolicy<C> {
    /// Takes the credential from `Authorization: Bearer` only. Scripts in browsers cannot send that
    /// on a WebSocket.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy};
    ///
    /// let policy = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]).unwrap());
    /// # let _ = policy;
    /// ```
    pub fn bearer<V: VerifyToken<Claims = C>>(verifier: V) -> Self {
        Self::new([TokenSource::authorization()].into(), verifier)
    }

    /// Takes exactly one credential from all of `sources` together. The same one twice in one
    /// source is one, and an empty one is none.
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
    /// let tokens = StaticTokens::new([("s3cr3t", ())])?;
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
        let check = TokenCheck { sources, verifiers, settings: Settings::default() };
        Self { check, claims: PhantomData }
    }

    /// Takes exactly one credential from the sources of both policies, and verifies it with the
    /// verifier of its source.
    ///
    /// # Errors
    ///
    /// Both policies have the same source, a source of one begins with the prefix of a subprotocol
    /// of the other, or the policies differ in a setting.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let keys = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "a service")])?);
    /// let sessions = StaticTokens::new([("tr0ub4dor", "alice")])?;
    /// let sessions = TokenPolicy::from_sources([TokenSource::cookie("session")?], sessions)?;
    /// // A key is valid in `Authorization` only, and a session in the cookie.
    /// let policy = keys.or(sessions)?;
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    pub fn or(self, other: Self) -> Result<Self, ConfigError> {
        let (first, second) = (self.check, other.check);
        if first.settings != second.settings {
            return Err(ConfigError::new(
                "",
                "the policies differ in `keep_credential`, `first_source_wins`, `max_length` or \
                 `challenge`; call it on the result",
            ));
        }
        let sources = distinct(first.sources.iter().chain(&*second.sources).cloned())?;
        let verifiers = first.verifiers.iter().chain(&*second.verifiers).cloned().collect();
        let check = TokenCheck { sources, verifiers, settings: first.settings };
        Ok(Self { check, claims: PhantomData })
    }

    /// Leaves the query parameter and the header in the request that inner services see. `Debug` of
    /// the header does not show the credential, but `Debug` of the URI does.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy};
    ///
    /// let tokens = StaticTokens::new([("s3cr3t", "alice")]).unwrap();
    /// let policy = TokenPolicy::bearer(tokens).keep_credential();
    /// # let _ = policy;
    /// ```
    pub fn keep_credential(mut self) -> Self {
        self.check.settings.keep_credential = true;
        self
    }

    /// Takes the credential of the first source that holds one, in the order of the sources, and
    /// ignores those of the others. They are removed as well, except for cookies. For servers
    /// behind a proxy that adds its own.
    ///
    /// Two different credentials in that source are still ambiguous.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let sources = [TokenSource::pair("bearer")?, TokenSource::authorization()];
    /// let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
    /// // The proxy in front sends its own `Authorization` beside the browser's token.
    /// let policy = TokenPolicy::from_sources(sources, tokens)?.first_source_wins();
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    pub fn first_source_wins(mut self) -> Self {
        self.check.settings.first_source_wins = true;
        self
    }

    /// Sets the maximum length of a decoded credential in bytes: 8192 by default. A later call
    /// replaces an earlier one.
    ///
    /// The server must accept such headers, too: hyper's own limits are in
    /// [`hardening`](crate::guide::hardening).
    ///
    /// # Errors
    ///
    /// `bytes` is 0.
    pub fn max_length(mut self, bytes: usize) -> Result<Self, ConfigError> {
        if bytes == 0 {
            return Err(ConfigError::new("0", "a credential has at least one byte"));
        }
        self.check.settings.max_length = bytes;
        Ok(self)
    }

    /// Sets the challenge of a 401 (RFC 9110 11.6.1): `SCHEME realm="REALM"`. A second call adds
    /// one. That of `Bearer` also names what is wrong with a token, in a 400, 401 or 403 (RFC 6750
    /// 3.1).
    ///
    /// Without a call it follows the sources: `Basic realm="websocket"` for [`TokenSource::basic`],
    /// no challenge if all sources are cookies, and otherwise `Bearer realm="websocket"`. A
    /// [`RejectionResponse`](crate::RejectionResponse) can replace it, too.
    ///
    /// # Errors
    ///
    /// `scheme` is not a token, or `realm` has a character that is not visible ASCII or a space.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let keys = StaticTokens::new([("s3cr3t", "a service")])?;
    /// let policy = TokenPolicy::from_sources([TokenSource::header("x-api-key")?], keys)?
    ///     .challenge("ApiKey", "chat")?;
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    pub fn challenge(mut self, scheme: &str, realm: &str) -> Result<Self, ConfigError> {
        let challenges = &mut self.check.settings.challenges;
        challenges.get_or_insert_default().add(scheme, realm)?;
        Ok(self)
    }

    /// Sends a 401 without a challenge. Browsers then never ask for a user name. It replaces the
    /// [challenges](Self::challenge) that are set.
    pub fn without_challenge(mut self) -> Self {
        self.check.settings.challenges = Some(Challenges::default());
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
            .field("keep_credential", &self.check.settings.keep_credential)
            .field("first_source_wins", &self.check.settings.first_source_wins)
            .field("max_length", &self.check.settings.max_length)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCheck").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl TokenCheck {
    /// The query parameters whose token is not a one-time token.
    #[cfg(feature = "lint")]
    pub(crate) fn reusable_in_query(&self) -> impl Iterator<Item = &TokenSource> {
        let with_verifiers = self.sources.iter().zip(&*self.verifiers);
        with_verifiers
            .filter(|(source, verifier)| source.is_query() && !verifier.is_one_time())
            .map(|(source, _)| source)
    }

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
        self.sources.iter().for_each(|source| source.hide_in(headers));
    }

    /// The challenges of a 401.
    pub(crate) fn challenges(&self) -> Challenges {
        self.settings.challenges.clone().unwrap_or_else(|| {
            let is_other = |source: &TokenSource| !source.is_basic() && !source.is_cookie();
            let basic = self.sources.iter().any(TokenSource::is_basic);
            Challenges::new(basic, self.sources.iter().any(is_other))
        })
    }

    /// Finds the one credential.
    pub(crate) fn find(&self, handshake: &Handshake<'_>) -> Result<FoundToken, Rejection> {
        let Settings { first_source_wins, max_length, .. } = &self.settings;
        let max_length = *max_length;
        let mut only: Option<(usize, Credential<'_>)> = None;
        let mut other = None;
        for (index, source) in self.sources.iter().enumerate() {
            if *first_source_wins && only.is_some() {
                break;
            }
            source.find(handshake, |credential| match &only {
                None => only = Some((index, credential)),
                // Two are enough, however many a client sends.
                Some(_) if other.is_some() => {}
                // Browsers send a cookie twice, for the host and for the domain.
                Some((first, only)) if *first == index && only.is_equal(&credential) => {}
                Some(_) => other = Some(index),
            });
        }
        let Some((index, credential)) = only else { return Err(Kind::TokenMissing.into()) };
        let source = &self.sources[index];
        if let Some(other) = other {
            let other = &self.sources[other];
            return Err(Rejection::new(Kind::TokenAmbiguous).with_source(if source == other {
                format!("`{source}` holds two different tokens")
            } else {
                // RFC 6750 2: a client uses one method only, even for the same token.
                format!("`{source}` and `{other}` both hold a token")
            }));
        }
        match credential.token(max_length) {
            Ok(token) => Ok(FoundToken {
                token: token.found_in(&self.sources, index),
                verifier: Arc::clone(&self.verifiers[index]),
            }),
            Err(malformed) => Err(Rejection::new(Kind::TokenInvalid)
                .with_source(format!("the token of `{source}` is malformed: {malformed}"))),
        }
    }

    /// Removes the credential from the request. A credential that cannot be removed is rejected.
    pub(crate) fn strip(
        &self,
        request: &mut Parts,
        found: Option<&FoundToken>,
    ) -> Result<(), Rejection> {
        if self.settings.keep_credential {
            return Ok(());
        }
        let invalid = |error| Rejection::new(Kind::TokenInvalid).with_source(Box::new(error));
        for source in &*self.sources {
            let is_found = found.is_some_and(|found| found.token.is_from(source));
            source.strip_headers(&mut request.headers, is_found);
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

impl FoundToken {
    /// Verifies without waiting, if the verifier can do that.
    pub(crate) fn verify_now(&self, request: &mut Parts) -> Option<Result<(), Rejection>> {
        self.verifier.verify_now(&self.token, request)
    }

    pub(crate) fn verify(self, request: Parts, timeout: Duration) -> WaitFuture {
        self.verifier.verify(self.token, request, timeout)
    }
}

/// A [`VerifyToken`] without the type of its claims: it inserts them into the request's extensions.
trait Verifier: Send + Sync {
    fn verify_now(&self, token: &Token, request: &mut Parts) -> Option<Result<(), Rejection>>;

    fn verify(self: Arc<Self>, token: Token, request: Parts, timeout: Duration) -> WaitFuture;

    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "for the extractor's error"))]
    fn claims(&self) -> &'static str;

    #[cfg_attr(not(feature = "lint"), expect(dead_code, reason = "for the lint"))]
    fn is_one_time(&self) -> bool;
}

impl<V: VerifyToken> Verifier for V {
    fn verify_now(&self, token: &Token, request: &mut Parts) -> Option<Result<(), Rejection>> {
        let result = V::verify_now(self, token, request)?;
        Some(result.and_then(|verified| insert(verified, request)))
    }

    fn verify(self: Arc<Self>, token: Token, mut request: Parts, timeout: Duration) -> WaitFuture {
        Box::pin(async move {
            let result = match within(timeout, V::verify(&self, token, &request)).await {
                Some(result) => result.and_then(|verified| insert(verified, &mut request)),
                None => Err(Kind::VerifierTimeout.into()),
            };
            (request, result.map(|()| Vec::new()))
        })
    }

    fn claims(&self) -> &'static str {
        type_name::<V::Claims>()
    }

    fn is_one_time(&self) -> bool {
        V::is_one_time(self)
    }
}

/// Inserts the claims and their validity into the extensions of the request.
fn insert<C: Clone + Send + Sync + 'static>(
    verified: Verified<C>,
    request: &mut Parts,
) -> Result<(), Rejection> {
    let Verified { claims, validity } = verified;
    if validity.has_ended() {
        return Err(Rejection::new(Kind::TokenInvalid)
            .with_source("its claims have expired or are revoked"));
    }
    request.extensions.insert(Claims(claims));
    if validity.is_limited() {
        // An outer token check may have limited the validity, too.
        let validity = validity.and(request.extensions.get::<Validity>());
        request.extensions.insert(validity);
    }
    Ok(())
}
