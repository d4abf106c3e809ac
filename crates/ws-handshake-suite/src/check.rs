//! What is looked at in a response beyond its status.

use serde::Deserialize;

use crate::{
    connection::{Connection, Progress},
    frame::{self, Found},
    http1::{self, Response},
    http2::Http2,
    request::{self, Request},
};

/// The names under which cases ask for checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    /// `Sec-WebSocket-Accept` has the right value.
    Accept,
    AcceptOnce,
    #[serde(rename = "allow-on-405")]
    AllowOn405,
    #[serde(rename = "challenge-on-401")]
    ChallengeOn401,
    Connection,
    /// permessage-deflate was accepted as an offer allows, or not at all.
    Deflate,
    DeflateAccepted,
    ExtensionsOnce,
    NoAccept,
    NoConnectionHeaders,
    NoContentLength,
    NoExtensions,
    #[serde(rename = "no-http-after-101")]
    NoHttpAfter101,
    NoPong,
    NoSubprotocol,
    NoTransferEncoding,
    NoVersion,
    NothingAfterClose,
    OneResponse,
    /// A Ping is sent, and a Pong must come.
    Ping,
    /// A Ping was sent with the handshake, and a Pong must come.
    Pong,
    Setting,
    SubprotocolOffered,
    SubprotocolSelected,
    Upgrade,
    #[serde(rename = "upgrade-on-426")]
    UpgradeOn426,
    Versions,
    WellFormed,
}

/// The connection behind the head of a response.
pub(crate) enum Channel {
    Http1(Connection),
    Http2(Box<Http2>),
}

impl Channel {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1(connection) => connection.send(bytes, crate::case::Pace::Whole),
            Self::Http2(http2) => http2.send(bytes),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Http1(connection) => &connection.buffer,
            Self::Http2(http2) => &http2.data,
        }
    }

    fn fill(&mut self) -> Progress {
        match self {
            Self::Http1(connection) => connection.fill(),
            Self::Http2(http2) => http2.fill(),
        }
    }

    fn find_pong(&mut self) -> Found {
        loop {
            match frame::find_pong(self.bytes()) {
                Found::More if self.fill() == Progress::Bytes => {}
                found => return found,
            }
        }
    }
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Good,
    Bad(String),
    NotApplicable(&'static str),
}

impl Finding {
    fn good_if(good: bool, otherwise: impl FnOnce() -> String) -> Self {
        if good { Self::Good } else { Self::Bad(otherwise()) }
    }

    fn absent(response: &Response, name: &str) -> Self {
        Self::good_if(!response.has(name), || format!("the response has a {name}"))
    }
}

/// A response with what it responds to.
pub(crate) struct Exchange<'a> {
    pub(crate) request: &'a Request,
    pub(crate) response: Option<&'a Response>,
    pub(crate) accepted: bool,
    pub(crate) channel: &'a mut Channel,
}

impl Check {
    /// Whether it is about a response that accepts, or about any other one. `None`: both.
    fn accepted(self) -> Option<bool> {
        match self {
            Self::Accept
            | Self::AcceptOnce
            | Self::Connection
            | Self::Deflate
            | Self::DeflateAccepted
            | Self::ExtensionsOnce
            | Self::NoConnectionHeaders
            | Self::NoContentLength
            | Self::NoExtensions
            | Self::NoHttpAfter101
            | Self::NoPong
            | Self::NoSubprotocol
            | Self::NoTransferEncoding
            | Self::NoVersion
            | Self::Ping
            | Self::Pong
            | Self::SubprotocolOffered
            | Self::SubprotocolSelected
            | Self::Upgrade => Some(true),
            Self::AllowOn405
            | Self::ChallengeOn401
            | Self::NothingAfterClose
            | Self::OneResponse
            | Self::UpgradeOn426
            | Self::Versions => Some(false),
            Self::NoAccept | Self::Setting | Self::WellFormed => None,
        }
    }

