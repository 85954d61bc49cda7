//! The side of the successor, in the process that hands over: start one, release what must not run
//! twice, make it the main process, and stay in touch until the own work is done. One file because
//! the states of a hand-over and every move between them belong together.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::offer::Offering;
use super::outgoing::{News, Successor};
use super::program::Program;
use super::spawn::{Spawned, orphan};
use super::waiter::{Waiter, WaiterEvent};
use super::wire::{ToPredecessor, ToSuccessor};
use super::{failpoint, link::Link};
use crate::control::protocol::{DrainStatus, GenerationInfo};
use crate::gateway::generation::{Generation, SidecarAddresses, drain_time_of};
use crate::gateway::lease::Claim;
use crate::gateway::lifecycle::Budget;
use crate::gateway::option_future::or_never;
use crate::gateway::outbox::Outbox;
use crate::gateway::progress::Reporter;
use crate::gateway::signals::SignalRequest;
use crate::os::platform;
use crate::proxy::{Address, Backend, Door, Upstream};
use crate::state::lock::Lock;
use crate::state::terms::ProgressStage;

/// The successor of this process, and what a next one is started with.
#[derive(Debug)]
pub struct SuccessorSide {
    program: Program,
    /// The waiter that this process is behind.
    link: Option<Link>,
    /// The waiter that this process is.
    waiter: Option<Waiter>,
    /// The owner's lock on the state directory.
    lock: Option<Lock>,
    /// Whether this process stays when it hands over, because somebody follows its pid.
    stays: bool,
    /// Open as long as a process that stays still works.
    at_work: Option<OwnedFd>,
    succession: Succession,
    /// Ends of unused successors that a stop waits for.
    ending: Vec<JoinHandle<()>>,
}

/// How far a hand-over is.
#[derive(Debug)]
enum Succession {
    /// There is no successor.
    None,
    /// It gets ready, and may have been told to begin.
    Preparing(HandOver),
    /// It serves.
    Done(Handed),
}

/// A successor to talk to.
#[derive(Debug)]
struct HandOver {
    successor: Successor,
    /// Reports the progress to the client that requested the restart.
    report: Reporter,
    budget: Budget,
    /// What the successor offers, once it is ready.
    offered: Option<Offered>,
    /// Whether it was told to begin.
    begun: bool,
    /// Whether it is behind a waiter, so that our pid stays the main one.
    behind: bool,
}

/// What a successor that is ready has.
#[derive(Debug)]
struct Offered {
    info: GenerationInfo,
    sidecars: SidecarAddresses,
}

/// After the hand-over.
#[derive(Debug)]
struct Handed {
    /// None once the successor has said goodbye, or is gone.
    hand_over: Option<HandOver>,
    pid: u32,
    info: GenerationInfo,
    /// To the successor's sidecars.
    doors: BTreeMap<String, Arc<Backend>>,
    /// How often the successor said where its sidecars are.
    heard: u64,
    /// No client of this process is left.
    clients_gone: bool,
}

/// What a message of the successor leads to.
#[derive(Debug)]
pub enum SuccessorEffect {
    Nothing,
    /// End these sidecars: they must not run beside the successor's.
    Release(Vec<String>),
    /// It can serve.
    Ready,
    /// It serves.
    Serves,
    /// Its sidecars listen here now.
    Redirect(SidecarAddresses),
    /// It is gone, or gives up.
    Lost(String),
}

/// A hand-over that has just happened.
#[derive(Debug)]
pub struct HandedOver {
    pub pid: u32,
    pub report: Reporter,
    /// Where the successor's sidecars listen.
    pub sidecars: SidecarAddresses,
}

/// What is left to do when a hand-over does not happen.
#[derive(Debug)]
pub struct TakenBack {
    /// The successor was told to begin: it may have put its own in place of our control socket and
    /// record.
    pub begun: bool,
}

