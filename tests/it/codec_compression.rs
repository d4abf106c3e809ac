//! The codecs that compress messages, with frames that are made here.

use std::{fmt, net::SocketAddr, sync::LazyLock};

use axum::Router;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    codecs::{Io, TIME, Transport, codec_ratchet, codec_soketto, codec_yawc, connect_http2},
    common::{handshake, send, serve_axum},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Codec {
    Yawc,
    Ratchet,
    Soketto,
}

const CODECS: [Codec; 3] = [Codec::Yawc, Codec::Ratchet, Codec::Soketto];
const TRANSPORTS: [Transport; 2] = [Transport::Http1, Transport::Http2];

impl Codec {
    fn app(self) -> Router {
        let app = match self {
            Self::Yawc => codec_yawc::app(),
            Self::Ratchet => codec_ratchet::app(),
            Self::Soketto => codec_soketto::app(),
        };
        app.unwrap()
    }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

const TRAILER: [u8; 4] = [0, 0, 0xff, 0xff];

/// A client that keeps to what was agreed, and expands no more than that allows.
struct Client {
    io: Box<dyn Io>,
    agreed: Option<String>,
    deflate: Compress,
    inflate: Decompress,
}

impl Client {
    async fn open(address: SocketAddr, transport: Transport, offer: Option<&str>) -> Self {
        let origin = format!("http://{address}");
        let (io, agreed) = match transport {
            Transport::Http1 => {
                let request = handshake().with("Host", address.to_string()).with("Origin", &origin);
                let request = offer
                    .into_iter()
                    .fold(request, |request, offer| request.and("Sec-WebSocket-Extensions", offer));
                let response = send(address, &request.bytes()).await;
                assert_eq!(response.status, 101);
                let agreed = response.all("sec-websocket-extensions").concat();
                (Box::new(response.stream) as Box<dyn Io>, agreed)
            }
            Transport::Http2 => {
                let mut headers = vec![("origin", &*origin)];
                headers.extend(offer.map(|offer| ("sec-websocket-extensions", offer)));
                let stream = TcpStream::connect(address).await.unwrap();
                let (io, headers) = connect_http2(stream, address, &headers).await.unwrap();
                let lines = headers.get_all("sec-websocket-extensions").iter();
                (io, lines.map(|line| line.to_str().unwrap()).collect())
            }
        };
        let bits = |name| {
            let (_, rest) = agreed.split_once(name)?;
            rest.strip_prefix('=')?.split(';').next()?.parse().ok()
        };
        let client_bits = bits("client_max_window_bits").unwrap_or(15);
        let server_bits = bits("server_max_window_bits").unwrap_or(15);
        Self {
            io,
            deflate: Compress::new_with_window_bits(Compression::fast(), false, client_bits),
            inflate: Decompress::new_with_window_bits(false, server_bits),
            agreed: (!agreed.is_empty()).then_some(agreed),
        }
    }

    fn agreed(&self, parameter: &str) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.contains(parameter))
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if self.agreed("client_no_context_takeover") {
            self.deflate.reset();
        }
        let mut compressed = compress(&mut self.deflate, message, FlushCompress::Sync);
        compressed.truncate(compressed.len() - TRAILER.len());
        compressed
    }

    fn expand(&mut self, compressed: &[u8]) -> Vec<u8> {
        if self.agreed("server_no_context_takeover") {
            self.inflate.reset(false);
        }
        let compressed = [compressed, &TRAILER].concat();
        let (mut expanded, start) = (Vec::new(), self.inflate.total_in());
        while self.inflate.total_in() - start < compressed.len() as u64 {
            let read = (self.inflate.total_in() - start) as usize;
            expanded.reserve(1 << 20);
            self.inflate
                .decompress_vec(&compressed[read..], &mut expanded, FlushDecompress::Sync)
                .unwrap();
        }
        expanded
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        self.io.write_all(&frame(first, payload)).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn send_compressed(&mut self, opcode: u8, message: &[u8]) {
        let compressed = self.compress(message);
        self.send(FIN | RSV1 | opcode, &compressed).await;
    }

    /// The first byte and the payload of a frame.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let first = self.io.read_u8().await.unwrap();
        let length = match self.io.read_u8().await.unwrap() {
            126 => self.io.read_u16().await.unwrap().into(),
            127 => self.io.read_u64().await.unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    /// Asserts that the same message comes back; returns its length on the wire if compressed.
    async fn assert_echo(
        &mut self,
        opcode: u8,
        message: &[u8],
        case: &(dyn fmt::Debug + Sync),
    ) -> Option<usize> {
        let (first, payload) = self.receive().await;
        assert_eq!(first & !RSV1, FIN | opcode, "{case:?}");
        let is_compressed = first & RSV1 != 0;
        let length = payload.len();
        let payload = if is_compressed { self.expand(&payload) } else { payload };
        assert!(
            payload == message,
            "{case:?}: {} other bytes came back for {}",
            payload.len(),
            message.len()
        );
        is_compressed.then_some(length)
    }

    async fn close(mut self, case: &(dyn fmt::Debug + Sync)) {
        self.send(FIN | CLOSE, &1000_u16.to_be_bytes()).await;
        let (first, payload) = self.receive().await;
        assert_eq!((first, &payload[..2]), (FIN | CLOSE, &1000_u16.to_be_bytes()[..]), "{case:?}");
        assert_eq!(self.io.read(&mut [0]).await.unwrap(), 0, "{case:?}: the server ends it");
    }
}

fn compress(deflate: &mut Compress, message: &[u8], flush: FlushCompress) -> Vec<u8> {
    let (mut compressed, start) = (Vec::new(), deflate.total_in());
    loop {
        let read = (deflate.total_in() - start) as usize;
        if read == message.len() && compressed.ends_with(&TRAILER) {
            return compressed;
        }
        compressed.reserve(1 << 16);
        deflate.compress_vec(&message[read..], &mut compressed, flush).unwrap();
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ ..126 => vec![0x80 | length as u8],
        length @ ..0x1_0000 => [&[0x80 | 126], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0x80 | 127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first].into_iter().chain(length).chain(mask).chain(masked).collect()
}

/// What a window of 9 bits compresses, too.
static TEXTS: LazyLock<String> =
    LazyLock::new(|| (0..4_000).map(|line| format!("grüezi {line} ☃\n")).collect());

/// What only a window of more than 12 bits compresses.
static BLOCKS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(7);
    let block: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
    block.repeat(20)
});

