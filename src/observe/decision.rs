use std::time::{Duration, Instant};

use http::{HeaderValue, Response, Uri, Version, header::ORIGIN, request::Parts};

use super::Reported;
#[cfg(feature = "tracing")]
use crate::rejection::Shown;
use crate::{handshake::Transport, rejection::Rejection};

pub(super) enum Decision<'a> {
    Accepted,
    /// Accepted because nothing is refused.
    Reported(&'a Rejection),
    Refused(&'a Rejection),
    Declined,
    Failed,
    Cancelled,
}

/// Those that are no rejection's.
#[cfg(feature = "metrics")]
pub(super) const CODES: [&str; 4] = ["accepted", "declined", "error", "cancelled"];

impl Decision<'_> {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Reported(rejection) | Self::Refused(rejection) => rejection.kind().code(),
            Self::Declined => "declined",
            Self::Failed => "error",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn tell(&self, _head: &Head<'_>, checks: Duration) {
        #[cfg(feature = "metrics")]
        {
            let outcome = match self {
                Self::Accepted | Self::Reported(_) => super::metrics::ACCEPTED,
                Self::Refused(_) | Self::Declined | Self::Failed | Self::Cancelled => super::metrics::REFUSED,
            };
            super::metrics::count(outcome, self.code(), checks);
        }
        #[cfg(feature = "tracing")]
        super::log::log(self, _head, checks);
    }
}

/// What is known of a handshake once the request is on its way.
pub(super) struct State {
    /// Until it has told, or if a layer outside does.
    tells: bool,
    started: Instant,
    /// How long the checks took.
    checks: Duration,
    reported: Option<Rejection>,
    version: Version,
    uri: Uri,
    origin: Option<HeaderValue>,
}

impl State {
    pub(super) fn new(started: Instant, request: &Parts, tells: bool) -> Self {
        Self {
            tells,
            started,
            checks: started.elapsed(),
            reported: request.extensions.get().cloned(),
            version: request.version,
            uri: request.uri.clone(),
            origin: request.headers.get(ORIGIN).cloned(),
        }
    }

    pub(super) fn head(&self) -> Head<'_> {
        Head { version: self.version, path: self.uri.path(), origin: self.origin.as_ref() }
    }

    pub(super) fn checked(&mut self, reported: Option<Rejection>) {
        self.checks = self.started.elapsed();
        self.reported = self.reported.take().or(reported);
    }

    pub(super) fn answered<B, E>(&mut self, result: &mut Result<Response<B>, E>) {
        if !std::mem::take(&mut self.tells) {
            if let (Ok(response), Some(reported)) = (result, self.reported.take()) {
                response.extensions_mut().insert(Reported(reported));
            }
            return;
        }
        let is_completed = |response: &Response<B>| Transport::of(self.version).is_completed_by(response.status());
        let decision = match result {
            Ok(response) => {
                let inside = response.extensions().get().map(|Reported(rejection)| rejection);
                match (response.extensions().get(), self.reported.as_ref().or(inside)) {
                    (Some(rejection), _) => Decision::Refused(rejection),
                    (None, _) if !is_completed(response) => Decision::Declined,
                    (None, Some(reported)) => Decision::Reported(reported),
                    (None, None) => Decision::Accepted,
                }
            }
            Err(_) => Decision::Failed,
        };
        decision.tell(&self.head(), self.checks);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.tells {
            Decision::Cancelled.tell(&self.head(), self.checks);
        }
    }
}

/// What is logged of a request. Never the query: tokens are there.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nothing is logged"))]
pub(super) struct Head<'a> {
    version: Version,
    path: &'a str,
    origin: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    pub(super) fn of(request: &'a Parts) -> Self {
        Self { version: request.version, path: request.uri.path(), origin: request.headers.get(ORIGIN) }
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

    pub(super) fn origin(&self) -> Shown<'_> {
        Shown(self.origin.map_or(b"", HeaderValue::as_bytes))
    }

    pub(super) fn path(&self) -> Shown<'_> {
        Shown(self.path.as_bytes())
    }
}
