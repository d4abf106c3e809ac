//! The client's side: what a server's answer must be for a client to take it (RFC 6455 4.1, RFC 8441), for tests of your own.
//!
//! [`ClientHandshake`] remembers what a request asks for, and [`verify`](ClientHandshake::verify) judges the answer as a browser
//! would, and says of a wrong one all that is wrong with it. A client gives its user nothing but "it failed"; a [`Finding`] has
//! a stable `code`, the cause in plain words and a fix. The example `doctor` does the same over the network.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower_ws_guard::{ClientHandshake, FindingKind};
//!
//! let request = Request::get("/ws")
//!     .header("host", "server.example.com")
//!     .header("upgrade", "websocket")
//!     .header("connection", "upgrade")
//!     .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!     .header("sec-websocket-version", "13")
//!     .header("sec-websocket-protocol", "chat, superchat")
//!     .body(())
//!     .unwrap();
//! let handshake = ClientHandshake::new(&request);
//!
//! let answer = |accept: &str| {
//!     Response::builder()
//!         .status(StatusCode::SWITCHING_PROTOCOLS)
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-accept", accept)
//!         .header("sec-websocket-protocol", "superchat")
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = handshake.verify(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")).unwrap();
//! assert_eq!(accepted.subprotocol(), Some("superchat"));
//!
//! // Over the GUID in lower case.
//! let findings = handshake.verify(&answer("WJfwerbIozKsJXHxxI0JTO1SQgU=")).unwrap_err();
//! assert_eq!(findings.as_slice()[0].kind(), FindingKind::AcceptWrong);
//! assert!(findings.to_string().contains("lower case"));
//! ```

use std::{error::Error, fmt};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_TYPE, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SERVER, UPGRADE, VIA, WWW_AUTHENTICATE,
    },
};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::{
    handshake::{Transport, accept_key, elements, has_element, subprotocols, trim},
    rejection::Shown,
};

/// What a client asked for, by which the answer is judged.
///
/// The request itself is not judged: that is the server's part.
#[derive(Clone)]
pub struct ClientHandshake {
    transport: Transport,
    key: Option<[u8; 24]>,
    versions: Vec<HeaderValue>,
    subprotocols: Vec<String>,
    extensions: Vec<Vec<u8>>,
}

