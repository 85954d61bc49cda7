//! The programs behind the front door: started, watched, restarted when they die, stopped by pidfd.
//!
//! [`Sidecar::start`] makes a task that owns one process at a time; outside only its
//! [`SidecarState`] is seen and only [`Sidecar::stop`] can be asked.

mod backoff;
pub mod drain_notice;
mod environment;
mod failed_workers;
mod first_request;
mod handle;
mod keeper;
pub mod loopback;
mod notify_socket;
mod oneshot;
mod output;
mod own_restart;
pub mod presets;
mod process;
mod readiness;
mod repetition;
mod runner;
mod secret_lines;
mod serving;
mod start_order;
mod state;
mod unused_variables;
mod variables;

pub use backoff::GOOD;
pub use environment::{Inherited, started_from};
pub use handle::Sidecar;
pub use oneshot::oneshot;
pub use runner::EXTENSIONS;
pub use state::{SidecarFailure, SidecarNews, SidecarStart, SidecarState, StartsBefore};
pub use unused_variables::unused_variables;
