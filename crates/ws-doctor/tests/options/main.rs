//! Each option, by what arrives at the server.

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../made/serve.rs"]
#[allow(dead_code)]
mod serve;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Output,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    common::{Directory, program, run},
    serve::{Head, accepted, frame, listen, server, status},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn output(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.args(arguments).envs(environment.iter().copied());
    run(command)
}

fn json(arguments: &[&str], environment: &[(&str, &str)]) -> Value {
    let output = output(&[arguments, &["--json"]].concat(), environment);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A server that accepts, and the heads that it received.
fn recording() -> (SocketAddr, Receiver<String>) {
    let (sender, heads) = channel();
    let address = server(move |head, _| {
        sender.send(head.0.clone()).ok();
        accepted(head)
    });
    (address, heads)
}

/// The first request of a run.
fn request(url: &str, arguments: &[&str]) -> String {
    let (address, heads) = recording();
    let url = url.replace("{host}", &address.to_string());
    output(&[&[&*url], arguments].concat(), &[]);
    heads.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn request_follows_the_options() {
    let directory = Directory::new("options");
    let file = directory.write("token", "  from-file\n");
    let plain = "ws://{host}/ws";
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            plain,
            &[],
            &["GET /ws HTTP/1.1", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Chrome/"],
        ),
        (
            plain,
            &[],
            &[
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
                "Origin: http://127.0.0.1:",
            ],
        ),
        (
            plain,
            &["--as", "firefox"],
            &[
                "Connection: keep-alive, Upgrade",
                "Firefox/",
                "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            ],
        ),
        (plain, &["--as", "bare"], &["User-Agent: ws-doctor/", "!Origin", "!Extensions"]),
        (
            plain,
            &["--origin", "https://a.example", "--origin", "https://b.example"],
            &["Origin: https://a.example\r\n"],
        ),
        (
            plain,
            &["-H", "X-A: b", "-H", "User-Agent: me", "-H", "Pragma:", "-H", "X-Empty;"],
            &["X-A: b\r\n", "User-Agent: me\r\n", "!Pragma", "X-Empty: \r\n"],
        ),
        (
            plain,
            &["-H", "Origin: https://a.example", "-H", "Host: b.example"],
            &["Origin: https://a.example\r\n", "Host: b.example\r\n"],
        ),
        (
            plain,
            &["-H", "Sec-WebSocket-Protocol: a, b", "--subprotocol", "c"],
            &["Sec-WebSocket-Protocol: c, a, b\r\n"],
        ),
        (plain, &["-b", "a=b; c=d", "-b", "e=f"], &["Cookie: a=b; c=d; e=f\r\n"]),
        (plain, &["-u", "user:pw"], &["Authorization: Basic dXNlcjpwdw==\r\n"]),
        ("ws://user:pw@{host}/ws", &[], &["Authorization: Basic dXNlcjpwdw==\r\n", "!user:pw"]),
        (plain, &["-A", "me"], &["User-Agent: me\r\n"]),
        (plain, &["--token", "t0ken"], &["Authorization: Bearer t0ken\r\n"]),
        (plain, &["--token-file", &file], &["Authorization: Bearer from-file\r\n"]),
        (plain, &["--token", "u:p", "--token-in", "basic"], &["Authorization: Basic dTpw\r\n"]),
        (plain, &["--token", "t0ken", "--token-in", "header:X-Key"], &["X-Key: t0ken\r\n"]),
        (plain, &["--token", "t0ken", "--token-in", "cookie:sid"], &["Cookie: sid=t0ken\r\n"]),
        (
            "ws://{host}/ws?a=b",
            &["--token", "t0 ken", "--token-in", "query:the key"],
            &["GET /ws?a=b&the%20key=t0%20ken HTTP"],
        ),
        (
            plain,
            &["--token", "t0ken", "--token-in", "subprotocol:x."],
            &["Sec-WebSocket-Protocol: x.t0ken\r\n"],
        ),
        (
            plain,
            &["--token", "t0ken", "--token-in", "kubernetes", "--subprotocol", "v1"],
            &["Sec-WebSocket-Protocol: v1, base64url.bearer.authorization.k8s.io.dDBrZW4\r\n"],
        ),
        (
            plain,
            &["--token", "t0ken", "--token-in", "phoenix", "--subprotocol", "phoenix"],
            &["Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.dDBrZW4\r\n"],
        ),
        (
            plain,
            &["--token", "t0ken", "--token-in", "pair:Bearer"],
            &["Sec-WebSocket-Protocol: Bearer, t0ken\r\n"],
        ),
        (plain, &["--sec-websocket-version", "8"], &["Sec-WebSocket-Version: 8\r\n"]),
        ("WS://{host}/größe x?ä=1#f", &[], &["GET /gr%C3%B6%C3%9Fe%20x?%C3%A4=1 HTTP"]),
        ("{host}/ws", &[], &["GET /ws HTTP"]),
    ];
    for (url, arguments, wanted) in cases {
        let request = request(url, arguments);
        for word in *wanted {
            let (word, is_there) =
                word.strip_prefix('!').map_or((*word, true), |word| (word, false));
            assert_eq!(request.contains(word), is_there, "{arguments:?}: {word}: {request}");
        }
    }
}

/// What Chrome's network panel copies, with `ws-doctor` in place of `curl`, and more.
#[test]
fn command_of_curl_runs() {
    let arguments = [
        "-H",
        "Upgrade: websocket",
        "-H",
        "Origin: https://app.example",
        "-H",
        "Cache-Control: no-cache",
        "-H",
        "Accept-Language: de",
        "-H",
        "Pragma: no-cache",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "-H",
        "User-Agent: Mozilla/5.0 (X)",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "--compressed",
        "-sSiN",
        "-X",
        "GET",
        "--http1.1",
        "-o",
        "/dev/null",
        "--data-raw",
        "-x",
    ];
    let request = request("ws://{host}/ws", &arguments);
    for line in [
        "Accept-Language: de",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "User-Agent: Mozilla/5.0 (X)",
    ] {
        assert_eq!(request.matches(&format!("{line}\r\n")).count(), 1, "{request}");
    }
    for name in ["Upgrade: ", "Connection: ", "Origin: ", "Sec-WebSocket-Version: "] {
        assert_eq!(request.matches(&format!("\r\n{name}")).count(), 1, "{request}");
    }
    let (address, _heads) = recording();
    let report = json(&[&[&*format!("ws://{address}/")], &arguments[..]].concat(), &[]);
    assert_eq!(report["verdict"], "accepted", "{report}");
    let notes = report["notes"].to_string();
    assert!(
        ["--silent", "--request", "--data-raw"].iter().all(|name| notes.contains(name)),
        "{notes}"
    );
}

#[test]
fn wrong_command_line_is_explained_without_secrets() {
    for (arguments, wanted) in [
        (&[][..], "URL"),
        (&["ftp://a.example"], "scheme"),
        (&["ws://user:s3cr3t@a.example:99999/"], "port"),
        (&["ws://a.example", "ws://user:s3cr3t@b.example/"], "unexpected"),
        (&["ws://a.example", "--token", "s3cr3t", "--wrong"], "--wrong"),
        (&["ws://a.example", "--token-in", "query:a"], "--token"),
        (&["ws://a.example", "--token", "s3cr3t", "--token-in", "nowhere"], "authorization"),
        (&["ws://a.example", "--token", "s3cr3t s3cr3t", "--token-in", "pair:a"], "subprotocol"),
        (&["ws://a.example", "--origin", "https://a.example/path"], "https://a.example"),
        (&["ws://a.example", "-H", "nonsense"], "NAME: VALUE"),
        (&["ws://a.example", "--resolve", "a"], "HOST:PORT:ADDRESS"),
        (&["ws://a.example", "--connect-to", "a"], "HOST1:PORT1:HOST2:PORT2"),
        (&["ws://a.example", "-x", "ftp://a"], "socks5h://"),
        (&["ws://a.example", "--cacert", "/nowhere"], "--cacert: /nowhere"),
        (&["ws://a.example", "--key", "/nowhere"], "--cert"),
        (&["ws://a.example", "--direct", "b/path"], "HOST:PORT"),
        (&["ws://a.example", "--max-time", "0"], "seconds"),
    ] {
        let text = output(arguments, &[]);
        let error = String::from_utf8(text.stderr).unwrap();
        assert_eq!(
            (text.status.code(), text.stdout.len()),
            (Some(64), 0),
            "{arguments:?}: {error}"
        );
        let report = json(arguments, &[]);
        for error in [&*error, report["error"].as_str().unwrap()] {
            assert!(error.contains(wanted) && !error.contains("s3cr3t"), "{arguments:?}: {error}");
        }
        assert_eq!((&report["exit"], &report["accepted"]), (&64.into(), &false.into()));
    }
}

#[test]
fn redirect_is_followed_without_credentials_to_another_host() {
    let (target, heads) = recording();
    let location = format!("Location: http://{target}/elsewhere?x=y\r\n");
    let first = server(move |_, _| status("307 Temporary Redirect", &location, ""));
    let url = format!("ws://{first}/ws");
    let arguments = [&*url, "-L", "--token", "t0ken", "-b", "a=b", "-H", "X-API-Key: key"];
    let report = json(&arguments, &[]);
    assert_eq!(report["verdict"], "accepted", "{report}");
    assert_eq!(report["redirects"][0], format!("{url} (307)"));
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("GET /elsewhere?x=y HTTP"), "{head}");
    assert!(
        ["Authorization", "Cookie", "X-API-Key"].iter().all(|name| !head.contains(name)),
        "{head}"
    );
    assert_eq!(json(&[&url], &[])["verdict"], "redirected");
}

#[test]
fn redirects_end() {
    let address = server(|_, _| status("302 Found", "Location: /again\r\n", ""));
    let report = json(&[&format!("ws://{address}/"), "-L"], &[]);
    assert_eq!(
        (&report["verdict"], report["redirects"].as_array().unwrap().len()),
        (&"redirected".into(), 3)
    );
}

#[test]
fn direct_way_is_compared() {
    let (backend, heads) = recording();
    let proxy =
        server(|_, _| status("502 Bad Gateway", "Server: nginx\r\n", "<hr><center>nginx</center>"));
    let url = format!("ws://{proxy}/ws?a=b");
    let report = json(&[&url, "--direct", &backend.to_string(), "-H", "Host: chat.example"], &[]);
    let explanation = report["findings"][0]["explanation"].as_str().unwrap();
    assert!(explanation.contains(&format!("direct, at {backend}: accepted")), "{explanation}");
    assert_eq!(
        (&report["probes"][0]["probe"], &report["probes"][0]["accepted"]),
        (&"direct".into(), &true.into())
    );
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(
        head.starts_with("GET /ws?a=b HTTP") && head.contains("Host: chat.example\r\n"),
        "{head}"
    );
    // Rejected there, too: it is not the proxy.
    let down = server(|_, _| status("502 Bad Gateway", "", ""));
    let report = json(&[&url, "--direct", &down.to_string()], &[]);
    assert!(
        report["findings"][0]["explanation"]
            .as_str()
            .unwrap()
            .contains("the server itself is the cause"),
        "{report}"
    );
}

#[test]
fn ping_is_measured_and_pings_of_the_server_are_answered() {
    let (sender, pongs) = channel();
    let address = listen(move |stream| {
        let mut writing = stream.try_clone().unwrap();
        let mut reading = stream.try_clone().unwrap();
        let respond = |head: &Head| accepted(head).and(frame(0x89, "are you there"));
        let sender = sender.clone();
        let answer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            writing.write_all(&frame(0x8a, "ws-doctor")).ok();
        });
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && reading.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let reply = respond(&Head(String::from_utf8(head).unwrap()));
        reading.write_all(&reply.bytes).ok();
        let mut frames = Vec::new();
        reading.read_to_end(&mut frames).ok();
        sender.send(frames).ok();
        answer.join().unwrap();
    });
    let report = json(&[&format!("ws://{address}/"), "--as", "bare", "--ping", "--wait", "1"], &[]);
    assert!(report["socket"]["ping_ms"].is_u64(), "{report}");
    assert!((900..3000).contains(&report["socket"]["ms"].as_u64().unwrap()), "{report}");
    let frames = pongs.recv_timeout(PATIENCE).unwrap();
    let text = String::from_utf8_lossy(&frames);
    assert!(text.contains("ws-doctor") && text.contains("are you there"), "{text:?}");
}

