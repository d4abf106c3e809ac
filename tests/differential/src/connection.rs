//! A server's connection in memory, without a runtime: what comes of bytes is the same each time.

use std::{
    convert::Infallible,
    future::Future,
    io, mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use tower::{Layer, Service, ServiceExt, util::BoxCloneService};
use tower_ws_guard::{
    Claims, GuardLayer, OriginCheckLayer, PendingUpgrade, Permit, RejectionResponse,
    ResponderLayer, TokenCheckLayer, VersionCheckLayer, response_fn,
};

use crate::{
    oracle::{self, Accepted, Judgement, Policy, TOKENS, Verdict, judge_stream},
    policies,
};

pub type Body = Empty<Bytes>;
/// What an app does behind the guard; it is given the head alone.
pub type Inner = BoxCloneService<Request<()>, Response<Body>, Infallible>;
pub type App<B = Incoming> = BoxCloneService<Request<B>, Response<Body>, Infallible>;

/// What each response says of itself: the code of a rejection, `ordinary`, or `accepted`.
pub const CODE: &str = "x-code";

/// What is rejected says why.
pub fn coded() -> impl RejectionResponse<Body> + Clone + Send + Sync + 'static {
    response_fn(
        |rejection: &tower_ws_guard::Rejection,
         _: &http::request::Parts,
         prepared: Response<()>| {
            let mut response = prepared.map(|()| Body::new());
            response
                .headers_mut()
                .insert(CODE, rejection.kind().code().parse().expect("a code is a value"));
            response
        },
    )
}

/// Puts the guard in front of `inner`.
pub fn guarded<B, S>(policy: &Policy, inner: S) -> App<B>
where
    B: Send + 'static,
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let responder = coded();
    if policy.separate {
        return separate(policy, responder, inner);
    }
    let mut guard = GuardLayer::new(policies::allow_origin(policy)).reject_with(responder);
    if let Some(hosts) = policies::allow_host(policy) {
        guard = guard.allow_host(hosts);
    }
    if let Some(subprotocols) = policies::subprotocols(policy) {
        guard = guard.subprotocols(subprotocols);
    }
    if policy.accept_unmatched {
        guard = guard.accept_unmatched_subprotocols();
    }
    if let Some(limit) = policies::limit(policy) {
        guard = guard.limit(limit);
    }
    if let Some(drain) = policies::drain(policy) {
        guard = guard.drain(&drain);
    }
    if let Some(extensions) = policies::extensions(policy) {
        guard = guard.extensions(extensions);
    }
    if policy.report_only {
        guard = guard.dangerous_report_only();
    }
    if let Some(token) = policies::token(policy) {
        guard = guard.token(token).unwrap();
    }
    match policy.completes {
        true => BoxCloneService::new(guard.respond().layer(inner)),
        false => BoxCloneService::new(guard.layer(inner)),
    }
}

/// The checks in the order that is documented, with hosts, subprotocols and a token; an [`inner`](responder) is their responder, or a
/// layer of them.
fn separate<R, B, S>(policy: &Policy, responder: R, inner: S) -> App<B>
where
    R: RejectionResponse<Body> + Clone + Send + Sync + 'static,
    B: Send + 'static,
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    const WHOLE: &str = "a policy of all layers";
    let version = VersionCheckLayer::new().reject_with(responder.clone());
    let origin =
        OriginCheckLayer::new(policies::allow_origin(policy)).reject_with(responder.clone());
    let origin = origin.allow_host(policies::allow_host(policy).expect(WHOLE));
    let token =
        TokenCheckLayer::new(policies::token(policy).expect(WHOLE)).reject_with(responder.clone());
    let token = token.subprotocols(policies::subprotocols(policy).expect(WHOLE));
    let inner = match policy.completes {
        true => {
            let layer = ResponderLayer::new().reject_with(responder);
            let layer = layer.subprotocols(policies::subprotocols(policy).expect(WHOLE));
            let layer = layer.extensions(policies::extensions(policy).expect(WHOLE));
            BoxCloneService::new(layer.layer(inner))
        }
        false => BoxCloneService::new(inner),
    };
    BoxCloneService::new(version.layer(origin.layer(token.layer(inner))))
}

