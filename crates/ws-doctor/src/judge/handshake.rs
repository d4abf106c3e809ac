//! A 101 (over HTTP/2: a 200) that is not correct.

use tower_ws_guard::client::FindingKind as Kind;

use crate::{codes::Code, exchange::Received, finding::Finding, response::TEXT_IN_FRONT};

pub(crate) fn findings(received: &Received) -> Vec<Finding> {
    let head = &received.head;
    let mut findings = Vec::new();
    let mut defects = head.defects.clone();
    if head.minor == Some(0) {
        defects.push("the 101 is of HTTP/1.0, which has no upgrade".into());
    }
    if !defects.is_empty() {
        findings.push(malformed(&defects));
    }
    let Err(faults) = &received.check else { return findings };
    for fault in faults.as_slice() {
        let code = match fault.kind() {
            Kind::AcceptMissing => Code::AcceptMissing,
            Kind::AcceptWrong => Code::AcceptWrong,
            Kind::UpgradeWrong => Code::UpgradeWrong,
            Kind::ConnectionWrong => Code::ConnectionWrong,
            Kind::SubprotocolNotOffered => Code::SubprotocolNotOffered,
            Kind::SubprotocolNotEchoed => Code::SubprotocolNotEchoed,
            Kind::ExtensionNotOffered => Code::ExtensionNotOffered,
            Kind::HeaderRepeated => Code::HeaderRepeated,
            _ => continue,
        };
        let value = fault.value().map(|value| match code {
            Code::HeaderRepeated => format!("`{}`", title_case(value)),
            _ => format!("`{value}`"),
        });
        let details =
            fault.detail().map(str::to_owned).into_iter().chain(value).collect::<Vec<_>>();
        let finding = Finding::new(code).detail(details.join(", "));
        findings.push(if code == Code::AcceptWrong && fault.detail().is_some() {
            // The mistake is known, so no proxy is to blame.
            finding.fix(
                "correct this mistake: send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")), of the 24 \
                 characters of the key and the 36 of this GUID, and of nothing else",
            )
        } else {
            finding
        });
    }
    findings
}

/// What a browser refuses in the head.
pub(super) fn malformed(defects: &[String]) -> Finding {
    let finding = Finding::new(Code::MalformedResponse).detail(defects.join("; "));
    if defects.iter().any(|defect| defect.starts_with(TEXT_IN_FRONT)) {
        finding.fix(
            "let the program write nothing into the connection before the response: correct the cause of the text, and \
             send warnings to a log (PHP: `display_errors = stderr`)",
        )
    } else {
        finding
    }
}

/// `sec-websocket-accept` as it is usually written.
fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| match word.to_ascii_lowercase().as_str() {
        "websocket" => "WebSocket".to_owned(),
        lower => {
            let mut characters = lower.chars();
            let first = characters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(characters).collect()
        }
    });
    words.collect::<Vec<_>>().join("-")
}
