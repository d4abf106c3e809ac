use std::{error::Error, fmt, time::Duration};

use tracing::{Level, level_filters::LevelFilter};

use super::outcome::{Head, Outcome};
use crate::http::field::OneLine;
#[cfg(feature = "axum")]
use crate::rejection::Rejection;

const TARGET: &str = "tower_ws_guard";

/// Whether a subscriber listens to events of any level.
pub(super) fn is_listening() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

pub(super) fn span(head: &Head<'_>) -> tracing::Span {
    let (transport, origin, path) = (head.transport(), head.origin(), head.path());
    tracing::info_span!(target: TARGET, "websocket", transport, %origin, %path)
}

pub(super) fn log(outcome: &Outcome<'_>, head: &Head<'_>, checks: Duration) {
    // The level must be a constant.
    macro_rules! log {
        ($level:ident, $($message:tt)*) => {{
            let (transport, origin, path) = (head.transport(), head.origin(), head.path());
            let (code, check_us) = (outcome.code(), checks.as_micros() as u64);
            tracing::event!(
                target: TARGET, Level::$level,
                code, transport, %origin, %path, check_us, $($message)*
            );
        }};
    }
    match outcome {
        Outcome::Accepted => log!(DEBUG, "accepted"),
        Outcome::Reported(rejection) => log!(WARN, "would be rejected: {}", WithSources(rejection)),
        Outcome::Rejected(rejection) if rejection.kind().is_fault_of_server() => {
            log!(ERROR, "rejected: {}", WithSources(rejection));
        }
        Outcome::Rejected(rejection) => log!(WARN, "rejected: {}", WithSources(rejection)),
        Outcome::Declined => log!(DEBUG, "declined by the inner service"),
        Outcome::Failed => log!(DEBUG, "the inner service failed"),
        Outcome::Cancelled => log!(DEBUG, "dropped before there was a response"),
    }
}

/// Logs a fault on a route that no layer of this crate protects.
#[cfg(feature = "axum")]
pub(crate) fn log_unprotected(rejection: &Rejection, path: &str) {
    let (code, path) = (rejection.kind().code(), crate::http::field::Escaped(path.as_bytes()));
    tracing::event!(
        target: TARGET, Level::ERROR, code, %path, "rejected: {}", WithSources(rejection)
    );
}

/// Logs the failure of a task in the background.
#[cfg(feature = "redis")]
pub(crate) fn log_failure(what: &str, error: &(dyn Error + 'static)) {
    tracing::event!(target: TARGET, Level::WARN, "{what}: {}", WithSources(error));
}

#[cfg(feature = "jwt")]
pub(crate) fn log_key_fetch(name: &str, count: usize) {
    tracing::event!(target: TARGET, Level::DEBUG, keys = name, "{count} keys were fetched");
}

#[cfg(feature = "jwt")]
pub(crate) fn log_failed_key_fetch(
    name: &str,
    error: &(dyn Error + 'static),
    age: Option<Duration>,
    pause: Duration,
) {
    let kept = match age {
        Some(age) => format!("the keys of {}s ago stay valid", age.as_secs()),
        None => "there are no keys yet, so no token is valid".to_owned(),
    };
    tracing::event!(
        target: TARGET, Level::WARN, keys = name, retry_in_ms = pause.as_millis() as u64,
        "{}; {kept}; check that the issuer is reachable and that `fetch` reads its keys",
        WithSources(&KeyFetchFailed(error)),
    );
}

/// Its source is from another crate, and may have several lines.
#[cfg(feature = "jwt")]
#[derive(Debug)]
struct KeyFetchFailed<'a>(&'a (dyn Error + 'static));

#[cfg(feature = "jwt")]
impl fmt::Display for KeyFetchFailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keys could not be fetched")
    }
}

#[cfg(feature = "jwt")]
impl Error for KeyFetchFailed<'_> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0)
    }
}

/// An error and its sources, on one line.
struct WithSources<'a>(&'a dyn Error);

impl fmt::Display for WithSources<'_> {
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
