//! The sessions: who is connected, by key.

mod acquire;
#[cfg(feature = "redis")]
mod redis;
mod registry;

use std::{
    any::type_name, error::Error, fmt, hash::Hash, net::SocketAddr, sync::Arc, time::SystemTime,
};

use http::{header::ORIGIN, request::Parts};

pub(crate) use self::acquire::{AcquireSession, AcquiredSession};
#[cfg(feature = "redis")]
pub use self::redis::WhenUnavailable;
use self::registry::Registry;
use super::Ended;
use crate::{
    config::ConfigError,
    context::Claims,
    rejection::{Rejection, RejectionKind},
    sync::SetOnce,
};

/// The live connections of each key, such as a user or an address: at most so many of each. They
/// can be listed and ended.
///
/// Clones share the connections: give one to the layer that verifies the token, with
/// [`GuardLayer::sessions`](crate::GuardLayer::sessions), and keep one for your logout. The handler
/// learns from [`Permit::ended`](crate::Permit::ended) or
/// [`Upgraded::ended`](crate::Upgraded::ended) that it must close a socket.
///
/// The guide to [a fleet](crate::guide::fleet) shows them on several servers.
///
/// The sessions are in memory, for one server. With the feature `redis`,
#[cfg_attr(feature = "redis", doc = "[`on_redis`](Self::on_redis)")]
#[cfg_attr(not(feature = "redis"), doc = "`on_redis`")]
/// shares them between servers. Set everything before you give the sessions to a layer: it takes a
/// clone.
///
/// `Clone`, `Drop`, `Eq` and `Hash` of `K` run under a lock. They must not call into the sessions.
///
/// # Example
///
/// ```
/// use axum::{Router, body::Body, response::Response, routing::any};
/// use tower::ServiceExt;
/// use tower_ws_guard::{
///     AllowOrigin, Ended, GuardLayer, Permit, Sessions, StaticTokens, TokenPolicy,
///     axum::GuardedUpgrade,
///     test_util::{assert_accepted, assert_rejected, handshake},
/// };
///
/// #[derive(Clone)]
/// struct User {
///     id: u64,
/// }
///
/// async fn handler(upgrade: GuardedUpgrade<Permit>) -> Response {
///     upgrade.on_upgrade(async |socket, permit| {
///         assert_eq!(permit.ended().await, Ended::Revoked);
///         drop(socket);
///     })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sessions = Sessions::per_claims(1, |user: &User| user.id)?;
/// let tokens = StaticTokens::new([("s3cr3t", User { id: 7 })])?;
/// let guard = GuardLayer::new(AllowOrigin::same_origin())
///     .token(TokenPolicy::bearer(tokens))?
///     .sessions(&sessions);
/// let app: Router = Router::new().route("/ws", any(handler).layer(guard));
///
/// let valid = handshake("/ws")
///     .host("chat.example.com")
///     .origin("https://chat.example.com")
///     .token("s3cr3t");
/// let (request, _client) = valid.clone().upgradable(Body::empty()).await;
/// assert_accepted(&app.clone().oneshot(request).await?);
/// assert_eq!(sessions.list(&7).await?[0].origin(), Some("https://chat.example.com"));
///
/// let (request, _) = valid.clone().upgradable(Body::empty()).await;
/// assert_rejected(&app.clone().oneshot(request).await?, "too-many-connections");
///
/// // The user logs out.
/// assert_eq!(sessions.end(&7, Ended::Revoked).await?, 1);
/// let (request, _client) = valid.upgradable(Body::empty()).await;
/// assert_accepted(&app.oneshot(request).await?);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Sessions<K> {
    max: usize,
    key: Arc<KeyOf<K>>,
    when_full: WhenFull,
    address: Arc<AddressOf>,
    registry: Arc<Registry<K>>,
    #[cfg(feature = "redis")]
    on_redis: Option<Arc<redis::OnRedis<K>>>,
    #[cfg(feature = "redis")]
    when_unavailable: WhenUnavailable,
}

