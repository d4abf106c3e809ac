//! The guard in front of axum's own `WebSocketUpgrade`.
//!
//! `cargo run --example axum_guard`, then open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000.

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::Response,
    routing::any,
};
use tower_ws_guard::{AllowHost, AllowOrigin, ConfigError, GuardLayer, PlainText, Subprotocols};

pub(crate) fn app() -> Result<Router, ConfigError> {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .subprotocols(Subprotocols::list(["v2.echo", "v1.echo"])?)
        .reject_with(PlainText);
    // `any` and not `get`: over HTTP/2 a handshake is a CONNECT.
    Ok(Router::new().route("/ws", any(handler).layer(guard)))
}

/// The guard selects the subprotocol and names it in the response.
async fn handler(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        // axum responds to pings and the close by itself.
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
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
