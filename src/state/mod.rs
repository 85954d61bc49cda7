//! What outlives a process: the state directory, the lock, the owner record, a restart's intent,
//! the record of earlier lives.

pub mod atomic_file;
pub mod boot_time;
pub mod clients_seen;
pub mod diagnostic_bundle;
pub mod history;
pub mod last_good_config;
pub mod lock;
pub mod owner;
pub mod passage;
pub mod paths;
pub mod private_dir;
pub mod remove_tree;
pub mod restart_intent;
pub mod startup_throttle;
pub mod terms;
pub mod trace;
pub mod untrusted_file;
