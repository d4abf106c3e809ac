//! `ResponderLayer`: the 101, `PendingUpgrade`, and the hand-over of the connection.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode, request::Parts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::sleep,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AllowOrigin, Claims, ConnectionLimit, Drain, GuardLayer, PendingUpgrade, Rejection,
    ResponderLayer, StaticTokens, Subprotocols, TokenPolicy, Upgraded, VersionCheckLayer,
    test_util,
};

use crate::common::{ACCEPT, Body, handshake, plain, send, serve, upgradable};

/// Reads a line, and responds with it and the subprotocol of the socket.
async fn echo_line(mut socket: Upgraded) {
    let mut line = [0; 5];
    socket.read_exact(&mut line).await.unwrap();
    let response = format!("{} {:?}", std::str::from_utf8(&line).unwrap(), socket.subprotocol());
    socket.write_all(response.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
}

#[tokio::test]
async fn inner_service_accepts_or_declines_the_pending_upgrade() {
    let inner = service_fn(async |request: Request<hyper::body::Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().cloned();
        let response =
            Response::builder().header("set-cookie", "seen=1").header("content-length", "11");
        Ok::<_, Infallible>(
            match (request.uri().query(), pending) {
                (Some("accept"), Some(pending)) => {
                    pending.on_upgrade(echo_line);
                    response.body(Body::from("not sent..."))
                }
                (Some(query @ ("cancel" | "fail")), Some(pending)) => {
                    // The greeting would follow the response.
                    pending.on_upgrade(async |mut socket| {
                        socket.write_all(b"handed over").await.unwrap();
                    });
                    let status = if query == "fail" { 500 } else { 403 };
                    response.status(status).body(Body::from("not allowed"))
                }
                (_, pending) => response.body(Body::from(if pending.is_some() {
                    "declined it"
                } else {
                    "ordinary..."
                })),
            }
            .unwrap(),
        )
    });
    let layer = ResponderLayer::new().subprotocols(Subprotocols::list(["chat"]).unwrap());
    let address = serve(layer.layer(inner)).await;

    let raw = handshake().and("Sec-WebSocket-Protocol", "other, chat");
    // The bytes after the request are not lost.
    let mut accepted = send(address, &raw.clone().target("/ws?accept").body("hello").bytes()).await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.all("sec-websocket-accept"), [ACCEPT]);
    assert_eq!(accepted.all("sec-websocket-protocol"), ["chat"]);
    assert_eq!(accepted.all("set-cookie"), ["seen=1"]);
    assert!(accepted.all("content-length").is_empty());
    assert_eq!(accepted.read_rest().await, r#"hello Some("chat")"#);

    for (raw, status, body) in [
        (raw.clone().target("/ws?cancel"), 403, "not allowed"),
        (raw.clone().target("/ws?fail"), 500, "not allowed"),
        (raw.clone().target("/ws?decline"), 200, "declined it"),
        (plain().target("/ws?accept"), 200, "ordinary..."),
    ] {
        // The server closes the connection of a declined handshake.
        let raw = if status == 200 && body == "ordinary..." {
            raw.and("Connection", "close")
        } else {
            raw
        };
        let mut response = send(address, &raw.bytes()).await;
        assert_eq!(response.status, status);
        assert!(response.all("sec-websocket-accept").is_empty());
        assert_eq!(response.all("set-cookie"), ["seen=1"]);
        assert_eq!(response.read_rest().await, body);
    }
}

#[tokio::test]
async fn accepted_response_may_have_content_behind_an_inner_layer() {
    /// Accepts, and keeps the connection in the response.
    async fn accepts(request: Request<()>) -> Result<Response<()>, Infallible> {
        let pending = request.extensions().get::<PendingUpgrade>().unwrap();
        let upgrade = Arc::new(pending.accept().unwrap());
        let response = Response::builder().header("content-type", "text/html").extension(upgrade);
        Ok(response.body(()).unwrap())
    }

    let version = VersionCheckLayer::new;
    let limited = || version().limit(ConnectionLimit::total(1).unwrap());
    let drained = || version().drain(&Drain::new());
    for (name, inner) in [
        ("version", version()),
        ("limit", limited()),
        ("drain", drained()),
        ("report", version().dangerous_report_only()),
        ("report, limit", limited().dangerous_report_only()),
        ("report, drain", drained().dangerous_report_only()),
    ] {
        let guard = GuardLayer::new(AllowOrigin::same_origin()).respond();
        let app = ServiceBuilder::new().layer(guard).layer(inner).service_fn(accepts);
        for (request, status) in upgradable(&handshake()).into_iter().zip([101, 200]) {
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{name}");
            assert!(!response.headers().contains_key("content-type"), "{name}");
        }
    }
}

