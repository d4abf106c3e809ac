//! The example `reverse_proxy` in front of upstreams that check nothing: their requests and responses.

#[path = "../../examples/reverse_proxy.rs"]
#[allow(dead_code)]
mod example;

use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{ServiceExt, extract::Request as AxumRequest};
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, upgrade::upgrade};
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tower::service_fn;
use tower_ws_guard::{AllowHost, AllowOrigin, accept_key};

use crate::common::{self, ACCEPT, Raw, handshake, plain, send, serve_axum};

async fn proxy(upstream: SocketAddr) -> SocketAddr {
    proxy_to_hosts(None, upstream).await
}

async fn proxy_to_hosts(hosts: Option<AllowHost>, upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = example::app(AllowOrigin::same_origin(), hosts, upstream.to_string().into());
    let app = ServiceExt::<AxumRequest>::into_make_service_with_connect_info::<SocketAddr>(app);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens in time")
}

/// An upstream that checks nothing: it responds to every head with the result of `response`, and echoes all later bytes
/// until it receives `bye`.
struct Upstream {
    address: SocketAddr,
    /// For each connection the head of the request, and at its end the bytes after it.
    seen: UnboundedReceiver<String>,
}

impl Upstream {
    async fn start(response: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (sender, response) = (sender.clone(), response.clone());
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    let end = loop {
                        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n")
                        {
                            break end + 4;
                        }
                        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "a whole head");
                    };
                    let head = String::from_utf8(read[..end].to_vec()).unwrap();
                    let mut reply = response(&head).into_bytes();
                    sender.send(head).ok();
                    reply.extend_from_slice(&read[end..]);
                    let mut sent = 0;
                    loop {
                        stream.write_all(&reply[sent..]).await.ok();
                        sent = reply.len();
                        if reply.ends_with(b"bye")
                            || stream.read_buf(&mut reply).await.unwrap_or(0) == 0
                        {
                            break;
                        }
                        read.extend_from_slice(&reply[sent..]);
                    }
                    sender.send(String::from_utf8(read.split_off(end)).unwrap()).ok();
                });
            }
        });
        Self { address, seen }
    }

    async fn next(&mut self) -> String {
        soon(self.seen.recv()).await.unwrap()
    }
}

/// A 101 to everything, with the accept of the first key, or of a default key.
fn accept(head: &str) -> String {
    let key =
        values(head, "sec-websocket-key").first().and_then(|key| key.as_bytes().try_into().ok());
    let accept = accept_key(&key.unwrap_or([b'A'; 24]));
    switching(&format!("Sec-WebSocket-Accept: {}\r\n", std::str::from_utf8(&accept).unwrap()))
}

fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}\r\n"
    )
}

fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(there, _)| there.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn socket_works_through_the_proxy() {
    let lax = service_fn(async |mut request: Request<hyper::body::Incoming>| {
        let (response, socket) = upgrade(&mut request).unwrap();
        tokio::spawn(async move {
            let mut socket = socket.await.unwrap();
            loop {
                let frame = socket.read_frame().await.unwrap();
                match frame.opcode {
                    OpCode::Close => break,
                    opcode => socket
                        .write_frame(Frame::new(true, opcode, None, frame.payload))
                        .await
                        .unwrap(),
                }
            }
        });
        Ok::<_, Infallible>(response.map(|_| common::Body::default()))
    });
    let proxy = proxy(common::serve(lax).await).await;

    let mut request = format!("ws://{proxy}/ws").into_client_request().unwrap();
    request.headers_mut().insert("origin", format!("http://{proxy}").parse().unwrap());
    let (mut socket, _) =
        client_async(request, TcpStream::connect(proxy).await.unwrap()).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 1_000_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Close(_)))));
    assert!(soon(socket.next()).await.is_none());
}

