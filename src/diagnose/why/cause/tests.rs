//! Every cause, from what systemd 252 and the gateway really write.

use jiff::Timestamp;

use super::super::evidence::{Evidence, Unit};
use super::super::journal::{Kind, Line};
use super::super::words;
use super::*;
use crate::control::fake_gateway;
use crate::control::protocol::{RecoveryStatus, SidecarStatus};
use crate::state::history::{HistoryEntry, PreviousEnd, Recorded, Requester};
use crate::state::owner::Owner;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_763_797_440 + second).unwrap()
}

fn line(second: i64, kind: Kind, text: &str) -> Line {
    let (code, result) = (String::new(), String::new());
    Line {
        at: time(second),
        kind,
        text: text.into(),
        code,
        status: 0,
        result,
        sidecar: None,
        priority: 4,
    }
}

fn exit(second: i64, code: &str, status: i32) -> Line {
    Line {
        code: code.into(),
        status,
        ..line(second, Kind::Exit, "gateway.service: Main process exited")
    }
}

fn failed(second: i64, result: &str) -> Line {
    Line {
        result: result.into(),
        ..line(second, Kind::Failed, "gateway.service: Failed with result")
    }
}

fn error(second: i64, text: &str) -> Line {
    Line {
        priority: 3,
        ..line(second, Kind::Gateway, text)
    }
}

fn starting(second: i64) -> Line {
    line(second, Kind::Starting, "Starting gateway.service")
}

fn ready(second: i64) -> Line {
    line(second, Kind::Ready, "Started gateway.service")
}

fn record(second: i64, pid: u32, entry: HistoryEntry) -> Recorded {
    Recorded {
        at: time(second),
        pid,
        boot_id: "b".into(),
        entry,
    }
}

fn started(second: i64, pid: u32, before: PreviousEnd) -> Recorded {
    let (version, supervisor, rung) = (String::new(), String::new(), "normal".into());
    record(
        second,
        pid,
        HistoryEntry::Started {
            version,
            supervisor,
            rung,
            reason: None,
            before,
            oom_kills: None,
        },
    )
}

fn ended(second: i64, pid: u32, planned: bool, code: u8, reason: &str) -> Recorded {
    record(
        second,
        pid,
        HistoryEntry::Ended {
            planned,
            code,
            reason: reason.into(),
            uptime_ms: 1,
            cut: vec![],
            trace: None,
        },
    )
}

fn request(second: i64, kind: &str, outcome: &str) -> Recorded {
    let entry = HistoryEntry::Request {
        id: "r7-1".into(),
        kind: kind.into(),
        who: Requester {
            uid: Some(1000),
            pid: 7,
            program: Some("gatewayctl".into()),
        },
        reason: "deploy 42".into(),
        strategy: "respawn".into(),
        phases: vec![],
        outcome: outcome.into(),
        took_ms: 0,
        downtime_ms: None,
    };
    record(second, 7, entry)
}

/// An installed gateway that serves.
fn up(journal: Vec<Line>, record: Vec<Recorded>) -> Evidence {
    let unit = Unit {
        name: "gateway.service".into(),
        active: "active".into(),
        main_pid: 9,
        result: "success".into(),
        ..Unit::default()
    };
    let status = fake_gateway::status();
    Evidence {
        instance: "gateway".into(),
        boot_id: "b".into(),
        unit: Some(unit),
        status: Some(status),
        journal,
        record,
        ..Evidence::default()
    }
}

/// An installed gateway that does not run.
fn down(
    active: &str,
    result: &str,
    exit: (u64, i32),
    journal: Vec<Line>,
    record: Vec<Recorded>,
) -> Evidence {
    let unit = Unit {
        name: "gateway.service".into(),
        active: active.into(),
        result: result.into(),
        exit_kind: exit.0,
        exit_status: exit.1,
        started: Some(time(0)),
        inactive_since: Some(time(99)),
        limit_starts: 5,
        limit_seconds: 10,
        ..Unit::default()
    };
    Evidence {
        status: None,
        unit: Some(unit),
        ..up(journal, record)
    }
}

fn life(kinds: Vec<Line>) -> Vec<Line> {
    [
        vec![starting(0), ready(1)],
        kinds,
        vec![starting(50), ready(51)],
    ]
    .concat()
}

fn unplanned() -> Vec<Recorded> {
    vec![
        started(1, 5, PreviousEnd::Unknown),
        started(50, 9, PreviousEnd::Unplanned(None)),
    ]
}

