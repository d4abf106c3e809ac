//! Events and spans: one event for each decision, on one line and without secrets, and a span for each connection.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::ready,
    io::{self, Write},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, request::Parts};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AcceptThenClose, ConnectionLimit, Drain, Handshake, OriginCheckLayer, PendingUpgrade, Permit,
    Rejection, RejectionKind, ResponderLayer, Sessions, Token, TokenCheckLayer, TokenPolicy,
    TokenSource, Verified, VersionCheckLayer, check_fn, test_util,
};
use tracing::{
    Dispatch, Id, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::Attributes,
    subscriber::{DefaultGuard, NoSubscriber, set_default},
};
use tracing_subscriber::{
    fmt::format::FmtSpan,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::{
    common::{self, Raw, handshake, plain, upgradable},
    decisions::{App, app, bearer, chat, guard, hosts, origins},
};

const TIMEOUT: Duration = Duration::from_secs(30);
const EVIL: &str = "https://evil.example";
const SECRET: &str = "s3cr3t-of-alice";

// Recorder

pub(crate) type Fields = BTreeMap<&'static str, String>;

#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    metadata: &'static Metadata<'static>,
    pub(crate) fields: Fields,
    /// The surrounding spans, outermost first.
    spans: Vec<(&'static str, Fields)>,
}

impl Recorded {
    pub(crate) fn message(&self) -> &str {
        &self.fields["message"]
    }

    pub(crate) fn level(&self) -> Level {
        *self.metadata.level()
    }
}

/// `tracing` asks only the subscriber of the current thread about a new callsite while there is a single subscriber: a test
/// without one, on another thread, would disable the callsite for all. Two more subscribers make it ask each of them.
fn keep_callsites_enabled() {
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::default())));
    LazyLock::force(&OTHERS);
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Recorded>>>);

impl Recorder {
    /// Records on this thread until the guard is dropped.
    pub(crate) fn install(&self, level: LevelFilter) -> DefaultGuard {
        keep_callsites_enabled();
        set_default(tracing_subscriber::registry().with(self.clone()).with(level))
    }

    fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Takes the events of this crate, and drops those of hyper, h2 and axum.
    pub(crate) fn take_own(&self) -> Vec<Recorded> {
        let mut events = self.take();
        events.retain(|event| event.metadata.target() == "tower_ws_guard");
        events
    }

    fn take_one(&self) -> Recorded {
        let [one] = self.take().try_into().unwrap();
        one
    }
}

struct Visitor(Fields);

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn fields(record: impl FnOnce(&mut Visitor)) -> Fields {
    let mut visitor = Visitor(Fields::new());
    record(&mut visitor);
    visitor.0
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let recorded = fields(|visitor| attributes.record(visitor));
        context.span(id).unwrap().extensions_mut().insert(recorded);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let spans = spans
            .map(|span| (span.name(), span.extensions().get::<Fields>().unwrap().clone()))
            .collect();
        let recorded = Recorded {
            metadata: event.metadata(),
            fields: fields(|visitor| event.record(visitor)),
            spans,
        };
        self.0.lock().unwrap().push(recorded);
    }
}

// Layers

#[derive(Debug)]
struct Unreachable(io::Error);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the identity provider did not answer")
    }
}

impl Error for Unreachable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn policy() -> TokenPolicy<&'static str> {
    let sources = [
        TokenSource::authorization(),
        TokenSource::cookie("session").unwrap(),
        TokenSource::query("token").unwrap(),
        TokenSource::subprotocol("auth.").unwrap(),
    ];
    let verifier = async |token: Token| match token.expose() {
        SECRET => Ok(Verified::new("alice")),
        "weak" => Err(RejectionKind::TokenForbidden.into()),
        "down" => {
            Err(Rejection::verifier_failed(Unreachable(io::Error::other("connection refused"))))
        }
        _ => Err(Rejection::new(RejectionKind::TokenInvalid).with_source("nobody has it")),
    };
    TokenPolicy::from_sources(sources, move |token: Token| Box::pin(verifier(token))).unwrap()
}

