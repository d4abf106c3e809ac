//! Logs and metrics: the outcome of each handshake, and the reason.
//!
//! The guide to [operating](crate::guide::operating) sets them up, with alerts and a dashboard.
//!
//! With the feature `tracing` there is one event per handshake, with the target `tower_ws_guard`:
//!
//! | outcome | level | message |
//! |---|---|---|
//! | accepted | DEBUG | |
//! | rejected | WARN; ERROR if the server is at fault (5xx except `http-version`, `over-capacity` and `shutting-down`) | cause, offending value, and fix |
//! | accepted by `dangerous_report_only` | WARN | cause, offending value, and fix |
//! | declined by the inner service, or the inner service failed | DEBUG | |
//! | dropped before there was a response: the client left, or an outer timeout passed | DEBUG | |
//!
//! The fields are `code` ([`RejectionKind::code`](crate::RejectionKind::code)), `transport`,
//! `origin` (escaped and cut), `path` (without the query, which may hold a token) and `check_us`,
//! the duration of the checks in microseconds. Callbacks with the connection run in a span
//! `websocket` with `transport`, `origin` and `path`. Behind a guard that forwards, the span is in
//! the extensions of the request as a `tracing::Span`.
//!
//! Untrusted clients decide how many rejections there are. A filter can drop them
//! (`tower_ws_guard=error`), and a layer such as that of the crate `tracing-throttle` limits their
//! rate. Metrics count them all.
//!
//! With the feature `metrics` there are these metrics, through the facade of the crate `metrics`:
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `ws_guard_handshakes_total` | counter | `outcome`: `accepted` or `rejected`; `code` |
//! | `ws_guard_check_duration_seconds` | histogram | `outcome` |
//! | `ws_guard_connections` | gauge: open [`Upgraded`](crate::Upgraded) connections | |
//! | `ws_guard_connection_duration_seconds` | histogram | |
//! | `ws_guard_jwt_keys_fetched_timestamp_seconds` | gauge: Unix time of the last successful fetch by [`JwtKeys::refresh`], 0 if all failed | `keys`: their [`name`] |
//! | `ws_guard_jwt_key_fetches_total` | counter | `keys`; `outcome`: `succeeded` or `failed` |
//!
//! `code` is the code of the rejection. For an accepted handshake it is `accepted`, or with
//! `dangerous_report_only` the code of the rejection that was not made. It is `declined` if the
//! inner service did not complete the handshake, `error` if it failed, and `cancelled` if the
//! handshake was dropped before there was a response. So the number of values is bounded, except
//! for the codes of your own checks.
//!
//! The age of the keys of an issuer is `time() - ws_guard_jwt_keys_fetched_timestamp_seconds`: alert
//! on it, because old keys stay valid while fetches fail. Each failed fetch is also a WARN event with
//! the cause, and a successful one is a DEBUG event. Their fields are `keys`, the name, and
//! `retry_in_ms`.
//!
//! [`JwtKeys::refresh`]: crate::token::jwt::JwtKeys::refresh
//! [`name`]: crate::token::jwt::JwtRefresh::name
//!
//! Without a subscriber of `tracing` nothing is kept for events. If its feature `log` passes them on
//! to the crate `log` then, those after the checks have neither `path` nor `origin`.
//!
//! A stack of layers records one event, from its outermost layer. `check_us` covers the checks of
//! that layer only.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     AllowOrigin, GuardLayer, Reported,
//!     test_util::{assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! // Report-only mode: the policy rejects nothing, and reports what it would reject.
//! let origins = AllowOrigin::list(["https://app.example.com"])?;
//! let guard = GuardLayer::new(origins).dangerous_report_only();
//! let handler = service_fn(async |request: Request<()>| {
//!     let reported = request.extensions().get();
//!     let reported = reported.map(|Reported(rejection)| rejection.kind().code());
//!     Ok::<_, std::convert::Infallible>(Response::new(reported.unwrap_or("nothing")))
//! });
//! let service = ServiceBuilder::new().layer(guard).service(handler);
//!
//! let foreign = handshake("/ws").origin("https://evil.example").build(());
//! let accepted = service.clone().oneshot(foreign).await.unwrap();
//! assert_eq!(*accepted.body(), "origin-not-allowed");
//! // A malformed handshake is still rejected.
//! let malformed = handshake("/ws").header("sec-websocket-version", "8").build(());
//! assert_rejected(&service.oneshot(malformed).await.unwrap(), "version-unsupported");
//! # Ok(())
//! # }
//! ```

mod connection;
#[cfg(feature = "jwt")]
mod keys;
#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
mod off;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod outcome;

pub(crate) use self::connection::{ConnectionSpan, OpenConnection};
#[cfg(feature = "jwt")]
pub(crate) use self::keys::KeyFetches;
#[cfg(all(feature = "tracing", feature = "redis"))]
pub(crate) use self::log::log_failure;
#[cfg(all(feature = "tracing", feature = "axum"))]
pub(crate) use self::log::log_unprotected;
#[cfg(feature = "metrics")]
pub use self::metrics::describe_metrics;
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
pub(crate) use self::off::{CheckTimer, HandshakeRecord};
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) use self::outcome::{CheckTimer, HandshakeRecord};
