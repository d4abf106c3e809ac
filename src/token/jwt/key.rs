use std::fmt;

use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header,
    crypto::rust_crypto::DEFAULT_PROVIDER,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize as _;
use serde_json::Value;

use crate::config::ConfigError;

/// A signature algorithm (RFC 7518 3.1, RFC 8037 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    /// Ed25519. Its newer name `Ed25519` (RFC 9864) is not supported.
    EdDSA,
}

impl JwtAlgorithm {
    const fn inner(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS384 => Algorithm::HS384,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    const fn curve(self) -> Option<&'static EllipticCurve> {
        match self {
            Self::ES256 => Some(&EllipticCurve::P256),
            Self::ES384 => Some(&EllipticCurve::P384),
            Self::EdDSA => Some(&EllipticCurve::Ed25519),
            _ => None,
        }
    }

    /// The minimum length of a secret in bytes: the length of the hash (RFC 7518 3.2).
    const fn min_secret(self) -> usize {
        match self {
            Self::HS512 => 64,
            Self::HS384 => 48,
            _ => 32,
        }
    }
}

/// A key that verifies signatures, with its algorithms.
///
/// Creating the first key installs a [process-wide crypto provider](super#cryptography) if none is
/// set.
#[derive(Clone)]
#[must_use]
pub struct JwtKey {
    id: Option<Box<str>>,
    key: DecodingKey,
    /// All of one family.
    algorithms: Vec<Algorithm>,
}

impl JwtKey {
    /// A secret shared with the issuer.
    ///
    /// # Errors
    ///
    /// - `algorithm` is not `HS256`, `HS384` or `HS512`.
    /// - `secret` is shorter than the hash: 32, 48 or 64 bytes (RFC 7518 3.2).
    /// - `secret` is a key in PEM.
    pub fn hmac(algorithm: JwtAlgorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        if secret.windows(11).any(|window| window == b"-----BEGIN ") {
            return Err(ConfigError::new(
                "",
                "a key in PEM is not a secret; use `JwtKey::public_pem`",
            ));
        }
        // Only an empty secret is an error.
        let key = DecodingKey::from_secret(secret).map_err(|_| ConfigError::new("", SHORT))?;
        Self::new(key, algorithm)
    }

