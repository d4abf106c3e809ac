//! Lines of `Sec-WebSocket-Key`.
#![no_main]

use fuzz::{handshake, parse, trim};
use libfuzzer_sys::fuzz_target;
use tower_ws_guard::accept_key;
use tungstenite::handshake::derive_accept_key;

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["sec-websocket-key"], input) else { return };
    if let Some(handshake) = parse(&mut parts, &head) {
        let key = handshake.key().expect("over HTTP/1.1 there is one");
        assert_eq!(key, trim(input));
        assert_eq!(accept_key(&key), derive_accept_key(&key).as_bytes());
    }
});
