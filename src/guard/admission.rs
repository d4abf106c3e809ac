//! A handshake on its way to the inner service: the steps in their order, and the waits between them.

use std::{mem, sync::Arc, time::Duration};

use http::{Response, request::Parts};
use tokio::time::Instant;

use super::{
    authorize::Authorization,
    completes::Completes,
    handling::Handling,
    policy::{Completion, Policy},
    wait::{WaitFuture, within},
};
use crate::{
    connection::{AcquireSession, AcquiredSession, Held, Permit, Validity},
    context::{GuardContext, Outer},
    extension::AgreedExtensions,
    rejection::{Rejection, RejectionKind as Kind, RejectionResponse, Reported, reject_dropped},
    telemetry::{CheckTimer, ConnectionSpan},
    token::FoundToken,
    upgrade::{ConnectionInfo, PendingUpgrade, Upgrade},
};

/// One handshake until the inner service is called.
pub(super) struct Admission<R, C> {
    /// What outlives the checks. It is collected from the start.
    handling: Handling<R, C>,
    /// The slots, which come before the sessions: those may have to wait.
    held: Option<Permit>,
    /// When the checks began, if there are sessions.
    began: Option<std::time::Instant>,
    /// The end of the time for all waits, set at the first one.
    deadline: Option<Instant>,
    waited: Waited,
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
            handling: Handling::new(policy, request, outer),
            held: None,
            began: None,
            deadline: None,
            waited: Waited::Verification,
        }
    }

    /// After [`Next::Call`]: what is left to do when the inner service has responded.
    pub(super) fn into_handling(self) -> Handling<R, C> {
        self.handling
    }

    /// Runs the steps until one has to wait.
    pub(super) fn begin<B>(&mut self, request: &mut Parts, outer: Outer) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let timer = (!outer.has_guard).then(CheckTimer::start);
        let Handling { policy, negotiated, report, record, .. } = &mut self.handling;
        let config = &policy.config;
        self.began = (!config.sessions.is_empty()).then(std::time::Instant::now);
        let token = match config.examine(request, negotiated, report) {
            Ok(token) => token.map(|token| config.enforce(token, report)),
            Err(rejection) => {
                if let Some(timer) = timer {
                    timer.rejected(request, &rejection);
                }
                return Next::Respond(policy.reject(rejection, request));
            }
        };
        *record = timer.map(|timer| timer.accepted(request));
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
        let config = &self.handling.policy.config;
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
        if let Some(record) = &mut self.handling.record {
            record.verified();
        }
        let Handling { policy, report, .. } = &mut self.handling;
        match policy.config.enforce(result, report) {
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
        if self.handling.policy.config.authorizations.is_empty() {
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
        let Handling { policy, report, .. } = &mut self.handling;
        let config = &policy.config;
        if !config.has_permits() {
            return self.withhold(request, None);
        }
        match config.acquire_slots(report) {
            Ok(slots) => self.held = slots,
            Err(rejection) => return Next::Respond(self.reject_or_close(rejection, request)),
        }
        if config.sessions.is_empty() {
            return self.admit(request, Ok(Vec::new()));
        }
        if config.sessions.iter().any(|sessions| sessions.has_to_wait()) {
            return Next::Wait(Waiting::Sessions);
        }
        let began = self.began();
        let config = &self.handling.policy.config;
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
        let Handling { policy, report, .. } = &mut self.handling;
        let config = &policy.config;
        let mut held = self.held.take();
        let permit = config.enforce(sessions, report).and_then(|sessions| {
            for session in sessions.unwrap_or_default() {
                held = Some(Permit::new(Held::Session(session), held.take()));
            }
            config.acquire(held)
        });
        match permit {
            Ok(permit) => self.withhold(request, Some(permit)),
            // A drain may have started meanwhile. `AcceptThenClose` ignores its rejection.
            Err(rejection) => Next::Respond(self.reject_or_close(rejection, request)),
        }
    }

    /// Withholds the connection until the inner service takes it.
    fn withhold<B>(&mut self, request: &mut Parts, permit: Option<Permit>) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let info = self.connection_info(request);
        let Handling { policy, is_outermost, acquired, .. } = &mut self.handling;
        let withheld = policy.config.withhold(&mut request.extensions, *is_outermost, permit, info);
        let upgrade = match withheld {
            Ok((withheld, upgrade)) => {
                *acquired = withheld;
                upgrade
            }
            Err(rejection) => return Next::Respond(self.reject_or_close(rejection, request)),
        };
        self.insert_report(request);
        self.offer_upgrade(request, upgrade)
    }

    /// Tells verifiers and inner services what report-only mode did not reject.
    fn insert_report(&self, request: &mut Parts) {
        if let Some(rejection) = &self.handling.report.0 {
            // Of several layers the outermost one counts.
            request.extensions.get_or_insert_with(|| Reported(Rejection::clone(rejection)));
        }
    }

    /// Step 9, before the inner service: makes the upgrade pending if the layer completes the
    /// handshake.
    fn offer_upgrade<B>(&mut self, request: &mut Parts, upgrade: Option<Upgrade>) -> Next<B>
    where
        R: RejectionResponse<B>,
        C: Completes<B>,
    {
        let policy = Arc::clone(&self.handling.policy);
        let config = &policy.config;
        if config.forwards() {
            return Next::Call;
        }
        let (Completion::Callback(callback), Some(body)) = (&config.completion, C::empty_body())
        else {
            let Some(pending) = self.pending(request) else {
                return Next::Respond(self.handling.reject(Kind::NotUpgradable.into(), request));
            };
            request.extensions.insert(pending);
            return Next::Call;
        };
        let upgrade = upgrade.or_else(|| self.pending(request)?.accept());
        let Some(upgrade) = upgrade else {
            return Next::Respond(self.handling.reject(Kind::NotUpgradable.into(), request));
        };
        callback(upgrade, request);
        let mut response = Response::new(body);
        // To reuse the map of the request, which is dropped, saves two allocations.
        mem::swap(response.headers_mut(), &mut request.headers);
        response.headers_mut().clear();
        self.handling.handshake_response(self.handling.negotiated.agreed).write_head(&mut response);
        Next::Respond(self.handling.finish_early(response))
    }

    /// `None` if the connection cannot be upgraded.
    fn pending(&self, request: &Parts) -> Option<PendingUpgrade> {
        let Handling { policy, acquired, .. } = &self.handling;
        let config = &policy.config;
        let handover = acquired.handover.as_ref().filter(|_| acquired.has_upgrade)?;
        let is_origin_checked =
            config.satisfies_extractors() || GuardContext::is_origin_checked(&request.extensions);
        Some(PendingUpgrade::new(handover.clone(), config.upgrade_timeout, is_origin_checked))
    }

    /// What the connection gets if this layer completes the handshake.
    fn connection_info(&self, request: &Parts) -> ConnectionInfo {
        let Handling { policy, negotiated, .. } = &self.handling;
        if policy.config.forwards() {
            return ConnectionInfo::default();
        }
        ConnectionInfo {
            subprotocol: negotiated.subprotocol.value().cloned(),
            extensions: negotiated.agreed,
            validity: self.validity(request),
            span: ConnectionSpan::new(&request.extensions),
        }
    }

    fn began(&self) -> std::time::Instant {
        self.began.unwrap_or_else(std::time::Instant::now)
    }

    /// The validity of the claims, which this layer or an outer one has verified.
    fn validity(&self, request: &Parts) -> Validity {
        if self.handling.is_outermost && self.handling.policy.config.token.is_none() {
            return Validity::default();
        }
        request.extensions.get().cloned().unwrap_or_default()
    }

    /// Rejects a handshake that failed at the token check or the limit, so that a browser's script
    /// may see the reason.
    fn reject_or_close<B>(&mut self, rejection: Rejection, request: &mut Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        // A page whose origin is only reported must learn nothing.
        let is_reported =
            self.handling.report.0.is_some() || request.extensions.get::<Reported>().is_some();
        let closed = match &self.handling.policy.config.accept_then_close {
            Some(accept_then_close) if !is_reported => accept_then_close.response(
                &rejection,
                request,
                // The close frame is not compressed.
                &self.handling.handshake_response(AgreedExtensions::default()),
                &*self.handling.policy.reject_with,
            ),
            _ => None,
        };
        match closed {
            Some(response) => self.handling.finish_early(response),
            None => self.handling.reject(rejection, request),
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
    pub(super) fn reject_ordinary<B>(
        &self,
        rejection: Rejection,
        request: &mut Parts,
    ) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        if !Outer::new(&request.extensions).has_guard {
            CheckTimer::start().rejected(request, &rejection);
        }
        self.reject(rejection, request)
    }

    /// Makes the response to a rejected request, which is dropped then.
    pub(super) fn reject<B>(&self, rejection: Rejection, request: &mut Parts) -> Response<B>
    where
        R: RejectionResponse<B>,
    {
        // An ordinary request has nothing behind it that could be mistaken for a second one.
        let close = !self.config.keep_connection && rejection.kind() != Kind::NotWebsocket;
        let token = self.config.token.as_ref().filter(|_| rejection.kind().has_challenge());
        let challenges = token.map(|token| token.challenges());
        reject_dropped(rejection, request, &*self.reject_with, close, challenges.as_ref())
    }
}
