//! The reader of a response's head: tolerant, so that a malformed one is shown as it is, and
//! strict in what it reports.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// The maximum length of a head, in bytes: that of Chromium.
pub const MAX_HEAD: usize = 256 * 1024;
/// The begin of a defect.
pub(crate) const TEXT_IN_FRONT: &str = "there is text in front of the status line";

/// The head of a response as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The bytes, with what stood in front of them.
    pub raw: Vec<u8>,
    /// The minor version of HTTP/1; `None` for another version.
    pub minor: Option<u8>,
    /// The status.
    pub status: u16,
    /// The text behind the status.
    pub reason: String,
    /// Names and values, in the order of the server. Names that are no tokens are left out.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What a browser refuses, or reads in another way than the server meant it.
    pub defects: Vec<String>,
}

impl Head {
    /// The first value of a header, without white space around it.
    #[must_use]
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// All values of a header.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers.iter();
        headers
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// The first value of a header, as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// For the check of the handshake. Headers that cannot be represented are left out: they are
    /// among the defects.
    #[must_use]
    pub fn to_response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers: &mut HeaderMap = response.headers_mut();
        for (name, value) in &self.headers {
            let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
            else {
                continue;
            };
            if headers.try_append(name, value).is_err() {
                break;
            }
        }
        response
    }
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is not complete.
    Partial,
    /// A complete head, and the number of bytes up to its end.
    Complete(Box<Head>, usize),
    /// The head is longer than [`MAX_HEAD`].
    TooLong,
}

/// Reads the head of the first response in `bytes`.
#[must_use]
pub fn read_head(bytes: &[u8]) -> Progress {
    let limit = bytes.len().min(MAX_HEAD);
    let too_long = || if bytes.len() >= MAX_HEAD { Progress::TooLong } else { Progress::Partial };
    let Some(start) = status_line(&bytes[..limit]) else { return too_long() };
    let Some(end) = end_of_head(&bytes[start..limit]).map(|end| start + end) else {
        return too_long();
    };
    let mut head = Head { raw: bytes[..end].to_vec(), ..Head::default() };
    if start > 0 {
        let before = String::from_utf8_lossy(&bytes[..start.min(400)]).trim().to_owned();
        head.defects.push(format!("{TEXT_IN_FRONT}: `{before}`"));
    }
    parse(&bytes[start..end], &mut head);
    Progress::Complete(Box::new(head), end)
}

/// The start of the line that begins with `HTTP/`, in any case.
#[must_use]
pub fn status_line(bytes: &[u8]) -> Option<usize> {
    let is_start =
        |at: usize| bytes.get(at..at + 5).is_some_and(|begin| begin.eq_ignore_ascii_case(b"HTTP/"));
    let lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(lines).find(|&at| is_start(at))
}

/// The position behind the empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| {
        match &bytes[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        }
    })
}

fn parse(bytes: &[u8], head: &mut Head) {
    let mut bare_lf = false;
    let lines = bytes.split(|&byte| byte == b'\n').map(|line| match line.strip_suffix(b"\r") {
        Some(line) => (line, true),
        None => (line, false),
    });
    // Behind the last line end there is nothing.
    let lines = lines.take(bytes.iter().filter(|&&byte| byte == b'\n').count());
    for (number, (line, has_cr)) in lines.enumerate() {
        bare_lf |= !has_cr;
        match (number, line) {
            (0, line) => parse_status_line(line, head),
            (_, []) => {}
            (_, [b' ' | b'\t', ..]) => {
                let name = head.headers.last().map(|(name, _)| name.clone()).unwrap_or_default();
                let what = "a header continues on the next line (obsolete folding)";
                defect(head, what, name.as_bytes());
                if let Some((_, value)) = head.headers.last_mut() {
                    value.push(b' ');
                    value.extend_from_slice(line.trim_ascii());
                }
            }
            (_, line) => parse_header(line, head),
        }
    }
    if bare_lf {
        head.defects.push("lines end with LF, not with CR LF (RFC 9112 2.2)".into());
    }
}

fn defect(head: &mut Head, what: &str, line: &[u8]) {
    // One of a kind is enough.
    if head.defects.len() < 8 && !head.defects.iter().any(|defect| defect.starts_with(what)) {
        // A value may be a secret.
        let line = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let line = &line[..line.len().min(120)];
        head.defects.push(format!("{what}: `{}`", String::from_utf8_lossy(line)));
    }
}

