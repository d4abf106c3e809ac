//! Tower layers that validate WebSocket handshakes, for axum, hyper and every other tower service.
//!
//! A browser lets any page open a WebSocket to your server with your user's cookies. CORS and CSRF
//! layers do not prevent that. Most servers are also lax on the protocol, so one part of a system
//! may take a request for a WebSocket that another part takes for an ordinary request. These layers
//! reject foreign pages and malformed handshakes before a handler sees them, and say why.
//!
//! | layer | accepts |
//! |---|---|
//! | [`GuardLayer`] | handshakes that pass all of the following checks, in the right order |
//! | [`VersionCheckLayer`] | well-formed handshakes: RFC 6455 4.2.1 in full, RFC 8441 over HTTP/2 |
//! | [`OriginCheckLayer`] | handshakes from allowed pages, to allowed hosts |
//! | [`TokenCheckLayer`] | handshakes with exactly one valid credential; provides its [`Claims`] |
//! | [`ResponderLayer`] | well-formed handshakes, and completes them: sends the 101 and hands over the connection |
//!
//! Ordinary requests pass untouched, without an allocation. [`is_upgrade_request`] is the
//! classifier. [`RequestCheckLayer`] applies host and origin policies to ordinary requests, too.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, extract::ws::WebSocketUpgrade, response::Response, routing::any};
//! use tower::ServiceExt;
//! use tower_ws_guard::{
//!     AllowOrigin, GuardLayer,
//!     test_util::{assert_accepted, assert_rejected, handshake},
//! };
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
//! let from = |origin: &str| handshake("/ws").origin(origin).upgradable(Body::empty());
//! let (request, _client) = from("https://app.example.com").await;
//! assert_accepted(&app.clone().oneshot(request).await.unwrap());
//! let (request, _client) = from("https://evil.example").await;
//! assert_rejected(&app.oneshot(request).await.unwrap(), "origin-not-allowed");
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! Use [`GuardLayer`]: it makes all checks in one service, and with
//! [`respond`](GuardLayer::respond) it completes the handshake too. Separate layers go into one
//! `ServiceBuilder`, the outermost first: [`OriginCheckLayer`], [`TokenCheckLayer`],
//! [`ResponderLayer`]. Each of them parses the handshake strictly by itself, so no malformed
//! handshake reaches a policy in any order. But a token check outside of the origin check tells
//! every page on the web whether a token is valid.
//!
//! # Guides
//!
//! | | |
//! |---|---|
//! | begin | [getting started](guide::getting_started), [browsers and credentials](guide::browsers), [migrating](guide::migrating), [testing](guide::testing) |
//! | run it | [behind a proxy](guide::proxies), [tenants and changing policies](guide::policies), [a fleet](guide::fleet), [operating](guide::operating), [hardening](guide::hardening) |
//! | understand it | [rejections by code](guide::rejections), [threats](guide::threats) |
//!
//! # Why a handshake was rejected
//!
//! [Rejections by code](guide::rejections) has a section for each code. [`telemetry`] sends the
//! reason to your logs and metrics. [`AcceptThenClose`] shows it to a script in a browser.
//!
//! # After the handshake
//!
//! [`upgrade`] hands over the connection, [`extension`] negotiates compression, and [`connection`]
//! has limits and a drain. A [table](guard#when-something-fails) says what the client sees when a
//! part of your own fails.
//!
//! # What this crate does not do
//!
//! - `Origin` protects the users of browsers. It authenticates nobody.
//! - The layers end at the 101. The codec bounds frames, their size and their rate.
//! - Ordinary requests pass. The layers do not see if a handler responds to one with 101, such as a
//!   proxy that passes on the response of its upstream.
//!
//! # Features
//!
//! `token` is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `token` | [tokens](token): [`TokenPolicy`], [`TokenCheckLayer`] and the verifiers; implied by `jwt`, `lint`, `redis`, `serde` and `tickets` |
//! | `axum` | the [extractors](mod@axum), and the removal of tokens from `OriginalUri` |
//! | `axum-ws` | [`GuardedUpgrade`](axum::GuardedUpgrade): axum's `WebSocketUpgrade` behind a guard; implies `axum` |
//! | `client` | [`client`]: the check of a server's response, for tests of your own |
//! | `headers` | `headers::Header` for [`ExtensionOffer`], [`SubprotocolOffer`] and [`Origin`], for axum-extra's `TypedHeader` |
//! | `http2` | WebSocket over HTTP/2; without it an extended `CONNECT` is rejected, because its protocol cannot be read, unless an adapter sets [`ConnectProtocol`] |
//! | `lint` | [`GuardLayer::lint`]: names dangerous combinations of settings; includes the list of public suffixes |
//! | `jwt` | [JSON Web Tokens](token::jwt), with [keys that rotate](token::jwt::JwtKeys::refresh); built on `jsonwebtoken` with RustCrypto |
//! | `tickets` | [one-time tickets](token::ticket), in memory or in a store of your own |
//! | `redis` | [`Redis`]: [`Sessions`], [`Revocations`] and one-time tickets for several servers; implies `tickets` |
//! | `redis-tls` | TLS to Redis (`rediss://`), built on rustls with *ring*; implies `redis` |
//! | `serde` | [`Settings`]: policies from configuration files and the environment |
//! | `tracing` | [an event](telemetry) for each handshake, and a span for each connection |
//! | `metrics` | [counters and histograms](telemetry) of handshakes and connections |
//! | `full` | all of the above, except for `redis-tls` |
//! | `test-util` | [`test_util`]: requests that can be upgraded in memory, for tests |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
pub mod client;
mod config;
pub mod connection;
mod context;
pub mod extension;
pub mod guard;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handshake;
mod head;
mod host;
mod http;
mod layers;
mod lock;
mod origin;
mod pattern;
mod random;
#[cfg(feature = "redis")]
mod redis;
pub mod rejection;
mod replaceable;
#[cfg(feature = "serde")]
mod settings;
mod subprotocol;
mod subprotocol_offer;
#[cfg(not(models))]
mod sync;
#[cfg(models)]
#[path = "../tests/models/src/sync.rs"]
mod sync;
pub mod telemetry;
#[cfg(feature = "test-util")]
pub mod test_util;
#[cfg(feature = "token")]
pub mod token;
#[cfg(not(feature = "token"))]
#[path = "token/off.rs"]
mod token;
#[cfg(feature = "headers")]
mod typed_headers;
pub mod upgrade;

