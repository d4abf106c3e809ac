//! Who connects: finds exactly one credential in the handshake, verifies it, and hands over what it stands for.
//!
//! 1. [`TokenPolicy`] lists the [sources](TokenSource). No credential in any of them is refused with 401, more than one
//!    with 400.
//! 2. The credential is taken out of what the services behind see: always from `Sec-WebSocket-Protocol`, and, unless
//!    [kept](TokenPolicy::keep_credential), from the query (axum's `OriginalUri` included) and from `Authorization`. A cookie
//!    stays, because sessions inside need it.
//! 3. [`VerifyToken`] decides, asynchronously. Whatever goes wrong, the handshake is refused.
//! 4. The services behind find [`Claims<T>`] in the extensions of the request.
//!
//! # Order
//!
//! Put the [origin check](crate::origin) outside this one: a foreign page must not learn whether a token is good, and a ticket
//! that can be used once must not be spent on a handshake that is refused anyway. [`GuardLayer`](crate::GuardLayer) does that.
//!
//! # Verifiers
//!
//! [`StaticTokens`], [JSON Web Tokens](jwt) (feature `jwt`), [one-time tickets](ticket) (feature `tickets`), or a
//! [closure](VerifyToken). They are [combined](VerifyToken#provided-methods) by `or`, for each source by [`TokenPolicy::or`], and narrowed by `require`. A socket
//! that is open learns by [`Validity`] that its claims have expired or are revoked.
//!
//! # Secrets
//!
//! The crate shows a credential nowhere: it is in no log, error or response, in no `Debug` of a type of this crate, and the header
//! that carries it is marked [sensitive](http::HeaderValue::set_sensitive). What it cannot reach:
//!
//! | who sees the credential | what to do |
//! |---|---|
//! | the access log of a proxy in front: the whole query | use one-time tickets there, or log the path alone (nginx: `$uri` in place of `$request`) |
//! | a layer outside the check, such as `TraceLayer`, which logs the URI of a request | put it inside, or have it log `request.uri().path()` alone |
//! | headers in a log of such a layer | tower-http's `SetSensitiveRequestHeadersLayer` for `authorization`, `cookie` and `sec-websocket-protocol`, outside it |
//! | a [`RespondRejection`](crate::RespondRejection) that shows the query of a request that was refused before its token was verified | do not show it |
//! | the log of `h2` at DEBUG, if the target of a request is malformed; it reaches no service then | keep `h2` at INFO |
//! | your handler: the cookie, and what you [kept](TokenPolicy::keep_credential) | do not log it |
//! | a client's history and its own logs | short lives; tickets |
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{Claims, StaticTokens, TokenCheckLayer, TokenPolicy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let tokens = StaticTokens::new([("s3cr3t", "alice")]);
//! let service = ServiceBuilder::new()
//!     .layer(TokenCheckLayer::new(TokenPolicy::bearer(tokens)))
//!     .service(service_fn(async |request: Request<()>| {
//!         let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
//!         assert!(!request.headers().contains_key("authorization"));
//!         Ok::<_, std::convert::Infallible>(Response::new(user.to_string()))
//!     }));
//!
//! let handshake = |token: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("s3cr3t")).await.unwrap();
//! assert_eq!(accepted.body(), "alice");
//!
//! let refused = service.oneshot(handshake("guess")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! assert!(refused.headers().contains_key("www-authenticate"));
//! # }
//! ```

mod combine;
#[cfg(feature = "jwt")]
pub mod jwt;
mod source;
mod stage;
mod static_tokens;
#[cfg(feature = "tickets")]
pub mod ticket;
mod validity;
mod verify;

use std::{fmt, sync::Arc};

use tower_layer::Layer;

pub(crate) use self::stage::{Going, TokenStage, Verify};
pub use self::{
    combine::{BySource, Expiring, MapClaims, Or, Require},
    source::TokenSource,
    stage::NoToken,
    static_tokens::StaticTokens,
    validity::{Validity, Verified},
    verify::{Token, VerifyToken},
};
use crate::{
    config::ConfigError,
    guard::{Guard, Policy, Rules},
    rejection::EmptyBody,
    subprotocol::Subprotocols,
};

/// What a verified token stands for: in the extensions of the request, and, with feature `axum`, an extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper to match on, as `Claims(user)`")]
pub struct Claims<T>(pub T);

/// Where a credential may be, and who verifies it.
#[must_use]
pub struct TokenPolicy<V> {
    sources: Arc<[TokenSource]>,
    verifier: V,
    keep_credential: bool,
}

impl<V: VerifyToken> TokenPolicy<V> {
    /// Takes `Authorization: Bearer` alone. Scripts in browsers cannot send that on a WebSocket.
    pub fn bearer(verifier: V) -> Self {
        Self { sources: [TokenSource::authorization()].into(), verifier, keep_credential: false }
    }

    /// Takes exactly one credential from all of `sources` together.
    ///
    /// # Errors
    ///
    /// No source at all, one twice, or a subprotocol's prefix that another source begins with.
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
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_sources(sources: impl IntoIterator<Item = TokenSource>, verifier: V) -> Result<Self, ConfigError> {
        Ok(Self { sources: distinct(sources)?, verifier, keep_credential: false })
    }

    /// Takes exactly one credential from the sources of both policies, and has it verified by that to which its source belongs.
    ///
    /// ```
    /// use tower_ws_guard::{StaticTokens, TokenPolicy, TokenSource};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let keys = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "a service")]));
    /// let sessions = StaticTokens::new([("tr0ub4dor", "alice")]);
    /// let sessions = TokenPolicy::from_sources([TokenSource::cookie("session")?], sessions)?;
    /// // A key is good in `Authorization` alone, and a session in the cookie.
    /// let policy = keys.or(sessions)?;
    /// # let _ = policy;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A source is in both, or a subprotocol's prefix in one that a source of the other begins with; or only one of the two [keeps its
    /// credential](Self::keep_credential): say it of the result.
    pub fn or<W>(self, other: TokenPolicy<W>) -> Result<TokenPolicy<BySource<V, W>>, ConfigError>
    where
        W: VerifyToken<Claims = V::Claims>,
    {
        if self.keep_credential != other.keep_credential {
            return Err(ConfigError::new("", "only one of the policies keeps its credential; say it of both together"));
        }
        let sources = distinct(self.sources.iter().chain(&*other.sources).cloned())?;
        let verifier = BySource { first: self.verifier, sources: self.sources.len(), second: other.verifier };
        Ok(TokenPolicy { sources, verifier, keep_credential: self.keep_credential })
    }

    /// Leaves the query parameter and `Authorization` in what the services behind see. `Debug` of the header does not show it, `Debug` of
    /// the URI does.
    pub fn keep_credential(self) -> Self {
        Self { keep_credential: true, ..self }
    }
}

fn distinct(sources: impl IntoIterator<Item = TokenSource>) -> Result<Arc<[TokenSource]>, ConfigError> {
    let sources = sources.into_iter().collect::<Arc<[_]>>();
    if sources.is_empty() {
        return Err(ConfigError::new("", "without a source there is never a token; name one"));
    }
    let overlap = |i: usize| (0..sources.len()).any(|j| i != j && sources[i].overlaps(&sources[j]));
    if (0..sources.len()).any(overlap) {
        return Err(ConfigError::new(
            "",
            "a token source is listed twice, or is a prefix of another: its tokens would be ambiguous",
        ));
    }
    Ok(sources)
}

impl<V: Clone> Clone for TokenPolicy<V> {
    fn clone(&self) -> Self {
        Self {
            sources: Arc::clone(&self.sources),
            verifier: self.verifier.clone(),
            keep_credential: self.keep_credential,
        }
    }
}

impl<V> fmt::Debug for TokenPolicy<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPolicy")
            .field("sources", &self.sources)
            .field("keep_credential", &self.keep_credential)
            .finish_non_exhaustive()
    }
}