/// Runs `inner` for handshakes, and answers everything else itself, WebTransport among it. What it saw is in `calls`.
pub fn recorded<B>(
    inner: Inner,
    calls: Calls,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    B: hyper::body::Body<Data: Send> + Send + 'static,
{
    tower::service_fn(move |request: Request<B>| {
        let inner = inner.clone();
        let (mut parts, body) = request.into_parts();
        let permit = Permit::claim(&mut parts.extensions);
        let head = Request::from_parts(parts, ());
        let (is_upgrade, is_webtransport) =
            (is_upgrade(&head), oracle::Head::from(&head).is_webtransport());
        calls.lock().expect("no panic before").push(head.clone());
        async move {
            if is_upgrade {
                let mut response = match is_webtransport {
                    true => answer(200, "accepted"),
                    false => inner.oneshot(head).await?,
                };
                // Held until the answer is out.
                response.extensions_mut().insert(permit);
                return Ok(response);
            }
            let body = body.collect().await;
            Ok(answer(if body.is_ok() { 404 } else { 400 }, "ordinary"))
        }
    })
}

pub type Calls = Arc<Mutex<Vec<Request<()>>>>;

pub fn answer(status: u16, code: &'static str) -> Response<Body> {
    let response = Response::builder().status(status).header(CODE, code);
    response.body(Body::new()).expect("a response")
}

/// Whether a lax handler might take what comes out of the guard for a handshake.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    let has = |name| request.headers().contains_key::<&str>(name);
    let websocket = |value: &str| value.to_ascii_lowercase().contains("websocket");
    let upgrades = request
        .headers()
        .get_all("upgrade")
        .iter()
        .any(|line| websocket(&String::from_utf8_lossy(line.as_bytes())));
    let session =
        |value: &str| websocket(value) || value.to_ascii_lowercase().contains("webtransport");
    let protocol =
        request.extensions().get::<hyper::ext::Protocol>().is_some_and(|it| session(it.as_str()));
    has("sec-websocket-key") || has("sec-websocket-version") || upgrades || protocol
}

/// Answers as this crate does: takes the connection from a layer that completes handshakes, which is here unless the policy has one.
pub fn responder(policy: &Policy) -> Inner {
    let handler = tower::service_fn(async |request: Request<()>| {
        let pending = request.extensions().get::<PendingUpgrade>();
        drop(pending.and_then(PendingUpgrade::accept));
        Ok(answer(200, "accepted"))
    });
    if policy.completes {
        return Inner::new(handler);
    }
    let layer = match policies::subprotocols(policy) {
        Some(subprotocols) => ResponderLayer::new().subprotocols(subprotocols),
        None => ResponderLayer::new().accept_unmatched_subprotocols(),
    };
    Inner::new(layer.layer(handler))
}

/// The head of a response, as it was on the wire.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(there, _)| there == name).map(|(_, value)| &**value)
    }

    fn has(&self, name: &str, element: &str) -> bool {
        self.lines(name)
            .flat_map(|line| line.split(','))
            .any(|it| it.trim().eq_ignore_ascii_case(element))
    }
}

/// What came of the bytes of a connection.
#[derive(Debug)]
pub struct Outcome {
    /// What the services behind the guard saw.
    pub calls: Vec<Request<()>>,
    pub responses: Vec<Head>,
    /// The server closed the connection, or switched it to another protocol.
    pub ended: bool,
    pub written: Vec<u8>,
}

/// Serves `input`, which arrives in pieces of `piece` bytes, until the server waits for more.
pub fn serve(app: &App, calls: &Calls, input: Vec<u8>, piece: usize) -> Outcome {
    let written = Arc::new(Mutex::new(Vec::new()));
    let io = Memory { input, at: 0, piece, written: Arc::clone(&written) };
    let app = service_fn(|request| app.clone().oneshot(request));
    let connection = http1::Builder::new().serve_connection(io, app).with_upgrades();
    let ended = run(connection).is_some();
    let written = written.lock().expect("no panic before").clone();
    let responses = read_heads(&written);
    Outcome {
        calls: mem::take(&mut *calls.lock().expect("no panic before")),
        responses,
        ended,
        written,
    }
}

