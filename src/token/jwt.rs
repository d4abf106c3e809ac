//! JSON Web Tokens (RFC 7519), signed by a shared secret or by an identity provider.
//!
//! [`JwtVerifier`] takes the claims out of a token that one of its [`JwtKeys`] signed. What a token says of how it is to be
//! verified is never followed: each key has its algorithms, fixed by you, so there is no `none`, and no public key is ever taken for
//! a secret; `jwk`, `jku`, `x5u` and `x5c` in the token are ignored, and one that names extensions in `crit` is refused (RFC 8725).
//!
//! | claim | is checked |
//! |---|---|
//! | `exp` | always; a token without it is refused |
//! | `nbf` | if the token has it |
//! | `aud` | if you name an [audience](JwtVerifier::audience), it must be there and fit; if you name none, a token that has one is refused (RFC 7519 4.1.3) |
//! | `iss` | if you name an [issuer](JwtVerifier::issuer), it must be there and fit |
//! | others | must be there if you [require](JwtVerifier::required_claims) them, or if your own type for the claims has them |
//!
//! A bad token is `token-invalid`, with the reason as the rejection's source. A good one that lacks a scope or a role is
//! `token-forbidden`: say which with [`VerifyToken::require`].
//!
//! When `exp` and the leeway are over, a live socket ends only if you let it: see [`Validity`](crate::Validity). A time that is too late
//! for the system's clock is none.
//!
//! # Cryptography
//!
//! Signatures are checked by the `jsonwebtoken` crate. The first [`JwtKey`] installs RustCrypto as its `CryptoProvider` for the whole
//! process, unless the program has installed another one before: do that first if you use one. Scanners report RUSTSEC-2023-0071 for
//! the crate `rsa` in it, which is about private keys; there are none here.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use jsonwebtoken::{EncodingKey, Header, encode};
//! use serde::Deserialize;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Claims, TokenCheckLayer, TokenPolicy, VerifyToken,
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
//! let handshake = |audience: &str, scope: &str| {
//!     let claims = serde_json::json!({
//!         "iss": "https://id.example.com",
//!         "aud": audience,
//!         "sub": "alice",
//!         "scope": scope,
//!         "exp": 4_102_444_800_u64,
//!     });
//!     let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).unwrap();
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(())
//!         .unwrap()
//! };
//! let accepted = service.clone().oneshot(handshake("chat", "read chat")).await.unwrap();
//! assert_eq!(accepted.body(), "alice");
//! let refused = service.clone().oneshot(handshake("mail", "read chat")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! let refused = service.oneshot(handshake("chat", "read")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::FORBIDDEN);
//! # Ok(())
//! # }
//! ```

use std::{
    error::Error,
    fmt,
    future::{Future, ready},
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
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
    /// With Ed25519; `Ed25519` as its name (RFC 9864) is not known yet.
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

    /// RFC 7518 3.2: a secret shorter than the hash must not be used.
    const fn min_secret(self) -> usize {
        match self {
            Self::HS512 => 64,
            Self::HS384 => 48,
            _ => 32,
        }
    }
}

/// A key that signatures are checked with, and the algorithms that it is for.
///
/// To make one installs a [provider of cryptography](self#cryptography), if there is none yet.
#[derive(Clone)]
#[must_use]
pub struct JwtKey {
    id: Option<Box<str>>,
    key: DecodingKey,
    /// Of one family.
    algorithms: Vec<Algorithm>,
}

impl JwtKey {
    /// A secret shared with the issuer.
    ///
    /// # Errors
    ///
    /// `algorithm` is none of `HS256`, `HS384` and `HS512`, or `secret` is shorter than its hash: 32, 48 or 64 bytes (RFC 7518 3.2). Or
    /// `secret` is a key in PEM.
    pub fn hmac(algorithm: JwtAlgorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        if secret.windows(11).any(|window| window == b"-----BEGIN ") {
            return Err(ConfigError::new("", "a key in PEM is no secret; use `JwtKey::public_pem`"));
        }
        Self::new(DecodingKey::from_secret(secret), algorithm)
    }

