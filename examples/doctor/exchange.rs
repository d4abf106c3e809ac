//! One handshake: the request, and the head of the response as sent on the wire.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tower_ws_guard::client::{Accepted, ClientHandshake, Findings};

use crate::{
    Options, TokenIn,
    connect::{Kind, Stage, Stream, Unreachable, connect},
};

/// The maximum length of a head or of a body, in bytes.
const LIMIT: usize = 64 * 1024;
const MAX_HEADERS: usize = 1024;
/// All characters except the unreserved ones of RFC 3986 2.3.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request and its response.
pub(crate) struct Exchange {
    /// `None` if the request was not sent.
    pub(crate) request_head: Option<String>,
    pub(crate) received: Result<Received, Unreachable>,
}

pub(crate) struct Received {
    pub(crate) head: Vec<u8>,
    pub(crate) response: Response<()>,
    pub(crate) verdict: Result<Accepted, Findings>,
    /// The body of a problem (RFC 9457).
    pub(crate) problem: Vec<u8>,
    /// The code and the reason of the close frame, if the server closes the socket at once.
    pub(crate) close: Option<(u16, String)>,
}

pub(crate) async fn exchange(
    options: &Options,
    origin: Option<&str>,
    deadline: Instant,
) -> Exchange {
    let mut stream = match connect(options, deadline).await {
        Ok(stream) => stream,
        Err(unreachable) => return Exchange { request_head: None, received: Err(unreachable) },
    };
    let mut key = [0; 16];
    getrandom::fill(&mut key).expect("the system has random bytes");
    let head = Head::new(options, origin, &STANDARD.encode(key));
    let received = converse(&mut *stream, &head, deadline).await;
    Exchange { request_head: Some(head.text()), received }
}

/// The head of a request.
struct Head {
    target: String,
    headers: Vec<(&'static str, String)>,
}

impl Head {
    fn new(options: &Options, origin: Option<&str>, key: &str) -> Self {
        let mut target = options.url.path.clone();
        let mut subprotocols = options.subprotocol.clone();
        let mut headers = vec![
            ("Host", options.url.authority()),
            ("User-Agent", "tower-ws-guard-doctor".into()),
            ("Upgrade", "websocket".into()),
            ("Connection", "Upgrade".into()),
            ("Sec-WebSocket-Key", key.into()),
            ("Sec-WebSocket-Version", options.sec_websocket_version.to_string()),
        ];
        if let Some(origin) = origin {
            headers.push(("Origin", origin.into()));
        }
        if let Some(token) = &options.token {
            match options.token_in.as_ref().unwrap_or(&TokenIn::Authorization) {
                TokenIn::Authorization => {
                    headers.push(("Authorization", format!("Bearer {token}")));
                }
                TokenIn::Cookie(name) => headers.push(("Cookie", format!("{name}={token}"))),
                TokenIn::Query(name) => {
                    let separator = if target.contains('?') { '&' } else { '?' };
                    target.push_str(&format!("{separator}{}={}", encode(name), encode(token)));
                }
                TokenIn::Subprotocol(prefix) => subprotocols.push(format!("{prefix}{token}")),
            }
        }
        if !subprotocols.is_empty() {
            headers.push(("Sec-WebSocket-Protocol", subprotocols.join(", ")));
        }
        Self { target, headers }
    }

    fn text(&self) -> String {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET {} HTTP/1.1\r\n{headers}\r\n", self.target)
    }

    fn request(&self) -> Request<()> {
        let request = Request::get(&self.target);
        let headers = self.headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(*name, value));
        request.body(()).expect("the flags were checked")
    }
}

/// Percent-encodes a token for a query.
pub(crate) fn encode(token: &str) -> String {
    utf8_percent_encode(token, QUERY).to_string()
}