    /// Looks at a response. A rejection is fine where the check is about what is accepted.
    pub(crate) fn look(self, exchange: &mut Exchange<'_>) -> Finding {
        if let (Self::Setting, Channel::Http2(http2)) = (self, &exchange.channel) {
            return match http2.connect_protocol {
                None | Some(0 | 1) => Finding::Good,
                Some(value) => Finding::Bad(format!("its value is {value}")),
            };
        }
        let Some(response) = exchange.response else {
            return Finding::NotApplicable("there is no response");
        };
        match self.accepted() {
            Some(false) if exchange.accepted => {
                return Finding::NotApplicable("the handshake was accepted");
            }
            Some(true) if !exchange.accepted => return Finding::Good,
            _ => {}
        }
        let request = exchange.request;
        match self {
            Self::Accept => {
                let key = request.value("Sec-WebSocket-Key");
                let wanted = request::accept(key.trim_matches([' ', '\t']));
                let accepts = response.all("Sec-WebSocket-Accept");
                Finding::good_if(accepts.first() == Some(&&*wanted), || match accepts.first() {
                    Some(value) => {
                        format!("Sec-WebSocket-Accept is `{value}`, and should be `{wanted}`")
                    }
                    None => "the response has no Sec-WebSocket-Accept".into(),
                })
            }
            Self::AcceptOnce => {
                let count = response.all("Sec-WebSocket-Accept").len();
                Finding::good_if(count <= 1, || format!("{count} lines of Sec-WebSocket-Accept"))
            }
            Self::AllowOn405 => match response.status {
                405 => Finding::good_if(response.has("Allow"), || "the 405 has no Allow".into()),
                _ => Finding::NotApplicable("the response is not a 405"),
            },
            Self::ChallengeOn401 => match response.status {
                401 => Finding::good_if(response.has("WWW-Authenticate"), || {
                    "the 401 has no WWW-Authenticate".into()
                }),
                _ => Finding::NotApplicable("the response is not a 401"),
            },
            Self::Connection => {
                let tokens = response.elements("Connection");
                Finding::good_if(tokens.iter().any(|token| token == "upgrade"), || {
                    format!("Connection is `{}`", tokens.join(", "))
                })
            }
            Self::Deflate => deflate(request, response, false),
            Self::DeflateAccepted => deflate(request, response, true),
            Self::ExtensionsOnce => {
                let count = response.all("Sec-WebSocket-Extensions").len();
                Finding::good_if(count <= 1, || {
                    format!("{count} lines of Sec-WebSocket-Extensions")
                })
            }
            Self::NoAccept if response.status == 101 => {
                Finding::NotApplicable("the handshake was accepted")
            }
            Self::NoAccept => Finding::absent(response, "Sec-WebSocket-Accept"),
            Self::NoConnectionHeaders => match Finding::absent(response, "Connection") {
                Finding::Good => Finding::absent(response, "Upgrade"),
                bad => bad,
            },
            Self::NoContentLength => Finding::absent(response, "Content-Length"),
            Self::NoExtensions => Finding::absent(response, "Sec-WebSocket-Extensions"),
            Self::NoHttpAfter101 | Self::OneResponse | Self::NothingAfterClose => {
                let Channel::Http1(connection) = exchange.channel else {
                    return Finding::NotApplicable("HTTP/2 has streams");
                };
                let closes = response.elements("Connection").iter().any(|token| token == "close");
                if self == Self::NothingAfterClose && !closes {
                    return Finding::NotApplicable("the response has no Connection: close");
                }
                connection.wait_again();
                Finding::good_if(!http1::second_follows(connection, response, false), || {
                    "a second response follows".into()
                })
            }
            Self::NoPong => Finding::good_if(exchange.channel.find_pong() != Found::Pong, || {
                "the body was answered as a Ping".into()
            }),
            Self::NoSubprotocol => Finding::absent(response, "Sec-WebSocket-Protocol"),
            Self::NoTransferEncoding => Finding::absent(response, "Transfer-Encoding"),
            Self::NoVersion => Finding::absent(response, "Sec-WebSocket-Version"),
            Self::Ping | Self::Pong => {
                if self == Self::Ping {
                    exchange.channel.send(&frame::client(frame::PING, frame::PAYLOAD));
                }
                match exchange.channel.find_pong() {
                    Found::Pong => Finding::Good,
                    Found::More => Finding::Bad("no Pong came".into()),
                    Found::Close => Finding::Bad("a Close came in place of a Pong".into()),
                    Found::Invalid => Finding::Bad(format!(
                        "what follows is no WebSocket frame: {}",
                        request::display(exchange.channel.bytes())
                    )),
                }
            }
            Self::SubprotocolOffered => subprotocol(request, response, false),
            Self::SubprotocolSelected => subprotocol(request, response, true),
            Self::Upgrade => {
                let values = response.all("Upgrade");
                let good = matches!(&*values, [value] if value.eq_ignore_ascii_case("websocket"));
                Finding::good_if(good, || format!("Upgrade is `{}`", values.join("`, `")))
            }
            Self::UpgradeOn426 if response.status != 426 => {
                Finding::NotApplicable("the response is not a 426")
            }
            Self::UpgradeOn426 => {
                let named = response.elements("Connection").iter().any(|token| token == "upgrade");
                match (response.has("Upgrade"), named) {
                    (false, _) => Finding::Bad("the 426 has no Upgrade".into()),
                    (true, false) => Finding::Bad("Connection does not name Upgrade".into()),
                    (true, true) => Finding::Good,
                }
            }
            Self::Versions => {
                let versions = response.elements("Sec-WebSocket-Version");
                Finding::good_if(
                    versions.iter().any(|version| version == "13"),
                    || match &*versions.join(", ") {
                        "" => "the response has no Sec-WebSocket-Version".into(),
                        versions => format!("Sec-WebSocket-Version is `{versions}`"),
                    },
                )
            }
            Self::WellFormed => match &response.malformed {
                None => Finding::Good,
                Some(error) => Finding::Bad(format!("the head of the response: {error}")),
            },
            Self::Setting => Finding::NotApplicable("HTTP/1.1 has no settings"),
        }
    }
}

