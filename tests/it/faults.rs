//! Faults around a handshake end only that handshake. The docs of `guard` describe the response to the client.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, Version, request::Parts};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, GuardLayer, Origin, PendingUpgrade, Rejection, RejectionKind,
    RequestHead, ResponderLayer, Sessions, Token, TokenPolicy, Upgraded, Verified, VerifyToken,
    check_fn, response_fn,
};

use crate::common::{
    ACCEPT, Body, Raw, RawResponse, eventually, handshake, plain, send, serve, serve_fallible,
};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("in time")
}

// Server: it fails as the path says

fn fault(uri: &Uri) -> &str {
    uri.path().trim_start_matches('/')
}

#[derive(Clone)]
struct Verifier;

impl VerifyToken for Verifier {
    type Claims = ();

    async fn verify(&self, _: Token, request: &Parts) -> Result<Verified<()>, Rejection> {
        match fault(&request.uri) {
            "verifier-panics" => panic!("on purpose"),
            "verifier-hangs" => std::future::pending().await,
            "verifier-fails" => Err(Rejection::verifier_failed("on purpose")),
            "responder-panics-late" => Err(RejectionKind::TokenForbidden.into()),
            "verifier-is-slow" => {
                sleep(Duration::from_millis(50)).await;
                Ok(().into())
            }
            _ => Ok(().into()),
        }
    }
}

fn response(_: &Rejection, request: &Parts, prepared: Response<()>) -> Response<Body> {
    let response = Response::builder();
    let replaced = match fault(&request.uri) {
        "responder-panics" | "responder-panics-late" => panic!("on purpose"),
        "responder-switches" => {
            let response =
                response.status(101).header("connection", "upgrade").header("upgrade", "websocket");
            response.header("sec-websocket-accept", ACCEPT)
        }
        "responder-succeeds" => response.status(200),
        "responder-drops-headers" => response.status(prepared.status()),
        "responder-redirects" => response.status(302).header("location", "/elsewhere"),
        _ => return prepared.map(|()| Body::default()),
    };
    replaced.body(Body::default()).unwrap()
}

async fn echo(mut socket: Upgraded) {
    let (mut read, mut write) = tokio::io::split(&mut socket);
    tokio::io::copy(&mut read, &mut write).await.ok();
}

/// Sends a greeting that no client may receive.
async fn greet(mut socket: impl AsyncWrite + Unpin) {
    socket.write_all(b"you are in").await.ok();
    socket.shutdown().await.ok();
}

async fn inner(mut request: Request<Incoming>) -> io::Result<Response<Body>> {
    let mut response = Response::new(Body::default());
    let Some(pending) = request.extensions().get::<PendingUpgrade>().cloned() else {
        return Ok(response);
    };
    let completed = if request.version() == Version::HTTP_2 {
        StatusCode::OK
    } else {
        StatusCode::SWITCHING_PROTOCOLS
    };
    match fault(request.uri()) {
        "inner-fails" => return Err(io::Error::other("on purpose")),
        "inner-panics" => panic!("on purpose"),
        "inner-hangs" => std::future::pending().await,
        "inner-accepts-and-fails" => {
            pending.on_upgrade(greet);
            return Err(io::Error::other("on purpose"));
        }
        "inner-accepts-and-panics" => {
            pending.on_upgrade(greet);
            panic!("on purpose");
        }
        "inner-switches" => *response.status_mut() = completed,
        "inner-takes-the-upgrade" => {
            let on_upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async {
                greet(TokioIo::new(on_upgrade.await?)).await;
                Ok::<_, hyper::Error>(())
            });
            *response.status_mut() = completed;
        }
        "callback-panics" => pending.on_upgrade(async |_| panic!("on purpose")),
        _ => pending.on_upgrade(echo),
    }
    Ok(response)
}

