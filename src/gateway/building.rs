//! How a generation is built beside the one that serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::config_source::Material;
use super::context::GatewayContext;
use super::drain::holds::DrainHolds;
use super::generation::{Generation, drain_time_of};
use super::handover::failpoint;
use super::lease::Claim;
use super::lifecycle::{Budget, RequestKind};
use super::obituary::EXCLUSIVE;
use super::outbox::Outbox;
use super::progress::Reporter;
use super::slot::Slot;
use crate::config::{Config, SidecarSpec};
use crate::os::mutex::lock;
use crate::os::task::caught;
use crate::sidecar::SidecarFailure;
use crate::state::terms::ProgressStage;

/// How a generation is to be built.
#[derive(Debug)]
pub struct BuildPlan {
    pub number: u64,
    pub config: Arc<Config>,
    pub previous: Option<Arc<Generation>>,
    /// What to keep of it.
    pub kind: RequestKind,
    /// How long old work may go on where it is in the way.
    pub budget: Budget,
    /// Serve even if a sidecar does not start, and go on trying.
    pub persist: bool,
    /// What it has started so far.
    pub started: StartedSlots,
    /// What was there when it was asked for: what is replaced waits for it.
    pub holds: DrainHolds,
    /// Where another process has sidecars of which two copies must not run.
    pub gate: Option<Gate>,
    /// Another process serves until this generation does.
    pub candidate: bool,
    pub context: Arc<GatewayContext>,
    /// Reports to the client that requested the build.
    pub report: Reporter,
}

/// The way to the process that this one is to replace: it must end what must not run twice before
/// we start ours.
#[derive(Debug)]
pub struct Gate {
    /// What it has of that kind.
    pub theirs: Vec<String>,
    pub ask: oneshot::Sender<Vec<String>>,
    /// Comes when it has done so, or is gone.
    pub released: oneshot::Receiver<()>,
}

impl Gate {
    /// Asks for the end of these sidecars there, and waits for it.
    async fn pass(self, names: impl Iterator<Item = String>) {
        // A predecessor that is gone has released everything.
        let _ = self.ask.send(names.collect());
        let _ = self.released.await;
    }
}

/// What a generation needs of one of its sidecars before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartNeed {
    /// That it is ready.
    Ready,
    /// That its first start has ended, well or not: its copy in the process before may serve.
    Tried,
    Nothing,
}

/// A sidecar that a build has started.
#[derive(Debug)]
struct FreshSlot {
    slot: Arc<Slot>,
    need: StartNeed,
}

/// The sidecars that a build started: when it is given up, somebody else must see them to their
/// end.
#[derive(Clone, Debug, Default)]
pub struct StartedSlots(Arc<Mutex<Vec<Arc<Slot>>>>);

/// Why a generation could not be built. The one before serves on.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("sidecar {name} {}{}", failure.cause, last_words(failure))]
    Sidecar {
        name: String,
        failure: Arc<SidecarFailure>,
    },
    /// It ended by itself while another copy ran, and that may be why.
    #[error("sidecar {name} {}{}\n  = it ended while the copy before it still ran: {EXCLUSIVE}", failure.cause, last_words(failure))]
    Beside {
        name: String,
        failure: Arc<SidecarFailure>,
    },
    /// A fault of this program.
    #[error("{0}")]
    Panicked(String),
}

/// What a sidecar printed about its end, each line on a line of its own.
fn last_words(failure: &SidecarFailure) -> String {
    let lines = failure.last_words.iter();
    lines.map(|line| format!("\n  | {line}")).collect()
}

/// A [`BuildError`] for the log, where one message is one line: the last words stand behind bars, and
/// what may help is marked with `=`.
pub fn one_line(text: &str) -> String {
    text.replace("\n  |", " |").replace("\n  = ", "; ")
}

