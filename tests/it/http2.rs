//! WebSocket over HTTP/2 (RFC 8441): upgrade requests, rejections, and the stream that is handed over.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    body::Body as AxumBody,
    extract::{
        FromRequestParts,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::{Html, IntoResponse, Response as AxumResponse},
    routing::any,
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConnectProtocol, ConnectionLimit, Drain, GuardLayer,
    PendingUpgrade, Rejection, ResponderLayer, StaticTokens, Subprotocols, TokenPolicy,
    TokenSource, axum::GuardedUpgrade, is_upgrade_request, test_util,
};
use tracing::{Level, level_filters::LevelFilter};

use crate::{
    common::{Body, eventually, handshake, serve, serve_axum},
    telemetry_log::Recorder,
};

/// A handshake over HTTP/2 with a change.
fn connect(change: impl FnOnce(&mut Request<()>)) -> Request<()> {
    let mut request = handshake().extended_connect();
    change(&mut request);
    request
}

fn protocol(request: &mut Request<()>, protocol: &'static str) {
    request.extensions_mut().insert(Protocol::from_static(protocol));
}

/// An ordinary CONNECT has an authority and nothing else.
fn ordinary_connect() -> Request<()> {
    let mut request = Request::connect("chat.example.com:443").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    request
}

/// The extractors of axum, which see no body, agree.
fn is_classified_as_upgrade_request(request: &Request<()>) -> bool {
    let (mut parts, ()) = request.clone().into_parts();
    let claims = Claims::<()>::from_request_parts(&mut parts, &())
        .now_or_never()
        .expect("nothing to wait for");
    let classified = is_upgrade_request(request);
    assert_eq!(
        claims.unwrap_err().status() == StatusCode::INTERNAL_SERVER_ERROR,
        classified,
        "{request:?}"
    );
    classified
}

#[test]
fn protocol_pseudo_header_makes_an_upgrade_request() {
    let bare = |name| {
        connect(|request| {
            request.headers_mut().clear();
            protocol(request, name);
        })
    };
    for name in [
        "websocket",
        "WebSocket",
        "websockets",
        "xwebsocketx",
        "webtransport",
        "webtransport-h3",
        "WebTransport",
        "webtransport-h2",
    ] {
        assert!(is_classified_as_upgrade_request(&bare(name)), "{name}");
    }
    for name in ["connect-udp", "connect-ip", "web-transport", "web-socket"] {
        assert!(!is_classified_as_upgrade_request(&bare(name)), "{name}");
    }
    // A `:protocol` that this build cannot read, for example of another HTTP/3 implementation.
    let mut unreadable = bare("websocket");
    unreadable.extensions_mut().clear();
    assert!(is_classified_as_upgrade_request(&unreadable));
    *unreadable.version_mut() = Version::HTTP_3;
    assert!(is_classified_as_upgrade_request(&unreadable));

    assert!(!is_classified_as_upgrade_request(&ordinary_connect()));
    let mut lax = ordinary_connect();
    lax.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    assert!(is_classified_as_upgrade_request(&lax));
}

