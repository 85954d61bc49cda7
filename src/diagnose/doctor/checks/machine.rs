//! The journal and the limits of the kernel.

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Level, Problem, command};
use crate::proxy::BACKLOG;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "journal-volatile",
        level: Level::Note,
        title: "the journal does not survive a boot",
        why: "Log lines from before a boot cannot be read any more.",
        cure: "Create /var/log/journal, or set Storage=persistent in journald.conf.",
        fixable: false,
        judge: journal,
    },
    Check {
        code: "somaxconn-low",
        level: Level::Note,
        title: "the kernel's queue for new connections is short",
        why: "While no process accepts, for example between a crash and the next start, clients \
               wait in that queue. When it is full, they are refused.",
        cure: "Raise net.core.somaxconn.",
        fixable: false,
        judge: somaxconn,
    },
    Check {
        code: "inotify-limit",
        level: Level::Warning,
        title: "no more files can be watched",
        why: "fs.inotify.max_user_instances is used up: gatewayctl wait and programs that watch \
               files fail.",
        cure: "Raise fs.inotify.max_user_instances.",
        fixable: false,
        judge: inotify,
    },
];

fn journal(facts: &DoctorFacts) -> Option<Problem> {
    facts.unit.as_ref()?;
    if facts.machine.journal_kept != Some(false) {
        return None;
    }
    let next = "sudo mkdir -p /var/log/journal && sudo systemctl restart systemd-journald";
    Problem::at(
        "/run/log/journal",
        "the journal is kept in memory only",
        command(next),
    )
}

fn somaxconn(facts: &DoctorFacts) -> Option<Problem> {
    let limit = facts
        .machine
        .somaxconn
        .filter(|limit| *limit < u64::try_from(BACKLOG).unwrap_or(0))?;
    let message = format!("net.core.somaxconn is {limit}, but the gateway asks for {BACKLOG}");
    Problem::at(
        "/proc/sys/net/core/somaxconn",
        message,
        command(format!(
            "sudo sysctl -w net.core.somaxconn={BACKLOG}   (and in /etc/sysctl.d)"
        )),
    )
}

fn inotify(facts: &DoctorFacts) -> Option<Problem> {
    let why = facts.machine.inotify.as_ref()?;
    Problem::at(
        "/proc/sys/fs/inotify/max_user_instances",
        why,
        command("sudo sysctl -w fs.inotify.max_user_instances=1024   (and in /etc/sysctl.d)"),
    )
}
