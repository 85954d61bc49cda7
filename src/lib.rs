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
//! | module | what it does |
//! |---|---|
//! | [`config`] | what the user wrote, checked |
//! | [`state`] | what outlives a process: lock, owner record, the record of earlier lives, atomic files |
//! | [`escape`], [`redact`], [`log`], [`trace`] | control characters made harmless, secrets hidden; the journal or standard error; where time went |
//! | [`oom`] | whether the kernel ended a process for want of memory |
//! | `darwin`, [`platform`] | what macOS tells of processes and sockets; system calls that exist on one system only, and their twins |
//! | [`process`] | what the kernel tells of processes and their kin |
//! | [`port`] | free ports, which sockets listen, and who holds them |
//! | [`front`] | listeners, connections, routes, forwarding, tunnels, holding |
//! | [`sidecar`] | processes: start, readiness, output, restart, end |
//! | [`systemd`] | the way to a service manager over D-Bus, and what it says of a process |
//! | [`supervisor`] | who supervises this process, what systemd is told, and the sockets it passes on |
//! | [`control`] | frames between gatewayctl and a gateway, over a unix socket |
//! | [`stale`] | gateways left behind on a port: proof, and their end |
//! | [`gateway`] | generations, the lifecycle machine and its driver |
//! | [`service`] | installing and driving a service under systemd |
//! | [`cli`] | command lines of both programs |
//!
//! Imports point one way: `process`, `config` and `state` at the bottom, `systemd` on them;
//! `front`, `sidecar`, `supervisor` and `port` above, `control` and `stale` on those; `gateway`
//! assembles them; `service` and `cli` stand outside and speak to a gateway only through its
//! control socket, its state files and the service manager. Nothing imports `cli` but the two
//! programs.

pub mod cli;
pub mod config;
pub mod control;
#[cfg(any(test, target_os = "macos"))]
pub mod darwin;
pub mod escape;
pub mod front;
pub mod gateway;
pub mod log;
mod mutex;
pub mod oom;
pub mod platform;
pub mod port;
pub mod process;
pub mod redact;
pub mod service;
pub mod sidecar;
pub mod stale;
pub mod state;
pub mod supervisor;
pub mod systemd;
pub mod trace;
