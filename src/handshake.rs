//! The protocol: what is a handshake attempt, and what is a valid handshake (RFC 6455 4.2.1, RFC 8441).
//!
//! Every layer of this crate classifies a request with [`is_attempt`] and parses an attempt with [`Handshake::parse`]. The
//! first is loose and the second strict, on purpose: what one layer takes for an ordinary request no handler behind it may
//! take for a handshake. Checks are given a [`Handshake`], so no malformed one ever reaches them.
//!
//! # Example
//!
//! ```
//! use http::Request;
//! use tower_ws_guard::{Handshake, RejectionKind, is_attempt};
//!
//! let request = |key: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "keep-alive, Upgrade")
//!         .header("sec-websocket-key", key)
//!         .header("sec-websocket-version", "13")
//!         .body(())
//!         .unwrap()
//! };
//! assert!(is_attempt(&request("zzz")));
//!
//! let (mut parts, ()) = request("dGhlIHNhbXBsZSBub25jZQ==").into_parts();
//! let handshake = Handshake::parse(&mut parts).unwrap();
//! assert_eq!(handshake.host().name(), "server.example.com");
//!
//! let (mut parts, ()) = request("zzz").into_parts();
//! let rejection = Handshake::parse(&mut parts).unwrap_err();
//! assert_eq!(rejection.kind(), RejectionKind::KeyInvalid);
//! ```

use std::{fmt, net::Ipv6Addr};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};

use crate::{
    origin::{Origin, RequestOrigin},
    rejection::{Rejection, RejectionKind as Kind},
};

/// The most elements that a client may put into `Sec-WebSocket-Protocol`, empty ones included.
const MAX_SUBPROTOCOLS: usize = 128;

/// As browsers write it in `Upgrade`, and in `Connection`.
const WEBSOCKET: &[u8] = b"websocket";
const CONNECTION_UPGRADE: &[u8] = b"Upgrade";

/// How the handshake came, which decides how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 and RFC 8441; there is no third")]
pub enum Transport {
    /// A `GET` with `Upgrade: websocket` over HTTP/1.1, answered with 101 (RFC 6455).
    Http1,
    /// A `CONNECT` with `:protocol` = `websocket` over HTTP/2 or HTTP/3, answered with 200 (RFC 8441, RFC 9220).
    ExtendedConnect,
}

impl Transport {
    /// Whether a client takes this status for a completed handshake.
    pub(crate) fn is_completed_by(self, status: StatusCode) -> bool {
        match self {
            Self::Http1 => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::ExtendedConnect => status.is_success(),
        }
    }

    pub(crate) fn of(version: Version) -> Self {
        if version >= Version::HTTP_2 { Self::ExtendedConnect } else { Self::Http1 }
    }
}

/// Whether a request tries to open a WebSocket, well-formed or not.
///
/// True if some `Upgrade` contains `websocket` in any case, even inside a longer word; if there is a `Sec-WebSocket-Key` or a
/// `Sec-WebSocket-Version`; or, over HTTP/2 and newer, for a `CONNECT` whose `:protocol` contains `websocket`, or cannot be read,
/// as without the feature `http2` (see [`ConnectProtocol`]).
///
/// This is a superset of what axum, hyper-tungstenite, tungstenite and fastwebsockets would take for a handshake.
#[must_use]
#[inline]
pub fn is_attempt<B>(request: &Request<B>) -> bool {
    has_websocket_header(request.headers())
        || (request.method() == Method::CONNECT
            && has_websocket_protocol(request.version(), request.uri(), request.extensions()))
}

/// [`is_attempt`] for a request whose body is elsewhere.
#[cfg(feature = "axum")]
pub(crate) fn is_attempt_without_body(request: &Parts) -> bool {
    has_websocket_header(&request.headers)
        || (request.method == Method::CONNECT
            && has_websocket_protocol(request.version, &request.uri, &request.extensions))
}

