//! The tasks of a server: one renews and releases its leases, and the other hears of ends.

use std::{
    mem,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::time::{sleep, timeout};

use super::{BATCH, LEASE, Leased, REMEMBERED, RENEWAL, Shared, lock, micros, millis};
use crate::{connection::Ended, redis::RedisFailure};

/// The pause after a failure, so that closed sockets do not make the server try again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Renews and releases leases until there is no handle and nothing to release.
pub(super) async fn maintain(shared: Arc<Shared>) {
    let mut renewal = Instant::now() + RENEWAL;
    let mut is_failing = false;
    loop {
        let left = renewal.saturating_duration_since(Instant::now());
        timeout(left, shared.wake.notified()).await.ok();
        let is_over = shared.is_closed.load(Ordering::Relaxed);
        let mut result = shared.release().await;
        if is_over {
            return;
        }
        // However much there is to release.
        if shared.must_renew.swap(false, Ordering::Relaxed) || Instant::now() >= renewal {
            result = result.and(shared.renew().await);
            renewal = Instant::now() + RENEWAL;
            is_failing &= result.is_err();
        }
        if let Err(error) = result {
            // Once for an outage.
            if !is_failing {
                log(&error);
            }
            is_failing = true;
            sleep(PAUSE).await;
        }
    }
}

/// Hears of sessions that were ended or evicted, for ever.
pub(super) async fn listen(shared: Arc<Shared>) {
    let reconnect = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(RENEWAL)
        .without_max_times();
    loop {
        let Ok(mut connection) = (|| shared.subscribe()).retry(reconnect).await else { continue };
        // Messages may have been lost. What they said is in Redis.
        shared.must_renew.store(true, Ordering::Relaxed);
        shared.wake.notify_one();
        // Each renewal sends a message, so silence means that the connection is dead.
        let mut messages = connection.on_message();
        while let Ok(Some(message)) = timeout(LEASE, messages.next()).await {
            shared.hear(&message.get_payload::<String>().unwrap_or_default());
        }
        drop(messages);
        // A Redis may close each connection at once.
        sleep(Duration::from_millis(100)).await;
    }
}

impl Shared {
    async fn subscribe(&self) -> Result<PubSub, RedisFailure> {
        let mut connection = self.redis.pub_sub().await?;
        // The connection may be dead by now.
        timeout(RENEWAL, connection.subscribe(self.channel())).await??;
        Ok(connection)
    }

    /// Reads a message: the reason, and the numbers of the sessions.
    fn hear(&self, message: &str) {
        let mut words = message.split(' ');
        let Some(reason) = words.next().and_then(Ended::from_reason) else { return };
        for number in words.filter_map(|number| number.parse().ok()) {
            let leased = self.live().get(&number).cloned();
            if let Some(leased) = leased {
                self.end(&leased, reason);
            }
        }
    }

    fn end(&self, leased: &Leased, reason: Ended) {
        leased.session.end(reason);
        // Its lease is not renewed, and need not be released.
        self.live().remove(&leased.session.number);
    }

    async fn renew(&self) -> Result<(), RedisFailure> {
        let keeps_lost = lock(&self.renewed).elapsed() < REMEMBERED;
        let mut last = None;
        let mut failure = None;
        loop {
            let batch = self.batch_after(last);
            let settings =
                [self.server.clone(), millis(LEASE).to_string(), u8::from(keeps_lost).to_string()];
            let sessions = batch.iter().flat_map(|leased| {
                let age = micros(leased.began.elapsed()).to_string();
                [leased.hash.clone(), leased.name.clone(), leased.max.to_string(), age]
            });
            let arguments = settings.into_iter().chain(sessions);
            match self.run::<Vec<(String, String)>>(&self.scripts.renew, arguments).await {
                Ok(gone) => self.end_gone(&batch, gone),
                // The other batches must not lose their leases, too.
                Err(error) => failure = Some(error),
            }
            last = batch.last().map(|leased| leased.session.number);
            if batch.len() < BATCH {
                break;
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                *lock(&self.renewed) = Instant::now();
                Ok(())
            }
        }
    }

    fn end_gone(&self, batch: &[Arc<Leased>], gone: Vec<(String, String)>) {
        for (name, reason) in gone {
            let leased = batch.iter().find(|leased| leased.name == name);
            if let (Some(leased), Some(reason)) = (leased, Ended::from_reason(&reason)) {
                self.end(leased, reason);
            }
        }
    }

    /// The next sessions that are to be renewed.
    fn batch_after(&self, last: Option<u64>) -> Vec<Arc<Leased>> {
        let live = self.live();
        let after = live.range((last.map_or(Unbounded, Excluded), Unbounded));
        let acquired =
            after.map(|(_, leased)| leased).filter(|l| l.is_acquired.load(Ordering::Relaxed));
        acquired.take(BATCH).cloned().collect()
    }

    async fn release(&self) -> Result<(), RedisFailure> {
        let released = mem::take(&mut *lock(&self.released));
        for (index, batch) in released.chunks(BATCH).enumerate() {
            let sessions = batch.iter().flat_map(|l| [l.hash.clone(), l.name.clone()]);
            if let Err(error) = self.run::<()>(&self.scripts.release, sessions).await {
                // Again at the next renewal. Nobody renews the lease, so it ends meanwhile.
                let left = released.into_iter().skip(index * BATCH).take(MAX_RELEASES);
                lock(&self.released).extend(left);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// More are left to the end of their leases.
const MAX_RELEASES: usize = 100_000;

#[cfg(feature = "tracing")]
fn log(error: &RedisFailure) {
    let problem = "the leases of the sessions in Redis could not be renewed or released";
    crate::telemetry::log_failure(problem, &**error);
}

#[cfg(not(feature = "tracing"))]
fn log(_: &RedisFailure) {}
