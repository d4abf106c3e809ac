use futures_util::{SinkExt, StreamExt};

#[tokio::main]
async fn main() {
    servers::accept(|stream| async {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.ok();
            }
        }
    })
    .await;
}
