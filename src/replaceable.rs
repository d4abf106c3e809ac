use std::{
    fmt, mem,
    sync::{Arc, PoisonError, RwLock},
};

/// A value that can be replaced while the server runs, such as a policy that is read from a
/// database.
///
/// All clones share it. A handshake sees the old value or the new one. Open connections are not
/// affected. See the guide to [changing policies](crate::guide::policies).
///
/// | value | used as |
/// |---|---|
/// | [`AllowOrigin`](crate::AllowOrigin) | [`AllowOrigin::replaceable`](crate::AllowOrigin::replaceable) |
/// | [`AllowHost`](crate::AllowHost) | [`AllowHost::replaceable`](crate::AllowHost::replaceable) |
/// | a [`VerifyToken`](crate::VerifyToken), such as [`StaticTokens`](crate::StaticTokens) | a verifier itself |
///
/// ```
/// use tower_ws_guard::{AllowOrigin, GuardLayer, Replaceable};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let origins = Replaceable::new(AllowOrigin::list(["https://a.example"])?);
/// let policy = AllowOrigin::replaceable(&origins);
/// let guard = GuardLayer::new(policy.clone());
/// assert!(!policy.allows(&"https://b.example".parse().unwrap()));
///
/// origins.replace(AllowOrigin::list(["https://a.example", "https://b.example"])?);
/// assert!(policy.allows(&"https://b.example".parse().unwrap()));
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
// The lock is held for one clone or one swap of a pointer.
pub struct Replaceable<T>(Arc<RwLock<Arc<T>>>);

impl<T> Replaceable<T> {
    /// Starts with `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// Replaces the value for all handshakes that begin from now on.
    pub fn replace(&self, value: T) {
        let new = Arc::new(value);
        let old = mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), new);
        // The user's `Drop` runs without the lock.
        drop(old);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Clone for Replaceable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Replaceable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replaceable").field(&self.get()).finish()
    }
}
