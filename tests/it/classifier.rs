//! The classifier of upgrade requests, tested by generated requests against other implementations, a second
//! implementation of RFC 6455 4.2.1, and the handshaker behind a guard. No request may be a handshake for one of them
//! and an ordinary request for another.

use std::{cell::Cell, collections::HashSet, convert::Infallible, fmt};

use axum::extract::{FromRequestParts, ws::WebSocketUpgrade};
use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, Version};
use hyper::ext::Protocol;
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestRunner},
};
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, GuardLayer, VersionCheckLayer, is_upgrade_request};

const APP: &str = "https://app.example.com";
/// The minimum number of cases on either side of a property; fewer would prove nothing.
const SOME: usize = 50;

/// A request as plain data, which the tests read without help of the crate.
#[derive(Clone)]
struct Case {
    method: &'static str,
    target: &'static str,
    version: Version,
    protocol: Option<&'static str>,
    lines: Vec<(&'static str, HeaderValue)>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:?} :protocol={:?}",
            self.method, self.target, self.version, self.protocol
        )?;
        self.lines.iter().try_for_each(|(name, value)| write!(f, "\n  {name}: {value:?}"))
    }
}

impl Case {
    /// Builds a request that looks upgradable to hyper.
    fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.parse().unwrap();
        *request.uri_mut() = self.target.parse().unwrap();
        *request.version_mut() = self.version;
        for (name, value) in &self.lines {
            request.headers_mut().append(*name, value.clone());
        }
        let on_upgrade = hyper::upgrade::on(&mut request);
        request.extensions_mut().insert(on_upgrade);
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        request
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let lines = self.lines.iter().filter(|(there, _)| *there == name);
        lines
            .map(|(_, value)| {
                String::from_utf8_lossy(value.as_bytes()).trim_matches([' ', '\t']).to_owned()
            })
            .collect()
    }

    fn only_line(&self, name: &str) -> Option<String> {
        let mut lines = self.lines(name);
        lines.pop().filter(|_| lines.is_empty())
    }

    fn elements(&self, name: &str) -> Vec<String> {
        let list = self.lines(name).join(",");
        list.split(',')
            .map(|it| it.trim_matches([' ', '\t']).to_owned())
            .filter(|it| !it.is_empty())
            .collect()
    }
}

/// Lines of one header: usually one of `good`, else a variation of it, or one of `others`.
fn lines(
    good: impl Strategy<Value = String> + 'static,
    others: &'static [&'static str],
) -> BoxedStrategy<Vec<Vec<u8>>> {
    const AROUND: &[&str] = &["", " ", "\t", ",", " ,, ", ", \t"];

    let good = good.boxed();
    let odd_case = (good.clone(), any::<u32>()).prop_map(|(value, flips)| {
        let flip =
            |(i, byte): (usize, u8)| if flips >> (i % 32) & 1 == 1 { byte ^ 0x20 } else { byte };
        let bytes = value.bytes().enumerate();
        bytes
            .map(|(i, byte)| if byte.is_ascii_alphabetic() { flip((i, byte)) } else { byte })
            .collect::<Vec<_>>()
    });
    let padded = (select(AROUND), good.clone(), select(AROUND))
        .prop_map(|(a, value, b)| [a, &*value, b].concat().into());
    let mutated =
        (good.clone(), any::<Index>(), 0..3, select(&b" \t,;:=\"'/@-_+[]%AXax019\x80\xc3\xff"[..]))
            .prop_map(|(value, at, how, byte)| {
                let mut bytes = value.into_bytes();
                let at = at.index(bytes.len());
                match how {
                    0 => bytes.insert(at, byte),
                    1 => bytes[at] = byte,
                    _ => drop(bytes.remove(at)),
                }
                bytes
            });
    let other = select(others).prop_map(Vec::from);
    let any_line = prop_oneof![
        2 => good.clone().prop_map(Vec::from),
        2 => other.clone(),
        1 => odd_case.clone(),
        1 => padded.clone(),
        1 => mutated.clone(),
    ]
    .boxed();
    prop_oneof![
        40 => good.prop_map(|value| vec![value.into()]),
        4 => odd_case.prop_map(|line| vec![line]),
        4 => padded.prop_map(|line| vec![line]),
        2 => prop::collection::vec(any_line.clone(), 2..4),
        2 => prop::collection::vec(any_line, 2..4).prop_map(|elements| vec![elements.join(&b',')]),
        5 => mutated.prop_map(|line| vec![line]),
        2 => other.prop_map(|line| vec![line]),
        1 => Just(vec![]),
    ]
    .boxed()
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(values).prop_map(String::from)
}

