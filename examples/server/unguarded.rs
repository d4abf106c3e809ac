//! A WebSocket endpoint without a guard, for comparison: axum accepts every page on the web there.
//! It closes each socket at once, so there is nothing to gain.

use std::time::Duration;

use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    response::Response,
};
use tokio::time::timeout;

pub(crate) const PATH: &str = "/unguarded";

pub(crate) async fn accept(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        let reason = "nothing is checked here".into();
        let close = CloseFrame { code: 1000, reason };
        let client_closes = async {
            socket.send(Message::Close(Some(close))).await?;
            while socket.recv().await.transpose()?.is_some() {}
            Ok::<_, axum::Error>(())
        };
        timeout(Duration::from_secs(1), client_closes).await.ok();
    })
}
