//! The example server from the first byte of a connection to its end: limits, timeouts, and the drain.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

use crate::{
    common::{handshake, plain, send},
    server::Server,
};

const MODES: [&str; 2] = ["guard", "responder"];
const LONG: Duration = Duration::from_secs(30);

async fn open(address: SocketAddr) -> Result<TcpStream, u16> {
    let response = send(address, &handshake().bytes()).await;
    match response.status {
        101 => Ok(response.stream),
        status => Err(status),
    }
}

/// Sends a masked close frame without a code, and reads the response.
async fn close(mut socket: TcpStream) {
    socket.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
}

/// The requests of these tests have a host of their own.
fn start(flags: &[&str]) -> Server {
    Server::start(&[flags, &["--allow-any-host"]].concat())
}

#[tokio::test]
async fn max_connections_is_enforced_and_freed_slots_are_reused() {
    for mode in MODES {
        let server = start(&["--mode", mode, "--max-connections", "100", "--rejection", "empty"]);
        let open_many = async |n| join_all((0..n).map(|_| open(server.address))).await;
        let (mut sockets, rejected): (Vec<_>, Vec<_>) =
            open_many(150).await.into_iter().partition(Result::is_ok);
        assert_eq!((sockets.len(), rejected.len()), (100, 50));
        assert!(rejected.iter().all(|rejected| matches!(rejected, Err(503))), "{rejected:?}");

        join_all(sockets.drain(..30).map(|socket| close(socket.unwrap()))).await;
        // The client sees the end of a connection before the server has freed the slot.
        let mut accepted = 0;
        let start = Instant::now();
        while accepted < 30 && start.elapsed() < LONG {
            let (more, _): (Vec<_>, Vec<_>) =
                open_many(30 - accepted).await.into_iter().partition(Result::is_ok);
            accepted += more.len();
            sockets.extend(more);
        }
        assert_eq!(accepted, 30);
        assert!(open_many(20).await.iter().all(|opened| matches!(opened, Err(503))));
        assert_eq!(sockets.len(), 100);
    }
}

fn terminate(server: &Server, signal: &str) {
    assert!(
        Command::new("kill").args([signal, &server.id().to_string()]).status().unwrap().success()
    );
}

#[tokio::test]
async fn sigterm_sends_a_close_frame_to_every_socket() {
    for (mode, signal) in MODES.into_iter().zip(["-TERM", "-INT"]) {
        let mut server =
            start(&["--mode", mode, "--drain-timeout", "30000", "--rejection", "empty"]);
        let mut sockets = Vec::new();
        for _ in 0..10 {
            sockets.extend(join_all((0..100).map(|_| open(server.address))).await);
        }
        terminate(&server, signal);
        let ends = sockets.into_iter().map(async |socket| {
            let mut socket = socket.unwrap();
            let mut head = [0; 4];
            socket.read_exact(&mut head).await.unwrap();
            assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1001));
            // During the drain new clients are rejected.
            (socket, open(server.address).await)
        });
        let mut rejected = 0;
        for (mut socket, late) in join_all(ends).await {
            rejected += usize::from(late.is_err_and(|status| status == 503));
            socket.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
        }
        assert_eq!(rejected, 1000);
        assert!(server.wait(LONG).success());
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The transport of the clients.
#[derive(Clone)]
struct Route {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    http2: bool,
}

impl Route {
    async fn stream(&self) -> Box<dyn Io> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        match &self.tls {
            Some(config) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap())
            }
            None => Box::new(stream),
        }
    }

    async fn http2(&self) -> SendRequest<Empty<Bytes>> {
        let (mut client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(self.stream().await))
                .await
                .unwrap();
        tokio::spawn(connection);
        // The client may use `:protocol` only after it received the settings of the server.
        client.send_request(plain().target("https://localhost/").request()).await.unwrap();
        client
    }

    /// Opens a socket over its own connection.
    async fn open(&self) -> Result<Box<dyn Io>, u16> {
        if self.http2 {
            return open_stream(&mut self.http2().await).await;
        }
        let mut stream = self.stream().await;
        stream.write_all(&handshake().bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        match std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap() {
            101 => Ok(stream),
            status => Err(status),
        }
    }

    /// Opens sockets over as few connections as possible.
    async fn open_together(&self, count: usize) -> Vec<Result<Box<dyn Io>, u16>> {
        if !self.http2 {
            return join_all((0..count).map(|_| self.open())).await;
        }
        let client = self.http2().await;
        join_all((0..count).map(|_| {
            let mut client = client.clone();
            async move { open_stream(&mut client).await }
        }))
        .await
    }
}

async fn open_stream(client: &mut SendRequest<Empty<Bytes>>) -> Result<Box<dyn Io>, u16> {
    let response = client.send_request(handshake().extended_connect()).await.unwrap();
    match response.status().as_u16() {
        200 => Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await.unwrap()))),
        status => Err(status),
    }
}

