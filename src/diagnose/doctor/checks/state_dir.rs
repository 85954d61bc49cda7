//! The state directory: lock, owner record and the other files that outlive a process.

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Fix, Level, Problem, Remedy, command};
use crate::text::human::{count, span};

/// In percent: below it, writes fail soon.
const FREE_LEAST: u64 = 1;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "state-owner",
        level: Level::Error,
        title: "the state directory has the wrong owner or mode",
        why: "If it belongs to another user, the gateway gets no lock and does not start. If other \
               users can write to it, they can take the lock or place a token there.",
        cure: "Give it to the service's user, with mode 0700.",
        fixable: false,
        judge: owner,
    },
    Check {
        code: "state-file-system",
        level: Level::Warning,
        title: "the file system of the state directory loses files or locks",
        why: "An in-memory file system loses the history and the record of earlier runs at boot. \
               On a network file system a lock may not hold.",
        cure: "Use another --state-dir, or [gateway] state_dir, on a local disk.",
        fixable: false,
        judge: file_system,
    },
    Check {
        code: "disk-full",
        level: Level::Error,
        title: "the disk of the state directory is full",
        why: "The gateway cannot write its history or announce a restart, and sidecars may fail \
               for the same reason.",
        cure: "Free some space.",
        fixable: false,
        judge: disk_full,
    },
    Check {
        code: "state-aside",
        level: Level::Warning,
        title: "damaged state files were set aside",
        why: "A full disk, a crash of the machine or another program damaged a file. The gateway \
               went on without it.",
        cure: "With --fix: the damaged copies are removed. If it happens again, find what damages \
               them.",
        fixable: true,
        judge: set_aside,
    },
    Check {
        code: "owner-stale",
        level: Level::Warning,
        title: "the owner record names a process that is not the gateway",
        why: "Commands that read the record look at the wrong process.",
        cure: "With --fix: the record is removed. The gateway writes it again at its next restart.",
        fixable: true,
        judge: owner_stale,
    },
    Check {
        code: "lock-held",
        level: Level::Error,
        title: "a process that is not a gateway holds the lock",
        why: "A program that inherited the lock from a gateway keeps every gateway from starting.",
        cure: "End that program, or make it close the descriptor that it inherited.",
        fixable: false,
        judge: lock_held,
    },
    Check {
        code: "intent-stale",
        level: Level::Note,
        title: "an old restart intent was left behind",
        why: "A restart intent is valid for only 60 seconds, so an old one does no harm. The \
               restart that wrote it did not finish.",
        cure: "With --fix: the file is removed.",
        fixable: true,
        judge: intent,
    },
    Check {
        code: "drainer-overdue",
        level: Level::Warning,
        title: "an old gateway process has exceeded its drain time",
        why: "It handed over and should have ended. It holds memory, connections and perhaps the \
               lock.",
        cure: "gatewayctl clean ends the process if it is proven stale.",
        fixable: false,
        judge: overdue,
    },
    Check {
        code: "bundle-recent",
        level: Level::Note,
        title: "a failure was recorded within the last day",
        why: "The gateway writes a diagnostics bundle when it is forced to end, fails to start or \
               enters safe mode.",
        cure: "Run gatewayctl why, or read the file.",
        fixable: false,
        judge: bundles,
    },
];

fn owner(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts.state_dir.as_ref()?;
    let wanted = facts.unit.as_ref().and_then(|unit| unit.uid);
    let dir = state.dir.display();
    if let Some(uid) = wanted.filter(|uid| *uid != state.uid && state.uid != 0) {
        return Problem::at(
            &dir,
            format!(
                "it belongs to uid {}, but the gateway runs as uid {uid}",
                state.uid
            ),
            command(format!("sudo chown -R {uid} {dir}")),
        );
    }
    if state.mode & 0o022 != 0 {
        return Problem::at(
            &dir,
            format!("other users can write to it (mode {:03o})", state.mode),
            command(format!("sudo chmod 700 {dir}")),
        );
    }
    None
}

fn file_system(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts.state_dir.as_ref()?;
    let kind = state.poor_file_system.as_ref()?;
    Problem::at(
        state.dir.display(),
        format!("it is on {kind}"),
        command(format!(
            "df -T {}   (then move [gateway] state_dir)",
            state.dir.display()
        )),
    )
}

fn disk_full(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts.state_dir.as_ref()?;
    let (bytes, inodes) = state.free?;
    if bytes >= FREE_LEAST && inodes >= FREE_LEAST {
        return None;
    }
    let what = if bytes < FREE_LEAST {
        "space"
    } else {
        "inodes"
    };
    Problem::at(
        state.dir.display(),
        format!("less than {FREE_LEAST} % of its {what} is free"),
        command(format!("df -h {0}; df -i {0}", state.dir.display())),
    )
}

fn set_aside(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts
        .state_dir
        .as_ref()
        .filter(|state| !state.set_aside.is_empty())?;
    let files: Vec<String> = state
        .set_aside
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let cure = Remedy::Fix(
        Fix::Remove(state.set_aside.clone()),
        format!("rm {}", files.join(" ")),
    );
    Some(
        Problem::at(
            state.dir.display(),
            format!("{} could not be read", count(files.len() as u64, "file")),
            cure,
        )?
        .with(files),
    )
}

fn owner_stale(facts: &DoctorFacts) -> Option<Problem> {
    let (state, status) = (facts.state_dir.as_ref()?, facts.status.as_ref()?);
    let owner = state
        .owner
        .as_ref()
        .filter(|owner| owner.pid != status.pid && state.owner_lives == Some(false))?;
    let file = state.dir.join("owner.json");
    let cure = Remedy::Fix(
        Fix::Remove(vec![file.clone()]),
        format!("rm {}", file.display()),
    );
    Problem::at(
        file.display(),
        format!(
            "it names pid {}, which has ended; the gateway is pid {}",
            owner.pid, status.pid
        ),
        cure,
    )
}

fn lock_held(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts.state_dir.as_ref()?;
    let (pid, name) = state.lock_holder.as_ref()?;
    Problem::at(
        state.dir.join("gateway.lock").display(),
        format!("{name} (pid {pid}) holds it"),
        command(format!("ps -fp {pid}   (then end it)")),
    )
}

fn intent(facts: &DoctorFacts) -> Option<Problem> {
    let (path, age) = facts.state_dir.as_ref()?.intent.as_ref()?;
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let cure = Remedy::Fix(
        Fix::Remove(vec![path.clone()]),
        format!("rm {}", path.display()),
    );
    Problem::at(
        path.display(),
        format!("it was written {} ago", span(age)),
        cure,
    )
}

fn overdue(facts: &DoctorFacts) -> Option<Problem> {
    let (pid, late) = facts.state_dir.as_ref()?.overdue.first()?;
    let late = span(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
    Problem::at(
        format!("pid {pid}"),
        format!("it should have ended {late} ago"),
        command(format!("gatewayctl clean{}", facts.flags)),
    )
}

fn bundles(facts: &DoctorFacts) -> Option<Problem> {
    let state = facts.state_dir.as_ref()?;
    let newest = state.bundles.first()?;
    let message = format!(
        "{} within the last day",
        count(state.bundles.len() as u64, "bundle")
    );
    Problem::at(
        newest.display(),
        message,
        command(format!("gatewayctl why{}", facts.flags)),
    )
}
