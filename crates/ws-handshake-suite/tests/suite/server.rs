//! A server that conforms, but for one fault. It is written from the RFCs, apart from the suite.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use loona_hpack::{Decoder, Encoder};
use sha1::{Digest, Sha1};
use ws_handshake_suite::Target;

pub(crate) const ORIGIN: &str = "https://a.example";
pub(crate) const HOSTILE: &str = "https://evil.example";
pub(crate) const TOKEN: &str = "secret";
pub(crate) const SUBPROTOCOL: &str = "chat";

type Lines = Vec<(String, String)>;

/// Starts a server with this fault, `""` for none, and returns what the suite is to know about it.
pub(crate) fn start(fault: &'static str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || serve(Connection { stream, buffer: Vec::new(), fault }));
        }
    });
    let mut target = Target::new(&url).unwrap();
    target.origin = Some(ORIGIN.into());
    target.hostile_origin = Some(HOSTILE.into());
    target.require_origin = true;
    target.token = Some(TOKEN.into());
    target.subprotocol = Some(SUBPROTOCOL.into());
    target.timeout = Duration::from_secs(2);
    target
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    fault: &'static str,
}

/// A status, header fields, and whether the connection goes on.
struct Rejection(u16, Lines);

fn line(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Connection {
    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    fn fill(&mut self) -> Option<()> {
        let mut bytes = [0; 8192];
        let length = self.stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
        self.buffer.extend(&bytes[..length]);
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end) {
                return self.take(at + end.len());
            }
            if self.buffer.len() > 16 * 1024 {
                return None;
            }
            if self.has("segments") && !self.buffer.is_empty() {
                return None;
            }
            self.fill()?;
        }
    }

    fn respond(&mut self, status: u16, lines: &Lines, body: &str) -> Option<()> {
        let mut text = format!("HTTP/1.1 {status} Status\r\n");
        for (name, value) in lines {
            text += &format!("{name}: {value}\r\n");
        }
        if status != 101 {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        self.stream.write_all((text + "\r\n" + body).as_bytes()).ok()
    }
}

fn serve(mut connection: Connection) {
    while connection.buffer.len() < 3 {
        if connection.fill().is_none() {
            return;
        }
    }
    if connection.buffer.starts_with(b"PRI") {
        http2(&mut connection);
    } else {
        while request(&mut connection).is_some() {}
    }
}

/// Returns `None` at the end of the connection.
fn request(connection: &mut Connection) -> Option<()> {
    while connection.buffer.starts_with(b"\r\n") && !connection.has("empty-line") {
        connection.take(2)?;
    }
    let head = match connection.take_until(b"\r\n\r\n") {
        Some(head) => head,
        None if connection.buffer.len() > 16 * 1024 => {
            let status = if connection.has("limit") { 500 } else { 431 };
            connection.respond(status, &vec![line("Connection", "close")], "");
            // So that the client can read the response before it learns that nobody reads on.
            while connection.fill().is_some() && connection.buffer.len() < 4 << 20 {}
            return None;
        }
        None => return None,
    };
    let mut closes = true;
    let rejection = match handshake(connection, &head) {
        Ok(lines) => {
            connection.respond(101, &lines, "")?;
            if connection.has("early-request") && connection.buffer.starts_with(b"GET") {
                connection.respond(200, &Vec::new(), "");
            }
            frames(connection);
            return None;
        }
        Err(rejection) => rejection,
    };
    let Rejection(status, mut lines) = rejection;
    if connection.has("no-response") {
        return None;
    }
    if connection.has("no-close") {
        closes = false;
    }
    if closes && !lines.iter().any(|(name, _)| name == "Connection") {
        lines.push(line("Connection", "close"));
    }
    if connection.has("not-well-formed") {
        lines.push(line("no colon\r\nX-Test", "a"));
    }
    connection.respond(status, &lines, "no")?;
    (!closes || connection.has("after-close") || connection.has("body-as-request")).then_some(())
}

fn bad<T>() -> Result<T, Rejection> {
    Err(Rejection(400, Vec::new()))
}

