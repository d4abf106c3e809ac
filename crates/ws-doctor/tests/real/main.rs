//! The program with real servers and proxies, which `tests/install` installs.

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod start;
