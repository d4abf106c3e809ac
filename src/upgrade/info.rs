use http::HeaderValue;

use crate::{connection::Validity, extension::AgreedExtensions, telemetry::ConnectionSpan};

/// The result of the handshake for the connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionInfo {
    pub(crate) subprotocol: Option<HeaderValue>,
    pub(crate) extensions: AgreedExtensions,
    pub(crate) validity: Validity,
    pub(crate) span: ConnectionSpan,
}

/// For the connections with nothing of it, which keep none.
pub(super) static NOTHING: ConnectionInfo = ConnectionInfo {
    subprotocol: None,
    extensions: AgreedExtensions { permessage_deflate: None },
    validity: Validity::NEVER_ENDS,
    span: ConnectionSpan::NONE,
};

impl ConnectionInfo {
    pub(super) fn is_nothing(&self) -> bool {
        self.subprotocol.is_none()
            && self.extensions.permessage_deflate.is_none()
            && !self.validity.is_limited()
            && self.span.is_none()
    }

    pub(super) fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_ref().and_then(|subprotocol| subprotocol.to_str().ok())
    }
}
