//! Tests of the programs as plain processes: no service manager is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod bad_input;
mod clean;
mod crash_loop;
mod crowded;
mod delivery;
mod exclusive;
mod failure;
mod field_cases;
mod forwarded;
mod forwarding;
mod handover;
mod handover_exclusive;
mod handover_faults;
mod hang_up;
mod harness;
mod hostile_answers;
mod hostile_state;
mod impostor;
mod intents;
mod internal_errors;
mod launchd;
mod leases;
mod life;
mod notices;
mod other_users;
mod owner;
mod privileges;
mod races;
mod recovery;
mod retries;
mod stale_trees;
mod stalled;
mod stalled_disk;
mod stop;
mod strangers;
mod stuck_children;
mod supervisors;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod unnamed;
mod update;
mod waiter;
mod why;
