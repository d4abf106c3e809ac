use std::time::{Duration, Instant};

#[cfg(feature = "tracing")]
use http::{HeaderValue, Uri, Version, header::ORIGIN};
use http::{Response, request::Parts};

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

    #[cfg(feature = "metrics")]
    fn count(&self, checks: Duration) {
        let outcome = match self {
            Self::Accepted | Self::Reported(_) => super::metrics::ACCEPTED,
            Self::Rejected(_) | Self::Declined | Self::Failed | Self::Cancelled => {
                super::metrics::REJECTED
            }
        };
        super::metrics::count(outcome, self.code(), checks);
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

    pub(crate) fn rejected(self, _request: &Parts, rejection: &Rejection) {
        let (outcome, checks) = (Outcome::Rejected(rejection), self.started.elapsed());
        #[cfg(feature = "metrics")]
        outcome.count(checks);
        #[cfg(feature = "tracing")]
        super::log::log(&outcome, &Head::new(_request), checks);
    }

    pub(crate) fn accepted(self, _request: &mut Parts) -> HandshakeRecord {
        let Self { started } = self;
        HandshakeRecord {
            started,
            checks: started.elapsed(),
            is_recorded: false,
            transport: Transport::new(_request.version),
            #[cfg(feature = "tracing")]
            logged: super::log::is_listening().then(|| Logged::new(_request)),
        }
    }
}

/// Records the outcome of a handshake once. Dropped before, it records that the handshake was
/// cancelled.
pub(crate) struct HandshakeRecord {
    started: Instant,
    /// How long the checks took.
    checks: Duration,
    is_recorded: bool,
    transport: Transport,
    /// `None` without a subscriber. Boxed, because every request has room for it.
    #[cfg(feature = "tracing")]
    logged: Option<Box<Logged>>,
}

/// What is logged of a request that the inner service gets.
#[cfg(feature = "tracing")]
struct Logged {
    version: Version,
    uri: Uri,
    origin: Option<HeaderValue>,
}

#[cfg(feature = "tracing")]
impl Logged {
    /// Inserts the span of the connection, too.
    fn new(request: &mut Parts) -> Box<Self> {
        let span = super::log::span(&Head::new(request));
        if !span.is_disabled() {
            request.extensions.insert(span);
        }
        Box::new(Self {
            version: request.version,
            uri: request.uri.clone(),
            origin: request.headers.get(ORIGIN).cloned(),
        })
    }

    fn head(&self) -> Head<'_> {
        Head { version: self.version, path: self.uri.path(), origin: self.origin.as_ref() }
    }
}

impl HandshakeRecord {
    /// The verification of the token is over. The limit, which follows, is not measured.
    pub(crate) fn verified(&mut self) {
        self.checks = self.started.elapsed();
    }

    /// Records the response, or that there was none because the inner service failed.
    pub(crate) fn finish<B>(
        mut self,
        response: Option<&Response<B>>,
        reported: Option<&Rejection>,
    ) {
        let outcome = match response {
            None => Outcome::Failed,
            Some(response) => {
                let extensions = response.extensions();
                let inside = extensions.get().map(|Reported(rejection)| rejection);
                match (extensions.get(), reported.or(inside)) {
                    (Some(rejection), _) => Outcome::Rejected(rejection),
                    (None, _) if !self.transport.is_completed_by(response.status()) => {
                        Outcome::Declined
                    }
                    (None, Some(reported)) => Outcome::Reported(reported),
                    (None, None) => Outcome::Accepted,
                }
            }
        };
        self.record(&outcome);
    }

    fn record(&mut self, outcome: &Outcome<'_>) {
        self.is_recorded = true;
        #[cfg(feature = "metrics")]
        outcome.count(self.checks);
        #[cfg(feature = "tracing")]
        {
            let head = self.logged.as_ref().map_or(Head::UNKNOWN, |logged| logged.head());
            super::log::log(outcome, &head, self.checks);
        }
    }
}

impl Drop for HandshakeRecord {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.record(&Outcome::Cancelled);
        }
    }
}

/// What is logged of a request. It never has the query, which may hold a credential.
#[cfg(feature = "tracing")]
pub(super) struct Head<'a> {
    version: Version,
    path: &'a str,
    origin: Option<&'a HeaderValue>,
}

#[cfg(feature = "tracing")]
impl<'a> Head<'a> {
    /// Of a request that is gone, and of which nothing was kept.
    const UNKNOWN: Self = Head { version: Version::HTTP_11, path: "", origin: None };

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
