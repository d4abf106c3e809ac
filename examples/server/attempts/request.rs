//! The text of a handshake.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use tower_ws_guard::TokenSource;

use super::list::{Attempt, Credential, Header, Version};

/// Where the right credential is sent, and what the page shows in its place.
const CREDENTIAL: &str = "{credential}";
const MASK: &str = "********";

/// No store has it.
const UNKNOWN_TICKET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

const HEADERS: &[Header] = &[
    ("Host", &["{host}"]),
    ("Upgrade", &["websocket"]),
    ("Connection", &["Upgrade"]),
    // A real client sends a fresh one each time. This is the example of RFC 6455 1.3.
    ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
    ("Sec-WebSocket-Version", &["13"]),
    ("Sec-WebSocket-Protocol", &["{subprotocols}"]),
    ("Sec-WebSocket-Extensions", &[]),
    ("Origin", &["{origin}"]),
    ("Content-Length", &[]),
];

/// Over HTTP/2 the first is `:authority`, and the others do not exist (RFC 8441 5).
const HTTP1_ONLY: &[&str] = &["Host", "Upgrade", "Connection", "Sec-WebSocket-Key"];

/// What a handshake must send for this server to accept it.
pub(super) struct Valid {
    pub(super) scheme: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) origin: String,
    /// Whether a client may send the origin.
    pub(super) browsers: bool,
    /// A subprotocol that the server supports.
    pub(super) subprotocol: Option<String>,
    /// A source of tokens, and a token that the server accepts.
    pub(super) token: Option<(TokenSource, String)>,
}

#[derive(Default)]
pub(super) struct Request {
    pub(super) text: String,
    /// The same without the credential.
    pub(super) shown: String,
    /// The lines that differ from the valid handshake, from 0.
    pub(super) changed: Vec<usize>,
    /// The parts of the valid handshake that this one lacks.
    pub(super) left_out: Vec<String>,
}

impl Valid {
    pub(super) fn request(&self, attempt: &Attempt) -> Request {
        let mut request = Request::default();
        let is_http2 = attempt.version == Version::Http2;
        let is_other_credential = attempt.credential != Credential::Right;
        let carried = self.carried(attempt.credential);

        let target = match &*carried.query.join("&") {
            "" => "/ws".to_owned(),
            query => format!("/ws?{query}"),
        };
        let mut lines = match attempt.version {
            Version::Http10 => vec![format!("{} {target} HTTP/1.0", attempt.method)],
            Version::Http11 => vec![format!("{} {target} HTTP/1.1", attempt.method)],
            Version::Http2 => vec![
                ":method: CONNECT".to_owned(),
                ":protocol: websocket".to_owned(),
                format!(":scheme: {}", self.scheme),
                format!(":path: {target}"),
                format!(":authority: {}", self.host),
            ],
        };
        if is_http2 {
            request.changed.extend(0..2);
        } else if (attempt.method, attempt.version) != ("GET", Version::Http11)
            || (is_other_credential && !carried.query.is_empty())
        {
            request.changed.push(0);
        }

        for &(name, valid) in HEADERS {
            let change = attempt.headers.iter().find(|(header, _)| *header == name);
            let is_absent = match name {
                "Origin" => !self.browsers && change.is_none(),
                _ => is_http2 && HTTP1_ONLY.contains(&name),
            };
            if is_absent {
                continue;
            }
            let values = change.map_or(valid, |(_, values)| values);
            if values.is_empty() && !valid.is_empty() {
                request.left_out.push(name.to_owned());
            }
            for value in values.iter().filter_map(|value| self.fill(value, &carried.subprotocols)) {
                let carries_other = is_other_credential && carried.is_in_subprotocols(&value);
                if change.is_some() || carries_other {
                    request.changed.push(lines.len());
                }
                lines.push(header_line(is_http2, name, &value));
            }
        }
        for (name, value) in &carried.headers {
            if is_other_credential {
                request.changed.push(lines.len());
            }
            lines.push(header_line(is_http2, name, value));
        }
        if let (Some((source, _)), Credential::None) = (&self.token, attempt.credential) {
            request.left_out.push(format!("the token ({source})"));
        }

        let end = if is_http2 { "" } else { "\r\n\r\n" };
        let text = lines.join("\r\n") + end + attempt.body;
        let credential = self.token.as_ref().map(|(source, token)| encode(source, token));
        request.text = text.replace(CREDENTIAL, credential.as_deref().unwrap_or_default());
        request.shown = text.replace(CREDENTIAL, MASK);
        request
    }

