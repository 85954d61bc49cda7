//! Causes from what the history records.

use super::*;

#[test]
fn a_requested_end() {
    let stopping = || vec![line(48, JournalEvent::Stopping, "Stopping gateway.service")];
    let planned = |reason: &str| {
        vec![
            started(1, 5, PreviousEnd::Unknown),
            ended(49, 5, true, 0, reason),
            started(50, 9, PreviousEnd::Planned),
        ]
    };
    check(
        "systemctl restart",
        &up(life(stopping()), planned("SIGTERM")),
        &EndCause::RestartedByManager { reason: None },
        &["by a request to the service manager"],
    );
    let cause = EndCause::RestartedByManager {
        reason: Some("kernel update".into()),
    };
    check(
        "an intent",
        &up(
            life(stopping()),
            planned("SIGTERM to restart: kernel update"),
        ),
        &cause,
        &["kernel update"],
    );
    let cause = EndCause::Signalled {
        signal: "SIGTERM".into(),
    };
    check(
        "kill -TERM",
        &up(life(vec![]), planned("SIGTERM")),
        &cause,
        &[
            "SIGTERM",
            "sent by an unknown user or program",
            "started it again 1.0 s later",
        ],
    );
    let by = "gatewayctl stop, by uid 0 (pid 7)";
    let record = vec![
        started(1, 5, PreviousEnd::Unknown),
        ended(49, 5, true, 0, by),
    ];
    let by_hand = EndEvidence {
        unit: None,
        ..down("", "", (0, 0), vec![], record)
    };
    check(
        "stopped by hand",
        &by_hand,
        &EndCause::Stopped { by: by.into() },
        &["gateway was stopped", by, "it is not running"],
    );
    let cause = EndCause::Stopped {
        by: "a request to the service manager".into(),
    };
    let record = vec![
        started(1, 5, PreviousEnd::Unknown),
        ended(49, 5, true, 0, "SIGTERM"),
    ];
    let journal = [vec![starting(0), ready(1)], stopping()].concat();
    check(
        "systemctl stop",
        &down("inactive", "success", (1, 0), journal, record),
        &cause,
        &["gateway.service was stopped", "is not running"],
    );
    check(
        "the same without journal or record",
        &down("inactive", "success", (1, 0), vec![], vec![]),
        &cause,
        &["was stopped"],
    );
}

#[test]
fn a_requested_restart() {
    let requested = |what: &str| EndCause::Requested {
        request: "r7-1".into(),
        what: what.parse().unwrap(),
        by: "uid 1000 (gatewayctl, pid 7)".into(),
        reason: "deploy 42".into(),
        strategy: StrategyName::Respawn,
        took_ms: 0,
    };
    let cause = requested("restart");
    let words = [
        "restarted at",
        "on request: deploy 42",
        "by uid 1000 (gatewayctl, pid 7)",
        "respawn",
    ];
    let first = started(1, 5, PreviousEnd::Unknown);
    let handed = vec![
        first.clone(),
        started(30, 9, PreviousEnd::HandedOver),
        request(30, "restart", "done"),
        ended(31, 5, true, 0, "handed over to pid 9"),
    ];
    check(
        "in a fresh process",
        &up(vec![starting(0), ready(1)], handed),
        &cause,
        &words,
    );
    let failed_since = vec![
        first.clone(),
        request(30, "restart", "done"),
        request(40, "restart", "failed: no"),
    ];
    check(
        "one that failed since changed nothing",
        &up(vec![], failed_since),
        &cause,
        &words,
    );
    let left = vec![
        first,
        request(48, "restart", "scheduled"),
        ended(49, 5, true, 0, "a restart by the service manager"),
        started(50, 9, PreviousEnd::Planned),
    ];
    check("by exit", &up(life(vec![]), left), &cause, &words);
    let reload = requested("reload");
    check(
        "a reload",
        &up(
            vec![],
            vec![
                started(1, 5, PreviousEnd::Unknown),
                request(30, "reload", "done"),
            ],
        ),
        &reload,
        &["reloaded"],
    );
}

