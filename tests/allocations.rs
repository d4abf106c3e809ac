//! Allocations per request, from `call` to the response, and what an open connection keeps.

mod common;

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use common::{Body, Raw, handshake, plain};
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    request::Parts,
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpListener,
    runtime,
    time::sleep,
};
use tower::{Layer, Service, ServiceBuilder, service_fn, util::BoxCloneService};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, GuardLayer, Handshake, OriginCheckLayer,
    PendingUpgrade, Permit, ResponderLayer, Sessions, StaticTokens, Subprotocols, TokenCheckLayer,
    TokenPolicy, TokenSource, Upgraded, VersionCheckLayer,
};

type ResponseFuture = Ready<Result<Response<()>, Infallible>>;

/// Builds the request as hyper does: all header values share one buffer, so cloning a value allocates nothing.
fn received(raw: &Raw) -> Request<()> {
    let mut request = raw.upgradable::<()>();
    let buffer = Bytes::from(raw.bytes()).slice(..);
    let _shared = buffer.clone();
    for (_, value) in request.headers_mut() {
        let bytes = value.as_bytes();
        let start = buffer.windows(bytes.len()).position(|window| window == bytes).unwrap();
        *value = HeaderValue::from_maybe_shared(buffer.slice(start..start + bytes.len())).unwrap();
    }
    request
}

fn allocations<S>(service: &mut S, request: Request<()>) -> (u64, u16)
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let mut status = 0;
    let info = allocation_counter::measure(|| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("not ready")
        };
        status = response.status().as_u16();
    });
    (info.count_total, status)
}

fn ok(_: Request<()>) -> ResponseFuture {
    ready(Ok(Response::new(())))
}

fn switch(_: Request<()>) -> ResponseFuture {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    ready(Ok(response))
}

fn accept(request: Request<()>) -> ResponseFuture {
    let pending = request.extensions().get::<PendingUpgrade>().unwrap();
    drop(pending.accept());
    ok(request)
}

fn origins() -> AllowOrigin {
    AllowOrigin::list([common::ORIGIN, "https://*.example.com"]).unwrap()
}

fn token() -> TokenPolicy<u64> {
    let sources = [TokenSource::authorization(), TokenSource::subprotocol("auth.").unwrap()];
    TokenPolicy::from_sources(sources, StaticTokens::new([("s3cr3t", 7)]).unwrap()).unwrap()
}

fn ordinary() -> Vec<Request<()>> {
    let browser = plain()
        .and("Connection", "keep-alive")
        .and("Accept", "text/html,application/xhtml+xml")
        .and("Accept-Encoding", "gzip, deflate, br, zstd")
        .and("Accept-Language", "en")
        .and("Cache-Control", "no-cache")
        .and("Cookie", "session=1")
        .and("Origin", common::ORIGIN)
        .and("Sec-Fetch-Site", "same-origin")
        .and("User-Agent", "Mozilla/5.0")
        .and("Authorization", "Bearer s3cr3t");
    let mut connect = browser.clone().method("CONNECT").target("chat.example.com:443").request();
    *connect.version_mut() = http::Version::HTTP_2;
    vec![
        received(&browser),
        received(&browser.clone().method("POST")),
        received(&browser.and("Upgrade", "h2c")),
        connect,
    ]
}

