//! Servers that respond as a case wants it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use socket2::SockRef;
use tower_ws_guard::accept_key;

use crate::common::{Expected, Report};

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head(pub(crate) String);

impl Head {
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(Self(String::from_utf8_lossy(&head).into_owned()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn origin(&self) -> Option<&str> {
        self.get("origin")
    }

    pub(crate) fn upgrades(&self) -> bool {
        self.get("upgrade").is_some()
    }

    /// The origin of this server.
    pub(crate) fn own_origin(&self) -> String {
        format!("http://{}", self.get("host").unwrap_or_default())
    }

    fn accept(&self) -> String {
        let key = self.get("sec-websocket-key").and_then(|key| key.as_bytes().try_into().ok());
        key.map_or_else(String::new, |key| String::from_utf8(accept_key(key).to_vec()).unwrap())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Close,
    /// Waits until the client has left.
    Stay,
    Reset,
}

/// What a server sends.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// These bytes, and then the end.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply { bytes: bytes.into(), then: Then::Close }
}

/// A response with these lines and this body.
pub(crate) fn status(status: &str, lines: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    raw([head.as_bytes(), body].concat())
}

pub(crate) const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

/// A 101 with these lines.
pub(crate) fn switch(lines: &str) -> Reply {
    Reply { bytes: format!("{SWITCH}{lines}\r\n").into(), then: Then::Stay }
}

/// A correct 101.
pub(crate) fn accepted(head: &Head) -> Reply {
    switch(&format!("Sec-WebSocket-Accept: {}\r\n", head.accept()))
}

impl Reply {
    /// Adds bytes.
    pub(crate) fn and(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    /// Replaces text.
    pub(crate) fn replace(mut self, from: &str, to: &str) -> Self {
        self.bytes = String::from_utf8(self.bytes).unwrap().replace(from, to).into_bytes();
        self
    }
}

/// An unmasked frame of this first byte.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Calls `serve` with every connection to a new port, until the test ends.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    accept(listener, serve);
    address
}

pub(crate) fn accept(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
}

/// Waits for something, and returns whether it came.
pub(crate) fn read_something(stream: &mut impl Read) -> bool {
    stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0)
}

/// Sends the reply, and then ends as it says. The client may leave at any time.
fn send(stream: &mut (impl Read + Write), tcp: &TcpStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&reply.bytes)?;
    stream.flush()?;
    match reply.then {
        Then::Close => {
            tcp.shutdown(std::net::Shutdown::Write)?;
            tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
            io::copy(stream, &mut io::sink())?;
        }
        Then::Stay => drop(io::copy(stream, &mut io::sink())?),
        Then::Reset => SockRef::from(tcp).set_linger(Some(Duration::ZERO))?,
    }
    Ok(())
}

/// Responds to one request of a connection.
pub(crate) fn respond(
    stream: &mut (impl Read + Write),
    tcp: &TcpStream,
    reply: impl FnOnce(&Head) -> Reply,
) -> io::Result<()> {
    let head = Head::read(stream)?;
    let reply = reply(&head);
    send(stream, tcp, &reply)
}

/// A server whose reply depends on the request and on how many came before.
pub(crate) fn server(reply: impl Fn(&Head, usize) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let count = AtomicUsize::new(0);
    listen(move |stream| {
        let mut reading = stream.try_clone().unwrap();
        respond(&mut reading, &stream, |head| reply(head, count.fetch_add(1, Ordering::Relaxed)))
            .ok();
    })
}

/// A server, and how the program is run with it. In arguments and words `{host}` is its address, `{port}` its port.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) reply: fn(&Head, usize) -> Reply,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) expected: Expected<'static>,
}

/// Short for tables.
pub(crate) const fn case(
    name: &'static str,
    reply: fn(&Head, usize) -> Reply,
    arguments: &'static [&'static str],
    exit: i32,
    codes: &'static [&'static str],
    words: &'static [&'static str],
) -> Case {
    Case { name, reply, arguments, expected: Expected { exit, codes, words } }
}

/// Checks all cases, some at a time, and returns what is not as expected.
pub(crate) fn check(cases: &[Case]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let address = server(case.reply);
            failed.extend(check_at(
                case.name,
                "ws://{host}/ws",
                address,
                case.arguments,
                case.expected,
            ));
        }
        failed
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// Checks one run at an address.
pub(crate) fn check_at(
    name: &str,
    url: &str,
    address: SocketAddr,
    arguments: &[&str],
    expected: Expected<'_>,
) -> Vec<String> {
    let fill = |text: &&str| {
        text.replace("{host}", &address.to_string()).replace("{port}", &address.port().to_string())
    };
    // An argument may be another URL.
    let url = if arguments.iter().any(|argument| argument.starts_with("ws://")) {
        &[][..]
    } else {
        &[url]
    };
    let arguments: Vec<_> = url.iter().chain(arguments).map(fill).collect();
    let words: Vec<_> = expected.words.iter().map(fill).collect();
    let words: Vec<_> = words.iter().map(|word| &**word).collect();
    let report = Report::of(&arguments);
    let differences = report.differences(Expected { words: &words, ..expected });
    differences.into_iter().map(|difference| format!("{name}: {difference}")).collect()
}
