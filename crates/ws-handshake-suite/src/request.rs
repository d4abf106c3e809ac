//! From a case to the bytes or header fields that are sent.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};

use crate::{case::Case, frame, target::Target};

/// What is sent for a case.
#[derive(Debug)]
pub(crate) struct Request {
    /// In the order in which they are sent; over HTTP/2 the pseudo-header fields first.
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bytes over HTTP/1.1.
    pub(crate) bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(case: &Case, target: &Target) -> Self {
        let mut texts = Texts { case, target, length: 0 };
        let after = texts.expand(&case.after);
        texts.length = after.len();

        let mut headers = edited(plain(case.http2, target), case);
        // A stable sort: HTTP/2 wants the pseudo-header fields first.
        headers.sort_by_key(|(name, _)| !name.starts_with(':'));
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| (texts.expand(name), texts.expand(value))).collect();
        if let Some(filler) = case.filler {
            let line = |number| (format!("X-Filler-{number}").into(), vec![b'x'; filler.length]);
            headers.extend((0..filler.lines).map(line));
        }

        let mut bytes = texts.expand(case.start.as_deref().unwrap_or("GET {path} HTTP/1.1"));
        bytes.extend(b"\r\n");
        for (name, value) in &headers {
            bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(after);
        if case.bare_lf {
            bytes.retain(|byte| *byte != b'\r');
        }
        Self { headers, bytes }
    }

    /// Returns all values of a header field, as one list.
    pub(crate) fn value(&self, name: &str) -> String {
        let lines =
            self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        lines.map(|(_, value)| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(", ")
    }

    /// Whether it is a CONNECT, to which a 2xx opens a tunnel.
    pub(crate) fn is_connect(&self) -> bool {
        self.value(":method") == "CONNECT"
    }

    /// For people: control characters and other bytes are escaped.
    pub(crate) fn display(&self, http2: bool) -> String {
        if http2 {
            let line = |(name, value): &(Vec<u8>, Vec<u8>)| {
                format!("{}: {}\n", name.escape_ascii(), value.escape_ascii())
            };
            self.headers.iter().map(line).collect()
        } else {
            display(&self.bytes)
        }
    }
}

/// Escapes bytes for people, with a new line after each LF, and cuts them.
pub(crate) fn display(bytes: &[u8]) -> String {
    const MAX: usize = 2048;
    let shown = bytes.get(..MAX).unwrap_or(bytes).escape_ascii().to_string();
    let mut shown = shown.replace("\\n", "\\n\n").replace("\\r\\n\n", "\n");
    if bytes.len() > MAX {
        shown += &format!("… ({} bytes)", bytes.len());
    }
    shown
}

/// The header fields of a well-formed handshake.
fn plain(http2: bool, target: &Target) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = if http2 {
        [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "{scheme}"),
            (":path", "{path}"),
            (":authority", "{host}"),
            ("sec-websocket-version", "13"),
        ]
    } else {
        [
            ("Host", "{host}"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "{key}"),
            ("Sec-WebSocket-Version", "13"),
            ("User-Agent", concat!("ws-handshake-suite/", env!("CARGO_PKG_VERSION"))),
        ]
    }
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let case = |name: &str| if http2 { name.to_ascii_lowercase() } else { name.to_owned() };
    if target.origin.is_some() {
        headers.push((case("Origin"), "{origin}".into()));
    }
    if target.token.is_some() {
        headers.push((case("Authorization"), "Bearer {token}".into()));
    }
    // By number, because what the user writes has no placeholders.
    let own = target.headers.iter().enumerate();
    headers.extend(own.map(|(number, (name, _))| (case(name), format!("{{header-{number}}}"))));
    headers
}

/// Replaces header fields in their places, and appends those that are new.
fn edited(headers: Vec<(String, String)>, case: &Case) -> Vec<(String, String)> {
    let mut edits = case.headers.clone();
    let mut edited = Vec::new();
    for (name, value) in headers {
        match edits.remove(&name) {
            Some(values) => {
                edited.extend(values.lines().iter().map(|value| (name.clone(), value.clone())));
            }
            None => edited.push((name, value)),
        }
    }
    for (name, values) in &edits {
        edited.extend(values.lines().iter().map(|value| (name.clone(), value.clone())));
    }
    edited
}

/// What stands for the placeholders.
struct Texts<'a> {
    case: &'a Case,
    target: &'a Target,
    length: usize,
}

