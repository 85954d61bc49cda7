//! A restart-safe front door for the programs on a machine.
//!
//! # Theory
//!
//! A **generation** is one checked configuration with its sidecars, its routes and its readiness. A
//! gateway process owns the **listeners** and the client connections, and serves exactly one
//! current generation. A **restart** builds the next generation beside it, shows it ready, sends
//! new requests to it, lets the old one finish its work, and reports. If the next generation does
//! not become ready, the old one serves on and the restart ends failed.
//!
//! A client connection belongs to the process, not to a generation: for each request the routing
//! table that is current at that moment is looked up, and the backend's **door** decides. An open
//! door lets the request through; a held one makes it wait (the server behind is away, or must not
//! run twice and is being replaced); one that is gone sends it back to the table. Whatever went
//! through holds a **ticket** until its last byte, and a **drain** waits for tickets.
//!
//! A **sidecar** is a program behind the front door: a task owns one process at a time, restarts it
//! when it dies, and shows only its state. What the next step is, is decided by a pure machine
//! ([`gateway::lifecycle`]) that takes events and gives actions; a driver performs them. So every
//! order of events can be tried without a process.
//!
//! The sockets outlive the process where somebody can hold them: under systemd they lie in its fd
//! store, so a crash or `systemctl restart` closes no port, and whoever connects meanwhile waits in
//! the queue of the very same socket.
//!
//! Four promises, in this order when they pull against each other: nothing is lost; nothing healthy
//! is killed; it always comes back; it says what happened.
//!
//! # Map
//!
//! Layers, from the bottom to the top. A module imports only modules above it in this table;
//! `service`, `diagnose` and `cli` do not import `gateway`: they speak to a gateway only through
//! its control socket, its state files and the service manager.
//!
//! | module | what it does |
//! |---|---|
//! | [`text`] | text that leaves the process: control characters escaped, secrets redacted, the log |
//! | [`config`] | what the user wrote, checked |
//! | [`os`] | what the kernel tells and does: processes, ports, descriptors, out-of-memory kills, and the macOS twins |
//! | [`state`] | files that outlive a process: lock, owner record, restart intent, history, throttle record |
//! | [`systemd`] | D-Bus connection, unit facts, notifications, passed sockets |
//! | [`supervisor`] | who supervises this process |
//! | [`control`] | the protocol between gatewayctl and a gateway, over a unix socket |
//! | [`proxy`] | listeners, connections, routes, forwarding, tunnels, held requests |
//! | [`sidecar`] | processes behind the front door: start, readiness, output, restart, end |
//! | [`stale`] | gateways left behind on a port: proof, and their end |
//! | [`gateway`] | generations, the lifecycle machine, hand-over, recovery, and the run loop |
//! | [`service`] | installs and drives a service under systemd or launchd |
//! | [`diagnose`] | facts in, findings out: `doctor` and `why` |
//! | [`cli`] | the command lines of both programs |

pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod diagnose;
pub(crate) mod gateway;
pub(crate) mod os;
pub(crate) mod proxy;
pub(crate) mod service;
pub(crate) mod sidecar;
pub(crate) mod stale;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod systemd;
pub(crate) mod text;

/// What the two programs call.
#[doc(hidden)]
pub mod programs {
    pub use crate::cli::args::{CtlCli, GatewayCli, GatewayCommand};
    pub use crate::cli::commands::config::verdict as check_config;
    pub use crate::cli::{Exit, gatewayctl, unusable};
    pub use crate::config::{Env, Overrides};
    pub use crate::gateway::{hold_signals, prove, release_signals, run};
    pub use crate::text::log;
}

/// What the tests and benchmarks read and write beside the two programs. Everything else is private
/// to the crate, so that the compiler names code that nobody uses.
#[doc(hidden)]
pub mod internals {
    pub use crate::config::Listen;
    pub use crate::control::server::bind as bind_control_socket;
    pub use crate::gateway::strategy::MAX_DRAINERS;
    pub use crate::os::port::{Depth, who as port_holders};
    pub use crate::os::process::{PidFd, Process, Stat};
    pub use crate::service::provenance::{Written, sign};
    pub use crate::service::sandbox::Sandbox;
    pub use crate::service::unit_text::{RunAs, UnitPlan, UnitSubject, default_socket};
    pub use crate::state::boot_time::BootTime;
    pub use crate::state::lock::Lock;
    pub use crate::state::owner::{Drainer, Owner, boot_id, start_time};
    pub use crate::state::paths::Scope;
    pub use crate::state::restart_intent::{Intent, write as write_intent};
    pub use crate::supervisor::{Evidence, HINTS, detect};
    pub use crate::systemd::unit::facts_of;
    pub use crate::systemd::{ANSWER as DBUS_ANSWER, Notifier, machine_stopping};
}
