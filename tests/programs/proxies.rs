//! The example server behind common proxies that terminate TLS.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::Role},
};

use crate::common::{self, Raw, handshake, plain};

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it happens in time")
}

/// Ends with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command, needed: &str) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{needed}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn start_server(flags: &[&str]) -> (Process, SocketAddr) {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/server");
    let mut command = Command::new(program);
    // The server logs every rejection.
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = Process::start(&mut command, "`cargo build --example server` was run");
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address =
        line.trim_end().strip_prefix("listening on http://").expect("its address").parse().unwrap();
    (server, address)
}

/// A tap between proxy and server: reports the bytes of the proxy at the end of each connection.
async fn start_tap(server: SocketAddr) -> (SocketAddr, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut proxy, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let (mut sent, mut responded) = (Vec::new(), Vec::new());
                loop {
                    let (from, to) = (sent.len(), responded.len());
                    let read = tokio::select! {
                        read = proxy.read_buf(&mut sent) => read,
                        read = server.read_buf(&mut responded) => read,
                    };
                    server.write_all(&sent[from..]).await.ok();
                    proxy.write_all(&responded[to..]).await.ok();
                    if read.unwrap_or(0) == 0 {
                        break;
                    }
                }
                sender.send(String::from_utf8_lossy(&sent).into_owned()).ok();
            });
        }
    });
    (address, seen)
}

#[derive(Clone, Copy)]
enum Kind {
    Nginx,
    Haproxy,
}

impl Kind {
    fn command(self, directory: &Path, listen: &str, upstream: &str) -> (Command, &'static str) {
        let (template, file) = match self {
            Self::Nginx => (include_str!("../proxies/nginx.conf"), "nginx.conf"),
            Self::Haproxy => (include_str!("../proxies/haproxy.cfg"), "haproxy.cfg"),
        };
        let config = template
            .replace("{LISTEN}", listen)
            .replace("{UPSTREAM}", upstream)
            .replace("{DIR}", directory.to_str().unwrap());
        let file = directory.join(file);
        fs::write(&file, config).unwrap();
        match self {
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "stderr"]);
                (command, "this test needs nginx (`apt-get install nginx-light`)")
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.args(["-db", "-q", "-f"]).arg(file);
                (command, "this test needs haproxy (`apt-get install haproxy`)")
            }
        }
    }
}

/// A proxy, the server behind it, and the bytes between them.
struct Setup {
    port: u16,
    certificate: CertificateDer<'static>,
    seen: UnboundedReceiver<String>,
    _processes: [Process; 2],
    _directory: Directory,
}

impl Setup {
    async fn start(kind: Kind, mode: &str) -> Self {
        for _ in 0..5 {
            if let Some(setup) = Self::try_start(kind, mode).await {
                return setup;
            }
        }
        panic!("the proxy does not start");
    }

    /// Returns `None` if the proxy exits immediately, for example because its port is taken.
    async fn try_start(kind: Kind, mode: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let public = format!("https://localhost:{port}");
        let (server, address) =
            start_server(&["--mode", mode, "--public-origin", &public, "--token", "s3cr3t"]);
        let (tap, seen) = start_tap(address).await;

        let directory = Directory::new(&format!("{port}"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        fs::write(directory.0.join("cert.pem"), pem).unwrap();
        let (mut command, needed) =
            kind.command(&directory.0, &format!("127.0.0.1:{port}"), &tap.to_string());
        let mut proxy = Process::start(&mut command, needed);
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if proxy.0.try_wait().unwrap().is_some() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            true
        };
        let certificate = made.cert.into();
        let processes = |proxy| [proxy, server];
        soon(listens).await.then(|| Self {
            port,
            certificate,
            seen,
            _processes: processes(proxy),
            _directory: directory,
        })
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A valid handshake.
    fn handshake(&self) -> Raw {
        self.at_this_host(handshake())
            .with("Origin", self.origin())
            .and("Authorization", "Bearer s3cr3t")
    }

    fn at_this_host(&self, raw: Raw) -> Raw {
        raw.with("Host", format!("localhost:{}", self.port))
    }

    async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connected =
            TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
        soon(connected).await.unwrap()
    }

    /// Returns all responses over one connection; the last request has to close it.
    async fn exchange(&self, requests: &[&Raw]) -> String {
        let mut stream = self.connect("http/1.1").await;
        let bytes: Vec<_> = requests.iter().flat_map(|raw| raw.bytes()).collect();
        stream.write_all(&bytes).await.unwrap();
        let mut responses = Vec::new();
        // The stream may end without the close_notify of TLS.
        while soon(stream.read_buf(&mut responses)).await.is_ok_and(|read| read > 0) {}
        String::from_utf8(responses).unwrap()
    }

    /// Returns the bytes that the proxy sent after this text, up to the end of that connection.
    async fn sent_behind(&mut self, text: &str) -> String {
        loop {
            let sent = soon(self.seen.recv()).await.unwrap();
            if let Some((_, behind)) = sent.split_once(text) {
                return behind.to_owned();
            }
        }
    }
}

async fn assert_echo<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Close(_)))));
}

