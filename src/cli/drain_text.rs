//! What an older generation still does, as people read it.

use crate::control::protocol::DrainStatus;
use crate::text::human::{count, span};

/// What an older generation still does.
pub fn draining(drainer: &DrainStatus) -> String {
    let left = match drainer.left_ms {
        Some(left) => format!("the rest is cut in {}", span(left)),
        None => "without limit".to_owned(),
    };
    let pid = if drainer.pid == 0 {
        String::new()
    } else {
        format!(" (pid {})", drainer.pid)
    };
    let leases = if drainer.leases > 0 {
        format!(", {}", count(drainer.leases, "lease"))
    } else {
        String::new()
    };
    if drainer.pid != 0 && drainer.requests + drainer.tunnels + drainer.leases == 0 {
        // Another process tells its successor how much it has left, and nobody after that.
        return format!(
            "generation {}{pid}: finishes its work; {left}",
            drainer.generation
        );
    }
    let (requests, tunnels) = (
        count(drainer.requests, "request"),
        count(drainer.tunnels, "tunnel"),
    );
    format!(
        "generation {}{pid}: {requests}, {tunnels}{leases}; {left}",
        drainer.generation
    )
}
