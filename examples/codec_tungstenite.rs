//! A guard that completes the handshake, with tokio-tungstenite for the frames, over HTTP/1.1 and
//! HTTP/2.
//!
//! `cargo run --example codec_tungstenite`, then open a socket to ws://127.0.0.1:3000/ws from a
//! page of http://127.0.0.1:3000.

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, PendingUpgrade, Upgraded};

pub(crate) fn app() -> Router {
    let guard =
        GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::loopback()).respond();
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Router::new().route("/ws", any(handler).layer(guard))
}

async fn handler(pending: PendingUpgrade) {
    pending.on_upgrade(echo);
}

/// Reads to the end, because tungstenite responds to pings and the close while it is read.
async fn echo(socket: Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()).await
}
