//! The side of the successor, in the process that hands over: start one, release what must not run
//! twice, make it the main process, and stay in touch until the own work is done.

mod handed;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures_util::future::{OptionFuture, join_all};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::info;

use super::failpoint;
use super::offer::Offering;
use super::outgoing::{News, Successor};
use super::predecessor_side::WayToPredecessor;
use super::program::Program;
use super::spawn::{Parentage, spawn};
use super::starting::{StartedSuccessor, Starting};
use super::waiter::{Link, Waiter};
use super::wire::{OFFER, ToSuccessor};
use crate::control::protocol::GenerationInfo;
use crate::gateway::drain::holds::DrainHolds;
use crate::gateway::generation::{Generation, SidecarAddresses, drain_time_of};
use crate::gateway::lifecycle::Budget;
use crate::gateway::outbox::Outbox;
use crate::gateway::progress::Reporter;
use crate::os::platform;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::Backend;
use crate::state::lock::Lock;
use crate::state::terms::ProgressStage;

/// The successor of this process, and what a next one is started with.
#[derive(Debug)]
pub struct SuccessorSide {
    pub program: Program,
    /// The waiter that this process is behind.
    pub(super) link: Option<Arc<Link>>,
    /// The waiter that this process is.
    pub(super) waiter: Option<Waiter>,
    /// The owner's lock on the state directory.
    lock: Option<Lock>,
    /// Whether this process stays after the next hand-over, because somebody follows its pid.
    pub stays: bool,
    /// Open as long as a process that stays still works.
    at_work: Option<OwnedFd>,
    /// A successor that the waiter before us was asked for.
    asked: Option<Asked>,
    /// The successor to talk to, which gets ready or serves; none once it says that it ends, or is
    /// gone.
    hand_over: Option<HandOver>,
    /// The hand-over that has happened.
    handed: Option<Handed>,
    /// Ends of unused successors, for an end of this process to wait for.
    pub ending: TaskTracker,
}

/// What a successor is for that is being started.
#[derive(Debug)]
struct Asked {
    generation: u64,
    budget: Budget,
    /// Reports the progress to the client that requested the restart.
    report: Reporter,
    /// None when it could not even be begun.
    starting: Option<Starting>,
    next: NextProcess,
}

/// Who takes over.
#[derive(Debug)]
enum NextProcess {
    /// A fresh process, which may offer the service back by this stream.
    Fresh(Option<UnixStream>),
    /// The predecessor, which serves again.
    Predecessor,
}

/// A successor to talk to.
#[derive(Debug)]
pub struct HandOver {
    pub successor: Successor,
    /// Reports the progress to the client that requested the restart.
    pub report: Reporter,
    pub budget: Budget,
    /// What the successor serves and where its sidecars listen, once it is ready.
    pub offered: Option<(GenerationInfo, SidecarAddresses)>,
    /// How often the successor said where its sidecars are.
    heard: u64,
    /// Whether the successor was made the main process, to get the service.
    begun: bool,
    /// Whether it is behind a waiter, so that our pid stays the main one.
    behind: bool,
    next: NextProcess,
}

impl HandOver {
    /// Whether the service goes back to the predecessor.
    fn is_back(&self) -> bool {
        matches!(self.next, NextProcess::Predecessor)
    }
}

/// After the hand-over.
#[derive(Debug)]
struct Handed {
    pid: u32,
    info: GenerationInfo,
    /// To the successor's sidecars.
    doors: BTreeMap<String, Arc<Backend>>,
    /// No client of this process is left.
    clients_gone: bool,
    /// Whether the service went back to the predecessor.
    back: bool,
    /// The successor has offered the service, and is to hand it back.
    returning: bool,
    /// Hears an offer of the service by the successor.
    way_back: Option<AbortOnDropHandle<()>>,
}

/// What was begun; `started` hears why it could not be.
fn begun(starting: io::Result<Starting>, started: &Outbox<StartedSuccessor>) -> Option<Starting> {
    starting
        .map_err(|error| started.send(StartedSuccessor(Err(error))))
        .ok()
}

/// A tracker that can be waited for whenever it is empty.
fn ending_successors() -> TaskTracker {
    let ending = TaskTracker::new();
    ending.close();
    ending
}

impl SuccessorSide {
    /// The side of a process that has no successor yet. A candidate gets its lock with the offer.
    pub fn new(program: Program, lock: Option<Lock>) -> Self {
        Self {
            program,
            link: Link::take().map(Arc::new),
            waiter: None,
            lock,
            stays: false,
            at_work: None,
            asked: None,
            hand_over: None,
            handed: None,
            ending: ending_successors(),
        }
    }

