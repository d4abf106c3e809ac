//! `AllowOrigin`: which origins each policy allows.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, ConfigError, Origin, OriginCheckLayer, Rejection};

use crate::common::{self, Raw, handshake};

/// Returns the code of the rejection, or `ok`; the same over HTTP/1.1 and HTTP/2.
pub(crate) async fn code(layer: OriginCheckLayer, raw: &Raw) -> &'static str {
    let mut codes = Vec::new();
    for request in raw.over_both() {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let response = ServiceBuilder::new()
            .layer(layer.clone())
            .service(inner)
            .oneshot(request)
            .await
            .unwrap();
        codes.push(
            response
                .extensions()
                .get::<Rejection>()
                .map_or("ok", |rejection| rejection.kind().code()),
        );
    }
    assert_eq!(codes[0], codes[1], "{raw:?}");
    codes[0]
}

async fn assert_codes(origins: AllowOrigin, cases: &[(&[u8], &str)]) {
    for (origin, expected) in cases {
        let raw = handshake().with("Origin", origin);
        assert_eq!(
            code(OriginCheckLayer::new(origins.clone()), &raw).await,
            *expected,
            "{}",
            origin.escape_ascii()
        );
    }
}

const NOT_ALLOWED: &str = "origin-not-allowed";
const INVALID: &str = "origin-invalid";

#[tokio::test]
async fn list_allows_only_listed_origins() {
    let list = AllowOrigin::list([
        "https://app.example.com",
        "https://b.example:8443",
        "http://plain.example",
        "chrome-extension://abcdef",
    ]);
    assert_codes(
        list.unwrap(),
        &[
            (b"http://plain.example", "ok"),
            (b"http://plain.example:80", "ok"),
            (b"https://plain.example", NOT_ALLOWED),
            (b"http://plain.example:443", NOT_ALLOWED),
            (b"https://app.example.com", "ok"),
            (b"https://app.example.com:443", "ok"),
            (b"https://b.example:8443", "ok"),
            (b"chrome-extension://abcdef", "ok"),
            (b"https://b.example", NOT_ALLOWED),
            (b"chrome-extension://fedcba", NOT_ALLOWED),
            (b"chrome-extension://abcdef:80", NOT_ALLOWED),
            (b"http://app.example.com", NOT_ALLOWED),
            (b"http://app.example.com:443", NOT_ALLOWED),
            (b"wss://app.example.com", "ok"),
            (b"wss://app.example.com:443", "ok"),
            (b"ws://app.example.com", NOT_ALLOWED),
            (b"ws://plain.example", "ok"),
            (b"https://app.example.com:8443", NOT_ALLOWED),
            (b"https://app.example.com.evil.com", NOT_ALLOWED),
            (b"https://evilapp.example.com", NOT_ALLOWED),
            (b"https://appxexample.com", NOT_ALLOWED),
            (b"https://sub.app.example.com", NOT_ALLOWED),
            (b"https://example.com", NOT_ALLOWED),
            (b"https://chat.example.com", NOT_ALLOWED), // the server's own: a list replaces same-origin
            (b"https://xn--pp-6kc.example.com", NOT_ALLOWED),
            (b"https://[::ffff:7f00:1]", NOT_ALLOWED),
            (b"http://127.0.0.1", NOT_ALLOWED),
            (b"http://localhost", NOT_ALLOWED),
            (b"null", NOT_ALLOWED),
            (b"file://", NOT_ALLOWED),
            (b"", "origin-missing"),
            (b"NULL", INVALID),
            (b"https://app.example.com/", INVALID),
            (b"https://app.example.com.", NOT_ALLOWED),
            (b"https://app.example.com..", INVALID),
            (b"https://app.example.com@evil.com", INVALID),
            (b"https://evil.com@app.example.com", INVALID),
            (b"https://evil.com#app.example.com", INVALID),
            (b"https://evil.com/app.example.com", INVALID),
            (b"https://app.example.com?x", INVALID),
            (b"https://app.example.com\\.evil.com", INVALID),
            (b"https://app.example.com%00.evil.com", INVALID),
            (b"https://app.example.com,https://evil.com", INVALID),
            (b"https://app.example.com https://evil.com", INVALID),
            (b"https://app.example.com\tx", INVALID),
            (b"https://app.example.com:", INVALID),
            (b"https://app.example.com:0443", INVALID),
            (b"https://app.example.com:+443", INVALID),
            (b"https://app.example.com:65979", INVALID),
            (b"https://app.example.com:443.evil.com", INVALID),
            (b"https:app.example.com", INVALID),
            (b"//app.example.com", INVALID),
            (b"app.example.com", INVALID),
            (b"HTTPS://APP.EXAMPLE.COM", "ok"),
            (b"HTTPS://APP.EXAMPLE.COM.EVIL.COM", NOT_ALLOWED),
            (b"https://\xd0\xb0pp.example.com", INVALID),
            (b"http://b\xfccher", INVALID),
            (b"http://[fe80::1%25eth0]", INVALID),
            (b"https://", INVALID),
            (&[b'a'; 65_536], INVALID),
        ],
    )
    .await;
}

