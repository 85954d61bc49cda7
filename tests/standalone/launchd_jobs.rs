//! Agents of launchd from install to uninstall, driven against the simulator in `tests/launchd-sim`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::mac::{LABEL, Mac, some_calls};
use crate::support::site::all_of;
use crate::support::wait;

fn end(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn an_agent_lives_from_install_to_uninstall() {
    let Some(mac) = Mac::boot(&[]) else { return };
    let said = mac.must_install(&[]);
    assert!(
        said.contains(&format!("{LABEL} is installed and ready on 127.0.0.1:")),
        "{said}"
    );
    assert!(mac.serves());
    let mode = std::fs::metadata(mac.plist()).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o022,
        0,
        "launchd takes no file that others may write"
    );
    let again = mac.must_install(&[]);
    assert!(
        again.contains("is already installed, and runs on"),
        "{again}"
    );
    let first = mac.pid("gui").unwrap();
    let status = mac.must(&["status"]);
    assert!(status.contains("ready"), "{status}");

    // launchd keeps it alive.
    end(first, Signal::SIGKILL);
    let second = wait::until("another process", || {
        mac.pid("gui").filter(|pid| *pid != first)
    });
    wait::until("it serves again", || mac.serves().then_some(()));
    let running = mac.must(&["start"]);
    assert!(
        running.contains(&format!("already running (pid {second})")),
        "{running}"
    );

    assert!(mac.must(&["stop"]).contains(": stopped"));
    assert!(!mac.serves() && mac.print("gui").is_none());
    assert!(mac.must(&["stop"]).contains(": already stopped"));
    let status = mac.ctl(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", all_of(&status));
    assert!(mac.must(&["start"]).contains(": started (pid "));
    assert!(mac.serves());
    let before = mac.pid("gui");
    assert!(
        mac.must(&["restart", "--force"])
            .contains(": restarted, pid ")
    );
    assert!(mac.serves() && mac.pid("gui") != before);
    mac.must(&["stop"]);
    assert!(mac.must(&["restart"]).contains(": started, pid "));
    assert!(mac.serves());

    mac.must(&["uninstall"]);
    assert!(!mac.serves() && mac.print("gui").is_none());
    let left: Vec<_> = walk(&mac.home());
    assert!(left.is_empty(), "{left:?}");
    assert!(mac.must(&["uninstall"]).contains("nothing to do"));
}

/// All files below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    };
    entries.flat_map(below).collect()
}

#[test]
fn a_label_that_still_ends_and_an_error_that_says_nothing_are_waited_for() {
    for detail in ["detail=0", "detail=1"] {
        let Some(mac) = Mac::boot(&["settle_ms=700", detail]) else {
            return;
        };
        mac.must_install(&[]);
        let before = mac.pid("gui");
        let changed = mac.must_install(&["--set", "COLOR=blue"]);
        assert!(changed.contains("is updated and ready"), "{changed}");
        assert!(mac.pid("gui").is_some() && mac.pid("gui") != before);
        mac.must(&["stop"]);
        assert!(
            mac.print("gui").is_none(),
            "{detail}: stopped means forgotten, too"
        );
        mac.must(&["start"]);
        assert!(mac.serves());
    }
}

#[test]
fn a_load_that_fails_after_an_unload_does_not_leave_the_gateway_unloaded() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    // It passes.
    mac.launchctl(&["simulate", "bootstrap_faults=3"]);
    mac.must_install(&["--set", "COLOR=blue"]);
    assert!(mac.serves());
    let before = std::fs::read(mac.plist()).unwrap();

    // It does not, once: what ran before runs again.
    mac.launchctl(&["simulate", "bootstrap_faults=1", "bootstrap_fault=150"]);
    let failed = mac.install(&["--set", "COLOR="]);
    let said = all_of(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(
        said.contains("launchd did not load") && said.contains("runs again as it was before"),
        "{said}"
    );
    assert!(said.contains("Bootstrap failed: 150"), "{said}");
    assert!(mac.serves() && std::fs::read(mac.plist()).unwrap() == before);

    // Not even that: the next command is named, and works.
    mac.launchctl(&["simulate", "bootstrap_faults=2"]);
    let said = all_of(&mac.install(&["--set", "COLOR="]));
    assert!(
        said.contains("not loaded as it was before either"),
        "{said}"
    );
    assert!(
        said.contains("gatewayctl start --instance gateway"),
        "{said}"
    );
    mac.must(&["start", "--instance", "gateway"]);
    assert!(mac.serves());
}

