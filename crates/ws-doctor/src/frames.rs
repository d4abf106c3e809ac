//! The frames behind a 101 (RFC 6455 5): enough of them to say what came.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};

/// The maximum length of the text that is kept, over all frames.
const MAX_TEXT: usize = 4096;
/// The maximum number of frames that are kept.
const MAX_EVENTS: usize = 64;
/// The number of bytes that tell a text from a frame.
const BEGIN: usize = 16;
/// The maximum length of a compressed message that is shown.
const MAX_COMPRESSED: usize = 64 * 1024;

/// A frame, or what was found in place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A text frame, and the begin of its text.
    Text(String),
    /// A binary frame of this length.
    Binary(u64),
    /// A ping and its payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, with its code and reason, if it has them.
    Close(Option<(u16, String)>),
}

/// The reason why the bytes are no frames that a client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Text where a frame should be, such as HTML.
    NotAFrame(String),
    /// Servers do not mask (RFC 6455 5.1).
    Masked,
    /// A reserved bit, without an extension that defines it (RFC 6455 5.2).
    ReservedBit(u8),
    /// Another violation.
    Violation(&'static str),
}

/// A parser that is fed with the bytes as they come.
#[derive(Debug)]
pub struct Frames {
    /// The frames, with the time since the 101.
    pub events: Vec<(Duration, Event)>,
    /// The first fault. Nothing is parsed behind it.
    pub fault: Option<Fault>,
    /// The number of bytes that came.
    pub received: u64,
    buffer: Vec<u8>,
    /// No more bytes will come.
    ended: bool,
    /// The rest of a payload that is not kept.
    skip: u64,
    text: usize,
    inflate: Option<Decompress>,
    allows_rsv1: bool,
    /// The payloads of a message so far, if its text is shown.
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    compressed: bool,
    payload: Vec<u8>,
    is_text: bool,
}

impl Frames {
    /// `deflate`: `permessage-deflate` was agreed.
    #[must_use]
    pub fn new(deflate: bool) -> Self {
        Self {
            events: Vec::new(),
            fault: None,
            received: 0,
            buffer: Vec::new(),
            ended: false,
            skip: 0,
            text: 0,
            inflate: deflate.then(|| Decompress::new(false)),
            allows_rsv1: deflate,
            message: None,
        }
    }

