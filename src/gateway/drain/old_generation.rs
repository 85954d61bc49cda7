//! The end of an older generation: its work finishes within its budget, then its sidecars stop. While
//! none has been stopped, it can be recalled to serve again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::budget::{Cut, DrainTime, cut, within};
use super::holds::DrainHolds;
use crate::config::TUNNEL_DRAIN_ALONE;
use crate::control::protocol::{DrainCause, DrainStatus};
use crate::gateway::handover::failpoint;
use crate::gateway::outbox::Outbox;
use crate::gateway::progress::Reporter;
use crate::gateway::slot::Slot;
use crate::os::mutex::lock;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Door, first_few};
use crate::sidecar::SidecarState;
use crate::state::terms::ProgressStage;

/// How often a client that waits for a drain is told how it goes.
const TELL: Duration = Duration::from_secs(1);

/// How often a drain that takes long says in the log what it waits for.
const STILL_DRAINING: Duration = Duration::from_secs(30);

/// One generation on its way out.
#[derive(Debug)]
pub struct Drain {
    pub generation: u64,
    slots: Vec<(Arc<Slot>, DrainTime)>,
    holds: DrainHolds,
    begun: Instant,
    /// How long its sidecars run at least, idle or not.
    keep: Duration,
    /// Ends that time.
    let_go: CancellationToken,
    /// Ends all of it early.
    early: CancellationToken,
    /// How long requests go on after that.
    last: Duration,
    fate: Mutex<DrainFate>,
    recalled: CancellationToken,
    report: Reporter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainFate {
    /// All its sidecars run.
    Running,
    /// They serve again.
    Recalled,
    /// The first is being stopped.
    Ending,
}

impl Drain {
    /// A drain of these slots, each within its time, and none stopped before `keep` is over; `report`
    /// tells the client that asked for the restart. Where it ends early, requests go on for `last`.
    pub fn new(
        generation: u64,
        slots: Vec<(Arc<Slot>, DrainTime)>,
        holds: DrainHolds,
        keep: Duration,
        last: Duration,
        report: Reporter,
    ) -> Arc<Self> {
        // What was told to finish its work cannot be asked to serve again.
        let told = slots.iter().any(|(slot, _)| slot.spec().drain.is_some());
        let longest = slots.iter().filter_map(|(_, time)| time.requests).max();
        let keep = keep.min(longest.unwrap_or(Duration::MAX));
        Arc::new(Self {
            generation,
            slots,
            holds,
            begun: Instant::now(),
            keep: if told { Duration::ZERO } else { keep },
            let_go: CancellationToken::new(),
            early: CancellationToken::new(),
            last,
            fate: Mutex::new(DrainFate::Running),
            recalled: CancellationToken::new(),
            report,
        })
    }

    /// Takes its sidecars back, which all run; nobody hears of its end then. False when the first is
    /// being stopped already.
    pub fn recall(&self) -> bool {
        let mut fate = lock(&self.fate);
        let recalled = *fate == DrainFate::Running;
        if recalled {
            *fate = DrainFate::Recalled;
            self.recalled.cancel();
        }
        recalled
    }

    /// Its sidecars need not run longer than their work takes: it will not serve again.
    pub fn let_go(&self) {
        self.let_go.cancel();
    }

    /// Ends it before its time: its requests and tunnels go on no longer than in a stop.
    pub fn end_early(&self) {
        self.let_go();
        self.early.cancel();
    }

    pub fn ends_early(&self) -> bool {
        self.early.is_cancelled()
    }

    /// Whether it has no work left, and only waits whether it is to serve again.
    pub fn is_idle(&self) -> bool {
        let idle = |(slot, _): &(Arc<Slot>, DrainTime)| {
            let counts = slot.backend().tickets.counts();
            let sessions = slot.backend().sessions_idle();
            counts.requests == 0 && counts.tunnels == 0 && sessions.is_none()
        };
        self.kept_for().is_some() && self.holds.leases.count() == 0 && self.slots.iter().all(idle)
    }

    /// How much longer its sidecars run in any case.
    fn kept_for(&self) -> Option<Duration> {
        let left = self.keep.checked_sub(self.begun.elapsed())?;
        (!self.let_go.is_cancelled()).then_some(left)
    }

