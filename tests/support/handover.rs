//! What the tests of hand-overs between processes share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::{block_on, get};
use super::gateway::{Gateway, Setup, family_of, pids, said, scrub};
use super::{servers, wait};

/// Each step of the process that hands over.
pub const OLD: [&str; 8] = [
    "old.before-spawn",
    "old.spawned",
    "old.release",
    "old.before-mainpid",
    "old.after-mainpid",
    "old.after-go",
    "old.served",
    "old.yielded",
];

/// Each step of the process that takes over.
pub const NEW: [&str; 6] = [
    "new.started",
    "new.alive",
    "new.ready",
    "new.go",
    "new.accepting",
    "new.before-serving",
];

/// Tasks of one process.
pub const TASK: [&str; 2] = ["task.build", "task.drain"];

/// A place where one of the processes is made to fail; see src/gateway/handover/failpoint.rs.
pub struct Failpoint(TempDir);

impl Failpoint {
    /// None wished for yet.
    pub fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("failpoint-")
                .tempdir()
                .unwrap(),
        )
    }

    /// A gateway that comes by here.
    pub fn on(&self, setup: Setup) -> Setup {
        setup.env("GATEWAY_FAILPOINT", format!("@{}", self.wish().display()))
    }

    /// The next process that gets to `name` is to `kill` itself, `exit`, `hang` or `pause`.
    pub fn arm(&self, name: &str, how: &str) {
        let unfinished = self.0.path().join("unfinished");
        fs::write(&unfinished, format!("{name}={how}")).unwrap();
        let _ = fs::remove_file(self.reached());
        fs::rename(unfinished, self.wish()).unwrap();
    }

    /// Waits until a process got there.
    pub fn wait_reached(&self) {
        wait::until("the failpoint is reached", || {
            self.reached().exists().then_some(())
        });
    }

    /// `gatewayctl ARGS`, returned when a process pauses at `name` for it.
    pub fn pause(&self, gateway: &Gateway, name: &str, args: &[&str]) -> JoinHandle<Output> {
        self.arm(name, "pause");
        let asked = gateway.ctl_aside(args.iter().copied());
        self.wait_reached();
        asked
    }

    /// Lets a process go on that pauses there.
    pub fn go_on(&self) {
        fs::remove_file(self.reached()).unwrap();
    }

    fn wish(&self) -> PathBuf {
        self.0.path().join("wish")
    }

    fn reached(&self) -> PathBuf {
        self.0.path().join("wish.reached")
    }
}

/// The Node server where nobody follows our pid, so that each restart brings a fresh process and
/// none stays in front; none where node is not installed.
pub fn respawning() -> Option<Setup> {
    servers::have("node").then(|| Setup::behind(servers::node()).env("GATEWAY_SUPERVISOR", "none"))
}

/// The same where somebody follows our pid: the first process stays in front.
pub fn followed() -> Option<Setup> {
    respawning().map(|setup| setup.env("GATEWAY_SUPERVISOR", "foreground"))
}

/// `gatewayctl restart --fresh`, which must succeed and bring another process. Its pid comes back.
pub fn fresh(gateway: &Gateway) -> u32 {
    let before = gateway.main_pid();
    let output = gateway.ctl(["restart", "--fresh"]);
    assert!(
        output.status.success(),
        "{}\n{}",
        said(&output),
        gateway.stderr()
    );
    // The answer waits a second for the record, and not longer where the disk is slow.
    let named = || Some(gateway.main_pid()).filter(|after| *after != before);
    wait::within(wait::DEADLINE, named).unwrap_or_else(|| {
        panic!(
            "owner.json names no fresh process: {}\n{}",
            said(&output),
            gateway.stderr()
        )
    })
}

/// A restart that must fail and say why. What it said comes back.
pub fn failed(output: &Output) -> String {
    let text = said(output);
    assert!(!output.status.success(), "{text}");
    assert!(!output.stderr.is_empty(), "a failure has a reason: {text}");
    text
}

