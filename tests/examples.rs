//! The examples, run as a user would: the small ones in this process, the server as a program.

mod common;

#[path = "../examples/axum_guard.rs"]
#[allow(dead_code)]
mod axum_guard;
#[path = "../examples/axum_responder.rs"]
#[allow(dead_code)]
mod axum_responder;
#[path = "../examples/custom_check.rs"]
#[allow(dead_code)]
mod custom_check;
#[path = "../examples/custom_rejection.rs"]
#[allow(dead_code)]
mod custom_rejection;
#[path = "../examples/hyper_responder.rs"]
#[allow(dead_code)]
mod hyper_responder;

use std::net::SocketAddr;

use common::{Raw, handshake, plain, send, serve_axum, server::Server};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

/// Connects with a client that this crate has no part in. Returns the subprotocol, too.
async fn connect(
    address: SocketAddr,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocketStream<TcpStream>, Option<String>), u16> {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, response)) => {
            let chosen = response.headers().get("sec-websocket-protocol");
            Ok((socket, chosen.map(|value| value.to_str().unwrap().to_owned())))
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn assert_echo(socket: &mut WebSocketStream<TcpStream>) {
    for message in [Message::text("hello"), Message::binary(vec![7; 70_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

const FOREIGN: (&str, &str) = ("origin", "https://evil.example");

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
    let address = serve_axum(axum_responder::app()).await;
    let (mut socket, _) = connect(address, &[("authorization", "Bearer s3cr3t")]).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello alice"));
    assert_eq!(connect(address, &[("authorization", "Bearer guess")]).await.unwrap_err(), 401);
    assert_eq!(connect(address, &[("authorization", "Bearer s3cr3t"), FOREIGN]).await.unwrap_err(), 403);
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

#[tokio::test]
async fn custom_check() {
    let address = serve_axum(custom_check::app()).await;
    let headers = [("host", "acme.localhost"), ("origin", "http://acme.localhost")];
    let (mut socket, _) = connect(address, &headers).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("welcome to acme"));

    let unknown = handshake().with("Host", "evil.localhost").with("Origin", "http://evil.localhost");
    let mut refused = send(address, &unknown.bytes()).await;
    assert_eq!(refused.status, 404);
    assert!(refused.read_rest().await.contains(r#""code":"tenant-unknown""#));
}

#[tokio::test]
async fn custom_rejection() {
    let address = serve_axum(custom_rejection::app()).await;
    let own = format!("http://{address}");
    assert!(connect(address, &[("origin", &*own)]).await.is_ok());

    let mut refused = send(address, &handshake().without("Origin").bytes()).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.all("content-type"), ["application/json"]);
    assert_eq!(refused.read_rest().await, r#"{"error":{"code":"origin-missing","path":"/ws"}}"#);
}

#[tokio::test]
async fn the_server_echoes_in_both_modes() {
    for mode in ["guard", "responder"] {
        let flags = ["--mode", mode, "--token", "s3cr3t", "--token-from", "pair:bearer", "--subprotocol", "chat"];
        let server = Server::start(&flags);
        let own = format!("http://{}", server.address);
        for (offered, expected) in [("bearer, s3cr3t", "bearer"), ("bearer, s3cr3t, chat", "chat")] {
            let headers = [("origin", &*own), ("sec-websocket-protocol", offered)];
            let (mut socket, chosen) = connect(server.address, &headers).await.unwrap();
            assert_eq!(chosen.as_deref(), Some(expected));
            assert_echo(&mut socket).await;
        }
        let wrong = [("origin", &*own), ("sec-websocket-protocol", "bearer, guess")];
        assert_eq!(connect(server.address, &wrong).await.unwrap_err(), 401);
        assert_eq!(connect(server.address, &[FOREIGN]).await.unwrap_err(), 403);
    }
}

async fn get(server: &Server, raw: Raw) -> (u16, String) {
    let mut answer = send(server.address, &raw.and("Connection", "close").bytes()).await;
    (answer.status, answer.read_rest().await)
}

#[tokio::test]
async fn the_page_shows_each_way_to_fail() {
    let server = Server::start(&["--token", "s3cr3t", "--subprotocol", "chat", "--allow-host", "localhost"]);
    let (status, page) = get(&server, plain().target("/")).await;
    assert_eq!(status, 200);
    assert!(page.contains("<title>") && page.contains("/attempts"));

    let (_, attempts) = get(&server, plain().target("/attempts")).await;
    let attempts: serde_json::Value = serde_json::from_str(&attempts).unwrap();
    let mut codes = Vec::new();
    for attempt in attempts.as_array().unwrap() {
        let target = format!("/attempts/{}", attempt["id"].as_str().unwrap());
        let (status, result) = get(&server, plain().method("POST").target(&target)).await;
        assert_eq!(status, 200);
        assert!(!result.contains("s3cr3t"));
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["browser"][0]["type"], if result["status"] == 101 { "open" } else { "error" });
        codes.push(result["code"].as_str().unwrap_or("accepted").to_owned());
    }
    assert_eq!(
        codes,
        [
            "accepted",
            "origin-not-allowed",
            "origin-missing",
            "origin-not-allowed",
            "origin-invalid",
            "origin-repeated",
            "host-not-allowed",
            "host-invalid",
            "token-missing",
            "token-invalid",
            "token-ambiguous",
            "version-unsupported",
            "version-missing",
            "version-invalid",
            "key-missing",
            "key-invalid",
            "key-repeated",
            "upgrade-missing",
            "connection-missing",
            "method-not-allowed",
            "http-version",
            "body-present",
            "subprotocol-unsupported",
            "subprotocol-invalid",
        ]
    );
    assert_eq!(get(&server, plain().method("POST").target("/attempts/other")).await.0, 404);
}

#[test]
fn a_wrong_flag_is_named() {
    for (flags, wanted) in [
        (&["--allow-origin", "https://app.example.com/path"][..], &["--allow-origin", "no path"][..]),
        (&["--allow-origin", "null"], &["--allow-origin", "allow_null"]),
        (&["--allow-origin", "*"], &["--allow-origin", "dangerous_any"]),
        (&["--public-origin", "https://*.example.com"], &["--public-origin", "wildcard"]),
        (&["--allow-host", "http://a"], &["--allow-host", "without a scheme"]),
        (&["--token", ""], &["--token"]),
        (&["--token", "t", "--token-from", "header:x"], &["--token-from", "subprotocol:PREFIX"]),
        (&["--token", "t", "--token-from", "cookie:"], &["--token-from", "cookie"]),
        (&["--token", "t", "--token-from", "k8s", "--token-from", "k8s"], &["--token-from", "twice"]),
        (&["--token-from", "k8s"], &["--token <TOKEN>"]),
        (&["--subprotocol", "a b"], &["--subprotocol", "no spaces"]),
        (&["--subprotocol", "a", "--subprotocol", "a"], &["--subprotocol", "twice"]),
        (&["--mode", "proxy"], &["--mode", "guard, responder"]),
        (&["--rejection", "close"], &["--rejection", "empty, plain, problem"]),
        (&["--max-connections", "1"], &["--max-connections"]),
    ] {
        let output = Server::command(flags).output().unwrap();
        assert!(!output.status.success(), "{flags:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        for wanted in wanted {
            assert!(error.contains(wanted), "{flags:?}: {error}");
        }
    }
}
