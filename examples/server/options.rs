//! The flags, and what they make: the guard, the stores and the TLS settings.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    http::request::Parts,
    routing::{MethodRouter, any},
};
use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use tokio_rustls::TlsAcceptor;
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, ConfigError, ConnectionLimit, Drain, EmptyBody,
    Explanation, GuardLayer, Host, PermessageDeflate, PlainText, ProblemJson, Redis,
    RejectionResponse, Sessions, Subprotocols, TokenPolicy, TokenSource, response_fn,
    token::ticket::TicketVerifier,
};

use crate::{
    accounts::{Account, Accounts, Key},
    echo, serve, sessions, tickets,
};

#[derive(Parser)]
#[command(about = "A WebSocket echo server behind tower-ws-guard")]
pub(crate) struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    /// Who completes the handshake: axum's WebSocketUpgrade behind the guard, or the guard itself.
    #[arg(long, value_enum, default_value_t = Mode::Responder)]
    pub(crate) mode: Mode,
    /// Allow pages of this origin, such as https://app.example.com or http://localhost:*. Default:
    /// same-origin.
    #[arg(long, value_name = "PATTERN", value_parser = |pattern: &str| AllowOrigin::list([pattern]).map(|_| pattern.to_owned()))]
    pub(crate) allow_origin: Vec<String>,
    /// Allow same-origin as well as the listed origins.
    #[arg(long)]
    pub(crate) same_origin: bool,
    /// Behind a proxy: compare same-origin with this instead of Host.
    #[arg(long, value_name = "ORIGIN", value_parser = |origin: &str| AllowOrigin::public_origin(origin).map(|_| origin.to_owned()))]
    pub(crate) public_origin: Option<String>,
    /// Allow handshakes without Origin.
    #[arg(long)]
    pub(crate) allow_missing_origin: bool,
    /// Allow `Origin: null`.
    #[arg(long)]
    pub(crate) allow_null_origin: bool,
    /// Reject whoever sends an Origin, as all browsers do.
    #[arg(long, conflicts_with_all = ["allow_origin", "same_origin", "public_origin", "allow_null_origin", "dangerous_any_origin"])]
    pub(crate) no_browsers: bool,
    /// Allow every page on the web.
    #[arg(long)]
    pub(crate) dangerous_any_origin: bool,
    /// Allow this Host, such as chat.example.com, *.example.com or localhost:*. Default: the names of
    /// this machine if the server listens on a loopback address, and otherwise every Host.
    #[arg(long, value_name = "PATTERN", value_parser = |host: &str| AllowHost::list([host]).map(|_| host.to_owned()))]
    pub(crate) allow_host: Vec<String>,
    /// Allow every Host.
    #[arg(long, conflicts_with = "allow_host")]
    pub(crate) allow_any_host: bool,
    /// Require a token, and accept this one.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) token: Vec<String>,
    /// Take the token from: authorization (default), basic, header:NAME, cookie:NAME, query:NAME,
    /// subprotocol:PREFIX, subprotocol-base64:PREFIX, kubernetes, phoenix, pair:MARKER.
    #[arg(long, value_name = "SOURCE", requires = "token")]
    pub(crate) token_from: Vec<TokenSource>,
    /// If several sources hold a token, take it from the first one, in the order of --token-from.
    #[arg(long, requires = "token")]
    pub(crate) first_token: bool,
    /// The maximum length of a token.
    #[arg(long, value_name = "BYTES", requires = "token", default_value = "8192", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_token_length: u32,
    /// Issue one-time tickets at POST /tickets, and redeem them as /ws?ticket=…. Keep them in
    /// memory, or in redis://HOST:PORT for several servers.
    #[arg(long, value_name = "STORE", requires = "token")]
    pub(crate) tickets: Option<String>,
    /// Support this subprotocol. The first one is preferred.
    #[arg(long, value_name = "NAME")]
    pub(crate) subprotocol: Vec<String>,
    /// Accept clients that offer only other subprotocols, without one.
    #[arg(long)]
    pub(crate) accept_unmatched_subprotocols: bool,
    /// Compress messages for clients that can. In mode guard, axum's codec cannot.
    #[arg(long)]
    pub(crate) deflate: bool,
    /// The response to a rejected handshake.
    #[arg(long, value_enum, default_value_t = Style::Problem)]
    pub(crate) rejection: Style,
    /// The maximum number of open WebSockets.
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub(crate) max_connections: Option<Limit>,
    /// The maximum number of open WebSockets of a token or, without tokens, of an address.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_per_key: Option<u32>,
    /// At the maximum of --max-per-key, close the oldest WebSocket and accept the new one.
    #[arg(long, requires = "max_per_key")]
    pub(crate) evict_oldest: bool,
    /// Count and end open WebSockets in memory, or in redis://HOST:PORT for several servers. POST
    /// /sessions/end with a token ends those of the token.
    #[arg(long, value_name = "STORE", default_value = "memory")]
    pub(crate) sessions: String,
    /// Timeout for the head of a request, for the checks, and for the client to read the response;
    /// each.
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) handshake_timeout: u64,
    /// Time for WebSockets to close after SIGTERM or Ctrl-C.
    #[arg(long, value_name = "MS", default_value = "10000")]
    pub(crate) drain_timeout: u64,
    /// Speak TLS with this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate for localhost and 127.0.0.1 that is made at start.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_self_signed: bool,
    /// Reject requests to /ws that are not upgrade requests, with 426.
    #[arg(long)]
    pub(crate) require_websocket: bool,
    /// Reject only malformed handshakes, and log those that a policy would reject.
    #[arg(long)]
    pub(crate) report_only: bool,
    /// Serve metrics for Prometheus at /metrics.
    #[arg(long)]
    pub(crate) metrics: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    Guard,
    Responder,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Style {
    Empty,
    Plain,
    Problem,
    /// Complete the handshake and close the socket with a code. Other rejections are a problem.
    Close,
}

