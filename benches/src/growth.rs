//! Costs that must not grow with the configuration, and not faster than the request.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{Layer, Service};
use tower_ws_guard::{
    AllowHost, AllowOrigin, GuardLayer, PermessageDeflate, StaticTokens, Subprotocols, TokenPolicy,
    TokenSource,
};

use crate::{
    Case, Operation, app, case,
    input::{self, HANDSHAKE, ORIGIN, TOKEN},
    service::{Constant, SWITCH, call},
};

const ORIGINS: &str = "`GuardLayer` with many allowed origins";
const HOSTS: &str = "`GuardLayer` with many allowed hosts";
const SUBPROTOCOLS: &str = "`GuardLayer` with many subprotocols, 100 offered";
const TOKENS: &str = "`GuardLayer` with many static tokens";
const LINES: &str = "`GuardLayer` and lists of many lines";
const HOSTILE: &str = "`GuardLayer` and hostile values";

const K8: usize = 8 << 10;
const K64: usize = 64 << 10;

pub(crate) const CASES: &[Case] = &[
    case(ORIGINS, "1, accepted", || {
        guarded(GuardLayer::new(origins("https://app", 1)), HANDSHAKE, 101)
    }),
    case(ORIGINS, "10,000, accepted", || {
        guarded(GuardLayer::new(origins("https://app", 10_000)), HANDSHAKE, 101)
    }),
    case(ORIGINS, "1, rejected", || {
        guarded(GuardLayer::new(origins("https://app", 1)), input::foreign_origin(), 403)
    }),
    case(ORIGINS, "10,000, rejected", || {
        guarded(GuardLayer::new(origins("https://app", 10_000)), input::foreign_origin(), 403)
    }),
    case(ORIGINS, "10,000 with all subdomains of each, accepted", || {
        guarded(GuardLayer::new(origins("https://*.app", 10_000)), HANDSHAKE, 101)
    }),
    case(ORIGINS, "10,000 with all subdomains of each, rejected", || {
        guarded(GuardLayer::new(origins("https://*.app", 10_000)), input::foreign_origin(), 403)
    }),
    case(ORIGINS, "10,000 with all subdomains of each, an origin of 120 labels rejected", || {
        let origin = format!("https://{}a", "a.".repeat(119));
        guarded(
            GuardLayer::new(origins("https://*.app", 10_000)),
            input::with("Origin", &origin),
            403,
        )
    }),
    case(HOSTS, "1, accepted", || guarded(app::guard().allow_host(hosts(1)), HANDSHAKE, 101)),
    case(HOSTS, "10,000, accepted", || {
        guarded(app::guard().allow_host(hosts(10_000)), HANDSHAKE, 101)
    }),
    case(SUBPROTOCOLS, "1, rejected", || unsupported(1)),
    case(SUBPROTOCOLS, "1,000, rejected", || unsupported(1000)),
    case(TOKENS, "1, accepted", || {
        guarded(app::guard().token(tokens(1)).unwrap(), bearer(TOKEN), 101)
    }),
    case(TOKENS, "10,000, accepted", || {
        guarded(app::guard().token(tokens(10_000)).unwrap(), bearer(TOKEN), 101)
    }),
    case(TOKENS, "1, rejected", || {
        guarded(app::guard().token(tokens(1)).unwrap(), bearer("another"), 401)
    }),
    case(TOKENS, "10,000, rejected", || {
        guarded(app::guard().token(tokens(10_000)).unwrap(), bearer("another"), 401)
    }),
    case(LINES, "no more than Chrome's", || guarded(app::guard(), HANDSHAKE, 101)),
    case(LINES, "100 of `Connection`", || {
        guarded(app::guard(), lines(|_| "Connection: keep-alive".into()), 101)
    }),
    case(LINES, "100 of `Upgrade`", || {
        guarded(app::guard(), lines(|_| "Upgrade: h2c".into()), 101)
    }),
    case(LINES, "100 of `Sec-WebSocket-Protocol`", || {
        guarded(app::guard(), lines(|i| format!("Sec-WebSocket-Protocol: chat.v{i}")), 101)
    }),
    case(LINES, "100 of `Sec-WebSocket-Protocol`, and one is chosen", || {
        let guard = app::guard().subprotocols(app::subprotocols());
        guarded(guard, lines(|i| format!("Sec-WebSocket-Protocol: chat.v{i}")), 101)
    }),
    case(LINES, "100 of `Cookie`, with a token in one", || {
        guarded(
            cookie(),
            input::and(&format!("Cookie: token={TOKEN}\r\n{}", "Cookie: a=b\r\n".repeat(99))),
            101,
        )
    }),
    case(HOSTILE, "8 KiB of `Connection: ,,…`", || {
        hostile("Connection", ",", K8, ", Upgrade", 101)
    }),
    case(HOSTILE, "64 KiB of `Connection: ,,…`", || {
        hostile("Connection", ",", K64, ", Upgrade", 101)
    }),
    case(HOSTILE, "64 KiB of `Connection: upgrad,…`", || {
        hostile("Connection", "upgrad,", K64, " Upgrade", 101)
    }),
    case(HOSTILE, "8 KiB of `Upgrade: websocke…`", || {
        hostile("Upgrade", "websocke", K8, ", websocket", 101)
    }),
    case(HOSTILE, "64 KiB of `Upgrade: websocke…`", || {
        hostile("Upgrade", "websocke", K64, ", websocket", 101)
    }),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Protocol: ,,…`", || {
        guarded(
            app::guard(),
            input::and(&format!("Sec-WebSocket-Protocol: {}a\r\n", ",".repeat(K64))),
            400,
        )
    }),
    case(HOSTILE, "8 KiB of `Sec-WebSocket-Protocol`, 128 equally long elements", || {
        guarded(app::guard(), subprotocols(K8), 101)
    }),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Protocol`, 128 equally long elements", || {
        guarded(app::guard(), subprotocols(K64), 101)
    }),
    case(HOSTILE, "64 KiB of `Origin: https://aa…`", || {
        guarded(app::guard(), input::with("Origin", &format!("https://{}", "a".repeat(K64))), 403)
    }),
    case(HOSTILE, "64 KiB of `Origin: https://a.a.…`, 10,000 patterns", || {
        let guard = GuardLayer::new(origins("https://*.app", 10_000));
        guarded(guard, input::with("Origin", &format!("https://{}a", "a.".repeat(K64 / 2))), 403)
    }),
    case(HOSTILE, "8 KiB of `Sec-WebSocket-Extensions: a;a;…`, negotiated", || {
        extensions("a;", K8, "a", 101)
    }),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Extensions: a;a;…`, negotiated", || {
        extensions("a;", K64, "a", 101)
    }),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Extensions: a,a,…`, negotiated", || {
        extensions("a,", K64, "a", 101)
    }),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Extensions: a;a=\"\\a\\a…`, negotiated", || {
        extensions("\\a", K64, "", 400)
    }),
    case(HOSTILE, "8 KiB of `Host: aa…`", || hostile("Host", "a", K8, "", 101)),
    case(HOSTILE, "64 KiB of `Host: aa…`", || hostile("Host", "a", K64, "", 101)),
    case(HOSTILE, "64 KiB of `Sec-WebSocket-Key: AA…`", || {
        hostile("Sec-WebSocket-Key", "A", K64, "==", 400)
    }),
    case(HOSTILE, "8 KiB of `Cookie: a;…`, with a token behind", || {
        guarded(cookie(), cookies(K8), 101)
    }),
    case(HOSTILE, "64 KiB of `Cookie: a;…`, with a token behind", || {
        guarded(cookie(), cookies(K64), 101)
    }),
    case(HOSTILE, "64 KiB of `Authorization: Bearer aa…`", || {
        guarded(app::guard().token(tokens(1)).unwrap(), bearer(&"a".repeat(K64)), 401)
    }),
];

