//! TLS: the connection, and its certificates and errors in words.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error,
    RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use crate::certificate::Certificate;

/// What the options say on TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    pub(crate) insecure: bool,
    /// The certificates of `--cacert`, in place of the system's.
    pub(crate) trusted: Option<Vec<CertificateDer<'static>>>,
    pub(crate) client: Option<Arc<CertifiedKey>>,
    /// Reading those of the system takes some time.
    roots: OnceLock<Arc<RootCertStore>>,
}

impl TlsOptions {
    /// Trusts the certificates in the file of `option`, or those of the system.
    ///
    /// # Errors
    ///
    /// Names the option, the file and the fault.
    pub(crate) fn new(insecure: bool, option: &str, ca: Option<&Path>) -> Result<Self, String> {
        let trusted = match ca {
            Some(path) => {
                let certificates = read_certificates(option, path)?;
                let mut roots = RootCertStore::empty();
                for certificate in &certificates {
                    roots.add(certificate.clone()).map_err(|error| {
                        format!("{option}: {}: not a certificate: {error}", path.display())
                    })?;
                }
                Some(certificates)
            }
            None => None,
        };
        Ok(Self { insecure, trusted, ..Self::default() })
    }

    /// Sends the client certificate of `--cert` and `--key`.
    ///
    /// # Errors
    ///
    /// Names the option, the file and the fault.
    pub(crate) fn with_client(
        self,
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Self, String> {
        let client = match (cert, key) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err("--key: the certificate is missing: use --cert too".into());
            }
            (Some(cert), key) => {
                let chain = read_certificates("--cert", cert)?;
                let path = key.unwrap_or(cert);
                let bytes = read("--key", path)?;
                let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
                    format!(
                        "--key: {}: no private key in PEM; an encrypted one must be decrypted first \
                         (openssl pkey -in FILE -out FILE)",
                        path.display()
                    )
                })?;
                let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
                    .map_err(|error| format!("--cert: {}: {error}", cert.display()))?;
                Some(Arc::new(key))
            }
        };
        Ok(Self { client, ..self })
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        match &self.trusted {
            Some(trusted) => drop(roots.add_parsable_certificates(trusted.iter().cloned())),
            // Certificates that cannot be read are skipped.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        roots
    }

    /// The configuration, and where it records what it sees.
    pub(crate) fn config(&self, alpn: &[&[u8]]) -> (ClientConfig, Arc<Recorder>) {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::clone(self.roots.get_or_init(|| Arc::new(self.roots())));
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().ok();
        let recorder = Arc::new(Recorder {
            provider: Arc::clone(&provider),
            verifier,
            insecure: self.insecure,
            trusted: self.trusted.clone().unwrap_or_default(),
            client: self.client.clone(),
            seen: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&recorder) as _)
            .with_client_cert_resolver(Arc::clone(&recorder) as _);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Each connection shows its certificate.
        config.resumption = rustls::client::Resumption::disabled();
        (config, recorder)
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{option}: {}: {error}", path.display()))
}

fn read_certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(option, path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{option}: {}: no certificate in PEM", path.display())),
    }
}

/// Verifies the server's certificate, and remembers what it saw.
#[derive(Debug)]
pub(crate) struct Recorder {
    provider: Arc<CryptoProvider>,
    /// `None` without any root.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    insecure: bool,
    trusted: Vec<CertificateDer<'static>>,
    client: Option<Arc<CertifiedKey>>,
    seen: Mutex<Seen>,
}

/// What was seen in a handshake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) chain: Vec<Certificate>,
    /// The reason why the certificate is not valid.
    pub(crate) error: Option<Error>,
    /// Whether the server asked for a client certificate.
    pub(crate) client_certificate: bool,
    pub(crate) no_roots: bool,
}

impl Recorder {
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let verifier = self.verifier.as_ref().ok_or_else(unknown)?;
        let Err(error) = verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
        else {
            return Ok(());
        };
        // The very certificate of `--cacert` is trusted, as OpenSSL, curl and browsers do. webpki
        // does not: that of `openssl req -x509` is a CA's.
        let is_trusted = self.trusted.iter().any(|trusted| trusted == end_entity);
        let is_about_trust = is_ca_as_end_entity(&error)
            || matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
        if !(is_trusted && is_about_trust) {
            return Err(error);
        }
        if let Some(certificate) = Certificate::parse(end_entity) {
            let now = now.as_secs();
            if now > certificate.not_after {
                return Err(Error::InvalidCertificate(CertificateError::Expired));
            }
            if now < certificate.not_before {
                return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
            }
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)
    }
}

/// webpki rejects a certificate with `CA:TRUE` as that of a server.
pub(crate) fn is_ca_as_end_entity(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other))
        if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.verify(end_entity, intermediates, server_name, ocsp_response, now);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = [end_entity].into_iter().chain(intermediates);
        seen.chain = chain.take(10).filter_map(|der| Certificate::parse(der)).collect();
        seen.error = verdict.clone().err();
        seen.no_roots = self.verifier.is_none();
        match verdict {
            Err(error) if !self.insecure => Err(error),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Recorder {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).client_certificate = true;
        self.client.clone()
    }

    fn has_certs(&self) -> bool {
        self.client.is_some()
    }
}

/// Why there is no TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFault {
    Expired,
    NotYetValid,
    Name,
    Purpose,
    CaAsEndEntity,
    Untrusted,
    NoRoots,
    ClientCertificate,
    Version,
    Alpn,
    UnrecognizedName,
    /// The server rejected with an alert that has no name of its own here.
    Alert,
    /// The bytes are not TLS.
    NotTls,
    /// The server closed the connection.
    Closed,
    Reset,
    Timeout,
    Other,
}

/// The fault behind an error, if it is one of TLS.
pub(crate) fn fault(error: &io::Error, seen: &Seen) -> Option<TlsFault> {
    use AlertDescription as A;
    use CertificateError as C;

    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(certificate) => match certificate {
            C::Expired | C::ExpiredContext { .. } => TlsFault::Expired,
            C::NotValidYet | C::NotValidYetContext { .. } => TlsFault::NotYetValid,
            C::NotValidForName | C::NotValidForNameContext { .. } => TlsFault::Name,
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => TlsFault::Purpose,
            _ if is_ca_as_end_entity(error) => TlsFault::CaAsEndEntity,
            _ if seen.no_roots => TlsFault::NoRoots,
            _ => TlsFault::Untrusted,
        },
        Error::AlertReceived(alert) => match alert {
            A::CertificateRequired
            | A::BadCertificate
            | A::UnknownCA
            | A::CertificateUnknown
            | A::CertificateExpired
            | A::AccessDenied
            | A::UnsupportedCertificate => TlsFault::ClientCertificate,
            A::HandshakeFailure | A::DecryptError | A::InternalError | A::DecodeError
                if seen.client_certificate =>
            {
                TlsFault::ClientCertificate
            }
            A::ProtocolVersion | A::InsufficientSecurity => TlsFault::Version,
            A::NoApplicationProtocol => TlsFault::Alpn,
            A::UnrecognisedName => TlsFault::UnrecognizedName,
            _ => TlsFault::Alert,
        },
        Error::PeerIncompatible(_) => TlsFault::Version,
        Error::NoApplicationProtocol => TlsFault::Alpn,
        Error::InvalidMessage(_) => TlsFault::NotTls,
        _ => TlsFault::Other,
    })
}
