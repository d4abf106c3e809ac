//! The subprotocols that a client offers.

use std::{error::Error, fmt, slice, str::FromStr};

use http::HeaderValue;

use crate::http::field::{Escaped, is_token, trim};

/// The maximum number of elements, including empty ones.
const MAX_SUBPROTOCOLS: usize = 128;

/// The subprotocols that a client offers in `Sec-WebSocket-Protocol`, in its order of preference:
/// distinct tokens (RFC 6455 4.1 item 10).
///
/// [`Handshake::subprotocols`](crate::Handshake::subprotocols) reads them without a copy. This type
/// owns them, for clients and for handlers.
///
/// `Display` writes the offer on one line. `Debug` shows only the number of subprotocols, because
/// they may carry a credential. With the feature `headers` the type implements `headers::Header`.
///
/// ```
/// use http::HeaderValue;
/// use tower_ws_guard::SubprotocolOffer;
///
/// let lines = [HeaderValue::from_static("v2.chat,v1.chat"), HeaderValue::from_static("json")];
/// let offer = SubprotocolOffer::parse(&lines)?;
/// assert_eq!(offer.iter().collect::<Vec<_>>(), ["v2.chat", "v1.chat", "json"]);
/// assert_eq!(offer.to_string(), "v2.chat, v1.chat, json");
/// # Ok::<_, tower_ws_guard::InvalidSubprotocolOffer>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct SubprotocolOffer {
    subprotocols: Vec<Box<str>>,
}

impl SubprotocolOffer {
    /// An offer of these subprotocols, in the client's order of preference. An empty list offers
    /// nothing.
    ///
    /// # Errors
    ///
    /// A subprotocol is not a token (RFC 9110 5.6.2) or is listed twice, or there are more than
    /// 128.
    ///
    /// ```
    /// use tower_ws_guard::SubprotocolOffer;
    ///
    /// let offer = SubprotocolOffer::list(["v2.chat", "v1.chat"])?;
    /// assert_eq!(offer.to_string(), "v2.chat, v1.chat");
    /// assert!(SubprotocolOffer::list(["v2.chat, v1.chat"]).is_err());
    /// # Ok::<_, tower_ws_guard::InvalidSubprotocolOffer>(())
    /// ```
    pub fn list<I>(subprotocols: I) -> Result<Self, InvalidSubprotocolOffer>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        // One more than allowed is enough to tell.
        let names = subprotocols.into_iter().take(MAX_SUBPROTOCOLS + 1).collect::<Vec<_>>();
        let mut offered = Offered::default();
        for name in &names {
            offered.push(name.as_ref().as_bytes(), |_| false)?;
        }
        offered.check_distinct()?;
        if names.len() > MAX_SUBPROTOCOLS {
            return Err(InvalidSubprotocolOffer::COUNT);
        }
        Ok(offered.into())
    }

    /// Parses all lines of `Sec-WebSocket-Protocol`. Each line is a comma-separated list. White
    /// space around the elements and empty elements are ignored.
    ///
    /// Without lines, or if all lines are empty, the offer is empty.
    ///
    /// # Errors
    ///
    /// - An element is not a token (RFC 9110 5.6.2), or is a token that occurred before. Names in
    ///   another case are other names.
    /// - There are more than 128 elements, including empty ones.
    /// - The list has commas and no subprotocol.
    ///
    /// ```
    /// use http::{HeaderMap, header::SEC_WEBSOCKET_PROTOCOL};
    /// use tower_ws_guard::SubprotocolOffer;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert(SEC_WEBSOCKET_PROTOCOL, "chat, chat".parse().unwrap());
    /// let error = SubprotocolOffer::parse(headers.get_all(SEC_WEBSOCKET_PROTOCOL)).unwrap_err();
    /// assert_eq!(error.to_string(), "a subprotocol is offered twice");
    /// ```
    pub fn parse<'a, I>(lines: I) -> Result<Self, InvalidSubprotocolOffer>
    where
        I: IntoIterator<Item = &'a HeaderValue>,
    {
        let lines = lines.into_iter().map(HeaderValue::as_bytes);
        Offered::parse(lines, |_| false).map(Self::from)
    }

    /// The subprotocols, in the client's order of preference.
    ///
    /// ```
    /// use tower_ws_guard::SubprotocolOffer;
    ///
    /// let offer: SubprotocolOffer = "v3.chat, v2.chat".parse()?;
    /// let selected = offer.iter().find(|name| ["v1.chat", "v2.chat"].contains(name));
    /// assert_eq!(selected, Some("v2.chat"));
    /// # Ok::<_, tower_ws_guard::InvalidSubprotocolOffer>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.subprotocols.iter().map(|subprotocol| &**subprotocol)
    }

    /// The number of subprotocols: 0 to 128.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subprotocols.len()
    }

    /// Whether the client offers no subprotocol.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subprotocols.is_empty()
    }
}

