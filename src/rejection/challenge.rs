use http::HeaderValue;

#[cfg(feature = "token")]
use crate::{config::ConfigError, http::field::is_token};

/// The challenges of a 401 (RFC 9110 11.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenges(Vec<Challenge>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    token_missing: HeaderValue,
    /// With the error of RFC 6750 3.1, if the scheme has one.
    token_invalid: HeaderValue,
}

impl Challenges {
    /// The default: `Basic`, `Bearer` or both. A browser sends a cookie by itself, so there is
    /// nothing to ask for.
    pub(crate) fn new(basic: bool, bearer: bool) -> Self {
        let basic = basic.then(|| {
            let challenge = HeaderValue::from_static(r#"Basic realm="websocket""#);
            Challenge { token_missing: challenge.clone(), token_invalid: challenge }
        });
        let bearer = bearer.then(|| Challenge {
            token_missing: HeaderValue::from_static(r#"Bearer realm="websocket""#),
            token_invalid: HeaderValue::from_static(
                r#"Bearer realm="websocket", error="invalid_token""#,
            ),
        });
        Self(basic.into_iter().chain(bearer).collect())
    }

    /// Adds a challenge with this scheme and realm.
    #[cfg(feature = "token")]
    pub(crate) fn add(&mut self, scheme: &str, realm: &str) -> Result<(), ConfigError> {
        if !is_token(scheme.as_bytes()) {
            return Err(ConfigError::new(scheme, "a scheme is a token, such as `Bearer`"));
        }
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        let value = |error: &str| match format!(r#"{scheme} realm="{realm}"{error}"#).try_into() {
            Ok(value) if realm.bytes().all(is_plain) => Ok(value),
            _ => Err(ConfigError::new(
                realm,
                "a realm is visible ASCII and spaces, without quotes and backslashes",
            )),
        };
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        let error = if is_bearer { r#", error="invalid_token""# } else { "" };
        self.0.push(Challenge { token_missing: value("")?, token_invalid: value(error)? });
        Ok(())
    }

    /// The values of `WWW-Authenticate`.
    pub(super) fn values(&self, token_is_invalid: bool) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter().map(move |challenge| {
            if token_is_invalid { &challenge.token_invalid } else { &challenge.token_missing }
        })
    }
}
