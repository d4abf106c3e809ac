//! Each case as its reporter would run it, and what must be said.

use crate::{
    common::{Expected, Report, assert_none},
    start::{Proxy, Running, bare_server, server},
};

/// The lines of nginx that pass a WebSocket on.
const UPGRADE: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
const HOST: &str = "proxy_set_header Host $http_host;";

const ACCEPTED: Expected<'_> = Expected { exit: 0, codes: &[], words: &[] };
const STRIPPED: Expected<'_> = Expected {
    exit: 1,
    codes: &["upgrade-stripped"],
    words: &[
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection",
    ],
};

/// A `location` of nginx with these lines.
fn location(lines: &str) -> String {
    format!("location / {{ proxy_pass http://{{UPSTREAM}}; {lines} }}")
}

fn nginx(upstream: &Running, lines: &str) -> Running {
    Proxy::Nginx.start(upstream.port, false, &location(lines))
}

/// All cases of a test; what was not as expected is collected, so that one run shows all of it.
#[derive(Default)]
struct Cases(Vec<String>);

impl Cases {
    fn check(&mut self, name: &str, url: &str, arguments: &[&str], expected: Expected<'_>) {
        let report = Report::of(&[&[url], arguments].concat());
        self.0.extend(
            report
                .differences(expected)
                .into_iter()
                .map(|difference| format!("{name}: {difference}")),
        );
    }

    fn assert(self) {
        assert_none(&self.0);
    }
}

