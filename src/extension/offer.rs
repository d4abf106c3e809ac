//! The extensions that a client offers.

use std::{fmt, str::FromStr};

use http::HeaderValue;

use super::grammar::{Extension, InvalidExtensionOffer, MAX_EXTENSIONS, parse_lines};

/// The maximum length of all lines together, in bytes. Browsers send less than 100.
const MAX_LENGTH: usize = 4096;
/// The maximum number of parameters of an extension.
const MAX_PARAMETERS: usize = 32;

/// The extensions that a client offers in `Sec-WebSocket-Extensions`, in its order of preference
/// (RFC 6455 9.1).
///
/// The parser checks the grammar. It does not know any extension: whether a name is registered, and
/// which parameters an extension has, is for the code that negotiates it. The same extension may
/// occur several times with different parameters.
///
/// `Display` writes the offer on one line, with one space behind each comma and semicolon, and
/// without quotes. With the feature `headers` the type implements `headers::Header`.
///
/// ```
/// use http::HeaderValue;
/// use tower_ws_guard::ExtensionOffer;
///
/// let lines = [
///     HeaderValue::from_static("permessage-deflate;client_max_window_bits = \"10\""),
///     HeaderValue::from_static("permessage-deflate ; client_max_window_bits"),
/// ];
/// let offer = ExtensionOffer::parse(&lines)?;
/// assert_eq!(offer.len(), 2);
/// for extension in offer.iter() {
///     assert_eq!(extension.name(), "permessage-deflate");
/// }
/// assert_eq!(
///     offer.to_string(),
///     "permessage-deflate; client_max_window_bits=10, permessage-deflate; client_max_window_bits",
/// );
/// # Ok::<_, tower_ws_guard::InvalidExtensionOffer>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtensionOffer {
    extensions: Vec<OfferedExtension>,
}

impl ExtensionOffer {
    /// Parses all lines of `Sec-WebSocket-Extensions`. Each line is a comma-separated list. White
    /// space around names, values, `,`, `;` and `=` is ignored, and so are empty elements of the
    /// list. A value in quotes is unescaped.
    ///
    /// Without lines, or if all lines are empty, the offer is empty.
    ///
    /// # Errors
    ///
    /// - The lines have more than 4096 bytes together, more than 32 extensions, or an extension
    ///   with more than 32 parameters.
    /// - The name of an extension or of a parameter is not a token (RFC 9110 5.6.2).
    /// - A value is neither a token nor a token in quotes.
    /// - The list has commas and no extension.
    ///
    /// ```
    /// use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
    /// use tower_ws_guard::ExtensionOffer;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert(SEC_WEBSOCKET_EXTENSIONS, "foo; bar=\"1".parse().unwrap());
    /// let error = ExtensionOffer::parse(headers.get_all(SEC_WEBSOCKET_EXTENSIONS)).unwrap_err();
    /// assert_eq!(error.to_string(), "the value of a parameter has no closing quote");
    /// ```
    pub fn parse<'a, I>(lines: I) -> Result<Self, InvalidExtensionOffer>
    where
        I: IntoIterator<Item = &'a HeaderValue>,
    {
        Self::from_lines(lines.into_iter().map(HeaderValue::as_bytes))
    }

    fn from_lines<'a>(
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, InvalidExtensionOffer> {
        let mut length = 0_usize;
        let lines = lines.map(|line| {
            length = length.saturating_add(line.len());
            if length > MAX_LENGTH { Err(InvalidExtensionOffer::LENGTH) } else { Ok(line) }
        });
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let mut extensions = Vec::new();
        parse_lines(lines, |extension| {
            if extensions.len() == MAX_EXTENSIONS {
                return Err(InvalidExtensionOffer::EXTENSIONS);
            }
            extensions.push(OfferedExtension::new(extension)?);
            Ok(())
        })?;
        Ok(Self { extensions })
    }

