//! The policies that requests are tried against, for the oracle as data and for the crate as it is told.

use std::{convert::Infallible, mem};

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, PermessageDeflate, Permit, StaticTokens,
    Subprotocols, TokenPolicy, TokenSource, VersionCheckLayer,
};

use crate::{
    connection::run,
    oracle::{Compression, Policy, Source, TOKENS},
};

const APP: &[&str] = &[
    "https://app.example.com",
    "https://*.example.org",
    "http://localhost:*",
    "chrome-extension://abcdef",
];
/// What clients that are no web pages send.
const CLIENTS: &[&str] = &[
    "moz-extension://*",
    "app://.",
    "qrc:",
    "file://",
    "http://localhost.:3000",
    "http://MyPi.local:3000",
    "http://[0:0::1]:3000",
    "wss://chat.example.com",
    "ws://*.example.org:*",
];
const HOSTS: &[&str] =
    &["chat.example.com", "*.example.org", "localhost:*", "127.0.0.1:8080", "[0:0::1]:3000"];
const SUBPROTOCOLS: Option<&[&str]> = Some(&["v2.chat", "chat"]);

const SOURCES: &[Source] = &[
    Source::Authorization,
    Source::Cookie("session"),
    Source::Query("token"),
    Source::Subprotocol("bearer."),
];
const CARRIERS: &[Source] =
    &[Source::Kubernetes, Source::Phoenix, Source::Pair("bearer"), Source::Query("token")];

const HEADERS: &[Source] = &[
    Source::Basic,
    Source::Header("X-API-Key"),
    Source::HeaderScheme("Authorization", "Token"),
    Source::Authorization,
];
const FIRST: &[Source] = &[
    Source::Pair("bearer"),
    Source::Authorization,
    Source::Cookie("session"),
    Source::Query("token"),
];
const SHORT: &[Source] = &[
    Source::SubprotocolBase64("own.base64."),
    Source::Query("token"),
    Source::Header("X-API-Key"),
    Source::Cookie("session"),
];

pub const POLICIES: [Policy; 40] = [
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
    Policy { name: "origins of clients", origins: CLIENTS, ..POLICY },
    Policy {
        name: "origins of clients and the same",
        origins: CLIENTS,
        same_origin: true,
        allow_missing: true,
        ..POLICY
    },
    Policy { name: "no browsers", no_browsers: true, ..POLICY },
    Policy { name: "patterns of hosts", same_origin: true, hosts: HOSTS, ..POLICY },
    Policy {
        name: "any port of a host",
        any_origin: true,
        hosts: &["*.example.com:*", "127.1:*"],
        ..POLICY
    },
    Policy { name: "loopback", same_origin: true, loopback: true, ..POLICY },
    Policy {
        name: "a subprotocol that is no token",
        origins: APP,
        subprotocols: Some(&["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"]),
        ..POLICY
    },
    Policy { name: "passwords", no_browsers: true, sources: &[Source::Basic], ..POLICY },
    Policy { name: "cookies", origins: APP, sources: &[Source::Cookie("session")], ..POLICY },
    Policy {
        name: "passwords and cookies",
        origins: APP,
        sources: &[Source::Cookie("session"), Source::Basic],
        ..POLICY
    },
    Policy { name: "headers", origins: APP, sources: HEADERS, ..POLICY },
    Policy {
        name: "the first of the headers",
        origins: CLIENTS,
        allow_missing: true,
        sources: HEADERS,
        first_source_wins: true,
        ..POLICY
    },
    Policy {
        name: "the first of the carriers",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        sources: FIRST,
        first_source_wins: true,
        ..POLICY
    },
    Policy {
        name: "short tokens",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        sources: SHORT,
        max_length: Some(13),
        ..POLICY
    },
    Policy { name: "extensions", origins: APP, extensions: Some(DEFAULT), ..POLICY },
    Policy {
        name: "extensions by zlib, and subprotocols",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        extensions: Some(ZLIB),
        ..POLICY
    },
    Policy {
        name: "extensions within limits",
        any_origin: true,
        hosts: HOSTS,
        extensions: Some(LIMITED),
        ..POLICY
    },
    Policy {
        name: "extensions without takeover, and tokens",
        origins: APP,
        sources: SOURCES,
        extensions: Some(NO_TAKEOVER),
        ..POLICY
    },
    Policy {
        name: "extensions, and reports",
        origins: APP,
        hosts: &["chat.example.com"],
        extensions: Some(Compression::WHOLE),
        report_only: true,
        ..POLICY
    },
    Policy {
        name: "completed, with extensions",
        origins: APP,
        accept_unmatched: true,
        extensions: Some(DEFAULT),
        completes: true,
        ..POLICY
    },
    Policy {
        name: "completed, with limited extensions, subprotocols and tokens",
        origins: APP,
        subprotocols: SUBPROTOCOLS,
        sources: CARRIERS,
        extensions: Some(LIMITED),
        completes: true,
        ..POLICY
    },
    Policy {
        name: "completed without extensions",
        same_origin: true,
        subprotocols: SUBPROTOCOLS,
        completes: true,
        ..POLICY
    },
    Policy {
        name: "completed by a layer of its own",
        origins: APP,
        hosts: &["chat.example.com", "localhost:3000"],
        subprotocols: SUBPROTOCOLS,
        sources: CARRIERS,
        separate: true,
        extensions: Some(ZLIB),
        completes: true,
        ..POLICY
    },
    Policy {
        name: "completed, and reports",
        same_origin: true,
        accept_unmatched: true,
        extensions: Some(NO_TAKEOVER),
        completes: true,
        report_only: true,
        ..POLICY
    },
];

