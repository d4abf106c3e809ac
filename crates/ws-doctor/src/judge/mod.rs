//! The judgement: a pure function from what was seen to findings.

mod accepted;
mod handshake;
mod known;
mod origin;
mod reach;
mod rejected;
mod socket;

use crate::{
    codes::{Level, Stage},
    exchange::{Fault, Outcome},
    finding::Finding,
    probe::{Observations, Probe, is_usable},
};

/// The findings, the most telling first, and what follows from them.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) findings: Vec<Finding>,
    pub(crate) outcome: Verdict,
}

/// The result in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Accepted, and usable.
    Accepted,
    /// Rejected by HTTP, or by a close at once.
    Rejected,
    /// Accepted with a fault for which browsers fail.
    Faulty,
    /// No HTTP response.
    Unreachable,
}

impl Verdict {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Rejected | Self::Faulty => 1,
            Self::Unreachable => 2,
        }
    }
}

pub(crate) fn judge(seen: &Observations) -> Judgement {
    let mut findings = match &seen.main.outcome {
        Outcome::Failed(fault) => reach::findings(seen, fault),
        Outcome::Response(received) if received.socket.is_some() => {
            let faults = handshake::findings(received);
            // A client that fails at the response never sees what follows.
            if faults.is_empty() {
                socket::findings(seen, received)
            } else {
                socket::behind(seen, faults)
            }
        }
        Outcome::Response(received) => rejected::findings(seen, received),
    };
    // A rejection of one address is not that of the server.
    if let Some(finding) = accepted::other_address(seen)
        && finding.level == Level::Error
    {
        findings = vec![finding];
    }
    findings.extend(accepted::remarks(seen));
    // What a probe shows goes in front of what only the status says.
    findings.sort_by_key(|finding| finding.level == Level::Remark);
    let mut codes = Vec::new();
    findings.retain(|finding| {
        let is_new = !codes.contains(&finding.code);
        codes.push(finding.code.clone());
        is_new
    });
    direct(seen, &mut findings);
    let outcome = match (&seen.main.outcome, findings.first()) {
        (Outcome::Failed(Fault::Incomplete { .. }), _) => Verdict::Faulty,
        (Outcome::Failed(_), _) => Verdict::Unreachable,
        (_, Some(first)) if first.level == Level::Error => {
            if first.stage == Stage::Faulty {
                Verdict::Faulty
            } else {
                Verdict::Rejected
            }
        }
        _ => Verdict::Accepted,
    };
    Judgement { findings, outcome }
}

/// Adds what `--direct` shows to the first finding.
fn direct(seen: &Observations, findings: &mut [Finding]) {
    let Some((Probe::Direct(address), exchange)) =
        seen.probes.iter().find(|(probe, _)| matches!(probe, Probe::Direct(_)))
    else {
        return;
    };
    let result = crate::report::result(exchange);
    let Some(finding) = findings.first_mut().filter(|finding| finding.level == Level::Error) else {
        return;
    };
    let conclusion = if is_usable(exchange) {
        "so what stands in front of it is the cause"
    } else if exchange.status().is_some() && exchange.status() == seen.main.status() {
        "the same, so the server itself is the cause"
    } else {
        "which is another result"
    };
    finding.explanation.push_str(&format!("; direct, at {address}: {result}, {conclusion}"));
}
