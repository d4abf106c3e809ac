//! A graceful shutdown beside `axum::serve`: it rejects new handshakes, sends a close frame to
//! every socket, and has a deadline.
//!
//! `cargo run --example drain_axum`, open a socket to ws://127.0.0.1:3000/ws from a page of
//! http://127.0.0.1:3000, and press Ctrl-C.

use std::{future::Future, io, time::Duration};

use axum::{
    Router,
    extract::ws::{CloseFrame, Message, WebSocket},
    response::Response,
    routing::any,
};
use tokio::{net::TcpListener, time::sleep};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, GuardLayer, Permit, axum::GuardedUpgrade,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the number of sockets that were still open at the deadline.
pub(crate) async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<usize> {
    let drain = Drain::new();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::loopback())
        .limit(ConnectionLimit::total(1000).map_err(io::Error::other)?)
        .drain(&drain);
    let app = Router::new().route("/ws", any(handler).layer(guard));

    let begin = drain.clone();
    let shutdown = async move {
        shutdown.await;
        begin.start();
    };
    // axum waits for requests, without a deadline, and not for upgraded connections. The drain
    // does.
    let served = async {
        axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
        io::Result::Ok(drain.wait(DEADLINE).await)
    };
    let deadline = async {
        drain.started().await;
        sleep(DEADLINE).await;
    };
    tokio::select! {
        left = served => left,
        () = deadline => Ok(drain.connections()),
    }
}

async fn handler(upgrade: GuardedUpgrade<Permit>) -> Response {
    upgrade.on_upgrade(async |mut socket, permit| {
        let ended = tokio::select! {
            () = echo(&mut socket) => return,
            ended = permit.ended() => ended,
        };
        let close = CloseFrame { code: ended.close_code(), reason: ended.reason().into() };
        socket.send(Message::Close(Some(close))).await.ok();
        // Until the client sends its close frame.
        while let Some(Ok(_)) = socket.recv().await {}
    })
}

async fn echo(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
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
