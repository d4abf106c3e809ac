//! Field values: lists, tokens, and the fields of a handshake.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Removes the optional white space around a field value (RFC 9110 5.5).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The elements of a comma-separated list, without the empty ones (RFC 9110 5.6.1).
pub(crate) fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let elements = value.as_bytes().split(|&byte| byte == b',');
    elements.map(trim).filter(|element| !element.is_empty())
}

pub(crate) fn has_element(value: &HeaderValue, wanted: &[u8]) -> bool {
    // Most clients send nothing but the wanted element, in this case.
    value.as_bytes() == wanted
        || elements(value).any(|element| element.eq_ignore_ascii_case(wanted))
}

/// The elements of all lines as text.
#[cfg(any(feature = "client", test))]
pub(crate) fn text_elements<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = &'a str> {
    lines.into_iter().flat_map(elements).filter_map(|element| std::str::from_utf8(element).ok())
}

/// Whether `bytes` is a `token` (RFC 9110 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    static TCHAR: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    !bytes.is_empty() && all_in(&TCHAR, bytes)
}

/// A table of the ASCII letters and digits, and `others`.
pub(crate) const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < others.len() {
        set[others[i] as usize] = true;
        i += 1;
    }
    set
}

/// Without a branch for each byte, because most values are valid.
#[inline]
pub(crate) fn all_in(set: &[bool; 256], bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, &byte| all & set[usize::from(byte)])
}

pub(crate) fn contains_ignore_case(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// All lines of a list, as one. `None` if there is nothing in them.
pub(crate) fn one_line<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
) -> Option<HeaderValue> {
    let lines = lines.into_iter().map(|line| trim(line.as_bytes()));
    let lines = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>();
    // Values and their separators are a value.
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok().filter(|line| !line.is_empty())
}

/// Replaces all lines of a field, or removes them.
pub(crate) fn set_header(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// The lines of a field that may occur once.
#[derive(Clone, Copy, Default)]
pub(crate) enum SingletonField<'a> {
    #[default]
    Absent,
    One(&'a HeaderValue),
    Repeated,
}

impl<'a> SingletonField<'a> {
    pub(crate) fn add(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::Absent => Self::One(value),
            Self::One(_) | Self::Repeated => Self::Repeated,
        };
    }

    pub(crate) fn is(&self, wanted: &[u8]) -> bool {
        matches!(self, Self::One(value) if value.as_bytes() == wanted)
    }
}

/// A value of an untrusted client for a log: escaped, and cut at 128 bytes.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const LENGTH: usize = 128;

        let (shown, rest) = self.0.split_at(self.0.len().min(LENGTH));
        let ellipsis = if rest.is_empty() { "" } else { "…" };
        write!(f, "{}{ellipsis}", shown.escape_ascii())
    }
}

/// Text that may quote an untrusted client: cut, and with control characters escaped.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;

        for (i, character) in self.0.chars().enumerate() {
            match character {
                _ if i == 256 => return f.write_char('…'),
                '"' | '\'' | '\\' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_elements_without_white_space_and_empty_ones() {
        for (value, expected) in [
            ("", vec![]),
            (",, \t,", vec![]),
            ("a", vec!["a"]),
            (" a ,\tb\t,, c d", vec!["a", "b", "c d"]),
        ] {
            let value = HeaderValue::from_str(value).unwrap();
            assert_eq!(text_elements([&value]).collect::<Vec<_>>(), expected, "{value:?}");
        }
        let value = HeaderValue::from_static("h2c, WebSocket");
        assert!(has_element(&value, b"websocket"));
        assert!(!has_element(&value, b"socket"));
    }

    #[test]
    fn a_token_has_no_separators() {
        for token in ["a", "v2.chat", "!#$%&'*+-.^_`|~", "0"] {
            assert!(is_token(token.as_bytes()), "{token}");
        }
        for other in ["", " ", "a b", "a/b", "a,b", "a:b", "\"a\"", "(a)", "a\0", "\u{fc}"] {
            assert!(!is_token(other.as_bytes()), "{other}");
        }
    }
}
