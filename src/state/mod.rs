//! What outlives a process: the state directory, the lock, the owner record.

pub mod atomic;
pub mod lock;
pub mod owner;
pub mod paths;
