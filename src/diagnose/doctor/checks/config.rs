//! The configuration: valid, applied, readable for the gateway and for no other user.

use std::path::Path;

use crate::control::protocol::Stage;
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Fix, Level, Problem, Remedy, advice, command};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "config-invalid",
        level: Level::Error,
        title: "the configuration is invalid",
        why: "The running gateway keeps the configuration that it read before. The next start uses \
               the last good configuration, or exits with 78.",
        cure: "Correct the line that is named; gatewayctl config check tests the file.",
        fixable: false,
        judge: invalid,
    },
    Check {
        code: "config-unapplied",
        level: Level::Warning,
        title: "the configuration changed but is not applied",
        why: "The next crash or boot would apply the change at an unplanned moment.",
        cure: "With --fix: the gateway reloads the file. It restarts only what changed, and loses \
               no request.",
        fixable: true,
        judge: unapplied,
    },
    Check {
        code: "config-secret",
        level: Level::Warning,
        title: "every user can read a configuration with secrets",
        why: "Every user of the machine can read the secrets in the file.",
        cure: "With --fix: other users lose access to the file. If a temporary user has to read it, \
               install with --run-as, or keep secrets in an environment file (--env-file).",
        fixable: true,
        judge: secret,
    },
    Check {
        code: "config-unreadable",
        level: Level::Error,
        title: "the gateway's user cannot read the configuration",
        why: "The running gateway goes on, but neither a reload nor the next start can read the \
               file.",
        cure: "Give the file to the group of the service's user, readable for that group.",
        fixable: false,
        judge: unreadable,
    },
];

fn invalid(facts: &DoctorFacts) -> Option<Problem> {
    let why = facts.config.invalid.as_ref()?;
    let next = command(format!(
        "gatewayctl config check --config {}",
        facts.config.path.display()
    ));
    Some(
        Problem::at(facts.config.path.display(), "it is invalid", next)?
            .with(why.lines().map(str::to_owned).collect()),
    )
}

fn unapplied(facts: &DoctorFacts) -> Option<Problem> {
    // The last good configuration is older during a start and while recovering.
    let serves = facts
        .status
        .as_ref()
        .is_some_and(|status| status.stage == Stage::Ready && status.recovery.is_none());
    if facts.config.unapplied != Some(true) || facts.config.invalid.is_some() || !serves {
        return None;
    }
    let cure = Remedy::Fix(Fix::Reload, format!("gatewayctl reload{}", facts.flags));
    Problem::at(
        facts.config.path.display(),
        "the gateway does not use this version of the file",
        cure,
    )
}

fn secret(facts: &DoctorFacts) -> Option<Problem> {
    let (mode, owner, group) = facts.config.access.filter(|(mode, ..)| mode & 0o004 != 0)?;
    if facts.config.secrets.is_empty() {
        return None;
    }
    let (path, without_others) = (&facts.config.path, mode & 0o770);
    let chmod = format!("chmod {without_others:03o} {}", path.display());
    let cure = match &facts.unit {
        Some(unit) if unit.dynamic => advice(
            "install again with --run-as USER, or keep secrets in a file with mode 0600: gatewayctl install --env-file FILE",
        ),
        // The gateway itself must still be able to read the file.
        Some(unit)
            if unit
                .uid
                .is_some_and(|uid| may_read(without_others, (owner, group), (uid, unit.gid))) =>
        {
            Remedy::Fix(Fix::Mode(path.clone(), without_others), chmod)
        }
        Some(unit) => command(give_to_group(path, unit.gid.or(unit.uid).unwrap_or(0))),
        None => command(chmod),
    };
    Problem::at(
        path.display(),
        format!(
            "every user can read {} (mode {mode:03o})",
            facts.config.secrets.join(", ")
        ),
        cure,
    )
}

fn unreadable(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let ((mode, owner, group), uid) = (facts.config.access?, unit.uid?);
    if may_read(mode, (owner, group), (uid, unit.gid)) {
        return None;
    }
    let message = format!("uid {uid} cannot read it (mode {mode:03o}, uid {owner}, gid {group})");
    Problem::at(
        facts.config.path.display(),
        message,
        command(give_to_group(&facts.config.path, unit.gid.unwrap_or(uid))),
    )
}

/// Whether a user may read a file of this mode, owner and group; root may read every file.
fn may_read(mode: u32, (owner, group): (u32, u32), (uid, gid): (u32, Option<u32>)) -> bool {
    let bit = if uid == owner {
        0o400
    } else if gid == Some(group) {
        0o040
    } else {
        0o004
    };
    uid == 0 || mode & bit != 0
}

/// The command that makes a file readable for its owner and a group only.
fn give_to_group(path: &Path, group: u32) -> String {
    format!(
        "sudo chgrp {group} {0} && sudo chmod 640 {0}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read() {
        assert!(
            may_read(0o640, (0, 7), (7, Some(7)))
                && may_read(0o600, (7, 7), (7, None))
                && may_read(0, (1, 1), (0, None))
        );
        assert!(
            !may_read(0o640, (0, 0), (7, Some(7)))
                && !may_read(0o600, (0, 7), (7, Some(7)))
                && !may_read(0o040, (7, 7), (7, Some(7)))
        );
    }
}
