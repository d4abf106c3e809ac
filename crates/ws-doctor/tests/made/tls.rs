//! Certificates, versions and names.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

use crate::{
    common::{Directory, Expected, assert_none},
    serve::{Head, Reply, accepted, check_at, listen, read_something, respond, server, status},
};

const NAME: &str = "server.example";

struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    /// Both, as PEM.
    pem: String,
}

fn identity(certificate: &rcgen::Certificate, key: KeyPair) -> Identity {
    Identity {
        certificate: certificate.der().clone(),
        pem: certificate.pem() + &key.serialize_pem(),
        key,
    }
}

/// A certificate as `openssl req -x509` makes it if `is_ca`.
fn self_signed(is_ca: bool) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    identity(&params.self_signed(&key).unwrap(), key)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        change(&mut params);
        identity(&params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A correct server behind TLS.
fn secure(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients_of: Option<&Authority>,
    alpn: &[&str],
) -> SocketAddr {
    secure_with(identity, versions, clients_of, alpn, accepted)
}

fn secure_with(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients_of: Option<&Authority>,
    alpn: &[&str],
    reply: impl Fn(&Head) -> Reply + Send + Sync + 'static,
) -> SocketAddr {
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match clients_of {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder(roots.into()).build().unwrap(),
            )
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![identity.certificate.clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| (*name).into()).collect();
    let config = Arc::new(config);
    listen(move |stream| {
        let tcp = stream.try_clone().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        // The client is to find the error.
        respond(&mut stream, &tcp, &reply).ok();
    })
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const URL: &str = "wss://server.example:{port}/ws";

/// The arguments lead the name to the address.
fn run(
    name: &str,
    address: SocketAddr,
    arguments: &[&str],
    exit: i32,
    codes: &[&str],
    words: &[&str],
) -> Vec<String> {
    let way = ["--resolve", "server.example:{port}:127.0.0.1"];
    check_at(name, URL, address, &[&way, arguments].concat(), Expected { exit, codes, words })
}

#[test]
fn certificate_is_judged_in_words() {
    let directory = Directory::new("certificates");
    let ours = Authority::new();
    let others = directory.write("others.pem", Authority::new().pem);
    let ours_file = directory.write("ours.pem", &ours.pem);
    let trust = &["--cacert", &*ours_file];
    let serve = |identity: &Identity| secure(identity, BOTH, None, &["http/1.1"]);
    let issue = |change: fn(&mut CertificateParams)| serve(&ours.issue(change));

    let mut failed = Vec::new();
    failed.extend(run("right", issue(|_| {}), trust, 0, &[], &[]));
    failed.extend(run("not trusted", issue(|_| {}), &[], 2, &["tls-untrusted"], &["--cacert"]));
    failed.extend(run(
        "other authority",
        issue(|_| {}),
        &["--cacert", &others],
        2,
        &["tls-untrusted"],
        &[],
    ));
    failed.extend(run("insecure", issue(|_| {}), &["-k"], 0, &[], &[]));
    let expired = issue(|params| {
        (params.not_before, params.not_after) =
            (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 2, 3));
    });
    failed.extend(run(
        "expired",
        expired,
        trust,
        2,
        &["tls-expired"],
        &["2002-02-03", "UTC", "days ago"],
    ));
    let future = issue(|params| params.not_before = date_time_ymd(3000, 1, 2));
    failed.extend(run(
        "not valid yet",
        future,
        trust,
        2,
        &["tls-expired"],
        &["3000-01-02", "clock"],
    ));
    let other_name = issue(|params| {
        params.subject_alt_names =
            CertificateParams::new(["other.example".to_owned()]).unwrap().subject_alt_names;
    });
    failed.extend(run(
        "other name",
        other_name,
        trust,
        2,
        &["tls-name-mismatch"],
        &["other.example", NAME],
    ));
    let for_clients =
        issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    failed.extend(run(
        "for clients",
        for_clients,
        trust,
        2,
        &["tls-not-for-servers"],
        &["serverAuth"],
    ));
    let soon = issue(|params| {
        let now = std::time::SystemTime::now();
        params.not_after = (now + std::time::Duration::from_secs(5 * 24 * 3600)).into();
    });
    failed.extend(run("expires soon", soon, trust, 0, &["certificate-expires-soon"], &["days"]));
    assert_none(&failed);
}

/// `openssl req -x509` makes an authority, and people trust that very certificate.
#[test]
fn self_signed_certificate_works_or_is_explained() {
    let directory = Directory::new("self-signed");
    let mut failed = Vec::new();
    let leaf = self_signed(false);
    let address = secure(&leaf, BOTH, None, &[]);
    let file = directory.write("leaf.pem", &leaf.pem);
    failed.extend(run("CA:FALSE", address, &["--ca", &file], 0, &[], &[]));
    let words = &["self-signed", "Let's Encrypt"];
    failed.extend(run("not trusted", address, &[], 2, &["tls-untrusted"], words));
    // No public authority issues one.
    failed.extend(check_at(
        "local name",
        "wss://nas.local:{port}/ws",
        address,
        &["--resolve", "nas.local:{port}:127.0.0.1"],
        Expected { exit: 2, codes: &["tls-untrusted"], words: &["`nas.local`", "mkcert"] },
    ));

    let authority = self_signed(true);
    let address = secure(&authority, BOTH, None, &[]);
    let file = directory.write("authority.pem", &authority.pem);
    // Browsers and OpenSSL accept it when it is trusted.
    failed.extend(run("CA:TRUE", address, &["--ca", &file], 0, &[], &[]));
    assert_none(&failed);
}

#[test]
fn client_certificate_is_demanded_in_both_versions() {
    let directory = Directory::new("clients");
    let ours = Authority::new();
    let ours_file = directory.write("ours.pem", &ours.pem);
    let client =
        ours.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let stranger = Authority::new().issue(|_| {});
    let client_file = directory.write("client.pem", &client.pem);
    let stranger_file = directory.write("stranger.pem", &stranger.pem);
    let mut failed = Vec::new();
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let server = ours.issue(|_| {});
        let address = secure(&server, &[version], Some(&ours), &[]);
        let trust = ["--cacert", &*ours_file];
        let with = |file| [&trust[..], &["--cert", file]].concat();
        failed.extend(run(
            name,
            address,
            &trust,
            2,
            &["tls-client-certificate"],
            &["--cert", "--key"],
        ));
        failed.extend(run(name, address, &with(&client_file), 0, &[], &[]));
        failed.extend(run(
            name,
            address,
            &with(&stranger_file),
            2,
            &["tls-client-certificate"],
            &["--cert"],
        ));
    }
    assert_none(&failed);
}

