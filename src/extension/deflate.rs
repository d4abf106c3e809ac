//! The negotiation of `permessage-deflate` (RFC 7692 7.1).

use std::{fmt, mem, ops::RangeInclusive};

use http::HeaderValue;

use super::grammar::{Extension, InvalidExtensionOffer, MAX_EXTENSIONS, parse_lines};
use crate::config::ConfigError;

const NAME: &str = "permessage-deflate";
/// The window size that is meant where none is named.
const DEFAULT_WINDOW_BITS: u8 = 15;

/// What a server agrees to about `permessage-deflate` (RFC 7692), the compression of messages.
///
/// The layer negotiates, and the codec compresses. So say here what the codec can do. By default
/// the server does not limit its own window, and both sides may keep their window from one message
/// to the next. See [`extension`](crate::extension#codecs) for what each codec needs.
///
/// Of the offers of a client the first one counts that the policy can keep. The others are
/// declined. If all are declined, the handshake goes on without compression.
///
/// A window of `n` bits has 2^n bytes: 8 to 15 bits are 256 bytes to 32 KiB.
///
/// ```
/// use tower_ws_guard::{AllowOrigin, GuardLayer, PermessageDeflate};
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let guard = GuardLayer::new(AllowOrigin::same_origin())
///     .extensions(PermessageDeflate::new().server_window_bits(9..=15)?)
///     .respond();
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PermessageDeflate {
    /// The sizes that the server can compress with.
    server: RangeInclusive<u8>,
    /// The maximum size that the client may compress with.
    client: u8,
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
}

impl PermessageDeflate {
    /// Both sides have a window of 15 bits, and may keep it from one message to the next. An offer
    /// that limits the window of the server is declined, and one that limits that of the client is
    /// agreed to.
    pub const fn new() -> Self {
        Self {
            server: DEFAULT_WINDOW_BITS..=DEFAULT_WINDOW_BITS,
            client: DEFAULT_WINDOW_BITS,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
        }
    }

    /// Sets the window sizes that the codec can compress with, in bits. A later call replaces an
    /// earlier one.
    ///
    /// A client that asks for less than the minimum gets no compression. The maximum bounds the
    /// memory of the server. Codecs on zlib can use `9..=15`. Some codecs ignore what was agreed
    /// and use 15; then a client that was promised less cannot decompress.
    ///
    /// # Errors
    ///
    /// The range is empty or goes beyond 8 to 15.
    ///
    /// ```
    /// use tower_ws_guard::PermessageDeflate;
    ///
    /// assert!(PermessageDeflate::new().server_window_bits(9..=12).is_ok());
    /// assert!(PermessageDeflate::new().server_window_bits(9..=16).is_err());
    /// ```
    pub fn server_window_bits(mut self, bits: RangeInclusive<u8>) -> Result<Self, ConfigError> {
        let is_valid = |bits: &u8| (8..=15).contains(bits);
        if bits.is_empty() || !is_valid(bits.start()) || !is_valid(bits.end()) {
            return Err(invalid_window(&format!("{bits:?}")));
        }
        self.server = bits;
        Ok(self)
    }

    /// Sets the maximum window size that the client may compress with, in bits: 8 to 15, by default
    /// 15. It bounds the memory that the server needs to decompress. A later call replaces an
    /// earlier one.
    ///
    /// **With less than 15, clients that cannot limit their window get no compression**: Firefox is
    /// one of them. Chromium, Node and Python can.
    ///
    /// # Errors
    ///
    /// The size is not 8 to 15.
    ///
    /// ```
    /// use tower_ws_guard::PermessageDeflate;
    ///
    /// assert!(PermessageDeflate::new().client_max_window_bits(10).is_ok());
    /// assert!(PermessageDeflate::new().client_max_window_bits(7).is_err());
    /// ```
    pub fn client_max_window_bits(mut self, bits: u8) -> Result<Self, ConfigError> {
        if !(8..=15).contains(&bits) {
            return Err(invalid_window(&bits.to_string()));
        }
        self.client = bits;
        Ok(self)
    }

    /// The server begins each message with an empty window. That spares its memory between two
    /// messages, and compresses less.
    ///
    /// A client that asks for it gets it without this setting, too.
    pub const fn server_no_context_takeover(mut self) -> Self {
        self.server_no_context_takeover = true;
        self
    }

    /// The client begins each message with an empty window. Then the server needs no memory to
    /// decompress between two messages.
    ///
    /// A client that asks for it gets it without this setting, too.
    pub const fn client_no_context_takeover(mut self) -> Self {
        self.client_no_context_takeover = true;
        self
    }

    /// Agrees to the first offer that the policy can keep.
    ///
    /// # Errors
    ///
    /// The lines are malformed, anywhere.
    pub(crate) fn negotiate<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a HeaderValue>,
    ) -> Result<Option<Agreement>, InvalidExtensionOffer> {
        let mut agreement = None;
        let mut count = 0;
        parse_lines(lines.into_iter().map(HeaderValue::as_bytes), |extension| {
            count += 1;
            if agreement.is_none() && extension.name() == NAME {
                agreement = Parameters::new(extension).and_then(|offer| self.agree(&offer));
            }
            Ok(())
        })?;
        Ok(agreement.filter(|_| count <= MAX_EXTENSIONS))
    }

    fn agree(&self, offer: &Parameters) -> Option<Agreement> {
        let (min, max) = (*self.server.start(), *self.server.end());
        let server_max_window_bits = match offer.server_max_window_bits {
            Some(bits) if bits < min => return None,
            Some(bits) => Some(bits.min(max)),
            None => (max < DEFAULT_WINDOW_BITS).then_some(max),
        };
        let client = match offer.client_max_window_bits {
            Some(bits) => self.client.min(bits.unwrap_or(DEFAULT_WINDOW_BITS)),
            None if self.client < DEFAULT_WINDOW_BITS => return None,
            None => DEFAULT_WINDOW_BITS,
        };
        let agreed = AgreedDeflate {
            server_no_context_takeover: self.server_no_context_takeover
                || offer.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover
                || offer.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits: (client < DEFAULT_WINDOW_BITS).then_some(client),
        };
        let client_can_limit = offer.client_max_window_bits.is_some();
        Some(Agreement { agreed, client_can_limit })
    }
}

