//! `Origin::parse` against a second implementation of the WHATWG serialization.
#![no_main]

use differential::oracle;
use libfuzzer_sys::fuzz_target;
use tower_ws_guard::Origin;

fuzz_target!(|input: &[u8]| {
    let parsed = Origin::parse(input).ok();
    let expected = oracle::Origin::parse(input);
    let of =
        |origin: &Origin<'_>| (origin.scheme().to_owned(), origin.host().to_owned(), origin.port());
    assert_eq!(
        parsed.as_ref().map(of),
        expected.map(|it| (it.scheme, it.host, it.port)),
        "{}",
        input.escape_ascii()
    );
    if let Some(origin) = parsed {
        // An origin has only one serialization.
        assert_eq!(origin.to_string().as_bytes(), input);
        assert!(origin.effective_port() >= origin.port());
    }
});
