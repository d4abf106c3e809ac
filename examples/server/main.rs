//! A WebSocket echo server with all checks, and a page to try handshakes.
//!
//! `cargo run --example server`, then open the address that it prints. `--help` lists the flags.

mod accounts;
mod attempts;
mod echo;
mod serve;
mod sessions;
mod tickets;

use std::{
    fmt::Display,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::ConnectInfo,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY},
        request::Parts,
    },
    response::Html,
    routing::{MethodRouter, any, get},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, ConfigError, ConnectionLimit, Drain, EmptyBody,
    GuardLayer, PermessageDeflate, PlainText, ProblemJson, Redis, RejectionResponse,
    RequestCheckLayer, Sessions, StaticTokens, Subprotocols, TokenPolicy, TokenSource, response_fn,
    telemetry::describe_metrics, token::ticket::TicketVerifier,
};

use self::{
    accounts::{Account, Accounts, Key},
    attempts::{Attempts, Explain},
    serve::Connections,
};

#[derive(Parser)]
#[command(about = "A WebSocket echo server behind tower-ws-guard")]
struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Who completes the handshake: axum's WebSocketUpgrade behind the guard, or the guard itself.
    #[arg(long, value_enum, default_value_t = Mode::Responder)]
    mode: Mode,
    /// Allow pages of this origin, such as https://app.example.com or http://localhost:*. Default:
    /// same-origin.
    #[arg(long, value_name = "PATTERN", value_parser = |pattern: &str| AllowOrigin::list([pattern]).map(|_| pattern.to_owned()))]
    allow_origin: Vec<String>,
    /// Allow same-origin as well as the listed origins.
    #[arg(long)]
    same_origin: bool,
    /// Behind a proxy: compare same-origin with this instead of Host.
    #[arg(long, value_name = "ORIGIN", value_parser = |origin: &str| AllowOrigin::public_origin(origin).map(|_| origin.to_owned()))]
    public_origin: Option<String>,
    /// Allow handshakes without Origin.
    #[arg(long)]
    allow_missing_origin: bool,
    /// Allow `Origin: null`.
    #[arg(long)]
    allow_null_origin: bool,
    /// Reject whoever sends an Origin, as all browsers do.
    #[arg(long, conflicts_with_all = ["allow_origin", "same_origin", "public_origin", "allow_null_origin", "dangerous_any_origin"])]
    no_browsers: bool,
    /// Allow every page on the web.
    #[arg(long)]
    dangerous_any_origin: bool,
    /// Allow this Host, such as chat.example.com, *.example.com or localhost:*. Default: the names of
    /// this machine if the server listens on a loopback address, and otherwise every Host.
    #[arg(long, value_name = "PATTERN", value_parser = |host: &str| AllowHost::list([host]).map(|_| host.to_owned()))]
    allow_host: Vec<String>,
    /// Allow every Host.
    #[arg(long, conflicts_with = "allow_host")]
    allow_any_host: bool,
    /// Require a token, and accept this one.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    token: Vec<String>,
    /// Take the token from: authorization (default), basic, header:NAME, cookie:NAME, query:NAME,
    /// subprotocol:PREFIX, subprotocol-base64:PREFIX, kubernetes, phoenix, pair:MARKER.
    #[arg(long, value_name = "SOURCE", requires = "token")]
    token_from: Vec<TokenSource>,
    /// If several sources hold a token, take it from the first one, in the order of --token-from.
    #[arg(long, requires = "token")]
    first_token: bool,
    /// The maximum length of a token.
    #[arg(long, value_name = "BYTES", requires = "token", default_value = "8192", value_parser = clap::value_parser!(u32).range(1..))]
    max_token_length: u32,
    /// Issue one-time tickets at POST /tickets, and redeem them as /ws?ticket=…. Keep them in
    /// memory, or in redis://HOST:PORT for several servers.
    #[arg(long, value_name = "STORE", requires = "token")]
    tickets: Option<String>,
    /// Support this subprotocol. The first one is preferred.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Accept clients that offer only other subprotocols, without one.
    #[arg(long)]
    accept_unmatched_subprotocols: bool,
    /// Compress messages for clients that can. In mode guard, axum's codec cannot.
    #[arg(long)]
    deflate: bool,
    /// The response to a rejected handshake.
    #[arg(long, value_enum, default_value_t = Style::Problem)]
    rejection: Style,
    /// The maximum number of open WebSockets.
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    max_connections: Option<ConnectionLimit>,
    /// The maximum number of open WebSockets of a token or, without tokens, of an address.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_key: Option<u32>,
    /// At the maximum of --max-per-key, close the oldest WebSocket and accept the new one.
    #[arg(long, requires = "max_per_key")]
    evict_oldest: bool,
    /// Count and end open WebSockets in memory, or in redis://HOST:PORT for several servers. POST
    /// /sessions/end with a token ends those of the token.
    #[arg(long, value_name = "STORE", default_value = "memory")]
    sessions: String,
    /// Timeout for the head of a request, for the checks, and for the client to read the response;
    /// each.
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..))]
    handshake_timeout: u64,
    /// Time for WebSockets to close after SIGTERM or Ctrl-C.
    #[arg(long, value_name = "MS", default_value = "10000")]
    drain_timeout: u64,
    /// Speak TLS with this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate for localhost and 127.0.0.1 that is made at start.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    tls_self_signed: bool,
    /// Reject requests to /ws that are not upgrade requests, with 426.
    #[arg(long)]
    require_websocket: bool,
    /// Reject only malformed handshakes, and log those that a policy would reject.
    #[arg(long)]
    report_only: bool,
    /// Serve metrics for Prometheus at /metrics.
    #[arg(long)]
    metrics: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Guard,
    Responder,
}

