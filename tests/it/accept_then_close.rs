//! `AcceptThenClose`: which rejections become close frames, the bytes on the wire, and the end of the socket.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    io::Cursor,
    net::{Shutdown, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{Router, extract::ws::WebSocketUpgrade, routing::any};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, EmptyBody, GuardLayer, OriginCheckLayer,
    PendingUpgrade, PlainText, ProblemJson, Rejection, RejectionKind, RejectionResponse,
    ResponderLayer, Subprotocols, Token, TokenCheckLayer, TokenPolicy, TokenSource, Transport,
    Verified, check_fn, test_util,
};

use crate::common::{ACCEPT, Body, HOST, Raw, handshake, plain, serve, serve_axum};

use Transport::{ExtendedConnect, Http1};

pub(crate) const BOTH: [Transport; 2] = [Http1, ExtendedConnect];
/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(60);

fn slots(sockets: u16, deadline: Duration) -> AcceptThenClose {
    AcceptThenClose::new().max_sockets(sockets.try_into().unwrap()).timeout(deadline).unwrap()
}

/// A masked close frame with code 1000.
pub(crate) const CLIENT_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const TOKEN_MISSING: &[u8] = b"\x88\x0f\x11\x31token-missing";

fn frame(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(2 + reason.len()).unwrap();
    [&[0x88, length], &code.to_be_bytes()[..], reason.as_bytes()].concat()
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The client side, after the head of the response was read.
pub(crate) struct Socket {
    pub(crate) status: u16,
    /// Sorted, and without `date`.
    pub(crate) headers: Vec<String>,
    pub(crate) stream: Box<dyn Stream>,
    tcp: socket2::Socket,
}

/// All bytes on the wire from the head of the response to the end of the stream.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<String>,
    rest: Vec<u8>,
}

pub(crate) async fn open(address: SocketAddr, transport: Transport, raw: &Raw) -> Socket {
    in_time(async {
        let mut socket = match transport {
            Http1 => open_http1(address, raw).await,
            ExtendedConnect => open_http2(address, raw).await,
        };
        socket.headers.retain(|line| !line.starts_with("date: "));
        socket.headers.sort();
        socket
    })
    .await
}

async fn open_http1(address: SocketAddr, raw: &Raw) -> Socket {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&raw.bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines().map(str::to_owned);
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let tcp = SockRef::from(&stream).try_clone().unwrap();
    Socket { status, headers: lines.collect(), stream: Box::new(stream), tcp }
}

async fn open_http2(address: SocketAddr, raw: &Raw) -> Socket {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let tcp = SockRef::from(&stream).try_clone().unwrap();
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // The client may use `:protocol` only after it received the settings of the server. This request is rejected as
    // `not-websocket`.
    let warm_up = Request::get(format!("https://{HOST}/ws")).body(Empty::<Bytes>::new()).unwrap();
    assert!(client.send_request(warm_up).await.unwrap().status().as_u16() >= 400);

    let response = client.send_request(raw.extended_connect()).await.unwrap();
    let status = response.status().as_u16();
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let headers = response.headers().iter().map(line).collect();
    let stream: Box<dyn Stream> = match status {
        200 => Box::new(TokioIo::new(hyper::upgrade::on(response).await.unwrap())),
        _ => {
            Box::new(Cursor::new(response.into_body().collect().await.unwrap().to_bytes().to_vec()))
        }
    };
    Socket { status, headers, stream, tcp }
}

impl Socket {
    pub(crate) fn is_completed(&self) -> bool {
        matches!(self.status, 101 | 200)
    }

    /// Reads the next frame; frames of the server are short here.
    async fn frame(&mut self) -> Vec<u8> {
        in_time(async {
            let mut frame = vec![0; 2];
            self.stream.read_exact(&mut frame).await.unwrap();
            frame.resize(2 + usize::from(frame[1]), 0);
            self.stream.read_exact(&mut frame[2..]).await.unwrap();
            frame
        })
        .await
    }

    /// The server has not ended its side.
    async fn is_open(&mut self) -> bool {
        let read = self.stream.read_u8();
        tokio::time::timeout(Duration::from_millis(30), read).await.is_err()
    }

    async fn rest(mut self) -> Seen {
        let mut rest = Vec::new();
        in_time(self.stream.read_to_end(&mut rest)).await.unwrap();
        Seen { status: self.status, headers: self.headers, rest }
    }

