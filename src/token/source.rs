use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, Entry, HOST, ORIGIN,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    uri::PathAndQuery,
};
use percent_encoding::percent_decode;

use super::credential::{Credential, Encoding};
use crate::{
    config::ConfigError,
    handshake::Handshake,
    http::field::{is_token, trim},
};

/// The part of a handshake in which a client sends its credential.
///
/// | source | on the wire | as text | for |
/// |---|---|---|---|
/// | [`authorization`](Self::authorization) | `Authorization: Bearer TOKEN` | `authorization` | all clients except scripts in browsers |
/// | [`basic`](Self::basic) | `Authorization: Basic` of `USER:PASSWORD` | `basic` | OCPP charge points, URLs with a user and a password |
/// | [`header`](Self::header) | `NAME: TOKEN` | `header:NAME` | API keys, authenticating proxies |
/// | [`header_scheme`](Self::header_scheme) | `NAME: SCHEME TOKEN` | `header:NAME:SCHEME` | other schemes of `Authorization` |
/// | [`cookie`](Self::cookie) | `Cookie: NAME=TOKEN` | `cookie:NAME` | browsers; only the origin check protects it |
/// | [`query`](Self::query) | `/ws?NAME=TOKEN` | `query:NAME` | one-time tickets: URLs end up in logs |
/// | [`subprotocol`](Self::subprotocol) | `Sec-WebSocket-Protocol: chat, PREFIXTOKEN` | `subprotocol:PREFIX` | browsers |
/// | [`subprotocol_base64`](Self::subprotocol_base64) | `Sec-WebSocket-Protocol: chat, PREFIXBASE64URL` | `subprotocol-base64:PREFIX` | browsers |
/// | [`kubernetes`](Self::kubernetes) | `Sec-WebSocket-Protocol: chat, base64url.bearer.authorization.k8s.io.BASE64URL` | `kubernetes` | browsers |
/// | [`phoenix`](Self::phoenix) | `Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.BASE64` | `phoenix` | Phoenix's JavaScript client |
/// | [`pair`](Self::pair) | `Sec-WebSocket-Protocol: MARKER, TOKEN` | `pair:MARKER` | browsers |
/// | [`request_extensions`](Self::request_extensions) | what the server knows of the connection | | client certificates |
///
/// `FromStr` and `Display` use the text, where there is one. The response never selects a
/// subprotocol that carries a token. So the client must offer another one beside it. With `pair`
/// that is the marker.
///
/// ```
/// use tower_ws_guard::TokenSource;
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let source: TokenSource = "header:X-API-Key".parse()?;
/// assert_eq!(source, TokenSource::header("x-api-key")?);
/// assert_eq!(source.to_string(), "header:x-api-key");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct TokenSource(Carrier);

/// What carries the credential. Everything that depends on the carrier is a `match` below.
#[derive(Clone, PartialEq, Eq)]
enum Carrier {
    Header { name: HeaderName, scheme: Option<Box<str>>, encoding: Encoding },
    Cookie(Box<str>),
    Query(Box<str>),
    Prefix(Box<str>, Encoding),
    Pair(HeaderValue),
    Extensions(FromExtensions),
}

/// Equal to its clones only.
#[derive(Clone)]
struct FromExtensions(Arc<Find>);

type Find = dyn Fn(&Extensions) -> Option<String> + Send + Sync;

impl PartialEq for FromExtensions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FromExtensions {}

const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";
const PHOENIX: &str = "base64url.bearer.phx.";

