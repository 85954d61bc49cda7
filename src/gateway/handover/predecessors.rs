//! Processes that came before and still finish their work.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::wire::Drainer;
use crate::control::protocol::DrainStatus;
use crate::gateway::Happening;
use crate::sidecar::PidFd;

/// All of them.
#[derive(Debug, Default)]
pub struct Predecessors(Vec<One>);

#[derive(Debug)]
struct One {
    pid: u32,
    generation: u64,
    until: Option<Instant>,
    pidfd: PidFd,
    /// It is the waiter before us: its work ends, but the process stays until we have ended.
    stays: bool,
    /// What it said last about its work.
    told: Vec<DrainStatus>,
}

impl Predecessors {
    /// Those that an offer names; the end of each comes as a [`Happening::PredecessorEnded`].
    pub fn new(drainers: &[Drainer], pidfds: Vec<OwnedFd>, happened: &mpsc::UnboundedSender<Happening>) -> Self {
        let now = Instant::now();
        // Every process behind a waiter is its child, and the parent of any other one never drains.
        let parent = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or_default();
        let all = drainers.iter().zip(pidfds).map(|(drainer, fd)| {
            let pidfd = PidFd::from(fd);
            if let Ok(ended) = pidfd.ended() {
                let (pid, happened) = (drainer.pid, happened.clone());
                tokio::spawn(async move {
                    ended.wait().await;
                    let _ = happened.send(Happening::PredecessorEnded(pid));
                });
            }
            let until = drainer.left_ms.map(|left| now + Duration::from_millis(left));
            One { pid: drainer.pid, generation: drainer.generation, until, pidfd, stays: drainer.pid == parent, told: Vec::new() }
        });
        Self(all.collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One has ended.
    pub fn ended(&mut self, pid: u32) {
        self.0.retain(|one| one.pid != pid);
    }

    /// It tells nothing more. Its work is done then, also when the process stays.
    pub fn silent(&mut self, pid: u32) {
        self.0.retain(|one| one.pid != pid || !one.stays);
    }

    /// What the direct one says about its work.
    pub fn told(&mut self, pid: u32, status: Vec<DrainStatus>) {
        if let Some(one) = self.0.iter_mut().find(|one| one.pid == pid) {
            one.told = status;
        }
    }

    /// What each still does, as far as it is known.
    pub fn status(&self) -> Vec<DrainStatus> {
        let status = |one: &One| {
            let left_ms = one.until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
            let unknown =
                DrainStatus { generation: one.generation, pid: one.pid, requests: 0, tunnels: 0, leases: 0, left_ms, blockers: Vec::new() };
            if one.told.is_empty() { vec![unknown] } else { one.told.clone() }
        };
        // Nobody tells of the end of a waiter's work but to its first successor; it is over when its time is.
        let over = |one: &One| one.stays && one.until.is_some_and(|until| until <= Instant::now());
        self.0.iter().filter(|one| !over(one)).flat_map(status).collect()
    }

    /// As the next offer names them.
    pub fn drainers(&self) -> Vec<(Drainer, BorrowedFd<'_>)> {
        let left = |one: &One| one.until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
        self.0.iter().map(|one| (Drainer { pid: one.pid, generation: one.generation, left_ms: left(one) }, one.pidfd.as_fd())).collect()
    }

    /// Tells the oldest to finish as in a stop; tells its pid. Not a waiter, which would pass the signal on to us.
    pub fn cut_oldest(&mut self) -> Option<u32> {
        // Each puts itself before those that it knew.
        let oldest = self.0.iter().rfind(|one| !one.stays)?;
        // One that is gone has finished.
        let _ = oldest.pidfd.signal(Signal::SIGTERM);
        Some(oldest.pid)
    }

    /// Takes all of them, for a stop.
    pub fn into_stopping(self) -> Stopping {
        for one in &self.0 {
            // One that is gone has finished.
            let _ = one.pidfd.signal(Signal::SIGTERM);
        }
        Stopping(self.0)
    }
}

/// Predecessors that were told to stop.
#[derive(Debug, Default)]
pub struct Stopping(Vec<One>);

impl Stopping {
    /// Waits until all have ended, but for a waiter: that one waits for us.
    pub async fn ended(&self) {
        for one in self.0.iter().filter(|one| !one.stays) {
            if let Ok(ended) = one.pidfd.ended() {
                ended.wait().await;
            }
        }
    }

    /// Ends them at once, but for a waiter: whoever follows its pid would take that for a crash.
    pub fn kill(&self) {
        for one in self.0.iter().filter(|one| !one.stays) {
            // Gone is as good.
            let _ = one.pidfd.signal(Signal::SIGKILL);
        }
    }
}
