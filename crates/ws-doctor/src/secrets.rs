//! Secrets, found in whatever form they come back.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

const MASK: &str = "***";
/// A shorter secret would be found in every text.
const MIN: usize = 4;
/// Texts are searched for no more than these, if a server sets many cookies.
const MAX_FORMS: usize = 1024;

/// Masks secrets in texts.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// Matched with every character in any percent-encoding, once or twice, and in JSON and HTML.
    plain: Vec<Vec<u8>>,
    off: bool,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// `show`: nothing is masked.
    #[must_use]
    pub(crate) fn new(show: bool) -> Self {
        Self { off: show, ..Self::default() }
    }

    /// Adds a secret, and its base64.
    pub(crate) fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < MIN {
            return;
        }
        let mut forms = vec![secret.as_bytes().to_vec()];
        // Within a longer text, base64 begins at one of three positions. The characters at both
        // ends depend on the neighbors.
        for offset in 0..3 {
            let padded = [&[0; 2][..offset], secret.as_bytes()].concat();
            let skip = [0, 2, 3][offset];
            let end = padded.len() * 8 / 6;
            for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                if let Some(inner) = encoded.get(skip..end).filter(|inner| inner.len() >= MIN + 2) {
                    forms.push(inner.as_bytes().to_vec());
                }
            }
        }
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([hex.to_ascii_uppercase().into_bytes(), hex.into_bytes()]);
        for form in forms {
            if !self.plain.contains(&form) {
                self.plain.push(form);
            }
        }
        // The longest first, so that one that contains another is masked as a whole.
        self.plain.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// Adds the values of all lines `Set-Cookie` of a text, malformed and continued ones too.
    pub(crate) fn add_cookies(&mut self, text: &str) {
        let mut is_cookie = false;
        for line in text.lines() {
            let value = match line.split_once(':') {
                Some((name, value)) if is_set_cookie(name) => {
                    is_cookie = true;
                    value.split_once('=').map_or(value, |(_, value)| value)
                }
                _ if is_cookie && line.starts_with([' ', '\t']) => {
                    line.split_once('=').map_or(line, |(_, value)| value)
                }
                _ => {
                    is_cookie = false;
                    continue;
                }
            };
            let value = value.split(';').next().unwrap_or_default().trim().trim_matches('"');
            // A word such as `deleted` is no secret, and may stand in the report.
            let is_word = value.len() < 16 && value.bytes().all(|byte| byte.is_ascii_lowercase());
            if !is_word && self.plain.len() < MAX_FORMS {
                self.add(value);
            }
        }
    }

    /// The text without secrets.
    #[must_use]
    pub(crate) fn mask(&self, text: &str) -> String {
        if self.off {
            return text.to_owned();
        }
        let text = mask_named(text);
        if self.plain.is_empty() {
            return text;
        }
        let bytes = text.as_bytes();
        let mut output = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            match self.plain.iter().find_map(|secret| match_at(bytes, at, secret)) {
                Some(end) => {
                    output.extend_from_slice(MASK.as_bytes());
                    at = end;
                }
                None => {
                    output.push(bytes[at]);
                    at += 1;
                }
            }
        }
        // A match may begin within a character only if the secret does.
        String::from_utf8_lossy(&output).into_owned()
    }

    /// A header, with the value masked if its name says that it is secret.
    #[must_use]
    pub(crate) fn header(&self, name: &str, value: &str) -> String {
        if self.off {
            return value.to_owned();
        }
        let lower = name.to_ascii_lowercase();
        if matches!(&*lower, "authorization" | "proxy-authorization") {
            return match value.split_once(' ') {
                Some((scheme, _)) => format!("{scheme} {MASK}"),
                None => MASK.into(),
            };
        }
        if lower == "cookie" {
            let pairs = value.split(';').map(|pair| match pair.split_once('=') {
                Some((name, _)) => format!("{}={MASK}", name.trim()),
                None => MASK.into(),
            });
            return pairs.collect::<Vec<_>>().join("; ");
        }
        if lower == "set-cookie" {
            return match value.split_once('=') {
                Some((name, rest)) => {
                    let attributes = rest.find(';').map(|at| &rest[at..]).unwrap_or_default();
                    format!("{name}={MASK}{}", self.mask(attributes))
                }
                None => MASK.into(),
            };
        }
        if is_credential(name) && !lower.starts_with("sec-websocket-") {
            return MASK.into();
        }
        self.mask(value)
    }
}

/// Whether it is the name of `Set-Cookie`, white space around it aside.
pub(crate) fn is_set_cookie(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case("set-cookie")
}

