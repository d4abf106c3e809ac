//! The selection of a subprotocol.

use std::sync::Arc;

use http::HeaderValue;

use crate::{config::ConfigError, http::field::is_token};

/// The subprotocols of a server, and how it selects one that the client offers (RFC 6455 4.2.2 item
/// 5.5).
///
/// A client that offers only others is rejected with
/// [`SubprotocolUnsupported`](crate::RejectionKind::SubprotocolUnsupported), because Chromium would
/// fail the connection anyway and tell its script nothing. A client that offers none is accepted.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Subprotocols {
    ours: Arc<[HeaderValue]>,
    client_order: bool,
}

impl Subprotocols {
    /// The server's subprotocols, in its order of preference. With an empty list every offer is
    /// rejected.
    ///
    /// # Errors
    ///
    /// A name is not a token (RFC 9110 5.6.2), or is listed twice.
    ///
    /// ```
    /// use tower_ws_guard::Subprotocols;
    ///
    /// assert!(Subprotocols::list(["v2.chat", "v1.chat"]).is_ok());
    /// assert!(Subprotocols::list(["chat, v2"]).is_err());
    /// ```
    pub fn list<I>(subprotocols: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut ours = Vec::new();
        for subprotocol in subprotocols {
            let value = parse_subprotocol(subprotocol.as_ref())?;
            if ours.contains(&value) {
                return Err(ConfigError::new(
                    subprotocol.as_ref(),
                    "the subprotocol is listed twice",
                ));
            }
            ours.push(value);
        }
        Ok(Self { ours: ours.into(), client_order: false })
    }

    /// Follows the client's order of preference instead of the server's.
    pub fn prefer_client_order(self) -> Self {
        Self { client_order: true, ..self }
    }

    /// Selects one of the offered subprotocols.
    pub(crate) fn select<'a, I>(&self, offered: impl Fn() -> I) -> Option<&HeaderValue>
    where
        I: Iterator<Item = &'a str>,
    {
        if self.client_order {
            offered().find_map(|offer| self.ours.iter().find(|ours| *ours == offer))
        } else {
            self.ours.iter().find(|ours| offered().any(|offer| *ours == offer))
        }
    }
}

/// Parses the configured name of a subprotocol, or of a carrier in its place.
pub(crate) fn parse_subprotocol(value: &str) -> Result<HeaderValue, ConfigError> {
    match HeaderValue::from_str(value) {
        Ok(header) if is_token(value.as_bytes()) => Ok(header),
        _ => Err(ConfigError::new(
            value,
            "a subprotocol is a token: no spaces, commas, slashes, quotes or colons",
        )),
    }
}
