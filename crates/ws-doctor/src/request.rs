//! The request: the headers of a browser, with what the options add.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use clap::ValueEnum;
use http::{Request, Version};

use crate::target::Target;

/// Whose headers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Chrome, Edge, Opera.
    Chrome,
    /// Firefox: `Connection: keep-alive, Upgrade`.
    Firefox,
    /// No more than RFC 6455 requires, and no Origin unless it is given.
    Bare,
}

/// The part of the request that carries the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenIn {
    /// `Authorization: Bearer TOKEN`.
    Authorization,
    /// `Authorization: Basic`, of `USER:PASSWORD`.
    Basic,
    /// `NAME: TOKEN`.
    Header(String),
    /// `Cookie: NAME=TOKEN`.
    Cookie(String),
    /// `?NAME=TOKEN`.
    Query(String),
    /// A subprotocol: the prefix and the token.
    Subprotocol(String),
    /// A subprotocol, as the API server of Kubernetes reads it.
    Kubernetes,
    /// A subprotocol, as Phoenix reads it.
    Phoenix,
    /// Two subprotocols: the marker and the token.
    Pair(String),
}

impl TokenIn {
    /// Parses the value of `--token-in`.
    ///
    /// # Errors
    ///
    /// The forms that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let source = match text.split_once(':') {
            None => match text {
                "authorization" => Self::Authorization,
                "basic" => Self::Basic,
                "kubernetes" => Self::Kubernetes,
                "phoenix" => Self::Phoenix,
                _ => return Err(TOKEN_IN.into()),
            },
            Some((_, "")) => return Err(TOKEN_IN.into()),
            Some((kind, name)) => {
                let name = name.to_owned();
                match kind {
                    "header" => Self::Header(name),
                    "cookie" => Self::Cookie(name),
                    "query" => Self::Query(name),
                    "subprotocol" => Self::Subprotocol(name),
                    "pair" => Self::Pair(name),
                    _ => return Err(TOKEN_IN.into()),
                }
            }
        };
        let is_token = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
        match &source {
            Self::Header(name)
            | Self::Cookie(name)
            | Self::Subprotocol(name)
            | Self::Pair(name)
                if !is_token(name) =>
            {
                Err("the name has characters that a header cannot carry there".into())
            }
            _ => Ok(source),
        }
    }
}

const TOKEN_IN: &str = "use authorization, basic, header:NAME, cookie:NAME, query:NAME, \
                        subprotocol:PREFIX, kubernetes, phoenix or pair:MARKER";

/// RFC 9110 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) target: Target,
    pub(crate) http2: bool,
    pub(crate) agent: Option<String>,
    pub(crate) cookies: Vec<String>,
    /// `USER:PASSWORD`.
    pub(crate) basic: Option<String>,
    pub(crate) token: Option<(String, TokenIn)>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) version: u8,
    /// `None`: the header is removed.
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) key: String,
}

/// In what a request differs from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub(crate) style: Style,
    pub(crate) origin: Option<String>,
    /// Whether it asks for an upgrade.
    pub(crate) upgrade: bool,
    /// Whether `Connection` is a list, as in Firefox.
    pub(crate) connection_list: bool,
}

