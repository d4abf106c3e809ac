//! The layers combined with axum, bare hyper, tower-http, and demanding inner services.

use std::{
    any::type_name,
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body as AxumBody,
    extract::{
        OriginalUri, Request as AxumRequest, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response as AxumResponse,
    routing::{MethodRouter, any, get},
};
use fastwebsockets::Frame;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::ORIGIN, request::Parts};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest, protocol::Role},
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, layer::util::Identity, service_fn,
    util::BoxCloneSyncService,
};
use tower_http::{
    compression::CompressionLayer,
    cors::{Any, CorsLayer},
    map_response_body::MapResponseBodyLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, GuardLayer, OriginCheckLayer, PendingUpgrade, PlainText,
    ProblemJson, Rejection, ResponderLayer, StaticTokens, Subprotocols, Token, TokenCheckLayer,
    TokenPolicy, TokenSource, Verified, VersionCheckLayer,
};

use crate::common::{self, Body, Raw, handshake, plain, send, serve, serve_axum};

const EVIL: &str = "https://evil.example";

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn tokens() -> TokenPolicy<&'static str> {
    TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]).unwrap())
}

fn code<B>(response: &Response<B>) -> Option<&'static str> {
    response.extensions().get::<Rejection>().map(|rejection| rejection.kind().code())
}

// axum

type App = BoxCloneSyncService<Request<AxumBody>, Response<AxumBody>, Infallible>;

/// Sends handshakes to the path and to another without a route: the responses there show which routes the layer
/// covers.
async fn check_app(name: &str, app: App, path: &str, elsewhere: [u16; 2]) {
    let unknown = format!("{path}/unknown");
    let cases = [
        (handshake().target(path), 200),
        (handshake().target(path).with("Origin", EVIL), 403),
        (handshake().target(path).with("Sec-WebSocket-Version", "8"), 426),
        (plain().target(path), 200),
        (plain().target(path).method("POST").with("Origin", EVIL), 200),
        (handshake().target(&unknown), elsewhere[0]),
        (handshake().target(&unknown).with("Origin", EVIL), elsewhere[1]),
        (plain().target(&unknown), 404),
    ];
    for (raw, status) in cases {
        let response = app.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), status, "{name} {raw:?}");
        assert_eq!(code(&response).is_some(), [403, 426].contains(&status), "{name} {raw:?}");
        if status == 200 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "state and extension", "{name} {raw:?}");
        }
    }
}

async fn greet(
    State(state): State<&'static str>,
    Extension(extension): Extension<&'static str>,
) -> String {
    format!("{state} and {extension}")
}

fn route() -> MethodRouter<&'static str> {
    any(greet)
}

fn finish(router: Router<&'static str>) -> Router {
    router.layer(Extension("extension")).with_state("state")
}

#[tokio::test]
async fn axum_takes_the_guard_at_every_level() {
    let inner = || Router::new().route("/ws", route());
    let apps = [
        ("Router::layer", finish(inner().layer(guard())), "/ws", [404, 403]),
        ("Router::route_layer", finish(inner().route_layer(guard())), "/ws", [404, 404]),
        (
            "MethodRouter::layer",
            finish(Router::new().route("/ws", route().layer(guard()))),
            "/ws",
            [404, 404],
        ),
        (
            "MethodRouter::route_layer",
            finish(Router::new().route("/ws", get(greet).post(greet).route_layer(guard()))),
            "/ws",
            [404, 404],
        ),
        (
            "outside nest",
            finish(Router::new().nest("/api", inner()).layer(guard())),
            "/api/ws",
            [404, 403],
        ),
        (
            "inside nest",
            finish(Router::new().nest("/api", inner().route_layer(guard()))),
            "/api/ws",
            [404, 404],
        ),
        ("merge", finish(Router::new().merge(inner().route_layer(guard()))), "/ws", [404, 404]),
        (
            "nested, with a state of its own",
            Router::<()>::new().nest("/api", finish(inner().route_layer(guard()))),
            "/api/ws",
            [404, 404],
        ),
        (
            "ServiceBuilder",
            finish(inner().layer(ServiceBuilder::new().layer(guard()))),
            "/ws",
            [404, 403],
        ),
    ];
    for (name, app, path, elsewhere) in apps {
        check_app(name, BoxCloneSyncService::new(app), path, elsewhere).await;
    }
    let around = BoxCloneSyncService::new(guard().layer(finish(inner())));
    check_app("around the router", around, "/ws", [404, 403]).await;
}

