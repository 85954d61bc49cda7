//! Taking over, the successor's part: say what is ready, begin when told to, and know who came
//! before.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::protocol::LastRestart;
use crate::gateway::generation::Gate;
use crate::gateway::generation::SidecarAddresses;
use crate::gateway::handover::{
    IncomingOffer, Predecessor, Predecessors, Stopping, ToPredecessor, ToSuccessor, Together,
    failpoint, follow_to_its_end, migrate,
};
use crate::gateway::lifecycle::{Event, Origin, Phase};
use crate::gateway::ownership;
use crate::gateway::run_loop::Gateway;
use crate::os::process::PidFd;
use crate::state::owner;
use crate::systemd::Notifier;

/// What this process took over, or is about to.
#[derive(Debug)]
pub struct Taking {
    pub predecessor: Predecessor,
    pid: u32,
    /// How to speak to the service manager once it listens.
    notifier: Notifier,
    /// What the predecessor has that must not run twice.
    exclusive: Vec<String>,
    /// The processes of it that ran.
    running: Vec<PidFd>,
    /// Rings when that has ended.
    released: Option<oneshot::Sender<()>>,
    /// For a predecessor that stops as well.
    together: Together,
    /// The restart that this is.
    restart: LastRestart,
}

impl Taking {
    pub fn new(predecessor: Predecessor, incoming: &mut IncomingOffer) -> Self {
        let offer = &incoming.offer;
        let exclusive = offer
            .exclusive
            .iter()
            .map(|sidecar| sidecar.name.clone())
            .collect();
        let notifier = Notifier::from_parts(offer.notify.as_deref(), offer.watchdog_usec);
        let restart = LastRestart {
            request: offer.request.clone(),
            kind: "restart".to_owned(),
            reason: offer.reason.clone(),
            outcome: "done".to_owned(),
            at: offer.asked_at.clone(),
            took_ms: 0,
        };
        Self {
            predecessor,
            pid: offer.pid,
            notifier,
            exclusive,
            running: std::mem::take(&mut incoming.exclusive),
            released: None,
            together: Together::default(),
            restart,
        }
    }

    /// What must not run twice dies with its gateway, which takes a while.
    fn release_when_dead(&mut self) {
        let (Some(released), running) = (self.released.take(), std::mem::take(&mut self.running))
        else {
            return;
        };
        tokio::spawn(async move {
            join_all(running.iter().map(follow_to_its_end)).await;
            // A build that was given up does not wait any more.
            let _ = released.send(());
        });
    }

    /// What must not run twice has ended.
    fn release(&mut self) {
        if let Some(released) = self.released.take() {
            // A build that was given up does not wait any more.
            let _ = released.send(());
        }
    }

    /// How the service manager is spoken to once it listens.
    pub fn notifier(&self) -> Notifier {
        self.notifier
    }
}

impl Gateway {
    /// For the first build of a successor: the way to what must end before ours starts.
    pub fn gate(&mut self) -> Option<Gate> {
        let taking = self.taking.as_mut().filter(|_| !self.machine.owned())?;
        let (ask, asked) = oneshot::channel();
        let (release, released) = oneshot::channel();
        taking.released = Some(release);
        let predecessor = taking.predecessor.clone();
        tokio::spawn(async move {
            if let Ok(names) = asked.await {
                predecessor.say(&ToPredecessor::Release { names });
            }
        });
        Some(Gate {
            theirs: taking.exclusive.clone(),
            ask,
            released,
        })
    }

    /// What the predecessor says; none when it is gone.
    pub fn predecessor(&mut self, message: Option<ToSuccessor>) {
        let Some(taking) = self.taking.as_mut() else {
            return;
        };
        match message {
            Some(ToSuccessor::Released) => taking.release(),
            Some(ToSuccessor::Go) => {
                failpoint::pass("new.go");
                self.step(Event::Go);
            }
            Some(ToSuccessor::Abort { main }) => {
                info!(
                    "[gateway] the predecessor does not hand over: ending{}",
                    if main { " after it" } else { "" }
                );
                taking.together.aborted(main);
                if !main {
                    // It keeps the service, or ends with it and waits for this process: either way
                    // none is to be stopped from here.
                    self.predecessors = Predecessors::default();
                }
                self.stop(false);
            }
            Some(ToSuccessor::Draining {
                status,
                heard,
                borrowed,
            }) => {
                self.lending.said(heard, borrowed);
                let pid = taking.pid;
                self.predecessors.told(pid, status);
            }
            None => {
                if !self.machine.owned()
                    && !matches!(self.machine.phase(), Phase::Ended | Phase::Stopping { .. })
                {
                    warn!(
                        "[gateway] pid {} died while it handed over: taking the service",
                        taking.pid
                    );
                }
                taking.release_when_dead();
                self.lending.over();
                self.step(Event::Orphaned);
                self.taking = None;
            }
        }
    }

