//! Handing over, the old process's part: start a successor, release what must not run twice, make
//! it the main process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::control::protocol::GenerationInfo;
use crate::gateway::generation::patience_of;
use crate::gateway::handover::{
    Exclusive, HandedDrainer, News, Offer, Spawned, Successor, ToPredecessor, ToSuccessor, VERSION,
    Waiter, failpoint, orphan, prepare,
};
use crate::gateway::lifecycle::{Budget, Event, Phase};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::progress::Reporter;
use crate::gateway::run_loop::Gateway;
use crate::os::platform;
use crate::os::process::PidFd;
use crate::state::lock::Lock;
use crate::state::terms::ProgressStage;
use crate::systemd::Notifier;

/// A hand-over under way.
#[derive(Debug)]
pub struct Handing {
    pub successor: Successor,
    pub report: Reporter,
    pub budget: Budget,
    /// What the successor offers, once it is ready.
    pub offered: Option<Offered>,
    /// Names of the sidecars that were released to it.
    released: Vec<String>,
    /// Whether it was told to begin.
    begun: bool,
    /// Whether it is behind a waiter, so that our pid stays the main one.
    behind: bool,
}

/// What a successor that is ready has.
#[derive(Debug)]
pub struct Offered {
    pub info: GenerationInfo,
    pub sidecars: crate::gateway::generation::SidecarAddresses,
}

impl Gateway {
    /// Starts a successor for this generation.
    pub fn hand_over(&mut self, generation: u64, budget: Budget, request: String) {
        let report = Reporter::new(
            Some(request.clone()),
            self.happened.outbox(LoopEvent::Progress),
        );
        match self.start_successor(generation, &request) {
            Ok((successor, behind)) => {
                info!("[gateway] pid {} is starting to take over", successor.pid);
                report.tell(
                    ProgressStage::Starting,
                    format!("pid {} is starting to take over", successor.pid),
                );
                self.handing = Some(Handing {
                    successor,
                    report,
                    budget,
                    offered: None,
                    released: Vec::new(),
                    begun: false,
                    behind,
                });
            }
            Err(error) => {
                let why = format!("cannot start {}: {error}", self.program.path().display());
                // Not at once: the step that led here must end first.
                let _ = self
                    .happened
                    .send(LoopEvent::Successor(generation, News::Lost(why)));
            }
        }
        if self.announced {
            self.notifier.status(&self.stage().1);
        }
    }

    fn start_successor(&mut self, generation: u64, request: &str) -> io::Result<(Successor, bool)> {
        failpoint::pass("old.before-spawn");
        self.heard = 0;
        let own = PidFd::open(std::process::id())?;
        let listeners = self.listeners.to_hand_over();
        let older = self.predecessors.drainers();
        let left = self.loaded.config.restart.drain.0.as_millis() as u64;
        let me = HandedDrainer {
            pid: std::process::id(),
            generation: self.machine.current(),
            left_ms: Some(left),
            stays: self.becomes_waiter(),
        };
        let work = if me.stays {
            // Again for each successor: one that did not come to serve has gone with its own.
            let (work, ours) = platform::pipe()?;
            self.at_work = Some(ours);
            Some(work)
        } else {
            None
        };
        let alone = self
            .current
            .as_ref()
            .map(|current| current.exclusive())
            .unwrap_or_default();
        // Our own children, not reaped yet: no other process has their numbers.
        let alone: Vec<(String, Option<PidFd>)> = alone
            .into_iter()
            .map(|(name, pid)| (name, PidFd::open(pid).ok()))
            .collect();
        let lock = self.lock.as_ref().map(AsFd::as_fd);
        let descriptors: Vec<BorrowedFd<'_>> = lock
            .into_iter()
            .chain(listeners.iter().map(|(_, fd)| *fd))
            .chain(std::iter::once(own.as_fd()))
            .chain(work.as_ref().map(AsFd::as_fd))
            .chain(older.iter().flat_map(|(_, fds)| fds.iter().copied()))
            .chain(
                alone
                    .iter()
                    .filter_map(|(_, process)| process.as_ref().map(AsFd::as_fd)),
            )
            .collect();
        let (reason, asked_at) = self.answers.about(request);
        self.traces.perform(request);
        let offer = Offer {
            version: VERSION,
            pid: std::process::id(),
            instance: self.loaded.instance.clone(),
            state_dir: self.paths.state.clone(),
            generation,
            request: request.to_owned(),
            reason,
            asked_at,
            lock: self.lock.is_some(),
            listeners: listeners.iter().map(|(name, _)| name.clone()).collect(),
            drainers: std::iter::once(me)
                .chain(older.iter().map(|(drainer, _)| drainer.clone()))
                .collect(),
            exclusive: alone
                .iter()
                .map(|(name, process)| Exclusive {
                    name: name.clone(),
                    runs: process.is_some(),
                })
                .collect(),
            notify: self.notifier.address(),
            watchdog_usec: self.notifier.watchdog_usec(),
            trace: self.traces.hand_over(
                "spawned",
                "respawn",
                &self.supervision.verdict.supervisor.to_string(),
            ),
            verdict: self.supervision.verdict.clone(),
        };
        let (ours, theirs) = prepare(&offer, &descriptors)?;
        let (spawned, behind) = self.spawn_with(&theirs)?;
        failpoint::pass("old.spawned");
        let successor = Successor::listen(
            ours,
            spawned,
            generation,
            self.happened
                .outbox(move |news| LoopEvent::Successor(generation, news)),
        )?;
        Ok((successor, behind))
    }