#[tokio::test]
async fn patterns_allow_subdomains_and_ports() {
    assert_codes(
        AllowOrigin::list([
            "https://*.example.com",
            "http://localhost:*",
            "https://*.dev.example:*",
        ])
        .unwrap(),
        &[
            (b"https://a.example.com", "ok"),
            (b"https://a.b.example.com:443", "ok"),
            (b"https://example.com", NOT_ALLOWED),
            (b"https://evilexample.com", NOT_ALLOWED),
            (b"https://a.example.com.evil.com", NOT_ALLOWED),
            (b"http://a.example.com", NOT_ALLOWED),
            (b"https://a.example.com:8443", NOT_ALLOWED),
            (b"https://.example.com", INVALID),
            (b"https://a.example.com.", NOT_ALLOWED),
            (b"HTTPS://A.Example.com", "ok"),
            (b"WSS://A.Example.com", "ok"),
            (b"https://evil.com#.example.com", INVALID),
            (b"https://evil.com/.example.com", INVALID),
            (b"https://evil.com\\.example.com", INVALID),
            (b"https://evil.com%2f.example.com", INVALID),
            (b"https://*.example.com", INVALID),
            (b"http://localhost", "ok"),
            (b"http://localhost:5173", "ok"),
            (b"https://localhost:5173", NOT_ALLOWED),
            (b"http://a.localhost:5173", NOT_ALLOWED),
            (b"http://localhost.evil.com:5173", NOT_ALLOWED),
            (b"http://localhost:5173.evil.com", INVALID),
            (b"https://a.dev.example", "ok"),
            (b"https://a.b.dev.example:9", "ok"),
            (b"https://dev.example:9", NOT_ALLOWED),
        ],
    )
    .await;
}

#[tokio::test]
async fn configured_origins_are_normalized() {
    assert_codes(
        AllowOrigin::list([
            "HTTPS://Norm.Example.com:443",
            "http://[::1]:3000",
            "https://[::ffff:7f00:1]",
            "ftp://a.example",
            "ftp://b.example:21",
        ])
        .unwrap(),
        &[
            (b"https://norm.example.com", "ok"),
            (b"http://[::1]:3000", "ok"),
            (b"http://[0:0:0:0:0:0:0:1]:3000", "ok"),
            (b"https://[0::FFFF:127.0.0.1]", "ok"),
            (b"https://[::ffff:7f00:1]", "ok"),
            // WHATWG URL 4.2 defines a default port for this scheme, too.
            (b"ftp://a.example:21", "ok"),
            (b"ftp://b.example", "ok"),
            (b"ftp://b.example:22", NOT_ALLOWED),
        ],
    )
    .await;
}

