use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use hyper::upgrade::OnUpgrade;
use tower_service::Service;

use super::{
    PendingUpgrade, ResponseFuture, Upgraded,
    future::{Answer, Undecided},
    upgrade::{Agreed, Upgrade, Waiting},
};
use crate::{
    connection::{Issued, Permit, UPGRADE_TIMEOUT},
    guard::{Refused, Rules},
    handshake::{Handshake, is_attempt},
    observe::{self, Scope, Watch},
    rejection::{EmptyBody, Rejection, RejectionKind, RespondRejection},
    subprotocol::{Chosen, Subprotocols},
    token::Validity,
};

/// Answers handshakes with 101 (over HTTP/2: 200), and hands over the upgraded connection.
///
/// See the [module docs](crate::responder) for an example. It is made by a [`ResponderLayer`](super::ResponderLayer).
pub struct Responder<S, M = InnerDecides, R = EmptyBody> {
    inner: S,
    policy: Arc<Policy<M, R>>,
}

/// The inner service decides, through a [`PendingUpgrade`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct InnerDecides;

/// Every valid handshake is accepted, and the connection given to a callback.
pub struct OnUpgraded<F>(pub(super) Arc<F>);

/// How a responder answers, and how it refuses.
#[derive(Clone, Debug)]
pub(super) struct Policy<M, R> {
    pub(super) rules: Rules,
    pub(super) upgrade_timeout: Duration,
    pub(super) mode: M,
    pub(super) responder: R,
}

impl<M> Policy<M, EmptyBody> {
    pub(super) fn new(mode: M) -> Self {
        let rules = Rules { subprotocols: Some(Subprotocols::default()), ..Rules::default() };
        Self { rules, upgrade_timeout: UPGRADE_TIMEOUT, mode, responder: EmptyBody }
    }
}

impl<M, R> Policy<M, R> {
    pub(super) fn respond_with<T>(self, responder: T) -> Policy<M, T> {
        let Self { rules, upgrade_timeout, mode, .. } = self;
        Policy { rules, upgrade_timeout, mode, responder }
    }

    /// Whatever was checked outside, nothing is answered 101 that is no valid handshake.
    fn admit(&self, request: &mut Parts) -> Result<(Waiting, Answer), Refused> {
        self.rules.check_drain()?;
        let handshake = Handshake::parse(request)?;
        let offered = || handshake.subprotocols();
        let mut reported = None;
        let subprotocol = self.rules.choose_subprotocol(&handshake, offered, std::iter::empty());
        let subprotocol = self.rules.judge(subprotocol, &mut reported)?.flatten();
        let chosen = subprotocol.clone().map(Chosen);
        let validity = handshake.extensions().get::<Validity>().cloned().unwrap_or_default();
        let agreed = Agreed { subprotocol, validity, scope: Scope::default() };
        let answer = Answer::new(&handshake, agreed, !self.rules.keep_connection);
        let entered = self.rules.enter(request, &mut reported);
        if let Some(rejection) = reported {
            observe::report(request, rejection);
        }
        match entered {
            // The responder itself says what becomes of the connection.
            Ok(issued) => drop(issued.map(Issued::complete)),
            Err(refused) => {
                // What closes the socket names it.
                chosen.map(|chosen| request.extensions.insert(chosen));
                return Err(refused);
            }
        }
        let permit = Permit::claim(&mut request.extensions);
        match request.extensions.remove::<OnUpgrade>() {
            Some(on_upgrade) => Ok((Waiting { on_upgrade, permit, timeout: self.upgrade_timeout }, answer)),
            None => Err(Rejection::from(RejectionKind::NotUpgradable).into()),
        }
    }
}

impl<S, M, R> Responder<S, M, R> {
    pub(super) const fn with_policy(inner: S, policy: Arc<Policy<M, R>>) -> Self {
        Self { inner, policy }
    }

    inner_accessors!();
}

impl<S, M, R, ReqBody, ResBody> Service<Request<ReqBody>> for Responder<S, M, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    M: Mode<S, ReqBody>,
    R: RespondRejection<ResBody>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let policy = &self.policy;
        let is_attempt = is_attempt(&request);
        if !is_attempt && !policy.rules.requires_websocket() {
            return ResponseFuture::inner(self.inner.call(request));
        }

        let watch = Watch::start();
        let (mut parts, body) = request.into_parts();
        let admitted = match is_attempt {
            true => policy.admit(&mut parts),
            false => Err(Rejection::from(RejectionKind::NotWebsocket).into()),
        };
        match admitted {
            Ok((waiting, answer)) => {
                let admitted = watch.admitted(&mut parts);
                let answer = answer.in_scope(Scope::of(&parts.extensions));
                let request = Request::from_parts(parts, body);
                policy.mode.proceed(&mut self.inner, request, waiting, answer).watched(admitted)
            }
            Err(refused) => {
                watch.refused(&parts, &refused.rejection);
                ResponseFuture::ready(policy.rules.refuse(refused, &parts, &policy.responder))
            }
        }
    }
}

/// Who takes the connection.
#[expect(unnameable_types, reason = "sealed: `ResponderLayer` has a constructor for each")]
pub trait Mode<S: Service<Request<B>>, B>: Sized {
    /// Goes on with a valid handshake.
    fn proceed(
        &self,
        inner: &mut S,
        request: Request<B>,
        waiting: Waiting,
        answer: Answer,
    ) -> ResponseFuture<S::Future>;
}

impl<S, ReqBody, ResBody> Mode<S, ReqBody> for InnerDecides
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    fn proceed(
        &self,
        inner: &mut S,
        mut request: Request<ReqBody>,
        waiting: Waiting,
        answer: Answer,
    ) -> ResponseFuture<S::Future> {
        let pending = PendingUpgrade::new(waiting, answer.agreed());
        request.extensions_mut().insert(pending.clone());
        ResponseFuture::deciding(inner.call(request), Undecided::new(pending, answer))
    }
}

impl<S, F, Fut, ReqBody, ResBody> Mode<S, ReqBody> for OnUpgraded<F>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    F: Fn(Upgraded, Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
    ResBody: Default,
{
    fn proceed(
        &self,
        _: &mut S,
        request: Request<ReqBody>,
        waiting: Waiting,
        answer: Answer,
    ) -> ResponseFuture<S::Future> {
        let upgrade = Upgrade::new(waiting, answer.agreed());
        let (parts, _) = request.into_parts();
        let callback = Arc::clone(&self.0);
        upgrade.spawn(move |upgraded| callback(upgraded, parts));
        let mut response = Response::new(ResBody::default());
        answer.complete(&mut response);
        ResponseFuture::ready(response)
    }
}

impl<S: Clone, M, R> Clone for Responder<S, M, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<S: fmt::Debug, M, R> fmt::Debug for Responder<S, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("inner", &self.inner)
            .field("rules", &self.policy.rules)
            .finish_non_exhaustive()
    }
}

impl<F> Clone for OnUpgraded<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> fmt::Debug for OnUpgraded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnUpgraded").finish_non_exhaustive()
    }
}
