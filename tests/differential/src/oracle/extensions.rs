//! `Sec-WebSocket-Extensions`: the grammar of RFC 6455 9.1, and permessage-deflate of RFC 7692 7.1.

use std::fmt;

use super::{is_token, trim};

pub const NAME: &str = "permessage-deflate";

/// More than these are documented to come to no agreement.
const MOST: usize = 32;

/// One element of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub name: String,
    pub parameters: Vec<(String, Option<String>)>,
}

/// What a guard can agree to, as it is configured.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    pub least_server_bits: u8,
    pub most_server_bits: u8,
    pub client_bits: u8,
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
}

/// The parameters of RFC 7692 7.1, in an offer and in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    pub server_max_window_bits: Option<u8>,
    /// An offer may have it without a value.
    pub client_max_window_bits: Option<Option<u8>>,
}

/// The pieces of `text` between the `delimiter`s outside of quoted strings; `None` if a quoted string is open at the end.
fn split(text: &[u8], delimiter: u8) -> Option<Vec<&[u8]>> {
    let (mut pieces, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in text.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        } else if byte == delimiter && !quoted {
            pieces.push(&text[start..at]);
            start = at + 1;
        }
    }
    pieces.push(&text[start..]);
    (!quoted).then_some(pieces)
}

fn token(text: &[u8]) -> Option<String> {
    is_token(trim(text)).then(|| String::from_utf8_lossy(trim(text)).into_owned())
}

/// `token / quoted-string`, where a quoted string stands for a token.
fn value(text: &[u8]) -> Option<String> {
    let text = trim(text);
    let Some(quoted) = text.strip_prefix(b"\"") else { return token(text) };
    let (mut quoted, mut unescaped) = (quoted.iter(), Vec::new());
    loop {
        match quoted.next()? {
            b'"' => break,
            b'\\' => unescaped.push(*quoted.next()?),
            byte => unescaped.push(*byte),
        }
    }
    let is_whole = quoted.next().is_none() && is_token(&unescaped);
    is_whole.then(|| String::from_utf8_lossy(&unescaped).into_owned())
}

fn extension(text: &[u8]) -> Option<Extension> {
    let mut pieces = split(text, b';')?.into_iter();
    let name = token(pieces.next()?)?;
    let parameter = |piece: &[u8]| match split(piece, b'=')?[..] {
        [name] => Some((token(name)?, None)),
        [name, given] => Some((token(name)?, Some(value(given)?))),
        _ => None,
    };
    Some(Extension { name, parameters: pieces.map(parameter).collect::<Option<_>>()? })
}

/// The list over all lines, each of which is a list of its own. `None` if it is malformed anywhere.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<Extension>> {
    let (mut extensions, mut has_comma) = (Vec::new(), false);
    for line in lines {
        let elements = split(line, b',')?;
        has_comma |= elements.len() > 1;
        for element in elements.into_iter().filter(|element| !trim(element).is_empty()) {
            extensions.push(extension(element)?);
        }
    }
    // `1#extension`, but a field without anything in it is taken for none.
    (!extensions.is_empty() || !has_comma).then_some(extensions)
}

impl Deflate {
    /// `None` for another extension, and for one that a server must decline (RFC 7692 7).
    pub fn offered(extension: &Extension) -> Option<Self> {
        if extension.name != NAME {
            return None;
        }
        let mut it = Self::default();
        for (at, (name, value)) in extension.parameters.iter().enumerate() {
            if extension.parameters[..at].iter().any(|(earlier, _)| earlier == name) {
                return None;
            }
            match (&**name, value.as_deref()) {
                ("server_no_context_takeover", None) => it.server_no_context_takeover = true,
                ("client_no_context_takeover", None) => it.client_no_context_takeover = true,
                ("server_max_window_bits", Some(value)) => {
                    it.server_max_window_bits = Some(bits(value)?);
                }
                ("client_max_window_bits", None) => it.client_max_window_bits = Some(None),
                ("client_max_window_bits", Some(value)) => {
                    it.client_max_window_bits = Some(Some(bits(value)?));
                }
                _ => return None,
            }
        }
        Some(it)
    }

    /// `None` if it is nothing that any client may be sent.
    pub fn responded(extension: &Extension) -> Option<Self> {
        Self::offered(extension).filter(|it| it.client_max_window_bits != Some(None))
    }

