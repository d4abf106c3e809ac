//! Puts the cases to a server.

use std::{error::Error, fmt, io, thread, time::Duration};

use crate::{
    case::{Case, Judgment, Need, Outcome, cases},
    check::{Channel, Check, Exchange, Finding},
    connection::Connection,
    frame,
    http1::{self, Answer},
    http2::Http2,
    report::{CaseReport, Report, Verdict},
    request::Request,
    target::Target,
};

/// Why a server could not be tested.
#[derive(Debug)]
pub struct Untestable(String);

impl fmt::Display for Untestable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Untestable {}

/// Runs the wanted cases, one after the other, and shows each one to `observe`.
///
/// # Errors
///
/// If a well-formed handshake is not accepted, or if the server can no longer be reached.
pub fn run(
    target: &Target,
    wanted: impl Fn(&Case) -> bool,
    mut observe: impl FnMut(&CaseReport),
) -> Result<Report, Untestable> {
    let abilities = Abilities::probe(target)?;
    let mut reports = Vec::new();
    for case in cases().iter().filter(|case| wanted(case)) {
        let report = match abilities.missing(case, target) {
            Some(reason) => CaseReport::new(case, Verdict::NotApplicable, reason),
            None => put(case, target).map_err(|error| {
                Untestable(format!("the server can no longer be reached at {}: {error}", case.id))
            })?,
        };
        observe(&report);
        reports.push(report);
    }
    Ok(Report::new(target, reports))
}

/// What the server can be asked for.
struct Abilities {
    deflate: bool,
    /// Why there is no extended CONNECT.
    extended_connect: Result<(), String>,
    /// Why it cannot be used.
    http2: Result<(), String>,
}

impl Abilities {
    fn probe(target: &Target) -> Result<Self, Untestable> {
        check_plain(target)?;
        let offer = case("headers.Sec-WebSocket-Extensions = \"permessage-deflate\"");
        let answer = exchange_http1(&offer, &Request::new(&offer, target), target);
        let answer = answer.map_err(|error| Untestable(error.to_string()))?.0;
        let deflate = answer.response().is_some_and(|response| {
            response.status == 101
                && response
                    .elements("Sec-WebSocket-Extensions")
                    .iter()
                    .any(|extension| extension.starts_with("permessage-deflate"))
        });

        let extended_connect = Http2::open(target).and_then(|http2| match http2.connect_protocol {
            Some(1) => Ok(()),
            _ => Err("the server does not advertise extended CONNECT".into()),
        });
        let http2 = extended_connect.clone().and_then(|()| {
            let plain = case("http2 = true");
            let answer = Http2::open(target)?.exchange(&Request::new(&plain, target).headers);
            match answer.outcome(true) {
                Outcome::Accepted => Ok(()),
                _ => Err(format!(
                    "the server does not accept WebSocket over HTTP/2: {}",
                    answer.text().lines().next().unwrap_or_default()
                )),
            }
        });
        Ok(Self { deflate, extended_connect, http2 })
    }

    /// Says why a case cannot be asked.
    fn missing(&self, case: &Case, target: &Target) -> Option<String> {
        let missing = |need: &Need| {
            let (there, otherwise) = match need {
                Need::Deflate => (self.deflate, "the server does not accept permessage-deflate"),
                Need::HostileOrigin => (target.hostile_origin.is_some(), "no --hostile-origin"),
                Need::RequireOrigin => (target.require_origin, "no --require-origin"),
                Need::Subprotocol => (target.subprotocol.is_some(), "no --subprotocol"),
                Need::Token => (target.token.is_some(), "no --token"),
                Need::ExtendedConnect => return self.extended_connect.clone().err(),
                Need::Http2 => return self.http2.clone().err(),
            };
            (!there).then(|| otherwise.to_owned())
        };
        case.needs.iter().find_map(missing)
    }
}

/// A handshake of the suite's own, which is no case.
fn case(toml: &str) -> Case {
    let toml = format!("id = \"plain\"\nrfc = \"\"\nsays = \"\"\nlevel = \"MUST\"\n{toml}");
    toml::from_str(&toml).expect("it is a case")
}

