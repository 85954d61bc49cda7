//! What outlives a process: the state directory, the lock, the owner record, a restart's intent,
//! the record of earlier lives.

pub mod aside;
pub mod atomic;
pub mod boottime;
pub mod bundle;
pub mod good;
pub mod history;
pub mod intent;
pub mod lock;
pub mod owner;
pub mod paths;
pub mod throttle;
pub mod trace;