fn handshake(connection: &mut Connection, head: &[u8]) -> Result<Lines, Rejection> {
    let head: String = head.iter().copied().map(char::from).collect();
    let head = head.trim_end_matches("\r\n");
    let bare_cr = connection.has("bare-cr");
    let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    let rest = if bare_cr { rest.replace("\r\n", "\r").replace('\r', "\r\n") } else { rest.into() };
    if rest.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return bad();
    }

    let mut lines = Lines::new();
    for (number, text) in rest.split("\r\n").filter(|text| !text.is_empty()).enumerate() {
        if text.starts_with([' ', '\t']) {
            let taken = if number == 0 { "space-first" } else { "fold-is-header" };
            match connection.fault {
                "fold-is-ordinary" => return Err(Rejection(200, Vec::new())),
                fault if fault == taken => {}
                _ => return bad(),
            }
        }
        let Some((name, value)) = text.trim_start().split_once(':') else { return bad() };
        if name.ends_with(' ') && !connection.has("space-before-colon") {
            return bad();
        }
        let value =
            if connection.has("white-space") { value } else { value.trim_matches([' ', '\t']) };
        lines.push(line(name.trim_end(), value.strip_prefix(' ').unwrap_or(value)));
    }
    let headers = Headers { lines, case_sensitive: connection.has("names") };

    let mut parts = first.split(' ');
    let method = parts.next().unwrap_or_default();
    let target = parts.next().unwrap_or_default();
    let version = parts.next().unwrap_or_default();
    let hosts = headers.all("Host");
    let valid = |host: &&str| {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
        !name.contains([' ', '@', '/']) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    if hosts.is_empty() && !connection.has("host-missing")
        || hosts.len() > 1 && !connection.has("host-repeated")
        || hosts.iter().any(|host| !valid(host)) && !connection.has("host-syntax")
        || hosts.contains(&"")
    {
        return bad();
    }

    let lengths = headers.all("Content-Length");
    let codings = headers.all("Transfer-Encoding");
    if lengths.len() > 1 && !connection.has("length")
        || codings.iter().any(|coding| *coding != "chunked") && !connection.has("coding")
    {
        return bad();
    }
    let body = !lengths.is_empty() || !codings.is_empty();
    if body && !connection.fault.starts_with("body-as") {
        let framed = match lengths.first() {
            Some(length) => {
                connection.take(length.parse().map_err(|_| Rejection(400, Vec::new()))?)
            }
            None if connection.has("coding") => Some(Vec::new()),
            None => connection.take_until(b"0\r\n\r\n"),
        };
        if framed.is_none() {
            return bad();
        }
    }
    if codings.contains(&"chunked") && connection.has("body-as-request") {
        // It only knows the size of the chunk, and goes on behind it.
        connection.take_until(b"\r\n");
    }
    if body
        && !["body-as-frames", "body-as-request", "length", "coding"].contains(&connection.fault)
    {
        return bad();
    }

    let accepted_method = match connection.fault {
        "method" => true,
        "method-case" => method.eq_ignore_ascii_case("GET"),
        _ => method == "GET",
    };
    if !accepted_method {
        let allow = if connection.has("allow") { vec![] } else { vec![line("Allow", "GET")] };
        return Err(Rejection(405, allow));
    }
    if version != "HTTP/1.1" && !connection.has("http-version") {
        return Err(Rejection(505, Vec::new()));
    }
    if target.starts_with("http://") && connection.has("absolute") {
        return Err(Rejection(404, Vec::new()));
    }
    if connection.has("unknown") && !headers.all("X-Unknown").is_empty()
        || connection.has("non-ascii") && headers.lines.iter().any(|(_, value)| !value.is_ascii())
    {
        return bad();
    }

    let (upgrades, options) = (headers.elements("Upgrade"), headers.elements("Connection"));
    let token = |elements: &[String], token: &str, name: &str| {
        let any = |test: &dyn Fn(&str) -> bool| elements.iter().any(|element| test(element));
        match connection.fault.strip_prefix(name) {
            Some("-missing") => elements.is_empty() || any(&|e| e.eq_ignore_ascii_case(token)),
            Some("-other") => !elements.is_empty(),
            Some("-longer") => {
                any(&|e| e.to_ascii_lowercase().contains(&token.to_ascii_lowercase()))
            }
            Some("-case") => any(&|e| e == token),
            Some("-list") => elements.len() == 1 && any(&|e| e.eq_ignore_ascii_case(token)),
            _ => any(&|e| e.eq_ignore_ascii_case(token)),
        }
    };
    let upgrade_required = |lines: Lines| {
        let upgrade = [line("Upgrade", "websocket"), line("Connection", "Upgrade, close")];
        Rejection(426, if connection.has("426") { lines } else { [lines, upgrade.into()].concat() })
    };
    if !token(&upgrades, "websocket", "upgrade") {
        return Err(upgrade_required(Vec::new()));
    }
    let first_line: Vec<_> = headers.all("Connection").into_iter().take(1).collect();
    if !token(&options, "Upgrade", "connection")
        || connection.has("connection-lines")
            && !first_line.iter().any(|value| value.to_ascii_lowercase().contains("upgrade"))
        || connection.has("connection-empty-elements")
            && headers.all("Connection").iter().any(|value| value.contains(", ,"))
    {
        return bad();
    }

    let mut response = vec![line("Upgrade", "websocket"), line("Connection", "Upgrade")];
    let keys = headers.all("Sec-WebSocket-Key");
    let key = match &*keys {
        [] if connection.has("key-missing") => "",
        [""] if connection.has("key-empty") => "",
        [key] if BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => key,
        // Trailing bits.
        ["AQIDBAUGBwgJCgsMDQ4PEC=="] => keys[0],
        [key] if connection.has("white-space") => key,
        _ => return bad(),
    };
    match version_of(&headers, connection.fault) {
        Version::Supported => {}
        Version::Invalid => return bad(),
        Version::Unsupported => {
            let versions = if connection.has("versions") {
                vec![]
            } else {
                vec![line("Sec-WebSocket-Version", "13")]
            };
            return Err(upgrade_required(versions));
        }
    }
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}{guid}")));
    response.push(line("Sec-WebSocket-Accept", &accept));
    response.extend(negotiate(&headers, connection.fault)?);
    match connection.fault {
        "response-upgrade" => response[0].1 = "x-unknown".into(),
        "response-connection" => response[1].1 = "keep-alive".into(),
        "response-accept" => response[2].1 = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(),
        "response-accept-twice" => response.push(line("Sec-WebSocket-Accept", &accept)),
        "response-length" => response.push(line("Content-Length", "0")),
        "response-coding" => response.push(line("Transfer-Encoding", "chunked")),
        _ => {}
    }
    Ok(response)
}