    /// Whether a client that made this offer must take `response` (RFC 7692 7.1.1 and 7.1.2). A server may limit itself in any way, may
    /// ignore the two hints of the client, and may limit the client's window only if the client can do that.
    pub fn allows(&self, response: &Self) -> bool {
        let server_window = match (self.server_max_window_bits, response.server_max_window_bits) {
            (Some(offered), Some(bits)) => bits <= offered,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let client_window =
            self.client_max_window_bits.is_some() || response.client_max_window_bits.is_none();
        let takeover = response.server_no_context_takeover || !self.server_no_context_takeover;
        server_window && client_window && takeover
    }

    /// In the documented order.
    pub fn text(&self) -> String {
        let mut text = NAME.to_owned();
        if self.server_no_context_takeover {
            text += "; server_no_context_takeover";
        }
        if self.client_no_context_takeover {
            text += "; client_no_context_takeover";
        }
        if let Some(bits) = self.server_max_window_bits {
            text += &format!("; server_max_window_bits={bits}");
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => text += &format!("; client_max_window_bits={bits}"),
            Some(None) => text += "; client_max_window_bits",
            None => {}
        }
        text
    }

    /// All that a server can respond with.
    pub fn all_responses() -> impl Iterator<Item = Self> {
        let windows = || (7..=15).map(|bits| Some(bits).filter(|bits| *bits > 7));
        (0..4).flat_map(move |takeover| {
            windows().flat_map(move |server_max_window_bits| {
                windows().map(move |client| Self {
                    server_no_context_takeover: takeover & 1 > 0,
                    client_no_context_takeover: takeover & 2 > 0,
                    server_max_window_bits,
                    client_max_window_bits: client.map(Some),
                })
            })
        })
    }
}

/// 8 to 15, in the one way to write it (RFC 7692 7.1.2: "without leading zeroes").
fn bits(text: &str) -> Option<u8> {
    (8..=15).find(|bits: &u8| bits.to_string() == text)
}

impl Compression {
    /// A codec that can do everything, and wants nothing by itself.
    pub const WHOLE: Self = Self {
        least_server_bits: 8,
        most_server_bits: 15,
        client_bits: 15,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
    };

    /// What is agreed to: the first offer that can be kept.
    pub fn agree(&self, offers: &[Extension]) -> Option<Deflate> {
        match offers.len() {
            ..=MOST => offers.iter().filter_map(Deflate::offered).find_map(|it| self.keep(&it)),
            _ => None,
        }
    }

    fn keep(&self, offer: &Deflate) -> Option<Deflate> {
        let server_max_window_bits = match offer.server_max_window_bits {
            Some(bits) if bits < self.least_server_bits => return None,
            Some(bits) => Some(bits.min(self.most_server_bits)),
            None => Some(self.most_server_bits).filter(|bits| *bits < 15),
        };
        if self.client_bits < 15 && offer.client_max_window_bits.is_none() {
            return None;
        }
        let most_of_client = offer.client_max_window_bits.flatten().unwrap_or(15);
        let client = most_of_client.min(self.client_bits);
        Some(Deflate {
            server_no_context_takeover: offer.server_no_context_takeover
                || self.server_no_context_takeover,
            client_no_context_takeover: offer.client_no_context_takeover
                || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits: (client < 15).then_some(Some(client)),
        })
    }
}

/// Whether a client that sent `offers` may be sent a response with these lines (RFC 6455 9.1, RFC 7692 7.1). The parameters of other
/// extensions are their own. Offers that are malformed offer nothing.
pub fn may_respond<'a>(
    offers: Option<&[Extension]>,
    lines: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    let Some(response) = parse(lines) else { return false };
    let offers = offers.unwrap_or_default();
    response.iter().enumerate().all(|(at, extension)| {
        let once = response[..at].iter().all(|earlier| earlier.name != extension.name);
        let mut of_the_name = offers.iter().filter(|offer| offer.name == extension.name);
        once && match &*extension.name {
            NAME => Deflate::responded(extension).is_some_and(|it| {
                of_the_name.filter_map(Deflate::offered).any(|offer| offer.allows(&it))
            }),
            _ => of_the_name.next().is_some(),
        }
    })
}

