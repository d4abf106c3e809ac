//! Token sources: `Authorization`, cookie, query and subprotocol.

use std::convert::Infallible;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, GuardLayer, Rejection, RejectionKind, StaticTokens, Subprotocols, Token,
    TokenCheckLayer, TokenPolicy, TokenSource, Verified,
};

use crate::{
    common::{Raw, handshake},
    token::{K8S, TOKEN, guard, outcome, tokens},
};

#[tokio::test]
async fn token_source_must_hold_exactly_one_token() {
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
        (vec![authorization()], bearer("Bearer"), "token-missing"),
        (vec![authorization()], bearer("Bearer  "), "token-missing"),
        (vec![authorization()], bearer("Bearer\ts3cr3t-alpha-01"), "token-missing"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01x"), "token-invalid"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha"), "token-invalid"),
        (vec![authorization()], bearer("Bearer s3cr3t-alpha-01, x"), "token-invalid"),
        (vec![authorization()], bearer("Bearer =="), "token-invalid"),
        (vec![authorization()], bearer("Bearer \u{e9}"), "token-invalid"),
        (vec![authorization()], bearer(&huge), "token-invalid"),
        (
            vec![authorization()],
            bearer("Bearer s3cr3t-alpha-01").and("Authorization", "Bearer x"),
            "token-ambiguous",
        ),
        (
            vec![authorization()],
            bearer("Basic x").and("Authorization", "Bearer s3cr3t-alpha-01"),
            "alice - /ws -",
        ),
        (vec![cookie()], with("Cookie", "a=b; session=s3cr3t-alpha-01; c=d"), "alice - /ws -"),
        (
            vec![cookie()],
            with("Cookie", "a=b").and("Cookie", "session=s3cr3t-alpha-01"),
            "alice - /ws -",
        ),
        (vec![cookie()], with("Cookie", "session=a+b/c=="), "bob - /ws -"),
        (
            vec![cookie()],
            with("Cookie", "xsession=s3cr3t-alpha-01; session2=x; Session=x"),
            "token-missing",
        ),
        (vec![cookie()], with("Cookie", "session"), "token-missing"),
        (vec![cookie()], with("Cookie", "session="), "token-missing"),
        (vec![cookie()], with("Cookie", "session=s3cr3t-alpha-01; session=x"), "token-ambiguous"),
        (vec![cookie()], with("Cookie", "session=s3cr3t-alpha-01; session\t=x"), "token-ambiguous"),
        (vec![cookie()], with("Cookie", "session = s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01"), "alice - /ws -"),
        (
            vec![query()],
            at("/ws?token=s3cr3t-alpha-01").and("Authorization", "Bearer x"),
            "alice - /ws Bearer x",
        ),
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
        (vec![query()], at("/ws?token"), "token-missing"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01&%74oken=s3cr3t-alpha-01"), "alice - /ws -"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01&%74oken=x"), "token-ambiguous"),
        (
            vec![authorization(), query()],
            bearer("Bearer x").target("/ws?token=x"),
            "token-ambiguous",
        ),
        (
            vec![authorization(), cookie(), query()],
            at("/ws?token=s3cr3t-alpha-01"),
            "alice - /ws -",
        ),
        (vec![prefix()], offer("chat, auth.s3cr3t-alpha-01"), "alice chat /ws -"),
        (
            vec![prefix()],
            offer("auth.s3cr3t-alpha-01").and("Sec-WebSocket-Protocol", "chat"),
            "alice chat /ws -",
        ),
        (vec![prefix()], offer("auth.s3cr3t-alpha-01"), "subprotocol-unsupported"),
        (vec![prefix()], offer("auth.nope"), "subprotocol-unsupported"),
        (vec![prefix()], offer("chat"), "token-missing"),
        (vec![prefix()], offer("chat, Auth.s3cr3t-alpha-01"), "token-missing"),
        (vec![prefix()], handshake(), "token-missing"),
        (vec![prefix()], offer("chat, auth."), "token-missing"),
        (vec![prefix()], offer("chat, auth.czNjcjN0LWFscGhhLTAx"), "token-invalid"),
        (vec![prefix()], offer("chat, auth.s3cr3t-alpha-01, auth.other"), "token-ambiguous"),
        (
            vec![TokenSource::kubernetes()],
            offer(&format!("{K8S}czNjcjN0LWFscGhhLTAx, chat")),
            "alice chat /ws -",
        ),
        (
            vec![TokenSource::kubernetes()],
            offer(&format!("chat, {K8S}czNjcjN0LWFscGhhLTAx!")),
            "token-invalid",
        ),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}_w")), "token-invalid"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}YT4+Yg")), "token-invalid"),
        (vec![TokenSource::kubernetes()], offer(&format!("chat, {K8S}YT4-Yg")), "carol chat /ws -"),
        (
            vec![TokenSource::phoenix()],
            offer("chat, base64url.bearer.phx.YT4+Yg"),
            "carol chat /ws -",
        ),
        (
            vec![TokenSource::phoenix()],
            offer("chat, base64url.bearer.phx.YT4-Yg"),
            "carol chat /ws -",
        ),
        (vec![TokenSource::phoenix()], offer("chat, base64url.bearer.phx.!!!"), "token-invalid"),
        (vec![pair()], offer("bearer, s3cr3t-alpha-01"), "alice bearer /ws -"),
        (
            vec![pair()],
            offer("bearer").and("Sec-WebSocket-Protocol", "s3cr3t-alpha-01"),
            "alice bearer /ws -",
        ),
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

