use futures_util::{SinkExt, StreamExt};
use tokio_websockets::ServerBuilder;

#[tokio::main]
async fn main() {
    servers::accept(|stream| async {
        let Ok((_request, mut socket)) = ServerBuilder::new().accept(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.ok();
            }
        }
    })
    .await;
}
