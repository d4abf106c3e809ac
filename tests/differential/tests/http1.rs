//! HTTP/1.1 as bytes, through hyper and the guard, to whoever makes WebSockets of requests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    sync::Arc,
};

use axum::extract::{FromRequestParts, ws::WebSocketUpgrade};
use differential::{
    connection::{
        Body, Calls, End, Inner, answer, compare, guarded, recorded, responder, run, serve,
    },
    generate::{self, CLASSES},
    oracle::{Policy, Verdict, judge_stream},
    policies::POLICIES,
};
use fastrand::Rng;
use http::{Request, Response};
use tower::service_fn;
use tungstenite::handshake::{derive_accept_key, server::create_response};

/// Whoever takes a request for a handshake answers it.
type Handshaker = fn(Request<()>) -> Option<Response<()>>;

const HANDSHAKERS: [(&str, Handshaker); 5] = [
    ("axum", |request| {
        let (mut parts, ()) = request.into_parts();
        let upgrade = run(WebSocketUpgrade::from_request_parts(&mut parts, &())).unwrap().ok()?;
        Some(upgrade.on_upgrade(async |_| {}).map(drop))
    }),
    ("tungstenite", |request| create_response(&request).ok()),
    ("fastwebsockets", |request| Some(fastwebsockets::upgrade::upgrade(request).ok()?.0.map(drop))),
    ("hyper-tungstenite", |request| {
        Some(hyper_tungstenite::upgrade(request, None).ok()?.0.map(drop))
    }),
    ("soketto", |request| soketto::handshake::http::Server::new().receive_request(&request).ok()),
];

fn inner(handshaker: Handshaker) -> Inner {
    Inner::new(service_fn(move |request| {
        ready(Ok(match handshaker(request) {
            Some(response) => {
                let mut response = response.map(|()| Body::new());
                response.headers_mut().insert("x-code", "accepted".parse().unwrap());
                response
            }
            None => answer(400, "declined"),
        }))
    }))
}

/// Why a handshaker may reject what the guard lets in.
fn is_stricter(handshaker: &str, request: &Request<()>) -> bool {
    let key = request.headers()["sec-websocket-key"].to_str().unwrap();
    match handshaker {
        // It wants no bits behind the 16th byte of the key.
        "tungstenite" => !key.trim_end_matches('=').ends_with(['A', 'Q', 'g', 'w']),
        // It reads them as text, before it knows that it supports none.
        "soketto" => request
            .headers()
            .get_all("sec-websocket-extensions")
            .iter()
            .any(|line| str::from_utf8(line.as_bytes()).is_err()),
        _ => false,
    }
}

