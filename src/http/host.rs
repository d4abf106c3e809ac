use std::{
    borrow::Cow,
    error::Error,
    fmt,
    hash::{Hash, Hasher},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    field::{all_in, alphanumeric_and},
    origin::{is_number, lower_case, parse_ipv6},
};

/// A valid `Host` or `:authority`: a name or an address, and the port if one was sent.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// ASCII. As bytes, because few policies read it as text.
    name: &'a [u8],
    port: Option<u32>,
}

impl<'a> Host<'a> {
    /// Parses `host [":" port]` of RFC 3986 3.2.2, without userinfo. A colon needs a port of 1 to 5
    /// digits behind it.
    ///
    /// # Errors
    ///
    /// The value is anything else.
    ///
    /// ```
    /// use tower_ws_guard::Host;
    ///
    /// let host = Host::parse(b"[::1]:3000").unwrap();
    /// assert_eq!((host.name(), host.port()), ("[::1]", Some(3000)));
    /// assert!(Host::parse(b"::1:3000").unwrap_err().to_string().contains("brackets"));
    /// ```
    pub fn parse(value: &'a [u8]) -> Result<Self, InvalidHost> {
        Self::parse_valid(value).ok_or_else(|| InvalidHost::new(value))
    }

    fn parse_valid(value: &'a [u8]) -> Option<Self> {
        // Most hosts are a name without a port.
        if !value.is_empty() && all_in(&UNRESERVED_AND_SUB_DELIMS, value) {
            return Some(Self { name: value, port: None });
        }
        // The only colon outside of brackets separates the port.
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
        let valid = match name {
            [b'[', literal @ .., b']'] => is_ip_literal(std::str::from_utf8(literal).ok()?),
            name => is_reg_name(name),
        };
        valid.then_some(Self { name, port })
    }

    /// The name or address as it was sent, in any case. An IPv6 address is in brackets.
    #[must_use]
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    /// The port, if one was sent: 0 to 99999.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        self.port
    }

    /// Whether an origin's host is this one. Its trailing dot, or that of the name, counts.
    pub(crate) fn is_named(&self, origin_host: &str) -> bool {
        self.name.eq_ignore_ascii_case(origin_host.as_bytes())
            || parse_ipv6(self.name()).is_some_and(|address| address == origin_host)
    }

    /// Whether both address the same server. `default_port` equals none.
    pub(crate) fn is_same(&self, other: Host<'_>, default_port: Option<u32>) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.or(default_port) == other.port.or(default_port)
    }

    /// The name in the form in which names are compared with a list: in lower case and without a
    /// trailing dot, and an IP address in its normal form, however it was written. Use it as a key.
    ///
    /// ```
    /// use tower_ws_guard::Host;
    ///
    /// assert_eq!(Host::parse(b"Chat.Example.com.:443").unwrap().normal_name(), "chat.example.com");
    /// ```
    #[must_use]
    pub fn normal_name(&self) -> Cow<'a, str> {
        let name = self.name();
        if let Some(address) = parse_ipv6(name) {
            return address;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        match parse_ipv4(name) {
            Some(address) => address.to_string().into(),
            None => lower_case(name),
        }
    }
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name()).field("port", &self.port).finish()
    }
}

/// By [`normal_name`](Host::normal_name) and the port as it was sent.
impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.normal_name() == other.normal_name()
    }
}

impl Eq for Host<'_> {}

