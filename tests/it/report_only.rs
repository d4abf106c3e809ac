//! Report-only mode: policy violations are accepted and reported; invalid handshakes are still rejected.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    time::{Duration, SystemTime},
};

use http::{Extensions, Request, Response, StatusCode, Version, request::Parts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::yield_now,
    time::timeout,
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, service_fn,
    util::{BoxCloneSyncService, ServiceFn},
};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, Claims, GuardLayer, OriginCheckLayer, PendingUpgrade,
    Rejection, RejectionKind, Reported, ResponderLayer, Subprotocols, Token, TokenCheckLayer,
    TokenPolicy, TokenSource, Verified, VerifyToken, VersionCheckLayer, check_fn, test_util,
};

use crate::common::{self, Raw, handshake, plain, upgradable};

const TIMEOUT: Duration = Duration::from_secs(30);
const EVIL: &str = "https://evil.example";

type ResponseFuture = Ready<Result<Response<()>, Infallible>>;
type Inner = ServiceFn<fn(Request<()>) -> ResponseFuture>;
type App = BoxCloneSyncService<Request<()>, Response<()>, Infallible>;

/// What the inner service saw of an accepted request.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    reported: Option<&'static str>,
    claims: Option<&'static str>,
    offer: String,
    target: String,
    has_authorization: bool,
}

fn reported(extensions: &Extensions) -> Option<&'static str> {
    extensions.get().map(|Reported(rejection)| rejection.kind().code())
}

/// Accepts every handshake, and selects the last subprotocol that it sees.
fn inner(request: Request<()>) -> ResponseFuture {
    let (request, ()) = request.into_parts();
    let extensions = &request.extensions;
    let offer = request.headers.get_all("sec-websocket-protocol").iter();
    let seen = Seen {
        reported: reported(extensions),
        claims: extensions.get().map(|Claims(user)| *user),
        offer: offer.map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(" | "),
        target: request.uri.path_and_query().unwrap().to_string(),
        has_authorization: request.headers.contains_key("authorization"),
    };
    let mut response = Response::builder();
    if let Some(pending) = extensions.get::<PendingUpgrade>() {
        drop(pending.accept());
    } else if request.version < Version::HTTP_2 {
        response = response.status(StatusCode::SWITCHING_PROTOCOLS);
    }
    if let Some(choice) = seen.offer.rsplit([',', ' ']).next().filter(|choice| !choice.is_empty()) {
        response = response.header("sec-websocket-protocol", choice);
    }
    ready(Ok(response.extension(seen).body(()).unwrap()))
}

fn app<L>(layer: L) -> App
where
    L: Layer<Inner>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<()>>>::Future: Send,
{
    BoxCloneSyncService::new(layer.layer(service_fn(inner)))
}

/// Returns what the inner service saw, the same over both transports; or the code of the rejection.
async fn outcome(app: &App, raw: &Raw) -> Result<Seen, &'static str> {
    let mut outcomes = Vec::new();
    for request in upgradable(raw) {
        let completed = if request.version() < Version::HTTP_2 { 101 } else { 200 };
        let response = app.clone().oneshot(request).await.unwrap();
        let seen = response.extensions().get::<Seen>().cloned();
        outcomes.push(match (seen, response.extensions().get::<Rejection>()) {
            (Some(seen), None) => {
                assert_eq!(response.status(), completed, "{raw:?}");
                // Outer layers, such as a log, see the same.
                assert_eq!(reported(response.extensions()), seen.reported, "{raw:?}");
                Ok(seen)
            }
            (None, Some(rejection)) => {
                assert!(
                    response.status().is_client_error() || response.status().is_server_error(),
                    "{raw:?}"
                );
                Err(rejection.kind().code())
            }
            both => panic!("{both:?} {raw:?}"),
        });
    }
    let [first, second] = outcomes.try_into().unwrap();
    assert_eq!(first, second, "{raw:?}");
    first
}

