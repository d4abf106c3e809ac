use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::policy::Finish;
use crate::{observe::Admitted, token::Going};

pin_project! {
    /// Response future of [`Guard`](super::Guard).
    pub struct ResponseFuture<F: Future, V> {
        #[pin]
        state: State<F, V>,
        finish: Option<Finish>,
        // `None` for what is no valid handshake.
        admitted: Option<Admitted>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F: Future, V> {
        Inner { #[pin] future: F },
        Verifying { #[pin] verification: V },
        Refused { response: Option<F::Output> },
        Done,
    }
}

impl<F, V, B, E> ResponseFuture<F, V>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    pub(super) fn inner(future: F) -> Self {
        Self { state: State::Inner { future }, finish: None, admitted: None }
    }

    pub(super) fn admitted(future: F, finish: Finish, admitted: Admitted) -> Self {
        Self { state: State::Inner { future }, finish: Some(finish), admitted: Some(admitted) }
    }

    pub(super) fn verifying(verification: V, finish: Finish, admitted: Admitted) -> Self {
        Self { state: State::Verifying { verification }, finish: Some(finish), admitted: Some(admitted) }
    }

    pub(super) fn refused(response: Response<B>) -> Self {
        Self { state: State::Refused { response: Some(Ok(response)) }, finish: None, admitted: None }
    }
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

impl<F, V, B, E> Future for ResponseFuture<F, V>
where
    F: Future<Output = Result<Response<B>, E>>,
    V: Future<Output = Result<Going<F>, Response<B>>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // What is no handshake is not held up.
        if let (StateProj::Inner { future }, None) = (this.state.as_mut().project(), &this.finish) {
            return future.poll(cx);
        }
        let mut result = loop {
            match this.state.as_mut().project() {
                StateProj::Inner { future } => {
                    let mut result = ready!(future.poll(cx));
                    // What the inner service keeps in its future, it does not hold for the connection.
                    this.state.set(State::Done);
                    if let (Some(finish), Ok(response)) = (this.finish.take(), &mut result) {
                        finish.apply(response);
                    }
                    break result;
                }
                StateProj::Verifying { verification } => {
                    let verified = ready!(verification.poll(cx));
                    let (going, reported) = match verified {
                        Ok(Going { future, issued, reported }) => (Ok((future, issued)), reported),
                        Err(refusal) => (Err(refusal), None),
                    };
                    if let Some(admitted) = this.admitted {
                        admitted.verified(reported);
                    }
                    match going {
                        Ok((future, issued)) => {
                            if let Some(finish) = this.finish {
                                finish.issued = issued;
                            }
                            this.state.set(State::Inner { future });
                        }
                        Err(refusal) => break Ok(refusal),
                    }
                }
                StateProj::Refused { response } => {
                    break response.take().expect(COMPLETED);
                }
                StateProj::Done => panic!("{COMPLETED}"),
            }
        };
        if let Some(admitted) = this.admitted.take() {
            admitted.answered(&mut result);
        }
        Poll::Ready(result)
    }
}

impl<F: Future, V> fmt::Debug for ResponseFuture<F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
