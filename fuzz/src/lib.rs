//! Shared by the targets: an input is lines of text, each the value of a field.

use differential::oracle::{Head, Policy, Verdict};
use http::{HeaderName, HeaderValue, Request, request::Parts};
use tower_ws_guard::{Handshake, Rejection};

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
pub fn expected(head: &Head) -> Result<(), &'static str> {
    let any = Policy { any_origin: true, ..Policy::default() };
    match head.judge(&any).verdict {
        Verdict::Accepted(_) => Ok(()),
        Verdict::Rejected("origin-invalid" | "origin-repeated") => Ok(()),
        Verdict::Rejected(code) => Err(code),
        Verdict::Ordinary | Verdict::Malformed => unreachable!("a key or a version is there"),
    }
}

/// Parses the handshake, and compares the result with the oracle's.
pub fn parse<'a>(parts: &'a mut Parts, head: &Head) -> Option<Handshake<'a>> {
    let parsed = Handshake::parse(parts);
    let code = parsed.as_ref().map(drop).map_err(|rejection: &Rejection| rejection.kind().code());
    assert_eq!(code, expected(head), "{head:?}");
    parsed.ok()
}
