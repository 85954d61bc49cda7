//! A generation: one checked configuration with its sidecars and routes. How the next one is built
//! beside the old.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::context::GatewayContext;
use super::drain::budget::DrainTime;
use super::lease::Claim;
use super::lifecycle::{Budget, RequestKind};
use super::progress::Reporter;
use super::slot::Slot;
use crate::config::{Config, MAIN_SIDECAR, SidecarSpec, parse_upstream};
use crate::control::protocol::GenerationInfo;
use crate::os::mutex::lock;
use crate::proxy::{Address, Backend, Route, Routes, RoutingTable, Settings, Upstream};
use crate::sidecar::{SidecarFailure, SidecarState};
use crate::state::terms::ProgressStage;

/// Where the sidecars of a generation listen; none while one does not run.
pub type SidecarAddresses = BTreeMap<String, Option<SocketAddr>>;

#[derive(Debug)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// Its sidecars by name.
    pub slots: BTreeMap<String, Arc<Slot>>,
    routes: Routes,
}

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
    /// The leases that were there when it was asked for: what is replaced waits for them.
    pub leases: Claim,
    /// Where another process has sidecars of which two copies must not run.
    pub gate: Option<Gate>,
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

/// The sidecars that a build started: when it is given up, somebody else must see them to their
/// end.
#[derive(Clone, Debug, Default)]
pub struct StartedSlots(Arc<Mutex<Vec<Arc<Slot>>>>);

impl StartedSlots {
    fn add(&self, slot: &Arc<Slot>) {
        lock(&self.0).push(Arc::clone(slot));
    }

    pub fn slots(&self) -> Vec<Arc<Slot>> {
        lock(&self.0).clone()
    }
}

/// Why a generation could not be built. The one before serves on.
#[derive(Debug, thiserror::Error)]
#[error("sidecar {name} {}{}", failure.cause, words(failure))]
pub struct BuildError {
    name: String,
    failure: Arc<SidecarFailure>,
}

/// A text with last words, for the log, where one message is one line.
pub fn one_line(text: &str) -> String {
    text.replace("\n  |", " |")
}

/// The last words of a sidecar, each on a line.
fn words(failure: &SidecarFailure) -> String {
    failure
        .last_words
        .iter()
        .fold(String::new(), |text, line| text + "\n  | " + line)
}

impl BuildPlan {
    /// Builds it: starts what is new beside what runs, waits until it is ready, then replaces what
    /// cannot overlap.
    ///
    /// # Errors
    /// [`BuildError`] of the first sidecar that failed; everything new is stopped again.
    pub async fn build(
        mut self,
        context: &Arc<GatewayContext>,
        report: &Reporter,
    ) -> Result<Generation, BuildError> {
        let mut slots = BTreeMap::new();
        let mut fresh = Vec::new();
        let mut exclusive = Vec::new();
        let gate = self.gate.take();
        let mut gated = Vec::new();
        for (name, spec) in &self.config.sidecar {
            match self.previous_slot(name) {
                None if gate
                    .as_ref()
                    .is_some_and(|gate| gate.theirs.contains(name) || !spec.overlaps()) =>
                {
                    gated.push((name, spec))
                }
                Some(slot) if self.kind == RequestKind::Reload && slot.spec() == *spec => {
                    slots.insert(name.clone(), slot);
                }
                Some(slot) if !(spec.overlaps() && slot.spec().overlaps()) => {
                    exclusive.push((Arc::clone(&slot), spec));
                    slots.insert(name.clone(), slot);
                }
                _ => {
                    let slot = self.start(context, name, spec, report);
                    fresh.push(Arc::clone(&slot));
                    slots.insert(name.clone(), slot);
                }
            }
        }
        if let Some(gate) = gate.filter(|_| !gated.is_empty()) {
            self.settle_or_stop(&fresh, report).await?;
            gate.pass(gated.iter().map(|(name, _)| (*name).clone()))
                .await;
            for (name, spec) in gated {
                let slot = self.start(context, name, spec, report);
                fresh.push(Arc::clone(&slot));
                slots.insert(name.clone(), slot);
            }
        }
        if self.previous.is_none() {
            self.let_clients_wait(context, &slots);
        }
        self.settle_or_stop(&fresh, report).await?;
        self.replace(context, &exclusive, report).await?;
        let routes = routes(
            &self.config,
            &doors(&slots),
            context.workers,
            self.previous.as_deref(),
        );
        Ok(Generation {
            number: self.number,
            config: self.config,
            slots,
            routes,
        })
    }

