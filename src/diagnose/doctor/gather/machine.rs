//! The machine.

use std::path::Path;

use crate::diagnose::doctor::facts::Machine;
use crate::os::platform;

/// Looks at the kernel's limits and at the journal.
pub(super) fn look() -> Machine {
    let sysctl = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let range = sysctl("net/ipv4/ip_local_port_range").and_then(|text| {
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        Some((ends.next()?.ok()?, ends.next()?.ok()?))
    });
    Machine {
        somaxconn: sysctl("net/core/somaxconn").and_then(|text| text.trim().parse().ok()),
        ephemeral: range,
        reserved: sysctl("net/ipv4/ip_local_reserved_ports")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        journal_kept: journal_kept(),
        inotify: platform::can_watch()
            .err()
            .map(|error| format!("nothing can be watched: {error}")),
    }
}

/// systemd-journald writes to /var/log/journal where it is, and to /run/log/journal else.
fn journal_kept() -> Option<bool> {
    match (
        Path::new("/var/log/journal").is_dir(),
        Path::new("/run/log/journal").is_dir(),
    ) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}
