//! One request and everything that came back: what the judgement is made from.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use http::Request;
use tower_ws_guard::client::{Accepted, ClientHandshake, Findings};

use crate::{
    body::{self, Body, MAX_BODY},
    certificate::Certificate,
    frames::{Event, Frames, masked},
    request::{Plan, Variant},
    response::{Head, Progress, read_head, status_line},
    route::{self, Link, RouteFault, RouteOptions, Way},
    target::Target,
    tls::{self, TlsFault, TlsOptions},
};

/// How long the rest of a body, or of bytes that are not HTTP, is waited for.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How many responses 1xx may come in front of the final one.
const MAX_INTERIM: usize = 8;

/// A request, and what came of it.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) variant: Variant,
    pub(crate) target: Target,
    pub(crate) way: Way,
    pub(crate) tls: Option<TlsSession>,
    /// `None` if it was not sent.
    pub(crate) request: Option<String>,
    pub(crate) outcome: Outcome,
    /// From the start to the end.
    pub(crate) time: Duration,
}

/// A TLS connection, or the attempt to make one.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSession {
    pub(crate) version: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) cipher: Option<String>,
    pub(crate) chain: Vec<Certificate>,
    /// Why the certificate is not valid, if `-k` ignores it.
    pub(crate) ignored: Option<String>,
    pub(crate) client_certificate_wanted: bool,
    pub(crate) time: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Outcome {
    Response(Box<Received>),
    Failed(Fault),
}

/// A response.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: Head,
    /// From the request to the end of the head.
    pub(crate) time: Duration,
    pub(crate) body: Body,
    /// The text of the body.
    pub(crate) text: String,
    /// The check of RFC 6455 4.1 and RFC 8441.
    pub(crate) check: Result<Accepted, Findings>,
    /// After a 101, or a 200 over HTTP/2.
    pub(crate) socket: Option<Socket>,
}

/// What was seen of the open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) frames: Frames,
    pub(crate) end: End,
    /// The time at the end, since the response.
    pub(crate) time: Duration,
    /// From the ping to the pong.
    pub(crate) round_trip: Option<Duration>,
}

/// How the observation of the socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The socket was open still.
    Open,
    Closed,
    /// The connection ended without a close frame.
    Eof,
    Reset(String),
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Fault {
    Route(RouteFault),
    Tls(TlsFault, String),
    /// Nothing came in time.
    NoResponse,
    /// The connection ended before a byte came. The error of a reset.
    Closed(Option<String>),
    /// A response began, and did not end.
    Incomplete {
        bytes: Vec<u8>,
        ended: bool,
    },
    NotHttp(Vec<u8>),
    /// HTTP/2 was asked for, and failed.
    Http2(String),
    /// The server speaks HTTP/2 without extended CONNECT.
    NoExtendedConnect,
}

impl Exchange {
    pub(crate) fn received(&self) -> Option<&Received> {
        match &self.outcome {
            Outcome::Response(received) => Some(received),
            Outcome::Failed(_) => None,
        }
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.received().map(|received| received.head.status)
    }
}

/// What all exchanges of a run have in common.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) plan: Plan,
    pub(crate) route: RouteOptions,
    pub(crate) tls: TlsOptions,
    /// How long an open socket is watched.
    pub(crate) watch: Duration,
    pub(crate) ping: bool,
}

/// What an exchange connects to, if not to where the URL says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detour {
    /// This address, and no proxy.
    pub(crate) address: Option<SocketAddr>,
    /// This target, and no proxy; the request stays the same.
    pub(crate) direct: Option<Target>,
    /// With TLS or without it, whatever the URL says.
    pub(crate) tls: Option<bool>,
    /// These protocols are offered by ALPN, and nothing is sent.
    pub(crate) only_tls: Option<&'static [u8]>,
    /// The socket is not watched for longer than this.
    pub(crate) watch: Option<Duration>,
}

