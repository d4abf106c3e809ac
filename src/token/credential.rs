use std::{borrow::Cow, fmt};

use base64::{
    Engine as _,
    engine::{
        GeneralPurpose,
        general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
    },
};
use http::HeaderValue;

use super::Token;
use crate::http::field::{all_in, alphanumeric_and};

/// The encoding of a token in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    /// `b64token` of RFC 6750 2.1.
    Bearer,
    /// `user-pass` of RFC 7617 2.
    Basic,
    Percent,
    Base64Url,
    Base64Any,
}

/// A credential as it was sent.
pub(super) struct Credential<'a> {
    pub(super) value: Cow<'a, [u8]>,
    pub(super) encoding: Encoding,
    /// The line of a header that `value` is a slice of.
    pub(super) line: Option<&'a HeaderValue>,
}

/// The reason why a credential cannot be decoded. It does not show the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    TooLong { max: usize },
    Wrong(&'static str),
}

impl Credential<'_> {
    /// Whether both are the same token. Malformed ones are if they were sent in the same form.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        if self.value == other.value && self.encoding == other.encoding {
            return true;
        }
        let is_encoded = !matches!(self.encoding, Encoding::Plain | Encoding::Bearer);
        let decode = |credential: &Self| credential.decode(usize::MAX).ok().map(Cow::into_owned);
        is_encoded && decode(self).is_some_and(|token| decode(other) == Some(token))
    }

    /// The token, of at most `max` bytes.
    pub(super) fn token(&self, max: usize) -> Result<Token, Malformed> {
        let secret = self.decode(max)?;
        Ok(match (self.line, &secret) {
            (Some(line), Cow::Borrowed(secret)) => Token::in_header(line, secret),
            _ => Token::new(str::from_utf8(&secret).map_err(|_| NOT_UTF8)?),
        })
    }

    /// The secret, of at most `max` bytes. It is text.
    fn decode(&self, max: usize) -> Result<Cow<'_, [u8]>, Malformed> {
        // No encoding makes a value longer than three times. Longer ones are not decoded.
        if self.value.len() / 3 > max {
            return Err(Malformed::TooLong { max });
        }
        let value = &*self.value;
        let bytes = match self.encoding {
            Encoding::Plain => Cow::Borrowed(value),
            Encoding::Bearer if is_b64token(value) => Cow::Borrowed(value),
            Encoding::Bearer => {
                return Err(Malformed::Wrong("it has a character that a bearer token cannot have"));
            }
            // RFC 7617 2 does not ask for padding, and some clients leave it out.
            Encoding::Basic => STANDARD
                .decode(value)
                .or_else(|_| STANDARD_NO_PAD.decode(value))
                .ok()
                .filter(|pair| pair.contains(&b':'))
                .ok_or(Malformed::Wrong("it is not the base64 of `user:password`"))?
                .into(),
            Encoding::Percent => percent_decode(value)
                .ok_or(Malformed::Wrong("a `%` has no two hexadecimal digits behind it"))?,
            Encoding::Base64Url => decode_base64(&URL_SAFE_NO_PAD, value)?.into(),
            Encoding::Base64Any => {
                let to_standard = |&byte: &u8| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => byte,
                };
                let standard = value.iter().map(to_standard).collect::<Vec<_>>();
                decode_base64(&STANDARD_NO_PAD, &standard)?.into()
            }
        };
        if bytes.len() > max {
            return Err(Malformed::TooLong { max });
        }
        // A bearer token was checked above.
        if self.encoding != Encoding::Bearer {
            check_text(&bytes)?;
        }
        Ok(bytes)
    }
}

const NOT_UTF8: Malformed = Malformed::Wrong("it is not UTF-8");

fn check_text(bytes: &[u8]) -> Result<(), Malformed> {
    let text = str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
    let has_control = match text.is_ascii() {
        true => bytes.iter().any(u8::is_ascii_control),
        false => text.contains(char::is_control),
    };
    if text.is_empty() || has_control {
        return Err(Malformed::Wrong("it is empty or has a control character"));
    }
    Ok(())
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { max } => write!(
                f,
                "it is too long: at most {max} bytes are allowed; raise `TokenPolicy::max_length`"
            ),
            Self::Wrong(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Malformed {}

fn decode_base64(engine: &GeneralPurpose, value: &[u8]) -> Result<Vec<u8>, Malformed> {
    engine.decode(value).map_err(|_| {
        Malformed::Wrong("it is not base64 in the alphabet and with the padding of its source")
    })
}

fn is_b64token(mut value: &[u8]) -> bool {
    static B64TOKEN: [bool; 256] = alphanumeric_and(b"-._~+/");
    while let [rest @ .., b'='] = value {
        value = rest;
    }
    !value.is_empty() && all_in(&B64TOKEN, value)
}

/// Decodes once. Unlike the library it rejects a `%` without two hexadecimal digits behind it.
fn percent_decode(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let is_escape =
        |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let mut percents = value.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    percents
        .all(|(at, _)| is_escape(&value[at + 1..]))
        .then(|| percent_encoding::percent_decode(value).into())
}
