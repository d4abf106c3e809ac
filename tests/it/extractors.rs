//! The extractors for axum: on a route without an origin check, and in handlers that ask for what no
//! layer provides.

use std::any::type_name;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ws::WebSocketUpgrade,
    response::Response,
    routing::{MethodRouter, any},
};
use http::{Request, Version};
use tower::{ServiceBuilder, ServiceExt};
use tower_ws_guard::{
    AllowOrigin, Claims, ConfirmUpgradeLayer, ConnectionLimit, Drain, GuardLayer, OriginCheckLayer,
    PendingUpgrade, Permit, ProblemJson, RejectionKind, ResponderLayer, StaticTokens,
    TokenCheckLayer, TokenPolicy, Validity, VersionCheckLayer, axum::GuardedUpgrade, test_util,
};
use tracing::{Level, level_filters::LevelFilter};

use crate::{
    common::{Raw, handshake, plain, send, serve_axum},
    http2::{OWN, VERSION, send_h2},
    limit::{code, guard},
    telemetry_log::{Recorded, Recorder},
};

/// The name of this type, and those below, must be in no response.
#[derive(Clone, Copy)]
struct User;

#[derive(Clone)]
struct Other;

fn policy() -> TokenPolicy<User> {
    TokenPolicy::bearer(StaticTokens::new([("s3cr3t", User)]).unwrap())
}

fn limit() -> ConnectionLimit {
    ConnectionLimit::total(9).unwrap()
}

fn valid() -> Raw {
    handshake().target("/ws?token=s3cr3t").and("Authorization", "Bearer s3cr3t")
}

// Handlers

async fn claims(_: Claims<User>) {}
async fn some_claims(_: Option<Claims<User>>) {}
async fn other_claims(_: Claims<Other>) {}
async fn validity(_: Validity) {}
async fn permit(_: Permit) {}
async fn some_permit(_: Option<Permit>) {}

async fn pending(pending: PendingUpgrade) {
    pending.on_upgrade(async |_| {});
}

async fn some_pending(pending: Option<PendingUpgrade>) {
    if let Some(pending) = pending {
        pending.on_upgrade(async |_| {});
    }
}

async fn guarded(upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async |_, ()| {})
}

async fn guarded_claims(upgrade: GuardedUpgrade<Claims<User>>) -> Response {
    upgrade.on_upgrade(async |_, _| {})
}

async fn guarded_permit(upgrade: GuardedUpgrade<Permit>) -> Response {
    upgrade.on_upgrade(async |_, _| {})
}

async fn unguarded(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |_| {})
}

