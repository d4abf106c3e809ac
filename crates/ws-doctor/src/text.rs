//! The report as text: the verdict first, then what to do, then the evidence.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::{
    codes::{Code, Level},
    finding::Finding,
    judge::Verdict,
    printable::printable,
    report::{Report, SocketReport},
};

/// The maximum number of lines of evidence, unless all are wanted.
const MAX_LINES: usize = 40;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// The report for a terminal, with its styles. `verbose`: all of the evidence.
#[must_use]
pub fn text(report: &Report, verbose: bool) -> String {
    let mut output = String::new();
    let (color, label) = match report.outcome {
        Verdict::Accepted => (AnsiColor::Green, "Accepted"),
        Verdict::Rejected => (AnsiColor::Red, "Rejected"),
        Verdict::Faulty => (AnsiColor::Red, "Faulty"),
        Verdict::Unreachable => (AnsiColor::Red, "Not reached"),
    };
    let color = color.on_default().bold();
    let mut findings = report.findings.iter();
    if report.outcome == Verdict::Accepted {
        let works = "the server accepts the handshake, and the socket works from here";
        match findings.next() {
            None => put(&mut output, &format!("{color}{label}:{color:#} {works}.")),
            Some(remark) => {
                let but = format!("{works}; but {}", line(&remark.explanation));
                put(&mut output, &format!("{color}{label}, with a remark:{color:#} {but}."));
                advice(&mut output, remark);
            }
        }
    } else if let Some(first) = findings.next() {
        let label = if first.code == Code::ClosedAtOnce.as_str() { "Closed" } else { label };
        // `Rejected with 403 Forbidden: …`
        let has_status = report
            .response
            .as_ref()
            .is_some_and(|response| first.explanation.starts_with(&response.status.to_string()));
        let with = if has_status { " with" } else { ":" };
        put(&mut output, &format!("{color}{label}{with}{color:#} {}.", line(&first.explanation)));
        advice(&mut output, first);
    }
    for finding in findings {
        let (style, label) = match finding.level {
            Level::Error => (AnsiColor::Red, "Also"),
            Level::Remark => (AnsiColor::Yellow, "Remark"),
        };
        let style = style.on_default().bold();
        put(&mut output, "");
        put(&mut output, &format!("{style}{label}:{style:#} {}.", line(&finding.explanation)));
        advice(&mut output, finding);
    }
    let evidence = evidence(report);
    let shown = if verbose { evidence.len() } else { evidence.len().min(MAX_LINES) };
    put(&mut output, "");
    for text in &evidence[..shown] {
        put(&mut output, text);
    }
    if shown < evidence.len() {
        put(&mut output, &format!("{DIM}… {} more lines: -v{DIM:#}", evidence.len() - shown));
    }
    output
}

fn advice(output: &mut String, finding: &Finding) {
    put(output, &format!("{BOLD}What to do:{BOLD:#} {}.", line(&finding.fix)));
    put(output, &format!("{DIM}{}: {}{DIM:#}", line(&finding.code), line(&finding.link)));
}

fn put(output: &mut String, line: &str) {
    output.push_str(line.trim_end());
    output.push('\n');
}

/// Text in one line.
fn line(text: &str) -> String {
    printable(&text.replace('\n', " "))
}

/// `1 day`, `2 days`.
pub(crate) fn days(count: u64) -> String {
    format!("{count} day{}", if count == 1 { "" } else { "s" })
}

/// A sentence begins with a capital.
pub(crate) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + characters.as_str(),
        None => String::new(),
    }
}

