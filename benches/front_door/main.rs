//! What the front door costs and what a restart does to its clients, measured, not judged.
//!
//! ```sh
//! cargo bench --bench front_door                 # all of it, some minutes
//! cargo bench --bench front_door -- --quick      # half a minute, rougher
//! cargo bench --bench front_door -- --only proxy --json
//! ```
//!
//! Parts: `start` (start to ready, idle memory), `restart` and `respawn` (restart time, longest gap
//! and added p99 against an undisturbed run of the same length, in-process and in a fresh process),
//! `systemd` (the same under a real systemd for respawn and exit, and from kill -9 to the first
//! answer; needs root), `slope` (memory and descriptors over 300 restarts), `stalls` (p99 of status and
//! of requests, and the time of a stop, beside what stands still), `memory` (what clients that stand
//! still cost, and until when), `crowd` (10,000 clients under 4,096 descriptors, /healthz and status
//! meanwhile), `slow` (p99 of others beside slow clients, also during restarts), all three beside nginx
//! with two workers, `proxy` (requests per second of the proxy's own CPU, beside nginx on the same
//! upstream in the same run, with and without an access log and request ids).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod crowd;
mod memory;
mod nginx;
#[path = "../shared/parts.rs"]
mod parts;
mod proxy;
mod restart;
mod slope;
mod slow;
mod stalls;
mod start;
mod systemd;

use gateway::internals::{middle_and_most, slope};
use serde_json::Value;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Size {
    /// Starts of a gateway with nothing behind it.
    starts: usize,
    /// Restarts under load.
    restarts: usize,
    /// Restarts over which slopes are taken.
    slope_restarts: usize,
    /// Rounds of wrk against each proxy.
    rounds: usize,
    /// Seconds of each round.
    seconds: u64,
    /// Clients of each kind that stand still.
    standing: usize,
    /// Clients of each kind that are slow.
    slow: usize,
}

const FULL: Size = Size {
    starts: 20,
    restarts: 20,
    slope_restarts: 300,
    rounds: 3,
    seconds: 8,
    standing: 500,
    slow: 2000,
};
const QUICK: Size = Size {
    starts: 5,
    restarts: 5,
    slope_restarts: 30,
    rounds: 1,
    seconds: 3,
    standing: 100,
    slow: 200,
};

fn main() {
    let parts: [parts::Part<Size>; 10] = [
        ("start", start::measure),
        ("restart", restart::in_process),
        ("respawn", restart::respawn),
        ("systemd", systemd::measure),
        ("slope", slope::measure),
        ("stalls", stalls::measure),
        ("memory", memory::measure),
        ("crowd", crowd::measure),
        ("slow", slow::measure),
        ("proxy", proxy::measure),
    ];
    parts::run("front_door", FULL, QUICK, &parts);
}

/// One decimal is all that these measurements are worth.
pub fn tenths(value: f64) -> Value {
    Value::from(gateway::internals::tenths(value))
}
