//! The host policy: which hosts a server serves.

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    config::ConfigError,
    handshake::Handshake,
    http::Host,
    rejection::{Rejection, RejectionKind as Kind},
};

/// The host policy: which `Host` (over HTTP/2 `:authority`) a server serves.
///
/// It protects a server on a local or private address from DNS rebinding, where a page of the
/// attacker has the same origin as the server.
#[derive(Clone, Debug)]
#[must_use]
pub struct AllowHost(Arc<[AllowedHost]>);

#[derive(Clone, Debug)]
struct AllowedHost {
    name: Box<str>,
    port: Option<u32>,
}

impl AllowHost {
    /// Allows the listed hosts: `name` or `name:port`, in any case. An entry without a port matches
    /// a `Host` without a port.
    ///
    /// # Errors
    ///
    /// The list is empty, or an entry is not a valid `Host`.
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
            None => Err(ConfigError::new(
                host.as_ref(),
                "write `name` or `name:port`, without a scheme",
            )),
        };
        let hosts = hosts.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(ConfigError::new("", "an empty list of hosts would reject everything"));
        }
        Ok(Self(hosts.into()))
    }

    /// Allows what either policy allows.
    #[expect(clippy::needless_pass_by_value, reason = "a builder, like `AllowOrigin::or`")]
    pub fn or(self, other: Self) -> Self {
        Self(self.0.iter().chain(&*other.0).cloned().collect())
    }

    pub(crate) fn check(&self, handshake: &Handshake<'_>) -> Result<(), Rejection> {
        let host = handshake.host();
        let is_allowed = |allowed: &AllowedHost| {
            allowed.name.eq_ignore_ascii_case(host.name()) && allowed.port == host.port()
        };
        if self.0.iter().any(is_allowed) {
            return Ok(());
        }
        // Over HTTP/2 there is no header to take the value from.
        let value = HeaderValue::try_from(host.to_string()).ok();
        Err(Rejection::new(Kind::HostNotAllowed).with_value(value.as_ref()))
    }
}
