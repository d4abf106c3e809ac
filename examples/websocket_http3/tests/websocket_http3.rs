//! The example with clients: h3x on quinn, and two that are independent, aioquic and Chromium.

#[path = "../src/main.rs"]
#[allow(dead_code)]
mod example;

use std::{io, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use axum::{
    extract,
    middleware::{Next, from_fn},
    response::Html,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use example::quic;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use h3x::{H3Connection, ReadResponse, Role, Settings, WriteRequest};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use quinn::{
    Endpoint,
    crypto::rustls::QuicClientConfig,
    rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, server::ParsedCertificate},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, process::Command, sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as WebSocketRole},
};
use tokio_util::io::{ReaderStream, StreamReader};
use tower_ws_guard::{AllowHost, AllowOrigin, ConnectionLimit, GuardLayer};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";
const MAX: usize = 3;
const TEXT: &str = "grüezi ☃";
const IN_TIME: Duration = Duration::from_secs(20);

fn start() -> (SocketAddr, CertificateDer<'static>) {
    let (endpoint, certificate) = example::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = endpoint.local_addr().unwrap();
    let guard = GuardLayer::new(AllowOrigin::list([APP]).unwrap())
        .allow_host(AllowHost::loopback())
        .limit(ConnectionLimit::total(MAX).unwrap());
    tokio::spawn(example::serve(endpoint, example::app(guard)));
    (address, certificate)
}

/// A connection of HTTP/3, and the authority of the server.
struct Client {
    http: H3Connection<quic::Connection>,
    authority: String,
}

impl Client {
    async fn new() -> Self {
        let (address, certificate) = start();
        Self::connect(address, certificate).await
    }

    async fn connect(address: SocketAddr, certificate: CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![h3x::ALPN.to_vec()];
        let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let tls = QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        let quic = endpoint.connect(address, "localhost").unwrap().await.unwrap();
        let quic = quic::Connection::new(quic, Role::Client);
        let http = H3Connection::new(quic, Settings::default(), |_| {}).unwrap();
        Self { http, authority: format!("localhost:{}", address.port()) }
    }

    /// Sends a handshake; returns the status, and the stream as a WebSocket.
    async fn handshake(
        &self,
        change: impl FnOnce(&mut Request<()>),
    ) -> (
        StatusCode,
        HeaderMap,
        WebSocketStream<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
    ) {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{}/ws", self.authority))
            .extension(Arc::<str>::from("websocket"))
            .header("sec-websocket-version", "13")
            .header("origin", APP)
            .body(())
            .unwrap();
        change(&mut request);
        let method = request.method().clone();

        let (out, from_out) = tokio::io::duplex(64 * 1024);
        let body = ReaderStream::new(from_out).map_ok(Frame::data).map_err(h3x::BoxError::from);
        let request = request.map(|()| StreamBody::new(body).boxed_unsync());
        let (write, read) = self.http.open_bi().await.unwrap();
        tokio::spawn(write.write_request(request, self.http.qpack().clone()));
        let response = read.read_response(method, self.http.qpack().clone());
        let (head, body) = timeout(IN_TIME, response).await.unwrap().unwrap().into_parts();
        let received = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let socket = WebSocketStream::from_raw_socket(
            tokio::io::join(received, out),
            WebSocketRole::Client,
            None,
        );
        (head.status, head.headers, socket.await)
    }

    async fn status(&self, change: impl FnOnce(&mut Request<()>)) -> StatusCode {
        self.handshake(change).await.0
    }
}

