//! axum apps and the policies of all rows: only `https://app.example.com` is allowed.

use axum::{
    Extension, Router,
    extract::{Request, WebSocketUpgrade},
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode, header::ORIGIN};
use tower::ServiceBuilder;
use tower_ws_guard::{
    AllowOrigin, GuardLayer, PendingUpgrade, ResponderLayer, StaticTokens, Subprotocols,
    TokenPolicy, TokenSource,
    token::{
        jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
        ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
    },
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

pub(crate) fn bearer() -> TokenPolicy<i32> {
    TokenPolicy::bearer(StaticTokens::new([(input::TOKEN, 7)]).unwrap())
}

/// A bearer token, and a subprotocol.
pub(crate) fn bearer_lines() -> String {
    lines(input::TOKEN)
}

pub(crate) fn lines(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: chat.v2\r\n")
}

const SECRET: &[u8] = b"at least as many bytes as the hash has";

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct User {
    sub: String,
    exp: u64,
}

pub(crate) fn jwt() -> TokenPolicy<User> {
    let key = JwtKey::hmac(JwtAlgorithm::HS256, SECRET).expect("long enough");
    TokenPolicy::bearer(JwtVerifier::new(JwtKeys::new([key])))
}

pub(crate) fn json_web_token() -> String {
    let user = User { sub: "alice".into(), exp: 4_102_444_800 };
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET).expect("a key");
    jsonwebtoken::encode(&Default::default(), &user, &key).expect("a token")
}

/// Tickets in `ticket=…` of the query, and what issues them.
pub(crate) fn tickets() -> (TokenPolicy<String>, impl Fn() -> String) {
    let store = MemoryTicketStore::default();
    let (issuer, verifier) = (TicketIssuer::new(store.clone()), TicketVerifier::new(store));
    let sources = [TokenSource::query("ticket").expect("a valid name")];
    let policy = TokenPolicy::from_sources(sources, verifier).expect("one source");
    let issue = move || {
        let ticket = issuer.issue(&"alice").now_or_never().expect("in memory");
        ticket.expect("room in the store").expose().to_owned()
    };
    (policy, issue)
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

async fn check_origin(request: Request, next: Next) -> Response {
    match is_allowed(request.headers()) {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

/// By `Router::layer`: every request is boxed once more.
pub fn axum_origin_from_fn() -> Router {
    axum().layer(from_fn(check_origin))
}

pub fn axum_origin_from_fn_on_route() -> Router {
    app(any(upgrade).layer(from_fn(check_origin)))
}

/// The guard on the route of a handler that accepts.
pub fn axum_guard_and_handler<H: Handler<T, ()>, T: 'static>(handler: H) -> Router {
    app(any(handler).layer(guard().respond()))
}

/// The guard on the route, and a handler that accepts.
pub fn axum_guard_responds() -> Router {
    axum_guard_and_handler(async |pending: Extension<PendingUpgrade>| {
        pending.on_upgrade(async |socket| drop(socket))
    })
}

/// The same in two layers.
pub fn axum_guard_and_responder() -> Router {
    let handler = async |pending: Extension<PendingUpgrade>| {
        pending.on_upgrade(async |socket| drop(socket));
    };
    app(any(handler).layer(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new())))
}

/// The guard with a callback on the route: no handshake reaches the handler.
pub fn axum_guard_and_callback() -> Router {
    let guard = guard().on_upgraded(async |socket| drop(socket));
    app(any(async || StatusCode::UPGRADE_REQUIRED).layer(guard))
}

/// The guard on the route of axum's own handshake.
pub fn axum_guard() -> Router {
    app(any(upgrade).layer(guard()))
}
