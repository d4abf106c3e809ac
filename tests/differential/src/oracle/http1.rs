//! RFC 9112: the requests in the bytes of a connection.

use super::{Head, Judgement, Policy, Transport, Verdict, authority, is_token, trim};

/// What comes of each request on a connection, until it is switched, closed or stuck.
///
/// The last judgement is the last that can be made: nothing behind it is a request.
pub fn judge_stream(mut bytes: &[u8], policy: &Policy) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    loop {
        let (head, rest) = match parse(bytes) {
            Parsed::Incomplete => return judgements,
            Parsed::Malformed => {
                judgements.push(Judgement { verdict: Verdict::Malformed, lenient: None });
                return judgements;
            }
            Parsed::Head(head, rest) => (head, rest),
        };
        let mut judgement = head.judge(policy);
        let next = behind_body(&head, rest);
        let goes_on = judgement.verdict == Verdict::Ordinary;
        if goes_on && next.is_none() {
            judgement.lenient = Some("an unfinished body");
        }
        judgements.push(judgement);
        match next {
            Some(next) if goes_on && persists(&head) => bytes = next,
            _ => return judgements,
        }
    }
}

enum Parsed<'a> {
    Incomplete,
    Malformed,
    Head(Head, &'a [u8]),
}

/// Reads one head.
fn parse(mut bytes: &[u8]) -> Parsed<'_> {
    let mut lenient = None;
    // 2.2: an empty line in front is ignored.
    let mut empty_lines = 0;
    while let Some((b"", rest, bare)) = line(bytes) {
        empty_lines += 1;
        bytes = rest;
        if bare || empty_lines > 1 {
            lenient = Some("empty lines");
        }
    }
    let Some((request_line, mut rest, bare)) = line(bytes) else { return incomplete(bytes) };
    if bare {
        lenient = Some("a line feed alone");
    }
    if request_line.len() > 8000 {
        lenient = Some("a long request line");
    }
    let Some(mut head) = self::request_line(request_line, &mut lenient) else {
        return Parsed::Malformed;
    };
    loop {
        let Some((field_line, behind, bare)) = line(rest) else {
            return incomplete(rest);
        };
        rest = behind;
        if bare {
            lenient = Some("a line feed alone");
        }
        match field_line {
            [] => break,
            // 5.2: an obsolete line folding is rejected or replaced by spaces.
            [b' ' | b'\t', folded @ ..]
                if !head.fields.is_empty() && folded.iter().all(is_field_byte) =>
            {
                lenient = Some("line folding");
                let value = &mut head.fields.last_mut().expect("a field").1;
                value.push(b' ');
                value.extend_from_slice(trim(folded));
                *value = trim(value).to_vec();
            }
            _ => {
                // 5.1: no white space between the name and the colon.
                let Some(colon) = field_line.iter().position(|&byte| byte == b':') else {
                    return Parsed::Malformed;
                };
                let (name, value) = (&field_line[..colon], &field_line[colon + 1..]);
                if !is_token(name) || !value.iter().all(is_field_byte) {
                    return Parsed::Malformed;
                }
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                head.fields.push((name, trim(value).to_vec()));
            }
        }
    }
    if head.fields.len() > 100 {
        lenient = Some("many fields");
    }
    if !is_framing_sound(&head) {
        lenient = Some("framing");
        collapse_lengths(&mut head);
    }
    head.lenient = lenient;
    Parsed::Head(head, rest)
}

/// Without a line end the request may be on its way still, but a control character in it cannot be made good.
fn incomplete(bytes: &[u8]) -> Parsed<'_> {
    let unfinished = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    match unfinished.iter().all(is_field_byte) {
        true => Parsed::Incomplete,
        false => Parsed::Malformed,
    }
}

/// A line without its end, what follows, and whether it ended in a bare LF, which a recipient may take (2.2).
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    Some(match line.strip_suffix(b"\r") {
        Some(line) => (line, rest, false),
        None => (line, rest, true),
    })
}