struct Headers {
    lines: Lines,
    case_sensitive: bool,
}

impl Headers {
    fn all(&self, name: &str) -> Vec<&str> {
        let is = |other: &str| {
            if self.case_sensitive { other == name } else { other.eq_ignore_ascii_case(name) }
        };
        self.lines.iter().filter(|(name, _)| is(name)).map(|(_, value)| &**value).collect()
    }

    fn elements(&self, name: &str) -> Vec<String> {
        let list = self.all(name).join(",");
        let elements = list.split(',').map(|element| element.trim_matches([' ', '\t']));
        elements.filter(|element| !element.is_empty()).map(str::to_owned).collect()
    }
}

enum Version {
    Supported,
    Unsupported,
    Invalid,
}

fn version_of(headers: &Headers, fault: &str) -> Version {
    match (&*headers.all("Sec-WebSocket-Version"), fault) {
        (["13"], _)
        | ([], "version-missing")
        | ([""], "version-empty")
        | (["13, 99" | "99, 13"], "version-list")
        | (["013"], "version-zero")
        | (["+13"], "version-sign")
        | (["99"], "version-unsupported") => Version::Supported,
        ([version], _) if version.parse::<u8>().is_ok_and(|n| n.to_string() == *version) => {
            Version::Unsupported
        }
        _ => Version::Invalid,
    }
}

