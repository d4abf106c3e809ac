//! `ConnectionLimit`: slots, permits, and the time limits of a handshake.

use std::{
    convert::Infallible,
    future::{Future, pending},
    hash::Hash,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    middleware::map_response,
    response::Response as AxumResponse,
    routing::any,
};
use http::{
    Extensions, HeaderValue, Request, Response, StatusCode, Version, header::RETRY_AFTER,
    request::Parts,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::yield_now,
    time::{sleep, timeout},
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, layer::layer_fn, service_fn,
    util::BoxCloneSyncService,
};
use tower_http::timeout::TimeoutLayer;
use tower_ws_guard::{
    AcceptThenClose, AllowOrigin, Claims, ConnectionLimit, Drain, GuardLayer, OriginCheckLayer,
    PendingUpgrade, Permit, Rejection, Reported, ResponderLayer, Sessions, StaticTokens, Token,
    TokenCheckLayer, TokenPolicy, Upgraded, Verified, VerifyToken, VersionCheck, VersionCheckLayer,
    axum::GuardedUpgrade, response_fn,
};

use crate::{
    accept_then_close::{BOTH, open},
    common::{self, Raw, eventually, handshake, plain, send, serve, upgradable},
};

const LONG: Duration = Duration::from_secs(30);

type App = BoxCloneSyncService<Request<()>, Response<()>, Infallible>;

pub(crate) fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn per_key<K: Hash + Eq + Clone + Send + Sync + 'static>(
    max: usize,
    key: impl Fn(&Parts) -> Option<K> + Send + Sync + 'static,
) -> Sessions<K> {
    Sessions::per_key(max, key).unwrap()
}

/// The default of `Retry-After`.
pub(crate) fn is_random_delay(retry_after: &HeaderValue) -> bool {
    (5..=15).contains(&retry_after.to_str().unwrap().parse::<u8>().unwrap())
}

fn total(max: usize) -> ConnectionLimit {
    ConnectionLimit::total(max).unwrap()
}

/// What a handler that responds 101 itself does with its permit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Handler {
    /// Keeps it in the response instead of a task.
    Holds,
    Drops,
    /// Leaves it in its future, which ends with the response.
    Leaves,
    Ignores,
    /// Does not claim it, but copies the extensions.
    Copies,
    Declines,
    /// Declines without claiming it.
    DeclinesUnclaimed,
}

impl Handler {
    fn call(self, request: Request<()>) -> Responding {
        let extensions = request.extensions().clone();
        Responding {
            response: Box::pin(self.response(request)),
            _kept: (self == Self::Leaves).then_some(extensions),
        }
    }

    async fn response(self, request: Request<()>) -> Result<Response<()>, Infallible> {
        let (mut request, ()) = request.into_parts();
        let copy = request.extensions.clone();
        let permit = match self {
            Self::Ignores | Self::Copies | Self::DeclinesUnclaimed => None,
            _ => Permit::claim(&mut request.extensions),
        };
        let mut response = Response::new(());
        *response.status_mut() = match (self, request.version) {
            (Self::Declines | Self::DeclinesUnclaimed, _) => StatusCode::NOT_FOUND,
            (_, Version::HTTP_2) => StatusCode::OK,
            _ => StatusCode::SWITCHING_PROTOCOLS,
        };
        match self {
            Self::Holds | Self::Declines => drop(response.extensions_mut().insert(permit)),
            Self::Copies => *response.extensions_mut() = copy,
            Self::Drops | Self::Leaves | Self::Ignores | Self::DeclinesUnclaimed => drop(permit),
        }
        Ok(response)
    }

    pub(crate) fn behind<L>(self, layer: L) -> App
    where
        L: Layer<BoxCloneSyncService<Request<()>, Response<()>, Infallible>>,
        L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<()>>>::Future: Send,
    {
        BoxCloneSyncService::new(
            layer.layer(BoxCloneSyncService::new(service_fn(move |request| self.call(request)))),
        )
    }
}

/// Keeps the extensions of its request, like a service that may retry.
struct Responding {
    response: Pin<Box<dyn Future<Output = Result<Response<()>, Infallible>> + Send>>,
    _kept: Option<Extensions>,
}

impl Future for Responding {
    type Output = Result<Response<()>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(cx)
    }
}

/// Accepts through the responder, and keeps the connection in the response.
fn responded<L>(layer: L) -> App
where
    L: Layer<App>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<()>>>::Future: Send,
{
    let inner = service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            response.extensions_mut().insert(Arc::new(pending.accept()));
        }
        Ok(response)
    });
    BoxCloneSyncService::new(layer.layer(BoxCloneSyncService::new(inner)))
}