    /// Whether this process is a waiter in front of another.
    pub fn is_waiter(&self) -> bool {
        self.waiter.is_some()
    }

    /// The hand-over to the successor that builds this generation.
    pub fn of(&mut self, generation: u64) -> Option<&mut HandOver> {
        let hand_over = self.hand_over.as_mut();
        hand_over.filter(|hand_over| hand_over.successor.generation == generation)
    }
}

/// To the hand-over.
impl SuccessorSide {
    /// Starts a successor: by the waiter before us, by a waiter that we become, or as an orphan that
    /// the manager adopts. `started` hears how that went.
    pub fn start(
        &mut self,
        offering: Offering<'_>,
        budget: Budget,
        report: Reporter,
        started: Outbox<StartedSuccessor>,
    ) {
        let generation = offering.offer.generation;
        let mut next = NextProcess::Fresh(None);
        let starting = self.start_process(offering, &mut next, &started);
        self.asked = Some(Asked {
            generation,
            budget,
            report,
            starting: begun(starting, &started),
            next,
        });
    }

    /// Offers the service to the predecessor. `started` hears how that went.
    pub fn start_back(
        &mut self,
        offering: Offering<'_>,
        way: io::Result<WayToPredecessor>,
        report: Reporter,
        started: Outbox<StartedSuccessor>,
    ) {
        let generation = offering.offer.generation;
        let starting = way.and_then(|WayToPredecessor { stream, process }| {
            let offered = offering.write(stream, self.lock.as_ref(), None, None)?;
            Ok(Starting::there(process, offered, started.clone()))
        });
        self.asked = Some(Asked {
            generation,
            budget: Budget::Configured,
            report,
            starting: begun(starting, &started),
            next: NextProcess::Predecessor,
        });
    }

    fn start_process(
        &mut self,
        offering: Offering<'_>,
        next: &mut NextProcess,
        started: &Outbox<StartedSuccessor>,
    ) -> io::Result<Starting> {
        failpoint::pass("old.before-spawn");
        let link = self.link.clone().filter(|link| link.alive());
        let becomes_waiter = self.stays && link.is_none();
        let mut work = None;
        if becomes_waiter {
            // Again for each successor: one that did not come to serve has gone with its own.
            let (theirs, ours) = platform::pipe()?;
            self.at_work = Some(ours);
            work = Some(theirs);
        }
        let mut way_back = None;
        if link.is_none() && !becomes_waiter {
            // Where a waiter is in front, it ends with the process that it spawned last.
            let (ours, theirs) = UnixStream::pair()?;
            *next = NextProcess::Fresh(Some(ours));
            way_back = Some(theirs);
        }
        let (offered, theirs) =
            offering.prepare(self.lock.as_ref(), work.as_ref(), way_back.as_ref())?;
        let started = started.clone();
        if let Some(link) = link {
            return Ok(Starting::by_waiter(link, offered, theirs, started));
        }
        let executing = if becomes_waiter {
            self.waiter
                .get_or_insert_with(|| Waiter::new(self.program.clone()))
                .spawn(&theirs)?
        } else {
            let inherited = [(OFFER, theirs.as_fd())];
            spawn(&self.program, &inherited, Parentage::Orphan)?
        };
        Ok(Starting::here(executing, offered, becomes_waiter, started))
    }

