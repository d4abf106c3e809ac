//! HTTP/1.1 and HTTP/2 on one port, with or without TLS.

use std::{io, path::Path, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// Serves until the listener fails for good.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: Router) -> io::Result<()> {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client is gone already, or there are too many open files: neither is the end.
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, app) = (tls.clone(), app.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).ok();
            match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(stream, app).await,
                    Err(error) => tracing::warn!("tls: {error}"),
                },
                None => connection(stream, app).await,
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, app: Router) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Without it no client sends a handshake over HTTP/2 (RFC 8441 3).
    server.http2().enable_connect_protocol();
    // An error here is a client that left or sent no HTTP.
    server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app)).await.ok();
}

/// TLS with a certificate and a key from PEM files.
pub(crate) fn tls_from_files(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let unusable = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    tls(certificates, private).map_err(|error| unusable(certificate, &error))
}

/// TLS with a new certificate for localhost and 127.0.0.1, which no client trusts unless it is told to.
pub(crate) fn tls_self_signed() -> Result<TlsAcceptor, String> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(str::to_owned)?;
    tls(vec![made.cert.into()], key).map_err(|error| error.to_string())
}

fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, tokio_rustls::rustls::Error> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
