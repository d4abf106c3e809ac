//! No HTTP response.

use std::io;

use super::{origin, rejected::tls_port, upgrade::is_vite};
use crate::{
    certificate::Certificate,
    codes::Code,
    exchange::Fault,
    finding::Finding,
    probe::{Observations, Probe, is_http2, is_usable},
    route::RouteFault,
    text::days,
    tls::TlsFault,
};

pub(crate) fn findings(seen: &Observations, fault: &Fault) -> Vec<Finding> {
    let finding = match fault {
        Fault::Route(fault) => route(seen, fault),
        Fault::Tls(fault, detail) => tls(seen, *fault, detail),
        Fault::Http2(detail) => Finding::new(Code::NotHttp)
            .because("the server does not speak HTTP/2 on this port")
            .detail(detail)
            .fix("leave out --http2, or enable HTTP/2 in the server"),
        Fault::NoExtendedConnect => Finding::new(Code::NoWebsocketHere)
            .because(
                "the server speaks HTTP/2, and does not enable extended CONNECT (RFC 8441): browsers use HTTP/1.1 for \
                 WebSockets of such a server",
            )
            .fix("leave out --http2; or send SETTINGS_ENABLE_CONNECT_PROTOCOL = 1 from the server"),
        Fault::NotHttp(bytes) => not_http(seen, bytes),
        Fault::NoResponse | Fault::Closed(_) | Fault::Incomplete { .. } => {
            return silent(seen, fault);
        }
    };
    vec![finding]
}

fn route(seen: &Observations, fault: &RouteFault) -> Finding {
    let target = &seen.main.target;
    let address = seen.main.way.attempts.last().map(|attempt| attempt.address.to_string());
    let address = address.unwrap_or_else(|| target.authority());
    match fault {
        RouteFault::Lookup(error) => {
            let host = target.host();
            let finding = Finding::new(Code::DnsFailed)
                .because(format!("the name `{host}` has no address: {error}"));
            if !host.contains('.') {
                finding.fix(format!(
                    "`{host}` is a name of a container or of a local network, which a browser outside of it does not \
                     know: publish the port, and use the name of the host; --resolve {host}:{}:ADDRESS tries an address",
                    target.port()
                ))
            } else {
                finding
            }
        }
        RouteFault::LookupTimeout => Finding::new(Code::DnsFailed)
            .because(format!("the name server did not respond in time for `{}`", target.host())),
        RouteFault::ConnectTimeout => {
            Finding::new(Code::ConnectionTimeout).because(format!(
                "{address} does not respond: a firewall drops the packets, or no machine has this address"
            ))
        }
        RouteFault::Connect(kind, error) => match kind {
            io::ErrorKind::TimedOut => Finding::new(Code::ConnectionTimeout).detail(error),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Finding::new(Code::ConnectionReset).detail(error)
            }
            io::ErrorKind::ConnectionRefused => {
                let finding =
                    Finding::new(Code::ConnectionRefused).because(format!("nothing listens at {address}"));
                if target.is_loopback() {
                    finding.fix(format!(
                        "start the server on port {port}, or correct the port; if it runs in a container, publish the \
                         port (`-p {port}:{port}`) and let it listen on 0.0.0.0 there; inside of a container, this \
                         address is the container itself",
                        port = target.port()
                    ))
                } else {
                    finding
                }
            }
            _ => Finding::new(Code::ConnectionRefused)
                .because(format!("{address} cannot be reached: {error}"))
                .fix("check the address, the network of this machine, and its route (IPv6 is often missing: try -4)"),
        },
        RouteFault::Proxy { detail, response, body } => {
            let (url, from) = seen.main.way.proxy.clone().unwrap_or_default();
            let by = format!("the forward proxy {url} (from {from})");
            match response {
                Some(head) if head.status == 407 => {
                    let schemes = head.get_all("proxy-authenticate").map(String::from_utf8_lossy);
                    let schemes = schemes.collect::<Vec<_>>().join(", ");
                    let is_basic = schemes.is_empty() || schemes.to_ascii_lowercase().contains("basic");
                    let finding = Finding::new(Code::ProxyLogin)
                        .because(format!("{by} wants a login (407)"))
                        .detail(&schemes);
                    if is_basic {
                        finding
                    } else {
                        finding.fix(
                            "it does not take a user and a password in the URL of the proxy: run a local helper that \
                             logs in to it (px, cntlm) and use that as the proxy; browsers log in by the system's login",
                        )
                    }
                }
                _ => {
                    let words = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
                    let words = words.split_whitespace().take(30).collect::<Vec<_>>().join(" ");
                    Finding::new(Code::ProxyFailed)
                        .because(format!("{by} did not connect to the server: {detail}"))
                        .detail(if words.is_empty() || words.starts_with('<') { String::new() } else { format!("`{words}`") })
                        .fix(format!(
                            "let the proxy allow CONNECT to {}:{}, or go past it: NO_PROXY={}, or -x ''",
                            target.host(),
                            target.port(),
                            target.host()
                        ))
                }
            }
        }
    }
}