/// The layer gets no upgrade and no context, but a `PendingUpgrade`.
fn inside_of_a_responder<L>(layer: L) -> App
where
    L: Layer<App> + Clone + Send + Sync + 'static,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<()>>>::Future: Send,
{
    responded(ServiceBuilder::new().layer(guard().respond()).layer(layer).into_inner())
}

pub(crate) async fn call(app: &App, request: Request<()>) -> Response<()> {
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) fn code<B>(response: &Response<B>) -> Option<&'static str> {
    response.extensions().get::<Rejection>().map(|rejection| rejection.kind().code())
}

#[tokio::test]
async fn limit_rejects_when_full_and_reuses_freed_slots() {
    let limits = [(); 8].map(|()| total(3));
    let [guarded, responder, both, checked, alone, version, origin, token] = limits.clone();
    let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let apps = [
        Handler::Holds.behind(guard().limit(guarded)),
        responded(ResponderLayer::new().limit(responder)),
        responded(
            ServiceBuilder::new()
                .layer(guard().limit(both.clone()))
                .layer(ResponderLayer::new())
                .into_inner(),
        ),
        Handler::Holds.behind(guard().token(tokens.clone()).unwrap().limit(checked)),
        Handler::Holds.behind(TokenCheckLayer::new(tokens.clone()).limit(alone)),
        inside_of_a_responder(VersionCheckLayer::new().limit(version)),
        inside_of_a_responder(OriginCheckLayer::new(AllowOrigin::same_origin()).limit(origin)),
        inside_of_a_responder(TokenCheckLayer::new(tokens).limit(token)),
    ];
    for (app, limit) in apps.iter().zip(&limits) {
        let raw = handshake().and("Authorization", "Bearer s3cr3t");
        let request = |i: usize| upgradable(&raw).into_iter().nth(i % 2).unwrap();
        let mut open = Vec::new();
        for i in 0..3 {
            let response = call(app, request(i)).await;
            assert_eq!(code(&response), None);
            open.push(response);
            assert_eq!(limit.connections(), i + 1);
            assert_eq!(
                format!("{limit:?}"),
                format!("ConnectionLimit {{ max: 3, connections: {} }}", i + 1)
            );
        }
        for round in 0..4 {
            let rejected = call(app, request(round)).await;
            assert_eq!((rejected.status().as_u16(), code(&rejected)), (503, Some("over-capacity")));
            assert!(is_random_delay(&rejected.headers()["retry-after"]));
            assert_eq!(limit.connections(), 3);
            // An ordinary request needs no permit.
            assert_eq!(code(&call(app, plain().request()).await), None);
            open.remove(0);
            assert_eq!(limit.connections(), 2);
            open.push(call(app, request(round)).await);
            assert_eq!(code(open.last().unwrap()), None);
        }
        drop(open);
        assert_eq!(limit.connections(), 0);
    }
}

#[tokio::test]
async fn limit_and_drain_inside_of_a_responder_count_open_sockets() {
    async fn holds(pending: PendingUpgrade) {
        pending.on_upgrade(async |mut socket| drop(socket.read_u8().await));
    }

    for transport in BOTH {
        let (limit, drain) = (total(1), Drain::new());
        let counts = VersionCheckLayer::new().limit(limit.clone()).drain(&drain);
        let show = map_response(async |response: AxumResponse| {
            ([("x-code", code(&response).unwrap_or("none"))], response)
        });
        let route = Router::new().route("/ws", any(holds)).layer(counts);
        let address = common::serve_axum(route.layer(guard().respond()).layer(show)).await;
        for _ in 0..2 {
            let socket = open(address, transport, &handshake()).await;
            assert!(socket.is_completed(), "{transport:?}");
            let rejected = open(address, transport, &handshake()).await;
            assert_eq!(rejected.status, 503, "{transport:?}");
            assert!(rejected.headers.contains(&"x-code: over-capacity".to_owned()));
            assert_eq!((limit.connections(), drain.connections()), (1, 1), "{transport:?}");
            drop(socket);
            eventually(|| limit.connections() + drain.connections() == 0).await;
        }
        let socket = open(address, transport, &handshake()).await;
        assert_eq!(drain.wait(Duration::from_millis(1)).await, 1, "{transport:?}");
        let rejected = open(address, transport, &handshake()).await;
        assert!(rejected.headers.contains(&"x-code: shutting-down".to_owned()));
        drop(socket);
        assert_eq!(drain.wait(LONG).await, 0, "{transport:?}");
    }
}

