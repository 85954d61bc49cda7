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
mod tests {
    use super::*;
    use crate::systemd::UnitFacts;

    const PID: u32 = 4242;

    fn evidence(parent: (u32, &str), variables: &[(&str, &str)]) -> Evidence {
        Evidence {
            environment: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            pid: PID,
            parent: Parent {
                pid: parent.0,
                comm: parent.1.to_owned(),
                ..Parent::default()
            },
            label: "org.gatewayctl.gateway".into(),
            ..Evidence::default()
        }
    }

    fn found(evidence: &Evidence) -> String {
        detect(evidence).supervisor.to_string()
    }

    #[test]
    fn a_parent_and_variables_make_a_verdict() {
        let shell_in_unit = [
            ("INVOCATION_ID", "a"),
            ("JOURNAL_STREAM", "8:1"),
            ("SYSTEMD_EXEC_PID", "17"),
            ("NOTIFY_SOCKET", "/x"),
        ];
        let supervisord = [
            ("SUPERVISOR_ENABLED", "1"),
            ("SUPERVISOR_PROCESS_NAME", "gw"),
        ];
        for (parent, variables, expected) in [
            // systemd: the variable must name this process
            (
                (1, "systemd"),
                &[("SYSTEMD_EXEC_PID", "4242")][..],
                "systemd",
            ),
            (
                (2811, "systemd"),
                &[("SYSTEMD_EXEC_PID", " 4242 ")],
                "systemd",
            ),
            ((77, "bash"), &shell_in_unit, "unknown: bash"),
            ((77, "bash"), &[("INVOCATION_ID", "a")], "unknown: bash"),
            ((1, "systemd"), &[("INVOCATION_ID", "a")], "none"),
            ((1, "systemd"), &[("SYSTEMD_EXEC_PID", "x")], "none"),
            // by parent, and by marker where there is one
            ((5, "s6-supervise"), &[], "s6"),
            ((5, "runsv"), &[], "runit"),
            ((5, "dinit"), &[], "dinit"),
            ((5, "supervise-daemo"), &[("RC_SVCNAME", "gw")], "openrc"),
            ((5, "supervise-daemo"), &[], "unknown: supervise-daemo"),
            ((1, "init"), &[("RC_SVCNAME", "gw")], "openrc"),
            ((1, "systemd"), &[("RC_SVCNAME", "gw")], "none"),
            ((5, "supervisord"), &supervisord, "supervisord"),
            ((5, "supervisord"), &[], "unknown: supervisord"),
            ((5, "bash"), &supervisord, "unknown: bash"),
            ((5, "PM2 v6.0.5: God"), &[("pm_id", "0")], "pm2"),
            ((5, "node"), &[("pm_id", "0")], "unknown: node"),
            (
                (5, "bash"),
                &[("S6_CONTAINER_ENVIRONMENT", "/x")],
                "unknown: bash",
            ),
            ((5, "bash"), &[("DINIT_SERVICE", "x")], "unknown: bash"),
            // nobody
            ((1, "init"), &[], "none"),
            ((1, "launchd"), &[], "none"),
            ((1999, "systemd"), &[], "none"),
            ((1, "tini"), &[], "unknown: tini"),
            ((9, "python3"), &[], "unknown: python3"),
            ((0, ""), &[], "unknown"),
            // containers
            ((9, "sh"), &[("container", "podman")], "container"),
            (
                (1, "tini"),
                &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
                "kubernetes",
            ),
            (
                (5, "s6-supervise"),
                &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
                "s6",
            ),
            ((1, "systemd"), &[("container", "systemd-nspawn")], "none"),
            // launchd is nowhere but on macOS
            (
                (1, "init"),
                &[("XPC_SERVICE_NAME", "org.gatewayctl.gateway")],
                "none",
            ),
            // the override
            (
                (1, "systemd"),
                &[("SYSTEMD_EXEC_PID", "4242"), ("GATEWAY_SUPERVISOR", "none")],
                "none",
            ),
            ((5, "bash"), &[("GATEWAY_SUPERVISOR", "S6")], "s6"),
            ((5, "bash"), &[("GATEWAY_SUPERVISOR", "monit")], "monit"),
            (
                (5, "bash"),
                &[("GATEWAY_SUPERVISOR", "launchd")],
                "launchd org.gatewayctl.gateway",
            ),
            (
                (5, "bash"),
                &[("GATEWAY_SUPERVISOR", "foreground")],
                "terminal",
            ),
        ] {
            assert_eq!(
                found(&evidence(parent, variables)),
                expected,
                "{parent:?} {variables:?}"
            );
        }
    }

    #[test]
    fn every_name_of_the_override_is_understood() {
        for name in [
            "systemd",
            "kubernetes",
            "container",
            "s6",
            "runit",
            "dinit",
            "openrc",
            "supervisord",
            "pm2",
            "terminal",
            "none",
        ] {
            let verdict = detect(&evidence((5, "bash"), &[("GATEWAY_SUPERVISOR", name)]));
            assert_eq!(verdict.supervisor.to_string(), name);
            assert!(
                !matches!(verdict.supervisor, Supervisor::Declared { .. }),
                "{name}"
            );
        }
    }