fn tls(seen: &Observations, fault: TlsFault, detail: &str) -> Finding {
    let target = &seen.main.target;
    let session = seen.main.tls.clone().unwrap_or_default();
    let certificate = session.chain.first();
    match fault {
        TlsFault::Expired => {
            let finding = Finding::new(Code::TlsExpired);
            match certificate {
                Some(certificate) => {
                    let ago = seen.given.now.saturating_sub(certificate.not_after) / 86_400;
                    finding.because(format!(
                        "the certificate of `{}` expired on {}, {} ago",
                        certificate.subject,
                        certificate.valid.1,
                        days(ago)
                    ))
                }
                None => finding,
            }
        }
        TlsFault::NotYetValid => {
            let finding = Finding::new(Code::TlsExpired);
            match certificate {
                Some(certificate) => finding.because(format!(
                    "the certificate of `{}` is not valid before {}",
                    certificate.subject, certificate.valid.0
                )),
                None => finding,
            }
            .fix("correct the clock of this machine; if it is right, issue the certificate anew")
        }
        TlsFault::Name => {
            let names = certificate.map(|certificate| certificate.names.clone()).unwrap_or_default();
            let shown = names.iter().take(5).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let finding = Finding::new(Code::TlsNameMismatch);
            if names.is_empty() {
                finding
                    .because("the certificate has no name for which it is valid (no subjectAltName): the common name does not count any more")
                    .fix(format!("issue it anew with -addext 'subjectAltName = DNS:{}'", target.host()))
            } else {
                finding.because(format!("the certificate is for {shown}, not for `{}`", target.host()))
            }
        }
        TlsFault::Purpose => Finding::new(Code::TlsNotForServers).detail(
            certificate.map(|certificate| format!("it has {}", certificate.usages.join(", "))).unwrap_or_default(),
        ),
        TlsFault::CaAsEndEntity => Finding::new(Code::TlsUntrusted)
            .because(
                "the certificate is that of an authority (CA:TRUE), as `openssl req -x509` makes it, and not that of a \
                 server",
            )
            .fix(format!(
                "make one with -addext basicConstraints=critical,CA:FALSE -addext 'subjectAltName=DNS:{}'; or trust \
                 this very one: --cacert FILE with the certificate that the server sends",
                target.host()
            )),
        TlsFault::NoRoots => Finding::new(Code::TlsUntrusted)
            .because("this machine has no trusted authorities at all")
            .fix("install them (Debian, Alpine: the package ca-certificates), or use --cacert FILE"),
        TlsFault::Untrusted if certificate.is_some_and(is_inspected) => {
            let issuer = certificate.map(|certificate| &*certificate.issuer).unwrap_or_default();
            Finding::new(Code::TlsUntrusted)
                .because(format!(
                    "the certificate is not the server's: something on this network opens TLS and inspects it, as the \
                     issuer `{issuer}` says"
                ))
                .fix(
                    "trust its authority: ask the operator of the network for the certificate, then --cacert FILE here, \
                     NODE_EXTRA_CA_CERTS=FILE for Node, SSL_CERT_FILE for OpenSSL; or let it pass this host through",
                )
        }
        TlsFault::Untrusted => {
            let finding = Finding::new(Code::TlsUntrusted);
            match certificate {
                Some(certificate) if certificate.self_signed => finding
                    .because(format!(
                        "the certificate of `{}` is self-signed: no authority vouches for it, and a WebSocket has no \
                         warning to click through",
                        certificate.subject
                    ))
                    .fix(
                        "get one from an authority such as Let's Encrypt, or add this one to the trusted ones of each \
                         client; for a test use --cacert FILE (or -k) here, and in a browser open a page of the same \
                         host and port first, and accept its warning",
                    ),
                Some(certificate) if session.chain.len() == 1 && seen.given.cacert.is_none() => finding
                    .because(format!(
                        "the server sends one certificate, of `{}`, and not that of its issuer, `{}`: the chain is \
                         incomplete, or the authority is not trusted here",
                        certificate.subject, certificate.issuer
                    ))
                    .fix(
                        "let the server send its whole chain (fullchain.pem in place of cert.pem); for an authority of \
                         your own use --cacert FILE",
                    ),
                Some(certificate) => finding.because(format!(
                    "the certificate of `{}` was issued by `{}`, which {} does not lead to",
                    certificate.subject,
                    certificate.issuer,
                    seen.given.cacert.as_deref().map_or("no trusted authority", |_| "the file of --cacert"),
                )),
                None => finding,
            }
            .detail("")
        }
        TlsFault::ClientCertificate => {
            let finding = Finding::new(Code::TlsClientCertificate);
            if seen.given.client_certificate {
                finding
                    .because("the server rejects the client certificate that was sent")
                    .detail(detail)
                    .fix("use one that is not expired, and from an authority that the server trusts: --cert FILE --key FILE")
            } else {
                finding.detail(detail)
            }
        }
        TlsFault::Version => Finding::new(Code::TlsNoCommonVersion).detail(detail),
        TlsFault::Alpn => match seen.probe(&Probe::TlsHttp2) {
            Some(probe) if probe.tls.as_ref().is_some_and(|tls| tls.version.is_some()) => {
                Finding::new(Code::TlsAlpn)
                    .because("the port speaks HTTP/2 only: it rejects http/1.1 in TLS (ALPN), and accepts h2")
                    .fix(
                        "enable http/1.1 beside h2 in the server: the handshake of a browser's WebSocket begins with \
                         it; --http2 tries a WebSocket over HTTP/2",
                    )
            }
            _ if seen.given.http2 => Finding::new(Code::TlsAlpn)
                .because("the server does not offer HTTP/2 (ALPN)")
                .fix("leave out --http2, or enable HTTP/2 in the server"),
            _ => Finding::new(Code::TlsAlpn),
        },
        TlsFault::UnrecognizedName if target.address().is_none() => Finding::new(Code::TlsFailed)
            .because(format!("the server has no certificate for the name `{}`", target.host()))
            .fix("check the name in the URL, and add it to the server or the proxy that ends TLS"),
        TlsFault::UnrecognizedName | TlsFault::Alert if target.address().is_some() => {
            Finding::new(Code::TlsNameRequired).detail(detail).fix(format!(
                "use the name in the URL: wss://NAME:{port}{} with --resolve NAME:{port}:{}",
                target.path(),
                target.host(),
                port = target.port()
            ))
        }
        TlsFault::NotTls | TlsFault::Closed | TlsFault::Reset | TlsFault::Timeout => match seen.probe(&Probe::Plain) {
            Some(probe) if probe.received().is_some() => {
                let result = if is_usable(probe) {
                    "accepts the handshake".to_owned()
                } else {
                    format!("responds with {}", crate::report::result(probe))
                };
                let finding = Finding::new(Code::PlainPort)
                    .because(format!("the port does not speak TLS: without TLS the server {result}"));
                finding.fix(format!("use {}, or the port that speaks TLS", target.with_tls(false)))
            }
            _ if fault == TlsFault::Closed && session.client_certificate_wanted => {
                Finding::new(Code::TlsClientCertificate).detail(detail)
            }
            Some(probe) if fault == TlsFault::NotTls => {
                let finding = Finding::new(Code::PlainPort);
                match &probe.outcome {
                    crate::exchange::Outcome::Failed(Fault::NotHttp(bytes)) => finding
                        .because(format!("the port speaks neither TLS nor HTTP: it sends `{}`", begin(bytes)))
                        .fix("check the port: another service listens there"),
                    _ => finding.detail(detail),
                }
            }
            _ if fault == TlsFault::Timeout => Finding::new(Code::TlsFailed)
                .because("the server accepts the connection and does not respond to TLS")
                .fix("check the port; if it speaks TLS, the server is busy or waits for something else"),
            _ if fault == TlsFault::Reset => Finding::new(Code::ConnectionReset)
                .because("the connection was reset in the TLS handshake")
                .detail(detail),
            _ => Finding::new(Code::TlsFailed)
                .because("the server closes the connection in the TLS handshake")
                .detail(detail)
                .fix(if target.address().is_some() {
                    "if the server needs a name (SNI), use it in the URL, with --resolve NAME:PORT:ADDRESS; look into \
                     its log"
                } else {
                    "look into the log of the server; a firewall that inspects names (SNI) does this too"
                }),
        },
        _ => Finding::new(Code::TlsFailed).detail(detail),
    }
}

