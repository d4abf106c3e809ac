//! What the operator sees: logs, metrics and health.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower_ws_guard::{Drain, telemetry::describe_metrics};
use tracing_subscriber::EnvFilter;

use crate::rooms::Rooms;

/// Logs to stderr. `RUST_LOG` sets what, such as `chat_example=debug,tower_ws_guard=warn`.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(io::stderr)
        .init();
}

pub(crate) fn metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.000_1, 0.001, 0.01, 0.1, 1.0, 60.0, 3600.0])
        .expect("there are buckets")
        .install_recorder()
        .expect("there is no other recorder");
    describe_metrics();
    metrics::describe_counter!("chat_messages_total", "Messages of users by outcome");
    metrics::describe_gauge!("chat_sockets", "Open sockets");
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    recorder
}

pub(crate) fn routes(metrics: PrometheusHandle, rooms: Rooms, drain: Drain) -> Router {
    let ready = move || {
        let is_ready = rooms.are_connected() && !drain.has_started();
        std::future::ready(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
    };
    Router::new()
        .route("/metrics", get(async move || metrics.render()))
        // The process responds. An outage of Redis is no reason to restart it.
        .route("/live", get(StatusCode::OK))
        .route("/ready", get(ready))
}
