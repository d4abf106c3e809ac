//! The report: everything that a run found, without secrets, as text and as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::{
    certificate::Certificate,
    exchange::{End, Exchange, Fault, Outcome, Received},
    finding::Finding,
    frames::{Event, Fault::NotAFrame},
    judge::{Judgement, Verdict},
    probe::{Observations, Probe, is_usable},
    request::Plan,
    route::{AttemptOutcome, RouteFault},
    secrets::{Secrets, is_set_cookie},
    who,
};

/// The maximum length of the body that is shown, in bytes.
const MAX_BODY: usize = 4096;

/// Everything that a run found.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether a browser could use the socket.
    pub accepted: bool,
    /// The code of the first finding, or `accepted`.
    pub verdict: String,
    /// The result in one word.
    pub outcome: Verdict,
    /// The exit code.
    pub exit: u8,
    /// The URL, as it was requested.
    pub url: String,
    /// What was found, the most telling first.
    pub findings: Vec<Finding>,
    /// What was assumed or ignored.
    pub notes: Vec<String>,
    /// The way to the server.
    pub connection: Connection,
    /// The TLS connection, for `wss:`.
    pub tls: Option<Tls>,
    /// The request as sent.
    pub request: Option<String>,
    /// The response.
    pub response: Option<Response>,
    /// What came behind the 101.
    pub socket: Option<SocketReport>,
    /// The other requests.
    pub probes: Vec<ProbeReport>,
    /// Redirects that were followed.
    pub redirects: Vec<String>,
}

/// The way to the server.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Connection {
    /// The address that was connected to.
    pub address: Option<String>,
    /// All addresses of the name.
    pub addresses: Vec<String>,
    /// Addresses that failed, and why.
    pub failed: Vec<String>,
    /// The forward proxy, and where it was configured.
    pub proxy: Option<String>,
    /// Milliseconds to look up the name.
    pub name_ms: Option<u64>,
    /// Milliseconds to connect.
    pub tcp_ms: Option<u64>,
    /// Milliseconds for TLS.
    pub tls_ms: Option<u64>,
    /// Milliseconds from the request to the response.
    pub response_ms: Option<u64>,
}

/// The TLS connection.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Tls {
    /// Such as `TLS 1.3`.
    pub version: Option<String>,
    /// The protocol of ALPN.
    pub alpn: Option<String>,
    /// The cipher suite.
    pub cipher: Option<String>,
    /// The certificate of the server and its issuers, as sent.
    pub certificates: Vec<Certificate>,
    /// Days until the certificate of the server expires.
    pub days_left: Option<i64>,
    /// Why the certificate is not valid, if `-k` ignored it.
    pub ignored: Option<String>,
    /// Whether the server asked for a client certificate.
    pub client_certificate_wanted: bool,
}

/// A response.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Response {
    /// The status.
    pub status: u16,
    /// `made by nginx`, or `came through nginx`: it put its name on it.
    pub from: Option<String>,
    /// The head as it came.
    pub head: String,
    /// The begin of the body, decoded, as text.
    pub body: String,
}

/// What came behind the 101.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SocketReport {
    /// The frames, with their time.
    pub frames: Vec<FrameReport>,
    /// `open`, `closed`, `eof` or `reset`.
    pub end: &'static str,
    /// Milliseconds from the 101 to the end, or for which it was watched.
    pub ms: u64,
    /// Milliseconds from the ping to the pong, with `--ping`.
    pub ping_ms: Option<u64>,
    /// Bytes that came.
    pub bytes: u64,
    /// The subprotocol that the server selected.
    pub subprotocol: Option<String>,
    /// The extensions that the server agreed to.
    pub extensions: Vec<String>,
}

/// A frame.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct FrameReport {
    /// Milliseconds since the 101.
    pub ms: u64,
    /// `text`, `binary`, `ping`, `pong` or `close`.
    pub kind: &'static str,
    /// The text or the reason.
    pub text: Option<String>,
    /// The close code.
    pub code: Option<u16>,
}

/// A request beside the first.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The stable name.
    pub probe: &'static str,
    /// In words.
    pub what: String,
    /// Whether the result says something; not after a 429.
    pub made: bool,
    /// Whether a browser could use the socket.
    pub accepted: bool,
    /// The status of the response.
    pub status: Option<u16>,
    /// The result in words.
    pub result: String,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The status and its reason.
pub(crate) fn status_line(received: &Received) -> String {
    let head = &received.head;
    let known =
        http::StatusCode::from_u16(head.status).ok().and_then(|status| status.canonical_reason());
    let reason: String = match head.reason.trim() {
        "" => known.unwrap_or_default().into(),
        reason => reason.chars().take(60).collect(),
    };
    format!("{} {reason}", head.status).trim().to_owned()
}