/// Not even a verifier that accepts every token.
#[tokio::test]
async fn malformed_token_reaches_no_verifier() {
    let with = |name, value: String| handshake().and(name, value);
    let bearer = |token: &str| {
        (TokenSource::authorization(), with("Authorization", format!("Bearer {token}")))
    };
    let cookie = |token: &str| {
        (TokenSource::cookie("session").unwrap(), with("Cookie", format!("session={token}")))
    };
    let query = |token: &str| {
        (TokenSource::query("token").unwrap(), handshake().target(&format!("/ws?token={token}")))
    };
    let offer = |prefix, token| with("Sec-WebSocket-Protocol", format!("chat, {prefix}{token}"));
    let kubernetes = |token: &str| (TokenSource::kubernetes(), offer(K8S, token.to_owned()));
    let phoenix =
        |token: &str| (TokenSource::phoenix(), offer("base64url.bearer.phx.", token.to_owned()));
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
        (kubernetes("YT4-Yg"), Some("a>>b")),
        (kubernetes("YT4+Yg"), None),
        (kubernetes("YR"), None),
        (kubernetes("Cg"), None),
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
        let response =
            ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(response.body().as_deref(), expected, "{raw:?}");
        let rejection = response.extensions().get::<Rejection>().map(Rejection::kind);
        assert_eq!(rejection, expected.is_none().then_some(RejectionKind::TokenInvalid), "{raw:?}");
    }
}

#[tokio::test]
async fn subprotocol_token_is_removed_from_the_offer() {
    let check =
        |sources| TokenCheckLayer::new(TokenPolicy::from_sources(sources, tokens()).unwrap());
    let inner = service_fn(async |request: Request<()>| {
        let offered = request.headers().get_all("sec-websocket-protocol").iter();
        let offered =
            offered.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" | ");
        Ok::<_, Infallible>(Response::builder().status(101).body(offered).unwrap())
    });
    let prefix = || TokenSource::subprotocol("auth.").unwrap();
    let pair = || TokenSource::pair("bearer").unwrap();
    for (layer, offered, seen, responded) in [
        (check(vec![prefix()]), "a, auth.s3cr3t-alpha-01, b", "a, b", None),
        (check(vec![prefix()]).accept_unmatched_subprotocols(), "auth.s3cr3t-alpha-01", "", None),
        (check(vec![pair()]), "bearer, s3cr3t-alpha-01", "bearer", Some("bearer")),
        (check(vec![pair()]), "bearer, s3cr3t-alpha-01, b", "bearer, b", Some("bearer")),
    ] {
        let raw = handshake().and("Sec-WebSocket-Protocol", offered);
        let response =
            ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
        assert_eq!(
            response.headers().get("sec-websocket-protocol").map(|it| it.to_str().unwrap()),
            responded
        );
        assert_eq!(*response.body(), seen);
    }

    let raw = handshake()
        .and("Authorization", format!("Bearer {TOKEN}"))
        .and("Sec-WebSocket-Protocol", "a,  b");
    let layer = TokenCheckLayer::new(TokenPolicy::bearer(tokens()));
    let response =
        ServiceBuilder::new().layer(layer).service(inner).oneshot(raw.request()).await.unwrap();
    assert_eq!(*response.body(), "a,  b");
}

