//! The journal and the limits of the kernel.

use crate::diagnose::doctor::finding::{Check, Problem, command, root_command};
use crate::proxy::BACKLOG;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "journal-volatile",
        title: "the journal does not survive a boot",
        why: "Log lines from before a boot cannot be read any more.",
        cure: "Create /var/log/journal, or set Storage=persistent in journald.conf.",
        judge: |facts| {
            facts
                .unit
                .as_ref()
                .filter(|_| facts.machine.journal_kept == Some(false))?;
            let by_root = |command| facts.rights.as_root(command);
            let next = format!(
                "{} && {}",
                by_root("mkdir -p /var/log/journal"),
                by_root("systemctl restart systemd-journald")
            );
            let message = "the journal is kept in memory only";
            Problem::at("/run/log/journal", message, command(next))
        },
        ..Check::NOTE
    },
    Check {
        code: "somaxconn-low",
        title: "the kernel's queue for new connections is short",
        why: "While no process accepts, for example between a crash and the next start, clients \
               wait in that queue. When it is full, they are refused.",
        cure: "Raise net.core.somaxconn.",
        judge: |facts| {
            let wanted = u64::try_from(BACKLOG).unwrap_or(0);
            let limit = facts.machine.somaxconn.filter(|limit| *limit < wanted)?;
            Problem::at(
                "/proc/sys/net/core/somaxconn",
                format!("net.core.somaxconn is {limit}, but the gateway asks for {BACKLOG}"),
                root_command(
                    facts,
                    &format!("sysctl -w net.core.somaxconn={BACKLOG}   (and in /etc/sysctl.d)"),
                ),
            )
        },
        ..Check::NOTE
    },
    Check {
        code: "inotify-limit",
        title: "no more files can be watched",
        why: "fs.inotify.max_user_instances is used up: gatewayctl wait and programs that watch \
               files fail.",
        cure: "Raise fs.inotify.max_user_instances.",
        judge: |facts| {
            let why = facts.machine.inotify.as_ref()?;
            Problem::at(
                "/proc/sys/fs/inotify/max_user_instances",
                why,
                root_command(
                    facts,
                    "sysctl -w fs.inotify.max_user_instances=1024   (and in /etc/sysctl.d)",
                ),
            )
        },
        ..Check::WARNING
    },
];
