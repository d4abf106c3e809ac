//! The handshakes of the page: a valid one, and others with one fault each.

use tower_ws_guard::RejectionKind::*;

use super::verdict::Ought::{self, Accept, Choice, Reject};

/// The valid handshake with a change.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) group: &'static str,
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) summary: &'static str,
    pub(super) ought: Ought,
    pub(super) method: &'static str,
    pub(super) version: Version,
    pub(super) headers: &'static [Header],
    pub(super) credential: Credential,
    pub(super) body: &'static str,
}

/// A name and the values of all its lines. They replace those of the valid handshake.
/// [`Valid::fill`](super::request::Valid) fills in the names in braces.
pub(super) type Header = (&'static str, &'static [&'static str]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
    /// An extended CONNECT (RFC 8441).
    Http2,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    Right,
    None,
    Wrong,
    RightAndWrong,
    UnknownTicket,
}

const COMPARISON: &str = "For comparison";
const ORIGIN: &str = "Origin and host";
const TOKEN: &str = "Token";
const PROTOCOL: &str = "Protocol";

/// What stops an attack that got through, or why a fault is always rejected.
const ALLOW_ORIGIN: &str =
    "`--allow-origin` with the pages that may connect, and no `--dangerous-any-origin`";
const NO_NULL: &str = "a policy without `--allow-null-origin` and `--dangerous-any-origin`";
const STRICT: &str = "report this, because it is a defect of the guard";

const VALID: Attempt = Attempt {
    group: COMPARISON,
    id: "valid",
    title: "Valid handshake",
    summary: "Nothing is wrong with it.",
    ought: Accept,
    method: "GET",
    version: Version::Http11,
    headers: &[],
    credential: Credential::Right,
    body: "",
};

#[rustfmt::skip]
pub(super) const ATTEMPTS: &[Attempt] = &[
    VALID,
    Attempt { version: Version::Http2, ..attempt(COMPARISON, Accept, "http2", "Over HTTP/2",
        "Browsers send an extended CONNECT where a page came over HTTP/2.", &[]) },
    attempt(COMPARISON, Accept, "compression", "With compression",
        "The offer of Chromium. With --deflate the server agrees to it.",
        &[("Sec-WebSocket-Extensions", &["permessage-deflate; client_max_window_bits"])]),

    attempt(ORIGIN, Reject(OriginNotAllowed, ALLOW_ORIGIN), "foreign-origin", "Foreign origin",
        "A page of another site opens a socket with your user's cookies: cross-site WebSocket hijacking.",
        &[("Origin", &["https://evil.example"])]),
    Attempt { version: Version::Http2, ..attempt(ORIGIN, Reject(OriginNotAllowed, ALLOW_ORIGIN), "http2-foreign-origin", "Foreign origin, HTTP/2",
        "The same attack by an extended CONNECT.",
        &[("Origin", &["https://evil.example"])]) },
    attempt(ORIGIN, Choice(OriginMissing, "--allow-missing-origin"), "missing-origin", "No origin",
        "Every browser sends an origin. Most other clients do not.",
        &[("Origin", &[])]),
    attempt(ORIGIN, Reject(OriginNotAllowed, NO_NULL), "null-origin", "Null origin",
        "A page in a sandboxed frame sends it, so any page can.",
        &[("Origin", &["null"])]),
    attempt(ORIGIN, Reject(OriginInvalid, STRICT), "malformed-origin", "Malformed origin",
        "The right origin with a trailing slash. No browser sends it.",
        &[("Origin", &["{origin}/"])]),
    attempt(ORIGIN, Reject(OriginRepeated, STRICT), "two-origins", "Two origins",
        "One part of a system may look at the first, and another at the last.",
        &[("Origin", &["{origin}", "https://evil.example"])]),
    attempt(ORIGIN, Reject(HostNotAllowed, STRICT), "foreign-host", "Foreign host",
        "DNS rebinding: the name of the attacker's page now leads to this server, so its host and origin agree.",
        &[("Host", &["evil.example:{port}"]), ("Origin", &["http://evil.example:{port}"])]),
    attempt(ORIGIN, Reject(HostInvalid, STRICT), "missing-host", "No host",
        "HTTP/1.1 requires one, and the origin cannot be compared without it.",
        &[("Host", &[])]),

    Attempt { credential: Credential::None, ..attempt(TOKEN, Reject(TokenMissing, STRICT), "missing-token", "No token",
        "The client sends no credential.", &[]) },
    Attempt { credential: Credential::Wrong, ..attempt(TOKEN, Reject(TokenInvalid, STRICT), "wrong-token", "Wrong token",
        "The server does not know the token.", &[]) },
    Attempt { credential: Credential::RightAndWrong, ..attempt(TOKEN, Choice(TokenAmbiguous, "--first-token"), "two-tokens", "Two tokens",
        "The right one and another. The server does not guess which one counts.", &[]) },
    Attempt { credential: Credential::UnknownTicket, ..attempt(TOKEN, Reject(TokenInvalid, STRICT), "unknown-ticket", "Unknown ticket",
        "The server did not issue it. One that was redeemed, or is older than 30 seconds, gets the same response.", &[]) },

    attempt(PROTOCOL, Reject(VersionUnsupported, STRICT), "wrong-version", "Old version",
        "8 is a draft from before RFC 6455.",
        &[("Sec-WebSocket-Version", &["8"])]),
    attempt(PROTOCOL, Reject(VersionMissing, STRICT), "missing-version", "No version",
        "Some proxies drop headers that they do not know.",
        &[("Sec-WebSocket-Version", &[])]),
    attempt(PROTOCOL, Reject(VersionInvalid, STRICT), "malformed-version", "Malformed version",
        "A server may list the versions that it supports. A client names one.",
        &[("Sec-WebSocket-Version", &["13, 8"])]),
    attempt(PROTOCOL, Reject(KeyMissing, STRICT), "missing-key", "No key",
        "Without a key the response cannot prove that the server speaks WebSocket.",
        &[("Sec-WebSocket-Key", &[])]),
    attempt(PROTOCOL, Reject(KeyInvalid, STRICT), "malformed-key", "Malformed key",
        "Base64, but of 8 bytes and not of 16.",
        &[("Sec-WebSocket-Key", &["dG9vc2hvcnQ="])]),
    attempt(PROTOCOL, Reject(KeyRepeated, STRICT), "two-keys", "Two keys",
        "A client sends one, so a proxy added another.",
        &[("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "x3JJHMbDL1EzLkh9GBhXDw=="])]),
    attempt(PROTOCOL, Reject(UpgradeMissing, STRICT), "missing-upgrade", "No Upgrade",
        "A proxy that is not configured for WebSockets drops it.",
        &[("Upgrade", &[])]),
    attempt(PROTOCOL, Reject(ConnectionMissing, STRICT), "broken-connection", "Broken Connection",
        "A proxy replaced it with its own.",
        &[("Connection", &["keep-alive"])]),
    Attempt { method: "POST", ..attempt(PROTOCOL, Reject(MethodNotAllowed, STRICT), "post", "POST",
        "A handshake is a GET.", &[]) },
    Attempt { version: Version::Http10, ..attempt(PROTOCOL, Reject(HttpVersion, STRICT), "http-1-0", "HTTP/1.0",
        "Some proxies use it by default towards the servers behind them.", &[]) },
    Attempt { body: "hello", ..attempt(PROTOCOL, Reject(BodyPresent, STRICT), "body", "A body",
        "Frames follow the head, so a handshake cannot have a body.",
        &[("Content-Length", &["5"])]) },
    attempt(PROTOCOL, Choice(SubprotocolUnsupported, "--accept-unmatched-subprotocols"), "unsupported-subprotocol", "Unsupported subprotocol",
        "The client offers only one, and the server does not support it.",
        &[("Sec-WebSocket-Protocol", &["unsupported.example"])]),
    attempt(PROTOCOL, Reject(SubprotocolInvalid, STRICT), "malformed-subprotocols", "Malformed subprotocols",
        "The name of a subprotocol cannot have spaces.",
        &[("Sec-WebSocket-Protocol", &["chat, two words"])]),
];

const fn attempt(
    group: &'static str,
    ought: Ought,
    id: &'static str,
    title: &'static str,
    summary: &'static str,
    headers: &'static [Header],
) -> Attempt {
    Attempt { group, id, title, summary, ought, headers, ..VALID }
}

impl Attempt {
    /// Whether it differs from the valid one on a server without browsers, without tokens or
    /// without tickets.
    pub(super) fn is_possible(&self, browsers: bool, tokens: bool, tickets: bool) -> bool {
        match self.id {
            "unknown-ticket" => tickets,
            "missing-origin" | "malformed-origin" | "two-origins" => browsers,
            _ => tokens || self.group != TOKEN,
        }
    }
}