#[tokio::test]
async fn axum_serves_a_router_behind_a_guard() {
    let app = Router::new()
        .route("/ws", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(axum_echo)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = axum::ServiceExt::<AxumRequest>::into_make_service(guard().layer(app));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    assert_echoes(address, &[]).await;
    assert_eq!(rejection(address).await, 403);
}

#[tokio::test]
async fn claims_reach_the_axum_handler_but_the_credential_does_not() {
    async fn handler(
        Claims(user): Claims<&'static str>,
        State(state): State<&'static str>,
        uri: Uri,
        OriginalUri(original): OriginalUri,
    ) -> String {
        format!("{user} {state} {uri} {original}")
    }
    let verifier = StaticTokens::new([("s3cr3t", "alice")]).unwrap();
    let policy =
        TokenPolicy::from_sources([TokenSource::query("ticket").unwrap()], verifier).unwrap();
    let inner = || Router::new().route("/ws", any(handler));
    let token_check = TokenCheckLayer::new(policy.clone()).dangerous_without_origin_check();
    let apps = [
        Router::new()
            .nest("/api", inner().route_layer(guard().token(policy.clone()).unwrap()))
            .with_state("state"),
        Router::new().nest("/api", inner().route_layer(token_check)).with_state("state"),
        Router::new()
            .nest("/api", inner())
            .layer(guard().token(policy).unwrap())
            .with_state("state"),
    ];
    for app in apps {
        let accepted = app
            .clone()
            .oneshot(handshake().target("/api/ws?a=b&ticket=s3cr3t").request::<AxumBody>())
            .await
            .unwrap();
        let body = accepted.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "alice state /ws?a=b /api/ws?a=b");
        let rejected = app
            .clone()
            .oneshot(handshake().target("/api/ws?ticket=guess").request::<AxumBody>())
            .await
            .unwrap();
        assert_eq!(code(&rejected), Some("token-invalid"));
        // An ordinary request has no claims.
        let ordinary = app
            .oneshot(plain().target("/api/ws?ticket=s3cr3t").request::<AxumBody>())
            .await
            .unwrap();
        assert_eq!(code(&ordinary), Some("not-websocket"));
        assert_eq!(ordinary.headers().get("connection").unwrap(), "Upgrade");
    }
}

// Separate layers

type Stack = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Accepts, and responds with the user and the offer that it saw.
async fn accept(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::from("ordinary"));
    if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
        pending.on_upgrade(async |_| {});
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        response.headers_mut().insert("x-user", HeaderValue::from_static(user));
    }
    let seen = request
        .headers()
        .values()
        .any(|value| value.as_bytes().windows(6).any(|window| window == b"s3cr3t"));
    assert!(!seen, "{request:?}");
    Ok(response)
}