/// Parses the value of one line.
impl FromStr for SubprotocolOffer {
    type Err = InvalidSubprotocolOffer;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        Offered::parse([line.as_bytes()].into_iter(), |_| false).map(Self::from)
    }
}

impl fmt::Display for SubprotocolOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, subprotocol) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{subprotocol}")?;
        }
        Ok(())
    }
}

/// Shows no names, because they may carry a credential.
impl fmt::Debug for SubprotocolOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubprotocolOffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl From<Offered<'_>> for SubprotocolOffer {
    fn from(offered: Offered<'_>) -> Self {
        // Tokens are ASCII.
        let subprotocols = offered.iter().filter_map(|name| str::from_utf8(name).ok());
        Self { subprotocols: subprotocols.map(Box::from).collect() }
    }
}

/// The subprotocols of an offer as slices of its lines, in the client's order of preference.
#[derive(Clone, Default)]
pub(crate) struct Offered<'a> {
    /// Most clients offer at most one, and then nothing is allocated.
    first: Option<&'a [u8]>,
    others: Vec<&'a [u8]>,
}

impl<'a> Offered<'a> {
    /// RFC 6455 4.1 item 10: distinct tokens, or names that are `ours`. Some clients send an empty
    /// line for an empty list.
    pub(crate) fn parse(
        lines: impl Iterator<Item = &'a [u8]>,
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, InvalidSubprotocolOffer> {
        let mut offered = Self::default();
        let (mut line_count, mut element_count) = (0, 0);
        for line in lines {
            line_count += 1;
            for element in line.split(|&byte| byte == b',').map(trim) {
                if element_count == MAX_SUBPROTOCOLS {
                    return Err(InvalidSubprotocolOffer::COUNT);
                }
                element_count += 1;
                if !element.is_empty() {
                    offered.push(element, &is_ours)?;
                }
            }
        }
        let has_comma = element_count > line_count;
        if offered.is_empty() && has_comma {
            return Err(InvalidSubprotocolOffer::EMPTY);
        }
        offered.check_distinct()?;
        Ok(offered)
    }

    /// A line without a comma and white space. `None` for any other line.
    pub(crate) fn one(line: &'a [u8]) -> Option<Self> {
        is_token(line).then(|| Self { first: Some(line), others: Vec::new() })
    }

    fn push(
        &mut self,
        name: &'a [u8],
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> Result<(), InvalidSubprotocolOffer> {
        if !is_token(name) && !is_ours(name) {
            let wrong = name.iter().find(|byte| !is_token(slice::from_ref(byte)));
            return Err(InvalidSubprotocolOffer {
                wrong: wrong.copied(),
                ..InvalidSubprotocolOffer::TOKEN
            });
        }
        if self.first.is_none() {
            self.first = Some(name);
        } else {
            self.others.push(name);
        }
        Ok(())
    }

    fn check_distinct(&self) -> Result<(), InvalidSubprotocolOffer> {
        if self.others.is_empty() {
            return Ok(());
        }
        let mut sorted = self.iter().collect::<Vec<_>>();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(InvalidSubprotocolOffer::TWICE);
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.first.into_iter().chain(self.others.iter().copied())
    }

    /// As [`iter`](Self::iter), without a borrow of this value.
    pub(crate) fn into_names(self) -> impl Iterator<Item = &'a [u8]> {
        self.first.into_iter().chain(self.others)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// The reason why a value is not a [`SubprotocolOffer`]. Its `Display` names the rule that the
/// value breaks, and of the value only a character that no token has: the rest may carry a
/// credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubprotocolOffer {
    rule: &'static str,
    wrong: Option<u8>,
}

impl InvalidSubprotocolOffer {
    const TOKEN: Self =
        Self::new("a subprotocol is a token: no spaces, commas, slashes, quotes or colons");
    const TWICE: Self = Self::new("a subprotocol is offered twice");
    const COUNT: Self = Self::new("an offer has at most 128 subprotocols");
    const EMPTY: Self = Self::new("the list has commas but no subprotocol");

    const fn new(rule: &'static str) -> Self {
        Self { rule, wrong: None }
    }
}

impl fmt::Display for InvalidSubprotocolOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule)?;
        match &self.wrong {
            Some(wrong) => write!(f, "; one holds `{}`", Escaped(slice::from_ref(wrong))),
            None => Ok(()),
        }
    }
}

impl Error for InvalidSubprotocolOffer {}

#[cfg(test)]
mod tests {
    use super::{InvalidSubprotocolOffer as Invalid, *};

    fn parse(lines: &[&[u8]]) -> Result<String, Invalid> {
        let lines = lines.iter().map(|line| HeaderValue::from_bytes(line).unwrap());
        SubprotocolOffer::parse(&lines.collect::<Vec<_>>()).map(|offer| offer.to_string())
    }