impl ClientHandshake {
    /// Remembers what `request` asks for. Its version says whether RFC 6455 applies to the answer or, for HTTP/2 and newer,
    /// RFC 8441.
    #[must_use]
    pub fn new<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        Self {
            transport: Transport::of(request.version()),
            key: headers.get(SEC_WEBSOCKET_KEY).and_then(|key| trim(key.as_bytes()).try_into().ok()),
            versions: headers.get_all(SEC_WEBSOCKET_VERSION).iter().cloned().collect(),
            subprotocols: subprotocols(headers).map(str::to_owned).collect(),
            extensions: extensions.flat_map(elements).map(|element| extension_name(element).to_owned()).collect(),
        }
    }

    /// Whether the answer completes the handshake.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with an answer that claims to accept, or why it refuses.
    pub fn verify<B>(&self, response: &Response<B>) -> Result<Accepted, Findings> {
        let headers = response.headers();
        let findings = match (self.transport, response.status()) {
            (Transport::Http1, StatusCode::SWITCHING_PROTOCOLS) => {
                let mut findings = self.check_switch(headers);
                self.check_choice(headers, &mut findings);
                findings
            }
            // RFC 9110 9.3.6 allows any 2xx; browsers take 200 alone.
            (Transport::ExtendedConnect, StatusCode::OK) => {
                let mut findings = check_no_switch(headers);
                self.check_choice(headers, &mut findings);
                findings
            }
            (_, status) => vec![self.refusal(status, headers)],
        };
        if !findings.is_empty() {
            return Err(Findings(findings));
        }
        let extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().flat_map(elements);
        Ok(Accepted {
            subprotocol: subprotocols(headers).next().map(str::to_owned),
            extensions: extensions.map(|element| String::from_utf8_lossy(element).into_owned()).collect(),
        })
    }

    /// RFC 6455 4.1, the client's requirements 2 to 4.
    fn check_switch(&self, headers: &HeaderMap) -> Vec<Finding> {
        use FindingKind as Kind;

        let mut findings = Vec::new();
        findings.extend(repeated(headers, &UPGRADE));
        let upgrade = headers.get(UPGRADE);
        if !upgrade.is_some_and(|value| trim(value.as_bytes()).eq_ignore_ascii_case(b"websocket")) {
            findings.push(Finding::new(Kind::UpgradeWrong).with_value(upgrade));
        }
        if !headers.get_all(CONNECTION).iter().any(|value| has_element(value, b"upgrade")) {
            findings.push(Finding::new(Kind::ConnectionWrong).with_value(headers.get(CONNECTION)));
        }
        findings.extend(repeated(headers, &SEC_WEBSOCKET_ACCEPT));
        match headers.get(SEC_WEBSOCKET_ACCEPT) {
            None => findings.push(Kind::AcceptMissing.into()),
            Some(value) => {
                let accept = trim(value.as_bytes());
                let detail = match self.key {
                    Some(key) if accept == accept_key(&key) => return findings,
                    Some(key) => mistake(&key, accept),
                    None => Some(NO_KEY),
                };
                findings.push(Finding::new(Kind::AcceptWrong).with_detail(detail).with_value(Some(value)));
            }
        }
        findings
    }

    /// RFC 6455 4.1, the client's requirements 5 and 6.
    fn check_choice(&self, headers: &HeaderMap, findings: &mut Vec<Finding>) {
        use FindingKind as Kind;

        findings.extend(repeated(headers, &SEC_WEBSOCKET_PROTOCOL));
        let chosen = headers.get(SEC_WEBSOCKET_PROTOCOL);
        match chosen.map(|value| trim(value.as_bytes())) {
            // RFC 6455 allows it; the WebSockets Standard of the browsers does not.
            None | Some(b"") if !self.subprotocols.is_empty() => findings.push(Kind::SubprotocolNotEchoed.into()),
            None => {}
            Some(chosen) if self.subprotocols.iter().any(|offered| offered.as_bytes() == chosen) => {}
            Some(_) => findings.push(Finding::new(Kind::SubprotocolNotOffered).with_value(chosen)),
        }

        findings.extend(repeated(headers, &SEC_WEBSOCKET_EXTENSIONS));
        for extension in headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().flat_map(elements) {
            if !self.extensions.iter().any(|offered| offered == extension_name(extension)) {
                findings.push(Finding::new(Kind::ExtensionNotOffered).with_value(Some(extension)));
            }
        }
    }

    /// Why an answer of any other status refuses.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Finding {
        use FindingKind as Kind;

        // An intermediary puts its name on the refusals of the server behind it too, but sends no problem of its own.
        let is_problem = headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"application/problem+json"));
        let intermediary = intermediary(headers).filter(|_| !is_problem);
        match status {
            StatusCode::UNAUTHORIZED => Finding::new(Kind::Unauthorized).with_value(headers.get(WWW_AUTHENTICATE)),
            StatusCode::FORBIDDEN | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT if intermediary.is_some() => {
                Finding::new(Kind::RefusedByIntermediary).with_value(intermediary)
            }
            StatusCode::FORBIDDEN => Kind::Forbidden.into(),
            StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST if self.refuses_version(headers) => {
                Finding::new(Kind::VersionRefused).with_value(headers.get(SEC_WEBSOCKET_VERSION))
            }
            StatusCode::UPGRADE_REQUIRED => Kind::UpgradeStripped.into(),
            StatusCode::NOT_FOUND => Kind::NotFound.into(),
            StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited.into(),
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable.into(),
            _ if status.is_redirection() => Finding::new(Kind::Redirected).with_value(headers.get(LOCATION)),
            StatusCode::OK => Kind::UpgradeStripped.into(),
            _ => Finding::new(Kind::Refused).with_value(Some(status.to_string())),
        }
    }

    /// RFC 6455 4.4. Some servers name their versions in every refusal, so the list counts only if it lacks the client's.
    fn refuses_version(&self, headers: &HeaderMap) -> bool {
        let mut supported = headers.get_all(SEC_WEBSOCKET_VERSION).iter().flat_map(elements).peekable();
        let asked = |version: &[u8]| self.versions.iter().any(|asked| trim(asked.as_bytes()) == version);
        supported.peek().is_some() && !supported.any(asked)
    }
}

/// Without subprotocols, which may carry a token.
impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// `Upgrade` and `Connection` are malformed there (RFC 9113 8.2.2). An accept is not looked at (RFC 8441 5).
fn check_no_switch(headers: &HeaderMap) -> Vec<Finding> {
    use FindingKind as Kind;

    let forbidden = [(UPGRADE, Kind::UpgradeWrong), (CONNECTION, Kind::ConnectionWrong)];
    let found = forbidden.into_iter().filter_map(|(name, kind)| Some((kind, headers.get(name)?)));
    found.map(|(kind, value)| Finding::new(kind).with_detail(Some(NOT_OVER_HTTP2)).with_value(Some(value))).collect()
}

