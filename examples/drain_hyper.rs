//! A graceful shutdown beside hyper-util's `GracefulShutdown`: it rejects new handshakes, sends a
//! close frame to every socket, and has a deadline.
//!
//! `cargo run --example drain_hyper`, open a socket to ws://127.0.0.1:3000 from a page of
//! http://127.0.0.1:3000, and press Ctrl-C.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{CloseFrame, Role},
};
use tower::{ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConfigError, ConnectionLimit, Drain, GuardLayer, Upgraded,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the number of sockets that were still open at the deadline.
pub(crate) async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<usize, ConfigError> {
    let drain = Drain::new();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .limit(ConnectionLimit::total(1000)?)
        .drain(&drain)
        .on_upgraded(echo_until_drained);
    let service = ServiceBuilder::new().layer(guard).service(service_fn(other_requests));
    let graceful = GracefulShutdown::new();

    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, _) = tokio::select! {
            // The client is gone, or too many files are open. Neither ends the server.
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let service = TowerToHyperService::new(service.clone());
        let server = auto::Builder::new(TokioExecutor::new());
        let connection =
            server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        tokio::spawn(graceful.watch(connection));
    }
    // Free the port.
    drop(listener);

    // For hyper an upgraded connection is done. The drain waits for it.
    let (left, _) = tokio::join!(drain.wait(DEADLINE), timeout(DEADLINE, graceful.shutdown()));
    Ok(left)
}

async fn other_requests(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("not a handshake\n")))
}

async fn echo_until_drained(upgraded: Upgraded) {
    let ended = upgraded.ended();
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    let ended = tokio::select! {
        () = echo(&mut socket) => return,
        ended = ended => ended,
    };
    let close = CloseFrame { code: ended.close_code().into(), reason: ended.reason().into() };
    socket.close(Some(close)).await.ok();
    // Until the client sends its close frame.
    while let Some(Ok(_)) = socket.next().await {}
}

async fn echo(socket: &mut WebSocketStream<Upgraded>) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let left =
        serve(listener, async { tokio::signal::ctrl_c().await.expect("Ctrl-C can be waited for") })
            .await?;
    println!("sockets still open at the deadline: {left}");
    Ok(())
}