fn good() -> Raw {
    bearer(SECRET)
}

fn offer(subprotocols: &str) -> Raw {
    good().and("Sec-WebSocket-Protocol", subprotocols)
}

/// The guard alone, with a responder, and all four layers; each with all checks.
fn stacks() -> [App; 3] {
    [
        app(guard().token(policy()).unwrap()),
        app(ServiceBuilder::new()
            .layer(guard().token(policy()).unwrap())
            .layer(ResponderLayer::new())),
        app(ServiceBuilder::new()
            .layer(VersionCheckLayer::new())
            .layer(OriginCheckLayer::new(origins()).allow_host(hosts()))
            .layer(TokenCheckLayer::new(policy()))
            .layer(ResponderLayer::new().subprotocols(chat()))),
    ]
}

fn reporting_stacks() -> [App; 3] {
    [
        app(guard().token(policy()).unwrap().dangerous_report_only()),
        app(ServiceBuilder::new()
            .layer(guard().token(policy()).unwrap().dangerous_report_only())
            .layer(ResponderLayer::new().dangerous_report_only())),
        app(ServiceBuilder::new()
            .layer(VersionCheckLayer::new().dangerous_report_only())
            .layer(OriginCheckLayer::new(origins()).allow_host(hosts()).dangerous_report_only())
            .layer(TokenCheckLayer::new(policy()).dangerous_report_only())
            .layer(ResponderLayer::new().subprotocols(chat()).dangerous_report_only())),
    ]
}

