//! Extractors for axum: [`Claims<T>`](crate::Claims), [`Validity`], and with feature `responder`
//! [`PendingUpgrade`](crate::PendingUpgrade).
//!
//! `Claims` and `PendingUpgrade` may be wrapped in `Option`.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::any};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_ws_guard::{Claims, StaticTokens, TokenCheckLayer, TokenPolicy};
//!
//! async fn handler(Claims(user): Claims<&'static str>) -> &'static str {
//!     user
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = TokenCheckLayer::new(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])));
//! let app = Router::new().route("/ws", any(handler).layer(layer));
//!
//! let handshake = |token: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(Body::empty())
//!         .unwrap()
//! };
//! let accepted = app.clone().oneshot(handshake("s3cr3t")).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::OK);
//! let refused = app.oneshot(handshake("guess")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # }
//! ```

use std::{any::type_name, convert::Infallible, error::Error, fmt};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{
    handshake::is_attempt_without_body,
    rejection::{PlainText, RejectionKind, refuse},
    token::{Claims, Validity},
};

/// The answer to a request that is no handshake is 426. To one that is, without a token check on the route whose verifier returns
/// `T`, it is 500.
impl<T, S> FromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match parts.extensions.get::<Self>() {
            Some(claims) => Ok(claims.clone()),
            None if !is_attempt_without_body(parts) => Err(not_websocket(parts)),
            None => Err(ClaimsMissing(type_name::<T>()).into_response()),
        }
    }
}

impl<T, S> OptionalFromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

fn not_websocket(request: &Parts) -> Response {
    refuse(RejectionKind::NotWebsocket.into(), request, &PlainText, false)
}

/// For claims that hold for good, and without a token check, it is `Validity::default()`.
impl<S: Send + Sync> FromRequestParts<S> for Validity {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// There are no [`Claims`] of the wanted type: the route has no token check whose verifier returns it. It is in the extensions of
/// the response.
#[derive(Clone, Copy, Debug)]
pub struct ClaimsMissing(&'static str);

impl fmt::Display for ClaimsMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no `Claims<{0}>`: put the route behind a token check whose verifier returns `{0}`", self.0)
    }
}

impl Error for ClaimsMissing {}

impl IntoResponse for ClaimsMissing {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(feature = "responder")]
mod responder {
    use super::*;
    use crate::responder::PendingUpgrade;

    /// The answer to a request that is no handshake is 426. To one that is, without a `ResponderLayer` on the route, it is 500.
    impl<S: Send + Sync> FromRequestParts<S> for PendingUpgrade {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            match parts.extensions.get::<Self>() {
                Some(pending) => Ok(pending.clone()),
                None if !is_attempt_without_body(parts) => Err(not_websocket(parts)),
                None => Err(refuse(RejectionKind::NotUpgradable.into(), parts, &PlainText, true)),
            }
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for PendingUpgrade {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