#[test]
fn a_first_load_that_fails_leaves_nothing_behind() {
    let Some(mac) = Mac::boot(&["bootstrap_faults=1", "bootstrap_fault=150"]) else {
        return;
    };
    let failed = mac.install(&[]);
    let said = all_of(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("everything is as it was before"), "{said}");
    assert!(!mac.plist().exists() && mac.print("gui").is_none());
}

#[test]
fn a_domain_that_holds_starts_back_and_one_without_a_screen_are_no_obstacle() {
    let Some(mac) = Mac::boot(&["on_demand_only=1"]) else {
        return;
    };
    mac.must_install(&[]);
    assert!(mac.serves());
    drop(mac);

    let Some(mac) = Mac::boot(&["gui=0"]) else {
        return;
    };
    let said = mac.must_install(&[]);
    assert!(said.contains("nobody is logged in at the screen"), "{said}");
    assert!(mac.serves() && mac.pid("user").is_some());
    mac.must(&["uninstall"]);
    assert!(!mac.serves() && mac.print("user").is_none());
}

/// Systems differ in what launchctl knows and says.
#[test]
fn a_job_is_driven_alike_on_each_system() {
    for macos in ["macos=12", "macos=13", "macos=15", "macos=26"] {
        let Some(mac) = Mac::boot(&[macos, "settle_ms=200"]) else {
            return;
        };
        mac.must_install(&[]);
        let help = String::from_utf8(mac.launchctl(&["help", "bootout"]).stdout).unwrap();
        assert_eq!(help.contains("--wait"), macos == "macos=26", "{help}");
        mac.must(&["stop"]);
        assert!(!mac.serves() && mac.print("gui").is_none(), "{macos}");
        mac.must(&["start"]);
        mac.launchctl(&["simulate", "gui=0"]);
        let before = mac.print("user");
        assert!(before.is_none(), "{macos}");
        mac.must(&["start"]);
        assert!(
            mac.print("user").is_some(),
            "{macos}: nobody is at the screen"
        );
    }
}

/// launchd gives a program up that cannot be started, and starts it again only after another load.
#[test]
fn a_job_in_the_penalty_box_is_loaded_anew() {
    for hangs in ["penalty_hangs=0", "penalty_hangs=1"] {
        let Some(mac) = Mac::boot(&["penalty=2", hangs]) else {
            return;
        };
        mac.must_install(&[]);
        let logs = mac.home().join("Library/Logs/gateway");
        let aside = mac.home().join("aside");
        std::fs::rename(&logs, &aside).unwrap();
        end(mac.pid("gui").unwrap(), Signal::SIGKILL);
        wait::until("launchd gives it up", || {
            let print = mac.print("gui")?;
            (print.contains("last exit code = 78") && print.contains("state = not running"))
                .then_some(())
        });
        std::fs::rename(&aside, &logs).unwrap();
        mac.must(&["start"]);
        assert!(mac.serves(), "{hangs}");
    }
}

/// What launchd passes has or has not O_NONBLOCK, and no server inherits it.
#[test]
fn the_sockets_of_a_job_serve_whatever_their_flags_are_and_stay_with_the_gateway() {
    for nonblock in ["nonblock=0", "nonblock=1"] {
        let Some(mac) = Mac::boot(&[nonblock]) else {
            return;
        };
        mac.must_install(&[]);
        let inode = |pid: &str| {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let links = fds
                .flatten()
                .filter_map(|fd| std::fs::read_link(fd.path()).ok());
            links
                .map(|link| link.display().to_string())
                .collect::<Vec<_>>()
        };
        let listener = mac.listener();
        assert!(inode(&mac.pid("gui").unwrap().to_string()).contains(&listener));
        let server = mac.server("gui");
        assert!(!inode(&server).contains(&listener), "{nonblock}");
        mac.must(&["restart"]);
        assert!(mac.serves(), "{nonblock}");
    }
}

/// Seen with launchd once: accept fails for ever, in each process that launchd starts, until it loads the job anew.
#[test]
fn a_socket_that_takes_nobody_any_more_is_reported_with_its_cure() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    mac.launchctl(&["simulate", "break-sockets"]);
    let log = mac.home().join("Library/Logs/gateway/gateway.log");
    let said = wait::until("it says so", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("takes no clients any more").then_some(text)
    });
    assert!(said.contains("gatewayctl restart --force"), "{said}");
    let times = said.matches("takes no clients any more").count();
    let pid = mac.pid("gui").unwrap();
    assert!(times <= 4, "once for each worker: {times}");
    mac.must(&["restart", "--force"]);
    assert!(mac.serves() && mac.pid("gui") != Some(pid));
}

