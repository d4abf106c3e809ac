use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use ws_handshake_suite::Target;

use crate::server::{self, HOSTILE, ORIGIN, SUBPROTOCOL, TOKEN};

fn suite(target: &Target, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ws-handshake-suite"))
        .args([&*target.url, "--timeout", "2", "--name", "a <server>"])
        .args(["--origin", ORIGIN, "--hostile-origin", HOSTILE, "--require-origin"])
        .args(["--token", TOKEN, "--subprotocol", SUBPROTOCOL])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

#[test]
fn text_shows_the_request_and_response_of_a_failure() {
    let output = suite(&server::start("version-zero"), &["--only", "version"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output.stdout);
    assert!(text.contains("fail           MUST   version.leading-zero"), "{text}");
    assert!(text.contains("> Sec-WebSocket-Version: 013"), "{text}");
    assert!(text.contains("< HTTP/1.1 101 "), "{text}");
    assert!(text.contains("MUST      7 pass    0 lenient    1 fail"), "{text}");
}

#[test]
fn json_has_cases_and_a_summary() {
    let output = suite(&server::start(""), &["--json", "--only", "key", "--only", "host.missing"]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["name"], "a <server>");
    let cases = report["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["id"] == "key.missing").unwrap();
    assert_eq!(case["rfc"], "RFC 6455 4.2.1 (5)");
    assert_eq!((&case["level"], &case["verdict"]), (&"MUST".into(), &"pass".into()));
    assert_eq!(report["summary"]["must"]["pass"], 4);
    assert!(cases.iter().all(|case| !case["id"].as_str().unwrap().starts_with("version")));
}

#[test]
fn junit_counts_failures() {
    let path = file("junit.xml");
    let flags = ["--only", "version", "--junit", path.to_str().unwrap()];
    suite(&server::start("version-zero"), &flags);
    let xml = fs::read_to_string(path).unwrap();
    assert!(
        xml.contains(r#"<testsuite name="a &lt;server&gt;" tests="10" failures="1" "#),
        "{xml}"
    );
    assert!(xml.contains(r#"<failure message="accepted">"#), "{xml}");
    assert!(xml.contains(r#"name="version.leading-zero""#), "{xml}");
}

#[test]
fn a_page_of_several_reports_has_a_column_for_each() {
    let paths = [file("one.json"), file("two.json"), file("table.html"), file("table.md")];
    let [one, two, page, table] = paths.each_ref().map(|path| path.to_str().unwrap());
    for (fault, path) in [("", one), ("version-zero", two)] {
        let output = suite(&server::start(fault), &["--json", "--only", "version"]);
        fs::write(path, output.stdout).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ws-handshake-suite"))
        .args(["--merge", one, two, "--report", page, "--markdown", table])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("WebSocket handshake: 2 servers"), "{page}");
    assert_eq!(page.matches("<span>a &lt;server&gt;</span>").count(), 2);
    for network in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.split("<pre>").next().unwrap().contains(network), "{network}");
    }
    let table = fs::read_to_string(table).unwrap();
    assert!(table.contains("`version.leading-zero`"), "{table}");
    assert!(table.contains("| a <server> | 8 | 0 | 0 |"), "{table}");
    assert!(table.contains("| a <server> | 7 | 0 | 1 |"), "{table}");
}

#[test]
fn list_names_every_case_without_a_server() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ws-handshake-suite")).arg("--list").output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), ws_handshake_suite::cases().len());
}
