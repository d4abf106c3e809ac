use http::HeaderValue;

#[cfg(feature = "token")]
use crate::{config::ConfigError, http::field::is_token};

/// The challenges of a 401 (RFC 9110 11.6.1), and of other rejections of a token by `Bearer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenges(Vec<Challenge>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    plain: HeaderValue,
    /// `Bearer` alone has errors. In the order of [`BearerError`].
    errors: Option<[HeaderValue; 3]>,
}

/// The errors of RFC 6750 3.1.
#[derive(Clone, Copy)]
pub(super) enum BearerError {
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}

impl Challenges {
    /// The default: `Basic`, `Bearer` or both. A browser sends a cookie by itself, so there is
    /// nothing to ask for.
    pub(crate) fn new(basic: bool, bearer: bool) -> Self {
        let basic = basic.then(|| Challenge {
            plain: HeaderValue::from_static(r#"Basic realm="websocket""#),
            errors: None,
        });
        let bearer = bearer.then(|| Challenge {
            plain: HeaderValue::from_static(r#"Bearer realm="websocket""#),
            errors: Some(
                [
                    r#"Bearer realm="websocket", error="invalid_request""#,
                    r#"Bearer realm="websocket", error="invalid_token""#,
                    r#"Bearer realm="websocket", error="insufficient_scope""#,
                ]
                .map(HeaderValue::from_static),
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
        let error = |error: &str| value(&format!(r#", error="{error}""#));
        let errors = if scheme.eq_ignore_ascii_case("bearer") {
            Some([error("invalid_request")?, error("invalid_token")?, error("insufficient_scope")?])
        } else {
            None
        };
        self.0.push(Challenge { plain: value("")?, errors });
        Ok(())
    }

    /// The values of `WWW-Authenticate` of a 401.
    pub(super) fn values(&self, error: Option<BearerError>) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter().map(move |challenge| with_error(challenge, error).unwrap_or(&challenge.plain))
    }

    /// The values of `WWW-Authenticate` of another status, by the schemes that can name the error.
    pub(super) fn errors(&self, error: Option<BearerError>) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter().filter_map(move |challenge| with_error(challenge, error))
    }
}

fn with_error(challenge: &Challenge, error: Option<BearerError>) -> Option<&HeaderValue> {
    Some(&challenge.errors.as_ref()?[error? as usize])
}
