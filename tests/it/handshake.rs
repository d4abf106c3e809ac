//! RFC 6455 4.2.1: every row of the table of rejections, by a request over a socket and by one built in memory.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response, Version};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Check, ConnectionLimit, GuardLayer, Handshake, Origin, PendingUpgrade,
    ProblemJson, Rejection, RequestHead, RequestOrigin, ResponderLayer, StaticTokens, Subprotocols,
    TokenPolicy, Transport, check_fn,
};

use crate::common::{self, ACCEPT, Body, KEY, Raw, handshake, plain, send, serve};

/// Status, code, and headers with the element that they must contain.
type ExpectedRejection = (u16, &'static str, &'static [(&'static str, &'static str)]);

const SWITCH: &[(&str, &str)] =
    &[("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")];
const VERSION: &[(&str, &str)] = &[("sec-websocket-version", "13")];
const METHOD: ExpectedRejection = (405, "method-not-allowed", &[("allow", "GET")]);
const UPGRADE: ExpectedRejection = (426, "upgrade-missing", SWITCH);
const CONNECTION: ExpectedRejection = (400, "connection-missing", &[]);
const HOST: ExpectedRejection = (400, "host-invalid", &[]);
const KEY_INVALID: ExpectedRejection = (400, "key-invalid", &[]);
const VERSION_INVALID: ExpectedRejection = (400, "version-invalid", VERSION);
const UNSUPPORTED: ExpectedRejection = (426, "version-unsupported", SWITCH);
const BODY: ExpectedRejection = (400, "body-present", &[]);
const SUBPROTOCOL: ExpectedRejection = (400, "subprotocol-invalid", &[]);

fn rejected() -> Vec<(Raw, ExpectedRejection)> {
    let mut cases = vec![
        (handshake().method("POST"), METHOD),
        (handshake().method("get"), METHOD),
        (handshake().method("HEAD"), METHOD),
        (handshake().version("HTTP/1.0"), (505, "http-version", &[])),
        (handshake().without("Upgrade"), UPGRADE),
        (handshake().without("Connection"), CONNECTION),
        (handshake().without("Host"), HOST),
        (handshake().and("Host", common::HOST), HOST),
        (handshake().target("http://other.example/ws"), HOST),
        (handshake().target("http://chat.example.com:8080/ws"), HOST),
        (handshake().target("http://user@chat.example.com/ws"), HOST),
        (handshake().without("Sec-WebSocket-Key"), (400, "key-missing", &[])),
        (handshake().and("Sec-WebSocket-Key", KEY), (400, "key-repeated", &[])),
        (handshake().without("Sec-WebSocket-Version"), (400, "version-missing", VERSION)),
        (handshake().and("Sec-WebSocket-Version", "13"), VERSION_INVALID),
        (handshake().and("Sec-WebSocket-Version", "8"), VERSION_INVALID),
        (handshake().and("Content-Length", "5").body("hello"), BODY),
        (handshake().and("Transfer-Encoding", "chunked").body("0\r\n\r\n"), BODY),
        (
            handshake().and("Sec-WebSocket-Protocol", "chat").and("Sec-WebSocket-Protocol", "chat"),
            SUBPROTOCOL,
        ),
        // One indicator is enough for an upgrade request.
        (plain().and("Upgrade", "xWebSocketx"), UPGRADE),
        (plain().and("Sec-WebSocket-Key", ""), UPGRADE),
        (plain().and("Sec-WebSocket-Version", ""), UPGRADE),
        (plain().and("Upgrade", "websocket"), CONNECTION),
        (plain().and("Upgrade", "h2c").and("Upgrade", "websocket"), CONNECTION),
    ];
    for upgrade in
        ["h2c", "websockets", "websocket/13", "web socket", "\"websocket\"", "websocket;q=1"]
    {
        cases.push((handshake().with("Upgrade", upgrade), UPGRADE));
    }
    for connection in
        ["keep-alive", "not-upgrade", "upgraded", "keep-alive Upgrade", "\"upgrade\"", ""]
    {
        cases.push((handshake().with("Connection", connection), CONNECTION));
    }
    for host in [
        "",
        "user@chat.example.com",
        "chat example.com",
        "chat.example.com:",
        "chat.example.com:80a",
        "chat.example.com:123456",
        "chat.example.com:-1",
        "chat/example",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[]",
        "[::1%25eth0]",
        "[v1.]",
        "[v.a]",
        "[v1a]",
        "[vg.a]",
        "[v1.a/b]",
        "[1.2.3.4]",
        ":80",
        "chat.example.com:80:80",
        "chat%zz",
        "chat%4z",
        "chat%z4",
        "chat%4",
        "a,b c",
        "\u{fc}",
        "chat.example.com?",
        "chat.example.com#",
    ] {
        cases.push((handshake().with("Host", host), HOST));
    }
    for key in [
        "",
        "zzz",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25jZQ== x",
        "dGhlIHNhbXBsZSBub25jZ-==",
        "dGhlIHNhbXBsZSBub25jZ_==",
        "dGhpcyBpcyAxNWJ5dGVz",
        "dGhpcyBpcyBub3QgMTYgYnl0ZXM=",
        "dGhlIHNhbXBsZSBub25j\u{e9}==",
        "dGhlIHNhbXBs\tSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        cases.push((handshake().with("Sec-WebSocket-Key", key), KEY_INVALID));
    }
    for version in [
        "",
        "013",
        "+13",
        "-13",
        "13, 8",
        "1 3",
        "256",
        "300",
        "1000",
        "13.0",
        "x",
        "0x0d",
        "\u{661}\u{663}",
    ] {
        cases.push((handshake().with("Sec-WebSocket-Version", version), VERSION_INVALID));
    }
    for version in ["0", "7", "8", "12", "14", "25", "99", "100", "199", "200", "249", "250", "255"]
    {
        cases.push((handshake().with("Sec-WebSocket-Version", version), UNSUPPORTED));
    }
    for subprotocol in
        [",", " , ", ",,", "a b", "b@d", "a, a", "a/b", "\"a\"", "caf\u{e9}", "a, (b)", "a=b"]
    {
        cases.push((handshake().with("Sec-WebSocket-Protocol", subprotocol), SUBPROTOCOL));
    }
    let too_many = (0..129).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    cases.push((handshake().with("Sec-WebSocket-Protocol", too_many), SUBPROTOCOL));
    cases
}

