use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
    uri::PathAndQuery,
};
use percent_encoding::percent_decode_str;

use super::credential::{Credential, Encoding};
use crate::{
    config::ConfigError,
    handshake::Handshake,
    http::field::{is_token, trim},
    subprotocol::parse_subprotocol,
};

/// The part of a handshake in which a client sends its credential.
///
/// | source | on the wire | for |
/// |---|---|---|
/// | [`authorization`](Self::authorization) | `Authorization: Bearer TOKEN` | all clients except scripts in browsers |
/// | [`cookie`](Self::cookie) | `Cookie: NAME=TOKEN` | browsers; only the origin check protects it |
/// | [`query`](Self::query) | `/ws?NAME=TOKEN` | one-time tickets: URLs end up in logs |
/// | [`subprotocol`](Self::subprotocol) | `Sec-WebSocket-Protocol: chat, PREFIXTOKEN` | browsers |
/// | [`kubernetes`](Self::kubernetes) | `Sec-WebSocket-Protocol: chat, base64url.bearer.authorization.k8s.io.BASE64URL` | browsers |
/// | [`phoenix`](Self::phoenix) | `Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.BASE64` | Phoenix's JavaScript client |
/// | [`pair`](Self::pair) | `Sec-WebSocket-Protocol: MARKER, TOKEN` | browsers |
///
/// The response never selects a subprotocol that carries a token. So the client must offer another
/// one beside it. With `pair` that is the marker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TokenSource(Carrier);

/// What carries the credential. Everything that depends on the carrier is a `match` below.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    Authorization,
    Cookie(Box<str>),
    Query(Box<str>),
    Prefix(Box<str>, Encoding),
    Pair(HeaderValue),
}

