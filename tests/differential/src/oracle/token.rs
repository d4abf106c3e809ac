//! Exactly one credential, as `TokenPolicy` and `TokenSource` are documented: from RFC 6750 2.1, RFC 6265 4.2, RFC 3986 2.1 and
//! RFC 4648 4 and 5.

use super::{Head, Policy, trim};

/// The tokens that are known.
pub const TOKENS: [&str; 3] = ["s3cr3t-t0ken.A1~b+c/d==", "tr0ub4dor-3", "t0ken-of-b0b?"];

/// Longer tokens are documented as malformed.
const MAX_LENGTH: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Authorization,
    Cookie(&'static str),
    Query(&'static str),
    Subprotocol(&'static str),
    Kubernetes,
    Phoenix,
    Pair(&'static str),
}

const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";
const PHOENIX: &str = "base64url.bearer.phx.";

impl Source {
    fn prefix(self) -> Option<&'static str> {
        match self {
            Self::Subprotocol(prefix) => Some(prefix),
            Self::Kubernetes => Some(KUBERNETES),
            Self::Phoenix => Some(PHOENIX),
            _ => None,
        }
    }

    /// The tokens among the subprotocols, as they are written.
    fn carried(self, offers: &[String]) -> Vec<&str> {
        match (self, self.prefix()) {
            (_, Some(prefix)) => {
                offers.iter().filter_map(|offer| offer.strip_prefix(prefix)).collect()
            }
            (Self::Pair(marker), _) => {
                offers.windows(2).filter(|pair| pair[0] == marker).map(|pair| &*pair[1]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The token of each credential, `None` for one that is malformed.
    fn find(self, head: &Head, offers: &[String]) -> Vec<Option<Vec<u8>>> {
        let found: Vec<Option<Vec<u8>>> = match self {
            Self::Authorization => {
                let mut found = head
                    .lines("authorization")
                    .filter_map(bearer)
                    .map(b64token)
                    .collect::<Vec<_>>();
                // RFC 9110 5.3: it may be there once; somebody else may look at another of the lines.
                if !found.is_empty() && head.lines("authorization").count() > 1 {
                    found.push(None);
                }
                found
            }
            Self::Cookie(name) => {
                let pairs = head.lines("cookie").flat_map(|line| line.split(|&byte| byte == b';'));
                // RFC 6265 5.2: white space around either is no part of it.
                let parts = pairs.filter_map(|pair| {
                    Some(pair.split_at(pair.iter().position(|&byte| byte == b'=')?))
                });
                let values = parts
                    .filter(|(key, _)| trim(key) == name.as_bytes())
                    .map(|(_, value)| trim(&value[1..]));
                values.map(|value| Some(value.to_vec())).collect()
            }
            Self::Query(name) => {
                let parameters = head.query.split('&').filter(|_| !head.query.is_empty());
                let pairs = parameters
                    .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
                let named = pairs
                    .filter(|(key, _)| percent_decode(key).as_deref() == Some(name.as_bytes()));
                named.map(|(_, value)| percent_decode(value)).collect()
            }
            Self::Subprotocol(_) | Self::Pair(_) => self
                .carried(offers)
                .into_iter()
                .map(|token| Some(token.as_bytes().to_vec()))
                .collect(),
            Self::Kubernetes => {
                self.carried(offers).into_iter().map(|token| base64(token, b"-_")).collect()
            }
            Self::Phoenix => {
                let standard = |token: &str| token.replace('-', "+").replace('_', "/");
                self.carried(offers)
                    .into_iter()
                    .map(|token| base64(&standard(token), b"+/"))
                    .collect()
            }
        };
        let sound = |token: &Vec<u8>| {
            let text = std::str::from_utf8(token);
            token.len() <= MAX_LENGTH
                && text.is_ok_and(|text| !text.is_empty() && !text.contains(char::is_control))
        };
        found.into_iter().map(|token| token.filter(sound)).collect()
    }
}

/// The token of the one credential in a handshake.
pub fn credential(
    head: &Head,
    policy: &Policy,
    offers: &[String],
) -> Result<Vec<u8>, &'static str> {
    let mut found = policy.sources.iter().flat_map(|source| source.find(head, offers));
    match (found.next(), found.next()) {
        (None, _) => Err("token-missing"),
        (_, Some(_)) => Err("token-ambiguous"),
        (Some(token), None) => token.ok_or("token-invalid"),
    }
}

/// Whether there is a credential where a handler is to see none. Cookies are documented to stay.
pub fn is_left(head: &Head, policy: &Policy, offers: &[String]) -> bool {
    let mut stripped = policy.sources.iter().filter(|source| !matches!(source, Source::Cookie(_)));
    stripped.any(|source| !source.find(head, offers).is_empty())
}

pub fn judge(head: &Head, policy: &Policy, offers: &[String]) -> Result<(), &'static str> {
    let token = credential(head, policy, offers)?;
    TOKENS.iter().any(|known| known.as_bytes() == token).then_some(()).ok_or("token-invalid")
}

/// RFC 6455 4.2.2 item 5.5, in the server's order or the client's; a marker is ours without being listed, and the last.
pub fn choose(policy: &Policy, offers: &[String]) -> Result<Option<String>, &'static str> {
    let is_carrier = |at: usize| {
        policy.sources.iter().any(|source| match (source, source.prefix()) {
            (_, Some(prefix)) => offers[at].starts_with(prefix),
            (Source::Pair(marker), _) => at > 0 && offers[at - 1] == *marker,
            _ => false,
        })
    };
    let left =
        (0..offers.len()).filter(|&at| !is_carrier(at)).map(|at| &*offers[at]).collect::<Vec<_>>();
    let mut markers = policy.sources.iter().filter_map(|source| match source {
        Source::Pair(marker) => Some(*marker),
        _ => None,
    });
    let unsupported =
        || if policy.accept_unmatched { Ok(None) } else { Err("subprotocol-unsupported") };
    match policy.subprotocols {
        None if left.is_empty() && !offers.is_empty() => unsupported(),
        None => Ok(None),
        Some(_) if offers.is_empty() => Ok(None),
        Some(listed) => {
            let chosen = match policy.prefer_client_order {
                true => left.iter().copied().find(|name| listed.contains(name)),
                false => listed.iter().copied().find(|name| left.contains(name)),
            };
            let chosen = chosen.or_else(|| markers.find(|name| left.contains(name)));
            chosen.map_or_else(unsupported, |chosen| Ok(Some(chosen.to_owned())))
        }
    }
}

/// What follows the scheme; `None` for another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    let is_ours = scheme.eq_ignore_ascii_case(b"bearer") && matches!(rest, [] | [b' ', ..]);
    is_ours.then(|| trim(rest))
}

fn b64token(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    (!text.is_empty() && text.bytes().all(allowed)).then(|| value.to_vec())
}

/// Decoded once; `+` stays `+`.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let hexadecimal =
            piece.get(..2).filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(hexadecimal, 16).ok()?);
        decoded.extend_from_slice(&piece.as_bytes()[2..]);
    }
    Some(decoded)
}

/// Without padding, and without stray bits behind the last byte (RFC 4648 3.5).
fn base64(text: &str, last_two: &[u8; 2]) -> Option<Vec<u8>> {
    let alphabet =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last_two).collect::<Vec<_>>();
    let (mut bits, mut held, mut decoded) = (0_u32, 0, Vec::new());
    for byte in text.bytes() {
        bits = bits << 6 | alphabet.iter().position(|it| *it == byte)? as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(decoded)
}
