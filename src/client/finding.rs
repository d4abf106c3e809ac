use std::{error::Error, fmt};

use crate::http::field::Escaped;

struct Row {
    code: &'static str,
    explanation: &'static str,
    fix: &'static str,
}

/// Makes the enum, the list of all kinds and the look-ups from one table.
macro_rules! kinds {
    (
        faults { $(
            $(#[$fault_doc:meta])*
            $Fault:ident: $fault_code:literal, $fault_explanation:literal, $fault_fix:literal;
        )* }
        rejections { $(
            $(#[$doc:meta])*
            $Rejection:ident: $code:literal, $explanation:literal, $fix:literal;
        )* }
    ) => {
        /// The kind of a [`Finding`], with a stable [`code`](Self::code).
        ///
        /// The first variants are the faults of a response that accepts the handshake. The others
        /// are the reasons for a rejection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FindingKind {
            $($(#[$fault_doc])* $Fault,)*
            $($(#[$doc])* $Rejection,)*
        }

        impl FindingKind {
            /// Every kind, in the order of the variants.
            pub const ALL: &'static [Self] = &[$(Self::$Fault,)* $(Self::$Rejection,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$Fault => Row {
                        code: $fault_code,
                        explanation: $fault_explanation,
                        fix: $fault_fix,
                    },)*
                    $(Self::$Rejection => Row {
                        code: $code,
                        explanation: $explanation,
                        fix: $fix,
                    },)*
                }
            }

            /// Whether the server rejected the handshake. If false, the server accepted it with a
            /// faulty response, which clients do not accept.
            #[must_use]
            pub const fn is_rejection(self) -> bool {
                matches!(self, $(Self::$Rejection)|*)
            }
        }
    };
}

kinds! {
    faults {
        /// There is no `Sec-WebSocket-Accept`. RFC 6455 4.1.
        AcceptMissing: "accept-missing",
            "the response has the status 101 and no `Sec-WebSocket-Accept`",
            "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")); if the server \
             does, look for a proxy that removes the header";
        /// `Sec-WebSocket-Accept` does not match the key. RFC 6455 4.1.
        AcceptWrong: "accept-wrong",
            "`Sec-WebSocket-Accept` does not match the key of the request",
            "send base64(SHA-1(key + \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\")), computed from the \
             characters of the key as received; if the server does, look for a cache or a proxy \
             that sends the response to another handshake";
        /// `Upgrade` is missing or is not `websocket`; over HTTP/2, it is present. RFC 6455 4.1,
        /// RFC 9113 8.2.2.
        UpgradeWrong: "upgrade-wrong",
            "the response has no valid `Upgrade`",
            "send exactly `Upgrade: websocket`; over HTTP/2 send no `Upgrade`";
        /// `Connection` does not name `upgrade`; over HTTP/2, it is present. RFC 6455 4.1,
        /// RFC 9113 8.2.2.
        ConnectionWrong: "connection-wrong",
            "the response has no valid `Connection`",
            "send `Connection: Upgrade`, and make a proxy in front pass it on; over HTTP/2 send no \
             `Connection`";
        /// The server selected a subprotocol that the client did not offer. RFC 6455 4.1.
        SubprotocolNotOffered: "subprotocol-not-offered",
            "the server selected a subprotocol that the client did not offer",
            "select one of the offered subprotocols, in the same case, or none; or make the client \
             offer it";
        /// The client offered subprotocols, and the server selected none. RFC 6455 allows this, but
        /// browsers fail the connection.
        SubprotocolNotEchoed: "subprotocol-not-echoed",
            "the client offered subprotocols, and the server selected none: browsers fail the \
             connection",
            "select one of the offered subprotocols, or reject the handshake; a client that needs \
             no subprotocol offers none";
        /// The server uses an extension that the client did not offer. RFC 6455 4.1.
        ExtensionNotOffered: "extension-not-offered",
            "the server uses an extension that the client did not offer",
            "send only extensions in `Sec-WebSocket-Extensions` that the request offers";
        /// A header that must occur only once is repeated. RFC 6455 11.3.
        HeaderRepeated: "header-repeated",
            "a header that must occur only once is repeated",
            "send the header once; look for a proxy or a middleware that adds a second";
    }
    rejections {
        /// 401: the credential is missing or not valid.
        Unauthorized: "unauthorized",
            "the server requires a valid credential (401)",
            "send a valid token where this server expects it; scripts in browsers cannot set \
             `Authorization` on a WebSocket";
        /// 403.
        Forbidden: "forbidden",
            "the server does not allow this handshake (403)",
            "most often the server does not allow the `Origin`: add the origin of the page to its \
             list; otherwise check the rights of the credential";
        /// 426 or 400, and the server's `Sec-WebSocket-Version` does not list the client's version.
        /// RFC 6455 4.4.
        VersionRejected: "version-rejected",
            "the server does not support the WebSocket version of the client, only those that it \
             lists",
            "send `Sec-WebSocket-Version: 13`, the version of RFC 6455";
        /// 404.
        NotFound: "not-found",
            "there is no endpoint at this path (404)",
            "check the path of the URL, and a prefix that a proxy in front may add or remove; over \
             HTTP/2 the method is CONNECT, and the route must accept it";
        /// 3xx. Browsers do not follow redirects.
        Redirected: "redirected",
            "the server redirects the handshake (3xx), and browsers do not follow the redirect of \
             a WebSocket",
            "connect to the target of the redirect: often it has `wss:` in place of `ws:`, another \
             host or a trailing slash, or is a login page";
        /// 429.
        RateLimited: "rate-limited",
            "the client sent too many requests (429)",
            "wait as long as `Retry-After` says, and connect again with a growing delay";
        /// 503.
        Unavailable: "unavailable",
            "the server cannot accept the handshake at the moment (503)",
            "try again later; check that the server behind the proxy or the load balancer runs";
        /// 200 or 426: the server took the handshake for an ordinary request.
        UpgradeStripped: "upgrade-stripped",
            "the server took the handshake for an ordinary request: an intermediary removed \
             `Upgrade`, or there is no WebSocket endpoint at this path",
            "make the proxy pass `Upgrade` on (nginx: `proxy_http_version 1.1`, `proxy_set_header \
             Upgrade $http_upgrade`, `proxy_set_header Connection upgrade`), and check the path";
        /// 403, 502 or 504 with the name of a proxy or a CDN.
        RejectedByIntermediary: "rejected-by-intermediary",
            "a proxy or a CDN in front of the server sent the rejection, or passed it on",
            "look into the log of the proxy: with 502 and 504 the proxy did not reach the server, \
             with 403 one of its own rules rejected the handshake; if the log of the server has \
             the handshake, the server rejected it";
        /// Any other status.
        Rejected: "rejected",
            "the server rejected the handshake with another status",
            "look into the log of the server";
    }
}