/// RFC 6455 11.3: once in a response.
fn repeated(headers: &HeaderMap, name: &HeaderName) -> Option<Finding> {
    headers.get_all(name).iter().nth(1)?;
    Some(Finding::new(FindingKind::HeaderRepeated).with_value(Some(name.as_str())))
}

fn extension_name(element: &[u8]) -> &[u8] {
    trim(element.split(|&byte| byte == b';').next().unwrap_or_default())
}

/// The line of `Via` or `Server` in which a known proxy or CDN names itself.
fn intermediary(headers: &HeaderMap) -> Option<&HeaderValue> {
    const KNOWN: [&str; 19] = [
        "akamai",
        "apache traffic server",
        "awselb",
        "caddy",
        "cloudflare",
        "cloudfront",
        "ddos-guard",
        "envoy",
        "fastly",
        "google frontend",
        "haproxy",
        "imperva",
        "microsoft-azure-application-gateway",
        "nginx",
        "openresty",
        "squid",
        "traefik",
        "varnish",
        "vegur",
    ];
    let lines = headers.get_all(VIA).iter().chain(headers.get_all(SERVER));
    lines.into_iter().find(|line| {
        let line = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        KNOWN.iter().any(|known| line.contains(known))
    })
}

const NO_KEY: &str = "the request has no key of 24 characters, so no answer to it can be right";
const NOT_OVER_HTTP2: &str = "over HTTP/2 and newer there is none";
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Ends of the GUID behind `258EAFA5-E914-47DA-95CA-` that published servers were found to have.
const WRONG_ENDS: [&str; 15] = [
    "5AB0DC85B11",
    "5AB0DC85B111",
    "5AB0DC85B11D",
    "5AB0DC85B11F",
    "5AB53ADF711E",
    "5AB53ADF711E2",
    "5AB5DC085B11",
    "5AB5DC11B5A6",
    "5AB5DC11BE85",
    "5AB5DC85B11",
    "5AB9DC11B5AB",
    "5AB9DC85B11D",
    "C5AB5DC11B5A6",
    "C5AB5DC8500B",
    "C5AB5DC85B11",
];

/// How a wrong accept came about, where that can be shown.
fn mistake(key: &[u8; 24], accept: &[u8]) -> Option<&'static str> {
    let sha1 = |parts: &[&[u8]]| Sha1::digest(parts.concat());
    let over = |parts: &[&[u8]]| STANDARD.encode(sha1(parts)).into_bytes() == accept;
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let guid = GUID.as_bytes();
    let digest = sha1(&[key, guid]);
    let over_bytes = |bytes: Vec<u8>| over(&[&bytes, guid]);
    let over_wrong_guid = |end: &&str| over(&[key, &guid[..24], end.as_bytes()]);
    let right = accept_key(key);

    #[rustfmt::skip]
    let mistakes: [(bool, &str); 16] = [
        (accept == key, "it is the key itself"),
        (accept == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "it is the answer to the key that RFC 6455 has for an example: fixed, and not computed"),
        (accept.eq_ignore_ascii_case(&right), "somebody changed the case of its letters"),
        (accept == STANDARD_NO_PAD.encode(digest).as_bytes(), "the padding `=` is missing"),
        (accept == URL_SAFE.encode(digest).as_bytes(), "it is in the base64 alphabet for URLs"),
        (accept.eq_ignore_ascii_case(hex(&digest).as_bytes()), "the hash is in hexadecimal and not in base64"),
        (accept == STANDARD.encode(hex(&digest)).as_bytes(), "base64 was made of the hexadecimal hash and not of its 20 bytes"),
        (accept == STANDARD.encode(Sha256::digest([key, guid].concat())).as_bytes(), "the hash is SHA-256 and not SHA-1"),
        (over(&[key, GUID.to_ascii_lowercase().as_bytes()]), "it was computed over the GUID in lower case"),
        (WRONG_ENDS.iter().any(over_wrong_guid), "it was computed over a misspelt GUID"),
        (over(&[key]), "it was computed over the key without the GUID"),
        (over(&[guid, key]), "it was computed over the GUID in front of the key and not behind it"),
        (STANDARD.decode(key).is_ok_and(over_bytes), "it was computed over the bytes of the key decoded from base64, and not over its characters"),
        (over(&[b" ", key, guid]) || over(&[key, b" ", guid]), "it was computed over the key with white space"),
        (over(&[key, b"\n", guid]) || over(&[key, b"\r\n", guid]) || over(&[key, b"\r", guid]), "it was computed over the key with the end of its line"),
        (over(&[key, guid, b"\n"]) || over(&[key, guid, b"\r\n"]) || over(&[key, guid, b"\0"]), "it was computed over the GUID with a line end or a NUL behind it"),
    ];
    mistakes.into_iter().find(|(applies, _)| *applies).map(|(_, mistake)| mistake)
}