/// Whether a header, a parameter or a field is named like a credential.
#[must_use]
pub(crate) fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_', '.'], "");
    [
        "token",
        "secret",
        "password",
        "passwd",
        "apikey",
        "accesskey",
        "ticket",
        "signature",
        "credential",
        "jwt",
        "sessionid",
        "authkey",
    ]
    .iter()
    .any(|word| name.contains(word))
        || matches!(
            &*name,
            "auth"
                | "authorization"
                | "proxyauthorization"
                | "pwd"
                | "pw"
                | "pass"
                | "sid"
                | "session"
                | "sig"
                | "key"
                | "code"
                | "state"
                | "xauth"
                | "xauthorization"
                | "accessjwt"
                | "bearer"
                | "xamzsignature"
                | "privatekey"
        )
}

/// Whether a parameter of a query is a credential. The `id` of SignalR is one: a long, random text.
#[must_use]
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    is_credential(name)
        || name.eq_ignore_ascii_case("id")
            && value.len() >= 16
            && value.bytes().any(|byte| byte.is_ascii_digit())
            && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The credential that a subprotocol carries, if it looks like one: behind the prefix of Kubernetes
/// and Phoenix, a JWT, or a long text.
#[must_use]
pub(crate) fn token_in(subprotocol: &str) -> Option<&str> {
    if subprotocol.starts_with("base64url.bearer.") {
        return subprotocol.rsplit('.').next();
    }
    let jwt = subprotocol.find("eyJ").map(|at| &subprotocol[at..]);
    jwt.or_else(|| (subprotocol.len() > 24).then_some(subprotocol))
}

/// Masks the values of parameters of queries and fragments that are named like credentials, and the
/// passwords in URLs.
fn mask_named(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    // Passwords: `://user:password@`.
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        output.push_str(before);
        let end = after.find(|c: char| "/?#\"'<> `\r\n".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                let user = after[..at].split(':').next().unwrap_or_default();
                output.push_str(user);
                if user.len() < at {
                    output.push(':');
                    output.push_str(MASK);
                }
                &after[at..]
            }
            None => after,
        };
    }
    output.push_str(rest);

    let text = output;
    let mut output = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find(['?', '&', '#']) {
        let (before, after) = rest.split_at(at + 1);
        output.push_str(before);
        let after_entity = after.strip_prefix("amp;").unwrap_or(after);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name_end = after_entity.find(|c| !is_name(c)).unwrap_or(after_entity.len());
        let (name, tail) = after_entity.split_at(name_end);
        rest = after;
        if let Some(value) = tail.strip_prefix('=') {
            let end = value
                .find(|c: char| c.is_whitespace() || "&\"'<>#`".contains(c))
                .unwrap_or(value.len());
            if end > 0 && is_secret(name, &value[..end]) {
                output.push_str(&after[..after.len() - value.len()]);
                output.push_str(MASK);
                rest = &value[end..];
            }
        }
    }
    output.push_str(rest);
    output
}

/// The end of `secret` at this position, if it is there in some encoding. A text that was cut may
/// end within it.
fn match_at(bytes: &[u8], start: usize, secret: &[u8]) -> Option<usize> {
    let mut at = start;
    for (count, &wanted) in secret.iter().enumerate() {
        let rest = &bytes[at..];
        let is_cut = matches!(rest, [] | [b'`', ..]) || rest.starts_with("…".as_bytes());
        if is_cut && count >= MIN {
            return Some(at);
        }
        at += one_of(rest, wanted)?;
    }
    Some(at)
}

/// The length of the form in which the byte stands at the begin of `rest`.
fn one_of(rest: &[u8], wanted: u8) -> Option<usize> {
    let &first = rest.first()?;
    if first == b'%' {
        // `%41`, and `%2541` or `%252541` if it was encoded again.
        let mut at = 1;
        loop {
            let digits = rest.get(at..)?;
            if hex(digits) == Some(wanted) {
                return Some(at + 2);
            }
            if !digits.starts_with(b"25") {
                break;
            }
            at += 2;
        }
    }
    // A sign that begins an escape may also stand for itself.
    let raw = || {
        let is_plus_for_space = wanted == b' ' && first == b'+';
        (first == wanted || is_plus_for_space).then_some(1)
    };
    match first {
        b'\\' => escape(rest, wanted).or_else(raw),
        b'&' => entity(rest, wanted).or_else(raw),
        _ => raw(),
    }
}

/// `\/` and `\"`, `\u002f`, `\x2f`.
fn escape(rest: &[u8], wanted: u8) -> Option<usize> {
    match rest.get(1)? {
        b'u' if rest.get(2..4) == Some(b"00") => (hex(rest.get(4..)?)? == wanted).then_some(6),
        b'x' => (hex(rest.get(2..)?)? == wanted).then_some(4),
        &escaped => (escaped == wanted).then_some(2),
    }
}

