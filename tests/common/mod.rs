//! Helpers that all test binaries share; each uses a part of them.
#![allow(dead_code, unreachable_pub)]

pub mod scrape;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{CONNECTION, HOST as HOST_NAME, SEC_WEBSOCKET_KEY, UPGRADE},
};
use http_body_util::Full;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::Service;
use tower_ws_guard::test_util::{assert_accepted, assert_accepted_http2};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
pub const HOST: &str = "chat.example.com";
pub const ORIGIN: &str = "https://chat.example.com";

pub type Body = Full<Bytes>;

/// A request as text: sent over a socket, or converted into an `http::Request`.
#[derive(Clone, Debug)]
pub struct Raw {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, Vec<u8>)>,
    body: String,
}

/// A valid handshake from the origin of the server.
pub fn handshake() -> Raw {
    let headers = [
        ("Host", HOST),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", ORIGIN),
    ];
    Raw {
        method: "GET".into(),
        target: "/ws".into(),
        version: "HTTP/1.1".into(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into())).into(),
        body: String::new(),
    }
}

/// A request with no header except `Host`.
pub fn plain() -> Raw {
    let mut raw = handshake();
    raw.headers.truncate(1);
    raw
}

impl Raw {
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.into();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(there, _)| !there.eq_ignore_ascii_case(name));
        self
    }

    /// Appends a header line.
    pub fn and(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().into()));
        self
    }

    /// Replaces all lines of that header.
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).and(name, value)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_bytes());
        bytes
    }

    pub fn request<B: Default>(&self) -> Request<B> {
        let mut request = Request::new(B::default());
        *request.method_mut() = self.method.parse().unwrap();
        *request.uri_mut() = self.target.parse().unwrap();
        *request.version_mut() = match &*self.version {
            "HTTP/1.0" => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        request
    }

    /// The same handshake over HTTP/2 (RFC 8441 5).
    pub fn extended_connect<B: Default>(&self) -> Request<B> {
        let mut request = self.request();
        let host = request.headers_mut().remove(HOST_NAME).expect("a host to make an authority of");
        let target = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("https://{}{target}", host.to_str().unwrap()).parse().unwrap();
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY] {
            request.headers_mut().remove(name);
        }
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        request
    }

    /// The request over HTTP/1.1 and over HTTP/2.
    pub fn over_both<B: Default>(&self) -> [Request<B>; 2] {
        [self.request(), self.extended_connect()]
    }

    /// A request that looks upgradable to hyper; its upgrade fails immediately.
    pub fn upgradable<B: Default>(&self) -> Request<B> {
        let mut request = self.request();
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
        request
    }
}

/// Upgradable requests over HTTP/1.1 and HTTP/2.
pub fn upgradable(raw: &Raw) -> [Request<()>; 2] {
    raw.over_both().map(|mut request| {
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
        request
    })
}

/// The head of a response as sent on the wire, and the bytes after it.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub rest: Vec<u8>,
    pub stream: TcpStream,
}

impl RawResponse {
    /// Reads the head of a response.
    pub async fn read(mut stream: TcpStream) -> Self {
        let mut rest = Vec::new();
        let end = loop {
            if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let read =
                tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut rest)).await;
            assert!(
                read.expect("a response in time").unwrap() > 0,
                "closed after {}",
                rest.escape_ascii()
            );
        };
        let head = String::from_utf8(rest.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| (line.trim_end_matches(':'), "")));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status, headers, rest, stream }
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(there, _)| there == name).map(|(_, value)| &**value).collect()
    }

    /// Returns whether a list header contains the element, ignoring case.
    pub fn has(&self, name: &str, element: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|line| line.split(','))
            .any(|it| it.trim().eq_ignore_ascii_case(element))
    }

    /// Reads until the server closes or resets the connection.
    pub async fn read_to_end_or_reset(&mut self) -> String {
        let end = self.stream.read_to_end(&mut self.rest);
        tokio::time::timeout(Duration::from_secs(10), end)
            .await
            .expect("the server closes the connection")
            .ok();
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// Reads until the server closes the connection.
    pub async fn read_rest(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(10), self.stream.read_to_end(&mut self.rest))
            .await
            .expect("the server closes the connection")
            .unwrap();
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

/// Waits until the condition holds; the timeout is generous.
pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it comes about");
}

/// Sends a request over a new connection, and reads the head of the response.
pub async fn send(address: SocketAddr, request: &[u8]) -> RawResponse {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    RawResponse::read(stream).await
}

/// Serves HTTP/1.1 and HTTP/2 over TCP with hyper, including upgrades, until the test ends.
pub async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    serve_fallible(service).await
}

/// Like `serve`, for a service that may fail.
pub async fn serve_fallible<S>(service: S) -> SocketAddr
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: std::error::Error + Send + Sync,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    address
}

/// Serves an axum app over TCP until the test ends.
pub async fn serve_axum(app: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// The assertion that a response completes a handshake over this version of HTTP.
pub fn accepted_over<B>(version: Version) -> fn(&Response<B>) {
    if version == Version::HTTP_2 { assert_accepted_http2 } else { assert_accepted }
}
