use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use http::{
    HeaderMap, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE},
    uri::PathAndQuery,
};
use percent_encoding::percent_decode_str;

use crate::{
    config::ConfigError,
    handshake::{is_token, trim},
    subprotocol::parse_token,
};

/// Longer than any token that is sent in practice; checked before a token is decoded or hashed.
const MAX_LENGTH: usize = 8 * 1024;

/// A place in the handshake where a client may put its credential.
///
/// | source | on the wire | for |
/// |---|---|---|
/// | [`authorization`](Self::authorization) | `Authorization: Bearer TOKEN` | all but scripts in browsers |
/// | [`cookie`](Self::cookie) | `Cookie: NAME=TOKEN` | browsers; the origin check is what protects it |
/// | [`query`](Self::query) | `/ws?NAME=TOKEN` | one-time tickets: URLs end up in logs |
/// | [`subprotocol`](Self::subprotocol) | `Sec-WebSocket-Protocol: chat, PREFIXTOKEN` | browsers |
/// | [`kubernetes`](Self::kubernetes) | `Sec-WebSocket-Protocol: chat, base64url.bearer.authorization.k8s.io.BASE64URL` | browsers |
/// | [`phoenix`](Self::phoenix) | `Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.BASE64` | Phoenix's JavaScript client |
/// | [`pair`](Self::pair) | `Sec-WebSocket-Protocol: MARKER, TOKEN` | browsers |
///
/// A subprotocol that carries a token is never the one that the answer names. So the client must offer another beside it;
/// with `pair` that is the marker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TokenSource(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Authorization,
    Cookie(Box<str>),
    Query(Box<str>),
    Prefix(Box<str>, Encoding),
    Pair(HeaderValue),
}

impl TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 2.1). Another scheme is no credential.
    pub fn authorization() -> Self {
        Self(Kind::Authorization)
    }

    /// The cookie `name`, taken as it is.
    ///
    /// # Errors
    ///
    /// `name` is no token (RFC 6265 4.1.1).
    pub fn cookie(name: &str) -> Result<Self, ConfigError> {
        if !is_token(name.as_bytes()) {
            return Err(ConfigError::new(
                name,
                "the name of a cookie is a token: no spaces, semicolons, quotes or colons",
            ));
        }
        Ok(Self(Kind::Cookie(name.into())))
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
        Ok(Self(Kind::Query(name.into())))
    }

    /// A subprotocol that begins with `prefix`; what follows is the token as it is. None of the server's own subprotocols may begin
    /// so: it would be taken for a token.
    ///
    /// # Errors
    ///
    /// `prefix` is no token (RFC 9110 5.6.2).
    pub fn subprotocol(prefix: &str) -> Result<Self, ConfigError> {
        parse_token(prefix)?;
        Ok(Self(Kind::Prefix(prefix.into(), Encoding::Plain)))
    }

    /// The form of the Kubernetes API server: a prefix and base64url without padding.
    pub fn kubernetes() -> Self {
        let prefix = "base64url.bearer.authorization.k8s.io.";
        Self(Kind::Prefix(prefix.into(), Encoding::Base64Url))
    }

    /// The form of Phoenix 1.8: a prefix and base64 without padding, in either alphabet.
    pub fn phoenix() -> Self {
        Self(Kind::Prefix("base64url.bearer.phx.".into(), Encoding::Base64Any))
    }

    /// The subprotocol `marker` and right behind it the token. The marker need not be listed among the server's subprotocols.
    ///
    /// # Errors
    ///
    /// `marker` is no token (RFC 9110 5.6.2).
    pub fn pair(marker: &str) -> Result<Self, ConfigError> {
        Ok(Self(Kind::Pair(parse_token(marker)?)))
    }

    /// Whether an offered subprotocol carries a token; `previous` is the one in front of it.
    pub(crate) fn is_carrier(&self, previous: Option<&str>, offered: &str) -> bool {
        match &self.0 {
            Kind::Prefix(prefix, _) => offered.starts_with(&**prefix),
            Kind::Pair(marker) => previous.is_some_and(|previous| marker == previous),
            Kind::Authorization | Kind::Cookie(_) | Kind::Query(_) => false,
        }
    }

    pub(crate) fn marker(&self) -> Option<&HeaderValue> {
        match &self.0 {
            Kind::Pair(marker) => Some(marker),
            _ => None,
        }
    }

    /// Calls `found` with each credential of this source.
    pub(super) fn find<'a>(
        &self,
        uri: &'a Uri,
        headers: &'a HeaderMap,
        subprotocols: impl Iterator<Item = &'a str>,
        found: &mut impl FnMut(Credential<'a>),
    ) {
        match &self.0 {
            Kind::Authorization => {
                let lines = headers.get_all(AUTHORIZATION);
                let repeated = lines.iter().nth(1).is_some();
                for token in lines.iter().filter_map(|line| bearer(line.as_bytes())) {
                    found(Credential { value: token, encoding: Encoding::Bearer });
                    if repeated {
                        // Somebody else may look at another of the lines.
                        found(Credential { value: token, encoding: Encoding::Bearer });
                    }
                }
            }
            Kind::Cookie(name) => {
                let lines = headers.get_all(COOKIE).iter();
                for pair in lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';')) {
                    let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
                    // Trimmed, as parsers behind may do: or they would see another cookie of that name.
                    if trim(&pair[..equals]) == name.as_bytes() {
                        found(Credential { value: trim(&pair[equals + 1..]), encoding: Encoding::Plain });
                    }
                }
            }
            Kind::Query(name) => {
                for parameter in uri.query().into_iter().flat_map(|query| query.split('&')) {
                    let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                    if is_named(key, name) {
                        found(Credential { value: value.as_bytes(), encoding: Encoding::Percent });
                    }
                }
            }
            Kind::Prefix(prefix, encoding) => {
                for value in subprotocols.filter_map(|offered| offered.strip_prefix(&**prefix)) {
                    found(Credential { value: value.as_bytes(), encoding: *encoding });
                }
            }
            Kind::Pair(marker) => {
                let mut behind = subprotocols.skip_while(|offered| marker != offered).skip(1);
                if let Some(value) = behind.next() {
                    found(Credential { value: value.as_bytes(), encoding: Encoding::Plain });
                }
            }
        }
    }

    /// Whether a token of the one source would be found by the other too.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Prefix(prefix, _), Kind::Prefix(other, _)) => other.starts_with(&**prefix),
            (Kind::Prefix(prefix, _), Kind::Pair(marker)) => marker.as_bytes().starts_with(prefix.as_bytes()),
            _ => self == other,
        }
    }

    /// Takes the credential out of a header. Subprotocols are rewritten elsewhere, cookies stay.
    pub(super) fn strip_headers(&self, headers: &mut HeaderMap) {
        let is_bearer = |line: &HeaderValue| bearer(line.as_bytes()).is_some();
        if self.0 == Kind::Authorization && headers.get_all(AUTHORIZATION).iter().any(is_bearer) {
            headers.remove(AUTHORIZATION);
        }
    }

    /// Takes the credential out of the query.
    pub(super) fn strip_uri(&self, uri: &mut Uri) -> Result<(), http::Error> {
        match &self.0 {
            Kind::Query(name) => strip_query(uri, name),
            _ => Ok(()),
        }
    }
}