/// A header that is usually absent.
fn rarely(lines: BoxedStrategy<Vec<Vec<u8>>>) -> BoxedStrategy<Vec<Vec<u8>>> {
    prop_oneof![8 => Just(vec![]), 2 => lines].boxed()
}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const NAMES: [&str; 9] = [
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "host",
    "sec-websocket-protocol",
    "content-length",
    "transfer-encoding",
    "origin",
];

fn headers() -> impl Strategy<Value = [Vec<Vec<u8>>; 9]> {
    let key =
        (any::<u128>(), prop_oneof![4 => Just(0), 1 => 1..16_usize]).prop_map(|(nonce, bits)| {
            let mut key = STANDARD.encode(nonce.to_be_bytes());
            let last = ALPHABET.find(&key[21..22]).unwrap() + bits;
            key.replace_range(21..22, &ALPHABET[last..=last]);
            key
        });
    let host = prop_oneof![
        12 => one_of(&["chat.example.com", "chat.example.com:8080", "CHAT.example.com"]),
        2 => one_of(&["localhost:3000", "[::1]", "[2001:db8::1]:443", "127.0.0.1:080", "[v1.a:b]", "%C3%bc_~!b", "a,b"]),
        1 => "[a-c%:@\\[\\]0-9.,?/-]{1,8}",
        1 => "\\[[0-9a-f:]{0,12}(\\.[0-9.]{1,8})?\\](:[0-9]{0,6})?",
    ];
    (
        lines(
            one_of(&["websocket", "WebSocket"]),
            &["h2c", "websockets", "websocket/13", "\"websocket\"", "xwebsocketx", ""],
        ),
        lines(
            one_of(&["Upgrade", "keep-alive, Upgrade"]),
            &["close", "keep-alive Upgrade", "upgraded", "not-upgrade", ""],
        ),
        lines(
            key,
            &[
                "",
                "zzz",
                "dGhlIHNhbXBsZSBub25jZQ",
                "-GhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25jZ_==",
                "dGhpcyBpcyBub3QgMTYgYnl0ZXM=",
            ],
        ),
        lines(Just("13".to_owned()), &["", "8", "013", "+13", "13.0", "13, 8", "255"]),
        lines(
            host,
            &[
                "",
                ":80",
                "user@chat.example.com",
                "chat.example.com:",
                "chat.example.com:123456",
                "::1",
                "[::1",
                "a%4",
            ],
        ),
        rarely(lines(
            one_of(&["chat", "v2.chat, v1.chat"]),
            &["", "a b", "a/b", "chat", "caf\u{e9}", "(chat)"],
        )),
        rarely(lines(Just("0".to_owned()), &["00", "1", "-0", "0, 0", "x", ""])),
        rarely(lines(Just("chunked".to_owned()), &["identity", "gzip", "", "0"])),
        lines(
            Just(APP.to_owned()),
            &[
                "null",
                "https://evil.example",
                "https://app.example.com.evil.example",
                "https://app.example.com/",
                "wss://evil.example",
                "",
            ],
        ),
    )
        .prop_map(<[_; 9]>::from)
}