impl Default for PermessageDeflate {
    fn default() -> Self {
        Self::new()
    }
}

fn invalid_window(value: &str) -> ConfigError {
    ConfigError::new(value, "a window has 8 to 15 bits; codecs on zlib compress with 9 to 15")
}

/// What a layer agreed to.
#[derive(Clone, Copy)]
pub(crate) struct Agreement {
    pub(crate) agreed: AgreedDeflate,
    /// The client allows a response with `client_max_window_bits`.
    client_can_limit: bool,
}

impl Agreement {
    /// The offer that handlers see. What it says about the client's part the layer adds to the
    /// response, because a handler may leave it out.
    pub(crate) fn offer(&self) -> HeaderValue {
        let can_limit = self.client_can_limit && self.agreed.client_max_window_bits.is_none();
        let rest = if can_limit { "; client_max_window_bits" } else { "" };
        header_value(format!("{}{rest}", self.agreed))
    }
}

/// What client and server agreed to about `permessage-deflate`.
///
/// `Display` writes the value of `Sec-WebSocket-Extensions` in the response, which some codecs
/// take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgreedDeflate {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl AgreedDeflate {
    /// Whether the server begins each message with an empty window.
    #[must_use]
    pub const fn server_no_context_takeover(&self) -> bool {
        self.server_no_context_takeover
    }

    /// Whether the client begins each message with an empty window.
    #[must_use]
    pub const fn client_no_context_takeover(&self) -> bool {
        self.client_no_context_takeover
    }

    /// The maximum window size with which the server may compress, in bits: 8 to 15.
    #[must_use]
    pub fn server_max_window_bits(&self) -> u8 {
        self.server_max_window_bits.unwrap_or(DEFAULT_WINDOW_BITS)
    }

    /// The maximum window size with which the client compresses, in bits: 8 to 15. zlib takes 9 to
    /// 15, and decompresses with more than is needed.
    #[must_use]
    pub fn client_max_window_bits(&self) -> u8 {
        self.client_max_window_bits.unwrap_or(DEFAULT_WINDOW_BITS)
    }

    /// A handler's response, with the limits of the client's part that it left out. They are agreed
    /// to only if the client allows a response with them.
    pub(super) fn limit(&self, response: Extension<'_>) -> Option<HeaderValue> {
        let response = Parameters::new(response)?;
        let bits = [response.client_max_window_bits.flatten(), self.client_max_window_bits];
        let limited = Self {
            server_no_context_takeover: response.server_no_context_takeover,
            client_no_context_takeover: response.client_no_context_takeover
                || self.client_no_context_takeover,
            server_max_window_bits: response.server_max_window_bits,
            client_max_window_bits: bits.into_iter().flatten().min(),
        };
        Some(limited.header_value())
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        header_value(self.to_string())
    }
}

impl fmt::Display for AgreedDeflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(f, "; client_max_window_bits={bits}")?;
        }
        Ok(())
    }
}

fn header_value(text: String) -> HeaderValue {
    text.try_into().expect("tokens and separators are visible ASCII")
}

/// The parameters of an offer or of a response (RFC 7692 7.1).
#[derive(Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// In an offer it may be without a value.
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` if a parameter is unknown, repeated or has an invalid value.
    fn new(extension: Extension<'_>) -> Option<Self> {
        let mut these = Self::default();
        for (name, value) in extension.parameters() {
            let bits = match value.as_deref() {
                Some(value) => Some(window_bits(value)?),
                None => None,
            };
            let is_new = match (name, bits) {
                ("server_no_context_takeover", None) => {
                    !mem::replace(&mut these.server_no_context_takeover, true)
                }
                ("client_no_context_takeover", None) => {
                    !mem::replace(&mut these.client_no_context_takeover, true)
                }
                ("server_max_window_bits", Some(bits)) => {
                    these.server_max_window_bits.replace(bits).is_none()
                }
                ("client_max_window_bits", bits) => {
                    these.client_max_window_bits.replace(bits).is_none()
                }
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(these)
    }

    fn is_accepted_by(&self, response: &Self) -> bool {
        let may_limit_client = match response.client_max_window_bits {
            None => true,
            Some(None) => false,
            Some(Some(_)) => self.client_max_window_bits.is_some(),
        };
        let limits_server = self.server_max_window_bits.is_none_or(|offered| {
            response.server_max_window_bits.is_some_and(|bits| bits <= offered)
        });
        may_limit_client
            && limits_server
            && (response.server_no_context_takeover || !self.server_no_context_takeover)
    }
}

/// RFC 7692 7.1.2: decimal, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    match value.as_bytes() {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// Whether a response may name `accepted` after the client has offered `offered`, which has the
/// same name.
pub(super) fn is_accepted(offered: Extension<'_>, accepted: Extension<'_>) -> bool {
    if offered.name() != NAME {
        // The crate knows no other extension.
        return true;
    }
    match (Parameters::new(offered), Parameters::new(accepted)) {
        (Some(offered), Some(accepted)) => offered.is_accepted_by(&accepted),
        _ => false,
    }
}
