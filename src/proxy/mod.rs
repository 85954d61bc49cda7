//! The front door: listeners, connections, routes and the way of a request to its backend and back.
//!
//! A client connection belongs to the process and outlives every generation. For each request the
//! [`RoutingTable`] that is current at that moment tells the [`Backend`]; its [`Door`] lets the request
//! through, holds it, or sends it back to the table. What went through holds a [`backend::Ticket`] until it
//! is finished, and a drain waits for tickets.

mod accept;
mod admission;
mod answer;
mod backend;
mod client_io;
mod client_stream;
mod connection;
mod drain;
mod endpoints;
mod error_log;
mod forward;
mod headers;
mod hold;
mod in_flight;
mod listener;
mod progress;
mod refusal;
mod request_body;
mod response_body;
mod routes;
mod stats;
mod tasks;
mod tunnel;
mod upstream;
mod websocket;
mod worker;
mod worker_index;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use crate::config::{Config, Hold};
pub use backend::{Backend, Door, close_tunnels, first_few};
pub use client_io::Timeouts;
pub use endpoints::IDENTITY;
pub use headers::{Peer, TrustedProxies};
pub use listener::{BACKLOG, BindError, ListenSocket};
pub use refusal::Refusal;
pub use routes::{Route, Routes};
pub use stats::Stats;
pub use tunnel::CLOSE_HANDSHAKE;
pub use upstream::{Address, Upstream};
pub use worker::Workers;

/// What one generation tells the front door.
#[derive(Debug)]
pub struct RoutingTable {
    /// Its number; 0 before the first.
    pub generation: u64,
    /// Which request goes where.
    pub routes: Routes,
    /// How requests are treated.
    pub settings: Settings,
}

/// How requests are treated, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `gateway.health_paths`
    pub health_paths: bool,
    /// `gateway.via`
    pub via: bool,
    /// `gateway.trusted_proxies`
    pub trusted: TrustedProxies,
    /// `restart.hold`
    pub hold: Hold,
    /// `limits.body`, bytes
    pub body: u64,
    /// `limits.connections`
    pub connections: usize,
    /// `limits.header_size`, bytes
    pub header_size: usize,
    /// `limits.header_time` and `limits.idle`
    pub timeouts: Timeouts,
}

impl Settings {
    /// The settings of a checked configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            health_paths: config.gateway.health_paths,
            via: config.gateway.via,
            trusted: TrustedProxies::new(config),
            hold: config.restart.hold.clone(),
            body: config.limits.body,
            connections: config.limits.connections,
            header_size: config.limits.header_size,
            timeouts: Timeouts {
                head: config.limits.header_time.0,
                idle: config.limits.idle.0,
            },
        }
    }
}

/// The shared part of the front door.
#[derive(Debug)]
pub struct Front {
    pub instance: String,
    /// Tells this process from every other.
    pub identity: String,
    /// When the process began.
    pub started: Instant,
    pub stats: Arc<Stats>,
    /// What goes wrong with the servers behind it, told to the log.
    complaints: error_log::Complaints,
    table: watch::Sender<Arc<RoutingTable>>,
    /// Why `/readyz` says no; empty when ready.
    health: watch::Sender<Arc<Vec<String>>>,
    /// Why requests without an open door are not let in at all.
    refusal: watch::Sender<Option<Arc<Refusal>>>,
    /// What `/readyz` adds though it says yes.
    remark: watch::Sender<Option<Arc<str>>>,
    token: OnceLock<String>,
    closing: AtomicBool,
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo {
    pub peer: Peer,
    /// Whether it came over a unix listener, whose file permissions guard it.
    pub unix: bool,
    /// Whether it is the watchdog.
    pub internal: bool,
}

impl ClientInfo {
    /// A client of a unix listener.
    pub const UNIX: Self = Self {
        peer: Peer::Unix,
        unix: true,
        internal: false,
    };

    /// The watchdog, over a socket pair.
    pub const WATCHDOG: Self = Self {
        peer: Peer::Unix,
        unix: true,
        internal: true,
    };

    /// A client of a TCP listener.
    pub fn tcp(addr: IpAddr) -> Self {
        Self {
            peer: Peer::Tcp(addr),
            unix: false,
            internal: false,
        }
    }
}

impl Front {
    /// A front door without routes, which is not ready yet.
    pub fn new(instance: &str, config: &Config) -> Arc<Self> {
        let table = RoutingTable {
            generation: 0,
            routes: Routes::default(),
            settings: Settings::new(config),
        };
        Arc::new(Self {
            instance: instance.to_owned(),
            identity: format!("{}-{:016x}", std::process::id(), random()),
            started: Instant::now(),
            stats: Arc::default(),
            complaints: error_log::Complaints::default(),
            table: watch::Sender::new(Arc::new(table)),
            health: watch::Sender::new(Arc::new(vec!["starting".to_owned()])),
            refusal: watch::Sender::new(None),
            remark: watch::Sender::new(None),
            token: OnceLock::new(),
            closing: AtomicBool::new(false),
        })
    }

    pub fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.table.borrow())
    }

    pub fn watch_table(&self) -> watch::Receiver<Arc<RoutingTable>> {
        self.table.subscribe()
    }

    /// From here on new requests follow this table.
    pub fn publish(&self, table: RoutingTable) {
        self.table.send_replace(Arc::new(table));
    }

    /// Why the gateway is not ready; empty when it is.
    pub fn health(&self) -> Arc<Vec<String>> {
        match &*self.refusal.borrow() {
            Some(refusal) => Arc::new(vec![refusal.why.clone()]),
            None => Arc::clone(&self.health.borrow()),
        }
    }

    /// Says whether the gateway is ready, and if not, why.
    pub fn set_health(&self, reasons: Vec<String>) {
        self.health.send_if_modified(|current| {
            let change = **current != reasons;
            *current = Arc::new(reasons);
            change
        });
    }

    /// While set, a request whose door is not open is answered 503 at once instead of waiting, and
    /// so are those that wait now; `/readyz` gives the reason. `/healthz`, the control socket and
    /// what is served by others stay up.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.refusal.send_replace(refusal.map(Arc::new));
    }

    /// Why requests are refused now, if they are.
    pub fn refusal(&self) -> Option<Arc<Refusal>> {
        self.refusal.borrow().clone()
    }

    /// Says what is not as it should be, though everything is served.
    pub fn set_remark(&self, remark: Option<String>) {
        self.remark.send_replace(remark.map(Arc::from));
    }

    /// What is not as it should be, though everything is served.
    pub fn remark(&self) -> Option<Arc<str>> {
        self.remark.borrow().clone()
    }

    fn watch_refusal(&self) -> watch::Receiver<Option<Arc<Refusal>>> {
        self.refusal.subscribe()
    }

    /// Whether the gateway is on its way out: nothing that is away will come back.
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Says that the gateway is on its way out.
    pub fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
        // Whoever waits for a table learns that there will be none.
        self.table.send_modify(|_| {});
    }

    /// The bearer token of `/_gateway/…`; none until it is set: then nobody gets in over TCP.
    pub fn token(&self) -> Option<&str> {
        self.token.get().map(String::as_str)
    }

    /// Sets the bearer token, once for each process.
    pub fn set_token(&self, token: String) {
        let _ = self.token.set(token);
    }
}

/// A number that nobody can guess well enough to mistake one process for another. Not for secrets.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