    /// Tells the predecessor, while there is one.
    pub fn tell_predecessor(&self, message: &ToPredecessor) {
        if let Some(taking) = &self.taking {
            taking.predecessor.say(message);
        }
    }

    /// Says every second that the loop turns, until it serves.
    pub fn alive(&self) {
        failpoint::pass("new.alive");
        self.tell_predecessor(&ToPredecessor::Alive);
    }

    /// Whether this process waits for the word to go.
    pub fn is_candidate(&self) -> bool {
        matches!(
            self.machine.phase(),
            Phase::Starting(_, Origin::Candidate) | Phase::Prepared(_)
        )
    }

    /// The generation is ready: says so.
    pub fn announce(&self) {
        failpoint::pass("new.ready");
        if let Some(current) = &self.current {
            self.tell_predecessor(&ToPredecessor::Ready {
                info: current.info(),
                sidecars: current.addresses(),
            });
        }
    }

    /// The service is ours.
    pub fn own(&mut self) {
        if let Some(taking) = self.taking.as_mut() {
            self.notifier = taking.notifier;
            self.listeners.speak(taking.notifier);
            let took = taking
                .restart
                .at
                .parse::<Timestamp>()
                .map(|at| Timestamp::now().duration_since(at).as_millis());
            let took_ms = took
                .ok()
                .and_then(|took| u64::try_from(took).ok())
                .unwrap_or_default();
            self.answers.last = Some(LastRestart {
                took_ms,
                ..taking.restart.clone()
            });
        }
        self.standing.record.take_over();
        self.standing.started(&self.supervision.verdict.to_string());
        match self.listeners.handles() {
            Ok(sockets) => self.workers.listen(sockets),
            Err(error) => warn!("[gateway] cannot share the listeners: {error}"),
        }
        failpoint::pass("new.accepting");
        self.open_up();
        if let Some(link) = &self.link {
            link.current();
        }
        failpoint::pass("new.before-serving");
        self.tell_predecessor(&ToPredecessor::Serving);
        self.notifier.watchdog();
    }

    /// Whoever looks for the gateway finds this process from now on.
    pub fn open_up(&mut self) {
        self.record_owner();
        self.control.open();
        self.traces.phase("control");
        self.take_clients();
        info!(
            "[gateway] http server listening ({})",
            self.listeners.addresses().join(", ")
        );
    }

    /// Takes over clients of processes that finish their work, from now on.
    pub fn take_clients(&mut self) {
        self.taking_clients = CancellationToken::new();
        let place = migrate::place(&self.paths.control);
        if let Err(error) = migrate::take(
            &place,
            Arc::clone(&self.workers),
            self.taking_clients.clone(),
        ) {
            warn!("[gateway] kept connections of predecessors cannot be taken over: {error}");
        }
    }

    /// Where its sidecars are now, for the requests that the predecessor still has.
    pub fn tell_addresses(&mut self) {
        // After a hand-over, what the successor tells is passed on instead.
        let ours = !self.is_candidate() && self.succeeded_by.is_none();
        if let Some(current) = self.current.as_ref().filter(|_| ours) {
            let sidecars = current.addresses();
            self.tell_sidecars(sidecars);
        }
    }

    /// What it has under way at those of before is waited for.
    pub fn tell_sidecars(&mut self, sidecars: SidecarAddresses) {
        self.lending.tell();
        self.tell_predecessor(&ToPredecessor::Sidecars { sidecars });
    }

    /// A predecessor has ended.
    pub fn predecessor_ended(&mut self, pid: u32) {
        if self.machine.owns() {
            info!("[gateway] pid {pid} has finished its work");
        }
        self.predecessors.ended(pid);
        if self.machine.owns() {
            self.record_owner();
            self.refresh();
        }
    }

    /// Writes that the service is this process's, and who still drains.
    pub fn record_owner(&self) {
        let now = jiff::Timestamp::now().as_millisecond() as u64;
        let drainer =
            |(drainer, _): &(crate::gateway::handover::HandedDrainer, _)| owner::Drainer {
                pid: drainer.pid,
                start_time: owner::start_time(drainer.pid).unwrap_or_default(),
                until_ms: drainer.left_ms.map(|left| now + left),
            };
        let drainers: Vec<owner::Drainer> =
            self.predecessors.drainers().iter().map(drainer).collect();
        ownership::record(
            &self.loaded,
            &self.paths.state,
            &self.listeners.addresses(),
            self.machine.current(),
            &drainers,
        );
    }

    /// Those that a stop must wait for.
    pub fn stop_predecessors(&mut self) -> Stopping {
        self.tell_predecessor(&ToPredecessor::Bye);
        let predecessors = std::mem::take(&mut self.predecessors);
        // Before it is ready nobody can have made it the main process: its end is none of the
        // service's.
        let main = self.machine.owned() || self.current.is_some();
        let together = self
            .taking
            .as_ref()
            .map(|taking| taking.together.clone())
            .unwrap_or_default();
        if main {
            predecessors.into_stopping(together)
        } else {
            Stopping::default()
        }
    }
}
