//! The fields of a request over HTTP/2, one per line, through the guard in memory, against the
//! oracle. The first byte selects the policy.
#![no_main]

use std::{cell::LazyCell, sync::Arc};

use differential::{
    connection::{App, Body, Calls, compare_stream, guarded, recorded, responder, serve_stream},
    oracle::Head,
    policies::POLICIES,
};
use http::{HeaderName, HeaderValue, Method, Request, Version, uri};
use hyper::ext::Protocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    thread_local! {
        static CALLS: Calls = Calls::default();
        static APPS: LazyCell<Vec<App<Body>>> = LazyCell::new(|| {
            let app = |policy| guarded(policy, recorded(responder(policy), CALLS.with(Arc::clone)));
            POLICIES.iter().map(app).collect()
        });
    }
    let Some((&first, input)) = input.split_first() else { return };
    let at = usize::from(first) % POLICIES.len();
    let Some(request) = request(input) else { return };
    let head = Head::from(&request);
    let (calls, response) =
        APPS.with(|apps| CALLS.with(|calls| serve_stream(&apps[at], calls, request)));
    if let Err(difference) = compare_stream(&head, &POLICIES[at], &calls, &response) {
        panic!("{difference}");
    }
});

/// `None` for a malformed request (RFC 9113 8.3.1 and 8.5, RFC 8441 4), which reaches no service.
fn request(input: &[u8]) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    let (mut target, mut is_extended, mut has_path) = (uri::Builder::new(), false, false);
    for line in input.split(|&byte| byte == b'\n') {
        // The name of a pseudo-header field begins with a colon.
        let colon = 1 + line.get(1..)?.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match name {
            b":method" => *request.method_mut() = Method::from_bytes(value).ok()?,
            b":scheme" => target = target.scheme(value),
            b":authority" => target = target.authority(value),
            b":path" => (target, has_path) = (target.path_and_query(value), true),
            b":protocol" => {
                request.extensions_mut().insert(Protocol::from(str::from_utf8(value).ok()?));
                is_extended = true;
            }
            name => {
                let name = HeaderName::from_bytes(name).ok()?;
                request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    *request.uri_mut() = target.build().ok()?;
    let is_connect = request.method() == Method::CONNECT;
    let is_sound = request.uri().authority().is_some() && has_path == (is_extended || !is_connect);
    (is_sound && (is_connect || !is_extended)).then_some(request)
}