#[tokio::test]
async fn connection_that_was_taken_outside_of_the_limit_is_rejected() {
    let [outer, inner] = [total(1), total(1)];
    let takes = layer_fn(|inner: VersionCheck<App>| {
        service_fn(move |request: Request<()>| {
            // It stays in the original of the extensions.
            let permit = Permit::claim(&mut request.extensions().clone());
            assert!(permit.is_some());
            let response = inner.clone().oneshot(request);
            async move {
                let mut response = response.await?;
                response.extensions_mut().insert(permit);
                Ok(response)
            }
        })
    });
    let layers = ServiceBuilder::new()
        .layer(guard().limit(outer.clone()))
        .layer(takes)
        .layer(VersionCheckLayer::new().limit(inner.clone()))
        .into_inner();
    for handler in [Handler::Ignores, Handler::Holds] {
        for request in upgradable(&handshake()) {
            let response = call(&handler.behind(layers.clone()), request).await;
            let rejection = response.extensions().get::<Rejection>().expect("it is rejected");
            assert_eq!(
                (response.status().as_u16(), rejection.kind().code()),
                (500, "not-upgradable")
            );
            let source = std::error::Error::source(rejection).unwrap().to_string();
            assert!(source.contains("has taken the connection"), "{source}");
            assert_eq!(inner.connections(), 0, "{handler:?}");
            drop(response);
            assert_eq!(outer.connections(), 0, "{handler:?}");
        }
    }
}

#[tokio::test]
async fn per_key_limit_counts_each_key() {
    let user = |request: &Parts| {
        request.extensions.get::<Claims<&'static str>>().map(|Claims(user)| *user)
    };
    let limit = total(5);
    let tokens = StaticTokens::new([("a", "alice"), ("b", "bob"), ("c", "carol")]).unwrap();
    let app = Handler::Holds.behind(
        guard()
            .token(TokenPolicy::bearer(tokens))
            .unwrap()
            .limit(limit.clone())
            .sessions(&per_key(2, user)),
    );
    let as_user =
        |token: &str| handshake().and("Authorization", format!("Bearer {token}")).request();

    let mut open = Vec::new();
    for (token, expected) in [
        ("a", None),
        ("a", None),
        ("a", Some("too-many-connections")),
        ("b", None),
        ("b", None),
        ("b", Some("too-many-connections")),
        ("c", None),
        // The limit that is checked first determines the rejection.
        ("a", Some("over-capacity")),
    ] {
        let response = call(&app, as_user(token)).await;
        assert_eq!(code(&response), expected);
        match expected {
            Some("too-many-connections") => {
                assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
                assert!(is_random_delay(&response.headers()["retry-after"]));
            }
            _ => open.push(response),
        }
    }
    // A rejection by one limit acquires no slot of the other.
    assert_eq!(limit.connections(), 5);
    open.remove(0);
    assert_eq!(code(&call(&app, as_user("b")).await), Some("too-many-connections"));
    assert_eq!(code(&call(&app, as_user("a")).await), None);
}

#[tokio::test]
async fn limit_is_shared_by_its_clones() {
    let limit = total(1);
    let apps = [guard().limit(limit.clone()), guard().limit(limit)]
        .map(|layer| Handler::Holds.behind(layer));
    let open = call(&apps[0], handshake().request()).await;
    assert_eq!(code(&call(&apps[1], handshake().request()).await), Some("over-capacity"));
    assert_eq!(
        format!("{:?}", open.extensions().get::<Option<Permit>>()),
        "Some(Some(Permit { .. }))"
    );
}

#[tokio::test]
async fn limit_is_checked_after_all_other_checks() {
    let limit = total(1);
    let tokens = StaticTokens::new([("s3cr3t", ())]).unwrap();
    let app = Handler::Holds
        .behind(guard().token(TokenPolicy::bearer(tokens)).unwrap().limit(limit.clone()));
    let valid = handshake().and("Authorization", "Bearer s3cr3t");
    let _open = call(&app, valid.request()).await;
    for (raw, expected) in [
        (valid.clone(), "over-capacity"),
        (handshake(), "token-missing"),
        (valid.clone().with("Authorization", "Bearer guess"), "token-invalid"),
        (valid.clone().with("Origin", "https://evil.example"), "origin-not-allowed"),
        (valid.clone().with("Sec-WebSocket-Key", "short"), "key-invalid"),
    ] {
        for request in upgradable(&raw) {
            let expected = match (expected, request.version()) {
                ("key-invalid", Version::HTTP_2) => "over-capacity",
                _ => expected,
            };
            assert_eq!(code(&call(&app, request).await), Some(expected));
        }
    }
    assert_eq!(limit.connections(), 1);
}