/// The credential of `Authorization: Bearer`, well-formed or not; `None` for another scheme.
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

/// How a token is written in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    /// `b64token` of RFC 6750 2.1.
    Bearer,
    Percent,
    Base64Url,
    Base64Any,
}

/// A credential as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Credential<'a> {
    value: &'a [u8],
    encoding: Encoding,
}

impl Credential<'_> {
    /// The token; `None` if it is malformed: too long, wrongly encoded, empty, not UTF-8, or with control characters.
    pub(super) fn decode(self) -> Option<String> {
        if self.value.len() > MAX_LENGTH {
            return None;
        }
        let bytes = match self.encoding {
            Encoding::Plain => self.value.to_vec(),
            Encoding::Bearer => is_b64token(self.value).then(|| self.value.to_vec())?,
            Encoding::Percent => percent_decode(self.value)?,
            Encoding::Base64Url => URL_SAFE_NO_PAD.decode(self.value).ok()?,
            Encoding::Base64Any => {
                let to_standard = |&byte: &u8| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => byte,
                };
                let standard = self.value.iter().map(to_standard).collect::<Vec<_>>();
                STANDARD_NO_PAD.decode(standard).ok()?
            }
        };
        let token = String::from_utf8(bytes).ok()?;
        (!token.is_empty() && !token.contains(char::is_control)).then_some(token)
    }
}

fn is_b64token(value: &[u8]) -> bool {
    let unpadded = value.iter().rposition(|&byte| byte != b'=').map_or(&value[..0], |last| &value[..=last]);
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !unpadded.is_empty() && unpadded.iter().all(is_allowed)
}

/// Unlike the library's, it does not let a `%` through that is not followed by two hexadecimal digits.
fn percent_decode(value: &[u8]) -> Option<Vec<u8>> {
    let well_formed = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let mut percents = value.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    percents.all(|(at, _)| well_formed(&value[at + 1..])).then(|| percent_encoding::percent_decode(value).collect())
}
