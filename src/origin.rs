//! The origin policy: which pages may open a socket.

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};

use crate::{
    config::ConfigError,
    handshake::Handshake,
    http::{Host, Origin, RequestOrigin, field::trim, origin::default_port},
    rejection::{Rejection, RejectionKind as Kind},
};

/// The origin policy: which pages may open a socket. The default allows none.
///
/// Origins are compared as (scheme, host, port), so `https://a` equals `https://a:443`. A missing
/// `Origin` and `null` are rejected unless they are allowed by name. [`or`](Self::or) combines
/// policies:
///
/// ```
/// use tower_ws_guard::AllowOrigin;
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let policy = AllowOrigin::list(["https://app.example.com", "https://*.preview.example.com"])?
///     .or(AllowOrigin::same_origin());
/// # let _ = policy;
/// // A pattern that could never match is an error.
/// let error = AllowOrigin::list(["https://app.example.com/"]).unwrap_err();
/// assert!(error.to_string().contains("no trailing slash"));
/// # Ok(())
/// # }
/// ```
///
/// `Origin` protects the users of browsers. It authenticates nobody, because any other client can
/// send any value.
///
/// A request with `Sec-Fetch-Site: cross-site` needs an explicit permission: a listed pattern, a
/// [`predicate`](Self::predicate), [`allow_null`](Self::allow_null), or
/// [`dangerous_any`](Self::dangerous_any). Otherwise it is rejected, even if its `Origin` is the
/// server's own, or is missing and that is allowed. Without that header only `Origin` decides.
///
/// `X-Forwarded-*` and `Forwarded` are never read.
#[derive(Clone, Default)]
#[must_use]
pub struct AllowOrigin {
    /// The listed origins as browsers write them. Sorted.
    exact: Arc<[Box<str>]>,
    /// Sorted.
    patterns: Arc<[Pattern]>,
    /// Patterns with `*` in place of the first labels. Sorted.
    subdomains: Arc<[Pattern]>,
    predicates: Vec<Predicate>,
    same_origin: bool,
    public_origins: Arc<[Pattern]>,
    missing: bool,
    null: bool,
    any: bool,
}

type Predicate = Arc<dyn Fn(&Origin<'_>, &Handshake<'_>) -> bool + Send + Sync>;

impl AllowOrigin {
    /// Allows pages that were loaded from the host and port that the handshake addresses.
    ///
    /// The scheme must be `http` or `https`. It is not compared with the server's, because a server
    /// behind a proxy that terminates TLS does not know its own. So behind such a proxy a page of
    /// the same host over plain `http://` is allowed too. Use
    /// [`public_origin`](Self::public_origin) there: it compares the scheme, and does not depend on
    /// the `Host` that the proxy sends.
    ///
    /// This does not protect against DNS rebinding, where `Origin` and `Host` both name the
    /// attacker's host. Add an [`AllowHost`](crate::AllowHost) to a server on a local or private
    /// address.
    pub fn same_origin() -> Self {
        Self { same_origin: true, ..Self::default() }
    }

    /// Allows pages of the server's own public origin, such as `https://chat.example.com`, whatever
    /// `Host` is. For servers behind a proxy.
    ///
    /// # Errors
    ///
    /// `origin` is malformed, or no page can have it.
    pub fn public_origin(origin: &str) -> Result<Self, ConfigError> {
        let pattern = Pattern::parse(origin)?;
        if pattern.subdomains || pattern.port == Port::Any {
            return Err(ConfigError::new(origin, "the server's own origin has no wildcard"));
        }
        Ok(Self { public_origins: [pattern].into(), ..Self::default() })
    }

    /// Allows the listed origins. An empty list allows none.
    ///
    /// | pattern | allows |
    /// |---|---|
    /// | `https://app.example.com` | this origin |
    /// | `https://*.example.com` | all subdomains, at any depth, but not `https://example.com` |
    /// | `http://localhost:*` | any port |
    /// | `https://*.example.com:*` | both |
    ///
    /// Upper case and default ports are normalized. A wildcard over a public suffix, such as
    /// `https://*.co.uk`, is not detected. Origins are looked up, so ten thousand are as fast as a
    /// few.
    ///
    /// # Errors
    ///
    /// A pattern could never match, or is `*` (see [`dangerous_any`](Self::dangerous_any)).
    pub fn list<I>(patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let patterns = patterns.into_iter().map(|pattern| Pattern::parse(pattern.as_ref()));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let (subdomains, patterns): (Vec<_>, Vec<_>) =
            patterns.into_iter().partition(|pattern| pattern.subdomains);
        Ok(Self {
            exact: sorted(patterns.iter().filter_map(Pattern::serialized).collect()),
            patterns: sorted(patterns),
            subdomains: sorted(subdomains),
            ..Self::default()
        })
    }

