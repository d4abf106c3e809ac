use rocket::{
    Config, get,
    futures::{SinkExt, StreamExt},
    routes,
};
use rocket_ws::{Channel, WebSocket};

#[get("/ws")]
fn ws(socket: WebSocket) -> Channel<'static> {
    socket.channel(|mut socket| {
        Box::pin(async move {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.ok();
                }
            }
            Ok(())
        })
    })
}

#[rocket::launch]
fn launch() -> _ {
    let config = Config { port: servers::address().port(), ..Config::default() };
    rocket::custom(config).mount("/", routes![ws])
}
