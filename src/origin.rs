//! The origin policy: which pages may open a socket.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    iter, mem,
    sync::Arc,
};

use http::{HeaderName, HeaderValue, request::Parts};

use crate::{
    config::ConfigError,
    head::RequestHead,
    http::{Host, Origin, RequestOrigin, field::trim},
    pattern::{Pattern, Patterns},
    rejection::{Rejection, RejectionKind as Kind},
    replaceable::Replaceable,
};

/// The origin policy: which pages may open a socket. The default allows none.
///
/// See the guide to [browsers](crate::guide::browsers#origins) for which policy to choose.
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
pub struct AllowOrigin(Arc<Rules>);

/// What one policy says by itself.
#[derive(Clone, Default)]
struct Rules {
    /// The listed origins without a wildcard as browsers write them.
    exact: BTreeSet<Box<[u8]>>,
    /// All that are listed.
    listed: Patterns,
    predicates: Vec<Predicate>,
    same_origin: bool,
    public_origins: Patterns,
    missing: bool,
    null: bool,
    any: bool,
    /// Policies that are looked up for each request.
    lookups: Vec<Lookup>,
}

type Predicate = Arc<dyn Fn(&Origin<'_>, &RequestHead<'_>) -> bool + Send + Sync>;

#[derive(Clone)]
enum Lookup {
    Replaceable(Replaceable<AllowOrigin>),
    PerRequest(Arc<PerRequest>),
}

