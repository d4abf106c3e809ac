use std::{
    borrow::Cow,
    error::Error,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use http::{HeaderMap, HeaderValue, header::ORIGIN};

use super::field::{SingletonField, all_in, alphanumeric_and, trim};

/// The maximum length in bytes. Browsers send less, because a name has 253 bytes at most.
const MAX_LENGTH: usize = 512;
const TOO_LONG: InvalidOrigin = InvalidOrigin("an origin has at most 512 bytes");

/// The origin of a request: the page that opens the socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the three cases of the Fetch standard")]
pub enum RequestOrigin<'a> {
    /// There is no `Origin`, or it is empty. Browsers always send one on a WebSocket handshake,
    /// other clients rarely do.
    Missing,
    /// `null`: an opaque origin, such as that of a sandboxed frame or a `data:` page. Any page can
    /// obtain it.
    Null,
    /// A scheme, a host and a port.
    Tuple(Origin<'a>),
}

/// The reason why `Origin` is not a [`RequestOrigin`].
pub(crate) enum OriginError<'a> {
    Repeated,
    Invalid(&'a HeaderValue, InvalidOrigin),
}

impl<'a> RequestOrigin<'a> {
    pub(crate) fn parse(line: SingletonField<'a>) -> Result<Self, OriginError<'a>> {
        let value = match line {
            SingletonField::Absent => return Ok(Self::Missing),
            SingletonField::One(value) => value,
            SingletonField::Repeated => return Err(OriginError::Repeated),
        };
        match trim(value.as_bytes()) {
            b"" => Ok(Self::Missing),
            b"null" => Ok(Self::Null),
            origin => match Origin::parse(origin) {
                Ok(origin) => Ok(Self::Tuple(origin)),
                Err(invalid) => Err(OriginError::Invalid(value, invalid)),
            },
        }
    }

    #[cfg(feature = "tickets")]
    pub(crate) fn from_headers(headers: &'a HeaderMap) -> Result<Self, OriginError<'a>> {
        Self::parse(line(headers))
    }
}

/// The line of `Origin`.
pub(crate) fn line(headers: &HeaderMap) -> SingletonField<'_> {
    let mut line = SingletonField::default();
    headers.get_all(ORIGIN).iter().for_each(|value| line.add(value));
    line
}

/// A tuple origin, `scheme://host[:port]` (WHATWG HTML 7.1.1, Fetch 3.2), in its normal form.
///
/// The parser is strict, because a URL parser accepts values that only look like an allowed origin,
/// such as `https://app.example.com@evil.example`. Clients that are not browsers write an origin in
/// other ways without meaning another one, so these are equal:
///
/// - upper and lower case;
/// - the default port of the scheme, and none;
/// - the spellings of an IPv6 address;
/// - `ws` and `http`, `wss` and `https`: some clients derive the origin from the URL of the socket,
///   and no page has such an origin.
///
/// `Origin<'static>` is an owned value. `Display` writes the normal form.
///
/// ```
/// use tower_ws_guard::Origin;
///
/// let origin = Origin::parse(b"https://app.example.com:8443").unwrap();
/// assert_eq!(origin.scheme(), "https");
/// assert_eq!(origin.host(), "app.example.com");
/// assert_eq!(origin.port(), Some(8443));
/// assert!(Origin::parse(b"https://app.example.com@evil.example").is_err());
///
/// let owned: Origin<'static> = "wss://App.Example.com:443".parse()?;
/// assert_eq!(owned.to_string(), "https://app.example.com");
/// assert_eq!(owned, "https://app.example.com".parse()?);
/// # Ok::<_, tower_ws_guard::InvalidOrigin>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin<'a> {
    scheme: Cow<'a, str>,
    host: Cow<'a, str>,
    /// `None` for the default port of the scheme.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Parses ASCII, at most 512 bytes as sent and in the normal form:
    ///
    /// - for `http`, `https`, `ws`, `wss` and `ftp`, a name in punycode, an IPv4 address in its
    ///   usual form, or an IPv6 address in brackets. One trailing dot belongs to the name: it makes
    ///   another origin. `_` is allowed;
    /// - for other schemes (`chrome-extension`, `app`, `qrc`, …), any host of the characters of
    ///   RFC 3986 `reg-name` but `%` and `,`, or none: `scheme:` or `scheme://`;
    /// - a port of 1 to 65535 without leading zeros, or none. `file` has none.
    ///
    /// # Errors
    ///
    /// The value is anything else, including `null`, which is not a tuple origin.
    pub fn parse(value: &'a [u8]) -> Result<Self, InvalidOrigin> {
        if value.len() > MAX_LENGTH {
            return Err(TOO_LONG);
        }
        let value = match std::str::from_utf8(value) {
            Ok(value) if value.is_ascii() => value,
            _ => return Err(InvalidOrigin("an origin is ASCII; write the name in punycode")),
        };
        let (scheme, authority) = split_scheme(value)?;
        // The normal form of `wss://…` and of `qrc:` is longer, and must parse, too.
        if scheme.len() + "://".len() + authority.len() > MAX_LENGTH {
            return Err(TOO_LONG);
        }
        let is_of_web = matches!(&*scheme, "http" | "https" | "ftp");
        // Shorter than a search for a substring, because most origins have few bytes.
        let colon = authority.bytes().rposition(|byte| byte == b':');
        let (host, port) = match colon {
            Some(colon) if !authority.ends_with(']') => {
                (&authority[..colon], Some(&authority[colon + 1..]))
            }
            _ => (authority, None),
        };
        let invalid = || InvalidOrigin::from_authority(authority);
        let host = if is_of_web { parse_host(host) } else { parse_opaque_host(host) };
        let host = host.ok_or_else(invalid)?;
        let port = match port {
            // WHATWG URL 4.2: `file` has no port. And a port needs a host.
            Some(_) if scheme == "file" || host.is_empty() => return Err(invalid()),
            Some(port) => Some(parse_port(port).ok_or_else(invalid)?),
            None => None,
        };
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Ok(Self { scheme, host, port })
    }

    /// Makes an owned value.
    #[must_use]
    pub fn into_owned(self) -> Origin<'static> {
        Origin {
            scheme: self.scheme.into_owned().into(),
            host: self.host.into_owned().into(),
            port: self.port,
        }
    }

    /// The scheme, in lower case: `http` and `https` for `ws` and `wss`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, in lower case, with the trailing dot if there is one. An IPv6 address is in
    /// brackets. Empty for `file://` and the like.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535. `None` for the default port of the scheme.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port, or the default port of the scheme. `None` if the scheme has none.
    #[must_use]
    pub fn effective_port(&self) -> Option<u16> {
        self.port.or_else(|| default_port(&self.scheme))
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Origin<'static> {
    type Err = InvalidOrigin;

    fn from_str(value: &str) -> Result<Self, InvalidOrigin> {
        Origin::parse(value.as_bytes()).map(Origin::into_owned)
    }
}

/// As a string, in the normal form.
#[cfg(feature = "serde")]
impl serde::Serialize for Origin<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Origin<'static> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Cow::<str>::deserialize(deserializer)?;
        value.parse().map_err(|error| serde::de::Error::custom(format!("`{value}`: {error}")))
    }
}