impl FindingKind {
    /// The stable, kebab-case name, such as `accept-wrong`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The cause in plain words.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        self.row().explanation
    }

    /// The fix, for the operator of the server or of the client.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.row().fix
    }
}

/// A fault of a response, or the reason for a rejection.
///
/// `Display` shows the code, the explanation and the fix. It may contain values from the server, so
/// use it for logs and terminals only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    detail: Option<&'static str>,
    value: Option<Box<str>>,
}

impl Finding {
    pub(super) const fn new(kind: FindingKind) -> Self {
        Self { kind, detail: None, value: None }
    }

    pub(super) fn with_value(self, value: Option<impl AsRef<[u8]>>) -> Self {
        Self { value: value.map(|value| Escaped(value.as_ref()).to_string().into()), ..self }
    }

    pub(super) fn with_detail(self, detail: Option<&'static str>) -> Self {
        Self { detail, ..self }
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> FindingKind {
        self.kind
    }

    /// The [`explanation`](FindingKind::explanation) of the kind, with the [`detail`](Self::detail)
    /// and the [`value`](Self::value) if they are known.
    #[must_use]
    pub fn explanation(&self) -> String {
        let mut explanation = self.kind.explanation().to_owned();
        if let Some(detail) = self.detail {
            explanation.push_str("; ");
            explanation.push_str(detail);
        }
        if let Some(value) = &self.value {
            explanation.push_str(&format!(": `{value}`"));
        }
        explanation
    }

    /// How the fault came about, if it is known, such as the mistake behind a wrong
    /// `Sec-WebSocket-Accept`.
    #[must_use]
    pub const fn detail(&self) -> Option<&'static str> {
        self.detail
    }

    /// The invalid value, escaped, and cut at 128 bytes. For a repeated header it is the name.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl From<FindingKind> for Finding {
    fn from(kind: FindingKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.kind.code(), self.explanation(), self.kind.fix())
    }
}

/// All findings about a response, at least one. `Display` shows one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// The findings, in the order in which a client checks the response.
    #[must_use]
    pub fn as_slice(&self) -> &[Finding] {
        &self.0
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl Error for Findings {}
