//! The example with independent clients: wtransport, h3 and Chromium.

#[path = "../src/main.rs"]
#[allow(dead_code)]
mod example;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use axum::{Router, middleware::map_request, routing::any};
use bytes::Bytes;
use h3::ext::Protocol;
use h3_axum::WebTransportUpgrade;
use http::{Method, Request, StatusCode, Version};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, time::timeout};
use tower_ws_guard::{AllowOrigin, ConnectionLimit, GuardLayer};
use wtransport::{
    ClientConfig, Connection, Endpoint, endpoint::ConnectOptions, error::ConnectingError,
    tls::Sha256Digest,
};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";
const IN_TIME: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    hash: [u8; 32],
}

impl Server {
    fn start(origins: AllowOrigin, max_sessions: usize) -> Self {
        Self::serve(example::app(origins, max_sessions).unwrap())
    }

    fn serve(app: Router) -> Self {
        let (endpoint, hash) = example::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(example::serve(endpoint, app));
        Self { address, hash }
    }

    fn for_app(max_sessions: usize) -> Self {
        Self::start(AllowOrigin::list([APP]).unwrap(), max_sessions)
    }

    fn client_config(&self) -> ClientConfig {
        let hash = Sha256Digest::new(self.hash);
        ClientConfig::builder().with_bind_default().with_server_certificate_hashes([hash]).build()
    }

    /// Opens a session with wtransport.
    async fn open(&self, origin: Option<&str>) -> Result<Connection, ConnectingError> {
        let mut options = ConnectOptions::builder(format!("https://{}/wt", self.address));
        if let Some(origin) = origin {
            options = options.add_header("origin", origin);
        }
        let client = Endpoint::client(self.client_config()).unwrap();
        timeout(IN_TIME, client.connect(options.build())).await.unwrap()
    }

    /// The status of the response, which wtransport does not tell.
    async fn status(&self, change: impl FnOnce(&mut Request<()>)) -> StatusCode {
        let mut request = connect(&format!("https://{}/wt", self.address), Version::HTTP_3);
        request.extensions_mut().insert(Protocol::WEB_TRANSPORT);
        request.headers_mut().insert("origin", APP.parse().unwrap());
        change(&mut request);

        let mut client = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        client.set_default_client_config(self.client_config().quic_config().clone());
        let connection = client.connect(self.address, "localhost").unwrap().await.unwrap();
        let mut builder = h3::client::builder();
        builder.enable_extended_connect(true).enable_datagram(true);
        let (mut driver, mut requests) =
            builder.build::<_, _, Bytes>(h3_quinn::Connection::new(connection)).await.unwrap();
        tokio::spawn(async move { driver.wait_idle().await });
        let mut stream = requests.send_request(request).await.unwrap();
        timeout(IN_TIME, stream.recv_response()).await.unwrap().unwrap().status()
    }
}

fn connect(target: &str, version: Version) -> Request<()> {
    Request::builder().method(Method::CONNECT).version(version).uri(target).body(()).unwrap()
}

async fn echoes(session: &Connection) {
    let (mut send, mut receive) = session.open_bi().await.unwrap().await.unwrap();
    send.write_all(b"by a stream").await.unwrap();
    send.finish().await.unwrap();
    let mut echo = [0; 11];
    receive.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"by a stream");
    assert_eq!(receive.read(&mut echo).await.unwrap(), None);

    session.send_datagram(b"by a datagram").unwrap();
    let echo = timeout(IN_TIME, session.receive_datagram()).await.unwrap().unwrap();
    assert_eq!(&echo[..], b"by a datagram");
}

#[tokio::test]
async fn right_origin_gets_a_session() {
    let server = Server::for_app(10);
    for _ in 0..2 {
        echoes(&server.open(Some(APP)).await.unwrap()).await;
    }
}

#[tokio::test]
async fn others_are_rejected() {
    let server = Server::for_app(10);
    for origin in [Some(EVIL), Some("null"), None] {
        let rejected = server.open(origin).await;
        assert!(matches!(rejected, Err(ConnectingError::SessionRejected)), "{origin:?}");
        let status = server.status(|request| {
            let headers = request.headers_mut();
            match origin {
                Some(origin) => drop(headers.insert("origin", origin.parse().unwrap())),
                None => drop(headers.remove("origin")),
            }
        });
        assert_eq!(status.await, StatusCode::FORBIDDEN, "{origin:?}");
    }

    let rebound = server.status(|request| {
        let rebound = format!("https://rebound.example:{}/wt", server.address.port());
        *request.uri_mut() = rebound.parse().unwrap();
    });
    assert_eq!(rebound.await, StatusCode::MISDIRECTED_REQUEST);
    // Nothing is withheld from those who are let in.
    echoes(&server.open(Some(APP)).await.unwrap()).await;
}

#[tokio::test]
async fn session_holds_its_slot_until_its_end() {
    let server = Server::for_app(1);
    let session = server.open(Some(APP)).await.unwrap();
    echoes(&session).await;
    for _ in 0..2 {
        assert_eq!(server.status(|_| {}).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    echoes(&session).await;

    session.close(0_u32.into(), b"");
    let again = async {
        loop {
            match server.open(Some(APP)).await {
                Ok(session) => break session,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    echoes(&timeout(IN_TIME, again).await.unwrap()).await;
}

/// The library sends the 200 from inside of the handler, where the guard cannot prevent it.
#[tokio::test]
async fn session_without_a_permit_counts_under_no_limit() {
    async fn open(upgrade: WebTransportUpgrade) {
        let session = upgrade.accept().await.unwrap();
        tokio::spawn(async move {
            let _session = session;
            std::future::pending::<()>().await;
        });
    }

    let limit = ConnectionLimit::total(1).unwrap();
    let guard = GuardLayer::new(AllowOrigin::list([APP]).unwrap()).limit(limit.clone());
    let app = Router::new().route("/wt", any(open).layer(guard));
    let server = Server::serve(app.layer(map_request(example::connect_protocol)));
    let _sessions = [server.open(Some(APP)).await.unwrap(), server.open(Some(APP)).await.unwrap()];
    assert_eq!(limit.connections(), 0);
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn page_of_another_origin_is_rejected() {
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |listener: &TcpListener| {
        format!("http://localhost:{}", listener.local_addr().unwrap().port())
    };
    let (own_url, foreign_url) = (url(&own), url(&foreign));
    let server = Server::start(AllowOrigin::list([&*own_url]).unwrap(), 10);
    for listener in [own, foreign] {
        let page = example::page(server.address, server.hash);
        tokio::spawn(async { axum::serve(listener, page).await.unwrap() });
    }

    let cases = json!([{ "url": own_url }, { "url": foreign_url }]);
    let shown = in_chromium(&cases).await;
    assert_eq!(shown[0], "open\nby a stream\nby a datagram\nclosed\n");
    let rejected = shown[1].as_str().unwrap_or_else(|| panic!("{shown}"));
    assert!(rejected.starts_with("rejected: WebTransportError"), "{rejected}");
}

async fn in_chromium(cases: &Value) -> Value {
    let hint = "tests/clients/install installs what is missing";
    let mut client = Command::new("timeout")
        .args(["--kill-after=5", "150", "node", "tests/chromium.mjs"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(hint);
    client.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).await.unwrap();
    let output = client.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}; {hint}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}