fn stacks() -> [(&'static str, Stack); 4] {
    let sources = [
        TokenSource::authorization(),
        TokenSource::pair("pair").unwrap(),
        TokenSource::subprotocol("token.").unwrap(),
    ];
    let token =
        TokenPolicy::from_sources(sources, StaticTokens::new([("s3cr3t", "alice")]).unwrap())
            .unwrap();
    let subprotocols = Subprotocols::list(["v2.chat", "chat"]).unwrap();
    let hosts = AllowHost::list([common::HOST]).unwrap();
    let origins = OriginCheckLayer::new(AllowOrigin::same_origin()).allow_host(hosts.clone());
    let guard = guard().allow_host(hosts);
    let inner = service_fn(accept);
    [
        (
            "guard",
            Stack::new(
                ServiceBuilder::new()
                    .layer(
                        guard
                            .clone()
                            .subprotocols(subprotocols.clone())
                            .token(token.clone())
                            .unwrap(),
                    )
                    .layer(ResponderLayer::new())
                    .service(inner),
            ),
        ),
        (
            "guard and a responder that chooses",
            Stack::new(
                ServiceBuilder::new()
                    .layer(guard.clone().token(token.clone()).unwrap())
                    .layer(ResponderLayer::new().subprotocols(subprotocols.clone()))
                    .service(inner),
            ),
        ),
        (
            "separate layers",
            Stack::new(
                ServiceBuilder::new()
                    .layer(VersionCheckLayer::new())
                    .layer(origins)
                    .layer(TokenCheckLayer::new(token.clone()))
                    .layer(ResponderLayer::new().subprotocols(subprotocols.clone()))
                    .service(inner),
            ),
        ),
        (
            "guard behind a token check",
            Stack::new(
                ServiceBuilder::new()
                    .layer(TokenCheckLayer::new(token))
                    .layer(guard.subprotocols(subprotocols))
                    .layer(ResponderLayer::new())
                    .service(inner),
            ),
        ),
    ]
}

#[tokio::test]
async fn separate_layers_decide_like_the_guard() {
    let bearer = || handshake().and("Authorization", "Bearer s3cr3t");
    let offering = |offer: &str| handshake().and("Sec-WebSocket-Protocol", offer);
    // The code of the rejection, or the selected subprotocol.
    let cases: [(Raw, Result<Option<&str>, &str>); 25] = [
        (bearer(), Ok(None)),
        (bearer().and("Sec-WebSocket-Protocol", "chat"), Ok(Some("chat"))),
        (
            bearer()
                .and("Sec-WebSocket-Protocol", "chat, x")
                .and("Sec-WebSocket-Protocol", "v2.chat"),
            Ok(Some("v2.chat")),
        ),
        (bearer().and("Sec-WebSocket-Protocol", "other"), Err("subprotocol-unsupported")),
        (offering("chat, token.s3cr3t"), Ok(Some("chat"))),
        (offering("token.s3cr3t, chat, v2.chat"), Ok(Some("v2.chat"))),
        (offering("token.s3cr3t").and("Sec-WebSocket-Protocol", "chat"), Ok(Some("chat"))),
        (offering("pair, s3cr3t"), Ok(Some("pair"))),
        (offering("pair").and("Sec-WebSocket-Protocol", "s3cr3t"), Ok(Some("pair"))),
        (offering("pair, s3cr3t, chat"), Ok(Some("chat"))),
        (offering("other, pair, s3cr3t"), Ok(Some("pair"))),
        (offering("token.s3cr3t"), Err("subprotocol-unsupported")),
        (offering("other, token.s3cr3t"), Err("subprotocol-unsupported")),
        (offering("chat, token.guess"), Err("token-invalid")),
        (offering("pair, guess"), Err("token-invalid")),
        (offering("pair"), Err("token-missing")),
        (offering("chat"), Err("token-missing")),
        (handshake(), Err("token-missing")),
        (bearer().and("Sec-WebSocket-Protocol", "pair, s3cr3t"), Err("token-ambiguous")),
        (offering("pair, s3cr3t, token.s3cr3t"), Err("token-ambiguous")),
        (bearer().with("Origin", EVIL), Err("origin-not-allowed")),
        (bearer().without("Origin"), Err("origin-missing")),
        (
            bearer().with("Host", "a.example").with("Origin", "https://a.example"),
            Err("host-not-allowed"),
        ),
        (bearer().with("Sec-WebSocket-Version", "8"), Err("version-unsupported")),
        (bearer().method("POST"), Err("method-not-allowed")),
    ];
    for (name, stack) in stacks() {
        for (raw, expected) in &cases {
            let response = stack.clone().oneshot(raw.upgradable()).await.unwrap();
            let headers = response.headers();
            match expected {
                Ok(subprotocol) => {
                    assert_eq!(response.status(), 101, "{name} {raw:?} {:?}", code(&response));
                    let named =
                        headers.get_all("sec-websocket-protocol").iter().collect::<Vec<_>>();
                    assert_eq!(named, Vec::from_iter(subprotocol), "{name} {raw:?}");
                    assert_eq!(headers["x-user"], "alice", "{name} {raw:?}");
                    assert_eq!(headers["sec-websocket-accept"], common::ACCEPT);
                }
                Err(expected) => {
                    assert_eq!(code(&response), Some(*expected), "{name} {raw:?}");
                    assert!(
                        response.status().is_client_error()
                            && !headers.contains_key("sec-websocket-protocol")
                    );
                }
            }
        }
        let ordinary = stack.oneshot(plain().request()).await.unwrap();
        assert_eq!(ordinary.into_body().collect().await.unwrap().to_bytes(), "ordinary", "{name}");
    }
}

// Real connections

async fn echo(mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) {
    while let Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) = socket.next().await {
        socket.send(message).await.ok();
    }
}