type PerRequest = dyn Fn(&RequestHead<'_>) -> Option<AllowOrigin> + Send + Sync;

/// A policy can contain itself if it is replaced by one that does. Further ones allow nothing.
const MAX_LOOKUPS: usize = 32;

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
        Rules { same_origin: true, ..Rules::default() }.into()
    }

    /// Allows pages of the server's own public origin, such as `https://chat.example.com`, whatever
    /// `Host` is. For servers behind a proxy.
    ///
    /// # Errors
    ///
    /// `origin` is malformed, or no page can have it.
    pub fn public_origin(origin: &str) -> Result<Self, ConfigError> {
        let pattern = Pattern::origin(origin)?;
        if !pattern.is_exact() {
            return Err(ConfigError::new(origin, "the server's own origin has no wildcard"));
        }
        Ok(Rules { public_origins: Patterns::new(vec![pattern]), ..Rules::default() }.into())
    }

    /// Allows the listed origins. An empty list allows none.
    ///
    /// | pattern | allows |
    /// |---|---|
    /// | `https://app.example.com` | this origin |
    /// | `https://*.example.com` | all subdomains, at any depth, but not `https://example.com` |
    /// | `http://localhost:*` | any port |
    /// | `https://*.example.com:*` | both |
    /// | `moz-extension://*` | any host, for schemes whose hosts are random; not for the web's |
    ///
    /// Patterns are normalized like [origins](Origin). Origins are looked up, so ten thousand are as
    /// fast as a few. Only the lint of a guard (feature `lint`) notices a wildcard over a public
    /// suffix, such as `https://*.co.uk`.
    ///
    /// # Errors
    ///
    /// A pattern could never match, or is `*` (see [`dangerous_any`](Self::dangerous_any)).
    pub fn list<I>(patterns: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let patterns = patterns.into_iter().map(|pattern| Pattern::origin(pattern.as_ref()));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let exact = patterns.iter().filter(|pattern| pattern.is_exact());
        let exact = exact.map(|pattern| pattern.to_string().into_bytes().into()).collect();
        Ok(Rules { exact, listed: Patterns::new(patterns), ..Rules::default() }.into())
    }

    /// Allows the origins for which `predicate` returns true. It is called only with well-formed
    /// tuple origins, not for `null`.
    ///
    /// Compare whole values: `origin.host().ends_with("example.com")` allows `evilexample.com`.
    pub fn predicate<F>(predicate: F) -> Self
    where
        F: Fn(&Origin<'_>, &RequestHead<'_>) -> bool + Send + Sync + 'static,
    {
        Rules { predicates: vec![Arc::new(predicate)], ..Rules::default() }.into()
    }

    /// Allows what the policy allows that `lookup` finds for the request, for example by its host
    /// or path: a server for many tenants. `None` allows nothing.
    ///
    /// A policy is cheap to clone, because clones share their patterns; [`or`](Self::or) of a
    /// clone copies them, so combine policies beforehand. `lookup` must not block.
    ///
    /// ```
    /// use std::{collections::HashMap, sync::Arc};
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let tenants = HashMap::from([
    ///     ("red.example.com", AllowOrigin::list(["https://red.example"])?),
    ///     ("blue.example.com", AllowOrigin::list(["https://blue.example"])?),
    /// ]);
    /// let origins = AllowOrigin::per_request(move |head| {
    ///     tenants.get(&*head.host().normal_name()).cloned()
    /// });
    /// let guard = GuardLayer::new(origins);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn per_request<F>(lookup: F) -> Self
    where
        F: Fn(&RequestHead<'_>) -> Option<Self> + Send + Sync + 'static,
    {
        Rules { lookups: vec![Lookup::PerRequest(Arc::new(lookup))], ..Rules::default() }.into()
    }

    /// Allows what the current value of `policy` allows. See [`Replaceable`].
    pub fn replaceable(policy: &Replaceable<Self>) -> Self {
        Rules { lookups: vec![Lookup::Replaceable(policy.clone())], ..Rules::default() }.into()
    }

    /// Accepts only handshakes without `Origin`, so no browser can connect. It is an empty list
    /// with [`allow_missing`](Self::allow_missing).
    pub fn no_browsers() -> Self {
        Self::default().allow_missing()
    }

    /// Allows every page on the web to connect with your users' cookies, and clients without
    /// `Origin`.
    ///
    /// Use it for public data without a login only. A malformed or repeated `Origin` is still
    /// rejected.
    pub fn dangerous_any() -> Self {
        Rules { any: true, ..Rules::default() }.into()
    }

    /// Allows what either policy allows. To join many one by one costs no more than a list of all.
    pub fn or(mut self, other: Self) -> Self {
        // Nothing is copied unless the policies have clones.
        Arc::make_mut(&mut self.0).add(Arc::unwrap_or_clone(other.0));
        self
    }

    /// Also allows handshakes without `Origin`, as clients other than browsers send them.
    ///
    /// Use it only if clients authenticate with a token or a ticket, and not with credentials that
    /// a browser adds by itself (cookies, HTTP authentication, client certificates). Otherwise a
    /// proxy that drops `Origin` opens the endpoint to every page.
    pub fn allow_missing(mut self) -> Self {
        Arc::make_mut(&mut self.0).missing = true;
        self
    }

    /// Also allows `Origin: null`, which any page can send from a sandboxed frame.
    pub fn allow_null(mut self) -> Self {
        Arc::make_mut(&mut self.0).null = true;
        self
    }

    /// Whether pages of `origin` are allowed whatever the request is: by a list, as a public
    /// origin, or because any origin is. What depends on the request, such as
    /// [`same_origin`](Self::same_origin) and [`predicate`](Self::predicate), is left to
    /// [`check`](Self::check).
    ///
    /// ```
    /// use tower_ws_guard::AllowOrigin;
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let policy = AllowOrigin::list(["https://*.example.com"])?;
    /// assert!(policy.allows(&"https://app.example.com".parse().unwrap()));
    /// assert!(!policy.allows(&"https://example.com".parse().unwrap()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn allows(&self, origin: &Origin<'_>) -> bool {
        let looked_up = self.look_up(None);
        iter::once(self).chain(&looked_up).any(|policy| {
            let rules = &policy.0;
            rules.any
                || rules.listed.find_origin(origin).is_some()
                || rules.public_origins.find_origin(origin).is_some()
        })
    }

    /// Judges any request: outside of a handshake, too.
    ///
    /// # Errors
    ///
    /// The rejection that a guard would make.
    pub fn check(&self, request: &RequestHead<'_>) -> Result<(), Rejection> {
        // Most origins are listed, and then comparing bytes is enough.
        if request.origin_value().is_some_and(|origin| self.0.is_exactly_listed(origin)) {
            return Ok(());
        }
        self.decide(request, &mut |_| ())
    }

    /// A predicate for `AllowOrigin::predicate` of tower-http's `CorsLayer`, so that one policy
    /// serves sockets and ordinary requests.
    ///
    /// With [`dangerous_any`](Self::dangerous_any) or [`allow_null`](Self::allow_null), every page
    /// can read what `CorsLayer::allow_credentials` opens.
    ///
    /// ```
    /// use tower_http::cors::{self, CorsLayer};
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let origins = AllowOrigin::list(["https://*.example.com"])?;
    /// let cors = cors::AllowOrigin::predicate(origins.cors_predicate());
    /// let cors = CorsLayer::new().allow_origin(cors);
    /// let guard = GuardLayer::new(origins);
    /// # let _ = (cors, guard);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cors_predicate(
        &self,
    ) -> impl Fn(&HeaderValue, &Parts) -> bool + Clone + Send + Sync + 'static {
        let policy = self.clone();
        move |_, request| RequestHead::new(request).and_then(|head| policy.check(&head)).is_ok()
    }

    /// Judges a request, and tells `because` the rule that allows it.
    pub(crate) fn decide(
        &self,
        request: &RequestHead<'_>,
        because: &mut dyn FnMut(&dyn Display),
    ) -> Result<(), Rejection> {
        let origin = request.origin()?;
        let looked_up = self.look_up(Some(request));
        let mut policies = iter::once(self).chain(&looked_up).map(|policy| &*policy.0);
        if policies.clone().any(|rules| rules.allow_explicitly(&origin, request, because)) {
            return Ok(());
        }
        let is_allowed = policies.any(|rules| rules.allow(&origin, request.host(), because));
        if is_allowed && !is_cross_site(request) {
            return Ok(());
        }
        if !is_allowed && origin == RequestOrigin::Missing {
            return Err(Kind::OriginMissing.into());
        }
        let rejection =
            Rejection::new(Kind::OriginNotAllowed).with_header_value(request.origin_value());
        Err(if is_allowed {
            rejection.with_source(
                "`Sec-Fetch-Site` is `cross-site`, so only a listed origin is accepted",
            )
        } else {
            rejection
        })
    }

    /// The policies that are found for a request. Without one there is none by request.
    fn look_up(&self, request: Option<&RequestHead<'_>>) -> Vec<Self> {
        let mut found = Vec::new();
        self.look_up_into(request, &mut found);
        found
    }

    fn look_up_into(&self, request: Option<&RequestHead<'_>>, found: &mut Vec<Self>) {
        for lookup in &self.0.lookups {
            let policy = match (lookup, request) {
                (Lookup::Replaceable(policy), _) => Some(Self::clone(&policy.get())),
                (Lookup::PerRequest(lookup), Some(request)) => lookup(request),
                (Lookup::PerRequest(_), None) => None,
            };
            if let Some(policy) = policy
                && found.len() < MAX_LOOKUPS
            {
                found.push(policy.clone());
                policy.look_up_into(request, found);
            }
        }
    }

    #[cfg(feature = "lint")]
    pub(crate) fn summary(&self) -> Summary {
        let looked_up = self.look_up(None);
        let policies = || iter::once(self).chain(&looked_up).map(|policy| &*policy.0);
        Summary {
            listed: policies().flat_map(|rules| rules.listed.iter().cloned()).collect(),
            allows_missing: policies().any(|rules| rules.missing || rules.any),
            same_origin: policies().any(|rules| rules.same_origin),
            allows_pages: policies().any(Rules::allows_pages),
            allows_any_page: policies().any(|rules| rules.null || rules.any),
        }
    }
}

