//! JSON Web Tokens (RFC 7519), signed with a shared secret or by an identity provider.
//!
//! [`JwtVerifier`] reads the claims of a token that one of its [`JwtKeys`] signed. A token never
//! decides how it is verified (RFC 8725): you set the algorithms of each key, so `none` is
//! rejected, and a public key is never used as a secret. `jwk`, `jku`, `x5u` and `x5c` in the
//! header are ignored. A token with `crit` is rejected.
//!
//! | claim | check |
//! |---|---|
//! | `exp` | required |
//! | `nbf` | checked if present |
//! | `aud` | with an [audience](JwtVerifier::audience): required, and must match; without one: must be absent (RFC 7519 4.1.3) |
//! | `iss` | with an [issuer](JwtVerifier::issuer): required, and must match |
//! | others | must be present if they are [required](JwtVerifier::required_claims), or if the type of your claims needs them |
//!
//! An invalid token is `token-invalid`, with the reason as the source of the rejection. Use
//! [`VerifyToken::require`] to require a scope or a role: a valid token without it is
//! `token-forbidden`.
//!
//! The token expires when `exp` and the leeway have passed. [`Validity`](crate::Validity) notifies
//! an open socket then. An `exp` beyond the range of the system's clock never expires.
//!
//! # Cryptography
//!
//! The `jsonwebtoken` crate checks signatures. Creating the first [`JwtKey`] installs RustCrypto as
//! the process-wide `CryptoProvider` of that crate if none is set. To use another provider, install
//! it before. Scanners may report RUSTSEC-2023-0071 for the `rsa` crate. It concerns private keys,
//! and a verifier has none.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use jsonwebtoken::{EncodingKey, Header, encode};
//! use serde::Deserialize;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Claims, TokenCheckLayer, TokenPolicy, VerifyToken,
//!     test_util::{assert_rejected, handshake},
//!     token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
//! };
//!
//! #[derive(Clone, Deserialize)]
//! struct User {
//!     sub: String,
//!     scope: String,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let secret = b"at least as many bytes as the hash has";
//! let keys = JwtKeys::new([JwtKey::hmac(JwtAlgorithm::HS256, secret)?]);
//! let verifier = JwtVerifier::<User>::new(keys)
//!     .issuer("https://id.example.com")
//!     .audience("chat")
//!     .require(|user| user.scope.split(' ').any(|scope| scope == "chat"));
//! let service = ServiceBuilder::new()
//!     .layer(TokenCheckLayer::new(TokenPolicy::bearer(verifier)))
//!     .service(service_fn(async |request: Request<()>| {
//!         let Claims(user) = request.extensions().get::<Claims<User>>().unwrap();
//!         Ok::<_, std::convert::Infallible>(Response::new(user.sub.clone()))
//!     }));
//!
//! let with = |audience: &str, scope: &str| {
//!     let claims = serde_json::json!({
//!         "iss": "https://id.example.com",
//!         "aud": audience,
//!         "sub": "alice",
//!         "scope": scope,
//!         "exp": 4_102_444_800_u64,
//!     });
//!     let key = EncodingKey::from_secret(secret).unwrap();
//!     let token = encode(&Header::default(), &claims, &key).unwrap();
//!     handshake("/ws").token(&token).build(())
//! };
//! let accepted = service.clone().oneshot(with("chat", "read chat")).await.unwrap();
//! assert_eq!(accepted.body(), "alice");
//! let rejected = service.clone().oneshot(with("mail", "read chat")).await.unwrap();
//! assert_rejected(&rejected, "token-invalid");
//! let rejected = service.oneshot(with("chat", "read")).await.unwrap();
//! assert_rejected(&rejected, "token-forbidden");
//! # Ok(())
//! # }
//! ```

use std::{
    error::Error,
    fmt,
    future::{Future, ready},
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ed25519_dalek::VerifyingKey;
use http::request::Parts;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header, Validation,
    crypto::rust_crypto::DEFAULT_PROVIDER,
    decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Token, Verified, VerifyToken};