/// Each extractor: what the log calls it, a handler that takes it, and the status of an ordinary
/// request.
fn handlers() -> [(&'static str, MethodRouter, u16); 10] {
    [
        ("Claims", any(claims), 426),
        ("Claims", any(some_claims), 200),
        ("Validity", any(validity), 200),
        ("Permit", any(permit), 500),
        ("Permit", any(some_permit), 200),
        ("PendingUpgrade", any(pending), 426),
        ("PendingUpgrade", any(some_pending), 200),
        ("GuardedUpgrade", any(guarded), 426),
        ("GuardedUpgrade", any(guarded_claims), 426),
        ("GuardedUpgrade", any(guarded_permit), 426),
    ]
}

// Requests

/// Upgradable requests over both transports.
async fn requests(raw: &Raw) -> Vec<Request<Body>> {
    let mut requests = Vec::new();
    for request in raw.over_both() {
        requests.push(test_util::upgradable(request).await.0);
    }
    requests
}

/// The status, the code, the media type and the body of a response.
async fn parts(response: Response) -> (u16, Option<&'static str>, String, String) {
    let (status, code) = (response.status().as_u16(), code(&response));
    let media_type = response.headers().get("content-type").cloned();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let media_type = media_type.map_or(String::new(), |it| it.to_str().unwrap().to_owned());
    (status, code, media_type, String::from_utf8(body.to_vec()).unwrap())
}

/// Asserts that a response tells an untrusted client no more than the cause.
fn assert_says_only(kind: RejectionKind, media_type: &str, body: &str) {
    let (code, title) = (kind.code(), kind.title());
    let url = kind.url().unwrap();
    let expected = match media_type {
        "application/problem+json" => {
            format!(r#"{{"type":"{url}","title":"{title}","status":500,"code":"{code}"}}"#)
        }
        "text/plain; charset=utf-8" => format!("{title} ({code})\n"),
        _ => String::new(),
    };
    assert_eq!(body, expected, "{media_type}");
}

/// Asserts that there is one event, of the level ERROR, with all of `parts` and no credential.
fn assert_is_logged(name: &str, events: &[Recorded], kind: RejectionKind, parts: &[&str]) {
    let [event] = events else { panic!("{name}: {events:?}") };
    let message = event.message();
    assert_eq!(
        (event.level(), &*event.fields["code"]),
        (Level::ERROR, kind.code()),
        "{name}: {message}"
    );
    assert!(message.starts_with(&format!("rejected: {}: ", kind.code())), "{name}: {message}");
    for part in parts {
        assert!(message.contains(part), "{name}: {part} is not in {message}");
    }
    assert_eq!(event.fields["path"], "/ws", "{name}");
    assert!(!format!("{event:?}").contains("s3cr3t"), "{name}: {event:?}");
}

// No origin check

#[tokio::test]
async fn extractor_rejects_upgrade_requests_on_a_route_without_an_origin_check() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    // Of each: the media type of the response in the configured format.
    type Add = fn(MethodRouter) -> Router;
    let (text, json) = ("text/plain; charset=utf-8", "application/problem+json");
    let stacks: [(&str, Add, &str); 8] = [
        ("no layer", |route| Router::new().route("/ws", route), text),
        (
            "a layer before the route",
            |route| {
                let guard = guard().token(policy()).unwrap().limit(limit());
                Router::new().layer(guard.reject_with(ProblemJson::new())).route("/ws", route)
            },
            text,
        ),
        (
            "a layer that completes handshakes, before the route",
            |route| Router::new().layer(guard().respond()).route("/ws", route),
            text,
        ),
        (
            "version check",
            |route| Router::new().route("/ws", route.layer(VersionCheckLayer::new())),
            "",
        ),
        (
            "version check in a format",
            |route| {
                let layer = VersionCheckLayer::new().limit(limit()).reject_with(ProblemJson::new());
                Router::new().route("/ws", route.layer(layer))
            },
            json,
        ),
        (
            "token check",
            |route| {
                let layer = TokenCheckLayer::new(policy()).reject_with(ProblemJson::new());
                Router::new().route("/ws", route.layer(layer))
            },
            json,
        ),
        (
            "responder",
            |route| {
                let layer = ResponderLayer::new().reject_with(ProblemJson::new());
                Router::new().route("/ws", route.layer(layer))
            },
            json,
        ),
        (
            "three layers",
            |route| {
                let layers = ServiceBuilder::new()
                    .layer(VersionCheckLayer::new())
                    .layer(TokenCheckLayer::new(policy()))
                    .layer(ResponderLayer::new().reject_with(ProblemJson::new()));
                Router::new().route("/ws", route.layer(layers))
            },
            json,
        ),
    ];
    for (stack, add, expected) in stacks {
        for (extractor, route, _) in handlers() {
            let app = add(route);
            for raw in [
                valid(),
                valid().with("Origin", "https://evil.example"),
                valid().with("Origin", "null"),
                valid().without("Origin"),
            ] {
                for request in requests(&raw).await {
                    let name = format!("{stack}, {extractor}, {request:?}");
                    let response = app.clone().oneshot(request).await.unwrap();
                    let (status, code, media_type, body) = parts(response).await;
                    assert_eq!((status, code), (500, Some("guard-missing")), "{name}");
                    assert_eq!(media_type, expected, "{name}");
                    assert_says_only(RejectionKind::GuardMissing, &media_type, &body);
                    let asked = format!(
                        "the handler takes `{extractor}`, and no origin check has seen the request"
                    );
                    let fix = RejectionKind::GuardMissing.fix();
                    assert!(fix.contains("any(handler).layer(guard)"));
                    let events = recorder.take_own();
                    assert_is_logged(&name, &events, RejectionKind::GuardMissing, &[&asked, fix]);
                }
            }
        }
    }
}

#[tokio::test]
async fn extractor_switches_no_protocol_on_an_unguarded_socket() {
    let limited = guard().token(policy()).unwrap().limit(limit());
    for (extractor, route, ordinary) in handlers() {
        let app = Router::new().layer(limited.clone()).route("/ws", route);
        let address = serve_axum(app).await;
        for raw in [valid(), valid().with("Origin", "https://evil.example")] {
            let mut response = send(address, &raw.bytes()).await;
            assert_eq!(response.status, 500, "{extractor}");
            assert!(response.has("connection", "close"), "{extractor}");
            let body = response.read_rest().await;
            assert_eq!(body, "the endpoint is misconfigured (guard-missing)\n", "{extractor}");
        }
        for origin in [OWN, ("origin", "https://evil.example")] {
            let response = send_h2(address, &[origin, VERSION]).await;
            assert_eq!(response.status(), 500, "{extractor}");
        }
        assert_eq!(send(address, &plain().bytes()).await.status, ordinary, "{extractor}");
    }
}

#[tokio::test]
async fn extractor_works_behind_an_origin_check_or_an_explicit_permission() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::WARN);
    let origins = || OriginCheckLayer::new(AllowOrigin::same_origin());
    let foreign = || valid().with("Origin", "https://evil.example");
    let version = || VersionCheckLayer::new().limit(limit());
    let token = || TokenCheckLayer::new(policy()).limit(limit());
    let responder = ResponderLayer::new;
    macro_rules! behind {
        ($handler:expr, $layer:expr) => {
            (
                any($handler).layer(ServiceBuilder::new().layer(origins()).layer($layer)),
                any($handler).layer($layer.dangerous_without_origin_check()),
            )
        };
    }
    let completed = true;
    for (i, ((checked, permitted), completes)) in [
        (behind!(claims, token()), !completed),
        (behind!(some_claims, version()), !completed),
        (behind!(some_claims, responder()), !completed),
        (behind!(validity, version()), !completed),
        (behind!(validity, token()), !completed),
        (behind!(some_permit, version()), !completed),
        (behind!(some_pending, version()), !completed),
        (behind!(some_pending, responder()), completed),
        (behind!(pending, responder()), completed),
        (behind!(guarded, version()), completed),
        (behind!(guarded, token()), completed),
        (behind!(guarded_claims, token()), completed),
        (behind!(guarded_permit, version()), completed),
        (behind!(guarded_permit, token()), completed),
    ]
    .into_iter()
    .enumerate()
    {
        for (route, raw, is_rejected) in [
            (&checked, valid(), false),
            (&checked, foreign(), true),
            (&permitted, valid(), false),
            (&permitted, foreign(), false),
            (&permitted, valid().without("Origin"), false),
        ] {
            let app = Router::new().route("/ws", route.clone());
            for request in requests(&raw).await {
                // A handler that completes nothing declines: behind a limit its 200 becomes 404.
                let expected = match (is_rejected, completes, request.version()) {
                    (true, ..) => &[403][..],
                    (_, true, Version::HTTP_2) => &[200],
                    (_, true, _) => &[101],
                    (_, false, Version::HTTP_2) => &[200, 404],
                    (_, false, _) => &[200],
                };
                let response = app.clone().oneshot(request).await.unwrap();
                let status = response.status().as_u16();
                assert!(expected.contains(&status), "{i} {raw:?} {status}");
                let events = recorder.take_own();
                assert_eq!(events.len(), usize::from(is_rejected), "{i} {raw:?} {events:?}");
            }
        }
    }
}

