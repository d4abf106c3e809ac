//! Exactly one credential, as `TokenPolicy` and `TokenSource` are documented: from RFC 6750 2.1, RFC 7617 2, RFC 6265 4.2, RFC 3986 2.1 and
//! RFC 4648 4 and 5.

use super::{Head, Policy, trim};

/// The tokens that are known; the last is as long as may be by default.
pub const TOKENS: [&str; 5] = [
    "s3cr3t-t0ken.A1~b+c/d==",
    "tr0ub4dor-3",
    "t0ken-of-b0b?",
    "CP0001:s3cr3t",
    match str::from_utf8(&[b'a'; DEFAULT_MAX_LENGTH]) {
        Ok(token) => token,
        Err(_) => unreachable!(),
    },
];

/// Of a decoded credential.
pub const DEFAULT_MAX_LENGTH: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Authorization,
    Basic,
    Header(&'static str),
    /// The name of a field, and the scheme in front of the token.
    HeaderScheme(&'static str, &'static str),
    Cookie(&'static str),
    Query(&'static str),
    Subprotocol(&'static str),
    SubprotocolBase64(&'static str),
    Kubernetes,
    Phoenix,
    Pair(&'static str),
}

const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";
const PHOENIX: &str = "base64url.bearer.phx.";

/// What a source holds: a token, or what is malformed, as it is written.
type Credential = Result<Vec<u8>, Vec<u8>>;

impl Source {
    /// Of a subprotocol that carries a token.
    pub fn prefix(self) -> Option<&'static str> {
        match self {
            Self::Subprotocol(prefix) | Self::SubprotocolBase64(prefix) => Some(prefix),
            Self::Kubernetes => Some(KUBERNETES),
            Self::Phoenix => Some(PHOENIX),
            _ => None,
        }
    }

    /// All that stands where a token is looked for, as it is written; it may be empty.
    fn carried(self, head: &Head, offers: &[String]) -> Vec<Vec<u8>> {
        match self {
            // Around a bearer token, tabs are no part of it either.
            Self::Authorization => {
                let tokens = behind_scheme(head, "authorization", "bearer");
                tokens.iter().map(|token| trim(token).to_vec()).collect()
            }
            Self::Basic => behind_scheme(head, "authorization", "basic"),
            Self::HeaderScheme(name, scheme) => {
                behind_scheme(head, &name.to_ascii_lowercase(), scheme)
            }
            Self::Header(name) => {
                head.lines(&name.to_ascii_lowercase()).map(<[u8]>::to_vec).collect()
            }
            Self::Cookie(name) => {
                let pairs = head.lines("cookie").flat_map(|line| line.split(|&byte| byte == b';'));
                // RFC 6265 5.2: white space around either is no part of it.
                let parts = pairs.filter_map(|pair| {
                    Some(pair.split_at(pair.iter().position(|&byte| byte == b'=')?))
                });
                let is_ours = |key: &[u8]| {
                    key == name.as_bytes()
                        || percent_decode(key).as_deref() == Some(name.as_bytes())
                };
                let values = parts
                    .filter(|(key, _)| is_ours(trim(key)))
                    .map(|(_, value)| trim(&value[1..]).to_vec());
                values.collect()
            }
            Self::Query(name) => {
                let parameters = head.query.split('&').filter(|_| !head.query.is_empty());
                let pairs = parameters
                    .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
                let named = pairs.filter(|(key, _)| {
                    percent_decode(key.as_bytes()).as_deref() == Some(name.as_bytes())
                });
                named.map(|(_, value)| value.into()).collect()
            }
            Self::Pair(marker) => {
                let pairs = offers.windows(2).filter(|pair| pair[0].eq_ignore_ascii_case(marker));
                pairs.map(|pair| pair[1].clone().into_bytes()).collect()
            }
            Self::Subprotocol(_)
            | Self::SubprotocolBase64(_)
            | Self::Kubernetes
            | Self::Phoenix => {
                let prefix = self.prefix().expect("a prefix");
                let behind = offers.iter().filter_map(|offer| offer.strip_prefix(prefix));
                behind.map(Into::into).collect()
            }
        }
    }

    fn decode(self, carried: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Authorization => b64token(carried),
            Self::Basic => basic(carried),
            Self::Query(_) => percent_decode(carried),
            Self::Kubernetes | Self::SubprotocolBase64(_) => base64(carried, b"-_"),
            Self::Phoenix => {
                let standard = |byte: &u8| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => *byte,
                };
                base64(&carried.iter().map(standard).collect::<Vec<_>>(), b"+/")
            }
            Self::Header(_)
            | Self::HeaderScheme(..)
            | Self::Cookie(_)
            | Self::Subprotocol(_)
            | Self::Pair(_) => Some(carried.to_vec()),
        }
    }

    /// The credentials that differ. An empty one is none.
    fn find(self, head: &Head, offers: &[String]) -> Vec<Credential> {
        let is_sound = |token: &Vec<u8>| {
            str::from_utf8(token).is_ok_and(|text| !text.contains(char::is_control))
        };
        let mut found = Vec::new();
        for carried in self.carried(head, offers) {
            let credential = self.decode(&carried).filter(is_sound).ok_or(carried);
            if credential != Ok(Vec::new()) && !found.contains(&credential) {
                found.push(credential);
            }
        }
        found
    }
}

/// The token of the one credential in a handshake.
pub fn credential(
    head: &Head,
    policy: &Policy,
    offers: &[String],
) -> Result<Vec<u8>, &'static str> {
    let mut found = Vec::new();
    for source in policy.sources {
        if policy.first_source_wins && !found.is_empty() {
            break;
        }
        // RFC 6750 2: one method only, even for the same token.
        found.extend(source.find(head, offers));
    }
    match &found[..] {
        [] => Err("token-missing"),
        [Ok(token)] if token.len() <= policy.max_length.unwrap_or(DEFAULT_MAX_LENGTH) => {
            Ok(token.clone())
        }
        [_] => Err("token-invalid"),
        _ => Err("token-ambiguous"),
    }
}

/// Whether there is something where a handler is to see no credential, be it empty. Cookies are documented to stay.
pub fn is_left(head: &Head, policy: &Policy, offers: &[String]) -> bool {
    let mut stripped = policy.sources.iter().filter(|source| !matches!(source, Source::Cookie(_)));
    stripped.any(|source| !source.carried(head, offers).is_empty())
}

/// What `WWW-Authenticate` says in the answer with this code, in any order.
pub fn challenges(policy: &Policy, code: &str) -> Vec<&'static str> {
    let challenge = match code {
        "token-missing" => "Bearer realm=\"websocket\"",
        "token-invalid" => "Bearer realm=\"websocket\", error=\"invalid_token\"",
        "token-ambiguous" => "Bearer realm=\"websocket\", error=\"invalid_request\"",
        "token-forbidden" => "Bearer realm=\"websocket\", error=\"insufficient_scope\"",
        _ => return Vec::new(),
    };
    // Only a 401 asks for something else than a token.
    let basic = ["token-missing", "token-invalid"].contains(&code)
        && policy.sources.contains(&Source::Basic);
    let bearer =
        policy.sources.iter().any(|source| !matches!(source, Source::Basic | Source::Cookie(_)));
    let challenges = [basic.then_some("Basic realm=\"websocket\""), bearer.then_some(challenge)];
    challenges.into_iter().flatten().collect()
}