fn has_websocket_protocol(version: Version, uri: &Uri, extensions: &Extensions) -> bool {
    version >= Version::HTTP_2 && !matches!(Protocol::of(uri, extensions), Protocol::Other)
}

fn has_websocket_header(headers: &HeaderMap) -> bool {
    let mut upgrade = false;
    // One pass over the names is cheaper than three look-ups in the map.
    for name in headers.keys() {
        match *name {
            SEC_WEBSOCKET_KEY | SEC_WEBSOCKET_VERSION => return true,
            UPGRADE => upgrade = true,
            _ => {}
        }
    }
    upgrade && headers.get_all(UPGRADE).iter().any(|value| contains_ignore_case(value.as_bytes(), WEBSOCKET))
}

fn contains_ignore_case(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// The `:protocol` of a `CONNECT` (RFC 8441 4), as this crate sees it.
enum Protocol {
    WebSocket,
    /// One that a lax handler may take for `websocket`, or that this build cannot read.
    Doubtful,
    /// Another protocol, or none: an ordinary `CONNECT`.
    Other,
}

impl Protocol {
    fn of(uri: &Uri, extensions: &Extensions) -> Self {
        let read = |protocol: &str| match protocol {
            "websocket" => Self::WebSocket,
            _ if contains_ignore_case(protocol.as_bytes(), b"websocket") => Self::Doubtful,
            _ => Self::Other,
        };
        #[cfg(feature = "http2")]
        if let Some(protocol) = extensions.get::<hyper::ext::Protocol>() {
            return read(protocol.as_str());
        }
        match extensions.get() {
            Some(ConnectProtocol(protocol)) => read(protocol),
            // Only an extended CONNECT has a path (RFC 8441 4).
            None if uri.path_and_query().is_some() => Self::Doubtful,
            None => Self::Other,
        }
    }
}

/// The `:protocol` of a `CONNECT`, for transports that hyper does not know, such as HTTP/3 (RFC 9220).
///
/// The adapter between such a transport and tower puts it into the extensions of every request that has a `:protocol`, as it
/// was sent. hyper's own type for HTTP/2 is read with feature `http2`. An extended `CONNECT` with neither is refused, because it
/// cannot be told what it is for.
///
/// ```
/// use http::{Method, Request, Version};
/// use tower_ws_guard::{ConnectProtocol, Handshake};
///
/// let (mut parts, ()) = Request::builder()
///     .method(Method::CONNECT)
///     .version(Version::HTTP_3)
///     .uri("https://server.example.com/ws")
///     .header("sec-websocket-version", "13")
///     .body(())
///     .unwrap()
///     .into_parts();
/// assert!(Handshake::parse(&mut parts).is_err());
/// parts.extensions.insert(ConnectProtocol::new("websocket"));
/// assert!(Handshake::parse(&mut parts).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectProtocol(Box<str>);

impl ConnectProtocol {
    /// The value of `:protocol`, as it was sent.
    pub fn new(protocol: impl Into<Box<str>>) -> Self {
        Self(protocol.into())
    }
}

/// A well-formed handshake, seen without its body: what a [`Check`](crate::Check) decides on.
pub struct Handshake<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a mut Extensions,
    transport: Transport,
    host: Host<'a>,
    origin: Line<'a>,
    key: Option<[u8; 24]>,
    subprotocols: Line<'a>,
    canonical: Canonical,
}

/// Which headers are already as a handler is to see them.
#[derive(Clone, Copy)]
pub(crate) struct Canonical {
    upgrade: bool,
    connection: bool,
    key: bool,
    version: bool,
}

