//! A lock that ignores poison: use it where no holder can panic halfway through a change, so that
//! the value is whole in any case.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
