//! An echo server of each kind for the load test: `peer NAME`, and `peer NAME http2` for some. It
//! prints its address.
//!
//! Servers that check the origin allow `https://app.example.com`.

use std::{convert::Infallible, env, error::Error, future::ready};

use axum::{
    Extension, Router,
    extract::{
        FromRequest, Request,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::any,
};
use benches::floor;
use bytes::Bytes;
use fastwebsockets::{FragmentCollector, OpCode, Role};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode, header::ORIGIN};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{handshake::server as tungstenite, protocol::WebSocketConfig},
};
use tower::{Service, ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, GuardLayer, PendingUpgrade, Permit, Upgraded,
};

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
        "axum-4k-from-fn" => {
            serve_axum(listener, any(upgrade_4k).layer(from_fn(check_origin))).await?
        }
        "axum-handler" => serve_axum(listener, any(pending).layer(guard().respond())).await?,
        "axum-callback" => {
            let guard = guard().on_upgraded(async |socket| read(socket).await);
            serve_axum(listener, any(async || StatusCode::UPGRADE_REQUIRED).layer(guard)).await?;
        }
        "axum-4k-limit-drain" => {
            serve_axum(listener, any(upgrade_4k_ended).layer(bounded(guard()))).await?
        }
        "hyper-floor" => serve_hyper(listener, service_fn(by_hand)).await,
        "hyper-guard" => serve_guarded(listener, guard(), read).await,
        "hyper-callback" => {
            let guard = guard().on_upgraded(async |socket| read(socket).await);
            serve_hyper(listener, ServiceBuilder::new().layer(guard).service_fn(not_found)).await;
        }
        "hyper-limit-drain" => serve_guarded(listener, bounded(guard()), read_until_ended).await,
        "hyper-guard-fastwebsockets" => {
            serve_guarded(listener, guard(), echo_fastwebsockets).await;
        }
        "fastwebsockets" => serve_hyper(listener, service_fn(fastwebsockets)).await,
        "fastwebsockets-open" => serve_hyper(listener, service_fn(fastwebsockets_open)).await,
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
    let over_http2 = over_http2();
    serve(listener, move |stream| {
        let (service, io) = (TowerToHyperService::new(service.clone()), TokioIo::new(stream));
        async move {
            if over_http2 {
                let mut server = http2::Builder::new(TokioExecutor::new());
                server.enable_connect_protocol().serve_connection(io, service).await.ok();
            } else {
                let connection = http1::Builder::new().serve_connection(io, service);
                connection.with_upgrades().await.ok();
            }
        }
    })
    .await;
}

/// `peer NAME http2`. axum serves both.
fn over_http2() -> bool {
    env::args().nth(2).is_some_and(|argument| argument == "http2")
}

/// The guard, and a service that accepts and hands the connection to `take`.
async fn serve_guarded<F>(listener: TcpListener, guard: GuardLayer, take: fn(Upgraded) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let accept = move |request: http::Request<Incoming>| {
        // HTTP/2 begins with an ordinary request.
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            pending.on_upgrade(take);
        }
        ready(Ok::<_, Infallible>(Answer::default()))
    };
    let service = ServiceBuilder::new().layer(guard.respond()).service_fn(accept);
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

/// Drained at the end of the process.
fn bounded(guard: GuardLayer) -> GuardLayer {
    guard.limit(ConnectionLimit::total(1_000_000).expect("not 0")).drain(&Drain::new())
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

async fn upgrade_4k_ended(mut request: Request) -> Response {
    let permit = Permit::claim(request.extensions_mut()).expect("a permit");
    let upgrade = match WebSocketUpgrade::from_request(request, &()).await {
        Ok(upgrade) => upgrade.read_buffer_size(4096),
        Err(rejection) => return rejection.into_response(),
    };
    upgrade.on_upgrade(async move |socket| {
        let ended = permit.ended();
        tokio::select! {
            () = echo(socket) => {}
            _ = ended => {}
        }
        drop(permit);
    })
}

async fn pending(pending: Extension<PendingUpgrade>) {
    pending.on_upgrade(read);
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

/// With a way to end it.
async fn read_until_ended(socket: Upgraded) {
    let ended = socket.ended();
    tokio::select! {
        () = read(socket) => {}
        _ = ended => {}
    }
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

async fn not_found(_: http::Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(floor::status_only(StatusCode::NOT_FOUND))
}

/// As little as a server can do on hyper.
async fn by_hand(mut request: http::Request<Incoming>) -> Result<Answer, Infallible> {
    let key = match floor::check(&request) {
        Ok(key) => key,
        Err(status) => return Ok(floor::status_only(status)),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        if let Ok(socket) = upgrade.await {
            let mut socket = TokioIo::new(socket);
            while socket.read_u8().await.is_ok() {}
        }
    });
    Ok(floor::switch(&key))
}

async fn fastwebsockets(request: http::Request<Incoming>) -> Result<Answer, Infallible> {
    match is_allowed(request.headers()) {
        true => fastwebsockets_open(request).await,
        false => Ok(forbidden()),
    }
}

async fn fastwebsockets_open(mut request: http::Request<Incoming>) -> Result<Answer, Infallible> {
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
        hyper_tungstenite::upgrade(&mut request, Some(small_buffer())).expect("handshakes only");
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
    let accepted = accept_hdr_async_with_config(stream, check, Some(small_buffer()));
    if let Ok(socket) = accepted.await {
        echo_tungstenite(socket).await;
    }
}

/// As axum's servers have it.
fn small_buffer() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096)
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
