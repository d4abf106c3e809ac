//! Each promise and exclusion in `SECURITY.md`, and each incident in `docs/threats.md`, names tests that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Request, middleware::map_request, routing::any};
use http::{HeaderMap, StatusCode, header::UPGRADE};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};
use tower::ServiceBuilder;
use tower_http::timeout::TimeoutLayer;
use tower_ws_guard::{
    AllowOrigin, Ended, GuardLayer, Rejection, RequestCheckLayer, ResponderLayer, Sessions,
    StaticTokens, Token, TokenPolicy, TokenSource, Verified, VersionCheckLayer,
    token::ticket::{TicketIssuer, TicketKey, TicketStore, TicketVerifier},
};

use crate::common::{ORIGIN, RawResponse, handshake, plain, send, serve_axum};

const SECURITY: &str = include_str!("../../SECURITY.md");
const THREATS: &str = include_str!("../../docs/threats.md");

/// The cells of all table rows, without the header rows.
fn rows(page: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.ends_with(" tests |") && !line.starts_with("| incident ")
    };
    page.lines().filter(is_row).map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
}

/// The text between backticks.
pub(crate) fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of a file, with their code.
fn tests(file: &str) -> BTreeMap<String, String> {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut tests = BTreeMap::new();
    let mut is_test = false;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some((name, _)) = name.and_then(|rest| rest.split_once('(')).filter(|_| is_test) {
            let code = lines
                .by_ref()
                .take_while(|line| *line != "}")
                .filter(|line| !line.trim().starts_with("//"));
            tests.insert(name.to_owned(), code.collect());
        }
        // Such as `ignore` with its reason.
        let goes_on = is_test && line.starts_with("#[");
        is_test = goes_on || line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    }
    tests
}

/// Lists of tests in a text.
pub(crate) fn in_brackets(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("(`").map(|(start, _)| &text[start..]);
    let of_tests =
        starts.filter(|list| list.starts_with("(`tests/") || list.starts_with("(`examples/"));
    of_tests.map(|list| list.split_once(')').expect("a closing bracket").0)
}

/// Asserts that a list of tests, each after its file, is not empty and that all exist.
pub(crate) fn assert_are_there(of: &str, list: &str) {
    let mut in_file = None;
    let mut held = 0;
    for name in code(list) {
        match name.contains('/') {
            true => in_file = Some(tests(name)),
            false => {
                assert!(
                    in_file.as_ref().expect("a file first").contains_key(name),
                    "{of}: no test `{name}`"
                );
                held += 1;
            }
        }
    }
    assert!(held > 0, "{of}");
}

#[test]
fn promises_have_existing_tests() {
    let mut promises = 0;
    for row in rows(SECURITY) {
        let [promise, .., held_by] = row[..] else { panic!("{row:?}") };
        promises += 1;
        assert_are_there(promise, held_by);
    }
    assert!(promises > 10, "{promises}");
}

#[test]
fn exclusions_have_existing_tests() {
    let (_, list) = SECURITY.split_once("## What is not promised").unwrap();
    let items = list.split("\n- ").skip(1).collect::<Vec<_>>();
    assert!(items.len() > 8, "{items:?}");
    for item in items {
        assert!(in_brackets(item).next().is_some(), "no test: {item}");
    }
    for tests in in_brackets(SECURITY).chain(in_brackets(THREATS)) {
        assert_are_there(tests, tests);
    }
}

#[test]
fn incidents_and_their_tests_match() {
    let tests = tests("tests/it/incidents.rs");
    let mut named = BTreeSet::new();
    for row in rows(THREATS) {
        let [incident, _, test] = row[..] else { panic!("{row:?}") };
        // Tests of other files may follow.
        let (test, others) = test.split_once("; ").unwrap_or((test, ""));
        if !others.is_empty() {
            assert_are_there(incident, others);
        }
        let name = code(test).next().unwrap_or_else(|| panic!("{incident}: {test}"));
        let code = tests.get(name).unwrap_or_else(|| panic!("{incident}: no test `{name}`"));
        // The name or the code of the test mentions each advisory.
        for advisory in incident
            .split([' ', ',', ';'])
            .filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-"))
        {
            let is_named = name.contains(&advisory.to_lowercase().replace('-', "_"))
                || code.contains(advisory);
            assert!(is_named, "{incident}: {advisory} is not in `{name}`");
        }
        named.insert(name);
    }
    assert_eq!(named, tests.keys().map(|name| &**name).collect());
}

