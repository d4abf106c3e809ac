//! The chat on one server in memory, and on two servers with a Redis behind nginx.

#[path = "../../../tests/programs/redis_server.rs"]
#[allow(dead_code)]
mod redis_server;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use self::redis_server::{RedisServer, free_port};

const FOREIGN: &str = "https://evil.example";

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

/// Ends with the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    async fn wait(&mut self) -> ExitStatus {
        soon(async {
            loop {
                match self.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Server {
    process: Process,
    address: SocketAddr,
    operate: SocketAddr,
}

impl Server {
    fn command(flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat-example"));
        command
            .args(["--listen", "127.0.0.1:0", "--operate", "127.0.0.1:0"])
            .args(flags)
            .env("CHAT_INVITATION", "s3cr3t");
        command
    }

    fn start(flags: &[&str]) -> Self {
        let mut process = Process(Self::command(flags).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let mut address = |beginning: &str| {
            let line = lines.next().expect("it says where it listens").unwrap();
            line.strip_prefix(beginning).expect("the address").parse().unwrap()
        };
        let operate = address("metrics and health on http://");
        Self { process, operate, address: address("listening on http://") }
    }

    async fn is_ready(&self) -> bool {
        request(Method::GET, self.operate, "/ready", &[], "").await.is_ok_and(|it| it.status == 200)
    }

    /// The sum of the values of a metric with this beginning.
    async fn metric(&self, name: &str) -> f64 {
        let text = request(Method::GET, self.operate, "/metrics", &[], "").await.unwrap().text;
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }
}

struct Response {
    status: u16,
    cookie: Option<String>,
    text: String,
}

async fn request(
    method: Method,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response, hyper_util::client::legacy::Error> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let response =
        soon(Client::builder(TokioExecutor::new()).build_http().request(request)).await?;
    let cookie = response.headers().get("set-cookie");
    Ok(Response {
        status: response.status().as_u16(),
        cookie: cookie.map(|cookie| cookie.to_str().unwrap().to_owned()),
        text: {
            let body = soon(response.into_body().collect()).await.unwrap();
            String::from_utf8(body.to_bytes().to_vec()).unwrap()
        },
    })
}

async fn post(
    address: SocketAddr,
    path: &str,
    origin: &str,
    cookie: &str,
    body: &Value,
) -> Response {
    let headers = [("origin", origin), ("cookie", cookie), ("content-type", "application/json")];
    request(Method::POST, address, path, &headers, &body.to_string()).await.unwrap()
}

/// A browser in which a user has logged in, at a server or at nginx.
struct Browser {
    address: SocketAddr,
    origin: String,
    cookie: String,
}

impl Browser {
    async fn login(address: SocketAddr, user: &str) -> Self {
        let origin = format!("http://{address}");
        let body = json!({ "user": user, "invitation": "s3cr3t" });
        let response = post(address, "/login", &origin, "", &body).await;
        assert_eq!(response.status, 200, "{}", response.text);
        let cookie = response.cookie.unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        Self { address, origin, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        post(self.address, path, &self.origin, &self.cookie, body).await
    }

    async fn ticket(&self, room: &str) -> String {
        let response = self.post("/tickets", &json!({ "room": room })).await;
        assert_eq!(response.status, 201, "{}", response.text);
        let body: Value = serde_json::from_str(&response.text).unwrap();
        body["ticket"].as_str().unwrap().to_owned()
    }

    async fn open(&self, ticket: &str) -> Result<Socket, u16> {
        open(self.address, ticket, &self.origin).await
    }

    async fn join(&self, room: &str) -> Socket {
        self.open(&self.ticket(room).await).await.unwrap()
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Returns the status if it is not 101.
async fn open(address: SocketAddr, ticket: &str, origin: &str) -> Result<Socket, u16> {
    let mut request = format!("ws://{address}/ws?ticket={ticket}").into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.parse().unwrap());
    match soon(connect_async(request)).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

impl Socket {
    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            match soon(self.0.next()).await.expect("a message").unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    /// Returns the next message as `from: text`, or the error.
    async fn hear(&mut self) -> String {
        let message: Value = serde_json::from_str(self.next().await.to_text().unwrap()).unwrap();
        match &message["error"] {
            Value::String(error) => error.clone(),
            _ => format!(
                "{}: {}",
                message["from"].as_str().unwrap(),
                message["text"].as_str().unwrap()
            ),
        }
    }

    /// Returns the close code. The next read sends the response.
    async fn closed(mut self) -> u16 {
        let Message::Close(Some(frame)) = self.next().await else { panic!("no close frame") };
        assert!(soon(self.0.next()).await.is_none());
        frame.code.into()
    }
}

/// Waits until the sum over the servers is as expected.
async fn until_metric(servers: &[&Server], name: &str, expected: f64) {
    let look = async {
        loop {
            let mut sum = 0.0;
            for server in servers {
                sum += server.metric(name).await;
            }
            if sum == expected {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), look).await.is_ok(), "{name} is not {expected}");
}

#[tokio::test]
async fn one_server_in_memory() {
    let mut server = Server::start(&["--max-per-user", "2", "--drain", "2"]);
    let address = server.address;
    assert!(server.is_ready().await);
    let own = format!("http://{address}");
    for (path, origin, body, status) in [
        ("/login", &*own, json!({ "user": "alice", "invitation": "guess" }), 403),
        ("/login", &own, json!({ "user": "<b>", "invitation": "s3cr3t" }), 400),
        ("/login", &own, json!({ "user": "a".repeat(5000), "invitation": "s3cr3t" }), 413),
        ("/login", FOREIGN, json!({ "user": "alice", "invitation": "s3cr3t" }), 403),
        ("/tickets", &own, json!({ "room": "lobby" }), 401),
        ("/logout", &own, json!({}), 401),
    ] {
        let response = post(address, path, origin, "session=guess", &body).await;
        assert_eq!(response.status, status, "{path} {origin} {body}: {}", response.text);
    }

    let (alice, bob) =
        (Browser::login(address, "alice").await, Browser::login(address, "bob").await);
    let response = alice.post("/tickets", &json!({ "room": "no room" })).await;
    assert_eq!(response.status, 400);
    let mut at_alice = alice.join("lobby").await;
    let mut at_bob = bob.join("lobby").await;
    let mut elsewhere = bob.join("other").await;
    at_alice.say("hello").await;
    for socket in [&mut at_alice, &mut at_bob] {
        assert_eq!(socket.hear().await, "alice: hello");
    }
    elsewhere.say("anybody here?").await;
    assert_eq!(elsewhere.hear().await, "bob: anybody here?");

    let ticket = alice.ticket("lobby").await;
    assert_eq!(open(address, &ticket, FOREIGN).await.err(), Some(403));
    let mut second = alice.open(&ticket).await.unwrap();
    assert_eq!(alice.open(&ticket).await.err(), Some(401));
    second.say(&"x".repeat(2001)).await;
    assert_eq!(second.hear().await, "the message is too long");
    second.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(second.closed().await, 1003);
    until_metric(&[&server], "chat_sockets ", 3.0).await;

    // The oldest makes room.
    let (second, third) = (alice.join("lobby").await, alice.join("lobby").await);
    assert_eq!(at_alice.closed().await, 4409);
    let unused = alice.ticket("lobby").await;
    assert_eq!(alice.post("/logout", &json!({})).await.status, 200);
    for socket in [second, third] {
        assert_eq!(socket.closed().await, 4401);
    }
    assert_eq!(alice.open(&unused).await.err(), Some(401));
    assert_eq!(alice.post("/tickets", &json!({ "room": "lobby" })).await.status, 401);

    until_metric(&[&server], "chat_messages_total{outcome=\"sent\"} ", 2.0).await;
    until_metric(&[&server], "chat_messages_total{outcome=\"rejected\"} ", 1.0).await;
    let rejected = "ws_guard_handshakes_total{outcome=\"rejected\",code=\"token-invalid\"} ";
    until_metric(&[&server], rejected, 2.0).await;

    server.process.signal("TERM");
    assert_eq!((at_bob.closed().await, elsewhere.closed().await), (1001, 1001));
    assert!(server.process.wait().await.success());
}

#[tokio::test]
async fn silent_and_fast_clients() {
    let server = Server::start(&["--ping", "1"]);
    let alice = Browser::login(server.address, "alice").await;
    let mut socket = alice.join("lobby").await;
    for _ in 0..30 {
        socket.say("spam").await;
    }
    let heard = async { while socket.hear().await != "you send too fast" {} };
    soon(heard).await;

    // It does not respond to pings.
    let ticket = alice.ticket("lobby").await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /ws?ticket={ticket} HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address
    );
    silent.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    soon(silent.read_to_end(&mut received)).await.ok();
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", received.escape_ascii());
}

#[test]
fn invalid_flags_name_the_fix() {
    for (flags, fix) in [
        (&["--redis", "redis://127.0.0.1"][..], "--secret"),
        (&["--secret", "short"], "32"),
        (&["--origin", "chat.example.com"], "https://"),
        (&["--redis", "localhost", "--secret", "0123456789abcdef0123456789abcdef"], "redis://"),
    ] {
        let output = Server::command(flags).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains(fix), "{flags:?}: {errors}");
    }
}

/// `nginx.conf`, with the servers and files of this test.
struct Nginx {
    _process: Process,
    address: SocketAddr,
    directory: PathBuf,
}

impl Nginx {
    async fn start(port: u16, servers: [SocketAddr; 2]) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("chat-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut config = include_str!("../nginx.conf").to_owned();
        for (here, there) in [
            ("listen 8080", format!("listen 127.0.0.1:{port}")),
            ("chat1:3000", servers[0].to_string()),
            ("chat2:3000", servers[1].to_string()),
            ("/tmp", directory.display().to_string()),
        ] {
            assert!(config.contains(here), "{here}");
            config = config.replace(here, &there);
        }
        let file = directory.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).args(["-e", "stderr", "-g", "daemon off;"]);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("this test needs nginx (`apt-get install nginx-light`): {error}")
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        soon(async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Self { _process: Process(process), address, directory }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        self._process.signal("TERM");
        self._process.0.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

#[tokio::test]
#[ignore = "needs redis-server and nginx"]
async fn two_servers_with_redis_behind_nginx() {
    let redis = RedisServer::start().await;
    let port = free_port();
    let (origin, url) = (format!("http://127.0.0.1:{port}"), redis.url());
    let start = || {
        Server::start(&[
            "--redis",
            &url,
            "--secret",
            "0123456789abcdef0123456789abcdef",
            "--origin",
            &origin,
            "--behind-proxy",
            "--max-per-user",
            "50",
        ])
    };
    let (mut first, second) = (start(), start());
    soon(async {
        while !(first.is_ready().await && second.is_ready().await) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let nginx = Nginx::start(port, [first.address, second.address]).await;
    let (alice, bob) =
        (Browser::login(nginx.address, "alice").await, Browser::login(nginx.address, "bob").await);

    // A user on each server.
    let mut at_alice = join_at(&alice, &first).await;
    let mut at_bob = join_at(&bob, &second).await;
    for (user, text) in [("alice", "hello"), ("bob", "hello, too")] {
        let socket = if user == "alice" { &mut at_alice } else { &mut at_bob };
        socket.say(text).await;
        for socket in [&mut at_alice, &mut at_bob] {
            assert_eq!(socket.hear().await, format!("{user}: {text}"));
        }
    }
    let both = [&first, &second];
    until_metric(&both, "chat_messages_total{outcome=\"sent\"} ", 2.0).await;

    // A ticket works once, on all servers.
    let ticket = bob.ticket("lobby").await;
    let redeemed = bob.open(&ticket).await.unwrap();
    for _ in 0..4 {
        assert_eq!(bob.open(&ticket).await.err(), Some(401));
    }
    let rejected = "ws_guard_handshakes_total{outcome=\"rejected\",code=\"token-invalid\"} ";
    until_metric(&both, rejected, 4.0).await;
    drop(redeemed);

    // A log-out ends the sockets on both servers, and only those of its user.
    let other_device = Browser::login(nginx.address, "alice").await;
    let also_alice = join_at(&alice, &second).await;
    let on_other_device = other_device.join("lobby").await;
    let unused = alice.ticket("lobby").await;
    assert_eq!(alice.post("/logout", &json!({})).await.status, 200);
    for socket in [at_alice, also_alice, on_other_device] {
        assert_eq!(socket.closed().await, 4401);
    }
    assert_eq!(alice.post("/tickets", &json!({ "room": "lobby" })).await.status, 401);
    assert_eq!(alice.open(&unused).await.err(), Some(401));

    // A restart: the sockets of the first server come back at the second one, at once.
    let mut at_alice = join_at(&other_device, &first).await;
    at_alice.say("still here").await;
    assert_eq!(at_bob.hear().await, "alice: still here");
    assert_eq!(at_alice.hear().await, "alice: still here");
    // This one delays the end of the drain.
    let stays = join_at(&other_device, &first).await;
    first.process.signal("TERM");
    assert_eq!(at_alice.closed().await, 1001);
    assert!(!first.is_ready().await);
    for _ in 0..4 {
        drop(other_device.join("lobby").await);
    }
    let mut at_alice = other_device.join("lobby").await;
    at_alice.say("back").await;
    for socket in [&mut at_alice, &mut at_bob] {
        assert_eq!(socket.hear().await, "alice: back");
    }
    assert!(first.process.0.try_wait().unwrap().is_none(), "it still drains");
    drop(stays);
    assert!(first.process.wait().await.success());
    // It is gone, and nginx knows.
    for _ in 0..4 {
        drop(other_device.join("lobby").await);
    }
    at_bob.say("good").await;
    assert_eq!(at_alice.hear().await, "bob: good");
    assert_eq!(second.metric("chat_messages_total{outcome=\"rejected\"} ").await, 0.0);
}

/// Joins the lobby by nginx, until it has picked that server.
async fn join_at(browser: &Browser, server: &Server) -> Socket {
    let joined = async {
        loop {
            let before = server.metric("ws_guard_handshakes_total{outcome=\"accepted\"").await;
            let socket = browser.join("lobby").await;
            if server.metric("ws_guard_handshakes_total{outcome=\"accepted\"").await > before {
                return socket;
            }
        }
    };
    soon(joined).await
}

#[test]
#[ignore = "needs Chromium and Node: tests/clients/install"]
fn page_reconnects() {
    // Ends if its own timeouts fail.
    let status = Command::new("timeout")
        .args(["--kill-after=5", "150", "node", "tests/page.mjs"])
        .args([env!("CARGO_BIN_EXE_chat-example"), &free_port().to_string()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success(), "{status}; tests/clients/install installs what is missing");
}
