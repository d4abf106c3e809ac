use std::sync::PoisonError;

use crate::sync::{Mutex, MutexGuard};

/// Locks a mutex whose value is valid between any two statements, so that a panic does no harm.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
