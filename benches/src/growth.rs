//! Costs that must not grow with the configuration, and not faster than the request.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, request::Parts};
use tower::{Layer, Service, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Drain, GuardLayer, PermessageDeflate, Sessions, StaticTokens,
    Subprotocols, TokenPolicy, TokenSource,
};

use crate::{
    Case, Operation, app, case, handshake,
    input::{self, HANDSHAKE, ORIGIN, TOKEN},
    operation,
    service::{Constant, SWITCH, call, call_each},
};

const ORIGINS: &str = "`GuardLayer` with many allowed origins";
const HOSTS: &str = "`GuardLayer` with many allowed hosts";
const SUBPROTOCOLS: &str = "`GuardLayer` with many subprotocols";
const TOKENS: &str = "`GuardLayer` with many static tokens";
const LINES: &str = "`GuardLayer` and lists of many lines";
const HOSTILE: &str = "`GuardLayer` and hostile values";

const CONNECTIONS: &str = "Many connections behind a `GuardLayer`";
const START: &str = "Making a policy for `GuardLayer`";

const K8: usize = 8 << 10;
const K64: usize = 64 << 10;

pub(crate) const CASES: &[Case] = &[
    case(ORIGINS, "1, accepted", || guarded(exact(1), HANDSHAKE, 101)),
    case(ORIGINS, "100,000, accepted", || guarded(exact(100_000), HANDSHAKE, 101)),
    case(ORIGINS, "1, rejected", || guarded(exact(1), input::foreign_origin(), 403)),
    case(ORIGINS, "100,000, rejected", || guarded(exact(100_000), input::foreign_origin(), 403)),
    case(ORIGINS, "1 wildcard, accepted", || guarded(wildcards(1), HANDSHAKE, 101)),
    case(ORIGINS, "10,000 wildcards, accepted", || guarded(wildcards(10_000), HANDSHAKE, 101)),
    case(ORIGINS, "1 wildcard, rejected", || guarded(wildcards(1), input::foreign_origin(), 403)),
    case(ORIGINS, "10,000 wildcards, rejected", || {
        guarded(wildcards(10_000), input::foreign_origin(), 403)
    }),
    case(ORIGINS, "1 wildcard, an origin of 240 labels rejected", || {
        guarded(wildcards(1), labels(), 403)
    }),
    case(ORIGINS, "10,000 wildcards, an origin of 240 labels rejected", || {
        guarded(wildcards(10_000), labels(), 403)
    }),
    case(HOSTS, "1, accepted", || guarded(hosts(1), HANDSHAKE, 101)),
    case(HOSTS, "10,000, accepted", || guarded(hosts(10_000), HANDSHAKE, 101)),
    case(HOSTS, "1, rejected", || guarded(hosts(1), foreign_host(), 421)),
    case(HOSTS, "10,000, rejected", || guarded(hosts(10_000), foreign_host(), 421)),
    case(SUBPROTOCOLS, "10 and an offer of 1, the last one", || {
        guarded(subprotocol_guard(10), offer(1, ", chat.v9"), 101)
    }),
    case(SUBPROTOCOLS, "1,000 and an offer of 1, the last one", || {
        guarded(subprotocol_guard(1000), offer(1, ", chat.v999"), 101)
    }),
    case(SUBPROTOCOLS, "10 and an offer of 100, rejected", || {
        guarded(subprotocol_guard(10), offer(100, ""), 400)
    }),
    case(SUBPROTOCOLS, "1,000 and an offer of 100, rejected", || {
        guarded(subprotocol_guard(1000), offer(100, ""), 400)
    }),
    case(TOKENS, "1, accepted", || {
        guarded(app::guard().token(tokens(1)).unwrap(), bearer(TOKEN), 101)
    }),
    case(TOKENS, "100,000, accepted", || {
        guarded(app::guard().token(tokens(100_000)).unwrap(), bearer(TOKEN), 101)
    }),
    case(TOKENS, "1, rejected", || {
        guarded(app::guard().token(tokens(1)).unwrap(), bearer("another"), 401)
    }),
    case(TOKENS, "100,000, rejected", || {
        guarded(app::guard().token(tokens(100_000)).unwrap(), bearer("another"), 401)
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
        guarded(
            wildcards(10_000),
            input::with("Origin", &format!("https://{}a", "a.".repeat(K64 / 2))),
            403,
        )
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
    case(CONNECTIONS, "a handshake, with 1 key in `Sessions`", || sessions(1)),
    case(CONNECTIONS, "a handshake, with 10,000 keys in `Sessions`", || sessions(10_000)),
    case(CONNECTIONS, "`Drain::start` with 1 connection", || start_drain(1)),
    case(CONNECTIONS, "`Drain::start` with 1,000 connections", || start_drain(1000)),
    case(START, "`AllowOrigin::or`, 50 times", || or(50)),
    case(START, "`AllowOrigin::or`, 200 times", || or(200)),
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
fn exact(count: usize) -> GuardLayer {
    let others = (1..count).map(|i| format!("https://app{i}.example.net"));
    GuardLayer::new(AllowOrigin::list(others.chain([ORIGIN.into()])).expect("valid origins"))
}

/// Only the last wildcard matches the handshake.
fn wildcards(count: usize) -> GuardLayer {
    let others = (1..count).map(|i| format!("https://*.app{i}.example.net"));
    let patterns = others.chain(["https://*.example.com".into()]);
    GuardLayer::new(AllowOrigin::list(patterns).expect("valid patterns"))
}

fn labels() -> String {
    input::with("Origin", &format!("https://{}a", "a.".repeat(239)))
}

/// Only the last host is that of the handshake.
fn hosts(count: usize) -> GuardLayer {
    let others = (1..count).map(|i| format!("app{i}.example.net"));
    let hosts = others.chain(["app.example.com".into()]);
    app::guard().allow_host(AllowHost::list(hosts).expect("valid hosts"))
}

fn foreign_host() -> String {
    input::with("Host", "evil.example")
}

fn subprotocol_guard(count: usize) -> GuardLayer {
    let names = (0..count).map(|i| format!("chat.v{i}"));
    app::guard().subprotocols(Subprotocols::list(names).expect("valid subprotocols"))
}

/// Of unknown subprotocols, and then others.
fn offer(count: usize, others: &str) -> String {
    let names = (0..count).map(|i| format!("unknown.v{i}")).collect::<Vec<_>>();
    input::and(&format!("Sec-WebSocket-Protocol: {}{others}\r\n", names.join(", ")))
}

/// The handshake of another key than those that are there.
fn sessions(keys: u64) -> Box<dyn Operation> {
    let sessions = Sessions::per_key(5, |request: &Parts| request.extensions.get::<u64>().copied())
        .expect("a maximum");
    let service = app::guard().sessions(&sessions).layer(service_fn(handshake::claim));
    let head = Bytes::from(HANDSHAKE);
    let request = move |key: u64| {
        let mut request = input::request::<()>(&head);
        request.extensions_mut().insert(key);
        request
    };
    let call = |key| service.clone().call(request(key)).now_or_never().expect("in memory");
    let held = (0..keys).map(call).collect::<Vec<_>>();
    let held = move || held.len() as u64;
    call_each(service, move || request(held()), 101)
}

/// Each connection waits for the end. The connections and their drain are dropped later.
fn start_drain(connections: usize) -> Box<dyn Operation> {
    let runtime = crate::service::runtime();
    let head = Bytes::from(HANDSHAKE);
    let setup = move || {
        let drain = Drain::new();
        let mut service = app::guard().drain(&drain).layer(service_fn(handshake::claim));
        let connections = (0..connections).map(|_| {
            let response = service.call(input::request::<()>(&head)).now_or_never();
            let mut response = response.expect("at once").expect("a response");
            let permit = response.body_mut().take().expect("a permit");
            let mut ended = Box::pin(permit.ended());
            assert!(ended.as_mut().now_or_never().is_none());
            (permit, ended)
        });
        let connections = connections.collect::<Vec<_>>();
        (drain, connections)
    };
    let mut later = Vec::new();
    operation(setup, move |(drain, connections)| {
        let _entered = runtime.enter();
        drain.start();
        later.push((drain, connections));
    })
}

fn or(count: usize) -> Box<dyn Operation> {
    let origin = |i| AllowOrigin::list([format!("https://app{i}.example.net")]).expect("an origin");
    let setup = move || (0..count).map(origin).collect::<Vec<_>>();
    operation(setup, |origins| origins.into_iter().reduce(AllowOrigin::or))
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