    /// A public key in PEM: RSA, EC or Ed25519, depending on the algorithm.
    ///
    /// # Errors
    ///
    /// - `pem` is not a public key for `algorithm`.
    /// - An RSA key has fewer than 2048 bits (RFC 7518 3.3) or more than 4096, or an even exponent
    ///   or one of more than 32 bits.
    /// - An Ed25519 key is weak: anyone can forge signatures for it.
    pub fn public_pem(algorithm: JwtAlgorithm, pem: &str) -> Result<Self, ConfigError> {
        if pem.contains("PRIVATE KEY") {
            return Err(ConfigError::new(
                "",
                "the key is private; use the public key, which is enough to verify",
            ));
        }
        let key = match algorithm.inner().family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
            AlgorithmFamily::Hmac => {
                return Err(ConfigError::new(
                    "",
                    "a public key is not a secret; use `JwtKey::hmac` for HS256, HS384, HS512",
                ));
            }
        };
        let key = key.map_err(|_| {
            ConfigError::new("", "the text is not a public key in PEM for this algorithm")
        })?;
        Self::new(key, algorithm)
    }

    /// The keys of a JSON Web Key set (RFC 7517 5) that verify signatures of `algorithms`. Other
    /// keys are skipped.
    ///
    /// A key with `alg` verifies that algorithm only. A key without `alg` verifies each of
    /// `algorithms` that suits it. The `kid` becomes the [`key_id`](Self::key_id).
    ///
    /// # Errors
    ///
    /// `json` is not a key set, or all of its keys are skipped.
    pub fn from_jwks(json: &str, algorithms: &[JwtAlgorithm]) -> Result<Vec<Self>, ConfigError> {
        let set = serde_json::from_str::<Value>(json).unwrap_or_default();
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err(ConfigError::new(
                "",
                "the text is not a JSON Web Key set: an object with a list `keys`",
            ));
        };
        let keys =
            keys.iter().filter_map(|jwk| Self::from_jwk(&Jwk::deserialize(jwk).ok()?, algorithms));
        let keys = keys.collect::<Vec<_>>();
        if keys.is_empty() {
            return Err(ConfigError::new(
                "",
                "the set has no key that verifies signatures of these algorithms",
            ));
        }
        Ok(keys)
    }

    fn from_jwk(jwk: &Jwk, algorithms: &[JwtAlgorithm]) -> Option<Self> {
        let common = &jwk.common;
        let verifies =
            common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
                && common
                    .key_operations
                    .as_ref()
                    .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| verifies)?;
        let curve = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(key) => Some(&key.curve),
            AlgorithmParameters::OctetKeyPair(key) => Some(&key.curve),
            _ => None,
        };

        let algorithms = algorithms.iter().filter(|algorithm| {
            let named = common.key_algorithm.is_none_or(|named| named == algorithm.inner().into());
            named && curve == algorithm.curve() && Self::new(key.clone(), **algorithm).is_ok()
        });
        let algorithms = algorithms.map(|algorithm| algorithm.inner()).collect::<Vec<_>>();
        let id = common.key_id.as_deref().map(Box::from);
        (!algorithms.is_empty()).then_some(Self { id, key, algorithms })
    }

    fn new(key: DecodingKey, algorithm: JwtAlgorithm) -> Result<Self, ConfigError> {
        // If another crate turns on a second provider, `decode` panics unless one is installed.
        DEFAULT_PROVIDER.install_default().ok();

        let problem = match key.family() {
            family if family != algorithm.inner().family() => "the key is not for this algorithm",
            AlgorithmFamily::Hmac
                if key.try_get_as_bytes().is_ok_and(|key| key.len() < algorithm.min_secret()) =>
            {
                SHORT
            }
            AlgorithmFamily::Rsa if !is_strong_rsa(&key) => {
                "an RSA key needs 2048 to 4096 bits, and an odd exponent of at most 32 bits"
            }
            // Checked before the provider, which panics on a shorter key.
            AlgorithmFamily::Ed if !is_strong_ed25519(&key) => {
                "the key is not for Ed25519, or is weak: anyone can forge signatures for it"
            }
            _ if (DEFAULT_PROVIDER.verifier_factory)(&algorithm.inner(), &key).is_err() => {
                "the key is not for this algorithm"
            }
            _ => return Ok(Self { id: None, key, algorithms: vec![algorithm.inner()] }),
        };
        Err(ConfigError::new("", problem))
    }

    /// Verifies only tokens whose header names this `kid` (RFC 7515 4.1.4). A key without an id is
    /// tried on every token of its algorithms.
    pub fn key_id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(super) fn matches(&self, header: &Header) -> bool {
        self.algorithms.contains(&header.alg)
            && self.id.as_deref().is_none_or(|id| header.kid.as_deref() == Some(id))
    }

    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(super) fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }
}

const SHORT: &str = "the secret is shorter than the hash; use 32 random bytes for HS256, 48 for \
                     HS384, 64 for HS512";

/// The minimum is that of RFC 7518 3.3. The maximum bounds the cost of a verification.
fn is_strong_rsa(key: &DecodingKey) -> bool {
    let components = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Some((n.clone(), e.clone())),
        DecodingKeyKind::SecretOrDer(der) => {
            (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der).ok()
        }
    };
    let Some((n, e)) = &components else { return false };
    let bits = |number: &[u8]| {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        number
            .get(zeros)
            .map_or(0, |first| (number.len() - zeros) * 8 - first.leading_zeros() as usize)
    };
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    (2048..=4096).contains(&bits(n)) && (2..=32).contains(&bits(e)) && is_odd(n) && is_odd(e)
}

fn is_strong_ed25519(key: &DecodingKey) -> bool {
    let key = key.try_get_as_bytes().ok().and_then(|key| key.try_into().ok());
    key.and_then(|key| VerifyingKey::from_bytes(key).ok()).is_some_and(|key| !key.is_weak())
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}