fn evidence(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let title = |text: &str| format!("{BOLD}{text}{BOLD:#}");
    let connection = &report.connection;

    let mut way = format!("{} {}", title("Connection"), line(&report.url));
    if let Some(address) = &connection.address {
        let _ = write!(way, " at {address}");
    }
    let times = [
        ("name", connection.name_ms),
        ("TCP", connection.tcp_ms),
        ("TLS", connection.tls_ms),
        ("response", connection.response_ms),
    ];
    let times = times
        .into_iter()
        .filter_map(|(name, ms)| Some(format!("{name} {} ms", ms?)))
        .collect::<Vec<_>>();
    if !times.is_empty() {
        let _ = write!(way, " ({})", times.join(", "));
    }
    lines.push(way);
    for redirect in &report.redirects {
        lines.push(format!("  redirected from {}", line(redirect)));
    }
    if let Some(proxy) = &connection.proxy {
        lines.push(format!("  through the forward proxy {}", line(proxy)));
    }
    lines.extend(connection.failed.iter().map(|failed| format!("  {}", line(failed))));
    lines.extend(report.notes.iter().map(|note| format!("  note: {}", line(note))));

    if let Some(tls) = &report.tls {
        let words = [tls.version.as_deref(), tls.cipher.as_deref(), tls.alpn.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if !words.is_empty() || !tls.certificates.is_empty() {
            lines.push(format!("{} {}", title("TLS"), line(&words)));
        }
        if let Some(certificate) = tls.certificates.first() {
            let names =
                certificate.names.iter().take(5).map(|name| &**name).collect::<Vec<_>>().join(", ");
            lines.push(format!(
                "  certificate of {} for {}",
                line(&certificate.subject),
                line(&names)
            ));
            lines.push(format!("  issued by {}", line(&certificate.issuer)));
            let left = match tls.days_left {
                // It is rounded down.
                Some(ago @ ..0) => format!("{} ago", days(ago.unsigned_abs() - 1)),
                Some(left) => format!("{} left", days(left.unsigned_abs())),
                None => String::new(),
            };
            lines.push(format!(
                "  valid from {} to {} ({left})",
                certificate.valid.0, certificate.valid.1
            ));
        }
        if let Some(ignored) = &tls.ignored {
            lines.push(format!("  not valid, and -k ignores it: {}", line(ignored)));
        }
    }
    if let Some(request) = &report.request {
        lines.push(title("Request"));
        lines.extend(request.lines().map(|text| format!("  {}", printable(text))));
    }
    if let Some(response) = &report.response {
        let from =
            response.from.as_deref().map(|from| format!(" ({})", line(from))).unwrap_or_default();
        lines.push(title("Response") + &from);
        lines.extend(response.head.lines().map(|text| format!("  {}", printable(text))));
        if !response.body.is_empty() {
            lines.push(String::new());
            lines.extend(response.body.lines().map(|text| format!("  {}", printable(text))));
        }
    }
    if let Some(socket) = &report.socket {
        lines.push(title("Socket"));
        lines.extend(frames(socket));
    }
    if !report.probes.is_empty() {
        lines.push(title("Other requests"));
        let width = report
            .probes
            .iter()
            .map(|probe| probe.what.chars().count())
            .max()
            .unwrap_or_default()
            .min(60);
        for probe in &report.probes {
            lines.push(format!("  {:width$}  {}", line(&probe.what), line(&probe.result)));
        }
    }
    lines
}

fn frames(socket: &SocketReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(subprotocol) = &socket.subprotocol {
        lines.push(format!("  subprotocol {}", line(subprotocol)));
    }
    for extension in &socket.extensions {
        lines.push(format!("  extension {}", line(extension)));
    }
    for frame in socket.frames.iter().take(20) {
        let code = frame.code.map(|code| format!(" {code}")).unwrap_or_default();
        let text: String = frame.text.as_deref().unwrap_or_default().chars().take(300).collect();
        lines.push(format!("  after {} ms: {}{code} {}", frame.ms, frame.kind, line(&text)));
    }
    if let Some(ms) = socket.ping_ms {
        lines.push(format!("  ping and pong: {ms} ms"));
    }
    lines.push(match socket.end {
        "open" => format!("  open for {} ms, then closed by this program", socket.ms),
        "closed" => format!("  closed by the server after {} ms", socket.ms),
        "eof" => format!("  the connection ended after {} ms, without a close frame", socket.ms),
        _ => format!("  the connection was reset after {} ms", socket.ms),
    });
    lines
}
