//! A response that rejects the handshake.

use serde_json::Value;
use tower_ws_guard::{RejectionKind, client::FindingKind};

use super::origin;
use crate::{
    codes::Code,
    exchange::{Exchange, Received},
    finding::Finding,
    probe::{Observations, Probe, is_better, is_usable},
    target::Target,
    who::{self, Proxy},
};

/// The result of an exchange in a few words, for a comparison.
pub(crate) fn describe(exchange: &Exchange) -> String {
    crate::report::result(exchange)
}

/// The status and its reason.
fn status_line(received: &Received) -> String {
    let head = &received.head;
    let known =
        http::StatusCode::from_u16(head.status).ok().and_then(|status| status.canonical_reason());
    let reason = if head.reason.is_empty() { known.unwrap_or_default() } else { &head.reason };
    format!("{} {reason}", head.status).trim().to_owned()
}

pub(crate) fn findings(seen: &Observations, received: &Received) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = own_code(received);
    let origin = origin::finding(seen);
    let host_changed =
        origin.as_ref().is_some_and(|finding| finding.code == Code::HostChanged.as_str());
    if host_changed {
        findings.extend(origin);
        findings.extend(own);
    } else {
        findings.extend(own);
        findings.extend(origin);
    }
    let is_explained = !findings.is_empty();
    let by_status = by_status(seen, received, is_explained);
    findings.extend(by_status);
    if seen.is_flaky() {
        let again = seen.made(&Probe::Repeat).map(describe).unwrap_or_default();
        if let Some(first) = findings.first_mut() {
            first.explanation.push_str(&format!("; the same request once more: {again}"));
            first.fix = format!(
                "the server is not consistent, so neither origin nor path is to blame: compare its instances behind \
                 the load balancer, and look for limits; then: {}",
                first.fix
            );
        }
    } else if seen.is_limited()
        && let Some(first) = findings.first_mut()
    {
        first.explanation.push_str("; the probes that could tell the cause got 429, so it is open");
    }
    let defects = received.head.defects.join("; ");
    if !defects.is_empty() {
        findings.push(Finding::new(Code::MalformedResponse).detail(defects));
    }
    findings
}

/// A code that the server itself gives: problem+json, or text of `tower-ws-guard`.
fn own_code(received: &Received) -> Option<Finding> {
    let problem: Option<Value> = serde_json::from_slice(&received.body.bytes).ok();
    let field = |name: &str| problem.as_ref()?.get(name)?.as_str().map(str::to_owned);
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
    let title = field("title").or_else(|| kind.map(|kind| kind.title().to_owned()));
    let words = title.into_iter().chain(field("detail")).collect::<Vec<_>>().join("; ");
    let words = if words.is_empty() { code.clone() } else { words };
    let explanation = format!("the server says why ({}): {words}", status_line(received));
    let fix = match (kind, field("fix")) {
        (Some(kind), _) => kind.fix().to_owned(),
        (None, Some(fix)) => fix,
        (None, None) => "look up the code in the documentation of the server".into(),
    };
    Some(Finding::of_server(&code, explanation, fix))
}

