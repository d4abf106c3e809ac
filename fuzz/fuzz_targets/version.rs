//! Lines of `Sec-WebSocket-Version` and `Content-Length` in turn.
#![no_main]

use fuzz::{handshake, parse, trim};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["sec-websocket-version", "content-length"], input)
    else {
        return;
    };
    if parse(&mut parts, &head).is_some() {
        assert!(trim(input).starts_with(b"13"));
    }
});