/// Splits `scheme://authority`.
fn split_scheme(value: &str) -> Result<(Cow<'_, str>, &str), InvalidOrigin> {
    const MISSING: InvalidOrigin =
        InvalidOrigin("the scheme is missing; write `https://` before the host");

    // Most origins begin so.
    if let Some(authority) = value.strip_prefix("https://") {
        return Ok(("https".into(), authority));
    }
    let (scheme, rest) = value.split_once(':').ok_or(MISSING)?;
    if !is_scheme(scheme.as_bytes()) {
        return Err(InvalidOrigin("the scheme is malformed"));
    }
    let scheme = match lower_case(scheme) {
        scheme if scheme == "ws" => "http".into(),
        scheme if scheme == "wss" => "https".into(),
        scheme => scheme,
    };
    match rest.strip_prefix("//") {
        Some(authority) => Ok((scheme, authority)),
        // Qt sends `qrc:`.
        None if rest.is_empty() && !matches!(&*scheme, "http" | "https" | "ftp") => {
            Ok((scheme, ""))
        }
        None => Err(MISSING),
    }
}

pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    static SCHEME: [bool; 256] = alphanumeric_and(b"+-.");
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && all_in(&SCHEME, scheme)
}

pub(super) fn lower_case(value: &str) -> Cow<'_, str> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        value.to_ascii_lowercase().into()
    } else {
        value.into()
    }
}

