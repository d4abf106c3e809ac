//! The example server: its modes, page, flags, log and metrics.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    common::{
        self, Raw, handshake, plain,
        scrape::{assert_help, connections, expected, handshakes, wait_for},
        send,
    },
    examples::{FOREIGN, assert_echo, connect},
    server::Server,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const EVIL: &str = "https://evil.example";

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

fn good() -> Raw {
    bearer("good")
}

fn offer(raw: Raw, subprotocols: &str) -> Raw {
    raw.and("Sec-WebSocket-Protocol", subprotocols)
}

#[tokio::test]
async fn echo_works_in_both_modes() {
    for mode in ["guard", "responder"] {
        let flags = [
            "--mode",
            mode,
            "--token",
            "s3cr3t",
            "--token-from",
            "pair:bearer",
            "--subprotocol",
            "chat",
        ];
        let server = Server::start(&flags);
        let own = format!("http://{}", server.address);
        for (offered, expected) in [("bearer, s3cr3t", "bearer"), ("bearer, s3cr3t, chat", "chat")]
        {
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
    let mut response = send(server.address, &raw.and("Connection", "close").bytes()).await;
    (response.status, response.read_rest().await)
}

#[test]
fn invalid_flag_is_named_in_the_error() {
    for (flags, wanted) in [
        (
            &["--allow-origin", "https://app.example.com/path"][..],
            &["--allow-origin", "no path"][..],
        ),
        (&["--allow-origin", "null"], &["--allow-origin", "allow_null"]),
        (&["--allow-origin", "*"], &["--allow-origin", "dangerous_any"]),
        (&["--public-origin", "https://*.example.com"], &["--public-origin", "wildcard"]),
        (&["--allow-host", "http://a"], &["--allow-host", "without a scheme"]),
        (&["--token", ""], &["--token"]),
        (&["--allow-host", "*"], &["--allow-host", "leave the list out"]),
        (&["--allow-host", "a", "--allow-any-host"], &["--allow-any-host"]),
        (&["--allow-origin", "https://a", "--no-browsers"], &["--no-browsers"]),
        (&["--token", "t", "--token", "t"], &["--token", "twice"]),
        (&["--token", "t", "--token-from", "magic:x"], &["--token-from", "subprotocol:PREFIX"]),
        (
            &["--token", "t", "--token-from", "header:Cookie"],
            &["--token-from", "TokenSource::cookie"],
        ),
        (&["--token", "t", "--max-token-length", "0"], &["--max-token-length", "0"]),
        (&["--first-token"], &["--token <TOKEN>"]),
        (&["--token", "t", "--token-from", "cookie:"], &["--token-from", "cookie"]),
        (
            &["--token", "t", "--token-from", "k8s", "--token-from", "k8s"],
            &["--token-from", "twice"],
        ),
        (&["--token-from", "k8s"], &["--token <TOKEN>"]),
        (&["--tickets", "memory"], &["--token <TOKEN>"]),
        (&["--token", "t", "--tickets", "disk"], &["--tickets", "redis://HOST:PORT"]),
        (&["--token", "t", "--tickets", "redis://:hunter2@"], &["--tickets", "redis://host:6379"]),
        (
            &["--token", "t", "--tickets", "memory", "--token-from", "query:ticket"],
            &["--token-from", "twice"],
        ),
        (&["--subprotocol", "a b"], &["--subprotocol", "without spaces"]),
        (&["--subprotocol", "a", "--subprotocol", "a"], &["--subprotocol", "twice"]),
        (&["--mode", "proxy"], &["--mode", "guard, responder"]),
        (&["--rejection", "open"], &["--rejection", "empty, plain, problem, close"]),
        (&["--max-connections", "0"], &["--max-connections", "allow at least one"]),
        (&["--handshake-timeout", "0"], &["--handshake-timeout", "0"]),
        (&["--max-per-key", "0"], &["--max-per-key", "0"]),
        (&["--evict-oldest"], &["--max-per-key <N>"]),
        (&["--sessions", "disk"], &["--sessions", "redis://HOST:PORT"]),
        (&["--sessions", "redis://:hunter2@"], &["--sessions", "redis://host:6379"]),
    ] {
        let output = Server::command(flags).output().unwrap();
        assert!(!output.status.success(), "{flags:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("hunter2"), "{error}");
        for wanted in wanted {
            assert!(error.contains(wanted), "{flags:?}: {error}");
        }
    }
}

// Log

/// The example server with its log; it ends with the test.
struct Logged {
    process: Child,
    address: std::net::SocketAddr,
    lines: Receiver<String>,
}

impl Logged {
    fn start(flags: &[&str]) -> Self {
        let mut command = Server::command(flags);
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo build --example server` was run");
        let (sender, lines) = mpsc::channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        thread::spawn(move || {
            let lines = log.lines().map_while(Result::ok);
            // Those about the flags come at the start.
            let mut lines = lines.filter(|line| !line.contains(" dangerous: "));
            lines.try_for_each(|line| sender.send(line))
        });
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim_end().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { process, address, lines }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
async fn report_only_rejections_are_logged() {
    for mode in ["guard", "responder"] {
        for style in ["problem", "close"] {
            let server = Logged::start(&[
                "--report-only",
                "--allow-any-host",
                "--mode",
                mode,
                "--token",
                "good",
                "--rejection",
                style,
            ]);
            // The first handshake logs nothing, so the next line belongs to the second.
            for (raw, would) in [
                (bearer("good"), None),
                (
                    bearer("good").with("Origin", EVIL),
                    Some("would be rejected: origin-not-allowed: "),
                ),
                (handshake(), Some("would be rejected: token-missing: ")),
                (bearer("guess"), Some("would be rejected: token-invalid: ")),
                (
                    offer(bearer("good"), "other"),
                    Some("would be rejected: subprotocol-unsupported: "),
                ),
            ] {
                assert_eq!(send(server.address, &raw.bytes()).await.status, 101, "{mode} {raw:?}");
                if let Some(would) = would {
                    let line = server.lines.recv_timeout(TIMEOUT).expect("a line in the log");
                    assert!(line.contains(would), "{line}");
                }
            }
            let old = bearer("good").with("Sec-WebSocket-Version", "8");
            assert_eq!(send(server.address, &old.bytes()).await.status, 426);
            let line = server.lines.recv_timeout(TIMEOUT).expect("a line in the log");
            assert!(
                line.contains(" rejected: version-unsupported: ") && !line.contains("would be"),
                "{line}"
            );
        }
    }
}

// Metrics

async fn get_path(server: &Server, path: &str) -> (u16, String) {
    let mut response =
        send(server.address, &plain().target(path).and("Connection", "close").bytes()).await;
    (response.status, response.read_rest().await)
}

#[tokio::test]
async fn metrics_scrape_agrees_with_the_requests() {
    let rejected = [
        (handshake(), 401, "token-missing", 7.0),
        (bearer("guess"), 401, "token-invalid", 13.0),
        (good().and("Authorization", "Bearer other"), 400, "token-ambiguous", 3.0),
        (good().with("Origin", EVIL), 403, "origin-not-allowed", 21.0),
        (good().without("Origin"), 403, "origin-missing", 11.0),
        (good().with("Host", "evil.example"), 421, "host-not-allowed", 17.0),
        (good().with("Sec-WebSocket-Version", "8"), 426, "version-unsupported", 5.0),
        (good().with("Sec-WebSocket-Key", "zzz"), 400, "key-invalid", 2.0),
        (good().and("Sec-WebSocket-Protocol", "other"), 400, "subprotocol-unsupported", 19.0),
        (good().without("Upgrade"), 426, "upgrade-missing", 2.0),
    ];
    assert_eq!(rejected.iter().map(|(_, _, _, count)| count).sum::<f64>(), 100.0);
    let sent = rejected.iter().map(|(_, _, code, count)| ("rejected", *code, *count));
    let sent = expected(sent.chain([("accepted", "accepted", 100.0)]));

    for mode in ["guard", "responder"] {
        let server = Server::start(&[
            "--metrics",
            "--mode",
            mode,
            "--token",
            "good",
            "--allow-host",
            common::HOST,
            "--allow-origin",
            common::ORIGIN,
            "--subprotocol",
            "chat",
        ]);
        assert_eq!(handshakes(&get_path(&server, "/metrics").await.1), BTreeMap::new());
        let mut open = Vec::new();
        for _ in 0..100 {
            let response = send(server.address, &good().bytes()).await;
            assert_eq!(response.status, 101);
            open.push(response);
        }
        for (raw, status, code, count) in &rejected {
            for _ in 0..*count as usize {
                assert_eq!(send(server.address, &raw.bytes()).await.status, *status, "{code}");
            }
        }
        // An ordinary request is not counted.
        assert_eq!(send(server.address, &plain().target("/ws").bytes()).await.status, 200);
        let (status, text) = get_path(&server, "/metrics").await;
        assert_eq!((status, handshakes(&text)), (200, sent.clone()));

        let by_responder = mode == "responder";
        let counted = async || connections(&get_path(&server, "/metrics").await.1);
        wait_for((by_responder.then_some(100.0), 0.0), counted).await;
        open.truncate(30);
        wait_for((by_responder.then_some(30.0), if by_responder { 70.0 } else { 0.0 }), counted)
            .await;
        drop(open);
        wait_for((by_responder.then_some(0.0), if by_responder { 100.0 } else { 0.0 }), counted)
            .await;
        let (_, text) = get_path(&server, "/metrics").await;
        assert_eq!(handshakes(&text), sent);
        if by_responder {
            assert_help(&text);
        }
    }
}

#[tokio::test]
async fn metrics_are_served_only_with_the_flag() {
    let server = Server::start(&[]);
    assert_eq!(get_path(&server, "/metrics").await.0, 404);
}

/// A client that breaks a rule learns which, and keeps no slot, even if it stays.
#[tokio::test]
async fn a_client_that_breaks_a_rule_keeps_no_slot() {
    let flags = ["--max-connections", "1", "--allow-missing-origin", "--deflate"];
    let server = Server::start(&flags);
    let raw = handshake()
        .with("Host", server.address.to_string())
        .without("Origin")
        .and("Sec-WebSocket-Extensions", "permessage-deflate");
    // A mask of zeros leaves the payload as it is.
    for (frame, code) in [
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff][..], 1007_u16),
        (&[0xa1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x82, 0xff, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        // A client may see the end of its socket before the slot is free.
        let accepted = async {
            loop {
                let response = send(server.address, &raw.bytes()).await;
                if response.status != 503 {
                    break response;
                }
            }
        };
        let response = timeout(TIMEOUT, accepted).await.expect("the slot is free");
        assert_eq!(response.status, 101);
        assert!(response.all("sec-websocket-extensions")[0].starts_with("permessage-deflate"));
        let mut stream = response.stream;
        stream.write_all(frame).await.unwrap();
        // It reads on, and never closes.
        let mut received = Vec::new();
        let end = timeout(TIMEOUT, stream.read_to_end(&mut received)).await;
        end.expect("the server closes").ok();
        assert_eq!(received[0], 0x88, "{received:?}");
        assert_eq!(received[2..4], code.to_be_bytes(), "{received:?}");
    }
}

/// The first frame that a socket gets: the close code and the reason.
async fn close_frame(stream: &mut TcpStream) -> (u16, String) {
    let mut received = Vec::new();
    let end = timeout(TIMEOUT, stream.read_to_end(&mut received)).await;
    end.expect("the server closes, even if the client does not").ok();
    assert_eq!(received[0], 0x88, "{received:?}");
    assert_eq!(usize::from(received[1]) + 2, received.len(), "one frame: {received:?}");
    (
        u16::from_be_bytes([received[2], received[3]]),
        String::from_utf8(received[4..].into()).unwrap(),
    )
}

#[tokio::test]
async fn sessions_of_a_token_are_limited_listed_and_ended() {
    for mode in ["guard", "responder"] {
        for evicts in [false, true] {
            let flags =
                ["--mode", mode, "--token", "alice", "--token", "bob", "--max-per-key", "2"];
            let flags = [&flags[..], if evicts { &["--evict-oldest"][..] } else { &[] }].concat();
            let server = Server::start(&flags);
            let address = server.address;
            let as_user = |raw: Raw, user: &str| {
                raw.with("Host", address.to_string()).and("Authorization", format!("Bearer {user}"))
            };
            let own = format!("http://{address}");
            let connect = |user| as_user(handshake().with("Origin", own.clone()), user);
            let end = |raw: Raw| raw.method("POST").target("/sessions/end");

            let mut first = send(address, &connect("alice").bytes()).await;
            let mut second = send(address, &connect("alice").bytes()).await;
            let bob = send(address, &connect("bob").bytes()).await;
            let mut third = send(address, &connect("alice").bytes()).await;
            assert_eq!([&first, &second, &bob].map(|response| response.status), [101; 3]);
            assert_eq!(third.status, if evicts { 101 } else { 429 });
            if evicts {
                assert_eq!(close_frame(&mut first.stream).await, (4409, "evicted".to_owned()));
            }

            let (status, list) = get(&server, as_user(plain().target("/sessions"), "alice")).await;
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            assert_eq!((status, list.as_array().unwrap().len()), (200, 2), "{list}");
            assert_eq!(list[0]["origin"], own);
            assert!(list[1]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{list}");

            for raw in [plain().target("/sessions"), end(plain())] {
                let raw = raw.with("Host", address.to_string());
                assert_eq!(get(&server, raw.clone()).await.0, 401);
                assert_eq!(get(&server, raw.and("Authorization", "Bearer eve")).await.0, 401);
            }
            let ended = get(&server, as_user(end(plain()), "alice")).await;
            assert_eq!(ended, (200, r#"{"ended":2}"#.to_owned()));
            let open = if evicts { &mut third } else { &mut first };
            for socket in [&mut second, open] {
                assert_eq!(close_frame(&mut socket.stream).await, (4401, "revoked".to_owned()));
            }
            let ended = get(&server, as_user(end(plain()), "alice")).await;
            assert_eq!(ended, (200, r#"{"ended":0}"#.to_owned()));
            assert_eq!(send(address, &connect("alice").bytes()).await.status, 101);
        }
    }
}

#[tokio::test]
async fn sessions_without_tokens_are_those_of_an_address() {
    let server = Server::start(&["--max-per-key", "1", "--allow-missing-origin"]);
    let raw = |raw: Raw| raw.with("Host", server.address.to_string());
    let connect = raw(handshake()).without("Origin");
    let _open = send(server.address, &connect.bytes()).await;
    assert_eq!(send(server.address, &connect.bytes()).await.status, 429);
    let (status, list) = get(&server, raw(plain().target("/sessions"))).await;
    assert_eq!((status, list.matches("since").count()), (200, 1), "{list}");
    // Nobody may end the sockets of others.
    let end = raw(plain().method("POST").target("/sessions/end"));
    assert_eq!(get(&server, end).await.0, 401);

    // All clients of a proxy have its address.
    let server = Server::start(&["--allow-any-host", "--allow-missing-origin"]);
    let _open = send(server.address, &connect.bytes()).await;
    assert_eq!(get(&server, plain().target("/sessions")).await, (200, "[]".to_owned()));
}
