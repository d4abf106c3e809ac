//! The example server with clients that spell a handshake in their own ways, each as an operator would set the server up
//! for it. `tests/clients/install` installs them; `raw_clients` has those that cannot be installed.

use std::{
    io::Read,
    net::TcpListener,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    clients::{TEXT, run},
    server::Server,
};

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// With this subprotocol.
    Accepted(&'static str),
    Rejected(u16),
}

use Outcome::{Accepted, Rejected};

/// In all texts `{port}` is the port of the server, and `{other}` that of another one.
#[derive(Clone, Copy, Debug)]
struct Case {
    flags: &'static [&'static str],
    url: &'static str,
    /// The argument as JSON, or nothing.
    protocols: &'static str,
    /// For scripts: where they are.
    page: &'static str,
    outcome: Outcome,
    /// For each rejection, what the operator reads in the log, beginning with the code.
    log: &'static [&'static [&'static str]],
}

const VALID: Case = Case {
    flags: &[],
    url: "ws://localhost:{port}/ws",
    protocols: "",
    page: "http://localhost:{port}/ws",
    outcome: Accepted(""),
    log: &[],
};

/// What a client cannot tell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Untold {
    Nothing,
    Status,
    StatusAndProtocol,
}

/// A server with the ports that the texts of its case mention.
struct Setup {
    server: Server,
    other: u16,
}

impl Setup {
    fn start(case: &Case, mode: &str, other: u16) -> Self {
        let flags: Vec<_> =
            case.flags.iter().map(|flag| flag.replace("{other}", &other.to_string())).collect();
        let flags: Vec<_> = flags.iter().map(|flag| &**flag).chain(["--mode", mode]).collect();
        let listen = if case.url.contains('[') { "[::1]:0" } else { "127.0.0.1:0" };
        Self { server: Server::start_on(listen, &flags), other }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.server.address.port().to_string())
            .replace("{other}", &self.other.to_string())
    }

    /// What the client reads.
    fn input(&self, case: &Case) -> Value {
        let mut input =
            json!({ "url": self.fill(case.url), "page": self.fill(case.page), "text": TEXT });
        if !case.protocols.is_empty() {
            input["protocols"] = serde_json::from_str(case.protocols).unwrap();
        }
        input
    }
}

/// All cases in one run of the client, each with a server of its own. Checks all before it fails.
fn check(program: &[&str], untold: Untold, cases: &[Case]) {
    let other = Server::start(&[]);
    let mut failed = Vec::new();
    for mode in ["guard", "responder"] {
        let start = |case| Setup::start(case, mode, other.address.port());
        let setups: Vec<_> = cases.iter().map(start).collect();
        let inputs: Vec<_> =
            setups.iter().zip(cases).map(|(setup, case)| setup.input(case)).collect();
        let results = run(program, &inputs);
        assert_eq!(results.len(), cases.len());
        for ((case, setup), seen) in cases.iter().zip(&setups).zip(&results) {
            let check = AssertUnwindSafe(|| check_case(case, setup, untold, seen));
            if catch_unwind(check).is_err() {
                failed.push((mode, case));
            }
        }
    }
    assert!(failed.is_empty(), "{program:?} {failed:?}");
}

fn check_case(case: &Case, setup: &Setup, untold: Untold, seen: &Value) {
    let context = format!("{case:?}: {seen}");
    assert_eq!(seen["error"], Value::Null, "{context}");
    let (told, expected) = match case.outcome {
        Accepted(_) if untold == Untold::StatusAndProtocol => (&seen["protocol"], Value::Null),
        Accepted(protocol) => (&seen["protocol"], json!(protocol)),
        Rejected(_) if untold != Untold::Nothing => (&seen["status"], Value::Null),
        Rejected(status) => (&seen["status"], json!(status)),
    };
    assert_eq!(*told, expected, "{context}");
    let accepted = matches!(case.outcome, Accepted(_));
    assert_eq!(seen["echo"], if accepted { json!(TEXT) } else { Value::Null }, "{context}");

    for words in case.log {
        let rejection = setup.server.rejection();
        assert!(rejection.starts_with(&format!("{}: ", words[0])), "{context}: {rejection}");
        for word in *words {
            assert!(rejection.contains(&setup.fill(word)), "no {word:?}: {context}: {rejection}");
        }
    }
    assert!(setup.server.has_no_more_rejections(), "{context}");
}

const HOST_WITHOUT_BRACKETS: Case = Case {
    url: "ws://[::1]:{port}/ws",
    outcome: Rejected(400),
    log: &[&["host-invalid", "`::1:{port}`", "IPv6 address", "brackets"]],
    ..VALID
};

