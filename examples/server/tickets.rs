//! One-time tickets: `POST /tickets` with a token returns one, and `/ws?ticket=…` redeems it.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{ORIGIN, RETRY_AFTER},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tower_ws_guard::{
    Origin, Redis, TokenSource,
    token::ticket::{
        MemoryTicketStore, RedisTicketStore, TicketError, TicketIssuer, TicketKey, TicketStore,
    },
};

use crate::accounts::{Accounts, NO_STORE, Unauthorized};

/// The store that `--tickets` names.
#[derive(Clone)]
pub(crate) enum Store {
    Memory(MemoryTicketStore),
    Redis(RedisTicketStore),
}

impl Store {
    /// In memory, or on a Redis.
    pub(crate) fn new(redis: Option<&Redis>) -> Self {
        match redis {
            Some(redis) => Self::Redis(RedisTicketStore::new(redis)),
            None => Self::Memory(MemoryTicketStore::default()),
        }
    }
}

impl TicketStore for Store {
    type Error = Box<dyn std::error::Error + Send + Sync>;

    async fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), Self::Error> {
        match self {
            Self::Memory(store) => Ok(store.insert(key, record, lifetime).await?),
            Self::Redis(store) => store.insert(key, record, lifetime).await,
        }
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Self::Error> {
        match self {
            Self::Memory(store) => Ok(store.consume(key).await?),
            Self::Redis(store) => store.consume(key).await,
        }
    }

    async fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> Result<Option<Duration>, Self::Error> {
        match self {
            Self::Memory(store) => Ok(store.count(subject, max, lifetime).await?),
            Self::Redis(store) => store.count(subject, max, lifetime).await,
        }
    }
}

/// The quota of each token, within the lifetime of a ticket. So one client cannot evict the tickets
/// of others.
const QUOTA: u32 = 100;

/// The source of the ticket in a handshake.
pub(crate) fn source() -> TokenSource {
    TokenSource::query("ticket").expect("it has a name")
}

/// `POST /tickets`, for clients with one of the tokens.
pub(crate) fn routes(store: Store, accounts: Accounts) -> Router {
    Router::new().route("/tickets", post(issue)).with_state((TicketIssuer::new(store), accounts))
}

async fn issue(
    State((issuer, accounts)): State<(TicketIssuer<Store>, Accounts)>,
    request: Parts,
) -> Result<Response, Failure> {
    let account = accounts.of(&request).await?;
    let issuer = issuer.quota(account.as_str(), QUOTA);
    // A browser names the page that asks. Only that page can redeem the ticket.
    let ticket = match request.headers.get(ORIGIN) {
        Some(origin) => {
            let origin = Origin::parse(origin.as_bytes()).map_err(|_| Failure::Origin)?;
            issuer.issue_to_origin(&account, &origin).await?
        }
        None => issuer.issue(&account).await?,
    };
    let body = json!({ "ticket": ticket.expose(), "expires_in": ticket.lifetime().as_secs() });
    Ok((StatusCode::CREATED, NO_STORE, Json(body)).into_response())
}

enum Failure {
    Unauthorized,
    Origin,
    Quota(Duration),
    Store(TicketError),
}

impl From<Unauthorized> for Failure {
    fn from(_: Unauthorized) -> Self {
        Self::Unauthorized
    }
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Self {
        error.retry_after().map_or(Self::Store(error), Self::Quota)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Unauthorized => return Unauthorized.into_response(),
            Self::Origin => (StatusCode::BAD_REQUEST, "no ticket can be bound to that origin"),
            Self::Quota(delay) => {
                let retry_after = [(RETRY_AFTER, HeaderValue::from(delay.as_secs()))];
                let error = error("the token has too many tickets");
                return (StatusCode::TOO_MANY_REQUESTS, NO_STORE, retry_after, error)
                    .into_response();
            }
            Self::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no ticket");
                (StatusCode::SERVICE_UNAVAILABLE, "no ticket can be issued at the moment")
            }
        };
        (status, NO_STORE, self::error(error)).into_response()
    }
}

fn error(error: &str) -> Json<Value> {
    Json(json!({ "error": error }))
}
