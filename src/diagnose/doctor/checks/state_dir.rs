//! The state directory: lock, owner record and the other files that outlive a process.

use std::path::PathBuf;
use std::time::Duration;

use crate::diagnose::doctor::finding::{Check, Fix, Problem, Remedy, command, root_command};
use crate::state::owner;
use crate::text::human::{count, span};
use crate::text::shell;

/// In percent: below it, writes fail soon.
const FREE_LEAST: u64 = 1;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "state-owner",
        title: "the state directory has the wrong owner or mode",
        why: "If it belongs to another user, the gateway gets no lock and does not start. If other \
               users can write to it, they can take the lock or place a token there.",
        cure: "Give it to the service's user, with mode 0700.",
        judge: |facts| {
            let state = facts.state_dir.as_ref()?;
            let (dir, owner, mode) = (shell::word(&state.dir), state.uid, state.mode);
            let wanted = facts.unit.as_ref().and_then(|unit| unit.uid);
            if let Some(uid) = wanted.filter(|uid| *uid != owner && owner != 0) {
                let message =
                    format!("it belongs to uid {owner}, but the gateway runs as uid {uid}");
                return Problem::at(
                    &dir,
                    message,
                    root_command(facts, &format!("chown -R {uid} {dir}")),
                );
            }
            if mode & 0o022 == 0 {
                return None;
            }
            let message = format!("other users can write to it (mode {mode:03o})");
            Problem::at(
                &dir,
                message,
                root_command(facts, &format!("chmod 700 {dir}")),
            )
        },
        ..Check::ERROR
    },
    Check {
        code: "state-file-system",
        title: "the file system of the state directory loses files or locks",
        why: "An in-memory file system loses the history and the record of earlier runs at boot. \
               On a network file system a lock may not hold.",
        cure: "Use another --state-dir, or [gateway] state_dir, on a local disk.",
        judge: |facts| {
            let state = facts.state_dir.as_ref()?;
            let kind = state.poor_file_system.as_ref()?;
            let dir = shell::word(&state.dir);
            let next = command(format!("df -T {dir}   (then move [gateway] state_dir)"));
            Problem::at(&dir, format!("it is on {kind}"), next)
        },
        ..Check::WARNING
    },
    Check {
        code: "disk-full",
        title: "the disk of the state directory is full",
        why: "The gateway cannot write its history or announce a restart, and sidecars may fail \
               for the same reason.",
        cure: "Free some space.",
        judge: |facts| {
            let state = facts.state_dir.as_ref()?;
            let what = match state.free? {
                (bytes, _) if bytes < FREE_LEAST => "space",
                (_, inodes) if inodes < FREE_LEAST => "inodes",
                _ => return None,
            };
            let dir = shell::word(&state.dir);
            let message = format!("less than {FREE_LEAST} % of its {what} is free");
            Problem::at(&dir, message, command(format!("df -h {dir}; df -i {dir}")))
        },
        ..Check::ERROR
    },
    Check {
        code: "state-aside",
        title: "damaged state files were set aside",
        why: "A full disk, a crash of the machine or another program damaged a file. The gateway \
               went on without it.",
        cure: "With --fix: the damaged copies are removed. If it happens again, find what damages \
               them.",
        fixable: true,
        judge: |facts| {
            let state = facts.state_dir.as_ref()?;
            state.set_aside.first()?;
            let files = names(&state.set_aside);
            let message = format!("{} could not be read", count(files.len() as u64, "file"));
            let cure = remove(&state.set_aside);
            Problem::with(files, state.dir.display(), message, cure)
        },
        ..Check::WARNING
    },
    Check {
        code: "owner-stale",
        title: "the owner record names a process that is not the gateway",
        why: "Commands that read the record look at the wrong process.",
        cure: "With --fix: the record is removed. The gateway writes it again at its next restart.",
        fixable: true,
        judge: |facts| {
            let (state, status) = (facts.state_dir.as_ref()?, facts.status.as_ref()?);
            let (recorded, pid) = (state.owner.as_ref()?.pid, status.pid);
            if recorded == pid || state.owner_lives != Some(false) {
                return None;
            }
            let file = state.dir.join(owner::FILE);
            let message =
                format!("it names pid {recorded}, which has ended; the gateway is pid {pid}");
            Problem::at(file.display(), message, remove(std::slice::from_ref(&file)))
        },
        ..Check::WARNING
    },
    Check {
        code: "lock-held",
        title: "a process that is not a gateway holds the lock",
        why: "A program that inherited the lock from a gateway keeps every gateway from starting.",
        cure: "End that program, or make it close the descriptor that it inherited.",
        judge: |facts| {
            let state = facts.state_dir.as_ref()?;
            let (pid, name) = state.lock_holder.as_ref()?;
            let lock = state.dir.join("gateway.lock");
            let next = command(format!("ps -fp {pid}   (then end it)"));
            Problem::at(lock.display(), format!("{name} (pid {pid}) holds it"), next)
        },
        ..Check::ERROR
    },
    Check {
        code: "intent-stale",
        title: "an old restart intent was left behind",
        why: "A restart intent is valid for only 60 seconds, so an old one does no harm. The \
               restart that wrote it did not finish.",
        cure: "With --fix: the file is removed.",
        fixable: true,
        judge: |facts| {
            let (path, age) = facts.state_dir.as_ref()?.intent.as_ref()?;
            let message = format!("it was written {} ago", span(millis(*age)));
            Problem::at(path.display(), message, remove(std::slice::from_ref(path)))
        },
        ..Check::NOTE
    },
    Check {
        code: "drainer-overdue",
        title: "an old gateway process has exceeded its drain time",
        why: "It handed over and should have ended. It holds memory, connections and perhaps the \
               lock.",
        cure: "gatewayctl clean ends the process if it is proven stale.",
        judge: |facts| {
            let (pid, late) = facts.state_dir.as_ref()?.overdue.first()?;
            let message = format!("it should have ended {} ago", span(millis(*late)));
            let next = command(format!("gatewayctl clean{}", facts.flags));
            Problem::at(format!("pid {pid}"), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "bundle-recent",
        title: "a failure was recorded within the last day",
        why: "The gateway writes a diagnostics bundle when it is forced to end, fails to start or \
               enters safe mode.",
        cure: "Run gatewayctl why, or read the file.",
        judge: |facts| {
            let bundles = &facts.state_dir.as_ref()?.bundles;
            let newest = bundles.first()?.display();
            let message = format!(
                "{} within the last day",
                count(bundles.len() as u64, "bundle")
            );
            let next = command(format!("gatewayctl why{}", facts.flags));
            Problem::at(newest, message, next)
        },
        ..Check::NOTE
    },
];

/// Removes files of the state directory with `--fix`.
fn remove(paths: &[PathBuf]) -> Remedy {
    let words: Vec<String> = paths.iter().map(shell::word).collect();
    let text = format!("rm {}", words.join(" "));
    let files = paths.iter().filter_map(|path| path.file_name());
    Remedy::Fix(
        Fix::RemoveState(files.map(ToOwned::to_owned).collect()),
        text,
    )
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    let names = paths.iter().map(|path| path.display().to_string());
    names.collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