fn policy() -> TokenPolicy<&'static str> {
    let sources = [
        TokenSource::authorization(),
        TokenSource::query("token").unwrap(),
        TokenSource::subprotocol("auth.").unwrap(),
    ];
    let verify = async |token: &str| match token {
        "good" => Ok(Verified::new("alice")),
        "ended" => Ok(Verified::new("alice").expires_at(SystemTime::UNIX_EPOCH)),
        "weak" => Err(RejectionKind::TokenForbidden.into()),
        "down" => Err(Rejection::verifier_failed("no connection")),
        "slow" => std::future::pending().await,
        "broke" => Err(Rejection::custom("quota-exceeded", StatusCode::PAYMENT_REQUIRED)),
        _ => Err(RejectionKind::TokenInvalid.into()),
    };
    let verifier = move |token: Token| async move { verify(token.expose()).await };
    TokenPolicy::from_sources(sources, verifier).unwrap()
}

fn origins() -> AllowOrigin {
    AllowOrigin::list([common::ORIGIN]).unwrap()
}

fn hosts() -> AllowHost {
    AllowHost::list([common::HOST]).unwrap()
}

fn chat() -> Subprotocols {
    Subprotocols::list(["chat"]).unwrap()
}

/// A guard with all checks.
fn guard() -> App {
    let unblocked = check_fn(|handshake| match handshake.headers().contains_key("x-blocked") {
        false => Ok(()),
        true => Err(Rejection::custom("blocked", StatusCode::FORBIDDEN)),
    });
    let guard = GuardLayer::new(origins())
        .allow_host(hosts())
        .check(unblocked)
        .subprotocols(chat())
        .token(policy())
        .unwrap();
    app(guard.dangerous_report_only())
}

fn guard_and_responder() -> App {
    let guard = GuardLayer::new(origins())
        .allow_host(hosts())
        .subprotocols(chat())
        .token(policy())
        .unwrap();
    app(ServiceBuilder::new()
        .layer(guard.dangerous_report_only())
        .layer(ResponderLayer::new().dangerous_report_only()))
}

fn four_layers() -> App {
    app(ServiceBuilder::new()
        .layer(VersionCheckLayer::new().dangerous_report_only())
        .layer(OriginCheckLayer::new(origins()).allow_host(hosts()).dangerous_report_only())
        .layer(TokenCheckLayer::new(policy()).subprotocols(chat()).dangerous_report_only())
        .layer(ResponderLayer::new().subprotocols(chat()).dangerous_report_only()))
}

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

fn offer(raw: Raw, subprotocols: &str) -> Raw {
    raw.and("Sec-WebSocket-Protocol", subprotocols)
}

/// Handshakes with the code that would reject each of them, and whether their token is valid.
fn rejectable() -> Vec<(Raw, &'static str, bool)> {
    let good = || bearer("good");
    let at = |target| handshake().target(target);
    vec![
        (good().with("Host", "evil.example"), "host-not-allowed", true),
        (good().and("Origin", EVIL), "origin-repeated", true),
        (good().with("Origin", "https://chat.example.com/"), "origin-invalid", true),
        (good().without("Origin"), "origin-missing", true),
        (good().with("Origin", EVIL), "origin-not-allowed", true),
        (good().with("Origin", "null"), "origin-not-allowed", true),
        (offer(good(), "other"), "subprotocol-unsupported", true),
        (offer(handshake(), "auth.good"), "subprotocol-unsupported", true),
        (offer(handshake(), "auth.good, other"), "subprotocol-unsupported", true),
        (handshake(), "token-missing", false),
        (good().and("Authorization", "Bearer other"), "token-ambiguous", false),
        (
            handshake().and("Authorization", "Bearer =").and("Authorization", "Bearer good"),
            "token-ambiguous",
            false,
        ),
        (good().target("/ws?token=good"), "token-ambiguous", false),
        (offer(good(), "chat, auth.good"), "token-ambiguous", false),
        (bearer("guess"), "token-invalid", false),
        (bearer("="), "token-invalid", false),
        (at("/ws?token=guess"), "token-invalid", false),
        (at("/ws?token=%zz&a=b"), "token-invalid", false),
        (offer(handshake(), "chat, auth.guess"), "token-invalid", false),
        (bearer("ended"), "token-invalid", false),
        (bearer("weak"), "token-forbidden", false),
        (bearer("down"), "verifier-failed", false),
        (bearer("slow"), "verifier-timeout", false),
        (bearer("broke"), "quota-exceeded", false),
        // The first of several violations is reported.
        (
            offer(handshake(), "other").with("Host", "evil.example").with("Origin", EVIL),
            "host-not-allowed",
            false,
        ),
        (offer(bearer("guess"), "other").with("Origin", EVIL), "origin-not-allowed", false),
        (offer(bearer("good"), "other").without("Origin"), "origin-missing", true),
        (offer(bearer("weak"), "other"), "subprotocol-unsupported", false),
        (at("/ws?token=weak").with("Origin", EVIL), "origin-not-allowed", false),
    ]
}