/// The answer completes the handshake: what the two sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    subprotocol: Option<String>,
    extensions: Vec<String>,
}

impl Accepted {
    /// The subprotocol, if the client offered some and the server chose one.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The extensions with their parameters, in the server's order.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(|extension| &**extension)
    }
}

/// What is wrong with an answer, with a stable [`code`](Self::code).
///
/// First what is wrong with one that claims to accept, then the reasons for which one refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// There is no `Sec-WebSocket-Accept`. RFC 6455 4.1.
    AcceptMissing,
    /// `Sec-WebSocket-Accept` does not answer the key; over HTTP/2, there is one. RFC 6455 4.1, RFC 8441 5.
    AcceptWrong,
    /// `Upgrade` is missing or is not `websocket`; over HTTP/2, there is one. RFC 6455 4.1, RFC 8441 5.
    UpgradeWrong,
    /// `Connection` does not name `upgrade`; over HTTP/2, there is one. RFC 6455 4.1, RFC 8441 5.
    ConnectionWrong,
    /// The server chose a subprotocol that the client did not offer. RFC 6455 4.1.
    SubprotocolNotOffered,
    /// The client offered subprotocols, and the server chose none: RFC 6455 allows that, browsers fail.
    SubprotocolNotEchoed,
    /// The server uses an extension that the client did not offer. RFC 6455 4.1.
    ExtensionNotOffered,
    /// A header that may be there once is repeated. RFC 6455 11.3.
    HeaderRepeated,
    /// 401: no credential, or not a valid one.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 426 or 400, and the server's `Sec-WebSocket-Version` lacks the client's. RFC 6455 4.4.
    VersionRefused,
    /// 404.
    NotFound,
    /// 3xx, which browsers do not follow.
    Redirected,
    /// 429.
    RateLimited,
    /// 503.
    Unavailable,
    /// 200 or 426: the server took the handshake for an ordinary request.
    UpgradeStripped,
    /// 403, 502 or 504 that bears the name of a proxy or a CDN.
    RefusedByIntermediary,
    /// Any other status.
    Refused,
}

