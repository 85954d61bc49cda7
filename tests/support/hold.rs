//! What stands still: a file that nobody can open, a dead process that nobody can reap.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Holds something until its standard input is closed.
pub struct Holder(Child);

impl Holder {
    /// Runs Python that prints a line once it holds what its argument names.
    fn start(script: &str, argument: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", script, argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    pub fn release(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who opens the file waits until its lease is given back: for 45 s at most.
pub fn lease(file: &Path) -> Holder {
    let script = "import fcntl, os, signal, sys\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        file = os.open(sys.argv[1], os.O_RDONLY)\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\nsys.stdin.read()\n";
    Holder::start(script, file.to_str().unwrap())
}

/// A debugger that follows a process and does not take its exit status.
pub fn debug(pid: u32) -> Holder {
    let script = "import ctypes, sys\n\
        PTRACE_SEIZE = 0x4206\n\
        assert ctypes.CDLL(None).ptrace(PTRACE_SEIZE, int(sys.argv[1]), 0, 0) == 0\n\
        print('held', flush=True)\nsys.stdin.read()\n";
    Holder::start(script, &pid.to_string())
}

/// Takes a process every further descriptor, so that it accepts nobody: it hangs for all who ask, and
/// is not suspended.
pub fn deafen(pid: u32) {
    limit_descriptors(pid, 0);
}

/// Gives descriptors back to a process that was deafened.
pub fn hear(pid: u32) {
    limit_descriptors(pid, 1024);
}

fn limit_descriptors(pid: u32, soft: u32) {
    let status = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={soft}:")])
        .status()
        .unwrap();
    assert!(status.success());
}