/// A SOCKS 5 proxy that leads every name to `target`.
fn socks(target: SocketAddr) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (sender, names) = channel();
    let address = listen(move |mut client| {
        let mut serve = || -> std::io::Result<()> {
            let mut greeting = [0; 2];
            client.read_exact(&mut greeting)?;
            client.read_exact(&mut vec![0; greeting[1].into()])?;
            client.write_all(&[5, 0])?;
            let mut head = [0; 5];
            client.read_exact(&mut head)?;
            let mut rest = vec![0; if head[3] == 3 { usize::from(head[4]) + 2 } else { 5 }];
            client.read_exact(&mut rest)?;
            sender.send([&head[3..], &rest].concat()).ok();
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            let server = TcpStream::connect(target)?;
            let (mut to, mut from) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::io::copy(&mut server.try_clone()?, &mut client)?;
            Ok(())
        };
        serve().ok();
    });
    (address, names)
}

#[test]
fn forward_proxy_comes_from_the_option_or_the_environment() {
    let (target, _heads) = recording();
    let (proxy, names) = socks(target);
    let url = "ws://chat.example/ws";
    let socks_url = format!("socks5h://{proxy}");
    let report = json(&[url, "-x", &socks_url], &[]);
    assert_eq!(report["verdict"], "accepted", "{report}");
    assert!(report["connection"]["proxy"].as_str().unwrap().contains("-x"), "{report}");
    let name = names.recv_timeout(PATIENCE).unwrap();
    assert_eq!(name, [&[3, 12][..], b"chat.example", &80_u16.to_be_bytes()].concat());

    let report = json(&[url], &[("ALL_PROXY", &socks_url)]);
    assert_eq!(report["verdict"], "accepted", "{report}");
    assert!(report["connection"]["proxy"].as_str().unwrap().contains("ALL_PROXY"), "{report}");

    let here = format!("ws://{target}/");
    for (arguments, environment) in [
        (&[][..], ("NO_PROXY", "127.0.0.1")),
        (&["--noproxy", "*"], ("NO_PROXY", "")),
        (&["-x", ""], ("NO_PROXY", "")),
    ] {
        let report =
            json(&[&[&*here], arguments].concat(), &[("ALL_PROXY", &socks_url), environment]);
        assert!(
            report["connection"]["proxy"].is_null() && report["verdict"] == "accepted",
            "{report}"
        );
    }
}