impl SuccessorSide {
    /// The side of a process that has no successor yet. A candidate gets its lock with the offer.
    pub fn new(program: Program, lock: Option<Lock>) -> Self {
        Self {
            program,
            link: Link::take(),
            waiter: None,
            lock,
            stays: false,
            at_work: None,
            succession: Succession::None,
            ending: Vec::new(),
        }
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Whether this process is a waiter in front of another.
    pub fn is_waiter(&self) -> bool {
        self.waiter.is_some()
    }

    /// Whether the next hand-over is one after which this process stays.
    pub fn stay(&mut self, stays: bool) {
        self.stays = stays;
    }

    /// Whether the process stays in front of the successor that it starts.
    fn becomes_waiter(&self) -> bool {
        self.stays && !self.link.as_ref().is_some_and(Link::alive)
    }

    fn hand_over(&self) -> Option<&HandOver> {
        match &self.succession {
            Succession::None => None,
            Succession::Preparing(hand_over) => Some(hand_over),
            Succession::Done(handed) => handed.hand_over.as_ref(),
        }
    }

    /// The hand-over to the successor that builds this generation.
    fn of(&mut self, generation: u64) -> Option<&mut HandOver> {
        let hand_over = match &mut self.succession {
            Succession::None => None,
            Succession::Preparing(hand_over) => Some(hand_over),
            Succession::Done(handed) => handed.hand_over.as_mut(),
        };
        hand_over.filter(|hand_over| hand_over.successor.generation == generation)
    }

    fn handed(&self) -> Option<&Handed> {
        match &self.succession {
            Succession::Done(handed) => Some(handed),
            _ => None,
        }
    }

    /// The process that serves after a hand-over, and its generation.
    pub fn serves(&self) -> Option<(u32, &GenerationInfo)> {
        self.handed().map(|handed| (handed.pid, &handed.info))
    }

    pub fn has_handed_over(&self) -> bool {
        self.handed().is_some()
    }
}

/// To the hand-over.
impl SuccessorSide {
    /// Starts a successor. What it says goes to `news`.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn start(
        &mut self,
        offering: Offering<'_>,
        budget: Budget,
        report: Reporter,
        news: Outbox<News>,
    ) -> Result<(), String> {
        let generation = offering.generation;
        let started = self.start_process(offering).and_then(|(ours, spawned)| {
            let (spawned, behind) = spawned;
            Ok((Successor::listen(ours, spawned, generation, news)?, behind))
        });
        let (successor, behind) = started
            .map_err(|error| format!("cannot start {}: {error}", self.program.path().display()))?;
        info!("[gateway] pid {} is starting to take over", successor.pid);
        report.tell(
            ProgressStage::Starting,
            format!("pid {} is starting to take over", successor.pid),
        );
        self.succession = Succession::Preparing(HandOver {
            successor,
            report,
            budget,
            offered: None,
            begun: false,
            behind,
        });
        Ok(())
    }

    fn start_process(
        &mut self,
        offering: Offering<'_>,
    ) -> io::Result<(UnixStream, (Spawned, bool))> {
        failpoint::pass("old.before-spawn");
        let stays = self.becomes_waiter();
        let work = if stays {
            // Again for each successor: one that did not come to serve has gone with its own.
            let (work, ours) = platform::pipe()?;
            self.at_work = Some(ours);
            Some(work)
        } else {
            None
        };
        let (ours, theirs) = offering.prepare(self.lock.as_ref(), work.as_ref())?;
        let spawned = self.spawn_with(&theirs)?;
        failpoint::pass("old.spawned");
        Ok((ours, spawned))
    }

