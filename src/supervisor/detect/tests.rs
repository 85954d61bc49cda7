use super::*;

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
        let found = found(&evidence(parent, variables));
        assert_eq!(found, expected, "{parent:?} {variables:?}");
    }
}

#[test]
fn every_name_of_the_override_is_understood() {
    let names = "systemd kubernetes container s6 runit dinit openrc supervisord pm2 terminal none";
    for name in names.split(' ') {
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
            macos: true,
            ..evidence((parent, comm), &[(name, label)])
        })
    };
    let ours = "org.gatewayctl.gateway";
    for (parent, name, label, expected) in [
        (
            1,
            "XPC_SERVICE_NAME",
            ours,
            "launchd org.gatewayctl.gateway",
        ),
        (
            1,
            "LAUNCH_JOB_LABEL",
            ours,
            "launchd org.gatewayctl.gateway",
        ),
        (1, "XPC_SERVICE_NAME", "com.apple.Terminal", "none"),
        (500, "XPC_SERVICE_NAME", ours, "unknown: zsh"),
        (1, "XPC_SERVICE_NAME", "0", "none"),
    ] {
        assert_eq!(
            mac(parent, name, label),
            expected,
            "{parent} {name} {label}"
        );
    }
}

#[test]
fn launchd_s_own_word_counts_more_than_what_jobs_inherit() {
    use crate::launchd::domain::LaunchdDomain;
    use crate::launchd::own_job::{JobAnswer, JobFacts};
    let ours = "org.gatewayctl.gateway";
    let job = |pid| {
        JobAnswer::Job(JobFacts {
            label: "com.acme.api".into(),
            domain: LaunchdDomain::Gui(501),
            pid,
            keep_alive: true,
            is_pinned: false,
            throttle: std::time::Duration::from_secs(10),
            exit_timeout: None,
        })
    };
    for (job, expected) in [
        (job(PID), "launchd com.acme.api"),
        (job(PID + 1), "none"),
        // An orphan of a job of ours: the variable and the parent fit, and it is none.
        (JobAnswer::NotAJob, "none"),
        (JobAnswer::Unknown, "launchd org.gatewayctl.gateway"),
    ] {
        let evidence = Evidence {
            macos: true,
            job: job.clone(),
            ..evidence((1, "launchd"), &[("XPC_SERVICE_NAME", ours)])
        };
        assert_eq!(found(&evidence), expected, "{job:?}");
    }
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
    let under_tini = Evidence {
        container_file: Some("/.dockerenv".into()),
        ..evidence((1, "tini"), &[])
    };
    // `docker exec … sh -c 'setsid gateway run …'`: process 1 inherited it, and starts nothing again.
    let left_behind = Evidence {
        other_session: true,
        ..under_tini.clone()
    };
    let entry_point = Evidence {
        parent: Parent {
            comm: "sleep".into(),
            ..left_behind.parent.clone()
        },
        ..left_behind.clone()
    };
    // It gives its child a session.
    let under_dumb_init = Evidence {
        other_session: true,
        container_file: Some("/.dockerenv".into()),
        ..evidence((1, "dumb-init"), &[])
    };
    for (evidence, main) in [
        (by_script, false),
        (under_tini, true),
        (left_behind, false),
        (entry_point, false),
        (under_dumb_init, true),
    ] {
        let expected = Supervisor::Container { main };
        assert_eq!(detect(&evidence).supervisor, expected);
    }
    for (parent, expected) in [((1, "systemd"), "terminal"), ((5, "runsv"), "runit")] {
        let with_terminal = Evidence {
            terminal: true,
            ..evidence(parent, &[])
        };
        assert_eq!(found(&with_terminal), expected);
    }
}

#[test]
fn containers_are_known_by_their_control_groups() {
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
        let evidence = Evidence {
            cgroup: group.into(),
            ..evidence((9, "sh"), &[])
        };
        assert_eq!(found(&evidence), expected, "{group}");
    }
}
