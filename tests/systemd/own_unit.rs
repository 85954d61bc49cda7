//! What a service learns about itself under a real systemd, from within the sandbox of the shipped
//! unit and in user scope.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::systemd_box::SystemdBox;
use crate::support::{part, wait};
use gateway::internals::{DBUS_ANSWER, facts_of, machine_stopping};
use gateway::internals::{Evidence, Notifier, detect};
use gateway::programs::Env;

/// This very program in the box.
const PROBE: &str = "/usr/local/bin/probe";

/// The arguments for it.
fn inside_alone() -> [String; 4] {
    part::arguments(module_path!(), "inside")
}

const BARRIER_LIMIT: Duration = Duration::from_secs(5);

/// Not a test: the service whose report the tests read. Its directory is the state directory that
/// systemd gives it.
#[test]
#[ignore = "runs inside of a box, as a service"]
fn inside() {
    let dir = PathBuf::from(std::env::var_os("STATE_DIRECTORY").unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut term =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let plain = detect(&Evidence::gather(&Env::real(), "gateway"));
        let begun = Instant::now();
        let manager = facts_of(std::process::id()).await;
        let took = begun.elapsed();
        let facts = format!("{manager:?}");
        let mut evidence = Evidence {
            manager,
            ..Evidence::gather(&Env::real(), "gateway")
        };
        evidence.environment.remove("SYSTEMD_EXEC_PID");
        let asked = detect(&evidence);
        let notifier = Notifier::new();
        notifier.ready("the probe runs");
        let heard = notifier.barrier(BARRIER_LIMIT).await;
        let stopping = machine_stopping().await;
        let quick = took < DBUS_ANSWER;
        report(
            &dir,
            "facts",
            &format!("{plain}\n{asked}\n{facts}\nquick={quick} heard={heard} stopping={stopping}"),
        );
        loop {
            term.recv().await;
            report(
                &dir,
                "end",
                &format!("stopping={}", machine_stopping().await),
            );
        }
    });
}

/// Whole or absent, so that a reader never sees half of it.
fn report(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join("part"), text).unwrap();
    std::fs::rename(dir.join("part"), dir.join(name)).unwrap();
}

/// The shipped unit with the probe in place of the gateway.
fn install_probe(systemd: &SystemdBox, user: &str) {
    systemd.copy_in(std::env::current_exe().unwrap(), PROBE);
    let unit = std::fs::read_to_string("units/gateway.service").unwrap();
    let line = |line: &str| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={PROBE} {}", inside_alone().join(" ")),
        Some(("DynamicUser", _)) => user.to_owned(),
        // It stays while the test looks at it.
        Some(("TimeoutStopSec", _)) => "TimeoutStopSec=77".to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<String> = unit.lines().map(line).collect();
    systemd.write("/etc/systemd/system/probe.service", &text.join("\n"));
    systemd.must(&["systemctl", "daemon-reload"]);
}

fn start(systemd: &SystemdBox) {
    let started = systemd.run(&["systemctl", "start", "probe.service"]);
    let journal = systemd.must(&[
        "journalctl",
        "--no-pager",
        "-o",
        "cat",
        "-n",
        "30",
        "-u",
        "probe.service",
    ]);
    assert!(started.status.success(), "{journal}");
}

#[test]
fn a_sandboxed_service_knows_its_unit_and_when_the_machine_goes_down() {
    let Some(systemd) = SystemdBox::boot_or_skip("self") else {
        return;
    };
    let user = systemd.add_plain_user("probe");
    install_probe(&systemd, &format!("User={}", user.name));
    start(&systemd);
    let dir = "/var/lib/gateway/gateway";
    let read = |name: &str| wait::until(name, || systemd.read(&format!("{dir}/{name}")).ok());
    let said = read("facts");
    for part in [
        "systemd probe.service (SYSTEMD_EXEC_PID is this process)\n",
        "systemd probe.service (its manager says that this is the main process of probe.service)\n",
        r#"unit: "probe.service", user: false"#,
        r#"restart: Known(Always), notify_access: Known(Main), timeout_stop: Some(77s), watchdog: Some(30s), n_fd_store: 0"#,
        "quick=true heard=true stopping=false",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    systemd.must(&["systemctl", "--no-block", "stop", "probe.service"]);
    assert_eq!(
        read("end"),
        "stopping=false",
        "a stop of the unit is none of the machine"
    );
    let pid = systemd.must(&[
        "systemctl",
        "show",
        "--value",
        "-p",
        "MainPID",
        "probe.service",
    ]);
    systemd.must(&["kill", "-KILL", pid.trim()]);
    systemd.must(&["rm", &format!("{dir}/end")]);
    start(&systemd);
    systemd.must(&["systemctl", "--no-block", "poweroff"]);
    assert_eq!(read("end"), "stopping=true");
}

/// The bus may not know a dynamic user and not answer: then what systemd put into the environment
/// must do.
#[test]
fn a_dynamic_user_knows_its_unit_with_and_without_a_bus() {
    let Some(systemd) = SystemdBox::boot_or_skip("self-dynamic") else {
        return;
    };
    install_probe(&systemd, "DynamicUser=yes");
    start(&systemd);
    let said = wait::until("facts", || {
        systemd.read("/var/lib/private/gateway/gateway/facts").ok()
    });
    assert!(
        said.starts_with("systemd probe.service (SYSTEMD_EXEC_PID is this process)\n"),
        "{said}"
    );
    assert!(
        said.contains("quick=true heard=true stopping=false"),
        "{said}"
    );
}

#[test]
fn a_user_s_service_knows_its_unit_and_when_its_manager_ends() {
    let Some(systemd) = SystemdBox::boot_or_skip("self-user") else {
        return;
    };
    install_probe(&systemd, "");
    let user = systemd.add_user("alice");
    let run = [
        "systemd-run",
        "--user",
        "--unit=probe",
        "-p",
        "Type=notify",
        "-p",
        "StateDirectory=probe",
        "-p",
        "TimeoutStopSec=77",
    ];
    systemd.must_as_user(
        &user,
        &[
            &run[..],
            &[PROBE],
            &inside_alone().each_ref().map(String::as_str),
        ]
        .concat(),
    );
    let dirs =
        [".config/probe", ".local/state/probe"].map(|dir| format!("/home/{}/{dir}", user.name));
    let read = |name: &str| {
        wait::until(name, || {
            dirs.iter()
                .find_map(|dir| systemd.read(&format!("{dir}/{name}")).ok())
        })
    };
    let said = read("facts");
    for part in [
        "systemd --user probe.service (SYSTEMD_EXEC_PID is this process)\n",
        "systemd --user probe.service (its manager says that this is the main process of probe.service)\n",
        r#"unit: "probe.service", user: true"#,
        r#"restart: Other("no"), notify_access: Known(Main), timeout_stop: Some(77s), watchdog: None"#,
        "quick=true heard=true stopping=false",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    systemd.must(&[
        "systemctl",
        "--no-block",
        "stop",
        &format!("user@{}.service", user.uid),
    ]);
    assert_eq!(read("end"), "stopping=true");
}
