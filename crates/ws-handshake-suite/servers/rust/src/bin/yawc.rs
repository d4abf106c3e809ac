use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::{Request, Response, body::Bytes, body::Incoming};
use yawc::{CompressionLevel, OpCode, Options, WebSocket};

async fn ws(mut request: Request<Incoming>) -> yawc::Result<Response<Empty<Bytes>>> {
    let options = Options::default().with_compression_level(CompressionLevel::fast());
    let (response, socket) = WebSocket::upgrade_with_options(&mut request, options)?;
    tokio::spawn(async move {
        let Ok(mut socket) = socket.await else { return };
        while let Some(frame) = socket.next().await {
            if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
                socket.send(frame).await.ok();
            }
        }
    });
    Ok(response)
}

#[tokio::main]
async fn main() {
    servers::serve(ws).await;
}
