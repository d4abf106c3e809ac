use std::{
    error::Error,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::HeaderValue;
#[cfg(feature = "tickets")]
use http::{HeaderMap, header::ORIGIN};

use super::field::{SingletonField, trim};

/// The maximum length in bytes. Browsers send less, because a name has 253 bytes at most.
const MAX_LENGTH: usize = 512;

/// The origin of a request: the page that opens the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three cases of the Fetch standard")]
pub enum RequestOrigin<'a> {
    /// There is no `Origin`. Browsers always send one on a WebSocket handshake, other clients
    /// rarely do.
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
            b"null" => Ok(Self::Null),
            origin => match Origin::parse(origin) {
                Ok(origin) => Ok(Self::Tuple(origin)),
                Err(invalid) => Err(OriginError::Invalid(value, invalid)),
            },
        }
    }

    #[cfg(feature = "tickets")]
    pub(crate) fn from_headers(headers: &'a HeaderMap) -> Result<Self, OriginError<'a>> {
        let mut line = SingletonField::default();
        headers.get_all(ORIGIN).iter().for_each(|value| line.add(value));
        Self::parse(line)
    }
}

/// A serialized tuple origin: `scheme://host[:port]` (WHATWG HTML 7.1.1, Fetch 3.2).
///
/// The parser is strict and works on bytes, because a URL parser accepts values that only look like
/// an allowed origin, such as `https://app.example.com@evil.example`.
///
/// ```
/// use tower_ws_guard::Origin;
///
/// let origin = Origin::parse(b"https://app.example.com:8443").unwrap();
/// assert_eq!(origin.scheme(), "https");
/// assert_eq!(origin.host(), "app.example.com");
/// assert_eq!(origin.port(), Some(8443));
/// assert!(Origin::parse(b"https://app.example.com@evil.example").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Parses an origin as a browser sends it:
    ///
    /// - at most 512 bytes, in lower case, without path and trailing slash;
    /// - a name in punycode, or an IPv4 address in its usual form, or an IPv6 address in brackets
    ///   and in its shortest form;
    /// - a port of 1 to 65535 without leading zeros, or none.
    ///
    /// Schemes of extensions and applications (`chrome-extension`, `tauri`, …) and `_` in names are
    /// allowed. Only `file` may have an empty host, and it has no port.
    ///
    /// # Errors
    ///
    /// The value is anything else, including `null`, which is not a tuple origin.
    pub fn parse(value: &'a [u8]) -> Result<Self, InvalidOrigin> {
        if value.len() > MAX_LENGTH {
            return Err(InvalidOrigin("an origin has at most 512 bytes"));
        }
        let value = match std::str::from_utf8(value) {
            Ok(value) if value.is_ascii() => value,
            _ => return Err(InvalidOrigin("an origin is ASCII; write the name in punycode")),
        };
        let colon = value.bytes().position(|byte| byte == b':').unwrap_or(value.len());
        let (scheme, rest) = value.split_at(colon);
        let Some(rest) = rest.strip_prefix("://") else {
            return Err(InvalidOrigin("the scheme is missing; write `https://` before the host"));
        };
        if !is_scheme(scheme.as_bytes()) {
            return Err(InvalidOrigin("the scheme is malformed; write it in lower case"));
        }
        let (host, port) = match rest.bytes().rposition(|byte| byte == b':') {
            Some(colon) if !rest.ends_with(']') => (&rest[..colon], Some(&rest[colon + 1..])),
            _ => (rest, None),
        };
        // WHATWG URL 4.2: `file` may have an empty host and has no port.
        let is_valid = match scheme {
            "file" => port.is_none() && (host.is_empty() || is_host(host)),
            _ => is_host(host),
        };
        if !is_valid {
            return Err(InvalidOrigin::from_host(rest));
        }
        let port = match port {
            Some(port) => Some(parse_port(port).ok_or_else(|| InvalidOrigin::from_host(rest))?),
            None => None,
        };
        Ok(Self { scheme, host, port })
    }

    /// The scheme, in lower case.
    #[must_use]
    pub const fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// The host, in lower case; an IPv6 address is in brackets.
    #[must_use]
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// The port as it was sent: 1 to 65535, or `None` if there was none.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port, or the default port of the scheme: `https://a` and `https://a:443` are the same
    /// origin.
    #[must_use]
    pub fn effective_port(&self) -> Option<u16> {
        self.port.or_else(|| default_port(self.scheme))
    }

    pub(crate) fn is_ip(&self) -> bool {
        self.host.starts_with('[') || self.host.parse::<Ipv4Addr>().is_ok()
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

pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    let is_next = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')
    };
    scheme.first().is_some_and(u8::is_ascii_lowercase) && scheme.iter().all(is_next)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(is_ipv6);
    }
    let mut last = 0;
    for (i, byte) in host.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if i > last => last = i + 1,
            _ => return false,
        }
    }
    let last = &host[last..];
    // Browsers parse a host whose last label is a number as an IPv4 address, and send one form of
    // it.
    let is_hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(is_hexadecimal);
    !last.is_empty() && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// WHATWG URL 4.3 serializes IPv6 as RFC 5952, but without an embedded IPv4 address.
