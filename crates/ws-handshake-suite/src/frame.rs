//! As much of the WebSocket framing as a Ping needs (RFC 6455 5.2).

pub(crate) const PING: u8 = 0x9;
pub(crate) const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;
/// What a Ping holds.
pub(crate) const PAYLOAD: &[u8] = b"ws";

/// Writes a short frame of a client.
pub(crate) fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let length = u8::try_from(payload.len()).unwrap_or(125).min(125);
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x80 | opcode, 0x80 | length].into_iter().chain(MASK).chain(masked).collect()
}

/// What was found in the bytes that a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Pong,
    /// There may be one in the bytes to come.
    More,
    Close,
    /// These bytes are not frames of a server.
    Invalid,
}

/// Looks for the Pong to our Ping, behind any other frames.
pub(crate) fn find_pong(mut bytes: &[u8]) -> Found {
    loop {
        let &[first, length, ref rest @ ..] = bytes else { return Found::More };
        // Reserved bits are those of extensions, and none is accepted where a Pong is awaited.
        if first & 0x70 != 0 || length & 0x80 != 0 || !matches!(first & 0xF, 0..=2 | 8..=0xA) {
            return Found::Invalid;
        }
        let (length, rest) = match length {
            126 => match rest.split_first_chunk() {
                Some((&length, rest)) => (u64::from(u16::from_be_bytes(length)), rest),
                None => return Found::More,
            },
            127 => match rest.split_first_chunk() {
                Some((&length, rest)) => (u64::from_be_bytes(length), rest),
                None => return Found::More,
            },
            length => (length.into(), rest),
        };
        let Some((payload, rest)) =
            usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
        else {
            return Found::More;
        };
        match first & 0xF {
            PONG if payload == PAYLOAD => return Found::Pong,
            CLOSE => return Found::Close,
            _ => bytes = rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_behind_other_frames_is_found() {
        let bytes = b"\x81\x02hi\x82\x7e\x00\x01x\x8a\x01y\x8a\x02ws";
        assert_eq!(find_pong(bytes), Found::Pong);
        for length in 0..bytes.len() {
            assert_eq!(find_pong(&bytes[..length]), Found::More, "{length}");
        }
    }

    #[test]
    fn other_bytes_are_not_frames() {
        assert_eq!(find_pong(b"HTTP/1.1 400"), Found::Invalid);
        assert_eq!(find_pong(&client(PONG, PAYLOAD)), Found::Invalid);
        assert_eq!(find_pong(b"\x88\x02\x03\xe8"), Found::Close);
    }
}
