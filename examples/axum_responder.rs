//! Guard and responder in axum: this crate answers the handshake, and tokio-tungstenite does the frames.
//!
//! `cargo run --example axum_responder`, then `websocat -H 'Authorization: Bearer s3cr3t' ws://127.0.0.1:3000/ws`.

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower::ServiceBuilder;
use tower_ws_guard::{
    AllowOrigin, Claims, GuardLayer, PendingUpgrade, ResponderLayer, StaticTokens, TokenPolicy, Upgraded,
};

pub(crate) fn app() -> Router {
    let tokens = StaticTokens::new([("s3cr3t", "alice")]);
    // Clients other than browsers send no Origin; these authenticate with a token and not with a cookie.
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing()).token(TokenPolicy::bearer(tokens));
    let layers = ServiceBuilder::new().layer(guard).layer(ResponderLayer::new());
    Router::new().route("/ws", any(handler).layer(layers))
}

/// Answers 101 because it accepts; a request that is no handshake gets 426 from the extractor.
async fn handler(pending: PendingUpgrade, Claims(user): Claims<&'static str>) {
    pending.on_upgrade(move |socket| greet(socket, user));
}

async fn greet(socket: Upgraded, user: &'static str) {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    let _ = socket.send(Message::text(format!("hello {user}"))).await;
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()).await
}
