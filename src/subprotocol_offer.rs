//! The subprotocols that a client offers.

use std::{error::Error, fmt, str::FromStr};

use http::HeaderValue;

use crate::http::field::{is_token, trim};

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
        let mut offer = Self::default();
        for subprotocol in subprotocols {
            offer.push(subprotocol.as_ref().as_bytes())?;
        }
        Ok(offer)
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
        Self::parse_lines(lines.into_iter().map(HeaderValue::as_bytes))
    }

    fn parse_lines<'a>(
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, InvalidSubprotocolOffer> {
        let mut offer = Self::default();
        let mut blank = true;
        let mut count = 0;
        for line in lines {
            blank &= trim(line).is_empty();
            for element in line.split(|&byte| byte == b',').map(trim) {
                if count == MAX_SUBPROTOCOLS {
                    return Err(InvalidSubprotocolOffer::COUNT);
                }
                count += 1;
                if !element.is_empty() {
                    offer.push(element)?;
                }
            }
        }
        if offer.is_empty() && !blank {
            return Err(InvalidSubprotocolOffer::EMPTY);
        }
        Ok(offer)
    }

    fn push(&mut self, subprotocol: &[u8]) -> Result<(), InvalidSubprotocolOffer> {
        let subprotocol = match std::str::from_utf8(subprotocol) {
            Ok(text) if is_token(subprotocol) => text,
            _ => return Err(InvalidSubprotocolOffer::TOKEN),
        };
        if self.iter().any(|other| other == subprotocol) {
            return Err(InvalidSubprotocolOffer::TWICE);
        }
        if self.len() == MAX_SUBPROTOCOLS {
            return Err(InvalidSubprotocolOffer::COUNT);
        }
        self.subprotocols.push(subprotocol.into());
        Ok(())
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
        Self::parse_lines([line.as_bytes()].into_iter())
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

/// The reason why a value is not a [`SubprotocolOffer`]. Its `Display` names the rule that the
/// value breaks, without the value, which may carry a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubprotocolOffer(&'static str);

impl InvalidSubprotocolOffer {
    const TOKEN: Self =
        Self("a subprotocol is a token: no spaces, commas, slashes, quotes or colons");
    const TWICE: Self = Self("a subprotocol is offered twice");
    const COUNT: Self = Self("an offer has at most 128 subprotocols");
    const EMPTY: Self = Self("the list has commas but no subprotocol");
}

impl fmt::Display for InvalidSubprotocolOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
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
        ] {
            let shown = lines.iter().map(|line| line.escape_ascii().to_string());
            let shown = shown.collect::<Vec<_>>();
            assert_eq!(parse(&lines), Err(expected), "{shown:?}");
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
            assert_eq!(SubprotocolOffer::list(&names), Err(expected), "{names:?}");
        }
    }

    #[test]
    fn debug_shows_no_names() {
        let offer = SubprotocolOffer::list(["chat", "secret"]).unwrap();
        assert_eq!(format!("{offer:?}"), "SubprotocolOffer { len: 2, .. }");
    }
}