    /// The extensions, in the client's order of preference.
    ///
    /// ```
    /// use tower_ws_guard::{ExtensionOffer, OfferedExtension};
    ///
    /// let offer: ExtensionOffer = "foo; a, bar".parse()?;
    /// assert_eq!(offer.iter().map(OfferedExtension::name).collect::<Vec<_>>(), ["foo", "bar"]);
    /// # Ok::<_, tower_ws_guard::InvalidExtensionOffer>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &OfferedExtension> {
        self.extensions.iter()
    }

    /// The number of extensions: 0 to 32.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extensions.len()
    }

    /// Whether the client offers no extension.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }
}

/// Parses the value of one line.
impl FromStr for ExtensionOffer {
    type Err = InvalidExtensionOffer;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        Self::from_lines([line.as_bytes()].into_iter())
    }
}

impl fmt::Display for ExtensionOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, extension) in self.extensions.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{extension}")?;
        }
        Ok(())
    }
}

/// An extension in an [`ExtensionOffer`], with its parameters.
///
/// Names and values are as the client sent them, in any case.
///
/// ```
/// use tower_ws_guard::ExtensionOffer;
///
/// let offer: ExtensionOffer = "foo; quick; level=\"9\"".parse()?;
/// let extension = offer.iter().next().unwrap();
/// assert_eq!(extension.name(), "foo");
/// let parameters = extension.parameters().collect::<Vec<_>>();
/// assert_eq!(parameters, [("quick", None), ("level", Some("9"))]);
/// assert_eq!(extension.to_string(), "foo; quick; level=9");
/// # Ok::<_, tower_ws_guard::InvalidExtensionOffer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OfferedExtension {
    name: Box<str>,
    parameters: Vec<(Box<str>, Option<Box<str>>)>,
}

impl OfferedExtension {
    fn new(extension: Extension<'_>) -> Result<Self, InvalidExtensionOffer> {
        let mut parameters = Vec::new();
        for (name, value) in extension.parameters() {
            if parameters.len() == MAX_PARAMETERS {
                return Err(InvalidExtensionOffer::PARAMETERS);
            }
            parameters.push((name.into(), value.map(Into::into)));
        }
        Ok(Self { name: extension.name().into(), parameters })
    }

    /// The name: a token.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names and values of the parameters, in the client's order: tokens. A name may occur
    /// several times. There are at most 32.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.parameters.iter().map(|(name, value)| (&**name, value.as_deref()))
    }
}

