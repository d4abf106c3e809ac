//! Tower layers that validate WebSocket handshakes, for axum, hyper and every other tower service.
//!
//! A browser lets any page open a WebSocket to your server with your user's cookies, and neither CORS nor CSRF layers look at
//! that. The handshakes of most servers are also lax on the protocol, so that what one part of a system takes for an ordinary
//! request another takes for a WebSocket. These layers refuse both, before a handler sees it, and say why.
//!
//! | layer | lets in |
//! |---|---|
//! | [`GuardLayer`] | what passes all of the following checks, in the right order |
//! | [`VersionCheckLayer`] | well-formed handshakes: RFC 6455 4.2.1 in full, RFC 8441 over HTTP/2 |
//! | [`OriginCheckLayer`] | handshakes from allowed pages, to allowed hosts |
//! | [`TokenCheckLayer`] | handshakes with exactly one valid credential; hands over its [`Claims`] |
//! | [`ResponderLayer`] | answers 101 with `Sec-WebSocket-Accept` and the subprotocol, and hands over the connection |
//!
//! Requests that are not handshake [attempts](is_attempt) pass untouched, without an allocation.
//!
//! [`ClientHandshake`] is the other side: it judges a server's answer as a browser would, and says what is wrong with it.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, extract::ws::WebSocketUpgrade, response::Response, routing::any};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_ws_guard::{AllowOrigin, GuardLayer, test_util::upgradable};
//!
//! async fn handler(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(async |socket| drop(socket))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?);
//! let app: Router = Router::new().route("/ws", any(handler).layer(guard));
//!
//! let handshake = |origin: &str| {
//!     Request::get("/ws")
//!         .header("host", "chat.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("origin", origin)
//!         .body(Body::empty())
//!         .unwrap()
//! };
//! let (request, _client) = upgradable(handshake("https://app.example.com")).await;
//! let accepted = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
//! let refused = app.oneshot(handshake("https://evil.example")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::FORBIDDEN);
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! [`GuardLayer`] is the easy way: it makes all checks in one service. Separate layers go into one `ServiceBuilder`, from the outside:
//! [`OriginCheckLayer`], [`TokenCheckLayer`], [`ResponderLayer`]. Each of them parses the handshake strictly by itself, so no malformed
//! one reaches a policy whatever the order; but a token check outside the origin check would tell every page on the web whether a
//! token is good.
//!
//! # Why a handshake was refused
//!
//! [`refusals`] has a section for each code. [`observe`] tells it to your logs and metrics, [`AcceptThenClose`] to a script in a browser,
//! and [`verify`] is for the client's side of your tests.
//!
//! # After the 101
//!
//! [`connection`] has limits for the number of connections, and a drain for the end of the server. [`hardening`] says what hyper and you
//! must bound beside it, [`threats`] which attacks all this is made for, and a [table](guard#when-something-fails) what the client sees
//! when a part of your own fails.
//!
//! # Limits
//!
//! - `Origin` protects browser users. It authenticates nobody.
//! - The layers end at the 101. Frames, their size and their rate are up to the codec.
//! - A request that is no attempt passes. A handler that answers 101 to anything else, as a proxy that reflects its upstream's
//!   answer may, is outside their reach.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `responder` (default) | [`ResponderLayer`], [`accept_key`] and [`ClientHandshake`], on hyper's upgrades |
//! | `axum` | the [extractors](extract), and tokens taken out of `OriginalUri` too |
//! | `axum-ws` | [`GuardedUpgrade`](extract::GuardedUpgrade): axum's `WebSocketUpgrade` with what the guard knows; implies `axum` |
//! | `http2` | WebSocket over HTTP/2; without it every extended `CONNECT` is refused, because it cannot be told what it is for |
//! | `jwt` | [JSON Web Tokens](token::jwt), on `jsonwebtoken` with RustCrypto |
//! | `tickets` | [one-time tickets](token::ticket), in memory or in a store of your own |
//! | `redis` | one-time tickets in Redis, for several servers; implies `tickets` |
//! | `tracing` | [an event](observe) for each decision, and a span for each connection |
//! | `metrics` | [counters and histograms](observe) of handshakes and connections |
//! | `full` | all of the above |
//! | `test-util` | [`test_util`]: requests that can be upgraded in memory, for tests |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[macro_use]
mod macros;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "responder")]
mod close;
mod config;
pub mod connection;
#[cfg(feature = "axum")]
pub mod extract;
pub mod guard;
pub mod handshake;
pub mod hardening;
pub mod observe;
pub mod origin;
pub mod refusals;
pub mod rejection;
#[cfg(feature = "responder")]
pub mod responder;
mod subprotocol;
#[cfg(feature = "test-util")]
pub mod test_util;
pub mod threats;
pub mod token;
#[cfg(feature = "responder")]
pub mod verify;
pub mod version;

#[cfg(feature = "responder")]
pub use self::{
    close::AcceptThenClose,
    handshake::accept_key,
    responder::{PendingUpgrade, Responder, ResponderLayer, Upgrade, UpgradeError, Upgraded},
    verify::{Accepted, ClientHandshake, Finding, FindingKind, Findings},
};
pub use self::{
    config::ConfigError,
    connection::{ConnectionLimit, Drain, Permit},
    guard::{Check, Guard, GuardLayer, check_fn},
    handshake::{ConnectProtocol, Handshake, Host, Transport, is_attempt},
    origin::{AllowHost, AllowOrigin, InvalidOrigin, Origin, OriginCheck, OriginCheckLayer, RequestOrigin},
    rejection::{EmptyBody, PlainText, ProblemJson, Rejection, RejectionKind, RespondRejection, respond_fn},
    subprotocol::Subprotocols,
    token::{
        Claims, NoToken, StaticTokens, Token, TokenCheck, TokenCheckLayer, TokenPolicy, TokenSource, Validity,
        Verified, VerifyToken,
    },
    version::{VersionCheck, VersionCheckLayer},
};
pub use tokio_util::sync::CancellationToken;
