//! `gatewayctl clean` under a real systemd, each test named after what somebody saw.

use crate::support::clean::{OBEDIENT, verdict};
use crate::support::site::Site;
use crate::support::systemd_box::SystemdBox;
use crate::support::{servers, site, wait};
use serde_json::Value;

#[test]
fn a_helper_of_a_service_does_not_kill_the_service_though_it_hangs() {
    let Some(systemd) = site::prepared("clean-helper").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    // A directory of its own: in one that all may write to, nobody but its owner may open its pipe
    // (fs.protected_fifos).
    systemd.sh(&format!("mkdir /srv/app; chown {}: /srv/app", app.name));
    systemd.write(
        "/srv/sidecar.sh",
        &OBEDIENT.replace("orders", "/srv/app/orders"),
    );
    let install = [
        "gatewayctl",
        "install",
        "--now",
        "--run-as",
        &app.name,
        "--listen",
        "127.0.0.1:18789",
        "--sandbox",
        "off",
    ];
    systemd.must(
        &[
            &install[..],
            &["--", "sh", "/srv/sidecar.sh", "{port}", site::NODE_APP],
        ]
        .concat(),
    );
    let main = site.main_pid();
    systemd.must(&["kill", "-STOP", &main.to_string()]);
    // Without the configuration it knows nothing of the service but the group that it is in itself.
    for (name, flags) in [
        ("known", "--instance gateway"),
        ("unknown", "--config /dev/null --state-dir /tmp/none"),
    ] {
        let ctl = format!(
            "/usr/local/bin/gatewayctl {flags} --json clean --port 18789 > /tmp/{name}.part; mv /tmp/{name}.part /tmp/{name}"
        );
        systemd.sh(&format!(
            "echo \"setsid --fork sh -c '{ctl}'\" > /srv/app/orders"
        ));
        let text = wait::until(name, || systemd.read(&format!("/tmp/{name}")).ok());
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let report = answer.get("clean").unwrap_or(&answer);
        let verdict = verdict(report, main);
        assert!(
            ["kept main", "kept in-own-service"].contains(&verdict.as_str()),
            "{name}: {verdict}: {report:#}"
        );
    }
    systemd.must(&["kill", "-CONT", &main.to_string()]);
    assert_eq!(site.main_pid(), main, "{}", site.journal());
}

#[test]
fn a_process_that_cannot_be_seen_is_said_to_be_so() {
    let Some(systemd) = site::prepared("clean-hidden").filter(|_| servers::have("python3")) else {
        return;
    };
    let alice = systemd.add_plain_user("alice");
    let serve = "systemd-run --unit=stranger -p WorkingDirectory=/srv python3 -m http.server --bind 127.0.0.1 18080";
    systemd.sh(serve);
    let answers = || {
        systemd
            .run(&["curl", "-sSf", "-o", "/dev/null", "http://127.0.0.1:18080/"])
            .status
            .success()
    };
    wait::until("the stranger listens", || answers().then_some(()));
    let pid = systemd
        .must(&[
            "systemctl",
            "show",
            "--value",
            "-p",
            "MainPID",
            "stranger.service",
        ])
        .trim()
        .to_owned();
    systemd.must(&["mount", "-o", "remount,hidepid=2", "/proc"]);
    let hidden = systemd.run_as_user(&alice, &["ls", "-d", &format!("/proc/{pid}")]);
    assert!(!hidden.status.success(), "hidepid=2 does nothing here");
    for more in [&[][..], &["--force", "--pid", &pid]] {
        let output = systemd.run_as_user(
            &alice,
            &[&["gatewayctl", "clean", "--port", "18080"], more].concat(),
        );
        let text = site::all_of(&output);
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(
            text.contains("port 18080: held by a process that cannot be seen from here (uid 0)"),
            "{text}"
        );
    }
    assert!(answers() && SystemdBox::read(&systemd, &format!("/proc/{pid}/comm")).is_ok());
}
