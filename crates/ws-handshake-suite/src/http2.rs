//! HTTP/2 by frames of our own (RFC 9113), because no library sends malformed requests.

use std::mem;

use loona_hpack::{Decoder, Encoder};

use crate::{
    case::Pace,
    connection::{Connection, MAX_RESPONSE, Progress},
    http1::{Answer, Response},
    target::Target,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_FRAME: usize = 16_384;
const MAX_BLOCK: usize = 64 * 1024;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;

const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// A connection on which one request is sent.
pub(crate) struct Http2 {
    connection: Connection,
    decoder: Decoder<'static>,
    /// The value of SETTINGS_ENABLE_CONNECT_PROTOCOL.
    pub(crate) connect_protocol: Option<u32>,
    /// What came in DATA frames.
    pub(crate) data: Vec<u8>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The payload without padding and priority. `None` if it is malformed.
    fn content(&self) -> Option<&[u8]> {
        let mut content = &*self.payload;
        if self.flags & PADDED != 0 {
            let (&padding, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(padding.into())?)?;
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            content = content.get(5..)?;
        }
        Some(content)
    }
}

impl Http2 {
    /// Connects, and reads the server's settings. The error says why there is no HTTP/2.
    pub(crate) fn open(target: &Target) -> Result<Self, String> {
        let connection = Connection::open(target, b"h2").map_err(|error| error.to_string())?;
        if target.secure && connection.alpn.as_deref() != Some(b"h2") {
            return Err("the server does not select h2 by ALPN".into());
        }
        let mut decoder = Decoder::new();
        decoder.set_max_table_size(4096);
        let mut http2 = Self { connection, decoder, connect_protocol: None, data: Vec::new() };
        let preface = [PREFACE, &Frame::bytes(SETTINGS, 0, 0, &[])].concat();
        http2.connection.send(&preface, Pace::Whole);
        if !(http2.connection.fill() == Progress::Bytes && http2.is_http2()) {
            return Err("the server does not speak HTTP/2".into());
        }
        http2.settle().ok_or("the server does not speak HTTP/2")?;
        Ok(http2)
    }

    /// Whether what came begins like a SETTINGS frame.
    fn is_http2(&self) -> bool {
        !self.connection.buffer.starts_with(b"HTTP")
    }

    /// Handles all frames up to the acknowledgement of our settings, which comes behind the server's.
    fn settle(&mut self) -> Option<()> {
        loop {
            let frame = self.frame().ok()?;
            if frame.kind == SETTINGS && frame.flags & ACK != 0 {
                return Some(());
            }
            self.handle(&frame);
        }
    }

    /// Sends a request and reads the head of the response.
    pub(crate) fn exchange(&mut self, headers: &[(Vec<u8>, Vec<u8>)]) -> Answer {
        let mut encoder = Encoder::new();
        let block = encoder.encode(headers.iter().map(|(name, value)| (&**name, &**value)));
        self.connection.send(&Frame::bytes(HEADERS, END_HEADERS, 1, &block), Pace::Whole);
        let mut block = Vec::new();
        loop {
            let frame = match self.frame() {
                Ok(frame) => frame,
                Err(Progress::Timeout) => return Answer::Silent,
                Err(_) => return Answer::Closed,
            };
            match frame.kind {
                HEADERS | CONTINUATION if frame.stream == 1 => {
                    let Some(content) = frame.content() else {
                        return Answer::Garbage("a malformed frame".into());
                    };
                    block.extend(content);
                    if block.len() > MAX_BLOCK {
                        return Answer::Garbage("too many header fields".into());
                    }
                    if frame.flags & END_HEADERS == 0 {
                        continue;
                    }
                    let Some(headers) = self.decode(&mem::take(&mut block)) else {
                        return Answer::Garbage("a malformed block of header fields".into());
                    };
                    let response = Response::http2(headers);
                    if response.status / 100 != 1 || response.status == 101 {
                        return Answer::Response(response);
                    }
                }
                RST_STREAM if frame.stream == 1 => return Answer::Closed,
                GOAWAY => return Answer::Closed,
                _ => self.handle(&frame),
            }
        }
    }

    /// Decodes header fields, and leaves out what is too much: a short block can expand to very many.
    fn decode(&mut self, block: &[u8]) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
        let (mut headers, mut length) = (Vec::new(), 0);
        let decoded = self.decoder.decode_with_cb(block, |name, value| {
            length += name.len() + value.len();
            if length <= MAX_BLOCK {
                headers.push((text(&name), text(&value)));
            }
        });
        decoded.ok().map(|()| headers)
    }

    pub(crate) fn send(&mut self, data: &[u8]) {
        self.connection.send(&Frame::bytes(DATA, 0, 1, data), Pace::Whole);
    }

    /// Waits for more data.
    pub(crate) fn fill(&mut self) -> Progress {
        match self.frame() {
            Ok(frame) if frame.kind == RST_STREAM || frame.kind == GOAWAY => Progress::End,
            Ok(_) if self.data.len() > MAX_RESPONSE => Progress::End,
            Ok(frame) => {
                self.handle(&frame);
                Progress::Bytes
            }
            Err(progress) => progress,
        }
    }

    fn handle(&mut self, frame: &Frame) {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = [setting[2], setting[3], setting[4], setting[5]];
                    if id == ENABLE_CONNECT_PROTOCOL {
                        self.connect_protocol = Some(u32::from_be_bytes(value));
                    }
                }
                self.reply(SETTINGS, &[]);
            }
            PING if frame.flags & ACK == 0 => {
                self.reply(PING, &frame.payload);
            }
            DATA => self.data.extend(frame.content().unwrap_or_default()),
            _ => {}
        }
    }

    /// Acknowledges, within the timeout that runs already: a server cannot prolong it.
    fn reply(&mut self, kind: u8, payload: &[u8]) {
        drop(self.connection.reply(&Frame::bytes(kind, ACK, 0, payload)));
    }

    fn frame(&mut self) -> Result<Frame, Progress> {
        loop {
            let buffer = &mut self.connection.buffer;
            if let Some((&[a, b, c, kind, flags, s, t, u, v], rest)) = buffer.split_first_chunk() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if length > MAX_FRAME {
                    return Err(Progress::End);
                }
                if let Some(payload) = rest.get(..length) {
                    let stream = u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff;
                    let frame = Frame { kind, flags, stream, payload: payload.to_vec() };
                    buffer.drain(..9 + length);
                    return Ok(frame);
                }
            }
            match self.connection.fill() {
                Progress::Bytes => {}
                ended => return Err(ended),
            }
        }
    }
}
