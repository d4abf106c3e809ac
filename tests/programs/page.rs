//! The page of the example server: what it asks the server, and the page in a browser.

use std::{process::Command, time::Duration};

use axum::{Router, routing::any};
use http::request::Parts;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, ConfigError, ConnectionLimit, Drain, GuardLayer,
    PendingUpgrade, PermessageDeflate, ProblemJson, RejectionKind, Sessions, StaticTokens,
    Subprotocols, TokenPolicy, TokenSource, WhenFull,
    token::ticket::{MemoryTicketStore, TicketVerifier},
};

use crate::{
    clients::{FLAGS, IN_THE_CLEAR, OVER_TLS, TEXT, run},
    common::{self, Raw, handshake, plain, send},
    server::Server,
};

const TIMEOUT: Duration = Duration::from_secs(30);

async fn get(server: &Server, raw: Raw) -> (u16, String) {
    let mut response = send(server.address, &raw.and("Connection", "close").bytes()).await;
    (response.status, response.read_rest().await)
}

/// Requests as the page makes them.
struct Page {
    server: Server,
    host: String,
    token: String,
    description: Value,
}

impl Page {
    async fn start(flags: &[&str]) -> Self {
        Self::of(Server::start(flags)).await
    }

    async fn of(server: Server) -> Self {
        let host = server.address.to_string();
        let raw = plain().target("/policy").with("Host", &host);
        let description: Value = serde_json::from_str(&get(&server, raw).await.1).unwrap();
        let token = description["token"].as_str().unwrap().to_owned();
        Self { server, host, token, description }
    }

