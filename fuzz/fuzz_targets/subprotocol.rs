//! Lines of `Sec-WebSocket-Protocol`: the offers, and the selected one.
#![no_main]

use differential::{
    connection::run,
    oracle::{Accepted, Policy, Verdict},
    policies,
};
use fuzz::{handshake, parse, trim};
use http::{Request, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{GuardLayer, PlainText};

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["sec-websocket-protocol"], input) else { return };
    let Some(parsed) = parse(&mut parts, &head) else { return };
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
    let named = answer
        .headers()
        .get_all("sec-websocket-protocol")
        .iter()
        .map(|line| line.as_bytes())
        .collect::<Vec<_>>();
    match head.judge(&policy).verdict {
        Verdict::Accepted(Accepted { subprotocol: chosen, .. }) => {
            assert!(
                answer.status() == 101
                    && named == Vec::from_iter(chosen.as_deref().map(str::as_bytes)),
                "{named:?} {chosen:?}"
            )
        }
        verdict => assert!(
            answer.body().contains("subprotocol-unsupported") && named.is_empty(),
            "{verdict:?}"
        ),
    }
});
