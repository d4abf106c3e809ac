//! Lines of `Sec-WebSocket-Extensions`: an offer has one form on one line, which is the same offer.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use tower_ws_guard::ExtensionOffer;

fuzz_target!(|input: &[u8]| {
    let lines = input.split(|&byte| byte == b'\n').map(HeaderValue::from_bytes);
    let Ok(lines) = lines.collect::<Result<Vec<_>, _>>() else { return };
    let Ok(offer) = ExtensionOffer::parse(&lines) else { return };
    assert!(offer.len() <= 32);

    let is_token = |text: &str| {
        let is_separator = |c: char| "\"(),/:;<=>?@[\\]{}".contains(c);
        !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !is_separator(c))
    };
    for extension in offer.iter() {
        assert!(is_token(extension.name()));
        assert!(extension.parameters().count() <= 32);
        for (name, value) in extension.parameters() {
            assert!(is_token(name) && value.is_none_or(is_token));
        }
    }
    // The spaces of the normal form can make it longer than what is read.
    let normal = offer.to_string();
    if normal.len() <= 4096 {
        let again: ExtensionOffer = normal.parse().expect("an offer");
        assert_eq!((&again, again.to_string()), (&offer, normal));
    }
});
