use std::{
    error::Error,
    fmt::{self, Write as _},
    time::Duration,
};

use tracing::Level;

use super::decision::{Decision, Head};
use crate::rejection::{Rejection, RejectionKind};

const TARGET: &str = "tower_ws_guard";

pub(super) fn span(head: &Head<'_>) -> tracing::Span {
    let (transport, origin, path) = (head.transport(), head.origin(), head.path());
    tracing::info_span!(target: TARGET, "websocket", transport, %origin, %path)
}

pub(super) fn log(decision: &Decision<'_>, head: &Head<'_>, checks: Duration) {
    // The level must be a constant.
    macro_rules! log {
        ($level:ident, $($message:tt)*) => {{
            let (transport, origin, path) = (head.transport(), head.origin(), head.path());
            let (code, check_us) = (decision.code(), checks.as_micros() as u64);
            tracing::event!(target: TARGET, Level::$level, code, transport, %origin, %path, check_us, $($message)*);
        }};
    }
    match decision {
        Decision::Accepted => log!(DEBUG, "accepted"),
        Decision::Reported(rejection) => log!(WARN, "would be refused: {}", Sources(rejection)),
        Decision::Refused(rejection) if is_own_fault(rejection) => {
            log!(ERROR, "refused: {}", Sources(rejection));
        }
        Decision::Refused(rejection) => log!(WARN, "refused: {}", Sources(rejection)),
        Decision::Declined => log!(DEBUG, "declined by the inner service"),
        Decision::Failed => log!(DEBUG, "the inner service failed"),
        Decision::Cancelled => log!(DEBUG, "dropped before there was an answer"),
    }
}

/// What a client can bring about at will is no fault of the server, nor is what its owner did.
fn is_own_fault(rejection: &Rejection) -> bool {
    use RejectionKind as Kind;

    let kind = rejection.kind();
    kind.status().is_server_error() && !matches!(kind, Kind::HttpVersion | Kind::OverCapacity | Kind::ShuttingDown)
}

/// An error and what led to it.
struct Sources<'a>(&'a dyn Error);

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, "; because: {}", OneLine(&error.to_string()))?;
            source = error.source();
        }
        Ok(())
    }
}

/// Text of others, which may hold what a stranger sent: without characters that cannot be seen, and cut.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, character) in self.0.chars().enumerate() {
            match character {
                _ if i == 256 => return f.write_char('…'),
                '"' | '\'' | '\\' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        Ok(())
    }
}
