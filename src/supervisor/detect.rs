//! Who supervises this process: a pure function of what there is to see.
//!
//! Variables are inherited by everything below a supervisor, so none is proof by itself: it must
//! name this very process, or stand beside a parent that fits.

use super::evidence::{Evidence, Parent, Platform};
use super::verdict::{Supervisor, SupervisorVerdict};

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

/// `$GATEWAY_SUPERVISOR` overrules everything.
fn declared(evidence: &Evidence) -> Recognized {
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
    let verdict = evidence.handed.clone()?;
    let reason = match verdict.reason.strip_suffix(", as the process before found") {
        Some(first) => first.to_owned(),
        None => verdict.reason,
    };
    Some((
        verdict.supervisor,
        format!("{reason}, as the process before found"),
    ))
}

fn systemd(evidence: &Evidence) -> Recognized {
    if let Some(facts) = evidence
        .manager
        .as_ref()
        .filter(|facts| facts.main_pid == evidence.pid && evidence.pid != 0)
    {
        return Some((
            of_unit(evidence),
            format!(
                "its manager says that this is the main process of {}",
                facts.unit
            ),
        ));
    }
    let named = evidence.variable("SYSTEMD_EXEC_PID")?.trim().parse() == Ok(evidence.pid);
    named.then(|| {
        (
            of_unit(evidence),
            "SYSTEMD_EXEC_PID is this process".to_owned(),
        )
    })
}

/// The unit by its manager, or by the innermost service of the control group.
fn of_unit(evidence: &Evidence) -> Supervisor {
    if let Some(facts) = evidence
        .manager
        .as_ref()
        .filter(|facts| facts.main_pid == evidence.pid)
    {
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
    let services: Vec<&str> = group
        .split('/')
        .filter(|part| part.ends_with(".service"))
        .collect();
    let manager = |part: &&str| part.starts_with("user@");
    Supervisor::Systemd {
        unit: services
            .last()
            .filter(|part| !manager(part))
            .map(|unit| (*unit).to_owned()),
        user: services.iter().any(manager),
    }
}

/// A terminal inherits `XPC_SERVICE_NAME`, so the label must be that of our own job and launchd the
/// parent.
fn launchd(evidence: &Evidence) -> Recognized {
    if evidence.platform != Platform::MacOs || evidence.parent.pid != 1 {
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

/// A supervisor that is known by its program.
struct Known {
    program: &'static str,
    /// Of these variables one must be set, where the supervisor sets any at all.
    markers: &'static [&'static str],
    supervisor: Supervisor,
}

const KNOWN: &[Known] = &[
    Known {
        program: "s6-supervise",
        markers: &[],
        supervisor: Supervisor::S6,
    },
    Known {
        program: "runsv",
        markers: &[],
        supervisor: Supervisor::Runit,
    },
    Known {
        program: "dinit",
        markers: &[],
        supervisor: Supervisor::Dinit,
    },
    Known {
        program: "supervise-daemon",
        markers: &["RC_SVCNAME", "RC_SERVICE"],
        supervisor: Supervisor::OpenRc { watched: true },
    },
    Known {
        program: "supervisord",
        markers: &[
            "SUPERVISOR_ENABLED",
            "SUPERVISOR_PROCESS_NAME",
            "SUPERVISOR_GROUP_NAME",
        ],
        supervisor: Supervisor::Supervisord,
    },
];

fn by_parent(evidence: &Evidence) -> Recognized {
    let parent = &evidence.parent;
    let marker = |markers: &[&'static str]| {
        markers
            .iter()
            .copied()
            .find(|name| evidence.variable(name).is_some())
    };
    if let Some(known) = KNOWN.iter().find(|known| parent.is(known.program)) {
        if known.markers.is_empty() {
            return Some((
                known.supervisor.clone(),
                format!("the parent is {}", known.program),
            ));
        }
        let name = marker(known.markers)?;
        return Some((
            known.supervisor.clone(),
            format!("{name} is set and the parent is {}", known.program),
        ));
    }
    // Its daemon calls itself "PM2 v6.0.5: God Daemon (…)".
    if marker(&["pm_id"]).is_some()
        && (parent.comm.starts_with("PM2")
            || parent.arguments.iter().any(|word| word.starts_with("PM2 ")))
    {
        return Some((
            Supervisor::Pm2,
            "pm_id is set and the parent is pm2".to_owned(),
        ));
    }
    // start-stop-daemon leaves what it started to init.
    let name = marker(&["RC_SVCNAME", "RC_SERVICE"])?;
    (parent.pid == 1 && !parent.is("systemd")).then(|| {
        (
            Supervisor::OpenRc { watched: false },
            format!("{name} is set and the parent is init"),
        )
    })
}

/// Process 1 is not an init here: the machine is a container, marked or not.
fn first_process(evidence: &Evidence) -> Recognized {
    (evidence.pid == 1).then(|| match pod(evidence) {
        Some(why) => (
            Supervisor::Kubernetes { main: true },
            format!("it is process 1, and {why}"),
        ),
        None => (
            Supervisor::Container { main: true },
            "it is process 1".to_owned(),
        ),
    })
}

fn terminal(evidence: &Evidence) -> Recognized {
    evidence
        .terminal
        .then(|| (Supervisor::Terminal, "it has a terminal".to_owned()))
}

fn inside_container(evidence: &Evidence) -> Recognized {
    // Whatever a shell or a cron job in there starts is nobody's.
    let main = evidence.parent.pid == 1;
    if let Some(why) = pod(evidence) {
        return Some((Supervisor::Kubernetes { main }, why));
    }
    let by_file = || {
        evidence
            .container_file
            .as_ref()
            .map(|file| format!("{file} exists"))
    };
    let by_variable = || {
        evidence
            .variable("container")
            .map(|engine| format!("container is {engine}"))
    };
    let by_group = || {
        let group = CONTAINER_GROUPS
            .iter()
            .find(|group| evidence.cgroup.contains(**group))?;
        Some(format!("the control group holds {group}"))
    };
    // A container with an init of its own is a machine like others.
    if evidence.parent.pid == 1 && is_init(&evidence.parent) {
        return None;
    }
    by_file()
        .or_else(by_variable)
        .or_else(by_group)
        .map(|why| (Supervisor::Container { main }, why))
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
        let what = if parent.pid == 1 {
            "init"
        } else {
            "a subreaper"
        };
        return (
            Supervisor::Init,
            format!(
                "the parent is {what} ({}), and there is no terminal",
                parent.comm
            ),
        );
    }
    let name = if parent.comm.is_empty() {
        "which cannot be read".to_owned()
    } else {
        parent.comm.clone()
    };
    (
        Supervisor::Unknown {
            parent: parent.comm.clone(),
        },
        format!("nothing is known of the parent {} ({name})", parent.pid),
    )
}

#[cfg(test)]
mod tests;
