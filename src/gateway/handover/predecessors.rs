//! Processes that came before and still finish their work.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use super::wire::HandedDrainer;
use crate::control::protocol::DrainStatus;
use crate::gateway::outbox::Outbox;
use crate::os::process::{Ended, PidFd, ProcessTable};
use crate::state::owner::{Drainer, start_time};

#[derive(Debug, Default)]
pub struct Predecessors(Vec<One>);

#[derive(Debug)]
struct One {
    pid: u32,
    generation: u64,
    until: Option<Instant>,
    process: Arc<DrainingProcess>,
    /// It was asked to finish early.
    ends_early: bool,
    /// What it reported last about its work.
    reported: Vec<DrainStatus>,
}

impl One {
    fn left_ms(&self) -> Option<u64> {
        self.until
            .map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64)
    }
}

/// The end of a predecessor.
#[derive(Clone, Copy, Debug)]
pub struct PredecessorEnd {
    pub pid: u32,
    /// None where it is not known.
    pub status: Option<ExitStatus>,
}

#[derive(Debug)]
struct DrainingProcess {
    pidfd: PidFd,
    /// Ends with the work of one that stays as a waiter afterwards.
    work: Option<Arc<OwnedFd>>,
}

impl DrainingProcess {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.pidfd.as_fd())
            .chain(self.work.as_ref().map(|work| work.as_fd()))
            .collect()
    }

    /// How it ended; none where its work may have ended alone, or where the kernel does not tell.
    async fn exit_status(&self) -> Option<ExitStatus> {
        match &self.work {
            Some(_) => None,
            None => self.pidfd.exit_status().await,
        }
    }

    /// The end of its work.
    fn ended(&self) -> Ended {
        match &self.work {
            Some(work) => Ended::of_descriptor(work),
            None => self.pidfd.ended(),
        }
    }
}

impl Predecessors {
    /// Those that an offer names; the pid of each goes to `gone` when it ends, and how it ended.
    pub fn new(
        drainers: &[HandedDrainer],
        descriptors: Vec<OwnedFd>,
        gone: &Outbox<PredecessorEnd>,
    ) -> Self {
        let now = Instant::now();
        let mut descriptors = descriptors.into_iter();
        let all = drainers.iter().map_while(|drainer| {
            let pidfd = PidFd::from(descriptors.next()?);
            let work = if drainer.stays {
                Some(Arc::new(descriptors.next()?))
            } else {
                None
            };
            let process = Arc::new(DrainingProcess { pidfd, work });
            let (watched, pid, gone) = (Arc::clone(&process), drainer.pid, gone.clone());
            tokio::spawn(async move {
                watched.ended().wait().await;
                gone.send(PredecessorEnd {
                    pid,
                    status: watched.exit_status().await,
                });
            });
            Some(One {
                pid: drainer.pid,
                generation: drainer.generation,
                until: (drainer.left_ms).map(|left| now + Duration::from_millis(left)),
                process,
                ends_early: false,
                reported: Vec::new(),
            })
        });
        Self(all.collect())
    }