/// A script, its path, and the arguments that it wants.
const SERVERS: &[(&str, &str, &[&str])] = &[
    ("aiohttp_server.py", "/ws", &[]),
    ("tornado_server.py", "/ws", &[]),
    ("fastapi_server.py", "/ws", &[]),
    ("channels_server.py", "/ws", &["--origin", "http://good.example"]),
    ("ws.mjs", "/ws", &[]),
    ("socket_io.mjs", "/socket.io/?EIO=4&transport=websocket", &[]),
    // With an Origin it wants the token of its page.
    ("vite.mjs", "/", &["--subprotocol", "vite-hmr", "--as", "bare"]),
    ("webpack.mjs", "/ws", &[]),
];

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn working_server_is_accepted_directly_and_behind_proxies() {
    let mut cases = Cases::default();
    for (script, path, arguments) in SERVERS {
        let server = server(script);
        let url = |running: &Running| format!("ws://127.0.0.1:{}{path}", running.port);
        cases.check(script, &url(&server), arguments, ACCEPTED);
        for (proxy, lines) in [
            (Proxy::Nginx, &*location(&[UPGRADE, HOST].concat())),
            (
                Proxy::Apache,
                "ProxyPreserveHost On\nProxyPass / http://{UPSTREAM}/ upgrade=websocket",
            ),
            (Proxy::Haproxy, ""),
            (Proxy::Caddy, "reverse_proxy {UPSTREAM}"),
        ] {
            let proxy_running = proxy.start(server.port, false, lines);
            cases.check(
                &format!("{script} behind {proxy:?}"),
                &url(&proxy_running),
                arguments,
                ACCEPTED,
            );
        }
    }
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn upgrade_removed_by_a_proxy_is_found() {
    let mut cases = Cases::default();
    for (script, path, arguments) in SERVERS {
        let server = server(script);
        let url = |running: &Running| format!("ws://127.0.0.1:{}{path}", running.port);
        for lines in ["", "proxy_http_version 1.1;"] {
            let proxy = nginx(&server, &[lines, HOST].concat());
            cases.check(
                &format!("{script} behind nginx with {lines:?}"),
                &url(&proxy),
                arguments,
                STRIPPED,
            );
        }
    }
    let (server, uvicorn) = (server("aiohttp_server.py"), server("fastapi_server.py"));
    for lines in [
        "ProxyPass / http://{UPSTREAM}/",
        // The second line is ignored: AH01146.
        "ProxyPass / http://{UPSTREAM}/\nProxyPass /ws http://{UPSTREAM}/ws upgrade=websocket",
    ] {
        let proxy = Proxy::Apache.start(server.port, false, lines);
        let url = format!("ws://127.0.0.1:{}/ws", proxy.port);
        cases.check(lines, &url, &[], Expected { words: &["upgrade=websocket"], ..STRIPPED });
    }
    // Apache passes `server: uvicorn` on, and this one has its library.
    let proxy = Proxy::Apache.start(uvicorn.port, false, "ProxyPass / http://{UPSTREAM}/");
    let url = format!("ws://127.0.0.1:{}/ws", proxy.port);
    let words = &["a proxy in front removes Upgrade", "upgrade=websocket"];
    cases.check("uvicorn behind Apache", &url, &[], Expected { words, ..STRIPPED });
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn uvicorn_without_a_websocket_library_is_found() {
    let expected = Expected {
        exit: 1,
        codes: &["no-websocket-here"],
        words: &["pip install 'uvicorn[standard]'"],
    };
    let mut cases = Cases::default();
    let server = bare_server("fastapi_server.py");
    cases.check("direct", &format!("ws://127.0.0.1:{}/ws", server.port), &[], expected);
    // nginx hides which server it is, and may be to blame itself.
    let proxy = nginx(&server, &[UPGRADE, HOST].concat());
    let either = Expected {
        codes: &["upgrade-stripped"],
        words: &["nothing", "uvicorn[standard]"],
        ..expected
    };
    cases.check("nginx", &format!("ws://127.0.0.1:{}/ws", proxy.port), &[], either);
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn origin_of_django_channels_is_undecided_or_the_cause() {
    let undecided = Expected { exit: 1, codes: &["origin-undecided"], words: &["--origin"] };
    let rejected = Expected {
        codes: &["origin-rejected"],
        words: &["https://evil.example", "https://good.example"],
        ..undecided
    };
    let mut cases = Cases::default();
    let server = server("channels_server.py");
    let proxy = nginx(&server, &[UPGRADE, HOST].concat());
    for (name, running) in [("direct", &server), ("behind nginx", &proxy)] {
        let url = format!("ws://127.0.0.1:{}/ws", running.port);
        let foreign: &[&str] = &["--origin", "https://evil.example"];
        cases.check(name, &url, foreign, undecided);
        cases.check(
            name,
            &url,
            &[foreign, &["--origin", "https://good.example"]].concat(),
            rejected,
        );
    }
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn tornado_compares_origin_with_a_host_that_a_proxy_changed() {
    let mut cases = Cases::default();
    let server = server("tornado_server.py");
    let foreign = &["--origin", "https://evil.example"];
    let rejected =
        Expected { exit: 1, codes: &["origin-rejected"], words: &["https://evil.example"] };
    cases.check("direct", &format!("ws://127.0.0.1:{}/ws", server.port), foreign, rejected);

    let changed = Expected { codes: &["host-changed"], words: &[HOST], ..rejected };
    let proxy = nginx(&server, UPGRADE);
    cases.check("nginx", &format!("ws://127.0.0.1:{}/ws", proxy.port), &[], changed);
    let proxy =
        Proxy::Apache.start(server.port, false, "ProxyPass / http://{UPSTREAM}/ upgrade=websocket");
    let url = format!("ws://127.0.0.1:{}/ws", proxy.port);
    cases.check("Apache", &url, &[], Expected { words: &["ProxyPreserveHost On"], ..changed });
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn tls_and_plain_ports_are_told_apart() {
    let mut cases = Cases::default();
    let server = server("ws.mjs");
    let upgrade = location(&[UPGRADE, HOST].concat());
    for (proxy, lines) in [
        (Proxy::Nginx, &*upgrade),
        (Proxy::Apache, "ProxyPreserveHost On\nProxyPass / http://{UPSTREAM}/ upgrade=websocket"),
        (Proxy::Haproxy, ""),
        (Proxy::Caddy, "reverse_proxy {UPSTREAM}"),
    ] {
        let running = proxy.start(server.port, true, lines);
        let name = format!("{proxy:?}");
        let secure = format!("wss://localhost:{}/ws", running.port);
        let certificate = running.certificate();
        cases.check(&name, &secure, &["--cacert", &certificate], ACCEPTED);
        cases.check(&name, &secure, &["-k"], ACCEPTED);
        cases.check(
            &name,
            &secure,
            &[],
            Expected { exit: 2, codes: &["tls-untrusted"], words: &["--cacert"] },
        );
        let plain = secure.replace("wss:", "ws:");
        // HAProxy closes the connection without a word.
        let exit = if proxy == Proxy::Haproxy { 2 } else { 1 };
        cases.check(&name, &plain, &[], Expected { exit, codes: &["tls-port"], words: &["wss:"] });
        if proxy == Proxy::Haproxy {
            cases.check(&name, &secure, &["--cacert", &certificate, "--http2"], ACCEPTED);
        }
        if proxy == Proxy::Caddy {
            let address = secure.replace("localhost", "127.0.0.1");
            cases.check(
                &name,
                &address,
                &[],
                Expected { exit: 2, codes: &["tls-name-required"], words: &["--resolve"] },
            );
        }
    }
    let secure = format!("wss://127.0.0.1:{}/ws", server.port);
    cases.check("ws", &secure, &[], Expected { exit: 2, codes: &["plain-port"], words: &["ws:"] });
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn demand_for_a_client_certificate_is_found() {
    let mut cases = Cases::default();
    let server = server("ws.mjs");
    let verify = "ssl_verify_client on; ssl_client_certificate {DIR}/cert.pem;";
    for version in ["TLSv1.2", "TLSv1.3"] {
        let lines =
            format!("ssl_protocols {version}; {verify} {}", location(&[UPGRADE, HOST].concat()));
        let running = Proxy::Nginx.start(server.port, true, &lines);
        let url = format!("wss://localhost:{}/ws", running.port);
        let certificate = running.certificate();
        let required =
            Expected { exit: 1, codes: &["client-certificate-required"], words: &["--cert"] };
        cases.check(version, &url, &["--cacert", &certificate], required);
        cases.check(version, &url, &["--cacert", &certificate, "--cert", &certificate], ACCEPTED);
    }
    for version in ["TLSv1.2", "TLSv1.3"] {
        let lines = format!(
            "SSLProtocol {version}\nSSLVerifyClient require\nSSLCACertificateFile {{DIR}}/cert.pem\n\
             ProxyPass / http://{{UPSTREAM}}/ upgrade=websocket"
        );
        let running = Proxy::Apache.start(server.port, true, &lines);
        let url = format!("wss://localhost:{}/ws", running.port);
        let certificate = running.certificate();
        let demanded = Expected { exit: 2, codes: &["tls-client-certificate"], words: &["--cert"] };
        cases.check(version, &url, &["--cacert", &certificate], demanded);
        cases.check(version, &url, &["--cacert", &certificate, "--cert", &certificate], ACCEPTED);
    }
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn what_follows_a_101_is_read() {
    let mut cases = Cases::default();
    let socket_io = server("socket_io.mjs");
    let url = format!("ws://127.0.0.1:{}/socket.io/?EIO=3&transport=websocket", socket_io.port);
    let expected =
        Expected { exit: 1, codes: &["not-a-frame"], words: &["Unsupported protocol version"] };
    cases.check("Socket.IO of another version", &url, &[], expected);

    let webpack = server("webpack.mjs");
    let url = format!("ws://127.0.0.1:{}/ws", webpack.port);
    let expected =
        Expected { exit: 1, codes: &["closed-at-once"], words: &["Invalid Host/Origin header"] };
    cases.check("webpack", &url, &["--origin", "https://evil.example"], expected);
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn server_that_does_not_respond_is_found() {
    let mut cases = Cases::default();
    let vite = server("vite.mjs");
    let url = format!("ws://127.0.0.1:{}/", vite.port);
    let silent = Expected { exit: 2, codes: &["no-response"], words: &["subprotocol"] };
    cases.check("Vite", &url, &["--max-time", "3"], silent);

    let socket_io = server("socket_io.mjs");
    let url = format!("ws://127.0.0.1:{}/ws", socket_io.port);
    cases.check(
        "Socket.IO at another path",
        &url,
        &[],
        Expected { words: &["path", "1."], ..silent },
    );

    let webpack = server("webpack.mjs");
    let url = format!("ws://127.0.0.1:{}/nowhere", webpack.port);
    cases.check(
        "webpack at another path",
        &url,
        &["--max-time", "3"],
        Expected { words: &["path"], ..silent },
    );
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn proxy_without_a_server_is_named() {
    let mut cases = Cases::default();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    for (proxy, lines, name) in [
        (Proxy::Nginx, &*location(UPGRADE), "nginx"),
        (Proxy::Apache, "ProxyPass / http://{UPSTREAM}/ upgrade=websocket", "Apache"),
        (Proxy::Haproxy, "", "HAProxy"),
        (Proxy::Caddy, "reverse_proxy {UPSTREAM}", "Caddy"),
    ] {
        let running = proxy.start(port, false, lines);
        let url = format!("ws://127.0.0.1:{}/ws", running.port);
        cases.check(
            name,
            &url,
            &[],
            Expected { exit: 1, codes: &["intermediary"], words: &[name] },
        );
    }
    cases.assert();
}

#[test]
#[ignore = "needs servers and proxies, by crates/ws-doctor/tests/install"]
fn wrong_path_is_found() {
    let mut cases = Cases::default();
    for (script, code, words) in [
        ("aiohttp_server.py", "not-found", &["path"][..]),
        ("tornado_server.py", "not-found", &["path"]),
        // It responds to a wrong path with 403.
        ("fastapi_server.py", "forbidden", &["path"]),
    ] {
        let server = server(script);
        let url = format!("ws://127.0.0.1:{}/nowhere", server.port);
        cases.check(script, &url, &[], Expected { exit: 1, codes: &[code], words });
    }
    cases.assert();
}
