//! The drains: of an older generation, after a hand-over, before an exit, and at a shutdown.

pub mod after_handover;
pub mod before_exit;
pub mod old_generation;
pub mod shutdown;