/// hyper rejects these itself, so only requests built in memory show them.
fn rejected_in_memory() -> Vec<(Raw, ExpectedRejection)> {
    vec![
        (handshake().and("Content-Length", "x"), BODY),
        (handshake().and("Content-Length", "00"), BODY),
        (handshake().and("Content-Length", "0").and("Content-Length", "0"), BODY),
        (handshake().and("Transfer-Encoding", "gzip"), BODY),
        (handshake().method("CONNECT").target("chat.example.com:80"), METHOD),
    ]
}

fn accepted() -> Vec<Raw> {
    let as_many_as_may_be = (1..128).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    vec![
        handshake().with("Sec-WebSocket-Protocol", format!("chat,{as_many_as_may_be}")),
        handshake(),
        handshake().with("Upgrade", "WebSocket"),
        handshake().with("Upgrade", "h2c, websocket"),
        handshake().with("Upgrade", "h2c").and("Upgrade", ",WEBSOCKET\t,"),
        handshake().with("Connection", "keep-alive, Upgrade"),
        handshake().with("Connection", "keep-alive").and("Connection", "upgrade"),
        handshake().with("Connection", ",,\t, ,UPGRADE  ,"),
        handshake().with("Sec-WebSocket-Key", "  dGhlIHNhbXBsZSBub25jZQ==\t"),
        handshake().target("http://chat.example.com/ws?room=1"),
        handshake().target("http://CHAT.example.com/ws"),
        handshake().with("Host", "a_b.example").with("Origin", "https://a_b.example"),
        handshake().with("Host", "[::1]:3000").with("Origin", "http://[::1]:3000"),
        handshake().with("Host", "127.0.0.1:03000").with("Origin", "http://127.0.0.1:3000"),
        handshake().and("Content-Length", "0"),
        // An empty list of a client, not a malformed one.
        handshake().with("Sec-WebSocket-Protocol", ""),
        handshake().with("Sec-WebSocket-Protocol", "").and("Sec-WebSocket-Protocol", "\t"),
        handshake().with("Sec-WebSocket-Protocol", "").and("Sec-WebSocket-Protocol", "chat"),
        handshake().target("http://chat.example.com:80/ws"),
        handshake()
            .target("http://chat.example.com/ws")
            .with("Host", "chat.example.com:80")
            .with("Origin", "http://chat.example.com"),
        handshake().and("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        handshake()
            .and("Sec-WebSocket-Protocol", ",chat,, other,")
            .and("Sec-WebSocket-Protocol", "third"),
    ]
}

async fn inner(
    request: Request<impl Send>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    calls.fetch_add(1, Ordering::SeqCst);
    if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
        pending.on_upgrade(async |_| {});
    }
    Ok(Response::new(Body::from("inner")))
}