fn begin(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).trim().to_owned()
}

fn not_http(seen: &Observations, bytes: &[u8]) -> Finding {
    if bytes.starts_with(&[0x15, 3]) {
        return tls_port(seen, "it responds with a TLS alert");
    }
    if is_http2(bytes) {
        return Finding::new(Code::Http2Only).fix(if seen.main.target.tls() {
            Code::Http2Only.fix()
        } else {
            "enable HTTP/1.1 beside HTTP/2 on this port (a gRPC server has none: use another port for WebSockets); \
             --http2 tries a WebSocket over HTTP/2"
        });
    }
    if let Some(finding) = speaks_tls(seen) {
        return finding;
    }
    let known = [
        (&b"SSH-"[..], "an SSH server"),
        (b"220 ", "a mail or FTP server"),
        (b"-ERR", "a Redis server"),
        (b"* OK", "an IMAP server"),
        (b"+OK", "a POP3 server"),
        (b"RFB ", "a VNC server"),
        (b"<?xml", "an XMPP server"),
        (b"AMQP", "an AMQP server"),
    ];
    let known = known.into_iter().find(|(mark, _)| bytes.starts_with(mark)).map(|(_, name)| name);
    Finding::new(Code::NotHttp).because(format!(
        "the server does not speak HTTP: it sends `{}`{}",
        begin(bytes),
        known.map(|name| format!(", so it is {name}")).unwrap_or_default()
    ))
}

