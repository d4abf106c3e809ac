use http::{
    HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
        UPGRADE,
    },
};

use crate::{extension::AgreedExtensions, http::accept_key};

/// The response that completes a handshake.
pub(crate) struct HandshakeResponse {
    /// Over HTTP/2 and newer there is no key.
    pub(crate) key: Option<[u8; 24]>,
    pub(crate) subprotocol: Option<HeaderValue>,
    pub(crate) extensions: AgreedExtensions,
}

impl HandshakeResponse {
    /// RFC 6455 4.2.2 item 5, over HTTP/2 RFC 8441 5. Other headers stay, except those that
    /// describe the body.
    pub(crate) fn write_head<B>(&self, response: &mut Response<B>) {
        const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
        const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("Upgrade");

        let headers = response.headers_mut();
        if !headers.is_empty() {
            for name in [
                UPGRADE,
                CONNECTION,
                SEC_WEBSOCKET_ACCEPT,
                SEC_WEBSOCKET_EXTENSIONS,
                SEC_WEBSOCKET_PROTOCOL,
                SEC_WEBSOCKET_VERSION,
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                CONTENT_TYPE,
                TRANSFER_ENCODING,
            ] {
                headers.remove(name);
            }
        }
        if let Some(key) = &self.key {
            let accept = HeaderValue::from_bytes(&accept_key(key));
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(CONNECTION, UPGRADE_TOKEN);
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is a valid header value"));
        }
        if let Some(subprotocol) = &self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol.clone());
        }
        if let Some(deflate) = self.extensions.permessage_deflate() {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate.header_value());
        }
        *response.status_mut() = match self.key {
            Some(_) => StatusCode::SWITCHING_PROTOCOLS,
            None => StatusCode::OK,
        };
    }
}
