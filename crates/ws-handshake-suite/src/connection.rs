//! A connection whose every wait has an end.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{case::Pace, target::Target};

/// More than this of a response is not read.
pub(crate) const MAX_RESPONSE: usize = 1 << 20;

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The same socket, for its timeout.
    socket: TcpStream,
    /// What was read and not taken yet.
    pub(crate) buffer: Vec<u8>,
    timeout: Duration,
    deadline: Instant,
    /// The protocol of ALPN.
    pub(crate) alpn: Option<Vec<u8>>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// What came of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Bytes,
    End,
    Timeout,
}

impl Connection {
    /// Connects. Over TLS the server is asked for `alpn`.
    pub(crate) fn open(target: &Target, alpn: &[u8]) -> io::Result<Self> {
        let addresses = (&*target.host, target.port).to_socket_addrs()?;
        let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
        let mut connected = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, target.timeout) {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = connected.ok_or(last)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(target.timeout))?;
        stream.set_write_timeout(Some(target.timeout))?;

        let socket = stream.try_clone()?;
        let mut negotiated = None;
        let stream: Box<dyn Stream> = if target.secure {
            let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
            let config = Arc::new(tls(target.insecure, alpn)?);
            let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(client, stream);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            negotiated = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
            Box::new(stream)
        } else {
            Box::new(stream)
        };
        Ok(Self {
            stream,
            socket,
            buffer: Vec::new(),
            timeout: target.timeout,
            deadline: Instant::now() + target.timeout,
            alpn: negotiated,
        })
    }

    /// Sends, and starts the timeout for the response. That the server has closed shows when it is read.
    pub(crate) fn send(&mut self, bytes: &[u8], pace: Pace) {
        self.wait_again();
        let pause = Duration::from_millis(match pace {
            Pace::Whole => 0,
            Pace::Bytes => 1,
            Pace::Pieces => 10,
            Pace::Last => 200,
        });
        let pieces: Vec<&[u8]> = match pace {
            Pace::Whole => vec![bytes],
            Pace::Bytes => bytes.chunks(1).collect(),
            Pace::Pieces => bytes.split_inclusive(|byte| b"\r\n".contains(byte)).collect(),
            Pace::Last => {
                let (before, last) = bytes.split_at(bytes.len().saturating_sub(1));
                vec![before, last]
            }
        };
        let sent = pieces.iter().enumerate().try_for_each(|(index, piece)| {
            if index > 0 {
                thread::sleep(pause);
            }
            self.reply(piece)
        });
        drop(sent);
        self.wait_again();
    }

    /// Sends within the timeout that runs already.
    pub(crate) fn reply(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if Instant::now() >= self.deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.stream.write(bytes)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        self.stream.flush()
    }

    /// Starts the timeout anew.
    pub(crate) fn wait_again(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// Waits for more bytes.
    pub(crate) fn fill(&mut self) -> Progress {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Progress::Timeout;
        }
        if self.buffer.len() >= MAX_RESPONSE {
            return Progress::End;
        }
        self.socket.set_read_timeout(Some(left)).ok();
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Progress::End,
            Ok(length) => {
                self.buffer.extend(&bytes[..length]);
                Progress::Bytes
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Progress::Timeout
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Progress::Bytes,
            Err(_) => Progress::End,
        }
    }
}

fn tls(insecure: bool, alpn: &[u8]) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = if insecure {
        let verifier = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// For `-k`: servers under test often have a certificate of their own making.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