/// Gives `app` a request as it comes out of HTTP/2.
pub fn serve_stream(
    app: &App<Body>,
    calls: &Calls,
    request: Request<()>,
) -> (Vec<Request<()>>, Response<()>) {
    let mut request = request.map(|()| Body::new());
    // A server puts this there.
    let on_upgrade = hyper::upgrade::on(&mut request);
    request.extensions_mut().insert(on_upgrade);
    let Ok(response) = run(app.clone().oneshot(request)).expect("nothing to wait for");
    (mem::take(&mut *calls.lock().expect("no panic before")), response.map(drop))
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls until nothing wakes it any more.
pub fn run<F: Future>(future: F) -> Option<F::Output> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    while woken.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

/// A client that sends all it has, and then waits without closing.
struct Memory {
    input: Vec<u8>,
    at: usize,
    piece: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.input.len().min(self.at + self.piece.min(cursor.remaining()));
        if end == self.at {
            return Poll::Pending;
        }
        cursor.put_slice(&self.input[self.at..end]);
        self.at = end;
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.lock().expect("no panic before").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// No response here has a body.
fn read_heads(written: &[u8]) -> Vec<Head> {
    let text = String::from_utf8_lossy(written);
    let heads = text.split_terminator("\r\n\r\n").map(|head| {
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let fields = lines.map(|line| line.split_once(':').expect("a field"));
        let fields = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Head { status: status.expect("a status line"), fields }
    });
    heads.filter(|head| head.status != 100).collect()
}

/// Whether a rejection with this code asks for the credentials that the policy takes, and no other response for any.
fn asks<'a>(policy: &Policy, code: &str, lines: impl Iterator<Item = &'a str>) -> bool {
    let lines = lines.collect::<Vec<_>>().join(", ");
    match oracle::challenges(policy, code)[..] {
        [one, other] => lines == format!("{one}, {other}") || lines == format!("{other}, {one}"),
        ref expected => lines == expected.concat(),
    }
}

/// What came of the last request that anything came of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Accepted,
    /// Let in by the guard, and rejected by the handler.
    Declined,
    Ordinary,
    Rejected(String),
    /// Rejected by hyper, before it reached a service.
    ByHyper,
    /// Not a whole request.
    Unfinished,
    /// hyper took what a recipient may reject, and the oracle cannot tell where the next request begins.
    Lost,
}

/// Holds each handshake behind the guard against the policy by itself, whatever it came from.
///
/// # Errors
///
/// Why one of them should not be there.
pub fn judge_admitted(calls: &[Request<()>], policy: &Policy) -> Result<(), &'static str> {
    calls.iter().filter(|call| is_upgrade(call)).try_for_each(|call| {
        oracle::Head::from(call).judge_admitted(policy)?;
        // The token is gone, and what it stands for is there in its place.
        match policy.sources.is_empty() || call.extensions().get::<Claims<()>>().is_some() {
            true => Ok(()),
            false => Err("no claims"),
        }
    })
}

/// Holds the extensions that the handler is shown, and told of, against those that the client offers.
///
/// # Errors
///
/// Where they differ.
pub fn judge_extensions(
    accepted: &Accepted,
    policy: &Policy,
    call: &Request<()>,
) -> Result<(), &'static str> {
    let shown = oracle::Head::from(call);
    let lines = shown.lines("sec-websocket-extensions");
    accepted.extensions.judge_shown(policy.extensions.is_some(), lines)?;
    let pending = call.extensions().get::<PendingUpgrade>();
    if pending.is_some() != policy.completes {
        return Err("a connection to accept, or none");
    }
    let told = pending.and_then(|pending| pending.extensions().permessage_deflate());
    let agreed = accepted.extensions.agreed.filter(|_| policy.completes);
    match told.map(|told| told.to_string()) == agreed.map(|agreed| agreed.text()) {
        true => Ok(()),
        false => Err("another agreement"),
    }
}

