//! One-time tickets: authentication for a page in a browser that opens a WebSocket.
//!
//! A script cannot send `Authorization` on a WebSocket, and a long-lived token in the URL ends up
//! in the logs of every proxy. With tickets, the page requests a ticket with an ordinary,
//! authenticated request, and then opens `/ws?ticket=…`. A ticket is random, can be redeemed once,
//! and expires within seconds. So a ticket in a log is worthless.
//!
//! 1. [`TicketIssuer`] creates a ticket of 256 random bits from the operating system. It stores the
//!    SHA-256 of the ticket with your claims in a [`TicketStore`]. It can bind the ticket to the
//!    origin of the page.
//! 2. [`TicketVerifier`] redeems the ticket: the store consumes it, once. All other checks run
//!    before, so a handshake that another check rejects does not redeem its ticket. A handshake
//!    that the origin of the ticket or a later step rejects does.
//!
//! Every verifier on a store redeems the tickets in it, if it can read their claims. Give endpoints
//! whose claims have another meaning a store of their own, or a
//! [prefix](crate::Redis::prefix) in Redis.
//!
//! | store | for | feature |
//! |---|---|---|
//! | [`MemoryTicketStore`] | one process | `tickets` |
//! | [`RedisTicketStore`] | several servers that share a Redis | `redis` |
//! | a [`TicketStore`] of your own | any other database | `tickets` |
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Claims, TokenCheckLayer, TokenPolicy, TokenSource,
//!     test_util::{assert_rejected, handshake},
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
//! let request = handshake(&format!("/ws?ticket={}", ticket.expose()));
//! let accepted = service.clone().oneshot(request.clone().build(())).await?;
//! assert_eq!(accepted.body(), "alice");
//! let replayed = service.oneshot(request.build(())).await?;
//! assert_rejected(&replayed, "token-invalid");
//! # Ok(())
//! # }
//! ```

mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{error::Error, fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

pub use self::memory::MemoryTicketStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisTicketStore;
use super::{Token, Verified, VerifyToken};
use crate::{
    config::ConfigError,
    http::{Origin, RequestOrigin},
    rejection::{Rejection, RejectionKind},
};

/// The length of a ticket in bytes, before base64.
const LENGTH: usize = 32;

/// Long enough for a page to connect, and too short to steal a ticket from a log.
const LIFETIME: Duration = Duration::from_secs(30);

/// Stores tickets until they are redeemed or expire.
///
/// A store never sees a ticket: `key` is its SHA-256, and `record` holds its claims and its origin.
pub trait TicketStore: Send + Sync + 'static {
    /// The reason why the store failed. It becomes the source of a rejection and is logged, so it
    /// must not contain records.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Stores `record` under `key` for `lifetime`. No key is inserted twice.
    fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the record of `key` and returns it. Returns `None` if there is no record, or if it
    /// has expired or was consumed before.
    ///
    /// This must be atomic: only one of all callers with the same key, on all servers, gets the
    /// record.
    fn consume(
        &self,
        key: TicketKey,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;

    /// Counts a ticket of `subject`, unless `max` of its tickets were counted within the last
    /// `lifetime`. Then returns the time until the first of them is that old. `max` is at least 1.
    ///
    /// This must be atomic, too: of all callers with the same subject, on all servers, only `max`
    /// get `None` within `lifetime`. It is called for a [quota](TicketIssuer::quota) only.
    fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Option<Duration>, Self::Error>> + Send;
}

impl<S: TicketStore> TicketStore for Arc<S> {
    type Error = S::Error;

    fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), S::Error>> + Send {
        S::insert(self, key, record, lifetime)
    }

    fn consume(
        &self,
        key: TicketKey,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, S::Error>> + Send {
        S::consume(self, key)
    }

    fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Option<Duration>, S::Error>> + Send {
        S::count(self, subject, max, lifetime)
    }
}

/// The key of a ticket or of a subject in a [`TicketStore`]: its SHA-256.
///
/// Only an issuer or a verifier creates keys. To test a store of your own, issue tickets into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    fn new(ticket: &str) -> Self {
        Self(Sha256::digest(ticket).into())
    }

    /// No ticket begins like that.
    fn of_subject(subject: &str) -> Self {
        Self(Sha256::new_with_prefix("subject:").chain_update(subject).finalize().into())
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
    /// The secret. Send it only to the client that requested it, with `Cache-Control: no-store`.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// The time from issue to expiry.
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
/// Issue tickets only to authenticated clients, because anyone who has a ticket can connect, and
/// limit their number with a [quota](Self::quota).
#[derive(Clone, Debug)]
#[must_use]
pub struct TicketIssuer<S> {
    store: S,
    lifetime: Duration,
    quota: Option<(TicketKey, u32)>,
}

impl<S: TicketStore> TicketIssuer<S> {
    /// Issues tickets that expire after 30 seconds.
    pub fn new(store: S) -> Self {
        Self { store, lifetime: LIFETIME, quota: None }
    }

    /// Sets the lifetime of tickets: a second to an hour. The default is 30 seconds.
    ///
    /// # Errors
    ///
    /// `lifetime` is shorter than a second or longer than an hour.
    pub fn lifetime(mut self, lifetime: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&lifetime) {
            return Err(ConfigError::new(
                "",
                "the lifetime of a ticket is a second to an hour; 30 seconds are enough to connect",
            ));
        }
        self.lifetime = lifetime;
        Ok(self)
    }

    /// An issuer that issues at most `max` tickets to `subject` within the lifetime of a ticket.
    /// Redeemed tickets count, too. All issuers on a store count together.
    ///
    /// Without a quota, one client who requests tickets in a loop fills the store: then
    /// [`MemoryTicketStore`] evicts the tickets of others. The subject is what you have
    /// authenticated: a user, or an API key. The store sees its SHA-256 only.
    ///
    /// ```
    /// use tower_ws_guard::token::ticket::{MemoryTicketStore, TicketIssuer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let issuer = TicketIssuer::new(MemoryTicketStore::default());
    ///
    /// // In the handler of an authenticated `POST /tickets`:
    /// let user = "alice";
    /// for _ in 0..20 {
    ///     issuer.quota(user, 20).issue(&user).await?;
    /// }
    /// let error = issuer.quota(user, 20).issue(&user).await.unwrap_err();
    /// // Respond with 429 and `Retry-After`.
    /// assert!(error.retry_after().unwrap().as_secs() <= 30);
    /// # Ok(())
    /// # }
    /// ```
    pub fn quota(&self, subject: &str, max: u32) -> Self
    where
        S: Clone,
    {
        Self { quota: Some((TicketKey::of_subject(subject), max)), ..self.clone() }
    }

    /// Issues a ticket with `claims`, which are stored as JSON.
    ///
    /// # Errors
    ///
    /// The [quota](Self::quota) is exhausted, the store failed, the operating system has no random
    /// bytes, or the claims cannot be serialized as JSON.
    pub async fn issue<C: Serialize + Sync>(&self, claims: &C) -> Result<Ticket, TicketError> {
        self.issue_record(claims, None).await
    }

    /// Issues a ticket for handshakes with this `Origin` only.
    ///
    /// Use the `Origin` of the request for the ticket. Browsers send it with every `POST`.
    ///
    /// # Errors
    ///
    /// As [`issue`](Self::issue).
    pub async fn issue_to_origin<C: Serialize + Sync>(
        &self,
        claims: &C,
        origin: &Origin<'_>,
    ) -> Result<Ticket, TicketError> {
        self.issue_record(claims, Some(origin.to_string())).await
    }

    async fn issue_record<C: Serialize>(
        &self,
        claims: &C,
        origin: Option<String>,
    ) -> Result<Ticket, TicketError> {
        let record = serde_json::to_vec(&(origin, claims)).map_err(TicketError::new)?;
        if let Some((subject, max)) = self.quota {
            let delay = match max {
                0 => Some(self.lifetime),
                _ => {
                    let delay = self.store.count(subject, max, self.lifetime).await;
                    delay.map_err(TicketError::new)?
                }
            };
            if let Some(delay) = delay {
                return Err(TicketError(Cause::Quota(delay)));
            }
        }
        let mut secret = [0; LENGTH];
        getrandom::fill(&mut secret).map_err(TicketError::new)?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        self.store
            .insert(TicketKey::new(&secret), record, self.lifetime)
            .await
            .map_err(TicketError::new)?;
        Ok(Ticket { secret, lifetime: self.lifetime })
    }
}

