//! What attackers did to other servers, done to this one: a test for each class of incident in `docs/threats.md`.

mod common;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::ws::WebSocketUpgrade, response::Response as AxumResponse, routing::any};
use common::{Answer, Body, HOST, ORIGIN, Raw, handshake, plain, send, serve, serve_axum};
use futures_util::future::join_all;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tower::{Layer, Service, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, CancellationToken, ConnectionLimit, GuardLayer, Rejection, RejectionKind,
    ResponderLayer, StaticTokens, Subprotocols, Token, TokenPolicy, TokenSource, Upgraded, Verified,
    token::ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
};

type Inner = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The victim, and what it was asked and given.
struct Victim {
    address: SocketAddr,
    /// How many requests came past the guard as ordinary ones.
    requests: Arc<AtomicUsize>,
    sockets: Arc<AtomicUsize>,
}

impl Victim {
    /// Sends back what it is sent.
    async fn behind<L>(guard: L) -> Self
    where
        L: Layer<Inner>,
        L::Service: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        <L::Service as Service<Request<Incoming>>>::Future: Send,
    {
        let (requests, sockets) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (asked, given) = (Arc::clone(&requests), Arc::clone(&sockets));
        let responder = ResponderLayer::on_upgraded(move |mut socket: Upgraded, _| {
            given.fetch_add(1, SeqCst);
            let ended = socket.validity().ended();
            async move {
                let (mut read, mut write) = tokio::io::split(&mut socket);
                tokio::select! {
                    _ = tokio::io::copy(&mut read, &mut write) => {}
                    () = ended => {}
                }
            }
        });
        let ordinary = service_fn(move |_: Request<Incoming>| {
            asked.fetch_add(1, SeqCst);
            async { Ok(Response::new(Body::from("ordinary"))) }
        });
        let inner = BoxCloneSyncService::new(responder.layer(ordinary));
        Self { address: serve(guard.layer(inner)).await, requests, sockets }
    }

    /// The status; and that nobody was let in if it is a refusal.
    async fn answer(&self, raw: &Raw) -> Answer {
        let before = self.sockets.load(SeqCst);
        let answer = send(self.address, &raw.bytes()).await;
        if answer.status != 101 {
            assert_eq!(self.sockets.load(SeqCst), before, "{raw:?}");
        }
        answer
    }

    async fn status(&self, raw: &Raw) -> u16 {
        self.answer(raw).await.status
    }
}

fn listed() -> AllowOrigin {
    AllowOrigin::list([ORIGIN]).unwrap()
}

fn from(origin: &str) -> Raw {
    // The browser sends the cookies of the victim's user along.
    handshake().with("Origin", origin).and("Cookie", "session=alice")
}

// Cross-site hijacking

#[tokio::test]
async fn webpack_dev_server_cve_2018_14732_checked_no_origin() {
    for guard in [GuardLayer::new(AllowOrigin::same_origin()), GuardLayer::new(listed())] {
        let victim = Victim::behind(guard).await;
        assert_eq!(victim.status(&from(ORIGIN)).await, 101);
        assert_eq!(victim.status(&from("https://evil.example")).await, 403);
    }
}

#[tokio::test]
async fn webpack_dev_server_cve_2025_30360_trusted_every_ip_address() {
    for guard in [GuardLayer::new(AllowOrigin::same_origin()), GuardLayer::new(listed())] {
        let victim = Victim::behind(guard).await;
        for origin in [
            "http://203.0.113.7",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "http://localhost",
            "http://127.evil.example",
        ] {
            assert_eq!(victim.status(&from(origin)).await, 403, "{origin}");
        }
    }
}

#[tokio::test]
async fn next_js_cve_2026_27977_let_in_null() {
    for origins in [AllowOrigin::same_origin(), listed(), listed().allow_missing()] {
        // A frame with `sandbox`, or a page from a file.
        assert_eq!(Victim::behind(GuardLayer::new(origins)).await.status(&from("null")).await, 403);
    }
}

#[tokio::test]
async fn a_proxy_dropped_the_origin() {
    // The backend took a missing one for a client that is no browser.
    for origins in [AllowOrigin::same_origin(), listed()] {
        let victim = Victim::behind(GuardLayer::new(origins)).await;
        assert_eq!(victim.status(&from("").without("Origin")).await, 403);
        assert_eq!(victim.status(&from("")).await, 403);
    }
}