impl fmt::Display for OfferedExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (name, value) in self.parameters() {
            write!(f, "; {name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidExtensionOffer as Invalid, *};

    fn parse(lines: &[&[u8]]) -> Result<String, Invalid> {
        let lines = lines.iter().map(|line| HeaderValue::from_bytes(line).unwrap());
        ExtensionOffer::parse(&lines.collect::<Vec<_>>()).map(|offer| offer.to_string())
    }

    #[test]
    fn an_offer_is_a_list_over_lines_and_is_written_on_one() {
        for (lines, expected) in [
            (vec![], ""),
            (vec![""], ""),
            (vec![" \t"], ""),
            (vec!["", " "], ""),
            (vec!["a"], "a"),
            (
                vec!["permessage-deflate; client_max_window_bits"],
                "permessage-deflate; client_max_window_bits",
            ),
            (vec!["a;b"], "a; b"),
            (vec!["a;b=c"], "a; b=c"),
            (vec!["a;b=c;d"], "a; b=c; d"),
            (vec!["a;b=c,d;e=f"], "a; b=c, d; e=f"),
            (vec!["a, b", "c"], "a, b, c"),
            (vec!["", "a"], "a"),
            (vec!["a", ","], "a"),
            (vec![",", "a"], "a"),
            (vec![",, a ,\t, b ,"], "a, b"),
            // Implied white space (RFC 2616 2.1).
            (vec!["\ta ; b\t=\tc ; d , e "], "a; b=c; d, e"),
            // An extension may be offered twice, and so may a parameter.
            (vec!["a; b; b=1, a; B"], "a; b; b=1, a; B"),
            (vec!["!#$%&'*+-.^_`|~09azAZ; ~=|"], "!#$%&'*+-.^_`|~09azAZ; ~=|"),
            (vec![r#"a; b="c""#], "a; b=c"),
            (vec![r#"a; b = "c" ; d"#], "a; b=c; d"),
            (vec![r#"a; b="c",d"#], "a; b=c, d"),
            (vec![r#"a; b="\c\1c""#], "a; b=c1c"),
        ] {
            let bytes = lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>();
            assert_eq!(parse(&bytes).as_deref(), Ok(expected), "{lines:?}");
            assert_eq!(parse(&[expected.as_bytes()]).as_deref(), Ok(expected), "{expected}");
        }
    }

    #[test]
    fn a_malformed_offer_is_an_error_that_names_the_rule() {
        for (lines, expected) in [
            (vec![b",".as_slice()], Invalid::EMPTY),
            (vec![b", \t,"], Invalid::EMPTY),
            (vec![b"", b","], Invalid::EMPTY),
            (vec![b",", b""], Invalid::EMPTY),
            (vec![b";"], Invalid::NAME),
            (vec![b"; a"], Invalid::NAME),
            (vec![b"="], Invalid::NAME),
            (vec![b"=a"], Invalid::NAME),
            (vec![b"a, ; b"], Invalid::NAME),
            (vec![b"\"a\""], Invalid::NAME),
            (vec![b"a/b"], Invalid::NAME),
            (vec![b"(a)"], Invalid::NAME),
            (vec![b"a:b"], Invalid::NAME),
            (vec![b"a\\b"], Invalid::NAME),
            (vec![b"a\xfc"], Invalid::NAME),
            (vec!["b\u{fc}cher".as_bytes()], Invalid::NAME),
            (vec!["a\u{a0}".as_bytes()], Invalid::NAME),
            (vec![b"a", b"/"], Invalid::NAME),
            (vec![b"a;"], Invalid::PARAMETER),
            (vec![b"a; "], Invalid::PARAMETER),
            (vec![b"a;;b"], Invalid::PARAMETER),
            (vec![b"a; b;"], Invalid::PARAMETER),
            (vec![b"a;, b"], Invalid::PARAMETER),
            (vec![b"a; =b"], Invalid::PARAMETER),
            (vec![b"a; \"b\""], Invalid::PARAMETER),
            (vec![b"a; \xfc"], Invalid::PARAMETER),
            // A list continues on the next line, an extension does not.
            (vec![b"a;", b"b"], Invalid::PARAMETER),
            (vec![b"a; b="], Invalid::VALUE),
            (vec![b"a; b=;"], Invalid::VALUE),
            (vec![b"a; b=, c"], Invalid::VALUE),
            (vec![b"a; b==c"], Invalid::VALUE),
            (vec![b"a; b=/"], Invalid::VALUE),
            (vec![b"a; b='\xfc'"], Invalid::VALUE),
            (vec![b"a; b=c\\d"], Invalid::VALUE),
            (vec![b"a; b=\"\""], Invalid::VALUE),
            (vec![b"a; b=\" c\""], Invalid::VALUE),
            (vec![b"a; b=\"c d\""], Invalid::VALUE),
            (vec![b"a; b=\"c,d\""], Invalid::VALUE),
            (vec![b"a; b=\"c;d\""], Invalid::VALUE),
            (vec![b"a; b=\"c\\\"d\""], Invalid::VALUE),
            (vec![b"a; b=\"\\\\\""], Invalid::VALUE),
            (vec![b"a; b=\"\xc3\xbc\""], Invalid::VALUE),
            (vec![b"a; b=\"\\\xfc\""], Invalid::VALUE),
            (vec![b"a; b=\""], Invalid::QUOTE),
            (vec![b"a; b=\"c"], Invalid::QUOTE),
            (vec![b"a; b=\"c, d"], Invalid::QUOTE),
            (vec![b"a; b=\"c\\"], Invalid::QUOTE),
            (vec![b"a; b=\"c\\\""], Invalid::QUOTE),
            (vec![b"a; b=\"c", b"d\""], Invalid::QUOTE),
            (vec![b"a b"], Invalid::SEPARATOR),
            (vec![b"a\tb, c"], Invalid::SEPARATOR),
            (vec![b"a=b"], Invalid::SEPARATOR),
            (vec![b"a\"b\""], Invalid::SEPARATOR),
            (vec![b"a; b c"], Invalid::SEPARATOR),
            (vec![b"a; b=c d"], Invalid::SEPARATOR),
            (vec![b"a; b=c=d"], Invalid::SEPARATOR),
            (vec![b"a; b=c\"d\""], Invalid::SEPARATOR),
            (vec![b"a; b=\"c\"d"], Invalid::SEPARATOR),
            (vec![b"a; b=\"c\"\"d\""], Invalid::SEPARATOR),
        ] {
            let shown = lines.iter().map(|line| line.escape_ascii().to_string());
            let shown = shown.collect::<Vec<_>>();
            assert_eq!(parse(&lines), Err(expected), "{shown:?}");
        }
    }

    #[test]
    fn an_offer_is_bounded() {
        let parse = |lines: &[String]| {
            parse(&lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>()).map(drop)
        };
        let extensions = |count| vec!["a"; count].join(",");
        assert_eq!(parse(&[extensions(32) + ",,"]), Ok(()));
        assert_eq!(parse(&[extensions(33)]), Err(Invalid::EXTENSIONS));
        assert_eq!(parse(&[extensions(16), extensions(16)]), Ok(()));
        assert_eq!(parse(&[extensions(16), extensions(17)]), Err(Invalid::EXTENSIONS));

        let parameters = |count| format!("a{}", ";b=1".repeat(count));
        assert_eq!(parse(&[parameters(32) + "," + &parameters(32)]), Ok(()));
        assert_eq!(parse(&[parameters(33)]), Err(Invalid::PARAMETERS));

        assert_eq!(parse(&["a".repeat(4096)]), Ok(()));
        assert_eq!(parse(&["a".repeat(4097)]), Err(Invalid::LENGTH));
        assert_eq!(parse(&["a".repeat(2048), "b".repeat(2048)]), Ok(()));
        assert_eq!(parse(&["a".repeat(2048), "b".repeat(2049)]), Err(Invalid::LENGTH));
        // White space and empty elements count.
        assert_eq!(parse(&[",".repeat(4095) + "a"]), Ok(()));
        assert_eq!(parse(&[" ".repeat(4096) + "a"]), Err(Invalid::LENGTH));
        assert_eq!(parse(&[",".repeat(4096) + "a"]), Err(Invalid::LENGTH));
    }

    #[test]
    fn a_parsed_offer_has_names_and_values() {
        let offer = r#"a, b; c; d="\e""#.parse::<ExtensionOffer>().unwrap();
        assert_eq!((offer.len(), offer.is_empty()), (2, false));
        let [a, b] = offer.iter().collect::<Vec<_>>()[..] else { panic!("{offer:?}") };
        assert_eq!((a.name(), a.parameters().count()), ("a", 0));
        assert_eq!(b.name(), "b");
        assert_eq!(b.parameters().collect::<Vec<_>>(), [("c", None), ("d", Some("e"))]);
        assert_eq!(Ok(offer), "a, b; c; d=e".parse());
        assert_ne!("a; b".parse::<ExtensionOffer>(), "a; B".parse());
        let empty = "".parse::<ExtensionOffer>().unwrap();
        assert_eq!((empty.len(), empty.is_empty()), (0, true));
    }
}