#[tokio::test]
async fn same_origin_compares_host_and_port() {
    let cases = [
        ("chat.example.com", "https://chat.example.com", "ok"),
        ("chat.example.com", "http://chat.example.com", "ok"),
        ("Chat.EXAMPLE.com", "https://chat.example.com", "ok"),
        ("chat.example.com:443", "https://chat.example.com", "ok"),
        ("chat.example.com", "https://chat.example.com:443", "ok"),
        ("chat.example.com:8443", "https://chat.example.com:8443", "ok"),
        ("[::1]:8080", "http://[::1]:8080", "ok"),
        ("127.0.0.1", "http://127.0.0.1", "ok"),
        ("chat.example.com", "https://chat.example.com:8443", NOT_ALLOWED),
        ("chat.example.com:80", "https://chat.example.com", NOT_ALLOWED),
        ("chat.example.com:8443", "app://chat.example.com:8443", NOT_ALLOWED),
        ("chat.example.com:21", "ftp://chat.example.com", NOT_ALLOWED),
        ("chat.example.com:443", "http://chat.example.com", NOT_ALLOWED),
        ("chat.example.com", "https://evil.example", NOT_ALLOWED),
        ("chat.example.com", "ws://chat.example.com", "ok"),
        ("chat.example.com:443", "wss://chat.example.com", "ok"),
        ("chat.example.com:443", "ws://chat.example.com", NOT_ALLOWED),
        ("chat.example.com", "chrome-extension://chat.example.com", NOT_ALLOWED),
        ("127.0.0.1:3000", "http://localhost:3000", NOT_ALLOWED),
        ("chat.example.com:65979", "https://chat.example.com:443", NOT_ALLOWED),
        ("chat.example.com", "null", NOT_ALLOWED),
        ("chat.example.com", "https://evil.com@chat.example.com", INVALID),
    ];
    for (host, origin, expected) in cases {
        let raw = handshake().with("Host", host).with("Origin", origin);
        let layer = OriginCheckLayer::new(AllowOrigin::same_origin());
        assert_eq!(code(layer, &raw).await, expected, "{host} {origin}");
    }
    // Forwarded headers are never read.
    for (name, value) in
        [("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example;proto=https")]
    {
        let raw = handshake().with("Origin", "https://evil.example").and(name, value);
        assert_eq!(
            code(OriginCheckLayer::new(AllowOrigin::same_origin()), &raw).await,
            NOT_ALLOWED
        );
    }
}

#[tokio::test]
async fn public_origin_replaces_host() {
    let origins = AllowOrigin::public_origin("https://chat.example.com").unwrap();
    for (host, origin, expected) in [
        ("10.0.0.7:8080", "https://chat.example.com", "ok"),
        ("10.0.0.7:8080", "https://chat.example.com:443", "ok"),
        ("10.0.0.7:8080", "http://10.0.0.7:8080", NOT_ALLOWED),
        ("chat.example.com", "http://chat.example.com", NOT_ALLOWED),
    ] {
        let raw = handshake().with("Host", host).with("Origin", origin);
        assert_eq!(
            code(OriginCheckLayer::new(origins.clone()), &raw).await,
            expected,
            "{host} {origin}"
        );
    }
}

#[tokio::test]
async fn missing_null_and_any_origin_need_an_explicit_permission() {
    let missing = handshake().without("Origin");
    let null = handshake().with("Origin", "null");
    let foreign = handshake().with("Origin", "https://evil.example");
    let malformed = handshake().with("Origin", "https://evil.example/");
    let repeated = handshake().and("Origin", common::ORIGIN);
    let empty = handshake().with("Origin", "");
    let nothing = || AllowOrigin::list([""; 0]).unwrap();
    let cases: [(AllowOrigin, [&str; 6]); 7] = [
        (
            nothing(),
            [
                "origin-missing",
                NOT_ALLOWED,
                NOT_ALLOWED,
                INVALID,
                "origin-repeated",
                "origin-missing",
            ],
        ),
        (
            AllowOrigin::default(),
            [
                "origin-missing",
                NOT_ALLOWED,
                NOT_ALLOWED,
                INVALID,
                "origin-repeated",
                "origin-missing",
            ],
        ),
        (
            nothing().allow_missing(),
            ["ok", NOT_ALLOWED, NOT_ALLOWED, INVALID, "origin-repeated", "ok"],
        ),
        (
            nothing().allow_null(),
            ["origin-missing", "ok", NOT_ALLOWED, INVALID, "origin-repeated", "origin-missing"],
        ),
        (AllowOrigin::dangerous_any(), ["ok", "ok", "ok", INVALID, "origin-repeated", "ok"]),
        (
            nothing().or(nothing().allow_missing()),
            ["ok", NOT_ALLOWED, NOT_ALLOWED, INVALID, "origin-repeated", "ok"],
        ),
        (
            nothing().or(AllowOrigin::dangerous_any()),
            ["ok", "ok", "ok", INVALID, "origin-repeated", "ok"],
        ),
    ];
    for (origins, expected) in cases {
        for (raw, expected) in
            [&missing, &null, &foreign, &malformed, &repeated, &empty].into_iter().zip(expected)
        {
            assert_eq!(
                code(OriginCheckLayer::new(origins.clone()), raw).await,
                expected,
                "{origins:?} {raw:?}"
            );
        }
    }
}

