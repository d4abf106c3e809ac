//! A guard in axum that completes the handshake, with tokio-tungstenite for the frames.
//!
//! `cargo run --example axum_responder`, then
//! `websocat -H='Authorization: Bearer s3cr3t' ws://127.0.0.1:3000/ws`.

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, PendingUpgrade, StaticTokens,
    TokenPolicy, Upgraded,
};

pub(crate) fn app() -> Result<Router, ConfigError> {
    let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
    // Clients other than browsers send no Origin; these authenticate with a token and not with a
    // cookie.
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing())
        .allow_host(AllowHost::loopback())
        .token(TokenPolicy::bearer(tokens))?;
    Ok(Router::new().route("/ws", any(handler).layer(guard.respond())))
}

/// Accepts the handshake. An ordinary request gets 426 from the extractor.
async fn handler(pending: PendingUpgrade, Claims(user): Claims<&'static str>) {
    pending.on_upgrade(move |socket| greet(socket, user));
}

async fn greet(socket: Upgraded, user: &'static str) {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    let _ = socket.send(Message::text(format!("hello {user}"))).await;
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
