//! `--explain`, without the network.

use crate::common::{program, run};

/// Text of a reporter, and words of the explanation.
#[rustfmt::skip]
const CASES: &[(&str, &[&str])] = &[
    ("WebSocket connection to 'wss://chat.example/ws' failed: Error during WebSocket handshake: Unexpected response code: 400", &["removed `Upgrade`"]),
    ("Unexpected server response: 404", &["Upgrade"]),
    ("Unexpected response code: 464", &["HTTP/1.1"]),
    ("522", &["Cloudflare"]),
    ("431", &["cookies"]),
    ("407", &["proxy"]),
    ("ESP32", &["sec-websocket-accept"]),
    ("failed: Invalid frame header", &["101"]),
    ("A server must not mask any frames that it sends to the client.", &["masked"]),
    ("net::ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS_CHECKS", &["147"]),
    ("AH01146: Ignoring parameter 'upgrade=websocket' for worker 'http://127.0.0.1:9301/'", &["ProxyPass"]),
    ("Firefox can’t establish a connection to the server at wss://chat.example/ws.", &["network panel"]),
    ("Firefox can't establish a connection to the server at wss://chat.example/ws.", &["network panel"]),
    ("close code 1006", &["1006"]),
    ("1008", &["policy"]),
    ("4401", &["unauthorized"]),
    ("WebSocket is closed before the connection is established.", &["close()"]),
    ("No supported WebSocket library detected", &["uvicorn[standard]"]),
    ("{\"code\":1,\"message\":\"Session ID unknown\"}", &["sticky"]),
    ("curl: (52) Empty reply from server", &["response"]),
    ("connect ECONNREFUSED ::1:3000", &["127.0.0.1"]),
    ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", &["CA:FALSE"]),
    ("OSStatus Error -9807: Invalid certificate chain", &["certificate"]),
    ("net::ERR_SSL_CLIENT_AUTH_CERT_NEEDED", &["client certificate"]),
    ("upgrade-stripped", &["Upgrade"]),
    ("origin-not-allowed", &["origin"]),
];

#[test]
fn message_of_a_reporter_is_explained() {
    let mut failed = Vec::new();
    for (text, words) in CASES {
        let mut command = program();
        command.args(["--explain", text]);
        let output = run(command);
        let printed = String::from_utf8(output.stdout).unwrap();
        let lower = printed.to_lowercase();
        if !output.status.success()
            || words.iter().any(|word| !lower.contains(&word.to_lowercase()))
        {
            failed.push(format!("{text}: no {words:?} in {printed:?}"));
        }
    }
    crate::common::assert_none(&failed);
}

#[test]
fn unknown_text_is_not_explained() {
    let mut command = program();
    command.args(["--explain", "the coffee is cold"]);
    let output = run(command);
    assert!(!String::from_utf8(output.stdout).unwrap().contains("Chromium"));
}
