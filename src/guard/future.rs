use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    admission::{Admission, Next},
    completes::Completes,
    handling::Handling,
    wait::WaitFuture,
};
use crate::rejection::RejectionResponse;

pin_project! {
    /// Response future of [`Guard`](super::Guard).
    pub struct ResponseFuture<S, B, R, C>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R, C>
    where
        S: Service<Request<B>>,
    {
        /// Not an upgrade request: nothing of the layer stays.
        Ordinary { #[pin] future: S::Future },
        /// A verifier or an authorization that waits.
        Waiting { waiting: Option<Box<Waiting<S, B, R, C>>> },
        /// The inner service responds.
        Handling { #[pin] future: S::Future, handling: Option<Handling<R, C>> },
        /// The layer responds.
        Ready { response: Option<S::Response> },
    }
}

/// Boxed, so that other requests do not carry its size.
struct Waiting<S, B, R, C> {
    future: WaitFuture,
    service: S,
    body: B,
    admission: Admission<R, C>,
}

impl<S, B, R, C> ResponseFuture<S, B, R, C>
where
    S: Service<Request<B>>,
{
    pub(super) fn ordinary(future: S::Future) -> Self {
        Self { state: State::Ordinary { future } }
    }

    pub(super) fn handling(future: S::Future, handling: Handling<R, C>) -> Self {
        Self { state: State::Handling { future, handling: Some(handling) } }
    }

    pub(super) fn ready(response: S::Response) -> Self {
        Self { state: State::Ready { response: Some(response) } }
    }

    pub(super) fn waiting(
        future: WaitFuture,
        service: S,
        body: B,
        admission: Admission<R, C>,
    ) -> Self {
        let waiting = Waiting { future, service, body, admission };
        Self { state: State::Waiting { waiting: Some(Box::new(waiting)) } }
    }
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

impl<S, B, R, C, ResBody> Future for ResponseFuture<S, B, R, C>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
    C: Completes<ResBody>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        match state.as_mut().project() {
            StateProj::Ordinary { future } => future.poll(cx),
            _ => state.poll_handshake(cx),
        }
    }
}

impl<S, B, R, C, ResBody> State<S, B, R, C>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
    C: Completes<ResBody>,
{
    /// Not inlined, so that ordinary requests carry nothing of it.
    #[inline(never)]
    fn poll_handshake(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut state = self.as_mut();
        loop {
            match state.as_mut().project() {
                StateProj::Ordinary { future } => return future.poll(cx),
                StateProj::Waiting { waiting: slot } => {
                    let waiting = slot.as_mut().expect(COMPLETED);
                    let (mut request, result) = ready!(waiting.future.as_mut().poll(cx));
                    let next = match waiting.admission.resume(&mut request, result) {
                        Next::Wait(next) => {
                            waiting.future = waiting.admission.wait(next, request);
                            continue;
                        }
                        Next::Respond(response) => Self::Ready { response: Some(response) },
                        Next::Call => {
                            let waiting = slot.take().expect(COMPLETED);
                            let Waiting { mut service, body, admission, .. } = *waiting;
                            let future = service.call(Request::from_parts(request, body));
                            Self::Handling { future, handling: Some(admission.into_handling()) }
                        }
                    };
                    state.set(next);
                }
                StateProj::Handling { future, handling } => {
                    let result = ready!(future.poll(cx));
                    let handling = handling.take().expect(COMPLETED);
                    // Whatever the inner service keeps in its future must not count as held.
                    state.set(Self::Ready { response: None });
                    return Poll::Ready(handling.finish(result));
                }
                StateProj::Ready { response } => {
                    return Poll::Ready(Ok(response.take().expect(COMPLETED)));
                }
            }
        }
    }
}

impl<S, B, R, C> fmt::Debug for ResponseFuture<S, B, R, C>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
