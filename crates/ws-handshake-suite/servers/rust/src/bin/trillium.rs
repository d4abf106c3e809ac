use futures_util::StreamExt;
use trillium_websockets::{Message, WebSocket, WebSocketConn};

fn main() {
    let ws = WebSocket::new(|mut socket: WebSocketConn| async move {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                socket.send(message).await.ok();
            }
        }
    })
    .with_protocols(&["chat"]);
    trillium_tokio::config()
        .with_host("127.0.0.1")
        .with_port(servers::address().port())
        .run(ws);
}
