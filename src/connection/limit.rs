use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use http::request::Parts;

use crate::{
    config::ConfigError,
    rejection::{Rejection, RejectionKind},
};

/// The maximum number of live connections: in total, and per key, such as an address or a user.
///
/// Clones share their counts, so several routes can share a limit. See the
/// [module docs](crate::connection) for an example.
#[derive(Clone)]
#[must_use]
pub struct ConnectionLimit {
    limits: Vec<Arc<dyn Limit>>,
}

impl ConnectionLimit {
    /// Allows `max` connections in total. Others are rejected with
    /// [`OverCapacity`](RejectionKind::OverCapacity).
    ///
    /// # Errors
    ///
    /// `max` is 0.
    pub fn total(max: usize) -> Result<Self, ConfigError> {
        Self::new(RejectionKind::OverCapacity, max, |_: &Parts| ())
    }

    /// Allows `max` connections per key. Others are rejected with
    /// [`TooManyConnections`](RejectionKind::TooManyConnections).
    ///
    /// `key` gets the request as the inner service will, with the [`Claims`](crate::Claims) in its
    /// extensions. It must not block. If `K` is an `Option`, all requests without a key share one.
    /// So a missing address, for example, does not bypass the limit.
    ///
    /// A client can have any number of IPv6 addresses: use the first 64 bits as the key. Behind a
    /// proxy every address is the proxy's.
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv6Addr, SocketAddr};
    /// use axum::extract::ConnectInfo;
    /// use http::request::Parts;
    /// use tower_ws_guard::{ConfigError, ConnectionLimit};
    ///
    /// /// With `into_make_service_with_connect_info::<SocketAddr>()`.
    /// fn client(request: &Parts) -> Option<IpAddr> {
    ///     let ConnectInfo(address) = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
    ///     Some(match address.ip().to_canonical() {
    ///         IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    ///         address => address,
    ///     })
    /// }
    ///
    /// # fn main() -> Result<(), ConfigError> {
    /// let limit = ConnectionLimit::total(10_000)?.and(ConnectionLimit::per_key(20, client)?);
    /// assert!(ConnectionLimit::per_key(0, client).is_err());
    /// # let _ = limit;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `max` is 0.
    pub fn per_key<K, F>(max: usize, key: F) -> Result<Self, ConfigError>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        F: Fn(&Parts) -> K + Send + Sync + 'static,
    {
        Self::new(RejectionKind::TooManyConnections, max, key)
    }

    fn new<K, F>(kind: RejectionKind, max: usize, key: F) -> Result<Self, ConfigError>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        F: Fn(&Parts) -> K + Send + Sync + 'static,
    {
        if max == 0 {
            return Err(ConfigError::new(
                "0",
                "nobody could connect; allow at least one connection",
            ));
        }
        Ok(Self {
            limits: vec![Arc::new(CountedLimit { kind, max, key, counts: Mutex::default() })],
        })
    }

    /// Applies both limits, this one first.
    pub fn and(mut self, other: Self) -> Self {
        self.limits.extend(other.limits);
        self
    }

    /// The number of live connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        // Each connection has a slot under each of the limits.
        self.limits.first().map_or(0, |limit| limit.connections())
    }

    /// Whether there is a slot, without taking it.
    pub(crate) fn peek(&self, request: &Parts) -> Result<(), Rejection> {
        self.limits.iter().try_for_each(|limit| limit.peek(request))
    }

    pub(crate) fn acquire(&self, request: &Parts) -> Result<Vec<Slot>, Rejection> {
        self.limits.iter().map(|limit| Arc::clone(limit).acquire(request)).collect()
    }
}

/// A slot under a limit. It is free when it is dropped.
pub(crate) type Slot = Box<dyn Send + Sync>;

trait Limit: Send + Sync {
    fn acquire(self: Arc<Self>, request: &Parts) -> Result<Slot, Rejection>;

    fn peek(&self, request: &Parts) -> Result<(), Rejection>;

    fn connections(&self) -> usize;

    fn max(&self) -> usize;
}

struct CountedLimit<K, F> {
    kind: RejectionKind,
    max: usize,
    key: F,
    /// Holds no key without connections.
    counts: Mutex<HashMap<K, usize>>,
}

impl<K, F> Limit for CountedLimit<K, F>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    F: Fn(&Parts) -> K + Send + Sync + 'static,
{
    fn acquire(self: Arc<Self>, request: &Parts) -> Result<Slot, Rejection> {
        let key = (self.key)(request);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= self.max {
            return Err(self.kind.into());
        }
        *count += 1;
        drop(counts);
        Ok(Box::new(Acquired { limit: self, key }))
    }

    fn peek(&self, request: &Parts) -> Result<(), Rejection> {
        let key = (self.key)(request);
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = counts.get(&key).is_some_and(|count| *count >= self.max);
        if is_full { Err(self.kind.into()) } else { Ok(()) }
    }

    fn connections(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn max(&self) -> usize {
        self.max
    }
}

struct Acquired<K: Hash + Eq, F> {
    limit: Arc<CountedLimit<K, F>>,
    key: K,
}

impl<K: Hash + Eq, F> Drop for Acquired<K, F> {
    fn drop(&mut self) {
        let mut counts = self.limit.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = self.limits.iter().map(|limit| limit.max()).collect::<Vec<_>>();
        f.debug_struct("ConnectionLimit")
            .field("max", &max)
            .field("connections", &self.connections())
            .finish()
    }
}