    /// Clients that come before the first generation is ready wait at its doors.
    fn let_clients_wait(&self, context: &GatewayContext, slots: &BTreeMap<String, Arc<Slot>>) {
        context.front.publish(RoutingTable {
            generation: 0,
            routes: routes(&self.config, &doors(slots), context.workers, None),
            settings: Settings::new(&self.config),
        });
    }

    fn start(
        &self,
        context: &Arc<GatewayContext>,
        name: &str,
        spec: &SidecarSpec,
        report: &Reporter,
    ) -> Arc<Slot> {
        report.tell(ProgressStage::Starting, format!("starting {name}"));
        let slot = Slot::start(context, name, spec, self.persist);
        self.started.add(&slot);
        slot
    }

    async fn settle_or_stop(
        &self,
        fresh: &[Arc<Slot>],
        report: &Reporter,
    ) -> Result<(), BuildError> {
        let settled = self.settle(fresh, report).await;
        if settled.is_err() {
            join_all(fresh.iter().map(|slot| slot.stop(Duration::MAX))).await;
        }
        settled
    }

    async fn settle(&self, fresh: &[Arc<Slot>], report: &Reporter) -> Result<(), BuildError> {
        let all = fresh
            .iter()
            .map(async |slot| match slot.sidecar().settled().await {
                Ok(address) => {
                    report.tell(
                        ProgressStage::Ready,
                        format!("{} is ready on {address}", slot.name()),
                    );
                    Ok(())
                }
                Err(_) if self.persist => Ok(()),
                Err(failure) => Err(BuildError {
                    name: slot.name().to_owned(),
                    failure,
                }),
            });
        try_join_all(all).await.map(drop)
    }

    async fn replace(
        &self,
        context: &Arc<GatewayContext>,
        exclusive: &[(Arc<Slot>, &SidecarSpec)],
        report: &Reporter,
    ) -> Result<(), BuildError> {
        let mut replaced: Vec<(&Arc<Slot>, SidecarSpec)> = Vec::new();
        for (slot, spec) in exclusive {
            let before = slot.spec();
            let time = drain_time_of(self.budget, &before, &self.config);
            if let Err(failure) = slot
                .replace(context, spec, time, &self.leases, report)
                .await
            {
                // Those replaced already go back to what they were, so that one generation serves,
                // not a mixture.
                for (slot, before) in replaced
                    .into_iter()
                    .filter(|(slot, before)| slot.spec() != *before)
                {
                    let time = drain_time_of(self.budget, &before, &self.config);
                    drop(
                        slot.replace(context, &before, time, &Claim::default(), report)
                            .await,
                    );
                }
                return Err(BuildError {
                    name: slot.name().to_owned(),
                    failure,
                });
            }
            report.tell(
                ProgressStage::Ready,
                format!("{} is ready again", slot.name()),
            );
            replaced.push((slot, before));
        }
        Ok(())
    }

    fn previous_slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.previous.as_ref()?.slots.get(name).cloned()
    }
}

/// How long work may go on under a budget.
pub fn drain_time_of(budget: Budget, spec: &SidecarSpec, config: &Config) -> DrainTime {
    let requests = budget.time(config.restart.drain.0);
    DrainTime::new(requests, spec.tunnel_drain(&config.restart))
}

fn doors(slots: &BTreeMap<String, Arc<Slot>>) -> BTreeMap<String, Arc<Backend>> {
    slots
        .iter()
        .map(|(name, slot)| (name.clone(), Arc::clone(slot.backend())))
        .collect()
}

fn routes(
    config: &Config,
    doors: &BTreeMap<String, Arc<Backend>>,
    workers: usize,
    previous: Option<&Generation>,
) -> Routes {
    // No sidecar's name is a URL. Kept, so that the connections and tunnels to it are known to
    // every later generation.
    let kept = |url: &str| {
        previous.and_then(|previous| {
            previous
                .routes
                .backends()
                .find(|backend| backend.name() == url)
                .cloned()
        })
    };
    let mut routes: Vec<Route> = Vec::new();
    for rule in &config.route {
        let known = doors.get(&rule.to).cloned().or_else(|| kept(&rule.to));
        let backend = match known {
            Some(backend) => backend,
            None => match parse_upstream(&rule.to) {
                Ok((host, port)) => Backend::open(
                    rule.to.clone(),
                    Upstream::new(Address::Name(host, port), workers, CancellationToken::new()),
                ),
                // The check refused everything else.
                Err(_) => continue,
            },
        };
        routes.push(Route {
            host: rule.host.clone(),
            path: rule.path.clone(),
            backend,
        });
    }
    let lone = if doors.len() == 1 {
        doors.values().next()
    } else {
        doors.get(MAIN_SIDECAR)
    };
    if let Some(door) = lone.filter(|_| config.route.is_empty()) {
        routes.push(Route {
            host: None,
            path: "/".to_owned(),
            backend: Arc::clone(door),
        });
    }
    Routes::new(routes)
}