async fn assert_compresses(codec: Codec, transport: Transport, offer: &str, expected: &str) {
    let case = (codec, transport, offer);
    let address = serve_axum(codec.app()).await;
    let mut client = Client::open(address, transport, Some(offer)).await;
    assert_eq!(client.agreed.as_deref(), Some(expected), "{case:?}");

    client.send_compressed(TEXT, TEXTS.as_bytes()).await;
    let length = client.assert_echo(TEXT, TEXTS.as_bytes(), &case).await;
    assert!(length.is_some_and(|length| length < TEXTS.len() / 2), "{case:?}: {length:?}");
    if !client.agreed("client_max_window_bits") {
        client.send_compressed(BINARY, &BLOCKS).await;
        let length = client.assert_echo(BINARY, &BLOCKS, &case).await.unwrap();
        let can_compress =
            !(9..=12).any(|bits| client.agreed(&format!("server_max_window_bits={bits}")));
        assert_eq!(length < BLOCKS.len() / 2, can_compress, "{case:?}: {length}");
    }

    // Nothing in it is alike, so the second one is short only if the window was kept.
    let again = &BLOCKS[..200];
    let mut lengths = [0; 2];
    for length in &mut lengths {
        client.send_compressed(BINARY, again).await;
        *length = client.assert_echo(BINARY, again, &case).await.unwrap();
    }
    let keeps_window = codec != Codec::Soketto && !client.agreed("server_no_context_takeover");
    assert_eq!(lengths[1] < 100, keeps_window, "{case:?}: {lengths:?}");

    // The client need not compress each message.
    client.send(FIN | TEXT, b"not compressed").await;
    assert!(client.assert_echo(TEXT, b"not compressed", &case).await.is_some(), "{case:?}");
    for _ in 0..2 {
        client.send(FIN | TEXT, b"").await;
        client.assert_echo(TEXT, b"", &case).await;
        client.send(FIN | RSV1 | BINARY, &[0]).await;
        client.assert_echo(BINARY, b"", &case).await;
    }

    // In fragments, with a ping between them.
    let compressed = client.compress(TEXTS.as_bytes());
    let (first, rest) = compressed.split_at(compressed.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    client.send(RSV1 | TEXT, first).await;
    client.send(FIN | PING, b"still there?").await;
    client.send(CONTINUATION, second).await;
    client.send(FIN | CONTINUATION, third).await;
    assert_eq!(client.receive().await, (FIN | PONG, b"still there?".to_vec()), "{case:?}");
    assert!(client.assert_echo(TEXT, TEXTS.as_bytes(), &case).await.is_some(), "{case:?}");

    // In fragments that are not compressed.
    client.send(TEXT, b"not ").await;
    client.send(FIN | CONTINUATION, b"compressed").await;
    if codec == Codec::Ratchet {
        // ratchet 1.2 takes them for compressed once a message was.
        return assert_ends(client, &case).await;
    }
    assert!(client.assert_echo(TEXT, b"not compressed", &case).await.is_some(), "{case:?}");
    client.close(&case).await;
}

#[tokio::test]
async fn codecs_compress_as_agreed() {
    for codec in CODECS {
        let always = if codec == Codec::Soketto { "; client_no_context_takeover" } else { "" };
        let mut cases = vec![
            ("permessage-deflate".to_owned(), format!("permessage-deflate{always}")),
            (
                "permessage-deflate; client_max_window_bits".to_owned(),
                format!("permessage-deflate{always}"),
            ),
            (
                "permessage-deflate; server_no_context_takeover".to_owned(),
                format!("permessage-deflate; server_no_context_takeover{always}"),
            ),
            (
                "permessage-deflate; client_no_context_takeover".to_owned(),
                "permessage-deflate; client_no_context_takeover".to_owned(),
            ),
            // The first one is declined.
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate".to_owned(),
                format!("permessage-deflate{always}"),
            ),
        ];
        for bits in 9..=15 {
            let limit = format!("; server_max_window_bits={bits}");
            cases.push((
                format!("permessage-deflate{limit}"),
                format!("permessage-deflate{always}{limit}"),
            ));
            let both = "; server_no_context_takeover; client_no_context_takeover";
            let client =
                if bits < 15 { format!("; client_max_window_bits={bits}") } else { String::new() };
            cases.push((
                format!("permessage-deflate; client_max_window_bits={bits}{limit}{both}"),
                format!("permessage-deflate{both}{limit}{client}"),
            ));
        }
        // At the same time, because of the delays of TCP.
        let mut tasks = JoinSet::new();
        for (offer, expected) in cases {
            for transport in TRANSPORTS {
                let (offer, expected) = (offer.clone(), expected.clone());
                tasks.spawn(timeout(TIME, async move {
                    assert_compresses(codec, transport, &offer, &expected).await;
                }));
            }
        }
        while let Some(end) = tasks.join_next().await {
            end.unwrap().unwrap_or_else(|_| panic!("{codec:?}: no end in time"));
        }
    }
}

