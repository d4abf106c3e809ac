//! A second opinion: which requests are handshakes that a policy allows, from RFC 9110, 9112, 6455 and 8441 and from what this crate
//! documents, and from nothing in its code. It is written to be checked by reading and not to be fast.

pub mod extensions;
mod host;
mod http1;
mod origin;
mod token;

use std::{collections::HashSet, fmt};

use http::{Request, Version};
use hyper::ext::Protocol;

pub use self::{
    extensions::{Compression, Negotiation},
    http1::judge_stream,
    origin::Origin,
    token::{DEFAULT_MAX_LENGTH, Source, TOKENS, challenges},
};

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No HTTP message: no service sees it.
    Malformed,
    /// No handshake attempt: the inner service sees it as it is.
    Ordinary,
    /// Rejected, with this code.
    Rejected(&'static str),
    /// A handshake, or a WebTransport session.
    Accepted(Accepted),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// What must be named, if the policy lists some.
    pub subprotocol: Option<String>,
    /// What the handler is shown; a policy that completes handshakes names what was agreed to.
    pub extensions: Negotiation,
}

#[derive(Clone, Debug)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Why a recipient may reject the request all the same: the RFC leaves it the choice.
    pub lenient: Option<&'static str>,
}

/// What a guard is told, as a configuration has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    pub name: &'static str,
    /// All of them if there are none. `host[:port]`, where a name may begin with `*.` and the port may be `*`.
    pub hosts: &'static [&'static str],
    /// The names and addresses of this machine.
    pub loopback: bool,
    /// `scheme://host[:port]`, where the host may begin with `*.` and the port may be `*`, or `scheme://*`.
    pub origins: &'static [&'static str],
    pub same_origin: bool,
    pub public_origin: Option<&'static str>,
    pub allow_missing: bool,
    pub allow_null: bool,
    pub any_origin: bool,
    pub no_browsers: bool,
    pub subprotocols: Option<&'static [&'static str]>,
    pub prefer_client_order: bool,
    pub accept_unmatched: bool,
    /// No token is asked for if there are none.
    pub sources: &'static [Source],
    pub first_source_wins: bool,
    /// Of a decoded credential, if it is not the one that is documented.
    pub max_length: Option<usize>,
    /// How many more connections there may be, if there is a limit.
    pub places: Option<usize>,
    pub draining: bool,
    /// Told to the separate layers, which answer as a guard does.
    pub separate: bool,
    /// The header is not read if there is none.
    pub extensions: Option<Compression>,
    /// Whether the handler only says that it takes the connection. Of separate layers, the innermost does it.
    pub completes: bool,
    /// Whether hosts and origins are let in that are not allowed.
    pub report_only: bool,
}

/// The head of a request, whatever the transport.
#[derive(Clone, Default)]
pub struct Head {
    pub method: String,
    /// The scheme of an absolute-form target, `:scheme`; in lower case.
    pub scheme: Option<String>,
    /// What a host is compared with: the authority of an absolute-form target, `:authority`.
    pub authority: Option<String>,
    pub query: String,
    pub transport: Transport,
    /// Names in lower case, values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub lenient: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    #[default]
    Http11,
    Http10,
    /// With the `:protocol`, if there is one.
    Http2(Option<String>),
}