impl TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 2.1). Another scheme is not a credential.
    pub fn authorization() -> Self {
        Self::authorization_as("Bearer", Encoding::Bearer)
    }

    /// `Authorization: Basic` (RFC 7617). The credential is `USER:PASSWORD`, decoded.
    pub fn basic() -> Self {
        Self::authorization_as("Basic", Encoding::Basic)
    }

    fn authorization_as(scheme: &str, encoding: Encoding) -> Self {
        Self(Carrier::Header { name: AUTHORIZATION, scheme: Some(scheme.into()), encoding })
    }

    /// The whole value of the header `name`. It is not decoded.
    ///
    /// Only a proxy that sets or removes the header may be trusted to authenticate with it: a
    /// client can send any header.
    ///
    /// # Errors
    ///
    /// `name` is not the name of a header, or the handshake itself needs the header.
    pub fn header(name: &str) -> Result<Self, ConfigError> {
        Ok(Self(Carrier::Header {
            name: parse_header(name)?,
            scheme: None,
            encoding: Encoding::Plain,
        }))
    }

    /// What follows `scheme`, in any case, and spaces in the header `name`, such as
    /// `Authorization: Token TOKEN`. Another scheme is not a credential.
    ///
    /// # Errors
    ///
    /// `name` is not the name of a header, the handshake itself needs the header, or `scheme` is
    /// not a token.
    pub fn header_scheme(name: &str, scheme: &str) -> Result<Self, ConfigError> {
        if !is_token(scheme.as_bytes()) {
            return Err(ConfigError::new(scheme, "a scheme is a token, such as `Token`"));
        }
        let (name, scheme) = (parse_header(name)?, Some(scheme.into()));
        Ok(Self(Carrier::Header { name, scheme, encoding: Encoding::Plain }))
    }

    /// The cookie `name`, also if the client sends the name percent-encoded. Its value is not
    /// decoded.
    ///
    /// # Errors
    ///
    /// `name` is not a token (RFC 6265 4.1.1).
    pub fn cookie(name: &str) -> Result<Self, ConfigError> {
        if !is_token(name.as_bytes()) {
            return Err(ConfigError::new(
                name,
                "a cookie name is a token: no spaces, semicolons, quotes or colons",
            ));
        }
        Ok(Self(Carrier::Cookie(name.into())))
    }

    /// The query parameter `name`. Names and values are percent-decoded once; `+` stays `+`.
    ///
    /// # Errors
    ///
    /// `name` is empty.
    pub fn query(name: &str) -> Result<Self, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::new(name, "a query parameter needs a name"));
        }
        Ok(Self(Carrier::Query(name.into())))
    }

    /// A subprotocol that begins with `prefix`, followed by the token. The token is not decoded. No
    /// subprotocol of the server may begin with `prefix`, because it would count as a token.
    ///
    /// # Errors
    ///
    /// `prefix` is not a token (RFC 9110 5.6.2).
    pub fn subprotocol(prefix: &str) -> Result<Self, ConfigError> {
        parse_subprotocol(prefix)?;
        Ok(Self(Carrier::Prefix(prefix.into(), Encoding::Plain)))
    }

    /// A subprotocol that begins with `prefix`, followed by the base64url of the token without
    /// padding. See [`subprotocol`](Self::subprotocol).
    ///
    /// # Errors
    ///
    /// `prefix` is not a token (RFC 9110 5.6.2).
    pub fn subprotocol_base64(prefix: &str) -> Result<Self, ConfigError> {
        parse_subprotocol(prefix)?;
        Ok(Self(Carrier::Prefix(prefix.into(), Encoding::Base64Url)))
    }

    /// The form of the Kubernetes API server: a prefix, and base64url without padding.
    pub fn kubernetes() -> Self {
        Self(Carrier::Prefix(KUBERNETES.into(), Encoding::Base64Url))
    }

    /// The form of Phoenix 1.8: a prefix, and base64 without padding in either alphabet.
    pub fn phoenix() -> Self {
        Self(Carrier::Prefix(PHOENIX.into(), Encoding::Base64Any))
    }

    /// What `credential` finds in the extensions of the request, such as the fingerprint of a
    /// client certificate that the server has inserted.
    pub fn request_extensions<F>(credential: F) -> Self
    where
        F: Fn(&Extensions) -> Option<String> + Send + Sync + 'static,
    {
        Self(Carrier::Extensions(FromExtensions(Arc::new(credential))))
    }

    /// The subprotocol `marker`, in any case, and the token as the next one. The marker need not be
    /// a subprotocol of the server. It is selected as the client sent it.
    ///
    /// # Errors
    ///
    /// `marker` is not a token (RFC 9110 5.6.2).
    pub fn pair(marker: &str) -> Result<Self, ConfigError> {
        Ok(Self(Carrier::Pair(parse_subprotocol(marker)?)))
    }

    /// Whether an offered subprotocol carries a token. `previous` is the offer before it.
    pub(crate) fn is_carrier(&self, previous: Option<&[u8]>, offered: &[u8]) -> bool {
        match &self.0 {
            Carrier::Prefix(prefix, _) => offered.starts_with(prefix.as_bytes()),
            Carrier::Pair(_) => previous.is_some_and(|previous| self.is_marker(previous)),
            _ => false,
        }
    }

    /// Whether an offered subprotocol is the marker of a pair, which may be selected.
    pub(crate) fn is_marker(&self, offered: &[u8]) -> bool {
        match &self.0 {
            Carrier::Pair(marker) => marker.as_bytes().eq_ignore_ascii_case(offered),
            _ => false,
        }
    }

    /// Whether a browser sends the credential by itself, with any page's request.
    pub(crate) const fn is_cookie(&self) -> bool {
        matches!(self.0, Carrier::Cookie(_))
    }

    /// Whether a browser may send the credential by itself, other than a cookie.
    #[cfg(feature = "lint")]
    pub(crate) const fn is_ambient(&self) -> bool {
        self.is_basic() || matches!(self.0, Carrier::Extensions(_))
    }

    pub(crate) const fn is_basic(&self) -> bool {
        matches!(self.0, Carrier::Header { encoding: Encoding::Basic, .. })
    }

    #[cfg(feature = "lint")]
    pub(super) const fn is_query(&self) -> bool {
        matches!(self.0, Carrier::Query(_))
    }

    /// Hides the header that may hold the credential from `Debug`.
    pub(super) fn hide_in(&self, headers: &mut HeaderMap) {
        let name = match &self.0 {
            Carrier::Header { name, .. } => name,
            Carrier::Cookie(_) => &COOKIE,
            Carrier::Prefix(..) | Carrier::Pair(_) => &SEC_WEBSOCKET_PROTOCOL,
            Carrier::Query(_) | Carrier::Extensions(_) => return,
        };
        let Some(line) = headers.get_mut(name) else { return };
        line.set_sensitive(true);
        let has_repeated = headers.keys_len() < headers.len();
        if has_repeated && let Entry::Occupied(mut lines) = headers.entry(name) {
            lines.iter_mut().for_each(|line| line.set_sensitive(true));
        }
    }

    /// Calls `found` with each credential of this source. An empty one is none.
    pub(super) fn find<'a>(
        &self,
        handshake: &'a Handshake<'_>,
        mut found: impl FnMut(Credential<'a>),
    ) {
        let mut found = |value: Cow<'a, [u8]>, encoding, line| {
            if !value.is_empty() {
                found(Credential { value, encoding, line });
            }
        };
        match &self.0 {
            Carrier::Header { name, scheme, encoding } => {
                for line in handshake.headers().get_all(name) {
                    if let Some(value) = behind_scheme(line, scheme.as_deref()) {
                        found(value.into(), *encoding, Some(line));
                    }
                }
            }
            Carrier::Cookie(name) => {
                for line in handshake.headers().get_all(COOKIE) {
                    for pair in line.as_bytes().split(|&byte| byte == b';') {
                        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
                            continue;
                        };
                        // Inner parsers may trim or decode names, and would find another cookie of
                        // this name.
                        if is_named(trim(&pair[..equals]), name) {
                            found(trim(&pair[equals + 1..]).into(), Encoding::Plain, Some(line));
                        }
                    }
                }
            }
            Carrier::Query(name) => {
                let query = handshake.uri().query();
                for parameter in query.into_iter().flat_map(|query| query.split('&')) {
                    let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                    if is_named(key.as_bytes(), name) {
                        found(value.as_bytes().into(), Encoding::Percent, None);
                    }
                }
            }
            Carrier::Prefix(prefix, encoding) => {
                for name in handshake.offered().iter() {
                    if let Some(value) = name.strip_prefix(prefix.as_bytes()) {
                        found(value.into(), *encoding, handshake.subprotocol_line());
                    }
                }
            }
            Carrier::Pair(_) => {
                let offered = handshake.offered();
                for (previous, value) in offered.iter().zip(offered.iter().skip(1)) {
                    if self.is_marker(previous) {
                        found(value.into(), Encoding::Plain, handshake.subprotocol_line());
                    }
                }
            }
            Carrier::Extensions(FromExtensions(credential)) => {
                if let Some(value) = credential(handshake.extensions()) {
                    found(value.into_bytes().into(), Encoding::Plain, None);
                }
            }
        }
    }

    /// Whether one credential could be found in both sources.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Carrier::Prefix(prefix, _), Carrier::Prefix(other, _)) => other.starts_with(&**prefix),
            (Carrier::Prefix(prefix, _), Carrier::Pair(marker)) => {
                let start = marker.as_bytes().get(..prefix.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            (Carrier::Pair(marker), Carrier::Pair(other)) => {
                marker.as_bytes().eq_ignore_ascii_case(other.as_bytes())
            }
            (
                Carrier::Header { name, scheme, .. },
                Carrier::Header { name: other, scheme: other_scheme, .. },
            ) => {
                let is_same_scheme = match (scheme, other_scheme) {
                    (Some(scheme), Some(other)) => scheme.eq_ignore_ascii_case(other),
                    _ => true,
                };
                name == other && is_same_scheme
            }
            _ => self == other,
        }
    }

    /// Removes the credential from its header. An empty one is removed although it is not found.
    /// Negotiation rewrites the subprotocols, and cookies stay.
    pub(super) fn strip_headers(&self, headers: &mut HeaderMap, is_found: bool) {
        if let Carrier::Header { name, scheme, .. } = &self.0 {
            let is_ours = |line| behind_scheme(line, scheme.as_deref()).is_some();
            if is_found || headers.get_all(name).iter().any(is_ours) {
                headers.remove(name);
            }
        }
    }

    /// Removes the credential from the query.
    pub(super) fn strip_uri(&self, uri: &mut Uri) -> Result<(), http::Error> {
        match &self.0 {
            Carrier::Query(name) => strip_query(uri, name),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Carrier::Header { encoding: Encoding::Bearer, .. } => f.write_str("authorization"),
            Carrier::Header { encoding: Encoding::Basic, .. } => f.write_str("basic"),
            Carrier::Header { name, scheme: None, .. } => write!(f, "header:{name}"),
            Carrier::Header { name, scheme: Some(scheme), .. } => {
                write!(f, "header:{name}:{scheme}")
            }
            Carrier::Cookie(name) => write!(f, "cookie:{name}"),
            Carrier::Query(name) => write!(f, "query:{name}"),
            Carrier::Prefix(prefix, Encoding::Base64Url) if **prefix == *KUBERNETES => {
                f.write_str("kubernetes")
            }
            Carrier::Prefix(_, Encoding::Base64Any) => f.write_str("phoenix"),
            Carrier::Prefix(prefix, Encoding::Base64Url) => {
                write!(f, "subprotocol-base64:{prefix}")
            }
            Carrier::Prefix(prefix, _) => write!(f, "subprotocol:{prefix}"),
            Carrier::Pair(marker) => write!(f, "pair:{}", marker.to_str().unwrap_or_default()),
            Carrier::Extensions(_) => f.write_str("request extensions"),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSource({self})")
    }
}