// Exclusions that no other test shows

/// A layer outside of the guard does not close the connection of a handshake that it rejects; inside, the guard closes
/// it.
#[tokio::test]
async fn layer_outside_the_guard_leaves_the_connection_open() {
    let handler = async |request: Request| {
        if request.headers().contains_key(UPGRADE) {
            std::future::pending::<()>().await;
        }
        "internal"
    };
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let rejects =
        || TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(20));
    let app = || Router::new().fallback(handler);
    let raw = handshake().body("GET /internal HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (app, is_inside) in [
        (app().layer(rejects()).layer(guard()), true),
        (app().layer(guard()).layer(rejects()), false),
    ] {
        let mut response = send(serve_axum(app).await, &raw.bytes()).await;
        assert_eq!((response.status, response.has("connection", "close")), (408, is_inside));
        assert_eq!(response.read_to_end_or_reset().await.contains("internal"), !is_inside);
    }
}

/// A router rejects a handshake to a path without a route by itself. A `VersionCheckLayer` around the whole
/// application closes that connection, too.
#[tokio::test]
async fn upgrade_to_a_path_without_a_guard_leaves_the_connection_open() {
    let guard = || GuardLayer::new(AllowOrigin::same_origin());
    let responder = || ResponderLayer::on_upgraded(async |socket| drop(socket));
    let app = || {
        let socket = ServiceBuilder::new().layer(guard()).layer(responder());
        Router::new().route("/ws", any(()).layer(socket)).route("/internal", any("internal"))
    };
    let behind = "GET /internal HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (app, is_guarded) in [(app(), false), (app().layer(VersionCheckLayer::new()), true)] {
        let address = serve_axum(app).await;
        for (raw, rejected) in [
            (handshake().target("/nowhere"), 404),
            // This is a request of the attack on Apache. It is enough for such a proxy.
            (handshake().target("/nowhere").with("Sec-WebSocket-Version", "1777"), 400),
            // And this one is well-formed, to a route that has no socket.
            (handshake().target("/internal"), 200),
        ] {
            let mut response = send(address, &raw.clone().body(behind).bytes()).await;
            let status = if !is_guarded && rejected == 400 { 404 } else { rejected };
            assert_eq!(response.status, status, "{raw:?}");
            assert_eq!(response.has("connection", "close"), is_guarded, "{raw:?}");
            let rest = response.read_to_end_or_reset().await;
            assert_eq!(rest.contains("HTTP/1.1 200 OK"), !is_guarded, "{raw:?}: {rest}");
        }
        // Elsewhere nothing changes.
        let foreign = handshake().with("Origin", "https://evil.example");
        assert_eq!(send(address, &handshake().bytes()).await.status, 101);
        assert_eq!(send(address, &foreign.bytes()).await.status, 403);
        assert_eq!(send(address, &plain().target("/internal").bytes()).await.status, 200);
    }
}

/// The requests by which libraries replace a WebSocket, from a foreign page.
#[tokio::test]
async fn polling_is_not_an_upgrade_request() {
    let requests = [
        plain().target("/socket.io/?EIO=4&transport=polling"),
        plain().method("POST").target("/socket.io/?EIO=4&transport=polling&sid=a"),
        plain().method("POST").target("/sockjs/000/a/xhr_streaming"),
        plain().target("/events").and("Accept", "text/event-stream"),
    ];
    let app = || Router::new().fallback(any("the session"));
    let guarded = serve_axum(app().layer(GuardLayer::new(AllowOrigin::same_origin()))).await;
    let requests_too = RequestCheckLayer::origins(AllowOrigin::same_origin().allow_missing());
    let checked = serve_axum(app().layer(requests_too)).await;
    for raw in requests {
        let own = raw.clone().and("Origin", ORIGIN);
        let foreign = raw.and("Origin", "https://evil.example").and("Cookie", "session=alice");
        for (address, raw, status) in
            [(guarded, &foreign, 200), (checked, &foreign, 403), (checked, &own, 200)]
        {
            assert_eq!(send(address, &raw.bytes()).await.status, status, "{raw:?}");
        }
    }
}

