//! The patterns of origins and hosts, and their look-up. A host pattern has no scheme.

use std::{collections::BTreeMap, fmt, mem};

use crate::{
    config::ConfigError,
    http::{Host, Origin, origin::parse_host},
};

/// A pattern in its normal form.
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
    /// By name, and by the name below which they allow all names. The patterns of a name are sorted
    /// by scheme and port.
    names: BTreeMap<Box<str>, Vec<Pattern>>,
    parents: BTreeMap<Box<str>, Vec<Pattern>>,
    any: Vec<Pattern>,
    /// The bit `n` is set if one of the `parents` has `n` dots.
    depths: u128,
}

impl Patterns {
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        let mut new = Self::default();
        patterns.into_iter().for_each(|pattern| new.insert(pattern));
        new
    }

    fn insert(&mut self, pattern: Pattern) {
        let same_name = match &pattern.name {
            Name::Any => &mut self.any,
            Name::Is(name) => self.names.entry(name.clone()).or_default(),
            Name::Below(parent) => {
                self.depths |= bit(count_dots(parent));
                self.parents.entry(parent.clone()).or_default()
            }
        };
        if let Err(at) = same_name.binary_search(&pattern) {
            same_name.insert(at, pattern);
        }
    }

    /// Adds the patterns of the other list. The fewer are added to the more, so that many lists are
    /// joined one by one as fast as at once.
    pub(crate) fn add(&mut self, mut other: Self) {
        let len = |patterns: &Self| patterns.names.len() + patterns.parents.len();
        if len(self) < len(&other) {
            mem::swap(self, &mut other);
        }
        let by_name = other.names.into_values().chain(other.parents.into_values());
        by_name.flatten().chain(other.any).for_each(|pattern| self.insert(pattern));
    }

    #[cfg(feature = "lint")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.names.values().chain(self.parents.values()).flatten().chain(&self.any)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.parents.is_empty() && self.any.is_empty()
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
        let find_in = |same_name: &[Pattern]| {
            [Port::Any, Port::Is(port)].into_iter().find_map(|port| {
                let key = (scheme, port);
                same_name
                    .binary_search_by(|pattern| (&*pattern.scheme, pattern.port).cmp(&key))
                    .ok()
            })
        };
        let mut candidates = self
            .names
            .get(host)
            .into_iter()
            .chain(self.parents_of(host))
            .chain((!host.is_empty()).then_some(&self.any));
        candidates.find_map(|same_name| find_in(same_name).map(|at| &same_name[at]))
    }

    /// The patterns that a host may be below. Only as many parents as there are `depths` are looked
    /// up, because a client can send a name of 127 labels.
    fn parents_of(&self, host: &str) -> impl Iterator<Item = &Vec<Pattern>> {
        // A name has 253 bytes at most, and a dot.
        let may_match = self.depths != 0 && host.len() <= 254 && !has_empty_label(host);
        let host = if may_match { host } else { "" };
        let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        let depths = (0..count_dots(host)).rev();
        dots.zip(depths)
            .filter(|(_, depth)| self.depths & bit(*depth) != 0)
            .filter_map(|((dot, _), _)| self.parents.get(&host[dot + 1..]))
    }
}

fn count_dots(name: &str) -> usize {
    name.bytes().filter(|&byte| byte == b'.').count()
}

/// None for a parent of more labels than a name can have.
fn bit(depth: usize) -> u128 {
    1_u128.checked_shl(depth as u32).unwrap_or_default()
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