#[tokio::test]
async fn permit_must_be_held_behind_a_101() {
    let limit = total(9);
    let layers = [
        guard().limit(limit.clone()),
        guard().drain(&Drain::new()),
        guard().limit(limit.clone()).dangerous_report_only(),
        guard(),
    ];
    for handler in [
        Handler::Holds,
        Handler::Drops,
        Handler::Leaves,
        Handler::Ignores,
        Handler::Copies,
        Handler::Declines,
        Handler::DeclinesUnclaimed,
    ] {
        let rejected =
            !matches!(handler, Handler::Holds | Handler::Declines | Handler::DeclinesUnclaimed);
        for (i, layer) in layers.iter().enumerate() {
            for request in upgradable(&handshake()) {
                let http2 = request.version() == Version::HTTP_2;
                let response = call(&handler.behind(layer.clone()), request).await;
                let completed = if http2 { 200 } else { 101 };
                let expected = match handler {
                    Handler::Declines | Handler::DeclinesUnclaimed => (404, None),
                    // A handler that did not take the connection declines it.
                    Handler::Ignores | Handler::Copies if http2 && i < 2 => (404, None),
                    _ if rejected && i < 2 => (500, Some("permit-unclaimed")),
                    _ => (completed, None),
                };
                assert_eq!(
                    (response.status().as_u16(), code(&response)),
                    expected,
                    "{handler:?} {i}"
                );
                if expected.0 == 500 {
                    assert_eq!(response.headers().get("connection").is_some(), !http2);
                    assert!(response.headers().get("sec-websocket-accept").is_none());
                }
            }
        }
    }
    assert_eq!(limit.connections(), 0);
}

#[tokio::test]
async fn guarded_upgrade_holds_the_permit_in_axum() {
    async fn forgets(upgrade: WebSocketUpgrade) -> AxumResponse {
        upgrade.on_upgrade(async |mut socket| drop(socket.recv().await))
    }
    async fn holds(upgrade: GuardedUpgrade<Option<Claims<()>>>) -> AxumResponse {
        upgrade.on_upgrade(async |mut socket, claims| {
            assert!(claims.is_none());
            drop(socket.recv().await);
        })
    }
    async fn moves(upgrade: GuardedUpgrade<(Permit, Option<Permit>)>) -> AxumResponse {
        upgrade.on_upgrade(async |mut socket, (permit, same)| {
            tokio::spawn(async move {
                drop((permit, same));
                drop(socket.recv().await);
            });
        })
    }
    async fn misplaced(_: Option<Permit>, _: Permit) {}

    let limit = total(9);
    let app = Router::new()
        .route("/forgets", any(forgets))
        .route("/holds", any(holds))
        .route("/moves", any(moves))
        .route("/misplaced", any(misplaced))
        .route_layer(guard().limit(limit.clone()));
    let address = common::serve_axum(app).await;
    assert_eq!(send(address, &handshake().target("/forgets").bytes()).await.status, 500);
    assert_eq!(send(address, &handshake().target("/misplaced").bytes()).await.status, 500);
    let mut open = send(address, &handshake().target("/holds").bytes()).await;
    assert_eq!((open.status, limit.connections()), (101, 1));
    open.stream.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    open.read_rest().await;
    eventually(|| limit.connections() == 0).await;
    assert_eq!(send(address, &plain().target("/holds").bytes()).await.status, 426);
    // A task spawned by the callback holds only the permit that it was given.
    let _open = send(address, &handshake().target("/moves").bytes()).await;
    eventually(|| limit.connections() == 0).await;

    // Without a limit the permit holds nothing.
    let app =
        Router::new().route("/holds", any(holds)).route("/moves", any(moves)).route_layer(guard());
    let address = common::serve_axum(app).await;
    assert_eq!(send(address, &handshake().target("/holds").bytes()).await.status, 101);
    assert_eq!(send(address, &handshake().target("/moves").bytes()).await.status, 101);
    assert_eq!(send(address, &plain().target("/moves").bytes()).await.status, 426);
}

#[tokio::test]
async fn slot_is_freed_however_the_connection_ends() {
    // Over real connections: the actions of the handler, its callback and the client.
    let limit = total(9);
    let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().expect("a handshake").clone();
        let mut response = Response::new(common::Body::default());
        match request.uri().query().unwrap() {
            "waits" => pending.on_upgrade(async |mut socket| drop(socket.read_u8().await)),
            "panics" => pending.on_upgrade(async |_| panic!("on purpose")),
            "returns" => pending.on_upgrade(async |socket| drop(socket)),
            "takes-apart" => pending.on_upgrade(async |socket| {
                let (socket, _permit) = socket.into_parts();
                drop(TokioIo::new(socket).read_u8().await);
            }),
            "drops" => drop(pending.accept()),
            "cancels" => {
                pending.on_upgrade(async |mut socket| drop(socket.read_u8().await));
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
            "declines" => *response.status_mut() = StatusCode::NOT_FOUND,
            "ignores" => {}
            "handler-panics" => panic!("on purpose"),
            "handler-waits" => std::future::pending::<()>().await,
            other => panic!("{other}"),
        }
        Ok::<_, Infallible>(response)
    });
    let layers =
        ServiceBuilder::new().layer(guard().limit(limit.clone())).layer(ResponderLayer::new());
    let address = serve(layers.service(inner)).await;

    for (query, status, held) in [
        ("waits", Some(101), true),
        ("panics", Some(101), false),
        ("returns", Some(101), false),
        ("takes-apart", Some(101), true),
        ("drops", Some(500), false),
        ("cancels", Some(403), false),
        ("declines", Some(404), false),
        ("ignores", Some(200), false),
        ("handler-panics", None, false),
        ("handler-waits", None, true),
    ] {
        let request = handshake().target(&format!("/ws?{query}")).bytes();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        match status {
            Some(status) => {
                let mut head = [0; 12];
                stream.read_exact(&mut head).await.unwrap();
                assert_eq!(head[9..], *status.to_string().as_bytes(), "{query}");
            }
            None if held => eventually(|| limit.connections() == 1).await,
            None => assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0),
        }
        if held {
            sleep(Duration::from_millis(20)).await;
            assert_eq!(limit.connections(), 1, "{query}");
        }
        drop(stream);
        eventually(|| limit.connections() == 0).await;
    }
}

