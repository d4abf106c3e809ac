use std::{error::Error, future::Future, pin::Pin, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::JwtKey;
use crate::{config::ConfigError, replaceable::Replaceable, telemetry::KeyFetches};

type BoxError = Box<dyn Error + Send + Sync>;
type FetchFuture = Pin<Box<dyn Future<Output = Result<Vec<JwtKey>, BoxError>> + Send>>;

/// The user's closure without its types.
pub(super) type Fetch = Arc<dyn Fn() -> FetchFuture + Send + Sync>;

/// When [`JwtKeys::refresh`](super::JwtKeys::refresh) fetches.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`interval`](Self::interval) | 5 minutes | a second to a day |
/// | [`cool_down`](Self::cool_down) | 30 seconds | a second to an hour |
/// | [`timeout`](Self::timeout) | 5 seconds | 10 milliseconds to a minute |
/// | [`name`](Self::name) | none | |
#[derive(Clone, Debug)]
#[must_use]
pub struct JwtRefresh {
    interval: Duration,
    cool_down: Duration,
    timeout: Duration,
    name: Arc<str>,
}

impl JwtRefresh {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            interval: Duration::from_secs(300),
            cool_down: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            name: "".into(),
        }
    }

    /// Sets the time between a successful fetch and the next one. A key that the issuer withdraws
    /// is accepted for this long.
    ///
    /// # Errors
    ///
    /// `interval` is shorter than a second or longer than a day.
    pub fn interval(mut self, interval: Duration) -> Result<Self, ConfigError> {
        let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        if !range.contains(&interval) {
            return Err(ConfigError::new(
                "",
                "the interval between two fetches is a second to a day; an issuer that is asked \
                 too often may block the server",
            ));
        }
        self.interval = interval;
        Ok(self)
    }

    /// Sets the minimum time between two early fetches because of unknown keys. Untrusted clients
    /// cause those. A key that replaces another within this time is unknown until the next fetch.
    ///
    /// # Errors
    ///
    /// `cool_down` is shorter than a second or longer than an hour.
    pub fn cool_down(mut self, cool_down: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&cool_down) {
            return Err(ConfigError::new(
                "",
                "the cool-down of early fetches is a second to an hour; any client can cause them",
            ));
        }
        self.cool_down = cool_down;
        Ok(self)
    }

    /// Sets the timeout of a fetch. Keep it shorter than the
    /// [`check_timeout`](crate::GuardLayer::check_timeout) of a handshake that waits for it.
    ///
    /// # Errors
    ///
    /// `timeout` is shorter than 10 milliseconds or longer than a minute.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timeout) {
            return Err(ConfigError::new(
                "",
                "the timeout of a fetch is 10 milliseconds to a minute; handshakes may wait for it",
            ));
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// Sets the name of the keys in logs and metrics, such as the host of the issuer. Keys of
    /// different issuers need different names.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl Default for JwtRefresh {
    fn default() -> Self {
        Self::new()
    }
}

/// The task that fetches, and what is known about it. Dropping it ends the task.
pub(super) struct Refresher {
    state: Arc<watch::Sender<State>>,
    cool_down: Duration,
    task: AbortOnDropHandle<()>,
}

struct State {
    phase: Phase,
    /// The number of fetches that have ended.
    generation: u64,
    fetched_at: Option<Instant>,
    last_error: Option<Arc<dyn Error + Send + Sync>>,
    /// The end of the cool-down.
    early_from: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A fetch is in flight or requested.
    Fetching,
    /// The last fetch succeeded.
    Idle,
    /// The last fetch failed.
    BackingOff,
}

impl State {
    fn may_fetch_early(&self) -> bool {
        self.phase == Phase::Idle && self.early_from <= Instant::now()
    }

    fn end_fetch(&mut self, error: Option<Arc<dyn Error + Send + Sync>>) {
        self.generation += 1;
        self.phase = if error.is_some() { Phase::BackingOff } else { Phase::Idle };
        if error.is_none() {
            self.fetched_at = Some(Instant::now());
        }
        self.last_error = error;
    }

