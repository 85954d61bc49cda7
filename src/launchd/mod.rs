//! The way to launchd, and what it says of a process.
//!
//! [`own_job::find`] is for a gateway that asks about itself, [`sockets::take`] gives it the sockets that
//! launchd holds. Installing and driving jobs is `service`, on top of this. What is known of launchd is from
//! its man pages (launchd.plist(5), launchctl(1), launch(3)), from its last public source (core.c of
//! launchd-842.92.1, 2014), and from prints and reports that users published.

pub mod disabled;
pub mod domain;
pub mod job_print;
pub mod keys;
pub mod launchctl;
pub mod own_job;
pub mod sockets;
pub mod throttle;

/// Before the name of the instance in the label of every job that install writes.
pub const LABEL: &str = "org.gatewayctl.";

/// The least from SIGTERM to SIGKILL that a job without ExitTimeOut has: 20 s in core.c, 5 s in the prints of
/// newer systems. What is bounded by it uses the shorter one.
pub const EXIT_TIMEOUT_LEAST: std::time::Duration = std::time::Duration::from_secs(5);

/// The most of it: who waits for an end uses the longer one.
pub const EXIT_TIMEOUT_MOST: std::time::Duration = std::time::Duration::from_secs(20);
