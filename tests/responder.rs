//! The answer and the upgraded connection.

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{ACCEPT, Body, Raw, handshake, plain, send, serve};
use http::{Request, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, GuardLayer, PendingUpgrade, Rejection, ResponderLayer, StaticTokens, Subprotocols,
    TokenCheckLayer, TokenPolicy, TokenSource, Upgraded,
};

/// Reads a line and sends it back with what the socket knows of itself.
async fn answer_line(mut socket: Upgraded) {
    let mut line = [0; 5];
    socket.read_exact(&mut line).await.unwrap();
    let answer = format!("{} {:?}", std::str::from_utf8(&line).unwrap(), socket.subprotocol());
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_inner_service_decides() {
    let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().cloned();
        let response = Response::builder().header("set-cookie", "seen=1").header("content-length", "11");
        Ok::<_, Infallible>(
            match (request.uri().query(), pending) {
                (Some("accept"), Some(pending)) => {
                    pending.on_upgrade(answer_line);
                    response.body(Body::from("not sent..."))
                }
                (Some("cancel"), Some(pending)) => {
                    // It would follow the answer.
                    pending.on_upgrade(async |mut socket| socket.write_all(b"handed over").await.unwrap());
                    response.status(403).body(Body::from("not allowed"))
                }
                (_, pending) => {
                    response.body(Body::from(if pending.is_some() { "declined it" } else { "ordinary..." }))
                }
            }
            .unwrap(),
        )
    });
    let layer = ResponderLayer::new().subprotocols(Subprotocols::list(["chat"]).unwrap());
    let address = serve(layer.layer(inner)).await;

    let raw = handshake().and("Sec-WebSocket-Protocol", "other, chat");
    // The bytes right behind the request are not lost.
    let mut accepted = send(address, &raw.clone().target("/ws?accept").body("hello").bytes()).await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.all("sec-websocket-accept"), [ACCEPT]);
    assert_eq!(accepted.all("sec-websocket-protocol"), ["chat"]);
    assert_eq!(accepted.all("set-cookie"), ["seen=1"]);
    assert!(accepted.all("content-length").is_empty());
    assert_eq!(accepted.read_rest().await, r#"hello Some("chat")"#);

    for (raw, status, body) in [
        (raw.clone().target("/ws?cancel"), 403, "not allowed"),
        (raw.clone().target("/ws?decline"), 200, "declined it"),
        (plain().target("/ws?accept"), 200, "ordinary..."),
    ] {
        let mut answer = send(address, &raw.and("Connection", "close").bytes()).await;
        assert_eq!(answer.status, status);
        assert!(answer.all("sec-websocket-accept").is_empty());
        assert_eq!(answer.all("set-cookie"), ["seen=1"]);
        assert_eq!(answer.read_rest().await, body);
    }
}

#[tokio::test]
async fn a_callback_gets_the_connection_and_the_request() {
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::from("ordinary")))
    });
    let stack = ServiceBuilder::new()
        .layer(
            GuardLayer::new(AllowOrigin::same_origin())
                .subprotocols(Subprotocols::list(["v2", "v1"]).unwrap())
                .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]))),
        )
        .layer(ResponderLayer::on_upgraded(async |mut socket, request| {
            let Claims(user) = request.extensions.get::<Claims<&str>>().unwrap();
            let greeting = format!("{user} {} {:?}", request.uri, socket.subprotocol());
            socket.write_all(greeting.as_bytes()).await.unwrap();
        }));
    let address = serve(stack.service(inner)).await;

    let raw = handshake().target("/ws?room=1").and("Authorization", "Bearer s3cr3t");
    let mut accepted = send(address, &raw.clone().and("Sec-WebSocket-Protocol", "v1, v2").bytes()).await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.read_rest().await, r#"alice /ws?room=1 Some("v2")"#);

    assert_eq!(send(address, &raw.with("Authorization", "Bearer x").bytes()).await.status, 401);
    assert_eq!(send(address, &plain().bytes()).await.status, 200);
}

#[tokio::test]
async fn a_connection_that_cannot_be_upgraded_is_not_answered_101() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let refused = ResponderLayer::new().layer(inner).oneshot(handshake().request()).await.unwrap();
    assert_eq!(refused.status(), 500);
    assert_eq!(refused.extensions().get::<Rejection>().unwrap().kind().code(), "not-upgradable");

    let refused = ResponderLayer::on_upgraded(async |_, _| {}).layer(inner).oneshot(handshake().request());
    assert_eq!(refused.await.unwrap().status(), 500);
}