impl<'a> Handshake<'a> {
    /// Parses a handshake as RFC 6455 4.2.1 demands, over HTTP/2 as RFC 8441 does.
    ///
    /// # Errors
    ///
    /// The first fault, in the order of the variants of [`RejectionKind`](crate::RejectionKind) up to
    /// [`SubprotocolInvalid`](crate::RejectionKind::SubprotocolInvalid).
    pub fn parse(request: &'a mut Parts) -> Result<Self, Rejection> {
        let Parts { method, uri, version, headers, extensions, .. } = request;
        let transport = Transport::of(*version);
        let lines = Lines::of(headers);

        match transport {
            Transport::Http1 => {
                if *method != Method::GET {
                    return Err(Kind::MethodNotAllowed.into());
                }
                if *version < Version::HTTP_11 {
                    return Err(Kind::HttpVersion.into());
                }
                if !lines.upgrade_websocket {
                    return Err(Rejection::new(Kind::UpgradeMissing).with_value(headers.get(UPGRADE)));
                }
                if !lines.connection_upgrade {
                    return Err(Kind::ConnectionMissing.into());
                }
            }
            Transport::ExtendedConnect => {
                if *method != Method::CONNECT {
                    return Err(Kind::MethodNotAllowed.into());
                }
                if !matches!(Protocol::of(uri, extensions), Protocol::WebSocket) {
                    return Err(Kind::UpgradeMissing.into());
                }
            }
        }
        let host = parse_host(&lines, uri, transport)?;
        let key = match transport {
            Transport::Http1 => Some(parse_key(lines.key)?),
            // RFC 8441 5: the key is not used.
            Transport::ExtendedConnect => None,
        };
        check_version(lines.version)?;
        if lines.body {
            return Err(Kind::BodyPresent.into());
        }
        if !matches!(lines.subprotocols, Line::Absent) {
            check_subprotocols(headers)?;
        }

        let canonical = Canonical {
            upgrade: lines.upgrade.is(WEBSOCKET),
            connection: lines.connection.is(CONNECTION_UPGRADE),
            key: key.is_some_and(|key| lines.key.is(&key)),
            version: lines.version.is(b"13"),
        };
        let (origin, subprotocols) = (lines.origin, lines.subprotocols);
        Ok(Self { method, uri, headers, extensions, transport, host, origin, key, subprotocols, canonical })
    }

    /// The method: `GET`, or over HTTP/2 `CONNECT`.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The request target. Its query may hold a credential.
    #[must_use]
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// All headers as they arrived. They may hold credentials.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions of the request, such as axum's `ConnectInfo`.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        self.extensions
    }

    /// The extensions of the request, to leave something for the services behind.
    #[must_use]
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions
    }

    /// How the handshake came.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The host that the client addressed: `Host`, over HTTP/2 `:authority`.
    #[must_use]
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The origin of the page that opens the socket.
    ///
    /// # Errors
    ///
    /// [`OriginRepeated`](crate::RejectionKind::OriginRepeated) and [`OriginInvalid`](crate::RejectionKind::OriginInvalid).
    pub fn origin(&self) -> Result<RequestOrigin<'a>, Rejection> {
        let value = match self.origin {
            Line::Absent => return Ok(RequestOrigin::Missing),
            Line::One(value) => value,
            Line::Repeated => return Err(Kind::OriginRepeated.into()),
        };
        match trim(value.as_bytes()) {
            b"null" => Ok(RequestOrigin::Null),
            origin => match Origin::parse(origin) {
                Ok(origin) => Ok(RequestOrigin::Tuple(origin)),
                Err(invalid) => Err(Rejection::new(Kind::OriginInvalid).with_value(value).with_source(invalid)),
            },
        }
    }

    /// The subprotocols that the client offers, in its order of preference. Some may carry a token.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (one, several) = match self.subprotocols {
            Line::Absent => (None, None),
            Line::One(value) => (Some(value), None),
            Line::Repeated => (None, Some(self.headers.get_all(SEC_WEBSOCKET_PROTOCOL))),
        };
        tokens(one.into_iter().chain(several.into_iter().flatten()))
    }

    /// The line of `Origin`, if there is one.
    pub(crate) fn origin_line(&self) -> Option<&'a HeaderValue> {
        match self.origin {
            Line::One(value) => Some(value),
            Line::Absent | Line::Repeated => None,
        }
    }

    pub(crate) const fn canonical(&self) -> Canonical {
        self.canonical
    }

    /// The 24 characters of `Sec-WebSocket-Key`; `None` over HTTP/2.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 24]> {
        self.key
    }
}

