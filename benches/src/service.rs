//! Calls services, all in the same way, and makes services of peers.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};

use crate::{Operation, input, operation};

/// Calls a service that responds at once and needs no runtime.
pub(crate) fn call<S, B, A>(service: S, head: impl Into<String>, status: u16) -> Box<dyn Operation>
where
    S: Service<Request<B>, Response = Response<A>> + 'static,
    S::Error: Debug,
    B: Default + 'static,
{
    let head = Bytes::from(head.into());
    call_each(service, move || input::request(&head), status)
}

/// The same with requests that are made in another way.
pub(crate) fn call_each<S, B, A>(
    mut service: S,
    request: impl FnMut() -> Request<B> + 'static,
    status: u16,
) -> Box<dyn Operation>
where
    S: Service<Request<B>, Response = Response<A>> + 'static,
    S::Error: Debug,
    B: 'static,
{
    operation(request, move |request| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let Poll::Ready(response) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("no answer")
        };
        let response = response.expect("an answer");
        assert_eq!(response.status().as_u16(), status);
        response
    })
}

/// The same for the bodies of axum.
pub(crate) fn call_axum<S>(service: S, head: impl Into<String>, status: u16) -> Box<dyn Operation>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + 'static,
{
    call(service, head, status)
}

/// Calls an axum service in a runtime, and runs the task that it spawns for the connection to its
/// end.
pub(crate) fn call_and_spawn<S>(
    mut service: S,
    head: impl Into<String>,
    status: u16,
) -> Box<dyn Operation>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + 'static,
{
    let head = Bytes::from(head.into());
    let runtime = runtime();
    operation(
        move || input::request::<Body>(&head),
        move |request| {
            runtime.block_on(async {
                let response =
                    service.ready().await.expect("ready").call(request).await.expect("an answer");
                assert_eq!(response.status().as_u16(), status);
                tokio::task::yield_now().await;
                response
            })
        },
    )
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

/// Responds with this status, and does nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Constant(pub(crate) StatusCode);

impl Service<Request<()>> for Constant {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// As with real services, the caller does not see into it.
    #[inline(never)]
    fn call(&mut self, _: Request<()>) -> Self::Future {
        let mut response = Response::new(());
        *response.status_mut() = self.0;
        ready(Ok(response))
    }
}

pub(crate) const OK: Constant = Constant(StatusCode::OK);
pub(crate) const SWITCH: Constant = Constant(StatusCode::SWITCHING_PROTOCOLS);

/// A layer that does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Pass;

impl<S> Layer<S> for Pass {
    type Service = Passing<S>;

    fn layer(&self, inner: S) -> Passing<S> {
        Passing(inner)
    }
}

#[derive(Clone)]
pub(crate) struct Passing<S>(S);

impl<S: Service<R>, R> Service<R> for Passing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}
