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
