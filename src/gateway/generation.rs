//! A generation: one checked configuration with its sidecars and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::drain::budget::DrainTime;
use super::lifecycle::{Budget, RequestKind};
use super::slot::Slot;
use crate::config::{Config, Listen, SidecarSpec, UpstreamUrl, parse_upstream};
use crate::control::protocol::GenerationInfo;
use crate::os::port::ServerAddress;
use crate::proxy::{
    Address, Backend, Door, NamedServer, Route, Routes, RoutingTable, Sessions, Settings, Upstream,
};
use crate::sidecar::{SidecarState, presets};

/// Where the sidecars of a generation listen; none while one does not run.
pub type SidecarAddresses = BTreeMap<String, Option<ServerAddress>>;

#[derive(Debug)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// Its sidecars by name.
    pub slots: BTreeMap<String, Arc<Slot>>,
    /// Those that were started or restarted for it.
    pub renewed: BTreeSet<String>,
    routes: Routes,
}

/// How long work may go on under a budget.
pub fn drain_time_of(budget: Budget, spec: &SidecarSpec, config: &Config) -> DrainTime {
    let requests = budget.time(config.restart.drain.0);
    let tunnels = spec.tunnel_drain(config.restart.tunnel_drain);
    let sessions = spec.sticky.as_ref().map(|sticky| sticky.idle.0);
    DrainTime {
        sessions: sessions.filter(|_| requests != Some(Duration::ZERO)),
        ..DrainTime::new(requests, tunnels, &config.restart.hold)
    }
}

fn doors(slots: &BTreeMap<String, Arc<Slot>>) -> BTreeMap<String, Arc<Backend>> {
    slots
        .iter()
        .map(|(name, slot)| (name.clone(), Arc::clone(slot.backend())))
        .collect()
}

/// The sessions that are remembered, by the names of their sidecars.
fn sessions(slots: &BTreeMap<String, Arc<Slot>>) -> BTreeMap<String, Arc<Sessions>> {
    let sessions = |(name, slot): (&String, &Arc<Slot>)| {
        let sessions = slot.sessions()?;
        Some((name.clone(), Arc::clone(sessions)))
    };
    slots.iter().filter_map(sessions).collect()
}

fn routes(
    config: &Config,
    doors: &BTreeMap<String, Arc<Backend>>,
    sessions: &BTreeMap<String, Arc<Sessions>>,
    workers: usize,
    previous: Option<&Generation>,
) -> Routes {
    // Kept, so that the connections and tunnels to it are known to every later generation.
    let kept = |url: &str| {
        let mut backends = previous?.routes.backends();
        backends
            .find(|backend| backend.tickets.backend == url)
            .cloned()
    };
    let opened = |url: &str| {
        // The check refused everything else.
        let address = match parse_upstream(url).ok()? {
            UpstreamUrl::Tcp { host, port } => Address::Name(NamedServer::new(host, port)),
            UpstreamUrl::Unix(path) => Address::Unix(path),
        };
        let upstream = Upstream::new(address, workers, CancellationToken::new());
        Some(Backend::new(url, Door::Open(upstream)))
    };
    let configured = config.route.iter().filter_map(|rule| {
        // No sidecar's name is a URL.
        let door = doors.get(&rule.to).cloned();
        Some(Route {
            host: rule.host.clone(),
            path: rule.path.clone(),
            backend: door
                .or_else(|| kept(&rule.to))
                .or_else(|| opened(&rule.to))?,
            sessions: sessions.get(&rule.to).cloned(),
        })
    });
    let mut routes: Vec<Route> = configured.collect();
    let remainder = config.remainder();
    if let Some((name, door)) = remainder.and_then(|name| Some((name, doors.get(name)?))) {
        routes.push(Route {
            host: None,
            path: "/".to_owned(),
            backend: Arc::clone(door),
            sessions: sessions.get(name).cloned(),
        });
    }
    Routes::new(routes, previous.map(|previous| &previous.routes))
}

