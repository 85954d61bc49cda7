//! The service under a real systemd: installed, restarted, killed, stopped, reloaded and removed
//! under load, in both scopes.

use crate::support::base::Base;
use crate::support::report::{Part, Report};
use crate::support::servers;
use crate::support::site::{
    NODE_APP, RATE, Site, all_of, back, expect, load_on_front, node, prepared, prepared_on,
};
use crate::support::wait;

/// Does something under load, waits until requests are answered again, and says what clients saw.
fn under_load(site: &Site<'_>, unix: &str, what: impl FnOnce()) -> [Report; 2] {
    let (tcp, socket) = site.load(unix);
    what();
    tcp.flows(Part::New, 20);
    socket.flows(Part::New, 10);
    [tcp.stop(), socket.stop()]
}

fn none_lost(site: &Site<'_>, what: &str, reports: &[Report; 2]) {
    for report in reports {
        assert_eq!(report.failures(), 0, "{what}: {report}\n{}", site.journal());
    }
}

/// What a dead process had accepted is lost; nobody else is.
fn none_refused(site: &Site<'_>, what: &str, reports: &[Report; 2]) {
    for report in reports {
        assert_eq!(
            report.failures_of("refused"),
            0,
            "{what}: {report}\n{}",
            site.journal()
        );
        let (good, lost) = (
            report.good_of(Part::New),
            report
                .failed
                .iter()
                .filter(|((part, _), _)| *part == Part::New)
                .map(|(_, count)| count)
                .sum::<u64>(),
        );
        assert!(lost * 10 < good, "{what}: {report}\n{}", site.journal());
    }
}

/// The whole life of a service in one scope.
fn life(site: &Site<'_>, more: &[&str]) {
    let before = site.traces();
    let front = format!("{}/gateway/gateway/front.sock", site.runtime());
    let listen = format!("unix:{front}");
    let install = [
        &[
            "gatewayctl",
            "install",
            "--now",
            "--listen",
            "127.0.0.1:18789",
            "--listen",
            &listen,
        ],
        more,
        &node(),
    ]
    .concat();
    let said = site.must(&install);
    assert!(
        said.contains("gateway.service is installed and ready on 127.0.0.1:18789")
            && said.contains("journalctl"),
        "{said}"
    );
    assert_eq!(site.property("gateway.service", "ActiveState"), "active");
    assert!(
        site.must_systemctl(&["status", "--no-pager", "gateway"])
            .contains("Status: \"generation 1 serves")
    );
    assert_eq!(
        site.must_systemctl(&["is-enabled", "gateway"]).trim(),
        "enabled"
    );
    let pid = site.main_pid();
    let said = site.must(&install);
    assert!(
        said.contains("already installed") && site.main_pid() == pid,
        "{said}"
    );

    let with = |flags: [&'static str; 2]| {
        let (head, server) = install.split_at(install.len() - 4);
        [head, &flags, server].concat()
    };
    for command in [&with(["--ready", "/"]), &with(["--unset", "ready"])] {
        let reports = under_load(site, &front, || {
            let said = site.must(command);
            assert!(said.contains("updated and ready"), "{said}");
        });
        none_lost(site, "install of a change", &reports);
        assert_eq!(
            site.main_pid(),
            pid,
            "a change of the configuration is a reload"
        );
    }
    // A variable is in the service's environment, which only another process gets.
    let reports = under_load(site, &front, || {
        let said = site.must(&with(["--set", "COLOR=blue"]));
        assert!(said.contains("updated and ready"), "{said}");
    });
    none_lost(site, "install of a variable", &reports);

    // A watchdog that a test can wait for; a drop-in is how an operator would do it.
    site.systemd
        .write(&site.drop_in(), "[Service]\nWatchdogSec=2\n");
    site.must_systemctl(&["daemon-reload"]);

    let reports = under_load(site, &front, || {
        drop(site.must_systemctl(&["restart", "gateway"]))
    });
    none_lost(site, "systemctl restart", &reports);
    assert_ne!(site.main_pid(), pid);

    let pid = site.main_pid();
    let reports = under_load(site, &front, || drop(site.must(&["gatewayctl", "restart"])));
    none_lost(site, "gatewayctl restart", &reports);
    assert_ne!(
        site.main_pid(),
        pid,
        "systemd is told of a fresh main process"
    );

    reloads(site, &front);

    let pid = site.main_pid();
    let reports = under_load(site, &front, || {
        site.must(&["kill", "-KILL", &pid.to_string()]);
        back(site, pid);
    });
    none_refused(site, "kill -9", &reports);

    let pid = site.main_pid();
    let reports = under_load(site, &front, || {
        site.must(&["kill", "-STOP", &pid.to_string()]);
        back(site, pid);
    });
    none_refused(site, "SIGSTOP", &reports);

    let journal = site.journal();
    for part in [
        "[gateway] http server listening (127.0.0.1:18789, unix:",
        "[gateway] ready (generation 1,",
        "[gateway] ready (generation 2,",
        "status=9/KILL",
        "Watchdog timeout",
        "Scheduled restart job",
    ] {
        assert!(
            journal.contains(part),
            "the journal tells of `{part}`:\n{journal}"
        );
    }

    assert!(site.must(&["gatewayctl", "stop"]).contains("stopped"));
    assert_eq!(site.property("gateway.service", "ActiveState"), "inactive");
    assert!(
        site.must(&["gatewayctl", "stop"])
            .contains("already stopped")
    );
    assert!(
        site.must(&["gatewayctl", "start"])
            .contains("started (pid ")
    );
    assert!(
        site.must(&["gatewayctl", "start"])
            .contains("already running")
    );
    let said = site.must(&["gatewayctl", "uninstall"]);
    assert!(
        said.contains("is kept: it holds your systemd drop-ins"),
        "{said}"
    );
    std::fs::remove_dir_all(site.systemd.path(site.drop_in()).parent().unwrap()).unwrap();
    assert_eq!(site.traces(), before, "uninstall leaves nothing");
    assert!(
        site.must(&["gatewayctl", "uninstall"])
            .contains("nothing to do")
    );
}

