//! From the start of the process to its `ready` line, and what it then occupies.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::support::gateway::{READY, Setup};
use super::support::servers;
use super::{Size, middle_and_most, tenths};

pub fn measure(size: Size) -> Value {
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..size.starts {
        let began = Instant::now();
        let gateway = Setup::new().spawn();
        gateway.wait_line(READY);
        starts.push(began.elapsed().as_secs_f64() * 1000.0);
        resident.push(gateway.memory_kib().0 as f64 / 1024.0);
    }
    let (start, slowest) = middle_and_most(&mut starts);
    let (idle, _) = middle_and_most(&mut resident);
    let behind = Setup::behind(servers::node()).start();
    json!({
        "start to ready, no sidecar, p50 ms": tenths(start),
        "start to ready, no sidecar, max ms": tenths(slowest),
        "resident idle, no sidecar, MiB": tenths(idle),
        "resident idle, one sidecar, MiB": tenths(behind.memory_kib().0 as f64 / 1024.0),
        "proportional idle, one sidecar, MiB": tenths(proportional_kib(behind.pid()) / 1024.0),
        "open fds idle, one sidecar": behind.fds(),
    })
}

fn proportional_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}
