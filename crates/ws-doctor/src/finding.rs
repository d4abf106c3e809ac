//! A finding: a code, what was seen, and the fix for it.

use std::borrow::Cow;

use serde::Serialize;
use tower_ws_guard::RejectionKind;

use crate::codes::{Code, Level, Stage};

/// The page with a section for each code.
const PAGE: &str = "https://docs.rs/ws-doctor/latest/ws_doctor/findings/index.html";

/// What was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The stable name.
    pub code: Cow<'static, str>,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub explanation: String,
    /// What to do; a line for each way.
    pub fix: String,
    /// The section of the documentation.
    pub link: String,
    /// Where it was found.
    #[serde(skip)]
    pub stage: Stage,
}

impl Finding {
    /// The finding as the table has it.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code: code.as_str().into(),
            level: code.level(),
            explanation: code.explanation().into(),
            fix: code.fix().into(),
            link: format!("{PAGE}#{}", code.as_str()),
            stage: code.stage(),
        }
    }

    /// A rejection with a code of the server's own.
    pub(crate) fn of_server(code: &str, explanation: String, fix: &str) -> Self {
        let known = RejectionKind::ALL.iter().find(|kind| kind.code() == code);
        Self {
            code: code.to_owned().into(),
            level: Level::Error,
            explanation,
            // A server has one line.
            fix: fix.replace('\n', " "),
            link: known.and_then(|kind| kind.url()).unwrap_or_else(|| format!("{PAGE}#rejected")),
            stage: Stage::Rejected,
        }
    }

    /// Says what happened, in place of the table's explanation.
    pub(crate) fn because(mut self, explanation: impl Into<String>) -> Self {
        self.explanation = explanation.into();
        self
    }

    /// Adds to the explanation.
    pub(crate) fn detail(mut self, detail: impl AsRef<str>) -> Self {
        let detail = detail.as_ref();
        if !detail.is_empty() {
            // One colon is enough for a sentence.
            self.explanation.push_str(if self.explanation.contains(": ") { "; " } else { ": " });
            self.explanation.push_str(detail);
        }
        self
    }

    /// Says what to do, in place of the table's fix.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}