/// TCP, TLS, or TLS in TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The usual time for which an open socket is watched.
pub(crate) const WATCH: Duration = Duration::from_millis(500);

/// Makes one exchange. It ends by `deadline`, except for a socket that is watched for longer.
pub(crate) async fn exchange(
    means: &Means,
    variant: &Variant,
    detour: &Detour,
    deadline: Instant,
) -> Exchange {
    let start = Instant::now();
    let mut exchange = Exchange {
        variant: variant.clone(),
        target: means.plan.target.clone(),
        way: Way::default(),
        tls: None,
        request: None,
        outcome: Outcome::Failed(Fault::NoResponse),
        time: Duration::ZERO,
    };
    exchange.outcome = match converse(means, detour, deadline, &mut exchange).await {
        Ok(received) => Outcome::Response(Box::new(received)),
        Err(fault) => Outcome::Failed(fault),
    };
    exchange.time = start.elapsed();
    exchange
}

async fn converse(
    means: &Means,
    detour: &Detour,
    deadline: Instant,
    exchange: &mut Exchange,
) -> Result<Received, Fault> {
    let plan = &means.plan;
    let target = detour.direct.as_ref().unwrap_or(&plan.target);
    let direct_route = RouteOptions { proxy: None, ..means.route.clone() };
    let route = if detour.direct.is_some() { &direct_route } else { &means.route };
    let link = route::connect(route, target, detour.address, deadline, &mut exchange.way).await;
    let link = link.map_err(Fault::Route)?;
    let mut stream: Box<dyn Stream> = match link {
        Link::Tcp(stream) => Box::new(stream),
        Link::Tls(stream) => stream,
    };
    if detour.tls.unwrap_or_else(|| target.tls()) {
        let alpn: &[u8] = match (detour.only_tls, plan.http2) {
            (Some(protocol), _) => protocol,
            (None, true) => b"h2",
            (None, false) => b"http/1.1",
        };
        // The name of the URL, also on a direct way.
        let session = start_tls(means, &plan.target.host(), alpn, stream, deadline).await;
        let (session, connected) = session;
        exchange.tls = Some(session);
        stream = connected?;
    }
    if detour.only_tls.is_some() {
        return Err(Fault::NoResponse);
    }
    if plan.http2 {
        return crate::http2::converse(means, detour, stream, deadline, exchange).await;
    }

    let sent = Instant::now();
    let request = plan.head(&exchange.variant);
    exchange.request = Some(request.clone());
    let send = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    let wanted = exchange.tls.as_ref().is_some_and(|tls| tls.client_certificate_wanted);
    match timeout_at(deadline, send).await {
        Err(_) => return Err(Fault::NoResponse),
        // A server that rejects without reading may have responded.
        Ok(Err(error))
            if error.kind() != io::ErrorKind::BrokenPipe
                && error.kind() != io::ErrorKind::ConnectionReset =>
        {
            return Err(lost(&error, wanted));
        }
        Ok(_) => {}
    }
    let (head, mut rest) = read_response(&mut *stream, deadline, wanted).await?;
    let time = sent.elapsed();
    let is_open = head.status == 101;
    let (body, socket) = if is_open {
        let watch = detour.watch.map_or(means.watch, |watch| watch.min(means.watch));
        let deflate = head
            .text("sec-websocket-extensions")
            .is_some_and(|value| value.contains("permessage-deflate"));
        let ping = means.ping && detour.watch.is_none();
        let socket = watch_socket(&mut *stream, &rest, deflate, watch, ping).await;
        (Body::default(), Some(socket))
    } else if body::has_body(&head) {
        let until = deadline.min(Instant::now() + GRACE);
        loop {
            let body = body::unframe(&head, &rest);
            if body.complete || rest.len() >= MAX_BODY {
                break;
            }
            match in_time(until, stream.read_buf(&mut rest)).await {
                Ok(Ok(1..)) => {}
                _ => break,
            }
        }
        rest.truncate(MAX_BODY);
        (body::unframe(&head, &rest), None)
    } else {
        (Body::default(), None)
    };
    Ok(received(&plan.to_request(&exchange.variant), head, time, &body, socket))
}

