use std::{future::Future, time::Duration};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::rejection::RejectionKind;

/// The end of a server: no new connections, and the open ones are waited for.
///
/// A handle whose clones are one: give it to the layers, and keep it where the server is shut down. hyper's and axum's graceful shutdown do not
/// wait for upgraded connections; this goes beside them. The listener may go on accepting meanwhile: handshakes are refused with
/// [`ShuttingDown`](RejectionKind::ShuttingDown) (503 and `Retry-After`), everything else is served.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, extract::ws::Message, routing::any};
/// use tower_ws_guard::{AllowOrigin, Drain, GuardLayer, Permit, extract::GuardedUpgrade};
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

    /// Refuses handshakes from now on, those too that are being verified, and tells the open connections. It cannot be taken back.
    pub fn start(&self) {
        self.started.cancel();
        self.connections.close();
    }

    /// Whether it has started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Resolves when it has started.
    pub fn started(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.started.clone().cancelled_owned()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Starts, and resolves when all connections are gone, or when `deadline` is over: to the number of those that are left.
    ///
    /// # Panics
    ///
    /// When polled outside a Tokio runtime with timers.
    pub async fn wait(&self, deadline: Duration) -> usize {
        self.start();
        match tokio::time::timeout(deadline, self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections(),
        }
    }

    /// Counts a connection until the token is dropped. Counted first, so that none slips in behind the start.
    pub(super) fn enter(&self) -> Result<TaskTrackerToken, RejectionKind> {
        let token = self.connections.token();
        match self.has_started() {
            true => Err(RejectionKind::ShuttingDown),
            false => Ok(token),
        }
    }
}
