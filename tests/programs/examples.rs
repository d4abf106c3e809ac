//! The small examples, run in this process.

#[path = "../../examples/authenticating_proxy.rs"]
#[allow(dead_code)]
mod authenticating_proxy;
#[path = "../../examples/axum_guard.rs"]
#[allow(dead_code)]
mod axum_guard;
#[path = "../../examples/axum_responder.rs"]
#[allow(dead_code)]
mod axum_responder;
#[path = "../../examples/custom_check.rs"]
#[allow(dead_code)]
mod custom_check;
#[path = "../../examples/custom_rejection.rs"]
#[allow(dead_code)]
mod custom_rejection;
#[path = "../../examples/drain_axum.rs"]
#[allow(dead_code)]
mod drain_axum;
#[path = "../../examples/drain_hyper.rs"]
#[allow(dead_code)]
mod drain_hyper;
#[path = "../../examples/graphql.rs"]
#[allow(dead_code)]
mod graphql;
#[path = "../../examples/handshake_rate.rs"]
#[allow(dead_code)]
mod handshake_rate;
#[path = "../../examples/hyper_responder.rs"]
#[allow(dead_code)]
mod hyper_responder;
#[path = "../../examples/jwt.rs"]
#[allow(dead_code)]
mod jwt;
#[path = "../../examples/local_server.rs"]
#[allow(dead_code)]
mod local_server;
#[path = "../../examples/ocpp.rs"]
#[allow(dead_code)]
mod ocpp;
#[path = "../../examples/session_cookie.rs"]
#[allow(dead_code)]
mod session_cookie;
#[path = "../../examples/settings_toml.rs"]
#[allow(dead_code)]
mod settings_toml;
#[path = "../../examples/tenants.rs"]
#[allow(dead_code)]
mod tenants;
#[path = "../../examples/tickets.rs"]
#[allow(dead_code)]
mod tickets;

