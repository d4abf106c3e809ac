//! Logs and metrics: what was decided on each handshake, and why.
//!
//! With feature `tracing` there is one event for each decision, with target `tower_ws_guard`:
//!
//! | decision | level | message |
//! |---|---|---|
//! | accepted | DEBUG | |
//! | refused | WARN; ERROR if the fault is the server's: 5xx, but not `http-version`, `over-capacity` and `shutting-down` | cause, offending value, and fix |
//! | let in by `dangerous_report_only` | WARN | cause, offending value, and fix |
//! | declined by the inner service itself, or failed there | DEBUG | |
//! | dropped before there was an answer: the client left, or a time-out outside struck | DEBUG | |
//!
//! Its fields are `code` ([`RejectionKind::code`](crate::RejectionKind::code)), `transport`, `origin` (escaped and cut), `path` (without the
//! query, where tokens are) and `check_us`, how long the checks took in microseconds. Callbacks of the responder run in a span
//! `websocket` with `transport`, `origin` and `path`; behind a guard alone it is in the extensions of the request as a `tracing::Span`.
//!
//! Whoever scans a server from outside decides how many refusals there are. A filter can leave them out
//! (`tower_ws_guard=error`), and a layer such as that of the crate `tracing-throttle` bounds their rate; metrics count them all.
//!
//! With feature `metrics` there are, by the facade of the crate `metrics`:
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `ws_guard_handshakes_total` | counter | `outcome`: `accepted` or `refused`; `code` |
//! | `ws_guard_check_duration_seconds` | histogram | `outcome` |
//! | `ws_guard_connections` | gauge: upgraded connections that the responder handed over, until they are dropped or taken apart by `Upgraded::into_parts` | |
//! | `ws_guard_connection_duration_seconds` | histogram | |
//!
//! `code` is that of the rejection. For what was accepted it is `accepted`, or, with `dangerous_report_only`, the code of what would have
//! been the refusal; it is `declined` for what the inner service did not answer by completing the handshake, `error` if it failed, and
//! `cancelled` for what was dropped before there was an answer. So the number of values is fixed, but for the codes of your own checks.
//!
//! A stack of layers decides once: the outermost one tells, and what it calls checks are its own.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{AllowOrigin, GuardLayer, Rejection};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! // A policy that is tried out: it refuses nothing, and reports what it would.
//! let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?).dangerous_report_only();
//! let service = ServiceBuilder::new().layer(guard).service(service_fn(async |request: Request<()>| {
//!     let reported = request.extensions().get::<Rejection>().map(|rejection| rejection.kind().code());
//!     Ok::<_, std::convert::Infallible>(Response::new(reported.unwrap_or("nothing")))
//! }));
//!
//! let handshake = |origin: &str, version: &str| {
//!     Request::get("/ws")
//!         .header("host", "chat.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", version)
//!         .header("origin", origin)
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("https://evil.example", "13")).await.unwrap();
//! assert_eq!(*accepted.body(), "origin-not-allowed");
//! // What is no valid handshake cannot be answered.
//! let refused = service.oneshot(handshake("https://app.example.com", "8")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "responder")]
mod connection;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod decision;
#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "metrics")]
mod metrics;

use http::{Response, request::Parts};

#[cfg(feature = "responder")]
pub(crate) use self::connection::{Live, Scope};
#[cfg(feature = "metrics")]
pub use self::metrics::describe_metrics;
use crate::rejection::{Rejection, RejectionKind};

/// The checks of one layer. Without the features it is nothing.
pub(crate) struct Watch {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    started: std::time::Instant,
}

/// A handshake that was let in, on its way to the answer. Boxed, so that ordinary requests do not carry its room with them.
pub(crate) struct Admitted {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    state: Box<decision::State>,
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
impl Watch {
    pub(crate) fn start() -> Self {
        Self {}
    }

    pub(crate) fn refused(self, _: &Parts, _: &Rejection) {}

    pub(crate) fn admitted(self, _: &mut Parts) -> Admitted {
        Admitted {}
    }
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
impl Admitted {
    pub(crate) fn verified(&self, _: Option<Rejection>) {}

    pub(crate) fn answered<B, E>(self, _: &mut Result<Response<B>, E>) {}
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Watch {
    pub(crate) fn start() -> Self {
        Self { started: std::time::Instant::now() }
    }

    pub(crate) fn refused(self, request: &Parts, rejection: &Rejection) {
        use self::decision::{Decision, Head};

        if request.extensions.get::<Watched>().is_none() {
            Decision::Refused(rejection).tell(&Head::of(request), self.started.elapsed());
        }
    }

    pub(crate) fn admitted(self, request: &mut Parts) -> Admitted {
        // Only the outermost layer tells.
        let tells = request.extensions.insert(Watched).is_none();
        let state = Box::new(decision::State::new(self.started, request, tells));
        #[cfg(feature = "tracing")]
        if let Some(span) = tells.then(|| log::span(&state.head())).filter(|span| !span.is_disabled()) {
            request.extensions.insert(span);
        }
        Admitted { state }
    }
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Admitted {
    /// The check that came last is over, and would perhaps have refused.
    pub(crate) fn verified(&mut self, reported: Option<Rejection>) {
        self.state.checked(reported);
    }

    pub(crate) fn answered<B, E>(mut self, result: &mut Result<Response<B>, E>) {
        self.state.answered(result);
    }
}

/// In the extensions of a request: a layer outside tells.
#[cfg(any(feature = "tracing", feature = "metrics"))]
#[derive(Clone)]
struct Watched;

/// In the extensions of a response: what a layer inside would have refused, for the one that tells.
#[cfg(any(feature = "tracing", feature = "metrics"))]
#[derive(Clone)]
struct Reported(Rejection);

/// A refusal that is not made, because nothing is refused. Of several the first one is what would have been the answer.
pub(crate) fn report(request: &mut Parts, rejection: Rejection) {
    if request.extensions.get::<Rejection>().is_none() {
        request.extensions.insert(rejection);
    }
}

/// The same for what is only seen in the answer.
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) fn report_behind<B>(response: &mut Response<B>, kind: RejectionKind) {
    response.extensions_mut().get_or_insert_with(|| Reported(kind.into()));
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
pub(crate) fn report_behind<B>(_: &mut Response<B>, _: RejectionKind) {}
