//! A terminal is closed: what ran in its foreground ends, and nothing else.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::client::{Target, block_on, get};
use crate::support::gateway::{descendants, family_of, scrub};
use crate::support::{port, servers, wait};

/// A terminal in which a shell runs one line; it is closed when the standard input of this is.
const TERMINAL: &str = "import os, pty, sys, threading\n\
    pid, terminal = pty.fork()\n\
    if pid == 0:\n    os.execvp(sys.argv[1], sys.argv[1:])\n\
    def show():\n    \
        while True:\n        \
            try: sys.stderr.buffer.write(os.read(terminal, 65536)); sys.stderr.flush()\n        \
            except OSError: return\n\
    threading.Thread(target=show, daemon=True).start()\n\
    sys.stdin.read()\n\
    os._exit(0)\n";

struct Terminal {
    process: Child,
    dir: TempDir,
    port: u16,
}

impl Terminal {
    /// `line` may use `$GATEWAY`, which runs the gateway, and leaves the shell waiting.
    fn run(shell: &[&str], line: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
        let gateway = [
            env!("CARGO_BIN_EXE_gateway"),
            "run",
            "--state-dir",
            dir.path().join("state").to_str().unwrap(),
            "--listen",
            &format!("127.0.0.1:{port}"),
        ]
        .join(" ");
        let mut command = Command::new("python3");
        scrub(&mut command);
        let process = command
            .args(["-c", TERMINAL])
            .args(shell)
            .arg(line.replace("$GATEWAY", &gateway))
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("screen")).unwrap())
            .spawn()
            .unwrap();
        let terminal = Self { process, dir, port };
        wait::within(wait::DEADLINE, || terminal.serves().then_some(()))
            .unwrap_or_else(|| panic!("it does not serve: {}", terminal.screen()));
        terminal
    }

    fn screen(&self) -> String {
        fs::read_to_string(self.dir.path().join("screen")).unwrap_or_default()
    }

    fn serves(&self) -> bool {
        let target = Target::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], self.port)));
        block_on(get(&target, "/healthz")).is_ok_and(|answer| answer.status() == 200)
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn pids(&self) -> Vec<u32> {
        let family = family_of(&self.state().join("state"));
        family.into_iter().map(|(pid, _)| pid).collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            kill(Pid::from_raw(pid as i32), signal).unwrap();
        }
    }

    /// How often it has reloaded.
    fn reloads(&self) -> usize {
        let history = fs::read_to_string(self.state().join("state/history.jsonl"));
        history
            .unwrap_or_default()
            .matches("\"kind\":\"reload\"")
            .count()
    }

    fn reloads_when_asked(&self) {
        let before = self.reloads();
        self.signal(Signal::SIGHUP);
        wait::within(wait::DEADLINE, || (self.reloads() > before).then_some(()))
            .unwrap_or_else(|| panic!("no reload: {}", self.screen()));
        assert!(self.serves());
    }

    fn close(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }

    fn ends(&self) {
        wait::within(wait::DEADLINE, || self.pids().is_empty().then_some(()))
            .unwrap_or_else(|| panic!("it goes on: {}", self.screen()));
        let history = fs::read_to_string(self.state().join("state/history.jsonl")).unwrap();
        assert!(history.contains("\"reason\":\"SIGHUP\""), "{history}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut left = descendants(self.process.id());
        left.extend(family_of(&self.state().join("state")));
        let _ = self.process.kill();
        let _ = self.process.wait();
        for (pid, start) in left {
            if gateway::internals::start_time(pid) == Some(start) {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn a_gateway_at_a_terminal_ends_when_the_terminal_is_closed_and_reloads_before() {
    if !servers::have("python3") {
        return;
    }
    // The shell becomes it; it is a child of a shell; it is the job of a shell with job control.
    for (shell, line) in [
        (["sh", "-c"], "exec $GATEWAY"),
        (["sh", "-c"], "$GATEWAY; true"),
        (["bash", "-ic"], "$GATEWAY; true"),
    ] {
        let mut terminal = Terminal::run(&shell, line);
        terminal.reloads_when_asked();
        terminal.close();
        terminal.ends();
    }
}

#[test]
fn a_job_in_the_background_ends_with_the_shell_that_hangs_it_up() {
    if !servers::have("python3") {
        return;
    }
    let mut terminal = Terminal::run(&["bash", "-ic"], "$GATEWAY & cat");
    terminal.close();
    terminal.ends();
}

#[test]
fn what_was_meant_to_outlive_its_terminal_does_and_reloads_afterwards() {
    if !servers::have("python3") {
        return;
    }
    for line in [
        "nohup $GATEWAY & cat",
        "setsid $GATEWAY & cat",
        "$GATEWAY & disown; cat",
    ] {
        let mut terminal = Terminal::run(&["bash", "-ic"], line);
        terminal.close();
        if line.contains("disown") {
            // A signal that comes with the end of the terminal would end it.
            wait::pause(Duration::from_secs(4));
        }
        terminal.reloads_when_asked();
        terminal.signal(Signal::SIGTERM);
        wait::until("it ends", || terminal.pids().is_empty().then_some(()));
    }
}
