use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Resolves when the first of its futures does. Without futures it never resolves.
pub(crate) struct FirstOf<T>(Vec<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> FirstOf<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        // Every open connection keeps them, and most have one or two.
        self.0.reserve_exact(1);
        self.0.push(Box::pin(future));
    }
}

impl<T> Future for FirstOf<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut outputs = self.0.iter_mut().map(|future| future.as_mut().poll(cx));
        outputs.find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}