#[tokio::test]
async fn policies_are_joined_by_or() {
    let origins = AllowOrigin::list(["https://z.example", "https://a.example"])
        .unwrap()
        .or(AllowOrigin::same_origin())
        .or(AllowOrigin::list(["https://m.example"]).unwrap().allow_null())
        .or(AllowOrigin::predicate(|origin, handshake| {
            origin.host() == "tenant.example" && handshake.uri().path() == "/ws"
        }));
    assert_codes(
        origins,
        &[
            (b"https://a.example", "ok"),
            (b"https://m.example", "ok"),
            (b"https://z.example", "ok"),
            (b"https://chat.example.com", "ok"),
            (b"https://tenant.example", "ok"),
            (b"null", "ok"),
            (b"https://n.example", NOT_ALLOWED),
        ],
    )
    .await;
}

#[tokio::test]
async fn fetch_metadata_can_only_reject() {
    let own = AllowOrigin::same_origin;
    let cases = [
        (own(), Some(common::ORIGIN), "cross-site", NOT_ALLOWED),
        (own(), Some(common::ORIGIN), "same-origin", "ok"),
        (own(), Some(common::ORIGIN), "same-site", "ok"),
        (own(), Some(common::ORIGIN), "none", "ok"),
        (own(), Some("https://evil.example"), "same-origin", NOT_ALLOWED),
        (
            AllowOrigin::public_origin(common::ORIGIN).unwrap(),
            Some(common::ORIGIN),
            "cross-site",
            NOT_ALLOWED,
        ),
        (own().allow_missing(), None, "cross-site", NOT_ALLOWED),
        (own().allow_missing(), None, "none", "ok"),
        (AllowOrigin::list([common::ORIGIN]).unwrap(), Some(common::ORIGIN), "cross-site", "ok"),
        (AllowOrigin::predicate(|_, _| true), Some(common::ORIGIN), "cross-site", "ok"),
        (own().allow_null(), Some("null"), "cross-site", "ok"),
        (AllowOrigin::dangerous_any(), Some("https://evil.example"), "cross-site", "ok"),
    ];
    for (origins, origin, site, expected) in cases {
        let mut raw = handshake().without("Origin").and("Sec-Fetch-Site", site);
        if let Some(origin) = origin {
            raw = raw.and("Origin", origin);
        }
        assert_eq!(
            code(OriginCheckLayer::new(origins.clone()), &raw).await,
            expected,
            "{origins:?} {raw:?}"
        );
    }
    let hidden =
        handshake().and("Sec-Fetch-Site", "same-origin").and("Sec-Fetch-Site", "cross-site");
    assert_eq!(code(OriginCheckLayer::new(own()), &hidden).await, NOT_ALLOWED);
}

#[tokio::test]
async fn list_of_ten_thousand_origins_is_searched() {
    let origins = (0..10_000).map(|i| match i % 3 {
        0 => format!("https://app{i}.example.com"),
        1 => format!("https://*.sub{i}.example.com"),
        _ => format!("http://host{i}.example.com:*"),
    });
    let origins = AllowOrigin::list(origins).unwrap();
    for i in (0..10_000).step_by(7) {
        let (good, bad) = match i % 3 {
            0 => (format!("https://app{i}.example.com"), format!("https://x.app{i}.example.com")),
            1 => (format!("https://x.sub{i}.example.com"), format!("https://sub{i}.example.com")),
            _ => (
                format!("http://host{i}.example.com:{}", i + 1),
                format!("https://host{i}.example.com"),
            ),
        };
        assert_codes(origins.clone(), &[(good.as_bytes(), "ok"), (bad.as_bytes(), NOT_ALLOWED)])
            .await;
    }
}

