//! A second opinion: which requests are handshakes that a policy allows, from RFC 9110, 9112, 6455 and 8441 and from what this crate
//! documents, and from nothing in its code. It is written to be checked by reading and not to be fast.

mod http1;
mod origin;
mod token;

use std::{collections::HashSet, fmt, net::Ipv6Addr};

use http::{Request, Version};
use hyper::ext::Protocol;

pub use self::{
    http1::judge_stream,
    origin::Origin,
    token::{Source, TOKENS},
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
    /// A handshake; the subprotocol that must be named, if the policy lists some.
    Accepted(Option<String>),
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
    /// All of them if there are none.
    pub hosts: &'static [&'static str],
    /// `scheme://host[:port]`, where the host may begin with `*.` and the port may be `*`.
    pub origins: &'static [&'static str],
    pub same_origin: bool,
    pub public_origin: Option<&'static str>,
    pub allow_missing: bool,
    pub allow_null: bool,
    pub any_origin: bool,
    pub subprotocols: Option<&'static [&'static str]>,
    pub prefer_client_order: bool,
    pub accept_unmatched: bool,
    /// No token is asked for if there are none.
    pub sources: &'static [Source],
    /// How many more connections there may be, if there is a limit.
    pub places: Option<usize>,
    pub draining: bool,
    /// Told to the separate layers, which answer as a guard does.
    pub separate: bool,
}

/// The head of a request, whatever the transport.
#[derive(Clone, Default)]
pub struct Head {
    pub method: String,
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
                self.method == "CONNECT" && contains(protocol.as_bytes())
            }
            _ => false,
        };
        protocol
            || self.lines("upgrade").any(contains)
            || self.has("sec-websocket-key")
            || self.has("sec-websocket-version")
    }

    pub fn judge(&self, policy: &Policy) -> Judgement {
        let mut lenient = self.lenient;
        let verdict = match self.is_upgrade_request() {
            false => Verdict::Ordinary,
            true => match self.rejection(policy, &mut lenient) {
                Ok(subprotocol) => Verdict::Accepted(subprotocol),
                Err(code) => Verdict::Rejected(code),
            },
        };
        Judgement { verdict, lenient }
    }

    /// Why a handler must not be given this as a handshake, if there is a reason. It is to see an allowed one in the form that is
    /// documented for it, and no credential.
    pub fn judge_admitted(&self, policy: &Policy) -> Result<(), &'static str> {
        let (offers, subprotocol) = self.without_token(policy, &mut None)?;
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
        if policy.subprotocols.is_some() && !offers.iter().eq(&subprotocol) {
            return Err("a subprotocol that was not chosen");
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
    ) -> Result<Option<String>, &'static str> {
        let (offers, subprotocol) = self.without_token(policy, lenient)?;
        if !policy.sources.is_empty() {
            token::judge(self, policy, &offers)?;
        }
        match policy.places {
            Some(0) => Err("over-capacity"),
            _ => Ok(subprotocol),
        }
    }

    /// All checks in front of the token: what is offered, and what is chosen of it.
    fn without_token(
        &self,
        policy: &Policy,
        lenient: &mut Option<&'static str>,
    ) -> Result<(Vec<String>, Option<String>), &'static str> {
        if policy.draining {
            return Err("shutting-down");
        }
        self.opening()?;
        let host = self.host(lenient)?;
        if !matches!(self.transport, Transport::Http2(_)) {
            self.key()?;
        }
        self.version()?;
        self.body()?;
        let offers = self.offers()?;
        if !policy.hosts.is_empty()
            && !policy.hosts.iter().any(|entry| authority(entry).as_ref() == Some(&host))
        {
            return Err("host-not-allowed");
        }
        self.origin(policy, &host, lenient)?;
        let subprotocol = token::choose(policy, &offers)?;
        Ok((offers, subprotocol))
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
            if authority(without_userinfo).as_ref() != Some(&host) {
                return Err("host-invalid");
            }
        } else if matches!(self.transport, Transport::Http2(_)) {
            // RFC 8441 4: `:authority` is there.
            return Err("host-invalid");
        }
        Ok(host)
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
        match self.has("transfer-encoding") || !matches!(lengths[..], [] | [b"0"]) {
            true => Err("body-present"),
            false => Ok(()),
        }
    }

    /// RFC 6455 4.1 item 10; 128 elements are documented as the most, empty ones included.
    fn offers(&self) -> Result<Vec<String>, &'static str> {
        let name = "sec-websocket-protocol";
        let elements = self.lines(name).flat_map(|line| line.split(|&byte| byte == b',')).count();
        let offers = self
            .elements(name)
            .map(|offer| String::from_utf8_lossy(offer).into_owned())
            .collect::<Vec<_>>();
        let distinct = offers.iter().collect::<HashSet<_>>().len() == offers.len();
        let named = offers.is_empty() != self.has(name);
        match named
            && distinct
            && elements <= 128
            && offers.iter().all(|offer| is_token(offer.as_bytes()))
        {
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
            [] => (policy.any_origin, policy.allow_missing, "origin-missing"),
            [b"null"] => (policy.any_origin || policy.allow_null, false, "origin-not-allowed"),
            [value] => {
                let origin = Origin::parse(value).ok_or("origin-invalid")?;
                let explicit = policy.any_origin
                    || policy.origins.iter().any(|pattern| origin.matches(pattern));
                let web = ["http", "https"].contains(&&*origin.scheme);
                let same = policy.same_origin && web && {
                    let port = host.port.or(origin::default_port(&origin.scheme));
                    if host.name != origin.host
                        && ipv6(&host.name).is_some_and(|it| ipv6(&origin.host) == Some(it))
                    {
                        *lenient = Some("another spelling of an IPv6 address");
                    }
                    host.name == origin.host && port == origin.effective_port()
                };
                let public = policy.public_origin.is_some_and(|pattern| origin.matches(pattern));
                (explicit, same || public, "origin-not-allowed")
            }
            _ => return Err("origin-repeated"),
        };
        match explicit || implicit && !cross_site {
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
    is_future || ipv6(name).is_some()
}

fn ipv6(name: &str) -> Option<Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_own_examples() {
        let policy = Policy { origins: &["http://example.com"], ..Policy::default() };
        let rfc6455_1_2 = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let judged = |request: &str| judge_stream(request.as_bytes(), &policy)[0].verdict.clone();
        assert_eq!(judged(rfc6455_1_2), Verdict::Accepted(None));
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
}
