//! The upgraded connection, and how the application takes it.
//!
//! A [`GuardLayer`](crate::GuardLayer) forwards an accepted handshake to the inner service, which
//! completes it. With one more call, or with a [`ResponderLayer`](crate::ResponderLayer), the layer
//! completes the handshake itself: 101 with `Sec-WebSocket-Accept` (over HTTP/2: 200) and the
//! selected subprotocol ([getting started](crate::guide::getting_started#hyper) has a program).
//! There are two ways to take the connection then:
//!
//! - [`respond`](crate::GuardLayer::respond): the inner service decides. It takes a
//!   [`PendingUpgrade`] from the extensions of the request (with the feature `axum` it is an
//!   extractor). When it accepts, its response becomes the 101: headers such as `Set-Cookie` stay,
//!   the body is discarded. A response of 4xx or 5xx cancels the upgrade. If it does not accept,
//!   its response is sent unchanged, and the HTTP/1.1 connection is closed. A 101 without
//!   acceptance becomes a 500, and over HTTP/2 a 2xx becomes a 404, because the client would take
//!   it for an accepted handshake.
//! - [`on_upgraded`](crate::GuardLayer::on_upgraded): the layer accepts every valid handshake and
//!   spawns your callback with the connection. With
//!   [`on_upgraded_with`](crate::GuardLayer::on_upgraded_with) the callback also gets a value from
//!   the head of the request. The inner service gets all other requests. In axum put the layer on a
//!   route (`MethodRouter::layer` or `Router::route_layer`): with `Router::layer` it would accept
//!   handshakes on every path, including unknown ones.
//!
//! The body of the inner service's response must be `Default`, because a 101 has an empty body.
//!
//! The crate knows no frames: [`Upgraded`] is a byte stream for any WebSocket codec. If the layer
//! agreed to compression, the codec must know: see [`extension`](crate::extension). axum's
//! `WebSocketUpgrade` does not work behind a layer that completes the handshake, because the layer
//! takes `OnUpgrade` out of the request. Use it behind a guard that forwards.
//!
//! # When the connection is handed over
//!
//! hyper hands over a connection when it is done with the response, whatever the status was. This
//! crate hands it over only if the response that leaves its outermost layer completes the
//! handshake. That holds for [`PendingUpgrade`], [`on_upgraded`](crate::GuardLayer::on_upgraded),
//! [`GuardedUpgrade`](crate::axum::GuardedUpgrade) and [`AcceptThenClose`](crate::AcceptThenClose).
//!
//! **A layer outside of the guard can replace the 101**, for example a session layer that fails to
//! save the session, or axum's `map_response`. Then the guard has already decided. Put a
//! [`ConfirmUpgradeLayer`](crate::ConfirmUpgradeLayer) outside of such layers. Inner layers of this
//! crate leave the decision to it. You need it only if an outer layer replaces responses.
//!
//! A service that takes hyper's `OnUpgrade` by itself, such as axum's own `WebSocketUpgrade`, gets
//! the connection from hyper. Behind a `ConfirmUpgradeLayer`, a limit, sessions, a drain or a
//! maximum age it finds no `OnUpgrade`, and the response is a 500 with the fix in the log.

mod handover;
mod info;
mod pending;
mod response;
mod task;
mod upgraded;

use std::time::Duration;

pub(crate) use self::{
    handover::{Handover, PendingDecision, decide_passed_on, is_taken_in},
    info::ConnectionInfo,
    response::HandshakeResponse,
};
pub use self::{
    pending::{PendingUpgrade, Upgrade, UpgradeError},
    upgraded::Upgraded,
};

/// The default time in which a client must read the response.
pub(crate) const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
