use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{
    HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};
use pin_project_lite::pin_project;

use super::{PendingUpgrade, upgrade::Agreed};
use crate::{
    guard::close_declined,
    handshake::{Handshake, Transport, accept_key},
    observe::{Admitted, Scope},
    rejection::{RejectionKind, refuse_late},
};

/// The answer that completes a handshake.
#[derive(Debug)]
#[expect(unnameable_types, reason = "in the sealed trait `Mode`")]
pub struct Answer {
    /// `None` over HTTP/2.
    key: Option<[u8; 24]>,
    agreed: Agreed,
    /// Whether a connection that is not upgraded is closed.
    close: bool,
}

impl Answer {
    pub(super) fn new(handshake: &Handshake<'_>, agreed: Agreed, close: bool) -> Self {
        Self { key: handshake.key(), agreed, close }
    }

    pub(super) fn in_scope(mut self, scope: Scope) -> Self {
        self.agreed.scope = scope;
        self
    }

    pub(super) fn agreed(&self) -> Agreed {
        self.agreed.clone()
    }

    fn transport(&self) -> Transport {
        match self.key {
            Some(_) => Transport::Http1,
            None => Transport::ExtendedConnect,
        }
    }

    /// The same, for a request that has been brought into its canonical form. `None` if it has no key.
    pub(crate) fn to(request: &Parts, subprotocol: Option<HeaderValue>) -> Option<Self> {
        let key = match Transport::of(request.version) {
            Transport::Http1 => Some(request.headers.get(SEC_WEBSOCKET_KEY)?.as_bytes().try_into().ok()?),
            Transport::ExtendedConnect => None,
        };
        Some(Self { key, agreed: Agreed { subprotocol, ..Agreed::default() }, close: true })
    }

    /// RFC 6455 4.2.2 item 5, over HTTP/2 RFC 8441 5. What else is in the head stays, but not what describes the body.
    pub(crate) fn write_head<B>(&self, response: &mut Response<B>) {
        const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
        const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("Upgrade");

        let http1 = self.transport() == Transport::Http1;
        *response.status_mut() = if http1 { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        let headers = response.headers_mut();
        if !headers.is_empty() {
            for name in [
                UPGRADE,
                CONNECTION,
                SEC_WEBSOCKET_ACCEPT,
                SEC_WEBSOCKET_PROTOCOL,
                SEC_WEBSOCKET_VERSION,
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                CONTENT_TYPE,
                TRANSFER_ENCODING,
            ] {
                headers.remove(name);
            }
        }
        if let Some(key) = &self.key {
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(CONNECTION, UPGRADE_TOKEN);
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept_value(key));
        }
        if let Some(subprotocol) = &self.agreed.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol.clone());
        }
    }

    pub(super) fn complete<B: Default>(&self, response: &mut Response<B>) {
        *response.body_mut() = B::default();
        self.write_head(response);
    }
}

fn accept_value(key: &[u8; 24]) -> HeaderValue {
    HeaderValue::from_bytes(&accept_key(key)).expect("base64 is a valid header value")
}

pin_project! {
    /// Response future of [`Responder`](super::Responder).
    pub struct ResponseFuture<F: Future> {
        #[pin]
        state: State<F>,
        // `None` for what is no valid handshake.
        admitted: Option<Admitted>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F: Future> {
        Inner { #[pin] future: F },
        Deciding { #[pin] future: F, decision: Option<Undecided> },
        Ready { response: Option<F::Output> },
    }
}

impl<F, B, E> ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    pub(super) fn inner(future: F) -> Self {
        Self { state: State::Inner { future }, admitted: None }
    }

    pub(super) fn deciding(future: F, decision: Undecided) -> Self {
        Self { state: State::Deciding { future, decision: Some(decision) }, admitted: None }
    }

    pub(super) fn ready(response: Response<B>) -> Self {
        Self { state: State::Ready { response: Some(Ok(response)) }, admitted: None }
    }

    pub(super) fn watched(self, admitted: Admitted) -> Self {
        Self { admitted: Some(admitted), ..self }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = match this.state.project() {
            // What is no handshake.
            StateProj::Inner { future } => return future.poll(cx),
            StateProj::Deciding { future, decision } => {
                let mut result = ready!(future.poll(cx));
                if let (Some(undecided), Ok(response)) = (decision.take(), &mut result) {
                    undecided.decide(response);
                }
                result
            }
            StateProj::Ready { response } => response.take().expect("`ResponseFuture` polled after completion"),
        };
        if let Some(admitted) = this.admitted.take() {
            admitted.answered(&mut result);
        }
        Poll::Ready(result)
    }
}

/// A handshake that the inner service may still accept. Dropped, it is declined.
pub(super) struct Undecided {
    pending: PendingUpgrade,
    answer: Answer,
}

impl Undecided {
    pub(super) const fn new(pending: PendingUpgrade, answer: Answer) -> Self {
        Self { pending, answer }
    }

    fn decide<B: Default>(self, response: &mut Response<B>) {
        let Self { pending, answer } = &self;
        let status = response.status();
        let accepted = pending.close();
        let transport = answer.transport();
        if accepted && !status.is_client_error() && !status.is_server_error() {
            pending.answer(true);
            answer.complete(response);
        } else if transport.is_completed_by(status) {
            // The inner service claims a handshake that it has not accepted: there will be no connection.
            *response.body_mut() = B::default();
            refuse_late(RejectionKind::NotUpgradable, response, transport, answer.close);
        } else {
            close_declined(response.headers_mut(), transport, answer.close);
        }
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.pending.close();
        self.pending.answer(false);
    }
}

impl<F: Future> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