async fn echo_raw(socket: impl AsyncRead + AsyncWrite + Unpin) {
    echo(WebSocketStream::from_raw_socket(socket, Role::Server, None).await).await;
}

async fn axum_echo(mut socket: axum::extract::ws::WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        socket.send(message).await.ok();
    }
}

type Client = (WebSocketStream<TcpStream>, Response<Option<Vec<u8>>>);

/// A handshake by tungstenite from a page of this origin.
async fn connect(
    address: SocketAddr,
    origin: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<Client, WsError> {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    client_async(request, TcpStream::connect(address).await.unwrap()).await
}

async fn assert_echoes(
    address: SocketAddr,
    headers: &[(&'static str, &'static str)],
) -> Response<Option<Vec<u8>>> {
    let (mut socket, response) =
        connect(address, &format!("http://{address}"), headers).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    response
}

async fn rejection(address: SocketAddr) -> u16 {
    match connect(address, EVIL, &[]).await {
        Err(WsError::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

async fn serve_bare<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

fn ordinary() -> Response<Body> {
    Response::new(Body::from("ordinary"))
}

#[tokio::test]
async fn hyper_handshakers_work_behind_the_guard() {
    let hyper_tungstenite = service_fn(async |request: Request<Incoming>| {
        if !hyper_tungstenite::is_upgrade_request(&request) {
            return Ok::<_, Infallible>(ordinary());
        }
        let (response, socket) = hyper_tungstenite::upgrade(request, None).unwrap();
        tokio::spawn(async { echo(socket.await.unwrap()).await });
        Ok(response)
    });
    let fastwebsockets = service_fn(async |request: Request<Incoming>| {
        if !fastwebsockets::upgrade::is_upgrade_request(&request) {
            return Ok::<_, Infallible>(ordinary());
        }
        let (response, socket) = fastwebsockets::upgrade::upgrade(request).unwrap();
        tokio::spawn(async {
            let mut socket = socket.await.unwrap();
            while let Ok(frame) = socket.read_frame().await {
                socket.write_frame(Frame::new(true, frame.opcode, None, frame.payload)).await.ok();
            }
        });
        Ok(response.map(|_| Body::default()))
    });
    let decides = service_fn(async |request: Request<Incoming>| {
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            pending.on_upgrade(echo_raw);
        }
        Ok::<_, Infallible>(ordinary())
    });
    let never = service_fn(async |request: Request<Incoming>| {
        assert!(!request.headers().contains_key("upgrade"));
        Ok::<_, Infallible>(ordinary())
    });
    let addresses = [
        ("hyper-tungstenite", serve_bare(guard().layer(hyper_tungstenite)).await),
        ("fastwebsockets", serve_bare(guard().layer(fastwebsockets)).await),
        ("PendingUpgrade", serve_bare(guard().layer(ResponderLayer::new().layer(decides))).await),
        (
            "on_upgraded",
            serve_bare(guard().layer(ResponderLayer::on_upgraded(echo_raw).layer(never))).await,
        ),
    ];
    for (name, address) in addresses {
        assert_echoes(address, &[]).await;
        assert_eq!(rejection(address).await, 403, "{name}");
        let mut received = send(address, &plain().and("Connection", "close").bytes()).await;
        assert_eq!((received.status, &*received.read_rest().await), (200, "ordinary"), "{name}");
    }
}

// tower-http

/// The client asks for compression.
const GZIP: (&str, &str) = ("accept-encoding", "gzip");

/// All layers of tower-http that are tested, over a body of axum and returning one.
macro_rules! tower_http {
    () => {
        ServiceBuilder::new()
            .layer(MapResponseBodyLayer::new(AxumBody::new))
            .layer(TraceLayer::new_for_http())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_secs(60),
            ))
            .layer(CorsLayer::new().allow_origin(Any).allow_methods(Any))
            .layer(CompressionLayer::new())
    };
}

/// An echo endpoint inside of `$inside`, behind the guard and `$between`.
macro_rules! endpoint {
    ($outside:expr, $between:expr, $inside:expr, $handler:expr) => {{
        let handler = any($handler);
        let layers = ServiceBuilder::new()
            .layer($outside)
            .layer(guard().reject_with(PlainText))
            .layer($between)
            .layer($inside);
        serve_axum(Router::new().route("/ws", handler.layer(layers))).await
    }};
}

/// Long enough to be compressed.
fn long() -> AxumResponse {
    Response::new("tower ".repeat(100).into())
}

async fn by_axum(upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>) -> AxumResponse {
    upgrade.map_or_else(|_| long(), |upgrade| upgrade.on_upgrade(axum_echo))
}

async fn by_pending(pending: Option<PendingUpgrade>) -> AxumResponse {
    if let Some(pending) = pending {
        pending.on_upgrade(echo_raw);
    }
    long()
}

#[tokio::test]
async fn tower_http_layers_work_outside_and_inside_the_guard() {
    let none = Identity::new;
    let responder = ResponderLayer::new;
    let spawning = || ResponderLayer::on_upgraded(echo_raw);
    let around = [
        ("axum", endpoint!(tower_http!(), none(), none(), by_axum)),
        ("PendingUpgrade", endpoint!(tower_http!(), responder(), none(), by_pending)),
        ("on_upgraded", endpoint!(tower_http!(), spawning(), none(), async || long())),
    ];
    let inside = [
        ("axum", endpoint!(none(), none(), tower_http!(), by_axum)),
        ("PendingUpgrade", endpoint!(none(), responder(), tower_http!(), by_pending)),
        ("PendingUpgrade, inside both", endpoint!(none(), tower_http!(), responder(), by_pending)),
        ("on_upgraded", endpoint!(none(), spawning(), tower_http!(), async || long())),
        ("on_upgraded, inside both", endpoint!(none(), tower_http!(), spawning(), async || long())),
    ];
    for ((name, address), is_around) in
        around.map(|it| (it, true)).into_iter().chain(inside.map(|it| (it, false)))
    {
        let accepted = assert_echoes(address, &[GZIP]).await;
        let through_cors = is_around || !name.starts_with("on_upgraded") || name.ends_with("both");
        assert_eq!(
            accepted.headers().contains_key("access-control-allow-origin"),
            through_cors,
            "{name}"
        );
        assert_eq!(rejection(address).await, 403, "{name}");

        let evil = handshake().with("Origin", EVIL).and(GZIP.0, GZIP.1);
        let rejected = send(address, &evil.bytes()).await;
        assert_eq!(rejected.status, 403, "{name}");
        assert!(
            rejected.has("connection", "close") && rejected.has("cache-control", "no-store"),
            "{name}"
        );
        assert_eq!(rejected.has("access-control-allow-origin", "*"), is_around, "{name}");
        assert_eq!(rejected.has("content-encoding", "gzip"), is_around, "{name}");

        let ordinary =
            send(address, &plain().and("Origin", EVIL).and(GZIP.0, GZIP.1).bytes()).await;
        assert_eq!(ordinary.status, 200, "{name}");
        assert!(
            ordinary.has("access-control-allow-origin", "*")
                && ordinary.has("content-encoding", "gzip"),
            "{name}"
        );

        let preflight = plain()
            .method("OPTIONS")
            .and("Origin", EVIL)
            .and("Access-Control-Request-Method", "PUT");
        let preflight = send(address, &preflight.bytes()).await;
        assert!(
            preflight.status == 200 && preflight.has("access-control-allow-methods", "*"),
            "{name}"
        );
    }
}

/// `CompressionBody` implements `Default` but not `From<String>`; an adapter of tower-http gives the guard a body that
/// does.
#[tokio::test]
async fn response_body_type_is_adapted_outside_the_inner_service() {
    let compressed = || {
        ServiceBuilder::new().layer(CompressionLayer::new()).service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::from("ordinary")))
        })
    };
    let evil = || handshake().with("Origin", EVIL).request();

    let empty = guard().layer(compressed());
    assert_eq!(empty.clone().oneshot(evil()).await.unwrap().status(), 403);
    for raw in [handshake(), plain()] {
        assert_eq!(empty.clone().oneshot(raw.request()).await.unwrap().status(), 200);
    }

    let adapted = ServiceBuilder::new()
        .layer(guard().reject_with(ProblemJson::new()))
        .layer(MapResponseBodyLayer::new(AxumBody::new))
        .service(compressed());
    let rejected = adapted
        .clone()
        .oneshot(evil())
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert!(
        rejected.starts_with(b"{") && rejected.ends_with(br#""code":"origin-not-allowed"}"#),
        "{rejected:?}"
    );
    for raw in [handshake(), plain()] {
        let passed = adapted.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(passed.into_body().collect().await.unwrap().to_bytes(), "ordinary");
    }
}

