//! Policies as values: asked outside of a handshake, found for each request, replaced while the server runs, and
//! applied to every request.

use std::{collections::HashMap, convert::Infallible};

use http::{Method, Request, Response, Version, header::ACCESS_CONTROL_ALLOW_ORIGIN};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::{self, CorsLayer};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, EmptyBody, GuardLayer, Host, Origin, ProblemJson, Rejection,
    Replaceable, RequestCheckLayer, RequestHead, StaticTokens, TokenPolicy,
    test_util::{assert_rejected, handshake},
};

use crate::common::{self, HOST, ORIGIN, Raw, plain};

fn list(origins: &[&str]) -> AllowOrigin {
    AllowOrigin::list(origins).unwrap()
}

fn hosts(hosts: &[&str]) -> AllowHost {
    AllowHost::list(hosts).unwrap()
}

fn origin(origin: &str) -> Origin<'static> {
    origin.parse().unwrap()
}

fn host(host: &str) -> Host<'_> {
    Host::parse(host.as_bytes()).unwrap()
}

/// The code of the policy itself, outside of a handshake.
fn check(origins: &AllowOrigin, raw: &Raw) -> &'static str {
    let (head, ()) = raw.request::<()>().into_parts();
    let checked = RequestHead::new(&head).and_then(|head| origins.check(&head));
    checked.map_or_else(|rejection| rejection.kind().code(), |()| "ok")
}

#[test]
fn policy_is_asked_whether_it_allows_an_origin() {
    const APP: &str = "https://app.example.com";

    let empty = AllowOrigin::default;
    for (name, policy, allowed) in [
        ("exact", list(&[APP]), true),
        ("pattern", list(&["https://*.example.com"]), true),
        ("scheme", list(&["http://app.example.com"]), false),
        ("public", AllowOrigin::public_origin(APP).unwrap(), true),
        ("any", AllowOrigin::dangerous_any(), true),
        ("or", empty().or(list(&["https://a.example"]).or(list(&[APP]))), true),
        ("replaceable", AllowOrigin::replaceable(&Replaceable::new(list(&[APP]))), true),
        ("empty", empty(), false),
        ("no browsers", AllowOrigin::no_browsers(), false),
        ("null", empty().allow_null().allow_missing(), false),
        // They depend on the request.
        ("same origin", AllowOrigin::same_origin(), false),
        ("predicate", AllowOrigin::predicate(|_, _| true), false),
        ("per request", AllowOrigin::per_request(|_| Some(list(&[APP]))), false),
    ] {
        for spelling in [APP, "HTTPS://App.Example.com:443", "wss://app.example.com"] {
            assert_eq!(policy.allows(&origin(spelling)), allowed, "{name} {spelling}");
        }
        assert!(name == "any" || !policy.allows(&origin("https://evil.example")), "{name}");
    }
}

#[test]
fn policy_judges_any_request() {
    let post = || plain().method("POST");
    for (policy, raw, expected) in [
        (list(&[ORIGIN]), post().and("Origin", ORIGIN), "ok"),
        (list(&[ORIGIN]), post().and("Origin", "https://evil.example"), "origin-not-allowed"),
        (list(&[ORIGIN]), post(), "origin-missing"),
        (list(&[ORIGIN]), post().and("Origin", ""), "origin-missing"),
        (list(&[ORIGIN]), post().and("Origin", "x"), "origin-invalid"),
        (list(&[ORIGIN]), post().and("Origin", ORIGIN).and("Origin", ORIGIN), "origin-repeated"),
        (AllowOrigin::same_origin(), post().and("Origin", ORIGIN), "ok"),
        (AllowOrigin::same_origin(), post().and("Origin", "null"), "origin-not-allowed"),
        (AllowOrigin::same_origin(), post().with("Host", ""), "host-invalid"),
        (AllowOrigin::same_origin(), post().and("Host", HOST), "host-invalid"),
        (
            AllowOrigin::predicate(|_, head| head.uri().path() == "/ws"),
            post().and("Origin", ORIGIN),
            "ok",
        ),
        (
            AllowOrigin::same_origin(),
            post().and("Origin", ORIGIN).and("Sec-Fetch-Site", "cross-site"),
            "origin-not-allowed",
        ),
    ] {
        assert_eq!(check(&policy, &raw), expected, "{policy:?} {raw:?}");
    }
    let (head, ()) = plain().request::<()>().into_parts();
    let head = RequestHead::new(&head).unwrap();
    hosts(&[HOST]).check(&head).unwrap();
    let rejection = hosts(&["other.example"]).check(&head).unwrap_err();
    assert_eq!(rejection.kind().code(), "host-not-allowed");
    assert!(rejection.to_string().contains(HOST), "{rejection}");
}