/// Parses a host as a browser does, but only in the forms that it sends, and in any case.
pub(crate) fn parse_host(host: &str) -> Option<Cow<'_, str>> {
    if host.starts_with('[') {
        return parse_ipv6(host);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let (mut last, mut has_upper_case) = (0, false);
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => has_upper_case = true,
            b'.' if i > last => last = i + 1,
            _ => return None,
        }
    }
    let last = &name[last..];
    // Browsers parse a host whose last label is a number as an IPv4 address, and send one form of
    // it.
    let is_valid = !last.is_empty() && (!is_number(last) || host.parse::<Ipv4Addr>().is_ok());
    is_valid.then(|| match has_upper_case {
        true => host.to_ascii_lowercase().into(),
        false => host.into(),
    })
}

/// Whether a label is a number to the IPv4 parser (WHATWG URL 3.5).
pub(super) fn is_number(label: &str) -> bool {
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Most labels end here.
    if label.starts_with(|first: char| !first.is_ascii_digit()) {
        return false;
    }
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(is_hexadecimal)
        || label.strip_prefix("0X").is_some_and(is_hexadecimal)
}

/// Parses a host of a scheme that is not the web's. It may be empty.
fn parse_opaque_host(host: &str) -> Option<Cow<'_, str>> {
    /// `reg-name` of RFC 3986 3.2.2 without `%` and `,`.
    static OPAQUE: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+;=");
    if host.starts_with('[') {
        return parse_ipv6(host);
    }
    all_in(&OPAQUE, host.as_bytes()).then(|| lower_case(host))
}

/// Parses an IPv6 address in brackets. WHATWG URL 3.5 serializes it as RFC 5952, but without an
/// embedded IPv4 address.
pub(super) fn parse_ipv6(host: &str) -> Option<Cow<'_, str>> {
    let address: Ipv6Addr = host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    let normal = match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, a, b] => format!("[::ffff:{a:x}:{b:x}]"),
        _ => format!("[{address}]"),
    };
    Some(if normal == host { host.into() } else { normal.into() })
}

fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !port.starts_with('0')).then_some(port)?.parse().ok()
}

/// The reason why a value is not a serialized origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin(pub(crate) &'static str);

