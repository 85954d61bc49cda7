//! Causes from what a running gateway reports.

use super::*;

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
                rung: rung.parse().unwrap(),
                reason: "4 starts in quick succession".into(),
                retry_ms: Some(12_000),
            });
        }
        evidence
    };
    let because = Box::new(EndCause::Killed {
        signal: "SIGKILL".into(),
    });
    let (reason, retry_ms) = ("4 starts in quick succession".to_owned(), Some(12_000));
    let cause = EndCause::Throttled {
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
        &EndCause::SafeMode {
            reason: reason.clone(),
            retry_ms,
            because,
        },
        &["is in safe mode"],
    );
    check(
        "last good",
        &recovering("last_good"),
        &EndCause::LastGood { reason },
        &["uses the last good configuration because the current one is invalid"],
    );
    let mut failing = up(vec![], vec![started(1, 5, PreviousEnd::Unknown)]);
    if let Some(status) = &mut failing.status {
        (status.stage, status.detail) = (Stage::Failed, "main exited with code 3".into());
    }
    check(
        "a first start that fails",
        &failing,
        &EndCause::NotReady {
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
        JournalEvent::Gateway,
        "[gateway] sidecar main (pid 5) was ended by SIGKILL; starting it again in 168 ms",
    );
    evidence.journal.push(JournalLine {
        sidecar: Some("main".into()),
        ..told
    });
    let sidecar = SidecarStatus {
        name: "main".into(),
        state: SidecarStateName::Ready,
        cause: None,
        pid: 6,
        port: 1,
        restarts: 1,
        command: "x".into(),
    };
    evidence.status.as_mut().unwrap().sidecars = vec![sidecar.clone()];
    let cause = EndCause::Sidecar {
        name: "main".into(),
        said: "(pid 5) was ended by SIGKILL".into(),
        back: true,
    };
    check(
        "a crash since the restart",
        &evidence,
        &cause,
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
    let waiting = SidecarStatus {
        state: SidecarStateName::Backoff,
        cause: Some("exited with code 3".into()),
        ..sidecar
    };
    evidence.status.as_mut().unwrap().sidecars = vec![waiting];
    let cause = EndCause::Sidecar {
        name: "main".into(),
        said: "exited with code 3".into(),
        back: false,
    };
    check(
        "one that is down is what matters now",
        &evidence,
        &cause,
        &["exited with code 3", "not ready yet"],
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
        &EndCause::NeverEnded,
        &["nothing has ended"],
    );
    let mut fresh = down("inactive", "success", (0, 0), vec![], vec![]);
    if let Some(unit) = &mut fresh.unit {
        unit.started = None;
    }
    check(
        "installed",
        &fresh,
        &EndCause::NeverRan,
        &["gateway.service has not run yet"],
    );
    assert_eq!(decide(&EndEvidence::default()), None);
}
