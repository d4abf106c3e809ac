//! Extensions: what a layer agrees to, hands over, and lets a handler respond with.

use std::{convert::Infallible, ops::RangeInclusive};

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::mpsc;
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, ConnectionLimit, GuardLayer, OriginCheckLayer,
    PendingUpgrade, PermessageDeflate, Permit, Rejection, RejectionKind, ResponderLayer,
    StaticTokens, Subprotocols, TokenPolicy, VersionCheckLayer, response_fn,
    test_util::{assert_accepted, assert_accepted_http2, assert_rejected, upgradable},
};

use crate::common::{Raw, handshake};

const NAME: &str = "sec-websocket-extensions";

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn deflate() -> PermessageDeflate {
    PermessageDeflate::new()
}

/// What a codec on zlib can do.
fn zlib() -> PermessageDeflate {
    server(9..=15)
}

fn server(bits: RangeInclusive<u8>) -> PermessageDeflate {
    deflate().server_window_bits(bits).unwrap()
}

fn client(bits: u8) -> PermessageDeflate {
    zlib().client_max_window_bits(bits).unwrap()
}

fn offer(lines: &[&str]) -> Raw {
    lines.iter().fold(handshake(), |raw, line| raw.and(NAME, line))
}

/// The lines in a head, joined.
fn extensions(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(NAME).iter().map(|line| line.to_str().unwrap());
    Some(lines.collect::<Vec<_>>().join(" | ")).filter(|lines| !lines.is_empty())
}

/// Sends a handshake to a layer that completes it, and asserts that the handler is told what the
/// response names, and that the connection is handed over with it.
async fn complete(guard: GuardLayer, raw: &Raw, over_http2: bool) -> Response<()> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let service = guard.respond().layer(service_fn(move |request: Request<()>| {
        let pending = request.extensions().get::<PendingUpgrade>().unwrap();
        let (told, sender) = (pending.extensions(), sender.clone());
        let sees_offer = request.headers().contains_key(NAME);
        pending.on_upgrade(async move |socket| {
            sender.send((told, socket.extensions(), sees_offer)).unwrap();
        });
        std::future::ready(Ok::<_, Infallible>(Response::new(())))
    }));
    let request = if over_http2 { raw.extended_connect() } else { raw.request() };
    let (request, _client) = upgradable(request).await;
    let response = service.oneshot(request).await.unwrap();
    if response.extensions().get::<Rejection>().is_none() {
        let (told, handed_over, sees_offer) = receiver.recv().await.unwrap();
        assert_eq!(told, handed_over);
        let agreed = told.permessage_deflate().map(|agreed| agreed.to_string());
        assert_eq!(agreed, extensions(response.headers()));
        assert_eq!(agreed.is_some(), sees_offer);
    }
    response
}