#[tokio::test]
async fn tower_http_timeout_ends_a_hanging_verifier() {
    let verifier = async |_: Token| std::future::pending::<Result<Verified<()>, Rejection>>().await;
    let within = |duration| {
        ServiceBuilder::new()
            .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, duration))
            .layer(guard().token(TokenPolicy::bearer(verifier)).unwrap())
            .service_fn(async |request: Request<Incoming>| {
                assert_eq!(request.headers().get("upgrade"), None);
                Ok::<_, Infallible>(Response::new(Body::default()))
            })
    };
    let address = serve(within(Duration::from_millis(10))).await;
    assert_eq!(
        send(address, &handshake().and("Authorization", "Bearer x").bytes()).await.status,
        504
    );
    let address = serve(within(Duration::from_secs(60))).await;
    assert_eq!(send(address, &handshake().bytes()).await.status, 401);
    assert_eq!(send(address, &plain().bytes()).await.status, 200);
}

// Inner services

/// Calls `$check` with every layer; `without token` leaves out those with a token check.
macro_rules! each_layer {
    (without token: $check:path) => {
        $check(guard());
        $check(VersionCheckLayer::new());
        $check(OriginCheckLayer::new(AllowOrigin::same_origin()));
        $check(ResponderLayer::new());
    };
    ($check:path) => {
        each_layer!(without token: $check);
        $check(guard().token(tokens()).unwrap());
        $check(TokenCheckLayer::new(tokens()));
    };
}

