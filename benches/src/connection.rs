//! Whole connections in memory: every row includes the client, and reading and writing HTTP.

use std::{convert::Infallible, error::Error, future::ready};

use axum::Extension;
use bytes::Bytes;
use fastwebsockets::WebSocket;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::server::{ErrorResponse, Request as Asked, Response as Answered},
        protocol,
    },
};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_ws_guard::{PendingUpgrade, Upgraded};

use crate::{
    Case, Operation, app, case,
    input::{self, HANDSHAKE, ORDINARY},
    operation, service,
};

const BARE: &str = "Connection in memory, without a WebSocket codec";
const CODEC: &str = "Connection in memory, with a WebSocket codec that is dropped at once";
const REJECTED: &str = "Connection in memory, rejected for its origin";

pub(crate) const CASES: &[Case] = &[
    case(BARE, "client and a constant answer", || connection(constant, HANDSHAKE, 101)),
    case(BARE, "hyper, ordinary request", || over_hyper(service_fn(ok), ORDINARY, 200)),
    case(BARE, "hyper, `GuardLayer` that responds", || {
        over_hyper(accepted(drop_stream), HANDSHAKE, 101)
    }),
    case(BARE, "axum, ordinary request", || over_hyper(app::axum(), ORDINARY, 200)),
    case(BARE, "axum, `GuardLayer` that responds on the route", || {
        over_hyper(app::axum_guard_responds(), HANDSHAKE, 101)
    }),
    case(BARE, "axum, `GuardLayer` with a callback on the route", || {
        over_hyper(app::axum_guard_and_callback(), HANDSHAKE, 101)
    }),
    case(CODEC, "hyper, `GuardLayer` that responds, fastwebsockets", || {
        over_hyper(accepted(drop_fastwebsockets), HANDSHAKE, 101)
    }),
    case(CODEC, "hyper, fastwebsockets", || over_hyper(service_fn(fastwebsockets), HANDSHAKE, 101)),
    case(CODEC, "hyper, `GuardLayer` that responds, tokio-tungstenite", || {
        over_hyper(accepted(drop_tungstenite), HANDSHAKE, 101)
    }),
    case(CODEC, "hyper, hyper-tungstenite", || {
        over_hyper(service_fn(hyper_tungstenite), HANDSHAKE, 101)
    }),
    case(CODEC, "axum, `GuardLayer` that responds on the route, tokio-tungstenite", || {
        let handler =
            async |pending: Extension<PendingUpgrade>| pending.on_upgrade(drop_tungstenite);
        over_hyper(app::axum_guard_and_handler(handler), HANDSHAKE, 101)
    }),
    case(CODEC, "axum's `WebSocketUpgrade`", || over_hyper(app::axum(), HANDSHAKE, 101)),
    case(CODEC, "axum, origin checked in the handler", || {
        over_hyper(app::axum_origin_in_handler(), HANDSHAKE, 101)
    }),
    case(CODEC, "axum, origin checked in a `from_fn` on the route", || {
        over_hyper(app::axum_origin_from_fn_on_route(), HANDSHAKE, 101)
    }),
    case(CODEC, "`GuardLayer` on the route, axum's `WebSocketUpgrade`", || {
        over_hyper(app::axum_guard(), HANDSHAKE, 101)
    }),
    case(CODEC, "tokio-tungstenite, `accept_async`", || {
        connection(
            async |stream| drop(tokio_tungstenite::accept_async(stream).await),
            HANDSHAKE,
            101,
        )
    }),
    case(CODEC, "tokio-tungstenite, `accept_hdr_async` that checks the origin", || {
        connection(accept_hdr_async, HANDSHAKE, 101)
    }),
    case(CODEC, "tokio-websockets", || {
        let server =
            async |stream| drop(tokio_websockets::ServerBuilder::new().accept(stream).await);
        connection(server, HANDSHAKE, 101)
    }),
    case(REJECTED, "hyper, `GuardLayer`", || {
        over_hyper(app::guard().layer(service_fn(ok)), input::foreign_origin(), 403)
    }),
    case(REJECTED, "axum, `GuardLayer` on the route", || {
        over_hyper(app::axum_guard(), input::foreign_origin(), 403)
    }),
    case(REJECTED, "axum, in a `from_fn` on the route", || {
        over_hyper(app::axum_origin_from_fn_on_route(), input::foreign_origin(), 403)
    }),
    case(REJECTED, "axum, in the handler", || {
        over_hyper(app::axum_origin_in_handler(), input::foreign_origin(), 403)
    }),
    case(REJECTED, "tokio-tungstenite, `accept_hdr_async`", || {
        connection(accept_hdr_async, input::foreign_origin(), 403)
    }),
];

