//! Tokens behind the guard: static tokens, kept and removed credentials, challenges.

use std::convert::Infallible;

use axum::extract::OriginalUri;
use futures_util::FutureExt;
use http::{Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, Drain, GuardLayer, PlainText, Rejection, RejectionKind, StaticTokens,
    Subprotocols, Token, TokenCheckLayer, TokenPolicy, TokenSource, Verified, VerifyToken,
};

use crate::common::{Raw, handshake};

pub(crate) const TOKEN: &str = "s3cr3t-alpha-01";
pub(crate) const K8S: &str = "base64url.bearer.authorization.k8s.io.";

pub(crate) fn tokens() -> StaticTokens<&'static str> {
    StaticTokens::new([(TOKEN, "alice"), ("a+b/c==", "bob"), ("a>>b", "carol")]).unwrap()
}

pub(crate) fn guard(sources: Vec<TokenSource>, ours: &[&str]) -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
        .subprotocols(Subprotocols::list(ours).unwrap())
        .token(TokenPolicy::from_sources(sources, tokens()).unwrap())
        .unwrap()
}

/// Returns the code of the rejection; or the user with the subprotocols, target and credentials that the inner service
/// sees. The same over HTTP/1.1 and HTTP/2.
pub(crate) async fn outcome(layer: GuardLayer, raw: &Raw) -> String {
    let inner = service_fn(async |request: Request<()>| {
        let headers = request.headers();
        let target = request.uri().path_and_query().unwrap();
        let seen = |name| headers.get(name).map_or("-", |value| value.to_str().unwrap());
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        let seen = format!(
            "{user} {} {} {}",
            seen("sec-websocket-protocol"),
            target,
            seen("authorization")
        );
        Ok::<_, Infallible>(Response::new(seen))
    });
    let mut outcomes = Vec::new();
    for request in raw.over_both() {
        let response = ServiceBuilder::new()
            .layer(layer.clone())
            .service(inner)
            .oneshot(request)
            .await
            .unwrap();
        outcomes.push(match response.extensions().get::<Rejection>() {
            Some(rejection) => rejection.kind().code().to_owned(),
            None => response.into_body(),
        });
    }
    assert_eq!(outcomes[0], outcomes[1], "{raw:?}");
    outcomes.remove(0)
}

/// Similar digests make no difference.
#[test]
fn static_tokens_reject_every_guess() {
    let tokens = tokens();
    let (parts, ()) = handshake().request::<()>().into_parts();
    assert_eq!(format!("{tokens:?}"), "StaticTokens(3)");
    for guess in 0..1000 {
        let verdict = tokens.verify(Token::new(guess.to_string()), &parts).now_or_never().unwrap();
        assert_eq!(verdict.unwrap_err().kind(), RejectionKind::TokenInvalid, "{guess}");
    }
}

