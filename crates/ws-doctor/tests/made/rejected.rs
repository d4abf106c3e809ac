//! The handshake is rejected.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::{
    common::{Report, assert_none},
    serve::{Head, Reply, Then, accepted, case, check, close, frame, raw, server, status},
};

const EVIL: &str = "https://evil.example";
const FOREIGN: &[&str] = &["--origin", EVIL];

/// `reply` to a handshake; an ordinary request gets another response, so that the upgrade has arrived.
fn to_handshakes(head: &Head, reply: Reply) -> Reply {
    if head.upgrades() { reply } else { status("426 Upgrade Required", "", "an upgrade is needed") }
}

/// Accepts every origin but the foreign one, and replies to that.
fn to_foreign(head: &Head, reply: Reply) -> Reply {
    let reply = if head.origin() == Some(EVIL) { reply } else { accepted(head) };
    to_handshakes(head, reply)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[rustfmt::skip]
#[test]
fn status_determines_the_code() {
    assert_none(&check(&[
        case("401", |head, _| to_handshakes(head, status("401 Unauthorized", "WWW-Authenticate: Bearer realm=x\r\n", "")), &[], 1, &["unauthorized"], &["Bearer realm=x", "--token"]),
        case("401, expired", |head, _| to_handshakes(head, status("401 Unauthorized", "WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"The token has expired\"\r\n", "")), &["--token", "abcdefgh"], 1, &["unauthorized"], &["`The token has expired`", "before each connection"]),
        case("401, expired, by its body", |head, _| to_handshakes(head, status("401 Unauthorized", "", "{\"message\":\"jwt expired\"}")), &["--token", "abcdefgh"], 1, &["unauthorized"], &["`jwt expired`", "before each connection"]),
        case("404", |head, _| to_handshakes(head, status("404 Not Found", "", "no such page")), &[], 1, &["not-found"], &["path"]),
        case("many 1xx", |head, _| to_handshakes(head, raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9))), &[], 1, &["rejected", "malformed-response"], &["103"]),
        case("418", |head, _| to_handshakes(head, status("418 I'm a teapot", "", "short and stout")), &[], 1, &["rejected"], &["418"]),
        case("429", |_, _| status("429 Too Many Requests", "Retry-After: 17\r\n", ""), &[], 1, &["rate-limited"], &["17"]),
        case("503", |head, _| to_handshakes(head, status("503 Service Unavailable", "", "")), &[], 1, &["unavailable"], &[]),
        case("version", |head, _| to_handshakes(head, status("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "")), &["--sec-websocket-version", "8"], 1, &["version-refused"], &["13"]),
        case("subprotocol", |head, _| to_handshakes(head, accepted(head)), &["--subprotocol", "a"], 1, &["subprotocol-not-echoed"], &[]),
    ]));
}

#[rustfmt::skip]
#[test]
fn upgrade_that_did_not_arrive_is_found() {
    assert_none(&check(&[
        case("a page", |_, _| status("200 OK", "Content-Type: text/html\r\n", "<title>Home</title>"), &[], 1, &["upgrade-stripped"], &["Upgrade", "path"]),
        case("nginx", |_, _| status("400 Bad Request", "Server: nginx\r\n", "Can \"Upgrade\" only to \"WebSocket\"."), &[], 1, &["upgrade-stripped"], &["proxy_set_header Upgrade $http_upgrade;"]),
        case("426", |_, _| status("426 Upgrade Required", "Upgrade: websocket\r\n", "Upgrade Required"), &[], 1, &["upgrade-stripped"], &["Upgrade"]),
        case("uvicorn", |_, _| status("404 Not Found", "server: uvicorn\r\n", "{\"detail\":\"Not Found\"}"), &[], 1, &["no-websocket-here"], &["pip install 'uvicorn[standard]'", "or a proxy in front removes Upgrade", "upgrade=websocket"]),
        // Apache passes the name of the server on, and writes it so.
        case("uvicorn behind a proxy", |_, _| status("404 Not Found", "Server: uvicorn\r\n", "{\"detail\":\"Not Found\"}"), &[], 1, &["upgrade-stripped"], &["a proxy in front removes Upgrade", "upgrade=websocket", "pip install 'uvicorn[standard]'"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn origin_is_blamed_only_if_another_one_is_accepted() {
    assert_none(&check(&[
        case("403", |head, _| to_foreign(head, status("403 Forbidden", "", "")), FOREIGN, 1, &["origin-rejected"], &[EVIL, "http://{host}"]),
        case("404 of Action Cable", |head, _| to_foreign(head, status("404 Not Found", "", "")), FOREIGN, 1, &["origin-rejected"], &[EVIL]),
        // Its response to an ordinary request is the same.
        case("Action Cable", |head, _| if head.upgrades() && head.origin() == Some(&head.own_origin()) { accepted(head) } else { status("404 Not Found", "x-runtime: 0.003\r\n", "Page not found") }, FOREIGN, 1, &["origin-rejected"], &[EVIL, "allowed_request_origins"]),
        case("400", |head, _| to_foreign(head, status("400 Bad Request", "", "")), FOREIGN, 1, &["origin-rejected"], &[EVIL]),
        case("hang-up", |head, _| to_foreign(head, raw("")), FOREIGN, 2, &["origin-rejected"], &[EVIL]),
        case("reset", |head, _| to_foreign(head, raw("").then(Then::Reset)), FOREIGN, 2, &["origin-rejected"], &[EVIL]),
        case("close 4403", |head, _| to_foreign(head, accepted(head).and(close(4403, "")).then(Then::Close)), FOREIGN, 1, &["origin-rejected"], &[EVIL, "4403"]),
        // Neither is accepted.
        case("undecided", |head, _| to_handshakes(head, status("403 Forbidden", "", "")), FOREIGN, 1, &["origin-undecided"], &["--origin"]),
        case("undecided, Django Channels", |head, _| to_handshakes(head, raw("HTTP/1.1 403 Access denied\r\n\r\n")), FOREIGN, 1, &["origin-undecided"], &["`evil.example` to ALLOWED_HOSTS"]),
        case("a body alone does not tell the framework", |head, _| to_handshakes(head, status("403 Forbidden", "", "Access denied")), FOREIGN, 1, &["origin-undecided"], &["`Access denied`; add --origin with one"]),
        // It compares names of hosts.
        case("webpack-dev-server", |head, _| to_handshakes(head, if head.origin() == Some(EVIL) { accepted(head).and(frame(0x81, r#"{"type":"error","data":"Invalid Host/Origin header"}"#)).then(Then::Close) } else { accepted(head) }), FOREIGN, 1, &["closed-at-once"], &["allowedHosts: [\"evil.example\"]"]),
        // It wants a token of browsers only.
        case("Vite without its token", |head, _| to_handshakes(head, if head.origin().is_some() { status("400 Bad Request", "", "") } else { accepted(head).replace("Upgrade: websocket", "Upgrade: websocket\r\nSec-WebSocket-Protocol: vite-hmr") }), &["--subprotocol", "vite-hmr"], 1, &["rejected"], &["`token=TOKEN`", "network panel"]),
        // An origin that the caller knows.
        case("known", |head, _| to_handshakes(head, if head.origin() == Some("https://good.example") { accepted(head) } else { status("403 Forbidden", "", "") }), &["--origin", EVIL, "--origin", "https://good.example"], 1, &["origin-rejected"], &[EVIL, "https://good.example"]),
        // Its own origin is rejected, and none at all accepted: it compares with a changed Host.
        case("changed host", |head, _| to_handshakes(head, if head.origin().is_none() { accepted(head) } else { status("403 Forbidden", "", "") }), &["--origin", "http://{host}"], 1, &["host-changed"], &["proxy_set_header Host $http_host;", "ProxyPreserveHost On"]),
        // The page may be another one.
        case("own origin, not given", |head, _| to_handshakes(head, if head.origin().is_none() { accepted(head) } else { status("403 Forbidden", "", "") }), &[], 1, &["host-changed"], &["--origin", "allowed origins"]),
        case("no origin", |head, _| to_handshakes(head, if head.origin().is_none() { status("403 Forbidden", "", "") } else { accepted(head) }), &["--as", "bare"], 1, &["origin-required"], &["Origin"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn flaky_server_is_not_an_origin_fault() {
    assert_none(&check(&[
        case("every second time", |head, count| if count % 2 == 0 { status("403 Forbidden", "", "") } else { accepted(head) }, FOREIGN, 1, &["forbidden"], &["not consistent"]),
        case("one of several behind Envoy", |head, count| if count % 2 == 0 { status("503 Service Unavailable", "", "upstream connect error or disconnect/reset before headers") } else { accepted(head) }, &[], 1, &["intermediary"], &["could not connect to a server", "once more: accepted; the server is not consistent"]),
        // The probes get a 429.
        case("403 and then 429", |_, count| if count == 0 { status("403 Forbidden", "", "") } else { status("429 Too Many Requests", "", "") }, FOREIGN, 1, &["forbidden"], &["429"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn tls_port_says_so_in_its_body() {
    assert_none(&check(&[
        case("nginx", |_, _| status("400 Bad Request", "Server: nginx\r\n", "<center>The plain HTTP request was sent to HTTPS port</center>"), &[], 1, &["tls-port"], &["wss:"]),
        case("Apache", |_, _| status("400 Bad Request", "", "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"), &[], 1, &["tls-port"], &["wss:"]),
        case("Go", |_, _| raw("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), &[], 1, &["tls-port"], &["wss:"]),
        case("Tomcat", |_, _| status("400 ", "", "Bad Request\nThis combination of host and port requires TLS.\n"), &[], 1, &["tls-port"], &["wss:"]),
        case("alert", |_, _| raw(*b"\x15\x03\x01\x00\x02\x02\x16"), &[], 2, &["tls-port"], &["wss:"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn response_of_an_intermediary_is_told_from_one_that_came_through() {
    assert_none(&check(&[
        case("no server behind Envoy", |head, _| to_handshakes(head, status("503 Service Unavailable", "", "no healthy upstream")), &[], 1, &["intermediary"], &["no server behind it was available", "health check"]),
        case("a server behind Envoy", |head, _| to_handshakes(head, status("503 Service Unavailable", "", "upstream connect error or disconnect/reset before headers. reset reason: connection failure")), &[], 1, &["intermediary"], &["could not connect to a server", "appProtocol"]),
        // The empty 403 of what is behind Envoy.
        case("403 through Envoy", |head, _| to_handshakes(head, status("403 Forbidden", "server: envoy\r\nx-envoy-upstream-service-time: 3\r\n", "")), FOREIGN, 1, &["origin-undecided"], &["--origin"]),
        case("502 of nginx", |_, _| status("502 Bad Gateway", "Server: nginx\r\n", "<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>"), &[], 1, &["intermediary"], &["nginx"]),
        case("Cloudflare 520", |_, _| status("520 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 520"), &[], 1, &["intermediary"], &["Cloudflare", "520"]),
        case("Cloudflare 521", |_, _| status("521 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 521"), &[], 1, &["intermediary"], &["Cloudflare", "refused"]),
        case("Cloudflare 522", |_, _| status("522 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 522"), &[], 1, &["intermediary"], &["Cloudflare", "522"]),
        case("Cloudflare 523", |_, _| status("523 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 523"), &[], 1, &["intermediary"], &["Cloudflare", "DNS"]),
        case("Cloudflare 524", |_, _| status("524 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 524"), &[], 1, &["intermediary"], &["Cloudflare", "100 seconds"]),
        case("Cloudflare 525", |_, _| status("525 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 525"), &[], 1, &["intermediary"], &["Cloudflare", "TLS"]),
        case("Cloudflare 526", |_, _| status("526 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 526"), &[], 1, &["intermediary"], &["Cloudflare", "certificate"]),
        case("Cloudflare 530", |_, _| status("530 ", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "error code: 1033"), &[], 1, &["intermediary"], &["Cloudflare", "1033"]),
        case("AWS 464", |_, _| status("464 ", "Server: awselb/2.0\r\n", ""), &[], 1, &["intermediary"], &["HTTP/1.1"]),
        case("challenge", |_, _| status("403 Forbidden", "Server: cloudflare\r\ncf-mitigated: challenge\r\n", "<title>Just a moment...</title>"), &[], 1, &["bot-challenge"], &["challenge"]),
        case("407", |_, _| status("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=x\r\n", ""), &[], 1, &["proxy-login"], &["407"]),
        case("511", |_, _| status("511 Network Authentication Required", "", "log in"), &[], 1, &["captive-portal"], &["log in"]),
        // `server: cloudflare` is on what it passes on, too.
        case("403 through Cloudflare", |head, _| to_handshakes(head, status("403 Forbidden", "Server: cloudflare\r\nCF-RAY: 1-FRA\r\n", "{\"error\":\"bad origin\"}")), FOREIGN, 1, &["origin-undecided"], &["--origin"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn redirect_names_the_url_to_use() {
    assert_none(&check(&[
        case("https", |head, _| status("301 Moved Permanently", &format!("Location: https://{}/ws\r\n", head.get("host").unwrap()), ""), &[], 1, &["redirected"], &["wss://{host}/ws"]),
        case("slash", |_, _| status("308 Permanent Redirect", "Location: /ws/\r\n", ""), &[], 1, &["redirected"], &["ws://{host}/ws/"]),
        case("slash of a path with a name like a login's", |_, _| status("301 Moved Permanently", "Location: /auth/\r\n", ""), &["ws://{host}/auth"], 1, &["redirected"], &["use ws://{host}/auth/"]),
        case("login", |_, _| status("302 Found", "Location: https://login.example/oauth2/authorize?client_id=1\r\n", ""), &[], 1, &["redirected"], &["login"]),
        case("portal", |_, _| status("302 Found", "Location: http://10.0.0.1/captiveportal/index.html\r\n", ""), &[], 1, &["captive-portal"], &["log in"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn body_of_a_known_server_is_understood() {
    const PROBLEM: &str = r#"{"type":"about:blank","title":"Too many rooms","detail":"Room 7 is full"}"#;
    assert_none(&check(&[
        case("FastAPI", |head, _| if head.upgrades() { status("403 Forbidden", "server: uvicorn\r\n", "") } else { status("404 Not Found", "server: uvicorn\r\n", r#"{"detail":"Not Found"}"#) }, &[], 1, &["forbidden"], &["path"]),
        case("SignalR", |head, _| to_handshakes(head, status("404 Not Found", "", "No Connection with that ID")), &[], 1, &["not-found"], &["sticky", "negotiate"]),
        case("problem+json", |head, _| to_handshakes(head, status("418 No", "Content-Type: application/problem+json\r\n", PROBLEM)), &[], 1, &["rejected"], &["Too many rooms", "Room 7 is full"]),
        case("gzip", |head, _| to_handshakes(head, status("418 No", "Content-Type: application/problem+json\r\nContent-Encoding: gzip\r\n", gzip(PROBLEM))), &[], 1, &["rejected"], &["Too many rooms", "Room 7 is full"]),
        case("code", |head, _| to_handshakes(head, status("401 Unauthorized", "Content-Type: application/problem+json\r\n", r#"{"title":"a token is required","status":401,"code":"token-missing"}"#)), &[], 1, &["token-missing"], &["token"]),
        case("code and advice of the server", |head, _| to_handshakes(head, status("418 No", "Content-Type: application/problem+json\r\n", r#"{"title":"full","code":"room-full","fix":"run `x`\nnow"}"#)), &[], 1, &["room-full"], &["the server advises: `run 'x' now`"]),
        case("our code", |head, _| to_handshakes(head, status("418 No", "Content-Type: application/problem+json\r\n", r#"{"title":"fine","code":"accepted"}"#)), &[], 1, &["rejected"], &["fine"]),
        case("Socket.IO", |head, _| to_handshakes(head, status("400 Bad Request", "Content-Type: application/json\r\n", r#"{"code":1,"message":"Session ID unknown"}"#)), &[], 1, &["rejected"], &["sticky"]),
        case("nginx", |_, _| status("400 Bad Request", "Server: nginx\r\n", "<title>400 Request Header Or Cookie Too Large</title>"), &[], 1, &["rejected"], &["cookies", "large_client_header_buffers"]),
        case("Envoy", |head, _| if head.upgrades() { status("403 Forbidden", "server: envoy\r\n", "") } else { status("200 OK", "server: envoy\r\n", "") }, &[], 1, &["intermediary"], &["upgrade_configs"]),
        case("plain text", |head, _| to_handshakes(head, status("403 Forbidden", "Content-Type: text/plain\r\n", "the origin is not allowed (origin-not-allowed)\n")), FOREIGN, 1, &["origin-not-allowed"], &["origin"]),
        case("close reason", |head, _| to_handshakes(head, accepted(head).and(close(4401, "token-missing")).then(Then::Close)), &[], 1, &["token-missing"], &["4401"]),
        case("client certificate", |_, _| status("400 Bad Request", "Server: nginx\r\n", "<title>400 No required SSL certificate was sent</title>"), &[], 1, &["client-certificate-required"], &["--cert"]),
    ]));
}

#[rustfmt::skip]
#[test]
fn accepted_handshake_may_have_remarks() {
    assert_none(&check(&[
        case("nothing to say", |head, _| accepted(head), &[], 0, &[], &[]),
        case("no origin", |head, _| accepted(head), &["--as", "bare"], 0, &["no-origin-sent"], &["--origin"]),
        case("a browser sends its own", |head, _| if head.origin() == Some(&head.own_origin()) { accepted(head) } else { status("403 Forbidden", "", "") }, &[], 0, &[], &[]),
        case("unsafe port", |head, _| accepted(head), &["ws://server.example:6000/ws", "--connect-to", "::{host}"], 0, &["unsafe-port"], &["port"]),
        case("mixed content", |head, _| accepted(head), &["ws://server.example:8000/ws", "--connect-to", "::{host}", "--origin", "https://app.example"], 0, &["mixed-content"], &["wss:"]),
        // Another computer of the network reaches for loopback by this, too.
        case("local network", |head, _| accepted(head), &["ws://{host}/", "--origin", "http://8.8.8.8"], 0, &["local-network-access"], &["147", "from this computer"]),
    ]));
}

#[test]
fn address_of_an_option_is_not_the_one_that_a_browser_finds() {
    let to = format!("::{}", server(|head, _| accepted(head)));
    let url = "ws://server.example:8000/ws";
    let report = Report::of(&[url, "--connect-to", &to, "--origin", "http://8.8.8.8"]);
    assert_eq!(report.json["findings"], serde_json::json!([]));
}