use std::{fs, future::pending, net::SocketAddr, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tower_ws_guard::token::{jwt::JwtKeys, ticket::MemoryTicketStore};

use crate::common::{handshake, plain, send, serve_axum};

/// Connects with an independent client; returns the subprotocol, too.
pub(crate) async fn connect(
    address: SocketAddr,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocketStream<TcpStream>, Option<String>), u16> {
    connect_to(address, "/ws", headers).await
}

async fn connect_to(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocketStream<TcpStream>, Option<String>), u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, response)) => {
            let chosen = response.headers().get("sec-websocket-protocol");
            Ok((socket, chosen.map(|value| value.to_str().unwrap().to_owned())))
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn assert_echo(socket: &mut WebSocketStream<TcpStream>) {
    for message in [Message::text("hello"), Message::binary(vec![7; 70_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

pub(crate) const FOREIGN: (&str, &str) = ("origin", "https://evil.example");

#[tokio::test]
async fn axum_guard() {
    let address = serve_axum(axum_guard::app().unwrap()).await;
    let own = format!("http://{address}");
    let headers = [("origin", &*own), ("sec-websocket-protocol", "v1.echo, v2.echo")];
    let (mut socket, chosen) = connect(address, &headers).await.unwrap();
    assert_eq!(chosen.as_deref(), Some("v2.echo"));
    assert_echo(&mut socket).await;
    assert_eq!(connect(address, &[FOREIGN]).await.unwrap_err(), 403);
}

#[tokio::test]
async fn axum_responder() {
    let address = serve_axum(axum_responder::app().unwrap()).await;
    let (mut socket, _) = connect(address, &[("authorization", "Bearer s3cr3t")]).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
    assert_eq!(connect(address, &[("authorization", "Bearer guess")]).await.unwrap_err(), 401);
    assert_eq!(
        connect(address, &[("authorization", "Bearer s3cr3t"), FOREIGN]).await.unwrap_err(),
        403
    );
    assert_eq!(send(address, &plain().bytes()).await.status, 426);
}

#[tokio::test]
async fn hyper_responder() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(hyper_responder::serve(listener));
    let own = format!("http://{address}");
    let (mut socket, _) = connect(address, &[("origin", &*own)]).await.unwrap();
    assert_echo(&mut socket).await;
    assert_eq!(connect(address, &[FOREIGN]).await.unwrap_err(), 403);
    assert_eq!(connect(address, &[]).await.unwrap_err(), 403);
    assert_eq!(send(address, &plain().bytes()).await.status, 200);
}

/// Asserts an echo server that drains: each socket receives a close frame.
async fn assert_drained<Fut>(serve: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> Fut)
where
    Fut: Future<Output = usize> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, stopped));
    let own = format!("http://{address}");
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(connect(address, &[("origin", &*own)]).await.unwrap().0);
    }
    assert_echo(&mut sockets.pop().unwrap()).await;
    assert_eq!(connect(address, &[FOREIGN]).await.unwrap_err(), 403);
    stop.send(()).unwrap();
    for mut socket in sockets {
        let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else {
            panic!("no close frame")
        };
        assert_eq!(u16::from(frame.code), 1001);
        // The next read sends the close response.
        assert!(socket.next().await.is_none());
    }
    let left = timeout(Duration::from_secs(30), server).await.expect("the server ends").unwrap();
    assert_eq!(left, 0);
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn drain_axum() {
    assert_drained(async |listener, stop| {
        let stop = async { stop.await.unwrap() };
        drain_axum::serve(listener, stop).await.map_err(|error| error.to_string()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn drain_hyper() {
    assert_drained(async |listener, stop| {
        let stop = async { stop.await.unwrap() };
        drain_hyper::serve(listener, stop).await.map_err(|error| error.to_string()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn custom_check() {
    let address = serve_axum(custom_check::app()).await;
    let headers = [("host", "acme.localhost"), ("origin", "http://acme.localhost")];
    let (mut socket, _) = connect(address, &headers).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("welcome to acme"));

    let unknown =
        handshake().with("Host", "evil.localhost").with("Origin", "http://evil.localhost");
    let mut rejected = send(address, &unknown.bytes()).await;
    assert_eq!(rejected.status, 404);
    assert!(rejected.read_rest().await.contains(r#""code":"tenant-unknown""#));
}

#[tokio::test]
async fn custom_rejection() {
    let address = serve_axum(custom_rejection::app()).await;
    let own = format!("http://{address}");
    assert!(connect(address, &[("origin", &*own)]).await.is_ok());

    let raw = handshake().with("Host", "localhost").without("Origin");
    let mut rejected = send(address, &raw.bytes()).await;
    assert_eq!(rejected.status, 403);
    assert_eq!(rejected.all("content-type"), ["application/json"]);
    assert_eq!(rejected.read_rest().await, r#"{"error":{"code":"origin-missing","path":"/ws"}}"#);
}

#[tokio::test]
async fn jwt() {
    const SECRET: &[u8] = b"at least as many bytes as the hash has";
    let keys = JwtKeys::new([jwt::key(SECRET).unwrap()]);
    let address = serve_axum(jwt::app(keys.clone()).unwrap()).await;
    let bearer = |scope, seconds| {
        format!("Bearer {}", jwt::issue(SECRET, "alice", scope, Duration::from_secs(seconds)))
    };
    let connect = async |token: &str| connect(address, &[("authorization", token)]).await;

    let (mut socket, _) = connect(&bearer("read chat", 3)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
    assert_closed(&mut socket, 4401, "expired").await;

    let good = bearer("chat", 3600);
    assert!(connect(&good).await.is_ok());
    assert_eq!(connect(&bearer("read", 3600)).await.unwrap_err(), 403);
    assert_eq!(connect(&bearer("chat", 0)).await.unwrap_err(), 401);
    keys.replace([jwt::key(b"another secret of at least 32 bytes").unwrap()]);
    assert_eq!(connect(&good).await.unwrap_err(), 401);
}

#[tokio::test]
async fn tickets() {
    let address = serve_axum(tickets::app(MemoryTicketStore::default()).unwrap()).await;
    let post = plain()
        .method("POST")
        .target("/tickets")
        .and("Connection", "close")
        .and("Content-Length", "0");
    let post = post.with("Host", "chat.localhost").and("Origin", "http://chat.localhost");
    assert_eq!(send(address, &post.bytes()).await.status, 401);
    let post = post.and("Authorization", "Bearer s3cr3t");
    let mut issued = send(address, &post.bytes()).await;
    assert_eq!((issued.status, issued.all("cache-control")), (201, vec!["no-store"]));
    let body: serde_json::Value = serde_json::from_str(&issued.read_rest().await).unwrap();

    let target = format!("/ws?ticket={}", body["ticket"].as_str().unwrap());
    let used = handshake().target(&target).with("Host", "chat.localhost");
    for (origin, status) in [
        ("http://evil.localhost", 403),
        ("http://chat.localhost", 101),
        ("http://chat.localhost", 401),
    ] {
        assert_eq!(
            send(address, &used.clone().with("Origin", origin).bytes()).await.status,
            status
        );
    }

    for _ in 0..19 {
        assert_eq!(send(address, &post.bytes()).await.status, 201);
    }
    let rejected = send(address, &post.bytes()).await;
    assert_eq!(rejected.status, 429);
    assert!((1..=30).contains(&rejected.all("retry-after")[0].parse().unwrap()));
}

#[tokio::test]
async fn session_cookie() {
    let address = serve_axum(session_cookie::app().unwrap()).await;
    let post = plain().method("POST").with("Host", "localhost");
    let post = post.and("Content-Length", "0").and("Connection", "close");
    let login = send(address, &post.clone().target("/login").bytes()).await;
    let cookie = login.all("set-cookie")[0].split(';').next().unwrap().to_owned();
    let own = format!("http://{address}");
    let headers = [("origin", &*own), ("cookie", &*cookie)];

    let (mut socket, _) = connect(address, &headers).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
    assert_eq!(connect(address, &[FOREIGN, ("cookie", &*cookie)]).await.unwrap_err(), 403);
    assert_eq!(
        send(address, &post.target("/logout").and("Cookie", &cookie).bytes()).await.status,
        200
    );
    assert_closed(&mut socket, 4401, "revoked").await;
    assert_eq!(connect(address, &headers).await.unwrap_err(), 401);
    for cookie in ["session=AAAAAAAAAAAAAAAAAAAAAA", "session=x"] {
        assert_eq!(
            connect(address, &[("origin", &*own), ("cookie", cookie)]).await.unwrap_err(),
            401
        );
    }
}

#[tokio::test]
async fn authenticating_proxy() {
    const SECRET: &[u8] = b"at least as many bytes as the hash has";
    let keys = JwtKeys::new([authenticating_proxy::key(SECRET).unwrap()]);
    let address = serve_axum(authenticating_proxy::app(keys).unwrap()).await;
    let issued = authenticating_proxy::issue(SECRET, "alice@example.com");
    let origin = ("origin", "https://chat.example.com");
    let by_proxy = ("cf-access-jwt-assertion", &*issued);
    let by_page = ("sec-websocket-protocol", "bearer, s3cr3t");
    for (headers, user) in [
        (&[origin, by_proxy][..], "alice@example.com"),
        (&[origin, by_page], "robot@example.com"),
        (&[origin, by_proxy, by_page], "robot@example.com"),
    ] {
        let (mut socket, selected) = connect(address, headers).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(format!("hello {user}")));
        assert_eq!(selected.as_deref(), headers.contains(&by_page).then_some("bearer"));
    }
    for (headers, status) in [
        (&[origin][..], 401),
        (&[origin, ("cf-access-jwt-assertion", "alice@example.com")], 401),
        // The page's token counts, also if it is wrong.
        (&[origin, by_proxy, ("sec-websocket-protocol", "bearer, guess")], 401),
        (&[FOREIGN, by_proxy], 403),
        (&[("origin", &format!("http://{address}")), by_proxy], 403),
    ] {
        assert_eq!(connect(address, headers).await.unwrap_err(), status, "{headers:?}");
    }
    let raw = handshake().and("Cf-Access-Jwt-Assertion", &issued);
    assert_eq!(send(address, &raw.bytes()).await.status, 101);
}

#[tokio::test]
async fn graphql() {
    let address = serve_axum(graphql::app().unwrap()).await;
    let user = ("authorization", "Bearer s3cr3t");
    for (offer, subscribe, next) in [
        ("graphql-transport-ws", "subscribe", "next"),
        ("graphql-ws", "start", "data"),
        ("graphql-ws, graphql-transport-ws", "subscribe", "next"),
    ] {
        let headers = [user, ("sec-websocket-protocol", offer)];
        let (mut socket, selected) = connect(address, &headers).await.unwrap();
        let transport = subscribe == "subscribe";
        assert_eq!(selected.as_deref() == Some("graphql-transport-ws"), transport);
        let mut receive = async |message: serde_json::Value| {
            if !message.is_null() {
                socket.send(Message::text(message.to_string())).await.unwrap();
            }
            let message = timeout(Duration::from_secs(30), socket.next()).await.unwrap();
            let text = message.unwrap().unwrap().into_text().unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        let ack = receive(json!({ "type": "connection_init" })).await;
        assert_eq!(ack["type"], "connection_ack");
        let query = json!({ "query": "subscription { greetings }" });
        let first = receive(json!({ "type": subscribe, "id": "1", "payload": query })).await;
        assert_eq!(first["type"], next);
        assert_eq!(first["payload"]["data"]["greetings"], "hello alice");
        let second = receive(json!(null)).await;
        assert_eq!(second["payload"]["data"]["greetings"], "goodbye alice");
        assert_eq!(receive(json!(null)).await["type"], "complete");
    }
    for (headers, status) in [
        (&[("sec-websocket-protocol", "graphql-ws")][..], 401),
        (&[user], 400),
        (&[user, ("sec-websocket-protocol", "mqtt")], 400),
        (&[user, FOREIGN, ("sec-websocket-protocol", "graphql-ws")], 403),
    ] {
        assert_eq!(connect(address, headers).await.unwrap_err(), status, "{headers:?}");
    }
}

#[tokio::test]
async fn handshake_rate() {
    let rate = handshake_rate::HandshakeRate::per_minute(2.try_into().unwrap());
    let app = handshake_rate::app(rate.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.clone().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });

    let own = format!("http://{address}");
    for _ in 0..2 {
        // Rejected before they count.
        assert_eq!(connect(address, &[FOREIGN]).await.unwrap_err(), 403);
        assert!(connect(address, &[("origin", &own)]).await.is_ok());
    }
    let raw = handshake().with("Host", "localhost").with("Origin", "http://localhost");
    let mut rejected = send(address, &raw.bytes()).await;
    assert_eq!(rejected.status, 429);
    let seconds: u64 = rejected.all("retry-after")[0].parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    let body = rejected.read_rest().await;
    assert!(body.contains(r#""code":"too-many-handshakes""#) && !body.contains("127.0.0.1"));
    // Not idle yet.
    assert_eq!(rate.forget_idle_clients(), 1);

    let without_address = serve_axum(app).await;
    assert_eq!(send(without_address, &raw.bytes()).await.status, 500);
}

#[tokio::test]
async fn local_server() {
    let token = local_server::new_token().unwrap();
    let guard = local_server::guard(&token).unwrap();
    let listens_on = "127.0.0.1:3000".parse().unwrap();
    assert_eq!(guard.lint(Some(listens_on)), []);
    let address = serve_axum(local_server::app(guard)).await;

    let bearer = format!("Bearer {token}");
    let (mut socket, _) = connect(address, &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    let own = format!("http://{address}");
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer guess")], 401),
        (&[("authorization", &*bearer), ("origin", &own)], 403),
        (&[("authorization", &*bearer), ("host", "evil.example")], 421),
    ] {
        assert_eq!(connect(address, headers).await.unwrap_err(), status, "{headers:?}");
    }
    let version = plain().target("/version").and("Connection", "close");
    for (host, origin, status) in [
        ("localhost:3000", None, 200),
        ("localhost:3000", Some("http://localhost:3000"), 403),
        ("evil.example", None, 421),
    ] {
        let raw = version.clone().with("Host", host);
        let raw = origin.into_iter().fold(raw, |raw, origin| raw.and("Origin", origin));
        assert_eq!(send(address, &raw.bytes()).await.status, status, "{host} {origin:?}");
    }
}

#[tokio::test]
async fn ocpp() {
    let address = serve_axum(ocpp::app().unwrap()).await;
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let connect = async |path: &str, pair: &str, more: &[_]| {
        let basic = basic(pair);
        let headers = [&[("authorization", &*basic), ("sec-websocket-protocol", "ocpp1.6")], more];
        connect_to(address, path, &headers.concat()).await
    };

    for path in ["/ocpp/CP-1", "/ocpp/%43P-1"] {
        let (mut socket, selected) = connect(path, "CP-1:0123456789abcdef", &[]).await.unwrap();
        assert_eq!(selected.as_deref(), Some("ocpp1.6"));
        for (call, reply) in [
            (r#"[2,"1","StatusNotification",{"connectorId":1}]"#, r#"[3,"1",{}]"#),
            (r#"[2,"2","Authorize",{}]"#, r#"[3,"2",{"idTagInfo":{"status":"Accepted"}}]"#),
            (r#"[2,"3","Heartbeat",{}]"#, r#"[4,"3","NotImplemented","",{}]"#),
        ] {
            socket.send(Message::text(call)).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(reply));
        }
    }
    for (path, pair, more, status) in [
        ("/ocpp/CP-1", "CP-1:fedcba9876543210", &[][..], 401),
        ("/ocpp/CP-1", "CP-3:0123456789abcdef", &[], 401),
        ("/ocpp/CP-2", "CP-1:0123456789abcdef", &[], 403),
        ("/ocpp/cp-1", "CP-1:0123456789abcdef", &[], 403),
        ("/ocpp/CP-1", "CP-1:0123456789abcdef", &[FOREIGN], 403),
        ("/ocpp/CP-1", "CP-1:0123456789abcdef", &[("sec-websocket-protocol", "ocpp2.0.1")], 400),
    ] {
        assert_eq!(connect(path, pair, more).await.unwrap_err(), status, "{path} {pair}");
    }
    let without = handshake().target("/ocpp/CP-1").with("Host", "localhost").without("Origin");
    let challenged = send(address, &without.bytes()).await;
    assert_eq!(challenged.status, 401);
    assert_eq!(challenged.all("www-authenticate"), [r#"Basic realm="websocket""#]);
}

#[tokio::test]
async fn settings_toml() {
    let file = include_str!("../../examples/settings.toml");
    let read = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        settings_toml::settings(file, variables)
    };
    let guard = settings_toml::guard(&read(&[]).unwrap()).unwrap();
    assert_eq!(guard.lint(Some("127.0.0.1:3000".parse().unwrap())), []);

    let user = ("authorization", "Bearer s3cr3t");
    let variables =
        [("WS_GUARD_ORIGINS", "https://a.example, https://b.example"), ("PATH", "/bin")];
    for (variables, allowed) in [
        (&[][..], &["https://app.example.com", "https://x.preview.example.com"][..]),
        (&variables, &["https://a.example", "https://b.example"]),
    ] {
        let guard = settings_toml::guard(&read(variables).unwrap()).unwrap();
        let address = serve_axum(settings_toml::app(guard)).await;
        for origin in allowed {
            let (mut socket, _) = connect(address, &[user, ("origin", origin)]).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
        }
        let host = ("host", "evil.example");
        for (more, status) in [(FOREIGN, 403), (host, 421)] {
            let headers = [user, ("origin", allowed[0]), more];
            assert_eq!(connect(address, &headers).await.unwrap_err(), status);
        }
    }
    for (variable, message) in [
        (("WS_GUARD_ORIGINS", "https://a.example/"), "origins: `https://a.example/`: "),
        (("WS_GUARD_MAX_CONNECTIONS", "many"), "max_connections: `many`: "),
        (("WS_GUARD_SAME_ORIGIN", "yes"), "same_origin: `yes`: "),
        (("WS_GUARD_ORIGIN", "https://a.example"), "origin: there is no such key"),
    ] {
        let error = read(&[variable]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[tokio::test]
async fn tenants() {
    let database = tenants::Database::default();
    database.add("red.localhost", "https://red.example").await.unwrap();
    database.add("blue.localhost", "https://blue.example").await.unwrap();
    database.add("wrong.localhost", "red.example").await.unwrap();
    let tenants = tenants::Tenants::load(database).await.unwrap();
    let address = serve_axum(tenants::app(tenants)).await;
    let status = async |host: &str, origin: &str| {
        send(address, &handshake().with("Host", host).with("Origin", origin).bytes()).await.status
    };
    let red_for_blue = || status("blue.localhost", "https://red.example");

    for host in ["red.localhost", "RED.localhost.:3000"] {
        assert_eq!(status(host, "https://red.example").await, 101);
        assert_eq!(status(host, "https://blue.example").await, 403);
    }
    assert_eq!(red_for_blue().await, 403);
    for host in ["wrong.localhost", "green.localhost", "localhost"] {
        assert_eq!(status(host, "https://red.example").await, 421);
    }

    let post = |origin: &str| {
        let raw =
            plain().method("POST").target("/tenants/blue.localhost").with("Host", "localhost");
        let length = origin.len().to_string();
        raw.and("Content-Length", length).and("Connection", "close").body(origin)
    };
    let mut wrong = send(address, &post("red.example").bytes()).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.read_rest().await.contains("`red.example`"));
    let by_a_page = post("https://evil.example").and("Origin", "https://evil.example");
    assert_eq!(send(address, &by_a_page.bytes()).await.status, 403);
    assert_eq!(red_for_blue().await, 403);
    assert_eq!(send(address, &post("https://red.example").bytes()).await.status, 201);
    assert_eq!(red_for_blue().await, 101);
    assert_eq!(status("blue.localhost", "https://blue.example").await, 101);
}

/// A page of an attacker whose name leads to a loopback address has the origin of its `Host`.
#[tokio::test]
async fn pages_of_other_hosts_are_rejected() {
    let spawned = async |serve: fn(TcpListener)| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener);
        address
    };
    let rate = handshake_rate::HandshakeRate::per_minute(100.try_into().unwrap());
    let keys = || JwtKeys::new([jwt::key(&[7; 32]).unwrap()]);
    for (name, address, status) in [
        ("axum_guard", serve_axum(axum_guard::app().unwrap()).await, 101),
        ("axum_responder", serve_axum(axum_responder::app().unwrap()).await, 401),
        ("custom_rejection", serve_axum(custom_rejection::app()).await, 101),
        ("custom_check", serve_axum(custom_check::app()).await, 404),
        ("graphql", serve_axum(graphql::app().unwrap()).await, 401),
        ("handshake_rate", serve_axum(handshake_rate::app(rate)).await, 500),
        ("jwt", serve_axum(jwt::app(keys()).unwrap()).await, 401),
        ("session_cookie", serve_axum(session_cookie::app().unwrap()).await, 401),
        ("tickets", serve_axum(tickets::app(MemoryTicketStore::default()).unwrap()).await, 401),
        (
            "hyper_responder",
            spawned(|listener| drop(tokio::spawn(hyper_responder::serve(listener)))).await,
            101,
        ),
        (
            "drain_axum",
            spawned(|listener| drop(tokio::spawn(drain_axum::serve(listener, pending())))).await,
            101,
        ),
        (
            "drain_hyper",
            spawned(|listener| drop(tokio::spawn(drain_hyper::serve(listener, pending())))).await,
            101,
        ),
    ] {
        let to =
            |host: &str| handshake().with("Host", host).with("Origin", format!("http://{host}"));
        for host in ["localhost:3000", "127.0.0.1:3000", "[::1]:3000"] {
            assert_eq!(send(address, &to(host).bytes()).await.status, status, "{name} {host}");
        }
        let rejected = send(address, &to("evil.example:3000").bytes()).await;
        assert_eq!(rejected.status, 421, "{name}");
    }
    for (address, method, target) in [
        (serve_axum(session_cookie::app().unwrap()).await, "POST", "/login"),
        (serve_axum(tickets::app(MemoryTicketStore::default()).unwrap()).await, "GET", "/"),
    ] {
        let raw = plain().method(method).target(target).with("Host", "evil.example:3000");
        assert_eq!(send(address, &raw.bytes()).await.status, 421);
    }
}

async fn assert_closed(socket: &mut WebSocketStream<TcpStream>, code: u16, reason: &str) {
    let message = timeout(Duration::from_secs(30), socket.next()).await.expect("a close frame");
    let Some(Ok(Message::Close(Some(frame)))) = message else { panic!("{message:?}") };
    assert_eq!((u16::from(frame.code), &*frame.reason), (code, reason));
}

#[test]
fn index_lists_every_example() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let index = fs::read_to_string(examples.join("README.md")).unwrap();
    for entry in fs::read_dir(&examples).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let expected = match name.strip_suffix(".rs") {
            Some(example) => format!("`cargo run --example` [`{example}`]({name})"),
            None if entry.file_type().unwrap().is_dir() => format!("]({name}/"),
            None => name,
        };
        assert!(
            index.contains(&expected) || expected == "README.md",
            "examples/README.md has no row with {expected}"
        );
    }
    let links = index.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    for link in links.filter(|link| !link.contains("://")) {
        assert!(examples.join(link).is_file(), "examples/README.md links to {link}");
    }
}