fn parse_status_line(line: &[u8], head: &mut Head) {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.splitn(3, ' ');
    let version = parts.next().unwrap_or_default();
    let status = parts.next().unwrap_or_default();
    head.minor = match version {
        "HTTP/1.1" => Some(1),
        "HTTP/1.0" => Some(0),
        _ => version.to_ascii_uppercase().strip_prefix("HTTP/1.").and_then(|m| m.parse().ok()),
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        defect(head, "the version in the status line is neither HTTP/1.1 nor HTTP/1.0", line);
    }
    head.reason = parts.next().unwrap_or_default().trim().to_owned();
    match status.parse() {
        Ok(code @ 100..=999) if status.len() == 3 => head.status = code,
        _ => {
            // `HTTP/1.1  200 OK` and the like.
            let code = text.split_whitespace().nth(1).and_then(|code| code.get(..3)?.parse().ok());
            head.status = code.unwrap_or(0);
            defect(head, "the status line is malformed", line);
        }
    }
}

fn parse_header(line: &[u8], head: &mut Head) {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return defect(head, "a line of the head has no colon", line);
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let trimmed = name.trim_ascii_end();
    if trimmed.len() < name.len() {
        defect(head, "there is white space in front of the colon (RFC 9112 5.1)", line);
    }
    if HeaderName::from_bytes(trimmed).is_err() {
        return defect(head, "the name of a header is not a token", line);
    }
    if HeaderValue::from_bytes(value).is_err() {
        defect(head, "the value of a header has a control character", line);
    }
    head.headers.push((String::from_utf8_lossy(trimmed).into_owned(), value.to_vec()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(bytes: &[u8]) -> Head {
        match read_head(bytes) {
            Progress::Complete(head, length) => {
                assert_eq!(head.raw, &bytes[..length]);
                *head
            }
            other => panic!("{other:?}: {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn well_formed_head_has_no_defects() {
        let head = complete(b"HTTP/1.1 101 Switching\r\nA: b \r\na:c\r\nB:\r\n\r\nrest");
        assert_eq!((head.minor, head.status, &*head.reason), (Some(1), 101, "Switching"));
        assert_eq!(head.get_all("A").collect::<Vec<_>>(), [b"b".as_slice(), b"c"]);
        assert_eq!((head.get("b"), head.get("c")), (Some(b"".as_slice()), None));
        assert_eq!(head.defects, Vec::<String>::new());
        for head in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.0 404 \r\n\r\n"] {
            assert_eq!(complete(head.as_bytes()).defects, Vec::<String>::new(), "{head}");
        }
    }

    #[test]
    fn malformed_head_is_read_and_its_defect_named() {
        for (bytes, status, defect) in [
            ("HTTP/1.1 101 S\nA: b\n\n", 101, "LF"),
            ("HTTP/1.1 101 S\r\nA: b\n\r\n", 101, "LF"),
            ("HTTP/1.1 101 S\r\nA: b\r\n c\r\n\r\n", 101, "continues"),
            ("HTTP/1.1 101 S\r\nA : b\r\n\r\n", 101, "in front of the colon"),
            ("HTTP/1.1 101 S\r\nnonsense\r\n\r\n", 101, "no colon"),
            ("HTTP/1.1 101 S\r\n(A): b\r\n\r\n", 101, "not a token"),
            ("HTTP/1.1 101 S\r\nA: \u{1b}[31m\r\n\r\n", 101, "control character"),
            ("HTTP/2 200 OK\r\n\r\n", 200, "version"),
            ("http/1.1 200 OK\r\n\r\n", 200, "version"),
            ("HTTP/1.1  200 OK\r\n\r\n", 200, "malformed"),
            ("HTTP/1.1 abc\r\n\r\n", 0, "malformed"),
            ("\nWarning: x in y.php\n\nHTTP/1.1 101 S\r\n\r\n", 101, "Warning: x"),
        ] {
            let head = complete(bytes.as_bytes());
            assert_eq!(head.status, status, "{bytes}");
            assert!(head.defects.iter().any(|known| known.contains(defect)), "{bytes}: {head:?}");
        }
    }

    #[test]
    fn unfinished_head_is_partial_and_an_endless_one_too_long() {
        let whole = b"HTTP/1.1 101 S\r\nA: b\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(read_head(&whole[..end]), Progress::Partial, "{end}");
        }
        let long = [whole[..20].to_vec(), vec![b'x'; MAX_HEAD]].concat();
        assert_eq!(read_head(&long), Progress::TooLong);
        assert_eq!(read_head(&vec![b'x'; MAX_HEAD]), Progress::TooLong);
    }

    #[test]
    fn as_many_headers_as_fit_are_converted() {
        let lines = "a:\r\n".repeat(60_000);
        let head = complete(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes());
        assert_eq!(head.headers.len(), 60_000);
        assert!(head.to_response().headers().len() > 20_000);
    }
}
