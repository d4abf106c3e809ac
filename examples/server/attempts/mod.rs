//! The handshakes of the page: those of a list, and what the user writes.
//!
//! A browser can send few of them, so the server sends them: over a connection in memory, to the
//! guard of `/ws` and to an endpoint without a guard. They reach nothing else, and take no slot of
//! the limits.

mod list;
mod request;
mod verdict;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::ConnectInfo,
    http::StatusCode,
    middleware::{Next, from_fn},
    routing::{MethodRouter, any},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_ws_guard::{
    Rejection, RejectionKind,
    guard::{Step, Verdict},
};

use self::{
    list::{ATTEMPTS, Attempt},
    request::{Request, Valid},
    verdict::{Ought, Outcome},
    wire::{Response, exchange, header},
};
use crate::{
    log::Kept,
    options::{Explain, Options},
    unguarded,
};

/// At once. Others wait.
const MAX_ATTEMPTS: usize = 8;

pub(crate) struct Attempts {
    valid: Valid,
    tickets: bool,
    closes: bool,
    report_only: bool,
    guarded: MethodRouter,
    explain: Explain,
    running: Semaphore,
}

impl Attempts {
    pub(crate) fn new(
        options: &Options,
        address: SocketAddr,
        guarded: MethodRouter,
        explain: Explain,
    ) -> Self {
        let scheme = if options.is_tls() { "https" } else { "http" };
        let host = options.allow_host.first().map(|pattern| matching(pattern));
        let host = host.unwrap_or_else(|| address.to_string());
        let listed = options.allow_origin.first();
        let valid = Valid {
            scheme,
            port: address.port(),
            origin: listed.map_or_else(|| format!("{scheme}://{host}"), |origin| matching(origin)),
            host,
            browsers: !options.no_browsers,
            subprotocol: options.subprotocol.first().cloned(),
            token: options.sources().into_iter().next().zip(options.token.first().cloned()),
        };
        Self {
            valid,
            tickets: options.tickets.is_some(),
            closes: options.closes(),
            report_only: options.report_only,
            guarded,
            explain,
            running: Semaphore::new(MAX_ATTEMPTS),
        }
    }

    fn available(&self) -> impl Iterator<Item = &'static Attempt> {
        let (browsers, tokens, tickets) =
            (self.valid.browsers, self.valid.token.is_some(), self.tickets);
        ATTEMPTS.iter().filter(move |attempt| attempt.is_possible(browsers, tokens, tickets))
    }

    /// For the page: what each attempt sends, and why.
    pub(crate) fn list(&self) -> Value {
        let attempts = self.available().map(|attempt| {
            json!({
                "id": attempt.id,
                "group": attempt.group,
                "title": attempt.title,
                "summary": attempt.summary,
                "ought": attempt.ought.as_str(),
                "request": self.valid.request(attempt).shown,
            })
        });
        attempts.collect()
    }

    /// `None` if there is no such attempt.
    pub(crate) async fn make(&self, id: &str) -> Option<io::Result<Value>> {
        let attempt = self.available().find(|attempt| attempt.id == id)?;
        Some(self.send(&self.valid.request(attempt), attempt.ought).await)
    }

    /// Makes an attempt of these bytes.
    pub(crate) async fn make_own(&self, text: String) -> io::Result<Value> {
        let request = Request { shown: text.clone(), text, ..Request::default() };
        self.send(&request, Ought::Unknown).await
    }

    async fn send(&self, request: &Request, ought: Ought) -> io::Result<Value> {
        let _running = self.running.acquire().await.map_err(io::Error::other)?;
        let log = Kept::default();
        let kept = log.clone();
        let rejected = Arc::new(OnceLock::new());
        let reason = Arc::clone(&rejected);
        let keep = from_fn(move |request, next: Next| {
            let (response, reason) = (kept.during(next.run(request)), Arc::clone(&reason));
            async move {
                let response = response.await;
                // Not every style of rejections names it.
                if let Some(rejection) = response.extensions().get::<Rejection>() {
                    reason.set(rejection.kind()).ok();
                }
                response
            }
        });
        let guarded = Router::new().route("/ws", self.guarded.clone()).layer(keep);
        let unguarded = Router::new().route("/ws", any(unguarded::accept));
        let response = exchange(guarded, &request.text, self.closes).await?;
        let unguarded = exchange(unguarded, &request.text, false).await?;

        let mut report = report(request, &response);
        report["unguarded"] = json!({ "status": unguarded.status, "status_line": status_line(&unguarded), "head": unguarded.head, "opens": unguarded.opens });
        // Bytes that are not HTTP have no head.
        let explanation = wire::head(&request.text).map(|mut head| {
            head.extensions.insert(ConnectInfo(wire::PEER));
            (self.explain)(&head)
        });
        let would_reject = explanation.as_ref().and_then(|it| it.rejection());
        report["verdict"] = ought.judge(&Outcome {
            accepted: response.opens && response.close().is_none(),
            report_only: self.report_only,
            kind: rejected.get().copied(),
            would_reject: would_reject.map(|rejection| rejection.kind()),
        });
        report["log"] = log.lines().into();
        report["steps"] = explanation.iter().flat_map(|it| it.steps()).map(step).collect();
        Ok(report)
    }
}