impl BuildPlan {
    /// Builds it: starts what is new beside what runs, waits until it is ready, then replaces what
    /// cannot overlap.
    ///
    /// # Errors
    /// [`BuildError`] of the first sidecar that failed; everything new is stopped again.
    pub async fn build(mut self) -> Result<Generation, BuildError> {
        failpoint::pass("task.build");
        let config = Arc::clone(&self.config);
        let (mut slots, mut kept) = (BTreeMap::new(), BTreeSet::new());
        let mut fresh = Vec::new();
        let mut exclusive = Vec::new();
        let mut by_own_means = Vec::new();
        let mut gated = Vec::new();
        let gate = self.gate.take();
        let is_gated = |name, spec: &SidecarSpec| {
            let theirs = gate.as_ref().map(|gate| &gate.theirs);
            theirs.is_some_and(|theirs| theirs.contains(name) || !spec.overlaps())
        };
        let order = config.start_order().into_iter();
        for (name, spec) in order.filter_map(|name| config.sidecar.get_key_value(name)) {
            match self.previous_slot(name) {
                None if is_gated(name, spec) => gated.push((name, spec)),
                Some(slot) if self.kind.sidecar().is_some_and(|one| one != name) => {
                    kept.insert(name.clone());
                    slots.insert(name.clone(), slot);
                }
                Some(slot) if self.restarts_itself(&slot, spec) => {
                    by_own_means.push(Arc::clone(&slot));
                    slots.insert(name.clone(), slot);
                }
                Some(slot) if self.kind.keeps(name, slot.spec() == *spec) => {
                    kept.insert(name.clone());
                    slots.insert(name.clone(), slot);
                }
                Some(slot) if !(spec.overlaps() && slot.spec().overlaps()) => {
                    exclusive.push((Arc::clone(&slot), spec));
                    slots.insert(name.clone(), slot);
                }
                _ => fresh.push(self.start(name, spec, &fresh)),
            }
        }
        if let Some(gate) = gate.filter(|_| !gated.is_empty()) {
            self.settle_or_stop(&fresh).await?;
            gate.pass(gated.iter().map(|(name, _)| (*name).clone()))
                .await;
            for (name, spec) in gated {
                fresh.push(self.start(name, spec, &fresh));
            }
        }
        slots.extend(
            fresh
                .iter()
                .map(|one| (one.slot.name().to_owned(), Arc::clone(&one.slot))),
        );
        let workers = self.context.workers;
        if self.previous.is_none() {
            // Clients that come before the first generation is ready wait at its doors.
            let waiting = Generation::new(0, Arc::clone(&config), slots.clone(), workers, None);
            self.context.front.publish(waiting.table());
        }
        self.settle_or_stop(&fresh).await?;
        self.restart_by_own_means(&by_own_means).await?;
        self.replace(&exclusive).await?;
        let previous = self.previous.as_deref();
        let renewed = slots.iter().filter(|(name, _)| !kept.contains(*name));
        let renewed = renewed.map(|(name, slot)| {
            slot.renewed_for(self.number);
            (name, slot)
        });
        // One that nothing waits for cannot show yet that clients reach it.
        let renewed = renewed.filter(|(_, slot)| slot.spec().required || slot.is_ready());
        let renewed = renewed.map(|(name, _)| name.clone()).collect();
        let mut generation = Generation::new(self.number, config, slots, workers, previous);
        generation.renewed = renewed;
        Ok(generation)
    }

    /// Whether this server is to restart by its own means, and stays in its slot. One that somebody
    /// forces to restart, or whose specification is another, is started anew.
    fn restarts_itself(&self, slot: &Slot, spec: &SidecarSpec) -> bool {
        self.budget != Budget::Force && slot.spec() == *spec && slot.can_restart_itself()
    }

    /// The same processes serve the next generation, as do those of the one before: if one does not
    /// restart, the others have, and nothing is to put back.
    async fn restart_by_own_means(&self, slots: &[Arc<Slot>]) -> Result<(), BuildError> {
        let restart = async |slot: &Arc<Slot>| {
            let name = slot.name().to_owned();
            let restarted = slot.restart_itself(&self.report).await;
            restarted.map_err(|failure| BuildError::Sidecar {
                name: name.clone(),
                failure,
            })?;
            let text = format!("{name} is ready again");
            self.report.tell(ProgressStage::Ready, text);
            Ok(())
        };
        try_join_all(slots.iter().map(restart)).await.map(drop)
    }

