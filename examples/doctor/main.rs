//! Makes one WebSocket handshake, shows it as sent on the wire, and explains the result and the
//! fix.
//!
//! `cargo run --example doctor -- wss://chat.example.com/ws --origin https://app.example.com`.
//! `--help` lists the flags. The exit code is 0 if the server accepted the handshake with a correct
//! response, 1 if it rejected the handshake or its response is faulty, and 2 if there was no HTTP
//! response.

mod connect;
mod exchange;
mod report;

use std::{fmt::Display, path::Path, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};
use http::{StatusCode, Uri};
use tokio::time::Instant;
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower_ws_guard::{Origin, Subprotocols, TokenSource};

use self::{
    exchange::{Exchange, Received, exchange},
    report::{Finding, Outcome, Report},
};

#[derive(Parser)]
#[command(
    name = "doctor",
    about = "Makes one WebSocket handshake, and explains the result and the fix",
    after_help = "Exit codes: 0: accepted; 1: rejected, or a faulty response; 2: no HTTP response."
)]
struct Options {
    /// The address of the endpoint: ws, wss, http or https.
    #[arg(value_name = "URL", value_parser = Target::parse)]
    url: Target,
    /// Send this Origin, as a page of that origin does. By default none is sent.
    #[arg(long, value_parser = parse_origin)]
    origin: Option<String>,
    /// Send this token. The output never shows it.
    #[arg(long)]
    token: Option<String>,
    /// Send the token in: authorization (default), cookie:NAME, query:NAME or subprotocol:PREFIX.
    #[arg(long, value_name = "SOURCE", value_parser = TokenIn::parse, requires = "token")]
    token_in: Option<TokenIn>,
    /// Offer this subprotocol.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Request this version of the protocol.
    #[arg(long, value_name = "NUMBER", default_value_t = 13)]
    sec_websocket_version: u8,
    /// Trust only the certificates in this file (PEM). By default those of the system are trusted.
    #[arg(long, value_name = "FILE", value_parser = roots_from_file)]
    ca: Option<RootCertStore>,
    /// The timeout for all of it, in milliseconds; at most an hour.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=3_600_000)
    )]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Checks what clap cannot: clap would print the token, and sees one flag at a time.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if let Err(error) = Subprotocols::list(&self.subprotocol) {
            return Err(("--subprotocol", error.to_string()));
        }
        let Some(token) = &self.token else { return Ok(()) };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err((
                "--token",
                "a token is not empty, and consists of visible ASCII characters".into(),
            ));
        }
        match &self.token_in {
            Some(TokenIn::Cookie(_)) if token.contains(';') => {
                Err(("--token", "a cookie cannot contain a semicolon".into()))
            }
            Some(TokenIn::Subprotocol(_)) if TokenSource::subprotocol(token).is_err() => Err((
                "--token",
                "a subprotocol has no spaces, commas, slashes, quotes or colons".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// A parsed URL.
#[derive(Clone)]
struct Target {
    tls: bool,
    /// An IPv6 address is in brackets.
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err("the scheme is not ws://, wss://, http:// or https://".into()),
        };
        let authority = uri.authority().ok_or("the host is missing")?;
        if authority.as_str().contains('@') {
            return Err("a user name and a password cannot be sent; use --token".into());
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => {
                port.parse().map_err(|_| "the port is not a number of 0 to 65535")?
            }
            _ if tls => 443,
            _ => 80,
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { tls, host, port, path: format!("{}{query}", uri.path()) })
    }

    /// Without the default port of the scheme, as browsers write it.
    fn authority(&self) -> String {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// The origin of a page of this server.
    fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

fn parse_origin(origin: &str) -> Result<String, String> {
    if origin != "null" {
        Origin::parse(origin.as_bytes()).map_err(|error| error.to_string())?;
    }
    Ok(origin.to_owned())
}

/// The part of the request that carries the token.
#[derive(Clone)]
enum TokenIn {
    Authorization,
    Cookie(String),
    Query(String),
    Subprotocol(String),
}

impl TokenIn {
    fn parse(source: &str) -> Result<Self, String> {
        let (name, source) = match source.split_once(':') {
            None if source == "authorization" => return Ok(Self::Authorization),
            Some(("cookie", name)) => (TokenSource::cookie(name), Self::Cookie(name.to_owned())),
            Some(("query", name)) => (TokenSource::query(name), Self::Query(name.to_owned())),
            Some(("subprotocol", prefix)) => {
                (TokenSource::subprotocol(prefix), Self::Subprotocol(prefix.to_owned()))
            }
            _ => {
                return Err(
                    "use authorization, cookie:NAME, query:NAME or subprotocol:PREFIX".into()
                );
            }
        };
        name.map(|_| source).map_err(|error| error.to_string())
    }
}

fn roots_from_file(path: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(Path::new(path)).map_err(|error| error.to_string())?
    {
        roots
            .add(certificate.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("the file has no certificate".into()) } else { Ok(roots) }
}

/// Exits as clap does for an invalid flag.
fn invalid_flag(flag: &str, error: impl Display) -> ! {
    Options::command().error(ErrorKind::ValueValidation, format!("{flag}: {error}")).exit()
}

async fn examine(options: &Options) -> Report {
    let deadline = Instant::now() + Duration::from_millis(options.timeout);
    let Exchange { request_head, received } =
        exchange(options, options.origin.as_deref(), deadline).await;
    let (outcome, findings, response_head) = match received {
        Err(unreachable) => (Outcome::Unreachable, vec![unreachable.into()], None),
        Ok(received) => {
            let (outcome, mut findings) = report::diagnose(&received);
            if received.response.status() == StatusCode::FORBIDDEN {
                findings.extend(other_origins(options, deadline, &findings).await);
            }
            (outcome, findings, Some(String::from_utf8_lossy(&received.head).into_owned()))
        }
    };
    Report { outcome, findings, request_head, response_head }
}

/// Finds out whether the origin is the cause of a 403.
async fn other_origins(
    options: &Options,
    deadline: Instant,
    findings: &[Finding],
) -> Option<Finding> {
    let own = options.url.origin();
    let sent = options.origin.as_deref();
    let mut forbidden = true;
    for origin in [None, Some(&*own)].into_iter().filter(|origin| *origin != sent) {
        let status = match exchange(options, origin, deadline).await.received {
            Ok(Received { response, .. }) => response.status(),
            Err(_) => return None,
        };
        // With a one-time token a 401 proves nothing.
        if status == StatusCode::SWITCHING_PROTOCOLS
            || (status == StatusCode::UNAUTHORIZED && options.token.is_none())
        {
            return Some(Finding::origin_is_cause(sent, origin, status));
        }
        forbidden &= status == StatusCode::FORBIDDEN;
    }
    let is_named = findings.iter().any(|finding| finding.code.starts_with("origin-"));
    (forbidden && !is_named).then(|| Finding::origin_is_not_cause(&own))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    options.check().unwrap_or_else(|(flag, error)| invalid_flag(flag, error));
    let report = examine(&options).await.masked(options.token.as_deref());
    if options.json {
        report.print_json();
    } else {
        report.print(&options.url.authority());
    }
    // Returning would wait for a pending DNS lookup.
    std::process::exit(report.outcome.exit_code());
}
