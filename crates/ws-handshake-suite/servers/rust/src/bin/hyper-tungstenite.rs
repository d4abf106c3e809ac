use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming};
use hyper_tungstenite::{is_upgrade_request, upgrade};

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn ws(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
    if !is_upgrade_request(&request) {
        return Ok(Response::new(Full::from("Hello HTTP!")));
    }
    let (response, socket) = upgrade(&mut request, None)?;
    tokio::spawn(async move {
        let Ok(mut socket) = socket.await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.ok();
            }
        }
    });
    Ok(response)
}

#[tokio::main]
async fn main() {
    servers::serve(ws).await;
}