/// Sends a handshake over both transports; returns the event of each, after asserting its common fields.
async fn decide(app: &App, raw: &Raw) -> [(Result<Response<()>, &'static str>, Recorded); 2] {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let mut decisions = Vec::new();
    for request in upgradable(raw) {
        let transport = if request.version() < Version::HTTP_2 { "HTTP/1" } else { "HTTP/2" };
        let path = request.uri().path().to_owned();
        let origin = request
            .headers()
            .get("origin")
            .map_or("", |origin| origin.to_str().unwrap())
            .to_owned();
        let result = app.clone().oneshot(request).await;
        let mut event = recorder.take_one();
        assert_eq!(event.metadata.target(), "tower_ws_guard");
        assert_eq!((&*event.fields["transport"], &event.fields["path"]), (transport, &path));
        assert_eq!(event.fields["origin"], origin);
        event.fields["check_us"].parse::<u64>().unwrap();
        let names = event.fields.keys().copied().collect::<Vec<_>>();
        assert_eq!(names, ["check_us", "code", "message", "origin", "path", "transport"]);
        event.fields.retain(|name, _| ["code", "message"].contains(name));
        decisions.push((result, event));
    }
    decisions.try_into().unwrap()
}

#[tokio::test]
async fn accepted_declined_and_failed_are_debug_events() {
    for app in stacks().into_iter().chain(reporting_stacks()) {
        for (raw, code, message) in [
            (good(), "accepted", "accepted"),
            (good().target("/ws?room=1"), "accepted", "accepted"),
            (good().target("/decline"), "declined", "declined by the inner service"),
            (good().target("/fail"), "error", "the inner service failed"),
        ] {
            for (result, event) in decide(&app, &raw).await {
                assert_eq!(result.is_err(), code == "error");
                assert_eq!(
                    (event.level(), &*event.fields["code"], event.message()),
                    (Level::DEBUG, code, message)
                );
            }
        }
    }
}

#[tokio::test]
async fn rejection_is_logged_once_with_cause_value_and_fix() {
    const DOWN: &str =
        "; because: the identity provider did not answer; because: connection refused";
    let line = |name, value: &str| good().with(name, value);
    for app in stacks() {
        for (raw, code, level, value, sources) in [
            (line("Sec-WebSocket-Version", "8"), "version-unsupported", Level::WARN, "`8`", ""),
            (good().without("Sec-WebSocket-Version"), "version-missing", Level::WARN, "", ""),
            (good().and("Content-Length", "5"), "body-present", Level::WARN, "", ""),
            (line("Host", "evil.example"), "host-not-allowed", Level::WARN, "", ""),
            (line("Origin", EVIL), "origin-not-allowed", Level::WARN, EVIL, ""),
            (good().without("Origin"), "origin-missing", Level::WARN, "", ""),
            (handshake(), "token-missing", Level::WARN, "", ""),
            (bearer("guess"), "token-invalid", Level::WARN, "", "; because: nobody has it"),
            (bearer("weak"), "token-forbidden", Level::WARN, "", ""),
            (bearer("down"), "verifier-failed", Level::ERROR, "", DOWN),
            (offer("other"), "subprotocol-unsupported", Level::WARN, "", ""),
        ] {
            for (result, event) in decide(&app, &raw).await {
                let rejection = result.unwrap().extensions().get::<Rejection>().unwrap().clone();
                let (kind, message) = (rejection.kind(), event.message());
                assert_eq!(
                    (kind.code(), &*event.fields["code"], event.level()),
                    (code, code, level)
                );
                assert!(
                    message.starts_with(&format!("rejected: {code}: {}", kind.title())),
                    "{message}"
                );
                assert!(message.contains(value), "{message}");
                assert!(message.ends_with(&format!("; {}{sources}", kind.fix())), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn rejection_is_logged_by_every_layer() {
    let check =
        check_fn(|_| Err(Rejection::custom("maintenance", StatusCode::SERVICE_UNAVAILABLE)));
    let blocked = check_fn(|_| Err(Rejection::custom("blocked", StatusCode::FORBIDDEN)));
    let responder = ResponderLayer::new;
    let cases = [
        (app(guard().check(check)), good(), Level::ERROR, "maintenance"),
        (app(guard().check(blocked)), good(), Level::WARN, "blocked"),
        (app(VersionCheckLayer::new()), good().method("POST"), Level::WARN, "method-not-allowed"),
        (
            app(OriginCheckLayer::new(origins())),
            good().with("Origin", EVIL),
            Level::WARN,
            "origin-not-allowed",
        ),
        (app(TokenCheckLayer::new(policy())), handshake(), Level::WARN, "token-missing"),
        (app(TokenCheckLayer::new(policy())), bearer("down"), Level::ERROR, "verifier-failed"),
        (app(responder()), offer("other"), Level::WARN, "subprotocol-unsupported"),
        // This 101 is not a handshake. Over HTTP/2 it is the response of another handler.
        (app(responder()), good().target("/claim"), Level::ERROR, "not-upgradable"),
        (
            app(ServiceBuilder::new().layer(guard()).layer(responder())),
            good().target("/claim"),
            Level::ERROR,
            "not-upgradable",
        ),
    ];
    for (app, raw, level, code) in cases {
        let recorder = Recorder::default();
        let _guard = recorder.install(LevelFilter::TRACE);
        for request in
            if code == "method-not-allowed" { vec![raw.request()] } else { upgradable(&raw).into() }
        {
            app.clone().oneshot(request).await.unwrap();
            let event = recorder.take_one();
            let expected = match (code, &*event.fields["transport"]) {
                ("not-upgradable", "HTTP/2") => (Level::DEBUG, "declined"),
                _ => (level, code),
            };
            assert_eq!((event.level(), &*event.fields["code"]), expected);
        }
    }

    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for app in &stacks()[1..] {
        for request in good().over_both() {
            assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 500);
            let event = recorder.take_one();
            assert_eq!((event.level(), &*event.fields["code"]), (Level::ERROR, "not-upgradable"));
        }
    }
}

#[tokio::test]
async fn ordinary_requests_are_not_logged() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let ordinary =
        || [plain(), plain().target("/fail"), plain().method("POST"), plain().and("Origin", EVIL)];
    for app in stacks().into_iter().chain(reporting_stacks()) {
        for raw in ordinary() {
            app.clone().oneshot(raw.request()).await.ok();
        }
        assert!(recorder.take().is_empty());
    }
    // A rejected ordinary request is logged, by the first layer that requires a handshake.
    for app in [
        app(guard().require_websocket()),
        app(ServiceBuilder::new()
            .layer(guard().require_websocket())
            .layer(ResponderLayer::new().require_websocket())),
        app(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new().require_websocket())),
    ] {
        for raw in ordinary() {
            app.clone().oneshot(raw.request()).await.unwrap();
            let event = recorder.take_one();
            assert_eq!((event.level(), &*event.fields["code"]), (Level::WARN, "not-websocket"));
        }
    }
}

#[tokio::test]
async fn report_only_rejection_is_a_warning() {
    for app in reporting_stacks() {
        for (raw, code, sources) in [
            (good().with("Origin", EVIL), "origin-not-allowed", ""),
            (good().with("Host", "evil.example"), "host-not-allowed", ""),
            (handshake(), "token-missing", ""),
            (bearer("guess"), "token-invalid", "; because: nobody has it"),
            // The handshake is accepted, so it is not an error.
            (bearer("down"), "verifier-failed", "did not answer; because: connection refused"),
            (offer("other"), "subprotocol-unsupported", ""),
            (bearer("guess").with("Origin", EVIL), "origin-not-allowed", ""),
        ] {
            for (result, event) in decide(&app, &raw).await {
                assert!(result.unwrap().extensions().get::<Rejection>().is_none());
                assert_eq!((event.level(), &*event.fields["code"]), (Level::WARN, code));
                let message = event.message();
                assert!(message.starts_with(&format!("would be rejected: {code}: ")), "{message}");
                assert!(message.ends_with(sources), "{message}");
            }
        }
        for (raw, level, code) in [
            (
                good().with("Sec-WebSocket-Version", "8").with("Origin", EVIL),
                Level::WARN,
                "version-unsupported",
            ),
            (handshake().target("/decline"), Level::DEBUG, "declined"),
            (handshake().target("/fail"), Level::DEBUG, "error"),
        ] {
            for (_, event) in decide(&app, &raw).await {
                assert_eq!((event.level(), &*event.fields["code"]), (level, code));
                assert!(!event.message().contains("would be"));
            }
        }
    }

    // An enforcing layer decides, inside or outside of a report-only layer.
    let origin = || OriginCheckLayer::new(origins());
    let token = || TokenCheckLayer::new(policy());
    let raw = || bearer("guess").with("Origin", EVIL);
    for (app, code) in [
        (
            app(ServiceBuilder::new().layer(origin().dangerous_report_only()).layer(token())),
            "token-invalid",
        ),
        (
            app(ServiceBuilder::new().layer(origin()).layer(token().dangerous_report_only())),
            "origin-not-allowed",
        ),
    ] {
        for (_, event) in decide(&app, &raw()).await {
            assert_eq!((event.level(), &*event.fields["code"]), (Level::WARN, code));
            assert!(event.message().starts_with("rejected: "));
        }
    }
}

#[tokio::test]
async fn accept_then_close_is_logged_as_a_rejection() {
    let guard = || guard().token(policy()).unwrap().accept_then_close(AcceptThenClose::new());
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for app in
        [app(guard()), app(ServiceBuilder::new().layer(VersionCheckLayer::new()).layer(guard()))]
    {
        for (raw, level, code) in [
            (handshake(), Level::WARN, "token-missing"),
            (bearer("guess"), Level::WARN, "token-invalid"),
            (bearer("down"), Level::ERROR, "verifier-failed"),
        ] {
            let (request, _client) = test_util::upgradable(raw.request()).await;
            assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 101);
            let event = recorder.take_one();
            assert_eq!((event.level(), &*event.fields["code"]), (level, code));
            assert!(event.message().starts_with("rejected: "));
        }
    }
}

// Hostile values

/// Hostile values of `Origin` and of the path that `HeaderValue` and `Uri` permit.
fn hostile() -> (Vec<Vec<u8>>, Vec<String>) {
    let every_byte =
        (0..=255).filter(|byte| HeaderValue::from_bytes(&[*byte]).is_ok()).collect::<Vec<u8>>();
    let origins = vec![
        b"x\tWARN forged: \"`'\\".to_vec(),
        every_byte.into_iter().skip_while(|byte| *byte < 0x7f).collect(),
        "https://\u{202e}\u{2028}\u{85}\u{1f4a9}.example".into(),
        [b"https://", &[b'a'; 65_536][..]].concat(),
        [0xff; 65_536].into(),
    ];
    let characters = (0..=255).map(char::from).map(|byte| format!("/{byte}"));
    let paths = characters.filter(|path| path.parse::<http::Uri>().is_ok()).collect::<Vec<_>>();
    let mut paths = vec![paths.concat().replace(['?', '#'], "")];
    paths.extend([
        "/%0a%1b[2J%22".to_owned(),
        format!("/{}", "a".repeat(65_000)),
        format!("/{}", "é".repeat(30_000)),
    ]);
    (origins, paths)
}

/// Escaped, truncated to 128 bytes, and marked if truncated.
fn shown(value: &[u8]) -> String {
    let cut = &value[..value.len().min(128)];
    format!("{}{}", cut.escape_ascii(), if cut.len() < value.len() { "…" } else { "" })
}

#[tokio::test]
async fn hostile_value_is_escaped_and_truncated() {
    let (origins, paths) = hostile();
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for app in stacks().into_iter().chain(reporting_stacks()) {
        for origin in &origins {
            for request in upgradable(&good().with("Origin", origin)) {
                app.clone().oneshot(request).await.unwrap();
                let event = recorder.take_one();
                assert_eq!(event.fields["origin"], shown(origin));
                assert_eq!(event.fields["code"], "origin-invalid");
                assert!(event.message().contains(&format!("`{}`", shown(origin))));
            }
        }
        for path in &paths {
            for request in upgradable(&good().target(path)) {
                app.clone().oneshot(request).await.unwrap();
                assert_eq!(recorder.take_one().fields["path"], shown(path.as_bytes()));
            }
        }
    }
}

/// The writer of the fmt subscriber.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Takes one line, which is short and printable.
    fn take_one(&self) -> String {
        let line = String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap();
        let text = line.strip_suffix('\n').expect("a line");
        assert!(text.chars().all(|it| it == '…' || it == ' ' || it.is_ascii_graphic()), "{text}");
        assert!(text.len() < 2048, "{text}");
        line
    }
}

#[tokio::test]
async fn hostile_handshake_is_logged_on_one_short_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let fmt = tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::TRACE);
    keep_callsites_enabled();
    let _guard = set_default(fmt.with_writer(move || writer.clone()).finish());
    let (origins, paths) = hostile();
    for app in stacks().into_iter().chain(reporting_stacks()) {
        for (origin, path) in origins.iter().zip(paths.iter().cycle()) {
            for request in upgradable(&good().with("Origin", origin).target(path)) {
                app.clone().oneshot(request).await.unwrap();
                let line = lines.take_one();
                assert!(
                    line.contains("tower_ws_guard: ") && line.contains("origin-invalid"),
                    "{line}"
                );
            }
        }
        for name in [
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key",
            "Upgrade",
            "Host",
            "Sec-WebSocket-Protocol",
        ] {
            for value in &origins {
                app.clone().oneshot(good().with(name, value).upgradable()).await.unwrap();
                assert!(lines.take_one().contains("tower_ws_guard: rejected: "), "{name}");
            }
        }
    }
    // Each line logged for a connection has its span.
    let (origin, path) = (&origins[4], &paths[2]);
    let greet = ResponderLayer::on_upgraded(async |_| tracing::info!("hello"));
    let app = app(ServiceBuilder::new().layer(guard().dangerous_report_only()).layer(greet));
    let (request, mut client) =
        test_util::upgradable(good().with("Origin", origin).target(path).request()).await;
    app.oneshot(request).await.unwrap();
    lines.take_one();
    timeout(TIMEOUT, client.read_to_end(&mut Vec::new())).await.expect("the socket's end").unwrap();
    let line = lines.take_one();
    assert!(
        line.contains("websocket{")
            && line.contains("hello")
            && line.contains(&shown(path.as_bytes())),
        "{line}"
    );
}