#[tokio::test]
async fn handler_may_respond_426_by_itself() {
    // RFC 9110 7.8: `Upgrade` is named in `Connection`.
    let newer = || any(async || (StatusCode::UPGRADE_REQUIRED, [("upgrade", "h2c")]));
    for (i, route) in [
        newer().layer(guard()),
        newer().layer(guard().limit(total(1))),
        newer().layer(guard().respond()),
        newer().layer(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new())),
    ]
    .into_iter()
    .enumerate()
    {
        let address = common::serve_axum(Router::new().route("/ws", route)).await;
        let mut response = send(address, &handshake().bytes()).await;
        assert_eq!(response.status, 426, "{i}");
        assert_eq!(response.all("upgrade"), ["h2c"], "{i}");
        assert_eq!(response.all("connection"), ["Upgrade, close"], "{i}");
        assert_eq!(response.read_rest().await, "", "{i}");
    }
}

/// hyper hands over a connection after it is done with it, whatever the response was.
#[tokio::test]
async fn connection_is_not_handed_over_without_acceptance() {
    async fn greet(socket: &mut WebSocket) {
        socket.send(Message::text("you are in")).await.ok();
    }
    async fn forgets(upgrade: WebSocketUpgrade) -> AxumResponse {
        upgrade.on_upgrade(async |mut socket| greet(&mut socket).await)
    }
    async fn holds_and_declines(upgrade: GuardedUpgrade) -> StatusCode {
        drop(upgrade.on_upgrade(async |mut socket, ()| greet(&mut socket).await));
        StatusCode::FORBIDDEN
    }
    async fn waits(upgrade: GuardedUpgrade) -> AxumResponse {
        let response = upgrade.on_upgrade(async |mut socket, ()| greet(&mut socket).await);
        sleep(LONG).await;
        response
    }
    async fn accepts(pending: PendingUpgrade) {
        pending.on_upgrade(async |mut socket| drop(socket.write_all(b"you are in").await));
    }
    async fn forbid(_: AxumResponse) -> StatusCode {
        StatusCode::FORBIDDEN
    }
    async fn accepts_and_declines(pending: PendingUpgrade) -> StatusCode {
        pending.on_upgrade(async |mut socket| drop(socket.write_all(b"you are in").await));
        StatusCode::FORBIDDEN
    }
    async fn ordinary() {}

    let limit = total(9);
    for close in [true, false] {
        let open =
            |guard: GuardLayer| if close { guard } else { guard.dangerous_keep_connection() };
        let limited = open(guard().limit(limit.clone()));
        let responder = ResponderLayer::new().dangerous_without_origin_check();
        let responder = if close { responder } else { responder.dangerous_keep_connection() };
        let trial = open(guard().limit(total(9)).dangerous_report_only());
        let late =
            TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(50));
        let replaced = ServiceBuilder::new()
            .layer(limited.clone())
            .layer(map_response(forbid))
            .layer(responder.clone());
        let app = Router::new()
            .route("/forgets", any(forgets).layer(limited.clone()))
            .route(
                "/trial",
                any(forgets).layer(ServiceBuilder::new().layer(trial).layer(limited.clone())),
            )
            .route(
                "/late",
                any(waits).layer(ServiceBuilder::new().layer(late).layer(limited.clone())),
            )
            .route("/replaced", any(accepts).layer(replaced))
            .route("/declines", any(holds_and_declines).layer(limited.clone()))
            .route("/cancels", any(accepts_and_declines).layer(responder.clone()))
            .route(
                "/both",
                any(accepts_and_declines)
                    .layer(ServiceBuilder::new().layer(limited).layer(responder)),
            )
            .route("/", any(ordinary));
        let address = common::serve_axum(app).await;
        for (target, status) in [
            ("/forgets", 500),
            ("/trial", 500),
            ("/late", 408),
            ("/replaced", 403),
            ("/declines", 403),
            ("/cancels", 403),
            ("/both", 403),
        ] {
            let mut response = send(address, &handshake().target(target).bytes()).await;
            assert_eq!(response.status, status, "{target}");
            // A frame; or on a kept connection, a request that ends the work of hyper.
            let rest: &[u8] = match close {
                true => b"\x81\x82\0\0\0\0hi",
                false => b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            };
            response.stream.write_all(rest).await.ok();
            let rest = response.read_to_end_or_reset().await;
            assert!(!rest.contains("you are in"), "{target}: {rest:?}");
            assert_eq!(rest.contains("HTTP/1.1 200 OK"), !close, "{target}: {rest:?}");
            eventually(|| limit.connections() == 0).await;
        }
    }
}

