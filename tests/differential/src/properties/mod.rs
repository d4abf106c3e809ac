//! What holds of every input of a parser: it agrees with the oracle. The fuzz targets look for an input that breaks it, and the test
//! `inputs` tries all short ones. An input is lines of text, each the value of a field. A property returns whether the input is accepted.

mod extensions;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{GuardLayer, Handshake, Origin, PlainText, Rejection, accept_key};
use tungstenite::handshake::derive_accept_key;

pub use self::extensions::extensions;
use crate::{
    connection::run,
    oracle::{self, Accepted, Head, Policy, Verdict},
    policies,
};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake in which the lines of `input` replace the fields `names`: the first line is a value
/// of the first name, and so on in turn. `None` if a line is not a valid value.
pub fn handshake(names: &[&'static str], input: &[u8]) -> Option<(Parts, Head)> {
    let standard = [
        ("host", "chat.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-version", "13"),
        ("origin", "https://app.example.com"),
    ];
    let standard = standard.into_iter().filter(|(name, _)| !names.contains(name));
    let standard = standard.map(|(name, value)| (name, value.as_bytes()));
    let lines = input.split(|&byte| byte == b'\n').filter(|_| !input.is_empty()).enumerate();
    let given = lines.map(|(at, line)| (names[at % names.len()], line));
    let mut request = Request::get("/ws").body(()).ok()?;
    for (name, value) in standard.chain(given) {
        request
            .headers_mut()
            .append(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?);
    }
    let head = Head::from(&request);
    Some((request.into_parts().0, head))
}

pub fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = value.iter().position(|byte| !is_space(byte)) else { return b"" };
    let end = value.iter().rposition(|byte| !is_space(byte)).unwrap_or(start);
    &value[start..=end]
}

/// The oracle's result for the syntax alone.
fn expected(head: &Head) -> Result<(), &'static str> {
    let any = Policy { any_origin: true, ..Policy::default() };
    match head.judge(&any).verdict {
        Verdict::Accepted(_) => Ok(()),
        Verdict::Rejected("origin-invalid" | "origin-repeated") => Ok(()),
        Verdict::Rejected(code) => Err(code),
        Verdict::Ordinary | Verdict::Malformed => unreachable!("a key or a version is there"),
    }
}

/// Parses the handshake, and compares the result with the oracle's.
fn parse<'a>(parts: &'a mut Parts, head: &Head) -> Option<Handshake<'a>> {
    let parsed = Handshake::parse(parts);
    let code = parsed.as_ref().map(drop).map_err(|rejection: &Rejection| rejection.kind().code());
    assert_eq!(code, expected(head), "{head:?}");
    parsed.ok()
}

/// Lines of `Sec-WebSocket-Key`.
pub fn key(input: &[u8]) -> bool {
    let Some((mut parts, head)) = handshake(&["sec-websocket-key"], input) else { return false };
    let Some(handshake) = parse(&mut parts, &head) else { return false };
    let key = handshake.key().expect("over HTTP/1.1 there is one");
    assert_eq!(key, trim(input));
    assert_eq!(accept_key(&key), derive_accept_key(&key).as_bytes());
    true
}

/// Lines of `Sec-WebSocket-Version` and `Content-Length` in turn.
pub fn version(input: &[u8]) -> bool {
    let names = ["sec-websocket-version", "content-length"];
    let Some((mut parts, head)) = handshake(&names, input) else { return false };
    if parse(&mut parts, &head).is_none() {
        return false;
    }
    assert!(trim(input).starts_with(b"13"));
    true
}

/// Lines of `Upgrade` and `Connection` in turn.
pub fn lists(input: &[u8]) -> bool {
    let names = ["upgrade", "connection"];
    let Some((mut parts, head)) = handshake(&names, input) else { return false };
    parse(&mut parts, &head).is_some()
}

/// Lines of `Host`, and lists of hosts.
pub fn host(input: &[u8]) -> bool {
    const HOSTS: &[&str] = &["chat.example.com", "*.example.org:*", "127.0.0.1:8080", "[::1]:3000"];

    let Some((mut parts, head)) = handshake(&["host"], input) else { return false };
    let Some(handshake) = parse(&mut parts, &head) else { return false };
    let (name, port) = (handshake.host().name(), handshake.host().port());
    let sent = String::from_utf8_lossy(trim(input));
    assert!(sent == name || port.is_some() && sent.starts_with(&format!("{name}:")), "{sent}");

    let listed = Policy { hosts: HOSTS, any_origin: true, ..Policy::default() };
    let loopback = Policy { loopback: true, any_origin: true, ..Policy::default() };
    for policy in [listed, loopback] {
        let allowed = policies::allow_host(&policy).expect("a list").allows(handshake.host());
        let expected = head.judge(&policy).verdict != Verdict::Rejected("host-not-allowed");
        assert_eq!(allowed, expected, "{sent} {policy:?}");
    }
    true
}

/// `Origin::parse` against a second implementation of the WHATWG serialization, and of the other ways to write an origin.
pub fn origin(input: &[u8]) -> bool {
    let parsed = Origin::parse(input).ok();
    let expected = oracle::Origin::parse(input);
    let of = |origin: &Origin<'_>| {
        let port = origin.effective_port().map(u32::from);
        (origin.scheme().to_owned(), origin.host().to_owned(), port)
    };
    assert_eq!(
        parsed.as_ref().map(of),
        expected.map(|it| (it.scheme.clone(), it.host.clone(), it.effective_port())),
        "{}",
        input.escape_ascii()
    );
    let Some(origin) = parsed else { return false };
    // The normal form is the only one of its kind, and the same origin.
    let normal = origin.to_string();
    let again: Origin<'static> = normal.parse().expect("an origin");
    assert_eq!((&again, again.to_string()), (&origin, normal));
    assert!(origin.effective_port() >= origin.port());
    true
}

/// Lines of `Sec-WebSocket-Protocol`: the offers, and the selected one.
pub fn subprotocol(input: &[u8]) -> bool {
    let Some((mut parts, head)) = handshake(&["sec-websocket-protocol"], input) else {
        return false;
    };
    let Some(parsed) = parse(&mut parts, &head) else { return false };
    let elements =
        input.split(|byte| b",\n".contains(byte)).map(trim).filter(|element| !element.is_empty());
    assert!(parsed.subprotocols().map(str::as_bytes).eq(elements));

    let policy = Policy {
        any_origin: true,
        subprotocols: Some(&["v2.chat", "chat", "a"]),
        ..Policy::default()
    };
    let guard = GuardLayer::new(policies::allow_origin(&policy)).reject_with(PlainText);
    let guard = guard.subprotocols(policies::subprotocols(&policy).expect("there are some"));
    let switch = service_fn(async |_: Request<()>| {
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).body(String::new())
    });
    let answer = run(guard.layer(switch).oneshot(Request::from_parts(parts, ())));
    let answer = answer.expect("nothing to wait for").expect("a response");
    let lines = answer.headers().get_all("sec-websocket-protocol").iter();
    let named = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>();
    match head.judge(&policy).verdict {
        Verdict::Accepted(Accepted { subprotocol: chosen, .. }) => {
            let chosen = Vec::from_iter(chosen.as_deref().map(str::as_bytes));
            assert!(answer.status() == 101 && named == chosen, "{named:?} {chosen:?}");
            true
        }
        verdict => {
            assert!(answer.body().contains("subprotocol-unsupported"), "{verdict:?}");
            assert!(named.is_empty(), "{verdict:?}");
            false
        }
    }
}
