//! A pattern of an allow-list, and after a line end an origin: the list allows it if and only if
//! the pattern matches.
#![no_main]

use differential::{
    connection, oracle,
    properties::{handshake, trim},
};
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, OriginCheckLayer};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((pattern, origin)) = text.split_once('\n') else { return };
    let Ok(allowed) = AllowOrigin::list([pattern]) else { return };
    let Some((parts, _)) = handshake(&["origin"], origin.as_bytes()) else { return };
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(true)));
    let answer = connection::run(
        OriginCheckLayer::new(allowed).layer(inner).oneshot(Request::from_parts(parts, ())),
    );
    let accepted = answer.and_then(Result::ok).is_some_and(|response| *response.body());
    let pattern = pattern.to_ascii_lowercase();
    let expected = oracle::Origin::parse(trim(origin.as_bytes()))
        .is_some_and(|origin| origin.matches(&pattern));
    assert_eq!(accepted, expected, "{pattern} and {origin:?}");
});