    /// Allows the origins for which `predicate` returns true. It is called only with well-formed
    /// tuple origins, not for `null`.
    ///
    /// Compare whole values: `origin.host().ends_with("example.com")` allows `evilexample.com`.
    pub fn predicate<F>(predicate: F) -> Self
    where
        F: Fn(&Origin<'_>, &Handshake<'_>) -> bool + Send + Sync + 'static,
    {
        Self { predicates: vec![Arc::new(predicate)], ..Self::default() }
    }

    /// Allows every page on the web to connect with your users' cookies, and clients without
    /// `Origin`.
    ///
    /// Use it for public data without a login only. A malformed or repeated `Origin` is still
    /// rejected.
    pub fn dangerous_any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Allows what either policy allows.
    pub fn or(self, other: Self) -> Self {
        Self {
            exact: sorted([&*self.exact, &*other.exact].concat()),
            patterns: sorted([&*self.patterns, &*other.patterns].concat()),
            subdomains: sorted([&*self.subdomains, &*other.subdomains].concat()),
            predicates: [self.predicates, other.predicates].concat(),
            same_origin: self.same_origin || other.same_origin,
            public_origins: sorted([&*self.public_origins, &*other.public_origins].concat()),
            missing: self.missing || other.missing,
            null: self.null || other.null,
            any: self.any || other.any,
        }
    }

    /// Also allows handshakes without `Origin`, as clients other than browsers send them.
    ///
    /// Use it only if clients authenticate with a token or a ticket, and not with credentials that
    /// a browser adds by itself (cookies, HTTP authentication, client certificates). Otherwise a
    /// proxy that drops `Origin` opens the endpoint to every page.
    pub fn allow_missing(self) -> Self {
        Self { missing: true, ..self }
    }

    /// Also allows `Origin: null`, which any page can send from a sandboxed frame.
    pub fn allow_null(self) -> Self {
        Self { null: true, ..self }
    }

    pub(crate) fn check(&self, handshake: &Handshake<'_>) -> Result<(), Rejection> {
        // Most origins are listed, and then comparing bytes is enough.
        if handshake.origin_value().is_some_and(|origin| self.is_exactly_listed(origin)) {
            return Ok(());
        }
        let origin = handshake.origin()?;
        let explicitly_allowed = self.any
            || match &origin {
                RequestOrigin::Missing if !self.missing => return Err(Kind::OriginMissing.into()),
                RequestOrigin::Missing => false,
                RequestOrigin::Null => self.null,
                RequestOrigin::Tuple(origin) => {
                    self.is_listed(origin)
                        || self.predicates.iter().any(|allows| allows(origin, handshake))
                }
            };
        if explicitly_allowed {
            return Ok(());
        }
        let is_cross_site = is_cross_site(handshake);
        let allowed = !is_cross_site
            && match &origin {
                RequestOrigin::Missing => true,
                RequestOrigin::Null => false,
                RequestOrigin::Tuple(origin) => self.is_own(origin, handshake.host()),
            };
        if allowed {
            return Ok(());
        }
        let rejection = Rejection::new(Kind::OriginNotAllowed).with_value(handshake.origin_value());
        Err(if is_cross_site {
            rejection.with_source(
                "`Sec-Fetch-Site` is `cross-site`, so only a listed origin is accepted",
            )
        } else {
            rejection
        })
    }

    fn is_exactly_listed(&self, origin: &HeaderValue) -> bool {
        self.exact.binary_search_by(|exact| exact.as_bytes().cmp(origin.as_bytes())).is_ok()
    }