#[tokio::test]
async fn no_other_101_gets_past_the_responder() {
    let inner = service_fn(async |_: Request<()>| {
        let response = Response::builder().status(101).header("sec-websocket-accept", ACCEPT);
        Ok::<_, Infallible>(response.body(()).unwrap())
    });
    let response = ResponderLayer::new().layer(inner).oneshot(handshake().upgradable()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    assert_eq!(response.headers()["connection"], "close");
}

#[tokio::test]
async fn a_handshake_is_accepted_once_and_in_time() {
    let (sender, mut late) = mpsc::unbounded_channel();
    let inner = service_fn(move |request: Request<()>| {
        let sender = sender.clone();
        async move {
            let pending = request.extensions().get::<PendingUpgrade>().unwrap().clone();
            if request.uri().path() == "/ws" {
                assert!(pending.accept().is_some());
                assert!(pending.accept().is_none());
            }
            sender.send(pending).unwrap();
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    let service = ResponderLayer::new().layer(inner);
    let accepted = service.clone().oneshot(handshake().upgradable()).await.unwrap();
    assert_eq!(accepted.status(), 101);
    let declined = service.oneshot(handshake().target("/other").upgradable()).await.unwrap();
    assert_eq!(declined.status(), 200);
    for _ in 0..2 {
        assert!(late.recv().await.unwrap().accept().is_none());
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_101_does_not_reach_the_callback() {
    let called = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&called);
    let (sender, mut upgrades) = mpsc::unbounded_channel();
    let inner = service_fn(move |request: Request<()>| {
        let (sender, flag) = (sender.clone(), Arc::clone(&flag));
        async move {
            let pending = request.extensions().get::<PendingUpgrade>().unwrap();
            sender.send(pending.accept().unwrap()).unwrap();
            pending.on_upgrade(move |_| async move { flag.store(true, Ordering::SeqCst) });
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    // The upgrade of a request that no connection stands behind fails.
    ResponderLayer::new().layer(inner).oneshot(handshake().upgradable()).await.unwrap();
    let error = upgrades.recv().await.unwrap().await.unwrap_err();
    assert!(error.to_string().contains("not upgraded"));
    assert!(std::error::Error::source(&error).is_some());
    assert!(!called.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_panic_in_a_callback_ends_its_own_connection_alone() {
    let inner =
        service_fn(async |_: Request<hyper::body::Incoming>| Ok::<_, Infallible>(Response::new(Body::default())));
    let layer = ResponderLayer::on_upgraded(async |socket, request| match request.uri.path() {
        "/panic" => panic!("callback"),
        _ => answer_line(socket).await,
    });
    let address = serve(layer.layer(inner)).await;
    let mut panicked = send(address, &handshake().target("/panic").bytes()).await;
    assert_eq!(panicked.status, 101);
    assert_eq!(panicked.read_rest().await, "");
    let mut other = send(address, &handshake().body("hello").bytes()).await;
    assert_eq!(other.read_rest().await, "hello None");
}

#[tokio::test]
async fn subprotocols_are_negotiated() {
    let inner = service_fn(async |request: Request<()>| {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        // Whatever the inner service says, the answer names what was negotiated.
        Ok::<_, Infallible>(Response::builder().header("sec-websocket-protocol", "inner").body(()).unwrap())
    });
    let list = || Subprotocols::list(["v2.chat", "v1.chat"]).unwrap();
    let server = || ResponderLayer::new().subprotocols(list());
    let client = || ResponderLayer::new().subprotocols(list().prefer_client_order());
    let offer = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    type Outcome = Result<Option<&'static str>, u16>;
    let cases: [(ResponderLayer, Raw, Outcome); 12] = [
        (server(), offer("v1.chat, v2.chat"), Ok(Some("v2.chat"))),
        (client(), offer("x, v1.chat, v2.chat"), Ok(Some("v1.chat"))),
        (server(), offer("other, v1.chat"), Ok(Some("v1.chat"))),
        (server(), offer("v1.chat").and("Sec-WebSocket-Protocol", "v2.chat"), Ok(Some("v2.chat"))),
        (server(), offer("foo\t,\tv1.chat\t"), Ok(Some("v1.chat"))),
        (server(), handshake(), Ok(None)),
        (ResponderLayer::new(), handshake(), Ok(None)),
        (server(), offer("v3.chat"), Err(400)),
        (server(), offer("V1.chat"), Err(400)),
        (ResponderLayer::new(), offer("chat"), Err(400)),
        (server().accept_unmatched_subprotocols(), offer("v3.chat"), Ok(None)),
        (server().accept_unmatched_subprotocols(), offer("v1.chat"), Ok(Some("v1.chat"))),
    ];
    for (layer, raw, expected) in cases {
        let response = layer.layer(inner).oneshot(raw.upgradable()).await.unwrap();
        let outcome = match response.status().as_u16() {
            101 => Ok(response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap())),
            status => Err(status),
        };
        assert_eq!(outcome, expected, "{raw:?}");
    }
}

#[tokio::test]
async fn separate_layers_answer_as_the_guard_does() {
    let accept = |request: Request<()>| async move {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        Ok::<_, Infallible>(Response::new(()))
    };
    let sources = || [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("auth.").unwrap()];
    let token = || TokenPolicy::from_sources(sources(), StaticTokens::new([("s3cr3t", ())])).unwrap();
    let ours = || Subprotocols::list(["chat"]).unwrap();
    let guard = ServiceBuilder::new()
        .layer(GuardLayer::new(AllowOrigin::same_origin()).subprotocols(ours()).token(token()))
        .layer(ResponderLayer::new())
        .service(service_fn(accept));
    let layers = ServiceBuilder::new()
        .layer(tower_ws_guard::VersionCheckLayer::new())
        .layer(tower_ws_guard::OriginCheckLayer::new(AllowOrigin::same_origin()))
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
            let chosen = response.headers().get("sec-websocket-protocol").map_or("-", |value| value.to_str().unwrap());
            assert_eq!(format!("{} {chosen}", response.status().as_u16()), expected, "{offered}");
        }
    }
}

#[tokio::test]
async fn an_idle_connection_stays_open() {
    let inner =
        service_fn(async |_: Request<hyper::body::Incoming>| Ok::<_, Infallible>(Response::new(Body::default())));
    let address = serve(ResponderLayer::on_upgraded(async |socket, _| answer_line(socket).await).layer(inner)).await;
    let mut answer = send(address, &handshake().bytes()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    answer.stream.write_all(b"later").await.unwrap();
    assert_eq!(answer.read_rest().await, "later None");
}