#[tokio::test]
async fn phoenix_ghsa_p8f7_22gq_m7j9_compared_the_end_of_the_name() {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::list(["https://*.example.com"]).unwrap())).await;
    assert_eq!(victim.status(&from("https://a.b.example.com")).await, 101);
    for origin in ["https://evilexample.com", "https://example.com.evil.example", "https://evil.example#.example.com"] {
        assert_eq!(victim.status(&from(origin)).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn http_jl_compared_the_host_alone() {
    let victim = Victim::behind(GuardLayer::new(listed())).await;
    for origin in ["http://chat.example.com", "https://chat.example.com:8443", "ftp://chat.example.com"] {
        assert_eq!(victim.status(&from(origin)).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn an_empty_list_let_everybody_in() {
    let nobody = AllowOrigin::list(Vec::<String>::new()).unwrap();
    let victim = Victim::behind(GuardLayer::new(nobody)).await;
    for raw in [from("https://evil.example"), from(ORIGIN), handshake().without("Origin")] {
        assert_eq!(victim.status(&raw).await, 403);
    }
}

#[tokio::test]
async fn forwarded_headers_were_believed() {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let spoofed = from("https://evil.example")
        .and("X-Forwarded-Host", "evil.example")
        .and("X-Forwarded-Proto", "https")
        .and("X-Original-Host", "evil.example")
        .and("Forwarded", "host=evil.example;proto=https");
    assert_eq!(victim.status(&spoofed).await, 403);
}

#[tokio::test]
async fn marimo_cve_2026_39987_forgot_a_route() {
    async fn terminal(upgrade: WebSocketUpgrade) -> AxumResponse {
        upgrade.on_upgrade(async |socket| drop(socket))
    }
    // One layer for all routes, those too that are added later, and those that are none.
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let app = Router::new().route("/ws", any(terminal)).route("/terminal/ws", any(terminal)).fallback(terminal);
    let address = serve_axum(app.layer(guard)).await;
    for path in ["/ws", "/terminal/ws", "/proxied/hmr", "//terminal/ws", "/terminal/../terminal/ws"] {
        let raw = from("https://evil.example").target(path);
        assert_eq!(send(address, &raw.bytes()).await.status, 403, "{path}");
        assert_eq!(send(address, &from(ORIGIN).target(path).bytes()).await.status, 101, "{path}");
    }
}

// DNS rebinding

#[tokio::test]
async fn mcp_sdk_cve_2026_59950_checked_no_host() {
    // The attacker's name leads to this server by now, and its page is of one origin with it.
    let rebound = handshake().with("Host", "evil.example").with("Origin", "http://evil.example");
    let open = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    assert_eq!(open.status(&rebound).await, 101, "same origin is no defence");
    let guard = GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::list([HOST]).unwrap());
    let victim = Victim::behind(guard).await;
    assert_eq!(victim.status(&handshake()).await, 101);
    assert_eq!(victim.status(&rebound).await, 421);
    let list = Victim::behind(GuardLayer::new(listed())).await;
    assert_eq!(list.status(&rebound).await, 403);
}

// Tokens

#[tokio::test]
async fn tickets_were_read_from_logs_and_used_again() {
    let store = MemoryTicketStore::default();
    let issuer = TicketIssuer::new(store.clone());
    let source = TokenSource::query("ticket").unwrap();
    let policy = TokenPolicy::from_sources([source], TicketVerifier::<String, _>::new(store)).unwrap();
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin()).token(policy)).await;
    let ticket = issuer.issue(&"alice".to_owned()).await.unwrap();
    let raw = handshake().target(&format!("/ws?ticket={}", ticket.expose()));
    // Of another page it is not even looked at.
    assert_eq!(victim.status(&raw.clone().with("Origin", "https://evil.example")).await, 403);
    assert_eq!(victim.status(&raw).await, 101);
    assert_eq!(victim.status(&raw).await, 401);
    assert!(!format!("{ticket:?}").contains(ticket.expose()));
}

#[tokio::test]
async fn ws_echoed_the_first_subprotocol_that_was_a_token() {
    let sources = [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("auth.").unwrap()];
    let policy = TokenPolicy::from_sources(sources, StaticTokens::new([("s3cr3t", ())])).unwrap();
    let chat = Subprotocols::list(["chat"]).unwrap();
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin()).subprotocols(chat).token(policy)).await;
    for (offered, status, chosen) in [
        ("auth.s3cr3t, chat", 101, &["chat"][..]),
        ("bearer, s3cr3t", 101, &["bearer"]),
        ("auth.s3cr3t", 400, &[]),
        ("auth.guess, chat", 401, &[]),
    ] {
        let answer = victim.answer(&handshake().and("Sec-WebSocket-Protocol", offered)).await;
        assert_eq!((answer.status, answer.all("sec-websocket-protocol")), (status, chosen.to_vec()), "{offered}");
    }
}

