//! A connection is handed over only if the response that leaves the outermost layer of this crate
//! completes the handshake. hyper hands it over behind any response, so the tests run over sockets.

use std::{
    convert::Infallible,
    future::{Future, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{
        Request, State,
        ws::{Message, WebSocketUpgrade},
    },
    handler::Handler,
    middleware::{Next, from_fn, map_response},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::yield_now,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_sessions::{
    MemoryStore, Session, SessionManagerLayer, SessionStore,
    session::{Id, Record},
    session_store,
};
use tower_ws_guard::{
    AllowOrigin, ConfirmUpgradeLayer, ConnectionLimit, Drain, EmptyBody, GuardLayer,
    OriginCheckLayer, PendingUpgrade, Permit, Rejection, ResponderLayer, StaticTokens,
    TokenCheckLayer, TokenPolicy, Transport, Upgraded, VersionCheckLayer, axum::GuardedUpgrade,
    test_util,
};

use crate::{
    accept_then_close::{BOTH, CLIENT_CLOSE, Socket, in_time, open},
    common::{Body, Raw, handshake, plain, serve, serve_axum},
};

use Transport::{ExtendedConnect, Http1};

const GREETING: &str = "you are in";
/// A masked text frame.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

/// How a connection gets from the guard to the application.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Guarded,
    GuardedWithLimit,
    GuardedWithDrain,
    Pending,
    PendingWithLimitAndDrain,
    /// A layer inside of the one that completes the handshake has them.
    PendingWithLimitAndDrainInside,
    Callback,
    CallbackWithLimitAndDrain,
    /// A guard, and a `ResponderLayer` inside of it.
    Stacked,
    StackedWithLimitAndDrain,
    /// The "application" is the close frame.
    AcceptThenClose,
}

use Mode::*;

const MODES: [Mode; 11] = [
    Guarded,
    GuardedWithLimit,
    GuardedWithDrain,
    Pending,
    PendingWithLimitAndDrain,
    PendingWithLimitAndDrainInside,
    Callback,
    CallbackWithLimitAndDrain,
    Stacked,
    StackedWithLimitAndDrain,
    AcceptThenClose,
];

/// What a layer makes of the response that it gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Keeps,
    Replaces,
    ReplacesAndCloses,
    /// All headers and extensions stay.
    SetsStatus,
    /// All headers and extensions stay.
    SetsStatusAndCloses,
}

use Change::*;

const REPLACED: [Change; 4] = [Replaces, ReplacesAndCloses, SetsStatus, SetsStatusAndCloses];

impl Change {
    fn apply(self, mut response: Response) -> Response {
        let close = HeaderValue::from_static("close");
        match self {
            Keeps => return response,
            Replaces => response = "replaced".into_response(),
            ReplacesAndCloses => response = [("connection", close)].into_response(),
            SetsStatus => {}
            SetsStatusAndCloses => drop(response.headers_mut().insert("connection", close)),
        }
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    }

    fn layer(self, route: Router) -> Router {
        route.layer(map_response(move |response| ready(self.apply(response))))
    }
}

#[derive(Clone)]
struct App {
    /// The connections that the application got.
    connections: Arc<AtomicUsize>,
    limit: ConnectionLimit,
    drain: Drain,
}

impl App {
    fn new() -> Self {
        let limit = ConnectionLimit::total(9).unwrap();
        Self { connections: Arc::default(), limit, drain: Drain::new() }
    }

