//! Tokens: finds exactly one credential in the handshake, verifies it, and provides its claims.
//!
//! 1. [`TokenPolicy`] lists the [sources](TokenSource). No credential in any of them is rejected
//!    with 401, more than one with 400, unless the [first source
//!    wins](TokenPolicy::first_source_wins). The same one twice in one source is one, and an empty
//!    one is none.
//! 2. The credential is removed from the request that inner services see: always from
//!    `Sec-WebSocket-Protocol`, and, unless it is [kept](TokenPolicy::keep_credential), from the
//!    query (including axum's `OriginalUri`) and from its header. A cookie stays, because sessions
//!    need it.
//! 3. [`VerifyToken`] decides, asynchronously. Any failure rejects the handshake.
//! 4. Inner services find [`Claims<T>`] in the extensions of the request.
//!
//! The guide to [credentials](crate::guide::browsers#which-credential) says which one to use when.
//!
//! # Order
//!
//! Put the [origin check](crate::OriginCheckLayer) outside of the token check: a foreign page must
//! not learn whether a token is valid, and a ticket must not be redeemed by a handshake that is
//! rejected anyway. [`GuardLayer`](crate::GuardLayer) has this order.
//!
//! # Verifiers
//!
//! [`StaticTokens`], [JSON Web Tokens](jwt) (feature `jwt`), [one-time tickets](ticket) (feature
//! `tickets`), or a [closure](VerifyToken). [`VerifyToken::or`] combines them, [`TokenPolicy::or`]
//! combines them per source, and [`VerifyToken::require`] restricts them. [`Revocations`] rejects
//! tokens before they expire. An open socket learns
//! from [`Validity`] that its claims have expired or are revoked.
//!
//! # Secrets
//!
//! The crate never shows a credential: not in logs, errors or responses, and not in the `Debug` of
//! its types. It marks the header that carries the credential as
//! [sensitive](http::HeaderValue::set_sensitive). These are out of its reach:
//!
//! | who sees the credential | fix |
//! |---|---|
//! | the access log of a proxy in front: the whole query | use one-time tickets there, or log only the path (nginx: `$uri` in place of `$request`) |
//! | a layer outside of the check, such as `TraceLayer`, which logs the URI of a request | put it inside, or log only `request.uri().path()` |
//! | headers in a log of such a layer | tower-http's `SetSensitiveRequestHeadersLayer` for `authorization`, `cookie` and `sec-websocket-protocol`, outside of it |
//! | a [`RejectionResponse`](crate::RejectionResponse) that shows the query of a request that was rejected before its token was verified | do not show the query |
//! | the log of `h2` at DEBUG, if the target of a request is malformed; such a request reaches no service | keep `h2` at INFO |
//! | your handler: the cookie, and a credential that you [keep](TokenPolicy::keep_credential) | do not log it |
//! | a client's history and its own logs | short lifetimes; tickets |
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Claims, StaticTokens, TokenCheckLayer, TokenPolicy,
//!     test_util::{assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let tokens = StaticTokens::new([("s3cr3t", "alice")]).unwrap();
//! let service = ServiceBuilder::new()
//!     .layer(TokenCheckLayer::new(TokenPolicy::bearer(tokens)))
//!     .service(service_fn(async |request: Request<()>| {
//!         let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
//!         assert!(!request.headers().contains_key("authorization"));
//!         Ok::<_, std::convert::Infallible>(Response::new(user.to_string()))
//!     }));
//!
//! let accepted = service.clone().oneshot(handshake("/ws").token("s3cr3t").build(()));
//! assert_eq!(accepted.await.unwrap().body(), "alice");
//!
//! let rejected = service.oneshot(handshake("/ws").token("guess").build(())).await.unwrap();
//! assert_rejected(&rejected, "token-invalid");
//! assert!(rejected.headers().contains_key("www-authenticate"));
//! # }
//! ```

mod combine;
mod credential;
#[cfg(feature = "jwt")]
pub mod jwt;
mod policy;
mod revocation;
mod source;
mod static_tokens;
#[cfg(feature = "tickets")]
pub mod ticket;
mod verified;
mod verify;

pub use self::{
    combine::{Expiring, MapClaims, Or, Require},
    policy::TokenPolicy,
    revocation::{RevocationError, Revocations, TokenIdentity, UnlessRevoked},
    source::TokenSource,
    static_tokens::StaticTokens,
    verified::Verified,
    verify::{BoxVerifier, Token, VerifyToken},
};
pub(crate) use self::{
    policy::{FoundToken, TokenCheck},
    verified::ValidityPart,
};
#[doc(no_inline)]
pub use crate::{connection::Validity, context::Claims};
