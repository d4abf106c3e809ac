//! The extensions of a connection: who negotiates them, and how a codec gets them.
//!
//! A client offers extensions in `Sec-WebSocket-Extensions`, and the 101 names those that the
//! server agrees to (RFC 6455 9.1). There is one in use: `permessage-deflate`, the compression of
//! messages (RFC 7692). Browsers, Node and Python offer it in each handshake.
//!
//! **Off by default.** A layer agrees to nothing unless it has a [`PermessageDeflate`]. Compression
//! costs memory for each connection and time for each message. It can also leak a secret: if a
//! message holds both a secret and a text that an attacker chooses, the length of the message tells
//! whether they are alike (the attacks CRIME and BREACH).
//!
//! # With a layer that completes the handshake
//!
//! [`GuardLayer::extensions`](crate::GuardLayer::extensions), or
//! [`ResponderLayer::extensions`](crate::ResponderLayer::extensions), negotiates and responds.
//! [`Upgraded::extensions`](crate::Upgraded::extensions) has what was agreed, for the codec:
//!
//! ```
//! use tower_ws_guard::{AllowOrigin, GuardLayer, PermessageDeflate};
//! use yawc::{CompressionLevel, Options, Role, WebSocket};
//!
//! # fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let guard = GuardLayer::new(AllowOrigin::same_origin())
//!     .extensions(PermessageDeflate::new().server_window_bits(9..=15)?)
//!     .on_upgraded(async |socket| {
//!         let agreed = socket.extensions().permessage_deflate().map(|agreed| agreed.to_string());
//!         let options = Options::default()
//!             .with_compression_level(CompressionLevel::fast())
//!             .with_compression_threshold(1)
//!             .with_max_payload_read(1 << 20);
//!         let socket = WebSocket::from_stream_with_extensions(
//!             socket,
//!             Role::Server,
//!             agreed.as_deref(),
//!             options,
//!         );
//!         # let _ = socket;
//!     });
//! # let _ = guard;
//! # Ok(())
//! # }
//! ```
//!
//! # With a handler that completes the handshake
//!
//! A guard that forwards leaves the response to the handler, because only the handler knows its
//! codec. If the guard has a [`PermessageDeflate`], the handler sees one offer, which is what the
//! guard agrees to, or none, and the guard adds the limits of the client's part to the response if
//! the handler leaves them out. If the guard has none, the handler sees the header as it came.
//!
//! A browser fails a connection whose 101 names an extension that it did not offer, or in a form
//! that it did not offer. Such a response becomes a 500
//! [`extension-not-offered`](crate::RejectionKind::ExtensionNotOffered), and the log says what is
//! wrong. That holds for each layer that parses handshakes, with and without a policy.
//!
//! In a stack, give the policy to the layer that completes the handshake: a layer outside of it
//! only narrows the offer. A handler that accepts a [`PendingUpgrade`](crate::PendingUpgrade)
//! leaves the header to the layer, and may not set it.
//!
//! # Malformed offers
//!
//! RFC 6455 9.1: a server that negotiates extensions fails a connection whose header breaks the
//! grammar. Such a handshake is rejected with
//! [`extension-invalid`](crate::RejectionKind::ExtensionInvalid). A layer without a policy does not
//! read the header, unless the handler's response names an extension. A well-formed offer that
//! cannot be agreed to is declined, and the handshake goes on without it: an unknown extension or
//! parameter, a parameter twice, a window of 7 or 16 bits, more than 32 extensions.
//!
//! # Codecs
//!
//! | codec | compression | the policy | the codec's part |
//! |---|---|---|---|
//! | yawc, feature `zlib` | yes | `.server_window_bits(9..=15)?` | `WebSocket::from_stream_with_extensions` with the text |
//! | yawc without `zlib` | yes | `PermessageDeflate::new()` | the same; it compresses with 15 bits always |
//! | ratchet, feature `deflate` | yes | `.server_window_bits(9..=15)?` | `WebSocket::from_upgraded` with a `Deflate` |
//! | soketto, feature `deflate` | yes | `.server_window_bits(9..=15)?` and `.client_no_context_takeover()`, because it begins each message anew | `Builder::add_extensions` with a `Deflate` |
//! | tungstenite, axum's `ws`, fastwebsockets, tokio-websockets | no | none: a client that was promised compression would send what they cannot read | |
//!
//! The examples `codec_yawc`, `codec_ratchet` and `codec_soketto` are complete.
//!
//! - yawc 0.5 with `zlib` never finishes the second empty message that it compresses, and occupies
//!   its thread. `Options::with_compression_threshold(1)` leaves empty messages as they are.
//! - ratchet begins each message with an empty window, unless
//!   `DeflateConfig::accept_no_context_takeover` is `false`. Set it to
//!   [`AgreedDeflate::server_no_context_takeover`]. After the first compressed message, ratchet 1.2
//!   ends the connection at a message of several frames that is not compressed.
//! - ratchet and soketto do not check that text is UTF-8.
//!
//! # Memory
//!
//! A connection that keeps its windows from one message to the next needs memory while it is idle:
//! with yawc 340 KiB after a message of 1 KiB in each direction. If no side keeps one, and the
//! codec shares its state between connections, it needs almost none: 5 KiB in the example server,
//! less than the 7 KiB without compression. That takes both settings of the policy,
//! [`server_no_context_takeover`](PermessageDeflate::server_no_context_takeover) and
//! [`client_no_context_takeover`](PermessageDeflate::client_no_context_takeover), and a
//! `yawc::DeflatePool`. Smaller windows save less: 217 KiB with 9 bits.
//!
//! # Decompression bombs
//!
//! A message of 1 MB can decompress to 1 GB: deflate's ratio is up to 1032 to 1. Only the codec can
//! bound that.
//!
//! | codec | what bounds the decompressed size |
//! |---|---|
//! | yawc | `Options::with_max_payload_read` for a frame, before and while it is decompressed; `with_max_read_buffer` for a message of several frames, by default twice as much |
//! | ratchet | nothing: `WebSocketConfig::max_message_size` bounds what is received, so a limit of 64 KiB bounds the decompressed size at 68 MB |
//! | soketto | nothing: `Builder::set_max_message_size` and `set_max_frame_size` bound what is received, as above |
//!
//! Such a limit holds for messages that are not compressed, too. A client may send those after it
//! has agreed to compress.

mod deflate;
mod grammar;
mod offer;
mod response;

#[cfg(feature = "client")]
pub(crate) use self::response::{Fault, Malformed, read_response};
pub(crate) use self::{deflate::Agreement, response::check_response};
pub use self::{
    deflate::{AgreedDeflate, PermessageDeflate},
    grammar::InvalidExtensionOffer,
    offer::{ExtensionOffer, OfferedExtension},
};

/// The extensions that client and server agreed to. By default there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgreedExtensions {
    pub(crate) permessage_deflate: Option<AgreedDeflate>,
}

impl AgreedExtensions {
    /// The parameters of `permessage-deflate`, if messages are compressed.
    #[must_use]
    pub const fn permessage_deflate(&self) -> Option<AgreedDeflate> {
        self.permessage_deflate
    }
}
