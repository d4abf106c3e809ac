use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::request::Parts;

use crate::{connection::AcquiredSession, rejection::Rejection};

/// A step that waits. Resolves to the request, with the claims in its extensions if a token was
/// verified, and to the sessions that were acquired.
pub(crate) type WaitFuture =
    Pin<Box<dyn Future<Output = (Parts, Result<Vec<AcquiredSession>, Rejection>)> + Send>>;

/// `None` if the future takes too long. A future that is ready at once needs no timer.
pub(crate) async fn within<F: Future>(timeout: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(timeout, future).await.ok(),
    }
}
