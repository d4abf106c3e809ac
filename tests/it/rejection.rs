//! Rejections: what a responder may change, and what it may not.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT},
    request::Parts,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, EmptyBody, GuardLayer, PlainText, ProblemJson, Rejection,
    RejectionKind, RejectionResponse, StaticTokens, Token, TokenCheckLayer, TokenPolicy, Verified,
    check_fn, response_fn,
};

use crate::{
    common::{self, Raw, handshake, upgradable},
    limit::is_random_delay,
};

type Tokens = TokenPolicy<()>;

async fn reject<R>(raw: &Raw, responder: R) -> Response<String>
where
    R: RejectionResponse<String> + Clone + Send + Sync + 'static,
{
    reject_request(raw.request(), responder).await
}

async fn reject_request<R>(request: Request<()>, responder: R) -> Response<String>
where
    R: RejectionResponse<String> + Clone + Send + Sync + 'static,
{
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("inner".to_owned())));
    let token: Tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .check(check_fn(|handshake| match handshake.uri().path() {
            "/full" => Err(RejectionKind::OverCapacity.into()),
            _ => Ok(()),
        }))
        .token(token)
        .unwrap()
        .reject_with(responder);
    guard.layer(inner).oneshot(request).await.unwrap()
}

fn foreign() -> Raw {
    handshake().with("Origin", "https://evil.example")
}

#[tokio::test]
async fn status_and_required_headers_are_kept_from_any_responder() {
    let old = handshake().with("Sec-WebSocket-Version", "8");
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade, close"),
        ("sec-websocket-version", "13"),
    ];
    let challenge = [("www-authenticate", r#"Bearer realm="websocket""#)];
    let later = [("retry-after", "*")];
    let cases: [(Request<()>, u16, &[_]); 9] = [
        (foreign().request(), 403, &[]),
        (foreign().extended_connect(), 403, &[]),
        (handshake().request(), 401, &challenge),
        (handshake().extended_connect(), 401, &challenge),
        (handshake().target("/full").request(), 503, &later),
        (handshake().target("/full").extended_connect(), 503, &later),
        (handshake().method("POST").request(), 405, &[("allow", "GET")]),
        (old.request(), 426, &upgrade),
        (old.extended_connect(), 400, &upgrade[2..]),
    ];
    for (request, status, headers) in cases {
        // The responder drops all headers and claims success, a redirect, or a handshake.
        for claimed in [101, 200, 204, 302, 304] {
            let replace = move |_: &Rejection, _: &Parts, _: Response<()>| {
                let response = Response::builder()
                    .status(claimed)
                    .header("sec-websocket-accept", common::ACCEPT);
                response
                    .header("cache-control", "public")
                    .header("x-own", "kept")
                    .body("own".to_owned())
                    .unwrap()
            };
            let response = reject_request(request.clone(), replace).await;
            assert_eq!(response.status(), status, "{request:?}");
            assert_eq!(response.body(), "own");
            assert_eq!(response.headers()["x-own"], "kept");
            assert_eq!(response.headers()["cache-control"], "no-store");
            match request.version() {
                Version::HTTP_2 => assert!(!response.headers().contains_key("connection")),
                _ => assert!(response.headers()["connection"].to_str().unwrap().contains("close")),
            }
            assert!(!response.headers().contains_key("sec-websocket-accept"));
            for (name, value) in headers {
                let sent = &response.headers()[*name];
                assert!(sent == value || (*value == "*" && is_random_delay(sent)), "{sent:?}");
            }
            assert!(response.extensions().get::<Rejection>().is_some());
        }
    }
}

#[tokio::test]
async fn required_header_stands_alone() {
    let append = |_: &Rejection, _: &Parts, mut prepared: Response<()>| {
        for (name, value) in [(CONNECTION, "keep-alive"), (CACHE_CONTROL, "public")] {
            prepared.headers_mut().append(name, HeaderValue::from_static(value));
        }
        prepared.map(|()| String::new())
    };
    for (request, connection) in
        [(foreign().request(), &["close"][..]), (foreign().extended_connect(), &[])]
    {
        let response = reject_request(request, append).await;
        let lines = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines(CONNECTION), connection);
        assert_eq!(lines(CACHE_CONTROL), ["no-store"]);
    }
}

