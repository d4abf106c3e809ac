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
//! [`VerifyToken::require`](crate::VerifyToken::require) to require a scope or a role: a valid token
//! without it is `token-forbidden`.
//!
//! The token expires when `exp` and the leeway have passed. [`Validity`](crate::Validity) notifies
//! an open socket then. An `exp` beyond the range of the system's clock never expires.
//!
//! # Keys
//!
//! [`JwtKeys::refresh`] fetches the keys of an issuer that rotates them, with the HTTP client of your
//! choice: periodically, and early if a token names an unknown key. The last good keys stay if a
//! fetch fails. The example `jwt_rotation` finds them by OpenID Connect Discovery. For keys that you
//! configure, use [`JwtKeys::new`].
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

mod key;
mod keys;
mod refresh;
mod verify;

pub use self::{
    key::{JwtAlgorithm, JwtKey},
    keys::JwtKeys,
    refresh::JwtRefresh,
    verify::JwtVerifier,
};
