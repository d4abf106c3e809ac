//! The token: where it is found, what it opens, and who sees it.

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::extract::OriginalUri;
use common::{Raw, handshake};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, GuardLayer, PlainText, ProblemJson, Rejection, RejectionKind, StaticTokens, Subprotocols,
    Token, TokenCheckLayer, TokenPolicy, TokenSource, Verified, VerifyToken,
};

const TOKEN: &str = "s3cr3t-alpha-01";
const K8S: &str = "base64url.bearer.authorization.k8s.io.";

fn tokens() -> StaticTokens<&'static str> {
    StaticTokens::new([(TOKEN, "alice"), ("a+b/c==", "bob"), ("a>>b", "carol")])
}

fn guard(sources: Vec<TokenSource>, ours: &[&str]) -> GuardLayer<(), TokenPolicy<StaticTokens<&'static str>>> {
    GuardLayer::new(AllowOrigin::same_origin())
        .subprotocols(Subprotocols::list(ours).unwrap())
        .token(TokenPolicy::from_sources(sources, tokens()).unwrap())
}

/// The same over HTTP/1.1 and HTTP/2: the code of the refusal; or the user and what the inner service sees of the subprotocols, the target and the credentials.
async fn outcome(layer: GuardLayer<(), TokenPolicy<StaticTokens<&'static str>>>, raw: &Raw) -> String {
    let inner = service_fn(async |request: Request<()>| {
        let headers = request.headers();
        let target = request.uri().path_and_query().unwrap();
        let seen = |name| headers.get(name).map_or("-", |value| value.to_str().unwrap());
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        let seen = format!("{user} {} {} {}", seen("sec-websocket-protocol"), target, seen("authorization"));
        Ok::<_, Infallible>(Response::new(seen))
    });
    let mut outcomes = Vec::new();
    for request in raw.over_both() {
        let response = ServiceBuilder::new().layer(layer.clone()).service(inner).oneshot(request).await.unwrap();
        outcomes.push(match response.extensions().get::<Rejection>() {
            Some(rejection) => rejection.kind().code().to_owned(),
            None => response.into_body(),
        });
    }
    assert_eq!(outcomes[0], outcomes[1], "{raw:?}");
    outcomes.remove(0)
}