/// The error of a [`TicketIssuer`]. If it says when to [retry](Self::retry_after), respond with 429
/// and `Retry-After`, otherwise with 503. Then its source is the cause.
#[derive(Debug)]
pub struct TicketError(Cause);

#[derive(Debug)]
enum Cause {
    Quota(Duration),
    Failure(Box<dyn Error + Send + Sync>),
}

impl TicketError {
    fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Cause::Failure(error.into()))
    }

    /// If the [quota](TicketIssuer::quota) of the subject is exhausted: the time until it gets a
    /// ticket again, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0 {
            Cause::Quota(delay) => {
                Some(Duration::from_secs(delay.as_secs() + u64::from(delay.subsec_nanos() > 0)))
            }
            Cause::Failure(_) => None,
        }
    }
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Cause::Quota(_) => "the subject has its quota of tickets",
            Cause::Failure(_) => "the ticket could not be issued; see the source of this error",
        })
    }
}

impl Error for TicketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Quota(_) => None,
            Cause::Failure(error) => Some(&**error),
        }
    }
}

/// Redeems tickets, and reads their claims into `C`. See the [module docs](self) for an example.
///
/// If the claims expire, such as those of a session, use [`VerifyToken::expiring`].
#[must_use]
pub struct TicketVerifier<C, S> {
    store: S,
    claims: PhantomData<fn() -> C>,
}

impl<C, S: TicketStore> TicketVerifier<C, S>
where
    C: DeserializeOwned + Clone + Send + Sync + 'static,
{
    /// Redeems the tickets of `store`.
    pub fn new(store: S) -> Self {
        Self { store, claims: PhantomData }
    }
}

impl<C, S: TicketStore> VerifyToken for TicketVerifier<C, S>
where
    C: DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Claims = C;

    fn is_one_time(&self) -> bool {
        true
    }

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<C>, Rejection> {
        let invalid = || Rejection::new(RejectionKind::TokenInvalid);
        // Spares the store lookups of other tokens, such as those of another verifier.
        let is_ticket =
            URL_SAFE_NO_PAD.decode(token.expose()).is_ok_and(|bytes| bytes.len() == LENGTH);
        if !is_ticket {
            return Err(invalid());
        }
        let consumed = self
            .store
            .consume(TicketKey::new(token.expose()))
            .await
            .map_err(Rejection::verifier_failed)?;
        let Some(record) = consumed else { return Err(invalid()) };
        // The error of the parser is dropped because it quotes the claims.
        let (bound, claims): (Option<String>, C) =
            serde_json::from_slice(&record).map_err(|_| {
                Rejection::verifier_failed(
                    "the claims of the ticket do not match the type of the verifier",
                )
            })?;
        let is_bound_to = |origin: &str| match RequestOrigin::from_headers(&request.headers) {
            Ok(RequestOrigin::Tuple(sent)) => sent.to_string() == origin,
            _ => false,
        };
        match bound {
            Some(origin) if !is_bound_to(&origin) => {
                Err(invalid().with_source(format!("the ticket is for the origin {origin} only")))
            }
            _ => Ok(Verified::new(claims)),
        }
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
