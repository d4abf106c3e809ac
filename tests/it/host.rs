//! `Host`: how it is parsed, and which hosts `AllowHost` allows.

use tower_ws_guard::{AllowHost, AllowOrigin, Handshake, OriginCheckLayer};

use crate::{common::handshake, origin::code};

#[tokio::test]
async fn host_is_compared_with_its_port() {
    let hosts =
        AllowHost::list(["chat.example.com", "Alt.example.com:8080", "[::1]:3000"]).unwrap();
    for (host, expected) in [
        ("chat.example.com", "ok"),
        ("CHAT.example.com", "ok"),
        ("alt.example.com:8080", "ok"),
        ("[::1]:3000", "ok"),
        ("chat.example.com:80", "host-not-allowed"),
        ("chat.example.com:8080", "host-not-allowed"),
        ("alt.example.com", "host-not-allowed"),
        ("alt.example.com:8081", "host-not-allowed"),
        ("x.chat.example.com", "host-not-allowed"),
        ("chat.example.com.evil.example", "host-not-allowed"),
        ("chat.example.com.", "host-not-allowed"),
        ("attacker.example", "host-not-allowed"),
        ("[::1]", "host-not-allowed"),
    ] {
        // After DNS rebinding the page has the same origin as the server.
        let raw = handshake()
            .with("Host", host)
            .with("Origin", format!("http://{}", host.to_lowercase()));
        let layer = OriginCheckLayer::new(AllowOrigin::dangerous_any()).allow_host(hosts.clone());
        let raw = if host.ends_with('.') { raw.without("Origin") } else { raw };
        assert_eq!(code(layer, &raw).await, expected, "{host}");
    }
}

#[test]
fn host_is_parsed_in_every_form() {
    for (host, name, port) in [
        ("chat%41%5a", "chat%41%5a", None),
        ("[v1.a:b]", "[v1.a:b]", None),
        ("[vF.~]:080", "[vF.~]", Some(80)),
        ("[2001:DB8::1]:99999", "[2001:DB8::1]", Some(99_999)),
    ] {
        let (mut parts, ()) = handshake().with("Host", host).request::<()>().into_parts();
        let read = Handshake::parse(&mut parts).unwrap().host();
        assert_eq!((read.name(), read.port()), (name, port));
    }
}