pub fn judge(head: &Head, policy: &Policy, offers: &[String]) -> Result<(), &'static str> {
    let token = credential(head, policy, offers)?;
    TOKENS.iter().any(|known| known.as_bytes() == token).then_some(()).ok_or("token-invalid")
}

/// RFC 6455 4.2.2 item 5.5, in the server's order or the client's; a marker is ours without being listed, the last, and
/// named as the client writes it.
pub fn choose(policy: &Policy, offers: &[String]) -> Result<Option<String>, &'static str> {
    let is_carrier = |at: usize| {
        policy.sources.iter().any(|source| match (source, source.prefix()) {
            (_, Some(prefix)) => offers[at].starts_with(prefix),
            (Source::Pair(marker), _) => at > 0 && offers[at - 1].eq_ignore_ascii_case(marker),
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
            let offered =
                |marker: &str| left.iter().copied().find(|name| name.eq_ignore_ascii_case(marker));
            let chosen = chosen.or_else(|| markers.find_map(offered));
            chosen.map_or_else(unsupported, |chosen| Ok(Some(chosen.to_owned())))
        }
    }
}

/// What follows the scheme and spaces in each line that has it.
fn behind_scheme(head: &Head, name: &str, scheme: &str) -> Vec<Vec<u8>> {
    let behind = |line: &[u8]| {
        let (there, rest) = line.split_at_checked(scheme.len())?;
        let is_ours =
            there.eq_ignore_ascii_case(scheme.as_bytes()) && matches!(rest, [] | [b' ', ..]);
        is_ours.then(|| {
            rest.iter().copied().skip_while(|&byte| matches!(byte, b' ' | b'\t')).collect()
        })
    };
    head.lines(name).filter_map(behind).collect()
}