/// One of the hosts or origins that match a pattern.
fn matching(pattern: &str) -> String {
    let pattern = pattern.strip_suffix(":*").unwrap_or(pattern);
    pattern.to_ascii_lowercase().replace('*', "www")
}

fn step(step: &Step) -> Value {
    let verdict = match step.verdict() {
        Verdict::Accepted(_) => "accepted",
        Verdict::Rejected(_) => "rejected",
        _ => "unknown",
    };
    let text = step.to_string();
    let text = text.splitn(3, ": ").last().unwrap_or_default();
    json!({ "name": step.name(), "verdict": verdict, "text": text })
}

/// Such as `403 Forbidden`, also over HTTP/2.
fn status_line(response: &Response) -> String {
    StatusCode::from_u16(response.status)
        .map_or_else(|_| response.status.to_string(), |status| status.to_string())
}

/// The rejection that the response names.
fn kind(response: &Response) -> Option<RejectionKind> {
    let code = code(response)?;
    RejectionKind::ALL.iter().find(|kind| kind.code() == code).copied()
}

fn code(response: &Response) -> Option<String> {
    let problem = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
    let code = problem["code"].as_str().map(str::to_owned);
    code.or_else(|| response.close().map(|(_, reason)| reason))
}

fn report(request: &Request, response: &Response) -> Value {
    let close = response.close();
    let kind = kind(response);
    let cause = match close {
        None if response.opens => Some("the handshake was accepted"),
        _ => kind.map(RejectionKind::title),
    };
    let body = match &close {
        Some((code, reason)) => format!("a close frame: {code} {reason}"),
        None => String::from_utf8_lossy(&response.body).into_owned(),
    };
    json!({
        "request": request.shown,
        "changed": request.changed,
        "left_out": request.left_out,
        "response_head": response.head,
        "body": body,
        "status": response.status,
        "status_line": status_line(response),
        "accepted": response.opens && close.is_none(),
        "code": code(response),
        "cause": cause,
        "fix": kind.map(RejectionKind::fix),
        "url": kind.and_then(RejectionKind::url),
        "browser": browser_events(request, response),
    })
}

/// What a script would see if its browser had sent this. It never sees the status or the body of a
/// rejection.
fn browser_events(request: &Request, response: &Response) -> Value {
    let subprotocol = "sec-websocket-protocol";
    // WHATWG WebSockets: a response that selects none of the offered subprotocols fails the
    // connection.
    let unselected = header(&request.text, subprotocol).is_some()
        && header(&response.head, subprotocol).is_none();
    if response.opens && !unselected {
        let open = json!({ "type": "open" });
        return match response.close() {
            Some((code, reason)) => {
                json!([open, { "type": "close", "code": code, "reason": reason, "wasClean": true }])
            }
            None => json!([open]),
        };
    }
    json!([
        { "type": "error" },
        { "type": "close", "code": 1006, "reason": "", "wasClean": false },
    ])
}
