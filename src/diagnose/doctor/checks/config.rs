//! The configuration: valid, applied, readable for the gateway and for no other user.

use crate::control::protocol::Stage;
use crate::diagnose::doctor::facts::{DoctorFacts, FileAccess};
use crate::diagnose::doctor::finding::{Check, Fix, Problem, Remedy, advice, command, lines};
use crate::text::shell;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "config-invalid",
        title: "the configuration is invalid",
        why: "The running gateway keeps the configuration that it read before. The next start uses \
               the last good configuration, or exits with 78.",
        cure: "Correct the line that is named; gatewayctl config check tests the file.",
        judge: |facts| {
            let why = facts.config.invalid.as_ref()?;
            let path = shell::word(&facts.config.path);
            let next = command(format!("gatewayctl config check --config {path}"));
            Problem::with(lines(why), path, "it is invalid", next)
        },
        ..Check::ERROR
    },
    Check {
        code: "config-unapplied",
        title: "the configuration changed but is not applied",
        why: "The next crash or boot would apply the change at an unplanned moment.",
        cure: "With --fix: the gateway reloads the file. It restarts only what changed, and loses \
               no request.",
        fixable: true,
        judge: |facts| {
            let (config, status) = (&facts.config, facts.status.as_ref()?);
            // The last good configuration is older during a start and while recovering.
            let serves = status.stage == Stage::Ready && status.recovery.is_none();
            if config.unapplied != Some(true) || config.invalid.is_some() || !serves {
                return None;
            }
            let cure = Remedy::Fix(Fix::Reload, format!("gatewayctl reload{}", facts.flags));
            let message = "the gateway does not use this version of the file";
            Problem::at(config.path.display(), message, cure)
        },
        ..Check::WARNING
    },
    Check {
        code: "sidecar-unreached",
        title: "no route leads to a sidecar",
        why: "The gateway starts it, and no client reaches it.",
        cure: "Add a [[route]] for it, or remove it. Without a route, requests go to the only sidecar, \
               or to the one called main.",
        judge: |facts| {
            let config = facts.config.valid.as_ref()?;
            let unreached = config.unreached();
            let name = unreached.first()?;
            let next = advice(format!("add [[route]] with to = \"{name}\""));
            let message = format!("no route leads to {}", unreached.join(", "));
            Problem::at(facts.config.path.display(), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "config-secret",
        title: "every user can read a configuration with secrets",
        why: "Every user of the machine can read the secrets in the file.",
        cure: "With --fix: other users lose access to the file. If a temporary user has to read it, \
               install with --run-as, or keep secrets in an environment file (--env-file).",
        fixable: true,
        judge: secret,
        ..Check::WARNING
    },
    Check {
        code: "config-unreadable",
        title: "the gateway's user cannot read the configuration",
        why: "The running gateway goes on, but neither a reload nor the next start can read the \
               file.",
        cure: "Give the file to the group of the service's user, readable for that group.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let (access, uid) = (facts.config.access?, unit.uid?);
            if access.lets_read(uid, unit.gid) {
                return None;
            }
            let FileAccess { mode, owner, group } = access;
            let message =
                format!("uid {uid} cannot read it (mode {mode:03o}, uid {owner}, gid {group})");
            let cure = give_to_group(facts, unit.gid.unwrap_or(uid));
            Problem::at(facts.config.path.display(), message, cure)
        },
        ..Check::ERROR
    },
];

fn secret(facts: &DoctorFacts) -> Option<Problem> {
    let config = &facts.config;
    let access = config.access.filter(|access| access.mode & 0o004 != 0)?;
    if config.secrets.is_empty() {
        return None;
    }
    let path = shell::word(&config.path);
    let restricted = FileAccess {
        mode: access.mode & 0o770,
        ..access
    };
    let chmod = format!("chmod {:03o} {path}", restricted.mode);
    let cure = match &facts.unit {
        Some(unit) if unit.dynamic => advice(
            "install again with --run-as USER, or keep secrets in a file with mode 0600: gatewayctl install --env-file FILE",
        ),
        // The gateway itself must still be able to read the file.
        Some(unit)
            if unit
                .uid
                .is_some_and(|uid| restricted.lets_read(uid, unit.gid)) =>
        {
            Remedy::Fix(Fix::Mode(config.path.clone(), restricted.mode), chmod)
        }
        Some(unit) => give_to_group(facts, unit.gid.or(unit.uid).unwrap_or(0)),
        None => command(chmod),
    };
    let secrets = config.secrets.join(", ");
    let message = format!("every user can read {secrets} (mode {:03o})", access.mode);
    Problem::at(path, message, cure)
}

/// Makes the file readable for its owner and a group only.
fn give_to_group(facts: &DoctorFacts, group: u32) -> Remedy {
    let path = shell::word(&facts.config.path);
    let by_root = |command: String| facts.rights.as_root(&command);
    command(format!(
        "{} && {}",
        by_root(format!("chgrp {group} {path}")),
        by_root(format!("chmod 640 {path}"))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read() {
        let may_read = |mode, (owner, group), (uid, gid)| {
            FileAccess { mode, owner, group }.lets_read(uid, gid)
        };
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