impl Texts<'_> {
    /// Replaces placeholders. A line break is CRLF, and every character is one byte.
    fn expand(&self, text: &str) -> Vec<u8> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            expanded += &before.replace('\n', "\r\n");
            expanded += &self.text(name);
            rest = after;
        }
        expanded += &rest.replace('\n', "\r\n");
        // Latin-1: the suite's texts have no other characters, and `Target` is ASCII.
        expanded.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect()
    }

    fn text(&self, name: &str) -> String {
        let target = self.target;
        let subprotocol = target.subprotocol.as_deref().unwrap_or_default();
        match name {
            "path" => target.path.clone(),
            "host" => target.authority.clone(),
            "scheme" => target.scheme().into(),
            "key" => key(&self.case.id),
            "origin" => match &target.origin {
                Some(origin) => origin.clone(),
                None => format!("{}://{}", target.scheme(), target.authority),
            },
            "hostile-origin" => target.hostile_origin.clone().unwrap_or_default(),
            "token" => target.token.clone().unwrap_or_default(),
            "subprotocol" => subprotocol.into(),
            "SUBPROTOCOL" => other_case(subprotocol),
            "length" => self.length.to_string(),
            "ping" => {
                frame::client(frame::PING, frame::PAYLOAD).into_iter().map(char::from).collect()
            }
            "cr" => "\r".into(),
            "crlf" => "\r\n".into(),
            _ => self.numbered(name).unwrap_or_else(|| {
                unreachable!("{{{name}}} in case {} stands for nothing", self.case.id)
            }),
        }
    }

    fn numbered(&self, name: &str) -> Option<String> {
        if let Some(count) = name.strip_prefix("x*") {
            return Some("x".repeat(count.parse().ok()?));
        }
        let number: usize = name.strip_prefix("header-")?.parse().ok()?;
        Some(self.target.headers.get(number)?.1.clone())
    }
}

/// A key of its own for each case, so that no response to it can be prepared.
fn key(id: &str) -> String {
    BASE64_STANDARD.encode(&Sha1::digest(id)[..16])
}

/// The value of `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept(key: &str) -> String {
    BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

/// The same word in other letters.
fn other_case(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    if upper == word { word.to_ascii_lowercase() } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::cases;

    fn request(id: &str) -> Request {
        let cases = cases();
        let case = cases.iter().find(|case| case.id == id).unwrap();
        Request::new(case, &Target::new("ws://a.example:3000/ws").unwrap())
    }

    #[test]
    fn every_case_can_be_written() {
        let mut target = Target::new("ws://a.example/ws").unwrap();
        target.origin = Some("https://a.example".into());
        for case in cases() {
            let request = Request::new(&case, &target);
            assert!(
                case.http2 || request.bytes.windows(2).any(|end| end == b"\n\r" || end == b"\n\n")
            );
        }
    }

    #[test]
    fn a_line_is_replaced_in_its_place() {
        let text = String::from_utf8(request("connection.lines").bytes).unwrap();
        assert!(
            text.starts_with(
                "GET /ws HTTP/1.1\r\nHost: a.example:3000\r\nUpgrade: websocket\r\n\
                 Connection: keep-alive\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
            ),
            "{text}"
        );
    }

    #[test]
    fn braces_of_the_user_are_no_placeholders() {
        let mut target = Target::new("ws://a.example/{path}").unwrap();
        target.headers = vec![("X-Own".into(), "{key} {nothing}".into())];
        let case = cases().into_iter().find(|case| case.id == "response.accept").unwrap();
        let text = String::from_utf8(Request::new(&case, &target).bytes).unwrap();
        assert!(text.starts_with("GET /{path} HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("\r\nX-Own: {key} {nothing}\r\n"), "{text}");
    }

    #[test]
    fn length_is_that_of_the_body() {
        let text = String::from_utf8_lossy(&request("body.read-as-frames").bytes).into_owned();
        assert!(text.contains("Content-Length: 8\r\n"), "{text}");
    }

    #[test]
    fn pseudo_header_fields_come_first() {
        let headers = request("http2.connection").headers;
        let regular = headers.iter().position(|(name, _)| !name.starts_with(b":")).unwrap();
        assert!(headers[regular..].iter().all(|(name, _)| !name.starts_with(b":")));
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
