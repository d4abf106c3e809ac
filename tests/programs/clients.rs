//! The example server with independent clients. `tests/clients/install` installs them.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    common::{ACCEPT, KEY},
    server::Server,
};

pub(crate) const TEXT: &str = "grüezi ☃";

/// The page that connects; other clients send it as `Origin`.
#[derive(Clone, Copy, Debug)]
enum From {
    Own,
    /// The same site, so that cookies are sent, but another port.
    SameSite,
    CrossSite,
    Null,
    /// Not possible in a browser.
    Nowhere,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Accepted(&'static str),
    Rejected(u16, &'static str),
    /// Accepted with this subprotocol, and closed with code 4401 for this reason.
    Closed(&'static str, &'static str),
}

use Expected::{Accepted, Closed, Rejected};

#[derive(Clone, Debug)]
struct Case {
    from: From,
    query: &'static str,
    /// Not possible for a script in a browser.
    bearer: Option<&'static str>,
    cookie: Option<&'static str>,
    protocols: &'static [&'static str],
    expected: Expected,
}

const VALID: Case = Case {
    from: From::Own,
    query: "",
    bearer: None,
    cookie: None,
    protocols: &[],
    expected: Accepted(""),
};

pub(crate) const FLAGS: &[&str] = &[
    "--token",
    "s3cr3t",
    "--token-from",
    "authorization",
    "--token-from",
    "cookie:session",
    "--token-from",
    "query:token",
    "--token-from",
    "subprotocol:token.",
    "--token-from",
    "k8s",
    "--token-from",
    "pair:bearer",
    "--subprotocol",
    "v2.chat",
    "--subprotocol",
    "v1.chat",
];

const K8S: &str = "base64url.bearer.authorization.k8s.io.czNjcjN0";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { bearer: Some("s3cr3t"), ..VALID },
    Case { bearer: Some("s3cr3t"), protocols: &["v1.chat"], expected: Accepted("v1.chat"), ..VALID },
    Case { cookie: Some("session=s3cr3t"), ..VALID },
    Case { cookie: Some("session=s3cr3t"), protocols: &["v1.chat", "v2.chat"], expected: Accepted("v2.chat"), ..VALID },
    Case { query: "?token=s3cr3t", ..VALID },
    Case { query: "?a=b&token=%733cr3t", protocols: &["other", "v1.chat"], expected: Accepted("v1.chat"), ..VALID },
    Case { protocols: &["v2.chat", "token.s3cr3t"], expected: Accepted("v2.chat"), ..VALID },
    Case { protocols: &[K8S, "v2.chat"], expected: Accepted("v2.chat"), ..VALID },
    Case { protocols: &["bearer", "s3cr3t"], expected: Accepted("bearer"), ..VALID },
    Case { protocols: &["bearer", "s3cr3t", "v1.chat"], expected: Accepted("v1.chat"), ..VALID },

    Case { expected: Rejected(401, "token-missing"), ..VALID },
    Case { protocols: &["v2.chat"], expected: Rejected(401, "token-missing"), ..VALID },
    Case { bearer: Some("guess"), expected: Rejected(401, "token-invalid"), ..VALID },
    Case { cookie: Some("session=guess"), expected: Rejected(401, "token-invalid"), ..VALID },
    Case { query: "?token=guess", expected: Rejected(401, "token-invalid"), ..VALID },
    Case { protocols: &["v2.chat", "token.guess"], expected: Rejected(401, "token-invalid"), ..VALID },
    Case { protocols: &["bearer", "guess"], expected: Rejected(401, "token-invalid"), ..VALID },
    Case { query: "?token=s3cr3t", cookie: Some("session=s3cr3t"), expected: Rejected(400, "token-ambiguous"), ..VALID },
    Case { query: "?token=s3cr3t", protocols: &["other"], expected: Rejected(400, "subprotocol-unsupported"), ..VALID },
    Case { protocols: &["token.s3cr3t"], expected: Rejected(400, "subprotocol-unsupported"), ..VALID },

    Case { from: From::SameSite, cookie: Some("session=s3cr3t"), expected: Rejected(403, "origin-not-allowed"), ..VALID },
    Case { from: From::CrossSite, query: "?token=s3cr3t", expected: Rejected(403, "origin-not-allowed"), ..VALID },
    Case { from: From::CrossSite, protocols: &["bearer", "s3cr3t"], expected: Rejected(403, "origin-not-allowed"), ..VALID },
    Case { from: From::Null, query: "?token=s3cr3t", expected: Rejected(403, "origin-not-allowed"), ..VALID },
    Case { from: From::Nowhere, bearer: Some("s3cr3t"), expected: Rejected(403, "origin-missing"), ..VALID },
];

