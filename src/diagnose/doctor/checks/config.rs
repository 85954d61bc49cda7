//! The configuration: valid, used, readable for the gateway and not for everybody.

use std::path::Path;

use super::super::facts::Facts;
use super::super::finding::{Check, Level, Mend, Remedy, Seen, advice, command};
use crate::control::protocol::Stage;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "config-invalid",
        level: Level::Error,
        what: "the configuration is not valid",
        why: "What runs goes on with what it read before; the next start serves with the last good configuration, or ends with 78.",
        cure: "Mend the line that is named; gatewayctl config check tries it.",
        mends: false,
        judge: invalid,
    },
    Check {
        code: "config-unapplied",
        level: Level::Warning,
        what: "the configuration changed and is not used yet",
        why: "The next crash or boot would bring the change into effect, at a moment that nobody chose.",
        cure: "Mended: the gateway reloads it; only what changed is restarted, without losing a request.",
        mends: true,
        judge: unapplied,
    },
    Check {
        code: "config-secret",
        level: Level::Warning,
        what: "a configuration with secrets is readable for everybody",
        why: "Every user of the machine can read the secrets in it.",
        cure: "Mended: the bits for others are taken away. Where a user that systemd makes up has to read it, install with --run-as, or \
               keep secrets in a file of variables (--env-file).",
        mends: true,
        judge: secret,
    },
    Check {
        code: "config-unreadable",
        level: Level::Error,
        what: "the gateway's user may not read the configuration",
        why: "What runs goes on, but neither a reload nor the next start can read it.",
        cure: "Give the file to the group of the service's user, readable for it.",
        mends: false,
        judge: unreadable,
    },
];

fn invalid(facts: &Facts) -> Option<Seen> {
    let why = facts.config.invalid.as_ref()?;
    let next = command(format!(
        "gatewayctl config check --config {}",
        facts.config.path.display()
    ));
    Some(
        Seen::at(facts.config.path.display(), "it is not valid", next)?
            .with(why.lines().map(str::to_owned).collect()),
    )
}

fn unapplied(facts: &Facts) -> Option<Seen> {
    // What is kept of the last good one is older while a start is under way, or waits after bad
    // ones.
    let serves = facts
        .live
        .as_ref()
        .is_some_and(|live| live.stage == Stage::Ready && live.recovery.is_none());
    if facts.config.unapplied != Some(true) || facts.config.invalid.is_some() || !serves {
        return None;
    }
    let cure = Remedy::Mend(Mend::Reload, format!("gatewayctl reload{}", facts.flags));
    Seen::at(
        facts.config.path.display(),
        "it is not what the gateway serves with",
        cure,
    )
}

fn secret(facts: &Facts) -> Option<Seen> {
    let (mode, owner, group) = facts.config.access.filter(|(mode, ..)| mode & 0o004 != 0)?;
    if facts.config.secrets.is_empty() {
        return None;
    }
    let (path, narrow) = (&facts.config.path, mode & 0o770);
    let chmod = format!("chmod {narrow:03o} {}", path.display());
    let cure = match &facts.unit {
        Some(unit) if unit.dynamic => advice(
            "install again with --run-as USER, or keep secrets in a file of mode 0600: gatewayctl install --env-file FILE",
        ),
        // Never so narrow that the gateway itself could not read it any more.
        Some(unit)
            if unit
                .uid
                .is_some_and(|uid| may_read(narrow, (owner, group), (uid, unit.gid))) =>
        {
            Remedy::Mend(Mend::Mode(path.clone(), narrow), chmod)
        }
        Some(unit) => command(give(path, unit.gid.or(unit.uid).unwrap_or(0))),
        None => command(chmod),
    };
    Seen::at(
        path.display(),
        format!(
            "{} may be read by everybody (mode {mode:03o})",
            facts.config.secrets.join(", ")
        ),
        cure,
    )
}

fn unreadable(facts: &Facts) -> Option<Seen> {
    let unit = facts.unit.as_ref()?;
    let ((mode, owner, group), uid) = (facts.config.access?, unit.uid?);
    if may_read(mode, (owner, group), (uid, unit.gid)) {
        return None;
    }
    let message = format!("uid {uid} may not read it (mode {mode:03o}, uid {owner}, gid {group})");
    Seen::at(
        facts.config.path.display(),
        message,
        command(give(&facts.config.path, unit.gid.unwrap_or(uid))),
    )
}

/// Whether a user may read a file of this mode, owner and group; root reads everything.
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

/// The command that makes a file readable for a group and for nobody else.
fn give(path: &Path, group: u32) -> String {
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
