//! The report: the result and the fix, for people and as JSON.

use anstyle::{AnsiColor, Style};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tower_ws_guard::{RejectionKind, client::FindingKind};

use crate::{
    connect::Unreachable,
    exchange::{Received, encode},
};

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
    Faulty,
    Unreachable,
}

impl Outcome {
    pub(crate) const fn exit_code(self) -> i32 {
        match self {
            Self::Accepted => 0,
            Self::Rejected | Self::Faulty => 1,
            Self::Unreachable => 2,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Finding {
    pub(crate) code: String,
    explanation: String,
    fix: String,
}

impl Finding {
    fn new(code: &str, explanation: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code: code.to_owned(), explanation: explanation.into(), fix: fix.into() }
    }

    pub(crate) fn origin_is_cause(
        sent: Option<&str>,
        other: Option<&str>,
        status: StatusCode,
    ) -> Self {
        let with = |origin: Option<&str>| match origin {
            Some(origin) => format!("with `Origin: {origin}`"),
            None => "without `Origin`".to_owned(),
        };
        let status = status.as_u16();
        Self::new(
            "origin-rejected",
            format!(
                "the origin is the cause: {} the status is 403, {} it is {status}",
                with(sent),
                with(other)
            ),
            "add the origin of the page to the allowed origins of the server; CORS settings have \
             no effect on WebSockets",
        )
    }

    pub(crate) fn origin_is_not_cause(own: &str) -> Self {
        Self::new(
            "origin-not-the-cause",
            format!("the status is also 403 without `Origin`, and with the server's own, `{own}`"),
            "check the credential, its rights and the path first; if the server has another public \
             name, try that name with --origin",
        )
    }
}

impl From<Unreachable> for Finding {
    fn from(unreachable: Unreachable) -> Self {
        let (code, explanation, fix) = unreachable.kind.entry();
        Self::new(code, format!("{explanation}; {}", unreachable.detail), fix)
    }
}

impl From<&tower_ws_guard::client::Finding> for Finding {
    fn from(finding: &tower_ws_guard::client::Finding) -> Self {
        Self::new(finding.kind().code(), finding.explanation(), finding.kind().fix())
    }
}

/// The meaning of an HTTP response.
pub(crate) fn diagnose(received: &Received) -> (Outcome, Vec<Finding>) {
    let findings = match (&received.verdict, &received.close) {
        (Ok(_), None) => return (Outcome::Accepted, Vec::new()),
        (Ok(_), Some((code, reason))) => return (Outcome::Rejected, closed(*code, reason)),
        (Err(findings), _) => findings,
    };
    let is_rejection =
        |finding: &tower_ws_guard::client::Finding| FindingKind::is_rejection(finding.kind());
    let findings = findings.as_slice();
    let outcome =
        if findings.iter().all(is_rejection) { Outcome::Rejected } else { Outcome::Faulty };
    // The reason from the server itself comes first, because it is nearer to the cause.
    let findings = problem(&received.problem).into_iter().chain(findings.iter().map(Finding::from));
    (outcome, findings.collect())
}

/// The rejection of a server that accepts the handshake and then closes the socket with the reason.
fn closed(code: u16, reason: &str) -> Vec<Finding> {
    let known = RejectionKind::ALL.iter().find(|kind| kind.code() == reason);
    let known = known.map(|kind| {
        Finding::new(reason, format!("the server gives the reason: {}", kind.title()), kind.fix())
    });
    let closed = Finding::new(
        "closed",
        format!(
            "the server accepted, and then closed the socket with code {code} and the reason `{}`",
            reason.escape_debug()
        ),
        "look up the code in the documentation of the server; 4401 and 4403 mean a credential \
         that is missing, invalid or not sufficient",
    );
    known.into_iter().chain([closed]).collect()
}

/// The rejection of a server that sends problems (RFC 9457) with a code.
fn problem(body: &[u8]) -> Option<Finding> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    let code = problem.get("code")?.as_str()?;
    Some(match RejectionKind::ALL.iter().find(|kind| kind.code() == code) {
        Some(kind) => {
            Finding::new(code, format!("the server gives the reason: {}", kind.title()), kind.fix())
        }
        None => {
            let (shown, rest) = code.as_bytes().split_at(code.len().min(128));
            let ellipsis = if rest.is_empty() { "" } else { "…" };
            let shown = shown.escape_ascii();
            let explanation =
                format!("the server gives the reason with its own code: `{shown}{ellipsis}`");
            Finding::new(
                "problem",
                explanation,
                "look up the code in the documentation of the server",
            )
        }
    })
}

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    pub(crate) findings: Vec<Finding>,
    pub(crate) request_head: Option<String>,
    pub(crate) response_head: Option<String>,
}

impl Report {
    /// Masks the token, which a server may send back, also in a value that was cut.
    pub(crate) fn masked(mut self, token: Option<&str>) -> Self {
        let Some(token) = token else { return self };
        const MASK: &str = "***";

        let forms = [token.to_owned(), encode(token), token.escape_default().to_string()];
        let mask = |text: &mut String| {
            for form in &forms {
                *text = text.replace(form, MASK);
                let cut = (1..form.len()).rev().map(|end| format!("{}…", &form[..end]));
                if let Some(cut) = cut.into_iter().find(|cut| text.contains(&**cut)) {
                    *text = text.replace(&cut, &format!("{MASK}…"));
                }
            }
        };
        self.request_head.iter_mut().chain(&mut self.response_head).for_each(mask);
        self.findings.iter_mut().for_each(|finding| mask(&mut finding.explanation));
        self
    }

    pub(crate) fn print_json(&self) {
        println!("{}", serde_json::to_string_pretty(self).expect("the report contains only text"));
    }

    /// anstream omits the colors if the output is not a terminal, and if `NO_COLOR` is set.
    pub(crate) fn print(&self, server: &str) {
        const BOLD: Style = Style::new().bold();

        let heads = [("Request to", &self.request_head), ("Response of", &self.response_head)];
        for (title, head) in
            heads.into_iter().filter_map(|(title, head)| Some((title, head.as_ref()?)))
        {
            anstream::println!("{BOLD}{title} {server}{BOLD:#}\n");
            for line in head.trim_end().lines() {
                anstream::println!("  {}", line.replace(char::is_control, "\u{fffd}"));
            }
            anstream::println!();
        }
        let (color, verdict) = match self.outcome {
            Outcome::Accepted => (AnsiColor::Green, "Accepted, and the response is correct."),
            Outcome::Rejected => (AnsiColor::Red, "Rejected."),
            Outcome::Faulty => {
                (AnsiColor::Red, "Faulty: the server accepted with a response that clients reject.")
            }
            Outcome::Unreachable => (AnsiColor::Red, "Not reached."),
        };
        let style = color.on_default().bold();
        anstream::println!("{style}{verdict}{style:#}");
        for Finding { code, explanation, fix } in &self.findings {
            let explanation = explanation.replace(char::is_control, "\u{fffd}");
            anstream::println!("\n{BOLD}{code}{BOLD:#}: {explanation}\n  What to do: {fix}");
        }
    }
}