/// `/ws`.
pub(crate) struct Endpoint {
    /// With the limits.
    pub(crate) clients: MethodRouter,
    /// Without the limits, for the page.
    pub(crate) attempts: MethodRouter,
    /// What each step of the guard says to a request.
    pub(crate) explain: Explain,
    /// Dangerous combinations of flags.
    pub(crate) lints: Vec<String>,
}

pub(crate) type Explain = Arc<dyn Fn(&Parts) -> Explanation + Send + Sync>;

pub(crate) struct Stores {
    pub(crate) sessions: Sessions<Key>,
    pub(crate) tickets: Option<tickets::Store>,
}

/// `None` in memory. Not parsed by clap, which would print the password of an invalid URL.
fn redis(store: &str) -> Result<Option<Redis>, String> {
    match store {
        "memory" => Ok(None),
        url if url.starts_with("redis://") || url.starts_with("rediss://") => {
            Redis::new(url).map(Some).map_err(|error| error.to_string())
        }
        _ => Err("use memory or redis://HOST:PORT".into()),
    }
}

/// `--max-connections`.
#[derive(Clone)]
pub(crate) struct Limit {
    pub(crate) max: usize,
    pub(crate) connections: ConnectionLimit,
}

fn parse_limit(max: &str) -> Result<Limit, String> {
    let max = max.parse().map_err(|_| "use a number")?;
    let connections = ConnectionLimit::total(max).map_err(|error| error.to_string())?;
    Ok(Limit { max, connections })
}

impl Options {
    pub(crate) fn hosts(&self) -> Result<Option<AllowHost>, WrongFlag> {
        match &*self.allow_host {
            [] if self.allows_any_host() => Ok(None),
            [] => Ok(Some(AllowHost::loopback())),
            hosts => AllowHost::list(hosts).map(Some).map_err(at("--allow-host")),
        }
    }

    pub(crate) fn allows_any_host(&self) -> bool {
        self.allow_host.is_empty() && (self.allow_any_host || !self.listen.ip().is_loopback())
    }

