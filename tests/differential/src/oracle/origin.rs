//! WHATWG: HTML 7.1.1 and Fetch 3.2 for the serialization of an origin, URL 3.5 and 4.3 for its host.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A serialized tuple origin.
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

impl Origin {
    /// 512 bytes are documented as the most.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 512)?;
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme_char =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
            || !scheme.bytes().all(is_scheme_char)
        {
            return None;
        }
        let end_of_host = match rest.starts_with('[') {
            true => rest.find(']')? + 1,
            false => rest.find(':').unwrap_or(rest.len()),
        };
        let (host, port) = rest.split_at(end_of_host);
        let is_host = match host.strip_prefix('[') {
            Some(literal) => is_ipv6(literal.strip_suffix(']')?),
            None => is_name(host) || host.is_empty() && scheme == "file",
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            // No file has a port (URL 4.2).
            Some(digits) if scheme != "file" => Some(
                digits
                    .parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0 && port.to_string() == digits)?,
            ),
            _ => return None,
        };
        is_host.then(|| Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }

    pub fn effective_port(&self) -> Option<u32> {
        self.port.map(u32::from).or(default_port(&self.scheme))
    }

    /// `pattern` is one of a configuration, known to be right.
    pub fn matches(&self, pattern: &str) -> bool {
        let (scheme, rest) = pattern.split_once("://").expect("a pattern");
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let host_matches = match host.strip_prefix('*') {
            Some(suffix) => self.host.ends_with(suffix) && self.host.len() > suffix.len(),
            None => self.host == host,
        };
        let port_matches = match port {
            Some("*") => true,
            Some(port) => self.effective_port() == port.parse().ok(),
            None => self.effective_port() == default_port(scheme),
        };
        self.scheme == scheme && host_matches && port_matches
    }
}

/// Labels of letters in lower case, digits, hyphens and underscores; if it ends in a number, an IPv4 address (URL 3.5).
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal =
        last.strip_prefix("0x").is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_number = is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit());
    let is_ipv4 = || host.parse::<Ipv4Addr>().is_ok_and(|address| address.to_string() == host);
    host.split('.').all(is_label) && (!is_number || is_ipv4())
}

/// Whether it is written as URL 3.5 serializes it.
fn is_ipv6(literal: &str) -> bool {
    literal.parse::<Ipv6Addr>().is_ok_and(|address| serialize(address) == literal)
}

/// The first of the longest runs of two or more zero pieces is compressed; no IPv4 address is ever embedded.
fn serialize(address: Ipv6Addr) -> String {
    let pieces = address.segments();
    let zeros = |start: usize| pieces[start..].iter().take_while(|piece| **piece == 0).count();
    let longest = (0..8).map(zeros).max().unwrap_or_default();
    let hexadecimal = |pieces: &[u16]| {
        pieces.iter().map(|piece| format!("{piece:x}")).collect::<Vec<_>>().join(":")
    };
    match (0..8).find(|&start| longest > 1 && zeros(start) == longest) {
        Some(start) => format!(
            "{}::{}",
            hexadecimal(&pieces[..start]),
            hexadecimal(&pieces[start + longest..])
        ),
        None => hexadecimal(&pieces),
    }
}