pub(crate) fn received(
    request: &Request<()>,
    head: Head,
    time: Duration,
    body: &Body,
    socket: Option<Socket>,
) -> Received {
    let bytes = body::decode(&head, &body.bytes);
    let text = body::text(&head, &bytes);
    let check = ClientHandshake::new(request).verify(&head.to_response());
    Received { head, time, body: Body { bytes, complete: body.complete }, text, check, socket }
}

async fn start_tls(
    means: &Means,
    host: &str,
    alpn: &[u8],
    stream: Box<dyn Stream>,
    deadline: Instant,
) -> (TlsSession, Result<Box<dyn Stream>, Fault>) {
    let start = Instant::now();
    let (config, recorder) = means.tls.config(&[alpn]);
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        let fault = Fault::Tls(TlsFault::Other, "the host is no name that TLS can carry".into());
        return (TlsSession::default(), Err(fault));
    };
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let result = timeout_at(deadline, handshake).await;
    let seen = recorder.seen();
    let mut session = TlsSession {
        chain: seen.chain.clone(),
        client_certificate_wanted: seen.client_certificate,
        ignored: seen.error.as_ref().map(ToString::to_string),
        time: start.elapsed(),
        ..TlsSession::default()
    };
    let stream = match result {
        Err(_) => {
            return (session, Err(Fault::Tls(TlsFault::Timeout, "no TLS response in time".into())));
        }
        Ok(Err(error)) => {
            session.ignored = None;
            let lost = if error.kind() == io::ErrorKind::ConnectionReset {
                TlsFault::Reset
            } else {
                TlsFault::Closed
            };
            let fault = tls::fault(&error, &seen).unwrap_or(lost);
            return (session, Err(Fault::Tls(fault, error.to_string())));
        }
        Ok(Ok(stream)) => stream,
    };
    let (_, connection) = stream.get_ref();
    session.version = connection.protocol_version().map(|version| match version.as_str() {
        Some("TLSv1_3") => "TLS 1.3".to_owned(),
        Some("TLSv1_2") => "TLS 1.2".to_owned(),
        _ => format!("{version:?}"),
    });
    session.alpn =
        connection.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    session.cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .map(str::to_owned);
    (session, Ok(Box::new(stream)))
}

/// The fault behind an error while a response is waited for.
fn lost(error: &io::Error, client_certificate_wanted: bool) -> Fault {
    let seen = tls::Seen { client_certificate: client_certificate_wanted, ..tls::Seen::default() };
    match tls::fault(error, &seen) {
        Some(fault) => Fault::Tls(fault, error.to_string()),
        None => Fault::Closed(Some(error.to_string())),
    }
}

/// As [`timeout_at`], which never ends a loop of reads that are ready at once.
pub(crate) async fn in_time<F: Future>(deadline: Instant, read: F) -> Result<F::Output, ()> {
    if Instant::now() >= deadline {
        return Err(());
    }
    timeout_at(deadline, read).await.map_err(drop)
}