    /// Starts a sidecar when those of `fresh` are ready after which it is to start. All others serve already,
    /// here or in the process before.
    fn start(&self, name: &str, spec: &SidecarSpec, fresh: &[FreshSlot]) -> FreshSlot {
        self.report
            .tell(ProgressStage::Starting, format!("starting {name}"));
        let before = self.previous_slot(name);
        let after = fresh.iter().map(|one| &one.slot);
        let after = after.filter(|slot| spec.after.iter().any(|one| one == slot.name()));
        let after = after.map(|slot| slot.starts_before()).collect();
        let need = self.need(name, spec);
        let persist = self.persist || need != StartNeed::Ready;
        let slot = Slot::start(&self.context, name, spec, persist, after, before.as_ref());
        lock(&self.started.0).push(Arc::clone(&slot));
        FreshSlot { slot, need }
    }

    async fn settle_or_stop(&self, fresh: &[FreshSlot]) -> Result<(), BuildError> {
        let settled = try_join_all(fresh.iter().map(|one| self.settle(one))).await;
        if settled.is_err() {
            join_all(fresh.iter().map(|one| one.slot.stop(Duration::MAX))).await;
        }
        settled.map(drop)
    }

    /// What this generation needs of a sidecar that it starts. One that is not required and serves is not
    /// given up for a copy that does not start.
    fn need(&self, name: &str, spec: &SidecarSpec) -> StartNeed {
        let serves = self
            .previous_slot(name)
            .is_some_and(|before| before.is_ready());
        match spec.required || serves {
            true => StartNeed::Ready,
            false if self.candidate => StartNeed::Tried,
            false => StartNeed::Nothing,
        }
    }

    async fn settle(&self, FreshSlot { slot, need }: &FreshSlot) -> Result<(), BuildError> {
        let name = slot.name().to_owned();
        if *need == StartNeed::Nothing {
            return Ok(());
        }
        let slow = |text: &str| {
            let text = format!("{name} {text}");
            self.report.tell(ProgressStage::Starting, text);
        };
        match slot.sidecar().settled_telling(slow).await {
            Ok(address) => {
                let text = format!("{name} is ready on {address}");
                self.report.tell(ProgressStage::Ready, text);
                Ok(())
            }
            Err(_) if self.persist || *need == StartNeed::Tried => Ok(()),
            Err(failure) if failure.may_blame_another() && self.runs_beside(slot) => {
                Err(BuildError::Beside { name, failure })
            }
            Err(failure) => Err(BuildError::Sidecar { name, failure }),
        }
    }

    /// Whether the generation before has, or may have, a copy of this sidecar that serves.
    fn runs_beside(&self, slot: &Slot) -> bool {
        let previous = self.previous_slot(slot.name());
        let serves = |previous: Arc<Slot>| previous.is_ready();
        // What the predecessor has is not known here; what must not run twice has ended there.
        let there = self.candidate && slot.spec().overlaps();
        there || previous.is_some_and(serves)
    }

    async fn replace(&self, exclusive: &[(Arc<Slot>, &SidecarSpec)]) -> Result<(), BuildError> {
        let mut replaced: Vec<(&Arc<Slot>, SidecarSpec)> = Vec::new();
        for (slot, spec) in exclusive {
            let before = slot.spec();
            if let Err(failure) = self.put(spec, slot, &before, &self.holds).await {
                // Those replaced already go back to what they were, so that one generation serves,
                // not a mixture.
                for (slot, before) in replaced {
                    if slot.spec() != before {
                        let holds = DrainHolds {
                            leases: Claim::default(),
                            ..self.holds.clone()
                        };
                        drop(self.put(&before, slot, &before, &holds).await);
                    }
                }
                let name = slot.name().to_owned();
                return Err(BuildError::Sidecar { name, failure });
            }
            let text = format!("{} is ready again", slot.name());
            self.report.tell(ProgressStage::Ready, text);
            replaced.push((slot, before));
        }
        Ok(())
    }

