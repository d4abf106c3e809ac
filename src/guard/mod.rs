//! The guard: all checks in the right order, as one service.
//!
#![doc = include_str!("../../docs/nine-steps.svg")]
//!
//! A handshake goes through nine steps:
//!
//! 1. **Detect**: is it an [upgrade request](crate::is_upgrade_request)? An ordinary request passes
//!    untouched, without an allocation.
//! 2. **Parse**: the syntax of RFC 6455 4.2.1. A malformed handshake reaches no policy and no
//!    handler. During a [drain](crate::Drain) every handshake is rejected before this step.
//! 3. **Check the policies**: [`AllowHost`], [`AllowOrigin`], and then your own [`Check`]s.
//! 4. **Negotiate**: the [subprotocol](crate::Subprotocols) and the [extensions](crate::extension).
//! 5. **Take the credential** out of the request.
//! 6. **Normalize** the request for the inner service.
//! 7. **Verify** the [token](crate::token). A foreign page learns nothing about tokens, and a
//!    ticket is redeemed only if everything before is right. Then your own
//!    [authorization](crate::GuardLayer::authorize), which may wait, too.
//! 8. **Acquire** a slot under the [limit](crate::ConnectionLimit), and one of the
//!    [sessions](crate::Sessions) of its key.
//! 9. **Complete** the handshake: the inner service does, or [the layer does](crate::upgrade).
//!
//! The first failure is the response, made by a [`RejectionResponse`].
//!
//! # The request that inner services see
//!
//! Inner services see a handshake in one normalized form, so no handler can read it differently:
//! one `Upgrade: websocket`, one `Connection: Upgrade`, no token in a subprotocol, the query or its
//! header, and, if the guard has [`Subprotocols`](crate::Subprotocols) or
//! [`extensions`](crate::GuardLayer::extensions), only what it selected. When they respond with 101
//! (over HTTP/2: 2xx), the guard sets `Sec-WebSocket-Protocol` to
//! the selected subprotocol. If they decline with any other status, it closes the HTTP/1.1
//! connection as for a rejection.
//!
//! Over HTTP/2 a client takes every 2xx for an accepted handshake. So a 2xx with `Content-Type` or
//! `Content-Length`, such as that of a fallback for a single-page application, becomes a 404.
//!
//! Two differences remain; in both the handler rejects more. tungstenite, unlike RFC 6455, rejects
//! keys with stray bits behind the 16th byte, such as the one of the RFC's own example; clients do
//! not make such keys. soketto rejects a `Sec-WebSocket-Extensions` that is not UTF-8; a guard that
//! does not negotiate extensions does not touch that header.
//!
//! A guard inside of another one does not see the token, nor a token in a subprotocol that the
//! outer one did not select. Give the whole configuration to one of them.
//!
//! # WebTransport
//!
//! A browser opens a WebTransport session from any page, just as a WebSocket. So an extended
//! `CONNECT` for `webtransport` or `webtransport-h3` goes through the same steps, without what is
//! WebSocket's own: the key, the version, subprotocols and extensions. Inner services see no header
//! of a WebSocket then, and complete the session. A layer that completes handshakes itself rejects
//! it with [`upgrade-missing`](crate::RejectionKind::UpgradeMissing). Over HTTP/3 an adapter says
//! what the protocol is: see [`ConnectProtocol`](crate::ConnectProtocol).
//!
//! A browser sends no cookie with it, and no subprotocol is read. So the credential of a page is
//! best a [ticket](crate::token::ticket) in the query.
//!
//! Libraries may send the 200 from inside of the handler, as `WebTransportUpgrade::accept` of
//! h3-axum does. What the guard thinks of the handler's response comes too late then. So call
//! [`Permit::claim`](crate::Permit::claim) before, and hold the permit as long as the session is
//! open: **without it, such a session counts under no limit.** The members `examples/webtransport`
//! and `examples/websocket_http3` of the repository show WebTransport and WebSocket over HTTP/3.
//!
//! # When something fails
//!
//! A failure ends its own handshake and no other connection. The slot of the handshake is free
//! again.
//!
//! | failure | what the client sees |
//! |---|---|
//! | a verifier or an [authorization](crate::GuardLayer::authorize) returns [`Rejection::verifier_failed`](crate::Rejection::verifier_failed) | 503 `verifier-failed` |
//! | a verifier or an authorization hangs | 503 `verifier-timeout` after the [`check_timeout`](crate::GuardLayer::check_timeout); if the client leaves before, the future is dropped |
//! | a check, a predicate or look-up of a policy, a token source, the key of the sessions, a verifier, an authorization or a [`RejectionResponse`] panics | no response: the connection ends, over HTTP/2 the stream |
//! | the closure of [`on_upgraded_with`](crate::GuardLayer::on_upgraded_with) that reads the head panics | no response: the connection ends, over HTTP/2 the stream |
//! | a [`RejectionResponse`] returns a success, a redirect or a 101, or drops headers | the rejection with its own status and the required headers |
//! | the Redis of [`Sessions`](crate::Sessions) does not respond | 503 `verifier-failed`, or the count of this server [alone](crate::WhenUnavailable::CountAlone) |
//! | the inner service is not ready | nothing until it is ready: the layer looks at no handshake, and the `check_timeout` does not run |
//! | the inner service fails or panics, also after it has accepted a [`PendingUpgrade`](crate::PendingUpgrade) | no response, and no callback is called |
//! | the inner service hangs | nothing: it decides how long a response may take; if the client leaves, its future is dropped |
//! | the inner service responds with 101, but has not accepted the [`PendingUpgrade`](crate::PendingUpgrade) | 500 `not-upgradable`; over HTTP/2, with 2xx: 404 |
//! | the inner service responds with 101, but does not hold the [`Permit`](crate::Permit) | 500 `permit-unclaimed`; over HTTP/2, with 2xx, if it never took it: 404; without a limit, sessions, a drain and a maximum age the 101 is its own |
//! | the inner service responds with 101, and names an extension that was not offered | 500 [`extension-not-offered`](crate::RejectionKind::ExtensionNotOffered) |
//! | an outer layer has taken `OnUpgrade`, and this layer completes handshakes | 500 `not-upgradable` |
//! | an outer layer replaces the 101 | its response; the connection is not handed over behind a [`ConfirmUpgradeLayer`](crate::ConfirmUpgradeLayer) |
//! | a callback with the connection panics | the end of the connection, after the 101 |
//! | the client leaves, at any time | nothing stays: futures are dropped, and callbacks that wait for the connection are not called |
//! | the client does not read the response | the connection is given up after the [`upgrade_timeout`](crate::GuardLayer::upgrade_timeout) |
//!
//! Over HTTP/2 this holds for servers that call the service in the task of the stream, such as
//! those of hyper-util and axum. In [logs and metrics](crate::telemetry) a panic of a verifier or
//! the inner service is `cancelled`. A panic before is not recorded.
//!
//! # In axum
//!
//! Put the layer on the route of the endpoint: `.route("/ws", any(handler).layer(guard))`. The
//! route must accept `any` method, because over HTTP/2 a handshake is a `CONNECT`.
//!
//! **`Router::layer` guards only the routes that were added before it.**
//! `Router::new().layer(guard) .route("/ws", ..)` guards nothing, and axum does not say so. The
//! [extractors](crate::axum) of this crate notice it: they respond with 500
//! [`guard-missing`](crate::RejectionKind::GuardMissing). A `Router::layer` after the routes guards
//! all of them, and unknown paths too.
//!
//! Put several layers into one `ServiceBuilder`: each call of `Router::layer` costs an allocation
//! for every request.
//!
//! # With tower-http
//!
//! Put its layers around a guard as around any service. Inside of a guard, layers that change the
//! type of the body, such as `CompressionLayer`, need `MapResponseBodyLayer::new(Body::new)`
//! between the guard and them, so that the guard can make a body of that type.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     AllowOrigin, GuardLayer,
//!     test_util::{assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let service = ServiceBuilder::new()
//!     .layer(GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?))
//!     .service(service_fn(async |_: Request<()>| {
//!         Ok::<_, std::convert::Infallible>(Response::new("handshake"))
//!     }));
//!
//! let from = |origin: &str| handshake("/ws").origin(origin).build(());
//! let accepted = service.clone().oneshot(from("https://app.example.com")).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::OK);
//!
//! let rejected = service.oneshot(from("https://evil.example")).await.unwrap();
//! assert_rejected(&rejected, "origin-not-allowed");
//! # Ok(())
//! # }
//! ```
//!
//! [`AllowHost`]: crate::AllowHost
//! [`AllowOrigin`]: crate::AllowOrigin
//! [`RejectionResponse`]: crate::RejectionResponse

mod accept_then_close;
mod admission;
mod authorize;
mod check;
mod completes;
mod explain;
mod future;
mod handling;
mod layer;
#[cfg(feature = "lint")]
mod lint;
mod normalize;
mod policy;
mod service;
pub(crate) mod wait;

#[cfg(feature = "lint")]
pub use self::lint::Lint;
pub(crate) use self::policy::GuardConfig;
pub use self::{
    accept_then_close::AcceptThenClose,
    authorize::Authorize,
    check::{Check, check_fn},
    completes::{Completes, Forward, Respond},
    explain::{Explanation, Step, Verdict},
    future::ResponseFuture,
    layer::GuardLayer,
    service::Guard,
};
