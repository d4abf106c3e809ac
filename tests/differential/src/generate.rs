//! Requests: a valid handshake in one of its many forms, changed in the way of a class, on a connection with others around it.
//!
//! What comes out depends on the seed alone.

use fastrand::Rng;
use http::{HeaderName, HeaderValue, Request, Uri, Version};
use hyper::ext::Protocol;

use crate::{
    oracle::{
        DEFAULT_MAX_LENGTH, Head, Policy, Source, TOKENS as KNOWN,
        extensions::{Deflate, Extension},
    },
    pools::*,
};

/// What is done to a valid handshake.
pub type Mutation = fn(&mut Rng, &mut Draft);

/// Every class of requests, by name.
pub const CLASSES: [(&str, Mutation); 23] = [
    ("valid", |_, _| {}),
    ("method", method),
    ("target", target),
    ("version of HTTP", version),
    ("upgrade", |rng, draft| draft.list(rng, "Upgrade", UPGRADES)),
    ("connection", |rng, draft| draft.list(rng, "Connection", CONNECTIONS)),
    ("host", host),
    ("key", key),
    ("version", |rng, draft| draft.single(rng, "Sec-WebSocket-Version", VERSIONS)),
    ("body", body),
    ("subprotocol", |rng, draft| draft.list(rng, "Sec-WebSocket-Protocol", OFFERS)),
    ("origin", origin),
    ("fetch metadata", |rng, draft| draft.single(rng, "Sec-Fetch-Site", SITES)),
    ("token", token),
    ("credentials", credentials),
    ("extensions", extensions),
    ("line dropped", dropped),
    ("line repeated", repeated),
    ("white space", white_space),
    ("name of a field", name),
    ("end of a line", line_end),
    ("bytes", |rng, draft| draft.flips = rng.usize(1..4)),
    ("no attempt", no_attempt),
];

/// A request before it is bytes.
#[derive(Clone, Debug)]
pub struct Draft {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub version: Vec<u8>,
    pub lines: Vec<Line>,
    pub body: Vec<u8>,
    /// How many bytes are changed at random.
    flips: usize,
    /// What it is made for.
    policy: Policy,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub name: Vec<u8>,
    colon: Vec<u8>,
    pub value: Vec<u8>,
    end: Vec<u8>,
}

impl Line {
    fn new(name: &str, value: &str) -> Self {
        // Text that is not ASCII goes out in UTF-8 as well as in one byte for each character.
        Self { name: name.into(), colon: b": ".into(), value: value.into(), end: b"\r\n".into() }
    }
}

/// One of `pool`.
fn pick<T: Copy>(rng: &mut Rng, pool: &[T]) -> T {
    pool[rng.usize(..pool.len())]
}