use crate::{
    config::ConfigError,
    rejection::{Rejection, RejectionKind},
    replaceable::Replaceable,
};

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
/// Creating the first key installs a [process-wide crypto provider](self#cryptography) if none is
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

    fn matches(&self, header: &Header) -> bool {
        self.algorithms.contains(&header.alg)
            && self.id.as_deref().is_none_or(|id| header.kid.as_deref() == Some(id))
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

/// The keys of a [`JwtVerifier`]. Clones share the keys, so a running server can replace them.
///
/// ```
/// use tower_ws_guard::token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// # let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// # let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"2026","x":"{x}"}}"#);
/// # let fetched = &format!(r#"{{"keys":[{key}]}}"#);
/// let keys = JwtKeys::new(JwtKey::from_jwks(fetched, &[JwtAlgorithm::EdDSA])?);
/// let verifier = JwtVerifier::<serde_json::Value>::new(keys.clone())
///     .issuer("https://id.example.com");
/// // Later, in a task that fetches the set periodically:
/// keys.replace(JwtKey::from_jwks(fetched, &[JwtAlgorithm::EdDSA])?);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtKeys(Replaceable<Vec<JwtKey>>);

impl JwtKeys {
    /// Verifies with these keys. Without a key every token is rejected with `verifier-failed`.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self(Replaceable::new(keys.into_iter().collect()))
    }

    /// Replaces all keys, from the next handshake on. Open connections stay open.
    pub fn replace(&self, keys: impl IntoIterator<Item = JwtKey>) {
        self.0.replace(keys.into_iter().collect());
    }

    fn get(&self) -> Arc<Vec<JwtKey>> {
        self.0.get()
    }
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKeys").field(&self.get()).finish()
    }
}

/// Verifies JSON Web Tokens, and reads their claims into `C`.
///
/// Use `serde::de::IgnoredAny` as `C` to ignore the claims. See the [module docs](self) for the
/// checks and an example.
#[must_use]
pub struct JwtVerifier<C> {
    keys: JwtKeys,
    /// Without the algorithms, which depend on the key.
    validation: Validation,
    token_type: Option<Box<str>>,
    required: Vec<Box<str>>,
    claims: PhantomData<fn() -> C>,
}

impl<C: DeserializeOwned + Clone + Send + Sync + 'static> JwtVerifier<C> {
    /// Accepts tokens that one of `keys` signed and that have not expired, with a leeway of 60
    /// seconds.
    pub fn new(keys: JwtKeys) -> Self {
        let validation =
            Validation { validate_nbf: true, validate_aud: false, ..Validation::default() };
        Self { keys, validation, token_type: None, required: Vec::new(), claims: PhantomData }
    }

    /// Accepts only tokens of this issuer (`iss`). A second call adds an issuer.
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.validation.iss.get_or_insert_default().insert(issuer.to_owned());
        self.validation.required_spec_claims.insert("iss".to_owned());
        self
    }

    /// Accepts only tokens for this audience (`aud`). A second call adds an audience: one of them
    /// must match.
    pub fn audience(mut self, audience: &str) -> Self {
        self.validation.validate_aud = true;
        self.validation.aud.get_or_insert_default().insert(audience.to_owned());
        self.validation.required_spec_claims.insert("aud".to_owned());
        self
    }

    /// Accepts only tokens with this `typ` in the header, such as `at+jwt` for access tokens
    /// (RFC 9068 2.1). So a token for another purpose is rejected (RFC 8725 3.11). A later call
    /// replaces an earlier one.
    pub fn token_type(mut self, token_type: &str) -> Self {
        self.token_type = Some(token_type.into());
        self
    }

    /// Accepts only tokens with all of these claims. Any value counts, except `null`. A second call
    /// adds claims.
    pub fn required_claims<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.required.extend(names.into_iter().map(Box::from));
        self
    }

    /// Sets the tolerance for the clock of the issuer: at most an hour, rounded down to seconds.
    /// The default is 60 seconds.
    ///
    /// # Errors
    ///
    /// `leeway` is longer than an hour.
    pub fn leeway(mut self, leeway: Duration) -> Result<Self, ConfigError> {
        if leeway > Duration::from_secs(3600) {
            return Err(ConfigError::new(
                "",
                "a leeway of more than an hour accepts tokens that expired long ago",
            ));
        }
        self.validation.leeway = leeway.as_secs();
        Ok(self)
    }

    fn verify_token(&self, token: &Token) -> Result<Verified<C>, Rejection> {
        let keys = self.keys.get();
        if keys.is_empty() {
            return Err(Rejection::verifier_failed(
                "the verifier has no keys yet; set them with `JwtKeys::replace`",
            ));
        }
        let invalid = |error| Rejection::new(RejectionKind::TokenInvalid).with_source(error);
        self.claims(token.expose(), &keys).map_err(invalid)
    }

    fn claims(
        &self,
        token: &str,
        keys: &[JwtKey],
    ) -> Result<Verified<C>, Box<dyn Error + Send + Sync>> {
        let header = decode_header(token)
            .map_err(|_| "the token is not a JSON Web Token with a supported algorithm")?;
        // RFC 7515 4.1.11: critical extensions must be supported.
        if header.crit.is_some() {
            return Err("the token requires an extension (`crit`), and none is supported".into());
        }
        if let Some(expected) = &self.token_type
            && !header.typ.as_deref().is_some_and(|typ| is_media_type(typ, expected))
        {
            return Err(format!("the `typ` of the token is not `{expected}`").into());
        }

        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut failure = None;
        for key in keys.iter().filter(|key| key.matches(&header)) {
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return self.accept(token.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    failure = Some(reason(&error));
                }
                Err(error) => return Err(reason(&error)),
            }
        }
        Err(failure.unwrap_or_else(|| no_key(&header)))
    }

    fn accept(
        &self,
        claims: Map<String, Value>,
    ) -> Result<Verified<C>, Box<dyn Error + Send + Sync>> {
        if let Some(missing) =
            self.required.iter().find(|&name| claims.get(&**name).is_none_or(Value::is_null))
        {
            return Err(format!("the claim `{missing}` is missing or null").into());
        }
        // The library accepts a list of issuers, and any audience if none is configured.
        if self.validation.iss.is_some() && !claims.get("iss").is_some_and(Value::is_string) {
            return Err("the claim `iss` is not a string".into());
        }
        if self.validation.aud.is_none() && claims.contains_key("aud") {
            return Err(
                "the token has an audience (`aud`), and the verifier has none; set it with \
                        `JwtVerifier::audience`"
                    .into(),
            );
        }

        let seconds = claims
            .get("exp")
            .and_then(|exp| exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp.round() as u64)));
        let leeway = Duration::from_secs(self.validation.leeway);
        let expires_at = seconds.and_then(|seconds| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?.checked_add(leeway)
        });
        // RFC 7519 4.1.4: a token expires at `exp`, not after it.
        if expires_at.is_some_and(|time| time <= SystemTime::now()) {
            return Err(EXPIRED.into());
        }

        let verified =
            Verified::new(C::deserialize(Value::Object(claims)).map_err(|error| mismatch(&error))?);
        Ok(match expires_at {
            Some(time) => verified.expires_at(time),
            None => verified,
        })
    }
}

