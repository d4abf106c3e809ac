//! `Settings`: policies from configuration files and the environment.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use serde::{
    Deserialize,
    de::value::{Error, MapDeserializer},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, Host, Permit, Rejection, Settings, StaticTokens, Token,
    TokenPolicy, TokenSource, Verified,
};

use crate::common::{HOST, ORIGIN, Raw, handshake};

const TOKEN: &str = "s3cr3t-alpha-01";

fn settings(value: &Value) -> Settings {
    // From text, as from a file.
    serde_json::from_str(&value.to_string()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn error(value: &Value) -> String {
    serde_json::from_str::<Settings>(&value.to_string()).unwrap_err().to_string()
}

/// From variables of the environment, which are texts.
fn from_texts(variables: &[(&str, &str)]) -> Result<Settings, Error> {
    Settings::deserialize(MapDeserializer::new(variables.iter().copied()))
}

fn tokens() -> StaticTokens<&'static str> {
    StaticTokens::new([(TOKEN, "alice")]).unwrap()
}

/// The code of the rejection; or the user and the subprotocol that the inner service sees.
async fn outcome(settings: &Settings, with_token: bool, raw: &Raw) -> String {
    let guard =
        if with_token { settings.guard_with_token(tokens()) } else { settings.guard() }.unwrap();
    let inner = service_fn(async |mut request: Request<()>| {
        let permit = Permit::claim(request.extensions_mut());
        let user = request.extensions().get::<Claims<&str>>().map_or("-", |Claims(user)| user);
        let chosen = request.headers().get("sec-websocket-protocol");
        let seen = format!("{user} {}", chosen.map_or("-", |chosen| chosen.to_str().unwrap()));
        Ok::<_, Infallible>(Response::builder().status(101).extension(permit).body(seen).unwrap())
    });
    let response = guard.layer(inner).oneshot(raw.request()).await.unwrap();
    match response.extensions().get::<Rejection>() {
        Some(rejection) => rejection.kind().code().to_owned(),
        None => response.into_body(),
    }
}

#[tokio::test]
async fn key_sets_a_policy() {
    let from = |origin: &str| handshake().with("Origin", origin);
    let to = |host: &str| handshake().with("Host", host);
    let offer = |offer: &str| handshake().and("Sec-WebSocket-Protocol", offer);
    let missing = || handshake().without("Origin");
    let bearer = |token: &str| handshake().and("Authorization", format!("Bearer {token}"));
    let listed = json!({"origins": [ORIGIN]});
    let with = |key: &str, value: Value| {
        let mut settings = listed.clone();
        settings[key] = value;
        settings
    };
    let long = "a".repeat(8193);
    let both = || bearer("guess").and("Cookie", format!("c={TOKEN}"));
    let sources = |more: Value| {
        let mut settings = with("token_sources", json!(["cookie:c", "authorization"]));
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    for (value, with_token, raw, expected) in [
        (listed.clone(), false, handshake(), "- -"),
        (listed.clone(), false, from("https://evil.example"), "origin-not-allowed"),
        (listed.clone(), false, missing(), "origin-missing"),
        (
            json!({"origins": "https://a.example, https://*.b.example"}),
            false,
            from("https://x.b.example"),
            "- -",
        ),
        (
            json!({"origins": "https://a.example, https://*.b.example"}),
            false,
            from("https://b.example"),
            "origin-not-allowed",
        ),
        (json!({"same_origin": true}), false, handshake(), "- -"),
        (json!({"same_origin": true}), false, from("https://evil.example"), "origin-not-allowed"),
        (
            json!({"same_origin": true, "origins": ["https://b.example"]}),
            false,
            from("https://b.example"),
            "- -",
        ),
        (
            json!({"public_origin": "https://public.example"}),
            false,
            from("https://public.example"),
            "- -",
        ),
        (
            json!({"public_origin": "https://public.example"}),
            false,
            handshake(),
            "origin-not-allowed",
        ),
        (with("allow_missing_origin", json!(true)), false, missing(), "- -"),
        (with("allow_missing_origin", json!(false)), false, missing(), "origin-missing"),
        (json!({"allow_missing_origin": true}), false, missing(), "- -"),
        (with("allow_null_origin", json!(true)), false, from("null"), "- -"),
        (listed.clone(), false, from("null"), "origin-not-allowed"),
        (json!({"no_browsers": true}), false, missing(), "- -"),
        (json!({"no_browsers": true}), false, handshake(), "origin-not-allowed"),
        (with("no_browsers", json!(false)), false, handshake(), "- -"),
        (json!({"dangerous_any_origin": true}), false, from("https://evil.example"), "- -"),
        (with("hosts", json!([HOST])), false, handshake(), "- -"),
        (with("hosts", json!([HOST])), false, to("b.example"), "host-not-allowed"),
        (listed.clone(), false, to("b.example"), "- -"),
        (with("loopback_hosts", json!(true)), false, handshake(), "host-not-allowed"),
        (with("loopback_hosts", json!(true)), false, to("127.0.0.1:3000"), "- -"),
        (with("loopback_hosts", json!(false)), false, handshake(), "- -"),
        (
            json!({"origins": [ORIGIN], "loopback_hosts": true, "hosts": HOST}),
            false,
            handshake(),
            "- -",
        ),
        (
            with("subprotocols", json!(["v2.chat", "v1.chat"])),
            false,
            offer("v1.chat, v2.chat"),
            "- v2.chat",
        ),
        (
            with("subprotocols", json!("v1.chat,v2.chat")),
            false,
            offer("v2.chat, v1.chat"),
            "- v1.chat",
        ),
        (with("subprotocols", json!(["v2.chat"])), false, offer("x"), "subprotocol-unsupported"),
        (
            json!({"origins": [ORIGIN], "subprotocols": ["chat"], "accept_unmatched_subprotocols": true}),
            false,
            offer("x"),
            "- -",
        ),
        (listed.clone(), true, bearer(TOKEN), "alice -"),
        (listed.clone(), true, handshake().and("Cookie", format!("c={TOKEN}")), "token-missing"),
        (
            with("token_sources", json!(["cookie:c"])),
            true,
            handshake().and("Cookie", format!("c={TOKEN}")),
            "alice -",
        ),
        (
            with("token_sources", json!("cookie:c, header:X-API-Key")),
            true,
            handshake().and("X-Api-Key", TOKEN),
            "alice -",
        ),
        (sources(json!({})), true, both(), "token-ambiguous"),
        (sources(json!({"first_token_source_wins": true})), true, both(), "alice -"),
        (sources(json!({"first_token_source_wins": false})), true, both(), "token-ambiguous"),
        (listed.clone(), true, bearer(&long), "token-invalid"),
        (with("max_token_length", json!(15)), true, bearer(TOKEN), "alice -"),
        (with("max_token_length", json!(14)), true, bearer(TOKEN), "token-invalid"),
    ] {
        assert_eq!(outcome(&settings(&value), with_token, &raw).await, expected, "{value} {raw:?}");
    }
}

#[tokio::test]
async fn max_connections_limits_the_guard() {
    let settings = settings(&json!({"same_origin": true, "max_connections": 1}));
    let inner = service_fn(async |mut request: Request<()>| {
        let permit = Permit::claim(request.extensions_mut());
        Ok::<_, Infallible>(Response::builder().status(101).extension(permit).body(()).unwrap())
    });
    let app = settings.guard().unwrap().layer(inner);
    let open = app.clone().oneshot(handshake().request()).await.unwrap();
    assert_eq!(open.status(), 101);
    assert_eq!(app.clone().oneshot(handshake().request()).await.unwrap().status(), 503);
    drop(open);
    assert_eq!(app.oneshot(handshake().request()).await.unwrap().status(), 101);
}

#[tokio::test(start_paused = true)]
async fn check_timeout_is_in_milliseconds() {
    for (value, timeout) in [
        (json!({"same_origin": true}), 10_000),
        (json!({"same_origin": true, "check_timeout_ms": 250}), 250),
        (json!({"same_origin": true, "check_timeout_ms": "250"}), 250),
    ] {
        for (takes, expected) in [(timeout - 10, 200), (timeout + 10, 503)] {
            let verify = move |_: Token| async move {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                Ok(Verified::new(()))
            };
            let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
            let guard =
                settings(&value).guard().unwrap().token(TokenPolicy::bearer(verify)).unwrap();
            let raw = handshake().and("Authorization", "Bearer x");
            let response = guard.layer(inner).oneshot(raw.request()).await.unwrap();
            assert_eq!(response.status(), expected, "{value} {takes}");
        }
    }
}

#[tokio::test]
async fn text_stands_for_any_value() {
    let settings = from_texts(&[
        ("origins", "https://a.example , https://b.example,"),
        ("same_origin", "true"),
        ("allow_null_origin", "false"),
        ("hosts", HOST),
        ("loopback_hosts", "true"),
        ("subprotocols", "v2.chat, v1.chat"),
        ("token_sources", "authorization, cookie:c"),
        ("first_token_source_wins", "true"),
        ("max_token_length", "100"),
        ("max_connections", "10"),
        ("check_timeout_ms", "3000"),
    ])
    .unwrap();
    let raw = handshake()
        .and("Sec-WebSocket-Protocol", "v1.chat, v2.chat")
        .and("Authorization", format!("Bearer {TOKEN}"))
        .and("Cookie", "c=other");
    for (raw, expected) in [
        (raw.clone(), "alice v2.chat"),
        (raw.clone().with("Origin", "https://b.example"), "alice v2.chat"),
        (raw.clone().with("Origin", "null"), "origin-not-allowed"),
        (
            raw.clone().with("Host", "localhost:3000").with("Origin", "http://localhost:3000"),
            "alice v2.chat",
        ),
        (raw.with("Host", "b.example"), "host-not-allowed"),
    ] {
        assert_eq!(outcome(&settings, true, &raw).await, expected, "{raw:?}");
    }
    for (key, text) in [
        ("same_origin", "yes"),
        ("same_origin", "1"),
        ("same_origin", ""),
        ("same_origin", "True"),
        ("max_connections", "many"),
        ("max_connections", "-1"),
        ("max_connections", "1.5"),
        ("max_connections", ""),
        ("check_timeout_ms", "0"),
        ("max_token_length", "4294967296"),
    ] {
        let error = from_texts(&[("dangerous_any_origin", "true"), (key, text)]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(key) && error.contains(&format!("`{text}`")),
            "{key} {text}: {error}"
        );
    }
}

#[test]
fn error_names_the_key_and_the_value() {
    let listed = |key: &str, value: Value| {
        let mut settings = json!({"dangerous_any_origin": true});
        settings[key] = value;
        settings
    };
    for (value, parts) in [
        (json!({}), &["origins", "nobody could connect"][..]),
        (json!({"origins": []}), &["origins", "nobody could connect"]),
        (json!({"origins": ""}), &["origins", "nobody could connect"]),
        (json!({"same_origin": false}), &["origins", "nobody could connect"]),
        (json!({"hosts": ["a.example"]}), &["origins", "nobody could connect"]),
        (
            json!({"origins": ["https://a.example", "https://b.example/"]}),
            &["origins: ", "`https://b.example/`", "slash"],
        ),
        (json!({"origins": "*"}), &["origins: ", "`*`", "dangerous_any"]),
        (json!({"origins": 5}), &["origins: ", "`5`", "list"]),
        (json!({"origins": {"a": 1}}), &["origins: ", "list"]),
        (json!({"origins": ["https://a.example", 5]}), &["origins: ", "list"]),
        (
            json!({"public_origin": "https://*.example.com"}),
            &["public_origin: ", "`https://*.example.com`", "wildcard"],
        ),
        (
            json!({"public_origin": ["https://a.example"]}),
            &["public_origin: ", "https://a.example", "text"],
        ),
        (json!({"same_origin": "maybe"}), &["same_origin: ", "`maybe`", "`true` or `false`"]),
        (json!({"same_origin": 1}), &["same_origin: ", "`1`", "`true` or `false`"]),
        (json!({"no_browsers": true, "origins": [ORIGIN]}), &["no_browsers: ", "origins"]),
        (
            json!({"no_browsers": true, "allow_missing_origin": true}),
            &["no_browsers: ", "allow_missing_origin"],
        ),
        (json!({"no_browsers": true, "same_origin": "true"}), &["no_browsers: ", "same_origin"]),
        (json!({"no_browsers": "no", "origins": [ORIGIN]}), &["no_browsers: ", "`no`"]),
        (
            listed("hosts", json!(["http://a.example"])),
            &["hosts: ", "`http://a.example`", "scheme"],
        ),
        (listed("hosts", json!([])), &["hosts: ", "empty list"]),
        (listed("hosts", json!("")), &["hosts: ", "empty list"]),
        (listed("hosts", json!(true)), &["hosts: ", "`true`", "list"]),
        (listed("subprotocols", json!(["a b"])), &["subprotocols: ", "`a b`"]),
        (listed("subprotocols", json!(["a", "a"])), &["subprotocols: ", "`a`", "twice"]),
        (
            listed("token_sources", json!(["cooky:a"])),
            &["token_sources: ", "`cooky:a`", "cookie:NAME"],
        ),
        (listed("token_sources", json!(["cookie:a b"])), &["token_sources: ", "`a b`"]),
        (listed("max_token_length", json!(0)), &["max_token_length: ", "`0`", "at least 1"]),
        (listed("max_connections", json!(0)), &["max_connections: ", "`0`", "at least 1"]),
        (listed("max_connections", json!(-1)), &["max_connections: ", "`-1`", "number"]),
        (
            listed("max_connections", json!(4_294_967_296_u64)),
            &["max_connections: ", "`4294967296`", "number"],
        ),
        (listed("max_connections", json!(1.5)), &["max_connections: ", "`1.5`", "whole number"]),
        (listed("max_connections", json!(u64::MAX)), &["max_connections: ", "number"]),
        (listed("max_connections", json!(null)), &["max_connections: ", "number"]),
        (listed("check_timeout_ms", json!(0)), &["check_timeout_ms: ", "`0`"]),
        (listed("check_timeout_ms", json!([1])), &["check_timeout_ms: ", "number"]),
        (listed("orgins", json!([])), &["orgins", "no such key"]),
    ] {
        let error = error(&value);
        for part in parts {
            assert!(error.contains(part), "{value}: {part}: {error}");
        }
    }
    let twice = r#"{"same_origin": true, "hosts": "a.example", "hosts": "b.example"}"#;
    let error = serde_json::from_str::<Settings>(twice).unwrap_err().to_string();
    assert!(error.starts_with("hosts: the key is there twice"), "{error}");
    assert!(from_texts(&[("no_browsers", "true"), ("same_origin", "false")]).is_ok());
    assert!(serde_json::from_str::<Settings>("[]").is_err());
    assert!(serde_json::from_str::<Settings>(r#""origins""#).is_err());
}

#[test]
fn settings_of_tokens_need_a_verifier() {
    for sources in [json!(["subprotocol:a.", "subprotocol:a.b."]), json!([])] {
        let error = error(&json!({"same_origin": true, "token_sources": sources}));
        assert!(error.starts_with("token_sources: "), "{error}");
    }
    for (key, value) in [
        ("token_sources", json!(["cookie:session"])),
        ("first_token_source_wins", json!(true)),
        ("max_token_length", json!(100)),
    ] {
        let settings = settings(&json!({"same_origin": true, key: value}));
        assert!(settings.guard().unwrap_err().to_string().contains("guard_with_token"), "{key}");
        assert!(settings.guard_with_token(tokens()).is_ok(), "{key}");
    }
}

#[test]
fn policies_are_values_of_other_configurations() {
    #[derive(Deserialize)]
    struct Mine {
        origins: AllowOrigin,
        hosts: AllowHost,
        source: TokenSource,
    }

    let mine = r#"{"origins": "https://a.example, https://b.example", "hosts": ["a.example"], "source": "basic"}"#;
    let mine = serde_json::from_str::<Mine>(mine).unwrap();
    assert!(mine.origins.allows(&"https://b.example".parse().unwrap()));
    assert!(!mine.hosts.allows(Host::parse(b"b.example").unwrap()));
    assert_eq!(mine.source, TokenSource::basic());
    for (wrong, part) in [
        (r#"{"origins": ["https://a.example/"]}"#, "https://a.example/"),
        (r#"{"origins": 1}"#, "`1`: use a list"),
    ] {
        let error = serde_json::from_str::<Mine>(wrong).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}