    /// Whether this process stays in front of the successor that it starts.
    fn becomes_waiter(&self) -> bool {
        self.stays
            && !self
                .link
                .as_ref()
                .is_some_and(crate::gateway::handover::Link::alive)
    }

    /// By the waiter before us, by a waiter that we become, or as an orphan that the manager
    /// adopts.
    fn spawn_with(
        &mut self,
        theirs: &std::os::unix::net::UnixStream,
    ) -> io::Result<(Spawned, bool)> {
        if let Some(link) = self.link.as_ref().filter(|link| link.alive()) {
            return Ok((link.spawn(theirs)?, true));
        }
        if self.becomes_waiter() {
            let waiter = self
                .waiter
                .get_or_insert_with(|| Waiter::new(self.program.clone()));
            return Ok((waiter.spawn(theirs)?, true));
        }
        Ok((orphan(&self.program, theirs)?, false))
    }

    /// What the successor of this generation says, or that it is gone.
    pub fn successor(&mut self, generation: u64, news: News) {
        let message = match news {
            News::Said(message) => message,
            News::Lost(why) => return self.lost(generation, &why),
        };
        let Some(handing) = self
            .handing
            .as_mut()
            .filter(|handing| handing.successor.generation == generation)
        else {
            return;
        };
        match message {
            ToPredecessor::Hello { pid, .. } => handing.report.tell(
                ProgressStage::Preparing,
                format!("pid {pid} has what it needs to take over"),
            ),
            ToPredecessor::Alive => {}
            ToPredecessor::Progress { stage, text } => {
                handing.successor.know_children();
                if let Ok(stage) = stage.parse() {
                    handing.report.tell(stage, text);
                }
            }
            ToPredecessor::Release { names } => self.release(names),
            ToPredecessor::Ready { info, sidecars } => {
                handing.offered = Some(Offered { info, sidecars });
                self.step(Event::SuccessorReady(generation));
            }
            ToPredecessor::Serving => {
                failpoint::pass("old.served");
                let limit = self.yield_limit();
                self.step(Event::SuccessorServes { generation, limit });
            }
            ToPredecessor::Sidecars { sidecars } => {
                self.redirect(&sidecars);
                self.heard += 1;
                self.tell_successor();
            }
            ToPredecessor::Failed { why } => self.lost(generation, &why),
            // It ends in order: nobody is to take its place but whoever it chose.
            ToPredecessor::Bye if matches!(self.machine.phase(), Phase::Yielded { .. }) => {
                self.handing = None
            }
            ToPredecessor::Finished => {}
            ToPredecessor::Bye => self.lost(generation, "the successor was told to stop"),
        }
    }

