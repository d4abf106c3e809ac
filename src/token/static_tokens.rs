use std::{
    array,
    collections::HashMap,
    fmt,
    future::{Future, ready},
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Token, Verified, VerifyToken};
use crate::{
    config::ConfigError,
    rejection::{Rejection, RejectionKind},
};

/// A fixed set of tokens and their claims.
///
/// Tokens are stored and compared as SHA-256 digests, in constant time, so the time of a rejection
/// shows neither the length of a token nor a common prefix. The time of a lookup does not depend on
/// the number of tokens. To change the set while the server runs, see
/// [`Replaceable`](crate::Replaceable).
///
/// ```
/// use tower_ws_guard::StaticTokens;
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let tokens =
///     StaticTokens::new([("correct horse battery staple", "alice"), ("tr0ub4dor&3", "bob")])?;
/// assert_eq!(format!("{tokens:?}"), "StaticTokens(2)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct StaticTokens<C>(Arc<HashMap<Digest, C>>);

impl<C> StaticTokens<C> {
    /// Accepts these tokens.
    ///
    /// # Errors
    ///
    /// A token is empty, or is listed twice. The error does not show it.
    pub fn new<T: AsRef<str>>(
        tokens: impl IntoIterator<Item = (T, C)>,
    ) -> Result<Self, ConfigError> {
        Self::collect(
            tokens
                .into_iter()
                .map(|(token, claims)| Ok((Digest::new(token.as_ref().as_bytes()), claims))),
        )
    }

    /// Accepts the tokens with these SHA-256 digests, each of 64 hexadecimal digits. So the
    /// configuration holds no secret, if the tokens are random: the digest of a password can be
    /// guessed.
    ///
    /// `printf %s "$TOKEN" | sha256sum` prints the digest of a token.
    ///
    /// # Errors
    ///
    /// A digest is malformed, is that of an empty token, or is listed twice. The error does not
    /// show it.
    ///
    /// ```
    /// use tower_ws_guard::StaticTokens;
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let tokens = StaticTokens::from_digests([(
    ///     "4e738ca5563c06cfd0018299933d58db1dd8bf97f6973dc99bf6cdc64b5550bd", // s3cr3t
    ///     "alice",
    /// )])?;
    /// # let _ = tokens;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_digests<D: AsRef<str>>(
        digests: impl IntoIterator<Item = (D, C)>,
    ) -> Result<Self, ConfigError> {
        Self::collect(
            digests
                .into_iter()
                .map(|(digest, claims)| Ok((Digest::parse(digest.as_ref())?, claims))),
        )
    }

    fn collect(
        tokens: impl Iterator<Item = Result<(Digest, C), ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let mut map = HashMap::new();
        for token in tokens {
            let (digest, claims) = token?;
            if digest == Digest::new(b"") {
                return Err(ConfigError::new("", "a token is empty; anybody could guess it"));
            }
            if map.insert(digest, claims).is_some() {
                return Err(ConfigError::new("", "a token is listed twice"));
            }
        }
        Ok(Self(Arc::new(map)))
    }
}

impl<C: Clone> StaticTokens<C> {
    fn look_up(&self, token: &Token) -> Result<Verified<C>, Rejection> {
        let claims = self.0.get(&Digest::new(token.as_bytes())).cloned();
        claims.map(Verified::new).ok_or_else(|| RejectionKind::TokenInvalid.into())
    }
}

impl<C: Clone + Send + Sync + 'static> VerifyToken for StaticTokens<C> {
    type Claims = C;

    fn verify(
        &self,
        token: Token,
        _: &Parts,
    ) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        ready(self.look_up(&token))
    }

    fn verify_now(&self, token: &Token, _: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        Some(self.look_up(token))
    }
}

impl<C> fmt::Debug for StaticTokens<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.0.len())
    }
}

/// A SHA-256 digest. The map hashes it with a random key, so its buckets leak nothing to an
/// untrusted client. Words are compared in fewer steps than bytes.
struct Digest([u64; 4]);

impl Digest {
    fn new(token: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(token).into())
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self(array::from_fn(|i| u64::from_ne_bytes(words[i])))
    }

    fn parse(digest: &str) -> Result<Self, ConfigError> {
        // It is not shown, because it may be the token itself.
        let malformed = || {
            ConfigError::new(
                "",
                "a SHA-256 digest has 64 hexadecimal digits; use `StaticTokens::new` for the tokens \
                 themselves",
            )
        };
        let digits = digest.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
        }
        Ok(Self::from_bytes(bytes))
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Any part of a digest is as random as the whole.
        state.write_u64(self.0[0]);
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}
