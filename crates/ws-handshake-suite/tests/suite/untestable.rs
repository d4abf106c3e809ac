use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output},
    sync::Arc,
    thread,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::server;

fn suite(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ws-handshake-suite"))
        .args(["--timeout", "2"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The exit code 2, and these words.
fn assert_untestable(arguments: &[&str], words: &str) {
    let output = suite(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(error.contains(words), "{arguments:?}: {error}");
}

/// A server that says the same to everybody.
fn answers(response: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(response.as_bytes()));
        }
    });
    url
}

#[test]
fn a_cause_that_says_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_untestable(&[&format!("ws://{free}/")], "cannot connect");
    let guarded = server::start("").url;
    assert_untestable(&[&guarded], "403; does it want an --origin?");
    assert_untestable(&[&guarded, "--origin", server::ORIGIN], "401; does it want a --token");
    assert_untestable(&[&answers("HTTP/1.1 404 Not Found\r\n\r\n")], "404; is the path right?");
    assert_untestable(&[&answers("")], "closes the connection of a well-formed handshake");
    assert_untestable(&[&answers("220 mail\r\n\r\n")], "does not speak HTTP/1.1");
    assert_untestable(&["http://127.0.0.1/"], "it must begin with ws:// or wss://");
    assert_untestable(&[&guarded, "--only", "nothing"], "no case has the name of --only");
}

#[test]
fn a_silent_server_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    assert_untestable(&[&url], "does not respond to a well-formed handshake within 2s");
}

#[test]
fn an_endless_response_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
            while stream.write_all(&[b'a'; 65536]).is_ok() {}
        }
    });
    assert_untestable(&[&url], "does not speak HTTP/1.1");
}

#[test]
fn any_certificate_is_accepted_with_k_only() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".into()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(server, stream);
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        }
    });
    assert_untestable(&[&url], "use -k to accept any certificate");
    let output = suite(&[&url, "-k", "--only", "response.accept"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn endless_settings_do_not_prolong_a_case() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap_or(0);
                if !bytes[..length].starts_with(b"PRI") {
                    drop(stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
                    return;
                }
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(1000);
                while stream.write_all(&settings).is_ok() {
                    drop(stream.read(&mut bytes));
                }
            });
        }
    });
    let output = suite(&[&url, "--only", "http2.setting"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("the server does not speak HTTP/2"), "{text}");
}
