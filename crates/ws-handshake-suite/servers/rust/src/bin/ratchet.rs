use bytes::BytesMut;
use ratchet_rs::{
    Message, PayloadType, SubprotocolRegistry, WebSocketConfig,
    deflate::DeflateExtProvider,
};
use tokio::net::TcpStream;

async fn serve(stream: TcpStream) -> Option<()> {
    let upgrader = ratchet_rs::accept_with(
        stream,
        WebSocketConfig::default(),
        DeflateExtProvider::default(),
        SubprotocolRegistry::new(vec!["chat"]).ok()?,
    );
    let mut socket = upgrader.await.ok()?.upgrade().await.ok()?.into_websocket();
    let mut message = BytesMut::new();
    loop {
        match socket.read(&mut message).await.ok()? {
            Message::Text => socket.write(&message, PayloadType::Text).await.ok()?,
            Message::Binary => socket.write(&message, PayloadType::Binary).await.ok()?,
            Message::Close(_) => return None,
            _ => continue,
        }
        message.clear();
    }
}

#[tokio::main]
async fn main() {
    servers::accept(serve).await;
}