fn reloads(site: &Site<'_>, front: &str) {
    let pid = site.main_pid();
    let good = site.systemd.read(&site.config()).unwrap();
    let reports = under_load(site, front, || {
        site.systemd
            .write(&site.config(), &format!("{good}RELOADED = \"yes\"\n"));
        site.must_systemctl(&["reload", "gateway"]);
    });
    none_lost(site, "reload", &reports);

    let reports = under_load(site, front, || {
        site.systemd
            .write(&site.config(), "[gateway]\nlisten = 5\n");
        let output = site.systemctl(&["reload", "gateway"]);
        assert!(
            !output.status.success(),
            "a failed reload fails: {}",
            all_of(&output)
        );
        wait::until("the unit leaves `reloading`", || {
            (site.property("gateway.service", "SubState") == "running").then_some(())
        });
    });
    none_lost(site, "bad reload", &reports);
    assert_eq!(site.property("gateway.service", "ActiveState"), "active");
    let journal = site.journal();
    assert!(
        journal.contains("gateway.toml:2:10") || journal.contains("gateway.toml:2:"),
        "the journal names the place:\n{journal}"
    );

    site.systemd.write(&site.config(), &good);
    site.must_systemctl(&["reload", "gateway"]);
    assert_eq!(site.main_pid(), pid, "reloads keep the process");
}

#[test]
fn a_system_service_lives_and_loses_nothing() {
    life_of_a_system_service(Base::Machine);
}

/// The life of a service of the machine.
pub fn life_of_a_system_service(base: Base) {
    let Some(systemd) = prepared_on(base, "system").filter(|_| servers::have("node")) else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    life(&site, &["--run-as", &app.name]);
}

#[test]
fn a_users_service_lives_and_loses_nothing() {
    life_of_a_users_service(Base::Machine);
}

/// The life of a user's service.
pub fn life_of_a_users_service(base: Base) {
    let Some(systemd) = prepared_on(base, "user").filter(|_| servers::have("node")) else {
        return;
    };
    let user = systemd.add_user("app");
    let site = Site::of_user(&systemd, user);
    life(&site, &[]);
}

