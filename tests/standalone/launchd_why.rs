//! What `gatewayctl why` says of a job of launchd, with the simulator in `tests/launchd-sim`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::mac::{LABEL, Mac};
use crate::support::site::all_of;
use crate::support::wait;

/// The answer, with the sentence and the line of the job in one text.
fn why(mac: &Mac) -> (Value, String) {
    let output = mac.ctl(&["why", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all_of(&output)));
    let evidence = answer["evidence"].as_array().unwrap();
    let job = evidence.iter().find(|line| line["source"] == "job");
    let job = job.unwrap_or_else(|| panic!("launchd is not asked: {answer}"))["text"].as_str();
    let text = format!(
        "{} | {}",
        answer["sentence"].as_str().unwrap(),
        job.unwrap()
    );
    (answer, text)
}

/// What is said when a process has followed this one.
fn why_after(mac: &Mac, before: i32) -> (Value, String) {
    wait::until("launchd has started the next process", || {
        mac.pid("gui").filter(|pid| *pid != before)
    });
    wait::until("it serves", || {
        mac.ctl(&["status"]).status.success().then_some(())
    });
    why(mac)
}

#[track_caller]
fn check(found: &(Value, String), cause: &str, parts: &[&str]) {
    let (answer, text) = found;
    assert_eq!(answer["cause"]["kind"], cause, "{answer}");
    assert_eq!(answer["unit"], LABEL);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn why_of_a_job_says_what_launchd_saw() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let gui = format!("gui/{}", geteuid());
    let target = format!("{gui}/{LABEL}");
    let loaded = format!("loaded into {gui}, running, pid ");
    check(&why(&mac), "never-ended", &[&loaded, ", 1 start"]);

    let pid = mac.pid("gui").unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    check(
        &why_after(&mac, pid),
        "killed",
        &[
            "ended by SIGKILL: sent by a user or program, or by launchd because its end took longer than ExitTimeOut",
            "2 starts, the process before was ended by signal 9",
        ],
    );

    let pid = mac.pid("gui").unwrap();
    mac.launchctl(&["kickstart", "-k", &target]);
    check(
        &why_after(&mac, pid),
        "signalled",
        &[
            "SIGTERM",
            "sent by launchd for `launchctl kickstart -k`",
            "launchd started it again",
        ],
    );

    mac.must(&["restart", "--force"]);
    check(
        &why(&mac),
        "restarted-by-manager",
        &["by a request to the service manager", "launchd started it"],
    );

    mac.must(&["stop"]);
    let stopped = why(&mac);
    check(
        &stopped,
        "stopped",
        &["it is not running", &format!("not loaded into {gui}")],
    );
    assert_eq!(stopped.0["next"][0], "gatewayctl start --user");
}

/// A folder that is not there, as after a cleaner of logs: launchd starts nothing, and nobody records why.
#[test]
fn why_of_a_job_whose_log_cannot_be_opened_is_no_gateway_without_a_cause() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let logs = mac.home().join("Library/Logs/gateway");
    std::fs::rename(&logs, mac.home().join("aside")).unwrap();
    kill(Pid::from_raw(mac.pid("gui").unwrap()), Signal::SIGKILL).unwrap();
    wait::until("launchd cannot start it", || {
        let print = mac.print("gui")?;
        (print.contains("last exit code = 78") && print.contains("spawn scheduled")).then_some(())
    });
    let found = why(&mac);
    check(
        &found,
        "not-started",
        &[
            "exit code 78: launchd cannot execute the program or open the log",
            "launchd is about to start it again, which it does at most every 1 s",
        ],
    );
    let next = found.0["next"].to_string();
    assert!(next.contains("gatewayctl doctor --user"), "{next}");
}
