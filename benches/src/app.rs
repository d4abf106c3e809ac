//! axum apps and the policies of all rows: only `https://app.example.com` is allowed.

use axum::{
    Extension, Router,
    extract::{Request, WebSocketUpgrade},
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use http::{HeaderMap, StatusCode, header::ORIGIN};
use tower::ServiceBuilder;
use tower_ws_guard::{
    AllowOrigin, GuardLayer, PendingUpgrade, ResponderLayer, StaticTokens, Subprotocols,
    TokenPolicy, TokenSource,
};

use crate::input;

pub(crate) fn origins() -> AllowOrigin {
    AllowOrigin::list([input::ORIGIN]).expect("a valid origin")
}

pub(crate) fn guard() -> GuardLayer {
    GuardLayer::new(origins())
}

/// A token in the subprotocol `auth.…`.
pub(crate) fn token() -> TokenPolicy<u64> {
    let sources = [TokenSource::subprotocol("auth.").expect("a valid prefix")];
    TokenPolicy::from_sources(sources, StaticTokens::new([(input::TOKEN, 7)]).unwrap())
        .expect("one source")
}

pub(crate) fn subprotocols() -> Subprotocols {
    Subprotocols::list(["chat.v2", "chat.v1"]).expect("valid subprotocols")
}

pub(crate) fn is_allowed(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| origin == input::ORIGIN)
}

/// With its state, as `axum::serve` does: otherwise axum makes the services again for each request.
fn app(websocket: MethodRouter) -> Router {
    Router::new().route("/", any(async || "hello")).route("/ws", websocket).with_state(())
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |socket| drop(socket))
}

/// axum's own handshake, and `/` for ordinary requests.
pub fn axum() -> Router {
    app(any(upgrade))
}

pub fn axum_origin_in_handler() -> Router {
    let handler = async |headers: HeaderMap, upgrade: WebSocketUpgrade| match is_allowed(&headers) {
        true => upgrade.on_upgrade(async |socket| drop(socket)),
        false => StatusCode::FORBIDDEN.into_response(),
    };
    app(any(handler))
}

pub fn axum_origin_from_fn() -> Router {
    let check = async |request: Request, next: Next| match is_allowed(request.headers()) {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    };
    axum().layer(from_fn(check))
}

/// Guard and responder on the route of a handler that accepts.
pub fn axum_guard_and_handler<H: Handler<T, ()>, T: 'static>(handler: H) -> Router {
    app(any(handler).layer(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new())))
}

pub fn axum_guard_and_responder() -> Router {
    axum_guard_and_handler(async |pending: Extension<PendingUpgrade>| {
        pending.on_upgrade(async |socket| drop(socket))
    })
}

/// Guard and responder with a callback on the route: no handshake reaches the handler.
pub fn axum_guard_and_callback() -> Router {
    let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
    let layers = ServiceBuilder::new().layer(guard()).layer(responder);
    app(any(async || StatusCode::UPGRADE_REQUIRED).layer(layers))
}

/// The guard on the route of axum's own handshake.
pub fn axum_guard() -> Router {
    app(any(upgrade).layer(guard()))
}