impl<C: DeserializeOwned + Clone + Send + Sync + 'static> VerifyToken for JwtVerifier<C> {
    type Claims = C;

    fn verify(
        &self,
        token: Token,
        _: &Parts,
    ) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        ready(self.verify_token(&token))
    }

    fn verify_now(&self, token: &Token, _: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        Some(self.verify_token(token))
    }
}

/// The prefix `application/` is optional (RFC 7515 4.1.9).
fn is_media_type(value: &str, expected: &str) -> bool {
    let short = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.strip_prefix("application/").map(str::to_owned).unwrap_or(name)
    };
    short(value) == short(expected)
}

const EXPIRED: &str = "the token has expired (`exp`)";

/// The reason in plain words, without the values of claims that the library's messages quote.
fn reason(error: &jsonwebtoken::errors::Error) -> Box<dyn Error + Send + Sync> {
    match error.kind() {
        ErrorKind::ExpiredSignature => EXPIRED.into(),
        ErrorKind::ImmatureSignature => {
            "the token is not valid yet (`nbf`); check the clocks of issuer and server".into()
        }
        ErrorKind::InvalidSignature => "no configured key matches the signature".into(),
        ErrorKind::InvalidIssuer => "the token is from another issuer (`iss`)".into(),
        ErrorKind::InvalidAudience => "the token is for another audience (`aud`)".into(),
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            format!("the claim `{name}` is missing or invalid").into()
        }
        _ => "the token is malformed: the claims must be a JSON object without repeated members, \
              and all parts must be base64url without padding"
            .into(),
    }
}

/// Only the message about a missing claim is shown, because others quote values.
fn mismatch(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let detail = if message.starts_with("missing field") {
        &*message
    } else {
        "a claim has an unexpected value"
    };
    format!("the claims do not match the type of the verifier: {detail}")
}

fn no_key(header: &Header) -> Box<dyn Error + Send + Sync> {
    let names = match &header.kid {
        // From an untrusted client, so escaped and cut.
        Some(id) => format!("names the `kid` {:?}", id.chars().take(64).collect::<String>()),
        None => "names no `kid`".to_owned(),
    };
    let algorithm = header.alg;
    format!(
        "the token is signed with {algorithm:?} and {names}, and no configured key matches; if the \
         issuer has new keys, set them with `JwtKeys::replace`"
    )
    .into()
}

impl<C> Clone for JwtVerifier<C> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
            validation: self.validation.clone(),
            token_type: self.token_type.clone(),
            required: self.required.clone(),
            claims: PhantomData,
        }
    }
}

impl<C> fmt::Debug for JwtVerifier<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("keys", &self.keys)
            .field("issuers", &self.validation.iss)
            .field("audiences", &self.validation.aud)
            .field("token_type", &self.token_type)
            .field("required_claims", &self.required)
            .finish_non_exhaustive()
    }
}