#[derive(Clone, Copy, ValueEnum)]
enum Style {
    Empty,
    Plain,
    Problem,
    /// Complete the handshake and close the socket with a code. Other rejections are a problem.
    Close,
}

struct Stores {
    sessions: Sessions<Key>,
    tickets: Option<tickets::Store>,
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

fn parse_limit(max: &str) -> Result<ConnectionLimit, String> {
    let max = max.parse().map_err(|_| "use a number")?;
    ConnectionLimit::total(max).map_err(|error| error.to_string())
}

impl Options {
    fn hosts(&self) -> Result<Option<AllowHost>, ConfigError> {
        match &*self.allow_host {
            [] if self.allow_any_host || !self.listen.ip().is_loopback() => Ok(None),
            [] => Ok(Some(AllowHost::loopback())),
            hosts => AllowHost::list(hosts).map(Some),
        }
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

    fn endpoint(
        &self,
        tickets: Option<&tickets::Store>,
        sessions: &Sessions<Key>,
        limit: Option<&ConnectionLimit>,
        drain: &Drain,
    ) -> Result<(MethodRouter, Explain), (&'static str, ConfigError)> {
        let style = self.rejection;
        let respond = response_fn(move |rejection, request, prepared| match style {
            Style::Empty => EmptyBody.response(rejection, request, prepared),
            Style::Plain => PlainText.response(rejection, request, prepared),
            Style::Problem | Style::Close => {
                ProblemJson::new().response(rejection, request, prepared)
            }
        });
        let subprotocols =
            Subprotocols::list(&self.subprotocol).map_err(|error| ("--subprotocol", error))?;
        let origins = self.origins().map_err(|error| ("--allow-origin", error))?;
        let too_short = |error| ("--handshake-timeout", error);
        let mut guard = GuardLayer::new(origins)
            .subprotocols(subprotocols)
            .reject_with(respond)
            .check_timeout(self.handshake_timeout())
            .map_err(too_short)?
            .sessions(sessions)
            .drain(drain);
        if let Some(limit) = limit {
            guard = guard.limit(limit.clone());
        }
        if let Some(hosts) = self.hosts().map_err(|error| ("--allow-host", error))? {
            guard = guard.allow_host(hosts);
        }
        if self.accept_unmatched_subprotocols {
            guard = guard.accept_unmatched_subprotocols();
        }
        if self.deflate {
            guard = guard.extensions(compression().map_err(|error| ("--deflate", error))?);
        }
        if self.require_websocket {
            guard = guard.require_websocket();
        }
        if matches!(style, Style::Close) {
            guard = guard.accept_then_close(AcceptThenClose::new());
        }
        if self.report_only {
            guard = guard.dangerous_report_only();
        }
        if let Some(tokens) = self.token_policy(tickets)? {
            guard = guard.token(tokens).map_err(|error| ("--token", error))?;
        }
        let explained = guard.clone();
        let explain = Arc::new(move |head: &Parts| explained.explain(head));
        let endpoint = match self.mode {
            Mode::Guard => any(echo::guarded).layer(guard),
            Mode::Responder => {
                let timeout = self.handshake_timeout();
                any(echo::responded)
                    .layer(guard.respond().upgrade_timeout(timeout).map_err(too_short)?)
            }
        };
        Ok((endpoint, explain))
    }

    /// Without a token there is no token check.
    fn token_policy(
        &self,
        tickets: Option<&tickets::Store>,
    ) -> Result<Option<TokenPolicy<Account>>, (&'static str, ConfigError)> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let sources = match &*self.token_from {
            [] => vec![TokenSource::authorization()],
            sources => sources.to_vec(),
        };
        let ambiguous = |error| ("--token-from", error);
        let accounts = Accounts::new(&self.token).map_err(|error| ("--token", error))?;
        let mut policy =
            TokenPolicy::from_sources(sources, accounts.verifier()).map_err(ambiguous)?;
        if let Some(store) = tickets {
            let tickets = TicketVerifier::new(store.clone());
            let tickets =
                TokenPolicy::from_sources([tickets::source()], tickets).map_err(ambiguous)?;
            policy = policy.or(tickets).map_err(ambiguous)?;
        }
        // Black-box tests expect a `Bearer` challenge, whatever the sources are.
        let is_basic = self.token_from.contains(&TokenSource::basic());
        for scheme in is_basic.then_some("Basic").into_iter().chain(["Bearer"]) {
            policy = policy.challenge(scheme, "websocket").map_err(|error| ("--token", error))?;
        }
        if self.first_token {
            policy = policy.first_source_wins();
        }
        let max_length = self.max_token_length as usize;
        policy.max_length(max_length).map(Some).map_err(|error| ("--max-token-length", error))
    }

