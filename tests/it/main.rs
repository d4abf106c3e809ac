//! Tests of the crate by its public API. The tests that start programs are in `tests/programs`.

#[path = "../common/mod.rs"]
mod common;

mod accept_then_close;
mod authorize;
mod classifier;
mod client;
mod codec_compression;
mod codecs;
mod compose;
mod decisions;
mod docs;
mod drain;
mod explain;
mod extensions;
mod extractors;
mod faults;
mod handover;
mod handshake;
mod host;
mod http2;
mod incidents;
mod jwt;
mod jwt_refresh;
mod limit;
mod origin;
mod rejection;
mod report_only;
mod revocations;
mod rfc;
mod security;
mod sessions;
mod settings;
mod settings_file;
mod subprotocol;
mod telemetry_log;
mod telemetry_metrics;
mod tickets;
mod token;
mod token_sources;
mod typed_headers;
mod upgrade;
mod validity;
mod values;
mod verifiers;
mod webtransport;
