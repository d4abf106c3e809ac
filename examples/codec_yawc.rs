//! A guard that completes the handshake, with yawc for the frames and their compression, over
//! HTTP/1.1 and HTTP/2.
//!
//! `cargo run --example codec_yawc`, then open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000.

use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConfigError, GuardLayer, PendingUpgrade, PermessageDeflate, Upgraded,
};
use yawc::{CompressionLevel, OpCode, Options, Role, WebSocket};

/// The bound of a message, after it is expanded. yawc stops there while it expands a message.
const MAX_MESSAGE: usize = 16 << 20;

pub(crate) fn app() -> Result<Router, ConfigError> {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        // What zlib can compress with, so it needs the feature `zlib` of yawc.
        .extensions(PermessageDeflate::new().server_window_bits(9..=15)?)
        .respond();
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(pending: PendingUpgrade) {
    pending.on_upgrade(echo);
}

/// Reads to the end, because yawc responds to pings and the close while it is read.
async fn echo(socket: Upgraded) {
    let agreed = socket.extensions().permessage_deflate().map(|agreed| agreed.to_string());
    let options = Options::default()
        .with_compression_level(CompressionLevel::fast())
        // Empty messages stay as they are: yawc 0.5 would never finish the second one.
        .with_compression_threshold(1)
        // Against bombs: a message of 1 MB can expand to 1 GB. The first bounds a frame, the second
        // a message of several frames. By default yawc rejects 1 MiB.
        .with_max_payload_read(MAX_MESSAGE)
        .with_max_read_buffer(MAX_MESSAGE)
        // By default it does not check that text is UTF-8.
        .with_utf8();
    let socket =
        WebSocket::from_stream_with_extensions(socket, Role::Server, agreed.as_deref(), options);
    let Ok(mut socket) = socket else { return };
    while let Some(frame) = socket.next().await {
        let is_message = matches!(frame.opcode(), OpCode::Text | OpCode::Binary);
        if is_message && socket.send(frame).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