#[tokio::test]
async fn slot_is_freed_by_a_failed_upgrade_or_a_dropped_response() {
    let limit = total(9);
    let connected = Arc::new(AtomicBool::new(false));
    let callback = Arc::clone(&connected);
    let responder = ResponderLayer::on_upgraded(move |_: Upgraded| {
        callback.store(true, Ordering::SeqCst);
        async {}
    });
    let layers = ServiceBuilder::new().layer(guard().limit(limit.clone())).layer(responder);
    let app =
        layers.service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
    // The upgrade fails immediately.
    let response = app.clone().oneshot(handshake().upgradable()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    eventually(|| limit.connections() == 0).await;
    assert!(!connected.load(Ordering::SeqCst));

    // A future that is dropped before, and a response that is dropped after completion.
    let app = responded(
        ServiceBuilder::new()
            .layer(guard().limit(limit.clone()))
            .layer(ResponderLayer::new())
            .into_inner(),
    );
    drop(app.clone().oneshot(handshake().upgradable()));
    assert_eq!(limit.connections(), 0);
    let response = call(&app, handshake().upgradable()).await;
    assert_eq!(limit.connections(), 1);
    drop(response);
    assert_eq!(limit.connections(), 0);
}

/// Reports when it is called, waits, and reports when it is dropped.
#[derive(Clone)]
pub(crate) struct Hangs(pub(crate) mpsc::UnboundedSender<&'static str>);

impl VerifyToken for Hangs {
    type Claims = ();

    async fn verify(&self, _: Token, _: &Parts) -> Result<Verified<()>, Rejection> {
        struct Tell<'a>(&'a Hangs);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.0.send("dropped").unwrap();
            }
        }
        self.0.send("asked").unwrap();
        let _tell = Tell(self);
        pending().await
    }
}