#[tokio::test]
async fn rejection_headers_fit_http2() {
    let header = |name: &'static str, value: &'static str| {
        move |request: &mut Request<()>| {
            request.headers_mut().append(name, value.parse().unwrap());
        }
    };
    let cases = [
        (connect(|_| {}), 200, ""),
        (connect(header("sec-websocket-key", "ignored")), 200, ""),
        (connect(header("host", "chat.example.com")), 200, ""),
        (connect(|request| *request.method_mut() = Method::GET), 405, "method-not-allowed"),
        (connect(|request| *request.method_mut() = Method::POST), 405, "method-not-allowed"),
        (connect(|request| protocol(request, "WebSocket")), 400, "upgrade-missing"),
        (connect(|request| protocol(request, "websockets")), 400, "upgrade-missing"),
        (connect(|request| protocol(request, "connect-udp")), 400, "upgrade-missing"), // it carries a version
        (connect(|request| request.extensions_mut().clear()), 400, "upgrade-missing"),
        (connect(header("host", "other.example")), 400, "host-invalid"),
        (connect(header("host", "chat.example.com:443")), 200, ""),
        (connect(header("host", "chat.example.com:80")), 400, "host-invalid"),
        (connect(|request| *request.uri_mut() = "/ws".parse().unwrap()), 400, "host-invalid"),
        (
            connect(|request| *request.uri_mut() = "https://u@chat.example.com/".parse().unwrap()),
            400,
            "host-invalid",
        ),
        (
            connect(|request| drop(request.headers_mut().remove("sec-websocket-version"))),
            400,
            "version-missing",
        ),
        (connect(header("sec-websocket-version", "13")), 400, "version-invalid"),
        (
            connect(|request| {
                drop(request.headers_mut().insert("sec-websocket-version", "8".parse().unwrap()));
            }),
            400,
            "version-unsupported",
        ),
        (connect(header("content-length", "5")), 400, "body-present"),
        // Gateways carry it on from HTTP/1.1. It would end the stream at the first frame.
        (connect(header("content-length", "0")), 400, "body-present"),
        (connect(header("content-length", "")), 400, "body-present"),
        (connect(header("transfer-encoding", "chunked")), 400, "body-present"),
        (connect(header("sec-websocket-protocol", "a b")), 400, "subprotocol-invalid"),
        (connect(header("sec-websocket-protocol", "theirs")), 400, "subprotocol-unsupported"),
        (connect(header("origin", "https://chat.example.com")), 400, "origin-repeated"),
        (connect(|request| drop(request.headers_mut().remove("origin"))), 403, "origin-missing"),
        (
            connect(|request| drop(request.headers_mut().remove("authorization"))),
            401,
            "token-missing",
        ),
    ];
    let inner = service_fn(async |request: Request<()>| {
        for name in ["sec-websocket-key", "upgrade", "connection"] {
            assert!(!request.headers().contains_key(name), "{name}");
        }
        Ok::<_, Infallible>(Response::new(()))
    });
    for responder in [false, true] {
        for (request, status, code) in &cases {
            let mut request = request.clone();
            if *code != "token-missing" {
                request.headers_mut().insert("authorization", "Bearer s3cr3t".parse().unwrap());
            }
            let on_upgrade = hyper::upgrade::on(&mut request);
            request.extensions_mut().insert(on_upgrade);
            let guard = GuardLayer::new(AllowOrigin::same_origin())
                .subprotocols(Subprotocols::list(["ours"]).unwrap())
                .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap()))
                .unwrap();
            let callback = ResponderLayer::on_upgraded(async |_| {});
            let response = if responder {
                ServiceBuilder::new()
                    .layer(guard)
                    .layer(callback)
                    .service(inner)
                    .oneshot(request)
                    .await
                    .unwrap()
            } else {
                ServiceBuilder::new().layer(guard).service(inner).oneshot(request).await.unwrap()
            };
            let found = response
                .extensions()
                .get::<Rejection>()
                .map_or("", |rejection| rejection.kind().code());
            assert_eq!((response.status().as_u16(), found), (*status, *code));

            let headers = response.headers();
            for never in ["connection", "upgrade", "sec-websocket-accept"] {
                assert!(!headers.contains_key(never), "{never} {code}");
            }
            assert_eq!(headers.contains_key("allow"), *code == "method-not-allowed");
            assert!(headers.get("allow").is_none_or(|methods| methods == "CONNECT"));
            let tells_version = code.starts_with("version-") || *code == "upgrade-missing";
            assert_eq!(headers.contains_key("sec-websocket-version"), tells_version);
            assert_eq!(headers.contains_key("cache-control"), *status != 200);
        }
    }
}

#[tokio::test]
async fn other_connect_request_passes_untouched() {
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(format!("{request:?}")))
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let mut udp = ordinary_connect();
    *udp.uri_mut() = "https://chat.example.com/udp".parse().unwrap();
    protocol(&mut udp, "connect-udp");
    for request in [ordinary_connect(), udp] {
        let before = format!("{request:?}");
        let response = ServiceBuilder::new()
            .layer(guard.clone())
            .service(inner)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(*response.body(), before);
    }
    let required = ServiceBuilder::new().layer(guard.require_websocket()).service(inner);
    let response = required.oneshot(ordinary_connect()).await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(
        !response.headers().contains_key("upgrade")
            && !response.headers().contains_key("connection")
    );
}

#[tokio::test]
async fn success_without_acceptance_becomes_404() {
    // A client would take any 2xx for an open WebSocket.
    for status in [200, 204, 299] {
        let inner = service_fn(move |_: Request<()>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
        });
        let mut request = connect(|_| {});
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
        let response = ServiceBuilder::new()
            .layer(ResponderLayer::new())
            .service(inner)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), 404);
        assert!(!response.headers().contains_key("connection"));
    }
}