    /// A public key in PEM: RSA, EC or Ed25519, as the algorithm asks for.
    ///
    /// # Errors
    ///
    /// It is no public key for `algorithm`, or an RSA key of fewer than 2048 bits (RFC 7518 3.3) or more than 4096.
    pub fn public_pem(algorithm: JwtAlgorithm, pem: &str) -> Result<Self, ConfigError> {
        if pem.contains("PRIVATE KEY") {
            return Err(ConfigError::new("", "it is a private key; use the public one, which is enough to verify"));
        }
        let key = match algorithm.inner().family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
            AlgorithmFamily::Hmac => {
                return Err(ConfigError::new(
                    "",
                    "a public key is no secret; use `JwtKey::hmac` for HS256, HS384, HS512",
                ));
            }
        };
        Self::new(key.map_err(|_| ConfigError::new("", "it is no public key in PEM for that algorithm"))?, algorithm)
    }

    /// The keys of a JSON Web Key set (RFC 7517 5) that are for signatures by one of `algorithms`; others are left out.
    ///
    /// A key with `alg` is for that algorithm; one without, for each of `algorithms` that fits it. Its `kid` is its
    /// [`key_id`](Self::key_id).
    ///
    /// # Errors
    ///
    /// `json` is no key set, or no key of it is left.
    pub fn from_jwks(json: &str, algorithms: &[JwtAlgorithm]) -> Result<Vec<Self>, ConfigError> {
        let set = serde_json::from_str::<Value>(json).unwrap_or_default();
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err(ConfigError::new("", "it is no JSON Web Key set: an object with a list `keys`"));
        };
        let keys = keys.iter().filter_map(|jwk| Self::from_jwk(&Jwk::deserialize(jwk).ok()?, algorithms));
        let keys = keys.collect::<Vec<_>>();
        if keys.is_empty() {
            return Err(ConfigError::new("", "the set has no key for signatures by one of the algorithms"));
        }
        Ok(keys)
    }

    fn from_jwk(jwk: &Jwk, algorithms: &[JwtAlgorithm]) -> Option<Self> {
        let common = &jwk.common;
        let verifies = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
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
        // Or `decode` panics in a program where another crate has turned on the other provider, too.
        DEFAULT_PROVIDER.install_default().ok();

        let problem = match key.family() {
            family if family != algorithm.inner().family() => "it is no key for that algorithm",
            AlgorithmFamily::Hmac if key.try_get_as_bytes().is_ok_and(|key| key.len() < algorithm.min_secret()) => {
                "the secret is shorter than the hash; use 32 random bytes for HS256, 48 for HS384, 64 for HS512"
            }
            AlgorithmFamily::Rsa if !is_strong_rsa(&key) => {
                "an RSA key must have 2048 to 4096 bits, and an odd exponent of at most 32 bits"
            }
            // Looked at before the provider, which panics if it is shorter.
            AlgorithmFamily::Ed if !is_strong_ed25519(&key) => "it is no Ed25519 key, or one that anybody can sign for",
            _ if (DEFAULT_PROVIDER.verifier_factory)(&algorithm.inner(), &key).is_err() => {
                "it is no key for that algorithm"
            }
            _ => return Ok(Self { id: None, key, algorithms: vec![algorithm.inner()] }),
        };
        Err(ConfigError::new("", problem))
    }

    /// The key verifies only tokens whose header names this `kid` (RFC 7515 4.1.4). Without one it verifies any token, so each such key
    /// is tried on each token.
    pub fn key_id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    fn is_for(&self, header: &Header) -> bool {
        self.algorithms.contains(&header.alg) && self.id.as_deref().is_none_or(|id| header.kid.as_deref() == Some(id))
    }
}