/// Policy, subprotocol and extensions.
fn negotiate(headers: &Headers, fault: &str) -> Result<Lines, Rejection> {
    let origins = headers.all("Origin");
    match &*origins {
        [ORIGIN] => {}
        [HOSTILE] if fault == "origin" => {}
        [HOSTILE] if fault == "origin-400" => return bad(),
        [] if fault == "origin-missing" => {}
        _ => return Err(Rejection(403, Vec::new())),
    }
    match (&*headers.all("Authorization"), fault) {
        (["Bearer secret"], _) | ([], "token-missing") | (["Bearer secretx"], "token-wrong") => {}
        (_, "challenge") => return Err(Rejection(401, Vec::new())),
        _ => return Err(Rejection(401, vec![line("WWW-Authenticate", "Bearer")])),
    }

    let mut response = Vec::new();
    let offered = headers.elements("Sec-WebSocket-Protocol");
    let lines = headers.all("Sec-WebSocket-Protocol");
    let token = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic());
    if !lines.is_empty() && offered.is_empty() || !offered.iter().all(token) {
        return bad();
    }
    if offered.len() != offered.iter().collect::<std::collections::HashSet<_>>().len()
        || fault == "subprotocol-empty" && lines.iter().any(|line| line.contains(",,"))
    {
        return bad();
    }
    let selected = offered.iter().any(|name| match fault {
        "subprotocol-case" => name.eq_ignore_ascii_case(SUBPROTOCOL),
        "subprotocol-any" => true,
        _ => name == SUBPROTOCOL,
    });
    if selected || fault == "subprotocol-always" && offered.is_empty() {
        response.push(line("Sec-WebSocket-Protocol", SUBPROTOCOL));
        if fault == "subprotocol-twice" {
            response.push(line("Sec-WebSocket-Protocol", SUBPROTOCOL));
        }
    }
    if let Some(extension) = extension(&headers.elements("Sec-WebSocket-Extensions"), fault)? {
        response.push(line("Sec-WebSocket-Extensions", &extension));
    }
    Ok(response)
}

/// The first offer of permessage-deflate that is valid.
fn extension(offers: &[String], fault: &str) -> Result<Option<String>, Rejection> {
    if fault == "extension-always" && offers.is_empty() {
        return Ok(Some("permessage-deflate".into()));
    }
    let mut accepted = Vec::new();
    for offer in offers {
        let mut parts = offer.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, Option<&str>)> = parts
            .map(|part| {
                part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)))
            })
            .collect();
        if parameters.iter().any(|(name, _)| name.is_empty()) && fault != "extension-malformed"
            || offer.matches('"').count() % 2 == 1 && fault != "extension-quote"
        {
            return bad();
        }
        if name != "permessage-deflate" {
            if fault == "extension-unknown" {
                accepted.push(name.to_owned());
            }
            continue;
        }
        let bits = |value: Option<&str>| {
            value.is_some_and(|value| {
                let bits = value.parse().unwrap_or(0_u8);
                ((8..=15).contains(&bits) || fault == "deflate-bits")
                    && (bits.to_string() == value || fault == "deflate-zero")
            })
        };
        let valid = |(name, value): &(&str, Option<&str>)| match *name {
            "server_no_context_takeover" | "client_no_context_takeover" => {
                value.is_none() || fault == "deflate-value"
            }
            "server_max_window_bits" => {
                bits(*value) || value.is_none() && fault == "deflate-no-value"
            }
            "client_max_window_bits" => value.is_none() || bits(*value),
            "" => true,
            _ => fault == "deflate-unknown",
        };
        let once = |(index, (name, _)): (usize, &(&str, _))| {
            parameters[..index].iter().all(|(other, _)| other != name)
        };
        if !(parameters.iter().all(valid) || fault == "extension-quote" && offer.contains('"'))
            || !(parameters.iter().enumerate().all(once) || fault == "deflate-repeated")
        {
            continue;
        }
        let mut answer = name.to_owned();
        for (name, value) in &parameters {
            match (*name, value) {
                ("server_no_context_takeover", _) if fault != "deflate-forgets-context" => {
                    answer += "; server_no_context_takeover";
                }
                ("server_max_window_bits", Some(value)) if fault != "deflate-forgets-window" => {
                    answer += &format!("; server_max_window_bits={value}");
                }
                ("client_max_window_bits", _) if fault == "deflate-client-without-value" => {
                    answer += "; client_max_window_bits";
                }
                _ => {}
            }
        }
        if fault == "deflate-client-not-offered" {
            answer += "; client_max_window_bits=15";
        }
        accepted.push(answer);
        if fault != "deflate-all" {
            break;
        }
    }
    Ok((!accepted.is_empty()).then(|| accepted.join(", ")))
}

