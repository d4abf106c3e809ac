use axum::{
    Router,
    extract::ws::{Message, WebSocketUpgrade},
    response::Response,
    routing::any,
};

async fn ws(upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["chat"]).on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                socket.send(message).await.ok();
            }
        }
    })
}

#[tokio::main]
async fn main() {
    let listener = tokio::net::TcpListener::bind(servers::address()).await.unwrap();
    axum::serve(listener, Router::new().route("/ws", any(ws))).await.unwrap();
}