    /// A process descriptor of one of them; none when it is gone.
    pub fn pidfd(&self, pid: u32) -> Option<PidFd> {
        let one = self.0.iter().find(|one| one.pid == pid)?;
        let pidfd = one.process.pidfd.as_fd().try_clone_to_owned().ok()?;
        Some(PidFd::from(pidfd))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many have not been asked to finish early.
    pub fn going_on(&self) -> usize {
        self.0.iter().filter(|one| !one.ends_early).count()
    }

    pub fn ended(&mut self, pid: u32) {
        self.0.retain(|one| one.pid != pid);
    }

    /// The direct one reports about its work.
    pub fn report(&mut self, pid: u32, status: Vec<DrainStatus>) {
        if let Some(one) = self.0.iter_mut().find(|one| one.pid == pid) {
            one.reported = status;
        }
    }

    /// What each still does, as far as it is known, with the memory of its sidecars: they are its
    /// children, but for one that stays in front, whose successor is one, too.
    pub fn status_in(&self, processes: &ProcessTable) -> Vec<DrainStatus> {
        let status = |one: &One| {
            let alone = one.process.work.is_none() && one.reported.len() < 2;
            let memory = alone
                .then(|| processes.memory_of_children(one.pid))
                .flatten();
            if !one.reported.is_empty() {
                let reported = one.reported.iter().cloned();
                let with_memory = |status| DrainStatus {
                    memory_bytes: memory,
                    ..status
                };
                return reported.map(with_memory).collect();
            }
            vec![DrainStatus {
                generation: one.generation,
                pid: one.pid,
                requests: 0,
                tunnels: 0,
                leases: 0,
                memory_bytes: memory,
                left_ms: one.left_ms(),
                blockers: Vec::new(),
            }]
        };
        self.0.iter().flat_map(status).collect()
    }

    /// As the owner's record names them.
    pub fn on_record(&self) -> Vec<Drainer> {
        let now = Timestamp::now().as_millisecond() as u64;
        let named = |one: &One| Drainer {
            pid: one.pid,
            start_time: start_time(one.pid).unwrap_or_default(),
            until_ms: one.left_ms().map(|left| now + left),
        };
        self.0.iter().map(named).collect()
    }

    /// As the next offer names them, with the descriptors that belong to each.
    pub fn drainers(&self) -> Vec<(HandedDrainer, Vec<BorrowedFd<'_>>)> {
        let named = |one: &One| HandedDrainer {
            pid: one.pid,
            generation: one.generation,
            left_ms: one.left_ms(),
            stays: one.process.work.is_some(),
        };
        self.0
            .iter()
            .map(|one| (named(one), one.process.descriptors()))
            .collect()
    }

    /// Makes the oldest finish as in a stop; returns its pid.
    pub fn cut_oldest(&mut self) -> Option<u32> {
        // Each puts itself before those that it knew.
        // One that stays in front would pass the signal on to the process that serves.
        let mut from_the_oldest = self.0.iter_mut().rev();
        let oldest = from_the_oldest.find(|one| !one.ends_early && one.process.work.is_none())?;
        oldest.ends_early = true;
        // One that is gone has finished.
        let _ = oldest.process.pidfd.signal(Signal::SIGTERM);
        Some(oldest.pid)
    }

    /// Takes all of them, for a stop.
    pub fn into_stopping(self, together: Together, serves: bool) -> Stopping {
        let all = self.0.into_iter().map(|one| one.process).collect();
        let stopping = Stopping { all, together };
        stopping.hurry(serves);
        stopping
    }

    /// A second hold on all of them, for an end that waits while they finish in their own time.
    pub fn watched(&self) -> Stopping {
        let all = self.0.iter().map(|one| Arc::clone(&one.process));
        Stopping {
            all: all.collect(),
            ..Stopping::default()
        }
    }
}

/// A predecessor that stops while it hands over: who waits for whom.
#[derive(Clone, Debug, Default)]
pub struct Together {
    /// Cancelled when it waits for our work: this process must end after it.
    finish_first: CancellationToken,
    /// Cancelled when it waits for our end.
    called_off: CancellationToken,
}

impl Together {
    /// It does not hand over. `main` when the service manager may know us as the main process
    /// already.
    pub fn aborted(&self, main: bool) {
        if main {
            self.finish_first.cancel()
        } else {
            self.called_off.cancel()
        }
    }
}

/// Predecessors that an end waits for.
#[derive(Debug, Default)]
pub struct Stopping {
    all: Vec<Arc<DrainingProcess>>,
    together: Together,
}

impl Stopping {
    /// Makes them finish as in a stop. One that stays in front passes the signal on to the process that
    /// serves: where that is another one than this, `serves` is false, and it is left alone.
    pub fn hurry(&self, serves: bool) {
        let all = self.all.iter();
        for one in all.filter(|one| serves || one.work.is_none()) {
            // One that is gone has finished.
            let _ = one.pidfd.signal(Signal::SIGTERM);
        }
    }

    /// Waits as long as their work may need ours: until all have ended, or wait for our work or
    /// end.
    pub async fn worked(&self) {
        tokio::select! {
            () = self.ended() => {}
            () = self.together.finish_first.cancelled() => {}
        }
    }

    /// Waits until all have ended, or wait for our end.
    pub async fn ended(&self) {
        let all = async {
            for one in &self.all {
                one.ended().wait().await;
            }
        };
        tokio::select! {
            () = all => {}
            () = self.together.called_off.cancelled() => {}
        }
    }

    /// Ends them at once, but for a waiter: it ends after this process, or forces its own end.
    pub fn kill(&self) {
        if self.together.called_off.is_cancelled() {
            return;
        }
        for one in self.all.iter().filter(|one| one.work.is_none()) {
            // An error means that it is gone.
            let _ = one.pidfd.signal(Signal::SIGKILL);
        }
    }
}
