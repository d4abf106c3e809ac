//! Lines of `Host`.
#![no_main]

use fuzz::{handshake, parse, trim};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["host"], input) else { return };
    if let Some(handshake) = parse(&mut parts, &head) {
        let (name, port) = (handshake.host().name(), handshake.host().port());
        let sent = String::from_utf8_lossy(trim(input));
        assert!(sent == name || port.is_some() && sent.starts_with(&format!("{name}:")), "{sent}");
    }
});