/// The result of an exchange in a few words.
pub(crate) fn result(exchange: &Exchange) -> String {
    match &exchange.outcome {
        Outcome::Response(received) => {
            let head = &received.head;
            match &received.socket {
                None => status_line(received),
                Some(_) if is_usable(exchange) => "accepted".into(),
                Some(socket) if socket.end != End::Open => format!("{}, then closed", head.status),
                Some(_) => format!("{}, with a fault", head.status),
            }
        }
        Outcome::Failed(fault) => match fault {
            Fault::Route(RouteFault::Connect(_, error)) => format!("no connection ({error})"),
            Fault::Route(_) => "no connection".into(),
            Fault::Tls(_, error) => format!("TLS failed ({error})"),
            Fault::NoResponse if exchange.request.is_none() && exchange.tls.is_some() => {
                "TLS succeeds".into()
            }
            Fault::NoResponse => "no response".into(),
            Fault::Closed(_) => "closed without a response".into(),
            Fault::Incomplete { .. } => "an incomplete response".into(),
            Fault::NotHttp(_) => "no HTTP".into(),
            Fault::Http2(error) => format!("HTTP/2 failed ({error})"),
            Fault::NoExtendedConnect => "no extended CONNECT".into(),
        },
    }
}

impl Report {
    pub(crate) fn new(
        seen: &Observations,
        judgement: Judgement,
        plan: &Plan,
        secrets: &Secrets,
        notes: &[String],
        redirects: &[String],
    ) -> Self {
        let main = &seen.main;
        let secrets = &with_cookies(secrets, seen);
        let mask = |text: &str| secrets.mask(text);
        let received = main.received();
        let findings = judgement.findings.into_iter().map(|finding| Finding {
            explanation: mask(&finding.explanation),
            fix: mask(&finding.fix),
            code: mask(&finding.code).into(),
            ..finding
        });
        let findings = findings.collect::<Vec<_>>();
        let is_accepted = judgement.outcome == Verdict::Accepted;
        let verdict = if is_accepted {
            "accepted".to_owned()
        } else {
            findings
                .first()
                .map_or_else(|| "accepted".to_owned(), |finding| finding.code.to_string())
        };
        let way = &main.way;
        let failed = way.attempts.iter().filter_map(|attempt| match &attempt.outcome {
            AttemptOutcome::Connected => None,
            AttemptOutcome::Failed(_, error) => Some(format!("{}: {error}", attempt.address)),
            AttemptOutcome::Pending(time) => {
                Some(format!("{}: no response for {} ms", attempt.address, ms(*time)))
            }
        });
        let connection = Connection {
            address: way.connected.map(|address| address.to_string()),
            addresses: way.addresses.iter().map(|address| address.ip().to_string()).collect(),
            failed: failed.collect(),
            proxy: way.proxy.as_ref().map(|(url, from)| mask(&format!("{url} (from {from})"))),
            name_ms: way.lookup.map(ms),
            tcp_ms: way.tcp.map(ms),
            tls_ms: main.tls.as_ref().map(|tls| ms(tls.time)),
            response_ms: received.map(|received| ms(received.time)),
        };
        let tls = main.tls.as_ref().map(|tls| Tls {
            version: tls.version.clone(),
            alpn: tls.alpn.clone(),
            cipher: tls.cipher.clone(),
            days_left: tls.chain.first().map(|certificate| {
                (certificate.not_after as i64 - seen.given.now as i64).div_euclid(86_400)
            }),
            certificates: tls.chain.clone(),
            ignored: tls.ignored.clone(),
            client_certificate_wanted: tls.client_certificate_wanted,
        });
        Self {
            accepted: is_accepted,
            verdict,
            outcome: judgement.outcome,
            exit: judgement.outcome.exit_code(),
            url: mask(&main.target.to_string()),
            findings,
            notes: notes.iter().map(|note| mask(note)).collect(),
            connection,
            tls,
            request: main.request.as_ref().map(|_| request(plan, main, secrets)),
            response: received.map(|received| Response {
                status: received.head.status,
                from: who::author(received)
                    .filter(|_| received.socket.is_none())
                    .map(|proxy| format!("made by {}", proxy.name()))
                    .or_else(|| {
                        who::named(received).map(|proxy| format!("came through {}", proxy.name()))
                    }),
                head: head(received, secrets),
                body: cut(&mask(&received.text)),
            }),
            socket: received.and_then(|received| socket(received, secrets)),
            probes: seen
                .probes
                .iter()
                .map(|(probe, exchange)| ProbeReport {
                    probe: probe.kind(),
                    what: mask(&probe.name()),
                    made: exchange.status() != Some(429),
                    accepted: is_usable(exchange),
                    status: exchange.status(),
                    result: mask(&match (probe, &exchange.outcome) {
                        _ if exchange.status() == Some(429) => "429, so not made".to_owned(),
                        (Probe::Tls, Outcome::Failed(Fault::Tls(..))) => {
                            "no TLS, as expected for ws:".to_owned()
                        }
                        (_, Outcome::Failed(Fault::NoResponse)) if exchange.request.is_some() => {
                            format!("no response within {:.1} s", exchange.time.as_secs_f64())
                        }
                        _ => result(exchange),
                    }),
                })
                .collect(),
            redirects: redirects.iter().map(|redirect| mask(redirect)).collect(),
        }
    }