    /// Waits until a sidecar need not run any more to serve again; one that died cannot.
    async fn kept(&self, slot: &Slot) {
        let mut state = slot.sidecar().watch();
        tokio::select! {
            () = tokio::time::sleep_until(self.begun + self.keep) => {}
            () = self.let_go.cancelled() => {}
            _ = state.wait_for(|state| !matches!(state, SidecarState::Ready { .. })) => {}
        }
    }

    /// A sidecar is to be stopped: false when it serves again.
    fn end(&self) -> bool {
        let mut fate = lock(&self.fate);
        if *fate == DrainFate::Recalled {
            return false;
        }
        *fate = DrainFate::Ending;
        true
    }

    /// Runs it in a task; `drained` hears how that ended.
    pub fn start(self: Arc<Self>, drained: Outbox<(u64, TaskEnd)>) {
        tokio::spawn(async move {
            let drain = Arc::clone(&self);
            let end = caught(async move {
                let recalled = drain.recalled.clone();
                recalled.run_until_cancelled(drain.run()).await.is_none()
            });
            let end = match end.await {
                Ok(true) => return,
                Ok(false) => Ok(()),
                Err(why) => {
                    self.give_up().await;
                    Err(why)
                }
            };
            drained.send((self.generation, end));
        });
    }

    /// Ends what is there at once.
    async fn give_up(&self) {
        let slots = self.slots.iter().map(|(slot, _)| async {
            slot.backend().set(Door::Gone);
            slot.backend().cut();
            slot.stop(Duration::MAX).await;
        });
        join_all(slots).await;
    }

    /// Closes the doors, waits, cuts what is left, stops the sidecars.
    async fn run(&self) {
        failpoint::pass("task.drain");
        self.holds
            .leases
            .tell_drain(DrainCause::Restart, self.limit());
        let slots = self.slots.iter().map(|(slot, time)| async {
            match time.sessions {
                Some(_) => slot.backend().retire(),
                None => slot.backend().set(Door::Gone),
            }
            let finished = self.finish(slot, *time);
            let mut left = Cut::new();
            let finished = tokio::join!(finished, slot.tell_drain(time.requests)).0;
            slot.backend().set(Door::Gone);
            if !finished {
                let what = format!("generation {}: drain time", self.generation);
                let leases = Some(&self.holds.leases);
                left = cut(&what, std::iter::once(slot.backend()), leases);
            }
            let ended = slot.backend().tickets.take_ended_early();
            self.report.cut(slot.name(), time.requests, left, ended);
            self.kept(slot).await;
            if self.end() {
                slot.stop(Duration::MAX).await;
            }
        });
        let all = join_all(slots);
        tokio::pin!(all);
        let mut told = (0, 0, 0);
        let mut tell = tokio::time::interval(TELL);
        let mut warn = tokio::time::interval_at(self.begun + STILL_DRAINING, STILL_DRAINING);
        loop {
            tokio::select! {
                biased;
                _ = &mut all => break,
                _ = warn.tick() => self.warn(),
                _ = tell.tick() => self.tell(&mut told),
            }
        }
        self.report.tell(
            ProgressStage::Drained,
            format!("generation {} is gone", self.generation),
        );
        info!(
            "[gateway] generation {} is gone after {} ms",
            self.generation,
            self.begun.elapsed().as_millis()
        );
    }

    /// Tells what is left, when it changed.
    fn tell(&self, told: &mut (u64, u64, u64)) {
        let DrainStatus {
            requests,
            tunnels,
            leases,
            ..
        } = self.status();
        let now = (requests, tunnels, leases);
        if now != std::mem::replace(told, now) && now != (0, 0, 0) {
            let mut left = format!("requests {requests}, tunnels {tunnels}");
            if leases > 0 {
                left.push_str(&format!(", {}", self.holds.leases.blockers().join(", ")));
            }
            self.report.tell(
                ProgressStage::Draining,
                format!("generation {} finishes its work: {left}", self.generation),
            );
        }
    }

    fn warn(&self) {
        let status = self.status();
        let left = status.left_ms.map_or("without limit".to_owned(), |left| {
            format!("for {} s more", left / 1000)
        });
        warn!(
            "[gateway] generation {} still drains, {left}: {}",
            self.generation,
            status.blockers.join(", ")
        );
    }