#[tokio::test]
async fn token_is_in_no_event_and_no_span() {
    let lines = Lines::default();
    let writer = lines.clone();
    let fmt = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(Level::TRACE)
        .with_span_events(FmtSpan::FULL);
    let recorder = Recorder::default();
    keep_callsites_enabled();
    let _guard =
        set_default(fmt.with_writer(move || writer.clone()).finish().with(recorder.clone()));
    for secret in [SECRET, "s3cr3t-of-nobody"] {
        let carriers = [
            bearer(secret),
            bearer(secret).and("Authorization", format!("Bearer {secret}")),
            handshake().and("Cookie", format!("session={secret}")),
            handshake().target(&format!("/ws?token={secret}")),
            handshake().target(&format!("/ws?token={secret}&token=%zz")),
            handshake().and("Sec-WebSocket-Protocol", format!("chat, auth.{secret}")),
            handshake().and("Sec-WebSocket-Protocol", format!("auth.{secret}")),
            handshake().and("Sec-WebSocket-Protocol", format!("auth.{secret}, auth.{secret}")),
        ];
        for app in stacks().into_iter().chain(reporting_stacks()) {
            for raw in &carriers {
                let changed = [
                    raw.clone(),
                    raw.clone().with("Origin", EVIL),
                    raw.clone().without("Host").and("Host", ""),
                ];
                for request in changed.iter().map(Raw::upgradable) {
                    app.clone().oneshot(request).await.unwrap();
                    recorder.take_one();
                }
            }
        }
    }
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("websocket{") && logged.contains("token-invalid"));
    assert!(!logged.contains("s3cr3t"), "{logged}");
}

