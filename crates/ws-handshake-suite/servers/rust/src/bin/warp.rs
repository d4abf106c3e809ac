use futures_util::{SinkExt, StreamExt};
use warp::Filter;

#[tokio::main]
async fn main() {
    let ws = warp::path("ws").and(warp::ws()).map(|ws: warp::ws::Ws| {
        ws.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.ok();
                }
            }
        })
    });
    warp::serve(ws).run(servers::address()).await;
}
