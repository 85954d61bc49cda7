//! `gatewayctl why` without a service manager: the cause is in the record.

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::Failpoint;
use crate::support::hold::deafen;
use crate::support::{port, servers, skip, wait};

/// The first line of `why`, of a gateway without a service manager.
fn sentence(gateway: &Gateway) -> String {
    let output = gateway.ctl(["why"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn a_gateway_that_was_started_by_hand_is_explained_from_its_record() {
    if !servers::have("node") {
        return;
    }
    let mut gateway = Setup::behind(["node", servers::NODE_APP, "{port}"]).start();
    assert!(
        sentence(&gateway).starts_with("nothing has ended gateway"),
        "{}",
        sentence(&gateway)
    );
    let output = gateway.ctl(["restart", "--reason", "new key"]);
    assert!(output.status.success(), "{}", said(&output));
    let told = sentence(&gateway);
    assert!(
        told.contains("on request: new key, by uid") && told.contains("in-process"),
        "{told}"
    );
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(gateway.exit_code(wait::DEADLINE), 0);
    let told = sentence(&gateway);
    assert!(
        told.contains("ended by SIGTERM at") && told.contains("it is not running"),
        "{told}"
    );
    let output = gateway.ctl(["history"]);
    assert!(
        said(&output).contains("restart done (in-process)"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_gateway_that_was_killed_leaves_no_word_and_why_says_so() {
    let mut gateway = Setup::new().start();
    gateway.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.wait_exit(wait::DEADLINE);
    let told = sentence(&gateway);
    assert!(
        told.contains("ended unplanned")
            && told.contains("killed or it crashed")
            && told.contains("is not running"),
        "{told}"
    );
}

#[test]
fn a_gateway_that_clean_ended_did_not_crash() {
    if !skip::unless_there("prlimit") {
        return;
    }
    let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
    let failpoint = Failpoint::new();
    let setup = Setup::new().env("GATEWAY_SUPERVISOR", "none");
    let setup = failpoint.on(setup.state_dir(dir.path()).port(port));
    let uid = nix::unistd::geteuid();
    // One more than the starts in quick succession that are not slowed down.
    for round in 0..4 {
        let mut hung = setup.start();
        assert!(!hung.stderr().contains("throttled"), "{round}");
        let pid = hung.pid();
        // It decides nothing any more, and answers nobody; suspended it would be left alone.
        failpoint.arm("old.before-spawn", "hang");
        let asked = hung.ctl_aside(["restart", "--fresh"]);
        failpoint.wait_reached();
        deafen(pid);
        let output = hung.ctl(["clean"]);
        assert!(output.status.success(), "{}", said(&output));
        hung.wait_exit(wait::DEADLINE);
        asked.join().unwrap();
        let told = sentence(&hung);
        assert!(
            told.contains(&format!(
                "by gatewayctl clean, by uid {uid}, with SIGKILL: "
            )) && told.contains("answers no probe; it is not running"),
            "{told}"
        );
        let told = said(&hung.ctl(["history"]));
        assert!(told.contains("ended, code 137"), "{told}");
    }
    let next = setup.start();
    assert!(!next.stderr().contains("throttled"), "{}", next.stderr());
    let told = sentence(&next);
    assert!(
        told.contains("by gatewayctl clean") && told.contains("it was started again"),
        "{told}"
    );
    assert_eq!(next.status()["stage"], "ready");
}

#[test]
fn why_leads_with_the_restart_that_failed_while_the_old_copy_serves() {
    if !servers::have("node") {
        return;
    }
    let script = "[ -e bad ] && { echo 'KeyError: token' >&2; exit 3; }; exec \"$@\"";
    let server = ["sh", "-c", script, "sh"].map(str::to_owned).into_iter();
    let gateway = Setup::behind(server.chain(servers::node())).start();
    gateway.restart();
    let bad = gateway.dir().join("bad");
    std::fs::write(&bad, "").unwrap();
    let failed = gateway.ctl(["restart", "--reason", "deploy 43"]);
    let text = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    // The cause comes first, and no advice for servers that another copy is in the way of.
    let place = |words: &str| {
        text.find(words)
            .unwrap_or_else(|| panic!("no {words}: {text}"))
    };
    assert!(
        place("exited with code 3") < place("KeyError: token"),
        "{text}"
    );
    assert!(!text.contains("--exclusive"), "{text}");
    let told = sentence(&gateway);
    for words in [
        "the restart of gateway",
        "exited with code 3",
        "KeyError: token",
        "deploy 43",
        "generation 2 serves on",
    ] {
        assert!(told.contains(words), "no {words}: {told}");
    }
    std::fs::remove_file(&bad).unwrap();
    let done = gateway.restart();
    // Its number tells of the one that failed.
    let text = said(&done);
    assert!(text.contains("generation 2 -> 4"), "{text}");
    assert!(text.contains("generation 3 was given up before"), "{text}");
    let told = sentence(&gateway);
    assert!(told.contains("was restarted at"), "{told}");
}

#[test]
fn why_tells_by_which_signal_a_server_was_killed() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let old = gateway.sidecar_pid("main");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(old).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    gateway.wait_status("it is back", |status| {
        status["stage"] == "ready" && status["sidecars"][0]["pid"] != old
    });
    let told = sentence(&gateway);
    for words in [
        "its sidecar main ",
        "was ended by SIGKILL at ",
        "is ready again",
    ] {
        assert!(told.contains(words), "no {words}: {told}");
    }
    // A later restart is what happened last.
    gateway.restart();
    let told = sentence(&gateway);
    assert!(told.contains("was restarted at"), "{told}");
}

#[test]
fn every_command_about_a_gateway_that_died_names_why() {
    let mut gateway = Setup::new().start();
    gateway.signal(nix::sys::signal::Signal::SIGKILL);
    gateway.wait_exit(wait::DEADLINE);
    for command in ["status", "logs", "doctor", "restart"] {
        let output = gateway.ctl([command]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{command}: {text}");
        assert!(
            text.contains("next: gatewayctl why --state-dir "),
            "{command}: {text}"
        );
    }
    let waited = gateway.ctl(["wait", "--ready", "--timeout", "200ms"]);
    let text = said(&waited);
    assert_eq!(waited.status.code(), Some(3), "nothing starts: {text}");
    assert!(text.contains("gatewayctl why"), "{text}");
}
