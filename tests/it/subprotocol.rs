//! The subprotocol that a guard or a responder selects.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::ws::WebSocket,
    routing::{MethodRouter, any},
};
use http::{Request, Response};
use tokio::{sync::mpsc, time::timeout};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, GuardLayer, OriginCheckLayer, PendingUpgrade, Rejection,
    ResponderLayer, StaticTokens, Subprotocols, TokenCheckLayer, TokenPolicy, TokenSource,
    VersionCheckLayer, axum::GuardedUpgrade,
};

use crate::{
    common::{Raw, handshake, send, serve_axum},
    http2::{OWN, VERSION, send_h2},
};

#[tokio::test]
async fn guard_overrides_the_subprotocol_of_the_inner_service() {
    let inner = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(
            Response::builder()
                .status(101)
                .header("sec-websocket-protocol", "inner")
                .body(())
                .unwrap(),
        )
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let choosing = guard.clone().subprotocols(Subprotocols::list(["chat"]).unwrap());
    let offering = || handshake().and("Sec-WebSocket-Protocol", "inner, chat");
    for (guard, raw, named) in [
        (&choosing, offering(), Some("chat")),
        (&choosing, handshake(), None),
        (&guard, offering(), Some("inner")),
    ] {
        let response = ServiceBuilder::new()
            .layer(guard.clone())
            .service(inner)
            .oneshot(raw.request())
            .await
            .unwrap();
        let header = response.headers().get("sec-websocket-protocol");
        assert_eq!(header.map(|value| value.to_str().unwrap()), named, "{raw:?}");
    }
}

#[tokio::test]
async fn responder_selects_the_subprotocol() {
    let inner = service_fn(async |request: Request<()>| {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        // The selected subprotocol replaces that of the inner service.
        Ok::<_, Infallible>(
            Response::builder().header("sec-websocket-protocol", "inner").body(()).unwrap(),
        )
    });
    let list = || Subprotocols::list(["v2.chat", "v1.chat"]).unwrap();
    let server = || ResponderLayer::new().subprotocols(list());
    let client = || ResponderLayer::new().subprotocols(list().prefer_client_order());
    let offer = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    type Outcome = Result<Option<&'static str>, u16>;
    let cases: [(ResponderLayer, Raw, Outcome); 12] = [
        (server(), offer("v1.chat, v2.chat"), Ok(Some("v2.chat"))),
        (client(), offer("x, v1.chat, v2.chat"), Ok(Some("v1.chat"))),
        (server(), offer("other, v1.chat"), Ok(Some("v1.chat"))),
        (server(), offer("v1.chat").and("Sec-WebSocket-Protocol", "v2.chat"), Ok(Some("v2.chat"))),
        (server(), offer("foo\t,\tv1.chat\t"), Ok(Some("v1.chat"))),
        (server(), handshake(), Ok(None)),
        (ResponderLayer::new(), handshake(), Ok(None)),
        (server(), offer("v3.chat"), Err(400)),
        (server(), offer("V1.chat"), Err(400)),
        (ResponderLayer::new(), offer("chat"), Err(400)),
        (server().accept_unmatched_subprotocols(), offer("v3.chat"), Ok(None)),
        (server().accept_unmatched_subprotocols(), offer("v1.chat"), Ok(Some("v1.chat"))),
    ];
    for (layer, raw, expected) in cases {
        let response = layer.layer(inner).oneshot(raw.upgradable()).await.unwrap();
        let outcome = match response.status().as_u16() {
            101 => Ok(response
                .headers()
                .get("sec-websocket-protocol")
                .map(|value| value.to_str().unwrap())),
            status => Err(status),
        };
        assert_eq!(outcome, expected, "{raw:?}");
    }
}

/// The guard, axum and the wire agree on the subprotocol of a connection.
#[tokio::test]
async fn handler_selects_the_subprotocol_where_the_guard_has_no_list() {
    let select = async |upgrade: GuardedUpgrade| {
        upgrade.map(|upgrade| upgrade.protocols(["v1.chat"])).on_upgrade(async |_, ()| {})
    };
    let app =
        Router::new().route("/ws", any(select).layer(GuardLayer::new(AllowOrigin::same_origin())));
    let request = handshake()
        .and("Sec-WebSocket-Protocol", "v2.chat, v1.chat")
        .upgradable::<axum::body::Body>();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v1.chat");
}