#[tokio::test]
async fn every_source_holds_exactly_one_token() {
    let authorization = TokenSource::authorization;
    let cookie = || TokenSource::cookie("session").unwrap();
    let query = || TokenSource::query("token").unwrap();
    let prefix = || TokenSource::subprotocol("auth.").unwrap();
    let pair = || TokenSource::pair("bearer").unwrap();
    let with = |name, value: &str| handshake().and(name, value);
    let bearer = |value: &str| handshake().and("Authorization", value);
    let at = |target: &str| handshake().target(target);
    let offer = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    let huge = format!("Bearer {}", "a".repeat(8193));

    let cases: Vec<(Vec<TokenSource>, Raw, &str)> = vec![
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![authorization()], bearer("bEaReR   s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![authorization()], bearer("Bearer a+b/c=="), "bob - /ws -"),
        (vec![authorization()], handshake(), "token-missing"),
        (vec![authorization()], bearer("Basic dXNlcjpwdw=="), "token-missing"),
        (vec![authorization()], bearer("Bearers s3cr3t-alpha-01"), "token-missing"),
        (vec![authorization()], bearer("Bear"), "token-missing"),
        (vec![authorization()], at("/ws?token=s3cr3t-alpha-01"), "token-missing"),
        (vec![authorization()], bearer("Bearer"), "token-invalid"),
        (vec![authorization()], bearer("Bearer\ts3cr3t-alpha-01"), "token-missing"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01x"), "token-invalid"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha"), "token-invalid"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01, x"), "token-invalid"),
        (vec![authorization()], bearer("Bearer =="), "token-invalid"),
        (vec![authorization()], bearer("Bearer \u{e9}"), "token-invalid"),
        (vec![authorization()], bearer(&huge), "token-invalid"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01").and("Authorization", "Bearer x"), "token-ambiguous"),
        (vec![authorization()], bearer("Basic x").and("Authorization", "Bearer s3cr3t-alpha-01"), "token-ambiguous"),
        (vec![cookie()], with("Cookie", "a=b; session=s3cr3t-alpha-01; c=d"), "alice - /ws -"),
        (vec![cookie()], with("Cookie", "a=b").and("Cookie", "session=s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![cookie()], with("Cookie", "session=a+b/c=="), "bob - /ws -"),
        (vec![cookie()], with("Cookie", "xsession=s3cr3t-alpha-01; session2=x; Session=x"), "token-missing"),
        (vec![cookie()], with("Cookie", "session"), "token-missing"),
        (vec![cookie()], with("Cookie", "session="), "token-invalid"),
        (vec![cookie()], with("Cookie", "session=s3cr3t-alpha-01; session=x"), "token-ambiguous"),
        (vec![cookie()], with("Cookie", "session=s3cr3t-alpha-01; session\t=x"), "token-ambiguous"),
        (vec![cookie()], with("Cookie", "session = s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01").and("Authorization", "Bearer x"), "alice - /ws Bearer x"),
        (
            vec![authorization(), query()],
            at("/ws?token=s3cr3t-alpha-01").and("Authorization", "Basic x"),
            "alice - /ws Basic x",
        ),
        (vec![query()], at("/ws?a=1&token=s3cr3t-alpha-01&b=2"), "alice - /ws?a=1&b=2 -"),
        (vec![query()], at("/ws?%74oken=s3cr3t-alpha-01&a"), "alice - /ws?a -"),
        (vec![query()], at("/ws?token=a%2Bb%2fc%3D%3D"), "bob - /ws -"),
        (vec![query()], at("/ws?token=a+b/c=="), "bob - /ws -"),
        (vec![query()], at("/ws?token=a%252Bb%252Fc%253D%253D"), "token-invalid"),
        (vec![query()], at("/ws?Token=s3cr3t-alpha-01&tokens=x&xtoken=x"), "token-missing"),
        (vec![query()], at("/ws?token=%zz"), "token-invalid"),
        (vec![query()], at("/ws?token=%7"), "token-invalid"),
        (vec![query()], at("/ws?token=%00"), "token-invalid"),
        (vec![query()], at("/ws?token=a%0ab"), "token-invalid"),
        (vec![query()], at("/ws?token=%ff"), "token-invalid"),
        (vec![query()], at("/ws?token"), "token-invalid"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01&%74oken=s3cr3t-alpha-01"), "token-ambiguous"),
        (vec![authorization(), query()], bearer("Bearer x").target("/ws?token=x"), "token-ambiguous"),
        (vec![authorization(), cookie(), query()], at("/ws?token=s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![prefix()], offer("chat, auth.s3cr3t-alpha-01"), "alice chat /ws -"),
        (vec![prefix()], offer("auth.s3cr3t-alpha-01").and("Sec-WebSocket-Protocol", "chat"), "alice chat /ws -"),
        (vec![prefix()], offer("auth.s3cr3t-alpha-01"), "subprotocol-unsupported"),
        (vec![prefix()], offer("auth.nope"), "subprotocol-unsupported"),
        (vec![prefix()], offer("chat"), "token-missing"),
        (vec![prefix()], offer("chat, Auth.s3cr3t-alpha-01"), "token-missing"),
        (vec![prefix()], handshake(), "token-missing"),
        (vec![prefix()], offer("chat, auth."), "token-invalid"),
        (vec![prefix()], offer("chat, auth.czNjcjN0LWFscGhhLTAx"), "token-invalid"),
        (vec![prefix()], offer("chat, auth.s3cr3t-alpha-01, auth.other"), "token-ambiguous"),
        (vec![TokenSource::kubernetes()], offer(&format!("{K8S}czNjcjN0LWFscGhhLTAx, chat")), "alice chat /ws -"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}czNjcjN0LWFscGhhLTAx!")), "token-invalid"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}_w")), "token-invalid"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}YT4+Yg")), "token-invalid"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}YT4-Yg")), "carol chat /ws -"),
        (vec![TokenSource::phoenix()], offer("chat, base64url.bearer.phx.YT4+Yg"), "carol chat /ws -"),
        (vec![TokenSource::phoenix()], offer("chat, base64url.bearer.phx.YT4-Yg"), "carol chat /ws -"),
        (vec![TokenSource::phoenix()], offer("chat, base64url.bearer.phx.!!!"), "token-invalid"),
        (vec![pair()], offer("bearer, s3cr3t-alpha-01"), "alice bearer /ws -"),
        (vec![pair()], offer("bearer").and("Sec-WebSocket-Protocol", "s3cr3t-alpha-01"), "alice bearer /ws -"),
        (vec![pair()], offer("bearer, s3cr3t-alpha-01, chat"), "alice chat /ws -"),
        (vec![pair()], offer("chat, bearer, s3cr3t-alpha-01"), "alice chat /ws -"),
        (vec![pair()], offer("bearer, chat"), "token-invalid"),
        (vec![pair()], offer("s3cr3t-alpha-01, bearer"), "token-missing"),
        (vec![pair()], offer("s3cr3t-alpha-01"), "subprotocol-unsupported"),
        (vec![pair(), prefix()], offer("chat, bearer, x, auth.x"), "token-ambiguous"),
    ];
    for (sources, raw, expected) in cases {
        let outcome = outcome(guard(sources.clone(), &["chat"]), &raw).await;
        assert_eq!(outcome, expected, "{sources:?} {raw:?}");
    }
}

/// Not even one that takes every token.
#[tokio::test]
async fn a_malformed_token_reaches_no_verifier() {
    let with = |name, value: String| handshake().and(name, value);
    let bearer = |token: &str| (TokenSource::authorization(), with("Authorization", format!("Bearer {token}")));
    let cookie = |token: &str| (TokenSource::cookie("session").unwrap(), with("Cookie", format!("session={token}")));
    let query = |token: &str| (TokenSource::query("token").unwrap(), handshake().target(&format!("/ws?token={token}")));
    let offer = |prefix, token| with("Sec-WebSocket-Protocol", format!("chat, {prefix}{token}"));
    let kubernetes = |token: &str| (TokenSource::kubernetes(), offer(K8S, token.to_owned()));
    let phoenix = |token: &str| (TokenSource::phoenix(), offer("base64url.bearer.phx.", token.to_owned()));
    let (longest, too_long) = ("a".repeat(8192), "a".repeat(8193));

    for ((source, raw), expected) in [
        (bearer(&longest), Some(&*longest)),
        (bearer(&too_long), None),
        (bearer("aZ09-._~+/=="), Some("aZ09-._~+/==")),
        (bearer("=="), None),
        (bearer("a=b"), None),
        (bearer("=a"), None),
        (bearer("a b"), None),
        (bearer("a,b"), None),
        (bearer("\u{e9}"), None),
        (cookie("a b"), Some("a b")),
        (cookie("\u{e9}"), Some("\u{e9}")),
        (cookie("a\tb"), None),
        (cookie(""), None),
        (query("%41%5a%2F%20b"), Some("AZ/ b")),
        (query("a+%2525"), Some("a+%25")),
        (query("%4"), None),
        (query("%4g"), None),
        (query("%g4"), None),
        (query("a%"), None),
        (query("%41%zz"), None),
        (query("%ff"), None),
        (query("%00"), None),
        (query("%7f"), None),
        (query(""), None),
        (kubernetes("YT4-Yg"), Some("a>>b")),
        (kubernetes("YT4+Yg"), None),
        (kubernetes("YR"), None),
        (kubernetes("Cg"), None),
        (kubernetes(""), None),
        (phoenix("Pz8_"), Some("???")),
        (phoenix("Pz8-Pj4+"), Some("??>>>>")),
        (phoenix("YR"), None),
    ] {
        let its_own = source.clone();
        let verifier = move |token: Token| {
            assert_eq!(token.source(), Some(&its_own));
            std::future::ready(Ok::<_, Rejection>(Verified::new(token.expose().to_owned())))
        };
        let inner = service_fn(async |request: Request<()>| {
            let Claims(token) = request.extensions().get::<Claims<String>>().unwrap();
            Ok::<_, Infallible>(Response::new(Some(token.clone())))
        });
        let layer = TokenCheckLayer::new(TokenPolicy::from_sources([source], verifier).unwrap());
        let response = ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(response.body().as_deref(), expected, "{raw:?}");
        let refusal = response.extensions().get::<Rejection>().map(Rejection::kind);
        assert_eq!(refusal, expected.is_none().then_some(RejectionKind::TokenInvalid), "{raw:?}");
    }
}

/// However alike their digests are.
#[test]
fn no_guess_is_taken_for_a_token() {
    let tokens = tokens();
    let (parts, ()) = handshake().request::<()>().into_parts();
    assert_eq!(format!("{tokens:?}"), "StaticTokens(3)");
    for guess in 0..1000 {
        let verdict = tokens.verify(Token::new(guess.to_string()), &parts).now_or_never().unwrap();
        assert_eq!(verdict.unwrap_err().kind(), RejectionKind::TokenInvalid, "{guess}");
    }
}

#[tokio::test]
async fn without_a_list_only_the_carrier_is_taken_out() {
    let check = |sources| TokenCheckLayer::new(TokenPolicy::from_sources(sources, tokens()).unwrap());
    let inner = service_fn(async |request: Request<()>| {
        let offered = request.headers().get_all("sec-websocket-protocol").iter();
        let offered = offered.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" | ");
        Ok::<_, Infallible>(Response::builder().status(101).body(offered).unwrap())
    });
    let prefix = || TokenSource::subprotocol("auth.").unwrap();
    let pair = || TokenSource::pair("bearer").unwrap();
    for (layer, offered, seen, answered) in [
        (check(vec![prefix()]), "a, auth.s3cr3t-alpha-01, b", "a, b", None),
        (check(vec![prefix()]).accept_unmatched_subprotocols(), "auth.s3cr3t-alpha-01", "", None),
        (check(vec![pair()]), "bearer, s3cr3t-alpha-01", "bearer", Some("bearer")),
        (check(vec![pair()]), "bearer, s3cr3t-alpha-01, b", "bearer, b", Some("bearer")),
    ] {
        let raw = handshake().and("Sec-WebSocket-Protocol", offered);
        let response = ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(response.headers().get("sec-websocket-protocol").map(|it| it.to_str().unwrap()), answered);
        assert_eq!(*response.body(), seen);
    }

    let raw = handshake().and("Authorization", format!("Bearer {TOKEN}")).and("Sec-WebSocket-Protocol", "a,  b");
    let layer = TokenCheckLayer::new(TokenPolicy::bearer(tokens()));
    let response = ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
    assert_eq!(*response.body(), "a,  b");
}

