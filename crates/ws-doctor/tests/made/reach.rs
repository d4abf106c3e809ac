//! No response, or not from here.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    common::{Expected, assert_none},
    serve::{
        Head, Reply, Then, accept, accepted, case, check, check_at, listen, raw, read_something,
        respond, server, status,
    },
};

fn expected<'a>(exit: i32, codes: &'a [&'a str], words: &'a [&'a str]) -> Expected<'a> {
    Expected { exit, codes, words }
}

/// Bound but not listening, so that no other process gets the port.
fn closed_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Like a firewall that drops packets: with a full queue the system ignores further connections.
fn full_queue(address: SocketAddr) -> (Socket, Vec<TcpStream>, SocketAddr) {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue has no end");
    }
    (listener, waiting, address)
}

#[test]
fn failure_before_the_request_is_named() {
    let mut failed = Vec::new();
    let (_socket, closed) = closed_port();
    for url in ["ws://{host}/ws", "wss://{host}/ws"] {
        failed.extend(check_at(
            url,
            url,
            closed,
            &[],
            expected(2, &["connection-refused"], &["port"]),
        ));
    }
    failed.extend(check_at(
        "no such name",
        "ws://doctor.invalid/ws",
        closed,
        &[],
        expected(2, &["dns-failed"], &["name"]),
    ));
    let (_listener, _waiting, full) = full_queue((Ipv4Addr::LOCALHOST, 0).into());
    let timeout = expected(2, &["connection-timeout"], &["firewall"]);
    failed.extend(check_at("dropped", "ws://{host}/ws", full, &["--max-time", "2"], timeout));

    let reset = listen(|mut stream| {
        stream.read_exact(&mut [0]).ok();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
    });
    failed.extend(check_at(
        "reset in TLS",
        "wss://{host}/ws",
        reset,
        &[],
        expected(2, &["connection-reset"], &["TLS"]),
    ));
    assert_none(&failed);
}

#[test]
fn plain_port_is_found_by_tls() {
    let waits = server(|head, _| accepted(head));
    let says = listen(|mut stream| {
        read_something(&mut stream);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        read_something(&mut stream);
    });
    let plain = expected(2, &["plain-port"], &["ws:"]);
    assert_none(
        &[
            check_at("waits", "wss://{host}/ws", waits, &["--max-time", "6"], plain),
            check_at("responds", "wss://{host}/ws", says, &[], plain),
        ]
        .concat(),
    );
}

#[rustfmt::skip]
#[test]
fn something_else_than_http_is_named() {
    assert_none(&check(&[
        case("SSH", |_, _| raw("SSH-2.0-OpenSSH_9.2\r\n"), &[], 2, &["not-http"], &["SSH"]),
        case("h2c", |_, _| raw(*b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x01"), &[], 2, &["http2-only"], &["HTTP/2"]),
        case("hang-up", |_, _| raw(""), &[], 2, &["connection-reset"], &["log"]),
        case("reset", |_, _| raw("").then(Then::Reset), &[], 2, &["connection-reset"], &["log"]),
        case("silence", |_, _| raw("").then(Then::Stay), &["--max-time", "3"], 2, &["no-response"], &["subprotocol"]),
    ]));
}

#[test]
fn forward_proxy_is_used_and_named() {
    let proxy = |response: &'static str| {
        listen(move |stream| {
            let mut reading = stream.try_clone().unwrap();
            respond(&mut reading, &stream, |head| {
                assert!(head.0.starts_with("CONNECT server.example:80 "), "{head:?}");
                raw(response)
            })
            .ok();
        })
    };
    let arguments = &["-x", "http://{host}"];
    let url = "ws://server.example/ws";
    assert_none(
        &[
            check_at(
                "403",
                url,
                proxy("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
                arguments,
                expected(2, &["proxy-failed"], &["403"]),
            ),
            check_at(
                "407",
                url,
                proxy("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
                arguments,
                expected(2, &["proxy-login"], &["407", "-x"]),
            ),
        ]
        .concat(),
    );
}

fn reply_on(listener: TcpListener, reply: fn(&Head) -> Reply) {
    accept(listener, move |stream| {
        let mut reading = stream.try_clone().unwrap();
        respond(&mut reading, &stream, reply).ok();
    });
}

/// Two listeners on one port, if this machine has IPv6.
fn both_families() -> Option<(TcpListener, TcpListener, u16)> {
    (0..10).find_map(|_| {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = four.local_addr().unwrap().port();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok()?;
        Some((four, six, port))
    })
}

#[test]
fn addresses_of_localhost_are_compared() {
    let Some((four, six, port)) = both_families() else {
        return eprintln!("not tested: there is no IPv6");
    };
    reply_on(four, accepted);
    reply_on(six, |_| status("404 Not Found", "", "another server"));
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let differ = expected(1, &["addresses-differ"], &["::1", "127.0.0.1"]);
    assert_none(&check_at("IPv4 works", "ws://localhost:{port}/ws", address, &[], differ));
    assert_none(&check_at(
        "IPv4 alone",
        "ws://localhost:{port}/ws",
        address,
        &["-4"],
        expected(0, &[], &[]),
    ));
}

#[test]
fn dead_ipv6_is_passed_by() {
    let Ok(six) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return eprintln!("not tested: there is no IPv6");
    };
    let port = six.local_addr().unwrap().port();
    drop(six);
    let (_listener, _waiting, _) = full_queue((Ipv6Addr::LOCALHOST, port).into());
    reply_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap(), accepted);
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let resolve = &["--resolve", "server.example:{port}:[::1],127.0.0.1"];
    let dead = expected(0, &["dead-ipv6"], &["::1"]);
    assert_none(&check_at("IPv6 hangs", "ws://server.example:{port}/ws", address, resolve, dead));
}
