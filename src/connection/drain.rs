use std::{
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::Ended;
use crate::{
    rejection::RejectionKind,
    sync::{AtomicU64, AtomicUsize, Notify, SetOnce},
};

/// The drain of a server at its shutdown: it rejects new handshakes, and waits for the open
/// connections.
///
/// Clones share their state: give one to the layers, and keep one where the server shuts down. The
/// graceful shutdown of hyper and axum does not wait for upgraded connections, so use a drain
/// beside it. The listener may accept meanwhile: handshakes are rejected with
/// [`ShuttingDown`](RejectionKind::ShuttingDown) (503 and a random `Retry-After`), and other
/// requests are served.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, extract::ws::{CloseFrame, Message}, routing::any};
/// use tower_ws_guard::{AllowOrigin, Drain, GuardLayer, Permit, axum::GuardedUpgrade};
///
/// # async fn shutdown_signal() {}
/// # async fn serve() -> std::io::Result<()> {
/// // 10,000 clients do not come back at once, but 2,000 in each second.
/// let drain = Drain::spread_over(Duration::from_secs(5));
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).drain(&drain);
/// let handler = async |upgrade: GuardedUpgrade<Permit>| {
///     upgrade.on_upgrade(async |mut socket, permit| {
///         let messages = async {
///             while let Some(Ok(message)) = socket.recv().await {
///                 println!("{message:?}");
///             }
///         };
///         let ended = tokio::select! {
///             () = messages => return,
///             ended = permit.ended() => ended,
///         };
///         let (code, reason) = (ended.close_code(), ended.reason().into());
///         socket.send(Message::Close(Some(CloseFrame { code, reason }))).await.ok();
///     })
/// };
/// let app = Router::new().route("/ws", any(handler).layer(guard));
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// // The server listens until the sockets are gone, and rejects new handshakes with 503.
/// let drained = async move {
///     shutdown_signal().await;
///     let left = drain.wait(Duration::from_secs(10)).await;
///     println!("{left} connections are cut off");
/// };
/// axum::serve(listener, app).with_graceful_shutdown(drained).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<State>);

/// The connections are notified lane by lane, so that neither the caller of
/// [`start`](Drain::start) nor the runtime wakes all of them at once.
const LANES: usize = if cfg!(models) { 2 } else { 256 };

/// In `State::counts`: the drain has started.
const STARTED: u64 = 1;
/// One open connection.
const OPEN: u64 = 2;
/// One connection that ever entered. Below it is room for more than a server can have open.
const ENTERED: u64 = 1 << 40;

#[derive(Debug)]
struct State {
    spread: Duration,
    started: SetOnce<()>,
    lanes: Box<[Notify]>,
    /// The lanes before this one are notified.
    notified: AtomicUsize,
    /// The start, the open connections, and all that ever entered, in one word: a handshake enters
    /// before the start and is counted, or sees it. No order of several words must be kept.
    counts: AtomicU64,
    /// No connection is left.
    empty: Notify,
    /// The runtime of the first connection.
    runtime: OnceLock<Handle>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            spread: Duration::ZERO,
            started: SetOnce::new(),
            lanes: (0..LANES).map(|_| Notify::new()).collect(),
            notified: AtomicUsize::new(0),
            counts: AtomicU64::new(0),
            empty: Notify::new(),
            runtime: OnceLock::new(),
        }
    }
}

impl Drain {
    /// A drain that has not started. It notifies the open connections as fast as it can.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A drain that has not started. It notifies the open connections evenly over `time`, so that
    /// their clients do not connect to the other servers at once. Give
    /// [`wait`](Self::wait) a longer timeout. The runtime must have timers.
    #[must_use]
    pub fn spread_over(time: Duration) -> Self {
        Self(Arc::new(State { spread: time, ..State::default() }))
    }