#[tokio::test]
async fn callback_receives_the_connection_and_a_value_from_the_head() {
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::from("ordinary")))
    });
    let stack = ServiceBuilder::new()
        .layer(
            GuardLayer::new(AllowOrigin::same_origin())
                .subprotocols(Subprotocols::list(["v2", "v1"]).unwrap())
                .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]).unwrap()))
                .unwrap(),
        )
        .layer(ResponderLayer::on_upgraded_with(
            |head| {
                let Claims(user) = head.extensions.get::<Claims<&str>>().unwrap();
                format!("{user} {}", head.uri)
            },
            async |mut socket, who| {
                let greeting = format!("{who} {:?}", socket.subprotocol());
                socket.write_all(greeting.as_bytes()).await.unwrap();
            },
        ));
    let address = serve(stack.service(inner)).await;

    let raw = handshake().target("/ws?room=1").and("Authorization", "Bearer s3cr3t");
    let mut accepted =
        send(address, &raw.clone().and("Sec-WebSocket-Protocol", "v1, v2").bytes()).await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.read_rest().await, r#"alice /ws?room=1 Some("v2")"#);

    assert_eq!(send(address, &raw.with("Authorization", "Bearer x").bytes()).await.status, 401);
    assert_eq!(send(address, &plain().bytes()).await.status, 200);
}

#[tokio::test]
async fn head_is_dropped_before_the_response_of_a_callback() {
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let with_head = guard()
        .on_upgraded_with(|head| head.uri.to_string(), async |socket, _| echo_line(socket).await);
    let waits = guard().authorize(async |_: &Parts| {
        tokio::task::yield_now().await;
        Ok(())
    });
    let stacked =
        ServiceBuilder::new().layer(guard()).layer(ResponderLayer::on_upgraded(echo_line));
    for service in [
        BoxCloneSyncService::new(guard().on_upgraded(echo_line).layer(inner)),
        BoxCloneSyncService::new(with_head.layer(inner)),
        BoxCloneSyncService::new(waits.on_upgraded(echo_line).layer(inner)),
        BoxCloneSyncService::new(stacked.service(inner)),
    ] {
        let (mut request, _client) = test_util::upgradable(handshake().request()).await;
        let in_the_head = Arc::new(());
        request.extensions_mut().insert(Arc::clone(&in_the_head));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(Arc::strong_count(&in_the_head), 1);
        // Nothing of the request is in the response.
        let mut names = response.headers().keys().map(|name| name.as_str()).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, ["connection", "sec-websocket-accept", "upgrade"]);
        assert!(response.extensions().is_empty());
    }
}

#[tokio::test]
async fn non_upgradable_connection_is_rejected_with_500() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let rejected = ResponderLayer::new().layer(inner).oneshot(handshake().request()).await.unwrap();
    assert_eq!(rejected.status(), 500);
    assert_eq!(rejected.extensions().get::<Rejection>().unwrap().kind().code(), "not-upgradable");

    let rejected =
        ResponderLayer::on_upgraded(async |_| {}).layer(inner).oneshot(handshake().request());
    assert_eq!(rejected.await.unwrap().status(), 500);
}

#[tokio::test]
async fn unaccepted_101_is_replaced_by_500() {
    let inner = service_fn(async |_: Request<()>| {
        let response = Response::builder().status(101).header("sec-websocket-accept", ACCEPT);
        Ok::<_, Infallible>(response.body(()).unwrap())
    });
    let response =
        ResponderLayer::new().layer(inner).oneshot(handshake().upgradable()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    assert_eq!(response.headers()["connection"], "close");
}

#[tokio::test]
async fn pending_upgrade_is_accepted_once_and_before_the_response() {
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
async fn failed_upgrade_does_not_reach_the_callback() {
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
    // The upgrade of a request without a connection fails.
    ResponderLayer::new().layer(inner).oneshot(handshake().upgradable()).await.unwrap();
    let error = upgrades.recv().await.unwrap().await.unwrap_err();
    assert!(error.to_string().contains("not upgraded"));
    assert!(std::error::Error::source(&error).is_some());
    assert!(!called.load(Ordering::SeqCst));
}

#[tokio::test]
async fn callback_panic_ends_only_its_own_connection() {
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let layer = ResponderLayer::on_upgraded_with(
        |head| {
            assert_ne!(head.uri.path(), "/panic-early");
            head.uri.path() == "/panic"
        },
        async |socket, panics| {
            assert!(!panics);
            echo_line(socket).await;
        },
    );
    let address = serve(layer.layer(inner)).await;
    let mut panicked = send(address, &handshake().target("/panic").bytes()).await;
    assert_eq!(panicked.status, 101);
    assert_eq!(panicked.read_rest().await, "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&handshake().target("/panic-early").bytes()).await.unwrap();
    let mut response = Vec::new();
    drop(stream.read_to_end(&mut response).await);
    assert_eq!(response, b"");
    let mut other = send(address, &handshake().body("hello").bytes()).await;
    assert_eq!(other.read_rest().await, "hello None");
}

#[tokio::test]
async fn idle_connection_stays_open() {
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let address = serve(ResponderLayer::on_upgraded(echo_line).layer(inner)).await;
    let mut response = send(address, &handshake().bytes()).await;
    sleep(Duration::from_millis(50)).await;
    response.stream.write_all(b"later").await.unwrap();
    assert_eq!(response.read_rest().await, "later None");
}

#[tokio::test(start_paused = true)]
async fn slow_handler_keeps_its_connection() {
    let inner = service_fn(async |request: Request<()>| {
        let pending = request.extensions().get::<PendingUpgrade>().unwrap().clone();
        pending.on_upgrade(async |mut socket| socket.write_all(b"open").await.unwrap());
        sleep(Duration::from_secs(3600)).await;
        Ok::<_, Infallible>(Response::new(()))
    });
    let (request, mut client) = test_util::upgradable(handshake().request()).await;
    let response = ResponderLayer::new().layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"open");
}
