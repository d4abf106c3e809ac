use std::borrow::Cow;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// The maximum length of a credential in bytes. It is checked before the credential is decoded or
/// hashed.
const MAX_LENGTH: usize = 8 * 1024;

/// The encoding of a token in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    /// `b64token` of RFC 6750 2.1.
    Bearer,
    Percent,
    Base64Url,
    Base64Any,
}

/// A credential as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Credential<'a> {
    pub(super) value: &'a [u8],
    pub(super) encoding: Encoding,
}

impl<'a> Credential<'a> {
    /// The token. `None` if it is malformed: too long, wrongly encoded, empty, not UTF-8, or with
    /// control characters.
    pub(super) fn decode(self) -> Option<Cow<'a, str>> {
        if self.value.len() > MAX_LENGTH {
            return None;
        }
        let bytes = match self.encoding {
            Encoding::Plain => Cow::Borrowed(self.value),
            Encoding::Bearer => is_b64token(self.value).then_some(Cow::Borrowed(self.value))?,
            Encoding::Percent => percent_decode(self.value)?,
            Encoding::Base64Url => URL_SAFE_NO_PAD.decode(self.value).ok()?.into(),
            Encoding::Base64Any => {
                let to_standard = |&byte: &u8| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => byte,
                };
                let standard = self.value.iter().map(to_standard).collect::<Vec<_>>();
                STANDARD_NO_PAD.decode(standard).ok()?.into()
            }
        };
        let token = match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
        };
        (!token.is_empty() && !token.contains(char::is_control)).then_some(token)
    }
}

fn is_b64token(value: &[u8]) -> bool {
    let last = value.iter().rposition(|&byte| byte != b'=');
    let unpadded = last.map_or(&value[..0], |last| &value[..=last]);
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !unpadded.is_empty() && unpadded.iter().all(is_allowed)
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
