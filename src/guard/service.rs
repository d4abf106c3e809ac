use std::{
    fmt,
    marker::PhantomData,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    admission::{Admission, Next},
    completes::{Completes, Forward},
    future::ResponseFuture,
    policy::{Detected, Policy},
};
use crate::{
    context::Outer,
    rejection::{EmptyBody, RejectionKind, RejectionResponse},
};

/// Rejects handshakes that its policy does not accept. Ordinary requests pass untouched, except
/// through a [`RequestCheckLayer`](crate::RequestCheckLayer).
///
/// [`GuardLayer`](crate::GuardLayer) makes it, and so do the separate layers, with fewer steps. See
/// the [module docs](crate::guard) for an example.
///
/// `S` must be `Clone`. It is cloned only for a verifier or an authorization that waits.
pub struct Guard<S, R = EmptyBody, C = Forward> {
    inner: S,
    policy: Arc<Policy<R>>,
    completes: PhantomData<fn() -> C>,
}

impl<S, R, C> Guard<S, R, C> {
    pub(crate) const fn new(inner: S, policy: Arc<Policy<R>>) -> Self {
        Self { inner, policy, completes: PhantomData }
    }

    /// Gets a reference to the inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gets a mutable reference to the inner service.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, C, ReqBody, ResBody> Service<Request<ReqBody>> for Guard<S, R, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    R: RejectionResponse<ResBody>,
    C: Completes<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody, R, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match self.policy.config.detect(&request) {
            Detected::Ordinary => ResponseFuture::ordinary(self.inner.call(request)),
            Detected::UpgradeRequest => self.admit(request),
            Detected::EveryRequest => self.check_ordinary(request),
            Detected::NotWebsocket => {
                let (mut request, _) = request.into_parts();
                let rejection = RejectionKind::NotWebsocket.into();
                ResponseFuture::ready(self.policy.reject_ordinary(rejection, &mut request))
            }
        }
    }
}

// Not inlined, so that ordinary requests carry nothing of it.
impl<S, R, C> Guard<S, R, C> {
    #[inline(never)]
    fn check_ordinary<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, ReqBody, R, C>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        R: RejectionResponse<ResBody>,
    {
        let (mut request, body) = request.into_parts();
        match self.policy.config.check_head(&request) {
            Ok(()) => ResponseFuture::ordinary(self.inner.call(Request::from_parts(request, body))),
            Err(rejection) => {
                ResponseFuture::ready(self.policy.reject_ordinary(rejection, &mut request))
            }
        }
    }

    #[inline(never)]
    fn admit<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, ReqBody, R, C>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        R: RejectionResponse<ResBody>,
        C: Completes<ResBody>,
    {
        let (mut request, body) = request.into_parts();
        let outer = Outer::new(&request.extensions);
        let mut admission = Admission::new(&self.policy, &request, outer);
        match admission.begin(&mut request, outer) {
            Next::Call => {
                let future = self.inner.call(Request::from_parts(request, body));
                ResponseFuture::handling(future, admission.into_handling())
            }
            Next::Respond(response) => ResponseFuture::ready(response),
            Next::Wait(waiting) => {
                let waiting = admission.wait(waiting, request);
                // The clone may not be ready, but the original is:
                // https://docs.rs/tower-service/0.3/tower_service/trait.Service.html
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                ResponseFuture::waiting(waiting, service, body, admission)
            }
        }
    }
}

impl<S: Clone, R, C> Clone for Guard<S, R, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.policy))
    }
}

impl<S: fmt::Debug, R, C> fmt::Debug for Guard<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("inner", &self.inner)
            .field("config", &self.policy.config)
            .finish_non_exhaustive()
    }
}