fn valid() -> Raw {
    handshake().and("Authorization", "Bearer s3cr3t")
}

/// Panics if this very instance was not ready when called.
struct Particular {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Particular {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<()>> for Particular {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            drop(pending.accept());
        }
        ready(Ok(Response::new(())))
    }
}

/// Returns the number of calls of the inner service for three handshakes, one of them malformed, and two ordinary
/// requests.
async fn calls_of<L>(layer: L) -> usize
where
    L: Layer<Particular>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let calls = Arc::<AtomicUsize>::default();
    let mut service = layer.layer(Particular { ready: false, calls: Arc::clone(&calls) });
    for raw in [valid(), plain(), valid().with("Sec-WebSocket-Key", "x"), valid(), plain()] {
        let response = service.ready().await.unwrap().call(raw.upgradable()).await.unwrap();
        assert!(code(&response).is_none_or(|code| code == "key-invalid"), "{:?}", code(&response));
    }
    let sequential = calls.load(Ordering::SeqCst);

    // All are called before the first is polled.
    let mut pending = Vec::new();
    for raw in [valid(), plain(), valid().with("Sec-WebSocket-Key", "x"), valid(), plain()] {
        pending.push(service.ready().await.unwrap().call(raw.upgradable()));
    }
    futures_util::future::join_all(pending).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2 * sequential, "{}", type_name::<L>());
    sequential
}