impl Generation {
    /// What the front door needs to know of it.
    pub fn table(&self) -> RoutingTable {
        RoutingTable {
            generation: self.number,
            routes: self.routes.clone(),
            settings: Settings::new(&self.config),
        }
    }

    /// The same with these doors in place of its own: those of a successor in another process.
    pub fn redirected(
        &self,
        doors: &BTreeMap<String, Arc<Backend>>,
        number: u64,
        workers: usize,
    ) -> RoutingTable {
        // What the successor does not have any more, is served by what is still here.
        let mut all = self::doors(&self.slots);
        all.extend(
            doors
                .iter()
                .map(|(name, door)| (name.clone(), Arc::clone(door))),
        );
        RoutingTable {
            generation: number,
            routes: routes(&self.config, &all, workers, Some(self)),
            settings: Settings::new(&self.config),
        }
    }

    /// Where its sidecars listen; none while one is away.
    pub fn addresses(&self) -> SidecarAddresses {
        let address = |slot: &Arc<Slot>| match slot.sidecar().state() {
            SidecarState::Ready { address, .. } => Some(address),
            _ => None,
        };
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), address(slot)))
            .collect()
    }

    /// Its sidecars that must not run twice, each with its process; 0 while none runs.
    pub fn exclusive(&self) -> Vec<(String, u32)> {
        let alone = self.slots.values().filter(|slot| !slot.spec().overlaps());
        alone
            .map(|slot| (slot.name().to_owned(), pid_of(slot)))
            .collect()
    }

    /// Its sidecars that `next` does not keep.
    pub fn left_by(&self, next: &Self) -> Vec<Arc<Slot>> {
        let kept = |slot: &Arc<Slot>| {
            next.slots
                .get(slot.name())
                .is_some_and(|other| Arc::ptr_eq(slot, other))
        };
        self.slots
            .values()
            .filter(|slot| !kept(slot))
            .cloned()
            .collect()
    }

    /// Its number and the processes of its sidecars.
    pub fn info(&self) -> GenerationInfo {
        GenerationInfo {
            number: self.number,
            sidecars: self
                .slots
                .iter()
                .map(|(name, slot)| (name.clone(), pid_of(slot)))
                .collect(),
        }
    }

    /// Logs that it serves, `uptime` after the start of the process; tells whether all of it is ready.
    pub fn log_ready(&self, uptime: Duration) -> bool {
        let number = self.number;
        let troubles = self.troubles();
        if !troubles.is_empty() {
            warn!(
                GENERATION = number,
                "[gateway] generation {number} serves, but is not ready: {}",
                troubles.join("; ")
            );
            return false;
        }
        let mut details = vec![format!("generation {number}")];
        let sidecars = self.info().sidecars.into_iter();
        details.extend(sidecars.map(|(name, pid)| format!("{name} pid {pid}")));
        details.push(format!("up {} ms", uptime.as_millis()));
        info!(
            GENERATION = number,
            "[gateway] ready ({})",
            details.join(", ")
        );
        true
    }

    /// Which sidecars are not ready, and why.
    pub fn troubles(&self) -> Vec<String> {
        let trouble = |slot: &Arc<Slot>| match slot.sidecar().state() {
            SidecarState::Ready { .. } => None,
            SidecarState::Starting {
                hint: Some(hint), ..
            } => Some(format!("sidecar {} {}", slot.name(), hint.text)),
            SidecarState::Starting { .. } => Some(format!("sidecar {} is starting", slot.name())),
            SidecarState::Backoff { failure }
            | SidecarState::Stopped {
                failure: Some(failure),
            } => Some(format!("sidecar {} {}", slot.name(), failure.cause)),
            SidecarState::Stopping { .. } | SidecarState::Stopped { .. } => {
                Some(format!("sidecar {} is stopped", slot.name()))
            }
        };
        self.slots.values().filter_map(trouble).collect()
    }
}

/// The process of a sidecar; 0 while none runs.
fn pid_of(slot: &Arc<Slot>) -> u32 {
    match slot.sidecar().state() {
        SidecarState::Starting { pid, .. }
        | SidecarState::Ready { pid, .. }
        | SidecarState::Stopping { pid } => pid,
        SidecarState::Backoff { .. } | SidecarState::Stopped { .. } => 0,
    }
}