    #[test]
    fn an_offer_is_a_list_over_lines_in_the_order_of_the_client() {
        for (lines, expected) in [
            (vec![], ""),
            (vec![""], ""),
            (vec![" \t"], ""),
            (vec!["", " "], ""),
            (vec!["chat"], "chat"),
            (vec!["b,a"], "b, a"),
            (vec!["b , a\t,\tc"], "b, a, c"),
            (vec!["b, a", "c"], "b, a, c"),
            (vec!["", "a"], "a"),
            (vec![",", "a"], "a"),
            (vec![",, a ,\t, b ,"], "a, b"),
            (vec!["chat, Chat"], "chat, Chat"),
            (vec!["f, e", "d, c, b, a"], "f, e, d, c, b, a"),
            (vec!["!#$%&'*+-.^_`|~09azAZ"], "!#$%&'*+-.^_`|~09azAZ"),
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
            (vec![b"a b"], Invalid::TOKEN),
            (vec![b"a\tb"], Invalid::TOKEN),
            (vec![b"a;b"], Invalid::TOKEN),
            (vec![b"a/b"], Invalid::TOKEN),
            (vec![b"a=b"], Invalid::TOKEN),
            (vec![b"a:b"], Invalid::TOKEN),
            (vec![b"a@b"], Invalid::TOKEN),
            (vec![b"\"a\""], Invalid::TOKEN),
            (vec![b"a, \"b\""], Invalid::TOKEN),
            (vec![b"a", b"b/"], Invalid::TOKEN),
            (vec![b"a\xfc"], Invalid::TOKEN),
            (vec!["b\u{fc}cher".as_bytes()], Invalid::TOKEN),
            (vec!["a\u{a0}".as_bytes()], Invalid::TOKEN),
            (vec![b"a, a"], Invalid::TWICE),
            (vec![b"a, b, a"], Invalid::TWICE),
            (vec![b"a", b"a"], Invalid::TWICE),
            (vec![b"a, b, c, d, e, a"], Invalid::TWICE),
            (vec![b"a, b, c, d, e, f", b"e"], Invalid::TWICE),
        ] {
            let shown = lines.iter().map(|line| line.escape_ascii().to_string());
            let shown = shown.collect::<Vec<_>>();
            assert_eq!(parse(&lines).unwrap_err().rule, expected.rule, "{shown:?}");
        }
    }

    #[test]
    fn an_offer_has_at_most_128_elements() {
        let names = |count| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
        let one_line = |count| parse(&[names(count).join(",").as_bytes()]).map(drop);
        assert_eq!(one_line(128), Ok(()));
        assert_eq!(one_line(129), Err(Invalid::COUNT));
        let lines = |count| {
            parse(&names(count).iter().map(|name| name.as_bytes()).collect::<Vec<_>>()).map(drop)
        };
        assert_eq!(lines(128), Ok(()));
        assert_eq!(lines(129), Err(Invalid::COUNT));
        let list = |count| SubprotocolOffer::list(names(count)).map(|offer| offer.len());
        assert_eq!(list(0), Ok(0));
        assert_eq!(list(128), Ok(128));
        assert_eq!(list(129), Err(Invalid::COUNT));
        // Empty elements count.
        let empty = |count: usize| ",".repeat(count - 1);
        assert_eq!(parse(&[(empty(128) + "a").as_bytes()]).map(drop), Ok(()));
        assert_eq!(parse(&[(empty(129) + "a").as_bytes()]).map(drop), Err(Invalid::COUNT));
        assert_eq!(parse(&[b"a", empty(127).as_bytes()]).map(drop), Ok(()));
        assert_eq!(parse(&[b"a", empty(128).as_bytes()]).map(drop), Err(Invalid::COUNT));
    }

    #[test]
    fn a_list_takes_distinct_tokens() {
        let list = SubprotocolOffer::list(["b", "a"]).unwrap();
        assert_eq!((list.len(), list.is_empty()), (2, false));
        assert_eq!(Ok(list), " b,a".parse());
        assert_ne!("a, b".parse::<SubprotocolOffer>(), "b, a".parse());
        assert!(SubprotocolOffer::list([""; 0]).is_ok_and(|offer| offer.is_empty()));
        for (names, expected) in [
            (vec![""], Invalid::TOKEN),
            (vec![" a"], Invalid::TOKEN),
            (vec!["a,b"], Invalid::TOKEN),
            (vec!["a", "b\n"], Invalid::TOKEN),
            (vec!["a", "b", "a"], Invalid::TWICE),
        ] {
            let invalid = SubprotocolOffer::list(&names).unwrap_err();
            assert_eq!(invalid.rule, expected.rule, "{names:?}");
        }
        let invalid = SubprotocolOffer::list(["chat/2"]).unwrap_err();
        assert!(invalid.to_string().ends_with("; one holds `/`"), "{invalid}");
    }

    #[test]
    fn debug_shows_no_names() {
        let offer = SubprotocolOffer::list(["chat", "secret"]).unwrap();
        assert_eq!(format!("{offer:?}"), "SubprotocolOffer { len: 2, .. }");
    }
}
