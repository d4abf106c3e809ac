//! The requests beside the first, which test what the first one suggests.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::{
    exchange::{End, Exchange, Fault, Outcome},
    frames::Event,
    request::Style,
    route::AttemptOutcome,
    tls::TlsFault,
};

/// The maximum number of requests of a run, the first one included.
pub(crate) const MAX_REQUESTS: usize = 8;

/// A socket that is closed later than this was not closed for what the request says.
const LATE: Duration = Duration::from_secs(3);

/// A request beside the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The same once more.
    Repeat,
    WithoutOrigin,
    /// With the origin of the URL.
    OwnOrigin(String),
    /// With another `--origin`.
    OtherOrigin(String),
    /// An ordinary GET.
    WithoutUpgrade,
    /// `Connection: keep-alive, Upgrade`, as Firefox sends it.
    ConnectionList,
    /// `Connection: Upgrade` in place of Firefox's list.
    ConnectionAlone,
    /// With no more headers than RFC 6455 requires.
    Bare,
    /// The other address of the name.
    Address(SocketAddr),
    /// The same port without TLS.
    Plain,
    /// TLS on the same port, and nothing else.
    Tls,
    /// TLS with HTTP/2 offered, and nothing else.
    TlsHttp2,
    /// `--direct`.
    Direct(String),
}

impl Probe {
    /// In words, for the report.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Repeat => "the same once more".into(),
            Self::WithoutOrigin => "without Origin".into(),
            Self::OwnOrigin(origin) => format!("with the URL's own origin, {origin}"),
            Self::OtherOrigin(origin) => format!("with Origin: {origin}"),
            Self::WithoutUpgrade => "without Upgrade and Connection".into(),
            Self::ConnectionList => "with Connection: keep-alive, Upgrade (Firefox)".into(),
            Self::ConnectionAlone => "with Connection: Upgrade alone".into(),
            Self::Bare => "with no more than RFC 6455 requires".into(),
            Self::Address(address) => format!("at the address {}", address.ip()),
            Self::Plain => "without TLS".into(),
            Self::Tls => "TLS alone".into(),
            Self::TlsHttp2 => "TLS with HTTP/2 alone".into(),
            Self::Direct(address) => format!("direct, at {address}"),
        }
    }

    /// The stable name in JSON.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::WithoutOrigin => "without-origin",
            Self::OwnOrigin(_) => "own-origin",
            Self::OtherOrigin(_) => "other-origin",
            Self::WithoutUpgrade => "without-upgrade",
            Self::ConnectionList => "connection-list",
            Self::ConnectionAlone => "connection-alone",
            Self::Bare => "bare",
            Self::Address(_) => "address",
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::TlsHttp2 => "tls-http2",
            Self::Direct(_) => "direct",
        }
    }
}

/// What the user gave, as far as the judgement depends on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// All of `--origin`.
    pub(crate) origins: Vec<String>,
    pub(crate) bare: bool,
    /// A token, cookies, or a user and a password.
    pub(crate) credential: bool,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) cacert: Option<String>,
    pub(crate) client_certificate: bool,
    pub(crate) http2: bool,
    pub(crate) direct: Option<String>,
    /// UNIX seconds.
    pub(crate) now: u64,
}

/// Everything that was seen.
#[derive(Debug)]
pub(crate) struct Observations {
    pub(crate) given: Given,
    pub(crate) main: Exchange,
    pub(crate) probes: Vec<(Probe, Exchange)>,
}

impl Observations {
    pub(crate) fn probe(&self, wanted: &Probe) -> Option<&Exchange> {
        self.probes.iter().find(|(probe, _)| probe == wanted).map(|(_, exchange)| exchange)
    }

    /// The probe, unless the server had no time for it.
    pub(crate) fn made(&self, wanted: &Probe) -> Option<&Exchange> {
        self.probe(wanted).filter(|exchange| was_made(exchange))
    }

    pub(crate) fn origin_probes(&self) -> impl Iterator<Item = (&Probe, &Exchange)> {
        self.probes
            .iter()
            .filter(|(probe, exchange)| {
                was_made(exchange)
                    && matches!(
                        probe,
                        Probe::WithoutOrigin | Probe::OwnOrigin(_) | Probe::OtherOrigin(_)
                    )
            })
            .map(|(probe, exchange)| (probe, exchange))
    }

    /// Whether the same request had another result: then nothing is to blame.
    pub(crate) fn is_flaky(&self) -> bool {
        self.made(&Probe::Repeat).is_some_and(|again| !is_alike(&self.main, again))
    }

    /// Whether the server stopped responding to probes.
    pub(crate) fn is_limited(&self) -> bool {
        self.main.status() != Some(429)
            && self.probes.iter().any(|(_, exchange)| exchange.status() == Some(429))
    }
}