    fn carried(&self, credential: Credential) -> Carried {
        let mut carried = Carried::default();
        carried.subprotocols.extend(self.subprotocol.clone());
        if credential == Credential::UnknownTicket {
            carried.query.push(format!("ticket={UNKNOWN_TICKET}"));
        }
        let Some((source, _)) = &self.token else { return carried };
        if matches!(credential, Credential::Right | Credential::RightAndWrong) {
            carried.add(source, CREDENTIAL);
        }
        if matches!(credential, Credential::Wrong | Credential::RightAndWrong) {
            let is_basic = *source == TokenSource::basic();
            let unknown = if is_basic { "wrong:password" } else { "wrong-token" };
            carried.add(source, &encode(source, unknown));
        }
        carried
    }

    /// `None` if the template names something that the server does not have.
    fn fill(&self, template: &str, subprotocols: &[String]) -> Option<String> {
        if template == "{subprotocols}" {
            return (!subprotocols.is_empty()).then(|| subprotocols.join(", "));
        }
        let filled = template
            .replace("{host}", &self.host)
            .replace("{origin}", &self.origin)
            .replace("{port}", &self.port.to_string());
        Some(filled)
    }
}

/// The parts of a request that carry credentials.
#[derive(Default)]
struct Carried {
    query: Vec<String>,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

impl Carried {
    /// Adds a credential that is [encoded](encode).
    fn add(&mut self, source: &TokenSource, value: &str) {
        let source = source.to_string();
        let (kind, name) = source.split_once(':').unwrap_or((&*source, ""));
        let mut header = |name: &str, value| self.headers.push((name.to_owned(), value));
        match kind {
            "authorization" => header("Authorization", format!("Bearer {value}")),
            "basic" => header("Authorization", format!("Basic {value}")),
            "header" => match name.split_once(':') {
                Some((name, scheme)) => header(name, format!("{scheme} {value}")),
                None => header(name, value.to_owned()),
            },
            "cookie" => header("Cookie", format!("{name}={value}")),
            "query" => self.query.push(format!("{name}={value}")),
            "kubernetes" => {
                self.subprotocols.push(format!("base64url.bearer.authorization.k8s.io.{value}"));
            }
            "phoenix" => self.subprotocols.push(format!("base64url.bearer.phx.{value}")),
            "pair" => self.subprotocols.extend([name.to_owned(), value.to_owned()]),
            // `subprotocol` and `subprotocol-base64`.
            _ => self.subprotocols.push(format!("{name}{value}")),
        }
    }

    fn is_in_subprotocols(&self, value: &str) -> bool {
        self.subprotocols.len() > 1 && self.subprotocols.join(", ") == value
    }
}

fn encode(source: &TokenSource, token: &str) -> String {
    let source = source.to_string();
    match source.split_once(':').map_or(&*source, |(kind, _)| kind) {
        "basic" => STANDARD.encode(token),
        "phoenix" => STANDARD_NO_PAD.encode(token),
        "kubernetes" | "subprotocol-base64" => URL_SAFE_NO_PAD.encode(token),
        "query" => token.bytes().fold(String::new(), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    encoded.push(byte.into());
                }
                _ => write!(encoded, "%{byte:02X}").expect("a string can be written to"),
            }
            encoded
        }),
        _ => token.to_owned(),
    }
}

fn header_line(is_http2: bool, name: &str, value: &str) -> String {
    if is_http2 {
        format!("{}: {value}", name.to_ascii_lowercase())
    } else {
        format!("{name}: {value}")
    }
}
