//! The handshakes behind the buttons of the page: a valid one, and others with one fault each.
//!
//! A browser cannot send most of them, so the server sends them to itself. They reach nothing else:
//! each has a connection in memory, to an endpoint that counts only attempts.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, Version, request::Parts},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::timeout,
};
use tower_ws_guard::{
    AllowOrigin, Explanation, ProblemJson, RejectionKind, RequestCheckLayer, StaticTokens, Token,
    VerifyToken,
};

use crate::serve::Connections;

const TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_RESPONSE: u64 = 64 * 1024;

/// The endpoint of the attempts, and what a handshake must send for it to be accepted.
#[derive(Clone)]
pub(crate) struct Attempts {
    /// With the guard of the server, but for its limits and sessions: an attempt takes no slot of a
    /// client, and evicts nobody.
    pub(crate) endpoint: Router,
    pub(crate) connections: Connections,
    /// The secret of the page.
    pub(crate) page: StaticTokens<()>,
    /// The address that the server listens on.
    pub(crate) address: SocketAddr,
    /// A `Host` that the server allows. `None`: the address.
    pub(crate) host: Option<String>,
    /// An origin that the server allows. `None`: `http://` and the host.
    pub(crate) origin: Option<String>,
    /// A token that the server accepts as `Authorization: Bearer`, if that is one of its sources.
    /// It is never shown.
    pub(crate) bearer: Option<String>,
    /// A subprotocol that the server supports, if there is one.
    pub(crate) subprotocol: Option<String>,
    /// Whether the server redeems one-time tickets.
    pub(crate) tickets: bool,
    /// Whether the server closes some sockets at once, to show the reason.
    pub(crate) closes: bool,
    /// What each step of the guard says. `None` if the page may be open to others, because it names
    /// the policy.
    pub(crate) explain: Option<Explain>,
}

pub(crate) type Explain = Arc<dyn Fn(&Parts) -> Explanation + Send + Sync>;

/// The header with the secret of the page.
const PAGE_TOKEN: &str = "x-attempts-token";

/// `GET /attempts` lists the handshakes, `POST /attempts/{id}` makes one and returns the result.
///
/// An attempt has the server's own token, so only the page of the server, at its `own` origin, may
/// ask for one. Pages of other sites can read neither that page nor its secret.
pub(crate) fn routes(attempts: Attempts, own: AllowOrigin) -> Router {
    let pages = RequestCheckLayer::origins(own.allow_missing()).reject_with(ProblemJson::new());
    Router::new()
        .route("/attempts", get(list))
        .route("/attempts/{id}", post(make).layer(pages))
        .with_state(attempts)
}

async fn list(State(attempts): State<Attempts>) -> Json<Value> {
    let available = attempts.available().map(|attempt| {
        json!({
            "id": attempt.id,
            "group": attempt.group,
            "title": attempt.title,
            "summary": attempt.summary,
        })
    });
    Json(available.collect())
}

async fn make(
    State(attempts): State<Attempts>,
    Path(id): Path<String>,
    request: Parts,
) -> Result<Json<Value>, Failure> {
    let secret = request.headers.get(PAGE_TOKEN).and_then(|secret| secret.to_str().ok());
    let secret = Token::new(secret.unwrap_or_default());
    if attempts.page.verify(secret, &request).await.is_err() {
        return Err(failure(StatusCode::FORBIDDEN, "this page is not of this server; reload it"));
    }
    let Some(attempt) = attempts.available().find(|attempt| attempt.id == id) else {
        return Err(failure(StatusCode::NOT_FOUND, "there is no such attempt"));
    };
    let sent = attempts.request(attempt, attempts.bearer.as_deref());
    let shown = attempts.request(attempt, attempts.bearer.as_ref().map(|_| "********"));

    let stream = attempts.connections.in_memory(attempts.endpoint.clone());
    match exchange(stream, &sent.text, attempts.closes).await {
        Ok(response) => {
            let mut report = report(&shown, &response);
            let head = attempts.explain.as_ref().and_then(|_| head(&sent.text));
            if let (Some(explain), Some(head)) = (&attempts.explain, head) {
                report["explanation"] = explain(&head).to_string().into();
            }
            Ok(Json(report))
        }
        Err(error) => Err(failure(StatusCode::BAD_GATEWAY, &error.to_string())),
    }
}

