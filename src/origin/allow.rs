use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};

use crate::{
    config::ConfigError,
    handshake::{Handshake, Host, trim},
    origin::{Origin, RequestOrigin},
    rejection::{Rejection, RejectionKind as Kind},
};

/// Which pages may open a socket: a policy for `Origin`. The default allows none.
///
/// Origins are compared as (scheme, host, port), where `https://a` equals `https://a:443`. A missing `Origin` and `null` are
/// refused unless they are allowed by name. Policies are joined with [`or`](Self::or):
///
/// ```
/// use tower_ws_guard::AllowOrigin;
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let policy = AllowOrigin::list(["https://app.example.com", "https://*.preview.example.com"])?
///     .or(AllowOrigin::same_origin());
/// # let _ = policy;
/// // What could never match is an error.
/// let error = AllowOrigin::list(["https://app.example.com/"]).unwrap_err();
/// assert!(error.to_string().contains("no trailing slash"));
/// # Ok(())
/// # }
/// ```
///
/// `Origin` protects the users of browsers; it authenticates nobody, because every other client can send what it likes.
///
/// A request that says `Sec-Fetch-Site: cross-site` is refused even if its `Origin` is the server's own, or is missing and
/// that is allowed. It is let in by a listed pattern, a [`predicate`](Self::predicate), [`allow_null`](Self::allow_null), or
/// [`dangerous_any`](Self::dangerous_any). A request without that header is judged by its `Origin` alone.
///
/// `X-Forwarded-*` and `Forwarded` are never read.
#[derive(Clone, Default)]
#[must_use]
pub struct AllowOrigin {
    /// Sorted.
    patterns: Arc<[Pattern]>,
    /// Those with `*` in place of the first labels.
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
    /// The scheme is not compared with the server's, which does not know it behind a proxy that terminates TLS; it must be
    /// `http` or `https`. So behind such a proxy a page of the same host that was loaded over plain `http://` gets in too. Use
    /// [`public_origin`](Self::public_origin) there: it compares the scheme, and it does not care what the proxy does to `Host`.
    ///
    /// This is no protection from DNS rebinding, where both headers name the attacker's host: add an
    /// [`AllowHost`](crate::AllowHost) to a server on a local or private address.
    pub fn same_origin() -> Self {
        Self { same_origin: true, ..Self::default() }
    }

    /// Allows pages of the server's own public origin, such as `https://chat.example.com`, whatever `Host` says: for servers behind
    /// a proxy.
    ///
    /// # Errors
    ///
    /// `origin` is no origin, or one that no page can have.
    pub fn public_origin(origin: &str) -> Result<Self, ConfigError> {
        let pattern = Pattern::parse(origin)?;
        if pattern.subdomains || pattern.port == Port::Any {
            return Err(ConfigError::new(origin, "the server's own origin has no wildcard"));
        }
        Ok(Self { public_origins: [pattern].into(), ..Self::default() })
    }

    /// Allows the listed origins, and nothing if there are none.
    ///
    /// | pattern | allows |
    /// |---|---|
    /// | `https://app.example.com` | this origin |
    /// | `https://*.example.com` | all subdomains, at any depth, but not `https://example.com` |
    /// | `http://localhost:*` | any port |
    /// | `https://*.example.com:*` | both |
    ///
    /// Upper case and default ports are normalised. A wildcard over a public suffix, as `https://*.co.uk`, is not noticed. Ten
    /// thousand origins are no slower than a few: they are looked up, not tried in turn.
    ///
    /// # Errors
    ///
    /// A pattern that could never match, or `*`: see [`dangerous_any`](Self::dangerous_any).
    pub fn list<I>(patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let patterns = patterns.into_iter().map(|pattern| Pattern::parse(pattern.as_ref()));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let (subdomains, patterns) = patterns.into_iter().partition(|pattern| pattern.subdomains);
        Ok(Self { patterns: sorted(patterns), subdomains: sorted(subdomains), ..Self::default() })
    }

    /// Allows the origins for which `predicate` is true. It is asked only about well-formed tuple origins, not about `null`.
    ///
    /// Compare whole values. `origin.host().ends_with("example.com")` allows `evilexample.com`.
    pub fn predicate<F>(predicate: F) -> Self
    where
        F: Fn(&Origin<'_>, &Handshake<'_>) -> bool + Send + Sync + 'static,
    {
        Self { predicates: vec![Arc::new(predicate)], ..Self::default() }
    }

