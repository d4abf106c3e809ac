//! The policies that requests are tried against, for the oracle as data and for the crate as it is told.

use std::{convert::Infallible, mem};

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, Permit, StaticTokens, Subprotocols,
    TokenPolicy, TokenSource, VersionCheckLayer,
};

use crate::{
    connection::run,
    oracle::{Policy, Source, TOKENS},
};

const APP: &[&str] = &[
    "https://app.example.com",
    "https://*.example.org",
    "http://localhost:*",
    "chrome-extension://abcdef",
];
const SUBPROTOCOLS: Option<&[&str]> = Some(&["v2.chat", "chat"]);

const SOURCES: &[Source] = &[
    Source::Authorization,
    Source::Cookie("session"),
    Source::Query("token"),
    Source::Subprotocol("bearer."),
];
const CARRIERS: &[Source] =
    &[Source::Kubernetes, Source::Phoenix, Source::Pair("bearer"), Source::Query("token")];

pub const POLICIES: [Policy; 16] = [
    Policy { name: "a list", origins: APP, ..POLICY },
    Policy {
        name: "same origin and hosts",
        same_origin: true,
        hosts: &["chat.example.com", "[::1]:3000"],
        ..POLICY
    },
    Policy { name: "subprotocols", origins: APP, subprotocols: SUBPROTOCOLS, ..POLICY },
    Policy {
        name: "missing and null",
        same_origin: true,
        allow_missing: true,
        allow_null: true,
        ..POLICY
    },
    Policy { name: "any origin", any_origin: true, ..POLICY },
    Policy { name: "a public origin", public_origin: Some("https://chat.example.com"), ..POLICY },
    Policy { name: "tokens", origins: APP, sources: SOURCES, ..POLICY },
    Policy {
        name: "subprotocols and tokens",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        sources: CARRIERS,
        ..POLICY
    },
    Policy {
        name: "the client's order",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        prefer_client_order: true,
        ..POLICY
    },
    Policy {
        name: "unmatched subprotocols and tokens",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        accept_unmatched: true,
        sources: CARRIERS,
        ..POLICY
    },
    Policy {
        name: "unmatched carriers",
        origins: APP,
        accept_unmatched: true,
        sources: SOURCES,
        ..POLICY
    },
    Policy {
        name: "a place left, and tokens",
        origins: APP,
        sources: SOURCES,
        places: Some(1),
        ..POLICY
    },
    Policy { name: "no place left", same_origin: true, places: Some(0), ..POLICY },
    Policy {
        name: "no place left, and tokens",
        any_origin: true,
        sources: SOURCES,
        places: Some(0),
        ..POLICY
    },
    Policy { name: "draining", origins: APP, draining: true, ..POLICY },
    Policy {
        name: "separate layers",
        origins: APP,
        hosts: &["chat.example.com", "localhost:3000"],
        subprotocols: SUBPROTOCOLS,
        sources: CARRIERS,
        separate: true,
        ..POLICY
    },
];

const POLICY: Policy = Policy {
    name: "",
    hosts: &[],
    origins: &[],
    same_origin: false,
    public_origin: None,
    allow_missing: false,
    allow_null: false,
    any_origin: false,
    subprotocols: None,
    prefer_client_order: false,
    accept_unmatched: false,
    sources: &[],
    places: None,
    draining: false,
    separate: false,
};

const RIGHT: &str = "the policy is right";

pub fn allow_origin(policy: &Policy) -> AllowOrigin {
    let mut origins = AllowOrigin::list(policy.origins).expect(RIGHT);
    if policy.same_origin {
        origins = origins.or(AllowOrigin::same_origin());
    }
    if let Some(origin) = policy.public_origin {
        origins = origins.or(AllowOrigin::public_origin(origin).expect(RIGHT));
    }
    if policy.allow_missing {
        origins = origins.allow_missing();
    }
    if policy.allow_null {
        origins = origins.allow_null();
    }
    if policy.any_origin {
        origins = origins.or(AllowOrigin::dangerous_any());
    }
    origins
}

pub fn allow_host(policy: &Policy) -> Option<AllowHost> {
    (!policy.hosts.is_empty()).then(|| AllowHost::list(policy.hosts).expect(RIGHT))
}

pub fn subprotocols(policy: &Policy) -> Option<Subprotocols> {
    let listed = Subprotocols::list(policy.subprotocols?).expect(RIGHT);
    Some(if policy.prefer_client_order { listed.prefer_client_order() } else { listed })
}

pub fn source(source: &Source) -> TokenSource {
    match *source {
        Source::Authorization => TokenSource::authorization(),
        Source::Cookie(name) => TokenSource::cookie(name).expect(RIGHT),
        Source::Query(name) => TokenSource::query(name).expect(RIGHT),
        Source::Subprotocol(prefix) => TokenSource::subprotocol(prefix).expect(RIGHT),
        Source::Kubernetes => TokenSource::kubernetes(),
        Source::Phoenix => TokenSource::phoenix(),
        Source::Pair(marker) => TokenSource::pair(marker).expect(RIGHT),
    }
}

/// Takes [`TOKENS`].
pub fn token(policy: &Policy) -> Option<TokenPolicy<()>> {
    let known = StaticTokens::new(TOKENS.map(|token| (token, ()))).unwrap();
    let sources = policy.sources.iter().map(source);
    (!policy.sources.is_empty()).then(|| TokenPolicy::from_sources(sources, known).expect(RIGHT))
}

/// One more place is taken, and never given back.
pub fn limit(policy: &Policy) -> Option<ConnectionLimit> {
    let limit = ConnectionLimit::total(policy.places? + 1).expect(RIGHT);
    let taken = service_fn(async |mut request: Request<()>| {
        mem::forget(Permit::claim(request.extensions_mut()));
        Ok::<_, Infallible>(Response::new(()))
    });
    let handshake = Request::get("/ws")
        .header("host", "chat.example.com")
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let handshake = handshake.body(()).expect("a request");
    run(VersionCheckLayer::new().limit(limit.clone()).layer(taken).oneshot(handshake));
    assert_eq!(limit.connections(), 1);
    Some(limit)
}

pub fn drain(policy: &Policy) -> Option<Drain> {
    policy.draining.then(|| {
        let drain = Drain::new();
        drain.start();
        drain
    })
}