#[test]
fn a_label_that_was_disabled_is_started_by_whoever_asks_for_it() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    mac.must(&["stop"]);
    let target = format!("gui/{}/{LABEL}", geteuid());
    mac.launchctl(&["disable", &target]);
    mac.must(&["start"]);
    assert!(mac.serves());
}

#[test]
fn a_change_of_somebody_else_is_not_written_over() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let text = std::fs::read_to_string(mac.plist()).unwrap();
    let edited = text.replace("<integer>30</integer>", "<integer>60</integer>");
    std::fs::write(mac.plist(), &edited).unwrap();
    let refused = mac.install(&["--json"]);
    assert_eq!(refused.status.code(), Some(5), "{}", all_of(&refused));
    let answer: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    assert_eq!(std::fs::read_to_string(mac.plist()).unwrap(), edited);
    assert!(mac.serves());
    let kept = mac.ctl(&["uninstall"]);
    assert_eq!(kept.status.code(), Some(5), "{}", all_of(&kept));
    assert!(mac.serves() && mac.plist().exists());
}

/// One of so many calls of launchctl is tried in each run.
const PART: u32 = 3;

/// Runs a command once for each of [`some_calls`] of launchctl that it makes, and kills it after that call; `then`
/// sees what the next command finds. The last time nothing is killed.
fn killed_after_calls(mac: &Mac, command: &[&str], prepare: impl Fn(), then: impl Fn(u32)) {
    for calls in some_calls(PART) {
        prepare();
        mac.launchctl(&["simulate", &format!("kill_after={calls}")]);
        let output = mac.ctl(command);
        mac.launchctl(&["simulate", "kill_after=0"]);
        then(calls);
        if output.status.code().is_some() {
            assert!(output.status.success(), "{}", all_of(&output));
            assert!(calls > 3, "{command:?} makes more than {calls} calls");
            return;
        }
    }
}

/// The same where that call fails, before it has done anything or after. What was asked is done, or an error says
/// that it is not, and then the same command does it.
fn fails_at_calls(
    mac: &Mac,
    faults: &[(u8, u8)],
    command: &[&str],
    prepare: impl Fn(),
    is_done: impl Fn() -> bool,
) {
    for fault in faults {
        for calls in some_calls(PART) {
            prepare();
            let (late, code) = *fault;
            let late = format!("fault_late={late}");
            let switches = [&format!("fault_code={code}"), &format!("fault_at={calls}")];
            mac.launchctl(&["simulate", &late, switches[0], switches[1]]);
            let output = mac.ctl(command);
            let left = mac.launchctl(&["simulate", "left=fault_at"]);
            mac.launchctl(&["simulate", "fault_at=0"]);
            let said = all_of(&output);
            let why = format!("{command:?}, call {calls}, {fault:?}: {said}");
            if !output.status.success() {
                assert!(said.contains("launch"), "{why}");
                mac.must(command);
            }
            assert!(is_done(), "{why}");
            if left.stdout != b"0" {
                assert!(calls > 3, "{why}");
                break;
            }
        }
    }
}

/// Whether what was asked is done before the call fails, and the code: this one is final.
const REFUSED: (u8, u8) = (0, 150);

/// What says nothing, and what is final though it was done.
const OTHERS: [(u8, u8); 2] = [(0, 5), (1, 150)];

fn each_call_of_start_and_stop(faults: &[(u8, u8)]) {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let serves = || mac.pid("gui").is_some() && mac.serves();
    let is_gone = || mac.print("gui").is_none() && !mac.serves();
    let start = || drop(mac.must(&["start"]));
    fails_at_calls(&mac, faults, &["stop"], start, is_gone);
    let stop = || drop(mac.must(&["stop"]));
    fails_at_calls(&mac, faults, &["start"], stop, serves);
}

fn each_call_of_restart(faults: &[(u8, u8)]) {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let serves = || mac.pid("gui").is_some() && mac.serves();
    fails_at_calls(&mac, faults, &["restart", "--force"], || {}, serves);
}

fn each_call_of_uninstall(faults: &[(u8, u8)]) {
    let Some(mac) = Mac::boot(&[]) else { return };
    let install = || drop(mac.must_install(&[]));
    let is_gone = || mac.print("gui").is_none() && !mac.serves() && walk(&mac.home()).is_empty();
    fails_at_calls(&mac, faults, &["uninstall"], install, is_gone);
}

#[test]
fn a_stop_or_start_whose_call_of_launchctl_fails_is_an_error_or_made_good() {
    each_call_of_start_and_stop(&[REFUSED]);
}

#[test]
fn a_restart_whose_call_of_launchctl_fails_is_an_error_or_made_good() {
    each_call_of_restart(&[REFUSED]);
}

