//! Agents of launchd from install to uninstall, driven against the simulator in `tests/launchd-sim`.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::support::site::all_of;
use crate::support::{port, skip, wait};

const LABEL: &str = "org.gatewayctl.gateway";

/// A simulated launchd and the home of its user.
struct Mac {
    launchd: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Mac {
    /// None where the simulator cannot run.
    fn boot(switches: &[&str]) -> Option<Self> {
        if !skip::unless_there("python3") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let mut launchd = Command::new("python3")
            .arg(simulator().join("launchd_sim.py"))
            .arg(dir.path())
            .args(switches)
            .env_clear()
            .env("HOME", dir.path().join("home"))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = launchd.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self {
            launchd,
            dir,
            port: port::private(),
        })
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn run(&self, program: &Path, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .current_dir(self.home())
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LAUNCHD_SIM", self.dir.path())
            .env("GATEWAY_LAUNCHCTL", simulator().join("launchctl"))
            .output()
            .unwrap()
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_gatewayctl"));
        self.run(program, &[&["--user"], args].concat())
    }

    /// A command that must succeed; what it printed.
    fn must(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert!(output.status.success(), "{args:?}: {}", all_of(&output));
        all_of(&output)
    }

    fn install(&self, more: &[&str]) -> Output {
        let listen = format!("127.0.0.1:{}", self.port);
        let begin = ["install", "--for", "launchd", "--now", "--listen", &listen];
        let server = [
            "--",
            "python3",
            "-m",
            "http.server",
            "{port}",
            "--bind",
            "127.0.0.1",
        ];
        self.ctl(&[&begin[..], more, &server].concat())
    }

    fn must_install(&self, more: &[&str]) -> String {
        let output = self.install(more);
        assert!(output.status.success(), "{}", all_of(&output));
        all_of(&output)
    }

    fn launchctl(&self, args: &[&str]) -> Output {
        self.run(&simulator().join("launchctl"), args)
    }

    /// What the simulator says of the job in a domain; none where it is not loaded there.
    fn print(&self, domain: &str) -> Option<String> {
        let target = format!("{domain}/{}/{LABEL}", geteuid());
        let output = self.launchctl(&["print", &target]);
        let text = String::from_utf8(output.stdout).unwrap();
        match output.status.code() {
            Some(0) => Some(text),
            Some(113) => None,
            code => panic!("{code:?}: {text}"),
        }
    }

    fn pid(&self, domain: &str) -> Option<i32> {
        let print = self.print(domain)?;
        let line = print.lines().find_map(|line| line.strip_prefix("\tpid = "));
        line?.parse().ok()
    }

    fn serves(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    fn plist(&self) -> PathBuf {
        self.home()
            .join(format!("Library/LaunchAgents/{LABEL}.plist"))
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        // The end of its input is its end, and that of its jobs.
        drop(self.launchd.stdin.take());
        let _ = self.launchd.wait();
    }
}

fn simulator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launchd-sim")
}

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
            .contains(": restarted (pid ")
    );
    assert!(mac.serves() && mac.pid("gui") != before);
    mac.must(&["stop"]);
    assert!(mac.must(&["restart"]).contains(": started (pid "));
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
    let failed = mac.install(&["--set", "COLOR=red"]);
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
    let said = all_of(&mac.install(&["--set", "COLOR=red"]));
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