fn check(what: &str, evidence: &Evidence, cause: &Cause, words: &[&str]) {
    let answer = decide(evidence).unwrap();
    assert_eq!(answer.cause, *cause, "{what}");
    let sentence = words::sentence(evidence, &answer, time(60));
    for word in words {
        assert!(sentence.contains(word), "{what}: `{word}` in: {sentence}");
    }
    assert!(!words::proofs(evidence).is_empty());
}

#[test]
fn a_death_that_the_manager_saw() {
    let killed = |number| vec![exit(49, "killed", number), failed(49, "signal")];
    let again = [
        "systemd started it again 1.0 s later",
        "it has been ready since",
    ];
    let cases: [(&str, Vec<Line>, Cause, &str); 9] = [
        (
            "kill -9",
            killed(9),
            Cause::Killed {
                signal: "SIGKILL".into(),
            },
            "was ended by SIGKILL",
        ),
        (
            "a fault",
            killed(11),
            Cause::Crashed {
                signal: "SIGSEGV".into(),
            },
            "crashed",
        ),
        (
            "out of memory, by systemd's own line",
            vec![
                line(49, Kind::OutOfMemory, "killed by the OOM killer"),
                exit(49, "killed", 9),
                failed(49, "oom-kill"),
            ],
            Cause::OutOfMemory,
            "memory ran out (OOM)",
        ),
        (
            "out of memory with OOMPolicy=continue",
            vec![
                line(48, Kind::OutOfMemory, "killed by the OOM killer"),
                exit(49, "killed", 9),
                failed(49, "signal"),
            ],
            Cause::OutOfMemory,
            "memory ran out (OOM)",
        ),
        (
            "watchdog",
            vec![
                line(
                    48,
                    Kind::Watchdog,
                    "gateway.service: Watchdog timeout (limit 30s)!",
                ),
                exit(49, "killed", 6),
                failed(49, "watchdog"),
            ],
            Cause::Watchdog {
                limit: Some("30s".into()),
            },
            "no sign of life within 30s",
        ),
        (
            "a start that took too long",
            vec![
                line(
                    48,
                    Kind::Complaint,
                    "gateway.service: start operation timed out. Terminating.",
                ),
                exit(49, "killed", 9),
                failed(49, "timeout"),
            ],
            Cause::Timeout {
                said: Some("start operation timed out. Terminating.".into()),
            },
            "took too long: start operation timed out",
        ),
        (
            "an exit",
            vec![
                error(49, "[gateway] no room left"),
                exit(49, "exited", 1),
                failed(49, "exit-code"),
            ],
            Cause::Exited {
                code: 1,
                said: Some("no room left".into()),
            },
            "exit code 1: no room left",
        ),
        (
            "an invalid configuration",
            vec![
                error(49, "[gateway] /etc/g.toml:2:1: unknown key `lisen`"),
                exit(49, "exited", 78),
                failed(49, "exit-code"),
            ],
            Cause::InvalidConfiguration {
                said: Some("/etc/g.toml:2:1: unknown key `lisen`".into()),
            },
            "exit code 78 (configuration invalid): /etc/g.toml:2:1",
        ),
        (
            "something else",
            vec![failed(49, "resources")],
            Cause::Manager {
                result: "resources".into(),
                said: None,
            },
            "in systemd's word: resources",
        ),
    ];
    for (what, lines, cause, word) in cases {
        let more: &[&str] = if what == "something else" {
            &again[1..]
        } else {
            &again
        };
        check(
            what,
            &up(life(lines.clone()), unplanned()),
            &cause,
            &[&[word][..], more].concat(),
        );
        // Without the record, as a user sees it who may not read it.
        check(what, &up(life(lines), vec![]), &cause, &[word]);
    }
}

#[test]
fn a_kill_of_a_sidecar_for_memory_is_not_the_gateways_own() {
    let lines = life(vec![
        line(20, Kind::OutOfMemory, "killed by the OOM killer"),
        exit(49, "exited", 1),
        failed(49, "exit-code"),
    ]);
    check(
        "a later exit",
        &up(lines, unplanned()),
        &Cause::Exited {
            code: 1,
            said: None,
        },
        &["exit code 1"],
    );
}

