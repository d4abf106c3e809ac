//! The cases of Autobahn|Testsuite about compression, against the example server.

use std::{env, process::Command};

use crate::server::Server;

/// A case of each kind, with messages of 256 bytes to 128 KiB, whole and in fragments. All of them
/// take minutes: `AUTOBAHN_CASES='12.* 13.*'`.
const CASES: &str = "12.*.3 12.*.7 12.*.11 12.1.10 12.1.18 13.*.3 13.*.7 13.*.11";

#[test]
#[ignore = "needs Python 3 with venv, and PyPI"]
fn compression_cases_pass() {
    let cases = env::var("AUTOBAHN_CASES").unwrap_or_else(|_| CASES.to_owned());
    let server = Server::start(&["--deflate", "--allow-missing-origin"]);
    let status = Command::new("tests/autobahn/run")
        .arg(format!("ws://{}/ws", server.address))
        .args(cases.split_whitespace())
        .env("AUTOBAHN_PARALLEL", "2")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