const HOST_WITHOUT_BRACKETS_IN_FULL: Case = Case {
    url: "ws://[0:0:0:0:0:0:0:1]:{port}/ws",
    log: &[&["host-invalid", "`0:0:0:0:0:0:0:1:{port}`", "IPv6 address", "brackets"]],
    ..HOST_WITHOUT_BRACKETS
};

/// It writes the host in `Origin` and `Host` as the user wrote it.
#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_paho_mqtt() {
    const MQTT: Case = Case { flags: &["--subprotocol", "mqtt"], ..VALID };
    check(
        &["venv/bin/python", "paho_client.py"],
        Untold::StatusAndProtocol,
        &[
            MQTT,
            Case { url: "ws://LOCALHOST:{port}/ws", ..MQTT },
            Case {
                flags: &["--subprotocol", "mqtt", "--allow-host", "mypi.local:*"],
                url: "ws://MyPi.local:{port}/ws",
                ..MQTT
            },
            Case {
                flags: &[
                    "--subprotocol",
                    "mqtt",
                    "--allow-host",
                    "MYPI.local:*",
                    "--allow-origin",
                    "http://mypi.local:*",
                ],
                url: "ws://MyPi.local:{port}/ws",
                ..MQTT
            },
            Case { flags: MQTT.flags, ..HOST_WITHOUT_BRACKETS },
            Case { flags: MQTT.flags, ..HOST_WITHOUT_BRACKETS_IN_FULL },
            Case {
                flags: &[],
                outcome: Rejected(400),
                log: &[&["subprotocol-unsupported", "mqtt"]],
                ..MQTT
            },
        ],
    );
}

/// It writes an IPv6 address in `Origin` and `Host` as the user wrote it.
#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_websocket_client() {
    const IN_FULL: Case = Case { url: "ws://[0:0:0:0:0:0:0:1]:{port}/ws", ..VALID };
    check(
        &["venv/bin/python", "websocket_client.py"],
        Untold::Nothing,
        &[
            VALID,
            Case { url: "ws://[::1]:{port}/ws", ..VALID },
            IN_FULL,
            Case { flags: &["--allow-origin", "http://[::1]:*"], ..IN_FULL },
            Case { flags: &["--allow-host", "[0:0::1]:*"], ..IN_FULL },
            Case {
                flags: &["--allow-origin", "http://localhost:*"],
                outcome: Rejected(403),
                log: &[&["origin-not-allowed", "`http://[0:0:0:0:0:0:0:1]:{port}`"]],
                ..IN_FULL
            },
        ],
    );
}

/// Its `Origin` has the scheme of the URL: `ws://localhost:3000`.
#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_ws4py() {
    check(
        &["venv/bin/python", "ws4py_client.py"],
        Untold::Nothing,
        &[
            VALID,
            Case { flags: &["--allow-origin", "http://localhost:*"], ..VALID },
            Case {
                flags: &["--subprotocol", "chat"],
                protocols: r#"["chat"]"#,
                outcome: Accepted("chat"),
                ..VALID
            },
            Case {
                flags: &["--allow-origin", "http://localhost"],
                outcome: Rejected(403),
                log: &[&["origin-not-allowed", "`ws://localhost:{port}`"]],
                ..VALID
            },
            HOST_WITHOUT_BRACKETS,
        ],
    );
}

const WITHOUT_ORIGIN: Case = Case { flags: &["--allow-missing-origin"], ..VALID };

/// An empty list is sent as an empty `Sec-WebSocket-Protocol`.
const OF_NO_PROTOCOLS: [Case; 2] = [
    Case { protocols: "[]", ..WITHOUT_ORIGIN },
    Case {
        flags: &["--allow-missing-origin", "--subprotocol", "chat"],
        protocols: "[]",
        ..WITHOUT_ORIGIN
    },
];

const BASIC: &[&str] = &[
    "--allow-missing-origin",
    "--token",
    "user:pass",
    "--token",
    "user:p@ss",
    "--token-from",
    "basic",
];

/// In the URL.
const OF_CREDENTIALS: [Case; 3] = [
    Case { flags: BASIC, url: "ws://user:pass@localhost:{port}/ws", ..WITHOUT_ORIGIN },
    Case {
        flags: BASIC,
        url: "ws://user:guess@localhost:{port}/ws",
        outcome: Rejected(401),
        log: &[&["token-invalid"]],
        ..WITHOUT_ORIGIN
    },
    Case { flags: BASIC, outcome: Rejected(401), log: &[&["token-missing"]], ..WITHOUT_ORIGIN },
];

