//! Telemetry without the features `tracing` and `metrics`: nothing.

use http::{Response, request::Parts};

use crate::rejection::Rejection;

pub(crate) struct CheckTimer;

impl CheckTimer {
    pub(crate) fn start() -> Self {
        Self
    }

    pub(crate) fn rejected(self, _: &Parts, _: &Rejection) {}

    pub(crate) fn accepted(self, _: &mut Parts) -> HandshakeRecord {
        HandshakeRecord
    }
}

pub(crate) struct HandshakeRecord;

impl HandshakeRecord {
    pub(crate) fn verified(&self) {}

    pub(crate) fn finish<B>(self, _: Option<&Response<B>>, _: Option<&Rejection>) {}
}