/// Sends a handshake over a new HTTP/2 connection; the stream is open if it was accepted.
pub(crate) async fn send_h2(
    address: SocketAddr,
    headers: &[(&'static str, &str)],
) -> Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // The client may use `:protocol` only after it received the settings of the server.
    let warm_up = Request::get("https://chat.example.com/").body(Empty::<Bytes>::new()).unwrap();
    client.ready().await.unwrap();
    client.send_request(warm_up).await.unwrap();

    let mut request =
        Request::connect("https://chat.example.com/ws?room=1").body(Empty::new()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    client.send_request(request).await.unwrap()
}

pub(crate) const OWN: (&str, &str) = ("origin", "https://chat.example.com");
pub(crate) const VERSION: (&str, &str) = ("sec-websocket-version", "13");

#[tokio::test]
async fn stream_is_handed_over_on_a_real_connection() {
    let sources = || [TokenSource::authorization(), TokenSource::pair("bearer").unwrap()];
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::list(["chat.example.com"]).unwrap())
        .subprotocols(Subprotocols::list(["v2", "v1"]).unwrap())
        .token(
            TokenPolicy::from_sources(sources(), StaticTokens::new([("s3cr3t", "alice")]).unwrap())
                .unwrap(),
        )
        .unwrap();
    let decide = service_fn(async |request: Request<hyper::body::Incoming>| {
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            let Claims(user) = *request.extensions().get::<Claims<&str>>().unwrap();
            pending.on_upgrade(async move |mut socket| {
                let mut line = [0; 5];
                socket.read_exact(&mut line).await.unwrap();
                socket
                    .write_all(format!("{} {user}", std::str::from_utf8(&line).unwrap()).as_bytes())
                    .await
                    .unwrap();
                socket.shutdown().await.unwrap();
            });
        }
        Ok::<_, Infallible>(
            Response::builder()
                .header("set-cookie", "seen=1")
                .body(Body::from("not sent"))
                .unwrap(),
        )
    });
    let address =
        serve(ServiceBuilder::new().layer(guard).layer(ResponderLayer::new()).service(decide))
            .await;

    for (carrier, chosen) in [
        (&[("authorization", "Bearer s3cr3t"), ("sec-websocket-protocol", "v1, v2")][..], "v2"),
        (&[("sec-websocket-protocol", "bearer, s3cr3t")][..], "bearer"),
    ] {
        let accepted = send_h2(address, &[&[OWN, VERSION], carrier].concat()).await;
        assert_eq!(accepted.status(), StatusCode::OK);
        assert_eq!(accepted.headers()["sec-websocket-protocol"], chosen);
        assert_eq!(accepted.headers()["set-cookie"], "seen=1");
        for never in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!accepted.headers().contains_key(never), "{never}");
        }
        let mut stream = TokioIo::new(hyper::upgrade::on(accepted).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert_eq!(response, "hello alice");
    }

    let token = ("authorization", "Bearer s3cr3t");
    for (headers, status) in [
        (&[("origin", "https://evil.example"), VERSION, token][..], 403),
        (&[VERSION, token], 403),
        (&[OWN, token], 400),
        (&[OWN, ("sec-websocket-version", "8"), token], 400),
        (&[OWN, VERSION], 401),
        (&[OWN, VERSION, ("authorization", "Bearer guess")], 401),
        (&[OWN, VERSION, token, ("sec-websocket-protocol", "v3")], 400),
        (&[OWN, VERSION, token, ("host", "other.example")], 400),
    ] {
        let rejected = send_h2(address, headers).await;
        assert_eq!(rejected.status(), status, "{headers:?}");
        assert_no_upgrade(rejected.headers());
    }
}

fn assert_no_upgrade(headers: &HeaderMap) {
    assert_eq!(headers["cache-control"], "no-store");
    assert!(!headers.contains_key("connection") && !headers.contains_key("upgrade"));
}

// What a route without a handshake responds

/// Apps that complete no handshake: the name, whether the response has content, and the app.
fn fallbacks() -> Vec<(&'static str, bool, axum::Router)> {
    async fn page() -> Html<&'static str> {
        Html("<!doctype html>")
    }
    async fn file() -> impl IntoResponse {
        let headers = [
            ("content-type", "text/html"),
            ("accept-ranges", "bytes"),
            ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ];
        (headers, "<!doctype html>")
    }
    async fn empty_file() -> impl IntoResponse {
        [("content-length", "0"), ("accept-ranges", "bytes")]
    }
    let router = axum::Router::new;
    vec![
        ("a page", true, router().fallback(page)),
        ("a file", true, router().fallback(file)),
        ("204", false, router().fallback(async || StatusCode::NO_CONTENT)),
        ("a page by a service", true, {
            let service = service_fn(async |_: Request<AxumBody>| {
                let response = Response::builder().header("content-type", "text/html");
                Ok::<_, Infallible>(response.body(AxumBody::from("<!doctype html>")).unwrap())
            });
            router().fallback_service(service)
        }),
        ("a file on a route", true, router().route("/{*path}", any(empty_file))),
    ]
}

