//! `src/sync.rs` of the crate, for the models.
//!
//! loom's types are explored step by step. tokio's are real, and each of their operations is one step: tokio has models of its
//! own for what happens inside.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::Ordering::AcqRel,
    task::{Context, Poll},
};

pub(crate) use loom::sync::{
    Mutex, MutexGuard, RwLock,
    atomic::{AtomicU64, AtomicUsize},
};
use pin_project_lite::pin_project;

/// Other threads may run before it, and see what this thread did before it.
#[derive(Debug, Default)]
struct Step(AtomicUsize);

impl Step {
    fn take(&self) {
        self.0.fetch_add(1, AcqRel);
    }
}

#[derive(Debug)]
pub(crate) struct Notify {
    notify: tokio::sync::Notify,
    step: Step,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { notify: tokio::sync::Notify::new(), step: Step::default() }
    }

    pub(crate) fn notify_waiters(&self) {
        self.step.take();
        self.notify.notify_waiters();
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        self.step.take();
        Notified { notified: self.notify.notified(), step: &self.step }
    }
}

pin_project! {
    pub(crate) struct Notified<'a> {
        #[pin]
        notified: tokio::sync::futures::Notified<'a>,
        step: &'a Step,
    }
}

impl Notified<'_> {
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        self.step.take();
        self.project().notified.enable()
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.take();
        self.project().notified.poll(cx)
    }
}

#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    value: tokio::sync::SetOnce<T>,
    step: Step,
}

impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self { value: tokio::sync::SetOnce::new(), step: Step::default() }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), tokio::sync::SetOnceError<T>> {
        self.step.take();
        self.value.set(value)
    }

    pub(crate) async fn wait(&self) -> &T {
        let mut wait = pin!(self.value.wait());
        poll_fn(|cx| {
            self.step.take();
            wait.as_mut().poll(cx)
        })
        .await
    }
}
