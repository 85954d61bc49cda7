//! The job of launchd: its property list, and what launchd does with it.

use std::collections::BTreeSet;

use crate::config::Listen;
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Problem, advice, command};
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::keys::KeyProblem;
use crate::text::shell;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "job-unreachable",
        title: "launchd cannot be asked about the job",
        why: "Nothing is known of whether it runs, and no command can start or stop it.",
        cure: "Run launchctl print with the job's name and see what it says.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let why = job.survey.as_ref().err()?;
            let next = command("launchctl print-disabled user/$(id -u)");
            Problem::at(job.place(), why.clone(), next)
        },
        ..Check::ERROR
    },
    Check {
        code: "job-file",
        title: "launchd does not take the property list",
        why: "launchd loads a property list only if it is well formed, belongs to root or, for an \
              agent, to that user, and nobody else may write it. The job goes on, but the next \
              login, boot or start does not load it.",
        cure: "Give the file back to its owner, take the right to write from all others, and \
               install again where its text is damaged.",
        judge: file,
        ..Check::ERROR
    },
    Check {
        code: "job-key",
        title: "launchd ignores a key of the property list",
        why: "launchd says nothing of a key that it does not know, or of a value of another type: \
              what it should do is not done. EnableTransactions makes launchd kill the gateway at \
              a stop, without time for the work under way.",
        cure: "Correct or remove the key, then run gatewayctl restart --force, which has launchd \
               read the file.",
        judge: keys,
        ..Check::WARNING
    },
    Check {
        code: "job-changed",
        title: "launchd has not read the property list that is there now",
        why: "launchd reads a property list when it loads it. What was changed since \
              applies only after the job was unloaded and loaded.",
        cure: "Run gatewayctl restart --force, which loads it anew.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            job.survey().filter(|survey| survey.is_changed)?;
            let message = "it was changed after it was loaded";
            Problem::at(job.place(), message, restart(facts))
        },
        ..Check::WARNING
    },
    Check {
        code: "job-identity",
        title: "launchd may refuse to start the program that is there now",
        why: "launchd notes the identity of a program when it loads the job. It was \
              replaced since, and the kernel may end the new one at each start, until \
              launchd loads the job anew. What runs goes on, and restarts stay in its process.",
        cure: "Run gatewayctl restart --force, which loads it anew. gatewayctl update does so by itself.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let survey = job.survey().filter(|survey| survey.is_refused)?;
            let program = survey.program.as_ref()?.display().to_string();
            let message = format!("{program} was replaced after launchd noted its identity");
            Problem::at(&job.installed.unit, message, restart(facts))
        },
        ..Check::WARNING
    },
    Check {
        code: "job-quarantine",
        title: "macOS does not let launchd start the program",
        why: "macOS marks what a browser or another application brought. launchd does not start a \
              program with this mark: each start ends with code 78.",
        cure: "Take the mark away, where you trust the program.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let survey = job.survey().filter(|survey| survey.is_quarantined)?;
            let program = survey.program.as_ref()?;
            let next = format!("xattr -d com.apple.quarantine {}", shell::word(program));
            let message = format!("{} is in quarantine", program.display());
            Problem::at(job.place(), message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "job-twice",
        title: "launchd has loaded the job twice",
        why: "The domain of the login at the screen and the one of all logins can both have it: \
              then two gateways start each other's restarts, and one always waits for the address.",
        cure: "Unload it from one of the two.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let loaded = &job.survey()?.loaded;
            let [one, .., last] = loaded.as_slice() else {
                return None;
            };
            let message = format!("it is loaded in {one} and in {last}");
            let next = command(format!("launchctl bootout {last}/{}", job.installed.unit));
            Problem::at(&job.installed.unit, message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "job-disabled",
        title: "launchd is told not to load the job",
        why: "launchctl disable outlives the property list, logins and boots. The job may run now, \
              but the next login or boot does not load it.",
        cure: "Run gatewayctl start, which enables it.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let survey = job.survey().filter(|survey| survey.is_disabled)?;
            let domain = match survey.loaded.first() {
                Some(domain) => domain.to_string(),
                None => "gui/$(id -u)".to_owned(),
            };
            let next = command(format!("launchctl enable {domain}/{}", job.installed.unit));
            Problem::at(&job.installed.unit, "it is disabled", next)
        },
        ..Check::ERROR
    },
    Check {
        code: "job-held",
        title: "launchd holds the start of the job back",
        why: "A domain can hold back everything that nobody demands, for minutes or days: while an \
              update waits, after a restart that was cancelled, or without anybody at the screen. \
              KeepAlive does nothing meanwhile.",
        cure: "Run gatewayctl start, which demands it. A daemon of the machine is never held back.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            job.survey().filter(|survey| survey.is_held)?;
            let domain = job.survey()?.loaded.first()?;
            let next = format!("launchctl kickstart {domain}/{}", job.installed.unit);
            let message = "its domain starts only what is demanded";
            Problem::at(&job.installed.unit, message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "job-unattended",
        title: "the job is gone after the next boot",
        why: "Nobody is logged in at the screen, so the agent runs in a domain into which nothing \
              is loaded at a boot. It starts again with the first login at the screen.",
        cure: "Install it as a daemon of the machine: gatewayctl install --system --run-as USER.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let [LaunchdDomain::User(_)] = job.survey()?.loaded.as_slice() else {
                return None;
            };
            let message = "it runs only until the next boot";
            let next =
                advice("install it as a daemon: gatewayctl install --system --run-as USER …");
            Problem::at(&job.installed.unit, message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "job-sockets",
        title: "launchd holds other addresses than the configuration has",
        why: "A client that connects to an address that launchd holds and the gateway does not \
              serve waits for ever. At one that launchd does not hold, a restart stays in the \
              process, and clients are refused while it does not run.",
        cure: "Install again with the addresses that are meant (--listen), which writes both.",
        judge: sockets,
        ..Check::WARNING
    },
    Check {
        code: "job-log",
        title: "launchd cannot open the job's log",
        why: "launchd makes no directory. It does not start a job whose log it cannot open: such \
              a job ends with code 78 at each start.",
        cure: "Make the directory, so that the job's user can write in it.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let log = job.survey()?.log.as_ref()?;
            let dir = log.parent().filter(|dir| !dir.is_dir())?;
            let next = command(format!("mkdir -p {}", shell::word(dir)));
            let message = format!("{} does not exist", dir.display());
            Problem::at(job.place(), message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "job-protected",
        title: "the job is to look where macOS lets it not",
        why: "macOS protects Documents, Desktop and Downloads of a user. A job that starts there, \
              or from a program there, gets \"operation not permitted\", and nobody is asked.",
        cure: "Move program and working directory elsewhere, and install again.",
        judge: |facts| {
            let job = facts.job.as_ref()?;
            let survey = job.survey()?;
            let mut paths = survey.program.iter().chain(&survey.directory);
            let inside =
                |path: &&std::path::PathBuf| job.protected.iter().any(|dir| path.starts_with(dir));
            let path = paths.find(inside)?.display().to_string();
            let next = advice("move it elsewhere, and install again");
            Problem::at(job.place(), format!("{path} is protected by macOS"), next)
        },
        ..Check::WARNING
    },
];

fn restart(facts: &DoctorFacts) -> crate::diagnose::doctor::Remedy {
    command(format!("gatewayctl restart --force{}", facts.flags))
}

fn file(facts: &DoctorFacts) -> Option<Problem> {
    let job = facts.job.as_ref()?;
    let path = shell::word(&job.installed.path);
    if let Some(why) = job.survey().and_then(|survey| survey.unreadable.clone()) {
        let next = command(format!("plutil -lint {path}"));
        return Problem::at(job.place(), why, next);
    }
    let file = job.file?;
    if file.owner != job.owner {
        let message = format!("it belongs to user {}, not {}", file.owner, job.owner);
        let next = facts.rights.as_root(&format!("chown {} {path}", job.owner));
        return Problem::at(job.place(), message, command(next));
    }
    if file.mode & 0o022 == 0 {
        return None;
    }
    let message = format!("others may write it (mode {:03o})", file.mode & 0o777);
    Problem::at(job.place(), message, command(format!("chmod go-w {path}")))
}

fn keys(facts: &DoctorFacts) -> Option<Problem> {
    let job = facts.job.as_ref()?;
    let (key, problem) = job.survey()?.keys.first()?;
    let message = match problem {
        KeyProblem::Unknown => format!("{key} is no key of launchd"),
        KeyProblem::WrongType { wanted } => format!("{key} must be {wanted}"),
        KeyProblem::ForDaemons => format!("{key} is for daemons: an agent runs as its user"),
        KeyProblem::Dead => format!("{key} has no effect any more"),
        KeyProblem::KillsAtOnce => format!("{key} ends the gateway at once at a stop"),
    };
    Problem::at(job.place(), message, restart(facts))
}

fn sockets(facts: &DoctorFacts) -> Option<Problem> {
    let job = facts.job.as_ref()?;
    let held = &job.survey()?.sockets;
    let config = facts.config.valid.as_ref()?;
    let can_be_held = |listen: &&Listen| match listen {
        Listen::Tcp(address) => address.port() != 0,
        Listen::Unix(_) => false,
    };
    let wanted = config.gateway.listen.iter().filter(can_be_held);
    let wanted: BTreeSet<String> = wanted.map(ToString::to_string).collect();
    let list = |all: Vec<&String>| {
        all.into_iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (too_many, missing) = (
        list(held.difference(&wanted).collect()),
        list(wanted.difference(held).collect()),
    );
    let message = match (too_many.as_str(), missing.as_str()) {
        ("", "") => return None,
        ("", missing) => format!("launchd does not hold {missing}"),
        (held, "") => format!("launchd holds {held}, which the gateway does not serve"),
        (held, missing) => format!("launchd holds {held}, and the gateway serves {missing}"),
    };
    let next = command(format!(
        "gatewayctl install --now{} --listen ADDRESS",
        facts.flags
    ));
    Problem::at(job.place(), message, next)
}