    /// Greets, and echoes bytes.
    async fn talk(self, mut socket: Upgraded) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        socket.write_all(GREETING.as_bytes()).await.ok();
        let (mut reader, mut writer) = tokio::io::split(socket);
        tokio::io::copy(&mut reader, &mut writer).await.ok();
        writer.shutdown().await.ok();
    }

    fn limited<C>(&self, guard: GuardLayer<EmptyBody, C>) -> GuardLayer<EmptyBody, C> {
        guard.limit(self.limit.clone()).drain(&self.drain)
    }

    fn route(&self, mode: Mode, inside: Change, between: Change) -> Router {
        let callback = || {
            let app = self.clone();
            move |socket| app.clone().talk(socket)
        };
        let accepts = || inside.layer(ws(pending).with_state(self.clone()));
        let upgrades = || inside.layer(ws(guarded).with_state(self.clone()));
        let fallback = || ws(async || StatusCode::NOT_FOUND);
        let route = match mode {
            Guarded => upgrades().layer(guard()),
            GuardedWithLimit => upgrades().layer(guard().limit(self.limit.clone())),
            GuardedWithDrain => upgrades().layer(guard().drain(&self.drain)),
            Pending => accepts().layer(guard().respond()),
            PendingWithLimitAndDrain => accepts().layer(self.limited(guard().respond())),
            PendingWithLimitAndDrainInside => {
                let counts = VersionCheckLayer::new().limit(self.limit.clone()).drain(&self.drain);
                return between.layer(accepts().layer(counts)).layer(guard().respond());
            }
            Callback => fallback().layer(guard().on_upgraded(callback())),
            CallbackWithLimitAndDrain => {
                fallback().layer(self.limited(guard().on_upgraded(callback())))
            }
            Stacked => return between.layer(accepts().layer(ResponderLayer::new())).layer(guard()),
            StackedWithLimitAndDrain => {
                let responder = ResponderLayer::new().limit(self.limit.clone()).drain(&self.drain);
                return between.layer(accepts().layer(responder)).layer(self.limited(guard()));
            }
            AcceptThenClose => {
                let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
                let closes = tower_ws_guard::AcceptThenClose::new();
                upgrades().layer(guard().token(tokens).unwrap().accept_then_close(closes))
            }
        };
        between.layer(route)
    }

    /// Waits until no slot is held, with less patience than the upgrade timeout.
    async fn is_free(&self) {
        let free = async {
            while self.limit.connections() + self.drain.connections() > 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(5), free).await.expect("all slots are free");
    }

    /// Sends the handshake over a new connection for each way to go on behind its response. The
    /// response has this status, and nothing is handed over behind it.
    async fn assert_nothing_is_handed_over(
        &self,
        address: SocketAddr,
        transport: Transport,
        raw: &Raw,
        status: u16,
        context: &dyn std::fmt::Debug,
    ) {
        for end in [End::Frame, End::HalfClose] {
            let socket = open(address, transport, raw).await;
            assert_eq!(socket.status, status, "{context:?}");
            // Before the client has left.
            self.is_free().await;
            let rest = end.rest(socket, transport).await;
            assert!(!rest.contains(GREETING), "{context:?} {end:?}: {rest:?}");
            assert!(!rest.contains("token-missing"), "{context:?} {end:?}: {rest:?}");
        }
        self.is_free().await;
        assert_eq!(self.connections.load(Ordering::SeqCst), 0, "{context:?}");
    }
}

async fn guarded(State(app): State<App>, upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket, ()| {
        app.connections.fetch_add(1, Ordering::SeqCst);
        socket.send(Message::text(GREETING)).await.ok();
        while let Some(Ok(message)) = socket.recv().await {
            socket.send(message).await.ok();
        }
    })
}

async fn pending(State(app): State<App>, pending: PendingUpgrade) {
    pending.on_upgrade(|socket| app.talk(socket));
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

/// A route that has no layers.
fn ws<S, H, T>(handler: H) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    Router::new().route("/ws", any(handler))
}

/// What a client does behind a response that did not complete the handshake.
#[derive(Clone, Copy, Debug)]
enum End {
    Frame,
    HalfClose,
}

