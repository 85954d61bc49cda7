//! The side of the predecessor, in the process that takes over: say what is ready, begin when asked
//! to, and know which processes came before.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::borrowed_upstreams::Lending;
use super::failpoint;
use super::incoming::{IncomingOffer, Predecessor};
use super::outgoing::follow_to_its_end;
use super::predecessors::{PredecessorEnd, Predecessors, Stopping, Together};
use super::spawn::Spawned;
use super::wire::{ToPredecessor, ToSuccessor};
use crate::control::protocol::{DrainStatus, LastRestart};
use crate::gateway::building::Gate;
use crate::gateway::generation::SidecarAddresses;
use crate::gateway::outbox::Outbox;
use crate::gateway::passage_wait::PassageReport;
use crate::os::process::PidFd;
use crate::state::terms::{RequestKindName, RequestOutcome};
use crate::systemd::Notifier;

/// The predecessor that this process takes over from, and those before it that still drain.
#[derive(Debug, Default)]
pub struct PredecessorSide {
    /// The way to the predecessor; none once it is gone.
    taking: Option<Taking>,
    pub predecessors: Predecessors,
    /// What the predecessor has at the sidecars of this process.
    pub lending: Lending,
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
    /// Gets a message when they have ended.
    released: Option<oneshot::Sender<()>>,
    /// For a predecessor that stops as well.
    together: Together,
    /// Whether it wants to know what comes of the passages here; not any more once it was told.
    asks_for_passages: bool,
    /// The restart that this is.
    restart: LastRestart,
    /// When the service became ours; before, when this process began.
    since: Instant,
    /// By which the service can be offered back, while the predecessor may serve again.
    way_back: Option<UnixStream>,
}

/// The way to a predecessor that may serve again.
#[derive(Debug)]
pub struct WayToPredecessor {
    pub(super) stream: UnixStream,
    pub(super) process: Spawned,
}

impl PredecessorSide {
    /// Begins to talk to the predecessor. What it says goes to `said`, none when it is gone; each
    /// process that still drains goes to `ended` when it ends.
    ///
    /// # Errors
    /// When the stream to it cannot be watched.
    pub fn begin(
        mut incoming: IncomingOffer,
        said: Outbox<Option<ToSuccessor>>,
        ended: &Outbox<PredecessorEnd>,
    ) -> io::Result<Self> {
        let predecessor = incoming.converse(said)?;
        let way_back = incoming.way_back.take();
        let offer = incoming.offer;
        let exclusive = offer.enclosed.exclusive.into_iter();
        let taking = Taking {
            predecessor,
            pid: offer.pid,
            notifier: Notifier::from_parts(offer.notify.as_deref(), offer.watchdog_usec),
            exclusive: exclusive.map(|sidecar| sidecar.name).collect(),
            running: incoming.exclusive,
            released: None,
            together: Together::default(),
            asks_for_passages: offer.asks_for_passages,
            restart: LastRestart {
                request: offer.request,
                kind: RequestKindName::Restart,
                sidecar: None,
                reason: offer.reason,
                outcome: RequestOutcome::Done.into(),
                at: offer.asked_at,
                took_ms: 0,
                cut: Vec::new(),
                ended: Vec::new(),
                clients: None,
                passages: Vec::new(),
            },
            since: Instant::now(),
            way_back,
        };
        let drainers = &offer.enclosed.drainers;
        Ok(Self {
            taking: Some(taking),
            predecessors: Predecessors::new(drainers, incoming.drainers, ended),
            lending: Lending::begin(),
        })
    }

    /// How to speak to the service manager once it listens, after a hand-over to this process.
    pub fn notifier(&self) -> Option<Notifier> {
        self.taking.as_ref().map(|taking| taking.notifier)
    }

    /// The way to the predecessor; none when it is gone.
    pub fn predecessor(&self) -> Option<Predecessor> {
        let taking = self.taking.as_ref();
        taking.map(|taking| taking.predecessor.clone())
    }

    /// Tells the predecessor, while there is one.
    pub fn tell(&self, message: ToPredecessor) {
        if let Some(taking) = &self.taking {
            taking.predecessor.send(message);
        }
    }

    /// Holds back what the predecessor is told from here on until `event`.
    pub fn hold(&self, event: impl Future<Output = ()> + Send + 'static) {
        if let Some(taking) = &self.taking {
            taking.predecessor.hold(event);
        }
    }