#[test]
fn node_and_python_run_in_every_sandbox() {
    let Some(systemd) =
        prepared("sandbox").filter(|_| servers::have("node") && servers::have("python3"))
    else {
        return;
    };
    systemd.write("/srv/files/index.html", "hello from python\n");
    let mut port = 18800;
    for (number, sandbox) in ["app", "strict"].into_iter().enumerate() {
        for (kind, command) in [
            ("node", vec!["node", NODE_APP, "{port}"]),
            (
                "python",
                vec![
                    "python3",
                    "-m",
                    "http.server",
                    "--bind",
                    "127.0.0.1",
                    "--directory",
                    "/srv/files",
                    "{port}",
                ],
            ),
        ] {
            port += 1;
            let (name, listen) = (format!("{kind}{number}"), port.to_string());
            let install = [
                "gatewayctl",
                "install",
                "--now",
                "--instance",
                &name,
                "--listen",
                &listen,
                "--sandbox",
                sandbox,
                "--",
            ];
            systemd.must(&[&install[..], &command].concat());
            let unit = format!("gateway@{name}.service");
            let body = systemd.must(&["curl", "-sSf", &format!("http://127.0.0.1:{port}/")]);
            assert!(!body.is_empty());
            assert_eq!(
                systemd
                    .must(&["systemctl", "show", "--value", "-p", "DynamicUser", &unit])
                    .trim(),
                "yes"
            );
            let reload = systemd.run(&["systemctl", "reload", &unit]);
            assert!(reload.status.success(), "{}", all_of(&reload));
            systemd.must(&["gatewayctl", "restart", "--instance", &name]);
            let score = systemd.exposure(&[&unit]);
            let most = if sandbox == "app" { 2.5 } else { 2.0 };
            assert!(score <= most, "{unit}: {score}");
            let verified = systemd.run(&["systemd-analyze", "verify", &unit]);
            assert!(
                verified.status.success() && verified.stderr.is_empty(),
                "{}",
                all_of(&verified)
            );
        }
    }
    let listed = systemd.run(&["gatewayctl", "stop"]);
    assert_eq!(
        listed.status.code(),
        Some(2),
        "several are listed: {}",
        all_of(&listed)
    );
    assert!(all_of(&listed).contains("node0") && all_of(&listed).contains("python1"));
    for name in ["node0", "python0", "node1", "python1"] {
        systemd.must(&["gatewayctl", "uninstall", "--instance", name]);
    }
    let left = systemd.sh("find /etc /run /var/lib -name '*gateway*' -not -path '/run/log/*'");
    assert_eq!(left, "", "uninstall leaves nothing");
}