impl Generation {
    /// `previous` is the one whose connections to plain upstreams it keeps.
    pub fn new(
        number: u64,
        config: Arc<Config>,
        slots: BTreeMap<String, Arc<Slot>>,
        workers: usize,
        previous: Option<&Self>,
    ) -> Self {
        let (doors, sessions) = (doors(&slots), sessions(&slots));
        let routes = routes(&config, &doors, &sessions, workers, previous);
        Self {
            number,
            config,
            slots,
            renewed: BTreeSet::new(),
            routes,
        }
    }

    /// A host with which a request for `path` gets to this backend of it; `any` where every host will
    /// do.
    pub fn host_to(&self, backend: &Arc<Backend>, path: &str, any: &str) -> Option<String> {
        self.routes.host_to(backend, path, any)
    }

    /// What the front door needs to know of it.
    pub fn table(&self) -> RoutingTable {
        for slot in self.slots.values() {
            slot.backend().belongs_to(self.number);
        }
        self.table_of(self.number, self.routes.clone())
    }

    fn table_of(&self, generation: u64, routes: Routes) -> RoutingTable {
        RoutingTable {
            generation,
            routes,
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
        all.extend(doors.clone());
        // Copies of this process make no sessions any more.
        let sessions = BTreeMap::new();
        let routes = routes(&self.config, &all, &sessions, workers, Some(self));
        self.table_of(number, routes)
    }

    /// Where its sidecars listen; none while one is away.
    pub fn addresses(&self) -> SidecarAddresses {
        let address = |(name, slot): (&String, &Arc<Slot>)| (name.clone(), slot.address());
        self.slots.iter().map(address).collect()
    }

    /// Its sidecars that must not run twice, each with its process; 0 while none runs.
    pub fn exclusive(&self) -> Vec<(String, u32)> {
        let alone = self.slots.values().filter(|slot| !slot.spec().overlaps());
        alone.map(named_pid).collect()
    }

    /// Its sidecars beside which a next generation of this configuration starts copies.
    pub fn copied_by(&self, config: &Config, kind: &RequestKind) -> Vec<&str> {
        let copied = |(name, slot): &(&String, &Arc<Slot>)| {
            let (spec, next) = (slot.spec(), config.sidecar.get(*name));
            next.is_some_and(|next| {
                !kind.keeps(name, spec == *next) && spec.overlaps() && next.overlaps()
            })
        };
        let copied = self.slots.iter().filter(copied);
        copied.map(|(name, _)| name.as_str()).collect()
    }

    /// Its sidecars that `next` does not keep.
    pub fn left_by(&self, next: &Self) -> Vec<Arc<Slot>> {
        let kept = |slot: &Arc<Slot>| {
            next.slots
                .get(slot.name())
                .is_some_and(|other| Arc::ptr_eq(slot, other))
        };
        let left = self.slots.values().filter(|slot| !kept(slot));
        left.cloned().collect()
    }

    /// Its number and the processes of its sidecars.
    pub fn info(&self) -> GenerationInfo {
        let slots = || self.slots.values();
        let is_down =
            |slot: &&Arc<Slot>| !matches!(slot.sidecar().state(), SidecarState::Ready { .. });
        let down = slots().filter(is_down).map(|slot| slot.name().to_owned());
        GenerationInfo {
            number: self.number,
            sidecars: slots().map(named_pid).collect(),
            down: down.collect(),
        }
    }

    /// Logs that it serves, `uptime` after the start of the process; tells whether all of it is ready.
    pub fn log_ready(&self, uptime: Duration) -> bool {
        let number = self.number;
        for warning in self.config.warnings() {
            warn!(GENERATION = number, "[gateway] {warning}");
        }
        // Once in the life of a gateway, whose later generations have higher numbers.
        let first = self.config.sidecar.iter().filter(|_| number == 1);
        for (name, spec) in first {
            if let Some(suggestion) = presets::suggestion(spec) {
                info!(SIDECAR = name, "[gateway] sidecar {name}: {suggestion}");
            }
        }
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
        details.extend(self.slots.values().map(|slot| {
            let (name, pid) = named_pid(slot);
            match slot.sidecar().state() {
                SidecarState::Ready { server, .. } => {
                    format!("{name} pid {pid} at {}", server.at.address)
                }
                _ => format!("{name} pid {pid}"),
            }
        }));
        // Servers print their private address as that to open.
        if !self.slots.is_empty()
            && let Some(url) = self.public_url()
        {
            details.push(format!("clients use {url}"));
        }
        let not_http = |slot: &Arc<Slot>| {
            let state = slot.sidecar().state();
            let other = matches!(state, SidecarState::Ready { other: Some(_), .. });
            other.then(|| format!("{} does not speak HTTP/1", slot.name()))
        };
        details.extend(self.slots.values().filter_map(not_http));
        details.push(format!("up {} ms", uptime.as_millis()));
        info!(
            GENERATION = number,
            "[gateway] ready ({})",
            details.join(", ")
        );
        if self.config.sidecar.is_empty() && self.config.route.is_empty() {
            info!(
                "[gateway] nothing is behind this gateway yet: gateway run -- COMMAND --port {{port}}"
            );
        }
        true
    }

    /// Where clients of this machine reach its sidecars; none where only unix sockets lead there.
    fn public_url(&self) -> Option<String> {
        let listen = self.config.gateway.listen.iter();
        let mut addresses = listen.filter_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        });
        let address = addresses.next()?;
        Some(match address.ip().is_unspecified() {
            true => format!("http://localhost:{}", address.port()),
            false => format!("http://{address}"),
        })
    }

    /// Which sidecars are not ready that have to be, and why.
    pub fn troubles(&self) -> Vec<String> {
        self.not_ready(true)
    }

    /// Which of the others are not ready, and why.
    pub fn optional_troubles(&self) -> Vec<String> {
        self.not_ready(false)
    }

    fn not_ready(&self, required: bool) -> Vec<String> {
        let trouble = |slot: &Arc<Slot>| {
            let what = match slot.sidecar().state() {
                SidecarState::Ready { .. } => return None,
                SidecarState::Starting {
                    hint: Some(hint), ..
                } => hint.text,
                SidecarState::Starting { .. } => "is starting".to_owned(),
                SidecarState::Backoff { failure } => {
                    let failing = slot.sidecar().failing();
                    failing.unwrap_or_else(|| failure.cause.clone())
                }
                SidecarState::Stopped {
                    failure: Some(failure),
                } => failure.cause.clone(),
                SidecarState::Stopping { .. } | SidecarState::Stopped { .. } => {
                    "is stopped".to_owned()
                }
            };
            Some(format!("sidecar {} {what}", slot.name()))
        };
        let slots = self.slots.values();
        let slots = slots.filter(|slot| slot.spec().required == required);
        slots.filter_map(trouble).collect()
    }

    /// Which sidecars are failing, ready at this moment or not, and why.
    pub fn failing(&self) -> Vec<String> {
        let failing = |slot: &Arc<Slot>| {
            let why = slot.sidecar().failing()?;
            Some(format!("sidecar {} {why}", slot.name()))
        };
        self.slots.values().filter_map(failing).collect()
    }
}

/// The name of a sidecar and its process; 0 while none runs.
pub fn named_pid(slot: &Arc<Slot>) -> (String, u32) {
    let pid = match slot.sidecar().state() {
        SidecarState::Starting { pid, .. }
        | SidecarState::Ready { pid, .. }
        | SidecarState::Stopping { pid } => pid,
        SidecarState::Backoff { .. } | SidecarState::Stopped { .. } => 0,
    };
    (slot.name().to_owned(), pid)
}
