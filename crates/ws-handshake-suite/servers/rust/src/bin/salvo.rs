use salvo::{prelude::*, websocket::WebSocketUpgrade};

#[handler]
async fn ws(request: &mut Request, response: &mut Response) -> Result<(), StatusError> {
    WebSocketUpgrade::new()
        .protocols(&["chat"])
        .upgrade(request, response, |mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.ok();
                }
            }
        })
        .await
}

#[tokio::main]
async fn main() {
    let acceptor = TcpListener::new(servers::address()).bind().await;
    Server::new(acceptor).serve(Router::with_path("ws").goal(ws)).await;
}