/// RFC 7518 3.3; at the other end is what RustCrypto can do.
fn is_strong_rsa(key: &DecodingKey) -> bool {
    let components = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Some((n.clone(), e.clone())),
        DecodingKeyKind::SecretOrDer(der) => (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der).ok(),
    };
    let Some((n, e)) = &components else { return false };
    let bits = |number: &[u8]| {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        number.get(zeros).map_or(0, |first| (number.len() - zeros) * 8 - first.leading_zeros() as usize)
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
        f.debug_struct("JwtKey").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// The keys of a [`JwtVerifier`]. Clones share them, so that they can be replaced while handshakes are verified.
///
/// ```
/// use tower_ws_guard::token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// # let fetched = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"2026","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// let keys = JwtKeys::new(JwtKey::from_jwks(fetched, &[JwtAlgorithm::EdDSA])?);
/// let verifier = JwtVerifier::<serde_json::Value>::new(keys.clone()).issuer("https://id.example.com");
/// // Later, in a task that fetches the set now and then:
/// keys.replace(JwtKey::from_jwks(fetched, &[JwtAlgorithm::EdDSA])?);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtKeys(Arc<RwLock<Arc<[JwtKey]>>>);

impl JwtKeys {
    /// Verifies with these keys. As long as there are none, every token is refused as `verifier-failed`.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }

    /// Verifies with `keys` instead, from the next handshake on. Live connections are left alone.
    pub fn replace(&self, keys: impl IntoIterator<Item = JwtKey>) {
        let keys = keys.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn get(&self) -> Arc<[JwtKey]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKeys").field(&self.get()).finish()
    }
}

/// Verifies JSON Web Tokens, whose claims are read into `C`; if they do not matter, into `serde::de::IgnoredAny`.
///
/// See the [module docs](self) for what is checked and for an example.
#[must_use]
pub struct JwtVerifier<C> {
    keys: JwtKeys,
    /// But for the algorithms, which the key decides.
    validation: Validation,
    token_type: Option<Box<str>>,
    required: Vec<Box<str>>,
    claims: PhantomData<fn() -> C>,
}

impl<C: DeserializeOwned + Clone + Send + Sync + 'static> JwtVerifier<C> {
    /// Accepts tokens that one of `keys` signed and that have not expired, with a leeway of 60 seconds.
    pub fn new(keys: JwtKeys) -> Self {
        let validation = Validation { validate_nbf: true, validate_aud: false, ..Validation::default() };
        Self { keys, validation, token_type: None, required: Vec::new(), claims: PhantomData }
    }

    /// Accepts tokens of this issuer only; called again, of one of those named.
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.validation.iss.get_or_insert_default().insert(issuer.to_owned());
        self.validation.required_spec_claims.insert("iss".to_owned());
        self
    }

    /// Accepts tokens for this audience only; called again, for one of those named.
    pub fn audience(mut self, audience: &str) -> Self {
        self.validation.validate_aud = true;
        self.validation.aud.get_or_insert_default().insert(audience.to_owned());
        self.validation.required_spec_claims.insert("aud".to_owned());
        self
    }

    /// Accepts tokens whose header names this `typ` only, such as `at+jwt` for access tokens (RFC 9068 2.1): so that a token made for
    /// something else is not taken for one (RFC 8725 3.11).
    pub fn token_type(mut self, token_type: &str) -> Self {
        self.token_type = Some(token_type.into());
        self
    }

    /// Accepts only tokens with all of these claims, whatever their values but `null`.
    pub fn required_claims<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.required.extend(names.into_iter().map(Box::from));
        self
    }

    /// How far the issuer's clock may be off: full seconds, at most an hour.
    ///
    /// # Errors
    ///
    /// It is longer.
    pub fn leeway(mut self, leeway: Duration) -> Result<Self, ConfigError> {
        if leeway > Duration::from_secs(3600) {
            return Err(ConfigError::new("", "a leeway of more than an hour would accept what has long expired"));
        }
        self.validation.leeway = leeway.as_secs();
        Ok(self)
    }

    fn claims(&self, token: &str, keys: &[JwtKey]) -> Result<Verified<C>, Box<dyn Error + Send + Sync>> {
        let header = decode_header(token).map_err(|_| "it is no JSON Web Token with an algorithm that is known")?;
        // RFC 7515 4.1.11: of all the extensions that a token may declare critical, none is understood.
        if header.crit.is_some() {
            return Err("it asks for an extension by `crit`".into());
        }
        if let Some(expected) = &self.token_type
            && !header.typ.as_deref().is_some_and(|typ| is_media_type(typ, expected))
        {
            return Err(format!("its `typ` is not `{expected}`").into());
        }

        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut failure = None;
        for key in keys.iter().filter(|key| key.is_for(&header)) {
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return self.accept(token.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => failure = Some(reason(&error)),
                Err(error) => return Err(reason(&error)),
            }
        }
        Err(failure.unwrap_or_else(|| no_key(&header)))
    }

    fn accept(&self, claims: Map<String, Value>) -> Result<Verified<C>, Box<dyn Error + Send + Sync>> {
        if let Some(missing) = self.required.iter().find(|&name| claims.get(&**name).is_none_or(Value::is_null)) {
            return Err(format!("it has no `{missing}`").into());
        }
        // The library lets a list of issuers pass, and an audience that it cannot read.
        if self.validation.iss.is_some() && !claims.get("iss").is_some_and(Value::is_string) {
            return Err("its `iss` is no string".into());
        }
        if self.validation.aud.is_none() && claims.contains_key("aud") {
            return Err("it is for an audience (`aud`), and none is configured".into());
        }

        let seconds =
            claims.get("exp").and_then(|exp| exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp.round() as u64)));
        let leeway = Duration::from_secs(self.validation.leeway);
        let expires_at = seconds
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?.checked_add(leeway));
        // RFC 7519 4.1.4: it is expired on `exp`, not only after it.
        if expires_at.is_some_and(|time| time <= SystemTime::now()) {
            return Err(EXPIRED.into());
        }

        let verified = Verified::new(C::deserialize(Value::Object(claims)).map_err(|error| misfit(&error))?);
        Ok(match expires_at {
            Some(time) => verified.expires_at(time),
            None => verified,
        })
    }
}