    /// By the waiter before us, by a waiter that we become, or as an orphan that the manager
    /// adopts. Tells whether it is behind a waiter.
    fn spawn_with(&mut self, theirs: &UnixStream) -> io::Result<(Spawned, bool)> {
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

    /// What the successor that builds this generation says.
    pub fn hear(&mut self, generation: u64, news: News) -> SuccessorEffect {
        let message = match news {
            News::Said(message) => message,
            News::Lost(why) => return SuccessorEffect::Lost(why),
        };
        let Some(hand_over) = self.of(generation) else {
            return SuccessorEffect::Nothing;
        };
        match message {
            ToPredecessor::Hello { pid, .. } => hand_over.report.tell(
                ProgressStage::Preparing,
                format!("pid {pid} has what it needs to take over"),
            ),
            ToPredecessor::Progress { stage, text } => {
                hand_over.successor.know_children();
                // A later version may have other stages.
                if let Ok(stage) = stage.parse() {
                    hand_over.report.tell(stage, text);
                }
            }
            ToPredecessor::Release { names } => return SuccessorEffect::Release(names),
            ToPredecessor::Ready { info, sidecars } => {
                hand_over.offered = Some(Offered { info, sidecars });
                return SuccessorEffect::Ready;
            }
            ToPredecessor::Serving => return SuccessorEffect::Serves,
            ToPredecessor::Sidecars { sidecars } => return SuccessorEffect::Redirect(sidecars),
            ToPredecessor::Failed { why } => return SuccessorEffect::Lost(why),
            ToPredecessor::Bye => match &mut self.succession {
                // It ends in order: nobody but its own successor is to take its place.
                Succession::Done(handed) => handed.hand_over = None,
                _ => return SuccessorEffect::Lost("the successor was told to stop".to_owned()),
            },
            ToPredecessor::Alive | ToPredecessor::Finished => {}
        }
        SuccessorEffect::Nothing
    }

    /// Ends the sidecars among `names` that the current generation has; requests wait at their
    /// doors from here on. `released` hears when they have ended.
    pub fn release(
        &self,
        names: &[String],
        current: &Generation,
        leases: Claim,
        released: Outbox<()>,
    ) {
        failpoint::pass("old.release");
        let Some(hand_over) = self.hand_over() else {
            return;
        };
        let slots: Vec<_> = names
            .iter()
            .filter_map(|name| current.slots.get(name).cloned())
            .collect();
        let (report, budget) = (hand_over.report.clone(), hand_over.budget);
        let config = Arc::clone(&current.config);
        tokio::spawn(async move {
            let all = slots.iter().map(|slot| {
                let time = drain_time_of(budget, &slot.spec(), &config);
                slot.release(time, &leases, &report)
            });
            join_all(all).await;
            released.send(());
        });
    }

    /// Tells the successor of this generation that they have ended; false when it was given up
    /// meanwhile.
    pub fn released(&mut self, generation: u64) -> bool {
        match self.of(generation) {
            Some(hand_over) => {
                hand_over.successor.say(&ToSuccessor::Released);
                true
            }
            None => false,
        }
    }

    /// The successor is ready: `make_main` makes it the main process, unless a waiter stays that;
    /// then it is told to begin.
    pub fn commit(&mut self, make_main: impl FnOnce(u32)) {
        failpoint::pass("old.before-mainpid");
        let Succession::Preparing(hand_over) = &mut self.succession else {
            return;
        };
        hand_over.begun = true;
        if !hand_over.behind {
            make_main(hand_over.successor.pid);
        }
        failpoint::pass("old.after-mainpid");
        hand_over.successor.say(&ToSuccessor::Go);
        failpoint::pass("old.after-go");
    }

    /// Under which budget this process is to finish its work once the successor serves.
    pub fn budget(&self) -> Option<Budget> {
        self.hand_over().map(|hand_over| hand_over.budget)
    }

    /// Whether the loss of the successor of this generation is news. `handing_over` when one is
    /// expected, though none could be started.
    pub fn is_loss(&mut self, generation: u64, handing_over: bool) -> bool {
        self.of(generation).is_some() || (self.hand_over().is_none() && handing_over)
    }

    /// The successor does not take over; `ended` hears when it is gone. None when there was none.
    pub fn take_back(&mut self, ended: Outbox<()>) -> Option<TakenBack> {
        let HandOver {
            successor, begun, ..
        } = self.take()?;
        tokio::spawn(async move {
            // It may accept already: then not a moment longer.
            successor.end(begun).await;
            ended.send(());
        });
        Some(TakenBack { begun })
    }

    /// A stop while a successor gets ready takes it along.
    pub fn abandon(&mut self) {
        if let Some(HandOver {
            successor, begun, ..
        }) = self.take()
        {
            // Once it was told to begin, it may have clients, and be the main process.
            self.ending.push(tokio::spawn(async move {
                if begun {
                    successor.finish().await
                } else {
                    successor.end(false).await
                }
            }));
        }
    }

    fn take(&mut self) -> Option<HandOver> {
        match std::mem::replace(&mut self.succession, Succession::None) {
            Succession::Preparing(hand_over) => Some(hand_over),
            other => {
                self.succession = other;
                None
            }
        }
    }

    /// Ends of unused successors, for an end to wait for.
    pub fn take_ending(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.ending)
    }
}

/// After the hand-over.
impl SuccessorSide {
    /// The successor serves: what it offered is used from here on, and the lock is its alone.
    /// Should it die, one that stands by has the next turn.
    pub fn hand_over_done(&mut self) -> Option<HandedOver> {
        let mut hand_over = self.take()?;
        let Some(Offered { info, sidecars }) = hand_over.offered.take() else {
            self.succession = Succession::Preparing(hand_over);
            return None;
        };
        let (pid, report) = (hand_over.successor.pid, hand_over.report.clone());
        let door = |name: &String| {
            let held = Backend::held(name, &format!("{name} is restarting"));
            (name.clone(), held)
        };
        self.lock = None;
        self.succession = Succession::Done(Handed {
            hand_over: Some(hand_over),
            pid,
            info,
            doors: sidecars.keys().map(door).collect(),
            heard: 0,
            clients_gone: false,
        });
        Some(HandedOver {
            pid,
            report,
            sidecars,
        })
    }