/// Serves all faults; returns the limit to count open connections.
async fn server(check_timeout: Duration) -> (SocketAddr, ConnectionLimit) {
    let limit = ConnectionLimit::total(100).unwrap();
    let key = |request: &Parts| {
        assert_ne!(fault(&request.uri), "key-panics");
        Some(())
    };
    let origin = |_: &Origin<'_>, handshake: &RequestHead<'_>| {
        assert_ne!(fault(handshake.uri()), "origin-panics");
        true
    };
    let guard = GuardLayer::new(AllowOrigin::predicate(origin))
        .check(check_fn(|handshake| match fault(handshake.uri()) {
            "check-panics" => panic!("on purpose"),
            "responder-panics-late" => Ok(()),
            fault if fault.starts_with("responder") => {
                Err(Rejection::custom("refused", StatusCode::FORBIDDEN))
            }
            _ => Ok(()),
        }))
        .token(TokenPolicy::bearer(Verifier))
        .unwrap()
        .check_timeout(check_timeout)
        .unwrap()
        .limit(limit.clone())
        .sessions(&Sessions::per_key(100, key).unwrap())
        .reject_with(response_fn(response));
    let layers = ServiceBuilder::new()
        .map_response(|mut response: Response<Body>| {
            let code = response
                .extensions()
                .get::<Rejection>()
                .map(|rejection| rejection.kind().code().parse().unwrap());
            response
                .headers_mut()
                .extend(code.map(|code| (HeaderName::from_static("x-code"), code)));
            response
        })
        .map_request(|mut request: Request<Incoming>| {
            if fault(request.uri()) == "outside-takes-the-upgrade" {
                request.extensions_mut().remove::<OnUpgrade>();
            }
            request
        })
        .layer(guard)
        .layer(ResponderLayer::new());
    (serve_fallible(layers.service_fn(inner)).await, limit)
}

fn request(fault: &str) -> Raw {
    handshake().target(&format!("/{fault}")).and("Authorization", "Bearer x")
}

// Clients

async fn echoes(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    let mut echoed = [0; 5];
    let exchange = async {
        socket.write_all(b"hello").await?;
        socket.read_exact(&mut echoed).await
    };
    soon(exchange).await.is_ok() && &echoed == b"hello"
}

/// Returns `None` if the connection ends without a response.
async fn send_http1(address: SocketAddr, raw: &Raw) -> Option<RawResponse> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&raw.bytes()).await.unwrap();
    let mut first = [0];
    match soon(stream.peek(&mut first)).await {
        Ok(1..) => Some(RawResponse::read(stream).await),
        Ok(0) | Err(_) => None,
    }
}

/// A connection for several handshakes.
async fn connect_http2(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // The client may use `:protocol` only after it received the settings of the server.
    client.send_request(plain().target("http://a/").version("HTTP/2").request()).await.unwrap();
    client
}

type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// Returns an open stream, or the response that rejected it.
async fn send_http2(
    client: &mut SendRequest<Empty<Bytes>>,
    raw: &Raw,
) -> hyper::Result<Result<Stream, (u16, HeaderMap)>> {
    let response = soon(client.send_request(raw.extended_connect())).await?;
    Ok(match response.status() {
        StatusCode::OK => Ok(TokioIo::new(soon(hyper::upgrade::on(response)).await?)),
        status => Err((status.as_u16(), response.headers().clone())),
    })
}

// Faults