#[tokio::test]
async fn axum_names_the_subprotocol_of_the_response() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = async move |upgrade: GuardedUpgrade| {
        let by_guard = upgrade.subprotocol().map(str::to_owned);
        upgrade.on_upgrade(async move |socket: WebSocket, ()| {
            let by_axum = socket.protocol().map(|name| name.to_str().unwrap().to_owned());
            sender.send([by_guard, by_axum]).unwrap();
        })
    };
    let sources = [TokenSource::authorization(), TokenSource::pair("bearer").unwrap()];
    let tokens = StaticTokens::new([("s3cr3t", ())]).unwrap();
    let token = TokenPolicy::from_sources(sources, tokens).unwrap();
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let list = || Subprotocols::list(["v2.chat", "v1.chat"]).unwrap();
    let chosen = guard().subprotocols(list());
    let with_token = chosen.clone().token(token.clone()).unwrap();
    let only_token = guard().token(token.clone()).unwrap();
    let stack = ServiceBuilder::new()
        .layer(guard().subprotocols(list()).limit(ConnectionLimit::total(9).unwrap()))
        .layer(VersionCheckLayer::new());
    let checks = ServiceBuilder::new()
        .layer(OriginCheckLayer::new(AllowOrigin::same_origin()))
        .layer(TokenCheckLayer::new(token).subprotocols(list()));
    let unmatched = chosen.clone().accept_unmatched_subprotocols();
    let route = || any(handler.clone());
    type Offers = &'static [(&'static str, Option<&'static str>)];
    let cases: [(&str, MethodRouter, Offers); 7] = [
        (
            "chosen",
            route().layer(chosen),
            &[
                ("", None),
                ("v1.chat, v2.chat", Some("v2.chat")),
                ("other, v1.chat", Some("v1.chat")),
            ],
        ),
        (
            "token",
            route().layer(with_token),
            &[
                ("", None),
                ("v1.chat", Some("v1.chat")),
                ("bearer, s3cr3t, v1.chat", Some("v1.chat")),
                ("v2.chat, bearer, s3cr3t", Some("v2.chat")),
                ("bearer, s3cr3t", Some("bearer")),
            ],
        ),
        (
            "only token",
            route().layer(only_token),
            &[
                ("", None),
                ("bearer, s3cr3t", Some("bearer")),
                ("bearer, s3cr3t, v1.chat", Some("bearer")),
                ("v1.chat", None),
            ],
        ),
        ("stack", route().layer(stack), &[("", None), ("v1.chat, other", Some("v1.chat"))]),
        (
            "separate layers",
            route().layer(checks),
            &[
                ("", None),
                ("bearer, s3cr3t, v1.chat", Some("v1.chat")),
                ("bearer, s3cr3t", Some("bearer")),
            ],
        ),
        ("unmatched", route().layer(unmatched), &[("other", None), ("v1.chat", Some("v1.chat"))]),
        ("no list", route().layer(guard()), &[("", None), ("v1.chat", None)]),
    ];
    for (name, route, offers) in cases {
        let address = serve_axum(Router::new().route("/ws", route)).await;
        for &(offered, expected) in offers {
            let with_token = ["token", "only token", "separate layers"].contains(&name);
            let mut headers = vec![];
            if !offered.is_empty() {
                headers.push(("sec-websocket-protocol", offered));
            }
            if with_token && !offered.contains("s3cr3t") {
                headers.push(("authorization", "Bearer s3cr3t"));
            }
            let raw = headers.iter().fold(handshake(), |raw, (name, value)| raw.and(name, value));
            let response = send(address, &raw.bytes()).await;
            assert_eq!(response.status, 101, "{name} {offered}");
            let http1 = response.all("sec-websocket-protocol").join(", ");
            let expected = expected.map(str::to_owned);
            let soon = Duration::from_secs(30);
            let callback = timeout(soon, seen.recv()).await.unwrap().unwrap();
            assert_eq!(callback, [expected.clone(), expected.clone()], "{name} {offered}");
            assert_eq!(http1, expected.clone().unwrap_or_default(), "{name} {offered}");

            let response = send_h2(address, &[&[OWN, VERSION], &headers[..]].concat()).await;
            assert_eq!(response.status(), 200, "{name} {offered}");
            let callback = timeout(soon, seen.recv()).await.unwrap().unwrap();
            assert_eq!(callback, [expected.clone(), expected.clone()], "{name} {offered}");
            let http2 = response.headers().get("sec-websocket-protocol");
            let http2 = http2.map(|name| name.to_str().unwrap().to_owned());
            assert_eq!(http2, expected, "{name} {offered}");
        }
    }
}