#[tokio::test]
async fn the_credential_may_be_kept() {
    let sources = vec![TokenSource::query("token").unwrap(), TokenSource::authorization()];
    let policy = || TokenPolicy::from_sources(sources.clone(), tokens()).unwrap().keep_credential();
    let layer = || GuardLayer::new(AllowOrigin::same_origin()).token(policy());
    let raw = handshake().target("/ws?token=s3cr3t-alpha-01");
    assert_eq!(outcome(layer(), &raw).await, "alice - /ws?token=s3cr3t-alpha-01 -");
    let raw = handshake().and("Authorization", "Bearer s3cr3t-alpha-01");
    assert_eq!(outcome(layer(), &raw).await, "alice - /ws Bearer s3cr3t-alpha-01");
}

#[tokio::test]
async fn a_token_in_the_query_is_in_no_uri_behind() {
    let layer = guard(vec![TokenSource::query("token").unwrap()], &[]);
    let handler = async |OriginalUri(original): OriginalUri, request: axum::extract::Request| {
        format!("{original} {} {:?}", request.uri(), request.extensions().get::<OriginalUri>())
    };
    let routes = axum::Router::new().route("/ws", axum::routing::any(handler).layer(layer));
    let app = axum::Router::new().nest("/api", routes);
    let raw = handshake().target("/api/ws?token=s3cr3t-alpha-01&room=1");
    let response = app.oneshot(raw.request::<axum::body::Body>()).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.into()).unwrap();
    assert!(body.starts_with("/api/ws?room=1 /ws?room=1 "), "{body}");
    assert!(!body.contains(TOKEN), "{body}");
}