#[test]
fn an_end_that_somebody_wanted() {
    let stopping = || vec![line(48, Kind::Stopping, "Stopping gateway.service")];
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
        &Cause::RestartedByManager { reason: None },
        &["on request"],
    );
    let cause = Cause::RestartedByManager {
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
    let cause = Cause::Signalled {
        signal: "SIGTERM".into(),
    };
    check(
        "kill -TERM",
        &up(life(vec![]), planned("SIGTERM")),
        &cause,
        &["SIGTERM", "not on record", "started it again 1.0 s later"],
    );
    let by = "gatewayctl stop, by uid 0 (pid 7)";
    let record = vec![
        started(1, 5, PreviousEnd::Unknown),
        ended(49, 5, true, 0, by),
    ];
    let by_hand = Evidence {
        unit: None,
        ..down("", "", (0, 0), vec![], record)
    };
    check(
        "stopped by hand",
        &by_hand,
        &Cause::Stopped { by: by.into() },
        &["gateway was stopped", by, "it does not run"],
    );
    let cause = Cause::Stopped {
        by: "somebody, through the service manager".into(),
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
        &["gateway.service was stopped", "does not run"],
    );
    check(
        "the same without journal or record",
        &down("inactive", "success", (1, 0), vec![], vec![]),
        &cause,
        &["was stopped"],
    );
}