/// Answers Pings.
fn pong(bytes: &mut Vec<u8>) -> Vec<u8> {
    let mut pongs = Vec::new();
    while bytes.len() >= 6 {
        let length = usize::from(bytes[1] & 0x7f);
        if bytes[1] & 0x80 == 0 || bytes.len() < 6 + length {
            break;
        }
        let frame: Vec<u8> = bytes.drain(..6 + length).collect();
        if frame[0] == 0x89 {
            pongs.extend([0x8a, frame[1] & 0x7f]);
            pongs.extend(frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(a, b)| a ^ b));
        }
    }
    pongs
}

fn frames(connection: &mut Connection) -> Option<()> {
    loop {
        let pongs = pong(&mut connection.buffer);
        if !connection.has("no-pong") {
            connection.stream.write_all(&pongs).ok()?;
        }
        connection.fill()?;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn http2(connection: &mut Connection) -> Option<()> {
    connection.take(24)?;
    let value = if connection.has("http2-setting") { 2 } else { 1 };
    let settings = [0, 8, 0, 0, 0, value];
    connection.stream.write_all(&frame(4, 0, 0, &settings)).ok()?;
    if connection.has("http2-setting") {
        // What the suite reads is the first value.
        connection.stream.write_all(&frame(4, 1, 0, &[])).ok()?;
    }
    let mut data = Vec::new();
    loop {
        let head = connection.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = connection.take(length)?;
        let bytes = match (head[3], head[4]) {
            (4, 0) => frame(4, 1, 0, &[]),
            (1, _) => match http2_request(&payload, connection.fault) {
                Some(lines) => {
                    let lines =
                        lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
                    frame(1, 4, 1, &Encoder::new().encode(lines))
                }
                None => frame(3, 0, 1, &[0, 0, 0, 1]),
            },
            (0, _) => {
                data.extend(payload);
                let pongs = pong(&mut data);
                if pongs.is_empty() || connection.has("no-pong") {
                    continue;
                }
                frame(0, 0, 1, &pongs)
            }
            _ => continue,
        };
        connection.stream.write_all(&bytes).ok()?;
    }
}

/// `None`: the request is malformed.
fn http2_request(block: &[u8], fault: &str) -> Option<Lines> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let lines = Decoder::new().decode(block).unwrap().into_iter();
    let headers = Headers {
        lines: lines.map(|(name, value)| (text(name), text(value))).collect(),
        case_sensitive: false,
    };
    let has = |name: &str| headers.all(name).len();
    let known = |name: &str| match name {
        "connection" => fault == "http2-connection",
        "upgrade" => fault == "http2-upgrade",
        name => !name.bytes().any(|byte| byte.is_ascii_uppercase()) || fault == "http2-upper-case",
    };
    let status = |status: &str| Some(vec![line(":status", status)]);
    if !headers.lines.iter().all(|(name, _)| known(name))
        || has(":protocol") > 1 && fault != "http2-protocol-repeated"
        || has("host") > 0 && fault != "http2-host"
        || has(":authority") == 0
    {
        return None;
    }
    if headers.all(":method") != ["CONNECT"] {
        return status(if fault == "http2-101" { "101" } else { "404" });
    }
    if has(":protocol") == 0 && fault != "http2-protocol-missing"
        || has(":path") == 0 && fault != "http2-path"
        || has(":scheme") == 0 && fault != "http2-scheme"
    {
        return None;
    }
    if headers.all(":protocol").iter().any(|protocol| *protocol != "websocket") {
        return status("501");
    }
    match version_of(&headers, fault) {
        Version::Supported => {}
        Version::Unsupported if fault != "versions" => {
            return Some(vec![line(":status", "400"), line("sec-websocket-version", "13")]);
        }
        _ => return status("400"),
    }
    match negotiate(&headers, fault) {
        Ok(lines) => {
            let mut response = vec![line(":status", "200")];
            response.extend(lines.iter().map(|(name, value)| line(&name.to_lowercase(), value)));
            if fault == "http2-response-connection" {
                response.push(line("connection", "upgrade"));
            }
            Some(response)
        }
        Err(Rejection(status, _)) => Some(vec![line(":status", &status.to_string())]),
    }
}
