//! The machine as far as it matters to a gateway.

use super::super::facts::Facts;
use super::super::finding::{Check, Level, Seen, command};
use crate::proxy::BACKLOG;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "journal-volatile",
        level: Level::Note,
        what: "the journal is gone after a boot",
        why: "What a gateway said before the machine went down cannot be read any more.",
        cure: "mkdir /var/log/journal, or Storage=persistent in journald.conf.",
        mends: false,
        judge: journal,
    },
    Check {
        code: "somaxconn-low",
        level: Level::Note,
        what: "the kernel's queue of new connections is short",
        why: "While nobody accepts, as between a crash and the next start, clients wait in that queue; who finds it full is \
              turned away.",
        cure: "A higher net.core.somaxconn.",
        mends: false,
        judge: somaxconn,
    },
    Check {
        code: "inotify-limit",
        level: Level::Warning,
        what: "no more files can be watched",
        why: "gatewayctl wait and programs that watch their files fail: fs.inotify.max_user_instances is used up.",
        cure: "A higher fs.inotify.max_user_instances.",
        mends: false,
        judge: inotify,
    },
];

fn journal(facts: &Facts) -> Option<Seen> {
    facts.unit.as_ref()?;
    if facts.machine.journal_kept != Some(false) {
        return None;
    }
    let next = "sudo mkdir -p /var/log/journal && sudo systemctl restart systemd-journald";
    Seen::at(
        "/run/log/journal",
        "the journal is kept in memory only",
        command(next),
    )
}

fn somaxconn(facts: &Facts) -> Option<Seen> {
    let limit = facts
        .machine
        .somaxconn
        .filter(|limit| *limit < u64::try_from(BACKLOG).unwrap_or(0))?;
    let message = format!("net.core.somaxconn is {limit}, and the gateway asks for {BACKLOG}");
    Seen::at(
        "/proc/sys/net/core/somaxconn",
        message,
        command(format!(
            "sudo sysctl -w net.core.somaxconn={BACKLOG}   (and in /etc/sysctl.d)"
        )),
    )
}

fn inotify(facts: &Facts) -> Option<Seen> {
    let why = facts.machine.inotify.as_ref()?;
    Seen::at(
        "/proc/sys/fs/inotify/max_user_instances",
        why,
        command("sudo sysctl -w fs.inotify.max_user_instances=1024   (and in /etc/sysctl.d)"),
    )
}