    /// Starts the drain: rejects handshakes from now on, including those whose token is being
    /// verified, and notifies the open connections. A drain cannot be stopped.
    ///
    /// It does not block: a task notifies the connections.
    pub fn start(&self) {
        if self.0.counts.fetch_or(STARTED, SeqCst) & STARTED != 0 {
            return;
        }
        self.0.started.set(()).ok();
        // The caller may be outside of the runtime of the connections, such as a handler of
        // signals.
        let runtime = self.0.runtime.get().cloned().or_else(|| Handle::try_current().ok());
        let notifier = Notifier(Arc::clone(&self.0));
        match runtime {
            Some(runtime) => drop(runtime.spawn(notifier.run())),
            None => drop(notifier),
        }
    }

    /// Whether the drain has started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.0.counts.load(SeqCst) & STARTED != 0
    }

    /// Resolves when the drain has started, for the parts of a server that stop then. A connection
    /// waits for [`Permit::ended`](crate::Permit::ended) instead, which is spread over time.
    pub fn started(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let state = Arc::clone(&self.0);
        async move { *state.started.wait().await }
    }

    /// The number of open connections. A handshake that is being rejected counts for an instant.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections()
    }

    /// Starts the drain, and resolves when all connections are closed or `timeout` has passed, to
    /// the number of connections that are left.
    ///
    /// # Panics
    ///
    /// The future panics when polled outside of a Tokio runtime with timers.
    pub async fn wait(&self, timeout: Duration) -> usize {
        self.start();
        match tokio::time::timeout(timeout, self.0.wait_until_empty()).await {
            Ok(()) => 0,
            Err(_) => self.connections(),
        }
    }

    /// Counts a connection until the entry is dropped, if the drain has not started.
    pub(crate) fn enter(&self) -> Result<Entry, RejectionKind> {
        let state = &self.0;
        let before = state.counts.fetch_add(ENTERED + OPEN, SeqCst);
        // With the bits reversed, few connections are spread as evenly as many.
        let number = ((before / ENTERED) as u8).reverse_bits();
        let lane = usize::from(number) * LANES / 256;
        let entry = Entry { state: Arc::clone(state), lane };
        if state.runtime.get().is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            state.runtime.set(runtime).ok();
        }
        if before & STARTED != 0 { Err(RejectionKind::ShuttingDown) } else { Ok(entry) }
    }
}

/// Notifies all connections. Dropped early, as at the end of its runtime, it notifies the rest.
struct Notifier(Arc<State>);

impl Notifier {
    async fn run(self) {
        let pause = self.0.spread / LANES as u32;
        let mut due = Instant::now();
        while self.0.notify_next() {
            match due.checked_add(pause) {
                Some(next) if !pause.is_zero() => {
                    due = next;
                    sleep_until(due).await;
                }
                _ => yield_now().await,
            }
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        while self.0.notify_next() {}
    }
}

impl State {
    /// Notifies the next lane, if there is one.
    fn notify_next(&self) -> bool {
        let lane = self.notified.load(SeqCst);
        let Some(connections) = self.lanes.get(lane) else { return false };
        self.notified.store(lane + 1, SeqCst);
        connections.notify_waiters();
        true
    }

    fn connections(&self) -> usize {
        open(self.counts.load(SeqCst))
    }

    async fn wait_until_empty(&self) {
        loop {
            let mut empty = pin!(self.empty.notified());
            empty.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            empty.await;
        }
    }
}

/// The open connections in `State::counts`.
const fn open(counts: u64) -> usize {
    (counts % ENTERED / OPEN) as usize
}

/// A connection in a [`Drain`].
pub(crate) struct Entry {
    state: Arc<State>,
    lane: usize,
}

impl Entry {
    /// Resolves when the connection must end. The future does not count as a connection.
    pub(super) fn drained(&self) -> impl Future<Output = Ended> + Send + 'static + use<> {
        let (state, lane) = (Arc::clone(&self.state), self.lane);
        async move {
            loop {
                let mut notified = pin!(state.lanes[lane].notified());
                notified.as_mut().enable();
                if state.notified.load(SeqCst) > lane {
                    return Ended::Drained;
                }
                notified.await;
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if open(self.state.counts.fetch_sub(OPEN, SeqCst)) == 1 {
            self.state.empty.notify_waiters();
        }
    }
}