#[tokio::test]
async fn a_verifier_that_failed_let_in() {
    for (error, status) in [
        (Rejection::verifier_failed("the database is away"), 503),
        (RejectionKind::TokenInvalid.into(), 401),
        (RejectionKind::TokenForbidden.into(), 403),
    ] {
        let verifier = move |_: Token| {
            let error = error.clone();
            async move { Err::<Verified<()>, _>(error) }
        };
        let guard = GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(verifier));
        let victim = Victim::behind(guard).await;
        assert_eq!(victim.status(&handshake().and("Authorization", "Bearer x")).await, status);
        assert_eq!(victim.status(&handshake()).await, 401);
    }
}

#[tokio::test]
async fn uptime_kuma_kept_sockets_open_after_a_logout() {
    let session = CancellationToken::new();
    let known = session.clone();
    let verifier = move |_: Token| {
        let known = known.clone();
        async move { Ok::<_, Rejection>(Verified::new(()).revoked_by(known)) }
    };
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(verifier));
    let victim = Victim::behind(guard).await;
    let raw = handshake().and("Authorization", "Bearer x");
    let mut socket = victim.answer(&raw).await;
    assert_eq!(socket.status, 101);
    session.cancel();
    assert_eq!(socket.read_rest().await, "");
    assert_eq!(victim.status(&raw).await, 401);
}

// Smuggling

/// What a proxy would let through if it took the connection for a tunnel.
const SMUGGLED: &str = "GET /internal HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

/// Nothing behind the refusal is read as a request.
async fn assert_refused_alone(raw: Raw, status: u16) {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let mut answer = send(victim.address, &[raw.bytes(), SMUGGLED.into()].concat()).await;
    assert_eq!((answer.status, answer.has("connection", "close")), (status, true), "{raw:?}");
    assert!(!answer.read_to_end_or_reset().await.contains("HTTP/1.1"), "{raw:?}");
    assert_eq!((victim.requests.load(SeqCst), victim.sockets.load(SeqCst)), (0, 0), "{raw:?}");
}

#[tokio::test]
async fn mod_proxy_wstunnel_cve_2019_17567_tunnelled_what_was_refused() {
    assert_refused_alone(handshake().with("Sec-WebSocket-Version", "1777"), 400).await;
    assert_refused_alone(handshake().with("Sec-WebSocket-Version", "12"), 426).await;
    assert_refused_alone(handshake().with("Upgrade", "websockets"), 426).await;
    assert_refused_alone(from("https://evil.example"), 403).await;
}

#[tokio::test]
async fn aiohttp_cve_2026_69243_switched_before_the_body_was_read() {
    assert_refused_alone(handshake().and("Content-Length", SMUGGLED.len().to_string()), 400).await;
    assert_refused_alone(handshake().and("Transfer-Encoding", "chunked").body("0\r\n\r\n"), 400).await;
}

#[tokio::test]
async fn netty_ghsa_4mp9_239f_g9hg_checked_old_versions_less() {
    for version in ["13", "8", "7"] {
        let raw = handshake().with("Sec-WebSocket-Version", version);
        assert_refused_alone(raw.clone().without("Upgrade"), 426).await;
        assert_refused_alone(raw.without("Connection"), 400).await;
    }
    assert_refused_alone(handshake().with("Sec-WebSocket-Version", "8"), 426).await;
}

#[tokio::test]
async fn go_cve_2026_94439_answered_connect_and_read_on() {
    assert_refused_alone(handshake().method("CONNECT").target("chat.example.com:443"), 405).await;
}

#[tokio::test]
async fn pingora_cve_2026_2833_read_requests_behind_an_upgrade() {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let mut socket = victim.answer(&handshake().body(SMUGGLED)).await;
    assert_eq!(socket.status, 101);
    // They are the first bytes of the stream, and nothing else.
    let mut echoed = socket.rest.clone();
    while echoed.len() < SMUGGLED.len() {
        assert!(timeout(Duration::from_secs(10), socket.stream.read_buf(&mut echoed)).await.unwrap().unwrap() > 0);
    }
    assert_eq!(echoed, SMUGGLED.as_bytes());
    assert_eq!(victim.requests.load(SeqCst), 0);
}