    /// Closes like a client that follows RFC 6455.
    async fn close(mut self) -> Seen {
        let frame = match self.is_completed() {
            true => {
                let frame = self.frame().await;
                self.stream.write_all(CLIENT_CLOSE).await.unwrap();
                frame
            }
            false => Vec::new(),
        };
        let seen = self.rest().await;
        Seen { rest: [frame, seen.rest].concat(), ..seen }
    }

    /// Sends until the server stops reading.
    async fn flood(mut self) {
        in_time(async { while self.stream.write_all(&[0x5a; 4096]).await.is_ok() {} }).await;
    }
}

async fn exchange(address: SocketAddr, transport: Transport, raw: &Raw) -> Seen {
    open(address, transport, raw).await.close().await
}

/// A slot is freed shortly after its client has left.
async fn until_open(address: SocketAddr, transport: Transport) -> Socket {
    in_time(async {
        loop {
            match open(address, transport, &handshake()).await {
                socket if socket.is_completed() => return socket,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

async fn until_closed(address: SocketAddr, transport: Transport) {
    let seen = until_open(address, transport).await.close().await;
    assert_eq!(seen, closed(transport, &[], TOKEN_MISSING));
}

/// A completed handshake with only the required headers and `more`, followed by `rest`.
fn closed(transport: Transport, more: &[&str], rest: &[u8]) -> Seen {
    let accept = format!("sec-websocket-accept: {ACCEPT}");
    let (status, needed) = match transport {
        Http1 => (101, &["connection: Upgrade", "upgrade: websocket", &accept][..]),
        ExtendedConnect => (200, &[][..]),
    };
    let mut headers: Vec<_> = needed.iter().chain(more).map(|&line| line.to_owned()).collect();
    headers.sort();
    Seen { status, headers, rest: rest.into() }
}

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

/// The token determines the verdict.
async fn verify(token: Token) -> Result<Verified<()>, Rejection> {
    Err(match token.expose() {
        "valid" => return Ok(Verified::new(())),
        "forbidden" => RejectionKind::TokenForbidden.into(),
        "broken" => Rejection::verifier_failed("it is down"),
        custom if custom.starts_with("custom-") => {
            Rejection::custom("banned", custom["custom-".len()..].parse().unwrap())
        }
        _ => RejectionKind::TokenInvalid.into(),
    })
}

fn tokens() -> TokenPolicy<()> {
    TokenPolicy::bearer(verify)
}

fn chat() -> Subprotocols {
    Subprotocols::list(["chat"]).unwrap()
}

fn guard() -> GuardLayer {
    let not_banned = check_fn(|handshake| match handshake.headers().get("x-banned") {
        Some(status) => Err(Rejection::custom("banned", status.to_str().unwrap().parse().unwrap())),
        None => Ok(()),
    });
    GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::list([HOST]).unwrap())
        .check(not_banned)
        .subprotocols(chat())
        .token(tokens())
        .unwrap()
        .require_websocket()
}

fn token_check() -> TokenCheckLayer {
    TokenCheckLayer::new(tokens()).subprotocols(chat()).require_websocket()
}

/// Counts its calls.
fn inner(
    calls: &Arc<AtomicUsize>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    let calls = Arc::clone(calls);
    service_fn(move |request: Request<Incoming>| {
        calls.fetch_add(1, Ordering::SeqCst);
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            pending.on_upgrade(async |_| {});
        }
        ready(Ok(Response::new(Body::default())))
    })
}

/// A hyper server with a token check alone.
async fn server(then_close: AcceptThenClose) -> SocketAddr {
    serve(token_check().accept_then_close(then_close).layer(inner(&Arc::default()))).await
}

/// All services that may be behind a rejection.
struct Stacks {
    guards: [SocketAddr; 3],
    token_check: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Stacks {
    async fn start(then_close: Option<AcceptThenClose>) -> Self {
        let (mut guard, mut token_check) = (guard(), token_check());
        if let Some(then_close) = then_close {
            guard = guard.accept_then_close(then_close.clone());
            token_check = token_check.accept_then_close(then_close);
        }
        let calls = Arc::<AtomicUsize>::default();
        let inner = inner(&calls);
        let call = {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let handler = {
            let call = call.clone();
            async move |upgrade: WebSocketUpgrade| {
                call();
                upgrade.on_upgrade(async |_| {})
            }
        };
        let callback = move |_| {
            call();
            ready(())
        };
        let guards = ServiceBuilder::new().layer(guard.clone());
        Self {
            guards: [
                serve_axum(Router::new().route("/ws", any(handler).layer(guard))).await,
                serve(guards.clone().layer(ResponderLayer::new()).service(inner.clone())).await,
                serve(guards.layer(ResponderLayer::on_upgraded(callback)).service(inner.clone()))
                    .await,
            ],
            token_check: serve(token_check.layer(inner)).await,
            calls,
        }
    }

    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.guards.into_iter().chain([self.token_check])
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn token_rejection_is_sent_as_a_close_frame() {
    let stacks = Stacks::start(Some(AcceptThenClose::new())).await;
    for address in stacks.all() {
        for transport in BOTH {
            for (raw, frame) in [
                (handshake(), TOKEN_MISSING),
                (bearer("guess"), b"\x88\x0f\x11\x31token-invalid"),
                (bearer("forbidden"), b"\x88\x11\x11\x33token-forbidden"),
                (bearer("broken"), b"\x88\x11\x03\xf5verifier-failed"),
            ] {
                assert_eq!(
                    exchange(address, transport, &raw).await,
                    closed(transport, &[], frame),
                    "{raw:?}"
                );
            }
        }
    }
    assert_eq!(stacks.calls(), 0);
    for (expected, address) in (1..).zip(stacks.all()) {
        open(address, Http1, &bearer("valid")).await.rest().await;
        assert_eq!(stacks.calls(), expected);
    }
}

#[tokio::test]
async fn other_rejections_are_the_same_as_without_accept_then_close() {
    let with = Stacks::start(Some(AcceptThenClose::new())).await;
    let without = Stacks::start(None).await;
    let compare =
        async |with: SocketAddr, without: SocketAddr, transport, raw: Raw, status: u16| {
            let seen = exchange(with, transport, &raw).await;
            assert_eq!(seen.status, status, "{raw:?} {transport:?}");
            assert_eq!(seen, exchange(without, transport, &raw).await);
        };

    // The tokens are invalid: an earlier check must not reveal that.
    let rejected_by_guard = [
        (bearer("guess").with("Host", "other.example"), 421),
        (bearer("guess").with("Origin", "https://evil.example"), 403),
        (bearer("guess").with("Origin", "null"), 403),
        (bearer("guess").with("Origin", "not an origin"), 403),
        (bearer("guess").and("Origin", "https://evil.example"), 400),
        (bearer("guess").without("Origin"), 403),
        (handshake().with("Origin", "https://evil.example"), 403),
        (bearer("guess").and("X-Banned", "401"), 401),
        (bearer("guess").and("X-Banned", "403"), 403),
        (bearer("guess").and("X-Banned", "429"), 429),
        (bearer("guess").and("X-Banned", "503"), 503),
    ];
    let rejected_by_both = [
        (bearer("guess").without("Sec-WebSocket-Version"), 400),
        (bearer("guess").with("Sec-WebSocket-Version", "thirteen"), 400),
        (bearer("guess").and("Sec-WebSocket-Protocol", "a b"), 400),
        (bearer("guess").and("Sec-WebSocket-Protocol", "theirs"), 400),
        (bearer("guess").and("Authorization", "Bearer valid"), 400),
        (bearer("custom-401"), 401),
        (bearer("custom-403"), 403),
        (bearer("custom-429"), 429),
        (bearer("custom-503"), 503),
    ];
    for transport in BOTH {
        for (with, without) in with.guards.into_iter().zip(without.guards) {
            for (raw, status) in &rejected_by_guard {
                compare(with, without, transport, raw.clone(), *status).await;
            }
        }
        for (with, without) in with.all().zip(without.all()) {
            for (raw, status) in &rejected_by_both {
                compare(with, without, transport, raw.clone(), *status).await;
            }
            let status = if transport == Http1 { 426 } else { 400 };
            compare(
                with,
                without,
                transport,
                bearer("guess").with("Sec-WebSocket-Version", "8"),
                status,
            )
            .await;
        }
    }
    // HTTP/2 has none of these rejections except `not-websocket`, which starts every connection here.
    for (with, without) in with.all().zip(without.all()) {
        for (raw, status) in [
            (bearer("guess").method("POST"), 405),
            (bearer("guess").version("HTTP/1.0"), 505),
            (bearer("guess").without("Upgrade"), 426),
            (bearer("guess").with("Connection", "close"), 400),
            (bearer("guess").with("Host", "a b"), 400),
            (bearer("guess").without("Sec-WebSocket-Key"), 400),
            (bearer("guess").with("Sec-WebSocket-Key", "short"), 400),
            (bearer("guess").and("Content-Length", "1").body("x"), 400),
            (plain().and("Connection", "close"), 426),
        ] {
            compare(with, without, Http1, raw, status).await;
        }
    }
    assert_eq!((with.calls(), without.calls()), (0, 0));
}

#[tokio::test]
async fn subprotocol_is_selected_before_the_close_frame() {
    const PLAIN: &str = "a status";

    let sources = || {
        let prefix = TokenSource::subprotocol("token.").unwrap();
        [
            prefix,
            TokenSource::kubernetes(),
            TokenSource::phoenix(),
            TokenSource::pair("bearer").unwrap(),
        ]
    };
    let policy = || TokenPolicy::from_sources(sources(), verify).unwrap();
    let guard =
        || GuardLayer::new(AllowOrigin::same_origin()).require_websocket().token(policy()).unwrap();
    let token_check = || TokenCheckLayer::new(policy()).require_websocket();
    let list = || Subprotocols::list(["v2", "v1"]).unwrap();
    let close = AcceptThenClose::new;

    let inner = inner(&Arc::default());
    let listed = [
        serve(guard().subprotocols(list()).accept_then_close(close()).layer(inner.clone())).await,
        serve(token_check().subprotocols(list()).accept_then_close(close()).layer(inner.clone()))
            .await,
    ];
    let not_listed = [
        serve(guard().accept_then_close(close()).layer(inner.clone())).await,
        serve(token_check().accept_then_close(close()).layer(inner.clone())).await,
    ];
    for (offered, by_list, without) in [
        ("", "", ""),
        ("v1", "v1", PLAIN),
        ("v1, v2", "v2", PLAIN),
        ("other, v1", "v1", PLAIN),
        // The first offer may be a token sent in a wrong way.
        ("guess, v1", "v1", PLAIN),
        ("token.guess, v1", "v1", PLAIN),
        ("v1, token.guess, v2", "v2", PLAIN),
        ("base64url.bearer.authorization.k8s.io.Z3Vlc3M, v2", "v2", PLAIN),
        ("base64url.bearer.phx.Z3Vlc3M, v1", "v1", PLAIN),
        ("bearer, guess", "bearer", "bearer"),
        ("bearer, guess, v1", "v1", "bearer"),
    ] {
        let in_one_line = match offered {
            "" => handshake(),
            _ => handshake().and("Sec-WebSocket-Protocol", offered),
        };
        let lines = offered.split(", ").filter(|offer| !offer.is_empty());
        let in_lines =
            lines.fold(handshake(), |raw, offer| raw.and("Sec-WebSocket-Protocol", offer));

        let expected = listed.map(|address| (address, by_list)).into_iter();
        for (address, chosen) in expected.chain(not_listed.map(|address| (address, without))) {
            if chosen == PLAIN {
                for (transport, raw) in BOTH.into_iter().zip([&in_one_line, &in_lines]) {
                    let seen = exchange(address, transport, raw).await;
                    assert_eq!(seen.status, 401);
                    assert!(!format!("{seen:?}").contains("sec-websocket-protocol"), "{seen:?}");
                }
                continue;
            }
            let chosen = Some(chosen)
                .filter(|it| !it.is_empty())
                .map(|it| format!("sec-websocket-protocol: {it}"));
            let is_sent = ["token.guess", "bearer, guess", "Z3Vlc3M"]
                .iter()
                .any(|sent| offered.contains(sent));
            let reason = if is_sent { "token-invalid" } else { "token-missing" };
            for transport in BOTH {
                let expected =
                    closed(transport, chosen.as_deref().as_slice(), &frame(4401, reason));
                for raw in [&in_one_line, &in_lines] {
                    assert_eq!(exchange(address, transport, raw).await, expected, "{offered}");
                }
            }
        }
    }

    let chooser = GuardLayer::new(AllowOrigin::same_origin()).subprotocols(list());
    let rejecting = TokenCheckLayer::new(tokens()).require_websocket().accept_then_close(close());
    let address = serve(ServiceBuilder::new().layer(chooser).layer(rejecting).service(inner)).await;
    for transport in BOTH {
        let seen =
            exchange(address, transport, &handshake().and("Sec-WebSocket-Protocol", "v0, v1, v2"))
                .await;
        assert_eq!(seen, closed(transport, &["sec-websocket-protocol: v2"], TOKEN_MISSING));
    }
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Empty,
    Plain,
    Problem,
    /// Breaks everything possible, and sets this status.
    Meddling(u16),
}

impl<B: Default + From<String>> RejectionResponse<B> for Style {
    fn response(
        &self,
        rejection: &Rejection,
        request: &Parts,
        prepared: Response<()>,
    ) -> Response<B> {
        match self {
            Self::Empty => EmptyBody.response(rejection, request, prepared),
            Self::Plain => PlainText.response(rejection, request, prepared),
            Self::Problem => ProblemJson::new().response(rejection, request, prepared),
            Self::Meddling(status) => {
                let was = prepared.status();
                let mut response = prepared.map(|()| B::from("a body".to_owned()));
                *response.status_mut() = StatusCode::from_u16(*status).unwrap();
                for (name, value) in [
                    ("x-prepared", was.as_str()),
                    ("x-code", rejection.kind().code()),
                    ("content-type", "text/plain"),
                    ("content-length", "6"),
                    ("content-encoding", "gzip"),
                    ("transfer-encoding", "chunked"),
                    ("connection", "close"),
                    ("upgrade", "h2c"),
                    ("sec-websocket-accept", "theirs"),
                    ("sec-websocket-protocol", "theirs"),
                    ("sec-websocket-version", "13"),
                ] {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
                response
            }
        }
    }
}

#[tokio::test]
async fn rejection_responder_adds_headers_but_no_body() {
    let meddling = [101, 200, 204, 304, 401, 500].map(Style::Meddling);
    for style in [Style::Empty, Style::Plain, Style::Problem].into_iter().chain(meddling) {
        let guard = guard().accept_then_close(AcceptThenClose::new()).reject_with(style);
        let hyper = serve(guard.clone().layer(inner(&Arc::default()))).await;
        let axum = serve_axum(Router::new().route("/ws", any(async || ()).layer(guard))).await;
        for transport in BOTH {
            // axum describes a body that hyper then does not send.
            let describes_bodies = matches!((style, transport), (Style::Meddling(_), Http1));
            let addresses = if describes_bodies { &[hyper][..] } else { &[hyper, axum] };
            for &address in addresses {
                let added: &[&str] = match (style, transport) {
                    (Style::Meddling(_), Http1) => &["x-prepared: 101", "x-code: token-missing"],
                    (Style::Meddling(_), ExtendedConnect) => {
                        &["x-prepared: 200", "x-code: token-missing"]
                    }
                    _ => &[],
                };
                let seen = exchange(address, transport, &handshake()).await;
                assert_eq!(seen, closed(transport, added, TOKEN_MISSING), "{style:?}");
            }
        }
    }
}

#[tokio::test]
async fn response_extensions_hold_the_rejection() {
    let layer = guard().accept_then_close(AcceptThenClose::new());
    let rejected =
        layer.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
    for (raw, kind) in [
        (handshake(), RejectionKind::TokenMissing),
        (bearer("guess"), RejectionKind::TokenInvalid),
        (bearer("forbidden"), RejectionKind::TokenForbidden),
        (bearer("broken"), RejectionKind::VerifierFailed),
    ] {
        let (request, mut client) = test_util::upgradable(raw.request()).await;
        let response = rejected.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.extensions().get::<Rejection>().unwrap().kind(), kind);
        client.write_all(CLIENT_CLOSE).await.unwrap();
        let mut received = Vec::new();
        in_time(client.read_to_end(&mut received)).await.unwrap();
        assert!(received.ends_with(kind.code().as_bytes()));
    }
}

#[tokio::test]
async fn close_code_must_be_one_that_a_server_may_send() {
    const TOKENS: [(u16, &str); 3] = [(401, "guess"), (403, "forbidden"), (503, "broken")];

    let set = |status: u16, code| {
        AcceptThenClose::new().close_code(StatusCode::from_u16(status).unwrap(), code)
    };
    for status in [401, 403, 429, 503] {
        for code in [1000, 1003, 1007, 1009, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert!(set(status, code).is_ok(), "{status} {code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1010, 1015, 1016, 2999, 5000, u16::MAX] {
            let message = set(status, code).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{code}`: a server cannot send")), "{message}");
        }
    }
    for status in [101, 200, 302, 400, 404, 421, 426, 500, 504] {
        let message = set(status, 4000).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("`{status}`: only 401, 403, 429 and 503")),
            "{message}"
        );
    }

    for (configured, code) in [(401, 1008), (403, 4999), (503, 3000)] {
        let address = server(set(configured, code).unwrap()).await;
        for (status, token) in TOKENS {
            let seen = exchange(address, Http1, &bearer(token)).await.rest;
            assert_eq!(
                seen[2..4] == code.to_be_bytes(),
                status == configured,
                "{status} {}",
                seen.escape_ascii()
            );
        }
    }
}

#[tokio::test]
async fn close_reason_is_truncated_between_characters() {
    let cause = AcceptThenClose::new().reason(|rejection| rejection.kind().title().to_owned());
    let seen = exchange(server(cause).await, Http1, &bearer("forbidden")).await;
    assert_eq!(seen.rest, frame(4403, "the token does not allow this"));

    for (before, character, count, length) in [
        ("", "a", 0, 0),
        ("", "a", 122, 122),
        ("", "a", 123, 123),
        ("", "a", 124, 123),
        ("", "a", 70_000, 123),
        ("", "é", 61, 122),
        ("", "é", 62, 122),
        ("a", "é", 61, 123),
        ("a", "é", 62, 123),
        ("", "☃", 41, 123),
        ("", "☃", 42, 123),
        ("a", "☃", 41, 121),
        ("aa", "☃", 41, 122),
        ("", "😀", 31, 120),
        ("a", "😀", 31, 121),
        ("aa", "😀", 31, 122),
        ("aaa", "😀", 30, 123),
        ("aaa", "😀", 31, 123),
    ] {
        let reason = before.to_owned() + &character.repeat(count);
        let expected = frame(4401, &reason[..length]);
        let address = server(AcceptThenClose::new().reason(move |_| reason.clone())).await;
        for transport in BOTH {
            assert_eq!(
                exchange(address, transport, &handshake()).await.rest,
                expected,
                "{before}{character} {count}"
            );
        }
    }
}

#[tokio::test]
async fn oldest_socket_is_dropped_beyond_max_sockets() {
    let stacks = Stacks::start(Some(slots(2, NEVER))).await;
    // All layers share the maximum.
    for ((first, second), transport) in
        stacks.all().zip(stacks.all().skip(1)).zip(BOTH.into_iter().cycle())
    {
        let mut oldest = open(first, transport, &handshake()).await;
        let mut newer = open(second, transport, &handshake()).await;
        for socket in [&mut oldest, &mut newer] {
            assert_eq!(socket.frame().await, TOKEN_MISSING);
        }
        let newest = open(first, transport, &handshake()).await;
        // A reset stream is over, too.
        let mut rest = Vec::new();
        in_time(oldest.stream.read_to_end(&mut rest)).await.ok();
        assert!(rest.is_empty(), "{rest:?}");
        newer.stream.write_all(CLIENT_CLOSE).await.unwrap();
        assert!(newer.rest().await.rest.is_empty());
        assert_eq!(newest.close().await, closed(transport, &[], TOKEN_MISSING));
    }
}

#[tokio::test]
async fn clients_that_do_not_close_cannot_turn_it_off_for_others() {
    const MAX_SOCKETS: u16 = 4;

    for transport in BOTH {
        let address = server(slots(MAX_SOCKETS, NEVER)).await;
        let mut holding = VecDeque::new();
        for _ in 0..MAX_SOCKETS {
            let mut socket = open(address, transport, &handshake()).await;
            assert_eq!(socket.frame().await, TOKEN_MISSING);
            holding.push_back(socket);
        }
        for _ in 0..2 {
            let mut legitimate = open(address, transport, &handshake()).await;
            assert_eq!(legitimate.frame().await, TOKEN_MISSING);
            // The oldest one goes. A reset is an end, too.
            let mut oldest = holding.pop_front().unwrap();
            in_time(oldest.stream.read_to_end(&mut Vec::new())).await.ok();
            for other in holding.iter_mut().chain([&mut legitimate]) {
                assert!(other.is_open().await, "{transport:?}");
            }
            legitimate.stream.write_all(CLIENT_CLOSE).await.unwrap();
            assert!(legitimate.rest().await.rest.is_empty());
            // Another one takes its place.
            let mut socket = until_open(address, transport).await;
            assert_eq!(socket.frame().await, TOKEN_MISSING);
            holding.push_back(socket);
        }
    }
}

/// A masked frame with a length of 7, 16 or 64 bits. The payload looks like close frames.
fn masked(first: u8, length_bits: u8, payload: usize) -> Vec<u8> {
    let length = match length_bits {
        7 => vec![0x80 | u8::try_from(payload).unwrap()],
        16 => [&[0xfe], &u16::try_from(payload).unwrap().to_be_bytes()[..]].concat(),
        _ => [&[0xff], &u64::try_from(payload).unwrap().to_be_bytes()[..]].concat(),
    };
    let payload = CLIENT_CLOSE.iter().copied().cycle().take(payload);
    [first].into_iter().chain(length).chain([0x88, 0x80, 0, 0]).chain(payload).collect()
}

#[tokio::test]
async fn socket_stays_open_until_the_client_closes() {
    for transport in BOTH {
        let address = server(slots(64, NEVER)).await;
        for frames in [
            &[][..],
            &[masked(0x81, 7, 0)],
            &[masked(0x82, 7, 1), masked(0x89, 7, 125), masked(0x8a, 7, 0)],
            &[masked(0x81, 16, 126), masked(0x82, 16, 0), masked(0x81, 16, 40_000)],
            &[masked(0x82, 16, u16::MAX as usize - 100)],
            &[masked(0x82, 64, 300), masked(0x81, 64, 0), masked(0x81, 64, 65_000)],
            // A message in fragments, with a ping between them.
            &[masked(0x01, 7, 20), masked(0x89, 7, 3), masked(0x00, 16, 200), masked(0x80, 7, 9)],
        ] {
            let mut socket = open(address, transport, &handshake()).await;
            assert_eq!(socket.frame().await, TOKEN_MISSING);
            assert!(socket.is_open().await);
            for frame in frames {
                // In several writes, also within the head of the frame.
                let (head, payload) = frame.split_at(frame.len().min(14));
                for part in head.chunks(1).chain(payload.chunks(9000)) {
                    socket.stream.write_all(part).await.unwrap();
                    socket.stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
                let head = head.escape_ascii();
                assert!(socket.is_open().await, "{transport:?} {head}");
            }
            let (head, last) = CLIENT_CLOSE.split_at(CLIENT_CLOSE.len() - 1);
            socket.stream.write_all(head).await.unwrap();
            assert!(socket.is_open().await, "{transport:?}");
            socket.stream.write_all(last).await.unwrap();
            // In an orderly way.
            assert!(socket.rest().await.rest.is_empty());
        }
    }
}

#[tokio::test]
async fn client_that_breaks_the_protocol_is_disconnected_at_once() {
    let oversized = |length: u64| [&[0x82, 0xff], &length.to_be_bytes()[..], &[0; 4]].concat();
    let unmasked = b"\x81\x05hello".to_vec();
    let unmasked_close = b"\x88\x02\x03\xe8".to_vec();
    for transport in BOTH {
        let address = server(slots(64, NEVER)).await;
        for (sent, ends) in [
            (unmasked.clone(), true),
            (unmasked_close.clone(), true),
            ([masked(0x81, 7, 9), unmasked.clone()].concat(), true),
            (b"\x82\x7e\x00\x00".to_vec(), true),
            (oversized(64 * 1024 + 1), true),
            (oversized(1 << 32), true),
            (oversized(u64::MAX), true),
            ([masked(0x89, 16, 300), oversized(u64::MAX)].concat(), true),
            // It has sent enough.
            (masked(0x82, 16, 1000).repeat(70), true),
            // The rest of these may come.
            (oversized(64 * 1024), false),
            (b"\x82\xfe\xff\xff".to_vec(), false),
            (b"\x82\xff\0\0\0\0".to_vec(), false),
            (b"\x88".to_vec(), false),
        ] {
            let mut socket = open(address, transport, &handshake()).await;
            assert_eq!(socket.frame().await, TOKEN_MISSING);
            socket.stream.write_all(&sent).await.ok();
            socket.stream.flush().await.ok();
            let sent = sent[..sent.len().min(14)].escape_ascii();
            if ends {
                let mut rest = Vec::new();
                in_time(socket.stream.read_to_end(&mut rest)).await.ok();
                assert!(rest.is_empty(), "{transport:?} {sent}");
            } else {
                assert!(socket.is_open().await, "{transport:?} {sent}");
                // So does the client that leaves.
                socket.stream.shutdown().await.unwrap();
                assert!(socket.rest().await.rest.is_empty(), "{transport:?} {sent}");
            }
        }
    }
}

#[tokio::test]
async fn timeout_drops_a_client_that_does_not_close() {
    for transport in BOTH {
        let patient = server(slots(1, NEVER)).await;
        // With a slot that is free, so that no other socket drops the first.
        let hasty = server(slots(2, Duration::from_millis(100))).await;
        let waits = open(patient, transport, &handshake()).await;

        let mut silent = open(hasty, transport, &handshake()).await;
        assert_eq!(silent.frame().await, TOKEN_MISSING);
        let mut rest = Vec::new();
        in_time(silent.stream.read_to_end(&mut rest)).await.ok();
        assert!(rest.is_empty(), "{transport:?}");

        // Each layer has its own timeout.
        assert_eq!(waits.close().await.rest, TOKEN_MISSING);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flooding_client_is_dropped_at_the_timeout() {
    for transport in BOTH {
        let address = server(slots(1, Duration::from_millis(200))).await;
        let mut socket = open(address, transport, &handshake()).await;
        assert_eq!(socket.frame().await, TOKEN_MISSING);
        socket.flood().await;
        until_closed(address, transport).await;
    }
}

#[tokio::test]
async fn vanished_client_frees_its_slot() {
    let address = server(slots(1, NEVER)).await;
    let sent = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&handshake().bytes()).await.unwrap();
        stream
    };
    let free = |transport| until_closed(address, transport);

    drop(sent().await);
    free(Http1).await;
    let reset = sent().await;
    SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    free(Http1).await;
    for transport in BOTH {
        let before_the_frame = open(address, transport, &handshake()).await;
        drop(before_the_frame);
        free(transport).await;
        let mut behind_it = open(address, transport, &handshake()).await;
        behind_it.frame().await;
        drop(behind_it);
        free(transport).await;
        // The stream stays, but the connection is gone.
        let broken = open(address, transport, &handshake()).await;
        broken.tcp.shutdown(Shutdown::Both).unwrap();
        free(transport).await;
    }
}

#[tokio::test]
async fn bytes_after_the_handshake_are_not_a_second_request() {
    let stacks = Stacks::start(Some(AcceptThenClose::new())).await;
    let second = String::from_utf8(bearer("valid").bytes()).unwrap();
    for address in stacks.all() {
        for (behind, token) in
            [(second.clone(), "guess"), (second.repeat(100), "guess"), ("x".repeat(30_000), "x")]
        {
            let seen = exchange(address, Http1, &bearer(token).body(&behind)).await;
            assert_eq!(seen, closed(Http1, &[], &frame(4401, "token-invalid")));
        }
    }
    assert_eq!(stacks.calls(), 0);
}

#[tokio::test]
async fn non_upgradable_request_is_rejected_with_a_status() {
    let service = guard().accept_then_close(AcceptThenClose::new());
    let service =
        service.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
    for raw in [handshake(), bearer("guess")] {
        for request in raw.over_both() {
            assert_plain(&service.clone().oneshot(request).await.unwrap());
        }
    }
}

#[test]
fn rejection_outside_a_runtime_is_a_status() {
    let service = guard().accept_then_close(AcceptThenClose::new());
    let service =
        service.layer(service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(())))));
    for raw in [handshake(), bearer("guess")] {
        let future = pin!(service.clone().oneshot(raw.upgradable()));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => assert_plain(&response.unwrap()),
            Poll::Pending => panic!("nothing to wait for"),
        }
    }
}

fn assert_plain(response: &Response<()>) {
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    assert!(response.extensions().get::<Rejection>().is_some());
}

/// Only the token check closes, and only after all other checks have passed: a page of another site must learn
/// nothing.
#[tokio::test]
async fn rejection_by_another_check_is_a_status() {
    let inner = inner(&Arc::default());
    let policy = || {
        TokenPolicy::from_sources([TokenSource::subprotocol("token.").unwrap()], verify).unwrap()
    };
    let checked = |kind: RejectionKind| {
        GuardLayer::new(AllowOrigin::same_origin())
            .check(check_fn(move |_| Err(kind.into())))
            .token(policy())
            .unwrap()
            .require_websocket()
            .accept_then_close(AcceptThenClose::new())
    };
    for kind in
        [RejectionKind::TokenMissing, RejectionKind::TokenInvalid, RejectionKind::VerifierFailed]
    {
        let address = serve(checked(kind).layer(inner.clone())).await;
        for transport in BOTH {
            for raw in [handshake(), handshake().and("Sec-WebSocket-Protocol", "token.valid, v1")] {
                let seen = exchange(address, transport, &raw).await;
                assert_eq!(seen.status, kind.status().as_u16());
                assert!(!format!("{seen:?}").contains("token.valid"), "{seen:?}");
            }
        }
    }

    // A report-only origin is accepted, but receives no close reason.
    let trial = OriginCheckLayer::new(AllowOrigin::same_origin()).dangerous_report_only();
    let closes = TokenCheckLayer::new(tokens())
        .require_websocket()
        .accept_then_close(AcceptThenClose::new());
    let address = serve(ServiceBuilder::new().layer(trial).layer(closes).service(inner)).await;
    for transport in BOTH {
        let foreign = handshake().with("Origin", "https://evil.example");
        assert_eq!(exchange(address, transport, &foreign).await.status, 401);
        assert_eq!(exchange(address, transport, &handshake()).await.rest, TOKEN_MISSING);
    }
}