#[tokio::test]
async fn clients_that_do_not_compress_are_served() {
    for codec in CODECS {
        let address = serve_axum(codec.app()).await;
        for offer in [
            None,
            Some("permessage-deflate; server_max_window_bits=8"),
            Some("x-webkit-deflate-frame"),
        ] {
            for transport in TRANSPORTS {
                let case = (codec, transport, offer);
                let mut client = Client::open(address, transport, offer).await;
                assert_eq!(client.agreed, None, "{case:?}");
                for (opcode, message) in [(TEXT, TEXTS.as_bytes()), (BINARY, &BLOCKS)] {
                    client.send(FIN | opcode, message).await;
                    assert_eq!(client.assert_echo(opcode, message, &case).await, None, "{case:?}");
                }
                client.close(&case).await;

                // RSV1 has no meaning.
                let mut client = Client::open(address, transport, offer).await;
                client.send_compressed(TEXT, b"not agreed").await;
                assert_ends(client, &case).await;
            }
        }
    }
}

/// Asserts that nothing comes, but perhaps a close frame, and that the server ends the connection.
async fn assert_ends(mut client: Client, case: &(dyn fmt::Debug + Sync)) {
    let mut received = Vec::new();
    let end = timeout(TIME, client.io.read_to_end(&mut received)).await;
    // It may be a reset.
    let _ = end.unwrap_or_else(|_| panic!("{case:?}: still open"));
    assert!(
        received.is_empty() || received[0] == FIN | CLOSE && received.len() < 127,
        "{case:?}: {}",
        received[..received.len().min(127)].escape_ascii()
    );
}

/// Compresses to a thousandth.
fn bomb(mib: usize) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::best(), false);
    let block = compress(&mut deflate, &vec![0; 8 << 20], FlushCompress::Full);
    // After a full flush the next block does not look back.
    block.repeat(mib / 8)
}

#[tokio::test]
async fn bombs_end_the_connection() {
    let large = bomb(1024);
    assert!((1 << 19..2 << 20).contains(&large.len()), "{}", large.len());
    // Less than each codec accepts.
    let small = bomb(48);
    assert!(small.len() < 60_000, "{}", small.len());
    let whole = |bomb: &[u8]| frame(FIN | RSV1 | BINARY, bomb);
    let fragments = |bomb: &[u8]| {
        let mut frames = frame(RSV1 | BINARY, &bomb[..8192]);
        for fragment in bomb[8192..].chunks(8192) {
            frames.extend(frame(CONTINUATION, fragment));
        }
        frames.extend(frame(FIN | CONTINUATION, b""));
        frames
    };
    for codec in CODECS {
        let address = serve_axum(codec.app()).await;
        for transport in TRANSPORTS {
            for (name, bytes) in [
                ("1 GiB", whole(&large)),
                ("1 GiB in fragments", fragments(&large)),
                ("48 MiB", whole(&small)),
                ("48 MiB in fragments", fragments(&small)),
            ] {
                let case = (codec, transport, name);
                let mut client = Client::open(address, transport, Some("permessage-deflate")).await;
                // The server may end the connection before it has all.
                let _ = client.io.write_all(&bytes).await;
                let _ = client.io.flush().await;
                assert_ends(client, &case).await;
            }
        }
    }
}
