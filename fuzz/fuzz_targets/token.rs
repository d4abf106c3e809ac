//! A query, and after it in turn lines of `Authorization`, `Cookie`, `Sec-WebSocket-Protocol` and
//! `X-API-Key`: the guard finds the tokens, and nobody else sees them. The first byte selects the
//! sources, and whether the first one wins.
#![no_main]

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use differential::{
    connection::run,
    oracle::{self, Source},
    policies,
    properties::handshake,
};
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, GuardLayer, PlainText, Rejection, Token, TokenPolicy, Verified};

const SOURCES: [Source; 7] = [
    Source::Authorization,
    Source::Cookie("c"),
    Source::Query("t"),
    Source::Subprotocol("p."),
    Source::Kubernetes,
    Source::Phoenix,
    Source::Pair("m"),
];

const MORE: [Source; 4] = [
    Source::Basic,
    Source::Header("x-api-key"),
    Source::HeaderScheme("authorization", "Token"),
    Source::SubprotocolBase64("b."),
];

/// A bit of the first byte removes one of them, and the last bit adds more.
static CHOICES: LazyLock<Vec<&[Source]>> = LazyLock::new(|| {
    let choice = |which: usize| {
        let sources = SOURCES.into_iter().enumerate().filter(|(at, _)| which >> at & 1 == 0);
        let more = MORE.into_iter().filter(|_| which >> SOURCES.len() & 1 == 1);
        &*sources.map(|(_, source)| source).chain(more).collect::<Vec<_>>().leak()
    };
    (0..2 << SOURCES.len()).map(choice).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((which, input)) = input.split_first() else { return };
    let sources = CHOICES[usize::from(*which) % CHOICES.len()];
    let split = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (query, lines) = (&input[..split], input.get(split + 1..).unwrap_or_default());
    let names = ["authorization", "cookie", "sec-websocket-protocol", "x-api-key"];
    let first_source_wins = which.count_ones() % 2 == 1;
    let Some((mut parts, mut head)) = handshake(&names, lines) else { return };
    let Ok(uri) = [b"/ws?", query].concat().try_into().map(|uri: http::Uri| uri) else { return };
    head.query = uri.query().unwrap_or_default().to_owned();
    parts.uri = uri;

    let verified = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&verified);
    let verify = move |token: Token| {
        seen.lock().expect("no panic before").push(token.expose().to_owned());
        std::future::ready(Ok::<_, Rejection>(Verified::new(())))
    };
    let Ok(policy) = TokenPolicy::from_sources(sources.iter().map(policies::source), verify) else {
        return;
    };
    let policy = if first_source_wins { policy.first_source_wins() } else { policy };
    let layer =
        GuardLayer::new(AllowOrigin::dangerous_any()).token(policy).unwrap().reject_with(PlainText);
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(format!("{request:?}")))
    });
    let answer = run(layer.layer(inner).oneshot(Request::from_parts(parts, ())));
    let answer = answer.expect("nothing to wait for").expect("a response");

    let all = oracle::Policy {
        any_origin: true,
        sources,
        first_source_wins,
        ..oracle::Policy::default()
    };
    let verified = std::mem::take(&mut *verified.lock().expect("no panic before"));
    let shown = format!("{:?} {}", answer.headers(), answer.body());
    match head.credential(&all) {
        Ok(token) => {
            assert_eq!(
                verified.iter().map(String::as_bytes).collect::<Vec<_>>(),
                [&*token],
                "{head:?}"
            );
            // The token was in one place, and no inner service sees it there. A short token may
            // equal other text.
            let standard = format!("{:?}", handshake(&names, b"").expect("a handshake").0);
            let token = &*verified[0];
            let is_told =
                token.len() >= 8 && !standard.contains(token) && !standard.contains(token.trim());
            // A client that sends the token a second time, without encoding, shows it itself.
            let text = String::from_utf8_lossy(input);
            let signs = ["base64url.bearer.", "%", "b.", "basic"];
            let encoded = signs.iter().any(|sign| text.to_ascii_lowercase().contains(sign));
            let once = text.matches(token).count() <= usize::from(!encoded);
            assert!(!(is_told && once && shown.contains(token)), "{shown}");
        }
        Err(code) => {
            assert!(verified.is_empty(), "{head:?}");
            assert!(answer.body().ends_with(&format!("({code})\n")), "{code} {head:?} {answer:?}");
            // A rejection shows its code, and nothing of the request.
            let told = TOLD.with_borrow_mut(|told| {
                // The challenge depends on the sources.
                told.entry((code, *which)).or_insert_with(|| shown.clone()).clone()
            });
            assert_eq!(shown, told);
        }
    }
});

thread_local! {
    static TOLD: RefCell<HashMap<(&'static str, u8), String>> = RefCell::default();
}
