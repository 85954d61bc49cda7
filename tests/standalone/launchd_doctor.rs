//! What `gatewayctl doctor` finds in a job of launchd, and `logs` of one, with the simulator in `tests/launchd-sim`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::mac::{LABEL, Mac};
use crate::support::site::all_of;
use crate::support::{skip, wait};

/// The codes of what is found in the job.
pub fn found(mac: &Mac) -> Vec<String> {
    codes(&mac.ctl(&["doctor", "--json"]))
}

/// Those in an answer of `doctor --json`.
pub fn codes(output: &Output) -> Vec<String> {
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all_of(output)));
    let findings = answer["findings"].as_array().unwrap();
    let codes = findings
        .iter()
        .map(|finding| finding["code"].as_str().unwrap().to_owned());
    codes.filter(|code| code.starts_with("job-")).collect()
}

/// Writes another text of the property list.
fn edit(mac: &Mac, from: &str, to: &str) {
    let text = std::fs::read_to_string(mac.plist()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(mac.plist(), text.replacen(from, to, 1)).unwrap();
}

fn mode(mac: &Mac, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(mac.plist(), mode).unwrap();
}

#[test]
fn what_is_wrong_with_a_property_list_is_found() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    assert!(found(&mac).is_empty(), "{:?}", found(&mac));
    mode(&mac, 0o666);
    assert_eq!(found(&mac), ["job-file"]);
    mode(&mac, 0o644);

    let text = std::fs::read_to_string(mac.plist()).unwrap();
    edit(&mac, "<key>Umask</key>", "<key>TimeOut</key>");
    assert_eq!(found(&mac), ["job-key", "job-changed"]);
    let documents = mac.home().join("Documents").display().to_string();
    let home = format!("<string>{}</string>", mac.home().display());
    std::fs::write(mac.plist(), &text).unwrap();
    edit(&mac, &home, &format!("<string>{documents}</string>"));
    assert_eq!(found(&mac), ["job-changed", "job-protected"]);
    std::fs::write(mac.plist(), "<plist version=\"1.0\"><dict>").unwrap();
    assert!(found(&mac).contains(&"job-file".to_owned()));
    std::fs::write(mac.plist(), &text).unwrap();
    assert!(found(&mac).is_empty());

    let config = mac.home().join(".config/gateway/gateway.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    let moved = before.replace(&format!(":{}", mac.port), ":1");
    assert_ne!(before, moved);
    std::fs::write(&config, moved).unwrap();
    assert_eq!(found(&mac), ["job-sockets"]);
    std::fs::write(&config, before).unwrap();

    std::fs::remove_dir_all(mac.home().join("Library/Logs")).unwrap();
    assert_eq!(found(&mac), ["job-log"]);
}

/// macOS marks what a browser brought; Linux has names of its own for the marks of users.
#[test]
fn a_program_in_quarantine_is_found() {
    let Some(mac) = Mac::boot(&[]) else { return };
    let program = mac.home().join("gateway");
    std::fs::copy("/bin/true", &program).unwrap();
    mac.must_install(&[]);
    let before = env!("CARGO_BIN_EXE_gateway");
    edit(&mac, before, program.to_str().unwrap());
    assert_eq!(found(&mac), ["job-changed"]);
    let script =
        "import os, sys; os.setxattr(sys.argv[1], 'user.com.apple.quarantine', b'0081;x;Safari;')";
    let mut python = Command::new("python3");
    let marked = python.args(["-c", script]).arg(&program).status().unwrap();
    if !marked.success() {
        return skip::because("this file system has no attributes of users");
    }
    assert_eq!(found(&mac), ["job-quarantine", "job-changed"]);
    let said = all_of(&mac.ctl(&["doctor"]));
    let next = format!("xattr -d com.apple.quarantine {}", program.display());
    assert!(said.contains(&next), "{said}");
}

#[test]
fn what_launchd_does_with_a_job_is_found() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let (gui, user) = (format!("gui/{}", geteuid()), format!("user/{}", geteuid()));
    mac.launchctl(&["disable", &format!("{gui}/{LABEL}")]);
    // Each has its own word for it.
    for macos in ["macos=12", "macos=26"] {
        mac.launchctl(&["simulate", macos]);
        assert_eq!(found(&mac), ["job-disabled"], "{macos}");
    }
    mac.must(&["start"]);
    mac.launchctl(&["enable", &format!("{gui}/{LABEL}")]);
    mac.launchctl(&["bootstrap", &user, mac.plist().to_str().unwrap()]);
    assert_eq!(found(&mac), ["job-twice"]);
    mac.launchctl(&["bootout", &format!("{user}/{LABEL}")]);
    wait::until("it is unloaded there", || {
        mac.print("user").is_none().then_some(())
    });

    mac.launchctl(&["simulate", "on_demand_only=1"]);
    let pid = mac.pid("gui").unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait::until("launchd holds it back", || {
        mac.print("gui")?
            .contains("pended nondemand spawn")
            .then_some(())
    });
    assert_eq!(found(&mac), ["job-held"]);
    mac.must(&["start"]);
    assert!(mac.serves());

    let mut doctor = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    mac.environment(&mut doctor);
    let doctor = doctor.args(["--user", "doctor"]);
    let output = doctor
        .env("GATEWAY_LAUNCHCTL", "/bin/false")
        .output()
        .unwrap();
    assert!(
        all_of(&output).contains("job-unreachable"),
        "{}",
        all_of(&output)
    );
}

#[test]
fn an_agent_without_anybody_at_the_screen_is_not_there_after_a_boot() {
    let Some(mac) = Mac::boot(&["gui=0"]) else {
        return;
    };
    mac.must_install(&[]);
    assert_eq!(found(&mac), ["job-unattended"]);
}

#[test]
fn the_log_is_the_file_that_the_property_list_names() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let said = mac.must(&["logs"]);
    assert!(said.contains("[gateway] http server listening"), "{said}");
    mac.must(&["stop"]);
    let said = mac.must(&["logs"]);
    assert!(said.contains("received SIGTERM: stopping"), "{said}");
    let answer = mac.ctl(&["logs", "--json"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let log = mac.home().join("Library/Logs/gateway/gateway.log");
    assert_eq!(answer["output"].as_str().map(Path::new), Some(&*log));
}