fn case() -> impl Strategy<Value = Case> {
    let get = prop_oneof![14 => Just("GET"), 1 => select(&["POST", "HEAD", "CONNECT", "get", "OPTIONS"][..])];
    let connect = prop_oneof![14 => Just("CONNECT"), 1 => select(&["GET", "POST", "connect"][..])];
    let origin_form = prop_oneof![
        10 => Just("/ws"),
        2 => Just("http://chat.example.com/ws?a=b"),
        1 => select(&["http://other.example/ws", "http://chat.example.com:8080/", "http://a@chat.example.com/ws", "*"][..]),
    ];
    let extended = prop_oneof![
        10 => Just("https://chat.example.com/ws"),
        1 => select(&["https://chat.example.com:8080/ws", "https://[::1]/", "chat.example.com:443", "/ws"][..]),
    ];
    let protocol = prop_oneof![
        10 => Just(Some("websocket")),
        3 => select(vec![Some("WebSocket"), Some("websockets"), Some("connect-udp"), None]),
    ];
    let version = prop_oneof![12 => Just(Version::HTTP_11), 1 => Just(Version::HTTP_10), 4 => Just(Version::HTTP_2)];
    // Without these drops, hardly any request would lack all indicators of an upgrade request.
    let dropped = prop_oneof![6 => Just(0), 1 => any::<u16>()];
    (version, (get, connect), (origin_form, extended), protocol, any::<bool>(), dropped, headers())
        .prop_map(|(version, methods, targets, protocol, with_host, mut dropped, headers)| {
            let http2 = version == Version::HTTP_2;
            if http2 && !with_host {
                dropped |= 1 << NAMES.iter().position(|name| *name == "host").unwrap();
            }
            let kept =
                NAMES.into_iter().zip(headers).enumerate().filter(|(i, _)| dropped >> i & 1 == 0);
            let lines =
                kept.flat_map(|(_, (name, lines))| lines.into_iter().map(move |line| (name, line)));
            Case {
                method: if http2 { methods.1 } else { methods.0 },
                target: if http2 { targets.1 } else { targets.0 },
                version,
                protocol: protocol.filter(|_| http2),
                lines: lines
                    .map(|(name, line)| (name, HeaderValue::from_bytes(&line).unwrap()))
                    .collect(),
            }
        })
}

fn check(property: impl Fn(Case) -> Result<(), TestCaseError>) {
    // The default generator takes most of the time in a build without optimization.
    let rng_algorithm = RngAlgorithm::XorShift;
    let config =
        Config { cases: 5_000, failure_persistence: None, rng_algorithm, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(&case(), property) {
        panic!("{failure}");
    }
}

/// Counts the cases that a property is about.
#[derive(Default)]
struct Count(Cell<usize>);

impl Count {
    fn add(&self, seen: bool) {
        self.0.set(self.0.get() + usize::from(seen));
    }
}

const HANDSHAKERS: [&str; 4] = ["axum", "tungstenite", "fastwebsockets", "hyper-tungstenite"];

/// Returns which of the [`HANDSHAKERS`] accept the request as a handshake.
///
/// Without its feature `http2`, axum accepts every `CONNECT` over HTTP/2, whatever its `:protocol`: see
/// `tests/without_http2`.
fn accepted_by(request: &Request<()>) -> [bool; 4] {
    let (mut parts, ()) = request.clone().into_parts();
    let axum = WebSocketUpgrade::from_request_parts(&mut parts, &()).now_or_never();
    [
        axum.expect("the extractor waits for nothing").is_ok(),
        create_response(request).is_ok(),
        fastwebsockets::upgrade::upgrade(request.clone()).is_ok(),
        hyper_tungstenite::upgrade(request.clone(), None).is_ok(),
    ]
}

#[test]
fn upgrade_request_is_whatever_any_handshaker_accepts() {
    let accepted: [Count; 4] = Default::default();
    let (http2, ordinary) = (Count::default(), Count::default());
    check(|case| {
        let request = case.request();
        let accepts = accepted_by(&request);
        let upgrade_request = is_upgrade_request(&request);
        for ((name, accepts), count) in HANDSHAKERS.iter().zip(accepts).zip(&accepted) {
            count.add(accepts);
            prop_assert!(upgrade_request || !accepts, "{name} accepts it");
        }
        http2.add(accepts[0] && case.version == Version::HTTP_2);
        ordinary.add(!upgrade_request);
        Ok(())
    });
    for (name, count) in HANDSHAKERS
        .iter()
        .zip(&accepted)
        .chain([(&"axum over HTTP/2", &http2), (&"none", &ordinary)])
    {
        assert!(count.0.get() > SOME, "{name}: {}", count.0.get());
    }
}

/// RFC 6455 4.2.1, and RFC 8441 4 and 5 over HTTP/2, with the documented requirements of this crate: no body, a port
/// with digits, a `Host` that equals the authority of the target but for a default port, and at most 128 subprotocols.
fn is_well_formed(case: &Case) -> bool {
    let has_element =
        |name: &str, wanted: &str| case.elements(name).iter().any(|it| it.to_lowercase() == wanted);
    let opens = match case.version {
        Version::HTTP_11 => {
            case.method == "GET"
                && has_element("upgrade", "websocket")
                && has_element("connection", "upgrade")
                && !has_element("connection", "close")
                && case.only_line("sec-websocket-key").is_some_and(|key| is_key(&key))
        }
        Version::HTTP_2 => case.method == "CONNECT" && case.protocol == Some("websocket"),
        _ => false,
    };
    let hosts = case.lines("host");
    let in_target = case.target.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap());
    let in_target =
        in_target.or_else(|| Some(case.target).filter(|target| !target.starts_with(['/', '*'])));
    let addressed = match case.version {
        Version::HTTP_2 => in_target.is_some() && hosts.len() <= 1,
        _ => hosts.len() == 1,
    };
    let default_port = match case.target.split_once("://") {
        Some(("http", _)) => Some(80),
        Some(("https", _)) => Some(443),
        _ => None,
    };
    let authorities = hosts
        .iter()
        .map(String::as_str)
        .chain(in_target)
        .map(|it| authority(it).map(|(name, port)| (name, port.or(default_port))))
        .collect::<HashSet<_>>();

    let offers = case.elements("sec-websocket-protocol");
    let is_token = |offer: &String| {
        offer.chars().all(|c| matches!(c, '!'..='~') && !"\"(),/:;<=>?@[\\]{}".contains(c))
    };
    opens
        && addressed
        && authorities.len() == 1
        && !authorities.contains(&None)
        && case.only_line("sec-websocket-version").is_some_and(|version| version == "13")
        && case.lines("transfer-encoding").is_empty()
        && (case.lines("content-length").is_empty()
            || (case.version == Version::HTTP_11
                && case.only_line("content-length").is_some_and(|it| it == "0")))
        // An empty value offers nothing, but a list of commas is malformed.
        && !(offers.is_empty() && case.lines("sec-websocket-protocol").concat().contains(','))
        && offers.len() <= 128
        && offers.iter().all(is_token)
        && offers.iter().collect::<HashSet<_>>().len() == offers.len()
}

