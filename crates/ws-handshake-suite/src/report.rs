//! What came of a run, and the forms in which it is shown.

use std::io;

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};
use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Level},
    target::Target,
};

mod page;

pub use page::html;

/// How a server did in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a verdict more would be another suite")]
pub enum Verdict {
    /// It conforms.
    Pass,
    /// It is laxer or stricter than the RFC describes, and breaks no requirement.
    Lenient,
    /// It breaks the sentence of the RFC.
    Fail,
    /// It could not be asked.
    NotApplicable,
}

impl Verdict {
    /// Its name in all outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Lenient => "lenient",
            Self::Fail => "fail",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// A case, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The name of the case.
    pub id: String,
    /// Where the sentence is.
    pub rfc: String,
    /// The sentence in a few words.
    pub says: String,
    /// How strongly it is said.
    pub level: Level,
    /// How it went.
    pub verdict: Verdict,
    /// What the server did, or why it could not be asked.
    pub detail: String,
    /// What else there is to know about the case.
    #[serde(default)]
    pub note: String,
    /// What was sent, for people. Long requests are cut.
    #[serde(default)]
    pub request: String,
    /// What came back, for people.
    #[serde(default)]
    pub response: String,
}

impl CaseReport {
    pub(crate) fn new(case: &Case, verdict: Verdict, detail: String) -> Self {
        Self {
            id: case.id.clone(),
            rfc: case.rfc.clone(),
            says: case.says.clone(),
            level: case.level,
            verdict,
            detail,
            note: case.note.clone(),
            request: String::new(),
            response: String::new(),
        }
    }
}

/// The cases of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Count {
    /// How many conform.
    pub pass: usize,
    /// How many are lenient.
    pub lenient: usize,
    /// How many fail.
    pub fail: usize,
    /// How many could not be asked.
    pub not_applicable: usize,
}

/// The numbers of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// Requirements.
    pub must: Count,
    /// Recommendations.
    pub should: Count,
    /// Choices.
    pub may: Count,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of the suite.
    pub suite: String,
    /// What the server is called.
    pub name: String,
    /// Where it was.
    pub url: String,
    /// All cases that were wanted.
    pub cases: Vec<CaseReport>,
    /// Their numbers.
    pub summary: Summary,
}

impl Report {
    pub(crate) fn new(target: &Target, cases: Vec<CaseReport>) -> Self {
        let mut summary = Summary::default();
        for case in &cases {
            let count = match case.level {
                Level::Must => &mut summary.must,
                Level::Should => &mut summary.should,
                Level::May => &mut summary.may,
            };
            *match case.verdict {
                Verdict::Pass => &mut count.pass,
                Verdict::Lenient => &mut count.lenient,
                Verdict::Fail => &mut count.fail,
                Verdict::NotApplicable => &mut count.not_applicable,
            } += 1;
        }
        Self {
            suite: env!("CARGO_PKG_VERSION").into(),
            name: target.name.clone(),
            url: target.url.clone(),
            cases,
            summary,
        }
    }

    /// Returns whether no requirement is broken.
    #[must_use]
    pub const fn conforms(&self) -> bool {
        self.summary.must.fail == 0
    }

    /// Returns the cases with this verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(move |case| case.verdict == verdict)
    }

    /// Writes the report for JUnit. A broken recommendation is an error there, too.
    ///
    /// # Errors
    ///
    /// None but those of `output`.
    pub fn write_junit(&self, output: impl io::Write) -> io::Result<()> {
        let mut writer = Writer::new_with_indent(output, b' ', 2);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let count = |verdict| self.with(verdict).count().to_string();
        writer
            .create_element("testsuite")
            .with_attribute(("name", &*self.name))
            .with_attribute(("tests", &*self.cases.len().to_string()))
            .with_attribute(("failures", &*count(Verdict::Fail)))
            .with_attribute(("skipped", &*count(Verdict::NotApplicable)))
            .write_inner_content(|writer| {
                for case in &self.cases {
                    let element = writer
                        .create_element("testcase")
                        .with_attribute(("classname", &*format!("{} {}", case.level, case.rfc)))
                        .with_attribute(("name", &*case.id));
                    let inner = match case.verdict {
                        Verdict::Fail => "failure",
                        Verdict::NotApplicable => "skipped",
                        Verdict::Pass | Verdict::Lenient => {
                            element.write_empty()?;
                            continue;
                        }
                    };
                    let text = format!("{}\n\n{}\n{}", case.says, case.request, case.response);
                    element.write_inner_content(|writer| {
                        writer
                            .create_element(inner)
                            .with_attribute(("message", &*case.detail))
                            .write_text_content(BytesText::new(&text))?;
                        Ok(())
                    })?;
                }
                Ok(())
            })?;
        Ok(())
    }
}

/// Writes several reports as one table in Markdown.
#[must_use]
pub fn markdown(reports: &[Report]) -> String {
    let mut table = String::from(
        "| server | MUST: pass | lenient | fail | SHOULD: pass | fail | MAY: pass | lenient | not applicable |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for Report { name, summary: Summary { must, should, may }, .. } in reports {
        let not_applicable = must.not_applicable + should.not_applicable + may.not_applicable;
        table += &format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {not_applicable} |\n",
            must.pass, must.lenient, must.fail, should.pass, should.fail, may.pass, may.lenient,
        );
    }
    table += "\n| server | failed MUST | failed SHOULD |\n|---|---|---|\n";
    for report in reports {
        let failed = |level| {
            let failed = report.with(Verdict::Fail).filter(|case| case.level == level);
            let ids: Vec<_> = failed.map(|case| format!("`{}`", case.id)).collect();
            if ids.is_empty() { "none".into() } else { ids.join(", ") }
        };
        let (must, should) = (failed(Level::Must), failed(Level::Should));
        table += &format!("| {} | {must} | {should} |\n", report.name);
    }
    table
}