/// The code of the rejection; or the subprotocol that the inner service sees, and that of the response. The same over
/// HTTP/1.1 and HTTP/2.
async fn outcome(guard: &GuardLayer, raw: &Raw) -> Result<[Option<String>; 2], Rejection> {
    let text = |headers: &http::HeaderMap| {
        let lines = headers.get_all("sec-websocket-protocol").iter();
        let lines = lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>();
        (!lines.is_empty()).then(|| lines.join(" | "))
    };
    let inner = service_fn(async |request: Request<()>| {
        let status = if request.version() == http::Version::HTTP_2 { 200 } else { 101 };
        let seen = text(request.headers());
        Ok::<_, Infallible>(Response::builder().status(status).body(seen).unwrap())
    });
    let mut outcomes = Vec::new();
    for request in raw.over_both::<()>() {
        let response = guard.clone().layer(inner).oneshot(request).await.unwrap();
        let rejection = response.extensions().get::<Rejection>().cloned();
        let selected = text(response.headers());
        outcomes.push(rejection.map_or_else(|| Ok([response.into_body(), selected]), Err));
    }
    assert_eq!(format!("{:?}", outcomes[0]), format!("{:?}", outcomes[1]), "{raw:?}");
    outcomes.remove(0)
}

#[tokio::test]
async fn empty_offer_is_none() {
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let guards = [
        ("no list", guard()),
        ("list", guard().subprotocols(Subprotocols::list(["chat"]).unwrap())),
        ("empty list", guard().subprotocols(Subprotocols::default())),
    ];
    let offer = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    for (name, guard) in guards {
        for raw in
            [handshake(), offer(""), offer(" \t"), offer("").and("Sec-WebSocket-Protocol", " ")]
        {
            // The inner service sees no header, and the response has none.
            assert_eq!(outcome(&guard, &raw).await.unwrap(), [None, None], "{name} {raw:?}");
        }
        for raw in
            [offer(","), offer(" , "), offer(",,"), offer("").and("Sec-WebSocket-Protocol", ",")]
        {
            let rejection = outcome(&guard, &raw).await.unwrap_err();
            assert_eq!(rejection.kind().code(), "subprotocol-invalid", "{name} {raw:?}");
        }
    }
}

/// Kubernetes has one with a slash.
#[tokio::test]
async fn own_subprotocol_that_is_no_token_passes_byte_for_byte() {
    const SPDY: &str = "SPDY/3.1+portforward.k8s.io";
    const INVALID: Result<&str, &str> = Err("subprotocol-invalid");

    let list = Subprotocols::list([SPDY, "chat", "a=b\"c\""]).unwrap();
    let guard = GuardLayer::new(AllowOrigin::same_origin()).subprotocols(list.clone());
    for (offer, expected) in [
        (SPDY, Ok(SPDY)),
        ("chat, SPDY/3.1+portforward.k8s.io", Ok(SPDY)),
        ("SPDY/3.1+portforward.k8s.io, theirs", Ok(SPDY)),
        ("chat", Ok("chat")),
        ("a=b\"c\"", Ok("a=b\"c\"")),
        ("spdy/3.1+portforward.k8s.io", INVALID),
        ("SPDY/3.1+portforward.k8s.i", INVALID),
        ("SPDY/3.1+portforward.k8s.io, SPDY/3.1+portforward.k8s.io", INVALID),
        ("SPDY/3.1+portforward.k8s.io, SPDY/4+portforward.k8s.io", INVALID),
        ("a=b", INVALID),
        ("chat, a b", INVALID),
    ] {
        let raw = handshake().and("Sec-WebSocket-Protocol", offer);
        let outcome = outcome(&guard, &raw).await;
        match expected {
            Ok(selected) => {
                let selected = Some(selected.to_owned());
                assert_eq!(outcome.unwrap(), [selected.clone(), selected], "{offer}");
            }
            Err(code) => assert_eq!(outcome.unwrap_err().kind().code(), code, "{offer}"),
        }
    }
    // Without that name in the list it is malformed.
    let raw = handshake().and("Sec-WebSocket-Protocol", SPDY);
    for guard in [
        GuardLayer::new(AllowOrigin::same_origin()),
        GuardLayer::new(AllowOrigin::same_origin())
            .subprotocols(Subprotocols::list(["chat"]).unwrap())
            .accept_unmatched_subprotocols(),
    ] {
        let rejection = outcome(&guard, &raw).await.unwrap_err();
        assert_eq!(rejection.kind().code(), "subprotocol-invalid");
    }
    // The responder completes the handshake with it.
    let pending = service_fn(async |request: Request<()>| {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        Ok::<_, Infallible>(Response::new(()))
    });
    let responder = ResponderLayer::new().subprotocols(list);
    let response = responder.layer(pending).oneshot(raw.upgradable()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], SPDY);

    for invalid in ["", "a b", "a,b", "caf\u{e9}", "a\tb", "a\u{7f}"] {
        let error = Subprotocols::list([invalid]).unwrap_err().to_string();
        assert!(error.contains("visible ASCII"), "{invalid:?}: {error}");
    }
}