#[tokio::test]
async fn success_of_a_fallback_accepts_no_handshake() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let limit = ConnectionLimit::total(9).unwrap();
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    for (fallback, has_content, app) in fallbacks() {
        let limited = guard().limit(limit.clone());
        let responds = guard().respond();
        let responds_limited = guard().respond().limit(limit.clone());
        let stack = ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new());
        for (name, app) in [
            ("guard", has_content.then(|| app.clone().layer(guard()))),
            ("limit", Some(app.clone().layer(limited))),
            ("drain", Some(app.clone().layer(guard().drain(&Drain::new())))),
            ("respond", Some(app.clone().layer(responds))),
            ("respond and limit", Some(app.clone().layer(responds_limited))),
            ("responder", Some(app.clone().layer(stack))),
        ] {
            // Without content, the response may be that of a handler that takes the stream itself.
            let Some(app) = app else { continue };
            let response = send_h2(serve_axum(app).await, &[OWN, VERSION]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{fallback}, {name}");
            eventually(|| limit.connections() == 0).await;
            let [event] = &recorder.take_own()[..] else { panic!("{fallback}, {name}") };
            assert_eq!(
                (event.level(), &*event.fields["code"]),
                (Level::DEBUG, "declined"),
                "{fallback}, {name}"
            );
        }
    }
}

#[tokio::test]
async fn upgrade_in_axum_is_accepted_over_http2() {
    async fn guarded(upgrade: GuardedUpgrade) -> AxumResponse {
        upgrade.on_upgrade(async |socket, ()| greet(socket).await)
    }
    async fn unguarded(upgrade: WebSocketUpgrade) -> AxumResponse {
        upgrade.on_upgrade(greet)
    }
    async fn pending(pending: PendingUpgrade) {
        pending.on_upgrade(async |mut socket| drop(socket.write_all(b"\x81\x02hi").await));
    }
    async fn greet(mut socket: WebSocket) {
        socket.send(Message::text("hi")).await.unwrap();
    }
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let limit = || ConnectionLimit::total(9).unwrap();
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let stack = ServiceBuilder::new().layer(guard().limit(limit())).layer(ResponderLayer::new());
    for (name, route) in [
        ("guarded", any(guarded).layer(guard())),
        ("guarded, limit", any(guarded).layer(guard().limit(limit()))),
        ("unguarded", any(unguarded).layer(guard())),
        ("pending", any(pending).layer(guard().respond())),
        ("pending, limit", any(pending).layer(guard().respond().limit(limit()))),
        ("pending, responder", any(pending).layer(stack)),
    ] {
        let app = axum::Router::new().route("/ws", route);
        for app in [app.clone(), app.fallback(async || Html("<!doctype html>"))] {
            let accepted = send_h2(serve_axum(app).await, &[OWN, VERSION]).await;
            assert_eq!(accepted.status(), StatusCode::OK, "{name}");
            let mut stream = TokioIo::new(hyper::upgrade::on(accepted).await.unwrap());
            let mut frame = [0; 4];
            stream.read_exact(&mut frame).await.unwrap();
            assert_eq!(&frame, b"\x81\x02hi", "{name}");
            let codes = recorder.take_own();
            let codes = codes.iter().map(|event| &*event.fields["code"]).collect::<Vec<_>>();
            assert_eq!(codes, ["accepted"], "{name}");
        }
    }
}

/// Over HTTP/3 an adapter tells what the protocol is.
#[tokio::test]
async fn http3_is_completed_by_its_adapter() {
    let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"]).unwrap())
        .on_upgraded(async |mut socket| drop(socket.write_all(b"hi").await));
    let ordinary =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    let service = ServiceBuilder::new().layer(guard).service(ordinary);
    for (protocol, origin, code) in [
        ("websocket", "https://app.example.com", None),
        ("websocket", "https://evil.example", Some("origin-not-allowed")),
        ("WebSocket", "https://app.example.com", Some("upgrade-missing")),
        ("", "https://app.example.com", Some("upgrade-missing")),
    ] {
        let request = test_util::handshake("/ws").origin(origin).http2();
        let (mut request, mut client) = request.upgradable(()).await;
        *request.version_mut() = Version::HTTP_3;
        request.extensions_mut().insert(ConnectProtocol::new(protocol));
        let response = service.clone().oneshot(request).await.unwrap();
        match code {
            Some(code) => test_util::assert_rejected(&response, code),
            None => {
                test_util::assert_accepted_http2(&response);
                let mut received = [0; 2];
                client.read_exact(&mut received).await.unwrap();
                assert_eq!(&received, b"hi");
            }
        }
    }
}
