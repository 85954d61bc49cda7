//! Restarts that are announced in the state directory and begun by a signal, and verdicts that no
//! earlier request spoils.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::client::{self, block_on};
use crate::support::gateway::{READY, Setup, said};
use crate::support::handover::{announce, followed, fresh, no_sidecar, one_of};
use crate::support::{servers, wait};

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

/// The supervisor knows the pid of the first process only, which may still have work of its own.
#[test]
fn a_restart_that_is_announced_for_the_first_process_is_done_by_the_one_that_serves() {
    for busy in [false, true] {
        let Some(setup) = followed() else { return };
        let mut gateway = setup.env("GATEWAY_SUPERVISOR", "s6").start();
        let target = gateway.target();
        let slow = busy.then(|| {
            let slow = std::thread::spawn(move || block_on(client::get(&target, "/slow?ms=7000")));
            gateway.wait_status("a request is under way", |status| status["requests"] == 1);
            slow
        });
        let serves = fresh(&gateway);
        if !busy {
            one_of(&gateway, 2);
        }
        announce(&gateway, "new certificate");
        gateway.signal(Signal::SIGTERM);
        gateway.wait_line("received SIGTERM to restart: new certificate");
        assert_eq!(gateway.exit_code(wait::DEADLINE), 0, "{}", gateway.stderr());
        if let Some(slow) = slow {
            let answer = slow.join().unwrap().unwrap();
            assert_eq!(answer.status(), 200, "{}", gateway.stderr());
        }
        assert!(!gateway.stderr().contains("does not count"));
        let history = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
        let ended = |line: &&str| {
            line.contains(r#""event":"ended""#) && line.contains(&format!(r#""pid":{serves},"#))
        };
        let end = history
            .lines()
            .find(ended)
            .unwrap_or_else(|| panic!("{history}"));
        assert!(end.contains("new certificate"), "{end}");
        no_sidecar(&gateway);
    }
}
