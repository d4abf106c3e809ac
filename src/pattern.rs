//! The patterns of origins and hosts, and their look-up. A host pattern has no scheme.

use std::{cmp::Ordering, fmt};

use crate::{
    config::ConfigError,
    http::{Host, Origin, origin::parse_host},
};

/// A pattern in its normal form. The look-up relies on the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern {
    name: Name,
    scheme: Box<str>,
    port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// `scheme://*`: every host.
    Any,
    /// `example.com`
    Is(Box<str>),
    /// `*.example.com`: the names below, at any depth.
    Below(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Any,
    /// `None` is the default port.
    Is(Option<u16>),
}

/// What is left of a pattern without its wildcards, and whether it has `*.` behind `start`, and
/// `:*`.
fn split_wildcards(value: &str, start: &str) -> (String, bool, bool) {
    let (rest, any_port) = match value.strip_suffix(":*") {
        Some(rest) => (rest, true),
        None => (value, false),
    };
    let start = rest.find(start).map_or(0, |at| at + start.len());
    let (before, name) = rest.split_at(start);
    match name.strip_prefix("*.") {
        Some(parent) => (format!("{before}{parent}"), true, any_port),
        None => (rest.to_owned(), false, any_port),
    }
}

impl Pattern {
    pub(crate) fn origin(value: &str) -> Result<Self, ConfigError> {
        let error = |problem| ConfigError::new(value, problem);

        match value {
            "*" => return Err(error("only `AllowOrigin::dangerous_any` allows any origin")),
            "null" => return Err(error("use `AllowOrigin::allow_null` to allow `null`")),
            _ => {}
        }
        if let Some(scheme) = value.strip_suffix("://*") {
            let origin = format!("{scheme}://a");
            let origin = Origin::parse(origin.as_bytes()).map_err(|invalid| error(invalid.0))?;
            return match origin.scheme() {
                "http" | "https" | "ftp" | "file" => Err(error(
                    "`*` for every host is only for schemes with random hosts, such as \
                     `moz-extension://*`; only `AllowOrigin::dangerous_any` allows any origin",
                )),
                scheme => Ok(Self { name: Name::Any, scheme: scheme.into(), port: Port::Is(None) }),
            };
        }
        let (rest, below, any_port) = split_wildcards(value, "://");
        // `:*` stands for a port, so it can stand only where there is none.
        let probe = if any_port { format!("{rest}:1") } else { rest };
        let origin = Origin::parse(probe.as_bytes()).map_err(|invalid| error(invalid.0))?;
        if origin.host().contains('*') {
            return Err(error("`*` can replace only the first labels, the whole host or the port"));
        }
        if below && !is_name(origin.host()) {
            return Err(error("`*` stands for the labels of a name, and this is not a name"));
        }
        Ok(Self::new(below, origin.host(), origin.scheme(), any_port, origin.port()))
    }

    pub(crate) fn host(value: &str) -> Result<Self, ConfigError> {
        let error = |problem| ConfigError::new(value, problem);

        if value == "*" {
            return Err(error("this would allow every host; leave the list out for that"));
        }
        if value.starts_with('.') {
            return Err(error("write `*.` before the name to allow the names below it"));
        }
        if value.contains("://") {
            return Err(error("write `name` or `name:port`, without a scheme"));
        }
        let (rest, below, any_port) = split_wildcards(value, "");
        if rest.contains('*') {
            return Err(error("`*` can replace only the first labels or the port"));
        }
        let probe = if any_port { format!("{rest}:1") } else { rest };
        let host = Host::parse(probe.as_bytes()).map_err(|invalid| error(invalid.0))?;
        let port = match host.port().map(u16::try_from) {
            None => None,
            Some(Ok(port @ 1..)) => default_is_none(port),
            Some(_) => return Err(error("a port is a number of 1 to 65535")),
        };
        let name = host.normal_name();
        if parse_host(&name).is_none() {
            return Err(error("this is neither a name nor an IP address that a client can send"));
        }
        if below && !is_name(&name) {
            return Err(error("`*` stands for the labels of a name, and this is not a name"));
        }
        Ok(Self::new(below, &name, "", any_port, port))
    }

    fn new(below: bool, host: &str, scheme: &str, any_port: bool, port: Option<u16>) -> Self {
        Self {
            name: if below { Name::Below(host.into()) } else { Name::Is(host.into()) },
            scheme: scheme.into(),
            port: if any_port { Port::Any } else { Port::Is(port) },
        }
    }

