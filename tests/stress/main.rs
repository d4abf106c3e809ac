//! Tests that load the machine with many threads, connections or handshakes. They share no process with tests that
//! depend on time.

#[path = "../common/mod.rs"]
mod common;

mod churn;
mod concurrency;
mod drain;
// Reads memory from /proc, and uses many addresses of the loopback network.
#[cfg(target_os = "linux")]
mod flood;
