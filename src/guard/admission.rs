use std::{marker::PhantomData, mem, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
        UPGRADE,
    },
    request::Parts,
};
use tokio::time::Instant;

use super::{
    authorize::Authorization,
    completes::Completes,
    policy::{Acquired, Completion, Examined, Policy, Report, Selected},
};
use crate::{
    connection::{AcquireSession, AcquiredSession, Held},
    context::{GuardContext, Outer},
    extension::{self, AgreedExtensions},
    http::{Transport, field::set_header},
    rejection::{
        Rejection, RejectionKind as Kind, RejectionResponse, Reported, reject, reject_late,
    },
    telemetry::{CheckTimer, ConnectionSpan, HandshakeRecord},
    token::{FoundToken, Validity, WaitFuture, within},
    upgrade::{
        ConnectionInfo, Handover, HandshakeResponse, PendingUpgrade, decide_passed_on, is_taken_in,
    },
};
#[cfg(feature = "axum")]
use crate::{
    rejection::{Asked, Fault},
    token::TokenCheck,
};

/// One handshake on its way through a layer.
pub(super) struct Admission<R, C> {
    policy: Arc<Policy<R>>,
    transport: Transport,
    /// No outer layer of this crate decides about the connection.
    is_outermost: bool,
    key: Option<[u8; 24]>,
    subprotocol: Selected,
    agreed_extensions: AgreedExtensions,
    offered_extensions: Option<HeaderValue>,
    /// What the permit will hold.
    held: Vec<Held>,
    acquired: Acquired,
    report: Report,
    /// When the checks began, if there are sessions.
    began: Option<std::time::Instant>,
    /// The end of the time for all waits, set at the first one.
    deadline: Option<Instant>,
    waited: Waited,
    /// Only the outermost layer that rejects records the outcome.
    record: Option<HandshakeRecord>,
    completes: PhantomData<fn() -> C>,
}

/// What a layer does next.
pub(super) enum Next<B> {
    /// Wait, because a verifier or an authorization has to.
    Wait(Waiting),
    /// Call the inner service.
    Call,
    /// Respond without the inner service.
    Respond(Response<B>),
}

/// What a layer waits for.
pub(super) enum Waiting {
    Verification(FoundToken),
    Authorization,
    Sessions,
}

/// What a layer has waited for.
#[derive(Clone, Copy)]
enum Waited {
    Verification,
    Authorization,
    Sessions,
}

impl<R, C> Admission<R, C> {
    pub(super) fn new(policy: &Arc<Policy<R>>, request: &Parts, outer: Outer) -> Self {
        Self {
            policy: Arc::clone(policy),
            transport: Transport::new(request.version),
            is_outermost: !outer.has_layer,
            key: None,
            subprotocol: Selected::ByHandler,
            agreed_extensions: AgreedExtensions::default(),
            offered_extensions: None,
            held: Vec::new(),
            acquired: Acquired::default(),
            began: None,
            report: Report::default(),
            deadline: None,
            waited: Waited::Verification,
            record: None,
            completes: PhantomData,
        }
    }