#[tokio::test]
async fn upstream_receives_the_canonical_handshake_and_all_later_bytes() {
    let mut upstream = Upstream::start(|head| {
        let hop = "Set-Cookie: a=b\r\nX-Hop: 1\r\nConnection: X-Hop\r\nKeep-Alive: timeout=5\r\n";
        // Early bytes of the upstream.
        accept(head).replacen("\r\n\r\n", &format!("\r\n{hop}\r\nfirst "), 1)
    })
    .await;
    let raw = handshake()
        .target("/ws?room=1")
        .with("Connection", "keep-alive,, UPGRADE, X-Secret")
        .and("X-Secret", "1")
        .with("Upgrade", "h2c, WebSocket")
        .and("HTTP2-Settings", "AAMAAABkAAQAAP__")
        .and("Keep-Alive", "timeout=5")
        .and("Sec-WebSocket-Extensions", "permessage-deflate")
        .and("Cookie", "session=1")
        .body("second bye");
    let mut response = send(proxy(upstream.address).await, &raw.bytes()).await;
    assert_eq!(response.status, 101);
    assert_eq!(response.all("upgrade"), ["websocket"]);
    assert_eq!(response.all("connection"), ["Upgrade"]);
    assert_eq!(response.all("sec-websocket-accept"), [ACCEPT]);
    assert_eq!(response.all("set-cookie"), ["a=b"]);
    assert!(response.all("keep-alive").is_empty() && response.all("x-hop").is_empty());
    assert_eq!(response.read_rest().await, "first second bye");

    let head = upstream.next().await;
    assert!(head.starts_with("GET /ws?room=1 HTTP/1.1\r\n"), "{head}");
    for (name, expected) in [
        ("host", &[common::HOST][..]),
        ("upgrade", &["websocket"]),
        ("connection", &["Upgrade"]),
        ("sec-websocket-key", &[common::KEY]),
        ("sec-websocket-version", &["13"]),
        ("sec-websocket-extensions", &["permessage-deflate"]),
        ("origin", &[common::ORIGIN]),
        ("cookie", &["session=1"]),
        ("http2-settings", &[]),
        ("keep-alive", &[]),
        ("x-secret", &[]),
    ] {
        assert_eq!(values(&head, name), expected, "{name}");
    }
    assert_eq!(upstream.next().await, "second bye");
}