    const fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout)
    }

    /// A Redis for each flag that names one. Flags with the same URL share the connection.
    fn stores(&self) -> Result<Stores, (&'static str, String)> {
        let sessions = redis(&self.sessions).map_err(|error| ("--sessions", error))?;
        let tickets = match &self.tickets {
            None => None,
            Some(url) if *url == self.sessions => Some(sessions.clone()),
            Some(url) => Some(redis(url).map_err(|error| ("--tickets", error))?),
        };
        let (max, redis) = (self.max_per_key.map(|max| max as usize), sessions.as_ref());
        let sessions = sessions::sessions(max, self.evict_oldest, redis)
            .map_err(|error| ("--sessions", error.to_string()))?;
        let tickets = tickets.map(|redis| tickets::Store::new(redis.as_ref()));
        Ok(Stores { sessions, tickets })
    }

    fn tls(&self) -> Result<Option<TlsAcceptor>, (&'static str, String)> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let tls = serve::tls_from_files(certificate, key)
                    .map_err(|error| ("--tls-cert, --tls-key", error))?;
                Ok(Some(tls))
            }
            _ if self.tls_self_signed => {
                serve::tls_self_signed().map(Some).map_err(|error| ("--tls-self-signed", error))
            }
            _ => Ok(None),
        }
    }

    /// What the page must send to be accepted, and its endpoint.
    fn attempts(
        &self,
        address: SocketAddr,
        secret: &str,
        tickets: Option<&tickets::Store>,
        drain: &Drain,
    ) -> Result<Attempts, (&'static str, ConfigError)> {
        let own = |error| ("the page", error);
        let sessions = sessions::sessions(None, false, None).map_err(own)?;
        let (endpoint, explain) = self.endpoint(tickets, &sessions, None, drain)?;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint =
            Router::new().route("/ws", endpoint).layer(Extension(ConnectInfo(peer))).with_state(());
        let is_bearer =
            self.token_from.is_empty() || self.token_from.contains(&TokenSource::authorization());
        Ok(Attempts {
            endpoint,
            connections: Connections { tls: None, head_timeout: self.handshake_timeout() },
            page: StaticTokens::new([(secret, ())]).map_err(own)?,
            address,
            host: self.allow_host.first().map(|pattern| matching(pattern)),
            origin: self.allow_origin.first().or(self.public_origin.as_ref()).map(|o| matching(o)),
            bearer: self.token.first().filter(|_| is_bearer).cloned(),
            subprotocol: self.subprotocol.first().cloned(),
            tickets: self.tickets.is_some(),
            closes: matches!(self.rejection, Style::Close),
            explain: self.listen.ip().is_loopback().then_some(explain),
        })
    }

    /// `/`, and what only its page may ask for.
    fn page(
        &self,
        address: SocketAddr,
        tickets: Option<&tickets::Store>,
        drain: &Drain,
    ) -> Result<Router, (&'static str, ConfigError)> {
        let secret = new_secret();
        let yes = |flag| if flag { "yes" } else { "no" };
        let page = include_str!("page.html")
            .replace("{tickets}", yes(self.tickets.is_some()))
            .replace("{tokens}", yes(!self.token.is_empty()))
            .replace("{attempts}", &secret);
        // In a frame, a page of another site could make the user click on its buttons.
        let headers =
            [(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut own = AllowOrigin::same_origin();
        if let Some(origin) = &self.public_origin {
            let public = AllowOrigin::public_origin(origin);
            own = own.or(public.map_err(|error| ("--public-origin", error))?);
        }
        let attempts = self.attempts(address, &secret, tickets, drain)?;
        Ok(attempts::routes(attempts, own).route("/", get((headers, Html(page)))))
    }
}

/// 256 random bits.
fn new_secret() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// No window is kept between two messages, so that sockets can share them.
fn compression() -> Result<PermessageDeflate, ConfigError> {
    let zlib = PermessageDeflate::new().server_window_bits(9..=15)?;
    Ok(zlib.server_no_context_takeover().client_no_context_takeover())
}

/// One of the hosts or origins that match a pattern.
fn matching(pattern: &str) -> String {
    let pattern = pattern.strip_suffix(":*").unwrap_or(pattern);
    pattern.to_ascii_lowercase().replace('*', "www")
}

/// The metrics, in the format of Prometheus.
fn metrics() -> MethodRouter {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 60.0, 3600.0]);
    let handle = recorder
        .expect("there are buckets")
        .install_recorder()
        .expect("there is no other recorder");
    describe_metrics();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    get(async move || handle.render())
}