    /// The name below which the pattern allows all names.
    #[cfg(feature = "lint")]
    pub(crate) fn parent(&self) -> Option<&str> {
        match &self.name {
            Name::Below(parent) => Some(parent),
            Name::Any | Name::Is(_) => None,
        }
    }

    /// Whether the pattern has no wildcard.
    pub(crate) const fn is_exact(&self) -> bool {
        matches!((&self.name, self.port), (Name::Is(_), Port::Is(_)))
    }

    fn cmp_name(&self, kind: Kind, host: &str, scheme: &str) -> Ordering {
        let (own_kind, own_host) = match &self.name {
            Name::Any => (Kind::Any, ""),
            Name::Is(host) => (Kind::Is, &**host),
            Name::Below(parent) => (Kind::Below, &**parent),
        };
        (own_kind, own_host, &*self.scheme).cmp(&(kind, host, scheme))
    }
}

/// The cases of [`Name`], in its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Any,
    Is,
    Below,
}

/// Whether a host is a name, and not an IP address or nothing.
fn is_name(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with('[')
        && !has_empty_label(host)
        && host.parse::<std::net::Ipv4Addr>().is_err()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.scheme.is_empty() { "" } else { "://" };
        write!(f, "{}{separator}", self.scheme)?;
        match &self.name {
            Name::Any => f.write_str("*")?,
            Name::Is(host) => f.write_str(host)?,
            Name::Below(parent) => write!(f, "*.{parent}")?,
        }
        match self.port {
            Port::Any => f.write_str(":*"),
            Port::Is(Some(port)) => write!(f, ":{port}"),
            Port::Is(None) => Ok(()),
        }
    }
}

/// Many patterns, which are looked up: ten thousand are as fast as a few.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    /// Sorted.
    patterns: Vec<Pattern>,
    has_below: bool,
    has_any: bool,
}

impl Patterns {
    pub(crate) fn new(mut patterns: Vec<Pattern>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        let has = |kind: fn(&Name) -> bool| patterns.iter().any(|pattern| kind(&pattern.name));
        Self {
            has_below: has(|name| matches!(name, Name::Below(_))),
            has_any: has(|name| matches!(name, Name::Any)),
            patterns,
        }
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::new([&*self.patterns, &*other.patterns].concat())
    }

    #[cfg(feature = "lint")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Finds the pattern that an origin matches.
    pub(crate) fn find_origin(&self, origin: &Origin<'_>) -> Option<&Pattern> {
        self.find(origin.host(), origin.scheme(), origin.port())
    }

    /// Finds the pattern that a host matches. Ports 80 and 443 equal none, because the scheme is
    /// not known.
    pub(crate) fn find_host(&self, host: Host<'_>) -> Option<&Pattern> {
        let port = match host.port() {
            None => None,
            // No pattern has such a port.
            Some(port) => default_is_none(u16::try_from(port).unwrap_or(0)),
        };
        self.find(&host.normal_name(), "", port)
    }

    fn find(&self, host: &str, scheme: &str, port: Option<u16>) -> Option<&Pattern> {
        let below = || {
            // A name has 253 bytes at most, and a dot.
            if !self.has_below || host.len() > 254 || has_empty_label(host) {
                return None;
            }
            let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            let mut parents = dots.map(|(dot, _)| &host[dot + 1..]);
            parents.find_map(|parent| self.look_up(Kind::Below, parent, scheme, port))
        };
        self.look_up(Kind::Is, host, scheme, port).or_else(below).or_else(|| {
            let is_random = self.has_any && !host.is_empty();
            is_random.then(|| self.look_up(Kind::Any, "", scheme, port)).flatten()
        })
    }

    /// Looks up name and scheme, and then the port.
    fn look_up(&self, kind: Kind, host: &str, scheme: &str, port: Option<u16>) -> Option<&Pattern> {
        let compare = |pattern: &Pattern| pattern.cmp_name(kind, host, scheme);
        let first = self.patterns.partition_point(|pattern| compare(pattern).is_lt());
        let rest = &self.patterns[first..];
        let ports = &rest[..rest.partition_point(|pattern| compare(pattern).is_eq())];
        let at = |port: Port| ports.binary_search_by_key(&port, |pattern| pattern.port).ok();
        at(Port::Any).or_else(|| at(Port::Is(port))).map(|at| &ports[at])
    }
}

/// `*` stands for labels, and a label is not empty.
pub(crate) fn has_empty_label(name: &str) -> bool {
    name.starts_with('.') || name.contains("..")
}

const fn default_is_none(port: u16) -> Option<u16> {
    match port {
        80 | 443 => None,
        port => Some(port),
    }
}
