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
fn static_tokens_accept_no_empty_token() {
    let (parts, ()) = handshake().request::<()>().into_parts();
    for (listed, valid, count) in [(&[""][..], None, 0), (&["", TOKEN], Some(TOKEN), 1)] {
        let tokens = StaticTokens::new(listed.iter().map(|token| (token, ()))).unwrap();
        assert_eq!(format!("{tokens:?}"), format!("StaticTokens({count})"));
        let verify = |token: &str| {
            let now = tokens.verify_now(&Token::new(token), &parts);
            let later = tokens.verify(Token::new(token), &parts).now_or_never().unwrap();
            assert!(now.is_none_or(|now| now.is_ok() == later.is_ok()));
            later.map_err(|rejection| rejection.kind())
        };
        assert_eq!(verify("").unwrap_err(), RejectionKind::TokenInvalid);
        if let Some(valid) = valid {
            verify(valid).unwrap();
        }
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
    let layer = guard(vec![TokenSource::authorization()], &[]);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = ServiceBuilder::new().layer(layer).service(inner);
    for (raw, challenge) in [
        (handshake(), r#"Bearer realm="websocket""#),
        (
            handshake().and("Authorization", "Bearer x"),
            r#"Bearer realm="websocket", error="invalid_token""#,
        ),
    ] {
        let response = service.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], challenge);
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