/// Exits like clap for an invalid flag.
fn wrong_flag(flag: &str, error: impl Display) -> ! {
    Options::command().error(ErrorKind::ValueValidation, format!("{flag}: {error}")).exit()
}

/// Resolves for each SIGTERM and Ctrl-C, including earlier ones.
#[cfg(unix)]
fn stop_signals() -> io::Result<impl AsyncFnMut()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signals() -> io::Result<impl AsyncFnMut()> {
    Ok(async || tokio::signal::ctrl_c().await.expect("Ctrl-C can be waited for"))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    // For the operator: the cause of each rejection, and the fix.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .without_time()
        .init();
    let Stores { sessions, tickets } =
        options.stores().unwrap_or_else(|(flag, error)| wrong_flag(flag, error));
    let drain = Drain::new();
    let (endpoint, _) = options
        .endpoint(tickets.as_ref(), &sessions, options.max_connections.as_ref(), &drain)
        .unwrap_or_else(|(flag, error)| wrong_flag(flag, error));
    let tls = options.tls().unwrap_or_else(|(flag, error)| wrong_flag(flag, error));

    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let mut app = options
        .page(address, tickets.as_ref(), &drain)
        .unwrap_or_else(|(flag, error)| wrong_flag(flag, error));
    if options.metrics {
        app = app.route("/metrics", metrics());
    }
    let accounts = (!options.token.is_empty())
        .then(|| Accounts::new(&options.token))
        .transpose()
        .unwrap_or_else(|error| wrong_flag("--token", error));
    if let (Some(store), Some(accounts)) = (tickets, accounts.clone()) {
        app = app.merge(tickets::routes(store, accounts));
    }
    app = app.merge(sessions::routes(sessions::Api { sessions, accounts }));
    // The guard has them for the endpoint.
    if let Some(hosts) = options.hosts().unwrap_or_else(|error| wrong_flag("--allow-host", error)) {
        app = app.layer(RequestCheckLayer::hosts(hosts).reject_with(ProblemJson::new()));
    }
    app = app.merge(Router::new().route("/ws", endpoint));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut stop = stop_signals()?;
    println!("listening on {scheme}://{address}");
    // Otherwise axum builds the layers again for each request.
    let app = app.with_state(());
    let graceful = GracefulShutdown::new();
    let head_timeout = options.handshake_timeout();
    let stopped = async {
        stop().await;
        let end = Instant::now() + Duration::from_millis(options.drain_timeout);
        let left = tokio::select! {
            left = drain.wait(end - Instant::now()) => left,
            // A second signal ends the wait.
            () = stop() => drain.connections(),
        };
        (left, end)
    };
    // The server listens while it drains, so that new clients get a 503.
    let (left, end) = tokio::select! {
        never = serve::serve(listener, Connections { tls, head_timeout }, &graceful, app) => match never {},
        stopped = stopped => stopped,
    };
    match left {
        // Ordinary requests.
        0 => tokio::select! {
            _ = timeout_at(end, graceful.shutdown()) => {}
            () = stop() => {}
        },
        left => eprintln!("the drain is over; connections left open: {left}"),
    }
    Ok(())
}