#[test]
fn redirect_to_another_scheme_or_port_gets_no_credentials() {
    let directory = Directory::new("redirects");
    let ours = Authority::new();
    let trust = directory.write("ours.pem", &ours.pem);
    let client = directory.write("client.pem", &ours.issue(|_| {}).pem);
    let redirecting = |location: String| {
        let reply = move |_: &Head| status("307 Temporary Redirect", &location, "");
        secure_with(&ours.issue(|_| {}), BOTH, None, &[], reply)
    };

    let (sender, heads) = std::sync::mpsc::channel();
    let plain = server(move |head, _| {
        sender.send(head.0.clone()).ok();
        accepted(head)
    });
    let first = redirecting(format!("Location: ws://{NAME}/ws\r\n"));
    let (to_first, to_plain) = (format!("{NAME}:443:{first}"), format!("{NAME}:80:{plain}"));
    let way = ["--cacert", &trust, "--connect-to", &to_first, "--connect-to", &to_plain, "-L"];
    let credentials = [
        "--token=t0ken",
        "-b=a=c00kie",
        "-u=user:passw0rd",
        "--subprotocol=base64url.bearer.x.dDBrZW4",
        "-HSec-WebSocket-Protocol: eyJhbGciOi.e30.x, bearer",
        "-HX-API-Key: k3y",
    ];
    let arguments = [&way[..], &credentials].concat();
    let expected = Expected { exit: 1, codes: &["subprotocol-not-echoed"], words: &[] };
    let failed = check_at("scheme", "wss://server.example/ws", first, &arguments, expected);
    assert_none(&failed);
    let head = heads.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert!(head.contains("Sec-WebSocket-Protocol: bearer\r\n"), "{head}");
    for secret in ["Authorization", "Cookie", "base64url", "eyJ", "X-API-Key"] {
        assert!(!head.contains(secret), "{secret}: {head}");
    }

    let demanding = secure(&ours.issue(|_| {}), BOTH, Some(&ours), &[]);
    let first = redirecting(format!("Location: wss://{NAME}:{}/ws\r\n", demanding.port()));
    let to = format!("{NAME}::{}:", demanding.ip());
    let arguments = ["--cacert", &trust, "--connect-to", &to, "-L", "--cert", &client];
    let words = &["--cert"];
    let expected = Expected { exit: 2, codes: &["tls-client-certificate"], words };
    assert_none(&check_at("port", URL, first, &arguments, expected));
}