/// The header of an accepted request, and what comes of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Negotiation {
    pub sent: Vec<Vec<u8>>,
    /// What a guard that reads it agrees to.
    pub agreed: Option<Deflate>,
}

impl fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = self.sent.iter().map(|line| line.escape_ascii().to_string());
        let agreed = self.agreed.map(|agreed| agreed.text());
        write!(f, "{:?} agreed as {agreed:?}", sent.collect::<Vec<_>>())
    }
}

impl Negotiation {
    /// Holds the header that a handler sees against it.
    ///
    /// # Errors
    ///
    /// Why the handler should not see that.
    pub fn judge_shown<'a>(
        &self,
        reads: bool,
        shown: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), &'static str> {
        let shown = shown.collect::<Vec<_>>();
        let Some(agreed) = self.agreed.filter(|_| reads) else {
            let expected = if reads { &[][..] } else { &self.sent };
            return match shown.iter().eq(expected) {
                true => Ok(()),
                false if reads => Err("an offer that was not agreed to"),
                false => Err("another offer than that of the client"),
            };
        };
        let offers = parse(shown.iter().copied()).ok_or("a malformed offer")?;
        let ([_], [shown_offer]) = (&shown[..], &offers[..]) else {
            return Err("not one offer on one line");
        };
        if Compression::WHOLE.agree(&offers) != Some(agreed) {
            return Err("an offer that does not stand for the agreement");
        }
        // Whatever the handler makes of it, the client must be able to take.
        let sent =
            parse(self.sent.iter().map(|line| &**line)).expect("sound, or it is no agreement");
        let shown_offer = Deflate::offered(shown_offer).expect("sound, or it is no agreement");
        let sent = sent.iter().filter_map(Deflate::offered).collect::<Vec<_>>();
        let is_sound = Deflate::all_responses()
            .filter(|response| shown_offer.allows(response))
            .all(|response| sent.iter().any(|offer| offer.allows(&response)));
        if is_sound { Ok(()) } else { Err("an offer that allows more than the client's") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> Option<Vec<Extension>> {
        parse(lines.iter().map(|line| line.as_bytes()))
    }

    fn offer(text: &str) -> Option<Deflate> {
        match &list(&[text]).expect("well-formed")[..] {
            [extension] => Deflate::offered(extension),
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn grammar() {
        let of = |name: &str, parameters: &[(&str, Option<&str>)]| {
            let parameters = parameters.iter();
            Extension {
                name: name.to_owned(),
                parameters: parameters
                    .map(|(name, value)| (name.to_string(), value.map(str::to_owned)))
                    .collect(),
            }
        };
        let (foo, bar) = (of("foo", &[]), of("bar", &[("baz", Some("2"))]));
        for (lines, expected) in [
            // RFC 6455 9.1's own examples.
            (&["foo", "bar; baz=2"][..], vec![foo.clone(), bar.clone()]),
            (&["foo, bar; baz=2"], vec![foo.clone(), bar.clone()]),
            (&["deflate-stream"], vec![of("deflate-stream", &[])]),
            (&[], vec![]),
            (&[""], vec![]),
            (&["", " \t"], vec![]),
            (&["", "foo"], vec![foo.clone()]),
            (&[", foo ,,\t,bar;baz=2,"], vec![foo.clone(), bar.clone()]),
            (&[",", "foo"], vec![foo.clone()]),
            (&["\tbar ;\tbaz = 2 "], vec![bar.clone()]),
            (&["bar;baz=\"2\""], vec![bar.clone()]),
            (&["bar;baz=\t\"\\2\" , foo"], vec![bar.clone(), foo.clone()]),
            (&["bar;baz;baz=\"a\\b\""], vec![of("bar", &[("baz", None), ("baz", Some("ab"))])]),
            (&["foo,foo"], vec![foo.clone(), foo]),
        ] {
            assert_eq!(list(lines), Some(expected), "{lines:?}");
        }
        for lines in [
            &[","][..],
            &[" ,, "],
            &["", ","],
            &[";"],
            &["foo;"],
            &["foo;;a"],
            &[";foo"],
            &["foo, ;a"],
            &["foo bar"],
            &["foo; a b"],
            &["foo=1"],
            &["foo;=1"],
            &["foo;a="],
            &["foo;a=1=2"],
            &["foo;a=1 2"],
            &["foo;a=\"\""],
            &["foo;a=\" 1\""],
            &["foo;a=\"1,2\""],
            &["foo;a=\"1\"2"],
            &["foo;a=\"1\" \"2\""],
            &["foo;a=1\"2\""],
            &["foo;a=\"1"],
            &["foo;a=\"1\\\""],
            &["foo;a=\"1\\"],
            &["foo;a=\"1", "2\""],
            &["foo;a=", "1"],
            &["foo;", "a=1"],
            &["foo;a=\"1\\,\""],
            &["\"foo\""],
            &["foo;\"a\""],
            &["foo;a=caf\u{e9}"],
            &["foo/1"],
            &["foo", "bar;"],
        ] {
            assert_eq!(list(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn offers() {
        for declined in [
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate; x",
            "permessage-deflate; Server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"true\"",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=0x9",
        ] {
            assert_eq!(offer(declined), None, "{declined}");
        }
        let all = "permessage-deflate;server_max_window_bits=\"1\\0\";client_max_window_bits; \
            client_no_context_takeover;server_no_context_takeover";
        let text = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
            server_max_window_bits=10; client_max_window_bits";
        assert_eq!(offer(all).expect("an offer").text(), text);
    }

    /// RFC 7692 7.1, sentence by sentence.
    #[test]
    fn what_an_offer_allows() {
        for (offered, response, allowed) in [
            ("", "", true),
            // 7.1.1.1: the server may include it unasked, and must if it is asked for.
            ("", "; server_no_context_takeover", true),
            ("; server_no_context_takeover", "", false),
            ("; server_no_context_takeover", "; server_no_context_takeover", true),
            // 7.1.1.2: a hint, and the server's choice.
            ("", "; client_no_context_takeover", true),
            ("; client_no_context_takeover", "", true),
            // 7.1.2.1: the same or a smaller value; unasked any.
            ("; server_max_window_bits=10", "", false),
            ("; server_max_window_bits=10", "; server_max_window_bits=10", true),
            ("; server_max_window_bits=10", "; server_max_window_bits=8", true),
            ("; server_max_window_bits=10", "; server_max_window_bits=11", false),
            ("", "; server_max_window_bits=15", true),
            // 7.1.2.2: only if the offer has it; its value is a hint.
            ("", "; client_max_window_bits=15", false),
            ("; client_max_window_bits", "", true),
            ("; client_max_window_bits", "; client_max_window_bits=15", true),
            ("; client_max_window_bits=10", "; client_max_window_bits=9", true),
            ("; client_max_window_bits=10", "; client_max_window_bits=11", true),
            ("; client_max_window_bits=10", "", true),
            // 7.1: not in a response.
            ("; client_max_window_bits", "; client_max_window_bits", false),
            ("", "; server_max_window_bits", false),
            ("", "; server_max_window_bits=16", false),
            ("", "; x", false),
            ("", "; server_no_context_takeover=1", false),
            ("", "; server_no_context_takeover; server_no_context_takeover", false),
            // 7: an offer that is declined allows nothing.
            ("; x", "", false),
            ("; server_max_window_bits=16", "; server_max_window_bits=15", false),
            // Several offers: one of them.
            ("; server_max_window_bits=9, permessage-deflate", "", true),
            (
                "; server_max_window_bits=9, permessage-deflate; client_max_window_bits",
                "; server_max_window_bits=9; client_max_window_bits=9",
                true,
            ),
            (
                "; server_max_window_bits=9, permessage-deflate; server_no_context_takeover",
                "; server_max_window_bits=10",
                false,
            ),
        ] {
            let offers = list(&[&format!("x-a, {NAME}{offered}")]);
            let response = format!("{NAME}{response}");
            let may = |lines: &[&str]| {
                may_respond(offers.as_deref(), lines.iter().map(|line| line.as_bytes()))
            };
            assert_eq!(may(&[&response]), allowed, "{offered} {response}");
            assert_eq!(may(&["x-a;b=c", &response]), allowed, "{offered} {response}");
            assert!(!may(&[&response, &response]));
            assert!(!may(&[&response, "x-b"]));
            assert!(!may(&["x-a", "x-a"]));
            assert!(!may(&[&response, ";"]));
            assert!(!may(&[","]));
            assert!(may(&[]) && may(&[""]));
        }
        assert!(may_respond(None, []) && !may_respond(None, [NAME.as_bytes()]));
        assert_eq!(Deflate::all_responses().count(), 324);
    }

    #[test]
    fn agreements() {
        const DEFAULT: Compression = Compression { least_server_bits: 15, ..Compression::WHOLE };
        const LIMITED: Compression = Compression {
            least_server_bits: 9,
            most_server_bits: 12,
            client_bits: 11,
            client_no_context_takeover: true,
            ..Compression::WHOLE
        };
        let browser = "permessage-deflate; client_max_window_bits";
        let small = "permessage-deflate; server_max_window_bits=9";
        for (policy, offers, agreed) in [
            (DEFAULT, browser, Some("permessage-deflate")),
            (DEFAULT, small, None),
            (
                DEFAULT,
                "permessage-deflate; server_max_window_bits=9, x, permessage-deflate",
                Some("permessage-deflate"),
            ),
            (
                DEFAULT,
                "permessage-deflate; client_max_window_bits=10; server_max_window_bits=15",
                Some("permessage-deflate; server_max_window_bits=15; client_max_window_bits=10"),
            ),
            (DEFAULT, "permessage-deflate; client_max_window_bits=15", Some("permessage-deflate")),
            (Compression::WHOLE, small, Some(small)),
            (
                LIMITED,
                browser,
                Some(
                    "permessage-deflate; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=11",
                ),
            ),
            (LIMITED, small, None),
            (
                LIMITED,
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=8; server_no_context_takeover",
                Some(
                    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=8",
                ),
            ),
            (LIMITED, "permessage-deflate; server_max_window_bits=8; client_max_window_bits", None),
        ] {
            let offers = list(&[offers]).expect("well-formed");
            let text = policy.agree(&offers).map(|agreed| agreed.text());
            assert_eq!(text.as_deref(), agreed, "{offers:?}");
        }
        for (others, agreed) in [(31, true), (32, false)] {
            let offers = list(&[&"x,".repeat(others), NAME]).expect("well-formed");
            assert_eq!(DEFAULT.agree(&offers).is_some(), agreed);
        }
    }

    /// What is agreed to, the client must take.
    #[test]
    fn an_agreement_is_allowed() {
        let windows = (8..=15).flat_map(|least| (least..=15).map(move |most| (least, most)));
        let policies = windows.flat_map(|(least_server_bits, most_server_bits)| {
            (8..=15).map(move |client_bits| Compression {
                least_server_bits,
                most_server_bits,
                client_bits,
                ..Compression::WHOLE
            })
        });
        let policies = policies.collect::<Vec<_>>();
        for offer in Deflate::all_responses() {
            for offer in [offer, Deflate { client_max_window_bits: Some(None), ..offer }] {
                for agreed in policies.iter().filter_map(|policy| policy.keep(&offer)) {
                    assert!(offer.allows(&agreed), "{offer:?} {agreed:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_handler_is_shown() {
        let judged = |sent: &str, shown: &[&str]| {
            let policy = Compression { least_server_bits: 9, ..Compression::WHOLE };
            let agreed = policy.agree(&list(&[sent]).expect("well-formed"));
            let negotiation = Negotiation { sent: vec![sent.into()], agreed };
            negotiation.judge_shown(true, shown.iter().map(|line| line.as_bytes()))
        };
        let browser = "x, permessage-deflate; client_max_window_bits";
        assert_eq!(judged(browser, &[NAME]), Ok(()));
        assert_eq!(judged(browser, &["permessage-deflate; client_max_window_bits"]), Ok(()));
        for shown in [
            &[][..],
            &[NAME, ""],
            &[browser],
            &["permessage-deflate; client_max_window_bits=9"],
            &["permessage-deflate;"],
        ] {
            assert!(judged(browser, shown).is_err(), "{shown:?}");
        }
        let more = &["permessage-deflate; client_max_window_bits"];
        assert_eq!(judged(NAME, more), Err("an offer that allows more than the client's"));
        assert_eq!(judged("x", &[]), Ok(()));
        assert!(judged("x", &[NAME]).is_err() && judged("x", &["x"]).is_err());
    }
}