// Mistakes of a handler

#[tokio::test]
async fn ordinary_request_is_rejected_or_has_none() {
    async fn none(claims: Option<Claims<User>>, pending: Option<PendingUpgrade>) -> String {
        format!("{} {}", claims.is_none(), pending.is_none())
    }
    for layer in [Some(guard().token(policy()).unwrap().limit(limit())), None] {
        let wrap = |route: MethodRouter| match layer.clone() {
            Some(layer) => Router::new().route("/ws", route.layer(layer)),
            None => Router::new().route("/ws", route),
        };
        for (extractor, route, expected) in handlers() {
            if expected == 500 {
                continue;
            }
            let response = wrap(route).oneshot(plain().request::<Body>()).await.unwrap();
            let (status, code, _, body) = parts(response).await;
            assert_eq!(status, expected, "{extractor}");
            assert_eq!(code, (expected == 426).then_some("not-websocket"), "{extractor}");
            assert!(!body.contains(extractor), "{body}");
        }
        let response = wrap(any(none)).oneshot(plain().request::<Body>()).await.unwrap();
        assert_eq!(parts(response).await.3, "true true");
    }
}

/// A stack with a mistake: the kind of the rejection, and what the log says.
type Mistake = (&'static str, MethodRouter, RejectionKind, Vec<String>);

fn mistakes() -> Vec<Mistake> {
    use RejectionKind::{GuardMissing, NotUpgradable};
    let guard = || guard().reject_with(ProblemJson::new());
    let responder = || ResponderLayer::new().reject_with(ProblemJson::new());
    let with_token = || guard().token(policy()).unwrap();
    let (user, other) = (type_name::<User>(), type_name::<Other>());
    let takes = |what: &str| format!("the handler takes `{what}`");
    let wrong = || {
        vec![
            takes(&format!("Claims<{other}>")),
            format!("the token check provides `Claims<{user}>`"),
            "`VerifyToken::map_claims`".to_owned(),
        ]
    };
    let no_token_check = || {
        vec![
            takes(&format!("Claims<{user}>")),
            "no token check has seen the request".to_owned(),
            "add `GuardLayer::token` or `TokenCheckLayer` to the route".to_owned(),
        ]
    };
    let no_permit = || {
        vec![
            takes("Permit"),
            "not inside of a `GuardedUpgrade`".to_owned(),
            "take `GuardedUpgrade<Permit>`".to_owned(),
        ]
    };
    let guarded_behind_responder = || {
        vec![
            "takes `GuardedUpgrade` behind a layer that completes handshakes".to_owned(),
            "take `PendingUpgrade`, or remove `GuardLayer::respond` or `ResponderLayer`".to_owned(),
        ]
    };
    let axum_behind_responder = || {
        vec![
            "the handler uses axum's `WebSocketUpgrade` behind a layer that completes the handshake"
                .to_owned(),
            "use `PendingUpgrade`, or a guard without `respond`".to_owned(),
        ]
    };
    let outer_knows = ServiceBuilder::new().layer(with_token()).layer(responder());
    let both_know = ServiceBuilder::new()
        .layer(with_token())
        .layer(ServiceBuilder::new().layer(VersionCheckLayer::new()).layer(responder()));
    let nobody_knows = ServiceBuilder::new().layer(guard()).layer(responder());
    let report_only = with_token().dangerous_report_only();
    vec![
        ("claims of another type", any(other_claims).layer(with_token()), GuardMissing, wrong()),
        (
            "claims of another type behind `respond`",
            any(other_claims).layer(with_token().respond()),
            GuardMissing,
            wrong(),
        ),
        (
            "claims of another type in a stack",
            any(other_claims).layer(outer_knows),
            GuardMissing,
            wrong(),
        ),
        (
            "claims of another type in a deep stack",
            any(other_claims).layer(both_know),
            GuardMissing,
            wrong(),
        ),
        ("claims, no token", any(claims).layer(guard()), GuardMissing, no_token_check()),
        (
            "claims, no token in a stack",
            any(claims).layer(nobody_knows),
            GuardMissing,
            no_token_check(),
        ),
        (
            "guarded claims, no token",
            any(guarded_claims).layer(guard().limit(limit())),
            GuardMissing,
            no_token_check(),
        ),
        (
            "claims in report-only mode",
            any(claims).layer(report_only),
            GuardMissing,
            vec![
                takes(&format!("Claims<{user}>")),
                "report-only mode accepted a handshake without a valid token".to_owned(),
                "take `Option<Claims<_>>` in report-only mode".to_owned(),
            ],
        ),
        (
            "permit alone, limit",
            any(permit).layer(guard().limit(limit())),
            GuardMissing,
            no_permit(),
        ),
        (
            "permit alone, drain",
            any(permit).layer(guard().drain(&Drain::new())),
            GuardMissing,
            no_permit(),
        ),
        (
            "permit behind `respond`",
            any(permit).layer(guard().limit(limit()).respond()),
            GuardMissing,
            vec![takes("Permit"), "`Upgraded::permit` has it".to_owned()],
        ),
        (
            "pending upgrade, no `respond`",
            any(pending).layer(with_token().limit(limit())),
            NotUpgradable,
            vec![
                takes("PendingUpgrade"),
                "no layer on the route completes handshakes".to_owned(),
                "add `GuardLayer::respond` or `ResponderLayer` to the route".to_owned(),
            ],
        ),
        (
            "guarded upgrade behind `respond`",
            any(guarded).layer(guard().respond()),
            NotUpgradable,
            guarded_behind_responder(),
        ),
        (
            "guarded upgrade behind a responder",
            any(guarded).layer(ServiceBuilder::new().layer(guard()).layer(responder())),
            NotUpgradable,
            guarded_behind_responder(),
        ),
        (
            "axum's upgrade behind `respond`",
            any(unguarded).layer(guard().respond()),
            NotUpgradable,
            axum_behind_responder(),
        ),
        (
            "axum's upgrade behind a responder",
            any(unguarded).layer(ServiceBuilder::new().layer(guard()).layer(responder())),
            NotUpgradable,
            axum_behind_responder(),
        ),
    ]
}

#[tokio::test]
async fn mistake_of_a_handler_is_a_500_and_the_log_names_the_fix() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    for (name, route, kind, log) in mistakes() {
        let app = Router::new().route("/ws", route);
        let raw = match name {
            // There the token is not valid.
            "claims in report-only mode" => handshake(),
            _ => valid(),
        };
        for request in requests(&raw).await {
            let name = format!("{name} {:?}", request.version());
            let response = app.clone().oneshot(request).await.unwrap();
            assert!(!format!("{:?}", response.headers()).contains("Layer"), "{name}");
            let (status, code, media_type, body) = parts(response).await;
            assert_eq!((status, code), (500, Some(kind.code())), "{name}");
            assert_eq!(media_type, "application/problem+json", "{name}");
            assert_says_only(kind, &media_type, &body);
            for secret in ["Claims", "User", "Other", "GuardLayer", "s3cr3t"] {
                assert!(!body.contains(secret), "{name}: {body}");
            }
            let log = log.iter().map(|part| &**part).collect::<Vec<_>>();
            assert_is_logged(&name, &recorder.take_own(), kind, &log);
        }
    }
}

