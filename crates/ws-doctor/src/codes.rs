//! The table of all codes: level, explanation, fix.

use serde::{Serialize, Serializer};

use crate::text::capital;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The socket cannot be used.
    Error,
    /// The socket can be used from here.
    Remark,
}

/// The part of the handshake in which a finding is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There was no HTTP response.
    NotReached,
    /// The server, or something in front of it, rejected the handshake.
    Rejected,
    /// The server accepted, and browsers fail nevertheless.
    Faulty,
    /// The server accepted.
    Accepted,
}

/// Makes the enum and the look-ups from one table.
macro_rules! codes {
    ($(
        $stage:ident, $level:ident { $(
            $(#[$doc:meta])*
            $Code:ident: $code:literal, $explanation:literal, $fix:literal;
        )* }
    )*) => {
        /// The stable name of a finding.
        ///
        /// A server may have codes of its own beside these: those of `tower-ws-guard` are shown as
        /// they are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $explanation] $Code,)*)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$($(Self::$Code,)*)*];

            /// The kebab-case name, such as `origin-rejected`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$Code => $code,)*)* }
            }

            /// What happened, in general.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $($(Self::$Code => $explanation,)*)* }
            }

            /// What to do, in general.
            #[must_use]
            pub const fn fix(self) -> &'static str {
                match self { $($(Self::$Code => $fix,)*)* }
            }

            /// Where it is found.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $($(Self::$Code => Stage::$stage,)*)* }
            }

            /// How much it matters.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $($(Self::$Code => Level::$level,)*)* }
            }
        }
    };
}

