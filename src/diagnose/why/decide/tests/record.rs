//! Causes from what the history records.

use super::*;

const BY_MANAGER: &str = "a request to the service manager";

fn stopping() -> Vec<JournalLine> {
    vec![line(48, JournalEvent::Stopping, "Stopping gateway.service")]
}

/// The history of a run that ended planned.
fn planned(reason: &str) -> Vec<Recorded> {
    vec![first(), ended(49, 5, true, 0, reason)]
}

/// The same, and the start of the next run.
fn restarted(reason: &str) -> Vec<Recorded> {
    [planned(reason), vec![started(50, 9, PreviousEnd::Planned)]].concat()
}

#[test]
fn a_requested_restart_of_the_service() {
    let by_manager = |reason: Option<&str>| EndCause::RestartedByManager {
        reason: reason.map(str::to_owned),
    };
    check(
        "systemctl restart",
        &up(life(stopping()), restarted("SIGTERM")),
        by_manager(None),
        &["by a request to the service manager"],
    );
    check(
        "an intent",
        &up(
            life(stopping()),
            restarted("SIGTERM to restart: kernel update"),
        ),
        by_manager(Some("kernel update")),
        &["kernel update"],
    );
    check(
        "kill -TERM",
        &up(life(vec![]), restarted("SIGTERM")),
        sigterm(),
        &[
            "SIGTERM",
            "sent by an unknown user or program",
            "started it again 1.0 s later",
        ],
    );
}

#[test]
fn a_requested_stop() {
    let by = "gatewayctl stop, by uid 0 (pid 7)";
    check(
        "stopped by hand",
        &by_hand(planned(by)),
        stopped(by),
        &["gateway was stopped", by, "it is not running"],
    );
    let journal = [vec![starting(0), ready(1)], stopping()].concat();
    check(
        "systemctl stop",
        &down("inactive", "success", (1, 0), journal, planned("SIGTERM")),
        stopped(BY_MANAGER),
        &["gateway.service was stopped", "is not running"],
    );
    check(
        "the same without journal or record",
        &down("inactive", "success", (1, 0), vec![], vec![]),
        stopped(BY_MANAGER),
        &["was stopped"],
    );
}

#[test]
fn a_requested_restart() {
    let requested = |what: &str| EndCause::Requested {
        request: "r7-1".into(),
        what: what.parse().unwrap(),
        sidecar: None,
        by: "uid 1000 (gatewayctl, pid 7)".into(),
        reason: "deploy 42".into(),
        strategy: StrategyName::Respawn,
        took_ms: 0,
    };
    let words = [
        "restarted at",
        "on request: deploy 42",
        "by uid 1000 (gatewayctl, pid 7)",
        "respawn",
    ];
    let handed_over = vec![
        first(),
        started(30, 9, PreviousEnd::HandedOver),
        request(30, "restart", "done"),
        ended(31, 5, true, 0, "handed over to pid 9"),
    ];
    let left_to_manager = vec![
        first(),
        request(48, "restart", "scheduled"),
        ended(49, 5, true, 0, "a restart by the service manager"),
        started(50, 9, PreviousEnd::Planned),
    ];
    for (what, journal, record) in [
        (
            "in a fresh process",
            vec![starting(0), ready(1)],
            handed_over,
        ),
        ("by exit", life(vec![]), left_to_manager),
    ] {
        check(what, &up(journal, record), requested("restart"), &words);
    }
    let reloaded = vec![first(), request(30, "reload", "done")];
    check(
        "a reload",
        &up(vec![], reloaded),
        requested("reload"),
        &["reloaded"],
    );
}

#[test]
fn the_machine_went_down() {
    let of_boot = |boot: &str, line: Recorded| Recorded {
        boot_id: boot.into(),
        ..line
    };
    let journal = || vec![starting(50), ready(51)];
    let first = || of_boot("a", first());
    let crash = up(
        journal(),
        vec![first(), started(50, 9, PreviousEnd::MachineDown)],
    );
    check("a crash", &crash, EndCause::MachineDown, &["the machine"]);
    let boot_lines = evidence_lines(&crash)
        .into_iter()
        .filter(|line| line.source == EvidenceSource::Boot);
    assert_eq!(boot_lines.count(), 1, "the evidence says so");
    let orderly = vec![
        first(),
        of_boot("a", ended(40, 5, true, 0, "SIGTERM")),
        started(50, 9, PreviousEnd::Planned),
    ];
    check(
        "an orderly reboot",
        &up(journal(), orderly),
        EndCause::MachineDown,
        &["the machine", "it has been ready since"],
    );
    check(
        "and not started since",
        &by_hand(vec![first()]),
        EndCause::MachineDown,
        &["the machine", "it is not running"],
    );
    // A service in a container may see another boot id than the caller.
    let in_container = |record: Vec<Recorded>| -> Vec<Recorded> {
        let all = record.into_iter();
        all.map(|line| of_boot("of the service", line)).collect()
    };
    check(
        "another view, up",
        &up(life(vec![]), in_container(restarted("SIGTERM"))),
        sigterm(),
        &["SIGTERM"],
    );
    let record = in_container(planned("SIGTERM"));
    check(
        "another view, down",
        &down("inactive", "success", (1, 0), vec![], record),
        stopped(BY_MANAGER),
        &["was stopped"],
    );
}

#[test]
fn without_a_service_manager_the_history_tells() {
    check(
        "no message at its end",
        &by_hand(vec![first()]),
        EndCause::Died { said: None },
        &["gateway ended unplanned", "killed or it crashed"],
    );
    let failed = ended(2, 5, false, 1, "cannot start: main exited");
    check(
        "a failed start",
        &by_hand(vec![first(), failed]),
        exited(Some("main exited")),
        &["exit code 1: main exited"],
    );
    let memory = "the kernel ended 1 of its control group's processes because memory ran out, it or its sidecars among them";
    let before = PreviousEnd::Unplanned(Some(memory.into()));
    let no_memory = EndEvidence {
        unit: None,
        ..up(vec![], vec![first(), started(50, 9, before)])
    };
    check(
        "memory, by the next run",
        &no_memory,
        EndCause::OutOfMemory,
        &["memory ran out"],
    );
    let owner = Owner {
        pid: 5,
        start_time: 1,
        boot_id: "b".into(),
        port: None,
        instance: "gateway".into(),
        generation: 1,
        drainers: vec![],
        listeners: vec![],
        command: String::new(),
        program: String::new(),
        variables: Default::default(),
        directory: None,
        output: None,
    };
    let silent = EndEvidence {
        owner: Some((owner, true)),
        ..by_hand(vec![first()])
    };
    check(
        "it lives and does not answer",
        &silent,
        EndCause::NeverEnded,
        &["its status cannot be read"],
    );
}
