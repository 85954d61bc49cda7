//! What an older generation still does, as people read it.

use crate::control::protocol::DrainStatus;
use crate::text::human::{count, span};

/// What an older generation still does.
pub fn draining(drainer: &DrainStatus) -> String {
    let DrainStatus {
        generation,
        requests,
        tunnels,
        leases,
        pid,
        ..
    } = *drainer;
    let left = match drainer.left_ms {
        Some(left) => format!("the rest is cut in {}", span(left)),
        None => "without limit".to_owned(),
    };
    if pid != 0 && requests + tunnels + leases == 0 {
        // Another process reports its work only once, to its successor at the hand-over.
        return format!("generation {generation} (pid {pid}): finishes its work; {left}");
    }
    let mut text = format!("generation {generation}");
    if pid != 0 {
        text.push_str(&format!(" (pid {pid})"));
    }
    let (requests, tunnels) = (count(requests, "request"), count(tunnels, "tunnel"));
    text.push_str(&format!(": {requests}, {tunnels}"));
    if leases > 0 {
        text.push_str(&format!(", {}", count(leases, "lease")));
    }
    format!("{text}; {left}")
}
