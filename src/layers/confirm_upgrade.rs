use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    context::GuardContext,
    http::{Transport, is_upgrade_request},
    upgrade::{ConnectionInfo, Handover, PendingDecision, decide_passed_on},
};

/// Applies [`ConfirmUpgrade`], which withholds the upgrade until the final status of the response
/// is known.
///
/// Put it outside of layers that may replace the response of the guard, for example a session layer
/// that fails to save the session. hyper would hand over the connection although the client got
/// another response. See [`upgrade`](crate::upgrade#when-the-connection-is-handed-over).
///
/// It rejects nothing. The handler must take the connection with
/// [`GuardedUpgrade`](crate::axum::GuardedUpgrade), [`PendingUpgrade`](crate::PendingUpgrade) or
/// [`Permit::claim`](crate::Permit::claim).
///
/// ```
/// use axum::{
///     Router, http::StatusCode, middleware::map_response, response::Response, routing::any,
/// };
/// use tower::ServiceBuilder;
/// use tower_ws_guard::{AllowOrigin, ConfirmUpgradeLayer, GuardLayer, PendingUpgrade};
///
/// async fn handler(pending: PendingUpgrade) {
///     pending.on_upgrade(async |socket| drop(socket));
/// }
///
/// async fn replace(mut response: Response) -> Response {
///     *response.status_mut() = StatusCode::FORBIDDEN;
///     response
/// }
///
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).respond();
/// let layers = ServiceBuilder::new()
///     .layer(ConfirmUpgradeLayer::new())
///     .layer(map_response(replace))
///     .layer(guard);
/// let app: Router = Router::new().route("/ws", any(handler).layer(layers));
/// # let _ = app;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct ConfirmUpgradeLayer;

impl ConfirmUpgradeLayer {
    /// Hands over a connection only if the response that leaves this layer completes the handshake.
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for ConfirmUpgradeLayer {
    type Service = ConfirmUpgrade<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConfirmUpgrade { inner }
    }
}

/// Withholds the upgrade until the final status of the response is known. See
/// [`ConfirmUpgradeLayer`].
#[derive(Clone, Debug)]
pub struct ConfirmUpgrade<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ConfirmUpgrade<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ConfirmUpgradeFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let is_handshake =
            is_upgrade_request(&request) && !GuardContext::is_inside_layer(request.extensions());
        let pending = is_handshake.then(|| {
            let transport = Transport::new(request.version());
            let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
            let handover = Handover::withhold(on_upgrade, None, ConnectionInfo::default());
            let context = GuardContext::get_or_insert(request.extensions_mut());
            context.handover = Some(handover.clone());
            context.only_confirms = true;
            (transport, PendingDecision::new(handover))
        });
        ConfirmUpgradeFuture { future: self.inner.call(request), pending }
    }
}

pin_project! {
    /// Response future of [`ConfirmUpgrade`].
    pub struct ConfirmUpgradeFuture<F> {
        #[pin]
        future: F,
        // `None` for an ordinary request.
        pending: Option<(Transport, PendingDecision)>,
    }
}

impl<F, B, E> Future for ConfirmUpgradeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = ready!(this.future.poll(cx));
        if let (Some((transport, decision)), Ok(response)) = (this.pending.take(), &mut result) {
            decision.decide(transport.is_completed_by(response.status()));
            decide_passed_on(response, transport);
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for ConfirmUpgradeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmUpgradeFuture").finish_non_exhaustive()
    }
}