codes! {
    NotReached, Error {
        DnsFailed: "dns-failed",
            "the name of the server has no address",
            "check the spelling of the host, and the name server of this network: a name of a container, a VPN or a \
             private zone is known only there; --resolve HOST:PORT:ADDRESS tries an address without the name server";
        ConnectionRefused: "connection-refused",
            "nothing listens at this address and port",
            "start the server, or correct the port; a server that listens on 127.0.0.1 only is not reached from \
             another machine or container: let it listen on 0.0.0.0";
        ConnectionTimeout: "connection-timeout",
            "the address does not respond: a firewall drops the packets, or no machine has this address",
            "check the address and the port, and open the port in the firewalls and security groups on the way";
        ConnectionReset: "connection-reset",
            "the connection was closed without a response",
            "look into the log of the server for this moment: it closed the connection, crashed, or something on \
             the way (a firewall, a proxy) did; a published port of a container closes so if the server in it listens \
             on 127.0.0.1: let it listen on 0.0.0.0";
        TlsUntrusted: "tls-untrusted",
            "the certificate of the server is not from an authority that this machine trusts",
            "let the server send its whole chain (fullchain.pem, not cert.pem); for an authority of your own use \
             --cacert FILE here, and add it to the trusted ones of each client";
        TlsExpired: "tls-expired",
            "the certificate of the server has expired, or is not valid yet",
            "renew the certificate and reload the server; if it is valid, correct the clock of this machine";
        TlsNameMismatch: "tls-name-mismatch",
            "the certificate of the server is for other names",
            "use a name of the certificate in the URL, or get a certificate for this one";
        TlsNotForServers: "tls-not-for-servers",
            "the certificate is not made for servers: its extended key usage lacks serverAuth",
            "issue a certificate with extendedKeyUsage = serverAuth";
        TlsClientCertificate: "tls-client-certificate",
            "the server demands a client certificate",
            "send it with --cert FILE --key FILE; in a browser, import it first";
        TlsNoCommonVersion: "tls-no-common-version",
            "the server and this program have no version of TLS in common: browsers and this program speak 1.2 \
             and 1.3",
            "enable TLS 1.2 and 1.3 in the server (nginx: `ssl_protocols TLSv1.2 TLSv1.3;`)";
        TlsAlpn: "tls-alpn",
            "the server rejects the application protocol that was offered in TLS (ALPN)",
            "enable http/1.1 in the ALPN list of the server: the handshake of a WebSocket needs it";
        TlsNameRequired: "tls-name-required",
            "the server needs the name of the host in TLS (SNI), and the URL has an address",
            "use the name in the URL; with --resolve NAME:PORT:ADDRESS it goes to this address";
        TlsFailed: "tls-failed",
            "the TLS handshake failed",
            "look into the log of the server for the other side of it";
        PlainPort: "plain-port",
            "the port does not speak TLS",
            "use ws: for this port, or the port that speaks TLS";
        NotHttp: "not-http",
            "the server does not speak HTTP",
            "check the port: another service listens there";
        Http2Only: "http2-only",
            "the port speaks HTTP/2 only, and the handshake of a browser's WebSocket begins with HTTP/1.1",
            "enable HTTP/1.1 beside HTTP/2 on this port; --http2 tries a WebSocket over HTTP/2";
        ProxyFailed: "proxy-failed",
            "the forward proxy did not connect to the server",
            "let the proxy allow CONNECT to this host and port, or go past it: NO_PROXY=HOST, or -x ''";
        NoResponse: "no-response",
            "the server accepted the connection, got the request, and sent nothing",
            "check that a WebSocket server listens on this path and port, and that it is not busy; some servers \
             never respond to a handshake without the subprotocol or the path that they expect";
    }
    Accepted, Remark {
        LocalNetworkAccess: "local-network-access",
            "browsers ask the user before a public page reaches a local address (Local Network Access: Chromium \
             147, Firefox 154): until then the server sees a connection without a byte",
            "allow it in the prompt of the browser or in its site settings (only a page of https: can ask), or serve \
             the page from the local network too";
    }
    Rejected, Error {
        OriginRejected: "origin-rejected",
            "the server rejects the origin of the page",
            "add the origin to the list of allowed origins of the server; CORS settings have no effect on a \
             WebSocket";
        HostChanged: "host-changed",
            "the server rejects its own public origin: it compares Origin with Host, and a proxy in front changes \
             Host",
            "let the proxy pass Host on: nginx `proxy_set_header Host $http_host;`, Apache `ProxyPreserveHost On`";
        OriginRequired: "origin-required",
            "the server rejects handshakes without an Origin",
            "browsers send one by themselves; in another client set it";
        OriginUndecided: "origin-undecided",
            "the server rejects the handshake, whatever the Origin",
            "if you know an origin that the server allows, add --origin with it: then this program can tell \
             whether the origin is the cause; otherwise check the credential and the path";
        Unauthorized: "unauthorized",
            "the server demands a valid credential (401)",
            "send one with --token or -b; a script in a browser cannot set Authorization on a WebSocket: use a \
             cookie, a ticket in the query, or a subprotocol";
        Forbidden: "forbidden",
            "the server does not allow this handshake (403)",
            "check the origin, the rights of the credential, and the path";
        ClientCertificateRequired: "client-certificate-required",
            "the server wants a client certificate, and says so by HTTP",
            "send it with --cert FILE --key FILE; in a browser, import it, and open a page of the same host first; or \
             let the server not demand it for this path (nginx: `ssl_verify_client optional;` and a check in the \
             other paths)";
        VersionRefused: "version-refused",
            "the server does not support this version of the protocol",
            "send `Sec-WebSocket-Version: 13`, the version of RFC 6455";
        UpgradeStripped: "upgrade-stripped",
            "the upgrade did not arrive: the server responds as to an ordinary request",
            "let the proxy in front pass Upgrade and Connection on";
        NoWebsocketHere: "no-websocket-here",
            "nothing at this path speaks WebSocket: an ordinary request gets the same response",
            "check the path, and that the server has its WebSocket support installed and enabled";
        NotFound: "not-found",
            "there is nothing at this path (404)",
            "check the path, and the prefix that a proxy in front adds or removes";
        TlsPort: "tls-port",
            "the port speaks TLS, and the URL says ws:",
            "use wss: for this port";
        Redirected: "redirected",
            "the server redirects, and browsers do not follow a redirect of a WebSocket",
            "use the target in the URL";
        CaptivePortal: "captive-portal",
            "the network wants a login first: a captive portal responds in place of the server",
            "open a page in a browser, log in to the network, and try again";
        ProxyLogin: "proxy-login",
            "a forward proxy wants a user and a password (407)",
            "give them: `-x http://HOST:PORT -U USER:PASSWORD`; in a browser, log in to the proxy by opening any page";
        BotChallenge: "bot-challenge",
            "a protection against bots responds with a puzzle for browsers, which a WebSocket cannot solve",
            "exempt the path of the WebSocket from the challenge (Cloudflare: a WAF rule with the action *Skip*; *Bot \
             Fight Mode* has no exceptions: turn it off); or let the page be opened first on the same host, so that \
             its cookie is there";
        Intermediary: "intermediary",
            "a proxy or a load balancer made this response, not the server",
            "look into its log, and check that it reaches the server";
        RateLimited: "rate-limited",
            "the server gets too many requests (429)",
            "wait as long as Retry-After says, and connect again with growing delays; a limit of your own can be \
             raised for this path (nginx: `limit_req`, `limit_conn`)";
        Unavailable: "unavailable",
            "the server cannot accept the handshake now (503)",
            "try again later; check that the server behind the proxy runs, and whether it is full";
        Rejected: "rejected",
            "the server rejects the handshake",
            "look at the body below, and into the log of the server";
    }
    Faulty, Error {
        MalformedResponse: "malformed-response",
            "the response is malformed: some clients accept it, and others fail",
            "correct the response that the server writes";
        AcceptMissing: "accept-missing",
            "the 101 has no Sec-WebSocket-Accept: clients fail",
            "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")); if the server does, a proxy \
             removes it";
        AcceptWrong: "accept-wrong",
            "Sec-WebSocket-Accept does not match the key: clients fail",
            "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")), computed from the characters of \
             the key; if the server does, a cache or a proxy sends the response of another handshake";
        UpgradeWrong: "upgrade-wrong",
            "the 101 has no valid `Upgrade: websocket`: clients fail",
            "send exactly `Upgrade: websocket`; if the server does, a proxy removes it";
        ConnectionWrong: "connection-wrong",
            "the 101 has no `Connection: Upgrade`: clients fail",
            "send `Connection: Upgrade`; if the server does, a proxy changes it";
        SubprotocolNotOffered: "subprotocol-not-offered",
            "the server selected a subprotocol that was not offered: Chrome and most libraries fail",
            "offer it in the client (--subprotocol here), or let the server select an offered one, in the same \
             case, or none";
        SubprotocolNotEchoed: "subprotocol-not-echoed",
            "the client offered subprotocols and the server selected none: Chrome and most libraries fail",
            "let the server select one of the offered subprotocols; or offer none";
        ExtensionNotOffered: "extension-not-offered",
            "the server uses an extension that was not offered, or not in this form: clients fail",
            "let the server send only extensions that the request offers; a proxy in front may have removed the \
             offer";
        HeaderRepeated: "header-repeated",
            "a header that must occur once is repeated: clients may fail",
            "send it once: look for a proxy or a middleware that adds a second";
        ClosedAtOnce: "closed-at-once",
            "the server accepted the handshake, and then closed the socket",
            "look up the close code and the message in the documentation and in the log of the server";
        NotAFrame: "not-a-frame",
            "behind the 101 comes text, not a WebSocket frame: clients fail (Chrome: `Invalid frame header`)",
            "read the text below: most often it is an error message of the server";
        MaskedFrame: "masked-frame",
            "the server masks its frames: Chrome and most libraries fail",
            "a server must not mask (RFC 6455 5.1): update its library, or correct it";
        ReservedBit: "reserved-bit",
            "the server sends a frame with a reserved bit, or of a reserved kind: clients fail",
            "send compressed messages only if permessage-deflate was agreed; a proxy may have removed the header";
        ConnectionListRejected: "connection-list-rejected",
            "the server accepts `Connection: Upgrade` and not `Connection: keep-alive, Upgrade`: it fails in \
             Firefox",
            "read Connection as a list of names in any case (RFC 9110 7.6.1), not as one value";
        IncompleteResponse: "incomplete-response",
            "the response ends within its head",
            "look into the log of the server or the proxy for a crash or a timeout while it responds";
    }
    Accepted, Remark {
        NoOriginSent: "no-origin-sent",
            "no Origin was sent: a browser always sends one, and the server may reject it",
            "add --origin with the origin of the page";
        UnsafePort: "unsafe-port",
            "browsers never connect to this port",
            "let the server listen on another port, such as 443 or 8080";
        MixedContent: "mixed-content",
            "a page of https: cannot open a socket of ws:, except to this computer",
            "serve the socket over TLS, and use wss:";
        DeadIpv6: "dead-ipv6",
            "the IPv6 address of the server does not respond, and IPv4 does: clients that try only the first \
             address hang",
            "repair IPv6, or remove the AAAA record of the name";
        AddressesDiffer: "addresses-differ",
            "the addresses of the name respond differently",
            "find out which server listens on which address; for a local one use `127.0.0.1` or `[::1]` in place of \
             localhost";
        CertificateExpiresSoon: "certificate-expires-soon",
            "the certificate of the server expires soon",
            "renew it, and check that the renewal is automatic and reloads the server";
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The page of the documentation with a section for each code: `docs/findings.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from("# The findings of ws-doctor\n\n");
    wrap(
        &mut page,
        "A section for each code, made from the table of the program by `ws-doctor --generate findings`. What the program prints \
         says more: it names the values, addresses and proxies that it saw.",
    );
    let stages = [
        (Stage::NotReached, "Never reached", "There is no HTTP response. The exit code is 2."),
        (
            Stage::Rejected,
            "Rejected",
            "The server, or something in front of it, says no. The exit code is 1.",
        ),
        (
            Stage::Faulty,
            "Faulty",
            "The server accepts, and clients fail nevertheless. The exit code is 1.",
        ),
        (
            Stage::Accepted,
            "Remarks",
            "The socket works from here, and may not in a browser. The exit code is 0.",
        ),
    ];
    for (stage, title, text) in stages {
        page.push_str(&format!("\n## {title}\n\n{text}\n"));
        for code in Code::ALL.iter().filter(|code| code.stage() == stage) {
            page.push_str(&format!("\n### {}\n\n", code.as_str()));
            wrap(&mut page, &format!("{}.", capital(code.explanation())));
            page.push('\n');
            wrap(&mut page, &format!("What to do: {}.", code.fix()));
        }
    }
    page
}

/// Breaks lines behind 120 characters at most.
fn wrap(page: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 120 {
            page.push('\n');
            width = 0;
        } else if width > 0 {
            page.push(' ');
            width += 1;
        }
        page.push_str(word);
        width += length;
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn page_is_made_from_the_table() {
        assert_eq!(page(), include_str!("../docs/findings.md"), "ws-doctor --generate findings");
    }

    #[test]
    fn codes_are_unique_and_texts_are_sentences_without_an_end() {
        let codes = Code::ALL.iter().map(|code| code.as_str()).collect::<HashSet<_>>();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            for text in [code.explanation(), code.fix()] {
                assert!(
                    text.len() > 10 && !text.ends_with('.') && !text.contains("  "),
                    "{}: {text}",
                    code.as_str()
                );
            }
        }
    }
}