#[tokio::test]
async fn rejected_handshake_never_reaches_the_upstream() {
    let mut upstream = Upstream::start(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let proxy = proxy(upstream.address).await;
    let cases: [(Raw, u16, &str); 16] = [
        (handshake().with("Origin", "https://evil.example"), 403, "origin-not-allowed"),
        (handshake().with("Origin", "null"), 403, "origin-not-allowed"),
        (handshake().without("Origin"), 403, "origin-missing"),
        (handshake().and("Origin", common::ORIGIN), 400, "origin-repeated"),
        (handshake().and("Sec-WebSocket-Key", common::KEY), 400, "key-repeated"),
        (handshake().without("Sec-WebSocket-Key"), 400, "key-missing"),
        (handshake().without("Host"), 400, "host-invalid"),
        (handshake().and("Host", "other.example"), 400, "host-invalid"),
        (handshake().with("Sec-WebSocket-Version", "8"), 426, "version-unsupported"),
        (handshake().with("Sec-WebSocket-Version", "013"), 400, "version-invalid"),
        (handshake().with("Upgrade", "websocket/13"), 426, "upgrade-missing"),
        (handshake().without("Connection"), 400, "connection-missing"),
        (handshake().method("POST"), 405, "method-not-allowed"),
        (handshake().version("HTTP/1.0"), 505, "http-version"),
        (
            handshake().and("Content-Length", "0").and("Transfer-Encoding", "chunked"),
            400,
            "body-present",
        ),
        (handshake().and("Sec-WebSocket-Protocol", "a b"), 400, "subprotocol-invalid"),
    ];
    for (raw, status, code) in cases {
        let second = handshake().target("/second").bytes();
        let pipelined = [raw.bytes(), second].concat();
        let mut rejected = send(proxy, &pipelined).await;
        assert_eq!(rejected.status, status, "{code}");
        let body = rejected.read_rest().await;
        assert!(
            body.ends_with(&format!(r#""code":"{code}"}}"#)) && !body.contains("\r\n"),
            "{code}: {body}"
        );
    }
    // Each rejected connection has ended, so this is the first request that the upstream sees.
    assert_eq!(send(proxy, &plain().target("/first").bytes()).await.status, 204);
    let head = upstream.next().await;
    assert!(head.starts_with("GET /first "), "{head}");
}

#[tokio::test]
async fn only_requests_to_allowed_hosts_reach_the_upstream() {
    let mut upstream = Upstream::start(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let hosts = AllowHost::list([common::HOST]).unwrap();
    let proxy = proxy_to_hosts(Some(hosts), upstream.address).await;
    for raw in [plain(), handshake().with("Origin", "http://evil.example")] {
        let mut rejected = send(proxy, &raw.with("Host", "evil.example").bytes()).await;
        assert_eq!(rejected.status, 421);
        assert!(rejected.read_rest().await.contains(r#""code":"host-not-allowed""#));
    }
    assert_eq!(send(proxy, &plain().target("/first").bytes()).await.status, 204);
    assert!(upstream.next().await.starts_with("GET /first "));
    assert_eq!(send(proxy, &handshake().bytes()).await.status, 204);
}

#[tokio::test]
async fn ordinary_request_cannot_switch_the_upstream() {
    let mut upstream = Upstream::start(|_| {
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nok".into()
    })
    .await;
    let proxy = proxy(upstream.address).await;
    let smuggled = plain()
        .target("http://other.example/page?a=b")
        .and("Upgrade", "h2c")
        .and("HTTP2-Settings", "AAMAAABkAAQAAP__")
        .and("Connection", "Upgrade, HTTP2-Settings, X-Secret")
        .and("Connection", "x-other")
        .and("X-Secret", "1")
        .and("X-Other", "1")
        .and("Keep-Alive", "timeout=5")
        .and("Proxy-Connection", "keep-alive")
        .and("TE", "trailers")
        .and("X-Kept", "1");
    // Forwarded unchanged, a switching upstream would take the second request for HTTP/2 frames.
    let raw =
        [smuggled.bytes(), plain().target("/second").and("Connection", "close").bytes()].concat();
    let mut response = send(proxy, &raw).await;
    assert_eq!(response.status, 200);
    assert!(response.all("x-hop").is_empty());
    let rest = response.read_rest().await;
    assert!(rest.starts_with("okHTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\nok"), "{rest}");

    let head = upstream.next().await;
    assert!(head.starts_with("GET /page?a=b HTTP/1.1\r\n"), "{head}");
    let names: Vec<_> = head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
    // The host of an absolute target counts (RFC 9112 3.2.2).
    let forwarded = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "other.example")];
    let expected = [&[("host", "other.example"), ("x-kept", "1")][..], &forwarded].concat();
    assert_eq!(names, [&expected[..], &[("x-forwarded-proto", "http")]].concat());
    assert_eq!(upstream.next().await, "");
    assert!(upstream.next().await.starts_with("GET /second HTTP/1.1\r\n"));
}

#[tokio::test]
async fn forwarded_headers_of_the_client_are_replaced() {
    for raw in [plain(), handshake()] {
        let forged =
            ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x_forwarded_for"]
                .into_iter()
                .chain(["X-Forwarded-Port", "X-Forwarded-Prefix", "Forwarded", "X-Real-IP"])
                .fold(raw, |raw, name| raw.and(name, "forged").and(name, "forged"));
        // The proxy would add its own, and then remove them.
        let raw = match values(&String::from_utf8(forged.bytes()).unwrap(), "connection")[..] {
            [] => forged.and("Connection", "X-Forwarded-For"),
            _ => forged.and("Connection", "X-Forwarded-For, Upgrade"),
        };
        let mut upstream = Upstream::start(accept).await;
        send(proxy(upstream.address).await, &raw.bytes()).await;
        let head = upstream.next().await;
        assert!(!head.contains("forged"), "{head}");
        for (name, expected) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", common::HOST),
            ("x-forwarded-proto", "http"),
        ] {
            assert_eq!(values(&head, name), [expected], "{name}: {head}");
        }
    }
}

#[tokio::test]
async fn connection_takes_no_end_to_end_header_away() {
    let names = "Origin, host, Cookie, Authorization, Sec-WebSocket-Protocol, Sec-WebSocket-Key, \
                 Sec-WebSocket-Version, Sec-Fetch-Site, X-Hop";
    for raw in [
        plain().and("Origin", common::ORIGIN).and("Connection", names),
        handshake().with("Connection", format!("Upgrade, {names}")),
    ] {
        let raw = raw
            .and("Sec-WebSocket-Protocol", "chat")
            .and("Sec-Fetch-Site", "same-origin")
            .and("Cookie", "session=1")
            .and("Authorization", "Bearer s3cr3t")
            .and("X-Hop", "1");
        let asked = String::from_utf8(raw.bytes()).unwrap();
        let mut upstream = Upstream::start(accept).await;
        send(proxy(upstream.address).await, &raw.bytes()).await;
        let head = upstream.next().await;
        for name in names.split(", ") {
            let expected = if name == "X-Hop" { vec![] } else { values(&asked, name) };
            assert_eq!(values(&head, name), expected, "{name}: {head}");
        }
    }
}

#[tokio::test]
async fn invalid_101_of_the_upstream_opens_no_tunnel() {
    let good = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
    let offering = handshake().and("Sec-WebSocket-Protocol", "v2.chat, v1.chat");
    for (raw, more) in [
        (plain(), good.clone()),
        (plain().and("Connection", "Upgrade").and("Upgrade", "h2c"), good.clone()),
        (handshake(), String::new()),
        (handshake(), "Sec-WebSocket-Accept: 3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n".into()),
        (handshake(), good.repeat(2)),
        (handshake(), format!("{good}Sec-WebSocket-Protocol: chat\r\n")),
        (offering.clone(), format!("{good}Sec-WebSocket-Protocol: chat\r\n")),
        (offering.clone(), format!("{good}Sec-WebSocket-Protocol: v2.chat, v1.chat\r\n")),
        (
            offering,
            format!("{good}Sec-WebSocket-Protocol: v2.chat\r\nSec-WebSocket-Protocol: v1.chat\r\n"),
        ),
    ] {
        let (case, response) = (format!("{raw:?} {more:?}"), switching(&more));
        let mut upstream = Upstream::start(move |_| response.clone()).await;
        // An ordinary request leaves the connection open, so a second one closes it.
        let raw = [raw.bytes(), b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec()].concat();
        let mut response = send(proxy(upstream.address).await, &raw).await;
        assert_eq!(response.status, 502, "{case}");
        assert!(
            response.all("sec-websocket-accept").is_empty() && response.all("upgrade").is_empty(),
            "{case}"
        );
        response.read_rest().await;
        upstream.next().await;
        assert_eq!(upstream.next().await, "", "{case}");
    }
}

#[tokio::test]
async fn upstream_rejection_is_passed_on() {
    let upstream = Upstream::start(|_| {
        let headers = "X-Reason: full\r\nX-Hop: 1\r\nConnection: keep-alive, X-Hop\r\nUpgrade: websocket\r\n";
        format!("HTTP/1.1 429 Too Many Requests\r\n{headers}Transfer-Encoding: chunked\r\n\r\n4\r\nlate\r\n0\r\n\r\n")
    })
    .await;
    let proxy = proxy(upstream.address).await;
    let pipelined = [handshake().bytes(), plain().target("/second").bytes()].concat();
    let mut rejected = send(proxy, &pipelined).await;
    assert_eq!(rejected.status, 429);
    assert_eq!(rejected.all("x-reason"), ["full"]);
    assert_eq!(rejected.all("connection"), ["close"]);
    assert!(rejected.all("x-hop").is_empty() && rejected.all("upgrade").is_empty());
    assert_eq!(rejected.read_rest().await, "4\r\nlate\r\n0\r\n\r\n");
}

#[tokio::test]
async fn unreachable_upstream_is_a_bad_gateway() {
    // Bound but not listening, so that no other process gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = proxy(socket.local_addr().unwrap()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs_up = proxy(silent.local_addr().unwrap()).await;
    tokio::spawn(async move {
        loop {
            drop(silent.accept().await.unwrap());
        }
    });
    for address in [nowhere, hangs_up] {
        for raw in [plain(), handshake()] {
            assert_eq!(send(address, &raw.bytes()).await.status, 502);
        }
    }
}

#[tokio::test]
async fn closing_either_side_closes_the_other() {
    let mut upstream = Upstream::start(accept).await;
    let proxy = proxy(upstream.address).await;

    let mut client = send(proxy, &handshake().bytes()).await;
    upstream.next().await;
    client.stream.write_all(b"more").await.unwrap();
    let mut echoed = [0; 4];
    soon(client.stream.read_exact(&mut echoed)).await.unwrap();
    drop(client);
    assert_eq!(upstream.next().await, "more");

    let mut client = send(proxy, &handshake().bytes()).await;
    client.stream.write_all(b"good bye").await.unwrap();
    assert_eq!(client.read_rest().await, "good bye");
}

#[tokio::test]
async fn upstream_selects_the_subprotocol() {
    for (offer, choice) in [
        (Some("v2.chat,v1.chat"), Some("v1.chat")),
        (Some("v2.chat, v1.chat"), Some("v2.chat")),
        (Some("chat"), None),
    ] {
        let mut upstream = Upstream::start(move |head| {
            let line = choice
                .map_or_else(String::new, |choice| format!("\r\nSec-WebSocket-Protocol: {choice}"));
            accept(head).replacen("\r\n\r\n", &format!("{line}\r\n\r\n"), 1)
        })
        .await;
        let raw = offer
            .into_iter()
            .fold(handshake(), |raw, offer| raw.and("Sec-WebSocket-Protocol", offer));
        let accepted = send(proxy(upstream.address).await, &raw.bytes()).await;
        assert_eq!(accepted.status, 101);
        assert_eq!(accepted.all("sec-websocket-protocol"), Vec::from_iter(choice));
        assert_eq!(values(&upstream.next().await, "sec-websocket-protocol"), Vec::from_iter(offer));
    }
}

#[tokio::test]
async fn bodies_are_streamed() {
    let echo = axum::Router::new().fallback(async |request: AxumRequest| request.into_body());
    let proxy = proxy(serve_axum(echo).await).await;
    for method in ["POST", "GET"] {
        let request =
            plain().method(method).and("Transfer-Encoding", "chunked").body("5\r\nfirst\r\n");
        let mut response = send(proxy, &request.bytes()).await;
        assert_eq!(response.status, 200);
        // The second half of the request is sent after the first half of the response arrived.
        while !response.rest.ends_with(b"5\r\nfirst\r\n") {
            assert!(soon(response.stream.read_buf(&mut response.rest)).await.unwrap() > 0);
        }
        response.stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
        while !response.rest.ends_with(b"6\r\nsecond\r\n0\r\n\r\n") {
            assert!(soon(response.stream.read_buf(&mut response.rest)).await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn unsupported_requests_are_rejected() {
    let mut upstream = Upstream::start(accept).await;
    let proxy = proxy(upstream.address).await;
    for (raw, status) in [
        (plain().method("CONNECT").target("127.0.0.1:1"), 501),
        (plain().without("Host"), 400),
        (plain().and("Host", "other.example"), 400),
        (plain().with("Host", "user@chat.example.com"), 400),
        (plain().with("Host", "chat.example.com:80@evil.example"), 400),
        (plain().with("Host", ""), 400),
        (plain().target("http://user:secret@chat.example.com/"), 400),
        (handshake().with("Host", "user@chat.example.com"), 400),
        (handshake().target("http://user@chat.example.com/ws"), 400),
    ] {
        assert_eq!(send(proxy, &raw.bytes()).await.status, status, "{raw:?}");
    }

    let io = TokioIo::new(TcpStream::connect(proxy).await.unwrap());
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let url = format!("http://{proxy}/");
    let ordinary = Request::get(&url).body(Empty::new()).unwrap();
    assert_eq!(soon(sender.send_request(ordinary)).await.unwrap().status(), 501);
    let mut connect =
        Request::connect(&url).header("sec-websocket-version", "13").body(Empty::new()).unwrap();
    connect.headers_mut().insert("origin", format!("http://{proxy}").parse().unwrap());
    connect.extensions_mut().insert(Protocol::from_static("websocket"));
    assert_eq!(soon(sender.send_request(connect)).await.unwrap().status(), 501);

    assert_eq!(send(proxy, &handshake().target("/first").bytes()).await.status, 101);
    assert!(upstream.next().await.starts_with("GET /first "));
}

/// The example as a program; it ends with the test.
struct Program {
    process: Child,
    address: SocketAddr,
}

impl Program {
    fn command(flags: &[&str]) -> Command {
        let tests = std::env::current_exe().unwrap();
        let examples = tests.parent().unwrap().parent().unwrap().join("examples");
        let mut command = Command::new::<PathBuf>(examples.join("reverse_proxy"));
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        command
    }

    fn start(flags: &[&str]) -> Self {
        let mut process = Self::command(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo build --example reverse_proxy` was run");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .expect("its address")
            .parse()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
async fn program_follows_its_flags() {
    let upstream = Upstream::start(accept).await;
    let url = format!("http://{}", upstream.address);
    let (own, app, public) =
        (common::ORIGIN, "https://app.example.com", "https://public.example.com");
    for (flags, allowed) in [
        (&[][..], &[own][..]),
        (&["--allow-origin", app], &[app]),
        (&["--public-origin", public], &[public]),
        (&["--allow-origin", app, "--public-origin", public], &[app, public]),
    ] {
        let program =
            Program::start(&[&["--upstream", &url, "--allow-any-host"][..], flags].concat());
        for origin in [own, app, public] {
            let expected = if allowed.contains(&origin) { 101 } else { 403 };
            let response = send(program.address, &handshake().with("Origin", origin).bytes()).await;
            assert_eq!(response.status, expected, "{flags:?} {origin}");
        }
    }
    for (flags, allowed) in [
        (&[][..], &["localhost:3000", "127.0.0.1"][..]),
        (
            &["--allow-host", "*.example.com", "--allow-host", "localhost:*"],
            &[common::HOST, "localhost:3000"],
        ),
        (&["--allow-any-host"], &[common::HOST, "localhost:3000", "127.0.0.1", "evil.example"]),
    ] {
        let program = Program::start(&[&["--upstream", &url][..], flags].concat());
        for host in [common::HOST, "localhost:3000", "127.0.0.1", "evil.example"] {
            let raw = handshake().with("Host", host).with("Origin", format!("http://{host}"));
            let expected = if allowed.contains(&host) { 101 } else { 421 };
            let response = send(program.address, &raw.bytes()).await;
            assert_eq!(response.status, expected, "{flags:?} {host}");
        }
    }
    for upstream in [
        "https://127.0.0.1:1",
        "http://127.0.0.1",
        "http://127.0.0.1:1/path",
        "http://:1",
        "127.0.0.1:1",
    ] {
        let output = Program::command(&["--upstream", upstream]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success()
                && error.contains("--upstream <URL>")
                && error.contains("HOST:PORT"),
            "{error}"
        );
    }
}
