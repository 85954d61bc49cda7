//! The state directory: lock, owner record, and what outlives a process.

use super::super::facts::{Facts, State};
use super::super::finding::{Check, Level, Mend, Remedy, Seen, command};
use crate::text::human::{count, span};

/// Below so many percent writes fail soon.
const FREE_LEAST: u64 = 1;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "state-owner",
        level: Level::Error,
        what: "the state directory is not the gateway's own",
        why: "Without a directory of its own the gateway gets no lock and does not start; one that others may write lets them take \
              the lock or put a token there.",
        cure: "Give it to the service's user, with mode 0700.",
        mends: false,
        judge: owner,
    },
    Check {
        code: "state-file-system",
        level: Level::Warning,
        what: "the state directory lies on a file system that forgets or does not lock",
        why: "In memory the history and the record of earlier lives are gone after a boot; over a network a lock may not hold.",
        cure: "Another --state-dir, or [gateway] state_dir, on a local disk.",
        mends: false,
        judge: file_system,
    },
    Check {
        code: "disk-full",
        level: Level::Error,
        what: "the disk of the state directory is full",
        why: "Neither the history nor a restart's announcement can be written, and the servers have the same trouble.",
        cure: "Make room.",
        mends: false,
        judge: full,
    },
    Check {
        code: "state-aside",
        level: Level::Warning,
        what: "state was damaged and set aside",
        why: "A file could not be understood, by a full disk, a crash of the machine or another program; the gateway went on without \
              it.",
        cure: "Mended: the set-aside copies are removed. Find out who damaged them if it happens again.",
        mends: true,
        judge: aside,
    },
    Check {
        code: "owner-stale",
        level: Level::Warning,
        what: "the owner record names a process that is not the gateway",
        why: "Commands that look there are told the wrong process.",
        cure: "Mended: the record is removed; the gateway writes it again at its next restart.",
        mends: true,
        judge: owner_stale,
    },
    Check {
        code: "lock-held",
        level: Level::Error,
        what: "a process that is no gateway holds the lock",
        why: "A program that inherited the lock from a gateway keeps every other one from starting.",
        cure: "End that program, or have it close what it inherited.",
        mends: false,
        judge: lock_held,
    },
    Check {
        code: "intent-stale",
        level: Level::Note,
        what: "an old announcement of a restart lies about",
        why: "It counts for 60 seconds only, so it does no harm; whoever wrote it did not finish.",
        cure: "Mended: it is removed.",
        mends: true,
        judge: intent,
    },
    Check {
        code: "drainer-overdue",
        level: Level::Warning,
        what: "an older process lives past its time",
        why: "It had handed over and should have ended; it holds memory, connections and perhaps the lock.",
        cure: "gatewayctl clean ends it when it is proven stale.",
        mends: false,
        judge: overdue,
    },
    Check {
        code: "bundle-recent",
        level: Level::Note,
        what: "something ended badly within the last day",
        why: "A diagnostics bundle is written at forced ends, failed starts and safe mode.",
        cure: "Read it: gatewayctl why, or the file itself.",
        mends: false,
        judge: bundles,
    },
];

fn state(facts: &Facts) -> Option<&State> {
    facts.state.as_ref()
}

fn owner(facts: &Facts) -> Option<Seen> {
    let state = state(facts)?;
    let wanted = facts.unit.as_ref().and_then(|unit| unit.uid);
    let dir = state.dir.display();
    if let Some(uid) = wanted.filter(|uid| *uid != state.uid && state.uid != 0) {
        return Seen::at(
            &dir,
            format!(
                "it belongs to uid {}, and the gateway runs as uid {uid}",
                state.uid
            ),
            command(format!("sudo chown -R {uid} {dir}")),
        );
    }
    if state.mode & 0o022 != 0 {
        return Seen::at(
            &dir,
            format!("others may write there (mode {:03o})", state.mode),
            command(format!("sudo chmod 700 {dir}")),
        );
    }
    None
}

fn file_system(facts: &Facts) -> Option<Seen> {
    let state = state(facts)?;
    let kind = state.poor_file_system.as_ref()?;
    Seen::at(
        state.dir.display(),
        format!("it lies on {kind}"),
        command(format!(
            "df -T {}   (then [gateway] state_dir elsewhere)",
            state.dir.display()
        )),
    )
}

fn full(facts: &Facts) -> Option<Seen> {
    let state = state(facts)?;
    let (bytes, inodes) = state.free?;
    if bytes >= FREE_LEAST && inodes >= FREE_LEAST {
        return None;
    }
    let what = if bytes < FREE_LEAST {
        "space"
    } else {
        "inodes"
    };
    Seen::at(
        state.dir.display(),
        format!("less than {FREE_LEAST} % of its {what} is free"),
        command(format!("df -h {0}; df -i {0}", state.dir.display())),
    )
}

fn aside(facts: &Facts) -> Option<Seen> {
    let state = state(facts).filter(|state| !state.aside.is_empty())?;
    let files: Vec<String> = state
        .aside
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let cure = Remedy::Mend(
        Mend::Remove(state.aside.clone()),
        format!("rm {}", files.join(" ")),
    );
    Some(
        Seen::at(
            state.dir.display(),
            format!(
                "{} could not be understood",
                count(files.len() as u64, "file")
            ),
            cure,
        )?
        .with(files),
    )
}

fn owner_stale(facts: &Facts) -> Option<Seen> {
    let (state, live) = (state(facts)?, facts.live.as_ref()?);
    let owner = state
        .owner
        .as_ref()
        .filter(|owner| owner.pid != live.pid && state.owner_lives == Some(false))?;
    let file = state.dir.join("owner.json");
    let cure = Remedy::Mend(
        Mend::Remove(vec![file.clone()]),
        format!("rm {}", file.display()),
    );
    Seen::at(
        file.display(),
        format!(
            "it names pid {}, which is gone; the gateway is pid {}",
            owner.pid, live.pid
        ),
        cure,
    )
}

fn lock_held(facts: &Facts) -> Option<Seen> {
    let state = state(facts)?;
    let (pid, name) = state.lock_holder.as_ref()?;
    Seen::at(
        state.dir.join("gateway.lock").display(),
        format!("{name} (pid {pid}) holds it"),
        command(format!("ps -fp {pid}   (then end it)")),
    )
}

fn intent(facts: &Facts) -> Option<Seen> {
    let (path, age) = state(facts)?.intent.as_ref()?;
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let cure = Remedy::Mend(
        Mend::Remove(vec![path.clone()]),
        format!("rm {}", path.display()),
    );
    Seen::at(
        path.display(),
        format!("it was written {} ago", span(age)),
        cure,
    )
}

fn overdue(facts: &Facts) -> Option<Seen> {
    let (pid, late) = state(facts)?.overdue.first()?;
    let late = span(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
    Seen::at(
        format!("pid {pid}"),
        format!("it should have ended {late} ago"),
        command(format!("gatewayctl clean{}", facts.flags)),
    )
}

fn bundles(facts: &Facts) -> Option<Seen> {
    let state = state(facts)?;
    let newest = state.bundles.first()?;
    let message = format!(
        "{} within the last day",
        count(state.bundles.len() as u64, "bundle")
    );
    Seen::at(
        newest.display(),
        message,
        command(format!("gatewayctl why{}", facts.flags)),
    )
}
