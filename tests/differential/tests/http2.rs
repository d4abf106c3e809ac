//! WebSocket over HTTP/2 (RFC 8441): extended CONNECT from hyper's client, through hyper's server and the guard.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::{FromRequestParts, ws::WebSocketUpgrade};
use differential::{
    connection::{
        Body, CODE, Calls, Inner, answer, compare_stream, guarded, judge_admitted, recorded,
        responder,
    },
    generate::{Stream, stream},
    policies::POLICIES,
};
use fastrand::Rng;
use http::Request;
use hyper::{client, server};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tower::service_fn;

/// axum is the one handshaker that knows HTTP/2.
fn axum() -> Inner {
    Inner::new(service_fn(async |request: Request<()>| {
        let (mut parts, ()) = request.into_parts();
        let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
            return Ok(answer(400, "declined"));
        };
        let mut response = upgrade.on_upgrade(async |_| {}).map(|_| Body::new());
        response.headers_mut().insert(CODE, "accepted".parse().unwrap());
        Ok(response)
    }))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[test]
fn nothing_but_an_allowed_handshake_is_accepted() {
    let (seed, first) = (setting("DIFFERENTIAL_SEED", 1), setting("DIFFERENTIAL_FIRST", 0));
    let count = setting("DIFFERENTIAL_COUNT", 5_000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let calls = Calls::default();
    let mut tally = BTreeMap::<&str, BTreeMap<String, u64>>::new();
    // A connection for each policy and handshaker, and a new one from time to time.
    for cases in (first..first + count).collect::<Vec<_>>().chunks(2_000) {
        runtime.block_on(async {
            let mut clients = Vec::new();
            for policy in &POLICIES {
                let outside = (!policy.completes).then(axum);
                for inner in outside.into_iter().chain([responder(policy)]) {
                    let app = guarded(policy, recorded(inner, Arc::clone(&calls)));
                    let (client, server) = tokio::io::duplex(64 * 1024);
                    let mut http2 = server::conn::http2::Builder::new(TokioExecutor::new());
                    http2.enable_connect_protocol();
                    tokio::spawn(
                        http2.serve_connection(TokioIo::new(server), TowerToHyperService::new(app)),
                    );
                    let (client, connection) =
                        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
                            .await
                            .unwrap();
                    tokio::spawn(connection);
                    clients.push((policy, client));
                }
            }
            // Until the server's settings are here, its client knows of no extended CONNECT.
            for (_, client) in &mut clients {
                client
                    .send_request(Request::get("http://a/").body(Body::new()).unwrap())
                    .await
                    .unwrap();
            }
            calls.lock().unwrap().clear();

            for &case in cases {
                let name = format!(
                    "DIFFERENTIAL_SEED={seed} DIFFERENTIAL_FIRST={case} DIFFERENTIAL_COUNT=1"
                );
                let mut rng = Rng::with_seed(seed << 40 ^ case);
                let at = rng.usize(..clients.len());
                let (policy, client) = &mut clients[at];
                let Stream { class, head, request } = stream(&mut rng, policy);
                let response = client.send_request(request.map(|()| Body::new())).await;
                let calls = std::mem::take(&mut *calls.lock().unwrap());
                let response = match response {
                    Ok(response) => response,
                    // hyper's client does not send everything, nor its server take it.
                    Err(why) => {
                        assert_eq!(judge_admitted(&calls, policy), Ok(()), "{name}\n{head:?}");
                        // An earlier request may have ended the connection.
                        let unsent = (why.is_user() || why.is_canceled()) && calls.is_empty();
                        assert!(
                            unsent || head.judge(policy).lenient.is_some(),
                            "{name}\n{head:?}\n{why:?}"
                        );
                        *tally
                            .entry(class)
                            .or_default()
                            .entry("by hyper".to_owned())
                            .or_default() += 1;
                        continue;
                    }
                };

                let code = compare_stream(&head, policy, &calls, &response.map(drop));
                let code = code.unwrap_or_else(|why| panic!("{name}\n{why}"));
                *tally.entry(class).or_default().entry(code).or_default() += 1;
            }
        });
    }

    println!("{count} requests from seed {seed}");
    for (class, codes) in &tally {
        println!("{class}: {}", codes.values().sum::<u64>());
        for (code, count) in codes {
            println!("    {code} {count}");
        }
    }
    if count < 5_000 {
        return;
    }
    for code in CODES {
        assert!(tally.values().any(|codes| codes.contains_key(code)), "{code}");
    }
}

/// All that a request over HTTP/2 can come to by [`POLICIES`].
const CODES: [&str; 22] = [
    "accepted",
    "ordinary",
    "method-not-allowed",
    "upgrade-missing",
    "host-invalid",
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
