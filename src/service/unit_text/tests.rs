use super::*;

#[test]
fn the_shipped_units_are_what_the_defaults_give() {
    let template = UnitPlan {
        subject: UnitSubject::Template,
        ..UnitPlan::default()
    };
    for (file, text) in [
        ("gateway.service", UnitPlan::default().service().unwrap()),
        ("gateway@.service", template.service().unwrap()),
        ("gateway.socket", default_socket().socket().unwrap()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("units")
            .join(file);
        if std::env::var_os("UPDATE_UNITS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap_or_default(),
            text,
            "units/{file}: run the tests with UPDATE_UNITS=1"
        );
    }
}

fn lines(plan: &UnitPlan) -> Vec<String> {
    plan.service().unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_users_unit_says_only_what_a_users_manager_can_do() {
    for sandbox in [Sandbox::App, Sandbox::Strict] {
        let plan = UnitPlan {
            scope: Scope::User,
            sandbox,
            low_port: true,
            ..UnitPlan::default()
        };
        for line in lines(&plan) {
            let key = line.split('=').next().unwrap_or_default();
            let forbidden = key.starts_with("Private")
                || key.starts_with("Protect")
                || key.contains("Capabilit");
            assert!(
                !forbidden && !["User", "DynamicUser", "RemoveIPC", "Wants"].contains(&key),
                "{line}"
            );
        }
    }
}

#[test]
fn hostile_paths_are_quoted_or_refused() {
    let mut plan = UnitPlan {
        bin_dir: "/opt/my $HOME 100%i".into(),
        env_file: Some("/etc/a b%c".into()),
        ..UnitPlan::default()
    };
    let text = plan.service().unwrap();
    assert!(
        text.contains("\nExecStart=:\"/opt/my $HOME 100%%i/gateway\" run --instance gateway\n"),
        "{text}"
    );
    assert!(text.contains("\nEnvironmentFile=/etc/a b%%c\n"), "{text}");
    plan.env_file = Some("/etc/x\nExecStartPre=/bin/evil".into());
    assert!(plan.service().is_err());
    plan.env_file = Some("relative".into());
    assert!(plan.service().is_err());
    plan.env_file = None;
    for dir in ["/opt/a\tb", "/opt/a'b", "/opt/a\"b", "/opt/a\\b"] {
        plan.bin_dir = dir.into();
        assert!(plan.service().is_err(), "{dir}");
    }
}

#[test]
fn the_version_and_the_instance_decide() {
    let plan = UnitPlan {
        systemd: 254,
        subject: UnitSubject::Instance("web".into()),
        ..UnitPlan::default()
    };
    assert_eq!(plan.service_name(), "gateway@web.service");
    assert!(lines(&plan).contains(&"RestartSteps=10".to_owned()));
    assert!(lines(&plan).contains(&"StateDirectory=gateway/web".to_owned()));
    assert!(
        !lines(&UnitPlan::default())
            .iter()
            .any(|line| line.starts_with("RestartSteps"))
    );
}

/// Every directive that a version in use does not know, and the version that first knew it
/// (systemd's NEWS).
const SINCE: [(&str, u32); 10] = [
    ("PrivateMounts", 239),
    ("RestrictSUIDSGID", 242),
    ("ProtectHostname", 242),
    ("OOMPolicy", 243),
    ("ProtectKernelLogs", 244),
    ("ProtectClock", 245),
    ("RestartSteps", 254),
    ("RestartMaxDelaySec", 254),
    // Never, with the reasons in the text above and in the design.
    ("ExitType", u32::MAX),
    ("MemoryDenyWriteExecute", u32::MAX),
];

#[test]
fn each_version_is_told_only_what_it_knows() {
    for version in 235..=260 {
        let plan = UnitPlan {
            systemd: version,
            ..UnitPlan::default()
        };
        let text = plan.service().unwrap();
        for (key, since) in SINCE {
            assert_eq!(
                text.contains(&format!("\n{key}=")),
                version >= since,
                "{key} at {version}"
            );
        }
        // Whatever the version: a synchronous reload that can fail, and a stop that can be
        // awaited.
        for line in [
            "Type=notify",
            "Restart=always",
            "RestartSec=100ms",
            "TimeoutStopSec=30",
            "KillMode=mixed",
            "FileDescriptorStoreMax=64",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} at {version}");
        }
        assert!(!text.contains("notify-reload"), "{version}");
        let odd = UnitPlan {
            bin_dir: "/opt/$x".into(),
            ..plan
        };
        assert_eq!(
            odd.service().is_ok(),
            version >= NO_REPLACEMENT,
            "a `$` in the path at {version}"
        );
    }
}

#[test]
fn a_socket_unit_lists_every_listener() {
    let sockets = vec![
        "[::1]:80".parse().unwrap(),
        "unix:/run/a b%.sock".parse().unwrap(),
    ];
    let plan = UnitPlan {
        sockets,
        ..UnitPlan::default()
    };
    let text = plan.socket().unwrap();
    assert!(
        text.contains(
            "ListenStream=[::1]:80\nListenStream=/run/a b%%.sock\nRemoveOnStop=yes\nFreeBind=yes\n"
        ),
        "{text}"
    );
    assert!(
        plan.service()
            .unwrap()
            .contains("Requires=gateway.socket\n")
    );
}