#[tokio::test(start_paused = true)]
async fn policy_violation_is_accepted_and_reported() {
    for app in [guard(), guard_and_responder(), four_layers()] {
        for (raw, code, has_claims) in rejectable() {
            let seen = outcome(&app, &raw).await.unwrap();
            assert_eq!(seen.reported, Some(code), "{raw:?}");
            assert_eq!(seen.claims, has_claims.then_some("alice"), "{raw:?}");
            // A credential is removed, valid or not.
            let is_stripped = !seen.has_authorization
                && !seen.target.contains("token")
                && !seen.offer.contains("auth.");
            assert!(is_stripped, "{seen:?}");
        }
    }
    let codes = rejectable().into_iter().map(|(_, code, _)| code).collect::<Vec<_>>();
    let policies =
        RejectionKind::ALL.iter().skip_while(|kind| **kind != RejectionKind::HostNotAllowed);
    // The limits have their own tests.
    let policies = policies.take_while(|kind| **kind != RejectionKind::OverCapacity);
    assert!(policies.map(|kind| kind.code()).all(|code| codes.contains(&code)));

    let blocked = [
        (bearer("good").and("X-Blocked", ""), "blocked", Some("alice")),
        (
            bearer("good").and("X-Blocked", "").with("Origin", EVIL),
            "origin-not-allowed",
            Some("alice"),
        ),
        (offer(handshake(), "other").and("X-Blocked", ""), "blocked", None),
    ];
    for (raw, code, claims) in blocked {
        let seen = outcome(&guard(), &raw).await.unwrap();
        assert_eq!((seen.reported, seen.claims), (Some(code), claims), "{raw:?}");
    }
}

/// Accepts every token. The claims are the code that was reported before.
#[derive(Clone, Copy, Debug)]
struct Sees {
    waits: bool,
}

impl VerifyToken for Sees {
    type Claims = Option<&'static str>;

    async fn verify(&self, _: Token, request: &Parts) -> Result<Verified<Self::Claims>, Rejection> {
        yield_now().await;
        Ok(Verified::new(reported(&request.extensions)))
    }

    fn verify_now(
        &self,
        _: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        (!self.waits).then(|| Ok(Verified::new(reported(&request.extensions))))
    }
}

