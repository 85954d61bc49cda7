//! Gateways that an earlier run of this service left behind.
//!
//! systemd ends a service by killing its control group. When it cannot read the list of processes in
//! the group at that moment, which happens while one of them is dying ("Failed to kill control group
//! … Input/output error"), a process survives, hung or serving, and the next run of the service would
//! stand by for it forever. Three things prove that a process is such a leftover: our program, our
//! control group, and another invocation ID than ours in its environment (systemd.exec(5)).

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::sleep;
use tracing::{info, warn};

use super::liveness::until_silent;
use super::terminate::signal_and_wait;
use crate::os::process::{self, PidFd};

/// How often leftovers are looked for: a process that was dying at the last look may have survived.
const LOOK: Duration = Duration::from_secs(1);

/// Ends the leftovers of this service, now and later; never returns. `control` is the control socket
/// of this service. Does nothing unless systemd started this process.
pub async fn end_leftovers(control: &Path) {
    let Some(run) = ServiceRun::of_this_process(control) else {
        return pending().await;
    };
    loop {
        run.end_all(&run.leftovers()).await;
        sleep(LOOK).await;
    }
}

/// What tells the processes of this run of the service from those of earlier runs.
#[derive(Clone, Debug)]
struct ServiceRun {
    invocation: String,
    group: String,
    program: OsString,
    control: PathBuf,
}

impl ServiceRun {
    /// None unless systemd started this very process.
    fn of_this_process(control: &Path) -> Option<Self> {
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
            program: program_name(started)?,
            control: control.to_owned(),
        })
    }

    fn leftovers(&self) -> HashMap<u32, PidFd> {
        // The proof is read again after the descriptor is open: then it is about the process that
        // the descriptor leads to.
        process::all()
            .filter(|pid| self.is_leftover(*pid))
            .filter_map(|pid| Some((pid, PidFd::open(pid).ok()?)))
            .filter(|(pid, _)| self.is_leftover(*pid))
            .collect()
    }

    fn is_leftover(&self, pid: u32) -> bool {
        pid != std::process::id()
            && std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|group| group == self.group)
            && program_name(pid).is_some_and(|program| program == self.program)
            && process::environment(pid).is_some_and(|environment| {
                let mut variables = environment.iter();
                variables.any(|(name, id)| name == "INVOCATION_ID" && *id != *self.invocation)
            })
    }

    async fn end_all(&self, leftovers: &HashMap<u32, PidFd>) {
        join_all(
            leftovers
                .iter()
                .map(|(pid, process)| self.end(*pid, process)),
        )
        .await;
    }

    /// Asks a leftover to stop, and kills it only when it does not answer: a gateway that answers
    /// ends by itself, within its own limit.
    async fn end(&self, pid: u32, process: &PidFd) {
        let end = process.ended();
        info!(
            "[gateway] pid {pid} is left over from an earlier life of this service, which the service manager has ended: stopping it"
        );
        let silent = until_silent(pid, &self.control);
        if let Ok(false) = signal_and_wait(process, &end, Signal::SIGTERM, silent).await {
            warn!(
                "[gateway] pid {pid}, left over from an earlier life of this service, does not answer: killing it"
            );
            // If the kernel does not permit it, its end is waited for all the same.
            let _ = signal_and_wait(process, &end, Signal::SIGKILL, pending()).await;
        }
        end.wait().await;
    }
}

/// The file name of a process's program.
fn program_name(pid: u32) -> Option<OsString> {
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
        let this = ServiceRun {
            invocation: "now".into(),
            program: program_name(left.id()).unwrap(),
            control: dir.path().join("control.sock"),
            group,
        };
        let elsewhere = ServiceRun {
            group: "0::/elsewhere\n".into(),
            ..this.clone()
        };
        // Between fork and exec it still is another program.
        let found = loop {
            let found = this.leftovers();
            if found.contains_key(&left.id()) {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert!(!found.contains_key(&ours.id()) && !elsewhere.leftovers().contains_key(&left.id()));
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