impl<C: DeserializeOwned + Clone + Send + Sync + 'static> VerifyToken for JwtVerifier<C> {
    type Claims = C;

    fn verify(&self, token: Token, _: &Parts) -> impl Future<Output = Result<Verified<C>, Rejection>> + Send {
        let keys = self.keys.get();
        if keys.is_empty() {
            return ready(Err(Rejection::verifier_failed(
                "there are no keys yet; hand them over by `JwtKeys::replace`",
            )));
        }
        let invalid = |error| Rejection::new(RejectionKind::TokenInvalid).with_source(error);
        ready(self.claims(token.expose(), &keys).map_err(invalid))
    }
}

/// RFC 7515 4.1.9: `application/` may be left out.
fn is_media_type(value: &str, expected: &str) -> bool {
    let short = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.strip_prefix("application/").map(str::to_owned).unwrap_or(name)
    };
    short(value) == short(expected)
}

const EXPIRED: &str = "it has expired (`exp`)";

/// Of a token with a header, in words, and without the values that the library's messages quote.
fn reason(error: &jsonwebtoken::errors::Error) -> Box<dyn Error + Send + Sync> {
    match error.kind() {
        ErrorKind::ExpiredSignature => EXPIRED.into(),
        ErrorKind::ImmatureSignature => "it is not valid yet (`nbf`); look at both clocks".into(),
        ErrorKind::InvalidSignature => "its signature is by none of the keys that it could be by".into(),
        ErrorKind::InvalidIssuer => "it is by another issuer (`iss`)".into(),
        ErrorKind::InvalidAudience => "it is for another audience (`aud`)".into(),
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            format!("it has no valid `{name}`").into()
        }
        _ => "it cannot be read: the claims are a JSON object with each member once, and all parts are base64url without padding".into(),
    }
}

/// The message may quote a claim's value, but not if a claim is missing.
fn misfit(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.starts_with("missing field") {
        true => format!("its claims do not fit: {message}"),
        false => "its claims do not fit: one cannot be read into the type that is wanted".to_owned(),
    }
}

fn no_key(header: &Header) -> Box<dyn Error + Send + Sync> {
    let names = match &header.kid {
        // From a stranger, so it is escaped and cut.
        Some(id) => format!("names the `kid` {:?}", id.chars().take(64).collect::<String>()),
        None => "names no `kid`".to_owned(),
    };
    let algorithm = header.alg;
    format!(
        "it is signed with {algorithm:?} and {names}, and no key is for that; if the issuer has new keys, hand them over by \
         `JwtKeys::replace`"
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
