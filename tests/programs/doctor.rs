//! The example doctor: every finding about a server, a proxy or a certificate made for it.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Output,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tower_ws_guard::accept_key;

use crate::server::{Server, example};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "s3cr3t-t0ken";

/// Runs the doctor until it exits.
fn run(flags: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut doctor = example("doctor");
    doctor.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR");
    doctor.envs(environment.iter().copied()).args(flags);
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(doctor.output()));
    let output = output
        .recv_timeout(PATIENCE)
        .expect("it ends")
        .expect("`cargo build --example doctor` was run");
    let printed = [&*output.stdout, &output.stderr].concat();
    assert!(!String::from_utf8(printed).unwrap().contains(TOKEN), "{flags:?}");
    output
}

fn text(flags: &[&str]) -> String {
    String::from_utf8(run(flags, &[]).stdout).unwrap()
}

/// The output of `--json`.
#[derive(Debug)]
struct Report {
    json: Value,
    exit_code: i32,
}

impl Report {
    fn codes(&self) -> Vec<&str> {
        self.json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["code"].as_str().unwrap())
            .collect()
    }

    fn explanation(&self, code: &str) -> &str {
        let mut findings = self.json["findings"].as_array().unwrap().iter();
        findings.find(|finding| finding["code"] == code).unwrap()["explanation"].as_str().unwrap()
    }

    /// Asserts the outcome, the findings, and the exit code of the outcome.
    fn assert(&self, outcome: &str, codes: &[&str]) {
        assert_eq!(
            (self.json["outcome"].as_str().unwrap(), &*self.codes()),
            (outcome, codes),
            "{self:?}"
        );
        let exit_code = match outcome {
            "accepted" => 0,
            "rejected" | "faulty" => 1,
            _ => 2,
        };
        assert_eq!(self.exit_code, exit_code);
        for finding in self.json["findings"].as_array().unwrap() {
            assert!(finding["explanation"].as_str().unwrap().len() > 15, "{self:?}");
            assert!(finding["fix"].as_str().unwrap().len() > 15, "{self:?}");
        }
        let head = |name: &str| self.json[name].is_string();
        assert_eq!(head("response_head"), outcome != "unreachable", "{self:?}");
        assert!(head("request_head") || !head("response_head"), "{self:?}");
    }
}

fn doctor(flags: &[&str]) -> Report {
    let output = run(&[flags, &["--json", "--timeout", "30000"]].concat(), &[]);
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    Report { json, exit_code: output.status.code().unwrap() }
}

/// Like `doctor`, with a short timeout.
fn impatient_doctor(flags: &[&str]) -> Report {
    let output = run(&[flags, &["--json", "--timeout", "2000"]].concat(), &[]);
    Report {
        json: serde_json::from_slice(&output.stdout).unwrap(),
        exit_code: output.status.code().unwrap(),
    }
}

/// Calls `serve` with every connection to a new port, until the test ends.
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    address
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Responds with `response`, after replacing `{accept}` and `{key}`.
fn respond(
    stream: &mut (impl Read + Write),
    response: &[u8],
    seen: impl FnOnce(&str),
) -> io::Result<()> {
    let head = read_head(stream)?;
    seen(&head);
    let key = header(&head, "Sec-WebSocket-Key").unwrap();
    let accept = accept_key(key.as_bytes().try_into().unwrap());
    let mut rest = response;
    let mut filled = Vec::new();
    while let [first, tail @ ..] = rest {
        (filled, rest) = match (rest.strip_prefix(b"{accept}"), rest.strip_prefix(b"{key}")) {
            (Some(rest), _) => ([&*filled, &accept].concat(), rest),
            (_, Some(rest)) => ([&*filled, key.as_bytes()].concat(), rest),
            _ => ([&*filled, &[*first]].concat(), tail),
        };
    }
    stream.write_all(&filled)
}

