use std::time::{Duration, Instant};

use http::{HeaderValue, Response, Uri, Version, header::ORIGIN, request::Parts};

#[cfg(feature = "tracing")]
use crate::http::field::Escaped;
use crate::{
    http::Transport,
    rejection::{Rejection, Reported},
};

/// The outcome of a handshake.
pub(super) enum Outcome<'a> {
    Accepted,
    /// Accepted in report-only mode, though a policy would have rejected it.
    Reported(&'a Rejection),
    Rejected(&'a Rejection),
    Declined,
    Failed,
    Cancelled,
}

/// The codes of the outcomes without a rejection.
#[cfg(feature = "metrics")]
pub(super) const CODES: [&str; 4] = ["accepted", "declined", "error", "cancelled"];

impl Outcome<'_> {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Reported(rejection) | Self::Rejected(rejection) => rejection.kind().code(),
            Self::Declined => "declined",
            Self::Failed => "error",
            Self::Cancelled => "cancelled",
        }
    }

    fn record(&self, _head: &Head<'_>, checks: Duration) {
        #[cfg(feature = "metrics")]
        {
            let outcome = match self {
                Self::Accepted | Self::Reported(_) => super::metrics::ACCEPTED,
                Self::Rejected(_) | Self::Declined | Self::Failed | Self::Cancelled => {
                    super::metrics::REJECTED
                }
            };
            super::metrics::count(outcome, self.code(), checks);
        }
        #[cfg(feature = "tracing")]
        super::log::log(self, _head, checks);
    }
}

/// Measures the checks of the outermost layer.
pub(crate) struct CheckTimer {
    started: Instant,
}

impl CheckTimer {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn rejected(self, request: &Parts, rejection: &Rejection) {
        Outcome::Rejected(rejection).record(&Head::new(request), self.started.elapsed());
    }

    /// Keeps what the record needs from the head of the request. Boxed, so that ordinary requests
    /// do not carry its size.
    pub(crate) fn accepted(self, request: &mut Parts) -> HandshakeRecord {
        #[cfg(feature = "tracing")]
        {
            let span = super::log::span(&Head::new(request));
            if !span.is_disabled() {
                request.extensions.insert(span);
            }
        }
        let state = Box::new(State {
            started: self.started,
            checks: self.started.elapsed(),
            version: request.version,
            uri: request.uri.clone(),
            origin: request.headers.get(ORIGIN).cloned(),
        });
        HandshakeRecord { state: Some(state) }
    }
}

/// Records the outcome of a handshake once. Dropped before, it records that the handshake was
/// cancelled.
pub(crate) struct HandshakeRecord {
    /// `None` after the outcome was recorded.
    state: Option<Box<State>>,
}

struct State {
    started: Instant,
    /// How long the checks took.
    checks: Duration,
    version: Version,
    uri: Uri,
    origin: Option<HeaderValue>,
}

impl State {
    fn head(&self) -> Head<'_> {
        Head { version: self.version, path: self.uri.path(), origin: self.origin.as_ref() }
    }
}

impl HandshakeRecord {
    /// The verification of the token is over. The limit, which follows, is not measured.
    pub(crate) fn verified(&mut self) {
        if let Some(state) = &mut self.state {
            state.checks = state.started.elapsed();
        }
    }

    /// Records the response, or that there was none because the inner service failed.
    pub(crate) fn finish<B>(
        mut self,
        response: Option<&Response<B>>,
        reported: Option<&Rejection>,
    ) {
        let Some(state) = self.state.take() else { return };
        let is_completed = |response: &Response<B>| {
            Transport::new(state.version).is_completed_by(response.status())
        };
        let outcome = match response {
            None => Outcome::Failed,
            Some(response) => {
                let extensions = response.extensions();
                let inside = extensions.get().map(|Reported(rejection)| rejection);
                match (extensions.get(), reported.or(inside)) {
                    (Some(rejection), _) => Outcome::Rejected(rejection),
                    (None, _) if !is_completed(response) => Outcome::Declined,
                    (None, Some(reported)) => Outcome::Reported(reported),
                    (None, None) => Outcome::Accepted,
                }
            }
        };
        outcome.record(&state.head(), state.checks);
    }
}

impl Drop for HandshakeRecord {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            Outcome::Cancelled.record(&state.head(), state.checks);
        }
    }
}

/// What is logged of a request. It never has the query, which may hold a credential.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nothing is logged"))]
pub(super) struct Head<'a> {
    version: Version,
    path: &'a str,
    origin: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    fn new(request: &'a Parts) -> Self {
        Self {
            version: request.version,
            path: request.uri.path(),
            origin: request.headers.get(ORIGIN),
        }
    }
}

#[cfg(feature = "tracing")]
impl Head<'_> {
    pub(super) fn transport(&self) -> &'static str {
        match self.version {
            Version::HTTP_3 => "HTTP/3",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1",
        }
    }

    pub(super) fn origin(&self) -> Escaped<'_> {
        Escaped(self.origin.map_or(b"", HeaderValue::as_bytes))
    }

    pub(super) fn path(&self) -> Escaped<'_> {
        Escaped(self.path.as_bytes())
    }
}