fn is_ipv6(address: &str) -> bool {
    address.parse::<Ipv6Addr>().is_ok_and(|parsed| {
        address
            == match parsed.segments() {
                [0, 0, 0, 0, 0, 0xffff, a, b] => format!("::ffff:{a:x}:{b:x}"),
                _ => parsed.to_string(),
            }
    })
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
    fn from_host(rest: &str) -> Self {
        Self(match rest.find(['/', '?', '#', '@', '*', ',', ' ']).map(|at| rest.as_bytes()[at]) {
            Some(b'/') => "an origin has no path and no trailing slash",
            Some(b'?') => "an origin has no query",
            Some(b'#') => "an origin has no fragment",
            Some(b'@') => "an origin has no user name",
            Some(b'*') => {
                "`*` can replace only the first labels (`https://*.example.com`) or the port \
                 (`http://localhost:*`)"
            }
            Some(_) => "an origin is one value, not a list",
            None if rest.starts_with('[') => {
                "the IPv6 address or the port is malformed; write the address in its shortest \
                 form, as browsers do"
            }
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
    fn an_origin_is_parsed_as_browsers_send_it() {
        for valid in [
            "https://app.example.com",
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "http://[::1]",
            "https://[2001:db8::1]:8443",
            "https://xn--bcher-kva.example",
            "https://my_app.example.com",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://0f2b5e5c-8c1f-4d3a-9f0e-1a2b3c4d5e6f",
            "tauri://localhost",
            "http://0xbox:3000",
            "vscode-webview://0a1b2c",
            "file://",
            "https://a:1",
            "https://a:65535",
        ] {
            let origin = Origin::parse(valid.as_bytes());
            assert_eq!(origin.map(|origin| origin.to_string()).as_deref(), Ok(valid));
        }
        for invalid in [
            "",
            "null",
            "app.example.com",
            "//app.example.com",
            "://a",
            "https:app.example.com",
            "https:/a",
            "https://",
            "1s://a",
            "HTTPS://a",
            "https://A",
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
            "https://.a",
            "https://a.",
            "https://a..b",
            "https://*.a",
            "https://127.1",
            "https://1",
            "https://0x7f.1",
            "https://a.0x",
            "https://0x7f000001",
            "https://01.2.3.4",
            "https://256.1.1.1",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[::1]:",
            "https://[::G]",
            "https://[::A]",
            "https://[fe80::1%25eth0]",
            "https://[0:0::1]",
            "https://[1:2:3:4:5:6:7::]",
            "https://[::01]",
            "file://:80",
            "file://a:80",
            "https://[::127.0.0.1]",
            "https://[]",
            "https://b\u{fc}cher.example",
        ] {
            let why = Origin::parse(invalid.as_bytes()).map_err(|invalid| invalid.to_string());
            assert!(why.is_err_and(|why| !why.is_empty()), "{invalid}");
        }
        assert!(Origin::parse(b"https://b\xfccher").is_err());
        let of_length = |length| format!("https://{}", "a".repeat(length - "https://".len()));
        assert!(Origin::parse(of_length(512).as_bytes()).is_ok());
        assert!(Origin::parse(of_length(513).as_bytes()).is_err());
    }
}
