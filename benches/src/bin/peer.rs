//! An echo server of each kind for the load test: `peer NAME`. It prints its address.
//!
//! Servers that check the origin allow `https://app.example.com`.

use std::{convert::Infallible, env, error::Error, future::ready};

use axum::{
    Router,
    extract::{
        Request,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use fastwebsockets::{FragmentCollector, OpCode, Role};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode, header::ORIGIN};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::handshake::server as tungstenite};
use tower::{Service, ServiceBuilder, service_fn};
use tower_ws_guard::{AllowOrigin, GuardLayer, PendingUpgrade, ResponderLayer, Upgraded};

const ALLOWED: &str = "https://app.example.com";

type Answer = http::Response<Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).ok_or("name a peer")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    match &*name {
        "axum" => serve_axum(listener, any(upgrade)).await?,
        "axum-4k" => serve_axum(listener, any(upgrade_4k)).await?,
        "axum-4k-guard" => serve_axum(listener, any(upgrade_4k).layer(guard())).await?,
        "axum-from-fn" => serve_axum(listener, any(upgrade).layer(from_fn(check_origin))).await?,
        "axum-guard" => serve_axum(listener, any(upgrade).layer(guard())).await?,
        "hyper-responder" => serve_responder(listener, read).await,
        "hyper-responder-fastwebsockets" => serve_responder(listener, echo_fastwebsockets).await,
        "fastwebsockets" => serve_hyper(listener, service_fn(fastwebsockets)).await,
        "hyper-tungstenite" => serve_hyper(listener, service_fn(hyper_tungstenite)).await,
        "tokio-tungstenite" => serve(listener, accept_hdr_async).await,
        "minimal" => serve(listener, minimal).await,
        _ => return Err("no such peer".into()),
    }
    Ok(())
}

async fn serve<F>(listener: TcpListener, connection: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    }
}

async fn serve_hyper<S>(listener: TcpListener, service: S)
where
    S: Service<http::Request<Incoming>, Response = Answer, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    serve(listener, move |stream| {
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        async { connection.with_upgrades().await.unwrap_or_default() }
    })
    .await;
}

/// Guard and responder, and a service that accepts and hands the connection to `take`.
async fn serve_responder<F>(listener: TcpListener, take: fn(Upgraded) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let accept = move |request: http::Request<Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().expect("handshakes only");
        pending.on_upgrade(take);
        ready(Ok::<_, Infallible>(Answer::default()))
    };
    let service =
        ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new()).service_fn(accept);
    serve_hyper(listener, service).await;
}

async fn serve_axum(
    listener: TcpListener,
    endpoint: axum::routing::MethodRouter,
) -> std::io::Result<()> {
    axum::serve(listener, Router::new().route("/ws", endpoint)).await
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::list([ALLOWED]).expect("a valid origin"))
}

fn is_allowed(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| origin == ALLOWED)
}

async fn check_origin(request: Request, next: Next) -> Response {
    match is_allowed(request.headers()) {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn upgrade_4k(upgrade: WebSocketUpgrade) -> Response {
    upgrade.read_buffer_size(4096).on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            break;
        }
    }
}

/// No codec: the minimum for a connection.
async fn read(mut socket: Upgraded) {
    while socket.read_u8().await.is_ok() {}
}

async fn echo_tungstenite<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

async fn echo_fastwebsockets<S: AsyncRead + AsyncWrite + Unpin>(socket: S) {
    echo_frames(fastwebsockets::WebSocket::after_handshake(socket, Role::Server)).await;
}

async fn echo_frames<S: AsyncRead + AsyncWrite + Unpin>(socket: fastwebsockets::WebSocket<S>) {
    let mut socket = FragmentCollector::new(socket);
    while let Ok(frame) = socket.read_frame().await {
        let is_data = matches!(frame.opcode, OpCode::Text | OpCode::Binary);
        if frame.opcode == OpCode::Close || (is_data && socket.write_frame(frame).await.is_err()) {
            break;
        }
    }
}

fn forbidden() -> Answer {
    let mut response = Answer::default();
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

async fn fastwebsockets(mut request: http::Request<Incoming>) -> Result<Answer, Infallible> {
    if !is_allowed(request.headers()) {
        return Ok(forbidden());
    }
    let (response, upgrade) =
        fastwebsockets::upgrade::upgrade(&mut request).expect("handshakes only");
    tokio::spawn(async {
        if let Ok(socket) = upgrade.await {
            echo_frames(socket).await;
        }
    });
    Ok(response)
}

async fn hyper_tungstenite(mut request: http::Request<Incoming>) -> Result<Answer, Infallible> {
    if !is_allowed(request.headers()) {
        return Ok(forbidden());
    }
    let (response, upgrade) =
        hyper_tungstenite::upgrade(&mut request, None).expect("handshakes only");
    tokio::spawn(async {
        if let Ok(socket) = upgrade.await {
            echo_tungstenite(socket).await;
        }
    });
    Ok(response.map(|_| Empty::new()))
}

async fn accept_hdr_async(stream: TcpStream) {
    let check = |request: &tungstenite::Request, response| match is_allowed(request.headers()) {
        true => Ok(response),
        false => Err(forbidden().map(|_| None)),
    };
    if let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check).await {
        echo_tungstenite(socket).await;
    }
}

/// Checks nothing, and always sends the response to the key of the load test.
async fn minimal(mut stream: TcpStream) {
    let (mut head, mut length) = (vec![0; 1024], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await {
            Ok(read) if read > 0 => length += read,
            _ => return,
        }
    }
    drop(head);
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if stream.write_all(answer).await.is_ok() {
        while stream.read_u8().await.is_ok() {}
    }
}
