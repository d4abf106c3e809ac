//! Connections after the 101: how many there may be, and how they end.
//!
//! The limits of tower and the graceful shutdown of hyper end at the 101: the request is answered, and what becomes of the connection
//! is nobody's business. Here a connection has a [`Permit`], which lives as long as it does.
//!
//! - [`ConnectionLimit`]: how many connections there may be, in all and for each address or user. Whoever finds no place is refused
//!   with [`OverCapacity`](crate::RejectionKind::OverCapacity) or [`TooManyConnections`](crate::RejectionKind::TooManyConnections). It
//!   is the last check: a handshake that fails another one takes no place.
//! - [`Drain`]: the end of a server. New handshakes are refused with [`ShuttingDown`](crate::RejectionKind::ShuttingDown), connections
//!   learn of it, and the owner waits for them.
//!
//! # Who holds the permit
//!
//! With a [`ResponderLayer`](crate::ResponderLayer) it is [`Upgraded`](crate::Upgraded): there is nothing to do. In axum
//! [`GuardedUpgrade`](crate::extract::GuardedUpgrade), in place of `WebSocketUpgrade`, holds it as long as your callback runs. Any other
//! service behind a guard takes it by [`Permit::claim`], and moves it into the task of the connection.
//!
//! One that forgets it does not get around the limit, because the connection cannot be upgraded before. Where nobody holds the permit
//! when the inner service answers 101 (over HTTP/2: 200), the answer becomes
//! [`PermitUnclaimed`](crate::RejectionKind::PermitUnclaimed); the body stays that of the inner service. So does a 426 of axum's own
//! `WebSocketUpgrade`, which has found no upgrade. A layer that refuses nothing (`dangerous_report_only`) withholds nothing either.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{AllowOrigin, ConnectionLimit, Drain, GuardLayer, Permit};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let drain = Drain::new();
//! let guard = GuardLayer::new(AllowOrigin::same_origin()).limit(ConnectionLimit::total(1)?).drain(&drain);
//! let service = ServiceBuilder::new().layer(guard).service(service_fn(async |mut request: Request<()>| {
//!     let permit = Permit::claim(request.extensions_mut());
//!     // The task of the connection.
//!     tokio::spawn(async move {
//!         if let Some(permit) = permit {
//!             permit.draining().await;
//!         }
//!     });
//!     let mut response = Response::new(());
//!     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
//!     Ok::<_, std::convert::Infallible>(response)
//! }));
//!
//! let handshake = || {
//!     Request::get("/ws")
//!         .header("host", "chat.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("origin", "https://chat.example.com")
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake()).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
//! let refused = service.clone().oneshot(handshake()).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
//!
//! assert_eq!(drain.connections(), 1);
//! assert_eq!(drain.wait(Duration::from_secs(10)).await, 0);
//! # Ok(())
//! # }
//! ```

mod drain;
mod limit;
mod permit;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

/// How long a client may take to read the answer, if nothing else is said.
#[cfg(any(feature = "responder", feature = "axum-ws"))]
pub(crate) const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) use self::permit::Issued;
pub use self::{drain::Drain, limit::ConnectionLimit, permit::Permit};

/// Resolves with the first of them; if there is none, never.
pub(crate) async fn first_of(mut signals: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    poll_fn(|cx| match signals.iter_mut().any(|signal| signal.as_mut().poll(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// `None` if the future takes too long. What is ready at once needs no timer.
pub(crate) async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(time, future).await.ok(),
    }
}
