//! Causes from what the service manager saw.

use super::*;

const STARTED_AGAIN: &str = "systemd started it again 1.0 s later";
const READY_SINCE: &str = "it has been ready since";

/// The cause that these lines show at the end of a run, and a word of its sentence.
type Case = (&'static str, Vec<JournalLine>, EndCause, &'static str);

/// Checks cases with the history, and without it, as for a user who may not read it.
fn check_cases(cases: Vec<Case>, since: &[&str]) {
    for (what, lines, cause, word) in cases {
        check(
            what,
            &up(life(lines.clone()), unplanned()),
            &cause,
            &[&[word][..], since].concat(),
        );
        check(what, &up(life(lines), vec![]), &cause, &[word]);
    }
}

#[test]
fn an_end_by_a_signal_or_the_kernel() {
    let killed = |number| vec![exit(49, "killed", number), failed(49, "signal")];
    let cases = vec![
        (
            "kill -9",
            killed(9),
            EndCause::Killed {
                signal: "SIGKILL".into(),
            },
            "was ended by SIGKILL",
        ),
        (
            "a fault",
            killed(11),
            EndCause::Crashed {
                signal: "SIGSEGV".into(),
            },
            "crashed",
        ),
        (
            "out of memory, by systemd's own line",
            vec![
                line(49, JournalEvent::OutOfMemory, "killed by the OOM killer"),
                exit(49, "killed", 9),
                failed(49, "oom-kill"),
            ],
            EndCause::OutOfMemory,
            "memory ran out (OOM)",
        ),
        (
            "out of memory with OOMPolicy=continue",
            vec![
                line(48, JournalEvent::OutOfMemory, "killed by the OOM killer"),
                exit(49, "killed", 9),
                failed(49, "signal"),
            ],
            EndCause::OutOfMemory,
            "memory ran out (OOM)",
        ),
    ];
    check_cases(cases, &[STARTED_AGAIN, READY_SINCE]);
}

#[test]
fn an_end_by_a_time_limit_of_systemd() {
    let cases = vec![
        (
            "watchdog",
            vec![
                line(
                    48,
                    JournalEvent::Watchdog,
                    "gateway.service: Watchdog timeout (limit 30s)!",
                ),
                exit(49, "killed", 6),
                failed(49, "watchdog"),
            ],
            EndCause::Watchdog {
                limit: Some("30s".into()),
            },
            "no watchdog ping within 30s",
        ),
        (
            "a start that took too long",
            vec![
                line(
                    48,
                    JournalEvent::Complaint,
                    "gateway.service: start operation timed out. Terminating.",
                ),
                exit(49, "killed", 9),
                failed(49, "timeout"),
            ],
            EndCause::Timeout {
                said: Some("start operation timed out. Terminating.".into()),
            },
            "after a timeout: start operation timed out",
        ),
    ];
    check_cases(cases, &[STARTED_AGAIN, READY_SINCE]);
}

#[test]
fn an_exit_with_its_last_words() {
    let cases = vec![
        (
            "an exit",
            vec![
                error(49, "[gateway] no room left"),
                exit(49, "exited", 1),
                failed(49, "exit-code"),
            ],
            EndCause::Exited {
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
            EndCause::InvalidConfiguration {
                said: Some("/etc/g.toml:2:1: unknown key `lisen`".into()),
            },
            "exit code 78 (configuration invalid): /etc/g.toml:2:1",
        ),
    ];
    check_cases(cases, &[STARTED_AGAIN, READY_SINCE]);
}

#[test]
fn another_result_of_the_unit() {
    let cases = vec![(
        "something else",
        vec![failed(49, "resources")],
        EndCause::Manager {
            result: "resources".into(),
            said: None,
        },
        "with systemd's result resources",
    )];
    check_cases(cases, &[READY_SINCE]);
}

#[test]
fn a_kill_of_a_sidecar_for_memory_is_not_the_gateways_own() {
    let lines = life(vec![
        line(20, JournalEvent::OutOfMemory, "killed by the OOM killer"),
        exit(49, "exited", 1),
        failed(49, "exit-code"),
    ]);
    check(
        "a later exit",
        &up(lines, unplanned()),
        &EndCause::Exited {
            code: 1,
            said: None,
        },
        &["exit code 1"],
    );
}

#[test]
fn systemd_has_given_up() {
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
            JournalEvent::TooOften,
            "gateway.service: Start request repeated too quickly.",
        )],
    ]
    .concat();
    let because = Box::new(EndCause::InvalidConfiguration {
        said: Some("g.toml:1:1: no".into()),
    });
    let cause = EndCause::StartLimit {
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
fn it_has_not_been_started_again() {
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
        &EndCause::Killed {
            signal: "SIGKILL".into(),
        },
        &["SIGKILL", "systemd is about to start it again"],
    );
    let blind = down("failed", "signal", (2, 9), vec![], vec![]);
    check(
        "by the unit alone",
        &blind,
        &EndCause::Killed {
            signal: "SIGKILL".into(),
        },
        &["SIGKILL", "is not running"],
    );
    let blind = down("failed", "exit-code", (1, 78), vec![], vec![]);
    check(
        "an exit by the unit alone",
        &blind,
        &EndCause::InvalidConfiguration { said: None },
        &["(configuration invalid)"],
    );
    let blind = down("failed", "oom-kill", (2, 9), vec![], vec![]);
    check(
        "memory by the unit alone",
        &blind,
        &EndCause::OutOfMemory,
        &["memory ran out"],
    );
}