#[test]
fn invalid_token_source_is_a_config_error() {
    for error in [
        TokenSource::cookie("").unwrap_err(),
        TokenSource::cookie("a b").unwrap_err(),
        TokenSource::query("").unwrap_err(),
        TokenSource::subprotocol("").unwrap_err(),
        TokenSource::subprotocol("a,b").unwrap_err(),
        TokenSource::pair("a b").unwrap_err(),
        TokenPolicy::from_sources([], tokens()).unwrap_err(),
        TokenPolicy::from_sources(
            [TokenSource::authorization(), TokenSource::authorization()],
            tokens(),
        )
        .unwrap_err(),
        TokenPolicy::from_sources(
            ["auth.", "au"].map(|it| TokenSource::subprotocol(it).unwrap()),
            tokens(),
        )
        .unwrap_err(),
        TokenPolicy::from_sources(
            [TokenSource::pair("bearer").unwrap(), TokenSource::subprotocol("bear").unwrap()],
            tokens(),
        )
        .unwrap_err(),
        TokenPolicy::bearer(tokens()).or(TokenPolicy::bearer(tokens())).unwrap_err(),
        TokenPolicy::bearer(tokens())
            .keep_credential()
            .or(TokenPolicy::from_sources([TokenSource::query("token").unwrap()], tokens())
                .unwrap())
            .unwrap_err(),
        Subprotocols::list(["a", "a"]).unwrap_err(),
        Subprotocols::list(["a b"]).unwrap_err(),
        Subprotocols::list([""]).unwrap_err(),
    ] {
        assert!(!error.to_string().is_empty());
    }
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

#[tokio::test]
async fn header_basic_and_base64_are_sources() {
    let source = |text: &str| text.parse::<TokenSource>().unwrap();
    let with = |name: &str, value: &str| handshake().and(name, value);
    let tokens =
        || StaticTokens::new([("alice:pa:ss", "alice"), ("a>>b", "carol"), ("k e y", "key")]);
    for (text, raw, expected) in [
        (
            "basic",
            with("Authorization", &format!("Basic {}", base64("alice:pa:ss"))),
            "alice - /ws -",
        ),
        ("basic", with("Authorization", "bAsIc   YWxpY2U6cGE6c3M"), "alice - /ws -"),
        ("basic", with("Authorization", "Basic YWxpY2U6cGE6c3M="), "alice - /ws -"),
        ("basic", with("Authorization", "Basic YWxpY2U6cGE6c3M=="), "token-invalid"),
        ("basic", with("Authorization", &format!("Basic {}", base64("alice"))), "token-invalid"),
        ("basic", with("Authorization", &format!("Basic {}", base64("alice:x"))), "token-invalid"),
        ("basic", with("Authorization", &format!("Basic {}", base64("alice:\n"))), "token-invalid"),
        ("basic", with("Authorization", "Basic alice:pa:ss"), "token-invalid"),
        ("basic", with("Authorization", "Basic /w=="), "token-invalid"),
        ("basic", with("Authorization", "Basic"), "token-missing"),
        ("basic", with("Authorization", "Basic "), "token-missing"),
        ("basic", with("Authorization", "Basics eA=="), "token-missing"),
        ("basic", with("Authorization", "Bearer YWxpY2U6cGE6c3M="), "token-missing"),
        ("header:x-api-key", with("X-API-Key", "a>>b"), "carol - /ws -"),
        ("header:X-API-Key", with("x-api-key", " k e y\t"), "key - /ws -"),
        ("header:x-api-key", with("X-API-Key", ""), "token-missing"),
        ("header:x-api-key", with("X-API-Key", "A>>B"), "token-invalid"),
        ("header:x-api-key", with("X-API-Key", "a>>b").and("X-API-Key", "a>>b"), "carol - /ws -"),
        ("header:x-api-key", with("X-API-Key", "a>>b").and("X-API-Key", ""), "carol - /ws -"),
        ("header:x-api-key", with("X-API-Key", "a>>b").and("X-API-Key", "x"), "token-ambiguous"),
        ("header:x-api-key", with("X-API-Key2", "a>>b"), "token-missing"),
        ("header:authorization", with("Authorization", "a>>b"), "carol - /ws -"),
        ("header:authorization:Token", with("Authorization", "Token a>>b"), "carol - /ws -"),
        ("header:authorization:Token", with("Authorization", "TOKEN  k e y"), "key - /ws -"),
        ("header:authorization:Token", with("Authorization", "Tokens a>>b"), "token-missing"),
        ("header:authorization:Token", with("Authorization", "Token"), "token-missing"),
        // Another scheme is no credential of ours, and stays.
        ("header:authorization:Token", with("Authorization", "Bearer a>>b"), "token-missing"),
        (
            "cookie:c",
            with("Cookie", "c=a>>b").and("Authorization", "Token x"),
            "carol - /ws Token x",
        ),
        (
            "subprotocol-base64:own.b64.",
            with("Sec-WebSocket-Protocol", "chat, own.b64.YT4-Yg"),
            "carol chat /ws -",
        ),
        (
            "subprotocol-base64:own.b64.",
            with("Sec-WebSocket-Protocol", "chat, own.b64.YT4+Yg"),
            "token-invalid",
        ),
        (
            "subprotocol-base64:own.b64.",
            with("Sec-WebSocket-Protocol", "chat, own.b64."),
            "token-missing",
        ),
        (
            "subprotocol-base64:own.b64.",
            with("Sec-WebSocket-Protocol", "own.b64.YT4-Yg"),
            "subprotocol-unsupported",
        ),
        (
            "subprotocol-base64:own.b64.",
            with("Sec-WebSocket-Protocol", "own.b64.YT4-Yg, other"),
            "subprotocol-unsupported",
        ),
        ("k8s", with("Sec-WebSocket-Protocol", &format!("chat, {K8S}YT4-Yg")), "carol chat /ws -"),
        (
            "phoenix",
            with("Sec-WebSocket-Protocol", "chat, base64url.bearer.phx.YT4+Yg"),
            "carol chat /ws -",
        ),
        // The marker in any case is echoed as it was sent.
        ("pair:bearer", with("Sec-WebSocket-Protocol", "Bearer, a"), "token-invalid"),
    ] {
        let guard = GuardLayer::new(AllowOrigin::same_origin())
            .subprotocols(Subprotocols::list(["chat"]).unwrap())
            .token(TokenPolicy::from_sources([source(text)], tokens().unwrap()).unwrap())
            .unwrap();
        assert_eq!(outcome(guard, &raw).await, expected, "{text} {raw:?}");
    }
    for offer in ["Bearer, s3cr3t-alpha-01", "BEARER, s3cr3t-alpha-01, theirs"] {
        let raw = with("Sec-WebSocket-Protocol", offer);
        let marker = &offer[..6];
        let outcome = outcome(guard(vec![source("pair:bearer")], &["chat"]), &raw).await;
        assert_eq!(outcome, format!("alice {marker} /ws -"));
    }
}

#[tokio::test]
async fn connection_is_a_source() {
    #[derive(Clone)]
    struct Certificate(&'static str);

    let source = || {
        TokenSource::request_extensions(|extensions| {
            extensions.get::<Certificate>().map(|Certificate(name)| (*name).to_owned())
        })
    };
    let policy = TokenPolicy::from_sources([source(), TokenSource::authorization()], tokens());
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy.unwrap()).unwrap();
    let inner = service_fn(async |request: Request<()>| {
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        Ok::<_, Infallible>(Response::new(*user))
    });
    let app = ServiceBuilder::new().layer(guard).service(inner);
    let bearer = || handshake().and("Authorization", format!("Bearer {TOKEN}"));
    for (certificate, raw, expected) in [
        (Some("a>>b"), handshake(), "carol"),
        (Some("unknown"), handshake(), "token-invalid"),
        (Some(""), handshake(), "token-missing"),
        (Some(""), bearer(), "alice"),
        (Some("a>>b"), bearer(), "token-ambiguous"),
        (Some(TOKEN), bearer(), "token-ambiguous"),
        (None, bearer(), "alice"),
        (None, handshake(), "token-missing"),
    ] {
        for mut request in raw.over_both::<()>() {
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(Certificate(certificate));
            }
            let response = app.clone().oneshot(request).await.unwrap();
            let rejection = response.extensions().get::<Rejection>();
            let seen =
                rejection.map_or_else(|| *response.body(), |rejection| rejection.kind().code());
            assert_eq!(seen, expected, "{certificate:?} {raw:?}");
        }
    }
    let extensions = source();
    assert_eq!((extensions.clone() == extensions, source() == source()), (true, false));
    assert_eq!(extensions.to_string(), "request extensions");
    assert!("request extensions".parse::<TokenSource>().is_err());
}