/// A restart failed because its successor ended, and `how` is told where the kernel tells.
pub fn successor_ended(text: &str, how: &str) {
    assert!(
        text.contains(&format!("the successor {how} before "))
            || text.contains("the successor ended before ")
                && text.contains("this system does not tell"),
        "{how}: {text}"
    );
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Whether a process is there and is no zombie.
pub fn alive(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Waits for the end of a process that need not be a child.
pub fn wait_end(pid: u32) {
    wait::until(&format!("pid {pid} ends"), || (!alive(pid)).then_some(()));
}

/// The processes of a gateway, without their sidecars.
pub fn family(gateway: &Gateway) -> Vec<u32> {
    family_of(gateway.state_dir())
        .into_iter()
        .map(|(pid, _)| pid)
        .collect()
}

/// What runs beside them: their sidecars, whoever is their parent by now. They all run in the
/// test's own directory.
pub fn sidecars(gateway: &Gateway) -> Vec<u32> {
    let family = family(gateway);
    let here = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == gateway.dir())
    };
    pids()
        .filter(|pid| here(pid) && alive(*pid) && !family.contains(pid))
        .collect()
}

/// Waits until no sidecar is left, whichever process had it.
pub fn no_sidecar(gateway: &Gateway) {
    wait::until("no sidecar is left", || {
        sidecars(gateway).is_empty().then_some(())
    });
}

/// Waits until exactly one gateway process is left, and shows that it has everything: owner.json,
/// the control socket, the front door, the lock. Its pid comes back.
pub fn one_serves(gateway: &Gateway) -> u32 {
    one_of(gateway, 1)
}

/// The same where `count` processes are to be left, as with a waiter in front.
pub fn one_of(gateway: &Gateway, count: usize) -> u32 {
    let settled = || {
        Some(gateway.main_pid())
            .filter(|owner| family(gateway).len() == count && family(gateway).contains(owner))
    };
    let Some(owner) = wait::within(wait::DEADLINE, settled) else {
        panic!(
            "processes {:?} instead of {count}, owner.json names {}\n{}",
            family(gateway),
            gateway.main_pid(),
            gateway.stderr()
        );
    };
    let status = gateway.wait_status("it serves alone", |status| {
        status["stage"] == "ready" && status["drainers"] == serde_json::json!([])
    });
    assert_eq!(status["pid"], owner, "{status:#}");
    wait::until("one sidecar is left", || {
        (sidecars(gateway) == [gateway.sidecar_pid("main")]).then_some(())
    });
    let answer = block_on(get(&gateway.target(), "/pid")).unwrap();
    assert_eq!(
        (answer.status(), answer.text()),
        (200, format!("{}\n", gateway.sidecar_pid("main")))
    );
    second_is_refused(gateway.state_dir(), owner);
    owner
}

/// The lock still keeps others away.
fn second_is_refused(state: &Path, owner: u32) {
    let mut second = Command::new(env!("CARGO_BIN_EXE_gateway"));
    second.arg("run").arg("--state-dir").arg(state).args([
        "--config",
        "/dev/null",
        "--listen",
        "127.0.0.1:0",
        "--",
        "sleep",
        "1000",
    ]);
    scrub(&mut second);
    let output = second.stdin(Stdio::null()).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(
        text.contains(&owner.to_string()),
        "it says who has the instance: {text}"
    );
}

/// What a benchmark writes that knows nothing but the pid and the time.
pub fn announce(gateway: &Gateway, reason: &str) {
    let now = jiff::Timestamp::now().as_millisecond();
    let pid = gateway.pid();
    let text = format!(
        r#"{{"kind":"gateway-restart","pid":{pid},"createdAt":{now},"reason":"{reason}"}}"#
    );
    let file = gateway.state_dir().join("restart-intent.json");
    let written = file.with_extension("new");
    fs::write(&written, text).unwrap();
    fs::set_permissions(&written, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&written, &file).unwrap();
}
