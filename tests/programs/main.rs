//! Tests that start programs: the examples, and clients, proxies and Redis as they are installed.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod doctor;
mod example_server;
mod examples;
mod lifecycle;
mod proxies;
mod redis;
mod redis_server;
mod reverse_proxy;
mod server;