#[tokio::test]
async fn first_source_that_holds_a_token_wins_by_choice() {
    let sources = || {
        ["pair:bearer", "cookie:c", "header:x-key", "query:t", "authorization"]
            .map(|source| source.parse::<TokenSource>().unwrap())
    };
    let guard = || {
        let policy = TokenPolicy::from_sources(sources(), tokens()).unwrap().first_source_wins();
        GuardLayer::new(AllowOrigin::same_origin())
            .subprotocols(Subprotocols::list(["chat"]).unwrap())
            .token(policy)
            .unwrap()
    };
    let bearer = |token: &str| handshake().and("Authorization", format!("Bearer {token}"));
    let pair =
        |raw: Raw, token: &str| raw.and("Sec-WebSocket-Protocol", format!("chat, bearer, {token}"));
    for (raw, expected) in [
        (bearer(TOKEN), "alice - /ws -"),
        (pair(bearer("other"), TOKEN), "alice chat /ws -"),
        (pair(bearer(TOKEN), "other"), "token-invalid"),
        (pair(bearer("other"), TOKEN).target("/ws?t=another&a=b"), "alice chat /ws?a=b -"),
        (bearer("other").target(&format!("/ws?a=b&t={TOKEN}")), "alice - /ws?a=b -"),
        (bearer(TOKEN).target("/ws?t="), "alice - /ws -"),
        (bearer("=").and("Cookie", format!("c={TOKEN}")), "alice - /ws -"),
        // A malformed one is one, too, and so are two.
        (bearer(TOKEN).target("/ws?t=%"), "token-invalid"),
        (bearer(TOKEN).and("Cookie", "c=a; c=b"), "token-ambiguous"),
        (
            bearer(TOKEN).and("Cookie", format!("c={TOKEN}")).and("X-Key", "a").and("X-Key", "b"),
            "alice - /ws -",
        ),
        (handshake(), "token-missing"),
        (handshake().and("Authorization", "Basic eA=="), "token-missing"),
    ] {
        assert_eq!(outcome(guard(), &raw).await, expected, "{raw:?}");
    }
}