#[tokio::test]
async fn cors_layer_follows_the_policy() {
    let policy = list(&["https://*.example.com", "http://localhost:*"])
        .or(AllowOrigin::same_origin())
        .allow_null();
    let cors = cors::AllowOrigin::predicate(policy.cors_predicate());
    let app = ServiceBuilder::new()
        .layer(CorsLayer::new().allow_origin(cors).allow_methods([Method::PUT]))
        .service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("inner")));
    let get = || plain().target("/api").with("Host", "server.example");
    let preflight = || get().method("OPTIONS").and("Access-Control-Request-Method", "PUT");
    for (origin, site, is_allowed) in [
        ("https://app.example.com", "cross-site", true),
        ("http://localhost:5173", "cross-site", true),
        ("https://server.example", "same-origin", true),
        ("null", "cross-site", true),
        ("https://server.example", "cross-site", false),
        ("https://example.com", "cross-site", false),
        ("https://evil.example", "cross-site", false),
        ("https://app.example.com/", "cross-site", false),
        ("", "none", false),
    ] {
        for raw in [get(), preflight()] {
            let is_preflight = raw.bytes().starts_with(b"OPTIONS");
            let raw = raw.and("Origin", origin).and("Sec-Fetch-Site", site);
            let response = app.clone().oneshot(raw.request()).await.unwrap();
            let allowed = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
            let expected = is_allowed.then_some(origin);
            assert_eq!(allowed.map(|value| value.to_str().unwrap()), expected, "{raw:?}");
            // CORS rejects nothing: the browser does.
            assert_eq!(response.status(), 200);
            assert_eq!(*response.body(), if is_preflight { "" } else { "inner" });
            // The guard says the same of a handshake.
            let raw = common::handshake().with("Host", "server.example").with("Origin", origin);
            let guard = GuardLayer::new(policy.clone())
                .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
            let raw = raw.and("Sec-Fetch-Site", site);
            let response = guard.oneshot(raw.request()).await.unwrap();
            assert_eq!(response.status() == 200, is_allowed, "{raw:?}");
        }
    }
}

/// A request over HTTP/1.1 and over HTTP/2 that is no handshake.
fn ordinary(method: &str, host: &str, origin: Option<&str>) -> [Request<()>; 2] {
    let mut raw = plain().method(method).target("/api?a=b").with("Host", host);
    if let Some(origin) = origin {
        raw = raw.and("Origin", origin);
    }
    let http1 = raw.request();
    let mut http2 = http1.clone();
    *http2.version_mut() = Version::HTTP_2;
    http2.headers_mut().remove("host");
    *http2.uri_mut() = format!("https://{host}/api?a=b").parse().unwrap();
    [http1, http2]
}

