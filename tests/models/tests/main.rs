//! Every order in which threads can meet, within bounds: see "Models" in TESTING.md.
//!
//! The models call the public API, from a few threads with a few steps each.

mod common;
mod drain;
mod limit;
mod sessions;
mod tickets;
mod upgrade;
mod validity;
