use std::{error::Error, fmt};

use http::request::Parts;

use super::{Rejection, RejectionKind as Kind};

/// In the extensions of an extractor's response: what the handler asked for, and no layer provides.
/// The nearest layer makes the response in the configured format.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) asked: Asked,
    pub(crate) request: Parts,
}

/// What a handler asked for.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    /// An origin check, for the extractor of this name.
    OriginCheck(&'static str),
    /// Claims of this type.
    Claims(&'static str),
    PendingUpgrade,
    #[cfg(feature = "axum-ws")]
    Permit,
    #[cfg(feature = "axum-ws")]
    GuardedUpgrade,
}

/// A mistake in the handler: what it takes, and what there is. The source of a rejection.
#[derive(Debug)]
pub(super) struct Misuse {
    problem: String,
    /// Replaces the fix of the kind.
    pub(super) fix: &'static str,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl Error for Misuse {}

impl Asked {
    /// Names what was asked for, what there is, and the fix. `claims` is the type that the token
    /// check of the layer provides.
    pub(crate) fn rejection(self, claims: Option<&'static str>) -> Rejection {
        let (kind, problem, fix) = match self {
            Self::OriginCheck(extractor) => (
                Kind::GuardMissing,
                format!(
                    "the handler takes `{extractor}`, and no origin check has seen the request"
                ),
                Kind::GuardMissing.fix(),
            ),
            Self::Claims(asked) => {
                let (there, fix) = match claims {
                    None => (
                        "no token check has seen the request".to_owned(),
                        "add `GuardLayer::token` or `TokenCheckLayer` to the route",
                    ),
                    Some(there) if there == asked => (
                        "report-only mode accepted a handshake without a valid token".to_owned(),
                        "take `Option<Claims<_>>` in report-only mode",
                    ),
                    Some(there) => (
                        format!("the token check provides `Claims<{there}>`"),
                        "take the type that the verifier returns, or convert it with \
                         `VerifyToken::map_claims`",
                    ),
                };
                let problem = format!("the handler takes `Claims<{asked}>`, and {there}");
                (Kind::GuardMissing, problem, fix)
            }
            Self::PendingUpgrade => (
                Kind::NotUpgradable,
                "the handler takes `PendingUpgrade`, and no layer on the route completes handshakes"
                    .to_owned(),
                "add `GuardLayer::respond` or `ResponderLayer` to the route",
            ),
            #[cfg(feature = "axum-ws")]
            Self::Permit => (
                Kind::GuardMissing,
                "the handler takes `Permit`, and the extractor is not inside of a `GuardedUpgrade`"
                    .to_owned(),
                "take `GuardedUpgrade<Permit>`; behind a layer that completes handshakes \
                 `Upgraded::permit` has it",
            ),
            #[cfg(feature = "axum-ws")]
            Self::GuardedUpgrade => (
                Kind::NotUpgradable,
                "the handler takes `GuardedUpgrade` behind a layer that completes handshakes"
                    .to_owned(),
                "take `PendingUpgrade`, or remove `GuardLayer::respond` or `ResponderLayer`",
            ),
        };
        Rejection::new(kind).with_source(Misuse { problem, fix })
    }
}