    /// The successor of this generation was started, or not. What it says goes to `news`. One that
    /// was given up meanwhile is called off.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn started(
        &mut self,
        generation: u64,
        started: StartedSuccessor,
        news: Outbox<News>,
    ) -> Result<(), String> {
        let asked = self.asked.take_if(|asked| asked.generation == generation);
        let Some(asked) = asked else { return Ok(()) };
        let starting = asked.starting;
        let listened = started.0.and_then(|(spawned, behind)| {
            let stream = starting.ok_or(io::ErrorKind::NotConnected)?.claim()?;
            let successor = Successor::listen(stream, spawned, generation, news)?;
            Ok((successor, behind))
        });
        let (successor, behind) = listened.map_err(|error| match asked.next {
            NextProcess::Fresh(_) => {
                format!("cannot start {}: {error}", self.program.path().display())
            }
            NextProcess::Predecessor => format!("the predecessor cannot be asked: {error}"),
        })?;
        let starting = match asked.next {
            NextProcess::Fresh(_) => format!("pid {} is starting to take over", successor.pid),
            NextProcess::Predecessor => format!("pid {} is asked to serve again", successor.pid),
        };
        info!("[gateway] {starting}");
        asked.report.tell(ProgressStage::Starting, starting);
        self.hand_over = Some(HandOver {
            successor,
            report: asked.report,
            budget: asked.budget,
            offered: None,
            heard: 0,
            begun: false,
            behind,
            next: asked.next,
        });
        Ok(())
    }

    /// The successor ends in order. Whether that is a loss: one that served has a successor of its
    /// own, or was stopped.
    pub fn ends(&mut self) -> bool {
        if self.handed.is_some() {
            self.hand_over = None;
        }
        self.handed.is_none()
    }

    /// Ends the sidecars among `names` that the current generation has; requests wait at their
    /// doors from here on. `released` hears when they have ended.
    pub fn release(
        &self,
        names: &[String],
        current: &Generation,
        holds: DrainHolds,
        released: Outbox<TaskEnd>,
    ) {
        failpoint::pass("old.release");
        let Some(hand_over) = &self.hand_over else {
            return;
        };
        let slots: Vec<_> = names
            .iter()
            .filter_map(|name| current.slots.get(name).cloned())
            .collect();
        let (report, budget) = (hand_over.report.clone(), hand_over.budget);
        let config = Arc::clone(&current.config);
        let releasing = async move {
            let all = slots.iter().map(|slot| {
                let time = drain_time_of(budget, &slot.spec(), &config);
                slot.release(time, &holds, &report)
            });
            join_all(all).await;
        };
        tokio::spawn(async move { released.send(caught(releasing).await) });
    }

    /// The successor is ready: `make_main` makes it the main process, unless a waiter stays that;
    /// `made` hears when that has happened. Then [`Self::begin`] gives it the service.
    pub fn commit<F>(&mut self, make_main: impl FnOnce(u32) -> F, made: Outbox<TaskEnd>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        failpoint::pass("old.before-mainpid");
        let Some(hand_over) = &mut self.hand_over else {
            return;
        };
        hand_over.begun = true;
        let main = (!hand_over.behind).then(|| make_main(hand_over.successor.pid));
        let making_main = async {
            OptionFuture::from(main).await;
            failpoint::pass("old.after-mainpid");
        };
        tokio::spawn(async move { made.send(caught(making_main).await) });
    }

    /// Gives the successor of this generation the service. One that a stop has met meanwhile does not
    /// get it: systemd does not honour MAINPID= in a stop, and would not listen to it.
    pub fn begin(&mut self, generation: u64) {
        if let Some(hand_over) = self.of(generation) {
            hand_over.successor.say(ToSuccessor::Go);
            let said = async { failpoint::pass("old.after-go") };
            hand_over.successor.hold(said);
        }
    }

    /// Whether the loss of the successor of this generation is news. `handing_over` when one is
    /// expected, though none could be started.
    pub fn is_loss(&mut self, generation: u64, handing_over: bool) -> bool {
        let handed = self.handed.is_some();
        match self.of(generation) {
            Some(hand_over) => !hand_over.is_back() || handed,
            None => self.hand_over.is_none() && handing_over,
        }
    }

    /// The successor does not take over; `ended` hears when it is gone. Whether it had got the
    /// service: it may have replaced our control socket and record.
    pub fn take_back(&mut self, ended: Outbox<()>) -> bool {
        let Some((successor, begun)) = self.take() else {
            return false;
        };
        self.ending.spawn(async move {
            // One that got the service may accept already: it must end at once.
            successor.end(begun).await;
            ended.send(());
        });
        begun
    }

    /// A stop while a successor gets ready takes it along.
    pub fn abandon(&mut self) {
        let Some((successor, begun)) = self.take() else {
            return;
        };
        self.ending.spawn(async move {
            // Once it has the service, it may have clients, and be the main process.
            if begun {
                successor.finish().await
            } else {
                successor.end(false).await
            }
        });
    }

    /// A successor that does not serve yet, and whether it has got the service. The predecessor that
    /// has not is called off here: it goes on with its own work.
    fn take(&mut self) -> Option<(Successor, bool)> {
        self.asked = None;
        let preparing = self.hand_over.take_if(|_| self.handed.is_none())?;
        if preparing.is_back() && !preparing.begun {
            preparing.successor.say(ToSuccessor::Abort { main: false });
            return None;
        }
        Some((preparing.successor, preparing.begun))
    }
}
