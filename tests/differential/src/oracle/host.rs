//! A list of hosts, as `AllowHost` is documented: case, one dot at the end, the form of an address and the default ports are ignored.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Authority, authority,
    origin::{ipv6, is_below},
};

/// What a host stands for.
#[derive(PartialEq)]
enum Target {
    Name(String),
    Address(IpAddr),
}

fn target(host: &Authority) -> Target {
    let name = host.name.strip_suffix('.').unwrap_or(&host.name);
    let address = ipv6(name).map(IpAddr::V6).or_else(|| ipv4(name).map(IpAddr::V4));
    address.map_or_else(|| Target::Name(name.to_owned()), Target::Address)
}

/// `pattern` is one of a configuration, known to be right.
pub fn matches(pattern: &str, host: &Authority) -> bool {
    let (pattern, any_port) =
        pattern.strip_suffix(":*").map_or((pattern, false), |pattern| (pattern, true));
    let (pattern, below) =
        pattern.strip_prefix("*.").map_or((pattern, false), |parent| (parent, true));
    let pattern = authority(pattern).expect("a pattern");
    let port = |host: &Authority| host.port.filter(|port| ![80, 443].contains(port));
    let name_matches = match (target(&pattern), target(host)) {
        (Target::Name(parent), Target::Name(name)) if below => is_below(&name, &parent),
        (expected, target) => !below && expected == target,
    };
    name_matches && (any_port || port(&pattern) == port(host))
}

pub fn is_loopback(host: &Authority) -> bool {
    match target(host) {
        Target::Name(name) => name == "localhost" || is_below(&name, "localhost"),
        Target::Address(IpAddr::V4(address)) => address.octets()[0] == 127,
        Target::Address(IpAddr::V6(address)) => match address.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, _] => high >> 8 == 127,
            segments => segments == [0, 0, 0, 0, 0, 0, 0, 1],
        },
    }
}

/// URL 3.5: one to four numbers, each decimal, octal or hexadecimal, of which the last fills what is left.
fn ipv4(name: &str) -> Option<Ipv4Addr> {
    let numbers = name.split('.').map(number).collect::<Option<Vec<_>>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|number| *number > 255) {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).map(|(number, shift)| number << shift).sum::<u64>();
    let bits_left = 32 - 8 * first.len();
    (*last < 1 << bits_left).then(|| Ipv4Addr::from((high + last) as u32))
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    match digits {
        _ if !digits.chars().all(|digit| digit.is_digit(radix)) => None,
        "" => (radix == 16).then_some(0),
        _ => u64::from_str_radix(digits, radix).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Authority {
        authority(text).expect("a host")
    }

    #[test]
    fn patterns() {
        for (pattern, there, matched) in [
            ("chat.example.com", "CHAT.example.com.:443", true),
            ("chat.example.com", "chat.example.com:0080", true),
            ("chat.example.com.", "chat.example.com", true),
            ("chat.example.com", "chat.example.com:8443", false),
            ("chat.example.com", "chat.example.com..", false),
            ("chat.example.com:8443", "chat.example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "a..example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com:*", "a.example.com.:8443", true),
            ("localhost:*", "localhost:5173", true),
            ("localhost:*", "a.localhost:5173", false),
            ("127.0.0.1:8080", "0x7f.1:8080", true),
            ("127.1", "0177.0.0.1", true),
            ("127.0.0.1", "2130706433", true),
            ("127.0.0.1", "127.0.0.1.", true),
            ("127.0.0.1", "127.0.0.+1", false),
            ("127.0.0.1", "127.0.0.0.1", false),
            ("127.0.0.1", "[::ffff:127.0.0.1]", false),
            ("[0:0::1]:3000", "[::1]:3000", true),
            ("[::1]:3000", "[::1]", false),
        ] {
            assert_eq!(matches(pattern, &host(there)), matched, "{pattern} {there}");
        }
    }

    #[test]
    fn addresses_in_all_forms() {
        for (text, octets) in [
            ("0x7f.0.0.1", Some([127, 0, 0, 1])),
            ("127.1", Some([127, 0, 0, 1])),
            ("127.65535", Some([127, 0, 255, 255])),
            ("4294967295", Some([255; 4])),
            ("4294967296", None),
            ("1.2.3.256", None),
            ("1.256.3", None),
            ("0x", Some([0; 4])),
            ("08", None),
            ("1.2.3.4.5", None),
            ("1..2", None),
            ("", None),
        ] {
            assert_eq!(ipv4(text).map(|address| address.octets()), octets, "{text}");
        }
    }

    #[test]
    fn loopback() {
        let local =
            ["localhost:1", "LOCALHOST.", "a.b.localhost", "127.8.9.1", "127.1:80", "[::1]"];
        let others = [
            "localhost.example.com",
            "evillocalhost",
            ".localhost",
            "128.0.0.1",
            "127.0.0.1.example.com",
            "[::]",
            "[::127.0.0.1]",
            "[::ffff:128.0.0.1]",
            "0.0.0.0",
        ];
        assert!(local.iter().chain(&["[::ffff:7f00:1]:3000"]).all(|it| is_loopback(&host(it))));
        assert!(!others.iter().any(|it| is_loopback(&host(it))));
    }
}
