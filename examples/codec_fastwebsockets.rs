//! A guard that completes the handshake, with fastwebsockets for the frames, over HTTP/1.1 and
//! HTTP/2.
//!
//! `cargo run --example codec_fastwebsockets`, then open a socket to ws://127.0.0.1:3000/ws from a
//! page of http://127.0.0.1:3000.

use axum::{Router, routing::any};
use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
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

/// `FragmentCollector` returns whole messages; a bare `WebSocket` returns frames. Both respond to
/// pings and the close while they are read.
async fn echo(socket: Upgraded) {
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(socket, Role::Server));
    while let Ok(frame) = socket.read_frame().await {
        let is_message = matches!(frame.opcode, OpCode::Text | OpCode::Binary);
        if frame.opcode == OpCode::Close || (is_message && socket.write_frame(frame).await.is_err())
        {
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
