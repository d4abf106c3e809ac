//! Bare hyper: the guard completes the handshake, and a callback gets the connection.
//!
//! `cargo run --example hyper_responder`, then open a socket to ws://127.0.0.1:3000 from a page of
//! http://127.0.0.1:3000.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, ProblemJson, Upgraded};

pub(crate) async fn serve(listener: TcpListener) {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .reject_with(ProblemJson::new())
        .on_upgraded(echo);
    let service = ServiceBuilder::new().layer(guard).service(service_fn(other_requests));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // The client is gone, or too many files are open. Neither ends the server.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // Without `_with_upgrades` every handshake is rejected as `not-upgradable`.
            if let Err(error) =
                server.serve_connection_with_upgrades(TokioIo::new(stream), service).await
            {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn other_requests(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("not a handshake\n")))
}

async fn echo(socket: Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener).await;
    Ok(())
}