impl TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 2.1). Another scheme is not a credential.
    pub fn authorization() -> Self {
        Self(Carrier::Authorization)
    }

    /// The cookie `name`. Its value is not decoded.
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

    /// The form of the Kubernetes API server: a prefix, and base64url without padding.
    pub fn kubernetes() -> Self {
        let prefix = "base64url.bearer.authorization.k8s.io.";
        Self(Carrier::Prefix(prefix.into(), Encoding::Base64Url))
    }

    /// The form of Phoenix 1.8: a prefix, and base64 without padding in either alphabet.
    pub fn phoenix() -> Self {
        Self(Carrier::Prefix("base64url.bearer.phx.".into(), Encoding::Base64Any))
    }

    /// The subprotocol `marker`, and the token as the next one. The marker need not be a
    /// subprotocol of the server.
    ///
    /// # Errors
    ///
    /// `marker` is not a token (RFC 9110 5.6.2).
    pub fn pair(marker: &str) -> Result<Self, ConfigError> {
        Ok(Self(Carrier::Pair(parse_subprotocol(marker)?)))
    }

    /// Whether an offered subprotocol carries a token. `previous` is the offer before it.
    pub(crate) fn is_carrier(&self, previous: Option<&str>, offered: &str) -> bool {
        match &self.0 {
            Carrier::Prefix(prefix, _) => offered.starts_with(&**prefix),
            Carrier::Pair(marker) => previous.is_some_and(|previous| marker == previous),
            Carrier::Authorization | Carrier::Cookie(_) | Carrier::Query(_) => false,
        }
    }

    /// The subprotocol that may be selected because a token follows it.
    pub(crate) fn marker(&self) -> Option<&HeaderValue> {
        match &self.0 {
            Carrier::Pair(marker) => Some(marker),
            _ => None,
        }
    }

    /// The header that holds the credential, and that `Debug` must not show.
    pub(super) fn sensitive_header(&self) -> Option<HeaderName> {
        match &self.0 {
            Carrier::Authorization => Some(AUTHORIZATION),
            Carrier::Cookie(_) => Some(COOKIE),
            Carrier::Query(_) => None,
            Carrier::Prefix(..) | Carrier::Pair(_) => Some(SEC_WEBSOCKET_PROTOCOL),
        }
    }

    /// Calls `found` with each credential of this source.
    pub(super) fn find<'a>(
        &self,
        handshake: &Handshake<'a>,
        found: &mut impl FnMut(Credential<'a>),
    ) {
        let (uri, headers) = (handshake.uri(), handshake.headers());
        match &self.0 {
            Carrier::Authorization => {
                let lines = headers.get_all(AUTHORIZATION);
                let repeated = lines.iter().nth(1).is_some();
                for token in lines.iter().filter_map(|line| bearer(line.as_bytes())) {
                    found(Credential { value: token, encoding: Encoding::Bearer });
                    if repeated {
                        // An inner parser may read another line.
                        found(Credential { value: token, encoding: Encoding::Bearer });
                    }
                }
            }
            Carrier::Cookie(name) => {
                let lines = headers.get_all(COOKIE).iter();
                for pair in lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';')) {
                    let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
                    // Inner parsers may trim names, and would find another cookie of this name.
                    if trim(&pair[..equals]) == name.as_bytes() {
                        found(Credential {
                            value: trim(&pair[equals + 1..]),
                            encoding: Encoding::Plain,
                        });
                    }
                }
            }
            Carrier::Query(name) => {
                for parameter in uri.query().into_iter().flat_map(|query| query.split('&')) {
                    let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                    if is_named(key, name) {
                        found(Credential { value: value.as_bytes(), encoding: Encoding::Percent });
                    }
                }
            }
            Carrier::Prefix(prefix, encoding) => {
                for value in
                    handshake.subprotocols().filter_map(|offered| offered.strip_prefix(&**prefix))
                {
                    found(Credential { value: value.as_bytes(), encoding: *encoding });
                }
            }
            Carrier::Pair(marker) => {
                let mut following =
                    handshake.subprotocols().skip_while(|offered| marker != offered).skip(1);
                if let Some(value) = following.next() {
                    found(Credential { value: value.as_bytes(), encoding: Encoding::Plain });
                }
            }
        }
    }

    /// Whether one credential could be found in both sources.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Carrier::Prefix(prefix, _), Carrier::Prefix(other, _)) => other.starts_with(&**prefix),
            (Carrier::Prefix(prefix, _), Carrier::Pair(marker)) => {
                marker.as_bytes().starts_with(prefix.as_bytes())
            }
            (
                Carrier::Authorization
                | Carrier::Cookie(_)
                | Carrier::Query(_)
                | Carrier::Prefix(..)
                | Carrier::Pair(_),
                _,
            ) => self == other,
        }
    }

    /// Removes the credential from its header. Negotiation rewrites the subprotocols, and cookies
    /// stay.
    pub(super) fn strip_headers(&self, headers: &mut HeaderMap) {
        match &self.0 {
            Carrier::Authorization => {
                let is_bearer = |line: &HeaderValue| bearer(line.as_bytes()).is_some();
                if headers.get_all(AUTHORIZATION).iter().any(is_bearer) {
                    headers.remove(AUTHORIZATION);
                }
            }
            Carrier::Cookie(_) | Carrier::Query(_) | Carrier::Prefix(..) | Carrier::Pair(_) => {}
        }
    }

    /// Removes the credential from the query.
    pub(super) fn strip_uri(&self, uri: &mut Uri) -> Result<(), http::Error> {
        match &self.0 {
            Carrier::Query(name) => strip_query(uri, name),
            Carrier::Authorization
            | Carrier::Cookie(_)
            | Carrier::Prefix(..)
            | Carrier::Pair(_) => Ok(()),
        }
    }
}

/// The credential of `Authorization: Bearer`, well-formed or not. `None` for another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = trim(value);
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest {
        [] => Some(rest),
        [b' ', ..] => Some(trim(rest)),
        _ => None,
    }
}

fn is_named(key: &str, name: &str) -> bool {
    key == name || percent_decode_str(key).eq(name.bytes())
}

fn strip_query(uri: &mut Uri, name: &str) -> Result<(), http::Error> {
    let Some(query) = uri.query() else { return Ok(()) };
    let others = query.split('&').filter(|parameter| {
        let (key, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        !is_named(key, name)
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