    /// One JSON object, in ASCII: a terminal shows it as it is.
    #[must_use]
    pub fn to_json(&self) -> String {
        ascii(&serde_json::to_string_pretty(self).expect("the report has only texts as keys"))
    }
}

/// Escapes all that is not ASCII, which occurs only within strings.
pub(crate) fn ascii(json: &str) -> String {
    let mut output = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            output.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                output.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    output
}

/// The request with its secrets masked.
fn request(plan: &Plan, exchange: &Exchange, secrets: &Secrets) -> String {
    let (target, headers) = plan.request(&exchange.variant);
    let headers =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", secrets.header(name, value)));
    let headers: String = headers.collect();
    let line = if plan.http2 {
        format!(":method: CONNECT\n:protocol: websocket\n:path: {}\n", secrets.mask(&target))
    } else {
        format!("GET {} HTTP/1.1\n", secrets.mask(&target))
    };
    line + &headers
}

/// The secrets of the user, and the cookies that the server sets: it may repeat them anywhere.
fn with_cookies(secrets: &Secrets, seen: &Observations) -> Secrets {
    let mut secrets = secrets.clone();
    let exchanges = seen.probes.iter().map(|(_, exchange)| exchange);
    for exchange in [&seen.main].into_iter().chain(exchanges) {
        match &exchange.outcome {
            Outcome::Response(received) => {
                secrets.add_cookies(&String::from_utf8_lossy(&received.head.raw));
                secrets.add_cookies(&received.text);
                let socket = received.socket.as_ref();
                if let Some(NotAFrame(text)) =
                    socket.and_then(|socket| socket.frames.fault.as_ref())
                {
                    secrets.add_cookies(text);
                }
            }
            Outcome::Failed(Fault::Incomplete { bytes, .. } | Fault::NotHttp(bytes)) => {
                secrets.add_cookies(&String::from_utf8_lossy(bytes));
            }
            Outcome::Failed(_) => {}
        }
    }
    secrets
}

/// The head as it came, with its secrets masked line by line.
fn head(received: &Received, secrets: &Secrets) -> String {
    let text = String::from_utf8_lossy(&received.head.raw);
    let mut is_cookie = false;
    let lines = text.lines().map(|line| {
        if is_cookie && line.starts_with([' ', '\t']) {
            // The value goes on.
            return format!(" {}", secrets.header("set-cookie", line.trim()));
        }
        let header = line.split_once(':');
        is_cookie = header.is_some_and(|(name, _)| is_set_cookie(name));
        match header {
            Some((name, value)) => format!("{name}: {}", secrets.header(name.trim(), value.trim())),
            None => secrets.mask(line),
        }
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn cut(text: &str) -> String {
    let end =
        (0..=MAX_BODY.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

fn socket(received: &Received, secrets: &Secrets) -> Option<SocketReport> {
    let socket = received.socket.as_ref()?;
    let frames = socket.frames.events.iter().map(|(at, event)| {
        let (kind, text, code) = match event {
            Event::Text(text) => ("text", Some(secrets.mask(text)), None),
            Event::Binary(length) => ("binary", Some(format!("{length} bytes")), None),
            Event::Ping(_) => ("ping", None, None),
            Event::Pong => ("pong", None, None),
            Event::Close(None) => ("close", None, None),
            Event::Close(Some((code, reason))) => {
                ("close", Some(secrets.mask(reason)), Some(*code))
            }
        };
        FrameReport { ms: ms(*at), kind, text, code }
    });
    Some(SocketReport {
        frames: frames.collect(),
        end: match socket.end {
            End::Open => "open",
            End::Closed => "closed",
            End::Eof => "eof",
            End::Reset(_) => "reset",
        },
        ms: ms(socket.time),
        ping_ms: socket.round_trip.map(ms),
        bytes: socket.frames.received,
        subprotocol: received
            .check
            .as_ref()
            .ok()
            .and_then(|accepted| accepted.subprotocol())
            .map(|name| secrets.mask(name)),
        extensions: match &received.check {
            Ok(accepted) => accepted.extensions().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        },
    })
}