#[test]
fn failed_tls_handshake_is_named() {
    let directory = Directory::new("handshakes");
    let ours = Authority::new();
    let trust = directory.write("ours.pem", &ours.pem);
    let mut failed = Vec::new();
    let http2 = secure(&ours.issue(|_| {}), BOTH, None, &["h2"]);
    failed.extend(run(
        "HTTP/2 alone",
        http2,
        &["--cacert", &trust],
        2,
        &["tls-alpn"],
        &["HTTP/1.1"],
    ));

    // A fatal alert, of servers that cannot be made with rustls.
    let alert = |description: u8| {
        listen(move |mut stream| {
            if read_something(&mut stream) {
                stream.write_all(&[0x15, 3, 3, 0, 2, 2, description]).ok();
                stream.shutdown(Shutdown::Write).ok();
                read_something(&mut stream);
            }
        })
    };
    let protocol_version = alert(70);
    failed.extend(run(
        "TLS 1.0 alone",
        protocol_version,
        &[],
        2,
        &["tls-no-common-version"],
        &["1.2"],
    ));
    let name_required = alert(112);
    let expected =
        Expected { exit: 2, codes: &["tls-name-required"], words: &["SNI", "--resolve"] };
    failed.extend(check_at(
        "name required",
        "wss://127.0.0.1:{port}/ws",
        name_required,
        &[],
        expected,
    ));
    failed.extend(run("unknown name", name_required, &[], 2, &["tls-failed"], &[NAME]));
    assert_none(&failed);
}

#[test]
fn proxy_of_https_has_authorities_of_its_own() {
    let directory = Directory::new("proxy");
    let authority = Authority::new();
    let identity = authority.issue(|params| {
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    });
    // It responds to CONNECT with a 101.
    let proxy = secure(&identity, BOTH, None, &[]);
    let file = directory.write("proxy.pem", &authority.pem);
    let url = "ws://server.example/ws";
    let failed = |words| Expected { exit: 2, codes: &["proxy-failed"], words };
    let through = ["-x", "https://localhost:{port}"];
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("system's", &[], &["UnknownIssuer", "--proxy-cacert"]),
        ("of the server", &["--cacert", &file, "-k"], &["UnknownIssuer", "--proxy-cacert"]),
        ("of the proxy", &["--proxy-cacert", &file], &["responded to CONNECT with 101"]),
        ("any", &["--proxy-insecure"], &["responded to CONNECT with 101"]),
    ];
    let differences = cases.into_iter().flat_map(|(name, arguments, words)| {
        check_at(name, url, proxy, &[&through, arguments].concat(), failed(words))
    });
    assert_none(&differences.collect::<Vec<_>>());
}
