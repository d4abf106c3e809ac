//! The policies that requests are tried against, for the oracle as data and for the crate as it is told.

use tower_ws_guard::{AllowHost, AllowOrigin, StaticTokens, Subprotocols, TokenPolicy, TokenSource};

use crate::oracle::{Policy, Source, TOKENS};

const APP: &[&str] =
    &["https://app.example.com", "https://*.example.org", "http://localhost:*", "chrome-extension://abcdef"];
const SUBPROTOCOLS: Option<&[&str]> = Some(&["v2.chat", "chat"]);

pub const POLICIES: [Policy; 8] = [
    Policy { name: "a list", origins: APP, ..POLICY },
    Policy { name: "same origin and hosts", same_origin: true, hosts: &["chat.example.com", "[::1]:3000"], ..POLICY },
    Policy { name: "subprotocols", origins: APP, subprotocols: SUBPROTOCOLS, ..POLICY },
    Policy { name: "missing and null", same_origin: true, allow_missing: true, allow_null: true, ..POLICY },
    Policy { name: "any origin", any_origin: true, ..POLICY },
    Policy { name: "a public origin", public_origin: Some("https://chat.example.com"), ..POLICY },
    Policy {
        name: "tokens",
        origins: APP,
        sources: &[
            Source::Authorization,
            Source::Cookie("session"),
            Source::Query("token"),
            Source::Subprotocol("bearer."),
        ],
        ..POLICY
    },
    Policy {
        name: "subprotocols and tokens",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        sources: &[Source::Kubernetes, Source::Phoenix, Source::Pair("bearer"), Source::Query("token")],
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
    sources: &[],
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
    policy.subprotocols.map(|listed| Subprotocols::list(listed).expect(RIGHT))
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
pub fn token(policy: &Policy) -> Option<TokenPolicy<StaticTokens<()>>> {
    let known = StaticTokens::new(TOKENS.map(|token| (token, ())));
    let sources = policy.sources.iter().map(source);
    (!policy.sources.is_empty()).then(|| TokenPolicy::from_sources(sources, known).expect(RIGHT))
}