/// A `ConfirmUpgradeLayer` records and rejects nothing, so the layer inside it does.
#[tokio::test]
async fn decision_behind_a_confirming_layer_is_recorded_once() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    macro_rules! confirmed {
        ($handler:expr $(, $layer:expr)*) => {
            any($handler).layer(
                ServiceBuilder::new().layer(ConfirmUpgradeLayer::new())$(.layer($layer))*
            )
        };
    }
    let origins = || OriginCheckLayer::new(AllowOrigin::same_origin());
    let responder = ResponderLayer::new;
    let elsewhere = GuardLayer::new(AllowOrigin::list(["https://app.example.com"]).unwrap());
    for (name, route, expected) in [
        ("no other layer", confirmed!(claims), "500 guard-missing"),
        ("no origin check", confirmed!(guarded, VersionCheckLayer::new()), "500 guard-missing"),
        (
            "no origin check in a stack",
            confirmed!(pending, VersionCheckLayer::new(), responder()),
            "500 guard-missing",
        ),
        ("no token check", confirmed!(claims, guard()), "500 guard-missing"),
        (
            "no token check in a stack",
            confirmed!(claims, origins(), responder()),
            "500 guard-missing",
        ),
        ("another origin", confirmed!(guarded, elsewhere), "403 origin-not-allowed"),
        ("guard", confirmed!(guarded, guard()), "101 accepted"),
        ("guard with a limit", confirmed!(guarded_permit, guard().limit(limit())), "101 accepted"),
        ("separate layers", confirmed!(pending, origins(), responder()), "101 accepted"),
        (
            "four layers",
            confirmed!(
                pending,
                VersionCheckLayer::new(),
                origins(),
                TokenCheckLayer::new(policy()),
                responder()
            ),
            "101 accepted",
        ),
    ] {
        let app = Router::new().route("/ws", route);
        for request in requests(&valid()).await {
            let is_http2 = request.version() == Version::HTTP_2;
            let status = app.clone().oneshot(request).await.unwrap().status().as_u16();
            let status = if is_http2 && status == 200 { 101 } else { status };
            let events = recorder.take_own();
            let codes = events.iter().map(|event| &*event.fields["code"]).collect::<Vec<_>>();
            assert_eq!(format!("{status} {}", codes.join(", ")), expected, "{name} {is_http2}");
        }
    }
}
