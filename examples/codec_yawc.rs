//! A guard that completes the handshake, with yawc for the frames, over HTTP/1.1 and HTTP/2.
//!
//! `cargo run --example codec_yawc`, then open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000.

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, PendingUpgrade, Upgraded};
use yawc::{OpCode, Options, Role, WebSocket};

pub(crate) fn app() -> Router {
    let guard =
        GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::loopback()).respond();
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Router::new().route("/ws", any(handler).layer(guard))
}

async fn handler(pending: PendingUpgrade) {
    pending.on_upgrade(echo);
}

/// Reads to the end, because yawc responds to pings and the close while it is read.
async fn echo(socket: Upgraded) {
    // By default it rejects 1 MiB, and does not check that text is UTF-8.
    let options = Options::default().with_max_payload_read(16 << 20).with_utf8();
    let Ok(mut socket) = WebSocket::from_stream(socket, Role::Server, options) else { return };
    while let Some(frame) = socket.next().await {
        let is_message = matches!(frame.opcode(), OpCode::Text | OpCode::Binary);
        if is_message && socket.send(frame).await.is_err() {
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
