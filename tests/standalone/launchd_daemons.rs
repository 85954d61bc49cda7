//! Daemons of launchd, which run as a user of their own, and agents of who calls sudo, driven against the simulator
//! in `tests/launchd-sim`. They need root.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::stat::Mode;
use nix::unistd::{User, geteuid, mkfifo};

use crate::mac::{LABEL, Mac};
use crate::support::site::all_of;
use crate::support::skip;

/// Every system has it.
pub const USER: &str = "nobody";

/// Of a daemon. None where this user may not become another one, or where the other one cannot run the programs.
pub fn boot(switches: &[&str]) -> Option<Mac> {
    if !geteuid().is_root() {
        skip::because("only root installs daemons");
        return None;
    }
    let mut runs = Command::new("setpriv");
    runs.args([
        "--reuid",
        USER,
        "--clear-groups",
        env!("CARGO_BIN_EXE_gateway"),
    ]);
    if !runs
        .arg("--version")
        .output()
        .is_ok_and(|ran| ran.status.success())
    {
        skip::because("another user cannot run the programs where they are");
        return None;
    }
    Mac::boot(switches)
}

fn machine(mac: &Mac, args: &[&str]) -> Output {
    mac.run(
        Path::new(env!("CARGO_BIN_EXE_gatewayctl")),
        &[&["--system"], args].concat(),
    )
}

fn must(mac: &Mac, args: &[&str]) -> String {
    let output = machine(mac, args);
    assert!(output.status.success(), "{args:?}: {}", all_of(&output));
    all_of(&output)
}

fn install(mac: &Mac, more: &[&str]) -> String {
    mac.install_by(|line| must(mac, line), more)
}

#[test]
fn a_daemon_lives_from_install_to_uninstall_without_anybody_at_the_screen() {
    let Some(mac) = boot(&[]) else { return };
    mac.launchctl(&["simulate", "gui=0"]);
    let said = install(&mac, &["--run-as", USER, "--set", "API_TOKEN=canary-4711"]);
    assert!(said.contains("is installed and ready"), "{said}");
    assert!(mac.serves());
    let user = User::from_name(USER).unwrap().unwrap();
    let pid = mac.pid("system").unwrap();
    let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(owner, user.uid.as_raw());

    // What launchd shows to everybody has no secret in it, and what has is the user's alone.
    let plist = mac
        .root()
        .join(format!("Library/LaunchDaemons/{LABEL}.plist"));
    let text = std::fs::read_to_string(&plist).unwrap() + &mac.print("system").unwrap();
    assert!(!text.contains("canary"), "{text}");
    let facts = std::fs::metadata(&plist).unwrap();
    assert_eq!(
        (facts.uid(), facts.permissions().mode() & 0o777),
        (0, 0o644)
    );
    for file in ["gateway.toml", "gateway.secrets.env"] {
        let facts = std::fs::metadata(mac.root().join("etc/gateway").join(file)).unwrap();
        let found = (facts.uid(), facts.permissions().mode() & 0o777);
        assert_eq!(found, (user.uid.as_raw(), 0o600), "{file}");
    }
    let environment = mac.server_environment("system");
    let secret = "API_TOKEN=canary-4711".to_owned();
    assert!(environment.contains(&secret), "{environment:?}");

    let status = must(&mac, &["status"]);
    assert!(
        status.contains("exit: launchd holds the listeners"),
        "{status}"
    );
    must(&mac, &["restart"]);
    assert!(mac.serves() && mac.pid("system") != Some(pid));
    // The user is known from before.
    install(&mac, &["--set", "COLOR=blue"]);
    must(&mac, &["stop"]);
    assert!(!mac.serves() && mac.print("system").is_none());
    must(&mac, &["start"]);
    assert!(mac.serves());
    must(&mac, &["uninstall"]);
    assert!(!mac.serves() && mac.print("system").is_none() && !plist.exists());
}

/// A daemon's user owns the folder of its log, and root reads it.
#[test]
fn the_log_of_a_daemon_leads_root_to_no_other_file_and_drives_no_terminal() {
    let Some(mac) = boot(&[]) else { return };
    install(&mac, &["--run-as", USER]);
    let log = mac.root().join("Library/Logs/gateway/gateway/gateway.log");
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    file.write_all(b"[main] \x1b]0;owned\x07 \xe2\x80\xae\n")
        .unwrap();
    for flags in [
        &["logs"][..],
        &["logs", "--sidecar", "main"],
        &["logs", "--json"],
    ] {
        let said = must(&mac, flags);
        assert!(said.contains("]0;owned"), "{flags:?}: {said}");
        assert!(
            !said.contains(['\x1b', '\x07', '\u{202e}']),
            "{flags:?}: {said:?}"
        );
    }
    let said = must(&mac, &["logs", "--sidecar", "main", "-n", "1"]);
    let escaped = r"[main] \x1b]0;owned\x07 \u{202e}";
    assert!(said.trim_end().ends_with(escaped), "{said}");

    let secret = mac.home().join("secret");
    std::fs::write(&secret, "canary-4711\n").unwrap();
    let plant: [(&str, &dyn Fn()); 3] = [
        ("it is a symbolic link", &|| symlink(&secret, &log).unwrap()),
        ("hard link", &|| std::fs::hard_link(&secret, &log).unwrap()),
        ("it is not a regular file", &|| {
            mkfifo(&log, Mode::S_IRWXU).unwrap()
        }),
    ];
    for (why, plant) in plant {
        std::fs::remove_file(&log).unwrap();
        plant();
        for flags in [&["logs"][..], &["logs", "--follow"], &["logs", "--json"]] {
            let output = machine(&mac, flags);
            let said = all_of(&output);
            assert_eq!(output.status.code(), Some(1), "{why} {flags:?}: {said}");
            assert!(
                said.contains(why) && !said.contains("canary"),
                "{flags:?}: {said}"
            );
        }
    }
}

#[test]
fn an_agent_that_is_asked_for_by_sudo_belongs_to_who_called_it() {
    let Some(mac) = boot(&[]) else { return };
    let user = User::from_name(USER).unwrap().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    mac.environment(&mut command);
    let output = command
        .args([
            "--user", "install", "--for", "launchd", "--now", "--", "true",
        ])
        .env("SUDO_UID", user.uid.to_string())
        .env("SUDO_USER", USER)
        .output()
        .unwrap();
    let said = all_of(&output);
    // That user has no home here, so nothing can be written: but it was tried there, and by that user.
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&user.dir.display().to_string()), "{said}");
    let written = mac.home().join("Library");
    assert!(!written.exists(), "nothing of root's");
}
