//! Causes from what a running gateway reports.

use super::*;

#[test]
fn what_keeps_it_from_serving() {
    let reason = || "4 starts in quick succession".to_owned();
    let (retry_ms, because) = (Some(12_000), || Box::new(killed("SIGKILL")));
    let throttled = EndCause::Throttled {
        reason: reason(),
        retry_ms,
        because: because(),
    };
    let safe_mode = EndCause::SafeMode {
        reason: reason(),
        retry_ms,
        because: because(),
    };
    let last_good = EndCause::LastGood { reason: reason() };
    for (rung, cause, words) in [
        (
            "throttled",
            throttled,
            &[
                "4 starts in quick succession",
                "SIGKILL",
                "next try in 12.0 s",
            ][..],
        ),
        ("safe_mode", safe_mode, &["is in safe mode"]),
        (
            "last_good",
            last_good,
            &["uses the last good configuration because the current one is invalid"],
        ),
    ] {
        let lines = vec![exit(49, "killed", 9), failed(49, "signal")];
        let mut evidence = up(life(lines), unplanned());
        let status = evidence.status.as_mut().unwrap();
        status.stage = Stage::Throttled;
        status.recovery = Some(RecoveryStatus {
            rung: rung.parse().unwrap(),
            reason: reason(),
            retry_ms,
        });
        check(rung, &evidence, cause, words);
    }
    let said = "main exited with code 3".to_owned();
    let mut failing = up(vec![], vec![first()]);
    let status = failing.status.as_mut().unwrap();
    (status.stage, status.detail) = (Stage::Failed, said.clone());
    check(
        "a first start that fails",
        &failing,
        EndCause::NotReady { said },
        &["is not ready"],
    );
}

#[test]
fn a_sidecar_that_ended() {
    let ended = |said: &str, back| EndCause::Sidecar {
        name: "main".into(),
        said: said.into(),
        back,
    };
    let text = "[gateway] sidecar main (pid 5) was ended by SIGKILL; starting it again in 168 ms";
    let logged = JournalLine {
        sidecar_end: SidecarEnd::of("main", text),
        ..line(40, JournalEvent::Gateway, text)
    };
    let record = vec![
        started(1, 9, PreviousEnd::Unknown),
        request(10, "restart", "done"),
    ];
    let mut evidence = up(vec![starting(0), ready(1), logged], record);
    evidence.status.as_mut().unwrap().sidecars = vec![SidecarStatus {
        name: "main".into(),
        state: SidecarStateName::Ready,
        cause: None,
        pid: 6,
        port: 1,
        exposed: Vec::new(),
        generation: 1,
        since: None,
        deaths: 0,
        cpu_ms: None,
        restarts: 1,
        last_death: None,
        last_death_at: None,
        last_words: vec![],
        failing: false,
        refused_copies: 0,
        memory_bytes: None,
        command: "x".into(),
    }];
    check(
        "a crash since the restart",
        &evidence,
        ended("(pid 5) was ended by SIGKILL", true),
        &[
            "is running; its sidecar",
            "main (pid 5) was ended by SIGKILL at",
            "and is ready again",
        ],
    );
    evidence.record.push(request(45, "restart", "done"));
    assert!(
        matches!(decide(&evidence).unwrap().cause, EndCause::Requested { .. }),
        "a later restart counts"
    );
    let sidecar = &mut evidence.status.as_mut().unwrap().sidecars[0];
    sidecar.state = SidecarStateName::Backoff;
    sidecar.cause = Some("exited with code 3".into());
    check(
        "one that is down is what matters now",
        &evidence,
        ended("exited with code 3", false),
        &["exited with code 3", "not ready yet"],
    );
}

#[test]
fn a_failed_restart_while_the_old_one_serves() {
    let why = "main exited with code 3 before it was ready";
    let record = vec![
        first(),
        request(10, "restart", "done"),
        request(
            20,
            "restart",
            &format!("failed: {why} | Traceback | KeyError: 'x'"),
        ),
    ];
    let mut evidence = up(vec![starting(0), ready(1)], record);
    let failed = |said: String| EndCause::RequestFailed {
        request: "r7-1".into(),
        what: RequestKindName::Restart,
        sidecar: None,
        by: "uid 1000 (gatewayctl, pid 7)".into(),
        reason: "deploy 42".into(),
        said: Some(said),
    };
    check(
        "the failed one comes first",
        &evidence,
        failed(format!("{why} | Traceback | KeyError: 'x'")),
        &[
            "the restart of gateway.service at",
            "failed: main exited with code 3 before it was ready: KeyError: 'x' (requested: deploy 42, by uid 1000",
            "; generation 4 serves on",
        ],
    );
    evidence.record.push(request(30, "restart", "done"));
    let cause = decide(&evidence).unwrap().cause;
    assert!(matches!(cause, EndCause::Requested { .. }), "{cause:?}");
}

#[test]
fn nothing_to_explain() {
    let record = vec![started(1, 9, PreviousEnd::Unknown)];
    check(
        "a first run",
        &up(vec![starting(0), ready(1)], record),
        EndCause::NeverEnded,
        &["nothing has ended"],
    );
    let mut fresh = down("inactive", "success", (0, 0), vec![], vec![]);
    fresh.unit.as_mut().unwrap().started = None;
    check(
        "installed",
        &fresh,
        EndCause::NeverRan,
        &["gateway.service has not run yet"],
    );
    assert_eq!(decide(&EndEvidence::default()), None);
}
