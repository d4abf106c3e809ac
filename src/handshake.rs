//! The strict parser of the opening handshake (RFC 6455 4.2.1, RFC 8441).
//!
//! Every layer of this crate classifies a request with
//! [`is_upgrade_request`](crate::is_upgrade_request) and parses an upgrade request with
//! [`Handshake::parse`]. The classifier is loose and the parser is strict, on purpose: a request
//! that a layer passes as ordinary must not be a handshake to any handler behind it.

use std::fmt;

use http::{
    Extensions, HeaderMap, HeaderValue, Method, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};

use crate::{
    extension::{Agreement, PermessageDeflate},
    head::{RequestHead, parse_host},
    http::{
        Host, RequestOrigin, Transport,
        field::{SingletonField, all_in, alphanumeric_and, elements, has_element, one_line, trim},
        transport::Protocol,
    },
    rejection::{Rejection, RejectionKind as Kind},
    subprotocol::Subprotocols,
    subprotocol_offer::Offered,
};

/// The values that browsers send.
const WEBSOCKET: &[u8] = b"websocket";
const CONNECTION_UPGRADE: &[u8] = b"Upgrade";

/// A well-formed handshake without its body: the input of a [`Check`](crate::Check).
///
/// ```
/// use tower_ws_guard::{Handshake, RejectionKind, is_upgrade_request, test_util::handshake};
///
/// let (mut parts, ()) = handshake("/ws").host("server.example.com").build(()).into_parts();
/// let parsed = Handshake::parse(&mut parts).unwrap();
/// assert_eq!(parsed.host().name(), "server.example.com");
///
/// let malformed = handshake("/ws").header("sec-websocket-key", "zzz").build(());
/// assert!(is_upgrade_request(&malformed));
/// let (mut parts, ()) = malformed.into_parts();
/// let rejection = Handshake::parse(&mut parts).unwrap_err();
/// assert_eq!(rejection.kind(), RejectionKind::KeyInvalid);
/// ```
pub struct Handshake<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a mut Extensions,
    transport: Transport,
    is_webtransport: bool,
    host: Host<'a>,
    origin: SingletonField<'a>,
    key: Option<[u8; 24]>,
    subprotocols: SingletonField<'a>,
    offered: Offered<'a>,
    offered_extensions: SingletonField<'a>,
    /// About the extensions, if the layer negotiates them.
    agreement: Option<Agreement>,
    normalized: AlreadyNormalized,
}

/// What a layer supports, as far as the parser must know.
#[derive(Default)]
pub(crate) struct Supported<'a> {
    /// Some servers have a subprotocol that is not a token, such as `SPDY/3.1+portforward.k8s.io`
    /// of Kubernetes.
    pub(crate) subprotocols: Option<&'a Subprotocols>,
    /// `None`: the layer does not negotiate.
    pub(crate) extensions: Option<&'a PermessageDeflate>,
    /// No WebTransport.
    pub(crate) only_websocket: bool,
}

/// Which fields already have the value that handlers are to see.
#[derive(Clone, Copy)]
pub(crate) struct AlreadyNormalized {
    pub(crate) upgrade: bool,
    pub(crate) connection: bool,
    pub(crate) key: bool,
    pub(crate) version: bool,
    /// Not there, or with an element.
    pub(crate) subprotocols: bool,
}

impl<'a> Handshake<'a> {
    /// Parses a handshake as RFC 6455 4.2.1 requires, over HTTP/2 and newer as RFC 8441 requires.
    /// That of a [WebTransport session](Self::is_webtransport) needs no version: ask for it before
    /// you complete a WebSocket yourself.
    ///
    /// # Errors
    ///
    /// The first fault, in the order of the variants of [`RejectionKind`](crate::RejectionKind) up
    /// to [`SubprotocolInvalid`](crate::RejectionKind::SubprotocolInvalid).
    pub fn parse(request: &'a mut Parts) -> Result<Self, Rejection> {
        Self::parse_for(request, &Supported::default())
    }