#[tokio::test]
async fn inner_service_is_called_on_the_instance_that_is_ready() {
    // A verifier that waits delays the call of the inner service.
    let slow = TokenPolicy::bearer(async |_: Token| {
        tokio::task::yield_now().await;
        Ok::<_, Rejection>(Verified::new(()))
    });
    assert_eq!(calls_of(guard()).await, 4);
    assert_eq!(calls_of(guard().token(tokens()).unwrap()).await, 4);
    assert_eq!(calls_of(VersionCheckLayer::new()).await, 4);
    assert_eq!(calls_of(OriginCheckLayer::new(AllowOrigin::same_origin())).await, 4);
    assert_eq!(calls_of(TokenCheckLayer::new(tokens())).await, 4);
    assert_eq!(calls_of(TokenCheckLayer::new(slow)).await, 4);
    assert_eq!(calls_of(ResponderLayer::new()).await, 4);
    assert_eq!(calls_of(ResponderLayer::on_upgraded(async |_| {})).await, 2);
}

#[derive(Clone, Debug, PartialEq)]
struct Broken(u8);

/// Not ready at first, then broken.
#[derive(Clone, Default)]
struct Unready(bool);

impl Service<Request<()>> for Unready {
    type Response = Response<()>;
    type Error = Broken;
    type Future = Ready<Result<Response<()>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if std::mem::replace(&mut self.0, true) {
            Poll::Ready(Err(Broken(1)))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        unreachable!("it is never ready")
    }
}

fn passes_readiness_on<L>(layer: L)
where
    L: Layer<Unready>,
    L::Service: Service<Request<()>, Error = Broken>,
{
    let mut service = layer.layer(Unready::default());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_pending(), "{}", type_name::<L>());
    assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Err(Broken(1))), "{}", type_name::<L>());
}

#[test]
fn inner_service_readiness_and_its_error_are_passed_on() {
    each_layer!(passes_readiness_on);
    passes_readiness_on(ResponderLayer::on_upgraded(async |_| {}));
}

#[derive(Clone)]
struct Breaks;

impl Service<Request<()>> for Breaks {
    type Response = Response<()>;
    type Error = Broken;
    type Future = Ready<Result<Response<()>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        // The error is passed on whether or not the upgrade was accepted.
        let upgrade = request.extensions().get::<PendingUpgrade>().and_then(PendingUpgrade::accept);
        ready(Err(Broken(if upgrade.is_some() { 3 } else { 2 })))
    }
}

fn passes_errors_on<L>(layer: L)
where
    L: Layer<Breaks>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Broken> + Clone,
{
    let service = layer.layer(Breaks);
    let outcome = |raw: Raw| {
        let response =
            service.clone().oneshot(raw.upgradable()).now_or_never().expect("nothing to wait for");
        response.map(|response| code(&response))
    };
    let accepted = if type_name::<L>().contains("Responder") { Broken(3) } else { Broken(2) };
    assert_eq!(outcome(valid()), Err(accepted), "{}", type_name::<L>());
    assert_eq!(outcome(plain()), Err(Broken(2)), "{}", type_name::<L>());
    assert_eq!(
        outcome(valid().with("Upgrade", "websockets")),
        Ok(Some("upgrade-missing")),
        "{}",
        type_name::<L>()
    );
}

#[test]
fn inner_service_errors_are_passed_on() {
    each_layer!(passes_errors_on);
}