#[tokio::test]
async fn fault_ends_only_its_own_handshake() {
    let (address, limit) = server(Duration::from_millis(200)).await;
    let mut witness = send(address, &request("").bytes()).await;
    assert_eq!(witness.status, 101);

    // The status and code of the rejection; `None` where the connection (over HTTP/2: the stream) ends without a
    // response.
    let accepted = Some((101, ""));
    for (fault, expected) in [
        ("check-panics", None),
        ("origin-panics", None),
        ("key-panics", None),
        ("verifier-panics", None),
        ("verifier-hangs", Some((503, "verifier-timeout"))),
        ("verifier-fails", Some((503, "verifier-failed"))),
        ("verifier-is-slow", accepted),
        ("responder-panics", None),
        ("responder-panics-late", None),
        ("responder-switches", Some((403, "refused"))),
        ("responder-succeeds", Some((403, "refused"))),
        ("responder-redirects", Some((403, "refused"))),
        ("responder-drops-headers", Some((403, "refused"))),
        ("inner-fails", None),
        ("inner-panics", None),
        ("inner-accepts-and-fails", None),
        ("inner-accepts-and-panics", None),
        ("inner-switches", Some((500, "not-upgradable"))),
        ("inner-takes-the-upgrade", Some((500, "not-upgradable"))),
        ("outside-takes-the-upgrade", Some((500, "not-upgradable"))),
        ("callback-panics", accepted),
    ] {
        let response = send_http1(address, &request(fault)).await;
        let verdict = response.as_ref().map(|response| {
            (response.status, response.all("x-code").first().copied().unwrap_or(""))
        });
        assert_eq!(verdict, expected, "{fault}");
        if let Some(response) = response.as_ref().filter(|response| response.status != 101) {
            assert!(
                response.has("connection", "close") && response.has("cache-control", "no-store"),
                "{fault}"
            );
        }
        if let Some(mut response) = response {
            match fault {
                "verifier-is-slow" => assert!(echoes(&mut response.stream).await),
                _ => assert_eq!(response.read_rest().await, "", "{fault}"),
            }
        }
        assert!(echoes(&mut witness.stream).await, "{fault}");

        let mut client = connect_http2(address).await;
        let mut neighbour = send_http2(&mut client, &request("")).await.unwrap().unwrap();
        match (send_http2(&mut client, &request(fault)).await, expected) {
            (Ok(Ok(mut stream)), Some((101, _))) => match fault {
                "verifier-is-slow" => assert!(echoes(&mut stream).await),
                _ => assert_eq!(
                    soon(stream.read_to_end(&mut Vec::new())).await.unwrap_or(0),
                    0,
                    "{fault}"
                ),
            },
            // Over HTTP/2 a success of a handler that accepted nothing declines the handshake.
            (Ok(Err((404, _))), _)
                if ["inner-switches", "inner-takes-the-upgrade"].contains(&fault) => {}
            (Ok(Err((status, headers))), Some(rejected)) => {
                assert_eq!((status, headers["x-code"].to_str().unwrap()), rejected, "{fault}");
                assert_eq!(headers["cache-control"], "no-store", "{fault}");
            }
            (Err(_), None) => {}
            (response, _) => panic!("{fault}: {:?}", response.map(drop)),
        }
        assert!(echoes(&mut neighbour).await, "{fault}");
        assert!(send_http2(&mut client, &request("")).await.unwrap().is_ok(), "{fault}");
        drop((neighbour, client));
        assert!(echoes(&mut witness.stream).await, "{fault}");
        // Only the witness is left.
        eventually(|| limit.connections() == 1).await;
    }
    assert_eq!(send(address, &request("").bytes()).await.status, 101);
}

#[tokio::test]
async fn http2_stream_reset_leaves_the_connection_open() {
    let (address, limit) = server(LONG).await;
    let mut client = connect_http2(address).await;
    let mut neighbour = send_http2(&mut client, &request("")).await.unwrap().unwrap();
    // Reset before the verdict and before the response: without and with a permit.
    for (fault, permits) in [("verifier-hangs", 1), ("inner-hangs", 2)] {
        for _ in 0..10 {
            let mut response = Box::pin(client.send_request(request(fault).extended_connect()));
            assert!(timeout(Duration::from_millis(10), &mut response).await.is_err());
            assert!(echoes(&mut neighbour).await, "{fault}");
            eventually(|| limit.connections() == permits).await;
            drop(response);
            eventually(|| limit.connections() == 1).await;
            assert!(echoes(&mut neighbour).await, "{fault}");
        }
    }
    // Reset after the response: with and without the stream, and in the middle of data.
    for sends in [None, Some(&b"hello"[..]), Some(&[0; 100_000])] {
        let mut stream = send_http2(&mut client, &request("")).await.unwrap().unwrap();
        if let Some(sent) = sends {
            // Nobody reads the echo.
            timeout(Duration::from_millis(50), stream.write_all(sent)).await.ok();
        }
        drop(stream);
        drop(client.send_request(request("").extended_connect::<Empty<Bytes>>()).await);
        eventually(|| limit.connections() == 1).await;
        assert!(echoes(&mut neighbour).await);
    }
}

