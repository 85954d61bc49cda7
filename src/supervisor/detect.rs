//! Who supervises this process: a pure function of [`Evidence`].
//!
//! All descendants of a supervisor inherit its variables, so none is proof by itself: it must name
//! this very process, or the parent must be that supervisor.

use super::evidence::{Evidence, Parent};
use super::verdict::{Supervisor, SupervisorVerdict};
use crate::launchd::own_job::JobAnswer;
use crate::systemd::UnitFacts;

/// Inits, and subreapers that only collect orphans. A small init of a container (tini, catatonit)
/// is none of them: it ends with its child, and the container with it.
const INITS: &[&str] = &[
    "systemd",
    "init",
    "launchd",
    "openrc-init",
    "runit",
    "s6-svscan",
    "busybox",
    "finit",
];

/// Small inits of containers that give their child a session of its own.
const OWN_SESSION: &[&str] = &["dumb-init"];

/// Parts of a control group's path that container engines make.
const CONTAINER_GROUPS: &[&str] = &[
    "/docker/",
    "/docker-",
    "/libpod-",
    "/lxc/",
    "/lxc.payload",
    "/crio-",
    "/cri-containerd-",
    "/containerd/",
];

/// The control groups of Kubernetes pods.
const POD_GROUPS: &str = "kubepods";

/// Says who supervises this process, and how that is known.
pub fn detect(evidence: &Evidence) -> SupervisorVerdict {
    let found = None
        .or_else(|| declared(evidence))
        .or_else(|| handed(evidence))
        .or_else(|| systemd(evidence))
        .or_else(|| launchd(evidence))
        .or_else(|| by_parent(evidence))
        .or_else(|| first_process(evidence))
        .or_else(|| terminal(evidence))
        .or_else(|| inside_container(evidence));
    let (supervisor, reason) = found.unwrap_or_else(|| nobody(evidence));
    SupervisorVerdict { supervisor, reason }
}

type Recognized = Option<(Supervisor, String)>;

/// `$GATEWAY_SUPERVISOR` overrules everything but a predecessor that nobody followed any more.
fn declared(evidence: &Evidence) -> Recognized {
    let handed = evidence.handed.as_ref();
    if handed.is_some_and(|handed| handed.supervisor == Supervisor::Init) {
        return None;
    }
    let name = evidence.variable("GATEWAY_SUPERVISOR")?.trim();
    let supervisor = match name.to_ascii_lowercase().as_str() {
        "systemd" => of_unit(evidence),
        "launchd" => Supervisor::Launchd {
            label: evidence.label.clone(),
        },
        "kubernetes" | "k8s" => Supervisor::Kubernetes { main: true },
        "container" | "docker" | "podman" => Supervisor::Container { main: true },
        "s6" => Supervisor::S6,
        "runit" => Supervisor::Runit,
        "dinit" => Supervisor::Dinit,
        "openrc" => Supervisor::OpenRc {
            watched: evidence.parent.is("supervise-daemon"),
        },
        "supervisord" | "supervisor" => Supervisor::Supervisord,
        "pm2" => Supervisor::Pm2,
        "terminal" | "foreground" => Supervisor::Terminal,
        "none" | "init" => Supervisor::Init,
        _ => Supervisor::Declared {
            name: name.to_owned(),
        },
    };
    Some((supervisor, format!("GATEWAY_SUPERVISOR is {name}")))
}

fn handed(evidence: &Evidence) -> Recognized {
    const BY_PREDECESSOR: &str = ", as the process before found";
    let SupervisorVerdict { supervisor, reason } = evidence.handed.clone()?;
    let first = reason.strip_suffix(BY_PREDECESSOR).unwrap_or(&reason);
    Some((supervisor, format!("{first}{BY_PREDECESSOR}")))
}

fn systemd(evidence: &Evidence) -> Recognized {
    if let Some(UnitFacts { unit, .. }) = by_manager(evidence).filter(|_| evidence.pid != 0) {
        let reason = format!("its manager says that this is the main process of {unit}");
        return Some((of_unit(evidence), reason));
    }
    let named = evidence.variable("SYSTEMD_EXEC_PID")?.trim().parse() == Ok(evidence.pid);
    let reason = "SYSTEMD_EXEC_PID is this process";
    named.then(|| (of_unit(evidence), reason.to_owned()))
}

/// The unit whose main process this is, as its manager says.
fn by_manager(evidence: &Evidence) -> Option<&UnitFacts> {
    let facts = evidence.manager.as_ref()?;
    (facts.main_pid == evidence.pid).then_some(facts)
}

/// The unit by its manager, or by the innermost service of the control group.
fn of_unit(evidence: &Evidence) -> Supervisor {
    if let Some(facts) = by_manager(evidence) {
        return Supervisor::Systemd {
            unit: Some(facts.unit.clone()),
            user: facts.user,
        };
    }
    let group = evidence
        .cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or_default();
    let mut services = group.split('/').filter(|part| part.ends_with(".service"));
    let manager = |part: &&str| part.starts_with("user@");
    let innermost = services.clone().next_back().filter(|part| !manager(part));
    Supervisor::Systemd {
        unit: innermost.map(str::to_owned),
        user: services.any(|part| manager(&part)),
    }
}

