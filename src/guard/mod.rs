//! All checks in their one right order, as one service.
//!
//! 1. Is it a handshake attempt at all? What is none [passes untouched](crate::is_attempt), without an allocation. Does the server
//!    [drain](crate::Drain)?
//! 2. The syntax of RFC 6455 4.2.1: a malformed attempt reaches no policy and no handler.
//! 3. [`AllowHost`], [`AllowOrigin`], and then your own [`Check`]s.
//! 4. The choice of the [subprotocol](crate::Subprotocols).
//! 5. The [token](crate::token): a foreign page learns nothing about tokens, and a ticket is spent only when all else is right.
//! 6. A place under the [limit](crate::ConnectionLimit), if there is one.
//!
//! The first failure is the answer, made by [`RespondRejection`].
//!
//! # What the services behind see
//!
//! A handshake in one canonical form, so that no handler with a laxer or stricter parser can disagree with the guard: one
//! `Upgrade: websocket`, one `Connection: Upgrade`, no token in a subprotocol, the query or `Authorization`, and, if the
//! guard has [`Subprotocols`](crate::Subprotocols), the chosen one alone. When they answer 101 (over HTTP/2: 200), the guard sets
//! `Sec-WebSocket-Protocol` to what it chose.
//!
//! Two differences remain, both of handlers that refuse more. tungstenite, unlike RFC 6455, refuses keys with stray bits behind the 16th
//! byte, as the one of the RFC's own example; no client makes such keys. soketto refuses a `Sec-WebSocket-Extensions` that is no UTF-8;
//! the guard leaves that header alone.
//!
//! A guard inside another no longer sees the token, nor a token in a subprotocol that the outer one did not choose: give all of it to one
//! of them.
//!
//! A handshake that they decline, with any other status, closes the HTTP/1.1 connection as a refusal does.
//!
//! # When something fails
//!
//! It ends its own handshake, and no other connection. Whatever place the handshake had under a limit is free again.
//!
//! | what fails | what the client sees |
//! |---|---|
//! | a verifier returns [`Rejection::verifier_failed`](crate::Rejection::verifier_failed) | 503 `verifier-failed` |
//! | a verifier hangs | 503 `verifier-timeout` after the [`check_timeout`](crate::GuardLayer::check_timeout); if the client leaves before, the verifier's future is dropped |
//! | a check, a predicate of origins, the key of a limit, a verifier or a [`RespondRejection`] panics | no answer: the connection ends, over HTTP/2 the stream |
//! | a [`RespondRejection`] returns a success, a redirect or a 101, or drops headers | the refusal with its own status, and the headers that must be there |
//! | the inner service is not ready | nothing, for as long as that lasts: no handshake is looked at, and the `check_timeout` does not run |
//! | it fails or panics, also after it has accepted a [`PendingUpgrade`](crate::PendingUpgrade) | no answer, and no callback is called |
//! | it hangs | nothing: how long an answer may take is up to it; if the client leaves, its future is dropped |
//! | it answers 101 (over HTTP/2 2xx), but has not accepted the [`PendingUpgrade`](crate::PendingUpgrade) | 500 `not-upgradable` |
//! | it answers 101, but does not hold the [`Permit`](crate::Permit) | 500 `permit-unclaimed`; without a limit and a drain the 101 is its own |
//! | somebody outside a responder has taken `OnUpgrade` | 500 `not-upgradable` |
//! | a callback with the connection panics | the end of the connection, behind the 101 |
//! | the client leaves, at any time | nothing is left of it: futures are dropped, and callbacks that wait for the connection are not called |
//! | the client does not read the answer | the connection is given up after the [`upgrade_timeout`](crate::ResponderLayer::upgrade_timeout) |
//!
//! Behind a guard without a limit and without a responder, hyper gives a connection to whoever waits for it even if the answer was no 101:
//! a handler that has called `on_upgrade` must not answer otherwise.
//!
//! Over HTTP/2 this holds for servers that call the service in the task of the stream, as those of hyper-util and axum do. In
//! [logs and metrics](crate::observe) a panic is `cancelled`.
//!
//! # In axum
//!
//! Put it on the route of the endpoint, which must take `any` method, because over HTTP/2 a handshake is a `CONNECT`:
//! `.route("/ws", any(handler).layer(guard))`. `Router::layer` guards all routes, and unknown paths too. Several layers go into
//! one `ServiceBuilder`: each call of `Router::layer` costs an allocation of its own for every request.
//!
//! # With tower-http
//!
//! Its layers go around a guard as around any service. Inside, those that change the type of the body, such as `CompressionLayer`, need
//! `MapResponseBodyLayer::new(Body::new)` between the guard and them, so that the guard can make a body of that type.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{AllowOrigin, GuardLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let service = ServiceBuilder::new()
//!     .layer(GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?))
//!     .service(service_fn(async |_: Request<()>| {
//!         Ok::<_, std::convert::Infallible>(Response::new("handshake"))
//!     }));
//!
//! let handshake = |origin: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("origin", origin)
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("https://app.example.com")).await.unwrap();
//! assert_eq!(*accepted.body(), "handshake");
//!
//! let refused = service.oneshot(handshake("https://evil.example")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::FORBIDDEN);
//! # Ok(())
//! # }
//! ```
//!
//! [`AllowHost`]: crate::AllowHost
//! [`AllowOrigin`]: crate::AllowOrigin
//! [`RespondRejection`]: crate::RespondRejection

mod check;
mod future;
mod layer;
mod policy;
mod service;

#[cfg(feature = "responder")]
pub(crate) use self::policy::close_declined;
pub(crate) use self::policy::{Policy, Refused, Rules};
pub use self::{
    check::{Check, check_fn},
    future::ResponseFuture,
    layer::GuardLayer,
    service::Guard,
};
