use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::http::accept_key;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Wrong endings of the GUID after `258EAFA5-E914-47DA-95CA-`, found in published servers.
const WRONG_ENDINGS: [&str; 15] = [
    "5AB0DC85B11",
    "5AB0DC85B111",
    "5AB0DC85B11D",
    "5AB0DC85B11F",
    "5AB53ADF711E",
    "5AB53ADF711E2",
    "5AB5DC085B11",
    "5AB5DC11B5A6",
    "5AB5DC11BE85",
    "5AB5DC85B11",
    "5AB9DC11B5AB",
    "5AB9DC85B11D",
    "C5AB5DC11B5A6",
    "C5AB5DC8500B",
    "C5AB5DC85B11",
];

/// The mistake behind a wrong `Sec-WebSocket-Accept`, if it is a known one.
pub(super) fn mistake(key: &[u8; 24], accept: &[u8]) -> Option<&'static str> {
    let guid = GUID.as_bytes();
    let digest = Sha1::digest([key, guid].concat());
    let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sha256 = Sha256::digest([key, guid].concat());
    let is_over =
        |parts: &[&[u8]]| STANDARD.encode(Sha1::digest(parts.concat())).as_bytes() == accept;
    let is_over_bytes = |bytes: Vec<u8>| is_over(&[&bytes, guid]);
    let is_over_ending = |ending: &&str| is_over(&[key, &guid[..24], ending.as_bytes()]);
    let is_behind_key = |ending: &&[u8]| is_over(&[key, ending, guid]);
    let is_behind_guid = |ending: &&[u8]| is_over(&[key, guid, ending]);

    let mistakes = [
        (accept == key, "the value is the key itself"),
        (
            accept == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "the value matches the example key of RFC 6455: the server sends a constant",
        ),
        (
            accept.eq_ignore_ascii_case(&accept_key(key)),
            "the letters of the value have the wrong case",
        ),
        (accept == STANDARD_NO_PAD.encode(digest).as_bytes(), "the padding `=` is missing"),
        (
            accept == URL_SAFE.encode(digest).as_bytes(),
            "the value is in the base64 alphabet for URLs",
        ),
        (accept.eq_ignore_ascii_case(hex.as_bytes()), "the hash is in hexadecimal, not in base64"),
        (
            accept == STANDARD.encode(&hex).as_bytes(),
            "the value is the base64 of the hexadecimal hash, not of its 20 bytes",
        ),
        (accept == STANDARD.encode(sha256).as_bytes(), "the hash is SHA-256, not SHA-1"),
        (
            is_over(&[key, GUID.to_ascii_lowercase().as_bytes()]),
            "the value was computed with the GUID in lower case",
        ),
        (WRONG_ENDINGS.iter().any(is_over_ending), "the value was computed with a misspelled GUID"),
        (is_over(&[key]), "the value was computed without the GUID"),
        (
            is_over(&[guid, key]),
            "the value was computed with the GUID in front of the key, not behind it",
        ),
        (
            STANDARD.decode(key).is_ok_and(is_over_bytes),
            "the value was computed from the decoded bytes of the key, not from its characters",
        ),
        (
            is_over(&[b" ", key, guid]) || is_over(&[key, b" ", guid]),
            "the value was computed with white space around the key",
        ),
        (
            [&b"\n"[..], b"\r\n", b"\r"].iter().any(is_behind_key),
            "the value was computed with a line end behind the key",
        ),
        (
            [&b"\n"[..], b"\r\n", b"\0"].iter().any(is_behind_guid),
            "the value was computed with a line end or a NUL behind the GUID",
        ),
    ];
    mistakes.into_iter().find(|(applies, _)| *applies).map(|(_, mistake)| mistake)
}