#[test]
fn ordinary_request_allocates_nothing() {
    let mut guard = ServiceBuilder::new()
        .layer(
            GuardLayer::new(origins())
                .allow_host(AllowHost::list([common::HOST]).unwrap())
                .check(|_: &mut Handshake<'_>| Ok(()))
                .subprotocols(Subprotocols::list(["chat"]).unwrap())
                .token(token())
                .unwrap(),
        )
        .service(service_fn(ok));
    let mut layers = ServiceBuilder::new()
        .layer(VersionCheckLayer::new())
        .layer(OriginCheckLayer::new(origins()))
        .layer(TokenCheckLayer::new(token()))
        .layer(ResponderLayer::new())
        .service(service_fn(ok));
    for request in ordinary() {
        assert_eq!(allocations(&mut guard, request), (0, 200));
    }
    for request in ordinary() {
        assert_eq!(allocations(&mut layers, request), (0, 200));
    }
}

#[test]
fn rejection_allocates_its_headers_and_extension() {
    let mut guard = ServiceBuilder::new().layer(GuardLayer::new(origins())).service(service_fn(ok));
    let foreign = handshake().with("Origin", "https://evil.example");
    // Metric keys are created once, on the first rejection.
    allocations(&mut guard, received(&foreign));
    // The header map takes two, the `Rejection` one in the extensions of the request.
    assert_eq!(allocations(&mut guard, received(&foreign)), (3, 403));
}

#[test]
fn accepted_handshake_allocates_little() {
    let mut guarded =
        ServiceBuilder::new().layer(GuardLayer::new(origins())).service(service_fn(switch));
    allocations(&mut guarded, received(&handshake()));
    assert_eq!(allocations(&mut guarded, received(&handshake())), (0, 101));

    let stack =
        || ServiceBuilder::new().layer(GuardLayer::new(origins())).layer(ResponderLayer::new());
    // The header map takes two, the accept key one, `PendingUpgrade` two.
    let mut one = ServiceBuilder::new()
        .layer(GuardLayer::new(origins()).respond())
        .service(service_fn(accept));
    assert_eq!(allocations(&mut one, received(&handshake())), (5, 101));

    // The inner layer leaves the decision about the connection in the extensions of the response.
    let mut responder = stack().service(service_fn(accept));
    assert_eq!(allocations(&mut responder, received(&handshake())), (8, 101));
}

#[test]
fn received_header_value_is_cloned_without_allocation() {
    let request = received(&handshake());
    let value = &request.headers()[HeaderName::from_static("origin")];
    assert_eq!(allocation_counter::measure(|| drop(value.clone())).count_total, 0);
}

/// Comparing each of many tokens with the first would take minutes for a head of the maximum size.
#[test]
fn many_tokens_cost_no_more_than_two() {
    let policy = TokenPolicy::from_sources(
        [TokenSource::query("token").unwrap()],
        StaticTokens::new([("s3cr3t", ())]).unwrap(),
    );
    let guard = GuardLayer::new(origins()).token(policy.unwrap()).unwrap();
    let mut guarded = ServiceBuilder::new().layer(guard).service(service_fn(switch));
    let tokens = |count| {
        let target = format!("/ws?token={}{}", "%61".repeat(5000), "&token=b".repeat(count));
        handshake().target(&target)
    };
    allocations(&mut guarded, received(&tokens(1)));
    let (two, status) = allocations(&mut guarded, received(&tokens(1)));
    assert_eq!(status, 400);
    assert_eq!(allocations(&mut guarded, received(&tokens(1000))), (two, 400));
}

thread_local! {
    /// The connections whose task waits for the client.
    static IDLE: Cell<usize> = const { Cell::new(0) };
}

async fn idle(mut socket: impl AsyncRead + Unpin) {
    IDLE.set(IDLE.get() + 1);
    while socket.read_u8().await.is_ok() {}
}

async fn idle_until_ended(mut socket: Upgraded) {
    IDLE.set(IDLE.get() + 1);
    let ended = socket.ended();
    tokio::select! {
        _ = ended => {}
        _ = socket.read_u8() => {}
    }
}

type Served = BoxCloneService<Request<Incoming>, Response<Body>, Infallible>;

/// The bytes that the server keeps for each open connection.
fn kept(service: &Served) -> i64 {
    const WARM: usize = 10;
    const COUNT: usize = 50;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    // Another thread, whose allocations do not count.
    let (stop, stopped) = mpsc::channel::<()>();
    let clients = thread::spawn(move || {
        let open = |_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(&handshake().bytes()).unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                response.extend(byte);
            }
            assert!(response.starts_with(b"HTTP/1.1 101 "));
            client
        };
        let sockets: Vec<_> = (0..WARM + COUNT).map(open).collect();
        stopped.recv().unwrap_err();
        drop(sockets);
    });
    let serve = async |count| {
        IDLE.set(0);
        for _ in 0..count {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
        while IDLE.get() < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    runtime.block_on(serve(WARM));
    let info = allocation_counter::measure(|| runtime.block_on(serve(COUNT)));
    drop(stop);
    clients.join().unwrap();
    info.bytes_current / COUNT as i64
}

#[test]
fn open_connection_keeps_no_more_than_a_hand_written_one() {
    fn respond<F>(guard: GuardLayer, callback: fn(Upgraded) -> F) -> Served
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = service_fn(move |request: Request<Incoming>| {
            request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(callback);
            ready(Ok(Response::new(Body::default())))
        });
        BoxCloneService::new(guard.respond().layer(handler))
    }
    let other = || service_fn(|_: Request<Incoming>| ready(Ok(Response::new(Body::default()))));
    let hand_written = service_fn(async |mut request: Request<Incoming>| {
        let on_upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(socket) = on_upgrade.await {
                idle(TokioIo::new(socket)).await;
            }
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header(SEC_WEBSOCKET_ACCEPT, common::ACCEPT);
        Ok(response.body(Body::default()).unwrap())
    });
    let hand_written = kept(&BoxCloneService::new(hand_written));

    let guard = || GuardLayer::new(origins());
    let limited = || guard().limit(ConnectionLimit::total(1000).unwrap()).drain(&Drain::new());
    let with = guard().on_upgraded_with(
        |head| head.method == "GET",
        async |socket, is_get| {
            assert!(is_get);
            idle(socket).await;
        },
    );
    for (mode, service) in [
        ("respond", respond(guard(), idle)),
        ("on_upgraded", BoxCloneService::new(guard().on_upgraded(idle).layer(other()))),
        ("on_upgraded_with", BoxCloneService::new(with.layer(other()))),
    ] {
        let kept = kept(&service);
        assert!(kept <= hand_written, "{mode}: {kept} bytes, and {hand_written} by hand");
    }
    for (mode, service) in [
        ("respond", respond(limited(), idle_until_ended)),
        (
            "on_upgraded",
            BoxCloneService::new(limited().on_upgraded(idle_until_ended).layer(other())),
        ),
    ] {
        let kept = kept(&service);
        assert!(kept <= hand_written + 250, "{mode}: {kept} bytes, and {hand_written} by hand");
    }
}