    /// Parses a handshake with a layer that supports this.
    pub(crate) fn parse_for(
        request: &'a mut Parts,
        supported: &Supported<'_>,
    ) -> Result<Self, Rejection> {
        let Parts { method, uri, version, headers, extensions, .. } = request;
        let transport = Transport::new(*version);
        let mut is_webtransport = false;
        let mut fields = Fields::read(headers);

        match transport {
            Transport::Http1 => {
                if *method != Method::GET {
                    return Err(Kind::MethodNotAllowed.into());
                }
                if *version < Version::HTTP_11 {
                    return Err(Kind::HttpVersion.into());
                }
                if !fields.upgrade_websocket {
                    return Err(Rejection::new(Kind::UpgradeMissing)
                        .with_header_value(headers.get(UPGRADE)));
                }
                if !fields.connection_upgrade {
                    return Err(Kind::ConnectionMissing.into());
                }
                // hyper would hand over the connection behind any response, even a 403.
                if fields.connection_close {
                    return Err(Kind::ConnectionClose.into());
                }
            }
            Transport::ExtendedConnect => {
                if *method != Method::CONNECT {
                    return Err(Kind::MethodNotAllowed.into());
                }
                match Protocol::new(*version, uri, extensions) {
                    Protocol::WebSocket => {}
                    Protocol::WebTransport if supported.only_websocket => {
                        return Err(Rejection::new(Kind::UpgradeMissing).with_source(
                            "the layer completes WebSocket handshakes only; a handler of \
                             WebTransport sessions needs a guard without `respond`",
                        ));
                    }
                    Protocol::WebTransport => is_webtransport = true,
                    Protocol::Unclear | Protocol::Other => return Err(Kind::UpgradeMissing.into()),
                }
            }
        }
        // RFC 8441 4: an extended CONNECT has an authority.
        if transport == Transport::ExtendedConnect && uri.authority().is_none() {
            return Err(Kind::HostInvalid.into());
        }
        let host = parse_host(fields.host, uri, transport)?;
        let key = match transport {
            Transport::Http1 => Some(parse_key(fields.key)?),
            // RFC 8441 5: the key is not used.
            Transport::ExtendedConnect => None,
        };
        if is_webtransport {
            fields.subprotocols = SingletonField::Absent;
            fields.extensions = SingletonField::Absent;
        } else {
            check_version(fields.version)?;
        }
        if fields.body || (fields.content_length && transport == Transport::ExtendedConnect) {
            return Err(Kind::BodyPresent.into());
        }
        let offered = parse_subprotocols(fields.subprotocols, headers, supported.subprotocols)?;
        let agreement = match (supported.extensions, fields.extensions) {
            (None, _) | (_, SingletonField::Absent) => None,
            (Some(deflate), _) => negotiate_extensions(deflate, headers)?,
        };

        let normalized = AlreadyNormalized {
            upgrade: fields.upgrade.is(WEBSOCKET),
            connection: fields.connection.is(CONNECTION_UPGRADE),
            key: key.is_some_and(|key| fields.key.is(&key)),
            version: fields.version.is(b"13"),
            subprotocols: !offered.is_empty()
                || matches!(fields.subprotocols, SingletonField::Absent),
        };
        let origin = fields.origin;
        Ok(Self {
            method,
            uri,
            headers,
            extensions,
            transport,
            is_webtransport,
            host,
            origin,
            key,
            subprotocols: fields.subprotocols,
            offered,
            offered_extensions: fields.extensions,
            agreement,
            normalized,
        })
    }

