//! The cases, read from `cases/*.toml`. `cases/README.md` describes their form.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::check::Check;

/// How strongly the RFC asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(clippy::exhaustive_enums, reason = "the words of RFC 2119 do not change")]
pub enum Level {
    /// A requirement.
    Must,
    /// A recommendation.
    Should,
    /// A choice of the server. Such a case never fails.
    May,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

/// A handshake, and the responses that conform to the RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Case {
    /// Its name, such as `connection.list`.
    pub id: String,
    /// Where the sentence is, such as `RFC 6455 4.2.1 (4)`.
    pub rfc: String,
    /// The sentence in a few words.
    pub says: String,
    /// How strongly it is said.
    pub level: Level,
    /// What else there is to know, above all why something is lenient.
    #[serde(default)]
    pub note: String,

    #[serde(default)]
    pub(crate) http2: bool,
    #[serde(default)]
    pub(crate) needs: Vec<Need>,
    /// The request line, in place of that of the plain handshake.
    #[serde(default)]
    pub(crate) start: Option<String>,
    /// Header fields in place of those of the plain handshake, or in addition to them.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Values>,
    #[serde(default)]
    pub(crate) filler: Option<Filler>,
    /// Bytes behind the head.
    #[serde(default)]
    pub(crate) after: String,
    /// Lines end with LF, without CR.
    #[serde(default, rename = "bare-lf")]
    pub(crate) bare_lf: bool,
    #[serde(default)]
    pub(crate) pace: Pace,
    #[serde(default)]
    pub(crate) expect: Expect,
    #[serde(default)]
    pass: Vec<Outcome>,
    #[serde(default)]
    lenient: Vec<Outcome>,
    #[serde(default)]
    pub(crate) checks: Vec<Check>,
}

/// What the server, or who runs the suite, must bring along for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Need {
    Deflate,
    /// Extended CONNECT is advertised.
    ExtendedConnect,
    HostileOrigin,
    /// Extended CONNECT is advertised, and accepted.
    Http2,
    RequireOrigin,
    Subprotocol,
    Token,
}

/// One value, or one for each line. None: no such line.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Values {
    One(String),
    Lines(Vec<String>),
}

impl Values {
    pub(crate) fn lines(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Lines(values) => values,
        }
    }
}

/// Header fields that only fill.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Filler {
    pub(crate) lines: usize,
    pub(crate) length: usize,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pace {
    #[default]
    Whole,
    /// Each byte in a packet of its own.
    Bytes,
    /// Each line in a packet of its own, and each LF.
    Pieces,
    /// The last byte after a pause.
    Last,
}

/// What came back, or a class of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 101; over HTTP/2, 2xx.
    Accepted,
    Status(u16),
    /// The first digit of a status.
    Class(u16),
    /// The connection or the stream was closed without a response.
    Closed,
    /// Nothing came in time.
    Silent,
    /// Bytes that are no HTTP.
    Garbage,
}

impl Outcome {
    /// Returns whether it is, or belongs to, `expected`.
    fn is(self, expected: Self) -> bool {
        match (self, expected) {
            (Self::Status(status), Self::Class(class)) => status / 100 == class,
            _ => self == expected,
        }
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match &*word {
            "accepted" => Ok(Self::Accepted),
            "closed" => Ok(Self::Closed),
            "silent" => Ok(Self::Silent),
            _ => match word.strip_suffix("xx") {
                Some(class) => class.parse().map(Self::Class),
                None => word.parse().map(Self::Status),
            }
            .map_err(|_| D::Error::custom(format!("`{word}` is not an outcome"))),
        }
    }
}

/// Outcomes that often go together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expect {
    /// None but those that the case names itself.
    #[default]
    Nothing,
    Accepted,
    Rejected,
    RejectedWithResponse,
    /// The request is not a handshake, so an ordinary response conforms as well.
    Ignored,
    /// 400 is asked for by name.
    BadRequest,
    /// A 4xx is asked for where it is too much.
    Limited,
    /// An offer may be declined, but the handshake goes on.
    Negotiated,
    /// Over HTTP/2: a stream error, or a status.
    Malformed,
    Any,
}

impl Expect {
    fn pass(self) -> &'static [Outcome] {
        use Outcome::{Accepted, Class, Closed, Status};
        match self {
            Self::Nothing => &[],
            Self::Accepted | Self::Negotiated => &[Accepted],
            Self::Rejected | Self::RejectedWithResponse => &[Class(4), Class(5)],
            Self::Ignored => &[Class(2), Class(3), Class(4), Class(5)],
            Self::BadRequest => &[Status(400)],
            Self::Limited => &[Accepted, Class(4)],
            Self::Malformed => &[Class(4), Class(5), Closed],
            Self::Any => &[Accepted, Class(2), Class(3), Class(4), Class(5)],
        }
    }

    fn lenient(self) -> &'static [Outcome] {
        use Outcome::{Class, Closed, Silent};
        match self {
            Self::Nothing | Self::Accepted => &[],
            Self::Rejected => &[Class(2), Class(3), Closed, Silent],
            Self::RejectedWithResponse => &[Class(2), Class(3)],
            Self::Ignored | Self::Limited | Self::Any => &[Closed, Silent],
            Self::BadRequest => &[Class(4), Class(5), Closed, Silent],
            Self::Negotiated => &[Class(4), Class(5), Closed],
            Self::Malformed => &[Silent],
        }
    }
}

/// How an outcome or a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgment {
    Pass,
    Lenient,
    Fail,
}

impl Case {
    /// Judges an outcome, without the checks.
    pub(crate) fn judge(&self, outcome: Outcome) -> Judgment {
        let any = |expected: &[Outcome]| expected.iter().any(|&expected| outcome.is(expected));
        if any(&self.pass) || any(self.expect.pass()) {
            Judgment::Pass
        } else if any(&self.lenient) || any(self.expect.lenient()) {
            Judgment::Lenient
        } else {
            self.failure()
        }
    }

    /// What it is called if it does not conform.
    pub(crate) fn failure(&self) -> Judgment {
        match self.level {
            Level::Must | Level::Should => Judgment::Fail,
            Level::May => Judgment::Lenient,
        }
    }
}

/// Returns all cases, in the order in which they are run.
#[must_use]
pub fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        case: Vec<Case>,
    }
    let files = [
        include_str!("../cases/response.toml"),
        include_str!("../cases/request.toml"),
        include_str!("../cases/headers.toml"),
        include_str!("../cases/subprotocol.toml"),
        include_str!("../cases/extensions.toml"),
        include_str!("../cases/bytes.toml"),
        include_str!("../cases/policy.toml"),
        include_str!("../cases/http2.toml"),
    ];
    let parse = |text| toml::from_str::<File>(text).expect("the cases are read by the tests").case;
    files.into_iter().flat_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_its_own_id_and_names_a_section() {
        let cases = cases();
        let ids: HashSet<_> = cases.iter().map(|case| &case.id).collect();
        assert_eq!(ids.len(), cases.len());
        for case in &cases {
            assert!(case.rfc.starts_with("RFC "), "{}", case.id);
            assert!(!case.says.is_empty(), "{}", case.id);
            assert!(
                !case.pass.is_empty() || case.expect != Expect::Nothing,
                "{} has no conforming response",
                case.id
            );
        }
    }

    #[test]
    fn a_status_belongs_to_its_class() {
        assert!(Outcome::Status(404).is(Outcome::Class(4)));
        assert!(!Outcome::Status(504).is(Outcome::Class(4)));
        assert!(!Outcome::Closed.is(Outcome::Class(4)));
    }
}