fn is_key(key: &str) -> bool {
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let decoded = GeneralPurpose::new(&alphabet::STANDARD, config).decode(key);
    key.len() == 24 && decoded.is_ok_and(|nonce| nonce.len() == 16)
}

/// `uri-host [":" port]` of RFC 9110 7.2, normalized.
fn authority(text: &str) -> Option<(String, Option<u32>)> {
    let text = text.to_ascii_lowercase();
    let end = match text.starts_with('[') {
        true => text.find(']')? + 1,
        false => text.find(':').unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(digits)
            if (1..=5).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit()) =>
        {
            Some(digits.parse().unwrap())
        }
        None if rest.is_empty() => None,
        _ => return None,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    let valid = match name.strip_prefix('[').map(|name| name.trim_end_matches(']')) {
        Some(literal) => match literal.strip_prefix('v') {
            Some(future) => {
                let (version, address) = future.split_once('.')?;
                !version.is_empty()
                    && version.chars().all(|c| c.is_ascii_hexdigit())
                    && !address.is_empty()
                    && address.chars().all(|c| c == ':' || is_plain(c))
            }
            None => is_ipv6(literal),
        },
        None => {
            let mut pieces = name.split('%');
            !name.is_empty()
                && pieces.next()?.chars().all(is_plain)
                && pieces.all(|piece| {
                    piece.chars().take(2).filter(char::is_ascii_hexdigit).count() == 2
                        && piece.chars().all(is_plain)
                })
        }
    };
    valid.then(|| (name.to_owned(), port))
}

/// `IPv6address` of RFC 3986 3.2.2.
fn is_ipv6(literal: &str) -> bool {
    // Counts 16-bit groups; an IPv4 address may replace the last two.
    let groups = |half: &str, last: bool| -> Option<usize> {
        if half.is_empty() {
            return Some(0);
        }
        let pieces = half.split(':').collect::<Vec<_>>();
        let mut count = 0;
        for (i, piece) in pieces.iter().enumerate() {
            let is_byte =
                |byte: &str| byte.parse::<u8>().is_ok_and(|parsed| parsed.to_string() == byte);
            let is_v4 = piece.split('.').count() == 4 && piece.split('.').all(is_byte);
            let is_h16 =
                (1..=4).contains(&piece.len()) && piece.chars().all(|c| c.is_ascii_hexdigit());
            count += match (is_h16, is_v4 && last && i + 1 == pieces.len()) {
                (true, _) => 1,
                (false, true) => 2,
                (false, false) => return None,
            };
        }
        Some(count)
    };
    match literal.split_once("::") {
        Some((head, tail)) => {
            groups(head, false).zip(groups(tail, true)).is_some_and(|(head, tail)| head + tail < 8)
        }
        None => groups(literal, true) == Some(8),
    }
}

