//! Which of the serving threads this is, so that each keeps its upstream connections to itself.

use std::cell::Cell;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The index of this thread, from 0; 0 too for threads that serve nobody.
pub fn index() -> usize {
    INDEX.get()
}

/// Says which worker this thread is.
pub fn become_worker(index: usize) {
    INDEX.set(index);
}
