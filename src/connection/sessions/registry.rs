use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Ended, Session, SessionInfo, WhenFull};
use crate::{
    lock::lock,
    sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard},
};

/// The sessions of this server.
pub(super) struct Registry<K> {
    hasher: RandomState,
    /// So many that no lock is held for long while one of them grows.
    shards: Box<[Mutex<Shard<K>>]>,
    connections: AtomicUsize,
    accepted: AtomicU64,
}

struct Shard<K> {
    /// The oldest first. Holds no key without sessions.
    live: HashMap<K, Vec<Arc<Session>>>,
    /// The keys that were ended lately, the earliest first.
    ended: VecDeque<(Instant, K)>,
}

const SHARDS: usize = if cfg!(models) { 1 } else { 512 };

/// How long the checks of a handshake may take. After it, it is forgotten when a key was ended.
pub(super) const LONGEST_HANDSHAKE: Duration = Duration::from_secs(60);

/// Why there is no session.
#[derive(Clone, Copy)]
pub(super) enum Unavailable {
    Full,
    /// The key was ended while the handshake was checked.
    EndedMeanwhile,
}

impl<K> Default for Registry<K> {
    fn default() -> Self {
        let shard = || Mutex::new(Shard { live: HashMap::new(), ended: VecDeque::new() });
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
        }
    }
}

impl<K: Hash + Eq + Clone> Registry<K> {
    /// Adds a session of a handshake whose checks began at `began`.
    pub(super) fn acquire(
        self: &Arc<Self>,
        key: K,
        info: SessionInfo,
        began: Instant,
        max: usize,
        when_full: WhenFull,
    ) -> Result<Registered<K>, Unavailable> {
        let mut shard = self.shard(&key);
        if shard.was_ended_after(&key, began) {
            return Err(Unavailable::EndedMeanwhile);
        }
        let sessions = match shard.live.entry(key.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::with_capacity(1)),
        };
        let mut evicted = Vec::new();
        if sessions.len() >= max {
            match when_full {
                WhenFull::RejectNewest => return Err(Unavailable::Full),
                // More than one, if handshakes that wait for Redis are among them.
                WhenFull::EvictOldest => evicted.extend(sessions.drain(..=sessions.len() - max)),
            }
        }
        // Ascending within a shard, which is locked.
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(number, info));
        sessions.push(Arc::clone(&session));
        // Before another thread can end the session.
        self.connections.fetch_add(1, Ordering::Relaxed);
        drop(shard);
        self.connections.fetch_sub(evicted.len(), Ordering::Relaxed);
        evicted.iter().for_each(|session| session.end(Ended::Evicted));
        Ok(Registered { registry: Arc::clone(self), key, session })
    }

    /// Whether there is no slot.
    pub(super) fn is_full(&self, key: &K, max: usize) -> bool {
        self.shard(key).live.get(key).is_some_and(|sessions| sessions.len() >= max)
    }

    pub(super) fn end(&self, key: &K, reason: Ended) -> Ending {
        let mut shard = self.shard(key);
        shard.forget_ended();
        // The key may be ended again and again.
        if shard.ended.back().is_some_and(|(_, last)| last == key) {
            shard.ended.pop_back();
        }
        shard.ended.push_back((Instant::now(), key.clone()));
        let sessions = shard.remove(key);
        drop(shard);
        self.connections.fetch_sub(sessions.len(), Ordering::Relaxed);
        Ending { sessions, reason }
    }

    pub(super) fn list(&self, key: &K) -> Vec<SessionInfo> {
        let shard = self.shard(key);
        let sessions = shard.live.get(key).map_or(&[][..], |sessions| sessions);
        sessions.iter().map(|session| session.info.clone()).collect()
    }

    pub(super) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).live.len()).sum()
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        lock(&self.shards[shard])
    }
}

impl<K> Registry<K> {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl<K: Hash + Eq> Shard<K> {
    /// Removes a key and its sessions.
    fn remove(&mut self, key: &K) -> Vec<Arc<Session>> {
        let sessions = self.live.remove(key).unwrap_or_default();
        // A map keeps the size that it once had.
        if self.live.capacity() > 8 && self.live.len() < self.live.capacity() / 8 {
            self.live.shrink_to(2 * self.live.len());
        }
        sessions
    }

    fn was_ended_after(&mut self, key: &K, began: Instant) -> bool {
        self.forget_ended();
        let mut since = self.ended.iter().rev().take_while(|(ended, _)| *ended >= began);
        since.any(|(_, other)| other == key)
    }

    fn forget_ended(&mut self) {
        // More than one, so that they become fewer, and few, so that no call takes long.
        for _ in 0..2 {
            if self.ended.front().is_some_and(|(ended, _)| ended.elapsed() > LONGEST_HANDSHAKE) {
                self.ended.pop_front();
            }
        }
        if self.ended.is_empty() {
            self.ended = VecDeque::new();
        }
    }
}

/// Sessions that are not in the registry any more. They are told when this is dropped.
pub(super) struct Ending {
    sessions: Vec<Arc<Session>>,
    reason: Ended,
}

impl Ending {
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.sessions.iter().for_each(|session| session.end(self.reason));
    }
}

/// A session in the registry, until this is dropped.
pub(super) struct Registered<K: Hash + Eq + Clone> {
    registry: Arc<Registry<K>>,
    key: K,
    pub(super) session: Arc<Session>,
}

impl<K: Hash + Eq + Clone> Drop for Registered<K> {
    fn drop(&mut self) {
        let mut shard = self.registry.shard(&self.key);
        let Some(sessions) = shard.live.get_mut(&self.key) else { return };
        let this = sessions.binary_search_by_key(&self.session.number, |session| session.number);
        let Ok(this) = this else { return };
        sessions.remove(this);
        if sessions.is_empty() {
            shard.remove(&self.key);
        }
        drop(shard);
        self.registry.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