/// Without headers and query, which may hold credentials.
impl fmt::Debug for Handshake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("transport", &self.transport)
            .field("host", &self.host)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

/// A header that may be there once.
#[derive(Clone, Copy, Default)]
enum Line<'a> {
    #[default]
    Absent,
    One(&'a HeaderValue),
    Repeated,
}

impl<'a> Line<'a> {
    fn add(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::Absent => Self::One(value),
            Self::One(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn is(&self, wanted: &[u8]) -> bool {
        matches!(self, Self::One(value) if value.as_bytes() == wanted)
    }
}

/// All that the rules look at, found in one pass, which is cheaper than look-ups in the map.
#[derive(Default)]
struct Lines<'a> {
    upgrade: Line<'a>,
    upgrade_websocket: bool,
    connection: Line<'a>,
    connection_upgrade: bool,
    host: Line<'a>,
    key: Line<'a>,
    version: Line<'a>,
    origin: Line<'a>,
    content_length: bool,
    body: bool,
    subprotocols: Line<'a>,
}

impl<'a> Lines<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut lines = Self::default();
        for (name, value) in headers {
            match *name {
                UPGRADE => {
                    lines.upgrade.add(value);
                    lines.upgrade_websocket |= has_element(value, WEBSOCKET);
                }
                CONNECTION => {
                    lines.connection.add(value);
                    lines.connection_upgrade |= has_element(value, CONNECTION_UPGRADE);
                }
                HOST => lines.host.add(value),
                SEC_WEBSOCKET_KEY => lines.key.add(value),
                SEC_WEBSOCKET_VERSION => lines.version.add(value),
                SEC_WEBSOCKET_PROTOCOL => lines.subprotocols.add(value),
                ORIGIN => lines.origin.add(value),
                CONTENT_LENGTH => {
                    lines.body |= lines.content_length || trim(value.as_bytes()) != b"0";
                    lines.content_length = true;
                }
                TRANSFER_ENCODING => lines.body = true,
                _ => {}
            }
        }
        lines
    }
}

/// Replaces all lines of a header, or removes them.
pub(crate) fn set_header(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// Optional white space around a field value is no part of it (RFC 9110 5.5).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The elements of a comma-separated list, empty ones skipped (RFC 9110 5.6.1).
pub(crate) fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let elements = value.as_bytes().split(|&byte| byte == b',');
    elements.map(trim).filter(|element| !element.is_empty())
}

pub(crate) fn has_element(value: &HeaderValue, wanted: &[u8]) -> bool {
    // As a rule it is all that there is.
    value.as_bytes() == wanted || elements(value).any(|element| element.eq_ignore_ascii_case(wanted))
}

/// Leaves no room for a handler to read the handshake in another way than this crate did. Over HTTP/2 there is no `key`.
pub(crate) fn canonicalise(headers: &mut HeaderMap, canonical: Canonical, key: Option<[u8; 24]>) {
    if !canonical.version {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    let Some(key) = key else {
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY] {
            headers.remove(name);
        }
        return;
    };
    if !canonical.upgrade {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if !canonical.connection {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if !canonical.key {
        set_header(headers, SEC_WEBSOCKET_KEY, HeaderValue::from_bytes(&key).ok());
    }
}

/// Letters, digits and some other bytes, as a table.
const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < others.len() {
        set[others[i] as usize] = true;
        i += 1;
    }
    set
}

fn all_in(set: &[bool; 256], bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| set[usize::from(byte)])
}

