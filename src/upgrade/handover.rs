use std::{
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::Response;
use hyper::upgrade::OnUpgrade;

use super::ConnectionInfo;
use crate::{
    connection::{Permit, WeakPermit},
    http::Transport,
    lock::lock,
    sync::{Mutex, MutexGuard},
};

/// One connection between hyper and the application: its state, and the result of the handshake.
///
/// hyper hands over a connection behind any response, even a 403. So a layer withholds the upgrade
/// and the permit until the handler takes them, and the connection counts only when the response
/// that leaves the outermost layer of this crate has completed the handshake.
#[derive(Clone)]
pub(crate) struct Handover(Arc<Shared>);

struct Shared {
    state: Owner,
    info: ConnectionInfo,
}

/// Who has the state.
enum Owner {
    This(Mutex<State>),
    /// An outer layer, which withholds the connection, too.
    Outer(Handover),
}

enum State {
    /// The handler has not taken the connection. Report-only mode withholds no upgrade.
    Withheld { on_upgrade: Option<OnUpgrade>, permit: Option<Permit> },
    /// The handler has taken the connection. The final response is not known.
    Taken { permit: Option<WeakPermit>, wakers: Vec<Waker> },
    /// The final response completed the handshake.
    Completed,
    /// The final response was another one, or there was none.
    Declined,
}

impl Handover {
    pub(crate) fn withhold(
        on_upgrade: Option<OnUpgrade>,
        permit: Option<Permit>,
        info: ConnectionInfo,
    ) -> Self {
        Self::new(State::Withheld { on_upgrade, permit }, info)
    }

    /// A connection that no layer withholds.
    pub(crate) fn taken() -> Self {
        Self::new(State::Taken { permit: None, wakers: Vec::new() }, ConnectionInfo::default())
    }

    /// A connection whose final response is known to complete the handshake.
    pub(crate) fn decided(info: ConnectionInfo) -> Self {
        Self::new(State::Completed, info)
    }

    fn new(state: State, info: ConnectionInfo) -> Self {
        Self(Arc::new(Shared { state: Owner::This(Mutex::new(state)), info }))
    }

    /// The same connection, with the result of an inner layer.
    pub(crate) fn with_info(self, info: ConnectionInfo) -> Self {
        Self(Arc::new(Shared { state: Owner::Outer(self), info }))
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.0.info
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        match &self.0.state {
            Owner::This(state) => lock(state),
            Owner::Outer(handover) => handover.lock(),
        }
    }

    /// Withholds more. A permit that is already withheld becomes part of the new one. `false` if
    /// the connection was taken before.
    #[must_use]
    pub(crate) fn add(&self, upgrade: Option<OnUpgrade>, new: Option<Permit>) -> bool {
        let mut state = self.lock();
        let State::Withheld { on_upgrade, permit } = &mut *state else { return false };
        *on_upgrade = on_upgrade.take().or(upgrade);
        *permit = match (new, permit.take()) {
            (Some(new), Some(outer)) => Some(new.and(outer)),
            (new, outer) => new.or(outer),
        };
        true
    }

    pub(crate) fn has_upgrade(&self) -> bool {
        matches!(&*self.lock(), State::Withheld { on_upgrade: Some(_), .. })
    }

    /// Takes what is withheld. `None` if it was taken before, or if it is too late.
    pub(crate) fn take(&self) -> Option<(Option<OnUpgrade>, Option<Permit>)> {
        let mut state = self.lock();
        let State::Withheld { on_upgrade, permit } = &mut *state else { return None };
        let taken = (on_upgrade.take(), permit.take());
        let permit = taken.1.as_ref().map(Permit::downgrade);
        *state = State::Taken { permit, wakers: Vec::new() };
        Some(taken)
    }

    /// Declines the handshake unless the handler took the connection. Returns whether it did.
    pub(crate) fn decline_unless_taken(&self) -> bool {
        let mut state = self.lock();
        match &*state {
            State::Taken { .. } | State::Completed => true,
            State::Withheld { .. } | State::Declined => {
                let withheld = mem::replace(&mut *state, State::Declined);
                drop(state);
                drop(withheld);
                false
            }
        }
    }

    pub(crate) fn is_taken(&self) -> bool {
        matches!(&*self.lock(), State::Taken { .. } | State::Completed)
    }

    /// Whether the handler took the connection, and still holds its permit.
    pub(crate) fn holds_permit(&self) -> bool {
        match &*self.lock() {
            State::Taken { permit, .. } => permit.as_ref().is_some_and(WeakPermit::is_held),
            State::Withheld { .. } | State::Completed | State::Declined => false,
        }
    }

    /// Resolves when the final response is known, to whether it completed the handshake.
    pub(crate) fn poll_completed(&self, cx: &Context<'_>) -> Poll<bool> {
        match &mut *self.lock() {
            State::Completed => Poll::Ready(true),
            State::Declined => Poll::Ready(false),
            State::Taken { wakers, .. } => {
                if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
            // Callers poll only after they have taken the connection, so nobody waits here.
            State::Withheld { .. } => Poll::Pending,
        }
    }

    /// [`poll_completed`](Self::poll_completed) as a future.
    pub(crate) async fn completed(&self) -> bool {
        poll_fn(|cx| self.poll_completed(cx)).await
    }

    fn settle(&self, completed: bool) {
        let mut state = self.lock();
        if matches!(&*state, State::Completed | State::Declined) {
            return;
        }
        let settled = if completed { State::Completed } else { State::Declined };
        let before = mem::replace(&mut *state, settled);
        drop(state);
        if let State::Taken { wakers, .. } = before {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// The decision whether a connection is handed over. Dropped, it declines the handshake.
pub(crate) struct PendingDecision(Option<Handover>);

impl PendingDecision {
    pub(crate) fn new(handover: Handover) -> Self {
        Self(Some(handover))
    }

    /// Decides at the outermost layer.
    pub(crate) fn decide(mut self, completed: bool) {
        if let Some(handover) = self.0.take() {
            handover.settle(completed);
        }
    }

    /// Leaves the decision to the next outer layer of this crate.
    pub(crate) fn pass_on<B>(self, response: &mut Response<B>) {
        let inner = response.extensions_mut().remove::<DecisionInResponse>();
        let inner = inner.map(Box::new);
        response.extensions_mut().insert(DecisionInResponse { decision: Some(self), inner });
    }
}

impl Drop for PendingDecision {
    fn drop(&mut self) {
        if let Some(handover) = self.0.take() {
            handover.settle(false);
        }
    }
}

/// In the extensions of a response that completes the handshake, on its way to the outermost layer.
/// A layer that replaces the response drops it.
#[derive(Default)]
struct DecisionInResponse {
    decision: Option<PendingDecision>,
    /// Another one, which an inner layer passed on.
    inner: Option<Box<Self>>,
}

/// Extensions must be `Clone`. Only the original decides.
impl Clone for DecisionInResponse {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Whether the handler took the connection with a type of this crate.
pub(crate) fn is_taken_in<B>(response: &Response<B>) -> bool {
    response.extensions().get::<DecisionInResponse>().is_some()
}

/// Decides at the outermost layer about a connection whose response an inner layer or extractor
/// passed on.
pub(crate) fn decide_passed_on<B>(response: &mut Response<B>, transport: Transport) {
    let completed = transport.is_completed_by(response.status());
    let mut next = response.extensions_mut().remove::<DecisionInResponse>();
    while let Some(DecisionInResponse { decision, inner }) = next {
        if let Some(decision) = decision {
            decision.decide(completed);
        }
        next = inner.map(|inner| *inner);
    }
}