// Denial of service

/// The server works after all that; a handshake that takes its time is seen as a test that does not end.
async fn assert_survives(attacks: impl IntoIterator<Item = (Raw, u16)>) {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    for (raw, status) in attacks {
        assert_eq!(victim.status(&raw).await, status);
        assert_eq!(victim.status(&handshake()).await, 101);
    }
}

#[tokio::test]
async fn tungstenite_cve_2023_43669_and_ws_cve_2021_32640_took_long_for_long_headers() {
    let values = [format!("b{}x", " ".repeat(60_000)), "a,".repeat(30_000), "\t,".repeat(30_000), "a".repeat(60_000)];
    for value in values {
        assert_survives([
            // A name may be as long as it likes, but none is in the list.
            (handshake().with("Sec-WebSocket-Protocol", &value), 400),
            (handshake().with("Sec-WebSocket-Key", &value), 400),
            (handshake().with("Upgrade", &value), 426),
            (handshake().with("Connection", &value), 400),
            (handshake().with("Origin", &value), 403),
            (handshake().with("Cookie", &value), 101),
        ])
        .await;
    }
}

#[tokio::test]
async fn ws_cve_2024_37890_crashed_on_many_headers() {
    let many = |count| (0..count).fold(handshake(), |raw: Raw, i| raw.and(&format!("X-{i}"), "v"));
    let lines = |name: &str| (0..90).fold(handshake(), |raw: Raw, _| raw.and(name, "v"));
    assert_survives([
        (many(200), 431),
        (many(90), 101),
        (lines("Sec-WebSocket-Key"), 400),
        (lines("Sec-WebSocket-Version"), 400),
        (lines("Sec-WebSocket-Protocol"), 400),
        (lines("Origin"), 400),
    ])
    .await;
}

#[tokio::test]
async fn websocket_extensions_cve_2020_7662_took_long_for_an_open_quote() {
    let extending = |value: String| handshake().and("Sec-WebSocket-Extensions", value);
    let values = [
        format!("a; b=\"{}", "\\c".repeat(30_000)),
        "constructor".to_owned(),
        ",;__proto__".to_owned(),
        "permessage-deflate; server_max_window_bits=99999999999".to_owned(),
    ];
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    for value in values {
        // Nobody reads it, and none is answered.
        let answer = victim.answer(&extending(value)).await;
        assert_eq!((answer.status, answer.all("sec-websocket-extensions")), (101, vec![]));
    }
}

#[tokio::test]
async fn rust_websocket_cve_2022_35922_allocated_what_a_frame_declared() {
    // The only frames that are read here are those of a client that is told to go.
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())])))
        .accept_then_close(AcceptThenClose::new());
    let victim = Victim::behind(guard).await;
    for length in [u64::MAX, 1 << 63, 1 << 40] {
        let mut answer = send(victim.address, &handshake().bytes()).await;
        assert_eq!(answer.status, 101);
        let frame = [&b"\x82\xff"[..], &length.to_be_bytes(), b"mask"].concat();
        answer.stream.write_all(&frame).await.unwrap();
        assert!(answer.read_rest().await.ends_with("token-missing"), "{length}");
    }
    assert_eq!(victim.sockets.load(SeqCst), 0);
}

#[tokio::test]
async fn handshakes_came_faster_than_connections_went() {
    let limit = ConnectionLimit::total(10).unwrap();
    let hangs = async |_: Token| std::future::pending::<Result<Verified<()>, Rejection>>().await;
    let open = GuardLayer::new(AllowOrigin::same_origin()).limit(limit.clone());
    let slow = open.clone().token(TokenPolicy::bearer(hangs)).check_timeout(Duration::from_millis(50)).unwrap();
    let (open, slow) = (Victim::behind(open).await, Victim::behind(slow).await);
    let address = open.address;
    let sockets = join_all((0..100).map(|_| async move { send(address, &handshake().bytes()).await })).await;
    assert_eq!(sockets.iter().filter(|answer| answer.status == 101).count(), 10);
    assert!(sockets.iter().all(|answer| [101, 503].contains(&answer.status)));
    // Who is being verified holds no place, and not for long.
    assert_eq!(slow.status(&handshake().and("Authorization", "Bearer x")).await, 503);
    drop(sockets);
    timeout(Duration::from_secs(30), async {
        while limit.connections() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("their places are free again");
    assert_eq!(open.status(&handshake()).await, 101);
    assert_eq!(open.status(&plain()).await, 200);
}