/// Applies [`TokenCheck`], which lets in handshakes with a valid token.
///
/// See the [module docs](crate::token) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenCheckLayer<V, R = EmptyBody> {
    policy: Arc<Policy<(), TokenPolicy<V>, R>>,
}

impl<V: VerifyToken> TokenCheckLayer<V> {
    /// Refuses every handshake without a token that satisfies `policy`.
    pub fn new(policy: TokenPolicy<V>) -> Self {
        Self { policy: Arc::new(Policy::new(Rules::default()).token(policy)) }
    }
}

impl<V: Clone, R: Clone> TokenCheckLayer<V, R> {
    layer_options!(TokenCheckLayer<V>);

    /// Chooses the subprotocol before the token is verified. Without it a layer behind does, after a ticket has been
    /// spent.
    pub fn subprotocols(mut self, subprotocols: Subprotocols) -> Self {
        self.rules().subprotocols = Some(subprotocols);
        self
    }

    unmatched_option!();
    close_option!();
    timeout_option!();
}

impl<S, V, R> Layer<S> for TokenCheckLayer<V, R> {
    type Service = TokenCheck<S, V, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard::with_policy(inner, Arc::clone(&self.policy))
    }
}

/// Lets in handshakes with a valid token, and everything that is no handshake.
pub type TokenCheck<S, V, R = EmptyBody> = Guard<S, (), TokenPolicy<V>, R>;
