//! The client's side: checks whether a response completes the handshake (RFC 6455 4.1, RFC 8441),
//! for tests of your own.
//!
//! [`ClientHandshake`] stores what a request offers. [`verify`](ClientHandshake::verify) then
//! checks the response as a browser does, and lists all of its faults. Browsers report only that a
//! connection failed; a [`Finding`] has a stable `code`, the cause in plain words and a fix. The
//! program `ws-doctor` makes the same checks over the network, and many more. See the guide to
//! [testing](crate::guide::testing).
//!
//! # Example
//!
//! ```
//! use http::{Response, StatusCode};
//! use tower_ws_guard::{
//!     client::{ClientHandshake, FindingKind},
//!     test_util::handshake,
//! };
//!
//! let request = handshake("/ws").subprotocols(["chat", "superchat"]).build(());
//! let handshake = ClientHandshake::new(&request);
//!
//! let response = |accept: &str| {
//!     Response::builder()
//!         .status(StatusCode::SWITCHING_PROTOCOLS)
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-accept", accept)
//!         .header("sec-websocket-protocol", "superchat")
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = handshake.verify(&response("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")).unwrap();
//! assert_eq!(accepted.subprotocol(), Some("superchat"));
//!
//! // Computed with the GUID in lower case.
//! let findings = handshake.verify(&response("WJfwerbIozKsJXHxxI0JTO1SQgU=")).unwrap_err();
//! assert_eq!(findings.as_slice()[0].kind(), FindingKind::AcceptWrong);
//! assert!(findings.to_string().contains("lower case"));
//! ```

mod accept;
mod finding;

use std::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_TYPE, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SERVER, UPGRADE, VIA,
        WWW_AUTHENTICATE,
    },
};

pub use self::finding::{Finding, FindingKind, Findings};
use crate::{
    extension::{Fault, Malformed, read_response},
    http::{
        Transport, accept_key,
        field::{elements, has_element, text_elements, trim},
    },
};

const NO_KEY: &str = "the request has no key of 24 characters, so no value matches";
const TWICE: &str = "the response names it twice";
const PARAMETERS: &str = "its parameters fit no offer";
const MALFORMED: &str = "the header of the response is malformed";
const OFFER: &str = "the offer of the request is malformed, so no extension fits";
const NOT_OVER_HTTP2: &str = "HTTP/2 and newer do not allow this header";

/// The part of a request that the response must match. The request itself is not checked.
#[derive(Clone)]
pub struct ClientHandshake {
    transport: Transport,
    key: Option<[u8; 24]>,
    versions: Vec<HeaderValue>,
    subprotocols: Vec<String>,
    extensions: Vec<HeaderValue>,
}

