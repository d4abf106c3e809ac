//! What connections and handshakes share. `tests/models` puts a model checker's types in their place.

pub(crate) use std::sync::{
    Mutex, MutexGuard, RwLock,
    atomic::{AtomicU64, AtomicUsize},
};

pub(crate) use tokio::sync::{Notify, SetOnce};