#[test]
fn debug_output_shows_the_policy() {
    let origins = AllowOrigin::list(["https://app.example.com"])
        .unwrap()
        .or(AllowOrigin::predicate(|_, _| true));
    let shown = format!("{:?}", origins.allow_null());
    for part in ["app.example.com", "predicates: 1", "same_origin: false", "null: true"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

/// To copy or sort all patterns at each step would take minutes.
#[test]
fn many_policies_are_joined_one_by_one() {
    let one = |i| {
        let patterns = [format!("https://a{i}.example"), format!("https://*.b{i}.example:*")];
        AllowOrigin::list(patterns).unwrap()
    };
    let mut first = AllowOrigin::default();
    let mut last = AllowOrigin::default();
    for i in 0..20_000 {
        first = first.or(one(i));
        last = one(i).or(last);
    }
    for policy in [first, last] {
        for (origin, expected) in [
            ("https://a0.example", true),
            ("https://a19999.example", true),
            ("https://x.y.b0.example", true),
            ("https://x.b19999.example:8443", true),
            ("https://a20000.example", false),
            ("https://a0.example:8443", false),
            ("https://b0.example", false),
        ] {
            assert_eq!(policy.allows(&origin.parse().unwrap()), expected, "{origin}");
        }
    }
}

/// Clones share their patterns until one of them is joined with another policy.
#[test]
fn clone_of_a_policy_keeps_its_patterns() {
    let list = |origin| AllowOrigin::list([origin]).unwrap();
    let policy = list("https://a.example");
    let joined = policy.clone().or(list("https://b.example"));
    let other = list("https://c.example").or(joined.clone());
    for (policy, expected) in
        [(policy, [true, false, false]), (joined, [true, true, false]), (other, [true; 3])]
    {
        let allows = ["https://a.example", "https://b.example", "https://c.example"]
            .map(|origin| policy.allows(&origin.parse().unwrap()));
        assert_eq!(allows, expected, "{policy:?}");
    }
}

#[test]
fn origin_that_never_matches_is_a_config_error() {
    for (value, hint) in [
        ("https://app.example.com/", "trailing slash"),
        ("https://app.example.com/path", "no path"),
        ("https://app.example.com?q", "no query"),
        ("https://user@app.example.com", "user name"),
        ("https://b\u{fc}cher.example", "punycode"),
        ("app.example.com", "https://"),
        ("app.example.com:8443", "https://"),
        ("*", "dangerous_any"),
        ("https://*", "moz-extension://*"),
        ("http://*", "dangerous_any"),
        ("wss://*", "schemes with random hosts"),
        ("ftp://*", "schemes with random hosts"),
        ("file://*", "schemes with random hosts"),
        ("moz-extension://*:*", "the whole host"),
        ("moz-extension://a*", "the whole host"),
        ("moz-extension://*.", "name"),
        ("qrc:*", "scheme"),
        ("app://a/b", "no path"),
        ("file://a:80", "the port"),
        ("*.example.com", "https://"),
        ("https://a.*.example.com", "https://*.example.com"),
        ("https://*a.example.com", "https://*.example.com"),
        ("https://*.*.example.com", "https://*.example.com"),
        ("https://a:*:*", "*"),
        ("https://a:80:*", "the port"),
        ("https://*.127.0.0.1", "name"),
        ("https://*.[::1]", "name"),
        ("null", "allow_null"),
        ("https://127.1", "the host or the port"),
        ("https://127.0.0.1.", "the host or the port"),
        ("file://*.", "name"),
        ("https://a:0", "port"),
        ("https://a:65536", "port"),
        ("https://a..", "browsers"),
        ("https://", "the host is missing"),
        ("NULL", "the scheme is missing"),
        ("", "https://"),
    ] {
        let error = AllowOrigin::list(["https://fine.example", value]).unwrap_err().to_string();
        assert!(error.contains(value) && error.contains(hint), "{value}: {error}");
    }
    let wildcard: ConfigError = AllowOrigin::public_origin("https://*.example.com").unwrap_err();
    assert!(wildcard.to_string().contains("wildcard"));
}

/// What clients that are not browsers send: each means an origin that is allowed.
#[tokio::test]
async fn clients_write_an_origin_in_other_ways() {
    let list = |origin: &str| AllowOrigin::list([origin]).unwrap();
    let public = |origin: &str| AllowOrigin::public_origin(origin).unwrap();
    let own = AllowOrigin::same_origin;
    for (client, policy, host, origin) in [
        ("Chromium", own(), "localhost.:3000", "http://localhost.:3000"),
        ("Chromium", list("http://localhost.:3000"), "a", "http://localhost.:3000"),
        ("Qt WebEngine", list("qrc:"), "a", "qrc:"),
        ("Qt WebEngine", list("qrc://"), "a", "qrc:"),
        ("Electron", list("app://."), "a", "app://."),
        ("Electron", list("file://"), "a", "file://"),
        ("Capacitor", list("capacitor://localhost"), "a", "capacitor://localhost"),
        ("Tauri", list("http://tauri.localhost"), "a", "http://tauri.localhost"),
        ("Starscream", own(), "chat.example.com:443", "wss://chat.example.com"),
        ("Starscream", list("https://chat.example.com"), "a", "wss://chat.example.com"),
        ("Starscream", public("https://chat.example.com"), "a", "wss://chat.example.com"),
        ("Starscream", list("wss://chat.example.com"), "a", "https://chat.example.com"),
        ("ws4py", own(), "localhost:3000", "ws://localhost:3000"),
        ("ws4py", list("http://localhost:3000"), "a", "ws://localhost:3000"),
        ("paho-mqtt", own(), "mypi.local:3000", "http://MyPi.local:3000"),
        ("paho-mqtt", own(), "MyPi.local:3000", "http://MyPi.local:3000"),
        ("paho-mqtt", list("http://mypi.local:3000"), "a", "http://MyPi.local:3000"),
        ("paho-mqtt", list("http://*.local:*"), "a", "HTTP://MyPi.local:3000"),
        ("websocket-client", own(), "[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000"),
        ("websocket-client", own(), "[0:0::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000"),
        ("websocket-client", list("http://[0:0::1]:3000"), "a", "http://[::1]:3000"),
        ("AsyncHttpClient", list("http://a.example:443"), "a", "http://a.example:443"),
        ("Firefox add-on", list("moz-extension://*"), "a", "moz-extension://4c4f-a1"),
        ("VS Code", list("vscode-webview://*"), "a", "vscode-webview://1a2b3c"),
        ("Chrome extension", list("chrome-extension://abc"), "a", "chrome-extension://abc"),
    ] {
        let raw = handshake().with("Host", host).with("Origin", origin);
        let layer = OriginCheckLayer::new(policy);
        assert_eq!(code(layer, &raw).await, "ok", "{client} {host} {origin}");
    }
    // And what is close to these, but another origin.
    for (policy, host, origin) in [
        (own(), "localhost:3000", "http://localhost.:3000"),
        (own(), "localhost.:3000", "http://localhost:3000"),
        (list("http://localhost:3000"), "a", "http://localhost.:3000"),
        (list("https://chat.example.com"), "a", "ws://chat.example.com"),
        (public("https://chat.example.com"), "a", "ws://chat.example.com"),
        (own(), "chat.example.com:443", "ws://chat.example.com"),
        (list("qrc:"), "a", "file://"),
        (list("app://."), "a", "app://a"),
        (list("app://."), "a", "app:"),
        (own(), "a", "app://a"),
        (list("app://*.b"), "a", "app://.b"),
        (list("app://*.b"), "a", "app://a..b"),
        (list("moz-extension://*"), "a", "moz-extension://a:80"),
        (list("moz-extension://*"), "a", "chrome-extension://a"),
        (list("moz-extension://*"), "a", "moz-extension:"),
        (list("moz-extension://*"), "a", "https://moz-extension"),
        (list("http://[::1]"), "a", "http://[::2]"),
        (list("http://[::ffff:127.0.0.1]"), "a", "http://127.0.0.1"),
    ] {
        let raw = handshake().with("Host", host).with("Origin", origin);
        let layer = OriginCheckLayer::new(policy);
        assert_eq!(code(layer, &raw).await, NOT_ALLOWED, "{host} {origin}");
    }
    for (host, origin) in [
        ("chat.example.com", "wss:"),
        ("chat.example.com", "https:"),
        ("chat.example.com", "wss:chat.example.com"),
        ("chat.example.com", "wss://chat.example.com/"),
        ("chat.example.com", "wss://chat.example.com:65536"),
        ("a..", "http://a.."),
        ("a", "app://a@b"),
        ("a", "qrc:/"),
    ] {
        let raw = handshake().with("Host", host).with("Origin", origin);
        let layer = OriginCheckLayer::new(AllowOrigin::same_origin());
        assert_eq!(code(layer, &raw).await, INVALID, "{host} {origin}");
    }
}

#[tokio::test]
async fn no_browsers_rejects_whoever_sends_an_origin() {
    assert_codes(
        AllowOrigin::no_browsers(),
        &[
            (b"", "ok"),
            (b"\t", "ok"),
            (b"null", NOT_ALLOWED),
            (b"https://chat.example.com", NOT_ALLOWED),
            (b"app://.", NOT_ALLOWED),
            (b"https://a/", INVALID),
        ],
    )
    .await;
    for (raw, expected) in [
        (handshake().without("Origin"), "ok"),
        (handshake().without("Origin").and("Sec-Fetch-Site", "cross-site"), NOT_ALLOWED),
        (handshake().with("Origin", "").and("Origin", ""), "origin-repeated"),
    ] {
        let layer = OriginCheckLayer::new(AllowOrigin::no_browsers());
        assert_eq!(code(layer, &raw).await, expected, "{raw:?}");
    }
}

#[test]
fn origin_is_a_value() {
    use std::collections::HashSet;

    for (normal, port, spellings) in [
        (
            "https://app.example.com",
            Some(443),
            &["https://app.example.com:443", "HTTPS://App.Example.COM", "wss://app.example.com"][..],
        ),
        ("http://a:443", Some(443), &["ws://A:443"]),
        ("http://a", Some(80), &["ws://a", "ws://a:80", "http://a:80"]),
        ("http://a.", Some(80), &["http://A."]),
        ("http://[::1]:3000", Some(3000), &["http://[0:0::1]:3000", "ws://[::0001]:3000"]),
        ("http://[::ffff:7f00:1]", Some(80), &["http://[::FFFF:127.0.0.1]"]),
        ("ftp://a", Some(21), &["ftp://a:21"]),
        ("qrc://", None, &["qrc:", "QRC:"]),
        ("app://.", None, &["APP://."]),
        ("app://a:80", Some(80), &["app://A:80"]),
    ] {
        let origin: Origin<'static> = normal.parse().unwrap();
        assert_eq!((origin.to_string(), origin.effective_port()), (normal.to_owned(), port));
        for spelling in spellings {
            let same: Origin<'static> = spelling.parse().unwrap();
            assert_eq!(same, origin, "{spelling}");
            assert!(HashSet::from([same.clone()]).contains(&origin), "{spelling}");
            assert_eq!(same.to_string(), normal);
            assert_eq!(Origin::parse(spelling.as_bytes()).unwrap().into_owned(), same);
            let json = serde_json::to_string(&same).unwrap();
            assert_eq!(json, format!("{normal:?}"));
            for json in [json, format!("{spelling:?}")] {
                assert_eq!(serde_json::from_str::<Origin<'static>>(&json).unwrap(), origin);
            }
        }
    }
    let distinct = ["http://a", "https://a", "http://a.", "http://a:81", "http://b", "app://a"];
    let origins = distinct.map(|origin| origin.parse::<Origin<'static>>().unwrap());
    assert_eq!(origins.into_iter().collect::<HashSet<_>>().len(), distinct.len());

    for invalid in ["", "null", "a", "https://a/", "https:", "https://a b"] {
        let error = invalid.parse::<Origin<'static>>().unwrap_err().to_string();
        let json = serde_json::from_str::<Origin<'static>>(&format!("{invalid:?}")).unwrap_err();
        assert!(json.to_string().contains(&format!("`{invalid}`: {error}")), "{json}");
    }
    assert!(serde_json::from_str::<Origin<'static>>("5").is_err());
}

/// The log shows what to add to a list.
#[tokio::test]
async fn rejected_origin_can_be_copied_into_a_list() {
    for origin in
        ["http://a.example:443", "app://.", "qrc:", "https://App.example", "moz-extension://x"]
    {
        let raw = handshake().with("Origin", origin);
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let layer = OriginCheckLayer::new(AllowOrigin::default());
        let app = ServiceBuilder::new().layer(layer).service(inner);
        let response = app.oneshot(raw.request()).await.unwrap();
        let rejection = response.extensions().get::<Rejection>().unwrap().to_string();
        assert!(rejection.contains(&format!("`{origin}`")), "{rejection}");
        let listed = AllowOrigin::list([origin]).unwrap();
        assert_eq!(code(OriginCheckLayer::new(listed), &raw).await, "ok");
    }
}
