//! Who a client is: the account of its token, or its address.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json,
    extract::ConnectInfo,
    http::{
        HeaderName, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower_ws_guard::{Claims, ConfigError, StaticTokens, Token, VerifyToken};

/// The account of a token: its hash, which is the same on each server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Account(String);

impl Account {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of the sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum Key {
    Account(Account),
    Address(IpAddr),
}

impl Key {
    pub(crate) fn of(request: &Parts) -> Option<Self> {
        match request.extensions.get() {
            Some(Claims(account)) => Some(Self::Account(Account::clone(account))),
            None => Self::address(request),
        }
    }

    pub(crate) fn address(request: &Parts) -> Option<Self> {
        Some(Self::Address(peer(request)?.ip()))
    }
}

pub(crate) fn peer(request: &Parts) -> Option<SocketAddr> {
    let ConnectInfo(peer) = request.extensions.get()?;
    Some(*peer)
}

/// The `--token`s.
#[derive(Clone)]
pub(crate) struct Accounts(StaticTokens<Account>);

impl Accounts {
    pub(crate) fn new(tokens: &[String]) -> Result<Self, ConfigError> {
        let account = |token: &str| Account(URL_SAFE_NO_PAD.encode(Sha256::digest(token)));
        StaticTokens::new(tokens.iter().map(|token| (token, account(token)))).map(Self)
    }

    pub(crate) fn verifier(&self) -> StaticTokens<Account> {
        self.0.clone()
    }

    /// The account of an ordinary request with `Authorization: Bearer`.
    pub(crate) async fn of(&self, request: &Parts) -> Result<Account, Unauthorized> {
        let token = bearer(request).ok_or(Unauthorized)?;
        let verified = self.0.verify(Token::new(token), request).await.map_err(|_| Unauthorized)?;
        Ok(verified.claims().clone())
    }
}

fn bearer(request: &Parts) -> Option<&str> {
    let value = request.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

pub(crate) const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

pub(crate) struct Unauthorized;

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        let challenge = [(WWW_AUTHENTICATE, r#"Bearer realm="websocket""#)];
        let error = Json(json!({ "error": "a valid token is required" }));
        (StatusCode::UNAUTHORIZED, NO_STORE, challenge, error).into_response()
    }
}