async fn converse(
    stream: &mut dyn Stream,
    request: &Head,
    deadline: Instant,
) -> Result<Received, Unreachable> {
    let send = async {
        stream.write_all(request.text().as_bytes()).await?;
        stream.flush().await
    };
    Unreachable::unless(Stage::Response, deadline, send).await?;

    let mut bytes = Vec::new();
    let (length, response) = loop {
        if let Some(head) = parse(&bytes)? {
            break head;
        }
        if bytes.len() >= LIMIT {
            return Err(Unreachable::new(
                Kind::NotHttp,
                "the head of the response does not end within 64 KiB",
            ));
        }
        if Unreachable::unless(Stage::Response, deadline, stream.read_buf(&mut bytes)).await? == 0 {
            let how = if bytes.is_empty() {
                "without a response"
            } else {
                "within the head of the response"
            };
            return Err(Unreachable::new(
                Kind::ConnectionReset,
                format!("the server closed the connection {how}"),
            ));
        }
    };
    let mut body = bytes.split_off(length);
    let is_problem = |value: &HeaderValue| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/problem+json")
    };
    let problem = match response.headers().get(CONTENT_TYPE) {
        Some(value) if is_problem(value) => loop {
            // The body is optional, so errors are ignored.
            match decode(&response, &body) {
                Some(problem) => break problem,
                None if body.len() > LIMIT => break Vec::new(),
                None => {}
            }
            match Unreachable::unless(Stage::Response, deadline, stream.read_buf(&mut body)).await {
                Ok(1..) => {}
                _ => break body.clone(),
            }
        },
        _ => Vec::new(),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // A server may never send a frame.
        let close_deadline = deadline.min(Instant::now() + CLOSE);
        let frame = async {
            while close_frame(&body).is_none() && stream.read_buf(&mut body).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout_at(close_deadline, frame).await;
    }
    let close = close_frame(&body).filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
    let verdict = ClientHandshake::new(&request.request()).verify(&response);
    Ok(Received { head: bytes, response, verdict, problem, close })
}

/// The timeout for a close frame after a 101.
const CLOSE: Duration = Duration::from_millis(500);

/// Parses a close frame (RFC 6455 5.5.1).
fn close_frame(bytes: &[u8]) -> Option<(u16, String)> {
    let [0x88, length @ 2..=125, high, low, rest @ ..] = bytes else { return None };
    let reason = rest.get(..usize::from(*length) - 2)?;
    Some((u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned()))
}

/// The final response without its body, and the length of everything before the body.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Response<()>)>, Unreachable> {
    let bytes = &bytes[..bytes.len().min(LIMIT)];
    let mut start = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let not_http = |reason: &dyn std::fmt::Display| {
            let begin = bytes[..bytes.len().min(64)].escape_ascii();
            Unreachable::new(
                Kind::NotHttp,
                format!("{reason}; the response begins with `{begin}…`"),
            )
        };
        match head.parse(&bytes[start..]) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(length)) => start += length,
            Err(error) => return Err(not_http(&error)),
        }
        let response = response(&head).map_err(|error| not_http(&error))?;
        // RFC 9110 15.2: the final response follows any other 1xx.
        if !response.status().is_informational()
            || response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(Some((start, response)));
        }
    }
}

fn response(head: &httparse::Response<'_, '_>) -> Result<Response<()>, http::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.code.unwrap_or_default())?;
    for header in &*head.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        response.headers_mut().append(name, HeaderValue::from_bytes(header.value)?);
    }
    Ok(response)
}

/// The body, if it is complete (RFC 9112 6.3). A body that ends with the connection never is.
fn decode(response: &Response<()>, bytes: &[u8]) -> Option<Vec<u8>> {
    if !response.headers().contains_key("transfer-encoding") {
        let length =
            response.headers().get("content-length")?.to_str().ok()?.trim().parse().ok()?;
        return bytes.get(..length).map(<[u8]>::to_vec);
    }
    let mut body = Vec::new();
    let mut rest = bytes;
    loop {
        let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(rest)
        else {
            return None;
        };
        if length == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end + 2..)?;
    }
}
