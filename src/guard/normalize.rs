//! The request as inner services see it. No handler behind a guard can read the handshake
//! differently.

use http::{
    HeaderMap, HeaderValue,
    header::{
        CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};

use crate::{handshake::AlreadyNormalized, http::field::set_header};

/// The offer of subprotocols that inner services see.
pub(super) enum Offer {
    Unchanged,
    /// The selected subprotocol, or what is left without credentials.
    Only(Option<HeaderValue>),
}

/// Writes the one form of each field. Over HTTP/2 there is no `key`, and a WebTransport session has
/// none of the fields.
pub(super) fn normalize(
    headers: &mut HeaderMap,
    normalized: Option<AlreadyNormalized>,
    key: Option<[u8; 24]>,
    offer: Offer,
) {
    let Some(normalized) = normalized else {
        for name in [
            UPGRADE,
            CONNECTION,
            SEC_WEBSOCKET_KEY,
            SEC_WEBSOCKET_VERSION,
            SEC_WEBSOCKET_PROTOCOL,
            SEC_WEBSOCKET_EXTENSIONS,
        ] {
            headers.remove(name);
        }
        return;
    };
    if let Offer::Only(subprotocols) = offer {
        set_header(headers, SEC_WEBSOCKET_PROTOCOL, subprotocols);
    } else if !normalized.subprotocols {
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
    }
    if !normalized.version {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    let Some(key) = key else {
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY] {
            headers.remove(name);
        }
        return;
    };
    if !normalized.upgrade {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if !normalized.connection {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if !normalized.key {
        set_header(headers, SEC_WEBSOCKET_KEY, HeaderValue::from_bytes(&key).ok());
    }
}