/// A server of HTTP/2 without TLS. `enabled`: with extended CONNECT.
fn http2(enabled: bool, status: u16) -> SocketAddr {
    let (sender, address) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if enabled {
                        builder.enable_connect_protocol();
                    }
                    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await
                    else {
                        return;
                    };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let is_handshake = request
                            .extensions()
                            .get::<h2::ext::Protocol>()
                            .is_some_and(|p| p.as_str() == "websocket");
                        let response = http::Response::builder().status(if is_handshake {
                            status
                        } else {
                            400
                        });
                        let body =
                            response.header("x-path", request.uri().path()).body(()).unwrap();
                        let mut send = respond.send_response(body, status != 200).unwrap();
                        if status == 200 {
                            send.send_data(frame(0x81, "over HTTP/2").into(), false).ok();
                            // Until the client leaves.
                            tokio::spawn(async move {
                                let mut body = request.into_body();
                                while body.data().await.is_some() {}
                                drop(send);
                            });
                        }
                    }
                });
            }
        });
    });
    address.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn http2_is_spoken() {
    let report = json(&[&format!("ws://{}/chat", http2(true, 200)), "--http2"], &[]);
    assert_eq!(report["verdict"], "accepted", "{report}");
    assert_eq!(report["socket"]["frames"][0]["text"], "over HTTP/2", "{report}");
    assert!(report["response"]["head"].as_str().unwrap().contains("x-path: /chat"), "{report}");
    let report = json(&[&format!("ws://{}/", http2(true, 403)), "--http2"], &[]);
    assert_eq!(
        (&report["verdict"], &report["exit"]),
        (&"origin-undecided".into(), &1.into()),
        "{report}"
    );
    let report = json(&[&format!("ws://{}/", http2(false, 200)), "--http2"], &[]);
    assert_eq!(
        (&report["verdict"], &report["exit"]),
        (&"no-websocket-here".into(), &2.into()),
        "{report}"
    );
    let (address, _heads) = recording();
    let report = json(&[&format!("ws://{address}/"), "--http2", "--max-time", "3"], &[]);
    assert_eq!((&report["verdict"], &report["exit"]), (&"not-http".into(), &2.into()), "{report}");
}

#[test]
fn man_page_and_completions_are_generated() {
    for (what, wanted) in [
        ("man", ".TH ws-doctor 1"),
        ("bash", "_ws__doctor"),
        ("zsh", "#compdef ws-doctor"),
        ("fish", "complete -c ws-doctor"),
    ] {
        let printed = output(&["--generate", what], &[]);
        assert!(String::from_utf8(printed.stdout).unwrap().contains(wanted), "{what}");
    }
    let version = output(&["--version"], &[]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("ws-doctor {}\n", env!("CARGO_PKG_VERSION"))
    );
}
