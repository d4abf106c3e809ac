//! The report as one page, without anything from the network.

use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use super::{CaseReport, Count, Report, Verdict};

/// Writes one page with a column for each report.
#[must_use]
pub fn html(reports: &[Report]) -> String {
    page(reports).into_string()
}

fn page(reports: &[Report]) -> Markup {
    let title = match reports {
        [report] => format!("WebSocket handshake: {}", report.name),
        _ => format!("WebSocket handshake: {} servers", reports.len()),
    };
    markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { (title) }
                p {
                    "ws-handshake-suite " (env!("CARGO_PKG_VERSION")) ". "
                    (mark(Verdict::Pass)) " conforms. "
                    (mark(Verdict::Lenient)) " is laxer or stricter than the RFC describes, and breaks no requirement. "
                    (mark(Verdict::Fail)) " breaks the sentence. "
                    (mark(Verdict::NotApplicable)) " could not be asked."
                }
                (summary(reports))
                h2 { "Cases" }
                (matrix(reports))
                h2 { "Details" }
                @for report in reports {
                    (details(report, reports.len() == 1))
                }
            }
        }
    }
}

fn mark(verdict: Verdict) -> Markup {
    let sign = match verdict {
        Verdict::Pass => "✓",
        Verdict::Lenient => "~",
        Verdict::Fail => "✗",
        Verdict::NotApplicable => "–",
    };
    markup! { span class=(verdict.name()) title=(verdict.name()) { (sign) } }
}

fn summary(reports: &[Report]) -> Markup {
    let cells = |count: &Count| {
        markup! {
            td { (count.pass) } td { (count.lenient) }
            td class=[(count.fail > 0).then_some("fail")] { (count.fail) }
        }
    };
    markup! {
        div.scroll {
            table.numbers {
                thead {
                    tr {
                        th rowspan="2" { "server" }
                        th colspan="3" { "MUST" } th colspan="3" { "SHOULD" } th colspan="2" { "MAY" }
                    }
                    tr {
                        @for _ in 0..2 { th { "pass" } th { "lenient" } th { "fail" } }
                        th { "pass" } th { "lenient" }
                    }
                }
                tbody {
                    @for report in reports {
                        tr {
                            th { (report.name) }
                            (cells(&report.summary.must))
                            (cells(&report.summary.should))
                            td { (report.summary.may.pass) } td { (report.summary.may.lenient) }
                        }
                    }
                }
            }
        }
    }
}

/// Reports of other versions of the suite may have other cases, so they are found by name.
fn matrix(reports: &[Report]) -> Markup {
    let mut cases: Vec<&CaseReport> = Vec::new();
    for case in reports.iter().flat_map(|report| &report.cases) {
        if !cases.iter().any(|known| known.id == case.id) {
            cases.push(case);
        }
    }
    markup! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "case" } th { "level" } th { "RFC" }
                        @for report in reports { th.server { span { (report.name) } } }
                    }
                }
                tbody {
                    @for case in cases {
                        tr {
                            th title=(case.says) { (case.id) }
                            td { (case.level) } td.rfc { (case.rfc) }
                            @for report in reports {
                                td.verdict {
                                    @if let Some(case) = report.cases.iter().find(|other| other.id == case.id) {
                                        span title=(case.detail) { (mark(case.verdict)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn details(report: &Report, all: bool) -> Markup {
    let shown =
        |case: &&CaseReport| all || matches!(case.verdict, Verdict::Fail | Verdict::Lenient);
    markup! {
        h3 { (report.name) }
        @for case in report.cases.iter().filter(shown) {
            details {
                summary {
                    (mark(case.verdict)) " " code { (case.id) } " " (case.level) ", " (case.rfc) ": "
                    (case.says) ". " em { (case.detail) }
                }
                @if !case.note.is_empty() { p { (case.note) } }
                @if !case.request.is_empty() { pre { (case.request) } pre { (case.response) } }
            }
        }
    }
}