#[tokio::test]
async fn log_shows_what_was_offered() {
    let prefix = TokenSource::subprotocol("auth.").unwrap();
    let policy = TokenPolicy::from_sources([prefix], StaticTokens::new([("s3cr3t", ())]).unwrap());
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .subprotocols(Subprotocols::list(["chat", "odd\"\\'"]).unwrap())
        .token(policy.unwrap())
        .unwrap();
    let long = "x".repeat(100);
    let many = (0..20).map(|i| format!("n{i}")).collect::<Vec<_>>().join(", ");
    for (offer, shown) in [
        ("null", "`null`".to_owned()),
        ("undefined", "`undefined`".to_owned()),
        ("v3.chat,\tv2.chat", "`v3.chat, v2.chat`".to_owned()),
        ("graphql-transport-ws", "`graphql-transport-ws`".to_owned()),
        // What does not look like a name is cut, because it may be a misplaced credential.
        (&long, "`xxxx... (100 bytes)`".to_owned()),
        ("x, ghp_0123456789abcdefABCD", "`x, ghp_... (24 bytes)`".to_owned()),
        ("8f14e45fceea167a5a36dedd4bea2543", "`8f14... (32 bytes)`".to_owned()),
        ("Bearer, correct-Horse-battery", "`Bearer, corr... (21 bytes)`".to_owned()),
        (&many, "`n0, n1, n2, n3, n4, n5, n6, n7`".to_owned()),
        ("auth.s3cr3t", "`nothing but a credential`".to_owned()),
        ("mail, auth.s3cr3t", "`mail`".to_owned()),
        ("it's", "`it\\'s`".to_owned()),
    ] {
        let raw = handshake().and("Sec-WebSocket-Protocol", offer);
        let rejection = outcome(&guard, &raw).await.unwrap_err();
        assert_eq!(rejection.kind().code(), "subprotocol-unsupported", "{offer}");
        let message = rejection.to_string();
        assert!(message.contains(&shown), "{shown}: {message}");
        assert!(!message.contains("s3cr3t"), "{message}");
    }
}

/// To compare every offer with every name, or every name with every other, would take minutes.
#[tokio::test]
async fn many_subprotocols_are_looked_up() {
    let names = |start: &str, count| (0..count).map(|i| format!("{start}{i}")).collect::<Vec<_>>();
    let list = Subprotocols::list(names("ours", 100_000)).unwrap();
    let guard = |list| GuardLayer::new(AllowOrigin::same_origin()).subprotocols(list);
    let others = names("theirs", 126).join(", ");
    let offer = |last: &str| handshake().and("Sec-WebSocket-Protocol", format!("{others}, {last}"));
    for (guard, expected) in
        [(guard(list.clone()), "ours3"), (guard(list.prefer_client_order()), "ours7")]
    {
        for _ in 0..200 {
            let rejection = outcome(&guard, &offer("ours")).await.unwrap_err();
            assert_eq!(rejection.kind().code(), "subprotocol-unsupported");
        }
        let [_, selected] = outcome(&guard, &offer("ours7, ours3")).await.unwrap();
        assert_eq!(selected.as_deref(), Some(expected));
    }
}
