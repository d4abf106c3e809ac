use std::{future::Future, time::Duration};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::rejection::RejectionKind;

/// The drain of a server at its shutdown: it rejects new handshakes, and waits for the open
/// connections.
///
/// Clones share their state: give one to the layers, and keep one where the server shuts down. The
/// graceful shutdown of hyper and axum does not wait for upgraded connections, so use a drain
/// beside it. The listener may accept meanwhile: handshakes are rejected with
/// [`ShuttingDown`](RejectionKind::ShuttingDown) (503 and `Retry-After`), and other requests are
/// served.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, extract::ws::Message, routing::any};
/// use tower_ws_guard::{AllowOrigin, Drain, GuardLayer, Permit, axum::GuardedUpgrade};
///
/// # async fn shutdown_signal() {}
/// # async fn serve() -> std::io::Result<()> {
/// let drain = Drain::new();
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).drain(&drain);
/// let handler = async |upgrade: GuardedUpgrade<Permit>| {
///     upgrade.on_upgrade(async |mut socket, permit| {
///         tokio::select! {
///             message = socket.recv() => drop(message),
///             () = permit.draining() => drop(socket.send(Message::Close(None)).await),
///         }
///     })
/// };
/// let app = Router::new().route("/ws", any(handler).layer(guard));
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let stop = drain.clone();
/// tokio::spawn(async move {
///     shutdown_signal().await;
///     stop.start();
/// });
/// let server = axum::serve(listener, app).with_graceful_shutdown(drain.started()).into_future();
/// tokio::spawn(server);
/// drain.started().await;
/// let left = drain.wait(Duration::from_secs(10)).await;
/// println!("{left} connections are cut off");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Drain {
    started: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    /// A drain that has not started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the drain: rejects handshakes from now on, including those whose token is being
    /// verified, and notifies the open connections. A drain cannot be stopped.
    pub fn start(&self) {
        self.started.cancel();
        self.connections.close();
    }

    /// Whether the drain has started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Resolves when the drain has started.
    pub fn started(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.started.clone().cancelled_owned()
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Starts the drain, and resolves when all connections are closed or `timeout` has passed, to
    /// the number of connections that are left.
    ///
    /// # Panics
    ///
    /// The future panics when polled outside of a Tokio runtime with timers.
    pub async fn wait(&self, timeout: Duration) -> usize {
        self.start();
        match tokio::time::timeout(timeout, self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections(),
        }
    }

    /// Counts a connection until the token is dropped. It counts before it looks at the start, so
    /// that every connection is either rejected or waited for.
    pub(crate) fn enter(&self) -> Result<TaskTrackerToken, RejectionKind> {
        let token = self.connections.token();
        if self.has_started() { Err(RejectionKind::ShuttingDown) } else { Ok(token) }
    }
}
