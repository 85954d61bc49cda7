//! Causes from what launchd says of a job.

use super::*;
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::job_print::JobPrint;
use crate::service::JobNow;

/// A job that launchd is about to start again, after an end that it prints like this.
fn due(end: &str, record: Vec<Recorded>) -> EndEvidence {
    let text = format!(
        "x = {{\n\tstate = spawn scheduled\n\truns = 3\n\tminimum runtime = 10\n\t{end}\n}}\n"
    );
    EndEvidence {
        job: Some(JobNow {
            label: "org.gatewayctl.gateway".into(),
            domain: LaunchdDomain::Gui(501),
            print: Some(JobPrint::parse(&text)),
        }),
        ..by_hand(record)
    }
}

#[test]
fn an_end_that_launchd_saw() {
    let by_kernel = |said: &str| EndCause::ByKernel {
        said: said.to_owned(),
    };
    for (end, cause, parts) in [
        (
            "last exit reason = OS_REASON_JETSAM",
            EndCause::OutOfMemory,
            &["memory ran out"][..],
        ),
        (
            "last exit reason = OS_REASON_CODESIGNING",
            by_kernel(
                "was ended by the kernel: its signature is not valid, or is not the one that launchd has noted",
            ),
            &[
                "org.gatewayctl.gateway was ended by the kernel",
                "at most every 10 s",
            ],
        ),
        (
            "last exit reason = OS_REASON_EXEC | Error -413",
            by_kernel("could not be executed"),
            &["gateway could not be executed"],
        ),
        (
            "last terminating signal = Segmentation fault: 11",
            EndCause::Crashed {
                signal: "SIGSEGV".into(),
            },
            &["crashed with SIGSEGV"],
        ),
        (
            "last exit code = 3",
            EndCause::Exited {
                code: 3,
                said: None,
            },
            &["exit code 3", "launchd is about to start it again"],
        ),
        (
            "last exit code = (abandoned)",
            EndCause::Died { said: None },
            &[],
        ),
    ] {
        check(end, &due(end, vec![first()]), cause, parts);
    }
}

#[test]
fn the_gateway_s_own_word_on_the_same_end_says_more() {
    let record = |code| vec![first(), ended(49, 5, false, code, "cannot start: no disk")];
    let said = EndCause::Exited {
        code: 78,
        said: Some("no disk".into()),
    };
    let end = "last exit code = 78: EX_CONFIG";
    check("both saw it", &due(end, record(78)), said, &["no disk"]);
    // An end after that one, before the program ran.
    let evidence = due(end, record(1));
    let cause = decide(&evidence).unwrap().cause;
    assert!(matches!(cause, EndCause::NotStarted { .. }), "{cause:?}");
}

#[test]
fn a_job_that_launchd_has_just_loaded_has_not_run_yet() {
    let evidence = due("last exit code = (never exited)", vec![]);
    let mut fresh = evidence.clone();
    let print = fresh.job.as_mut().unwrap().print.as_mut().unwrap();
    print.runs = Some(0);
    check("loaded", &fresh, EndCause::NeverRan, &["has not run yet"]);
    let mut away = evidence;
    away.job.as_mut().unwrap().print = None;
    check("unloaded", &away, EndCause::NeverRan, &["has not run yet"]);
}