fn subprotocol(request: &Request, response: &Response, wanted: bool) -> Finding {
    let offered = request.value("Sec-WebSocket-Protocol");
    let offered = offered.split(',').map(|name| name.trim_matches([' ', '\t']));
    // The empty string is no subprotocol, although lists may have empty elements.
    let mut offered = offered.filter(|name| !name.is_empty());
    match &*response.all("Sec-WebSocket-Protocol") {
        [] if wanted => Finding::Bad("none was selected".into()),
        [] => Finding::Good,
        [selected] => Finding::good_if(offered.any(|name| name == *selected), || {
            format!("`{selected}` was not offered")
        }),
        lines => Finding::Bad(format!("{} lines of Sec-WebSocket-Protocol", lines.len())),
    }
}

/// RFC 7692 7.1: one offer must allow what the response says.
fn deflate(request: &Request, response: &Response, wanted: bool) -> Finding {
    let lines = response.all("Sec-WebSocket-Extensions").join(", ");
    let accepted = extensions(&lines);
    let [accepted] = &*accepted else {
        return match accepted.len() {
            0 if wanted => Finding::Bad("no extension was accepted".into()),
            0 => Finding::Good,
            count => Finding::Bad(format!("{count} extensions were accepted")),
        };
    };
    if accepted.0 != "permessage-deflate" {
        return Finding::Bad(format!("`{}` was not offered", accepted.0));
    }
    let offers = request.value("Sec-WebSocket-Extensions");
    let faults = extensions(&offers)
        .into_iter()
        .filter(|offer| offer.0 == accepted.0)
        .map(|offer| fault(&accepted.1, &offer.1));
    match faults.collect::<Option<Vec<_>>>() {
        // One of the offers allows it.
        None => Finding::Good,
        Some(faults) => Finding::Bad(
            faults
                .into_iter()
                .next()
                .unwrap_or_else(|| format!("`{}` was not offered", accepted.0)),
        ),
    }
}

type Parameters<'a> = Vec<(&'a str, Option<&'a str>)>;

/// Reads extensions without quoted commas and semicolons: no parameter of permessage-deflate has them.
fn extensions(list: &str) -> Vec<(&str, Parameters<'_>)> {
    let elements = list.split(',').map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters = parts.map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        });
        (name, parameters.collect())
    });
    elements.filter(|(name, _)| !name.is_empty()).collect()
}

/// Returns what in the accepted parameters this offer does not allow.
fn fault(accepted: &Parameters<'_>, offer: &Parameters<'_>) -> Option<String> {
    let offered = |name: &str| offer.iter().find(|(other, _)| *other == name);
    for (index, (name, value)) in accepted.iter().enumerate() {
        if accepted[..index].iter().any(|(other, _)| other == name) {
            return Some(format!("`{name}` twice"));
        }
        let fine = match *name {
            "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
            "server_max_window_bits" => {
                let max = offered(name).and_then(|(_, value)| bits(*value)).unwrap_or(15);
                bits(*value).is_some_and(|bits| bits <= max)
            }
            "client_max_window_bits" => offered(name).is_some() && bits(*value).is_some(),
            _ => false,
        };
        if !fine {
            let value = value.map(|value| format!("={value}")).unwrap_or_default();
            return Some(format!("the offer does not allow `{name}{value}`"));
        }
    }
    ["server_no_context_takeover", "server_max_window_bits"]
        .into_iter()
        .find(|name| offered(name).is_some() && !accepted.iter().any(|(other, _)| other == name))
        .map(|name| format!("the offer has `{name}`, and the response has not"))
}

/// Reads 8 to 15.
fn bits(value: Option<&str>) -> Option<u8> {
    let value = value?;
    let bits = value.parse().ok().filter(|bits: &u8| (8..=15).contains(bits))?;
    (bits.to_string() == value).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_permessage_deflate() {
        let fault = |accepted, offer| {
            let parameters = |list| extensions(list).remove(0).1;
            fault(&parameters(accepted), &parameters(offer))
        };
        for (accepted, offer) in [
            ("d", "d"),
            ("d; server_no_context_takeover; client_no_context_takeover", "d"),
            ("d; client_max_window_bits=9", "d; client_max_window_bits"),
            ("d; server_max_window_bits=\"9\"", "d; server_max_window_bits=10"),
        ] {
            assert_eq!(fault(accepted, offer), None, "{accepted} for {offer}");
        }
        for (accepted, offer) in [
            ("d; client_max_window_bits=9", "d"),
            ("d; client_max_window_bits", "d; client_max_window_bits"),
            ("d; server_max_window_bits=11", "d; server_max_window_bits=10"),
            ("d; server_max_window_bits=09", "d"),
            ("d; server_no_context_takeover=1", "d"),
            ("d; server_no_context_takeover; server_no_context_takeover", "d"),
            ("d; other", "d; other"),
            ("d", "d; server_no_context_takeover"),
            ("d", "d; server_max_window_bits=10"),
        ] {
            assert!(fault(accepted, offer).is_some(), "{accepted} for {offer}");
        }
    }
}
