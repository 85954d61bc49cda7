//! After the hand-over, the old process's part: nobody new, kept connections go to the successor,
//! then the end.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::gateway::budget::RESTART_MARGIN;
use crate::gateway::generation::SidecarAddresses;
use crate::gateway::handover::successor_side::Offered;
use crate::gateway::handover::{failpoint, migrate};
use crate::gateway::lease::Claim;
use crate::gateway::lifecycle::{Budget, Event, Phase};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::run_loop::Gateway;
use crate::proxy::{Address, Backend, CLOSE_HANDSHAKE, Door, Upstream, Workers, close_tunnels};

impl Gateway {
    /// How long this process may finish its work before its end is forced.
    pub fn yield_limit(&self) -> Option<Duration> {
        let budget = self.handing.as_ref().map(|handing| handing.budget)?;
        Some(self.drain_time(budget)? + RESTART_MARGIN)
    }

    /// Accepts nobody any more. Tells which generation drains.
    pub fn yield_to(&mut self, generation: u64, budget: Budget) -> Option<u64> {
        let current = Arc::clone(self.current.as_ref()?);
        let Offered { info, sidecars } = self.handing.as_mut()?.offered.take()?;
        let handing = self.handing.as_ref()?;
        let pid = handing.successor.pid;
        self.report = handing.report.clone();
        info!(
            "[gateway] pid {pid} serves generation {generation}; pid {} finishes its work",
            std::process::id()
        );
        self.wanted(&format!("handed over to pid {pid}"));
        // The successor's alone: should it die, whoever stands by has the next turn.
        self.lock = None;
        self.succeeded_by = Some((pid, info));
        self.workers.stop_accepting(true);
        self.taking_clients.cancel();
        self.doors = sidecars
            .keys()
            .map(|name| {
                (
                    name.clone(),
                    Backend::held(name, &format!("{name} is restarting")),
                )
            })
            .collect();
        self.redirect(&sidecars);
        self.context.front.publish(current.redirected(
            &self.doors,
            generation,
            self.context.workers,
        ));
        self.followers.drain(..).for_each(|task| task.abort());
        self.farewell(budget);
        failpoint::pass("old.yielded");
        let draining = self.drain_all(&current, budget);
        draining.or(Some(current.number))
    }

    /// Where the successor's sidecars are now.
    pub fn redirect(&mut self, sidecars: &SidecarAddresses) {
        for (name, door) in &self.doors {
            match sidecars.get(name) {
                Some(Some(address)) => {
                    door.set(Door::Open(Upstream::new(
                        Address::Socket(*address),
                        self.context.workers,
                        door.cut_token(),
                    )));
                }
                _ => door.set(Door::Held(format!("{name} is restarting").into())),
            }
        }
        // Requests may wait in an older process for what is two processes on by now.
        self.tell_sidecars(sidecars.clone());
    }

    /// Lets the clients end when it suits them, within the budget.
    fn farewell(&mut self, budget: Budget) {
        let restart = &self.loaded.config.restart;
        let requests = self.drain_time(budget);
        let overlapping = restart
            .tunnel_drain
            .map_or(crate::config::TUNNEL_DRAIN, |time| time.0);
        let (elsewhere, clients) = mpsc::unbounded_channel();
        let farewell = Farewell {
            leases: self.leases.claim(),
            elsewhere,
            sending: tokio::spawn(migrate::send(migrate::place(&self.paths.control), clients)),
            workers: Arc::clone(&self.workers),
            doors: self.doors.values().cloned().collect(),
            upstreams: self
                .context
                .front
                .table()
                .routes
                .backends()
                .cloned()
                .collect(),
            requests,
            tunnels: requests.map_or(overlapping, |requests| overlapping.min(requests)),
        };
        let (happened, hurry) = (self.happened.clone(), CancellationToken::new());
        self.hurry = hurry.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = farewell.run() => {}
                () = hurry.cancelled() => return,
            }
            let _ = happened.send(LoopEvent::ClientsGone);
        });
    }

    /// Ends when nothing is left to do.
    pub fn maybe_quiet(&mut self) {
        if self.clients_gone
            && self.drains.is_empty()
            && matches!(self.machine.phase(), Phase::Yielded { .. })
        {
            self.answers.all_drained();
            self.step(Event::Quiet);
        }
    }

    pub fn hurry(&mut self, at_once: bool) {
        self.hurry.cancel();
        self.wind(at_once);
    }

    /// The successor died and nobody else starts another: this process accepts again.
    pub fn resume(&mut self) {
        self.hurry.cancel();
        self.clients_gone = false;
        self.succeeded_by = None;
        let sockets = match self.listeners.handles() {
            Ok(sockets) => sockets,
            Err(error) => {
                warn!("[gateway] cannot accept again: {error}");
                return;
            }
        };
        match Workers::start(&self.context.front, sockets, self.context.workers) {
            // Those of before still have clients; they end with the process.
            Ok(workers) => self
                .retired
                .push(std::mem::replace(&mut self.workers, Arc::new(workers))),
            Err(error) => warn!("[gateway] cannot accept again: {error}"),
        }
        self.doors = BTreeMap::new();
        self.take_clients();
        self.goes_on();
    }
}

/// The end of the clients of a process that has handed over.
struct Farewell {
    /// Work that is no request.
    leases: Claim,
    /// Where clients go that are between two requests.
    elsewhere: mpsc::UnboundedSender<OwnedFd>,
    sending: JoinHandle<()>,
    workers: Arc<Workers>,
    /// To the successor's sidecars.
    doors: Vec<Arc<Backend>>,
    /// Plain upstreams.
    upstreams: Vec<Arc<Backend>>,
    requests: Option<Duration>,
    tunnels: Duration,
}

impl Farewell {
    async fn run(self) {
        let begun = Instant::now();
        let all = || self.doors.iter().chain(&self.upstreams);
        // Longer than the goodbye only a handshake without an answer takes, which is cut with the
        // rest.
        let tunnels = || close_tunnels(all(), begun + self.tunnels, CLOSE_HANDSHAKE);
        let work = async {
            tokio::join!(
                self.workers.migrate_to(self.elsewhere.clone()),
                tunnels(),
                self.leases.released()
            );
            // The last of the clients may have become a tunnel when the others had ended already.
            tunnels().await;
        };
        match self.requests {
            None => work.await,
            Some(time) => {
                if tokio::time::timeout_at(begun + time, work).await.is_err() {
                    all().for_each(|backend| backend.cut());
                    let _ = tokio::time::timeout(CLOSE_HANDSHAKE, self.workers.close_connections())
                        .await;
                }
            }
        }
        self.workers.end_migration();
        drop(self.elsewhere);
        // Those that are on their way.
        let _ = self.sending.await;
    }
}
