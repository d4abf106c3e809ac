mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::request::Parts;
use sha2::{Digest as _, Sha256};

use self::memory::MemoryRevocations;
use super::{Token, Verified, VerifyToken};
use crate::{
    config::ConfigError,
    rejection::{Rejection, RejectionKind},
};

/// Revoked tokens. [`VerifyToken::unless_revoked`] rejects them. Clones share the revocations.
///
/// A token is revoked by its id, such as the `jti` of a JWT, or with all tokens of its subject that
/// were issued until some time. It is rejected with `token-invalid` at the next handshake: with
/// [`in_memory`](Self::in_memory) on this server, with `on_redis` (feature `redis`) on all that
/// share the Redis.
///
/// To end open sockets, too, call [`Sessions::end`](crate::Sessions::end) after the revocation.
///
/// # Lifetime
///
/// A revocation is kept until the tokens that it revokes have expired. So tell the constructor the
/// longest lifetime of your tokens, including the leeway of the verifier. A token that is valid for
/// longer becomes valid again. There is no background task.
///
/// # Clocks
///
/// The time of issue is that of the issuer's clock. If it may be ahead of the clock of the server
/// that revokes a subject, add the difference to the time. The `iat` of most JWTs has whole seconds,
/// so a token issued later in the same second as the revocation is rejected, too.
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use tower_ws_guard::{
///     Rejection, Revocations, Token, TokenIdentity, TokenPolicy, Verified, VerifyToken,
/// };
///
/// #[derive(Clone)]
/// struct User {
///     name: String,
///     token_id: String,
///     issued_at: SystemTime,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let revocations = Revocations::in_memory(Duration::from_secs(15 * 60))?;
///
/// let verifier = |token: Token| async move { look_up(token).await };
/// let verifier = verifier.unless_revoked(&revocations, |user: &User| {
///     TokenIdentity::new().id(&user.token_id).subject(&user.name, user.issued_at)
/// });
/// let policy = TokenPolicy::bearer(verifier);
/// # let _ = policy;
///
/// revocations.revoke_token("5f2c").await?;
/// revocations.revoke_subject("alice", SystemTime::now()).await?;
/// # Ok(())
/// # }
/// # async fn look_up(token: Token) -> Result<Verified<User>, Rejection> {
/// #     let user = User { name: "alice".into(), token_id: "5f2c".into(), issued_at: SystemTime::now() };
/// #     Ok(user.into())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Revocations {
    store: Store,
    longest_lifetime: Duration,
}

#[derive(Clone)]
enum Store {
    Memory(Arc<MemoryRevocations>),
    #[cfg(feature = "redis")]
    Redis(crate::redis::Redis),
}

