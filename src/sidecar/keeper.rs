//! The keeper of one child process: a thread that starts it and reaps it.
//!
//! Both can take for ever: an exec waits for the disk of its program, and the exit status of a
//! process that a debugger follows is the debugger's first. So the thread that decides waits for
//! neither. The keeper lives as long as its child, because the kernel sends the signal of
//! PR_SET_PDEATHSIG when the thread that forked has ended.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::os::process::PidFd;

/// A keeper starts one program and waits; its depth of calls is small.
const STACK: usize = 256 * 1024;

/// How long to wait for the exit status of a process that has ended. It is there at once, unless a
/// debugger that follows the process does not take it.
const STATUS: Duration = Duration::from_secs(1);

/// A request to reap.
type Reap = oneshot::Sender<io::Result<ExitStatus>>;

/// The child of a keeper, the leader of a process group of its own. When this is dropped before
/// [`reap`](Self::reap), the group is killed.
#[derive(Debug)]
pub struct Kept {
    pid: u32,
    pidfd: PidFd,
    /// The way to the keeper; none once the pid may be another process's.
    reap: Option<mpsc::Sender<Reap>>,
    /// The writing end of its standard input, where that is held open.
    _stdin: Option<ChildStdin>,
}

/// The output of a child: the reading ends of its standard output and standard error.
#[derive(Debug)]
pub struct Pipes {
    pub out: OwnedFd,
    pub err: OwnedFd,
}

impl Kept {
    /// Runs `spawn` in a new keeper.
    ///
    /// # Errors
    /// Its error, or why there is no keeper.
    pub async fn start(
        spawn: impl FnOnce() -> Result<Child, String> + Send + 'static,
    ) -> Result<(Self, Pipes), String> {
        let (tell, started) = oneshot::channel();
        let keeper = std::thread::Builder::new().name("keeper".to_owned());
        keeper
            .stack_size(STACK)
            .spawn(move || {
                let (reap, orders) = mpsc::channel();
                match spawn() {
                    Ok(mut child) => {
                        // When nobody waits for it any more, this is dropped, which kills the child.
                        let _ = tell.send(Self::of(&mut child, reap));
                        keep(child, &orders);
                    }
                    Err(why) => drop(tell.send(Err(why))),
                }
            })
            .map_err(|error| format!("cannot be started for want of a thread: {error}"))?;
        // The keeper always answers.
        started
            .await
            .unwrap_or_else(|_| Err("was not started: its thread has ended".to_owned()))
    }

    fn of(child: &mut Child, reap: mpsc::Sender<Reap>) -> Result<(Self, Pipes), String> {
        let watched = |error| format!("cannot be watched: {error}");
        let pid = child.id();
        // The child was not reaped yet, so its pid is its own.
        let pidfd = PidFd::open(pid).map_err(|error| {
            kill(pid);
            watched(error)
        })?;
        let reap = Some(reap);
        let kept = Self {
            pid,
            pidfd,
            reap,
            _stdin: child.stdin.take(),
        };
        match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => {
                let (out, err) = (out.into(), err.into());
                Ok((kept, Pipes { out, err }))
            }
            _ => Err(watched(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// Signals the whole group, unless it was reaped.
    pub fn signal(&self, signal: Signal) {
        if self.reap.is_some() && self.pidfd.signal_group(signal).is_err() {
            // Before Linux 6.9. The leader is not reaped yet, so the number of the group cannot be
            // anybody else's.
            let _ = killpg(Pid::from_raw(self.pid as i32), signal);
        }
    }

    /// Reaps a process that has ended; none when its exit status is not to be had.
    pub async fn reap(&mut self) -> Option<ExitStatus> {
        let (order, status) = oneshot::channel();
        self.reap.take()?.send(order).ok()?;
        tokio::time::timeout(STATUS, status).await.ok()?.ok()?.ok()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A process that nobody follows any more does not go on running, nor does the rest of its
        // group.
        self.signal(Signal::SIGKILL);
    }
}

/// Reaps the child when that is asked for, or when nobody follows it any more.
fn keep(mut child: Child, orders: &mpsc::Receiver<Reap>) {
    let order = orders.recv();
    let status = child.wait();
    if let Ok(order) = order {
        // Who gave up waiting needs no answer.
        let _ = order.send(status);
    }
}

fn kill(group: u32) {
    // An error means that it is gone.
    let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
}
