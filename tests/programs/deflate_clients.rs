//! The codecs that compress messages, with independent clients. `tests/clients/install` installs
//! them.

#[path = "../../examples/codec_ratchet.rs"]
#[allow(dead_code)]
mod codec_ratchet;
#[path = "../../examples/codec_soketto.rs"]
#[allow(dead_code)]
mod codec_soketto;
#[path = "../../examples/codec_yawc.rs"]
#[allow(dead_code)]
mod codec_yawc;

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::{clients::run, common::serve_axum};

/// An example, served in this process.
struct Server {
    codec: &'static str,
    /// What its policy adds to what it agrees to.
    always: &'static str,
    scheme: &'static str,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    fn new(codec: &'static str, always: &'static str, app: Router, tls: bool) -> Self {
        let runtime = Runtime::new().unwrap();
        // A page of the own origin, for browsers.
        let app = app.route("/page", get(async || "a page"));
        let (scheme, address) = if tls {
            ("https", runtime.block_on(serve_tls(app)))
        } else {
            ("http", runtime.block_on(serve_axum(app)))
        };
        Self { codec, always, scheme, address, _runtime: runtime }
    }

    fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    fn url(&self) -> String {
        self.origin().replace("http", "ws") + "/ws"
    }

    /// What the response names after an offer without takeover flags.
    fn agreed(&self, rest: &str) -> String {
        format!("permessage-deflate{}{rest}", self.always)
    }
}

fn servers(tls: bool) -> [Server; 3] {
    let client = "; client_no_context_takeover";
    [
        Server::new("yawc", "", codec_yawc::app().unwrap(), tls),
        Server::new("ratchet", "", codec_ratchet::app().unwrap(), tls),
        Server::new("soketto", client, codec_soketto::app().unwrap(), tls),
    ]
}

/// Over TLS browsers use HTTP/2.
async fn serve_tls(app: Router) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(app.clone()));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    address
}

/// The messages of `tests/clients/deflate.mjs`.
const MESSAGES: u64 = 7;
/// More than 64 KiB of text, which is sent twice, and of binary.
const LINES: u64 = 4_000;
const BYTES: u64 = 100_000;

