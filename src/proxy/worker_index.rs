//! Which of the worker threads this is, so that each keeps its upstream connections to itself.

use std::cell::Cell;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The index of this thread, from 0; 0 also for threads that are no workers.
pub fn get() -> usize {
    INDEX.get()
}

/// Makes this thread the worker with this index.
pub fn set(index: usize) {
    INDEX.set(index);
}