// Spans

fn websocket(transport: &str, origin: &str, path: &str) -> (&'static str, Fields) {
    let fields = [("transport", transport), ("origin", origin), ("path", path)];
    ("websocket", fields.map(|(name, value)| (name, value.to_owned())).into())
}

/// A handshake over HTTP/1.1 and HTTP/2, with a working upgrade.
async fn connected(raw: &Raw) -> [(Request<()>, tokio::io::DuplexStream); 2] {
    let [first, second] = raw.over_both();
    [test_util::upgradable(first).await, test_util::upgradable(second).await]
}

#[tokio::test]
async fn span_surrounds_the_callback_of_its_connection() {
    let (sender, mut done) = mpsc::unbounded_channel();
    let told = sender.clone();
    let given = ResponderLayer::on_upgraded(move |upgraded| {
        let sender = told.clone();
        async move {
            tokio::task::yield_now().await;
            tracing::info!("inside");
            sender.send(upgraded.span().cloned()).unwrap();
        }
    });
    // A spawned task enters the span explicitly.
    let decided = service_fn(move |request: Request<()>| {
        let sender = sender.clone();
        let pending = request.extensions().get::<PendingUpgrade>().unwrap();
        match request.uri().path() {
            "/task" => {
                let upgrade = pending.accept().unwrap();
                tokio::spawn(async move {
                    let span = upgrade.await.unwrap().span().cloned();
                    span.clone().unwrap().in_scope(|| tracing::info!("inside"));
                    sender.send(span).unwrap();
                });
            }
            _ => pending.on_upgrade(async move |upgraded| {
                tokio::task::yield_now().await;
                tracing::info!("inside");
                sender.send(upgraded.span().cloned()).unwrap();
            }),
        }
        ready(Ok::<_, &'static str>(Response::new(())))
    });
    let layers = || {
        ServiceBuilder::new()
            .layer(VersionCheckLayer::new())
            .layer(OriginCheckLayer::new(origins()))
            .layer(TokenCheckLayer::new(policy()))
    };
    let apps = [
        app(ServiceBuilder::new().layer(guard()).layer(given.clone())),
        app(layers().layer(given.clone())),
        app(given),
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(guard())
                .layer(ResponderLayer::new())
                .service(decided.clone()),
        ),
        BoxCloneSyncService::new(layers().layer(ResponderLayer::new()).service(decided.clone())),
        BoxCloneSyncService::new(ResponderLayer::new().layer(decided)),
    ];
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for app in apps {
        for path in ["/ws", "/task"] {
            let raw = good().target(&format!("{path}?room=1"));
            for ((request, _client), transport) in
                connected(&raw).await.into_iter().zip(["HTTP/1", "HTTP/2"])
            {
                app.clone().oneshot(request).await.unwrap();
                assert_eq!(recorder.take_one().message(), "accepted");
                let span =
                    timeout(TIMEOUT, done.recv()).await.expect("the callback").unwrap().unwrap();
                assert_eq!(span.metadata().unwrap().target(), "tower_ws_guard");
                let inside = recorder.take_one();
                assert_eq!(
                    (inside.message(), &*inside.spans),
                    ("inside", &[websocket(transport, common::ORIGIN, path)][..])
                );
            }
        }
    }
}

