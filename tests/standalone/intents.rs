//! Restarts that are announced in the state directory and begun by a signal, and verdicts that no
//! earlier request spoils.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::support::gateway::{Gateway, READY, Setup, said};
use crate::support::{servers, wait};

/// What a benchmark writes that knows nothing but the pid and the time.
fn announce(gateway: &Gateway, reason: &str) {
    let now = jiff::Timestamp::now().as_millisecond();
    let pid = gateway.pid();
    let text = format!(
        r#"{{"kind":"gateway-restart","pid":{pid},"createdAt":{now},"reason":"{reason}"}}"#
    );
    let file = gateway.state_dir().join("restart-intent.json");
    let written = file.with_extension("new");
    fs::write(&written, text).unwrap();
    fs::set_permissions(&written, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&written, &file).unwrap();
}

#[test]
fn a_restart_that_sigusr1_begins_uses_its_announcement_up_and_the_next_sigterm_stops() {
    if !servers::have("node") {
        return;
    }
    // Under a supervisor the announcement would make the SIGTERM the begin of a restart.
    let mut gateway = Setup::behind(servers::node())
        .env("GATEWAY_SUPERVISOR", "s6")
        .config("[restart]\nexternal_signal = false\n")
        .start();
    for (round, signal) in [Signal::SIGUSR1, Signal::SIGUSR2].into_iter().enumerate() {
        announce(&gateway, &format!("benchmark {round}"));
        gateway.signal(signal);
        gateway.wait_line(&format!("asked: benchmark {round}"));
        let left = gateway.state_dir().join("restart-intent.json").exists();
        assert!(!left, "{signal}: {}", gateway.stderr());
        if signal == Signal::SIGUSR1 {
            gateway.wait_nth_line(READY, 1);
            gateway.signal(signal);
            gateway.wait_line("SIGUSR1 is refused");
        }
    }
    gateway.signal(Signal::SIGTERM);
    gateway.wait_line("received SIGTERM: stopping");
    assert_eq!(gateway.exit_code(wait::DEADLINE), 0, "{}", gateway.stderr());
}

#[test]
fn what_a_reload_found_is_not_the_verdict_of_the_next_restart() {
    if !servers::have("node") {
        return;
    }
    let good = format!("[sidecar.main]\ncommand = {:?}\n", servers::node());
    let gateway = Setup::new().config(&good).start();
    for restart in [&["restart"][..], &["restart", "--fresh"]] {
        let unchanged = gateway.ctl(["reload"]);
        assert!(said(&unchanged).contains("nothing to do"));
        let output = gateway.ctl(restart.iter().copied());
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            !said(&output).contains("nothing to do"),
            "{}",
            said(&output)
        );
    }
    fs::write(gateway.config_file(), "[gateway]\nlisten = 5\n").unwrap();
    assert_eq!(gateway.ctl(["reload"]).status.code(), Some(78));
    fs::write(
        gateway.config_file(),
        "[sidecar.main]\ncommand = [\"false\"]\n",
    )
    .unwrap();
    let output = gateway.ctl(["restart"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}