#[test]
fn an_uninstall_whose_call_of_launchctl_fails_is_an_error_or_made_good() {
    each_call_of_uninstall(&[REFUSED]);
}

#[test]
#[ignore = "it takes minutes: the other ways in which each call fails"]
fn a_command_whose_call_of_launchctl_fails_in_any_way_is_an_error_or_made_good() {
    each_call_of_start_and_stop(&OTHERS);
    each_call_of_restart(&OTHERS);
    each_call_of_uninstall(&OTHERS);
}

#[test]
fn an_install_whose_call_of_launchctl_fails_is_an_error_or_made_good() {
    for late in ["fault_late=0", "fault_late=1"] {
        let Some(mac) = Mac::boot(&[late, "fault_code=150"]) else {
            return;
        };
        mac.must_install(&[]);
        for calls in some_calls(PART) {
            let color = format!("COLOR={calls}");
            mac.launchctl(&["simulate", &format!("fault_at={calls}")]);
            let output = mac.install(&["--set", &color]);
            let left = mac.launchctl(&["simulate", "left=fault_at"]);
            mac.launchctl(&["simulate", "fault_at=0"]);
            let said = all_of(&output);
            assert!(
                output.status.success() || said.contains("launch"),
                "call {calls}: {said}"
            );
            mac.must_install(&["--set", &color]);
            let environment = mac.server_environment("gui");
            assert!(environment.contains(&color), "{calls}: {environment:?}");
            assert!(mac.serves(), "{calls}");
            if left.stdout != b"0" {
                break;
            }
        }
    }
}

fn serves_after_the_next_command(mac: &Mac, why: &str) {
    let status = mac.ctl(&["status"]);
    assert!(mac.print("gui").is_some(), "{why}: {}", all_of(&status));
    wait::until(&format!("{why}: it serves"), || {
        (mac.pid("gui").is_some() && mac.serves()).then_some(())
    });
}

#[test]
fn a_restart_that_was_killed_after_any_step_does_not_leave_the_job_unloaded() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    killed_after_calls(
        &mac,
        &["restart", "--force"],
        || {},
        |calls| {
            serves_after_the_next_command(&mac, &format!("restart, {calls} calls"));
        },
    );
    // What was edited is to be read anew, so the job has to be unloaded.
    let text = std::fs::read_to_string(mac.plist()).unwrap();
    let edit = |throttle: u32| {
        let throttle = format!("<integer>{throttle}</integer>");
        let edited = text.replacen("<integer>1</integer>", &throttle, 1);
        std::fs::write(mac.plist(), edited).unwrap();
    };
    let round = std::cell::Cell::new(1);
    let prepare = || {
        round.set(3 - round.get());
        edit(round.get());
    };
    killed_after_calls(&mac, &["restart", "--force"], prepare, |calls| {
        serves_after_the_next_command(&mac, &format!("changed, {calls} calls"));
    });
    let read = format!("minimum runtime = {}", round.get());
    assert!(mac.print("gui").unwrap().contains(&read));
}

#[test]
fn a_stop_that_was_killed_after_any_step_ends_as_it_was_asked() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let start = || drop(mac.must(&["start"]));
    killed_after_calls(&mac, &["stop"], start, |calls| {
        let status = mac.ctl(&["status"]);
        // The first call only looks: nothing was begun.
        if calls > 1 {
            assert!(mac.print("gui").is_none(), "{calls}: {}", all_of(&status));
        }
    });
    killed_after_calls(
        &mac,
        &["start"],
        || drop(mac.must(&["stop"])),
        |calls| {
            // Before that it only looks.
            if mac.plist().with_extension("json").exists() {
                serves_after_the_next_command(&mac, &format!("start, {calls} calls"));
            }
        },
    );
}

#[test]
fn an_install_or_uninstall_that_was_killed_is_done_by_the_same_command() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    for calls in some_calls(PART) {
        let color = format!("COLOR={calls}");
        mac.launchctl(&["simulate", &format!("kill_after={calls}")]);
        let killed = mac.install(&["--set", &color]);
        mac.launchctl(&["simulate", "kill_after=0"]);
        mac.must_install(&["--set", &color]);
        let environment = mac.server_environment("gui");
        assert!(environment.contains(&color), "{calls}: {environment:?}");
        assert!(mac.serves(), "{calls}");
        if killed.status.code().is_some() {
            break;
        }
    }
    let again = || drop(mac.must_install(&[]));
    killed_after_calls(&mac, &["uninstall"], again, |calls| {
        mac.must(&["uninstall"]);
        assert!(mac.print("gui").is_none(), "{calls}");
        let left = walk(&mac.home());
        assert!(left.is_empty(), "{calls}: {left:?}");
    });
}