impl FindingKind {
    /// Every kind, in the order of the variants.
    pub const ALL: &'static [Self] = &[
        Self::AcceptMissing,
        Self::AcceptWrong,
        Self::UpgradeWrong,
        Self::ConnectionWrong,
        Self::SubprotocolNotOffered,
        Self::SubprotocolNotEchoed,
        Self::ExtensionNotOffered,
        Self::HeaderRepeated,
        Self::Unauthorized,
        Self::Forbidden,
        Self::VersionRefused,
        Self::NotFound,
        Self::Redirected,
        Self::RateLimited,
        Self::Unavailable,
        Self::UpgradeStripped,
        Self::RefusedByIntermediary,
        Self::Refused,
    ];

    /// Code, explanation, fix.
    #[rustfmt::skip]
    const fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::AcceptMissing => ("accept-missing",
                "the server says 101 without `Sec-WebSocket-Accept`",
                "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")); if the server does, look for a proxy that removes it"),
            Self::AcceptWrong => ("accept-wrong",
                "`Sec-WebSocket-Accept` does not answer the key of this request",
                "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")), over the characters of the key as they came; \
                 if the server does, look for a cache or a proxy that answers with another handshake's"),
            Self::UpgradeWrong => ("upgrade-wrong",
                "`Upgrade` of the answer is not what the protocol demands",
                "answer with `Upgrade: websocket` and nothing else in it; over HTTP/2: with none"),
            Self::ConnectionWrong => ("connection-wrong",
                "`Connection` of the answer is not what the protocol demands",
                "answer with `Connection: Upgrade`, and see that a proxy in front keeps it; over HTTP/2: with none"),
            Self::SubprotocolNotOffered => ("subprotocol-not-offered",
                "the server chose a subprotocol that the client did not offer",
                "name one of the offered ones, in the same case, or none; or offer it"),
            Self::SubprotocolNotEchoed => ("subprotocol-not-echoed",
                "the client offered subprotocols and the server named none of them: browsers fail here",
                "answer with the one that the server speaks, or refuse; a client without need of one offers none"),
            Self::ExtensionNotOffered => ("extension-not-offered",
                "the server uses an extension that the client did not offer",
                "leave out of `Sec-WebSocket-Extensions` what the request does not have in it"),
            Self::HeaderRepeated => ("header-repeated",
                "a header that must be there once is there more than once",
                "send it once; look for a proxy or a middleware that adds a second"),
            Self::Unauthorized => ("unauthorized",
                "the server demands a valid credential (401)",
                "send a valid token where this server expects it; scripts in browsers cannot set `Authorization` on a WebSocket"),
            Self::Forbidden => ("forbidden",
                "the server does not allow this (403)",
                "most often `Origin` is not on the server's list: add the page's origin there; else look at the rights of the credential"),
            Self::VersionRefused => ("version-refused",
                "the server does not speak the client's version of the protocol, but those it lists",
                "send `Sec-WebSocket-Version: 13`, the version of RFC 6455"),
            Self::NotFound => ("not-found",
                "there is nothing at this path (404)",
                "check the path of the URL, and the prefix that a proxy in front may add or remove; over HTTP/2 the method is CONNECT: \
                 see that the route takes it"),
            Self::Redirected => ("redirected",
                "the server sends the client elsewhere (3xx), and browsers do not follow that for a WebSocket",
                "connect to where it points to: often `wss:` in place of `ws:`, another host, a trailing slash, or a page to log in"),
            Self::RateLimited => ("rate-limited",
                "there were too many requests (429)",
                "wait as long as `Retry-After` says, and connect again with a delay that grows"),
            Self::Unavailable => ("unavailable",
                "the server cannot take the handshake at the moment (503)",
                "try again later; see that the server behind the proxy or the load balancer runs"),
            Self::UpgradeStripped => ("upgrade-stripped",
                "the server took the handshake for an ordinary request: something in between removed `Upgrade`, or there is no WebSocket \
                 at this path",
                "make the proxy pass it on (nginx: `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade`, `proxy_set_header \
                 Connection upgrade`), and check the path"),
            Self::RefusedByIntermediary => ("refused-by-intermediary",
                "the refusal comes from a proxy or a CDN in front of the server, or through it",
                "look into its log: 502 and 504 mean that it did not reach the server, 403 that a rule of its own refused; if the server's \
                 log has the handshake, the server refused it"),
            Self::Refused => ("refused",
                "the server answered with a status that does not accept",
                "look into the server's log"),
        }
    }

    /// The stable, kebab-case name, such as `accept-wrong`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.entry().0
    }

    /// What it means, in plain words.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        self.entry().1
    }

    /// What to do about it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.entry().2
    }

    /// Whether the server refused, rather than accepted in a way that no client may take.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::AcceptMissing
                | Self::AcceptWrong
                | Self::UpgradeWrong
                | Self::ConnectionWrong
                | Self::SubprotocolNotOffered
                | Self::SubprotocolNotEchoed
                | Self::ExtensionNotOffered
                | Self::HeaderRepeated
        )
    }
}

/// One thing that is wrong with an answer: its [`kind`](Self::kind) and what is known beyond it.
///
/// `Display` names all of it. It may hold what the server sent, so it is for logs and terminals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    detail: Option<&'static str>,
    value: Option<Box<str>>,
}

impl Finding {
    const fn new(kind: FindingKind) -> Self {
        Self { kind, detail: None, value: None }
    }

    fn with_value(self, value: Option<impl AsRef<[u8]>>) -> Self {
        Self { value: value.map(|value| Shown(value.as_ref()).to_string().into()), ..self }
    }

    fn with_detail(self, detail: Option<&'static str>) -> Self {
        Self { detail, ..self }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> FindingKind {
        self.kind
    }

    /// [`FindingKind::explanation`], and how it came about and the offending value where they are known.
    #[must_use]
    pub fn explanation(&self) -> String {
        let mut explanation = self.kind.explanation().to_owned();
        if let Some(detail) = self.detail {
            explanation.push_str("; ");
            explanation.push_str(detail);
        }
        if let Some(value) = &self.value {
            explanation.push_str(&format!(": `{value}`"));
        }
        explanation
    }

    /// How it came about, where that can be shown: for a wrong accept, over what it was computed.
    #[must_use]
    pub const fn detail(&self) -> Option<&'static str> {
        self.detail
    }

    /// The offending value, escaped and cut; of a repeated header, its name.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl From<FindingKind> for Finding {
    fn from(kind: FindingKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.kind.code(), self.explanation(), self.kind.fix())
    }
}

/// All that is wrong with an answer: at least one [`Finding`]. `Display` has one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// The findings, in the order in which a client meets them.
    #[must_use]
    pub fn as_slice(&self) -> &[Finding] {
        &self.0
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl Error for Findings {}
