//! A check of your own: it finds the tenant by the host, and leaves it in the extensions for the
//! handler.
//!
//! `cargo run --example custom_check`, then open a socket to ws://acme.localhost:3000/ws from a
//! page of that host.

use axum::{
    Extension, Router,
    extract::ws::{Message, WebSocketUpgrade},
    response::Response,
    routing::any,
};
use http::StatusCode;
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, Handshake, ProblemJson, Rejection};

#[derive(Clone, Copy)]
struct Tenant(&'static str);

const TENANTS: [Tenant; 2] = [Tenant("acme"), Tenant("globex")];

/// Runs only on well-formed handshakes from allowed origins, before the token is verified.
fn known_tenant(handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
    let (label, _) = handshake.host().name().split_once('.').unwrap_or_default();
    let tenant = TENANTS.into_iter().find(|Tenant(name)| label.eq_ignore_ascii_case(name));
    let tenant = tenant.ok_or(Rejection::custom("tenant-unknown", StatusCode::NOT_FOUND))?;
    handshake.extensions_mut().insert(tenant);
    Ok(())
}

pub(crate) fn app() -> Router {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .check(known_tenant)
        .reject_with(ProblemJson::new());
    Router::new().route("/ws", any(handler).layer(guard))
}

async fn handler(
    upgrade: WebSocketUpgrade,
    Extension(Tenant(name)): Extension<Tenant>,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let _ = socket.send(Message::text(format!("welcome to {name}"))).await;
    })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()).await
}