impl FromStr for TokenSource {
    type Err = ConfigError;

    fn from_str(source: &str) -> Result<Self, ConfigError> {
        match source.split_once(':') {
            None => match source {
                "authorization" => Ok(Self::authorization()),
                "basic" => Ok(Self::basic()),
                "kubernetes" | "k8s" => Ok(Self::kubernetes()),
                "phoenix" => Ok(Self::phoenix()),
                _ => Err(unknown_source(source)),
            },
            Some(("header", header)) => match header.split_once(':') {
                None => Self::header(header),
                Some((name, scheme)) => Self::header_scheme(name, scheme),
            },
            Some(("cookie", name)) => Self::cookie(name),
            Some(("query", name)) => Self::query(name),
            Some(("subprotocol", prefix)) => Self::subprotocol(prefix),
            Some(("subprotocol-base64", prefix)) => Self::subprotocol_base64(prefix),
            Some(("pair", marker)) => Self::pair(marker),
            Some(_) => Err(unknown_source(source)),
        }
    }
}

fn unknown_source(source: &str) -> ConfigError {
    ConfigError::new(
        source,
        "use `authorization`, `basic`, `header:NAME`, `header:NAME:SCHEME`, `cookie:NAME`, \
         `query:NAME`, `subprotocol:PREFIX`, `subprotocol-base64:PREFIX`, `kubernetes`, `phoenix` \
         or `pair:MARKER`",
    )
}

