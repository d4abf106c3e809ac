use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

use super::{
    JwtKey, JwtRefresh,
    refresh::{Fetch, Refresher},
};
use crate::replaceable::Replaceable;

/// The keys of a [`JwtVerifier`](super::JwtVerifier). Clones share the keys.
///
/// | keys | constructor |
/// |---|---|
/// | of an issuer that rotates them | [`refresh`](Self::refresh): fetched periodically, and early for an unknown key |
/// | of your own configuration | [`new`](Self::new); a running server can [`replace`](Self::replace) them |
///
/// ```
/// use tower_ws_guard::token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let key = |secret: &[u8]| JwtKey::hmac(JwtAlgorithm::HS256, secret);
/// let (old, new) = (key(b"at least as many bytes as the hash has")?, key(&[7; 32])?);
/// let keys = JwtKeys::new([old.clone()]);
/// let verifier = JwtVerifier::<serde_json::Value>::new(keys.clone());
/// // Later, while the server runs:
/// keys.replace([old, new]);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtKeys {
    keys: Replaceable<Vec<JwtKey>>,
    /// `None` for keys that are not fetched.
    refresher: Option<Arc<Refresher>>,
}

impl JwtKeys {
    /// Verifies with these keys. Without a key every token is rejected with `verifier-failed`.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self { keys: Replaceable::new(keys.into_iter().collect()), refresher: None }
    }

    /// Fetches the keys of an issuer with `fetch`: now, and then as `settings` tells, in a
    /// background task that ends when the last clone of the keys is dropped.
    ///
    /// | event | effect |
    /// |---|---|
    /// | a fetch succeeds | its keys replace all others; a key that is not among them verifies no more handshakes |
    /// | a fetch fails, takes too long, panics, or returns no keys | the last keys stay, however old; the fetch is repeated with exponential back-off and jitter: after 1 to 2 seconds, later after 30 to 60 |
    /// | a token names an unknown `kid` | an early fetch, at most one per [cool-down](JwtRefresh::cool_down), and none during the back-off |
    /// | a token without a known `kid` has a signature of no known key | the same, for issuers without `kid` |
    /// | a fetch is in flight | handshakes with such tokens wait for it, within the [`check_timeout`](crate::GuardLayer::check_timeout) |
    /// | there are no keys yet | handshakes wait for the fetch in flight; between two fetches they are rejected with `verifier-failed` |
    ///
    /// There is never more than one fetch at a time, however many handshakes wait for it. A token
    /// that has expired, or that is from none of the verifier's
    /// [issuers](super::JwtVerifier::issuer), causes no fetch.
    ///
    /// An issuer should publish a key for longer than the [interval](JwtRefresh::interval) before it
    /// signs with it. Then no handshake waits, and no early fetch is needed. An untrusted client can
    /// use up the early fetches of other tokens by sending tokens with a random `kid`.
    ///
    /// `fetch` is called again for each fetch. It uses the HTTP client of your choice, over `https`,
    /// and limits the size of the response. Its errors appear in the log, so keep secrets out of
    /// them. [`telemetry`](crate::telemetry) lists the events and the metrics.
    ///
    /// # Panics
    ///
    /// Panics if it is called outside of a Tokio runtime.
    ///
    /// ```
    /// use std::{error::Error, time::Duration};
    ///
    /// use tower_ws_guard::token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtRefresh, JwtVerifier};
    ///
    /// async fn fetch_keys(url: &str) -> Result<Vec<JwtKey>, Box<dyn Error + Send + Sync>> {
    ///     let jwks = get(url).await?;
    ///     Ok(JwtKey::from_jwks(&jwks, &[JwtAlgorithm::EdDSA])?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    /// let settings = JwtRefresh::new().interval(Duration::from_secs(600))?;
    /// let keys = JwtKeys::refresh(|| fetch_keys("https://id.example.com/keys"), settings);
    /// // Optional: do not start without keys.
    /// tokio::time::timeout(Duration::from_secs(10), keys.ready()).await?;
    /// let verifier =
    ///     JwtVerifier::<serde_json::Value>::new(keys).issuer("https://id.example.com");
    /// # let _ = verifier;
    /// # Ok(())
    /// # }
    /// # async fn get(_: &str) -> std::io::Result<String> {
    /// #     let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// #     let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"2026","x":"{x}"}}"#);
    /// #     Ok(format!(r#"{{"keys":[{key}]}}"#))
    /// # }
    /// ```
    pub fn refresh<F, Fut, E>(fetch: F, settings: JwtRefresh) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<JwtKey>, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let keys = Replaceable::new(Vec::new());
        let fetch: Fetch = Arc::new(move || {
            let fetched = fetch();
            Box::pin(async { fetched.await.map_err(Into::into) })
        });
        let refresher = Refresher::start(keys.clone(), fetch, settings);
        Self { keys, refresher: Some(Arc::new(refresher)) }
    }

    /// Replaces all keys, from the next handshake on. Open connections stay open. Keys that are
    /// [fetched](Self::refresh) stay only until the next successful fetch.
    pub fn replace(&self, keys: impl IntoIterator<Item = JwtKey>) {
        self.keys.replace(keys.into_iter().collect());
    }

    /// Waits for the first successful fetch. Returns at once for keys that are not fetched.
    ///
    /// It waits forever if no fetch succeeds: use a timeout.
    pub async fn ready(&self) {
        if let Some(refresher) = &self.refresher {
            refresher.first_success().await;
        }
    }

    /// The time since the last successful fetch. `None` before it, and for keys that are not
    /// fetched.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.refresher.as_ref()?.age()
    }

    /// Why the last fetch failed. `None` if it succeeded, and for keys that are not fetched.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        self.refresher.as_ref()?.last_error()
    }

    pub(super) fn get(&self) -> Arc<Vec<JwtKey>> {
        self.keys.get()
    }

    /// The number of fetches so far. Read it before the keys.
    pub(super) fn generation(&self) -> u64 {
        self.refresher.as_ref().map_or(0, |refresher| refresher.generation())
    }

    /// Whether [`newer_than`](Self::newer_than) would return true.
    pub(super) fn may_be_newer_than(&self, generation: u64) -> bool {
        self.refresher.as_ref().is_some_and(|refresher| refresher.may_be_newer_than(generation))
    }

    /// Waits for a fetch that ends after `generation`. It starts one if it may. Returns false if
    /// there is none to wait for.
    pub(super) async fn newer_than(&self, generation: u64) -> bool {
        match &self.refresher {
            Some(refresher) => refresher.newer_than(generation).await,
            None => false,
        }
    }

    /// Why a token is signed with an unknown key, and the fix.
    pub(super) fn unknown_key_hint(&self) -> String {
        match &self.refresher {
            Some(refresher) => refresher.unknown_key_hint(),
            None => "if the issuer rotates its keys, fetch them with `JwtKeys::refresh`".to_owned(),
        }
    }

    pub(super) fn no_keys(&self) -> NoKeys {
        match &self.refresher {
            Some(refresher) => NoKeys::Fetched(refresher.last_error()),
            None => NoKeys::Set,
        }
    }
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKeys").field(&self.get()).finish()
    }
}

/// A verifier has no keys, whether they are set or fetched.
#[derive(Debug)]
pub(super) enum NoKeys {
    Set,
    Fetched(Option<Arc<dyn Error + Send + Sync>>),
}

impl fmt::Display for NoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "the verifier has no keys yet; set them with `JwtKeys::replace`",
            Self::Fetched(_) => "the verifier has no keys yet, because no fetch has succeeded",
        })
    }
}

impl Error for NoKeys {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Fetched(Some(error)) => Some(&**error),
            Self::Fetched(None) | Self::Set => None,
        }
    }
}