    /// The doors to the successor's sidecars, by name.
    pub fn doors(&self) -> BTreeMap<String, Arc<Backend>> {
        self.handed()
            .map(|handed| handed.doors.clone())
            .unwrap_or_default()
    }

    /// Opens the doors to where the successor's sidecars are now.
    pub fn redirect(&self, sidecars: &SidecarAddresses, workers: usize) {
        for (name, door) in self.handed().iter().flat_map(|handed| &handed.doors) {
            match sidecars.get(name) {
                Some(Some(address)) => {
                    door.set(Door::Open(Upstream::new(
                        Address::Socket(*address),
                        workers,
                        door.cut_token(),
                    )));
                }
                _ => door.set(Door::Held(format!("{name} is restarting").into())),
            }
        }
    }

    /// The successor's word about its sidecars counts from now on.
    pub fn heard_addresses(&mut self) {
        if let Succession::Done(handed) = &mut self.succession {
            handed.heard += 1;
        }
    }

    /// Tells the successor what this process still does. `borrowed` is what older processes have
    /// at the same sidecars.
    pub fn tell_work(&self, drains: impl Iterator<Item = DrainStatus>, borrowed: u64) {
        let Some(handed) = self.handed() else { return };
        let Some(hand_over) = &handed.hand_over else {
            return;
        };
        let status = drains
            .map(|drain| DrainStatus {
                pid: std::process::id(),
                ..drain
            })
            .collect();
        let counts = handed.doors.values().map(|door| door.counts());
        let own: usize = counts.map(|counts| counts.requests + counts.tunnels).sum();
        hand_over.successor.say(&ToSuccessor::Draining {
            status,
            heard: handed.heard,
            borrowed: own as u64 + borrowed,
        });
    }

    /// Passes on a signal for which nobody waits who could ask the successor again.
    pub fn signal(&self, signal: Signal) {
        if let Some(hand_over) = self.hand_over() {
            hand_over.successor.signal(signal);
        }
    }

    pub fn clients_gone(&mut self) {
        if let Succession::Done(handed) = &mut self.succession {
            handed.clients_gone = true;
        }
    }

    /// Whether no client of this process is left after a hand-over.
    pub fn are_clients_gone(&self) -> bool {
        self.handed().is_some_and(|handed| handed.clients_gone)
    }

    /// The successor of this generation, which served, is lost. Tells whether this process takes
    /// the service back: not when the service manager starts the next process, nor when another has
    /// the lock by now.
    pub fn take_service(
        &mut self,
        generation: u64,
        why: &str,
        manager_restarts: bool,
        state: &Path,
    ) -> bool {
        if self.of(generation).is_none() {
            return false;
        }
        if let Succession::Done(handed) = &mut self.succession {
            handed.hand_over = None;
        }
        if manager_restarts {
            warn!("[gateway] {why}; the service manager starts the next one");
            return false;
        }
        match Lock::take(state) {
            Ok(lock) => self.lock = Some(lock),
            Err(error) => {
                warn!("[gateway] {why}; {error}, so it has the service now");
                return false;
            }
        }
        warn!("[gateway] {why}; taking the service back");
        true
    }

    /// This process serves again.
    pub fn resume(&mut self) {
        self.succession = Succession::None;
    }
}

/// In front of others, or behind another.
impl SuccessorSide {
    /// Says to the waiter before us that this process serves now.
    pub fn tell_waiter(&self) {
        if let Some(link) = &self.link {
            link.current();
        }
    }

    /// What happens behind this process, if it is a waiter.
    pub async fn next_behind(&mut self) -> Option<WaiterEvent> {
        or_never(self.waiter.as_mut().map(Waiter::next)).await
    }

    pub fn happen_behind(&mut self, event: WaiterEvent) {
        if let Some(waiter) = &mut self.waiter {
            waiter.happen(event);
        }
    }

    /// Passes a signal on to the process that serves behind this one; false when there is none.
    pub fn forward(&self, asked: SignalRequest) -> bool {
        match self.waiter.as_ref().filter(|_| self.has_handed_over()) {
            Some(waiter) => {
                waiter.forward(asked);
                true
            }
            None => false,
        }
    }

    /// The waiter that stays when this process has no work left; none when nobody is behind it.
    pub fn into_waiter(self) -> Option<Waiter> {
        self.waiter.filter(|waiter| !waiter.alone())
    }

    /// Whether somebody is behind this process.
    pub fn is_in_front(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| !waiter.alone())
    }
}
