//! The front door of this process: its sockets, the threads that serve clients, and the routes that
//! they see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::generation::Generation;
use super::handover::migrate;
use super::listeners::Listeners;
use crate::config::{Config, LimitsSection};
use crate::os::descriptors;
use crate::proxy::{Backend, Front, ListenSocket, Workers};

/// How long the first clients may wait for the first generation before they are accepted: health
/// checks want an answer of a process whose server starts slowly, too.
const FIRST_CLIENTS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct FrontDoor {
    pub front: Arc<Front>,
    pub listeners: Listeners,
    /// The threads that accept clients.
    pub workers: Arc<Workers>,
    /// Threads from before this process took the service back: their clients are still there.
    retired: Vec<Arc<Workers>>,
    /// Where a successor takes over clients of this process.
    pub takeover: PathBuf,
    /// Ends the taking over of clients of processes that drain.
    taking_clients: CancellationToken,
    /// Until when the first clients are left in the listen queues; none when they are accepted.
    first_clients: Option<Instant>,
}

impl FrontDoor {
    /// A front door whose control socket is at `control`.
    pub fn new(front: Arc<Front>, listeners: Listeners, workers: Workers, control: &Path) -> Self {
        Self {
            front,
            listeners,
            workers: Arc::new(workers),
            retired: Vec::new(),
            takeover: migrate::place(control),
            taking_clients: CancellationToken::new(),
            first_clients: None,
        }
    }

    /// Leaves clients in the listen queues for now, where somebody else holds the sockets: they
    /// outlive this process there, whatever becomes of it before its first generation serves.
    pub fn delay_first_clients(&mut self) {
        self.first_clients = Some(Instant::now() + FIRST_CLIENTS);
    }

    /// When the first clients are to be accepted at the latest.
    pub fn first_clients(&self) -> Option<Instant> {
        self.first_clients
    }

    /// Accepts the first clients, if that has not been done.
    pub fn accept_first_clients(&mut self) {
        if self.first_clients.take().is_some() {
            self.accept();
        }
    }

    /// The sockets whose clients are still left in the queues.
    pub fn unaccepted(&self) -> Option<Vec<ListenSocket>> {
        self.first_clients
            .and_then(|_| self.listeners.handles().ok())
    }

    /// All threads that still have clients.
    pub fn all_workers(&self) -> Vec<Arc<Workers>> {
        std::iter::once(&self.workers)
            .chain(&self.retired)
            .cloned()
            .collect()
    }

    /// The backends of the present routes.
    pub fn upstreams(&self) -> Vec<Arc<Backend>> {
        self.front.table().routes.backends().cloned().collect()
    }

    /// Accepts clients, for the first time in this process.
    pub fn accept(&self) {
        match self.listeners.handles() {
            Ok(sockets) => self.workers.listen(sockets),
            Err(error) => warn!("[gateway] cannot share the listeners: {error}"),
        }
    }

    /// Sends new requests to this generation, from its addresses and within its limits.
    pub fn serve(&mut self, generation: &Generation) {
        self.front.publish(generation.table());
        self.accept_first_clients();
        self.apply(&generation.config);
    }

    /// Logs, limits clients and listens as a configuration says, also where it says what it said before:
    /// a socket whose path was removed has been opened again.
    pub fn apply(&mut self, config: &Config) {
        self.front.access_log.set(config);
        self.limit_connections(config.limits.connections);
        self.listeners.prune(&config.gateway.listen);
        if self.listeners.take_changed() {
            match self.listeners.handles() {
                Ok(sockets) => self.workers.listen(sockets),
                Err(error) => error!("[gateway] the listeners of before stay: {error}"),
            }
        }
    }

    /// Admits so many clients, or as many as the descriptors allow.
    fn limit_connections(&self, configured: usize) {
        let allowed = descriptors::clients(configured);
        // Nobody asked for the default.
        if allowed < configured && configured != LimitsSection::default().connections {
            info!(
                "[gateway] at most {allowed} clients at once: {configured} (limits.connections) need more descriptors than ulimit -n or LimitNOFILE= allows"
            );
        }
        self.workers.limit_connections(allowed);
    }

    /// Sends the requests that are still here to the sidecars of the generation that a successor
    /// serves.
    pub fn redirect(
        &self,
        current: &Generation,
        doors: &BTreeMap<String, Arc<Backend>>,
        number: u64,
    ) {
        let table = current.redirected(doors, number, self.workers.count());
        self.front.publish(table);
    }

    /// Accepts nobody any more: the service is the successor's.
    pub fn give_up(&self) {
        self.workers.stop_accepting();
        self.taking_clients.cancel();
    }

    /// Accepts again after a hand-over, with new threads; tells whether the sockets can be shared.
    pub fn accept_again(&mut self) -> bool {
        let sockets = match self.listeners.handles() {
            Ok(sockets) => sockets,
            Err(error) => {
                warn!("[gateway] cannot accept again: {error}");
                return false;
            }
        };
        match Workers::start(&self.front, sockets, self.workers.count()) {
            // Those of before still have clients; they end with the process.
            Ok(workers) => self
                .retired
                .push(std::mem::replace(&mut self.workers, Arc::new(workers))),
            Err(error) => warn!("[gateway] cannot accept again: {error}"),
        }
        true
    }

    /// Takes over clients of processes that drain, from now on.
    pub fn take_clients(&mut self) {
        self.taking_clients = CancellationToken::new();
        let (workers, end) = (Arc::clone(&self.workers), self.taking_clients.clone());
        migrate::take(&self.takeover, workers, end);
    }

    /// Ends every thread; what is left to log is logged.
    pub fn end(&self) {
        self.all_workers()
            .iter()
            .for_each(|workers| workers.abort());
        self.front.access_log.flush();
    }

    /// Removes the paths by which clients and draining processes find this one. The unix listeners
    /// stay where the service manager holds them (`held`).
    pub fn remove_paths(&self, control: &Path, held: bool) {
        if !held {
            self.listeners.remove_paths();
        }
        // The next process replaces a socket that was left behind; without one a client learns
        // sooner that nobody is here.
        let _ = std::fs::remove_file(control);
        let _ = std::fs::remove_file(&self.takeover);
    }
}
