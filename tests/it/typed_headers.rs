//! `headers::Header` for the values of handshake fields.

use std::fmt::{Debug, Display};

use axum::{Router, body::Body, routing::any};
use axum_extra::TypedHeader;
use headers::{Header, HeaderMapExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, request::Parts};
use tower::ServiceExt;
use tower_ws_guard::{ExtensionOffer, Handshake, Origin, SubprotocolOffer};

use crate::common::handshake;

/// The lines of a header, and the text of what they decode to: `None` without lines.
type Case = (&'static [&'static str], Result<Option<&'static str>, ()>);

fn check<H: Header + Clone + Debug + Display + PartialEq>(cases: &[Case]) {
    for (lines, expected) in cases {
        let mut headers = HeaderMap::new();
        for line in *lines {
            headers.append(H::name(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let decoded = headers.typed_try_get::<H>().map_err(drop);
        let text = decoded.as_ref().map(|header| header.as_ref().map(H::to_string));
        assert_eq!(text, expected.as_ref().map(|text| text.map(str::to_owned)), "{lines:?}");

        let Ok(Some(header)) = decoded else { continue };
        let mut encoded = HeaderMap::new();
        encoded.typed_insert(header.clone());
        // The empty value has no line.
        let expected = expected.unwrap().filter(|text| !text.is_empty());
        assert!(encoded.get_all(H::name()).iter().eq(expected), "{lines:?}: {encoded:?}");
        assert_eq!(encoded.typed_get(), expected.map(|_| header), "{lines:?}");
    }
}

#[test]
fn extension_offer_is_a_strict_header() {
    assert_eq!(ExtensionOffer::name(), "sec-websocket-extensions");
    check::<ExtensionOffer>(&[
        (&[], Ok(None)),
        (&[""], Ok(Some(""))),
        (&[" ", ""], Ok(Some(""))),
        (&["permessage-deflate"], Ok(Some("permessage-deflate"))),
        (
            &["permessage-deflate ;client_max_window_bits= \"15\"", "x-webkit-deflate-frame,"],
            Ok(Some("permessage-deflate; client_max_window_bits=15, x-webkit-deflate-frame")),
        ),
        (&["a", "", "b"], Ok(Some("a, b"))),
        (&[","], Err(())),
        (&["a b"], Err(())),
        (&["a;"], Err(())),
        (&["a; b=\"c"], Err(())),
        (&["a; b=\"c d\""], Err(())),
        (&["b\u{fc}cher"], Err(())),
        // Every line counts.
        (&["a", "b;"], Err(())),
        (&["a;", "b"], Err(())),
    ]);
}

#[test]
fn subprotocol_offer_is_a_strict_header() {
    assert_eq!(SubprotocolOffer::name(), "sec-websocket-protocol");
    check::<SubprotocolOffer>(&[
        (&[], Ok(None)),
        (&[""], Ok(Some(""))),
        (&[" ", ""], Ok(Some(""))),
        (&["chat"], Ok(Some("chat"))),
        (&["v2.chat\t,v1.chat,", "json"], Ok(Some("v2.chat, v1.chat, json"))),
        (&["chat, Chat"], Ok(Some("chat, Chat"))),
        (&["a", "", "b"], Ok(Some("a, b"))),
        (&[","], Err(())),
        (&["a b"], Err(())),
        (&["a/b"], Err(())),
        (&["\"a\""], Err(())),
        (&["a, a"], Err(())),
        (&["b\u{fc}cher"], Err(())),
        // Every line counts.
        (&["a", "b/"], Err(())),
        (&["a", "a"], Err(())),
    ]);
}

#[test]
fn origin_is_a_strict_header() {
    assert_eq!(Origin::name(), "origin");
    check::<Origin<'static>>(&[
        (&[], Ok(None)),
        (&["https://app.example.com"], Ok(Some("https://app.example.com"))),
        (&[" https://app.example.com\t"], Ok(Some("https://app.example.com"))),
        (&["http://[::1]:3000"], Ok(Some("http://[::1]:3000"))),
        (&["chrome-extension://abc"], Ok(Some("chrome-extension://abc"))),
        (&[""], Err(())),
        (&["null"], Err(())),
        (&["app.example.com"], Err(())),
        (&["https://app.example.com/"], Err(())),
        (&["https://app.example.com@evil.example"], Err(())),
        (&["https://app.example.com#evil"], Err(())),
        (&["https://app.example.com:0x50"], Err(())),
        (&["https://b\u{fc}cher.example"], Err(())),
        (&["https://a.example, https://b.example"], Err(())),
        (&["https://a.example https://b.example"], Err(())),
        // One line, even if it is repeated as it is.
        (&["https://a.example", "https://a.example"], Err(())),
        (&["https://a.example", ""], Err(())),
        (&["", "https://a.example"], Err(())),
        (&["https://a.example", "null"], Err(())),
    ]);
}

#[test]
fn encoded_offer_replaces_other_lines() {
    let mut headers = HeaderMap::new();
    headers.append("sec-websocket-protocol", HeaderValue::from_static("a"));
    headers.append("sec-websocket-protocol", HeaderValue::from_static("b"));
    headers.typed_insert(SubprotocolOffer::list(["c", "d"]).unwrap());
    let lines = headers.get_all("sec-websocket-protocol").iter().collect::<Vec<_>>();
    assert_eq!(lines, ["c, d"]);
}

#[test]
fn subprotocol_offer_equals_that_of_the_handshake() {
    for lines in [&["chat"] as &[&str], &["v2.chat\t, ,v1.chat", "json"], &["a", ",b"]] {
        let raw =
            lines.iter().fold(handshake(), |raw, line| raw.and("Sec-WebSocket-Protocol", line));
        let (mut parts, ()): (Parts, ()) = raw.request().into_parts();
        let offer = parts.headers.typed_get::<SubprotocolOffer>().unwrap();
        let handshake = Handshake::parse(&mut parts).unwrap();
        assert!(offer.iter().eq(handshake.subprotocols()), "{lines:?}");
    }
}

#[tokio::test]
async fn typed_header_tells_absent_from_malformed() {
    async fn required(TypedHeader(offer): TypedHeader<SubprotocolOffer>) -> String {
        offer.to_string()
    }
    async fn optional(offer: Option<TypedHeader<ExtensionOffer>>) -> String {
        offer.map_or_else(|| "none".to_owned(), |TypedHeader(offer)| offer.to_string())
    }
    let app: Router =
        Router::new().route("/required", any(required)).route("/optional", any(optional));
    for (path, name, value, expected) in [
        ("/required", "sec-websocket-protocol", Some("a,b"), Ok("a, b")),
        ("/required", "sec-websocket-protocol", Some(""), Ok("")),
        ("/required", "sec-websocket-protocol", None, Err("was missing")),
        ("/required", "sec-websocket-protocol", Some("a b"), Err("invalid HTTP header")),
        ("/optional", "sec-websocket-extensions", Some("a;b"), Ok("a; b")),
        ("/optional", "sec-websocket-extensions", Some(""), Ok("")),
        ("/optional", "sec-websocket-extensions", None, Ok("none")),
        ("/optional", "sec-websocket-extensions", Some("a;"), Err("invalid HTTP header")),
    ] {
        let mut request = Request::get(path);
        if let Some(value) = value {
            request = request.header(name, value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        match expected {
            Ok(expected) => assert_eq!((status, body), (StatusCode::OK, expected), "{value:?}"),
            Err(part) => {
                assert_eq!(status, StatusCode::BAD_REQUEST, "{value:?}");
                assert!(body.contains(part), "{value:?}: {body}");
            }
        }
    }
}
