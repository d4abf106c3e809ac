//! What connections and handshakes share. `tests/models` puts a model checker's types in their place.

#[cfg(feature = "token")]
pub(crate) use std::sync::RwLock;
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize},
};

pub(crate) use tokio::sync::{Notify, SetOnce};