/// launchd's word, and until it has answered the label of our own job with launchd as the parent. All that a
/// job starts inherits `XPC_SERVICE_NAME`, terminals have it, too, and launchd is the parent of orphans: none
/// of that stands against launchd's word.
fn launchd(evidence: &Evidence) -> Recognized {
    match &evidence.job {
        JobAnswer::Job(job) if job.pid == evidence.pid => {
            let label = job.label.clone();
            let reason = format!(
                "launchd says that this is the process of {}/{label}",
                job.domain
            );
            return Some((Supervisor::Launchd { label }, reason));
        }
        JobAnswer::Job(_) | JobAnswer::NotAJob => return None,
        JobAnswer::Unknown => {}
    }
    if !evidence.macos || evidence.parent.pid != 1 {
        return None;
    }
    let names = ["LAUNCH_JOB_LABEL", "LAUNCH_JOB_NAME", "XPC_SERVICE_NAME"];
    let name = names
        .into_iter()
        .find(|name| evidence.variable(name) == Some(&evidence.label))?;
    Some((
        Supervisor::Launchd {
            label: evidence.label.clone(),
        },
        format!("{name} is {} and launchd is the parent", evidence.label),
    ))
}

/// Supervisors that are known by their program. Of the variables one must be set, where the
/// supervisor sets any at all.
const KNOWN: [(&str, &[&str], Supervisor); 5] = [
    ("s6-supervise", &[], Supervisor::S6),
    ("runsv", &[], Supervisor::Runit),
    ("dinit", &[], Supervisor::Dinit),
    (
        "supervise-daemon",
        &["RC_SVCNAME", "RC_SERVICE"],
        Supervisor::OpenRc { watched: true },
    ),
    (
        "supervisord",
        &[
            "SUPERVISOR_ENABLED",
            "SUPERVISOR_PROCESS_NAME",
            "SUPERVISOR_GROUP_NAME",
        ],
        Supervisor::Supervisord,
    ),
];

fn by_parent(evidence: &Evidence) -> Recognized {
    let parent = &evidence.parent;
    let marker = |markers: &[&'static str]| {
        let mut markers = markers.iter().copied();
        markers.find(|name| evidence.variable(name).is_some())
    };
    let known = KNOWN.into_iter().find(|(program, ..)| parent.is(program));
    if let Some((program, markers, supervisor)) = known {
        if markers.is_empty() {
            return Some((supervisor, format!("the parent is {program}")));
        }
        let name = marker(markers)?;
        let reason = format!("{name} is set and the parent is {program}");
        return Some((supervisor, reason));
    }
    // Its daemon calls itself "PM2 v6.0.5: God Daemon (…)".
    if marker(&["pm_id"]).is_some()
        && (parent.comm.starts_with("PM2")
            || parent.arguments.iter().any(|word| word.starts_with("PM2 ")))
    {
        let reason = "pm_id is set and the parent is pm2";
        return Some((Supervisor::Pm2, reason.to_owned()));
    }
    // start-stop-daemon leaves what it started to init.
    let name = marker(&["RC_SVCNAME", "RC_SERVICE"])?;
    let reason = format!("{name} is set and the parent is init");
    let left_to_init = parent.pid == 1 && !parent.is("systemd");
    left_to_init.then_some((Supervisor::OpenRc { watched: false }, reason))
}

/// Process 1 is not an init here: the machine is a container, marked or not.
fn first_process(evidence: &Evidence) -> Recognized {
    let main = true;
    (evidence.pid == 1).then(|| match pod(evidence) {
        Some(why) => (
            Supervisor::Kubernetes { main },
            format!("it is process 1, and {why}"),
        ),
        None => (Supervisor::Container { main }, "it is process 1".to_owned()),
    })
}

fn terminal(evidence: &Evidence) -> Recognized {
    evidence
        .terminal
        .then(|| (Supervisor::Terminal, "it has a terminal".to_owned()))
}

fn inside_container(evidence: &Evidence) -> Recognized {
    // What a shell or a cron job in a container starts is not its main process, also where it has
    // lost its parent since: then process 1 is its parent, and did not start it.
    let parent = &evidence.parent;
    let started_by_first =
        !evidence.other_session || OWN_SESSION.iter().any(|name| parent.is(name));
    let main = parent.pid == 1 && started_by_first;
    if let Some(why) = pod(evidence) {
        return Some((Supervisor::Kubernetes { main }, why));
    }
    // A container with an init of its own is a machine like others.
    if parent.pid == 1 && is_init(parent) {
        return None;
    }
    let why = if let Some(file) = &evidence.container_file {
        format!("{file} exists")
    } else if let Some(engine) = evidence.variable("container") {
        format!("container is {engine}")
    } else {
        let mut groups = CONTAINER_GROUPS.iter();
        let group = groups.find(|group| evidence.cgroup.contains(**group))?;
        format!("the control group holds {group}")
    };
    Some((Supervisor::Container { main }, why))
}

fn pod(evidence: &Evidence) -> Option<String> {
    if evidence.variable("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("KUBERNETES_SERVICE_HOST is set".to_owned());
    }
    evidence
        .cgroup
        .contains(POD_GROUPS)
        .then(|| format!("the control group holds {POD_GROUPS}"))
}

fn is_init(parent: &Parent) -> bool {
    INITS.iter().any(|name| parent.is(name))
}

fn nobody(evidence: &Evidence) -> (Supervisor, String) {
    let parent = &evidence.parent;
    if is_init(parent) {
        let what = match parent.pid {
            1 => "init",
            _ => "a subreaper",
        };
        let name = &parent.comm;
        let reason = format!("the parent is {what} ({name}), and there is no terminal");
        return (Supervisor::Init, reason);
    }
    let name = match parent.comm.as_str() {
        "" => "which cannot be read",
        name => name,
    };
    let reason = format!("nothing is known of the parent {} ({name})", parent.pid);
    let parent = parent.comm.clone();
    (Supervisor::Unknown { parent }, reason)
}

#[cfg(test)]
mod tests;