    /// Runs the steps until one has to wait.
    pub(super) fn begin<B>(&mut self, request: &mut Parts, outer: Outer) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let timer = (!outer.has_guard).then(CheckTimer::start);
        let config = &self.policy.config;
        self.began = (!config.sessions.is_empty()).then(std::time::Instant::now);
        let examined = match config.examine(request, &mut self.report) {
            Ok(examined) => examined,
            Err(rejection) => {
                if let Some(timer) = timer {
                    timer.rejected(request, &rejection);
                }
                return Next::Respond(self.policy.reject(rejection, request));
            }
        };
        let Examined { key, subprotocol, agreed, offered_extensions, token } = examined;
        let token = token.map(|token| config.enforce(token, &mut self.report));
        (self.key, self.subprotocol) = (key, subprotocol);
        (self.agreed_extensions, self.offered_extensions) = (agreed, offered_extensions);
        self.record = timer.map(|timer| timer.accepted(request));
        self.insert_report(request);
        match token {
            // There is no token policy, or report-only mode found no token.
            None | Some(Ok(None)) => self.authorize(request),
            Some(Ok(Some(token))) => match token.verify_now(request) {
                Some(result) => self.verified(request, result),
                None => Next::Wait(Waiting::Verification(token)),
            },
            Some(Err(rejection)) => Next::Respond(self.reject_or_close(rejection, request)),
        }
    }

    /// Step 7: verifies a token, or authorizes the handshake. Both together have the deadline.
    pub(super) fn wait(&mut self, waiting: Waiting, request: Parts) -> WaitFuture {
        let config = &self.policy.config;
        let time_left = match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => {
                self.deadline = Instant::now().checked_add(config.check_timeout);
                config.check_timeout
            }
        };
        match waiting {
            Waiting::Verification(token) => {
                self.waited = Waited::Verification;
                token.verify(request, time_left)
            }
            Waiting::Authorization => {
                self.waited = Waited::Authorization;
                authorize(config.authorizations.clone(), request, time_left)
            }
            Waiting::Sessions => {
                self.waited = Waited::Sessions;
                acquire_sessions(config.sessions.clone(), request, self.began(), time_left)
            }
        }
    }

    /// Continues after a wait.
    pub(super) fn resume<B>(
        &mut self,
        request: &mut Parts,
        result: Result<Vec<AcquiredSession>, Rejection>,
    ) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        if matches!(self.waited, Waited::Verification) {
            return self.verified(request, result.map(drop));
        }
        // The claims may have ended meanwhile.
        let has_ended = request.extensions.get().is_some_and(Validity::has_ended);
        let result = match result {
            Ok(_) if has_ended => Err(Kind::TokenInvalid.into()),
            result => result,
        };
        match self.waited {
            Waited::Sessions => self.admit(request, result),
            _ => self.checked(request, result.map(drop), Self::acquire),
        }
    }

    /// Continues with the result of the verification.
    fn verified<B>(&mut self, request: &mut Parts, result: Result<(), Rejection>) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        self.checked(request, result, Self::authorize)
    }

    fn checked<B>(
        &mut self,
        request: &mut Parts,
        result: Result<(), Rejection>,
        next: impl FnOnce(&mut Self, &mut Parts) -> Next<B>,
    ) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        if let Some(record) = &mut self.record {
            record.verified();
        }
        match self.policy.config.enforce(result, &mut self.report) {
            Ok(_) => next(self, request),
            Err(rejection) => Next::Respond(self.reject_or_close(rejection, request)),
        }
    }

    /// Goes on to the user's authorization.
    fn authorize<B>(&mut self, request: &mut Parts) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        if self.policy.config.authorizations.is_empty() {
            return self.acquire(request);
        }
        Next::Wait(Waiting::Authorization)
    }

    /// Step 8: acquires what the permit holds. The total limit comes first, so that no session is
    /// evicted in vain.
    fn acquire<B>(&mut self, request: &mut Parts) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let config = &self.policy.config;
        match config.acquire_slots(&mut self.report) {
            Ok(slots) => self.held = slots,
            Err(rejection) => return Next::Respond(self.reject_or_close(rejection, request)),
        }
        if config.sessions.iter().any(|sessions| sessions.has_to_wait()) {
            return Next::Wait(Waiting::Sessions);
        }
        let began = self.began();
        let sessions = config.sessions.iter().map(|sessions| sessions.acquire_now(request, began));
        let sessions = sessions.collect();
        self.admit(request, sessions)
    }

    fn admit<B>(
        &mut self,
        request: &mut Parts,
        sessions: Result<Vec<AcquiredSession>, Rejection>,
    ) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let (mut held, info) = (mem::take(&mut self.held), self.connection_info(request));
        let config = &self.policy.config;
        let acquired = config.enforce(sessions, &mut self.report).and_then(|sessions| {
            held.extend(sessions.into_iter().flatten().map(Held::Session));
            config.acquire(request, self.is_outermost, held, info)
        });
        match acquired {
            Ok(acquired) => self.acquired = acquired,
            // A drain may have started meanwhile. `AcceptThenClose` ignores its rejection.
            Err(rejection) => return Next::Respond(self.reject_or_close(rejection, request)),
        }
        self.insert_report(request);
        self.offer_upgrade(request)
    }

    /// Tells verifiers and inner services what report-only mode did not reject.
    fn insert_report(&self, request: &mut Parts) {
        if let Some(rejection) = &self.report.0 {
            // Of several layers the outermost one counts.
            request.extensions.get_or_insert_with(|| Reported(Rejection::clone(rejection)));
        }
    }

    /// Step 9, before the inner service: makes the upgrade pending if the layer completes the
    /// handshake.
    fn offer_upgrade<B>(&mut self, request: &mut Parts) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let policy = Arc::clone(&self.policy);
        let config = &policy.config;
        if config.forwards() {
            return Next::Call;
        }
        let (Completion::Callback(callback), Some(body)) = (&config.completion, C::empty_body())
        else {
            let Some(pending) = self.pending(request) else {
                return Next::Respond(self.reject(Kind::NotUpgradable.into(), request));
            };
            request.extensions.insert(pending);
            return Next::Call;
        };
        let upgrade = self.acquired.upgrade.take();
        let upgrade = upgrade.or_else(|| self.pending(request)?.accept());
        let Some(upgrade) = upgrade else {
            return Next::Respond(self.reject(Kind::NotUpgradable.into(), request));
        };
        callback(upgrade, request);
        let mut response = Response::new(body);
        self.handshake_response(self.agreed_extensions).write_head(&mut response);
        Next::Respond(self.finish_early(response))
    }

    /// `None` if the connection cannot be upgraded.
    fn pending(&self, request: &Parts) -> Option<PendingUpgrade> {
        let config = &self.policy.config;
        let handover = self.acquired.handover.as_ref().filter(|_| self.acquired.has_upgrade)?;
        let is_origin_checked =
            config.satisfies_extractors() || GuardContext::is_origin_checked(&request.extensions);
        Some(PendingUpgrade::new(handover.clone(), config.upgrade_timeout, is_origin_checked))
    }

    /// What the connection gets if this layer completes the handshake.
    fn connection_info(&self, request: &Parts) -> ConnectionInfo {
        if self.policy.config.forwards() {
            return ConnectionInfo::default();
        }
        ConnectionInfo {
            subprotocol: self.subprotocol.value().cloned(),
            extensions: self.agreed_extensions,
            validity: self.validity(request),
            span: ConnectionSpan::new(&request.extensions),
        }
    }

    fn began(&self) -> std::time::Instant {
        self.began.unwrap_or_else(std::time::Instant::now)
    }

    /// The validity of the claims, which this layer or an outer one has verified.
    fn validity(&self, request: &Parts) -> Validity {
        if self.is_outermost && self.policy.config.token.is_none() {
            return Validity::default();
        }
        request.extensions.get().cloned().unwrap_or_default()
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
        let is_taken = match &self.acquired.handover {
            Some(handover) if handover.is_taken() => true,
            Some(_) if !self.policy.config.report_only => false,
            // Nothing is withheld, so the handler may have taken the upgrade from hyper.
            _ => is_taken_in(response) || !(has_content(response) || has_rejection(response)),
        };
        if is_completed && !is_taken && self.transport == Transport::ExtendedConnect {
            return self.decline(response);
        }
        if let Some(handover) = &self.acquired.handover {
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
        match mem::replace(&mut self.subprotocol, Selected::ByHandler) {
            Selected::ByHandler => {}
            Selected::ByLayer(selected) => set_header(headers, SEC_WEBSOCKET_PROTOCOL, selected),
            Selected::Fallback(marker) => {
                headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(marker);
            }
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
            return self.handshake_response(self.agreed_extensions).write_head(response);
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
        let Some(fault) = response.extensions_mut().remove::<Fault>() else { return };
        if matches!(fault.asked, Asked::Claims(_)) && token.is_none() && self.record.is_none() {
            // An outer layer may have the token check, and knows the type of its claims.
            response.extensions_mut().insert(fault);
            return;
        }
        let rejection = fault.asked.rejection(token.map(TokenCheck::claims));
        *response = self.policy.reject(rejection, &fault.request);
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
        let offered = self.offered_extensions.as_ref();
        extension::check_response(offered, self.agreed_extensions, response)
    }

    fn handshake_response(&self, extensions: AgreedExtensions) -> HandshakeResponse {
        let subprotocol = self.subprotocol.value().cloned();
        HandshakeResponse { key: self.key, subprotocol, extensions }
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
    fn finish_early<B>(&mut self, mut response: Response<B>) -> Response<B> {
        self.hand_over(&mut response);
        self.record(Some(&mut response));
        response
    }

    fn reject<B>(&mut self, rejection: Rejection, request: &Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        let response = self.policy.reject(rejection, request);
        self.finish_early(response)
    }

    /// Rejects a handshake that failed at the token check or the limit, so that a browser's script
    /// may see the reason.
    fn reject_or_close<B>(&mut self, rejection: Rejection, request: &Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        // A page whose origin is only reported must learn nothing.
        let is_reported = self.report.0.is_some() || request.extensions.get::<Reported>().is_some();
        let closed = match &self.policy.config.accept_then_close {
            Some(accept_then_close) if !is_reported => accept_then_close.response(
                &rejection,
                request,
                // The close frame is not compressed.
                &self.handshake_response(AgreedExtensions::default()),
                &*self.policy.reject_with,
            ),
            _ => None,
        };
        match closed {
            Some(response) => self.finish_early(response),
            None => self.reject(rejection, request),
        }
    }
}

/// Acquires the sessions one after the other.
fn acquire_sessions(
    sessions: Vec<Arc<dyn AcquireSession>>,
    request: Parts,
    began: std::time::Instant,
    timeout: Duration,
) -> WaitFuture {
    Box::pin(async move {
        let all = async {
            let mut acquired = Vec::with_capacity(sessions.len());
            for sessions in &sessions {
                acquired.push(sessions.acquire(&request, began).await?);
            }
            Ok(acquired)
        };
        let result = within(timeout, all).await;
        let result = result.unwrap_or_else(|| {
            Err(Rejection::new(Kind::VerifierTimeout)
                .with_source("the store of the sessions took too long"))
        });
        (request, result)
    })
}

/// Runs the authorizations one after the other.
fn authorize(authorizations: Vec<Authorization>, request: Parts, timeout: Duration) -> WaitFuture {
    Box::pin(async move {
        let all = async {
            for authorization in &authorizations {
                authorization.authorize(&request).await?;
            }
            Ok(Vec::new())
        };
        let result = within(timeout, all).await;
        let result = result.unwrap_or_else(|| {
            Err(Rejection::new(Kind::VerifierTimeout)
                .with_source("the authorization took too long"))
        });
        (request, result)
    })
}

impl<R> Policy<R> {
    /// Rejects an ordinary request. It counts as a handshake in logs and metrics.
    pub(super) fn reject_ordinary<B>(&self, rejection: Rejection, request: &Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        if !Outer::new(&request.extensions).has_guard {
            CheckTimer::start().rejected(request, &rejection);
        }
        self.reject(rejection, request)
    }

    /// Makes the response to a rejected request.
    pub(super) fn reject<B>(&self, rejection: Rejection, request: &Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        // An ordinary request has nothing behind it that could be mistaken for a second one.
        let close = !self.config.keep_connection && rejection.kind() != Kind::NotWebsocket;
        // Only a 401 needs them.
        let challenges = match (&self.config.token, rejection.kind().status()) {
            (Some(token), StatusCode::UNAUTHORIZED) => Some(token.challenges()),
            _ => None,
        };
        reject(rejection, request, &*self.reject_with, close, challenges.as_ref())
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
