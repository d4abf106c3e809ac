//! Lines of `Host`, and lists of hosts.
#![no_main]

use differential::{
    oracle::{Policy, Verdict},
    policies,
};
use fuzz::{handshake, parse, trim};
use libfuzzer_sys::fuzz_target;

const HOSTS: &[&str] = &["chat.example.com", "*.example.org:*", "127.0.0.1:8080", "[::1]:3000"];

fuzz_target!(|input: &[u8]| {
    let Some((mut parts, head)) = handshake(&["host"], input) else { return };
    if let Some(handshake) = parse(&mut parts, &head) {
        let (name, port) = (handshake.host().name(), handshake.host().port());
        let sent = String::from_utf8_lossy(trim(input));
        assert!(sent == name || port.is_some() && sent.starts_with(&format!("{name}:")), "{sent}");

        let listed = Policy { hosts: HOSTS, any_origin: true, ..Policy::default() };
        let loopback = Policy { loopback: true, any_origin: true, ..Policy::default() };
        for policy in [listed, loopback] {
            let allowed = policies::allow_host(&policy).expect("a list").allows(handshake.host());
            let expected = head.judge(&policy).verdict != Verdict::Rejected("host-not-allowed");
            assert_eq!(allowed, expected, "{sent} {policy:?}");
        }
    }
});