    /// What it still waits for.
    pub fn status(&self) -> DrainStatus {
        let mut status = DrainStatus {
            generation: self.generation,
            requests: 0,
            tunnels: 0,
            leases: self.holds.leases.count(),
            memory_bytes: None,
            pid: 0,
            left_ms: self
                .limit()
                .map(|limit| limit.saturating_sub(self.begun.elapsed()).as_millis() as u64),
            blockers: Vec::new(),
        };
        for (slot, time) in &self.slots {
            let counts = slot.backend().tickets.counts();
            status.requests += counts.requests as u64;
            status.tunnels += counts.tunnels as u64;
            status.blockers.extend(slot.backend().tickets.blockers());
            let idle = slot.backend().sessions_idle().zip(time.sessions);
            status.blockers.extend(idle.map(|(idle, limit)| {
                let left = limit.saturating_sub(idle).as_secs() + 1;
                format!(
                    "{}: its sessions, unless none asks within {left} s",
                    slot.name()
                )
            }));
        }
        status
            .blockers
            .extend(first_few(self.holds.leases.blockers().into_iter()));
        if let Some(left) = self.kept_for().filter(|_| status.blockers.is_empty()) {
            let seconds = left.as_secs() + 1;
            let text = format!("kept for {seconds} s, to serve again if the new copy fails");
            status.blockers.push(text);
        }
        status
    }

    /// Waits for the slot's work, for the leases and for what is lent; false when its time is over
    /// before. Tunnels are ended at the end of theirs.
    async fn finish(&self, slot: &Slot, time: DrainTime) -> bool {
        let DrainHolds { leases, lent } = &self.holds;
        let backend = slot.backend();
        let tunnels = async {
            tokio::time::sleep_until(self.begun + time.tunnels).await;
            backend.end_tunnels();
            // Longer than this only a handshake without an answer takes, which is cut with the rest.
            let _ = tokio::time::timeout(CLOSE_HANDSHAKE, backend.tickets.wait_tunnels()).await;
        };
        let requests = async {
            match time.requests {
                Some(limit) => tokio::time::sleep_until(self.begun + limit).await,
                None => std::future::pending().await,
            }
        };
        let early = async {
            self.early.cancelled().await;
            let begun = Instant::now();
            tokio::time::sleep(TUNNEL_DRAIN_ALONE.min(self.last)).await;
            backend.end_tunnels();
            tokio::time::sleep_until(begun + self.last).await;
        };
        let work = async {
            let sessions = self.sessions_over(backend, time);
            tokio::join!(sessions, leases.released(), lent.returned());
            // A request of a session may have come while the others were waited for.
            backend.set(Door::Gone);
            backend.tickets.wait_all().await;
        };
        tokio::select! {
            biased;
            () = work => true,
            _ = async { tokio::join!(requests, tunnels) } => false,
            () = early => false,
        }
    }

    /// Waits until nothing is under way, and no session that this copy made has asked for its time of
    /// silence. Before the end of the drain its sessions go to the new copy, so that what is under way
    /// then, such as a long poll, can end.
    async fn sessions_over(&self, backend: &Backend, time: DrainTime) {
        let Some(idle) = time.sessions else {
            return backend.tickets.wait_all().await;
        };
        let silence = async {
            loop {
                backend.tickets.wait_all().await;
                let quiet = backend.sessions_idle();
                let left = quiet.and_then(|quiet| idle.checked_sub(quiet));
                match left.filter(|left| !left.is_zero()) {
                    Some(left) => tokio::time::sleep(left).await,
                    None => return,
                }
            }
        };
        let last = time.requests.map(|limit| limit - idle.min(limit / 2));
        within(self.begun, last, silence).await;
    }

    /// How long it may take; none means for ever.
    fn limit(&self) -> Option<Duration> {
        self.slots
            .iter()
            .try_fold(Duration::ZERO, |most, (_, time)| {
                Some(most.max(time.requests?))
            })
    }

    /// The sidecars that are on their way out.
    pub fn slots(&self) -> impl Iterator<Item = Arc<Slot>> {
        self.slots.iter().map(|(slot, _)| Arc::clone(slot))
    }
}