/// Reads the head of the final response, and what came behind it.
async fn read_response(
    stream: &mut dyn Stream,
    mut deadline: Instant,
    wanted: bool,
) -> Result<(Head, Vec<u8>), Fault> {
    let mut bytes = Vec::new();
    let mut is_hopeless = false;
    let mut interim = 0;
    loop {
        if bytes.ends_with(b"\n") || bytes.len() > 4 {
            match read_head(&bytes) {
                Progress::Complete(mut head, length) => {
                    let rest = bytes.split_off(length);
                    // RFC 9110 15.2: the final response follows any other 1xx.
                    if !matches!(head.status, 100 | 102..=199) {
                        return Ok((*head, rest));
                    }
                    interim += 1;
                    if interim > MAX_INTERIM {
                        head.defects.push(format!(
                            "more than {MAX_INTERIM} responses 1xx came, and no final one (RFC 9110 15.2)"
                        ));
                        return Ok((*head, rest));
                    }
                    bytes = rest;
                    continue;
                }
                Progress::TooLong if status_line(&bytes).is_none() => {
                    return Err(Fault::NotHttp(bytes));
                }
                Progress::TooLong => return Err(Fault::Incomplete { bytes, ended: false }),
                Progress::Partial => {}
            }
        }
        let begin = &bytes[..bytes.len().min(5)];
        if !is_hopeless && !b"HTTP/"[..begin.len()].eq_ignore_ascii_case(begin) {
            // Text may stand in front of a response.
            is_hopeless = true;
            deadline = deadline.min(Instant::now() + GRACE);
        }
        let read = in_time(deadline, stream.read_buf(&mut bytes)).await;
        let ended = match read {
            Ok(Ok(1..)) => continue,
            Err(_) if bytes.is_empty() => return Err(Fault::NoResponse),
            Ok(Ok(0)) if bytes.is_empty() => return Err(Fault::Closed(None)),
            Ok(Err(error)) if bytes.is_empty() => return Err(lost(&error, wanted)),
            Err(_) => false,
            Ok(_) => true,
        };
        let is_http = status_line(&bytes).is_some()
            || b"HTTP/"[..bytes.len().min(5)].eq_ignore_ascii_case(&bytes[..bytes.len().min(5)]);
        return Err(if is_http {
            Fault::Incomplete { bytes, ended }
        } else {
            Fault::NotHttp(bytes)
        });
    }
}

/// Reads frames until the time is over or the socket ends.
pub(crate) async fn watch_socket<S: AsyncRead + AsyncWrite + Unpin + ?Sized>(
    stream: &mut S,
    first: &[u8],
    deflate: bool,
    watch: Duration,
    ping: bool,
) -> Socket {
    let start = Instant::now();
    let until = start + watch;
    let mut frames = Frames::new(deflate);
    let mut round_trip = None;
    let mut answered = 0;
    frames.feed(first, Duration::ZERO);
    if ping {
        let _ = timeout_at(until, send(stream, &masked(9, b"ws-doctor"))).await;
    }
    let mut buffer = vec![0; 16 * 1024];
    let end = loop {
        if ping && round_trip.is_none() {
            let pong = frames.events.iter().find(|(_, event)| *event == Event::Pong);
            round_trip = pong.map(|(at, _)| *at);
        }
        let pings = frames.events.iter().filter_map(|(_, event)| match event {
            Event::Ping(payload) => Some(masked(10, payload)),
            _ => None,
        });
        let pongs = pings.skip(answered).collect::<Vec<_>>();
        for pong in pongs {
            answered += 1;
            let _ = timeout_at(until, send(stream, &pong)).await;
        }
        if frames.close().is_some() {
            break End::Closed;
        }
        if frames.is_done() {
            break End::Open;
        }
        match in_time(until, stream.read(&mut buffer)).await {
            Err(_) => break End::Open,
            Ok(Ok(0)) => break End::Eof,
            Ok(Ok(length)) => frames.feed(&buffer[..length], start.elapsed()),
            Ok(Err(error)) => break End::Reset(error.to_string()),
        }
    };
    let time = start.elapsed();
    frames.finish(time);
    // The server's log should not speak of a lost connection.
    if matches!(end, End::Open | End::Closed) {
        let close = masked(8, &1000_u16.to_be_bytes());
        let goodbye = send(stream, &close);
        let _ = tokio::time::timeout(Duration::from_millis(200), goodbye).await;
    }
    Socket { frames, end, time, round_trip }
}

async fn send<S: AsyncWrite + Unpin + ?Sized>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