/// It sends no `Origin`, and `Host` in lower case.
#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_websockets() {
    let cases = [
        WITHOUT_ORIGIN,
        Case { flags: &["--no-browsers"], ..WITHOUT_ORIGIN },
        Case { flags: BASIC, url: "ws://user:p%40ss@localhost:{port}/ws", ..WITHOUT_ORIGIN },
        Case {
            flags: &[],
            outcome: Rejected(403),
            log: &[&["origin-missing", "allow_missing"]],
            ..WITHOUT_ORIGIN
        },
        // A name with its trailing dot, as resolvers with search domains make it.
        Case { url: "ws://localhost.:{port}/ws", ..WITHOUT_ORIGIN },
        Case {
            flags: &["--allow-missing-origin", "--allow-host", "chat.example.com:*"],
            url: "ws://chat.example.com.:{port}/ws",
            ..WITHOUT_ORIGIN
        },
        // A name that an attacker's DNS gave this address.
        Case {
            url: "ws://rebind.example.com:{port}/ws",
            outcome: Rejected(421),
            log: &[&["host-not-allowed", "`rebind.example.com:{port}`"]],
            ..WITHOUT_ORIGIN
        },
        Case {
            flags: &["--allow-missing-origin", "--allow-any-host"],
            url: "ws://rebind.example.com:{port}/ws",
            ..WITHOUT_ORIGIN
        },
    ];
    check(
        &["venv/bin/python", "websockets_client.py"],
        Untold::Nothing,
        &[&cases[..], &OF_NO_PROTOCOLS, &OF_CREDENTIALS].concat(),
    );
}

/// It sends no `Origin`, and `Host` as the user wrote it.
#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_tornado() {
    let cases = [
        WITHOUT_ORIGIN,
        Case { url: "ws://LOCALHOST:{port}/ws", ..WITHOUT_ORIGIN },
        Case { url: "ws://[0:0:0:0:0:0:0:1]:{port}/ws", ..WITHOUT_ORIGIN },
    ];
    check(
        &["venv/bin/python", "tornado_client.py"],
        Untold::Nothing,
        &[&cases[..], &OF_NO_PROTOCOLS, &OF_CREDENTIALS].concat(),
    );
}

#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_httpx_ws() {
    check(
        &["venv/bin/python", "httpx_ws_client.py"],
        Untold::Nothing,
        &[&[WITHOUT_ORIGIN][..], &OF_NO_PROTOCOLS, &OF_CREDENTIALS].concat(),
    );
}

#[test]
#[ignore = "needs Node and its packages: tests/clients/install"]
fn node_websocket() {
    check(
        &["node", "websocket_node.mjs"],
        Untold::Nothing,
        &[
            WITHOUT_ORIGIN,
            Case { protocols: "[]", ..WITHOUT_ORIGIN },
            Case { flags: &["--allow-missing-origin"], ..HOST_WITHOUT_BRACKETS },
        ],
    );
}

/// What a script in any browser can do.
const OF_A_SCRIPT: &[Case] = &[
    VALID,
    Case {
        flags: &["--no-browsers"],
        outcome: Rejected(403),
        log: &[&["origin-not-allowed", "`http://localhost:{port}`"]],
        ..VALID
    },
    // To a browser the name with a trailing dot is another one.
    Case { url: "ws://localhost.:{port}/ws", page: "http://localhost.:{port}/ws", ..VALID },
    Case {
        page: "http://localhost.:{port}/ws",
        outcome: Rejected(403),
        log: &[&["origin-not-allowed", "`http://localhost.:{port}`"]],
        ..VALID
    },
    Case {
        flags: &["--allow-origin", "http://localhost.:{other}"],
        page: "http://localhost.:{other}/ws",
        ..VALID
    },
    Case {
        flags: &["--allow-origin", "http://localhost.:*"],
        page: "http://localhost.:{other}/ws",
        ..VALID
    },
    // A browser sends the credentials of the URL when the server has asked for them.
    Case {
        flags: BASIC,
        url: "ws://user:p%40ss@localhost:{port}/ws",
        log: &[&["token-missing"]],
        ..VALID
    },
    Case { protocols: "[]", flags: &["--subprotocol", "chat"], ..VALID },
    // `new WebSocket(url, null)`
    Case {
        flags: &["--subprotocol", "chat"],
        protocols: "null",
        outcome: Rejected(400),
        log: &[&["subprotocol-unsupported", "`null`"]],
        ..VALID
    },
    Case {
        flags: &["--subprotocol", "chat"],
        protocols: r#"["undefined", "v1.chat"]"#,
        outcome: Rejected(400),
        log: &[&["subprotocol-unsupported", "undefined", "v1.chat"]],
        ..VALID
    },
    // The scheme of `Authorization`, with its capital.
    Case {
        flags: &["--token", "s3cr3t", "--token-from", "pair:bearer"],
        protocols: r#"["Bearer", "s3cr3t"]"#,
        outcome: Accepted("Bearer"),
        ..VALID
    },
    // openHAB
    Case {
        flags: &[
            "--token",
            "s3cr3t?",
            "--token-from",
            "subprotocol-base64:org.openhab.ws.accessToken.base64.",
            "--subprotocol",
            "org.openhab.ws.protocol.default",
        ],
        protocols: r#"["org.openhab.ws.accessToken.base64.czNjcjN0Pw", "org.openhab.ws.protocol.default"]"#,
        outcome: Accepted("org.openhab.ws.protocol.default"),
        ..VALID
    },
];

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium() {
    check(&["node", "sockets.mjs", "chromium"], Untold::Nothing, OF_A_SCRIPT);
}

