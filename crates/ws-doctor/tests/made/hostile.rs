//! A server that means harm: there is a verdict, in time, and the terminal executes nothing.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{
    common::{program, run},
    serve::{
        Head, Reply, Then, accepted, close, frame, listen, raw, respond, server, status, switch,
    },
};

/// Runs with a short timeout, and returns exit code and text.
fn verdict(address: SocketAddr) -> (Option<i32>, String) {
    let mut command = program();
    command.args([&format!("ws://{address}/ws"), "--max-time", "4", "-v"]);
    let start = Instant::now();
    let output = run(command);
    assert!(start.elapsed() < Duration::from_secs(20));
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let control = |char: char| {
        (char.is_control() && char != '\n')
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    assert!(!text.contains(control), "{text:?}");
    assert!(text.len() < 200_000, "{}", text.len());
    (output.status.code(), text)
}

fn assert_rejected(name: &str, address: SocketAddr) {
    let (exit, text) = verdict(address);
    assert!(matches!(exit, Some(1 | 2)), "{name}: {exit:?}: {text}");
}

#[test]
fn response_of_any_bytes_gets_a_verdict() {
    let replies = [
        ("garbage", raw((0..20_000_u32).map(|byte| (byte * 31 % 251) as u8).collect::<Vec<_>>())),
        ("zeros", raw(vec![0; 100_000])),
        ("10,000 headers", status("403 Forbidden", &"X-Header: x\r\n".repeat(10_000), "")),
        (
            "a long header",
            status("403 Forbidden", &format!("X: {}\r\n", "x".repeat(1_000_000)), ""),
        ),
        (
            "a head without an end",
            raw("HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(100_000)),
        ),
        (
            "a length that lies",
            raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 99999999999999999999\r\n\r\nshort"),
        ),
        ("a negative length", raw("HTTP/1.1 403 Forbidden\r\nContent-Length: -1\r\n\r\nshort")),
        (
            "too many bytes",
            raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 1\r\n\r\n").and(vec![b'x'; 1_000_000]),
        ),
        (
            "chunks that lie",
            raw(
                "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
            ),
        ),
        ("a bomb", status("403 Forbidden", "Content-Encoding: gzip\r\n", bomb())),
        (
            "text behind a 101",
            switch("Sec-WebSocket-Accept: x\r\n").and(vec![b'A'; 1_000_000]).then(Then::Close),
        ),
    ];
    thread::scope(|scope| {
        for (name, reply) in replies {
            scope.spawn(move || assert_rejected(name, server(move |_, _| reply.clone())));
        }
    });
}

/// 50 MB of zeros.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1_000_000];
    for _ in 0..50 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn nothing_is_executed_by_the_terminal() {
    for reply in [
        status(
            "401 \u{1b}[31mUnauthorized",
            "X-Control: a\u{9b}31mb\r\nX-Bidi: \u{202e}evil\u{202c}\r\n",
            "\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}txt.exe\u{2066}\r\x08",
        ),
        status("302 Found", "Location: https://x.example/\u{1b}[1m\u{202e}\r\n", ""),
        raw("SSH\u{1b}[31m\u{202e}\r\n"),
    ] {
        let address = server(move |_, _| reply.clone());
        assert_rejected("escapes", address);
    }
    let behind =
        |bytes: Vec<u8>| server(move |head, _| accepted(head).and(&bytes).then(Then::Close));
    assert_rejected("a frame", behind(frame(0x81, "\u{1b}[2J\u{202e}")));
    assert_rejected("a close reason", behind(close(4000, "\u{1b}[2J\u{202e}")));
    assert_rejected("no frame", behind(b"<html>\x1b[2J</html>".to_vec()));
}

#[test]
fn slow_server_is_left_in_time() {
    let drips = listen(|mut stream| {
        Head::read(&mut stream).ok();
        for byte in
            b"HTTP/1.1 403 Forbidden\r\nX-Slow: 0123456789012345678901234567890123456789\r\n"
                .iter()
                .cycle()
        {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_rejected("drip", drips);
    let body_drips = listen(|mut stream| {
        Head::read(&mut stream).ok();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").ok();
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_rejected("a body that drips", body_drips);
}

#[test]
fn reset_at_every_byte_gets_a_verdict() {
    let response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello";
    let reset_after = |length| {
        listen(move |mut stream| {
            Head::read(&mut stream).ok();
            stream.write_all(&response[..length]).ok();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
        })
    };
    thread::scope(|scope| {
        for length in (0..response.len()).step_by(5) {
            scope.spawn(move || assert_rejected("reset", reset_after(length)));
        }
    });
}

/// A server that sends as much as it can, for as long as the client is there.
fn flood(
    head: impl Fn(&Head) -> Reply + Send + Sync + 'static,
    bytes: &'static [u8],
) -> SocketAddr {
    listen(move |stream| {
        let mut writing = stream.try_clone().unwrap();
        let mut reading = stream.try_clone().unwrap();
        let flood = move || {
            thread::sleep(Duration::from_millis(50));
            let block = bytes.repeat(100_000 / bytes.len() + 1);
            while writing.write_all(&block).is_ok() {}
        };
        let reply = |request: &Head| {
            thread::spawn(flood);
            head(request)
        };
        respond(&mut reading, &stream, reply).ok();
    })
}

/// The memory that the program held at most, in KiB.
fn peak_memory(address: SocketAddr) -> u64 {
    let mut command = program();
    command.args([&format!("ws://{address}/ws"), "--wait", "2", "--max-time", "4"]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let (start, mut peak) = (Instant::now(), 0);
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|high| high.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(high.unwrap_or(0));
        thread::sleep(Duration::from_millis(5));
    }
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn memory_and_time_are_bounded_in_a_flood() {
    let quiet = peak_memory(server(|head, _| accepted(head)));
    assert!(quiet > 0, "it is measured");
    for (name, bytes) in [
        ("frames", &b"\x82\x7e\x00\x04abcd"[..]),
        ("one frame", b"\x82\x7f\0\0\0\x01\0\0\0\0"),
        ("text", b"hello "),
    ] {
        let peak = peak_memory(flood(accepted, bytes));
        assert!(peak < quiet + 30_000, "{name}: {peak} KiB, and {quiet} KiB without");
    }
    let body = flood(|_| raw("HTTP/1.1 403 Forbidden\r\n\r\n").then(Then::Stay), b"body ");
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let interim = flood(move |_| raw(interim).then(Then::Stay), interim.as_bytes());
    for (name, address) in [("body", body), ("1xx", interim)] {
        let peak = peak_memory(address);
        assert!(peak < quiet + 30_000, "{name}: {peak} KiB, and {quiet} KiB without");
    }
}
