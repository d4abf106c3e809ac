use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ws_handshake_suite::{Level, Report, Verdict, cases, run};

use crate::server;

/// For each case that can fail, a fault that it must find.
const FAULTS: &[(&str, &str)] = &[
    ("response.upgrade", "response-upgrade"),
    ("response.connection", "response-connection"),
    ("response.accept", "response-accept"),
    ("response.accept-once", "response-accept-twice"),
    ("response.content-length", "response-length"),
    ("response.transfer-encoding", "response-coding"),
    ("response.ping", "no-pong"),
    ("rejection.response", "no-response"),
    ("rejection.well-formed", "not-well-formed"),
    ("rejection.allow", "allow"),
    ("rejection.upgrade", "426"),
    ("rejection.upgrade-missing", "426"),
    ("rejection.close", "after-close"),
    ("method.post", "method"),
    ("method.head", "method"),
    ("method.lower-case", "method-case"),
    ("http.1.0", "http-version"),
    ("target.absolute", "absolute"),
    ("host.missing", "host-missing"),
    ("host.repeated", "host-repeated"),
    ("host.repeated-equal", "host-repeated"),
    ("host.space", "host-syntax"),
    ("host.port", "host-syntax"),
    ("host.userinfo", "host-syntax"),
    ("body.read-as-frames", "body-as-frames"),
    ("body.read-as-request", "body-as-request"),
    ("body.chunked-read-as-request", "body-as-request"),
    ("body.length-invalid", "length"),
    ("body.coding-unknown", "coding"),
    ("headers.names", "names"),
    ("headers.white-space", "white-space"),
    ("headers.unknown", "unknown"),
    ("headers.non-ascii", "non-ascii"),
    ("upgrade.missing", "upgrade-missing"),
    ("upgrade.other", "upgrade-other"),
    ("upgrade.longer", "upgrade-longer"),
    ("upgrade.case", "upgrade-case"),
    ("connection.missing", "connection-missing"),
    ("connection.other", "connection-other"),
    ("connection.longer", "connection-longer"),
    ("connection.case", "connection-case"),
    ("connection.list", "connection-list"),
    ("connection.lines", "connection-lines"),
    ("connection.empty-elements", "connection-empty-elements"),
    ("key.missing", "key-missing"),
    ("key.empty", "key-empty"),
    ("key.white-space", "white-space"),
    ("version.missing", "version-missing"),
    ("version.empty", "version-empty"),
    ("version.unsupported", "version-unsupported"),
    ("version.advertised", "versions"),
    ("version.list", "version-list"),
    ("version.list-last", "version-list"),
    ("version.leading-zero", "version-zero"),
    ("version.sign", "version-sign"),
    ("subprotocol.none", "subprotocol-always"),
    ("subprotocol.unknown", "subprotocol-any"),
    ("subprotocol.one", "subprotocol-twice"),
    ("subprotocol.case", "subprotocol-case"),
    ("subprotocol.empty-elements", "subprotocol-empty"),
    ("extensions.none", "extension-always"),
    ("extensions.unknown", "extension-unknown"),
    ("extensions.malformed", "extension-malformed"),
    ("extensions.quote", "extension-quote"),
    ("deflate.plain", "deflate-client-not-offered"),
    ("deflate.client-window", "deflate-client-without-value"),
    ("deflate.server-window", "deflate-forgets-window"),
    ("deflate.server-context", "deflate-forgets-context"),
    ("deflate.several", "deflate-all"),
    ("deflate.unknown-parameter", "deflate-unknown"),
    ("deflate.repeated-parameter", "deflate-repeated"),
    ("deflate.window-too-small", "deflate-bits"),
    ("deflate.window-too-large", "deflate-bits"),
    ("deflate.window-leading-zero", "deflate-zero"),
    ("deflate.window-without-value", "deflate-no-value"),
    ("deflate.context-with-value", "deflate-value"),
    ("bytes.pieces", "segments"),
    ("bytes.last-alone", "segments"),
    ("bytes.empty-line-first", "empty-line"),
    ("bytes.bare-cr", "bare-cr"),
    ("bytes.fold", "fold-is-ordinary"),
    ("bytes.fold-hides-header", "fold-is-header"),
    ("bytes.space-first", "space-first"),
    ("bytes.space-before-colon", "space-before-colon"),
    ("bytes.long-header", "limit"),
    ("bytes.many-headers", "limit"),
    ("bytes.megabyte", "limit"),
    ("bytes.early-request", "early-request"),
    ("policy.origin", "origin"),
    ("policy.origin-403", "origin-400"),
    ("policy.origin-missing", "origin-missing"),
    ("policy.token-missing", "token-missing"),
    ("policy.token-wrong", "token-wrong"),
    ("policy.challenge", "challenge"),
    ("http2.setting", "http2-setting"),
    ("http2.ping", "no-pong"),
    ("http2.connection-specific", "http2-response-connection"),
    ("http2.version-missing", "version-missing"),
    ("http2.version-unsupported", "version-unsupported"),
    ("http2.version-advertised", "versions"),
    ("http2.path-missing", "http2-path"),
    ("http2.scheme-missing", "http2-scheme"),
    ("http2.protocol-missing", "http2-protocol-missing"),
    ("http2.protocol-repeated", "http2-protocol-repeated"),
    ("http2.connection", "http2-connection"),
    ("http2.upgrade", "http2-upgrade"),
    ("http2.upper-case", "http2-upper-case"),
    ("http2.host", "http2-host"),
    ("http2.get", "http2-101"),
    ("http2.subprotocol-none", "subprotocol-always"),
    ("http2.subprotocol", "subprotocol-twice"),
    ("http2.extensions-none", "extension-always"),
    ("http2.deflate", "deflate-client-not-offered"),
    ("http2.origin", "origin"),
    ("http2.origin-missing", "origin-missing"),
    ("http2.token-missing", "token-missing"),
];

