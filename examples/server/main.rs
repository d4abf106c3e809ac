//! A WebSocket echo server with all checks, and a page to try handshakes.
//!
//! `cargo run --example server`, then open the address that it prints. `--help` lists the flags.

mod accounts;
mod attempts;
mod echo;
mod log;
mod options;
mod page;
mod policy;
mod serve;
mod sessions;
mod tickets;
mod unguarded;

use std::{io, time::Duration};

use axum::{
    Router,
    routing::{MethodRouter, any, get},
};
use clap::Parser;
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tower_ws_guard::{Drain, ProblemJson, RequestCheckLayer, telemetry::describe_metrics};

use self::{
    attempts::Attempts,
    options::{Options, Stores, WrongFlag},
    page::Page,
    serve::Connections,
};

#[tokio::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    log::init();
    let tls = options.tls().unwrap_or_else(|wrong| wrong.exit());
    let drain = Drain::new();
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let app = app(&options, address, &drain).unwrap_or_else(|wrong| wrong.exit());
    let mut stop = stop_signals()?;
    println!("listening on {}://{address}", if tls.is_some() { "https" } else { "http" });

    let graceful = GracefulShutdown::new();
    let connections = Connections { tls, head_timeout: options.handshake_timeout() };
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
        never = serve::serve(listener, connections, &graceful, app) => match never {},
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

fn app(
    options: &Options,
    address: std::net::SocketAddr,
    drain: &Drain,
) -> Result<Router, WrongFlag> {
    let Stores { sessions, tickets } = options.stores()?;
    let endpoint = options.endpoint(tickets.as_ref(), &sessions, drain)?;
    let accounts = options.accounts()?;
    let is_private = options.is_private();
    let warnings = policy::warnings(options, &endpoint.lints);
    for warning in &warnings {
        tracing::warn!("dangerous: {warning}");
    }

    let attempts = Attempts::new(options, address, endpoint.attempts, endpoint.explain);
    let page = Page::new(options, &warnings, drain, attempts)?;
    let mut app = page::routes(page);
    if options.metrics {
        app = app.route("/metrics", metrics());
    }
    if let (Some(store), Some(accounts)) = (tickets, accounts.clone()) {
        app = app.merge(tickets::routes(store, accounts));
    }
    app = app.merge(sessions::routes(sessions::Api { sessions, accounts, is_private }));
    if is_private {
        app = app.route(unguarded::PATH, any(unguarded::accept));
    }
    // The guard has them for the endpoint.
    if let Some(hosts) = options.hosts()? {
        app = app.layer(RequestCheckLayer::hosts(hosts).reject_with(ProblemJson::new()));
    }
    let app = app.merge(Router::new().route("/ws", endpoint.clients));
    // Otherwise axum builds the layers again for each request.
    Ok(app.with_state(()))
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