/// The names of the parameters in the options of a client: the flags and the bits, each of the
/// server and of the client.
type Names = [&'static str; 4];

/// Options of a client, and what the response names then.
fn parameters(server: &Server, names: Names) -> Vec<(Value, String)> {
    let [server_flag, client_flag, server_bits, client_bits] = names;
    let mut limits = vec![(json!({}), String::new())];
    for bits in 9..=15 {
        let server_agreed = format!("; server_max_window_bits={bits}");
        // 15 is what is meant without it.
        let client_agreed =
            if bits < 15 { format!("; client_max_window_bits={bits}") } else { String::new() };
        let both = format!("{server_agreed}{client_agreed}");
        limits.push((json!({ server_bits: bits }), server_agreed));
        limits.push((json!({ client_bits: bits }), client_agreed));
        limits.push((json!({ server_bits: bits, client_bits: bits }), both));
    }
    let mut all = Vec::new();
    for (no_server, no_client) in [(false, false), (true, false), (false, true), (true, true)] {
        for (mut options, limit) in limits.clone() {
            // `ws` does not allow a flag in the response that is `false` in its options.
            if no_server {
                options[server_flag] = json!(true);
            }
            if no_client {
                options[client_flag] = json!(true);
            }
            let server_agreed = if no_server { "; server_no_context_takeover" } else { "" };
            let client_agreed =
                if no_client { "; client_no_context_takeover" } else { server.always };
            all.push((options, format!("permessage-deflate{server_agreed}{client_agreed}{limit}")));
        }
    }
    all
}

/// Adds what each case has.
fn case(server: &Server, mut case: Value) -> Value {
    case["url"] = json!(server.url());
    case["origin"] = json!(server.origin());
    for (name, value) in [("lines", LINES), ("bytes", BYTES)] {
        if case[name].is_null() {
            case[name] = json!(value);
        }
    }
    case
}

#[test]
#[ignore = "needs Node and its packages: tests/clients/install"]
fn node_ws() {
    const NAMES: Names = [
        "serverNoContextTakeover",
        "clientNoContextTakeover",
        "serverMaxWindowBits",
        "clientMaxWindowBits",
    ];
    for server in servers(false) {
        let mut expected = parameters(&server, NAMES);
        expected.push((json!(true), server.agreed("")));
        expected.push((
            json!({ "clientMaxWindowBits": 8 }),
            server.agreed("; client_max_window_bits=8"),
        ));
        // Less than the codecs can.
        expected.push((json!({ "serverMaxWindowBits": 8 }), String::new()));
        expected.push((json!(false), String::new()));
        let cases = expected.iter().map(|(options, _)| {
            let mut options = options.clone();
            if options.is_object() {
                options["threshold"] = json!(0);
            }
            let options = json!({ "origin": server.origin(), "perMessageDeflate": options });
            case(&server, json!({ "options": options }))
        });
        let results = run(&["node", "deflate_ws.mjs"], &cases.collect::<Vec<_>>());
        assert_eq!(results.len(), expected.len());
        for ((options, agreed), mut result) in expected.iter().zip(results) {
            let case = format!("{} {options}", server.codec);
            // Compressed, all messages are less than one of them.
            let received = result.as_object_mut().unwrap().remove("received");
            let received = received.unwrap_or_else(|| panic!("{case}: {result}"));
            assert_eq!(received.as_u64() < Some(BYTES), !agreed.is_empty(), "{case}: {received}");
            let extensions = if agreed.is_empty() { "" } else { "permessage-deflate" };
            let expected = json!({
                "header": agreed,
                "extensions": extensions,
                "right": MESSAGES,
                "close": 1000,
                "wasClean": true,
            });
            assert_eq!(result, expected, "{case}");
        }
    }
}

/// It expands messages, and does not compress any. ratchet and soketto allow less of those than of
/// others.
#[test]
#[ignore = "needs Node: tests/clients/install"]
fn node_own_websocket() {
    for server in servers(false) {
        let options = json!({ "headers": { "origin": server.origin() } });
        let case = case(&server, json!({ "options": options, "lines": 3_000, "bytes": 60_000 }));
        let results = run(&["node", "--experimental-websocket", "deflate_node.mjs"], &[case]);
        let expected = json!({
            "extensions": server.agreed(""),
            "right": MESSAGES,
            "close": 1000,
            "wasClean": true,
        });
        assert_eq!(results, [expected], "{}", server.codec);
    }
}

#[test]
#[ignore = "needs Node: tests/clients/install"]
fn node_http2() {
    // Each message is compressed on its own.
    const OFFER: &str = "permessage-deflate; server_no_context_takeover";
    for tls in [false, true] {
        for server in servers(tls) {
            let limits = (9..=15).map(|bits| format!("; server_max_window_bits={bits}"));
            let mut expected: Vec<_> = limits
                .map(|limit| {
                    (format!("{OFFER}{limit}"), format!("{OFFER}{}{limit}", server.always))
                })
                .collect();
            for more in ["", "; client_max_window_bits"] {
                expected.push((format!("{OFFER}{more}"), format!("{OFFER}{}", server.always)));
            }
            let cases = expected.iter().map(|(offer, _)| case(&server, json!({ "offer": offer })));
            let results = run(&["node", "deflate_http2.mjs"], &cases.collect::<Vec<_>>());
            assert_eq!(results.len(), expected.len());
            for ((offer, agreed), result) in expected.iter().zip(results) {
                let expected =
                    json!({ "status": 200, "header": agreed, "right": 2, "close": 1000 });
                assert_eq!(result, expected, "{} {offer}", server.codec);
            }
        }
    }
}

#[test]
#[ignore = "needs Python and its packages: tests/clients/install"]
fn python_websockets() {
    const NAMES: Names = [
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits",
        "client_max_window_bits",
    ];
    for server in servers(false) {
        let mut expected = parameters(&server, NAMES);
        // Its default.
        expected.push((Value::Null, server.agreed("")));
        let cases = expected
            .iter()
            .map(|(parameters, _)| case(&server, json!({ "parameters": parameters })));
        let program = ["venv/bin/python", "deflate_websockets.py"];
        let results = run(&program, &cases.collect::<Vec<_>>());
        assert_eq!(results.len(), expected.len());
        for ((parameters, agreed), result) in expected.iter().zip(results) {
            let expected = json!({
                "header": agreed,
                "extensions": ["permessage-deflate"],
                // It sends one in fragments, too.
                "right": MESSAGES + 1,
                "close": 1000,
            });
            assert_eq!(result, expected, "{} {parameters}", server.codec);
        }
    }
}

fn check_browser(name: &str, agreed: impl Fn(&Server) -> String, knows_status: bool) {
    for tls in [false, true] {
        for server in servers(tls) {
            let case = case(&server, json!({ "page": server.origin() + "/page" }));
            let results = run(&["node", "deflate_page.mjs", name], &[case]);
            let mut expected = json!({
                "extensions": agreed(&server),
                "right": MESSAGES,
                "close": 1000,
                "wasClean": true,
            });
            if knows_status {
                // A handshake succeeds with 200 only over HTTP/2.
                expected["status"] = json!(if tls { 200 } else { 101 });
            }
            assert_eq!(results, [expected], "{} at {}", server.codec, server.scheme);
        }
    }
}

#[test]
#[ignore = "needs Chromium, Node and its packages: tests/clients/install"]
fn chromium() {
    check_browser("chromium", |server| server.agreed(""), true);
}

/// It tells a script the name alone.
#[test]
#[ignore = "needs Firefox, Node and its packages: tests/clients/install"]
fn firefox() {
    check_browser("firefox", |_| "permessage-deflate".into(), false);
}