impl InvalidOrigin {
    /// Names the fault in the part after `scheme://`.
    fn from_authority(authority: &str) -> Self {
        let fault = authority.find(['/', '?', '#', '@', '%', '*', ',', ' ']);
        Self(match fault.map(|at| authority.as_bytes()[at]) {
            Some(b'/') => "an origin has no path and no trailing slash",
            Some(b'?') => "an origin has no query",
            Some(b'#') => "an origin has no fragment",
            Some(b'@') => "an origin has no user name",
            Some(b'%') => "an origin has no percent signs; write the name in punycode",
            Some(b'*') => {
                "`*` can replace only the first labels (`https://*.example.com`) or the port \
                 (`http://localhost:*`)"
            }
            Some(_) => "an origin is one value, not a list",
            None if authority.starts_with('[') => "the IPv6 address or the port is malformed",
            None if authority.is_empty() => "the host is missing",
            None => "the host or the port is malformed; write them as browsers do",
        })
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_parsed_strictly_and_normalized() {
        for (valid, normal) in [
            ("https://app.example.com", ""),
            ("http://localhost:5173", ""),
            ("http://127.0.0.1:3000", ""),
            ("http://[::1]", ""),
            ("https://[2001:db8::1]:8443", ""),
            ("https://xn--bcher-kva.example", ""),
            ("https://my_app.example.com", ""),
            ("http://localhost.:3000", ""),
            ("http://0xbox:3000", ""),
            ("https://a:1", ""),
            ("https://a:65535", ""),
            ("HTTPS://App.Example.COM", "https://app.example.com"),
            ("https://a:443", "https://a"),
            ("http://a:443", ""),
            ("ws://a:80", "http://a"),
            ("WSS://a:443", "https://a"),
            ("wss://a:80", "https://a:80"),
            ("http://[0:0::1]:3000", "http://[::1]:3000"),
            ("http://[2001:DB8:0:0::01]", "http://[2001:db8::1]"),
            ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
            ("http://[::127.0.0.1]", "http://[::7f00:1]"),
            ("chrome-extension://abcdefghijklmnopabcdefghijklmnop", ""),
            ("tauri://localhost", ""),
            ("app://a:80", ""),
            ("app://.", ""),
            ("app://a..b", ""),
            ("app://127.1", ""),
            ("file://", ""),
            ("qrc://", ""),
            ("qrc:", "qrc://"),
            ("file:", "file://"),
        ] {
            let origin = Origin::parse(valid.as_bytes()).map(|origin| origin.to_string());
            let normal = if normal.is_empty() { valid } else { normal };
            assert_eq!(origin.as_deref(), Ok(normal), "{valid}");
            assert_eq!(valid.parse(), normal.parse::<Origin<'_>>(), "{valid}");
        }
        for invalid in [
            "",
            "null",
            "app.example.com",
            "//app.example.com",
            "://a",
            "localhost:3000",
            "https:",
            "ws://",
            "ftp:",
            "https:app.example.com",
            "https:/a",
            "https://",
            "1s://a",
            "https://a/",
            "https://a/path",
            "https://a?q",
            "https://a#f",
            "https://u@a",
            "https://u:p@a",
            "https://a@b",
            "https://a\\b",
            "https://a%2eb",
            "https://a,https://b",
            "https://a https://b",
            "https://a\t",
            " https://a",
            "https://a:",
            "https://a:0",
            "https://a:080",
            "https://a:+80",
            "https://a:65536",
            "https://a:100000",
            "https://a:80:80",
            "https://a:80a",
            "https://.",
            "https://.a",
            "https://a..",
            "https://a..b",
            "https://*.a",
            "https://127.1",
            "https://1",
            "https://1.",
            "https://0x7f.1",
            "https://a.0x",
            "https://a.0X",
            "https://0x7f000001",
            "https://01.2.3.4",
            "https://256.1.1.1",
            "https://127.0.0.1.",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[::1].",
            "https://[::1]:",
            "https://[::G]",
            "https://[fe80::1%25eth0]",
            "https://[::0001:00002]",
            "https://[]",
            "https://b\u{fc}cher.example",
            "qrc:a",
            "qrc:/",
            "qrc:///",
            "app://a/b",
            "app://a,b",
            "app://a%20b",
            "app://u@a",
            "app://:80",
            "app://a:",
            "app://a:0",
            "app://[a]",
            "file://:80",
            "file://a:80",
        ] {
            let why = Origin::parse(invalid.as_bytes()).map_err(|invalid| invalid.to_string());
            assert!(why.is_err_and(|why| !why.is_empty()), "{invalid}");
        }
        assert!(Origin::parse(b"https://b\xfccher").is_err());
        for (length, start, parses) in [
            (512, "https://", true),
            (513, "https://", false),
            (510, "wss://", true),
            (511, "wss://", false),
        ] {
            let origin = format!("{start}{}", "a".repeat(length - start.len()));
            assert_eq!(Origin::parse(origin.as_bytes()).is_ok(), parses, "{length} {start}");
        }
        let of_scheme = |length: usize| format!("{}:", "a".repeat(length - 1));
        assert!(Origin::parse(of_scheme(510).as_bytes()).is_ok());
        assert!(Origin::parse(of_scheme(511).as_bytes()).is_err());
    }
}
