//! The limits of the kernel, and the journal.

use std::path::Path;

use crate::diagnose::doctor::facts::MachineFacts;
use crate::os::platform;

pub(super) fn look() -> MachineFacts {
    let sysctl = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let range = sysctl("net/ipv4/ip_local_port_range").and_then(|text| {
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        Some((ends.next()?.ok()?, ends.next()?.ok()?))
    });
    MachineFacts {
        somaxconn: sysctl("net/core/somaxconn").and_then(|text| text.trim().parse().ok()),
        ephemeral_ports: range,
        reserved_ports: sysctl("net/ipv4/ip_local_reserved_ports")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        journal_kept: journal_kept(),
        inotify: platform::can_watch()
            .err()
            .map(|error| format!("nothing can be watched: {error}")),
    }
}

/// systemd-journald writes to /var/log/journal if that exists, else to /run/log/journal.
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