#[tokio::test]
async fn verifier_sees_what_is_reported() {
    async fn shows(request: Request<()>) -> Result<Response<()>, Infallible> {
        let claims = *request.extensions().get::<Claims<Option<&'static str>>>().unwrap();
        Ok(Response::builder().extension(claims).body(()).unwrap())
    }

    for verifier in [Sees { waits: false }, Sees { waits: true }] {
        let policy = || TokenPolicy::bearer(verifier);
        let guard = GuardLayer::new(origins()).allow_host(hosts()).subprotocols(chat());
        let guard = guard.token(policy()).unwrap().dangerous_report_only();
        let origin = OriginCheckLayer::new(origins()).allow_host(hosts()).dangerous_report_only();
        let token = TokenCheckLayer::new(policy()).subprotocols(chat());
        let stack = ServiceBuilder::new().layer(origin).layer(token.dangerous_report_only());
        let apps = [
            BoxCloneSyncService::new(guard.layer(service_fn(shows))),
            BoxCloneSyncService::new(stack.service_fn(shows)),
        ];
        for app in apps {
            for (raw, expected) in [
                (bearer("any"), None),
                (bearer("any").with("Origin", EVIL), Some("origin-not-allowed")),
                (bearer("any").with("Host", "evil.example"), Some("host-not-allowed")),
                (offer(bearer("any"), "other"), Some("subprotocol-unsupported")),
            ] {
                for request in upgradable(&raw) {
                    let response = app.clone().oneshot(request).await.unwrap();
                    let seen = response.extensions().get::<Claims<Option<&str>>>().unwrap();
                    assert_eq!(seen.0, expected, "{verifier:?} {raw:?}");
                    assert_eq!(reported(response.extensions()), expected, "{raw:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn valid_handshake_is_not_reported() {
    let carriers = [
        bearer("good"),
        handshake().target("/ws?token=good"),
        offer(handshake(), "auth.good, chat"),
        offer(bearer("good"), "other, chat"),
    ];
    for app in [guard(), guard_and_responder(), four_layers()] {
        for raw in &carriers {
            let seen = outcome(&app, raw).await.unwrap();
            assert_eq!((seen.reported, seen.claims), (None, Some("alice")), "{raw:?}");
        }
        let seen = app.clone().oneshot(plain().request()).await.unwrap();
        let seen = seen.extensions().get::<Seen>().unwrap();
        assert_eq!((seen.reported, seen.claims), (None, None));
    }
}

#[tokio::test]
async fn layer_reports_only_its_own_policy() {
    let version = || VersionCheckLayer::new().dangerous_report_only();
    let origin = || OriginCheckLayer::new(origins()).allow_host(hosts());
    let token = || TokenCheckLayer::new(policy());
    let responder = ResponderLayer::new;
    let stack = ServiceBuilder::new;

    let foreign = || bearer("guess").with("Origin", EVIL);
    let other = || offer(bearer("good"), "other");
    let carrier = || offer(handshake(), "auth.good");
    let cases = [
        (app(version()), foreign(), Ok(None)),
        (app(origin().dangerous_report_only()), foreign(), Ok(Some("origin-not-allowed"))),
        (
            app(origin().dangerous_report_only()),
            bearer("x").with("Host", "evil.example"),
            Ok(Some("host-not-allowed")),
        ),
        (app(origin().dangerous_report_only()), bearer("x"), Ok(None)),
        (app(token().dangerous_report_only()), foreign(), Ok(Some("token-invalid"))),
        (app(token().dangerous_report_only()), handshake(), Ok(Some("token-missing"))),
        (app(token().dangerous_report_only()), other(), Ok(None)),
        (app(token().dangerous_report_only()), carrier(), Ok(Some("subprotocol-unsupported"))),
        (
            app(token().subprotocols(chat()).dangerous_report_only()),
            other(),
            Ok(Some("subprotocol-unsupported")),
        ),
        (app(responder().dangerous_report_only()), foreign(), Ok(None)),
        (app(responder().dangerous_report_only()), other(), Ok(Some("subprotocol-unsupported"))),
        (
            app(responder().subprotocols(chat()).dangerous_report_only()),
            other(),
            Ok(Some("subprotocol-unsupported")),
        ),
        (
            app(responder().subprotocols(chat()).dangerous_report_only()),
            offer(handshake(), "chat"),
            Ok(None),
        ),
        (
            app(responder().accept_unmatched_subprotocols().dangerous_report_only()),
            other(),
            Ok(None),
        ),
        // A layer reports only its own policy.
        (
            app(stack().layer(origin().dangerous_report_only()).layer(token())),
            foreign(),
            Err("token-invalid"),
        ),
        (
            app(stack().layer(origin()).layer(token().dangerous_report_only())),
            foreign(),
            Err("origin-not-allowed"),
        ),
        (
            app(stack().layer(origin()).layer(token().dangerous_report_only())),
            bearer("guess"),
            Ok(Some("token-invalid")),
        ),
        (
            app(stack()
                .layer(token().subprotocols(chat()).dangerous_report_only())
                .layer(responder())),
            other(),
            Err("subprotocol-unsupported"),
        ),
        (
            app(stack()
                .layer(token().dangerous_report_only())
                .layer(origin().dangerous_report_only())),
            foreign(),
            // The outer layer would have rejected first.
            Ok(Some("token-invalid")),
        ),
        (
            app(stack()
                .layer(origin().dangerous_report_only())
                .layer(token().dangerous_report_only())
                .layer(responder().dangerous_report_only())),
            offer(handshake(), "other"),
            Ok(Some("token-missing")),
        ),
    ];
    for (index, (app, raw, expected)) in cases.into_iter().enumerate() {
        assert_eq!(
            outcome(&app, &raw).await.map(|seen| seen.reported),
            expected,
            "{index} {raw:?}"
        );
    }
}

#[tokio::test]
async fn invalid_handshake_is_still_rejected() {
    let line = |name, value: &str| handshake().with(name, value);
    let invalid = [
        (handshake().method("POST"), "method-not-allowed"),
        (handshake().version("HTTP/1.0"), "http-version"),
        (line("Upgrade", "h2c"), "upgrade-missing"),
        (line("Connection", "keep-alive"), "connection-missing"),
        (line("Connection", "Upgrade, close"), "connection-close"),
        (handshake().without("Host"), "host-invalid"),
        (handshake().without("Sec-WebSocket-Key"), "key-missing"),
        (handshake().and("Sec-WebSocket-Key", common::KEY), "key-repeated"),
        (line("Sec-WebSocket-Key", "zzz"), "key-invalid"),
        (handshake().without("Sec-WebSocket-Version"), "version-missing"),
        (line("Sec-WebSocket-Version", "13, 8"), "version-invalid"),
        (line("Sec-WebSocket-Version", "8"), "version-unsupported"),
        (handshake().and("Content-Length", "5"), "body-present"),
        (offer(handshake(), "a b"), "subprotocol-invalid"),
    ];
    let syntax = RejectionKind::ALL.iter().skip_while(|kind| **kind == RejectionKind::ShuttingDown);
    // Extensions are read only where they are negotiated: see `extensions`.
    let syntax = syntax.take_while(|kind| **kind != RejectionKind::ExtensionInvalid);
    assert!(syntax.map(|kind| kind.code()).eq(invalid.iter().map(|(_, code)| *code)));

    let layers = [
        app(GuardLayer::new(origins()).dangerous_report_only()),
        app(VersionCheckLayer::new().dangerous_report_only()),
        app(OriginCheckLayer::new(origins()).dangerous_report_only()),
        app(TokenCheckLayer::new(policy()).dangerous_report_only()),
        app(ResponderLayer::new().dangerous_report_only()),
        guard(),
        guard_and_responder(),
        four_layers(),
    ];
    for app in layers {
        for (raw, code) in &invalid {
            let response = app.clone().oneshot(raw.upgradable()).await.unwrap();
            assert!(response.extensions().get::<Seen>().is_none(), "{code}");
            assert_eq!(response.extensions().get::<Rejection>().unwrap().kind().code(), *code);
        }
        for (name, value, code) in [
            ("sec-websocket-version", "8", "version-unsupported"),
            ("host", "other.example", "host-invalid"),
            ("content-length", "5", "body-present"),
            ("sec-websocket-protocol", "a, a", "subprotocol-invalid"),
        ] {
            let mut request = handshake().extended_connect();
            request.headers_mut().insert(name, value.parse().unwrap());
            let response = app.clone().oneshot(request).await.unwrap();
            assert!(response.extensions().get::<Seen>().is_none(), "{code}");
            assert_eq!(response.extensions().get::<Rejection>().unwrap().kind().code(), code);
        }
    }
}

#[tokio::test]
async fn non_upgradable_request_is_still_rejected() {
    // A server that does not upgrade.
    for app in
        [app(ResponderLayer::new().dangerous_report_only()), guard_and_responder(), four_layers()]
    {
        for raw in [bearer("good"), handshake().with("Origin", EVIL)] {
            for request in raw.over_both() {
                let response = app.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), 500);
                assert_eq!(
                    response.extensions().get::<Rejection>().unwrap().kind(),
                    RejectionKind::NotUpgradable
                );
            }
        }
    }
    // A report-only policy leaves ordinary requests at the same path alone.
    for app in [
        app(GuardLayer::new(origins()).require_websocket().dangerous_report_only()),
        app(VersionCheckLayer::new().dangerous_report_only().require_websocket()),
        app(OriginCheckLayer::new(origins()).require_websocket().dangerous_report_only()),
        app(TokenCheckLayer::new(policy()).dangerous_report_only().require_websocket()),
        app(ResponderLayer::new().require_websocket().dangerous_report_only()),
    ] {
        let response = app.oneshot(plain().request()).await.unwrap();
        assert!(response.extensions().get::<Rejection>().is_none());
        assert_ne!(response.status(), 426);
    }
}

#[tokio::test]
async fn unsupported_subprotocols_are_left_to_the_inner_service() {
    let guard = || GuardLayer::new(origins()).token(policy()).unwrap().dangerous_report_only();
    let listed = || app(guard().subprotocols(chat()));
    let reported = Some("subprotocol-unsupported");
    for (app, raw, reported, seen, responded) in [
        (listed(), offer(handshake(), "v1, auth.good, v2"), reported, "v1, v2", Some("v2")),
        (listed(), offer(bearer("good"), "v1,  v2"), reported, "v1,  v2", Some("v2")),
        (listed(), offer(handshake(), "auth.good"), reported, "", None),
        (listed(), offer(handshake(), "v1, auth.good, chat"), None, "chat", Some("chat")),
        (app(guard()), offer(handshake(), "auth.good"), reported, "", None),
        (app(guard()), offer(handshake(), "v1, auth.good, v2"), None, "v1, v2", Some("v2")),
    ] {
        for request in upgradable(&raw) {
            let response = app.clone().oneshot(request).await.unwrap();
            let found = response.extensions().get::<Seen>().unwrap();
            assert_eq!(
                (found.reported, found.claims, &*found.offer),
                (reported, Some("alice"), seen),
                "{raw:?}"
            );
            let choice = response
                .headers()
                .get("sec-websocket-protocol")
                .map(|value| value.to_str().unwrap());
            assert_eq!(choice, responded, "{raw:?}");
        }
    }
}

#[tokio::test]
async fn accept_then_close_does_not_apply() {
    let guard = || GuardLayer::new(origins()).token(policy()).unwrap();
    let close = AcceptThenClose::new;
    let greet = ResponderLayer::on_upgraded_with(
        |head| {
            // No subscriber is installed here.
            assert!(head.extensions.get::<tracing::Span>().is_none());
            let Reported(reported) = head.extensions.get().unwrap();
            reported.kind().code()
        },
        async |mut socket, reported| {
            assert!(socket.span().is_none());
            socket.write_all(reported.as_bytes()).await.unwrap();
        },
    );
    for layer in [
        guard().accept_then_close(close()).dangerous_report_only(),
        guard().dangerous_report_only().accept_then_close(close()),
    ] {
        let app = app(ServiceBuilder::new().layer(layer).layer(greet.clone()));
        for (raw, code) in [
            (handshake(), "token-missing"),
            (bearer("guess"), "token-invalid"),
            (bearer("weak"), "token-forbidden"),
            (bearer("down"), "verifier-failed"),
        ] {
            let (request, mut client) = test_util::upgradable(raw.request()).await;
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 101);
            assert!(response.extensions().get::<Rejection>().is_none());
            let mut received = String::new();
            timeout(TIMEOUT, client.read_to_string(&mut received))
                .await
                .expect("the socket's end")
                .unwrap();
            assert_eq!(received, code);
        }
    }
}