/// Sends `head`, and reads the response while a task serves the other end.
fn connection<F>(
    serve: impl Fn(DuplexStream) -> F + 'static,
    head: impl Into<String>,
    status: u16,
) -> Box<dyn Operation>
where
    F: Future<Output = ()> + Send + 'static,
{
    let head = head.into();
    let expected = format!("HTTP/1.1 {status} ");
    let runtime = service::runtime();
    operation(
        || (),
        move |()| {
            runtime.block_on(async {
                let (mut client, server) = tokio::io::duplex(4096);
                let server = tokio::spawn(serve(server));
                client.write_all(head.as_bytes()).await.expect("a server");
                let (mut answer, mut length) = ([0; 1024], 0);
                while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
                    length += client.read(&mut answer[length..]).await.expect("an answer");
                }
                assert!(answer.starts_with(expected.as_bytes()), "{}", answer.escape_ascii());
                drop(client);
                server.await.expect("no panic");
                tokio::task::yield_now().await;
            });
        },
    )
}

fn over_hyper<S, B>(service: S, head: impl Into<String>, status: u16) -> Box<dyn Operation>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    let service = TowerToHyperService::new(service);
    let serve = move |stream| {
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        async { connection.with_upgrades().await.unwrap_or_default() }
    };
    connection(serve, head, status)
}

async fn constant(mut stream: DuplexStream) {
    let (mut head, mut length) = ([0; 1024], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        length += stream.read(&mut head[length..]).await.expect("a request");
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(answer).await.expect("a client");
}

async fn ok(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::default())
}

/// The guard around a service that accepts, and hands the connection to `take`.
fn accepted<F>(
    take: fn(Upgraded) -> F,
) -> impl Service<Request<Incoming>, Response = Response<Empty<Bytes>>, Error = Infallible, Future: Send>
+ Clone
where
    F: Future<Output = ()> + Send + 'static,
{
    let accept = move |request: Request<Incoming>| {
        let pending = request.extensions().get::<PendingUpgrade>().expect("a handshake");
        pending.on_upgrade(take);
        ready(Ok(Response::default()))
    };
    ServiceBuilder::new().layer(app::guard().respond()).service_fn(accept)
}

async fn hyper_tungstenite(
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (response, upgrade) = hyper_tungstenite::upgrade(&mut request, None).expect("a handshake");
    tokio::spawn(async { drop(upgrade.await) });
    Ok(response)
}

async fn fastwebsockets(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (response, upgrade) = fastwebsockets::upgrade::upgrade(&mut request).expect("a handshake");
    tokio::spawn(async { drop(upgrade.await) });
    Ok(response)
}

async fn drop_stream(socket: Upgraded) {
    drop(socket);
}

async fn drop_fastwebsockets(socket: Upgraded) {
    drop(WebSocket::after_handshake(socket, fastwebsockets::Role::Server));
}

async fn drop_tungstenite(socket: Upgraded) {
    drop(WebSocketStream::from_raw_socket(socket, protocol::Role::Server, None).await);
}

async fn accept_hdr_async(stream: DuplexStream) {
    let check = |request: &Asked, response: Answered| match app::is_allowed(request.headers()) {
        true => Ok(response),
        false => {
            let mut rejection = ErrorResponse::new(None);
            *rejection.status_mut() = StatusCode::FORBIDDEN;
            Err(rejection)
        }
    };
    drop(tokio_tungstenite::accept_hdr_async(stream, check).await);
}