/// `name` in the environment, so that more can be tried, or one of them again.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[test]
fn nothing_but_an_allowed_handshake_is_upgraded() {
    // Some of them spawn what they do with the connection. It never runs.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let calls = Calls::default();
    let app = |policy: &Policy, inner| guarded(policy, recorded(inner, Arc::clone(&calls)));
    let apps = POLICIES.map(|policy| {
        // A layer that completes handshakes leaves them nothing.
        let outside = HANDSHAKERS.iter().filter(|_| !policy.completes);
        let handshakers =
            outside.map(|(name, handshaker)| (*name, app(&policy, inner(*handshaker))));
        handshakers.chain([("this crate", app(&policy, responder(&policy)))]).collect::<Vec<_>>()
    });

    let (seed, first) = (setting("DIFFERENTIAL_SEED", 1), setting("DIFFERENTIAL_FIRST", 0));
    let count = setting("DIFFERENTIAL_COUNT", 20_000);
    let mut tally = BTreeMap::<&str, BTreeMap<End, u64>>::new();
    let (mut answered_by, mut accepted_by, mut agreed_by, mut requests) =
        (BTreeMap::<&str, u64>::new(), BTreeSet::new(), BTreeSet::new(), 0);
    for case in first..first + count {
        let name =
            format!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_FIRST={case} DIFFERENTIAL_COUNT=1");
        let mut rng = Rng::with_seed(seed << 40 ^ case);
        let policy = rng.usize(..POLICIES.len());
        let (class, input) = generate::connection(&mut rng, &POLICIES[policy]);
        let (handshaker, app) = &apps[policy][rng.usize(..apps[policy].len())];
        let piece = [usize::MAX, usize::MAX, 1, 7, 100][rng.usize(..5)];
        let policy = &POLICIES[policy];
        let outcome = serve(app, &calls, input.clone(), piece);
        requests += outcome.responses.len() as u64;

        let end = compare(&input, policy, &outcome)
            .unwrap_or_else(|why| panic!("{name}\n{handshaker}: {why}"));
        // Whether or not it was asked, each must see a handshake in it exactly if it is one.
        for request in &outcome.calls {
            let upgrade = differential::connection::is_upgrade(request);
            // The others look for the connection, too.
            let readers =
                |name: &str| !policy.completes || ["tungstenite", "soketto"].contains(&name);
            for (name_of, handshaker) in HANDSHAKERS.into_iter().filter(|(name, _)| readers(name)) {
                let accepts = handshaker(request.clone()).is_some();
                let expected = upgrade && !is_stricter(name_of, request);
                assert_eq!(accepts, expected, "{name}\n{name_of}: {request:?}");
            }
        }
        match end {
            End::Accepted => {
                let key =
                    outcome.calls.last().unwrap().headers()["sec-websocket-key"].to_str().unwrap();
                let accept = outcome
                    .responses
                    .last()
                    .unwrap()
                    .lines("sec-websocket-accept")
                    .next()
                    .map(str::to_owned);
                assert_eq!(accept, Some(derive_accept_key(key.as_bytes())), "{name}");
                *answered_by.entry(handshaker).or_default() += 1;
                accepted_by.insert(policy.name);
                if let Some(Verdict::Accepted(accepted)) =
                    judge_stream(&input, policy).pop().map(|judgement| judgement.verdict)
                {
                    agreed_by.insert((policy.name, accepted.extensions.agreed.is_some()));
                }
            }
            End::Declined => assert!(
                is_stricter(handshaker, outcome.calls.last().unwrap()),
                "{name}\n{handshaker}"
            ),
            _ => {}
        }
        *tally.entry(class).or_default().entry(end).or_default() += 1;
    }

    println!("{count} connections from seed {seed}, {requests} requests answered");
    for (class, ends) in &tally {
        println!("{class}: {}", ends.values().sum::<u64>());
        for (end, count) in ends {
            println!("    {end:?} {count}");
        }
    }
    println!("accepted: {answered_by:?}");
    if count < 20_000 {
        return;
    }
    // And those wrong in several ways, and those that are cut off.
    assert_eq!(tally.len(), CLASSES.len() + 2);
    assert_eq!(answered_by.len(), HANDSHAKERS.len() + 1);
    let open = POLICIES.iter().filter(|policy| !policy.draining && policy.places != Some(0));
    assert_eq!(accepted_by, open.map(|policy| policy.name).collect());
    for policy in POLICIES.iter().filter(|policy| policy.extensions.is_some()) {
        for agreed in [true, false] {
            assert!(agreed_by.contains(&(policy.name, agreed)), "{}: {agreed}", policy.name);
        }
    }
    let seen = tally.values().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>();
    for code in CODES {
        assert!(seen.contains(&End::Rejected(code.to_owned())), "{code}");
    }
    for end in
        [End::Accepted, End::Declined, End::Ordinary, End::ByHyper, End::Unfinished, End::Lost]
    {
        assert!(seen.contains(&end), "{end:?}");
    }
}

/// All that a request over HTTP/1.1 can be rejected for by [`POLICIES`].
const CODES: [&str; 25] = [
    "method-not-allowed",
    "http-version",
    "upgrade-missing",
    "connection-missing",
    "host-invalid",
    "key-missing",
    "key-repeated",
    "key-invalid",
    "version-missing",
    "version-invalid",
    "version-unsupported",
    "body-present",
    "subprotocol-invalid",
    "extension-invalid",
    "host-not-allowed",
    "origin-repeated",
    "origin-invalid",
    "origin-missing",
    "origin-not-allowed",
    "subprotocol-unsupported",
    "token-missing",
    "token-ambiguous",
    "token-invalid",
    "over-capacity",
    "shutting-down",
];

/// The comparison can fail: with another policy's answers, it does.
#[test]
fn an_answer_of_another_policy_is_noticed() {
    let calls = Calls::default();
    let [list, open] = [&POLICIES[0], &POLICIES[4]];
    let served = |policy, input: &[u8]| {
        let app = guarded(policy, recorded(inner(HANDSHAKERS[1].1), Arc::clone(&calls)));
        serve(&app, &calls, input.to_vec(), usize::MAX)
    };
    let foreign = b"GET /ws HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://evil.example\r\n\r\n";
    assert_eq!(judge_stream(foreign, list)[0].verdict, Verdict::Rejected("origin-not-allowed"));
    // Behind the second the oracle is lost, and what comes of the handshake must be noticed all the same.
    let coded = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    for (before, end) in [(&b""[..], End::Accepted), (coded, End::Lost)] {
        let input = [before, foreign].concat();
        let outcome = served(open, &input);
        assert_eq!(outcome.responses.last().unwrap().status, 101);
        assert_eq!(compare(&input, open, &outcome), Ok(end));
        assert!(
            compare(&input, list, &outcome)
                .unwrap_err()
                .contains("behind the guard: origin-not-allowed")
        );
    }
    assert!(
        compare(foreign, open, &served(list, foreign)).unwrap_err().contains("another verdict")
    );
}
