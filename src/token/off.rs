//! Tokens without the feature `token`: there are none. The types have no values.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, request::Parts};

use crate::{
    connection::Ended,
    guard::wait::WaitFuture,
    handshake::Handshake,
    rejection::{Challenges, Rejection},
};

#[derive(Clone, Debug)]
pub(crate) enum TokenCheck {}

impl TokenCheck {
    pub(crate) fn sources(&self) -> &[TokenSource] {
        match *self {}
    }

    #[cfg(feature = "axum")]
    pub(crate) fn claims(&self) -> &'static str {
        match *self {}
    }

    pub(crate) fn hide_credentials(&self, _: &mut HeaderMap) {
        match *self {}
    }

    pub(crate) fn challenges(&self) -> Challenges {
        match *self {}
    }

    pub(crate) fn find(&self, _: &Handshake<'_>) -> Result<FoundToken, Rejection> {
        match *self {}
    }

    pub(crate) fn strip(&self, _: &mut Parts, _: Option<&FoundToken>) -> Result<(), Rejection> {
        match *self {}
    }
}

pub(crate) enum TokenSource {}

impl TokenSource {
    pub(crate) fn is_carrier(&self, _: Option<&[u8]>, _: &[u8]) -> bool {
        match *self {}
    }

    pub(crate) fn is_marker(&self, _: &[u8]) -> bool {
        match *self {}
    }
}

pub(crate) enum FoundToken {}

impl FoundToken {
    pub(crate) fn verify_now(&self, _: &mut Parts) -> Option<Result<(), Rejection>> {
        match *self {}
    }

    pub(crate) fn verify(self, _: Parts, _: Duration) -> WaitFuture {
        match self {}
    }
}

#[derive(Debug)]
pub(crate) enum ValidityPart {}

impl ValidityPart {
    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        match *self {}
    }

    pub(crate) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(crate) fn renew(&self, _: &[Arc<Self>]) {
        match *self {}
    }

    pub(crate) async fn ended(self: Arc<Self>) -> Ended {
        match *self {}
    }
}
