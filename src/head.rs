//! The head of a request, as the policies see it.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderValue, Uri, header::HOST, request::Parts};

use crate::{
    http::{
        Host, RequestOrigin, Transport,
        field::{SingletonField, trim},
        origin::{self, OriginError},
    },
    rejection::{Rejection, RejectionKind as Kind},
};

/// The head of any request, whose host is valid: what [`AllowOrigin`](crate::AllowOrigin) and
/// [`AllowHost`](crate::AllowHost) judge.
///
/// ```
/// use http::Request;
/// use tower_ws_guard::{AllowOrigin, RejectionKind, RequestHead};
///
/// let policy = AllowOrigin::same_origin();
/// let (parts, ()) = Request::post("/messages")
///     .header("host", "app.example.com")
///     .header("origin", "https://evil.example")
///     .body(())
///     .unwrap()
///     .into_parts();
/// let rejection = policy.check(&RequestHead::new(&parts).unwrap()).unwrap_err();
/// assert_eq!(rejection.kind(), RejectionKind::OriginNotAllowed);
/// ```
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
    pub(crate) host: Host<'a>,
    pub(crate) origin: SingletonField<'a>,
}

impl<'a> RequestHead<'a> {
    /// Reads the host.
    ///
    /// # Errors
    ///
    /// [`HostInvalid`](crate::RejectionKind::HostInvalid).
    pub fn new(request: &'a Parts) -> Result<Self, Rejection> {
        let Parts { uri, version, headers, extensions, .. } = request;
        let mut line = SingletonField::default();
        headers.get_all(HOST).iter().for_each(|value| line.add(value));
        let host = parse_host(line, uri, Transport::new(*version))?;
        Ok(Self { uri, headers, extensions, host, origin: origin::line(headers) })
    }

    /// The request target. Its query may hold a credential.
    #[must_use]
    pub const fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// All headers as they arrived. They may hold credentials.
    #[must_use]
    pub const fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions of the request, such as axum's `ConnectInfo`.
    #[must_use]
    pub const fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    /// The host that the client addressed: `Host`, over HTTP/2 `:authority`.
    #[must_use]
    pub const fn host(&self) -> Host<'a> {
        self.host
    }

    /// The origin of the page that sends the request.
    ///
    /// # Errors
    ///
    /// [`OriginRepeated`](crate::RejectionKind::OriginRepeated) and
    /// [`OriginInvalid`](crate::RejectionKind::OriginInvalid).
    pub fn origin(&self) -> Result<RequestOrigin<'a>, Rejection> {
        RequestOrigin::parse(self.origin).map_err(|fault| match fault {
            OriginError::Repeated => Kind::OriginRepeated.into(),
            OriginError::Invalid(value, invalid) => {
                Rejection::new(Kind::OriginInvalid).with_header_value(value).with_source(invalid)
            }
        })
    }

    /// The value of `Origin` if there is exactly one.
    pub(crate) const fn origin_value(&self) -> Option<&'a HeaderValue> {
        match self.origin {
            SingletonField::One(value) => Some(value),
            SingletonField::Absent | SingletonField::Repeated => None,
        }
    }
}

/// Shows neither headers nor the query, because they may hold credentials.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("host", &self.host)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

/// RFC 9112 3.2, over HTTP/2 RFC 9113 8.3.1.
pub(crate) fn parse_host<'a>(
    line: SingletonField<'a>,
    uri: &'a Uri,
    transport: Transport,
) -> Result<Host<'a>, Rejection> {
    let invalid = || Rejection::new(Kind::HostInvalid);

    let header = match line {
        SingletonField::Absent => None,
        SingletonField::One(value) => {
            let host = Host::parse(trim(value.as_bytes()));
            Some(host.map_err(|fault| invalid().with_header_value(value).with_source(fault))?)
        }
        SingletonField::Repeated => return Err(invalid()),
    };
    let target = match uri.authority() {
        None => None,
        Some(authority) => {
            let host = Host::parse(authority.as_str().as_bytes());
            Some(host.map_err(|fault| invalid().with_source(fault))?)
        }
    };
    let default_port = match uri.scheme_str() {
        Some("http" | "ws") => Some(80),
        Some("https" | "wss") => Some(443),
        _ => None,
    };
    match (transport, header, target) {
        (_, Some(header), Some(target)) if !header.is_same(target, default_port) => Err(invalid()
            .with_value(header.to_string())
            .with_source(format!("the request target names the host `{target}`"))),
        (Transport::Http1, Some(host), _) | (Transport::ExtendedConnect, _, Some(host)) => Ok(host),
        // RFC 9113 8.3.1: a gateway that translates from HTTP/1.1 may leave `:authority` out.
        (Transport::ExtendedConnect, Some(host), None) => Ok(host),
        _ => Err(invalid()),
    }
}