#[tokio::test]
async fn verifiers_decide() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let policy = TokenPolicy::bearer(move |token: Token| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            match token.expose() {
                "good" => Ok(Verified::new(42_u32)),
                "weak" => Err(RejectionKind::TokenForbidden.into()),
                "down" => Err(Rejection::verifier_failed("no connection to 10.0.0.1")),
                "odd" => Err(Rejection::custom("quota-exceeded", StatusCode::PAYMENT_REQUIRED)),
                _ => Err(RejectionKind::TokenInvalid.into()),
            }
        }
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).respond_with(ProblemJson);
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(request.extensions().get::<Claims<u32>>().unwrap().0.to_string()))
    });
    let service = ServiceBuilder::new().layer(guard).service(inner);
    for (token, status, body) in [
        ("good", 200, "42"),
        ("weak", 403, "token-forbidden"),
        ("down", 503, "verifier-failed"),
        ("odd", 402, "quota-exceeded"),
        ("bad", 401, "token-invalid"),
    ] {
        let raw = handshake().and("Authorization", format!("Bearer {token}"));
        let response = service.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.body().contains(body));
        assert!(!response.body().contains("10.0.0.1"));
    }
    assert_eq!(calls.swap(0, Ordering::SeqCst), 5);

    // A refused origin must not learn whether a token is good.
    let foreign = handshake().and("Authorization", "Bearer good").with("Origin", "https://evil.example");
    assert_eq!(service.oneshot(foreign.request()).await.unwrap().status(), 403);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn challenges_follow_rfc_6750() {
    let layer = guard(vec![TokenSource::authorization()], &[]);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = ServiceBuilder::new().layer(layer).service(inner);
    for (raw, challenge) in [
        (handshake(), r#"Bearer realm="websocket""#),
        (handshake().and("Authorization", "Bearer x"), r#"Bearer realm="websocket", error="invalid_token""#),
    ] {
        let response = service.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], challenge);
    }
}