/// What a response names that completes a handshake: nobody behind the guard names an extension.
fn named_extensions(accepted: &Accepted, policy: &Policy) -> Option<String> {
    accepted.extensions.agreed.filter(|_| policy.completes).map(|agreed| agreed.text())
}

/// Holds what came of a request over HTTP/2 against what the oracle says of its head: the code of the answer.
///
/// # Errors
///
/// Where they differ.
pub fn compare_stream(
    head: &oracle::Head,
    policy: &Policy,
    calls: &[Request<()>],
    response: &Response<()>,
) -> Result<String, String> {
    let Judgement { verdict, lenient } = head.judge(policy);
    let code =
        response.headers().get(CODE).map_or("", |code| code.to_str().expect("a code is text"));
    let differ = |what: &str| {
        Err(format!(
            "{what}\npolicy: {}\n{head:?}\noracle: {verdict:?}\nbehind the guard: {calls:?}\n{response:?}",
            policy.name
        ))
    };
    let (expected, expected_upgrades) = match &verdict {
        Verdict::Accepted(_) => ("accepted", &[true][..]),
        Verdict::Ordinary => ("ordinary", &[false][..]),
        Verdict::Rejected(code) => (*code, &[][..]),
        Verdict::Malformed => unreachable!("a list of fields is no bytes"),
    };
    let may_differ = lenient.is_some() && response.status().as_u16() >= 400;
    if !may_differ
        && (code != expected || !calls.iter().map(is_upgrade).eq(expected_upgrades.iter().copied()))
    {
        return differ("another verdict");
    }
    if let Err(why) = judge_admitted(calls, policy) {
        return differ(&format!("behind the guard: {why}"));
    }
    let headers = response.headers();
    if ["connection", "upgrade", "sec-websocket-accept"]
        .iter()
        .any(|name| headers.contains_key(*name))
    {
        return differ("a header that HTTP/2 has no place for");
    }
    if (response.status() == StatusCode::OK) != (code == "accepted") {
        return differ("another status");
    }
    let asked = headers.get_all("www-authenticate").iter();
    if !asks(policy, code, asked.map(|line| line.to_str().expect("a challenge is text"))) {
        return differ("another challenge");
    }
    let shown = format!("{headers:?}");
    if TOKENS.iter().any(|token| shown.contains(token)) {
        return differ("a credential in an answer");
    }
    if let (Verdict::Accepted(accepted), false) = (&verdict, may_differ) {
        let named = headers.get_all("sec-websocket-protocol").iter();
        if policy.subprotocols.is_some() && !named.eq(&accepted.subprotocol) {
            return differ("another subprotocol");
        }
        let named = headers.get_all("sec-websocket-extensions").iter();
        if !named.eq(&named_extensions(accepted, policy)) {
            return differ("another extension");
        }
        if let [call] = calls
            && let Err(why) = judge_extensions(accepted, policy, call)
        {
            return differ(&format!("the extensions behind the guard: {why}"));
        }
    }
    Ok(code.to_owned())
}