async fn real_client_is_accepted(setup: &Setup) {
    let mut request = format!("wss://localhost:{}/ws", setup.port).into_client_request().unwrap();
    request.headers_mut().insert("origin", setup.origin().parse().unwrap());
    request.headers_mut().insert("authorization", "Bearer s3cr3t".parse().unwrap());
    let (mut socket, _) =
        soon(client_async(request, setup.connect("http/1.1").await)).await.unwrap();
    assert_echo(&mut socket).await;
}

async fn rejections_are_seen_through_the_proxy(setup: &mut Setup) {
    let valid = setup.handshake();
    let other_scheme = setup.origin().replace("https:", "http:");
    for (i, (raw, status, header, code)) in [
        (valid.clone().with("Origin", "https://evil.example"), 403, "", "origin-not-allowed"),
        (valid.clone().with("Origin", other_scheme), 403, "", "origin-not-allowed"),
        (valid.clone().without("Origin"), 403, "", "origin-missing"),
        (
            valid.clone().without("Authorization"),
            401,
            r#"www-authenticate: Bearer realm="websocket""#,
            "token-missing",
        ),
        (
            valid.clone().with("Sec-WebSocket-Version", "8"),
            426,
            "sec-websocket-version: 13",
            "version-unsupported",
        ),
        (valid.clone().and("Sec-WebSocket-Key", common::KEY), 400, "", "key-repeated"),
    ]
    .into_iter()
    .enumerate()
    {
        let rejected = raw.target(&format!("/ws?refused={i}"));
        let second = setup.at_this_host(plain()).target("/ws?second").and("Connection", "close");
        let responses = setup.exchange(&[&rejected, &second]).await;
        let (head, rest) = responses.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{code}: {head}");
        assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{code}: {head}");
        assert!(head.contains(&header.to_lowercase()), "{code}: {head}");
        let (problem, second) = rest.split_once('}').unwrap();
        assert!(problem.ends_with(&format!(r#""code":"{code}""#)), "{code}: {problem}");
        // The proxy may pass it on as a separate request.
        assert!(second.is_empty() || second.starts_with("HTTP/1.1 200 "), "{code}: {second}");

        // Nothing followed the rejected handshake on its connection, which has ended.
        let sent = setup.sent_behind(&format!("refused={i} ")).await;
        assert!(
            sent.split_once("\r\n\r\n").is_some_and(|(_, behind)| behind.is_empty()),
            "{code}: {sent}"
        );
    }
}

async fn an_ordinary_request_passes(setup: &Setup) {
    let page = setup.at_this_host(plain()).target("/").and("Connection", "close");
    let response = setup.exchange(&[&page]).await;
    assert!(response.starts_with("HTTP/1.1 200 ") && response.contains("<title>"), "{response}");
}

/// HAProxy turns the extended CONNECT into an upgrade, and the 101 of the server into a 200.
async fn http2_is_accepted_and_rejected(setup: &Setup) {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(setup.connect("h2").await))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (origin, status) in [("https://evil.example", 403), (&*setup.origin(), 200)] {
        let mut request = Request::connect(format!("{}/ws", setup.origin()))
            .header("sec-websocket-version", "13")
            .header("authorization", "Bearer s3cr3t")
            .header("origin", origin)
            .body(Empty::<Bytes>::new())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), status);
        if status == 200 {
            let socket = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
            assert_echo(&mut WebSocketStream::from_raw_socket(socket, Role::Client, None).await)
                .await;
        } else {
            let problem = soon(response.into_body().collect()).await.unwrap().to_bytes();
            assert!(problem.ends_with(br#""code":"origin-not-allowed"}"#), "{problem:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx() {
    for mode in ["guard", "responder"] {
        let mut setup = Setup::start(Kind::Nginx, mode).await;
        real_client_is_accepted(&setup).await;
        rejections_are_seen_through_the_proxy(&mut setup).await;
        an_ordinary_request_passes(&setup).await;
    }
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy() {
    for mode in ["guard", "responder"] {
        let mut setup = Setup::start(Kind::Haproxy, mode).await;
        real_client_is_accepted(&setup).await;
        rejections_are_seen_through_the_proxy(&mut setup).await;
        an_ordinary_request_passes(&setup).await;
        http2_is_accepted_and_rejected(&setup).await;
    }
}
