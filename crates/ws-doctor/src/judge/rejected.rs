//! A response that rejects the handshake.

use serde_json::Value;
use tower_ws_guard::{RejectionKind, client::FindingKind};

use super::{handshake::malformed, known::known, origin, redirect, upgrade};
use crate::{
    codes::Code,
    exchange::Received,
    finding::Finding,
    probe::{Observations, Probe, is_usable},
    report::{result, status_line},
    who::{self, Proxy},
};

/// The path of the URL, without its query.
pub(super) fn path(seen: &Observations) -> String {
    let path = seen.main.target.path();
    path.split('?').next().unwrap_or_default().to_owned()
}

pub(crate) fn findings(seen: &Observations, received: &Received) -> Vec<Finding> {
    let finding = match (own_code(received), origin::finding(seen)) {
        // The server's own code, and the fix for the value that was seen.
        (Some(own), Some(origin)) => {
            let says = own.explanation.split_once("): ").map_or("", |(_, words)| words);
            let explanation = format!("{}; it says: {says}", origin.explanation);
            own.because(explanation).fix(origin.fix)
        }
        (Some(finding), None) | (None, Some(finding)) => finding,
        (None, None) => by_status(seen, received),
    };
    let mut findings = vec![finding];
    if seen.is_flaky() {
        let again = seen.made(&Probe::Repeat);
        let is_accepted = again.is_some_and(is_usable);
        if let Some(first) = findings.first_mut() {
            let again = again.map(result).unwrap_or_default();
            first.explanation.push_str(&format!("; the same request once more: {again}"));
            let compare = "the server is not consistent, so neither origin nor path is to blame: compare its instances \
                           behind the load balancer and their health checks, and look for limits";
            // What is accepted now needs no other fix.
            first.fix =
                if is_accepted { compare.into() } else { format!("{compare}\nthen {}", first.fix) };
        }
    } else if seen.is_limited()
        && let Some(first) = findings.first_mut()
    {
        first.explanation.push_str("; the probes that could tell the cause got 429, so it is open");
    }
    if !received.head.defects.is_empty() {
        findings.push(malformed(&received.head.defects));
    }
    findings
}

/// A code that the server itself gives: problem+json, or text of `tower-ws-guard`.
fn own_code(received: &Received) -> Option<Finding> {
    let problem: Option<Value> = serde_json::from_slice(&received.body.bytes).ok();
    let field = |name: &str| problem.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let quoted = |name: &str| field(name).map(|text| short(&text));
    let code = field("code").filter(|code| is_code(code)).or_else(|| {
        // `PlainText`: the title, and the code in parentheses at the end.
        let (_, code) = received.text.trim_end().strip_suffix(')')?.rsplit_once('(')?;
        RejectionKind::ALL
            .iter()
            .find(|kind| kind.code() == code)
            .map(|kind| kind.code().to_owned())
    })?;
    let kind = RejectionKind::ALL.iter().find(|kind| kind.code() == code);
    let is_problem =
        received.head.text("content-type").is_some_and(|kind| kind.contains("problem+json"));
    if kind.is_none() && !is_problem {
        return None;
    }
    let title = quoted("title").or_else(|| kind.map(|kind| kind.title().to_owned()));
    let words = title.into_iter().chain(quoted("detail")).collect::<Vec<_>>().join("; ");
    let words = if words.is_empty() { code.clone() } else { words };
    let explanation = format!("the server says why ({}): {words}", status_line(received));
    let fix = match (kind, quoted("fix")) {
        (Some(kind), _) => kind.fix().to_owned(),
        (None, Some(fix)) => format!("the server advises: `{fix}`"),
        (None, None) => "look up the code in the documentation of the server".into(),
    };
    Some(Finding::of_server(&code, explanation, &fix))
}

/// A text of the server in one line, which cannot end the quotation of it.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "'");
    let short: String = line.chars().take(300).collect();
    if short.len() < line.len() { short + "…" } else { short }
}