/// Holds what came of a connection against what the oracle says of its bytes.
///
/// # Errors
///
/// Where they differ.
pub fn compare(input: &[u8], policy: &Policy, outcome: &Outcome) -> Result<End, String> {
    let judgements = judge_stream(input, policy);
    let differ = |what: &str| {
        let (calls, responses) =
            (outcome.calls.iter().map(is_upgrade).collect::<Vec<_>>(), &outcome.responses);
        Err(format!(
            "{what}\npolicy: {}\n{}\noracle: {judgements:?}\nupgrades behind the guard: {calls:?}\nanswers: {responses:?}",
            policy.name,
            input.escape_ascii().to_string().replace("\\r\\n", "\\r\\n\n"),
        ))
    };
    if TOKENS
        .iter()
        .any(|token| outcome.written.windows(token.len()).any(|it| it == token.as_bytes()))
    {
        return differ("a credential in an answer");
    }
    if let Err(why) = judge_admitted(&outcome.calls, policy) {
        return differ(&format!("behind the guard: {why}"));
    }
    let switched = outcome.responses.iter().filter(|response| response.status == 101).count();
    if switched > outcome.calls.iter().filter(|call| is_upgrade(call)).count() {
        return differ("a 101 for what is no handshake");
    }
    let mut calls = outcome.calls.iter();
    let mut responses = outcome.responses.iter();
    let mut end = End::Unfinished;
    for Judgement { verdict, lenient } in &judgements {
        let Some(response) = responses.next() else {
            // A body that never ends is waited for; the request is there. So is the end of a malformed head.
            match (verdict, lenient) {
                (Verdict::Ordinary, Some(_)) if !calls.any(is_upgrade) => {
                    return Ok(End::Unfinished);
                }
                (Verdict::Malformed, _) if calls.next().is_none() => return Ok(End::Unfinished),
                _ => return differ("no answer"),
            }
        };
        let code = response.lines(CODE).next();
        end = match (code, response.status) {
            (None, 400..) => End::ByHyper,
            (Some("ordinary"), 400..) => End::Ordinary,
            (Some("declined"), 400..) => End::Declined,
            (Some("accepted"), 101) => End::Accepted,
            (Some(code), 400..) => End::Rejected(code.to_owned()),
            _ => return differ("an answer that nobody gives"),
        };
        // What came of it is what the oracle says, or a rejection where it has the choice.
        let agrees = match (&end, verdict) {
            (End::ByHyper, Verdict::Malformed) => true,
            (End::ByHyper, _) => lenient.is_some(),
            (End::Ordinary, Verdict::Ordinary)
            | (End::Accepted | End::Declined, Verdict::Accepted(_)) => true,
            (End::Rejected(code), Verdict::Rejected(expected)) => {
                code == expected || lenient.is_some()
            }
            (End::Rejected(_), Verdict::Accepted(_)) => lenient.is_some(),
            _ => false,
        };
        if !agrees {
            return differ("another verdict");
        }
        if let End::Rejected(code) = &end
            && !asks(policy, code, response.lines("www-authenticate"))
        {
            return differ("another challenge");
        }
        let called = match end {
            End::Ordinary => Some(false),
            End::Accepted | End::Declined => Some(true),
            _ => None,
        };
        let call = called.and_then(|_| calls.next());
        if call.map(is_upgrade) != called {
            return differ("not what the services behind saw");
        }
        if let (Some(call), Verdict::Accepted(accepted)) = (call, verdict)
            && let Err(why) = judge_extensions(accepted, policy, call)
        {
            return differ(&format!("the extensions behind the guard: {why}"));
        }
        if let (End::Accepted, Verdict::Accepted(accepted)) = (&end, verdict) {
            let named = response.lines("sec-websocket-protocol");
            if policy.subprotocols.is_some() && !named.eq(accepted.subprotocol.as_deref()) {
                return differ("another subprotocol");
            }
            let named = response.lines("sec-websocket-extensions");
            if !named.eq(named_extensions(accepted, policy).as_deref()) {
                return differ("another extension");
            }
            let single = |name| response.lines(name).count() == 1;
            let absent = |name| response.lines(name).next().is_none();
            let is_switch = single("upgrade")
                && response.has("upgrade", "websocket")
                && response.has("connection", "upgrade")
                && single("sec-websocket-accept")
                && ["content-length", "transfer-encoding", "sec-websocket-version"]
                    .into_iter()
                    .all(absent);
            if !is_switch {
                return differ("a faulty 101");
            }
        }
        match end {
            End::Ordinary
                if *lenient == Some("framing") || *lenient == Some("an unfinished body") =>
            {
                return Ok(End::Lost);
            }
            End::Ordinary => {}
            // Nothing behind it is a request.
            _ if !outcome.ended => return differ("the connection goes on"),
            _ => break,
        }
    }
    // What the oracle takes for the beginning of a request, hyper may reject already.
    match (responses.next(), calls.next()) {
        (None, None) => Ok(end),
        (Some(response), None)
            if matches!(end, End::Ordinary | End::Unfinished)
                && matches!(response.status, 400 | 431)
                && response.lines(CODE).next().is_none() =>
        {
            Ok(End::ByHyper)
        }
        _ => differ("an answer to what is no request"),
    }
}
