//! Makes one WebSocket handshake by hand, shows it as it was on the wire, and says what happened and what to do.
//!
//! `cargo run --example doctor -- wss://chat.example.com/ws --origin https://app.example.com`; `--help` lists the flags. It ends
//! with 0 if the handshake was accepted and the answer is correct, with 1 if it was refused or the answer is faulty, and with 2
//! if the server was not reached.

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
    exchange::{Answer, Exchange, exchange},
    report::{Finding, Outcome, Report},
};

#[derive(Parser)]
#[command(
    name = "doctor",
    about = "Makes one WebSocket handshake, and says what happened and what to do",
    after_help = "Ends with 0: accepted and correct; 1: refused, or a faulty answer; 2: no answer in HTTP."
)]
struct Options {
    /// Where to connect: ws, wss, http or https.
    #[arg(value_name = "URL", value_parser = Target::parse)]
    url: Target,
    /// Send this Origin, as a page of that origin would; with none given: none.
    #[arg(long, value_parser = parse_origin)]
    origin: Option<String>,
    /// Send this token. It is never printed.
    #[arg(long)]
    token: Option<String>,
    /// Where to put the token: authorization (default), cookie:NAME, query:NAME, subprotocol:PREFIX.
    #[arg(long, value_name = "PLACE", value_parser = TokenIn::parse, requires = "token")]
    token_in: Option<TokenIn>,
    /// Offer this subprotocol.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Ask for this version of the protocol.
    #[arg(long, value_name = "NUMBER", default_value_t = 13)]
    sec_websocket_version: u8,
    /// Trust the certificates in this file (PEM), and no others; with none given: those that the system trusts.
    #[arg(long, value_name = "FILE", value_parser = roots_from_file)]
    ca: Option<RootCertStore>,
    /// How long all of it may take, in milliseconds; at most an hour.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// What clap cannot check without printing a token, or by one flag alone.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if let Err(error) = Subprotocols::list(&self.subprotocol) {
            return Err(("--subprotocol", error.to_string()));
        }
        let Some(token) = &self.token else { return Ok(()) };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("--token", "a token is of visible ASCII characters, and not empty".into()));
        }
        match &self.token_in {
            Some(TokenIn::Cookie(_)) if token.contains(';') => {
                Err(("--token", "a cookie cannot hold a semicolon".into()))
            }
            Some(TokenIn::Subprotocol(_)) if TokenSource::subprotocol(token).is_err() => {
                Err(("--token", "a subprotocol holds no spaces, commas, slashes, quotes or colons".into()))
            }
            _ => Ok(()),
        }
    }
}

/// A URL, taken apart.
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
            _ => return Err("it begins with ws://, wss://, http:// or https://".into()),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("a user name and a password cannot be sent: use --token".into());
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().map_err(|_| "its port is not one of 0 to 65535")?,
            _ if tls => 443,
            _ => 80,
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { tls, host, port, path: format!("{}{query}", uri.path()) })
    }

    /// As browsers write it: without the port that the scheme stands for.
    fn authority(&self) -> String {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// What a page of this server would send.
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

/// Where the token goes.
#[derive(Clone)]
enum TokenIn {
    Authorization,
    Cookie(String),
    Query(String),
    Subprotocol(String),
}

impl TokenIn {
    fn parse(place: &str) -> Result<Self, String> {
        let (name, place) = match place.split_once(':') {
            None if place == "authorization" => return Ok(Self::Authorization),
            Some(("cookie", name)) => (TokenSource::cookie(name), Self::Cookie(name.to_owned())),
            Some(("query", name)) => (TokenSource::query(name), Self::Query(name.to_owned())),
            Some(("subprotocol", prefix)) => (TokenSource::subprotocol(prefix), Self::Subprotocol(prefix.to_owned())),
            _ => return Err("use authorization, cookie:NAME, query:NAME or subprotocol:PREFIX".into()),
        };
        name.map(|_| place).map_err(|error| error.to_string())
    }
}

fn roots_from_file(path: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(Path::new(path)).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".into()) } else { Ok(roots) }
}

/// Ends the program as any other wrong flag does.
fn wrong_flag(flag: &str, error: impl Display) -> ! {
    Options::command().error(ErrorKind::ValueValidation, format!("{flag}: {error}")).exit()
}

async fn examine(options: &Options) -> Report {
    let deadline = Instant::now() + Duration::from_millis(options.timeout);
    let Exchange { request_head, answer } = exchange(options, options.origin.as_deref(), deadline).await;
    let (outcome, findings, response_head) = match answer {
        Err(unreachable) => (Outcome::Unreachable, vec![unreachable.into()], None),
        Ok(answer) => {
            let (outcome, mut findings) = report::judge(&answer);
            if answer.response.status() == StatusCode::FORBIDDEN {
                findings.extend(other_origins(options, deadline, &findings).await);
            }
            (outcome, findings, Some(String::from_utf8_lossy(&answer.head).into_owned()))
        }
    };
    Report { outcome, findings, request_head, response_head }
}

/// After a 403: whether the origin is the cause of it.
async fn other_origins(options: &Options, deadline: Instant, findings: &[Finding]) -> Option<Finding> {
    let own = options.url.origin();
    let sent = options.origin.as_deref();
    let mut forbidden = true;
    for origin in [None, Some(&*own)].into_iter().filter(|origin| *origin != sent) {
        let status = match exchange(options, origin, deadline).await.answer {
            Ok(Answer { response, .. }) => response.status(),
            Err(_) => return None,
        };
        // With a token that can be used once, a 401 would say nothing.
        if status == StatusCode::SWITCHING_PROTOCOLS || (status == StatusCode::UNAUTHORIZED && options.token.is_none())
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
    options.check().unwrap_or_else(|(flag, error)| wrong_flag(flag, error));
    let report = examine(&options).await.masked(options.token.as_deref());
    match options.json {
        true => report.print_json(),
        false => report.print(&options.url.authority()),
    }
    // Not by returning: a name that is still being looked up would be waited for.
    std::process::exit(report.outcome.exit_code());
}
