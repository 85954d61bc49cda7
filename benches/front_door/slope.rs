//! Whether restarts leave anything behind: memory and descriptors after each of many.

use serde_json::{Value, json};

use super::support::gateway::{Setup, said};
use super::support::load::Load;
use super::support::servers;
use super::{Size, slope, tenths};

/// Restarts before the first sample: pools and allocator arenas reach their size.
const WARM: usize = 20;

pub fn measure(size: Size) -> Value {
    let gateway = Setup::behind(servers::node()).start();
    let load = Load {
        new_per_second: 20.0,
        kept: 10,
        ..Load::on(gateway.target())
    }
    .start();
    let (mut memory, mut fds) = (Vec::new(), Vec::new());
    for number in 0..WARM + size.slope_restarts {
        let output = gateway.ctl(["restart", "--drained"]);
        assert!(output.status.success(), "{}", said(&output));
        if number >= WARM {
            memory.push(gateway.memory_kib().0 as f64);
            fds.push(gateway.fds() as f64);
        }
    }
    let report = load.stop();
    json!({
        "restarts": size.slope_restarts,
        "resident, first / last MiB": format!("{:.1} / {:.1}", memory[0] / 1024.0, memory[memory.len() - 1] / 1024.0),
        "resident, slope, KiB per restart": slope(&memory).map(tenths),
        "open fds, first / last": format!("{} / {}", fds[0], fds[fds.len() - 1]),
        "open fds, slope per restart": slope(&fds).map(|slope| (slope * 1000.0).round() / 1000.0),
        "failed requests meanwhile": report.failures(),
    })
}