#[tokio::test]
async fn equal_tokens_of_one_source_are_one() {
    let at = |target: &str| handshake().target(target);
    let cookie = |value: &str| handshake().and("Cookie", value);
    for (source, raw, expected) in [
        ("cookie:c", cookie("c=a>>b; c=a>>b"), "carol - /ws -"),
        ("cookie:c", cookie("c=a>>b").and("Cookie", "x=y; c=a>>b"), "carol - /ws -"),
        ("cookie:c", cookie("c=a>>b; c="), "carol - /ws -"),
        ("cookie:c", cookie("c=a>>b; c=A>>B"), "token-ambiguous"),
        ("query:t", at("/ws?t=a%3E%3Eb&t=a%3e%3Eb"), "carol - /ws -"),
        ("query:t", at("/ws?t=a%3E%3Eb&t="), "carol - /ws -"),
        ("query:t", at("/ws?t=a%3E%3Eb&t=a%253E%3Eb"), "token-ambiguous"),
        ("query:t", at("/ws?t=%&t=%"), "token-invalid"),
        ("query:t", at("/ws?t=%&t=a"), "token-ambiguous"),
        (
            "phoenix",
            handshake().and(
                "Sec-WebSocket-Protocol",
                "chat, base64url.bearer.phx.YT4+Yg, base64url.bearer.phx.YT4-Yg",
            ),
            "carol chat /ws -",
        ),
    ] {
        let sources = vec![source.parse::<TokenSource>().unwrap()];
        assert_eq!(outcome(guard(sources, &["chat"]), &raw).await, expected, "{source} {raw:?}");
    }
}