#[tokio::test]
async fn slot_is_not_acquired_while_the_token_is_verified() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let limit = total(1);
    let app = guard().token(TokenPolicy::bearer(Hangs(sender))).unwrap().limit(limit.clone());
    let address = serve(app.layer(service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(common::Body::default()))
    })))
    .await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&handshake().and("Authorization", "Bearer x").bytes()).await.unwrap();
    assert_eq!(events.recv().await, Some("asked"));
    assert_eq!(limit.connections(), 0);
    drop(stream);
    let event = timeout(Duration::from_secs(30), events.recv())
        .await
        .expect("the verifier's future is dropped");
    assert_eq!(event, Some("dropped"));
    assert_eq!(limit.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn upgrade_timeout_frees_the_slot_of_a_client_that_does_not_read() {
    for (time, expected) in [(None, 10), (Some(3), 3)] {
        let limit = total(1);
        let mut responder = ResponderLayer::new().limit(limit.clone());
        if let Some(time) = time {
            responder = responder.upgrade_timeout(Duration::from_secs(time)).unwrap();
        }
        let called = Arc::new(AtomicBool::new(false));
        let callback = Arc::clone(&called);
        let inner = service_fn(move |request: Request<hyper::body::Incoming>| {
            let callback = Arc::clone(&callback);
            request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async move |_| {
                callback.store(true, Ordering::SeqCst);
            });
            async {
                // Longer than the upgrade timeout, which starts with the response.
                sleep(Duration::from_secs(60)).await;
                Ok::<_, Infallible>(Response::new(common::Body::default()))
            }
        });
        // The buffer has no room for the response.
        let (mut client, server) = tokio::io::duplex(16);
        let service = hyper_util::service::TowerToHyperService::new(responder.layer(inner));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        tokio::spawn(connection.with_upgrades());
        client.write_all(&handshake().bytes()).await.unwrap();
        sleep(Duration::from_secs(59)).await;
        assert_eq!(limit.connections(), 1);
        let start = tokio::time::Instant::now();
        while limit.connections() > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(start.elapsed().as_secs(), 1 + expected);

        // The client reads too late.
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(!called.load(Ordering::SeqCst));
    }

    // The same behind a guard without a responder.
    let limit = total(1);
    let handler = async |upgrade: GuardedUpgrade<Permit>| {
        upgrade
            .on_upgrade(async |mut socket, _| drop(socket.send(Message::text("you are in")).await))
    };
    let app = Router::new().route("/ws", any(handler).layer(guard().limit(limit.clone())));
    let (mut client, server) = tokio::io::duplex(16);
    let service = hyper_util::service::TowerToHyperService::new(app);
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    tokio::spawn(connection.with_upgrades());
    client.write_all(&handshake().bytes()).await.unwrap();
    sleep(Duration::from_secs(9)).await;
    assert_eq!(limit.connections(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(limit.connections(), 0);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received.starts_with(b"HTTP/1.1 101"));
    assert!(!String::from_utf8_lossy(&received).contains("you are in"));
}

#[tokio::test]
async fn pending_upgrade_cannot_be_accepted_after_the_request_was_dropped() {
    let limit = total(1);
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let inner = service_fn(move |request: Request<()>| {
        *keep.lock().unwrap() = request.extensions().get::<PendingUpgrade>().cloned();
        pending::<Result<Response<()>, Infallible>>()
    });
    let mut response = Box::pin(
        ResponderLayer::new().limit(limit.clone()).layer(inner).oneshot(handshake().upgradable()),
    );
    assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(limit.connections(), 1);
    drop(response);
    assert_eq!(limit.connections(), 0);
    assert!(kept.lock().unwrap().as_ref().unwrap().accept().is_none());
}

#[tokio::test]
async fn report_only_limit_rejects_nobody() {
    let limit = total(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<()>| {
        let reported =
            request.extensions().get().map(|Reported(rejection)| rejection.kind().code());
        log.lock().unwrap().push(reported);
        Handler::Holds.response(request)
    });
    let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let layer = guard().token(tokens).unwrap().limit(limit.clone()).dangerous_report_only();
    let app = BoxCloneSyncService::new(layer.layer(inner));
    let valid = handshake().and("Authorization", "Bearer s3cr3t");
    let mut open = Vec::new();
    for raw in [&valid, &valid, &handshake(), &valid.clone().with("Origin", "https://evil.example")]
    {
        let response = call(&app, raw.request()).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        open.push(response);
    }
    let reported = [None, Some("over-capacity"), Some("token-missing"), Some("origin-not-allowed")];
    assert_eq!(*seen.lock().unwrap(), reported);
    assert_eq!(limit.connections(), 1);
}

#[tokio::test]
async fn retry_after_is_kept_from_a_custom_response() {
    let later = response_fn(|_, _, mut prepared: Response<()>| {
        prepared.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("77"));
        prepared
    });
    let never = response_fn(|_, _, mut prepared: Response<()>| {
        prepared.headers_mut().remove(RETRY_AFTER);
        prepared
    });
    let app = Handler::Holds.behind(guard().limit(total(1)).reject_with(later));
    let _open = call(&app, handshake().request()).await;
    assert_eq!(call(&app, handshake().request()).await.headers()["retry-after"], "77");
    let app = Handler::Holds.behind(guard().limit(total(1)).reject_with(never));
    let _open = call(&app, handshake().request()).await;
    assert!(is_random_delay(&call(&app, handshake().request()).await.headers()["retry-after"]));
}

/// Returns the status, and the code and reason of a close frame.
async fn closed(address: std::net::SocketAddr, raw: &Raw) -> (u16, Option<(u16, String)>) {
    let mut response = send(address, &raw.bytes()).await;
    if response.status != 101 {
        return (response.status, None);
    }
    response.stream.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    response.read_rest().await;
    let frame = match &*response.rest {
        [0x88, _, high, low, reason @ ..] => {
            Some((u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned()))
        }
        _ => None,
    };
    (101, frame)
}