/// A name as codes are: short, and safe to show as one.
fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What the server says in its body, in one line: the title and the detail of a problem, or the
/// begin of the text.
fn words(received: &Received) -> String {
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

fn by_status(seen: &Observations, received: &Received, is_explained: bool) -> Vec<Finding> {
    let head = &received.head;
    let status = head.status;
    let text = received.text.to_ascii_lowercase();
    let say = |code: Code| {
        Finding::new(code).because(format!("{}: {}", status_line(received), code.explanation()))
    };
    let server = head.text("server").unwrap_or_default();

    if status == 511 || is_portal(received) {
        return vec![say(Code::CaptivePortal).detail(target_of(seen, received))];
    }
    if status == 407 {
        return vec![
            say(Code::ProxyLogin).detail(head.text("proxy-authenticate").unwrap_or_default()),
        ];
    }
    if is_challenge(received) {
        return vec![say(Code::BotChallenge)];
    }
    if is_tls_port(&text) {
        return vec![tls_port(seen, &words(received))];
    }
    if is_client_certificate(&text) || status == 496 || status == 495 {
        return vec![say(Code::ClientCertificateRequired).detail(words(received))];
    }
    if (300..400).contains(&status) {
        return vec![redirected(seen, received)];
    }
    if let Err(findings) = &received.check
        && findings.as_slice().iter().any(|finding| finding.kind() == FindingKind::VersionRejected)
    {
        let versions = head.text("sec-websocket-version").unwrap_or_default();
        return vec![say(Code::VersionRefused).because(format!(
            "{}: the server does not support the version that was sent, only `{versions}`",
            status_line(received)
        ))];
    }
    if let Some(proxy) = who::author(received)
        && !(status == 200 || status == 101)
        && !is_explained
    {
        return by_proxy(seen, received, proxy);
    }
    if let Some(finding) = bare_is_accepted(seen) {
        return vec![finding];
    }
    match status {
        401 => {
            let scheme = head.text("www-authenticate");
            let scheme = scheme.map(|scheme| format!("it asks for `{scheme}`")).unwrap_or_default();
            let words = [scheme, words(received)].into_iter().filter(|word| !word.is_empty());
            let finding = say(Code::Unauthorized).detail(words.collect::<Vec<_>>().join("; "));
            vec![if seen.given.credential {
                finding.fix(
                    "the credential that was sent is not the one that the server expects: check that it is valid, \
                     not expired, and where the server looks for it (--token-in)",
                )
            } else {
                finding
            }]
        }
        403 if is_explained => vec![say(Code::Forbidden).detail(words(received))],
        403 => forbidden(seen, received, &server),
        429 => {
            let after = head.text("retry-after").map(|after| format!("Retry-After is {after}"));
            vec![say(Code::RateLimited).detail(after.unwrap_or_default())]
        }
        503 => vec![say(Code::Unavailable).detail(words(received))],
        _ => {
            let upgrade = upgrade(seen, received, &server, &text);
            let is_origin = is_explained;
            match upgrade {
                Some(finding) if !is_origin => vec![finding],
                _ if status == 404 => vec![not_found(seen, received)],
                _ => vec![
                    signal_r(received, &text)
                        .unwrap_or_else(|| say(Code::Rejected).detail(words(received))),
                ],
            }
        }
    }
}

fn not_found(seen: &Observations, received: &Received) -> Finding {
    Finding::new(Code::NotFound)
        .because(format!(
            "{}: there is nothing at the path `{}`",
            status_line(received),
            seen.main.target.path()
        ))
        .detail(words(received))
}

/// SignalR: a socket without a connection of the negotiation, or of another instance.
fn signal_r(received: &Received, text: &str) -> Option<Finding> {
    text.contains("no connection with that id").then(|| {
        Finding::new(Code::Rejected)
            .because(format!(
                "{}: SignalR says `No Connection with that ID`: the id in the URL is of another server instance, has \
                 expired, or there was no negotiation",
                status_line(received)
            ))
            .fix(
                "turn sticky sessions on in the load balancer (or use Azure SignalR Service); a client of your own \
                 calls POST …/negotiate first and connects with its connectionToken, or skips negotiation and sends no \
                 id",
            )
    })
}

fn forbidden(seen: &Observations, received: &Received, server: &str) -> Vec<Finding> {
    let undecided = origin::is_undecided(seen).then(|| {
        let tried = seen.origin_probes().map(|(probe, exchange)| format!("{}: {}", probe.name(), describe(exchange)));
        let tried = tried.collect::<Vec<_>>().join(", ");
        Finding::new(Code::OriginUndecided).because(format!(
            "{}: the server rejects the handshake with each origin that was tried ({tried}), so the cause is an origin \
             that is not on its list, the credential, or the path",
            status_line(received)
        ))
    });
    let forbidden = Finding::new(Code::Forbidden)
        .because(format!("{}: the server does not allow this handshake", status_line(received)));
    if server.eq_ignore_ascii_case("uvicorn") || server.to_ascii_lowercase().contains("hypercorn") {
        let forbidden = forbidden
            .because(format!(
                "{}: {server} sends 403 for every handshake that the application does not accept: a path without a \
                 WebSocket route, as often as a rejected credential or origin",
                status_line(received)
            ))
            .fix(format!(
                "compare the path `{}` with the routes of the application (`@app.websocket(…)`, a prefix, a trailing \
                 slash); then look for `websocket.close()` before `accept()` in it",
                seen.main.target.path()
            ));
        return [Some(forbidden), undecided].into_iter().flatten().collect();
    }
    let forbidden = forbidden.detail(words(received));
    let forbidden = if seen.given.credential {
        forbidden.fix("check the rights of the credential, and the path")
    } else {
        forbidden
    };
    undecided.into_iter().chain([forbidden]).collect()
}

/// A response that only the proxy makes.
fn by_proxy(seen: &Observations, received: &Received, proxy: Proxy) -> Vec<Finding> {
    let status = received.head.status;
    let meaning = who::meaning(status, proxy);
    if proxy == Proxy::Apache && status != 502 && status != 503 && status != 504
        || proxy == Proxy::Nginx && status == 404
    {
        // Apache and nginx are servers of their own, too.
        let name = proxy.name();
        if status == 404 {
            return vec![not_found(seen, received)
                .because(format!(
                    "{}: this is {name}'s own page: no rule of it sends the path `{}` to the server of the WebSocket",
                    status_line(received),
                    seen.main.target.path()
                ))
                .fix(format!("add a location for this path, and {}", proxy.upgrade()))];
        }
    }
    let explanation = match meaning {
        Some(meaning) => format!("{}, made by {}: {meaning}", status_line(received), proxy.name()),
        None => format!(
            "{}: this page is made by {}, not by the server behind it",
            status_line(received),
            proxy.name()
        ),
    };
    let finding =
        Finding::new(Code::Intermediary).because(explanation).fix(who::gateway_fix(status, proxy));
    let undecided =
        (status == 403 && origin::is_undecided(seen)).then(|| Finding::new(Code::OriginUndecided));
    [Some(finding), undecided].into_iter().flatten().collect()
}

/// A fault that goes away with fewer headers.
fn bare_is_accepted(seen: &Observations) -> Option<Finding> {
    let bare = seen.made(&Probe::Bare)?;
    if !is_usable(bare) {
        return None;
    }
    let list = seen.main.variant.connection_list
        || seen.main.variant.style == crate::request::Style::Firefox;
    Some(if list && seen.made(&Probe::ConnectionList).is_none() {
        Finding::new(Code::ConnectionListRejected).because(format!(
            "the server rejects the headers of Firefox ({}), and accepts with `Connection: Upgrade` and no offer of an \
             extension",
            describe(&seen.main)
        ))
    } else {
        Finding::new(Code::Rejected)
            .because(format!(
                "the server rejects the headers of a browser ({}), and accepts with no more than RFC 6455 requires \
                 (--as bare): most likely it fails at the offer of permessage-deflate",
                describe(&seen.main)
            ))
            .fix(
                "let the server ignore extensions that it does not know; a rule for User-Agent or another header of \
                 browsers is possible too: -H 'Sec-WebSocket-Extensions:' leaves out the offer alone",
            )
    })
}

/// Whether the upgrade arrived: the same GET without it tells.
fn upgrade(seen: &Observations, received: &Received, server: &str, text: &str) -> Option<Finding> {
    let says_so = SAYS_NO_UPGRADE.iter().any(|words| text.contains(words));
    let without = seen.made(&Probe::WithoutUpgrade)?;
    let other = without.received()?;
    let is_same = other.head.status == received.head.status
        && skeleton(&other.text) == skeleton(&received.text);
    if !is_same && !says_so {
        return None;
    }
    if seen.origin_probes().any(|(_, exchange)| is_better(seen, exchange)) {
        return None;
    }
    let proxy = who::named(received);
    let status = status_line(received);
    let server_name = server.to_ascii_lowercase();
    if server_name == "uvicorn" && received.head.status == 404 {
        return Some(Finding::new(Code::NoWebsocketHere)
            .because(format!(
                "{status}: uvicorn takes the handshake for an ordinary request: it has no WebSocket library"
            ))
            .fix("pip install 'uvicorn[standard]' (or websockets, or wsproto), and restart it; its log says `No supported WebSocket library detected`"));
    }
    let what = words(received);
    if says_so || proxy.is_some() {
        let proxy = proxy.unwrap_or(Proxy::Other);
        let evidence = if is_same {
            "the same request without Upgrade gets the same response"
        } else {
            "the server says so"
        };
        let finding = Finding::new(Code::UpgradeStripped).because(format!(
            "{status}: the upgrade did not arrive at the server ({evidence}): {} in front does not pass it on, or \
             nothing at this path speaks WebSocket",
            proxy.name()
        ));
        return Some(finding.detail(what).fix(proxy.upgrade()));
    }
    let finding = Finding::new(Code::NoWebsocketHere).because(format!(
        "{status}: nothing at the path `{}` speaks WebSocket: an ordinary request gets the same response",
        seen.main.target.path()
    ));
    let finding = finding.detail(what);
    Some(finding.fix(
        "check the path, and that the WebSocket support of the server is enabled; if there is a proxy in front, let it \
         pass Upgrade and Connection on (nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection \"upgrade\";`)",
    ))
}

/// What servers say when the upgrade did not arrive.
const SAYS_NO_UPGRADE: &[&str] = &[
    "no websocket upgrade hdr",
    "can \"upgrade\" only to \"websocket\"",
    "\"connection\" must be \"upgrade\"",
    "'upgrade' token not found",
    "connection header did not include 'upgrade'",
    "`upgrade` header did not include",
    "not a websocket handshake",
    "missing upgrade",
    "invalid upgrade header",
    "upgrade required",
    "expected upgrade",
    "expected a websocket",
    "not a websocket request",
    "websocket upgrade required",
];

/// The text without what changes from request to request: words with digits in them.
fn skeleton(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
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
        .because("the port speaks TLS, and the URL says ws:")
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

fn target_of(seen: &Observations, received: &Received) -> String {
    let location = received.head.text("location");
    location
        .map(|location| match seen.main.target.redirected(&location) {
            Some(_) => format!("it leads to `{location}`"),
            None => format!("it leads to `{location}`, which is no web address"),
        })
        .unwrap_or_default()
}

fn redirected(seen: &Observations, received: &Received) -> Finding {
    let from = &seen.main.target;
    let status = status_line(received);
    let finding = Finding::new(Code::Redirected);
    let Some(location) = received.head.text("location") else {
        return finding
            .because(format!("{status}: the server redirects without saying where (no Location)"));
    };
    let Some(to) = from.redirected(&location) else {
        return finding.because(format!(
            "{status}: the server redirects to `{location}`, which is no web address"
        ));
    };
    let path = to.path().to_ascii_lowercase();
    let is_login = ["login", "signin", "sign-in", "sign_in", "auth", "sso", "saml"]
        .iter()
        .any(|word| path.contains(word));
    let (why, fix) = if is_login {
        (
            format!("to a login page, `{to}`: the handshake has no valid session"),
            "send the cookie of the session with -b 'NAME=VALUE'; let the server respond to a handshake with 401 \
             in place of a redirect"
                .to_owned(),
        )
    } else if is_same_but(from, &to, |from| from.with_tls(true))
        || (!from.tls() && to.tls() && from.host() == to.host())
    {
        ("from ws: to wss:".to_owned(), format!("use {to}"))
    } else if to.path().trim_end_matches('/') == from.path().trim_end_matches('/')
        && to.authority() == from.authority()
    {
        ("to the path with another slash at its end".to_owned(), format!("use {to}"))
    } else if to.host() != from.host() {
        (format!("to another host, `{}`", to.host()), format!("use {to}"))
    } else {
        (format!("to `{to}`"), format!("use {to}"))
    };
    finding
        .because(format!(
            "{status}: the server redirects {why}; browsers do not follow a redirect of a WebSocket"
        ))
        .fix(format!("{fix}; -L follows it here"))
}

fn is_same_but(from: &Target, to: &Target, change: impl Fn(&Target) -> Target) -> bool {
    change(from) == *to
}