fn parse_header(name: &str) -> Result<HeaderName, ConfigError> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| ConfigError::new(name, "this is not the name of a header"))?;
    let fix = match header {
        COOKIE => "use `TokenSource::cookie`",
        SEC_WEBSOCKET_PROTOCOL => "use `TokenSource::subprotocol` or `TokenSource::pair`",
        HOST
        | ORIGIN
        | UPGRADE
        | CONNECTION
        | CONTENT_LENGTH
        | TRANSFER_ENCODING
        | SEC_WEBSOCKET_KEY
        | SEC_WEBSOCKET_VERSION
        | SEC_WEBSOCKET_EXTENSIONS => "the handshake needs this header for itself; use another one",
        _ => return Ok(header),
    };
    Err(ConfigError::new(name, fix))
}

/// Parses the configured name of a carrier in place of a subprotocol.
fn parse_subprotocol(value: &str) -> Result<HeaderValue, ConfigError> {
    match HeaderValue::from_str(value) {
        Ok(header) if is_token(value.as_bytes()) => Ok(header),
        _ => Err(ConfigError::new(
            value,
            "a subprotocol is a token: no spaces, commas, slashes, quotes or colons",
        )),
    }
}

/// The credential behind a scheme, well-formed or not. `None` for another scheme.
fn behind_scheme<'a>(line: &'a HeaderValue, scheme: Option<&str>) -> Option<&'a [u8]> {
    let value = trim(line.as_bytes());
    let Some(scheme) = scheme else { return Some(value) };
    let (start, rest) = value.split_at_checked(scheme.len())?;
    // Most clients write the scheme as it is registered.
    if start != scheme.as_bytes() && !start.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    match rest {
        [] => Some(rest),
        [b' ', ..] => Some(trim(rest)),
        _ => None,
    }
}

/// Whether a name is ours, or becomes ours when it is percent-decoded.
fn is_named(name: &[u8], ours: &str) -> bool {
    name == ours.as_bytes() || percent_decode(name).eq(ours.bytes())
}

fn strip_query(uri: &mut Uri, name: &str) -> Result<(), http::Error> {
    let Some(query) = uri.query() else { return Ok(()) };
    let others = query.split('&').filter(|parameter| {
        let (key, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        !is_named(key.as_bytes(), name)
    });
    let others = others.collect::<Vec<_>>().join("&");
    if others.len() == query.len() {
        return Ok(());
    }
    let question_mark = if others.is_empty() { "" } else { "?" };
    let path_and_query = format!("{}{question_mark}{others}", uri.path());

    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query)?);
    *uri = Uri::from_parts(parts)?;
    Ok(())
}
