//! WHATWG: HTML 7.1.1 and Fetch 3.2 for the serialization of an origin, URL 3.5 and 4.3 for its host; and the other ways to write one
//! that are documented, as the same origin.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A tuple origin, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub scheme: String,
    pub host: String,
    pub port: Option<u16>,
}

pub fn default_port(scheme: &str) -> Option<u32> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

/// A WebSocket URL has the origin of the page's scheme.
fn page_scheme(scheme: &str) -> &str {
    match scheme {
        "ws" => "http",
        "wss" => "https",
        _ => scheme,
    }
}

impl Origin {
    /// 512 bytes are documented as the most, of the value and of its normal form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 512)?;
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme_char =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
            || !scheme.bytes().all(is_scheme_char)
        {
            return None;
        }
        let has_domain = default_port(scheme).is_some();
        let (host, port) = match rest.strip_prefix("//") {
            Some(rest) => split_port(rest)?,
            None if rest.is_empty() => ("", None),
            None => return None,
        };
        let authority = rest.strip_prefix("//").unwrap_or(rest);
        if format!("{}://{authority}", page_scheme(scheme)).len() > 512 {
            return None;
        }
        let host = match host.strip_prefix('[') {
            Some(literal) => canonical(literal.strip_suffix(']')?.parse().ok()?),
            None if has_domain => Some(host).filter(|host| is_domain(host))?.to_owned(),
            None => Some(host).filter(|host| host.bytes().all(is_opaque))?.to_owned(),
        };
        let port = match port {
            None => None,
            // No file has a port (URL 4.2), and no port is without a host.
            Some(_) if scheme == "file" || host.is_empty() => return None,
            Some(digits) => Some(
                digits
                    .parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0 && port.to_string() == digits)?,
            ),
        };
        Some(Self { scheme: page_scheme(scheme).to_owned(), host, port })
    }

    pub fn effective_port(&self) -> Option<u32> {
        self.port.map(u32::from).or(default_port(&self.scheme))
    }

    /// `pattern` is one of a configuration, known to be right.
    pub fn matches(&self, pattern: &str) -> bool {
        let pattern = pattern.to_ascii_lowercase();
        let (scheme, rest) = pattern.split_once(':').expect("a pattern");
        let (host, port) =
            split_port(rest.strip_prefix("//").unwrap_or_default()).expect("a pattern");
        let host_matches = match (host.strip_prefix("*."), ipv6(host)) {
            (Some(parent), _) => is_below(&self.host, parent),
            (None, Some(address)) => self.host == canonical(address),
            (None, None) if host == "*" => !self.host.is_empty(),
            (None, None) => self.host == host,
        };
        let port_matches = match port {
            Some("*") => true,
            Some(port) => self.effective_port() == port.parse().ok(),
            None => self.effective_port() == default_port(scheme),
        };
        self.scheme == page_scheme(scheme) && host_matches && port_matches
    }
}

/// What is in front of the colon of a port, and what is behind it.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let end_of_host = match text.starts_with('[') {
        true => text.find(']')? + 1,
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end_of_host);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        None => None,
        port => Some((host, port)),
    }
}

/// Whether one label or several stand in front of `parent`.
pub fn is_below(name: &str, parent: &str) -> bool {
    let labels = name.strip_suffix(parent).and_then(|labels| labels.strip_suffix('.'));
    labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
}

/// Labels of letters in lower case, digits, hyphens and underscores, and perhaps the dot of the root; if it ends in a number, an IPv4
/// address as URL 3.5 serializes it, without a dot behind it.
fn is_domain(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal =
        last.strip_prefix("0x").is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_number = is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit());
    let is_ipv4 = || host.parse::<Ipv4Addr>().is_ok_and(|address| address.to_string() == host);
    name.split('.').all(is_label) && (!is_number || is_ipv4())
}

/// RFC 3986 2.2 and 2.3: unreserved characters and sub-delimiters, but for the comma, which would make a list of it.
fn is_opaque(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

pub fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// As URL 3.5 serializes it: the first of the longest runs of two or more zero pieces is compressed; no IPv4 address is ever embedded.
pub fn canonical(address: Ipv6Addr) -> String {
    let pieces = address.segments();
    let zeros = |start: usize| pieces[start..].iter().take_while(|piece| **piece == 0).count();
    let longest = (0..8).map(zeros).max().unwrap_or_default();
    let hexadecimal = |pieces: &[u16]| {
        pieces.iter().map(|piece| format!("{piece:x}")).collect::<Vec<_>>().join(":")
    };
    match (0..8).find(|&start| longest > 1 && zeros(start) == longest) {
        Some(start) => format!(
            "[{}::{}]",
            hexadecimal(&pieces[..start]),
            hexadecimal(&pieces[start + longest..])
        ),
        None => format!("[{}]", hexadecimal(&pieces)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_in_several_spellings() {
        for (value, triple) in [
            ("HTTPS://App.Example.COM", Some(("https", "app.example.com", Some(443)))),
            ("wss://app.example.com:443", Some(("https", "app.example.com", Some(443)))),
            ("ws://a", Some(("http", "a", Some(80)))),
            ("http://[0:0:0:0:0:0:0:1]:3000", Some(("http", "[::1]", Some(3000)))),
            ("http://[::FFFF:127.0.0.1]", Some(("http", "[::ffff:7f00:1]", Some(80)))),
            ("http://localhost.:3000", Some(("http", "localhost.", Some(3000)))),
            ("qrc:", Some(("qrc", "", None))),
            ("file://", Some(("file", "", None))),
            ("app://.", Some(("app", ".", None))),
            ("x://a!b~c", Some(("x", "a!b~c", None))),
            ("x://[::1]:80", Some(("x", "[::1]", Some(80)))),
            ("http://localhost..:3000", None),
            ("http://127.0.0.1.", None),
            ("http://0x7f.", None),
            ("http://127.1", None),
            ("http://.", None),
            ("https:", None),
            ("https://", None),
            ("wss:", None),
            ("qrc:a", None),
            ("qrc:/", None),
            ("qrc:///", None),
            ("x://:80", None),
            ("file://a:80", None),
            ("x://a,b", None),
            ("x://a%41", None),
            ("x://a@b", None),
            ("http://[fe80::1%25eth0]", None),
            ("http://[::1", None),
            ("http://[::1]x", None),
        ] {
            let parsed = Origin::parse(value.as_bytes());
            let parsed = parsed.as_ref().map(|it| (&*it.scheme, &*it.host, it.effective_port()));
            assert_eq!(parsed, triple, "{value}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, value, matches) in [
            ("wss://Chat.example.com", "https://chat.example.com:443", true),
            ("https://chat.example.com:443", "wss://chat.example.com", true),
            ("https://chat.example.com", "ws://chat.example.com", false),
            ("http://[0:0::1]:3000", "http://[::1]:3000", true),
            ("http://localhost.:3000", "http://localhost.:3000", true),
            ("http://localhost:3000", "http://localhost.:3000", false),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://a.example.com.", false),
            ("ws://*.example.com:*", "http://a.example.com:5173", true),
            ("moz-extension://*", "moz-extension://0f2b5e5c-8c1f", true),
            ("moz-extension://*", "moz-extension://0f2b5e5c-8c1f:1", false),
            ("moz-extension://*", "moz-extension:", false),
            ("moz-extension://*", "chrome-extension://0f2b5e5c-8c1f", false),
            ("qrc:", "qrc:", true),
            ("app://.", "app://.", true),
        ] {
            let origin = Origin::parse(value.as_bytes()).expect("an origin");
            assert_eq!(origin.matches(pattern), matches, "{pattern} {value}");
        }
    }
}