/// RFC 6455 4.2.1 item 5. The bits behind the 16th byte are ignored: the RFC's own example has some.
fn parse_key(line: Line<'_>) -> Result<[u8; 24], Rejection> {
    let value = match line {
        Line::Absent => return Err(Kind::KeyMissing.into()),
        Line::One(value) => value,
        Line::Repeated => return Err(Kind::KeyRepeated.into()),
    };
    /// RFC 4648 4.
    static BASE64: [bool; 256] = alphanumeric_and(b"+/");
    match <[u8; 24]>::try_from(trim(value.as_bytes())) {
        Ok(key) if all_in(&BASE64, &key[..22]) && key[22..] == *b"==" => Ok(key),
        _ => Err(Rejection::new(Kind::KeyInvalid).with_value(value)),
    }
}

/// RFC 6455 4.2.1 item 6, 4.4 and 11.3.5.
fn check_version(line: Line<'_>) -> Result<(), Rejection> {
    let value = match line {
        Line::Absent => return Err(Kind::VersionMissing.into()),
        Line::One(value) => value,
        Line::Repeated => return Err(Kind::VersionInvalid.into()),
    };
    // `version` of RFC 6455 4.3: 0 to 255 without leading zeros.
    let kind = match trim(value.as_bytes()) {
        b"13" => return Ok(()),
        [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'] | [b'1', b'0'..=b'9', b'0'..=b'9'] => Kind::VersionUnsupported,
        [b'2', b'0'..=b'4', b'0'..=b'9'] | [b'2', b'5', b'0'..=b'5'] => Kind::VersionUnsupported,
        _ => Kind::VersionInvalid,
    };
    Err(Rejection::new(kind).with_value(value))
}

/// RFC 6455 4.1 item 10: distinct tokens, and at least one.
fn check_subprotocols(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut offered = [b"".as_slice(); MAX_SUBPROTOCOLS];
    let mut count = 0;
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    for (i, element) in lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(trim).enumerate() {
        if i == MAX_SUBPROTOCOLS {
            return Err(Kind::SubprotocolInvalid.into());
        }
        if element.is_empty() {
            continue;
        }
        if !is_token(element) || offered[..count].contains(&element) {
            return Err(Kind::SubprotocolInvalid.into());
        }
        offered[count] = element;
        count += 1;
    }
    if count == 0 {
        return Err(Kind::SubprotocolInvalid.into());
    }
    Ok(())
}

/// Over all lines, in order. Of a parsed handshake all elements are tokens.
#[cfg(feature = "responder")]
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter())
}

fn tokens<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    lines.flat_map(elements).filter_map(|element| std::str::from_utf8(element).ok())
}

/// `token` of RFC 9110 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    static TCHAR: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    !bytes.is_empty() && all_in(&TCHAR, bytes)
}

/// RFC 9112 3.2, over HTTP/2 RFC 9113 8.3.1.
fn parse_host<'a>(lines: &Lines<'a>, uri: &'a Uri, transport: Transport) -> Result<Host<'a>, Rejection> {
    let invalid = || Rejection::new(Kind::HostInvalid);

    let header = match lines.host {
        Line::Absent => None,
        Line::One(value) => {
            let host = Host::parse(trim(value.as_bytes()));
            Some(host.ok_or_else(|| invalid().with_value(value))?)
        }
        Line::Repeated => return Err(invalid()),
    };
    let target = match uri.authority() {
        None => None,
        Some(authority) => Some(Host::parse(authority.as_str().as_bytes()).ok_or_else(invalid)?),
    };
    match (transport, header, target) {
        (_, Some(header), Some(target)) if !header.is(target) => Err(invalid()),
        (Transport::Http1, Some(host), _) | (Transport::ExtendedConnect, _, Some(host)) => Ok(host),
        _ => Err(invalid()),
    }
}

/// A valid `Host` or `:authority`: a name or an address, and a port if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    name: &'a str,
    port: Option<u32>,
}

