//! A chat with rooms, on one server or on several that share a Redis. `README.md` says how to run
//! it, and what happens when.

mod login;
mod operate;
mod rooms;
mod socket;

use std::{
    error::Error,
    io,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{Html, IntoResponse},
    routing::{any, get, post},
};
use clap::Parser;
use tokio::{net::TcpListener, time::sleep};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, GuardLayer, ProblemJson, Redis,
    RequestCheckLayer, Revocations, Sessions, TokenIdentity, TokenPolicy, TokenSource, VerifyToken,
    WhenFull,
    token::ticket::{
        MemoryTicketStore, RedisTicketStore, TicketIssuer, TicketStore, TicketVerifier,
    },
};

use self::{
    login::{Logins, Member},
    rooms::Rooms,
};

#[derive(Parser)]
#[command(about = "A chat behind tower-ws-guard")]
struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Where to serve /metrics, /live and /ready. Keep it away from the internet.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    operate: SocketAddr,
    /// The origin of the page, such as https://chat.example.com; may be repeated. Default: the
    /// names of this machine.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// What a user must know to log in.
    #[arg(long, env = "CHAT_INVITATION", hide_env_values = true)]
    invitation: String,
    /// What signs the session cookies: 32 bytes or more, the same on all servers. Default: random.
    #[arg(long, env = "CHAT_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// The Redis that all servers share, as redis://HOST:PORT. Default: one server, in memory.
    #[arg(
        long,
        env = "CHAT_REDIS",
        hide_env_values = true,
        value_name = "URL",
        requires = "secret"
    )]
    redis: Option<String>,
    /// A proxy sets X-Real-IP to the address of the client.
    #[arg(long)]
    behind_proxy: bool,
    /// The maximum number of sockets of this server.
    #[arg(long, value_name = "N", default_value = "10000")]
    max_sockets: usize,
    /// The maximum number of sockets of a user, on all servers. A new one closes the oldest.
    #[arg(long, value_name = "N", default_value = "5")]
    max_per_user: usize,
    /// The time between two pings. A client that does not respond to one before the next is gone.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = clap::value_parser!(u64).range(1..))]
    ping: u64,
    /// The time for sockets to close after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    drain: u64,
}

/// What the handlers share.
#[derive(Clone)]
struct Chat<S> {
    logins: Logins,
    tickets: TicketIssuer<S>,
    sessions: Sessions<String>,
    rooms: Rooms,
    sockets: socket::Settings,
}

fn chat<S: TicketStore + Clone>(
    options: &Options,
    store: S,
    redis: Option<(redis::Client, Redis)>,
    drain: &Drain,
) -> Result<(Router, Rooms), Box<dyn Error>> {
    // The names of this machine, or the hosts of the origins.
    let (origins, hosts) = match &*options.origin {
        [] => (AllowOrigin::same_origin(), AllowHost::loopback()),
        origins => {
            let hosts = origins.iter().filter_map(|origin| Some(origin.split_once("://")?.1));
            (AllowOrigin::list(origins)?, AllowHost::list(hosts)?)
        }
    };
    let sessions =
        Sessions::per_claims(options.max_per_user, |member: &Member| member.user.clone())?
            .when_full(WhenFull::EvictOldest);
    let (rooms, revocations, sessions) = match redis {
        None => (Rooms::in_memory(), Revocations::in_memory(login::LIFETIME)?, sessions),
        Some((client, redis)) => (
            Rooms::on_redis(client)?,
            Revocations::on_redis(&redis, login::LIFETIME)?,
            sessions.on_redis(&redis, "users")?,
        ),
    };

    // A ticket of a session that has ended meanwhile is worthless, and no socket outlives its
    // session.
    let tickets = TicketVerifier::<Member, _>::new(store.clone())
        .unless_revoked(&revocations, |member| TokenIdentity::new().id(&member.session))
        .expiring(|member| Some(UNIX_EPOCH + Duration::from_secs(member.expires)));
    let guard = GuardLayer::new(origins.clone())
        .allow_host(hosts.clone())
        .token(TokenPolicy::from_sources([TokenSource::query("ticket")?], tickets)?)?
        .limit(ConnectionLimit::total(options.max_sockets)?)
        .sessions(&sessions)
        .drain(drain)
        .reject_with(ProblemJson::new());

    let is_secure = options.origin.iter().any(|origin| origin.starts_with("https://"));
    let logins =
        Logins::new(&options.invitation, options.secret.as_deref(), revocations, is_secure)?;
    let chat = Chat {
        logins,
        tickets: TicketIssuer::new(store),
        sessions,
        rooms: rooms.clone(),
        sockets: socket::Settings {
            ping: Duration::from_secs(options.ping),
            behind_proxy: options.behind_proxy,
        },
    };
    let app = Router::new()
        .route("/login", post(login::login::<S>))
        .route("/logout", post(login::logout::<S>))
        .route("/tickets", post(login::ticket::<S>))
        // A browser adds the cookie to requests of any page.
        .layer(RequestCheckLayer::origins(origins))
        .route("/", get(page))
        .route("/chat.js", get(script))
        .layer(RequestCheckLayer::hosts(hosts))
        .layer(DefaultBodyLimit::max(4096))
        .route("/ws", any(socket::open::<S>).layer(guard))
        .with_state(chat);
    Ok((app, rooms))
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; connect-src 'self'; script-src 'self'; \
                  style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    ([(CONTENT_SECURITY_POLICY, policy)], Html(include_str!("../page/index.html")))
}

async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript")], include_str!("../page/chat.js"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    operate::log();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let metrics = operate::metrics();
    let drain_timeout = Duration::from_secs(options.drain);
    // All sockets close at once: the clients come back over time.
    let drain = Drain::new();
    let (app, rooms) = match &options.redis {
        None => chat(options, MemoryTicketStore::default(), None, &drain)?,
        Some(url) => {
            let client = redis::Client::open(&**url).map_err(|_| "--redis is not redis://HOST")?;
            let redis = Redis::from_client(client.clone()).prefix("chat:");
            let store = RedisTicketStore::new(&redis);
            chat(options, store, Some((client, redis)), &drain)?
        }
    };

    let operator = listen(options.operate).await?;
    println!("metrics and health on http://{}", operator.local_addr()?);
    let operator = axum::serve(operator, operate::routes(metrics, rooms, drain.clone()));
    tokio::spawn(operator.into_future());

    let stop = stop_signal()?;
    let listener = listen(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopping = drain.clone();
    // The server listens while it drains: handshakes get a 503, with which nginx tries the next
    // server.
    let drained = async move {
        stop.await;
        tracing::info!("draining {} sockets", stopping.connections());
        match stopping.wait(drain_timeout).await {
            0 => tracing::info!("all sockets are closed"),
            left => tracing::warn!("{left} sockets are cut off"),
        }
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, app).with_graceful_shutdown(drained);
    // axum waits for ordinary requests without a deadline.
    let deadline = async {
        drain.started().await;
        sleep(drain_timeout + Duration::from_secs(2)).await;
    };
    tokio::select! {
        served = served => served?,
        () = deadline => tracing::warn!("requests are cut off"),
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))
}

/// Resolves for SIGTERM or Ctrl-C, also for an earlier one.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async { tokio::signal::ctrl_c().await.expect("Ctrl-C can be waited for") })
}