impl<B> From<&Request<B>> for Head {
    fn from(request: &Request<B>) -> Self {
        let (uri, protocol) = (request.uri(), request.extensions().get::<Protocol>());
        let fields = request.headers().iter();
        Self {
            method: request.method().to_string(),
            scheme: uri.scheme_str().map(str::to_ascii_lowercase),
            authority: uri.authority().map(ToString::to_string),
            query: uri.query().unwrap_or_default().to_owned(),
            transport: match request.version() {
                Version::HTTP_2 => {
                    Transport::Http2(protocol.map(|protocol| protocol.as_str().to_owned()))
                }
                Version::HTTP_11 => Transport::Http11,
                _ => Transport::Http10,
            },
            fields: fields
                .map(|(name, value)| (name.to_string(), trim(value.as_bytes()).to_vec()))
                .collect(),
            lenient: None,
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ?{} {:?}", self.method, self.authority, self.query, self.transport)?;
        self.fields
            .iter()
            .try_for_each(|(name, value)| write!(f, "\n  {name}: {}", value.escape_ascii()))
    }
}

impl Head {
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(there, _)| there == name).map(|(_, value)| &**value)
    }

    fn has(&self, name: &str) -> bool {
        self.lines(name).next().is_some()
    }

    /// The elements of a list over all its lines, empty ones skipped (RFC 9110 5.6.1).
    fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let elements = self.lines(name).flat_map(|line| line.split(|&byte| byte == b','));
        elements.map(trim).filter(|element| !element.is_empty())
    }

    /// As `is_upgrade_request` is documented: loosely.
    fn is_upgrade_request(&self) -> bool {
        let contains = |value: &[u8]| {
            value.to_ascii_lowercase().windows(9).any(|window| window == b"websocket")
        };
        let protocol = match &self.transport {
            Transport::Http2(Some(protocol)) => {
                let protocol = protocol.to_ascii_lowercase();
                self.method == "CONNECT"
                    && (protocol.contains("websocket") || protocol.contains("webtransport"))
            }
            _ => false,
        };
        protocol
            || self.lines("upgrade").any(contains)
            || self.has("sec-websocket-key")
            || self.has("sec-websocket-version")
    }

    /// A session of WebTransport over HTTP/2 or HTTP/3, which has no part in RFC 6455.
    pub fn is_webtransport(&self) -> bool {
        let Transport::Http2(Some(protocol)) = &self.transport else { return false };
        self.method == "CONNECT" && ["webtransport", "webtransport-h3"].contains(&&**protocol)
    }

    pub fn judge(&self, policy: &Policy) -> Judgement {
        let mut lenient = self.lenient;
        let verdict = match self.is_upgrade_request() {
            false => Verdict::Ordinary,
            true => match self.rejection(policy, &mut lenient) {
                Ok(accepted) => Verdict::Accepted(accepted),
                Err(code) => Verdict::Rejected(code),
            },
        };
        Judgement { verdict, lenient }
    }

    /// Why a handler must not be given this as a handshake, if there is a reason. It is to see an allowed one in the form that is
    /// documented for it, and no credential.
    pub fn judge_admitted(&self, policy: &Policy) -> Result<(), &'static str> {
        let (offers, accepted) = self.without_token(policy, &mut None)?;
        if policy.places == Some(0) {
            return Err("no place is left");
        }
        let is_canonical = [("upgrade", "websocket"), ("connection", "Upgrade")].into_iter().all(
            |(name, value)| match self.transport {
                Transport::Http2(_) => !self.has(name),
                _ => self.lines(name).eq([value.as_bytes()]),
            },
        );
        if !is_canonical {
            return Err("not in canonical form");
        }
        // Those of RFC 6455 11.3 that a request has.
        let of_websocket = ["key", "extensions", "protocol", "version"];
        let mut of_websocket = of_websocket.iter().map(|name| format!("sec-websocket-{name}"));
        if self.is_webtransport() && of_websocket.any(|name| self.has(&name)) {
            return Err("a header of a WebSocket");
        }
        if policy.subprotocols.is_some() && !offers.iter().eq(&accepted.subprotocol) {
            return Err("a subprotocol that was not chosen");
        }
        let extensions = self.negotiate(policy)?;
        if policy.extensions.is_some() && !extensions.sent.is_empty() && extensions.agreed.is_none()
        {
            return Err("an extension that was not agreed to");
        }
        match token::is_left(self, policy, &offers) {
            true => Err("a credential"),
            false => Ok(()),
        }
    }

    /// In the order of the checks; the first failure is the answer.
    fn rejection(
        &self,
        policy: &Policy,
        lenient: &mut Option<&'static str>,
    ) -> Result<Accepted, &'static str> {
        let (offers, mut accepted) = self.without_token(policy, lenient)?;
        if !policy.sources.is_empty() {
            token::judge(self, policy, &offers)?;
        }
        // The layer behind the others.
        if policy.separate && policy.completes {
            if self.is_webtransport() {
                return Err("upgrade-missing");
            }
            accepted.extensions = self.negotiate(policy)?;
        }
        match policy.places {
            Some(0) => Err("over-capacity"),
            _ => Ok(accepted),
        }
    }

    /// All checks in front of the token: what is offered, and what is chosen of it.
    fn without_token(
        &self,
        policy: &Policy,
        lenient: &mut Option<&'static str>,
    ) -> Result<(Vec<String>, Accepted), &'static str> {
        if policy.draining {
            return Err("shutting-down");
        }
        self.opening()?;
        // Of separate layers, the last completes handshakes.
        let late = policy.separate && policy.completes;
        if self.is_webtransport() && policy.completes && !late {
            return Err("upgrade-missing");
        }
        let host = self.host(lenient)?;
        if !matches!(self.transport, Transport::Http2(_)) {
            self.key()?;
        }
        if !self.is_webtransport() {
            self.version()?;
        }
        self.body()?;
        let offers = match self.is_webtransport() {
            true => Vec::new(),
            false => self.offers(policy)?,
        };
        let extensions = if late { Negotiation::default() } else { self.negotiate(policy)? };
        let any_host = policy.hosts.is_empty() && !policy.loopback;
        let listed = || policy.hosts.iter().any(|pattern| host::matches(pattern, &host));
        if !policy.report_only {
            if !(any_host || listed() || policy.loopback && host::is_loopback(&host)) {
                return Err("host-not-allowed");
            }
            self.origin(policy, &host, lenient)?;
        }
        let subprotocol = token::choose(policy, &offers)?;
        Ok((offers, Accepted { subprotocol, extensions }))
    }

    /// RFC 6455 9.1, if it is read at all.
    fn negotiate(&self, policy: &Policy) -> Result<Negotiation, &'static str> {
        if self.is_webtransport() {
            return Ok(Negotiation::default());
        }
        let lines = self.lines("sec-websocket-extensions").collect::<Vec<_>>();
        let agreed = match policy.extensions {
            Some(compression) => {
                let offers = extensions::parse(lines.iter().copied()).ok_or("extension-invalid")?;
                compression.agree(&offers)
            }
            None => None,
        };
        Ok(Negotiation { sent: lines.iter().map(|line| line.to_vec()).collect(), agreed })
    }

    /// The one credential that is to be verified, or the code for which it comes to no verification.
    pub fn credential(&self, policy: &Policy) -> Result<Vec<u8>, &'static str> {
        let (offers, _) = self.without_token(policy, &mut None)?;
        token::credential(self, policy, &offers)
    }

    /// RFC 6455 4.2.1 items 1, 3 and 4; RFC 8441 4 and 5.
    fn opening(&self) -> Result<(), &'static str> {
        match &self.transport {
            Transport::Http2(_) if self.method != "CONNECT" => Err("method-not-allowed"),
            Transport::Http2(Some(protocol)) if protocol == "websocket" => Ok(()),
            _ if self.is_webtransport() => Ok(()),
            Transport::Http2(_) => Err("upgrade-missing"),
            _ if self.method != "GET" => Err("method-not-allowed"),
            Transport::Http10 => Err("http-version"),
            Transport::Http11
                if !self.elements("upgrade").any(|it| it.eq_ignore_ascii_case(b"websocket")) =>
            {
                Err("upgrade-missing")
            }
            Transport::Http11
                if !self.elements("connection").any(|it| it.eq_ignore_ascii_case(b"upgrade")) =>
            {
                Err("connection-missing")
            }
            Transport::Http11
                if self.elements("connection").any(|it| it.eq_ignore_ascii_case(b"close")) =>
            {
                Err("connection-close")
            }
            Transport::Http11 => Ok(()),
        }
    }

    /// RFC 6455 4.2.1 item 2, RFC 9112 3.2, RFC 9113 8.3.1.
    fn host(&self, lenient: &mut Option<&'static str>) -> Result<Authority, &'static str> {
        let lines = self.lines("host").collect::<Vec<_>>();
        let sent = match (&self.transport, lines[..].split_first(), &self.authority) {
            (_, Some((line, [])), _) => {
                String::from_utf8(line.to_vec()).map_err(|_| "host-invalid")?
            }
            (Transport::Http2(_), None, Some(authority)) => authority.clone(),
            _ => return Err("host-invalid"),
        };
        let host = authority(&sent).ok_or("host-invalid")?;
        if let Some(target) = &self.authority {
            // RFC 9112 3.2: Host is the authority without its userinfo, which RFC 9110 4.2.4 has treated as an error.
            let without_userinfo = target.rsplit('@').next().unwrap_or_default();
            if without_userinfo.len() < target.len() {
                *lenient = Some("userinfo");
            }
            // RFC 9110 4.2.3: the port that a scheme implies may be left out.
            let scheme = self.scheme.as_deref().filter(|scheme| *scheme != "ftp");
            let port = |host: &Authority| host.port.or(scheme.and_then(origin::default_port));
            let agrees = |it: Authority| it.name == host.name && port(&it) == port(&host);
            if !authority(without_userinfo).is_some_and(agrees) {
                return Err("host-invalid");
            }
        } else if matches!(self.transport, Transport::Http2(_)) {
            // RFC 8441 4: `:authority` is there.
            return Err("host-invalid");
        }
        // RFC 9113 8.3.1: the authority counts.
        match (&self.transport, self.authority.as_deref().and_then(authority)) {
            (Transport::Http2(_), Some(target)) => Ok(target),
            _ => Ok(host),
        }
    }

    /// RFC 6455 4.2.1 item 5 and 11.3.1.
    fn key(&self) -> Result<(), &'static str> {
        let lines = self.lines("sec-websocket-key").collect::<Vec<_>>();
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        match lines[..] {
            [] => Err("key-missing"),
            [key] if key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64) => {
                Ok(())
            }
            [_] => Err("key-invalid"),
            _ => Err("key-repeated"),
        }
    }

    /// RFC 6455 4.2.1 item 6, 4.4 and 11.3.5.
    fn version(&self) -> Result<(), &'static str> {
        let lines = self.lines("sec-websocket-version").collect::<Vec<_>>();
        match lines[..] {
            [] => Err("version-missing"),
            [b"13"] => Ok(()),
            [version] if (0..=255).any(|known| version == format!("{known}").as_bytes()) => {
                Err("version-unsupported")
            }
            _ => Err("version-invalid"),
        }
    }

    fn body(&self) -> Result<(), &'static str> {
        let lengths = self.lines("content-length").collect::<Vec<_>>();
        let bodiless = match lengths[..] {
            [] => true,
            // RFC 9113 8.1.1: over HTTP/2 it would count the frames behind it.
            [b"0"] => !matches!(self.transport, Transport::Http2(_)),
            _ => false,
        };
        match bodiless && !self.has("transfer-encoding") {
            true => Ok(()),
            false => Err("body-present"),
        }
    }

    /// RFC 6455 4.1 item 10; 128 elements are documented as the most, empty ones included. A name that is configured need be no token,
    /// and lines that are all empty offer nothing.
    fn offers(&self, policy: &Policy) -> Result<Vec<String>, &'static str> {
        let name = "sec-websocket-protocol";
        let elements = self.lines(name).flat_map(|line| line.split(|&byte| byte == b',')).count();
        let offers = self
            .elements(name)
            .map(|offer| String::from_utf8_lossy(offer).into_owned())
            .collect::<Vec<_>>();
        let distinct = offers.iter().collect::<HashSet<_>>().len() == offers.len();
        let named = !offers.is_empty() || self.lines(name).all(<[u8]>::is_empty);
        let ours = policy.subprotocols.unwrap_or_default();
        let is_sound = |offer: &String| is_token(offer.as_bytes()) || ours.contains(&&**offer);
        match named && distinct && elements <= 128 && offers.iter().all(is_sound) {
            true => Ok(offers),
            false => Err("subprotocol-invalid"),
        }
    }

    /// As `AllowOrigin` is documented.
    fn origin(
        &self,
        policy: &Policy,
        host: &Authority,
        lenient: &mut Option<&'static str>,
    ) -> Result<(), &'static str> {
        let lines = self.lines("origin").collect::<Vec<_>>();
        let sites = self.lines("sec-fetch-site").collect::<Vec<_>>();
        let cross_site = match sites[..] {
            [b"cross-site"] => true,
            [] | [b"same-origin" | b"same-site" | b"none"] => false,
            // Anything else is no Fetch Metadata; the header is there to reject and never to allow.
            _ => {
                *lenient = Some("fetch metadata");
                false
            }
        };
        let (explicit, implicit, otherwise) = match lines[..] {
            [] | [b""] => {
                (policy.any_origin, policy.allow_missing || policy.no_browsers, "origin-missing")
            }
            [b"null"] => (policy.any_origin || policy.allow_null, false, "origin-not-allowed"),
            [value] => {
                let origin = Origin::parse(value).ok_or("origin-invalid")?;
                let explicit = policy.any_origin
                    || policy.origins.iter().any(|pattern| origin.matches(pattern));
                let web = ["http", "https"].contains(&&*origin.scheme);
                let same = |host: &Authority| {
                    let name =
                        origin::ipv6(&host.name).map_or(host.name.clone(), origin::canonical);
                    let port = host.port.or(origin::default_port(&origin.scheme));
                    web && name == origin.host && port == origin.effective_port()
                };
                // Where a default port stands in one of the two alone, either may be the server's.
                let target = self.authority.as_deref().and_then(authority);
                if policy.same_origin && target.is_some_and(|target| same(&target) != same(host)) {
                    *lenient = Some("a default port");
                }
                let same = policy.same_origin && same(host);
                let public = policy.public_origin.is_some_and(|pattern| origin.matches(pattern));
                (explicit, same || public, "origin-not-allowed")
            }
            _ => return Err("origin-repeated"),
        };
        let sent = !matches!(lines[..], [] | [b""]);
        match (explicit || implicit && !cross_site) && !(sent && policy.no_browsers) {
            true => Ok(()),
            // What is missing and allowed by name is rejected for the site that it comes from.
            false if implicit => Err("origin-not-allowed"),
            false => Err(otherwise),
        }
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = value.iter().position(|byte| !is_space(byte)) else { return b"" };
    let end = value.iter().rposition(|byte| !is_space(byte)).unwrap_or(start);
    &value[start..=end]
}