/// Without a well-formed handshake that is accepted, nothing can be learned from those that are not.
fn check_plain(target: &Target) -> Result<(), Untestable> {
    let plain = case("");
    let answer = exchange_http1(&plain, &Request::new(&plain, target), target)
        .map_err(|error| Untestable(format!("cannot connect: {error}{}", tls_hint(&error))))?
        .0;
    let status = match &answer {
        Answer::Response(response) if response.status == 101 => return Ok(()),
        Answer::Response(response) => response.status,
        Answer::Closed => {
            return Err(Untestable(
                "the server closes the connection of a well-formed handshake without a response; \
                 does it speak TLS (wss://)?"
                    .into(),
            ));
        }
        Answer::Silent => {
            return Err(Untestable(format!(
                "the server does not respond to a well-formed handshake within {:?}",
                target.timeout
            )));
        }
        Answer::Garbage(bytes) => {
            return Err(Untestable(format!("the server does not speak HTTP/1.1: {bytes}")));
        }
    };
    let hint = match status {
        300..=399 => "; use the URL that it redirects to",
        401 => "; does it want a --token, or a --header?",
        403 => "; does it want an --origin?",
        404 => "; is the path right?",
        421 => "; does it know the host of the URL?",
        _ => "",
    };
    Err(Untestable(format!(
        "the server responds to a well-formed handshake with {status}{hint}\n{}",
        answer.text()
    )))
}

fn tls_hint(error: &io::Error) -> &'static str {
    if error.to_string().contains("certificate") {
        "; use -k to accept any certificate"
    } else {
        ""
    }
}

fn put(case: &Case, target: &Target) -> io::Result<CaseReport> {
    let request = Request::new(case, target);
    let (answer, mut channel) = if case.http2 {
        match exchange_http2(&request, target)? {
            Ok(exchange) => exchange,
            Err(reason) => return Ok(CaseReport::new(case, Verdict::NotApplicable, reason)),
        }
    } else {
        exchange_http1(case, &request, target)?
    };
    let outcome = answer.outcome(request.is_connect());
    let accepted = outcome == Outcome::Accepted;
    let mut judgment = case.judge(outcome);
    let mut detail = describe(outcome);
    let mut not_applicable = None;
    if judgment == Judgment::Pass {
        let response = answer.response();
        let exchange =
            &mut Exchange { request: &request, response, accepted, channel: &mut channel };
        for check in &case.checks {
            match Check::look(*check, exchange) {
                Finding::Good => {}
                Finding::NotApplicable(reason) => not_applicable = Some(reason),
                Finding::Bad(reason) => {
                    judgment = case.failure();
                    detail = reason;
                    break;
                }
            }
        }
    }
    if accepted {
        channel.send(&frame::client(frame::CLOSE, &1000_u16.to_be_bytes()));
    }
    let verdict = match (judgment, not_applicable) {
        (Judgment::Pass, Some(reason)) => {
            detail = reason.to_owned();
            Verdict::NotApplicable
        }
        (Judgment::Pass, None) => Verdict::Pass,
        (Judgment::Lenient, _) => Verdict::Lenient,
        (Judgment::Fail, _) => Verdict::Fail,
    };
    let mut report = CaseReport::new(case, verdict, detail);
    report.request = request.display(case.http2);
    report.response = answer.text();
    Ok(report)
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Accepted => "accepted".into(),
        Outcome::Status(status) => format!("responded with {status}"),
        Outcome::Class(class) => format!("responded with {class}xx"),
        Outcome::Closed => "closed without a response".into(),
        Outcome::Silent => "no response in time".into(),
        Outcome::Garbage => "the response is not HTTP".into(),
    }
}

fn exchange_http1(
    case: &Case,
    request: &Request,
    target: &Target,
) -> io::Result<(Answer, Channel)> {
    let mut connection = open(target)?;
    connection.send(&request.bytes, case.pace);
    let answer = http1::read(&mut connection);
    Ok((answer, Channel::Http1(connection)))
}

/// The inner error says why there is no HTTP/2.
fn exchange_http2(
    request: &Request,
    target: &Target,
) -> io::Result<Result<(Answer, Channel), String>> {
    // A server that is gone is told from one without HTTP/2.
    drop(open(target)?);
    Ok(Http2::open(target).and_then(|mut http2| {
        // RFC 8441 3: without the setting a client does not send :protocol.
        http2.connect_protocol.ok_or("the server does not advertise extended CONNECT")?;
        let answer = http2.exchange(&request.headers);
        Ok((answer, Channel::Http2(Box::new(http2))))
    }))
}

/// Connects, again if need be: a server may restart after a case that it did not survive.
fn open(target: &Target) -> io::Result<Connection> {
    Connection::open(target, b"http/1.1").or_else(|_| {
        thread::sleep(Duration::from_secs(1));
        Connection::open(target, b"http/1.1")
    })
}