impl ClientHandshake {
    /// Stores the key, the version, the subprotocols and the extensions of `request`.
    ///
    /// The response must follow RFC 6455 if the version of the request is HTTP/1.1 or older, and
    /// RFC 8441 if it is HTTP/2 or newer.
    #[must_use]
    pub fn new<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            transport: Transport::new(request.version()),
            key: headers
                .get(SEC_WEBSOCKET_KEY)
                .and_then(|key| trim(key.as_bytes()).try_into().ok()),
            versions: headers.get_all(SEC_WEBSOCKET_VERSION).iter().cloned().collect(),
            subprotocols: text_elements(headers.get_all(SEC_WEBSOCKET_PROTOCOL))
                .map(str::to_owned)
                .collect(),
            extensions: headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().cloned().collect(),
        }
    }

    /// Checks whether `response` completes the handshake.
    ///
    /// # Errors
    ///
    /// All faults of a response that accepts the handshake (101; over HTTP/2: 200), or the reason
    /// for a rejection.
    pub fn verify<B>(&self, response: &Response<B>) -> Result<Accepted, Findings> {
        let headers = response.headers();
        let findings = match (self.transport, response.status()) {
            (Transport::Http1, StatusCode::SWITCHING_PROTOCOLS) => {
                let mut findings = self.check_switch(headers);
                self.check_negotiation(headers, &mut findings);
                findings
            }
            // RFC 9110 9.3.6 allows any 2xx, but browsers accept only 200.
            (Transport::ExtendedConnect, StatusCode::OK) => {
                let mut findings = check_no_switch(headers);
                self.check_negotiation(headers, &mut findings);
                findings
            }
            (_, status) => vec![self.rejection(status, headers)],
        };
        if !findings.is_empty() {
            return Err(Findings(findings));
        }
        let extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().flat_map(elements);
        Ok(Accepted {
            subprotocol: text_elements(headers.get_all(SEC_WEBSOCKET_PROTOCOL))
                .next()
                .map(str::to_owned),
            extensions: extensions
                .map(|element| String::from_utf8_lossy(element).into_owned())
                .collect(),
        })
    }

    /// Requirements 2 to 4 of RFC 6455 4.1.
    fn check_switch(&self, headers: &HeaderMap) -> Vec<Finding> {
        use FindingKind as Kind;

        let mut findings = Vec::new();
        findings.extend(repeated(headers, &UPGRADE));
        let upgrade = headers.get(UPGRADE);
        if !upgrade.is_some_and(|value| trim(value.as_bytes()).eq_ignore_ascii_case(b"websocket")) {
            findings.push(Finding::new(Kind::UpgradeWrong).with_value(upgrade));
        }
        if !headers.get_all(CONNECTION).iter().any(|value| has_element(value, b"upgrade")) {
            findings.push(Finding::new(Kind::ConnectionWrong).with_value(headers.get(CONNECTION)));
        }
        findings.extend(repeated(headers, &SEC_WEBSOCKET_ACCEPT));
        match headers.get(SEC_WEBSOCKET_ACCEPT) {
            None => findings.push(Kind::AcceptMissing.into()),
            Some(value) => {
                let accept = trim(value.as_bytes());
                let detail = match self.key {
                    Some(key) if accept == accept_key(&key) => return findings,
                    Some(key) => accept::mistake(&key, accept),
                    None => Some(NO_KEY),
                };
                findings.push(
                    Finding::new(Kind::AcceptWrong).with_detail(detail).with_value(Some(value)),
                );
            }
        }
        findings
    }

    /// Requirements 5 and 6 of RFC 6455 4.1.
    fn check_negotiation(&self, headers: &HeaderMap, findings: &mut Vec<Finding>) {
        use FindingKind as Kind;

        findings.extend(repeated(headers, &SEC_WEBSOCKET_PROTOCOL));
        let selected = headers.get(SEC_WEBSOCKET_PROTOCOL);
        match selected.map(|value| trim(value.as_bytes())) {
            // RFC 6455 allows this, but the WebSockets Standard (WHATWG) does not.
            None | Some(b"") if !self.subprotocols.is_empty() => {
                findings.push(Kind::SubprotocolNotEchoed.into());
            }
            None => {}
            Some(selected)
                if self.subprotocols.iter().any(|offered| offered.as_bytes() == selected) => {}
            Some(_) => {
                findings.push(Finding::new(Kind::SubprotocolNotOffered).with_value(selected));
            }
        }

        findings.extend(repeated(headers, &SEC_WEBSOCKET_EXTENSIONS));
        let extensions = headers.get_all(SEC_WEBSOCKET_EXTENSIONS);
        let first = extensions.iter().next();
        let finding = |detail| Finding::new(Kind::ExtensionNotOffered).with_detail(detail);
        match read_response(&self.extensions, extensions) {
            Ok(named) => {
                findings.extend(named.iter().filter_map(|named| {
                    Some(match named.fault()? {
                        Fault::NotOffered => finding(None).with_value(Some(named.name())),
                        Fault::Repeated => finding(Some(TWICE)).with_value(Some(named.name())),
                        Fault::Parameters => finding(Some(PARAMETERS)).with_value(first),
                    })
                }));
            }
            Err(Malformed::Response(_)) => {
                findings.push(finding(Some(MALFORMED)).with_value(first));
            }
            Err(Malformed::Offer(_)) => findings.push(finding(Some(OFFER)).with_value(first)),
        }
    }

    /// The reason for a rejection, from its status.
    fn rejection(&self, status: StatusCode, headers: &HeaderMap) -> Finding {
        use FindingKind as Kind;

        // Intermediaries add their name to the rejections of the server too, but do not send
        // problems.
        let is_problem = headers.get(CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().to_ascii_lowercase().starts_with(b"application/problem+json")
        });
        let intermediary = intermediary(headers).filter(|_| !is_problem);
        match status {
            StatusCode::UNAUTHORIZED => {
                Finding::new(Kind::Unauthorized).with_value(headers.get(WWW_AUTHENTICATE))
            }
            StatusCode::FORBIDDEN | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
                if intermediary.is_some() =>
            {
                Finding::new(Kind::RejectedByIntermediary).with_value(intermediary)
            }
            StatusCode::FORBIDDEN => Kind::Forbidden.into(),
            StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST
                if self.is_version_rejected(headers) =>
            {
                Finding::new(Kind::VersionRejected).with_value(headers.get(SEC_WEBSOCKET_VERSION))
            }
            StatusCode::UPGRADE_REQUIRED => Kind::UpgradeStripped.into(),
            StatusCode::NOT_FOUND => Kind::NotFound.into(),
            StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited.into(),
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable.into(),
            _ if status.is_redirection() => {
                Finding::new(Kind::Redirected).with_value(headers.get(LOCATION))
            }
            StatusCode::OK => Kind::UpgradeStripped.into(),
            _ => Finding::new(Kind::Rejected).with_value(Some(status.to_string())),
        }
    }

    /// RFC 6455 4.4. Some servers list their versions in every rejection, so the list counts only
    /// if the client's version is not on it.
    fn is_version_rejected(&self, headers: &HeaderMap) -> bool {
        let mut supported =
            headers.get_all(SEC_WEBSOCKET_VERSION).iter().flat_map(elements).peekable();
        let is_offered = |version: &[u8]| {
            self.versions.iter().any(|offered| trim(offered.as_bytes()) == version)
        };
        supported.peek().is_some() && !supported.any(is_offered)
    }
}

