use std::hash::{BuildHasher as _, RandomState};

/// A random number below `end`, to spread clients and connections over time. It is no secret.
pub(crate) fn random_below(end: u32) -> u32 {
    // Each `RandomState` has new keys.
    (RandomState::new().hash_one(()) % u64::from(end)) as u32
}