#[tokio::test]
async fn span_is_in_the_request_behind_a_guard() {
    let enter = service_fn(async |request: Request<()>| {
        let span = request.extensions().get::<tracing::Span>().cloned();
        span.unwrap_or_else(tracing::Span::none).in_scope(|| tracing::info!("inside"));
        Ok::<_, &'static str>(Response::builder().status(101).body(()).unwrap())
    });
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let stack = ServiceBuilder::new()
        .layer(VersionCheckLayer::new())
        .layer(guard().dangerous_report_only())
        .service(enter);
    for (raw, spans) in [
        (handshake().target("/ws?a=b"), vec![websocket("HTTP/1", common::ORIGIN, "/ws")]),
        (handshake().with("Origin", "\"\t\""), vec![websocket("HTTP/1", r#"\"\t\""#, "/ws")]),
        (handshake().without("Origin"), vec![websocket("HTTP/1", "", "/ws")]),
        (plain(), vec![]),
    ] {
        stack.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(recorder.take()[0].spans, spans, "{raw:?}");
    }
}

#[tokio::test]
async fn span_is_absent_without_a_subscriber() {
    let (sender, mut done) = mpsc::unbounded_channel();
    let layer = ResponderLayer::on_upgraded_with(
        |head| head.extensions.get::<tracing::Span>().is_some(),
        move |upgraded, is_in_head| {
            sender.send(upgraded.span().is_some() || is_in_head).unwrap();
            ready(())
        },
    );
    let app = app(ServiceBuilder::new().layer(guard()).layer(layer));
    for (level, interested) in
        [(LevelFilter::INFO, true), (LevelFilter::WARN, false), (LevelFilter::OFF, false)]
    {
        let recorder = Recorder::default();
        let _guard = recorder.install(level);
        let (request, _client) = test_util::upgradable(handshake().request()).await;
        app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            timeout(TIMEOUT, done.recv()).await.expect("the callback"),
            Some(interested),
            "{level}"
        );
        app.clone().oneshot(handshake().with("Origin", EVIL).upgradable()).await.unwrap();
        assert_eq!(recorder.take().len(), usize::from(level >= LevelFilter::WARN), "{level}");
    }
}

/// Sources come from other crates, and may quote the client.
#[tokio::test]
async fn rejection_sources_are_logged_on_one_short_line() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let visible = r#"a "quoted" word, it's C:\x"#;
    for source in [
        "first\nsecond WARN forged".to_owned(),
        "\u{1b}[2Jx\r\u{202e}".to_owned(),
        "a".repeat(65_536),
        visible.to_owned(),
    ] {
        let is_visible = source == visible;
        let check = move |_: &mut Handshake<'_>| {
            Err(Rejection::custom("blocked", StatusCode::FORBIDDEN).with_source(source.clone()))
        };
        app(guard().check(Arc::new(check))).oneshot(good().request()).await.unwrap();
        let event = recorder.take_one();
        let message = event.message();
        assert!(
            message.contains("; because: ") && !message.contains(char::is_control),
            "{message:?}"
        );
        assert!(!message.contains('\u{202e}'), "{message:?}");
        assert!(message.len() < 600, "{}", message.len());
        assert!(!is_visible || message.ends_with(visible), "{message:?}");
    }
}

