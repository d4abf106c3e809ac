//! A handshake after the checks: what is known of it while the inner service handles it, and how the
//! layer completes, declines or rejects it then.

use std::{marker::PhantomData, mem, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
        UPGRADE,
    },
    request::Parts,
};

use super::{
    completes::Completes,
    policy::{Acquired, Negotiated, Policy, Report, Selected},
};
use crate::{
    context::Outer,
    extension::{self, AgreedExtensions},
    http::{Transport, field::set_header},
    rejection::{Rejection, RejectionKind as Kind, RejectionResponse, Reported, reject_late},
    telemetry::HandshakeRecord,
    upgrade::{Handover, HandshakeResponse, decide_passed_on, is_taken_in},
};
#[cfg(feature = "axum")]
use crate::{
    rejection::{Asked, Fault},
    token::TokenCheck,
};

/// A handshake that the inner service handles: what outlives the checks. The future of a request
/// carries it, so it is small.
pub(super) struct Handling<R, C> {
    pub(super) policy: Arc<Policy<R>>,
    pub(super) transport: Transport,
    /// No outer layer of this crate decides about the connection.
    pub(super) is_outermost: bool,
    pub(super) negotiated: Negotiated,
    pub(super) acquired: Acquired,
    pub(super) report: Report,
    /// Only the outermost layer that rejects records the outcome.
    pub(super) record: Option<HandshakeRecord>,
    completes: PhantomData<fn() -> C>,
}

impl<R, C> Handling<R, C> {
    pub(super) fn new(policy: &Arc<Policy<R>>, request: &Parts, outer: Outer) -> Self {
        Self {
            policy: Arc::clone(policy),
            transport: Transport::new(request.version),
            is_outermost: !outer.has_layer,
            negotiated: Negotiated::default(),
            acquired: Acquired::default(),
            report: Report::default(),
            record: None,
            completes: PhantomData,
        }
    }