type KeyOf<K> = dyn Fn(&Parts) -> Result<K, Rejection> + Send + Sync;
type AddressOf = dyn Fn(&Parts) -> Option<SocketAddr> + Send + Sync;

/// What happens to a handshake if its key has the maximum number of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// Reject it with [`TooManyConnections`](RejectionKind::TooManyConnections).
    #[default]
    RejectNewest,
    /// Accept it, and end the oldest connection of the key with [`Ended::Evicted`]. The oldest is
    /// often one that its client has lost and nobody has noticed yet.
    EvictOldest,
}

/// A live connection in [`Sessions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    since: SystemTime,
    origin: Option<Box<str>>,
    address: Option<SocketAddr>,
}

impl SessionInfo {
    fn new(request: &Parts, address: Option<SocketAddr>) -> Self {
        let origin = request.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        // Longer than any that an origin check accepts.
        let origin = origin.filter(|origin| origin.len() <= 512).map(Box::from);
        Self { since: SystemTime::now(), origin, address }
    }

    /// When the handshake was accepted.
    #[must_use]
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// The `Origin` of the handshake, if there was one.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The address of the client, if the server [knows it](Sessions::address).
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A live connection, as the store and the [`Permit`](crate::Permit) share it.
pub(super) struct Session {
    /// Of the sessions in a registry.
    number: u64,
    info: SessionInfo,
    ended: SetOnce<Ended>,
}

impl Session {
    fn new(number: u64, info: SessionInfo) -> Self {
        Self { number, info, ended: SetOnce::new() }
    }

    /// The first reason counts.
    fn end(&self, reason: Ended) {
        self.ended.set(reason).ok();
    }

    pub(super) async fn ended(self: Arc<Self>) -> Ended {
        *self.ended.wait().await
    }
}

impl<K> Sessions<K>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    /// Allows `max` connections for each key, which `key` reads from the claims of the token.
    ///
    /// The claims are of the type that the verifier returns. If there are none of that type, every
    /// handshake is rejected with [`GuardMissing`](RejectionKind::GuardMissing).
    ///
    /// # Errors
    ///
    /// `max` is 0.
    pub fn per_claims<C, F>(max: usize, key: F) -> Result<Self, ConfigError>
    where
        C: Send + Sync + 'static,
        F: Fn(&C) -> K + Send + Sync + 'static,
    {
        Self::new(max, move |request| match request.extensions.get::<Claims<C>>() {
            Some(Claims(claims)) => Ok(key(claims)),
            None => Err(no_claims(type_name::<C>())),
        })
    }