#[test]
fn empty_or_repeated_secret_is_a_config_error() {
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    let errors = [
        StaticTokens::new([("", ())]),
        StaticTokens::new([(TOKEN, ()), ("", ())]),
        StaticTokens::new([(TOKEN, ()), (TOKEN, ())]),
        StaticTokens::from_digests([(EMPTY, ())]),
        StaticTokens::from_digests([(EMPTY.to_uppercase(), ())]),
    ];
    for error in errors.map(|tokens| tokens.unwrap_err().to_string()) {
        assert!(error.contains("empty") || error.contains("twice"), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }

    let (parts, ()) = handshake().request::<()>().into_parts();
    let nobody = StaticTokens::new([""; 0].map(|token| (token, ()))).unwrap();
    for tokens in [nobody, StaticTokens::new([(TOKEN, ())]).unwrap()] {
        let verdict = tokens.verify(Token::new(""), &parts).now_or_never().unwrap();
        assert_eq!(verdict.unwrap_err().kind(), RejectionKind::TokenInvalid);
        let verdict = tokens.verify_now(&Token::new(""), &parts).unwrap();
        assert_eq!(verdict.unwrap_err().kind(), RejectionKind::TokenInvalid);
    }
}

#[tokio::test]
async fn credential_may_be_kept() {
    let sources = vec![TokenSource::query("token").unwrap(), TokenSource::authorization()];
    let policy = || TokenPolicy::from_sources(sources.clone(), tokens()).unwrap().keep_credential();
    let layer = || GuardLayer::new(AllowOrigin::same_origin()).token(policy()).unwrap();
    let raw = handshake().target("/ws?token=s3cr3t-alpha-01");
    assert_eq!(outcome(layer(), &raw).await, "alice - /ws?token=s3cr3t-alpha-01 -");
    let raw = handshake().and("Authorization", "Bearer s3cr3t-alpha-01");
    assert_eq!(outcome(layer(), &raw).await, "alice - /ws Bearer s3cr3t-alpha-01");
}

#[tokio::test]
async fn query_token_is_removed_from_every_uri() {
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
async fn www_authenticate_follows_rfc_6750() {
    const REALM: &str = r#"Bearer realm="websocket""#;
    let error = |error: &str| format!(r#"{REALM}, error="{error}""#);
    let verifier = |token: Token| {
        let rejection = match token.expose() {
            "known" => None,
            "weak" => Some(RejectionKind::TokenForbidden),
            _ => Some(RejectionKind::TokenInvalid),
        };
        std::future::ready(match rejection {
            None => Ok::<_, Rejection>(Verified::new(())),
            Some(kind) => Err(kind.into()),
        })
    };
    let sources = || [TokenSource::authorization(), TokenSource::query("t").unwrap()];
    let policy = || TokenPolicy::from_sources(sources(), verifier).unwrap();
    let guard = |policy| GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let with = |token: &str| handshake().and("Authorization", format!("Bearer {token}"));
    for (raw, status, expected) in [
        // Without a token there is no error (3.1).
        (handshake(), 401, Some(REALM.to_owned())),
        (with("x"), 401, Some(error("invalid_token"))),
        (with("weak"), 403, Some(error("insufficient_scope"))),
        (with("known").target("/ws?t=known"), 400, Some(error("invalid_request"))),
        (with("known"), 200, None),
        // Nor at a rejection for another reason.
        (with("known").with("Origin", "https://evil.example"), 403, None),
    ] {
        let (found, lines) = challenges(guard(policy()), &raw).await;
        assert_eq!((found, lines), (status, Vec::from_iter(expected)), "{raw:?}");
        // Schemes other than `Bearer` have no errors, so only a 401 has a challenge.
        let other = policy().challenge("Other", "chat").unwrap();
        let expected =
            if status == 401 { vec![r#"Other realm="chat""#.to_owned()] } else { vec![] };
        assert_eq!(challenges(guard(other), &raw).await, (status, expected), "{raw:?}");
    }
}

#[tokio::test]
async fn debug_output_and_rejection_hide_the_token() {
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
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    for raw in [
        handshake().and("Authorization", format!("Bearer {TOKEN}")),
        handshake().and("Cookie", format!("session={TOKEN}")),
        handshake().and("Sec-WebSocket-Protocol", format!("chat, auth.{TOKEN}")),
        handshake().target("/ws?token=s3cr3t-alpha-01"),
        // Rejected before the token was removed.
        handshake().and("Authorization", format!("Bearer {TOKEN}")).and("Content-Length", "1"),
        handshake().and("Cookie", format!("session={TOKEN}")).without("Upgrade"),
        handshake()
            .and("Sec-WebSocket-Protocol", format!("chat, auth.{TOKEN}"))
            .with("Origin", "https://evil.example"),
        handshake().and("Sec-WebSocket-Protocol", format!("auth.{TOKEN}")),
    ] {
        let debug = |_: &Rejection, request: &http::request::Parts, prepared: Response<()>| {
            prepared.map(|()| format!("{request:?}"))
        };
        let layer = GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone()).unwrap();
        assert!(!format!("{layer:?}").contains(TOKEN));
        let rejected = ServiceBuilder::new()
            .layer(layer.clone().reject_with(debug))
            .service(inner)
            .oneshot(raw.request());
        let rejected = rejected.await.unwrap();
        assert!(rejected.status().is_client_error());
        assert!(!format!("{rejected:?}").contains(TOKEN), "{rejected:?}");
        let rejection = rejected.extensions().get::<Rejection>().unwrap();
        assert!(!rejection.to_string().contains(TOKEN));

        let rejected = ServiceBuilder::new()
            .layer(layer.reject_with(PlainText))
            .service(inner)
            .oneshot(raw.request());
        assert!(!format!("{:?}", rejected.await.unwrap()).contains(TOKEN));
    }
    assert!(!format!("{:?}", tokens()).contains(TOKEN));
}

#[tokio::test]
async fn debug_output_of_a_request_during_a_drain_hides_the_token() {
    let drain = Drain::new();
    drain.start();
    let debug = |_: &Rejection, request: &http::request::Parts, prepared: Response<()>| {
        prepared.map(|()| format!("{request:?}"))
    };
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    for (source, raw) in [
        (TokenSource::authorization(), handshake().and("Authorization", format!("Bearer {TOKEN}"))),
        (
            TokenSource::cookie("session").unwrap(),
            handshake().and("Cookie", "theme=dark").and("Cookie", format!("session={TOKEN}")),
        ),
        (
            TokenSource::subprotocol("auth.").unwrap(),
            handshake().and("Sec-WebSocket-Protocol", format!("chat, auth.{TOKEN}")),
        ),
    ] {
        let policy = || TokenPolicy::from_sources([source.clone()], tokens()).unwrap();
        let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy()).unwrap();
        let guard = guard.drain(&drain).reject_with(debug).layer(inner);
        let layer = TokenCheckLayer::new(policy()).drain(&drain).reject_with(debug).layer(inner);
        for request in raw.over_both::<()>() {
            for rejected in [
                guard.clone().oneshot(request.clone()).await.unwrap(),
                layer.clone().oneshot(request).await.unwrap(),
            ] {
                assert_eq!(rejected.status(), 503);
                assert!(rejected.body().contains("Sensitive"), "{rejected:?}");
                assert!(!rejected.body().contains(TOKEN), "{rejected:?}");
            }
        }
    }
}

/// The challenges of a response, each on a line of its own.
async fn challenges(layer: GuardLayer, raw: &Raw) -> (u16, Vec<String>) {
    let mut seen = Vec::new();
    for request in raw.over_both::<()>() {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let response = layer.clone().layer(inner).oneshot(request).await.unwrap();
        let lines = response.headers().get_all("www-authenticate").iter();
        let lines = lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        seen.push((response.status().as_u16(), lines));
    }
    assert_eq!(seen[0], seen[1], "{raw:?}");
    seen.remove(0)
}

#[tokio::test]
async fn challenge_fits_the_sources() {
    const BEARER: &str = r#"Bearer realm="websocket""#;
    const INVALID: &str = r#"Bearer realm="websocket", error="invalid_token""#;
    const BASIC: &str = r#"Basic realm="websocket""#;

    let policy = |sources: &[&str]| {
        let sources = sources.iter().map(|source| source.parse().unwrap()).collect::<Vec<_>>();
        TokenPolicy::from_sources(sources, tokens()).unwrap()
    };
    let guard = |policy| GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let with = |name: &str, value: &str| handshake().and(name, value);
    for (policy, invalid, missing_expected, invalid_expected) in [
        (
            policy(&["authorization"]),
            with("Authorization", "Bearer x"),
            &[BEARER][..],
            &[INVALID][..],
        ),
        (policy(&["basic"]), with("Authorization", "Basic eDp5"), &[BASIC], &[BASIC]),
        (
            policy(&["authorization", "basic"]),
            with("Authorization", "Basic eDp5"),
            &[BASIC, BEARER],
            &[BASIC, INVALID],
        ),
        (policy(&["cookie:c"]), with("Cookie", "c=x"), &[], &[]),
        (policy(&["cookie:c", "cookie:d"]), with("Cookie", "d=x"), &[], &[]),
        (policy(&["cookie:c", "basic"]), with("Cookie", "c=x"), &[BASIC], &[BASIC]),
        (policy(&["cookie:c", "header:x-key"]), with("X-Key", "x"), &[BEARER], &[INVALID]),
        (policy(&["query:t"]), handshake().target("/ws?t=x"), &[BEARER], &[INVALID]),
        (
            policy(&["authorization"]).challenge("Bearer", "chat rooms").unwrap(),
            with("Authorization", "Bearer x"),
            &[r#"Bearer realm="chat rooms""#],
            &[r#"Bearer realm="chat rooms", error="invalid_token""#],
        ),
        (
            policy(&["header:x-key"]).challenge("ApiKey", "chat").unwrap(),
            with("X-Key", "x"),
            &[r#"ApiKey realm="chat""#],
            &[r#"ApiKey realm="chat""#],
        ),
        (
            policy(&["basic"]).challenge("Basic", "a").unwrap().challenge("bearer", "b").unwrap(),
            with("Authorization", "Basic eDp5"),
            &[r#"Basic realm="a""#, r#"bearer realm="b""#],
            &[r#"Basic realm="a""#, r#"bearer realm="b", error="invalid_token""#],
        ),
        (policy(&["basic"]).without_challenge(), with("Authorization", "Basic eDp5"), &[], &[]),
        (
            policy(&["basic"]).challenge("Basic", "a").unwrap().without_challenge(),
            with("Authorization", "Basic eDp5"),
            &[],
            &[],
        ),
    ] {
        let missing = challenges(guard(policy.clone()), &handshake()).await;
        assert_eq!(missing, (401, missing_expected.iter().map(|&it| it.to_owned()).collect()));
        let invalid = challenges(guard(policy), &invalid).await;
        assert_eq!(invalid, (401, invalid_expected.iter().map(|&it| it.to_owned()).collect()));
    }
    for (scheme, realm) in [
        ("", "a"),
        ("a b", "a"),
        ("Bearer", "a\"b"),
        ("Bearer", "a\\b"),
        ("Bearer", "a\nb"),
        ("Bearer", "caf\u{e9}"),
    ] {
        let error = TokenPolicy::bearer(tokens()).challenge(scheme, realm).unwrap_err().to_string();
        assert!(error.contains("scheme") || error.contains("realm"), "{error}");
    }
    // `Basic` has no errors, so only a 401 has a challenge.
    let forbidden = guard(policy(&["basic"]))
        .check(tower_ws_guard::check_fn(|_| Err(RejectionKind::TokenForbidden.into())));
    assert_eq!(challenges(forbidden, &handshake()).await, (403, vec![]));
    // Both policies must agree on it.
    let other = policy(&["cookie:c"]).challenge("Basic", "a").unwrap();
    assert!(policy(&["basic"]).or(other).is_err());
}

#[tokio::test]
async fn response_of_ones_own_replaces_the_challenge() {
    let own = |_: &Rejection, _: &http::request::Parts, mut prepared: Response<()>| {
        prepared.headers_mut().insert("www-authenticate", "Own realm=\"x\"".parse().unwrap());
        prepared
    };
    let policy = TokenPolicy::bearer(tokens());
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let app = guard.reject_with(own).layer(inner);
    let response = app.oneshot(handshake().request()).await.unwrap();
    let lines = response.headers().get_all("www-authenticate").iter().collect::<Vec<_>>();
    assert_eq!(lines, ["Own realm=\"x\""]);
}

#[test]
fn static_tokens_are_given_as_digests() {
    // `printf %s s3cr3t-alpha-01 | sha256sum`
    const DIGEST: &str = "eff8fc3a953e915fe92387ad18ee5d73ee23a4f63b932a6f180838b7743419fb";

    let (parts, ()) = handshake().request::<()>().into_parts();
    for digest in [DIGEST.to_owned(), DIGEST.to_uppercase()] {
        let tokens = StaticTokens::from_digests([(digest, "alice")]).unwrap();
        let verify = |token: &str| {
            let verdict = tokens.verify(Token::new(token), &parts).now_or_never().unwrap();
            verdict.map(|verified| *verified.claims()).map_err(|rejection| rejection.kind())
        };
        assert_eq!(verify(TOKEN), Ok("alice"));
        for other in ["", "s3cr3t", DIGEST, &DIGEST.to_uppercase()] {
            assert_eq!(verify(other), Err(RejectionKind::TokenInvalid), "{other}");
        }
    }
    let short = &DIGEST[1..];
    for malformed in [
        "",
        TOKEN,
        short,
        &format!("{DIGEST}0"),
        &format!("g{short}"),
        &format!("+{short}"),
        &format!("\u{e9}{}", &DIGEST[2..]),
    ] {
        let error = StaticTokens::from_digests([(malformed, ())]).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{malformed}: {error}");
        // It may be the token itself.
        assert!(malformed.is_empty() || !error.contains(malformed), "{error}");
    }
    let twice = StaticTokens::from_digests([(DIGEST, 1), (&DIGEST.to_uppercase(), 2)]);
    assert!(twice.unwrap_err().to_string().contains("twice"));
}
