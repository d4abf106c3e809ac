//! WebTransport sessions: guarded as a WebSocket is, but for what is WebSocket's own.

use std::convert::Infallible;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, Claims, ConnectProtocol, ConnectionLimit, GuardLayer,
    Handshake, OriginCheckLayer, Permit, Rejection, ResponderLayer, StaticTokens, TokenCheckLayer,
    TokenPolicy, TokenSource, VersionCheckLayer, check_fn, is_upgrade_request,
    test_util::{assert_accepted_http2, assert_rejected},
};

const ORIGIN: &str = "https://app.example.com";

/// A session that [`guard`] accepts.
fn session(protocol: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_3)
        .uri("https://chat.example.com/wt")
        .header("origin", ORIGIN)
        .header("authorization", "Bearer s3cr3t")
        .body(())
        .unwrap();
    request.extensions_mut().insert(ConnectProtocol::new(protocol));
    request
}

fn with(name: &'static str, value: &'static str) -> Request<()> {
    let mut request = session("webtransport");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn without(name: &str) -> Request<()> {
    let mut request = session("webtransport");
    request.headers_mut().remove(name);
    request
}

fn to(uri: &'static str) -> Request<()> {
    let mut request = session("webtransport");
    *request.uri_mut() = uri.parse().unwrap();
    request
}

fn tokens() -> TokenPolicy<&'static str> {
    TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")]).unwrap())
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::list([ORIGIN]).unwrap())
        .allow_host(AllowHost::list(["chat.example.com"]).unwrap())
        .check(check_fn(|handshake: &mut Handshake<'_>| {
            assert!(handshake.is_webtransport());
            assert_eq!(handshake.key(), None);
            assert_eq!(handshake.subprotocols().count(), 0);
            match handshake.uri().path() {
                "/wt" => Ok(()),
                _ => Err(Rejection::custom("no-path", StatusCode::NOT_FOUND)),
            }
        }))
        .token(tokens())
        .unwrap()
}

/// Accepts, and responds with the headers that it sees.
async fn handler(mut request: Request<()>) -> Result<Response<HeaderMap>, Infallible> {
    // Held until the response is dropped.
    let permit = Permit::claim(request.extensions_mut());
    let mut response = Response::new(request.headers().clone());
    response.extensions_mut().insert(permit);
    response.extensions_mut().insert(request.extensions().get::<Claims<&str>>().cloned());
    Ok(response)
}

macro_rules! respond {
    ($layer:expr, $request:expr) => {
        $layer.layer(service_fn(handler)).oneshot($request).await.unwrap()
    };
}

#[tokio::test]
async fn a_session_is_guarded_by_everything_that_is_not_of_a_websocket() {
    for (request, expected) in [
        (session("webtransport"), None),
        (session("webtransport-h3"), None),
        // Not WebSocket's concern.
        (with("sec-websocket-version", "8"), None),
        (with("sec-websocket-key", "?"), None),
        (with("sec-websocket-protocol", "two words, a, a"), None),
        (with("sec-websocket-extensions", "a; b=\""), None),
        (with("upgrade", "websocket"), None),
        (session("WebTransport"), Some("upgrade-missing")),
        (session("webtransport-h2"), Some("upgrade-missing")),
        (with("host", "evil.example"), Some("host-invalid")),
        (with("content-length", "0"), Some("body-present")),
        (to("https://evil.example/wt"), Some("host-not-allowed")),
        (with("origin", "https://evil.example"), Some("origin-not-allowed")),
        (with("origin", "https://app.example.com/"), Some("origin-invalid")),
        (without("origin"), Some("origin-missing")),
        (to("https://chat.example.com/other"), Some("no-path")),
        (without("authorization"), Some("token-missing")),
        (with("authorization", "Bearer guess"), Some("token-invalid")),
    ] {
        let shown = format!("{request:?}");
        let response = respond!(guard(), request);
        match expected {
            Some(code) => assert_rejected(&response, code),
            None => {
                assert_accepted_http2(&response);
                assert_eq!(
                    response.body().len(),
                    1,
                    "only `Origin` is left: {response:?}, {shown}"
                );
                let claims = response.extensions().get::<Option<Claims<&str>>>().unwrap();
                assert_eq!(claims.as_ref().map(|Claims(user)| *user), Some("alice"));
            }
        }
    }
}

