//! WebSocket over HTTP/3 (RFC 9220): the guard checks the CONNECT and completes it, and
//! tokio-tungstenite speaks over the stream.
//!
//! `cargo run -p websocket-http3-example`. The HTTP/3 comes from h3x, because h3 0.0.8 does not
//! parse `:protocol: websocket`. Of the browsers, Chromium opens such sockets if it is started with
//! `--enable-features=EnableWebsocketsOverHttp3`.

pub(crate) mod quic;

use std::{convert::Infallible, error::Error, io, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, routing::any};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use h3x::{H3Connection, ReadRequest, Role, Settings, WriteResponse};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use quinn::{
    Endpoint,
    crypto::rustls::QuicServerConfig,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role as WebSocketRole};
use tokio_util::io::{ReaderStream, StreamReader};
use tower::ServiceExt;
use tower_ws_guard::{AllowHost, AllowOrigin, ConnectProtocol, GuardLayer, Upgraded};

type BoxError = Box<dyn Error + Send + Sync>;

pub(crate) fn app(guard: GuardLayer) -> Router {
    // Another status than 2xx, which would open a tunnel for any other CONNECT.
    let not_a_handshake = any(async || (StatusCode::NOT_FOUND, "not a handshake\n"));
    Router::new().route("/ws", not_a_handshake.layer(guard.on_upgraded(echo)))
}

async fn echo(socket: Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(socket, WebSocketRole::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}

/// Calls `app` with a request of HTTP/3. A response that completes a handshake gets the stream.
async fn respond(
    request: Request<h3x::Body>,
    app: Router,
) -> Result<Response<h3x::Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    // h3x keeps `:protocol` as an `Arc<str>`.
    let protocol = parts.extensions.remove::<Arc<str>>();
    if let Some(protocol) = &protocol {
        parts.extensions.insert(ConnectProtocol::new(&**protocol));
    }
    if parts.method != Method::CONNECT || protocol.as_deref() != Some("websocket") {
        let response = app.oneshot(Request::from_parts(parts, Body::new(body))).await?;
        return Ok(response.map(boxed));
    }
    let (on_upgrade, stream) = upgrade().await?;
    parts.extensions.insert(on_upgrade);
    let response = app.oneshot(Request::from_parts(parts, Body::empty())).await?;
    if !response.status().is_success() {
        return Ok(response.map(boxed));
    }

    // What the client sends arrives in the body of the request, and what it gets goes into the
    // body of the response.
    let (receive, mut send) = tokio::io::split(stream);
    tokio::spawn(async move {
        let body = body.into_data_stream().map_err(io::Error::other);
        let _ = tokio::io::copy(&mut StreamReader::new(body), &mut send).await;
        // Also if the client has left: the codec is to see the end.
        let _ = send.shutdown().await;
    });
    let body = StreamBody::new(ReaderStream::new(receive).map_ok(Frame::data).map_err(Into::into));
    Ok(response.map(|_| body.boxed_unsync()))
}

fn boxed(body: Body) -> h3x::Body {
    body.map_err(Into::into).boxed_unsync()
}

/// An upgrade, and the other end of its connection. Only hyper makes upgrades, so a connection of
/// its own in memory has to be upgraded.
async fn upgrade() -> Result<(OnUpgrade, DuplexStream), BoxError> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (sender, mut on_upgrade) = mpsc::unbounded_channel();
    let switch = service_fn(move |mut request: Request<Incoming>| {
        let _ = sender.send(hyper::upgrade::on(&mut request));
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    tokio::spawn(
        http1::Builder::new().serve_connection(TokioIo::new(server), switch).with_upgrades(),
    );
    client.write_all(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: stream\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let on_upgrade = on_upgrade.recv().await.ok_or("hyper made no upgrade")?;
    Ok((on_upgrade, client))
}

pub(crate) async fn serve(endpoint: Endpoint, app: Router) {
    while let Some(incoming) = endpoint.accept().await {
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_connection(incoming, app).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn serve_connection(incoming: quinn::Incoming, app: Router) -> Result<(), BoxError> {
    let quic = quic::Connection::new(incoming.await?, Role::Server);
    let connection = H3Connection::new(quic, Settings::default(), |_| {})?;
    // An error is the end of the connection.
    while let Ok((write, read)) = connection.accept_bi().await {
        let (app, qpack) = (app.clone(), connection.qpack().clone());
        tokio::spawn(async move {
            let request = read.read_request(qpack.clone()).await?;
            let method = request.method().clone();
            let response = respond(request, app).await?;
            write.write_response(response, method, qpack).await?;
            Ok::<_, BoxError>(())
        });
    }
    Ok(())
}

/// Listens with a new certificate, and returns it.
pub(crate) fn listen(address: SocketAddr) -> Result<(Endpoint, CertificateDer<'static>), BoxError> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certificate = made.cert.der().clone();
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    tls.alpn_protocols = vec![h3x::ALPN.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok((Endpoint::server(config, address)?, certificate))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (endpoint, _) = listen(SocketAddr::from(([127, 0, 0, 1], 4433)))?;
    println!("WebSocket over HTTP/3 on https://{}/ws", endpoint.local_addr()?);
    let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?)
        .allow_host(AllowHost::loopback());
    serve(endpoint, app(guard)).await;
    Ok(())
}
