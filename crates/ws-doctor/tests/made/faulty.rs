//! The server accepts, and browsers fail nevertheless.

use std::{io::Write, net::Shutdown, thread, time::Duration};

use crate::{
    common::{Expected, assert_none},
    serve::{
        Head, Reply, Then, accepted, case, check, check_at, close, frame, listen, raw, respond,
        status, switch,
    },
};

const PING: &[u8] = b"\x89\0";

#[rustfmt::skip]
#[test]
fn response_that_browsers_refuse_is_faulty() {
    assert_none(&check(&[
        case("no accept", |_, _| switch(""), &[], 1, &["accept-missing"], &["Sec-WebSocket-Accept"]),
        case("accept", |_, _| switch("Sec-WebSocket-Accept: bm9uc2Vuc2U=\r\n"), &[], 1, &["accept-wrong"], &["Sec-WebSocket-Accept"]),
        case("the key as accept", |head, _| switch(&format!("Sec-WebSocket-Accept: {}\r\n", head.get("sec-websocket-key").unwrap())), &[], 1, &["accept-wrong"], &["key itself"]),
        case("upgrade", |head, _| accepted(head).replace("Upgrade: websocket", "Upgrade: h2c"), &[], 1, &["upgrade-wrong"], &["Upgrade"]),
        case("connection", |head, _| accepted(head).replace("Connection: Upgrade", "Connection: keep-alive"), &[], 1, &["connection-wrong"], &["Connection"]),
        case("subprotocol", |head, _| accepted(head).replace("Upgrade: websocket", "Upgrade: websocket\r\nSec-WebSocket-Protocol: b"), &["--subprotocol", "a"], 1, &["subprotocol-not-offered"], &["`b`"]),
        // Without one it closes, too, so to offer none is no way out.
        case("no subprotocol, 4406", |head, _| accepted(head).and(close(4406, "Subprotocol not acceptable")).then(Then::Close), &["--subprotocol", "graphql-ws"], 1, &["subprotocol-not-echoed"], &["another subprotocol than the offered one: for GraphQL try --subprotocol graphql-transport-ws"]),
        case("extension", |head, _| accepted(head).replace("Upgrade: websocket", "Upgrade: websocket\r\nSec-WebSocket-Extensions: x-webkit-deflate-frame"), &[], 1, &["extension-not-offered"], &["x-webkit-deflate-frame"]),
        case("repeated", |head, _| accepted(head).replace("Upgrade: websocket", &format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {}", repeated(head))), &[], 1, &["header-repeated"], &["Sec-WebSocket-Accept"]),
        case("HTTP/1.0", |head, _| accepted(head).replace("HTTP/1.1", "HTTP/1.0"), &[], 1, &["malformed-response"], &["HTTP/1.0"]),
        case("bare LF", |head, _| accepted(head).replace("\r\n", "\n"), &[], 1, &["malformed-response"], &["CR"]),
        case("folded", |head, _| accepted(head).replace("Upgrade: websocket", "X-Note: one\r\n two\r\nUpgrade: websocket"), &[], 1, &["malformed-response"], &["line"]),
        case("space before the colon", |head, _| accepted(head).replace("Upgrade: websocket", "X-Note : one\r\nUpgrade: websocket"), &[], 1, &["malformed-response"], &["X-Note"]),
        case("PHP warning", |head, _| raw("<br />\n<b>Warning</b>: headers already sent in /srv/server.php on line 3\n").and(accepted(head).bytes).then(Then::Stay), &[], 1, &["malformed-response"], &["Warning"]),
        case("incomplete", |_, _| raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso"), &[], 1, &["incomplete-response"], &[]),
    ]));
}

fn repeated(head: &Head) -> String {
    let reply = String::from_utf8(accepted(head).bytes).unwrap();
    reply.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Accept: ")).unwrap().to_owned()
}

#[rustfmt::skip]
#[test]
fn bytes_behind_a_101_are_judged() {
    assert_none(&check(&[
        case("RSV1", |head, _| accepted(head).and(frame(0xc1, "hello")), &[], 1, &["reserved-bit"], &["pass Sec-WebSocket-Extensions in both directions"]),
        case("RSV1, not offered", |head, _| accepted(head).and(frame(0xc1, "hello")), &["--as", "bare"], 1, &["reserved-bit"], &["permessage-deflate was not agreed on"]),
        case("masked", |head, _| accepted(head).and(b"\x81\x85\0\0\0\0hello"), &[], 1, &["masked-frame"], &["mask"]),
        case("HTML", |head, _| accepted(head).and("<html><body>Fatal error: no memory</body></html>"), &[], 1, &["not-a-frame"], &["Fatal error"]),
        case("HTTP", |head, _| accepted(head).and("HTTP/1.1 400 Bad Request\r\n\r\nUnsupported protocol version").then(Then::Close), &[], 1, &["not-a-frame"], &["Unsupported protocol version"]),
        case("close without a code", |head, _| accepted(head).and(frame(0x88, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["code"]),
        case("close with a reason", |head, _| accepted(head).and(close(4001, "App key not known")).then(Then::Close), &[], 1, &["closed-at-once"], &["4001", "App key not known"]),
        case("text and close", |head, _| accepted(head).and(frame(0x81, "go away")).and(frame(0x88, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["go away"]),
        case("text, ping, close", |head, _| accepted(head).and(frame(0x81, "go away")).and(PING).and(close(1008, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["go away", "1008"]),
        case("EOF", |head, _| accepted(head).then(Then::Close), &[], 1, &["closed-at-once"], &["without", "look for a second listener"]),
        case("reset", |head, _| accepted(head).then(Then::Reset), &[], 1, &["closed-at-once"], &["reset"]),
        case("pusher:error", |head, _| accepted(head).and(frame(0x81, r#"{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"No such app\"}"}"#)).and(frame(0x88, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["`pusher:error 4001: No such app`", "application key"]),
        case("no pong", |head, _| accepted(head).and(close(1011, "keepalive ping timeout")).then(Then::Close), &[], 1, &["closed-at-once"], &["no ping reached this program"]),
        case("4406, none offered", |head, _| accepted(head).and(close(4406, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["none was offered", "--subprotocol graphql-transport-ws"]),
        case("text", |head, _| accepted(head).and(frame(0x81, "welcome")), &[], 0, &[], &[]),
        case("a permitted close", |head, _| accepted(head).and(frame(0x81, "bye")).and(close(1000, "")).then(Then::Close), &[], 1, &["closed-at-once"], &["1000"]),
    ]));
}

/// Firefox sends `keep-alive, Upgrade`, Chromium `Upgrade`.
#[rustfmt::skip]
#[test]
fn variants_of_browsers_are_tried() {
    fn only_upgrade(head: &Head) -> Reply {
        let reply = accepted(head);
        if head.get("connection") == Some("Upgrade") { reply } else { status("400 Bad Request", "", "no upgrade") }
    }
    fn without_deflate(head: &Head) -> Reply {
        let reply = accepted(head);
        if head.get("sec-websocket-extensions").is_some() { reply.and(frame(0xc1, "hello")) } else { reply.and(frame(0x81, "hello")) }
    }
    fn refuses_deflate(head: &Head) -> Reply {
        let refused = head.get("sec-websocket-extensions").is_some();
        if refused { status("400 Bad Request", "", "no extension") } else { accepted(head) }
    }
    assert_none(&check(&[
        case("a list, as Firefox", |head, _| only_upgrade(head), &["--as", "firefox"], 1, &["connection-list-rejected"], &["Connection", "Firefox"]),
        case("a list that is not to blame", |head, _| refuses_deflate(head), &["--as", "firefox"], 1, &["rejected"], &["--as bare"]),
        case("an offer of compression", |head, _| without_deflate(head), &[], 1, &["reserved-bit"], &["--as bare"]),
        case("no offer of compression", |head, _| without_deflate(head), &["--as", "bare"], 0, &[], &[]),
    ]));
}

#[test]
fn close_after_a_while_is_seen_with_wait() {
    let address = listen(|stream| {
        let mut late = stream.try_clone().unwrap();
        let close_later = move || {
            thread::sleep(Duration::from_secs(1));
            late.write_all(&close(4000, "idle")).ok();
            late.shutdown(Shutdown::Both).ok();
        };
        let mut reading = stream.try_clone().unwrap();
        let reply = |head: &Head| {
            thread::spawn(close_later);
            accepted(head)
        };
        respond(&mut reading, &stream, reply).ok();
    });
    let run = |name, arguments: &[&str], exit, codes: &[&str], words: &[&str]| {
        check_at(name, "ws://{host}/ws", address, arguments, Expected { exit, codes, words })
    };
    assert_none(
        &[
            run("without", &[], 0, &[], &[]),
            run("with", &["--wait", "3"], 1, &["closed-at-once"], &["4000", "idle"]),
        ]
        .concat(),
    );
}