/// Does not show the subprotocols, because one may carry a token.
impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// HTTP/2 forbids `Upgrade` and `Connection` (RFC 9113 8.2.2). `Sec-WebSocket-Accept` is ignored
/// (RFC 8441 5).
fn check_no_switch(headers: &HeaderMap) -> Vec<Finding> {
    use FindingKind as Kind;

    let forbidden = [(UPGRADE, Kind::UpgradeWrong), (CONNECTION, Kind::ConnectionWrong)];
    let found = forbidden.into_iter().filter_map(|(name, kind)| Some((kind, headers.get(name)?)));
    found
        .map(|(kind, value)| {
            Finding::new(kind).with_detail(Some(NOT_OVER_HTTP2)).with_value(Some(value))
        })
        .collect()
}

/// RFC 6455 11.3: the header must occur only once in a response.
fn repeated(headers: &HeaderMap, name: &HeaderName) -> Option<Finding> {
    headers.get_all(name).iter().nth(1)?;
    Some(Finding::new(FindingKind::HeaderRepeated).with_value(Some(name.as_str())))
}

/// The line of `Via` or `Server` that names a known proxy or CDN.
fn intermediary(headers: &HeaderMap) -> Option<&HeaderValue> {
    const KNOWN: [&str; 19] = [
        "akamai",
        "apache traffic server",
        "awselb",
        "caddy",
        "cloudflare",
        "cloudfront",
        "ddos-guard",
        "envoy",
        "fastly",
        "google frontend",
        "haproxy",
        "imperva",
        "microsoft-azure-application-gateway",
        "nginx",
        "openresty",
        "squid",
        "traefik",
        "varnish",
        "vegur",
    ];
    let lines = headers.get_all(VIA).iter().chain(headers.get_all(SERVER));
    lines.into_iter().find(|line| {
        let line = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        KNOWN.iter().any(|known| line.contains(known))
    })
}

/// The result of a completed handshake: the subprotocol and the extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    subprotocol: Option<String>,
    extensions: Vec<String>,
}

impl Accepted {
    /// The subprotocol that the server selected, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The extensions with their parameters, in the order of the server.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(|extension| &**extension)
    }
}