/// A credential is a slice of its header until it is verified, and one subprotocol needs no list.
#[test]
fn token_and_subprotocol_allocate_only_the_claims() {
    let plain = GuardLayer::new(origins()).respond();
    let subprotocols = Subprotocols::list(["chat", "chat.v2"]).unwrap();
    let with_both = plain.clone().subprotocols(subprotocols).token(token()).unwrap();
    let offer =
        handshake().and("Authorization", "Bearer s3cr3t").and("Sec-WebSocket-Protocol", "chat.v2");
    let [before, after] = [(plain, handshake()), (with_both, offer)].map(|(guard, raw)| {
        let mut service = ServiceBuilder::new().layer(guard).service(service_fn(accept));
        allocations(&mut service, received(&raw));
        allocations(&mut service, received(&raw))
    });
    assert_eq!(after, (before.0 + 1, 101));
}

/// A key that stays would show, and so would a map that keeps the size it once had.
#[test]
fn key_without_connections_leaves_no_memory_behind() {
    const KEYS: i64 = 10_000;

    let per_target = |head: &Parts| Some(head.uri.path().to_owned());
    let sessions = Sessions::per_key(1, per_target).unwrap();
    let guard = GuardLayer::new(origins()).sessions(&sessions);
    let permits = Arc::new(Mutex::new(Vec::new()));
    let open = Arc::clone(&permits);
    let mut guarded =
        ServiceBuilder::new().layer(guard).service(service_fn(move |mut request: Request<()>| {
            open.lock().unwrap().extend(Permit::claim(request.extensions_mut()));
            switch(request)
        }));
    let mut connect = |key: i64| {
        let raw = handshake().target(&format!("/ws/{key}"));
        assert_eq!(allocations(&mut guarded, raw.upgradable()).1, 101);
    };
    connect(0);
    permits.lock().unwrap().clear();
    let left = allocation_counter::measure(|| {
        (0..KEYS).for_each(&mut connect);
        assert_eq!(sessions.keys() as i64, KEYS);
        *permits.lock().unwrap() = Vec::new();
    });
    assert_eq!(sessions.connections(), 0);
    let per_key = left.bytes_current / KEYS;
    assert!(per_key < 32, "{per_key} bytes a key");
}