/// RFC 7692 7.1: an offer, a policy, and what the response names.
#[tokio::test]
async fn the_best_offer_is_agreed_to() {
    const BROWSER: &str = "permessage-deflate; client_max_window_bits";
    const FIREFOX: &str = "permessage-deflate";
    let snct = || deflate().server_no_context_takeover();
    let cnct = || deflate().client_no_context_takeover();
    let cases: &[(PermessageDeflate, &[&str], &str)] = &[
        (deflate(), &[], ""),
        (deflate(), &[""], ""),
        (deflate(), &[BROWSER], "permessage-deflate"),
        (deflate(), &[FIREFOX], "permessage-deflate"),
        (deflate(), &[" permessage-deflate ;\tclient_max_window_bits "], "permessage-deflate"),
        // 7.1.1.1: `server_no_context_takeover` is agreed to if it is offered, and may be without.
        (
            deflate(),
            &["permessage-deflate; server_no_context_takeover"],
            "permessage-deflate; server_no_context_takeover",
        ),
        (snct(), &[FIREFOX], "permessage-deflate; server_no_context_takeover"),
        // 7.1.1.2: the same of `client_no_context_takeover`.
        (
            deflate(),
            &["permessage-deflate; client_no_context_takeover"],
            "permessage-deflate; client_no_context_takeover",
        ),
        (cnct(), &[FIREFOX], "permessage-deflate; client_no_context_takeover"),
        (
            snct().client_no_context_takeover(),
            &["permessage-deflate; client_no_context_takeover; server_no_context_takeover"],
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        // 7.1.2.1: the response names the offered `server_max_window_bits` or less.
        (
            zlib(),
            &["permessage-deflate; server_max_window_bits=10"],
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            zlib(),
            &["permessage-deflate; server_max_window_bits=15"],
            "permessage-deflate; server_max_window_bits=15",
        ),
        (
            server(9..=12),
            &["permessage-deflate; server_max_window_bits=15"],
            "permessage-deflate; server_max_window_bits=12",
        ),
        (
            server(9..=12),
            &["permessage-deflate; server_max_window_bits=10"],
            "permessage-deflate; server_max_window_bits=10",
        ),
        (server(9..=12), &[FIREFOX], "permessage-deflate; server_max_window_bits=12"),
        (zlib(), &["permessage-deflate; server_max_window_bits=8"], ""),
        (
            server(8..=15),
            &["permessage-deflate; server_max_window_bits=8"],
            "permessage-deflate; server_max_window_bits=8",
        ),
        (deflate(), &["permessage-deflate; server_max_window_bits=14"], ""),
        (
            deflate(),
            &["permessage-deflate; server_max_window_bits=15"],
            "permessage-deflate; server_max_window_bits=15",
        ),
        // 7.1.2.2: the response names `client_max_window_bits` only if it is offered.
        (client(10), &[BROWSER], "permessage-deflate; client_max_window_bits=10"),
        (client(10), &[FIREFOX], ""),
        (
            client(10),
            &["permessage-deflate; client_max_window_bits=9"],
            "permessage-deflate; client_max_window_bits=9",
        ),
        (
            client(10),
            &["permessage-deflate; client_max_window_bits=12"],
            "permessage-deflate; client_max_window_bits=10",
        ),
        (
            deflate(),
            &["permessage-deflate; client_max_window_bits=8"],
            "permessage-deflate; client_max_window_bits=8",
        ),
        (deflate(), &["permessage-deflate; client_max_window_bits=15"], "permessage-deflate"),
        // What the Python client `websockets` offers.
        (
            zlib(),
            &["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"],
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        // The value may be in quotes.
        (
            zlib(),
            &[r#"permessage-deflate; server_max_window_bits="1\0""#],
            "permessage-deflate; server_max_window_bits=10",
        ),
        // 5: the client's order of preference, over lines.
        (deflate(), &["x-webkit-deflate-frame, permessage-deflate"], "permessage-deflate"),
        (
            deflate(),
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            "permessage-deflate",
        ),
        (
            zlib(),
            &["permessage-deflate; server_max_window_bits=10", "permessage-deflate"],
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            client(10),
            &[FIREFOX, "", ", permessage-deflate; client_max_window_bits,"],
            "permessage-deflate; client_max_window_bits=10",
        ),
    ];
    for (policy, lines, expected) in cases {
        for over_http2 in [false, true] {
            let guard = guard().extensions(policy.clone());
            let response = complete(guard, &offer(lines), over_http2).await;
            match over_http2 {
                false => assert_accepted(&response),
                true => assert_accepted_http2(&response),
            }
            let named = extensions(response.headers()).unwrap_or_default();
            assert_eq!(named, *expected, "{policy:?}, {lines:?}");
        }
    }
}

#[tokio::test]
async fn an_offer_that_cannot_be_kept_is_declined() {
    let many = |extension: &str, count: usize| vec![extension; count].join(", ");
    let parameters = format!("permessage-deflate{}", "; a=1".repeat(10_000));
    for line in [
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=150",
        "permessage-deflate; server_max_window_bits=4294967305",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; server_no_context_takeover=10",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; Server_no_context_takeover",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=10",
        "Permessage-Deflate",
        "permessage-deflate2",
        "x-webkit-deflate-frame",
        "constructor; __proto__",
        &many("permessage-deflate", 200),
        &many("permessage-deflate", 33),
        &parameters,
    ] {
        let response = complete(guard().extensions(zlib()), &offer(&[line]), false).await;
        assert_accepted(&response);
        assert_eq!(extensions(response.headers()), None, "{line:.200}");
    }
    // The bound is not below what is sensible.
    let line = many("permessage-deflate", 32);
    let response = complete(guard().extensions(zlib()), &offer(&[&line]), false).await;
    assert_eq!(extensions(response.headers()).as_deref(), Some("permessage-deflate"));
}

/// RFC 6455 9.1: a server that negotiates fails the connection.
#[tokio::test]
async fn a_malformed_offer_is_rejected_where_extensions_are_negotiated() {
    let too_many = format!("{};;", "permessage-deflate, ".repeat(300));
    for lines in [
        &["permessage-deflate;; client_max_window_bits"][..],
        &["permessage-deflate;"],
        &["permessage deflate"],
        &["permessage-deflate; client_max_window_bits=\"10"],
        &["permessage-deflate; client_max_window_bits=\"10\\"],
        &["permessage-deflate; client_max_window_bits=\"1 0\""],
        &["permessage-deflate; client_max_window_bits="],
        &["permessage-deflate", "foo bar"],
        &["permessage-deflate, ;"],
        &["permessage-deflate;", "client_max_window_bits"],
        &[","],
        &[&too_many],
    ] {
        let negotiating = guard().extensions(deflate());
        let response = complete(negotiating.clone(), &offer(lines), false).await;
        assert_rejected(&response, "extension-invalid");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_rejected(&complete(negotiating, &offer(lines), true).await, "extension-invalid");
        // Elsewhere nobody reads the header.
        let response = respond(&guard(), &offer(lines), None).await;
        assert_accepted(&response);
        assert_eq!(response.headers()["seen"], lines.join(" | "));
    }
    let rejection = complete(guard().extensions(deflate()), &offer(&["a b"]), false).await;
    let rejection = rejection.extensions().get::<Rejection>().unwrap();
    assert!(rejection.to_string().contains("`a b`"), "{rejection}");
    let source = std::error::Error::source(rejection).unwrap().to_string();
    assert_eq!(source, "a comma or a semicolon is missing");
}

#[tokio::test]
async fn the_syntax_of_the_offer_is_checked_before_the_policies() {
    let guard = guard()
        .allow_host(AllowHost::list(["other.example.com"]).unwrap())
        .subprotocols(Subprotocols::list(["chat"]).unwrap())
        .extensions(deflate());
    let malformed = offer(&["a b"]);
    let code = |raw: &Raw| {
        let (parts, ()) = raw.request::<()>().into_parts();
        guard.explain(&parts).rejection().map(Rejection::kind)
    };
    assert_eq!(code(&malformed), Some(RejectionKind::ExtensionInvalid));
    let subprotocols = malformed.and("Sec-WebSocket-Protocol", "a b");
    assert_eq!(code(&subprotocols), Some(RejectionKind::SubprotocolInvalid));
    // Report-only mode reports policies, and not syntax.
    let reporting = guard.clone().dangerous_report_only();
    let response = complete(reporting, &offer(&["a b"]), false).await;
    assert_rejected(&response, "extension-invalid");
}

/// A handler completes the handshake with `named`, and tells what it saw.
async fn respond<L>(layer: &L, raw: &Raw, named: Option<&str>) -> Response<()>
where
    L: Layer<Handler>,
    L::Service: tower::Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let handler = Handler { named: named.map(str::to_owned) };
    layer.layer(handler).oneshot(raw.request()).await.unwrap()
}

#[derive(Clone)]
struct Handler {
    named: Option<String>,
}

impl tower::Service<Request<()>> for Handler {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        Ok(()).into()
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let mut response = Response::new(());
        *response.status_mut() = match request.version() {
            http::Version::HTTP_2 => StatusCode::OK,
            _ => StatusCode::SWITCHING_PROTOCOLS,
        };
        response.extensions_mut().insert(Permit::claim(request.extensions_mut()));
        if let Some(pending) = request.extensions().get::<PendingUpgrade>() {
            pending.on_upgrade(async |_| {});
            *response.status_mut() = StatusCode::OK;
        }
        let seen = extensions(request.headers()).unwrap_or_default();
        response.headers_mut().insert("seen", seen.parse().unwrap());
        for line in self.named.iter().flat_map(|named| named.split('|')) {
            response.headers_mut().append(NAME, line.parse().unwrap());
        }
        std::future::ready(Ok(response))
    }
}

/// The offer, what the handler responds with, and what is wrong with it.
const RESPONSES: &[(&[&str], &str, Option<&str>)] = &[
    (&["a"], "a", None),
    (&["a", "b; c"], "b; d=1, a", None),
    (&["a", "b"], "a|b", None),
    (&[], "a", Some("the client did not offer `a`")),
    (&["b"], "a", Some("the client did not offer `a`")),
    (&["a"], "A", Some("the client did not offer `A`")),
    (&["a"], "a, b", Some("the client did not offer `b`")),
    (&["a"], "a, a", Some("the response names `a` twice")),
    (&["a"], "a|a", Some("the response names `a` twice")),
    (&["a"], "a b", Some("the response is malformed: a comma or a semicolon is missing")),
    // RFC 7692 7.1.
    (&["permessage-deflate"], "permessage-deflate", None),
    (&["permessage-deflate"], "permessage-deflate; server_max_window_bits=9", None),
    (&["permessage-deflate"], "permessage-deflate; server_no_context_takeover", None),
    (&["permessage-deflate"], "permessage-deflate; client_no_context_takeover", None),
    (&["permessage-deflate"], "permessage-deflate; client_max_window_bits=10", Some(MISFIT)),
    (&["permessage-deflate"], "permessage-deflate; server_max_window_bits", Some(MISFIT)),
    (&["permessage-deflate"], "permessage-deflate; unknown", Some(MISFIT)),
    (&["permessage-deflate; client_max_window_bits"], "permessage-deflate", None),
    (
        &["permessage-deflate; client_max_window_bits"],
        "permessage-deflate; client_max_window_bits=10",
        None,
    ),
    (
        &["permessage-deflate; client_max_window_bits"],
        "permessage-deflate; client_max_window_bits",
        Some(MISFIT),
    ),
    (&["permessage-deflate; server_no_context_takeover"], "permessage-deflate", Some(MISFIT)),
    (&["permessage-deflate; client_no_context_takeover"], "permessage-deflate", None),
    (&["permessage-deflate; server_max_window_bits=10"], "permessage-deflate", Some(MISFIT)),
    (
        &["permessage-deflate; server_max_window_bits=10"],
        "permessage-deflate; server_max_window_bits=11",
        Some(MISFIT),
    ),
    (
        &["permessage-deflate; server_max_window_bits=10", "permessage-deflate"],
        "permessage-deflate; server_max_window_bits=11",
        None,
    ),
    (&["permessage-deflate; unknown"], "permessage-deflate", Some(MISFIT)),
];
const MISFIT: &str = "the parameters of `permessage-deflate` fit no offer of the client";

#[tokio::test]
async fn a_response_names_only_what_was_offered() {
    macro_rules! check {
        ($layer:expr, $raw:expr, $named:expr, $fault:expr) => {
            let response = respond(&$layer, &$raw, Some($named)).await;
            match $fault {
                None => {
                    assert_accepted(&response);
                    // RFC 6455 11.3.2: on one line.
                    assert_eq!(extensions(response.headers()).unwrap(), $named.replace('|', ", "));
                }
                Some(fault) => {
                    assert_rejected(&response, "extension-not-offered");
                    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
                    assert!(!response.headers().contains_key(NAME));
                    let rejection = response.extensions().get::<Rejection>().unwrap();
                    let source = std::error::Error::source(rejection).unwrap().to_string();
                    assert_eq!(source, fault, "{rejection}");
                }
            }
        };
    }
    for (lines, named, fault) in RESPONSES {
        let raw = offer(lines);
        check!(guard(), raw, named, *fault);
        check!(guard().limit(ConnectionLimit::total(1).unwrap()), raw, named, *fault);
        check!(guard().dangerous_report_only(), raw, named, *fault);
        check!(VersionCheckLayer::new(), raw, named, *fault);
        check!(OriginCheckLayer::new(AllowOrigin::same_origin()), raw, named, *fault);
    }
}

#[tokio::test]
async fn a_response_without_an_extension_has_no_header() {
    for named in ["", " ", "|"] {
        let response = respond(&guard(), &offer(&["a"]), Some(named)).await;
        assert_accepted(&response);
        assert_eq!(extensions(response.headers()), None);
    }
    let response = respond(&guard(), &offer(&["a"]), Some(",")).await;
    assert_rejected(&response, "extension-not-offered");
}

#[tokio::test]
async fn a_response_to_a_malformed_offer_is_the_fault_of_the_client() {
    for line in ["a b", "a;", "a, ;", "a; b=\"c"] {
        let response = respond(&guard(), &offer(&[line]), Some("a")).await;
        assert_rejected(&response, "extension-invalid");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}

/// A handler that sends back what the client offers costs no more than that.
#[tokio::test]
async fn a_response_names_at_most_32_extensions() {
    let list = |count: usize| (0..count).map(|i| format!("a{i}")).collect::<Vec<_>>().join(", ");
    assert_accepted(&respond(&guard(), &offer(&[&list(10_000)]), Some(&list(32))).await);
    for count in [33, 10_000] {
        let list = list(count);
        let response = respond(&guard(), &offer(&[&list]), Some(&list)).await;
        assert_rejected(&response, "extension-not-offered");
    }
}

#[tokio::test]
async fn a_layer_that_completes_the_handshake_names_the_extensions_by_itself() {
    let negotiating = || ResponderLayer::new().extensions(server(8..=15));
    // Of several offers the layer agrees to one, and a handler sees only that.
    for (lines, named, fault) in RESPONSES.iter().filter(|(lines, ..)| lines.len() < 2) {
        for over_http2 in [false, true] {
            let raw = offer(lines);
            for (layer, expected) in [(ResponderLayer::new(), None), (negotiating(), Some(fault))] {
                let request = if over_http2 { raw.extended_connect() } else { raw.request() };
                let (request, _client) = upgradable(request).await;
                let handler = Handler { named: Some((*named).to_owned()) };
                let response = layer.layer(handler).oneshot(request).await.unwrap();
                // A handler cannot negotiate in its place.
                if expected.is_none_or(|fault| fault.is_some() || !named.starts_with("permessage"))
                {
                    assert_rejected(&response, "extension-not-offered");
                    assert_eq!(extensions(response.headers()), None);
                    continue;
                }
                assert!(response.extensions().get::<Rejection>().is_none(), "{lines:?}, {named}");
                let agreed = extensions(response.headers()).unwrap();
                let without = complete(guard().extensions(server(8..=15)), &raw, over_http2).await;
                assert_eq!(Some(agreed), extensions(without.headers()), "{lines:?}, {named}");
            }
        }
    }
}

/// A handler that completes the handshake sees what it can agree to, and nothing else.
#[tokio::test]
async fn a_handler_sees_one_offer_where_extensions_are_negotiated() {
    let cases: &[(PermessageDeflate, &[&str], &str)] = &[
        (zlib(), &[], ""),
        (zlib(), &["foo"], ""),
        (zlib(), &["permessage-deflate; unknown"], ""),
        (
            zlib(),
            &["foo, permessage-deflate; client_max_window_bits", "permessage-deflate"],
            "permessage-deflate; client_max_window_bits",
        ),
        (
            deflate(),
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            "permessage-deflate",
        ),
        (
            client(10).server_no_context_takeover(),
            &["permessage-deflate; client_max_window_bits"],
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
        ),
        (
            server(9..=11).client_no_context_takeover(),
            &["permessage-deflate; server_max_window_bits=15; client_max_window_bits=15"],
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits",
        ),
    ];
    for (policy, lines, seen) in cases {
        let guard = guard().extensions(policy.clone());
        let response = respond(&guard, &offer(lines), None).await;
        assert_accepted(&response);
        assert_eq!(response.headers()["seen"], seen, "{policy:?}, {lines:?}");
        // The guard agrees to nothing in its place.
        assert_eq!(extensions(response.headers()), None);
        // What it saw it may accept; what was taken away it may not.
        if !seen.is_empty() {
            let accepted = seen.trim_end_matches("; client_max_window_bits");
            assert_accepted(&respond(&guard, &offer(lines), Some(accepted)).await);
        }
        let response = respond(&guard, &offer(lines), Some("foo")).await;
        assert_rejected(&response, "extension-not-offered");
        // A guard inside sees the same.
        let inner = guard.clone().layer(Handler { named: None });
        let response = guard.layer(inner).oneshot(offer(lines).request()).await.unwrap();
        assert_eq!(response.headers()["seen"], seen, "{policy:?}, {lines:?}");
    }
}

/// A handler may leave out what limits the client, and then the client would not know.
#[tokio::test]
async fn the_limits_of_the_client_are_added_to_the_response_of_a_handler() {
    const BROWSER: &str = "permessage-deflate; client_max_window_bits";
    let takeover = || deflate().client_no_context_takeover();
    for (policy, line, named, expected) in [
        (deflate(), BROWSER, "permessage-deflate", "permessage-deflate"),
        (
            takeover(),
            "permessage-deflate",
            "permessage-deflate",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            takeover(),
            BROWSER,
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             client_max_window_bits=9",
        ),
        (
            client(10),
            BROWSER,
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits=10",
        ),
        (
            client(10),
            BROWSER,
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10",
        ),
        (
            client(10),
            BROWSER,
            "permessage-deflate; client_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=9",
        ),
    ] {
        let guard = guard().extensions(policy.clone());
        let response = respond(&guard, &offer(&[line]), Some(named)).await;
        assert_accepted(&response);
        assert_eq!(extensions(response.headers()).unwrap(), expected, "{policy:?}, {named}");
    }
}

#[tokio::test]
async fn a_callback_gets_what_was_agreed() {
    for (lines, expected) in [
        (&["permessage-deflate; server_max_window_bits=10"][..], Some((10, 15))),
        (&["permessage-deflate; client_max_window_bits=9"], Some((15, 9))),
        (&["foo"], None),
    ] {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let layer = ResponderLayer::on_upgraded(move |socket| {
            sender.send(socket.extensions().permessage_deflate()).unwrap();
            async {}
        });
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let (request, _client) = upgradable(offer(lines).request()).await;
        let response = layer.extensions(zlib()).layer(inner).oneshot(request).await.unwrap();
        assert_accepted(&response);
        let agreed = receiver.recv().await.unwrap();
        let bits =
            agreed.map(|agreed| (agreed.server_max_window_bits(), agreed.client_max_window_bits()));
        assert_eq!(bits, expected);
        assert_eq!(agreed.map(|agreed| agreed.to_string()), extensions(response.headers()));
        let takeover = agreed.map(|agreed| {
            (agreed.server_no_context_takeover(), agreed.client_no_context_takeover())
        });
        assert_eq!(takeover, expected.map(|_| (false, false)));
    }
}

/// A close frame that shows the reason of a rejection is not compressed.
#[tokio::test]
async fn a_rejection_that_is_shown_agrees_to_nothing() {
    let tokens = StaticTokens::new([("s3cr3t", ())]).unwrap();
    let guard = guard()
        .extensions(deflate())
        .token(TokenPolicy::bearer(tokens))
        .unwrap()
        .accept_then_close(AcceptThenClose::new());
    let names = guard.clone().reject_with(response_fn(|_, _, mut prepared| {
        prepared.headers_mut().insert(NAME, "permessage-deflate".parse().unwrap());
        prepared
    }));
    let request = async || upgradable(offer(&["permessage-deflate"]).request()).await;
    let (first, _client) = request().await;
    let (second, _other_client) = request().await;
    for response in [
        guard.respond().layer(Handler { named: None }).oneshot(first).await.unwrap(),
        names.respond().layer(Handler { named: None }).oneshot(second).await.unwrap(),
    ] {
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_rejected(&response, "token-missing");
        assert_eq!(extensions(response.headers()), None);
    }
}

#[test]
fn a_window_has_8_to_15_bits() {
    for bits in [7..=15, 9..=16, 0..=0, 255..=255, RangeInclusive::new(12, 9)] {
        let error = deflate().server_window_bits(bits.clone()).unwrap_err().to_string();
        assert!(error.contains("8 to 15 bits"), "{bits:?}: {error}");
    }
    for bits in [0, 7, 16] {
        assert!(deflate().client_max_window_bits(bits).is_err(), "{bits}");
    }
}

#[test]
fn the_explanation_names_what_is_agreed_to() {
    let guard = guard().extensions(zlib());
    for (lines, expected) in [
        (&["permessage-deflate"][..], "extensions: accepted: `permessage-deflate` is agreed to"),
        (&["foo"], "extensions: accepted: none is agreed to"),
        (&[], "extensions: accepted: none is agreed to"),
    ] {
        let (head, ()) = offer(lines).request::<()>().into_parts();
        let explanation = guard.explain(&head).to_string();
        assert!(explanation.lines().any(|line| line == expected), "{explanation}");
    }
}
