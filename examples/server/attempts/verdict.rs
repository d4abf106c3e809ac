//! Whether what happened is what ought to happen.

use serde_json::{Value, json};
use tower_ws_guard::RejectionKind;

/// What ought to happen to a handshake.
#[derive(Clone, Copy)]
pub(super) enum Ought {
    Accept,
    /// It is an attack, or a fault: the reason of its rejection, and what stops it.
    Reject(RejectionKind, &'static str),
    /// It is rejected for this reason without this flag.
    Choice(RejectionKind, &'static str),
    /// It is of the user.
    Unknown,
}

/// What happened.
pub(super) struct Outcome {
    pub(super) accepted: bool,
    pub(super) report_only: bool,
    /// Why the guard rejected it.
    pub(super) kind: Option<RejectionKind>,
    /// What the policy says, also in report-only mode.
    pub(super) would_reject: Option<RejectionKind>,
}

impl Ought {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject(..) => "reject",
            Self::Choice(..) => "choice",
            Self::Unknown => "unknown",
        }
    }

    /// `tone` is good, bad, warn or neutral, and `fix` is what the server must change.
    pub(super) fn judge(self, outcome: &Outcome) -> Value {
        let reported = outcome.would_reject.filter(|_| outcome.accepted && outcome.report_only);
        let verdict = |tone: &str, title: &str, text: String, fix: Option<&str>| json!({ "tone": tone, "title": title, "text": text, "fix": fix });
        if let Some(kind) = reported {
            let (tone, title) = match self {
                Self::Choice(..) | Self::Unknown => ("warn", "Let in by report-only mode"),
                Self::Accept => ("warn", "A client of yours would be locked out"),
                Self::Reject(..) => ("bad", "The attack got through"),
            };
            let text = format!(
                "the log says that the policy would reject it with `{}`, but `--report-only` enforces no policy",
                kind.code()
            );
            return verdict(tone, title, text, Some("leave out `--report-only`"));
        }
        match (self, outcome.accepted) {
            (Self::Accept, true) => verdict("good", "Accepted", "as it should be".into(), None),
            (Self::Accept, false) => {
                let text = "this client should get in".into();
                let fix = outcome.kind.map(|kind| kind.fix());
                verdict("bad", "A valid client is locked out", text, fix)
            }
            (Self::Reject(_, fix), true) => {
                let text = "the server should have rejected this handshake".into();
                verdict("bad", "The attack got through", text, Some(fix))
            }
            (Self::Reject(reason, _) | Self::Choice(reason, _), false)
                if outcome.kind == Some(reason) =>
            {
                verdict("good", "Stopped", "no connection was opened".into(), None)
            }
            (Self::Reject(wanted, _) | Self::Choice(wanted, _), false) => {
                let reason = outcome.kind.map_or("unknown", RejectionKind::code);
                let text = format!("the reason is `{reason}`, and not `{}`", wanted.code());
                let fix = outcome.kind.map(RejectionKind::fix);
                verdict("warn", "Rejected for another reason", text, fix)
            }
            (Self::Choice(_, flag), true) => {
                verdict("warn", "Allowed by a flag", format!("`{flag}` lets it in"), None)
            }
            (Self::Unknown, true) => verdict(
                "neutral",
                "Accepted",
                "the steps below name the rule that lets it in".into(),
                None,
            ),
            (Self::Unknown, false) => {
                verdict("neutral", "Rejected", "no connection was opened".into(), None)
            }
        }
    }
}
