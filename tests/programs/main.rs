//! Tests that start programs: the examples, and installed clients, proxies and Redis.

#[path = "../common/mod.rs"]
mod common;

mod autobahn;
mod clients;
mod deflate_clients;
mod example_server;
mod examples;
mod jwt_rotation;
mod lifecycle;
mod page;
mod proxies;
mod raw_clients;
mod real_clients;
mod redis;
mod redis_server;
mod reverse_proxy;
mod server;