#[cfg(feature = "lint")]
#[doc(inline)]
pub use self::guard::Lint;
#[cfg(feature = "serde")]
#[doc(inline)]
pub use self::settings::Settings;
#[doc(inline)]
pub use self::{
    config::ConfigError,
    connection::{
        ConnectionLimit, Drain, Ended, Permit, SessionInfo, Sessions, SessionsError, Validity,
        WhenFull,
    },
    context::{Claims, OriginChecked},
    extension::{
        AgreedDeflate, AgreedExtensions, ExtensionOffer, InvalidExtensionOffer, OfferedExtension,
        PermessageDeflate,
    },
    guard::{
        AcceptThenClose, Authorize, Check, Explanation, Forward, Guard, GuardLayer, Respond,
        check_fn,
    },
    handshake::Handshake,
    head::RequestHead,
    host::AllowHost,
    http::{
        ConnectProtocol, Host, InvalidHost, InvalidOrigin, Origin, RequestOrigin, Transport,
        accept_key, is_upgrade_request,
    },
    layers::{
        ConfirmUpgrade, ConfirmUpgradeLayer, OriginCheck, OriginCheckLayer, RequestCheck,
        RequestCheckLayer, Responder, ResponderLayer, VersionCheck, VersionCheckLayer,
    },
    origin::AllowOrigin,
    rejection::{
        EmptyBody, MapBody, PlainText, ProblemJson, Rejection, RejectionKind, RejectionResponse,
        Reported, response_fn,
    },
    replaceable::Replaceable,
    subprotocol::Subprotocols,
    subprotocol_offer::{InvalidSubprotocolOffer, SubprotocolOffer},
    upgrade::{PendingUpgrade, Upgrade, UpgradeError, Upgraded},
};
#[cfg(feature = "redis")]
#[doc(inline)]
pub use self::{connection::WhenUnavailable, redis::Redis};
#[cfg(feature = "token")]
#[doc(inline)]
pub use self::{
    layers::{TokenCheck, TokenCheckLayer},
    token::{
        BoxVerifier, RevocationError, Revocations, StaticTokens, Token, TokenIdentity, TokenPolicy,
        TokenSource, Verified, VerifyToken,
    },
};
#[cfg(feature = "token")]
pub use tokio_util::sync::CancellationToken;
