//! One-time tickets: how a page in a browser authenticates on a WebSocket.
//!
//! A script cannot send `Authorization` on a WebSocket, and a long-lived token in the URL ends up in the logs of every proxy. So
//! the page asks for a ticket by an ordinary, authenticated request, and opens `/ws?ticket=…` with it at once. The ticket is random, works
//! once, and only for seconds: what a log keeps of it is worthless.
//!
//! 1. [`TicketIssuer`] makes a ticket of 256 bits from the operating system, keeps its SHA-256 with your claims in a
//!    [`TicketStore`], and hands it out, bound to the page's origin if you like.
//! 2. [`TicketVerifier`] takes it out of the store again, which can be done once. That comes after all other checks, so a handshake
//!    that is refused for another reason does not spend it; one that is refused by the ticket's own origin, or fails later, does.
//!
//! Tickets from one store are taken by every verifier on it whose claims fit: give endpoints that mean something else by them a store,
//! or a [prefix](RedisTicketStore::prefix), of their own.
//!
//! | store | for | feature |
//! |---|---|---|
//! | [`MemoryTicketStore`] | one process | `tickets` |
//! | [`RedisTicketStore`] | several servers that share a Redis | `redis` |
//! | a [`TicketStore`] of your own | what you have | `tickets` |
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Claims, TokenCheckLayer, TokenPolicy, TokenSource,
//!     token::ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryTicketStore::default();
//! let issuer = TicketIssuer::new(store.clone());
//! let verifier = TicketVerifier::<String, _>::new(store);
//! let policy = TokenPolicy::from_sources([TokenSource::query("ticket")?], verifier)?;
//! let service = ServiceBuilder::new()
//!     .layer(TokenCheckLayer::new(policy))
//!     .service(service_fn(async |request: Request<()>| {
//!         let Claims(user) = request.extensions().get::<Claims<String>>().unwrap();
//!         Ok::<_, std::convert::Infallible>(Response::new(user.clone()))
//!     }));
//!
//! // In the handler of an authenticated `POST /tickets`:
//! let ticket = issuer.issue(&"alice").await?;
//!
//! let handshake = || {
//!     Request::get(format!("/ws?ticket={}", ticket.expose()))
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake()).await?;
//! assert_eq!(accepted.body(), "alice");
//! let replayed = service.oneshot(handshake()).await?;
//! assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{error::Error, fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{header::ORIGIN, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

pub use self::memory::MemoryTicketStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisTicketStore;
use super::{Token, Verified, VerifyToken};
use crate::{
    config::ConfigError,
    origin::Origin,
    rejection::{Rejection, RejectionKind},
};

/// Bytes of a ticket.
const LENGTH: usize = 32;

/// OWASP's pattern: long enough for a page to connect, too short for what a log keeps.
const LIFETIME: Duration = Duration::from_secs(30);

/// Keeps tickets until they are taken or expire.
///
/// It never sees a ticket: `key` is the SHA-256 of one, and `record` what the [`TicketVerifier`] needs.
pub trait TicketStore: Send + Sync + 'static {
    /// Why the store could not be asked. It is logged as the source of a refusal: it must not hold records.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Keeps `record` under `key` for `lifetime`. A key is never put twice.
    fn put(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Takes the record out: `None` if there is none, if it has expired, or if it was taken before. It must be atomic: of all
    /// callers with one key, on all servers, one gets the record.
    fn take(&self, key: TicketKey) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;
}

impl<S: TicketStore> TicketStore for Arc<S> {
    type Error = S::Error;

    fn put(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), S::Error>> + Send {
        S::put(self, key, record, lifetime)
    }

    fn take(&self, key: TicketKey) -> impl Future<Output = Result<Option<Vec<u8>>, S::Error>> + Send {
        S::take(self, key)
    }
}

/// What a [`TicketStore`] knows a ticket by: its SHA-256. To test a store of your own, issue tickets into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    fn of(ticket: &str) -> Self {
        Self(Sha256::digest(ticket).into())
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A ticket for the client: 43 characters that need no escaping in a URL. `Debug` does not show it.
#[derive(Clone)]
pub struct Ticket {
    secret: String,
    lifetime: Duration,
}

impl Ticket {
    /// The secret. Send it to the client that asked, with `Cache-Control: no-store`, and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// How long it can be taken, from when it was issued.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Issues tickets. See the [module docs](self) for an example.
///
/// Issue them to authenticated clients only, and limit how many one client gets: a ticket lets in whoever has it.
#[derive(Clone, Debug)]
#[must_use]
pub struct TicketIssuer<S> {
    store: S,
    lifetime: Duration,
}

impl<S: TicketStore> TicketIssuer<S> {
    /// Issues tickets that can be taken for 30 seconds.
    pub fn new(store: S) -> Self {
        Self { store, lifetime: LIFETIME }
    }