macro_rules! service {
    ($calls:expr) => {{
        let calls = Arc::clone(&$calls);
        let subprotocols = Subprotocols::list(["chat"]).unwrap();
        ServiceBuilder::new()
            .layer(
                GuardLayer::new(AllowOrigin::same_origin())
                    .subprotocols(subprotocols)
                    .reject_with(ProblemJson::new()),
            )
            .layer(ResponderLayer::new().reject_with(ProblemJson::new()))
            .service(service_fn(move |request| inner(request, Arc::clone(&calls))))
    }};
}

#[tokio::test]
async fn malformed_handshake_is_rejected_over_a_socket() {
    let calls = Arc::default();
    let address = serve(service!(calls)).await;
    for (raw, (status, code, headers)) in rejected() {
        let mut response = send(address, &raw.bytes()).await;
        let body = response.read_rest().await;
        assert_eq!(response.status, status, "{raw:?} {body}");
        assert!(
            raw.bytes().starts_with(b"HEAD") || body.contains(&format!(r#""code":"{code}""#)),
            "{raw:?} {body}"
        );
        for (name, element) in
            headers.iter().chain(&[("cache-control", "no-store"), ("connection", "close")])
        {
            assert!(response.has(name, element), "{name} {raw:?} {response:?}");
        }
        assert!(response.all("sec-websocket-accept").is_empty());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn malformed_handshake_is_rejected_in_memory() {
    let calls = Arc::default();
    let service = service!(calls);
    for (raw, (status, code, headers)) in rejected().into_iter().chain(rejected_in_memory()) {
        let response = service.clone().oneshot(raw.upgradable::<Body>()).await.unwrap();
        assert_eq!(response.status(), status, "{raw:?}");
        assert_eq!(
            response.extensions().get::<Rejection>().unwrap().kind().code(),
            code,
            "{raw:?}"
        );
        for (name, element) in
            headers.iter().chain(&[("cache-control", "no-store"), ("connection", "close")])
        {
            let line = response.headers()[*name].to_str().unwrap().to_ascii_lowercase();
            assert!(line.split(", ").any(|it| it.eq_ignore_ascii_case(element)), "{name} {raw:?}");
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn well_formed_handshake_is_accepted() {
    let calls = Arc::default();
    let service = service!(calls);
    let address = serve(service!(calls)).await;
    for raw in accepted() {
        let response = send(address, &raw.bytes()).await;
        assert_eq!(response.status, 101, "{raw:?} {response:?}");
        assert_eq!(response.all("sec-websocket-accept"), [ACCEPT], "{raw:?}");
        assert_eq!(response.all("upgrade"), ["websocket"], "{raw:?}");
        assert_eq!(response.all("connection"), ["Upgrade"], "{raw:?}");
        for absent in [
            "sec-websocket-version",
            "sec-websocket-extensions",
            "content-length",
            "transfer-encoding",
        ] {
            assert!(response.all(absent).is_empty(), "{absent} {raw:?}");
        }

        let response = service.clone().oneshot(raw.upgradable::<Body>()).await.unwrap();
        assert_eq!(response.status(), 101, "{raw:?}");
        assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2 * accepted().len());
}

#[tokio::test]
async fn key_with_trailing_bits_from_the_rfc_is_accepted() {
    let service = service!(Arc::default());
    let raw = handshake().with("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC==");
    let response = service.oneshot(raw.upgradable::<Body>()).await.unwrap();
    let key = headers_accept("AQIDBAUGBwgJCgsMDQ4PEC==");
    assert_eq!(response.headers()["sec-websocket-accept"], key);
}

/// The accept key by tungstenite.
fn headers_accept(key: &str) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())
}

#[test]
fn accept_key_equals_that_of_tungstenite() {
    for i in 0..10_000_u32 {
        let key = format!("{:022}==", i.wrapping_mul(2_654_435_761));
        let accept = tower_ws_guard::accept_key(key.as_bytes().try_into().unwrap());
        assert_eq!(accept, headers_accept(&key).as_bytes());
    }
}

#[tokio::test]
async fn bytes_after_a_rejected_handshake_are_not_a_second_request() {
    let calls = Arc::default();
    let policies = serve(service!(calls)).await;
    let counted = Arc::clone(&calls);
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .check(check_fn(|handshake| match handshake.headers().contains_key("x-bad") {
            true => Err(Rejection::custom("bad", http::StatusCode::IM_A_TEAPOT)),
            false => Ok(()),
        }))
        .token(TokenPolicy::bearer(StaticTokens::new([("token", ())]).unwrap()));
    let checked = guard.unwrap().layer(service_fn(move |request| inner(request, counted.clone())));
    let checked = serve(checked).await;
    for (address, raw) in [
        (policies, handshake().with("Sec-WebSocket-Version", "1777")),
        (policies, handshake().with("Sec-WebSocket-Version", "8")),
        (policies, handshake().with("Origin", "https://evil.example")),
        (policies, handshake().and("Content-Length", "42")),
        (policies, handshake().method("CONNECT")),
        (checked, handshake()),
        (checked, handshake().and("Authorization", "Bearer guess")),
        (checked, handshake().and("Authorization", "Bearer token").and("X-Bad", "1")),
    ] {
        let mut response =
            send(address, &raw.body("GET /internal HTTP/1.1\r\nHost: a\r\n\r\n").bytes()).await;
        assert!(response.status >= 400, "{response:?}");
        assert!(!response.read_rest().await.contains("HTTP/1.1"), "{response:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connection_is_closed_after_a_handler_declines() {
    let declining = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(
            Response::builder()
                .status(404)
                .header("connection", "keep-alive")
                .body(Body::from("declined"))
                .unwrap(),
        )
    });
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let smuggled = || handshake().body("GET /internal HTTP/1.1\r\nHost: a\r\n\r\n").bytes();
    for address in [
        serve(ServiceBuilder::new().layer(guard()).service(declining)).await,
        serve(ServiceBuilder::new().layer(ResponderLayer::new()).service(declining)).await,
    ] {
        let mut response = send(address, &smuggled()).await;
        assert_eq!((response.status, response.all("connection")), (404, vec!["close"]));
        assert_eq!(response.read_rest().await, "declined");
    }
    // So it is behind a response that the layer replaces.
    let completing = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::builder().status(101).body(Body::default()).unwrap())
    });
    let limited = guard().limit(ConnectionLimit::total(1).unwrap()).layer(completing);
    let mut response = send(serve(limited).await, &smuggled()).await;
    assert_eq!((response.status, response.all("connection")), (500, vec!["close"]));
    assert_eq!(response.read_rest().await, "");
    // The guard leaves an ordinary request alone, and a handshake too if configured so.
    for (service, raw) in [
        (ServiceBuilder::new().layer(guard()).service(declining), plain()),
        (
            ServiceBuilder::new().layer(guard().dangerous_keep_connection()).service(declining),
            handshake(),
        ),
    ] {
        assert_eq!(
            send(serve(service).await, &raw.bytes()).await.all("connection"),
            ["keep-alive"]
        );
    }
}

#[tokio::test]
async fn ordinary_request_passes_untouched() {
    let calls = Arc::default();
    let address = serve(service!(calls)).await;
    let cases = [
        plain(),
        plain().and("Origin", "https://evil.example"),
        plain()
            .and("Upgrade", "h2c")
            .and("Connection", "Upgrade, HTTP2-Settings")
            .and("HTTP2-Settings", "AAMAAABk"),
        plain().and("Sec-WebSocket-Protocol", "chat"),
        plain().and("Sec-WebSocket-Extensions", "permessage-deflate"),
        plain().method("POST").and("Content-Length", "5").body("hello"),
        plain().with("Connection", "upgrade"),
    ];
    for raw in &cases {
        assert_eq!(send(address, &raw.bytes()).await.status, 200, "{raw:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), cases.len());

    let seen = service_fn(async |request: Request<Body>| {
        Ok::<_, Infallible>(Response::new(format!("{request:?}")))
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(StaticTokens::new([("token", ())]).unwrap()))
        .unwrap();
    for raw in cases {
        let request = raw.and("Authorization", "Bearer token").request::<Body>();
        let before = format!("{request:?}");
        let response = ServiceBuilder::new()
            .layer(guard.clone())
            .service(seen)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(*response.body(), before);
    }
}

#[tokio::test]
async fn require_websocket_rejects_ordinary_requests() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let guard = GuardLayer::new(AllowOrigin::same_origin()).require_websocket();
    for raw in [plain(), plain().and("Upgrade", "h2c"), plain().method("POST")] {
        for response in [
            ServiceBuilder::new()
                .layer(guard.clone())
                .service(inner)
                .oneshot(raw.request())
                .await
                .unwrap(),
            ServiceBuilder::new()
                .layer(ResponderLayer::new().require_websocket())
                .service(inner)
                .oneshot(raw.request())
                .await
                .unwrap(),
        ] {
            assert_eq!(response.status(), 426);
            assert_eq!(response.headers()["upgrade"], "websocket");
            assert_eq!(response.headers()["connection"], "Upgrade");
            assert_eq!(response.headers()["sec-websocket-version"], "13");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }
    let response = ServiceBuilder::new()
        .layer(guard)
        .service(inner)
        .oneshot(handshake().request())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn keep_connection_leaves_out_connection_close() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let guard = GuardLayer::new(AllowOrigin::same_origin()).dangerous_keep_connection();
    let service = ServiceBuilder::new().layer(guard).service(inner);
    let rejected =
        service.clone().oneshot(handshake().with("Origin", "https://evil.example").request());
    assert!(!rejected.await.unwrap().headers().contains_key("connection"));
    let rejected = service.oneshot(handshake().with("Sec-WebSocket-Version", "8").request());
    assert_eq!(rejected.await.unwrap().headers()["connection"], "Upgrade");
}

#[tokio::test]
async fn check_sees_the_handshake_as_received() {
    let raw = handshake()
        .with("Host", "Chat.example.com:8080")
        .with("Origin", "https://chat.example.com:8080");
    let raw = raw
        .target("/ws?token=s3cr3t")
        .and("Sec-WebSocket-Protocol", "b, a")
        .and("Sec-WebSocket-Protocol", "c");
    for mut request in raw.over_both::<()>() {
        request.extensions_mut().insert("before");
        let (mut parts, ()) = request.into_parts();
        let came = parts.clone();
        let (transport, key) = match came.version {
            Version::HTTP_2 => (Transport::ExtendedConnect, None),
            _ => (Transport::Http1, Some(KEY.as_bytes())),
        };
        let mut handshake = Handshake::parse(&mut parts).unwrap();
        assert_eq!((handshake.method(), handshake.uri()), (&came.method, &came.uri));
        assert_eq!(handshake.headers(), &came.headers);
        assert_eq!(
            (handshake.transport(), handshake.key().as_ref().map(<[u8; 24]>::as_slice)),
            (transport, key)
        );
        let host = handshake.host();
        assert_eq!((host.name(), host.port()), ("Chat.example.com", Some(8080)));
        assert_eq!(host.to_string(), "Chat.example.com:8080");
        let Ok(RequestOrigin::Tuple(origin)) = handshake.origin() else {
            panic!("{:?}", handshake.origin())
        };
        assert_eq!(origin, Origin::parse(b"https://chat.example.com:8080").unwrap());
        assert!(handshake.subprotocols().eq(["b", "a", "c"]));
        assert_eq!(handshake.extensions().get(), Some(&"before"));
        handshake.extensions_mut().insert("behind");
        let head = RequestHead::new(&came).unwrap();
        for shown in [format!("{handshake:?}"), format!("{head:?}")] {
            assert!(
                shown.contains("/ws")
                    && shown.contains("Chat.example.com")
                    && !shown.contains("s3cr3t"),
                "{shown}"
            );
        }
        assert_eq!(parts.extensions.get(), Some(&"behind"));
    }
}

#[tokio::test]
async fn checks_run_in_order_and_the_first_failure_is_the_rejection() {
    let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"]).unwrap())
        .allow_host(AllowHost::list(["chat.example.com"]).unwrap())
        .check(|handshake: &mut Handshake<'_>| match handshake.headers().contains_key("x-bad") {
            true => Err(Rejection::custom("bad", http::StatusCode::IM_A_TEAPOT)),
            false => Ok(()),
        })
        .subprotocols(Subprotocols::list(["ours"]).unwrap())
        .token(TokenPolicy::bearer(StaticTokens::new([("token", ())]).unwrap()))
        .unwrap();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = ServiceBuilder::new().layer(guard).service(inner);

    // Each fault precedes the previous one in the order of the checks.
    let mut raw =
        handshake().and("Authorization", "Bearer token").with("Origin", "https://app.example.com");
    assert_eq!(service.clone().oneshot(raw.request()).await.unwrap().status(), 200);
    type Fault = fn(Raw) -> Raw;
    let faults: [(Fault, &str); 14] = [
        (|raw| raw.with("Authorization", "Bearer guess"), "token-invalid"),
        (|raw| raw.and("Authorization", "Bearer token"), "token-ambiguous"),
        (|raw| raw.without("Authorization"), "token-missing"),
        (|raw| raw.and("Sec-WebSocket-Protocol", "theirs"), "subprotocol-unsupported"),
        (|raw| raw.and("X-Bad", "1"), "bad"),
        (|raw| raw.with("Origin", "https://evil.example"), "origin-not-allowed"),
        (|raw| raw.with("Origin", "https://evil.example/"), "origin-invalid"),
        (|raw| raw.and("Origin", "https://app.example.com"), "origin-repeated"),
        (|raw| raw.with("Host", "elsewhere.example"), "host-not-allowed"),
        (|raw| raw.with("Sec-WebSocket-Protocol", "the irs"), "subprotocol-invalid"),
        (|raw| raw.and("Content-Length", "3"), "body-present"),
        (
            |raw| raw.with("Sec-WebSocket-Key", "x").with("Sec-WebSocket-Version", "8"),
            "key-invalid",
        ),
        (|raw| raw.without("Host").without("Connection"), "connection-missing"),
        (|raw| raw.without("Upgrade").version("HTTP/1.0").method("PUT"), "method-not-allowed"),
    ];
    for (fault, code) in faults {
        raw = fault(raw);
        let response = service.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.extensions().get::<Rejection>().unwrap().kind().code(), code);
    }
}

#[tokio::test]
async fn checks_combine_in_options_and_arcs_and_by_adding() {
    fn lacks(name: &'static str) -> impl Check + Clone + Send + Sync {
        check_fn(move |handshake| match handshake.headers().contains_key(name) {
            true => Err(Rejection::custom(name, http::StatusCode::IM_A_TEAPOT)),
            false => Ok(()),
        })
    }
    type Shared = Arc<dyn Check + Send + Sync>;
    let none: Option<Shared> = None;
    let either = handshake().and("a", "").and("b", "");
    for (check, raw, code) in [
        (Arc::new(lacks("a")) as Shared, &either, Some("a")),
        (Arc::new(Arc::new(lacks("a"))), &either, Some("a")),
        (Arc::new(Some(lacks("a"))), &either, Some("a")),
        (Arc::new(none), &either, None),
    ] {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let guard = GuardLayer::new(AllowOrigin::same_origin()).check(check);
        let response = guard.layer(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(
            response.extensions().get::<Rejection>().map(|rejection| rejection.kind().code()),
            code,
            "{raw:?}"
        );
    }
    // Added checks run in order.
    for (checks, raw, code) in [
        (["a", "b"], &either, Some("a")),
        (["b", "a"], &either, Some("b")),
        (["c", "b"], &either, Some("b")),
        (["a", "b"], &handshake(), None),
    ] {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let guard =
            checks.into_iter().fold(GuardLayer::new(AllowOrigin::same_origin()), |guard, name| {
                guard.check(lacks(name))
            });
        let response = guard.layer(inner).oneshot(raw.request()).await.unwrap();
        let code_there =
            response.extensions().get().map(|rejection: &Rejection| rejection.kind().code());
        assert_eq!(code_there, code, "{checks:?} {raw:?}");
    }
}
