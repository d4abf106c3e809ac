//! Requests as hyper makes them: every value is a slice of one buffer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header::UPGRADE};
use hyper::ext::Protocol;

pub(crate) const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
pub const ORIGIN: &str = "https://app.example.com";
pub const FOREIGN_ORIGIN: &str = "https://evil.example";
pub(crate) const TOKEN: &str = "s3cr3t-0123456789-abcdef";

/// A handshake of Chrome 150 with 13 headers.
pub const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\n\
    Host: app.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://app.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    \r\n";

/// A `fetch` of the same browser with 10 headers.
pub(crate) const ORDINARY: &str = "GET / HTTP/1.1\r\n\
    Host: app.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36\r\n\
    Accept: */*\r\n\
    Origin: https://app.example.com\r\n\
    Referer: https://app.example.com/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543\r\n\
    \r\n";

/// The handshake with another value in this line.
pub fn with(name: &str, value: &str) -> String {
    let line = HANDSHAKE
        .lines()
        .find(|line| line.starts_with(&format!("{name}: ")))
        .expect("a line of the handshake");
    HANDSHAKE.replacen(line, &format!("{name}: {value}"), 1)
}

/// The handshake with additional lines.
pub(crate) fn and(lines: &str) -> String {
    HANDSHAKE.replacen("Pragma", &format!("{lines}Pragma"), 1)
}

/// A handshake of the same browser over HTTP/2 (RFC 8441).
pub(crate) fn http2() -> impl Fn() -> Request<()> {
    let head = Bytes::from(
        HANDSHAKE
            .lines()
            .filter(|line| {
                !["Host", "Connection", "Upgrade", "Sec-WebSocket-Key"]
                    .iter()
                    .any(|name| line.starts_with(&format!("{name}:")))
            })
            .map(|line| format!("{line}\r\n"))
            .collect::<String>(),
    );
    move || {
        let mut request = request(&head);
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static("https://app.example.com/ws");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
        request
    }
}

pub(crate) fn foreign_origin() -> String {
    with("Origin", FOREIGN_ORIGIN)
}

/// An upgrade of the request fails at once.
pub(crate) fn request<B: Default>(head: &Bytes) -> Request<B> {
    let text = std::str::from_utf8(head).expect("ASCII");
    let (line, lines) = text.trim_end().split_once("\r\n").expect("a request line");
    let target = line.split(' ').nth(1).expect("a target");

    let lines = lines.split("\r\n").collect::<Vec<_>>();
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let (name, value) = line.split_once(": ").expect("name and value");
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value.as_bytes()))
            .expect("a valid value");
        headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a valid name"), value);
    }
    let mut request = Request::new(B::default());
    *request.uri_mut() =
        Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).expect("a valid target");
    *request.headers_mut() = headers;
    if request.headers().contains_key(UPGRADE) {
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
    }
    request
}