/// What the lint looks at.
#[cfg(feature = "lint")]
pub(crate) struct Summary {
    pub(crate) listed: Vec<Pattern>,
    pub(crate) allows_missing: bool,
    pub(crate) same_origin: bool,
    /// Whether there can be a page that is allowed.
    pub(crate) allows_pages: bool,
    pub(crate) allows_any_page: bool,
}

impl Rules {
    fn add(&mut self, other: Self) {
        let Self { mut exact, listed, predicates, public_origins, lookups, .. } = other;
        if self.exact.len() < exact.len() {
            mem::swap(&mut self.exact, &mut exact);
        }
        self.exact.extend(exact);
        self.listed.add(listed);
        self.predicates.extend(predicates);
        self.same_origin |= other.same_origin;
        self.public_origins.add(public_origins);
        self.missing |= other.missing;
        self.null |= other.null;
        self.any |= other.any;
        self.lookups.extend(lookups);
    }

    fn is_exactly_listed(&self, origin: &HeaderValue) -> bool {
        self.exact.contains(origin.as_bytes())
    }

    #[cfg(feature = "lint")]
    fn allows_pages(&self) -> bool {
        let listed = !self.listed.is_empty() || !self.public_origins.is_empty();
        let by_name = self.same_origin || self.null || self.any;
        listed || by_name || !self.predicates.is_empty() || !self.lookups.is_empty()
    }

