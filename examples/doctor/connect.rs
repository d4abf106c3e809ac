//! The connection to the server, and the errors before HTTP.

use std::{fmt, io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, CertificateError, ClientConfig, RootCertStore, pki_types::ServerName},
};

use crate::Options;

/// The reason why there was no HTTP response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    DnsFailed,
    ConnectionRefused,
    ConnectionTimeout,
    ConnectionReset,
    TlsUntrusted,
    TlsExpired,
    TlsNameMismatch,
    TlsFailed,
    NotHttp,
}

impl Kind {
    /// Code, explanation, fix.
    pub(crate) const fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::DnsFailed => (
                "dns-failed",
                "the name of the server has no address",
                "check the host in the URL, and the name server of the network",
            ),
            Self::ConnectionRefused => (
                "connection-refused",
                "nothing listens at this address and port, or there is no route to it",
                "check that the server runs, and listens on this port and this address, not only \
                 on 127.0.0.1; then check the firewall",
            ),
            Self::ConnectionTimeout => (
                "connection-timeout",
                "there was no response in time: a firewall drops the packets, or the server hangs",
                "check the address, the port and the firewalls on the way; a server that accepts \
                 the connection and sends nothing is busy, or waits for TLS: then use wss:",
            ),
            Self::ConnectionReset => (
                "connection-reset",
                "the connection was closed before a response",
                "look into the log of the server; a firewall or a proxy on the way may close \
                 connections, and a TLS port closes those without TLS",
            ),
            Self::TlsUntrusted => (
                "tls-untrusted",
                "the certificate of the server is not from a trusted authority",
                "make the server send the whole chain up to a trusted root; for a self-signed \
                 certificate or a root of your own use --ca FILE",
            ),
            Self::TlsExpired => (
                "tls-expired",
                "the certificate of the server has expired or is not valid yet",
                "renew the certificate, and make the server load the new one; check the clock of \
                 this machine",
            ),
            Self::TlsNameMismatch => (
                "tls-name-mismatch",
                "the certificate of the server is for another name",
                "use a name of the certificate, or get a certificate for this name; a proxy may \
                 have sent the certificate of another site",
            ),
            Self::TlsFailed => (
                "tls-failed",
                "the TLS connection failed",
                "check that this port speaks TLS 1.2 or 1.3 (otherwise use ws:), and accepts \
                 HTTP/1.1 in ALPN",
            ),
            Self::NotHttp => (
                "not-http",
                "the server does not speak HTTP/1.1",
                "check the port: another service may listen there, or TLS (use wss:), or a server \
                 that accepts only HTTP/2",
            ),
        }
    }
}

/// A [`Kind`], and its details.
pub(crate) struct Unreachable {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

/// The stage at which the connection failed.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    Lookup,
    Connect,
    Tls,
    Response,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "looking up the name",
            Self::Connect => "connecting",
            Self::Tls => "in the TLS handshake",
            Self::Response => "connected, waiting for the response",
        })
    }
}

impl Unreachable {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    fn from_io(stage: Stage, error: &io::Error) -> Self {
        use io::ErrorKind as E;

        let tls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
        let kind = match (tls, error.kind(), stage) {
            (Some(error), ..) => tls_kind(error),
            (_, _, Stage::Lookup) => Kind::DnsFailed,
            (_, E::TimedOut, _) => Kind::ConnectionTimeout,
            (_, E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe, _) => {
                Kind::ConnectionReset
            }
            // rustls reports a closed connection as `UnexpectedEof`.
            (_, E::UnexpectedEof, Stage::Tls) | (_, _, Stage::Response) => Kind::ConnectionReset,
            (_, _, Stage::Tls) => Kind::TlsFailed,
            (_, _, Stage::Connect) => Kind::ConnectionRefused,
        };
        Self::new(kind, format!("{stage}: {error}"))
    }

    /// The result of `step`, or a timeout at `deadline`.
    pub(crate) async fn unless<T>(
        stage: Stage,
        deadline: Instant,
        step: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Self> {
        match timeout_at(deadline, step).await {
            Ok(done) => done.map_err(|error| Self::from_io(stage, &error)),
            Err(_) => {
                let kind = if matches!(stage, Stage::Lookup) {
                    Kind::DnsFailed
                } else {
                    Kind::ConnectionTimeout
                };
                Err(Self::new(kind, format!("{stage}: timeout")))
            }
        }
    }
}

fn tls_kind(error: &rustls::Error) -> Kind {
    use CertificateError as E;

    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            E::Expired
            | E::ExpiredContext { .. }
            | E::NotValidYet
            | E::NotValidYetContext { .. } => Kind::TlsExpired,
            E::NotValidForName | E::NotValidForNameContext { .. } => Kind::TlsNameMismatch,
            _ => Kind::TlsUntrusted,
        },
        _ => Kind::TlsFailed,
    }
}

/// TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

pub(crate) async fn connect(
    options: &Options,
    deadline: Instant,
) -> Result<Box<dyn Stream>, Unreachable> {
    let target = &options.url;
    let host = target.host.trim_start_matches('[').trim_end_matches(']');

    let lookup = async { lookup_host((host, target.port)).await.map(Vec::from_iter) };
    let addresses = Unreachable::unless(Stage::Lookup, deadline, lookup).await?;
    let stream =
        Unreachable::unless(Stage::Connect, deadline, TcpStream::connect(&*addresses)).await?;
    if !target.tls {
        return Ok(Box::new(stream));
    }

    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| Unreachable::new(Kind::TlsFailed, error.to_string()))?;
    let roots = options.ca.clone().unwrap_or_else(system_roots);
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".into()];
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(Box::new(Unreachable::unless(Stage::Tls, deadline, handshake).await?))
}

/// Skips certificates that cannot be read.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