// The clients must read the end while the test waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_and_drain_work_over_http2_and_tls() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["lifecycle.crt", "lifecycle.key"].map(|name| directory.join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls_flags =
        ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let client = |protocol: &str| {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        Some(Arc::new(config))
    };

    for mode in MODES {
        for (http2, tls) in [(true, None), (false, client("http/1.1")), (true, client("h2"))] {
            let flags = [
                "--mode",
                mode,
                "--max-connections",
                "5",
                "--drain-timeout",
                "60000",
                "--rejection",
                "empty",
            ];
            let flags =
                if tls.is_some() { [&flags[..], &tls_flags].concat() } else { flags.to_vec() };
            let mut server = start(&flags);
            let route = Route { address: server.address, tls, http2 };
            let exchange = async {
                let (sockets, rejected): (Vec<_>, Vec<_>) =
                    route.open_together(8).await.into_iter().partition(Result::is_ok);
                assert!(
                    rejected.len() == 3
                        && rejected.into_iter().all(|rejected| rejected.err() == Some(503))
                );
                let mut sockets =
                    sockets.into_iter().map(|socket| socket.ok().unwrap()).collect::<Vec<_>>();
                assert_eq!(route.open().await.err(), Some(503));

                let mut leaves = sockets.pop().unwrap();
                leaves.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
                leaves.read_to_end(&mut Vec::new()).await.ok();
                // The client sees the end of a connection before the server has freed the slot.
                let next = loop {
                    if let Ok(next) = route.open().await {
                        break next;
                    }
                };
                sockets.push(next);
                assert_eq!(route.open().await.err(), Some(503));

                terminate(&server, "-TERM");
                for socket in &mut sockets {
                    let mut head = [0; 4];
                    socket.read_exact(&mut head).await.unwrap();
                    assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1001));
                }
                // During the drain new clients are rejected.
                assert_eq!(route.open().await.err(), Some(503));
                for socket in &mut sockets {
                    socket.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
                    socket.read_to_end(&mut Vec::new()).await.ok();
                }
            };
            timeout(LONG, exchange).await.unwrap_or_else(|_| panic!("{mode} {http2}: in time"));
            // An open socket would delay the exit.
            assert!(server.wait(LONG).success());
        }
    }
}

#[test]
fn sigterm_stops_a_server_that_has_just_started() {
    for _ in 0..10 {
        let mut server = start(&[]);
        terminate(&server, "-TERM");
        assert!(server.wait(LONG).success());
    }
}

#[tokio::test]
async fn second_signal_stops_the_drain() {
    // A socket that never closes, and half a request.
    for flags in [
        &["--drain-timeout", "60000"][..],
        &["--drain-timeout", "60000", "--handshake-timeout", "60000"],
    ] {
        let mut server = start(flags);
        let _socket = match flags.len() {
            2 => open(server.address).await.unwrap(),
            _ => {
                let mut stream = TcpStream::connect(server.address).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
                stream
            }
        };
        sleep(Duration::from_millis(100)).await;
        terminate(&server, "-TERM");
        sleep(Duration::from_millis(300)).await;
        assert!(server.is_running());
        terminate(&server, "-INT");
        assert!(server.wait(LONG).success());
    }
}

#[tokio::test]
async fn drain_timeout_leaves_open_sockets_behind() {
    for mode in MODES {
        let mut server = start(&["--mode", mode, "--drain-timeout", "1000"]);
        let socket = open(server.address).await.unwrap();
        let polite = open(server.address).await.unwrap();
        terminate(&server, "-TERM");
        close(polite).await;
        sleep(Duration::from_millis(300)).await;
        assert!(server.is_running(), "it waits");
        assert!(server.wait(LONG).success());
        assert_eq!(server.line("the drain is over"), "connections left open: 1");
        drop(socket);
    }
}

#[tokio::test]
async fn handshake_timeout_closes_a_slow_connection() {
    for flags in
        [&["--handshake-timeout", "300"][..], &["--handshake-timeout", "300", "--tls-self-signed"]]
    {
        let server = start(flags);
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = format!("{preface}\0\0\0\x04\0\0\0\0\0");
        let silent = [
            "",
            "G",
            "GET /ws HTTP/1.1\r\nHost: a\r\nX-Slow:",
            &preface[..10],
            preface,
            &settings,
            "\x16\x03\x01\0",
        ];
        join_all(silent.map(async |sent| {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            // The server may reset the connection if it has unread bytes.
            let end = timeout(LONG, stream.read_to_end(&mut Vec::new())).await;
            assert!(end.is_ok(), "{sent:?}: still open");
        }))
        .await;
    }
    // An open socket has no timeout.
    let server = start(&["--handshake-timeout", "300"]);
    let mut socket = open(server.address).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    socket.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut echo = [0; 4];
    socket.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x81\x02hi");
}

#[tokio::test]
async fn oversized_head_is_rejected_with_431() {
    let server = start(&[]);
    let many = (0..80).fold(handshake(), |raw, i| raw.and(&format!("X-{i}"), "v"));
    assert_eq!(send(server.address, &many.bytes()).await.status, 431);
    let long = handshake().and("X-Long", "v".repeat(20_000));
    assert_eq!(send(server.address, &long.bytes()).await.status, 431);
    assert!(open(server.address).await.is_ok());
}
