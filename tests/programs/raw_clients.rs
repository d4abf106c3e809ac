//! The example server with the requests of clients, gateways and proxies that cannot be installed, each as an operator
//! would set the server up for it.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_ws_guard::accept_key;

use crate::{
    common::{HOST, KEY, ORIGIN, Raw, RawResponse, handshake, send},
    server::Server,
};

/// A request, and what must come of it.
struct Case {
    who: &'static str,
    request: Raw,
    flags: Vec<String>,
    /// What the operator reads in the log of the rejection, beginning with its code.
    log: Vec<String>,
    status: u16,
    subprotocol: Option<&'static str>,
    challenge: Option<&'static str>,
}

/// It must be accepted by a server with these flags, separated by spaces.
fn case(who: &'static str, request: Raw, flags: &str) -> Case {
    Case {
        who,
        request,
        flags: flags.split(' ').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
        log: Vec::new(),
        status: 101,
        subprotocol: None,
        challenge: None,
    }
}

impl Case {
    fn selects(mut self, subprotocol: &'static str) -> Self {
        self.subprotocol = Some(subprotocol);
        self
    }

    fn rejected(mut self, status: u16, log: &[&str]) -> Self {
        self.status = status;
        self.log = log.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The value of `WWW-Authenticate` begins so.
    fn challenged(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    fn server(&self, mode: &str) -> Server {
        let flags = self.flags.iter().map(|flag| &**flag);
        Server::start(&flags.chain(["--mode", mode]).collect::<Vec<_>>())
    }

    fn check_log(&self, server: &Server) {
        if let Some(code) = self.log.first() {
            let rejection = server.rejection();
            let context = format!("{self}: {rejection}");
            assert!(rejection.starts_with(&format!("{code}: ")), "{context}");
            for word in &self.log {
                assert!(rejection.contains(word), "no {word:?}: {context}");
            }
        }
        assert!(server.has_no_more_rejections(), "{self}");
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {:?}", self.who, self.request.bytes().escape_ascii(), self.flags)
    }
}

async fn echoes(response: &mut RawResponse) -> bool {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x82];
    frame.extend(MASK);
    frame.extend([b'h' ^ MASK[0], b'i' ^ MASK[1]]);
    response.stream.write_all(&frame).await.unwrap();
    let mut echo = [0; 4];
    let read = response.stream.read_exact(&mut echo);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    echo == *b"\x81\x02hi"
}

async fn check_case(case: Case) {
    for mode in ["guard", "responder"] {
        let server = case.server(mode);
        let mut response = send(server.address, &case.request.bytes()).await;
        let context = format!("{mode}: {case}: {response:?}");
        assert_eq!(response.status, case.status, "{context}");
        let selected = response.all("sec-websocket-protocol").first().copied();
        assert_eq!(selected, case.subprotocol, "{context}");
        if case.status == 101 {
            assert!(echoes(&mut response).await, "{context}");
        }
        if let Some(challenge) = case.challenge {
            let all = response.all("www-authenticate");
            assert!(all.iter().any(|it| it.starts_with(challenge)), "{context}");
        }
        case.check_log(&server);
    }
}

/// Tries all before it fails.
async fn check(cases: Vec<Case>) {
    let mut failed = Vec::new();
    for case in cases {
        let who = case.who;
        if tokio::spawn(check_case(case)).await.is_err() {
            failed.push(who);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

fn from(origin: &str) -> Raw {
    handshake().with("Origin", origin)
}

fn at(host: &str, origin: &str) -> Raw {
    from(origin).with("Host", host)
}

#[tokio::test]
async fn origin_is_understood_as_clients_write_it() {
    const CHAT: &str = "--allow-host chat.example.com";
    let own = |flags: &str| format!("{CHAT} {flags}");
    let listed = |origin: &str| format!("{CHAT} --allow-origin {origin}");

    let starscream = || at("chat.example.com:443", "wss://chat.example.com");
    let react_native = || at("mypi.local:3000", "http://MyPi.local:3000");
    let ipv6 = || at("[0:0:0:0:0:0:0:1]:3000", "http://[0:0:0:0:0:0:0:1]:3000");
    let async_http_client = || from("http://chat.example.com:443");
    let extension = || from("moz-extension://6f1a2b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c");
    let webview = || from("vscode-webview://0cabc1d2e3f4g5h6i7j8k9l0m1n2o3p4");

    let mut cases = vec![
        case("Starscream", starscream(), CHAT),
        case("Starscream", starscream(), &listed(ORIGIN)),
        case("Starscream", starscream(), &own("--public-origin https://chat.example.com")),
        case("Starscream", starscream(), &listed("https://app.example.com"))
            .rejected(403, &["origin-not-allowed", "`wss://chat.example.com`"]),
        case("ws4py", at("localhost:3000", "ws://localhost:3000"), ""),
        case(
            "ws4py behind a proxy",
            at("127.0.0.1:8080", "ws://localhost:3000"),
            "--public-origin http://localhost:3000",
        ),
        case("React Native", react_native(), "--allow-host mypi.local:3000"),
        case(
            "React Native",
            react_native(),
            "--allow-host MyPi.local:3000 --allow-origin http://MyPi.local:3000",
        ),
        case("websocket-client", ipv6(), ""),
        case("websocket-client", ipv6(), "--allow-origin http://[::1]:3000"),
        case("websocket-client", ipv6(), "--public-origin http://[0:0::1]:3000"),
        case("IXWebSocket", at("chat.example.com:443", "wss://chat.example.com:443"), CHAT),
        case("arduinoWebSockets", at("chat.example.com:80", "file://"), &listed("file://")),
        case(
            "AsyncHttpClient over wss",
            async_http_client(),
            &own("--public-origin https://chat.example.com"),
        )
        .rejected(
            403,
            &["origin-not-allowed", "`http://chat.example.com:443`", "AllowOrigin::list"],
        ),
        case(
            "AsyncHttpClient over wss, listed",
            async_http_client(),
            &listed("https://chat.example.com --allow-origin http://chat.example.com:443"),
        ),
        case("Electron, not listed", from("app://."), CHAT)
            .rejected(403, &["origin-not-allowed", "`app://.`", "AllowOrigin::list"]),
        case("WebKitGTK", from(""), CHAT).rejected(403, &["origin-missing", "allow_missing"]),
        case("WebKitGTK", from(""), &own("--allow-missing-origin")),
        case("WebKitGTK", from(""), &own("--no-browsers")),
        case("no client", handshake().without("Origin"), &own("--no-browsers")),
        case("a page of the server", from(ORIGIN), &own("--no-browsers"))
            .rejected(403, &["origin-not-allowed", "`https://chat.example.com`"]),
        case("an extension", extension(), &listed("moz-extension://*")),
        case("an extension, not listed", extension(), CHAT).rejected(
            403,
            &["origin-not-allowed", "`moz-extension://6f1a2b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c`"],
        ),
        case("a web view", webview(), &listed("vscode-webview://*")),
        case("a web view, another list", webview(), &listed("moz-extension://*"))
            .rejected(403, &["origin-not-allowed", "`vscode-webview://0cabc1d2e3"]),
        case("Firefox, another page", from(ORIGIN).and("Sec-Fetch-Site", "cross-site"), CHAT)
            .rejected(403, &["origin-not-allowed", "Sec-Fetch-Site"]),
        case(
            "Firefox, another page, listed",
            from(ORIGIN).and("Sec-Fetch-Site", "cross-site"),
            &listed(ORIGIN),
        ),
    ];
    for origin in [
        "app://.",
        "qrc:",
        "file://",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "http://tauri.localhost",
        "https://localhost",
        "chrome-extension://mfpbmhdkbkbgnkflbnkpgicjhmdnlbea",
    ] {
        cases.push(case("an application", from(origin), &listed(origin)));
    }
    check(cases).await;
}

#[tokio::test]
async fn host_is_understood_as_clients_write_it() {
    let listed = |host: &str| format!("--allow-host {host} --allow-origin {ORIGIN}");
    let absolute = |target: &str, host: &str| at(host, "http://server").target(target);
    let server = "--allow-host server";
    check(vec![
        case("Starscream, IXWebSocket", at("chat.example.com:443", ORIGIN), &listed(HOST)),
        case("mqtt_client, tokio-websockets", at("chat.example.com:80", ORIGIN), &listed(HOST)),
        case("Istio", at("chat.example.com.", ORIGIN), &listed(HOST)),
        case("Istio", at("chat.example.com.:443", ORIGIN), &listed(HOST)),
        case(
            "a browser on the name with a dot",
            at("chat.example.com.", "https://chat.example.com."),
            "--allow-host chat.example.com",
        ),
        case("the name in capitals", at("Chat.Example.COM", ORIGIN), &listed(HOST)),
        case("WebSocket-Node on ::1", at("::1:3000", "http://[::1]:3000"), "")
            .rejected(400, &["host-invalid", "`::1:3000`", "IPv6 address", "brackets"]),
        case("paho on ::1", at("::1:3000", "http://::1:3000"), "--allow-any-host")
            .rejected(400, &["host-invalid", "`::1:3000`", "IPv6 address", "brackets"]),
        case("a proxy", absolute("http://server:80/ws", "server"), server),
        case("a proxy", absolute("http://server/ws", "server:80"), server),
        case("a proxy", absolute("http://Server/ws", "server"), server),
        case("a proxy that rewrote one", absolute("http://other/ws", "server"), server)
            .rejected(400, &["host-invalid", "what the proxy in front sets"]),
        case("an attacker's name", at("rebind.example.com", "http://rebind.example.com"), "")
            .rejected(421, &["host-not-allowed", "`rebind.example.com`", "AllowHost"]),
        case(
            "an attacker's name, allowed",
            at("rebind.example.com", "http://rebind.example.com"),
            "--allow-any-host",
        ),
    ])
    .await;
}

/// Each pattern allows this host and not that one, or the server says at start what to write instead.
#[tokio::test]
async fn host_patterns_of_operators_work_or_are_explained() {
    for (pattern, allowed, rejected) in [
        ("*.example.com", "chat.example.com", "example.com"),
        ("127.0.0.1:*", "127.0.0.1:3000", "127.0.0.2:3000"),
        ("localhost:*", "LocalHost:3000", "localhost.example.com:3000"),
        ("[0:0::1]", "[::1]", "[::2]"),
        ("[::1]:*", "[0:0::1]:3000", "127.0.0.1:3000"),
    ] {
        let server = Server::start(&["--allow-host", pattern, "--allow-origin", ORIGIN]);
        for (host, status) in [(allowed, 101), (rejected, 421)] {
            let response = send(server.address, &at(host, ORIGIN).bytes()).await;
            assert_eq!(response.status, status, "{pattern} {host}");
        }
    }
    for (pattern, words) in [
        (".example.com", "write `*.`"),
        ("*", "leave the list out"),
        ("https://chat.example.com", "chat.example.com"),
        ("::1", "[::1]"),
    ] {
        let output = Server::command(&["--allow-host", pattern]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{pattern}");
        assert!(error.contains("--allow-host") && error.contains(words), "{pattern}: {error}");
    }
}

#[tokio::test]
async fn subprotocols_are_understood_as_clients_write_them() {
    const ANY: &str = "--allow-any-host";
    const CHAT: &str = "--allow-any-host --subprotocol chat";
    const KUBECTL: &str = "SPDY/3.1+portforward.k8s.io";
    const PAIR: &str = "--allow-any-host --token s3cr3t --token-from pair:bearer";
    const NO_TOKEN: &[&str] = &["subprotocol-invalid", "one holds `"];
    let offering = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    let openhab = format!(
        "org.openhab.ws.accessToken.base64.{}, org.openhab.ws.protocol.default",
        BASE64_URL_SAFE_NO_PAD.encode("oh.s3cr3t?>")
    );
    check(vec![
        case("websockets, of an empty list", offering(""), ANY),
        case("websockets, of an empty list", offering(""), CHAT),
        case("a reverse proxy", offering("").and("Sec-WebSocket-Protocol", "chat"), CHAT)
            .selects("chat"),
        case("kubectl", offering(KUBECTL), &format!("{ANY} --subprotocol {KUBECTL}"))
            .selects(KUBECTL),
        case("kubectl, not listed", offering(KUBECTL), CHAT).rejected(400, NO_TOKEN),
        case("a bug", offering("null"), CHAT)
            .rejected(400, &["subprotocol-unsupported", "`null`", "Subprotocols::list"]),
        case("a bug", offering("undefined"), ANY)
            .rejected(400, &["subprotocol-unsupported", "`undefined`"]),
        case("a bug", offering("[object Object]"), CHAT).rejected(400, NO_TOKEN),
        case("a bug, beside another", offering("chat, undefined"), CHAT).selects("chat"),
        case("react-use-websocket", offering("Bearer, s3cr3t"), PAIR).selects("Bearer"),
        case("react-use-websocket", offering("BEARER,s3cr3t"), PAIR).selects("BEARER"),
        case("react-use-websocket", offering("Bearer, guess"), PAIR)
            .rejected(401, &["token-invalid"]),
        case(
            "openHAB",
            offering(&openhab),
            &format!(
                "{ANY} --token oh.s3cr3t?> --subprotocol org.openhab.ws.protocol.default \
                 --token-from subprotocol-base64:org.openhab.ws.accessToken.base64."
            ),
        )
        .selects("org.openhab.ws.protocol.default"),
    ])
    .await;
}

#[tokio::test]
async fn credentials_are_found_where_clients_put_them() {
    const TOKEN: &str = "--allow-any-host --token s3cr3t";
    const BASIC: &str =
        "--allow-any-host --token CP001:pa:ss --token-from basic --subprotocol ocpp1.6";
    const TWO: &str =
        "--allow-any-host --token s3cr3t --token-from cookie:session --token-from query:token";
    let ocpp = |credentials: &str| {
        handshake()
            .without("Origin")
            .target("/ws")
            .and("Authorization", format!("Basic {}", BASE64_STANDARD.encode(credentials)))
            .and("Sec-WebSocket-Protocol", "ocpp1.6")
    };
    let missing_allowed = |flags: &str| format!("{flags} --allow-missing-origin");
    let headlamp = "t".repeat(8_754);
    let kubernetes = format!(
        "base64url.bearer.authorization.k8s.io.{}, base64.binary.k8s.io",
        BASE64_URL_SAFE_NO_PAD.encode(&headlamp)
    );
    let headlamp_request = || handshake().and("Sec-WebSocket-Protocol", &kubernetes);
    let headlamp_flags = |more: &str| {
        format!(
            "--allow-any-host --token {headlamp} --token-from kubernetes \
             --subprotocol base64.binary.k8s.io{more}"
        )
    };
    let behind_proxy =
        || handshake().target("/ws?token=s3cr3t").and("Authorization", "Bearer of-the-proxy");
    const BEHIND_PROXY: &str =
        "--allow-any-host --token s3cr3t --token-from query:token --token-from authorization";
    let cookies = |first: &str, second: &str| {
        handshake().and("Cookie", format!("session={first}; theme=dark; session={second}"))
    };

    let mut cases = vec![
        case("OCPP", ocpp("CP001:pa:ss"), &missing_allowed(BASIC)).selects("ocpp1.6"),
        case("OCPP", ocpp("CP001:guess"), &missing_allowed(BASIC))
            .rejected(401, &["token-invalid"])
            .challenged("Basic realm="),
        case("OCPP", ocpp("").without("Authorization"), &missing_allowed(BASIC))
            .rejected(401, &["token-missing"])
            .challenged("Basic realm="),
        case("oauth2-proxy", behind_proxy(), &format!("{BEHIND_PROXY} --first-token")),
        case("oauth2-proxy", behind_proxy(), BEHIND_PROXY)
            .rejected(400, &["token-ambiguous", "query", "authorization"]),
        case("a browser with a cookie twice", cookies("s3cr3t", "s3cr3t"), TWO),
        case("a browser with two cookies", cookies("s3cr3t", "of-another-path"), TWO)
            .rejected(400, &["token-ambiguous", "cookie"]),
        case("an app", handshake().target("/ws?token=").and("Cookie", "session=s3cr3t"), TWO),
        case("an app", handshake().target("/ws?token=").and("Cookie", "session="), TWO)
            .rejected(401, &["token-missing"])
            .challenged("Bearer realm="),
        case("headlamp", headlamp_request(), &headlamp_flags(""))
            .rejected(401, &["token-invalid", "too long"]),
        case("headlamp", headlamp_request(), &headlamp_flags(" --max-token-length 10000"))
            .selects("base64.binary.k8s.io"),
    ];
    for name in
        ["X-API-Key", "Cf-Access-Jwt-Assertion", "X-Forwarded-Access-Token", "X-Authorization"]
    {
        let flags = format!("{TOKEN} --token-from header:{name}");
        cases.push(case("an API gateway", handshake().and(name, "s3cr3t"), &flags));
        cases.push(
            case("an API gateway", handshake().and(name, "guess"), &flags)
                .rejected(401, &["token-invalid"]),
        );
    }
    check(cases).await;
}

#[tokio::test]
async fn envoy_without_a_key_is_rejected() {
    let request = handshake().without("Sec-WebSocket-Key");
    check(vec![
        case("Envoy", request, "--allow-any-host")
            .rejected(400, &["key-missing", "Sec-WebSocket-Key"]),
    ])
    .await;
}

/// IXWebSocket and older MeshAgent: the last character before `==` holds 2 bits, and the rest may be anything.
#[tokio::test]
async fn key_with_stray_bits_is_accepted_and_answered_as_sent() {
    let stray = KEY.replace("Q==", "b==");
    for mode in ["guard", "responder"] {
        let server = Server::start(&["--mode", mode, "--allow-any-host"]);
        let request = handshake().with("Sec-WebSocket-Key", &stray);
        let mut response = send(server.address, &request.bytes()).await;
        assert_eq!(response.status, 101, "{mode}");
        let accept = accept_key(stray.as_bytes().try_into().unwrap());
        let accept = std::str::from_utf8(&accept).unwrap();
        assert_eq!(response.all("sec-websocket-accept"), [accept], "{mode}");
        assert!(echoes(&mut response).await, "{mode}");
    }
}

/// Gateways that translate HTTP/1.1 carry the `Content-Length` on. The server's HTTP library would count the frames
/// behind it, and reset the stream at the first.
#[tokio::test]
async fn content_length_over_http2_is_rejected() {
    for mode in ["guard", "responder"] {
        let server = Server::start(&["--mode", mode, "--allow-any-host"]);
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
            TokioExecutor::new(),
            TokioIo::new(stream),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let request: Request<Empty<Bytes>> = handshake().extended_connect();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "{mode}");
        let translated = handshake().and("Content-Length", "0").extended_connect();
        assert_eq!(sender.send_request(translated).await.unwrap().status(), 400, "{mode}");
        let rejection = server.rejection();
        assert!(rejection.starts_with("body-present: "), "{rejection}");
        assert!(rejection.to_lowercase().contains("content-length"), "{rejection}");
        assert!(server.has_no_more_rejections());
    }
}
