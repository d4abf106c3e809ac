//! Extractors for axum: [`Claims<T>`](crate::Claims), and with feature `responder` [`PendingUpgrade`](crate::PendingUpgrade).
//!
//! Both may be wrapped in `Option`.
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

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::token::Claims;

/// Without a token check whose verifier returns `T` on the route, the answer is 500.
impl<T, S> FromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = ClaimsMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ClaimsMissing> {
        parts.extensions.get::<Self>().cloned().ok_or(ClaimsMissing)
    }
}

impl<T, S> OptionalFromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// The request has no [`Claims`] of the wanted type: it is no handshake, or the route has no token check whose verifier returns
/// that type.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClaimsMissing;

impl IntoResponse for ClaimsMissing {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

#[cfg(feature = "responder")]
mod responder {
    use super::*;
    use crate::{
        rejection::{PlainText, RejectionKind, refuse},
        responder::PendingUpgrade,
    };

    /// A request that is no handshake is answered with 426.
    impl<S: Send + Sync> FromRequestParts<S> for PendingUpgrade {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            let pending = parts.extensions.get::<Self>().cloned();
            pending.ok_or_else(|| refuse(RejectionKind::NotWebsocket.into(), parts, &PlainText, false))
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for PendingUpgrade {
        type Rejection = std::convert::Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
