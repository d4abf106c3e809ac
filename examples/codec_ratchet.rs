//! A guard that completes the handshake, with ratchet for the frames and their compression, over
//! HTTP/1.1 and HTTP/2.
//!
//! `cargo run --example codec_ratchet`, then open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000.

use std::mem;

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS},
    routing::any,
};
use bytes::BytesMut;
use ratchet_rs::{
    ExtensionProvider, Message, PayloadType, Role, WebSocket, WebSocketConfig,
    deflate::{Deflate, DeflateConfig, DeflateExtProvider},
};
use tokio::io::BufWriter;
use tower_ws_guard::{
    AgreedDeflate, AllowHost, AllowOrigin, ConfigError, GuardLayer, PendingUpgrade,
    PermessageDeflate, Upgraded,
};

const MAX_MESSAGE: usize = 16 << 20;
/// The bound of a message if the client may compress it. Against bombs: ratchet bounds what it
/// receives, and not what that expands to, which is up to 1032 times as much. So this small bound
/// lets a message expand to 68 MB. `MAX_MESSAGE` is checked behind that.
const MAX_COMPRESSED: usize = 64 << 10;

pub(crate) fn app() -> Result<Router, ConfigError> {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        // What zlib can compress with.
        .extensions(PermessageDeflate::new().server_window_bits(9..=15)?)
        .respond();
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

async fn handler(pending: PendingUpgrade) {
    pending.on_upgrade(echo);
}

/// Reads to the end, because ratchet responds to pings and the close while it is read.
async fn echo(socket: Upgraded) {
    let deflate = socket.extensions().permessage_deflate().and_then(deflate);
    let max_message_size = if deflate.is_some() { MAX_COMPRESSED } else { MAX_MESSAGE };
    let config = WebSocketConfig { max_message_size };
    // It writes the head of a frame on its own, and flushes after the frame.
    let socket = BufWriter::new(socket);
    let mut socket =
        WebSocket::from_upgraded(config, socket, deflate, BytesMut::new(), Role::Server);
    let mut message = BytesMut::new();
    loop {
        let kind = match socket.read(&mut message).await {
            // It does not check that text is UTF-8.
            Ok(Message::Text) if std::str::from_utf8(&message).is_ok() => PayloadType::Text,
            Ok(Message::Binary) => PayloadType::Binary,
            // They come between fragments, too: `message` has the first ones.
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Text | Message::Close(_)) | Err(_) => break,
        };
        // Not `clear`, which would hold the memory of the largest message.
        let message = mem::take(&mut message);
        if message.len() > MAX_MESSAGE || socket.write(&message, kind).await.is_err() {
            break;
        }
    }
}

/// ratchet takes what was agreed from the headers of a handshake.
fn deflate(agreed: AgreedDeflate) -> Option<Deflate> {
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::try_from(agreed.to_string()).ok()?);
    let config = DeflateConfig {
        // With `true` it would begin each message with an empty window, also if that is not agreed.
        accept_no_context_takeover: agreed.server_no_context_takeover(),
        ..DeflateConfig::default()
    };
    let (deflate, _response) =
        DeflateExtProvider::with_config(config).negotiate_server(&headers).ok()??;
    Some(deflate)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
