use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{Upgrade, Upgraded};

pin_project! {
    /// The task of a connection.
    ///
    /// An `async` block would keep the `Upgrade`, and have room for the connection twice.
    #[project = TaskProj]
    pub(super) enum ConnectionTask<F, Fut> {
        Waiting { upgrade: Upgrade, callback: Option<F> },
        Running { #[pin] future: Fut },
    }
}

impl<F, Fut> ConnectionTask<F, Fut> {
    pub(super) fn new(upgrade: Upgrade, callback: F) -> Self {
        Self::Waiting { upgrade, callback: Some(callback) }
    }
}

impl<F, Fut> Future for ConnectionTask<F, Fut>
where
    F: FnOnce(Upgraded) -> Fut,
    Fut: Future<Output = ()>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.as_mut().project() {
                TaskProj::Waiting { upgrade, callback } => {
                    let upgraded = ready!(Pin::new(upgrade).poll(cx));
                    let (Ok(upgraded), Some(callback)) = (upgraded, callback.take()) else {
                        return Poll::Ready(());
                    };
                    let future = callback(upgraded);
                    self.set(Self::Running { future });
                }
                TaskProj::Running { future } => return future.poll(cx),
            }
        }
    }
}
