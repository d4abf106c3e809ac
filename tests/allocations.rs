//! Allocations per request, from `call` to the response.

mod common;

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use common::{Raw, handshake, plain};
use http::{HeaderName, HeaderValue, Request, Response, request::Parts};
use tower::{Service, ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, GuardLayer, Handshake, OriginCheckLayer, PendingUpgrade, Permit,
    ResponderLayer, Sessions, StaticTokens, Subprotocols, TokenCheckLayer, TokenPolicy,
    TokenSource, VersionCheckLayer,
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
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
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
    // The header map takes two, the `Rejection` in the extensions three.
    assert_eq!(allocations(&mut guard, received(&foreign)), (5, 403));
}

#[test]
fn accepted_handshake_allocates_little() {
    let mut guarded =
        ServiceBuilder::new().layer(GuardLayer::new(origins())).service(service_fn(switch));
    allocations(&mut guarded, received(&handshake()));
    // `tracing` and `metrics` keep data of the request in the extensions, which have little room.
    assert_eq!(allocations(&mut guarded, received(&handshake())), (2, 101));

    let stack =
        || ServiceBuilder::new().layer(GuardLayer::new(origins())).layer(ResponderLayer::new());
    // The header map takes two, the accept key one, `PendingUpgrade` two, and `tracing` and `metrics` two.
    let mut one = ServiceBuilder::new()
        .layer(GuardLayer::new(origins()).respond())
        .service(service_fn(accept));
    assert_eq!(allocations(&mut one, received(&handshake())), (7, 101));

    // The inner layer leaves the decision about the connection in the extensions of the response.
    let mut responder = stack().service(service_fn(accept));
    assert_eq!(allocations(&mut responder, received(&handshake())), (10, 101));
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
