//! The configuration: valid, used, readable for the gateway and not for everybody.

use super::super::facts::Facts;
use super::super::finding::{Check, Level, Mend, Remedy, Seen, advice, command};

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
    let next = command(format!("gatewayctl config check --config {}", facts.config.path.display()));
    Some(Seen::at(facts.config.path.display(), "it is not valid", next)?.with(why.lines().map(str::to_owned).collect()))
}

fn unapplied(facts: &Facts) -> Option<Seen> {
    if facts.config.unapplied != Some(true) || facts.config.invalid.is_some() || facts.live.is_none() {
        return None;
    }
    let cure = Remedy::Mend(Mend::Reload, format!("gatewayctl reload{}", facts.flags));
    Seen::at(facts.config.path.display(), "it is not what the gateway serves with", cure)
}

fn secret(facts: &Facts) -> Option<Seen> {
    let (mode, ..) = facts.config.access.filter(|(mode, ..)| mode & 0o004 != 0)?;
    if facts.config.secrets.is_empty() {
        return None;
    }
    let path = &facts.config.path;
    let made_up = facts.unit.as_ref().is_some_and(|unit| unit.dynamic);
    let cure = if made_up {
        advice("install again with --run-as USER, or keep secrets in a file of mode 0600: gatewayctl install --env-file FILE")
    } else {
        let mode = mode & 0o770;
        Remedy::Mend(Mend::Mode(path.clone(), mode), format!("chmod {mode:03o} {}", path.display()))
    };
    Seen::at(path.display(), format!("{} may be read by everybody (mode {mode:03o})", facts.config.secrets.join(", ")), cure)
}

fn unreadable(facts: &Facts) -> Option<Seen> {
    let unit = facts.unit.as_ref()?;
    let ((mode, owner, group), uid) = (facts.config.access?, unit.uid.filter(|uid| *uid != 0)?);
    let may = if uid == owner {
        mode & 0o400 != 0
    } else if unit.gid == Some(group) {
        mode & 0o040 != 0
    } else {
        mode & 0o004 != 0
    };
    if may {
        return None;
    }
    let path = facts.config.path.display();
    let gid = unit.gid.unwrap_or(uid);
    Seen::at(
        &path,
        format!("uid {uid} may not read it (mode {mode:03o}, uid {owner}, gid {group})"),
        command(format!("sudo chgrp {gid} {path} && sudo chmod 640 {path}")),
    )
}