#[test]
fn handshake_passes_if_and_only_if_well_formed() {
    let (passed, passed_http2, rejected) = (Count::default(), Count::default(), Count::default());
    let service = VersionCheckLayer::new().layer(service_fn(async |request| {
        Ok::<_, Infallible>(Response::new(is_upgrade_request::<()>(&request)))
    }));
    check(|case| {
        let response = service
            .clone()
            .oneshot(case.request())
            .now_or_never()
            .expect("nothing to wait for")
            .unwrap();
        let as_upgrade_request = *response.body();
        prop_assert_eq!(as_upgrade_request, is_well_formed(&case));
        passed.add(as_upgrade_request && case.version == Version::HTTP_11);
        passed_http2.add(as_upgrade_request && case.version == Version::HTTP_2);
        rejected.add(response.status() != 200);
        Ok(())
    });
    for count in [passed, passed_http2, rejected] {
        assert!(count.0.get() > SOME, "{}", count.0.get());
    }
}

/// The outcome of a request behind a guard.
#[derive(Clone, Copy, Debug, Default)]
enum Seen {
    #[default]
    Rejected,
    Passed {
        upgrade_request: bool,
        canonical: bool,
        accepted_by: [bool; 4],
    },
}

impl Seen {
    fn of(request: &Request<()>) -> Self {
        let is_only = |(name, value)| request.headers().get_all::<&str>(name).iter().eq([value]);
        Self::Passed {
            upgrade_request: is_upgrade_request(request),
            canonical: [
                ("upgrade", "websocket"),
                ("connection", "Upgrade"),
                ("sec-websocket-version", "13"),
            ]
            .into_iter()
            .all(is_only),
            accepted_by: accepted_by(request),
        }
    }
}

#[test]
fn handshaker_behind_a_guard_agrees_with_the_guard() {
    let (passed, passed_http2, ordinary, foreign) = <(Count, Count, Count, Count)>::default();
    let service = GuardLayer::new(AllowOrigin::list([APP]).unwrap())
        .layer(service_fn(async |request| Ok::<_, Infallible>(Response::new(Seen::of(&request)))));
    check(|case| {
        let response = service
            .clone()
            .oneshot(case.request())
            .now_or_never()
            .expect("nothing to wait for")
            .unwrap();
        // The origin may include the default port, and be written in any case.
        let from_app = case.only_line("origin").is_some_and(|it| {
            it.eq_ignore_ascii_case(APP) || it.eq_ignore_ascii_case(&format!("{APP}:443"))
        });
        let Seen::Passed { upgrade_request, canonical, accepted_by } = *response.body() else {
            foreign.add(!from_app && is_well_formed(&case));
            return Ok(());
        };
        prop_assert!(from_app || !upgrade_request);
        prop_assert_eq!(accepted_by[0], upgrade_request);
        // The others do not support HTTP/2, and tungstenite rejects bits after the 16th byte of the key.
        if case.version != Version::HTTP_2 {
            let key = case.only_line("sec-websocket-key").unwrap_or_default();
            let without_bits = key.trim_end_matches("==").ends_with(['A', 'Q', 'g', 'w']);
            prop_assert_eq!(
                &accepted_by[1..],
                [upgrade_request && without_bits, upgrade_request, upgrade_request]
            );
            prop_assert_eq!(canonical, upgrade_request);
        }
        passed.add(upgrade_request && case.version == Version::HTTP_11);
        passed_http2.add(upgrade_request && case.version == Version::HTTP_2);
        ordinary.add(!upgrade_request);
        Ok(())
    });
    for (name, count) in [
        ("passed", passed),
        ("over HTTP/2", passed_http2),
        ("ordinary", ordinary),
        ("foreign", foreign),
    ] {
        assert!(count.0.get() > SOME, "{name}: {}", count.0.get());
    }
}
