//! Causes from what the service manager saw.

use super::*;

const STARTED_AGAIN: &str = "systemd started it again 1.0 s later";
const READY_SINCE: &str = "it has been ready since";

/// The cause that these lines show at the end of a run, and a word of its sentence.
type Case = (&'static str, Vec<JournalLine>, EndCause, &'static str);

/// Checks cases with the history, and without it, as for a user who may not read it.
fn check_cases(cases: Vec<Case>, since: &[&str]) {
    for (what, lines, cause, word) in cases {
        let words = [&[word][..], since].concat();
        check(
            what,
            &up(life(lines.clone()), unplanned()),
            cause.clone(),
            &words,
        );
        check(what, &up(life(lines), vec![]), cause, &[word]);
    }
}

fn out_of_memory(second: i64) -> JournalLine {
    line(
        second,
        JournalEvent::OutOfMemory,
        "killed by the OOM killer",
    )
}

#[test]
fn an_end_by_a_signal_or_the_kernel() {
    let by_signal = |number| vec![exit(49, "killed", number), failed(49, "signal")];
    let oom_kill = vec![
        out_of_memory(49),
        exit(49, "killed", 9),
        failed(49, "oom-kill"),
    ];
    let kept_on = vec![
        out_of_memory(48),
        exit(49, "killed", 9),
        failed(49, "signal"),
    ];
    let fault = EndCause::Crashed {
        signal: "SIGSEGV".into(),
    };
    let cases = vec![
        (
            "kill -9",
            by_signal(9),
            killed("SIGKILL"),
            "was ended by SIGKILL",
        ),
        ("a fault", by_signal(11), fault, "crashed"),
        (
            "out of memory, by systemd's own line",
            oom_kill,
            EndCause::OutOfMemory,
            "memory ran out (OOM)",
        ),
        (
            "out of memory with OOMPolicy=continue",
            kept_on,
            EndCause::OutOfMemory,
            "memory ran out (OOM)",
        ),
    ];
    check_cases(cases, &[STARTED_AGAIN, READY_SINCE]);
}

#[test]
fn an_end_by_a_time_limit_of_systemd() {
    let no_ping = "gateway.service: Watchdog timeout (limit 30s)!";
    let too_long = "gateway.service: start operation timed out. Terminating.";
    let cases = vec![
        (
            "watchdog",
            vec![
                line(48, JournalEvent::Watchdog, no_ping),
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
                line(48, JournalEvent::Complaint, too_long),
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
fn an_exit_with_its_last_error() {
    let exit_code = |code, last_error| {
        vec![
            error(49, last_error),
            exit(49, "exited", code),
            failed(49, "exit-code"),
        ]
    };
    let cases = vec![
        (
            "an exit",
            exit_code(1, "[gateway] no room left"),
            exited(Some("no room left")),
            "exit code 1: no room left",
        ),
        (
            "an invalid configuration",
            exit_code(78, "[gateway] /etc/g.toml:2:1: unknown key `lisen`"),
            invalid(Some("/etc/g.toml:2:1: unknown key `lisen`")),
            "exit code 78 (configuration invalid): /etc/g.toml:2:1",
        ),
    ];
    check_cases(cases, &[STARTED_AGAIN, READY_SINCE]);
}

#[test]
fn another_result_of_the_unit() {
    let cause = EndCause::Manager {
        result: "resources".into(),
        said: None,
    };
    let word = "with systemd's result resources";
    let case = ("something else", vec![failed(49, "resources")], cause, word);
    check_cases(vec![case], &[READY_SINCE]);
}

#[test]
fn a_kill_of_a_sidecar_for_memory_is_not_the_gateways_own() {
    let lines = vec![
        out_of_memory(20),
        exit(49, "exited", 1),
        failed(49, "exit-code"),
    ];
    let evidence = up(life(lines), unplanned());
    check("a later exit", &evidence, exited(None), &["exit code 1"]);
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
    let refused = "gateway.service: Start request repeated too quickly.";
    let refused = vec![line(3, JournalEvent::TooOften, refused)];
    let journal = [life(1), life(2), refused].concat();
    let cause = EndCause::StartLimit {
        starts: 5,
        within_seconds: 10,
        because: Box::new(invalid(Some("g.toml:1:1: no"))),
    };
    let words = [
        "5 times within 10 s",
        "start-limit-hit",
        "exit code 78 (configuration invalid): g.toml:1:1: no",
    ];
    for result in ["exit-code", "start-limit-hit"] {
        let evidence = down("failed", result, (1, 78), journal.clone(), vec![]);
        check(result, &evidence, cause.clone(), &words);
    }
}

#[test]
fn it_has_not_been_started_again() {
    let journal = vec![
        starting(0),
        ready(1),
        exit(49, "killed", 9),
        failed(49, "signal"),
    ];
    let mut evidence = down("activating", "signal", (2, 9), journal, vec![first()]);
    evidence.unit.as_mut().unwrap().sub = "auto-restart".into();
    let words = ["SIGKILL", "systemd is about to start it again"];
    check("not yet", &evidence, killed("SIGKILL"), &words);
    for (what, result, exit, cause, words) in [
        (
            "by the unit alone",
            "signal",
            (2, 9),
            killed("SIGKILL"),
            &["SIGKILL", "is not running"][..],
        ),
        (
            "an exit by the unit alone",
            "exit-code",
            (1, 78),
            invalid(None),
            &["(configuration invalid)"],
        ),
        (
            "memory by the unit alone",
            "oom-kill",
            (2, 9),
            EndCause::OutOfMemory,
            &["memory ran out"],
        ),
    ] {
        let blind = down("failed", result, exit, vec![], vec![]);
        check(what, &blind, cause, words);
    }
}
