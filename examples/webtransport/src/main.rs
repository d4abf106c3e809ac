//! WebTransport over HTTP/3: a guard in front of h3 and axum checks who opens a session.
//!
//! `cargo run -p webtransport-example`, then open http://localhost:3000 in a browser.

use std::{error::Error, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::map_request,
    response::Html,
    routing::{any, get},
};
use h3_axum::{WebTransportSession, WebTransportUpgrade, serve_h3_connection_with_axum};
use h3_webtransport::server::AcceptedBi;
use quinn::{
    Endpoint, Incoming,
    crypto::rustls::QuicServerConfig,
    rustls::{self, pki_types::PrivateKeyDer},
};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConfigError, ConnectProtocol, ConnectionLimit, GuardLayer, Permit,
};

type BoxError = Box<dyn Error + Send + Sync>;

pub(crate) fn app(origins: AllowOrigin, max_sessions: usize) -> Result<Router, ConfigError> {
    let guard = GuardLayer::new(origins)
        .allow_host(AllowHost::loopback())
        .limit(ConnectionLimit::total(max_sessions)?);
    // `any` and not `get`: a session begins with a CONNECT.
    let app = Router::new().route("/wt", any(open).layer(guard));
    Ok(app.layer(map_request(connect_protocol)))
}

/// Tells the guard what h3 has read as `:protocol`. Without it every session is rejected.
pub(crate) async fn connect_protocol(mut request: Request) -> Request {
    if let Some(protocol) = request.extensions().get::<h3::ext::Protocol>() {
        let protocol = ConnectProtocol::new(protocol.as_str());
        request.extensions_mut().insert(protocol);
    }
    request
}

async fn open(upgrade: WebTransportUpgrade, mut request: Request) -> StatusCode {
    // `accept` sends the response by itself, so all that may reject the session comes before.
    // Without a limit and a drain there is no permit.
    let Some(permit) = Permit::claim(request.extensions_mut()) else {
        return StatusCode::INTERNAL_SERVER_ERROR;
    };
    match upgrade.accept().await {
        Ok(session) => {
            tokio::spawn(echo(session, permit));
            StatusCode::OK
        }
        Err(error) => {
            eprintln!("session: {error}");
            StatusCode::BAD_REQUEST
        }
    }
}

/// Sends back every stream and every datagram. The permit counts the session until its end.
async fn echo(session: WebTransportSession, _permit: Permit) {
    let streams = async {
        while let Ok(Some(accepted)) = session.accept_bi().await {
            // Another request on this connection has passed no guard, so it gets no response.
            if let AcceptedBi::BidiStream(_, stream) = accepted {
                tokio::spawn(echo_stream(stream));
            }
        }
    };
    let mut reader = session.datagram_reader();
    let mut sender = session.datagram_sender();
    let datagrams = async {
        while let Ok(datagram) = reader.read_datagram().await {
            // A datagram may get lost.
            let _ = sender.send_datagram(datagram.into_payload());
        }
    };
    tokio::select! {
        () = streams => {}
        () = datagrams => {}
    }
}

async fn echo_stream(stream: impl AsyncRead + AsyncWrite) {
    let (mut receive, mut send) = tokio::io::split(stream);
    if tokio::io::copy(&mut receive, &mut send).await.is_ok() {
        let _ = send.shutdown().await;
    }
}

pub(crate) async fn serve(endpoint: Endpoint, app: Router) {
    while let Some(incoming) = endpoint.accept().await {
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_connection(incoming, app).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn serve_connection(incoming: Incoming, app: Router) -> Result<(), BoxError> {
    let connection = h3::server::builder()
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .build(h3_quinn::Connection::new(incoming.await?))
        .await?;
    serve_h3_connection_with_axum(app, connection).await
}

/// Listens with a new certificate, and returns its SHA-256 hash. A browser accepts it by its hash
/// only if it is valid for no more than two weeks.
pub(crate) fn listen(address: SocketAddr) -> Result<(Endpoint, [u8; 32]), BoxError> {
    let key = KeyPair::generate()?;
    let mut certificate = CertificateParams::new(["localhost".to_owned()])?;
    certificate.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    certificate.not_after = certificate.not_before + Duration::days(14);
    let certificate = certificate.self_signed(&key)?;
    let hash = Sha256::digest(certificate.der()).into();

    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    )?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok((Endpoint::server(config, address)?, hash))
}

/// The page: it opens a session, and shows what comes back.
pub(crate) fn page(address: SocketAddr, hash: [u8; 32]) -> Router {
    let page = PAGE.replace("ADDRESS", &address.to_string()).replace("HASH", &format!("{hash:?}"));
    Router::new().route("/", get(async || Html(page)))
}

const PAGE: &str = r#"<!doctype html>
<title>WebTransport</title>
<pre id="log"></pre>
<script type="module">
  const log = (line) => document.getElementById("log").append(line + "\n");
  const hash = { algorithm: "sha-256", value: new Uint8Array(HASH) };
  const session = new WebTransport("https://ADDRESS/wt", { serverCertificateHashes: [hash] });
  const send = async (writable, text) => {
    const writer = writable.getWriter();
    await writer.write(new TextEncoder().encode(text));
    writer.releaseLock();
  };
  try {
    await session.ready;
    log("open");
    const { writable, readable } = await session.createBidirectionalStream();
    await send(writable, "by a stream");
    await writable.close();
    log(await new Response(readable).text());
    await send(session.datagrams.writable, "by a datagram");
    const { value } = await session.datagrams.readable.getReader().read();
    log(new TextDecoder().decode(value));
    session.close();
    log("closed");
  } catch (error) {
    log(`rejected: ${error}`);
  }
</script>
"#;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (endpoint, hash) = listen(SocketAddr::from(([127, 0, 0, 1], 4433)))?;
    let address = endpoint.local_addr()?;
    println!("WebTransport on https://{address}/wt");
    println!("SHA-256 of the certificate: {}", hash.map(|byte| format!("{byte:02x}")).concat());

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("open http://localhost:3000");
    let origins = AllowOrigin::list(["http://localhost:3000"])?;
    tokio::spawn(serve(endpoint, app(origins, 10)?));
    axum::serve(listener, page(address, hash)).await?;
    Ok(())
}