#[tokio::test]
async fn responder_may_change_the_status_and_add_challenges() {
    let hide = |_: &Rejection, _: &Parts, mut prepared: Response<()>| {
        *prepared.status_mut() = StatusCode::NOT_FOUND;
        prepared.headers_mut().append("www-authenticate", "Custom realm=\"x\"".parse().unwrap());
        prepared.map(|()| String::new())
    };
    let response = reject(&handshake(), hide).await;
    assert_eq!(response.status(), 404);
    let challenges = response.headers().get_all("www-authenticate").iter().collect::<Vec<_>>();
    assert_eq!(challenges, [r#"Bearer realm="websocket""#, r#"Custom realm="x""#]);
}

#[tokio::test]
async fn responder_may_hide_a_forbidden_endpoint() {
    let forbidden = TokenPolicy::bearer(async |_: Token| -> Result<Verified<()>, Rejection> {
        Err(RejectionKind::TokenForbidden.into())
    });
    for (hidden, expected) in
        [(false, Some(r#"Bearer realm="websocket", error="insufficient_scope""#)), (true, None)]
    {
        let hide = move |_: &Rejection, _: &Parts, mut prepared: Response<()>| {
            prepared.headers_mut().remove("www-authenticate");
            if hidden {
                *prepared.status_mut() = StatusCode::NOT_FOUND;
            }
            prepared
        };
        let guard = GuardLayer::new(AllowOrigin::same_origin()).token(forbidden.clone()).unwrap();
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let request = handshake().and("Authorization", "Bearer s3cr3t").request();
        let response = guard.reject_with(response_fn(hide)).layer(inner).oneshot(request).await;
        let challenge = response.unwrap().headers().get("www-authenticate").cloned();
        assert_eq!(challenge.as_ref().map(|value| value.to_str().unwrap()), expected);
    }
}

#[tokio::test]
async fn body_names_the_cause_but_not_the_policy() {
    let response = reject(&foreign(), EmptyBody).await;
    assert_eq!((response.status(), &**response.body()), (StatusCode::FORBIDDEN, ""));

    let response = reject(&foreign(), PlainText).await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.body(), "the origin is not allowed (origin-not-allowed)\n");

    let response = reject(&foreign(), ProblemJson::new()).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(problem["code"], "origin-not-allowed");
    assert_eq!(problem["status"], 403);
    assert_eq!(problem["type"].as_str(), RejectionKind::OriginNotAllowed.url().as_deref());
    for secret in ["evil.example", "chat.example.com", "AllowOrigin"] {
        assert!(!response.body().contains(secret), "{}", response.body());
    }
}

#[tokio::test]
async fn display_names_cause_and_fix() {
    let long = format!("https://{}.example", "a".repeat(300));
    for (raw, wanted) in [
        (foreign(), &["origin-not-allowed", "`https://evil.example`", "AllowOrigin::list"][..]),
        (handshake().with("Origin", "https://evil\u{9b}"), &["origin-invalid", r"\xc2\x9b"][..]),
        (
            handshake().with("Origin", "null"),
            &["origin-not-allowed", "AllowOrigin::allow_null"][..],
        ),
        (handshake().with("Origin", long), &["origin-not-allowed", "aaaa…`"][..]),
        (handshake().with("Sec-WebSocket-Version", "8"), &["version-unsupported", "`8`"][..]),
    ] {
        let response = reject(&raw, EmptyBody).await;
        let message = response.extensions().get::<Rejection>().unwrap().to_string();
        for wanted in wanted {
            assert!(message.contains(wanted), "{message}");
        }
        assert!(message.len() < 700, "{message}");
    }
}

#[tokio::test]
async fn custom_code_is_escaped_and_its_status_corrected() {
    let inner =
        || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    for (status, responded) in
        [(200, 500), (101, 500), (302, 500), (418, 418), (429, 429), (503, 503)]
    {
        let status = StatusCode::from_u16(status).unwrap();
        let check = move |_: &mut tower_ws_guard::Handshake<'_>| {
            Err(Rejection::custom("odd\"\\\ncode", status))
        };
        let guard = GuardLayer::new(AllowOrigin::same_origin())
            .check(check)
            .reject_with(ProblemJson::new());
        let response = guard.layer(inner()).oneshot(handshake().request()).await.unwrap();
        assert_eq!(response.status(), responded);
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(problem["code"], "odd\"\\\ncode");
    }
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn code<B>(response: &Response<B>) -> Option<&'static str> {
    response.extensions().get::<Rejection>().map(|rejection| rejection.kind().code())
}

#[tokio::test]
async fn rejection_in_a_101_of_the_handler_does_not_bypass_the_layer() {
    // Without `Permit::claim`, and without `PendingUpgrade::accept`.
    async fn completes(request: Request<()>) -> Result<Response<()>, Infallible> {
        let status = if request.version() == Version::HTTP_2 { 200 } else { 101 };
        let rejection = Rejection::from(RejectionKind::TokenMissing);
        Ok(Response::builder().status(status).extension(rejection).body(()).unwrap())
    }

    let limit = ConnectionLimit::total(1).unwrap();
    let apps = [
        (guard().limit(limit.clone()).layer(service_fn(completes)), "permit-unclaimed"),
        (guard().drain(&Drain::new()).layer(service_fn(completes)), "permit-unclaimed"),
    ];
    let apps = apps.map(|(app, expected)| (BoxCloneSyncService::new(app), expected));
    let responds = BoxCloneSyncService::new(guard().respond().layer(service_fn(completes)));
    for (app, expected) in apps.into_iter().chain([(responds, "not-upgradable")]) {
        let [http1, http2] = upgradable(&handshake());
        let rejected = app.clone().oneshot(http1).await.unwrap();
        assert_eq!((rejected.status().as_u16(), code(&rejected)), (500, Some(expected)));
        assert_eq!(app.oneshot(http2).await.unwrap().status(), 404, "{expected}");
        assert_eq!(limit.connections(), 0);
    }
}

#[tokio::test]
async fn rejection_that_becomes_a_success_completes_no_handshake_over_http2() {
    async fn completes(_: Request<()>) -> Result<Response<()>, Infallible> {
        panic!("the token is missing")
    }

    let limit = ConnectionLimit::total(1).unwrap();
    let inner = || {
        ServiceBuilder::new()
            .map_response(|mut rejected: Response<()>| {
                assert_eq!(code(&rejected), Some("token-missing"));
                *rejected.status_mut() = StatusCode::OK;
                rejected
            })
            .layer(TokenCheckLayer::new(Tokens::bearer(
                StaticTokens::new([("s3cr3t", ())]).unwrap(),
            )))
            .service_fn(completes)
    };
    for (name, app) in [
        ("guard", BoxCloneSyncService::new(guard().layer(inner()))),
        ("limit", BoxCloneSyncService::new(guard().limit(limit.clone()).layer(inner()))),
        ("drain", BoxCloneSyncService::new(guard().drain(&Drain::new()).layer(inner()))),
        ("respond", BoxCloneSyncService::new(guard().respond().layer(inner()))),
        ("report", BoxCloneSyncService::new(guard().dangerous_report_only().layer(inner()))),
    ] {
        // Over HTTP/1.1 a 200 is no handshake.
        for (request, status) in upgradable(&handshake()).into_iter().zip([200, 404]) {
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{name}");
        }
        assert_eq!(limit.connections(), 0, "{name}");
    }
}

#[test]
fn rejection_kinds_have_unique_codes_and_texts() {
    let mut codes = RejectionKind::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>();
    for kind in RejectionKind::ALL {
        let is_kebab = kind.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(is_kebab && kind.status().as_u16() >= 400, "{kind:?}");
        assert!(!kind.title().ends_with('.') && !kind.fix().ends_with('.'), "{kind:?}");
        // Causes are inserted into JSON without escaping.
        assert!(!kind.title().contains(['"', '\\']), "{kind:?}");
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), RejectionKind::ALL.len());
}

#[test]
fn rejection_has_a_source() {
    let rejection = Rejection::verifier_failed("the database is away");
    assert_eq!(rejection.kind(), RejectionKind::VerifierFailed);
    assert_eq!(std::error::Error::source(&rejection).unwrap().to_string(), "the database is away");
    assert!(!rejection.to_string().contains("database"));
}

fn detailed() -> Rejection {
    Rejection::custom("room-full", StatusCode::CONFLICT)
        .with_title("the room is full")
        .with_detail("12 of 12 seats are taken")
        .with_fix("build a larger room")
        .with_value("room\n12")
        .with_header("x-seats".parse().unwrap(), "12".parse().unwrap())
        .with_header("x-seats".parse().unwrap(), "13".parse().unwrap())
        .with_source("the database says so")
}

async fn rejected_by_check<R, B>(rejection: Rejection, responder: R) -> Response<B>
where
    R: RejectionResponse<B> + Send + Sync + 'static,
    B: Default,
{
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(B::default())));
    let guard = guard().check(move |_: &mut tower_ws_guard::Handshake<'_>| Err(rejection.clone()));
    guard.reject_with(responder).layer(inner).oneshot(handshake().request()).await.unwrap()
}

#[tokio::test]
async fn rejection_of_ones_own_has_words_of_its_own() {
    let rejection = detailed();
    assert_eq!((rejection.title(), rejection.fix()), ("the room is full", "build a larger room"));
    assert_eq!(rejection.detail(), Some("12 of 12 seats are taken"));
    assert_eq!(
        rejection.to_string(),
        r"room-full: the room is full: `room\n12`; build a larger room"
    );
    assert!(format!("{rejection:?}").contains("room-full"));

    let response: Response<String> = rejected_by_check(detailed(), PlainText).await;
    assert_eq!(response.body(), "the room is full (room-full)\n");
    let response: Response<String> = rejected_by_check(detailed(), ProblemJson::new()).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let seats = response.headers().get_all("x-seats").iter().collect::<Vec<_>>();
    assert_eq!(seats, ["12", "13"]);
    let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "about:blank",
            "title": "the room is full",
            "status": 409,
            "code": "room-full",
            "detail": "12 of 12 seats are taken",
        })
    );

    // Another kind can have words, too. Later words replace earlier ones.
    let rejection = Rejection::new(RejectionKind::OriginNotAllowed).with_title("a").with_title("b");
    assert_eq!((rejection.title(), rejection.kind().title()), ("b", "the origin is not allowed"));
    assert_eq!(rejection.fix(), RejectionKind::OriginNotAllowed.fix());
    assert_eq!(Rejection::new(RejectionKind::OriginNotAllowed).detail(), None);
    let long = Rejection::from(RejectionKind::KeyInvalid).with_value([b'x'; 500]).to_string();
    assert!(long.contains(&format!("`{}…`", "x".repeat(128))), "{long}");
    let bytes = Rejection::from(RejectionKind::KeyInvalid).with_value(b"\xff`\"").to_string();
    assert!(bytes.contains(r#"\xff`\""#), "{bytes}");
}

#[tokio::test]
async fn header_of_a_rejection_replaces_no_required_one() {
    let header = |name: &'static str, value: &'static str| {
        move |rejection: Rejection| {
            rejection.with_header(name.parse().unwrap(), value.parse().unwrap())
        }
    };
    for (kind, with, name, expected) in [
        (RejectionKind::OverCapacity, header("retry-after", "77"), "retry-after", Some("77")),
        (
            RejectionKind::TokenInvalid,
            header("www-authenticate", "Own"),
            "www-authenticate",
            Some("Own"),
        ),
        (
            RejectionKind::OriginInvalid,
            header("cache-control", "public"),
            "cache-control",
            Some("no-store"),
        ),
        (
            RejectionKind::OriginInvalid,
            header("connection", "keep-alive"),
            "connection",
            Some("close"),
        ),
        (
            RejectionKind::VersionMissing,
            header("sec-websocket-version", "8"),
            "sec-websocket-version",
            Some("13"),
        ),
        (RejectionKind::MethodNotAllowed, header("allow", "POST"), "allow", Some("GET")),
        (
            RejectionKind::OriginInvalid,
            header("sec-websocket-accept", "x"),
            "sec-websocket-accept",
            None,
        ),
        (RejectionKind::OriginInvalid, header("location", "/login"), "location", Some("/login")),
    ] {
        let response: Response<String> = rejected_by_check(with(kind.into()), EmptyBody).await;
        let lines = response.headers().get_all(name).iter().map(|it| it.to_str().unwrap());
        assert_eq!(lines.collect::<Vec<_>>(), Vec::from_iter(expected), "{kind:?} {name}");
        assert_eq!(response.status(), kind.status());
    }
}

#[tokio::test]
async fn retry_after_is_in_full_seconds() {
    for (delay, expected) in [
        (Duration::ZERO, "0"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_millis(1999), "2"),
        (Duration::from_secs(60), "60"),
        (Duration::from_secs(60) + Duration::from_nanos(1), "61"),
    ] {
        for kind in [RejectionKind::TooManyConnections, RejectionKind::OriginMissing] {
            let rejection = Rejection::new(kind).with_retry_after(Duration::MAX / 2);
            let rejection = rejection.with_retry_after(delay);
            let response: Response<String> = rejected_by_check(rejection, PlainText).await;
            let lines = response.headers().get_all("retry-after").iter().collect::<Vec<_>>();
            assert_eq!(lines, [expected]);
        }
    }
    let rejection = Rejection::custom("quota", StatusCode::TOO_MANY_REQUESTS);
    let response: Response<String> = rejected_by_check(rejection, PlainText).await;
    assert!(!response.headers().contains_key("retry-after"));
    let _ =
        Rejection::custom("quota", StatusCode::TOO_MANY_REQUESTS).with_retry_after(Duration::MAX);
}

#[tokio::test]
async fn problem_json_is_escaped() {
    let odd = "quote \" backslash \\ line\r\n tab\t nul\0 bell\u{7} \u{1f} \u{7f} \u{2028} \u{1f980} </script>";
    let rejection = Rejection::custom("odd\"code\n", StatusCode::FORBIDDEN)
        .with_title(odd.to_owned())
        .with_detail(odd.to_owned());
    let responder = ProblemJson::new().type_base("https://errors.example.com/\"#");
    let response: Response<String> = rejected_by_check(rejection, responder).await;
    let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!((&problem["title"], &problem["detail"]), (&odd.into(), &odd.into()));
    assert_eq!(problem["code"], "odd\"code\n");
    assert_eq!(problem["type"], "https://errors.example.com/\"#odd\"code\n");
    assert!(!response.body().contains('\n'), "{}", response.body());
}

#[tokio::test]
async fn type_of_a_problem_has_a_base() {
    let custom = || Rejection::custom("room-full", StatusCode::CONFLICT);
    let own =
        || ProblemJson::new().type_base("https://a.example/").type_base("https://b.example/ws#");
    for (rejection, responder, expected) in [
        (custom(), own(), Some("https://b.example/ws#room-full".to_owned())),
        (
            RejectionKind::OriginMissing.into(),
            own(),
            Some("https://b.example/ws#origin-missing".to_owned()),
        ),
        (
            RejectionKind::OriginMissing.into(),
            ProblemJson::default(),
            RejectionKind::OriginMissing.url(),
        ),
        (custom(), ProblemJson::default(), Some("about:blank".to_owned())),
    ] {
        let response: Response<String> = rejected_by_check(rejection, responder).await;
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(problem["type"].as_str(), expected.as_deref());
        assert!(problem.get("detail").is_none());
    }
}

#[tokio::test]
async fn body_of_any_type_is_made_from_the_text() {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full, combinators::BoxBody};

    type Boxed = BoxBody<Bytes, std::io::Error>;

    fn boxed(text: String) -> Boxed {
        Full::from(text).map_err(|never| match never {}).boxed()
    }

    async fn text(body: Boxed) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap()
    }

    let inner = || {
        service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(boxed("inner".to_owned())))
        })
    };
    let json = guard().reject_with(ProblemJson::new().map_body(boxed)).layer(inner());
    let response = json.clone().oneshot(foreign().request()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value =
        serde_json::from_str(&text(response.into_body()).await).unwrap();
    assert_eq!(problem["code"], "origin-not-allowed");
    let response = json.oneshot(handshake().request()).await.unwrap();
    assert_eq!(text(response.into_body()).await, "inner");

    let plain = guard().reject_with(PlainText.map_body(boxed)).layer(inner());
    let response = plain.oneshot(foreign().request()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(text(response.into_body()).await.contains("origin-not-allowed"));
}

#[tokio::test]
async fn header_or_text_of_ones_own_breaks_neither_the_response_nor_the_log() {
    let rejection = || {
        Rejection::custom("mine", StatusCode::FORBIDDEN)
            .with_title("a\nb")
            .with_fix("c\r\nd")
            .with_header(HeaderName::from_static("x-mine"), HeaderValue::from_static("1"))
            .with_header(CONTENT_LENGTH, HeaderValue::from_static("0"))
            .with_header(CONNECTION, HeaderValue::from_static("keep-alive"))
            .with_header(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x"))
    };
    assert_eq!(rejection().to_string().lines().count(), 1);
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    let layer = guard().check(check_fn(move |_| Err(rejection()))).reject_with(response_fn(
        |_, _, mut prepared| {
            // Beside the right lines.
            prepared.headers_mut().append(CONNECTION, HeaderValue::from_static("keep-alive"));
            prepared.headers_mut().append(CACHE_CONTROL, HeaderValue::from_static("public"));
            prepared.map(|()| "body".to_owned())
        },
    ));
    let response = layer.layer(inner).oneshot(handshake().request()).await.unwrap();
    let lines = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(lines("x-mine"), ["1"]);
    assert_eq!(lines("connection"), ["close"]);
    assert_eq!(lines("cache-control"), ["no-store"]);
    for name in ["content-length", "sec-websocket-accept"] {
        assert!(lines(name).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn extensions_of_a_rejected_request_are_not_those_of_the_response() {
    #[derive(Clone)]
    struct Mine;

    let with_mine = response_fn(|_, _, prepared: Response<()>| {
        let mut response = prepared.map(|()| String::new());
        response.extensions_mut().insert(Mine);
        response
    });
    let wrong_token = handshake().and("Authorization", "Bearer guess");
    for (raw, code) in [
        (foreign(), "origin-not-allowed"),
        (handshake().with("Sec-WebSocket-Version", "8"), "version-unsupported"),
        (wrong_token, "token-invalid"),
    ] {
        let in_the_request = Arc::new(());
        let request = || {
            let mut request = raw.upgradable();
            request.extensions_mut().insert(Arc::clone(&in_the_request));
            request
        };
        let rejected = reject_request(request(), EmptyBody).await;
        assert_eq!(rejected.extensions().get::<Rejection>().unwrap().kind().code(), code);
        assert_eq!(rejected.extensions().len(), 1, "{code}");
        assert_eq!(Arc::strong_count(&in_the_request), 1, "{code}");

        let rejected = reject_request(request(), with_mine).await;
        assert!(rejected.extensions().get::<Mine>().is_some());
        assert_eq!(rejected.extensions().len(), 2, "{code}");
    }
}