#[tokio::test]
async fn cookie_with_a_token_stays_in_the_request() {
    let source = TokenSource::cookie("session").unwrap();
    let tokens = StaticTokens::new([("s3cr3t", ())]).unwrap();
    let policy = TokenPolicy::from_sources([source], tokens).unwrap();
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let shown = async |headers: HeaderMap| headers["cookie"].to_str().unwrap().to_owned();
    let address = serve_axum(Router::new().fallback(any(shown)).layer(guard)).await;
    let raw = handshake().and("Cookie", "theme=dark; session=s3cr3t");
    let mut response = send(address, &raw.bytes()).await;
    assert_eq!(response.read_to_end_or_reset().await, "theme=dark; session=s3cr3t");
}

#[tokio::test]
async fn time_for_a_request_head_is_not_bounded() {
    let policy = TokenPolicy::bearer(async |_: Token| Ok::<_, Rejection>(Verified::new(())));
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(policy)
        .unwrap()
        .check_timeout(Duration::from_millis(20));
    let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
    let app = Router::new().fallback(any(()).layer(responder)).layer(guard.unwrap());
    let mut stream = TcpStream::connect(serve_axum(app).await).await.unwrap();
    let bytes = handshake().and("Authorization", "Bearer x").bytes();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    stream.write_all(first).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    stream.write_all(second).await.unwrap();
    assert_eq!(RawResponse::read(stream).await.status, 101);
}

/// Returns to an older state on every request, like a database after a failure.
#[derive(Clone, Default)]
struct Older(Arc<Mutex<Option<Vec<u8>>>>);

impl TicketStore for Older {
    type Error = Infallible;

    async fn insert(&self, _: TicketKey, record: Vec<u8>, _: Duration) -> Result<(), Infallible> {
        *self.0.lock().unwrap() = Some(record);
        Ok(())
    }

    async fn consume(&self, _: TicketKey) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn count(
        &self,
        _: TicketKey,
        _: u32,
        _: Duration,
    ) -> Result<Option<Duration>, Infallible> {
        Ok(None)
    }
}

#[tokio::test]
async fn ticket_is_redeemed_again_if_its_store_is_rolled_back() {
    let store = Older::default();
    let ticket = TicketIssuer::new(store.clone()).issue(&()).await.unwrap();
    let source = TokenSource::query("ticket").unwrap();
    let policy = TokenPolicy::from_sources([source], TicketVerifier::<(), _>::new(store)).unwrap();
    let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let address = serve_axum(Router::new().fallback(any(()).layer(responder)).layer(guard)).await;
    for _ in 0..2 {
        let raw = handshake().target(&format!("/ws?ticket={}", ticket.expose()));
        assert_eq!(send(address, &raw.bytes()).await.status, 101);
    }
}

#[tokio::test]
async fn handshake_between_two_layers_misses_an_end() {
    let sessions = Sessions::per_claims(1, |user: &&'static str| *user).unwrap();
    let tokens = StaticTokens::new([("s3cr3t", "alice")]).unwrap();
    let between = {
        let sessions = sessions.clone();
        map_request(move |request: Request| {
            let sessions = sessions.clone();
            async move {
                // The logout.
                assert_eq!(sessions.end(&"alice", Ended::Revoked).await.unwrap(), 0);
                request
            }
        })
    };
    let inner = ResponderLayer::on_upgraded(async |socket| drop(socket)).sessions(&sessions);
    let app = Router::new().fallback(any(()).layer(inner)).layer(between);
    let guard = GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(tokens));
    let address = serve_axum(app.layer(guard.unwrap())).await;
    let raw = handshake().and("Authorization", "Bearer s3cr3t");
    assert_eq!(send(address, &raw.bytes()).await.status, 101);
}