#[tokio::test]
async fn a_method_other_than_connect_opens_no_session() {
    let mut request = session("webtransport");
    *request.method_mut() = Method::GET;
    assert!(!is_upgrade_request(&request));
    // A handler may look at the headers alone.
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    assert_rejected(&respond!(guard(), request), "method-not-allowed");

    // An adapter has forgotten the version.
    for protocol in ["webtransport", "websocket"] {
        let mut request = session(protocol);
        *request.version_mut() = Version::HTTP_11;
        assert!(is_upgrade_request(&request));
        assert_rejected(&respond!(guard(), request), "method-not-allowed");
    }
    let mut request = session("connect-udp");
    *request.version_mut() = Version::HTTP_11;
    assert!(!is_upgrade_request(&request));
}

#[tokio::test]
async fn the_limit_holds_for_sessions() {
    let guard = guard().limit(ConnectionLimit::total(1).unwrap());
    let first = respond!(guard, session("webtransport"));
    assert_accepted_http2(&first);
    assert_rejected(&respond!(guard, session("webtransport-h3")), "over-capacity");
    drop(first);
    assert_accepted_http2(&respond!(guard, session("webtransport")));

    // A handler that takes no permit declines.
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let response = guard.layer(inner).oneshot(session("webtransport")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_separate_layers_guard_sessions() {
    let origins = || AllowOrigin::list([ORIGIN]).unwrap();
    let hostile = || with("origin", "https://evil.example");
    assert_accepted_http2(&respond!(VersionCheckLayer::new(), hostile()));
    assert_accepted_http2(&respond!(OriginCheckLayer::new(origins()), session("webtransport")));
    assert_rejected(&respond!(OriginCheckLayer::new(origins()), hostile()), "origin-not-allowed");
    let token_check = TokenCheckLayer::new(tokens());
    assert_accepted_http2(&respond!(token_check, session("webtransport")));
    assert_rejected(&respond!(token_check, without("authorization")), "token-missing");
}

#[tokio::test]
async fn a_layer_that_completes_websockets_completes_no_session() {
    let respond = guard().respond();
    assert_rejected(&respond!(respond, session("webtransport")), "upgrade-missing");
    let callback = guard().on_upgraded(async |_| unreachable!());
    assert_rejected(&respond!(callback, session("webtransport-h3")), "upgrade-missing");
    assert_rejected(&respond!(ResponderLayer::new(), session("webtransport")), "upgrade-missing");

    // Nor does it send the frames of a WebSocket to show a reason.
    let closes = guard().accept_then_close(AcceptThenClose::new());
    let (mut request, _client) =
        tower_ws_guard::test_util::upgradable(session("webtransport")).await;
    request.headers_mut().remove("authorization");
    let response = respond!(closes, request);
    assert_rejected(&response, "token-missing");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_in_a_subprotocol_is_none_for_a_session() {
    let source = TokenSource::subprotocol("token.").unwrap();
    let tokens = StaticTokens::new([("s3cr3t", "alice")]).unwrap();
    let policy = TokenPolicy::from_sources([source], tokens).unwrap();
    let guard = GuardLayer::new(AllowOrigin::list([ORIGIN]).unwrap()).token(policy).unwrap();
    let request = with("sec-websocket-protocol", "token.s3cr3t, chat");
    assert_rejected(&respond!(guard, request), "token-missing");
}

#[tokio::test]
async fn other_protocols_pass() {
    for protocol in ["connect-udp", "connect-ip", "connect-tcp", "web-transport", ""] {
        let mut request = session(protocol);
        request.headers_mut().remove("origin");
        assert_accepted_http2(&respond!(guard(), request));
        // Handlers exist that would take it for a WebSocket.
        let mut request = session(protocol);
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        assert_rejected(&respond!(guard(), request), "upgrade-missing");
    }
}
