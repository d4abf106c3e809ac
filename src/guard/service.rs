use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{Check, Policy, ResponseFuture};
use crate::{
    handshake::is_attempt,
    observe::Watch,
    rejection::{EmptyBody, Rejection, RejectionKind, RespondRejection},
    token::{NoToken, Verify},
};

/// Lets in the handshakes that satisfy its policy, and everything that is no handshake.
///
/// See the [module docs](crate::guard) for an example. The separate layers' services are this one with fewer checks.
///
/// It is made by a layer: [`GuardLayer`](crate::GuardLayer), [`VersionCheckLayer`](crate::VersionCheckLayer),
/// [`OriginCheckLayer`](crate::OriginCheckLayer) or [`TokenCheckLayer`](crate::TokenCheckLayer). Only with a token check does
/// `S` have to be `Clone`, and only for handshakes is it cloned.
pub struct Guard<S, C = (), V = NoToken, R = EmptyBody> {
    inner: S,
    policy: Arc<Policy<C, V, R>>,
}

impl<S, C, V, R> Guard<S, C, V, R> {
    pub(crate) const fn with_policy(inner: S, policy: Arc<Policy<C, V, R>>) -> Self {
        Self { inner, policy }
    }

    inner_accessors!();
}

impl<S, C, V, R, ReqBody, ResBody> Service<Request<ReqBody>> for Guard<S, C, V, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    C: Check,
    V: Verify<S, ReqBody, C, R>,
    R: RespondRejection<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, V::Verification>;

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
        let (token, finish) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                watch.refused(&parts, &refused.rejection);
                return ResponseFuture::refused(policy.rules.refuse(refused, &parts, &policy.responder));
            }
        };
        let admitted = watch.admitted(&mut parts);
        let request = Request::from_parts(parts, body);
        match token {
            Some(token) => {
                let verification = V::verify(policy, &mut self.inner, token, request);
                ResponseFuture::verifying(verification, finish, admitted)
            }
            None => ResponseFuture::admitted(self.inner.call(request), finish, admitted),
        }
    }
}

impl<S: Clone, C, V, R> Clone for Guard<S, C, V, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<S: fmt::Debug, C, V: fmt::Debug, R> fmt::Debug for Guard<S, C, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("inner", &self.inner)
            .field("rules", &self.policy.rules)
            .field("token", &self.policy.token)
            .finish_non_exhaustive()
    }
}