/// Whether the result of a probe says something: not after a 429.
fn was_made(exchange: &Exchange) -> bool {
    exchange.status() != Some(429)
}

/// Whether the server accepted, by HTTP.
pub(crate) fn is_open(exchange: &Exchange) -> bool {
    exchange.received().is_some_and(|received| received.socket.is_some())
}

/// Whether a browser could use the socket, as far as it was watched.
pub(crate) fn is_usable(exchange: &Exchange) -> bool {
    let Some(received) = exchange.received() else { return false };
    let Some(socket) = &received.socket else { return false };
    received.check.is_ok()
        && received.head.defects.is_empty()
        && received.head.minor != Some(0)
        && socket.frames.fault.is_none()
        && socket.end == End::Open
}

/// Whether the socket was closed by the server while it was watched.
pub(crate) fn is_closed(exchange: &Exchange) -> bool {
    let socket = exchange.received().and_then(|received| received.socket.as_ref());
    socket.is_some_and(|socket| socket.end != End::Open)
}

/// Whether the socket was closed only after some time.
fn is_late(exchange: &Exchange) -> bool {
    let socket = exchange.received().and_then(|received| received.socket.as_ref());
    socket.is_some_and(|socket| socket.end != End::Open && socket.time > LATE)
}

/// Whether two requests had the same result, so that the difference between them does not matter.
fn is_alike(one: &Exchange, other: &Exchange) -> bool {
    match (&one.outcome, &other.outcome) {
        (Outcome::Response(_), Outcome::Response(_)) => {
            one.status() == other.status() && is_usable(one) == is_usable(other)
        }
        (Outcome::Failed(_), Outcome::Failed(_)) => true,
        _ => false,
    }
}

/// The next request to make, if there is one that could tell something.
pub(crate) fn next(seen: &Observations) -> Option<Probe> {
    if seen.probes.len() + 1 >= MAX_REQUESTS || seen.is_limited() {
        return None;
    }
    let missing = |probe: &Probe| seen.probe(probe).is_none();
    wanted(seen).into_iter().find(missing)
}

/// All probes that follow from what was seen so far, in their order.
fn wanted(seen: &Observations) -> Vec<Probe> {
    let direct = seen.given.direct.iter().map(|address| Probe::Direct(address.clone()));
    direct.chain(following(seen)).collect()
}

fn following(seen: &Observations) -> Vec<Probe> {
    let main = &seen.main;
    let mut probes = Vec::new();
    match &main.outcome {
        Outcome::Failed(Fault::Route(_) | Fault::Http2(_) | Fault::NoExtendedConnect) => {}
        Outcome::Failed(Fault::Tls(fault, _)) => {
            match fault {
                TlsFault::NotTls | TlsFault::Closed | TlsFault::Reset | TlsFault::Timeout => {
                    probes.push(Probe::Plain);
                }
                TlsFault::Alpn => probes.push(Probe::TlsHttp2),
                _ => {}
            }
            return probes;
        }
        Outcome::Failed(fault) => {
            if !main.target.tls() {
                probes.push(Probe::Tls);
            }
            if seen.probe(&Probe::Tls).is_some_and(|exchange| {
                exchange
                    .tls
                    .as_ref()
                    .is_some_and(|tls| tls.version.is_some() || !tls.chain.is_empty())
            }) {
                return probes;
            }
            if let Fault::NotHttp(bytes) = fault
                && (bytes.starts_with(&[0x15, 3]) || is_http2(bytes))
            {
                return probes;
            }
            probes.extend([Probe::Repeat, Probe::WithoutUpgrade]);
            if !seen.is_flaky() {
                probes.extend(origins(seen));
                probes.extend(fewer(seen));
            }
        }
        Outcome::Response(received) => {
            let status = received.head.status;
            if is_usable(main) {
                probes.extend(others(seen));
                if !seen.given.http2 && !seen.given.bare && !main.variant.connection_list {
                    probes.push(Probe::ConnectionList);
                    // A server that fails now and then is not blamed for a list.
                    if seen
                        .made(&Probe::ConnectionList)
                        .is_some_and(|exchange| !is_usable(exchange))
                    {
                        probes.push(Probe::Repeat);
                    }
                }
                probes.extend(address(seen));
            } else if is_late(main) {
                // It was accepted for a while, so neither origin nor headers are to blame.
            } else if is_open(main) {
                probes.push(Probe::Repeat);
                if !seen.is_flaky() {
                    if is_closed(main) {
                        probes.extend(origins(seen));
                    }
                    probes.extend(fewer(seen));
                }
            } else if !matches!(status, 300..=399 | 401 | 407 | 429 | 502 | 504 | 511 | 520..=530 | 464)
            {
                probes.push(Probe::Repeat);
                if !seen.is_flaky() {
                    probes.extend(origins(seen));
                    if !seen.origin_probes().any(|(_, exchange)| is_better(seen, exchange)) {
                        // It tells the name of the server, too.
                        probes.push(Probe::WithoutUpgrade);
                        if !matches!(status, 403 | 404 | 426 | 503) {
                            probes.extend(fewer(seen));
                        }
                        probes.extend(address(seen));
                    }
                }
            }
        }
    }
    probes
}