#[test]
fn what_must_not_be_done_is_refused_with_the_next_command() {
    let Some(systemd) = prepared("refused").filter(|_| servers::have("node")) else {
        return;
    };
    let user = systemd.add_plain_user("someone");
    let ctl = |args: &[&str]| systemd.run(&[&["gatewayctl"], args].concat());
    let nothing_there = || {
        assert_eq!(
            systemd.sh("find /etc /run /var/lib -name '*gateway*'"),
            "",
            "nothing was changed"
        )
    };

    let json = ctl(&["start", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&object["ok"], &object["exit"]), (&false.into(), &3.into()));
    expect(
        &ctl(&["start"]),
        3,
        &["no gateway is installed", "gatewayctl install"],
    );
    expect(
        &ctl(&["status"]),
        3,
        &["no gateway is running", "gatewayctl install"],
    );
    expect(
        &ctl(&["install", "--", "no-such-server"]),
        1,
        &["no-such-server", "not found"],
    );
    expect(
        &ctl(&["install", "--env-file", "/nowhere", "--", "sleep", "9"]),
        1,
        &["/nowhere"],
    );
    expect(
        &ctl(&["install", "--run-as", "nobody-here", "--", "sleep", "9"]),
        2,
        &["useradd"],
    );
    let words = "echo these are my last words >&2; exit 3";
    expect(
        &ctl(&["install", "--now", "--", "sh", "-c", words]),
        1,
        &["does not start as a service", "these are my last words"],
    );
    let telling = [
        "install",
        "--",
        "sh",
        "-c",
        "echo token is $2 >&2; exit 3",
        "sh",
        "--token",
        "canary-4711",
    ];
    let told = ctl(&telling);
    expect(&told, 1, &["token is ***"]);
    assert!(!all_of(&told).contains("canary"), "{}", all_of(&told));
    let dry = ctl(&[
        "install",
        "--dry-run",
        "--now",
        "--",
        "node",
        NODE_APP,
        "--api-key",
        "canary-4711",
        "{port}",
    ]);
    expect(
        &dry,
        0,
        &[
            "/etc/systemd/system/gateway.service",
            "ExecStart=/usr/local/bin/gateway run --instance gateway",
            "would:",
            "***",
        ],
    );
    assert!(!all_of(&dry).contains("canary"), "{}", all_of(&dry));
    systemd.must(&[
        "systemd-run",
        "--unit=stranger",
        "--property=Type=exec",
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "18789",
    ]);
    wait::until("the stranger listens", || {
        systemd
            .run(&["curl", "-s", "http://127.0.0.1:18789/"])
            .status
            .success()
            .then_some(())
    });
    expect(
        &ctl(&["install", "--now", "--", "node", NODE_APP, "{port}"]),
        5,
        &[
            "127.0.0.1:18789 is taken",
            "systemctl stop stranger.service",
            "--listen",
        ],
    );
    nothing_there();
    expect(
        &ctl(&["install", "--", "node", NODE_APP, "{port}"]),
        0,
        &["is installed"],
    );
    expect(
        &ctl(&["status"]),
        3,
        &[
            "gateway: stopped, gateway.service (system scope)",
            "gatewayctl start --instance gateway",
        ],
    );
    expect(
        &ctl(&["list"]),
        0,
        &["gateway  stopped  no process  gateway.service (system)"],
    );
    // Users saw 43,175 restarts in a row: a taken address is waited for, not run against ten times
    // a second.
    let waits = "waiting for 127.0.0.1:18789: held by ";
    expect(
        &ctl(&["start"]),
        5,
        &["gateway.service runs, and is", waits, "gatewayctl clean"],
    );
    expect(
        &ctl(&["status"]),
        4,
        &[
            "gateway: standing by, gateway.service (system scope)",
            waits,
            "gatewayctl clean --instance gateway",
        ],
    );
    assert_eq!(
        systemd
            .must(&["systemctl", "show", "--value", "-p", "NRestarts", "gateway"])
            .trim(),
        "0"
    );
    systemd.must(&["systemctl", "stop", "stranger"]);
    expect(&ctl(&["wait", "--ready"]), 0, &["ready"]);
    expect(&ctl(&["start"]), 0, &["already running"]);
    let json = ctl(&[
        "install", "--now", "--json", "--", "node", NODE_APP, "{port}",
    ]);
    let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&object["outcome"], &object["unit"]),
        (&"already installed".into(), &"gateway.service".into()),
        "{object}"
    );
    systemd.must(&["gatewayctl", "uninstall"]);
    nothing_there();

    let output = systemd.run_as_user(
        &user,
        &[
            "gatewayctl",
            "--system",
            "install",
            "--now",
            "--",
            "node",
            NODE_APP,
            "{port}",
        ],
    );
    expect(&output, 77, &["only root may write", "sudo"]);
    let output = systemd.run_as_user(
        &user,
        &[
            "gatewayctl",
            "install",
            "--now",
            "--",
            "node",
            NODE_APP,
            "{port}",
        ],
    );
    expect(
        &output,
        1,
        &[
            &format!("cannot reach the service manager of user {}", user.name),
            &format!("loginctl enable-linger {}", user.name),
        ],
    );
    let nowhere = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere";
    let output = systemd.run_as_user(
        &user,
        &[
            "env",
            nowhere,
            "gatewayctl",
            "--system",
            "install",
            "--",
            "node",
            NODE_APP,
            "{port}",
        ],
    );
    expect(
        &output,
        1,
        &["cannot reach the service manager", "/nowhere", "sudo"],
    );
    nothing_there();

    // Root needs no bus.
    let without_bus = [
        "env",
        nowhere,
        "gatewayctl",
        "install",
        "--now",
        "--run-as",
        &user.name,
        "--",
        "node",
        NODE_APP,
        "{port}",
    ];
    expect(&systemd.run(&without_bus), 0, &["installed and ready"]);
    let output = systemd.run_as_user(
        &user,
        &["gatewayctl", "--system", "start", "--instance", "gateway"],
    );
    expect(&output, 0, &["already running"]);
    systemd.must(&["gatewayctl", "stop"]);
    let output = systemd.run_as_user(&user, &["gatewayctl", "--system", "start"]);
    expect(
        &output,
        77,
        &["not permitted to start gateway.service", "sudo"],
    );
    systemd.must(&["gatewayctl", "start"]);

    // One that does not answer is restarted by its manager, and one that is stopped is started.
    let pid = || {
        systemd
            .must(&["systemctl", "show", "--value", "-p", "MainPID", "gateway"])
            .trim()
            .to_owned()
    };
    let stuck = pid();
    systemd.must(&["kill", "-STOP", &stuck]);
    expect(
        &ctl(&["restart"]),
        0,
        &[
            "does not answer",
            "so the service manager ends and starts it",
            "gateway.service: restarted",
        ],
    );
    assert_ne!(pid(), stuck);
    systemd.must(&["gatewayctl", "stop"]);
    expect(
        &ctl(&["restart"]),
        0,
        &[
            "gateway.service is stopped, so it is started",
            "gateway.service: started",
        ],
    );
    let served = pid();
    expect(
        &ctl(&["list"]),
        0,
        &[
            "gateway  ready  pid ",
            "gateway.service (system)  127.0.0.1:18789",
        ],
    );
    let neighbour = systemd.add_plain_user("neighbour");
    let output = systemd.run_as_user(&neighbour, &["gatewayctl", "status"]);
    expect(
        &output,
        77,
        &[
            "gateway: running, gateway.service",
            "generation 1 serves",
            "sudo gatewayctl status",
        ],
    );
    expect(
        &systemd.run_as_user(&neighbour, &["gatewayctl", "restart"]),
        77,
        &["the same command with sudo"],
    );

    // A configuration that is not valid is refused before anything is asked; behind gatewayctl's
    // back it makes a failed unit where there is no last good one.
    let good = systemd.read("/etc/gateway/gateway.toml").unwrap();
    systemd.write("/etc/gateway/gateway.toml", &format!("{good}[gateway\n"));
    let place = "/etc/gateway/gateway.toml:";
    expect(
        &ctl(&["restart"]),
        78,
        &[
            place,
            "nothing was changed: generation 1 serves on",
            "gatewayctl config check",
        ],
    );
    assert_eq!(pid(), served);
    systemd.must(&["systemctl", "restart", "gateway"]);
    expect(
        &ctl(&["status"]),
        1,
        &["gateway: degraded", "last good: /etc/gateway/gateway.toml:"],
    );
    systemd.sh("rm $(find -L /var/lib/gateway /var/lib/private/gateway -name good.toml)");
    systemd.must(&["systemctl", "stop", "gateway"]);
    assert!(
        !systemd
            .run(&["systemctl", "start", "gateway"])
            .status
            .success()
    );
    expect(
        &ctl(&["status"]),
        1,
        &[
            "gateway: failed",
            "exit-code: the gateway exited with code 78",
            place,
            "gatewayctl start",
        ],
    );
    expect(
        &ctl(&["list"]),
        0,
        &["gateway  failed  no process  gateway.service (system)"],
    );
    let json: serde_json::Value =
        serde_json::from_slice(&ctl(&["status", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["stage"], &json["exit"], &json["result"]),
        (&"failed".into(), &1.into(), &"exit-code".into()),
        "{json}"
    );
    for verb in ["start", "restart"] {
        expect(
            &ctl(&[verb]),
            78,
            &[place, "nothing was changed", "gatewayctl config check"],
        );
    }
    systemd.write("/etc/gateway/gateway.toml", &good);
    expect(&ctl(&["restart"]), 0, &["gateway.service: started"]);

    // A stop from inside would end the command that waits for it.
    let inside = "for dir in $(find /sys/fs/cgroup -type d -name gateway.service); do echo $$ > $dir/cgroup.procs; done; exec gatewayctl \"$@\"";
    for verb in ["stop", "uninstall"] {
        expect(
            &systemd.run(&["sh", "-c", inside, "sh", verb]),
            5,
            &["from inside"],
        );
    }

    systemd.sh("echo '# mine' >> /etc/systemd/system/gateway.service");
    let other = ["install", "--now", "--sandbox", "strict"];
    expect(
        &ctl(&other),
        5,
        &["was changed since", "-# mine", "--overwrite"],
    );
    expect(&ctl(&["uninstall"]), 5, &["was changed since"]);
    systemd.write(
        "/etc/gateway/gateway.toml",
        "[gateway]\nlisten = [\"18789\"]\n",
    );
    expect(
        &ctl(&["install", "--", "sleep", "9"]),
        5,
        &["was not written by gatewayctl", "+command = "],
    );
    expect(
        &ctl(&[
            "install",
            "--overwrite",
            "--now",
            "--",
            "node",
            NODE_APP,
            "{port}",
        ]),
        0,
        &["updated and ready"],
    );
    expect(
        &ctl(&["install", "--listen", "18790", "--", "sleep", "9"]),
        5,
        &["another command on another address", "--instance NAME"],
    );
    systemd.must(&["gatewayctl", "uninstall"]);
    // What it wrote over comes back; what was edited stays beside.
    assert_eq!(
        systemd.read("/etc/gateway/gateway.toml").unwrap(),
        "[gateway]\nlisten = [\"18789\"]\n"
    );
    systemd.must(&[
        "rm",
        "/etc/gateway/gateway.toml",
        "/etc/systemd/system/gateway.service.edited",
    ]);
    systemd.must(&["rmdir", "/etc/gateway"]);
    nothing_there();
}

