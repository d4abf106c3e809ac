use std::hint::black_box;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use headers::{SecWebsocketAccept, SecWebsocketKey};
use http::HeaderValue;
use sha1::{Digest, Sha1};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{Case, Operation, case, input::KEY, operation};

const GROUP: &str = "Accept key";

pub(crate) const CASES: &[Case] = &[
    case(GROUP, "nothing: the loop around each operation", || of(|key| key)),
    case(GROUP, "tower-ws-guard, `[u8; 28]`", || of(|key| tower_ws_guard::accept_key(&key))),
    case(GROUP, "tungstenite, `String`", || of(|key| derive_accept_key(&key))),
    case(GROUP, "fastwebsockets, `String` (a copy: it is private)", || {
        of(|key| fastwebsockets(&key))
    }),
    case(GROUP, "tower-ws-guard, `HeaderValue`", || of(|key| guard(&key))),
    case(GROUP, "axum, `HeaderValue` (a copy: it is private)", || of(|key| axum(&key))),
    case(GROUP, "headers, `SecWebsocketAccept`", || {
        let header = HeaderValue::from_static(std::str::from_utf8(KEY).expect("ASCII"));
        let key: Option<SecWebsocketKey> =
            headers::Header::decode(&mut std::iter::once(&header)).ok();
        let key = key.expect("a key");
        operation(move || key.clone(), SecWebsocketAccept::from)
    }),
];

fn of<O>(run: fn([u8; 24]) -> O) -> Box<dyn Operation>
where
    O: 'static,
{
    operation(|| black_box(*KEY), run)
}

fn guard(key: &[u8; 24]) -> HeaderValue {
    HeaderValue::from_bytes(&tower_ws_guard::accept_key(key)).expect("base64 is a valid value")
}

fn axum(key: &[u8]) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(fastwebsockets(key)))
        .expect("base64 is a valid value")
}

fn fastwebsockets(key: &[u8]) -> String {
    let mut sha1 = Sha1::default();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}
