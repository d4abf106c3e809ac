use futures_util::{SinkExt, StreamExt};
use poem::{
    IntoResponse, Route, Server, get, handler,
    listener::TcpListener,
    web::websocket::{Message, WebSocket},
};

#[handler]
fn ws(socket: WebSocket) -> impl IntoResponse {
    socket.protocols(["chat"]).on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                socket.send(message).await.ok();
            }
        }
    })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    Server::new(TcpListener::bind(servers::address())).run(Route::new().at("/ws", get(ws))).await
}
