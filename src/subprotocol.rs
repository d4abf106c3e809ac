use std::sync::Arc;

use http::HeaderValue;

use crate::{
    config::ConfigError,
    handshake::{Handshake, is_token},
    rejection::{Rejection, RejectionKind},
};

/// The subprotocols that a server speaks, and how one of those that the client offers is chosen (RFC 6455 4.2.2 item 5.5).
///
/// A client that offers some, but none of these, is refused with
/// [`SubprotocolUnsupported`](crate::RejectionKind::SubprotocolUnsupported): Chromium would fail the connection anyway if
/// none were named in the answer, and tell its script nothing. A client that offers none is let in.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Subprotocols {
    ours: Arc<[HeaderValue]>,
    client_order: bool,
}

impl Subprotocols {
    /// The server's subprotocols, the preferred one first. None at all is allowed: then every offer is refused.
    ///
    /// # Errors
    ///
    /// A name that is no token (RFC 9110 5.6.2), or is there twice.
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
            let value = parse_token(subprotocol.as_ref())?;
            if ours.contains(&value) {
                return Err(ConfigError::new(subprotocol.as_ref(), "the subprotocol is listed twice"));
            }
            ours.push(value);
        }
        Ok(Self { ours: ours.into(), client_order: false })
    }

    /// Follows the client's order of preference, not the server's.
    pub fn prefer_client_order(self) -> Self {
        Self { client_order: true, ..self }
    }

    fn choose<'a, I>(&self, offered: impl Fn() -> I) -> Option<&HeaderValue>
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

/// A subprotocol, or what stands in its place, from a configuration.
pub(crate) fn parse_token(value: &str) -> Result<HeaderValue, ConfigError> {
    match HeaderValue::from_str(value) {
        Ok(header) if is_token(value.as_bytes()) => Ok(header),
        _ => Err(ConfigError::new(value, "a subprotocol is a token: no spaces, commas, slashes, quotes or colons")),
    }
}

/// What a layer outside chose, for the layers inside: theirs too, without being on their list.
#[derive(Clone, Debug)]
pub(crate) struct Chosen(pub(crate) HeaderValue);

/// Without a list of ours the choice is left to the inner service, and only an offer of nothing but carriers is refused.
pub(crate) fn choose<'a, I>(
    ours: Option<&Subprotocols>,
    handshake: &Handshake<'_>,
    offered: impl Fn() -> I,
    mut markers: impl Iterator<Item = &'a HeaderValue>,
) -> Result<Option<HeaderValue>, Rejection>
where
    I: Iterator<Item = &'a str>,
{
    if handshake.subprotocols().next().is_none() {
        return Ok(None);
    }
    let outside = handshake.extensions().get::<Chosen>().map(|Chosen(chosen)| chosen);
    let is_offered = |candidate: &&HeaderValue| offered().any(|offer| *candidate == offer);
    let chosen = ours
        .and_then(|ours| ours.choose(&offered))
        .or_else(|| outside.filter(is_offered))
        .or_else(|| markers.find(is_offered));
    let supported = match ours {
        Some(_) => chosen.is_some(),
        None => offered().next().is_some(),
    };
    match supported {
        true => Ok(chosen.cloned()),
        false => Err(RejectionKind::SubprotocolUnsupported.into()),
    }
}
