//! The selection of a subprotocol.

use std::sync::Arc;

use http::HeaderValue;

use crate::config::ConfigError;

/// The subprotocols of a server, and how it selects one that the client offers (RFC 6455 4.2.2 item
/// 5.5).
///
/// A client that offers only others is rejected with
/// [`SubprotocolUnsupported`](crate::RejectionKind::SubprotocolUnsupported), because Chromium would
/// fail the connection anyway and tell its script nothing. A client that offers none is accepted.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Subprotocols {
    /// Each name, and its place in the server's order of preference. Sorted by name.
    ours: Arc<[(HeaderValue, usize)]>,
    client_order: bool,
}

impl Subprotocols {
    /// The server's subprotocols, in its order of preference. With an empty list every offer is
    /// rejected.
    ///
    /// A name that is not a token (RFC 9110 5.6.2), such as Kubernetes'
    /// `SPDY/3.1+portforward.k8s.io`, passes byte for byte, because clients exist that offer it.
    /// Only the layer with this list knows the name: another layer outside of it rejects it.
    ///
    /// # Errors
    ///
    /// A name is listed twice, is empty, or has a comma, a space or a character that is not visible
    /// ASCII.
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
        for (place, subprotocol) in subprotocols.into_iter().enumerate() {
            ours.push((parse_own(subprotocol.as_ref())?, place));
        }
        ours.sort_unstable();
        if let Some(twice) = ours.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let name = twice[0].0.to_str().unwrap_or_default();
            return Err(ConfigError::new(name, "the subprotocol is listed twice"));
        }
        Ok(Self { ours: ours.into(), client_order: false })
    }

    /// Follows the client's order of preference instead of the server's.
    pub fn prefer_client_order(self) -> Self {
        Self { client_order: true, ..self }
    }

    pub(crate) fn contains(&self, offer: &[u8]) -> bool {
        self.look_up(offer).is_some()
    }

    /// Selects one of the offered subprotocols.
    pub(crate) fn select<'a>(
        &self,
        offered: impl Iterator<Item = &'a [u8]>,
    ) -> Option<&HeaderValue> {
        let mut common = offered.filter_map(|offer| self.look_up(offer));
        let selected =
            if self.client_order { common.next() } else { common.min_by_key(|(_, place)| *place) };
        selected.map(|(name, _)| name)
    }

    fn look_up(&self, offer: &[u8]) -> Option<&(HeaderValue, usize)> {
        let at = self.ours.binary_search_by(|(name, _)| name.as_bytes().cmp(offer)).ok()?;
        self.ours.get(at)
    }
}

/// Parses the configured name of a subprotocol.
fn parse_own(value: &str) -> Result<HeaderValue, ConfigError> {
    let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    match HeaderValue::from_str(value) {
        Ok(header) if !value.is_empty() && value.bytes().all(is_visible) => Ok(header),
        _ => Err(ConfigError::new(
            value,
            "a subprotocol is visible ASCII, without spaces and commas; list each by itself",
        )),
    }
}
