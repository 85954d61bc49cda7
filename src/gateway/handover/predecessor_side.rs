//! The side of the predecessor, in the process that takes over: say what is ready, begin when told
//! to, and know which processes came before.

use std::io;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::borrowed_upstreams::{Lending, Lent};
use super::failpoint;
use super::incoming::{IncomingOffer, Predecessor};
use super::outgoing::follow_to_its_end;
use super::predecessors::{Predecessors, Stopping, Together};
use super::wire::{ToPredecessor, ToSuccessor};
use crate::control::protocol::{DrainStatus, LastRestart};
use crate::gateway::generation::{Gate, SidecarAddresses};
use crate::gateway::outbox::Outbox;
use crate::os::process::PidFd;
use crate::state::owner;
use crate::state::terms::{RequestKindName, RequestOutcome};
use crate::systemd::Notifier;

/// The predecessor that this process takes over from, and those before it that still drain.
#[derive(Debug, Default)]
pub struct PredecessorSide {
    /// The way to the predecessor; none once it is gone.
    taking: Option<Taking>,
    predecessors: Predecessors,
    /// What the predecessor has at the sidecars of this process.
    lending: Lending,
}

/// What this process took over, or is about to.
#[derive(Debug)]
struct Taking {
    predecessor: Predecessor,
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

/// What a message of the predecessor, or its end, leads to.
#[derive(Debug)]
pub enum PredecessorEffect {
    Nothing,
    /// The service is ours.
    Go,
    /// It does not hand over: this process ends.
    Stop,
    /// It is gone; [`PredecessorSide::gone`] must follow.
    Orphaned,
}

impl PredecessorSide {
    /// Begins to talk to the predecessor. What it says goes to `said`, none when it is gone; the pid
    /// of each process that still drains goes to `ended` when it ends.
    ///
    /// # Errors
    /// When the stream to it cannot be watched.
    pub fn begin(
        mut incoming: IncomingOffer,
        said: Outbox<Option<ToSuccessor>>,
        ended: &Outbox<u32>,
    ) -> io::Result<Self> {
        let drainers = std::mem::take(&mut incoming.drainers);
        let predecessors = Predecessors::new(&incoming.offer.drainers, drainers, ended);
        let predecessor = incoming.converse(said)?;
        Ok(Self {
            taking: Some(Taking::new(predecessor, incoming)),
            predecessors,
            lending: Lending::begin(),
        })
    }

    /// How to speak to the service manager once it listens, after a hand-over to this process.
    pub fn notifier(&self) -> Option<Notifier> {
        self.taking.as_ref().map(|taking| taking.notifier)
    }

    /// For words of its own: none when it is gone.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.taking
            .as_ref()
            .map(|taking| taking.predecessor.clone())
    }

    /// Tells the predecessor, while there is one.
    pub fn tell(&self, message: &ToPredecessor) {
        if let Some(taking) = &self.taking {
            taking.predecessor.say(message);
        }
    }

    /// Says that the loop turns, until the service is ours.
    pub fn alive(&self) {
        failpoint::pass("new.alive");
        self.tell(&ToPredecessor::Alive);
    }

    /// For the first build of a candidate: the way to what must end before ours starts.
    pub fn gate(&mut self) -> Option<Gate> {
        let taking = self.taking.as_mut()?;
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

    /// What the predecessor says; none when it is gone. `waits` while this process is to take over.
    pub fn hear(&mut self, message: Option<ToSuccessor>, waits: bool) -> PredecessorEffect {
        let Some(taking) = self.taking.as_mut() else {
            return PredecessorEffect::Nothing;
        };
        match message {
            Some(ToSuccessor::Released) => taking.release(),
            Some(ToSuccessor::Go) => {
                failpoint::pass("new.go");
                return PredecessorEffect::Go;
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
                return PredecessorEffect::Stop;
            }
            Some(ToSuccessor::Draining {
                status,
                heard,
                borrowed,
            }) => {
                self.lending.said(heard, borrowed);
                self.predecessors.told(taking.pid, status);
            }
            None => {
                if waits {
                    warn!(
                        "[gateway] pid {} died while it handed over: taking the service",
                        taking.pid
                    );
                }
                taking.release_when_dead();
                self.lending.over();
                return PredecessorEffect::Orphaned;
            }
        }
        PredecessorEffect::Nothing
    }

    /// Nothing is to be said to the predecessor any more.
    pub fn gone(&mut self) {
        self.taking = None;
    }

    /// The service is ours: how to speak to the service manager, and the restart that this was.
    pub fn take_over(&self) -> Option<(Notifier, LastRestart)> {
        let taking = self.taking.as_ref()?;
        let took = taking
            .restart
            .at
            .parse::<Timestamp>()
            .map(|at| Timestamp::now().duration_since(at).as_millis());
        let took_ms = took
            .ok()
            .and_then(|took| u64::try_from(took).ok())
            .unwrap_or_default();
        let restart = LastRestart {
            took_ms,
            ..taking.restart.clone()
        };
        Some((taking.notifier, restart))
    }

    /// Where the sidecars are now, for the requests that the predecessor still has. What it has
    /// under way at those of before is waited for.
    pub fn tell_sidecars(&mut self, sidecars: SidecarAddresses) {
        self.lending.tell();
        self.tell(&ToPredecessor::Sidecars { sidecars });
    }

    /// What the predecessor may have under way at the sidecars of before.
    pub fn lent(&self) -> Lent {
        self.lending.claim()
    }

    /// How much the predecessor has under way at our sidecars, as far as it is known.
    pub fn borrowed(&self) -> u64 {
        self.lending.borrowed()
    }
}

/// All that came before.
impl PredecessorSide {
    pub fn predecessors(&self) -> &Predecessors {
        &self.predecessors
    }

    pub fn ended(&mut self, pid: u32) {
        self.predecessors.ended(pid);
    }

    /// Tells the oldest to finish as in a stop; tells its pid.
    pub fn cut_oldest(&mut self) -> Option<u32> {
        self.predecessors.cut_oldest()
    }

    /// What each still does, as far as it is known.
    pub fn status(&self) -> Vec<DrainStatus> {
        self.predecessors.status()
    }

    /// As the owner's record names them.
    pub fn on_record(&self) -> Vec<owner::Drainer> {
        let now = Timestamp::now().as_millisecond() as u64;
        let all = self.predecessors.drainers().into_iter();
        all.map(|(drainer, _)| owner::Drainer {
            pid: drainer.pid,
            start_time: owner::start_time(drainer.pid).unwrap_or_default(),
            until_ms: drainer.left_ms.map(|left| now + left),
        })
        .collect()
    }

    /// Those that a stop must wait for. `main` when this process can be the main one: the end of
    /// another is none of the service's.
    pub fn stop(&mut self, main: bool) -> Stopping {
        self.tell(&ToPredecessor::Bye);
        let predecessors = std::mem::take(&mut self.predecessors);
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

impl Taking {
    fn new(predecessor: Predecessor, incoming: IncomingOffer) -> Self {
        let offer = incoming.offer;
        let exclusive = offer.exclusive.into_iter();
        Self {
            predecessor,
            pid: offer.pid,
            notifier: Notifier::from_parts(offer.notify.as_deref(), offer.watchdog_usec),
            exclusive: exclusive.map(|sidecar| sidecar.name).collect(),
            running: incoming.exclusive,
            released: None,
            together: Together::default(),
            restart: LastRestart {
                request: offer.request,
                kind: RequestKindName::Restart,
                reason: offer.reason,
                outcome: RequestOutcome::Done.into(),
                at: offer.asked_at,
                took_ms: 0,
            },
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
}