/// Accepts behind the guard.
fn guarded<L>(guard: L, head: impl Into<String>, status: u16) -> Box<dyn Operation>
where
    L: Layer<
            Constant,
            Service: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
        >,
{
    call(guard.layer(SWITCH), head, status)
}

/// Only the last origin is that of the handshake.
fn origins(prefix: &str, count: usize) -> AllowOrigin {
    let others = (1..count).map(|i| format!("{prefix}{i}.example.net"));
    AllowOrigin::list(others.chain([ORIGIN.into()])).expect("valid origins")
}

fn hosts(count: usize) -> AllowHost {
    let others = (1..count).map(|i| format!("app{i}.example.net"));
    AllowHost::list(others.chain(["app.example.com".into()])).expect("valid hosts")
}

/// None of the offered subprotocols is one of the server.
fn unsupported(count: usize) -> Box<dyn Operation> {
    let ours = Subprotocols::list((0..count).map(|i| format!("ours.v{i}"))).expect("valid names");
    let guard = app::guard().subprotocols(ours);
    guarded(guard, lines(|i| format!("Sec-WebSocket-Protocol: chat.v{i}")), 400)
}

fn tokens(count: usize) -> TokenPolicy<usize> {
    let others = (1..count).map(|i| (format!("another-token-{i}"), i));
    TokenPolicy::bearer(StaticTokens::new(others.chain([(TOKEN.into(), 0)])).unwrap())
}

fn bearer(token: &str) -> String {
    input::and(&format!("Authorization: Bearer {token}\r\n"))
}

fn lines(line: fn(usize) -> String) -> String {
    input::and(&(1..=100).map(|i| line(i) + "\r\n").collect::<String>())
}

fn hostile(name: &str, part: &str, length: usize, end: &str, status: u16) -> Box<dyn Operation> {
    guarded(app::guard(), input::with(name, &(part.repeat(length / part.len()) + end)), status)
}

fn extensions(part: &str, length: usize, end: &str, status: u16) -> Box<dyn Operation> {
    let start = if status == 400 { "a;a=\"" } else { "" };
    let list = format!("{start}{}{end}", part.repeat(length / part.len()));
    let guard = app::guard().extensions(PermessageDeflate::new());
    guarded(guard, input::with("Sec-WebSocket-Extensions", &list), status)
}

/// The maximum number of elements, which differ only at their ends.
fn subprotocols(length: usize) -> String {
    let elements = (100..228).map(|i| "a".repeat(length / 128 - 4) + &i.to_string());
    input::and(&format!("Sec-WebSocket-Protocol: {}\r\n", elements.collect::<Vec<_>>().join(",")))
}

fn cookie() -> GuardLayer {
    let sources = [TokenSource::cookie("token").expect("a valid name")];
    let tokens = StaticTokens::new([(TOKEN, 7)]).unwrap();
    app::guard().token(TokenPolicy::from_sources(sources, tokens).expect("one source")).unwrap()
}

fn cookies(length: usize) -> String {
    input::with("Cookie", &format!("{}token={TOKEN}", "a; ".repeat(length / 3)))
}