/// Parsers behind the guard may decode a name, and would find another cookie.
#[tokio::test]
async fn cookie_name_that_decodes_to_ours_is_ours() {
    for (value, expected) in [
        ("%73ession=s3cr3t-alpha-01", "alice - /ws -"),
        ("sessio%6E=s3cr3t-alpha-01; session=s3cr3t-alpha-01", "alice - /ws -"),
        ("session=s3cr3t-alpha-01; %73ession=other", "token-ambiguous"),
        ("%73ession=other; session=s3cr3t-alpha-01", "token-ambiguous"),
        ("%2573ession=s3cr3t-alpha-01", "token-missing"),
        ("%73Ession=s3cr3t-alpha-01", "token-missing"),
        ("%7ession=s3cr3t-alpha-01", "token-missing"),
    ] {
        let raw = handshake().and("Cookie", value);
        let sources = vec![TokenSource::cookie("session").unwrap()];
        assert_eq!(outcome(guard(sources, &[]), &raw).await, expected, "{value}");
    }
}

/// The rejection of a request, and the error behind it.
async fn rejection(policy: TokenPolicy<&'static str>, raw: &Raw) -> (&'static str, String) {
    let layer = TokenCheckLayer::new(policy).accept_unmatched_subprotocols();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let app = ServiceBuilder::new().layer(layer).service(inner);
    let response = app.oneshot(raw.request()).await.unwrap();
    let rejection = response.extensions().get::<Rejection>().unwrap();
    let source = std::error::Error::source(rejection);
    (rejection.kind().code(), source.map(ToString::to_string).unwrap_or_default())
}

#[tokio::test]
async fn log_of_an_ambiguous_token_names_the_sources() {
    let sources = ["authorization", "cookie:c", "header:x-key", "query:t", "subprotocol:p."];
    let policy = || {
        let sources = sources.map(|source| source.parse::<TokenSource>().unwrap());
        TokenPolicy::from_sources(sources, tokens()).unwrap()
    };
    let bearer = || handshake().and("Authorization", format!("Bearer {TOKEN}"));
    for (raw, names) in [
        (bearer().and("Cookie", format!("c={TOKEN}")), &["`authorization`", "`cookie:c`"][..]),
        (bearer().target(&format!("/ws?t={TOKEN}")), &["`authorization`", "`query:t`"]),
        (handshake().and("Cookie", "c=a").and("X-Key", "b"), &["`cookie:c`", "`header:x-key`"]),
        (bearer().and("Sec-WebSocket-Protocol", "p.a"), &["`authorization`", "`subprotocol:p.`"]),
        (handshake().and("Cookie", "c=a; c=b"), &["`cookie:c`", "two different"]),
    ] {
        let (code, source) = rejection(policy(), &raw).await;
        assert_eq!(code, "token-ambiguous", "{raw:?}");
        assert!(names.iter().all(|name| source.contains(name)), "{source}");
        assert!(!source.contains(TOKEN), "{source}");
    }
}