/// A name as codes are: short, safe to show as one, and none of ours.
fn is_code(code: &str) -> bool {
    let is_kind = RejectionKind::ALL.iter().any(|kind| kind.code() == code);
    let is_ours = code == "accepted" || Code::ALL.iter().any(|ours| ours.as_str() == code);
    (1..=64).contains(&code.len())
        && (is_kind || !is_ours)
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What the server says in its body, in one line: the title and the detail of a problem, or the
/// begin of the text.
pub(super) fn words(received: &Received) -> String {
    let problem: Option<Value> = serde_json::from_slice(&received.body.bytes).ok();
    let text = match problem {
        Some(problem) => {
            let fields = ["title", "detail", "message", "error", "reason"];
            let fields = fields
                .into_iter()
                .filter_map(|name| problem.get(name)?.as_str().map(str::to_owned));
            let fields = fields.collect::<Vec<_>>().join("; ");
            if fields.is_empty() { received.text.clone() } else { fields }
        }
        None => received.text.clone(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(160).collect();
    match (short.is_empty(), short.len() < line.len()) {
        (true, _) => String::new(),
        (false, true) => format!("the body says `{short}…`"),
        (false, false) => format!("the body says `{short}`"),
    }
}

fn by_status(seen: &Observations, received: &Received) -> Finding {
    let head = &received.head;
    let status = head.status;
    let text = received.text.to_ascii_lowercase();
    let say = |code: Code| {
        let explanation = code.explanation().replace(&format!(" ({status})"), "");
        Finding::new(code).because(format!("{}: {explanation}", status_line(received)))
    };
    if status == 511 || is_portal(received) {
        let words = if status == 511 { words(received) } else { redirect::target(seen, received) };
        return say(Code::CaptivePortal).detail(words);
    }
    if status == 407 {
        return say(Code::ProxyLogin).detail(head.text("proxy-authenticate").unwrap_or_default());
    }
    if is_challenge(received) {
        return say(Code::BotChallenge);
    }
    if is_tls_port(&text) {
        return tls_port(seen, &words(received));
    }
    if is_client_certificate(&text) || matches!(status, 495 | 496) {
        return say(Code::ClientCertificateRequired).detail(words(received));
    }
    if (300..400).contains(&status) {
        return redirect::finding(seen, received);
    }
    if let Err(findings) = &received.check
        && findings.as_slice().iter().any(|finding| finding.kind() == FindingKind::VersionRejected)
    {
        let versions = head.text("sec-websocket-version").unwrap_or_default();
        return Finding::new(Code::VersionRefused).because(format!(
            "{}: the server does not support the version that was sent, only `{versions}`",
            status_line(received)
        ));
    }
    if let Some(known) = known(received, &text) {
        let code = match known.code {
            Code::Rejected if who::author(received).is_some() => Code::Intermediary,
            Code::Rejected if status == 404 => Code::NotFound,
            code => code,
        };
        let explanation = format!("{}: {}", status_line(received), known.means);
        return Finding::new(code).because(explanation).fix(known.fix);
    }
    if let Some(proxy) = who::author(received)
        && status != 200
    {
        return by_proxy(seen, received, proxy);
    }
    if let Some(finding) = bare_is_accepted(seen) {
        return finding;
    }
    match status {
        401 => {
            let scheme = head.text("www-authenticate").unwrap_or_default();
            if let Some(finding) = expired(seen, received, &scheme) {
                return finding;
            }
            let scheme = if scheme.is_empty() { scheme } else { format!("it asks for `{scheme}`") };
            let words = [scheme, words(received)].into_iter().filter(|word| !word.is_empty());
            let finding = say(Code::Unauthorized).detail(words.collect::<Vec<_>>().join("; "));
            if seen.given.credential {
                finding.fix(
                    "the server does not take the credential that was sent: check that it is valid, not expired, and \
                     where the server looks for it (--token-in)",
                )
            } else {
                finding
            }
        }
        403 => forbidden(seen, received),
        429 => {
            let unit = |after: &str| if after.parse::<u64>().is_ok() { " s" } else { "" };
            let after = head.text("retry-after");
            let after = after.map(|after| format!("Retry-After is {after}{}", unit(&after)));
            say(Code::RateLimited).detail(after.unwrap_or_default())
        }
        503 => say(Code::Unavailable).detail(words(received)),
        _ => upgrade::finding(seen, received, &text).unwrap_or_else(|| {
            if status == 404 {
                not_found(seen, received)
            } else {
                say(Code::Rejected).detail(words(received))
            }
        }),
    }
}

/// The server says that the credential has expired.
fn expired(seen: &Observations, received: &Received, scheme: &str) -> Option<Finding> {
    let says = |text: &str| text.to_ascii_lowercase().contains("expired");
    // RFC 6750 3.
    let description = scheme.split("error_description=\"").nth(1);
    let description = description.and_then(|text| text.split('"').next()).unwrap_or(scheme);
    let words = words(received);
    let says_so = if says(description) {
        format!("`{description}`")
    } else if says(&words) {
        words
    } else {
        return None;
    };
    seen.given.credential.then(|| {
        Finding::new(Code::Unauthorized)
            .because(format!(
                "{}: the server says that the credential that was sent has expired: {says_so}",
                status_line(received)
            ))
            .fix(
                "get a new one, and let the client get one before each connection and reconnection: a page keeps what \
                 it had when it was loaded",
            )
    })
}

fn not_found(seen: &Observations, received: &Received) -> Finding {
    let path = path(seen);
    let tried = origin::is_undecided(seen);
    Finding::new(Code::NotFound)
        .because(format!("{}: there is nothing at the path `{path}`", status_line(received)))
        .detail(words(received))
        .fix(format!(
            "check the path, and the prefix that a proxy in front adds or removes\nsome servers respond so to a \
             handshake that lost its Upgrade on the way{}",
            if tried { ", and Rails (Action Cable) to an origin that it does not allow: try it with --origin" } else { "" }
        ))
}

/// The servers that the responses name; one that rejects may not name itself.
fn servers(seen: &Observations) -> String {
    let probes = seen.probes.iter().map(|(_, exchange)| exchange);
    let received =
        [&seen.main].into_iter().chain(probes).filter_map(|exchange| exchange.received());
    let servers = received.filter_map(|received| received.head.text("server"));
    servers.collect::<Vec<_>>().join(" ").to_ascii_lowercase()
}

fn forbidden(seen: &Observations, received: &Received) -> Finding {
    let status = status_line(received);
    let servers = servers(seen);
    if servers.contains("uvicorn") || servers.contains("hypercorn") {
        return Finding::new(Code::Forbidden)
            .because(format!(
                "{status}: FastAPI and Starlette send it if no WebSocket route has this path, and also if the \
                 application closes before accept(): the status does not tell which"
            ))
            .detail(words(received))
            .fix(format!(
                "compare the path `{}` with the routes of the application (`@app.websocket(…)`, a prefix, a trailing \
                 slash)\nthen look for what closes before accept(): a check of the credential or the origin",
                path(seen)
            ));
    }
    if origin::is_undecided(seen) {
        return origin::undecided(seen, &status).detail(words(received));
    }
    let finding = Finding::new(Code::Forbidden)
        .because(format!("{status}: the server does not allow this handshake"));
    let finding = finding.detail(words(received));
    if seen.given.credential {
        finding.fix("check the rights of the credential, and the path")
    } else {
        finding
    }
}

/// A response that only the proxy makes.
fn by_proxy(seen: &Observations, received: &Received, proxy: Proxy) -> Finding {
    let status = received.head.status;
    let (line, name) = (status_line(received), proxy.name());
    // Both are servers of their own, too.
    if status == 404 && matches!(proxy, Proxy::Nginx | Proxy::Apache) {
        return Finding::new(Code::NotFound)
            .because(format!(
                "{line}: this is {name}'s own page: no rule of it sends the path `{}` to the server of the WebSocket",
                path(seen)
            ))
            .fix(format!("add a rule for this path: {}", proxy.upgrade()));
    }
    let explanation = match who::meaning(received, proxy) {
        Some(meaning) => format!("{line}, made by {name}: {meaning}"),
        None => format!("{line}: this page is made by {name}, not by the server behind it"),
    };
    Finding::new(Code::Intermediary).because(explanation).fix(who::gateway_fix(received, proxy))
}

/// A fault that goes away with fewer headers.
fn bare_is_accepted(seen: &Observations) -> Option<Finding> {
    let accepts = |probe: &Probe| seen.made(probe).is_some_and(is_usable);
    if accepts(&Probe::ConnectionAlone) {
        return Some(Finding::new(Code::ConnectionListRejected).because(format!(
            "the server rejects `Connection: keep-alive, Upgrade`, as Firefox sends it ({}), and accepts `Connection: \
             Upgrade`",
            result(&seen.main)
        )));
    }
    accepts(&Probe::Bare).then(|| {
        Finding::new(Code::Rejected)
            .because(format!(
                "the server rejects the headers of a browser ({}), and accepts with no more than RFC 6455 requires \
                 (--as bare): most likely it fails at the offer of permessage-deflate",
                result(&seen.main)
            ))
            .fix(
                "let the server ignore extensions that it does not know; a rule for User-Agent or another header of \
                 browsers is possible too: -H 'Sec-WebSocket-Extensions:' leaves out the offer alone",
            )
    })
}

fn is_tls_port(text: &str) -> bool {
    [
        "plain http request was sent to https port",
        "speaking plain http to an ssl-enabled server port",
        "client sent an http request to an https server",
        "this combination of host and port requires tls",
        "http request was sent to https port",
    ]
    .iter()
    .any(|words| text.contains(words))
}

pub(crate) fn tls_port(seen: &Observations, evidence: &str) -> Finding {
    Finding::new(Code::TlsPort)
        .because("the port speaks TLS, and the URL asks for none (ws)")
        .detail(evidence)
        .fix(format!("use {}", seen.main.target.with_tls(true)))
}

fn is_client_certificate(text: &str) -> bool {
    [
        "no required ssl certificate was sent",
        "the ssl certificate error",
        "client certificate required",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn is_challenge(received: &Received) -> bool {
    let head = &received.head;
    let waf = head.text("x-amzn-waf-action").unwrap_or_default();
    head.text("cf-mitigated").is_some_and(|value| value.eq_ignore_ascii_case("challenge"))
        || ["challenge", "captcha"].contains(&&*waf.to_ascii_lowercase())
        || head.get("x-datadome").is_some() && matches!(head.status, 401 | 403)
        || (matches!(head.status, 403 | 503) && received.text.contains("Just a moment..."))
}

/// A redirect or a page of a network that wants a login.
fn is_portal(received: &Received) -> bool {
    let location = received.head.text("location").unwrap_or_default().to_ascii_lowercase();
    ["captive", "hotspot", "portal.", "/portal", "wifi", "guestlogin", "generate_204", "fgtauth"]
        .iter()
        .any(|mark| location.contains(mark))
}