/// `&amp;`, `&#38;`, `&#x26;`.
fn entity(rest: &[u8], wanted: u8) -> Option<usize> {
    let end = rest.iter().take(9).position(|&byte| byte == b';')?;
    let name = std::str::from_utf8(rest.get(1..end)?).ok()?;
    let value = match name {
        "amp" => b'&',
        "lt" => b'<',
        "gt" => b'>',
        "quot" => b'"',
        "apos" => b'\'',
        _ => {
            let number = name.strip_prefix('#')?;
            match number.strip_prefix(['x', 'X']) {
                Some(digits) => u8::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            }
        }
    };
    (value == wanted).then_some(end + 1)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(secret: &str) -> Secrets {
        let mut secrets = Secrets::new(false);
        secrets.add(secret);
        secrets
    }

    #[test]
    fn secret_is_found_in_every_encoding() {
        let secret = "s3cr=t/+ö \"&x";
        let secrets = secrets(secret);
        for text in [
            secret,
            "s3cr%3Dt%2F%2B%C3%B6%20%22%26x",
            "s3cr%3dt%2f%2b%c3%b6+%22%26x",
            "%73%33%63%72%3d%74%2f%2b%c3%b6%20%22%26%78",
            "s3cr%253Dt%252F%252b%25c3%25B6%2520%2522%2526x",
            "s3cr=t\\/+\\u00c3\\u00b6 \\\"&x",
            "s3cr=t/+ö &quot;&amp;x",
            "s3cr&#61;t&#x2f;+ö &quot;&amp;x",
        ] {
            let masked = secrets.mask(&format!("a {text} b"));
            assert_eq!(masked, "a *** b", "{text}");
        }
    }

    #[test]
    fn secret_is_found_in_base64_at_every_position() {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE};
        let secret = "s3cr3t-t0ken?>";
        let secrets = secrets(secret);
        for before in ["", "a", "ab", "abc", "user:"] {
            for engine in [&STANDARD, &URL_SAFE] {
                let encoded = engine.encode(format!("{before}{secret}"));
                let masked = secrets.mask(&encoded);
                assert!(
                    masked.contains("***") && masked.len() <= before.len() * 2 + 9,
                    "{encoded}: {masked}"
                );
            }
        }
        assert_eq!(secrets.mask("7333637233742d74306b656e3f3e"), "***");
    }

    #[test]
    fn secret_that_was_cut_is_found() {
        let secrets = secrets("abcdefghij");
        assert_eq!(secrets.mask("x abcdefg…"), "x ***…");
        assert_eq!(secrets.mask("x abcdefg"), "x ***");
        assert_eq!(secrets.mask("`x abcdefg`"), "`x ***`");
        assert_eq!(secrets.mask("x abcdefg y"), "x abcdefg y");
    }

    #[test]
    fn passwords_and_named_parameters_are_masked() {
        let secrets = Secrets::new(false);
        for (text, masked) in [
            ("wss://user:pw@a.example/", "wss://user:***@a.example/"),
            (
                "wss://a.example/?room=1&access_token=abc&x=y",
                "wss://a.example/?room=1&access_token=***&x=y",
            ),
            ("/ws?TOKEN=a%20b#c", "/ws?TOKEN=***#c"),
            ("https://a.example/#access_token=abc&x=y", "https://a.example/#access_token=***&x=y"),
            // SignalR's, and not the number or the name of a room.
            ("/hub?id=KXn1N4xg0rYb3wYQ_x-9tA", "/hub?id=***"),
            ("/ws?id=1234567890123456&user=7", "/ws?id=1234567890123456&user=7"),
            ("/ws?id=lobby", "/ws?id=lobby"),
            ("href=\"/ws?a=b&amp;sid=abc\"", "href=\"/ws?a=b&amp;sid=***\""),
            ("a ? b & c", "a ? b & c"),
            ("what? key=x", "what? key=x"),
        ] {
            assert_eq!(secrets.mask(text), masked);
        }
        assert_eq!(Secrets::new(true).mask("wss://user:pw@a.example/"), "wss://user:pw@a.example/");
    }

    #[test]
    fn headers_that_carry_credentials_are_masked() {
        let secrets = Secrets::new(false);
        for (name, value, masked) in [
            ("Authorization", "Bearer abc", "Bearer ***"),
            ("Cookie", "a=b; c=d", "a=***; c=***"),
            ("Set-Cookie", "a=b; Path=/; HttpOnly", "a=***; Path=/; HttpOnly"),
            ("X-API-Key", "abc", "***"),
            ("X-Auth-Token", "abc", "***"),
            ("Sec-WebSocket-Key", "abc", "abc"),
            ("Server", "nginx", "nginx"),
        ] {
            assert_eq!(secrets.header(name, value), masked, "{name}");
        }
    }
}