    /// The close frame, if it came.
    #[must_use]
    pub fn close(&self) -> Option<(Duration, Option<&(u16, String)>)> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Close(close) => Some((*at, close.as_ref())),
            _ => None,
        })
    }

    /// The text that came, in one piece.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.events.iter().filter_map(|(_, event)| match event {
            Event::Text(text) => Some(&**text),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// Whether nothing that comes is of interest.
    #[must_use]
    pub fn is_done(&self) -> bool {
        // A few more bytes of a text that is no frame make it readable.
        (self.fault.is_some() && self.received > 1024) || self.close().is_some()
    }

    /// Parses `bytes`, which came `at` this time after the 101.
    pub fn feed(&mut self, mut bytes: &[u8], at: Duration) {
        self.received += bytes.len() as u64;
        if self.fault.is_some() {
            // The begin of a text that is no frame is shown.
            let room = MAX_TEXT.saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return;
        }
        loop {
            let skipped = (bytes.len() as u64).min(self.skip);
            self.skip -= skipped;
            // Not more than `bytes.len()`, which is a usize.
            bytes = &bytes[skipped as usize..];
            if bytes.is_empty() || self.fault.is_some() || self.close().is_some() {
                return;
            }
            // A frame is parsed when its header and the part of its payload that is kept are there.
            self.buffer.extend_from_slice(bytes);
            bytes = &[];
            self.parse(at);
        }
    }

    /// Says that no more bytes will come.
    pub fn finish(&mut self, at: Duration) {
        self.ended = true;
        self.parse(at);
        if let Some(Fault::NotAFrame(text)) = &mut self.fault {
            let shown = &self.buffer[..self.buffer.len().min(MAX_TEXT)];
            *text = String::from_utf8_lossy(shown).into_owned();
        }
    }

    fn parse(&mut self, at: Duration) {
        while self.fault.is_none() && self.close().is_none() {
            match self.frame(at) {
                Some(used) => {
                    self.buffer.drain(..used);
                }
                None => break,
            }
        }
    }

    /// Parses a frame, and returns the number of bytes to remove.
    fn frame(&mut self, at: Duration) -> Option<usize> {
        if self.skip > 0 {
            let skipped = (self.buffer.len() as u64).min(self.skip);
            self.skip -= skipped;
            return (skipped > 0).then_some(skipped as usize);
        }
        let (&first, &second) = (self.buffer.first()?, self.buffer.get(1)?);
        let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0x0f);
        let is_control = opcode & 8 != 0;
        let rsv_allowed = if self.allows_rsv1 && !is_control { 4 } else { 0 };
        let fault = if rsv & !rsv_allowed != 0 {
            Some(Fault::ReservedBit(if rsv & 4 != 0 {
                1
            } else if rsv & 2 != 0 {
                2
            } else {
                3
            }))
        } else if second & 0x80 != 0 {
            Some(Fault::Masked)
        } else if matches!(opcode, 3..=7 | 11..) {
            Some(Fault::Violation("a reserved opcode (RFC 6455 5.2)"))
        } else if is_control && (!fin || second & 0x7f > 125) {
            Some(Fault::Violation(
                "a control frame in fragments, or longer than 125 bytes (RFC 6455 5.5)",
            ))
        } else {
            None
        };
        if let Some(fault) = fault {
            // More bytes tell a text from a frame.
            if self.buffer.len() < BEGIN && !self.ended {
                return None;
            }
            let is_text = is_text(&self.buffer);
            self.fault = Some(if is_text { Fault::NotAFrame(String::new()) } else { fault });
            return None;
        }
        let (length, start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?), 10),
            length => (u64::from(length), 2),
        };
        if length > i64::MAX as u64 {
            self.fault = Some(Fault::Violation("a length of more than 63 bits (RFC 6455 5.2)"));
            return None;
        }
        // Of other payloads the length is enough.
        let keep = match opcode {
            8..=10 => length,
            _ if self.message_is_kept(opcode, rsv, length) => length,
            _ => length.min(MAX_TEXT as u64),
        } as usize;
        let payload = self.buffer.get(start..start + keep)?.to_vec();
        self.skip = length - keep as u64;
        let used = start + keep;
        match opcode {
            8 => self.push(at, Event::Close(close(&payload))),
            9 => self.push(at, Event::Ping(payload)),
            10 => self.push(at, Event::Pong),
            _ => self.data(at, opcode, rsv & 4 != 0, fin, &payload, length),
        }
        Some(used)
    }

    fn message_is_kept(&self, opcode: u8, rsv: u8, length: u64) -> bool {
        let compressed = match (opcode, &self.message) {
            (0, Some(message)) => message.compressed,
            _ => rsv & 4 != 0,
        };
        compressed && length <= MAX_COMPRESSED as u64
    }

    fn data(
        &mut self,
        at: Duration,
        opcode: u8,
        compressed: bool,
        fin: bool,
        payload: &[u8],
        length: u64,
    ) {
        if opcode == 2 || (opcode == 0 && self.message.is_none()) {
            self.push(at, Event::Binary(length));
        }
        if opcode != 0 {
            self.message = Some(Message { compressed, payload: Vec::new(), is_text: opcode == 1 });
        }
        let Some(message) = &mut self.message else { return };
        if message.payload.len() + payload.len() <= MAX_COMPRESSED {
            message.payload.extend_from_slice(payload);
        }
        if !fin {
            return;
        }
        let Some(message) = self.message.take() else { return };
        let payload =
            if message.compressed { self.inflate(&message.payload) } else { message.payload };
        if message.is_text {
            let room = MAX_TEXT.saturating_sub(self.text);
            let kept = &payload[..payload.len().min(room)];
            self.text += kept.len();
            self.push(at, Event::Text(String::from_utf8_lossy(kept).into_owned()));
        }
    }

    /// RFC 7692 7.2.2.
    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(MAX_COMPRESSED);
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        if let Some(inflate) = &mut self.inflate {
            // A message that does not fit ends the shared window, so no more are shown.
            let before = inflate.total_in();
            let ok = inflate.decompress_vec(&input, &mut output, FlushDecompress::Sync).is_ok();
            if !ok || inflate.total_in() - before < input.len() as u64 {
                self.inflate = None;
            }
        }
        output
    }

    fn push(&mut self, at: Duration, event: Event) {
        if self.events.len() < MAX_EVENTS || matches!(event, Event::Close(_)) {
            self.events.push((at, event));
        }
    }
}

