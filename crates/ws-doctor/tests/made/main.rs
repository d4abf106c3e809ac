//! The program with servers made for one case each.

#[path = "../common/mod.rs"]
mod common;

mod explain;
mod faulty;
mod hostile;
mod reach;
mod rejected;
mod secrets;
mod serve;
mod tls;
