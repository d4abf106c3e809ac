use std::{
    error::Error,
    fmt,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use http::request::Parts;
use jsonwebtoken::{
    Header, Validation, dangerous::insecure_decode_claims, decode, decode_header, errors::ErrorKind,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{JwtKey, JwtKeys};
use crate::{
    config::ConfigError,
    rejection::{Rejection, RejectionKind},
    token::{Token, Verified, VerifyToken},
};

/// Verifies JSON Web Tokens, and reads their claims into `C`.
///
/// Use `serde::de::IgnoredAny` as `C` to ignore the claims. See the [module docs](super) for the
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

    /// The verdict of the current keys.
    fn verdict(&self, token: &str) -> Result<Verified<C>, Failure> {
        let keys = self.keys.get();
        if keys.is_empty() {
            let rejection = Rejection::verifier_failed(self.keys.no_keys());
            return Err(Failure { rejection, is_key_unknown: true });
        }
        let mut is_key_unknown = false;
        self.claims(token, &keys, &mut is_key_unknown).map_err(|reason| {
            let rejection = Rejection::new(RejectionKind::TokenInvalid).with_source(reason);
            Failure { rejection, is_key_unknown }
        })
    }

    fn claims(
        &self,
        token: &str,
        keys: &[JwtKey],
        is_key_unknown: &mut bool,
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
        let mut is_named = false;
        for key in keys.iter().filter(|key| key.matches(&header)) {
            match decode::<Map<String, Value>>(token, key.decoding_key(), &validation) {
                Ok(token) => return self.accept(token.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    is_named |= key.has_id();
                    failure = Some(reason(&error));
                }
                Err(error) => return Err(reason(&error)),
            }
        }
        *is_key_unknown = !is_named && self.may_accept(token);
        Err(failure.unwrap_or_else(|| no_key(&header, &self.keys.unknown_key_hint())))
    }

    /// Whether the claims, which are not verified, are worth a fetch of newer keys.
    fn may_accept(&self, token: &str) -> bool {
        insecure_decode_claims::<Map<String, Value>>(token).is_ok_and(|claims| {
            let is_issuer = |iss: &str| {
                self.validation.iss.as_ref().is_none_or(|issuers| issuers.contains(iss))
            };
            is_issuer(claims.get("iss").and_then(Value::as_str).unwrap_or_default())
                && self.expires_at(&claims).is_none_or(|time| time > SystemTime::now())
        })
    }

    /// The time in `exp` and the leeway. `None` if it is beyond the range of the clock.
    fn expires_at(&self, claims: &Map<String, Value>) -> Option<SystemTime> {
        let exp = claims.get("exp")?;
        let seconds = exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp.round() as u64))?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))?
            .checked_add(Duration::from_secs(self.validation.leeway))
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

        let expires_at = self.expires_at(&claims);
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

    async fn verify(&self, token: Token, _: &Parts) -> Result<Verified<C>, Rejection> {
        loop {
            // Before the keys are read, so that no fetch is missed.
            let generation = self.keys.generation();
            match self.verdict(token.expose()) {
                Err(failure)
                    if failure.is_key_unknown && self.keys.newer_than(generation).await => {}
                verdict => return verdict.map_err(|failure| failure.rejection),
            }
        }
    }

    fn verify_now(&self, token: &Token, _: &Parts) -> Option<Result<Verified<C>, Rejection>> {
        let generation = self.keys.generation();
        match self.verdict(token.expose()) {
            Err(failure) if failure.is_key_unknown && self.keys.may_be_newer_than(generation) => {
                None
            }
            verdict => Some(verdict.map_err(|failure| failure.rejection)),
        }
    }
}

/// A rejection by the current keys.
struct Failure {
    rejection: Rejection,
    /// Newer keys may accept the token.
    is_key_unknown: bool,
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

fn no_key(header: &Header, hint: &str) -> Box<dyn Error + Send + Sync> {
    let names = match &header.kid {
        // From an untrusted client, so escaped and cut.
        Some(id) => format!("names the `kid` {:?}", id.chars().take(64).collect::<String>()),
        None => "names no `kid`".to_owned(),
    };
    let algorithm = header.alg;
    format!(
        "the token is signed with {algorithm:?} and {names}, and no configured key matches; {hint}"
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