    #[test]
    fn the_manager_confirms_the_main_process_and_nothing_else() {
        let facts = |main_pid| UnitFacts {
            unit: "gateway.service".into(),
            user: true,
            main_pid,
            ..UnitFacts::default()
        };
        let mut evidence = evidence((1, "systemd"), &[("INVOCATION_ID", "a")]);
        evidence.manager = Some(facts(PID));
        assert_eq!(found(&evidence), "systemd --user gateway.service");
        evidence.manager = Some(facts(PID + 1));
        assert_eq!(found(&evidence), "none");
    }

    #[test]
    fn the_unit_is_named_by_the_control_group() {
        let mut evidence = evidence((1, "systemd"), &[("SYSTEMD_EXEC_PID", "4242")]);
        for (group, expected) in [
            (
                "0::/system.slice/gateway@a.service\n",
                "systemd gateway@a.service",
            ),
            (
                "0::/user.slice/user-7.slice/user@7.service/app.slice/gateway.service\n",
                "systemd --user gateway.service",
            ),
            (
                "0::/user.slice/user-7.slice/user@7.service/init.scope\n",
                "systemd --user",
            ),
            ("0::/\n", "systemd"),
            ("1:name=systemd:/x.service\n", "systemd"),
            ("", "systemd"),
        ] {
            evidence.cgroup = group.into();
            assert_eq!(found(&evidence), expected, "{group}");
        }
    }

    #[test]
    fn a_hand_over_is_believed_and_named_once() {
        let first = SupervisorVerdict {
            supervisor: Supervisor::Systemd {
                unit: None,
                user: false,
            },
            reason: "SYSTEMD_EXEC_PID is this process".into(),
        };
        let mut evidence = evidence(
            (1, "systemd"),
            &[("SYSTEMD_EXEC_PID", "17"), ("INVOCATION_ID", "a")],
        );
        evidence.handed = Some(first.clone());
        let second = detect(&evidence);
        assert_eq!(second.supervisor, first.supervisor);
        evidence.handed = Some(second.clone());
        assert_eq!(detect(&evidence), second);
    }

    #[test]
    fn launchd_needs_our_own_label_and_the_parent() {
        let mac = |parent: u32, name: &str, label: &str| {
            let comm = if parent == 1 { "launchd" } else { "zsh" };
            found(&Evidence {
                platform: Platform::MacOs,
                ..evidence((parent, comm), &[(name, label)])
            })
        };
        assert_eq!(
            mac(1, "XPC_SERVICE_NAME", "org.gatewayctl.gateway"),
            "launchd org.gatewayctl.gateway"
        );
        assert_eq!(
            mac(1, "LAUNCH_JOB_LABEL", "org.gatewayctl.gateway"),
            "launchd org.gatewayctl.gateway"
        );
        assert_eq!(mac(1, "XPC_SERVICE_NAME", "com.apple.Terminal"), "none");
        assert_eq!(
            mac(500, "XPC_SERVICE_NAME", "org.gatewayctl.gateway"),
            "unknown: zsh"
        );
        assert_eq!(mac(1, "XPC_SERVICE_NAME", "0"), "none");
    }

    #[test]
    fn process_1_is_a_container_s_and_terminals_are_people_s() {
        let mut first = Evidence {
            pid: 1,
            terminal: true,
            ..evidence((0, ""), &[])
        };
        assert_eq!(found(&first), "container");
        first
            .environment
            .insert("KUBERNETES_SERVICE_HOST".into(), "10.0.0.1".into());
        assert_eq!(found(&first), "kubernetes");

        // `docker exec -it … sh`, then a start by hand
        let by_hand = Evidence {
            terminal: true,
            container_file: Some("/.dockerenv".into()),
            ..evidence((9, "sh"), &[])
        };
        assert_eq!(found(&by_hand), "terminal");
        let by_script = Evidence {
            terminal: false,
            ..by_hand
        };
        assert_eq!(
            detect(&by_script).supervisor,
            Supervisor::Container { main: false }
        );
        let under_tini = Evidence {
            container_file: Some("/.dockerenv".into()),
            ..evidence((1, "tini"), &[])
        };
        assert_eq!(
            detect(&under_tini).supervisor,
            Supervisor::Container { main: true }
        );
        assert_eq!(
            found(&Evidence {
                terminal: true,
                ..evidence((1, "systemd"), &[])
            }),
            "terminal"
        );
        assert_eq!(
            found(&Evidence {
                terminal: true,
                ..evidence((5, "runsv"), &[])
            }),
            "runit"
        );
    }

    #[test]
    fn control_groups_tell_of_containers() {
        for (group, expected) in [
            ("0::/system.slice/docker-0a1b.scope\n", "container"),
            ("5:cpu:/docker/0a1b\n", "container"),
            (
                "0::/machine.slice/libpod-0a1b.scope/container\n",
                "container",
            ),
            (
                "0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-0a.scope\n",
                "kubernetes",
            ),
            ("0::/system.slice/docker.service\n", "unknown: sh"),
        ] {
            assert_eq!(
                found(&Evidence {
                    cgroup: group.into(),
                    ..evidence((9, "sh"), &[])
                }),
                expected,
                "{group}"
            );
        }
    }
}
