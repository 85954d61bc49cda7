//! Gateways that an earlier life of our own unit left behind.
//!
//! systemd ends a life with the SIGKILL of whatever is left in its control group. When the kernel's
//! list of the group cannot be read at that moment, which happens while a process of it is just
//! dying ("Failed to kill control group … Input/output error"), one stays, hung or serving, and the
//! next life would stand by for it for ever. Such a process is proven by three things: our program,
//! our control group, and the number of another invocation than ours in its environment
//! (systemd.exec(5)).

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::control::client::Client;
use crate::control::protocol::{Method, Status};
use crate::os::process::{self, PidFd};

/// How often they are looked for: one that is just dying is none.
const LOOK: Duration = Duration::from_secs(1);

/// A status needs no work.
const PROBE: Duration = Duration::from_secs(1);

/// So many probes in a row without an answer tell one that hangs.
const PROBES: u32 = 3;

/// What tells processes of our life from those of earlier ones.
#[derive(Clone, Debug)]
pub struct Leftovers {
    invocation: String,
    group: String,
    program: OsString,
    control: PathBuf,
}

impl Leftovers {
    /// None unless systemd started this very process.
    pub fn of_unit(control: &Path) -> Option<Self> {
        let started: u32 = std::env::var("SYSTEMD_EXEC_PID").ok()?.parse().ok()?;
        let invocation = std::env::var("INVOCATION_ID")
            .ok()
            .filter(|id| !id.is_empty())?;
        let group = std::fs::read_to_string("/proc/self/cgroup")
            .ok()
            .filter(|group| !group.is_empty())?;
        (started == std::process::id()).then_some(Self {
            invocation,
            group,
            program: program(started)?,
            control: control.to_owned(),
        })
    }

    /// Ends those that there are, now and later; never returns.
    pub async fn end(this: Option<&Self>) {
        let Some(this) = this else {
            return pending().await;
        };
        loop {
            let found = this.find();
            if !found.is_empty() {
                this.end_all(&found).await;
            }
            sleep(LOOK).await;
        }
    }

    fn find(&self) -> HashMap<u32, PidFd> {
        // The descriptor first: what is read afterwards is about the process that it leads to.
        process::all()
            .filter(|pid| self.is_left(*pid))
            .filter_map(|pid| Some((pid, PidFd::open(pid).ok()?)))
            .filter(|(pid, _)| self.is_left(*pid))
            .collect()
    }

    fn is_left(&self, pid: u32) -> bool {
        pid != std::process::id()
            && std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|group| group == self.group)
            && program(pid).is_some_and(|program| program == self.program)
            && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                let other = |variable: &[u8]| {
                    variable
                        .strip_prefix(b"INVOCATION_ID=")
                        .is_some_and(|id| id != self.invocation.as_bytes())
                };
                environ.split(|byte| *byte == 0).any(other)
            })
    }

    async fn end_all(&self, found: &HashMap<u32, PidFd>) {
        for (pid, process) in found {
            info!(
                "[gateway] pid {pid} is left over from an earlier life of this service, which the service manager has ended: stopping it"
            );
            // Gone is as good.
            let _ = process.signal(Signal::SIGTERM);
        }
        join_all(found.iter().map(|(pid, process)| async move {
            let Ok(ended) = process.ended() else { return };
            tokio::select! {
                () = ended.wait() => {}
                () = self.silent(*pid) => {
                    warn!("[gateway] pid {pid}, left over from an earlier life of this service, does not answer: killing it");
                    // As above.
                    let _ = process.signal(Signal::SIGKILL);
                    ended.wait().await;
                }
            }
        }))
        .await;
    }

    /// Returns when one that was told to stop does not answer. One that does ends by itself: it
    /// knows its own limit.
    async fn silent(&self, pid: u32) {
        let mut silent = 0;
        while silent < PROBES {
            let next = Instant::now() + PROBE;
            silent = if timeout(PROBE, self.answers(pid)).await.unwrap_or_default() {
                0
            } else {
                silent + 1
            };
            sleep_until(next).await;
        }
    }

    /// Whether a gateway answers that is `pid`, or knows that it finishes its work.
    async fn answers(&self, pid: u32) -> bool {
        let Ok(mut client) = Client::connect(&self.control).await else {
            return false;
        };
        let status = client.call::<Status>(&Method::Status, |_| ()).await;
        status.is_ok_and(|status| {
            status.pid == pid || status.drainers.iter().any(|drainer| drainer.pid == pid)
        })
    }
}

/// The file name of a process's program.
fn program(pid: u32) -> Option<OsString> {
    Some(process::program(pid)?.file_name()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(invocation: &str) -> Child {
        Command::new("sleep")
            .arg("60")
            .env("INVOCATION_ID", invocation)
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn only_other_invocations_of_our_program_in_our_group_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (mut left, mut ours) = (sleeper("before"), sleeper("now"));
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let this = Leftovers {
            invocation: "now".into(),
            program: program(left.id()).unwrap(),
            control: dir.path().join("control.sock"),
            group,
        };
        let elsewhere = Leftovers {
            group: "0::/elsewhere\n".into(),
            ..this.clone()
        };
        // Between fork and exec it still is another program.
        let found = loop {
            let found = this.find();
            if found.contains_key(&left.id()) {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert!(!found.contains_key(&ours.id()) && !elsewhere.find().contains_key(&left.id()));
        let only: HashMap<u32, PidFd> = found
            .into_iter()
            .filter(|(pid, _)| *pid == left.id())
            .collect();
        this.end_all(&only).await;
        assert!(left.wait().unwrap().code().is_none(), "by a signal");
        assert!(ours.try_wait().unwrap().is_none());
        ours.kill().unwrap();
        ours.wait().unwrap();
    }
}
