//! The body of a response: framing, content codings, and text for a terminal.

use std::io::Read;

use crate::response::Head;

/// The maximum number of bytes that are read and decoded.
pub const MAX_BODY: usize = 64 * 1024;

/// The bytes of a body so far, without its framing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Decoded, as far as it came.
    pub bytes: Vec<u8>,
    /// Whether it ended as its framing says. A body that ends with the connection never does.
    pub complete: bool,
}

/// Whether a response with this head has a body (RFC 9112 6.3).
pub(crate) fn has_body(head: &Head) -> bool {
    !matches!(head.status, 100..=199 | 204 | 304)
}

/// Takes the body out of its framing. An invalid framing leaves the bytes as they are.
#[must_use]
pub fn unframe(head: &Head, bytes: &[u8]) -> Body {
    let coding = head.text("transfer-encoding").unwrap_or_default();
    if coding.to_ascii_lowercase().ends_with("chunked") {
        return unchunk(bytes);
    }
    let length = head.text("content-length").and_then(|length| length.parse::<usize>().ok());
    match length {
        Some(length) if length <= bytes.len() => {
            Body { bytes: bytes[..length].to_vec(), complete: true }
        }
        _ => Body { bytes: bytes.to_vec(), complete: false },
    }
}

fn unchunk(bytes: &[u8]) -> Body {
    let mut body = Body::default();
    let mut rest = bytes;
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(rest) {
        if length == 0 {
            body.complete = true;
            break;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let data = &rest[start..];
        body.bytes.extend_from_slice(&data[..length.min(data.len())]);
        match length.checked_add(2).and_then(|end| data.get(end..)) {
            Some(next) => rest = next,
            None => break,
        }
    }
    if body.bytes.is_empty() && !body.complete {
        body.bytes = bytes.to_vec();
    }
    body
}

/// Undoes `Content-Encoding`, as far as the bytes go.
#[must_use]
pub fn decode(head: &Head, body: &[u8]) -> Vec<u8> {
    let codings = head.text("content-encoding").unwrap_or_default().to_ascii_lowercase();
    let mut bytes = body.to_vec();
    for coding in codings.rsplit(',').map(str::trim) {
        bytes = match coding {
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(&*bytes)),
            // With the zlib format, or without it, as some servers send.
            "deflate" if bytes.first().is_some_and(|first| first & 0x0f == 8) => {
                read(flate2::read::ZlibDecoder::new(&*bytes))
            }
            "deflate" => read(flate2::read::DeflateDecoder::new(&*bytes)),
            "br" => read(brotli_decompressor::Decompressor::new(&*bytes, 4096)),
            "zstd" => match ruzstd::decoding::StreamingDecoder::new(&*bytes) {
                Ok(decoder) => read(decoder),
                Err(_) => bytes,
            },
            _ => bytes,
        };
    }
    bytes
}

/// What can be decoded, up to [`MAX_BODY`].
fn read(mut decoder: impl Read) -> Vec<u8> {
    let mut output = Vec::new();
    let mut chunk = [0; 4096];
    while output.len() < MAX_BODY {
        match decoder.read(&mut chunk) {
            Ok(length @ 1..) => output.extend_from_slice(&chunk[..length]),
            Ok(0) | Err(_) => break,
        }
    }
    output.truncate(MAX_BODY);
    output
}

/// The text of a body: for HTML without tags, scripts and styles.
#[must_use]
pub fn text(head: &Head, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let kind = head.text("content-type").unwrap_or_default().to_ascii_lowercase();
    let begin = text.trim_start().get(..15).unwrap_or_default().to_ascii_lowercase();
    let text =
        if kind.contains("html") || begin.starts_with("<!doctype") || begin.starts_with("<html") {
            strip_tags(&text)
        } else {
            text.into_owned()
        };
    let lines = text.lines().map(str::trim_end);
    let mut blank = true;
    let lines = lines.filter(|line| {
        let is_blank = line.trim().is_empty();
        let keep = !(is_blank && blank);
        blank = is_blank;
        keep
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn strip_tags(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let name = rest[1..].split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let end = match &*name {
            "script" | "style" | "svg" => {
                let lower = rest.to_ascii_lowercase();
                lower.find(&format!("</{name}")).and_then(|at| Some(at + lower[at..].find('>')?))
            }
            _ if rest.starts_with("<!--") => rest.find("-->").map(|at| at + 2),
            _ => rest.find('>'),
        };
        if ["p", "br", "div", "h1", "h2", "li", "tr", "title", "hr"].contains(&&*name) {
            text.push('\n');
        } else {
            text.push(' ');
        }
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => rest = "",
        }
    }
    text.push_str(rest);
    for (entity, character) in [
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, character);
    }
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Head {
        let headers =
            headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec()));
        Head { status: 400, headers: headers.collect(), ..Head::default() }
    }

    #[test]
    fn framing_is_removed() {
        for (headers, bytes, body, complete) in [
            (&[("Content-Length", "2")][..], "hi!", "hi", true),
            (&[("Content-Length", "9")], "hi", "hi", false),
            (&[("Content-Length", "x")], "hi", "hi", false),
            (&[], "hi", "hi", false),
            (
                &[("Transfer-Encoding", "chunked")],
                "2\r\nhi\r\n1;a=b\r\n!\r\n0\r\n\r\n",
                "hi!",
                true,
            ),
            (&[("Transfer-Encoding", "chunked")], "5\r\nhi", "hi", false),
            (&[("Transfer-Encoding", "chunked")], "ffffffffffffffff\r\nhi", "hi", false),
            (&[("Transfer-Encoding", "chunked")], "no chunks", "no chunks", false),
        ] {
            let found = unframe(&head(headers), bytes.as_bytes());
            assert_eq!(found, Body { bytes: body.into(), complete }, "{headers:?} {bytes}");
        }
    }

    #[test]
    fn codings_are_undone_and_bounded() {
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let gzipped = head(&[("Content-Encoding", "gzip")]);
        assert_eq!(decode(&gzipped, &gzip(b"text")), b"text");
        assert_eq!(decode(&gzipped, &gzip(&vec![0; 10_000_000])).len(), MAX_BODY);
        assert_eq!(
            decode(&head(&[("Content-Encoding", "gzip, gzip")]), &gzip(&gzip(b"text"))),
            b"text"
        );
        let brotli = b"\x8b\x01\x80text\x03";
        assert_eq!(decode(&head(&[("Content-Encoding", "br")]), brotli), b"text");
        let zstd = b"\x28\xb5\x2f\xfd\x20\x04\x21\x00\x00text";
        assert_eq!(decode(&head(&[("Content-Encoding", "zstd")]), zstd), b"text");
        assert_eq!(decode(&head(&[]), b"text"), b"text");
    }

    #[test]
    fn html_becomes_text() {
        let html = "<!DOCTYPE html><html><head><title>403</title><style>p{}</style></head>\
                    <body><h1>Forbidden</h1><script>alert(1)</script><!-- x > y --><p>a &lt; b &amp; c</p></body>";
        assert_eq!(text(&head(&[]), html.as_bytes()), "403\nForbidden\na < b & c");
        assert_eq!(text(&head(&[]), b"{\"a\": \"<b>\"}"), "{\"a\": \"<b>\"}");
        assert_eq!(text(&head(&[("Content-Type", "text/html")]), b"a <b"), "a");
    }
}