    fn is_listed(&self, origin: &Origin<'_>) -> bool {
        let parents = || {
            let dots = origin.host().bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            dots.map(|(dot, _)| &origin.host()[dot + 1..])
        };
        is_among(&self.patterns, origin.host(), origin)
            || (!self.subdomains.is_empty()
                && !origin.is_ip()
                && parents().any(|parent| is_among(&self.subdomains, parent, origin)))
    }

    fn is_own(&self, origin: &Origin<'_>, host: Host<'_>) -> bool {
        let same_host = || {
            let default_port = match origin.scheme() {
                "http" => 80,
                "https" => 443,
                _ => return false,
            };
            host.name().eq_ignore_ascii_case(origin.host())
                && host.port().unwrap_or(default_port)
                    == origin.port().map_or(default_port, u32::from)
        };
        (self.same_origin && same_host()) || is_among(&self.public_origins, origin.host(), origin)
    }
}

/// Looks up host and scheme, and then the port.
fn is_among(patterns: &[Pattern], host: &str, origin: &Origin<'_>) -> bool {
    let compare =
        |pattern: &Pattern| (&*pattern.host, &*pattern.scheme).cmp(&(host, origin.scheme()));
    let first = patterns.partition_point(|pattern| compare(pattern).is_lt());
    let rest = &patterns[first..];
    let ports = &rest[..rest.partition_point(|pattern| compare(pattern).is_eq())];
    let is_there = |port: Port| ports.binary_search_by_key(&port, |pattern| pattern.port).is_ok();
    is_there(Port::Any) || is_there(Port::Is(origin.effective_port()))
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Arc<[T]> {
    values.sort_unstable();
    values.into()
}

/// Fetch Metadata (W3C) can only reject, because Chromium sends none on a WebSocket handshake.
fn is_cross_site(handshake: &Handshake<'_>) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

    let mut sites = handshake.headers().get_all(SEC_FETCH_SITE).iter();
    sites.any(|site| trim(site.as_bytes()).eq_ignore_ascii_case(b"cross-site"))
}

impl fmt::Debug for AllowOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowOrigin")
            .field("patterns", &self.patterns)
            .field("subdomains", &self.subdomains)
            .field("predicates", &self.predicates.len())
            .field("same_origin", &self.same_origin)
            .field("public_origins", &self.public_origins)
            .field("missing", &self.missing)
            .field("null", &self.null)
            .field("any", &self.any)
            .finish()
    }
}

/// A normalized pattern. The look-up relies on the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    host: Box<str>,
    scheme: Box<str>,
    subdomains: bool,
    port: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Any,
    /// The effective port. A scheme without a default port may have none.
    Is(Option<u16>),
}

impl Pattern {
    fn parse(value: &str) -> Result<Self, ConfigError> {
        let error = |problem| ConfigError::new(value, problem);

        let lower = value.to_ascii_lowercase();
        match &*lower {
            "*" => return Err(error("only `AllowOrigin::dangerous_any` allows any origin")),
            "null" => return Err(error("use `AllowOrigin::allow_null` to allow `null`")),
            _ => {}
        }
        let (rest, any_port) = match lower.strip_suffix(":*") {
            Some(rest) => (rest, true),
            None => (&*lower, false),
        };
        let subdomains = rest.contains("://*.");
        let rest = rest.replacen("://*.", "://", 1);
        let origin = Origin::parse(rest.as_bytes()).map_err(|invalid| error(invalid.0))?;

        if matches!(origin.scheme(), "ws" | "wss") {
            return Err(error(
                "the origin of a page has the scheme `http` or `https`, never `ws` or `wss`",
            ));
        }
        if any_port && origin.port().is_some() {
            return Err(error("an origin has one port"));
        }
        if subdomains && (origin.is_ip() || origin.host().is_empty()) {
            return Err(error("`*` stands for the labels of a name, and this is not a name"));
        }
        Ok(Self {
            host: origin.host().into(),
            scheme: origin.scheme().into(),
            subdomains,
            port: if any_port { Port::Any } else { Port::Is(origin.effective_port()) },
        })
    }

    /// The one origin that the pattern matches, as browsers write it: without a default port.
    /// `None` if the pattern matches several.
    fn serialized(&self) -> Option<Box<str>> {
        let Port::Is(port) = self.port else { return None };
        let default = default_port(&self.scheme);
        let port = port.filter(|port| Some(*port) != default);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}://{}{port}", self.scheme, self.host).into())
    }
}