    /// Whether the page is only for this machine. Otherwise it does not name the policy. The other
    /// flags are for clients that come by a proxy on this machine.
    pub(crate) fn is_private(&self) -> bool {
        self.listen.ip().is_loopback()
            && self.public_origin.is_none()
            && !self.allow_any_host
            && self.allow_host.iter().all(|pattern| is_of_this_machine(pattern))
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls_self_signed || self.tls_cert.is_some()
    }

    /// Whether some sockets are closed at once, to show the reason.
    pub(crate) const fn closes(&self) -> bool {
        matches!(self.rejection, Style::Close)
    }

    fn origins(&self) -> Result<AllowOrigin, ConfigError> {
        if self.no_browsers {
            return Ok(AllowOrigin::no_browsers());
        }
        let own = match &self.public_origin {
            Some(origin) => AllowOrigin::public_origin(origin)?,
            None => AllowOrigin::same_origin(),
        };
        let mut origins = AllowOrigin::list(&self.allow_origin)?;
        if self.same_origin || self.allow_origin.is_empty() {
            origins = origins.or(own);
        }
        if self.allow_missing_origin {
            origins = origins.allow_missing();
        }
        if self.allow_null_origin {
            origins = origins.allow_null();
        }
        if self.dangerous_any_origin {
            origins = origins.or(AllowOrigin::dangerous_any());
        }
        Ok(origins)
    }

    /// The endpoint, with a copy for the page.
    pub(crate) fn endpoint(
        &self,
        tickets: Option<&tickets::Store>,
        sessions: &Sessions<Key>,
        drain: &Drain,
    ) -> Result<Endpoint, WrongFlag> {
        let style = self.rejection;
        let respond = response_fn(move |rejection, request, prepared| match style {
            Style::Empty => EmptyBody.response(rejection, request, prepared),
            Style::Plain => PlainText.response(rejection, request, prepared),
            Style::Problem | Style::Close => {
                ProblemJson::new().response(rejection, request, prepared)
            }
        });
        let subprotocols = Subprotocols::list(&self.subprotocol).map_err(at("--subprotocol"))?;
        let mut guard = GuardLayer::new(self.origins().map_err(at("--allow-origin"))?)
            .subprotocols(subprotocols)
            .reject_with(respond)
            .check_timeout(self.handshake_timeout())
            .map_err(at("--handshake-timeout"))?
            .drain(drain);
        if let Some(hosts) = self.hosts()? {
            guard = guard.allow_host(hosts);
        }
        if self.accept_unmatched_subprotocols {
            guard = guard.accept_unmatched_subprotocols();
        }
        if self.deflate {
            guard = guard.extensions(compression().map_err(at("--deflate"))?);
        }
        if self.require_websocket {
            guard = guard.require_websocket();
        }
        if self.closes() {
            guard = guard.accept_then_close(AcceptThenClose::new());
        }
        if self.report_only {
            guard = guard.dangerous_report_only();
        }
        if let Some(tokens) = self.token_policy(tickets)? {
            guard = guard.token(tokens).map_err(at("--token"))?;
        }
        let complete = |guard: GuardLayer<_>| -> Result<MethodRouter, WrongFlag> {
            match self.mode {
                Mode::Guard => Ok(any(echo::guarded).layer(guard)),
                Mode::Responder => {
                    let responder = guard.respond().upgrade_timeout(self.handshake_timeout());
                    let responder = responder.map_err(at("--handshake-timeout"))?;
                    Ok(any(echo::responded).layer(responder))
                }
            }
        };
        let lints = guard.lint(Some(self.listen)).iter().map(ToString::to_string).collect();
        // Attempts take no slot from clients.
        let attempts = complete(guard.clone())?;
        let explained = guard.clone();
        let explain = Arc::new(move |head: &Parts| explained.explain(head));
        let mut guard = guard.sessions(sessions);
        if let Some(limit) = &self.max_connections {
            guard = guard.limit(limit.connections.clone());
        }
        Ok(Endpoint { clients: complete(guard)?, attempts, explain, lints })
    }