fn has_boot_line(evidence: &EndEvidence) -> bool {
    evidence_lines(evidence)
        .iter()
        .any(|line| line.source == EvidenceSource::Boot)
}

#[test]
fn the_machine_went_down() {
    let other = |line: Recorded| Recorded {
        boot_id: "a".into(),
        ..line
    };
    let first = || other(started(1, 5, PreviousEnd::Unknown));
    check(
        "a crash",
        &up(
            vec![starting(50), ready(51)],
            vec![first(), started(50, 9, PreviousEnd::MachineDown)],
        ),
        &EndCause::MachineDown,
        &["the machine"],
    );
    let orderly = vec![
        first(),
        other(ended(40, 5, true, 0, "SIGTERM")),
        started(50, 9, PreviousEnd::Planned),
    ];
    check(
        "an orderly reboot",
        &up(vec![starting(50), ready(51)], orderly),
        &EndCause::MachineDown,
        &["the machine", "it has been ready since"],
    );
    let gone = has_boot_line(&up(
        vec![starting(50), ready(51)],
        vec![first(), started(50, 9, PreviousEnd::MachineDown)],
    ));
    assert!(gone, "the evidence says so");
    // A service that is shut in may see another boot id than we do.
    let same = |line: Recorded| Recorded {
        boot_id: "of the service".into(),
        ..line
    };
    let planned = || {
        vec![
            same(started(1, 5, PreviousEnd::Unknown)),
            same(ended(49, 5, true, 0, "SIGTERM")),
        ]
    };
    let lives = up(
        life(vec![]),
        [planned(), vec![same(started(50, 9, PreviousEnd::Planned))]].concat(),
    );
    check(
        "another view, up",
        &lives,
        &EndCause::Signalled {
            signal: "SIGTERM".into(),
        },
        &["SIGTERM"],
    );
    let by = "a request to the service manager".to_owned();
    check(
        "another view, down",
        &down("inactive", "success", (1, 0), vec![], planned()),
        &EndCause::Stopped { by },
        &["was stopped"],
    );
    let not_since = EndEvidence {
        unit: None,
        ..down("", "", (0, 0), vec![], vec![first()])
    };
    check(
        "and not started since",
        &not_since,
        &EndCause::MachineDown,
        &["the machine", "it is not running"],
    );
}

#[test]
fn without_a_service_manager_the_history_tells() {
    let by_hand = |record| EndEvidence {
        unit: None,
        ..down("", "", (0, 0), vec![], record)
    };
    let first = || started(1, 5, PreviousEnd::Unknown);
    let words = ["gateway ended unplanned", "killed or it crashed"];
    check(
        "no last words",
        &by_hand(vec![first()]),
        &EndCause::Died { said: None },
        &words,
    );
    let cause = EndCause::Exited {
        code: 1,
        said: Some("main exited".into()),
    };
    check(
        "a failed start",
        &by_hand(vec![
            first(),
            ended(2, 5, false, 1, "cannot start: main exited"),
        ]),
        &cause,
        &["exit code 1: main exited"],
    );
    let memory = "the kernel ended 1 of its control group's processes because memory ran out, it or its sidecars among them";
    let record = vec![
        first(),
        started(50, 9, PreviousEnd::Unplanned(Some(memory.into()))),
    ];
    check(
        "memory, by the next life",
        &EndEvidence {
            unit: None,
            ..up(vec![], record)
        },
        &EndCause::OutOfMemory,
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
    };
    let silent = EndEvidence {
        owner: Some((owner, true)),
        ..by_hand(vec![first()])
    };
    check(
        "it lives and does not answer",
        &silent,
        &EndCause::NeverEnded,
        &["its status cannot be read"],
    );
}