fn report(fault: &'static str, only: Option<&str>) -> Report {
    let wanted = |id: &str| only.is_none_or(|only| only == id);
    run(&server::start(fault), |case| wanted(&case.id), |_| ()).unwrap()
}

#[test]
fn a_conforming_server_passes_every_case_that_can_fail() {
    let report = report("", None);
    for case in &report.cases {
        assert!(
            case.verdict == Verdict::Pass
                || case.level == Level::May && case.verdict == Verdict::Lenient
                || case.id.starts_with("rejection.") && case.verdict == Verdict::NotApplicable,
            "{}: {:?}, {}\n{}\n{}",
            case.id,
            case.verdict,
            case.detail,
            case.request,
            case.response
        );
    }
    assert!(report.conforms());
    assert_eq!(report.summary.must.fail + report.summary.should.fail, 0);
}

#[test]
fn every_case_that_can_fail_finds_its_fault() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((id, fault)) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = report(fault, Some(id));
                    let [case] = &*report.cases else { panic!("there is no case {id}") };
                    assert_eq!(
                        report.conforms(),
                        !(case.level == Level::Must && case.verdict == Verdict::Fail)
                    );
                    if case.verdict != Verdict::Fail {
                        missed.lock().unwrap().push((*fault, case.clone()));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_case_that_can_fail_has_a_fault() {
    for case in cases().iter().filter(|case| case.level != Level::May) {
        assert!(FAULTS.iter().any(|(id, _)| *id == case.id), "{}", case.id);
    }
}

#[test]
fn a_fault_is_found_by_few_cases() {
    let report = report("response-accept", None);
    let failed: Vec<_> = report.with(Verdict::Fail).map(|case| &*case.id).collect();
    assert_eq!(failed, ["response.accept", "key.white-space"]);
}

#[test]
fn a_connection_that_is_closed_without_a_response_costs_one_requirement() {
    let report = report("no-response", None);
    let failed: Vec<_> = report.with(Verdict::Fail).map(|case| &*case.id).collect();
    assert_eq!(failed, ["rejection.response", "version.advertised", "policy.origin-403"]);
}