    /// The method: `GET`, or over HTTP/2 `CONNECT`.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The request target. Its query may hold a credential.
    #[must_use]
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// All headers as they arrived. They may hold credentials.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions of the request, such as axum's `ConnectInfo`.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        self.extensions
    }

    /// The extensions of the request. A check can insert values for the inner services here.
    #[must_use]
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the client asks for a WebTransport session and not for a WebSocket. Then there is no
    /// version and no key, and no subprotocol is read.
    #[must_use]
    pub fn is_webtransport(&self) -> bool {
        self.is_webtransport
    }

    /// The host that the client addressed: `Host`, over HTTP/2 `:authority`.
    #[must_use]
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The origin of the page that opens the socket.
    ///
    /// # Errors
    ///
    /// [`OriginRepeated`](crate::RejectionKind::OriginRepeated) and
    /// [`OriginInvalid`](crate::RejectionKind::OriginInvalid).
    pub fn origin(&self) -> Result<RequestOrigin<'_>, Rejection> {
        self.head().origin()
    }

    /// The head of the request, as the policies see it.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        let Self { uri, headers, host, origin, .. } = *self;
        RequestHead { uri, headers, extensions: self.extensions, host, origin }
    }

    /// The subprotocols that the client offers, in its order of preference. Some may carry a
    /// credential.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // Each is ASCII.
        self.offered.clone().into_names().filter_map(|name| str::from_utf8(name).ok())
    }

    pub(crate) const fn offered(&self) -> &Offered<'a> {
        &self.offered
    }

    /// The line of the offered subprotocols, if there is one line.
    pub(crate) const fn subprotocol_line(&self) -> Option<&'a HeaderValue> {
        match self.subprotocols {
            SingletonField::One(line) => Some(line),
            SingletonField::Absent | SingletonField::Repeated => None,
        }
    }

    /// All lines of `Sec-WebSocket-Extensions`, as one.
    pub(crate) fn offered_extensions(&self) -> Option<HeaderValue> {
        match self.offered_extensions {
            SingletonField::Absent => None,
            SingletonField::One(value) => Some(value.clone()),
            SingletonField::Repeated => one_line(self.headers.get_all(SEC_WEBSOCKET_EXTENSIONS)),
        }
    }

    /// What the layer agreed to about extensions.
    pub(crate) const fn agreement(&self) -> Option<Agreement> {
        self.agreement
    }

    /// The 24 characters of `Sec-WebSocket-Key`. Over HTTP/2 there are none.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 24]> {
        self.key
    }

    /// `None` for a WebTransport session: handlers see no field of a WebSocket.
    pub(crate) fn normalized(&self) -> Option<AlreadyNormalized> {
        (!self.is_webtransport).then_some(self.normalized)
    }
}

/// Shows neither headers nor the query, because they may hold credentials.
impl fmt::Debug for Handshake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("transport", &self.transport)
            .field("host", &self.host)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

/// The fields that the rules need, read in one pass. That is cheaper than look-ups in the map.
#[derive(Default)]
struct Fields<'a> {
    upgrade: SingletonField<'a>,
    upgrade_websocket: bool,
    connection: SingletonField<'a>,
    connection_upgrade: bool,
    connection_close: bool,
    host: SingletonField<'a>,
    key: SingletonField<'a>,
    version: SingletonField<'a>,
    origin: SingletonField<'a>,
    content_length: bool,
    body: bool,
    subprotocols: SingletonField<'a>,
    extensions: SingletonField<'a>,
}

impl<'a> Fields<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            match *name {
                UPGRADE => {
                    fields.upgrade.add(value);
                    fields.upgrade_websocket |= has_element(value, WEBSOCKET);
                }
                CONNECTION => fields.add_connection(value),
                HOST => fields.host.add(value),
                SEC_WEBSOCKET_KEY => fields.key.add(value),
                SEC_WEBSOCKET_VERSION => fields.version.add(value),
                SEC_WEBSOCKET_PROTOCOL => fields.subprotocols.add(value),
                SEC_WEBSOCKET_EXTENSIONS => fields.extensions.add(value),
                ORIGIN => fields.origin.add(value),
                CONTENT_LENGTH => {
                    fields.body |= fields.content_length || trim(value.as_bytes()) != b"0";
                    fields.content_length = true;
                }
                TRANSFER_ENCODING => fields.body = true,
                _ => {}
            }
        }
        fields
    }

    fn add_connection(&mut self, value: &'a HeaderValue) {
        self.connection.add(value);
        // Most clients send nothing else.
        if value.as_bytes() == CONNECTION_UPGRADE {
            self.connection_upgrade = true;
            return;
        }
        for element in elements(value) {
            self.connection_upgrade |= element.eq_ignore_ascii_case(CONNECTION_UPGRADE);
            self.connection_close |= element.eq_ignore_ascii_case(b"close");
        }
    }
}