#[tokio::test]
async fn accept_then_close_reports_a_full_limit() {
    let key = || per_key(1, |_: &Parts| Some(()));
    let (sender, _events) = mpsc::unbounded_channel();
    let responder = || ResponderLayer::new().accept_then_close(AcceptThenClose::new());
    let closes = || guard().accept_then_close(AcceptThenClose::new());
    let hangs = closes()
        .token(TokenPolicy::bearer(Hangs(sender)))
        .unwrap()
        .check_timeout(Duration::from_millis(50))
        .unwrap();

    async fn serve_behind<L>(layer: L) -> std::net::SocketAddr
    where
        L: Layer<
            BoxCloneSyncService<Request<hyper::body::Incoming>, Response<common::Body>, Infallible>,
        >,
        L::Service: Service<
                Request<hyper::body::Incoming>,
                Response = Response<common::Body>,
                Error = Infallible,
            > + Clone
            + Send
            + 'static,
        <L::Service as Service<Request<hyper::body::Incoming>>>::Future: Send,
    {
        let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
            let pending = request.extensions().get::<PendingUpgrade>().unwrap();
            pending.on_upgrade(async |mut socket| drop(socket.read_u8().await));
            Ok(Response::new(common::Body::default()))
        });
        serve(layer.layer(BoxCloneSyncService::new(inner))).await
    }
    let behind_guard =
        |guard| ServiceBuilder::new().layer(guard).layer(ResponderLayer::new()).into_inner();
    let over = Some((1013, "over-capacity".to_owned()));
    let many = Some((4429, "too-many-connections".to_owned()));
    for (address, expected) in [
        (serve_behind(behind_guard(closes().limit(total(1)))).await, &over),
        (serve_behind(behind_guard(closes().sessions(&key()))).await, &many),
        (serve_behind(responder().limit(total(1))).await, &over),
        (serve_behind(responder().sessions(&key())).await, &many),
    ] {
        let open = send(address, &handshake().bytes()).await;
        assert_eq!(open.status, 101);
        assert_eq!(closed(address, &handshake()).await, (101, expected.clone()));
    }

    let address = serve(hangs.layer(service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(common::Body::default()))
    })))
    .await;
    let slow = closed(address, &handshake().and("Authorization", "Bearer x")).await;
    assert_eq!(slow, (101, Some((1013, "verifier-timeout".to_owned()))));

    // A layer outside that counts the connection does not report a fault of the handler.
    let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let outer = Drain::new();
    let address = serve_behind(
        ServiceBuilder::new()
            .layer(OriginCheckLayer::new(AllowOrigin::same_origin()).drain(&outer))
            .layer(TokenCheckLayer::new(tokens).accept_then_close(AcceptThenClose::new()))
            .layer(responder().limit(total(1)))
            .into_inner(),
    )
    .await;
    let valid = handshake().and("Authorization", "Bearer s3cr3t");
    let open = send(address, &valid.bytes()).await;
    assert_eq!((open.status, outer.connections()), (101, 1));
    assert_eq!(
        closed(address, &handshake()).await,
        (101, Some((4401, "token-missing".to_owned())))
    );
    assert_eq!(closed(address, &valid).await, (101, over));
    assert_eq!(outer.wait(Duration::from_millis(1)).await, 1);

    // A drain rejects before any other check.
    let drain = Drain::new();
    let address = serve_behind(responder().drain(&drain)).await;
    drain.start();
    assert_eq!(closed(address, &handshake()).await, (503, None));
}

#[tokio::test]
async fn accept_then_close_selects_the_subprotocol_at_a_full_limit() {
    let subprotocols = tower_ws_guard::Subprotocols::list(["chat"]).unwrap();
    let responder = ResponderLayer::new().subprotocols(subprotocols).limit(total(1));
    let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().unwrap();
        pending.on_upgrade(async |mut socket| drop(socket.read_u8().await));
        Ok::<_, Infallible>(Response::new(common::Body::default()))
    });
    let address = serve(responder.accept_then_close(AcceptThenClose::new()).layer(inner)).await;
    let raw = handshake().and("Sec-WebSocket-Protocol", "other, chat");
    let open = send(address, &raw.bytes()).await;
    let rejected = send(address, &raw.bytes()).await;
    assert_eq!((open.status, rejected.status), (101, 101));
    assert_eq!(rejected.all("sec-websocket-protocol"), ["chat"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_is_not_exceeded_by_concurrent_handshakes() {
    let limit = total(10);
    let user = |request: &Parts| request.headers.get("x-user").cloned();
    let app = Handler::Holds.behind(guard().limit(limit.clone()).sessions(&per_key(3, user)));
    let tasks = (0..8_u8).map(|task| {
        let (app, limit) = (app.clone(), limit.clone());
        tokio::spawn(async move {
            let mut open = Vec::new();
            let mut accepted = 0;
            for i in 0..500_u32 {
                let response = call(
                    &app,
                    handshake().and("X-User", (u32::from(task) % 4).to_string()).request(),
                )
                .await;
                assert!(limit.connections() <= 10);
                match code(&response) {
                    None => {
                        accepted += 1;
                        open.push(response);
                    }
                    Some(code) => {
                        assert!(["over-capacity", "too-many-connections"].contains(&code));
                    }
                }
                assert!(open.len() <= 3);
                if i % 3 == u32::from(task) % 3 {
                    open.pop();
                }
                yield_now().await;
            }
            accepted
        })
    });
    let mut accepted = 0;
    for task in tasks.collect::<Vec<_>>() {
        accepted += task.await.unwrap();
    }
    assert!(accepted > 100, "{accepted}");
    assert_eq!(limit.connections(), 0);
}
