//! A conformance suite for the opening handshake of WebSocket servers.
//!
//! The cases are data, in `cases/`: what is sent, the sentence of the RFC that it is about, and which
//! responses conform to it. [`run`] puts them to a server, and [`Report`] is what came of it.
//!
//! ```no_run
//! let target = ws_handshake_suite::Target::new("ws://127.0.0.1:3000/ws")?;
//! let report = ws_handshake_suite::run(&target, |_| true, |case| println!("{}", case.id))?;
//! assert!(report.conforms());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod case;
mod check;
mod connection;
mod frame;
mod http1;
mod http2;
mod report;
mod request;
mod run;
mod target;

pub use case::{Case, Level, cases};
pub use report::{CaseReport, Count, Report, Summary, Verdict, html, markdown};
pub use run::{Untestable, run};
pub use target::{InvalidUrl, Target};
