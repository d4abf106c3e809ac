//! Reading responses over HTTP/1.1.

use crate::{
    case::Outcome,
    connection::{Connection, Progress},
};

const MAX_HEAD: usize = 64 * 1024;

/// The head of a response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// What is wrong with it.
    pub(crate) malformed: Option<String>,
    /// For people.
    pub(crate) text: String,
    http2: bool,
}

impl Response {
    pub(crate) fn http2(headers: Vec<(String, String)>) -> Self {
        let status = headers.iter().find(|(name, _)| name == ":status");
        let status = status.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let text = headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        Self { status, headers, malformed: None, text, http2: true }
    }

    fn http1(head: &[u8]) -> Self {
        let text = crate::request::display(head);
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut parsed = httparse::Response::new(&mut headers);
        match parsed.parse(head) {
            Ok(_) => Self {
                status: parsed.code.unwrap_or(0),
                headers: parsed
                    .headers
                    .iter()
                    .map(|header| {
                        let value = header.value.iter().copied().map(char::from).collect();
                        (header.name.to_owned(), value)
                    })
                    .collect(),
                text,
                ..Self::default()
            },
            // Whoever cannot write a head has still decided on the handshake.
            Err(error) => {
                let status = head.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
                Self {
                    status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
                    malformed: Some(error.to_string()),
                    text,
                    ..Self::default()
                }
            }
        }
    }

    pub(crate) fn outcome(&self, connect: bool) -> Outcome {
        let accepted =
            if self.http2 { connect && self.status / 100 == 2 } else { self.status == 101 };
        if accepted { Outcome::Accepted } else { Outcome::Status(self.status) }
    }

    /// Returns the values of all lines with this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Returns the elements of a list, in lower case.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let elements = self.all(name).join(",").to_ascii_lowercase();
        let elements = elements.split(',').map(|element| element.trim_matches([' ', '\t']));
        elements.filter(|element| !element.is_empty()).map(str::to_owned).collect()
    }
}

/// What came in place of a response, or the response.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    Closed,
    Silent,
    /// For people.
    Garbage(String),
}

impl Answer {
    pub(crate) fn outcome(&self, connect: bool) -> Outcome {
        match self {
            Self::Response(response) => response.outcome(connect),
            Self::Closed => Outcome::Closed,
            Self::Silent => Outcome::Silent,
            Self::Garbage(_) => Outcome::Garbage,
        }
    }

    pub(crate) fn response(&self) -> Option<&Response> {
        match self {
            Self::Response(response) => Some(response),
            _ => None,
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Response(response) => response.text.clone(),
            Self::Closed => "(closed without a response)".into(),
            Self::Silent => "(no response in time)".into(),
            Self::Garbage(bytes) => format!("(no HTTP) {bytes}"),
        }
    }
}

/// Reads the next response that is final, and leaves in the buffer what follows its head.
pub(crate) fn read(connection: &mut Connection) -> Answer {
    loop {
        let end = connection.buffer.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            let head: Vec<_> = connection.buffer.drain(..end + 4).collect();
            if !head.starts_with(b"HTTP/") {
                return Answer::Garbage(crate::request::display(&head));
            }
            let response = Response::http1(&head);
            if response.status / 100 == 1 && response.status != 101 {
                continue;
            }
            return Answer::Response(response);
        }
        let started = !connection.buffer.is_empty();
        let progress = match connection.buffer.len() {
            ..MAX_HEAD => connection.fill(),
            _ => Progress::End,
        };
        match progress {
            Progress::Bytes => {}
            _ if started => {
                return Answer::Garbage(crate::request::display(&connection.buffer));
            }
            Progress::End => return Answer::Closed,
            Progress::Timeout => return Answer::Silent,
        }
    }
}

/// Reads on, and returns whether a second response follows the body of the first one.
pub(crate) fn second_follows(connection: &mut Connection, first: &Response, head: bool) -> bool {
    loop {
        let follows = behind_body(&connection.buffer, first, head);
        if follows.is_some_and(|bytes| bytes.starts_with(b"HTTP/")) {
            return true;
        }
        if connection.fill() != Progress::Bytes {
            return false;
        }
    }
}

/// `None` if the body goes on.
fn behind_body<'a>(bytes: &'a [u8], response: &Response, head: bool) -> Option<&'a [u8]> {
    const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
    if head || matches!(response.status, 101 | 204 | 304) {
        Some(bytes)
    } else if response.elements("Transfer-Encoding").iter().any(|coding| coding == "chunked") {
        let ends = |at: &usize| {
            bytes[*at..].starts_with(LAST_CHUNK) && (*at == 0 || bytes[..*at].ends_with(b"\r\n"))
        };
        (0..bytes.len()).find(ends).map(|at| &bytes[at + LAST_CHUNK.len()..])
    } else {
        let length = response.all("Content-Length").first()?.parse().ok()?;
        bytes.get(length..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(text: &str) -> Response {
        Response::http1(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn lines_and_elements() {
        let response = response("HTTP/1.1 426 No\nUpgrade: a\nupgrade: B, ,c\n\n");
        assert_eq!(response.status, 426);
        assert_eq!(response.all("UPGRADE"), ["a", "B, ,c"]);
        assert_eq!(response.elements("Upgrade"), ["a", "b", "c"]);
    }

    #[test]
    fn a_malformed_head_still_has_a_status() {
        let response = response("HTTP/1.1 400 Bad\nno colon\n\n");
        assert_eq!(response.status, 400);
        assert!(response.malformed.is_some());
    }

    #[test]
    fn the_end_of_a_body() {
        let chunked = response("HTTP/1.1 400 No\nTransfer-Encoding: chunked\n\n");
        assert_eq!(behind_body(b"2\r\nhi\r\n0\r\n\r\nHTTP/", &chunked, false), Some(&b"HTTP/"[..]));
        assert_eq!(behind_body(b"2\r\nhi\r\n", &chunked, false), None);
        let sized = response("HTTP/1.1 400 No\nContent-Length: 2\n\n");
        assert_eq!(behind_body(b"hiHTTP/", &sized, false), Some(&b"HTTP/"[..]));
        assert_eq!(behind_body(b"HTTP/", &sized, true), Some(&b"HTTP/"[..]));
        let until_close = response("HTTP/1.1 400 No\n\n");
        assert_eq!(behind_body(b"HTTP/", &until_close, false), None);
    }
}