/// RFC 9110 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

/// `uri-host [":" port]` of RFC 9110 7.2, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<u32>,
}

fn authority(text: &str) -> Option<Authority> {
    let text = text.to_ascii_lowercase();
    // No name has a colon, and an address that has one is in brackets.
    let split = match text.strip_prefix('[') {
        Some(literal) => literal.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at(split);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(port)
            if (1..=5).contains(&port.len()) && port.bytes().all(|it| it.is_ascii_digit()) =>
        {
            port.parse().ok()
        }
        _ => return None,
    };
    (is_ip_literal(name) || is_reg_name(name)).then(|| Authority { name: name.to_owned(), port })
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// RFC 3986 3.2.2, and not empty. An IPv4 address is one, too.
fn is_reg_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let escaped =
            byte == b'%' && bytes.by_ref().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
        if !escaped && !is_plain(byte) {
            return false;
        }
    }
    !name.is_empty()
}

/// RFC 3986 3.2.2.
fn is_ip_literal(name: &str) -> bool {
    let Some(literal) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) else {
        return false;
    };
    let future = literal.strip_prefix('v').and_then(|future| future.split_once('.'));
    let is_future = future.is_some_and(|(version, address)| {
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(|byte| byte == b':' || is_plain(byte))
    });
    is_future || origin::ipv6(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Verdict {
        Verdict::Accepted(Accepted::default())
    }

    #[test]
    fn the_rfcs_own_examples() {
        let policy = Policy { origins: &["http://example.com"], ..Policy::default() };
        let rfc6455_1_2 = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let judged = |request: &str| judge_stream(request.as_bytes(), &policy)[0].verdict.clone();
        assert_eq!(judged(rfc6455_1_2), accepted());
        for (there, instead, code) in [
            ("GET", "POST", "method-not-allowed"),
            ("HTTP/1.1", "HTTP/1.0", "http-version"),
            ("Upgrade: websocket", "Upgrade: websocket2", "upgrade-missing"),
            ("Connection: Upgrade", "Connection: upgraded", "connection-missing"),
            ("Host: ", "Host: @", "host-invalid"),
            ("==", "", "key-invalid"),
            ("13", "25", "version-unsupported"),
            ("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\n", "body-present"),
            ("superchat", "chat", "subprotocol-invalid"),
            ("http://example.com", "http://example.com.evil", "origin-not-allowed"),
            ("http://example.com", "http://example.com/", "origin-invalid"),
        ] {
            assert_eq!(
                judged(&rfc6455_1_2.replace(there, instead)),
                Verdict::Rejected(code),
                "{instead}"
            );
        }
    }

    /// What comes of a handshake with these fields.
    fn judged(fields: &[(&str, &str)], target: Option<&str>, policy: &Policy) -> Verdict {
        let standard = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        let fields = standard.iter().chain(fields);
        let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let mut head =
            Head { method: "GET".to_owned(), fields: fields.collect(), ..Head::default() };
        if let Some((scheme, authority)) = target.and_then(|target| target.split_once("://")) {
            (head.scheme, head.authority) = (Some(scheme.to_owned()), Some(authority.to_owned()));
        }
        head.judge(policy).verdict
    }

    #[test]
    fn hosts_and_origins() {
        const INVALID: Verdict = Verdict::Rejected("host-invalid");
        const FOREIGN: Verdict = Verdict::Rejected("origin-not-allowed");
        let policy = Policy { same_origin: true, ..Policy::default() };
        for (target, host, origin, verdict) in [
            ("", "LOCALHOST.:3000", "http://localhost.:3000", accepted()),
            ("", "localhost.:3000", "http://localhost:3000", FOREIGN),
            ("", "[0:0::1]", "http://[::0:1]", accepted()),
            ("", "a:443", "wss://a", accepted()),
            ("", "a:80", "wss://a", FOREIGN),
            ("", "127.1", "http://127.0.0.1", FOREIGN),
            ("", "a", "ftp://a:80", FOREIGN),
            ("http://a:80", "a", "http://a", accepted()),
            ("https://a", "a:443", "https://a", accepted()),
            ("https://a:80", "a", "https://a", INVALID),
            ("http://a.", "a", "http://a", INVALID),
        ] {
            let judged = judged(&[("host", host), ("origin", origin)], Some(target), &policy);
            assert_eq!(judged, verdict, "{target} {host} {origin}");
        }
        let policy = Policy { no_browsers: true, ..policy };
        for (origin, verdict) in [
            ("", accepted()),
            ("http://a", FOREIGN),
            ("null", FOREIGN),
            ("http://a/", Verdict::Rejected("origin-invalid")),
        ] {
            assert_eq!(judged(&[("host", "a"), ("origin", origin)], None, &policy), verdict);
        }
        let cross_site = [("host", "a"), ("sec-fetch-site", "cross-site")];
        assert_eq!(judged(&cross_site, None, &policy), FOREIGN);
    }

    #[test]
    fn subprotocols() {
        let spdy = "SPDY/3.1+portforward.k8s.io";
        let policy = Policy {
            any_origin: true,
            subprotocols: Some(&["SPDY/3.1+portforward.k8s.io"]),
            ..Policy::default()
        };
        let invalid = Err("subprotocol-invalid");
        for (lines, expected) in [
            (&[""][..], Ok(None)),
            (&["", ""], Ok(None)),
            (&[","], invalid),
            (&["", ","], invalid),
            (&[spdy], Ok(Some(spdy))),
            (&["", spdy], Ok(Some(spdy))),
            (&[spdy, spdy], invalid),
            (&["spdy/3.1+portforward.k8s.io"], invalid),
            (&["chat"], Err("subprotocol-unsupported")),
        ] {
            let offers = lines.iter().map(|line| ("sec-websocket-protocol", *line));
            let fields = [("host", "a")].into_iter().chain(offers).collect::<Vec<_>>();
            let expected = match expected {
                Ok(chosen) => Verdict::Accepted(Accepted {
                    subprotocol: chosen.map(str::to_owned),
                    ..Accepted::default()
                }),
                Err(code) => Verdict::Rejected(code),
            };
            assert_eq!(judged(&fields, None, &policy), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_length_over_http2() {
        let policy = Policy { any_origin: true, ..Policy::default() };
        let length = ("content-length", "0");
        assert_eq!(judged(&[("host", "a"), length], None, &policy), accepted());
        let fields = [("sec-websocket-version", "13"), length];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let head = Head {
            method: "CONNECT".to_owned(),
            authority: Some("a".to_owned()),
            transport: Transport::Http2(Some("websocket".to_owned())),
            fields: fields.into(),
            ..Head::default()
        };
        assert_eq!(head.judge(&policy).verdict, Verdict::Rejected("body-present"));
    }

    #[test]
    fn extensions_in_the_order_of_the_checks() {
        let reads = Policy {
            origins: &["http://a"],
            hosts: &["a"],
            subprotocols: Some(&["chat"]),
            extensions: Some(Compression::WHOLE),
            ..Policy::default()
        };
        let all = [
            ("sec-websocket-protocol", "chat,chat", "chat", "subprotocol-invalid"),
            ("sec-websocket-extensions", "a;", "permessage-deflate", "extension-invalid"),
            ("host", "b", "a", "host-not-allowed"),
            ("origin", "http://b", "http://a", "origin-not-allowed"),
        ];
        for first in 0..=all.len() {
            let fields = all.iter().enumerate().map(|(at, (name, faulty, sound, _))| {
                (*name, if at < first { *sound } else { *faulty })
            });
            let fields = fields.collect::<Vec<_>>();
            match (judged(&fields, None, &reads), all.get(first)) {
                (Verdict::Rejected(code), Some((.., expected))) => assert_eq!(code, *expected),
                (Verdict::Accepted(accepted), None) => {
                    assert_eq!(accepted.subprotocol.as_deref(), Some("chat"));
                    assert!(accepted.extensions.agreed.is_some());
                }
                (verdict, _) => panic!("{verdict:?}"),
            }
            let reports = Policy { report_only: true, ..reads };
            let rejected = matches!(judged(&fields, None, &reports), Verdict::Rejected(_));
            assert_eq!(rejected, first < 2);
        }
        let malformed = [("host", "a"), ("origin", "http://a"), ("sec-websocket-extensions", ";")];
        let unread = Policy { extensions: None, ..reads };
        let Verdict::Accepted(accepted) = judged(&malformed, None, &unread) else {
            panic!("it is not read")
        };
        assert_eq!(accepted.extensions.sent, [b";"]);
    }

    #[test]
    fn webtransport() {
        let guard = Policy {
            origins: &["https://a"],
            subprotocols: Some(&["chat"]),
            extensions: Some(Compression::WHOLE),
            ..Policy::default()
        };
        let tokens = Policy { sources: &[Source::Subprotocol("bearer.")], ..guard };
        let completes = Policy { completes: true, ..guard };
        let fields = [
            ("sec-websocket-key", "x"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-protocol", "bearer.tr0ub4dor-3,,/"),
            ("sec-websocket-extensions", ";"),
        ];
        let missing = Verdict::Rejected("upgrade-missing");
        for (protocol, origin, policy, expected) in [
            ("webtransport", "https://a", guard, accepted()),
            ("webtransport-h3", "https://a", guard, accepted()),
            ("webtransport-h3", "https://b", guard, Verdict::Rejected("origin-not-allowed")),
            ("webtransport", "https://a", tokens, Verdict::Rejected("token-missing")),
            ("webtransport", "https://a", completes, missing.clone()),
            ("WebTransport", "https://a", guard, missing.clone()),
            ("webtransport-h4", "https://a", guard, missing.clone()),
            ("connect-udp", "https://a", guard, missing),
        ] {
            let sent = fields.into_iter().chain([("origin", origin)]);
            let sent = sent.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
            let head = Head {
                method: "CONNECT".to_owned(),
                authority: Some("a".to_owned()),
                transport: Transport::Http2(Some(protocol.to_owned())),
                fields: sent.collect(),
                ..Head::default()
            };
            assert_eq!(head.judge(&policy).verdict, expected, "{protocol} {origin}");
            let bare = Head { fields: Vec::new(), ..head };
            let is_ordinary = bare.judge(&policy).verdict == Verdict::Ordinary;
            assert_eq!(is_ordinary, protocol == "connect-udp");
        }
    }
}
