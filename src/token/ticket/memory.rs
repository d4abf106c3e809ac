use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    convert::Infallible,
    fmt,
    future::{Future, ready},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{TicketKey, TicketStore};
use crate::{
    lock::lock,
    sync::{Mutex, MutexGuard},
};

/// Stores tickets in memory, for one process. Clones share the tickets.
///
/// The number of tickets is bounded. A full store evicts the ticket that expires first, and that
/// ticket is then rejected. So a flood of requests for tickets can shorten the lifetime of other
/// tickets, unless each subject has a [quota](super::TicketIssuer::quota), but cannot exhaust the
/// memory. Each insertion also removes up to two expired tickets. There is no background task.
#[derive(Clone)]
#[must_use]
pub struct MemoryTicketStore {
    capacity: usize,
    tickets: Arc<Mutex<Tickets>>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Tickets {
    records: HashMap<TicketKey, (Expiry, Vec<u8>)>,
    by_expiry: BTreeMap<Expiry, TicketKey>,
    issued: u64,
}

/// The counted tickets of subjects, by the time when they no longer count.
#[derive(Default)]
struct Counts {
    by_subject: HashMap<TicketKey, BTreeSet<Expiry>>,
    by_expiry: BTreeMap<Expiry, TicketKey>,
    counted: u64,
}

/// The maximum of `TicketIssuer`. A longer lifetime could overflow an [`Instant`].
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// The serial number distinguishes tickets that expire at the same time.
type Expiry = (Instant, u64);

impl MemoryTicketStore {
    /// Stores at most `capacity` tickets, and counts as many for quotas. A ticket with small claims
    /// takes about 500 bytes.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { capacity: capacity.get(), tickets: Arc::default(), counts: Arc::default() }
    }

    /// The number of tickets, at most the capacity. Expired tickets count until they are removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Whether the store has no tickets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tickets> {
        lock(&self.tickets)
    }

    fn lock_counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

/// Stores at most 100,000 tickets.
impl Default for MemoryTicketStore {
    fn default() -> Self {
        Self::new(const { NonZeroUsize::new(100_000).expect("the capacity is not 0") })
    }
}

impl TicketStore for MemoryTicketStore {
    type Error = Infallible;

    fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<(), Infallible>> + Send {
        let now = Instant::now();
        let mut tickets = self.lock();
        for _ in 0..2 {
            tickets.remove_first(|(expiry, _), _| expiry <= now);
        }
        tickets.remove_first(|_, count| count >= self.capacity);
        tickets.insert(key, record, now + lifetime.min(MAX_LIFETIME));
        ready(Ok(()))
    }

    fn consume(
        &self,
        key: TicketKey,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Infallible>> + Send {
        let removed = self.lock().remove(&key);
        ready(Ok(
            removed.and_then(|((expiry, _), record)| (Instant::now() < expiry).then_some(record))
        ))
    }

    fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Option<Duration>, Infallible>> + Send {
        let now = Instant::now();
        let mut counts = self.lock_counts();
        for _ in 0..2 {
            counts.remove_first(|(expiry, _), _| expiry <= now);
        }
        let delay =
            counts.until_below(subject, max).and_then(|time| time.checked_duration_since(now));
        if delay.is_none_or(|delay| delay.is_zero()) {
            counts.remove_first(|_, count| count >= self.capacity);
            counts.insert(subject, now + lifetime.min(MAX_LIFETIME));
            return ready(Ok(None));
        }
        ready(Ok(delay))
    }
}

impl Counts {
    /// The time at which fewer than `max` of its tickets count.
    fn until_below(&self, subject: TicketKey, max: u32) -> Option<Instant> {
        self.by_subject.get(&subject)?.iter().rev().nth(max as usize - 1).map(|&(expiry, _)| expiry)
    }

    fn insert(&mut self, subject: TicketKey, expiry: Instant) {
        self.counted += 1;
        let expiry = (expiry, self.counted);
        self.by_expiry.insert(expiry, subject);
        self.by_subject.entry(subject).or_default().insert(expiry);
    }

    fn remove_first(&mut self, condition: impl FnOnce(Expiry, usize) -> bool) {
        let count = self.by_expiry.len();
        if let Some(first) = self.by_expiry.first_entry()
            && condition(*first.key(), count)
        {
            let (expiry, subject) = first.remove_entry();
            if let Entry::Occupied(mut counted) = self.by_subject.entry(subject) {
                counted.get_mut().remove(&expiry);
                if counted.get().is_empty() {
                    counted.remove();
                }
            }
        }
    }
}

impl Tickets {
    fn insert(&mut self, key: TicketKey, record: Vec<u8>, expiry: Instant) {
        self.issued += 1;
        let expiry = (expiry, self.issued);
        self.by_expiry.insert(expiry, key);
        self.records.insert(key, (expiry, record));
    }

    fn remove(&mut self, key: &TicketKey) -> Option<(Expiry, Vec<u8>)> {
        let (expiry, record) = self.records.remove(key)?;
        self.by_expiry.remove(&expiry);
        Some((expiry, record))
    }

    /// Removes the ticket that expires first, if `condition` is true for its expiry and for the
    /// number of tickets.
    fn remove_first(&mut self, condition: impl FnOnce(Expiry, usize) -> bool) {
        if let Some(first) = self.by_expiry.first_entry()
            && condition(*first.key(), self.records.len())
        {
            let key = first.remove();
            self.records.remove(&key);
        }
    }
}

impl fmt::Debug for MemoryTicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTicketStore")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .field("counted", &self.lock_counts().by_expiry.len())
            .finish_non_exhaustive()
    }
}