#[tokio::test]
async fn right_origin_gets_a_socket() {
    let client = Client::new().await;
    for _ in 0..2 {
        let (status, _, mut socket) = client.handshake(|_| {}).await;
        assert_eq!(status, StatusCode::OK);
        let large = Bytes::from(vec![7; 1 << 20]);
        for message in [Message::text(TEXT), Message::binary(large)] {
            socket.send(message.clone()).await.unwrap();
            let echo = timeout(IN_TIME, socket.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(echo, message);
        }
        socket.close(None).await.unwrap();
        let close = timeout(IN_TIME, socket.next()).await.unwrap();
        assert!(matches!(close, Some(Ok(Message::Close(None)))), "{close:?}");
        assert!(timeout(IN_TIME, socket.next()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn others_are_rejected() {
    let client = Client::new().await;
    let header = |name: &'static str, value: &'static str| {
        move |request: &mut Request<()>| {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    };
    assert_eq!(client.status(header("origin", EVIL)).await, StatusCode::FORBIDDEN);
    assert_eq!(client.status(header("origin", "null")).await, StatusCode::FORBIDDEN);
    let without_origin = |request: &mut Request<()>| drop(request.headers_mut().remove("origin"));
    assert_eq!(client.status(without_origin).await, StatusCode::FORBIDDEN);

    let old_version = header("sec-websocket-version", "8");
    assert_eq!(client.status(old_version).await, StatusCode::BAD_REQUEST);
    let rebound = |request: &mut Request<()>| {
        *request.uri_mut() = "https://rebound.example/ws".parse().unwrap();
    };
    assert_eq!(client.status(rebound).await, StatusCode::MISDIRECTED_REQUEST);
    let odd_protocol = |request: &mut Request<()>| {
        request.extensions_mut().insert(Arc::<str>::from("WebSocket"));
    };
    assert_eq!(client.status(odd_protocol).await, StatusCode::BAD_REQUEST);
    // A rejection ends its own stream alone.
    assert_eq!(client.status(|_| {}).await, StatusCode::OK);
}

#[tokio::test]
async fn other_requests_pass() {
    let client = Client::new().await;
    let get = |request: &mut Request<()>| {
        *request.method_mut() = Method::GET;
        request.extensions_mut().clear();
        request.headers_mut().clear();
        request.headers_mut().insert("origin", EVIL.parse().unwrap());
    };
    assert_eq!(client.status(get).await, StatusCode::NOT_FOUND);
    let connect_udp = |request: &mut Request<()>| {
        request.extensions_mut().insert(Arc::<str>::from("connect-udp"));
        request.headers_mut().clear();
    };
    // They reach the handler, which opens no tunnel.
    assert_eq!(client.status(connect_udp).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn slot_is_free_when_the_client_leaves() {
    for loses_connection in [false, true] {
        let (address, certificate) = start();
        let client = Client::connect(address, certificate.clone()).await;
        let other = Client::connect(address, certificate).await;
        let mut sockets = Vec::new();
        for _ in 0..MAX {
            let (status, _, socket) = client.handshake(|_| {}).await;
            assert_eq!(status, StatusCode::OK);
            sockets.push(socket);
        }
        assert_eq!(other.status(|_| {}).await, StatusCode::SERVICE_UNAVAILABLE);

        if loses_connection {
            client.http.close("", 0).unwrap();
        } else {
            sockets.clear();
        }
        let free = async {
            while other.status(|_| {}).await != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(IN_TIME, free).await.unwrap();
    }
}

/// Python's aioquic, with the frames of wsproto.
#[tokio::test]
#[ignore = "needs aioquic"]
async fn aioquic() {
    let (address, _) = start();
    let url = format!("https://localhost:{}/ws", address.port());
    let cases = json!([
        { "url": url, "origin": APP, "text": TEXT },
        { "url": url, "origin": EVIL, "text": TEXT },
        { "url": url, "text": TEXT },
    ]);
    let python = "../../tests/clients/venv/bin/python";
    let results = run(&[python, "tests/aioquic_client.py"], &cases).await;
    let expected = json!([
        { "status": 200, "echo": TEXT, "close": 1000 },
        { "status": 403 },
        { "status": 403 },
    ]);
    assert_eq!(results, expected);
}

/// The pages come over HTTP/3, too: Chromium opens a socket only over a connection that is there.
#[tokio::test]
#[ignore = "needs Chromium"]
async fn chromium() {
    let (endpoint, certificate) = example::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let [own, foreign] = ["own", "foreign"].map(|host| format!("https://{host}.test:{port}"));
    let guard = GuardLayer::new(AllowOrigin::list([&*own]).unwrap());
    let (seen, mut handshakes) = mpsc::unbounded_channel();
    let record = from_fn(move |request: extract::Request, next: Next| {
        let seen = seen.clone();
        async move {
            let (method, version) = (request.method().clone(), request.version());
            let origin = request.headers().get("origin").cloned();
            let response = next.run(request).await;
            if method == Method::CONNECT {
                seen.send((version, origin, response.status())).unwrap();
            }
            response
        }
    });
    let page = get(async || Html("<title>page</title>"));
    tokio::spawn(example::serve(endpoint, example::app(guard).route("/", page).layer(record)));

    let certificate = ParsedCertificate::try_from(&certificate).unwrap();
    let key = STANDARD.encode(Sha256::digest(certificate.subject_public_key_info()));
    let url = format!("wss://own.test:{port}/ws");
    let cases = json!([
        { "page": own, "url": url, "text": TEXT, "key": key },
        { "page": foreign, "url": url, "text": TEXT, "key": key },
    ]);
    let results = run(&["node", "tests/chromium.mjs"], &cases).await;
    assert_eq!(results, json!([["open", TEXT, 1000], [1006]]));

    for (origin, status) in [(own, StatusCode::OK), (foreign, StatusCode::FORBIDDEN)] {
        let expected = (Version::HTTP_3, Some(origin.parse().unwrap()), status);
        assert_eq!(handshakes.try_recv().unwrap(), expected);
    }
    assert!(handshakes.try_recv().is_err());
}

/// Runs a client: it reads a JSON array of cases, and prints one of results.
async fn run(program: &[&str], cases: &Value) -> Value {
    let hint = "tests/clients/install installs what is missing";
    let mut client = Command::new("timeout")
        .args(["--kill-after=5", "150"])
        .args(program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(hint);
    client.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).await.unwrap();
    let output = client.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}; {hint}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}
