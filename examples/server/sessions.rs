//! Who is connected: `GET /sessions` lists the sockets of a client's token or, on a private server
//! without tokens, of its address. `POST /sessions/end` ends those of its token, on all servers.

use std::time::UNIX_EPOCH;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tower_ws_guard::{ConfigError, Ended, Redis, Sessions, SessionsError, WhenFull};

use crate::accounts::{Accounts, Key, NO_STORE, Unauthorized, peer};

pub(crate) fn sessions(
    max_per_key: Option<usize>,
    evicts: bool,
    redis: Option<&Redis>,
) -> Result<Sessions<Key>, ConfigError> {
    let mut sessions = Sessions::per_key(max_per_key.unwrap_or(usize::MAX), Key::of)?.address(peer);
    if evicts {
        sessions = sessions.when_full(WhenFull::EvictOldest);
    }
    match redis {
        Some(redis) => sessions.on_redis(redis, "keys"),
        None => Ok(sessions),
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) sessions: Sessions<Key>,
    /// `None` without tokens.
    pub(crate) accounts: Option<Accounts>,
    pub(crate) is_private: bool,
}

pub(crate) fn routes(api: Api) -> Router {
    Router::new().route("/sessions", get(list)).route("/sessions/end", post(end)).with_state(api)
}

async fn list(State(api): State<Api>, request: Parts) -> Result<Response, Failure> {
    let key = match &api.accounts {
        Some(accounts) => Some(Key::Account(accounts.of(&request).await?)),
        None if api.is_private => Key::address(&request),
        // All clients of a proxy have its address.
        None => None,
    };
    let Some(key) = key else { return Ok(Json(json!([])).into_response()) };
    let list = api.sessions.list(&key).await?;
    let list = list.iter().map(|session| {
        json!({
            "since": session.since().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            "origin": session.origin(),
            "address": session.address(),
        })
    });
    Ok((NO_STORE, Json(list.collect::<Value>())).into_response())
}

async fn end(State(api): State<Api>, request: Parts) -> Result<Response, Failure> {
    let accounts = api.accounts.ok_or(Unauthorized)?;
    let key = Key::Account(accounts.of(&request).await?);
    let ended = api.sessions.end(&key, Ended::Revoked).await?;
    Ok((NO_STORE, Json(json!({ "ended": ended }))).into_response())
}

enum Failure {
    Unauthorized,
    Store(SessionsError),
}

impl From<Unauthorized> for Failure {
    fn from(_: Unauthorized) -> Self {
        Self::Unauthorized
    }
}

impl From<SessionsError> for Failure {
    fn from(error: SessionsError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthorized => Unauthorized.into_response(),
            Self::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no sessions");
                let error =
                    json!({ "error": "the sessions of all servers are not known at the moment" });
                (StatusCode::SERVICE_UNAVAILABLE, NO_STORE, Json(error)).into_response()
            }
        }
    }
}
