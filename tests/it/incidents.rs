//! Incidents of other servers, repeated against a guarded server: one test for each row of `docs/threats.md`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{OriginalUri, Request as AxumRequest, ws::WebSocketUpgrade},
    middleware::map_response,
    response::Response as AxumResponse,
    routing::any,
};
use futures_util::future::join_all;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use tower::{Layer, Service, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, CancellationToken, ConnectionLimit, Drain, GuardLayer,
    PlainText, Rejection, RejectionKind, RequestCheckLayer, ResponderLayer, StaticTokens,
    Subprotocols, Token, TokenPolicy, TokenSource, Upgraded, Verified,
    token::ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
};

use crate::common::{
    ACCEPT, Body, HOST, ORIGIN, Raw, RawResponse, eventually, handshake, plain, send, serve,
    serve_axum,
};

const TIMEOUT: Duration = Duration::from_secs(30);

type Inner = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The attacked server, with counters.
struct Victim {
    address: SocketAddr,
    /// Counts ordinary requests that passed the guard.
    requests: Arc<AtomicUsize>,
    sockets: Arc<AtomicUsize>,
}

impl Victim {
    /// Echoes what it receives.
    async fn behind<L>(guard: L) -> Self
    where
        L: Layer<Inner>,
        L::Service: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        <L::Service as Service<Request<Incoming>>>::Future: Send,
    {
        let (requests, sockets) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (asked, given) = (Arc::clone(&requests), Arc::clone(&sockets));
        let responder = ResponderLayer::on_upgraded(move |mut socket: Upgraded| {
            given.fetch_add(1, SeqCst);
            let ended = socket.ended();
            async move {
                let (mut read, mut write) = tokio::io::split(&mut socket);
                tokio::select! {
                    _ = tokio::io::copy(&mut read, &mut write) => {}
                    _ = ended => {}
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

    /// Sends a handshake; a rejected one must not open a socket.
    async fn response(&self, raw: &Raw) -> RawResponse {
        let before = self.sockets.load(SeqCst);
        let response = send(self.address, &raw.bytes()).await;
        if response.status != 101 {
            assert_eq!(self.sockets.load(SeqCst), before, "{raw:?}");
        }
        response
    }

    async fn status(&self, raw: &Raw) -> u16 {
        self.response(raw).await.status
    }
}

fn listed() -> AllowOrigin {
    AllowOrigin::list([ORIGIN]).unwrap()
}

fn from(origin: &str) -> Raw {
    // The browser adds the cookies of the user.
    handshake().with("Origin", origin).and("Cookie", "session=alice")
}

// Cross-site hijacking

#[tokio::test]
async fn webpack_dev_server_cve_2018_14732_and_others_checked_no_origin() {
    for (server, host, target) in [
        ("webpack-dev-server, CVE-2018-14732", "localhost:8080", "/sockjs-node/websocket"),
        ("Vite, CVE-2025-24010", "localhost:5173", "/?token=guess"),
        ("Vitest, CVE-2025-24964", "localhost:51204", "/__vitest_api__"),
        ("Storybook, CVE-2026-27148", "localhost:6006", "/storybook-server-channel"),
        ("Jenkins, CVE-2024-23898", "jenkins.example.com", "/cli/ws"),
        ("Gitpod, CVE-2023-0957", "gitpod.example.com", "/api/gitpod"),
    ] {
        let own = format!("http://{host}");
        for origins in [AllowOrigin::same_origin(), AllowOrigin::list([&own]).unwrap()] {
            let victim = Victim::behind(GuardLayer::new(origins)).await;
            let page = |origin: &str| from(origin).with("Host", host).target(target);
            assert_eq!(victim.status(&page(&own)).await, 101, "{server}");
            // Other origins: of the web, of the same site, and of the same machine.
            let sibling = format!("http://attacker.{host}");
            for origin in
                ["https://evil.example", &sibling, "http://localhost:3000", "http://127.0.0.1:8000"]
            {
                assert_eq!(victim.status(&page(origin)).await, 403, "{server}: {origin}");
            }
        }
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
async fn next_js_cve_2026_27977_accepted_origin_null() {
    for origins in [AllowOrigin::same_origin(), listed(), listed().allow_missing()] {
        // A sandboxed frame, or a page from a file.
        assert_eq!(Victim::behind(GuardLayer::new(origins)).await.status(&from("null")).await, 403);
    }
}

#[tokio::test]
async fn fastify_http_proxy_dropped_the_origin() {
    // The backend took a missing origin for a client that is not a browser.
    for origins in [AllowOrigin::same_origin(), listed()] {
        let victim = Victim::behind(GuardLayer::new(origins)).await;
        assert_eq!(victim.status(&from("").without("Origin")).await, 403);
        assert_eq!(victim.status(&from("")).await, 403);
    }
}

#[tokio::test]
async fn phoenix_ghsa_p8f7_22gq_m7j9_compared_the_suffix_of_the_host() {
    let victim =
        Victim::behind(GuardLayer::new(AllowOrigin::list(["https://*.example.com"]).unwrap()))
            .await;
    assert_eq!(victim.status(&from("https://a.b.example.com")).await, 101);
    for origin in [
        "https://evilexample.com",
        "https://example.com.evil.example",
        "https://evil.example#.example.com",
    ] {
        assert_eq!(victim.status(&from(origin)).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn http_jl_compared_only_the_host() {
    let victim = Victim::behind(GuardLayer::new(listed())).await;
    for origin in
        ["http://chat.example.com", "https://chat.example.com:8443", "ftp://chat.example.com"]
    {
        assert_eq!(victim.status(&from(origin)).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn empty_origin_list_accepted_every_origin() {
    let nobody = AllowOrigin::list(Vec::<String>::new()).unwrap();
    let victim = Victim::behind(GuardLayer::new(nobody)).await;
    for raw in [from("https://evil.example"), from(ORIGIN), handshake().without("Origin")] {
        assert_eq!(victim.status(&raw).await, 403);
    }
}

#[tokio::test]
async fn forwarded_headers_were_trusted() {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let spoofed = from("https://evil.example")
        .and("X-Forwarded-Host", "evil.example")
        .and("X-Forwarded-Proto", "https")
        .and("X-Original-Host", "evil.example")
        .and("Forwarded", "host=evil.example;proto=https");
    assert_eq!(victim.status(&spoofed).await, 403);
}

async fn accept(upgrade: WebSocketUpgrade) -> AxumResponse {
    upgrade.on_upgrade(async |socket| drop(socket))
}

#[tokio::test]
async fn marimo_cve_2026_39987_forgot_a_route() {
    // One layer covers all routes: later ones, and the fallback.
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let app =
        Router::new().route("/ws", any(accept)).route("/terminal/ws", any(accept)).fallback(accept);
    let address = serve_axum(app.layer(guard)).await;
    for path in ["/ws", "/terminal/ws", "/added/later", "//terminal/ws", "/terminal/../terminal/ws"]
    {
        let raw = from("https://evil.example").target(path);
        assert_eq!(send(address, &raw.bytes()).await.status, 403, "{path}");
        assert_eq!(send(address, &from(ORIGIN).target(path).bytes()).await.status, 101, "{path}");
    }
}

/// A server with its own socket at `/ws`; the fallback is another server, which checks nothing and counts its
/// requests.
async fn proxy(layered: impl FnOnce(Router) -> Router) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let upstream = {
        let asked = Arc::clone(&asked);
        async move |upgrade: WebSocketUpgrade| {
            asked.fetch_add(1, SeqCst);
            accept(upgrade).await
        }
    };
    (serve_axum(layered(Router::new().route("/ws", any(accept)).fallback(upstream))).await, asked)
}

#[tokio::test]
async fn webpack_dev_server_did_not_check_proxied_requests() {
    let guard =
        GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::list([HOST]).unwrap());
    let (address, asked) = proxy(|app| app.layer(guard)).await;
    for target in ["/ws", "/proxied/socket"] {
        for (host, origin, status) in [
            (HOST, "https://evil.example", 403),
            (HOST, "null", 403),
            ("evil.example", "https://evil.example", 421),
            (HOST, ORIGIN, 101),
        ] {
            let raw = from(origin).with("Host", host).target(target);
            assert_eq!(
                send(address, &raw.bytes()).await.status,
                status,
                "{target} {host} {origin}"
            );
        }
    }
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn jupyter_server_proxy_cve_2024_28179_authenticated_requests_but_not_sockets() {
    let policy = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let (address, asked) = proxy(|app| app.layer(guard)).await;
    for target in ["/ws", "/proxy/8888/socket"] {
        for (authorization, status) in
            [("", 401), ("Bearer guess", 401), ("Basic YWxpY2U6", 401), ("Bearer s3cr3t", 101)]
        {
            let raw = from(ORIGIN).and("Authorization", authorization).target(target);
            assert_eq!(
                send(address, &raw.bytes()).await.status,
                status,
                "{target} {authorization}"
            );
        }
    }
    assert_eq!(asked.load(SeqCst), 1);
}

/// The checks of ordinary requests did not apply to upgrades, so an upgrade could name any host to forward to.
#[tokio::test]
async fn next_js_cve_2026_44578_checked_upgrades_less_than_requests() {
    let asked = Arc::<AtomicUsize>::default();
    let forward = {
        let asked = Arc::clone(&asked);
        async move || asked.fetch_add(1, SeqCst).to_string()
    };
    let hosts = || AllowHost::list([HOST]).unwrap();
    let guard = GuardLayer::new(AllowOrigin::same_origin()).allow_host(hosts());
    let app = Router::new().fallback(forward).layer(guard).layer(RequestCheckLayer::hosts(hosts()));
    let address = serve_axum(app).await;
    for raw in [plain(), handshake()] {
        for (raw, status) in [
            (raw.clone().target("http://169.254.169.254/latest/meta-data/"), 400),
            (raw.clone().target("http://127.0.0.1:6379/"), 400),
            (raw.clone().target("http://chat.example.com@127.0.0.1/"), 400),
            (raw.clone().with("Host", "169.254.169.254"), 421),
            (raw.clone().target("http://127.0.0.1/").with("Host", "127.0.0.1"), 421),
        ] {
            assert_eq!(send(address, &raw.bytes()).await.status, status, "{raw:?}");
        }
        assert_eq!(asked.swap(0, SeqCst), 0);
        assert_eq!(send(address, &raw.bytes()).await.status, 200);
        assert_eq!(asked.swap(0, SeqCst), 1);
    }
}

#[tokio::test]
async fn cline_cve_2026_44211_cve_2026_59723_and_claude_code_cve_2025_52882_required_no_token() {
    // A server on the machine of the user, for its own page and for programs that send no origin.
    const LOCAL: &str = "127.0.0.1:3484";
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing())
        .allow_host(AllowHost::list([LOCAL]).unwrap())
        .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap()))
        .unwrap();
    let victim = Victim::behind(guard).await;
    let page = |origin: &str| from(origin).with("Host", LOCAL);
    let program = || page("").without("Origin");
    for (raw, status) in [
        (page("https://evil.example"), 403),
        (page("null"), 403),
        (page("http://127.0.0.1:8000"), 403),
        (page("http://evil.example:3484").with("Host", "evil.example:3484"), 421),
        (page("http://127.0.0.1:3484"), 401),
        (program(), 401),
        (program().and("Authorization", "Bearer guess"), 401),
        (program().and("Authorization", "Bearer s3cr3t"), 101),
    ] {
        assert_eq!(victim.status(&raw).await, status, "{raw:?}");
    }
}

// DNS rebinding

#[tokio::test]
async fn mcp_sdk_cve_2026_59950_checked_no_host() {
    // The name of the attacker resolves to this server, so its page has the same origin.
    let rebound = handshake().with("Host", "evil.example").with("Origin", "http://evil.example");
    let open = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    assert_eq!(open.status(&rebound).await, 101, "same origin is no defence");
    let guard =
        GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::list([HOST]).unwrap());
    let victim = Victim::behind(guard).await;
    assert_eq!(victim.status(&handshake()).await, 101);
    assert_eq!(victim.status(&rebound).await, 421);
    let list = Victim::behind(GuardLayer::new(listed())).await;
    assert_eq!(list.status(&rebound).await, 403);
}

/// Its requests are ordinary ones.
#[tokio::test]
async fn rmcp_cve_2026_42559_checked_no_host() {
    let guard = GuardLayer::new(AllowOrigin::same_origin()).allow_host(AllowHost::loopback());
    let requests = RequestCheckLayer::hosts(AllowHost::loopback());
    let victim = Victim::behind((requests, guard)).await;
    let call = plain()
        .method("POST")
        .target("/mcp")
        .and("Content-Type", "application/json")
        .and("Content-Length", "2")
        .body("{}");
    for (host, ordinary, upgrade) in [
        ("localhost:8000", 200, 101),
        ("127.0.0.1:8000", 200, 101),
        ("evil.example:8000", 421, 421),
        ("localhost.evil.example:8000", 421, 421),
        ("192.168.0.7:8000", 421, 421),
    ] {
        let same_origin =
            |raw: Raw| raw.with("Host", host).with("Origin", format!("http://{host}"));
        assert_eq!(victim.status(&same_origin(call.clone())).await, ordinary, "{host}");
        assert_eq!(victim.status(&same_origin(handshake())).await, upgrade, "{host}");
    }
    assert_eq!(victim.requests.load(SeqCst), 2);
    eventually(|| victim.sockets.load(SeqCst) == 2).await;
}

// Tokens

#[tokio::test]
async fn tickets_were_redeemed_twice() {
    let store = MemoryTicketStore::default();
    let issuer = TicketIssuer::new(store.clone());
    let source = TokenSource::query("ticket").unwrap();
    let policy =
        TokenPolicy::from_sources([source], TicketVerifier::<String, _>::new(store)).unwrap();
    let victim =
        Victim::behind(GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap()).await;
    let ticket = issuer.issue(&"alice".to_owned()).await.unwrap();
    let raw = handshake().target(&format!("/ws?ticket={}", ticket.expose()));
    // A handshake of another page does not redeem the ticket.
    assert_eq!(victim.status(&raw.clone().with("Origin", "https://evil.example")).await, 403);
    assert_eq!(victim.status(&raw).await, 101);
    assert_eq!(victim.status(&raw).await, 401);
}

/// A handler and a layer outside log all they can of a handshake. `tests/secrets.rs` covers the events of the crate.
#[tokio::test]
async fn zeppelin_cve_2026_44614_and_directus_ghsa_vw58_ph65_6rxp_logged_tokens() {
    let (log, logged) = std::sync::mpsc::channel();
    let store = MemoryTicketStore::default();
    let ticket = TicketIssuer::new(store.clone()).issue(&"alice".to_owned()).await.unwrap();
    log.send(format!("{ticket:?}")).unwrap();
    let source = TokenSource::query("access_token").unwrap();
    let policy =
        TokenPolicy::from_sources([source], TicketVerifier::<String, _>::new(store)).unwrap();
    let handler = {
        let log = log.clone();
        async move |upgrade: WebSocketUpgrade, uri: OriginalUri, request: AxumRequest| {
            log.send(format!("{request:?} {uri:?}")).unwrap();
            accept(upgrade).await
        }
    };
    let outside = map_response(move |response: AxumResponse| {
        let rejection = response.extensions().get::<Rejection>();
        log.send(format!(
            "{response:?} {rejection:?} {}",
            rejection.map(ToString::to_string).unwrap_or_default()
        ))
        .unwrap();
        std::future::ready(response)
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let address = serve_axum(Router::new().fallback(handler).layer(guard).layer(outside)).await;

    let raw = handshake().target(&format!("/ws?room=1&access_token={}", ticket.expose()));
    let foreign = raw.clone().with("Origin", "https://evil.example");
    for (raw, status) in [(&foreign, 403), (&raw, 101), (&raw, 401)] {
        assert_eq!(send(address, &raw.bytes()).await.status, status);
    }
    let log = logged.try_iter().collect::<String>();
    for part in ["Ticket", "uri: /ws?room=1", "OriginNotAllowed", "TokenInvalid"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains(ticket.expose()), "{log}");
}

#[tokio::test]
async fn gogs_ghsa_x9p5_w45c_7ffc_read_tokens_from_every_url() {
    let policy = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let victim =
        Victim::behind(GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap()).await;
    // Only the configured sources count.
    for name in ["token", "access_token", "authorization"] {
        let raw = handshake()
            .target(&format!("/ws?{name}=s3cr3t"))
            .and("Cookie", format!("{name}=s3cr3t"));
        assert_eq!(victim.status(&raw).await, 401, "{name}");
    }
    assert_eq!(victim.status(&handshake().and("Authorization", "Bearer s3cr3t")).await, 101);
}

#[tokio::test]
async fn ws_selected_the_token_as_subprotocol() {
    let sources =
        [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("auth.").unwrap()];
    let policy =
        TokenPolicy::from_sources(sources, StaticTokens::new([("s3cr3t", ())]).unwrap()).unwrap();
    let chat = Subprotocols::list(["chat"]).unwrap();
    let victim = Victim::behind(
        GuardLayer::new(AllowOrigin::same_origin()).subprotocols(chat).token(policy).unwrap(),
    )
    .await;
    for (offered, status, chosen) in [
        ("auth.s3cr3t, chat", 101, &["chat"][..]),
        ("bearer, s3cr3t", 101, &["bearer"]),
        ("auth.s3cr3t", 400, &[]),
        ("auth.guess, chat", 401, &[]),
    ] {
        let response = victim.response(&handshake().and("Sec-WebSocket-Protocol", offered)).await;
        assert_eq!(
            (response.status, response.all("sec-websocket-protocol")),
            (status, chosen.to_vec()),
            "{offered}"
        );
    }
}

#[tokio::test]
async fn failing_verifier_accepted_the_token() {
    for (error, status) in [
        (Rejection::verifier_failed("the database is away"), 503),
        (RejectionKind::TokenInvalid.into(), 401),
        (RejectionKind::TokenForbidden.into(), 403),
    ] {
        let verifier = move |_: Token| {
            let error = error.clone();
            async move { Err::<Verified<()>, _>(error) }
        };
        let guard = GuardLayer::new(AllowOrigin::same_origin())
            .token(TokenPolicy::bearer(verifier))
            .unwrap();
        let victim = Victim::behind(guard).await;
        assert_eq!(victim.status(&handshake().and("Authorization", "Bearer x")).await, status);
        assert_eq!(victim.status(&handshake()).await, 401);
    }
}

#[tokio::test]
async fn uptime_kuma_kept_sockets_open_after_logout() {
    let session = CancellationToken::new();
    let known = session.clone();
    let verifier = move |_: Token| {
        let known = known.clone();
        async move { Ok::<_, Rejection>(Verified::new(()).revoked_by(known)) }
    };
    let guard =
        GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(verifier)).unwrap();
    let victim = Victim::behind(guard).await;
    let raw = handshake().and("Authorization", "Bearer x");
    let mut socket = victim.response(&raw).await;
    assert_eq!(socket.status, 101);
    session.cancel();
    assert_eq!(socket.read_rest().await, "");
    assert_eq!(victim.status(&raw).await, 401);
}

// Smuggling

/// A request that a proxy would pass if it took the connection for a tunnel.
const SMUGGLED: &str = "GET /internal HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

/// Asserts that bytes after the rejection are not read as a request.
async fn assert_rejected_alone(raw: Raw, status: u16) {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let mut response = send(victim.address, &[raw.bytes(), SMUGGLED.into()].concat()).await;
    assert_eq!((response.status, response.has("connection", "close")), (status, true), "{raw:?}");
    assert!(!response.read_to_end_or_reset().await.contains("HTTP/1.1"), "{raw:?}");
    assert_eq!((victim.requests.load(SeqCst), victim.sockets.load(SeqCst)), (0, 0), "{raw:?}");
}

#[tokio::test]
async fn mod_proxy_wstunnel_cve_2019_17567_tunneled_rejected_handshakes() {
    assert_rejected_alone(handshake().with("Sec-WebSocket-Version", "1777"), 400).await;
    assert_rejected_alone(handshake().with("Sec-WebSocket-Version", "12"), 426).await;
    assert_rejected_alone(handshake().with("Upgrade", "websockets"), 426).await;
    assert_rejected_alone(from("https://evil.example"), 403).await;
}

#[tokio::test]
async fn aiohttp_cve_2026_69243_switched_before_the_body_was_read() {
    assert_rejected_alone(handshake().and("Content-Length", SMUGGLED.len().to_string()), 400).await;
    assert_rejected_alone(handshake().and("Transfer-Encoding", "chunked").body("0\r\n\r\n"), 400)
        .await;
}

#[tokio::test]
async fn netty_ghsa_4mp9_239f_g9hg_checked_old_versions_less() {
    for version in ["13", "8", "7"] {
        let raw = handshake().with("Sec-WebSocket-Version", version);
        assert_rejected_alone(raw.clone().without("Upgrade"), 426).await;
        assert_rejected_alone(raw.without("Connection"), 400).await;
    }
    assert_rejected_alone(handshake().with("Sec-WebSocket-Version", "8"), 426).await;
}

#[tokio::test]
async fn go_cve_2026_94439_read_on_after_accepting_connect() {
    assert_rejected_alone(handshake().method("CONNECT").target("chat.example.com:443"), 405).await;
}

#[tokio::test]
async fn pingora_cve_2026_2833_read_requests_after_an_upgrade() {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    let mut socket = victim.response(&handshake().body(SMUGGLED)).await;
    assert_eq!(socket.status, 101);
    // They are the first bytes of the stream.
    read_until(&mut socket, SMUGGLED.as_bytes()).await;
    assert_eq!(socket.rest, SMUGGLED.as_bytes());
    assert_eq!(victim.requests.load(SeqCst), 0);
}

/// The second scenario: a handler fetches a URL of the attacker, and passes on its 101.
#[tokio::test]
async fn websocket_smuggle_reflected_a_101() {
    let reflect = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::builder().status(101).body(Body::default()).unwrap())
    });
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let servers = [
        (serve(guard().layer(ResponderLayer::new().layer(reflect))).await, 500),
        (serve(guard().limit(ConnectionLimit::total(9).unwrap()).layer(reflect)).await, 500),
        (serve(guard().drain(&Drain::new()).layer(reflect)).await, 500),
        // A guard alone leaves the 101 to the handler.
        (serve(guard().layer(reflect)).await, 101),
    ];
    for (address, reflected) in servers {
        let attack = plain().target("/fetch?url=http://evil.example");
        for (raw, status) in [
            // This much is enough for the proxy.
            (attack.clone().and("Upgrade", "websocket"), 400),
            (attack.clone().and("Upgrade", "websocket").and("Connection", "Upgrade"), 400),
            (handshake().target("/fetch?url=http://evil.example"), reflected),
            // This is not an upgrade request, so no layer checks it.
            (attack, 101),
        ] {
            let raw = raw.body(SMUGGLED);
            let mut response = send(address, &raw.bytes()).await;
            assert_eq!(response.status, status, "{raw:?}");
            assert!(!response.read_to_end_or_reset().await.contains("HTTP/1.1"), "{raw:?}");
        }
    }
}

/// The proxy forwarded `Upgrade: h2c`, and the 101 of the server behind it opened a tunnel past all checks.
#[tokio::test]
async fn traefik_cve_2026_88008_forwarded_an_upgrade_to_h2c() {
    const SETTINGS: &str = "AAMAAABkAAQAAP__";
    let seen = service_fn(async |request: Request<Incoming>| {
        let values = ["upgrade", "connection"].map(|name| &request.headers()[name]);
        Ok::<_, Infallible>(Response::new(Body::from(format!("{values:?}"))))
    });
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    // What a proxy behind the guard would forward of a handshake that asks for both.
    let both = handshake()
        .with("Upgrade", "h2c, websocket")
        .with("Connection", "Upgrade, HTTP2-Settings")
        .and("HTTP2-Settings", SETTINGS);
    let mut response = send(serve(guard().layer(seen)).await, &both.bytes()).await;
    let seen = response.read_to_end_or_reset().await;
    assert!(seen.ends_with(r#"["websocket", "Upgrade"]"#), "{seen}");

    // No upgrade request, so handlers see it. But the server does not switch, and what comes next is checked.
    let victim = Victim::behind(guard()).await;
    let h2c = plain()
        .and("Upgrade", "h2c")
        .and("Connection", "Upgrade, HTTP2-Settings")
        .and("HTTP2-Settings", SETTINGS);
    let next = from("https://evil.example").bytes();
    let mut response = send(victim.address, &[h2c.bytes(), next].concat()).await;
    assert_eq!(response.status, 200);
    let rest = response.read_to_end_or_reset().await;
    assert!(rest.contains("HTTP/1.1 403 Forbidden"), "{rest}");
    assert_eq!((victim.requests.load(SeqCst), victim.sockets.load(SeqCst)), (1, 0));
}

// Denial of service

/// Asserts that the server still works afterwards; a handshake that hangs makes the test hang.
async fn assert_survives(attacks: impl IntoIterator<Item = (Raw, u16)>) {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    for (raw, status) in attacks {
        assert_eq!(victim.status(&raw).await, status);
        assert_eq!(victim.status(&handshake()).await, 101);
    }
}

#[tokio::test]
async fn tungstenite_cve_2023_43669_and_ws_cve_2021_32640_hung_on_long_headers() {
    let values = [
        format!("b{}x", " ".repeat(60_000)),
        "a,".repeat(30_000),
        "\t,".repeat(30_000),
        "a".repeat(60_000),
    ];
    for value in values {
        assert_survives([
            // A name may be of any length, but none is in the list.
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
async fn granian_cve_2026_42544_panicked_on_a_subprotocol_beyond_ascii() {
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let by_axum = Router::new().fallback(accept).layer(guard());
    let chosen = guard().subprotocols(Subprotocols::list(["chat"]).unwrap());
    for address in [
        Victim::behind(guard()).await.address,
        Victim::behind(chosen).await.address,
        serve_axum(by_axum).await,
    ] {
        for value in [&b"\x80\xff"[..], b"chat, \xe9", "chat, caf\u{e9}".as_bytes(), b"\xff"] {
            let raw = handshake().and("Sec-WebSocket-Protocol", value);
            assert_eq!(send(address, &raw.bytes()).await.status, 400, "{raw:?}");
            assert_eq!(send(address, &handshake().bytes()).await.status, 101);
        }
    }
}

/// Extensions are neither read nor selected.
async fn assert_extensions_do_nothing(values: impl IntoIterator<Item = String>) {
    let victim = Victim::behind(GuardLayer::new(AllowOrigin::same_origin())).await;
    for value in values {
        let response = victim.response(&handshake().and("Sec-WebSocket-Extensions", &value)).await;
        assert_eq!(
            (response.status, response.all("sec-websocket-extensions")),
            (101, vec![]),
            "{value}"
        );
    }
}

#[tokio::test]
async fn websocket_extensions_cve_2020_7662_hung_on_an_open_quote() {
    assert_extensions_do_nothing(
        ["\\c", "\\\\", "b"].map(|text| format!("a; b=\"{}", text.repeat(30_000))),
    )
    .await;
}

#[tokio::test]
async fn ws_ghsa_5v72_xg48_5rpm_crashed_on_prototype_names() {
    let values = [
        "constructor",
        "a;constructor",
        ",;__proto__",
        "permessage-deflate; server_max_window_bits=99999999999",
    ];
    assert_extensions_do_nothing(values.map(str::to_owned)).await;
}

#[tokio::test]
async fn rust_websocket_cve_2022_35922_allocated_the_declared_frame_length() {
    // `AcceptThenClose` is the only reader of frames here.
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap()))
        .unwrap()
        .accept_then_close(AcceptThenClose::new());
    let victim = Victim::behind(guard).await;
    for length in [u64::MAX, 1 << 63, 1 << 40] {
        let mut response = send(victim.address, &handshake().bytes()).await;
        assert_eq!(response.status, 101);
        let frame = [&b"\x82\xff"[..], &length.to_be_bytes(), b"mask"].concat();
        response.stream.write_all(&frame).await.unwrap();
        assert!(response.read_rest().await.ends_with("token-missing"), "{length}");
    }
    assert_eq!(victim.sockets.load(SeqCst), 0);
}

/// Reads until the wanted bytes have arrived.
async fn read_until(response: &mut RawResponse, wanted: &[u8]) {
    while !response.rest.ends_with(wanted) {
        let read = timeout(TIMEOUT, response.stream.read_buf(&mut response.rest))
            .await
            .expect("the rest in time")
            .unwrap();
        assert!(read > 0, "closed after {}", response.rest.escape_ascii());
    }
}

/// Three advisories: pipelined handshakes, failing connections, and targets with a fragment.
#[tokio::test]
async fn fastify_http_proxy_crashed_on_pipelines_resets_and_fragments() {
    let limit = ConnectionLimit::total(1).unwrap();
    let victim =
        Victim::behind(GuardLayer::new(AllowOrigin::same_origin()).limit(limit.clone())).await;

    let first = plain().body(str::from_utf8(&handshake().bytes()).unwrap());
    let mut response = send(victim.address, &first.bytes()).await;
    assert_eq!(response.status, 200);
    read_until(&mut response, b"\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&response.rest).contains(ACCEPT));
    response.stream.write_all(b"hello").await.unwrap();
    read_until(&mut response, b"hello").await;
    drop(response);
    eventually(|| limit.connections() == 0).await;

    let second = handshake().bytes();
    let mut response = victim.response(&handshake().body(str::from_utf8(&second).unwrap())).await;
    assert_eq!(response.status, 101);
    read_until(&mut response, &second).await;
    drop(response);
    eventually(|| limit.connections() == 0).await;
    assert_rejected_alone(from("https://evil.example").body(str::from_utf8(&second).unwrap()), 403)
        .await;

    let bytes = handshake().bytes();
    for (sent, is_read) in [(&bytes[..9], false), (&bytes[..], false), (&bytes[..], true)] {
        let mut stream = TcpStream::connect(victim.address).await.unwrap();
        // Closes the connection by a reset.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        stream.write_all(sent).await.unwrap();
        match is_read {
            true => assert_eq!(RawResponse::read(stream).await.status, 101),
            false => drop(stream),
        }
        // The server may notice the reset after the next handshake.
        timeout(TIMEOUT, async { while send(victim.address, &bytes).await.status != 101 {} })
            .await
            .expect("a free slot");
        eventually(|| limit.connections() == 0).await;
    }

    for (target, status) in [
        ("/ws#fragment", 101),
        ("/ws?a#b#c", 101),
        ("/#/../ws", 101),
        ("http://chat.example.com/ws#fragment", 101),
        ("#fragment", 400),
    ] {
        assert_eq!(victim.status(&handshake().target(target)).await, status, "{target}");
        eventually(|| limit.connections() == 0).await;
    }
}

#[tokio::test]
async fn handshakes_exhausted_the_connections() {
    let limit = ConnectionLimit::total(10).unwrap();
    let verifying = Arc::<Notify>::default();
    let hangs = {
        let verifying = Arc::clone(&verifying);
        move |_: Token| {
            verifying.notify_one();
            std::future::pending::<Result<Verified<()>, Rejection>>()
        }
    };
    let open =
        GuardLayer::new(AllowOrigin::same_origin()).limit(limit.clone()).reject_with(PlainText);
    let slow = open
        .clone()
        .token(TokenPolicy::bearer(hangs))
        .unwrap()
        .check_timeout(Duration::from_millis(500))
        .unwrap();
    let (open, slow) = (Victim::behind(open).await, Victim::behind(slow).await);
    let address = open.address;
    let mut responses =
        join_all((0..100).map(|_| async move { send(address, &handshake().bytes()).await })).await;
    assert_eq!(limit.connections(), 10);
    let rejected = responses.extract_if(.., |response| response.status != 101).collect::<Vec<_>>();
    assert_eq!((responses.len(), rejected.len()), (10, 90));
    for mut response in rejected {
        assert!(
            (response.status, response.read_rest().await.ends_with("(over-capacity)\n"))
                == (503, true)
        );
    }
    drop(responses);
    eventually(|| limit.connections() == 0).await;

    // A handshake in verification holds no permit, and not for long.
    let raw = handshake().and("Authorization", "Bearer x");
    let permits = async {
        verifying.notified().await;
        limit.connections()
    };
    let (mut rejected, permits) = tokio::join!(slow.response(&raw), permits);
    assert_eq!((rejected.status, permits), (503, 0));
    assert!(rejected.read_rest().await.ends_with("(verifier-timeout)\n"));

    assert_eq!(open.status(&handshake()).await, 101);
    assert_eq!(open.status(&plain()).await, 200);
}