    /// Allows by name: also requests that are `cross-site`.
    fn allow_explicitly(
        &self,
        origin: &RequestOrigin<'_>,
        request: &RequestHead<'_>,
        because: &mut dyn FnMut(&dyn Display),
    ) -> bool {
        if self.any {
            because(&"`dangerous_any` allows any origin");
            return true;
        }
        match origin {
            RequestOrigin::Missing => false,
            RequestOrigin::Null => {
                if self.null {
                    because(&"`allow_null` allows `null`");
                }
                self.null
            }
            RequestOrigin::Tuple(origin) => {
                if let Some(pattern) = self.listed.find_origin(origin) {
                    because(&format_args!("`{origin}` is listed as `{pattern}`"));
                    return true;
                }
                let is_allowed = self.predicates.iter().any(|allows| allows(origin, request));
                if is_allowed {
                    because(&format_args!("a predicate allows `{origin}`"));
                }
                is_allowed
            }
        }
    }

    /// Allows what is not `cross-site`.
    fn allow(
        &self,
        origin: &RequestOrigin<'_>,
        host: Host<'_>,
        because: &mut dyn FnMut(&dyn Display),
    ) -> bool {
        match origin {
            RequestOrigin::Missing => {
                if self.missing {
                    because(&"`allow_missing` allows a missing `Origin`");
                }
                self.missing
            }
            RequestOrigin::Null => false,
            RequestOrigin::Tuple(origin) if self.same_origin && is_same_origin(origin, host) => {
                because(&format_args!("`{origin}` is the origin of `{host}`"));
                true
            }
            RequestOrigin::Tuple(origin) => {
                let public = self.public_origins.find_origin(origin);
                if let Some(public) = public {
                    because(&format_args!("`{public}` is the server's public origin"));
                }
                public.is_some()
            }
        }
    }
}

/// The scheme must be the web's, and is not compared with the server's.
fn is_same_origin(origin: &Origin<'_>, host: Host<'_>) -> bool {
    let Some(port) = origin.effective_port() else { return false };
    let default_port = match origin.scheme() {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    host.is_named(origin.host()) && host.port().unwrap_or(default_port) == u32::from(port)
}

/// Fetch Metadata (W3C) can only reject, because Chromium sends none on a WebSocket handshake.
fn is_cross_site(request: &RequestHead<'_>) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

    let mut sites = request.headers().get_all(SEC_FETCH_SITE).iter();
    sites.any(|site| trim(site.as_bytes()).eq_ignore_ascii_case(b"cross-site"))
}

impl From<Rules> for AllowOrigin {
    fn from(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }
}

impl fmt::Debug for AllowOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &*self.0;
        f.debug_struct("AllowOrigin")
            .field("listed", &rules.listed)
            .field("predicates", &rules.predicates.len())
            .field("same_origin", &rules.same_origin)
            .field("public_origins", &rules.public_origins)
            .field("missing", &rules.missing)
            .field("null", &rules.null)
            .field("any", &rules.any)
            .field("lookups", &rules.lookups.len())
            .finish()
    }
}