#[tokio::test]
async fn a_token_is_shown_nowhere() {
    let sources = vec![
        TokenSource::authorization(),
        TokenSource::cookie("session").unwrap(),
        TokenSource::query("token").unwrap(),
        TokenSource::subprotocol("auth.").unwrap(),
    ];
    let verifier = |token: Token| async move {
        assert!(!format!("{token:?}").contains(token.expose()));
        Err::<Verified<()>, Rejection>(RejectionKind::TokenInvalid.into())
    };
    let policy = TokenPolicy::from_sources(sources, verifier).unwrap();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    for raw in [
        handshake().and("Authorization", format!("Bearer {TOKEN}")),
        handshake().and("Cookie", format!("session={TOKEN}")),
        handshake().and("Sec-WebSocket-Protocol", format!("chat, auth.{TOKEN}")),
        handshake().target("/ws?token=s3cr3t-alpha-01"),
        // Refused before the token was taken out.
        handshake().and("Authorization", format!("Bearer {TOKEN}")).and("Content-Length", "1"),
        handshake().and("Cookie", format!("session={TOKEN}")).without("Upgrade"),
        handshake().and("Sec-WebSocket-Protocol", format!("chat, auth.{TOKEN}")).with("Origin", "https://evil.example"),
        handshake().and("Sec-WebSocket-Protocol", format!("auth.{TOKEN}")),
    ] {
        let debug = |_: &Rejection, request: &http::request::Parts, prepared: Response<()>| {
            prepared.map(|()| format!("{request:?}"))
        };
        let layer = GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone());
        assert!(!format!("{layer:?}").contains(TOKEN));
        let refused =
            ServiceBuilder::new().layer(layer.clone().respond_with(debug)).service(inner).oneshot(raw.request());
        let refused = refused.await.unwrap();
        assert!(refused.status().is_client_error());
        assert!(!format!("{refused:?}").contains(TOKEN), "{refused:?}");
        let rejection = refused.extensions().get::<Rejection>().unwrap();
        assert!(!rejection.to_string().contains(TOKEN));

        let refused = ServiceBuilder::new().layer(layer.respond_with(PlainText)).service(inner).oneshot(raw.request());
        assert!(!format!("{:?}", refused.await.unwrap()).contains(TOKEN));
    }
    assert!(!format!("{:?}", tokens()).contains(TOKEN));
}

#[test]
fn sources_that_cannot_work_are_errors() {
    for error in [
        TokenSource::cookie("").unwrap_err(),
        TokenSource::cookie("a b").unwrap_err(),
        TokenSource::query("").unwrap_err(),
        TokenSource::subprotocol("").unwrap_err(),
        TokenSource::subprotocol("a,b").unwrap_err(),
        TokenSource::pair("a b").unwrap_err(),
        TokenPolicy::from_sources([], tokens()).unwrap_err(),
        TokenPolicy::from_sources([TokenSource::authorization(), TokenSource::authorization()], tokens()).unwrap_err(),
        TokenPolicy::from_sources(["auth.", "au"].map(|it| TokenSource::subprotocol(it).unwrap()), tokens())
            .unwrap_err(),
        TokenPolicy::from_sources(
            [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("bear").unwrap()],
            tokens(),
        )
        .unwrap_err(),
        TokenPolicy::bearer(tokens()).or(TokenPolicy::bearer(tokens())).unwrap_err(),
        TokenPolicy::bearer(tokens())
            .keep_credential()
            .or(TokenPolicy::from_sources([TokenSource::query("token").unwrap()], tokens()).unwrap())
            .unwrap_err(),
        Subprotocols::list(["a", "a"]).unwrap_err(),
        Subprotocols::list(["a b"]).unwrap_err(),
        Subprotocols::list([""]).unwrap_err(),
    ] {
        assert!(!error.to_string().is_empty());
    }
}
