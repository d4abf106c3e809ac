//! HTTP/1.1 and HTTP/2 on one port, with or without TLS, within limits. See the crate's page
//! `hardening` for the reasons.

use std::{convert::Infallible, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        Error, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tower::ServiceExt;

/// The settings for each connection.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) tls: Option<TlsAcceptor>,
    /// The time that a client has to send the head of a request, including TLS.
    pub(crate) head_timeout: Duration,
}

/// Accepts connections, for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    connections: Connections,
    graceful: &GracefulShutdown,
    app: Router,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connections.clone().serve(
                stream,
                peer,
                graceful.watcher(),
                app.clone(),
            ))),
            // The client is gone, or too many files are open. Neither ends the server.
            Err(error) => {
                tracing::warn!("accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Connections {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, graceful: Watcher, app: Router) {
        stream.set_nodelay(true).ok();
        match &self.tls {
            Some(tls) => match timeout(self.head_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.serve_http(stream, peer, graceful, app).await,
                Ok(Err(error)) => tracing::warn!("tls: {error}"),
                Err(_) => tracing::warn!("tls: the client took too long"),
            },
            None => self.serve_http(stream, peer, graceful, app).await,
        }
    }

    async fn serve_http<S>(self, stream: S, peer: SocketAddr, graceful: Watcher, app: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first_request = Arc::new(Notify::new());
        let seen = Arc::clone(&first_request);
        let app = app.map_request(move |mut request: Request<Incoming>| {
            seen.notify_one();
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let server = self.server();
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app));
        let mut connection = pin!(graceful.watch(connection.into_owned()));
        // Until the first bytes hyper-util does not know which HTTP the client speaks, and no timer
        // of hyper runs.
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = first_request.notified() => {}
            () = sleep(self.head_timeout) => return,
        }
        // An error means that the client left, or sent something other than HTTP.
        connection.await.ok();
    }

    /// Serves a connection in memory, without TLS, and returns its other end.
    pub(crate) fn in_memory(&self, app: Router) -> DuplexStream {
        let (client, stream) = tokio::io::duplex(16 * 1024);
        let server = self.server();
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app));
        tokio::spawn(connection.into_owned());
        client
    }

    fn server(&self) -> auto::Builder<TokioExecutor> {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_headers(64)
            .max_buf_size(16 * 1024);
        server
            .http2()
            .timer(TokioTimer::new())
            // Without it no client sends a handshake over HTTP/2 (RFC 8441 3).
            .enable_connect_protocol()
            .max_header_list_size(16 * 1024)
            .max_concurrent_streams(100)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        server
    }
}

/// TLS with a certificate and a key from PEM files.
pub(crate) fn tls_from_files(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let unusable =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    tls(certificates, private).map_err(|error| unusable(certificate, &error))
}

/// TLS with a new certificate for localhost and 127.0.0.1. No client trusts it by default.
pub(crate) fn tls_self_signed() -> Result<TlsAcceptor, String> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(str::to_owned)?;
    tls(vec![made.cert.into()], key).map_err(|error| error.to_string())
}

fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, Error> {
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