    /// Step 9, after the inner service: completes, declines or rejects the handshake.
    pub(super) fn finish<B, E>(
        mut self,
        mut result: Result<Response<B>, E>,
    ) -> Result<Response<B>, E>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        if let Ok(response) = &mut result {
            #[cfg(feature = "axum")]
            self.respond_to_fault(response);
            if !is_rejected(response) {
                if self.policy.config.forwards() {
                    self.finish_forwarded(response);
                } else {
                    self.finish_responding(response);
                }
            }
            self.hand_over(response);
        }
        self.record(result.as_mut().ok());
        result
    }

    /// The inner service had to complete the handshake.
    fn finish_forwarded<B>(&mut self, response: &mut Response<B>)
    where
        R: RejectionResponse<B>,
    {
        let is_completed = self.transport.is_completed_by(response.status());
        let is_extended_connect = self.transport == Transport::ExtendedConnect;
        if is_completed && is_extended_connect && !self.is_taken(response) {
            return self.decline(response);
        }
        if let Some(handover) = &self.acquired.handover {
            let is_taken = self.is_taken(response);
            let is_held = if self.acquired.has_permit { handover.holds_permit() } else { is_taken };
            let is_unclaimed =
                if is_completed { !is_held } else { !is_taken && misses_upgrade(response) };
            if is_unclaimed && self.policy.config.report_only {
                self.report.0.get_or_insert_with(|| Box::new(Kind::PermitUnclaimed.into()));
            } else if is_unclaimed {
                return self.reject_response(Kind::PermitUnclaimed.into(), response);
            }
        }
        if !is_completed {
            return self.close_declined(response.headers_mut());
        }
        if let Err(rejection) = self.check_extensions(response.headers_mut()) {
            return self.reject_response(rejection, response);
        }
        let headers = response.headers_mut();
        match mem::replace(&mut self.negotiated.subprotocol, Selected::ByHandler) {
            Selected::ByHandler => {}
            Selected::ByLayer(selected) => set_header(headers, SEC_WEBSOCKET_PROTOCOL, selected),
            Selected::Fallback(marker) => {
                headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(marker);
            }
        }
    }

    /// Whether the inner service took the connection.
    fn is_taken<B>(&self, response: &Response<B>) -> bool {
        match &self.acquired.handover {
            Some(handover) if handover.is_taken() => true,
            Some(_) if !self.policy.config.report_only => false,
            // Nothing is withheld, so the handler may have taken the upgrade from hyper.
            _ => is_taken_in(response) || !(has_content(response) || has_rejection(response)),
        }
    }

    /// The inner service could accept the `PendingUpgrade`.
    fn finish_responding<B>(&self, response: &mut Response<B>)
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let status = response.status();
        let is_accepted =
            self.acquired.handover.as_ref().is_some_and(Handover::decline_unless_taken);
        if is_accepted && !status.is_client_error() && !status.is_server_error() {
            if let Err(rejection) = self.check_extensions(response.headers_mut()) {
                return self.reject_response(rejection, response);
            }
            if let Some(body) = C::empty_body() {
                *response.body_mut() = body;
            }
            return self.handshake_response(self.negotiated.agreed).write_head(response);
        }
        if self.transport.is_completed_by(status) {
            if self.transport == Transport::ExtendedConnect {
                return self.decline(response);
            }
            let rejection = Rejection::new(Kind::NotUpgradable).with_source(
                "the handler responded with 101 by itself; it must accept the `PendingUpgrade`",
            );
            return self.reject_response(rejection, response);
        }
        if !is_accepted && misses_upgrade(response) {
            let rejection = Rejection::new(Kind::NotUpgradable).with_source(
                "the handler uses axum's `WebSocketUpgrade` behind a layer that completes the \
                 handshake; use `PendingUpgrade`, or a guard without `respond`",
            );
            return self.reject_response(rejection, response);
        }
        self.close_declined(response.headers_mut());
    }

    /// Makes the response to a handler that asked for what no layer provides.
    #[cfg(feature = "axum")]
    fn respond_to_fault<B>(&self, response: &mut Response<B>)
    where
        R: RejectionResponse<B>,
    {
        let token = self.policy.config.token.as_ref();
        let Some(mut fault) = response.extensions_mut().remove::<Fault>() else { return };
        if matches!(fault.asked, Asked::Claims(_)) && token.is_none() && self.record.is_none() {
            // An outer layer may have the token check, and knows the type of its claims.
            response.extensions_mut().insert(fault);
            return;
        }
        let rejection = fault.asked.rejection(token.map(TokenCheck::claims));
        *response = self.policy.reject(rejection, &mut fault.request);
    }

    /// Over HTTP/2 a client takes every 2xx for an accepted handshake, but this one is the response
    /// of another handler, such as a fallback.
    fn decline<B>(&self, response: &mut Response<B>) {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }

    fn reject_response<B>(&self, rejection: Rejection, response: &mut Response<B>)
    where
        R: RejectionResponse<B>,
    {
        let Policy { config, reject_with } = &*self.policy;
        *response = reject_late(rejection, self.transport, &**reject_with, !config.keep_connection);
    }

    /// What follows a declined handshake on the connection must not be read as a second request.
    fn close_declined(&self, headers: &mut HeaderMap) {
        if !self.policy.config.keep_connection && self.transport == Transport::Http1 {
            // RFC 9110 7.8: `Upgrade` is named in `Connection`.
            let names = if headers.contains_key(UPGRADE) { "Upgrade, close" } else { "close" };
            headers.insert(CONNECTION, HeaderValue::from_static(names));
        }
    }

    fn check_extensions(&self, response: &mut HeaderMap) -> Result<(), Rejection> {
        let config = &self.policy.config;
        if !config.forwards() && config.extensions.is_none() {
            if !response.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
                return Ok(());
            }
            return Err(Rejection::new(Kind::ExtensionNotOffered).with_source(
                "the handler names an extension, but the layer completes the handshake and agrees \
                 to none; use `GuardLayer::extensions`",
            ));
        }
        let offered = self.negotiated.offered_extensions.as_ref();
        extension::check_response(offered, self.negotiated.agreed, response)
    }

    pub(super) fn handshake_response(&self, extensions: AgreedExtensions) -> HandshakeResponse {
        let subprotocol = self.negotiated.subprotocol.value().cloned();
        HandshakeResponse { key: self.negotiated.key, subprotocol, extensions }
    }

    /// The connection is handed over only if the response that leaves the outermost layer completes
    /// the handshake.
    fn hand_over<B>(&mut self, response: &mut Response<B>) {
        let is_completed = self.transport.is_completed_by(response.status());
        let decision = self.acquired.decision.take();
        if !self.is_outermost {
            // Dropping it declines the handshake.
            if let (Some(decision), true) = (decision, is_completed) {
                decision.pass_on(response);
            }
            return;
        }
        if let Some(decision) = decision {
            decision.decide(is_completed);
        }
        decide_passed_on(response, self.transport);
    }

    fn record<B>(&mut self, response: Option<&mut Response<B>>) {
        if let Some(record) = self.record.take() {
            record.finish(response.as_deref(), self.report.0.as_deref());
        }
        if let (Some(response), Some(rejection)) = (response, self.report.0.take()) {
            response.extensions_mut().insert(Reported(*rejection));
        }
    }

    /// Ends the handshake with a response of the layer.
    pub(super) fn finish_early<B>(&mut self, mut response: Response<B>) -> Response<B> {
        self.hand_over(&mut response);
        self.record(Some(&mut response));
        response
    }

    pub(super) fn reject<B>(&mut self, rejection: Rejection, request: &mut Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        let response = self.policy.reject(rejection, request);
        self.finish_early(response)
    }
}

/// Whether an inner layer of this crate, or this one, has rejected the handshake.
fn is_rejected<B>(response: &Response<B>) -> bool {
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    is_error && has_rejection(response)
}

/// Whether this crate has made the response, even if a layer between has changed its status.
fn has_rejection<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Rejection>().is_some()
}

/// Whether axum's `WebSocketUpgrade` found no upgrade. Any other 426 names a protocol (RFC 9110
/// 15.5.22).
fn misses_upgrade<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::UPGRADE_REQUIRED && !response.headers().contains_key(UPGRADE)
}

/// Whether the head describes content. A response that completes a handshake has none (RFC 9110
/// 9.3.6).
fn has_content<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    headers.contains_key(CONTENT_TYPE) || headers.contains_key(CONTENT_LENGTH)
}