/// Implements neither `Default` nor any `From`.
#[derive(Debug, PartialEq)]
enum Page {
    Rejection(&'static str),
    Response(usize),
}

struct Upload(usize);

fn response(rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<Page> {
    prepared.map(|()| Page::Rejection(rejection.kind().code()))
}

#[tokio::test]
async fn rejection_closure_responds_with_a_custom_body_type() {
    async fn check<L>(layer: L)
    where
        L: Layer<BoxCloneSyncService<Request<Upload>, Response<Page>, Infallible>>,
        L::Service: Service<Request<Upload>, Response = Response<Page>, Error = Infallible> + Clone,
    {
        let inner = service_fn(async |request: Request<Upload>| {
            Ok(Response::new(Page::Response(request.into_body().0)))
        });
        let service = layer.layer(BoxCloneSyncService::new(inner));
        let cases = [
            (valid(), 200, Page::Response(7)),
            (plain().method("POST"), 200, Page::Response(7)),
            (valid().with("Connection", "close"), 400, Page::Rejection("connection-missing")),
        ];
        for (raw, status, page) in cases {
            let response =
                service.clone().oneshot(raw.request().map(|()| Upload(7))).await.unwrap();
            assert_eq!(response.status(), status, "{} {raw:?}", type_name::<L>());
            assert_eq!(*response.body(), page, "{} {raw:?}", type_name::<L>());
        }
    }
    let origins = AllowOrigin::same_origin;
    check(guard().reject_with(response)).await;
    check(guard().token(tokens()).unwrap().reject_with(response)).await;
    check(VersionCheckLayer::new().reject_with(response)).await;
    check(OriginCheckLayer::new(origins()).reject_with(response)).await;
    check(TokenCheckLayer::new(tokens()).reject_with(response)).await;
}

/// Not `Send`, like its future and its body.
#[derive(Clone)]
struct Local(Rc<Cell<usize>>);

impl Service<Request<Rc<()>>> for Local {
    type Response = Response<Rc<Cell<usize>>>;
    type Error = Rc<()>;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rc<()>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Rc<()>>) -> Self::Future {
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            drop(pending.accept());
        }
        self.0.set(self.0.get() + 1);
        ready(Ok(Response::new(Rc::clone(&self.0))))
    }
}

fn works_on_one_thread<L>(layer: L)
where
    L: Layer<Local>,
    L::Service: Service<Request<Rc<()>>, Response = Response<Rc<Cell<usize>>>, Error = Rc<()>>,
{
    let calls = Rc::<Cell<usize>>::default();
    let mut service = layer.layer(Local(Rc::clone(&calls)));
    for (raw, expected) in
        [(handshake(), 1), (plain(), 2), (handshake().without("Sec-WebSocket-Key"), 2)]
    {
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
        let response =
            service.call(raw.upgradable()).now_or_never().expect("nothing to wait for").unwrap();
        assert_eq!(calls.get(), expected, "{} {raw:?}", type_name::<L>());
        assert_eq!(
            code(&response).is_some(),
            response.status() == 400,
            "{} {raw:?}",
            type_name::<L>()
        );
    }
}

#[test]
fn inner_service_need_not_be_send() {
    each_layer!(without token: works_on_one_thread);
}

#[tokio::test]
async fn separate_layers_select_the_same_subprotocol_as_the_guard() {
    let accept = |request: Request<()>| async move {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        Ok::<_, Infallible>(Response::new(()))
    };
    let sources =
        || [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("auth.").unwrap()];
    let token = || {
        TokenPolicy::from_sources(sources(), StaticTokens::new([("s3cr3t", ())]).unwrap()).unwrap()
    };
    let ours = || Subprotocols::list(["chat"]).unwrap();
    let guard = ServiceBuilder::new()
        .layer(
            GuardLayer::new(AllowOrigin::same_origin())
                .subprotocols(ours())
                .token(token())
                .unwrap(),
        )
        .layer(ResponderLayer::new())
        .service(service_fn(accept));
    let layers = ServiceBuilder::new()
        .layer(VersionCheckLayer::new())
        .layer(OriginCheckLayer::new(AllowOrigin::same_origin()))
        .layer(TokenCheckLayer::new(token()))
        .layer(ResponderLayer::new().subprotocols(ours()))
        .service(service_fn(accept));
    for (offered, expected) in [
        ("bearer, s3cr3t", "101 bearer"),
        ("bearer, s3cr3t, chat", "101 chat"),
        ("auth.s3cr3t, chat", "101 chat"),
        ("auth.s3cr3t", "400 -"),
        ("auth.s3cr3t, other", "400 -"),
        ("chat", "401 -"),
        ("chat, auth.guess", "401 -"),
        ("chat, auth.a, auth.b", "400 -"),
    ] {
        let raw = handshake().and("Sec-WebSocket-Protocol", offered);
        for response in [
            guard.clone().oneshot(raw.upgradable()).await.unwrap(),
            layers.clone().oneshot(raw.upgradable()).await.unwrap(),
        ] {
            let chosen = response
                .headers()
                .get("sec-websocket-protocol")
                .map_or("-", |value| value.to_str().unwrap());
            assert_eq!(format!("{} {chosen}", response.status().as_u16()), expected, "{offered}");
        }
    }
}