/// Ready only while told to be.
#[derive(Clone)]
struct Stuck<S> {
    inner: S,
    ready: Arc<AtomicBool>,
    waiting: Arc<Mutex<Vec<Waker>>>,
    asked: mpsc::UnboundedSender<()>,
}

impl<S: Service<R>, R> Service<R> for Stuck<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.ready.load(Ordering::SeqCst) {
            return self.inner.poll_ready(cx);
        }
        self.waiting.lock().unwrap().push(cx.waker().clone());
        self.asked.send(()).unwrap();
        Poll::Pending
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

#[tokio::test]
async fn handshakes_wait_for_an_inner_service_that_is_not_ready() {
    let (asked, mut waits) = mpsc::unbounded_channel();
    let (ready, waiting) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let stuck = Stuck {
        inner: service_fn(inner),
        ready: Arc::clone(&ready),
        waiting: Arc::clone(&waiting),
        asked,
    };
    let limit = ConnectionLimit::total(100).unwrap();
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(TokenPolicy::bearer(Verifier))
        .unwrap()
        .check_timeout(Duration::from_millis(1))
        .unwrap()
        .limit(limit.clone());
    let layers = ServiceBuilder::new().layer(guard).layer(ResponderLayer::new());
    let address = serve_fallible(layers.service(stuck)).await;
    let mut witness = send(address, &request("").bytes()).await;
    assert_eq!(witness.status, 101);

    ready.store(false, Ordering::SeqCst);
    let mut clients = Vec::new();
    for raw in [request(""), request("").with("Origin", "https://evil.example"), request("")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&raw.bytes()).await.unwrap();
        soon(waits.recv()).await.unwrap();
        // No check runs, and no timeout starts.
        assert!(timeout(Duration::from_millis(50), stream.peek(&mut [0])).await.is_err());
        clients.push(stream);
    }
    assert_eq!(limit.connections(), 1);
    assert!(echoes(&mut witness.stream).await);
    drop(clients.pop());

    ready.store(true, Ordering::SeqCst);
    waiting.lock().unwrap().drain(..).for_each(Waker::wake);
    let [first, second] = clients.try_into().unwrap();
    let mut first = RawResponse::read(first).await;
    assert_eq!((first.status, RawResponse::read(second).await.status), (101, 403));
    assert!(echoes(&mut first.stream).await && echoes(&mut witness.stream).await);
    eventually(|| limit.connections() == 2).await;
}

/// A guard without a limit leaves the 101 to the handler.
#[tokio::test]
async fn handler_101_without_a_limit_is_left_to_the_handler() {
    let handler = service_fn(async |mut request: Request<Incoming>| {
        let mut response = Response::new(Body::default());
        let on_upgrade = hyper::upgrade::on(&mut request);
        match fault(request.uri()) {
            // Upgrades nothing.
            "switches" => *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS,
            // Waits for the connection nevertheless.
            "declines" => {
                tokio::spawn(async {
                    greet(TokioIo::new(on_upgrade.await?)).await;
                    Ok::<_, hyper::Error>(())
                });
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
            other => panic!("{other}"),
        }
        Ok::<_, Infallible>(response)
    });
    let address = serve(GuardLayer::new(AllowOrigin::same_origin()).layer(handler)).await;
    for (fault, status, rest) in [("switches", 101, ""), ("declines", 403, "you are in")] {
        let mut response = send(address, &handshake().target(&format!("/{fault}")).bytes()).await;
        assert_eq!((response.status, &*response.read_rest().await), (status, rest), "{fault}");
    }
}