#[tokio::test]
async fn transport_is_logged() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for (version, transport) in
        [(Version::HTTP_11, "HTTP/1"), (Version::HTTP_2, "HTTP/2"), (Version::HTTP_3, "HTTP/3")]
    {
        let mut request = match version {
            Version::HTTP_11 => good().request(),
            _ => good().extended_connect(),
        };
        *request.version_mut() = version;
        app(guard()).oneshot(request).await.unwrap();
        let event = recorder.take_one();
        assert_eq!((&*event.fields["transport"], &*event.fields["code"]), (transport, "accepted"));
    }
}

/// A client must not be able to raise an alarm, and neither does a shutdown.
#[tokio::test]
async fn client_errors_are_never_logged_as_server_errors() {
    let limit = || ConnectionLimit::total(1).unwrap();
    let (full, many) = (limit(), Sessions::per_key(1, |_: &Parts| Some(())).unwrap());
    let drain = Drain::new();
    drain.start();
    let holds = service_fn(async |mut request: Request<()>| {
        let mut response = Response::new(());
        response.extensions_mut().insert(Permit::claim(request.extensions_mut()));
        Ok::<_, &'static str>(response)
    });
    let _open = guard()
        .limit(full.clone())
        .sessions(&many)
        .layer(holds)
        .oneshot(good().request())
        .await
        .unwrap();
    for (app, raw, code) in [
        (app(guard()), good().version("HTTP/1.0"), "http-version"),
        (app(guard().limit(full.clone())), good(), "over-capacity"),
        (app(ResponderLayer::new().subprotocols(chat()).limit(full)), good(), "over-capacity"),
        (app(guard().sessions(&many)), good(), "too-many-connections"),
        (app(guard().drain(&drain)), good(), "shutting-down"),
        (app(ResponderLayer::new().drain(&drain)), good(), "shutting-down"),
    ] {
        let recorder = Recorder::default();
        let _guard = recorder.install(LevelFilter::TRACE);
        app.oneshot(raw.request()).await.unwrap();
        let event = recorder.take_one();
        assert_eq!((event.level(), &*event.fields["code"]), (Level::WARN, code));
    }
}