/// stop ended the installed service, and logs showed its journal, while status spoke of the other
/// gateway.
#[test]
fn a_variable_that_names_another_gateway_keeps_every_command_from_the_service() {
    let Some(systemd) = prepared("named") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&[]);
    let pid = site.main_pid();
    systemd.write("/srv/other.toml", "[gateway]\ninstance = \"other\"\n");
    for variable in [
        "GATEWAY_STATE_DIR=/srv/other",
        "GATEWAY_CONFIG=/srv/other.toml",
    ] {
        let ctl = |args: &[&str]| site.run(&[&["env", variable, "gatewayctl"], args].concat());
        expect(&ctl(&["stop"]), 0, &["nothing to stop"]);
        for command in ["status", "logs", "restart", "reload", "history"] {
            let output = ctl(&[command]);
            assert_eq!(output.status.code(), Some(3), "{}", all_of(&output));
        }
        let (name, _) = variable.split_once('=').unwrap();
        for command in ["start", "uninstall", "install"] {
            expect(&ctl(&[command]), 2, &[&format!("unset {name}")]);
        }
    }
    assert_eq!(site.main_pid(), pid);
}

#[test]
fn a_socket_unit_holds_the_front_door_while_the_service_is_down() {
    let Some(systemd) = prepared("socket").filter(|_| servers::have("node")) else {
        return;
    };
    systemd.must(&[
        "gatewayctl",
        "install",
        "--now",
        "--socket",
        "--",
        "node",
        NODE_APP,
        "{port}",
    ]);
    let site = Site::of_machine(&systemd);
    assert_eq!(site.property("gateway.socket", "ActiveState"), "active");
    let load = load_on_front(&systemd, RATE);
    site.must_systemctl(&["restart", "gateway.service"]);
    load.flows(Part::New, 10);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
    // Taken back, the service binds its addresses itself again, and back.
    for (flags, state) in [
        (&["--unset", "socket"][..], "inactive"),
        (&["--socket"], "active"),
    ] {
        let install = ["gatewayctl", "install", "--now", "--yes"];
        systemd.must(&[&install[..], flags, &node()].concat());
        assert_eq!(site.property("gateway.socket", "ActiveState"), state);
        systemd.must(&["curl", "-sSf", "http://127.0.0.1:18789/"]);
    }
    site.must_systemctl(&["stop", "gateway.service"]);
    assert!(
        !systemd
            .must(&["curl", "-sSf", "http://127.0.0.1:18789/"])
            .is_empty(),
        "a client starts it"
    );
    systemd.must(&["gatewayctl", "stop"]);
    assert_eq!(site.property("gateway.socket", "ActiveState"), "inactive");
    assert!(
        !systemd
            .run(&["curl", "-s", "http://127.0.0.1:18789/"])
            .status
            .success()
    );
    systemd.must(&["gatewayctl", "uninstall"]);
    assert_eq!(systemd.sh("find /etc /run /var/lib -name '*gateway*'"), "");
}

