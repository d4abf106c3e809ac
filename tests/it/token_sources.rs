//! Token sources: `Authorization`, cookie, query and subprotocol.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    Claims, Rejection, RejectionKind, Subprotocols, Token, TokenCheckLayer, TokenPolicy,
    TokenSource, Verified,
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
        (vec![authorization()], bearer("Bearer"), "token-invalid"),
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
            "token-ambiguous",
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
        (vec![cookie()], with("Cookie", "session="), "token-invalid"),
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
        (vec![query()], at("/ws?token"), "token-invalid"),
        (vec![query()], at("/ws?token=s3cr3t-alpha-01&%74oken=s3cr3t-alpha-01"), "token-ambiguous"),
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
        (vec![prefix()], offer("chat, auth."), "token-invalid"),
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
