//! `ClientHandshake`: every finding about a response, over HTTP/1.1 and HTTP/2.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue, Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, GuardLayer, PendingUpgrade, ResponderLayer, Subprotocols,
    client::{ClientHandshake, FindingKind},
};

use crate::common::{ACCEPT, KEY, Raw, handshake};

type Headers<'a> = &'a [(&'a str, &'a str)];
/// A request, the response headers, and the verdict.
type Case = (Raw, Vec<(&'static str, &'static str)>, &'static str);

fn response(status: u16, headers: Headers<'_>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    response
}

/// The headers of a correct 101, without one of them, and with additional ones.
fn switch<'a>(without: &str, and: Headers<'a>) -> Vec<(&'a str, &'a str)> {
    let lines =
        [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", ACCEPT)];
    lines.into_iter().filter(|(name, _)| *name != without).chain(and.iter().copied()).collect()
}

fn offering(subprotocols: &str) -> Raw {
    handshake().with("Sec-WebSocket-Protocol", subprotocols)
}

fn extending(extensions: &str) -> Raw {
    handshake().with("Sec-WebSocket-Extensions", extensions)
}

/// The codes with their values, separated by ` + `.
fn verdict(request: &Request<()>, response: &Response<()>) -> String {
    let Err(findings) = ClientHandshake::new(request).verify(response) else {
        return "accepted".into();
    };
    let shown = findings.as_slice().iter().map(|finding| match finding.value() {
        Some(value) => format!("{} {value}", finding.kind().code()),
        None => finding.kind().code().to_owned(),
    });
    shown.collect::<Vec<_>>().join(" + ")
}

/// The codes in a verdict.
fn codes(verdict: &str) -> impl Iterator<Item = &str> {
    verdict.split(" + ").map(|finding| finding.split(' ').next().unwrap())
}

#[rustfmt::skip]
fn switches() -> Vec<Case> {
    vec![
        (handshake(), switch("", &[]), "accepted"),
        (handshake(), switch("upgrade", &[("upgrade", "WebSocket")]), "accepted"),
        (handshake().with("Sec-WebSocket-Key", format!(" {KEY}\t")), switch("sec-websocket-accept", &[("sec-websocket-accept", " s3pPLMBiTxaQ9kYGzzhZRbK+xOo= ")]), "accepted"),
        (handshake(), switch("upgrade", &[]), "upgrade-wrong"),
        (handshake(), switch("upgrade", &[("upgrade", "h2c")]), "upgrade-wrong h2c"),
        (handshake(), switch("upgrade", &[("upgrade", "websocket, h2c")]), "upgrade-wrong websocket, h2c"),
        (handshake(), switch("", &[("upgrade", "websocket")]), "header-repeated upgrade"),
        (handshake(), switch("connection", &[("connection", "keep-alive, upgrade")]), "accepted"),
        (handshake(), switch("connection", &[("connection", "keep-alive"), ("connection", "UPGRADE")]), "accepted"),
        (handshake(), switch("connection", &[]), "connection-wrong"),
        (handshake(), switch("connection", &[("connection", "keep-alive")]), "connection-wrong keep-alive"),
        (handshake(), switch("connection", &[("connection", "xupgrade")]), "connection-wrong xupgrade"),
        (handshake(), switch("sec-websocket-accept", &[]), "accept-missing"),
        (handshake(), switch("sec-websocket-accept", &[("sec-websocket-accept", "")]), "accept-wrong "),
        (handshake(), switch("", &[("sec-websocket-accept", ACCEPT)]), "header-repeated sec-websocket-accept"),
        (handshake(), switch("sec-websocket-accept", &[("sec-websocket-accept", "x"), ("sec-websocket-accept", ACCEPT)]), "header-repeated sec-websocket-accept + accept-wrong x"),
        (handshake().with("Sec-WebSocket-Key", "short"), switch("", &[]), "accept-wrong s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (handshake().without("Sec-WebSocket-Key"), switch("", &[]), "accept-wrong s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (handshake(), vec![("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "zip")],
            "upgrade-wrong + connection-wrong + accept-missing + subprotocol-not-offered chat + extension-not-offered zip"),
    ]
}

/// Over both transports: the headers are sent with the 101 or the 200.
#[rustfmt::skip]
fn choices() -> Vec<Case> {
    vec![
        (handshake(), vec![], "accepted"),
        (handshake(), vec![("sec-websocket-protocol", "chat")], "subprotocol-not-offered chat"),
        (handshake(), vec![("sec-websocket-protocol", "")], "subprotocol-not-offered "),
        (offering("v1, v2"), vec![("sec-websocket-protocol", "v2")], "accepted"),
        (offering("v1").and("Sec-WebSocket-Protocol", "v2"), vec![("sec-websocket-protocol", "v2")], "accepted"),
        (offering("v1, v2"), vec![("sec-websocket-protocol", "V2")], "subprotocol-not-offered V2"),
        (offering("v1, v2"), vec![("sec-websocket-protocol", "v1, v2")], "subprotocol-not-offered v1, v2"),
        (offering("v1, v2"), vec![], "subprotocol-not-echoed"),
        (offering("v1, v2"), vec![("sec-websocket-protocol", "")], "subprotocol-not-echoed"),
        (offering("v1, v2"), vec![("sec-websocket-protocol", "v1"), ("sec-websocket-protocol", "v2")], "header-repeated sec-websocket-protocol"),
        (handshake(), vec![("sec-websocket-extensions", "permessage-deflate")], "extension-not-offered permessage-deflate"),
        (extending("permessage-deflate; client_max_window_bits, zip"), vec![("sec-websocket-extensions", "permessage-deflate; server_no_context_takeover")], "accepted"),
        (extending("permessage-deflate"), vec![("sec-websocket-extensions", "permessage-deflate2")], "extension-not-offered permessage-deflate2"),
        (extending("permessage-deflate"), vec![("sec-websocket-extensions", "a; b=c, permessage-deflate, d")], "extension-not-offered a + extension-not-offered d"),
        (extending("permessage-deflate"), vec![("sec-websocket-extensions", "permessage-deflate; client_max_window_bits=9")], "extension-not-offered permessage-deflate; client_max_window_bits=9"),
        (extending("permessage-deflate"), vec![("sec-websocket-extensions", "permessage-deflate; level=9")], "extension-not-offered permessage-deflate; level=9"),
        (extending("a"), vec![("sec-websocket-extensions", "a, a")], "extension-not-offered a"),
        (extending("a"), vec![("sec-websocket-extensions", "a; b=")], "extension-not-offered a; b="),
        (extending("a; b="), vec![("sec-websocket-extensions", "a")], "extension-not-offered a"),
        (extending("a, b"), vec![("sec-websocket-extensions", "a"), ("sec-websocket-extensions", "b")], "header-repeated sec-websocket-extensions"),
    ]
}

/// Over both transports.
#[rustfmt::skip]
const REJECTIONS: [(u16, Headers<'static>, &str); 34] = [
    (401, &[("www-authenticate", "Bearer realm=x")], "unauthorized Bearer realm=x"),
    (401, &[], "unauthorized"),
    (403, &[], "forbidden"),
    (403, &[("server", "hypercorn-h11")], "forbidden"),
    (403, &[("server", "cloudflare")], "rejected-by-intermediary cloudflare"),
    (403, &[("via", "1.1 varnish (Varnish/7.1)"), ("server", "app")], "rejected-by-intermediary 1.1 varnish (Varnish/7.1)"),
    (403, &[("server", "nginx"), ("content-type", "Application/Problem+JSON")], "forbidden"),
    (502, &[("server", "nginx/1.22.1")], "rejected-by-intermediary nginx/1.22.1"),
    (502, &[], "rejected 502 Bad Gateway"),
    (504, &[("server", "awselb/2.0")], "rejected-by-intermediary awselb/2.0"),
    (504, &[("via", "1.1 somebody")], "rejected 504 Gateway Timeout"),
    (500, &[("server", "nginx")], "rejected 500 Internal Server Error"),
    (426, &[("sec-websocket-version", "8")], "version-rejected 8"),
    (400, &[("sec-websocket-version", "7, 8")], "version-rejected 7, 8"),
    (426, &[("sec-websocket-version", "13"), ("upgrade", "websocket")], "upgrade-stripped"),
    (400, &[("sec-websocket-version", "8, 13")], "rejected 400 Bad Request"),
    (400, &[("sec-websocket-version", "")], "rejected 400 Bad Request"),
    (400, &[], "rejected 400 Bad Request"),
    (403, &[("sec-websocket-version", "8")], "forbidden"),
    (426, &[], "upgrade-stripped"),
    (404, &[], "not-found"),
    (404, &[("server", "nginx")], "not-found"),
    (301, &[("location", "https://example.com/ws/")], "redirected https://example.com/ws/"),
    (302, &[("location", "/login")], "redirected /login"),
    (307, &[], "redirected"),
    (308, &[], "redirected"),
    (429, &[("retry-after", "3")], "rate-limited"),
    (503, &[("server", "nginx")], "unavailable"),
    (204, &[], "rejected 204 No Content"),
    (405, &[], "rejected 405 Method Not Allowed"),
    (421, &[], "rejected 421 Misdirected Request"),
    (299, &[], "rejected 299 <unknown status code>"),
    (100, &[], "rejected 100 Continue"),
    (599, &[], "rejected 599 <unknown status code>"),
];

#[test]
fn response_determines_the_findings() {
    let mut seen = HashSet::new();
    let mut check = |request: &Request<()>, response: &Response<()>, wanted: &str| {
        let verdict = verdict(request, response);
        assert_eq!(verdict, wanted, "{request:?} {response:?}");
        seen.extend(codes(&verdict).map(str::to_owned));
    };
    for (raw, headers, wanted) in switches() {
        check(&raw.request(), &response(101, &headers), wanted);
    }
    for (raw, headers, wanted) in choices() {
        check(&raw.request(), &response(101, &switch("", &headers)), wanted);
        check(&raw.extended_connect(), &response(200, &headers), wanted);
    }
    for (status, headers, wanted) in REJECTIONS {
        for request in handshake().over_both() {
            check(&request, &response(status, headers), wanted);
        }
    }
    // A response that is correct over one transport is wrong over the other.
    check(&handshake().request(), &response(200, &[]), "upgrade-stripped");
    check(&handshake().request(), &response(200, &switch("", &[])), "upgrade-stripped");
    check(
        &handshake().extended_connect(),
        &response(101, &switch("", &[])),
        "rejected 101 Switching Protocols",
    );
    for (header, wanted) in [
        (("upgrade", "websocket"), "upgrade-wrong websocket"),
        (("connection", "upgrade"), "connection-wrong upgrade"),
        (("sec-websocket-accept", ACCEPT), "accepted"),
    ] {
        check(&handshake().extended_connect(), &response(200, &[header]), wanted);
    }

    for kind in FindingKind::ALL {
        assert!(seen.remove(kind.code()), "{} is never found", kind.code());
    }
    assert_eq!(seen, HashSet::from(["accepted".to_owned()]));
}

#[test]
fn version_is_compared_with_the_requested_one() {
    let request = handshake().with("Sec-WebSocket-Version", "8").request();
    let rejected =
        |supported| verdict(&request, &response(426, &[("sec-websocket-version", supported)]));
    assert_eq!(rejected("13"), "version-rejected 13");
    assert_eq!(rejected("13, 8"), "upgrade-stripped");
}

/// Each accept is made from the key of RFC 6455 1.3 by another program; the finding must explain how.
#[test]
fn wrong_accept_is_explained() {
    for (accept, wanted) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", Some("the key itself")),
        ("s3pplmbitxaq9kygzzhzrbk+xoo=", Some("have the wrong case")),
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo", Some("padding")),
        ("s3pPLMBiTxaQ9kYGzzhZRbK-xOo=", Some("alphabet for URLs")),
        ("b37a4f2cc0624f1690f64606cf385945b2bec4ea", Some("is in hexadecimal")),
        ("B37A4F2CC0624F1690F64606CF385945B2BEC4EA", Some("is in hexadecimal")),
        (
            "YjM3YTRmMmNjMDYyNGYxNjkwZjY0NjA2Y2YzODU5NDViMmJlYzRlYQ==",
            Some("base64 of the hexadecimal hash"),
        ),
        ("c8qeCxwB8sJPxkSckeL76bKL7f642+KYzDiR7EbKyTY=", Some("SHA-256")),
        ("WJfwerbIozKsJXHxxI0JTO1SQgU=", Some("GUID in lower case")),
        ("FlscFByo7EQHPKXToHKEWjb17RQ=", Some("misspelled GUID")),
        ("PqrUWKkukdFUBIRNpUXUnidFcM8=", Some("misspelled GUID")),
        ("hHLtf2V1k8aDQZfNjw3Ia1hCwt0=", Some("without the GUID")),
        ("2OZf2Seed9yzIpkj+zvC9KS9Mjw=", Some("GUID in front of the key")),
        ("BXhwxM0SZasKmCD9S4BfpPmCnEw=", Some("decoded bytes of the key")),
        ("s3mCG3XUBfFRrUGpYOBQiHm5i8g=", Some("white space around the key")),
        ("xytUlkF2rVz2XzwONMCug9nn1qA=", Some("white space around the key")),
        ("r9/ho7dygrDPAQf/zFnJxWqPVO4=", Some("line end behind the key")),
        ("kex8Ji4w0ek1Mc3Dwcf4mOpf5b4=", Some("line end behind the key")),
        ("BQgomKt49tqcGtJYe4ASzQz1IXI=", Some("line end or a NUL")),
        ("wRn3T1d05f86S/JjgrE2dZ0BqLI=", Some("line end or a NUL")),
        ("0JQeaNqPOBUf+Gph/Fn3xc+fyqI=", None),
        ("", None),
    ] {
        assert_traced(&handshake(), accept, wanted);
    }
    let another_key = handshake().with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_traced(&another_key, ACCEPT, Some("example key of RFC 6455"));
    assert_traced(
        &handshake().without("Sec-WebSocket-Key"),
        ACCEPT,
        Some("no key of 24 characters"),
    );
}

fn assert_traced(raw: &Raw, accept: &str, wanted: Option<&str>) {
    let response =
        response(101, &switch("sec-websocket-accept", &[("sec-websocket-accept", accept)]));
    let findings = ClientHandshake::new(&raw.request::<()>()).verify(&response).unwrap_err();
    let [finding] = findings.as_slice() else { panic!("{findings}") };
    assert_eq!(finding.kind(), FindingKind::AcceptWrong);
    match wanted {
        Some(wanted) => assert!(finding.detail().unwrap().contains(wanted), "{accept}: {finding}"),
        None => assert_eq!(finding.detail(), None, "{accept}"),
    }
    assert!(finding.explanation().contains(accept), "{finding}");
}

#[test]
fn finding_kinds_have_unique_codes_and_texts() {
    let mut codes = HashSet::new();
    for kind in FindingKind::ALL {
        let code = kind.code();
        assert!(codes.insert(code), "{code} is there twice");
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
        for text in [kind.explanation(), kind.fix()] {
            assert!(text.len() > 15 && !text.ends_with('.'), "{code}: {text}");
        }
    }
    let faulty =
        FindingKind::ALL.iter().filter(|kind| !kind.is_rejection()).map(|kind| kind.code());
    assert_eq!(
        faulty.collect::<Vec<_>>(),
        [
            "accept-missing",
            "accept-wrong",
            "upgrade-wrong",
            "connection-wrong",
            "subprotocol-not-offered",
            "subprotocol-not-echoed",
            "extension-not-offered",
            "header-repeated",
        ]
    );
}

#[test]
fn server_values_are_escaped_and_truncated() {
    let long = "é".repeat(200);
    let mut redirect = response(302, &[]);
    redirect.headers_mut().insert("location", HeaderValue::from_bytes(long.as_bytes()).unwrap());
    let findings =
        ClientHandshake::new(&handshake().request::<()>()).verify(&redirect).unwrap_err();
    let [finding] = findings.as_slice() else { panic!("{findings}") };
    assert_eq!(finding.value().unwrap(), format!("{}…", r"\xc3\xa9".repeat(64)));

    let text = finding.to_string();
    assert!(text.starts_with("redirected: ") && text.ends_with(finding.kind().fix()), "{text}");
    let shown = findings.to_string();
    assert_eq!(shown, text);
}

#[test]
fn debug_output_hides_subprotocols() {
    let handshake = ClientHandshake::new(&offering("token.s3cr3t").request::<()>());
    assert!(!format!("{handshake:?}").contains("s3cr3t"));
}

/// The crate accepts its own responses.
#[tokio::test]
async fn responses_of_the_crate_are_accepted() {
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .subprotocols(Subprotocols::list(["v1", "v2"]).unwrap());
    let service = ServiceBuilder::new().layer(guard).layer(ResponderLayer::new()).service(
        service_fn(async |request: Request<()>| {
            request
                .extensions()
                .get::<PendingUpgrade>()
                .unwrap()
                .on_upgrade(async |socket| drop(socket));
            Ok::<_, std::convert::Infallible>(Response::new(()))
        }),
    );
    let offer = offering("v2, v1").and("Sec-WebSocket-Extensions", "permessage-deflate");
    for (raw, wanted) in [
        (offer.clone(), "v1"),
        (offer.clone().with("Origin", "https://evil.example"), "forbidden"),
        (offer.clone().with("Sec-WebSocket-Version", "8"), "version-rejected 13"),
        (offering("v3"), "rejected 400 Bad Request"),
    ] {
        let upgradable = |mut request: Request<()>| {
            let on_upgrade = hyper::upgrade::on(&mut request);
            request.extensions_mut().insert(on_upgrade);
            request
        };
        for request in raw.over_both().map(upgradable) {
            let handshake = ClientHandshake::new(&request);
            let head = request.clone();
            let response = service.clone().oneshot(request).await.unwrap();
            match handshake.verify(&response) {
                Ok(accepted) => {
                    assert_eq!(accepted.subprotocol(), Some(wanted));
                    assert_eq!(accepted.extensions().next(), None);
                }
                Err(_) => assert_eq!(verdict(&head, &response), wanted),
            }
        }
    }
}

#[test]
fn accepted_holds_subprotocol_and_extensions() {
    let request = offering("v1, v2").and("Sec-WebSocket-Extensions", "a; b, c").request::<()>();
    let chosen = [("sec-websocket-protocol", "v2"), ("sec-websocket-extensions", "c;  d=1 ,a")];
    let accepted =
        ClientHandshake::new(&request).verify(&response(101, &switch("", &chosen))).unwrap();
    assert_eq!(accepted.subprotocol(), Some("v2"));
    assert_eq!(accepted.extensions().collect::<Vec<_>>(), ["c;  d=1", "a"]);
}