    async fn request(&self, raw: Raw) -> (u16, Value) {
        let raw = raw.with("Host", &self.host).and("Page-Token", &self.token);
        let (status, body) = get(&self.server, raw).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn attempt(&self, id: &str) -> Value {
        let raw = plain().method("POST").target(&format!("/attempts/{id}"));
        let (status, report) = self.request(raw).await;
        assert_eq!(status, 200, "{id}: {report}");
        report
    }

    async fn own(&self, text: &str) -> Value {
        let length = text.len().to_string();
        let raw = plain().method("POST").target("/attempts").and("Content-Length", length);
        let (status, report) = self.request(raw.body(text)).await;
        assert_eq!(status, 200, "{report}");
        report
    }

    async fn ids(&self) -> Vec<String> {
        let (_, list) = self.request(plain().target("/attempts")).await;
        let id = |attempt: &Value| attempt["id"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(id).collect()
    }
}

#[tokio::test]
async fn files_of_the_page_need_no_network() {
    let server = Server::start(&[]);
    for path in ["/", "/page.css", "/page.js"] {
        let raw = plain().target(path).with("Host", server.address.to_string());
        let (status, text) = get(&server, raw).await;
        assert_eq!(status, 200, "{path}");
        assert!(!text.contains("://") && !text.contains("\"//"), "{path}");
    }
}

#[tokio::test]
async fn page_shows_every_way_to_fail() {
    let flags = ["--token", "s3cr3t", "--subprotocol", "chat", "--tickets", "memory"];
    let page = Page::start(&flags).await;
    let mut codes = Vec::new();
    for id in page.ids().await {
        let report = page.attempt(&id).await;
        assert!(!report.to_string().contains("s3cr3t"), "{report}");
        let accepted = report["accepted"] == true;
        assert_eq!(report["browser"][0]["type"], if accepted { "open" } else { "error" });
        assert_eq!(report["verdict"]["tone"], "good", "{id}: {report}");
        assert_eq!(report["log"].as_array().unwrap().len(), usize::from(!accepted), "{report}");
        // Of a ticket, the steps say that its verifier has to wait.
        let rejecting = if id == "unknown-ticket" { "unknown" } else { "rejected" };
        let steps = report["steps"].as_array().unwrap();
        let rejects = steps.iter().any(|step| step["verdict"] == rejecting);
        assert_eq!(rejects, !accepted, "{id}: {report}");
        codes.push(report["code"].as_str().unwrap_or("accepted").to_owned());
    }
    assert_eq!(
        codes,
        [
            "accepted",
            "accepted",
            "accepted",
            "origin-not-allowed",
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
            "token-invalid",
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
    let other = plain().method("POST").target("/attempts/other");
    assert_eq!(page.request(other).await.0, 404);
}

#[tokio::test]
async fn foreign_origin_is_stopped_here_and_let_in_by_axum_alone() {
    for (mode, id) in [
        ("guard", "foreign-origin"),
        ("responder", "foreign-origin"),
        ("guard", "http2-foreign-origin"),
        ("responder", "http2-foreign-origin"),
    ] {
        let page = Page::start(&["--mode", mode]).await;
        let report = page.attempt(id).await;
        assert_eq!((&report["status"], &report["accepted"]), (&json!(403), &json!(false)));
        assert_eq!(report["unguarded"]["opens"], true, "{mode}: {report}");
    }
}

/// An attack that gets through is bad, and the page names what stops it.
#[tokio::test]
async fn verdict_knows_what_ought_to_happen() {
    const TOKEN: &[&str] = &["--token", "s3cr3t", "--token-from", "cookie:session"];
    for (flags, id, tone, fix) in [
        (&[][..], "foreign-host", "good", None),
        (&["--dangerous-any-origin"], "foreign-origin", "bad", Some("no `--dangerous-any-origin`")),
        (
            &["--dangerous-any-origin"],
            "http2-foreign-origin",
            "bad",
            Some("no `--dangerous-any-origin`"),
        ),
        (&["--allow-null-origin"], "null-origin", "bad", Some("--allow-null-origin")),
        (&["--report-only"], "foreign-origin", "bad", Some("--report-only")),
        (&["--report-only"], "valid", "good", None),
        (&["--report-only"], "wrong-version", "good", None),
        (&["--allow-missing-origin"], "missing-origin", "warn", None),
        (&["--accept-unmatched-subprotocols"], "unsupported-subprotocol", "warn", None),
        (&["--no-browsers"], "valid", "good", None),
        (&["--no-browsers"], "foreign-origin", "good", None),
        (&["--rejection", "close"], "foreign-origin", "good", None),
        (TOKEN, "missing-token", "good", None),
        // No subprotocol is left to select, so no client with a token can connect.
        (
            &["--token", "s3cr3t", "--token-from", "subprotocol:token."],
            "valid",
            "bad",
            Some("subprotocol"),
        ),
    ] {
        let page = Page::start(flags).await;
        let report = page.attempt(id).await;
        let verdict = &report["verdict"];
        assert_eq!(verdict["tone"], tone, "{flags:?} {id}: {report}");
        match fix {
            Some(fix) => assert!(verdict["fix"].as_str().unwrap().contains(fix), "{verdict}"),
            None => assert_eq!(verdict["fix"], Value::Null, "{verdict}"),
        }
    }
}

#[tokio::test]
async fn dangerous_servers_are_marked() {
    for (flags, warnings) in [
        (&[][..], &[][..]),
        (&["--report-only"], &["report-only"]),
        (&["--dangerous-any-origin"], &["dangerous-any-origin"]),
        (&["--allow-null-origin"], &["allow-null-origin"]),
        (&["--token", "t", "--token-from", "query:token"], &["token-in-url"]),
    ] {
        let page = Page::start(flags).await;
        let code =
            |warning: &Value| warning.as_str().unwrap().split(':').next().unwrap().to_owned();
        let codes: Vec<_> =
            page.description["policy"]["warnings"].as_array().unwrap().iter().map(code).collect();
        assert_eq!(codes, warnings, "{flags:?}");
        for warning in page.description["policy"]["warnings"].as_array().unwrap() {
            assert_eq!(page.server.line(" WARN server: dangerous: "), *warning);
        }
    }
    // A public page does not name them, but the log does.
    let public = Page::start(&["--allow-any-host"]).await;
    assert_eq!(public.description["dangerous"], true);
    assert!(public.server.line(" WARN server: dangerous: ").starts_with("dns-rebinding: "));
}

/// A rejection that has nothing to do with the fault proves nothing.
#[tokio::test]
async fn rejection_for_another_reason_is_not_good() {
    // Nothing listens there.
    let page = Page::start(&["--token", "s3cr3t", "--tickets", "redis://127.0.0.1:1"]).await;
    let verdict = &page.attempt("unknown-ticket").await["verdict"];
    assert_eq!(
        (&verdict["tone"], &verdict["title"]),
        (&json!("warn"), &json!("Rejected for another reason"))
    );
    assert!(verdict["text"].as_str().unwrap().contains("`verifier-failed`"), "{verdict}");
    assert_eq!(page.attempt("wrong-token").await["verdict"]["tone"], "good");
}

#[tokio::test]
async fn reason_is_known_for_each_style_of_rejections() {
    for style in ["empty", "plain", "problem", "close"] {
        let page = Page::start(&["--rejection", style, "--token", "s3cr3t"]).await;
        for id in page.ids().await {
            let report = page.attempt(&id).await;
            assert_eq!(report["verdict"]["tone"], "good", "{style} {id}: {report}");
        }
    }
}

/// The page can send a valid handshake with each source of tokens, and others that differ.
#[tokio::test]
async fn attempts_use_the_first_source_of_tokens() {
    const TOKEN: &str = "us%r:s3cr3t";
    // A subprotocol has no colon.
    const NAME: &str = "us%r.s3cr3t";
    for (source, token) in [
        ("authorization", "us+r.s3cr3t"),
        ("basic", TOKEN),
        ("header:x-api-key", TOKEN),
        ("header:authorization:Token", TOKEN),
        ("cookie:session", TOKEN),
        ("query:token", TOKEN),
        ("subprotocol:token.", NAME),
        ("subprotocol-base64:token.", TOKEN),
        ("kubernetes", TOKEN),
        ("phoenix", TOKEN),
        ("pair:bearer", NAME),
    ] {
        let flags = ["--token", token, "--token-from", source, "--subprotocol", "chat"];
        let page = Page::start(&flags).await;
        for (id, accepted) in [
            ("valid", true),
            ("http2", true),
            ("wrong-token", false),
            ("missing-token", false),
            ("two-tokens", false),
        ] {
            let report = page.attempt(id).await;
            assert_eq!(report["accepted"], accepted, "{source} {id}: {report}");
            // A marker cannot be offered twice.
            let is_malformed = (source, id) == ("pair:bearer", "two-tokens");
            let tone = if is_malformed { "warn" } else { "good" };
            assert_eq!(report["verdict"]["tone"], tone, "{source} {id}: {report}");
            let shown = report.to_string();
            assert!(!shown.contains("s3cr3t") && !shown.contains("czNjcjN0"), "{shown}");
        }
    }
}

#[tokio::test]
async fn own_bytes_are_sent_as_they_are() {
    let page = Page::start(&["--subprotocol", "chat"]).await;
    let valid = |host: &str| {
        String::from_utf8(
            handshake().with("Host", host).with("Origin", format!("http://{host}")).bytes(),
        )
        .unwrap()
    };
    let report = page.own(&valid(&page.host)).await;
    assert_eq!(report["accepted"], true, "{report}");
    assert_eq!(report["verdict"]["tone"], "neutral");
    assert!(report["response_head"].as_str().unwrap().contains(common::ACCEPT));
    let report = page.own(&valid("evil.example")).await;
    assert_eq!(report["code"], "host-not-allowed");
    // Nothing but the endpoint can be reached.
    let report =
        page.own("GET /sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(report["status"], 404);
    let report = page.own("\u{0}nonsense\r\n\r\n").await;
    assert_eq!(report["status"], 400, "{report}");

    let http2 = format!(
        ":method: CONNECT\r\n:protocol: websocket\r\n:scheme: http\r\n:path: /ws\r\n:authority: {0}\r\nsec-websocket-version: 13\r\norigin: http://{0}",
        page.host
    );
    assert_eq!(page.own(&http2).await["status"], 200);

    let long = "a".repeat(20_000);
    let raw = plain().method("POST").target("/attempts").and("Content-Length", "20000").body(&long);
    let raw = raw.with("Host", &page.host).and("Page-Token", &page.token);
    assert_eq!(get(&page.server, raw).await.0, 413);
}

#[tokio::test]
async fn attempts_are_for_the_page_of_the_server() {
    let page = Page::start(&["--token", "s3cr3t"]).await;
    let other = Page::start(&[]).await;
    assert!(page.token.len() == 43 && page.token != other.token);
    let attempt = || plain().with("Host", &page.host).method("POST").target("/attempts/valid");
    let by_page = || attempt().and("Page-Token", &page.token);
    for (raw, status) in [
        (attempt(), 403),
        (attempt().and("Page-Token", ""), 403),
        (attempt().and("Page-Token", "s3cr3t"), 403),
        (attempt().and("Page-Token", &other.token), 403),
        (by_page().and("Origin", "https://evil.example"), 403),
        (by_page().and("Origin", "null"), 403),
        (by_page().and("Sec-Fetch-Site", "cross-site"), 403),
        (by_page().with("Host", "evil.example"), 421),
        (by_page().and("Origin", format!("http://{}", page.host)), 200),
        (by_page().and("Sec-Fetch-Site", "same-origin"), 200),
        (attempt().target("/policy").method("GET").and("Origin", "https://evil.example"), 403),
        (attempt().target("/policy").method("GET").with("Host", "evil.example"), 421),
    ] {
        assert_eq!(get(&page.server, raw.clone()).await.0, status, "{raw:?}");
    }
}

#[tokio::test]
async fn page_is_in_no_frame_and_its_token_in_no_cache() {
    let server = Server::start(&[]);
    let host = server.address.to_string();
    for (target, header, wanted) in [
        ("/", "content-security-policy", "frame-ancestors 'none'"),
        ("/", "content-security-policy", "default-src 'none'"),
        ("/policy", "cache-control", "no-store"),
    ] {
        let raw = plain().with("Host", &host).target(target);
        let response = send(server.address, &raw.bytes()).await;
        let values = response.all(header);
        assert!(values.len() == 1 && values[0].contains(wanted), "{target}: {values:?}");
    }
}

#[tokio::test]
async fn attempts_take_no_slot_and_evict_nobody() {
    const LIMITS: &[&str] = &["--max-connections", "1", "--max-per-key", "1", "--evict-oldest"];
    for mode in ["guard", "responder"] {
        let page = Page::start(&[LIMITS, &["--mode", mode, "--token", "alice"]].concat()).await;
        let as_alice = |raw: Raw| raw.with("Host", &page.host).and("Authorization", "Bearer alice");
        let connect = as_alice(handshake().with("Origin", format!("http://{}", page.host)));
        let mut open = send(page.server.address, &connect.bytes()).await;
        assert_eq!(open.status, 101);
        for id in ["valid", "http2", "valid"] {
            assert_eq!(page.attempt(id).await["accepted"], true);
        }
        let (_, list) = get(&page.server, as_alice(plain().target("/sessions"))).await;
        assert_eq!(list.matches("since").count(), 1, "{list}");
        let status = page.request(plain().target("/status")).await.1;
        assert_eq!(status, json!({ "connections": 1, "draining": false }));
        // An empty ping, and its pong.
        open.stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut pong = [0; 2];
        timeout(TIMEOUT, open.stream.read_exact(&mut pong)).await.unwrap().unwrap();
        assert_eq!(pong, [0x8a, 0]);
    }
}

#[tokio::test]
async fn policy_is_shown_on_this_machine() {
    let page = Page::start(&["--token", "s3cr3t", "--sessions", "memory", "--deflate"]).await;
    assert_eq!(page.description["policy"]["flags"], json!([r#"--token "$TOKEN""#, "--deflate"]));
    assert!(!page.description.to_string().contains("s3cr3t"));
    let unguarded = handshake().target("/unguarded").with("Host", &page.host);
    assert_eq!(send(page.server.address, &unguarded.bytes()).await.status, 101);
}

/// What a proxy on this machine lets in comes from anywhere.
#[tokio::test]
async fn policy_is_not_for_clients_on_other_machines() {
    #[rustfmt::skip]
    let flags = [
        "--allow-origin", "https://app.example.com", "--token", "s3cr3t",
        "--token-from", "header:x-api-key", "--token-from", "query:key", "--subprotocol", "secret.chat",
    ];
    for (listen, reachable) in [
        ("0.0.0.0:0", &[][..]),
        ("127.0.0.1:0", &["--public-origin", "https://chat.example.com"]),
        ("127.0.0.1:0", &["--allow-any-host"]),
        ("127.0.0.1:0", &["--allow-host", "localhost", "--allow-host", "chat.example.com"]),
    ] {
        let server = Server::start_on(listen, &[&flags, reachable].concat());
        let host = if reachable.contains(&"localhost") { "localhost" } else { "127.0.0.1" };
        let (status, description) =
            get(&server, plain().with("Host", host).target("/policy")).await;
        assert_eq!(status, 200, "{reachable:?}");
        let mut description: Value = serde_json::from_str(&description).unwrap();
        let page_token = description.as_object_mut().unwrap().remove("token").unwrap();
        let is_dangerous = description.as_object_mut().unwrap().remove("dangerous").unwrap();
        assert_eq!(is_dangerous, true, "a token is in the URL");
        assert_eq!(
            description,
            json!({ "tokens": true, "sources": ["query:key"], "tickets": false, "policy": null }),
            "{reachable:?}"
        );
        let page_token = page_token.as_str().unwrap();
        let attempt = |target| plain().method("POST").target(target).and("Page-Token", page_token);
        for raw in [
            plain().target("/attempts"),
            attempt("/attempts"),
            attempt("/attempts/valid"),
            plain().target("/status"),
            handshake().target("/unguarded"),
        ] {
            let (status, _) = get(&server, raw.with("Host", host)).await;
            assert_eq!(status, 404, "{reachable:?}");
        }
    }
    for host in ["localhost:*", "*.localhost", "127.0.0.1", "[::1]:3000"] {
        let flags = ["--allow-host", "127.0.0.1:*", "--allow-host", host];
        assert!(Page::start(&flags).await.description["policy"].is_object(), "{host}");
    }
}

/// The lines that the page shows for [`SHOWN`].
#[rustfmt::skip]
#[allow(dead_code, reason = "it need only compile")]
fn shown() -> Result<Router, ConfigError> {
    let verifier = StaticTokens::new([("t", String::new())])?;
    let tickets = TicketVerifier::new(MemoryTicketStore::default());
    let key = |_: &Parts| Some(0);
    let drain = Drain::new();
    async fn handler(_: Option<PendingUpgrade>) {}
    // The lines.
    let tokens = TokenPolicy::from_sources(["cookie:session".parse()?, "query:token".parse()?], verifier)?
        .or(TokenPolicy::from_sources([TokenSource::query("ticket")?], tickets)?)?
        .first_source_wins()
        .max_length(100)?;
    let sessions = Sessions::per_key(2, key)?.when_full(WhenFull::EvictOldest);
    let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?.or(AllowOrigin::same_origin()).allow_missing().allow_null())
        .allow_host(AllowHost::list(["127.0.0.1", "localhost:*"])?)
        .subprotocols(Subprotocols::list(["chat"])?)
        .extensions(PermessageDeflate::new()
            .server_window_bits(9..=15)?
            .server_no_context_takeover()
            .client_no_context_takeover())
        .token(tokens)?
        .require_websocket()
        .reject_with(ProblemJson::new())
        .accept_then_close(AcceptThenClose::new())
        .limit(ConnectionLimit::total(5)?)
        .sessions(&sessions)
        .drain(&drain)
        .dangerous_report_only()
        .respond();

    // In `handler`, the guard completes the handshake.
    let app = Router::new().route("/ws", any(handler).layer(guard));
    // The end of the lines.
    Ok(app)
}

#[rustfmt::skip]
const SHOWN: &[&str] = &[
    "--allow-origin", "https://app.example.com", "--same-origin", "--allow-missing-origin",
    "--allow-null-origin", "--allow-host", "127.0.0.1", "--allow-host", "localhost:*",
    "--token", "t", "--token-from", "cookie:session", "--token-from", "query:token", "--first-token",
    "--max-token-length", "100", "--tickets", "memory", "--subprotocol", "chat", "--deflate",
    "--rejection", "close", "--max-connections", "5", "--max-per-key", "2", "--evict-oldest",
    "--require-websocket", "--report-only",
];

#[tokio::test]
async fn shown_rust_compiles() {
    let source = include_str!("page.rs");
    let lines = source.split("    // The lines.\n").nth(1).unwrap();
    let lines = lines.split("    // The end of the lines.\n").next().unwrap();
    let lines: String = lines
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let server = Server::start(SHOWN);
    let policy = plain().target("/policy").with("Host", "localhost");
    let description: Value = serde_json::from_str(&get(&server, policy).await.1).unwrap();
    assert_eq!(description["policy"]["rust"].as_str().unwrap(), lines);
    assert_eq!(words_of_a_shell(&description["policy"]), SHOWN);
}

#[tokio::test]
async fn shown_flags_are_words_of_a_shell() {
    #[rustfmt::skip]
    let flags = [
        "--allow-origin", "http://localhost:*", "--allow-origin", "https://*.example.com",
        "--token", "t", "--token", "t2", "--token-from", "pair:it's", "--subprotocol", "$HOME&`id`",
    ];
    let page = Page::start(&flags).await;
    assert_eq!(words_of_a_shell(&page.description["policy"]), flags);
    assert_eq!(page.description["policy"]["flags"][0], "--allow-origin 'http://localhost:*'");
}

/// What a program gets from a shell that runs it with the flags of the page.
fn words_of_a_shell(policy: &Value) -> Vec<String> {
    let flags: Vec<_> =
        policy["flags"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let command = format!("printf '%s\\n' {}", flags.join(" "));
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &command]).env("TOKEN", "t").env("TOKEN2", "t2").output();
    String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

// In a browser

const HANDSHAKES: &[(&str, &str)] = &[
    ("valid", ""),
    ("http2", ""),
    ("compression", ""),
    ("foreign-origin", "origin-not-allowed"),
    ("http2-foreign-origin", "origin-not-allowed"),
    ("missing-origin", "origin-missing"),
    ("null-origin", "origin-not-allowed"),
    ("malformed-origin", "origin-invalid"),
    ("two-origins", "origin-repeated"),
    ("foreign-host", "host-not-allowed"),
    ("missing-host", "host-invalid"),
    ("missing-token", "token-missing"),
    ("wrong-token", "token-invalid"),
    ("two-tokens", "token-ambiguous"),
    ("wrong-version", "version-unsupported"),
    ("missing-version", "version-missing"),
    ("malformed-version", "version-invalid"),
    ("missing-key", "key-missing"),
    ("malformed-key", "key-invalid"),
    ("two-keys", "key-repeated"),
    ("missing-upgrade", "upgrade-missing"),
    ("broken-connection", "connection-missing"),
    ("post", "method-not-allowed"),
    ("http-1-0", "http-version"),
    ("body", "body-present"),
    ("unsupported-subprotocol", "subprotocol-unsupported"),
    ("malformed-subprotocols", "subprotocol-invalid"),
];

/// The expected text of the page for a handshake.
fn shown_in_browser(id: &str, code: &str) -> Value {
    let without_backticks = |text: &str| text.replace('`', "");
    let kind = RejectionKind::ALL.iter().find(|kind| kind.code() == code);
    let (status, cause, fix) = match kind {
        None if id == "http2" => {
            ("200 OK".into(), "the handshake was accepted".into(), "nothing".into())
        }
        None => (
            "101 Switching Protocols".into(),
            "the handshake was accepted".into(),
            "nothing".into(),
        ),
        Some(kind) => (
            kind.status().to_string(),
            without_backticks(kind.title()),
            without_backticks(kind.fix()),
        ),
    };
    json!({
        "id": id,
        "visible": true,
        "tag": status[..3],
        "verdict": if kind.is_some() { "Stopped" } else { "Accepted" },
        "tone": "good",
        "status": status,
        "code": code,
        "cause": cause,
        "fix": fix,
        "logged": code,
        "browser": match kind {
            None => "open",
            Some(_) => "error\nclose\n  code: 1006\n  reason: \"\"\n  wasClean: false",
        },
    })
}

fn url(server: &Server) -> String {
    format!("{}://{}/", server.scheme, server.address)
}

/// The page makes this attempt when it is opened.
fn assert_opening(server: &Server) {
    assert!(server.rejection().starts_with("origin-not-allowed"));
}

/// Presses every button, and connects by the form.
fn check_page(browser: &str) {
    let log = |accepted: bool| match accepted {
        true => json!([
            "open: protocol \"v2.chat\", extensions \"\"",
            format!("sent: {TEXT}"),
            format!("message: {TEXT}"),
            "close: code 1000, reason \"bye\", wasClean true",
        ]),
        false => json!([
            "error: (the event has no details)",
            "close: code 1006, reason \"\", wasClean false",
            "note: It never opened. Only the server knows why: look at its log.",
        ]),
    };
    for (mode, transport) in [("guard", IN_THE_CLEAR), ("responder", OVER_TLS)] {
        let flags = [FLAGS, transport, &["--mode", mode]].concat();
        let live = Server::start(&flags);
        // For the buttons, so that each server has its own log.
        let other = Server::start(&flags);
        let connect = |token, subprotocol| {
            let form = json!({ "token": token, "subprotocol": subprotocol, "text": TEXT, "rejected": "error,close,note" });
            json!({ "url": url(&live), "task": "connect", "form": form })
        };
        let steps = [
            json!({ "url": url(&other), "task": "attempts" }),
            connect("s3cr3t", "other, v2.chat"),
            connect("guess", "v2.chat"),
            connect("", ""),
            connect("s3cr3t", "other"),
        ];
        let results = run(&["node", "page.mjs", browser], &steps);
        let buttons: Vec<_> =
            HANDSHAKES.iter().map(|(id, code)| shown_in_browser(id, code)).collect();
        assert_eq!(results[0], json!(buttons), "{mode} {transport:?}");
        for (result, accepted) in results[1..].iter().zip([true, false, false, false]) {
            assert_eq!(
                *result,
                json!({ "state": "Not connected", "log": log(accepted) }),
                "{mode} {transport:?}"
            );
        }
        assert_opening(&live);
        for code in ["token-invalid", "token-missing", "subprotocol-unsupported"] {
            assert_opening(&live);
            let rejection = live.rejection();
            assert!(rejection.starts_with(code), "{rejection}");
        }
        assert_opening(&other);
        for (_, code) in HANDSHAKES.iter().filter(|(_, code)| !code.is_empty()) {
            let rejection = other.rejection();
            assert!(rejection.starts_with(&format!("{code}: ")), "{code}: {rejection}");
        }
    }
}

/// Gets a ticket for a token, and connects with it.
fn check_tickets(browser: &str) {
    for mode in ["guard", "responder"] {
        let server = Server::start(&["--token", "s3cr3t", "--tickets", "memory", "--mode", mode]);
        let connect = |token, rejected| json!({ "url": url(&server), "task": "connect", "form": { "token": token, "subprotocol": "", "text": TEXT, "rejected": rejected } });
        let steps = [connect("s3cr3t", ""), connect("s3cr3t", ""), connect("guess", "error")];
        let results = run(&["node", "page.mjs", browser], &steps);
        let line =
            |result: usize, line: usize| results[result]["log"][line].as_str().unwrap_or_default();
        for result in [0, 1] {
            assert!(line(result, 0).starts_with("ticket: "), "{results:?}");
            assert_eq!(line(result, 1), "open: protocol \"\", extensions \"\"");
            assert_eq!(line(result, 3), format!("message: {TEXT}"));
        }
        assert_ne!(line(0, 0), line(1, 0));
        assert_eq!(results[2]["log"], json!(["error: Error: a valid token is required"]));
        steps.iter().for_each(|_| assert_opening(&server));
        assert!(server.has_no_more_rejections());
    }
}

/// Connects with each source that a script can use.
fn check_sources(browser: &str) {
    let sources = [
        "cookie:session",
        "query:token",
        "subprotocol:token.",
        "subprotocol-base64:token.",
        "kubernetes",
        "phoenix",
        "pair:bearer",
    ];
    for source in sources {
        let server = Server::start(&[
            "--token",
            "s3cr3t",
            "--token-from",
            "authorization",
            "--token-from",
            source,
            "--subprotocol",
            "v2.chat",
        ]);
        let form = json!({ "token": "s3cr3t", "subprotocol": "v2.chat", "carrier": source, "text": TEXT, "rejected": "note" });
        let step = json!({ "url": url(&server), "task": "connect", "form": form });
        let results = run(&["node", "page.mjs", browser], &[step]);
        assert_eq!(results[0]["log"][2], format!("message: {TEXT}"), "{source}: {results:?}");
    }
    // No script can send a header.
    let server = Server::start(&["--token", "s3cr3t"]);
    let form = json!({ "token": "s3cr3t", "subprotocol": "", "text": TEXT, "rejected": "error,close,note" });
    let step = json!({ "url": url(&server), "task": "connect", "form": form });
    let results = run(&["node", "page.mjs", browser], &[step]);
    assert_eq!(results[0]["state"], "Not connected", "{results:?}");
    assert_opening(&server);
    assert!(server.rejection().starts_with("token-missing"));
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_uses_the_page() {
    check_page("chromium");
    check_tickets("chromium");
    check_sources("chromium");
}

#[test]
#[ignore = "needs Firefox, Node and its packages: tests/clients/install"]
fn firefox_uses_the_page() {
    check_page("firefox");
    check_tickets("firefox");
    check_sources("firefox");
}

/// What the page shows first. An attack that gets through is never good.
#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_opens_the_page() {
    for (flags, sides, warnings) in [
        (&[][..], ["bad 101 Switching Protocols", "good 403 Forbidden"], 0),
        (
            &["--dangerous-any-origin"],
            ["bad 101 Switching Protocols", "bad 101 Switching Protocols"],
            1,
        ),
        (&["--report-only"], ["bad 101 Switching Protocols", "bad 101 Switching Protocols"], 1),
    ] {
        let server = Server::start(flags);
        let step = json!({ "url": url(&server), "task": "opening" });
        let results = run(&["node", "page.mjs", "chromium"], &[step]);
        assert_eq!(
            results[0],
            json!({ "sections": ["attack", "policy", "handshakes", "connections"], "sides": sides, "warnings": warnings }),
            "{flags:?}"
        );
    }
    // Others may connect, but see no policy.
    let flags = ["--allow-any-host", "--token", "s3cr3t", "--tickets", "memory"];
    let server = Server::start(&flags);
    let form = json!({ "token": "s3cr3t", "subprotocol": "", "text": TEXT, "rejected": "" });
    let steps = [
        json!({ "url": url(&server), "task": "opening" }),
        json!({ "url": url(&server), "task": "connect", "form": form }),
        json!({ "url": url(&server), "task": "audit" }),
    ];
    let results = run(&["node", "page.mjs", "chromium"], &steps);
    assert_eq!(results[0]["sections"], json!(["public", "connections"]));
    assert_eq!(results[0]["warnings"], 1);
    assert_eq!(results[1]["log"][3], format!("message: {TEXT}"));
    assert_eq!(results[2], json!([]));
    let server = Server::start(&["--allow-null-origin"]);
    let step = json!({ "url": url(&server), "task": "attempts", "only": ["null-origin"] });
    let results = run(&["node", "page.mjs", "chromium"], &[step]);
    assert_eq!(results[0][0]["tone"], "bad");
    assert_eq!(results[0][0]["verdict"], "The attack got through");
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_keeps_the_log_of_the_page_short() {
    let server = Server::start(&[]);
    let step = json!({ "url": url(&server), "task": "flood", "messages": 300 });
    let results = run(&["node", "page.mjs", "chromium"], &[step]);
    assert_eq!(results[0], json!({ "entries": 200, "last": "message: 299", "scrolls": true }));
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_finds_no_fault_in_the_page() {
    const TOKENS: &[&str] =
        &["--token", "s3cr3t", "--token-from", "query:token", "--tickets", "memory"];
    for flags in [&["--mode", "guard"][..], &["--report-only", "--deflate"], TOKENS] {
        let server = Server::start(flags);
        let step = json!({ "url": url(&server), "task": "audit" });
        let results = run(&["node", "page.mjs", "chromium"], &[step]);
        assert_eq!(results[0], json!([]), "{flags:?}");
    }
}

/// A copied command gets the same response as the attempt.
#[test]
#[ignore = "needs Chromium, Node and its packages, and curl: tests/clients/install"]
fn curl_repeats_the_attempts() {
    for flags in [&[][..], &["--tls-self-signed", "--token", "s3cr3t", "--subprotocol", "chat"]] {
        let server = Server::start(flags);
        let step = json!({ "url": url(&server), "task": "commands" });
        let results = run(&["node", "page.mjs", "chromium"], &[step]);
        for attempt in results[0].as_array().unwrap() {
            let command = attempt["curl"].as_str().unwrap();
            if attempt["id"].as_str().unwrap().starts_with("http2") {
                assert!(command.starts_with("# curl cannot"), "{command}");
                continue;
            }
            let output = Command::new("sh").args(["-c", command]).env("TOKEN", "s3cr3t").output();
            let response = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
            let status = response.split(' ').nth(1).unwrap_or_default().to_owned();
            assert_eq!(attempt["status"].to_string(), status, "{command}\n{response}");
        }
    }
}