/// RFC 6750 2.1; nothing at all is no malformed token.
fn b64token(value: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(value).ok()?.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let is_token = !text.is_empty() && text.bytes().all(allowed);
    (value.is_empty() || is_token).then(|| value.to_vec())
}

/// RFC 7617 2: `user-id ":" password`, padded or not; nothing at all is not malformed.
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let padding = value.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 || padding > 0 && !value.len().is_multiple_of(4) {
        return None;
    }
    let decoded = base64(&value[..value.len() - padding], b"+/")?;
    (value.is_empty() || decoded.contains(&b':')).then_some(decoded)
}

/// Decoded once; `+` stays `+`.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut pieces = text.split(|&byte| byte == b'%');
    let mut decoded = pieces.next()?.to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        decoded.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        decoded.extend_from_slice(rest);
    }
    Some(decoded)
}

/// Without padding, and without stray bits behind the last byte (RFC 4648 3.5).
fn base64(text: &[u8], last_two: &[u8; 2]) -> Option<Vec<u8>> {
    let alphabet =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last_two).collect::<Vec<_>>();
    let (mut bits, mut held, mut decoded) = (0_u32, 0, Vec::new());
    for byte in text {
        bits = bits << 6 | alphabet.iter().position(|it| it == byte)? as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[Source] = &[
        Source::Authorization,
        Source::Basic,
        Source::Header("X-API-Key"),
        Source::HeaderScheme("Authorization", "Token"),
        Source::Cookie("sid"),
        Source::Query("token"),
        Source::SubprotocolBase64("own."),
        Source::Pair("bearer"),
    ];

    fn found(
        policy: &Policy,
        query: &str,
        offers: &[&str],
        fields: &[(&str, &str)],
    ) -> Result<String, &'static str> {
        let fields = fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().into()));
        let head = Head { query: query.to_owned(), fields: fields.collect(), ..Head::default() };
        let offers = offers.iter().map(|offer| offer.to_string()).collect::<Vec<_>>();
        let token = credential(&head, policy, &offers)?;
        Ok(String::from_utf8(token).expect("text"))
    }

    #[test]
    fn sources() {
        let policy = Policy { sources: SOURCES, ..Policy::default() };
        let field = |name, value| found(&policy, "", &[], &[(name, value)]);
        for (value, expected) in [
            ("bearer  x", Ok("x")),
            ("Bearer", Err("token-missing")),
            ("Bearer x y", Err("token-invalid")),
            ("Digest x", Err("token-missing")),
            ("TOKEN  x y", Ok("x y")),
            ("Token", Err("token-missing")),
            ("Token\tx", Err("token-missing")),
            ("Tokenx", Err("token-missing")),
            ("basic Q1AwMDAxOnNlY3JldA==", Ok("CP0001:secret")),
            ("Basic Q1AwMDAxOnNlY3JldA", Ok("CP0001:secret")),
            ("Basic Q1AwMDAxOnNlY3JldA=", Err("token-invalid")),
            ("Basic Q1AwMDAxOnNlY3JldB==", Err("token-invalid")),
            ("Basic Og==", Ok(":")),
            ("Basic Q1AwMDAx", Err("token-invalid")),
            ("Basic ====", Err("token-invalid")),
            ("Basic _z46", Err("token-invalid")),
            ("Basic", Err("token-missing")),
        ] {
            assert_eq!(field("authorization", value), expected.map(str::to_owned), "{value}");
        }
        assert_eq!(field("x-api-key", "x y").as_deref(), Ok("x y"));
        assert_eq!(field("x-api-key", ""), Err("token-missing"));
        assert_eq!(field("cookie", "%73id=x; a=b").as_deref(), Ok("x"));
        assert_eq!(field("cookie", "sid=; %2573id=x"), Err("token-missing"));
        assert_eq!(found(&policy, "", &["a", "own.eA"], &[]).as_deref(), Ok("x"));
        assert_eq!(found(&policy, "", &["a", "own.eA=="], &[]), Err("token-invalid"));
        assert_eq!(found(&policy, "", &["a", "own."], &[]), Err("token-missing"));
        assert_eq!(found(&policy, "", &["BEARER", "x"], &[]).as_deref(), Ok("x"));
        assert_eq!(found(&policy, "", &["bearer", "Bearer", "x"], &[]), Err("token-ambiguous"));
    }

    #[test]
    fn one_or_two() {
        let one = Policy { sources: SOURCES, ..Policy::default() };
        let first = Policy { first_source_wins: true, ..one };
        for (query, fields, of_all, of_first) in [
            ("token=x&token=%78", &[][..], Ok("x"), Ok("x")),
            ("token=x", &[("authorization", "Bearer x")], Err("token-ambiguous"), Ok("x")),
            ("token=", &[("cookie", "sid=x; sid=x")], Ok("x"), Ok("x")),
            ("token=y", &[("cookie", "sid=x")], Err("token-ambiguous"), Ok("x")),
            ("token=%", &[("cookie", "sid=x")], Err("token-ambiguous"), Ok("x")),
            (
                "token=x",
                &[("authorization", "Bearer =")],
                Err("token-ambiguous"),
                Err("token-invalid"),
            ),
            ("token=%&token=%", &[], Err("token-invalid"), Err("token-invalid")),
            ("token=%&token=%z", &[], Err("token-ambiguous"), Err("token-ambiguous")),
            ("", &[("cookie", "sid=x;sid=y")], Err("token-ambiguous"), Err("token-ambiguous")),
            ("token=x", &[("authorization", "Bearer")], Ok("x"), Ok("x")),
            ("", &[("authorization", "Bearer x"), ("authorization", "Digest y")], Ok("x"), Ok("x")),
        ] {
            for (policy, expected) in [(&one, of_all), (&first, of_first)] {
                let found = found(policy, query, &[], fields);
                assert_eq!(found, expected.map(str::to_owned), "{query} {fields:?}");
            }
        }
    }

    #[test]
    fn length() {
        for (max_length, most) in [(None, 8192), (Some(3), 3), (Some(9000), 9000)] {
            let policy = Policy { sources: SOURCES, max_length, ..Policy::default() };
            let of = |length| found(&policy, &format!("token={}", "%61".repeat(length)), &[], &[]);
            assert_eq!(of(most), Ok("a".repeat(most)));
            assert_eq!(of(most + 1), Err("token-invalid"));
        }
    }
}