#[tokio::test]
async fn unclaimed_permit_is_logged_as_an_error_with_its_fix() {
    let kind = RejectionKind::PermitUnclaimed;
    for app in
        [app(guard().limit(ConnectionLimit::total(1).unwrap())), app(guard().drain(&Drain::new()))]
    {
        // The handler behind a guard responds itself.
        let results = decide(&app, &good().target("/claim")).await;
        for (http2, (result, event)) in [false, true].into_iter().zip(results) {
            let status = result.unwrap().status();
            if http2 {
                assert_eq!(status, StatusCode::NOT_FOUND);
                assert_eq!((event.level(), &*event.fields["code"]), (Level::DEBUG, "declined"));
                continue;
            }
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!((event.level(), &*event.fields["code"]), (Level::ERROR, kind.code()));
            let message = event.message();
            assert!(message.contains(kind.title()) && message.ends_with(kind.fix()), "{message}");
            assert!(
                message.contains("Permit::claim") && message.contains("GuardedUpgrade"),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn canceled_handshake_is_logged() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let hangs =
        TokenPolicy::bearer(|_: Token| std::future::pending::<Result<Verified<()>, Rejection>>());
    let handshake = app(guard().token(hangs).unwrap()).oneshot(bearer("any").request());
    assert!(timeout(Duration::from_millis(10), handshake).await.is_err());
    let event = recorder.take_one();
    assert_eq!((event.level(), &*event.fields["code"]), (Level::DEBUG, "cancelled"));
}
