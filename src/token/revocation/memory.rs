use std::{
    collections::HashMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::{Key, TokenIdentity, revoked};
use crate::{rejection::Rejection, sync::RwLock};

#[derive(Default)]
pub(super) struct MemoryRevocations(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// The number of entries at which expired ones are removed.
    prune_at: usize,
}

struct Entry {
    issued_until: u64,
    expiry: Instant,
}

impl MemoryRevocations {
    pub(super) fn revoke(&self, key: Key, issued_until: u64, lifetime: Duration) {
        let now = Instant::now();
        let entry = Entry { issued_until, expiry: now + lifetime };
        let entries = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        // It doubles, so that a removal is paid for by as many insertions.
        if entries.by_key.len() >= entries.prune_at {
            entries.by_key.retain(|_, entry| now < entry.expiry);
            entries.prune_at = 2 * entries.by_key.len().max(32);
            entries.by_key.shrink_to(entries.prune_at);
        }
        entries
            .by_key
            .entry(key)
            .and_modify(|old| {
                old.issued_until = old.issued_until.max(issued_until);
                old.expiry = old.expiry.max(entry.expiry);
            })
            .or_insert(entry);
    }

    pub(super) fn check(&self, identity: &TokenIdentity<'_>) -> Result<(), Rejection> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (key, issued_at, reason) in identity.lookups() {
            if entries.by_key.get(&key).is_some_and(|entry| {
                issued_at <= entry.issued_until && Instant::now() < entry.expiry
            }) {
                return Err(revoked(reason));
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }
}