impl End {
    /// Reads until the server closes or resets the connection.
    async fn rest(self, mut socket: Socket, transport: Transport) -> String {
        let mut rest = Vec::new();
        // Over HTTP/2 the client cannot send behind the response.
        match (transport, self) {
            (ExtendedConnect, _) => {}
            (Http1, Self::Frame) => drop(socket.stream.write_all(HELLO).await),
            (Http1, Self::HalfClose) => drop(socket.stream.shutdown().await),
        }
        in_time(socket.stream.read_to_end(&mut rest)).await.ok();
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// The connection works: bytes pass in both ways. Or the close frame arrives.
async fn assert_handed_over(
    address: SocketAddr,
    transport: Transport,
    mode: Mode,
    context: &dyn std::fmt::Debug,
) {
    let mut socket = open(address, transport, &handshake()).await;
    assert!(socket.is_completed(), "{mode:?} {context:?}");
    let mut received = Vec::new();
    let sent = if mode == AcceptThenClose { CLIENT_CLOSE } else { HELLO };
    socket.stream.write_all(sent).await.unwrap();
    let expected = if mode == AcceptThenClose { "token-missing" } else { "hello" };
    in_time(async {
        while !String::from_utf8_lossy(&received).contains(expected) {
            assert_ne!(socket.stream.read_buf(&mut received).await.unwrap(), 0, "{mode:?}");
        }
    })
    .await;
    let greets = String::from_utf8_lossy(&received).contains(GREETING);
    assert_eq!(greets, mode != AcceptThenClose, "{mode:?} {context:?}");
    socket.stream.write_all(CLIENT_CLOSE).await.ok();
    socket.stream.shutdown().await.ok();
    in_time(socket.stream.read_to_end(&mut received)).await.ok();
}

async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) {
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains(GREETING) {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn connection_is_not_handed_over_behind_a_replaced_response() {
    // A layer inside of the guard, between two layers of this crate, or outside of the guard.
    for mode in MODES {
        for change in REPLACED {
            let app = App::new();
            let route = |inside, between| app.route(mode, inside, between);
            let mut routes = vec![
                ("outside", change.layer(route(Keeps, Keeps)).layer(ConfirmUpgradeLayer::new())),
                (
                    "outside of two guards",
                    change
                        .layer(route(Keeps, Keeps).layer(app.limited(guard())))
                        .layer(ConfirmUpgradeLayer::new()),
                ),
                (
                    "between, confirmed",
                    route(Keeps, change).layer(guard()).layer(ConfirmUpgradeLayer::new()),
                ),
            ];
            match mode {
                Stacked | StackedWithLimitAndDrain | PendingWithLimitAndDrainInside => {
                    routes.push(("between", route(Keeps, change)));
                }
                _ => {
                    routes.push(("between", route(Keeps, change).layer(guard())));
                    routes.push(("between", route(Keeps, change).layer(app.limited(guard()))));
                    let trial = app.limited(guard()).dangerous_report_only();
                    routes.push(("between, reported", route(Keeps, change).layer(trial)));
                }
            }
            if !matches!(mode, Callback | CallbackWithLimitAndDrain | AcceptThenClose) {
                let confirmed = route(change, Keeps).layer(ConfirmUpgradeLayer::new());
                routes.push(("inside", route(change, Keeps)));
                routes.push(("inside, confirmed", confirmed));
            }
            for (position, route) in routes {
                let address = serve_axum(route).await;
                for transport in BOTH {
                    let context = (mode, change, position, transport);
                    app.assert_nothing_is_handed_over(
                        address,
                        transport,
                        &handshake(),
                        403,
                        &context,
                    )
                    .await;
                }
            }
        }
    }
}

/// The fault that `ConfirmUpgradeLayer` is for, and the proof that these tests can fail.
#[tokio::test]
async fn response_that_an_outer_layer_replaces_needs_a_confirm_upgrade_layer() {
    for mode in MODES {
        for change in REPLACED {
            let app = App::new();
            let address = serve_axum(change.layer(app.route(mode, Keeps, Keeps))).await;
            let socket = open(address, Http1, &handshake()).await;
            assert_eq!(socket.status, 403);
            let rest = End::HalfClose.rest(socket, Http1).await;
            let written = if mode == AcceptThenClose { "token-missing" } else { GREETING };
            assert!(rest.contains(written), "{mode:?} {change:?}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn confirm_upgrade_layer_leaves_a_completed_handshake_alone() {
    for mode in MODES {
        let app = App::new();
        let route = app.route(mode, Keeps, Keeps);
        for (confirmed, route) in [
            (true, Keeps.layer(route.clone()).layer(ConfirmUpgradeLayer::new())),
            // Of several ones the outermost decides.
            (
                true,
                Keeps
                    .layer(route.clone().layer(ConfirmUpgradeLayer::new()))
                    .layer(guard())
                    .layer(ConfirmUpgradeLayer::new()),
            ),
            (false, route),
        ] {
            let address = serve_axum(route).await;
            for transport in BOTH {
                assert_handed_over(address, transport, mode, &(confirmed, transport)).await;
                app.is_free().await;
                let request = plain().target("/ws");
                let ordinary = open(address, Http1, &request).await;
                let expected = match mode {
                    Callback | CallbackWithLimitAndDrain => 404,
                    _ => 426,
                };
                assert_eq!(ordinary.status, expected, "{mode:?} {confirmed}");
            }
        }
    }
}

/// hyper closes such a connection behind any response, and hands it over then.
#[tokio::test]
async fn connection_is_not_handed_over_if_the_request_closes_it() {
    for mode in MODES {
        let app = App::new();
        let route = app.route(mode, Keeps, Keeps);
        for route in [route.clone(), route.layer(ConfirmUpgradeLayer::new())] {
            let route = route.layer(map_response(async |response: Response| {
                let rejection = response.extensions().get::<Rejection>();
                let code = rejection.map_or("none", |rejection| rejection.kind().code());
                ([("x-code", code)], response)
            }));
            let address = serve_axum(route).await;
            for connection in ["Upgrade, close", "close, upgrade", "keep-alive,Close , Upgrade"] {
                let raw = handshake().with("Connection", connection);
                let socket = open(address, Http1, &raw).await;
                let code = "x-code: connection-close".to_owned();
                assert!(socket.headers.contains(&code), "{mode:?} {:?}", socket.headers);
                drop(socket);
                let context = (mode, connection);
                app.assert_nothing_is_handed_over(address, Http1, &raw, 400, &context).await;
            }
        }
    }
}

/// It saves nothing.
#[derive(Clone, Debug)]
struct BrokenStore;

type Stored<'a, T> = Pin<Box<dyn Future<Output = session_store::Result<T>> + Send + 'a>>;

fn broken<T: Send + 'static>() -> Stored<'static, T> {
    Box::pin(ready(Err(session_store::Error::Backend("it is down".into()))))
}

impl SessionStore for BrokenStore {
    fn save<'a, 'b, 'c>(&'a self, _: &'b Record) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        broken()
    }

    fn load<'a, 'b, 'c>(&'a self, _: &'b Id) -> Stored<'c, Option<Record>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(ready(Ok(None)))
    }

    fn delete<'a, 'b, 'c>(&'a self, _: &'b Id) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        broken()
    }
}

#[tokio::test]
async fn connection_is_not_handed_over_if_the_session_is_not_saved() {
    async fn visit(session: Session, request: Request, next: Next) -> Response {
        session.insert("visited", true).await.unwrap();
        next.run(request).await
    }

    for mode in MODES {
        let app = App::new();
        let route = app.route(mode, Keeps, Keeps).layer(from_fn(visit));
        let broken = route.clone().layer(SessionManagerLayer::new(BrokenStore));
        let confirmed = serve_axum(broken.clone().layer(ConfirmUpgradeLayer::new())).await;
        for transport in BOTH {
            let context = (mode, transport);
            app.assert_nothing_is_handed_over(confirmed, transport, &handshake(), 500, &context)
                .await;
        }

        // With a store that works the connection does, too.
        let sessions = SessionManagerLayer::new(MemoryStore::default());
        let saved = serve_axum(route.layer(sessions).layer(ConfirmUpgradeLayer::new())).await;
        for transport in BOTH {
            let socket = open(saved, transport, &handshake()).await;
            let has_cookie = socket.headers.iter().any(|line| line.starts_with("set-cookie: "));
            assert!(has_cookie, "{mode:?} {:?}", socket.headers);
            assert_handed_over(saved, transport, mode, &transport).await;
        }

        // The fault is real.
        let socket = open(serve_axum(broken).await, Http1, &handshake()).await;
        assert_eq!(socket.status, 500);
        let rest = End::HalfClose.rest(socket, Http1).await;
        let written = if mode == AcceptThenClose { "token-missing" } else { GREETING };
        assert!(rest.contains(written), "{mode:?}: {rest:?}");
    }
}

/// A handler that completes handshakes by itself gets the connection from hyper. It must claim the
/// permit only to accept.
#[tokio::test]
async fn claimed_connection_is_handed_over_by_hyper() {
    let app = App::new();
    let inner = {
        let app = app.clone();
        service_fn(move |mut request: http::Request<Incoming>| {
            let app = app.clone();
            async move {
                let (status, claims) = match request.uri().query().unwrap_or_default() {
                    "accepts" => (101, true),
                    "unclaimed" => (101, false),
                    "declines" => (403, false),
                    "claims-and-declines" => (403, true),
                    _ => (404, false),
                };
                let permit = if claims { Permit::claim(request.extensions_mut()) } else { None };
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Ok(socket) = upgrade.await {
                        app.connections.fetch_add(1, Ordering::SeqCst);
                        let mut socket = TokioIo::new(socket);
                        socket.write_all(GREETING.as_bytes()).await.ok();
                        socket.read_u8().await.ok();
                    }
                });
                let mut response = http::Response::new(Body::default());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if status == 101 {
                    for (name, value) in [("upgrade", "websocket"), ("connection", "upgrade")] {
                        response.headers_mut().insert(name, HeaderValue::from_static(value));
                    }
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let limited = app.limited(guard()).layer(inner.clone());
    for (address, has_permit) in [
        (serve(limited.clone()).await, true),
        (serve(ConfirmUpgradeLayer::new().layer(limited)).await, true),
        // Without a limit and a drain there is no permit, but the upgrade is back.
        (serve(ConfirmUpgradeLayer::new().layer(guard().layer(inner))).await, false),
    ] {
        let raw = |query| handshake().target(&format!("/ws?{query}"));
        for (query, status) in [("unclaimed", 500), ("declines", 403), ("ignores", 404)] {
            app.assert_nothing_is_handed_over(address, Http1, &raw(query), status, &query).await;
        }

        let mut socket = open(address, Http1, &raw("accepts")).await;
        assert_eq!(socket.status, 101);
        let mut greeting = [0; GREETING.len()];
        in_time(socket.stream.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(greeting, GREETING.as_bytes());
        assert_eq!(app.limit.connections(), usize::from(has_permit));
        socket.stream.write_all(HELLO).await.unwrap();
        in_time(socket.stream.read_to_end(&mut Vec::new())).await.ok();
        app.is_free().await;
        assert_eq!(app.connections.swap(0, Ordering::SeqCst), 1);

        // What the docs warn of.
        let socket = open(address, Http1, &raw("claims-and-declines")).await;
        assert_eq!(socket.status, 403);
        assert!(End::HalfClose.rest(socket, Http1).await.contains(GREETING));
        app.is_free().await;
        app.connections.store(0, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn websocket_upgrade_of_axum_behind_a_confirm_upgrade_layer_is_rejected_with_the_fix() {
    async fn upgrades(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async move |mut socket| {
            app.connections.fetch_add(1, Ordering::SeqCst);
            socket.send(Message::text(GREETING)).await.ok();
        })
    }

    let app = App::new();
    let (sender, mut rejections) = mpsc::unbounded_channel();
    let route = ws(upgrades)
        .with_state(app.clone())
        .layer(guard())
        .layer(ConfirmUpgradeLayer::new())
        .layer(map_response(move |response: Response| {
            // As in the log.
            let rejection = response.extensions().get::<Rejection>().map(ToString::to_string);
            sender.send(rejection).unwrap();
            ready(response)
        }));
    let address = serve_axum(route).await;
    for transport in BOTH {
        app.assert_nothing_is_handed_over(address, transport, &handshake(), 500, &transport).await;
    }
    let mut seen = Vec::new();
    while let Ok(rejection) = rejections.try_recv() {
        seen.extend(rejection);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    for rejection in seen {
        assert!(rejection.starts_with("permit-unclaimed: "), "{rejection}");
        assert!(rejection.contains("use `axum::GuardedUpgrade`"), "{rejection}");
    }
}

#[tokio::test]
async fn upgrade_timeout_counts_from_the_response() {
    const TIMEOUT: Duration = Duration::from_millis(200);

    async fn late(response: Response) -> Response {
        sleep(TIMEOUT * 3).await;
        response
    }

    let app = App::new();
    let responder = || guard().respond().upgrade_timeout(TIMEOUT).unwrap();
    let accepts = || ws(pending).with_state(app.clone());
    let callback = {
        let app = app.clone();
        move |socket| app.clone().talk(socket)
    };
    let called = guard().on_upgraded(callback).upgrade_timeout(TIMEOUT).unwrap();
    let fallback = ws(async || StatusCode::NOT_FOUND);
    for route in [
        // The handler is slow.
        accepts().layer(map_response(late)).layer(responder()),
        // An outer layer is slow.
        accepts().layer(responder()).layer(map_response(late)).layer(ConfirmUpgradeLayer::new()),
        fallback.layer(called).layer(map_response(late)).layer(ConfirmUpgradeLayer::new()),
        accepts().layer(responder()).layer(map_response(late)).layer(guard()),
    ] {
        let address = serve_axum(route).await;
        for transport in BOTH {
            assert_handed_over(address, transport, Pending, &transport).await;
        }
    }
}

/// The time of `GuardedUpgrade` is fixed.
#[tokio::test(start_paused = true)]
async fn guarded_upgrade_waits_for_a_slow_response() {
    async fn late(response: Response) -> Response {
        sleep(Duration::from_secs(3600)).await;
        response
    }

    let app = App::new();
    let upgrades = || ws(guarded).with_state(app.clone()).layer(map_response(late));
    for route in [
        upgrades().layer(guard()),
        upgrades().layer(app.limited(guard())),
        ws(guarded)
            .with_state(app.clone())
            .layer(guard())
            .layer(map_response(late))
            .layer(ConfirmUpgradeLayer::new()),
    ] {
        let (mut client, server) = tokio::io::duplex(4096);
        let service = hyper_util::service::TowerToHyperService::new(route);
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        tokio::spawn(connection.with_upgrades());
        client.write_all(&handshake().bytes()).await.unwrap();
        read_greeting(&mut client).await;
        drop(client);
        app.is_free().await;
    }
}

/// As in a test of a user, where the connection is there at once.
#[tokio::test(flavor = "multi_thread")]
async fn callback_of_a_connection_that_precedes_the_response_runs() {
    async fn yields(response: Response) -> Response {
        yield_now().await;
        response
    }
    async fn late(response: Response) -> Response {
        sleep(Duration::from_millis(1)).await;
        response
    }

    let app = App::new();
    let upgrades = || ws(guarded).with_state(app.clone());
    for (name, route) in [
        ("guard", upgrades().layer(guard())),
        ("limit", upgrades().layer(app.limited(guard()))),
        ("yields", upgrades().layer(map_response(yields)).layer(guard())),
        ("late", upgrades().layer(map_response(late)).layer(guard())),
        ("late, limit", upgrades().layer(map_response(late)).layer(app.limited(guard()))),
        (
            "late, confirmed",
            upgrades().layer(guard()).layer(map_response(late)).layer(ConfirmUpgradeLayer::new()),
        ),
    ] {
        for _ in 0..200 {
            let (request, mut client) =
                test_util::upgradable(handshake().request::<axum::body::Body>()).await;
            let response = route.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{name}");
            in_time(read_greeting(&mut client)).await;
        }
        app.is_free().await;
    }
}

/// The middleware takes the connection of the limit, and the handler one that no layer withholds.
#[tokio::test]
async fn both_decisions_in_a_response_are_made() {
    async fn claims(mut request: Request, next: Next) -> Response {
        let permit = Permit::claim(request.extensions_mut());
        let mut response = next.run(request).await;
        response.extensions_mut().insert(permit);
        response
    }

    let origin = || OriginCheckLayer::new(AllowOrigin::same_origin());
    let app = App::new();
    let claimed = || ws(guarded).with_state(app.clone()).layer(from_fn(claims));
    let version = || VersionCheckLayer::new().limit(app.limit.clone()).drain(&app.drain);
    let token = || {
        let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
        TokenCheckLayer::new(tokens).drain(&app.drain)
    };
    let routes = |change: Change, confirms: bool| {
        [
            claimed().layer(version()),
            claimed().layer(token()),
            claimed().layer(token()).layer(version()),
            claimed().layer(app.limited(guard())),
        ]
        .map(|route| {
            let route = change.layer(route).layer(origin());
            if confirms { route.layer(ConfirmUpgradeLayer::new()) } else { route }
        })
    };
    let raw = handshake().and("Authorization", "Bearer s3cr3t");
    for confirms in [false, true] {
        for (i, route) in routes(Keeps, confirms).into_iter().enumerate() {
            let address = serve_axum(route).await;
            for transport in BOTH {
                let mut socket = open(address, transport, &raw).await;
                assert!(socket.is_completed(), "{i} {confirms} {transport:?}");
                in_time(read_greeting(&mut socket.stream)).await;
            }
        }
        app.connections.store(0, Ordering::SeqCst);
        for change in REPLACED {
            for (i, route) in routes(change, confirms).into_iter().enumerate() {
                let address = serve_axum(route).await;
                for transport in BOTH {
                    let context = (i, confirms, change, transport);
                    app.assert_nothing_is_handed_over(address, transport, &raw, 403, &context)
                        .await;
                }
            }
        }
    }
}

#[tokio::test]
async fn declined_upgrade_fails_at_once_on_a_kept_connection() {
    let (sender, mut results) = mpsc::unbounded_channel();
    let responds = |status: StatusCode| {
        let sender = sender.clone();
        ws(async move |pending: PendingUpgrade| {
            let upgrade = pending.accept().unwrap();
            tokio::spawn(async move {
                sender.send(upgrade.await.map(drop).map_err(|error| error.to_string())).unwrap();
            });
            // The task waits before there is a response.
            sleep(Duration::from_millis(5)).await;
            status
        })
    };
    let kept = || guard().respond().dangerous_keep_connection();
    for route in [
        responds(StatusCode::FORBIDDEN).layer(kept()),
        responds(StatusCode::FORBIDDEN).layer(kept()).layer(ConfirmUpgradeLayer::new()),
        Replaces.layer(responds(StatusCode::OK).layer(kept())).layer(ConfirmUpgradeLayer::new()),
        Replaces
            .layer(responds(StatusCode::OK).layer(kept()))
            .layer(guard().limit(ConnectionLimit::total(9).unwrap()).dangerous_keep_connection()),
    ] {
        let address = serve_axum(route).await;
        for transport in BOTH {
            let mut socket = open(address, transport, &handshake()).await;
            assert_eq!(socket.status, 403);
            let result = timeout(Duration::from_secs(5), results.recv()).await.unwrap().unwrap();
            let error = result.unwrap_err();
            assert!(error.contains("the final response did not complete the handshake"), "{error}");
            if transport == Http1 {
                // The connection is still open.
                let second = plain().and("Connection", "close");
                socket.stream.write_all(&second.bytes()).await.unwrap();
                let mut response = String::new();
                in_time(socket.stream.read_to_string(&mut response)).await.unwrap();
                assert!(response.contains("HTTP/1.1 "), "{response:?}");
            }
        }
    }
}