const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Revocations {
    /// Keeps revocations in memory, for one process. A restart forgets them.
    ///
    /// `longest_lifetime` is that of your tokens. More than 100 years count as 100. A revocation takes
    /// about 100 bytes.
    ///
    /// # Errors
    ///
    /// `longest_lifetime` is shorter than a millisecond.
    pub fn in_memory(longest_lifetime: Duration) -> Result<Self, ConfigError> {
        Self::new(Store::Memory(Arc::default()), longest_lifetime)
    }

    fn new(store: Store, longest_lifetime: Duration) -> Result<Self, ConfigError> {
        if longest_lifetime < Duration::from_millis(1) {
            return Err(ConfigError::new(
                "",
                "a revocation must be kept as long as the tokens are valid; give their longest \
                 lifetime",
            ));
        }
        Ok(Self { store, longest_lifetime: longest_lifetime.min(MAX_LIFETIME) })
    }

    /// Revokes the token with this id.
    ///
    /// # Errors
    ///
    /// Redis failed. The token may or may not be revoked: try again.
    pub async fn revoke_token(&self, id: &str) -> Result<(), RevocationError> {
        self.revoke(Key::token(id), ALWAYS, self.longest_lifetime).await
    }

    /// Revokes all tokens of `subject` that were issued at `time` or before. If it is called again,
    /// the latest time counts.
    ///
    /// # Errors
    ///
    /// As [`revoke_token`](Self::revoke_token).
    pub async fn revoke_subject(
        &self,
        subject: &str,
        time: SystemTime,
    ) -> Result<(), RevocationError> {
        let ahead = time.duration_since(SystemTime::now()).unwrap_or_default();
        let lifetime = self.longest_lifetime.saturating_add(ahead).min(MAX_LIFETIME);
        self.revoke(Key::subject(subject), millis(time), lifetime).await
    }

    async fn revoke(
        &self,
        key: Key,
        issued_until: u64,
        lifetime: Duration,
    ) -> Result<(), RevocationError> {
        match &self.store {
            Store::Memory(memory) => {
                memory.revoke(key, issued_until, lifetime);
                Ok(())
            }
            #[cfg(feature = "redis")]
            Store::Redis(redis) => {
                redis::revoke(redis, &key, issued_until, lifetime).await.map_err(RevocationError)
            }
        }
    }

    async fn check(&self, identity: &TokenIdentity<'_>) -> Result<(), Rejection> {
        match &self.store {
            Store::Memory(memory) => memory.check(identity),
            #[cfg(feature = "redis")]
            Store::Redis(redis) => redis::check(redis, identity).await,
        }
    }

    /// The revocations that can be read without waiting.
    fn memory(&self) -> Option<&MemoryRevocations> {
        match &self.store {
            Store::Memory(memory) => Some(memory),
            #[cfg(feature = "redis")]
            Store::Redis(_) => None,
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Revocations");
        debug.field("longest_lifetime", &self.longest_lifetime);
        match &self.store {
            Store::Memory(memory) => debug.field("in_memory", &memory.len()),
            #[cfg(feature = "redis")]
            Store::Redis(redis) => debug.field("on", redis),
        };
        debug.finish()
    }
}

/// By what a token can be revoked: its id, its subject, or both. A token with neither cannot be
/// revoked. `Debug` does not show them.
#[derive(Clone, Copy, Default)]
#[must_use]
pub struct TokenIdentity<'a> {
    id: Option<&'a str>,
    subject: Option<(&'a str, SystemTime)>,
}

impl<'a> TokenIdentity<'a> {
    /// A token without an id and a subject.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the id, such as the `jti` of a JWT or the id of a session. No two tokens may have the
    /// same one.
    pub fn id(mut self, id: &'a str) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the subject, such as the `sub` of a JWT, and the time of issue, such as
    /// `UNIX_EPOCH + Duration::from_secs(iat)`.
    ///
    /// If several issuers name subjects, put the issuer into the name.
    pub fn subject(mut self, subject: &'a str, issued_at: SystemTime) -> Self {
        self.subject = Some((subject, issued_at));
        self
    }

    /// What to look up: keys, each with the time of issue and the reason of a rejection. The token
    /// is revoked if the time of one of its keys is not earlier.
    fn lookups(&self) -> impl Iterator<Item = (Key, u64, &'static str)> + use<> {
        let token = self.id.map(|id| (Key::token(id), ALWAYS, "the token is revoked"));
        let subject = self.subject.map(|(subject, issued_at)| {
            let reason = "the tokens of the subject are revoked up to a later time of issue";
            (Key::subject(subject), millis(issued_at), reason)
        });
        token.into_iter().chain(subject)
    }
}

impl fmt::Debug for TokenIdentity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIdentity").finish_non_exhaustive()
    }
}

/// A SHA-256: it hides the id, and its length is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

impl Key {
    fn token(id: &str) -> Self {
        Self::new("token:", id)
    }

    fn subject(subject: &str) -> Self {
        Self::new("subject:", subject)
    }

    fn new(kind: &str, id: &str) -> Self {
        Self(Sha256::new_with_prefix(kind).chain_update(id).finalize().into())
    }
}

/// The latest time. A Lua script can represent it exactly.
const ALWAYS: u64 = (1 << 53) - 1;

/// Milliseconds since 1970. Times before count as 1970.
fn millis(time: SystemTime) -> u64 {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(millis).map_or(ALWAYS, |millis| millis.min(ALWAYS))
}

fn revoked(reason: &'static str) -> Rejection {
    Rejection::new(RejectionKind::TokenInvalid).with_source(reason)
}

/// The error of [`Revocations`]. Its source is the cause.
#[derive(Debug)]
pub struct RevocationError(Box<dyn Error + Send + Sync>);

impl fmt::Display for RevocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the revocation could not be stored; see the source of this error")
    }
}

impl Error for RevocationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Rejects revoked tokens. Made by [`VerifyToken::unless_revoked`].
#[derive(Clone, Debug)]
#[must_use]
pub struct UnlessRevoked<V, F> {
    pub(super) verifier: V,
    pub(super) revocations: Revocations,
    pub(super) identity: F,
}

impl<V, F> VerifyToken for UnlessRevoked<V, F>
where
    V: VerifyToken,
    F: for<'a> Fn(&'a V::Claims) -> TokenIdentity<'a> + Send + Sync + 'static,
{
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: Token,
        request: &Parts,
    ) -> Result<Verified<Self::Claims>, Rejection> {
        let verified = self.verifier.verify(token, request).await?;
        self.revocations.check(&(self.identity)(verified.claims())).await?;
        Ok(verified)
    }

    fn verify_now(
        &self,
        token: &Token,
        request: &Parts,
    ) -> Option<Result<Verified<Self::Claims>, Rejection>> {
        let memory = self.revocations.memory()?;
        let result = self.verifier.verify_now(token, request)?;
        Some(result.and_then(|verified| {
            memory.check(&(self.identity)(verified.claims()))?;
            Ok(verified)
        }))
    }

    fn is_one_time(&self) -> bool {
        self.verifier.is_one_time()
    }
}