/// RFC 6455 4.2.1 item 5. The bits behind the 16th byte are ignored: the RFC's own example has
/// some.
fn parse_key(line: SingletonField<'_>) -> Result<[u8; 24], Rejection> {
    let value = match line {
        SingletonField::Absent => return Err(Kind::KeyMissing.into()),
        SingletonField::One(value) => value,
        SingletonField::Repeated => return Err(Kind::KeyRepeated.into()),
    };
    /// RFC 4648 4.
    static BASE64: [bool; 256] = alphanumeric_and(b"+/");
    match <[u8; 24]>::try_from(trim(value.as_bytes())) {
        Ok(key) if all_in(&BASE64, &key[..22]) && key[22..] == *b"==" => Ok(key),
        _ => Err(Rejection::new(Kind::KeyInvalid).with_header_value(value)),
    }
}

/// RFC 6455 4.2.1 item 6, 4.4 and 11.3.5.
fn check_version(line: SingletonField<'_>) -> Result<(), Rejection> {
    let value = match line {
        SingletonField::Absent => return Err(Kind::VersionMissing.into()),
        SingletonField::One(value) => value,
        SingletonField::Repeated => return Err(Kind::VersionInvalid.into()),
    };
    // `version` of RFC 6455 4.3: 0 to 255 without leading zeros.
    let kind = match trim(value.as_bytes()) {
        b"13" => return Ok(()),
        [b'0'..=b'9']
        | [b'1'..=b'9', b'0'..=b'9']
        | [b'1', b'0'..=b'9', b'0'..=b'9']
        | [b'2', b'0'..=b'4', b'0'..=b'9']
        | [b'2', b'5', b'0'..=b'5'] => Kind::VersionUnsupported,
        _ => Kind::VersionInvalid,
    };
    Err(Rejection::new(kind).with_header_value(value))
}

fn parse_subprotocols<'a>(
    line: SingletonField<'a>,
    headers: &'a HeaderMap,
    ours: Option<&Subprotocols>,
) -> Result<Offered<'a>, Rejection> {
    let (one, several) = match line {
        SingletonField::Absent => return Ok(Offered::default()),
        SingletonField::One(line) => match Offered::one(line.as_bytes()) {
            Some(offered) => return Ok(offered),
            None => (Some(line), None),
        },
        SingletonField::Repeated => (None, Some(headers.get_all(SEC_WEBSOCKET_PROTOCOL))),
    };
    let lines = one.into_iter().chain(several.into_iter().flatten()).map(HeaderValue::as_bytes);
    let is_ours = |name: &[u8]| ours.is_some_and(|ours| ours.contains(name));
    // A misplaced credential may be among the elements, so none is shown.
    Offered::parse(lines, is_ours)
        .map_err(|invalid| Rejection::new(Kind::SubprotocolInvalid).with_source(invalid))
}

/// RFC 6455 9.1: a list of another form fails the connection.
fn negotiate_extensions(
    deflate: &PermessageDeflate,
    headers: &HeaderMap,
) -> Result<Option<Agreement>, Rejection> {
    let lines = headers.get_all(SEC_WEBSOCKET_EXTENSIONS);
    deflate.negotiate(&lines).map_err(|invalid| {
        Rejection::new(Kind::ExtensionInvalid)
            .with_header_value(lines.iter().next())
            .with_source(invalid)
    })
}