    /// Ends what must not run twice; requests wait at its door from here on.
    fn release(&mut self, names: Vec<String>) {
        failpoint::pass("old.release");
        let (Some(handing), Some(current)) = (self.handing.as_mut(), self.current.as_ref()) else {
            return;
        };
        handing.released = names
            .iter()
            .filter(|name| current.slots.contains_key(*name))
            .cloned()
            .collect();
        let slots: Vec<_> = handing
            .released
            .iter()
            .filter_map(|name| current.slots.get(name).cloned())
            .collect();
        let (report, budget, config) = (
            handing.report.clone(),
            handing.budget,
            Arc::clone(&current.config),
        );
        let (happened, generation) = (self.happened.clone(), handing.successor.generation);
        let leases = self.leases.claim();
        tokio::spawn(async move {
            let all = slots.iter().map(|unit| {
                unit.release(patience_of(budget, &unit.spec(), &config), &leases, &report)
            });
            join_all(all).await;
            let _ = happened.send(LoopEvent::Released(generation));
        });
    }

    pub fn released(&mut self, generation: u64) {
        match self.handing.as_ref() {
            Some(handing) if handing.successor.generation == generation => {
                handing.successor.say(&ToSuccessor::Released)
            }
            // Given up meanwhile, while its sidecars still stopped.
            _ => self.resume_stopped(),
        }
    }

    /// Starts again what was stopped for a successor that did not take over, and is gone with all
    /// that it had started.
    pub fn resume_stopped(&self) {
        // A build that began meanwhile replaces them itself; another successor asks for them again.
        if self.machine.phase() != &Phase::Serving {
            return;
        }
        for unit in self
            .current
            .iter()
            .flat_map(|current| current.slots.values())
        {
            if matches!(
                unit.sidecar().state(),
                crate::sidecar::SidecarState::Stopped { .. }
            ) {
                let (unit, context) = (Arc::clone(unit), Arc::clone(&self.context));
                tokio::spawn(async move { unit.resume(&context).await });
            }
        }
    }

    /// The successor is ready: from here on it is the main process.
    pub fn commit(&mut self) {
        failpoint::pass("old.before-mainpid");
        let Some(handing) = self.handing.as_mut() else {
            return;
        };
        handing.begun = true;
        if !handing.behind {
            self.notifier.main_pid(
                handing.successor.pid,
                &format!("pid {} takes over", handing.successor.pid),
            );
            // From here on only the new main process is listened to.
            self.silenced = Some(std::mem::replace(
                &mut self.notifier,
                Notifier::from_parts(None, 0),
            ));
        }
        failpoint::pass("old.after-mainpid");
        handing.successor.say(&ToSuccessor::Go);
        failpoint::pass("old.after-go");
    }

    fn lost(&mut self, generation: u64, why: &str) {
        let known = self
            .handing
            .as_ref()
            .is_some_and(|handing| handing.successor.generation == generation);
        let never_began =
            self.handing.is_none() && matches!(self.machine.phase(), Phase::Handing { .. });
        if known || never_began {
            self.bundle("respawn-failed", why);
        }
        if matches!(self.machine.phase(), Phase::Yielded { .. }) {
            if self
                .handing
                .take_if(|handing| handing.successor.generation == generation)
                .is_none()
            {
                return;
            }
            if self.manager_ends_us() {
                warn!("[gateway] {why}; the service manager starts the next one");
                return;
            }
            match Lock::take(&self.paths.state) {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => {
                    warn!("[gateway] {why}; {error}, so it has the service now");
                    return;
                }
            }
            warn!("[gateway] {why}; taking the service back");
        }
        self.step(Event::SuccessorLost(generation, why.to_owned()));
    }

    /// The successor does not take over: everything is ours again.
    pub fn take_back(&mut self) {
        if let Some(notifier) = self.silenced.take() {
            self.notifier = notifier;
        }
        if let Some(handing) = self.handing.take() {
            let begun = handing.begun;
            let (happened, successor) = (self.happened.clone(), handing.successor);
            tokio::spawn(async move {
                // It may accept already: then not a moment longer.
                successor.end(begun).await;
                // When the loop is gone, nothing is started again.
                let _ = happened.send(LoopEvent::SuccessorEnded);
            });
            if begun {
                // It may have put its own in place of our socket and our record.
                self.goes_on();
            }
        }
        self.refresh();
    }

    /// A stop while a successor gets ready takes it along.
    pub fn abandon_successor(&mut self) {
        if let Some(handing) = self.handing.take() {
            // Once it was told to begin, it may have clients, and be the main process.
            let begun = handing.begun;
            self.ending.push(tokio::spawn(async move {
                if begun {
                    handing.successor.finish().await
                } else {
                    handing.successor.end(false).await
                }
            }));
        }
    }
}