type Failure = (StatusCode, Json<Value>);

fn failure(status: StatusCode, error: &str) -> Failure {
    (status, Json(json!({ "error": error })))
}

/// The valid handshake with a change.
struct Attempt {
    group: &'static str,
    id: &'static str,
    title: &'static str,
    summary: &'static str,
    request_line: &'static str,
    /// They replace those in [`HEADERS`].
    headers: &'static [Header],
    body: &'static str,
}

/// A name and the values of all its lines. [`Attempts::fill`] fills in the names in braces.
type Header = (&'static str, &'static [&'static str]);

const REQUEST_LINE: &str = "GET /ws HTTP/1.1";

const HEADERS: &[Header] = &[
    ("Host", &["{host}"]),
    ("Upgrade", &["websocket"]),
    ("Connection", &["Upgrade"]),
    // A real client sends a fresh one each time. This is the example of RFC 6455 1.3.
    ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
    ("Sec-WebSocket-Version", &["13"]),
    ("Sec-WebSocket-Protocol", &["{subprotocol}"]),
    ("Origin", &["{origin}"]),
    ("Authorization", &["Bearer {token}"]),
    ("Content-Length", &[]),
];

const COMPARISON: &str = "For comparison";
const ORIGIN: &str = "Origin and host";
const TOKEN: &str = "Token";
const PROTOCOL: &str = "Protocol";

const USED_TICKET: &str = "used-ticket";

#[rustfmt::skip]
const ATTEMPTS: &[Attempt] = &[
    attempt(COMPARISON, "valid", "Valid handshake",
        "Nothing is wrong with it.", &[]),

    attempt(ORIGIN, "foreign-origin", "Foreign origin",
        "A page of another site opens a socket with your user's cookies: cross-site WebSocket hijacking.",
        &[("Origin", &["https://evil.example"])]),
    attempt(ORIGIN, "missing-origin", "No origin",
        "Every browser sends an origin. Most other clients do not.",
        &[("Origin", &[])]),
    attempt(ORIGIN, "null-origin", "Null origin",
        "A page in a sandboxed frame sends it, so any page can.",
        &[("Origin", &["null"])]),
    attempt(ORIGIN, "malformed-origin", "Malformed origin",
        "The right origin with a trailing slash. No browser sends it.",
        &[("Origin", &["{origin}/"])]),
    attempt(ORIGIN, "two-origins", "Two origins",
        "One part of a system may look at the first, and another at the last.",
        &[("Origin", &["{origin}", "https://evil.example"])]),
    attempt(ORIGIN, "foreign-host", "Foreign host",
        "DNS rebinding: the name of the attacker's page now leads to this server, so its host and origin agree.",
        &[("Host", &["evil.example:{port}"]), ("Origin", &["http://evil.example:{port}"])]),
    attempt(ORIGIN, "missing-host", "No host",
        "HTTP/1.1 requires one, and the origin cannot be compared without it.",
        &[("Host", &[])]),

    attempt(TOKEN, "missing-token", "No token",
        "The client sends no credential.",
        &[("Authorization", &[])]),
    attempt(TOKEN, "wrong-token", "Wrong token",
        "The server does not know the token.",
        &[("Authorization", &["Bearer wrong-token"])]),
    attempt(TOKEN, "two-tokens", "Two tokens",
        "The right one and another. The server does not guess which one counts.",
        &[("Authorization", &["Bearer {token}", "Bearer wrong-token"])]),
    Attempt { request_line: "GET /ws?ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA HTTP/1.1", ..attempt(TOKEN, USED_TICKET,
        "Used ticket", "A ticket works once and for 30 seconds, so a copy in a log is worthless.",
        &[("Authorization", &[])]) },

    attempt(PROTOCOL, "wrong-version", "Old version",
        "8 is a draft from before RFC 6455.",
        &[("Sec-WebSocket-Version", &["8"])]),
    attempt(PROTOCOL, "missing-version", "No version",
        "Some proxies drop headers that they do not know.",
        &[("Sec-WebSocket-Version", &[])]),
    attempt(PROTOCOL, "malformed-version", "Malformed version",
        "A server may list the versions that it supports. A client names one.",
        &[("Sec-WebSocket-Version", &["13, 8"])]),
    attempt(PROTOCOL, "missing-key", "No key",
        "Without a key the response cannot prove that the server speaks WebSocket.",
        &[("Sec-WebSocket-Key", &[])]),
    attempt(PROTOCOL, "malformed-key", "Malformed key",
        "Base64, but of 8 bytes and not of 16.",
        &[("Sec-WebSocket-Key", &["dG9vc2hvcnQ="])]),
    attempt(PROTOCOL, "two-keys", "Two keys",
        "A client sends one, so a proxy added another.",
        &[("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "x3JJHMbDL1EzLkh9GBhXDw=="])]),
    attempt(PROTOCOL, "missing-upgrade", "No Upgrade",
        "A proxy that is not configured for WebSockets drops it.",
        &[("Upgrade", &[])]),
    attempt(PROTOCOL, "broken-connection", "Broken Connection",
        "A proxy replaced it with its own.",
        &[("Connection", &["keep-alive"])]),
    Attempt { request_line: "POST /ws HTTP/1.1", ..attempt(PROTOCOL, "post", "POST",
        "A handshake is a GET.", &[]) },
    Attempt { request_line: "GET /ws HTTP/1.0", ..attempt(PROTOCOL, "http-1-0", "HTTP/1.0",
        "Some proxies use it by default towards the servers behind them.", &[]) },
    Attempt { body: "hello", ..attempt(PROTOCOL, "body", "A body",
        "Frames follow the head, so a handshake cannot have a body.",
        &[("Content-Length", &["5"])]) },
    attempt(PROTOCOL, "unsupported-subprotocol", "Unsupported subprotocol",
        "The client offers only one, and the server does not support it.",
        &[("Sec-WebSocket-Protocol", &["unsupported.example"])]),
    attempt(PROTOCOL, "malformed-subprotocols", "Malformed subprotocols",
        "The name of a subprotocol cannot have spaces.",
        &[("Sec-WebSocket-Protocol", &["chat, two words"])]),
];

const fn attempt(
    group: &'static str,
    id: &'static str,
    title: &'static str,
    summary: &'static str,
    headers: &'static [Header],
) -> Attempt {
    Attempt { group, id, title, summary, request_line: REQUEST_LINE, headers, body: "" }
}

struct Request {
    text: String,
    /// The lines that differ from the valid handshake, from 0.
    changed: Vec<usize>,
    /// The headers of the valid handshake that this one lacks.
    left_out: Vec<&'static str>,
}

impl Attempts {
    fn available(&self) -> impl Iterator<Item = &'static Attempt> {
        let has_token = self.bearer.is_some();
        let has_tickets = self.tickets;
        let possible = move |attempt: &&Attempt| match attempt.id {
            USED_TICKET => has_tickets,
            _ => has_token || attempt.group != TOKEN,
        };
        ATTEMPTS.iter().filter(possible)
    }

    /// The address by which a client on this machine names the server.
    fn target(&self) -> SocketAddr {
        let mut target = self.address;
        if target.ip().is_unspecified() {
            target.set_ip(match target {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        target
    }

    fn request(&self, attempt: &Attempt, token: Option<&str>) -> Request {
        let mut lines = vec![attempt.request_line.to_owned()];
        let mut changed = Vec::new();
        let mut left_out = Vec::new();
        if attempt.request_line != REQUEST_LINE {
            changed.push(0);
        }
        for &(name, valid) in HEADERS {
            let change = attempt.headers.iter().find(|(header, _)| *header == name);
            let values = change.map_or(valid, |(_, values)| values);
            if values.is_empty() && !valid.is_empty() {
                left_out.push(name);
            }
            for value in values.iter().filter_map(|value| self.fill(value, token)) {
                if change.is_some() {
                    changed.push(lines.len());
                }
                lines.push(format!("{name}: {value}"));
            }
        }
        Request {
            text: format!("{}\r\n\r\n{}", lines.join("\r\n"), attempt.body),
            changed,
            left_out,
        }
    }

    /// `None` if the template names something that the server does not have.
    fn fill(&self, template: &str, token: Option<&str>) -> Option<String> {
        let target = self.target();
        let host = self.host.clone().unwrap_or_else(|| target.to_string());
        let origin = self.origin.clone().unwrap_or_else(|| format!("http://{host}"));
        let port = target.port().to_string();

        let mut filled = template.to_owned();
        for (placeholder, value) in [
            ("{host}", Some(&*host)),
            ("{origin}", Some(&*origin)),
            ("{port}", Some(&*port)),
            ("{subprotocol}", self.subprotocol.as_deref()),
            ("{token}", token),
        ] {
            if template.contains(placeholder) {
                filled = filled.replace(placeholder, value?);
            }
        }
        Some(filled)
    }
}

/// The head of a request, as hyper reads it.
fn head(text: &str) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(text.as_bytes()).ok()?;
    let version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request =
        http::Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for header in parsed.headers {
        request = request.header(header.name, header.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

async fn exchange(mut stream: DuplexStream, request: &str, closes: bool) -> io::Result<Response> {
    let mut received = Vec::new();
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;

        let mut stream = stream.take(MAX_RESPONSE);
        while !is_complete(&received) && stream.read_buf(&mut received).await? > 0 {}
        // A close frame may follow a 101, or nothing ever.
        if closes {
            let frame = async {
                while stream.read_buf(&mut received).await? > 0 {}
                io::Result::Ok(())
            };
            timeout(CLOSE_TIMEOUT, frame).await.unwrap_or(Ok(()))?;
        }
        io::Result::Ok(())
    };
    timeout(TIMEOUT, exchange).await??;
    parse(&received)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP"))
}

fn parse(received: &[u8]) -> Option<Response> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, head, body: received[end + 4..].to_vec() })
}

/// Whether the response is complete. Without a `Content-Length` it ends with the connection.
fn is_complete(received: &[u8]) -> bool {
    parse(received).is_some_and(|response| {
        let length =
            header(&response.head, "content-length").and_then(|length| length.parse().ok());
        response.status == 101 || length.is_some_and(|length: usize| response.body.len() >= length)
    })
}

impl Response {
    /// The code and the reason of a close frame after a 101.
    fn close(&self) -> Option<(u16, String)> {
        match *self.body {
            [0x88, _, high, low, ref reason @ ..] if self.status == 101 => Some((
                u16::from_be_bytes([high, low]),
                String::from_utf8_lossy(reason).into_owned(),
            )),
            _ => None,
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(line, _)| line.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn report(request: &Request, response: &Response) -> Value {
    let problem = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
    let close = response.close();
    let code = problem["code"].as_str().or_else(|| close.as_ref().map(|(_, reason)| &**reason));
    let kind = RejectionKind::ALL.iter().find(|kind| Some(kind.code()) == code);
    let cause = match response.status {
        101 if close.is_none() => Some("the handshake was accepted"),
        _ => kind.map(|kind| kind.title()),
    };
    let body = match &close {
        Some((code, reason)) => format!("a close frame: {code} {reason}"),
        None => String::from_utf8_lossy(&response.body).into_owned(),
    };
    json!({
        "request": request.text,
        "changed": request.changed,
        "left_out": request.left_out,
        "response_head": response.head,
        "body": body,
        "status": response.status,
        "code": code,
        "cause": cause,
        "fix": kind.map(|kind| kind.fix()),
        "url": kind.and_then(|kind| kind.url()),
        "browser": browser_events(request, response),
    })
}

/// What a script would see if its browser had sent this. It never sees the status or the body of a
/// rejection.
fn browser_events(request: &Request, response: &Response) -> Value {
    let subprotocol = "sec-websocket-protocol";
    // WHATWG WebSockets: a response that selects none of the offered subprotocols fails the
    // connection.
    let unselected = header(&request.text, subprotocol).is_some()
        && header(&response.head, subprotocol).is_none();
    if response.status == 101 && !unselected {
        let open = json!({ "type": "open" });
        return match response.close() {
            Some((code, reason)) => {
                json!([open, { "type": "close", "code": code, "reason": reason, "wasClean": true }])
            }
            None => json!([open]),
        };
    }
    json!([
        { "type": "error" },
        { "type": "close", "code": 1006, "reason": "", "wasClean": false },
    ])
}