impl<'a> Host<'a> {
    /// RFC 3986 3.2.2 without userinfo; a colon must be followed by a port of 1 to 5 digits.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        // The only colon outside of brackets.
        let colon = match value.first() {
            Some(b'[') => value.iter().position(|&byte| byte == b']')? + 1,
            _ => value.iter().position(|&byte| byte == b':').unwrap_or(value.len()),
        };
        let (name, port) = value.split_at(colon);
        let port = match port {
            [] => None,
            [b':', port @ ..] => Some(parse_port(port)?),
            _ => return None,
        };
        let name = std::str::from_utf8(name).ok()?;
        let valid = match name.strip_prefix('[') {
            Some(literal) => is_ip_literal(literal.strip_suffix(']')?),
            None => is_reg_name(name.as_bytes()),
        };
        valid.then_some(Self { name, port })
    }

    /// The name or address as it was sent, in any case; an IPv6 address is in brackets.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The port, if one was sent: 0 to 99999.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        self.port
    }

    pub(crate) fn is(&self, other: Host<'_>) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.port == other.port
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// 1 to 5 digits.
fn parse_port(digits: &[u8]) -> Option<u32> {
    if !matches!(digits.len(), 1..=5) {
        return None;
    }
    digits.iter().try_fold(0, |port, digit| digit.is_ascii_digit().then(|| port * 10 + u32::from(digit - b'0')))
}

/// `unreserved` and `sub-delims` of RFC 3986 2.
static UNRESERVED_AND_SUB_DELIMS: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+,;=");

/// `reg-name` of RFC 3986 3.2.2, and not empty.
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(other) = rest.iter().position(|&byte| !UNRESERVED_AND_SUB_DELIMS[usize::from(byte)]) {
        rest = match &rest[other..] {
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// What is between the brackets of `IP-literal`, RFC 3986 3.2.2.
fn is_ip_literal(literal: &str) -> bool {
    if let Some(future) = literal.strip_prefix(['v', 'V']) {
        return future.split_once('.').is_some_and(|(version, address)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && address.bytes().all(|byte| byte == b':' || UNRESERVED_AND_SUB_DELIMS[usize::from(byte)])
        });
    }
    literal.parse::<Ipv6Addr>().is_ok()
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`: base64(SHA-1(key + GUID)), RFC 6455 4.2.2 item 5.4.
///
/// It proves that the server understood this very handshake, and is neither a secret nor an authentication.
///
/// ```
/// let accept = tower_ws_guard::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[cfg(feature = "responder")]
#[must_use]
pub fn accept_key(key: &[u8; 24]) -> [u8; 28] {
    // One call of the compression function for both blocks, the second of which never changes.
    const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    /// SHA-1 of less than a block starts from here (FIPS 180-4 5.3.1).
    const INITIAL: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    /// Key and GUID are 60 bytes; behind them padding: a one bit, zeros, and the length in bits (FIPS 180-4 5.1.1).
    const BLOCKS: [[u8; 64]; 2] = {
        let mut blocks = [[0; 64]; 2];
        let mut i = 0;
        while i < GUID.len() {
            blocks[0][24 + i] = GUID[i];
            i += 1;
        }
        blocks[0][60] = 0x80;
        let length = (60_u16 * 8).to_be_bytes();
        blocks[1][62] = length[0];
        blocks[1][63] = length[1];
        blocks
    };

    let mut blocks = BLOCKS;
    blocks[0][..24].copy_from_slice(key);
    let mut state = INITIAL;
    sha1::block_api::compress(&mut state, &blocks);

    // One byte of zeros behind the 20 of the digest makes seven groups.
    let mut digest = [0; 21];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    base64(&digest)
}

/// RFC 4648 4, for a last group that lacks one byte.
#[cfg(feature = "responder")]
fn base64(bytes: &[u8; 21]) -> [u8; 28] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut encoded = [0; 28];
    for (group, characters) in bytes.chunks_exact(3).zip(encoded.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (i, character) in characters.iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
        }
    }
    encoded[27] = b'=';
    encoded
}