/// Whether a probe was accepted, or got past the origin check to that of the credential.
pub(crate) fn is_better(seen: &Observations, probe: &Exchange) -> bool {
    is_usable(probe)
        || (seen.main.status() == Some(403)
            && probe.status() == Some(401)
            && !seen.given.credential)
}

/// Other origins than that of the first request.
fn origins(seen: &Observations) -> Vec<Probe> {
    let sent = seen.main.variant.origin.as_ref();
    let own = seen.main.target.origin();
    let mut probes = Vec::new();
    if sent.is_some() {
        probes.push(Probe::WithoutOrigin);
    }
    if sent != Some(&own) {
        probes.push(Probe::OwnOrigin(own));
    }
    probes.extend(others(seen));
    probes
}

fn others(seen: &Observations) -> Vec<Probe> {
    let own = seen.main.target.origin();
    let sent = seen.main.variant.origin.as_ref();
    let others =
        seen.given.origins.iter().filter(|origin| Some(*origin) != sent && **origin != own);
    others.take(3).cloned().map(Probe::OtherOrigin).collect()
}

/// Fewer headers of a browser, one thing at a time.
fn fewer(seen: &Observations) -> Vec<Probe> {
    let main = &seen.main.variant;
    let accepted = seen.origin_probes().any(|(_, exchange)| is_better(seen, exchange));
    if main.style == Style::Bare || accepted || seen.given.http2 {
        return Vec::new();
    }
    let alone = seen.made(&Probe::ConnectionAlone).is_some_and(is_usable);
    let list = main.connection_list.then_some(Probe::ConnectionAlone);
    list.into_iter().chain((!alone).then_some(Probe::Bare)).collect()
}

/// An address of the other family.
fn address(seen: &Observations) -> Option<Probe> {
    let way = &seen.main.way;
    let connected = way.connected?;
    if way.proxy.is_some() {
        return None;
    }
    let failed = |address: &SocketAddr| {
        way.attempts.iter().any(|attempt| {
            attempt.address == *address && attempt.outcome != AttemptOutcome::Connected
        })
    };
    let other = way.addresses.iter().find(|address| address.is_ipv6() != connected.is_ipv6())?;
    (!failed(other)).then_some(Probe::Address(*other))
}

/// The connection preface of a server (RFC 9113 3.4): a SETTINGS frame, or the GOAWAY of one that
/// does not understand HTTP/1.1.
pub(crate) fn is_http2(bytes: &[u8]) -> bool {
    matches!(bytes, [0, _, _, 4 | 7, 0, 0, 0, 0, 0, ..])
}

/// The code and the message of an error of Pusher's protocol: JSON in JSON.
pub(crate) fn pusher_error(text: &str) -> Option<(u64, String)> {
    let event: Value = serde_json::from_str(text).ok()?;
    (event.get("event")? == "pusher:error").then_some(())?;
    let data = event.get("data")?;
    let inner = data.as_str().and_then(|data| serde_json::from_str::<Value>(data).ok());
    let data = inner.as_ref().unwrap_or(data);
    Some((data.get("code")?.as_u64()?, data.get("message")?.as_str()?.to_owned()))
}

/// The text and the close frame of a socket, in one line.
pub(crate) fn last_words(exchange: &Exchange) -> String {
    let Some(socket) = exchange.received().and_then(|received| received.socket.as_ref()) else {
        return String::new();
    };
    let mut words = Vec::new();
    for (_, event) in &socket.frames.events {
        match event {
            Event::Text(text) if words.len() < 3 => {
                let text = match pusher_error(text) {
                    Some((code, message)) => format!("pusher:error {code}: {message}"),
                    None => text.clone(),
                };
                let text: String = text.chars().take(300).collect();
                words.push(format!("the message `{text}`"));
            }
            Event::Close(Some((code, reason))) if reason.is_empty() => {
                words.push(format!("close code {code}"));
            }
            Event::Close(Some((code, reason))) => {
                words.push(format!("close code {code} with the reason `{reason}`"));
            }
            Event::Close(None) => words.push("a close frame without a code".into()),
            _ => {}
        }
    }
    match &socket.end {
        End::Eof => words.push("the end of the connection, without a close frame".into()),
        End::Reset(_) => words.push("a reset of the connection, without a close frame".into()),
        End::Open | End::Closed => {}
    }
    words.join(", then ")
}