#[tokio::test]
async fn length_of_the_decoded_token_is_limited() {
    let long = |length: usize| "a".repeat(length);
    let bearer = |length| handshake().and("Authorization", format!("Bearer {}", long(length)));
    let basic = |length| {
        handshake()
            .and("Authorization", format!("Basic {}", base64(&format!("u:{}", long(length - 2)))))
    };
    let query = |length| handshake().target(&format!("/ws?t={}", "%61".repeat(length)));
    for (source, raw, max) in [
        ("authorization", &bearer as &dyn Fn(usize) -> Raw, 8192),
        ("basic", &basic, 8192),
        ("query:t", &query, 8192),
        ("authorization", &bearer, 20_000),
        ("query:t", &query, 100),
        ("basic", &basic, 100),
        ("authorization", &bearer, 1),
    ] {
        let policy = || {
            let policy = TokenPolicy::from_sources([source.parse().unwrap()], tokens()).unwrap();
            if max == 8192 { policy } else { policy.max_length(max).unwrap() }
        };
        if max > 2 {
            // Unknown, but not too long.
            let (code, reason) = rejection(policy(), &raw(max)).await;
            assert_eq!((code, &*reason), ("token-invalid", ""), "{source} {max}");
        }
        // A longer target is no URI.
        let longer = if source == "query:t" { 2 * max } else { 3 * max + 10 };
        for length in [max + 1, longer] {
            let (code, reason) = rejection(policy(), &raw(length)).await;
            assert_eq!(code, "token-invalid", "{source} {max}");
            let wanted = [format!("`{source}`"), "too long".into(), format!("at most {max} bytes")];
            assert!(wanted.iter().all(|part| reason.contains(part)), "{reason}");
        }
    }
    assert!(TokenPolicy::bearer(tokens()).max_length(0).is_err());
}

#[test]
fn token_source_is_a_text() {
    for (text, shown) in [
        ("authorization", "authorization"),
        ("basic", "basic"),
        ("header:X-API-Key", "header:x-api-key"),
        ("header:authorization:Token", "header:authorization:Token"),
        ("cookie:session", "cookie:session"),
        ("query:to:ken", "query:to:ken"),
        ("subprotocol:auth.", "subprotocol:auth."),
        ("subprotocol-base64:own.", "subprotocol-base64:own."),
        ("subprotocol-base64:base64url.bearer.authorization.k8s.io.", "kubernetes"),
        ("kubernetes", "kubernetes"),
        ("k8s", "kubernetes"),
        ("phoenix", "phoenix"),
        ("pair:bearer", "pair:bearer"),
    ] {
        let source: TokenSource = text.parse().unwrap();
        assert_eq!(source.to_string(), shown);
        assert_eq!(shown.parse::<TokenSource>().unwrap(), source, "{text}");
        assert_eq!(format!("{source:?}"), format!("TokenSource({shown})"));
    }
    for (text, hint) in [
        ("", "`authorization`"),
        ("bearer", "`authorization`"),
        ("cookies:a", "cookie:NAME"),
        ("header:", "name of a header"),
        ("header:a b", "name of a header"),
        ("header:cookie", "TokenSource::cookie"),
        ("header:Sec-WebSocket-Protocol", "TokenSource::pair"),
        ("header:host", "for itself"),
        ("header:sec-websocket-key", "for itself"),
        ("header:origin", "for itself"),
        ("header:authorization:", "scheme"),
        ("header:authorization:a b", "scheme"),
        ("cookie:", "cookie name"),
        ("query:", "needs a name"),
        ("subprotocol:", "token"),
        ("subprotocol-base64:a/b", "token"),
        ("pair:a,b", "token"),
    ] {
        let error = text.parse::<TokenSource>().unwrap_err().to_string();
        assert!(error.contains(hint), "{text}: {error}");
    }
}

#[test]
fn sources_that_overlap_are_a_config_error() {
    for (a, b, is_error) in [
        ("authorization", "basic", false),
        ("authorization", "header:authorization:Token", false),
        ("authorization", "header:authorization:bearer", true),
        ("authorization", "header:authorization", true),
        ("basic", "header:authorization:BASIC", true),
        ("header:x-key", "header:X-Key", true),
        ("header:x-key:a", "header:x-key:b", false),
        ("header:x-key:a", "header:x-key", true),
        ("subprotocol:a.", "subprotocol-base64:a.", true),
        ("subprotocol:base64url.", "kubernetes", true),
        ("kubernetes", "phoenix", false),
        ("pair:bearer", "pair:Bearer", true),
        ("subprotocol:BEAR", "pair:bearer", true),
        ("subprotocol:bearers", "pair:bearer", false),
        ("cookie:a", "cookie:A", false),
        ("cookie:a", "query:a", false),
    ] {
        for sources in [[a, b], [b, a]] {
            let sources = sources.map(|source| source.parse::<TokenSource>().unwrap());
            assert_eq!(TokenPolicy::from_sources(sources, tokens()).is_err(), is_error, "{a} {b}");
        }
    }
}