    /// Whether newer keys are there or on their way.
    fn is_newer_than(&self, generation: u64) -> bool {
        self.generation > generation || self.phase == Phase::Fetching
    }
}

impl Refresher {
    pub(super) fn start(
        keys: Replaceable<Vec<JwtKey>>,
        fetch: Fetch,
        settings: JwtRefresh,
    ) -> Self {
        let state = Arc::new(watch::Sender::new(State {
            phase: Phase::Fetching,
            generation: 0,
            fetched_at: None,
            last_error: None,
            early_from: Instant::now(),
        }));
        let cool_down = settings.cool_down;
        let task = tokio::spawn(run(keys, fetch, settings, Arc::clone(&state)));
        Self { state, cool_down, task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn age(&self) -> Option<Duration> {
        self.state.borrow().fetched_at.map(|instant| instant.elapsed())
    }

    pub(super) fn last_error(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        self.state.borrow().last_error.clone()
    }

    pub(super) async fn first_success(&self) {
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.fetched_at.is_some()).await.ok();
    }

    pub(super) fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    pub(super) fn may_be_newer_than(&self, generation: u64) -> bool {
        let state = self.state.borrow();
        state.is_newer_than(generation) || state.may_fetch_early()
    }

    pub(super) async fn newer_than(&self, generation: u64) -> bool {
        let mut receiver = self.state.subscribe();
        let mut is_newer = false;
        self.state.send_if_modified(|state| {
            let starts = state.generation == generation && state.may_fetch_early();
            if starts {
                state.phase = Phase::Fetching;
                state.early_from = Instant::now() + self.cool_down;
            }
            is_newer = state.is_newer_than(generation);
            starts
        });
        // The task is gone if its runtime is.
        is_newer
            && !self.task.is_finished()
            && receiver.wait_for(|state| state.generation > generation).await.is_ok()
    }

    pub(super) fn unknown_key_hint(&self) -> String {
        let age = self.age().unwrap_or_default().as_secs();
        let cool_down = self.cool_down;
        format!(
            "the keys were fetched {age}s ago, and unknown keys cause an early fetch every \
             {cool_down:?} at most"
        )
    }
}

async fn run(
    keys: Replaceable<Vec<JwtKey>>,
    fetch: Fetch,
    settings: JwtRefresh,
    state: Arc<watch::Sender<State>>,
) {
    let fetches = KeyFetches::new(&settings.name);
    let delays = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(settings.interval.min(Duration::from_secs(30)))
        .without_max_times()
        .with_jitter();
    let mut retries = delays.build();
    let mut receiver = state.subscribe();
    loop {
        let (pause, error) = match fetch_once(&fetch, settings.timeout).await {
            Ok(fetched) => {
                fetches.succeeded(fetched.len());
                keys.replace(fetched);
                retries = delays.build();
                (settings.interval, None)
            }
            Err(error) => {
                let pause = retries.next().unwrap_or(settings.interval);
                let age = state.borrow().fetched_at.map(|instant| instant.elapsed());
                fetches.failed(&*error, age, pause);
                (pause, Some(Arc::from(error)))
            }
        };
        state.send_modify(|state| state.end_fetch(error));
        // A handshake may request an early fetch.
        timeout(pause, receiver.wait_for(|state| state.phase == Phase::Fetching)).await.ok();
        state.send_modify(|state| state.phase = Phase::Fetching);
    }
}

async fn fetch_once(fetch: &Fetch, limit: Duration) -> Result<Vec<JwtKey>, BoxError> {
    let fetch = Arc::clone(fetch);
    // A task of its own, because it may panic.
    let task = AbortOnDropHandle::new(tokio::spawn(async move { fetch().await }));
    match timeout(limit, task).await {
        Ok(Ok(Ok(keys))) if keys.is_empty() => Err("the fetch returned no keys".into()),
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the fetch panicked".into()),
        Err(_) => Err(format!("the fetch took longer than {limit:?}").into()),
    }
}