/// What is documented for a codec without limits of its own.
pub const DEFAULT: Compression = Compression { least_server_bits: 15, ..Compression::WHOLE };
/// zlib cannot do 8.
pub const ZLIB: Compression = Compression { least_server_bits: 9, ..Compression::WHOLE };
pub const LIMITED: Compression = Compression {
    least_server_bits: 10,
    most_server_bits: 12,
    client_bits: 11,
    ..Compression::WHOLE
};
pub const NO_TAKEOVER: Compression = Compression {
    most_server_bits: 13,
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    ..ZLIB
};

pub const POLICY: Policy = Policy {
    name: "",
    hosts: &[],
    loopback: false,
    origins: &[],
    same_origin: false,
    public_origin: None,
    allow_missing: false,
    allow_null: false,
    any_origin: false,
    no_browsers: false,
    subprotocols: None,
    prefer_client_order: false,
    accept_unmatched: false,
    sources: &[],
    first_source_wins: false,
    max_length: None,
    places: None,
    draining: false,
    separate: false,
    extensions: None,
    completes: false,
    report_only: false,
};

const RIGHT: &str = "the policy is right";

pub fn allow_origin(policy: &Policy) -> AllowOrigin {
    if policy.no_browsers {
        return AllowOrigin::no_browsers();
    }
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
    if policy.loopback {
        return Some(AllowHost::loopback());
    }
    (!policy.hosts.is_empty()).then(|| AllowHost::list(policy.hosts).expect(RIGHT))
}

pub fn subprotocols(policy: &Policy) -> Option<Subprotocols> {
    let listed = Subprotocols::list(policy.subprotocols?).expect(RIGHT);
    Some(if policy.prefer_client_order { listed.prefer_client_order() } else { listed })
}

pub fn extensions(policy: &Policy) -> Option<PermessageDeflate> {
    let Compression {
        least_server_bits,
        most_server_bits,
        client_bits,
        server_no_context_takeover,
        client_no_context_takeover,
    } = policy.extensions?;
    let mut deflate = PermessageDeflate::new();
    // What is the default need not be said.
    if (least_server_bits, most_server_bits) != (15, 15) {
        deflate = deflate.server_window_bits(least_server_bits..=most_server_bits).expect(RIGHT);
    }
    if client_bits < 15 {
        deflate = deflate.client_max_window_bits(client_bits).expect(RIGHT);
    }
    if server_no_context_takeover {
        deflate = deflate.server_no_context_takeover();
    }
    if client_no_context_takeover {
        deflate = deflate.client_no_context_takeover();
    }
    Some(deflate)
}

pub fn source(source: &Source) -> TokenSource {
    match *source {
        Source::Authorization => TokenSource::authorization(),
        Source::Basic => TokenSource::basic(),
        Source::Header(name) => TokenSource::header(name).expect(RIGHT),
        Source::HeaderScheme(name, scheme) => {
            TokenSource::header_scheme(name, scheme).expect(RIGHT)
        }
        Source::Cookie(name) => TokenSource::cookie(name).expect(RIGHT),
        Source::Query(name) => TokenSource::query(name).expect(RIGHT),
        Source::Subprotocol(prefix) => TokenSource::subprotocol(prefix).expect(RIGHT),
        Source::SubprotocolBase64(prefix) => TokenSource::subprotocol_base64(prefix).expect(RIGHT),
        Source::Kubernetes => TokenSource::kubernetes(),
        Source::Phoenix => TokenSource::phoenix(),
        Source::Pair(marker) => TokenSource::pair(marker).expect(RIGHT),
    }
}

/// Takes [`TOKENS`].
pub fn token(policy: &Policy) -> Option<TokenPolicy<()>> {
    if policy.sources.is_empty() {
        return None;
    }
    let known = StaticTokens::new(TOKENS.map(|token| (token, ()))).expect(RIGHT);
    let sources = policy.sources.iter().map(source);
    let mut tokens = TokenPolicy::from_sources(sources, known).expect(RIGHT);
    if policy.first_source_wins {
        tokens = tokens.first_source_wins();
    }
    if let Some(bytes) = policy.max_length {
        tokens = tokens.max_length(bytes).expect(RIGHT);
    }
    Some(tokens)
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
