/// Computes `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: base64(SHA-1(key + GUID)),
/// RFC 6455 4.2.2 item 5.4.
///
/// It proves that the server understood this handshake. It is neither a secret nor an
/// authentication.
///
/// ```
/// let accept = tower_ws_guard::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[must_use]
pub fn accept_key(key: &[u8; 24]) -> [u8; 28] {
    const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    /// The initial hash value of SHA-1 (FIPS 180-4 5.3.1).
    const INITIAL: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    /// Key and GUID are 60 bytes. The padding follows them: a one bit, zeros, and the length in
    /// bits (FIPS 180-4 5.1.1). The second block is constant, so one call compresses both.
    const BLOCKS: [[u8; 64]; 2] = {
        let mut blocks = [[0; 64]; 2];
        let mut i = 0;
        while i < GUID.len() {
            blocks[0][24 + i] = GUID[i];
            i += 1;
        }
        blocks[0][60] = 0x80;
        let length = (60_u16 * 8).to_be_bytes();
        blocks[1][62] = length[0];
        blocks[1][63] = length[1];
        blocks
    };

    let mut blocks = BLOCKS;
    blocks[0][..24].copy_from_slice(key);
    let mut state = INITIAL;
    sha1::compress(&mut state, &blocks.map(Into::into));

    // With one zero byte behind it, the digest of 20 bytes makes seven groups of three.
    let mut digest = [0; 21];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    base64(&digest)
}

/// Encodes 20 bytes and the zero byte behind them (RFC 4648 4). The engines of the `base64` crate
/// cost twice as much here.
fn base64(bytes: &[u8; 21]) -> [u8; 28] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut encoded = [0; 28];
    for (group, characters) in bytes.chunks_exact(3).zip(encoded.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (i, character) in characters.iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
        }
    }
    encoded[27] = b'=';
    encoded
}