impl Case {
    fn needs_headers(&self) -> bool {
        self.bearer.is_some() || matches!(self.from, From::Nowhere)
    }

    fn path(&self) -> String {
        format!("/ws{}", self.query)
    }

    fn page(&self, server: &Server, other: &Server) -> String {
        let (scheme, port) = (&server.scheme, server.address.port());
        match self.from {
            // `/ws` has no Content-Security-Policy, unlike `/`, where it would allow only connections to the own
            // server.
            From::Own => format!("{scheme}://{}/ws", server.address),
            From::SameSite => format!("{}://{}/ws", other.scheme, other.address),
            From::CrossSite => format!("{scheme}://localhost:{port}/ws"),
            From::Null => "data:text/html,<title>null</title>".into(),
            From::Nowhere => unreachable!("a page is somewhere"),
        }
    }

    fn headers(&self, server: &Server, other: &Server) -> Vec<(&'static str, String)> {
        let origin = match self.from {
            From::Nowhere => None,
            From::Null => Some("null".to_owned()),
            _ => self.page(server, other).strip_suffix("/ws").map(str::to_owned),
        };
        [
            ("origin", origin),
            ("authorization", self.bearer.map(|token| format!("Bearer {token}"))),
            ("cookie", self.cookie.map(str::to_owned)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// Compares the results with the cases, and the rejections with the log of the server.
fn check(
    server: &Server,
    cases: &[Case],
    results: impl IntoIterator<Item = Value>,
    expected: impl Fn(Expected) -> Value,
) {
    let mut results = results.into_iter();
    for case in cases {
        let result = results.next().expect("as many results as cases");
        assert_eq!(result, expected(case.expected), "{case:?} at {}", server.scheme);
        if let Rejected(_, code) | Closed(_, code) = case.expected {
            let rejection = server.rejection();
            assert!(rejection.starts_with(&format!("{code}: ")), "{case:?}: {rejection}");
            assert!(!rejection.contains("s3cr3t"), "{case:?}: {rejection}");
        }
    }
    assert!(results.next().is_none());
    assert!(server.has_no_more_rejections());
}

pub(crate) const IN_THE_CLEAR: &[&str] = &[];
pub(crate) const OVER_TLS: &[&str] = &["--tls-self-signed"];

/// The server in both modes, and a second one that serves pages of another origin.
fn servers(
    flags: &[&'static str],
    transports: &'static [&[&str]],
) -> impl Iterator<Item = (Server, Server)> {
    ["guard", "responder"].into_iter().flat_map(move |mode| {
        transports.iter().map(move |transport| {
            let flags = [flags, transport, &["--mode", mode]].concat();
            (Server::start(&flags), Server::start(transport))
        })
    })
}

/// Runs a program of `tests/clients` with the cases; returns its results.
pub(crate) fn run(program: &[&str], cases: &[Value]) -> Vec<Value> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let hint = "tests/clients/install installs what is missing";
    // Ends the client if its own timeouts fail.
    let mut client = Command::new("timeout")
        .args(["--kill-after=5", "150"])
        .args(program)
        .current_dir(scripts)
        .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
        .env("NODE_NO_WARNINGS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(hint);
    // The client may end before it has read all cases; its status is checked below.
    client.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).ok();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?}: {}; {hint}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn url(server: &Server, case: &Case) -> String {
    format!("{}://{}{}", server.scheme.replace("http", "ws"), server.address, case.path())
}

/// Runs all cases with a client that can set any header.
fn check_program(
    program: &[&str],
    transports: &'static [&[&str]],
    expected: impl Fn(&Server, Expected) -> Value,
) {
    for (server, other) in servers(FLAGS, transports) {
        let cases: Vec<_> = CASES
            .iter()
            .map(|case| {
                let headers = case
                    .headers(&server, &other)
                    .into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>();
                let mut input =
                    json!({ "url": url(&server, case), "headers": headers, "text": TEXT });
                // To some clients an empty list is not the same as none.
                if !case.protocols.is_empty() {
                    input["protocols"] = json!(case.protocols);
                }
                input
            })
            .collect();
        check(&server, CASES, run(program, &cases), |it| expected(&server, it));
    }
}

/// The result of a client that reports the status.
fn by_status(status: u16) -> impl Fn(&Server, Expected) -> Value {
    move |_, expected| match expected {
        Accepted(protocol) => {
            json!({ "status": status, "protocol": protocol, "echo": TEXT, "close": 1000 })
        }
        Rejected(status, _) => json!({ "status": status }),
        Closed(protocol, _) => json!({ "status": status, "protocol": protocol, "close": 4401 }),
    }
}

/// The result of the WebSocket API of the web platform, which hides the reason of a rejection.
fn by_events(expected: Expected) -> Value {
    match expected {
        Accepted(protocol) => json!({
            "protocol": protocol, "echo": TEXT, "close": 1000, "reason": "", "wasClean": true,
            "events": ["open", "message", "close"],
        }),
        Rejected(..) => {
            json!({ "close": 1006, "reason": "", "wasClean": false, "events": ["error", "close"] })
        }
        Closed(protocol, reason) => json!({
            "protocol": protocol, "close": 4401, "reason": reason, "wasClean": true, "events": ["open", "close"],
        }),
    }
}

#[test]
#[ignore = "needs Node and its packages: tests/clients/install"]
fn node_ws() {
    check_program(&["node", "ws.mjs"], &[IN_THE_CLEAR, OVER_TLS], by_status(101));
}

#[test]
#[ignore = "needs Node: tests/clients/install"]
fn node_own_websocket() {
    let program = ["node", "--experimental-websocket", "node.mjs"];
    check_program(&program, &[IN_THE_CLEAR, OVER_TLS], |_, expected| match expected {
        Accepted(_) | Closed(..) => by_events(expected),
        Rejected(..) => json!({ "events": ["error"] }),
    });
}

#[test]
#[ignore = "needs Node: tests/clients/install"]
fn node_http2() {
    check_program(&["node", "http2.mjs"], &[IN_THE_CLEAR, OVER_TLS], by_status(200));
}

#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_websockets() {
    check_program(
        &["venv/bin/python", "websockets_client.py"],
        &[IN_THE_CLEAR, OVER_TLS],
        by_status(101),
    );
}

#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_aiohttp() {
    check_program(
        &["venv/bin/python", "aiohttp_client.py"],
        &[IN_THE_CLEAR, OVER_TLS],
        |server, expected| {
            let mut expected_value = by_status(101)(server, expected);
            if let Accepted(_) = expected {
                // aiohttp does not report the 101.
                expected_value.as_object_mut().unwrap().remove("status");
            }
            expected_value
        },
    );
}

/// curl does not speak frames here: only the head is compared.
#[test]
#[ignore = "needs curl: tests/clients/install"]
fn curl() {
    for (server, other) in servers(FLAGS, &[IN_THE_CLEAR, OVER_TLS]) {
        let results = CASES.iter().map(|case| {
            // curl holds the head of a 101 back unless its output is unbuffered.
            let mut command = Command::new("stdbuf");
            command.args([
                "-o0",
                "curl",
                "--http1.1",
                "-ksNi",
                "--max-time",
                "20",
                "--noproxy",
                "*",
            ]);
            let mut headers = case.headers(&server, &other);
            headers.extend(
                [
                    ("Connection", "Upgrade"),
                    ("Upgrade", "websocket"),
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", KEY),
                ]
                .map(|(name, value)| (name, value.to_owned())),
            );
            if !case.protocols.is_empty() {
                headers.push(("Sec-WebSocket-Protocol", case.protocols.join(", ")));
            }
            for (name, value) in headers {
                command.args(["-H", &format!("{name}: {value}")]);
            }
            command.arg(format!("{}://{}{}", server.scheme, server.address, case.path()));
            let mut client = command.stdout(Stdio::piped()).spawn().expect("curl is installed");
            let lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            // After a 101 curl would wait for more.
            client.kill().ok();
            client.wait().unwrap();
            let header = |name: &str| {
                head.iter().find_map(|line| {
                    let (there, value) = line.split_once(": ")?;
                    there.eq_ignore_ascii_case(name).then(|| value.to_owned())
                })
            };
            json!({
                "status": head.first().map(|line| line.split(' ').nth(1)),
                "accept": header("sec-websocket-accept"),
                "protocol": header("sec-websocket-protocol"),
            })
        });
        check(&server, CASES, results, |expected| match expected {
            Accepted(protocol) | Closed(protocol, _) => json!({
                "status": "101", "accept": ACCEPT, "protocol": Some(protocol).filter(|it| !it.is_empty()),
            }),
            Rejected(status, _) => {
                json!({ "status": status.to_string(), "accept": null, "protocol": null })
            }
        });
    }
}

#[test]
fn tungstenite() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (server, other) in servers(FLAGS, &[IN_THE_CLEAR]) {
        let results = CASES.iter().map(|case| {
            let mut request = url(&server, case).into_client_request().unwrap();
            for (name, value) in case.headers(&server, &other) {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            if !case.protocols.is_empty() {
                let offered = case.protocols.join(", ");
                request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
            }
            let exchange = async {
                let (mut socket, response) = match connect_async(request).await {
                    Ok(accepted) => accepted,
                    Err(tungstenite::Error::Http(rejected)) => {
                        return json!({ "status": rejected.status().as_u16() });
                    }
                    Err(error) => panic!("{case:?}: {error}"),
                };
                let protocol =
                    response.headers().get("sec-websocket-protocol").map(|it| it.to_str().unwrap());
                socket.send(Message::text(TEXT)).await.unwrap();
                let echo = socket.next().await.unwrap().unwrap();
                let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                socket.close(Some(normal)).await.unwrap();
                let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
                    panic!("{case:?}: no close")
                };
                json!({
                    "status": response.status().as_u16(),
                    "protocol": protocol.unwrap_or_default(),
                    "echo": echo.to_text().unwrap(),
                    "close": u16::from(close.code),
                })
            };
            let in_time =
                async { tokio::time::timeout(std::time::Duration::from_secs(20), exchange).await };
            runtime.block_on(in_time).expect("a response in time")
        });
        check(&server, CASES, results, |expected| by_status(101)(&server, expected));
    }
}

/// Runs the cases that a script in a page can try. Over TLS Chromium uses HTTP/2.
fn check_browser(
    name: &str,
    flags: &[&'static str],
    cases: &[Case],
    expected: impl Fn(&Server, Expected) -> Value,
) {
    let tried: Vec<_> = cases.iter().filter(|case| !case.needs_headers()).cloned().collect();
    for (server, other) in servers(flags, &[IN_THE_CLEAR, OVER_TLS]) {
        let cases: Vec<_> = tried
            .iter()
            .map(|case| {
                json!({
                    "url": url(&server, case),
                    "protocols": case.protocols,
                    "text": TEXT,
                    "page": case.page(&server, &other),
                    "cookie": case.cookie,
                })
            })
            .collect();
        check(&server, &tried, run(&["node", "sockets.mjs", name], &cases), |it| {
            expected(&server, it)
        });
    }
}

fn by_chromium(server: &Server, expected: Expected) -> Value {
    let mut seen = by_events(expected);
    seen["status"] = match expected {
        // A handshake succeeds with 200 only over HTTP/2.
        Accepted(_) | Closed(..) if server.scheme == "https" => json!(200),
        Accepted(_) | Closed(..) => json!(101),
        // Chromium reports this as an error without a message.
        Rejected(401, _) if server.scheme == "https" => Value::Null,
        Rejected(status, _) => json!(status),
    };
    seen
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium() {
    check_browser("chromium", FLAGS, CASES, by_chromium);
}

#[test]
#[ignore = "needs Firefox, Node and its packages: tests/clients/install"]
fn firefox() {
    check_browser("firefox", FLAGS, CASES, |_, expected| by_events(expected));
}

/// A script receives the reason of a token rejection, but a page of another origin does not.
fn check_closed(browser: &str, expected: impl Fn(&Server, Expected) -> Value) {
    const FLAGS: &[&str] =
        &["--rejection", "close", "--token", "s3cr3t", "--token-from", "query:token"];
    const MISSING: Case = Case { expected: Closed("", "token-missing"), ..VALID };
    const INVALID: Case =
        Case { query: "?token=guess", expected: Closed("", "token-invalid"), ..VALID };
    const FOREIGN: Case = Case { expected: Rejected(403, "origin-not-allowed"), ..VALID };

    let cases = [
        MISSING,
        INVALID,
        Case { query: "?token=s3cr3t", ..VALID },
        Case { from: From::SameSite, ..FOREIGN },
        Case { from: From::CrossSite, query: "?token=guess", ..FOREIGN },
        Case { from: From::Null, query: "?token=s3cr3t", ..FOREIGN },
    ];
    check_browser(browser, FLAGS, &cases, &expected);

    let offered = [
        Case { protocols: &["v2.chat"], expected: Closed("v2.chat", "token-missing"), ..MISSING },
        Case {
            protocols: &["other", "v2.chat"],
            expected: Closed("v2.chat", "token-invalid"),
            ..INVALID
        },
        Case {
            protocols: &["other"],
            expected: Rejected(400, "subprotocol-unsupported"),
            ..MISSING
        },
        Case { from: From::CrossSite, protocols: &["v2.chat"], ..FOREIGN },
    ];
    check_browser(
        browser,
        &[FLAGS, &["--subprotocol", "v2.chat"]].concat(),
        &[&cases[..], &offered].concat(),
        expected,
    );
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium_receives_the_close_reason() {
    check_closed("chromium", by_chromium);
}

#[test]
#[ignore = "needs Firefox, Node and its packages: tests/clients/install"]
fn firefox_receives_the_close_reason() {
    check_closed("firefox", |_, expected| by_events(expected));
}