    /// Says that the loop turns, until the service is ours.
    pub fn alive(&self) {
        failpoint::pass("new.alive");
        self.tell(ToPredecessor::Alive);
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
                predecessor.send(ToPredecessor::Release { names });
            }
        });
        Some(Gate {
            theirs: taking.exclusive.clone(),
            ask,
            released,
        })
    }

    /// What must not run twice has ended there.
    pub fn release(&mut self) {
        let taking = self.taking.as_mut();
        if let Some(released) = taking.and_then(|taking| taking.released.take()) {
            // A build that was given up does not wait any more.
            let _ = released.send(());
        }
    }

    /// It does not hand over. `main` when the service manager may know this process as the main one
    /// already. Why this process ends.
    pub fn aborted(&mut self, main: bool) -> String {
        let after = if main { " after it" } else { "" };
        info!("[gateway] the predecessor does not hand over: ending{after}");
        if !main {
            // It keeps the service, or ends with it and waits for this process: either way none is
            // to be stopped from here.
            self.predecessors = Predecessors::default();
        }
        let Some(taking) = &self.taking else {
            return "the predecessor does not hand over".to_owned();
        };
        taking.together.aborted(main);
        format!("pid {} does not hand over", taking.pid)
    }

    /// What it still has to do, and what of that is at the sidecars of this process.
    pub fn drains(&mut self, status: Vec<DrainStatus>, heard: u64, borrowed: u64) {
        self.lending.report(heard, borrowed);
        if let Some(taking) = &self.taking {
            self.predecessors.report(taking.pid, status);
        }
    }

    /// It is gone; [`forget`](Self::forget) must follow. `waits` while this process is to take over.
    pub fn lost(&mut self, waits: bool) {
        let Some(taking) = &mut self.taking else {
            return;
        };
        if waits {
            warn!(
                "[gateway] pid {} died while it handed over: taking the service",
                taking.pid
            );
        }
        self.lending.over();
        // What must not run twice dies with its gateway, which takes a while.
        let running = std::mem::take(&mut taking.running);
        if let Some(released) = taking.released.take() {
            tokio::spawn(async move {
                join_all(running.iter().map(follow_to_its_end)).await;
                // A build that was given up does not wait any more.
                let _ = released.send(());
            });
        }
    }

    /// Nothing is to be said to the predecessor any more.
    pub fn forget(&mut self) {
        self.taking = None;
    }

    /// Whether there is a way to a predecessor, to take over from or afterwards.
    pub fn is_linked(&self) -> bool {
        self.taking.is_some()
    }

    /// Whether it is to be told what comes of the passages here.
    pub fn asks_for_passages(&self) -> bool {
        let taking = self.taking.as_ref();
        taking.is_some_and(|taking| taking.asks_for_passages)
    }

    /// Tells it, if it has asked.
    pub fn tell_passages(&mut self, report: &PassageReport) {
        if let Some(taking) = self
            .taking
            .as_mut()
            .filter(|taking| taking.asks_for_passages)
        {
            taking.asks_for_passages = false;
            // A copy: requests of this process may wait for it, too.
            let report = report.clone();
            taking.predecessor.send(ToPredecessor::Passages(report));
        }
    }

    /// For how long the service has been ours.
    pub fn served_for(&self) -> Duration {
        let taking = self.taking.as_ref();
        taking.map_or(Duration::ZERO, |taking| taking.since.elapsed())
    }

    /// Whether the service may still be offered back.
    pub fn may_serve_again(&self) -> bool {
        let taking = self.taking.as_ref();
        taking.is_some_and(|taking| taking.way_back.is_some())
    }

    /// The predecessor, to offer the service back to, once. When what comes back is dropped, the
    /// predecessor knows that nobody will.
    pub fn take_way_back(&mut self) -> Option<WayToPredecessor> {
        let taking = self.taking.as_mut()?;
        let stream = taking.way_back.take()?;
        let pidfd = self.predecessors.pidfd(taking.pid)?;
        Some(WayToPredecessor {
            stream,
            process: Spawned {
                pid: taking.pid,
                pidfd,
            },
        })
    }

    /// The service is ours: how to speak to the service manager, and the restart that this was.
    pub fn take_over(&mut self) -> Option<(Notifier, LastRestart)> {
        let taking = self.taking.as_mut()?;
        taking.since = Instant::now();
        let asked: Option<Timestamp> = taking.restart.at.parse().ok();
        let took = asked.map(|at| Timestamp::now().duration_since(at).as_millis());
        let restart = LastRestart {
            took_ms: took.map_or(0, |took| u64::try_from(took).unwrap_or_default()),
            ..taking.restart.clone()
        };
        Some((taking.notifier, restart))
    }

    /// Sends the addresses of the sidecars, for the requests that the predecessor still has. What it
    /// has under way at the sidecars before is waited for.
    pub fn tell_sidecars(&self, sidecars: impl FnOnce() -> SidecarAddresses) {
        self.lending.count_sent();
        self.tell(ToPredecessor::Sidecars {
            sidecars: sidecars(),
        });
    }

    /// Those that a stop must wait for: none unless this process can be the `main` one. `serves` as in
    /// [`Stopping::hurry`].
    pub fn stop(&mut self, main: bool, serves: bool) -> Stopping {
        self.tell(ToPredecessor::Bye);
        let predecessors = std::mem::take(&mut self.predecessors);
        if !main {
            return Stopping::default();
        }
        let taking = self.taking.as_ref();
        let together = taking.map(|taking| taking.together.clone());
        predecessors.into_stopping(together.unwrap_or_default(), serves)
    }
}
