//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 9.1).

use std::{borrow::Cow, error::Error, fmt, iter};

use crate::http::field::{is_token, trim};

/// The maximum number of extensions in a list that is read. Browsers send one.
pub(super) const MAX_EXTENSIONS: usize = 32;

/// An extension in a list that was parsed.
#[derive(Clone, Copy)]
pub(super) struct Extension<'a> {
    name: &'a str,
    /// All parameters, from the first semicolon on.
    parameters: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(super) const fn name(&self) -> &'a str {
        self.name
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter<'a>> + use<'a> {
        let mut rest = Cursor(self.parameters);
        iter::from_fn(move || rest.parameter().ok().flatten())
    }
}

/// The name of a parameter and its value, unescaped.
pub(super) type Parameter<'a> = (&'a str, Option<Cow<'a, str>>);

/// Parses `extension-list`, over lines and with empty elements, and passes on each extension. The
/// work is linear, and only a value with a backslash is copied.
pub(super) fn parse_lines<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
    mut each: impl FnMut(Extension<'a>) -> Result<(), InvalidExtensionOffer>,
) -> Result<(), InvalidExtensionOffer> {
    let (mut is_blank, mut is_empty) = (true, true);
    for line in lines {
        let mut rest = Cursor(trim(line));
        is_blank &= rest.0.is_empty();
        loop {
            while rest.eat(b',') {}
            if rest.0.is_empty() {
                break;
            }
            each(rest.extension()?)?;
            is_empty = false;
            if !rest.0.is_empty() && !rest.eat(b',') {
                return Err(InvalidExtensionOffer::SEPARATOR);
            }
        }
    }
    if is_empty && !is_blank {
        return Err(InvalidExtensionOffer::EMPTY);
    }
    Ok(())
}

/// The rest of a line, without white space around it.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn extension(&mut self) -> Result<Extension<'a>, InvalidExtensionOffer> {
        let name = self.token().ok_or(InvalidExtensionOffer::NAME)?;
        let from = self.0;
        while self.parameter()?.is_some() {}
        Ok(Extension { name, parameters: &from[..from.len() - self.0.len()] })
    }

    fn parameter(&mut self) -> Result<Option<Parameter<'a>>, InvalidExtensionOffer> {
        if !self.eat(b';') {
            return Ok(None);
        }
        let name = self.token().ok_or(InvalidExtensionOffer::PARAMETER)?;
        let value = if self.eat(b'=') { Some(self.value()?) } else { None };
        Ok(Some((name, value)))
    }

    fn value(&mut self) -> Result<Cow<'a, str>, InvalidExtensionOffer> {
        match self.0 {
            [b'"', rest @ ..] => self.quoted(rest),
            _ => self.token().map(Cow::Borrowed).ok_or(InvalidExtensionOffer::VALUE),
        }
    }

    /// The part of a `quoted-string` (RFC 9110 5.6.4) behind the opening quote. Unescaped, it must
    /// be a token.
    fn quoted(&mut self, content: &'a [u8]) -> Result<Cow<'a, str>, InvalidExtensionOffer> {
        let mut length = 0;
        let behind = loop {
            match &content[length..] {
                [] | [b'\\'] => return Err(InvalidExtensionOffer::QUOTE),
                [b'"', behind @ ..] => break behind,
                [b'\\', _, ..] => length += 2,
                _ => length += 1,
            }
        };
        self.0 = trim(behind);
        let escaped = &content[..length];
        let value = if escaped.contains(&b'\\') {
            token(&unescape(escaped)).map(|value| Cow::Owned(value.to_owned()))
        } else {
            token(escaped).map(Cow::Borrowed)
        };
        value.ok_or(InvalidExtensionOffer::VALUE)
    }

    /// Takes the bytes before the next separator, if they are a token.
    fn token(&mut self) -> Option<&'a str> {
        let is_separator = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';' | b'=' | b'"');
        let end = self.0.iter().position(is_separator).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = trim(rest);
        token(word)
    }

    /// Takes `byte`, if it is the next one.
    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = trim(rest);
                true
            }
            _ => false,
        }
    }
}

/// Removes the backslash from each `quoted-pair`.
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut bytes = escaped.iter().copied();
    iter::from_fn(|| match bytes.next() {
        Some(b'\\') => bytes.next(),
        byte => byte,
    })
    .collect()
}

fn token(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|_| is_token(bytes))
}

/// The reason why a value is not an [`ExtensionOffer`](crate::ExtensionOffer). Its `Display` names
/// the rule that the value breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidExtensionOffer(&'static str);

impl InvalidExtensionOffer {
    pub(super) const LENGTH: Self = Self("an offer of extensions has at most 4096 bytes");
    pub(super) const EXTENSIONS: Self = Self("a list has at most 32 extensions");
    pub(super) const PARAMETERS: Self = Self("an extension has at most 32 parameters");
    pub(super) const EMPTY: Self = Self("the list has commas but no extension");
    pub(super) const NAME: Self = Self("the name of an extension is not a token");
    pub(super) const PARAMETER: Self = Self("the name of a parameter is not a token");
    pub(super) const VALUE: Self =
        Self("the value of a parameter is neither a token nor a token in quotes");
    pub(super) const QUOTE: Self = Self("the value of a parameter has no closing quote");
    pub(super) const SEPARATOR: Self = Self("a comma or a semicolon is missing");
}

impl fmt::Display for InvalidExtensionOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidExtensionOffer {}