/// A server with one response for all requests, and the heads that it received.
fn responding(response: impl AsRef<[u8]> + Send + 'static) -> (String, Receiver<String>) {
    let (sender, heads) = mpsc::channel();
    let address = listen(move |mut stream| {
        // The receiver may be gone, and the client may have left.
        let seen = |head: &str| drop(sender.send(head.to_owned()));
        respond(&mut stream, response.as_ref(), seen).ok();
    });
    (format!("ws://{address}/ws"), heads)
}

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

fn switch(and: &str) -> String {
    format!("{SWITCH}{and}\r\n")
}

fn rejection(status: &str, and: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{and}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

fn problem(code: &str) -> String {
    let body = format!(r#"{{"code":"{code}"}}"#);
    format!(
        "HTTP/1.1 418 No\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const ACCEPT: &str = "Sec-WebSocket-Accept: {accept}\r\n";

/// A response, flags, outcome and codes.
type Case = (String, &'static [&'static str], &'static str, &'static [&'static str]);

#[rustfmt::skip]
fn responses() -> Vec<Case> {
    let accepted = switch(ACCEPT);
    let lower = accepted.replace("101 Switching Protocols", "101").to_lowercase().replace(": ", ":").replace("http", "HTTP");
    vec![
        (accepted.clone(), &[], "accepted", &[]),
        (lower, &[], "accepted", &[]),
        (switch(&format!("{ACCEPT}Sec-WebSocket-Protocol: b\r\n")), &["--subprotocol", "a", "--subprotocol", "b"], "accepted", &[]),
        (format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{accepted}"), &[], "accepted", &[]),
        (switch(""), &[], "faulty", &["accept-missing"]),
        (switch("Sec-WebSocket-Accept: {key}\r\n"), &[], "faulty", &["accept-wrong"]),
        (accepted.replace("Upgrade: websocket", "Upgrade: h2c"), &[], "faulty", &["upgrade-wrong"]),
        (accepted.replace("Connection: Upgrade", "Connection: close"), &[], "faulty", &["connection-wrong"]),
        (switch(&format!("{ACCEPT}Sec-WebSocket-Protocol: c\r\n")), &["--subprotocol", "a"], "faulty", &["subprotocol-not-offered"]),
        (accepted.clone(), &["--subprotocol", "a"], "faulty", &["subprotocol-not-echoed"]),
        (switch(&format!("{ACCEPT}Sec-WebSocket-Extensions: permessage-deflate\r\n")), &[], "faulty", &["extension-not-offered"]),
        (switch(&format!("{ACCEPT}{ACCEPT}")), &[], "faulty", &["header-repeated"]),
        (switch("Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: x\r\n"), &[], "faulty", &["accept-wrong", "subprotocol-not-offered"]),
        (rejection("401 Unauthorized", "WWW-Authenticate: Basic\r\n"), &[], "rejected", &["unauthorized"]),
        (rejection("403 Forbidden", ""), &[], "rejected", &["forbidden", "origin-not-the-cause"]),
        (rejection("403 Forbidden", "Server: cloudflare\r\n"), &[], "rejected", &["rejected-by-intermediary", "origin-not-the-cause"]),
        (rejection("502 Bad Gateway", "Via: 1.1 squid\r\n"), &[], "rejected", &["rejected-by-intermediary"]),
        (rejection("504 Gateway Timeout", "Server: nginx\r\n"), &[], "rejected", &["rejected-by-intermediary"]),
        (rejection("426 Upgrade Required", "Sec-WebSocket-Version: 8, 7\r\n"), &[], "rejected", &["version-rejected"]),
        (rejection("400 Bad Request", "Sec-WebSocket-Version: 13\r\n"), &["--sec-websocket-version", "8"], "rejected", &["version-rejected"]),
        (rejection("404 Not Found", ""), &[], "rejected", &["not-found"]),
        (rejection("301 Moved Permanently", "Location: /ws/\r\n"), &[], "rejected", &["redirected"]),
        (rejection("429 Too Many Requests", ""), &[], "rejected", &["rate-limited"]),
        (rejection("503 Service Unavailable", ""), &[], "rejected", &["unavailable"]),
        (rejection("200 OK", ""), &[], "rejected", &["upgrade-stripped"]),
        (rejection("418 I'm a teapot", ""), &[], "rejected", &["rejected"]),
        (problem("token-missing"), &[], "rejected", &["token-missing", "rejected"]),
        (problem("token-missing") + "more", &[], "rejected", &["token-missing", "rejected"]),
        (problem("origin-not-allowed").replace("418 No", "403 Forbidden"), &[], "rejected", &["origin-not-allowed", "forbidden"]),
        (problem("quota-exceeded"), &[], "rejected", &["problem", "rejected"]),
        (rejection("418 No", "Content-Type: application/problem+json\r\n"), &[], "rejected", &["rejected"]),
        ("HTTP/1.1 418 No\r\nContent-Type: application/problem+json\r\n\r\n{\"code\":\"host-invalid\"}".into(), &[], "rejected", &["host-invalid", "rejected"]),
        ("HTTP/1.1 418 No\r\nContent-Type: application/problem+json\r\nTransfer-Encoding: chunked\r\n\r\n\
          9\r\n{\"code\":\"\r\ne;a=b\r\nhost-invalid\"}\r\n0\r\n\r\n".into(), &[], "rejected", &["host-invalid", "rejected"]),
        ("HTTP/1.1 418 No\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{\"code\":\"host-invalid\"}".into(), &[], "rejected", &["rejected"]),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), &[], "unreachable", &["not-http"]),
        ("\0\0\u{6}\u{4}\0\0\0\0\0".into(), &[], "unreachable", &["not-http"]),
        ("HTTP/1.1 101 Switching\r\nX: \u{1b}[31m\r\n\r\n".into(), &[], "unreachable", &["not-http"]),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000)), &[], "unreachable", &["not-http"]),
        ("HTTP/1.1 101 Switching Prot".into(), &[], "unreachable", &["connection-reset"]),
        ("".into(), &[], "unreachable", &["connection-reset"]),
    ]
}

#[test]
fn response_determines_outcome_and_findings() {
    for (response, flags, outcome, codes) in responses() {
        let (url, heads) = responding(response.clone());
        let report = doctor(&[&[&*url], flags].concat());
        report.assert(outcome, codes);

        // The heads are shown as sent on the wire.
        let sent = heads.recv_timeout(PATIENCE).unwrap();
        assert_eq!(report.json["request_head"], sent);
        if let Some(head) = report.json["response_head"].as_str() {
            let key = header(&sent, "Sec-WebSocket-Key").unwrap();
            let accept = accept_key(key.as_bytes().try_into().unwrap());
            let response = response
                .replace("{key}", key)
                .replace("{accept}", str::from_utf8(&accept).unwrap());
            assert!(response.starts_with(head) && head.ends_with("\r\n\r\n"), "{head}");
        }
    }
}

#[test]
fn finding_explains_what_is_known() {
    for (response, code, wanted) in [
        (switch("Sec-WebSocket-Accept: {key}\r\n"), "accept-wrong", "the key itself"),
        (
            rejection("301 Moved", "Location: https://example.com/ws\r\n"),
            "redirected",
            "`https://example.com/ws`",
        ),
        (
            rejection("401 No", "WWW-Authenticate: Bearer realm=x\r\n"),
            "unauthorized",
            "`Bearer realm=x`",
        ),
        (rejection("426 No", "Sec-WebSocket-Version: 8\r\n"), "version-rejected", "`8`"),
        (problem("token-expired"), "problem", "`token-expired`"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not-http", "`SSH-2.0-OpenSSH_9.2"),
        (String::new(), "connection-reset", "without a response"),
    ] {
        let report = doctor(&[&responding(response).0]);
        assert!(report.explanation(code).contains(wanted), "{report:?}");
    }
}

#[test]
fn request_follows_the_flags() {
    let (url, heads) = responding(switch(ACCEPT));
    let host = url.trim_start_matches("ws://").trim_end_matches("/ws");
    for (url, line) in [
        (format!("ws://{host}"), "GET / HTTP/1.1"),
        (format!("http://{host}/?a"), "GET /?a HTTP/1.1"),
        (format!("http://{host}?a=b"), "GET /?a=b HTTP/1.1"),
        (format!("ws://{host}/a%20b#c"), "GET /a%20b HTTP/1.1"),
    ] {
        doctor(&[&url]).assert("accepted", &[]);
        assert_eq!(heads.recv_timeout(PATIENCE).unwrap().lines().next(), Some(line));
    }

    let url = format!("{url}?room=1");
    let foreign = "https://app.example.com";
    let sent = |flags: &[&str]| {
        doctor(&[&[&*url], flags].concat());
        heads.recv_timeout(PATIENCE).unwrap()
    };

    let head = sent(&[]);
    assert!(head.starts_with("GET /ws?room=1 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
    ] {
        assert_eq!(header(&head, name), Some(value));
    }
    for name in ["Origin", "Authorization", "Cookie", "Sec-WebSocket-Protocol"] {
        assert_eq!(header(&head, name), None);
    }
    let key = header(&head, "Sec-WebSocket-Key").unwrap().to_owned();

    let head = sent(&[
        "--origin",
        foreign,
        "--sec-websocket-version",
        "8",
        "--subprotocol",
        "a",
        "--subprotocol",
        "b",
    ]);
    assert_ne!(header(&head, "Sec-WebSocket-Key"), Some(&*key));
    assert_eq!(header(&head, "Origin"), Some(foreign));
    assert_eq!(header(&head, "Sec-WebSocket-Version"), Some("8"));
    assert_eq!(header(&head, "Sec-WebSocket-Protocol"), Some("a, b"));
}

/// The responses contain the token whole, encoded and cut; `run` asserts that it is not printed.
#[test]
fn token_is_sent_and_not_printed() {
    let long = TOKEN.repeat(20);
    let positions: [(&[&str], &str, &str); 5] = [
        (&[], "Authorization", "Bearer {token}"),
        (&["--token-in", "authorization"], "Authorization", "Bearer {token}"),
        (&["--token-in", "cookie:session"], "Cookie", "session={token}"),
        (&["--token-in", "query:ticket"], "GET", "/ws?ticket={token} HTTP/1.1"),
        (&["--token-in", "subprotocol:token."], "Sec-WebSocket-Protocol", "chat, token.{token}"),
    ];
    for token in [TOKEN, &*long] {
        let responses = [
            switch(&format!("{ACCEPT}Sec-WebSocket-Protocol: chat\r\nX-Token: {token}\r\n")),
            switch(&format!(
                "Sec-WebSocket-Accept: {token}\r\nSec-WebSocket-Protocol: {token}\r\n"
            )),
            rejection("302 Found", &format!("Location: /login?next=/ws/{token}\r\n")),
            format!("what is {token}?"),
            problem(token),
        ];
        for response in responses {
            let (url, heads) = responding(response);
            for (flags, name, wanted) in positions {
                for style in [&["--json"][..], &[]] {
                    let flags = [&[&*url, "--subprotocol", "chat", "--token", token], flags, style]
                        .concat();
                    let output = run(&flags, &[]);
                    let printed = String::from_utf8(output.stdout).unwrap();
                    let cut = &TOKEN[..TOKEN.len() - 1];
                    assert!(printed.contains("***") && !printed.contains(cut), "{printed}");

                    let head = heads.recv_timeout(PATIENCE).unwrap().replace("GET ", "GET: ");
                    assert_eq!(header(&head, name).unwrap(), wanted.replace("{token}", token));
                }
            }
        }
    }
}

#[test]
fn token_is_percent_encoded_and_masked_in_a_query() {
    let token = "a+b/c&d%";
    let (url, heads) = responding(switch(ACCEPT));
    let report =
        doctor(&[&format!("{url}?x=y"), "--token", token, "--token-in", "query:the ticket"]);
    report.assert("accepted", &[]);
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("GET /ws?x=y&the%20ticket=a%2Bb%2Fc%26d%25 HTTP/1.1\r\n"), "{head}");
    let shown = report.json["request_head"].as_str().unwrap();
    assert!(shown.starts_with("GET /ws?x=y&the%20ticket=*** HTTP/1.1\r\n"), "{shown}");
}

/// A server that accepts only one origin.
fn choosy(origin: Option<&'static str>, accepted: &'static str) -> SocketAddr {
    listen(move |mut stream| {
        let address = stream.local_addr().unwrap();
        let head = read_head(&mut stream).unwrap();
        let wanted = origin.map(|origin| origin.replace("{own}", &format!("http://{address}")));
        let status =
            if header(&head, "Origin") == wanted.as_deref() { accepted } else { "403 Forbidden" };
        stream.write_all(rejection(status, "").as_bytes()).unwrap();
    })
}

#[test]
fn origin_is_varied_after_a_403() {
    const FOREIGN: &[&str] = &["--origin", "https://evil.example"];
    const WITH_TOKEN: &[&str] = &["--origin", "https://evil.example", "--token", TOKEN];
    let cause: &[&str] = &["forbidden", "origin-rejected"];
    for (allowed, accepted, flags, codes) in [
        (Some("{own}"), "101 Switching", FOREIGN, cause),
        (Some("{own}"), "101 Switching", &[], cause),
        (None, "101 Switching", FOREIGN, cause),
        (Some("{own}"), "401 Unauthorized", FOREIGN, cause),
        // The token may have been valid for one try only.
        (Some("{own}"), "401 Unauthorized", WITH_TOKEN, &["forbidden"]),
        (Some("{own}"), "500 Oops", FOREIGN, &["forbidden"]),
        (
            Some("https://app.example.com"),
            "101 Switching",
            FOREIGN,
            &["forbidden", "origin-not-the-cause"],
        ),
    ] {
        let url = format!("ws://{}/", choosy(allowed, accepted));
        doctor(&[&[&*url], flags].concat()).assert("rejected", codes);
    }

    // Each origin is tried once.
    let (url, heads) = responding(rejection("403 Forbidden", ""));
    let own = url.trim_end_matches("/ws").replace("ws:", "http:");
    for (origin, wanted) in [
        (None, vec![None, Some(&*own)]),
        (Some(&*own), vec![Some(&*own), None]),
        (Some("null"), vec![Some("null"), None, Some(&*own)]),
    ] {
        let flags: Vec<&str> = origin.iter().flat_map(|origin| ["--origin", origin]).collect();
        doctor(&[&[&*url], &*flags].concat())
            .assert("rejected", &["forbidden", "origin-not-the-cause"]);
        let heads: Vec<String> = heads.try_iter().collect();
        assert_eq!(heads.iter().map(|head| header(head, "Origin")).collect::<Vec<_>>(), wanted);
    }

    let address = choosy(Some("{own}"), "101 Switching");
    let report = doctor(&[&*format!("http://{address}/"), "--origin", "https://evil.example"]);
    let explanation = report.explanation("origin-rejected");
    for wanted in
        ["`Origin: https://evil.example`", &format!("`Origin: http://{address}` it is 101")]
    {
        assert!(explanation.contains(wanted), "{explanation}");
    }
}

/// Writes a file with certificates.
fn pem(name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("doctor-{}-{name}.pem", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path.into_os_string().into_string().unwrap()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = pem(name, &params.self_signed(&key).unwrap().pem());
        Self { issuer: Issuer::new(params, key), file }
    }

    fn issue(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.into(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A correct server behind TLS.
fn secure((certificate, key): Identity, alpn: &str) -> SocketAddr {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.into()];
    let config = Arc::new(config);
    listen(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        // The client is to find this error.
        respond(&mut stream, switch(ACCEPT).as_bytes(), |_| {}).ok();
    })
}

#[test]
fn tls_certificate_errors_are_told_apart() {
    let ours = Authority::new("ours");
    let others = Authority::new("others");
    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) =
            (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    };
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(3000, 1, 1);
    let self_signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let self_signed_file = pem("self-signed", &self_signed.cert.pem());
    let self_signed = || {
        let key = PrivateKeyDer::try_from(self_signed.signing_key.serialize_der()).unwrap();
        (self_signed.cert.der().clone(), key)
    };

    let trust_ours: &[&str] = &["--ca", &ours.file];
    let trust_others: &[&str] = &["--ca", &others.file];
    let trust_itself: &[&str] = &["--ca", &self_signed_file];
    for (identity, alpn, flags, outcome, codes) in [
        (ours.issue("127.0.0.1", |_| {}), "http/1.1", trust_ours, "accepted", &[][..]),
        (self_signed(), "http/1.1", trust_itself, "accepted", &[]),
        (
            ours.issue("127.0.0.1", |_| {}),
            "http/1.1",
            trust_others,
            "unreachable",
            &["tls-untrusted"],
        ),
        (ours.issue("127.0.0.1", |_| {}), "http/1.1", &[], "unreachable", &["tls-untrusted"]),
        (self_signed(), "http/1.1", &[], "unreachable", &["tls-untrusted"]),
        (ours.issue("127.0.0.1", expired), "http/1.1", trust_ours, "unreachable", &["tls-expired"]),
        (ours.issue("127.0.0.1", future), "http/1.1", trust_ours, "unreachable", &["tls-expired"]),
        (
            ours.issue("other.example", |_| {}),
            "http/1.1",
            trust_ours,
            "unreachable",
            &["tls-name-mismatch"],
        ),
        (ours.issue("127.0.0.1", |_| {}), "h2", trust_ours, "unreachable", &["tls-failed"]),
    ] {
        let url = format!("wss://{}/ws", secure(identity, alpn));
        doctor(&[&[&*url], flags].concat()).assert(outcome, codes);
    }

    // `SSL_CERT_FILE` replaces the trusted certificates of the system.
    let url = format!("wss://{}/ws", secure(ours.issue("127.0.0.1", |_| {}), "http/1.1"));
    assert_eq!(run(&[&url], &[("SSL_CERT_FILE", &ours.file)]).status.code(), Some(0));

    // TLS on one side only.
    let address = secure(ours.issue("127.0.0.1", |_| {}), "http/1.1");
    doctor(&[&format!("ws://{address}")]).assert("unreachable", &["not-http"]);
    let address = listen(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Waits until the client has left.
        stream.read_to_end(&mut Vec::new()).ok();
    });
    doctor(&[&format!("wss://{address}")]).assert("unreachable", &["tls-failed"]);
}

#[test]
fn dns_failure_is_unreachable() {
    doctor(&["ws://doctor.invalid/ws"]).assert("unreachable", &["dns-failed"]);
}

#[test]
fn closed_port_is_connection_refused() {
    // Bound but not listening, so that no other process gets the port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    for scheme in ["ws", "wss"] {
        doctor(&[&format!("{scheme}://{address}")]).assert("unreachable", &["connection-refused"]);
    }
}

#[test]
fn connection_reset_names_its_stage() {
    let after_the_request = listen(|mut stream| {
        read_head(&mut stream).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let in_the_tls_handshake = listen(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let closed_in_the_tls_handshake = listen(|mut stream| {
        // Reads everything: unread bytes would turn the close into a reset.
        assert!(stream.read(&mut [0; 64 * 1024]).unwrap() > 0);
    });
    for (url, stage) in [
        (format!("ws://{after_the_request}"), "waiting for the response"),
        (format!("wss://{in_the_tls_handshake}"), "in the TLS handshake"),
        (format!("wss://{closed_in_the_tls_handshake}"), "in the TLS handshake"),
    ] {
        let report = doctor(&[&url]);
        report.assert("unreachable", &["connection-reset"]);
        assert!(report.explanation("connection-reset").contains(stage), "{report:?}");
    }
}

/// Like a firewall that drops packets: with a full queue the system ignores further connections.
fn full_backlog() -> (SocketAddr, Vec<TcpStream>, Socket) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let mut waiting = Vec::new();
    while let Ok(stream) = connect() {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue has no end");
    }
    (address, waiting, listener)
}

#[test]
fn connection_timeout_names_its_stage() {
    let (full, _waiting, _listener) = full_backlog();
    let (sender, kept) = mpsc::channel();
    let silent = listen(move |stream| sender.send(stream).unwrap());
    for (url, stage) in [
        (format!("ws://{full}"), "; connecting"),
        (format!("ws://{silent}"), "waiting for the response"),
        (format!("wss://{silent}"), "in the TLS handshake"),
    ] {
        let report = impatient_doctor(&[&url]);
        report.assert("unreachable", &["connection-timeout"]);
        assert!(report.explanation("connection-timeout").contains(stage), "{report:?}");
    }
    drop(kept);
}

#[test]
fn example_server_is_diagnosed() {
    let server = Server::start(&["--token", TOKEN, "--subprotocol", "chat"]);
    let address = server.address;
    let url = format!("ws://{address}/ws");
    let own = format!("http://{address}");
    let valid: &[&str] = &["--origin", &own, "--token", TOKEN];
    for (flags, outcome, codes) in [
        (valid.to_vec(), "accepted", &[][..]),
        ([valid, &["--subprotocol", "chat"]].concat(), "accepted", &[]),
        (
            vec!["--origin", "https://evil.example", "--token", TOKEN],
            "rejected",
            &["origin-not-allowed", "forbidden", "origin-rejected"],
        ),
        (vec!["--token", TOKEN], "rejected", &["origin-missing", "forbidden", "origin-rejected"]),
        (vec!["--origin", &own], "rejected", &["token-missing", "unauthorized"]),
        (
            vec!["--origin", &own, "--token", "guess"],
            "rejected",
            &["token-invalid", "unauthorized"],
        ),
        (
            [valid, &["--sec-websocket-version", "8"]].concat(),
            "rejected",
            &["version-unsupported", "version-rejected"],
        ),
        (
            [valid, &["--subprotocol", "other"]].concat(),
            "rejected",
            &["subprotocol-unsupported", "rejected"],
        ),
        (
            [valid, &["--token-in", "cookie:session"]].concat(),
            "rejected",
            &["token-missing", "unauthorized"],
        ),
    ] {
        doctor(&[&[&*url], &*flags].concat()).assert(outcome, codes);
    }
    let elsewhere = format!("ws://{address}/elsewhere");
    doctor(&[&[&*elsewhere], valid].concat()).assert("rejected", &["not-found"]);

    // Cause and fix are those of the crate.
    let report = doctor(&[&url, "--origin", &own]);
    let kind = tower_ws_guard::RejectionKind::TokenMissing;
    assert!(report.explanation("token-missing").contains(kind.title()));
    assert_eq!(report.json["findings"][0]["fix"], kind.fix());
}

/// A 101 is not a success if a close frame follows with the reason.
#[test]
fn accept_then_close_is_diagnosed_as_rejected() {
    let server = Server::start(&["--token", TOKEN, "--rejection", "close"]);
    let url = format!("ws://{}/ws", server.address);
    let own = format!("http://{}", server.address);
    doctor(&[&url, "--origin", &own, "--token", TOKEN]).assert("accepted", &[]);
    let report = doctor(&[&url, "--origin", &own]);
    report.assert("rejected", &["token-missing", "closed"]);
    assert!(report.explanation("closed").contains("4401"));
}

#[test]
fn example_server_with_a_self_signed_certificate_is_untrusted() {
    let server = Server::start(&["--tls-self-signed", "--allow-missing-origin"]);
    let url = format!("wss://{}/ws", server.address);
    doctor(&[&url]).assert("unreachable", &["tls-untrusted"]);
}

#[test]
fn proxy_that_strips_headers_is_diagnosed() {
    let server = Server::start(&["--allow-missing-origin"]);
    let target = server.address;
    for (stripped, codes) in [
        (&["Upgrade", "Connection"][..], &["upgrade-missing", "upgrade-stripped"][..]),
        (
            &["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"],
            &["upgrade-stripped"],
        ),
        (&["Sec-WebSocket-Version"], &["version-missing", "rejected"]),
        (&[], &[]),
    ] {
        let proxy = listen(move |mut client| {
            let head = read_head(&mut client).unwrap();
            let is_kept =
                |line: &&str| !stripped.iter().any(|name| line.starts_with(&format!("{name}:")));
            let head: String = head.split_inclusive("\r\n").filter(is_kept).collect();
            let mut server = TcpStream::connect(target).unwrap();
            server.write_all(head.as_bytes()).unwrap();
            // Either side may close first.
            let (mut to_server, mut from_client) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                io::copy(&mut from_client, &mut to_server).ok();
                to_server.shutdown(std::net::Shutdown::Write).ok();
            });
            io::copy(&mut server, &mut client).ok();
        });
        let outcome = if stripped.is_empty() { "accepted" } else { "rejected" };
        doctor(&[&format!("ws://{proxy}/ws")]).assert(outcome, codes);
    }
}

#[test]
fn output_for_people_has_no_control_characters_or_colors_when_piped() {
    let (url, _heads) = responding(rejection("401 Unauthorized", "X-Control: a\u{9b}31mb\r\n"));
    let printed = text(&[&url]);
    for wanted in [
        "GET /ws HTTP/1.1",
        "HTTP/1.1 401 Unauthorized",
        "Rejected.",
        "unauthorized: ",
        "What to do: ",
    ] {
        assert!(printed.contains(wanted), "{printed}");
    }
    // Piped output has no colors, and a server cannot control the terminal.
    assert!(!printed.contains(|char: char| char.is_control() && char != '\n'), "{printed:?}");

    let colored = |environment: &[(&str, &str)]| run(&[&url], environment).stdout.contains(&0x1b);
    assert!(colored(&[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));

    let (url, _heads) = responding(switch(ACCEPT));
    assert!(text(&[&url]).contains("Accepted"));
    let (url, _heads) = responding(switch(""));
    assert!(text(&[&url]).contains("Faulty"));
}

#[test]
fn invalid_flag_is_named_in_the_error() {
    let url = "ws://127.0.0.1:9/ws";
    let not_pem = pem("empty", "no certificate");
    for (flags, wanted) in [
        (&[][..], "<URL>"),
        (&["ftp://127.0.0.1/"], "wss://"),
        (&["127.0.0.1:80"], "<URL>"),
        (&["ws://user:pass@127.0.0.1/"], "--token"),
        (&["ws://127.0.0.1:99999/"], "<URL>"),
        (&[url, "--origin", "https://app.example.com/"], "--origin"),
        (&[url, "--token-in", "cookie:session"], "--token <TOKEN>"),
        (&[url, "--token", "t", "--token-in", "body"], "--token-in"),
        (&[url, "--token", "t", "--token-in", "cookie:a b"], "--token-in"),
        (&[url, "--token", ""], "--token:"),
        (&[url, "--token", "s3cr3t-t0ken\r\nX: y"], "--token:"),
        (&[url, "--token", "s3cr3t-t0ken;", "--token-in", "cookie:a"], "--token:"),
        (&[url, "--token", "s3cr3t-t0ken/", "--token-in", "subprotocol:a."], "--token:"),
        (&[url, "--subprotocol", "a b"], "--subprotocol"),
        (&[url, "--subprotocol", "a", "--subprotocol", "a"], "--subprotocol"),
        (&[url, "--sec-websocket-version", "256"], "--sec-websocket-version"),
        (&[url, "--ca", "/does/not/exist"], "--ca"),
        (&[url, "--ca", &not_pem], "--ca"),
        (&[url, "--timeout", "0"], "--timeout"),
        (&[url, "--timeout", "18446744073709551615"], "--timeout"),
        (&[url, "--frames", "1"], "--frames"),
    ] {
        let output = run(flags, &[]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{flags:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(wanted), "{flags:?}: {error}");
    }
}

/// The other tests name every finding, except those that `response_determines_outcome_and_findings` must contain.
#[test]
fn finding_kinds_are_all_tested() {
    let seen: HashSet<&str> = responses().iter().flat_map(|(.., codes)| *codes).copied().collect();
    for kind in tower_ws_guard::client::FindingKind::ALL {
        assert!(seen.contains(kind.code()), "{}", kind.code());
    }
}