/// `VCHAR`, `obs-text`, SP and HTAB (RFC 9110 5.5).
fn is_field_byte(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// RFC 9112 3.
fn request_line(line: &[u8], lenient: &mut Option<&'static str>) -> Option<Head> {
    let words = line.split(|&byte| byte == b' ').collect::<Vec<_>>();
    let [method, target, version] = words[..] else { return None };
    if !is_token(method)
        || target.is_empty()
        || !target.iter().all(|byte| matches!(byte, b'!'..=b'~' | 0x80..))
    {
        return None;
    }
    let transport = match version {
        b"HTTP/1.1" => Transport::Http11,
        b"HTTP/1.0" => Transport::Http10,
        // RFC 9110 2.5: a later minor version is the highest that one knows.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => {
            *lenient = Some("a later version");
            Transport::Http11
        }
        _ => return None,
    };
    let method = String::from_utf8_lossy(method).into_owned();
    let target = String::from_utf8_lossy(target).into_owned();
    let (mut scheme, mut in_target, mut path_and_query) = (None, None, "");
    if target.starts_with('/') {
        path_and_query = &target;
    } else if let Some((before, rest)) =
        target.split_once("://").filter(|(before, _)| is_scheme(before))
    {
        let before = scheme.insert(before.to_ascii_lowercase());
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        in_target = Some(rest[..end].to_owned());
        path_and_query = &rest[end..];
        if !["http", "https"].contains(&&**before) || authority(&rest[..end]).is_none() {
            *lenient = Some("an unusual target");
        }
    } else if target != "*" {
        in_target = Some(target.clone());
    }
    let is_usual = match &*method {
        "CONNECT" => {
            in_target.as_deref() == Some(&*target)
                && authority(&target).is_some_and(|it| it.port.is_some())
        }
        "OPTIONS" if target == "*" => true,
        _ => in_target.as_deref() != Some(&*target) && target != "*",
    };
    // RFC 3986 3.2.2 allows more in a name than libraries know.
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]@".contains(&byte);
    let is_usual = is_usual && in_target.iter().all(|authority| authority.bytes().all(is_known));
    // 3: an invalid request line should be rejected.
    if !is_usual || !is_path_and_query(path_and_query) {
        *lenient = Some("an unusual target");
    }
    let query = path_and_query
        .split('#')
        .next()
        .and_then(|it| it.split_once('?'))
        .unwrap_or_default()
        .1
        .to_owned();
    Some(Head { method, scheme, authority: in_target, query, transport, ..Head::default() })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// RFC 3986 3.3 and 3.4.
fn is_path_and_query(text: &str) -> bool {
    let escaped = |rest: &str| {
        rest.get(..2).is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.char_indices().all(|(at, c)| match c {
        '%' => escaped(&text[at + 1..]),
        c => c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?".contains(c),
    })
}

/// RFC 9112 6.1 to 6.3: what a server may or must reject without knowing more.
fn is_framing_sound(head: &Head) -> bool {
    let lengths = head.lines("content-length").collect::<Vec<_>>();
    let codings = head.lines("transfer-encoding").collect::<Vec<_>>();
    match (&lengths[..], &codings[..]) {
        ([], []) => true,
        ([length], []) => {
            length.len() < 16 && !length.is_empty() && length.iter().all(u8::is_ascii_digit)
        }
        ([], [coding]) => {
            coding.eq_ignore_ascii_case(b"chunked") && head.transport == Transport::Http11
        }
        _ => false,
    }
}

/// 6.3: lengths that are the same number may be taken for one.
fn collapse_lengths(head: &mut Head) {
    let lengths = head.elements("content-length").map(<[u8]>::to_vec).collect::<Vec<_>>();
    let number =
        |length: &[u8]| str::from_utf8(length).ok().and_then(|length| length.parse::<u64>().ok());
    if let [first, others @ ..] = &lengths[..]
        && others.iter().all(|other| number(other).is_some() && number(other) == number(first))
    {
        head.fields.retain(|(name, _)| name != "content-length");
        head.fields.push(("content-length".to_owned(), first.clone()));
    }
}

/// RFC 9112 9.3.
fn persists(head: &Head) -> bool {
    let has = |option: &[u8]| head.elements("connection").any(|it| it.eq_ignore_ascii_case(option));
    match head.transport {
        Transport::Http11 => !has(b"close"),
        _ => has(b"keep-alive") && !has(b"close"),
    }
}

/// What follows the body; `None` if that cannot be told, or is not there yet.
fn behind_body<'a>(head: &Head, rest: &'a [u8]) -> Option<&'a [u8]> {
    if !is_framing_sound(head) {
        return None;
    }
    if head.lines("transfer-encoding").next().is_some() {
        return behind_chunks(rest);
    }
    let length =
        head.lines("content-length").next().map(|length| String::from_utf8_lossy(length).parse());
    rest.get(length.unwrap_or(Ok(0)).ok()?..)
}

/// RFC 9112 7.1, without trailers.
fn behind_chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, behind, false) = line(rest)? else { return None };
        let size = size
            .split(|&byte| byte == b';')
            .next()
            .filter(|size| size.iter().all(u8::is_ascii_hexdigit))?;
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        rest = behind.get(size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(rest);
        }
    }
}