impl Plan {
    /// The request target, and the headers in the order in which they are sent.
    pub(crate) fn request(&self, variant: &Variant) -> (String, Vec<(String, String)>) {
        let mut target = self.target.clone();
        let mut subprotocols = self.subprotocols.clone();
        let mut cookies = self.cookies.clone();
        let mut added = Vec::new();
        if let Some(basic) = &self.basic {
            added.push(("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(basic))));
        }
        if let Some((token, source)) = &self.token {
            match source {
                TokenIn::Authorization => {
                    added.push(("Authorization".into(), format!("Bearer {token}")));
                }
                TokenIn::Basic => {
                    added.push((
                        "Authorization".into(),
                        format!("Basic {}", STANDARD.encode(token)),
                    ));
                }
                TokenIn::Header(name) => added.push((name.clone(), token.clone())),
                TokenIn::Cookie(name) => cookies.push(format!("{name}={token}")),
                TokenIn::Query(name) => target.add_to_query(name, token),
                TokenIn::Subprotocol(prefix) => subprotocols.push(format!("{prefix}{token}")),
                TokenIn::Kubernetes => subprotocols.push(format!(
                    "base64url.bearer.authorization.k8s.io.{}",
                    URL_SAFE_NO_PAD.encode(token)
                )),
                TokenIn::Phoenix => subprotocols
                    .push(format!("base64url.bearer.phx.{}", STANDARD_NO_PAD.encode(token))),
                TokenIn::Pair(marker) => subprotocols.extend([marker.clone(), token.clone()]),
            }
        }
        let of_variant = |name: &str| match name {
            "Host" => Some(self.target.authority()),
            "Connection" if !variant.upgrade => Some("close".into()),
            "Connection" if variant.connection_list => Some("keep-alive, Upgrade".into()),
            "Connection" => Some("Upgrade".into()),
            "Upgrade" => variant.upgrade.then(|| "websocket".into()),
            "Origin" => variant.origin.clone(),
            "User-Agent" => self.agent.clone().or_else(|| Some(agent(variant.style).into())),
            "Sec-WebSocket-Key" => Some(self.key.clone()),
            "Sec-WebSocket-Version" => Some(self.version.to_string()),
            "Sec-WebSocket-Protocol" => (!subprotocols.is_empty()).then(|| subprotocols.join(", ")),
            "Cookie" => (!cookies.is_empty()).then(|| cookies.join("; ")),
            // Browsers offer the other two over TLS only.
            "Accept-Encoding" if self.target.tls() => Some("gzip, deflate, br, zstd".into()),
            "Accept-Encoding" => Some("gzip, deflate".into()),
            _ => None,
        };
        let mut headers = Vec::new();
        for (name, value) in names(variant.style) {
            if let Some(value) = value.map(str::to_owned).or_else(|| of_variant(name)) {
                headers.push(((*name).to_owned(), value));
            }
        }
        headers.extend(added);
        for (name, value) in &self.headers {
            if !variant.upgrade && ["upgrade", "connection"].contains(&&*name.to_ascii_lowercase())
            {
                continue;
            }
            let given_before = |(other, given): &(String, Option<String>)| {
                other.eq_ignore_ascii_case(name) && given.is_some()
            };
            let repeats = self.headers.iter().filter(|header| given_before(header)).count() > 1;
            match (headers.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)), value) {
                (Some(header), Some(value)) if !repeats => header.1.clone_from(value),
                (_, Some(value)) => headers.push((name.clone(), value.clone())),
                (_, None) => headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name)),
            }
        }
        (target.path(), headers)
    }

    /// The head as it is sent over HTTP/1.1.
    pub(crate) fn head(&self, variant: &Variant) -> String {
        let (target, headers) = self.request(variant);
        let headers: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET {target} HTTP/1.1\r\n{headers}\r\n")
    }

    /// For the check of the response. What cannot be represented is left out.
    pub(crate) fn to_request(&self, variant: &Variant) -> Request<()> {
        let (_, headers) = self.request(variant);
        let mut request = Request::new(());
        *request.version_mut() = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                request.headers_mut().append(name, value);
            }
        }
        request
    }
}

fn agent(style: Style) -> &'static str {
    match style {
        Style::Chrome => {
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/156.0.0.0 Safari/537.36"
        }
        Style::Firefox => "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
        Style::Bare => concat!("ws-doctor/", env!("CARGO_PKG_VERSION")),
    }
}

/// The headers in the order of the browser; those without a value depend on the request.
fn names(style: Style) -> &'static [(&'static str, Option<&'static str>)] {
    match style {
        Style::Chrome => &[
            ("Host", None),
            ("Connection", None),
            ("Pragma", Some("no-cache")),
            ("Cache-Control", Some("no-cache")),
            ("User-Agent", None),
            ("Upgrade", None),
            ("Origin", None),
            ("Sec-WebSocket-Version", None),
            ("Accept-Encoding", None),
            ("Accept-Language", Some("en-US,en;q=0.9")),
            ("Cookie", None),
            ("Sec-WebSocket-Key", None),
            ("Sec-WebSocket-Extensions", Some("permessage-deflate; client_max_window_bits")),
            ("Sec-WebSocket-Protocol", None),
        ],
        Style::Firefox => &[
            ("Host", None),
            ("User-Agent", None),
            ("Accept", Some("*/*")),
            ("Accept-Language", Some("en-US,en;q=0.5")),
            ("Accept-Encoding", None),
            ("Sec-WebSocket-Version", None),
            ("Origin", None),
            ("Sec-WebSocket-Protocol", None),
            ("Sec-WebSocket-Extensions", Some("permessage-deflate")),
            ("Sec-WebSocket-Key", None),
            ("Connection", None),
            ("Cookie", None),
            ("Sec-Fetch-Dest", Some("empty")),
            ("Sec-Fetch-Mode", Some("websocket")),
            ("Pragma", Some("no-cache")),
            ("Cache-Control", Some("no-cache")),
            ("Upgrade", None),
        ],
        Style::Bare => &[
            ("Host", None),
            ("User-Agent", None),
            ("Upgrade", None),
            ("Connection", None),
            ("Origin", None),
            ("Sec-WebSocket-Key", None),
            ("Sec-WebSocket-Version", None),
            ("Sec-WebSocket-Protocol", None),
            ("Cookie", None),
        ],
    }
}

/// A new key (RFC 6455 4.1).
pub(crate) fn new_key() -> String {
    let mut key = [0; 16];
    getrandom::fill(&mut key).expect("the system has random bytes");
    STANDARD.encode(key)
}
