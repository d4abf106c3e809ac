//! Lines of `Upgrade` and `Connection` in turn.
#![no_main]

use fuzz::{handshake, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["upgrade", "connection"], input) else { return };
    parse(&mut parts, &head);
});
