use std::{fmt, net::Ipv6Addr};

use super::field::{all_in, alphanumeric_and};

/// A valid `Host` or `:authority`: a name or an address, and the port if one was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    name: &'a str,
    port: Option<u32>,
}

impl<'a> Host<'a> {
    /// Parses `host [":" port]` of RFC 3986 3.2.2, without userinfo. A colon needs a port of 1 to 5
    /// digits behind it.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        // Most hosts are a name without a port.
        if !value.is_empty() && all_in(&UNRESERVED_AND_SUB_DELIMS, value) {
            return Some(Self { name: std::str::from_utf8(value).ok()?, port: None });
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
        let name = std::str::from_utf8(name).ok()?;
        let valid = match name.strip_prefix('[') {
            Some(literal) => is_ip_literal(literal.strip_suffix(']')?),
            None => is_reg_name(name.as_bytes()),
        };
        valid.then_some(Self { name, port })
    }

    /// The name or address as it was sent, in any case. An IPv6 address is in brackets.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The port, if one was sent: 0 to 99999.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        self.port
    }

    /// Whether name and port are equal. The case of the name does not matter.
    pub(crate) fn matches(&self, other: Host<'_>) -> bool {
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
            assert_eq!(Host::parse(value.as_bytes()), Some(Host { name, port }), "{value}");
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
            assert_eq!(Host::parse(value.as_bytes()), None, "{value}");
        }
    }
}
