//! The host policy: which hosts a server serves.

use std::{
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use http::HeaderValue;

use crate::{
    config::ConfigError,
    head::RequestHead,
    http::Host,
    pattern::{Pattern, Patterns, has_empty_label},
    rejection::{Rejection, RejectionKind as Kind},
    replaceable::Replaceable,
};

/// The host policy: which `Host` (over HTTP/2 `:authority`) a server serves.
///
/// It protects a server on a local or private address from DNS rebinding, where a page of the
/// attacker has the same origin as the server: see [threats](crate::guide::threats#dns-rebinding).
///
/// The case of a name, a trailing dot and the form of an IP address do not matter, and the ports 80
/// and 443 equal none.
///
/// ```
/// use tower_ws_guard::{AllowHost, Host};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let hosts = AllowHost::list(["chat.example.com", "*.preview.example.com"])?
///     .or(AllowHost::loopback());
/// for host in ["Chat.Example.com:443", "a.preview.example.com.", "localhost:3000"] {
///     assert!(hosts.allows(Host::parse(host.as_bytes()).unwrap()));
/// }
/// assert!(!hosts.allows(Host::parse(b"evil.example:3000").unwrap()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct AllowHost(Arc<Rules>);

/// What one policy says by itself.
#[derive(Clone, Default)]
struct Rules {
    listed: Patterns,
    loopback: bool,
    predicates: Vec<Predicate>,
    replaceable: Vec<Replaceable<AllowHost>>,
}

type Predicate = Arc<dyn Fn(Host<'_>) -> bool + Send + Sync>;

/// A policy can contain itself if it is replaced by one that does. Further ones allow nothing.
const MAX_LOOKUPS: usize = 32;

impl AllowHost {
    /// Allows the listed hosts. Hosts are looked up, so ten thousand are as fast as a few.
    ///
    /// | pattern | allows |
    /// |---|---|
    /// | `chat.example.com` | this name, without a port or with a default port |
    /// | `*.example.com` | all subdomains, at any depth, but not `example.com` |
    /// | `localhost:*` | any port, and none |
    /// | `127.0.0.1:3000`, `[::1]:3000` | this address and port |
    ///
    /// # Errors
    ///
    /// The list is empty, or a pattern could never match.
    ///
    /// ```
    /// use tower_ws_guard::AllowHost;
    ///
    /// assert!(AllowHost::list(["chat.example.com", "[::1]:3000"]).is_ok());
    /// assert!(AllowHost::list(["http://localhost"]).is_err());
    /// assert!(AllowHost::list(["::1"]).unwrap_err().to_string().contains("brackets"));
    /// ```
    pub fn list<I>(hosts: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let hosts = hosts.into_iter().map(|host| Pattern::host(host.as_ref()));
        let listed = Patterns::new(hosts.collect::<Result<_, _>>()?);
        if listed.is_empty() {
            return Err(ConfigError::new("", "an empty list of hosts would reject everything"));
        }
        Ok(Rules { listed, ..Rules::default() }.into())
    }

    /// Allows the names and addresses by which a machine reaches itself, with any port: `localhost`
    /// and the names below it (RFC 6761 6.3), `127.0.0.0/8`, and `::1`. For servers that listen on
    /// a loopback address.
    pub fn loopback() -> Self {
        Rules { loopback: true, ..Rules::default() }.into()
    }

    /// Allows the hosts for which `predicate` returns true.
    ///
    /// A [`Host`] is as the client sent it, in any case and maybe with a trailing dot.
    pub fn predicate<F>(predicate: F) -> Self
    where
        F: Fn(Host<'_>) -> bool + Send + Sync + 'static,
    {
        Rules { predicates: vec![Arc::new(predicate)], ..Rules::default() }.into()
    }

    /// Allows what the current value of `policy` allows. See [`Replaceable`].
    pub fn replaceable(policy: &Replaceable<Self>) -> Self {
        Rules { replaceable: vec![policy.clone()], ..Rules::default() }.into()
    }

    /// Allows what either policy allows.
    pub fn or(mut self, other: Self) -> Self {
        let other = Arc::unwrap_or_clone(other.0);
        let rules = Arc::make_mut(&mut self.0);
        rules.listed.add(other.listed);
        rules.loopback |= other.loopback;
        rules.predicates.extend(other.predicates);
        rules.replaceable.extend(other.replaceable);
        self
    }

    /// Whether `host` is allowed.
    #[must_use]
    pub fn allows(&self, host: Host<'_>) -> bool {
        self.decide(host, &mut 0, &mut |_| ())
    }

    /// Judges any request: outside of a handshake, too.
    ///
    /// # Errors
    ///
    /// [`HostNotAllowed`](crate::RejectionKind::HostNotAllowed).
    pub fn check(&self, request: &RequestHead<'_>) -> Result<(), Rejection> {
        self.explain(request, &mut |_| ())
    }

    /// Judges a request, and tells `because` the rule that allows it.
    pub(crate) fn explain(
        &self,
        request: &RequestHead<'_>,
        because: &mut dyn FnMut(&dyn Display),
    ) -> Result<(), Rejection> {
        let host = request.host();
        if self.decide(host, &mut 0, because) {
            return Ok(());
        }
        // Over HTTP/2 there is no header to take the value from.
        let value = HeaderValue::try_from(host.to_string()).ok();
        Err(Rejection::new(Kind::HostNotAllowed).with_header_value(value.as_ref()))
    }

    #[cfg(feature = "lint")]
    pub(crate) fn listed(&self) -> Vec<Pattern> {
        let replaceable = self.0.replaceable.iter().map(|policy| Self::clone(&policy.get()));
        let policies = std::iter::once(self.clone()).chain(replaceable);
        policies.flat_map(|policy| policy.0.listed.iter().cloned().collect::<Vec<_>>()).collect()
    }

    fn decide(
        &self,
        host: Host<'_>,
        lookups: &mut usize,
        because: &mut dyn FnMut(&dyn Display),
    ) -> bool {
        let rules = &*self.0;
        if let Some(pattern) = rules.listed.find_host(host) {
            because(&format_args!("`{host}` is listed as `{pattern}`"));
            return true;
        }
        if rules.loopback && is_loopback(host) {
            because(&format_args!("`{host}` is this machine"));
            return true;
        }
        if rules.predicates.iter().any(|allows| allows(host)) {
            because(&format_args!("a predicate allows `{host}`"));
            return true;
        }
        rules.replaceable.iter().any(|policy| {
            *lookups += 1;
            *lookups <= MAX_LOOKUPS && policy.get().decide(host, lookups, because)
        })
    }
}

fn is_loopback(host: Host<'_>) -> bool {
    let name = host.normal_name();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match address {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(|address| address.to_canonical()),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match address {
        Some(address) => address.is_loopback(),
        None => name == "localhost" || name.ends_with(".localhost") && !has_empty_label(&name),
    }
}

impl From<Rules> for AllowHost {
    fn from(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }
}

impl fmt::Debug for AllowHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &*self.0;
        f.debug_struct("AllowHost")
            .field("listed", &rules.listed)
            .field("loopback", &rules.loopback)
            .field("predicates", &rules.predicates.len())
            .field("replaceable", &rules.replaceable.len())
            .finish()
    }
}