    /// Where a token may be. None without tokens.
    pub(crate) fn sources(&self) -> Vec<TokenSource> {
        match &*self.token_from {
            _ if self.token.is_empty() => Vec::new(),
            [] => vec![TokenSource::authorization()],
            sources => sources.to_vec(),
        }
    }

    /// Without a token there is no token check.
    fn token_policy(
        &self,
        tickets: Option<&tickets::Store>,
    ) -> Result<Option<TokenPolicy<Account>>, WrongFlag> {
        let Some(accounts) = self.accounts()? else { return Ok(None) };
        let mut policy = TokenPolicy::from_sources(self.sources(), accounts.verifier())
            .map_err(at("--token-from"))?;
        if let Some(store) = tickets {
            let tickets = TicketVerifier::new(store.clone());
            let tickets = TokenPolicy::from_sources([tickets::source()], tickets)
                .map_err(at("--token-from"))?;
            policy = policy.or(tickets).map_err(at("--token-from"))?;
        }
        // Black-box tests expect a `Bearer` challenge, whatever the sources are.
        let is_basic = self.token_from.contains(&TokenSource::basic());
        for scheme in is_basic.then_some("Basic").into_iter().chain(["Bearer"]) {
            policy = policy.challenge(scheme, "websocket").map_err(at("--token"))?;
        }
        if self.first_token {
            policy = policy.first_source_wins();
        }
        let max_length = self.max_token_length as usize;
        policy.max_length(max_length).map(Some).map_err(at("--max-token-length"))
    }

    /// The `--token`s. `None` without any.
    pub(crate) fn accounts(&self) -> Result<Option<Accounts>, WrongFlag> {
        let accounts = (!self.token.is_empty()).then(|| Accounts::new(&self.token));
        accounts.transpose().map_err(at("--token"))
    }

    pub(crate) const fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout)
    }

    /// A Redis for each flag that names one. Flags with the same URL share the connection.
    pub(crate) fn stores(&self) -> Result<Stores, WrongFlag> {
        let sessions = redis(&self.sessions).map_err(at("--sessions"))?;
        let tickets = match &self.tickets {
            None => None,
            Some(url) if *url == self.sessions => Some(sessions.clone()),
            Some(url) => Some(redis(url).map_err(at("--tickets"))?),
        };
        let (max, redis) = (self.max_per_key.map(|max| max as usize), sessions.as_ref());
        let sessions =
            sessions::sessions(max, self.evict_oldest, redis).map_err(at("--sessions"))?;
        let tickets = tickets.map(|redis| tickets::Store::new(redis.as_ref()));
        Ok(Stores { sessions, tickets })
    }

    pub(crate) fn tls(&self) -> Result<Option<TlsAcceptor>, WrongFlag> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let tls =
                    serve::tls_from_files(certificate, key).map_err(at("--tls-cert, --tls-key"))?;
                Ok(Some(tls))
            }
            _ if self.tls_self_signed => {
                serve::tls_self_signed().map(Some).map_err(at("--tls-self-signed"))
            }
            _ => Ok(None),
        }
    }
}

fn is_of_this_machine(pattern: &str) -> bool {
    let host = pattern.strip_suffix(":*").unwrap_or(pattern).trim_start_matches("*.");
    Host::parse(host.as_bytes()).is_ok_and(|host| AllowHost::loopback().allows(host))
}

/// No window is kept between two messages, so that sockets can share them.
fn compression() -> Result<PermessageDeflate, ConfigError> {
    let zlib = PermessageDeflate::new().server_window_bits(9..=15)?;
    Ok(zlib.server_no_context_takeover().client_no_context_takeover())
}

/// A value that a flag cannot have.
pub(crate) struct WrongFlag {
    flag: &'static str,
    error: String,
}

pub(crate) fn at<E: Display>(flag: &'static str) -> impl FnOnce(E) -> WrongFlag {
    move |error| WrongFlag { flag, error: error.to_string() }
}

impl WrongFlag {
    /// Exits like clap.
    pub(crate) fn exit(self) -> ! {
        let Self { flag, error } = self;
        Options::command().error(ErrorKind::ValueValidation, format!("{flag}: {error}")).exit()
    }
}