#[test]
fn lingering_is_turned_on_and_off_again_by_whom_it_was_turned_on() {
    let Some(systemd) = prepared("linger").filter(|_| servers::have("node")) else {
        return;
    };
    // Root may do it without polkit, and has a user manager like anybody else.
    systemd.must(&[
        "systemd-run",
        "--unit=login",
        "-p",
        "PAMName=login",
        "-p",
        "User=root",
        "sleep",
        "600",
    ]);
    wait::until("root is logged in", || {
        systemd
            .must(&["loginctl", "list-sessions", "--no-legend"])
            .contains("root")
            .then_some(())
    });
    systemd.must(&["systemctl", "start", "user@0.service"]);
    let user = |args: &[&str]| {
        systemd.must(
            &[
                &["env", "XDG_RUNTIME_DIR=/run/user/0", "gatewayctl", "--user"],
                args,
            ]
            .concat(),
        )
    };
    let lingers = || systemd.path("/var/lib/systemd/linger/root").exists();
    assert!(!lingers());
    let said = user(&["install", "--now", "--", "node", NODE_APP, "{port}"]);
    assert!(
        lingers() && said.contains("note: lingering is on now"),
        "{said}"
    );
    user(&["uninstall"]);
    assert!(!lingers());
    systemd.must(&["loginctl", "enable-linger", "root"]);
    user(&["install", "--now", "--", "node", NODE_APP, "{port}"]);
    user(&["uninstall"]);
    assert!(lingers(), "what somebody else turned on stays");
}
