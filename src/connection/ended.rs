use std::fmt;

/// Why a connection must end.
///
/// The crate closes no socket, because frames belong to your codec. Race
/// [`Permit::ended`](crate::Permit::ended) or [`Upgraded::ended`](crate::Upgraded::ended) against
/// the frames, and then send a close frame with [`close_code`](Self::close_code) and
/// [`reason`](Self::reason).
///
/// | reason | cause | close code | the client should |
/// |---|---|---|---|
/// | `drained` | a [`Drain`](crate::Drain), or [`GuardLayer::max_age`](crate::GuardLayer::max_age) | 1001 | connect again, after a random delay |
/// | `expired` | the token expired | 4401 | get a new token, and connect again |
/// | `revoked` | the token was revoked, or [`Sessions::end`](crate::Sessions::end) was called | 4401 | log in again |
/// | `evicted` | a newer connection of the same key took the slot | 4409 | not connect again by itself |
///
/// 1001 is that of RFC 6455 7.4.1. The others are from its range for private use (7.4.2), by the
/// HTTP statuses 401 and 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// The server drains, or the connection has reached its maximum age.
    Drained,
    /// The claims have expired.
    Expired,
    /// The claims are revoked, or the sessions of the key were ended.
    Revoked,
    /// A newer connection of the same key took the slot.
    Evicted,
}

impl Ended {
    /// The code for a close frame: 1001, 4401 or 4409.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Drained => 1001,
            Self::Expired | Self::Revoked => 4401,
            Self::Evicted => 4409,
        }
    }

    /// The reason for a close frame: `drained`, `expired`, `revoked` or `evicted`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Evicted => "evicted",
        }
    }
}

#[cfg(feature = "redis")]
impl Ended {
    pub(super) fn from_reason(reason: &str) -> Option<Self> {
        let all = [Self::Drained, Self::Expired, Self::Revoked, Self::Evicted];
        all.into_iter().find(|ended| ended.reason() == reason)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}