#[tokio::test]
async fn request_check_applies_to_every_request() {
    let inner = || {
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("inner".to_owned())))
    };
    let origins = || list(&[ORIGIN]).allow_missing();
    let both = RequestCheckLayer::origins(origins()).allow_host(hosts(&[HOST]));
    let app = both.reject_with(ProblemJson::new()).layer(inner());
    // The same policies in a guard.
    let guard = GuardLayer::new(origins()).allow_host(hosts(&[HOST]));
    let guard = guard.reject_with(ProblemJson::new()).layer(inner());
    let cases = [
        (HOST, Some(ORIGIN), None),
        (HOST, None, None),
        ("CHAT.example.com.:443", Some(ORIGIN), None),
        (HOST, Some("https://evil.example"), Some((403, "origin-not-allowed"))),
        (HOST, Some("null"), Some((403, "origin-not-allowed"))),
        (HOST, Some("https://a/"), Some((403, "origin-invalid"))),
        ("evil.example", None, Some((421, "host-not-allowed"))),
        ("evil.example", Some("https://evil.example"), Some((421, "host-not-allowed"))),
    ];
    for (host, origin, expected) in cases {
        let raw = common::handshake().without("Origin").with("Host", host);
        let raw = origin.iter().fold(raw, |raw, origin| raw.and("Origin", origin));
        let mut requests =
            vec![("handshake", raw.request()), ("handshake", raw.extended_connect())];
        for method in ["GET", "POST", "OPTIONS", "DELETE"] {
            requests.extend(ordinary(method, host, origin).map(|request| (method, request)));
        }
        for (name, request) in requests {
            let version = request.version();
            let name = format!("{name} {version:?} {host} {origin:?}");
            let response = app.clone().oneshot(request.clone()).await.unwrap();
            let Some((status, code)) = expected else {
                assert_eq!(
                    (response.status().as_u16(), &**response.body()),
                    (200, "inner"),
                    "{name}"
                );
                continue;
            };
            assert_eq!(response.status(), status, "{name}");
            assert_rejected(&response, code);
            let by_guard = guard.clone().oneshot(raw.request()).await.unwrap();
            assert_eq!(response.body(), by_guard.body(), "{name}");
            if version == Version::HTTP_11 {
                assert_eq!(response.headers(), by_guard.headers(), "{name}");
            } else {
                assert!(!response.headers().contains_key("connection"), "{name}");
            }
        }
    }
    // A gateway that translates from HTTP/1.1 may leave the authority out.
    let mut translated = Request::new(());
    *translated.version_mut() = Version::HTTP_2;
    translated.headers_mut().insert("host", HOST.parse().unwrap());
    assert_eq!(app.clone().oneshot(translated).await.unwrap().status(), 200);
    // The host must be valid first.
    let two = plain().and("Host", HOST).request();
    assert_rejected(&app.clone().oneshot(two).await.unwrap(), "host-invalid");

    let only_hosts = RequestCheckLayer::hosts(hosts(&[HOST])).allow_host(hosts(&["b.example"]));
    let only_hosts = only_hosts.layer(inner());
    for (host, is_allowed) in [(HOST, true), ("b.example", true), ("c.example", false)] {
        for request in ordinary("GET", host, Some("https://evil.example")) {
            let response = only_hosts.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status() == 200, is_allowed, "{host}");
        }
    }
    let _: RequestCheckLayer<EmptyBody> = RequestCheckLayer::hosts(hosts(&[HOST]));
}

/// A guard behind a request check still completes its handshakes.
#[tokio::test]
async fn request_check_stands_before_a_guard() {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let app = ServiceBuilder::new()
        .layer(RequestCheckLayer::hosts(hosts(&[HOST])))
        .layer(GuardLayer::new(AllowOrigin::same_origin()).on_upgraded(async |_| {}))
        .service(inner);
    for request in common::upgradable(&common::handshake()) {
        let accepted = common::accepted_over(request.version());
        accepted(&app.clone().oneshot(request).await.unwrap());
    }
    let foreign = handshake("/ws").host(HOST).origin("https://evil.example").build(());
    assert_rejected(&app.clone().oneshot(foreign).await.unwrap(), "origin-not-allowed");
    let rebound = handshake("/ws").host("evil.example").origin("http://evil.example").build(());
    assert_rejected(&app.oneshot(rebound).await.unwrap(), "host-not-allowed");
}

#[tokio::test]
async fn policies_are_replaced_while_the_guard_runs() {
    let origins = Replaceable::new(list(&["https://a.example"]));
    let allowed_hosts = Replaceable::new(hosts(&["a.example"]));
    let tokens = Replaceable::new(StaticTokens::new([("old", "alice")]).unwrap());
    let inner = service_fn(async |request: Request<()>| {
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        Ok::<_, Infallible>(Response::new(*user))
    });
    let app = GuardLayer::new(AllowOrigin::replaceable(&origins))
        .allow_host(AllowHost::replaceable(&allowed_hosts))
        .token(TokenPolicy::bearer(tokens.clone()))
        .unwrap()
        .layer(inner);
    let outcome = async |host: &str, origin: &str, token: &str| {
        let request = handshake("/ws").host(host).origin(origin).token(token).build(());
        let response = app.clone().oneshot(request).await.unwrap();
        let rejection = response.extensions().get::<Rejection>();
        rejection.map_or_else(|| *response.body(), |rejection| rejection.kind().code())
    };
    let (a, b) = ("https://a.example", "https://b.example");
    assert_eq!(outcome("a.example", a, "old").await, "alice");
    assert_eq!(outcome("b.example", a, "old").await, "host-not-allowed");
    allowed_hosts.replace(hosts(&["a.example", "b.example"]));
    assert_eq!(outcome("b.example", a, "old").await, "alice");
    assert_eq!(outcome("a.example", b, "old").await, "origin-not-allowed");
    origins.replace(list(&[b]));
    assert_eq!(outcome("a.example", b, "old").await, "alice");
    assert_eq!(outcome("a.example", a, "old").await, "origin-not-allowed");
    assert_eq!(outcome("a.example", b, "new").await, "token-invalid");
    tokens.replace(StaticTokens::new([("new", "bob")]).unwrap());
    assert_eq!(outcome("a.example", b, "new").await, "bob");
    assert_eq!(outcome("a.example", b, "old").await, "token-invalid");
    origins.replace(AllowOrigin::default());
    assert_eq!(outcome("a.example", b, "new").await, "origin-not-allowed");
}