    /// How long a ticket can be taken: a second to an hour.
    ///
    /// # Errors
    ///
    /// It is shorter or longer.
    pub fn lifetime(mut self, lifetime: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&lifetime) {
            return Err(ConfigError::new(
                "",
                "a ticket lives for a second to an hour; 30 seconds are enough to connect",
            ));
        }
        self.lifetime = lifetime;
        Ok(self)
    }

    /// A ticket that stands for `claims`, which are kept as JSON.
    ///
    /// # Errors
    ///
    /// The store failed, the operating system has no random bytes, or the claims cannot be written as JSON.
    pub async fn issue<C: Serialize + Sync>(&self, claims: &C) -> Result<Ticket, TicketError> {
        self.put(claims, None).await
    }

    /// The same, for handshakes with this `Origin` only: that of the request that asks for the ticket, as a browser sends it with
    /// every `POST`.
    ///
    /// # Errors
    ///
    /// As [`issue`](Self::issue).
    pub async fn issue_to_origin<C: Serialize + Sync>(
        &self,
        claims: &C,
        origin: &Origin<'_>,
    ) -> Result<Ticket, TicketError> {
        self.put(claims, Some(canonical(origin))).await
    }

    async fn put<C: Serialize>(&self, claims: &C, origin: Option<String>) -> Result<Ticket, TicketError> {
        let record = serde_json::to_vec(&(origin, claims)).map_err(TicketError::new)?;
        let mut secret = [0; LENGTH];
        getrandom::fill(&mut secret).map_err(TicketError::new)?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        self.store.put(TicketKey::of(&secret), record, self.lifetime).await.map_err(TicketError::new)?;
        Ok(Ticket { secret, lifetime: self.lifetime })
    }
}

/// No ticket could be issued: answer with 503. The cause is its source.
#[derive(Debug)]
pub struct TicketError(Box<dyn Error + Send + Sync>);

impl TicketError {
    fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no ticket could be issued; see the source of this error")
    }
}

impl Error for TicketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Verifies tickets by taking them; their claims are read into `C`. See the [module docs](self) for an example.
///
/// If the claims themselves expire, as a session does, say so with [`VerifyToken::expiring`].
#[must_use]
pub struct TicketVerifier<C, S> {
    store: S,
    claims: PhantomData<fn() -> C>,
}

impl<C, S: TicketStore> TicketVerifier<C, S>
where
    C: DeserializeOwned + Clone + Send + Sync + 'static,
{
    /// Takes tickets out of `store`.
    pub fn new(store: S) -> Self {
        Self { store, claims: PhantomData }
    }
}

impl<C, S: TicketStore> VerifyToken for TicketVerifier<C, S>
where
    C: DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Claims = C;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<C>, Rejection> {
        let invalid = || Rejection::new(RejectionKind::TokenInvalid);
        // Spares the store what cannot be a ticket, such as the tokens of another verifier.
        let is_ticket = URL_SAFE_NO_PAD.decode(token.expose()).is_ok_and(|bytes| bytes.len() == LENGTH);
        if !is_ticket {
            return Err(invalid());
        }
        let taken = self.store.take(TicketKey::of(token.expose())).await.map_err(Rejection::verifier_failed)?;
        let Some(record) = taken else { return Err(invalid()) };
        // Without the error of the parser, which quotes the claims.
        let (bound, claims): (Option<String>, C) = serde_json::from_slice(&record).map_err(|_| {
            Rejection::verifier_failed("the ticket was issued with claims of another type than the verifier reads")
        })?;
        if let Some(bound) = bound
            && origin(request).is_none_or(|origin| canonical(&origin) != bound)
        {
            return Err(invalid().with_source(format!("the ticket is for {bound} only")));
        }
        Ok(Verified::new(claims))
    }
}

/// With the port always, so that the same origin is the same text.
fn canonical(origin: &Origin<'_>) -> String {
    let port = origin.effective_port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", origin.scheme(), origin.host())
}

/// The one origin of the request, if there is one.
fn origin(request: &Parts) -> Option<Origin<'_>> {
    let mut lines = request.headers.get_all(ORIGIN).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Origin::parse(line.as_bytes()).ok(),
        _ => None,
    }
}

impl<C, S: Clone> Clone for TicketVerifier<C, S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), claims: PhantomData }
    }
}

impl<C, S: fmt::Debug> fmt::Debug for TicketVerifier<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketVerifier").field("store", &self.store).finish_non_exhaustive()
    }
}