/// A TLS probe of a `ws:` URL that got an answer.
fn speaks_tls(seen: &Observations) -> Option<Finding> {
    let tls = seen.probe(&Probe::Tls)?.tls.as_ref()?;
    (tls.version.is_some() || !tls.chain.is_empty())
        .then(|| tls_port(seen, "a TLS handshake succeeds there"))
}

/// The connection was made, and no response came.
fn silent(seen: &Observations, fault: &Fault) -> Vec<Finding> {
    if let Some(finding) = speaks_tls(seen) {
        return vec![finding];
    }
    if let Some(origin) = origin::finding(seen) {
        return vec![origin];
    }
    let finding = match fault {
        Fault::Incomplete { bytes, ended } => {
            let how = if *ended {
                "the connection ends within the head of the response"
            } else {
                "the head of the response does not end in time"
            };
            Finding::new(Code::IncompleteResponse).because(format!("{how}: `{}`", begin(bytes)))
        }
        Fault::Closed(None) if seen.main.time.as_millis() >= 500 => Finding::new(Code::NoResponse)
            .because(format!(
                "the server accepted the connection, got the request, and closed it after {:.1} s without a response",
                seen.main.time.as_secs_f64()
            ))
            .fix(
                "check the path: many servers leave a handshake at a path that is not theirs without a response; \
                 Socket.IO closes it after a second: it wants a client of its own, and the path \
                 `/socket.io/?EIO=4&transport=websocket`; some servers want a subprotocol (--subprotocol)",
            ),
        Fault::Closed(error) => {
            let finding = Finding::new(Code::ConnectionReset);
            match error {
                Some(error) => finding.detail(error),
                None => finding,
            }
        }
        _ => {
            let waited = seen.main.time.as_secs_f64();
            let finding = Finding::new(Code::NoResponse).because(format!(
                "the server accepted the connection, got the request, and sent nothing for {waited:.1} s"
            ));
            match seen.made(&Probe::WithoutUpgrade).and_then(|probe| probe.received()) {
                Some(page) if is_vite(page) => finding
                    .detail("an ordinary request shows that it is Vite, which responds only to its subprotocol")
                    .fix("offer it: --subprotocol vite-hmr; with `server.ws`, look at `server.hmr.path` and the token"),
                Some(page) => finding
                    .detail(format!("an ordinary request gets {}, so the server runs", page.head.status))
                    .fix(
                        "check the path, and the subprotocol: many servers leave a handshake that is not theirs without \
                         a response (the hot reload of Vite wants `--subprotocol vite-hmr`)",
                    ),
                None => finding,
            }
        }
    };
    let finding = match seen.made(&Probe::Bare) {
        Some(bare) if is_usable(bare) => {
            let explanation = finding.explanation.clone();
            finding
                .because(format!("{explanation}; with no more headers than RFC 6455 requires (--as bare) it accepts"))
                .fix(
                    "the server fails at a header of browsers, most likely at the offer of permessage-deflate: let it \
                     ignore what it does not know",
                )
        }
        _ => finding,
    };
    let finding = if seen.is_flaky() {
        let again = seen.made(&Probe::Repeat).map(crate::report::result).unwrap_or_default();
        finding.detail(format!("the same request once more: {again}"))
    } else {
        finding
    };
    vec![finding]
}

/// Whether the issuer is a product that inspects TLS.
fn is_inspected(certificate: &Certificate) -> bool {
    let issuer = certificate.issuer.to_ascii_lowercase();
    [
        "zscaler",
        "netskope",
        "fortinet",
        "fortigate",
        "palo alto",
        "blue coat",
        "bluecoat",
        "symantec web",
        "sophos",
        "checkpoint",
        "check point",
        "cisco umbrella",
        "mcafee web",
        "forcepoint",
        "barracuda",
        "kaspersky",
        "avast",
        "avg ",
        "eset ",
        "bitdefender",
        "mitmproxy",
        "charles proxy",
        "fiddler",
        "burp",
        "portswigger",
        "squid",
    ]
    .iter()
    .any(|name| issuer.contains(name))
}