fn close(payload: &[u8]) -> Option<(u16, String)> {
    let [high, low, reason @ ..] = payload else { return None };
    Some((u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned()))
}

/// Whether the bytes begin as text does, and no frame of a server that means well.
fn is_text(bytes: &[u8]) -> bool {
    let begin = &bytes[..bytes.len().min(BEGIN)];
    begin.len() >= 4
        && begin.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~' | 0x80..))
        && begin.iter().filter(|byte| byte.is_ascii()).count() * 2 > begin.len()
}

/// A frame of a client: masked with zeros, which is enough for a connection without an audience.
#[must_use]
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], deflate: bool) -> (Vec<Event>, Option<Fault>) {
        let whole = {
            let mut frames = Frames::new(deflate);
            frames.feed(bytes, Duration::ZERO);
            frames.finish(Duration::ZERO);
            (frames.events.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), frames.fault)
        };
        // Byte by byte it is the same.
        let mut frames = Frames::new(deflate);
        bytes.iter().for_each(|byte| frames.feed(&[*byte], Duration::ZERO));
        frames.finish(Duration::ZERO);
        let events = frames.events.into_iter().map(|(_, event)| event).collect::<Vec<_>>();
        assert_eq!((events, frames.fault), whole);
        whole
    }

    #[test]
    fn frames_are_shown() {
        for (bytes, expected) in [
            (b"\x81\x02hi".as_slice(), vec![Event::Text("hi".into())]),
            (b"\x01\x01h\x89\x00\x80\x01i", vec![Event::Ping(vec![]), Event::Text("hi".into())]),
            (b"\x82\x03abc\x8a\x00", vec![Event::Binary(3), Event::Pong]),
            (b"\x88\x00", vec![Event::Close(None)]),
            (b"\x88\x05\x11\x33abc", vec![Event::Close(Some((4403, "abc".into())))]),
            (
                b"\x81\x7e\x00\x02hi\x88\x02\x03\xe8",
                vec![Event::Text("hi".into()), Event::Close(Some((1000, String::new())))],
            ),
        ] {
            assert_eq!(parse(bytes, false), (expected, None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn compressed_text_is_shown() {
        // "Hello" twice, with the shared window (RFC 7692 7.2.3.2).
        let bytes = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
        let hello = || Event::Text("Hello".into());
        assert_eq!(parse(bytes, true), (vec![hello(), hello()], None));
        assert_eq!(parse(bytes, false).1, Some(Fault::ReservedBit(1)));
    }

    #[test]
    fn what_is_no_frame_is_a_fault() {
        for (bytes, fault) in [
            (b"\x81\x82\x00\x00\x00\x00hi".as_slice(), Fault::Masked),
            (b"\xa1\x02hi", Fault::ReservedBit(2)),
            (b"\x83\x00", Fault::Violation("a reserved opcode (RFC 6455 5.2)")),
            (b"<html>no</html>", Fault::NotAFrame("<html>no</html>".into())),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                Fault::NotAFrame("HTTP/1.1 400 Bad Request\r\n".into()),
            ),
        ] {
            assert_eq!(parse(bytes, false), (vec![], Some(fault)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut frames = Frames::new(false);
        frames
            .feed(&[b"\x82\x7f".as_slice(), &(1_u64 << 40).to_be_bytes()].concat(), Duration::ZERO);
        for _ in 0..1000 {
            frames.feed(&[0; 65_536], Duration::ZERO);
        }
        assert!(frames.buffer.capacity() < 1 << 20, "{}", frames.buffer.capacity());
        assert_eq!(frames.events.len(), 1);
        let mut frames = Frames::new(false);
        for _ in 0..10_000 {
            frames.feed(b"\x81\x03abc", Duration::ZERO);
        }
        assert_eq!((frames.events.len(), frames.text().len() < 8192), (MAX_EVENTS, true));
    }
}