impl Hash for Host<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.normal_name(), self.port).hash(state);
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The reason why a value is not a [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost(pub(crate) &'static str);

impl InvalidHost {
    fn new(value: &[u8]) -> Self {
        let is_bare_ipv6 = || {
            // With or without a port behind it.
            let value = std::str::from_utf8(value).unwrap_or_default();
            let is_address = |value: &str| value.parse::<Ipv6Addr>().is_ok();
            is_address(value) || value.rsplit_once(':').is_some_and(|(host, _)| is_address(host))
        };
        Self(match value {
            [] => "the host is empty",
            [.., b':'] => "there is no port behind the colon",
            _ if !value.is_ascii() => "a host is ASCII; write the name in punycode",
            _ if value.contains(&b'/') => "a host has no scheme and no path",
            _ if value.contains(&b'@') => "a host has no user name",
            _ if is_bare_ipv6() => "an IPv6 address needs brackets: `[::1]` or `[::1]:3000`",
            _ => "write `name` or `name:port`",
        })
    }
}

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidHost {}

/// Parses an IPv4 address in each form that a URL can have (WHATWG URL 3.5): of 1 to 4 numbers,
/// decimal, octal or hexadecimal.
fn parse_ipv4(name: &str) -> Option<Ipv4Addr> {
    let last = name.rsplit('.').next()?;
    // Most names end here.
    if !is_number(last) {
        return None;
    }
    let (mut address, mut bits_left) = (0, 32_u32);
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        // All numbers but the last are one byte each.
        let bits = if parts.peek().is_some() { 8 } else { bits_left };
        let number = parse_ipv4_number(part)?;
        if bits == 0 || number >> bits != 0 {
            return None;
        }
        bits_left = bits_left.checked_sub(bits)?;
        address = (address << bits) | number;
    }
    u32::try_from(address).ok().map(Ipv4Addr::from)
}

fn parse_ipv4_number(part: &str) -> Option<u64> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (&part[1..], 8),
        _ => (part, 10),
    };
    match digits {
        // `0x` is zero.
        "" if radix == 16 => Some(0),
        _ if digits.starts_with('+') => None,
        _ => u32::from_str_radix(digits, radix).ok().map(u64::from),
    }
}

/// Parses 1 to 5 digits.
fn parse_port(digits: &[u8]) -> Option<u32> {
    if !matches!(digits.len(), 1..=5) {
        return None;
    }
    digits.iter().try_fold(0, |port, digit| {
        digit.is_ascii_digit().then(|| port * 10 + u32::from(digit - b'0'))
    })
}

/// `unreserved` and `sub-delims` of RFC 3986 2.
static UNRESERVED_AND_SUB_DELIMS: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+,;=");

/// Whether `name` is a `reg-name` of RFC 3986 3.2.2, and not empty.
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(other) =
        rest.iter().position(|&byte| !UNRESERVED_AND_SUB_DELIMS[usize::from(byte)])
    {
        rest = match &rest[other..] {
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// Whether `literal` may stand between the brackets of an `IP-literal` (RFC 3986 3.2.2).
fn is_ip_literal(literal: &str) -> bool {
    if let Some(future) = literal.strip_prefix(['v', 'V']) {
        return future.split_once('.').is_some_and(|(version, address)| {
            let is_address =
                |byte: u8| byte == b':' || UNRESERVED_AND_SUB_DELIMS[usize::from(byte)];
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && address.bytes().all(is_address)
        });
    }
    literal.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for (value, name, port) in [
            ("chat.example.com", "chat.example.com", None),
            ("CHAT.example.com:3000", "CHAT.example.com", Some(3000)),
            ("localhost:0", "localhost", Some(0)),
            ("a:99999", "a", Some(99_999)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("[v1.a:b]", "[v1.a:b]", None),
            ("a%2Fb", "a%2Fb", None),
            ("a_b~!$&'()*+,;=", "a_b~!$&'()*+,;=", None),
        ] {
            assert_eq!(
                Host::parse(value.as_bytes()),
                Ok(Host { name: name.as_bytes(), port }),
                "{value}"
            );
        }
        for value in [
            "",
            ":80",
            "a:",
            "a:123456",
            "a:+1",
            "a:8 0",
            "a:b",
            "::1",
            "[::1",
            "[::1]x",
            "[]",
            "[::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[g::1]",
            "user@a",
            "a/b",
            "a?b",
            "a b",
            "a%2",
            "a%2g",
            "a\\b",
            "\u{fc}",
        ] {
            let why = Host::parse(value.as_bytes()).unwrap_err().to_string();
            assert!(!why.is_empty(), "{value}");
        }
    }

    #[test]
    fn a_name_has_one_normal_form() {
        for (name, normal) in [
            ("Chat.Example.COM", "chat.example.com"),
            ("chat.example.com.", "chat.example.com"),
            ("chat.example.com..", "chat.example.com."),
            ("[0:0::1]", "[::1]"),
            ("[::FFFF:127.0.0.1]", "[::ffff:7f00:1]"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("0177.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("127.65536", "127.1.0.0"),
            ("0x", "0.0.0.0"),
            ("4294967296", "4294967296"),
            ("127.0.0.256", "127.0.0.256"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("256.1", "256.1"),
            ("127.16777216", "127.16777216"),
            ("09", "09"),
            ("a.1", "a.1"),
        ] {
            let host = Host::parse(name.as_bytes()).unwrap();
            assert_eq!(host.normal_name(), normal, "{name}");
        }
    }
}