#[test]
#[ignore = "needs Firefox, Node and its packages: tests/clients/install"]
fn firefox() {
    check(&["node", "sockets.mjs", "firefox"], Untold::Status, OF_A_SCRIPT);
}

/// Chromium inside of an application, whose pages have schemes of their own.
#[test]
#[ignore = "needs Qt WebEngine: tests/clients/install"]
fn qt_webengine() {
    const QRC: Case = Case { page: "qrc:///index.html", ..VALID };
    const WEBVIEW: Case = Case { page: "vscode-webview://0cabc1/index.html", ..VALID };
    let cases = [
        Case { flags: &["--allow-origin", "qrc:"], ..QRC },
        Case { outcome: Rejected(403), log: &[&["origin-not-allowed", "`qrc:`"]], ..QRC },
        Case { flags: &["--allow-origin", "vscode-webview://*"], ..WEBVIEW },
        Case {
            outcome: Rejected(403),
            log: &[&["origin-not-allowed", "`vscode-webview://0cabc1`"]],
            ..WEBVIEW
        },
        Case { flags: &["--allow-null-origin"], page: "file:///", ..VALID },
        Case {
            page: "file:///",
            outcome: Rejected(403),
            log: &[&["origin-not-allowed", "`null`", "allow_null"]],
            ..VALID
        },
    ];
    check(
        &["venv/bin/python", "qt_client.py"],
        Untold::Status,
        &[&cases[..], OF_A_SCRIPT].concat(),
    );
}

/// Accepts one connection, and closes it after what comes first, which is sent to the receiver.
fn listen() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0; 4096];
        let length = stream.read(&mut first).unwrap();
        sender.send(String::from_utf8(first[..length].to_vec()).unwrap())
    });
    (url, received)
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Local Network Access: a page from the internet may not speak to this machine. The server sees a connection, and no
/// byte on it.
#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_connects_and_sends_nothing_from_a_public_page() {
    let server = Server::start(&[]);
    let host = server.address.to_string();
    for (program, sends) in [
        (&["node", "sockets.mjs", "chromium"][..], true),
        (&["node", "sockets.mjs", "chromium", &host], false),
    ] {
        let (url, received) = listen();
        let case = json!({ "url": url, "page": format!("http://{host}/ws"), "text": TEXT });
        let results = run(program, &[case]);
        assert_eq!(results[0]["events"], json!(["error", "close"]));
        assert_eq!(
            received.recv_timeout(TIMEOUT).expect("a connection").starts_with("GET /ws "),
            sends,
            "{program:?}"
        );
    }
}

/// So a guard can only deny because of them.
#[test]
#[ignore = "needs Chromium, Firefox, Node and its packages: tests/clients/install"]
fn fetch_metadata_is_sent_by_firefox_alone() {
    let server = Server::start(&[]);
    for (browser, expected) in
        [("chromium", &[][..]), ("firefox", &["dest: empty", "mode: websocket", "site: same-site"])]
    {
        let (url, received) = listen();
        let page = format!("http://{}/ws", server.address);
        run(
            &["node", "sockets.mjs", browser],
            &[json!({ "url": url, "page": page, "text": TEXT })],
        );
        let head = received.recv_timeout(TIMEOUT).expect("a connection").to_ascii_lowercase();
        let mut sent: Vec<_> =
            head.lines().filter_map(|line| line.strip_prefix("sec-fetch-")).collect();
        sent.sort_unstable();
        assert_eq!(sent, expected, "{browser}");
    }
}
