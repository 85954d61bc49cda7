//! What outlives a process: the state directory, the lock, the owner record, a restart's intent.

pub mod atomic;
pub mod intent;
pub mod lock;
pub mod owner;
pub mod paths;