    /// Allows every page on the web to connect with your users' cookies, and clients without `Origin`.
    ///
    /// Fit for public data without any login. A malformed or repeated `Origin` is refused even so.
    pub fn dangerous_any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Allows what either policy allows.
    pub fn or(self, other: Self) -> Self {
        Self {
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
    /// Do that only where clients authenticate with a token or a ticket, and not with what a browser adds by itself: cookies,
    /// HTTP authentication, client certificates. A proxy that drops `Origin` would open such an endpoint to every page.
    pub fn allow_missing(self) -> Self {
        Self { missing: true, ..self }
    }

    /// Also allows `Origin: null`, which any page can send from a sandboxed frame.
    pub fn allow_null(self) -> Self {
        Self { null: true, ..self }
    }

    pub(crate) fn check(&self, handshake: &Handshake<'_>) -> Result<(), Rejection> {
        let origin = handshake.origin()?;
        let explicitly_allowed = self.any
            || match &origin {
                RequestOrigin::Missing if !self.missing => return Err(Kind::OriginMissing.into()),
                RequestOrigin::Missing => false,
                RequestOrigin::Null => self.null,
                RequestOrigin::Tuple(origin) => {
                    self.is_listed(origin) || self.predicates.iter().any(|allows| allows(origin, handshake))
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
        let rejection = Rejection::new(Kind::OriginNotAllowed).with_value(handshake.origin_line());
        Err(match is_cross_site {
            true => {
                rejection.with_source("`Sec-Fetch-Site` says `cross-site`: only an origin that is listed is let in")
            }
            false => rejection,
        })
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
                && host.port().unwrap_or(default_port) == origin.port().map_or(default_port, u32::from)
        };
        (self.same_origin && same_host()) || is_among(&self.public_origins, origin.host(), origin)
    }
}

/// Looks up the host and the scheme, and then the port.
fn is_among(patterns: &[Pattern], host: &str, origin: &Origin<'_>) -> bool {
    let compare = |pattern: &Pattern| (&*pattern.host, &*pattern.scheme).cmp(&(host, origin.scheme()));
    let first = patterns.partition_point(|pattern| compare(pattern).is_lt());
    let rest = &patterns[first..];
    let ports = &rest[..rest.partition_point(|pattern| compare(pattern).is_eq())];
    let is_there = |port: Port| ports.binary_search_by_key(&port, |pattern| pattern.port).is_ok();
    is_there(Port::Any) || is_there(Port::Is(origin.effective_port()))
}

fn sorted(mut patterns: Vec<Pattern>) -> Arc<[Pattern]> {
    patterns.sort_unstable();
    patterns.into()
}

/// Fetch Metadata (W3C) is used to refuse and never to allow: Chromium sends none on a WebSocket handshake.
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

/// A normalised pattern. The order of the fields is that of the look-up.
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
    /// The effective port, which a scheme without a default port may lack.
    Is(Option<u16>),
}

impl Pattern {
    fn parse(value: &str) -> Result<Self, ConfigError> {
        let error = |problem| ConfigError::new(value, problem);

        let lower = value.to_ascii_lowercase();
        match &*lower {
            "*" => return Err(error("any origin is allowed by `AllowOrigin::dangerous_any` only")),
            "null" => return Err(error("`null` is allowed by `AllowOrigin::allow_null`")),
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
            return Err(error("the origin of a page is `http` or `https`, never `ws` or `wss`"));
        }
        if any_port && origin.port().is_some() {
            return Err(error("an origin has one port"));
        }
        if subdomains && (origin.is_ip() || origin.host().is_empty()) {
            return Err(error("`*` stands for the labels of a name, and this is none"));
        }
        Ok(Self {
            host: origin.host().into(),
            scheme: origin.scheme().into(),
            subdomains,
            port: if any_port { Port::Any } else { Port::Is(origin.effective_port()) },
        })
    }
}

/// Which hosts a server answers for: a policy for `Host`, over HTTP/2 `:authority`.
///
/// It protects a server on a local or private address from DNS rebinding, where a page of the attacker's is made to have the
/// same origin as the server.
#[derive(Clone, Debug)]
#[must_use]
pub struct AllowHost(Arc<[AllowedHost]>);

#[derive(Debug)]
struct AllowedHost {
    name: Box<str>,
    port: Option<u32>,
}

impl AllowHost {
    /// Allows the listed hosts: `name` or `name:port`, in any case. An entry without a port matches a `Host` without one.
    ///
    /// # Errors
    ///
    /// An entry that is no valid `Host`, or no entry at all.
    ///
    /// ```
    /// use tower_ws_guard::AllowHost;
    ///
    /// assert!(AllowHost::list(["localhost:3000", "127.0.0.1:3000", "[::1]:3000"]).is_ok());
    /// assert!(AllowHost::list(["http://localhost"]).is_err());
    /// ```
    pub fn list<I>(hosts: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let parse = |host: I::Item| match Host::parse(host.as_ref().as_bytes()) {
            Some(host) => Ok(AllowedHost { name: host.name().into(), port: host.port() }),
            None => Err(ConfigError::new(host.as_ref(), "write `name` or `name:port`, without a scheme")),
        };
        let hosts = hosts.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(ConfigError::new("", "a list without hosts would refuse everything"));
        }
        Ok(Self(hosts.into()))
    }

    pub(crate) fn check(&self, handshake: &Handshake<'_>) -> Result<(), Rejection> {
        let host = handshake.host();
        let is_allowed =
            |allowed: &AllowedHost| allowed.name.eq_ignore_ascii_case(host.name()) && allowed.port == host.port();
        if self.0.iter().any(is_allowed) {
            return Ok(());
        }
        // Over HTTP/2 it is no header.
        let value = HeaderValue::try_from(host.to_string()).ok();
        Err(Rejection::new(Kind::HostNotAllowed).with_value(value.as_ref()))
    }
}