#[test]
fn a_restart_that_was_asked_for() {
    let requested = |what: &str| Cause::Requested {
        request: "r7-1".into(),
        what: what.into(),
        by: "uid 1000 (gatewayctl, pid 7)".into(),
        reason: "deploy 42".into(),
        strategy: "respawn".into(),
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

#[test]
fn what_keeps_it_from_serving() {
    let recovering = |rung: &str| {
        let mut evidence = up(
            life(vec![exit(49, "killed", 9), failed(49, "signal")]),
            unplanned(),
        );
        if let Some(status) = &mut evidence.status {
            status.stage = Stage::Throttled;
            status.recovery = Some(RecoveryStatus {
                rung: rung.into(),
                reason: "4 starts in quick succession".into(),
                retry_ms: Some(12_000),
            });
        }
        evidence
    };
    let because = Box::new(Cause::Killed {
        signal: "SIGKILL".into(),
    });
    let (reason, retry_ms) = ("4 starts in quick succession".to_owned(), Some(12_000));
    let cause = Cause::Throttled {
        reason: reason.clone(),
        retry_ms,
        because: because.clone(),
    };
    check(
        "throttled",
        &recovering("throttled"),
        &cause,
        &[
            "4 starts in quick succession",
            "SIGKILL",
            "next try in 12.0 s",
        ],
    );
    check(
        "safe mode",
        &recovering("safe_mode"),
        &Cause::SafeMode {
            reason: reason.clone(),
            retry_ms,
            because,
        },
        &["is in safe mode"],
    );
    check(
        "last good",
        &recovering("last_good"),
        &Cause::LastGood { reason },
        &["last configuration that worked"],
    );
    let mut failing = up(vec![], vec![started(1, 5, PreviousEnd::Unknown)]);
    if let Some(status) = &mut failing.status {
        (status.stage, status.detail) = (Stage::Failed, "main exited with code 3".into());
    }
    check(
        "a first start that fails",
        &failing,
        &Cause::NotReady {
            said: "main exited with code 3".into(),
        },
        &["is not ready"],
    );
}

#[test]
fn a_sidecar_that_ended() {
    let mut evidence = up(
        vec![starting(0), ready(1)],
        vec![
            started(1, 9, PreviousEnd::Unknown),
            request(10, "restart", "done"),
        ],
    );
    let told = line(
        40,
        Kind::Gateway,
        "[gateway] sidecar main (pid 5) was ended by SIGKILL; starting it again in 168 ms",
    );
    evidence.journal.push(Line {
        sidecar: Some("main".into()),
        ..told
    });
    let sidecar = SidecarStatus {
        name: "main".into(),
        state: "ready".into(),
        cause: None,
        pid: 6,
        port: 1,
        restarts: 1,
        command: "x".into(),
    };
    evidence.status.as_mut().unwrap().sidecars = vec![sidecar.clone()];
    let cause = Cause::Sidecar {
        name: "main".into(),
        said: "(pid 5) was ended by SIGKILL".into(),
        back: true,
    };
    check(
        "a crash since the restart",
        &evidence,
        &cause,
        &[
            "itself lives",
            "main (pid 5) was ended by SIGKILL at",
            "it is back",
        ],
    );
    evidence.record.push(request(45, "restart", "done"));
    assert!(
        matches!(decide(&evidence).unwrap().cause, Cause::Requested { .. }),
        "a later restart counts"
    );
    let waiting = SidecarStatus {
        state: "backoff".into(),
        cause: Some("exited with code 3".into()),
        ..sidecar
    };
    evidence.status.as_mut().unwrap().sidecars = vec![waiting];
    let cause = Cause::Sidecar {
        name: "main".into(),
        said: "exited with code 3".into(),
        back: false,
    };
    check(
        "one that is down is what matters now",
        &evidence,
        &cause,
        &["exited with code 3", "not back yet"],
    );
}

#[test]
fn one_that_systemd_starts_no_more() {
    let life = |second| {
        vec![
            starting(second),
            error(second, "[gateway] g.toml:1:1: no"),
            exit(second, "exited", 78),
            failed(second, "exit-code"),
        ]
    };
    let journal = [
        life(1),
        life(2),
        vec![line(
            3,
            Kind::TooOften,
            "gateway.service: Start request repeated too quickly.",
        )],
    ]
    .concat();
    let because = Box::new(Cause::InvalidConfiguration {
        said: Some("g.toml:1:1: no".into()),
    });
    let cause = Cause::StartLimit {
        starts: 5,
        within_seconds: 10,
        because,
    };
    let words = [
        "5 times within 10 s",
        "start-limit-hit",
        "exit code 78 (configuration invalid): g.toml:1:1: no",
    ];
    for result in ["exit-code", "start-limit-hit"] {
        check(
            result,
            &down("failed", result, (1, 78), journal.clone(), vec![]),
            &cause,
            &words,
        );
    }
}

#[test]
fn one_that_did_not_come_back() {
    let journal = || {
        vec![
            starting(0),
            ready(1),
            exit(49, "killed", 9),
            failed(49, "signal"),
        ]
    };
    let mut evidence = down(
        "activating",
        "signal",
        (2, 9),
        journal(),
        vec![started(1, 5, PreviousEnd::Unknown)],
    );
    if let Some(unit) = &mut evidence.unit {
        unit.sub = "auto-restart".into();
    }
    check(
        "not yet",
        &evidence,
        &Cause::Killed {
            signal: "SIGKILL".into(),
        },
        &["SIGKILL", "systemd starts it again"],
    );
    let blind = down("failed", "signal", (2, 9), vec![], vec![]);
    check(
        "by the unit alone",
        &blind,
        &Cause::Killed {
            signal: "SIGKILL".into(),
        },
        &["SIGKILL", "does not run"],
    );
    let blind = down("failed", "exit-code", (1, 78), vec![], vec![]);
    check(
        "an exit by the unit alone",
        &blind,
        &Cause::InvalidConfiguration { said: None },
        &["(configuration invalid)"],
    );
    let blind = down("failed", "oom-kill", (2, 9), vec![], vec![]);
    check(
        "memory by the unit alone",
        &blind,
        &Cause::OutOfMemory,
        &["memory ran out"],
    );
}

fn check_boot(evidence: &Evidence) -> bool {
    words::proofs(evidence)
        .iter()
        .any(|proof| proof.source == "boot")
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
        &Cause::MachineDown,
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
        &Cause::MachineDown,
        &["the machine", "it has been ready since"],
    );
    let gone = check_boot(&up(
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
        &Cause::Signalled {
            signal: "SIGTERM".into(),
        },
        &["SIGTERM"],
    );
    let by = "somebody, through the service manager".to_owned();
    check(
        "another view, down",
        &down("inactive", "success", (1, 0), vec![], planned()),
        &Cause::Stopped { by },
        &["was stopped"],
    );
    let not_since = Evidence {
        unit: None,
        ..down("", "", (0, 0), vec![], vec![first()])
    };
    check(
        "and not started since",
        &not_since,
        &Cause::MachineDown,
        &["the machine", "it does not run"],
    );
}

#[test]
fn without_a_service_manager_the_record_tells() {
    let by_hand = |record| Evidence {
        unit: None,
        ..down("", "", (0, 0), vec![], record)
    };
    let first = || started(1, 5, PreviousEnd::Unknown);
    let words = ["gateway ended unplanned", "killed or it crashed"];
    check(
        "no last words",
        &by_hand(vec![first()]),
        &Cause::Died { said: None },
        &words,
    );
    let cause = Cause::Exited {
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
        &Evidence {
            unit: None,
            ..up(vec![], record)
        },
        &Cause::OutOfMemory,
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
    let silent = Evidence {
        owner: Some((owner, true)),
        ..by_hand(vec![first()])
    };
    check(
        "it lives and does not answer",
        &silent,
        &Cause::NeverEnded,
        &["cannot be asked"],
    );
}

#[test]
fn nothing_to_explain() {
    check(
        "a first life",
        &up(
            vec![starting(0), ready(1)],
            vec![started(1, 9, PreviousEnd::Unknown)],
        ),
        &Cause::NeverEnded,
        &["nothing has ended"],
    );
    let mut fresh = down("inactive", "success", (0, 0), vec![], vec![]);
    if let Some(unit) = &mut fresh.unit {
        unit.started = None;
    }
    check(
        "installed",
        &fresh,
        &Cause::NeverRan,
        &["gateway.service has not run yet"],
    );
    assert_eq!(decide(&Evidence::default()), None);
}