    /// Allows `max` connections for each key, which `key` reads from the head of the request, such
    /// as an address. It gets the request as the inner service will, with the
    /// [`Claims`](crate::Claims) in its extensions. It must not block.
    ///
    /// A handshake without a key, `None`, is rejected with
    /// [`GuardMissing`](RejectionKind::GuardMissing), because it would bypass the limit.
    ///
    /// A client can have any number of IPv6 addresses: use the first 64 bits as the key. Behind a
    /// proxy every address is the proxy's.
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv6Addr, SocketAddr};
    /// use axum::extract::ConnectInfo;
    /// use http::request::Parts;
    /// use tower_ws_guard::{ConfigError, Sessions};
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
    /// let sessions = Sessions::per_key(20, client)?;
    /// assert!(Sessions::per_key(0, client).is_err());
    /// # let _ = sessions;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `max` is 0.
    pub fn per_key<F>(max: usize, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Parts) -> Option<K> + Send + Sync + 'static,
    {
        Self::new(max, move |request| key(request).ok_or_else(no_key))
    }

    fn new<F>(max: usize, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Parts) -> Result<K, Rejection> + Send + Sync + 'static,
    {
        Ok(Self {
            max: super::at_least_one(max)?,
            key: Arc::new(key),
            when_full: WhenFull::default(),
            address: Arc::new(|_| None),
            registry: Arc::default(),
            #[cfg(feature = "redis")]
            on_redis: None,
            #[cfg(feature = "redis")]
            when_unavailable: WhenUnavailable::default(),
        })
    }

    /// Sets what happens to a handshake if its key has the maximum number of connections. A later
    /// call replaces an earlier one.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets how to find the address of a client, for [`list`](Self::list). Without a call it is not
    /// known. A later call replaces an earlier one.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use tower_ws_guard::Sessions;
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let sessions = Sessions::per_claims(5, |user: &&'static str| *user)?.address(|request| {
    ///     let ConnectInfo(address) = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
    ///     Some(*address)
    /// });
    /// # let _ = sessions;
    /// # Ok(())
    /// # }
    /// ```
    pub fn address<F>(mut self, address: F) -> Self
    where
        F: Fn(&Parts) -> Option<SocketAddr> + Send + Sync + 'static,
    {
        self.address = Arc::new(address);
        self
    }

    /// Tells all connections of `key` to end, and resolves to their number. Their slots are free at
    /// once. A handshake of the key that the layer with the sessions is checking meanwhile is
    /// rejected, even if its token was verified already. So give the sessions to the layer that
    /// verifies the token. On Redis a handshake that begins at the same moment may be rejected, too.
    ///
    /// The next handshake is accepted if its token still is: revoke the token first.
    ///
    /// # Errors
    ///
    /// Redis failed. Then only the connections of this server end. There are no errors in memory.
    pub async fn end(&self, key: &K, reason: Ended) -> Result<usize, SessionsError> {
        let ending = self.registry.end(key, reason);
        #[cfg(feature = "redis")]
        if let Some(on_redis) = &self.on_redis {
            // Those of this server are told afterwards: Redis must count them before they go.
            let ended = async { on_redis.leases.end(&on_redis.hash(key)?, reason).await };
            return ended.await.map_err(SessionsError);
        }
        Ok(ending.sessions())
    }

    /// The connections of `key`, the oldest first.
    ///
    /// # Errors
    ///
    /// Redis failed. There are no errors in memory.
    pub async fn list(&self, key: &K) -> Result<Vec<SessionInfo>, SessionsError> {
        #[cfg(feature = "redis")]
        if let Some(on_redis) = &self.on_redis {
            let list = async { on_redis.leases.list(&on_redis.hash(key)?).await };
            return list.await.map_err(SessionsError);
        }
        Ok(self.registry.list(key))
    }

    /// The number of live connections on this server.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.registry.connections()
    }

    /// The number of keys on this server that have a connection.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.registry.keys()
    }
}

fn no_claims(expected: &'static str) -> Rejection {
    Rejection::new(RejectionKind::GuardMissing)
        .with_source(format!(
            "`Sessions::per_claims` needs `Claims<{expected}>`, and there are none"
        ))
        .with_fix(
            "give `Sessions::per_claims` a closure that takes the type which the verifier returns, \
             and the sessions to the layer with the token check; in report-only mode use \
             `Sessions::per_key`",
        )
}

fn no_key() -> Rejection {
    Rejection::new(RejectionKind::GuardMissing)
        .with_source("the closure of `Sessions::per_key` found no key in the request")
        .with_fix(
            "provide what the closure reads, such as `ConnectInfo` with \
             `into_make_service_with_connect_info`, or return a key for requests without it",
        )
}

/// The error of [`Sessions::end`] and [`Sessions::list`]: the store failed. Its source is the cause.
#[derive(Debug)]
pub struct SessionsError(Box<dyn Error + Send + Sync>);

impl fmt::Display for SessionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sessions of other servers are unknown; see the source of this error")
    }
}

impl Error for SessionsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

impl<K> Clone for Sessions<K> {
    fn clone(&self) -> Self {
        Self {
            max: self.max,
            key: Arc::clone(&self.key),
            when_full: self.when_full,
            address: Arc::clone(&self.address),
            registry: Arc::clone(&self.registry),
            #[cfg(feature = "redis")]
            on_redis: self.on_redis.clone(),
            #[cfg(feature = "redis")]
            when_unavailable: self.when_unavailable,
        }
    }
}

impl<K> fmt::Debug for Sessions<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("max", &self.max)
            .field("when_full", &self.when_full)
            .field("connections", &self.registry.connections())
            .finish_non_exhaustive()
    }
}
