//! The whole text that the program prints for the most common failures. `INSTA_UPDATE=always cargo test -p ws-doctor --test text`
//! writes the snapshots: read them as a stranger would.

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../made/serve.rs"]
#[allow(dead_code)]
mod serve;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

use crate::{
    common::{program, run},
    serve::{Head, Reply, Then, accepted, close, listen, respond, server, status, switch},
};

const PAGE: &str = "https://app.example.com";

/// Runs the program, and replaces what differs between runs.
fn text(address: SocketAddr, arguments: &[&str]) -> String {
    let mut command = program();
    let fill = |argument: &&str| argument.replace("{port}", &address.port().to_string());
    command.args(arguments.iter().map(fill));
    let output = String::from_utf8(run(command).stdout).unwrap();
    let output = output.replace(&address.port().to_string(), "PORT");
    let nonce = ["Sec-WebSocket-Key: ", "Sec-WebSocket-Accept: "];
    let lines = output.lines().map(|line| match nonce.iter().find(|name| line.contains(**name)) {
        Some(name) => format!("  {name}NONCE"),
        None => numbers(line),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Times and days become `N`.
fn numbers(line: &str) -> String {
    let words = line.split(' ').collect::<Vec<_>>();
    let is_unit = |word: Option<&&str>| {
        word.is_some_and(|word| {
            ["ms", "days", "s"].contains(&word.trim_end_matches([',', ')', ':', ';', '.']))
        })
    };
    let shown = words.iter().enumerate().map(|(at, word)| {
        if is_unit(words.get(at + 1))
            && word.trim_start_matches('(').starts_with(|c: char| c.is_ascii_digit())
        {
            "N"
        } else {
            word
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn case(
    name: &str,
    reply: impl Fn(&Head, usize) -> Reply + Send + Sync + 'static,
    arguments: &[&str],
) {
    let url = ["ws://127.0.0.1:{port}/ws"];
    insta::assert_snapshot!(name, text(server(reply), &[&url[..], arguments].concat()));
}

fn ordinary(head: &Head, reply: Reply) -> Reply {
    if head.upgrades() { reply } else { status("426 Upgrade Required", "", "an upgrade is needed") }
}

#[test]
fn accepted_socket() {
    case(
        "accepted",
        |head, _| accepted(head).and(serve::frame(0x81, "welcome")),
        &["--origin", "http://localhost:3000"],
    );
}

#[test]
fn nothing_listens() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    insta::assert_snapshot!(
        "connection_refused",
        text(address, &["ws://127.0.0.1:{port}/ws", "--origin", PAGE])
    );
}

#[test]
fn upgrade_is_lost_in_nginx() {
    let body = "Can \"Upgrade\" only to \"WebSocket\".";
    case(
        "upgrade_stripped",
        move |_, _| status("400 Bad Request", "Server: nginx/1.22.1\r\n", body),
        &["--origin", PAGE],
    );
}

#[test]
fn origin_is_not_allowed() {
    let reply = |head: &Head, _| {
        ordinary(
            head,
            if head.origin() == Some(PAGE) {
                status("403 Forbidden", "", "")
            } else {
                accepted(head)
            },
        )
    };
    case("origin_rejected", reply, &["--origin", PAGE]);
}

#[test]
fn proxy_changes_host() {
    let reply = |head: &Head, _| match head.origin() {
        None => accepted(head),
        Some(_) => status(
            "403 Forbidden",
            "Server: nginx/1.22.1\r\n",
            "Cross origin websockets not allowed",
        ),
    };
    case("host_changed", reply, &[]);
}

#[test]
fn every_origin_is_rejected() {
    case(
        "origin_undecided",
        |head, _| ordinary(head, status("403 Forbidden", "", "no")),
        &["--origin", PAGE],
    );
}

#[test]
fn credential_is_missing() {
    let reply = |head: &Head, _| {
        ordinary(head, status("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", ""))
    };
    case("unauthorized", reply, &["--origin", PAGE]);
}

#[test]
fn path_is_wrong() {
    let body = "<!DOCTYPE html><html><head><title>Not here</title></head><body><h1>Not here</h1></body></html>";
    case(
        "not_found",
        move |_, _| status("404 Not Found", "Content-Type: text/html\r\n", body),
        &["--origin", PAGE],
    );
}

#[test]
fn server_redirects_to_https() {
    let reply = |_: &Head, _| {
        status("301 Moved Permanently", "Location: https://127.0.0.1:8443/ws\r\n", "")
    };
    case("redirected", reply, &["--origin", PAGE]);
}

#[test]
fn server_behind_nginx_is_down() {
    let body = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n\
                <hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";
    let lines = "Server: nginx/1.22.1\r\nContent-Type: text/html\r\n";
    case("intermediary", move |_, _| status("502 Bad Gateway", lines, body), &["--origin", PAGE]);
}

#[test]
fn port_speaks_tls() {
    let body = "<center>The plain HTTP request was sent to HTTPS port</center>\r\n<hr><center>nginx/1.22.1</center>\r\n";
    let lines = "Server: nginx/1.22.1\r\nContent-Type: text/html\r\n";
    case("tls_port", move |_, _| status("400 Bad Request", lines, body), &["--origin", PAGE]);
}

#[test]
fn server_closes_at_once() {
    let reply = |head: &Head, _| accepted(head).and(close(1008, "no session")).then(Then::Close);
    case("closed_at_once", reply, &["--origin", PAGE]);
}

#[test]
fn accept_value_is_wrong() {
    let reply = |head: &Head, _| {
        switch(&format!("Sec-WebSocket-Accept: {}\r\n", head.get("sec-websocket-key").unwrap()))
    };
    let address = server(reply);
    let text = text(
        address,
        &[
            "ws://127.0.0.1:{port}/ws",
            "-H",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "--origin",
            PAGE,
        ],
    );
    insta::assert_snapshot!("accept_wrong", text);
}

/// A server behind TLS, with a certificate of its own.
fn secure(change: impl FnOnce(&mut CertificateParams)) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["chat.example.com".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap());
    listen(move |stream| {
        let tcp = stream.try_clone().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        respond(&mut stream, &tcp, accepted).ok();
        stream.flush().ok();
    })
}

#[test]
fn certificate_is_self_signed() {
    let address = secure(|_| {});
    let way = ["--resolve", "chat.example.com:{port}:127.0.0.1"];
    let arguments = [&["wss://chat.example.com:{port}/ws", "--origin", PAGE][..], &way].concat();
    insta::assert_snapshot!("tls_untrusted", text(address, &arguments));
}

#[test]
fn port_does_not_speak_tls() {
    let address = server(|head, _| accepted(head));
    insta::assert_snapshot!(
        "plain_port",
        text(address, &["wss://127.0.0.1:{port}/ws", "--max-time", "8", "--origin", PAGE])
    );
}