    /// Puts a run of `spec` into the slot, where the work of `before` may go on for its time.
    async fn put(
        &self,
        spec: &SidecarSpec,
        slot: &Slot,
        before: &SidecarSpec,
        holds: &DrainHolds,
    ) -> Result<(), Arc<SidecarFailure>> {
        let time = drain_time_of(self.budget, before, &self.config);
        let (context, report) = (&self.context, &self.report);
        slot.replace(context, spec, time, holds, report).await
    }

    fn previous_slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.previous.as_ref()?.slots.get(name).cloned()
    }
}

/// How a generation is wanted, before its configuration is read.
#[derive(Debug)]
pub struct BuildOrder {
    pub number: u64,
    pub kind: RequestKind,
    pub budget: Budget,
    /// Who asked for it.
    pub request: Option<String>,
    /// As [`BuildPlan::persist`].
    pub persist: bool,
}

/// The build of one generation, from its order to its end.
#[derive(Debug, Default)]
pub struct Construction(Option<UnderWay>);

#[derive(Debug)]
enum UnderWay {
    /// The configuration is being read.
    Ordered(BuildOrder),
    Begun {
        number: u64,
        task: JoinHandle<()>,
        started: StartedSlots,
        source: Box<BuildSource>,
    },
}

/// Where a generation comes from.
#[derive(Debug)]
pub struct BuildSource {
    pub material: Material,
    /// Reports the progress to the client that requested the build.
    pub report: Reporter,
}

/// What comes of a build.
pub type BuildResult = Box<Result<Generation, BuildError>>;

impl Construction {
    /// Builds beside what serves; the result goes to `built`.
    pub fn start(&mut self, plan: BuildPlan, source: BuildSource, built: Outbox<BuildResult>) {
        let (number, started) = (plan.number, plan.started.clone());
        let begun = started.clone();
        let task = tokio::spawn(async move {
            let result = match caught(plan.build()).await {
                Ok(result) => result,
                Err(why) => {
                    let begun = lock(&begun.0).clone();
                    join_all(begun.iter().map(|slot| slot.stop(Duration::MAX))).await;
                    Err(BuildError::Panicked(why))
                }
            };
            // When the loop has ended, dropping the result stops its sidecars.
            built.send(Box::new(result));
        });
        self.0 = Some(UnderWay::Begun {
            number,
            task,
            started,
            source: Box::new(source),
        });
    }

    /// A build is wanted whose configuration is being read.
    pub fn order(&mut self, order: BuildOrder) {
        self.0 = Some(UnderWay::Ordered(order));
    }

    /// The configuration for this generation was read; none when it was abandoned.
    pub fn ordered(&mut self, number: u64) -> Option<BuildOrder> {
        match self.take(number)? {
            UnderWay::Ordered(order) => Some(order),
            UnderWay::Begun { .. } => None,
        }
    }

    /// The build of this generation has ended; none when it was abandoned.
    pub fn finish(&mut self, number: u64) -> Option<BuildSource> {
        match self.take(number)? {
            UnderWay::Begun { source, .. } => Some(*source),
            UnderWay::Ordered(_) => None,
        }
    }

    /// Gives the build of this generation up. The sidecars that it had started come back; somebody
    /// else must see them to their end. None when there was no such build.
    pub fn abandon(&mut self, number: u64) -> Option<Vec<Arc<Slot>>> {
        match self.take(number)? {
            UnderWay::Ordered(_) => Some(Vec::new()),
            UnderWay::Begun { task, started, .. } => {
                task.abort();
                Some(lock(&started.0).clone())
            }
        }
    }

    fn take(&mut self, wanted: u64) -> Option<UnderWay> {
        self.0.take_if(|under_way| match under_way {
            UnderWay::Ordered(order) => order.number == wanted,
            UnderWay::Begun { number, .. } => *number == wanted,
        })
    }
}