#[test]
fn policy_that_contains_itself_ends_and_allows_nothing_more() {
    let evil = "https://evil.example";
    let origins = Replaceable::new(AllowOrigin::default());
    let policy = AllowOrigin::replaceable(&origins);
    let raw = |origin: &str| common::handshake().with("Origin", origin);
    let twice = policy.clone().or(policy.clone());
    for (name, itself) in [
        ("itself", policy.clone()),
        ("twice", twice),
        (
            "by request",
            AllowOrigin::per_request({
                let policy = policy.clone();
                move |_| Some(policy.clone())
            }),
        ),
    ] {
        origins.replace(itself.clone());
        assert!(!policy.allows(&origin(evil)), "{name}");
        assert_eq!(check(&policy, &raw(evil)), "origin-not-allowed", "{name}");
        assert_eq!(check(&policy, &raw("null")), "origin-not-allowed", "{name}");
        assert_eq!(check(&policy, &raw(evil).without("Origin")), "origin-missing", "{name}");
        // What stands beside it is allowed.
        origins.replace(itself.or(list(&[ORIGIN])));
        assert_eq!(check(&policy, &raw(ORIGIN)), "ok", "{name}");
        assert_eq!(check(&policy, &raw(evil)), "origin-not-allowed", "{name}");
        assert!(!format!("{policy:?} {origins:?}").is_empty());
    }

    let allowed = Replaceable::new(hosts(&["a.example"]));
    let policy = AllowHost::replaceable(&allowed);
    allowed.replace(policy.clone());
    assert!(!policy.allows(host("a.example")));
    allowed.replace(policy.clone().or(policy.clone()).or(hosts(&["b.example"])));
    assert!(policy.allows(host("b.example")) && !policy.allows(host("a.example")));
}

#[test]
fn policy_is_found_for_each_request() {
    let tenants = HashMap::from([
        ("red.example.com", list(&["https://red.example"])),
        ("blue.example.com", list(&["https://blue.example"]).allow_missing()),
        (
            "nested.example.com",
            AllowOrigin::per_request(|head| {
                (head.uri().path() == "/ws").then(AllowOrigin::same_origin)
            }),
        ),
    ]);
    let policy = AllowOrigin::per_request(move |head| tenants.get(head.host().name()).cloned())
        .or(list(&["https://admin.example"]));
    for (host, origin, expected) in [
        ("red.example.com", Some("https://red.example"), "ok"),
        ("red.example.com", Some("https://blue.example"), "origin-not-allowed"),
        ("blue.example.com", Some("https://blue.example"), "ok"),
        ("blue.example.com", Some("https://red.example"), "origin-not-allowed"),
        ("red.example.com", None, "origin-missing"),
        ("blue.example.com", None, "ok"),
        ("other.example.com", Some("https://red.example"), "origin-not-allowed"),
        ("other.example.com", Some("https://admin.example"), "ok"),
        ("nested.example.com", Some("https://nested.example.com"), "ok"),
        ("nested.example.com", Some("https://red.example"), "origin-not-allowed"),
        ("red.example.com", Some("https://red.example/"), "origin-invalid"),
    ] {
        let raw = common::handshake().without("Origin").with("Host", host);
        let raw = origin.iter().fold(raw, |raw, origin| raw.and("Origin", origin));
        assert_eq!(check(&policy, &raw), expected, "{host} {origin:?}");
    }
}
