//! The judgement: a pure function from what was seen to findings.

mod accepted;
mod handshake;
mod known;
mod origin;
mod reach;
mod redirect;
mod rejected;
mod socket;
mod upgrade;

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
    } else if exchange.status().is_none() && seen.main.status().is_none() {
        "so it does not work there either"
    } else {
        "which is another result"
    };
    finding.explanation.push_str(&format!("; direct, at {address}: {result}, {conclusion}"));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tower_ws_guard::accept_key;

    use super::*;
    use crate::{
        body,
        exchange::{End, Exchange, Socket, received},
        frames::Frames,
        probe::{Given, next},
        request::{Plan, Style, Variant},
        response::{Progress, read_head},
        route::Way,
        target::Target,
    };

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const PAGE: &str = "http://app.example";
    const OWN: &str = "http://chat.example";

    /// An exchange of these bytes; none are no response.
    fn exchange(origin: Option<&str>, bytes: &str) -> Exchange {
        let plan = Plan {
            target: Target::parse("ws://chat.example/ws").unwrap(),
            http2: false,
            agent: None,
            cookies: Vec::new(),
            basic: None,
            token: None,
            subprotocols: Vec::new(),
            version: 13,
            headers: Vec::new(),
            key: KEY.into(),
        };
        let variant = Variant {
            style: Style::Chrome,
            origin: origin.map(Into::into),
            upgrade: true,
            connection_list: false,
        };
        let outcome = match read_head(bytes.as_bytes()) {
            Progress::Complete(head, length) => {
                let rest = &bytes.as_bytes()[length..];
                let socket = (head.status == 101).then(|| {
                    let mut frames = Frames::new(false);
                    frames.feed(rest, Duration::ZERO);
                    frames.finish(Duration::ZERO);
                    let end = if frames.close().is_some() { End::Closed } else { End::Open };
                    Socket { frames, end, time: Duration::ZERO, round_trip: None }
                });
                let body = body::unframe(&head, rest);
                let request = plan.to_request(&variant);
                Outcome::Response(Box::new(received(
                    &request,
                    *head,
                    Duration::ZERO,
                    &body,
                    socket,
                )))
            }
            _ => Outcome::Failed(Fault::NoResponse),
        };
        Exchange {
            variant,
            target: plan.target,
            way: Way::default(),
            tls: None,
            request: Some(String::new()),
            outcome,
            time: Duration::from_secs(1),
        }
    }

    fn accepted() -> String {
        let accept = accept_key(KEY.as_bytes().try_into().unwrap());
        let accept = String::from_utf8_lossy(&accept).into_owned();
        format!(
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    }

    /// Runs the plan of probes against a server that is a function, and judges.
    fn run(
        origin: Option<&str>,
        server: impl Fn(&Variant, usize) -> String,
    ) -> (Vec<String>, Vec<&'static str>) {
        let respond = |origin: Option<&str>, upgrade: bool, count: usize| {
            let variant = Variant {
                style: Style::Chrome,
                origin: origin.map(Into::into),
                upgrade,
                connection_list: false,
            };
            exchange(origin, &server(&variant, count))
        };
        let given =
            Given { origins: origin.map(Into::into).into_iter().collect(), ..Given::default() };
        let mut seen = Observations {
            given,
            main: respond(origin.or(Some(OWN)), true, 0),
            probes: Vec::new(),
        };
        let main = seen.main.variant.origin.clone();
        while let Some(probe) = next(&seen) {
            let origin = match &probe {
                Probe::WithoutOrigin => None,
                Probe::OwnOrigin(origin) | Probe::OtherOrigin(origin) => Some(&**origin),
                _ => main.as_deref(),
            };
            let exchange = respond(origin, probe != Probe::WithoutUpgrade, seen.probes.len() + 1);
            seen.probes.push((probe, exchange));
        }
        let codes = judge(&seen).findings.iter().map(|finding| finding.code.to_string()).collect();
        (codes, seen.probes.iter().map(|(probe, _)| probe.kind()).collect())
    }

    /// A response with this status, and another one to an ordinary request.
    fn status(variant: &Variant, status: u16) -> String {
        let status = if variant.upgrade { status } else { 426 };
        format!("HTTP/1.1 {status} X\r\n\r\n")
    }

    #[test]
    fn nothing_is_blamed_without_a_probe_that_shows_it() {
        let foreign = |variant: &Variant| variant.origin.as_deref() == Some(PAGE);
        for (name, codes, result) in [
            ("accepted", &[][..], run(Some(PAGE), |_, _| accepted())),
            (
                "foreign",
                &["origin-rejected"],
                run(
                    Some(PAGE),
                    |variant, _| if foreign(variant) { status(variant, 403) } else { accepted() },
                ),
            ),
            (
                "foreign, 404",
                &["origin-rejected"],
                run(
                    Some(PAGE),
                    |variant, _| if foreign(variant) { status(variant, 404) } else { accepted() },
                ),
            ),
            (
                "foreign, 401 behind it",
                &["origin-rejected"],
                run(Some(PAGE), |variant, _| {
                    status(variant, if foreign(variant) { 403 } else { 401 })
                }),
            ),
            (
                "every origin",
                &["origin-undecided"],
                run(Some(PAGE), |variant, _| status(variant, 403)),
            ),
            (
                "own",
                &["host-changed"],
                run(
                    None,
                    |variant, _| {
                        if variant.origin.is_some() { status(variant, 403) } else { accepted() }
                    },
                ),
            ),
            (
                "flaky",
                &["forbidden"],
                run(
                    Some(PAGE),
                    |variant, count| if count % 2 == 0 { status(variant, 403) } else { accepted() },
                ),
            ),
            (
                "429",
                &["forbidden"],
                run(Some(PAGE), |variant, count| {
                    status(variant, if count == 0 { 403 } else { 429 })
                }),
            ),
            ("credential", &["unauthorized"], run(Some(PAGE), |variant, _| status(variant, 401))),
            (
                "stripped",
                &["upgrade-stripped"],
                run(Some(PAGE), |_, _| {
                    "HTTP/1.1 400 X\r\nServer: nginx\r\n\r\nCan \"Upgrade\" only".into()
                }),
            ),
            (
                "no upgrade here",
                &["no-websocket-here"],
                run(Some(PAGE), |_, _| "HTTP/1.1 400 X\r\n\r\nno".into()),
            ),
            ("silent", &["no-response"], run(Some(PAGE), |_, _| String::new())),
        ] {
            assert_eq!(result.0, codes, "{name}: {:?}", result.1);
        }
    }

    #[test]
    fn probes_are_bounded_and_end_with_a_429() {
        let (_, probes) = run(Some(PAGE), |variant, _| status(variant, 400));
        assert!(probes.len() < crate::probe::MAX_REQUESTS, "{probes:?}");
        assert_eq!(probes[0], "repeat");
        let (_, probes) =
            run(Some(PAGE), |variant, count| status(variant, if count == 0 { 403 } else { 429 }));
        assert_eq!(probes, ["repeat"]);
        for code in [301, 401, 407, 429, 502, 521] {
            assert_eq!(
                run(Some(PAGE), |variant, _| status(variant, code)).1,
                Vec::<&str>::new(),
                "{code}"
            );
        }
    }
}