impl Draft {
    /// A handshake that `policy` allows, as a rule.
    pub fn valid(rng: &mut Rng, policy: &Policy) -> Self {
        let nonce = (0..21).map(|_| pick(rng, b"ABCXYZabcxyz019+/")).collect::<Vec<_>>();
        // As a rule without bits behind the 16th byte.
        let last = if rng.u8(..8) == 0 { pick(rng, b"BCDz9/") } else { pick(rng, b"AQgw") };
        let key = format!("{}{}==", String::from_utf8_lossy(&nonce), char::from(last));
        let host = match policy.hosts {
            _ if policy.loopback => pick(rng, LOOPBACK).to_owned(),
            [] if rng.u8(..4) == 0 => pick(rng, &HOSTS[..10]).to_owned(),
            [] => "chat.example.com".to_owned(),
            patterns => instance(rng, patterns),
        };
        let listed = policy.origins.is_empty() || policy.same_origin && rng.bool();
        let origin = match policy {
            _ if rng.u8(..16) == 0 => None,
            _ if rng.u8(..16) == 0 => Some(pick(rng, ORIGINS).to_owned()),
            Policy { no_browsers: true, .. } => Some(String::new()).filter(|_| rng.bool()),
            Policy { same_origin: true, .. } if listed => {
                Some(format!("{}://{host}", pick(rng, &["http", "https"])).to_lowercase())
            }
            Policy { public_origin: Some(origin), .. } => Some((*origin).to_owned()),
            Policy { origins: [], .. } => Some(pick(rng, &ORIGINS[..7]).to_owned()),
            Policy { origins, .. } => Some(instance(rng, origins)),
        };
        let host = if rng.u8(..4) == 0 { respelled(rng, &host, HOST_SPELLINGS) } else { host };
        let origin = origin.map(|origin| match rng.u8(..4) {
            0 => respelled(rng, &origin, ORIGIN_SPELLINGS),
            _ => origin,
        });
        let ours = policy.subprotocols.unwrap_or(&["chat", "v2.chat"]);
        let subprotocol = match rng.u8(..12) {
            0 => pick(rng, OFFERS).to_owned(),
            1 => String::new(),
            2..4 => ours.join(", "),
            4 => format!("unknown,{}", pick(rng, ours)),
            5..8 => pick(rng, ours).to_owned(),
            _ => String::new(),
        };
        let has_subprotocol = !subprotocol.is_empty() || rng.u8(..16) == 0;
        let mut lines = vec![
            Line::new("Host", &host),
            Line::new(
                "Upgrade",
                pick(rng, &["websocket", "websocket", "WebSocket", "h2c, websocket"]),
            ),
            Line::new(
                "Connection",
                pick(rng, &["Upgrade", "Upgrade", "keep-alive, Upgrade", "upgrade,keep-alive"]),
            ),
            Line::new("Sec-WebSocket-Key", &key),
            Line::new("Sec-WebSocket-Version", "13"),
        ];
        lines.extend(origin.map(|origin| Line::new("Origin", &origin)));
        if has_subprotocol {
            lines.push(Line::new("Sec-WebSocket-Protocol", &subprotocol));
        }
        for line in [("User-Agent", "test"), ("Accept-Language", "en, de;q=0.5")] {
            if rng.u8(..4) == 0 {
                lines.push(Line::new(line.0, line.1));
            }
        }
        if rng.u8(..4) == 0 || policy.extensions.is_some() && rng.u8(..4) > 0 {
            let offer = match rng.u8(..4) {
                0 => offered_extension(rng, false),
                _ => pick(rng, CLIENT_EXTENSIONS).to_owned(),
            };
            lines.push(Line::new("Sec-WebSocket-Extensions", &offer));
        }
        let mut draft = Self {
            method: b"GET".into(),
            target: b"/ws".into(),
            version: b"HTTP/1.1".into(),
            lines,
            body: Vec::new(),
            flips: 0,
            policy: *policy,
        };
        if !policy.sources.is_empty() && rng.u8(..8) > 0 {
            let source = pick(rng, policy.sources);
            let token = known(rng, source);
            draft.carry_token(rng, source, token);
        }
        rng.shuffle(&mut draft.lines);
        if rng.bool() {
            draft.lines.iter_mut().for_each(|line| line.name.make_ascii_lowercase());
        }
        draft
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.lines.iter().position(|line| line.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    pub fn without(&mut self, name: &str) {
        self.lines.retain(|line| !line.name.eq_ignore_ascii_case(name.as_bytes()));
    }

    fn insert(&mut self, rng: &mut Rng, line: Line) {
        self.lines.insert(rng.usize(..=self.lines.len()), line);
    }

    /// Puts `token` where `source` is looked for.
    fn carry_token(&mut self, rng: &mut Rng, source: Source, token: &str) {
        let carried = encoded(rng, source, token);
        self.carry(rng, source, &carried);
    }

    /// Puts `carried` where `source` is looked for, behind what is there.
    fn carry(&mut self, rng: &mut Rng, source: Source, carried: &str) {
        let space = pick(rng, &[" ", " ", " ", "   "]);
        match source {
            Source::Authorization => {
                let scheme = pick(rng, &["Bearer", "Bearer", "bearer", "BEARER"]);
                self.insert(rng, Line::new("Authorization", &format!("{scheme}{space}{carried}")));
            }
            Source::Basic => {
                let scheme = pick(rng, &["Basic", "Basic", "basic", "bASIC"]);
                self.insert(rng, Line::new("Authorization", &format!("{scheme}{space}{carried}")));
            }
            Source::Header(name) => self.insert(rng, Line::new(name, carried)),
            Source::HeaderScheme(name, scheme) => {
                let scheme = if rng.bool() { scheme.to_uppercase() } else { scheme.into() };
                self.insert(rng, Line::new(name, &format!("{scheme}{space}{carried}")));
            }
            Source::Cookie(name) => {
                let name = if rng.u8(..4) == 0 { percent_encoded(rng, name) } else { name.into() };
                self.insert(rng, Line::new("Cookie", &format!("{name}={carried}")));
            }
            Source::Query(name) => {
                let delimiter = if self.target.contains(&b'?') { '&' } else { '?' };
                self.target.extend(format!("{delimiter}{name}={carried}").bytes());
            }
            Source::Pair(marker) => {
                let marker = if rng.bool() { marker.to_uppercase() } else { marker.into() };
                self.offer(rng, &format!("{marker}, {carried}"));
            }
            Source::Subprotocol(_)
            | Source::SubprotocolBase64(_)
            | Source::Kubernetes
            | Source::Phoenix => {
                let offer = format!("{}{carried}", source.prefix().expect("a prefix"));
                self.offer(rng, &offer);
            }
        }
    }

    /// Adds a subprotocol to those that are offered, and as a rule one that may be chosen.
    fn offer(&mut self, rng: &mut Rng, offer: &str) {
        let name = "Sec-WebSocket-Protocol";
        match self.position(name) {
            Some(at) if !self.lines[at].value.is_empty() => {
                self.lines[at].value.extend(format!(", {offer}").bytes());
            }
            _ => {
                self.without(name);
                let chosen = pick(rng, self.policy.subprotocols.unwrap_or(&["chat"]));
                let value = match rng.u8(..8) {
                    0 => offer.to_owned(),
                    1..4 => format!("{offer}, {chosen}"),
                    _ => format!("{chosen}, {offer}"),
                };
                self.insert(rng, Line::new(name, &value));
            }
        }
    }

    /// Takes out what a credential may be in.
    fn without_credentials(&mut self) {
        let is_carrier = |source: &Source| source.prefix().is_some();
        let carriers = self.policy.sources.iter();
        if carriers.clone().any(|it| is_carrier(it) || matches!(it, Source::Pair(_))) {
            self.without("Sec-WebSocket-Protocol");
        }
        for name in ["Authorization", "Cookie", "X-API-Key"] {
            self.without(name);
        }
        self.target = b"/ws".into();
    }

    /// Gives a field that may be there once a value, as a rule in place of the one that is there.
    fn single(&mut self, rng: &mut Rng, name: &str, pool: &[&str]) {
        if rng.u8(..8) > 0 {
            self.without(name);
        }
        let line = Line::new(name, pick(rng, pool));
        self.insert(rng, line);
    }

    /// Gives a list a value or several, in one line or in several.
    fn list(&mut self, rng: &mut Rng, name: &str, pool: &[&str]) {
        self.without(name);
        for _ in 0..pick(rng, &[1, 1, 1, 2, 3]) {
            let mut value = pick(rng, pool).to_owned();
            if rng.u8(..4) == 0 {
                value = format!("{value},{}", pick(rng, pool));
            }
            self.insert(rng, Line::new(name, &value));
        }
    }

    pub fn bytes(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = [&*self.method, &*self.target, &*self.version].join(&b' ');
        bytes.extend_from_slice(b"\r\n");
        for line in &self.lines {
            bytes.extend([&*line.name, &*line.colon, &*line.value, &*line.end].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        for _ in 0..self.flips {
            flip(rng, &mut bytes);
        }
        bytes
    }
}

/// What one of `patterns`, of hosts or of origins, stands for.
fn instance(rng: &mut Rng, patterns: &[&str]) -> String {
    let pattern = pick(rng, patterns);
    let (text, port) = match pattern.strip_suffix(":*") {
        Some(text) => (text, pick(rng, &["", ":3000", ":5173", ":65535"])),
        None => (pattern, ""),
    };
    let text = text.replace("*.", pick(rng, &["a.", "a.b.", "xn--pp-6kc."]));
    let text = text.replace("//*", pick(rng, &["//0f2b5e5c-8c1f-4d3a", "//a"]));
    text + port
}

fn respelled(rng: &mut Rng, text: &str, spellings: &[Spelling]) -> String {
    match pick(rng, spellings) {
        Spelling::UpperCase => text.to_uppercase(),
        Spelling::Dot => match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !port.starts_with('/') => {
                format!("{host}.:{port}")
            }
            _ => format!("{text}."),
        },
        Spelling::Behind(end) => format!("{text}{end}"),
        Spelling::Instead(there, instead) => text.replacen(there, instead, 1),
    }
}

/// One of the tokens that can be in `source`.
fn known(rng: &mut Rng, source: Source) -> &'static str {
    match source {
        _ if rng.u8(..64) == 0 => KNOWN[4],
        Source::Authorization => pick(rng, &KNOWN[..2]),
        Source::Basic => KNOWN[3],
        Source::Subprotocol(_) | Source::Pair(_) => KNOWN[1],
        _ => pick(rng, &KNOWN[..4]),
    }
}

/// `token` as `source` writes it.
fn encoded(rng: &mut Rng, source: Source, token: &str) -> String {
    match source {
        Source::Basic => {
            let text = base64(token, b"+/");
            let padded = format!("{text}{}", &"==="[..(4 - text.len() % 4) % 4]);
            if rng.u8(..4) == 0 { text } else { padded }
        }
        Source::SubprotocolBase64(_) | Source::Kubernetes | Source::Phoenix => base64(token, b"-_"),
        Source::Query(_) if rng.bool() => percent_encoded(rng, token),
        _ => token.to_owned(),
    }
}

/// With some of the characters encoded.
fn percent_encoded(rng: &mut Rng, text: &str) -> String {
    let encode = |byte: u8| match rng.u8(..8) {
        0 => format!("%{byte:02x}"),
        1 => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    text.bytes().map(encode).collect()
}

/// Without padding.
fn base64(text: &str, last_two: &[u8; 2]) -> String {
    let alphabet =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last_two).collect::<Vec<_>>();
    let bits = text.bytes().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let bits = bits.collect::<Vec<_>>();
    let digit = |bits: &[u8]| (0..6).fold(0, |all, at| all << 1 | bits.get(at).unwrap_or(&0));
    bits.chunks(6).map(|bits| char::from(alphabet[usize::from(digit(bits))])).collect()
}

fn flip(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.usize(..bytes.len());
    let byte = match rng.u8(..3) {
        0 => rng.u8(..),
        1 => pick(rng, b" \t\r\n:,;=/@#?%\"\\\x00\x7f\x80-_.*"),
        _ => bytes[rng.usize(..bytes.len())],
    };
    match rng.u8(..6) {
        0 => drop(bytes.remove(at)),
        1 => bytes.insert(at, byte),
        2 => bytes[at] ^= 0x20,
        3 => {
            let end = bytes.len().min(at + rng.usize(1..24));
            let copied = bytes[at..end].to_vec();
            let to = rng.usize(..bytes.len());
            bytes.splice(to..to, copied);
        }
        4 if rng.u8(..4) == 0 => bytes.truncate(at),
        _ => bytes[at] = byte,
    }
}

fn method(rng: &mut Rng, draft: &mut Draft) {
    draft.method = pick(rng, METHODS).into();
    if draft.method == b"CONNECT" && rng.bool() {
        draft.target = b"chat.example.com:443".into();
    }
}

fn target(rng: &mut Rng, draft: &mut Draft) {
    draft.target = pick(rng, TARGETS).into();
    if rng.bool() {
        draft.single(
            rng,
            "Host",
            &[
                "chat.example.com",
                "chat.example.com:80",
                "evil.example",
                "[::1]:3000",
                "a@chat.example.com",
                "chat.example.com:443",
                "chat.example.com:0080",
                "chat.example.com.",
            ],
        );
    }
}

fn version(rng: &mut Rng, draft: &mut Draft) {
    draft.version = pick(
        rng,
        &[
            "HTTP/1.0",
            "HTTP/1.2",
            "HTTP/2.0",
            "HTTP/0.9",
            "http/1.1",
            "HTTP/1.1 ",
            "HTTP/1.10",
            "HTTPS/1.1",
            "HTTP/3",
            "",
            "HTTP/1.0",
        ],
    )
    .into();
}

fn host(rng: &mut Rng, draft: &mut Draft) {
    draft.single(rng, "Host", HOSTS);
    if rng.bool() {
        // So that a host alone decides.
        let origin = format!(
            "http://{}",
            String::from_utf8_lossy(&draft.lines[draft.position("host").unwrap_or(0)].value)
        );
        draft.without("Origin");
        draft.insert(rng, Line::new("Origin", &origin));
    }
}

fn key(rng: &mut Rng, draft: &mut Draft) {
    const KEYS: &[&str] = &[
        "",
        "zzz",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "-GhlIHNhbXBsZSBub25jZQ==",
        "dGhpcyBpcyBub3QgMTYgYnl0ZXM=",
        "AQIDBAUGBwgJCgsMDQ4PEC==",
        "dGhlIHNhbXBsZSBub25jZQ==,",
        "====================  ==",
        "dGhlIHNhbXBsZSBub25j Q==",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZ===",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25j\u{e9}==",
        "\"GhlIHNhbXBsZSBub25jZQ==",
    ];
    draft.single(rng, "Sec-WebSocket-Key", KEYS);
}

fn body(rng: &mut Rng, draft: &mut Draft) {
    // What looks like a request of its own must never be one.
    const SMUGGLED: &[u8] = b"GET /internal HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";
    draft.body =
        pick(rng, &[b"".as_slice(), b"abc", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", SMUGGLED])
            .to_vec();
    let length = draft.body.len().to_string();
    for _ in 0..pick(rng, &[1, 1, 1, 2]) {
        let line = match rng.u8(..8) {
            0 => Line::new(
                "Content-Length",
                pick(
                    rng,
                    &[
                        "0",
                        "00",
                        "-0",
                        "+0",
                        "0, 0",
                        "x",
                        "",
                        "0x0",
                        "3 ",
                        "18446744073709551616",
                        "9999",
                        "1",
                        "0;",
                    ],
                ),
            ),
            1..4 => Line::new("Content-Length", &length),
            _ => Line::new(
                "Transfer-Encoding",
                pick(
                    rng,
                    &[
                        "chunked",
                        "Chunked",
                        "identity",
                        "gzip, chunked",
                        "chunked, chunked",
                        "",
                        "chunked;a",
                        "xchunked",
                        "0",
                    ],
                ),
            ),
        };
        draft.insert(rng, line);
    }
}

fn origin(rng: &mut Rng, draft: &mut Draft) {
    if rng.u8(..4) > 0 {
        return draft.single(rng, "Origin", ORIGINS);
    }
    let mut origin = pick(rng, ORIGINS).as_bytes().to_vec();
    flip(rng, &mut origin);
    origin.retain(|byte| !b"\r\n".contains(byte));
    draft.without("Origin");
    let mut line = Line::new("Origin", "");
    line.value = origin;
    draft.insert(rng, line);
}

fn token(rng: &mut Rng, draft: &mut Draft) {
    draft.without_credentials();
    for _ in 0..pick(rng, &[0, 1, 1, 1, 2]) {
        match rng.u8(..3) {
            0 => {
                let (name, value) = pick(rng, TOKENS);
                draft.insert(rng, Line::new(name, value));
            }
            1 => draft.target = format!("/ws?{}", pick(rng, QUERIES)).into(),
            _ => draft.list(rng, "Sec-WebSocket-Protocol", OFFERS),
        }
    }
}

/// Credentials of the policy: equal, different, empty, malformed, and long ones.
fn credentials(rng: &mut Rng, draft: &mut Draft) {
    let policy = draft.policy;
    if policy.sources.is_empty() {
        return token(rng, draft);
    }
    draft.without_credentials();
    let source = pick(rng, policy.sources);
    let other = if rng.bool() { source } else { pick(rng, policy.sources) };
    let token = known(rng, source);
    match rng.u8(..8) {
        // Equal ones.
        0 => {
            draft.carry_token(rng, source, token);
            draft.carry_token(rng, other, token);
        }
        1 => {
            draft.carry_token(rng, source, token);
            let another = known(rng, other);
            draft.carry_token(rng, other, another);
        }
        2 => draft.carry(rng, source, ""),
        3 => {
            draft.carry(rng, other, "");
            draft.carry_token(rng, source, token);
        }
        4 => {
            draft.carry_token(rng, source, token);
            let malformed = pick(rng, MALFORMED);
            draft.carry(rng, other, malformed);
        }
        5 => {
            let malformed = pick(rng, MALFORMED);
            draft.carry(rng, source, malformed);
            let other_malformed = if rng.bool() { malformed } else { pick(rng, MALFORMED) };
            draft.carry(rng, other, other_malformed);
        }
        6 => {
            let limit = policy.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
            let length = limit - 1 + rng.usize(..3);
            let long = match source {
                Source::Basic => format!("a:{}", "a".repeat(length - 2)),
                _ => "a".repeat(length),
            };
            draft.carry_token(rng, source, &long);
        }
        _ => {
            for source in policy.sources {
                if rng.bool() {
                    draft.carry_token(rng, *source, token);
                }
            }
        }
    }
}

/// An element of a list of extensions in one of its spellings, and an `odd` one at times.
fn offered_extension(rng: &mut Rng, odd: bool) -> String {
    let odd_one = |rng: &mut Rng| odd && rng.u8(..8) == 0;
    let mut text = match rng.u8(..6) {
        0 => pick(rng, EXTENSION_NAMES),
        _ => "permessage-deflate",
    }
    .to_owned();
    let mut names = PARAMETERS.to_vec();
    rng.shuffle(&mut names);
    names.truncate(rng.usize(..=4));
    if odd_one(rng) {
        names.push(pick(rng, &["unknown", "server_max_window_bits", "client_max_window_bits", ""]));
    }
    for name in names {
        let [before, behind, after] =
            [(); 3].map(|()| pick(rng, &["", "", "", " ", " ", "\t", " \t "]));
        text += &format!("{before};{behind}{name}{after}");
        let has_value = match name {
            "server_max_window_bits" => !odd_one(rng),
            "client_max_window_bits" => rng.bool(),
            "unknown" => rng.bool(),
            _ => odd_one(rng),
        };
        if has_value {
            let bits = match odd_one(rng) {
                true => pick(rng, &["", "7", "16", "08", "1 0", "+9", "a", "\u{661}"]).to_owned(),
                false => rng.u8(8..16).to_string(),
            };
            let bits = match rng.u8(..8) {
                0 => format!("\"{bits}\""),
                1 => format!("\"{}\"", bits.replacen('1', "\\1", 1)),
                _ => bits,
            };
            let space = pick(rng, &["", "", "", " ", "\t"]);
            text += &format!("{space}={space}{bits}");
        }
    }
    text
}

fn extensions(rng: &mut Rng, draft: &mut Draft) {
    const NAME: &str = "Sec-WebSocket-Extensions";
    if rng.u8(..3) == 0 {
        return draft.list(rng, NAME, EXTENSIONS);
    }
    draft.without(NAME);
    for value in extension_lines(rng) {
        let line = Line { value, ..Line::new(NAME, "") };
        draft.insert(rng, line);
    }
}

/// Lines of `Sec-WebSocket-Extensions`, most of them well-formed.
pub fn extension_lines(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for _ in 0..pick(rng, &[1, 1, 1, 2, 3]) {
        let mut elements = Vec::new();
        for _ in 0..pick(rng, &[1, 1, 1, 2, 3, 4]) {
            elements.push(match rng.u8(..8) {
                0 => String::new(),
                1 => pick(rng, CLIENT_EXTENSIONS).to_owned(),
                2 => pick(rng, EXTENSIONS).to_owned(),
                _ => offered_extension(rng, true),
            });
        }
        if rng.u8(..16) == 0 {
            // As many as come to an agreement, or one more or less.
            let others = (31 - elements.len().min(30) + rng.usize(..3)).max(1);
            let filler = pick(rng, &["x-a", "permessage-deflate;x", ""]);
            elements.splice(0..0, vec![filler.to_owned(); others]);
        }
        let mut value = elements.join(pick(rng, &[",", ", ", "\t,"])).into_bytes();
        if rng.u8(..6) == 0 {
            flip(rng, &mut value);
            value.retain(|byte| !b"\r\n".contains(byte));
        }
        lines.push(value);
    }
    lines
}

/// What a handler may name that was offered `offers`, and what it may not.
pub fn extensions_in_response(rng: &mut Rng, offers: &[Extension]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for _ in 0..pick(rng, &[0, 1, 1, 1, 1, 1, 2]) {
        let mut elements = Vec::new();
        for _ in 0..pick(rng, &[1, 1, 1, 1, 2]) {
            elements.push(match rng.u8(..16) {
                0 => String::new(),
                1 => pick(rng, EXTENSIONS).to_owned(),
                2 => offered_extension(rng, true),
                3 => pick(rng, CLIENT_EXTENSIONS).to_owned(),
                4 => pick(rng, EXTENSION_NAMES).to_owned(),
                5 | 6 if !offers.is_empty() => {
                    let offer = &offers[rng.usize(..offers.len())];
                    let parameters = offer.parameters.iter().map(|(name, value)| match value {
                        Some(value) => format!(";{name}={value}"),
                        None => format!(";{name}"),
                    });
                    format!("{}{}", offer.name, parameters.collect::<String>())
                }
                7 => pick(rng, &Deflate::all_responses().collect::<Vec<_>>()).text(),
                _ => {
                    let offers = offers.iter().filter_map(Deflate::offered).collect::<Vec<_>>();
                    let sound = Deflate::all_responses()
                        .filter(|it| offers.iter().any(|offer| offer.allows(it)))
                        .collect::<Vec<_>>();
                    match &sound[..] {
                        [] => String::new(),
                        sound => pick(rng, sound).text(),
                    }
                }
            });
        }
        let mut value = elements.join(pick(rng, &[",", ", "])).into_bytes();
        if rng.u8(..16) == 0 {
            flip(rng, &mut value);
            value.retain(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
        }
        lines.push(value);
    }
    lines
}

fn dropped(rng: &mut Rng, draft: &mut Draft) {
    for _ in 0..rng.usize(1..4).min(draft.lines.len()) {
        draft.lines.remove(rng.usize(..draft.lines.len()));
    }
}

fn repeated(rng: &mut Rng, draft: &mut Draft) {
    let line = draft.lines[rng.usize(..draft.lines.len())].clone();
    for _ in 0..pick(rng, &[1, 1, 1, 2, 130]) {
        draft.insert(rng, line.clone());
    }
}

fn white_space(rng: &mut Rng, draft: &mut Draft) {
    let at = rng.usize(..draft.lines.len());
    let line = &mut draft.lines[at];
    let space = pick(
        rng,
        &[" ", "\t", " \t ", "\x0b", "\x0c", "\r", "\u{a0}", "\0", "\r\n ", "\n\t", "\u{2028}"],
    )
    .as_bytes();
    match rng.u8(..5) {
        0 => line.colon = b":".to_vec(),
        1 => line.colon = [b":", space].concat(),
        2 => line.value.extend_from_slice(space),
        3 => line.name.extend_from_slice(space),
        _ => {
            let inside = rng.usize(..=line.value.len());
            line.value.splice(inside..inside, space.iter().copied());
        }
    }
}

fn name(rng: &mut Rng, draft: &mut Draft) {
    let at = rng.usize(..draft.lines.len());
    draft.lines[at].name = pick(rng, NAMES).into();
}

fn line_end(rng: &mut Rng, draft: &mut Draft) {
    let at = rng.usize(..draft.lines.len());
    draft.lines[at].end = pick(
        rng,
        &[b"\n".as_slice(), b"\r", b"\n\r", b"\r\r\n", b"", b"\r\n\r\n", b"\r\n \r\n", b" \r\n"],
    )
    .to_vec();
}

fn no_attempt(rng: &mut Rng, draft: &mut Draft) {
    for name in ["Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        draft.without(name);
    }
    if rng.bool() {
        let line = pick(
            rng,
            &[
                ("Upgrade", "h2c"),
                ("Upgrade", "web-socket"),
                ("X-Upgrade", "websocket"),
                ("Upgrade", ""),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", "x"),
            ],
        );
        draft.insert(rng, Line::new(line.0, line.1));
    }
    if rng.u8(..4) == 0 {
        body(rng, draft);
    }
    if rng.u8(..4) == 0 {
        method(rng, draft);
    }
}

/// A class of requests: those of credentials and of extensions more often where the policy reads some.
fn class(rng: &mut Rng, policy: &Policy) -> (&'static str, Mutation) {
    if !policy.sources.is_empty() && rng.u8(..6) == 0 {
        return ("credentials", credentials);
    }
    match policy.extensions {
        Some(_) if rng.u8(..4) == 0 => ("extensions", extensions),
        _ => pick(rng, &CLASSES),
    }
}

/// A request behind the one that is tried: it must be answered only if that was an ordinary one.
pub const BEHIND: &[u8] = b"GET /internal HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";

/// The bytes of a connection, and the class that they belong to.
///
/// In front of the request that is tried there may be ordinary ones; behind it there is one more. Some clients stop half-way.
pub fn connection(rng: &mut Rng, policy: &Policy) -> (&'static str, Vec<u8>) {
    const BEFORE: &[&[u8]] = &[
        b"",
        b"",
        b"",
        b"",
        b"",
        BEHIND,
        b"\r\n",
        b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    let mut draft = Draft::valid(rng, policy);
    let (class, mutation) = class(rng, policy);
    mutation(rng, &mut draft);
    // Some are wrong in several ways, so that the order of the checks shows.
    let others = pick(rng, &[0, 0, 0, 1, 2]);
    for _ in 0..others {
        pick(rng, &CLASSES).1(rng, &mut draft);
        if draft.lines.is_empty() {
            draft.lines.push(Line::new("Host", "chat.example.com"));
        }
    }
    let mut bytes = [pick(rng, BEFORE), &draft.bytes(rng), BEHIND].concat();
    if rng.u8(..32) == 0 {
        bytes.truncate(rng.usize(..bytes.len()));
        return ("cut off", bytes);
    }
    (if others == 0 { class } else { "several at once" }, bytes)
}

/// A request over HTTP/2, and its head as the oracle reads it.
#[derive(Debug)]
pub struct Stream {
    pub class: &'static str,
    pub head: Head,
    pub request: Request<()>,
}

/// The same handshakes as an extended CONNECT (RFC 8441 5), without what HTTP/2 has no place for.
pub fn stream(rng: &mut Rng, policy: &Policy) -> Stream {
    loop {
        let mut draft = Draft::valid(rng, policy);
        let (class, mutation) = class(rng, policy);
        mutation(rng, &mut draft);
        let (class, method, protocol) = match (class, rng.u8(..8)) {
            ("method", _) => {
                (class, pick(rng, &["GET", "POST", "OPTIONS", "CONNECT"]), pick(rng, PROTOCOLS))
            }
            ("no attempt", _) => {
                (class, pick(rng, &["GET", "POST", "CONNECT"]), pick(rng, PROTOCOLS))
            }
            (_, 0) => (":protocol", "CONNECT", pick(rng, PROTOCOLS)),
            (_, 1) => ("webtransport", "CONNECT", pick(rng, &["webtransport", "webtransport-h3"])),
            _ => (class, "CONNECT", "websocket"),
        };
        let protocol =
            Some(protocol).filter(|protocol| !protocol.is_empty() && method == "CONNECT");
        let host = draft.position("Host").map(|at| draft.lines[at].value.clone());
        let authority = host
            .and_then(|host| String::from_utf8(host).ok())
            .unwrap_or_else(|| "chat.example.com".into());
        // RFC 9113 8.2.2 and 8.5: fields of the connection are malformed, and so is an ordinary CONNECT with a path.
        for name in
            ["Upgrade", "Connection", "Transfer-Encoding", "Keep-Alive", "Proxy-Connection", "TE"]
        {
            draft.without(name);
        }
        match rng.u8(..8) {
            0 if class == "host" => draft.lines.push(Line::new("Host", pick(rng, HOSTS))),
            1 | 2 if class == "host" => {
                draft.without("Host");
                let host = respelled(rng, &authority, HOST_SPELLINGS);
                draft.lines.push(Line::new("Host", &host));
            }
            0 | 1 => {}
            _ => draft.without("Host"),
        }
        if rng.bool() {
            draft.without("Sec-WebSocket-Key");
        }
        // Browsers send none of them there.
        if protocol.is_some_and(|protocol| protocol.starts_with("webtransport")) && rng.bool() {
            for name in ["Key", "Version", "Protocol", "Extensions"] {
                draft.without(&format!("Sec-WebSocket-{name}"));
            }
        }
        let path =
            String::from_utf8(draft.target.clone()).ok().filter(|target| target.starts_with('/'));
        let path = path.unwrap_or_else(|| "/ws".into());
        let uri = match (method, protocol) {
            ("CONNECT", None) => Uri::builder().authority(&*authority).build(),
            _ => Uri::builder()
                .scheme(pick(rng, &["http", "https"]))
                .authority(&*authority)
                .path_and_query(&*path)
                .build(),
        };
        // What cannot be sent at all is tried no further.
        let Ok(uri) = uri else { continue };
        let mut request = Request::new(());
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        let lines = draft.lines.iter().map(|line| {
            let name = HeaderName::from_bytes(&line.name).ok()?;
            Some((name, HeaderValue::from_bytes(line.value.trim_ascii()).ok()?))
        });
        let Some(lines) = lines.collect::<Option<Vec<_>>>() else { continue };
        for (name, value) in lines {
            request.headers_mut().append(name, value);
        }
        let mut head = Head::from(&request);
        // RFC 9113 8.1.1: no body follows, so any other length is malformed.
        if head.lines("content-length").any(|length| length != b"0") {
            head.lenient = Some("framing");
        }
        // RFC 9113 10.5.1: a large head may be rejected; each field counts for 32 bytes more (RFC 9113 6.5.2).
        let fields = head.fields.iter().map(|(name, value)| name.len() + value.len() + 32);
        if request.uri().to_string().len() + fields.sum::<usize>() > 15_000 {
            head.lenient = Some("many fields");
        }
        return Stream { class, head, request };
    }
}
