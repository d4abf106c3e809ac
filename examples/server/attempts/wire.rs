//! Sends a handshake to a router over a connection in memory, and reads the response.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Extension, Router, extract::ConnectInfo};
use bytes::Bytes;
use http::{Request, StatusCode, Version, request::Parts};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::timeout,
};

use crate::serve::Connections;

const TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_RESPONSE: u64 = 64 * 1024;

/// Attempts come from this machine.
pub(super) const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Whether it opens a WebSocket: 101 or, over HTTP/2, 200.
    pub(super) opens: bool,
}

/// `waits` for a close frame, which may follow the head, or nothing ever.
pub(super) async fn exchange(app: Router, request: &str, waits: bool) -> io::Result<Response> {
    let app = app.layer(Extension(ConnectInfo(PEER))).with_state(());
    let client = Connections { tls: None, head_timeout: TIMEOUT }.in_memory(app);
    let response = async {
        match head(request) {
            Some(head) if head.version == Version::HTTP_2 => over_http2(client, head, waits).await,
            _ => over_http1(client, request, waits).await,
        }
    };
    timeout(TIMEOUT, response).await?
}

async fn over_http1(mut client: DuplexStream, request: &str, waits: bool) -> io::Result<Response> {
    client.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    let mut client = client.take(MAX_RESPONSE);
    while !is_complete(&received) && client.read_buf(&mut received).await? > 0 {}
    if waits {
        let close = async {
            while client.read_buf(&mut received).await? > 0 {}
            io::Result::Ok(())
        };
        timeout(CLOSE_TIMEOUT, close).await.unwrap_or(Ok(()))?;
    }
    parse(&received)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP"))
}

async fn over_http2(client: DuplexStream, head: Parts, waits: bool) -> io::Result<Response> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    // The server's settings allow extended CONNECT. They arrive before this response does.
    let first = Request::get("http://localhost/").body(Empty::<Bytes>::new());
    sender.send_request(first.map_err(io::Error::other)?).await.map_err(io::Error::other)?;

    let request = Request::from_parts(head, Empty::<Bytes>::new());
    let mut response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let lines = response
        .headers()
        .iter()
        .map(|(name, value)| format!("\r\n{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    let head = format!(":status: {}{}", status.as_u16(), lines.collect::<String>());
    let mut body = Vec::new();
    if status != StatusCode::OK {
        let limited = Limited::new(response.into_body(), MAX_RESPONSE as usize);
        body = limited.collect().await.map_err(io::Error::other)?.to_bytes().into();
    } else if waits {
        let stream = hyper::upgrade::on(&mut response).await.map_err(io::Error::other)?;
        let mut stream = TokioIo::new(stream).take(MAX_RESPONSE);
        timeout(CLOSE_TIMEOUT, stream.read_buf(&mut body)).await.unwrap_or(Ok(0))?;
    }
    connection.abort();
    Ok(Response { status: status.as_u16(), head, body, opens: status == StatusCode::OK })
}

fn parse(received: &[u8]) -> Option<Response> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = received[end + 4..].to_vec();
    Some(Response { status, head, body, opens: status == 101 })
}

/// Whether the response is complete. Without a `Content-Length` it ends with the connection.
fn is_complete(received: &[u8]) -> bool {
    parse(received).is_some_and(|response| {
        let length = header(&response.head, "content-length");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        response.opens || length.is_some_and(|length| response.body.len() >= length)
    })
}

impl Response {
    /// The code and the reason of a close frame behind the head.
    pub(super) fn close(&self) -> Option<(u16, String)> {
        match *self.body {
            [0x88, _, high, low, ref reason @ ..] if self.opens => Some((
                u16::from_be_bytes([high, low]),
                String::from_utf8_lossy(reason).into_owned(),
            )),
            _ => None,
        }
    }
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(line, _)| line.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The head of a request, as the server reads it.
pub(super) fn head(text: &str) -> Option<Parts> {
    let request = if text.starts_with(":method") { http2_head(text) } else { http1_head(text) };
    Some(request?.into_parts().0)
}

fn http1_head(text: &str) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(text.as_bytes()).ok()?;
    let version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    let headers = parsed.headers.iter();
    headers.fold(request, |request, it| request.header(it.name, it.value)).body(()).ok()
}

/// Pseudo-headers are written like headers: `:path: /ws`.
fn http2_head(text: &str) -> Option<Request<()>> {
    let mut request = Request::builder().version(Version::HTTP_2);
    let (mut scheme, mut authority, mut path) = ("", "", "");
    for line in text.lines() {
        // A colon may begin the name, but does not end it there.
        let end = line.get(1..)?.find(": ")? + 1;
        let (name, value) = (&line[..end], &line[end + 2..]);
        match name {
            ":method" => request = request.method(value),
            ":protocol" => request = request.extension(Protocol::from(value)),
            ":scheme" => scheme = value,
            ":authority" => authority = value,
            ":path" => path = value,
            _ => request = request.header(name, value),
        }
    }
    request.uri(format!("{scheme}://{authority}{path}")).body(()).ok()
}
