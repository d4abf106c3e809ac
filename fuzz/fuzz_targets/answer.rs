//! A server's response, checked for the client: a status and fields, each on its line.
#![no_main]

use differential::properties::{KEY, trim};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower_ws_guard::client::ClientHandshake;

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|&byte| byte == b'\n');
    // A first line other than a status is one more field, and the status 101.
    let status = lines.clone().next().and_then(|line| StatusCode::from_bytes(line).ok());
    if status.is_some() {
        lines.next();
    }
    let mut response = Response::new(());
    *response.status_mut() = status.unwrap_or(StatusCode::SWITCHING_PROTOCOLS);
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { return };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            return;
        };
        response.headers_mut().append(name, value);
    }
    let request = Request::get("http://chat.example.com/ws")
        .header("sec-websocket-key", KEY)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat, v2.chat")
        .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits, x-a")
        .body(())
        .expect("a request");

    let values = |name: &'static str| {
        let lines = response.headers().get_all(name).iter();
        lines
            .map(|line| String::from_utf8_lossy(trim(line.as_bytes())).into_owned())
            .collect::<Vec<_>>()
    };
    match ClientHandshake::new(&request).verify(&response) {
        // RFC 6455 4.1, the client's requirements 1 to 6.
        Ok(accepted) => {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert!(matches!(&values("upgrade")[..], [it] if it.eq_ignore_ascii_case("websocket")));
            let connection = values("connection").join(",");
            assert!(
                connection
                    .split(',')
                    .any(|it| it.trim_matches([' ', '\t']).eq_ignore_ascii_case("upgrade"))
            );
            assert_eq!(values("sec-websocket-accept"), [ACCEPT]);
            let chosen = accepted.subprotocol().map(str::to_owned);
            assert!([None, Some("chat"), Some("v2.chat")].contains(&chosen.as_deref()));
            assert_eq!(values("sec-websocket-protocol"), Vec::from_iter(chosen));
            for extension in accepted.extensions() {
                let name =
                    extension.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
                assert!(["permessage-deflate", "x-a"].contains(&name), "{extension}");
            }
            assert!(values("sec-websocket-extensions").len() <= 1);
        }
        Err(findings) => {
            assert!(!findings.as_slice().is_empty());
            for finding in findings.as_slice() {
                assert!(!finding.to_string().contains(|c: char| c.is_control()), "{finding}");
                assert_eq!(
                    finding.kind().is_rejection(),
                    response.status() != StatusCode::SWITCHING_PROTOCOLS
                );
            }
        }
    }
});
