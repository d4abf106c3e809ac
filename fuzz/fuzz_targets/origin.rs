//! `Origin::parse` against a second implementation of the WHATWG serialization, and of the other
//! ways to write an origin.
#![no_main]

use differential::oracle;
use libfuzzer_sys::fuzz_target;
use tower_ws_guard::Origin;

fuzz_target!(|input: &[u8]| {
    let parsed = Origin::parse(input).ok();
    let expected = oracle::Origin::parse(input);
    let of = |origin: &Origin<'_>| {
        let port = origin.effective_port().map(u32::from);
        (origin.scheme().to_owned(), origin.host().to_owned(), port)
    };
    assert_eq!(
        parsed.as_ref().map(of),
        expected.map(|it| (it.scheme.clone(), it.host.clone(), it.effective_port())),
        "{}",
        input.escape_ascii()
    );
    if let Some(origin) = parsed {
        // The normal form is the only one of its kind, and the same origin.
        let normal = origin.to_string();
        let again: Origin<'static> = normal.parse().expect("an origin");
        assert_eq!((&again, again.to_string()), (&origin, normal));
        assert!(origin.effective_port() >= origin.port());
    }
});
