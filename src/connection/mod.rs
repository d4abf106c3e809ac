//! Admission after the handshake: how many connections are open, and how they end.
//!
//! The limits of tower and the graceful shutdown of hyper end at the 101: for them the request is
//! done. Here a connection has a [`Permit`] for as long as it is open.
//!
//! - [`ConnectionLimit`]: the maximum number of connections. A handshake without a slot is rejected
//!   with [`OverCapacity`](crate::RejectionKind::OverCapacity). It is the last check but one: a
//!   handshake that another check rejects acquires no slot.
//! - [`Sessions`]: who is connected, by user or by address: at most so many of each. They can be
//!   listed and ended, on one server or on all that share a Redis. A handshake without a slot is
//!   rejected with [`TooManyConnections`](crate::RejectionKind::TooManyConnections), or evicts the
//!   oldest.
//! - [`Drain`]: the shutdown of a server. It rejects new handshakes with
//!   [`ShuttingDown`](crate::RejectionKind::ShuttingDown), tells the open connections to end, and
//!   waits for them. [Operating](crate::guide::operating#a-drain) has the code.
//! - [`GuardLayer::max_age`](crate::GuardLayer::max_age): the maximum age of a connection.
//!
//! # How a connection ends
//!
//! [`Permit::ended`] and [`Upgraded::ended`](crate::Upgraded::ended) resolve when the connection
//! must end, to the reason: one of [`Ended`], with its close code. The crate closes no socket. Your
//! code does, because it has the codec.
//!
//! The claims of a token expire while a socket is open. A client may send a refreshed token over
//! the socket: verify it, and [renew](crate::Validity::renew) the [`Validity`].
//!
//! # Who holds the permit
//!
//! - With [`respond`](crate::GuardLayer::respond) or [`ResponderLayer`](crate::ResponderLayer):
//!   [`Upgraded`](crate::Upgraded). There is nothing to do.
//! - In axum: [`GuardedUpgrade`](crate::axum::GuardedUpgrade), in place of `WebSocketUpgrade`, for
//!   as long as your callback runs.
//! - Any other service behind a guard: the service itself. It takes the permit with
//!   [`Permit::claim`] and moves it into the task of the connection.
//!
//! A service that forgets the permit does not bypass the limit, because the connection cannot be
//! upgraded before. If nobody holds the permit when the inner service responds with 101, the
//! response becomes [`PermitUnclaimed`](crate::RejectionKind::PermitUnclaimed). The same happens to
//! the 426 of axum's own `WebSocketUpgrade`, which finds no upgrade. Over HTTP/2 a 2xx of a service
//! that did not take the permit declines the handshake: the client gets a 404. Report-only mode
//! withholds nothing.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     AllowOrigin, ConnectionLimit, Drain, GuardLayer, Permit,
//!     test_util::{assert_accepted, assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let drain = Drain::new();
//! let guard = GuardLayer::new(AllowOrigin::same_origin())
//!     .limit(ConnectionLimit::total(1)?)
//!     .drain(&drain);
//! let handler = service_fn(async |mut request: Request<()>| {
//!     let permit = Permit::claim(request.extensions_mut());
//!     // The task of the connection.
//!     tokio::spawn(async move {
//!         if let Some(permit) = permit {
//!             permit.ended().await;
//!         }
//!     });
//!     let mut response = Response::new(());
//!     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
//!     Ok::<_, std::convert::Infallible>(response)
//! });
//! let service = ServiceBuilder::new().layer(guard).service(handler);
//!
//! let request =
//!     handshake("/ws").host("chat.example.com").origin("https://chat.example.com").build(());
//! assert_accepted(&service.clone().oneshot(request.clone()).await.unwrap());
//! assert_rejected(&service.clone().oneshot(request).await.unwrap(), "over-capacity");
//!
//! assert_eq!(drain.connections(), 1);
//! assert_eq!(drain.wait(Duration::from_secs(10)).await, 0);
//! # Ok(())
//! # }
//! ```

mod drain;
mod ended;
mod first_of;
mod limit;
mod permit;
mod sessions;
mod validity;

#[cfg(feature = "redis")]
pub use self::sessions::WhenUnavailable;
pub use self::{
    drain::Drain,
    ended::Ended,
    limit::ConnectionLimit,
    permit::Permit,
    sessions::{SessionInfo, Sessions, SessionsError, WhenFull},
    validity::Validity,
};
pub(crate) use self::{
    first_of::FirstOf,
    permit::{Held, WeakPermit},
    sessions::{AcquireSession, AcquiredSession},
};
use crate::config::ConfigError;

fn at_least_one(max: usize) -> Result<usize, ConfigError> {
    if max == 0 {
        return Err(ConfigError::new("0", "nobody could connect; allow at least one connection"));
    }
    Ok(max)
}
